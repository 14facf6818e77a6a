"""How sure is an AUC, and do two systems differ in theirs?

delong: independent cases, one row per patient. clustered: several rows per patient (frames,
lesions) without pretending that they are independent. Both come as one interval, as a paired
comparison on the same cases, and, for DeLong, as a comparison of two different groups of cases.

Intervals are made on the logit scale unless asked otherwise: in simulated cohorts they covered
within 93 to 97 % everywhere, plain ones did not (validation/coverage_auc.py). Differences of AUCs
stay on the plain scale, where the test of no difference is.

Sources: DeLong, DeLong and Clarke-Pearson 1988, Biometrics 44:837; mid-rank form of Sun and Xu
2014, IEEE SPL 21:1389; clusters: Obuchowski 1997, Biometrics 53:567 (not the binormal method
that pROC calls "obuchowski"); logit scale: Pepe 2003, section 5.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import nan, sqrt

import numpy as np
import numpy.typing as npt
from scipy import special

from renalkit.domain.prediction import Unit
from renalkit.errors import StatisticUndefined
from renalkit.metrics.classification import AnyArray, Floats, binary_scores, pairs_won
from renalkit.metrics.inference import Estimate, check_level, normal_quantile, refuse_frames

Bools = npt.NDArray[np.bool_]

# A variance of an AUC below this is one of rounding errors.
_ROUNDING = 1e-28


class Alternative(StrEnum):
    """Against which alternative the equality of two AUCs is tested."""

    TWO_SIDED = "two-sided"
    GREATER = "greater"
    LESS = "less"


class Scale(StrEnum):
    """Where an interval of an AUC is symmetric.

    logit: never leaves 0 to 1, covers better near 1. plain: as pROC makes it, cut off at 0 and 1.
    """

    PLAIN = "plain"
    LOGIT = "logit"


@dataclass(frozen=True, slots=True)
class AucComparison:
    """Two AUCs, first minus second, and the test of no difference.

    statistic: z, or t with `df` degrees of freedom (infinite for z). p_value is two-sided unless
    asked otherwise.
    """

    first: Estimate
    second: Estimate
    difference: Estimate
    statistic: float
    df: float
    p_value: float


def delong_covariance(truth: AnyArray, scores: AnyArray) -> tuple[Floats, Floats]:
    """AUCs (S,) and their covariance (S, S) of S systems scored on the same independent cases.

    truth (n,) 0/1; scores (S, n).
    Raises: StatisticUndefined with fewer than two cases in a class, or as `auc`.
    """
    t, aucs, of_pos, of_neg = _placements(truth, scores)
    n_pos, n_neg = int(t.sum()), int((~t).sum())
    if min(n_pos, n_neg) < 2:
        raise StatisticUndefined(
            f"variance of an AUC from {n_pos} positive and {n_neg} negative cases",
            expected="at least two of each",
        )
    return aucs, _covariance(of_pos) / n_pos + _covariance(of_neg) / n_neg


def delong(
    truth: AnyArray,
    scores: AnyArray,
    unit: Unit = Unit.PATIENT,
    level: float = 0.95,
    scale: Scale = Scale.LOGIT,
) -> Estimate:
    """AUC with DeLong's interval; one row per independent unit.

    For frames, take `patient_means` first, or `clustered_auc`.

    With complete separation (AUC 0 or 1) DeLong's variance is 0 and would claim certainty. The
    bound is then exact: m disjoint pairs, m the smaller class, are independent trials that all
    came out in the right order, so low = (tail)^(1/m). Scores that are all equal have an AUC of 0.5
    without an interval.

    Raises: StatisticUndefined for frames, or fewer than two cases in a class.
    """
    refuse_frames(unit)
    aucs, cov = delong_covariance(truth, scores)
    basis = _Basis.of_cases(truth, unit, level)
    return _estimate(float(aucs[0]), float(cov[0, 0]), basis, scale)


def patient_means(truth: AnyArray, scores: AnyArray, groups: AnyArray) -> tuple[Bools, Floats]:
    """One row per patient, in the order of the sorted keys: truth (G,), mean score (G,).

    truth, scores, groups (n,): rows of frames. The mean asks another question than the rows do:
    it ranks patients, and patients with many frames weigh no more than others.
    Raises: StatisticUndefined if a patient has rows of both classes, or as `auc`.
    """
    t, s = binary_scores(truth, scores)
    codes, n_groups = group_codes(groups, t.size)
    share = np.bincount(codes, weights=t, minlength=n_groups) / np.bincount(codes)
    mixed = int(((share > 0) & (share < 1)).sum())
    if mixed:
        raise StatisticUndefined(
            f"{mixed} patients have rows of both classes",
            expected="one class per patient",
            remedy="use the clustered AUC, or lesions as units",
        )
    return share == 1, np.bincount(codes, weights=s, minlength=n_groups) / np.bincount(codes)


def paired_delong(
    truth: AnyArray,
    first: AnyArray,
    second: AnyArray,
    alternative: Alternative = Alternative.TWO_SIDED,
    level: float = 0.95,
) -> AucComparison:
    """Do two systems differ in AUC on the same patients? Identical systems: z 0, p 1.

    Raises: as `delong`, and if the difference has no variance though it is not 0.
    """
    aucs, cov = delong_covariance(truth, _pair(first, second))
    return _compare(aucs, cov, _Basis.of_cases(truth, Unit.PATIENT, level), alternative)


def unpaired_delong(
    first: tuple[AnyArray, AnyArray],
    second: tuple[AnyArray, AnyArray],
    alternative: Alternative = Alternative.TWO_SIDED,
    level: float = 0.95,
) -> AucComparison:
    """Do AUCs differ between two disjoint groups of patients? Each argument: (truth, scores).

    Welch's degrees of freedom, as pROC does for unpaired curves.
    """
    a, b = (delong(t, s, Unit.PATIENT, level) for t, s in (first, second))
    va, vb = (float(delong_covariance(t, s)[1][0, 0]) for t, s in (first, second))
    difference, se = a.value - b.value, sqrt(va + vb)
    if se == 0:
        raise _no_variance("both AUCs")
    df = (va + vb) ** 2 / (va**2 / (a.n - 1) + vb**2 / (b.n - 1))
    half = float(special.stdtrit(df, 0.5 + level / 2)) * se
    estimate = Estimate(
        difference,
        difference - half,
        difference + half,
        level,
        a.n + b.n,
        Unit.PATIENT,
        "DeLong, two groups of patients, Welch",
    )
    statistic = difference / se
    p = _p_value(
        float(special.stdtr(df, statistic)), float(special.stdtr(df, -statistic)), alternative
    )
    return AucComparison(a, b, estimate, statistic, df, p)


def clustered_covariance(
    truth: AnyArray, scores: AnyArray, groups: AnyArray
) -> tuple[Floats, Floats]:
    """AUCs (S,) and covariance (S, S) when rows of one group (patient) depend on one another.

    truth (n,) 0/1, scores (S, n), groups (n,) any sortable keys. A group may hold rows of both
    classes. With one row per group this is DeLong's covariance exactly.
    Obuchowski 1997: sums of placement values per group take the place of single values.
    Raises: StatisticUndefined if fewer than two groups hold a class, or as `auc`.
    """
    aucs, pos, neg, of = _group_sums(truth, scores, groups)
    within_pos = of.with_pos / (of.with_pos - 1) * (pos @ pos.T)
    within_neg = of.with_neg / (of.with_neg - 1) * (neg @ neg.T)
    across = of.n / (of.n - 1) * (pos @ neg.T)
    return aucs, within_pos + within_neg + across + across.T


def clustered_auc(
    truth: AnyArray,
    scores: AnyArray,
    groups: AnyArray,
    level: float = 0.95,
    scale: Scale = Scale.LOGIT,
) -> Estimate:
    """AUC over rows (frames, lesions) with an interval that respects patients.

    The value is that of the rows; n counts the groups, which is what the interval rests on. At
    complete separation the bound is that of `delong` for pairs of whole patients; it takes how many
    rows a patient has to say nothing of their scores.
    Raises: as `clustered_covariance`.
    """
    aucs, cov = clustered_covariance(truth, scores, groups)
    basis = _Basis.of_groups(truth, groups, level)
    return _estimate(float(aucs[0]), float(cov[0, 0]), basis, scale)


def auc_estimate(
    truth: AnyArray,
    scores: AnyArray,
    groups: AnyArray | None = None,
    level: float = 0.95,
    scale: Scale = Scale.LOGIT,
) -> Estimate:
    """`delong` where groups is None (one row per patient), else `clustered_auc`."""
    if groups is None:
        return delong(truth, scores, Unit.PATIENT, level, scale)
    return clustered_auc(truth, scores, groups, level, scale)


def mean_auc(
    parts: Sequence[tuple[AnyArray, AnyArray]],
    groups: AnyArray | None = None,
    level: float = 0.95,
    scale: Scale = Scale.LOGIT,
) -> Estimate:
    """Mean of several AUCs of the same rows: macro over classes, or over cuts of an order.

    parts: (truth (n,) 0/1, scores (n,)), each with a truth of its own, as of one class against the
    rest. groups (n,): patient of each row, None for one row per patient. What a patient adds to the
    error of the mean is the mean of what it adds to that of each AUC. One part alone is as by
    `auc_estimate`.
    Raises: as `clustered_auc`, for any part.
    """
    if len(parts) == 1:
        return auc_estimate(*parts[0], groups, level, scale)
    rows = len(parts[0][0])
    keys = np.arange(rows) if groups is None else groups
    found = [_group_sums(truth, np.asarray(scores), keys) for truth, scores in parts]
    value = sum(float(aucs[0]) for aucs, *_ in found) / len(found)
    added = [
        sqrt(of.with_pos / (of.with_pos - 1)) * pos[0]
        + sqrt(of.with_neg / (of.with_neg - 1)) * neg[0]
        for _, pos, neg, of in found
    ]
    variance = float((np.mean(added, axis=0) ** 2).sum())
    source = "DeLong" if groups is None else f"Obuchowski 1997 over {rows} rows"
    method = f"{source}, mean of {len(parts)} AUCs"
    # The mean is at least the lowest AUC, whose pairs all came out in the right order.
    pairs = min(of.pairs for *_, of in found)
    basis = _Basis(len(added[0]), Unit.PATIENT, level, method, pairs)
    return _estimate(value, variance, basis, scale)


def paired_clustered_auc(
    truth: AnyArray,
    systems: tuple[AnyArray, AnyArray],
    groups: AnyArray,
    alternative: Alternative = Alternative.TWO_SIDED,
    level: float = 0.95,
) -> AucComparison:
    """Do two systems differ in AUC over the same rows, patients respected?"""
    aucs, cov = clustered_covariance(truth, _pair(*systems), groups)
    return _compare(aucs, cov, _Basis.of_groups(truth, groups, level), alternative)


@dataclass(frozen=True, slots=True)
class EqualAucs:
    """The test that several AUCs are all equal: chi-square with `df` degrees of freedom."""

    aucs: tuple[Estimate, ...]
    statistic: float
    df: int
    p_value: float


def equal_aucs(
    truth: AnyArray, scores: AnyArray, groups: AnyArray | None = None, level: float = 0.95
) -> EqualAucs:
    """Do S systems on the same cases all have one AUC? To be asked before pairs are looked at.

    scores (S, n); groups (n,): patient of each row, None for one row per patient. DeLong 1988,
    eq. 5, for the contrast of every system with the first; systems that are copies of one another
    take no degree of freedom, and copies alone give df 0 and p 1.

    Raises: StatisticUndefined as `delong` or `clustered_auc`, or if a difference has no variance.
    """
    if groups is None:
        aucs, cov = delong_covariance(truth, scores)
        basis = _Basis.of_cases(truth, Unit.PATIENT, level)
    else:
        aucs, cov = clustered_covariance(truth, scores, groups)
        basis = _Basis.of_groups(truth, groups, level)
    estimates = tuple(_estimate(float(a), float(cov[k, k]), basis) for k, a in enumerate(aucs))
    contrast = np.eye(aucs.size)[1:] - np.eye(aucs.size)[0]
    spread, axes = np.linalg.eigh(contrast @ cov @ contrast.T)
    along = axes.T @ (contrast @ aucs)
    varies = spread > 1e-12 * float(np.trace(cov))
    if bool((np.abs(along[~varies]) > 1e-9).any()):
        raise _no_variance("a difference of the AUCs")
    statistic, df = float((along[varies] ** 2 / spread[varies]).sum()), int(varies.sum())
    return EqualAucs(estimates, statistic, df, float(special.chdtrc(df, statistic)) if df else 1.0)


def hanley_mcneil_interval(
    auc: float, n_positive: int, n_negative: int, level: float = 0.95
) -> tuple[float, float]:
    """Interval of a published AUC from the class sizes alone, cut off at 0 and 1.

    Hanley and McNeil 1982, Radiology 143:29, eq. 1 with Q1 = A/(2-A), Q2 = 2A^2/(1+A). For
    checking a printed interval when the scores are not at hand; not for our own results.

    >>> tuple(round(v, 3) for v in hanley_mcneil_interval(0.877, 100, 81))
    (0.827, 0.927)
    """
    check_level(level)
    if not 0 <= auc <= 1 or min(n_positive, n_negative) < 1:
        raise ValueError(f"AUC {auc} of {n_positive} positive and {n_negative} negative cases")
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (n_positive - 1) * (q1 - auc**2) + (n_negative - 1) * (q2 - auc**2)
    half = normal_quantile(level) * sqrt(variance / (n_positive * n_negative))
    return max(0.0, auc - half), min(1.0, auc + half)


def group_codes(groups: AnyArray, n_rows: int) -> tuple[npt.NDArray[np.intp], int]:
    """Group of each row as 0 .. G-1 in sorted order of the keys, and G.

    Raises: StatisticUndefined if there is not one key per row, or a key is NaN or None: rows
    without a patient would count as one patient.
    """
    keys = np.asarray(groups)
    if keys.shape != (n_rows,):
        raise StatisticUndefined(
            f"groups of shape {keys.shape} for {n_rows} rows", expected="one patient key per row"
        )
    if keys.dtype.kind in "fO":
        missing = sum(key is None or key != key for key in keys.tolist())
        if missing:
            raise StatisticUndefined(
                f"{missing} of {n_rows} rows have no patient",
                where="groups",
                remedy="leave these rows out, and say how many",
            )
    distinct, codes = np.unique(keys, return_inverse=True)
    return codes.astype(np.intp), distinct.size


@dataclass(frozen=True, slots=True)
class _Groups:
    """How many groups (patients) there are, and how many of them have rows of each class."""

    n: int
    with_pos: int
    with_neg: int

    @property
    def pairs(self) -> int:
        """The most pairs of a positive and a negative group that share no group."""
        return min(self.with_pos, self.with_neg, self.n // 2)

    @staticmethod
    def of(t: Bools, codes: npt.NDArray[np.intp], n_groups: int) -> _Groups:
        with_class = [np.unique(codes[np.flatnonzero(rows)]).size for rows in (t, ~t)]
        return _Groups(n_groups, *with_class)


@dataclass(frozen=True, slots=True)
class _Basis:
    """What an interval rests on. pairs: independent pairs of a positive and a negative unit."""

    n: int
    unit: Unit
    level: float
    method: str
    pairs: int

    @staticmethod
    def of_cases(truth: AnyArray, unit: Unit, level: float) -> _Basis:
        n, positive = len(truth), int(np.count_nonzero(truth))
        return _Basis(n, unit, level, "DeLong", min(positive, n - positive))

    @staticmethod
    def of_groups(truth: AnyArray, groups: AnyArray, level: float) -> _Basis:
        of = _Groups.of(np.asarray(truth) == 1, *group_codes(groups, len(groups)))
        method = f"Obuchowski 1997, AUC over {len(groups)} rows"
        return _Basis(of.n, Unit.PATIENT, level, method, of.pairs)


def _group_sums(
    truth: AnyArray, scores: AnyArray, groups: AnyArray
) -> tuple[Floats, Floats, Floats, _Groups]:
    """AUCs (S,) and what each group adds to their error by its positives and negatives (S, G).

    That is how much the placement values of a group exceed what its size predicts, over the number
    of all rows of the class.
    """
    t, aucs, of_pos, of_neg = _placements(truth, scores)
    codes, n_groups = group_codes(groups, t.size)
    of = _Groups.of(t, codes, n_groups)
    if min(of.with_pos, of.with_neg) < 2:
        raise StatisticUndefined(
            f"variance of an AUC from {of.with_pos} patients with positive and {of.with_neg} with "
            "negative rows",
            expected="at least two of each",
        )
    pos_codes, neg_codes = codes[np.flatnonzero(t)], codes[np.flatnonzero(~t)]
    pos, neg = np.zeros((2, aucs.size, n_groups))
    for k, auc in enumerate(aucs):
        pos[k] = np.bincount(pos_codes, of_pos[k] - auc, n_groups) / pos_codes.size
        neg[k] = np.bincount(neg_codes, of_neg[k] - auc, n_groups) / neg_codes.size
    return aucs, pos, neg, of


def _placements(truth: AnyArray, scores: AnyArray) -> tuple[Bools, Floats, Floats, Floats]:
    """truth (n,), AUCs (S,), placement values of positives (S, P) and of negatives (S, N).

    The placement value of a positive is the share of negatives below it (ties half), that of a
    negative the share of positives above it; both average to the AUC.
    """
    checked = [binary_scores(truth, row) for row in np.atleast_2d(scores)]
    t = checked[0][0]
    pos, neg = np.flatnonzero(t), np.flatnonzero(~t)
    of_pos, of_neg = np.empty((len(checked), pos.size)), np.empty((len(checked), neg.size))
    for k, (_, s) in enumerate(checked):
        won = pairs_won(t, s)
        np.take(won, pos, out=of_pos[k])
        np.take(won, neg, out=of_neg[k])
    of_pos /= neg.size
    of_neg /= pos.size
    return t, of_pos.mean(axis=1), of_pos, of_neg


def _covariance(rows: Floats) -> Floats:
    """(S, S) of S rows (S, n), which are shifted to a mean of 0: np.cov without its copies."""
    rows -= rows.mean(axis=1, keepdims=True)
    return rows @ rows.T / (rows.shape[1] - 1)


def _estimate(value: float, variance: float, basis: _Basis, scale: Scale = Scale.LOGIT) -> Estimate:
    b = basis
    if variance > _ROUNDING:
        half = normal_quantile(b.level) * sqrt(variance)
        if scale is Scale.LOGIT:
            half, centre = half / (value * (1 - value)), float(special.logit(value))
            low, high = float(special.expit(centre - half)), float(special.expit(centre + half))
        else:
            low, high = max(0.0, value - half), min(1.0, value + half)
        return Estimate(value, low, high, b.level, b.n, b.unit, f"{b.method}, {scale.value}")
    if value not in (0.0, 1.0):
        words = f"no interval: the AUC has no variance in these cases, {b.method}"
        return Estimate(value, nan, nan, b.level, b.n, b.unit, words)
    bound = ((1 - b.level) / 2) ** (1 / b.pairs)
    low, high = (bound, 1.0) if value == 1.0 else (0.0, 1 - bound)
    return Estimate(value, low, high, b.level, b.n, b.unit, "exact bound at complete separation")


def _compare(aucs: Floats, cov: Floats, basis: _Basis, alternative: Alternative) -> AucComparison:
    first, second = (_estimate(float(aucs[k]), float(cov[k, k]), basis) for k in (0, 1))
    difference = float(aucs[0] - aucs[1])
    variance = float(cov[0, 0] + cov[1, 1] - 2 * cov[0, 1])
    # Identical curves leave a variance of rounding errors only: no difference, p = 1, not NaN.
    if variance <= 1e-14 * float(cov[0, 0] + cov[1, 1]):
        if abs(difference) > 1e-12:
            raise _no_variance("the difference of the AUCs")
        z, half = 0.0, 0.0
    else:
        z, half = difference / sqrt(variance), normal_quantile(basis.level) * sqrt(variance)
    low, high, method = difference - half, difference + half, f"paired {basis.method}"
    estimate = Estimate(difference, low, high, basis.level, basis.n, basis.unit, method)
    p = _p_value(float(special.ndtr(z)), float(special.ndtr(-z)), alternative)
    return AucComparison(first, second, estimate, z, float("inf"), p)


def _p_value(below: float, above: float, alternative: Alternative) -> float:
    if alternative is Alternative.GREATER:
        return above
    if alternative is Alternative.LESS:
        return below
    return min(1.0, 2 * min(below, above))


def _pair(first: AnyArray, second: AnyArray) -> Floats:
    if np.shape(first) != np.shape(second):
        raise StatisticUndefined(
            f"{len(first)} and {len(second)} scores", expected="both systems on the same cases"
        )
    return np.stack([np.asarray(s, dtype=np.float64) for s in (first, second)])


def _no_variance(what: str) -> StatisticUndefined:
    return StatisticUndefined(
        f"{what} has no variance in these cases",
        expected="scores that differ between cases",
        remedy="look at the scores: constant, or complete separation in a small sample",
    )
