"""Where are the voxels of a CT volume in the patient, and when after the injection was it taken?

A volume is a clip whose frames are the slices of one grid, so whatever handles clips handles
volumes. Arrays are (Z,Y,X): slices, rows, columns. Positions are LPS mm (x to the patient's left,
y to the back, z to the head) of voxel centres.

An orientation is written as one letter per array axis, in the order of the axes: the side towards
which its index rises, out of L R, P A, S I. Stored volumes are as near to SPL as their axes allow
without interpolation: axes permuted and turned round, nothing else. `from_canonical` undoes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from itertools import permutations
from math import isfinite

import numpy as np
import numpy.typing as npt

from renalkit.domain.image import Clip, Mode, PixelStack

Affine = tuple[tuple[float, float, float, float], ...]
"""Four rows of four: (z, y, x, 1) -> (x, y, z, 1) in LPS mm."""

Floats = npt.NDArray[np.float64]

CANONICAL = "SPL"
_SIDES = ("RL", "AP", "IS")
"""Letters of falling and rising coordinate along LPS x, y and z."""


class Phase(StrEnum):
    """Contrast phase of a scan."""

    NON_CONTRAST = "non-contrast"
    CORTICOMEDULLARY = "corticomedullary"
    NEPHROGRAPHIC = "nephrographic"
    EXCRETORY = "excretory"


class PhaseSource(StrEnum):
    """What a contrast phase was read from."""

    HEADER = "header"
    HU = "hu"


def affine_of(matrix: npt.ArrayLike) -> Affine:
    """A 4 x 4 array as plain numbers."""
    rows = np.asarray(matrix, np.float64)
    return tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in rows)


@dataclass(frozen=True)
class VolumeGrid:
    """The voxel centres of a volume.

    shape: (Z,Y,X). affine_lps_mm: of a grid with even steps. slice_at: where along the slice step
    each slice lies, rising, where they are not evenly spaced (a missing slice gives 0, 1, 3);
    None where slice k lies at k.
    """

    shape: tuple[int, int, int]
    affine_lps_mm: Affine
    slice_at: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise ValueError(f"grid must be (Z,Y,X) with voxels, got {self.shape}")
        affine = np.asarray(self.affine_lps_mm, np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise ValueError("affine must be 4 x 4 and finite")
        if not np.array_equal(affine[3], (0, 0, 0, 1)):
            raise ValueError("affine must end in the row 0, 0, 0, 1")
        if abs(np.linalg.det(affine[:3, :3])) < 1e-9:
            raise ValueError("affine is singular: the voxel grid has no volume")
        if self.slice_at is None:
            return
        rising = all(b > a for a, b in zip(self.slice_at, self.slice_at[1:], strict=False))
        if len(self.slice_at) != self.shape[0] or not rising or not isfinite(sum(self.slice_at)):
            raise ValueError("places of slices must rise, one per slice")

    @cached_property
    def steps_mm(self) -> Floats:
        """(3,3); columns are the steps in mm of z, y and x index."""
        return np.asarray(self.affine_lps_mm, np.float64)[:3, :3]

    @cached_property
    def first_mm(self) -> Floats:
        """(3,) position of index (0, 0, 0) of the even grid."""
        return np.asarray(self.affine_lps_mm, np.float64)[:3, 3]

    @cached_property
    def places(self) -> Floats:
        """(Z,) where along the slice step each slice lies."""
        if self.slice_at is None:
            return np.arange(self.shape[0], dtype=np.float64)
        return np.asarray(self.slice_at, np.float64)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """(z, y, x): distance of neighbouring planes of voxels, and of rows and columns in them.

        Across a shear the planes lie nearer than their step is long. Where slices are unevenly
        spaced, the commonest distance.
        """
        z, y, x = (self.steps_mm[:, i] for i in range(3))
        normal = np.cross(x, y)
        apart = abs(float(z @ normal) / float(np.linalg.norm(normal)))
        return apart, float(np.linalg.norm(y)), float(np.linalg.norm(x))

    @property
    def voxel_mm3(self) -> float:
        """Volume of one voxel."""
        return abs(float(np.linalg.det(self.steps_mm)))

    @property
    def shear_deg(self) -> float:
        """Angle between the way from slice to slice and the normal of the slices."""
        z, y, x = (self.steps_mm[:, i] for i in range(3))
        normal = np.cross(x, y)
        share = abs(float(z @ normal)) / float(np.linalg.norm(z) * np.linalg.norm(normal))
        return float(np.degrees(np.arccos(min(1.0, share))))

    @property
    def turn_deg(self) -> float:
        """Largest angle between rows, columns or normal and the body axis nearest to each."""
        y, x = self.steps_mm[:, 1], self.steps_mm[:, 2]
        shares = [float(np.abs(v).max() / np.linalg.norm(v)) for v in (x, y, np.cross(x, y))]
        return float(np.degrees(np.arccos(min(1.0, *shares))))

    @property
    def upright(self) -> bool:
        """Whether each axis runs along a body axis, to a hundredth of a voxel over its length."""
        shift = np.abs(self.steps_mm) * (np.asarray(self.shape) - 1)
        off = shift[~_nearest(self.steps_mm)]
        return bool(off.max(initial=0.0) <= 0.01 * min(self.spacing_mm))

    @property
    def axes(self) -> str:
        """One letter per array axis; see the head of this file."""
        return axes_of(self.steps_mm)

    def to_lps(self, index: npt.ArrayLike) -> Floats:
        """(N,3) positions in mm of indices (N,3) as (z, y, x), fractions allowed."""
        at = np.array(index, np.float64, ndmin=2)
        at[:, 0] = _between(at[:, 0], np.arange(self.shape[0], dtype=np.float64), self.places)
        return at @ self.steps_mm.T + self.first_mm

    def to_index(self, lps_mm: npt.ArrayLike) -> Floats:
        """(N,3) fractional indices (z, y, x) of positions (N,3); outside the volume too."""
        points = np.array(lps_mm, np.float64, ndmin=2) - self.first_mm
        at = points @ np.linalg.inv(self.steps_mm).T
        at[:, 0] = _between(at[:, 0], self.places, np.arange(self.shape[0], dtype=np.float64))
        return at

    @property
    def corners_mm(self) -> Floats:
        """(8,3) positions of the outer corners of the outer voxels."""
        ends = [(-0.5, n - 0.5) for n in self.shape]
        return self.to_lps([(z, y, x) for z in ends[0] for y in ends[1] for x in ends[2]])

    def shift_from(self, other: VolumeGrid) -> float:
        """How far apart the same voxel lies in two grids at most, in voxels; inf for other shapes.

        Steps are even between slices, so the outer voxels of the first and last slice, and of each
        unevenly spaced one, tell it.
        """
        if self.shape != other.shape:
            return float("inf")
        slices = range(self.shape[0]) if self.slice_at or other.slice_at else (0, self.shape[0] - 1)
        ends = [(0, n - 1) for n in self.shape[1:]]
        index = np.array([(z, y, x) for z in slices for y in ends[0] for x in ends[1]], float)
        apart = np.linalg.norm(self.to_lps(index) - other.to_lps(index), axis=1)
        return float(apart.max()) / min(self.spacing_mm)


def _between(values: Floats, nodes: Floats, results: Floats) -> Floats:
    """Linear interpolation that goes on with the outer steps beyond the ends."""
    if len(nodes) == 1:
        return values - nodes[0] + results[0]
    at = np.clip(np.searchsorted(nodes, values, side="right") - 1, 0, len(nodes) - 2)
    share = (values - nodes[at]) / (nodes[at + 1] - nodes[at])
    return results[at] + share * (results[at + 1] - results[at])


def _nearest(steps: Floats) -> npt.NDArray[np.bool_]:
    """(3,3) which body axis (row) each array axis (column) is taken for; one each."""
    share = np.abs(steps) / np.linalg.norm(steps, axis=0)
    best = max(
        permutations(range(3)), key=lambda rows: sum(share[r, c] for c, r in enumerate(rows))
    )
    chosen = np.zeros((3, 3), bool)
    chosen[list(best), range(3)] = True
    return chosen


def axes_of(steps_mm: Floats) -> str:
    """The letters of three steps (columns) in mm.

    >>> axes_of(np.array([[0, 0, 0.8], [0, 0.8, 0], [-3.0, 0, 0]]))
    'IPL'
    """
    chosen = _nearest(steps_mm)
    letters: list[str] = []
    for column in range(3):
        row = int(np.flatnonzero(chosen[:, column])[0])
        letters.append(_SIDES[row][int(steps_mm[row, column] > 0)])
    return "".join(letters)


def _order(axes: str) -> tuple[list[int], list[bool]]:
    """Source axis and whether it runs backwards, for each axis of the canonical array."""
    pairs = [next(p for p in _SIDES if letter in p) for letter in CANONICAL]
    places = [next((i for i, a in enumerate(axes) if a in pair), -1) for pair in pairs]
    if len(axes) != 3 or sorted(places) != [0, 1, 2]:
        raise ValueError(f"'{axes}' does not name three different body axes, as SPL does")
    return places, [axes[i] != letter for i, letter in zip(places, CANONICAL, strict=True)]


def to_canonical(array: npt.NDArray[np.generic], axes: str) -> npt.NDArray[np.generic]:
    """A view of the array (three axes, of these letters) whose axes are those of SPL."""
    places, turned = _order(axes)
    return array.transpose(places)[tuple(slice(None, None, -1 if t else 1) for t in turned)]


def from_canonical(array: npt.NDArray[np.generic], axes: str) -> npt.NDArray[np.generic]:
    """The inverse: a view of an array (Z,Y,X) with the axes its source has."""
    places, turned = _order(axes)
    straight = array[tuple(slice(None, None, -1 if t else 1) for t in turned)]
    return straight.transpose([places.index(i) for i in range(3)])


def canonical_grid(shape: tuple[int, int, int], affine: npt.ArrayLike) -> tuple[VolumeGrid, str]:
    """The grid of `to_canonical(array, axes)` and these axes, from the array's own shape and affine
    (index in the order of its axes, 1 -> LPS mm).

    Raises:
        ValueError: an affine that is not finite or singular.
    """
    source = VolumeGrid(shape, affine_of(affine))
    axes = source.axes
    places, turned = _order(axes)
    matrix = np.eye(4)
    first = source.first_mm.copy()
    for axis, (place, back) in enumerate(zip(places, turned, strict=True)):
        step = source.steps_mm[:, place]
        matrix[:3, axis] = -step if back else step
        if back:
            first += step * (shape[place] - 1)
    matrix[:3, 3] = first
    size = tuple(shape[i] for i in places)
    return VolumeGrid((size[0], size[1], size[2]), affine_of(matrix)), axes


def source_affine(grid: VolumeGrid, axes: str) -> Floats:
    """(4,4) index of `from_canonical(array, axes)`, 1 -> LPS mm; of an evenly spaced grid."""
    places, turned = _order(axes)
    matrix = np.eye(4)
    matrix[:3, 3] = grid.first_mm
    for axis, (place, back) in enumerate(zip(places, turned, strict=True)):
        step = grid.steps_mm[:, axis]
        matrix[:3, place] = -step if back else step
        if back:
            matrix[:3, 3] += step * (grid.shape[axis] - 1)
    return matrix


@dataclass(frozen=True, slots=True)
class LabelMap:
    """The reference segmentation of a volume as it was drawn, (Z,Y,X) uint8 on the same grid.

    Values: 0 neither, 1 kidney, 2 tumour, 3 cyst. sha256: see `pixel_sha256`.
    """

    pixels: PixelStack = field(compare=False, repr=False)
    sha256: str


KIDNEY, TUMOUR, CYST = 1, 2, 3

AIR_HU = -1024
WINDOW_HU = (-200.0, 300.0)
"""Least and most that networks see, in training and use, and that pictures show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume(Clip):
    """A CT volume (Z,Y,X) int16 in HU, its frames being its slices from the feet to the head.

    source_axes: letters of the file's own array, for `from_canonical`; of DICOM, slices in the
    order of these frames, then rows and columns. phase: None where unknown. labels: None where
    nobody drew any.
    """

    grid: VolumeGrid
    source_axes: str = CANONICAL
    phase: Phase | None = None
    phase_source: PhaseSource | None = None
    labels: LabelMap | None = None

    def __post_init__(self) -> None:
        Clip.__post_init__(self)
        if tuple(self.pixels.shape) != self.grid.shape:
            raise ValueError(f"volume {tuple(self.pixels.shape)} on a grid {self.grid.shape}")
        if self.mode is not Mode.CT:
            raise ValueError(f"a volume of mode {self.mode}")
        if (self.phase is None) != (self.phase_source is None):
            raise ValueError("a contrast phase needs its source and the reverse")
        if self.labels is not None and tuple(self.labels.pixels.shape) != self.grid.shape:
            raise ValueError(f"labels {tuple(self.labels.pixels.shape)} on {self.grid.shape}")
        _order(self.source_axes)
