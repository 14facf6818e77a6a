"""Figures from predictions: known answers, units kept apart, nothing chosen on tested data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score

from renalkit.domain.cohort import ClassTask, Cohort
from renalkit.domain.geometry import MaskRLE
from renalkit.domain.image import Clip, Mode, Source
from renalkit.domain.prediction import Prediction, SystemRef, Unit
from renalkit.domain.sample import b_mode_samples
from renalkit.domain.splits import Fold, Plan, Split
from renalkit.domain.study import Lesion, Roi, Study
from renalkit.errors import StoreError
from renalkit.metrics.classification import auc
from renalkit.metrics.comparisons import corrected_t_test
from renalkit.store.runs import RunFolder
from renalkit.store.splits import save_split
from renalkit.usecases.differences import comparisons_of
from renalkit.usecases.evaluate import _classification, _segmentation, cohort_counts
from renalkit.usecases.experiment import Experiment, jobs_of
from renalkit.usecases.patients import patients_of
from renalkit.usecases.progress import Silent
from renalkit.usecases.results import (
    RunResults,
    SystemResults,
    pool,
    stored_experiment,
    system_results,
)

TASK = ClassTask(("benign", "malignant"), "malignant")


def _study(index: int, label: str, frames: int) -> Study:
    pixels = np.full((frames, 20, 24), index % 250, np.uint8)
    mask = np.zeros((20, 24), bool)
    mask[4:12, 5:15] = True
    rois = tuple(Roi(0, f, MaskRLE.encode(mask)) for f in range(frames))
    clip = Clip(pixels, f"{index:064x}", Mode.B, Source(f"{index:064x}", "f-0", "png"))
    lesion = Lesion(f"l-{index:020x}", label, rois=rois)
    return Study(f"s-{index:020x}", f"p-{index:020x}", (clip,), (lesion,))


def _cohort(n: int = 12) -> Cohort:
    studies = tuple(_study(i, TASK.classes[i % 2], 1 + i % 3) for i in range(n))
    return Cohort("c", TASK, studies)


def _experiment() -> Experiment:
    return Experiment.model_validate(
        {
            "name": "e",
            "cohort": "c",
            "systems": [{"name": "multitask-us"}, {"name": "multitask-us", "label": "other"}],
            "statistics": {"bootstrap": 300},
        }
    )


def _predictions(cohort: Cohort, label: str, error: float, seed: int = 0) -> list[Prediction]:
    """Scores with noise of a given size around the truth; masks shifted by one pixel."""
    rng = np.random.default_rng(seed)
    found = []
    for s in b_mode_samples(cohort):
        assert s.label is not None
        assert s.mask is not None
        p = float(np.clip(0.5 + (s.label - 0.5) * 0.6 + rng.normal(0, error), 0, 1))
        shifted = MaskRLE.encode(np.roll(s.mask.decode(), 1, axis=1))
        fold = int(s.key.patient[-1], 16) // 2 % 2
        ref = SystemRef("multitask-us", label, "0" * 64)
        found.append(Prediction(Unit.FRAME, s.key, (1 - p, p), s.label, ref, fold, mask=shifted))
    return found


def _results(error: float = 0.3) -> RunResults:
    cohort, experiment = _cohort(), _experiment()
    samples = {s.key: s for s in b_mode_samples(cohort)}
    systems = []
    for job, seed in zip(jobs_of(experiment), (0, 1), strict=True):
        test = tuple(_predictions(cohort, job.label, error, seed))
        how = (experiment.statistics, TASK)
        validation = tuple(replace(p, fold=1 - (p.fold or 0)) for p in test)
        systems.append(system_results((job, (0, 1), test, validation), samples, how, Silent()))
    return RunResults(RunFolder(Path("none")), experiment, cohort, tuple(systems))


def _divided(n_folds: int, plan: Plan = Plan.KFOLD) -> Split:
    """Folds as `_predictions` has them, or a shared test part of inner folds."""
    patients = _cohort().patients
    outside = [f"p-{k:020x}" for k in range(100, 160)]
    folds = []
    for k in range(n_folds):
        own = {p for p in patients if int(p[-1], 16) // 2 % 2 == k}
        test = frozenset(own if plan is not Plan.HOLDOUT else patients)
        folds.append(Fold(k, frozenset(outside[:48]), frozenset(outside[48:]), test, f"place {k}"))
    return Split(plan, 0, tuple(folds), shared_test=plan is Plan.HOLDOUT)


def compared(
    results: RunResults, folder: Path, split: Split, reference: str | None = None
) -> dict[str, Any]:
    """The rows of the only other system by measure."""
    save_split(folder / "folds.json", split)
    found = comparisons_of(replace(results, folder=RunFolder(folder)), reference)
    return {r["metric"]: r for r in found["rows"]}


MEASURES = {"dice", "iou", "hd95", "assd", "nsd", "recall", "auc", "accuracy"}


def test_a_perfect_system_is_perfect_and_masks_score_what_geometry_says() -> None:
    results = _results(error=0.0)
    found = _classification(results, results.systems[0])
    assert found is not None
    patient = found["patient"]
    assert patient["n"] == 12
    assert patient["auc"]["value"] == 1
    assert patient["accuracy"]["value"] == 1
    assert patient["confusion"] == [[6, 0], [0, 6]]
    masks = _segmentation(results, results.systems[0])
    assert masks is not None
    # 8 x 10 box shifted by one column: 72 of 80 pixels shared.
    assert masks["pooled"]["dice"]["value"] == pytest.approx(72 / 80)
    assert masks["pooled"]["iou"]["value"] == pytest.approx(72 / 88)
    assert masks["length_unit"] == "px"
    assert masks["n_frames"] == len(results.systems[0].test)
    assert masks["pooled"]["dice"]["n"] == 12, "intervals rest on patients, not on frames"


def test_patients_and_frames_are_never_mixed() -> None:
    results = _results()
    found = _classification(results, results.systems[0])
    assert found is not None
    assert found["patient"]["n"] == 12
    assert found["frame"]["n"] == 24
    assert found["frame"]["accuracy"]["n"] == 12
    assert "bootstrap" in found["frame"]["accuracy"]["method"]
    assert found["patient"]["accuracy"]["method"] == "Clopper-Pearson"
    truth = np.array([p.target for p in results.systems[0].test])
    scores = np.array([(p.scores or ())[1] for p in results.systems[0].test])
    assert found["frame"]["auc"]["value"] == pytest.approx(auc(truth, scores))


def test_l05_thresholds_do_not_see_tested_labels() -> None:
    results = _results()
    system = results.systems[0]
    before = patients_of(results, system).thresholds
    turned = tuple(replace(p, target=1 - (p.target or 0)) for p in system.test)
    other = _classification(results, replace(system, test=turned, pooled=turned))
    assert other is not None
    assert {t["fold"]: t["value"] for t in other["thresholds"]} == {
        k: v.value for k, v in before.items()
    }


def test_the_order_of_predictions_does_not_matter() -> None:
    results = _results()
    system = results.systems[0]
    backwards = system.test[::-1]
    turned = replace(system, test=backwards, pooled=backwards, validation=system.validation[::-1])
    assert _classification(results, turned) == _classification(results, system)


def test_a_system_against_itself_differs_by_nothing(tmp_path: Path) -> None:
    results = _results()
    twin = replace(results.systems[0], job=results.systems[1].job)
    rows = compared(replace(results, systems=(results.systems[0], twin)), tmp_path, _divided(2))
    assert set(rows) == MEASURES
    for row in rows.values():
        assert row["difference"]["value"] == 0
        assert row["p"] == pytest.approx(1)
        assert row["p_holm"] == pytest.approx(1)
        if "wilcoxon" in row:
            assert row["wilcoxon"]["p"] == 1
    assert rows["dice"]["over_folds"]["p"] == 1


def test_swapping_the_reference_flips_the_sign(tmp_path: Path) -> None:
    results = _results()
    one = compared(results, tmp_path, _divided(2))
    two = compared(results, tmp_path, _divided(2), "other")
    for metric, row in one.items():
        assert row["difference"]["value"] == pytest.approx(-two[metric]["difference"]["value"])
        assert row["reference_value"] == pytest.approx(two[metric]["value"])


def test_fold_means_are_compared_by_the_corrected_test(tmp_path: Path) -> None:
    results = _results(0.8)
    means = [_classification(results, s) for s in results.systems]
    rows = compared(results, tmp_path, _divided(2))
    over = rows["auc"]["over_folds"]
    one, two = ((m or {})["fold_mean"]["auc"]["folds"] for m in means)
    apart = np.subtract(one, two)
    assert apart.std() > 0
    assert over["folds"] == pytest.approx(apart.tolist())
    assert over["of"] == [0, 1]
    known = corrected_t_test(apart, 48, 6)
    assert over["p"] == pytest.approx(known.p_value)
    assert over["difference"]["low"] == pytest.approx(known.difference.low)
    assert rows["recall"]["over_folds"] is None


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (Plan.LEAVE_SCANNER_OUT, "no test: every fold tests another place"),
        (Plan.HOLDOUT, "no test: all folds test the same patients"),
    ],
)
def test_folds_that_repeat_nothing_have_no_test_over_them(
    tmp_path: Path, plan: Plan, words: str
) -> None:
    over = compared(_results(), tmp_path, _divided(2, plan))["auc"]["over_folds"]
    assert over["test"] == words
    assert over["p"] is None
    assert over["mean"] is not None


def test_p_values_are_adjusted_over_the_systems_for_each_measure(tmp_path: Path) -> None:
    results = _results()
    third = replace(
        results.systems[1], job=results.systems[1].job.model_copy(update={"label": "third"})
    )
    save_split(tmp_path / "folds.json", _divided(2))
    asked = replace(results, folder=RunFolder(tmp_path), systems=(*results.systems, third))
    rows = [r for r in comparisons_of(asked, None)["rows"] if r["metric"] == "auc"]
    assert [r["p_holm"] for r in rows] == pytest.approx([min(1, 2 * r["p"]) for r in rows])
    over = [r["over_folds"] for r in rows]
    assert [o["p_holm"] for o in over] == pytest.approx([min(1, 2 * o["p"]) for o in over])


def test_one_class_only_gives_a_reason_instead_of_a_number() -> None:
    results = _results()
    system = results.systems[0]
    only = tuple(p for p in system.test if p.target == 1)
    found = _classification(results, replace(system, test=only, pooled=only, validation=only))
    assert found is not None
    assert found["patient"]["auc"]["value"] is None
    assert "one class" in found["patient"]["auc"]["note"]
    assert found["patient"]["specificity"]["value"] is None


def test_counts_of_the_cohort() -> None:
    found = cohort_counts(_cohort())
    assert found["flow"]["included_patients"] == 12
    assert [(c["label"], c["patients"], c["images"]) for c in found["classes"]] == [
        ("benign", 6, 12),
        ("malignant", 6, 12),
    ]


def test_a_hold_out_counts_each_patient_once() -> None:
    """Three inner models test the same patients: pooled figures rest on patients, not models."""
    results = _results()
    system = results.systems[0]
    folds = tuple(replace(p, fold=k) for k in range(3) for p in system.test)
    shared = replace(system, folds=(0, 1, 2), test=folds, pooled=pool(folds), validation=folds)
    found = _classification(results, shared)
    assert found is not None
    assert found["patient"]["n"] == 12
    assert found["patient"]["auc"]["n"] == 12
    assert found["patient"]["accuracy"]["n"] == 12
    assert len(found["fold_mean"]["auc"]["folds"]) == 3


def test_several_classes_have_a_macro_f1_with_its_interval() -> None:
    three = ClassTask(("benign", "malignant", "normal"))
    results = _results()
    system = results.systems[0]
    rng = np.random.default_rng(3)
    test = tuple(
        replace(p, target=i % 3, scores=tuple(rng.dirichlet(np.ones(3))))
        for i, p in enumerate(
            replace(p, key=replace(p.key, patient=p.key.study)) for p in system.test
        )
    )
    asked = replace(results, cohort=replace(results.cohort, task=three))
    found = _classification(asked, replace(system, test=test, pooled=test, validation=test))
    assert found is not None
    f1 = found["frame"]["f1"]
    called = [int(np.argmax(p.scores or ())) for p in test]
    truth = [p.target for p in test]
    assert f1["value"] == pytest.approx(f1_score(truth, called, average="macro"))
    assert f1["low"] < f1["value"] < f1["high"]
    assert "bootstrap" in f1["method"]
    some = tuple(replace(p, target=0, scores=(0.9, 0.06, 0.04)) for p in test)
    found = _classification(asked, replace(system, test=some, pooled=some, validation=some))
    assert found is not None
    assert found["frame"]["f1"]["value"] is None, "classes that neither occur nor are called"
    assert found["frame"]["f1"]["note"]


def test_damaged_settings_of_a_run_are_a_store_error(tmp_path: Path) -> None:
    for text in ("{}", "[]", '{"settings": {"name": "e"}}'):
        (tmp_path / "experiment.json").write_text(text)
        with pytest.raises(StoreError, match="damaged or of another version"):
            stored_experiment(RunFolder(tmp_path))


def _held_out(system: SystemResults, shifts: tuple[int, ...]) -> SystemResults:
    """The system as inner models of a hold-out: all test the same frames, each by its own shift."""
    how = (_experiment().statistics, TASK)
    samples = {s.key: s for s in b_mode_samples(_cohort())}
    test = tuple(
        replace(p, fold=k, mask=MaskRLE.encode(np.roll(p.mask.decode(), by, axis=1)))
        for k, by in enumerate(shifts)
        for p in system.test
        if p.mask is not None
    )
    said = (system.job, tuple(range(len(shifts))), test, test)
    return system_results(said, samples, how, Silent())


def test_a_hold_out_compares_what_all_inner_models_say_together(tmp_path: Path) -> None:
    """Not the first inner model of one system with all of the other."""
    results = _results()
    shifts = (9, 0, 0)  # the first inner model is far off, the majority is not
    pair = tuple(_held_out(s, shifts) for s in results.systems)
    held = replace(results, systems=pair)
    rows = compared(held, tmp_path, _divided(3, Plan.HOLDOUT))
    pooled = [_segmentation(held, s) for s in pair]
    assert pooled[0] is not None
    assert rows["dice"]["reference_value"] == pytest.approx(72 / 80)
    assert rows["dice"]["reference_value"] == pooled[0]["pooled"]["dice"]["value"]
    assert rows["dice"]["difference"]["value"] == 0
    for row in rows.values():
        assert row["folds"] == [0, 1, 2]
        assert row["difference"]["n"] == 12


def test_a_system_with_fewer_folds_is_compared_on_these_alone(tmp_path: Path) -> None:
    results = _results()
    first = _held_out(results.systems[0], (9, 0, 0))
    second = _held_out(results.systems[1], (0,))
    pair = replace(results, systems=(first, second))
    rows = compared(pair, tmp_path, _divided(3, Plan.HOLDOUT))
    assert set(rows) == MEASURES
    assert all(row["folds"] == [0] for row in rows.values())
    assert rows["dice"]["reference_value"] == 0, "the first inner model's, which missed"
    assert rows["dice"]["value"] == pytest.approx(72 / 80)


def test_the_mean_of_folds_is_the_mean_of_scores_and_the_majority_of_masks() -> None:
    one = _results().systems[0].test[0]
    assert one.mask is not None
    empty = MaskRLE(one.mask.rows, one.mask.cols, (one.mask.rows * one.mask.cols,))
    group = [
        replace(one, fold=0, scores=(0.2, 0.8)),
        replace(one, fold=1, scores=(0.6, 0.4)),
        replace(one, fold=2, scores=(0.1, 0.9), mask=empty),
    ]
    (found,) = pool(group)
    assert found.scores == pytest.approx((0.3, 0.7))
    assert found.mask == one.mask
    assert found.fold is None
