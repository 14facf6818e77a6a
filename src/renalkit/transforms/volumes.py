"""How do voxels get from one grid to another, to the grid a network works on and back?

    work = working_grid(volume.grid, (3.0, 1.8, 1.8))
    image = np.stack(list(resampled(volume.pixels, volume.grid, work, fill=-1024.0)))
    for mask in resampled(probability, work, volume.grid): ...   # slices of the original grid

Values between voxels are linear. Where the target is coarser, the mean under a tent as wide as the
target's step is taken (the linear interpolant averaged, so that noise does not fold into the
picture); where it is as fine or finer, that is plain linear interpolation. Labels take the nearest
voxel. Outside the outer faces of the source the fill value stands.

Slices of the target come one by one, and of a source that shares its axes only the slices needed
are held, so memory does not grow with the number of slices; from a grid to itself they are copied.
Shape legend: (Z,Y,X) of the source, (K,J,I) of the target.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage, sparse

from renalkit.domain.image import PixelStack
from renalkit.domain.volume import VolumeGrid, affine_of

Floats = npt.NDArray[np.float64]
Slice = npt.NDArray[np.float32]
Box = tuple[slice, slice, slice]

_ALIKE = 1e-6
_ALIKE_VOXELS = 1e-3
"""Of a voxel: a place nearer to another is the same but for rounding of the header's numbers."""


def working_grid(
    grid: VolumeGrid,
    spacing_mm: tuple[float, float, float],
    box_mm: tuple[tuple[float, float, float], tuple[float, float, float]] | None = None,
) -> VolumeGrid:
    """The upright grid (z to the head, y to the back, x to the left) over a volume.

    spacing_mm: (z, y, x). box_mm: lowest and highest (x, y, z) of what is wanted, LPS; the whole
    volume by default.

    Raises:
        ValueError: a spacing that is not positive, or a box without extent.
    """
    if box_mm is None:
        corners = grid.corners_mm
        low, high = corners.min(axis=0), corners.max(axis=0)
        box_mm = (low[0], low[1], low[2]), (high[0], high[1], high[2])
    return upright_grid(spacing_mm, box_mm)


def upright_grid(
    spacing_mm: tuple[float, float, float],
    box_mm: tuple[tuple[float, float, float], tuple[float, float, float]],
) -> VolumeGrid:
    """The upright grid over a box: lowest and highest (x, y, z), LPS mm.

    The outer faces of first voxels lie on the lowest faces of the box, so the box of an upright
    canonical volume with the same spacing gives its own grid.

    Raises:
        ValueError: a spacing that is not positive, or a box without extent.
    """
    low, high = (np.asarray(side, np.float64) for side in box_mm)
    steps = np.asarray(spacing_mm[::-1], np.float64)
    if not (steps > 0).all() or not (high > low).all():
        raise ValueError(f"no grid of {spacing_mm} mm over {low} to {high}")
    nx, ny, nz = (max(1, ceil(n - 1e-3)) for n in (high - low) / steps)
    x, y, z = low + steps / 2
    dx, dy, dz = steps
    affine = ((0.0, 0.0, dx, x), (0.0, dy, 0.0, y), (dz, 0.0, 0.0, z), (0.0, 0.0, 0.0, 1.0))
    return VolumeGrid((nz, ny, nx), affine_of(affine))


def cut(grid: VolumeGrid, box: Box) -> VolumeGrid:
    """The grid of `array[box]`; slices with start and stop and no step.

    Raises:
        ValueError: a box that is empty or leaves the grid.
    """
    starts = [int(part.start) for part in box]
    shape = [int(part.stop) - start for part, start in zip(box, starts, strict=True)]
    inside = all(a >= 0 and a + n <= m for a, n, m in zip(starts, shape, grid.shape, strict=True))
    if not inside or min(shape) < 1:
        raise ValueError(f"box {box} is no part of a grid of {grid.shape}")
    at = None if grid.slice_at is None else grid.slice_at[starts[0] : starts[0] + shape[0]]
    matrix = np.asarray(grid.affine_lps_mm, np.float64).copy()
    # Places of uneven slices stay where they are along the step; only rows and columns move.
    moved = (0 if at is not None else starts[0], *starts[1:])
    matrix[:3, 3] += matrix[:3, :3] @ np.asarray(moved, np.float64)
    return VolumeGrid((shape[0], shape[1], shape[2]), affine_of(matrix), at)


def resampled(
    pixels: PixelStack | npt.NDArray[Any],
    source: VolumeGrid,
    target: VolumeGrid,
    *,
    fill: float = 0.0,
) -> Iterator[Slice]:
    """The slices (J,I) float32 of the target grid, in order; see the head of this file.

    pixels: (Z,Y,X) on the source grid; bool gives the share of each target voxel that is inside.

    Raises:
        ValueError: pixels of another shape than their grid.
    """
    _check(pixels, source)
    if source == target:
        yield from (np.array(pixels[z], np.float32) for z in range(source.shape[0]))
        return
    placed = _along_axes(source, target)
    if placed is not None:
        yield from _means(pixels, source, placed, fill)
        return
    between = _as_fine(source, target)
    if between is not None:
        parts = list(resampled(pixels, source, between, fill=fill))
        pixels, source = np.stack(parts), between
    whole = _whole(pixels, np.float32)
    for at, inside in _coordinates(source, target):
        values = ndimage.map_coordinates(whole, at, order=1, mode="nearest", output=np.float32)
        yield np.where(inside, values, np.float32(fill))


def nearest(
    pixels: PixelStack | npt.NDArray[Any], source: VolumeGrid, target: VolumeGrid, *, fill: int = 0
) -> Iterator[npt.NDArray[Any]]:
    """The slices of the target grid with the value of the nearest source voxel, dtype kept.

    Raises:
        ValueError: pixels of another shape than their grid.
    """
    _check(pixels, source)
    if source == target:
        yield from (np.array(pixels[z]) for z in range(source.shape[0]))
        return
    dtype = np.dtype(pixels.dtype)
    placed = _along_axes(source, target)
    if placed is not None:
        nodes = (source.places, *(np.arange(n, dtype=np.float64) for n in source.shape[1:]))
        planes, rows, cols = (_closest(n, at) for n, (at, _) in zip(nodes, placed, strict=True))
        inside = [_inside(n, at) for n, (at, _) in zip(nodes, placed, strict=True)]
        outside = ~(inside[1][:, None] & inside[2])
        for k, z in enumerate(planes.tolist()):
            out = np.full(outside.shape, fill, dtype)
            if inside[0][k]:
                out = np.asarray(pixels[z])[np.ix_(rows, cols)]
                out[outside] = fill
            yield out
        return
    whole = _whole(pixels, dtype)
    for at, within in _coordinates(source, target):
        index = tuple(
            np.clip(np.floor(a + 0.5 + _ALIKE).astype(np.intp), 0, n - 1)
            for a, n in zip(at, source.shape, strict=True)
        )
        yield np.where(within, whole[index], dtype.type(fill))


def _check(pixels: PixelStack | npt.NDArray[Any], grid: VolumeGrid) -> None:
    if tuple(pixels.shape) != grid.shape:
        raise ValueError(f"pixels {tuple(pixels.shape)} on a grid {grid.shape}")


def _whole(pixels: PixelStack | npt.NDArray[Any], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    out = np.empty(tuple(pixels.shape), dtype)
    for k in range(len(out)):
        out[k] = pixels[k]
    return out


Place = tuple[Floats, float]
"""Where along one source axis the target's voxels lie, in source voxels, and their step there."""


def _along_axes(source: VolumeGrid, target: VolumeGrid) -> tuple[Place, Place, Place] | None:
    """The places along z, y and x; None where the grids' axes are not parallel."""
    turn = np.linalg.solve(source.steps_mm, target.steps_mm)
    reach = np.maximum(np.asarray(target.shape) - 1, np.abs(target.places).max())
    if float((np.abs(turn - np.diag(np.diag(turn))) * reach).max()) > _ALIKE_VOXELS:
        return None
    shift = np.linalg.solve(source.steps_mm, target.first_mm - source.first_mm)
    z, y, x = (
        (index * turn[axis, axis] + shift[axis], abs(float(turn[axis, axis])))
        for axis, index in enumerate((target.places, *map(np.arange, target.shape[1:])))
    )
    return z, y, x


def _means(
    pixels: PixelStack | npt.NDArray[Any],
    source: VolumeGrid,
    placed: tuple[Place, Place, Place],
    fill: float,
) -> Iterator[Slice]:
    """Tent means axis by axis: rows and columns of each source slice first, then slices."""
    nodes = (source.places, *(np.arange(n, dtype=np.float64) for n in source.shape[1:]))
    planes, rows, cols = (_weights(n, *place) for n, place in zip(nodes, placed, strict=True))
    inside = [_inside(n, at) for n, (at, _) in zip(nodes, placed, strict=True)]
    outside = ~(inside[1][:, None] & inside[2])
    held: dict[int, Slice] = {}
    for k, within in enumerate(inside[0]):
        if not within:
            yield np.full(outside.shape, fill, np.float32)
            continue
        needed = planes.indices[planes.indptr[k] : planes.indptr[k + 1]].tolist()
        shares = planes.data[planes.indptr[k] : planes.indptr[k + 1]]
        held = {
            z: held[z] if z in held else (cols @ (rows @ _plane(pixels, z)).T).T for z in needed
        }
        out = np.zeros(outside.shape, np.float32)
        for z, share in zip(needed, shares, strict=True):
            out += share * held[z]
        out[outside] = fill
        yield out


def _plane(pixels: PixelStack | npt.NDArray[Any], z: int) -> Slice:
    return np.asarray(pixels[z]).astype(np.float32)


def _weights(nodes: Floats, at: Floats, step: float) -> sparse.csr_array:
    """(targets, sources): the share of each source value in each target value; rows sum to 1."""
    offsets, shares = np.zeros(1), np.ones(1)
    if step > 1 + _ALIKE_VOXELS:
        half = 2 * ceil(step)
        offsets = np.arange(1 - half, half) * (step / half)
        shares = 1 - np.abs(offsets) / step
        shares /= shares.sum()
    if len(nodes) == 1:
        return sparse.csr_array(np.ones((len(at), 1), np.float32))
    places = np.clip(at[:, None] + offsets, nodes[0], nodes[-1])
    left = np.clip(np.searchsorted(nodes, places, side="right") - 1, 0, len(nodes) - 2)
    share = (places - nodes[left]) / (nodes[left + 1] - nodes[left])
    # What is nearer to a node than rounding is on it: a slice is not read for nothing.
    share = np.where(share < _ALIKE, 0.0, np.where(share > 1 - _ALIKE, 1.0, share))
    target = np.broadcast_to(np.arange(len(at))[:, None], left.shape).ravel()
    found = sparse.coo_array(
        (
            np.concatenate([((1 - share) * shares).ravel(), (share * shares).ravel()]),
            (np.tile(target, 2), np.concatenate([left.ravel(), left.ravel() + 1])),
        ),
        shape=(len(at), len(nodes)),
        dtype=np.float32,
    ).tocsr()
    found.sum_duplicates()
    found.eliminate_zeros()
    return found


def _inside(nodes: Floats, at: Floats) -> npt.NDArray[np.bool_]:
    """Which places lie within the outer faces of the outer voxels."""
    first, last = (0.5, 0.5) if len(nodes) == 1 else (np.diff(nodes)[[0, -1]] / 2)
    return (at >= nodes[0] - first - _ALIKE_VOXELS) & (at <= nodes[-1] + last + _ALIKE_VOXELS)


def _closest(nodes: Floats, at: Floats) -> npt.NDArray[np.intp]:
    return np.searchsorted((nodes[1:] + nodes[:-1]) / 2, at + _ALIKE, side="right")


def _coordinates(
    source: VolumeGrid, target: VolumeGrid
) -> Iterator[tuple[tuple[Floats, Floats, Floats], npt.NDArray[np.bool_]]]:
    """Source indices (z, y, x), (J,I) each, of the voxels of each target slice, and which of them
    lie in the source."""
    turn = np.linalg.solve(source.steps_mm, target.steps_mm)
    shift = np.linalg.solve(source.steps_mm, target.first_mm - source.first_mm)
    rows = np.arange(target.shape[1], dtype=np.float64)[:, None]
    cols = np.arange(target.shape[2], dtype=np.float64)
    for place in target.places:
        z, y, x = (
            shift[a] + turn[a, 0] * place + turn[a, 1] * rows + turn[a, 2] * cols for a in range(3)
        )
        inside = _inside(source.places, z)
        for at, n in ((y, source.shape[1]), (x, source.shape[2])):
            inside &= _inside(np.arange(n, dtype=np.float64), at)
        if source.slice_at is not None:
            z = np.interp(z, source.places, np.arange(source.shape[0]))
        yield (z, y, x), inside


def _as_fine(source: VolumeGrid, target: VolumeGrid) -> VolumeGrid | None:
    """A grid along the source's axes about as coarse as the target; None when the source is."""
    apart = dict(zip(target.axes, target.spacing_mm, strict=True))
    wanted = [apart.get(a) or apart[_OPPOSITE[a]] for a in source.axes]
    factors = [max(1.0, w / s) for w, s in zip(wanted, source.spacing_mm, strict=True)]
    if max(factors) < _MUCH_COARSER:
        return None
    extent = (float(np.ptp(source.places)) + 1, *source.shape[1:])
    shape = [max(1, ceil(n / f - 1e-3)) for n, f in zip(extent, factors, strict=True)]
    matrix = np.asarray(source.affine_lps_mm, np.float64).copy()
    begin = (source.places[0], 0.0, 0.0)
    centre = [b + (f - 1) / 2 for b, f in zip(begin, factors, strict=True)]
    matrix[:3, 3] += matrix[:3, :3] @ np.asarray(centre)
    matrix[:3, :3] *= factors
    return VolumeGrid((shape[0], shape[1], shape[2]), affine_of(matrix))


_OPPOSITE = {"L": "R", "R": "L", "P": "A", "A": "P", "S": "I", "I": "S"}
_MUCH_COARSER = 1.5
