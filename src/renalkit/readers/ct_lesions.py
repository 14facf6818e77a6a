"""Which lesions does the label volume of a CT scan mark, and what is known of each from it alone?

Instances come from a map that numbers them, or are the connected parts (26 neighbours) of what is
labelled tumour and of what is labelled cyst. A part smaller than a ball of 3 mm is no lesion of
its own: such crumbs stay in the label volume, and their number is said.

Size is the largest distance of two points of the outline within one axial slice, as radiologists
measure it; the side is that of the body's middle on which the lesion lies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from renalkit.domain.geometry import MaskRLE
from renalkit.domain.image import PixelStack
from renalkit.domain.study import Defect, Roi, Side
from renalkit.domain.volume import CYST, KIDNEY, TUMOUR, LabelMap, Phase, Volume
from renalkit.errors import Reason
from renalkit.metrics.volume_lesions import Instances, axial_diameter_mm, connected_instances

_BODY_HU = -300


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
