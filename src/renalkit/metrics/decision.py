"""Would acting on the prediction do patients more good than operating on all of them, or on none?

Net benefit counts true positives and takes off false positives at the price the threshold states:
who acts at a probability of 20 % holds one missed disease as bad as four needless operations. Rows
are patients (take `patient_means` of frames first), probabilities those of the positive class, the
one that is operated on; they must be calibrated, for the threshold is compared with them.

Source: Vickers and Elkin 2006, Med Decis Making 26:565; intervals: patients resampled. Compared
with the package dcurves (validation/).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from renalkit.domain.prediction import Unit
from renalkit.errors import StatisticUndefined
from renalkit.metrics.bootstrap import BootstrapPlan, RatioOfSums, Resamples, mean_of_rows, resample
from renalkit.metrics.classification import AnyArray, Floats, binary_probabilities
from renalkit.metrics.inference import Estimate


def net_benefit(truth: AnyArray, probabilities: AnyArray, threshold: float) -> RatioOfSums:
    """(true positives - false positives x odds of the threshold) / n, as a resampled statistic.

    truth (n,) 0/1; positive calls are those at or above the threshold, which is in (0, 1). Compare
    two models by `paired_cluster_bootstrap` of theirs.

    Raises: StatisticUndefined for values outside 0 to 1 or as `auc` (one class is enough);
    ValueError for a threshold outside (0, 1).

    >>> nb = net_benefit(np.array([0, 0, 1, 1]), np.array([0.1, 0.6, 0.4, 0.9]), 0.5)
    >>> float(nb.numerator.mean())
    0.0
    """
    t, p, odds = _checked(truth, probabilities, threshold)
    return mean_of_rows(np.where(p >= threshold, np.where(t, 1.0, -odds), 0.0))


def treat_all(truth: AnyArray, threshold: float) -> RatioOfSums:
    """Net benefit of acting on every patient; that of acting on none is 0."""
    return net_benefit(truth, np.ones(len(truth)), threshold)


def interventions_avoided(
    truth: AnyArray, probabilities: AnyArray, threshold: float
) -> RatioOfSums:
    """Interventions saved per 100 patients, against acting on all, at no loss of benefit.

    (net benefit of the model - of acting on all) / odds of the threshold x 100
    = 100 x (true negatives - false negatives / odds) / n. Below 0 the model does harm.
    Arguments and errors as `net_benefit`.
    """
    t, p, odds = _checked(truth, probabilities, threshold)
    return mean_of_rows(np.where(p >= threshold, 0.0, np.where(t, -100 / odds, 100.0)))


@dataclass(frozen=True, slots=True)
class DecisionCurve:
    """Net benefit by threshold (K,), of the model and of acting on all; acting on none is 0.

    avoided: interventions avoided per 100 patients against acting on all.
    """

    thresholds: Floats
    model: tuple[Estimate, ...]
    treat_all: tuple[Estimate, ...]
    avoided: tuple[Estimate, ...]


def decision_curve(
    truth: AnyArray,
    probabilities: AnyArray,
    thresholds: Floats,
    groups: AnyArray,
    plan: BootstrapPlan | None = None,
) -> DecisionCurve:
    """Net benefit at each threshold with intervals over patients, on the same resamples throughout.

    thresholds (K,) in (0, 1), those at which some patient would reasonably decide; groups (n,)
    patients. A model that calls no one has net benefit 0 in every resample, an interval of 0 to 0.

    Raises: as `net_benefit` and `resample`; StatisticUndefined without a threshold.
    """
    cuts = np.asarray(thresholds, dtype=np.float64)
    if cuts.ndim != 1 or cuts.size == 0:
        raise StatisticUndefined(f"thresholds of shape {cuts.shape}", expected="at least one")
    statistics = [net_benefit(truth, probabilities, float(c)) for c in cuts]
    statistics += [treat_all(truth, float(c)) for c in cuts]
    statistics += [interventions_avoided(truth, probabilities, float(c)) for c in cuts]
    found = [_estimate(r) for r in resample(statistics, groups, plan)]
    k = cuts.size
    return DecisionCurve(cuts, tuple(found[:k]), tuple(found[k : 2 * k]), tuple(found[2 * k :]))


def _estimate(drawn: Resamples) -> Estimate:
    if drawn.value == 0 and not drawn.draws.any():  # acting on no one
        plan = drawn.plan
        words = f"{drawn.how}, the same in all, seed {plan.seed}"
        return Estimate(0.0, 0.0, 0.0, plan.level, drawn.n, Unit.PATIENT, words)
    return drawn.estimate()


def _checked(
    truth: AnyArray, probabilities: AnyArray, threshold: float
) -> tuple[np.ndarray[tuple[int], np.dtype[np.bool_]], Floats, float]:
    if not 0 < threshold < 1:
        raise ValueError(f"threshold {threshold}: expected a probability between 0 and 1")
    t, p = binary_probabilities(truth, probabilities, both_classes=False)
    return t, p, threshold / (1 - threshold)
