"""Adjusted p-values against the definition, textbook numbers and other software's digits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from renalkit.errors import StatisticUndefined
from renalkit.metrics.multiplicity import benjamini_hochberg, holm

ADJUSTMENTS = (holm, benjamini_hochberg)
P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=12).map(np.array)


def test_r_p_adjust():
    """R 4.2: p.adjust(c(0.001, 0.008, 0.039, 0.041, 0.042, 0.06, 0.074, 0.205), "holm" / "BH")."""
    p = np.array([0.001, 0.008, 0.039, 0.041, 0.042, 0.06, 0.074, 0.205])
    assert holm(p) == pytest.approx([0.008, 0.056, 0.234, 0.234, 0.234, 0.234, 0.234, 0.234])
    assert benjamini_hochberg(p) == pytest.approx(
        [0.008, 0.032, 0.0672, 0.0672, 0.0672, 0.08, 0.0845714285714286, 0.205]
    )


@given(P_VALUES)
def test_benjamini_hochberg_is_scipys(p):
    assert benjamini_hochberg(p) == pytest.approx(stats.false_discovery_control(p), abs=1e-12)


@given(P_VALUES)
def test_holm_rejects_step_by_step(p):
    """Holm's own words: from the smallest on, reject while p(k) <= alpha / (m - k + 1)."""
    for alpha in (0.01, 0.05, 0.3):
        rejected = np.zeros(p.size, dtype=bool)
        for k, place in enumerate(np.argsort(p)):
            if p[place] * (p.size - k) > alpha:
                break
            rejected[place] = True
        assert ((holm(p) <= alpha) == rejected).all()


@given(P_VALUES, st.randoms(use_true_random=False))
def test_order_does_not_matter_and_nothing_gets_smaller(p, random):
    order = list(range(p.size))
    random.shuffle(order)
    for adjust in ADJUSTMENTS:
        assert (adjust(p)[order] == adjust(p[order])).all()
        assert (p <= adjust(p) + 1e-15).all()
        assert (adjust(p) <= 1).all()
    assert (benjamini_hochberg(p) <= holm(p) + 1e-15).all()


@pytest.mark.parametrize("adjust", ADJUSTMENTS)
def test_one_p_value_stays_and_bad_ones_are_refused(adjust):
    assert adjust(np.array([0.03])).tolist() == [0.03]
    for bad in ([], [0.1, np.nan], [0.1, 1.1], [-0.1], [[0.1]]):
        with pytest.raises(StatisticUndefined, match="p-values"):
            adjust(np.array(bad))
