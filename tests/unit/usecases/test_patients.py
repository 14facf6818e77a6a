"""One way from frames to patients for every figure, and no tested label has a say in it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy import special

from renalkit.domain.cohort import ClassTask, Cohort
from renalkit.domain.experiment import settings_digest
from renalkit.domain.image import Clip, Mode, Source
from renalkit.domain.prediction import Pooling, Prediction, Rule, SystemRef, Unit, aggregate
from renalkit.domain.sample import b_mode_samples
from renalkit.domain.splits import Fold, Plan, Split
from renalkit.domain.study import Lesion, Study
from renalkit.errors import ConfigError, StoreError
from renalkit.metrics.calibration import recalibration
from renalkit.metrics.calibrators import Calibration, fit_calibrator
from renalkit.metrics.classification import TuningPart, auc, choose_threshold
from renalkit.metrics.pooling import choose_pooling
from renalkit.store.files import write_json
from renalkit.store.runs import RunFolder, write_manifest
from renalkit.store.splits import save_split
from renalkit.usecases.differences import comparisons_of
from renalkit.usecases.evaluate import _classification
from renalkit.usecases.experiment import CLINICAL, Experiment, StatisticsSettings, jobs_of
from renalkit.usecases.folds import classes_by_fold
from renalkit.usecases.patients import patients_of
from renalkit.usecases.progress import Silent
from renalkit.usecases.reader_systems import _calls
from renalkit.usecases.reading_cases import ReaderPlan
from renalkit.usecases.report import write_report
from renalkit.usecases.results import RunResults, SystemResults, system_results
from renalkit.usecases.subgroups import _said
from renalkit.usecases.usefulness import usefulness_of
from renalkit.usecases.verify import verify_run

TASK = ClassTask(("benign", "malignant"), "malignant")
FRAMES = 6


def _patient(k: int) -> str:
    return f"p-{k:020x}"


def _cohort(n: int) -> Cohort:
    """Every third patient is malignant; all have the same number of frames."""
    studies: list[Study] = []
    for k in range(n):
        pixels = np.full((FRAMES, 8, 8), k % 251, np.uint8)
        clip = Clip(pixels, f"{k:064x}", Mode.B, Source(f"{k:064x}", "f-0", "png"))
        lesion = Lesion(f"l-{k:020x}", TASK.classes[int(k % 3 == 0)])
        studies.append(Study(f"s-{k:020x}", _patient(k), (clip,), (lesion,)))
    return Cohort("c", TASK, tuple(studies))


def _results(n: int = 120, folds: int = 2, overdone: float = 3.0, **statistics: Any) -> RunResults:
    """Two systems whose logits are too large, each with some frames that tell more than others."""
    cohort = _cohort(n)
    experiment = Experiment.model_validate(
        {
            "name": "e",
            "cohort": "c",
            "systems": [{"name": "multitask-us"}, {"name": "multitask-us", "label": "other"}],
            "statistics": {"bootstrap": 200, **statistics},
        }
    )
    samples = {s.key: s for s in b_mode_samples(cohort)}
    systems: list[SystemResults] = []
    for seed, job in enumerate(jobs_of(experiment)):
        rng = np.random.default_rng(seed)
        of_patient = {p: rng.normal(0, 1.2) for p in cohort.patients}
        test: list[Prediction] = []
        validation: list[Prediction] = []
        for key, sample in samples.items():
            assert sample.label is not None
            sure = 1.8 if key.frame == 0 else 0.3
            logit = sure * (sample.label - 0.5) * 2 + of_patient[key.patient] + rng.normal(0, 0.3)
            p = float(special.expit(overdone * logit))
            number = int(key.patient[2:], 16)
            ref = SystemRef(job.system, job.label, "0" * 64)
            own = Prediction(Unit.FRAME, key, (1 - p, p), sample.label, ref, number // 2 % folds)
            test.append(own)
            validation.append(replace(own, fold=(number // 2 + 1) % folds))
        how = (experiment.statistics, TASK)
        said = (job, tuple(range(folds)), tuple(test), tuple(validation))
        systems.append(system_results(said, samples, how, Silent()))
    return RunResults(RunFolder(Path("none")), experiment, cohort, tuple(systems))


def _scores(patients: tuple[Prediction, ...]) -> np.ndarray:
    return np.array([(p.scores or ())[1] for p in patients])


ASKED: tuple[dict[str, Any], ...] = (
    {},
    {"rule": "median"},
    {"rule": "topk", "topk_share": 0.5},
    {"rule": "noisy-or", "noisy_or_frames": 0},
    {"rule": "attention"},
    {"rule": "attention", "attention_temperature": 0.3},
    {"rule": "validation"},
    {"rule": "validation", "calibration": "platt"},
    {"rule": "validation", "calibration": "isotonic"},
    {"calibration": "temperature"},
)


@pytest.mark.parametrize("asked", ASKED)
def test_every_figure_takes_patients_by_the_same_way(asked: dict[str, Any], tmp_path: Path) -> None:
    """Scores, calls and thresholds counted by hand from the frames, beside every user of them."""
    results = _results(**asked)
    system, statistics = results.systems[0], results.statistics
    scores: dict[str, float] = {}
    calls: dict[str, bool] = {}
    thresholds: dict[int, float] = {}
    for fold in (0, 1):
        held = [p for p in system.validation if p.fold == fold]
        base = Pooling(
            Rule.MEAN if statistics.rule == "validation" else Rule(statistics.rule),
            statistics.topk_share,
            statistics.noisy_or_frames,
            statistics.attention_temperature or 0.2,
        )
        pooling = base
        if statistics.rule == "validation":
            pooling = choose_pooling(held, base).pooling
        elif asked == {"rule": "attention"}:
            pooling = choose_pooling(held, base, (Rule.ATTENTION,)).pooling
        known = aggregate(held, Unit.PATIENT, pooling)
        truth = np.array([p.target for p in known], dtype=np.intp)
        map_ = fit_calibrator(truth, np.array([p.scores for p in known]), statistics.calibration)
        cut = choose_threshold(
            truth == 1,
            map_.apply(np.array([p.scores for p in known]))[:, 1],
            TuningPart.VALIDATION,
        ).value
        thresholds[fold] = cut
        tested = aggregate([p for p in system.test if p.fold == fold], Unit.PATIENT, pooling)
        for p in tested:
            score = float(map_.apply(np.array([p.scores]))[0, 1])
            scores[p.key.patient], calls[p.key.patient] = score, score >= cut
    patients = sorted(scores)
    truth = np.array([int(p[2:], 16) % 3 == 0 for p in patients])
    expected = np.array([scores[p] for p in patients])
    called = np.array([calls[p] for p in patients])

    found = _classification(results, system)
    assert found is not None
    assert found["patient"]["auc"]["value"] == pytest.approx(auc(truth, expected))
    assert found["patient"]["accuracy"]["value"] == pytest.approx((truth == called).mean())
    assert {t["fold"]: t["value"] for t in found["thresholds"]} == pytest.approx(thresholds)
    own_fold = np.array([int(p[2:], 16) // 2 % 2 == 0 for p in patients])
    by_fold = classes_by_fold(results, system)
    assert by_fold["auc"][0] == pytest.approx(auc(truth[own_fold], expected[own_fold]))
    said = _said(results, system)
    assert said.patients.tolist() == patients
    assert said.scores[:, 1] == pytest.approx(expected)
    assert said.called.tolist() == called.astype(int).tolist()
    beside = _calls(results, system, ReaderPlan(positive="malignant"))
    assert beside.scores == pytest.approx(scores)
    assert beside.calls == calls
    useful = usefulness_of(results)["systems"][0]
    brier = float(((expected - truth) ** 2).mean())
    assert useful["calibration"]["brier"]["value"] == pytest.approx(brier)
    assert ("before" in useful) == ("calibration" in asked)
    fold = [Fold(k, frozenset({"p"}), frozenset(), frozenset({f"q{k}"}), "") for k in (0, 1)]
    save_split(tmp_path / "folds.json", Split(Plan.KFOLD, 0, tuple(fold)))
    compared = comparisons_of(replace(results, folder=RunFolder(tmp_path)), None)["rows"]
    row = next(r for r in compared if r["metric"] == "auc")
    assert row["reference_value"] == pytest.approx(auc(truth, expected))
    right = next(r for r in compared if r["metric"] == "accuracy")
    assert right["reference_value"] == pytest.approx((truth == called).mean())
    decided = asked.get("rule") in ("validation",) or asked == {"rule": "attention"}
    assert ("ways" in found) == (decided or "calibration" in asked)


@pytest.mark.parametrize("asked", [a for a in ASKED if a])
def test_l05_no_tested_label_changes_a_score_a_rule_or_a_map(asked: dict[str, Any]) -> None:
    """Planted: tested labels permuted, then all set to one class."""
    results = _results(**asked)
    system = results.systems[0]
    before = patients_of(results, system)
    rng = np.random.default_rng(7)
    for labels in (rng.permutation([p.target for p in system.test]), [0] * len(system.test)):
        turned = tuple(
            replace(p, target=int(t or 0)) for p, t in zip(system.test, labels, strict=True)
        )
        after = patients_of(results, replace(system, test=turned, pooled=turned))
        assert [p.scores for p in after.pooled] == [p.scores for p in before.pooled]
        assert after.ways == before.ways
        assert after.thresholds == before.thresholds
        assert after.frame_thresholds == before.frame_thresholds


def test_a_validation_label_does_change_the_map() -> None:
    results = _results(calibration="platt")
    system = results.systems[0]
    turned = tuple(replace(p, target=1 - (p.target or 0)) for p in system.validation)
    found = patients_of(results, replace(system, validation=turned))
    assert all("do not rise" in w.calibrator.note for w in found.ways)
    assert found.pooled == patients_of(_results(), system).pooled


@pytest.mark.parametrize("kind", ["temperature", "platt", "isotonic"])
def test_scores_too_sure_of_themselves_come_nearer_to_the_truth(kind: str) -> None:
    results = _results(n=420, calibration=kind)
    assert {w.calibrator.kind for w in patients_of(results, results.systems[0]).ways} == {kind}
    useful = usefulness_of(results)["systems"][0]
    before, after = useful["before"], useful["calibration"]
    assert before["slope"]["value"] < 0.6
    assert after["brier"]["value"] < before["brier"]["value"] - 0.005
    assert after["ece"]["value"] < before["ece"]["value"]
    if kind != "isotonic":  # its steps may reach far out at the ends
        assert after["slope"]["value"] == pytest.approx(1, abs=0.25)


def test_frames_are_judged_on_their_own_scale() -> None:
    """A map of patients is not one of frames: scores and calls of frames stay what they were."""
    plain, mapped = (
        _classification(r, r.systems[0]) for r in (_results(), _results(calibration="platt"))
    )
    assert plain is not None
    assert mapped is not None
    assert mapped["frame"] == plain["frame"]
    assert mapped["thresholds"] != plain["thresholds"]


def test_a_patient_of_several_folds_has_the_mean_of_their_calibrated_scores() -> None:
    results = _results(calibration="platt")
    system = results.systems[0]
    test = tuple(replace(p, fold=k) for k in (0, 1) for p in system.test)
    found = patients_of(results, replace(system, test=test))
    by_patient: dict[str, list[float]] = {}
    for p in found.test:
        by_patient.setdefault(p.key.patient, []).append((p.scores or ())[1])
    assert len(found.pooled) == 120
    for p in found.pooled:
        one, two = by_patient[p.key.patient]
        assert one != two
        assert p.fold is None
        assert (p.scores or ())[1] == pytest.approx((one + two) / 2)


def test_the_clinical_model_says_one_thing_of_a_patient() -> None:
    results = _results(rule="noisy-or", noisy_or_frames=0)
    system = results.systems[0]
    job = system.job.model_copy(update={"system": CLINICAL, "label": CLINICAL})
    alike = tuple(replace(p, scores=(0.7, 0.3)) for p in system.test)
    found = patients_of(results, replace(system, job=job, test=alike, pooled=alike))
    assert _scores(found.pooled) == pytest.approx(0.3)


# ---------------------------------------------------------------- the balance of training


def _with_folder(results: RunResults, folder: Path, done: dict[str, Any]) -> RunResults:
    """Both folds trained on the first 90 patients of a cohort of 120, of which a third malignant."""
    inside = frozenset(_patient(k) for k in range(90))
    folds = tuple(Fold(k, inside, frozenset(), frozenset({_patient(200 + k)}), "") for k in (0, 1))
    save_split(folder / "folds.json", Split(Plan.KFOLD, 0, folds))
    run = RunFolder(folder)
    for system in results.systems:
        for k in (0, 1):
            write_json(run.fold(system.job.label, k).done, done)
    return replace(results, folder=run)


def _of(results: RunResults, **train: Any) -> SystemResults:
    system = results.systems[0]
    params = train.pop("params", {})
    changed = {"train": replace(system.job.train, **train), "params": params}
    return replace(system, job=system.job.model_copy(update=changed))


@pytest.mark.parametrize(
    ("train", "done", "imposed"),
    [
        ({"sampling": "balanced"}, {}, 0.5),
        ({"sampling": "oversample"}, {"class_images": [900, 100]}, 0.5),
        ({"sampling": "plain"}, {}, 1 / 3),
        ({"sampling": "plain"}, {"class_images": [300, 100]}, 0.25),
        ({"sampling": "plain", "class_weights": "inverse"}, {"class_images": [300, 100]}, 0.5),
        ({"sampling": "balanced", "class_weights": "inverse"}, {"class_images": [300, 100]}, 0.75),
        (
            {"sampling": "balanced", "params": {"beta": 0.9999}},
            {"class_images": [6135, 3659]},
            0.59943,
        ),
        (
            {"sampling": "plain", "class_weights": "inverse", "params": {"beta": 0.9999}},
            {"class_images": [300, 100]},
            0.5,
        ),
        ({"sampling": "plain", "frames_per_patient": 2}, {"class_images": [300, 100]}, 1 / 3),
    ],
)
def test_the_double_balance_is_undone_for_every_frame(
    train: dict[str, Any], done: dict[str, Any], imposed: float, tmp_path: Path
) -> None:
    results = _with_folder(_results(prior_correction=True), tmp_path, done)
    system = _of(results, **dict(train))
    found = patients_of(results, system)
    (way, _) = found.ways
    assert way.shares is not None
    assert way.shares.imposed[1] == pytest.approx(imposed, abs=1e-5)
    imposed = way.shares.imposed[1]
    assert way.shares.wanted == pytest.approx((2 / 3, 1 / 3))
    factor = ((1 / 3) / (2 / 3)) / (imposed / (1 - imposed))
    p = _scores(system.test)
    expected = special.expit(special.logit(p) + np.log(factor))
    of_frame = {p.key: (p.scores or ())[1] for p in found.frames}
    assert [of_frame[f.key] for f in system.test] == pytest.approx(expected.tolist())
    by_hand = aggregate(
        [replace(f, scores=(1 - q, q)) for f, q in zip(system.test, expected, strict=True)],
        Unit.PATIENT,
    )
    assert _scores(found.pooled) == pytest.approx(_scores(by_hand))
    uncorrected = aggregate(system.test, Unit.PATIENT)
    assert _scores(found.before) == pytest.approx(_scores(uncorrected))


@pytest.mark.parametrize("focal", ["sigmoid", "softmax"])
def test_a_focal_loss_is_undone_before_the_shares(focal: str, tmp_path: Path) -> None:
    results = _with_folder(_results(prior_correction=True), tmp_path, {})
    system = _of(
        results, sampling="plain", params={"focal": focal, "gamma": 2.0, "head": "softmax"}
    )
    found = patients_of(results, system)
    before = special.logit(_scores(system.test))
    after = {p.key: special.logit((p.scores or ())[1]) for p in found.frames}
    slopes = [after[p.key] / b for p, b in zip(system.test, before, strict=True) if abs(b) < 1]
    known = 1 / 0.7473 if focal == "sigmoid" else 2 / 0.7473
    assert slopes == pytest.approx([known] * len(slopes), rel=0.01)
    other = {"focal": focal, "gamma": 2.0, "head": "ordinal"}
    plain = patients_of(results, _of(results, sampling="plain", params=other))
    assert _scores(plain.pooled) == pytest.approx(_scores(plain.before))


def test_the_clinical_model_was_never_balanced(tmp_path: Path) -> None:
    results = _with_folder(_results(prior_correction=True), tmp_path, {})
    system = results.systems[0]
    job = system.job.model_copy(update={"system": CLINICAL, "label": CLINICAL})
    found = patients_of(results, replace(system, job=job))
    assert [w.shares for w in found.ways] == [None, None]
    assert found.pooled == found.before


def test_a_class_without_training_patients_cannot_be_corrected(tmp_path: Path) -> None:
    results = _with_folder(_results(prior_correction=True), tmp_path, {})
    benign = tuple(s for s in results.cohort.studies if s.lesions[0].label == "benign")
    bare = replace(results, cohort=replace(results.cohort, studies=benign))
    with pytest.raises(StoreError, match="a class has no patient in the training part of fold 0"):
        patients_of(bare, results.systems[0])


def test_correction_and_calibration_together_are_calibrated_in_the_large(tmp_path: Path) -> None:
    """Scores for equal shares of a third malignant: far too high before, right after."""
    results = _with_folder(
        _results(n=240, overdone=1.0, prior_correction=True, calibration="temperature"),
        tmp_path,
        {"class_images": [300, 100]},
    )
    system = _of(results, sampling="balanced", class_weights="inverse")
    frames = tuple(
        replace(p, scores=(1 - q, q))
        for p, q in zip(
            system.test, special.expit(special.logit(_scores(system.test)) + 1.5), strict=True
        )
    )
    held = tuple(
        replace(p, scores=(1 - q, q))
        for p, q in zip(
            system.validation,
            special.expit(special.logit(_scores(system.validation)) + 1.5),
            strict=True,
        )
    )
    found = patients_of(results, replace(system, test=frames, pooled=frames, validation=held))
    truth = np.array([p.target for p in found.pooled])
    before = recalibration(truth, _scores(found.before)).in_the_large.value
    after = recalibration(truth, _scores(found.pooled)).in_the_large.value
    assert before < -1
    assert abs(after) < 0.5 * abs(before)


# ---------------------------------------------------------------- settings and files


def test_settings_of_earlier_runs_keep_their_digest() -> None:
    plain = StatisticsSettings().model_dump(mode="json")
    assert set(plain) == {
        *("rule", "threshold", "bootstrap", "level", "tolerance_px", "tolerance_mm"),
        *("surface_definition", "seed"),
    }
    changed = StatisticsSettings(calibration=Calibration.PLATT, rule="validation", topk_share=0.1)
    kept = changed.model_dump(mode="json")
    assert (kept["calibration"], kept["rule"], kept["topk_share"]) == ("platt", "validation", 0.1)
    assert settings_digest(kept) != settings_digest(plain)
    assert StatisticsSettings.model_validate(kept) == changed


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("rule", "best"), ("topk_share", 0), ("noisy_or_frames", -1)),
        *(("attention_temperature", 0), ("calibration", "beta")),
    ],
)
def test_other_settings_are_refused(key: str, value: Any) -> None:
    with pytest.raises((ConfigError, ValueError), match=key):
        StatisticsSettings.model_validate({key: value})


def test_a_run_stores_reports_and_verifies_what_its_folds_decided(
    tmp_path: Path, made_run: ModuleType
) -> None:
    asked = ('rule = "validation"', 'calibration = "isotonic"', "prior_correction = true")
    made = made_run.make_run(tmp_path, n_patients=15, statistics=asked)
    write_manifest(made.run)
    assert verify_run(made.run, Silent())["differences"] == []
    html = write_report(made.run, None, Silent()).read_text(encoding="utf-8")
    words = " ".join(re.sub(r"<[^>]*>", " ", html).split())
    assert "Scores of patients: what each fold decided" in words
    assert "Isotonic: needs 200 validation patients, 40 of each class" in words
    assert "Not chosen: 2 validation patients, fewer than 10" in words
    assert "multitask-us, before" in words
    assert "before and after stand side by side" in words
    assert "or a simpler one where these were too few" in words
    assert "the lowest log-loss of patients in the validation part of each fold" in words
