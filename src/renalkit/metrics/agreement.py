"""How far do readers agree with one another?

Numbers (sizes, scores): intraclass correlation in the six forms of Shrout and Fleiss, and
Bland-Altman limits. Classes (votes, grades): Cohen's kappa, weighted or not, Fleiss' kappa, and
percent agreement. Outlines: pairwise Dice of the readers' masks, the ceiling for any model.

Cases are the rows and readers the columns throughout: (n, k). Missing readings are refused, because
leaving them out changes what a coefficient means; drop cases first and say how many.

Sources: Shrout and Fleiss 1979, Psychol Bull 86:420; McGraw and Wong 1996, Psychol Methods 1:30;
Fleiss, Cohen and Everitt 1969, Psychol Bull 72:323; Fleiss 1971, Psychol Bull 76:378; Fleiss, Nee
and Landis 1979, Psychol Bull 86:974; Gwet 2021, Educ Psychol Meas 81:781; Bland and Altman 1999,
Stat Methods Med Res 8:135.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations
from math import inf, isfinite, isnan, nan, sqrt

import numpy as np
import numpy.typing as npt
from scipy import special

from renalkit.domain.geometry import Box
from renalkit.domain.prediction import Unit
from renalkit.domain.readings import Outline, by_place
from renalkit.errors import InputRefused, Reason, StatisticUndefined
from renalkit.metrics.bootstrap import BootstrapPlan, cluster_bootstrap, mean_of_patient_means
from renalkit.metrics.classification import AnyArray, Floats, Ints, confusion_matrix
from renalkit.metrics.inference import (
    Estimate,
    Proportion,
    check_level,
    normal_quantile,
    refuse_frames,
)

Mask = npt.NDArray[np.bool_]


# ------------------------------------------------------------------ numbers: ICC


class IccForm(StrEnum):
    """Which readers, and one reading or the mean of all k.

    (1,.) every case has its own readers; (2,.) the readers are a sample of all readers and their
    bias counts as disagreement; (3,.) exactly these readers, bias does not count. (.,1) the
    reliability of one reader, (.,k) that of the mean of the k readers.
    """

    ONE_SINGLE = "ICC(1,1)"
    TWO_SINGLE = "ICC(2,1)"
    THREE_SINGLE = "ICC(3,1)"
    ONE_MEAN = "ICC(1,k)"
    TWO_MEAN = "ICC(2,k)"
    THREE_MEAN = "ICC(3,k)"


@dataclass(frozen=True, slots=True)
class MeanSquares:
    """Of n cases x k readers: between cases, within cases, between readers, residual."""

    n: int
    k: int
    between: float
    within: float
    readers: float
    error: float


@dataclass(frozen=True, slots=True)
class IntraclassCorrelation:
    """One form with its F interval, and the F test of no correlation (ICC 0)."""

    form: IccForm
    estimate: Estimate
    f: float
    df1: int
    df2: int
    p_value: float


def mean_squares(ratings: AnyArray) -> MeanSquares:
    """The two-way analysis of variance behind every ICC.

    ratings (n, k): n cases by k readers.
    Raises: StatisticUndefined with fewer than two cases or readers, missing or infinite ratings,
    or ratings that are all the same.
    """
    x = _ratings(ratings)
    n, k = x.shape
    if bool((x == x[0, 0]).all()):
        raise StatisticUndefined(
            f"all {x.size} ratings are {x[0, 0]:g}",
            where="ICC",
            expected="cases that differ",
            remedy="agreement on constant ratings is shown by percent agreement",
        )
    # Shifted to their mean, so that large values with small differences lose no digits.
    x = x - x.mean()
    cases, readers = x.mean(axis=1), x.mean(axis=0)
    residual = x - cases[:, None] - readers[None, :]
    # A sum of squares this small is what rounding leaves of an exact zero.
    tiny = 1e-24 * float((x**2).sum())

    def mean_square(total: float, df: int) -> float:
        return 0.0 if total <= tiny else total / df

    return MeanSquares(
        n,
        k,
        between=mean_square(k * float((cases**2).sum()), n - 1),
        within=mean_square(float(((x - cases[:, None]) ** 2).sum()), n * (k - 1)),
        readers=mean_square(n * float((readers**2).sum()), k - 1),
        error=mean_square(float((residual**2).sum()), (n - 1) * (k - 1)),
    )


def icc(
    ratings: AnyArray, form: IccForm, unit: Unit = Unit.PATIENT, level: float = 0.95
) -> IntraclassCorrelation:
    """Intraclass correlation of ratings (n, k) with its F interval.

    Shrout and Fleiss 1979; the interval of the (2,.) forms with Satterthwaite's degrees of freedom
    (their eq. for ICC(2,1); McGraw and Wong 1996, table 7). An ICC of 0/1 votes is allowed; report
    its form, and kappa beside it.

    Ratings without any disagreement give 1 with no interval.
    Raises: as `mean_squares`; StatisticUndefined for frames.

    >>> judges = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8],
    ...                    [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]])
    >>> icc(judges, IccForm.TWO_SINGLE).estimate.text(2)
    '0.29 (0.02 to 0.76)'
    """
    refuse_frames(unit)
    check_level(level)
    ms = mean_squares(ratings)
    one_way = form in (IccForm.ONE_SINGLE, IccForm.ONE_MEAN)
    noise = ms.within if one_way else ms.error
    df1 = ms.n - 1
    df2 = ms.n * (ms.k - 1) if one_way else df1 * (ms.k - 1)
    f = ms.between / noise if noise > 0 else inf
    p = float(special.fdtrc(df1, df2, f)) if isfinite(f) else 0.0
    value = _icc_single(ms, form)
    low, high = _icc_interval(ms, form, value, level)
    if form in (IccForm.ONE_MEAN, IccForm.TWO_MEAN, IccForm.THREE_MEAN):
        if ms.between == 0:
            raise StatisticUndefined(
                "all cases have the same mean rating",
                where=form.value,
                expected="cases that differ",
                remedy="use a form of single readings",
            )
        value, low, high = (_of_mean(v, ms.k) for v in (value, low, high))
        if value == -inf:
            raise _too_little_variance(form)
    how = f"F interval, {form.value}, {ms.k} readers"
    if isnan(low):
        why = "the readers do not disagree" if value == 1 else "no degrees of freedom are left"
        how = f"no interval: {why}, {form.value}, {ms.k} readers"
    estimate = Estimate(value, low, high, level, ms.n, unit, how)
    return IntraclassCorrelation(form, estimate, f, df1, df2, p)


def _icc_single(ms: MeanSquares, form: IccForm) -> float:
    """The coefficient of one reading: Shrout and Fleiss 1979, p. 423."""
    b, e, k = ms.between, ms.error, ms.k
    if form in (IccForm.ONE_SINGLE, IccForm.ONE_MEAN):
        return (b - ms.within) / (b + (k - 1) * ms.within)
    if form in (IccForm.TWO_SINGLE, IccForm.TWO_MEAN):
        bottom = b + (k - 1) * e + k * (ms.readers - e) / ms.n
        if bottom <= 0:
            raise _too_little_variance(form)
        return (b - e) / bottom
    bottom = b + (k - 1) * e
    if bottom == 0:
        raise StatisticUndefined(
            "readers that differ by a constant on equal cases", where=form.value
        )
    return (b - e) / bottom


def _too_little_variance(form: IccForm) -> StatisticUndefined:
    return StatisticUndefined(
        "the readers' means vary less than the noise allows",
        where=form.value,
        expected="a positive total variance",
        remedy="use a form (1,.) or (3,.)",
    )


def _of_mean(single: float, k: int) -> float:
    """Spearman-Brown: the reliability of the mean of k readings."""
    bottom = 1 + (k - 1) * single
    return -inf if bottom <= 0 else k * single / bottom


def _icc_interval(
    ms: MeanSquares, form: IccForm, value: float, level: float
) -> tuple[float, float]:
    """Interval of the coefficient of one reading; (NaN, NaN) where the data give none."""
    tail = (1 - level) / 2
    n, k = ms.n, ms.k
    if form in (IccForm.TWO_SINGLE, IccForm.TWO_MEAN):
        return _icc_two_interval(ms, value, tail)
    one_way = form in (IccForm.ONE_SINGLE, IccForm.ONE_MEAN)
    noise = ms.within if one_way else ms.error
    if noise == 0:
        return nan, nan
    df1, df2 = n - 1, n * (k - 1) if one_way else (n - 1) * (k - 1)
    f = ms.between / noise
    low, high = f / _f_upper(df1, df2, tail), f * _f_upper(df2, df1, tail)
    return (low - 1) / (low + k - 1), (high - 1) / (high + k - 1)


def _icc_two_interval(ms: MeanSquares, value: float, tail: float) -> tuple[float, float]:
    n, k, b, j, e = ms.n, ms.k, ms.between, ms.readers, ms.error
    if value == 1:
        return nan, nan
    # McGraw and Wong 1996, table 7: the noise is a mixture of two mean squares.
    from_readers = k * value / (n * (1 - value)) * j
    from_error = (1 + k * value * (n - 1) / (n * (1 - value))) * e
    bottom = from_readers**2 / (k - 1) + from_error**2 / ((n - 1) * (k - 1))
    v = (from_readers + from_error) ** 2 / bottom if bottom > 0 else 0.0
    if v <= 0:
        return nan, nan
    below, above = _f_upper(n - 1, v, tail), _f_upper(v, n - 1, tail)
    rest = k * j + (k * n - k - n) * e
    low = n * (b - below * e) / (below * rest + n * b)
    high = n * (above * b - e) / (rest + n * above * b)
    # With a negative coefficient v can fall so far below 1 that the quantiles mean nothing.
    return (low, high) if low <= value <= high else (nan, nan)


def _f_upper(df1: float, df2: float, tail: float) -> float:
    """Value an F variable exceeds with probability `tail`."""
    # special.fdtri takes whole and broken degrees of freedom alike.
    return float(special.fdtri(df1, df2, 1 - tail))


# ------------------------------------------------------------------ classes: kappa


class KappaWeights(StrEnum):
    """How much credit a near miss gets: none, by steps, or by squared steps between classes."""

    NONE = "unweighted"
    LINEAR = "linear"
    QUADRATIC = "quadratic"


@dataclass(frozen=True, slots=True)
class Kappa:
    """Agreement beyond chance, (observed - expected) / (1 - expected).

    standard_error belongs to the interval; null_error to the test of no agreement beyond chance
    (z, two-sided p_value).
    """

    estimate: Estimate
    standard_error: float
    null_error: float
    z: float
    p_value: float
    observed: float
    expected: float


def cohen_kappa(
    matrix: Ints,
    weights: KappaWeights = KappaWeights.NONE,
    unit: Unit = Unit.PATIENT,
    level: float = 0.95,
) -> Kappa:
    """Cohen's kappa of two readers from their (C, C) table of counts.

    `classification.confusion_matrix` makes the table from two rows of classes 0 .. C-1. Weights
    1 - |i-j|/(C-1) (linear) or 1 - (i-j)^2/(C-1)^2 (quadratic) need classes in order. Standard
    errors: Fleiss, Cohen and Everitt 1969, eq. 8 and 14.

    Complete agreement gives 1 with no interval.
    Raises: StatisticUndefined for frames, an empty or odd table, or when both readers use one and
    the same class only (chance agreement is then complete).
    """
    refuse_frames(unit)
    check_level(level)
    counts = np.asarray(matrix, dtype=np.float64)
    total = float(counts.sum())
    square = counts.ndim == 2 and counts.shape[0] == counts.shape[1] and counts.shape[0] > 1
    if not square or total < 1 or bool((counts < 0).any()):
        raise StatisticUndefined(
            f"table of shape {counts.shape} with {total:g} cases",
            where="kappa",
            expected="one row and one column per class, two classes or more, and a case",
        )
    p = counts / total
    rows, cols = p.sum(axis=1), p.sum(axis=0)
    w = _kappa_weights(len(p), weights)
    observed, expected = float((w * p).sum()), float(rows @ w @ cols)
    if expected >= 1 - 1e-15:
        raise _one_class_only("both readers use", int(total))
    value = (observed - expected) / (1 - expected)
    # Mean weight of each pair of classes given what the other reader says.
    reach = (w @ cols)[:, None] + (rows @ w)[None, :]
    spread = float((p * (w - reach * (1 - value)) ** 2).sum())
    spread -= (value - expected * (1 - value)) ** 2
    null = float((np.outer(rows, cols) * (w - reach) ** 2).sum()) - expected**2
    scale = total * (1 - expected) ** 2
    # A sum of squares this small is what rounding leaves of an exact zero.
    error, null_error = (sqrt(v / scale) if v > 1e-14 else 0.0 for v in (spread, null))
    half = normal_quantile(level) * error
    name = f"{weights.value}, Fleiss-Cohen-Everitt standard error"
    estimate = _kappa_estimate(value, half, (int(total), unit, level), f"Cohen's kappa, {name}")
    return _kappa(estimate, error, null_error, observed, expected)


def fleiss_kappa(
    classes: AnyArray, n_classes: int, unit: Unit = Unit.PATIENT, level: float = 0.95
) -> Kappa:
    """Fleiss' kappa of k readers: classes (n, k) in 0 .. C-1.

    Readers are interchangeable, so with two of them this is Scott's pi, not Cohen's kappa. The
    interval takes the cases as the sample (Gwet 2021, eq. for Fleiss' kappa, t with n - 1 degrees
    of freedom); the test has the null error of Fleiss, Nee and Landis 1979.

    Raises: StatisticUndefined as `cohen_kappa`; with fewer than two cases or readers, or missing
    readings.
    """
    refuse_frames(unit)
    check_level(level)
    counts, k = _counts_per_case(classes, n_classes)
    n = len(counts)
    shares = counts.sum(axis=0) / (n * k)
    expected = float((shares**2).sum())
    if expected >= 1 - 1e-15:
        raise _one_class_only("all readers use", n)
    agreeing = (counts * (counts - 1)).sum(axis=1) / (k * (k - 1))
    observed = float(agreeing.mean())
    value = (observed - expected) / (1 - expected)
    # How much each case moves the coefficient, through agreement and through the class shares.
    of_case = (agreeing - expected) / (1 - expected)
    by_chance = counts @ shares / k
    moved = of_case - 2 * (1 - value) * (by_chance - expected) / (1 - expected)
    error = sqrt(float(((moved - value) ** 2).sum()) / (n * (n - 1)))
    rest = shares * (1 - shares)
    null = rest.sum() ** 2 - (rest * (1 - 2 * shares)).sum()
    null_error = sqrt(2 * float(null) / (n * k * (k - 1))) / float(rest.sum())
    half = _t_quantile(level, n - 1) * error
    name = f"Fleiss' kappa of {k} readers, Gwet 2021 standard error, t"
    estimate = _kappa_estimate(value, half, (n, unit, level), name)
    return _kappa(estimate, error, null_error, observed, expected)


def _kappa_weights(n_classes: int, weights: KappaWeights) -> Floats:
    steps = np.abs(np.subtract.outer(np.arange(n_classes), np.arange(n_classes))) / (n_classes - 1)
    if weights is KappaWeights.NONE:
        return (steps == 0).astype(np.float64)
    return 1 - (steps if weights is KappaWeights.LINEAR else steps**2)


def _kappa_estimate(
    value: float, half: float, basis: tuple[int, Unit, float], name: str
) -> Estimate:
    n, unit, level = basis
    if half == 0 or 1 - value < 1e-12:
        why = "the readers do not disagree" if value > 0 else "no variance in these cases"
        return Estimate(value, nan, nan, level, n, unit, f"no interval: {why}, {name}")
    return Estimate(value, max(-1.0, value - half), min(1.0, value + half), level, n, unit, name)


def _kappa(
    estimate: Estimate, error: float, null_error: float, observed: float, expected: float
) -> Kappa:
    # One reader who uses one class only leaves kappa 0 without any variance: nothing to test.
    z = estimate.value / null_error if null_error > 0 else 0.0
    p = 2 * float(special.ndtr(-abs(z)))
    return Kappa(estimate, error, null_error, z, p, observed, expected)


def _one_class_only(who: str, n: int) -> StatisticUndefined:
    return StatisticUndefined(
        f"{who} one class for all {n} cases",
        where="kappa",
        expected="at least two classes in use",
        remedy="report percent agreement",
    )


# ------------------------------------------------------------------ classes: percent agreement


@dataclass(frozen=True, slots=True)
class Agreement:
    """pairwise: chance that two readers agree on a case. unanimous: share of cases all agree on."""

    pairwise: Estimate
    unanimous: Estimate


def percent_agreement(
    classes: AnyArray, n_classes: int, unit: Unit = Unit.PATIENT, level: float = 0.95
) -> Agreement:
    """Plain agreement of k readers: classes (n, k) in 0 .. C-1; chance is not taken off.

    Unanimity has the exact interval, and so has the pairwise share of two readers, which is the
    same number. With more readers the pairwise share has a t interval over cases; where all cases
    are unanimous, the exact lower bound of unanimity, which is not above it.
    Raises: as `fleiss_kappa`, except for one class only.
    """
    refuse_frames(unit)
    counts, k = _counts_per_case(classes, n_classes)
    n = len(counts)
    whole = int((counts.max(axis=1) == k).sum())
    unanimous = Proportion(whole, n).estimate(unit, level)
    if k == 2:
        return Agreement(unanimous, unanimous)
    shares = (counts * (counts - 1)).sum(axis=1) / (k * (k - 1))
    value = float(shares.mean())
    half = _t_quantile(level, n - 1) * float(shares.std(ddof=1)) / sqrt(n)
    low, high = max(0.0, value - half), min(1.0, value + half)
    method = f"t interval of the share of agreeing pairs of {k} readers"
    if whole == n:
        low, method = unanimous.low, "Clopper-Pearson bound of unanimity"
    elif half == 0:
        low, high = nan, nan
        method = f"no interval: the same share of pairs of {k} readers agrees on every case"
    return Agreement(Estimate(value, low, high, level, n, unit, method), unanimous)


def _counts_per_case(classes: AnyArray, n_classes: int) -> tuple[Floats, int]:
    """(n, C): how many readers chose each class; and k."""
    x = _ratings(classes)
    if n_classes < 2 or bool(((x != np.floor(x)) | (x < 0) | (x >= n_classes)).any()):
        raise StatisticUndefined(
            "a class that is not in the task",
            where="agreement",
            expected=f"whole numbers 0 to {n_classes - 1}, two classes or more",
        )
    return (x[:, :, None] == np.arange(n_classes)).sum(axis=1).astype(np.float64), x.shape[1]


def pairwise_kappas(
    classes: AnyArray,
    n_classes: int,
    weights: KappaWeights = KappaWeights.NONE,
    unit: Unit = Unit.PATIENT,
) -> dict[tuple[int, int], Kappa]:
    """Cohen's kappa of every two of k readers: classes (n, k); keys are columns i < j."""
    x = _ratings(classes)
    whole = x.astype(np.int64)
    if bool((whole != x).any()):
        raise StatisticUndefined("classes that are not whole numbers", where="kappa")
    return {
        (i, j): cohen_kappa(confusion_matrix(whole[:, i], whole[:, j], n_classes), weights, unit)
        for i, j in combinations(range(x.shape[1]), 2)
    }


# ------------------------------------------------------------------ numbers: Bland-Altman


class DifferenceScale(StrEnum):
    """absolute: second minus first. ratio: second over first, for errors that grow with size."""

    ABSOLUTE = "absolute"
    RATIO = "ratio"


@dataclass(frozen=True, slots=True)
class BlandAltman:
    """Second against first reader: mean difference (or ratio) and its 95 % limits, with intervals.

    sd: of the differences (of log ratios on the ratio scale). slope: change of the difference per
    unit of the mean of both (on the ratio scale: of the log of both), None where all means are
    equal; slope_p its two-sided p: proportional bias.
    """

    scale: DifferenceScale
    bias: Estimate
    lower: Estimate
    upper: Estimate
    sd: float
    slope: Estimate | None
    slope_p: float


def bland_altman(
    first: AnyArray,
    second: AnyArray,
    scale: DifferenceScale = DifferenceScale.ABSOLUTE,
    unit: Unit = Unit.PATIENT,
    level: float = 0.95,
) -> BlandAltman:
    """Agreement of two readers' measurements (n,), one pair per case.

    Limits: bias -+ 1.96 sd whatever `level`; `level` is that of the intervals. Standard errors
    sd/sqrt(n) and sd sqrt(1/n + 1.96^2 / (2(n-1))), t with n - 1 degrees of freedom: Bland and
    Altman 1999, section 2. Proportional bias: slope of the difference on the mean.

    Differences that are all equal give numbers without intervals.
    Raises: StatisticUndefined for frames, fewer than three pairs, unequal lengths, missing values,
    or values that are not positive on the ratio scale.
    """
    refuse_frames(unit)
    check_level(level)
    a, b = _measurements(first, second, scale)
    n, differences, means = a.size, b - a, (a + b) / 2
    bias, sd = float(differences.mean()), float(differences.std(ddof=1))
    if sd <= 1e-12 * max(abs(bias), float(np.abs(means).max())):
        sd = 0.0
    t, z = _t_quantile(level, n - 1), normal_quantile(0.95)
    ratio = scale is DifferenceScale.RATIO

    def estimate(value: float, error: float, name: str) -> Estimate:
        low, high = value - t * error, value + t * error
        if sd == 0:
            low, high, name = nan, nan, f"no interval: all {scale.value} differences are equal"
        value, low, high = (float(np.exp(v)) if ratio else v for v in (value, low, high))
        return Estimate(value, low, high, level, n, unit, name)

    of_bias, of_limit = sd / sqrt(n), sd * sqrt(1 / n + z**2 / (2 * (n - 1)))
    slope, slope_p = _proportional_bias(means, differences, sd, (unit, level))
    return BlandAltman(
        scale,
        estimate(bias, of_bias, f"t interval of the {'geometric ' if ratio else ''}mean"),
        estimate(bias - z * sd, of_limit, "Bland-Altman 1999, lower limit"),
        estimate(bias + z * sd, of_limit, "Bland-Altman 1999, upper limit"),
        sd,
        slope,
        slope_p,
    )


def _measurements(
    first: AnyArray, second: AnyArray, scale: DifferenceScale
) -> tuple[Floats, Floats]:
    if np.shape(first) != np.shape(second) or np.ndim(first) != 1 or len(first) < 3:
        raise StatisticUndefined(
            f"measurements of shape {np.shape(first)} and {np.shape(second)}",
            where="Bland-Altman",
            expected="one pair per case, three cases or more",
        )
    x = _ratings(np.stack([first, second], axis=1))
    if scale is DifferenceScale.RATIO:
        if bool((x <= 0).any()):
            raise StatisticUndefined(
                f"{int((x <= 0).sum())} measurements are 0 or negative",
                where="Bland-Altman on the ratio scale",
                expected="positive sizes",
                remedy="use the absolute scale",
            )
        x = np.log(x)
    return x[:, 0], x[:, 1]


def _proportional_bias(
    means: Floats, differences: Floats, sd: float, basis: tuple[Unit, float]
) -> tuple[Estimate | None, float]:
    unit, level = basis
    n, centred = means.size, means - means.mean()
    square = float((centred**2).sum())
    if square <= 1e-24 * float((means**2).sum()):
        return None, nan
    name = "t interval of a least-squares slope"
    if sd == 0:
        return Estimate(0.0, nan, nan, level, n, unit, f"no interval: {name} without scatter"), 1.0
    slope = float(centred @ differences) / square
    left = differences - differences.mean() - slope * centred
    error = sqrt(float((left**2).sum()) / (n - 2) / square)
    half = _t_quantile(level, n - 2) * error
    p = 2 * float(special.stdtr(n - 2, -abs(slope) / error)) if error > 0 else 0.0
    return Estimate(slope, slope - half, slope + half, level, n, unit, name), p


# ------------------------------------------------------------------ outlines: Dice


@dataclass(frozen=True, slots=True)
class ReaderDice:
    """Dice between every two readers, averaged over pairs: what a model can at best be asked for.

    mean: over patients of each patient's mean. lowest: of any pair on any case. pairs: how many
    comparisons there are; empty: how many of them had two empty outlines and count nowhere.
    """

    mean: Estimate
    lowest: float
    pairs: int
    empty: int


def pairwise_dice(outlines: Sequence[Mask | Box]) -> Floats:
    """Dice of every two outlines of one lesion, in the order of `itertools.combinations`.

    Masks of one shape, or boxes; NaN where both masks are empty.
    Raises: InputRefused(MASK_MISMATCH) for masks of different shapes, or masks mixed with boxes.
    """
    found: list[float] = []
    for a, b in combinations(outlines, 2):
        if isinstance(a, Box) and isinstance(b, Box):
            found.append(_box_dice(a, b))
            continue
        if isinstance(a, Box) or isinstance(b, Box) or a.shape != b.shape:
            raise InputRefused(
                Reason.MASK_MISMATCH,
                "outlines of one lesion that are masks of different shapes, or a mask and a box",
                expected="masks of one shape, or boxes throughout",
            )
        size = int(a.sum()) + int(b.sum())
        found.append(2 * int((a & b).sum()) / size if size else nan)
    return np.array(found)


def outline_dice(
    outlines: Iterable[Outline], *, boxes: bool = False
) -> tuple[Floats, tuple[str, ...], tuple[str, ...]]:
    """Dice (lesions on frames, pairs of readers) of all outlines, patients of the rows, readers.

    Columns as `itertools.combinations` of the readers in order of their names; NaN where one of the
    two drew nothing. boxes: compare the boxes; otherwise every outline must be a mask.
    Raises: InputRefused(MASK_MISMATCH) as `pairwise_dice`, or for an outline without mask.
    """
    places = by_place(outlines)
    readers = sorted({name for there in places.values() for name in there})
    rows: list[list[float]] = []
    for there in places.values():
        drawn = {name: o.box if boxes else _mask(o) for name, o in there.items()}
        rows.append(
            [
                float(pairwise_dice([drawn[a], drawn[b]])[0]) if {a, b} <= set(drawn) else nan
                for a, b in combinations(readers, 2)
            ]
        )
    patients = tuple(next(iter(there.values())).patient for there in places.values())
    return np.array(rows), patients, tuple(readers)


def _mask(outline: Outline) -> Mask:
    if outline.mask is None:
        raise InputRefused(
            Reason.MASK_MISMATCH,
            f"an outline by {outline.reader!r} without mask",
            where=f"{outline.file}, frame {outline.frame}",
            expected="masks",
            remedy="compare the boxes instead",
        )
    return outline.mask.decode()


def reader_dice(
    dice: Floats, patients: AnyArray | Sequence[str], plan: BootstrapPlan | None = None
) -> ReaderDice:
    """Mean Dice between readers: dice (cases, pairs), NaN where a pair does not exist.

    patients (cases,): who each case is of; several outlines of one patient are not independent.
    Raises: StatisticUndefined without any pair, or as `cluster_bootstrap`.
    """
    values = np.asarray(dice, dtype=np.float64)
    keys = np.asarray(patients)
    if values.ndim != 2 or keys.shape != values.shape[:1]:
        raise StatisticUndefined(
            f"Dice of shape {values.shape} with {keys.shape} patients",
            expected="one row per case, one column per pair of readers, one patient key per row",
        )
    there = ~np.isnan(values)
    some = there.any(axis=1)
    if not bool(some.any()):
        raise StatisticUndefined(
            "no two outlines to compare", where="Dice between readers", expected="two readers"
        )
    of_case = np.nanmean(values[some], axis=1)
    mean = cluster_bootstrap(mean_of_patient_means(of_case, keys[some]), keys[some], plan)
    return ReaderDice(mean, float(np.nanmin(values)), int(there.sum()), int((~there).sum()))


def _box_dice(a: Box, b: Box) -> float:
    wide = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
    high = min(a.y + a.height, b.y + b.height) - max(a.y, b.y)
    both = max(0, wide) * max(0, high)
    return 2 * both / (a.width * a.height + b.width * b.height)


# ------------------------------------------------------------------ checks


def _ratings(values: AnyArray) -> Floats:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 2 or min(x.shape) < 2:
        raise StatisticUndefined(
            f"ratings of shape {x.shape}",
            where="agreement",
            expected="one row per case and one column per reader, two of each or more",
        )
    missing = int((~np.isfinite(x)).sum())
    if missing:
        raise StatisticUndefined(
            f"{missing} of {x.size} ratings are missing or infinite",
            where="agreement",
            expected="every case read by every reader",
            remedy="leave out the cases that not all have read, and say how many",
        )
    return x


def _t_quantile(level: float, df: int) -> float:
    check_level(level)
    return float(special.stdtrit(df, 0.5 + level / 2))
