"""What is known of a finished run: predictions of every fold, masks scored, thresholds chosen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import isfinite, isnan
from pathlib import Path
from typing import Any

import numpy as np

from renalkit.domain.cohort import ClassTask, Cohort
from renalkit.domain.geometry import MaskRLE
from renalkit.domain.prediction import Prediction, Unit
from renalkit.domain.sample import Sample, SampleKey, b_mode_samples
from renalkit.errors import StatisticUndefined, StoreError
from renalkit.metrics.bootstrap import BootstrapPlan, Statistic, cluster_bootstrap, mean_of_rows
from renalkit.metrics.classification import (
    Threshold,
    TuningPart,
    choose_threshold,
)
from renalkit.metrics.detection import region_scores, score_map
from renalkit.metrics.inference import Estimate, Proportion
from renalkit.metrics.segmentation import ScoreRule, SurfaceDefinition, score_segmentation
from renalkit.store.files import read_json
from renalkit.store.predictions import load_predictions
from renalkit.store.runs import RunFolder
from renalkit.usecases.clinical_model import stored_clinical_job
from renalkit.usecases.experiment import Experiment, Job, StatisticsSettings, jobs_of
from renalkit.usecases.parts import load_data
from renalkit.usecases.progress import Progress, Silent

Json = dict[str, Any]
CASE_SCORES = ("dice", "iou", "hd95", "assd", "nsd")


@dataclass(frozen=True, slots=True)
class Case:
    """Scores of one frame's mask against its reference."""

    label: str
    fold: int
    key: SampleKey
    of_class: str
    scores: dict[str, float]
    unit: str
    note: str

    @property
    def has_lesion(self) -> bool:
        """Whether the reference marks anything on this frame."""
        return self.note not in ("both empty", "reference empty")


@dataclass(frozen=True, slots=True)
class SystemResults:
    """What one system said on the tested parts of its finished folds.

    test: one prediction per fold and frame, what fold means are made of. pooled: one per frame,
    what pooled figures are made of; a frame that several folds test (hold-out, repeats) has the
    mean of their scores and the majority of their masks, with fold None; a region of that majority
    has the mean score that the folds gave its pixels, 0 where a fold marked nothing. cases: masks
    of `test` scored; pooled_cases: those of `pooled`.
    """

    job: Job
    folds: tuple[int, ...]
    test: tuple[Prediction, ...]
    validation: tuple[Prediction, ...]
    cases: tuple[Case, ...]
    pooled: tuple[Prediction, ...]
    pooled_cases: tuple[Case, ...]


@dataclass(frozen=True, slots=True)
class RunResults:
    """All systems of a run beside their cohort."""

    folder: RunFolder
    experiment: Experiment
    cohort: Cohort
    systems: tuple[SystemResults, ...]

    @property
    def task(self) -> ClassTask:
        return self.cohort.task

    @property
    def statistics(self) -> StatisticsSettings:
        return self.experiment.statistics

    @property
    def plan(self) -> BootstrapPlan:
        return bootstrap_plan(self.statistics)


def bootstrap_plan(statistics: StatisticsSettings) -> BootstrapPlan:
    """How the settings ask for patients to be resampled."""
    return BootstrapPlan(n_boot=statistics.bootstrap, seed=statistics.seed, level=statistics.level)


def stored_experiment(folder: RunFolder) -> Experiment:
    """The resolved settings of a run."""
    if not folder.experiment_json.exists():
        raise StoreError(
            "no experiment.json",
            where=folder.path.name,
            expected="the folder of a run",
            remedy="give the folder that holds experiment.json",
        )
    refuse_scans(folder)
    try:
        found = Experiment.model_validate(read_json(folder.experiment_json)["settings"])
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(
            "settings that are damaged or of another version",
            where=folder.experiment_json.name,
            expected="the settings as the run wrote them",
            remedy="restore the file, or run the experiment again under another name",
        ) from error
    return found.found_from(folder.path)


def refuse_scans(folder: RunFolder) -> None:
    """StoreError for a run with CT scans, whose settings and figures are other ones."""
    if folder.holds_scans:
        raise StoreError(
            "a run with CT scans",
            where=folder.path.name,
            expected="a run with pictures",
            remedy="use 'renalkit evaluate' or 'renalkit report', which read runs with CT scans",
        )


def read_results(path: Path, progress: Progress, cohort_path: Path | None = None) -> RunResults:
    """Load predictions of every finished fold, the clinical model's included; score their masks.

    Raises StoreError when the cohort is not the one the run was made on.
    """
    folder = RunFolder(path)
    experiment = stored_experiment(folder)
    cohort, _ = load_data(experiment, cohort_path)
    samples = {s.key: s for s in b_mode_samples(cohort)}
    systems: list[SystemResults] = []
    clinical = stored_clinical_job(folder, experiment)
    for job in (*jobs_of(experiment), *([clinical] if clinical else [])):
        folds = [f for f in range(1000) if folder.fold(job.label, f).done.exists()]
        test = [p for f in folds for p in load_predictions(folder.fold(job.label, f).test)]
        strangers = [p for p in test if p.key not in samples]
        if strangers:
            raise StoreError(
                f"{len(strangers)} predictions are about frames this cohort does not have",
                where=job.label,
                remedy="give the cohort the run was made on",
            )
        validation = [
            p for f in folds for p in load_predictions(folder.fold(job.label, f).validation)
        ]
        progress.stage(f"{job.label}: score {len(test)} frames", len(test))
        how = (experiment.statistics, cohort.task)
        said = (job, tuple(folds), tuple(test), tuple(validation))
        systems.append(system_results(said, samples, how, progress))
    return RunResults(folder, experiment, cohort, tuple(systems))


def system_results(
    said: tuple[Job, tuple[int, ...], tuple[Prediction, ...], tuple[Prediction, ...]],
    samples: dict[SampleKey, Sample],
    how: tuple[StatisticsSettings, ClassTask],
    progress: Progress,
) -> SystemResults:
    """A system's predictions with its masks scored, fold by fold and pooled."""
    job, folds, test, validation = said
    cases = tuple(_cases(job.label, test, samples, how, progress))
    pooled = pool(test)
    again = cases if pooled == test else tuple(_cases(job.label, pooled, samples, how, progress))
    return SystemResults(job, folds, test, validation, cases, pooled, again)


def on_folds(results: RunResults, system: SystemResults, folds: Sequence[int]) -> SystemResults:
    """The system as if only these of its folds had been trained; pooled figures change with it."""
    if set(folds) == set(system.folds):
        return system
    test = tuple(p for p in system.test if p.fold in folds)
    cases = tuple(c for c in system.cases if c.fold in folds)
    pooled = pool(test)
    again = cases
    if pooled != test:
        samples = {s.key: s for s in b_mode_samples(results.cohort)}
        how = (results.statistics, results.task)
        again = tuple(_cases(system.job.label, pooled, samples, how, Silent()))
    return replace(
        system,
        folds=tuple(folds),
        test=test,
        validation=tuple(p for p in system.validation if p.fold in folds),
        cases=cases,
        pooled=pooled,
        pooled_cases=again,
    )


def pool(test: Sequence[Prediction]) -> tuple[Prediction, ...]:
    """One prediction per frame: the only one, or the mean of all folds that tested the frame."""
    groups: dict[SampleKey, list[Prediction]] = defaultdict(list)
    for p in test:
        groups[p.key].append(p)
    if len(groups) == len(test):
        return tuple(test)
    return tuple(_mean_prediction(groups[key]) for key in sorted(groups))


def _mean_prediction(group: Sequence[Prediction]) -> Prediction:
    if len(group) == 1:
        return group[0]
    scores = [p.scores for p in group if p.scores is not None]
    masks = [p.mask for p in group if p.mask is not None]
    mean = None
    if scores:
        raw = np.mean(scores, axis=0)
        mean = tuple(float(s) for s in raw / raw.sum())
    mask = marks = None
    if masks:
        together = 2 * np.sum([m.decode() for m in masks], axis=0) >= len(masks)
        mask = MaskRLE.encode(together)
        maps = [
            score_map(p.mask.decode(), p.mark_scores)
            for p in group
            if p.mask is not None and p.mark_scores is not None
        ]
        if len(maps) == len(masks):
            marks = region_scores(together, np.mean(maps, axis=0))
    return replace(group[0], scores=mean, mask=mask, fold=None, mark_scores=marks)


def _cases(
    label: str,
    test: Sequence[Prediction],
    samples: dict[SampleKey, Sample],
    how: tuple[StatisticsSettings, ClassTask],
    progress: Progress,
) -> list[Case]:
    statistics, task = how
    scored = [p for p in test if p.mask is not None and samples[p.key].mask is not None]
    # One unit for the whole table: millimetres only when every frame has a scale.
    in_mm = bool(scored) and all(samples[p.key].spacing_mm is not None for p in scored)
    rule = ScoreRule(
        definition=SurfaceDefinition(statistics.surface_definition),
        tolerance=statistics.tolerance_mm if in_mm else statistics.tolerance_px,
    )
    cases: list[Case] = []
    for p in scored:
        sample = samples[p.key]
        assert p.mask is not None
        assert sample.mask is not None
        spacing = sample.spacing_mm if in_mm else None
        found = score_segmentation(sample.mask.decode(), p.mask.decode(), spacing, rule)
        values = {
            n: float(getattr(found, n)) for n in (*CASE_SCORES, "area_error", "diameter_error")
        }
        of_class = "" if sample.label is None else task.classes[sample.label]
        cases.append(
            Case(label, p.fold or 0, p.key, of_class, values, found.unit.value, found.note)
        )
        progress.advance()
    return cases


# ---------------------------------------------------------------- thresholds


def positive_class(results: RunResults) -> int | None:
    """Index of the positive class of a two-class task, None for several classes."""
    return results.task.positive_index


def thresholds_of(results: RunResults, validation: Sequence[Prediction]) -> dict[int, Threshold]:
    """Per fold, from the patients of its validation part; empty for several classes."""
    positive = positive_class(results)
    if positive is None:
        return {}
    found: dict[int, Threshold] = {}
    by_fold: dict[int, list[Prediction]] = defaultdict(list)
    for p in validation:
        if p.target is not None and p.fold is not None:
            by_fold[p.fold].append(p)
    for fold, part in by_fold.items():
        truth = np.array([p.target == positive for p in part])
        scores = np.array([(p.scores or ())[positive] for p in part])
        try:
            wanted = results.statistics.operating_point
            found[fold] = choose_threshold(truth, scores, TuningPart.VALIDATION, wanted)
        except StatisticUndefined:
            half = Threshold(
                0.5, "half (one class in validation)", TuningPart.VALIDATION, len(part)
            )
            found[fold] = half
    return found


def called_class(p: Prediction, thresholds: dict[int, Threshold], positive: int | None) -> int:
    """The class a prediction calls: above its fold's threshold, or the largest score.

    The mean of several folds is cut at the median of their thresholds.
    """
    assert p.scores is not None
    if positive is None:
        return int(np.argmax(p.scores))
    own = [t.value for fold, t in thresholds.items() if p.fold in (None, fold)]
    cut = float(np.median(own)) if own else 0.5
    return positive if p.scores[positive] >= cut else 1 - positive


# ---------------------------------------------------------------- numbers as JSON


def figure(make: Callable[[], Estimate], n: int, level: float) -> Json:
    """An estimate over n patients for metrics.json, or null with the reason why there is none."""
    try:
        return estimate_json(make())
    except StatisticUndefined as error:
        return undefined_json(n, Unit.PATIENT, str(error), level)


def estimate_json(estimate: Estimate) -> Json:
    """An estimate for metrics.json; a missing end is null, a missing interval has a note.

    So has an infinite value.
    """
    if not isfinite(estimate.value):
        known = undefined_json(estimate.n, estimate.unit, "infinite", estimate.level)
        low = estimate.low if isfinite(estimate.low) else None
        return known | {"low": low, "method": estimate.method}
    found: Json = {
        "value": estimate.value,
        "low": estimate.low if isfinite(estimate.low) else None,
        "high": estimate.high if isfinite(estimate.high) else None,
        "level": estimate.level,
        "n": estimate.n,
        "unit": estimate.unit.word,
        "method": estimate.method,
    }
    return found | ({"note": estimate.method} if isnan(estimate.low) else {})


def undefined_json(n: int, unit: Unit, why: str, level: float = 0.95) -> Json:
    """A figure that does not exist, with its reason."""
    return {
        "value": None,
        "low": None,
        "high": None,
        "level": level,
        "n": n,
        "unit": unit.word,
        "method": "",
        "note": why,
    }


def share_of_rows(rows: Sequence[bool], patients: Sequence[str], plan: BootstrapPlan) -> Json:
    """Share of rows that are true, with an interval over the patients they are of.

    Where all rows are alike no resample differs: then the exact interval of as many patients alike.
    """
    n = len(set(patients))
    if not rows:
        return undefined_json(0, Unit.PATIENT, "0 of 0", plan.level)
    if len(set(rows)) == 1:
        alike = Proportion(n * rows[0], n).estimate(Unit.PATIENT, plan.level)
        return estimate_json(alike) | {"method": "Clopper-Pearson of patients, all alike"}
    return bootstrapped(mean_of_rows(np.array(rows, dtype=np.float64)), patients, plan)


def bootstrapped(statistic: Statistic, groups: Sequence[str], plan: BootstrapPlan) -> Json:
    try:
        return estimate_json(cluster_bootstrap(statistic, np.asarray(groups), plan))
    except StatisticUndefined as error:
        return undefined_json(len(set(groups)), Unit.PATIENT, str(error), plan.level)
