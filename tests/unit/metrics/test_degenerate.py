"""What every figure answers where the data hardly allow one: the tables of the guide, held here.

The expected answers are the cells of two tables in docs/guide-statistics.md. A cell is a number,
a number "without interval", the p-value of a test, or the letter of a refusal; letters are
explained below the first table with the words of the error.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from renalkit.errors import InputRefused, StatisticUndefined
from renalkit.metrics.agreement import (
    IccForm,
    KappaWeights,
    bland_altman,
    cohen_kappa,
    fleiss_kappa,
    icc,
    pairwise_kappas,
    percent_agreement,
    reader_dice,
)
from renalkit.metrics.auc_inference import (
    clustered_auc,
    delong,
    equal_aucs,
    mean_auc,
    paired_clustered_auc,
    paired_delong,
    unpaired_delong,
)
from renalkit.metrics.bootstrap import (
    Auc,
    BootstrapPlan,
    IntervalMethod,
    cluster_bootstrap,
    mean_of_rows,
    paired_cluster_bootstrap,
)
from renalkit.metrics.calibration import (
    CalibrationError,
    brier_decomposition,
    recalibration,
    reliability_curve,
    squared_errors,
)
from renalkit.metrics.characteristics import compare_categories, compare_numbers
from renalkit.metrics.classification import (
    TuningPart,
    auc,
    binary_confusion,
    choose_threshold,
    cumulative_auc,
    roc_curve,
)
from renalkit.metrics.comparisons import (
    PermutationPlan,
    auc_non_inferiority,
    auc_permutation_test,
    corrected_t_test,
    mcnemar,
    paired_calls,
    permutation_test,
    wilcoxon_signed_rank,
)
from renalkit.metrics.curves import (
    AveragePrecision,
    PartialAuc,
    RocPart,
    precision_recall_curve,
)
from renalkit.metrics.decision import decision_curve
from renalkit.metrics.detection import froc, match_lesions
from renalkit.metrics.drift import shift_of_numbers
from renalkit.metrics.inference import Estimate, Proportion
from renalkit.metrics.logistic import fit_ridge_logistic
from renalkit.metrics.mrmc import model_against_readers, obuchowski_rockette, one_shot
from renalkit.metrics.multiplicity import holm
from renalkit.metrics.predictive_values import likelihood_ratios, predictive_values
from renalkit.metrics.reader_study import Match, model_at_reader
from renalkit.metrics.sample_size import (
    AucPair,
    n_for_auc,
    n_for_difference,
    n_for_width,
    power_for_auc,
)
from renalkit.metrics.segmentation import BothEmpty, ScoreRule, score_segmentation
from renalkit.metrics.subgroups import equal_aucs_of_groups, equal_ranks_of_groups
from renalkit.usecases.stats import table_statistics
from renalkit.usecases.stats_options import Options
from renalkit.usecases.table_scores import Columns

GUIDE = Path(__file__).resolve().parents[3] / "docs" / "guide-statistics.md"
Case = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]

PLAN, EXCHANGES = BootstrapPlan(200), PermutationPlan(199)
BCA = BootstrapPlan(200, method=IntervalMethod.BCA)
TRUTH = np.arange(12) % 2
FIRST = np.array([0.38, 0.51, 0.26, 0.3, 0.41, 0.73, 0.37, 0.7, 0.36, 0.74, 0.42, 0.55])
SECOND = np.array([0.56, 0.51, 0.52, 0.55, 0.57, 0.66, 0.39, 0.63, 0.31, 0.54, 0.5, 0.69])


def with_one(value: float) -> np.ndarray:
    return np.where(np.arange(12) == 4, value, FIRST)


def case(truth: Any, first: Any, second: Any) -> Case:
    rows = [np.asarray(truth, dtype=int), *(np.asarray(s, float) for s in (first, second))]
    return rows[0], rows[1], rows[2], np.arange(rows[0].size)


INPUTS: dict[str, Case] = {
    "no case": case([], [], []),
    "one class": case(np.ones(12), FIRST, SECOND),
    "one patient": case([1], [0.6], [0.7]),
    "one of each class": case([0, 1], [0.3, 0.6], [0.4, 0.5]),
    "constant score": case(TRUTH, np.full(12, 0.5), SECOND),
    "ties everywhere": case(TRUTH, 0.4 + 0.2 * (FIRST > 0.5), 0.4 + 0.2 * (SECOND > 0.5)),
    "separated": case(TRUTH, 0.3 + 0.4 * TRUTH, SECOND),
    "a NaN": case(TRUTH, with_one(math.nan), SECOND),
    "an infinite": case(TRUTH, with_one(math.inf), SECOND),
    "identical": case(TRUTH, FIRST, FIRST),
}


def calls(scores: np.ndarray) -> np.ndarray:
    """1 at 0.5 and above; a score that is no number gives no call."""
    return np.where(np.isfinite(scores), scores >= 0.5, math.nan)


def grades(scores: np.ndarray) -> np.ndarray:
    """0, 1 or 2."""
    return np.where(np.isfinite(scores), np.digitize(scores, [0.4, 0.6]), math.nan)


def right(t: np.ndarray, scores: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(scores), (scores >= 0.5) == (t == 1), math.nan)


def counts(t: np.ndarray, scores: np.ndarray) -> Any:
    return binary_confusion(t, calls(scores))


def arms(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Two arms of two readers; the scores of the second reader are turned by a case."""
    return np.stack([np.stack([a, np.roll(a, 2)]), np.stack([b, np.roll(b, 2)])])


FIGURES: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], Any]] = {
    "AUC": lambda t, a, b, g: auc(t, a),
    "points of the ROC curve": lambda t, a, b, g: len(roc_curve(t, a).thresholds),
    "points of precision-recall": lambda t, a, b, g: len(precision_recall_curve(t, a).thresholds),
    "threshold, Youden": lambda t, a, b, g: choose_threshold(t, a, TuningPart.VALIDATION).value,
    "AUC, DeLong": lambda t, a, b, g: delong(t, a),
    "AUC of rows, Obuchowski": lambda t, a, b, g: clustered_auc(t, a, g),
    "AUC, bootstrap": lambda t, a, b, g: cluster_bootstrap(Auc(t, a), g, PLAN),
    "AUC, BCa bootstrap": lambda t, a, b, g: cluster_bootstrap(Auc(t, a), g, BCA),
    "macro AUC": lambda t, a, b, g: mean_auc([(t, a), (1 - t, -a)]),
    "cumulative AUC": lambda t, a, b, g: cumulative_auc(t, a),
    "partial AUC": lambda t, a, b, g: cluster_bootstrap(
        PartialAuc(t, a, RocPart(0.8), standardised=True), g, PLAN
    ),
    "average precision": lambda t, a, b, g: cluster_bootstrap(AveragePrecision(t, a), g, PLAN),
    "difference of AUCs, DeLong": lambda t, a, b, g: paired_delong(t, a, b),
    "difference of AUCs, Obuchowski": lambda t, a, b, g: paired_clustered_auc(t, (a, b), g),
    "difference of AUCs, bootstrap": lambda t, a, b, g: paired_cluster_bootstrap(
        Auc(t, a), Auc(t, b), g, PLAN
    ),
    "difference of AUCs, permutation": lambda t, a, b, g: auc_permutation_test(
        t, a, b, g, EXCHANGES
    ),
    "difference of AUCs, two groups": lambda t, a, b, g: unpaired_delong((t, a), (t, b)),
    "three equal AUCs": lambda t, a, b, g: equal_aucs(t, np.stack([a, b, np.roll(b, 2)])),
    "AUC not inferior": lambda t, a, b, g: auc_non_inferiority(t, (a, b), 0.05),
    "accuracy": lambda t, a, b, g: counts(t, a).accuracy.estimate(),
    "specificity": lambda t, a, b, g: counts(t, a).specificity.estimate(),
    "PPV at a prevalence": lambda t, a, b, g: predictive_values(counts(t, a), 0.2).ppv,
    "likelihood ratio +": lambda t, a, b, g: likelihood_ratios(counts(t, a)).positive,
    "McNemar": lambda t, a, b, g: mcnemar(paired_calls(right(t, a), right(t, b))),
    "calibration slope": lambda t, a, b, g: recalibration(t, a).slope,
    "calibration error": lambda t, a, b, g: cluster_bootstrap(CalibrationError(t, a), g, PLAN),
    "bins of the reliability curve": lambda t, a, b, g: len(reliability_curve(t, a, g, plan=PLAN)),
    "Brier score": lambda t, a, b, g: cluster_bootstrap(
        mean_of_rows(squared_errors(t, a)), g, PLAN
    ),
    "Brier score, resolution": lambda t, a, b, g: brier_decomposition(t, a).resolution,
    "net benefit at 0.5": lambda t, a, b, g: decision_curve(t, a, np.array([0.5]), g, PLAN).model[
        0
    ],
    "kappa of two readers": lambda t, a, b, g: pairwise_kappas(
        np.stack([calls(a), calls(b)], 1), 2
    )[0, 1],
    "weighted kappa": lambda t, a, b, g: pairwise_kappas(
        np.stack([grades(a), grades(b)], 1), 3, KappaWeights.QUADRATIC
    )[0, 1],
    "Fleiss' kappa": lambda t, a, b, g: fleiss_kappa(np.stack([calls(a), calls(b)], 1), 2),
    "percent agreement": lambda t, a, b, g: (
        percent_agreement(np.stack([calls(a), calls(b)], 1), 2).pairwise
    ),
    "ICC(2,1)": lambda t, a, b, g: icc(np.stack([a, b], 1), IccForm.TWO_SINGLE),
    "Bland-Altman bias": lambda t, a, b, g: bland_altman(a, b).bias,
    "two arms, Obuchowski-Rockette": lambda t, a, b, g: obuchowski_rockette(
        t, arms(a, b)
    ).contrasts[0],
    "two arms, U-statistics": lambda t, a, b, g: one_shot(t, arms(a, b)).contrasts[0],
    "model against readers": lambda t, a, b, g: model_against_readers(t, a, arms(b, b)[0]),
    "model at a reader's sensitivity": lambda t, a, b, g: (
        model_at_reader(t, a, calls(b), Match.SENSITIVITY, PLAN).difference
    ),
    "mean Dice": lambda t, a, b, g: cluster_bootstrap(mean_of_rows(a), g, PLAN),
    "difference of Dice, bootstrap": lambda t, a, b, g: paired_cluster_bootstrap(
        mean_of_rows(a), mean_of_rows(b), g, PLAN
    ),
    "difference of Dice, Wilcoxon": lambda t, a, b, g: wilcoxon_signed_rank(a, b, g),
    "difference of Dice, permutation": lambda t, a, b, g: permutation_test(
        mean_of_rows(a), mean_of_rows(b), g, EXCHANGES
    ),
    "difference over folds": lambda t, a, b, g: corrected_t_test(a - b, 80, 20),
    "AUC in two subgroups": lambda t, a, b, g: equal_aucs_of_groups([(t, a), (t, b)]),
    "ranks in two subgroups": lambda t, a, b, g: equal_ranks_of_groups([a[t == 0], a[t == 1]]),
    "numbers of two groups": lambda t, a, b, g: compare_numbers([a[t == 0], a[t == 1]]),
    "drift of a number": lambda t, a, b, g: shift_of_numbers(a, b),
}


# ------------------------------------------------------------------ answers as the guide prints them


def answer(made: Any) -> str:
    """As a cell: number, number without interval, or p-value."""
    if isinstance(made, int):
        return str(made)
    if isinstance(made, float):
        return f"{made:.2f}"
    if isinstance(made, Estimate):
        assert made.method
        if made.method.startswith("exact bound"):
            return made.text(2)
        if math.isnan(made.low):
            assert made.method.startswith("no interval")
            return f"{made.value:.2f}, no interval"
        return f"{made.value:.2f}"
    p = getattr(made, "p_value", math.nan)
    if p is None:
        assert made.test.startswith("no test")
        return "no test"
    assert 0 <= p <= 1
    words = f"p {p:.2f}" if p >= 0.005 else "p < 0.01"
    value = getattr(made, "estimate", None)
    return f"{answer(value)}, {words}" if value else words


def section(heading: str) -> list[list[str]]:
    """Rows of the first table below a heading of the guide, as cells."""
    text = GUIDE.read_text(encoding="utf-8").split(f"\n### {heading}\n")[1].split("\n#")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[c.strip() for c in line.strip("|").split("|")] for line in lines]


@cache
def refusals() -> dict[str, list[str]]:
    """Letter of every refusal that the guide explains, and the words of its errors."""
    text = GUIDE.read_text(encoding="utf-8")
    lines = re.findall(r"^- \*\*([a-z])\*\* (.*(?:\n  .*)*)", text, re.MULTILINE)
    return {letter: re.findall(r"`([^`]+)`", rest) for letter, rest in lines}


@cache
def cells() -> dict[tuple[str, str], str]:
    head, _, *rows = section("Two classes, readers and comparisons")
    return {(r[0], name): c for r in rows for name, c in zip(head[1:], r[1:], strict=True)}


def test_the_guide_has_every_figure_and_input():
    assert list(cells()) == [(figure, given) for figure in FIGURES for given in INPUTS]


@pytest.mark.parametrize("given", INPUTS)
@pytest.mark.parametrize("figure", FIGURES)
def test_answers_are_those_of_the_guide(figure: str, given: str) -> None:
    cell = cells()[figure, given]
    if cell in refusals():
        with pytest.raises(StatisticUndefined) as told:
            FIGURES[figure](*INPUTS[given])
        assert any(words in str(told.value) for words in refusals()[cell]), str(told.value)
        return
    assert answer(FIGURES[figure](*INPUTS[given])) == cell


# ------------------------------------------------------------------ lesions, masks, planning

NO_MASK = np.zeros((8, 8), dtype=bool)
MASK = np.pad(np.ones((3, 3), dtype=bool), (2, 3))
ONE_CLASS = np.ones(4), np.arange(4.0)


def scored(reference: np.ndarray, prediction: np.ndarray, rule: ScoreRule | None = None) -> str:
    found = score_segmentation(reference, prediction, None, rule)
    return f"Dice {found.dice:.2f}, HD95 {found.hd95:.2f}, note: {found.note}"


def categories(*rows: list[int]) -> str:
    return compare_categories(np.array(rows)).test


def no_marks() -> np.ndarray:
    return np.array([])


OTHERS: dict[tuple[str, str], Callable[[], Any]] = {
    ("recall of lesions", "no lesion"): lambda: Proportion(0, 0).estimate(),
    ("recall of lesions", "none of 5 found"): lambda: Proportion(0, 5).estimate().text(2),
    ("FROC", "no lesion"): lambda: froc(no_marks(), no_marks(), 0, 3),
    ("FROC", "nothing marked"): lambda: len(froc(no_marks(), no_marks(), 3, 3).points),
    ("FROC", "all marks score the same"): lambda: len(
        froc(np.ones(4), np.array([1, 0, 1, 0]), 3, 2).points
    ),
    ("FROC", "a mark with score NaN"): lambda: froc(np.array([math.nan]), np.ones(1), 1, 1),
    ("pairs of lesions and marks", "neither"): lambda: len(match_lesions([], []).pairs),
    ("outline", "nothing there, nothing marked"): lambda: scored(NO_MASK, NO_MASK),
    ("outline", "the same, both empty counted as 1"): lambda: scored(
        NO_MASK, NO_MASK, ScoreRule(both_empty=BothEmpty.ONE)
    ),
    ("outline", "nothing marked"): lambda: scored(MASK, NO_MASK),
    ("outline", "nothing there"): lambda: scored(NO_MASK, MASK),
    ("Dice between readers", "no case"): lambda: reader_dice(np.zeros((0, 3)), no_marks()),
    ("ICC", "all ratings the same"): lambda: icc(np.ones((4, 2)), IccForm.TWO_SINGLE),
    ("kappa", "both readers use one class"): lambda: cohen_kappa(np.array([[4, 0], [0, 0]])),
    ("categories of two groups", "one group"): lambda: categories([3, 4]),
    ("categories of two groups", "one category"): lambda: categories([3, 0], [4, 0]),
    ("categories of two groups", "one patient in each"): lambda: answer(
        compare_categories(np.array([[1, 0], [0, 1]]))
    ),
    ("numbers of two groups", "all unknown"): lambda: (
        compare_numbers([np.full(3, math.nan)] * 2).test
    ),
    ("AUC in subgroups", "one subgroup"): lambda: equal_aucs_of_groups([ONE_CLASS]).test,
    ("logistic model", "one class"): lambda: fit_ridge_logistic(
        np.arange(4.0)[:, None], np.ones(4), 1.0
    ),
    ("logistic model", "a constant fact"): lambda: float(
        fit_ridge_logistic(np.ones((4, 1)), TRUTH[:4], 1.0)[1]
    ),
    ("adjusted p-values", "none"): lambda: holm(no_marks()),
    ("sample size", "AUC equal to the null"): lambda: n_for_auc(0.7, 0.7),
    ("sample size", "two equal AUCs"): lambda: n_for_difference(AucPair(0.8, 0.8, 0.5)),
    ("sample size", "AUC of 1"): lambda: n_for_auc(1.0),
    ("sample size", "interval of width 0"): lambda: n_for_width(0.8, 0.0),
    ("power", "one patient of each class"): lambda: power_for_auc(0.8, 0.5, 1, 1),
}


@cache
def others() -> dict[tuple[str, str], str]:
    return {(r[0], r[1]): r[2] for r in section("Lesions, masks, groups and planning")[2:]}


def test_the_guide_has_every_other_case():
    assert list(others()) == list(OTHERS)


@pytest.mark.parametrize("place", range(len(OTHERS)))
def test_other_answers_are_those_of_the_guide(place: int) -> None:
    key, make = list(OTHERS.items())[place]
    cell = others()[key]
    if cell.startswith("refused: "):
        with pytest.raises((StatisticUndefined, ValueError)) as told:
            make()
        assert cell.removeprefix("refused: ") in str(told.value)
        return
    found = make()
    assert (found if isinstance(found, str) else answer(found)) == cell


# ------------------------------------------------------------------ the whole of `renalkit stats`


def unexplained(found: Any, place: str = "") -> list[str]:
    """Figures without a value or an interval that do not say why."""
    if isinstance(found, list):
        return [p for k, one in enumerate(found) for p in unexplained(one, f"{place}[{k}]")]
    if not isinstance(found, dict):
        return []
    silent = {"value", "low", "high"} <= set(found) and None in (found["value"], found["low"])
    here = [place] if silent and not found.get("note") else []
    return here + [p for k, one in found.items() for p in unexplained(one, f"{place}.{k}")]


@pytest.mark.parametrize("given", INPUTS)
@pytest.mark.parametrize("rows", [1, 2])
def test_stats_says_why_a_figure_does_not_exist(tmp_path: Path, given: str, rows: int) -> None:
    truth, first, second, groups = (np.repeat(x, rows) for x in INPUTS[given])
    names = np.where(truth == 1, "x", "y")
    lines = zip(groups, names, first, second, strict=True)
    table = tmp_path / "t.csv"
    table.write_text("\n".join(["who,label,A,B", *(",".join(map(str, r)) for r in lines)]) + "\n")
    asked = Options(
        resamples=100,
        thresholds=("0.5", "youden"),
        partial=("specificity:0.8-1",),
        prevalence=0.2,
        margin=0.05,
        probabilities=True,
        decision=(0.5,),
    )
    columns = Columns("label", ("A", "B"), positive="x", cluster="who")
    if given in ("no case", "a NaN", "an infinite"):
        words = "no row is labelled" if given == "no case" else "line .*, column A"
        with pytest.raises(InputRefused, match=words):
            table_statistics(table, columns, asked)
        return
    found = table_statistics(table, columns, asked)
    json.dumps(found, allow_nan=False)
    assert unexplained(found) == []
