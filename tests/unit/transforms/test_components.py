"""Parts of masks are numbered by size, kept or left out whole, and holes are closed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from renalkit.transforms.components import box_around, filled, kept, numbered

SHAPE = (12, 14, 16)
masks = arrays(np.bool_, (4, 5, 6))


def parts() -> np.ndarray:
    """Of 27, 8 and 1 voxels; the smallest touches the middle one by a corner in `joined`."""
    mask = np.zeros(SHAPE, bool)
    mask[1, 1, 1] = True
    mask[3:6, 3:6, 3:6] = True
    mask[9:11, 9:11, 9:11] = True
    return mask


def test_parts_are_numbered_by_size() -> None:
    found, sizes = numbered(parts())
    assert sizes.tolist() == [27, 8, 1]
    assert (found[4, 4, 4], found[9, 9, 9], found[1, 1, 1], found[0, 0, 0]) == (1, 2, 3, 0)
    assert [int((found == n).sum()) for n in (1, 2, 3)] == sizes.tolist()


def test_parts_that_touch_by_a_corner_are_one() -> None:
    mask = parts()
    mask[2, 2, 2] = True
    assert numbered(mask)[1].tolist() == [29, 8]


@pytest.mark.parametrize(
    ("least", "most", "voxels"),
    [
        (0, None, 36),
        (8, None, 35),
        (8.5, None, 27),
        (28, None, 0),
        (0, 2, 35),
        (0, 1, 27),
        (9, 2, 27),
    ],
)
def test_what_is_too_small_or_too_many_is_left_out(
    least: float, most: int | None, voxels: int
) -> None:
    assert kept(parts(), least=least, most=most).sum() == voxels


def test_only_closed_holes_are_filled() -> None:
    mask = np.zeros(SHAPE, bool)
    mask[2:8, 2:8, 2:8] = True
    whole = mask.copy()
    mask[4, 4, 4] = False
    mask[2:4, 6, 6] = False  # open to the face of the cube
    whole[2:4, 6, 6] = False
    np.testing.assert_array_equal(filled(mask), whole)


def test_nothing_stays_nothing() -> None:
    empty = np.zeros(SHAPE, bool)
    assert box_around(empty) is None
    assert numbered(empty)[1].size == 0
    assert not kept(empty).any()
    assert not filled(empty).any()


@given(masks, st.integers(0, 20), st.integers(0, 5))
def test_whole_parts_are_kept_and_nothing_is_added(mask: np.ndarray, least: int, most: int) -> None:
    given_, sizes = numbered(mask)
    chosen = kept(mask, least=least, most=most)
    for number, size in enumerate(sizes.tolist(), start=1):
        here = chosen[given_ == number]
        assert here.all() == here.any()
        assert here.all() == (size >= least and number <= most)
    assert not (chosen & ~mask).any()
    assert (kept(mask) == mask).all()
    assert (filled(filled(mask)) == filled(mask)).all()
    assert (filled(mask) >= mask).all()


@given(masks)
def test_the_box_holds_the_mask_and_no_more(mask: np.ndarray) -> None:
    box = box_around(mask)
    if box is None:
        assert not mask.any()
        return
    assert mask[box].sum() == mask.sum()
    for axis in range(3):
        others = tuple(i for i in range(3) if i != axis)
        line = mask[box].any(axis=others)
        assert line[0]
        assert line[-1]
