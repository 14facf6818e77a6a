"""Where are the lesions, said by mask files, LabelMe, COCO, CVAT or a table of boxes?

Every source gives `FrameAnnotation`s in pixel coordinates of the picture or frame they name.
What is wrong but harmless (points outside the picture, an empty mask) stays with the annotation
as a defect; what would make the region wrong is refused.

A polygon covers the pixels whose centre is inside it (even-odd rule), so its area does not depend
on where its corners fall within a pixel. Pixel (x, y) has its centre at (x + 0.5, y + 0.5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from math import ceil, floor, isfinite
from typing import Any

import numpy as np
import numpy.typing as npt

from renalkit.domain.geometry import Box, MaskRLE
from renalkit.domain.study import Defect, Roi, RoiOrigin
from renalkit.errors import InputRefused, Reason
from renalkit.readers.outlines import BoolMask


@dataclass(frozen=True, slots=True)
class FrameAnnotation:
    """One lesion on one frame. file is the name the source uses; mask or box may be None.

    An annotation whose mask is empty keeps neither, and says so in its defects.
    """

    file: str
    frame: int
    lesion: str
    mask: MaskRLE | None = None
    box: Box | None = None
    label: str | None = None
    origin: RoiOrigin = RoiOrigin.REFERENCE
    defects: tuple[Defect, ...] = ()


def bad_annotation(
    found: str, *, where: str = "", expected: str = "", reason: Reason = Reason.BAD_ANNOTATION
) -> InputRefused:
    """The error of an annotation that cannot be used."""
    return InputRefused(
        reason, found, where=where, expected=expected, remedy="correct or export it again"
    )


OUTSIDE = Defect(Reason.BAD_ANNOTATION, "part of the region lies outside the picture: cut there")
EMPTY = Defect(Reason.EMPTY_MASK, "the region covers no pixel")


# --- Mask files -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MaskValues:
    """Which values of a mask file are lesion.

    values: these label values, and no other value but 0 may occur. threshold: everything from
    this value on (needed for lossy masks, whose edges are smeared). Neither: all but 0.
    """

    values: tuple[int, ...] | None = None
    threshold: int | None = None

    def __post_init__(self) -> None:
        if self.values is not None and self.threshold is not None:
            raise ValueError("give label values of a mask or a threshold, not both")
        if self.values is not None and (not self.values or min(self.values) < 1):
            raise ValueError("label values of a mask are positive; 0 is background")
        if self.threshold is not None and self.threshold < 1:
            raise ValueError("a mask threshold is at least 1")


def mask_pixels(
    array: npt.NDArray[Any], rule: MaskValues, *, lossy: bool
) -> tuple[BoolMask, tuple[Defect, ...]]:
    """The lesion pixels of a decoded mask (H,W) and what was noticed.

    Raises InputRefused: UNKNOWN_LABEL for a value that is not declared, BAD_ANNOTATION for a
    lossy mask without a threshold.
    """
    if rule.threshold is not None:
        return array >= rule.threshold, ()
    present = np.unique(array)
    if rule.values is not None:
        strange = sorted(set(present.tolist()) - {0, *rule.values})
        if strange:
            raise bad_annotation(
                f"mask with the values {', '.join(map(str, strange[:10]))}",
                expected=f"0 and {', '.join(map(str, rule.values))}",
                reason=Reason.UNKNOWN_LABEL,
            )
        return np.isin(array, rule.values), ()
    if present.size > 2 and lossy:
        raise bad_annotation(
            f"lossy mask with {present.size} different values",
            expected="a PNG mask, or a threshold for lossy ones",
        )
    words = f"mask with {present.size} different values: every one but 0 was taken as lesion"
    return array != 0, (Defect(Reason.BAD_ANNOTATION, words),) if present.size > 2 else ()


def merged(masks: Sequence[BoolMask]) -> BoolMask:
    """The union of masks of one size; MASK_MISMATCH when their sizes differ."""
    sizes = {m.shape for m in masks}
    if len(sizes) != 1:
        raise bad_annotation(
            f"masks of {len(sizes)} different sizes for one picture", reason=Reason.MASK_MISMATCH
        )
    return np.logical_or.reduce(list(masks))


def as_annotation(mask: BoolMask, base: FrameAnnotation) -> FrameAnnotation:
    """`base` with this mask; an empty mask is left out and noted."""
    if not mask.any():
        return replace(base, mask=None, defects=(*base.defects, EMPTY))
    return replace(base, mask=MaskRLE.encode(mask))


def fitted(item: FrameAnnotation, rows: int, cols: int) -> FrameAnnotation:
    """The annotation on a picture of rows x cols: boxes are cut at its edge, masks must match.

    Raises InputRefused(MASK_MISMATCH).
    """
    if item.mask is not None and (item.mask.rows, item.mask.cols) != (rows, cols):
        raise bad_annotation(
            f"mask of {item.mask.rows} x {item.mask.cols} pixels",
            expected=f"{rows} x {cols} pixels, like its picture",
            reason=Reason.MASK_MISMATCH,
        )
    if item.box is None or item.box.fits(rows, cols):
        return item
    box = item.box.clipped(rows, cols)
    return replace(item, box=box, defects=(*item.defects, OUTSIDE, *(() if box else (EMPTY,))))


def box_around(
    x0: float, y0: float, x1: float, y1: float, *, where: str = ""
) -> tuple[Box | None, tuple[Defect, ...]]:
    """The pixel box that contains the given edges; what lies left of or above 0 is cut off.

    Raises InputRefused for edges that are not finite or not in order.
    """
    if not all(isfinite(v) and abs(v) < 1e7 for v in (x0, y0, x1, y1)) or x1 <= x0 or y1 <= y0:
        raise bad_annotation("a box without area or with impossible numbers", where=where)
    left, top, right, bottom = floor(x0), floor(y0), ceil(x1), ceil(y1)
    notes = (OUTSIDE,) if left < 0 or top < 0 else ()
    left, top = max(left, 0), max(top, 0)
    if right <= left or bottom <= top:
        return None, (*notes, EMPTY)
    return Box(left, top, right - left, bottom - top), notes


def joined_roi(clip: int, frame: int, items: Sequence[FrameAnnotation]) -> Roi | None:
    """One region of interest from all annotations of a lesion on a frame: all masks together,
    and the smallest box around all boxes."""
    masks = [item.mask for item in items if item.mask is not None]
    boxes = [item.box for item in items if item.box is not None]
    if not masks and not boxes:
        return None
    mask = masks[0] if len(masks) == 1 else None
    if len(masks) > 1:
        mask = MaskRLE.encode(merged([m.decode() for m in masks]))
    box = reduce(Box.union, boxes) if boxes else None
    return Roi(clip, frame, mask, box, items[0].origin)
