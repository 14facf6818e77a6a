"""How does the kidney move under the probe while a clip is taken?

Breathing moves it along its axis and somewhat in depth, in cycles that rest at end expiration
(Lujan et al., Med. Phys. 26:715, 1999: displacement ~ sin^2n, here n = 2); amplitude and period
change from breath to breath. The probe drifts slowly, and now and then the section is lost for
some seconds. Displacement depends on time in seconds only, so it is the same at any frame rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.float64]

SLICE_MM = 6.0
"""Thickness of the imaged slice: so far out of plane, nothing of the section is left in it."""


@dataclass(frozen=True, slots=True)
class Breath:
    """One breath: begins and ends at end expiration, deepest half way; depth 1 is usual."""

    start_s: float
    period_s: float
    depth: float


@dataclass(frozen=True, slots=True)
class Excursion:
    """The section is lost and found again: Hann-shaped over width_s around at_s."""

    at_s: float
    width_s: float
    elevation_mm: float


@dataclass(frozen=True, slots=True)
class Motion:
    """Motion of deep tissue relative to the probe.

    along_mm, deep_mm, elevation_mm: how far a breath of depth 1 moves it to the right, away from
    the probe, and out of the plane. drift_mm: amplitude of the slow drift in (right, deep);
    drift_s: its period; drift_phase: its phases in radian.
    """

    along_mm: float
    deep_mm: float
    elevation_mm: float
    breaths: tuple[Breath, ...]
    excursions: tuple[Excursion, ...]
    drift_mm: tuple[float, float]
    drift_s: float
    drift_phase: tuple[float, float]


STILL = Motion(0.0, 0.0, 0.0, (), (), (0.0, 0.0), 60.0, (0.0, 0.0))
"""No motion at all."""


@dataclass(frozen=True, slots=True, eq=False)
class Displacement:
    """Where deep tissue is at some times, relative to end expiration without drift.

    right_mm, deep_mm: (T,) in the image plane. elevation_mm: (T,) out of it. out_of_plane: (T,)
    share of the slice that shows a neighbouring section, 0..1: s^2 (3 - 2 s) with
    s = min(1, |elevation| / SLICE_MM), for the slice is most sensitive in its middle.
    """

    right_mm: Times
    deep_mm: Times
    elevation_mm: Times
    out_of_plane: Times


def draw_motion(duration_s: float, rng: np.random.Generator) -> Motion:
    """Draw the motion of a clip under shallow breathing.

    Craniocaudal travel of 3 to 9 mm per breath, one breath in about 4 s, drift of about 1 mm, one
    lost section per 25 s on average.
    """
    breaths: list[Breath] = []
    start = -float(rng.uniform(0.0, 5.0))
    usual_s = float(np.clip(rng.normal(4.0, 0.5), 2.8, 5.5))
    while start < duration_s:
        period = usual_s * float(np.clip(rng.normal(1.0, 0.1), 0.7, 1.4))
        breaths.append(Breath(start, period, float(np.clip(rng.normal(1.0, 0.2), 0.4, 1.7))))
        start += period
    excursions = tuple(
        Excursion(
            at_s=float(rng.uniform(0.0, duration_s)),
            width_s=float(rng.uniform(1.5, 4.0)),
            elevation_mm=float(rng.uniform(0.5, 1.1)) * SLICE_MM,
        )
        for _ in range(int(rng.poisson(duration_s / 25.0)))
    )
    return Motion(
        along_mm=float(rng.uniform(3.0, 9.0)),
        deep_mm=float(rng.normal(0.0, 1.2)),
        elevation_mm=float(rng.uniform(0.0, 0.7)),
        breaths=tuple(breaths),
        excursions=excursions,
        drift_mm=(float(rng.uniform(0.3, 1.5)), float(rng.uniform(0.1, 0.7))),
        drift_s=float(rng.uniform(25.0, 70.0)),
        drift_phase=(float(rng.uniform(0, 2 * math.pi)), float(rng.uniform(0, 2 * math.pi))),
    )


def displacement(motion: Motion, times_s: npt.ArrayLike) -> Displacement:
    """The displacement at times (T,) in s since the first frame."""
    t = np.atleast_1d(np.asarray(times_s, np.float64))
    breathing = np.zeros_like(t)
    for breath in motion.breaths:
        phase = (t - breath.start_s) / breath.period_s
        during = (phase >= 0) & (phase < 1)
        breathing = breathing + during * breath.depth * np.sin(np.pi * phase) ** 4
    elevation = motion.elevation_mm * breathing
    for lost in motion.excursions:
        phase = np.clip((t - lost.at_s) / lost.width_s, -0.5, 0.5)
        elevation = elevation + lost.elevation_mm * np.cos(np.pi * phase) ** 2
    right, deep = (
        way * breathing + drift * np.sin(2 * np.pi * t / motion.drift_s + phase)
        for way, drift, phase in zip(
            (motion.along_mm, motion.deep_mm), motion.drift_mm, motion.drift_phase, strict=True
        )
    )
    s = np.clip(np.abs(elevation) / SLICE_MM, 0.0, 1.0)
    return Displacement(right, deep, elevation, s * s * (3.0 - 2.0 * s))
