"""Do predicted probabilities mean what they say? Of the patients given 30 %, have 30 % the disease?

truth (n,) is 0/1; probabilities (n,) are those of the positive class, from 0 to 1. Slope and
intercept need no bins; the reliability curve, the calibration error and the decomposition of the
Brier score do, and state them. Everything is measured; nothing here recalibrates.

Sources: Cox 1958, Biometrika 45:562 (slope and intercept); Van Calster et al. 2019, BMC Med
17:230; Murphy 1973, J Appl Meteorol 12:595; Stephenson, Coelho and Jolliffe 2008, Weather and
Forecasting 23:752 (binned Brier score); Guo et al. 2017 (ECE); Liang and Zeger 1986 (clusters).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import nan, sqrt

import numpy as np
import numpy.typing as npt
from scipy import special

from renalkit.domain.prediction import Unit
from renalkit.errors import StatisticUndefined
from renalkit.metrics.auc_inference import group_codes
from renalkit.metrics.bootstrap import (
    BootstrapPlan,
    Codes,
    Evaluate,
    RatioOfSums,
    Resamples,
    resample,
)
from renalkit.metrics.classification import AnyArray, Floats, binary_probabilities
from renalkit.metrics.inference import Estimate, normal_quantile, wilson

Bools = npt.NDArray[np.bool_]


# ------------------------------------------------------------------ slope and intercept


@dataclass(frozen=True, slots=True)
class Recalibration:
    """What a logistic regression of the truth on the logit of the prediction says.

    slope: 1 if right, below 1 if predictions are too extreme. intercept: of that same regression.
    in_the_large: intercept with the slope held at 1; 0 if right, above 0 if the disease is more
    common than predicted.
    """

    slope: Estimate
    intercept: Estimate
    in_the_large: Estimate


def recalibration(
    truth: AnyArray,
    probabilities: AnyArray,
    groups: AnyArray | None = None,
    level: float = 0.95,
) -> Recalibration:
    """Calibration slope, intercept and calibration-in-the-large, by maximum likelihood.

    Rows are patients, with Wald intervals from the information matrix; or frames with groups (n,)
    naming each row's patient, with the cluster-robust (sandwich) variance times G / (G - 1).

    Raises: StatisticUndefined for values outside 0 to 1, exactly 0 or 1 (no logit), one class,
    predictions that separate the classes or do not vary (no finite slope), fewer than two patients.
    """
    t, p = binary_probabilities(truth, probabilities)
    extreme = int(((p == 0) | (p == 1)).sum())
    if extreme:
        raise StatisticUndefined(
            f"{extreme} of {p.size} probabilities are exactly 0 or 1 and have no logit",
            where="calibration slope",
            remedy="use scores in double precision, or clip them to stated limits",
        )
    x = special.logit(p)
    pos, neg = x[t], x[~t]
    if pos.min() >= neg.max() or neg.min() >= pos.max():
        raise StatisticUndefined(
            "the predictions separate the classes or do not vary: the slope is not finite",
            where="calibration slope",
            expected="predictions of both classes that overlap",
        )
    ones = np.ones_like(x)
    line, line_cov, basis = _logistic(t, np.stack([ones, x], axis=1), 0 * x, groups)
    large, large_cov, _ = _logistic(t, ones[:, None], x, groups)
    z = normal_quantile(level)

    def estimate(value: float, variance: float) -> Estimate:
        half = z * sqrt(variance)
        n, words = basis
        return Estimate(value, value - half, value + half, level, n, Unit.PATIENT, words)

    return Recalibration(
        slope=estimate(float(line[1]), float(line_cov[1, 1])),
        intercept=estimate(float(line[0]), float(line_cov[0, 0])),
        in_the_large=estimate(float(large[0]), float(large_cov[0, 0])),
    )


def _logistic(
    t: Bools, design: Floats, offset: Floats, groups: AnyArray | None
) -> tuple[Floats, Floats, tuple[int, str]]:
    """Coefficients (K,), their covariance (K, K), and what it rests on; design (n, K)."""
    beta = np.zeros(design.shape[1])

    def loss(b: Floats) -> float:
        eta = design @ b + offset
        return float(np.logaddexp(0, np.where(t, -eta, eta)).sum())

    for _ in range(100):
        fitted = special.expit(design @ beta + offset)
        information = (design * (fitted * (1 - fitted))[:, None]).T @ design
        step = np.linalg.solve(information, design.T @ (t - fitted))
        while loss(beta + step) > loss(beta) + 1e-12 and np.abs(step).max() > 1e-12:
            step = step / 2
        beta = beta + step
        if np.abs(step).max() < 1e-10 * max(1.0, float(np.abs(beta).max())):
            break
    fitted = special.expit(design @ beta + offset)
    inverse = np.linalg.inv((design * (fitted * (1 - fitted))[:, None]).T @ design)
    if groups is None:
        return beta, inverse, (t.size, "logistic recalibration, Wald")
    codes, n_groups = group_codes(groups, t.size)
    if n_groups < 2:
        raise StatisticUndefined(
            f"a cluster-robust variance from {n_groups} patient", expected="at least two patients"
        )
    scores = np.zeros((n_groups, design.shape[1]))
    np.add.at(scores, codes, design * (t - fitted)[:, None])
    covariance = n_groups / (n_groups - 1) * inverse @ (scores.T @ scores) @ inverse
    return beta, covariance, (n_groups, f"logistic recalibration over {t.size} rows, sandwich")


# ------------------------------------------------------------------ bins


class BinRule(StrEnum):
    """equal-width: [0, 1/K), ..., [1 - 1/K, 1]. equal-mass: cut at quantiles, ties together."""

    EQUAL_WIDTH = "equal-width"
    EQUAL_MASS = "equal-mass"


@dataclass(frozen=True, slots=True)
class Binning:
    """How probabilities are put into at most `bins` bins."""

    bins: int = 10
    rule: BinRule = BinRule.EQUAL_WIDTH

    def __post_init__(self) -> None:
        if self.bins < 1:
            raise ValueError(f"{self.bins} bins: expected at least 1")

    @property
    def words(self) -> str:
        return f"{self.bins} {self.rule.value} bins"

    def edges(self, probabilities: Floats) -> Floats:
        """Inner edges, rising; a bin holds its lower edge and not its upper one."""
        at = np.arange(1, self.bins) / self.bins
        if self.rule is BinRule.EQUAL_WIDTH:
            return at
        cuts = np.unique(np.quantile(probabilities, at))
        return cuts[cuts > probabilities.min()]

    def places(self, probabilities: Floats) -> Codes:
        """Bin of each probability, from 0; some bins may be empty."""
        return np.digitize(probabilities, self.edges(probabilities)).astype(np.intp)


@dataclass(frozen=True, slots=True)
class CalibrationError:
    """Expected calibration error (ECE) as a `bootstrap.Statistic`: mean over rows, by bins, of the
    distance between the mean prediction and the share of positives in the bin.

    truth (n,) 0/1, probabilities (n,). Bins are those of the sample in every resample. It depends
    on the binning and is above 0 by chance alone, more so in small samples and with many bins: an
    interval by resampling lies too high. For several classes take `top_label` first.
    """

    truth: AnyArray
    probabilities: AnyArray
    binning: Binning = Binning()

    @property
    def n_rows(self) -> int:
        return len(self.truth)

    def prepare(self, codes: Codes, n_groups: int) -> Evaluate:
        t, p = binary_probabilities(self.truth, self.probabilities, both_classes=False)
        place = self.binning.places(p)
        n_bins = int(place.max()) + 1
        cells = np.bincount(codes * n_bins + place, weights=t - p, minlength=n_groups * n_bins)
        gaps = cells.reshape(n_groups, n_bins)
        rows = np.bincount(codes, minlength=n_groups)

        def evaluate(counts: Floats) -> Floats:
            return np.abs(counts @ gaps).sum(axis=1) / (counts @ rows)

        return evaluate


def calibration_error(
    truth: AnyArray, probabilities: AnyArray, binning: Binning | None = None
) -> float:
    """Point estimate of `CalibrationError`; 0 for probabilities equal to the truth.

    Raises: StatisticUndefined if empty, unequal, not finite or outside 0 to 1. One class is enough.

    >>> round(calibration_error(np.array([0, 0, 1, 1]), np.array([0.1, 0.3, 0.6, 1.0])), 6)
    0.2
    """
    error = CalibrationError(truth, probabilities, binning or Binning())
    n = error.n_rows
    return float(error.prepare(np.arange(n), n)(np.ones((1, n)))[0])


def top_label(truth: AnyArray, probabilities: AnyArray) -> tuple[Bools, Floats]:
    """For several classes: was the most probable class right (n,), and its probability (n,).

    truth (n,) classes 0 .. C-1, probabilities (n, C). Of equal ones the first class counts.
    Raises: StatisticUndefined for other shapes.
    """
    t, p = np.asarray(truth), np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 2 or t.shape != p.shape[:1] or t.size == 0:
        raise StatisticUndefined(
            f"truths of shape {t.shape} and probabilities of shape {p.shape}",
            expected="(cases,) and (cases, classes)",
        )
    return p.argmax(axis=1) == t, p.max(axis=1)


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Predictions from `low` up to `high` and what came of them.

    observed: share of positives. wilson: its score interval, None unless every row is a patient of
    its own. resampled: its interval over patients; NaN ends, with the reason in its method, where
    resampling cannot say (few patients, or all of one class).
    """

    low: float
    high: float
    n_rows: int
    mean_predicted: float
    observed: float
    wilson: Estimate | None
    resampled: Estimate


def reliability_curve(
    truth: AnyArray,
    probabilities: AnyArray,
    groups: AnyArray,
    binning: Binning | None = None,
    plan: BootstrapPlan | None = None,
) -> tuple[ReliabilityBin, ...]:
    """Observed against predicted, bin by bin with bands; empty bins are left out.

    groups (n,): patient of each row; patients are resampled, the bins stay those of the sample.
    Raises: StatisticUndefined as `calibration_error`, or with fewer than two patients.
    """
    t, p = binary_probabilities(truth, probabilities, both_classes=False)
    binning, plan = binning or Binning(), plan or BootstrapPlan()
    codes, n_groups = group_codes(groups, t.size)
    place = binning.places(p)
    used = np.unique(place)
    inside = [(place == k).astype(np.float64) for k in used]
    draws = resample([RatioOfSums(rows * t, rows) for rows in inside], groups, plan)
    bounds = np.concatenate([[0.0], binning.edges(p), [1.0]])
    bins: list[ReliabilityBin] = []
    for k, drawn in zip(used, draws, strict=True):
        here = place == k
        n, positive = int(here.sum()), int(t[here].sum())
        share = None
        if n_groups == t.size:
            low, high = wilson(positive, n, plan.level)
            share = Estimate(positive / n, low, high, plan.level, n, Unit.PATIENT, "Wilson")
        bins.append(
            ReliabilityBin(
                low=float(bounds[k]),
                high=float(bounds[k + 1]),
                n_rows=n,
                mean_predicted=float(p[here].mean()),
                observed=positive / n,
                wilson=share,
                resampled=_band(drawn, np.unique(codes[here]).size),
            )
        )
    return tuple(bins)


def _band(drawn: Resamples, n_patients: int) -> Estimate:
    """The interval of one bin; n counts the patients in it."""
    plan = drawn.plan
    if drawn.value in (0.0, 1.0):
        words = "no interval: all in the bin are of one class"
    else:
        try:
            whole = drawn.estimate()
        except StatisticUndefined as error:
            words = f"no interval: {error.found}"
        else:
            return Estimate(
                whole.value, whole.low, whole.high, plan.level, n_patients, whole.unit, whole.method
            )
    return Estimate(drawn.value, nan, nan, plan.level, n_patients, Unit.PATIENT, words)


# ------------------------------------------------------------------ scores


def squared_errors(truth: AnyArray, probabilities: AnyArray) -> Floats:
    """(n,) whose mean is the Brier score; give `mean_of_rows` of it to the bootstrap.

    Raises: StatisticUndefined if empty, unequal, not finite or outside 0 to 1.
    """
    t, p = binary_probabilities(truth, probabilities, both_classes=False)
    return (p - t) ** 2


def log_losses(truth: AnyArray, probabilities: AnyArray) -> Floats:
    """(n,) minus log of the probability given to what was true; infinite for a sure error.

    Raises: as `squared_errors`.
    """
    t, p = binary_probabilities(truth, probabilities, both_classes=False)
    given = np.where(t, p, 1 - p)
    return -np.log(given, out=np.full(given.shape, -np.inf), where=given > 0)


def brier_score(truth: AnyArray, probabilities: AnyArray) -> float:
    """Mean squared distance of the probability from the truth; 0 is perfect.

    >>> brier_score(np.array([0, 1]), np.array([0.5, 1.0]))
    0.125
    """
    return float(squared_errors(truth, probabilities).mean())


def log_loss(truth: AnyArray, probabilities: AnyArray) -> float:
    """Mean of `log_losses` (natural logarithm); infinite as soon as one error was sure."""
    return float(log_losses(truth, probabilities).mean())


@dataclass(frozen=True, slots=True)
class BrierDecomposition:
    """brier = reliability - resolution + uncertainty + within_bins.

    reliability: distance of bins from the diagonal, 0 if calibrated. resolution: how far bins
    depart from the overall share, large is good. uncertainty: share (1 - share). within_bins: what
    binning hides (variance of predictions less twice their covariance with the truth, within
    bins); 0 when each bin holds one value, which is Murphy's form.
    """

    brier: float
    reliability: float
    resolution: float
    uncertainty: float
    within_bins: float
    bins: str

    @property
    def scaled(self) -> float:
        """1 - brier / uncertainty: 0 for the overall share given to all, 1 for a perfect one."""
        return 1 - self.brier / self.uncertainty


def brier_decomposition(
    truth: AnyArray, probabilities: AnyArray, binning: Binning | None = None
) -> BrierDecomposition:
    """The Brier score in parts; without binning each distinct probability is a bin.

    Raises: StatisticUndefined as `squared_errors`, or with one class only (no uncertainty).
    """
    t, p = binary_probabilities(truth, probabilities)
    place = np.unique(p, return_inverse=True)[1] if binning is None else binning.places(p)
    n = np.bincount(place)
    kept = n > 0
    n = n[kept]
    predicted = np.bincount(place, weights=p)[kept] / n
    observed = np.bincount(place, weights=t)[kept] / n
    share = float(t.mean())
    brier = float(((p - t) ** 2).mean())
    reliability = float((n * (predicted - observed) ** 2).sum()) / t.size
    resolution = float((n * (observed - share) ** 2).sum()) / t.size
    uncertainty = share * (1 - share)
    within = 0.0 if binning is None else brier - (reliability - resolution + uncertainty)
    words = "distinct probabilities" if binning is None else binning.words
    return BrierDecomposition(brier, reliability, resolution, uncertainty, within, words)
