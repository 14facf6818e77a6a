"""Calibration against other optimisers and scikit-learn, closed forms, coverage, refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special, stats
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from renalkit.domain.prediction import Unit
from renalkit.errors import StatisticUndefined
from renalkit.metrics.bootstrap import (
    AnyStatistic,
    BootstrapPlan,
    IntervalMethod,
    cluster_bootstrap,
)
from renalkit.metrics.calibration import (
    Binning,
    BinRule,
    CalibrationError,
    brier_decomposition,
    brier_score,
    calibration_error,
    log_loss,
    log_losses,
    recalibration,
    reliability_curve,
    squared_errors,
    top_label,
)

QUICK = BootstrapPlan(300, 1)
WIDE, MASS = BinRule.EQUAL_WIDTH, BinRule.EQUAL_MASS


def cohort(n: int = 200, seed: int = 0, slope: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Truths drawn from probabilities; those returned have their logits multiplied by 1/slope."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(0, 1.5, n)
    truth = (rng.random(n) < special.expit(logit)).astype(int)
    return truth, special.expit(logit / slope)


@st.composite
def predicted_cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Both classes, many ties, values on bin edges and at 0 and 1."""
    n = draw(st.integers(2, 40))
    truth = draw(
        st.lists(st.integers(0, 1), min_size=n, max_size=n).filter(lambda t: 0 < sum(t) < n)
    )
    tenths = draw(st.lists(st.integers(0, 20), min_size=n, max_size=n))
    return np.array(truth), np.array(tenths) / 20


# ---------------------------------------------------------------- slope and intercept


@pytest.mark.parametrize("seed", range(3))
def test_recalibration_is_the_maximum_of_the_likelihood(seed):
    """scipy's general optimiser, and its Hessian by differences, on the same likelihood."""
    truth, p = cohort(seed=seed, slope=0.7)
    x = special.logit(p)

    def minus_log_likelihood(b: np.ndarray) -> float:
        eta = b[0] + (b[1] if b.size == 2 else 1.0) * x
        return float(np.logaddexp(0, np.where(truth == 1, -eta, eta)).sum())

    found = recalibration(truth, p)
    both = optimize.minimize(minus_log_likelihood, np.zeros(2), method="BFGS", tol=1e-9)
    assert (found.intercept.value, found.slope.value) == pytest.approx(both.x, abs=1e-5)
    alone = optimize.minimize(minus_log_likelihood, np.zeros(1), method="BFGS", tol=1e-9)
    assert found.in_the_large.value == pytest.approx(alone.x[0], abs=1e-5)
    h = 1e-4
    e = np.eye(2) * h
    hessian = np.array(
        [
            [
                sum(
                    a * b * minus_log_likelihood(both.x + a * e[i] + b * e[j])
                    for a in (1, -1)
                    for b in (1, -1)
                )
                / (4 * h * h)
                for j in range(2)
            ]
            for i in range(2)
        ]
    )
    se = math.sqrt(np.linalg.inv(hessian)[1, 1])
    half = (found.slope.high - found.slope.low) / 2
    assert half == pytest.approx(1.959963984540054 * se, rel=1e-4)
    assert (found.slope.n, found.slope.unit) == (200, Unit.PATIENT)


def test_recalibration_of_a_table_in_closed_form():
    """Two predictions, 0.2 and 0.8, 30 of 100 and 60 of 100 positive: the line through two logits."""
    p = np.repeat([0.2, 0.8], 100)
    truth = np.concatenate([np.repeat([1, 0], [30, 70]), np.repeat([1, 0], [60, 40])])
    found = recalibration(truth, p)
    slope = (special.logit(0.6) - special.logit(0.3)) / (special.logit(0.8) - special.logit(0.2))
    assert found.slope.value == pytest.approx(slope, abs=1e-9)
    middle = (special.logit(0.6) + special.logit(0.3)) / 2
    assert found.intercept.value == pytest.approx(middle, abs=1e-9)
    # Saturated: the variance of a logit is 1 / (n p (1 - p)).
    variance = 1 / (100 * 0.3 * 0.7) + 1 / (100 * 0.6 * 0.4)
    se = math.sqrt(variance) / (special.logit(0.8) - special.logit(0.2))
    half = (found.slope.high - found.slope.low) / 2
    assert half == pytest.approx(1.959963984540054 * se, rel=1e-9)


@given(st.integers(0, 200), st.floats(0.3, 3), st.floats(-2, 2))
@settings(max_examples=25, deadline=None)
def test_stretching_the_logits_divides_the_slope(seed, factor, shift):
    truth, p = cohort(60, seed)
    a = recalibration(truth, p)
    b = recalibration(truth, special.expit(factor * special.logit(p) + shift))
    assert b.slope.value == pytest.approx(a.slope.value / factor, rel=1e-6)
    assert b.intercept.value == pytest.approx(
        a.intercept.value - a.slope.value * shift / factor, abs=1e-6
    )
    turned = recalibration(1 - truth, 1 - p)
    assert turned.slope.value == pytest.approx(a.slope.value, rel=1e-6)
    assert turned.in_the_large.value == pytest.approx(-a.in_the_large.value, abs=1e-7)


def test_slope_intervals_cover_the_truth_and_respect_patients():
    """500 cohorts of 120 patients: calibrated predictions, slope 1 and intercept 0, 93 to 97 %.

    Binomial limits at 1e-5. Six equal frames per patient: naive intervals are far too narrow.
    """
    rng = np.random.default_rng()
    held, naive = np.zeros(3), 0
    for _ in range(500):
        truth, p = cohort(120, int(rng.integers(2**31)))
        six, groups = np.repeat([truth, p], 6, axis=1), np.repeat(np.arange(120), 6)
        r = recalibration(six[0], six[1], groups)
        for k, (e, right) in enumerate(((r.slope, 1), (r.intercept, 0), (r.in_the_large, 0))):
            held[k] += e.low <= right <= e.high
        e = recalibration(six[0], six[1]).slope
        naive += e.low <= 1 <= e.high
    assert (held >= stats.binom.ppf(1e-5, 500, 0.93)).all()
    assert (held <= stats.binom.isf(1e-5, 500, 0.97)).all()
    assert naive < 0.75 * 500


def test_sandwich_by_hand_for_the_intercept_alone():
    """Predictions of 0.5 shift only: variance G/(G-1) x sum of squared patient sums / (n f (1-f))^2."""
    truth = np.array([1, 1, 0, 1, 0, 0, 1, 1])
    groups = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    p = np.array([0.4, 0.6] * 4)  # overlapping, so that the slope exists
    r = recalibration(truth, p, groups).in_the_large
    fitted = special.expit(special.logit(p) + r.value)
    sums = np.bincount(groups, weights=truth - fitted)
    variance = 4 / 3 * (sums**2).sum() / (fitted * (1 - fitted)).sum() ** 2
    assert (r.high - r.low) / 2 == pytest.approx(1.959963984540054 * math.sqrt(variance))
    assert (r.n, r.method) == (4, "logistic recalibration over 8 rows, sandwich")


# ---------------------------------------------------------------- calibration error


@given(predicted_cases(), st.sampled_from([1, 4, 10]), st.sampled_from([WIDE, MASS]))
@settings(deadline=None)
def test_calibration_error_is_the_sum_over_bins(cases, bins, rule):
    truth, p = cases
    inner = Binning(bins, rule).edges(p)
    edges = np.concatenate([[-1], inner, [2]])
    want = sum(
        abs((truth[here] - p[here]).sum()) / p.size
        for low, high in zip(edges[:-1], edges[1:], strict=True)
        for here in [(p >= low) & (p < high)]
    )
    assert calibration_error(truth, p, Binning(bins, rule)) == pytest.approx(want, abs=1e-12)
    if rule is WIDE:
        assert inner.tolist() == [k / bins for k in range(1, bins)]


def test_calibration_error_of_perfect_constant_and_wrong_predictions():
    truth = np.array([0, 0, 1, 1, 1])
    for rule in BinRule:
        assert calibration_error(truth, truth + 0.0, Binning(10, rule)) == 0
        assert calibration_error(truth, np.full(5, 0.6), Binning(10, rule)) == pytest.approx(0)
        assert calibration_error(truth, 1.0 - truth, Binning(10, rule)) == 1
    # A value on an edge belongs to the upper bin; 1 to the last.
    assert Binning(10).places(np.array([0.0, 0.1, 0.3, 0.7, 0.95, 1.0])).tolist() == [
        0,
        1,
        3,
        7,
        9,
        9,
    ]


def test_equal_mass_bins_hold_equal_numbers_and_keep_ties_together():
    p = np.random.default_rng(0).random(200)
    assert np.bincount(Binning(10, MASS).places(p)).tolist() == [20] * 10
    tied = np.repeat([0.1, 0.5, 0.9], [90, 5, 5])
    places = Binning(10, MASS).places(tied)
    assert all(np.unique(places[tied == v]).size == 1 for v in (0.1, 0.5, 0.9))


def test_calibration_error_resamples_as_the_loop():
    truth, p = cohort(80, 3)
    groups = np.repeat(np.arange(20), 4)
    edges = Binning(8, MASS).edges(p)

    def function(rows: np.ndarray) -> float:
        place = np.digitize(p[rows], edges)
        return sum(abs((truth[rows] - p[rows])[place == k].sum()) for k in range(9)) / rows.size

    fast = cluster_bootstrap(CalibrationError(truth, p, Binning(8, MASS)), groups, QUICK)
    slow = cluster_bootstrap(AnyStatistic(function, 80), groups, QUICK)
    assert (fast.value, fast.low, fast.high) == pytest.approx(
        (slow.value, slow.low, slow.high), abs=1e-12
    )


def test_top_label():
    truth = np.array([2, 0, 1])
    p = np.array([[0.2, 0.2, 0.6], [0.4, 0.4, 0.2], [0.5, 0.3, 0.2]])
    right, sure = top_label(truth, p)
    assert right.tolist() == [True, True, False]
    assert sure.tolist() == [0.6, 0.4, 0.5]
    with pytest.raises(StatisticUndefined, match="shape"):
        top_label(truth, p[:2])


# ---------------------------------------------------------------- reliability curve


def test_reliability_curve_is_scikit_learns_with_bands():
    truth, p = cohort(300, 5)
    curve = reliability_curve(truth, p, np.arange(300), Binning(10), QUICK)
    observed, predicted = calibration_curve(truth, p, n_bins=10)
    assert [b.observed for b in curve] == pytest.approx(observed, abs=1e-12)
    assert [b.mean_predicted for b in curve] == pytest.approx(predicted, abs=1e-12)
    assert sum(b.n_rows for b in curve) == 300
    for b in curve:
        assert b.low <= b.mean_predicted < b.high
        assert b.wilson is not None
        assert b.wilson.n == b.n_rows
        assert b.wilson.low <= b.observed <= b.wilson.high
        if not math.isnan(b.resampled.low):
            assert b.resampled.low <= b.observed <= b.resampled.high


def test_frames_get_bands_over_patients_only():
    truth, p = cohort(40, 6)
    rows, groups = np.repeat([truth, p], 5, axis=1), np.repeat(np.arange(40), 5)
    frames = reliability_curve(rows[0].astype(int), rows[1], groups, Binning(4), QUICK)
    patients = reliability_curve(truth, p, np.arange(40), Binning(4), QUICK)
    for f, one in zip(frames, patients, strict=True):
        assert f.wilson is None
        assert (f.n_rows, f.resampled.n) == (5 * one.n_rows, one.n_rows)
        assert (f.resampled.low, f.resampled.high) == pytest.approx(
            (one.resampled.low, one.resampled.high), nan_ok=True
        )


def test_a_bin_that_cannot_be_resampled_says_why():
    truth = np.array([0, 0, 0, 1, 0, 1])
    p = np.array([0.1, 0.1, 0.12, 0.45, 0.46, 0.9])
    low, middle, high = reliability_curve(truth, p, np.arange(6), Binning(5), QUICK)
    for b in (low, high):
        assert math.isnan(b.resampled.low)
        assert b.resampled.method == "no interval: all in the bin are of one class"
    assert low.wilson.low == 0
    assert middle.resampled.method.startswith("no interval: ")
    assert "resamples do not have the statistic" in middle.resampled.method
    bca = BootstrapPlan(300, 1, IntervalMethod.BCA)
    assert len(reliability_curve(truth, p, np.arange(6), Binning(5), bca)) == 3


# ---------------------------------------------------------------- scores


@given(predicted_cases())
@settings(deadline=None)
def test_brier_and_log_loss_are_scikit_learns(cases):
    truth, p = cases
    assert brier_score(truth, p) == pytest.approx(sk.brier_score_loss(truth, p), abs=1e-12)
    inside = np.clip(p, 0.01, 0.99)
    assert log_loss(truth, inside) == pytest.approx(sk.log_loss(truth, inside), abs=1e-12)


@given(predicted_cases(), st.sampled_from([2, 10]), st.sampled_from([WIDE, MASS]))
@settings(deadline=None)
def test_brier_falls_into_its_parts(cases, bins, rule):
    truth, p = cases
    murphy = brier_decomposition(truth, p)
    total = murphy.reliability - murphy.resolution + murphy.uncertainty
    assert total == pytest.approx(brier_score(truth, p), abs=1e-12)
    assert murphy.within_bins == 0
    binned = brier_decomposition(truth, p, Binning(bins, rule))
    place = Binning(bins, rule).places(p)
    variance = covariance = 0.0
    for k in np.unique(place):
        here = place == k
        moved = p[here] - p[here].mean()
        variance += (moved**2).sum() / p.size
        covariance += (moved * (truth[here] - truth[here].mean())).sum() / p.size
    # Stephenson, Coelho and Jolliffe 2008: within-bin variance less twice the covariance.
    assert binned.within_bins == pytest.approx(variance - 2 * covariance, abs=1e-12)
    assert binned.bins == f"{bins} {rule.value} bins"


def test_brier_of_perfect_constant_and_wrong_predictions():
    truth = np.array([0, 0, 1, 1, 1])
    perfect = brier_decomposition(truth, truth + 0.0)
    assert (perfect.brier, perfect.reliability, perfect.scaled) == (0, 0, 1)
    assert perfect.resolution == pytest.approx(perfect.uncertainty)
    constant = brier_decomposition(truth, np.full(5, 0.6))
    assert (constant.reliability, constant.resolution, constant.scaled) == pytest.approx((0, 0, 0))
    assert brier_score(truth, 1.0 - truth) == 1
    assert log_loss(truth, 1.0 - truth) == math.inf
    assert log_losses(truth, truth + 0.0).tolist() == [0] * 5
    assert squared_errors(np.ones(1), np.array([0.5])).tolist() == [0.25]


# ---------------------------------------------------------------- refusals


def refused_calls():
    truth, p = np.array([0, 1, 0, 1]), np.array([0.1, 0.2, 0.3, 0.9])
    groups = np.arange(4)
    return [
        (lambda: recalibration(truth, np.array([0.0, 0.2, 0.3, 1.0])), "2 of 4 probabilities"),
        (lambda: recalibration(truth, np.array([0.1, 0.8, 0.2, 0.9])), "separate the classes"),
        (lambda: recalibration(1 - truth, np.array([0.1, 0.8, 0.2, 0.9])), "separate the classes"),
        (lambda: recalibration(truth, np.full(4, 0.5)), "do not vary"),
        (lambda: recalibration(truth * 0, p), "one class"),
        (lambda: recalibration(truth, p, np.zeros(4)), "1 patient"),
        (lambda: recalibration(truth, p, np.zeros(3)), "groups of shape"),
        (lambda: calibration_error(truth, p + 0.5), "outside 0 to 1"),
        (lambda: calibration_error(truth, p * np.nan), "NaN"),
        (lambda: brier_decomposition(truth * 0, p), "one class"),
        (lambda: brier_score(truth, 3 * p), "outside 0 to 1"),
        (lambda: log_loss(np.array([]), np.array([])), "and a case"),
        (lambda: reliability_curve(truth, p, groups * 0), "1 patient"),
        (lambda: reliability_curve(truth, -p, groups), "outside 0 to 1"),
    ]


@pytest.mark.parametrize("place", range(14))
def test_what_cannot_be_calibrated_is_refused(place):
    call, message = refused_calls()[place]
    with pytest.raises(StatisticUndefined, match=message):
        call()


def test_no_bins_are_refused():
    with pytest.raises(ValueError, match="0 bins"):
        Binning(0)
