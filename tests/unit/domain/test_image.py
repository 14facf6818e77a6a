"""Pixels are read-only and digested by value; times and scales are known or None."""

from __future__ import annotations

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from renalkit.domain.geometry import Box, Region
from renalkit.domain.image import Clip, Frame, Mode, PixelStack, Source, pixel_sha256

SOURCE = Source("0" * 64, "f-0", "png")
STACKS = st.sampled_from(("u1", "<u2", "<f4")).flatmap(
    lambda dtype: hnp.arrays(
        np.dtype(dtype),
        hnp.array_shapes(min_dims=3, max_dims=3, max_side=4),
        elements=st.integers(0, 200),
    )
)


def clip(shape: tuple[int, ...] = (3, 4, 5), **more: object) -> Clip:
    pixels = np.zeros(shape, np.uint8)
    return Clip(pixels, pixel_sha256(pixels), Mode.B, SOURCE, **more)  # type: ignore[arg-type]


@given(pixels=STACKS)
def test_the_digest_is_of_values_not_of_memory(pixels: np.ndarray) -> None:
    expected = pixel_sha256(pixels)
    assert pixel_sha256(np.asfortranarray(pixels)) == expected
    assert pixel_sha256(np.repeat(pixels, 2, axis=2)[:, :, ::2]) == expected
    assert pixel_sha256(pixels.astype(pixels.dtype.newbyteorder(">"))) == expected


@given(pixels=STACKS, data=st.data())
def test_any_changed_pixel_changes_the_digest(pixels: np.ndarray, data: st.DataObject) -> None:
    other = pixels.copy()
    at = tuple(data.draw(st.integers(0, n - 1)) for n in pixels.shape)
    other[at] = other[at] + 1
    assert pixel_sha256(other) != pixel_sha256(pixels)


@given(pixels=STACKS)
def test_shape_and_type_are_part_of_the_digest(pixels: np.ndarray) -> None:
    assert pixel_sha256(pixels.astype("<f8")) != pixel_sha256(pixels)
    flat = pixels.reshape(1, 1, -1)
    assert (pixel_sha256(flat) == pixel_sha256(pixels)) == (flat.shape == pixels.shape)


def test_arrays_are_pixel_stacks() -> None:
    assert isinstance(np.zeros((1, 2, 3)), PixelStack)


@pytest.mark.parametrize(
    "shape", [(4, 5), (0, 4, 5), (1, 0, 5), (1, 4, 5, 2), (1, 4, 5, 4), (1, 1, 4, 5, 3)]
)
def test_other_shapes_are_no_clip(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must be"):
        clip(shape)


@pytest.mark.parametrize("shape", [(2, 4, 5), (2, 4, 5, 3)])
def test_frames_are_read_only_and_carry_what_the_clip_knows(shape: tuple[int, ...]) -> None:
    given_ = clip(shape, spacing_mm=(0.1, 0.2), times_s=(0.0, 0.04))
    frame = given_.frame(1)
    assert frame.pixels.shape == shape[1:]
    assert (frame.spacing_mm, frame.time_s, frame.index) == ((0.1, 0.2), 0.04, 1)
    with pytest.raises(ValueError, match="read-only"):
        frame.pixels[0, 0] = 1


@pytest.mark.parametrize("index", [-1, 3, 100])
def test_frames_outside_are_refused(index: int) -> None:
    with pytest.raises(IndexError, match="of a clip of 3 frames"):
        clip().frame(index)


@pytest.mark.parametrize(
    ("times", "words"),
    [
        ((0.0, 1.0), "2 frame times for 3 frames"),
        ((0.0, 1.0, 1.0), "increase"),
        ((0.0, 2.0, 1.0), "increase"),
        ((0.0, 1.0, float("inf")), "finite"),
        ((float("nan"), 1.0, 2.0), "finite"),
    ],
)
def test_D61_times_increase_and_are_finite_or_unknown(times: tuple[float, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        clip(times_s=times)


def test_scales_that_cannot_measure_and_regions_outside_are_refused() -> None:
    with pytest.raises(ValueError, match="use None"):
        clip(spacing_mm=(0.0, 1.0))
    with pytest.raises(ValueError, match="leaves the image"):
        clip(regions=(Region(Box(0, 0, 6, 4), None, "tissue"),))


def test_clips_are_equal_by_digest_and_description() -> None:
    assert clip() == clip()
    assert clip() != clip(spacing_mm=(1.0, 1.0))
    assert clip((3, 4, 5)) != clip((3, 5, 4))


def test_frames_check_their_shape() -> None:
    with pytest.raises(ValueError, match="frame pixels"):
        Frame(np.zeros((3,)), Mode.B, SOURCE, 0)


def test_a_pane_knows_its_corner_and_its_frames_in_the_source() -> None:
    whole = clip()
    assert [whole.source_frame(i) for i in range(3)] == [0, 1, 2]
    pane = clip(offset=(2, 1), source_frames=(0, 7, 9))
    assert pane.source_frame(2) == 9
    for change in ({"offset": (-1, 0)}, {"source_frames": (0, 7)}, {"source_frames": (7, 7, 9)}):
        with pytest.raises(ValueError, match=r"offset|source frames"):
            clip(**change)
