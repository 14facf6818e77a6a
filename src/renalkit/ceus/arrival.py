"""When does the contrast agent reach a region?

Arrival is the first time at which the smoothed curve of echo power stays above its baseline by more
than k standard deviations and by more than a small share of the whole rise, for at least three
frames. The share keeps a neighbour's agent at the region's edge, which a quiet baseline shows long
before, from counting. The rise is found first, backwards from the peak, so that spikes before it
and flashes after it cannot be taken for it; the baseline is what lies before the rise.

Power is linear echo power (or any quantity that rises with the agent). Shape legend: T frames.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]

_MAD_TO_SD = 1.4826
_FOOT = 0.1  # share of the rise that marks its foot
_CLIMB_S = 6.0  # a longer baseline has room for its foot


@dataclass(frozen=True, slots=True)
class ArrivalOptions:
    """How arrival is found.

    deviations: k. share: of the rise from baseline to peak that must be exceeded as well.
    smooth_s: window of the moving mean. steady_s: window of the moving median in which the peak is
    sought; what lasts less than half of it is a flash. frames: how many in a row must lie above.
    baseline_s, baseline_frames: least time and number of frames before the rise. least_rise: of
    the peak over the baseline, as a share of the baseline, below which there is no bolus.
    longest_rise_s: from arrival to peak; what takes longer is no bolus.
    """

    deviations: float = 4.0
    share: float = 0.03
    smooth_s: float = 0.4
    steady_s: float = 2.0
    frames: int = 3
    baseline_s: float = 2.0
    baseline_frames: int = 4
    least_rise: float = 1.0
    longest_rise_s: float = 90.0

    def __post_init__(self) -> None:
        if not (self.deviations > 0 and 0 < self.share < _FOOT and self.least_rise > 0):
            raise ValueError(
                f"deviations and least_rise must be positive, share between 0 and {_FOOT}"
            )
        if not (0 <= self.smooth_s <= self.steady_s and self.baseline_s >= 0):
            raise ValueError("windows must not be negative, smooth_s not longer than steady_s")
        if self.frames < 1 or self.baseline_frames < 2 or self.longest_rise_s <= 0:
            raise ValueError("at least 1 frame above, 2 frames of baseline and time to rise")


@dataclass(frozen=True, slots=True)
class Arrival:
    """When the agent arrives, or why that cannot be said.

    time_s: in the clock of the given times, None when unknown. reason: in words. doubt_s: time
    between the last usable frame below the level and the first above. baseline, deviation: median
    and robust standard deviation of the power before the rise. level: what had to be exceeded.
    """

    time_s: float | None
    reason: str
    doubt_s: float | None = None
    baseline: float | None = None
    deviation: float | None = None
    level: float | None = None


def find_arrival(
    times_s: npt.ArrayLike,
    power: npt.ArrayLike,
    kept: npt.ArrayLike | None = None,
    options: ArrivalOptions | None = None,
) -> Arrival:
    """Find the arrival of the bolus in the curve of one region.

    Args:
        times_s: (T,) rising frame times, not necessarily even. power: (T,) mean echo power.
        kept: (T,) frames that show the section; all when None. Frames whose power is not finite
            are left out as well.
        options: how to find it.

    Raises:
        ValueError: lengths differ, or times are not finite and rising.
    """
    chosen = options or ArrivalOptions()
    times, values = _usable(times_s, power, kept)
    if len(times) < chosen.baseline_frames + chosen.frames:
        return Arrival(None, f"only {len(times)} usable frames")
    steady = _moving(times, values, chosen.steady_s, np.median)
    smooth = _moving(times, values, chosen.smooth_s, np.mean)
    peak_at = int(np.argmax(steady))
    peak, lowest = float(steady[peak_at]), float(steady.min())
    if peak - lowest <= chosen.least_rise * max(lowest, 0.0):
        return Arrival(None, "no bolus: the curve does not rise above its baseline")
    floor = float(steady[: peak_at + 1].min())
    foot = _last_below(smooth[: peak_at + 1], floor + _FOOT * (peak - floor), chosen.frames)
    if foot is None or peak - floor <= chosen.least_rise * max(floor, 0.0):
        return Arrival(None, "the bolus is already there when the clip begins")
    before = values[: foot + 1]
    seconds = float(times[foot] - times[0])
    if len(before) < chosen.baseline_frames or seconds < chosen.baseline_s:
        return Arrival(
            None, f"too short a baseline: {len(before)} frames, {seconds:.1f} s before the rise"
        )
    third = len(before) // 3
    climb = float(np.median(before[-third:]) - np.median(before[:third])) if third else 0.0
    if climb > chosen.share * (peak - floor) and seconds < _CLIMB_S:
        return Arrival(None, "the bolus is already arriving when the clip begins")
    baseline = float(np.median(before))
    deviation = _MAD_TO_SD * float(np.median(np.abs(before - baseline)))
    if chosen.deviations * deviation > 0.5 * (peak - baseline):
        return Arrival(None, "no bolus: the rise does not stand out of the noise before it")
    level = baseline + max(chosen.deviations * deviation, chosen.share * (peak - baseline))
    last = _last_below(smooth[: peak_at + 1], level, chosen.frames)
    if last is None:
        return Arrival(None, "the baseline is too unsteady")
    below, above = float(smooth[last]), float(smooth[last + 1])
    start, end = float(times[last]), float(times[last + 1])
    time_s = start + (end - start) * (level - below) / (above - below)
    if float(times[peak_at]) - time_s > chosen.longest_rise_s:
        return Arrival(None, "no bolus: the curve rises more slowly than a bolus does")
    return Arrival(
        time_s,
        f"stays above {level:.3g} from here: baseline {baseline:.3g} and the larger of "
        f"{chosen.deviations:g} SD and {chosen.share:.0%} of the rise",
        end - start,
        baseline,
        deviation,
        level,
    )


def _usable(
    times_s: npt.ArrayLike, power: npt.ArrayLike, kept: npt.ArrayLike | None
) -> tuple[F64, F64]:
    times, values = np.asarray(times_s, np.float64), np.asarray(power, np.float64)
    flags = np.ones(times.shape, np.bool_) if kept is None else np.asarray(kept, np.bool_)
    if times.ndim != 1 or values.shape != times.shape or flags.shape != times.shape:
        raise ValueError(
            f"times {times.shape}, power {values.shape} and kept {flags.shape} must be one value "
            "per frame"
        )
    if not np.isfinite(times).all() or (np.diff(times) <= 0).any():
        raise ValueError("frame times must be finite and rise; arrival cannot be told without them")
    flags = flags & np.isfinite(values)
    return times[flags], values[flags]


def _moving(times: F64, values: F64, window_s: float, middle: Callable[[F64], Any]) -> F64:
    """Mean or median over the window around each time."""
    first = np.searchsorted(times, times - window_s / 2 - 1e-9)
    after = np.searchsorted(times, times + window_s / 2 + 1e-9, "right")
    return np.array(
        [float(middle(values[a:b])) for a, b in zip(first.tolist(), after.tolist(), strict=True)]
    )


def _last_below(values: F64, level: float, frames: int) -> int | None:
    """Where the last run of so many values below the level ends, before the end."""
    run = 0
    for index in range(len(values) - 1, -1, -1):
        run = run + 1 if values[index] < level else 0
        if run == frames:
            end = index + frames - 1
            return end if end + 1 < len(values) else None
    return None
