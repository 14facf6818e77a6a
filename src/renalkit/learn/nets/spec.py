"""What shape must an image have for a network, and what must the network give back?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from renalkit.errors import ConfigError, InputRefused, Reason

SIZE_MULTIPLE = 16
MIN_SIZE = 32


@dataclass(frozen=True, slots=True)
class NetSpec:
    """Input channels, side in pixels, number of classes and the results asked for.

    multiple: the side must be a multiple of this many pixels; 1 for networks that pad.

    Raises ConfigError (all problems at once) when no network can have this shape.
    """

    channels: int = 1
    size: int = 128
    n_classes: int = 2
    segments: bool = True
    classifies: bool = False
    multiple: int = SIZE_MULTIPLE

    def __post_init__(self) -> None:
        problems: list[str] = []
        if self.channels < 1:
            problems.append(f"channels: {self.channels}; a network needs at least 1")
        if self.size < MIN_SIZE or self.size % self.multiple:
            below = max(MIN_SIZE, self.size // self.multiple * self.multiple)
            near = sorted({below, max(MIN_SIZE, below + self.multiple * (self.size > below))})
            problems.append(
                f"size: {self.size} is not a multiple of {self.multiple} from {MIN_SIZE} on; "
                f"nearest: {' or '.join(str(size) for size in near)}"
            )
        if self.classifies and self.n_classes < 2:
            problems.append(f"n_classes: {self.n_classes}; classification needs at least 2")
        if not (self.segments or self.classifies):
            problems.append("task: the network must segment, classify or both")
        if problems:
            raise ConfigError(problems, where="network shape")

    def check(self, image: Tensor) -> None:
        """Refuse a batch that is not (b, channels, size, size) or holds NaN or infinity.

        The look at the values is left out while a graph is exported: it depends on data.

        Raises:
            InputRefused: DIMS_MISMATCH or NON_FINITE.
        """
        expected = (self.channels, self.size, self.size)
        if image.ndim != 4 or tuple(image.shape[1:]) != expected:
            raise InputRefused(
                Reason.DIMS_MISMATCH,
                f"image batch of shape {tuple(image.shape)}",
                where="network input",
                expected=f"(images, {self.channels} channels, {self.size}, {self.size})",
                remedy="preprocess with the settings the network was built with",
            )
        if torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export():
            return
        if not bool(torch.isfinite(image).all()):
            raise InputRefused(
                Reason.NON_FINITE,
                "image batch holds NaN or infinite values",
                where="network input",
                expected="finite pixel values",
                remedy="look for the first preprocessing operation that gives them",
            )


def scaled(channels: int, width: float) -> int:
    """Channels of a layer at a width multiplier, at least 4.

    >>> scaled(32, 0.25), scaled(32, 1.0), scaled(32, 0.05)
    (8, 32, 4)
    """
    return max(4, round(channels * width))
