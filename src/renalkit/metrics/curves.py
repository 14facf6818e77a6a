"""How good is a ranking where it matters: in a part of the ROC curve, or among rare positives?

Each number is also a `bootstrap.Statistic`, so `cluster_bootstrap` gives its interval over
patients. Compared with pROC and scikit-learn (validation/).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from renalkit.metrics.bootstrap import Codes, Evaluate
from renalkit.metrics.classification import AnyArray, Floats, binary_scores

# Largest temporary array of one step, in numbers.
_CHUNK = 4_000_000


class Axis(StrEnum):
    """Which rate a part of the ROC curve is cut out by."""

    SPECIFICITY = "specificity"
    SENSITIVITY = "sensitivity"


@dataclass(frozen=True, slots=True)
class RocPart:
    """The part of a ROC curve where the rate on `axis` lies from `low` to `high`."""

    low: float
    high: float = 1.0
    axis: Axis = Axis.SPECIFICITY

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= 1:
            raise ValueError(
                f"{self.axis} from {self.low} to {self.high}: expected 0 <= a < b <= 1"
            )

    @property
    def chance(self) -> float:
        """Raw area of a system that ranks by chance (McClish's minimum)."""
        return ((1 - self.low) ** 2 - (1 - self.high) ** 2) / 2

    @property
    def perfect(self) -> float:
        """Raw area of a system that separates the classes."""
        return self.high - self.low


@dataclass(frozen=True, slots=True)
class PartialAuc:
    """Area under a part of the ROC curve; straight lines between the operating points.

    truth (n,) 0/1, scores (n,). Raw: the area itself, at most the width of the part. standardised:
    McClish 1989, Med Decis Making 9:190, 0.5 by chance and 1 for a perfect ranking, whatever the
    part. Over specificity the area lies under the sensitivity, over sensitivity under the
    specificity (as in pROC).
    """

    truth: AnyArray
    scores: AnyArray
    part: RocPart
    standardised: bool = False

    @property
    def n_rows(self) -> int:
        return len(self.truth)

    def prepare(self, codes: Codes, n_groups: int) -> Evaluate:
        t, s = binary_scores(self.truth, self.scores)
        low, high = 1 - self.part.high, 1 - self.part.low
        if self.part.axis is Axis.SENSITIVITY:
            t, s = ~t, -s  # the curve seen from its other end: specificity over sensitivity
        chance, perfect = self.part.chance, self.part.perfect

        def area(tp: Floats, fp: Floats) -> Floats:
            with np.errstate(invalid="ignore"):  # a resample without a class is NaN
                y, x = tp / tp[:, -1:], fp / fp[:, -1:]
            x0, x1, y0, y1 = x[:, :-1], x[:, 1:], y[:, :-1], y[:, 1:]
            width = x1 - x0
            slope = np.divide(y1 - y0, width, out=np.zeros_like(width), where=width > 0)
            a, b = np.clip(x0, low, high), np.clip(x1, low, high)
            raw = ((b - a) * (y0 + slope * ((a + b) / 2 - x0))).sum(axis=1)
            return (1 + (raw - chance) / (perfect - chance)) / 2 if self.standardised else raw

        return _over_cuts(t, s, codes, area)


@dataclass(frozen=True, slots=True)
class AveragePrecision:
    """Area under the precision-recall curve as a sum of steps: each gain of recall times the
    precision reached with it. No line is drawn between points, which would flatter.

    truth (n,) 0/1, scores (n,). By chance it is near the share of positives, so it must not be
    compared between cohorts with other shares. As scikit-learn's average_precision_score.
    """

    truth: AnyArray
    scores: AnyArray

    @property
    def n_rows(self) -> int:
        return len(self.truth)

    def prepare(self, codes: Codes, n_groups: int) -> Evaluate:
        t, s = binary_scores(self.truth, self.scores)

        def steps(tp: Floats, fp: Floats) -> Floats:
            called = tp[:, 1:] + fp[:, 1:]
            precision = np.divide(tp[:, 1:], called, out=np.zeros_like(called), where=called > 0)
            with np.errstate(invalid="ignore"):
                return (np.diff(tp, axis=1) * precision).sum(axis=1) / tp[:, -1]

        return _over_cuts(t, s, codes, steps)


@dataclass(frozen=True, slots=True)
class PrecisionRecallCurve:
    """Precision and recall when every score at or above a threshold is called positive.

    Thresholds fall and recall rises over all distinct scores (K,). No point for "call none": its
    precision does not exist.
    """

    thresholds: Floats
    precision: Floats
    recall: Floats


def partial_auc(
    truth: AnyArray, scores: AnyArray, part: RocPart, *, standardised: bool = False
) -> float:
    """Point estimate of `PartialAuc`.

    Raises: StatisticUndefined as `auc`.

    >>> partial_auc(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8]), RocPart(0.5))
    0.25
    """
    return _value(PartialAuc(truth, scores, part, standardised))


def average_precision(truth: AnyArray, scores: AnyArray) -> float:
    """Point estimate of `AveragePrecision`. A constant score gives the share of positives.

    Raises: StatisticUndefined as `auc`.

    >>> round(average_precision(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8])), 6)
    0.833333
    """
    return _value(AveragePrecision(truth, scores))


def precision_recall_curve(truth: AnyArray, scores: AnyArray) -> PrecisionRecallCurve:
    """Every point of the curve; refuses as `auc` does."""
    t, s = binary_scores(truth, scores)
    cuts, place = np.unique(s, return_inverse=True)
    tp = np.bincount(place[t], minlength=cuts.size)[::-1].cumsum()
    called = np.bincount(place, minlength=cuts.size)[::-1].cumsum()
    return PrecisionRecallCurve(cuts[::-1], tp / called, tp / t.sum())


def _value(statistic: PartialAuc | AveragePrecision) -> float:
    n = statistic.n_rows
    return float(statistic.prepare(np.arange(n), n)(np.ones((1, n)))[0])


def _over_cuts(
    t: np.ndarray[tuple[int], np.dtype[np.bool_]],
    s: Floats,
    codes: Codes,
    measure: Callable[[Floats, Floats], Floats],
) -> Evaluate:
    """Applies `measure` to true and false positives (B, K+1), from "call none" to "call all"."""
    order = np.lexsort((codes, -s))
    patient, positive = codes[order], t[order]
    starts = np.concatenate([[0], np.flatnonzero(np.diff(s[order])) + 1])  # of equal scores
    step = max(1, _CHUNK // t.size)

    def some(counts: Floats) -> Floats:
        weights = counts[:, patient]
        at_cut = [np.add.reduceat(weights * mine, starts, axis=1) for mine in (positive, ~positive)]
        tp, fp = (np.pad(np.cumsum(c, axis=1), ((0, 0), (1, 0))) for c in at_cut)
        return measure(tp, fp)

    def evaluate(counts: Floats) -> Floats:
        return np.concatenate([some(counts[k : k + step]) for k in range(0, len(counts), step)])

    return evaluate
