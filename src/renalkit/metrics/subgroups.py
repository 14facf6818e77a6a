"""Is a figure the same in every subgroup of patients? Tests of interaction.

A figure that is worse in one subgroup by eye is often chance: each subgroup is small and there are
many. What is asked here is whether the subgroups differ from one another at all; several variables
are then adjusted together (`multiplicity.holm`). Shares and measurements are compared with the
tests of `characteristics`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from renalkit.errors import StatisticUndefined
from renalkit.metrics.auc_inference import delong_covariance
from renalkit.metrics.classification import AnyArray


@dataclass(frozen=True, slots=True)
class Interaction:
    """The test that subgroups have one value. p_value None: test says why there is none."""

    test: str
    statistic: float | None
    p_value: float | None


def equal_aucs_of_groups(groups: Sequence[tuple[AnyArray, AnyArray]]) -> Interaction:
    """Do disjoint groups of patients have one AUC? Each group: (truth (n,), scores (n,)).

    Cochran's Q: squared distances of the AUCs from their mean, each weighted by one over its DeLong
    variance; chi-square with one degree of freedom less than groups (Cochran 1954, Biometrics
    10:101). Of two groups Q is the square of the unpaired DeLong statistic. Scores need no common
    scale between groups. A group whose AUC has no variance (complete separation, or equal scores)
    leaves no test.

    Raises: StatisticUndefined as `delong`.
    """
    if len(groups) < 2:
        return Interaction("no test: fewer than two groups", None, None)
    found = [delong_covariance(truth, scores) for truth, scores in groups]
    values = np.array([float(auc[0]) for auc, _ in found])
    variances = np.array([float(cov[0, 0]) for _, cov in found])
    if not bool((variances > 0).all()):
        if bool(((values == 0) | (values == 1)).any()):
            return Interaction("no test: a group separates the classes completely", None, None)
        return Interaction("no test: all scores of a group are equal", None, None)
    weights = 1 / variances
    mean = float(weights @ values) / float(weights.sum())
    q = float(weights @ (values - mean) ** 2)
    p = float(special.chdtrc(len(groups) - 1, q))
    return Interaction("Cochran's Q of DeLong AUCs", q, p)


def equal_ranks_of_groups(groups: Sequence[AnyArray]) -> Interaction:
    """Do groups of one class rank alike against the other class? Each group: scores (n,).

    The AUC of a histology against all patients of the other class is the mean rank of its patients
    among those: groups that share their comparison are not independent, but their own scores are
    (Kruskal-Wallis test).

    Raises: StatisticUndefined for scores that are not finite.
    """
    if len(groups) < 2:
        return Interaction("no test: fewer than two groups", None, None)
    scores = [np.asarray(g, dtype=np.float64) for g in groups]
    every = np.concatenate(scores)
    if min(s.size for s in scores) == 0:
        return Interaction("no test: a group without a patient", None, None)
    if not bool(np.isfinite(every).all()):
        raise StatisticUndefined("scores that are NaN or infinite", where="Kruskal-Wallis test")
    if float(np.ptp(every)) == 0:
        return Interaction("no test: all scores are equal", None, None)
    found = stats.kruskal(*scores)
    return Interaction("Kruskal-Wallis test of scores", float(found.statistic), float(found.pvalue))
