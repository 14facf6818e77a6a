"""How is a 3-D network trained, and how are its training volumes changed? Plain settings, readable
without torch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from renalkit.errors import ConfigError
from renalkit.learn.options import Device

VolumeOptimizer = Literal["adamw", "sgd"]
VolumeSchedule = Literal["constant", "poly", "cosine"]
VolumePrecision = Literal["32", "bf16", "auto"]


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


@dataclass(frozen=True, slots=True)
class VolumeOptions:
    """Settings of a training that counts steps.

    optimizer: 'sgd' with Nesterov's momentum, as in nnU-Net (lr 0.01, momentum 0.99, 'poly'), or
    'adamw'. schedule: of the learning rate, see `volume_rate`. clip_norm: largest norm of the
    gradient, 0 for any. validate_steps: validation after so many steps and after the last one; 0:
    never, and the last weights are kept. log_steps: a row of the history per so many steps.
    precision: 'bf16' computes forward in bfloat16 where torch holds that safe, weights, loss and
    optimiser stay float32; 'auto' does so where the processor or GPU has instructions for it.
    threads: torch threads, 0 = all cores. deterministic: the same numbers every time, at some cost
    on a GPU.

    Raises ConfigError (all problems at once).
    """

    steps: int = 1000
    optimizer: VolumeOptimizer = "adamw"
    lr: float = 2e-3
    momentum: float = 0.99
    weight_decay: float = 1e-3
    schedule: VolumeSchedule = "cosine"
    power: float = 0.9
    warmup_steps: int = 20
    clip_norm: float = 12.0
    validate_steps: int = 100
    log_steps: int = 20
    channels_last: bool = True
    precision: VolumePrecision = "32"
    device: Device = "auto"
    threads: int = 0
    deterministic: bool = True
    checkpoint_minutes: float = 5.0
    seed: int = 0

    def __post_init__(self) -> None:
        problems = [
            f"{name}: {getattr(self, name)} must be greater than 0"
            for name in ("steps", "lr", "power", "log_steps")
            if not getattr(self, name) > 0
        ]
        problems += [
            f"{name}: {getattr(self, name)} must not be negative"
            for name in (
                *("weight_decay", "warmup_steps", "clip_norm", "validate_steps"),
                *("threads", "checkpoint_minutes", "seed"),
            )
            if not getattr(self, name) >= 0
        ]
        if not 0 <= self.momentum < 1:
            problems.append(f"momentum: {self.momentum} must be at least 0 and below 1")
        if problems:
            raise ConfigError(problems, where="train")


def volume_rate(options: VolumeOptions, step: int) -> float:
    """Learning rate of a step, 0 is the first.

    During `warmup_steps` w it rises linearly, lr (t+1)/(w+1). After it, with t counted from there
    and T the number of steps left there: constant lr; poly lr (1 - t/T)**power (nnU-Net); cosine
    lr (1 + cos(pi t/T))/2 (Loshchilov & Hutter 2017).

    >>> volume_rate(VolumeOptions(steps=100, lr=0.01, schedule="poly", warmup_steps=0), 50)
    0.005358867312681466
    """
    if step < options.warmup_steps:
        return options.lr * (step + 1) / (options.warmup_steps + 1)
    left = max(1, options.steps - options.warmup_steps)
    share = min(step - options.warmup_steps, left) / left
    if options.schedule == "constant":
        return options.lr
    if options.schedule == "poly":
        return options.lr * (1 - share) ** options.power
    return options.lr * 0.5 * (1 + math.cos(math.pi * share))
