"""Where is a region that was outlined on some frames, on the others?

The motion track carries it: from the nearest outlined frame, or blended between the ones before and
after, boxes by their sides and masks by their signed distances. Nothing is carried to or from a
frame that lost the section. Carried regions are marked as such.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from renalkit.ceus.motion import Track, moved_mask
from renalkit.domain.geometry import Box, MaskRLE
from renalkit.domain.study import Roi, RoiOrigin

Mask = npt.NDArray[np.bool_]
F64 = npt.NDArray[np.float64]
How = Literal["nearest", "blend"]


@dataclass(frozen=True, slots=True)
class Carried:
    """What became of one frame: its region, or None, and the reason in words."""

    frame: int
    roi: Roi | None
    reason: str


def propagate(
    rois: Sequence[Roi],
    track: Track,
    frames: Sequence[int],
    shape: tuple[int, int],
    how: How = "nearest",
) -> list[Carried]:
    """Carry outlined regions of one lesion to other frames of the same clip.

    Args:
        rois: outlined on one or more frames, each with a box, a mask, or both; all with the same.
        track: motion of the clip, in pixels of the pane that was outlined. frames: where regions
            are wanted. shape: rows and columns of the pane. how: "nearest" or "blend".

    Returns:
        One result per frame asked for, in that order. A frame that was outlined keeps its region
        and its origin.

    Raises:
        ValueError: no regions, several clips, frames outside the clip, or boxes here and masks
            there.
    """
    _check(rois, track, frames, how)
    given = {roi.frame: roi for roi in rois}
    sources = sorted(frame for frame in given if track.kept[frame])
    return [_carry(frame, given, sources, (track, shape, how)) for frame in frames]


def _check(rois: Sequence[Roi], track: Track, frames: Sequence[int], how: How) -> None:
    if how not in ("nearest", "blend"):
        raise ValueError(f"regions carried by {how!r}: neither 'nearest' nor 'blend'")
    if not rois:
        raise ValueError("no outlined region to carry")
    if len({roi.clip for roi in rois}) > 1:
        raise ValueError("regions of several clips: one track moves one clip")
    if len({roi.frame for roi in rois}) < len(rois):
        raise ValueError("two regions of one lesion on the same frame: merge them")
    if len({(roi.box is None, roi.mask is None) for roi in rois}) > 1:
        raise ValueError("some regions have a box or a mask that others lack: give all of them one")
    for frame in (*frames, *(roi.frame for roi in rois)):
        if not 0 <= frame < track.n_frames:
            raise ValueError(f"frame {frame} of a clip of {track.n_frames} frames")


def _carry(
    frame: int,
    given: dict[int, Roi],
    sources: list[int],
    by: tuple[Track, tuple[int, int], How],
) -> Carried:
    track, shape, how = by
    if frame in given:
        return Carried(frame, given[frame], "outlined on this frame")
    if not track.kept[frame]:
        return Carried(
            frame, None, f"out of plane here: correlation {track.correlation[frame]:.2f}"
        )
    if not sources:
        return Carried(frame, None, "every outlined frame is out of plane")
    earlier = [s for s in sources if s < frame]
    later = [s for s in sources if s > frame]
    if how == "blend" and earlier and later:
        parts = [(earlier[-1], later[0] - frame), (later[0], frame - earlier[-1])]
    else:
        parts = [(min(sources, key=lambda s: (abs(s - frame), s)), 1)]
    total = sum(weight for _, weight in parts)
    weighted = [
        (given[s], track.shift_px[frame] - track.shift_px[s], weight / total) for s, weight in parts
    ]
    box = _box(weighted, shape)
    mask = _mask(weighted, shape)
    first = weighted[0][0]
    if (first.box is not None and box is None) or (first.mask is not None and mask is None):
        return Carried(frame, None, "the region has left the picture")
    roi = Roi(
        clip=first.clip,
        frame=frame,
        mask=None if mask is None else MaskRLE.encode(mask),
        box=box,
        origin=RoiOrigin.PROPAGATED,
    )
    names = " and ".join(str(s) for s, _ in parts)
    return Carried(frame, roi, f"carried from frame {names}")


def _box(weighted: list[tuple[Roi, F64, float]], shape: tuple[int, int]) -> Box | None:
    """The weighted mean of the moved sides, inside the picture."""
    sides = np.zeros(4)
    for roi, (dx, dy), weight in weighted:
        if roi.box is None:
            return None
        box = roi.box
        corners = (box.x + dx, box.y + dy, box.x + box.width + dx, box.y + box.height + dy)
        sides += weight * np.array(corners)
    limit = (shape[1], shape[0], shape[1], shape[0])
    x0, y0, x1, y1 = (int(v) for v in np.clip(np.rint(sides), 0, limit))
    return Box(x0, y0, x1 - x0, y1 - y0) if x1 > x0 and y1 > y0 else None


def _mask(weighted: list[tuple[Roi, F64, float]], shape: tuple[int, int]) -> Mask | None:
    """Where the weighted mean of the moved signed distances is inside."""
    moved: list[tuple[Mask, float]] = []
    for roi, (dx, dy), weight in weighted:
        if roi.mask is None:
            return None
        if (roi.mask.rows, roi.mask.cols) != shape:
            raise ValueError(
                f"a mask of {roi.mask.rows} x {roi.mask.cols} on a pane of {shape[0]} x {shape[1]}"
            )
        moved.append((moved_mask(roi.mask.decode(), float(dx), float(dy)), weight))
    if len(moved) == 1:
        mask = moved[0][0]
    else:
        mask = sum((w * _signed_distance(m) for m, w in moved), np.zeros(shape)) > 0
    return mask if mask.any() else None


def _signed_distance(mask: Mask) -> F64:
    """Distance to the outline in px, positive inside; far outside where there is no mask."""
    if not mask.any():
        return np.full(mask.shape, -float(sum(mask.shape)))
    inside = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    outside = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(inside, np.float64) - np.asarray(outside, np.float64)
