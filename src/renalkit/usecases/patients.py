"""From what a system says of frames to what it says of patients: one way for every figure.

In each fold, and on its validation part alone: the frames' scores are set to the shares of classes
among training patients (where asked), a rule makes one score per patient of them, a map fitted on
the validation patients calibrates these (where asked), and a threshold is chosen. The tested
patients of the fold then go the same way. A patient whom several folds test has the mean of what
the folds say.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from renalkit.domain.prediction import Pooling, Prediction, Rule, Unit, aggregate
from renalkit.domain.sample import b_mode_samples
from renalkit.errors import StoreError
from renalkit.metrics.calibrators import (
    Calibration,
    Calibrator,
    effective_number_weights,
    fit_calibrator,
    imposed_shares,
)
from renalkit.metrics.classification import Threshold
from renalkit.metrics.patient_way import FoldWay, Shares, calibrated, corrected
from renalkit.metrics.pooling import TEMPERATURES, PoolingChoice, choose_pooling
from renalkit.store.files import read_json
from renalkit.store.splits import load_split
from renalkit.usecases.experiment import CLINICAL, Job, StatisticsSettings
from renalkit.usecases.results import (
    RunResults,
    SystemResults,
    pool,
    positive_class,
    thresholds_of,
)


@dataclass(frozen=True, slots=True)
class Patients:
    """What a system says of patients.

    test: one per fold and tested patient. pooled: one per tested patient. before: those of `pooled`
    without calibration and correction. frames: the tested frames as they entered the rule, pooled
    over folds. validation: patients of the validation parts. thresholds: per fold, of patients;
    frame_thresholds: the same on the scale of frames, which calibration leaves alone. ways: of each
    fold.
    """

    test: tuple[Prediction, ...]
    pooled: tuple[Prediction, ...]
    before: tuple[Prediction, ...]
    frames: tuple[Prediction, ...]
    validation: tuple[Prediction, ...]
    thresholds: dict[int, Threshold]
    frame_thresholds: dict[int, Threshold]
    ways: tuple[FoldWay, ...]


def decided_per_fold(statistics: StatisticsSettings) -> bool:
    """Whether the settings leave something to each fold beside its threshold."""
    open_temperature = (
        statistics.rule == Rule.ATTENTION and statistics.attention_temperature is None
    )
    return statistics.rule == "validation" or open_temperature or rescaled(statistics)


def rescaled(statistics: StatisticsSettings) -> bool:
    """Whether scores of patients are changed after the rule, or those of frames before it."""
    return statistics.calibration is not Calibration.NONE or statistics.prior_correction


def patients_of(results: RunResults, system: SystemResults) -> Patients:
    """Scores of patients, tested and of validation, as the settings of the run ask for them.

    Raises: StoreError when the correction of shares needs a class of the training part that has no
    patient.
    """
    statistics = results.statistics
    base = pooling_of(results, system)
    test, validation = _by_fold(system.test), _by_fold(system.validation)
    ways: list[FoldWay] = []
    frames: list[Prediction] = []
    ends: list[Prediction] = []
    held: list[Prediction] = []
    raw_held: list[Prediction] = []
    plain: list[Prediction] = []
    for fold in sorted({*test, *validation}):
        shares = None
        if statistics.prior_correction and system.job.system != CLINICAL:
            shares = _shares(results, system, fold)
        tested, frames_known = test.get(fold, []), corrected(validation.get(fold, []), shares)
        choice = _choice(statistics, base, frames_known)
        known = aggregate(frames_known, Unit.PATIENT, choice.pooling)
        way = FoldWay(fold, choice, shares, _calibrator(statistics.calibration, known))
        ways.append(way)
        frames += way.corrected(tested)
        raw_held += known
        ends += way.patients(tested)
        held += calibrated(known, way.calibrator)
        plain += aggregate(tested, Unit.PATIENT, choice.pooling)
    changed = bool(statistics.prior_correction)
    return Patients(
        test=tuple(ends),
        pooled=_pooled(ends),
        before=_pooled(plain),
        frames=pool(frames) if changed else tuple(p for p in system.pooled if p.scores is not None),
        validation=tuple(held),
        thresholds=thresholds_of(results, held),
        frame_thresholds=thresholds_of(results, raw_held),
        ways=tuple(ways),
    )


def pooling_of(results: RunResults, system: SystemResults) -> Pooling:
    """`stated_pooling` of a system of the run."""
    clinical = system.job.system == CLINICAL
    return stated_pooling(results.statistics, positive_class(results), clinical=clinical)


def stated_pooling(
    statistics: StatisticsSettings, positive: int | None, *, clinical: bool = False
) -> Pooling:
    """The rule of the settings with its numbers; the mean where a fold chooses.

    The clinical model says one thing of a patient, repeated for each frame: its mean. positive:
    index of the positive class of two.
    """
    fixed = statistics.rule != "validation" and not clinical
    base = Pooling(
        Rule(statistics.rule) if fixed else Rule.MEAN,
        share=statistics.topk_share,
        noisy_or_frames=statistics.noisy_or_frames,
    )
    temperature = statistics.attention_temperature
    base = base if positive is None else replace(base, positive=positive)
    return base if temperature is None else replace(base, temperature=temperature)


def _by_fold(predictions: Sequence[Prediction]) -> dict[int, list[Prediction]]:
    found: dict[int, list[Prediction]] = defaultdict(list)
    for p in predictions:
        if p.scores is not None:
            found[p.fold or 0].append(p)
    return found


def _pooled(patients: Sequence[Prediction]) -> tuple[Prediction, ...]:
    found = pool(sorted(patients, key=lambda p: (p.key.patient, p.fold or 0)))
    return tuple(sorted(found, key=lambda p: (p.key.patient, p.fold or 0)))


def _choice(
    statistics: StatisticsSettings, base: Pooling, validation: Sequence[Prediction]
) -> PoolingChoice:
    fixed = statistics.attention_temperature
    temperatures = TEMPERATURES if fixed is None else (fixed,)
    if statistics.rule == "validation":
        return choose_pooling(validation, base, temperatures=temperatures)
    if base.rule is Rule.ATTENTION and fixed is None:
        return choose_pooling(validation, base, (Rule.ATTENTION,), temperatures)
    return PoolingChoice(base, {}, 0)


def _calibrator(asked: Calibration, validation: Sequence[Prediction]) -> Calibrator:
    known = [p for p in validation if p.target is not None]
    if asked is Calibration.NONE or not known:
        note = "" if asked is Calibration.NONE else "no validation patient of known class"
        return Calibrator(Calibration.NONE, asked, len(known), note=note)
    truth = np.array([p.target for p in known], dtype=np.intp)
    return fit_calibrator(truth, np.array([p.scores for p in known]), asked)


def _shares(results: RunResults, system: SystemResults, fold: int) -> Shares:
    """Of the training part of a fold: what sampler and loss imposed, and the patients' own.

    Images of each class are those done.json names, where it does; else those of the cohort. What
    the loss did to the classes is told by the system's parameters beta, focal and gamma.
    """
    job, most = system.job, system.job.train.frames_per_patient
    inside = load_split(results.folder.folds).folds[fold].train
    n_classes = len(results.task.classes)
    frames: dict[str, Counter[int]] = defaultdict(Counter)
    for sample in b_mode_samples(results.cohort):
        if sample.label is not None and sample.key.patient in inside:
            frames[sample.key.patient][sample.label] += 1
    patients = np.zeros(n_classes)
    of_cohort, shown = np.zeros(n_classes), np.zeros(n_classes)
    for counts in frames.values():
        total = sum(counts.values())
        for label, n in counts.items():
            of_cohort[label] += n
            shown[label] += n * (min(most, total) / total if most else 1.0)
        if len(counts) == 1:
            patients[next(iter(counts))] += 1
    if not patients.all():
        raise StoreError(
            f"prior correction: a class has no patient in the training part of fold {fold}",
            where=job.label,
            remedy="leave statistics.prior_correction out, or use fewer folds",
        )
    done = read_json(results.folder.fold(job.label, fold).done)
    images = np.array(done.get("class_images") or of_cohort, dtype=np.float64)
    drawn = shown if most else images
    imposed = imposed_shares(drawn.tolist(), job.train.sampling, _loss_weights(job, images))
    focal = job.params.get("focal") if job.params.get("head", "softmax") == "softmax" else None
    return Shares(
        tuple(imposed.tolist()),
        tuple((patients / patients.sum()).tolist()),
        gamma=float(job.params["gamma"]) if focal else 0.0,
        per_logit=focal == "sigmoid",
    )


def _loss_weights(job: Job, images: npt.NDArray[np.float64]) -> list[float] | None:
    """What a class weighed in the loss: by [train], else by the system's class-balanced loss."""
    if job.train.class_weights == "inverse":
        return (1 / images).tolist()
    beta = float(job.params.get("beta", 0.0))
    return effective_number_weights(images.tolist(), beta).tolist() if beta else None
