"""What does a positive or a negative call mean for a patient, where the disease is this common?

A study's own PPV and NPV hold for its own share of positives only. Predictive values for another
prevalence follow from sensitivity and specificity; likelihood ratios need no prevalence at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, inf, log, sqrt

import numpy as np
from scipy import special

from renalkit.domain.prediction import Unit
from renalkit.errors import StatisticUndefined
from renalkit.metrics.bootstrap import Codes, Evaluate, RatioOfSums
from renalkit.metrics.classification import AnyArray, BinaryConfusion, Floats
from renalkit.metrics.inference import Estimate, normal_quantile, refuse_frames


@dataclass(frozen=True, slots=True)
class PredictiveValues:
    """PPV and NPV at a stated prevalence."""

    prevalence: float
    ppv: Estimate
    npv: Estimate


@dataclass(frozen=True, slots=True)
class LikelihoodRatios:
    """positive: by how much a positive call multiplies the odds of disease; negative likewise."""

    positive: Estimate
    negative: Estimate


def predictive_values(
    counts: BinaryConfusion,
    prevalence: float,
    unit: Unit = Unit.PATIENT,
    level: float = 0.95,
) -> PredictiveValues:
    """PPV and NPV at a given prevalence, with the logit interval of Mercaldo, Lau and Zhou 2007.

    Stat Med 26:2170, eq. 8-11. The prevalence is taken as known. If a count is 0 the variance comes
    from their adjusted counts (z^2/2 added to each, section 2.2), and the interval is widened to
    hold the estimate; method says so.

    Raises: StatisticUndefined without a positive or a negative case, for frames, or where no call
    of that kind can occur (sensitivity 0 and specificity 1); ValueError for a prevalence outside
    (0, 1).
    """
    if not 0 < prevalence < 1:
        raise ValueError(f"prevalence {prevalence}: expected a number between 0 and 1")
    n_pos, n_neg = _class_sizes(counts, unit)
    odds = prevalence / (1 - prevalence)
    z = normal_quantile(level)
    add = z * z / 2 if 0 in (counts.tp, counts.fn, counts.fp, counts.tn) else 0.0
    words = f"logit, Mercaldo 2007, prevalence {prevalence:g}"
    words += ", adjusted for a count of 0" if add else ""

    def one(right: int, right_of: int, wrong: int, wrong_of: int, prior: float) -> Estimate:
        """Odds prior x (right/right_of) / (wrong/wrong_of), as a share."""
        if right + wrong == 0:
            raise StatisticUndefined(
                "no call of this kind: its predictive value does not exist",
                expected="at least one positive and one negative call",
            )
        share = prior * right / right_of
        value = share / (share + wrong / wrong_of)
        p, q = (right + add) / (right_of + 2 * add), (wrong + add) / (wrong_of + 2 * add)
        centre = log(prior * p / q)
        se = sqrt((1 - p) / (p * (right_of + 2 * add)) + (1 - q) / (q * (wrong_of + 2 * add)))
        low, high = (float(special.expit(centre + sign * z * se)) for sign in (-1, 1))
        return Estimate(value, min(low, value), max(high, value), level, counts.n, unit, words)

    return PredictiveValues(
        prevalence,
        ppv=one(counts.tp, n_pos, counts.fp, n_neg, odds),
        npv=one(counts.tn, n_neg, counts.fn, n_pos, 1 / odds),
    )


@dataclass(frozen=True, slots=True)
class PredictiveValueAt:
    """PPV, or NPV, at a given prevalence as a `bootstrap.Statistic`, for rows that are frames.

    truth (n,) 0/1, called (n,) 0/1. From sensitivity and specificity over the rows by Bayes' rule;
    for rows that are patients use `predictive_values`.
    """

    truth: AnyArray
    called: AnyArray
    prevalence: float
    negative: bool = False

    @property
    def n_rows(self) -> int:
        return len(self.truth)

    def prepare(self, codes: Codes, n_groups: int) -> Evaluate:
        t, c = np.asarray(self.truth) == 1, np.asarray(self.called) == 1
        prior = self.prevalence / (1 - self.prevalence)
        if self.negative:
            t, c, prior = ~t, ~c, 1 / prior
        right = RatioOfSums(1.0 * (t & c), 1.0 * t).prepare(codes, n_groups)
        wrong = RatioOfSums(1.0 * (~t & c), 1.0 * ~t).prepare(codes, n_groups)

        def evaluate(counts: Floats) -> Floats:
            share = prior * right(counts)
            called = share + wrong(counts)
            return np.divide(share, called, out=np.full_like(called, np.nan), where=called != 0)

        return evaluate


def likelihood_ratios(
    counts: BinaryConfusion, unit: Unit = Unit.PATIENT, level: float = 0.95
) -> LikelihoodRatios:
    """Sensitivity / (1 - specificity) and (1 - sensitivity) / specificity.

    Log interval of Simel, Samsa and Matchar 1991, J Clin Epidemiol 44:763. A ratio with a count of
    0 is 0 or infinite; its interval then comes from counts with 0.5 added, and reaches the value.

    Raises: StatisticUndefined without a positive or a negative case, for frames, or for 0/0.
    """
    n_pos, n_neg = _class_sizes(counts, unit)
    z = normal_quantile(level)

    def one(of_pos: int, of_neg: int) -> Estimate:
        if of_pos == 0 and of_neg == 0:
            raise StatisticUndefined(
                "no call of this kind: its likelihood ratio is 0/0",
                expected="at least one positive and one negative call",
            )
        value = (of_pos / n_pos) / (of_neg / n_neg) if of_neg else inf
        zero = 0 in (of_pos, of_neg)
        add = 0.5 if zero else 0.0
        a, b, m, n = of_pos + add, of_neg + add, n_pos + 2 * add, n_neg + 2 * add
        half = z * sqrt(1 / a - 1 / m + 1 / b - 1 / n)
        ratio = (a / m) / (b / n)
        low, high = min(value, ratio * exp(-half)), max(value, ratio * exp(half))
        words = "log interval, Simel 1991" + (", 0.5 added for a count of 0" if zero else "")
        return Estimate(value, low, high, level, counts.n, unit, words)

    return LikelihoodRatios(one(counts.tp, counts.fp), one(counts.fn, counts.tn))


def _class_sizes(counts: BinaryConfusion, unit: Unit) -> tuple[int, int]:
    refuse_frames(unit)
    n_pos, n_neg = counts.tp + counts.fn, counts.fp + counts.tn
    if min(n_pos, n_neg) == 0:
        raise StatisticUndefined(
            f"{n_pos} positive and {n_neg} negative cases",
            expected="at least one of each: sensitivity and specificity are needed",
        )
    return n_pos, n_neg
