"""Figures in groups of patients: who is in which group, small groups, interaction."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from renalkit.domain.cohort import ClassTask, Cohort
from renalkit.domain.geometry import MaskRLE
from renalkit.domain.image import Clip, Mode, Source
from renalkit.domain.prediction import Prediction, SystemRef, Unit
from renalkit.domain.sample import b_mode_samples
from renalkit.domain.study import Lesion, Roi, Scanner, Study
from renalkit.metrics.auc_inference import delong
from renalkit.store.runs import RunFolder
from renalkit.usecases.experiment import Experiment, jobs_of
from renalkit.usecases.progress import Silent
from renalkit.usecases.results import RunResults, system_results
from renalkit.usecases.subgroups import groupings_of, subgroups_csv, subgroups_of

TASK = ClassTask(("benign", "malignant"), "malignant")
GOOD, BAD = "M good", "M bad"


def study(n: int) -> Study:
    """Odd patients are malignant; every second pair is on the bad scanner; one in three is old."""
    pixels = np.full((1, 20, 24), n % 250, np.uint8)
    mask = np.zeros((20, 24), bool)
    mask[4:12, 5:15] = True
    clip = Clip(pixels, f"{n:064x}", Mode.B, Source(f"{n:064x}", "f-0", "png"))
    lesion = Lesion(
        f"l-{n:020x}",
        TASK.classes[n % 2],
        size_mm=(15.0, 20.0, 40.0, 41.0, 80.0)[n % 5],
        histology=("AML", "ccRCC", "oncocytoma", "pRCC")[n % 4],
        rois=(Roi(0, 0, MaskRLE.encode(mask)),),
    )
    return Study(
        f"s-{n:020x}",
        f"p-{n:020x}",
        (clip,),
        (lesion,),
        scanner=Scanner("M", "bad" if n % 4 >= 2 else "good"),
        site="H1" if n else "H2",
        covariates={"age_years": 70.0 if n % 3 == 0 else 40.0},
    )


def results(n: int = 80, classes: ClassTask = TASK) -> RunResults:
    """Scores follow the class on the good scanner and nothing on the bad one."""
    cohort = Cohort("c", classes, tuple(study(k) for k in range(n)))
    experiment = Experiment.model_validate(
        {
            "name": "e",
            "cohort": "c",
            "systems": [{"name": "multitask-us"}],
            "statistics": {"bootstrap": 200, "threshold": "half"},
        }
    )
    rng = np.random.default_rng(3)
    said = []
    for s in b_mode_samples(cohort):
        assert s.label is not None
        assert s.mask is not None
        bad = s.study.scanner.name == BAD
        p = float(np.clip(0.5 + (0 if bad else (s.label - 0.5) * 0.6) + rng.normal(0, 0.2), 0, 1))
        scores = (1 - p, p) if len(classes.classes) == 2 else (1 - p, p, 0.0)
        mask = MaskRLE.encode(np.roll(s.mask.decode(), 3 if bad else 1, axis=1))
        ref = SystemRef("multitask-us", "multitask-us", "0" * 64)
        said.append(Prediction(Unit.FRAME, s.key, scores, s.label, ref, 0, mask=mask))
    samples = {s.key: s for s in b_mode_samples(cohort)}
    how = (experiment.statistics, classes)
    (job,) = jobs_of(experiment)
    one = system_results((job, (0,), tuple(said), tuple(said)), samples, how, Silent())
    return RunResults(RunFolder(Path("none")), experiment, cohort, (one,))


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, object]]:
    """Variables of the one system by name and class."""
    (system,) = subgroups_of(results())["systems"]
    return {" ".join(filter(None, (v["name"], v["class"]))): v for v in system["variables"]}


def test_variables_and_their_levels(found) -> None:
    assert {k: [v["level"] for v in f["levels"]] for k, f in found.items()} == {
        "scanner": [BAD, GOOD],
        "site": ["H1", "H2"],
        "size": ["up to 20 mm", "20 to 40 mm", "40 to 70 mm", "over 70 mm"],
        "age": ["under 50 years", "65 years and over"],
        "histology benign": ["AML", "oncocytoma"],
        "histology malignant": ["ccRCC", "pRCC"],
    }
    sizes = {v["level"]: v["patients"] for v in found["size"]["levels"]}
    assert sizes == {
        "up to 20 mm": 32,
        "20 to 40 mm": 16,
        "40 to 70 mm": 16,
        "over 70 mm": 16,
    }, "40 mm is T1a: an edge belongs to the smaller sizes"


def test_a_scanner_on_which_a_system_fails_is_seen_and_tested(found) -> None:
    bad, good = found["scanner"]["levels"]
    assert bad["auc"]["value"] < 0.75 < 0.95 < good["auc"]["value"]
    # A box 10 wide shifted by 3, by 1.
    assert bad["dice"]["value"] == pytest.approx(0.7)
    assert good["dice"]["value"] == pytest.approx(0.9)
    assert bad["sensitivity"]["n"] == bad["positive"] == 20
    test = found["scanner"]["interaction"]
    assert test["auc"]["p"] < 0.001
    assert test["auc"]["p_holm"] > test["auc"]["p"]
    assert test["accuracy"]["p"] < 0.01


def test_a_histology_is_compared_with_all_patients_of_the_other_class(found) -> None:
    level = found["histology malignant"]["levels"][1]
    system = results().systems[0]
    truth = np.array([p.target for p in system.test])
    scores = np.array([(p.scores or ())[1] for p in system.test])
    which = np.array([int(p.key.patient[2:], 16) % 4 for p in system.test])
    wanted = (which == 3) | (truth == 0)
    assert level["auc"]["value"] == pytest.approx(delong(truth[wanted], scores[wanted]).value)
    assert level["auc"]["n"] == 60
    assert level["accuracy"]["value"] == level["sensitivity"]["value"]
    assert level["specificity"]["value"] is None
    assert found["histology malignant"]["unknown"] == 0
    assert found["histology malignant"]["interaction"]["auc"]["test"].startswith("Kruskal")


def test_groups_of_few_patients_have_no_figures(found) -> None:
    _, small = found["site"]["levels"]
    assert small["patients"] == 1
    for name in ("auc", "accuracy", "dice"):
        assert small[name]["value"] is None
        assert "1 patient, fewer than 10" in small[name]["note"]
    test = found["site"]["interaction"]
    assert {t["p"] for t in test.values()} == {None}


def test_what_is_adjusted_is_what_has_a_test(found) -> None:
    """Holm over the variables: no adjusted p is smaller than its own, the least is m times."""
    tests = [v["interaction"]["accuracy"] for v in found.values()]
    with_p = [t for t in tests if t["p"] is not None]
    least = min(with_p, key=lambda t: t["p"])
    assert least["p_holm"] == pytest.approx(min(1, len(with_p) * least["p"]))
    assert all(t["p_holm"] is None for t in tests if t["p"] is None)


def test_several_classes_have_accuracy_and_dice_only() -> None:
    three = ClassTask(("benign", "malignant", "normal"))
    (system,) = subgroups_of(results(40, three))["systems"]
    scanner = system["variables"][0]
    for level in scanner["levels"]:
        assert level["auc"]["note"] == "several classes"
        assert level["accuracy"]["value"] is not None
        assert "sensitivity" not in level


def test_every_figure_has_a_line(found) -> None:
    whole = subgroups_of(results())
    lines = list(csv.DictReader(io.StringIO(subgroups_csv(whole))))
    figures = sum(len(v["levels"]) * 5 for v in whole["systems"][0]["variables"])
    assert len(lines) == figures
    first = lines[0]
    assert (first["variable"], first["group"], first["figure"]) == ("scanner", BAD, "auc")
    assert float(first["value"]) == pytest.approx(
        found["scanner"]["levels"][0]["auc"]["value"], abs=1e-5
    )


def test_a_cohort_without_facts_has_no_groups() -> None:
    pixels = np.zeros((1, 20, 24), np.uint8)
    clip = Clip(pixels, "0" * 64, Mode.B, Source("0" * 64, "f-0", "png"))
    bare = Study("s-" + "0" * 20, "p-" + "0" * 20, (clip,), (Lesion("l-" + "0" * 20, "benign"),))
    assert groupings_of(Cohort("c", TASK, (bare,))) == ()
