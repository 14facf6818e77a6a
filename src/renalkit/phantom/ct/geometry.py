"""How does one simulated scan lie in the files, in the ways real CT series do?

    for one in scanned(Geometry.SHEARED, volume.grid, [hu]):
        one.hu, one.position_mm, one.row, one.column

Every way is a grid of slices in the order of their numbers, taken from the volume by interpolation
(where voxels coincide, the voxels themselves); the truth on that grid is `nearest` of the labels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from renalkit.domain.volume import VolumeGrid, affine_of
from renalkit.phantom.ct.shapes import Vector
from renalkit.transforms.volumes import resampled

_TILT_DEG = 12.0
_TURN_DEG = 9.0
_AIR_HU = -1000.0


class Geometry(StrEnum):
    """Ways a CT series lies in its files."""

    PLAIN = "plain"
    NEGATED_AXIS = "negated-axis"
    BOTH_FLIPPED = "both-flipped"
    REVERSED = "reversed"
    SHEARED = "sheared"
    UNEVEN = "uneven"
    MISSING_SLICE = "missing-slice"
    DUPLICATE_SLICE = "duplicate-slice"
    TWO_PHASES = "two-phases"
    OBLIQUE = "oblique"


@dataclass(frozen=True, slots=True, eq=False)
class ScannedSlice:
    """One slice: hu (Y,X) int16, position of its first pixel (LPS mm), unit directions of rising
    column (row) and rising row (column), its number from 1, and the scan it belongs to, from 1."""

    hu: npt.NDArray[np.int16]
    position_mm: Vector
    row: Vector
    column: Vector
    number: int
    scan: int = 1


def source_grid(geometry: Geometry, grid: VolumeGrid) -> VolumeGrid:
    """The grid of the files' slices as they are numbered, of an upright volume on `grid`."""
    slices, rows, cols = grid.shape
    steps, first = grid.steps_mm.copy(), grid.first_mm.copy()
    places: tuple[float, ...] | None = None
    if geometry is Geometry.NEGATED_AXIS:
        first, steps[:, 2] = first + steps[:, 2] * (cols - 1), -steps[:, 2]
    elif geometry is Geometry.BOTH_FLIPPED:
        first = first + steps[:, 2] * (cols - 1) + steps[:, 1] * (rows - 1)
        steps[:, 1:] *= -1
    elif geometry is Geometry.REVERSED:
        first, steps[:, 0] = first + steps[:, 0] * (slices - 1), -steps[:, 0]
    elif geometry is Geometry.MISSING_SLICE:
        lost = slices // 3
        places = tuple(float(k) for k in range(slices) if k != lost)
    elif geometry is Geometry.UNEVEN:
        half = slices // 2
        places = (*(float(k) for k in range(half)), *np.arange(half, slices - 1, 1.25).tolist())
    elif geometry in (Geometry.SHEARED, Geometry.OBLIQUE):
        middle = grid.to_lps([(np.asarray(grid.shape) - 1) / 2])[0]
        turn = _about_x(_TILT_DEG)
        if geometry is Geometry.OBLIQUE:
            turn = turn @ _about_z(_TURN_DEG)
            steps = turn @ steps
        else:
            steps[:, 1:] = turn @ steps[:, 1:]
        first = middle - steps @ ((np.asarray(grid.shape) - 1) / 2)
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = steps, first
    shape = (slices if places is None else len(places), rows, cols)
    return VolumeGrid(shape, affine_of(matrix), places)


def scanned(
    geometry: Geometry, grid: VolumeGrid, scans: Sequence[npt.NDArray[np.int16]]
) -> Iterator[ScannedSlice]:
    """The slices of one series; scans: volumes (Z,Y,X) in HU on `grid`, two for two phases.

    Raises:
        ValueError: another number of volumes than the geometry needs.
    """
    if len(scans) != (2 if geometry is Geometry.TWO_PHASES else 1):
        raise ValueError(f"{len(scans)} volumes for the geometry {geometry}")
    source = source_grid(geometry, grid)
    y, x = source.steps_mm[:, 1], source.steps_mm[:, 2]
    row, column = _plain(x / np.linalg.norm(x)), _plain(y / np.linalg.norm(y))
    number = 0
    for scan, volume in enumerate(scans, start=1):
        slices = resampled(volume, grid, source, fill=_AIR_HU)
        for k, values in enumerate(slices):
            hu = np.rint(values).astype(np.int16)
            position = _plain(source.to_lps([(k, 0, 0)])[0])
            twice = geometry is Geometry.DUPLICATE_SLICE and k == source.shape[0] // 2
            for _ in range(1 + twice):
                number += 1
                yield ScannedSlice(hu, position, row, column, number, scan)


def _plain(values: npt.NDArray[np.float64]) -> Vector:
    x, y, z = values.tolist()
    return x, y, z


def _about_x(degrees: float) -> npt.NDArray[np.float64]:
    a, b = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([(1.0, 0.0, 0.0), (0.0, a, -b), (0.0, b, a)])


def _about_z(degrees: float) -> npt.NDArray[np.float64]:
    a, b = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([(a, -b, 0.0), (b, a, 0.0), (0.0, 0.0, 1.0)])
