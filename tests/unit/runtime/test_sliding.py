"""Tiles cover a volume as asked, and their blend is MONAI's, whatever the batch and the slabs."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.inferers import SlidingWindowInferer
from scipy.special import expit

from renalkit.errors import InputRefused, ModelRefused
from renalkit.runtime.engines import EngineOptions, open_engine
from renalkit.runtime.sliding import (
    AIR,
    SlideOptions,
    TilePlan,
    gaussian,
    mask_scorer,
    plan_axis,
    plan_tiles,
    slide,
    whole,
)

from .small_models import write

torch.set_num_threads(1)
Tiles = np.ndarray


@given(
    length=st.integers(1, 300),
    tile=st.integers(1, 96),
    overlap=st.sampled_from([0, 0.25, 0.5, 0.9]),
)
def test_tiles_cover_the_axis_evenly_flush_and_with_the_overlap(
    length: int, tile: int, overlap: float
) -> None:
    axis = plan_axis(length, [tile], overlap)
    starts = axis.starts
    if length <= tile:
        (start,) = starts
        assert start <= 0
        assert start + tile >= length
        assert abs((start + tile - length) + start) <= 1, "in the middle of the tile"
        return
    steps = np.diff(starts)
    assert (starts[0], starts[-1] + tile) == (0, length)
    assert steps.max() - steps.min() <= 1
    assert steps.min() >= 1
    assert steps.max() <= max(1, tile * (1 - overlap) + 1e-9)
    if len(starts) > 2:
        furthest = max(1, int(tile * (1 - overlap) + 1e-9))
        assert (len(starts) - 2) * furthest < length - tile, "no tile too many"


def test_of_the_sizes_allowed_that_with_the_least_to_compute_is_taken() -> None:
    assert plan_axis(70, [64, 72, 96]).tile == 72
    assert plan_axis(96, [48, 96], 0).tile == 96, "of equals the longest"
    plan = plan_tiles((40, 100, 64), ((32, 40), (64,), (64,)), 0.25)
    assert plan.tile == (40, 64, 64)
    assert plan.count == 2
    assert plan.shape == (40, 100, 64)


@pytest.mark.parametrize(
    ("length", "sizes", "overlap"), [(0, [8], 0.5), (8, [], 0.5), (8, [0], 0.5), (8, [8], 1.0)]
)
def test_plans_that_cannot_be_are_refused(length: int, sizes: list[int], overlap: float) -> None:
    with pytest.raises(ValueError, match="no tiles"):
        plan_axis(length, sizes, overlap)


@pytest.fixture(scope="module")
def net() -> torch.nn.Module:
    """Random, and aware of where in its tile a voxel lies, as padding makes it."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv3d(1, 4, 3, padding=1),
        torch.nn.InstanceNorm3d(4, affine=True),
        torch.nn.ReLU(),
        torch.nn.Conv3d(4, 2, 3, padding=1),
    ).eval()


def scorer(net: torch.nn.Module) -> Callable[[Tiles], Tiles]:
    def score(tiles: Tiles) -> Tiles:
        with torch.inference_mode():
            return net(torch.from_numpy(tiles)).numpy()

    return score


def volume(*shape: int, seed: int = 0) -> Tiles:
    return np.random.default_rng(seed).normal(size=(1, *shape)).astype(np.float32)


# Sizes at which MONAI's tiles are even, too; in the last, axes are shorter than a tile.
@pytest.mark.parametrize(
    ("shape", "tile", "overlap"),
    [
        ((20, 24, 32), (8, 12, 16), 0.5),
        ((24, 22, 16), (12, 16, 8), 0.5),
        ((20, 21, 16), (8, 12, 16), 0.25),
        ((7, 24, 5), (8, 12, 16), 0.5),
    ],
)
def test_the_blend_is_that_of_monai(
    net: torch.nn.Module,
    shape: tuple[int, int, int],
    tile: tuple[int, int, int],
    overlap: float,
) -> None:
    image = volume(*shape)
    peer = SlidingWindowInferer(
        tile, sw_batch_size=2, overlap=overlap, mode="gaussian", padding_mode="constant", cval=AIR
    )
    with torch.inference_mode():
        expected = peer(torch.from_numpy(image)[None], lambda x: torch.sigmoid(net(x)))[0].numpy()
    plan = plan_tiles(shape, tuple((n,) for n in tile), overlap)
    mean, votes = whole(slide(image, [scorer(net)], plan, 2, SlideOptions(batch=3)), shape[0])
    assert mean.dtype == np.float32
    assert votes is None
    np.testing.assert_allclose(mean, expected, atol=1e-5)
    assert np.ptp(mean) > 0.1


def test_weights_are_symmetric_and_no_voxel_counts_for_nothing() -> None:
    weights = gaussian((8, 9, 16))
    assert weights.shape == (8, 9, 16)
    np.testing.assert_array_equal(weights, weights[::-1, ::-1, ::-1])
    assert weights.min() == np.float32(1e-3)
    assert weights.argmax() == np.ravel_multi_index((3, 4, 7), weights.shape)


def small_plan(shape: tuple[int, int, int]) -> TilePlan:
    return plan_tiles(shape, ((8,), (8,), (8,)), 0.4)


def test_slabs_follow_one_another_and_batches_do_not_matter(net: torch.nn.Module) -> None:
    image = volume(21, 13, 17)
    plan = small_plan((21, 13, 17))
    one = list(slide(image, [scorer(net)], plan, 2))
    assert [s.z.start for s in one] == list(plan.axes[0].starts)
    assert [s.z.stop for s in one] == [*plan.axes[0].starts[1:], 21]
    mean, _ = whole(one, 21)
    for batch in (2, 100):
        again, _ = whole(slide(image, [scorer(net)], plan, 2, SlideOptions(batch=batch)), 21)
        np.testing.assert_allclose(again, mean, atol=1e-6)
    half, _ = whole(slide(image, [scorer(net)], plan, 2, SlideOptions(half=True)), 21)
    assert half.dtype == np.float16
    np.testing.assert_allclose(half, mean, atol=5e-4)


def test_hu_as_stored_can_be_given(net: torch.nn.Module) -> None:
    image = (100 * volume(9, 8, 10)).astype(np.int16)
    plan = small_plan((9, 8, 10))
    whole_numbers, _ = whole(slide(image, [scorer(net)], plan, 2), 9)
    floats, _ = whole(slide(image.astype(np.float32), [scorer(net)], plan, 2), 9)
    np.testing.assert_array_equal(whole_numbers, floats)


def constant(*logits: float) -> Callable[[Tiles], Tiles]:
    """A member that says the same everywhere: one logit per output."""

    def score(tiles: Tiles) -> Tiles:
        shape = (len(tiles), len(logits), *tiles.shape[2:])
        return np.broadcast_to(np.float32(logits)[:, None, None, None], shape)

    return score


def test_members_are_averaged_and_counted(net: torch.nn.Module) -> None:
    image = volume(10, 9, 11)
    plan = small_plan((10, 9, 11))
    members = [scorer(net), constant(2, -2), constant(1, 1)]
    apart = [whole(slide(image, [m], plan, 2), 10)[0] for m in members]
    mean, none = whole(slide(image, members, plan, 2), 10)
    counted, votes = whole(slide(image, members, plan, 2, SlideOptions(votes=True)), 10)
    np.testing.assert_allclose(mean, np.mean(apart, axis=0), atol=1e-6)
    np.testing.assert_allclose(counted, mean, atol=1e-6)
    assert none is None
    assert votes is not None
    assert votes.dtype == np.uint8
    np.testing.assert_array_equal(votes, sum((a > 0.5).astype(int) for a in apart))
    assert set(np.unique(votes[1])) <= {1, 2}


def test_mirrored_tiles_make_the_result_turn_with_the_volume(net: torch.nn.Module) -> None:
    image = volume(8, 12, 12)
    plan = plan_tiles((8, 12, 12), ((8,), (8,), (8,)), 0.5)
    options = SlideOptions(mirror=(0, 2))
    mean, _ = whole(slide(image, [scorer(net)], plan, 2, options), 8)
    turned, _ = whole(slide(image[:, ::-1, :, ::-1], [scorer(net)], plan, 2, options), 8)
    np.testing.assert_allclose(turned[:, ::-1, :, ::-1], mean, atol=1e-5)
    plain, _ = whole(slide(image, [scorer(net)], plan, 2), 8)
    assert np.abs(plain - mean).max() > 1e-3
    # One tile: the mean of the four ways it can be turned.
    tile = image[:, :, :8, :8]
    one, _ = whole(slide(tile, [scorer(net)], small_plan((8, 8, 8)), 2, options), 8)
    ways = [(), (2,), (4,), (2, 4)]
    said = [expit(np.flip(scorer(net)(np.flip(tile[None], w).copy()), w)) for w in ways]
    np.testing.assert_allclose(one, np.mean(said, axis=0)[0], atol=1e-6)


def test_tiles_outside_the_region_are_not_computed_and_inside_nothing_changes(
    net: torch.nn.Module,
) -> None:
    image = volume(30, 24, 24)
    plan = plan_tiles((30, 24, 24), ((8,), (8,), (8,)), 0.25)
    where = np.zeros((30, 24, 24), bool)
    where[10:13, 2:6, 3:9] = True
    seen: list[int] = []

    def counting(tiles: Tiles) -> Tiles:
        seen.append(len(tiles))
        return scorer(net)(tiles)

    full, _ = whole(slide(image, [scorer(net)], plan, 2), 30)
    part, _ = whole(slide(image, [counting], plan, 2, where=where), 30)
    assert 0 < sum(seen) < plan.count / 4
    np.testing.assert_allclose(part[:, where], full[:, where], atol=1e-6)
    assert (part[:, 25:] == 0).all()
    nothing, _ = whole(slide(image, [counting], plan, 2, where=np.zeros_like(where)), 30)
    assert nothing.shape == (2, 30, 24, 24)
    assert not nothing.any()


def test_what_is_held_does_not_grow_with_the_slices() -> None:
    def peak(depth: int) -> int:
        image = np.broadcast_to(np.float32(0), (1, depth, 64, 64))
        plan = plan_tiles((depth, 64, 64), ((8,), (32,), (32,)), 0.5)
        tracemalloc.start()
        for slab in slide(image, [constant(0, 1)], plan, 2):
            assert slab.mean.shape[1] <= 8
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(16)
    assert peak(256) < 1.2 * peak(16)


def test_an_engine_is_a_scoring_function_and_must_draw_masks(tmp_path: Path) -> None:
    engine = open_engine(write(tmp_path / "model.onnx"), EngineOptions(threads=1))
    given = np.zeros((1, 2, 8, 8), np.float32)
    assert mask_scorer(engine)(given).shape == (1, 1, 8, 8)

    class Named:
        name, inputs, outputs = "named", ("image",), ("class_logits",)

    with pytest.raises(ModelRefused, match="gives class_logits"):
        mask_scorer(Named())  # type: ignore[arg-type]


def test_bad_volumes_and_networks_are_refused(net: torch.nn.Module) -> None:
    image, plan = volume(9, 8, 10), small_plan((9, 8, 10))
    with pytest.raises(ValueError, match="expected \\(c, 9, 8, 10\\)"):
        slide(image[:, :8], [scorer(net)], plan, 2)
    with pytest.raises(ValueError, match="where"):
        slide(image, [scorer(net)], plan, 2, where=np.ones((9, 8, 9), bool))
    with pytest.raises(ValueError, match="0 members"):
        slide(image, [], plan, 2)
    with pytest.raises(ValueError, match="mirror"):
        SlideOptions(mirror=(3,))
    with pytest.raises(ModelRefused, match=r"expected: \(1, 3, 8, 8, 8\)"):
        list(slide(image, [scorer(net)], plan, 3))
    with pytest.raises(ModelRefused, match="512 not finite"):
        list(slide(image, [constant(float("nan"))], plan, 1))
    spoilt = image.copy()
    spoilt[0, 8, 7, 9] = np.inf
    with pytest.raises(InputRefused, match="slices 1 to 8, rows 0 to 7, columns 2 to 9"):
        list(slide(spoilt, [scorer(net)], plan, 2))
