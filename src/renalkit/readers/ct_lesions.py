"""Which lesions does the label volume of a CT scan mark, and what is known of each from it alone?

Instances come from a map that numbers them, or are the connected parts (26 neighbours) of what is
labelled tumour and of what is labelled cyst. A part smaller than a ball of 3 mm is no lesion of
its own: such crumbs stay in the label volume, and their number is said.

Size is the largest distance of two points of the outline within one axial slice, as radiologists
measure it; the side is that of the body's middle on which the lesion lies.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from renalkit.domain.geometry import MaskRLE
from renalkit.domain.image import PixelStack
from renalkit.domain.study import Defect, Roi, Side
from renalkit.domain.volume import CYST, KIDNEY, TUMOUR, LabelMap, Phase, Volume, VolumeGrid
from renalkit.errors import Reason

Instances = npt.NDArray[np.uint8]
LEAST_MM3 = pi / 6 * 3.0**3
_BODY_HU = -300
_MOST = 255


@dataclass(frozen=True, slots=True)
class MarkedLesion:
    """One instance of a label volume. value: TUMOUR or CYST, whichever most of it is labelled."""

    number: int
    value: int
    volume_mm3: float
    axial_mm: float
    side: Side
    rois: tuple[Roi, ...]


def _stacked(stack: PixelStack) -> npt.NDArray[np.uint8]:
    return np.stack([np.asarray(stack[k]) for k in range(int(stack.shape[0]))]).astype(np.uint8)


def connected_instances(labels: npt.NDArray[np.uint8], voxel_mm3: float) -> tuple[Instances, int]:
    """The map of lesions (Z,Y,X), numbered from 1 with the largest first, tumours before cysts;
    and how many parts were too small to be one."""
    out = np.zeros(labels.shape, np.uint8)
    number = crumbs = 0
    for value in (TUMOUR, CYST):
        box = ndimage.find_objects((labels == value).view(np.uint8))
        if not box or box[0] is None:
            continue
        # The stub does not know that the result is a pair when no output is given.
        parts, count = cast(
            "tuple[npt.NDArray[np.int32], int]",
            ndimage.label(labels[box[0]] == value, np.ones((3, 3, 3))),
        )
        sizes = np.bincount(parts.ravel(), minlength=count + 1)
        for part in sorted(range(1, count + 1), key=lambda p: -sizes[p]):
            if sizes[part] * voxel_mm3 < LEAST_MM3 or number == _MOST:
                crumbs += 1
                continue
            number += 1
            out[box[0]][parts == part] = number
    return out, crumbs


def marked_lesions(
    volume: Volume, clip: int, labels: LabelMap, instances: Instances | None = None
) -> tuple[tuple[MarkedLesion, ...], list[Defect]]:
    """The lesions of a volume, which is clip number `clip` of its study.

    instances: (Z,Y,X) on the volume's grid, 0 where there is no lesion; without it, parts that hang
    together are the lesions.
    """
    drawn = _stacked(labels.pixels)
    defects: list[Defect] = []
    if instances is None:
        instances, crumbs = connected_instances(drawn, volume.grid.voxel_mm3)
        if crumbs:
            words = f"{crumbs} labelled parts smaller than a ball of 3 mm; no lesions of their own"
            defects.append(Defect(Reason.CONVERTED, words, clip))
    found: list[MarkedLesion] = []
    for number, box in enumerate(ndimage.find_objects(instances), start=1):
        if box is None:
            continue
        mask = instances[box] == number
        values = np.bincount(drawn[box][mask], minlength=4)
        rois: list[Roi] = []
        axial = 0.0
        for k in np.flatnonzero(mask.any(axis=(1, 2))).tolist():
            whole = instances[box[0].start + k] == number
            rois.append(Roi(clip, box[0].start + k, MaskRLE.encode(whole)))
            axial = max(axial, axial_diameter_mm(mask[k], volume.grid))
        centre = ndimage.center_of_mass(mask)
        index = [c + part.start for c, part in zip(centre, box, strict=True)]
        found.append(
            MarkedLesion(
                number=number,
                value=TUMOUR if values[TUMOUR] >= values[CYST] else CYST,
                volume_mm3=float(mask.sum()) * volume.grid.voxel_mm3,
                axial_mm=axial,
                side=_side(volume, index),
                rois=tuple(rois),
            )
        )
    return tuple(found), defects


def axial_diameter_mm(mask: npt.NDArray[np.bool_], grid: VolumeGrid) -> float:
    """Largest distance of two voxel centres of a slice's mask (Y,X), and one voxel more."""
    rows, cols = np.nonzero(mask)
    if rows.size == 0:
        return 0.0
    _, dy, dx = grid.spacing_mm
    points = np.stack([cols * dx, rows * dy], axis=1).astype(np.float32)
    hull = np.asarray(cv2.convexHull(points)).reshape(-1, 2)
    apart = np.linalg.norm(hull[:, None] - hull[None], axis=2)
    return float(apart.max()) + (dx + dy) / 2


def _side(volume: Volume, index: list[float]) -> Side:
    """Left or right of the middle of the body in the lesion's slice."""
    k = min(volume.n_frames - 1, max(0, round(index[0])))
    body = np.flatnonzero((np.asarray(volume.pixels[k], np.float64) > _BODY_HU).any(axis=0))
    ends = (0, volume.cols - 1) if body.size == 0 else (int(body[0]), int(body[-1]))
    middle = volume.grid.to_lps([(k, (volume.rows - 1) / 2, sum(ends) / 2)])[0, 0]
    return Side.LEFT if float(volume.grid.to_lps([index])[0, 0]) > middle else Side.RIGHT


def phase_from_hu(volume: Volume, labels: LabelMap) -> Phase | None:
    """The contrast phase that the kidneys' HU show; None where no kidney is marked.

    Urine above 300 HU in more than 0.4 % of what is labelled kidney: excretory. Else by the values
    above 0: a median below 60 HU is without contrast; a middle half that spreads over 45 HU and
    more shows cortex and medulla apart, corticomedullary; else nephrographic. On simulated scans
    the middle half spreads over 68 to 88 HU in the corticomedullary phase, 17 to 29 in the
    nephrographic one, and the share above 300 HU is 0.9 to 2.3 % in the excretory phase and none
    in the others.
    """
    values = [
        np.asarray(volume.pixels[k])[np.asarray(labels.pixels[k]) == KIDNEY]
        for k in range(volume.n_frames)
    ]
    hu = np.concatenate(values).astype(np.float64)
    if hu.size < 1000:
        return None
    if float((hu > 300).mean()) > 0.004:
        return Phase.EXCRETORY
    tissue = hu[hu > 0]
    if tissue.size < 500:
        return None
    if float(np.median(tissue)) < 60:
        return Phase.NON_CONTRAST
    low, high = np.quantile(tissue, (0.25, 0.75))
    return Phase.CORTICOMEDULLARY if high - low >= 45 else Phase.NEPHROGRAPHIC
