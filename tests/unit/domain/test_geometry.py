"""Boxes stay inside, masks come back as they were, unknown scales stay unknown."""

from __future__ import annotations

from math import inf, nan

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from renalkit.domain.geometry import Box, MaskRLE, Region, bounding_box, checked_spacing

SIDE = st.integers(1, 60)
MASKS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12))
BOXES = st.builds(Box, st.integers(0, 80), st.integers(0, 80), SIDE, SIDE)


@given(mask=MASKS)
def test_a_mask_comes_back_as_it_was(mask: np.ndarray) -> None:
    runs = MaskRLE.encode(mask)
    assert np.array_equal(runs.decode(), mask)
    assert runs.area_px == mask.sum()
    assert runs.box == bounding_box(mask)
    assert MaskRLE.parse(runs.text) == runs


@given(mask=MASKS)
def test_equal_masks_have_one_encoding(mask: np.ndarray) -> None:
    assert MaskRLE.encode(mask) == MaskRLE.encode(mask.astype(np.uint8) * 255)
    assert MaskRLE.encode(np.asfortranarray(mask)) == MaskRLE.encode(mask)
    assert MaskRLE.encode(mask).runs != MaskRLE.encode(~mask).runs


@pytest.mark.parametrize(
    ("rows", "cols", "runs"),
    [
        (0, 2, ()),
        (2, 0, ()),
        (2, 2, (3,)),
        (2, 2, (5,)),
        (2, 2, (2, 0, 2)),
        (2, 2, (-1, 5)),
        (2, 2, ()),
    ],
)
def test_runs_that_are_no_mask_are_refused(rows: int, cols: int, runs: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"mask"):
        MaskRLE(rows, cols, runs)


@pytest.mark.parametrize("text", ["", "2x2", "2:4", "axb:4", "2x2:x", "2x2:1 1"])
def test_text_that_is_no_mask_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        MaskRLE.parse(text)


@pytest.mark.parametrize("shape", [(4,), (1, 2, 2), ()])
def test_only_flat_pictures_are_masks(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\(H,W\)"):
        MaskRLE.encode(np.zeros(shape))


@pytest.mark.parametrize(
    "numbers", [(0, 0, 0, 1), (0, 0, 1, 0), (-1, 0, 1, 1), (0, -1, 1, 1), (0, 0, -3, 1)]
)
def test_boxes_without_area_or_outside_are_refused(numbers: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="box"):
        Box(*numbers)


@given(box=BOXES, rows=SIDE, cols=SIDE)
def test_a_clipped_box_is_the_part_inside(box: Box, rows: int, cols: int) -> None:
    canvas = np.zeros((200, 200), bool)
    canvas[box.slices] = True
    inside = canvas[:rows, :cols]
    clipped = box.clipped(rows, cols)
    if clipped is None:
        assert not inside.any()
    else:
        assert clipped.fits(rows, cols)
        assert inside.sum() == clipped.width * clipped.height
        assert inside[clipped.slices].all()
    assert box.fits(rows, cols) == (clipped == box)


@given(box=BOXES, share=st.floats(0, 2), margin=st.integers(0, 40))
def test_a_grown_box_holds_the_box_and_stays_inside(box: Box, share: float, margin: int) -> None:
    rows, cols = box.y + box.height + margin, box.x + box.width + margin
    grown = box.grown(share, rows, cols)
    assert grown.fits(rows, cols)
    assert grown.x <= box.x
    assert grown.y <= box.y
    assert grown.x + grown.width >= box.x + box.width
    assert grown.y + grown.height >= box.y + box.height
    assert box.grown(0, rows, cols) == box


@given(row=st.floats(), col=st.floats())
def test_D50_a_spacing_is_positive_and_finite_or_unknown(row: float, col: float) -> None:
    found = checked_spacing((row, col))
    usable = 0 < row < inf and 0 < col < inf
    assert (found is not None) == usable
    assert found is None or found == (row, col)
    assert checked_spacing(None) is None


@pytest.mark.parametrize("spacing", [(0.0, 1.0), (nan, 1.0), (1.0, inf), (-1.0, 1.0)])
def test_D50_a_region_refuses_a_scale_that_cannot_measure(spacing: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="spacing"):
        Region(Box(0, 0, 1, 1), spacing, "tissue")


def test_box_of_a_mask_is_tight():
    mask = np.zeros((20, 30), bool)
    assert bounding_box(mask) is None
    mask[3:8, 5:17] = True
    assert bounding_box(mask) == Box(5, 3, 12, 5)
