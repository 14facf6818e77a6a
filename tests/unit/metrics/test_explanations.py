"""Figures of activation maps: known answers, bounds and what does not exist."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from renalkit.metrics.explanations import curve_area, inside_share, rank_correlation

SEEDS = st.integers(0, 2**32 - 1)


@given(SEEDS)
def test_shares_of_a_region_and_of_the_rest_make_one(seed: int):
    rng = np.random.default_rng(seed)
    values, region = rng.random((7, 9)), rng.random((7, 9)) < 0.4
    share = inside_share(values, region)
    assert 0 <= share <= 1
    assert share + inside_share(values, ~region) == pytest.approx(1)
    assert share == pytest.approx(inside_share(3.5 * values, region))


def test_an_even_map_has_the_share_of_the_area():
    region = np.zeros((4, 5), np.bool_)
    region[1:3, 1:4] = True
    assert inside_share(np.full((4, 5), 0.2), region) == pytest.approx(6 / 20)
    assert inside_share(region.astype(float), region) == 1
    assert inside_share(1.0 - region, region) == 0


def test_an_empty_map_has_no_share():
    assert np.isnan(inside_share(np.zeros((2, 2)), np.ones((2, 2), np.bool_)))


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_a_map_with_values_that_are_none_is_refused(bad: float):
    values = np.ones((2, 2))
    values[0, 1] = bad
    with pytest.raises(ValueError, match="negative, NaN or infinite"):
        inside_share(values, np.ones((2, 2), np.bool_))


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="a region"):
        inside_share(np.ones((2, 3)), np.ones((3, 2), np.bool_))
    with pytest.raises(ValueError, match="shapes"):
        rank_correlation(np.ones((2, 3)), np.ones((3, 2)))


def test_areas_of_straight_lines():
    assert curve_area(np.array([1.0, 0.0])) == 0.5
    assert curve_area(np.array([0.3, 0.3, 0.3])) == pytest.approx(0.3)
    assert curve_area(np.array([0.0, 1.0, 1.0])) == 0.75


@pytest.mark.parametrize("scores", [[1.0], [0.5, np.nan]])
def test_no_area_without_two_finite_scores(scores: list[float]):
    with pytest.raises(ValueError, match="finite"):
        curve_area(np.array(scores))


@given(SEEDS)
def test_rank_correlation_is_that_of_scipy(seed: int):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 5, (2, 30)).astype(float)
    a[:2], b[:2] = (0, 1), (1, 3)
    wanted = stats.spearmanr(a, b).statistic
    assert rank_correlation(a.reshape(5, 6), b.reshape(5, 6)) == pytest.approx(wanted, abs=1e-12)


def test_rank_correlation_sees_only_order():
    values = np.random.default_rng(0).random((4, 4))
    assert rank_correlation(values, np.exp(values)) == pytest.approx(1)
    assert rank_correlation(values, -values) == pytest.approx(-1)
    assert np.isnan(rank_correlation(values, np.ones((4, 4))))
    with pytest.raises(ValueError, match="NaN or infinite"):
        rank_correlation(values, np.full((4, 4), np.nan))
