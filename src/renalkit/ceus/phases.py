"""Which phase of enhancement does a frame show?

Phases count from the injection: cortical 10 to 30 s, medullary 30 to 180 s by default, `baseline`
before and `late` after them. Without a contrast clock the injection is taken to lie
`usual_arrival_s` before the agent reached the kidney, best seen in cortex; the labels then say that
they rest on arrival. Nothing is labelled when neither is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import numpy as np
import numpy.typing as npt


class Phase(StrEnum):
    """Phases of renal enhancement in their order."""

    BASELINE = "baseline"
    CORTICAL = "cortical"
    MEDULLARY = "medullary"
    LATE = "late"


@dataclass(frozen=True, slots=True)
class PhaseBounds:
    """Seconds after injection, each phase from its first bound up to, not including, the next.

    usual_arrival_s: from injection to arrival in the kidney, used only when there is no clock; the
    default is the middle of the 10 to 15 s in which cortex begins to enhance.
    """

    cortical_s: float = 10.0
    medullary_s: float = 30.0
    late_s: float = 180.0
    usual_arrival_s: float = 12.0

    def __post_init__(self) -> None:
        bounds = (0.0, self.cortical_s, self.medullary_s, self.late_s)
        if not (np.isfinite(bounds).all() and all(np.diff(bounds) > 0)):
            raise ValueError(
                f"phases that begin {self.cortical_s:g}, {self.medullary_s:g} and "
                f"{self.late_s:g} s after injection: the bounds must rise from above 0"
            )
        if not 0 <= self.usual_arrival_s < 120:
            raise ValueError(f"arrival {self.usual_arrival_s} s after injection: 0 to 120")


@dataclass(frozen=True, slots=True)
class PhaseLabels:
    """The phase of each frame.

    labels: (T,). injection_s: in the clock of the frame times. by: what that rests on.
    """

    labels: tuple[Phase, ...]
    injection_s: float
    by: Literal["clock", "arrival"]

    @property
    def reason(self) -> str:
        if self.by == "clock":
            return f"injection at {self.injection_s:.1f} s by the contrast clock"
        return f"injection taken to be at {self.injection_s:.1f} s from the arrival in the kidney"


def label_phases(
    times_s: Sequence[float] | npt.NDArray[np.float64],
    *,
    injection_s: float | None = None,
    arrival_s: float | None = None,
    bounds: PhaseBounds | None = None,
) -> PhaseLabels | None:
    """Label frames by their time since injection.

    Args:
        times_s: (T,) frame times. injection_s: time of the injection in the same clock, where it
            is known; it may lie before the first frame. arrival_s: arrival of the agent in the
            kidney, used when the injection is not known. bounds: of the phases.

    Returns:
        None when neither is known.

    Raises:
        ValueError: a time is not finite.
    """
    chosen = bounds or PhaseBounds()
    times = np.asarray(times_s, np.float64)
    if times.ndim != 1 or not np.isfinite(times).all():
        raise ValueError("phases need a finite time for every frame")
    by: Literal["clock", "arrival"] = "clock"
    if injection_s is None:
        if arrival_s is None:
            return None
        by, injection_s = "arrival", arrival_s - chosen.usual_arrival_s
    if not np.isfinite(injection_s):
        raise ValueError(f"an injection at {injection_s} s cannot be counted from")
    starts = (chosen.cortical_s, chosen.medullary_s, chosen.late_s)
    # A clock in decimal seconds must not lose a frame to rounding in the ninth digit.
    places = np.searchsorted(starts, times - injection_s + 1e-9, side="right")
    names = tuple(Phase)
    return PhaseLabels(tuple(names[int(p)] for p in places), float(injection_s), by)
