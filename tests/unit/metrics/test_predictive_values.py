"""Predictive values and likelihood ratios: Bayes, delta method by differences, zero counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from renalkit.domain.prediction import Unit
from renalkit.errors import StatisticUndefined
from renalkit.metrics.bootstrap import cluster_bootstrap
from renalkit.metrics.classification import BinaryConfusion
from renalkit.metrics.predictive_values import (
    PredictiveValueAt,
    likelihood_ratios,
    predictive_values,
)

Z = 1.959963984540054
APOE4 = BinaryConfusion(tp=240, fn=178, fp=87, tn=288)
"""Alzheimer's disease and the ApoE e4 allele: the example of Mercaldo, Lau and Zhou 2007."""

COUNT = st.integers(1, 60)


def ppv_of(se: float, sp: float, prevalence: float) -> float:
    return se * prevalence / (se * prevalence + (1 - sp) * (1 - prevalence))


def npv_of(se: float, sp: float, prevalence: float) -> float:
    return sp * (1 - prevalence) / (sp * (1 - prevalence) + (1 - se) * prevalence)


@pytest.mark.parametrize("prevalence", [0.03, 0.5, 0.8])
def test_interval_is_the_delta_method_on_the_logit_scale(prevalence):
    """Derivatives of the logit by differences, not by the formula of the paper."""
    se, sp, n_pos, n_neg = 240 / 418, 288 / 375, 418, 375
    found = predictive_values(APOE4, prevalence)
    for estimate, function in ((found.ppv, ppv_of), (found.npv, npv_of)):

        def logit(a: float, b: float, f=function) -> float:
            p = f(a, b, prevalence)
            return math.log(p / (1 - p))

        h = 1e-6
        by_se = (logit(se + h, sp) - logit(se - h, sp)) / (2 * h)
        by_sp = (logit(se, sp + h) - logit(se, sp - h)) / (2 * h)
        sd = math.sqrt(by_se**2 * se * (1 - se) / n_pos + by_sp**2 * sp * (1 - sp) / n_neg)
        ends = [1 / (1 + math.exp(-(logit(se, sp) + sign * Z * sd))) for sign in (-1, 1)]
        assert estimate.value == pytest.approx(function(se, sp, prevalence), abs=1e-12)
        assert (estimate.low, estimate.high) == pytest.approx(ends, abs=1e-7)
        assert (estimate.n, estimate.unit) == (793, Unit.PATIENT)
    assert found.ppv.method == f"logit, Mercaldo 2007, prevalence {prevalence:g}"


@given(COUNT, COUNT, COUNT, COUNT)
def test_at_the_studys_own_share_they_are_the_studys_own(tp, fn, fp, tn):
    counts = BinaryConfusion(tp=tp, fn=fn, fp=fp, tn=tn)
    found = predictive_values(counts, (tp + fn) / counts.n)
    assert found.ppv.value == pytest.approx(counts.ppv.value)
    assert found.npv.value == pytest.approx(counts.npv.value)
    # Turning positive and negative round swaps the two.
    turned = predictive_values(BinaryConfusion(tp=tn, fn=fp, fp=fn, tn=tp), (fp + tn) / counts.n)
    assert turned.npv.value == pytest.approx(found.ppv.value)
    assert turned.npv.low == pytest.approx(found.ppv.low)


def test_rarer_disease_lowers_ppv_and_raises_npv():
    values = [predictive_values(APOE4, p) for p in (0.01, 0.1, 0.5, 0.9)]
    assert np.all(np.diff([v.ppv.value for v in values]) > 0)
    assert np.all(np.diff([v.npv.value for v in values]) < 0)


def test_a_count_of_0_widens_to_the_estimate_and_says_so():
    found = predictive_values(BinaryConfusion(tp=20, fn=3, fp=0, tn=30), 0.3)
    assert (found.ppv.value, found.ppv.high) == (1, 1)
    assert 0.5 < found.ppv.low < 1
    assert found.ppv.method.endswith("adjusted for a count of 0")
    # Agresti-Coull counts on both sides: (20 + z^2/2) of (23 + z^2) and z^2/2 of (30 + z^2).
    add = Z * Z / 2
    p, q = (20 + add) / (23 + 2 * add), add / (30 + 2 * add)
    centre = math.log(0.3 / 0.7 * p / q)
    sd = math.sqrt((1 - p) / (p * (23 + 2 * add)) + (1 - q) / (q * (30 + 2 * add)))
    assert found.ppv.low == pytest.approx(1 / (1 + math.exp(-(centre - Z * sd))))
    perfect = predictive_values(BinaryConfusion(tp=10, fn=0, fp=0, tn=10), 0.5)
    assert (perfect.ppv.value, perfect.npv.value) == (1, 1)


def test_coverage_near_its_level():
    """2000 studies of 60 + 60 patients, sensitivity 0.8, specificity 0.9, prevalence 0.2."""
    rng = np.random.default_rng(1)
    truth = ppv_of(0.8, 0.9, 0.2), npv_of(0.8, 0.9, 0.2)
    held = np.zeros(2)
    for tp, tn in zip(rng.binomial(60, 0.8, 2000), rng.binomial(60, 0.9, 2000), strict=True):
        v = predictive_values(BinaryConfusion(tp=tp, fn=60 - tp, fp=60 - tn, tn=tn), 0.2)
        held += [v.ppv.low <= truth[0] <= v.ppv.high, v.npv.low <= truth[1] <= v.npv.high]
    assert np.all((held / 2000 > 0.93) & (held / 2000 < 0.985))


@given(COUNT, COUNT, COUNT, COUNT)
def test_likelihood_ratios_turn_prior_odds_into_posterior_odds(tp, fn, fp, tn):
    counts = BinaryConfusion(tp=tp, fn=fn, fp=fp, tn=tn)
    ratios = likelihood_ratios(counts)
    values = predictive_values(counts, 0.25)
    odds = values.ppv.value / (1 - values.ppv.value)
    assert ratios.positive.value / 3 == pytest.approx(odds)
    missed = (1 - values.npv.value) / values.npv.value
    assert ratios.negative.value / 3 == pytest.approx(missed)
    assert ratios.positive.low <= ratios.positive.value <= ratios.positive.high


def test_likelihood_ratio_interval_by_hand():
    """Sensitivity 8/10, specificity 15/20: LR+ 3.2, var(log) = 1/8 - 1/10 + 1/5 - 1/20 = 0.175."""
    found = likelihood_ratios(BinaryConfusion(tp=8, fn=2, fp=5, tn=15), Unit.LESION).positive
    half = Z * math.sqrt(0.175)
    assert found.value == pytest.approx(3.2)
    assert (found.low, found.high) == pytest.approx((3.2 * math.exp(-half), 3.2 * math.exp(half)))
    assert found.unit is Unit.LESION


def test_likelihood_ratios_with_a_count_of_0():
    found = likelihood_ratios(BinaryConfusion(tp=20, fn=0, fp=0, tn=30))
    assert (found.positive.value, found.positive.high) == (math.inf, math.inf)
    assert 1 < found.positive.low < math.inf
    assert (found.negative.value, found.negative.low) == (0, 0)
    assert 0 < found.negative.high < 1
    assert found.positive.method.endswith("0.5 added for a count of 0")


def test_what_does_not_exist_is_refused():
    for function in (lambda c, u: predictive_values(c, 0.3, u), likelihood_ratios):
        for counts, unit, message in (
            (BinaryConfusion(5, 0, 0, 5), Unit.PATIENT, "10 positive and 0 negative"),
            (BinaryConfusion(0, 0, 8, 2), Unit.PATIENT, "no call of this kind"),
            (BinaryConfusion(5, 3, 8, 2), Unit.FRAME, "frames as independent"),
        ):
            with pytest.raises(StatisticUndefined, match=message):
                function(counts, unit)
    for prevalence in (0, 1, math.nan):
        with pytest.raises(ValueError, match="prevalence"):
            predictive_values(APOE4, prevalence)


@pytest.mark.parametrize("prevalence", [0.05, 0.5, 0.7])
def test_over_rows_the_value_is_the_same_and_the_interval_is_near(prevalence):
    """793 rows, each a patient: the bootstrap must come near the delta method."""
    counts = (APOE4.tp, APOE4.fn, APOE4.fp, APOE4.tn)
    truth, called = (np.repeat(kind, counts) for kind in ([1, 1, 0, 0], [1, 0, 1, 0]))
    found = predictive_values(APOE4, prevalence)
    for negative, expected in ((False, found.ppv), (True, found.npv)):
        value = PredictiveValueAt(truth, called, prevalence, negative)
        e = cluster_bootstrap(value, np.arange(truth.size))
        assert e.value == pytest.approx(expected.value, abs=1e-12)
        width = expected.high - expected.low
        assert e.low == pytest.approx(expected.low, abs=0.1 * width)
        assert e.high == pytest.approx(expected.high, abs=0.1 * width)


def test_over_rows_without_a_positive_call_there_is_no_ppv():
    value = PredictiveValueAt(np.array([1, 0, 1, 0]), np.zeros(4), 0.3)
    with pytest.raises(StatisticUndefined, match="does not exist"):
        cluster_bootstrap(value, np.arange(4))
