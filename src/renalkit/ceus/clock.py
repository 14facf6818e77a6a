"""What does the burned-in contrast clock say in each frame, and do the frame times agree with it?

    reading = read_clock(clip.pixels, clip.times_s)
    reading.seconds[i]        seconds since injection, as shown in frame i, or None
    reading.injection_s       when the clock shows zero, in the clip's own time

The clock is a short line of text outside the echoes that reads like ``T1 0:46``, ``00:46`` or
``0:46.3`` and changes from second to second. A time of day (three parts), or a text that stands
still while time passes, is no contrast clock. In a pass over the frames that serves other ends as
well: `find_clock` on a sample, `ClockReader.step` on each frame, `check_clock` at the end.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

from renalkit.ceus.glyphs import FACES, HEIGHTS, Line, Reading, read_line
from renalkit.ceus.live import live_pixels, parts
from renalkit.ceus.sampling import sample
from renalkit.domain.geometry import Box
from renalkit.domain.image import Pixels, PixelStack, brightest

Grey = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

_CLOCK = re.compile(r"(?P<mark>T\d?)?(?P<sign>-)?(?P<m>\d{1,2}):(?P<s>[0-5]\d)(?:\.(?P<d>\d))?")
_LEAST_SCORE, _LEAST_CHAR, _LEAST_MARGIN = 0.75, 0.6, 0.03
_KNOWN_FACE = 0.85


@dataclass(frozen=True, slots=True)
class Clock:
    """Where a clock is and how it is written.

    box: of its line; face, height: see glyphs. certainty: 0..1, median over some frames of the
    correlation of the least certain character; below 0.85 the face is only similar, and readings
    are believed only where they run with the frame times.
    """

    box: Box
    face: str
    height: int
    certainty: float

    @property
    def known_face(self) -> bool:
        return self.certainty >= _KNOWN_FACE


@dataclass(frozen=True, slots=True)
class NoClock:
    """No clock was found, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class ClockReading:
    """What the clock said.

    box: of its line, None without a clock; reason: why there is none, empty otherwise.
    seconds: (T,) since injection, None where not read. step_s: smallest step it shows, 1 or 0.1.
    offset_s: clock minus frame time, at best agreement; None without frame times. rate: seconds on
    the clock per second of frame time, None when the clip is too short to say. agreement: share of
    the read frames that fit offset_s. agrees: None when there was nothing to compare; words: said
    for a person. times_wrong: the clock runs on all the while, but not with the frame times: they
    are wrong, or frames are missing. One that stood still or was set again says nothing of them.
    """

    box: Box | None
    reason: str
    seconds: tuple[float | None, ...]
    step_s: float
    offset_s: float | None
    rate: float | None
    agreement: float | None
    agrees: bool | None
    words: str
    times_wrong: bool = False

    @property
    def injection_s(self) -> float | None:
        """Frame time at which the clock shows zero; None unless clock and frame times agree."""
        return -self.offset_s if self.agrees and self.offset_s is not None else None

    @property
    def read_share(self) -> float:
        """Share of frames that were read."""
        return sum(s is not None for s in self.seconds) / max(1, len(self.seconds))


def read_clock(stack: PixelStack, times_s: Sequence[float] | None = None) -> ClockReading:
    """Find the clock and read it in every frame (one pass over the stack).

    Args:
        stack: (T,H,W) or (T,H,W,3). times_s: frame times (T,) to check against.
    """
    found = find_clock(sample(stack, 12).frames)
    if isinstance(found, NoClock):
        return check_clock(found, [None] * int(stack.shape[0]), times_s)
    reader = ClockReader(found)
    return check_clock(found, [reader.step(stack[i]) for i in range(stack.shape[0])], times_s)


def find_clock(frames: npt.NDArray[np.uint8]) -> Clock | NoClock:
    """The clock in a sample of frames (N,H,W,3)."""
    grey = brightest(frames)
    shown = grey.max(axis=0)
    changed = np.zeros(shown.shape, np.bool_)
    hidden = np.zeros(shown.shape, np.uint8)
    if len(grey) > 1:
        changed = (shown - grey.min(axis=0)) > 40
        for part in parts(live_pixels(grey).mask):
            # In a small picture the digits themselves are a large changing part.
            if part.box.height > 0.1 * shown.shape[0]:
                hidden |= part.mask.astype(np.uint8)
        hidden = cv2.dilate(hidden, np.ones((3, 3), np.uint8))
    lines = sorted(_lines(shown, hidden > 0), key=lambda box: -box.width)
    moving = [box for box in lines if changed[box.slices].any()]
    for box in moving:
        clock = _as_clock(grey, box, marked=False)
        if clock is not None:
            return clock
    if moving:
        reason = f"{len(moving)} changing lines of text, none reads like a clock"
    else:
        reason = f"{len(lines)} lines of text, none reads like a clock"
    still = [c for box in lines if (c := _as_clock(grey, box, marked=True)) is not None]
    return still[0] if len(still) == 1 else NoClock(reason)


def _lines(shown: Grey, hidden: Mask) -> list[Box]:
    """Lines of text outside the echoes: ink with little blank between it, wider than tall."""
    rows = shown.shape[0]
    most = max(12, round(0.08 * rows))
    background = cv2.morphologyEx(shown, cv2.MORPH_OPEN, np.ones((9, 9), np.uint8))
    ink = ((cv2.subtract(shown, background) > 45) & ~hidden).astype(np.uint8)
    found: dict[tuple[int, int, int, int], Box] = {}
    for gap in (0.012, 0.02, 0.03):
        joined = cv2.dilate(ink, np.ones((1, 2 * round(gap * rows / 2) + 1), np.uint8))
        count, labels, stats, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
        for k in range(1, count):
            x, y, width, height = (int(v) for v in stats[k, :4])
            if not (min(HEIGHTS) - 1 <= height <= most and width >= 1.5 * height):
                continue
            inside = (labels[y : y + height, x : x + width] == k) & (
                ink[y : y + height, x : x + width] > 0
            )
            ys, xs = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
            if ys.size >= min(HEIGHTS) - 1 and xs.size and np.ptp(xs) <= 12 * ys.size:
                box = _padded(
                    (x + int(xs[0]), y + int(ys[0])), (int(np.ptp(xs)) + 1, ys.size), shown.shape
                )
                found[(box.x, box.y, box.width, box.height)] = box
    return list(found.values())


def _padded(corner: tuple[int, int], size: tuple[int, int], shape: tuple[int, ...]) -> Box:
    """Room of 3 px above and below, for a character on the right, and on the left for a mark that
    stands apart: without it "T1 0:46" reads as 10:46."""
    (x, y), (width, height) = corner, size
    x0, y0 = max(0, x - round(1.6 * height)), max(0, y - 3)
    x1, y1 = min(shape[1], x + width + height), min(shape[0], y + height + 3)
    return Box(x0, y0, x1 - x0, y1 - y0)


def _as_clock(grey: Grey, box: Box, *, marked: bool) -> Clock | None:
    """The face that reads a line best, if it is a clock then; marked: only with its T."""
    lines = [_normal(frame[box.slices]) for frame in grey[:: max(1, len(grey) // 3)][:3]]
    tall = np.flatnonzero(lines[0].max(axis=1) > 0.4)
    if tall.size == 0:
        return None
    height = int(np.ptp(tall)) + 1
    tried = [
        (read_line(lines[0], face, h), face, h)
        for face in FACES
        for h in (height - 1, height, height + 1)
        if h in HEIGHTS
    ]
    for first, face, h in sorted(tried, key=lambda t: -t[0].score)[:3]:
        readings = [first, *(read_line(line, face, h) for line in lines[1:])]
        good = [r.weakest for r in readings if _seconds(r) is not None]
        if good and (not marked or "T" in first.text):
            return Clock(box, face, h, float(np.median(good)))
    return None


def _normal(part: Grey) -> Line:
    """Grey levels 0..1 between background and ink."""
    value = part.astype(np.float32)
    low, high = float(np.median(value)), float(value.max())
    return np.clip((value - low) / max(30.0, high - low), 0.0, 1.0).astype(np.float32)


def _seconds(reading: Reading) -> tuple[float, float] | None:
    """(seconds, smallest step) of a text, None when it is no clock or not read surely."""
    sure = reading.weakest >= _LEAST_CHAR and reading.margin >= _LEAST_MARGIN
    if not sure or reading.score < _LEAST_SCORE:
        return None
    match = _CLOCK.fullmatch(reading.text)
    if match is None:
        return None
    value = 60.0 * int(match["m"]) + int(match["s"]) + 0.1 * int(match["d"] or 0)
    return (-value if match["sign"] else value), (0.1 if match["d"] else 1.0)


class ClockReader:
    """Reads a clock frame after frame; an unchanged clock is not read again."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._last: Grey | None = None
        self._said: float | None = None

    def step(self, frame: Pixels) -> float | None:
        """Seconds shown in a frame (H,W) or (H,W,3), None when not read surely."""
        part = np.asarray(frame[self.clock.box.slices], np.float32)
        if frame.dtype != np.uint8:
            part *= 255.0 / max(1.0, float(part.max()))
        grey = (part if part.ndim == 2 else brightest(part)).astype(np.uint8)
        smooth = np.asarray(cv2.blur(grey, (3, 3)), np.uint8)
        if self._last is None or int(cv2.absdiff(smooth, self._last).max()) > 20:
            self._last = smooth
            found = _seconds(read_line(_normal(grey), self.clock.face, self.clock.height))
            self._said = None if found is None else found[0]
        return self._said


_SLACK_S = 0.05
_FEWEST_CHANGES = 5
_LEAST_AGREEMENT, _LEAST_AGREEMENT_UNKNOWN = 0.95, 0.85


def check_clock(
    clock: Clock | NoClock, seconds: Sequence[float | None], times_s: Sequence[float] | None
) -> ClockReading:
    """What was read, cleaned and held against the frame times.

    A single reading that does not lie between its neighbours is dropped. The clock shows whole
    steps: it agrees with a frame time t when shown <= t + offset < shown + step.

    Raises:
        ValueError: another number of times than of readings.
    """
    if times_s is not None and len(times_s) != len(seconds):
        raise ValueError(f"{len(times_s)} frame times for {len(seconds)} readings")
    if isinstance(clock, NoClock):
        return _unread(None, clock.reason, len(seconds))
    kept = _without_slips(seconds)
    shown = np.array([np.nan if s is None else s for s in kept])
    read = np.isfinite(shown)
    whole = bool(np.all(np.abs(shown[read] - np.round(shown[read])) < 1e-6))
    step = 1.0 if whole else 0.1
    if not read.any():
        return _unread(clock.box, "the clock could not be read in any frame", len(kept))
    unknown = "the clock is written in a face that is not known well enough"
    if times_s is None:
        if not clock.known_face:
            return _unread(clock.box, unknown, len(kept))
        words = "no frame times to compare with"
        return ClockReading(clock.box, "", kept, step, None, None, None, None, words)
    times = np.asarray(times_s, np.float64)
    offset, agreement = _best_offset(times[read], shown[read], step)
    if not clock.known_face:
        if agreement < _LEAST_AGREEMENT_UNKNOWN or read.sum() < 5 or np.ptp(shown[read]) < 5 * step:
            return _unread(clock.box, unknown, len(kept))
        late = times + offset - shown
        read &= (late > -_SLACK_S) & (late < step + _SLACK_S)
        kept = tuple(s if good else None for s, good in zip(kept, read.tolist(), strict=True))
        agreement = 1.0
    rate = _rate(times[read], shown[read], step)
    agrees, words = _verdict(times[read], shown[read], step, agreement, rate)
    if agrees is not None and read.mean() < 0.5:
        words += f"; read in only {read.mean():.0%} of the frames"
    wrong = agrees is False and _runs_otherwise(times[read], shown[read], step)
    return ClockReading(clock.box, "", kept, step, offset, rate, agreement, agrees, words, wrong)


def _unread(box: Box | None, reason: str, n_frames: int) -> ClockReading:
    nothing = (None,) * n_frames
    return ClockReading(box, reason, nothing, 1.0, None, None, None, None, reason)


def _without_slips(seconds: Sequence[float | None]) -> tuple[float | None, ...]:
    """A reading outside those before and after it is a slip when these are in order."""
    kept = list(seconds)
    places = [i for i, s in enumerate(seconds) if s is not None]
    for before, here, after in zip(places, places[1:], places[2:], strict=False):
        a, b, c = seconds[before], seconds[here], seconds[after]
        if a is not None and b is not None and c is not None and a <= c and not a <= b <= c:
            kept[here] = None
    return tuple(kept)


def _best_offset(
    times: npt.NDArray[np.float64], shown: npt.NDArray[np.float64], step: float
) -> tuple[float, float]:
    """The middle of the offsets that fit most readings, and the share they fit."""
    low, high = shown - times - _SLACK_S, shown - times + step + _SLACK_S
    edges = np.sort(np.concatenate([low, high]))
    middles = 0.5 * (edges[1:] + edges[:-1])
    fits = np.searchsorted(np.sort(low), middles, "right") - np.searchsorted(
        np.sort(high), middles, "left"
    )
    best = np.flatnonzero(fits == fits.max())
    # A stretch of one run of equal counts; its middle is the most likely.
    run = best[: int(np.argmax(np.diff(best, append=best[-1] + 2) > 1)) + 1]
    offset = 0.5 * (edges[run[0]] + edges[run[-1] + 1])
    return float(offset), float(fits.max()) / len(times)


def _rate(
    times: npt.NDArray[np.float64], shown: npt.NDArray[np.float64], step: float
) -> float | None:
    """Median slope over pairs half the clip apart; None when the clip is short for its step."""
    half = len(times) // 2
    span = times[half:] - times[: len(times) - half]
    if half == 0 or float(np.median(span)) < 5.0 * step:
        return None
    return float(np.median((shown[half:] - shown[: len(shown) - half]) / span))


def _runs_otherwise(
    times: npt.NDArray[np.float64], shown: npt.NDArray[np.float64], step: float
) -> bool:
    """Whether a clock that never goes back gains or loses more than a step on the frame times.

    Before its first and after its last change it may have been stopped; that is left out.
    """
    steps = np.diff(shown)
    changes = np.flatnonzero(steps)
    if changes.size < _FEWEST_CHANGES or (steps < 0).any():
        return False
    ahead = (shown - times)[changes[0] + 1 : changes[-1] + 1]
    few = max(1, ahead.size // 6)
    return bool(abs(np.median(ahead[-few:]) - np.median(ahead[:few])) > step + _SLACK_S)


def _verdict(
    times: npt.NDArray[np.float64],
    shown: npt.NDArray[np.float64],
    step: float,
    agreement: float,
    rate: float | None,
) -> tuple[bool | None, str]:
    span = float(np.ptp(times))
    if len(times) < 2 or span < step:
        return None, f"{len(times)} readings over {span:.1f} s: too short to compare"
    if np.ptp(shown) == 0 and span > 2.0 * step:
        return False, f"the clock stands still at {shown[0]:.0f} s while {span:.1f} s pass"
    if rate is not None and abs(rate - 1.0) > max(0.03, step / span):
        return False, f"the clock runs {rate:.2f} s per second of frame time"
    if any(b < a for a, b in pairwise(shown.tolist())):
        return False, "the clock goes back: it was set again within the clip"
    if agreement < _LEAST_AGREEMENT:
        return False, f"only {agreement:.0%} of the readings fit the frame times"
    return True, f"clock and frame times agree in {agreement:.0%} of the readings"
