"""How do the frames of a new patient become an answer, as a run has fixed it fold by fold?

The same rule, correction, calibration and threshold as the run's own figures were made with: they
lie in metrics.json as far as a fold decided them, and in the settings of the run otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from renalkit.domain.cohort import ClassTask
from renalkit.errors import ModelRefused
from renalkit.metrics.calibrators import Calibration, Calibrator
from renalkit.metrics.classification import Threshold, TuningPart
from renalkit.metrics.patient_way import FoldWay
from renalkit.metrics.pooling import PoolingChoice
from renalkit.store.files import read_json
from renalkit.store.runs import RunFolder
from renalkit.usecases.experiment import Experiment, Job, StatisticsSettings
from renalkit.usecases.patients import decided_per_fold, stated_pooling


@dataclass(frozen=True, slots=True)
class StoredWay:
    """One fold's way. threshold: of patients, None for several classes or without figures."""

    way: FoldWay
    threshold: Threshold | None


def plain_way(fold: int, statistics: StatisticsSettings, task: ClassTask) -> FoldWay:
    """The way of a fold that decides nothing: the rule of the settings, scores as they are."""
    base = stated_pooling(statistics, task.positive_index)
    nothing = Calibrator(Calibration.NONE, Calibration.NONE, 0)
    return FoldWay(fold, PoolingChoice(base, {}, 0), None, nothing)


def ways_in(
    figures: Mapping[str, Any],
    statistics: StatisticsSettings,
    task: ClassTask,
    folds: Sequence[int],
    where: str,
) -> dict[int, StoredWay]:
    """The way of each of these folds.

    Without figures of a fold there is no threshold, and the rule is that of the settings.

    Args:
        figures: `thresholds` and `ways` as metrics.json has them, as far as there are any.
        where: what the figures are of, for messages.

    Raises:
        ModelRefused: the folds decided something, and the figures that hold it are not there; or
            they are damaged.
    """
    positive = task.positive_index
    try:
        thresholds = {
            int(t["fold"]): Threshold(
                float(t["value"]), str(t["rule"]), TuningPart.VALIDATION, int(t["n"])
            )
            for t in figures.get("thresholds") or ()
        }
        given = [FoldWay.from_json(w, positive or 0) for w in figures.get("ways") or ()]
    except (KeyError, TypeError, ValueError) as error:
        raise ModelRefused(
            f"damaged figures of its folds ({type(error).__name__})",
            where=where,
            expected="rule, calibration and threshold as the run wrote them",
            remedy="make the figures again with 'renalkit evaluate'",
        ) from error
    ways = {way.fold: way for way in given}
    if decided_per_fold(statistics) and not set(folds) <= set(ways):
        raise ModelRefused(
            "a fold whose rule or calibration is not known",
            where=where,
            expected="figures of the run, which hold what each fold chose",
            remedy="finish the run, or make its figures with 'renalkit evaluate'",
        )
    return {
        k: StoredWay(
            ways.get(k) or plain_way(k, statistics, task),
            None if positive is None else thresholds.get(k),
        )
        for k in folds
    }


def stored_ways(
    folder: RunFolder, experiment: Experiment, job: Job, task: ClassTask, folds: Sequence[int]
) -> dict[int, StoredWay]:
    """`ways_in` the figures of a run; of a system without classes there is nothing to choose."""
    if not job.task.classifies:
        return {k: StoredWay(plain_way(k, experiment.statistics, task), None) for k in folds}
    figures = _figures(folder, job.label)
    where = f"{folder.path.name}/{job.label}"
    return ways_in(figures, experiment.statistics, task, folds, where)


def _figures(folder: RunFolder, label: str) -> dict[str, Any]:
    """Figures of a system's classes; empty where there are none."""
    if not folder.metrics.exists():
        return {}
    systems = read_json(folder.metrics)["systems"]
    return next((s["classification"] or {} for s in systems if s["label"] == label), {})
