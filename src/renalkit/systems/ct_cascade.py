"""P5: CT in three stages: kidneys on the whole scan, masses inside their box, a class per mass.

Unlike the other systems it is given volumes, not pictures, and holds several networks, so it is
named by the key `cascade` of an experiment (`renalkit.usecases.cascade_experiment`).

Shape legend: (Z,Y,X) the scan's own grid, (K,J,I) an upright grid a network works on.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import pi
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from renalkit.domain.scan import BoxMm, LabelArray
from renalkit.domain.volume import CYST, KIDNEY, TUMOUR, WINDOW_HU, VolumeGrid
from renalkit.systems._cascade import (
    CARD,
    CASCADES,
    Cascade,
    CascadeParams,
    KidneyParams,
    LesionParams,
    MassParams,
    kernels,
    strides,
)
from renalkit.transforms.components import kept, numbered
from renalkit.transforms.volumes import upright_grid

if TYPE_CHECKING:
    from renalkit.learn.nets.volume_resnet import VolumeResNet
    from renalkit.learn.nets.volume_unet import VolumeUNet

Floats = npt.NDArray[np.floating[Any]]

HALF = 0.5
"""Probability from which a voxel is kidney. Fixed, so that nothing is tuned on test data."""


def windowed(hu: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """HU as networks see them: -200 to 300 HU as -1 to 1."""
    low, high = WINDOW_HU
    return np.clip((hu.astype(np.float32) - (low + high) / 2) / ((high - low) / 2), -1, 1)


def build_kidney(params: KidneyParams) -> VolumeUNet:
    """The network of stage 1 with fresh weights: (b,1,K,J,I) -> mask logits (b,1,K,J,I)."""
    from renalkit.learn.nets.volume_unet import VolumeUNet, VolumeUNetPlan

    return VolumeUNet(
        VolumeUNetPlan(
            channels=params.channels,
            strides=strides(len(params.channels)),
            deep_supervision=False,
            norm=params.norm,
        )
    )


def build_mass(params: MassParams) -> VolumeUNet:
    """A network of stage 2 with fresh weights: (b,1,K,J,I) -> mask logits (b,2,K,J,I), of
    kidney-or-mass and of mass."""
    from renalkit.learn.nets.volume_unet import VolumeUNet, VolumeUNetPlan

    return VolumeUNet(
        VolumeUNetPlan(
            channels=params.channels,
            strides=strides(len(params.channels), params.flat_levels),
            kernels=kernels(len(params.channels), params.flat_levels),
            n_outputs=2,
            deep_supervision=params.deep_supervision,
            norm=params.norm,
        )
    )


def build_lesion(params: LesionParams, n_classes: int) -> VolumeResNet:
    """The network of stage 3 with fresh weights: cubes (b,c,s,s,s) as `lesion_image` gives them ->
    class logits (b,k)."""
    from renalkit.learn.nets.volume_resnet import VolumeResNet, VolumeResNetPlan

    return VolumeResNet(
        VolumeResNetPlan(
            depth=params.depth,
            width=params.width,
            n_inputs=lesion_inputs(params),
            n_classes=n_classes,
            dropout=params.dropout,
        )
    )


def search_boxes(
    kidneys: Floats, grid: VolumeGrid, scan: VolumeGrid, params: KidneyParams
) -> tuple[BoxMm, ...]:
    """Where masses are looked for: a box around each kidney, those that meet joined.

    kidneys: (K,J,I) probability of kidney or mass on `grid`, which is upright. Boxes run along the
    body's axes and end at the outer faces of the scan.
    """
    parts, sizes = numbered(kidneys >= HALF)
    boxes = ndimage.find_objects(parts)[: params.most]
    ml = sizes * grid.voxel_mm3 / 1000
    found = [
        around(part_box(grid, b), scan, params.margin_mm)
        for b, v in zip(boxes, ml, strict=False)
        if v >= params.least_ml
    ]
    return joined(found)


def widened(
    box: BoxMm, inside: npt.NDArray[np.bool_], work: VolumeGrid, scan: VolumeGrid, by_mm: float
) -> BoxMm:
    """The box moved outwards by `by_mm` at each face that kidney or mass reaches, within the scan.

    inside: (K,J,I) kidney or mass on `work`, the upright grid over the box. What covers less of a
    face than `_REACH_MM2` does not reach it.
    """
    low, high = (np.asarray(side, np.float64) for side in box)
    for axis, step in enumerate(work.spacing_mm):
        area = work.voxel_mm3 / step
        xyz = 2 - axis
        if inside.take(0, axis).sum() * area >= _REACH_MM2:
            low[xyz] -= by_mm
        if inside.take(-1, axis).sum() * area >= _REACH_MM2:
            high[xyz] += by_mm
    return _within(low, high, scan)


_REACH_MM2 = 50.0


def around(box: BoxMm, scan: VolumeGrid, margin_mm: float) -> BoxMm:
    """The box with so much added on every side, within the scan."""
    return _within(np.asarray(box[0]) - margin_mm, np.asarray(box[1]) + margin_mm, scan)


def at_least(
    box: BoxMm,
    patch: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    scan: VolumeGrid,
) -> BoxMm:
    """The box, or where it is shorter than a patch as much about it as a patch holds: a network is
    shown what lies there, not air.

    Moved where it would leave the scan, and cut where the scan is shorter.
    """
    low, high = (np.asarray(side, np.float64) for side in box)
    missing = np.multiply(patch, spacing_mm)[::-1] - (high - low)
    short = missing > 0
    low, high = low - missing * short / 2, high + missing * short / 2
    outer = scan.corners_mm
    into = np.maximum(outer.min(axis=0) - low, 0) - np.maximum(high - outer.max(axis=0), 0)
    return _within(low + into * short, high + into * short, scan)


def _within(low: Floats, high: Floats, scan: VolumeGrid) -> BoxMm:
    outer = scan.corners_mm
    return box_of(np.maximum(low, outer.min(axis=0)), np.minimum(high, outer.max(axis=0)))


def part_box(grid: VolumeGrid, part: tuple[slice, ...]) -> BoxMm:
    """The box in mm around the voxels of a part of a grid's array."""
    ends = [(s.start - 0.5, s.stop - 0.5) for s in part]
    corners = grid.to_lps([(z, y, x) for z in ends[0] for y in ends[1] for x in ends[2]])
    return box_of(corners.min(axis=0), corners.max(axis=0))


def box_of(low: Floats, high: Floats) -> BoxMm:
    """A box from its lowest and highest corner, (3,) each."""
    a, b = low.tolist(), high.tolist()
    return (a[0], a[1], a[2]), (b[0], b[1], b[2])


def joined(boxes: Sequence[BoxMm]) -> tuple[BoxMm, ...]:
    """Boxes that do not meet: those that do become the box around both."""
    left = list(boxes)
    done: list[BoxMm] = []
    while left:
        box = left.pop(0)
        low, high = np.asarray(box[0]), np.asarray(box[1])
        other = next(
            (b for b in (*left, *done) if (low < b[1]).all() and (b[0] < high).all()), None
        )
        if other is None:
            done.append(box)
            continue
        (left if other in left else done).remove(other)
        left.append(box_of(np.minimum(low, other[0]), np.maximum(high, other[1])))
    return tuple(sorted(done))


def index_box(grid: VolumeGrid, box: BoxMm) -> tuple[slice, slice, slice]:
    """The smallest part of a grid's array that holds every voxel whose centre lies in the box; at
    least one voxel."""
    low, high = box
    corners = [
        (x, y, z) for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])
    ]
    at = grid.to_index(corners)
    starts = np.clip(np.ceil(at.min(axis=0) - 1e-6), 0, np.asarray(grid.shape) - 1).astype(int)
    stops = np.clip(np.floor(at.max(axis=0) + 1e-6) + 1, starts + 1, grid.shape).astype(int)
    a, b, c = (slice(int(i), int(j)) for i, j in zip(starts, stops, strict=True))
    return a, b, c


def drawn(kidney: Floats, mass: Floats, params: MassParams, voxel_mm3: float) -> LabelArray:
    """Labels 0, 1 kidney, 2 mass from probabilities of kidney-or-mass and of mass.

    A voxel of mass is mass whatever the other says. Parts of mass smaller than a ball of
    `least_mm` become what the kidney's probability says.
    """
    labels = np.where(np.asarray(kidney) >= HALF, KIDNEY, 0).astype(np.uint8)
    ball = pi / 6 * params.least_mm**3
    labels[kept(mass >= params.threshold, least=ball / voxel_mm3)] = TUMOUR
    return labels


def named(
    labels: LabelArray, instances: LabelArray, classes: dict[int, str], params: LesionParams
) -> LabelArray:
    """Labels in which masses of a class that is a cyst are labelled so. classes: by number."""
    out = labels.copy()
    cysts = [n for n, name in classes.items() if name in params.cyst_classes]
    out[np.isin(instances, cysts)] = CYST
    return out


def lesion_cube(box: BoxMm, params: LesionParams, around: float = 1.0) -> VolumeGrid:
    """The upright grid of the cube around a mass whose voxels fill `box`; `around` times as wide,
    with as many more voxels."""
    low, high = np.asarray(box[0]), np.asarray(box[1])
    edge = max(params.least_mm, float((high - low).max()) * (1 + 2 * params.margin))
    step = edge / params.side
    whole = step * round(params.side * around)
    first = (low + high) / 2 - whole / 2
    return upright_grid((step, step, step), box_of(first, first + whole))


def lesion_inputs(params: LesionParams) -> int:
    """Channels of a cube: HU, and the mass where it is shown too."""
    return 2 if params.mask_input else 1


def lesion_image(
    hu: npt.NDArray[Any], inside: npt.NDArray[np.bool_], params: LesionParams
) -> npt.NDArray[np.float32]:
    """A cube (s,s,s) of HU and of what is the mass, as stage 3 is given it: (1,c,s,s,s)."""
    channels = [windowed(hu), inside.astype(np.float32)]
    return np.stack(channels[: lesion_inputs(params)])[None]


__all__ = [
    "CARD",
    "CASCADES",
    "HALF",
    "Cascade",
    "CascadeParams",
    "KidneyParams",
    "LesionParams",
    "MassParams",
    "around",
    "at_least",
    "box_of",
    "build_kidney",
    "build_lesion",
    "build_mass",
    "drawn",
    "index_box",
    "joined",
    "kernels",
    "lesion_cube",
    "lesion_image",
    "lesion_inputs",
    "named",
    "part_box",
    "search_boxes",
    "strides",
    "widened",
    "windowed",
]
