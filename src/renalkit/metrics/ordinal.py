"""How far off are calls and scores of ordered classes? An error of one grade is not one of three.

truth, called (n,) classes 0 .. k-1 in rising order; probabilities (n, k), rows summing to 1.
Weighted kappa of patients stands in `agreement`, that of several rows of a patient here; scores of
each cut are those of `classification.cumulative_splits`.

Sources: Cohen 1968, Psychol Bull 70:213 (weighted kappa); Epstein 1969, J Appl Meteorol 8:985, with
Murphy 1971, J Appl Meteorol 10:155 (ranked probability score).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from renalkit.errors import StatisticUndefined
from renalkit.metrics.bootstrap import Codes, Evaluate
from renalkit.metrics.classification import AnyArray, Floats, confusion_matrix


def absolute_errors(truth: AnyArray, called: AnyArray, n_classes: int) -> Floats:
    """(n,) grades between the call and the truth, 0 .. k-1; their mean is the error in grades.

    Raises: StatisticUndefined if empty, unequal, or with values outside the classes.
    """
    confusion_matrix(truth, called, n_classes)
    return np.abs(np.asarray(truth, np.float64) - np.asarray(called, np.float64))


def ranked_probability_scores(truth: AnyArray, probabilities: AnyArray) -> Floats:
    """(n,) mean over the k - 1 cuts of the squared distance between P(class <= cut) and what is so.

    0 for certainty in the right class, 1 for certainty at the far end; proper, and for two classes
    the Brier score. (Epstein's sum, divided by k - 1.)

    Raises: StatisticUndefined for other shapes, truths outside the classes, or scores that are no
    probabilities.

    >>> ranked_probability_scores(np.array([0, 2]), np.array([[0.5, 0.5, 0], [1, 0, 0]])).tolist()
    [0.125, 1.0]
    """
    t, p = np.asarray(truth, dtype=np.int64), np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 2 or p.shape[1] < 2 or t.shape != p.shape[:1] or t.size == 0:
        raise StatisticUndefined(
            f"truths of shape {t.shape} and probabilities of shape {p.shape}",
            where="ranked probability score",
            expected="(cases,) and (cases, classes), a case and two or more classes",
        )
    sums = p.sum(axis=1)
    if not (np.isfinite(p).all() and (p > -1e-9).all() and (np.abs(sums - 1) < 1e-6).all()):
        raise StatisticUndefined(
            "scores that are no probabilities",
            where="ranked probability score",
            expected="from 0 to 1, with the sum 1 in each row",
        )
    if not ((t >= 0) & (t < p.shape[1])).all():
        raise StatisticUndefined(
            "truths outside the classes",
            where="ranked probability score",
            expected=f"0 to {p.shape[1] - 1}",
        )
    at_most = np.cumsum(p, axis=1)[:, :-1]
    is_so = t[:, None] <= np.arange(p.shape[1] - 1)
    return ((at_most - is_so) ** 2).mean(axis=1)


@dataclass(frozen=True, slots=True)
class QuadraticKappa:
    """Kappa with quadratic weights as a `bootstrap.Statistic`.

    1 - observed / expected disagreement, that of classes i and j counting (i - j)^2. For rows of
    patients seen several times, whom the bootstrap draws whole. NaN for a resample in which truth
    and calls are of one class only.
    """

    truth: AnyArray
    called: AnyArray
    n_classes: int

    @property
    def n_rows(self) -> int:
        return len(self.truth)

    def prepare(self, codes: Codes, n_groups: int) -> Evaluate:
        confusion_matrix(self.truth, self.called, self.n_classes)
        k = self.n_classes
        t, c = (np.asarray(v, dtype=np.intp) for v in (self.truth, self.called))
        place = codes * k * k + t * k + c
        cells = np.bincount(place, minlength=n_groups * k * k).astype(np.float64)
        of_group = cells.reshape(n_groups, k * k)
        apart = (np.arange(k)[:, None] - np.arange(k)) ** 2

        def evaluate(counts: Floats) -> Floats:
            table = (counts @ of_group).reshape(-1, k, k)
            observed = (table * apart).sum(axis=(1, 2)) * table.sum(axis=(1, 2))
            rows, cols = table.sum(axis=2), table.sum(axis=1)
            expected = np.einsum("bi,ij,bj->b", rows, apart.astype(np.float64), cols)
            whole = np.full(len(expected), np.nan)
            np.divide(observed, expected, out=whole, where=expected > 0)
            return 1 - whole

        return evaluate
