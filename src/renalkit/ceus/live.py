"""Where on a console's screen is the echo picture, and does the same shape appear twice?

Echoes change from frame to frame, everything else on the screen stands still. Two panes of a dual
examination show the same fan, so that the changing pixels of one fall on those of the other when
shifted by the distance of the panes.

Shape legend: N sampled frames, H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from renalkit.domain.geometry import Box, bounding_box

Mask = npt.NDArray[np.bool_]
Grey = npt.NDArray[np.uint8]
Levels = npt.NDArray[np.float32]
Axis = Literal["x", "y"]

_LEAST_CHANGE = 2
_BLOCK = 8  # JPEG codes blocks of 8 x 8 px
_BLOCKY = 0.2  # share of an oblique border on block borders; 1/8 by chance
_LEAST_SHARE = 0.004  # of the picture: smaller changing parts are clocks, text and specks


@dataclass(frozen=True, slots=True, eq=False)
class Live:
    """mask: (H,W) where the picture changes. mean, change: (H,W) mean and deviation over time in
    grey levels. lossy: the change spreads over the blocks of a lossy compression."""

    mask: Mask
    mean: Levels
    change: Levels
    lossy: bool


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One connected part of the changing picture, its box and its mask (H,W)."""

    box: Box
    mask: Mask

    @property
    def area(self) -> int:
        return int(np.count_nonzero(self.mask))


def live_pixels(grey: Grey) -> Live:
    """Pixels whose grey level changes over the frames (N,H,W), without specks.

    A change of 2 levels is enough. In block-coded pictures the ringing of echoes fills their block;
    there a pixel must change at least a third as much as its surroundings.
    """
    spread = grey.max(axis=0) - grey.min(axis=0)
    mask = cv2.medianBlur((spread >= _LEAST_CHANGE).astype(np.uint8), 3).astype(np.bool_)
    mean, change = _moments(grey)
    if not _follows_blocks(mask):
        return Live(mask, mean, change, lossy=False)
    return Live(_stands_out(change, 0.3), mean, change, lossy=True)


def _moments(grey: Grey) -> tuple[Levels, Levels]:
    """Mean and deviation (H,W) over the frames."""
    total = np.zeros(grey.shape[1:], np.float32)
    squares = np.zeros_like(total)
    for frame in grey:
        value = frame.astype(np.float32)
        total += value
        squares += value * value
    mean = total / len(grey)
    spread = np.sqrt(np.maximum(squares / len(grey) - mean * mean, 0.0))
    return np.asarray(mean, np.float32), np.asarray(spread, np.float32)


def _stands_out(value: Levels, share: float) -> Mask:
    """Where a value is at least a share of the strongest (smoothed) within 6 px."""
    around = cv2.dilate(cv2.blur(value, (5, 5)), np.ones((13, 13), np.uint8))
    mask = (value >= share * around) & (value > 0.25)
    return cv2.medianBlur(mask.astype(np.uint8), 5).astype(np.bool_)


def _follows_blocks(mask: Mask) -> bool:
    """Whether oblique borders of the mask lie on block borders; straight ones may by chance."""
    on_grid = total = 0
    for image in (mask, mask.T):
        _, places = np.nonzero(image[:, 1:] != image[:, :-1])
        counts = np.bincount(places + 1, minlength=image.shape[1])
        # A straight border puts a large part of all crossings on one place.
        counts = np.minimum(counts, max(4, int(0.02 * counts.sum())))
        on_grid += int(counts[::_BLOCK].sum())
        total += int(counts.sum())
    return total > 0 and on_grid / total > _BLOCKY


def parts(mask: Mask) -> list[Part]:
    """The large connected parts, largest first; parts whose boxes overlap are one."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        mask.astype(np.uint8), connectivity=8
    )
    least = max(16.0, _LEAST_SHARE * mask.size)
    found = [
        (Box(*(int(v) for v in stats[k, :4])), {k}) for k in range(1, count) if stats[k, 4] >= least
    ]
    merged = True
    while merged:
        merged = False
        for i in range(len(found)):
            j = next((j for j in range(i + 1, len(found)) if _meet(found[i][0], found[j][0])), None)
            if j is not None:
                other = found.pop(j)
                found[i] = (found[i][0].union(other[0]), found[i][1] | other[1])
                merged = True
                break
    made = [Part(box, np.isin(labels, list(members))) for box, members in found]
    return sorted(made, key=lambda part: -part.area)


def _meet(a: Box, b: Box) -> bool:
    return (
        min(a.x + a.width, b.x + b.width) > max(a.x, b.x)
        and min(a.y + a.height, b.y + b.height) > max(a.y, b.y)
    )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Twins:
    """Two parts of the same shape.

    first, second: boxes of equal size, left or upper first. axis: along which they lie. contained:
    share of the smaller part that falls on the other one when shifted. loose_px: by how much the
    shift can change without losing overlap.
    """

    first: Box
    second: Box
    axis: Axis
    contained: float
    loose_px: int


_OFF_AXIS_PX = 3
_SAME_OVERLAP = 0.9985
_OVERLAP_PX = 4  # borders are that uncertain with lossy compression
_SURELY_BRIGHT, _WHITE_BORDER_PX = 60.0, 4


def twins(one: Mask, two: Mask, live: Live) -> Twins | None:
    """The shift along one axis that brings one part (H,W) onto the other.

    Either may lack what is too dark to change; the boxes are those of both together. None without
    one clear shift along an axis.
    """
    overlap = _overlap(one, two)
    rows, cols = one.shape
    # overlap[dy + rows, dx + cols]: pixels of `one` that, moved by (dx, dy), meet `two`.
    dy, dx = (int(v) for v in np.unravel_index(int(overlap.argmax()), overlap.shape))
    dy, dx = dy - rows, dx - cols
    axis: Axis = "x" if abs(dx) >= abs(dy) else "y"
    if min(abs(dx), abs(dy)) > _OFF_AXIS_PX or overlap.max() < 1:
        return None
    along = overlap[rows, :] if axis == "x" else overlap[:, cols]
    same = np.flatnonzero(along >= _SAME_OVERLAP * along.max())
    shift = round(float(same.mean())) - (cols if axis == "x" else rows)
    if shift == 0 or np.ptp(same) + 1 != same.size:
        return None
    contained = float(along.max()) / max(1, min(np.count_nonzero(one), np.count_nonzero(two)))
    if shift < 0:
        one, two, shift = two, one, -shift
    step = (shift, 0) if axis == "x" else (0, shift)
    first = _shared_box(one, two, step, live)
    if first is None or (first.width if axis == "x" else first.height) > shift + _OVERLAP_PX:
        return None
    second = Box(first.x + step[0], first.y + step[1], first.width, first.height)
    if not second.fits(rows, cols):
        return None
    return Twins(first, second, axis, contained, int(np.ptp(same)))


def _shared_box(one: Mask, two: Mask, step: tuple[int, int], live: Live) -> Box | None:
    """The box of the first pane: of both parts, the second moved back onto the first."""
    both = one | _back(two, step)
    rough = bounding_box(both)
    if rough is None:
        return None
    change, mean = (v + _back(v, step) for v in (live.change, live.mean))
    bright = mean > _SURELY_BRIGHT  # echoes at full white stand still
    if live.lossy:
        # Ringing beside a dark pane is weak, and dark, against the echoes of the bright one.
        echoes = _stands_out(mean, 0.1) & (_stands_out(change, 0.35) | bright)
        room = 0
    else:
        echoes, room = both | bright, _WHITE_BORDER_PX
    x0, y0 = max(0, rough.x - room), max(0, rough.y - room)
    near = slice(y0, rough.y + rough.height + room), slice(x0, rough.x + rough.width + room)
    inside = np.zeros_like(one)
    inside[near] = echoes[near]
    found = parts(inside)
    return _grown(found[0].box, step, *one.shape) if found else None


def _back(values: npt.NDArray[Any], step: tuple[int, int]) -> npt.NDArray[Any]:
    """(H,W) moved left and up by (x, y) of at least 0; nothing comes in from the other side."""
    dx, dy = step
    moved = np.zeros_like(values)
    moved[: values.shape[0] - dy, : values.shape[1] - dx] = values[dy:, dx:]
    return moved


def _overlap(one: Mask, two: Mask) -> npt.NDArray[np.float64]:
    """Counts (2H,2W) of common pixels at every shift, by Fourier transform."""
    rows, cols = one.shape
    size = (2 * rows, 2 * cols)
    f = np.conj(np.fft.rfft2(one.astype(np.float32), size)) * np.fft.rfft2(
        two.astype(np.float32), size
    )
    return np.fft.fftshift(np.rint(np.fft.irfft2(f, size)))


def _grown(box: Box, step: tuple[int, int], rows: int, cols: int) -> Box:
    """One pixel more on each side where both panes have room: the border of a fan is half dark."""
    left, top = min(1, box.x), min(1, box.y)
    right = min(1, cols - (box.x + box.width + step[0]))
    bottom = min(1, rows - (box.y + box.height + step[1]))
    if step[0] and box.width + left + right > step[0]:
        left = right = 0
    if step[1] and box.height + top + bottom > step[1]:
        top = bottom = 0
    return Box(box.x - left, box.y - top, box.width + left + right, box.height + top + bottom)


_SEAM, _AROUND = 0.25, 0.4


def seam(grey: Grey, box: Box, axis: Axis, live: Mask) -> int | None:
    """Where two pictures abut inside a box: first column (axis x) or row (axis y) of the second.

    Within a picture neighbouring lines look alike; across a seam they do not. Fine detail along
    the line is correlated between neighbours over all frames (N,H,W) and all pixels that are live
    in both. None unless exactly one place in the middle third stands out.
    """
    part, inside = grey[(slice(None), *box.slices)], live[box.slices]
    if axis == "y":
        part, inside = part.transpose(0, 2, 1), inside.T
    values = part.astype(np.float32)
    # High-pass along the line: what remains does not follow slow shading.
    smooth = cv2.blur(values.transpose(1, 2, 0).reshape(values.shape[1], -1), (1, 9))
    smooth = smooth.reshape(values.shape[1], values.shape[2], -1).transpose(2, 0, 1)
    detail = (values - smooth) * inside
    both = inside[:, 1:] & inside[:, :-1]
    a, b = detail[:, :, 1:] * both, detail[:, :, :-1] * both
    power = np.sqrt((a * a).sum(axis=(0, 1)) * (b * b).sum(axis=(0, 1)))
    alike = (a * b).sum(axis=(0, 1)) / np.maximum(power, 1e-6)
    enough = both.sum(axis=0) >= 0.25 * inside.shape[0]
    width = inside.shape[1]
    middle = np.arange(width // 3, width - width // 3)
    low = [int(x) for x in middle - 1 if enough[x] and alike[x] < _SEAM]
    if len(low) != 1:
        return None
    (place,) = low
    around = np.r_[alike[max(0, place - 6) : max(0, place - 1)], alike[place + 2 : place + 7]]
    if around.size == 0 or float(np.median(around)) < _AROUND:
        return None
    return place + 1 + (box.x if axis == "x" else box.y)


def neck(part: Part, axis: Axis) -> int | None:
    """Where two shapes touch: first column (axis x) or row (axis y) of the second. None unless
    there is a narrow place within 3 % of the middle of the part."""
    inside = part.mask[part.box.slices]
    profile = inside.sum(axis=0 if axis == "x" else 1)
    width = profile.size
    near = max(1, round(0.03 * width))
    middle = slice(max(1, width // 2 - near), min(width - 1, width // 2 + near + 1))
    narrow = int(profile[middle].min())
    if narrow > 0.85 * min(int(profile[: width // 2].max()), int(profile[width // 2 :].max())):
        return None
    places = np.flatnonzero(profile[middle] == narrow)
    place = middle.start + int(places[len(places) // 2])
    return place + (part.box.x if axis == "x" else part.box.y)
