"""Do the arms of a reader study differ, for other readers and other cases as well?

A multi-reader multi-case study has I arms (with and without AI, B-mode and CEUS), J readers and n
cases, all read by all in every arm: ratings (I, J, n). Readers differ, cases differ, and readings
of one case or by one reader resemble each other; a test that takes only one of the two as a sample
finds too much.

obuchowski_rockette: analysis of variance of the readers' figures with covariances estimated from
the cases, and Hillis' degrees of freedom. one_shot: the U-statistic variance of the reader-averaged
AUC. Both are for fully crossed readings; what is missing is refused, and has to be left out before.

Sources: Obuchowski and Rockette 1995, Commun Stat B 24:285; Hillis 2007, Stat Med 26:596; Hillis,
Obuchowski and Berbaum 2011, Acad Radiol 18:129; Gallas 2006, Acad Radiol 13:353; Gallas, Pennello
and Myers 2007, J Opt Soc Am A 24:B70.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations
from math import inf, nan, sqrt

import numpy as np
import numpy.typing as npt
from scipy import special

from renalkit.domain.prediction import Unit
from renalkit.errors import StatisticUndefined
from renalkit.metrics.auc_inference import Scale, delong, delong_covariance
from renalkit.metrics.classification import AnyArray, Floats, binary_scores, pairs_won
from renalkit.metrics.inference import Estimate, check_level, refuse_frames

Bools = npt.NDArray[np.bool_]

# Largest temporary array of one step, in numbers.
_CHUNK = 4_000_000

# A variance below this share of the figures' own size is what rounding leaves of zero.
_ROUNDING = 1e-14


class Figure(StrEnum):
    """What is compared. AUC needs scores; sensitivity and specificity need votes (0 or 1)."""

    AUC = "AUC"
    SENSITIVITY = "sensitivity"
    SPECIFICITY = "specificity"


class CovarianceMethod(StrEnum):
    """How the covariances of the readers' figures are estimated from the cases.

    For sensitivity and specificity all three are the sample covariance of the votes over n.
    unbiased is that of U-statistics: right on average, but a variance can come out negative.
    """

    DELONG = "DeLong"
    JACKKNIFE = "jackknife"
    UNBIASED = "unbiased"


class Generalise(StrEnum):
    """To whom the result applies: what is a sample, and what is fixed."""

    READERS_AND_CASES = "random readers and cases"
    CASES = "fixed readers, random cases"
    READERS = "random readers, fixed cases"


@dataclass(frozen=True, slots=True)
class MrmcPlan:
    """How a reader study is analysed; fixed before the readings are seen.

    scale: of the intervals of arms; differences are plain. Near 1 plain intervals, which RJafroc
    and MRMCaov print, cover too little (validation/results/mrmc_level.json).
    """

    figure: Figure = Figure.AUC
    covariance: CovarianceMethod = CovarianceMethod.DELONG
    to: Generalise = Generalise.READERS_AND_CASES
    unit: Unit = Unit.PATIENT
    level: float = 0.95
    scale: Scale = Scale.LOGIT

    def __post_init__(self) -> None:
        check_level(self.level)


@dataclass(frozen=True, slots=True)
class Components:
    """Mean squares of the (I, J) figures, and the pooled error covariances.

    variance: of one figure. cov1: same reader, other arm; cov2: same arm, other reader; cov3: both
    other. 0 where there is no such pair.
    """

    ms_arms: float
    ms_readers: float
    ms_interaction: float
    variance: float
    cov1: float
    cov2: float
    cov3: float


@dataclass(frozen=True, slots=True)
class ArmContrast:
    """Arm `first` minus arm `second`, with the two-sided test of no difference.

    statistic: t with `df` degrees of freedom, z where df is infinite.
    """

    first: int
    second: int
    difference: Estimate
    statistic: float
    df: float
    p_value: float


@dataclass(frozen=True, slots=True)
class MrmcResult:
    """figures (I, J): of every reader in every arm. arms: averaged over readers, each interval from
    its own arm's readings alone. f, df1, df2, p_value: the test that no arm differs (f is NaN for
    one arm; df2 infinite: chi-square over df1).
    """

    plan: MrmcPlan
    figures: Floats
    arms: tuple[Estimate, ...]
    contrasts: tuple[ArmContrast, ...]
    components: Components
    f: float
    df1: int
    df2: float
    p_value: float


def figures_of_merit(
    truth: AnyArray, ratings: AnyArray, plan: MrmcPlan
) -> tuple[Floats, Floats, int]:
    """The (I, J) figures, their covariance (I, J, I, J) over cases, and the number of cases.

    truth (n,) 0/1; ratings (I, J, n). Sensitivity counts positive cases only, specificity negative
    ones.
    Raises: StatisticUndefined for missing readings, other shapes, fewer than two cases in a class,
    votes where an AUC is asked for, or scores where votes are.
    """
    refuse_frames(plan.unit)
    t, x = _crossed(truth, ratings)
    shape = x.shape[:2]
    rows = x.reshape(-1, x.shape[2])
    if plan.figure is Figure.AUC:
        _refuse_votes(rows)
        values, covariance = auc_covariance(t, rows, plan.covariance)
        counted = t.size
    else:
        values, covariance, counted = _shares(t, rows, plan.figure)
    return values.reshape(shape), covariance.reshape(*shape, *shape), counted


def auc_covariance(
    truth: AnyArray, scores: AnyArray, method: CovarianceMethod
) -> tuple[Floats, Floats]:
    """AUCs (S,) and their covariance (S, S) over cases: truth (n,) 0/1, scores (S, n).

    jackknife: (n-1)/n times the sum of products of the leave-one-case-out AUCs around their mean.
    unbiased: A_s A_t minus the mean of psi_s psi_t over pairs of pairs of cases that share none,
    which estimates the product of the true AUCs (Gallas 2006, M4).
    Raises: StatisticUndefined as `delong_covariance`.
    """
    aucs, covariance = delong_covariance(truth, scores)
    if method is CovarianceMethod.DELONG:
        return aucs, covariance
    t, x = np.asarray(truth) == 1, np.atleast_2d(np.asarray(scores, dtype=np.float64))
    rows, columns = _kernel_sums(t, x)
    n_pos, n_neg = rows.shape[1], columns.shape[1]
    if method is CovarianceMethod.JACKKNIFE:
        total = aucs[:, None] * (n_pos * n_neg)
        left_out = np.concatenate(
            [(total - rows) / ((n_pos - 1) * n_neg), (total - columns) / (n_pos * (n_neg - 1))],
            axis=1,
        )
        apart = left_out - left_out.mean(axis=1, keepdims=True)
        return aucs, (t.size - 1) / t.size * (apart @ apart.T)
    apart = _sums_apart(_products(t, x), rows, columns)
    return aucs, np.outer(aucs, aucs) - apart[3] / _pairs(n_pos, n_neg)[3]


# ------------------------------------------------------------------ Obuchowski-Rockette


def obuchowski_rockette(
    truth: AnyArray, ratings: AnyArray, plan: MrmcPlan | None = None
) -> MrmcResult:
    """Compare the reader-averaged figures of arms: truth (n,) 0/1, ratings (I, J, n).

    Random readers and cases (Hillis 2007): F = MS(A) / D, D = MS(AR) + J max(cov2 - cov3, 0), with
    I - 1 and D^2 (I-1)(J-1) / MS(AR)^2 degrees of freedom. Fixed readers: chi-square with
    D = variance - cov1 + (J-1)(cov2 - cov3); one reader gives DeLong's paired test. Fixed cases:
    MS(A) / MS(AR). An interval of a difference has standard error sqrt(2 D / J).

    Identical arms: difference 0, p 1, not NaN.
    Raises: as `figures_of_merit`; StatisticUndefined with fewer than two random readers, or where a
    difference that is not 0 has no variance.
    """
    plan = plan or MrmcPlan()
    figures, covariance, n = figures_of_merit(truth, ratings, plan)
    _enough_readers(figures.shape[1], plan.to)
    basis = _Basis(n, plan, f"Obuchowski-Rockette, {plan.to.value}", figures.shape[1])
    parts = _components(figures, covariance)
    arms = tuple(_arm(figures[i], covariance[i, :, i, :], basis) for i in range(figures.shape[0]))
    n_arms, n_readers = figures.shape
    denominator, df = _denominator(parts, n_arms, n_readers, plan.to)
    error = sqrt(max(0.0, 2 * denominator / n_readers))
    means = figures.mean(axis=1)
    contrasts = tuple(
        _contrast((i, k), float(means[i] - means[k]), (error, df), basis)
        for i, k in combinations(range(n_arms), 2)
    )
    f, p = _overall(parts.ms_arms, denominator, n_arms - 1, df)
    return MrmcResult(plan, figures, arms, contrasts, parts, f, n_arms - 1, df, p)


@dataclass(frozen=True, slots=True)
class ModelContrast:
    """A model against the average of readers, model minus readers, on the same cases."""

    model: Estimate
    readers: Estimate
    difference: Estimate
    statistic: float
    df: float
    p_value: float


def model_against_readers(
    truth: AnyArray, model_scores: AnyArray, ratings: AnyArray, plan: MrmcPlan | None = None
) -> ModelContrast:
    """Does a model's AUC differ from the mean AUC of readers like these?

    truth (n,), model_scores (n,), ratings (J, n). The model is one fixed system; its J differences
    to the readers are analysed as one arm of an Obuchowski-Rockette study (Hillis 2007, single
    arm), so readers and cases are both samples unless the plan says otherwise.
    Raises: as `obuchowski_rockette`; ValueError for another figure than AUC (see `reader_study`).
    """
    plan = plan or MrmcPlan()
    if plan.figure is not Figure.AUC:
        raise ValueError("a model and readers at one operating point: see reader_study")
    x = np.concatenate([np.atleast_2d(model_scores), np.atleast_2d(ratings)])
    _refuse_votes(np.asarray(ratings, dtype=np.float64))
    figures, covariance, n = figures_of_merit(truth, x[None], plan)
    aucs, cov = figures[0], covariance[0, :, 0, :]
    n_readers = aucs.size - 1
    _enough_readers(n_readers, plan.to)
    basis = _Basis(n, plan, f"Obuchowski-Rockette, {plan.to.value}", n_readers)
    apart = aucs[0] - aucs[1:]
    of_apart = cov[0, 0] - cov[:1, 1:] - cov[1:, :1] + cov[1:, 1:]
    spread = _single_arm(apart, of_apart, plan.to)
    contrast = _contrast((0, 1), float(apart.mean()), spread, basis)
    return ModelContrast(
        delong(truth, model_scores, plan.unit, plan.level, plan.scale),
        _arm(aucs[1:], cov[1:, 1:], basis),
        contrast.difference,
        contrast.statistic,
        contrast.df,
        contrast.p_value,
    )


# ------------------------------------------------------------------ one-shot U-statistic


@dataclass(frozen=True, slots=True)
class OneShot:
    """Reader-averaged AUCs by U-statistics.

    moments (I, I, 8): mean of psi_a psi_b over two readings that share reader, positive and
    negative case (1), reader and positive case (2), reader and negative case (3), reader only (4),
    and 5 to 8 the same with different readers. coefficients (8,): covariance (I, I) of the means is
    coefficients @ moments minus moment 8.
    """

    arms: tuple[Estimate, ...]
    contrasts: tuple[ArmContrast, ...]
    moments: Floats
    coefficients: Floats
    covariance: Floats


def one_shot(
    truth: AnyArray,
    ratings: AnyArray,
    unit: Unit = Unit.PATIENT,
    level: float = 0.95,
    scale: Scale = Scale.LOGIT,
) -> OneShot:
    """Variance of reader-averaged AUCs with random readers and cases: Gallas 2006, eq. 6.

    truth (n,) 0/1, ratings (I, J, n). Moments are unbiased. A variance that comes out at or below 0
    is replaced by the one from all pairs (the maximum-likelihood form, biased upwards), and the
    method says so. t with (J-1) (V / V_R)^2 degrees of freedom, at least J - 1, V_R the variance of
    the mean by the spread of the readers alone: Hillis' degrees of freedom.

    With `CovarianceMethod.UNBIASED` Obuchowski-Rockette has the same variance of a difference,
    wherever cov2 is above cov3.
    Raises: as `obuchowski_rockette`.
    """
    plan = MrmcPlan(unit=unit, level=level, scale=scale)
    refuse_frames(unit)
    t, x = _crossed(truth, ratings)
    _refuse_votes(x.reshape(-1, t.size))
    n_arms, n_readers = x.shape[:2]
    _enough_readers(n_readers, plan.to)
    aucs, _ = delong_covariance(t, x.reshape(-1, t.size))
    figures = aucs.reshape(n_arms, n_readers)
    sums, n_pos, n_neg = _moment_sums(t, x)
    coefficients = _coefficients(n_readers, n_pos, n_neg)
    moments = np.moveaxis(_unbiased_moments(sums, n_readers, n_pos, n_neg), 0, -1)
    covariance = moments @ coefficients - moments[..., 7]
    plain = np.moveaxis(_plain_moments(sums, n_readers, n_pos, n_neg), 0, -1)
    upward = plain @ coefficients - plain[..., 7]

    def spread(weights: Floats) -> tuple[float, float, bool]:
        """Standard error and degrees of freedom of a weighted sum of arms; and if unbiased."""
        total = float(weights @ covariance @ weights)
        negative = total <= _ROUNDING
        if negative:
            total = max(0.0, float(weights @ upward @ weights))
        by_readers = float((weights @ figures).var(ddof=1)) / n_readers
        df = inf if by_readers == 0 else (n_readers - 1) * (total / by_readers) ** 2
        return sqrt(total), max(df, n_readers - 1.0), not negative

    def basis(unbiased: bool) -> _Basis:
        words = "U-statistic, random readers and cases"
        return _Basis(t.size, plan, words if unbiased else f"{words}, biased form", n_readers)

    means, one = figures.mean(axis=1), np.eye(n_arms)
    arms: list[Estimate] = []
    for i in range(n_arms):
        error, df, unbiased = spread(one[i])
        arms.append(_arm_estimate(float(means[i]), (error, df), basis(unbiased)))
    contrasts: list[ArmContrast] = []
    for i, k in combinations(range(n_arms), 2):
        error, df, unbiased = spread(one[i] - one[k])
        apart = float(means[i] - means[k])
        contrasts.append(_contrast((i, k), apart, (error, df), basis(unbiased)))
    return OneShot(tuple(arms), tuple(contrasts), moments, coefficients, covariance)


def _coefficients(n_readers: int, n_pos: int, n_neg: int) -> Floats:
    """c1 .. c8 of Gallas 2006, table 1: the chance that two readings share what a moment shares."""
    share = np.array([1, n_neg - 1, n_pos - 1, (n_pos - 1) * (n_neg - 1)]) / (n_pos * n_neg)
    return np.concatenate([share / n_readers, share * (n_readers - 1) / n_readers])


def _moment_sums(t: Bools, x: Floats) -> tuple[tuple[Floats, Floats], int, int]:
    """Sums (4, I, I) of psi_a psi_b over one reader, and over all pairs of readers.

    Rows: the same pair of cases; a common positive; a common negative; any two pairs.
    """
    n_arms = x.shape[0]
    parts = [_kernel_sums(t, arm) for arm in x]
    rows, columns = np.stack([r for r, _ in parts]), np.stack([c for _, c in parts])
    n_pos, n_neg = rows.shape[2], columns.shape[2]
    totals = rows.sum(axis=2)
    same, every = np.zeros((2, 4, n_arms, n_arms))
    same[0], every[0] = _reader_products(t, x)
    for k, sums in ((1, rows), (2, columns)):
        same[k] = np.einsum("ajp,bjp->ab", sums, sums)
        pooled = sums.sum(axis=1)
        every[k] = pooled @ pooled.T
    same[3] = totals @ totals.T
    pooled = totals.sum(axis=1)
    every[3] = np.outer(pooled, pooled)
    return (same, every), n_pos, n_neg


def _plain_moments(sums: tuple[Floats, Floats], n_readers: int, n_pos: int, n_neg: int) -> Floats:
    """(8, I, I) means over all pairs, shared or not beyond what the moment asks for."""
    same, every = sums
    sizes = n_pos * n_neg * np.array([1.0, n_neg, n_pos, n_pos * n_neg])[:, None, None]
    return np.concatenate([same / (n_readers * sizes), every / (n_readers**2 * sizes)])


def _unbiased_moments(
    sums: tuple[Floats, Floats], n_readers: int, n_pos: int, n_neg: int
) -> Floats:
    """(8, I, I) means over pairs that share exactly what the moment says."""
    same, every = sums
    sizes = _pairs(n_pos, n_neg)[:, None, None]
    one = _only(same) / (n_readers * sizes)
    two = _only(every - same) / (n_readers * (n_readers - 1) * sizes)
    return np.concatenate([one, two])


def _only(sums: Floats) -> Floats:
    """Sums over pairs that share both, the positive, the negative, nothing: from nested sums."""
    both, positive, negative, any_two = sums
    return np.stack([both, positive - both, negative - both, any_two - positive - negative + both])


def _sums_apart(products: Floats, rows: Floats, columns: Floats) -> Floats:
    """(4, S, S) as `_only`, between every two of S systems."""
    totals = rows.sum(axis=1)
    return _only(np.stack([products, rows @ rows.T, columns @ columns.T, np.outer(totals, totals)]))


def _pairs(n_pos: int, n_neg: int) -> Floats:
    """How many pairs of pairs of cases share both, the positive, the negative, nothing."""
    return n_pos * n_neg * np.array([1.0, n_neg - 1, n_pos - 1, (n_pos - 1) * (n_neg - 1)])


# ------------------------------------------------------------------ kernels


def _kernel_sums(t: Bools, x: Floats) -> tuple[Floats, Floats]:
    """Sums of psi over the negatives (S, P) and over the positives (S, N): won pairs, ties 1/2."""
    won = np.stack([pairs_won(t, row) for row in x])
    return won[:, t], won[:, ~t]


def _psi_blocks(t: Bools, x: Floats) -> list[tuple[Floats, Floats]]:
    """Positives (S, p, 1) in blocks, with all negatives (S, 1, N): psi of a block fits memory."""
    pos, neg = x[:, t], x[:, ~t]
    step = max(1, _CHUNK // (x.shape[0] * neg.shape[1]))
    return [(pos[:, k : k + step, None], neg[:, None, :]) for k in range(0, pos.shape[1], step)]


def _psi(pos: Floats, neg: Floats) -> Floats:
    return (pos > neg) + 0.5 * (pos == neg)


def _products(t: Bools, x: Floats) -> Floats:
    """(S, S) sums of psi_s psi_t over all pairs of a positive and a negative case."""
    total = np.zeros((x.shape[0], x.shape[0]))
    for pos, neg in _psi_blocks(t, x):
        flat = _psi(pos, neg).reshape(x.shape[0], -1)
        total += flat @ flat.T
    return total


def _reader_products(t: Bools, x: Floats) -> tuple[Floats, Floats]:
    """(I, I) sums of psi_a psi_b over pairs of cases: within each reader, and of reader sums."""
    n_arms, n_readers, n = x.shape
    same, every = np.zeros((2, n_arms, n_arms))
    for pos, neg in _psi_blocks(t, x.reshape(-1, n)):
        psi = _psi(pos, neg).reshape(n_arms, n_readers, -1)
        same += np.einsum("ajp,bjp->ab", psi, psi)
        pooled = psi.sum(axis=1)
        every += pooled @ pooled.T
    return same, every


def _shares(t: Bools, votes: Floats, figure: Figure) -> tuple[Floats, Floats, int]:
    """Sensitivities or specificities (S,), their covariance (S, S), and the cases they count."""
    if not bool(((votes == 0) | (votes == 1)).all()):
        raise StatisticUndefined(
            "scores, where votes are needed",
            where=figure.value,
            expected="0 (negative) or 1 (positive) from every reader",
            remedy="ask for the AUC, or turn scores into votes at a threshold fixed beforehand",
        )
    right = votes[:, t] if figure is Figure.SENSITIVITY else 1 - votes[:, ~t]
    n = right.shape[1]
    if n < 2:
        raise StatisticUndefined(
            f"variance of a {figure.value} from {n} cases", expected="at least two"
        )
    return right.mean(axis=1), np.atleast_2d(np.cov(right)) / n, n


# ------------------------------------------------------------------ variances


def _components(figures: Floats, covariance: Floats) -> Components:
    n_arms, n_readers = figures.shape
    grand, arms, readers = figures.mean(), figures.mean(axis=1), figures.mean(axis=0)
    rest = figures - arms[:, None] - readers[None, :] + grand
    same_arm = np.eye(n_arms, dtype=bool)[:, None, :, None]
    same_reader = np.eye(n_readers, dtype=bool)[None, :, None, :]

    def mean(where: npt.NDArray[np.bool_]) -> float:
        chosen = covariance[np.broadcast_to(where, covariance.shape)]
        return float(chosen.mean()) if chosen.size else 0.0

    return Components(
        ms_arms=n_readers * _mean_square(arms - grand, n_arms - 1),
        ms_readers=n_arms * _mean_square(readers - grand, n_readers - 1),
        ms_interaction=_mean_square(rest, (n_arms - 1) * (n_readers - 1)),
        variance=mean(same_arm & same_reader),
        cov1=mean(~same_arm & same_reader),
        cov2=mean(same_arm & ~same_reader),
        cov3=mean(~same_arm & ~same_reader),
    )


def _mean_square(deviations: Floats, df: int) -> float:
    """0 where there is nothing to vary; what rounding leaves of zero counts as zero."""
    total = float((deviations**2).sum())
    return total / df if df and total > _ROUNDING**2 * deviations.size else 0.0


def _denominator(
    parts: Components, n_arms: int, n_readers: int, to: Generalise
) -> tuple[float, float]:
    """D of the F test, and its degrees of freedom (infinite: chi-square)."""
    if to is Generalise.CASES:
        return (
            parts.variance - parts.cov1 + (n_readers - 1) * (parts.cov2 - parts.cov3),
            inf,
        )
    by_readers, df = parts.ms_interaction, float((n_arms - 1) * (n_readers - 1))
    if to is Generalise.READERS:
        return by_readers, df
    total = by_readers + n_readers * max(parts.cov2 - parts.cov3, 0.0)
    return total, (df * (total / by_readers) ** 2 if by_readers > 0 else inf)


def _single_arm(figures: Floats, covariance: Floats, to: Generalise) -> tuple[float, float]:
    """Standard error of the mean over readers of one arm (Hillis 2007, section 4), and its df."""
    n_readers = figures.size
    variance = float(np.trace(covariance)) / n_readers
    others = n_readers * (n_readers - 1)
    cov2 = (float(covariance.sum()) - n_readers * variance) / others if others else 0.0
    if to is Generalise.CASES:
        return sqrt(max(0.0, (variance + (n_readers - 1) * cov2) / n_readers)), inf
    by_readers = _mean_square(figures - figures.mean(), n_readers - 1)
    if to is Generalise.READERS:
        return sqrt(by_readers / n_readers), n_readers - 1.0
    total = by_readers + n_readers * max(cov2, 0.0)
    df = (n_readers - 1) * (total / by_readers) ** 2 if by_readers > 0 else inf
    return sqrt(total / n_readers), df


# ------------------------------------------------------------------ results


@dataclass(frozen=True, slots=True)
class _Basis:
    """What an interval rests on."""

    n: int
    plan: MrmcPlan
    words: str
    n_readers: int

    def method(self, df: float) -> str:
        words = [self.words]
        if self.words.startswith("Obuchowski") and self.plan.to is not Generalise.READERS:
            words.append(f"{self.plan.covariance.value} covariances")
        words.append(f"{self.n_readers} reader{'' if self.n_readers == 1 else 's'}")
        words.append("normal" if df == inf else f"t with {df:.1f} df")
        return ", ".join(words)


def _arm(figures: Floats, covariance: Floats, basis: _Basis) -> Estimate:
    spread = _single_arm(figures, covariance, basis.plan.to)
    return _arm_estimate(float(figures.mean()), spread, basis)


def _arm_estimate(value: float, spread: tuple[float, float], basis: _Basis) -> Estimate:
    error, df = spread
    b, level, unit = basis, basis.plan.level, basis.plan.unit
    if error**2 <= _ROUNDING:
        why = f"no interval: no variance among these readers and cases, {b.words}"
        return Estimate(value, nan, nan, level, b.n, unit, why)
    half, method = _quantile(level, df) * error, b.method(df)
    if b.plan.scale is Scale.LOGIT and 0 < value < 1:
        centre, half = float(special.logit(value)), half / (value * (1 - value))
        low, high = float(special.expit(centre - half)), float(special.expit(centre + half))
        return Estimate(value, low, high, level, b.n, unit, f"{method}, logit")
    return Estimate(value, max(0.0, value - half), min(1.0, value + half), level, b.n, unit, method)


def _contrast(
    arms: tuple[int, int], value: float, spread: tuple[float, float], basis: _Basis
) -> ArmContrast:
    error, df = spread
    n, plan = basis.n, basis.plan
    if error**2 > _ROUNDING:
        statistic, half = value / error, _quantile(plan.level, df) * error
        low, high = max(-1.0, value - half), min(1.0, value + half)
        apart = Estimate(value, low, high, plan.level, n, plan.unit, basis.method(df))
        return ArmContrast(*arms, apart, statistic, df, _two_sided(statistic, df))
    if abs(value) > 1e-12:
        raise StatisticUndefined(
            f"a difference of {value:.3g} without any variance",
            where=basis.words,
            expected="readings that differ between cases, and readers",
            remedy="look at the readings: constant, or complete separation in a small sample",
        )
    same = Estimate(0.0, 0.0, 0.0, plan.level, n, plan.unit, f"{basis.words}, identical readings")
    return ArmContrast(*arms, same, 0.0, df, 1.0)


def _overall(ms_arms: float, denominator: float, df1: int, df2: float) -> tuple[float, float]:
    """F and its p; for no arm to compare (NaN, NaN), for identical arms (0, 1)."""
    if df1 == 0:
        return nan, nan
    if denominator <= _ROUNDING:
        return 0.0, 1.0
    f = ms_arms / denominator
    p = special.chdtrc(df1, df1 * f) if df2 == inf else special.fdtrc(df1, df2, f)
    return f, float(p)


def _quantile(level: float, df: float) -> float:
    tail = 0.5 + level / 2
    return float(special.ndtri(tail) if df == inf else special.stdtrit(df, tail))


def _two_sided(statistic: float, df: float) -> float:
    below = -abs(statistic)
    return 2 * float(special.ndtr(below) if df == inf else special.stdtr(df, below))


# ------------------------------------------------------------------ checks


def _crossed(truth: AnyArray, ratings: AnyArray) -> tuple[Bools, Floats]:
    x = np.asarray(ratings, dtype=np.float64)
    if x.ndim != 3 or min(x.shape) < 1:
        raise StatisticUndefined(
            f"ratings of shape {x.shape}",
            where="reader study",
            expected="arms x readers x cases",
        )
    missing = int((~np.isfinite(x)).sum())
    if missing:
        raise StatisticUndefined(
            f"{missing} of {x.size} readings are missing or infinite",
            where="reader study",
            expected="every case read by every reader in every arm",
            remedy="leave out the cases or readers that are incomplete, and say how many",
        )
    return binary_scores(truth, x[0, 0])[0], x


def _refuse_votes(rows: Floats) -> None:
    """One operating point is not a curve: (sensitivity + specificity) / 2 is no AUC of a reader."""
    if np.unique(rows).size <= 2:
        raise StatisticUndefined(
            "votes, where scores are needed",
            where="AUC of readers",
            expected="scores of more than two values: votes give one operating point, not a curve",
            remedy="compare sensitivity and specificity",
        )


def _enough_readers(n_readers: int, to: Generalise) -> None:
    if n_readers < 2 and to is not Generalise.CASES:
        raise StatisticUndefined(
            f"{n_readers} reader as a sample of readers",
            where="reader study",
            expected="at least two readers",
            remedy="take the readers as fixed: the result then holds for this reader only",
        )
