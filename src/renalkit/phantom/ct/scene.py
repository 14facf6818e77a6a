"""What covers each voxel of a slab of a simulated CT, in painting order, and what is its truth?

The same layers serve every contrast phase: a layer is a coverage and a tissue name, and a phase
is a table of HU by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from renalkit.phantom.ct.anatomy import CtCase, Distractor
from renalkit.phantom.ct.lesions import Kidney, Lesion, Septum
from renalkit.phantom.ct.organs import Cylinder, Part, Tube, hard_parts, renal_parts, soft_parts
from renalkit.phantom.ct.shapes import (
    Box,
    Ellipsoid,
    Field,
    Grid,
    Level,
    Vector,
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
FASCIA_MM, CAPSULE_MM = 1.2, 2.0
_PYRAMID_COS = 0.932
_CORTEX_FROM = 0.77
_LUNG_FROM_MM = 60.0
# Mean of -min(t + 0.9, 0) for a texture t of deviation 1.
_MATTER, _MATTER_MEAN = np.float32(0.9), np.float32(0.1)


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

    def fat(out: Slab) -> None:
        for kidney in case.kidneys:
            _perirenal_fat(out, kidney, case.body.perirenal_mm)

    out = surroundings(plan, grid, fat)
    for kidney in case.kidneys:  # the muscle beside it never quite touches the kidney
        _around(out, kidney, CAPSULE_MM, "fat")
    if case.isthmus_mm:
        _isthmus(out, case.isthmus_mm)
    for kidney in case.kidneys:
        _kidney(out, kidney, renal_parts(case, kidney))
    for distractor in case.distractors:
        _distractor(out, distractor)
    for lesion in case.lesions:
        _lesion(out, lesion)
    return out


def surroundings(plan: Anatomy, grid: Grid, fat: Callable[[Slab], None]) -> Slab:
    """All but the kidneys and what is in them; `fat` paints what keeps the organs off them."""
    case = plan.case
    cavity = warped(plan.section.cavity, grid, case.body, 0.0)
    out = Slab(grid, cavity, np.zeros(grid.shape, np.uint8), np.zeros(grid.shape, np.uint8))
    _strands(out, plan.section)
    _lungs(out, case)
    for part in plan.soft:
        paint_part(out, part)
    fat(out)
    for part in plan.hard:
        paint_part(out, part)
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


def paint_part(out: Slab, part: Part) -> None:
    levels = list(_levels(out.grid, part.shape))

    def clip(cover: Field, box: Box) -> Field:
        return np.minimum(cover, out.cavity[box], out=cover) if part.clipped else cover

    def grain(box: Box) -> Field | None:
        if not part.grain_mm:
            return None
        values = texture(out.grid.cut(box), part.grain_mm, part.seed)
        # Stool is soft tissue with bubbles of gas.
        return np.minimum(values + _MATTER, 0.0) + _MATTER_MEAN if part.inner == "stool" else values

    for level in levels:
        # A wall is smooth; texture belongs to what it encloses.
        inside = None if part.inner else grain(level.box)
        out.paint(level.box, clip(level.cover(), level.box), part.tissue, inside)
    if not part.inner:
        return
    for level in levels:
        cover = clip(level.cover(part.wall_mm), level.box)
        out.paint(level.box, cover, part.inner, grain(level.box))
        if part.gas_y_mm is not None:
            y, edge = out.grid.y[level.box[1]], np.float32(out.grid.edges_mm[1])
            surface = np.float32(part.gas_y_mm)
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


def _perirenal_fat(out: Slab, kidney: Kidney, width_mm: float) -> None:
    level = _grown(out.grid, kidney, width_mm + FASCIA_MM)
    if level is not None:
        paint_renal_fat(out, level, kidney.seed)


def paint_renal_fat(out: Slab, level: Level, seed: int) -> None:
    """Fat crossed by septa inside a wavy fascia; it keeps liver, spleen and bowel off."""
    grid, cavity = out.grid.cut(level.box), out.cavity[level.box]
    wave = texture(grid, 24.0, seed + 1, terms=6) * np.float32(2.2 / level.unit_mm)
    level = replace(level, level=level.level + wave)
    out.paint(level.box, np.minimum(level.cover(), cavity), "fascia")
    cover = np.minimum(level.cover(FASCIA_MM), cavity)
    out.paint(level.box, cover, "fat")
    sheets = np.abs(texture(grid, 11.0, seed + 2, terms=8))
    sheets = np.clip(np.float32(0.7) - np.float32(6.0) * sheets, 0.0, 1.0)
    out.paint(level.box, np.multiply(sheets, cover, out=sheets), "strand")


def _around(out: Slab, kidney: Kidney, width_mm: float, tissue: str) -> None:
    level = _grown(out.grid, kidney, width_mm)
    if level is not None:
        out.paint(level.box, np.minimum(level.cover(), out.cavity[level.box]), tissue)


def _grown(grid: Grid, kidney: Kidney, width_mm: float) -> Level | None:
    a, b, c = (axis + width_mm for axis in kidney.hull.semi_axes_mm)
    return ellipsoid(grid, replace(kidney.hull, semi_axes_mm=(a, b, c)))


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
        paint_part(out, part)
    x, y, z = (1.2 * half for half in kidney.hull.half_extent_mm)
    box = out.grid.box(kidney.hull.centre_mm, (x, y, z))
    if box is None:
        return
    grid = out.grid.cut(box)
    directions = _pyramid_directions(kidney)
    u, v, w = local_axes(grid, kidney.hull)
    v = v + kidney.shift(u, w)
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
        (u / np.float32(0.58)) ** 2
        + ((v + np.float32(0.53)) / np.float32(0.77)) ** 2
        + (w / np.float32(0.43)) ** 2
    )
    bulge = np.clip((nearest - np.float32(0.90)) * np.float32(10.0), 0.0, 1.0)
    return np.float32(size) - radius - np.float32(0.22) * bulge


def _bent_slope(
    grid: Grid, kidney: Kidney, axes: tuple[Field, Field, Field], radius: Field
) -> Field:
    """Change of the normalised radius over a voxel, as in `shapes`."""
    u, v, w = axes
    along = u + np.float32(2.0 * kidney.bend) * u * v
    across = w + np.float32(2.0 * kidney.lip) * w * v
    matrix = np.asarray(kidney.hull.rotation) / np.asarray(kidney.hull.semi_axes_mm)[:, None]
    slope = np.zeros_like(radius)
    for column, edge in zip(matrix.T, grid.edges_mm, strict=True):
        a, b, c = (np.float32(value * edge) for value in column)
        change = a * along + b * v + c * across
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
        "column": ("cortex", "", 0.0),
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
    if distractor.kind == "column":
        _label(out, level.box, cover >= 0.5, KIDNEY)


def _lesion(out: Slab, lesion: Lesion) -> None:
    found = lesion_cover(out.grid, lesion)
    if found is None:
        return
    box, cover = found
    inside: Field | None = None
    if lesion.lesion_class == "cystic":
        level, slope = lesion_grid_level(out.grid.cut(box), lesion)
        inside = Level(box, level, slope, lesion.diameter_mm / 2).cover(lesion.wall_mm)
    paint_lesion(out, lesion, box, (cover, inside))
    where = cover >= 0.5
    out.instances[box][where] = lesion.number
    _label(out, box, where, TUMOUR if lesion.label == "tumour" else CYST)


def paint_lesion(out: Slab, lesion: Lesion, box: Box, covers: tuple[Field, Field | None]) -> None:
    """Paint a mass; covers: by the mass, and by what a cystic one's wall encloses."""
    cover, inside = covers
    grid = out.grid.cut(box)
    name = f"lesion {lesion.number}"
    if inside is not None:
        out.paint(box, cover, f"{name} wall")
        np.minimum(inside, cover, out=inside)
        out.paint(box, inside, name)
        for septum in lesion.septa:
            out.paint(box, _sheet(grid, septum, lesion.body.centre_mm) * inside, f"{name} wall")
    else:
        out.paint(box, cover, name, _unevenness(grid, lesion))
    parts = [(core, f"{name} core") for core in lesion.cores]
    parts += [(lesion.nodule, f"{name} nodule")] if lesion.nodule is not None else []
    parts += [(speck, "stone") for speck in lesion.calcifications]
    for shape, tissue in parts:
        found_part = ellipsoid(out.grid, shape)
        if found_part is None:
            continue
        softness = 1.0
        if tissue == f"{name} core":
            softness = 2.5
            if lesion.core_kind == "necrosis":  # its margin is frayed
                frayed = texture(out.grid.cut(found_part.box), 5.0, lesion.seed + 2, terms=10)
                frayed *= np.float32(0.22)
                found_part = replace(found_part, level=found_part.level + frayed)
        part_cover = found_part.cover(softness=softness)
        out.paint(found_part.box, part_cover * _within(cover, box, found_part.box), tissue)


def _unevenness(grid: Grid, lesion: Lesion) -> Field | None:
    """Coarse and fine patches of a mass, of deviation 1; None for one without."""
    if lesion.unevenness_hu <= 2.0:
        return None
    share = 2.0 if lesion.lesion_class == "AML" else 3.0
    coarse_mm = min(12.0, max(3.0, lesion.diameter_mm / 2 / share))
    coarse = texture(grid, coarse_mm, lesion.seed, terms=10)
    coarse *= np.float32(0.85)
    coarse += np.float32(0.53) * texture(grid, max(2.0, coarse_mm / 2.5), lesion.seed + 1, terms=8)
    return coarse


def _sheet(grid: Grid, septum: Septum, centre_mm: Vector) -> Field:
    """Coverage (Z, Y, X) by a septum of a mass about centre_mm."""
    x, y, z = (
        axis - np.float32(middle + shift)
        for axis, middle, shift in zip(
            (grid.x, grid.y, grid.z), centre_mm, septum.centre_mm, strict=True
        )
    )
    distance = np.sqrt(x * x + y * y + z * z) + np.float32(1e-4)
    ex, ey, ez = (np.float32(edge) for edge in grid.edges_mm)
    edge = np.sqrt((x * ex) ** 2 + (y * ey) ** 2 + (z * ez) ** 2) / distance
    thickness = np.float32(septum.thickness_mm)
    depth = thickness / 2 - np.abs(distance - np.float32(septum.radius_mm))
    sheet = np.clip(depth / edge + np.float32(0.5), 0.0, 1.0)
    # A sheet thinner than a voxel never covers more than its own share of it.
    return np.minimum(sheet, thickness / edge)


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
