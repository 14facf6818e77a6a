"""How much better is one system than another on the same patients?"""

from __future__ import annotations

import numpy as np

from renalkit.domain.prediction import Prediction, Rule, Unit, aggregate
from renalkit.errors import ConfigError, StatisticUndefined
from renalkit.metrics.auc_inference import paired_delong
from renalkit.metrics.bootstrap import (
    Auc,
    MeanOfStatistics,
    Statistic,
    mean_of_rows,
    paired_cluster_bootstrap,
)
from renalkit.usecases.results import (
    Json,
    RunResults,
    SystemResults,
    called_class,
    estimate_json,
    on_folds,
    positive_class,
    thresholds_of,
)


def comparisons_of(results: RunResults, reference: str | None) -> Json:
    """The reference system against every other, on the folds and cases both have.

    A frame that several of these folds test counts once, with what they say together (`pool`).
    Differences are reference minus other, so above 0 favours the reference. Dice and IoU: paired
    bootstrap of patients over frames with a lesion. AUC of two classes: paired DeLong over
    patients; of several classes and accuracy: paired bootstrap of patients.
    """
    labels = [s.job.label for s in results.systems]
    chosen = reference or labels[0]
    if chosen not in labels:
        raise ConfigError([f"reference: no system '{chosen}'; there are {', '.join(labels)}"])
    reference_system = next(s for s in results.systems if s.job.label == chosen)
    rows: list[Json] = []
    for other in results.systems:
        folds = sorted(set(reference_system.folds) & set(other.folds))
        if other is reference_system or not folds:
            continue
        first = on_folds(results, reference_system, folds)
        second = on_folds(results, other, folds)
        about: Json = {"label": other.job.label, "folds": folds}
        rows += [about | row for row in _masks(results, first, second)]
        rows += [about | row for row in _classes(results, first, second)]
    return {"schema": 1, "reference": chosen, "rows": rows}


def _paired(
    results: RunResults, first: Statistic, second: Statistic, groups: list[str]
) -> Json | None:
    try:
        found = paired_cluster_bootstrap(first, second, np.asarray(groups), results.plan)
    except StatisticUndefined:
        return None
    return {
        "difference": estimate_json(found.difference),
        "p": found.p_value,
        "reference_value": found.first.value,
        "value": found.second.value,
    }


def _masks(results: RunResults, first: SystemResults, second: SystemResults) -> list[Json]:
    one = {c.key: c for c in first.pooled_cases if c.has_lesion}
    two = {c.key: c for c in second.pooled_cases}
    shared = sorted(one.keys() & two.keys())
    if not shared:
        return []
    groups = [key.patient for key in shared]
    rows: list[Json] = []
    for metric in ("dice", "iou"):
        a = np.array([one[k].scores[metric] for k in shared])
        b = np.array([two[k].scores[metric] for k in shared])
        found = _paired(results, mean_of_rows(a), mean_of_rows(b), groups)
        if found is not None:
            rows.append({"metric": metric, "n_frames": len(a)} | found)
    return rows


def _patients(results: RunResults, system: SystemResults) -> dict[tuple[int, str], Prediction]:
    found = aggregate(system.pooled, Unit.PATIENT, Rule(results.statistics.rule))
    return {
        (-1 if p.fold is None else p.fold, p.key.patient): p for p in found if p.target is not None
    }


def _classes(results: RunResults, first: SystemResults, second: SystemResults) -> list[Json]:
    one, two = _patients(results, first), _patients(results, second)
    shared = sorted(one.keys() & two.keys())
    if not shared:
        return []
    positive = positive_class(results)
    rule = Rule(results.statistics.rule)
    cuts = [thresholds_of(results, s.validation, rule) for s in (first, second)]
    groups = [patient for _, patient in shared]
    truth = np.array([one[k].target for k in shared], dtype=np.intp)
    right = [
        mean_of_rows(
            np.array([float(called_class(p[k], cut, positive) == p[k].target) for k in shared])
        )
        for p, cut in zip((one, two), cuts, strict=True)
    ]
    rows: list[Json] = []
    area = _areas(results, truth, (one, two), shared)
    if area is not None:
        rows.append({"metric": "auc"} | area)
    accuracy = _paired(results, right[0], right[1], groups)
    if accuracy is not None:
        rows.append({"metric": "accuracy"} | accuracy)
    return rows


def _areas(
    results: RunResults,
    truth: np.ndarray[tuple[int], np.dtype[np.intp]],
    systems: tuple[dict[tuple[int, str], Prediction], dict[tuple[int, str], Prediction]],
    shared: list[tuple[int, str]],
) -> Json | None:
    scores = [np.array([p[k].scores for k in shared]) for p in systems]
    positive = positive_class(results)
    if positive is None:
        classes = range(len(results.task.classes))
        parts = [
            MeanOfStatistics(tuple(Auc((truth == k).astype(int), s[:, k]) for k in classes))
            for s in scores
        ]
        return _paired(results, parts[0], parts[1], [patient for _, patient in shared])
    try:
        found = paired_delong(
            (truth == positive).astype(int),
            scores[0][:, positive],
            scores[1][:, positive],
            level=results.plan.level,
        )
    except StatisticUndefined:
        return None
    return {
        "difference": estimate_json(found.difference),
        "p": found.p_value,
        "reference_value": found.first.value,
        "value": found.second.value,
    }
