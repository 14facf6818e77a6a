"""Voxels keep their place on the way to a working grid and back, for every geometry of a scan."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from renalkit.domain.volume import CANONICAL, VolumeGrid, affine_of, canonical_grid
from renalkit.transforms.volumes import cut, nearest, resampled, working_grid


def upright(shape=(9, 20, 22), spacing=(3.0, 0.8, 0.9), first=(-8.0, 5.0, -20.0)) -> VolumeGrid:
    dz, dy, dx = spacing
    x, y, z = first
    return VolumeGrid(shape, affine_of(((0, 0, dx, x), (0, dy, 0, y), (dz, 0, 0, z), (0, 0, 0, 1))))


def turned(base: VolumeGrid, degrees: float, *, shear: bool) -> VolumeGrid:
    """Rows and columns turned about x; the way between slices too unless sheared."""
    a = np.radians(degrees)
    rotation = np.array([(1, 0, 0), (0, np.cos(a), -np.sin(a)), (0, np.sin(a), np.cos(a))])
    steps = rotation @ base.steps_mm
    if shear:
        steps[:, 0] = base.steps_mm[:, 0]
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = steps, base.first_mm
    return VolumeGrid(base.shape, affine_of(matrix))


GRIDS = {
    "plain": upright(),
    "uneven": VolumeGrid((9, 20, 22), upright().affine_lps_mm, (0, 1, 2, 2.6, 3.2, 4, 5, 6, 7.5)),
    "missing": VolumeGrid((9, 20, 22), upright().affine_lps_mm, (0, 1, 2, 3, 5, 6, 7, 8, 9)),
    "tilted": turned(upright(), 14.0, shear=True),
    "oblique": turned(upright(), 14.0, shear=False),
}


def ball(grid: VolumeGrid, centre_mm: np.ndarray, radius_mm: float) -> np.ndarray:
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1).reshape(-1, 3)
    apart = np.linalg.norm(grid.to_lps(index) - centre_mm, axis=1)
    return (apart <= radius_mm).reshape(grid.shape)


def test_a_working_grid_of_the_same_spacing_is_the_volumes_own() -> None:
    grid = upright()
    assert working_grid(grid, grid.spacing_mm).shift_from(grid) < 1e-9
    box = ((-8.0 + 0.45, 5.0 - 0.4, -1.5 - 20), (0.0, 10.0, 0.0))
    found = working_grid(grid, (2.0, 1.0, 1.0), box)
    assert found.shape == (11, 6, 8)
    assert found.first_mm == pytest.approx((-8 + 0.45 + 0.5, 5 - 0.4 + 0.5, -21.5 + 1.0))
    for spacing, wrong in (((0.0, 1, 1), None), ((1, 1, 1), ((0, 0, 0), (0, 1, 1)))):
        with pytest.raises(ValueError, match="no grid"):
            working_grid(grid, spacing, wrong)


@pytest.mark.parametrize("axes", ["SPL", "IPL", "SAR", "LPS", "RAS", "PIR"])
def test_there_and_back_on_the_same_spacing_is_exact(axes: str) -> None:
    """To the voxel, whatever the orientation of the file."""
    rng = np.random.default_rng(3)
    matrix = np.eye(4)
    matrix[:3, :3] = 0
    for column, letter in enumerate(axes):
        row = "LPS".find(letter) if letter in "LPS" else "RAI".find(letter)
        matrix[row, column] = (0.9, 0.8, 3.0)[row] * (1 if letter in "LPS" else -1)
    grid, said = canonical_grid((5, 6, 7), matrix)
    assert said == axes
    assert grid.axes == CANONICAL
    pixels = rng.integers(-1000, 1000, grid.shape).astype(np.int16)
    work = working_grid(grid, grid.spacing_mm)
    there = np.stack(list(resampled(pixels, grid, work, fill=-1024)))
    assert np.array_equal(there, pixels)
    assert np.array_equal(np.stack(list(resampled(there, work, grid))), pixels)
    assert np.array_equal(np.stack(list(nearest(pixels, grid, work))), pixels)


@pytest.mark.parametrize("name", GRIDS)
def test_a_grid_to_itself_copies_its_slices(name: str) -> None:
    grid = GRIDS[name]
    pixels = np.random.default_rng(8).integers(-1000, 1000, grid.shape).astype(np.int16)
    kept = pixels.copy()
    for way, dtype in ((resampled, np.float32), (nearest, np.int16)):
        slices = list(way(pixels, grid, grid, fill=7))
        assert {s.dtype for s in slices} == {np.dtype(dtype)}
        assert np.array_equal(np.stack(slices), pixels)
        slices[0] += 1
        assert np.array_equal(pixels, kept)
    with pytest.raises(ValueError, match="pixels"):
        next(resampled(pixels[1:], grid, grid))


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("spacing", [(2.0, 0.8, 0.8), (3.0, 1.8, 1.8), (4.0, 2.5, 2.5)])
def test_a_ball_comes_back_to_its_place(name: str, spacing: tuple[float, float, float]) -> None:
    """Centroid within half a voxel on the original grid, size kept."""
    grid = GRIDS[name]
    middle = grid.to_lps([(np.asarray(grid.shape) - 1) / 2])[0]
    mask = ball(grid, middle, 6.5)
    work = working_grid(grid, spacing)
    there = np.stack(list(resampled(mask, grid, work)))
    assert there.min() >= 0
    assert there.max() <= 1 + 1e-6
    back = np.stack(list(resampled(there, work, grid))) >= 0.5
    assert back.shape == mask.shape
    moved = np.subtract(ndimage.center_of_mass(back), ndimage.center_of_mass(mask))
    assert np.abs(moved).max() < 0.5
    if spacing[1] < 1:  # coarse tents round off a ball of a few voxels
        assert back.sum() == pytest.approx(mask.sum(), rel=0.12)
    # Drawn by its definition on the working grid, it is the same ball.
    drawn = ball(work, middle, 6.5)
    direct = np.stack(list(nearest(drawn, work, grid)))
    moved = np.subtract(ndimage.center_of_mass(direct), ndimage.center_of_mass(mask))
    assert np.abs(moved).max() < 0.5
    assert direct.sum() == pytest.approx(mask.sum(), rel=0.2)


@pytest.mark.parametrize("name", GRIDS)
def test_a_linear_field_is_kept_by_every_way(name: str) -> None:
    """Interpolation and averaging of a field linear in mm give the field, inside the volume."""
    grid = GRIDS[name]
    slope = np.array((2.0, -3.0, 1.5))
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1).reshape(-1, 3)
    field = (grid.to_lps(index) @ slope).reshape(grid.shape)
    work = working_grid(grid, (2.0, 1.7, 1.7))
    found = np.stack(list(resampled(field, grid, work, fill=np.nan)))
    at = np.stack(np.meshgrid(*map(np.arange, work.shape), indexing="ij"), -1).reshape(-1, 3)
    points = work.to_lps(at)
    deep = grid.to_index(points)
    margin = 2.6
    inner = ((deep > margin) & (deep < np.asarray(grid.shape) - 1 - margin)).all(axis=1)
    assert inner.sum() > 20
    off = np.abs(found.ravel() - points @ slope)[inner]
    assert off.max() < (1e-2 if name not in ("uneven", "missing") else 2.5)


def test_outside_is_the_fill_and_faces_are_inside() -> None:
    grid = upright((2, 3, 3), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    pixels = np.full(grid.shape, 7, np.int16)
    wide = upright((4, 5, 5), (1.0, 1.0, 1.0), (-1.0, -1.0, -1.0))
    for made in (resampled(pixels, grid, wide, fill=-9.0), nearest(pixels, grid, wide, fill=-9)):
        found = np.stack(list(made))
        assert (found[1:3, 1:4, 1:4] == 7).all()
        found[1:3, 1:4, 1:4] = -9
        assert (found == -9).all()
    half = upright((4, 6, 6), (0.5, 0.5, 0.5), (-0.25, -0.25, -0.25))
    assert (np.stack(list(resampled(pixels, grid, half, fill=-9.0))) == 7).all()


def test_noise_is_averaged_not_folded_in() -> None:
    rng = np.random.default_rng(0)
    grid = upright((12, 64, 64), (1.0, 0.8, 0.8))
    noise = rng.normal(0, 20, grid.shape).astype(np.float32)
    for source in (grid, turned(grid, 10, shear=False)):
        coarse = np.stack(list(resampled(noise, source, working_grid(source, (4, 4, 4)), fill=0)))
        assert coarse.std() < 20 / 4


@given(start=st.tuples(*[st.integers(0, 3)] * 3), size=st.tuples(*[st.integers(1, 5)] * 3))
@settings(max_examples=30)
def test_a_part_of_a_grid_lies_where_it_lay(
    start: tuple[int, int, int], size: tuple[int, int, int]
) -> None:
    for grid in GRIDS.values():
        box = tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))
        part = cut(grid, box)
        assert part.shape == size
        assert part.to_lps([(0, 0, 0)]) == pytest.approx(grid.to_lps([start]))
        last = np.add(start, size) - 1
        assert part.to_lps([np.subtract(size, 1)]) == pytest.approx(grid.to_lps([last]))


def test_what_does_not_fit_is_refused() -> None:
    grid = upright()
    with pytest.raises(ValueError, match="no part"):
        cut(grid, (slice(0, 99), slice(0, 1), slice(0, 1)))
    for way in (resampled, nearest):
        with pytest.raises(ValueError, match="on a grid"):
            next(iter(way(np.zeros((1, 1, 1)), grid, grid)))
