"""Contrast uptake of simulated tissues: features move what they should, nothing else."""

import math

import numpy as np
import pytest

from renalkit.ceus.bolus import BolusKind, curve_values
from renalkit.phantom.ceus.perfusion import draw_perfusion, enhancement
from renalkit.phantom.levels import CEUS_FEATURES


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
