"""Bolus curves: the figures agree with the curves they describe, whatever the parameters."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from renalkit.phantom.ceus.perfusion import (
    BolusKind,
    GammaVariate,
    Lognormal,
    bolus_of,
    curve_values,
    draw_perfusion,
    enhancement,
    mixture_values,
)
from renalkit.phantom.levels import CEUS_FEATURES

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


def test_each_feature_moves_its_own_figure_in_the_stated_direction():
    assert CEUS_FEATURES == ("peak", "arrival", "washout", "unevenness")
    names = ("peak_ratio", "delay_s", "transit_ratio", "unevenness")
    for index, (name, sign) in enumerate(zip(names, (1, -1, -1, 1), strict=True)):
        found = []
        for value in np.linspace(-3, 3, 13):
            features = np.zeros(4)
            features[index] = value
            shown = enhancement(features)
            found.append(getattr(shown, name))
            assert all(
                getattr(shown, other) == getattr(enhancement(np.zeros(4)), other)
                for other in names
                if other != name
            )
        assert (np.diff(found) * sign > 0).all()


@pytest.mark.parametrize("kind", BolusKind)
def test_tissues_enhance_in_the_order_of_a_kidney(kind):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        mass = enhancement(rng.standard_normal(4))
        perfusion = draw_perfusion("right", mass, rng, kind)
        names = ("artery", "cortex", "outer_medulla", "inner_medulla")
        values = [curve_values(getattr(perfusion, name)) for name in names]
        assert [v.arrival_s for v in values] == sorted(v.arrival_s for v in values)
        assert [v.peak_at_s for v in values] == sorted(v.peak_at_s for v in values)
        cortex = values[1]
        assert cortex.peak == pytest.approx(1.0)
        lesion = curve_values(perfusion.lesion.bolus)
        assert lesion.peak == pytest.approx(mass.peak_ratio)
        assert lesion.arrival_s - cortex.arrival_s == pytest.approx(mass.delay_s)
        if kind is BolusKind.LOGNORMAL and not math.isclose(
            lesion.transit_s, 1.3 * (lesion.peak_at_s - lesion.arrival_s)
        ):
            assert lesion.transit_s / cortex.transit_s == pytest.approx(mass.transit_ratio)


def test_the_mass_does_not_change_the_other_tissues():
    with_mass, without = (
        draw_perfusion("left", mass, np.random.default_rng(3))
        for mass in (enhancement([1.0, 0.5, -1.0, 0.3]), None)
    )
    assert without.lesion is None
    assert with_mass.cortex == without.cortex
    assert with_mass.neighbour == without.neighbour
