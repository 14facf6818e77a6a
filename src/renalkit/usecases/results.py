"""What is known of a finished run: predictions of every fold, masks scored, thresholds chosen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from renalkit.domain.cohort import ClassTask, Cohort
from renalkit.domain.prediction import Prediction, Rule, Unit, aggregate
from renalkit.domain.sample import Sample, SampleKey, b_mode_samples
from renalkit.errors import StatisticUndefined, StoreError
from renalkit.metrics.bootstrap import BootstrapPlan, Statistic, cluster_bootstrap
from renalkit.metrics.classification import (
    Threshold,
    ThresholdRule,
    TuningPart,
    choose_threshold,
)
from renalkit.metrics.inference import Estimate
from renalkit.metrics.segmentation import ScoreRule, SurfaceDefinition, score_segmentation
from renalkit.store.cohorts import load_cohort
from renalkit.store.files import read_json
from renalkit.store.predictions import load_predictions
from renalkit.store.runs import RunFolder
from renalkit.usecases.experiment import Experiment, Job, StatisticsSettings, jobs_of
from renalkit.usecases.progress import Progress

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
    """What one system said on the tested parts of its finished folds."""

    job: Job
    folds: tuple[int, ...]
    test: tuple[Prediction, ...]
    validation: tuple[Prediction, ...]
    cases: tuple[Case, ...]


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
        s = self.statistics
        return BootstrapPlan(n_boot=s.bootstrap, seed=s.seed, level=s.level)


def stored_experiment(folder: RunFolder) -> Experiment:
    """The resolved settings of a run."""
    if not folder.experiment_json.exists():
        raise StoreError(
            "no experiment.json",
            where=folder.path.name,
            expected="the folder of a run",
            remedy="give the folder that holds experiment.json",
        )
    found = Experiment.model_validate(read_json(folder.experiment_json)["settings"])
    return found.model_copy(update={"cohort": folder.path / found.cohort})


def read_results(path: Path, progress: Progress, cohort_path: Path | None = None) -> RunResults:
    """Load predictions of every finished fold and score their masks.

    Raises StoreError when the cohort is not the one the run was made on.
    """
    folder = RunFolder(path)
    experiment = stored_experiment(folder)
    cohort = load_cohort(cohort_path or experiment.cohort)
    samples = {s.key: s for s in b_mode_samples(cohort)}
    systems: list[SystemResults] = []
    for job in jobs_of(experiment):
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
        cases = _cases(job.label, test, samples, (experiment.statistics, cohort.task), progress)
        systems.append(
            SystemResults(job, tuple(folds), tuple(test), tuple(validation), tuple(cases))
        )
    return RunResults(folder, experiment, cohort, tuple(systems))


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
    task = results.task
    if len(task.classes) != 2:
        return None
    return 1 if task.positive is None else task.index(task.positive)


def thresholds_of(
    results: RunResults, validation: Sequence[Prediction], rule: Rule
) -> dict[int, Threshold]:
    """Per fold, from the patients of its validation part; empty for several classes."""
    positive = positive_class(results)
    if positive is None:
        return {}
    found: dict[int, Threshold] = {}
    by_fold: dict[int, list[Prediction]] = defaultdict(list)
    for p in aggregate(validation, Unit.PATIENT, rule):
        if p.target is not None and p.fold is not None:
            by_fold[p.fold].append(p)
    for fold, part in by_fold.items():
        truth = np.array([p.target == positive for p in part])
        scores = np.array([(p.scores or ())[positive] for p in part])
        try:
            wanted = ThresholdRule(results.statistics.threshold)
            found[fold] = choose_threshold(truth, scores, TuningPart.VALIDATION, wanted)
        except StatisticUndefined:
            half = Threshold(
                0.5, "half (one class in validation)", TuningPart.VALIDATION, len(part)
            )
            found[fold] = half
    return found


def called_class(p: Prediction, thresholds: dict[int, Threshold], positive: int | None) -> int:
    """The class a prediction calls: above its fold's threshold, or the largest score."""
    assert p.scores is not None
    if positive is None:
        return int(np.argmax(p.scores))
    threshold = thresholds.get(p.fold if p.fold is not None else -1)
    cut = threshold.value if threshold else 0.5
    return positive if p.scores[positive] >= cut else 1 - positive


# ---------------------------------------------------------------- numbers as JSON


def estimate_json(estimate: Estimate) -> Json:
    """An estimate for metrics.json; a missing interval is null."""
    return {
        "value": estimate.value,
        "low": estimate.low if isfinite(estimate.low) else None,
        "high": estimate.high if isfinite(estimate.high) else None,
        "level": estimate.level,
        "n": estimate.n,
        "unit": estimate.unit.word,
        "method": estimate.method,
    }


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


def bootstrapped(statistic: Statistic, groups: Sequence[str], plan: BootstrapPlan) -> Json:
    try:
        return estimate_json(cluster_bootstrap(statistic, np.asarray(groups), plan))
    except StatisticUndefined as error:
        return undefined_json(len(set(groups)), Unit.PATIENT, str(error), plan.level)
