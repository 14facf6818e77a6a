"""Where is the speckle of an echo picture, in units that brightness does not change?

Tissue is recognised again by its speckle: (g - local mean) / local deviation, so that slow changes
of gain carry no weight and bright fixed layers little, and zero outside the fan and under overlays.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Grey = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
F32 = npt.NDArray[np.float32]

_GRAIN = np.float32(4.0)  # grey levels that count as noise and not as contrast
_DARK = 3  # grey level up to which a pixel may lie outside the fan


def grey_of(picture: npt.NDArray[Any]) -> Grey:
    """Grey levels (H,W) of a picture (H,W) or (H,W,3).

    Raises:
        ValueError: another shape, or not 8 bits.
    """
    if picture.dtype != np.uint8 or picture.ndim not in (2, 3):
        raise ValueError(
            f"a picture of {picture.dtype} {picture.shape} is not (H,W) or (H,W,3) of 8 bits"
        )
    if picture.ndim == 2:
        return np.ascontiguousarray(picture)
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY), np.uint8)


def echo_area(grey: Grey, ignore: Mask | None) -> F32:
    """Where a picture (H,W) holds echoes (1) and where not (0): outside the fan, under overlays.

    The fan is the largest connected bright part with all that lies inside it.
    """
    lit = cv2.morphologyEx(
        (grey > _DARK).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8)
    )
    count, labels, stats, _ = cv2.connectedComponentsWithStats(lit)
    area = np.ones_like(grey)
    if count > 1:
        fan = (labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))).astype(np.uint8)
        outlines, _ = cv2.findContours(fan, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        area = np.zeros_like(grey)
        cv2.drawContours(area, outlines, -1, 1, cv2.FILLED)
        area = np.asarray(cv2.erode(area, np.ones((5, 5), np.uint8)), np.uint8)
    if ignore is not None:
        area[np.asarray(cv2.dilate(ignore.astype(np.uint8), np.ones((3, 3), np.uint8))) > 0] = 0
    return area.astype(np.float32)


def local_contrast(grey: Grey, valid: F32, blur: int) -> F32:
    """(g - local mean) / local deviation of grey levels (H,W) where valid, else 0.

    blur: side of the neighbourhood in px, odd.
    """
    size = (blur, blur)
    share = np.maximum(np.asarray(cv2.blur(valid, size)), np.float32(0.05))
    levels = grey.astype(np.float32)
    levels = (levels - np.asarray(cv2.blur(levels * valid, size)) / share) * valid
    # Running sums leave small negative rests where a bright place has gone by.
    square = np.maximum(np.asarray(cv2.blur(levels * levels, size)), np.float32(0.0))
    spread = np.sqrt(square / share)
    return np.asarray(levels / (spread + _GRAIN), np.float32)


def correlations(window: F32, template: F32) -> F32:
    """Normalised cross-correlation of a template (h,w) at each place of a window (H,W):
    (H-h+1, W-w+1), 0 where there is nothing to compare."""
    found = np.asarray(cv2.matchTemplate(window, template, cv2.TM_CCOEFF_NORMED), np.float32)
    # Places almost without echoes divide rounding by rounding.
    return np.where(np.isfinite(found) & (np.abs(found) <= 1.01), found, np.float32(0.0))


def vertex(values: F32, at: int) -> float:
    """Where the parabola through three neighbours is highest, relative to the middle one."""
    if not 0 < at < len(values) - 1:
        return 0.0
    before, here, after = (float(v) for v in values[at - 1 : at + 2])
    bend = before - 2 * here + after
    return 0.5 * (before - after) / bend if bend < 0 else 0.0
