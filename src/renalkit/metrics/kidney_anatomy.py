"""Where are the kidneys of a label volume, and where would their outlines be without masses?

A segmentation (1 kidney, 2 tumour, 3 cyst) holds neither the capsule under a mass, nor the renal
sinus, nor the collecting system. What nephrometry asks of them is estimated here, and says so:

- outline: the convex hull of the parenchyma, less what is thinner than about 5 mm (labels often
  leave a shell of kidney around a mass, which is no kidney's outline). Where it runs through a
  mass, so that the mass hides the surface, an ellipsoid fitted to the hull elsewhere takes its
  place as far as it lies outside the hull. The hull bridges the hilum.
- sinus: the largest connected region inside the hull, deeper than 4 mm below it, that is labelled
  neither kidney nor mass. That is the sinus fat and its vessels; the collecting system lies in it,
  but where it is labelled kidney (as in KiTS) it is not seen.
- polar lines: the highest and lowest axial level at which the sinus is open to the outside, so that
  the medial lip of parenchyma is interrupted (Kutikov and Uzzo 2009); sinus lines: the ends of the
  sinus itself (Ficarra 2009).

All is computed from points in LPS mm (x to the patient's left, y to the back, z to the head): the
order and direction of the axes, spacing, shear and uneven slices of the grid do not matter but for
the voxels' size. Shape legend: N points, K directions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import pi, sqrt

import numpy as np
import numpy.typing as npt
from scipy import ndimage, spatial

from renalkit.domain.study import Side
from renalkit.domain.volume import CYST, KIDNEY, TUMOUR, VolumeGrid
from renalkit.errors import InputRefused, Reason

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.integer]

LEAST_KIDNEY_MM3 = 5_000.0
"""A connected part of less parenchyma is a crumb, no kidney."""

LEAST_SINUS_MM3 = 500.0
SINUS_DEPTH_MM = 4.0
FUSED_WIDTH_MM = 120.0
"""Connected parenchyma wider than this from left to right is two fused kidneys."""

MOST_HIDDEN = 0.35
"""Share of the outline's directions that masses may hide before the outline is called uncertain."""

_MOST_STRETCHED = 1.5
_APART_MM = 40.0
LATTICE_MM = 2.0
_THIN_MM = 2.0
_CHUNK = 2_000


def directions(count: int) -> Floats:
    """Evenly spread unit vectors (K,3): a Fibonacci lattice."""
    index = np.arange(count) + 0.5
    z = 1.0 - 2.0 * index / count
    angle = index * pi * (3.0 - sqrt(5.0))
    radius = np.sqrt(1.0 - z**2)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), z], axis=1)


_AROUND = directions(600)
_NEAREST = spatial.KDTree(_AROUND)


def slice_shares(grid: VolumeGrid) -> Floats:
    """(Z,) how many voxels' volume a voxel of each slice stands for: 1 where slices are even, else
    half the way to both neighbours (at the ends, the whole way to the only one)."""
    if grid.slice_at is None or grid.shape[0] == 1:
        return np.ones(grid.shape[0])
    steps = np.diff(grid.places)
    return (np.append(steps[0], steps) + np.append(steps, steps[-1])) / 2


def check_labels(labels: Labels, grid: VolumeGrid, where: str = "labels") -> None:
    """Raises InputRefused: MASK_MISMATCH, another shape than the grid; UNKNOWN_LABEL, values other
    than 0 to 3."""
    if tuple(labels.shape) != grid.shape:
        raise InputRefused(
            Reason.MASK_MISMATCH,
            f"{tuple(labels.shape)} voxels on a scan of {grid.shape}",
            where=where,
            expected="labels on the grid of the scan",
            remedy="write the labels on the grid of the scan",
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputRefused(
            Reason.UNKNOWN_LABEL,
            f"labels of type {labels.dtype}",
            where=where,
            expected="integers: 0 neither, 1 kidney, 2 tumour, 3 cyst",
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high > CYST:
        raise InputRefused(
            Reason.UNKNOWN_LABEL,
            f"label values from {low} to {high}",
            where=where,
            expected="0 neither, 1 kidney, 2 tumour, 3 cyst",
            remedy="renumber the labels",
        )


def points_mm(mask: Bools, grid: VolumeGrid, first: tuple[int, int, int] = (0, 0, 0)) -> Floats:
    """(N,3) positions of the voxels of a mask that begins at voxel `first` of the grid."""
    return grid.to_lps(np.argwhere(mask) + np.asarray(first))


def surface(mask: Bools) -> Bools:
    """The voxels of a mask with a neighbour (of six) outside it; beyond the array is outside."""
    return mask & ~ndimage.binary_erosion(mask)


@dataclass(frozen=True, eq=False)
class Outline:
    """The closed surface of a kidney without its masses, seen from its centre.

    centre_mm: mean of the parenchyma. whiten: (3,3), from mm to units in which the parenchyma is
    about as wide everywhere. supports: (K,) of the hull in the directions of a fixed lattice.
    hidden: (K,) where a mass hides the hull. quadric: (9,) of the surface fitted elsewhere, None
    where none is an ellipsoid. misfit_mm: how far the fit leaves the hull elsewhere (RMS).
    """

    centre_mm: Floats
    whiten: Floats
    supports: Floats
    hidden: Bools
    quadric: Floats | None
    misfit_mm: float

    @property
    def hidden_share(self) -> float:
        return float(self.hidden.mean())

    @property
    def limit(self) -> float:
        """Whitened radius that the outline does not exceed."""
        return _MOST_STRETCHED * float(self.supports.max())

    @property
    def box_mm(self) -> tuple[Floats, Floats]:
        """Lowest and highest (x, y, z) of the outline, and a little more."""
        radius = self._radius(_AROUND, hull_only=False)
        ends = (1.03 * radius[:, None] * _AROUND) @ np.linalg.inv(self.whiten).T
        return self.centre_mm + ends.min(axis=0), self.centre_mm + ends.max(axis=0)

    @cached_property
    def _faces(self) -> npt.NDArray[np.float32]:
        return (_AROUND / self.supports[:, None]).astype(np.float32)

    def depth_mm(self, points: Floats, *, hull_only: bool = False) -> Floats:
        """(N,) depth below the outline in mm along the way from the centre, negative outside."""
        out = np.empty(len(points))
        for k in range(0, len(points), _CHUNK):
            away = points[k : k + _CHUNK] - self.centre_mm
            local = away @ self.whiten.T
            length = np.maximum(np.linalg.norm(local, axis=1), 1e-9)
            radius = self._radius(local / length[:, None], hull_only)
            out[k : k + _CHUNK] = (radius / length - 1) * np.linalg.norm(away, axis=1)
        return out

    def _radius(self, to: Floats, hull_only: bool) -> Floats:
        """(N,) of the outline in unit directions (N,3), whitened."""
        # A face of the hull is n . q = h; the way out ends at the first.
        radius = 1 / (to.astype(np.float32) @ self._faces.T).max(axis=1).astype(np.float64)
        if hull_only or self.quadric is None:
            return radius
        under = self.hidden[_NEAREST.query(to)[1]]
        fitted = np.minimum(_quadric_radius(self.quadric, to[under]), self.limit)
        radius[under] = np.maximum(radius[under], fitted)
        return radius


def _quadric_terms(q: Floats) -> Floats:
    x, y, z = q.T
    return np.stack([x * x, y * y, z * z, 2 * x * y, 2 * x * z, 2 * y * z, x, y, z], axis=1)


def _quadric_radius(quadric: Floats, to: Floats) -> Floats:
    """Where the rays (N,3) meet the surface terms . quadric = 1."""
    terms = _quadric_terms(to)
    a, b = terms[:, :6] @ quadric[:6], terms[:, 6:] @ quadric[6:]
    return 2 / (b + np.sqrt(b * b + 4 * a))


def outline_of(parenchyma: Floats, rim: Floats, labels: Labels, grid: VolumeGrid) -> Outline:
    """The outline of a kidney from the positions (N,3) of its parenchyma's voxels and of those at
    its surface; labels tell where a mass hides it."""
    centre = parenchyma.mean(axis=0)
    spread, axes = np.linalg.eigh(np.cov((parenchyma - centre).T))
    # A solid ellipsoid's variance along an axis is a fifth of its squared semi-axis.
    scale = np.sqrt(5 * np.maximum(spread, 1.0))
    whiten = (axes / scale).T
    local = (rim - centre) @ whiten.T
    supports = np.full(len(_AROUND), -np.inf)
    for k in range(0, len(local), _CHUNK):
        supports = np.maximum(supports, (local[k : k + _CHUNK] @ _AROUND.T).max(axis=0))
    # On ellipsoids of a kidney's size the outermost centres of voxels lie a tenth of a voxel, on
    # average over directions, below the surface, whatever the spacing (0.6 to 5 mm).
    supports = supports + 0.1 * np.linalg.norm(_AROUND @ (whiten @ grid.steps_mm), axis=1)
    plain = Outline(centre, whiten, supports, np.zeros(len(_AROUND), bool), None, 0.0)
    radius = plain._radius(_AROUND, hull_only=True)  # pyright: ignore[reportPrivateUsage]
    back = axes * scale
    hull = centre + (radius[:, None] * _AROUND) @ back.T
    hidden = np.isin(looked_up(labels, grid, hull), (TUMOUR, CYST))
    seen = radius[~hidden, None] * _AROUND[~hidden]
    quadric, misfit = None, 0.0
    if hidden.any() and len(seen) > 50:
        found = np.asarray(
            np.linalg.lstsq(_quadric_terms(seen), np.ones(len(seen)), rcond=None)[0], np.float64
        )
        xx, yy, zz, xy, xz, yz = found[:6]
        if np.linalg.eigvalsh([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]).min() > 0.05:
            quadric = found
            off = _quadric_radius(found, _AROUND[~hidden]) - radius[~hidden]
            misfit = float(np.sqrt(np.mean((off * np.linalg.norm(seen @ back.T, axis=1)) ** 2)))
    return Outline(centre, whiten, supports, hidden, quadric, misfit)


def looked_up(labels: Labels, grid: VolumeGrid, points: Floats) -> Labels:
    """(N,) label of the voxel nearest to each point, 0 outside the volume."""
    index = np.floor(grid.to_index(points) + 0.5).astype(np.intp)
    inside = ((index >= 0) & (index < grid.shape)).all(axis=1)
    found = np.zeros(len(points), labels.dtype)
    found[inside] = labels[tuple(index[inside].T)]
    return found


def _from_outside(mask: Bools) -> Floats:
    """Distance in mm of each point of a lattice to the nearest one outside the mask."""
    return np.asarray(ndimage.distance_transform_edt(mask, sampling=LATTICE_MM), np.float64)


def _lattice(low: Floats, high: Floats) -> tuple[Floats, tuple[int, int, int]]:
    """Points (N,3) of an even lattice in LPS over a box, z slowest, and how many along z, y, x."""
    x, y, z = (
        np.arange(np.floor(a / LATTICE_MM), np.ceil(b / LATTICE_MM) + 1) * LATTICE_MM
        for a, b in zip(low, high, strict=True)
    )
    at = np.stack([a.ravel() for a in np.meshgrid(z, y, x, indexing="ij")], axis=1)
    return at[:, ::-1].copy(), (len(z), len(y), len(x))


@dataclass(frozen=True, eq=False)
class Sinus:
    """Estimated sinus. points_mm: (N,3), a lattice. lines_mm: z of its lower and upper end.
    polar_mm: z of the lower and upper polar line, None where no level of it is open."""

    points_mm: Floats
    lines_mm: tuple[float, float]
    polar_mm: tuple[float, float] | None


@dataclass(frozen=True, eq=False)
class Kidney:
    """One kidney of a label volume. parenchyma_mm, rim_mm: (N,3) of all its voxels and of those at
    its surface. cut: it touches the scan's border."""

    side: Side
    volume_mm3: float
    parenchyma_mm: Floats
    rim_mm: Floats
    cut: bool
    labels: Labels
    grid: VolumeGrid

    @cached_property
    def outline(self) -> Outline:
        thick = self._thick(self.parenchyma_mm)
        inner, rim = self.parenchyma_mm[thick], self.rim_mm[self._thick(self.rim_mm)]
        if not len(rim):
            inner, rim = self.parenchyma_mm, self.rim_mm
        return outline_of(inner, rim, self.labels, self.grid)

    def _thick(self, points: Floats) -> Bools:
        """Which points lie in parenchyma some 5 mm thick and more."""
        first, shape, opened = self._opened
        index = np.floor((points[:, ::-1] - first) / LATTICE_MM + 0.5).astype(np.intp)
        return opened[tuple(np.clip(index, 0, np.asarray(shape) - 1).T)]

    @cached_property
    def _opened(self) -> tuple[Floats, tuple[int, int, int], Bools]:
        """First point (z, y, x), shape and values of the parenchyma opened by that ball."""
        low, high = self.rim_mm.min(axis=0) - 2, self.rim_mm.max(axis=0) + 2
        at, shape = _lattice(low, high)
        solid = (looked_up(self.labels, self.grid, at) == KIDNEY).reshape(shape)
        core = _from_outside(solid) > _THIN_MM
        return at[0, ::-1], shape, _from_outside(~core) <= _THIN_MM + LATTICE_MM / 2

    @cached_property
    def _lattice(self) -> tuple[Floats, tuple[int, int, int]]:
        """Even points in LPS over the outline and a margin, and how many along z, y and x."""
        return _lattice(*self.outline.box_mm)

    @cached_property
    def _depths(self) -> tuple[Floats, Floats]:
        """Depth of the lattice's points below the outline and below the hull alone."""
        at, _ = self._lattice
        outer = self.outline.depth_mm(at)
        if self.outline.quadric is None:
            return outer, outer
        return outer, self.outline.depth_mm(at, hull_only=True)

    @cached_property
    def centre_mm(self) -> Floats:
        """Centre of gravity of all that lies within the outline."""
        at, _ = self._lattice
        return at[self._depths[0] >= 0].mean(axis=0)

    @cached_property
    def long_axis(self) -> tuple[Floats, float, float]:
        """Unit vector of the long axis towards the head, and where along it, from the centre, the
        lower and the upper end of the outline lie in mm."""
        at, _ = self._lattice
        away = at[self._depths[0] >= 0] - self.centre_mm
        axis = np.linalg.eigh(np.cov(away.T))[1][:, -1]
        axis = axis if axis[2] >= 0 else -axis
        along = away @ axis
        return axis, float(along.min()), float(along.max())

    @cached_property
    def sinus(self) -> Sinus | None:
        """None where the labels leave no room for one inside the kidney."""
        at, shape = self._lattice
        free = (looked_up(self.labels, self.grid, at) == 0).reshape(shape)
        deep = free & (self._depths[1] >= SINUS_DEPTH_MM).reshape(shape)
        parts = np.zeros(shape, np.int32)
        ndimage.label(deep, np.ones((3, 3, 3)), output=parts)
        sizes = np.bincount(parts.ravel())[1:]
        if not sizes.size or sizes.max() * LATTICE_MM**3 < LEAST_SINUS_MM3:
            return None
        chosen = parts == int(sizes.argmax()) + 1
        z = at.reshape(*shape, 3)[:, 0, 0, 2]
        levels = np.flatnonzero(chosen.any(axis=(1, 2)))
        outside = np.zeros((shape[1] + 2, shape[2] + 2), np.int32)
        is_open: list[int] = []
        for k in levels.tolist():
            # Beyond the lattice all is free, so that what is open leads to its corner.
            around = np.pad(free[k], 1, constant_values=True)
            ndimage.label(around, np.ones((3, 3)), output=outside)
            if (outside[1:-1, 1:-1][chosen[k]] == outside[0, 0]).any():
                is_open.append(k)
        half = LATTICE_MM / 2
        ends = (float(z[levels[0]]) - half, float(z[levels[-1]]) + half)
        polar = (float(z[is_open[0]]) - half, float(z[is_open[-1]]) + half) if is_open else None
        return Sinus(at[chosen.ravel()], ends, polar)


@dataclass(frozen=True, eq=False)
class Kidneys:
    """Kidneys of a label volume, the right one first.

    fused: one piece of parenchyma on both sides; each half then counts as a kidney, split in the
    middle of the piece. midline_mm: x of the body's middle. notes: what was assumed.
    """

    kidneys: tuple[Kidney, ...]
    fused: bool
    midline_mm: float
    notes: tuple[str, ...]

    def side_of(self, x_mm: float) -> Side:
        return Side.LEFT if x_mm > self.midline_mm else Side.RIGHT


def find_kidneys(labels: Labels, grid: VolumeGrid, midline_mm: float | None = None) -> Kidneys:
    """The kidneys of labels (Z,Y,X): 0 neither, 1 kidney, 2 tumour, 3 cyst.

    A kidney is what hangs together of kidney and masses, with at least 5 ml of parenchyma; further
    pieces on the same side belong to it. midline_mm: x of the body's middle, for scans with one
    kidney only; with two, it lies halfway between them, and without either, in the middle of the
    scan.

    Raises:
        InputRefused: MASK_MISMATCH, UNKNOWN_LABEL; see `check_labels`.
    """
    check_labels(labels, grid)
    middle = float(grid.corners_mm[:, 0].mean())
    box = _box(labels > 0)
    if box is None:
        return Kidneys(
            (), False, middle if midline_mm is None else midline_mm, ("nothing labelled",)
        )
    part = labels[box]
    first = (box[0].start, box[1].start, box[2].start)
    pieces = np.zeros(part.shape, np.int32)
    count = int(ndimage.label(part > 0, np.ones((3, 3, 3)), output=pieces))  # pyright: ignore
    at = np.argwhere(part == KIDNEY)
    share = slice_shares(grid)[at[:, 0] + first[0]] * grid.voxel_mm3
    piece = pieces[tuple(at.T)]
    sizes = np.bincount(piece, share, minlength=count + 1)
    position = grid.to_lps(at + np.asarray(first))
    whole = [p for p in np.argsort(-sizes).tolist() if sizes[p] >= LEAST_KIDNEY_MM3]
    if not whole:
        note = "no kidney is labelled" if not len(at) else "less than 5 ml of kidney is labelled"
        return Kidneys((), False, middle if midline_mm is None else midline_mm, (note,))
    notes: list[str] = []
    fused, centres = False, [float(position[piece == p, 0].mean()) for p in whole[:2]]
    if len(whole) > 1 and abs(centres[0] - centres[1]) >= _APART_MM:
        midline = sum(centres) / 2
    else:
        ends = [float(f(position[piece == whole[0], 0])) for f in (np.min, np.max)]
        fused = ends[1] - ends[0] > FUSED_WIDTH_MM
        if fused:
            midline = sum(ends) / 2
            notes.append("fused kidneys: one piece of parenchyma on both sides")
        elif midline_mm is not None:
            midline = midline_mm
        else:
            midline = middle
            notes.append("one kidney: left and right by the middle of the scan")
    counted = np.isin(piece, whole)
    outer = surface(part == KIDNEY)[tuple(at.T)]
    kidneys: list[Kidney] = []
    for side, mine in (
        (Side.RIGHT, counted & (position[:, 0] <= midline)),
        (Side.LEFT, counted & (position[:, 0] > midline)),
    ):
        volume = float(share[mine].sum())
        if volume < LEAST_KIDNEY_MM3:
            continue
        index = at[mine] + np.asarray(first)
        cut = bool((index == 0).any() or (index == np.asarray(grid.shape) - 1).any())
        kidneys.append(
            Kidney(side, volume, position[mine], position[mine & outer], cut, labels, grid)
        )
    if len(kidneys) == 1 and not fused and len(whole) > 1:
        notes.append("one kidney, in pieces")
    return Kidneys(tuple(kidneys), fused, midline, tuple(notes))


def _box(mask: Bools) -> tuple[slice, slice, slice] | None:
    found = ndimage.find_objects(mask.view(np.uint8))
    return found[0] if found else None
