"""Which frames of a contrast cine are worth looking at, and why these?

Published work picks 50 to 60 pictures from the cortical and medullary phases by hand. The rules
here do the same repeatably; every frame gets a reason, chosen or not. Frames must first pass the
gates: in plane, not saturated, no flash, as sharp as their neighbours, not in fast motion. Then

    uniform   even steps of time over the wanted phases together; without times, of frame numbers
    phase     the same number in each wanted phase, in even steps of time within it
    keyframe  the same number of equal bins of time in each phase; of each bin the frame with the
              highest correlation x relative sharpness
    anchor    in each phase the frames nearest to given anchor frames, in time or in appearance:
              the same position of the kidney, so that pictures lie on one another

A step or bin that holds no usable frame is made up for by the usable frame nearest to its middle.
Shape legend: T frames, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from renalkit.ceus.phases import Phase
from renalkit.ceus.texture import grey_of

F64 = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

Rule = Literal["uniform", "phase", "keyframe", "anchor"]
RULES: tuple[Rule, ...] = ("uniform", "phase", "keyframe", "anchor")

_WHITE = 254  # grey level of full white; lossy compression may miss it by one


@dataclass(frozen=True, slots=True)
class Gates:
    """What a frame must pass.

    sharpness: least, as a share of the median of the neighbours within near_s. saturated: largest
    share of the region at full white. fastest_px_s: largest speed of the kidney. flash: let
    flashes through. out_of_plane: let frames through that lost the section.
    """

    sharpness: float = 0.6
    near_s: float = 1.5
    saturated: float = 0.02
    fastest_px_s: float = 100.0
    flash: bool = False
    out_of_plane: bool = False

    def __post_init__(self) -> None:
        if not (0 <= self.sharpness < 1 and 0 <= self.saturated <= 1):
            raise ValueError("sharpness and saturated are shares between 0 and 1")
        if self.near_s <= 0 or self.fastest_px_s <= 0:
            raise ValueError("near_s and fastest_px_s must be positive")


@dataclass(frozen=True, slots=True, eq=False)
class FrameQuality:
    """What is known of each of T frames, in order.

    times_s: (T,) rising, None when unknown. sharpness: (T,) `sharpness_of` the region. saturated:
    (T,) `white_share` of the region in the contrast pane. correlation, shift_px, kept: of the
    motion track. flash: (T,), see `find_flashes`.
    """

    times_s: F64 | None
    sharpness: F64
    saturated: F64
    correlation: F64
    shift_px: F64
    kept: Flags
    flash: Flags

    def __post_init__(self) -> None:
        count = len(self.sharpness)
        columns = (self.saturated, self.correlation, self.kept, self.flash)
        if any(c.shape != (count,) for c in columns) or self.shift_px.shape != (count, 2):
            raise ValueError("every column of the frame table needs one row per frame")
        if self.times_s is not None:
            times = self.times_s
            if times.shape != (count,) or not np.isfinite(times).all():
                raise ValueError(f"{times.shape} frame times for {count} frames, all finite")
            if (np.diff(times) <= 0).any():
                raise ValueError("frame times must rise; use None when they are not known")

    @property
    def n_frames(self) -> int:
        return len(self.sharpness)

    @property
    def positions(self) -> F64:
        """Times, or frame numbers where times are not known."""
        return np.arange(self.n_frames, dtype=np.float64) if self.times_s is None else self.times_s


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which frames are wanted.

    rule: of RULES. per_phase: how many in each of `phases`; `uniform` spreads the sum over all of
    them. anchors: frame numbers for the rule `anchor`, near: how nearness to them is counted.
    """

    rule: Rule = "phase"
    per_phase: int = 28
    phases: tuple[Phase, ...] = (Phase.CORTICAL, Phase.MEDULLARY)
    anchors: tuple[int, ...] = ()
    near: Literal["time", "appearance"] = "time"

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ValueError(f"rule {self.rule!r} is not one of {', '.join(RULES)}")
        if self.per_phase < 1 or not self.phases or len(set(self.phases)) != len(self.phases):
            raise ValueError("at least one frame of at least one phase, each phase named once")
        if (self.rule == "anchor") != bool(self.anchors):
            raise ValueError("anchor frames are given exactly with the rule 'anchor'")
        if self.near not in ("time", "appearance"):
            raise ValueError(f"nearness in {self.near!r} is neither 'time' nor 'appearance'")


@dataclass(frozen=True, slots=True)
class FrameChoice:
    """What became of one frame. phase: None when phases are not known."""

    index: int
    phase: Phase | None
    chosen: bool
    reason: str


def sharpness_of(picture: npt.NDArray[Any]) -> float:
    """Variance of the Laplacian of a picture or crop (H,W[,3]) uint8 (Pech-Pacheco et al., Proc.
    15th ICPR, 2000, 3:314); larger is sharper."""
    return float(np.asarray(cv2.Laplacian(grey_of(picture), cv2.CV_32F)).var())


def white_share(region: npt.NDArray[Any]) -> float:
    """Share of the grey levels of a region (any shape) at full white; 0 for an empty region.

    For a colour picture give the channel that holds the level.
    """
    return float((region >= _WHITE).mean()) if region.size else 0.0


def find_flashes(
    times_s: Sequence[float] | F64,
    grey: Sequence[float] | F64,
    *,
    window_s: float = 4.0,
    step: float = 25.0,
) -> Flags:
    """Frames at high power, which light up the whole contrast pane for an instant.

    Args:
        times_s: (T,) rising frame times. grey: (T,) mean grey level of the whole contrast pane.
        window_s: a flash is brighter than the medians of the seconds before it and after it.
        step: by so many grey levels (at 50 dB, 25 levels are 5 dB).

    Returns:
        (T,). At the ends of a clip only the side that exists is compared with.

    Raises:
        ValueError: lengths differ.
    """
    times, levels = np.asarray(times_s, np.float64), np.asarray(grey, np.float64)
    if times.ndim != 1 or times.shape != levels.shape:
        raise ValueError(f"{times.shape} times and {levels.shape} grey levels")
    found = np.zeros(len(times), np.bool_)
    first = np.searchsorted(times, times - window_s).tolist()
    after = np.searchsorted(times, times + window_s, "right").tolist()
    for index, (start, end) in enumerate(zip(first, after, strict=True)):
        sides = (levels[start:index], levels[index + 1 : end])
        usual = [float(np.median(side)) for side in sides if side.size]
        found[index] = bool(usual) and float(levels[index]) > max(usual) + step
    return found


def select_frames(
    quality: FrameQuality,
    phases: Sequence[Phase] | None,
    wanted: Wanted | None = None,
    gates: Gates | None = None,
) -> list[FrameChoice]:
    """Choose frames and say of each frame why it was chosen or not.

    Args:
        quality: what is known of the frames. phases: (T,) of the frames; None when not known, then
            only the rule `uniform` can be followed, over the whole clip.
        wanted: rule and numbers. gates: what frames must pass.

    Returns:
        T choices in the order of the frames; the same input gives the same choices.

    Raises:
        ValueError: phases are needed and not known, or anchors lie outside the clip.
    """
    chosen, gate = wanted or Wanted(), gates or Gates()
    if phases is not None and len(phases) != quality.n_frames:
        raise ValueError(f"{len(phases)} phases for {quality.n_frames} frames")
    if phases is None and chosen.rule != "uniform":
        raise ValueError(
            f"rule '{chosen.rule}' needs the phase of every frame, and neither a contrast clock "
            "nor an arrival gave one; use 'uniform'"
        )
    if any(not 0 <= a < quality.n_frames for a in chosen.anchors):
        raise ValueError(f"anchors {chosen.anchors} in a clip of {quality.n_frames} frames")
    failed = _gated(quality, gate)
    reasons: dict[int, str] = {}
    for name, members, count in _groups(quality.n_frames, phases, chosen):
        usable = members[[int(i) not in failed for i in members]]
        if chosen.rule == "anchor":
            reasons |= _nearest(quality, usable, chosen, name)
        else:
            reasons |= _stepped(quality, (members, usable), (count, chosen.rule), name)
    return [
        FrameChoice(
            index,
            None if phases is None else phases[index],
            index in reasons,
            reasons.get(index) or failed.get(index) or _passed_over(index, phases, chosen),
        )
        for index in range(quality.n_frames)
    ]


def missing_frames(
    choices: Sequence[FrameChoice], wanted: Wanted | None = None
) -> dict[Phase, int]:
    """How many frames each wanted phase falls short by; empty when none does, or phases are not
    known. `uniform` promises no number per phase."""
    asked = wanted or Wanted()
    if asked.rule == "uniform":
        return {}
    short: dict[Phase, int] = {}
    for phase in asked.phases:
        found = sum(c.chosen and c.phase == phase for c in choices)
        if found < asked.per_phase:
            short[phase] = asked.per_phase - found
    return short


def relative_sharpness(quality: FrameQuality, near_s: float) -> F64:
    """Sharpness over the median of the frames within near_s on either side (T,); without times,
    over the median of the clip. 1 where nothing is sharp."""
    if quality.times_s is None:
        usual = np.full(quality.n_frames, np.median(quality.sharpness))
    else:
        times = quality.times_s
        first = np.searchsorted(times, times - near_s)
        after = np.searchsorted(times, times + near_s, "right")
        usual = np.array(
            [
                np.median(quality.sharpness[a:b])
                for a, b in zip(first.tolist(), after.tolist(), strict=True)
            ]
        )
    return np.divide(quality.sharpness, usual, out=np.ones_like(quality.sharpness), where=usual > 0)


def _gated(quality: FrameQuality, gates: Gates) -> dict[int, str]:
    """The frames that fail a gate, and why."""
    sharp = relative_sharpness(quality, gates.near_s)
    speed = _speed(quality)
    failed: dict[int, str] = {}
    for i in range(quality.n_frames):
        if not gates.out_of_plane and not quality.kept[i]:
            failed[i] = f"out of plane: correlation {quality.correlation[i]:.2f}"
        elif not gates.flash and quality.flash[i]:
            failed[i] = "flash"
        elif quality.saturated[i] > gates.saturated:
            failed[i] = f"saturated: {quality.saturated[i]:.0%} of the region is white"
        elif sharp[i] < gates.sharpness:
            failed[i] = f"blurred: {sharp[i]:.2f} of its neighbours' sharpness"
        elif speed[i] > gates.fastest_px_s:
            failed[i] = f"in motion: {speed[i]:.0f} px/s"
    return failed


def _speed(quality: FrameQuality) -> F64:
    """Speed in px/s from the kept neighbours (T,); 0 where times or neighbours are not known."""
    speed = np.zeros(quality.n_frames)
    kept = np.flatnonzero(quality.kept)
    if quality.times_s is None or kept.size < 2:
        return speed
    steps = np.hypot(*np.diff(quality.shift_px[kept], axis=0).T) / np.diff(quality.times_s[kept])
    # A jump across lost frames says little of either end; the calmer side counts.
    speed[kept] = np.minimum(np.append(steps, np.inf), np.insert(steps, 0, np.inf))
    return speed


def _groups(
    n_frames: int, phases: Sequence[Phase] | None, wanted: Wanted
) -> list[tuple[str, npt.NDArray[np.intp], int]]:
    """Name, frames and number wanted of each group."""
    total = wanted.per_phase * len(wanted.phases)
    if phases is None:
        return [("the clip", np.arange(n_frames), total)]
    of = {p: np.flatnonzero([q == p for q in phases]) for p in wanted.phases}
    if wanted.rule == "uniform":
        names = ", ".join(wanted.phases)
        return [(names, np.sort(np.concatenate(list(of.values()))), total)]
    return [(str(phase), members, wanted.per_phase) for phase, members in of.items()]


def _stepped(
    quality: FrameQuality,
    frames: tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]],
    how: tuple[int, Rule],
    name: str,
) -> dict[int, str]:
    """Frames of equal steps or bins over a group, with reasons."""
    members, usable = frames
    count, rule = how
    if usable.size == 0:
        return {}
    at = quality.positions
    # The last frame has its own time too: the span ends one usual pause after it.
    pause = float(np.median(np.diff(at[members]))) if members.size > 1 else 1.0
    edges = np.linspace(at[members[0]], at[members[-1]] + pause, count + 1)
    middles = (edges[:-1] + edges[1:]) / 2
    score = quality.correlation * relative_sharpness(quality, Gates().near_s)
    unit = "s" if quality.times_s is not None else "(frame number)"
    reasons: dict[int, str] = {}
    empty: list[int] = []
    for k, (low, high, middle) in enumerate(zip(edges, edges[1:], middles, strict=False)):
        inside = usable[(at[usable] >= low) & (at[usable] < high)]
        if inside.size == 0:
            empty.append(k)
            continue
        far = np.abs(at[inside] - middle)
        if rule == "keyframe":
            best = inside[np.lexsort((inside, far, -np.round(score[inside], 9)))[0]]
            why = f"best of bin {k + 1} of {count} of {name}: score {score[best]:.2f}"
        else:
            best = inside[np.lexsort((inside, far))[0]]
            why = f"step {k + 1} of {count} of {name}, nearest to {middle:.1f} {unit}"
        reasons[int(best)] = why
    for k in empty:
        left = usable[[int(i) not in reasons for i in usable]]
        if left.size == 0:
            break
        best = left[np.lexsort((left, np.abs(at[left] - middles[k])))[0]]
        reasons[int(best)] = (
            f"for step {k + 1} of {count} of {name}, which holds no usable frame of its own"
        )
    return reasons


def _nearest(
    quality: FrameQuality, usable: npt.NDArray[np.intp], wanted: Wanted, name: str
) -> dict[int, str]:
    """The usable frames nearest to the anchors, with reasons."""
    if usable.size == 0:
        return {}
    anchors = np.array(wanted.anchors)
    if wanted.near == "time":
        at = quality.positions
        apart = np.abs(at[usable][:, None] - at[anchors][None, :])
        unit = "s" if quality.times_s is not None else "frames"
    else:
        lost = anchors[~quality.kept[anchors]]
        if lost.size:
            raise ValueError(
                f"anchor frame {int(lost[0])} is out of plane: its appearance is not the kidney's"
            )
        apart = np.hypot(
            *(quality.shift_px[usable][:, None] - quality.shift_px[anchors][None, :]).transpose(
                2, 0, 1
            )
        )
        unit = "px"
    to = apart.argmin(axis=1)
    far = apart[np.arange(len(usable)), to]
    order = np.lexsort((usable, -quality.correlation[usable], np.round(far, 6)))
    return {
        int(usable[k]): f"{name}, {far[k]:.2f} {unit} from anchor frame {anchors[to[k]]}"
        for k in order[: wanted.per_phase].tolist()
    }


def _passed_over(index: int, phases: Sequence[Phase] | None, wanted: Wanted) -> str:
    """Why a frame that passed the gates was not chosen."""
    if phases is not None and phases[index] not in wanted.phases:
        return f"phase {phases[index]} is not wanted"
    if wanted.rule == "keyframe":
        return "usable; its bin has a better frame"
    if wanted.rule == "anchor":
        return "usable; other frames are nearer to the anchors"
    return "usable; other frames are nearer to the steps"
