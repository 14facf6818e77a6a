"""How is a 3-D network trained, and how are its training volumes changed? Plain settings, readable
without torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from renalkit.errors import ConfigError


@dataclass(frozen=True, slots=True)
class VolumeRanges:
    """From which ranges changes of a training volume are drawn.

    rotation_deg: angle about the body's axis, uniform in +- this. tilt_deg: the same about the two
    other axes. zoom: enlargement, log-uniform in (low, high). shift_mm: along each axis, uniform in
    +- this. flip_probability: of exchanging left and right; 0, because the liver is on the right.
    hu_scale: factor about the middle of the window, log-uniform. hu_shift: uniform in +- this.
    noise_hu: standard deviation of Gaussian noise, drawn uniformly from 0 to this. gamma: exponent
    of the windowed value in 0..1, log-uniform. probability: of moving the volume, and of changing
    its values, each by itself.

    Raises ConfigError (all problems at once).
    """

    rotation_deg: float = 15.0
    tilt_deg: float = 5.0
    zoom: tuple[float, float] = (0.85, 1.18)
    shift_mm: float = 0.0
    flip_probability: float = 0.0
    hu_scale: tuple[float, float] = (0.9, 1.1)
    hu_shift: float = 20.0
    noise_hu: float = 20.0
    gamma: tuple[float, float] = (0.8, 1.25)
    probability: float = 0.8

    def __post_init__(self) -> None:
        problems: list[str] = []
        for name, largest in (
            ("rotation_deg", 180.0),
            ("tilt_deg", 180.0),
            ("shift_mm", 1000.0),
            ("flip_probability", 1.0),
            ("hu_shift", 1000.0),
            ("noise_hu", 1000.0),
            ("probability", 1.0),
        ):
            value = getattr(self, name)
            if not 0 <= value <= largest:
                problems.append(f"{name}: {value} is not within 0 to {largest:g}")
        for name in ("zoom", "hu_scale", "gamma"):
            low, high = getattr(self, name)
            if not 0.1 <= low <= high <= 10:
                problems.append(f"{name}: ({low}, {high}) is not 0.1 <= low <= high <= 10")
        if problems:
            raise ConfigError(problems, where="changes of volumes")

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a record and a digest."""
        return asdict(self)
