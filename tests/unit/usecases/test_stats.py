"""Statistics of any table: the figures of the metrics, nothing guessed, JSON without NaN."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from renalkit.cli import app, main
from renalkit.errors import ConfigError, InputRefused, StatisticUndefined
from renalkit.metrics.auc_inference import (
    Scale,
    clustered_auc,
    delong,
    equal_aucs,
    paired_clustered_auc,
    paired_delong,
    patient_means,
    unpaired_delong,
)
from renalkit.metrics.calibration import brier_score, calibration_error, recalibration
from renalkit.metrics.classification import (
    OperatingPoint,
    ThresholdRule,
    confusion_at,
    cumulative_auc,
    macro_auc,
)
from renalkit.metrics.comparisons import mcnemar, paired_calls
from renalkit.metrics.curves import RocPart, average_precision, partial_auc
from renalkit.metrics.multiplicity import benjamini_hochberg, holm
from renalkit.metrics.predictive_values import likelihood_ratios, predictive_values
from renalkit.usecases.stats import table_statistics
from renalkit.usecases.stats_options import Options
from renalkit.usecases.table_scores import Columns

FEW = Options(resamples=100)


class Made:
    """A table of scored rows: three systems, `frames` rows per patient."""

    def __init__(self, folder: Path, patients: int = 60, frames: int = 1) -> None:
        rng = np.random.default_rng(patients + frames)
        of_patient = rng.random(patients) < 0.4
        self.groups = np.repeat([f"p{i:03d}" for i in range(patients)], frames)
        self.truth = np.repeat(of_patient, frames).astype(int)
        shared = np.repeat(rng.normal(size=patients), frames)
        self.scores = {}
        for name, slope in (("A", 1.5), ("B", 0.9), ("C", 0.2)):
            logit = slope * (2 * self.truth - 1) / 2 + shared + rng.normal(0, 0.6, self.truth.size)
            self.scores[name] = np.round(1 / (1 + np.exp(-logit)), 6)
        self.path = folder / "t.csv"
        words = np.where(self.truth == 1, "malignant", "benign")
        self.write({"subjekt": self.groups, "label": words, **self.scores})

    def write(self, columns: dict[str, Any]) -> None:
        lines = [",".join(columns)]
        lines += [",".join(map(str, row)) for row in zip(*columns.values(), strict=True)]
        self.path.write_text("\n".join(lines) + "\n")

    def stats(self, options: Options = FEW, **columns: Any) -> dict[str, Any]:
        asked = {"label": "label", "scores": ("A", "B"), "positive": "malignant"} | columns
        found = table_statistics(self.path, Columns(**asked), options)
        json.dumps(found, allow_nan=False)
        return found


def table(folder: Path, text: str) -> Path:
    path = folder / "t.csv"
    path.write_text(text)
    return path


def of(found: dict[str, Any], metric: str, kind: str = "analytic") -> list[dict[str, Any]]:
    return [d for d in found["differences"] if (d["metric"], d["kind"]) == (metric, kind)]


# ------------------------------------------------------------------ rows are patients


def test_every_figure_is_that_of_the_metrics(tmp_path: Path) -> None:
    made = Made(tmp_path)
    options = Options(
        resamples=100, thresholds=("A=0.6,B=0.4",), partial=("specificity:0.8-1",), prevalence=0.2
    )
    found = made.stats(options)
    assert (found["n_rows"], found["n_patients"]) == (60, 60)
    assert found["classes"] == {"malignant": made.truth.sum(), "benign": (1 - made.truth).sum()}
    first = found["scores"][0]
    expected = delong(made.truth, made.scores["A"])
    assert (first["auc"]["value"], first["auc"]["low"]) == (expected.value, expected.low)
    assert first["auc"]["method"] == "DeLong, logit"
    plain = delong(made.truth, made.scores["A"], scale=Scale.PLAIN)
    assert (first["auc_plain"]["low"], first["auc_plain"]["high"]) == (plain.low, plain.high)
    area = average_precision(made.truth, made.scores["A"])
    assert first["average_precision"]["value"] == pytest.approx(area)
    part = partial_auc(made.truth, made.scores["A"], RocPart(0.8), standardised=True)
    assert first["partial_auc"][0]["standardised"]["value"] == pytest.approx(part)
    (point,) = first["operating_points"]
    counts = confusion_at(made.truth, made.scores["A"], 0.6)
    assert point["counts"] == {"tp": counts.tp, "fp": counts.fp, "tn": counts.tn, "fn": counts.fn}
    assert point["threshold"]["from"] == "given"
    assert point["sensitivity"]["low"] == counts.sensitivity.interval()[0]
    ratios = likelihood_ratios(counts)
    assert point["likelihood_ratio_negative"]["high"] == ratios.negative.high
    assert point["ppv_at_prevalence"]["value"] == predictive_values(counts, 0.2).ppv.value


def test_differences_are_those_of_the_metrics(tmp_path: Path) -> None:
    made = Made(tmp_path)
    found = made.stats(Options(resamples=100, thresholds=("0.5",), margin=0.05))
    a, b = made.scores["A"], made.scores["B"]
    (row,) = of(found, "auc")
    expected = paired_delong(made.truth, a, b)
    assert (row["p"], row["statistic"]) == (expected.p_value, expected.statistic)
    assert row["difference"]["low"] == expected.difference.low
    right = [(s >= 0.5) == (made.truth == 1) for s in (a, b)]
    (row,) = of(found, "accuracy at 0.5", "calls")
    assert row["p"] == mcnemar(paired_calls(*right)).p_value
    positive = made.truth == 1
    (row,) = of(found, "sensitivity at 0.5", "calls")
    assert row["p"] == mcnemar(paired_calls(*(r[positive] for r in right))).p_value
    assert row["difference"]["n"] == positive.sum()
    (row,) = of(found, "auc", "permutation")
    assert 0 < row["p"] <= 1
    assert row["difference"]["low"] is None
    (row,) = of(found, "auc", "non-inferiority")
    assert row["margin"] == 0.05
    assert row["shown"] is (row["difference"]["low"] > -0.05)


@pytest.mark.parametrize(("how", "rule"), [("holm", holm), ("bh", benjamini_hochberg)])
def test_p_values_are_adjusted_over_the_pairs_of_one_figure(
    tmp_path: Path, how: str, rule: Any
) -> None:
    made = Made(tmp_path)
    found = made.stats(Options(resamples=100, adjust=how), scores=("A", "B", "C"))
    rows = of(found, "auc")
    assert [(r["first"], r["second"]) for r in rows] == [("A", "B"), ("A", "C"), ("B", "C")]
    assert [r["p_adjusted"] for r in rows] == rule(np.array([r["p"] for r in rows])).tolist()
    assert {r["family"] for r in rows} == {3}
    expected = equal_aucs(made.truth, np.stack(list(made.scores.values())))
    assert found["equality"]["p"] == expected.p_value


def test_unpaired_scores_are_compared_between_different_patients(tmp_path: Path) -> None:
    made = Made(tmp_path)
    first = np.arange(60) < 30
    made.write(
        {
            "label": np.where(made.truth == 1, "malignant", "benign"),
            "A": np.where(first, made.scores["A"].astype(str), ""),
            "B": np.where(first, "", made.scores["B"].astype(str)),
        }
    )
    found = made.stats(Options(resamples=100, thresholds=("0.5",)), unpaired=True)
    groups = [(made.truth[m], made.scores[n][m]) for n, m in (("A", first), ("B", ~first))]
    expected = unpaired_delong(*groups)
    (row,) = of(found, "auc")
    assert (row["p"], row["df"]) == (expected.p_value, expected.df)
    assert [s["n_patients"] for s in found["scores"]] == [30, 30]
    assert of(found, "sensitivity at 0.5", "calls")[0]["p"] is not None
    with pytest.raises(InputRefused, match="no row with a label and a score"):
        made.stats(FEW)
    text = "label,A,B\nmalignant,0.5,0.5\nbenign,0.1,\n"
    with pytest.raises(InputRefused, match=r"line 2.*several scores"):
        table_statistics(
            table(tmp_path, text),
            Columns("label", ("A", "B"), positive="malignant", unpaired=True),
            FEW,
        )


# ------------------------------------------------------------------ several rows per patient


def test_rows_of_one_patient_are_one_patient(tmp_path: Path) -> None:
    made = Made(tmp_path, patients=40, frames=5)
    options = Options(resamples=200, thresholds=("0.5",), prevalence=0.3)
    found = made.stats(options, cluster="subjekt")
    assert (found["n_rows"], found["n_patients"], found["most_rows_of_a_patient"]) == (200, 40, 5)
    a, b = made.scores["A"], made.scores["B"]
    area = found["scores"][0]["auc"]
    expected = clustered_auc(made.truth, a, made.groups)
    assert (area["value"], area["low"], area["n"]) == (expected.value, expected.low, 40)
    naive = delong(made.truth, a)
    assert area["high"] - area["low"] > 1.5 * (naive.high - naive.low)
    (row,) = of(found, "auc")
    assert row["p"] == paired_clustered_auc(made.truth, (a, b), made.groups).p_value
    (point,) = found["scores"][0]["operating_points"]
    counts = confusion_at(made.truth, a, 0.5)
    for name in ("ppv", "npv"):
        figure = point[f"{name}_at_prevalence"]
        assert figure["value"] == pytest.approx(getattr(predictive_values(counts, 0.3), name).value)
        assert "bootstrap" in figure["method"]
    assert point["sensitivity"]["n"] == len(set(made.groups[made.truth == 1]))
    (row,) = of(found, "accuracy at 0.5", "calls")
    assert "permutation of patients" in row["test"]
    assert row["difference"]["n"] == 40


def test_averaged_rows_are_judged_as_patients(tmp_path: Path) -> None:
    made = Made(tmp_path, patients=40, frames=5)
    found = made.stats(FEW, cluster="subjekt", average=True)
    truth, means = patient_means(made.truth, made.scores["A"], made.groups)
    assert found["n_rows"] == found["n_patients"] == 40
    assert found["scores"][0]["auc"]["value"] == delong(truth, means).value
    with pytest.raises(StatisticUndefined, match="rows of both classes"):
        table_statistics(
            table(tmp_path, "who,label,A\na,x,1\na,y,2\nb,x,3\nb,y,4\n"),
            Columns("label", ("A",), positive="x", cluster="who", average=True),
            FEW,
        )


def test_the_order_of_rows_does_not_matter(tmp_path: Path) -> None:
    made = Made(tmp_path, patients=30, frames=4)
    options = Options(resamples=100, thresholds=("youden",), probabilities=True)
    one = made.stats(options, cluster="subjekt")
    lines = made.path.read_text().splitlines()
    made.path.write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    two = made.stats(options, cluster="subjekt")
    assert _rounded(one) == _rounded(two)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return round(value, 9) if isinstance(value, float) else value


@pytest.mark.parametrize("name", ["patient", "Patient_ID", "subject"])
def test_patients_that_repeat_must_be_named(tmp_path: Path, name: str) -> None:
    text = f"{name},label,A\na,x,1\na,x,2\nb,y,3\n"
    with pytest.raises(ConfigError, match=f"--cluster {name}"):
        table_statistics(table(tmp_path, text), Columns("label", ("A",), positive="x"), FEW)
    unique = text.replace("a,x,2", "c,x,2")
    assert table_statistics(table(tmp_path, unique), Columns("label", ("A",), positive="x"), FEW)


# ------------------------------------------------------------------ thresholds


def test_a_rule_on_the_judged_rows_says_that_it_is_optimistic(tmp_path: Path) -> None:
    made = Made(tmp_path)
    wanted = ("youden", "f1", "sensitivity:0.9", "specificity:0.9", "cost:10")
    found = made.stats(Options(resamples=100, thresholds=wanted, prevalence=0.3))
    points = found["scores"][0]["operating_points"]
    for point, rule in zip(
        points,
        (
            OperatingPoint(),
            OperatingPoint(ThresholdRule.F1),
            OperatingPoint(ThresholdRule.SENSITIVITY, 0.9),
            OperatingPoint(ThresholdRule.SPECIFICITY, 0.9),
            OperatingPoint(ThresholdRule.COST, None, 10, 0.3),
        ),
        strict=True,
    ):
        assert point["threshold"]["value"] == rule.threshold(made.truth, made.scores["A"])
        assert point["threshold"]["rule"] == rule.words
        assert "optimistic" in point["threshold"]["from"]
    assert all("optimistic" in r["thresholds_from"] for r in of(found, "accuracy at f1", "calls"))


def test_thresholds_may_come_from_rows_of_other_patients(tmp_path: Path) -> None:
    made = Made(tmp_path, patients=40, frames=3)
    tuning = np.arange(120) < 60
    words = np.where(made.truth == 1, "malignant", "benign")
    part = np.where(tuning, "validation", "test")
    made.write({"subjekt": made.groups, "part": part, "label": words, **made.scores})
    options = Options(resamples=100, thresholds=("youden",))
    columns = {"cluster": "subjekt", "tune": ("part", "validation"), "average": True}
    found = made.stats(options, **columns)
    assert (found["n_rows"], found["tuning"]) == (20, {"n_rows": 20, "n_patients": 20})
    threshold = found["scores"][0]["operating_points"][0]["threshold"]
    own = patient_means(made.truth[tuning], made.scores["A"][tuning], made.groups[tuning])
    assert threshold["value"] == OperatingPoint().threshold(*own)
    assert threshold["from"] == "rows set apart for it"
    part[59] = "test"
    made.write({"subjekt": made.groups, "part": part, "label": words, **made.scores})
    with pytest.raises(InputRefused, match="1 patients are among"):
        made.stats(options, **columns)
    with pytest.raises(InputRefused, match="all rows or none"):
        made.stats(options, cluster="subjekt", tune=("part", "train"))


def test_every_wrong_option_is_told_at_once(tmp_path: Path) -> None:
    made = Made(tmp_path)
    wrong = Options(
        thresholds=("best", "sensitivity", "A=0.5", "nan", "cost:0", "youden:0.3"),
        partial=("specificity", "specificity:0.9-0.8", "recall:0-1"),
        adjust="bonferroni",
        interval="normal",
        prevalence=1.0,
        margin=0.0,
        decision=(0.1, 1.5),
    )
    with pytest.raises(ConfigError) as told:
        made.stats(wrong)
    problems = told.value.problems
    assert len(problems) == 15
    for option in (
        "--threshold",
        "--partial",
        "--adjust",
        "--interval",
        "--prevalence",
        "--margin",
    ):
        assert any(p.startswith(option) for p in problems), option
    with pytest.raises(ConfigError) as told:
        Columns("label", ("A", "A"), negative=("x",), average=True)
    assert len(told.value.problems) == 3


# ------------------------------------------------------------------ tables


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("label,A\nx,1\ny,2\n", InputRefused, "no column B"),
        ("label,A,B\nx,1,one\ny,2,3\n", InputRefused, "line 2, column B"),
        ("label,A,B\nx,1,nan\ny,2,3\n", InputRefused, "line 2, column B"),
        ("label,A,B\ny,1,2\nz,1,2\n", InputRefused, "no row is labelled 'x'"),
        ("label,A,B\nx,1,2\ny,1,2\nz,1,2\n", ConfigError, "2 labels beside 'x'.*--negative"),
        ("label,A,B\n", InputRefused, "no row is labelled"),
        ("label,A,B\nx,,\ny,,\n", InputRefused, "no row with a label and a score"),
    ],
)
def test_tables_that_would_need_a_guess_are_refused(
    tmp_path: Path, text: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        table_statistics(table(tmp_path, text), Columns("label", ("A", "B"), positive="x"), FEW)


def test_rows_left_out_are_counted_by_reason(tmp_path: Path) -> None:
    text = "who,label,A,B\na,x,1,2\nb,y,2,1\nc,y,,1\nd,x,3,4\ne,,3,4\nf,z,3,4\ng,y,1,0\nh,y,,\n"
    columns = Columns("label", ("A", "B"), positive="x", negative=("y",), cluster="who")
    found = table_statistics(table(tmp_path, text), columns, FEW)
    assert (found["n_rows"], found["n_patients"]) == (4, 4)
    assert found["left_out"] == [
        {"why": "labelled z, which counts as neither", "rows": 1},
        {"why": "without a label", "rows": 1},
        {"why": "without a value in A", "rows": 1},
        {"why": "without a value in A, B", "rows": 1},
    ]
    missing = text.replace("b,y", ",y")
    with pytest.raises(InputRefused, match=r"line 3.*no patient"):
        table_statistics(table(tmp_path, missing), columns, FEW)


# ------------------------------------------------------------------ probabilities, votes, classes


def test_probabilities_are_checked_for_what_they_say(tmp_path: Path) -> None:
    made = Made(tmp_path)
    options = Options(resamples=100, probabilities=True, decision=(0.2, 0.4), curves=True)
    found = made.stats(options)["scores"][0]
    calibration = found["calibration"]
    p = made.scores["A"]
    expected = recalibration(made.truth, p)
    assert calibration["slope"]["value"] == expected.slope.value
    assert calibration["in_the_large"]["low"] == expected.in_the_large.low
    assert calibration["brier"]["value"] == pytest.approx(brier_score(made.truth, p))
    assert calibration["ece"]["value"] == calibration_error(made.truth, p)
    assert calibration["ece"]["low"] is None
    assert sum(b["n_rows"] for b in calibration["reliability_curve"]) == 60
    assert [c["threshold"] for c in found["decision_curve"]] == [0.2, 0.4]
    assert found["curves"]["roc"]["threshold"][0] is None
    assert len(found["curves"]["roc"]["true_positive_rate"]) == len(set(p)) + 1
    made.scores["A"] = made.scores["A"] * 10
    words = np.where(made.truth == 1, "malignant", "benign")
    made.write({"subjekt": made.groups, "label": words, **made.scores})
    found = made.stats(options)["scores"][0]
    assert "outside 0 to 1" in found["calibration"]["brier"]["note"]
    assert found["decision_curve"][0]["net_benefit"]["value"] is None


def test_votes_are_one_operating_point(tmp_path: Path) -> None:
    made = Made(tmp_path)
    vote = (made.scores["B"] > 0.5).astype(int)
    words = np.where(made.truth == 1, "malignant", "benign")
    made.write({"label": words, "A": made.scores["A"], "B": vote})
    found = made.stats(FEW)
    assert found["scores"][0]["notes"] == []
    assert "one operating point" in found["scores"][1]["notes"][0]


def test_several_classes_have_macro_and_cumulative_areas(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    truth = rng.integers(0, 3, 90)
    classes = np.array(["G1", "G2", "G3"])
    columns: dict[str, Any] = {"label": classes[truth]}
    chances = {}
    for name, noise in (("A", 1.0), ("B", 2.0)):
        odds = np.exp(1.5 * np.eye(3)[truth] + noise * rng.normal(size=(90, 3)))
        chances[name] = np.round(odds / odds.sum(axis=1, keepdims=True), 6)
        columns |= {f"{name}_{c}": chances[name][:, k] for k, c in enumerate(classes)}
        columns[f"{name}sum"] = chances[name] @ np.arange(3)
    lines = [
        ",".join(columns),
        *(",".join(map(str, r)) for r in zip(*columns.values(), strict=True)),
    ]
    path = table(tmp_path, "\n".join(lines) + "\n")
    asked = Columns("label", ("A", "B"), classes=tuple(classes))
    found = table_statistics(path, asked, FEW)
    json.dumps(found, allow_nan=False)
    first = found["scores"][0]
    assert first["auc_kind"] == "macro"
    assert first["auc"]["value"] == pytest.approx(macro_auc(truth, chances["A"]))
    assert first["accuracy"]["value"] == (chances["A"].argmax(axis=1) == truth).mean()
    assert [p["part"] for p in first["parts"]] == [f"{c} against the rest" for c in classes]
    assert first["accuracy"]["method"] == "Clopper-Pearson"
    called = chances["A"].argmax(axis=1)
    assert first["recall"]["G2"]["value"] == (called[truth == 1] == 1).mean()
    assert first["kappa_quadratic"]["value"] > 0
    doubled = path.read_text().splitlines()
    doubled = ["who," + doubled[0], *(f"{i // 2},{line}" for i, line in enumerate(doubled[1:]))]
    path.write_text("\n".join(doubled) + "\n")
    pairs = Columns("label", ("A", "B"), classes=tuple(classes), cluster="who")
    frames = table_statistics(path, pairs, FEW)["scores"][0]
    assert frames["recall"]["G2"]["value"] == first["recall"]["G2"]["value"]
    assert "bootstrap" in frames["accuracy"]["method"]
    assert frames["accuracy"]["n"] == 45
    assert found["differences"][0]["p_adjusted"] == found["differences"][0]["p"]
    ordered = Columns("label", ("Asum", "Bsum"), classes=tuple(classes))
    first = table_statistics(path, ordered, FEW)["scores"][0]
    assert first["auc_kind"] == "cumulative"
    area = cumulative_auc(truth, np.array(columns["Asum"]))
    assert first["auc"]["value"] == pytest.approx(area)
    assert [p["part"] for p in first["parts"]] == ["G2 or above", "G3 or above"]
    with pytest.raises(InputRefused, match="no column D_G1, D_G2, D_G3"):
        table_statistics(path, Columns("label", ("A", "D"), classes=tuple(classes)), FEW)


def test_a_class_without_scores_has_no_figures(tmp_path: Path) -> None:
    lines = ["label,A_a,A_b,A_c", "a,0.8,0.1,0.1", "b,0.2,0.7,0.1", "b,0.5,0.4,0.1", "c,,,"]
    path = table(tmp_path, "\n".join([*lines, "a,0.6,0.3,0.1"]) + "\n")
    found = table_statistics(path, Columns("label", ("A",), classes=("a", "b", "c")), FEW)
    json.dumps(found, allow_nan=False)
    score = found["scores"][0]
    assert score["auc"]["value"] is None
    assert score["recall"]["c"]["note"]
    assert score["recall"]["b"]["value"] == 0.5
    assert found["left_out"] == [{"why": "without a value in A_a, A_b, A_c", "rows": 1}]


# ------------------------------------------------------------------ what does not exist


DEGENERATE = {
    "constant score": "x,1,1\ny,1,1\nx,1,1\ny,1,1\n",
    "one of each": "x,2,1\ny,1,2\n",
    "one patient": "x,2,1\n",
    "one class": "x,2,1\nx,1,2\nx,3,4\n",
    "separated": "x,9,8\nx,8,9\nx,7,9\ny,1,2\ny,2,1\ny,3,1\n",
    "identical": "x,4,4\ny,1,1\nx,2,2\ny,3,3\nx,5,5\ny,2,2\n",
    "ties everywhere": "x,1,0\ny,0,1\nx,0,0\ny,1,1\nx,1,1\ny,0,0\n",
}


@pytest.mark.parametrize("name", DEGENERATE)
@pytest.mark.parametrize("frames", [False, True])
def test_degenerate_tables_have_an_answer(tmp_path: Path, name: str, frames: bool) -> None:
    lines = DEGENERATE[name].splitlines()
    lines = [f"{i // 2 if frames else i},{line}" for i, line in enumerate(lines)]
    path = table(tmp_path, "\n".join(["who,label,A,B", *lines]) + "\n")
    options = Options(
        resamples=100,
        thresholds=("1.5", "youden", "sensitivity:0.9"),
        partial=("sensitivity:0.8-1",),
        probabilities=True,
        decision=(0.5,),
        prevalence=0.3,
        margin=0.1,
        curves=True,
    )
    asked = Columns("label", ("A", "B"), positive="x", cluster="who")
    found = table_statistics(path, asked, options)
    json.dumps(found, allow_nan=False)
    for figure in _figures(found):
        assert figure["value"] is not None or figure["note"]
    (row,) = of(found, "auc")
    if name == "identical" and not frames:
        assert (row["difference"]["value"], row["p"]) == (0, 1)
    if name in ("one class", "one patient"):
        assert row["p"] is None
        assert row["difference"]["note"]


def _figures(value: Any) -> list[dict[str, Any]]:
    """Every figure anywhere below; each carries n, unit and how its interval was made."""
    if isinstance(value, list):
        return [f for v in value for f in _figures(v)]
    if not isinstance(value, dict):
        return []
    if {"value", "low", "high"} <= set(value):
        assert {"n", "unit", "method", "level"} <= set(value)
        return [value]
    return [f for v in value.values() for f in _figures(v)]


@given(st.integers(0, 2**32 - 1), st.integers(4, 30), st.booleans())
def test_no_table_gives_nan(tmp_path_factory: Any, seed: int, n: int, clustered: bool) -> None:
    rng = np.random.default_rng(seed)
    lines = [
        f"{rng.integers(n) if clustered else i},{rng.choice(['x', 'y'])},"
        f"{rng.integers(4)},{rng.random():.2f}"
        for i in range(n)
    ]
    if len({line.split(",")[1] for line in lines}) < 2:
        lines[0] = lines[0].replace("x", "q").replace("y", "x").replace("q", "y")
    path = table(tmp_path_factory.mktemp("any"), "\n".join(["who,label,A,B", *lines]) + "\n")
    asked = Columns("label", ("A", "B"), positive="x", cluster="who")
    options = Options(resamples=100, thresholds=("1",), probabilities=True, prevalence=0.4)
    json.dumps(table_statistics(path, asked, options), allow_nan=False)


# ------------------------------------------------------------------ the command


def test_the_command_prints_every_figure_with_n_and_method(tmp_path: Path) -> None:
    made = Made(tmp_path, patients=30, frames=2)
    words = ["stats", str(made.path), "--label", "label", "--positive", "malignant"]
    words += ["--scores", "A,B,C", "--cluster", "subjekt", "--resamples", "100"]
    words += ["--threshold", "0.5", "--threshold", "youden", "--probabilities"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0
    assert "60 rows of 30 patients" in done.stdout
    assert "intervals and tests count patients" in " ".join(done.stdout.split())
    assert "chosen on these very rows: optimistic" in done.stdout
    assert "Obuchowski 1997, AUC over 60 rows" in " ".join(done.stdout.split())
    assert "all 3 AUCs are equal" in done.stdout
    done = CliRunner().invoke(app, [*words, "--json"])
    found = json.loads(done.stdout)
    assert found["paired"] is True
    assert len(found["differences"]) == 3 * (3 + 2 * 3)


def test_words_of_a_table_are_not_markup(tmp_path: Path) -> None:
    path = table(tmp_path, "label,[red]A\n[b]x,1\ny,2\n[b]x,3\ny,1\n")
    words = ["stats", str(path), "--label", "label", "--positive", "[b]x", "--scores", "[red]A"]
    done = CliRunner().invoke(app, [*words, "--resamples", "100"])
    assert done.exit_code == 0
    assert "[red]A" in done.stdout
    assert "2 [b]x" in done.stdout


def test_a_wrong_option_ends_with_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Made(tmp_path)
    words = ["renalkit", "stats", str(made.path), "--label", "label", "--scores", "A"]
    for extra, code, told in (
        ([], 2, "one of them"),
        (["--positive", "malignant", "--threshold", "best"], 2, "--threshold"),
        (["--positive", "malignant", "--tune-on", "x"], 2, "COL=VALUE"),
        (["--positive", "malignant", "--decision", "a"], 2, "--decision"),
        (["--positive", "tumour"], 3, "no row is labelled 'tumour'"),
    ):
        monkeypatch.setattr("sys.argv", words + extra)
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == code
        assert told in capsys.readouterr().err
