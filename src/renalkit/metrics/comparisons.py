"""Do two systems differ, or is one not much worse? Tests over whole patients.

Rows are frames or patients; whatever is exchanged, ranked or counted is the patient. A difference
is first minus second. `auc_inference` has DeLong's tests and `bootstrap` the paired bootstrap;
here are McNemar, permutation, Wilcoxon, the t-test over folds, and non-inferiority.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from math import inf, isnan, nan, sqrt

import numpy as np
from scipy import special

from renalkit.domain.prediction import Unit
from renalkit.errors import StatisticUndefined
from renalkit.metrics.auc_inference import (
    group_codes,
    paired_clustered_auc,
    paired_delong,
)
from renalkit.metrics.bootstrap import BootstrapPlan, RatioOfSums, Statistic, resample
from renalkit.metrics.classification import (
    AnyArray,
    Floats,
    binary_confusion,
    binary_scores,
    midranks,
)
from renalkit.metrics.inference import Estimate, check_level, normal_quantile, refuse_frames

# Permuted values closer than this share of their size are equal: sums taken in another order.
_ROUNDING = 1e-12

# Largest temporary array of one step, in numbers.
_CHUNK = 4_000_000

# Above this many differences the signed rank sum is normal to four digits.
_EXACT_RANKS = 200


@dataclass(frozen=True, slots=True)
class Comparison:
    """First minus second and the two-sided test of no difference, in words in `test`.

    difference: without interval (NaN) where the test does not give one.
    """

    difference: Estimate
    statistic: float
    p_value: float
    test: str


# ------------------------------------------------------------------ right and wrong calls


class McNemar(StrEnum):
    """exact: binomial. mid-p: exact without its conservatism. chi-square: for many pairs."""

    EXACT = "exact"
    MID_P = "mid-p"
    CHI_SQUARE = "chi-square"
    CORRECTED = "chi-square with continuity correction"


@dataclass(frozen=True, slots=True)
class PairedCalls:
    """Cases by who was right about them."""

    both: int
    first_only: int
    second_only: int
    neither: int

    def __post_init__(self) -> None:
        if min(self.both, self.first_only, self.second_only, self.neither) < 0 or self.n == 0:
            raise ValueError("counts are not negative, and there is a case")

    @property
    def n(self) -> int:
        return self.both + self.first_only + self.second_only + self.neither


def paired_calls(first_right: AnyArray, second_right: AnyArray) -> PairedCalls:
    """Counts from two arrays (n,) of 0/1: was the call right? Positives only for sensitivity.

    Raises: StatisticUndefined if empty, of unequal length, or other values than 0 and 1.
    """
    counts = binary_confusion(first_right, second_right)
    return PairedCalls(counts.tp, counts.fn, counts.fp, counts.tn)


def mcnemar(
    calls: PairedCalls,
    method: McNemar = McNemar.MID_P,
    unit: Unit = Unit.PATIENT,
    level: float = 0.95,
) -> Comparison:
    """Do two systems call different shares of the same independent cases rightly?

    McNemar 1947; mid-p: Fagerland, Lydersen and Laake 2013, BMC Med Res Methodol 13:91, who advise
    it. Without a case that they call differently p is 1. The difference of the two shares has
    Tango's score interval. statistic: chi-square, or the cases that the first alone calls rightly.

    Raises: StatisticUndefined for frames, which are not independent.

    >>> mcnemar(PairedCalls(1, 1, 7, 12)).p_value
    0.0390625
    """
    refuse_frames(unit)
    b, c = calls.first_only, calls.second_only
    if method in (McNemar.EXACT, McNemar.MID_P):
        statistic, p = float(b), _binomial_p(min(b, c), b + c, method is McNemar.MID_P)
    else:
        # Edwards' correction takes at most what there is.
        apart = max(0, abs(b - c) - (1 if method is McNemar.CORRECTED else 0))
        statistic = apart**2 / (b + c) if b + c else 0.0
        p = float(special.chdtrc(1, statistic))
    value = (b - c) / calls.n
    low, high = tango_interval(calls, level)
    difference = Estimate(value, low, high, level, calls.n, unit, "Tango's score interval")
    return Comparison(difference, statistic, p, f"McNemar, {method.value}")


def _binomial_p(fewer: int, n: int, mid: bool) -> float:
    """Two-sided p of `fewer` among n fair coins, `fewer` the smaller side."""
    if n == 0:
        return 1.0
    exact = min(1.0, 2 * float(special.bdtr(fewer, n, 0.5)))
    if not mid:
        return exact
    here = float(special.bdtr(fewer, n, 0.5) - special.bdtr(fewer - 1, n, 0.5)) if fewer else 0.5**n
    return exact - here if 2 * fewer < n else 1 - here / 2


def tango_interval(calls: PairedCalls, level: float = 0.95) -> tuple[float, float]:
    """Interval of the share first right minus share second right on the same cases.

    Score interval of Tango 1998, Stat Med 17:891: the differences that McNemar's chi-square test,
    widened to any difference, does not reject.

    >>> tuple(round(v, 4) for v in tango_interval(PairedCalls(1, 1, 7, 12)))
    (-0.5172, -0.026)
    """
    z = normal_quantile(level)
    value = (calls.first_only - calls.second_only) / calls.n

    def crossing(inside: float, outside: float, sign: int) -> float:
        # The score falls steadily with the difference: halve until the doubles meet.
        while abs(outside - inside) > 1e-15:
            middle = (inside + outside) / 2
            if middle in (inside, outside):
                break
            if sign * _tango_score(calls, middle) < z:
                inside = middle
            else:
                outside = middle
        return (inside + outside) / 2

    low = -1.0 if value == -1 else crossing(value, -1.0, 1)
    high = 1.0 if value == 1 else crossing(value, 1.0, -1)
    return low, high


def _tango_score(calls: PairedCalls, delta: float) -> float:
    """z of the hypothesis that the shares differ by delta (Tango 1998, eq. 12-13)."""
    b, c, n = calls.first_only, calls.second_only, calls.n
    linear = -b - c + (2 * n - b + c) * delta
    root = sqrt(max(0.0, linear**2 + 8 * n * c * delta * (1 - delta)))
    second_only = (root - linear) / (4 * n)
    variance = n * (2 * second_only + delta * (1 - delta))
    apart = b - c - n * delta
    if variance <= 0:
        return 0.0 if apart == 0 else inf if apart > 0 else -inf
    return apart / sqrt(variance)


# ------------------------------------------------------------------ permutation of patients


@dataclass(frozen=True, slots=True)
class PermutationPlan:
    """How many random exchanges; all of them where there are no more than that."""

    n_permutations: int = 9999
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n_permutations < 99:
            raise ValueError(f"{self.n_permutations} permutations: expected at least 99")


def permutation_test(
    first: RatioOfSums,
    second: RatioOfSums,
    groups: AnyArray,
    plan: PermutationPlan | None = None,
) -> Comparison:
    """Do two systems differ in a mean or share over the same rows? Patients exchange the systems.

    first, second: Dice over frames, sensitivity, means of patients: the same denominators (not F1
    or PPV, whose denominators hang on the calls). groups (n,): patient of each row; all rows of a
    patient are exchanged together. Identical systems: p 1. p is at least 1 / (permutations + 1).

    Raises: StatisticUndefined with unequal denominators, values that are not finite, fewer than
    two patients.
    """
    if first.n_rows != second.n_rows or not np.array_equal(first.denominator, second.denominator):
        raise StatisticUndefined(
            "two measures with different denominators",
            expected="a mean or a share of the same rows (Dice, accuracy, sensitivity)",
            remedy="use the paired bootstrap, or McNemar",
        )
    codes, n_groups = _patients(groups, first.n_rows)
    apart = np.asarray(first.numerator, dtype=np.float64) - second.numerator
    total = float(np.sum(first.denominator))
    if not bool(np.isfinite(apart).all()) or not total > 0:
        raise StatisticUndefined(
            "values that are not finite, or nothing in the denominator",
            where="permutation test",
            remedy="leave cases without the value out, and say how many",
        )
    return _exchanged(np.bincount(codes, weights=apart, minlength=n_groups) / total, plan)


def auc_permutation_test(
    truth: AnyArray,
    first: AnyArray,
    second: AnyArray,
    groups: AnyArray,
    plan: PermutationPlan | None = None,
) -> Comparison:
    """Do two systems differ in AUC over the same rows? Patients exchange the systems.

    Scores are replaced by their mid-ranks first, so that the systems need no common scale (Bandos,
    Rockette and Gur 2005, Stat Med 24:2873). The difference of the AUCs after exchanges is a sum
    with one term per patient whose sign flips, so permutations cost no more than for a mean.

    Raises: StatisticUndefined as `auc`, or with fewer than two patients.
    """
    t, u = binary_scores(truth, first)
    u, v = midranks(u), midranks(binary_scores(truth, second)[1])
    codes, n_groups = _patients(groups, t.size)
    (own, across), (own_neg, across_neg) = _pair_sums(t, u, v)
    terms = np.bincount(codes[t], weights=own + across, minlength=n_groups)
    terms += np.bincount(codes[~t], weights=own_neg - across_neg, minlength=n_groups)
    n_pairs = int(t.sum()) * int((~t).sum())
    return _exchanged(terms / (2 * n_pairs), plan)


def _pair_sums(
    t: np.ndarray[tuple[int], np.dtype[np.bool_]], u: Floats, v: Floats
) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
    """Per positive row, then per negative row: won pairs within u minus v, and u over v minus v
    over u (positive's system named first)."""

    def won(pos: Floats, neg: Floats) -> Floats:
        s = np.sort(neg)
        return (np.searchsorted(s, pos, "left") + np.searchsorted(s, pos, "right")) / 2

    def won_by(pos: Floats, neg: Floats) -> Floats:
        return pos.size - won(neg, pos)

    up, un, vp, vn = u[t], u[~t], v[t], v[~t]
    of_pos = won(up, un) - won(vp, vn), won(up, vn) - won(vp, un)
    of_neg = won_by(up, un) - won_by(vp, vn), won_by(up, vn) - won_by(vp, un)
    return of_pos, of_neg


def _exchanged(terms: Floats, plan: PermutationPlan | None) -> Comparison:
    """The test that each patient's term (G,) of a sum could as well have the other sign."""
    plan = plan or PermutationPlan()
    value = float(terms.sum())
    moving = terms[terms != 0]
    edge = abs(value) - _ROUNDING * float(np.abs(terms).sum())
    exact = 2**moving.size <= plan.n_permutations + 1
    beyond = drawn = 0
    for signs in _all_signs(moving.size) if exact else _signs(moving.size, plan):
        beyond += int((np.abs(signs @ moving) >= edge).sum())
        drawn += len(signs)
    p = beyond / drawn if exact else (beyond + 1) / (drawn + 1)
    words = f"all {drawn} exchanges" if exact else f"{drawn} exchanges, seed {plan.seed}"
    return Comparison(_bare(value, terms.size), value, p, f"permutation of patients, {words}")


def _all_signs(n: int) -> Iterator[Floats]:
    bits = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    yield 1.0 - 2.0 * bits.astype(np.float64)


def _signs(n: int, plan: PermutationPlan) -> Iterator[Floats]:
    rng = np.random.default_rng(plan.seed)
    step = max(1, _CHUNK // n)
    for start in range(0, plan.n_permutations, step):
        size = min(step, plan.n_permutations - start)
        yield 2.0 * rng.integers(2, size=(size, n)).astype(np.float64) - 1.0


def unpaired_permutation_test(
    statistic: Statistic,
    groups: AnyArray,
    in_first: AnyArray,
    plan: PermutationPlan | None = None,
    strata: AnyArray | None = None,
) -> Comparison:
    """Does a statistic differ between two groups of patients? Patients exchange their group.

    statistic: over the rows of both groups. in_first (n,) 0/1: is the row's patient of the first
    group. strata (n,): patients are exchanged within these only; for an AUC give the truth, so
    that both groups keep their classes. What is tested is that the two groups are alike in all
    that the statistic sees, so unequal spreads with equal values can also be found.

    Raises: StatisticUndefined if one group is empty, a patient is in both groups or in two strata,
    the statistic does not exist in a group, or in more than 5 % of the exchanges.
    """
    plan = plan or PermutationPlan()
    codes, n_groups = _patients(groups, statistic.n_rows)
    arm = _of_patient(np.asarray(in_first), codes, n_groups, "group").astype(np.float64)
    if not 0 < arm.sum() < n_groups or not bool(np.isin(arm, (0, 1)).all()):
        raise StatisticUndefined("groups of patients", expected="0 and 1, and patients in both")
    stratum = np.zeros(n_groups)
    if strata is not None:
        stratum = _of_patient(group_codes(strata, codes.size)[0], codes, n_groups, "stratum")
    evaluate = statistic.prepare(codes, n_groups)

    def difference(arms: Floats) -> Floats:
        return evaluate(arms) - evaluate(1 - arms)

    value = float(difference(arm[None])[0])
    if not np.isfinite(value):
        raise StatisticUndefined("the statistic does not exist in both groups of patients")
    rng = np.random.default_rng(plan.seed)
    pools = [np.flatnonzero(stratum == k) for k in np.unique(stratum)]
    step = max(1, _CHUNK // n_groups)
    draws: list[Floats] = []
    for start in range(0, plan.n_permutations, step):
        arms = np.empty((min(step, plan.n_permutations - start), n_groups))
        for pool in pools:
            order = np.argsort(rng.random((len(arms), pool.size)), axis=1)
            arms[:, pool] = arm[pool][order]
        draws.append(difference(arms))
    drawn = np.concatenate(draws)
    found = drawn[np.isfinite(drawn)]
    if found.size < 0.95 * drawn.size:
        raise StatisticUndefined(
            f"{drawn.size - found.size} of {drawn.size} exchanges do not have the statistic",
            expected="at most 5 %",
            remedy="exchange patients within classes (strata)",
        )
    edge = abs(value) - _ROUNDING * max(1.0, float(np.abs(found).max()))
    p = (int((np.abs(found) >= edge).sum()) + 1) / (found.size + 1)
    words = f"{found.size} exchanges between groups, seed {plan.seed}"
    test = f"permutation of patients, {words}"
    return Comparison(_bare(value, n_groups), value, p, test)


# ------------------------------------------------------------------ ranks


def wilcoxon_signed_rank(
    first: AnyArray, second: AnyArray, groups: AnyArray, level: float = 0.95
) -> Comparison:
    """Is the typical patient's difference between two systems 0?

    first, second (n,) values of the same rows; groups (n,) patients, whose rows are averaged first.
    Wilcoxon 1945: differences of 0 are left out, ties share their rank. Exact up to 200 patients,
    ties included; above that normal with tie and continuity correction. The difference is the
    Hodges-Lehmann pseudomedian (median of all pairwise means) with the interval of the same test;
    that interval is exact without ties and conservative with them; there is none for so few
    patients that nothing would lie outside it. statistic: sum of the ranks in favour of the first.
    Identical systems: p 1.

    Raises: StatisticUndefined with unequal lengths, values that are not finite, one patient.
    """
    check_level(level)
    x, y = (np.asarray(s, dtype=np.float64) for s in (first, second))
    if x.shape != y.shape or x.ndim != 1 or not bool(np.isfinite(x - y).all()):
        raise StatisticUndefined(
            "values of unequal number, or NaN or infinite",
            where="Wilcoxon test",
            remedy="leave cases without the value out, and say how many",
        )
    codes, n_groups = _patients(groups, x.size)
    apart = np.bincount(codes, weights=x - y) / np.bincount(codes)
    # 0.3 - 0.2 and 0.2 - 0.1 differ by rounding: the same difference would be two ranks.
    scale = float(max(np.abs(x).max(), np.abs(y).max())) or 1.0
    apart = np.round(apart / scale, 12) * scale
    moved = apart[apart != 0]
    ranks = midranks(np.abs(moved))
    favour = float(ranks[moved > 0].sum())
    p, words = _signed_rank_p(ranks, favour)
    zeros = apart.size - moved.size
    words += f", {zeros} without difference left out" if zeros else ""
    method = "Hodges-Lehmann, signed ranks of patient means"
    middle, low, high = _pseudomedian(apart, level)
    if isnan(low):
        method = f"no interval: {n_groups} patients bound nothing at {100 * level:g} %"
    estimate = Estimate(middle, low, high, level, n_groups, Unit.PATIENT, method)
    return Comparison(estimate, favour, p, f"Wilcoxon signed rank, {words}")


def _signed_rank_p(ranks: Floats, favour: float) -> tuple[float, str]:
    if ranks.size == 0:
        return 1.0, "no difference"
    if ranks.size <= _EXACT_RANKS:
        # Mid-ranks are halves: twice their sum takes whole values.
        cdf = np.cumsum(_sum_distribution((2 * ranks).round().astype(np.int64)))
        place = round(2 * favour)
        below, above = cdf[place], 1 - (cdf[place - 1] if place else 0.0)
        return min(1.0, 2 * float(min(below, above))), "exact"
    expected, variance = float(ranks.sum()) / 2, float((ranks**2).sum()) / 4
    z = max(0.0, abs(favour - expected) - 0.5) / sqrt(variance)
    return min(1.0, 2 * float(special.ndtr(-z))), "normal approximation"


def _sum_distribution(parts: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Floats:
    """Probability of each sum 0 .. total when every part is in or out with chance 1/2."""
    chance = np.zeros(int(parts.sum()) + 1)
    chance[0] = 1.0
    for part in parts:
        chance[part:] = 0.5 * (chance[part:] + chance[: chance.size - part])
        chance[:part] *= 0.5
    return chance


def _pseudomedian(apart: Floats, level: float) -> tuple[float, float, float]:
    n = apart.size
    rows, columns = np.triu_indices(n)
    walsh = np.sort((apart[rows] + apart[columns]) / 2)
    if n <= _EXACT_RANKS:
        cdf = np.cumsum(_sum_distribution(np.arange(1, n + 1)))
        cut = int(np.searchsorted(cdf, (1 - level) / 2, side="right"))
    else:
        sd = sqrt(n * (n + 1) * (2 * n + 1) / 24)
        cut = int(n * (n + 1) / 4 - normal_quantile(level) * sd)
    middle = float(np.median(walsh))
    if cut == 0:
        return middle, nan, nan
    return middle, float(walsh[cut - 1]), float(walsh[-cut])


# ------------------------------------------------------------------ folds


def corrected_t_test(
    differences: AnyArray, n_train: int, n_test: int, level: float = 0.95
) -> Comparison:
    """Do two systems differ over the folds of a (repeated) cross-validation?

    differences (J,): first minus second, one per trained fold; n_train, n_test: patients. Folds
    share training patients, so the variance over folds is too small; it is multiplied by
    1/J + n_test/n_train in place of 1/J (Nadeau and Bengio 2003, Machine Learning 52:239; repeated
    folds: Bouckaert and Frank 2004). t with J - 1 degrees of freedom. All differences 0: p 1.

    Raises: StatisticUndefined with fewer than two folds, values that are not finite, or equal
    differences other than 0.
    """
    check_level(level)
    if min(n_train, n_test) < 1:
        raise ValueError(f"{n_train} training and {n_test} test patients")
    d = np.asarray(differences, dtype=np.float64)
    if d.ndim != 1 or d.size < 2 or not bool(np.isfinite(d).all()):
        raise StatisticUndefined(
            f"differences of shape {d.shape}, or NaN or infinite",
            where="t-test over folds",
            expected="at least two folds with a finite difference each",
        )
    value = float(d.mean())
    spread = float(d.var(ddof=1))
    if spread <= (_ROUNDING * value) ** 2:
        if value != 0:
            raise StatisticUndefined(
                f"all {d.size} folds differ by the same {value:g}", expected="folds that vary"
            )
        t = half = 0.0
    else:
        se = sqrt((1 / d.size + n_test / n_train) * spread)
        t, half = value / se, float(special.stdtrit(d.size - 1, 0.5 + level / 2)) * se
    p = min(1.0, 2 * float(special.stdtr(d.size - 1, -abs(t))))
    n = n_train + n_test
    words = f"t over {d.size} folds, Nadeau and Bengio's variance"
    estimate = Estimate(value, value - half, value + half, level, n, Unit.PATIENT, words)
    return Comparison(estimate, t, p, words)


# ------------------------------------------------------------------ non-inferiority


@dataclass(frozen=True, slots=True)
class NonInferiority:
    """Is the new system at most `margin` worse? Fixed before the data are seen.

    difference: new minus reference, with its two-sided interval; at level 0.95 the one-sided test
    has 2.5 %. p_value: one-sided, of "worse by the margin or more". shown: the interval lies above
    minus the margin, or the difference does where it is the same in every resample.
    """

    difference: Estimate
    margin: float
    p_value: float

    @property
    def shown(self) -> bool:
        low = self.difference.low
        return (self.difference.value if isnan(low) else low) > -self.margin


def auc_non_inferiority(
    truth: AnyArray,
    systems: tuple[AnyArray, AnyArray],
    margin: float,
    groups: AnyArray | None = None,
    level: float = 0.95,
) -> NonInferiority:
    """Is the AUC of the new system (first) at most `margin` below the reference's (second)?

    Wald test with the paired DeLong variance, or Obuchowski's where groups (n,) name the patient of
    each row (Liu et al. 2006, Stat Med 25:1219). Identical systems: shown, p 0.
    Raises: as `paired_delong` and `paired_clustered_auc`.
    """
    _check_margin(margin)
    if groups is None:
        found = paired_delong(truth, *systems, level=level).difference
    else:
        found = paired_clustered_auc(truth, systems, groups, level=level).difference
    se = (found.high - found.low) / (2 * normal_quantile(level))
    z = (found.value + margin) / se if se > 0 else inf
    return NonInferiority(found, margin, float(special.ndtr(-z)))


def calls_non_inferiority(
    calls: PairedCalls, margin: float, unit: Unit = Unit.PATIENT, level: float = 0.95
) -> NonInferiority:
    """Is the share that the new system (first) calls rightly at most `margin` below the other's?

    Positives only: sensitivity; negatives only: specificity. Tango's score test (1998), which
    holds its level better than Wald's for shares near 1.
    Raises: StatisticUndefined for frames.
    """
    _check_margin(margin)
    difference = mcnemar(calls, unit=unit, level=level).difference
    return NonInferiority(difference, margin, float(special.ndtr(-_tango_score(calls, -margin))))


def bootstrap_non_inferiority(
    systems: tuple[Statistic, Statistic],
    groups: AnyArray,
    margin: float,
    plan: BootstrapPlan | None = None,
    strata: AnyArray | None = None,
) -> NonInferiority:
    """Is any statistic of the new system (first) at most `margin` below the other's (second)?

    For Dice and whatever else is better when larger; patients are resampled. p: share of resamples
    that are worse by the margin or more, counting the sample itself as one.
    Raises: as `cluster_bootstrap`.
    """
    _check_margin(margin)
    new, reference = resample(systems, groups, plan, strata)
    apart = new.minus(reference)
    draws = apart.defined()
    p = (int((draws <= -margin).sum()) + 1) / (draws.size + 1)
    return NonInferiority(apart.estimate(), margin, p)


# ------------------------------------------------------------------ checks


def _check_margin(margin: float) -> None:
    if not 0 < margin < 1:
        raise ValueError(f"margin {margin}: expected a loss between 0 and 1, such as 0.05")


def _patients(
    groups: AnyArray, n_rows: int
) -> tuple[np.ndarray[tuple[int], np.dtype[np.intp]], int]:
    codes, n_groups = group_codes(groups, n_rows)
    if n_groups < 2:
        raise StatisticUndefined(
            f"a comparison over {n_groups} patient", expected="at least two patients"
        )
    return codes, n_groups


def _of_patient(
    values: AnyArray, codes: np.ndarray[tuple[int], np.dtype[np.intp]], n_groups: int, what: str
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """One value per patient (G,) from rows (n,) that agree within each patient."""
    if values.shape != codes.shape:
        raise StatisticUndefined(
            f"{values.shape[0]} values for {codes.size} rows", expected=f"one {what} per row"
        )
    of_patient = np.zeros(n_groups)
    of_patient[codes] = values
    mixed = np.unique(codes[of_patient[codes] != values]).size
    if mixed:
        raise StatisticUndefined(
            f"{mixed} patients belong to more than one {what}", expected=f"one {what} per patient"
        )
    return of_patient


def _bare(value: float, n: int) -> Estimate:
    """A difference without interval."""
    method = "no interval, permutation gives the p-value only"
    return Estimate(value, nan, nan, 0.95, n, Unit.PATIENT, method)
