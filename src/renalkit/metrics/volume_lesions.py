"""What is each lesion of a CT label volume: where, how large, how dense, how deep in its kidney?

Everything is measured on the scan's own grid, in LPS mm. Sizes: the diameter of the ball of equal
volume, the largest distance within one axial slice, as radiologists measure it, and the largest
distance in space (Feret). Densities are means over all voxels of the lesion, its rim included.
What needs the kidney's outline or sinus is estimated (`kidney_anatomy`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from math import pi
from typing import cast

import numpy as np
import numpy.typing as npt
from scipy import ndimage, spatial

from renalkit.domain.image import PixelStack
from renalkit.domain.study import Side
from renalkit.domain.volume import CYST, KIDNEY, TUMOUR, Phase, VolumeGrid
from renalkit.errors import InputRefused, Reason
from renalkit.metrics.kidney_anatomy import (
    LATTICE_MM,
    MOST_HIDDEN,
    Bools,
    Floats,
    Kidney,
    Kidneys,
    check_labels,
    directions,
    find_kidneys,
    points_mm,
    slice_shares,
    surface,
)
from renalkit.metrics.segmentation import equivalent_diameter

Instances = npt.NDArray[np.uint8]

LEAST_MM3 = pi / 6 * 3.0**3
"""A part smaller than a ball of 3 mm is no lesion."""

TOUCHING_MM = 3.0
"""A lesion further from every kidney is not of a kidney."""

_MOST = 255
_AROUND = directions(2000)


@dataclass(frozen=True, slots=True)
class Anatomy:
    """Where a lesion lies in its kidney; lengths in mm. All but kidney_gap is estimated.

    exophytic_share: of its volume, outside the kidney's outline. bulge_mm: its highest point above
    the outline (negative: its rim stays below). deepest_mm: its deepest below it. long_axis: place
    of its centre along the kidney's long axis, -1 lower end to 1 upper end. from_centre_mm: between
    its centre and the kidney's. sinus_mm: gap to the sinus, 0 touching, None without a sinus.
    between_polar, between_sinus: share of its volume between the polar lines and between the sinus
    lines; polar_mm: lower and upper polar line, z_mm: its own lowest and highest z. medial_mm:
    how far its centre lies on the hilum's side of the kidney's centre. anterior_share: of its
    volume, in front of the plane through the kidney's centre, the hilum and the body's axis.
    kidney_gap_mm: to the nearest parenchyma, 0 touching. uncertain: why figures may be off.
    """

    exophytic_share: float
    bulge_mm: float
    deepest_mm: float
    long_axis: float
    from_centre_mm: float
    sinus_mm: float | None
    between_polar: float | None
    between_sinus: float | None
    polar_mm: tuple[float, float] | None
    z_mm: tuple[float, float]
    medial_mm: float
    anterior_share: float
    kidney_gap_mm: float
    uncertain: tuple[str, ...]

    @property
    def polarity(self) -> str:
        """The third of the kidney's long axis in which the centre lies."""
        if abs(self.long_axis) <= 1 / 3:
            return "middle"
        return "upper" if self.long_axis > 0 else "lower"


@dataclass(frozen=True, slots=True)
class LesionMeasures:
    """One lesion. value: TUMOUR or CYST, whichever most of it is labelled.

    mean_hu: by phase. enhancement_hu: later minus earlier phase, of every two in time order.
    anatomy: None where there is no kidney to relate it to; notes say why, and what else is wrong.
    """

    number: int
    value: int
    side: Side
    volume_mm3: float
    equivalent_mm: float
    axial_mm: float
    feret_mm: float
    centre_mm: tuple[float, float, float]
    mean_hu: Mapping[Phase, float]
    enhancement_hu: Mapping[tuple[Phase, Phase], float]
    anatomy: Anatomy | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ScanMeasures:
    """All lesions of a scan, by number. notes: what was assumed of the kidneys. crumbs: parts
    too small to be lesions."""

    lesions: tuple[LesionMeasures, ...]
    kidney_mm3: Mapping[Side, float]
    fused: bool
    notes: tuple[str, ...]
    crumbs: int


def connected_instances(labels: npt.NDArray[np.uint8], voxel_mm3: float) -> tuple[Instances, int]:
    """The map of lesions (Z,Y,X), numbered from 1 with the largest first, tumours before cysts;
    and how many parts were too small to be one."""
    out = np.zeros(labels.shape, np.uint8)
    number = crumbs = 0
    around = ndimage.find_objects((labels >= TUMOUR).view(np.uint8))
    if not around:
        return out, crumbs
    near, into = labels[around[0]], out[around[0]]
    for value in (TUMOUR, CYST):
        # The stub does not know that the result is a pair when no output is given.
        parts, count = cast(
            "tuple[npt.NDArray[np.int32], int]", ndimage.label(near == value, np.ones((3, 3, 3)))
        )
        sizes = np.bincount(parts.ravel(), minlength=count + 1)
        numbers = np.zeros(count + 1, np.uint8)
        for part in sorted(range(1, count + 1), key=lambda p: -sizes[p]):
            if sizes[part] * voxel_mm3 < LEAST_MM3 or number == _MOST:
                crumbs += 1
                continue
            number += 1
            numbers[part] = number
        into += numbers[parts]
    return out, crumbs


def numbered_only(
    labels: npt.NDArray[np.uint8], instances: npt.NDArray[np.uint8]
) -> npt.NDArray[np.uint8]:
    """Labels in which parts that the numbering left out, too small or too many, are kidney."""
    return np.where((labels >= TUMOUR) & (instances == 0), np.uint8(KIDNEY), labels)


def axial_diameter_mm(mask: Bools, grid: VolumeGrid) -> float:
    """Largest distance of two voxel centres of a slice's mask (Y,X), and one voxel more."""
    rows = np.flatnonzero(mask.any(axis=1))
    if rows.size == 0:
        return 0.0
    _, dy, dx = grid.spacing_mm
    ends = mask[rows].argmax(axis=1), mask.shape[1] - 1 - mask[rows, ::-1].argmax(axis=1)
    # Of each row only the ends can be furthest from something.
    points = np.concatenate([np.stack([end * dx, rows * dy], axis=1) for end in ends])
    return float(spatial.distance.pdist(points).max()) + (dx + dy) / 2


def feret_mm(points: Floats, grid: VolumeGrid) -> float:
    """Largest distance of two of the voxel centres (N,3) in mm, and the length of a voxel on the
    line between them.

    Only centres that are furthest in one of 2,000 directions are compared, which misses less than
    a thousandth of the length.
    """
    chosen = np.unique((points @ _AROUND.T).argmax(axis=0))
    ends = points[chosen]
    apart = spatial.distance.squareform(spatial.distance.pdist(ends))
    a, b = np.unravel_index(int(apart.argmax()), apart.shape)
    length = float(apart[a, b])
    if length == 0:
        return max(grid.spacing_mm)
    steps = np.linalg.solve(grid.steps_mm, ends[b] - ends[a])
    return length * (1 + 1 / float(np.abs(steps).max()))


def measure_lesions(
    labels: npt.NDArray[np.uint8],
    grid: VolumeGrid,
    *,
    instances: npt.NDArray[np.integer] | None = None,
    hu: Mapping[Phase, PixelStack] | None = None,
    midline_mm: float | None = None,
) -> ScanMeasures:
    """Measure every lesion of labels (Z,Y,X): 0 neither, 1 kidney, 2 tumour, 3 cyst.

    instances: (Z,Y,X) number of each lesion, 0 elsewhere; without it parts of a label that hang
    together (26 neighbours) and are no smaller than a ball of 3 mm. hu: (Z,Y,X) of each phase on
    the same grid. midline_mm: see `find_kidneys`.

    Raises:
        InputRefused: MASK_MISMATCH, instances or HU on another grid; UNKNOWN_LABEL.
    """
    check_labels(labels, grid)
    for where, array in {"instances": instances, **(hu or {})}.items():
        if array is not None and tuple(array.shape) != grid.shape:
            raise InputRefused(
                Reason.MASK_MISMATCH,
                f"{tuple(array.shape)} voxels beside labels of {grid.shape}",
                where=where,
                expected="the grid of the labels",
                remedy="resample it to that grid",
            )
    crumbs = 0
    if instances is None:
        instances, crumbs = connected_instances(labels, grid.voxel_mm3)
    kidneys = find_kidneys(labels, grid, midline_mm)
    trees = [spatial.KDTree(kidney.rim_mm) for kidney in kidneys.kidneys]
    lesions: list[LesionMeasures] = []
    for number, box in enumerate(ndimage.find_objects(instances), start=1):
        if box is None:
            continue
        mask = instances[box] == number
        lesion = _Voxels.of(mask, grid, box)
        values = np.bincount(labels[box][mask], minlength=4)
        means = {p: lesion.mean(stack) for p, stack in sorted((hu or {}).items(), key=_in_time)}
        side, anatomy, notes = _placed(lesion, kidneys, trees, grid)
        x, y, z = lesion.centre.tolist()
        lesions.append(
            LesionMeasures(
                number=number,
                value=TUMOUR if values[TUMOUR] >= values[CYST] else CYST,
                side=side,
                volume_mm3=lesion.volume_mm3,
                equivalent_mm=equivalent_diameter(lesion.volume_mm3, 3),
                axial_mm=max(axial_diameter_mm(plane, grid) for plane in mask),
                feret_mm=feret_mm(lesion.rim, grid),
                centre_mm=(x, y, z),
                mean_hu=means,
                enhancement_hu={(a, b): means[b] - means[a] for a, b in combinations(means, 2)},
                anatomy=anatomy,
                notes=notes,
            )
        )
    volumes = {kidney.side: kidney.volume_mm3 for kidney in kidneys.kidneys}
    return ScanMeasures(tuple(lesions), volumes, kidneys.fused, kidneys.notes, crumbs)


def mean_hu(
    instances: npt.NDArray[np.integer], grid: VolumeGrid, stack: PixelStack
) -> dict[int, float]:
    """Mean of a scan (Z,Y,X) in each lesion by its number, for a scan of unknown phase.

    Raises:
        ValueError: a scan or map of another shape than the grid.
    """
    if not tuple(stack.shape) == instances.shape == grid.shape:
        raise ValueError(f"scan {tuple(stack.shape)}, map {instances.shape} on {grid.shape}")
    return {
        number: _Voxels.of(instances[box] == number, grid, box).mean(stack)
        for number, box in enumerate(ndimage.find_objects(instances), start=1)
        if box is not None
    }


def _in_time(item: tuple[Phase, PixelStack]) -> int:
    return list(Phase).index(item[0])


@dataclass(frozen=True, slots=True)
class _Voxels:
    """A lesion's voxels. at: (N,3) indices. points, rim: positions of all and of its surface.
    weights: (N,) mm3."""

    at: npt.NDArray[np.intp]
    points: Floats
    rim: Floats
    weights: Floats
    cut: bool

    @classmethod
    def of(cls, mask: Bools, grid: VolumeGrid, box: tuple[slice, ...]) -> _Voxels:
        first = (box[0].start, box[1].start, box[2].start)
        at = np.argwhere(mask) + np.asarray(first)
        weights = slice_shares(grid)[at[:, 0]] * grid.voxel_mm3
        cut = bool((at == 0).any() or (at == np.asarray(grid.shape) - 1).any())
        rim = points_mm(surface(np.pad(mask, 1))[1:-1, 1:-1, 1:-1], grid, first)
        return cls(at, grid.to_lps(at), rim, weights, cut)

    @property
    def volume_mm3(self) -> float:
        return float(self.weights.sum())

    @property
    def centre(self) -> Floats:
        return self.weights @ self.points / self.weights.sum()

    def share(self, where: Bools) -> float:
        return float(self.weights[where].sum()) / self.volume_mm3

    def mean(self, stack: PixelStack) -> float:
        """Mean HU; slices are read one by one."""
        total = 0.0
        for k in np.unique(self.at[:, 0]).tolist():
            here = self.at[:, 0] == k
            values = np.asarray(stack[k])[tuple(self.at[here, 1:].T)]
            total += float(values.astype(np.float64) @ self.weights[here])
        return total / self.volume_mm3


def _placed(
    lesion: _Voxels, kidneys: Kidneys, trees: list[spatial.KDTree], grid: VolumeGrid
) -> tuple[Side, Anatomy | None, tuple[str, ...]]:
    notes = ["touches the border of the scan: larger than measured"] if lesion.cut else []
    side = kidneys.side_of(float(lesion.centre[0]))
    if not trees:
        return side, None, (*notes, "no kidney to relate it to")
    gaps = [_gap_mm(lesion.rim, tree, grid) for tree in trees]
    nearest = int(np.argmin(gaps))
    kidney = kidneys.kidneys[nearest]
    if gaps[nearest] > TOUCHING_MM:
        words = f"{gaps[nearest]:.0f} mm from the nearest kidney"
        return side, None, (*notes, words)
    side = kidney.side
    if kidneys.fused:
        return side, None, (*notes, "fused kidneys have no poles")
    return side, _anatomy(lesion, kidney, kidneys.midline_mm, gaps[nearest]), tuple(notes)


def _gap_mm(points: Floats, tree: spatial.KDTree, grid: VolumeGrid) -> float:
    """Between the surfaces of two sets of voxels of one grid: 0 where voxels are neighbours."""
    apart, other = tree.query(points)
    k = int(np.argmin(apart))
    between = np.linalg.solve(
        grid.steps_mm, np.asarray(tree.data)[int(np.asarray(other)[k])] - points[k]
    )
    # The way to the face of a voxel, from its centre, on both sides.
    inside = 1 / max(1.0, float(np.abs(between).max()))
    return float(apart[k]) * (1 - inside)


def _anatomy(lesion: _Voxels, kidney: Kidney, midline_mm: float, gap: float) -> Anatomy:
    depth = kidney.outline.depth_mm(lesion.points)
    centre = lesion.centre
    away = centre - kidney.centre_mm
    axis, low, high = kidney.long_axis
    sinus = kidney.sinus
    # The hilum's direction in the axial plane; without a sinus, towards the body's middle.
    to = np.array([midline_mm - kidney.centre_mm[0], 0.0])
    if sinus is not None:
        to = (sinus.points_mm.mean(axis=0) - kidney.centre_mm)[:2]
    hilum = np.array([*(to / max(float(np.linalg.norm(to)), 1e-9)), 0.0])
    front = np.array([hilum[1], -hilum[0], 0.0])
    front = front if front[1] <= 0 else -front
    z = lesion.points[:, 2]
    half = float(np.abs(kidney.grid.steps_mm[2]).sum()) / 2
    uncertain: list[str] = []
    if kidney.cut:
        uncertain.append("the kidney touches the border of the scan")
    if kidney.outline.hidden_share > MOST_HIDDEN:
        uncertain.append(f"masses hide {kidney.outline.hidden_share:.0%} of the outline")
    if kidney.outline.hidden.any() and kidney.outline.quadric is None:
        uncertain.append("no ellipsoid fits what is left of the kidney: outline by its hull")
    polar = None if sinus is None else sinus.polar_mm
    if sinus is None:
        uncertain.append("the labels leave no sinus inside the kidney")
    elif polar is None:
        uncertain.append("the sinus is closed at every level: no polar lines")
    to_sinus = None
    if sinus is not None:
        apart = spatial.KDTree(sinus.points_mm).query(lesion.rim)[0]
        step = (kidney.grid.voxel_mm3 ** (1 / 3) + LATTICE_MM) / 2
        to_sinus = max(0.0, float(np.min(apart)) - step)
    return Anatomy(
        exophytic_share=lesion.share(depth < 0),
        bulge_mm=-float(depth.min()),
        deepest_mm=float(depth.max()),
        long_axis=float((away @ axis - (low + high) / 2) / ((high - low) / 2)),
        from_centre_mm=float(np.linalg.norm(away)),
        sinus_mm=to_sinus,
        between_polar=None if polar is None else lesion.share((z > polar[0]) & (z < polar[1])),
        between_sinus=None
        if sinus is None
        else lesion.share((z > sinus.lines_mm[0]) & (z < sinus.lines_mm[1])),
        polar_mm=polar,
        z_mm=(float(z.min()) - half, float(z.max()) + half),
        medial_mm=float(away @ hilum),
        anterior_share=lesion.share((lesion.points - kidney.centre_mm) @ front > 0),
        kidney_gap_mm=gap,
        uncertain=tuple(uncertain),
    )
