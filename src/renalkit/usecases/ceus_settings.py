"""How is a contrast cine analysed? Everything a user can set, with defaults that are recorded.

dynamic_range_db = 60
[frames]
rule = "phase"
per_phase = 28
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from renalkit.ceus.frames import Gates, Rule, Wanted
from renalkit.ceus.motion import TrackOptions
from renalkit.ceus.perfusion import FitOptions
from renalkit.ceus.phases import Phase, PhaseBounds
from renalkit.config import Settings, parse_settings, read_toml, with_overrides
from renalkit.errors import ConfigError

Seconds = Annotated[float, Field(ge=0, le=3600)]


class MotionSettings(Settings):
    """How the kidney is followed on the B-mode pane."""

    method: Literal["template", "phase"] = "template"
    grow: float = Field(default=0.2, ge=0, le=5)
    search_px: int = Field(default=48, ge=4, le=500)
    lost_below: float = Field(default=0.75, gt=0, lt=1)

    def options(self) -> TrackOptions:
        return TrackOptions(
            method=self.method,
            grow=self.grow,
            search_px=self.search_px,
            lost_below=self.lost_below,
        )


class PhaseSettings(Settings):
    """Seconds after injection at which phases begin, and the usual arrival in the kidney."""

    cortical_s: Seconds = 10.0
    medullary_s: Seconds = 30.0
    late_s: Seconds = 180.0
    usual_arrival_s: Annotated[float, Field(ge=0, lt=120)] = 12.0

    def bounds(self) -> PhaseBounds:
        return PhaseBounds(self.cortical_s, self.medullary_s, self.late_s, self.usual_arrival_s)


class FrameSettings(Settings):
    """Which frames are chosen, and what they must pass."""

    rule: Rule = "phase"
    per_phase: int = Field(default=28, ge=1, le=1000)
    phases: tuple[Phase, ...] = (Phase.CORTICAL, Phase.MEDULLARY)
    anchors: tuple[int, ...] = ()
    near: Literal["time", "appearance"] = "time"
    sharpness: float = Field(default=0.6, ge=0, lt=1)
    saturated: float = Field(default=0.02, ge=0, le=1)
    fastest_px_s: float = Field(default=100.0, gt=0)

    def wanted(self) -> Wanted:
        return Wanted(self.rule, self.per_phase, self.phases, self.anchors, self.near)

    def gates(self) -> Gates:
        return Gates(
            sharpness=self.sharpness, saturated=self.saturated, fastest_px_s=self.fastest_px_s
        )


class FitSettings(Settings):
    """How curves become figures."""

    method: Literal["lognormal", "gamma-variate", "model-free", "best"] = "lognormal"
    resamples: int = Field(default=200, ge=0, le=5000)
    level: float = Field(default=0.95, ge=0.5, lt=1)
    seed: int = 0

    def options(self, *, from_injection: bool) -> FitOptions:
        return FitOptions(
            method=self.method,
            resamples=self.resamples,
            level=self.level,
            seed=self.seed,
            from_injection=from_injection,
        )


class CeusSettings(Settings):
    """Settings of the analysis of one contrast cine.

    dynamic_range_db: of the contrast picture; without it figures stay in grey levels. injection_s:
    time of the injection in the frame times, for cines without a clock that can be read. clock:
    read the burned-in clock; false where what looks like one shows something else. contrast: where
    the contrast pane lies; found by the picture when not said. carry: how outlines move between
    outlined frames. maps: fit parametric maps too.
    """

    dynamic_range_db: float | None = Field(default=None, ge=10, le=150)
    injection_s: float | None = Field(default=None, ge=-3600, le=3600)
    clock: bool = True
    contrast: Literal["left", "right", "top", "bottom"] | None = None
    carry: Literal["nearest", "blend"] = "nearest"
    maps: bool = True
    motion: MotionSettings = MotionSettings()
    phases: PhaseSettings = PhaseSettings()
    frames: FrameSettings = FrameSettings()
    fit: FitSettings = FitSettings()


def ceus_settings(path: Path | None, overrides: Sequence[str] = ()) -> CeusSettings:
    """Settings of a TOML file with ``key=value`` changes; defaults without a file.

    Raises:
        ConfigError: every problem at once; then values that contradict one another.
    """
    tables: dict[str, Any] = {} if path is None else read_toml(path)
    settings = parse_settings(CeusSettings, with_overrides(tables, overrides))
    problems: list[str] = []
    for name, build in (
        ("motion", settings.motion.options),
        ("phases", settings.phases.bounds),
        ("frames", settings.frames.wanted),
        ("frames", settings.frames.gates),
    ):
        try:
            build()
        except ValueError as error:
            problems.append(f"{name}: {error}")
    if problems:
        raise ConfigError(problems)
    return settings
