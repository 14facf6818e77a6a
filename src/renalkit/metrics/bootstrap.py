"""How much would a number change with other patients? Resampling of whole patients.

Frames of one patient resemble each other, so the patient is drawn, with all its rows. A resample
is a row of counts (how often each patient was drawn), and a statistic turns a whole matrix of
counts (resamples x patients) into numbers at once: sums per patient times counts, or, for the
AUC, a matrix of won comparisons between every two patients. Only `AnyStatistic` loops. The same
resamples serve any number of statistics, so that systems are compared on the same patients.

Drawing the rows of a drawn patient again as well (hierarchical) counts the variation between
frames a second time; it is offered because papers use it, and is a little too wide.

Sources: Efron and Tibshirani 1993 (percentile; BCa, chapter 14); Field and Welsh 2007, JRSS B
69:369 (resampling of clusters, and of rows within them); Davison and Hinkley 1997, section 3.8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import isfinite, nan
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy import special

from renalkit.domain.prediction import Unit
from renalkit.errors import StatisticUndefined
from renalkit.metrics.auc_inference import group_codes
from renalkit.metrics.classification import AnyArray, Floats, binary_scores
from renalkit.metrics.inference import Estimate, check_level

Codes = npt.NDArray[np.intp]
Evaluate = Callable[[Floats], Floats]

# Largest temporary array of one step, in numbers (32 MB of doubles).
_CHUNK = 4_000_000

# Above this many patients the AUC walks the sorted scores: a matrix of all pairs is too large.
_MANY_PATIENTS = 2000

# Resampled values closer than this share of their size are equal: sums taken in another order.
_ROUNDING = 1e-12


class IntervalMethod(StrEnum):
    """percentile: quantiles of the resamples. bca: corrected for bias and skewness."""

    PERCENTILE = "percentile"
    BCA = "bca"


class Drawing(StrEnum):
    """cluster: patients with all their rows. hierarchical: patients, then rows of each of them."""

    CLUSTER = "cluster"
    HIERARCHICAL = "hierarchical"


@dataclass(frozen=True, slots=True)
class BootstrapPlan:
    """How patients are resampled. The seed is part of the result's method text."""

    n_boot: int = 2000
    seed: int = 0
    method: IntervalMethod = IntervalMethod.PERCENTILE
    level: float = 0.95
    drawing: Drawing = Drawing.CLUSTER

    def __post_init__(self) -> None:
        check_level(self.level)
        if self.n_boot < 100:
            raise ValueError(f"{self.n_boot} resamples: expected at least 100")


class Statistic(Protocol):
    """A number computed from rows, in a form that weights of patients can be applied to."""

    @property
    def n_rows(self) -> int: ...

    def prepare(self, codes: Codes, n_groups: int) -> Evaluate:
        """codes (n,): patient 0 .. G-1 of each row. Returns f: counts (B, G) -> values (B,).

        A resample the statistic does not exist for gives NaN.
        """
        ...


@dataclass(frozen=True, slots=True)
class RatioOfSums:
    """Sum of `numerator` over sum of `denominator`, rows (n,) each.

    Covers a mean of rows (denominator of ones), sensitivity (true positives over positives), F1
    and every other measure that is a ratio of counts.
    """

    numerator: Floats
    denominator: Floats

    @property
    def n_rows(self) -> int:
        return len(self.numerator)

    def prepare(self, codes: Codes, n_groups: int) -> Evaluate:
        top = np.bincount(codes, weights=_finite(self.numerator), minlength=n_groups)
        bottom = np.bincount(codes, weights=_finite(self.denominator), minlength=n_groups)

        def evaluate(counts: Floats) -> Floats:
            return _divide(counts @ top, counts @ bottom)

        return evaluate


def mean_of_rows(values: Floats) -> RatioOfSums:
    """Mean over all rows: patients with many rows weigh more."""
    values = np.asarray(values, dtype=np.float64)
    return RatioOfSums(values, np.ones_like(values))


def mean_of_patient_means(values: Floats, groups: AnyArray) -> RatioOfSums:
    """Mean over patients of each patient's own mean: patients weigh the same, whatever their rows.

    values (n,), groups (n,). Each row weighs one over the number of rows of its patient.
    """
    values = np.asarray(values, dtype=np.float64)
    codes, _ = group_codes(groups, values.size)
    weight = 1 / np.bincount(codes)[codes]
    return RatioOfSums(values * weight, weight)


@dataclass(frozen=True, slots=True)
class Auc:
    """AUC over rows: truth (n,) 0/1 and scores (n,)."""

    truth: AnyArray
    scores: AnyArray

    @property
    def n_rows(self) -> int:
        return len(self.truth)

    def prepare(self, codes: Codes, n_groups: int) -> Evaluate:
        t, s = binary_scores(self.truth, self.scores)
        if n_groups > _MANY_PATIENTS:
            return _auc_by_sorting(t, s, codes)
        positive = np.bincount(codes[t], minlength=n_groups).astype(np.float64)
        negative = np.bincount(codes[~t], minlength=n_groups).astype(np.float64)
        won = _won_comparisons(t, s, codes, n_groups)

        def evaluate(counts: Floats) -> Floats:
            top = np.einsum("bg,bg->b", counts @ won, counts)
            return _divide(top, (counts @ positive) * (counts @ negative))

        return evaluate


@dataclass(frozen=True, slots=True)
class Difference:
    """First minus second statistic on the same rows, so on the same resampled patients."""

    first: Statistic
    second: Statistic

    @property
    def n_rows(self) -> int:
        return self.first.n_rows

    def prepare(self, codes: Codes, n_groups: int) -> Evaluate:
        if self.first.n_rows != self.second.n_rows:
            raise StatisticUndefined(
                f"{self.first.n_rows} and {self.second.n_rows} rows",
                expected="both systems on the same rows in the same order",
            )
        first = self.first.prepare(codes, n_groups)
        second = self.second.prepare(codes, n_groups)

        def evaluate(counts: Floats) -> Floats:
            return first(counts) - second(counts)

        return evaluate


@dataclass(frozen=True, slots=True)
class MeanOfStatistics:
    """Mean of several statistics on the same rows, for instance one-vs-rest AUCs (macro AUC)."""

    parts: tuple[Statistic, ...]

    @property
    def n_rows(self) -> int:
        return self.parts[0].n_rows

    def prepare(self, codes: Codes, n_groups: int) -> Evaluate:
        prepared = [part.prepare(codes, n_groups) for part in self.parts]

        def evaluate(counts: Floats) -> Floats:
            return np.mean([one(counts) for one in prepared], axis=0)

        return evaluate


@dataclass(frozen=True, slots=True)
class AnyStatistic:
    """Any function of row indices (repeated as drawn) of `rows` rows; one call per resample.

    Slow beside the other statistics; for numbers they cannot express. The function must not
    depend on the order of the indices. It may return NaN where it does not exist.
    """

    function: Callable[[Codes], float]
    rows: int

    @property
    def n_rows(self) -> int:
        return self.rows

    def prepare(self, codes: Codes, n_groups: int) -> Evaluate:
        order = np.argsort(codes, kind="stable")
        members = np.split(order, np.cumsum(np.bincount(codes, minlength=n_groups))[:-1])

        def one(counts: Floats) -> float:
            drawn = [np.tile(members[g], int(counts[g])) for g in np.flatnonzero(counts)]
            return float(self.function(np.concatenate(drawn)))

        def evaluate(counts: Floats) -> Floats:
            return np.array([one(row) for row in counts])

        return evaluate


@dataclass(frozen=True, slots=True)
class PairedBootstrap:
    """Two systems on the same patients: both values, first minus second, and its p-value.

    p_value: two-sided, twice the share of resamples on the far side of 0, counting the sample
    itself; never below 2 / (n_boot + 1).
    """

    first: Estimate
    second: Estimate
    difference: Estimate
    p_value: float


@dataclass(frozen=True, slots=True)
class Resamples:
    """One statistic: its value in the sample, in each resample, and with one patient left out.

    draws (B,): NaN where a resample does not have the statistic. without (G,): for BCa, else None.
    how: the drawing in words. n: patients.
    difference: whether it is one of two statistics.
    """

    value: float
    draws: Floats
    without: Floats | None
    n: int
    plan: BootstrapPlan
    how: str
    difference: bool = False

    def minus(self, other: Resamples) -> Resamples:
        """The difference to another statistic of the same `resample`."""
        pair = (self.without, other.without)
        without = None if pair[0] is None or pair[1] is None else pair[0] - pair[1]
        return replace(
            self,
            value=self.value - other.value,
            draws=self.draws - other.draws,
            without=without,
            difference=True,
        )

    def defined(self) -> Floats:
        """The resamples in which the statistic exists; refuses if those are below 95 %."""
        found = self.draws[np.isfinite(self.draws)]
        lost = self.draws.size - found.size
        if lost > 0.05 * self.draws.size:
            raise StatisticUndefined(
                f"{lost} of {self.draws.size} resamples do not have the statistic",
                expected="at most 5 %",
                remedy="draw within classes (strata), or gather more patients of the rare class",
            )
        return found

    def p_value(self) -> float:
        """Two-sided, of no difference: as in `PairedBootstrap`; refuses as `defined`."""
        draws = self.defined()
        tie = _ROUNDING * max(1.0, float(np.abs(draws).max()))
        beyond = min(int((draws <= tie).sum()), int((draws >= -tie).sum()))
        return min(1.0, 2 * (beyond + 1) / (draws.size + 1))

    def estimate(self) -> Estimate:
        """Value and interval; refuses as `cluster_bootstrap` does.

        No interval where all resamples give the same: that 20 of 20 are found does not make it
        certain. But systems that say the same differ by 0, from 0 to 0.
        """
        found = self.defined()
        same = np.ptp(found) <= _ROUNDING * abs(self.value)
        if same and not (self.difference and self.value == 0):
            words = f"no interval: all {found.size} resamples of patients give the same"
            return Estimate(self.value, nan, nan, self.plan.level, self.n, Unit.PATIENT, words)
        tails = ((1 - self.plan.level) / 2, (1 + self.plan.level) / 2)
        if self.without is not None:
            tails = _bca_tails(self.value, found, self.without, tails)
        low, high = np.quantile(found, tails)
        lost = self.draws.size - found.size
        words = [self.how, *([f"{lost} undefined"] if lost else []), f"seed {self.plan.seed}"]
        return Estimate(
            self.value,
            float(low),
            float(high),
            self.plan.level,
            self.n,
            Unit.PATIENT,
            ", ".join(words),
        )


def cluster_bootstrap(
    statistic: Statistic,
    groups: AnyArray,
    plan: BootstrapPlan | None = None,
    strata: AnyArray | None = None,
) -> Estimate:
    """A statistic with the interval that other patients would give it.

    groups (n,): patient key of each row. strata (n,): class of each row's patient; patients are
    then drawn within their class, so that every resample has the sample's mix (constant within a
    patient). The result depends on keys, values and seed, not on the order of rows; hierarchical
    drawing depends on the order of the rows within a patient.

    Resamples in which the statistic does not exist (no positive case drawn) are left out and
    counted in the method text; beyond 5 % the interval is refused.

    Raises: StatisticUndefined with fewer than two patients, an undefined value, strata that vary
    within a patient, too many undefined resamples, or BCa where all resamples lie on one side.

    >>> rng = np.random.default_rng(1)
    >>> e = cluster_bootstrap(mean_of_rows(rng.normal(size=200)), np.repeat(np.arange(20), 10))
    >>> e.n, e.unit.word, e.low < e.value < e.high
    (20, 'patient', True)
    """
    return resample((statistic,), groups, plan, strata)[0].estimate()


def paired_cluster_bootstrap(
    first: Statistic,
    second: Statistic,
    groups: AnyArray,
    plan: BootstrapPlan | None = None,
    strata: AnyArray | None = None,
) -> PairedBootstrap:
    """Two systems and their difference on the same resampled patients; as `cluster_bootstrap`."""
    one, two = resample((first, second), groups, plan, strata)
    apart = one.minus(two)
    return PairedBootstrap(one.estimate(), two.estimate(), apart.estimate(), apart.p_value())


def resample(
    statistics: Sequence[Statistic],
    groups: AnyArray,
    plan: BootstrapPlan | None = None,
    strata: AnyArray | None = None,
) -> tuple[Resamples, ...]:
    """Every statistic in the same resamples of patients; arguments as `cluster_bootstrap`.

    Raises: StatisticUndefined as `cluster_bootstrap`, for what does not hang on the interval.
    """
    plan = plan or BootstrapPlan()
    n_rows = statistics[0].n_rows
    codes, n_groups = group_codes(groups, n_rows)
    if n_groups < 2:
        raise StatisticUndefined(
            f"resampling of {n_groups} patient", expected="at least two patients"
        )
    for other in statistics:
        if other.n_rows != n_rows:
            raise StatisticUndefined(
                f"{n_rows} and {other.n_rows} rows",
                expected="all statistics on the same rows in the same order",
            )
    pools = _pools(codes, n_groups, strata)
    if plan.drawing is Drawing.CLUSTER:
        columns, blocks = np.arange(n_groups), _counts(pools, n_groups, plan)
        evaluates = [s.prepare(codes, n_groups) for s in statistics]
    else:
        columns, blocks = codes, _row_counts(pools, codes, plan)
        evaluates = [s.prepare(np.arange(n_rows), n_rows) for s in statistics]
    values = [float(e(np.ones((1, columns.size)))[0]) for e in evaluates]
    if not all(isfinite(v) for v in values):
        raise StatisticUndefined("the statistic does not exist in the sample itself")
    draws = np.concatenate([[e(counts) for e in evaluates] for counts in blocks], axis=1)
    bca = plan.method is IntervalMethod.BCA
    without = [_leave_one_out(e, columns) if bca else None for e in evaluates]
    words = [f"{plan.method.value} {plan.drawing.value} bootstrap", f"{plan.n_boot} resamples"]
    how = ", ".join([*words, *(["within classes"] if strata is not None else [])])
    return tuple(
        Resamples(value, drawn, left, n_groups, plan, how)
        for value, drawn, left in zip(values, draws, without, strict=True)
    )


def _pools(codes: Codes, n_groups: int, strata: AnyArray | None) -> list[Codes]:
    """Patients to draw from, one array per stratum in sorted order of the strata."""
    if strata is None:
        return [np.arange(n_groups)]
    labels, _ = group_codes(strata, codes.size)
    of_patient = np.zeros(n_groups, dtype=np.intp)
    of_patient[codes] = labels
    mixed = np.unique(codes[of_patient[codes] != labels]).size
    if mixed:
        raise StatisticUndefined(
            f"{mixed} patients belong to more than one stratum",
            expected="one class per patient",
            remedy="leave strata out, or give each patient one class",
        )
    return [np.flatnonzero(of_patient == k) for k in range(int(labels.max()) + 1)]


def _counts(pools: list[Codes], n_groups: int, plan: BootstrapPlan) -> Iterator[Floats]:
    """Matrices (<= B, G): how often each patient was drawn in each resample."""
    # One stream per stratum: the draws then do not depend on the size of the blocks.
    streams = np.random.default_rng(plan.seed).spawn(len(pools))
    step = max(1, _CHUNK // n_groups)
    for start in range(0, plan.n_boot, step):
        size = min(step, plan.n_boot - start)
        counts = np.zeros(size * n_groups)
        first_place = np.arange(size)[:, None] * n_groups
        for pool, rng in zip(pools, streams, strict=True):
            drawn = pool[rng.integers(pool.size, size=(size, pool.size))] + first_place
            counts += np.bincount(drawn.ravel(), minlength=counts.size)
        yield counts.reshape(size, n_groups)


def _row_counts(pools: list[Codes], codes: Codes, plan: BootstrapPlan) -> Iterator[Floats]:
    """Matrices (<= B, n): how often each row was drawn; each drawn patient draws its own rows."""
    sizes = np.bincount(codes)
    order = np.argsort(codes, kind="stable")  # rows of patient 0, of patient 1, ...
    first = np.cumsum(sizes) - sizes
    streams = np.random.default_rng(plan.seed).spawn(len(pools))
    within = [rng.spawn(1)[0] for rng in streams]
    step = max(1, _CHUNK // codes.size)
    for start in range(0, plan.n_boot, step):
        size = min(step, plan.n_boot - start)
        counts = np.zeros(size * codes.size)
        for pool, outer, inner in zip(pools, streams, within, strict=True):
            patients = pool[outer.integers(pool.size, size=(size, pool.size))]
            times = sizes[patients]
            patient = np.repeat(patients.ravel(), times.ravel())
            place = (inner.random(patient.size) * sizes[patient]).astype(np.intp)
            row = order[first[patient] + place]
            resample_of_row = np.repeat(np.arange(size), times.sum(axis=1))
            counts += np.bincount(resample_of_row * codes.size + row, minlength=counts.size)
        yield counts.reshape(size, codes.size)


def _leave_one_out(evaluate: Evaluate, columns: Codes) -> Floats:
    """Values (G,) without each patient; columns: patient of each column of the counts."""
    n_groups = int(columns.max()) + 1
    step = max(1, _CHUNK // columns.size)
    parts = [
        evaluate((columns != np.arange(k, min(k + step, n_groups))[:, None]).astype(np.float64))
        for k in range(0, n_groups, step)
    ]
    return np.concatenate(parts)


def _bca_tails(
    value: float, draws: Floats, without: Floats, tails: tuple[float, float]
) -> tuple[float, float]:
    """Tails corrected for bias (z0) and acceleration (a): Efron and Tibshirani eq. 14.10-14.15."""
    apart_by = draws - value
    tie = _ROUNDING * float(np.abs(draws).max())
    below = float((apart_by < -tie).mean() + 0.5 * (np.abs(apart_by) <= tie).mean())
    if not 0 < below < 1 or not bool(np.isfinite(without).all()):
        raise StatisticUndefined(
            "BCa correction: all resamples on one side, or the number hangs on one patient",
            remedy="use the percentile interval",
        )
    apart = without.mean() - without
    spread = float((apart**2).sum())
    acceleration = float((apart**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
    z0 = float(special.ndtri(below))

    def moved(tail: float) -> float:
        z = z0 + float(special.ndtri(tail))
        return float(special.ndtr(z0 + z / (1 - acceleration * z)))

    return moved(tails[0]), moved(tails[1])


def _won_comparisons(t: npt.NDArray[np.bool_], s: Floats, codes: Codes, n_groups: int) -> Floats:
    """(G, G): how many pairs (positive row of p, negative row of q) are ordered rightly, ties 1/2.

    For one positive row the number of lower negatives of every patient q is one row of a running
    count over the sorted negatives. The count is walked in blocks to bound memory.
    """
    won = np.zeros((n_groups, n_groups))
    order = np.argsort(s[~t], kind="stable")
    neg_scores, neg_codes = s[~t][order], codes[~t][order]
    pos_scores, pos_codes = s[t], codes[t]
    lower = np.searchsorted(neg_scores, pos_scores, side="left")
    not_higher = np.searchsorted(neg_scores, pos_scores, side="right")
    step = max(1, _CHUNK // n_groups)
    before = np.zeros(n_groups)
    for start in range(0, neg_scores.size + 1, step):
        # running[k]: negatives of each patient among the first start + k sorted ones
        block = neg_codes[start : start + step]
        running = np.zeros((block.size + 1, n_groups))
        running[np.arange(1, block.size + 1), block] = 1.0
        running[0] = before
        np.cumsum(running, axis=0, out=running)
        for places in (lower, not_higher):
            here = (places >= start) & (places < start + step)
            for rows in np.array_split(np.flatnonzero(here), max(1, here.sum() // step)):
                np.add.at(won, pos_codes[rows], 0.5 * running[places[rows] - start])
        before = running[-1]
    return won


def _auc_by_sorting(t: npt.NDArray[np.bool_], s: Floats, codes: Codes) -> Evaluate:
    """AUC of weighted rows in one pass over the sorted scores; time and memory B x n."""
    order = np.lexsort((codes, s))
    patient, positive = codes[order], t[order]
    starts = np.concatenate([[0], np.flatnonzero(np.diff(s[order])) + 1])  # of equal scores
    step = max(1, _CHUNK // t.size)

    def some(counts: Floats) -> Floats:
        weights = counts[:, patient]
        pos = np.add.reduceat(weights * positive, starts, axis=1)
        neg = np.add.reduceat(weights * ~positive, starts, axis=1)
        lower = np.cumsum(neg, axis=1) - 0.5 * neg
        return _divide((pos * lower).sum(axis=1), pos.sum(axis=1) * neg.sum(axis=1))

    def evaluate(counts: Floats) -> Floats:
        return np.concatenate([some(counts[k : k + step]) for k in range(0, len(counts), step)])

    return evaluate


def _divide(top: Floats, bottom: Floats) -> Floats:
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom != 0)


def _finite(values: Floats) -> Floats:
    v = np.asarray(values, dtype=np.float64)
    if not bool(np.isfinite(v).all()):
        raise StatisticUndefined(
            f"{int((~np.isfinite(v)).sum())} of {v.size} values are NaN or infinite",
            where="bootstrap",
            remedy="leave cases without the value out, and say how many",
        )
    return v
