"""How much of each voxel does a shape cover?

Points and vectors are (x, y, z) in mm in the patient system LPS (x left, y posterior, z head);
arrays are (Z, Y, X). A shape is evaluated in its bounding box only, and from coordinates only, so
a volume may be rendered in any number of slabs. Partial volume is analytic to first order: with a
level f (positive inside, 0 on the surface) a voxel is covered by

    clip(1/2 + f / s, 0, 1),    s^2 = sum_j (df/dx_j h_j)^2,

h_j the voxel's edge widened by the scanner's blur: a ramp as wide, by its variance, as a voxel seen
along the normal. It is exact for a plane along a voxel face; a ball of radius R gains a share of
about s^2 / 4R^2 (s in mm). Shapes smaller than some voxels are evaluated on a finer grid and
averaged.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.floating[Any]]
"""Values on a grid; float32 throughout."""
Points = npt.NDArray[np.float64]
Vector = tuple[float, float, float]
Rotation = tuple[Vector, Vector, Vector]
"""Unit vectors of the shape's own axes, one per row."""
Box = tuple[slice, slice, slice]

UPRIGHT: Rotation = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
BLUR_MM = 0.7
_MOST_FINE = 5


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Voxel centres of a slab: x (X,), y (Y, 1), z (Z, 1, 1) in mm; step_mm of x, y, z."""

    x: Field
    y: Field
    z: Field
    step_mm: Vector

    @classmethod
    def regular(cls, origin_mm: Vector, step_mm: Vector, shape: tuple[int, int, int]) -> Grid:
        """Grid of shape (Z, Y, X) with the centre of its first voxel at origin_mm (x, y, z)."""
        depth, rows, cols = shape
        x, y, z = (
            (start + step * np.arange(count)).astype(np.float32)
            for start, step, count in zip(origin_mm, step_mm, (cols, rows, depth), strict=True)
        )
        return cls(x, y[:, None], z[:, None, None], step_mm)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels (Z, Y, X)."""
        return len(self.z), len(self.y), len(self.x)

    @property
    def edges_mm(self) -> Vector:
        """Voxel edges x, y, z widened by the scanner's blur."""
        x, y, z = self.step_mm
        return math.hypot(x, BLUR_MM), math.hypot(y, BLUR_MM), math.hypot(z, BLUR_MM)

    def box(self, centre_mm: Vector, half_mm: Vector) -> Box | None:
        """The part of the grid within half_mm of a point plus one voxel; None outside the grid."""
        slices: list[slice] = []
        for axis, centre, half, step in zip(
            (self.x, self.y, self.z), centre_mm, half_mm, self.step_mm, strict=True
        ):
            first = float(axis.flat[0])
            low = max(0, math.floor((centre - half - first) / step - 1.0))
            high = min(axis.size, math.ceil((centre + half - first) / step + 1.0) + 1)
            if high <= low:
                return None
            slices.append(slice(low, high))
        return slices[2], slices[1], slices[0]

    def cut(self, box: Box) -> Grid:
        """The grid of a box."""
        return Grid(self.x[box[2]], self.y[box[1]], self.z[box[0]], self.step_mm)

    def finer(self, factors: tuple[int, int, int]) -> Grid:
        """Each voxel divided into factors = (x, y, z) parts."""
        axes: list[Field] = []
        steps: list[float] = []
        for axis, step, factor in zip((self.x, self.y, self.z), self.step_mm, factors, strict=True):
            offsets = (np.arange(factor) + 0.5) / factor - 0.5
            axes.append((axis.reshape(-1, 1) + step * offsets).ravel().astype(np.float32))
            steps.append(step / factor)
        x, y, z = axes
        return Grid(x, y[:, None], z[:, None, None], (steps[0], steps[1], steps[2]))


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """A shape on the voxels of a box: level (positive inside), its change over a voxel, its unit.

    unit_mm: millimetres per unit of level near the surface.
    """

    box: Box
    level: Field
    slope: Field
    unit_mm: float

    def cover(self, inset_mm: float = 0.0, softness: float = 1.0) -> Field:
        """Coverage 0..1 by the shape inset by so much; softness widens the edge."""
        level = self.level - np.float32(inset_mm / self.unit_mm)
        level /= self.slope if softness == 1.0 else self.slope * np.float32(softness)
        level += np.float32(0.5)
        return np.clip(level, 0.0, 1.0, out=level)


@dataclass(frozen=True, slots=True)
class Ellipsoid:
    """An ellipsoid: centre, semi-axes and the directions of its axes."""

    centre_mm: Vector
    semi_axes_mm: Vector
    rotation: Rotation = UPRIGHT

    @property
    def half_extent_mm(self) -> Vector:
        """Half the edges of its bounding box along x, y, z."""
        axes = np.asarray(self.semi_axes_mm)[:, None] * np.asarray(self.rotation)
        x, y, z = np.sqrt((axes**2).sum(axis=0)).tolist()
        return x, y, z

    def local(self, points_mm: Points) -> Points:
        """Points (N, 3) in units of the semi-axes along its own axes."""
        offset = points_mm - np.asarray(self.centre_mm)
        return offset @ np.asarray(self.rotation).T / np.asarray(self.semi_axes_mm)

    def world(self, local: Points) -> Points:
        """Inverse of `local`."""
        return np.asarray(self.centre_mm) + (local * self.semi_axes_mm) @ np.asarray(self.rotation)


def rotation_of(up: Vector, out: Vector) -> Rotation:
    """Right-handed axes: the first along `up`, the second as near to `out` as possible."""
    first = np.asarray(up, float)
    first /= np.linalg.norm(first)
    second = np.asarray(out, float) - first * float(np.dot(first, out))
    second /= np.linalg.norm(second)
    rows = np.stack([first, second, np.cross(first, second)]).tolist()
    return tuple(tuple(row) for row in rows)  # type: ignore[return-value]


def random_rotation(rng: np.random.Generator) -> Rotation:
    """Axes in random directions."""
    up, out = rng.standard_normal((2, 3)).tolist()
    return rotation_of(tuple(up), tuple(out))


def unit_sphere(count: int) -> Points:
    """About evenly spread directions (count, 3) (Fibonacci lattice)."""
    index = np.arange(count) + 0.5
    z = 1.0 - 2.0 * index / count
    angle = index * math.pi * (3.0 - math.sqrt(5.0))
    radius = np.sqrt(1.0 - z**2)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), z], axis=1)


def unit_ball(count: int) -> Points:
    """About evenly spread points (count, 3) inside the unit sphere."""
    radius = (np.arange(count) * 0.7548776662466927 % 1.0) ** (1.0 / 3.0)
    return unit_sphere(count) * radius[:, None]


def local_axes(grid: Grid, shape: Ellipsoid) -> tuple[Field, Field, Field]:
    """Coordinates of the grid in units of the semi-axes along the ellipsoid's axes."""
    matrix = np.asarray(shape.rotation) / np.asarray(shape.semi_axes_mm)[:, None]
    x, y, z = _offsets(grid, shape)
    u, v, w = (_affine(row, x, y, z) for row in matrix)
    return u, v, w


def radius_and_slope(grid: Grid, shape: Ellipsoid) -> tuple[Field, Field]:
    """Normalised radius (1 on the surface) and its change over one voxel, both (Z, Y, X)."""
    matrix = np.asarray(shape.rotation) / np.asarray(shape.semi_axes_mm)[:, None]
    gram = matrix.T @ matrix
    x, y, z = _offsets(grid, shape)
    square: Field | None = None
    slope: Field | None = None
    for row, offset, edge in zip(gram, (x, y, z), grid.edges_mm, strict=True):
        half_gradient = _affine(row, x, y, z)
        term = half_gradient * offset
        square = term if square is None else np.add(square, term, out=square)
        half_gradient *= np.float32(edge)
        half_gradient *= half_gradient
        slope = half_gradient if slope is None else np.add(slope, half_gradient, out=slope)
    assert square is not None
    assert slope is not None
    np.maximum(square, np.float32(1e-6), out=square)
    slope /= square
    np.maximum(slope, np.float32(1e-8), out=slope)
    return np.sqrt(square, out=square), np.sqrt(slope, out=slope)


def ellipsoid(grid: Grid, shape: Ellipsoid) -> Level | None:
    """An ellipsoid; None outside the grid."""
    box = grid.box(shape.centre_mm, shape.half_extent_mm)
    if box is None:
        return None
    radius, slope = radius_and_slope(grid.cut(box), shape)
    unit = float(np.prod(shape.semi_axes_mm)) ** (1 / 3)
    level = np.subtract(np.float32(1.0), radius, out=radius)
    return Level(box, level, slope, unit)


def cylinder(
    grid: Grid, centre_mm: Vector, semi_axes_mm: tuple[float, float], half_height_mm: float
) -> Level | None:
    """An upright elliptic cylinder; None outside the grid."""
    a, b = semi_axes_mm
    box = grid.box(centre_mm, (a, b, half_height_mm))
    if box is None:
        return None
    part = grid.cut(box)
    x, y, z = (
        axis - np.float32(centre)
        for axis, centre in zip((part.x, part.y, part.z), centre_mm, strict=True)
    )
    ex, ey, ez = part.edges_mm
    radius = np.hypot(x / np.float32(a), y / np.float32(b)) + np.float32(1e-4)
    steep_x, steep_y = np.abs(x) / np.float32(a * a), np.abs(y) / np.float32(b * b)
    # In mm: the distance to the mantle is (1 - r) / |grad r|.
    gradient = np.hypot(steep_x, steep_y) / radius + np.float32(1e-6)
    mantle = (np.float32(1.0) - radius) / gradient
    edge = np.hypot(steep_x * np.float32(ex), steep_y * np.float32(ey)) / (radius * gradient)
    edge = np.maximum(edge, np.float32(min(ex, ey)))
    end = np.float32(half_height_mm) - np.abs(z)
    at_end = end / np.float32(ez) < mantle / edge
    level = np.where(at_end, end, mantle)
    return Level(box, level, np.where(at_end, np.float32(ez), edge), 1.0)


def capsule(
    grid: Grid, start_mm: Vector, end_mm: Vector, radii_mm: tuple[float, float]
) -> Level | None:
    """The points near a line segment, radii at start and end; None outside the grid."""
    first, last = radii_mm
    start, end = np.asarray(start_mm), np.asarray(end_mm)
    middle = ((start + end) / 2).tolist()
    half = (np.abs(end - start) / 2 + max(radii_mm)).tolist()
    box = grid.box((middle[0], middle[1], middle[2]), (half[0], half[1], half[2]))
    if box is None:
        return None
    part = grid.cut(box)
    axis = end - start
    length2 = max(float(axis @ axis), 1e-9)
    dx, dy, dz = (
        coordinate - np.float32(origin)
        for coordinate, origin in zip((part.x, part.y, part.z), start, strict=True)
    )
    along = _affine(axis / length2, dx, dy, dz)
    np.clip(along, 0.0, 1.0, out=along)
    rx, ry, rz = (
        offset - along * np.float32(component)
        for offset, component in zip((dx, dy, dz), axis, strict=True)
    )
    distance = np.sqrt(rx * rx + ry * ry + rz * rz) + np.float32(1e-4)
    ex, ey, ez = (np.float32(edge) for edge in part.edges_mm)
    rx *= ex
    ry *= ey
    rz *= ez
    slope = np.sqrt(rx * rx + ry * ry + rz * rz) / distance
    # On the axis the distance has no gradient; the smallest edge stands in.
    np.maximum(slope, min(ex, ey, ez), out=slope)
    level = np.float32(last - first) * along
    level += np.float32(first)
    level -= distance
    return Level(box, level, slope, 1.0)


def averaged(grid: Grid, box: Box, smallest_mm: float, cover: Callable[[Grid], Field]) -> Field:
    """Coverage on a grid fine enough for a shape smallest_mm across, averaged over each voxel."""
    part = grid.cut(box)
    step = smallest_mm / 6.0
    fx, fy, fz = (min(_MOST_FINE, max(1, math.ceil(edge / step))) for edge in grid.step_mm)
    if fx == fy == fz == 1:
        return cover(part)
    fine = cover(part.finer((fx, fy, fz)))
    depth, rows, cols = part.shape
    blocks = fine.reshape(depth, fz, rows, fy, cols, fx)
    return blocks.mean(axis=(1, 3, 5), dtype=np.float32)


def texture(grid: Grid, grain_mm: float, seed: int, terms: int = 14) -> Field:
    """Smooth values of about mean 0 and deviation 1 over the grid (Z, Y, X): plane waves summed.

    cos(ax + by + cz + p) is the real part of a product of exponentials of one coordinate each, so
    a wave costs two multiplications and two additions a voxel.
    """
    rng = np.random.default_rng([seed, 0x7E])
    total = np.zeros(grid.shape, np.float32)
    for _ in range(terms):
        direction = rng.standard_normal(3)
        frequency = direction / np.linalg.norm(direction)
        frequency *= rng.uniform(0.4, 1.3) * math.pi / grain_mm
        fx, fy, fz = frequency.astype(np.float32)
        phase = np.float32(rng.uniform(0.0, 2.0 * math.pi))
        angle_xy = (fy * grid.y + phase) + fx * grid.x
        angle_z = fz * grid.z
        total += np.cos(angle_z) * np.cos(angle_xy)
        total -= np.sin(angle_z) * np.sin(angle_xy)
    total *= np.float32(math.sqrt(2.0 / terms))
    return total


def _offsets(grid: Grid, shape: Ellipsoid) -> tuple[Field, Field, Field]:
    x, y, z = (np.float32(component) for component in shape.centre_mm)
    return grid.x - x, grid.y - y, grid.z - z


def _affine(row: npt.NDArray[np.float64], x: Field, y: Field, z: Field) -> Field:
    a, b, c = (np.float32(value) for value in row)
    return (c * z + b * y) + a * x
