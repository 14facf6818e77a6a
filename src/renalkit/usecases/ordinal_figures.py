"""Figures of ordered classes: how far off calls and scores are, and each cut of the order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from renalkit.domain.prediction import Unit
from renalkit.metrics.agreement import KappaWeights, cohen_kappa
from renalkit.metrics.auc_inference import auc_estimate, mean_auc
from renalkit.metrics.bootstrap import BootstrapPlan, Statistic, mean_of_rows
from renalkit.metrics.classification import confusion_matrix
from renalkit.metrics.ordinal import QuadraticKappa, absolute_errors, ranked_probability_scores
from renalkit.usecases.results import Json, bootstrapped, figure, undefined_json

Floats = npt.NDArray[np.float64]
Classes = npt.NDArray[np.intp]


LOWER = ("grade_error", "rps")
"""Measures of ordered classes of which less is better."""


def ordinal_statistics(truth: Classes, called: Classes, scores: Floats) -> dict[str, Statistic]:
    """The measures that compare systems, by name; scores (n, k)."""
    k = scores.shape[1]
    return {
        "kappa_quadratic": QuadraticKappa(truth, called, k),
        "grade_error": mean_of_rows(absolute_errors(truth, called, k)),
        "rps": mean_of_rows(ranked_probability_scores(truth, scores)),
    }


def ordinal_figures(
    data: tuple[Classes, Classes, Floats],
    groups: Sequence[str],
    classes: Sequence[str],
    plan: BootstrapPlan,
    unit: Unit,
) -> Json:
    """Of truth (n,), calls (n,) and scores (n, k) of rows of patients (groups).

    kappa_quadratic, grade_error (classes between call and truth), rps (ranked probability score),
    cut_auc (mean over the cuts) and every cut, "this class or above", by itself.
    """
    truth, called, scores = data
    n, k = len(set(groups)), len(classes)
    independent = unit is Unit.PATIENT
    patients = None if independent else np.asarray(groups)
    measures = ordinal_statistics(truth, called, scores)
    found = {name: bootstrapped(measures[name], groups, plan) for name in LOWER}
    if independent:
        matrix = confusion_matrix(truth, called, k)
        kappa = figure(
            lambda: cohen_kappa(matrix, KappaWeights.QUADRATIC, unit, plan.level).estimate,
            n,
            plan.level,
        )
    else:
        kappa = bootstrapped(measures["kappa_quadratic"], groups, plan)
    above = np.cumsum(scores[:, ::-1], axis=1)[:, ::-1]
    parts = [((truth >= g).astype(np.int64), above[:, g]) for g in range(1, k)]
    if all(0 < int(t.sum()) < t.size for t, _ in parts):
        mean = figure(lambda: mean_auc(parts, patients, plan.level), n, plan.level)
    else:
        mean = undefined_json(n, Unit.PATIENT, "a cut has no case on one side", plan.level)
    return {
        "kappa_quadratic": kappa,
        **found,
        "cut_auc": mean,
        "cuts": [
            {
                "cut": f"{classes[g]} or above",
                "above": int(t.sum()),
                "auc": figure(
                    lambda t=t, s=s: auc_estimate(t, s, patients, plan.level), n, plan.level
                ),
            }
            for g, (t, s) in enumerate(parts, start=1)
        ],
    }
