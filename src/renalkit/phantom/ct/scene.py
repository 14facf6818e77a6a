"""What covers each voxel of a slab of a simulated CT, in painting order, and what is its truth?

The same layers serve every contrast phase: a layer is a coverage and a tissue name, and a phase
is a table of HU by name.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from renalkit.phantom.ct.anatomy import CtCase, Distractor
from renalkit.phantom.ct.lesions import Kidney, Lesion
from renalkit.phantom.ct.organs import Cylinder, Part, Tube, hard_parts, renal_parts, soft_parts
from renalkit.phantom.ct.shapes import (
    Box,
    Ellipsoid,
    Field,
    Grid,
    Level,
    averaged,
    capsule,
    cylinder,
    ellipsoid,
    local_axes,
    radius_and_slope,
    texture,
    unit_sphere,
)
from renalkit.phantom.ct.torso import Torso, lung_level, strand_cover, torso, warped

KIDNEY, TUMOUR, CYST = 1, 2, 3
_PERIRENAL_MM = 9.0
_PYRAMID_COS = 0.915
_CORTEX_FROM = 0.80
_LUNG_FROM_MM = 60.0


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """Coverage (box) by a tissue painted over what is there; texture of deviation 1 or None."""

    box: Box
    cover: Field
    tissue: str
    texture: Field | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Anatomy:
    """What is the same for all slabs of a case."""

    case: CtCase
    section: Torso
    soft: list[Part]
    hard: list[Part]


@dataclass(slots=True, eq=False)
class Slab:
    """Layers and truth of some slices: instances (Z, Y, X) by lesion number, labels as KiTS."""

    grid: Grid
    cavity: Field
    labels: npt.NDArray[np.uint8]
    instances: npt.NDArray[np.uint8]
    layers: list[Layer] = field(default_factory=list[Layer])

    def paint(self, box: Box, cover: Field, tissue: str, grain: Field | None = None) -> None:
        """Add a layer."""
        self.layers.append(Layer(box, cover, tissue, grain))


def anatomy(case: CtCase, grid: Grid) -> Anatomy:
    """Lay out what does not depend on the slices; grid gives rows and columns."""
    return Anatomy(case, torso(case.body, grid), soft_parts(case), hard_parts(case))


def slab(plan: Anatomy, grid: Grid) -> Slab:
    """Everything on the slices of a grid."""
    case = plan.case
    cavity = warped(plan.section.cavity, grid, case.body, 0.0)
    out = Slab(grid, cavity, np.zeros(grid.shape, np.uint8), np.zeros(grid.shape, np.uint8))
    _strands(out, plan.section)
    _lungs(out, case)
    for part in plan.soft:
        _part(out, part)
    for kidney in case.kidneys:
        _perirenal_fat(out, kidney)
    for part in plan.hard:
        _part(out, part)
    if case.isthmus_mm:
        _isthmus(out, case.isthmus_mm)
    for kidney in case.kidneys:
        _kidney(out, kidney, renal_parts(case, kidney))
    for distractor in case.distractors:
        _distractor(out, distractor)
    for lesion in case.lesions:
        _lesion(out, lesion)
    return out


def lesion_grid_level(grid: Grid, lesion: Lesion) -> tuple[Field, Field]:
    """Level (positive inside) of a mass and its change over a voxel, both (Z, Y, X)."""
    radius, slope = radius_and_slope(grid, lesion.body)
    u, v, w = local_axes(grid, lesion.body)
    level = np.float32(1.0) - radius
    for lobe in lesion.lobes:
        a, b, c = (np.float32(lobe.frequency * part) for part in lobe.direction)
        angle = (a * u + b * v + c * w) / radius
        angle += np.float32(lobe.phase)
        level += np.float32(lobe.amplitude) * np.cos(angle)
    return level, slope


def lesion_cover(grid: Grid, lesion: Lesion) -> tuple[Box, Field] | None:
    """Coverage by a mass within its box; None outside the grid."""
    reach = 1.0 + sum(lobe.amplitude for lobe in lesion.lobes)
    x, y, z = (reach * half for half in lesion.body.half_extent_mm)
    box = grid.box(lesion.body.centre_mm, (x, y, z))
    if box is None:
        return None

    def cover(part: Grid) -> Field:
        level, slope = lesion_grid_level(part, lesion)
        return Level(box, level, slope, 1.0).cover()

    return box, averaged(grid, box, min(lesion.body.semi_axes_mm) * 2, cover)


def _levels(grid: Grid, shape: Ellipsoid | Tube | Cylinder) -> Iterator[Level]:
    if isinstance(shape, Ellipsoid):
        found = [ellipsoid(grid, shape)]
    elif isinstance(shape, Cylinder):
        found = [cylinder(grid, shape.centre_mm, shape.semi_axes_mm, shape.half_height_mm)]
    else:
        points = pairwise(zip(shape.path_mm, shape.radii_mm, strict=True))
        found = [capsule(grid, start, end, (r0, r1)) for (start, r0), (end, r1) in points]
    return (level for level in found if level is not None)


def _part(out: Slab, part: Part) -> None:
    levels = list(_levels(out.grid, part.shape))

    def clip(cover: Field, box: Box) -> Field:
        return np.minimum(cover, out.cavity[box], out=cover) if part.clipped else cover

    def grain(box: Box) -> Field | None:
        return texture(out.grid.cut(box), part.grain_mm, part.seed) if part.grain_mm else None

    for level in levels:
        # A wall is smooth; texture belongs to what it encloses.
        inside = None if part.inner else grain(level.box)
        out.paint(level.box, clip(level.cover(), level.box), part.tissue, inside)
    if not part.inner:
        return
    for level in levels:
        cover = clip(level.cover(part.wall_mm), level.box)
        out.paint(level.box, cover, part.inner, grain(level.box))
        if part.gas_mm is not None:
            y, edge = out.grid.y[level.box[1]], np.float32(out.grid.edges_mm[1])
            surface = np.float32(level.centre_y_mm + part.gas_mm)
            above = np.clip((surface - y) / edge + np.float32(0.5), 0.0, 1.0)
            if above.any():
                out.paint(level.box, cover * above, "gas")


def _strands(out: Slab, section: Torso) -> None:
    """Vessels and folds in the fat in front of the kidneys."""
    rows = slice(0, int(np.searchsorted(out.grid.y[:, 0], 10.0)))
    if rows.stop == 0:
        return
    cover = np.stack([strand_cover(section, float(z))[rows] for z in out.grid.z[:, 0, 0]])
    box = (slice(0, len(out.grid.z)), rows, slice(0, len(out.grid.x)))
    out.paint(box, np.multiply(cover, out.cavity[box], out=cover), "strand")


def _lungs(out: Slab, case: CtCase) -> None:
    first = int(np.searchsorted(out.grid.z[:, 0, 0], _LUNG_FROM_MM))
    if first == len(out.grid.z):
        return
    box = (slice(first, None), slice(None), slice(None))
    level = lung_level(case.body, out.grid.cut(box))
    edge = np.float32(out.grid.edges_mm[2])
    cover = np.clip(level / edge + np.float32(0.5), 0.0, 1.0)
    if cover.any():
        out.paint(box, np.minimum(cover, out.cavity[box], out=cover), "lung")


def _perirenal_fat(out: Slab, kidney: Kidney) -> None:
    """Fat around the kidney inside a thin fascia; it keeps liver, spleen and bowel off."""
    for grow, tissue, weight in ((_PERIRENAL_MM + 1.2, "fascia", 0.5), (_PERIRENAL_MM, "fat", 1.0)):
        a, b, c = (axis + grow for axis in kidney.hull.semi_axes_mm)
        level = ellipsoid(out.grid, replace(kidney.hull, semi_axes_mm=(a, b, c)))
        if level is None:
            continue
        cover = np.minimum(level.cover(), out.cavity[level.box])
        out.paint(level.box, cover * np.float32(weight), tissue)


def _isthmus(out: Slab, path: tuple[tuple[float, float, float], ...]) -> None:
    for grow, tissue in ((6.0, "fat"), (0.0, "isthmus")):
        tube = Tube(path, (10.0 + grow,) * len(path))
        for level in _levels(out.grid, tube):
            cover = level.cover()
            out.paint(level.box, cover, tissue)
            if tissue == "isthmus":
                _label(out, level.box, cover >= 0.5, KIDNEY)


def _label(out: Slab, box: Box, where: npt.NDArray[np.bool_], value: int) -> None:
    out.labels[box][where] = value


def _kidney(out: Slab, kidney: Kidney, vessels: Sequence[Part]) -> None:
    for part in vessels:
        _part(out, part)
    x, y, z = (1.2 * half for half in kidney.hull.half_extent_mm)
    box = out.grid.box(kidney.hull.centre_mm, (x, y, z))
    if box is None:
        return
    grid = out.grid.cut(box)
    directions = _pyramid_directions(kidney)
    u, v, w = local_axes(grid, kidney.hull)
    v = v + np.float32(kidney.bend) * (u * u - np.float32(0.35))
    radius = np.sqrt(u * u + v * v + w * w) + np.float32(1e-4)
    slope = _bent_slope(grid, kidney, (u, v, w), radius)
    outside = Level(box, np.float32(1.0) - radius, slope, 1.0)
    whole = outside.cover()
    nearest = _nearest_pyramid((u, v, w), directions)
    pyramids = (nearest - np.float32(_PYRAMID_COS)) / np.maximum(np.float32(0.03), slope * 0.5)
    pyramids = np.clip(pyramids + np.float32(0.5), 0.0, 1.0)
    pyramids *= Level(box, np.float32(_CORTEX_FROM) - radius, slope, 1.0).cover()
    sinus = Level(box, _sinus_level((u, v, w), kidney.sinus, nearest), slope, 1.0)
    sinus_cover = sinus.cover(softness=1.8) * whole
    grain = texture(grid, 4.0, kidney.seed, terms=8)
    out.paint(box, whole, "cortex", grain)
    out.paint(box, pyramids, "medulla")
    out.paint(box, sinus_cover, "sinus", grain)
    _label(out, box, whole - sinus_cover >= 0.5, KIDNEY)
    for part in _collecting_system(kidney, directions):
        for level in _levels(out.grid, part.shape):
            cover = level.cover()
            out.paint(level.box, cover, part.tissue)
            # As in KiTS, what is not fat within the hilum belongs to the kidney.
            inside = (cover >= 0.5) & (_within(whole, box, level.box) >= 0.5)
            _label(out, level.box, inside, KIDNEY)


def _nearest_pyramid(
    axes: tuple[Field, Field, Field], directions: npt.NDArray[np.float64]
) -> Field:
    """Cosine of the angle to the nearest pyramid's axis, seen from the middle of the sinus."""
    u, v, w = axes
    u, v, w = u * np.float32(0.75), v + np.float32(0.34), w * np.float32(1.05)
    length = np.sqrt(u * u + v * v + w * w) + np.float32(1e-4)
    nearest = np.full(u.shape, -1.0, np.float32)
    for a, b, c in directions.astype(np.float32):
        np.maximum(nearest, a * u + b * v + c * w, out=nearest)
    return np.divide(nearest, length, out=nearest)


def _sinus_level(axes: tuple[Field, Field, Field], size: float, nearest: Field) -> Field:
    """The sinus: a bay open to the hilum into which the papillae bulge."""
    u, v, w = axes
    radius = np.sqrt(
        (u / np.float32(0.56)) ** 2
        + ((v + np.float32(0.55)) / np.float32(0.74)) ** 2
        + (w / np.float32(0.40)) ** 2
    )
    bulge = np.clip((nearest - np.float32(0.90)) * np.float32(10.0), 0.0, 1.0)
    return np.float32(size) - radius - np.float32(0.22) * bulge


def _bent_slope(
    grid: Grid, kidney: Kidney, axes: tuple[Field, Field, Field], radius: Field
) -> Field:
    """Change of the normalised radius over a voxel, as in ct_shapes."""
    u, v, w = axes
    along = u + np.float32(2.0 * kidney.bend) * u * v
    matrix = np.asarray(kidney.hull.rotation) / np.asarray(kidney.hull.semi_axes_mm)[:, None]
    slope = np.zeros_like(radius)
    for column, edge in zip(matrix.T, grid.edges_mm, strict=True):
        a, b, c = (np.float32(value * edge) for value in column)
        change = a * along + b * v + c * w
        slope += change * change
    slope = np.sqrt(slope) / radius
    return np.maximum(slope, np.float32(1e-4))


def _pyramid_directions(kidney: Kidney) -> npt.NDArray[np.float64]:
    """Axes of the pyramids (K, 3): spread over all sides but the hilum."""
    rng = np.random.default_rng([kidney.seed, 4])
    turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    directions = unit_sphere(kidney.pyramids + 3) @ turn
    return directions[directions[:, 1] > -0.62]


def _collecting_system(kidney: Kidney, directions: npt.NDArray[np.float64]) -> Iterable[Part]:
    """Pelvis, calyces and vessels in the sinus."""

    def at(local: npt.NDArray[np.float64]) -> tuple[float, float, float]:
        x, y, z = kidney.hull.world(local[None])[0].tolist()
        return x, y, z

    a, b, c = kidney.hull.semi_axes_mm
    stem = np.array([-0.06, -0.72, 0.0])
    rng = np.random.default_rng([kidney.seed, 5])
    for index, direction in enumerate(directions):
        tip = direction / (0.75, 1.0, 1.05) * 0.30 + (0.0, -0.30, 0.0)
        neck = stem + 0.45 * (tip - stem)
        path = (at(stem), at(neck), at(tip))
        if index % 2 == 0:
            yield Part(Tube(path, (1.6, 1.6, 2.4)), "urine", clipped=False)
        else:
            shifted = tuple(at(p + rng.normal(0.0, 0.05, 3)) for p in (stem * 1.2, neck, tip))
            yield Part(Tube(shifted, (2.0, 2.0, 1.4)), "renal_vein", clipped=False)
    yield Part(
        Ellipsoid(at(stem), (0.20 * a, 0.24 * b, 0.14 * c), kidney.hull.rotation),
        "urine",
        clipped=False,
    )


def _distractor(out: Slab, distractor: Distractor) -> None:
    level = ellipsoid(out.grid, distractor.body)
    if level is None:
        return
    cover = level.cover()
    tissue, inner, wall = {
        "extrarenal_pelvis": ("ureter_wall", "urine", 0.8),
        "splenule": ("spleen", "", 0.0),
        "bowel_loop": ("bowel_wall", "chyme", 2.5),
        "adrenal_nodule": ("adrenal_nodule", "", 0.0),
        "vessel": ("renal_vein", "", 0.0),
        "liver_cyst": ("water", "", 0.0),
        "stone": ("stone", "", 0.0),
    }[distractor.kind]
    out.paint(level.box, cover, tissue)
    if inner:
        out.paint(level.box, level.cover(wall), inner)


def _lesion(out: Slab, lesion: Lesion) -> None:
    found = lesion_cover(out.grid, lesion)
    if found is None:
        return
    box, cover = found
    grid = out.grid.cut(box)
    name = f"lesion {lesion.number}"
    radius_mm = lesion.diameter_mm / 2
    grain_mm = min(12.0, max(3.0, radius_mm / (2.0 if lesion.lesion_class == "AML" else 3.0)))
    grain = texture(grid, grain_mm, lesion.seed) if lesion.unevenness_hu > 2.0 else None
    if lesion.lesion_class == "cystic":
        out.paint(box, cover, f"{name} wall")
        level, slope = lesion_grid_level(grid, lesion)
        inside = Level(box, level, slope, radius_mm).cover(lesion.wall_mm)
        np.minimum(inside, cover, out=inside)
        out.paint(box, inside, name)
        for septum in lesion.septa:
            x, y, z = (
                axis - np.float32(centre)
                for axis, centre in zip(
                    (grid.x, grid.y, grid.z), lesion.body.centre_mm, strict=True
                )
            )
            nx, ny, nz = (np.float32(part) for part in septum.normal)
            plane = (nz * z + ny * y) + nx * x
            edge = math.hypot(*np.multiply(septum.normal, grid.edges_mm).tolist())
            depth = np.float32(septum.thickness_mm / 2) - np.abs(plane - septum.offset_mm)
            sheet = np.clip(depth / np.float32(edge) + np.float32(0.5), 0.0, 1.0)
            # A sheet thinner than a voxel never covers more than its own share of it.
            sheet = np.minimum(sheet, np.float32(min(1.0, septum.thickness_mm / edge)))
            out.paint(box, sheet * inside, f"{name} wall")
    else:
        out.paint(box, cover, name, grain)
    parts = [(core, f"{name} core", 4.0) for core in lesion.cores]
    parts += [(lesion.nodule, f"{name} nodule", 1.0)] if lesion.nodule is not None else []
    parts += [(speck, "stone", 1.0) for speck in lesion.calcifications]
    for shape, tissue, softness in parts:
        level_found = ellipsoid(out.grid, shape)
        if level_found is None:
            continue
        part_cover = level_found.cover(softness=softness)
        out.paint(level_found.box, part_cover * _within(cover, box, level_found.box), tissue)
    where = cover >= 0.5
    out.instances[box][where] = lesion.number
    _label(out, box, where, TUMOUR if lesion.label == "tumour" else CYST)


def _within(cover: Field, box: Box, wanted: Box) -> Field:
    """A coverage on another box, 0 outside its own."""
    out = np.zeros(tuple(part.stop - part.start for part in wanted), np.float32)
    if any(a.start >= b.stop or b.start >= a.stop for a, b in zip(box, wanted, strict=True)):
        return out
    common = [
        slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(box, wanted, strict=True)
    ]
    here = tuple(
        slice(c.start - b.start, c.stop - b.start) for c, b in zip(common, box, strict=True)
    )
    there = tuple(
        slice(c.start - b.start, c.stop - b.start) for c, b in zip(common, wanted, strict=True)
    )
    out[there] = cover[here]
    return out
