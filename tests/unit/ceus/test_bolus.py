"""Bolus curves: the figures agree with the curves they describe, whatever the parameters."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from renalkit.ceus.bolus import (
    BolusKind,
    GammaVariate,
    Lognormal,
    bolus_of,
    curve_values,
    mixture_values,
)

positive = st.floats(0.2, 5.0)
lognormals = st.builds(
    Lognormal,
    area=st.floats(1.0, 500.0),
    mu=st.floats(1.5, 4.0),
    sigma=st.floats(0.25, 1.2),
    arrival_s=st.floats(0.0, 20.0),
    offset=st.floats(0.0, 3.0),
)
gammas = st.builds(
    GammaVariate,
    amplitude=st.floats(0.1, 5.0),
    alpha=st.floats(1.2, 6.0),
    beta_s=st.floats(0.5, 10.0),
    arrival_s=st.floats(0.0, 20.0),
    offset=st.floats(0.0, 3.0),
)


def test_published_figures_of_a_lognormal_bolus():
    values = curve_values(Lognormal(300.0, 3.2, 0.6, 0.0))
    assert values.peak == pytest.approx(9.7344, abs=5e-5)
    assert values.peak_at_s == pytest.approx(17.1158, abs=5e-5)
    assert values.transit_s == pytest.approx(29.3708, abs=5e-5)
    assert values.rise_rate == pytest.approx(1.15648, abs=5e-6)
    assert values.rise_rate_at_s == pytest.approx(7.6414, abs=5e-5)
    assert values.fall_rate == pytest.approx(-0.34219, abs=5e-6)
    assert values.fall_rate_at_s == pytest.approx(26.7469, abs=5e-5)
    assert values.wash_in == pytest.approx(82.276, abs=5e-4)
    assert values.wash_in + values.wash_out == pytest.approx(300.0, rel=1e-12)
    assert values.rise_s == pytest.approx(9.7344 / 1.15648, rel=1e-4)
    assert values.wash_in_index == pytest.approx(82.276 / values.rise_s, rel=1e-4)


@settings(max_examples=50, deadline=None)
@given(lognormals)
def test_lognormal_figures_follow_the_published_formulas(bolus):
    values = curve_values(bolus)
    area, mu, s = bolus.area, bolus.mu, bolus.sigma

    def slope_at(x):
        power = (
            area
            / (math.sqrt(2 * math.pi) * s * x)
            * math.exp(-((math.log(x) - mu) ** 2) / (2 * s * s))
        )
        return -power / x * (1 + (math.log(x) - mu) / s**2)

    bend = s / 2 * math.sqrt(s * s + 4)
    rise_at, fall_at = (math.exp(mu - 1.5 * s * s + sign * bend) for sign in (-1, 1))
    peak = area / (math.sqrt(2 * math.pi) * s) * math.exp(s * s / 2 - mu)
    wanted = {
        "peak": peak,
        "peak_at_s": bolus.arrival_s + math.exp(mu - s * s),
        "transit_s": math.exp(mu + s * s / 2),
        "wash_in": area * math.erfc(s / math.sqrt(2)) / 2,
        "wash_out": area * math.erfc(-s / math.sqrt(2)) / 2,
        "rise_rate": slope_at(rise_at),
        "rise_rate_at_s": bolus.arrival_s + rise_at,
        "fall_rate": slope_at(fall_at),
        "fall_rate_at_s": bolus.arrival_s + fall_at,
        "rise_s": peak / slope_at(rise_at),
        "fall_s": -peak / slope_at(fall_at),
    }
    for name, value in wanted.items():
        assert getattr(values, name) == pytest.approx(value, rel=1e-6), name


@settings(max_examples=50, deadline=None)
@given(st.one_of(lognormals, gammas))
def test_figures_describe_the_curve(bolus):
    values = curve_values(bolus)
    t0 = bolus.arrival_s
    x = np.linspace(1e-3, 3 * (values.fall_rate_at_s - t0), 4001)
    curve = bolus.power(t0 + x) - bolus.offset
    assert values.peak >= curve.max() * (1 - 1e-12)
    assert values.peak == pytest.approx(curve.max(), rel=1e-3)
    slope = bolus.slope(t0 + x)
    assert values.rise_rate >= slope.max() * (1 - 1e-9)
    assert values.fall_rate <= slope.min() * (1 - 1e-9)
    step = 1e-6
    difference = (bolus.power(t0 + 5 + step) - bolus.power(t0 + 5 - step)) / (2 * step)
    assert bolus.slope(t0 + 5) == pytest.approx(difference, rel=1e-4, abs=1e-6 * values.peak)
    area = quad(lambda t: float(bolus.power(t)) - bolus.offset, t0, values.peak_at_s)[0]
    assert values.wash_in == pytest.approx(area, rel=1e-5)
    assert bolus.power(t0 - 1.0) == pytest.approx(bolus.offset, abs=1e-9)


@settings(max_examples=15, deadline=None)
@given(gammas)
def test_mean_transit_of_a_gamma_variate_is_its_first_moment(bolus):
    t0, end = bolus.arrival_s, bolus.arrival_s + 60 * bolus.beta_s
    grid = np.linspace(t0, end, 20_001)
    curve = bolus.power(grid) - bolus.offset
    moment = np.trapezoid(curve * (grid - t0), grid) / np.trapezoid(curve, grid)
    assert curve_values(bolus).transit_s == pytest.approx(moment, rel=1e-4)
    assert bolus.total() == pytest.approx(np.trapezoid(curve, grid), rel=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.one_of(lognormals, gammas), positive)
def test_a_mixture_of_one_is_that_one_scaled(bolus, weight):
    one, mixed = curve_values(bolus), mixture_values([(weight, bolus)])
    for name in ("arrival_s", "peak_at_s", "transit_s", "rise_s", "fall_s"):
        assert getattr(mixed, name) == pytest.approx(getattr(one, name), rel=1e-6)
    for name in ("peak", "wash_in", "wash_out", "rise_rate", "fall_rate", "wash_in_index"):
        assert getattr(mixed, name) == pytest.approx(weight * getattr(one, name), rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(lognormals, lognormals, positive)
def test_a_mixture_has_the_moments_of_the_sum(one, other, weight):
    mixed = mixture_values([(1.0, one), (weight, other), (0.0, other)])
    areas = np.array([one.area, weight * other.area])
    moments = [v.arrival_s + v.transit_s for v in (curve_values(one), curve_values(other))]
    assert mixed.arrival_s + mixed.transit_s == pytest.approx(areas @ moments / areas.sum())
    grid = np.linspace(0, 200, 4001)
    total = one.power(grid) + weight * other.power(grid) - one.offset - weight * other.offset
    assert mixed.peak >= total.max() * (1 - 1e-9)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(BolusKind), positive, st.floats(0, 20), st.floats(3, 15), st.floats(1.2, 6))
def test_a_bolus_has_the_peak_and_transit_asked_for(kind, peak, arrival, rise, ratio):
    values = curve_values(bolus_of(kind, peak, arrival, rise, rise * ratio))
    assert values.peak == pytest.approx(peak)
    assert values.peak_at_s == pytest.approx(arrival + rise)
    if kind is BolusKind.LOGNORMAL:
        assert values.transit_s == pytest.approx(rise * ratio)
    else:
        assert rise < values.transit_s < 2 * rise


@pytest.mark.parametrize(
    "make",
    [
        lambda: bolus_of(BolusKind.LOGNORMAL, 1.0, 0.0, 8.0, 8.0),
        lambda: bolus_of(BolusKind.LOGNORMAL, 0.0, 0.0, 8.0, 20.0),
        lambda: bolus_of(BolusKind.GAMMA, 1.0, 0.0, 0.0, 20.0),
        lambda: Lognormal(-1.0, 1.0, 0.5, 0.0),
        lambda: Lognormal(1.0, 1.0, 0.0, 0.0),
        lambda: GammaVariate(1.0, 1.0, 2.0, 0.0),
        lambda: mixture_values([(0.0, Lognormal(1.0, 1.0, 0.5, 0.0))]),
    ],
)
def test_impossible_curves_are_refused(make):
    with pytest.raises(ValueError, match=r"bolus|weight"):
        make()
