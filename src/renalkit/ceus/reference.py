"""From which frame, and from which box, is motion followed when nobody has said so?

A good reference frame looks like many others: the section at rest, in plane. A good box lies in
the middle of the fan, where an examiner puts the kidney, and holds much speckle. Both choices are
deterministic and say why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from renalkit.ceus.texture import F32, Mask, correlations, echo_area, grey_of, local_contrast
from renalkit.domain.geometry import Box

_SMALL_PX = 128  # longer side of the picture in which frames are compared
_REACH_PX = 12  # how far frames are shifted there
_BLUR_PX = 7
_INNER = 0.6  # part of the picture that is compared
_BOX_SHARE = 0.42  # of the fan, along each axis
_BOX_DEPTH = 0.55  # where an examiner puts the kidney, as a share of the fan's height
_PRIOR = 0.22  # and how strictly: deviation as a share of the fan


@dataclass(frozen=True, slots=True)
class ReferenceFrame:
    """The frame that others are compared with.

    index: its number. agreement: median correlation with the other candidates. reason: in words.
    """

    index: int
    agreement: float
    reason: str


@dataclass(frozen=True, slots=True)
class TrackingBox:
    """A box to follow, and the reason in words."""

    box: Box
    reason: str


def sample_indices(n_frames: int, count: int = 24) -> list[int]:
    """Numbers of up to `count` frames spread evenly over a clip, without its very ends."""
    if n_frames < 1 or count < 1:
        raise ValueError(f"{count} of {n_frames} frames: both at least 1")
    steps = (np.arange(min(count, n_frames)) + 0.5) * (n_frames / min(count, n_frames))
    return [int(s) for s in steps]


def choose_reference(
    pictures: Sequence[npt.NDArray[Any]],
    indices: Sequence[int],
    ignore: Mask | None = None,
) -> ReferenceFrame:
    """The frame that agrees best with the others: highest median correlation after alignment.

    Args:
        pictures: candidates of the B-mode pane, (H,W) or (H,W,3) uint8. indices: their frame
            numbers. ignore: (H,W), overlays.

    Raises:
        ValueError: no candidates, or not as many numbers.
    """
    if not pictures or len(pictures) != len(indices):
        raise ValueError(f"{len(pictures)} pictures with {len(indices)} frame numbers")
    if len(pictures) == 1:
        return ReferenceFrame(indices[0], 1.0, "the only frame to choose from")
    small = [_small(picture, ignore) for picture in pictures]
    agreement = np.eye(len(small))
    for i, window in enumerate(small):
        for j in range(i):
            agreement[i, j] = agreement[j, i] = float(correlations(window, _inner(small[j])).max())
    others = ~np.eye(len(small), dtype=np.bool_)
    medians = np.array([np.median(row[keep]) for row, keep in zip(agreement, others, strict=True)])
    best = int(np.argmax(np.round(medians, 6)))
    value = float(medians[best])
    return ReferenceFrame(
        indices[best],
        value,
        f"agrees best with {len(small)} frames spread over the clip (median correlation "
        f"{value:.2f})",
    )


def choose_box(picture: npt.NDArray[Any], ignore: Mask | None = None) -> TrackingBox:
    """The part of the fan with most speckle near where the kidney usually is.

    The score of a place is the local deviation of grey levels, up to the fan's median so that
    bright layers do not count more, times a Gaussian around the middle of the fan.

    Args:
        picture: reference frame of the B-mode pane, (H,W) or (H,W,3) uint8. ignore: overlays.

    Raises:
        ValueError: the picture is dark.
    """
    grey = grey_of(picture)
    valid = echo_area(grey, ignore)
    x, y, width, height = cv2.boundingRect(valid.astype(np.uint8))
    if min(width, height) < 32 or not (grey[valid > 0] > 0).any():
        raise ValueError("the B-mode pane shows no fan of echoes; give a region of interest")
    levels = grey.astype(np.float32)
    mean = np.asarray(cv2.blur(levels, (9, 9)))
    spread = np.sqrt(np.maximum(np.asarray(cv2.blur(levels * levels, (9, 9))) - mean * mean, 0))
    spread = np.minimum(spread, np.median(spread[valid > 0])) * valid
    across = (np.arange(grey.shape[1]) - x - width / 2) / (_PRIOR * width)
    down = (np.arange(grey.shape[0]) - y - _BOX_DEPTH * height) / (_PRIOR * height)
    prior = np.exp(-(across[None, :] ** 2 + down[:, None] ** 2) / 2)
    size = (round(_BOX_SHARE * width), round(_BOX_SHARE * height))
    score = np.asarray(
        cv2.boxFilter(
            (spread * prior).astype(np.float32),
            -1,
            size,
            anchor=(0, 0),
            normalize=False,
            borderType=cv2.BORDER_CONSTANT,
        )
    )
    fits = score[: grey.shape[0] - size[1] + 1, : grey.shape[1] - size[0] + 1]
    top, left = divmod(int(np.argmax(fits)), fits.shape[1])
    return TrackingBox(
        Box(left, top, *size), "most speckle near the middle of the fan; no region was given"
    )


def _small(picture: npt.NDArray[Any], ignore: Mask | None) -> F32:
    """Local contrast of the whole picture in few pixels."""
    grey = grey_of(picture)
    share = min(1.0, _SMALL_PX / max(grey.shape))
    size = (max(1, round(grey.shape[1] * share)), max(1, round(grey.shape[0] * share)))
    few = np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.uint8)
    covered = None
    if ignore is not None:
        covered = np.asarray(cv2.resize(ignore.astype(np.float32), size)) > 0.1
    return local_contrast(few, echo_area(few, covered), _BLUR_PX)


def _inner(small: F32) -> F32:
    """The middle of a picture, so far from its edges as frames are shifted."""
    rows, cols = small.shape
    dy = max(1, min(_REACH_PX, round(rows * (1 - _INNER) / 2)))
    dx = max(1, min(_REACH_PX, round(cols * (1 - _INNER) / 2)))
    return small[dy:-dy, dx:-dx]
