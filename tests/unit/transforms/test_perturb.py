"""Deletion and insertion: ends, order, and how much changes at each step."""

from __future__ import annotations

import numpy as np
import pytest

from renalkit.transforms.perturb import blurred, ranked, replaced


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (3, 10, 12)).astype(np.uint8)


def test_the_ends_are_the_two_pictures():
    first, second = picture(1), blurred(picture(1))
    found = replaced(first, second, ranked(np.random.default_rng(2).random((10, 12))), 7)
    assert found.shape == (8, 3, 10, 12)
    np.testing.assert_array_equal(found[0], first)
    np.testing.assert_array_equal(found[-1], second)


def test_the_highest_places_go_first_in_all_channels():
    values = np.arange(120.0).reshape(10, 12)
    first, second = np.zeros((3, 10, 12), np.uint8), np.full((3, 10, 12), 9, np.uint8)
    found = replaced(first, second, ranked(values), 10)
    for step in range(11):
        changed = found[step] == 9
        assert (changed == changed[0]).all()
        np.testing.assert_array_equal(changed[0], values >= 120 - 12 * step)


def test_ties_are_in_no_order_of_rows_but_the_same_each_time():
    flat = np.zeros((20, 20))
    order = ranked(flat)
    np.testing.assert_array_equal(order, ranked(flat))
    assert sorted(order) == list(range(400))
    assert abs(np.mean(order[:200]) - 199.5) < 40


def test_the_blur_keeps_the_mean_and_loses_the_grain():
    found = blurred(picture())
    assert found.dtype == np.uint8
    assert found.mean() == pytest.approx(picture().mean(), abs=3)
    assert found.std() < 0.5 * picture().std()
    even = np.full((1, 8, 8), 77, np.uint8)
    np.testing.assert_array_equal(blurred(even), even)


def test_what_does_not_fit_is_refused():
    order = np.arange(120)
    for wrong in (
        (picture(), picture()[:1], order, 3),
        (picture(), picture(), order[:5], 3),
        (picture(), picture(), order, 0),
    ):
        with pytest.raises(ValueError, match="steps"):
            replaced(*wrong)
