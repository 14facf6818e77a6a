"""Tests of interaction: known answers, agreement with the two-group test, degenerate groups."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from scipy import special

from renalkit.errors import StatisticUndefined
from renalkit.metrics.auc_inference import unpaired_delong
from renalkit.metrics.subgroups import equal_aucs_of_groups, equal_ranks_of_groups


def group(seed: int, n: int, shift: float, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = np.arange(n) % 2 == 1
    return truth, scale * (rng.normal(size=n) + shift * truth)


def test_two_groups_give_the_square_of_the_unpaired_delong_statistic() -> None:
    one, two = group(1, 60, 0.8), group(2, 80, 1.6)
    found = equal_aucs_of_groups([one, two])
    known = unpaired_delong(one, two)
    assert found.statistic == pytest.approx(known.statistic**2)
    assert found.p_value == pytest.approx(2 * special.ndtr(-abs(known.statistic)))


def test_scores_on_other_scales_in_each_group_do_not_matter() -> None:
    groups = [group(k, 60, 1.0) for k in range(3)]
    moved = [(t, s * 10.0**k + k) for k, (t, s) in enumerate(groups)]
    assert equal_aucs_of_groups(moved).statistic == pytest.approx(
        equal_aucs_of_groups(groups).statistic
    )


def test_equal_groups_are_not_called_different_too_often() -> None:
    """400 draws of three groups with one AUC: 5 % +- 4 SE of a share."""
    rng = np.random.default_rng(0)
    truth = np.arange(60) % 2 == 1
    calls = 0
    for _ in range(400):
        groups = [(truth, k * 3 + rng.normal(size=60) + 1.1 * truth) for k in range(3)]
        p = equal_aucs_of_groups(groups).p_value
        assert p is not None
        calls += p < 0.05
    assert abs(calls / 400 - 0.05) < 4 * sqrt(0.05 * 0.95 / 400)


def test_a_group_that_fails_is_found() -> None:
    p = equal_aucs_of_groups([group(1, 100, 2.0), group(2, 100, 0.0)]).p_value
    assert p is not None
    assert p < 1e-4


def test_groups_without_a_test_say_why() -> None:
    one = group(1, 40, 1.0)
    assert "fewer than two" in equal_aucs_of_groups([one]).test
    apart = (one[0], one[0].astype(float) + 0.01 * np.arange(40))
    assert "separates" in equal_aucs_of_groups([one, apart]).test
    with pytest.raises(StatisticUndefined):
        equal_aucs_of_groups([one, (np.zeros(5), np.arange(5.0))])


def test_ranks_of_groups_known_answer() -> None:
    """R: kruskal.test(list(c(1, 2, 3, 4), c(3.5, 5, 6, 7))), H = 4.083333, p = 0.0433."""
    found = equal_ranks_of_groups([np.array([1.0, 2, 3, 4]), np.array([3.5, 5, 6, 7])])
    assert found.statistic == pytest.approx(4.083333, abs=1e-6)
    assert found.p_value == pytest.approx(0.04331, abs=5e-6)
    assert "fewer than two" in equal_ranks_of_groups([np.arange(3.0)]).test
    assert "equal" in equal_ranks_of_groups([np.ones(3), np.ones(4)]).test
    with pytest.raises(StatisticUndefined, match="NaN"):
        equal_ranks_of_groups([np.array([1.0, np.nan]), np.ones(3)])
