"""Which of two panes shows contrast agent?

Two witnesses: a palette of one hue, which B-mode pictures do not have, and bubbles, whose speckle
is new after half a second while tissue keeps its own. When they contradict each other, when both
panes are alike, or when one shows colour flow, there is no answer.

Shape legend: N sampled frames, H rows, W columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from renalkit.ceus.sampling import Sample
from renalkit.domain.geometry import Box

Mask = npt.NDArray[np.bool_]
Grey = npt.NDArray[np.uint8]
Pictures = npt.NDArray[np.uint8]

FEWEST_FRAMES = 5
"""Fewer frames are a still: nothing changes enough to be told from what stands still."""

_CLEAR = 0.5
_CLEAR_TINT, _CLEAR_CHANGE = 0.15, 0.3  # differences that leave no doubt


@dataclass(frozen=True, slots=True)
class Order:
    """second_is_contrast: -1..1, its size the confidence. words: the figures of both panes.
    refuse: why neither can be."""

    second_is_contrast: float
    words: str
    refuse: str = ""


def pane_order(frames: Sample, boxes: tuple[Box, Box], live: Mask) -> Order:
    """Evidence of hue first; where both panes are grey (or alike in hue), of change over time."""
    hues = [_hue(frames.frames, box, live) for box in boxes]
    if any(hue.flow for hue in hues):
        return Order(
            0.0, "", "one of the panes shows colour flow: several hues, or colour over grey"
        )
    tint = hues[1].strength - hues[0].strength
    words = f"colour {hues[0].strength:.2f} and {hues[1].strength:.2f}"
    lasting = None
    if len(frames.indices) >= FEWEST_FRAMES:
        kept = [_speckle_kept(frames.grey, box, live) for box in boxes]
        # Losing four times as much speaks as clearly as a large difference.
        lost = [max(1.0 - value, 0.01) for value in kept]
        ratio = math.log(lost[1] / lost[0]) / math.log(4.0) * _CLEAR_CHANGE
        lasting = max(kept[0] - kept[1], ratio, key=abs)
        words += f", speckle kept {kept[0]:.2f} and {kept[1]:.2f}"
    by_tint = float(np.clip(tint / _CLEAR_TINT, -1.0, 1.0))
    by_change = 0.0 if lasting is None else float(np.clip(lasting / _CLEAR_CHANGE, -1.0, 1.0))
    if by_tint * by_change < 0 and min(abs(by_tint), abs(by_change)) >= _CLEAR:
        return Order(0.0, "", f"colour and change over time contradict each other: {words}")
    return Order(max(by_tint, by_change, key=abs), f"contrast by {words}")


@dataclass(frozen=True, slots=True)
class _Hue:
    """strength: 0..1 share of the light that is coloured. flow: colours of several hues, or grey
    and colour, as colour flow over tissue has them and a contrast palette has not."""

    strength: float
    flow: bool


def _hue(frames: Pictures, box: Box, live: Mask) -> _Hue:
    """Colour of the live pixels of a pane over frames (N,H,W,3), weighted by brightness."""
    part = frames[(slice(None), *box.slices)][:, live[box.slices]].reshape(-1, 3)
    values = part[:: max(1, len(part) // 400_000)].astype(np.float32)
    red, green, blue = np.ascontiguousarray(values.T)
    high = np.maximum(np.maximum(red, green), blue)
    chroma = high - np.minimum(np.minimum(red, green), blue)
    total = float(high.sum())
    if total <= 0.0:
        return _Hue(0.0, flow=False)
    strength = float(chroma.sum()) / total
    bright = high > 80.0
    coloured = bright & (chroma > np.maximum(40.0, 0.25 * high))
    share = np.count_nonzero(coloured) / max(1, np.count_nonzero(bright))
    if np.count_nonzero(coloured) < 0.005 * len(values):
        return _Hue(strength, flow=False)
    # Direction in the plane of hues; their sum is short when there are several.
    a = (red - 0.5 * (green + blue))[coloured]
    b = ((green - blue) * np.float32(0.866))[coloured]
    together = float(np.hypot(a.sum(), b.sum()) / max(1e-6, float(np.hypot(a, b).sum())))
    return _Hue(strength, flow=bool(together < 0.8 or share < 0.7))


def _speckle_kept(grey: Grey, box: Box, live: Mask) -> float:
    """Median correlation, 0..1, of fine detail of the live pixels between neighbours among the
    frames (N,H,W), one moved onto the other by the best shift within an eighth of the pane. Over
    longer pauses a section that is lost would count against the tissue."""
    inside = cv2.erode(live[box.slices].astype(np.uint8), np.ones((9, 9), np.uint8))
    inside = inside[::2, ::2].astype(np.float32)
    height, width = inside.shape
    reach = max(2, height // 8), max(2, width // 8)
    inner = (slice(reach[0], height - reach[0]), slice(reach[1], width - reach[1]))
    values: list[float] = []
    for i in range(0, len(grey) - 1, max(1, len(grey) // 10)):
        before, after = _fine(grey[i][box.slices]), _fine(grey[i + 1][box.slices])
        template = np.ascontiguousarray((before * inside)[inner])
        if template.std() > 1e-3 and after.std() > 1e-3:
            match = cv2.matchTemplate(after * inside, template, cv2.TM_CCOEFF_NORMED)
            values.append(max(0.0, float(match.max())))
    return float(np.median(values)) if values else 0.0


def _fine(picture: Grey) -> npt.NDArray[np.float32]:
    """Every second pixel of the smoothed picture, without slow shading."""
    small = cv2.blur(picture, (2, 2))[::2, ::2].astype(np.float32)
    return np.asarray(small - cv2.blur(small, (9, 9)), np.float32)
