"""Which pixels does an outline or a run-length code cover?

Pixel (x, y) covers [x, x+1) x [y, y+1); it belongs to an outline when its centre is inside
(even-odd rule). Pieces that share an edge therefore never share a pixel. Masks are (H,W) bool.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, isfinite, pi, sin

import numpy as np
import numpy.typing as npt

BoolMask = npt.NDArray[np.bool_]
Point = tuple[float, float]

MAX_POINTS = 20_000
_FAR = 1e7


def polygon_mask(points: Sequence[Point], rows: int, cols: int) -> BoolMask:
    """Pixels (rows, cols) whose centre is inside the closed polygon of (x, y) corners.

    Parts outside the picture are cut off; fewer than three corners or a line cover nothing.

    Raises:
        ValueError: more than 20,000 corners, or a coordinate that is not finite.

    >>> int(polygon_mask([(1, 1), (4, 1), (4, 3), (1, 3)], 5, 6).sum())
    6
    """
    if len(points) > MAX_POINTS:
        raise ValueError(f"outline of {len(points)} corners; at most {MAX_POINTS}")
    if not all(isfinite(v) and abs(v) < _FAR for p in points for v in p):
        raise ValueError("outline with coordinates that are not finite")
    mask = np.zeros((rows, cols), bool)
    if len(points) < 3:
        return mask
    start = np.asarray(points, float)
    end = np.roll(start, -1, axis=0)
    first = max(0, int(np.ceil(start[:, 1].min() - 0.5)))
    last = min(rows - 1, int(np.ceil(start[:, 1].max() - 0.5)) - 1)
    for row in range(first, last + 1):
        centre = row + 0.5
        crosses = (start[:, 1] <= centre) != (end[:, 1] <= centre)
        a, b = start[crosses], end[crosses]
        x = a[:, 0] + (centre - a[:, 1]) * (b[:, 0] - a[:, 0]) / (b[:, 1] - a[:, 1])
        # The first pixel whose centre is at or right of the crossing; sides alternate there.
        column = np.clip(np.ceil(x - 0.5), 0, cols).astype(int)
        flips = np.bincount(column, minlength=cols + 1)[:cols]
        mask[row] = np.cumsum(flips) % 2 == 1
    return mask


def circle_outline(centre: Point, edge: Point, corners: int = 256) -> list[Point]:
    """A circle given by its centre and a point on it, as a polygon of equal area.

    The corner radius exceeds the circle's so that the area is that of the circle to 1e-12.
    """
    radius = float(np.hypot(edge[0] - centre[0], edge[1] - centre[1]))
    radius *= float(np.sqrt(2 * pi / (corners * sin(2 * pi / corners))))
    angles = (2 * pi * k / corners for k in range(corners))
    return [(centre[0] + radius * cos(t), centre[1] + radius * sin(t)) for t in angles]


def runs_mask(runs: Sequence[int], rows: int, cols: int, *, by_column: bool) -> BoolMask:
    """The mask of alternating run lengths, background first; by_column for COCO's order.

    Raises ValueError unless the runs are non-negative and cover the picture exactly.
    """
    if any(r < 0 for r in runs) or sum(runs) != rows * cols:
        raise ValueError(f"runs cover {sum(runs)} pixels, the picture has {rows * cols}")
    inside = np.arange(len(runs)) % 2 == 1
    flat = np.repeat(inside, np.asarray(runs, dtype=np.int64))
    return flat.reshape(cols, rows).T if by_column else flat.reshape(rows, cols)


def coco_runs(text: str, limit: int) -> list[int]:
    """Run lengths of COCO's compressed text.

    Numbers are groups of five bits, low group first, in characters from '0' (48) on; bit 0x20
    says that more follow, bit 0x10 of the last group is the sign; from the third run on each is
    the difference to the run before the last. `limit` bounds the number of runs.

    Raises ValueError for other characters or a number without its end.
    """
    runs: list[int] = []
    at = 0
    while at < len(text):
        value, shift, more = 0, 0, True
        while more:
            if at >= len(text) or shift > 60:
                raise ValueError("compressed runs end inside a number")
            code = ord(text[at]) - 48
            if not 0 <= code < 64:
                raise ValueError("compressed runs hold a character outside '0'..'o'")
            value |= (code & 0x1F) << shift
            shift += 5
            more = bool(code & 0x20)
            if not more and code & 0x10:
                value -= 1 << shift
            at += 1
        if len(runs) > 2:
            value += runs[-2]
        runs.append(value)
        if len(runs) > limit:
            raise ValueError(f"more than {limit} runs")
    return runs
