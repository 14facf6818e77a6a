"""Which pixels are drawn over or beside the echoes: clock, ruler, bars, text, logo, calipers?

What is drawn stands still or changes in small places only; echoes change everywhere at once. Over
the echoes a drawn line is bright and constant where its surroundings change, or it has a colour
that the palette of its pane has not.

Shape legend: N sampled frames, H rows, W columns.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from renalkit.ceus.live import live_pixels, parts
from renalkit.domain.image import brightest, darkest

Mask = npt.NDArray[np.bool_]
Pictures = npt.NDArray[np.uint8]

_FAINTEST = 20  # grey level from which a pixel counts as drawn
_LINE = 60  # grey levels by which a drawn line is brighter than what is broader than it
_CONSTANT = 0.5  # deviation over time, grey levels
_LOSSY_CHANGE = 4.0  # the same where ringing of a lossy compression moves
_QUIET = 0.3  # of the change around it


def static_overlays(frames: Pictures) -> Mask:
    """Pixels (H,W) that show no echo in any of the frames (N,H,W,3), with one pixel of border.

    Give frames from the whole clip: what is drawn over echoes is told by what moves under it.

    Raises:
        ValueError: fewer than two frames, of which nothing can be said.
    """
    if len(frames) < 2:
        raise ValueError(f"{len(frames)} frames: what stands still needs at least two")
    grey = brightest(frames)
    live = live_pixels(grey)
    echoes = np.zeros(live.mask.shape, np.uint8)
    for part in parts(live.mask):
        echoes |= _filled(part.mask)
    faintest = grey.min(axis=0)
    shown = grey.max(axis=0) > _FAINTEST
    around = cv2.dilate(cv2.blur(live.change, (5, 5)), np.ones((13, 13), np.uint8))
    still = live.change <= (_LOSSY_CHANGE if live.lossy else _CONSTANT)
    quiet = still | (live.change <= _QUIET * around)
    broad = cv2.morphologyEx(faintest, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    line = still & (cv2.subtract(faintest, broad) > _LINE)
    coloured = quiet & _foreign(frames, echoes > 0)
    over = (faintest > 2 * _FAINTEST) & (line | coloured)
    drawn = np.where(echoes > 0, over, shown).astype(np.uint8)
    return cv2.dilate(drawn, np.ones((3, 3), np.uint8)).astype(np.bool_)


def _filled(mask: Mask) -> npt.NDArray[np.uint8]:
    """With its holes: a drawn cross is a hole in the changing picture."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros(mask.shape, np.uint8)
    cv2.drawContours(filled, outlines, -1, 1, cv2.FILLED)
    return filled


def _foreign(frames: Pictures, echoes: Mask) -> Mask:
    """Where the share of colour differs from what is usual within 12 px."""
    mean = frames.mean(axis=0, dtype=np.float32)
    high = brightest(mean)
    colour = np.where(high > _FAINTEST, (high - darkest(mean)) / np.maximum(high, 1.0), 0.0)
    inside = (echoes & (high > _FAINTEST)).astype(np.float32)
    size = (25, 25)
    usual = cv2.blur(colour.astype(np.float32) * inside, size) / np.maximum(
        cv2.blur(inside, size), 1e-3
    )
    return np.abs(colour - usual) > 0.25
