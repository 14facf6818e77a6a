"""How good are scores for several classes? Each class against the rest, or each cut of an order.

A score with one column per class is judged by the mean over classes of one against the rest (macro
AUC) and by the class it scores highest; a score of one column, which rises with the class, by the
mean over cuts of "this class or above" (cumulative AUC). All intervals are over patients.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from renalkit.domain.prediction import Unit
from renalkit.errors import StatisticUndefined
from renalkit.metrics.agreement import KappaWeights, cohen_kappa
from renalkit.metrics.auc_inference import mean_auc
from renalkit.metrics.bootstrap import (
    Auc,
    MeanOfStatistics,
    mean_of_rows,
    paired_cluster_bootstrap,
)
from renalkit.metrics.classification import (
    class_recalls,
    confusion_matrix,
    cumulative_splits,
    multiclass_accuracy,
)
from renalkit.usecases.results import Json, bootstrapped, estimate_json, figure, undefined_json
from renalkit.usecases.score_differences import adjusted
from renalkit.usecases.stats_options import Asked
from renalkit.usecases.table_scores import Scored


def class_figures(scored: Scored, index: int, asked: Asked) -> Json:
    """Everything about one score of several classes."""
    groups, plan = scored.groups.tolist(), asked.plan
    found: Json = {
        "score": scored.names[index],
        "n_rows": len(scored.truth),
        "n_patients": scored.n_patients,
        "auc_kind": _kind(scored),
    }
    try:
        parts = _parts(scored, index)
        found["auc"] = _area(scored, list(parts.values()), plan.level)
        found["parts"] = [
            {"part": name, "auc": _area(scored, [part], plan.level)} for name, part in parts.items()
        ]
        mean = MeanOfStatistics(tuple(parts.values()))
        found["auc_bootstrap"] = bootstrapped(mean, groups, plan)
    except StatisticUndefined as error:
        found["auc"] = undefined_json(scored.n_patients, Unit.PATIENT, str(error), plan.level)
        found["parts"] = []
    if _kind(scored) == "cumulative":
        return found
    called = np.argmax(scored.scores[index], axis=1)
    right = (called == scored.truth).astype(np.float64)
    matrix = confusion_matrix(scored.truth, called, len(scored.labels))
    found["confusion"] = matrix.tolist()
    if scored.independent:
        shares = (multiclass_accuracy(matrix), *class_recalls(matrix))
        figures = [
            figure(lambda s=s: s.estimate(Unit.PATIENT, plan.level), s.n, plan.level)
            for s in shares
        ]
    else:
        own = [np.ones_like(right, dtype=bool), *(scored.truth == k for k in range(len(matrix)))]
        figures = [
            bootstrapped(mean_of_rows(right[rows]), scored.groups[rows].tolist(), plan)
            for rows in own
        ]
    found["accuracy"], *recalls = figures
    found["recall"] = dict(zip(scored.labels, recalls, strict=True))
    if scored.independent:
        for name, weights in (
            ("kappa", KappaWeights.NONE),
            ("kappa_quadratic", KappaWeights.QUADRATIC),
        ):
            found[name] = figure(
                lambda w=weights: cohen_kappa(matrix, w, Unit.PATIENT, plan.level).estimate,
                len(scored.truth),
                plan.level,
            )
    return found


def class_differences(scored: Scored, asked: Asked) -> list[Json]:
    """Every two scores by paired bootstrap of patients."""
    rows: list[Json] = []
    for i, j in combinations(range(len(scored.names)), 2):
        about: Json = {
            "first": scored.names[i],
            "second": scored.names[j],
            "metric": f"{_kind(scored)} AUC",
            "kind": "bootstrap",
        }
        try:
            one, two = (MeanOfStatistics(tuple(_parts(scored, k).values())) for k in (i, j))
            found = paired_cluster_bootstrap(one, two, scored.groups, asked.plan)
        except StatisticUndefined as error:
            why = undefined_json(scored.n_patients, Unit.PATIENT, str(error), asked.plan.level)
            rows.append(about | {"difference": why, "p": None, "test": ""})
            continue
        rows.append(
            about
            | {
                "difference": estimate_json(found.difference),
                "first_value": found.first.value,
                "second_value": found.second.value,
                "test": "paired bootstrap of patients",
                "p": found.p_value,
            }
        )
    return adjusted(rows, asked.adjust)


def _area(scored: Scored, parts: list[Auc], level: float) -> Json:
    """One AUC, or the mean of several, of the same rows."""
    groups = None if scored.independent else scored.groups
    cases = [(part.truth, part.scores) for part in parts]
    return figure(lambda: mean_auc(cases, groups, level), scored.n_patients, level)


def _kind(scored: Scored) -> str:
    return "cumulative" if scored.scores.ndim == 2 else "macro"


def _parts(scored: Scored, index: int) -> dict[str, Auc]:
    """The two-class AUCs whose mean is the score's, by name."""
    labels, scores = list(scored.labels), scored.scores[index]
    if _kind(scored) == "cumulative":
        splits = cumulative_splits(scored.truth, scores)
        names = [f"{label} or above" for label in labels[1:]]
        return {n: Auc(t, s) for n, (t, s) in zip(names, splits, strict=True)}
    return {
        f"{label} against the rest": Auc((scored.truth == k).astype(np.int64), scores[:, k])
        for k, label in enumerate(labels)
    }
