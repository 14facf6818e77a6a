"""Which frames of a long clip are looked at, and how is part of a picture cut without decoding all?

Shape legend: T frames, N sampled frames, H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from renalkit.domain.geometry import Box
from renalkit.domain.image import Pixels, PixelStack, brightest

Pictures = npt.NDArray[np.uint8]

_MOST_VALUES = 72_000_000
"""Most pixels held at once: 24 frames of 3 megapixels."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Some frames of a clip. indices: (N,) rising; frames: (N,H,W,3) uint8 RGB; grey: (N,H,W)."""

    indices: tuple[int, ...]
    frames: Pictures
    grey: Pictures


def sample(stack: PixelStack, count: int = 24) -> Sample:
    """Up to `count` frames in even steps, first and last included; fewer of very large pictures.

    Values of more than 8 bits are scaled so that the brightest of the sample is 255.

    Raises:
        ValueError: count is not positive.
    """
    if count < 1:
        raise ValueError(f"{count} frames to sample: at least 1")
    total, rows, cols = (int(n) for n in stack.shape[:3])
    most = max(2, min(count, _MOST_VALUES // max(1, rows * cols)))
    chosen = np.unique(np.linspace(0, total - 1, min(total, most)).round().astype(int)).tolist()
    taken = [np.asarray(stack[int(index)]) for index in chosen]
    if np.dtype(stack.dtype) != np.uint8:
        white = max(1.0, *(float(np.max(frame)) for frame in taken), 1.0)
        taken = [np.clip(frame.astype(np.float64) * (255.0 / white), 0, 255) for frame in taken]
    frames = np.empty((len(taken), rows, cols, 3), np.uint8)
    for place, frame in enumerate(taken):
        frames[place] = frame if frame.ndim == 3 else frame[..., None]
    return Sample(tuple(int(i) for i in chosen), frames, brightest(frames))


@dataclass(frozen=True, slots=True)
class CroppedStack:
    """A box of every frame of another stack; frames are decoded when they are asked for."""

    whole: PixelStack = field(repr=False)
    box: Box

    def __post_init__(self) -> None:
        rows, cols = (int(n) for n in self.whole.shape[1:3])
        if not self.box.fits(rows, cols):
            raise ValueError(f"{self.box} leaves the image of {rows} x {cols}")

    @property
    def shape(self) -> tuple[int, ...]:
        """(T,h,w) or (T,h,w,3)."""
        whole = tuple(int(n) for n in self.whole.shape)
        return (whole[0], self.box.height, self.box.width, *whole[3:])

    @property
    def dtype(self) -> np.dtype[np.generic]:
        return np.dtype(self.whole.dtype)

    def __getitem__(self, index: int, /) -> Pixels:
        return self.whole[index][self.box.slices]
