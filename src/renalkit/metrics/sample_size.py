"""How many patients does a study of an AUC, or of the difference of two, need?

Planned for the tests that are used here: Wald tests with DeLong's variance, so that a two-sided
test at 1 - level and an interval at level are the same thing. One patient, one score; patients with
several frames count once. The classes come in a fixed ratio.

Sources: Hanley and McNeil 1982, Radiology 143:29 and 1983, Radiology 148:839 (correlated areas);
Obuchowski and McClish 1997, Stat Med 16:1529; variance of a Mann-Whitney statistic from its
kernel: Noether 1967. Compared with pROC's power.roc.test (validation/) and by simulation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from math import asin, ceil, exp, pi, sqrt

import numpy as np
from scipy import special

from renalkit.errors import StatisticUndefined
from renalkit.metrics.classification import Floats
from renalkit.metrics.inference import check_level, normal_quantile

# A plan that needs more than this is no plan.
_MOST = 10_000_000


class AucModel(StrEnum):
    """What scores are assumed to look like, and so how much an AUC varies.

    empirical: normal in both classes with equal spread; exact for the AUC as it is computed here.
    hanley-mcneil: exponential; the usual formula when only the AUC is known.
    obuchowski: binormal curve fitted to the scores, in the published form without the covariance
    of its two parameters; larger than the others for high AUCs. As in pROC and the textbooks.
    """

    EMPIRICAL = "empirical"
    HANLEY_MCNEIL = "hanley-mcneil"
    OBUCHOWSKI = "obuchowski"


@dataclass(frozen=True, slots=True)
class AucDesign:
    """What the study shall reach.

    level: of the interval; the two-sided test has 1 - level, a non-inferiority test half of that.
    negatives_per_positive: 1.5 for 40 % positives. null_variance: take the variance under equality
    for the rejection limit, as published tables do, in place of the one under the alternative.
    """

    power: float = 0.8
    level: float = 0.95
    negatives_per_positive: float = 1.0
    model: AucModel = AucModel.EMPIRICAL
    null_variance: bool = False

    def __post_init__(self) -> None:
        check_level(self.level)
        if not 0 < self.power < 1:
            raise ValueError(f"power {self.power}: expected a number between 0 and 1, such as 0.8")
        if not 0 < self.negatives_per_positive < float("inf"):
            raise ValueError(f"{self.negatives_per_positive} negatives per positive: expected > 0")

    def negatives(self, n_positive: int) -> int:
        return ceil(n_positive * self.negatives_per_positive - 1e-9)


@dataclass(frozen=True, slots=True)
class SampleSize:
    """Patients of each class, and the power (or half width of the interval) that they give."""

    n_positive: int
    n_negative: int
    reached: float

    @property
    def n(self) -> int:
        return self.n_positive + self.n_negative


# ------------------------------------------------------------------ variance


def auc_variance(
    auc: float, n_positive: int, n_negative: int, model: AucModel = AucModel.EMPIRICAL
) -> float:
    """Variance of an AUC estimated from so many cases.

    Raises: ValueError for an AUC outside (0, 1) or a class without a case.

    >>> round(auc_variance(0.5, 50, 50), 6) == round(101 / (12 * 50 * 50), 6)
    True
    """
    _check_auc(auc)
    if min(n_positive, n_negative) < 1:
        raise ValueError(f"{n_positive} positive and {n_negative} negative cases")
    if model is AucModel.OBUCHOWSKI:
        a2 = 2 * float(special.ndtri(auc)) ** 2
        both = 5 * a2 + 8 + (a2 + 8) * n_positive / n_negative
        return exp(-a2 / 2) / (32 * pi) * both / n_positive
    if model is AucModel.HANLEY_MCNEIL:
        same_positive, same_negative = auc / (2 - auc) - auc**2, 2 * auc**2 / (1 + auc) - auc**2
        # Q1 is for two positives and one negative, so it comes with the number of positives.
        shared = (n_positive - 1) * same_positive + (n_negative - 1) * same_negative
    else:
        h = float(special.ndtri(auc))
        shared = (n_positive + n_negative - 2) * _excess(h, h, 0.5)
    return (auc * (1 - auc) + shared) / (n_positive * n_negative)


def auc_correlation(
    aucs: tuple[float, float],
    in_positive: float,
    in_negative: float,
    negatives_per_positive: float = 1.0,
) -> float:
    """Correlation of two estimated AUCs on the same patients, from that of the scores.

    in_positive, in_negative: correlation of the two systems' scores within each class, from a
    pilot. For normal scores of equal spread and many patients; as tabulated by Hanley and McNeil
    1983.
    Raises: ValueError for values out of range.

    >>> round(auc_correlation((0.8, 0.8), 1.0, 1.0), 6), auc_correlation((0.8, 0.8), 0.0, 0.0)
    (1.0, 0.0)
    """
    for auc in aucs:
        _check_auc(auc)
    if max(abs(in_positive), abs(in_negative)) > 1 or not negatives_per_positive > 0:
        raise ValueError(f"correlations {in_positive} and {in_negative}: expected -1 to 1")
    h, k = (float(special.ndtri(a)) for a in aucs)
    share = 1 / negatives_per_positive
    covariance = _excess(h, k, in_positive / 2) + share * _excess(h, k, in_negative / 2)
    variances = [(1 + share) * _excess(v, v, 0.5) for v in (h, k)]
    return covariance / sqrt(variances[0] * variances[1])


def _excess(h: float, k: float, rho: float) -> float:
    """P(U < h, V < k) - P(U < h) P(V < k) for standard normal U, V of correlation rho.

    Plackett's integral over the correlation, as an angle: smooth, so 48 nodes give 1e-12.
    """
    nodes, weights = _nodes()
    half = asin(rho) / 2
    sine = np.sin(half * (nodes + 1))
    power = -(h * h + k * k - 2 * h * k * sine) / (2 * (1 - sine**2))
    return float((weights * np.exp(power)).sum()) * half / (2 * pi)


@cache
def _nodes() -> tuple[Floats, Floats]:
    return np.polynomial.legendre.leggauss(48)


# ------------------------------------------------------------------ one AUC


def n_for_width(auc: float, half_width: float, design: AucDesign | None = None) -> SampleSize:
    """Patients so that the interval of one AUC reaches at most half_width to each side.

    Raises: ValueError for values out of range; StatisticUndefined beyond ten million patients.

    >>> n_for_width(0.85, 0.05).n
    218
    """
    design = design or AucDesign()
    _check_auc(auc)
    if not 0 < half_width < 1:
        raise ValueError(f"half width {half_width}: expected a number between 0 and 1")
    z = normal_quantile(design.level)

    def width(n_positive: int) -> float:
        n_negative = design.negatives(n_positive)
        return z * sqrt(auc_variance(auc, n_positive, n_negative, design.model))

    n = _smallest(lambda n_positive: width(n_positive) <= half_width)
    return SampleSize(n, design.negatives(n), width(n))


def power_for_auc(
    auc: float, null: float, n_positive: int, n_negative: int, design: AucDesign | None = None
) -> float:
    """Chance that an AUC of `auc` is found different from `null`; design.power is not used."""
    design = design or AucDesign()
    _check_auc(null)
    here = auc_variance(auc, n_positive, n_negative, design.model)
    there = auc_variance(null, n_positive, n_negative, design.model)
    return _power(abs(auc - null), there if design.null_variance else here, here, design)


def n_for_auc(auc: float, null: float = 0.5, design: AucDesign | None = None) -> SampleSize:
    """Patients so that an AUC of `auc` is found different from `null` with the design's power.

    Raises: as `n_for_width`; StatisticUndefined if there is no difference to find.
    """
    design = design or AucDesign()
    _check_auc(auc)
    _something(auc - null)
    return _n_for_power(lambda p: power_for_auc(auc, null, p, design.negatives(p), design), design)


# ------------------------------------------------------------------ two AUCs


@dataclass(frozen=True, slots=True)
class AucPair:
    """Expected AUCs of a new system and its reference, and the correlation of their estimates.

    correlation: see `auc_correlation`; 0 for two separate groups of patients, each of size n.
    """

    new: float
    reference: float
    correlation: float

    def __post_init__(self) -> None:
        _check_auc(self.new)
        _check_auc(self.reference)
        if not -1 <= self.correlation < 1:
            raise ValueError(f"correlation {self.correlation}: expected -1 <= r < 1")

    def variance(self, n_positive: int, n_negative: int, model: AucModel) -> float:
        """Variance of the difference of the two estimates."""
        a, b = (auc_variance(v, n_positive, n_negative, model) for v in (self.new, self.reference))
        return a + b - 2 * self.correlation * sqrt(a * b)


def power_for_difference(
    pair: AucPair, n_positive: int, n_negative: int, design: AucDesign | None = None
) -> float:
    """Chance that two AUCs are found different; design.power is not used."""
    design = design or AucDesign()
    equal = AucPair(pair.reference, pair.reference, pair.correlation)
    here, null = (p.variance(n_positive, n_negative, design.model) for p in (pair, equal))
    difference = abs(pair.new - pair.reference)
    return _power(difference, null if design.null_variance else here, here, design)


def n_for_difference(pair: AucPair, design: AucDesign | None = None) -> SampleSize:
    """Patients so that the paired test finds the difference with the design's power.

    Raises: StatisticUndefined if there is no difference, or beyond ten million patients.
    """
    design = design or AucDesign()
    _something(pair.new - pair.reference)
    return _n_for_power(
        lambda p: power_for_difference(pair, p, design.negatives(p), design), design
    )


def power_for_non_inferiority(
    pair: AucPair,
    margin: float,
    n_positive: int,
    n_negative: int,
    design: AucDesign | None = None,
) -> float:
    """Chance that the new AUC is shown to be at most `margin` below the reference.

    One-sided at (1 - level) / 2, as `auc_non_inferiority`; design.power is not used.
    """
    design = design or AucDesign()
    if not 0 < margin < 1:
        raise ValueError(f"margin {margin}: expected a loss between 0 and 1, such as 0.05")
    at_margin = AucPair(pair.reference - margin, pair.reference, pair.correlation)
    here, null = (p.variance(n_positive, n_negative, design.model) for p in (pair, at_margin))
    gap = pair.new - pair.reference + margin
    return _power(gap, null if design.null_variance else here, here, design)


def n_for_non_inferiority(
    pair: AucPair, margin: float, design: AucDesign | None = None
) -> SampleSize:
    """Patients so that non-inferiority by `margin` is shown with the design's power.

    Raises: StatisticUndefined if the new system is expected to be worse by the margin or more.
    """
    design = design or AucDesign()
    _something(max(0.0, pair.new - pair.reference + margin))
    return _n_for_power(
        lambda p: power_for_non_inferiority(pair, margin, p, design.negatives(p), design), design
    )


# ------------------------------------------------------------------ search and checks


def _power(gap: float, null: float, here: float, design: AucDesign) -> float:
    z = (gap - normal_quantile(design.level) * sqrt(null)) / sqrt(here)
    return float(special.ndtr(z))


def _n_for_power(power: Callable[[int], float], design: AucDesign) -> SampleSize:
    n = _smallest(lambda n_positive: power(n_positive) >= design.power)
    return SampleSize(n, design.negatives(n), power(n))


def _smallest(enough: Callable[[int], bool]) -> int:
    """The smallest number of positives, at least 2, that is enough."""
    high = 2
    while not enough(high):
        high *= 2
        if high > _MOST:
            raise StatisticUndefined(
                f"more than {_MOST} positive patients would be needed",
                expected="a difference, margin or width that a study can reach",
            )
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _check_auc(auc: float) -> None:
    if not 0 < auc < 1:
        raise ValueError(f"AUC {auc}: expected a number between 0 and 1, neither of them")


def _something(gap: float) -> None:
    if abs(gap) < 1e-12:
        raise StatisticUndefined(
            "no difference to find: no number of patients is enough",
            expected="AUCs that differ, or a margin above the expected loss",
        )
