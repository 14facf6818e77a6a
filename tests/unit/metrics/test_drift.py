"""Shift of one variable and of all: known answers, no shift, values that are missing."""

from __future__ import annotations

from math import log

import numpy as np
import pytest

from renalkit.errors import StatisticUndefined
from renalkit.metrics.drift import separability, shift_of_categories, shift_of_numbers


def test_numbers_that_move() -> None:
    """R: ks.test(1:20, 1:20 + 5.5), D = 0.3, p = 0.3356 (exact)."""
    x = np.arange(1.0, 21)
    found = shift_of_numbers(x, x + 5.5)
    assert found.statistic == pytest.approx(0.3)
    assert found.p_value == pytest.approx(0.3356, abs=5e-5)
    assert found.smd == pytest.approx(5.5 / x.std(ddof=1))


def test_psi_by_hand_and_what_chance_gives() -> None:
    """Shares 1/2, 1/2 against 1/4, 3/4: 1/4 log 2 + 1/4 log 3/2."""
    found = shift_of_categories([50, 50], [10, 30])
    assert found.psi == pytest.approx(0.25 * log(2) + 0.25 * log(1.5))
    assert found.psi_chance == pytest.approx(1 / 100 + 1 / 40)
    assert found.test == "Pearson's chi-square test"
    empty = shift_of_categories([10, 0], [0, 10])
    assert empty.psi is not None
    assert np.isfinite(empty.psi)


def test_without_shift_psi_is_what_chance_gives() -> None:
    """Mean over 200 pairs of samples, within five standard errors."""
    rng = np.random.default_rng(0)
    found = [shift_of_numbers(rng.normal(size=300), rng.normal(size=200)) for _ in range(200)]
    psi = np.array([f.psi for f in found])
    assert abs(psi.mean() - (found[0].psi_chance or 0)) < 5 * psi.std() / np.sqrt(200)


def test_missing_and_repeated_values() -> None:
    x = np.array([1.0, np.nan, 2, 3, 4])
    assert shift_of_numbers(x, x).p_value == 1
    constant = shift_of_numbers(np.zeros(9), np.zeros(7))
    assert (constant.statistic, constant.psi, constant.smd) == (0, 0, None)
    few = shift_of_numbers(np.array([1.0, np.nan]), x)
    assert few.p_value is None
    assert "fewer than two" in few.test
    nobody = shift_of_categories([0, 0], [1, 2])
    assert (nobody.p_value, nobody.psi) == (None, None)


def facts(seed: int, n: int, shift: float) -> list[dict[str, float]]:
    rng = np.random.default_rng(seed)
    return [{"a": float(rng.normal() + shift), "b": float(rng.normal())} for _ in range(n)]


def test_cohorts_that_differ_are_told_apart_and_equal_ones_are_not() -> None:
    apart = separability(facts(1, 40, 0), facts(2, 30, 1.5), ["a", "b"], n_permutations=49)
    assert apart.auc > 0.75
    assert apart.p_value == pytest.approx(1 / 50)
    assert apart.n == 70
    same = separability(facts(3, 40, 0), facts(4, 40, 0), ["a", "b"], n_permutations=49)
    assert same.p_value > 0.02
    with pytest.raises(StatisticUndefined, match="at least 10"):
        separability(facts(1, 9, 0), facts(2, 30, 0), ["a"])
