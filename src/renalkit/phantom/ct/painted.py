"""What would a CT show if kidneys, tumours and cysts had the shapes of given masks?

The masks stay as they are, voxel by voxel: they are the truth of the scan that is painted around
and into them. Body, organs, fat, HU, texture, partial volume and noise are those of drawn scans
(`scene`, `volume`); the trunk is drawn anew by the seed, laid so that its kidneys meet those of
the masks, and widened by up to 30 % where they would not fit into it. Masks that still leave it, or
lie in muscle or bone, are painted over what is there.

A voxel near an outline is covered by clip(1/2 + d/s, 0, 1): d the distance to the outline in mm,
positive inside, s the voxel's edge along the normal, widened by the scanner's blur. The outline
runs half-way between voxels, so a voxel of the mask is always covered by half or more. The sinus is
what closing the masks by 8 mm adds to them; medulla and calyces follow the depth below that
outline.

Rows, columns and slices are taken for the axes of the body, however the grid is turned in space.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from renalkit.domain.volume import Phase, VolumeGrid
from renalkit.phantom.ct.anatomy import Body, CtCase, CtPlan, draw_body
from renalkit.phantom.ct.lesions import Kidney, Lesion, LesionLabel, Polarity, Side, draw_lesion
from renalkit.phantom.ct.organs import renal_parts
from renalkit.phantom.ct.scene import (
    CAPSULE_MM,
    CYST,
    FASCIA_MM,
    KIDNEY,
    TUMOUR,
    Anatomy,
    Slab,
    anatomy,
    paint_lesion,
    paint_part,
    paint_renal_fat,
    surroundings,
)
from renalkit.phantom.ct.shapes import (
    BLUR_MM,
    Box,
    Ellipsoid,
    Field,
    Grid,
    Level,
    Points,
    Vector,
    rotation_of,
    texture,
)
from renalkit.phantom.ct.volume import CtVolume, LesionTruth, rendered

Mask = npt.NDArray[np.bool_]

LEAST_VOXELS = 8
"""Along each axis of a volume."""

_AROUND_MM = 26.0
_CLOSING_MM = 8.0
_CORTEX_MM, _CALYX_MM = 6.5, 14.0
_FAR_MM = 60.0
_KIDNEY_SHARE = 0.25
_FUSED_MM = 130.0
_ASIDE_MM = 20.0
_DRAWN_X_MM, _DRAWN_Y_MM = 63.0, -6.0
_DRAWN_Z_MM = {"right": -7.0, "left": 5.0}
"""Where drawn kidneys lie: from the midline, from the middle of the spine, and in height."""

_WIDENING = np.arange(1.0, 1.32, 0.03)
_SHARE_INSIDE = 0.99
_MOST_POINTS = 4000


@dataclass(frozen=True, slots=True, eq=False)
class Shapes:
    """Masks of one patient, (Z,Y,X) uint8 on a grid, turned as volumes are (`domain.volume`).

    labels: 1 kidney, 2 tumour, 3 cyst. instances: number of each lesion from 1, 0 elsewhere.

    Raises:
        ValueError: other shapes than the grid's, fewer than 8 voxels along an axis, uneven slices,
            other labels, no kidney, or numbers of lesions that are not 1, 2, ... within the labels.
    """

    labels: npt.NDArray[np.uint8]
    instances: npt.NDArray[np.uint8]
    grid: VolumeGrid

    def __post_init__(self) -> None:
        if not self.labels.shape == self.instances.shape == self.grid.shape:
            raise ValueError("labels, instances and grid differ in shape")
        if min(self.grid.shape) < LEAST_VOXELS or self.grid.slice_at is not None:
            raise ValueError(f"a grid of {self.grid.shape}, or of uneven slices")
        present = set(np.unique(self.labels).tolist())
        if KIDNEY not in present or not present <= {0, KIDNEY, TUMOUR, CYST}:
            raise ValueError(f"labels {sorted(present)}, expected 1 (kidney), and at most 0, 2, 3")
        numbers = set(np.unique(self.instances).tolist()) - {0}
        if numbers != set(range(1, len(numbers) + 1)):
            raise ValueError("lesions are not numbered 1, 2, ...")
        if bool((self.labels[self.instances > 0] < TUMOUR).any()):
            raise ValueError("a lesion where no tumour or cyst is labelled")


@dataclass(frozen=True, slots=True, eq=False)
class _Region:
    """A mask's signed distance in mm (positive inside), voxel edge along its normal, on a box."""

    box: Box
    level: Field
    edge: Field
    seed: int

    def at(self, here: slice, add_mm: float = 0.0) -> Level | None:
        """On a range of slices, grown by add_mm; None where it does not reach them."""
        first, last = max(here.start, self.box[0].start), min(here.stop, self.box[0].stop)
        if first >= last:
            return None
        own = slice(first - self.box[0].start, last - self.box[0].start)
        box = (slice(first - here.start, last - here.start), *self.box[1:])
        return Level(box, self.level[own] + np.float32(add_mm), self.edge[own], 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """What hangs together: all that is labelled, and the same with its sinus."""

    whole: _Region
    closed: _Region


@dataclass(frozen=True, slots=True, eq=False)
class _Painting:
    common: Anatomy
    grid: Grid
    shapes: Shapes
    parts: list[_Part]
    lesions: list[tuple[Lesion, _Region]]


def paint_shapes(shapes: Shapes, plan: CtPlan, seed: int) -> tuple[CtCase, CtVolume]:
    """Paint a scan into masks; the same masks, plan and seed give the same pixels.

    Args:
        plan: its phases, aml_share and noise_hu; what else it says is decided by the masks.

    Returns:
        The case (in coordinates of the drawn body, whose middle is 0), and the scan on the grid of
        the masks. Of a lesion neither the exophytic share nor the analytic volume is known: they
        are NaN and the volume of its voxels.
    """
    rng = np.random.default_rng([seed, 0x5A])
    spacing = shapes.grid.spacing_mm
    boxes = list(_hanging_together(shapes.labels))
    parts: list[_Part] = []
    for mask, box in boxes:
        wide = _wider(box, shapes.grid.shape, spacing, _AROUND_MM)
        parts.append(_part(_on(mask, box, wide), wide, spacing, int(rng.integers(0, 2**31))))
    found = _kidneys(shapes, boxes, parts, rng)
    body, shift = _laid(draw_body(np.random.default_rng([seed, 0x5B])), found, shapes)
    kidneys = tuple(
        replace(one, hull=replace(one.hull, centre_mm=_moved(one.hull.centre_mm, shift)))
        for one in found
    )
    lesions = [
        (_lesion(shapes, number, box, kidneys, (plan.aml_share, seed, shift)), region)
        for number, box, region in _lesion_regions(shapes)
    ]
    noise = float(rng.uniform(8.0, 15.0)) if plan.noise_hu is None else plan.noise_hu
    case = CtCase(
        seed=seed,
        body=body,
        kidneys=kidneys,
        isthmus_mm=(),
        lesions=tuple(lesion for lesion, _ in lesions),
        distractors=(),
        phases=plan.phases,
        contrast=float(np.clip(rng.normal(1.0, 0.08), 0.8, 1.2)),
        noise_hu=noise * (3.0 / float(np.clip(spacing[0], 0.75, 5.0))) ** 0.4,
        bias_hu=float(rng.uniform(1.0, 4.0)),
        shape=shapes.grid.shape,
        spacing_mm=spacing,
        origin_lps_mm=shift,
    )
    grid = Grid.regular(shift, (spacing[2], spacing[1], spacing[0]), case.shape)
    painting = _Painting(anatomy(case, grid), grid, shapes, parts, lesions)
    drawn = rendered(painting.common, plan.phases, lambda here: _slab(painting, here))
    truths: list[LesionTruth] = []
    for one in case.lesions:
        counted, sums = int(drawn.counts[one.number]), drawn.sums_of(one.number)
        truths.append(_truth(case, shapes.grid, one, counted, sums))
    x, y, z = (_unit(shapes.grid.steps_mm[:, axis]) for axis in (2, 1, 0))
    first = shapes.grid.first_mm.tolist()
    return case, CtVolume(
        hu=drawn.hu,
        labels=drawn.labels,
        instances=drawn.instances,
        spacing_mm=spacing,
        origin_lps_mm=(first[0], first[1], first[2]),
        direction=(x, y, z),
        lesions=tuple(truths),
        given=shapes.grid,
    )


# ---- distances -----------------------------------------------------------------------------


def _hanging_together(labels: npt.NDArray[np.uint8]) -> Iterator[tuple[Mask, Box]]:
    """Parts of what is labelled (26 neighbours), each on its box with the fat around it."""
    whole = cast("Box", ndimage.find_objects((labels > 0).view(np.uint8))[0])
    marks, _ = cast(
        "tuple[npt.NDArray[np.int32], int]", ndimage.label(labels[whole] > 0, np.ones((3, 3, 3)))
    )
    for number, box in enumerate(ndimage.find_objects(marks), start=1):
        near = tuple(
            slice(a.start + b.start, a.start + b.stop) for a, b in zip(whole, box, strict=True)
        )
        yield marks[box] == number, cast("Box", near)


def _wider(box: Box, shape: tuple[int, ...], spacing_mm: Vector, by_mm: float) -> Box:
    z, y, x = (
        slice(max(0, part.start - reach), min(size, part.stop + reach))
        for part, size, reach in zip(
            box, shape, (math.ceil(by_mm / step) for step in spacing_mm), strict=True
        )
    )
    return z, y, x


def _on(mask: Mask, box: Box, wide: Box) -> Mask:
    """A mask of a box on a wider one."""
    out = np.zeros([part.stop - part.start for part in wide], bool)
    inner = tuple(
        slice(a.start - b.start, a.stop - b.start) for a, b in zip(box, wide, strict=True)
    )
    out[inner] = mask
    return out


def _distance(mask: Mask, spacing_mm: Vector) -> Field:
    """Distance in mm of each voxel of a mask from the nearest voxel outside; far where none is."""
    if mask.all():
        return np.full(mask.shape, _FAR_MM, np.float32)
    found = cast("npt.NDArray[np.float64]", ndimage.distance_transform_edt(mask, spacing_mm))
    return np.minimum(found, _FAR_MM).astype(np.float32)


def _signed(mask: Mask, box: Box, spacing_mm: Vector, seed: int) -> _Region:
    inside, outside = _distance(mask, spacing_mm), _distance(~mask, spacing_mm)
    apart = inside - outside
    slopes = (np.gradient(apart, axis=axis) for axis in range(3) if apart.shape[axis] > 1)
    square = np.zeros_like(apart)
    for slope in slopes:
        square += slope * slope
    edge = np.clip(np.sqrt(square), min(spacing_mm), max(spacing_mm))
    # Centres of neighbours lie one edge apart; the outline runs half-way.
    nearer = np.maximum(inside + outside - edge / 2, (inside + outside) / 20)
    level = np.where(mask, nearer, -nearer).astype(np.float32)
    blurred = np.hypot(edge, np.float32(BLUR_MM)).astype(np.float32)
    return _Region(box, level, blurred, seed)


def _part(mask: Mask, box: Box, spacing_mm: Vector, seed: int) -> _Part:
    whole = _signed(mask, box, spacing_mm, seed)
    grown = _distance(whole.level > -_CLOSING_MM, spacing_mm)
    # Within reach of the closing; further out the nearest outline is the masks' own.
    closer = np.maximum(whole.level, grown - np.float32(_CLOSING_MM))
    closed = np.where(grown > 0, closer, whole.level)
    return _Part(whole, replace(whole, level=closed))


def _lesion_regions(shapes: Shapes) -> Iterator[tuple[int, Box, _Region]]:
    """Number, tight box and distances of each lesion."""
    spacing = shapes.grid.spacing_mm
    for number, box in enumerate(ndimage.find_objects(shapes.instances), start=1):
        wide = _wider(box, shapes.grid.shape, spacing, 2.0 * max(spacing))
        yield number, box, _signed(shapes.instances[wide] == number, wide, spacing, 0)


# ---- where the body lies ---------------------------------------------------------------------


def _kidneys(
    shapes: Shapes, boxes: list[tuple[Mask, Box]], parts: list[_Part], rng: np.random.Generator
) -> tuple[Kidney, ...]:
    """Ellipsoids through the kidneys of the masks (right first), in mm from the first voxel: they
    say where vessels, ureters and adrenals go."""
    steps = np.asarray(shapes.grid.spacing_mm[::-1])
    lumps: list[tuple[Points, _Part]] = []
    for (mask, box), part in zip(boxes, parts, strict=True):
        index = np.argwhere(mask & (shapes.labels[box] == KIDNEY)).astype(np.float64)
        index += [one.start for one in box]
        lumps.append((index[:, ::-1] * steps, part))
    lumps.sort(key=lambda one: -len(one[0]))
    lumps = [one for one in lumps[:2] if len(one[0]) > _KIDNEY_SHARE * len(lumps[0][0])]
    clouds = [points for points, _ in lumps]
    if len(clouds) == 1:
        (cloud,) = clouds
        middle = float(cloud[:, 0].mean())
        if np.ptp(cloud[:, 0]) > _FUSED_MM:
            clouds = [cloud[cloud[:, 0] < middle], cloud[cloud[:, 0] >= middle]]
        else:
            side = _side_of_single(shapes, middle, lumps[0][1])
            return (_fitted(cloud, side, rng),)
    right, left = sorted(clouds, key=lambda cloud: float(cloud[:, 0].mean()))
    return _fitted(right, "right", rng), _fitted(left, "left", rng)


def _side_of_single(shapes: Shapes, middle_mm: float, part: _Part) -> Side:
    """By the half of the scan it lies in; where it lies in the middle, away from its hilum."""
    step = shapes.grid.spacing_mm[2]
    off = middle_mm - step * (shapes.grid.shape[2] - 1) / 2
    if abs(off) <= _ASIDE_MM:
        bays = ((part.closed.level > 0) & (part.whole.level < 0)).sum(axis=(0, 1))
        if bays.any():
            columns = np.arange(len(bays)) + part.closed.box[2].start
            off = middle_mm - step * float((columns * bays).sum() / bays.sum())
    return "left" if off >= 0 else "right"


def _fitted(cloud: Points, side: Side, rng: np.random.Generator) -> Kidney:
    centre = cloud.mean(axis=0)
    spread = np.cov((cloud - centre).T) + 1e-3 * np.eye(3)
    _, directions = np.linalg.eigh(spread)
    up = directions[:, 2] * (1.0 if directions[2, 2] >= 0 else -1.0)
    if up[2] < 0.4:  # cut by the border of the scan, or nearly a ball
        up = np.array([0.0, 0.0, 1.0])
    sign = 1.0 if side == "left" else -1.0
    turn = math.radians(32.0)
    rotation = rotation_of(_vector(up), (sign * math.cos(turn), math.sin(turn), 0.0))
    axes = np.asarray(rotation)
    semi = np.sqrt(5.0 * np.einsum("ij,jk,ik->i", axes, spread, axes))
    return Kidney(
        side=side,
        hull=Ellipsoid(_vector(centre), _vector(semi), rotation),
        bend=0.25,
        lip=0.25,
        sinus=1.0,
        pyramids=14,
        seed=int(rng.integers(0, 2**53)),
    )


def _laid(body: Body, kidneys: tuple[Kidney, ...], shapes: Shapes) -> tuple[Body, Vector]:
    """The trunk, wide enough for the masks, and where in it the first voxel lies."""
    index = np.argwhere(shapes.labels > 0)
    few = index[:: max(1, len(index) // _MOST_POINTS), ::-1].astype(np.float64)
    points = few * np.asarray(shapes.grid.spacing_mm[::-1])
    centres = np.asarray([one.hull.centre_mm for one in kidneys])
    if len(kidneys) == 2:
        middle_x = float(centres[:, 0].mean())
    else:
        side = 1.0 if kidneys[0].side == "left" else -1.0
        middle_x = float(centres[0, 0]) - side * _DRAWN_X_MM
    height = float(
        np.mean([c[2] - _DRAWN_Z_MM[k.side] for c, k in zip(centres, kidneys, strict=True)])
    )
    wide, shift = body, (0.0, 0.0, 0.0)
    for factor in _WIDENING.tolist():
        a, b = body.frame_mm
        # Half the room is won before the spine, half behind it.
        spine = body.spine_y_mm + b * (factor - 1.0) / 2
        wide = replace(body, frame_mm=(a * factor, b * factor), spine_y_mm=spine)
        shift = (-middle_x, spine + _DRAWN_Y_MM - float(centres[:, 1].mean()), -height)
        if _share_inside(wide, points + np.asarray(shift)) >= _SHARE_INSIDE:
            break
    return wide, shift


def _share_inside(body: Body, points_mm: Points) -> float:
    """Share of points (N,3) inside the middle of the muscle wall."""
    scale = body.scale(points_mm[:, 2])
    x = points_mm[:, 0] / scale
    y = body.spine_y_mm + (points_mm[:, 1] - body.spine_y_mm) / scale
    depth, _ = body.frame_depth_mm(x, y)
    return float((depth > body.wall_mm / 2).mean())


# ---- lesions ---------------------------------------------------------------------------------


def _lesion(
    shapes: Shapes,
    number: int,
    box: Box,
    kidneys: tuple[Kidney, ...],
    drawn: tuple[float, int, Vector],
) -> Lesion:
    """What a mask's lesion is made of. drawn: share of AML, seed, and where the first voxel is."""
    aml_share, seed, shift = drawn
    mask = shapes.instances[box] == number
    values = np.bincount(shapes.labels[box][mask], minlength=4)
    label: LesionLabel = "tumour" if values[TUMOUR] >= values[CYST] else "cyst"
    volume = float(mask.sum()) * math.prod(shapes.grid.spacing_mm)
    index = np.asarray(ndimage.center_of_mass(mask)) + [part.start for part in box]
    centre = _moved(_vector(index[::-1] * np.asarray(shapes.grid.spacing_mm[::-1])), shift)
    rng = np.random.default_rng([seed, 0x5C, number])
    lesion = draw_lesion(number, label, (6.0 * volume / math.pi) ** (1 / 3), aml_share, rng)
    nearest = min(kidneys, key=lambda one: math.dist(one.hull.centre_mm, centre))
    along = float(nearest.hull.local(np.asarray([centre]))[0, 0])
    polarity: Polarity = "upper" if along > 1 / 3 else "lower" if along < -1 / 3 else "middle"
    return replace(
        lesion.moved(centre),
        side=nearest.side,
        volume_mm3=volume,
        exophytic_share=math.nan,
        polarity=polarity,
        touching=_touching(shapes, number, box),
    )


def _touching(shapes: Shapes, number: int, box: Box) -> int:
    """The smallest number of another lesion within a voxel of it; 0 for none."""
    wide = _wider(box, shapes.grid.shape, (1.0, 1.0, 1.0), 1.0)
    there = shapes.instances[wide]
    near = cast("Mask", ndimage.binary_dilation(there == number, np.ones((3, 3, 3))))
    others = np.unique(there[near & (there > 0) & (there != number)])
    return int(others[0]) if others.size else 0


def _truth(
    case: CtCase, grid: VolumeGrid, lesion: Lesion, voxels: int, sums: Mapping[Phase, float]
) -> LesionTruth:
    offset = np.subtract(lesion.body.centre_mm, case.origin_lps_mm)
    index = offset[::-1] / np.asarray(case.spacing_mm)
    return LesionTruth(
        number=lesion.number,
        side=lesion.side,
        label=lesion.label,
        lesion_class=lesion.lesion_class,
        histology=str(lesion.histology),
        bosniak=lesion.bosniak,
        centre_mm=_vector(grid.to_lps([index])[0]),
        diameter_mm=lesion.diameter_mm,
        volume_mm3=lesion.volume_mm3,
        voxel_volume_mm3=voxels * grid.voxel_mm3,
        exophytic_share=lesion.exophytic_share,
        polarity=lesion.polarity,
        enhancing_share=lesion.enhancing_share,
        calcified=bool(lesion.calcifications),
        touching=lesion.touching,
        mean_hu={str(p): total / voxels for p, total in sums.items()},
    )


# ---- painting --------------------------------------------------------------------------------


def _slab(painting: _Painting, here: slice) -> Slab:
    case = painting.common.case
    grid = painting.grid.cut((here, slice(None), slice(None)))

    def fat(out: Slab) -> None:
        for part in painting.parts:
            level = part.closed.at(here, case.body.perirenal_mm + FASCIA_MM)
            if level is not None:
                paint_renal_fat(out, level, part.closed.seed)

    out = surroundings(painting.common, grid, fat)
    for part in painting.parts:  # the muscle beside it never quite touches the kidney
        level = part.closed.at(here, CAPSULE_MM)
        if level is not None:
            out.paint(level.box, np.minimum(level.cover(), out.cavity[level.box]), "fat")
    for part in painting.parts:
        level = part.closed.at(here)
        if level is not None:
            grain = texture(grid.cut(level.box), 4.0, part.closed.seed, terms=8)
            out.paint(level.box, level.cover(), "sinus", grain)
    for kidney in case.kidneys:
        for organ in renal_parts(case, kidney):
            paint_part(out, organ)
    for part in painting.parts:
        _paint_kidney(out, part, here)
    for lesion, region in painting.lesions:
        level = region.at(here)
        if level is not None:
            cystic = lesion.lesion_class == "cystic"
            inside = level.cover(lesion.wall_mm) if cystic else None
            paint_lesion(out, lesion, level.box, (level.cover(), inside))
    out.labels[:] = painting.shapes.labels[here]
    out.instances[:] = painting.shapes.instances[here]
    return out


def _paint_kidney(out: Slab, part: _Part, here: slice) -> None:
    """Parenchyma, pyramids below the cortex, calyces next to the sinus."""
    level, deep = part.whole.at(here), part.closed.at(here)
    if level is None or deep is None:
        return
    grid, seed = out.grid.cut(level.box), part.whole.seed
    whole = level.cover()
    out.paint(level.box, whole, "cortex", texture(grid, 4.0, seed, terms=8))
    pyramids = np.clip(texture(grid, 14.0, seed + 3, terms=8) * np.float32(3.0) + 1.2, 0.0, 1.0)
    pyramids *= np.clip((deep.level - np.float32(_CORTEX_MM)) / np.float32(2.0), 0.0, 1.0)
    out.paint(level.box, (pyramids * whole).astype(np.float32), "medulla")
    calyces = np.clip(texture(grid, 9.0, seed + 4, terms=8) * np.float32(4.0) - 4.0, 0.0, 1.0)
    calyces *= np.clip((deep.level - np.float32(_CALYX_MM)) / np.float32(2.0), 0.0, 1.0)
    out.paint(level.box, (calyces * whole).astype(np.float32), "urine")


def _moved(point_mm: Vector, shift_mm: Vector) -> Vector:
    x, y, z = (a + b for a, b in zip(point_mm, shift_mm, strict=True))
    return x, y, z


def _vector(values: Any) -> Vector:
    x, y, z = (float(value) for value in values)
    return x, y, z


def _unit(step_mm: npt.NDArray[np.float64]) -> Vector:
    return _vector(step_mm / np.linalg.norm(step_mm))
