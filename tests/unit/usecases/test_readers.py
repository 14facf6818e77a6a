"""From a table of readings to figures, beside a run's systems, in its report, and out again."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from renalkit.cli import app
from renalkit.domain.cohort import Cohort
from renalkit.domain.profile import patient_classes
from renalkit.domain.readings import ReadingValue
from renalkit.errors import ConfigError, InputRefused, StatisticUndefined, StoreError
from renalkit.metrics.agreement import IccForm, icc
from renalkit.metrics.bootstrap import BootstrapPlan
from renalkit.metrics.mrmc import obuchowski_rockette, one_shot
from renalkit.metrics.reader_study import Match, TieRule, majority_vote, model_at_reader
from renalkit.readers.pseudonyms import Pseudonyms
from renalkit.readers.readings import read_readings
from renalkit.store.cohorts import load_cohort
from renalkit.store.files import make_folder
from renalkit.store.runs import RunFolder, check_manifest, write_manifest
from renalkit.usecases.evaluate import evaluate_run
from renalkit.usecases.progress import Silent
from renalkit.usecases.reader_systems import system_calls
from renalkit.usecases.readers import ReadersRequest, evaluate_readers
from renalkit.usecases.reading_cases import CohortPlace, ReaderPlan, in_cohort
from renalkit.usecases.reading_options import reading_rules, scale_of
from renalkit.usecases.report import write_report
from renalkit.usecases.results import read_results
from renalkit.usecases.verify import verify_run
from renalkit.writers.readings import write_rjafroc
from renalkit.writers.report import render_readers

READERS = {"j1": "junior", "j2": "junior", "j3": "junior", "s1": "senior", "s2": "senior"}
FAST = BootstrapPlan(n_boot=100)
Rows = list[dict[str, str]]


def readings(classes: dict[str, str], arms: tuple[str, ...] = ("",), seed: int = 4) -> Rows:
    """Simulated readings: seniors see more, the second arm helps."""
    rng = np.random.default_rng(seed)
    rows: Rows = []
    for patient, name in classes.items():
        evidence = rng.normal()
        for place, (reader, group) in enumerate(READERS.items()):
            for k, arm in enumerate(arms):
                skill = (1.0 if group == "junior" else 1.6) + 0.5 * k
                seen = skill * (name == "malignant") + 0.6 * evidence + 0.8 * rng.normal()
                score = int(np.clip(round(40 + 15 * seen + place), 0, 100))
                rows.append(
                    {
                        "patient": patient,
                        "reader": reader,
                        "group": group,
                        "arm": arm,
                        "score": str(score),
                        "vote": str(int(score >= 50)),
                        "truth": name,
                    }
                )
    return rows


def written(path: Path, rows: Rows, without: tuple[str, ...] = ()) -> Path:
    names = [n for n in rows[0] if n not in without]
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, names, extrasaction="ignore")
        table.writeheader()
        table.writerows(rows)
    return path


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, made_run: ModuleType) -> Path:
    made = made_run.make_run(tmp_path_factory.mktemp("made"), n_patients=24)
    write_manifest(made.run)
    return made.run


@pytest.fixture
def run(original: Path, tmp_path: Path) -> RunFolder:
    shutil.copytree(original.parents[1], tmp_path / "work")
    return RunFolder(tmp_path / "work" / "runs" / "made-run")


@pytest.fixture(scope="module")
def cohort(original: Path) -> Cohort:
    return load_cohort(original.parents[1] / "cohorts" / "phantom")


@pytest.fixture(scope="module")
def classes(cohort: Cohort) -> dict[str, str]:
    return {p: str(c) for p, c in patient_classes(cohort).items()}


def evaluated(path: Path, run: RunFolder | None = None, **plan: Any) -> dict[str, Any]:
    """Figures of a table with the plan of most tests."""
    plan = {"ties": TieRule.NEGATIVE} | plan
    place = None if run is None else run.path
    rules = reading_rules((), ("malignant",), ("benign",))
    request = ReadersRequest(path, ReaderPlan(**plan), place, rules=rules, resampling=FAST)
    found = evaluate_readers(request, Silent())
    json.dumps(found, allow_nan=False)
    return found


# ------------------------------------------------------------------ beside a run


def test_readings_are_kept_in_the_run_reported_and_verified(
    run: RunFolder, classes: dict[str, str], tmp_path: Path
) -> None:
    table = written(tmp_path / "r.csv", readings(classes, ("without AI", "with AI")))
    found = evaluated(table, run, ai="resnet18")
    assert json.loads(run.readers.read_text()) == found
    assert found["cases"] == 24
    assert found["positive"] == "malignant"
    assert [s["label"] for s in found["systems"]] == ["multitask-us", "resnet18"]
    tables = make_folder(run.figures / "tables")
    (tables / "of-an-earlier-report.tex").write_text("")

    page = write_report(run.path, None, Silent()).read_text()
    assert 'id="readers"' in page
    majority = found["arms"][0]["groups"][0]["majority"]["sensitivity"]["value"]
    assert f"{majority:.3f}" in page
    assert "5 readers (3 junior, 2 senior) read 24 patients, each in 2 arms" in page
    assert "merged by majority; ties were called negative" in page
    assert "specificity (bootstrap of patients, matched in each), and at the systems" in page
    assert {"readers-majority.csv", "readers-mrmc.tex"} <= {p.name for p in tables.iterdir()}
    assert not (tables / "of-an-earlier-report.tex").exists()
    assert verify_run(run.path, Silent())["differences"] == []


def test_other_readings_take_the_place_of_the_first(
    run: RunFolder, classes: dict[str, str], tmp_path: Path
) -> None:
    first = evaluated(written(tmp_path / "r.csv", readings(classes, ("a", "b"))), run)
    kept = run.readings.read_text()
    again = evaluated(written(tmp_path / "s.csv", readings(classes, seed=5)), run)
    assert first["contrasts"]
    assert again["contrasts"] == []
    assert run.readings.read_text() != kept
    assert json.loads(run.readers.read_text()) == again
    files = check_manifest(run.path)
    assert (files.changed, files.missing, files.extra) == ((), (), ())


def test_no_name_of_the_clinic_enters_the_run(
    run: RunFolder, classes: dict[str, str], tmp_path: Path
) -> None:
    evaluated(written(tmp_path / "r.csv", readings(classes)), run)
    kept = list(csv.DictReader(run.readings.read_text().splitlines()))
    assert {r["patient"] for r in kept} == set(classes)
    assert {r["truth"] for r in kept if classes[r["patient"]] == "malignant"} == {"1"}
    assert str(tmp_path) not in run.readings_plan.read_text() + run.readers.read_text()


def test_changed_readings_and_figures_are_found(
    run: RunFolder, classes: dict[str, str], tmp_path: Path
) -> None:
    evaluated(written(tmp_path / "r.csv", readings(classes)), run)
    first, *_ = csv.DictReader(run.readings.read_text().splitlines())
    other = str(1 - int(first["vote"]))
    old = f"{first['score']},{first['vote']},{first['truth']}"
    text = run.readings.read_text()
    run.readings.write_text(text.replace(old, f"{first['score']},{other},{first['truth']}", 1))
    differences = verify_run(run.path, Silent())["differences"]
    assert {d["kind"] for d in differences} == {"file", "figure"}
    assert {d["where"].partition(":")[0] for d in differences} == {"readings.csv", "readers.json"}


def test_a_damaged_plan_is_said(run: RunFolder, classes: dict[str, str], tmp_path: Path) -> None:
    evaluated(written(tmp_path / "r.csv", readings(classes)), run)
    run.readings_plan.write_text('{"plan": {"ties": "often"}}')
    with pytest.raises(StoreError, match=r"readings\.json: the plan of the readings"):
        evaluate_run(run.path, Silent())


def test_figures_are_those_of_the_metrics(
    run: RunFolder, classes: dict[str, str], tmp_path: Path
) -> None:
    path = written(tmp_path / "r.csv", readings(classes, ("without", "with")))
    found = evaluated(path, run, systems=("resnet18",))
    table = read_readings(path, reading_rules((), ("malignant",), ("benign",)))
    t, scores, votes = table.truths(), *(table.values(kind) for kind in ReadingValue)
    juniors, seniors, everyone = found["arms"][0]["groups"]
    assert (juniors["group"], seniors["group"], everyone["group"]) == (
        *("junior", "senior", "all readers"),
    )
    called = majority_vote(votes[0, 3:], TieRule.NEGATIVE)
    assert seniors["ties"] == called.ties
    assert seniors["majority"]["counts"]["tp"] == int((called.calls & t).sum())
    forms = {c["form"]: c["estimate"]["value"] for c in everyone["icc"]}
    assert forms == {f.value: pytest.approx(icc(scores[0].T, f).estimate.value) for f in IccForm}
    (contrast,) = found["contrasts"]
    assert (contrast["first"], contrast["second"]) == ("with", "without")
    rows = {(r["group"], r["method"], r["to"]): r for r in contrast["groups"][:9]}
    both = "random readers and cases"
    by_or = rows["all readers", "Obuchowski-Rockette", both]
    expected = obuchowski_rockette(t, scores[::-1])
    assert by_or["p"] == pytest.approx(expected.contrasts[0].p_value)
    assert by_or["difference"]["value"] == pytest.approx(expected.contrasts[0].difference.value)
    by_u = rows["all readers", "U-statistic", both]
    assert by_u["p"] == pytest.approx(one_shot(t, scores[::-1]).contrasts[0].p_value)
    assert all(r["p_holm"] >= r["p"] for r in contrast["groups"] if r["p"] is not None)

    (system,) = found["systems"]
    results = read_results(run.path, Silent())
    (said,) = system_calls(results, ReaderPlan(systems=("resnet18",)))
    model = np.array([said.scores[c] for c in table.cases])
    assert system["point"]["counts"]["tp"] == int(
        (np.array([said.calls[c] for c in table.cases]) & t).sum()
    )
    rows = [r for r in system["matched"] if r["who"] == "junior"]
    assert [r["match"] for r in rows] == ["sensitivity", "specificity"]
    calls = majority_vote(votes[0, :3], TieRule.NEGATIVE).calls
    for row, match in zip(rows, Match, strict=True):
        matched = model_at_reader(t, model, calls, match, results.plan)
        assert row["difference"]["value"] == pytest.approx(matched.difference.value)
        assert row["difference"]["low"] == pytest.approx(matched.difference.low)
        assert row["p"] == pytest.approx(matched.test.p_value)
        assert row["p_holm"] >= row["p"]


def test_whom_the_ai_helps_and_misleads_counted_by_hand(
    run: RunFolder, classes: dict[str, str], tmp_path: Path
) -> None:
    rows = readings(classes, ("without", "with"))
    found = evaluated(written(tmp_path / "r.csv", rows), run, ai="resnet18")
    (said,) = system_calls(read_results(run.path, Silent()), ReaderPlan(systems=("resnet18",)))
    calls = {(r["patient"], r["arm"]): r["vote"] == "1" for r in rows if r["reader"] == "j1"}
    truth = {p: c == "malignant" for p, c in classes.items()}
    before = {p: calls[p, "without"] == t for p, t in truth.items()}
    after = {p: calls[p, "with"] == t for p, t in truth.items()}
    ai = {p: said.calls[p] == t for p, t in truth.items()}
    j1 = found["contrasts"][0]["changes"][0]
    assert j1["who"] == "j1"
    assert j1["all"] == {
        "decisions": 24,
        "right_before": sum(before.values()),
        "right_to_wrong": sum(before[p] and not after[p] for p in truth),
        "wrong_to_right": sum(after[p] and not before[p] for p in truth),
    }
    assert j1["ai_wrong"]["right_to_wrong"] == sum(
        before[p] and not after[p] and not ai[p] for p in truth
    )
    wrong = [p for p in truth if ai[p] and not before[p]]
    assert wrong
    assert j1["helped"]["value"] == pytest.approx(sum(after[p] for p in wrong) / len(wrong))
    assert (j1["helped"]["method"], j1["helped"]["n"]) == ("Clopper-Pearson", len(wrong))
    group = next(c for c in found["contrasts"][0]["changes"] if c["who"] == "junior")
    assert group["all"]["decisions"] == 3 * 24


# ------------------------------------------------------------------ votes, scores, few readers


def test_votes_alone_have_no_curve(run: RunFolder, classes: dict[str, str], tmp_path: Path) -> None:
    found = evaluated(written(tmp_path / "r.csv", readings(classes), ("score",)), run)
    arm = found["arms"][0]
    assert all(r["auc"] is None and r["roc"] is None for r in arm["readers"])
    assert all(g["auc"] is None for g in arm["groups"])
    assert all(s["areas"] == [] and s["matched"] for s in found["systems"])
    assert [c["form"] for c in arm["groups"][0]["icc"]] == [f.value for f in IccForm]
    page = render_readers(found, "page").html
    assert "votes are one operating point" in page.lower()
    assert "Intraclass correlation of votes" in page


def test_scores_alone_have_no_operating_point(
    classes: dict[str, str], run: RunFolder, tmp_path: Path
) -> None:
    path = written(tmp_path / "r.csv", readings(classes), ("vote",))
    found = evaluated(path, run, ties=None)
    arm = found["arms"][0]
    assert all(r["calls"] is None and r["auc"] for r in arm["readers"])
    assert all(g["majority"] is None and g["sensitivity"] is None for g in arm["groups"])
    assert all(s["matched"] == [] and s["areas"] for s in found["systems"])
    assert "Curves of the readers" in render_readers(found, "page").html
    cut = evaluated(path, vote_at=50)
    votes = evaluated(written(tmp_path / "v.csv", readings(classes)))
    assert cut["arms"] == votes["arms"]


def test_steps_of_a_stated_scale_have_weighted_kappa(
    classes: dict[str, str], tmp_path: Path
) -> None:
    rows = [r | {"score": str(1 + int(r["score"]) // 21)} for r in readings(classes)]
    path = written(tmp_path / "r.csv", rows)
    assert "quadratic" not in evaluated(path)["arms"][0]["groups"][-1]["pairs"][0]
    pairs = evaluated(path, scale=(1, 5, 1))["arms"][0]["groups"][-1]["pairs"]
    assert len(pairs) == 10
    assert pairs[0]["quadratic"]["value"] > pairs[0]["linear"]["value"]
    with pytest.raises(InputRefused, match="score 5 is not on the scale; expected: 1 to 4"):
        evaluated(path, scale=(1, 4, 1))


def test_one_reader_speaks_for_that_reader(
    run: RunFolder, classes: dict[str, str], tmp_path: Path
) -> None:
    rows = [r for r in readings(classes, ("without", "with")) if r["reader"] == "j1"]
    found = evaluated(written(tmp_path / "r.csv", rows), run, ties=None)
    (group,) = found["arms"][0]["groups"]
    assert group["kappa"] is None
    assert group["icc"] == []
    assert "this reader only" in group["notes"][0]
    assert {r["to"] for r in found["contrasts"][0]["groups"]} == {"fixed readers, random cases"}
    assert "this reader only" in render_readers(found, "page").html


def test_three_arms_have_a_test_of_all_of_them(classes: dict[str, str], tmp_path: Path) -> None:
    path = written(tmp_path / "r.csv", readings(classes, ("B-mode", "CEUS", "both")))
    found = evaluated(path, baseline="CEUS")
    assert [c["first"] for c in found["contrasts"]] == ["B-mode", "both"]
    assert [r["figure"] for r in found["overall"]] == ["AUC", "sensitivity", "specificity"]
    assert evaluated(path)["overall"][0] == found["overall"][0]


# ------------------------------------------------------------------ names and truth


@pytest.fixture
def keyed(cohort: Cohort, tmp_path: Path) -> tuple[CohortPlace, Callable[[str], str]]:
    """A cohort whose patients were called MRN-1, MRN-2, ... and its key."""
    pseudonyms = Pseudonyms(b"k" * 32)
    file = tmp_path / "project.key"
    file.write_bytes(b"k" * 32)
    return CohortPlace(cohort, tmp_path / "cohorts" / "phantom", file), pseudonyms.patient


def test_names_of_the_clinic_find_their_patients_by_the_key(
    keyed: tuple[CohortPlace, Callable[[str], str]], tmp_path: Path
) -> None:
    place, key = keyed
    studies = [replace(s, patient=key(f"MRN-{i}")) for i, s in enumerate(place.cohort.studies)]
    cohort = Cohort("c", place.cohort.task, tuple(studies))
    place = CohortPlace(cohort, place.folder, place.key_file)
    names = {key(f"MRN-{i}"): f"MRN-{i}" for i in range(len(studies))}
    classes = {names[p]: str(c) for p, c in patient_classes(cohort).items()}
    path = written(tmp_path / "r.csv", readings(classes), ("truth",))
    table, left_out = in_cohort(read_readings(path), place, None, "r.csv")
    assert set(table.cases) == set(names)
    assert table.truth == {p: c == "malignant" for p, c in patient_classes(cohort).items()}
    assert left_out == {"excluded": {}, "without_class": 0, "not_read": 0}

    few = {n: c for n, c in classes.items() if n != "MRN-3"}
    path = written(tmp_path / "r.csv", readings(few | {"MRN-77": "benign", "MRN3": "benign"}))
    words = reading_rules((), ("malignant",), ("benign",))
    with pytest.raises(InputRefused, match="2 of 25 cases are no patients .* MRN-77, MRN3"):
        in_cohort(read_readings(path, words), place, None, "r.csv")
    without = CohortPlace(cohort, place.folder)
    with pytest.raises(InputRefused, match="the cohort's key beside it.*--key-file"):
        in_cohort(read_readings(path, words), without, None, "r.csv")

    path = written(tmp_path / "r.csv", readings(few), ("truth",))
    _, left_out = in_cohort(read_readings(path), place, None, "r.csv")
    assert left_out["not_read"] == 1

    both = readings(few | {key("MRN-5"): "benign"})
    path = written(tmp_path / "r.csv", both, ("truth",))
    with pytest.raises(InputRefused, match="1 patients stand under their name and under"):
        in_cohort(read_readings(path), place, None, "r.csv")


def test_excluded_patients_are_left_out_and_counted(
    cohort: Cohort, classes: dict[str, str], tmp_path: Path
) -> None:
    gone = sorted({e.patient for e in cohort.exclusions} - set(classes))
    assert gone
    path = written(tmp_path / "r.csv", readings(classes | {gone[0]: "benign"}), ("truth",))
    table, left_out = in_cohort(read_readings(path), CohortPlace(cohort, tmp_path), None, "r.csv")
    assert gone[0] not in table.cases
    assert sum(left_out["excluded"].values()) == 1


def test_another_truth_than_the_cohorts_is_refused_with_its_cases(
    cohort: Cohort, classes: dict[str, str], run: RunFolder, tmp_path: Path
) -> None:
    wrong = next(p for p, c in classes.items() if c == "benign")
    path = written(tmp_path / "r.csv", readings(classes | {wrong: "malignant"}))
    with pytest.raises(InputRefused, match=f"1 cases have another truth than the cohort: {wrong}"):
        evaluated(path, run)


def test_the_positive_class_may_be_the_other(
    run: RunFolder, classes: dict[str, str], tmp_path: Path
) -> None:
    rows = [r | {"vote": "benign" if r["vote"] == "0" else "malignant"} for r in readings(classes)]
    path = written(tmp_path / "r.csv", rows, ("score", "truth"))
    one, two = (
        evaluate_readers(
            ReadersRequest(path, ReaderPlan(positive=p, ties=TieRule.NEGATIVE), run.path), Silent()
        )
        for p in ("malignant", "benign")
    )
    first, second = (f["arms"][0]["readers"][0]["calls"] for f in (one, two))
    assert first["sensitivity"]["value"] == second["specificity"]["value"]
    mine, theirs = (f["systems"][0]["point"]["counts"] for f in (one, two))
    assert (mine["tp"], mine["fp"]) == (theirs["tn"], theirs["fn"])
    with pytest.raises(ConfigError, match="--positive: no class 'cyst'; there are benign"):
        evaluated(path, run, positive="cyst")


# ------------------------------------------------------------------ what cannot be used


def test_a_reader_who_read_half_of_the_cases(classes: dict[str, str], tmp_path: Path) -> None:
    half = set(sorted(classes)[::2])
    rows = [r for r in readings(classes) if r["reader"] != "j2" or r["patient"] in half]
    path = written(tmp_path / "r.csv", rows)
    with pytest.raises(InputRefused, match=r"12 of 120 scores are missing \(j2 lacks 12 of 24\)"):
        evaluated(path)
    found = evaluated(path, incomplete=True)
    assert (found["cases"], found["left_out"]["incomplete"]) == (12, 12)


def test_arms_that_different_readers_read_have_no_case_in_common(
    classes: dict[str, str], tmp_path: Path
) -> None:
    rows = [
        r
        for r in readings(classes, ("without", "with"))
        if (r["group"] == "junior") == (r["arm"] == "without")
    ]
    path = written(tmp_path / "r.csv", rows)
    with pytest.raises(InputRefused, match="scores are missing"):
        evaluated(path)
    with pytest.raises(StatisticUndefined, match="none of 24 cases was read by every reader"):
        evaluated(path, incomplete=True)


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ({"ties": None}, "--ties: senior are 2, whose votes can tie"),
        ({"ties": TieRule.CHAIR, "chair": "j1"}, "--chair: j1 is not one of the 2 senior"),
        ({"ties": TieRule.CHAIR, "chair": "x"}, "--chair: no reader 'x'; there are j1, j2"),
        ({"baseline": "with AI"}, "--baseline: no arm 'with AI'; there are ''"),
        ({"ai": "resnet18"}, "--system and --ai need --run"),
    ],
)
def test_plans_that_do_not_fit(
    classes: dict[str, str], tmp_path: Path, plan: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        evaluated(written(tmp_path / "r.csv", readings(classes)), **plan)


def test_systems_that_do_not_fit(run: RunFolder, classes: dict[str, str], tmp_path: Path) -> None:
    path = written(tmp_path / "r.csv", readings(classes))
    with pytest.raises(ConfigError, match="'unet' gives no classes in this run; multitask-us, res"):
        evaluated(path, run, systems=("unet",))
    with pytest.raises(ConfigError, match="--ai: the readings have one arm"):
        evaluated(path, run, ai="resnet18")
    with pytest.raises(ConfigError, match="--ties chair goes with --chair"):
        ReaderPlan(ties=TieRule.CHAIR)
    assert not run.readers.exists()


def test_one_class_and_no_truth(classes: dict[str, str], tmp_path: Path) -> None:
    sick = {p: c for p, c in classes.items() if c == "malignant"}
    path = written(tmp_path / "r.csv", readings(sick))
    with pytest.raises(StatisticUndefined, match=f"{len(sick)} positive and 0 negative cases"):
        evaluated(path)
    path = written(tmp_path / "r.csv", readings(classes), ("truth",))
    with pytest.raises(InputRefused, match=r"readings without truth.*--run or --cohort"):
        evaluated(path)


def test_calls_that_are_no_class_of_the_cohort(
    run: RunFolder, classes: dict[str, str], tmp_path: Path
) -> None:
    rows = readings(classes)
    rows[3]["vote"] = "cyst"
    path = written(tmp_path / "r.csv", rows, ("score", "truth"))
    with pytest.raises(InputRefused, match=r"r\.csv, line 5: the call 'cyst'.*negative/benign"):
        evaluated(path, run)


def test_readers_who_always_say_the_same_are_flagged(
    run: RunFolder, classes: dict[str, str], tmp_path: Path
) -> None:
    rows = [r | {"vote": "1", "score": "50"} for r in readings(classes, ("without", "with"))]
    path = written(tmp_path / "r.csv", rows, ("score",))
    found = evaluated(path, run)
    group = found["arms"][0]["groups"][-1]
    assert group["kappa"] is None
    assert any("no kappa" in note for note in group["notes"])
    assert all(r["p"] in (None, 1) for r in found["contrasts"][0]["groups"])
    assert "no kappa" in render_readers(found, "page").html


def test_words_for_columns_calls_and_scales() -> None:
    rules = reading_rules(("case=PatientID",), ("malignant",), ("benign",))
    assert rules.columns.case == "PatientID"
    assert rules.words.read("Malignant", where="") is True
    with pytest.raises(ConfigError, match="expected WHAT=COLUMN"):
        reading_rules(("PatientID",), (), ())
    with pytest.raises(ConfigError, match="0 means both"):
        reading_rules((), ("0",), ())
    assert scale_of("0:100") == (0, 100, None)
    for text in ("5", "5:1", "1:5:x", "1:5:1:1"):
        with pytest.raises(ConfigError, match="--scale"):
            scale_of(text)


# ------------------------------------------------------------------ the commands


def test_the_command_writes_a_page_of_its_own(classes: dict[str, str], tmp_path: Path) -> None:
    path = written(tmp_path / "r.csv", readings(classes, ("without", "with")))
    args = ["readers", "evaluate", str(path), "--positive", "malignant", "--negative", "benign"]
    done = CliRunner().invoke(app, [*args, "--ties", "left-out", "-o", str(tmp_path / "page")])
    assert done.exit_code == 0, done.output
    assert "with minus without" in done.output
    found = json.loads((tmp_path / "page" / "readers.json").read_text())
    assert found["ties"] == "left out"
    assert (tmp_path / "page" / "readers.html").is_file()
    assert (tmp_path / "page" / "figures" / "tables" / "readers-each.tex").is_file()
    told = CliRunner().invoke(app, [*args, "--ties", "left-out", "--json"])
    assert json.loads(told.stdout) == found


@pytest.mark.parametrize(("form", "name"), [("imrmc", "x.imrmc"), ("rjafroc", "x.xlsx")])
def test_what_is_exported_gives_the_same_figures(
    classes: dict[str, str], tmp_path: Path, form: str, name: str
) -> None:
    path = written(tmp_path / "r.csv", readings(classes, ("without", "with")))
    words = ["--positive", "malignant", "--negative", "benign"]
    made = tmp_path / name
    done = CliRunner().invoke(
        app, ["readers", "export", str(path), "--format", form, "-o", str(made), *words]
    )
    assert done.exit_code == 0, done.output
    assert (tmp_path / "x-cases.csv").is_file() is (form == "rjafroc")
    first = evaluated(written(path, readings(classes, ("without", "with")), ("vote",)))
    second = evaluated(made)
    one, two = ({r["reader"]: r["auc"] for r in f["arms"][0]["readers"]} for f in (first, second))
    assert one == two
    assert first["contrasts"][0]["groups"][-1]["p"] == pytest.approx(
        second["contrasts"][0]["groups"][-1]["p"]
    )


def test_numbered_cases_and_readers_without_groups_find_theirs(
    run: RunFolder, classes: dict[str, str], tmp_path: Path
) -> None:
    table = read_readings(
        written(tmp_path / "r.csv", readings(classes)),
        reading_rules((), ("malignant",), ("benign",)),
    )
    cases = write_rjafroc(table, tmp_path / "x.xlsx")
    roster = tmp_path / "roster.csv"
    roster.write_text("reader,group\n" + "".join(f"{r},{g}\n" for r, g in READERS.items()))
    request = ReadersRequest(
        tmp_path / "x.xlsx", ReaderPlan(), run.path, roster=roster, cases=cases
    )
    found = evaluate_readers(request, Silent())
    assert [g["group"] for g in found["arms"][0]["groups"]] == ["junior", "senior", "all readers"]
    assert found["cases"] == len(classes)
    with pytest.raises(InputRefused, match="24 of 24 cases are no patients of this cohort: 1, 2"):
        evaluate_readers(replace(request, cases=None), Silent())
    text = cases.read_text()
    cases.write_text(text.replace("\n2,", "\n99,"))
    with pytest.raises(InputRefused, match=r"1 of 24 cases have no patient in x-cases\.csv: 2"):
        evaluate_readers(request, Silent())
    cases.write_text(text.replace("\n2,", "\n1,"))
    with pytest.raises(InputRefused, match="line 3: a case or patient that stands twice"):
        evaluate_readers(request, Silent())


def test_simulated_readings_find_the_patients_that_ingest_read(tmp_path: Path) -> None:
    study, cohort = tmp_path / "study", tmp_path / "cohorts" / "study"
    small = ["-n", "4", "--positive-share", "0.5", "--seconds", "1", "--fps", "2", "--workers", "1"]
    for words in (
        ["phantom", "cohort", *small, "-o", str(study)],
        ["ingest", str(study / "dicom"), "--labels", str(study / "labels.csv"), "-o", str(cohort)],
    ):
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
    words = ["readers", "evaluate", str(study / "readings.csv"), "--cohort", str(cohort)]
    done = CliRunner().invoke(app, [*words, "--ties", "negative", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["cases"], found["positive"]) == (4, "malignant")
    assert len(found["arms"][0]["readers"]) == 6
    shutil.rmtree(tmp_path / "cohorts" / "study.keys")
    told = CliRunner().invoke(app, words)
    assert isinstance(told.exception, InputRefused)
    assert "4 of 4 cases are no patients of this cohort: P0001, P0002" in str(told.exception)
    assert "--key-file" in str(told.exception)
