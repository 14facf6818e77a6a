"""What an image is: pixels with a mode, a scale that may be unknown, and a source.

Shape legend: T frames, H rows, W columns. Pixels are read-only. CT volumes: see `volume`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import reduce
from math import isfinite
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from renalkit.domain.geometry import Box, Region, SpacingMm, checked_spacing

Pixels = npt.NDArray[np.generic]
Value = TypeVar("Value", bound=np.generic)


class Mode(StrEnum):
    """What an image shows. DUAL is a console image whose two panes are not separated yet."""

    B = "B"
    CEUS = "CEUS"
    DUAL = "DUAL"
    CT = "CT"


@runtime_checkable
class PixelStack(Protocol):
    """Frames that may be decoded one at a time: (T,H,W) or (T,H,W,3)."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[np.generic]: ...

    def __getitem__(self, index: int, /) -> Pixels:
        """Frame `index` as (H,W) or (H,W,3)."""
        ...


@runtime_checkable
class WindowedStack(PixelStack, Protocol):
    """Frames of which a part costs less than the whole."""

    def windows(self, index: int, boxes: Sequence[Box], /) -> Sequence[Pixels]:
        """The parts of frame `index` inside the boxes, (h,w) or (h,w,3) each."""
        ...


def windows_of(stack: PixelStack, index: int, boxes: Sequence[Box]) -> Sequence[Pixels]:
    """Parts of one frame; whoever can make them cheaper than the whole frame does so."""
    if isinstance(stack, WindowedStack):
        return stack.windows(index, boxes)
    frame = stack[index]
    return [frame[box.slices] for box in boxes]


def brightest(pixels: npt.NDArray[Value]) -> npt.NDArray[Value]:
    """(...) the largest channel of (...,C).

    Channel by channel: an order of magnitude faster than a maximum over the short last axis.
    """
    return reduce(np.maximum, np.moveaxis(pixels, -1, 0))


def darkest(pixels: npt.NDArray[Value]) -> npt.NDArray[Value]:
    """(...) the smallest channel of (...,C), as fast as `brightest`."""
    return reduce(np.minimum, np.moveaxis(pixels, -1, 0))


def read_only(pixels: Pixels) -> Pixels:
    """A view of the pixels that cannot be written to."""
    view = pixels.view()
    view.flags.writeable = False
    return view


def pixel_sha256(pixels: PixelStack | Pixels) -> str:
    """Digest of decoded pixels: shape, dtype and the bytes of every frame in order."""
    digest = hashlib.sha256()
    dtype = np.dtype(pixels.dtype).newbyteorder("<")
    digest.update(f"{tuple(int(n) for n in pixels.shape)} {dtype.str}".encode())
    for index in range(int(pixels.shape[0])):
        frame = np.ascontiguousarray(pixels[index]).astype(dtype, copy=False)
        digest.update(frame.tobytes())
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Source:
    """Where pixels came from, without naming it: hash of the file, keyed path, first frame.

    keyed_path is an HMAC of the path relative to the import folder, so that it can be looked up
    by who holds the key and by nobody else. partner_sha256: hash of the file that shows the same
    instant in the other mode; empty when the file itself holds both, or there is none.
    """

    file_sha256: str
    keyed_path: str
    kind: str
    first_frame: int = 0
    partner_sha256: str = ""

    @property
    def files(self) -> frozenset[str]:
        """Hashes of the files that together hold this instant: two clips with the same ones are
        panes of one examination."""
        return frozenset({self.file_sha256, self.partner_sha256} - {""})


def check_frames(shape: tuple[int, ...], *, what: str) -> None:
    """ValueError unless the shape is (T,H,W) or (T,H,W,3) with at least one pixel."""
    ok = len(shape) in (3, 4) and all(n > 0 for n in shape) and (len(shape) == 3 or shape[3] == 3)
    if not ok:
        raise ValueError(f"{what} must be (T,H,W) or (T,H,W,3), got {shape}")


def _check_source_frames(frames: tuple[int, ...], n_frames: int) -> None:
    if len(frames) != n_frames:
        raise ValueError(f"{len(frames)} source frames for {n_frames} frames")
    if frames[0] < 0 or any(b <= a for a, b in zip(frames, frames[1:], strict=False)):
        raise ValueError("source frames must rise from 0 or more")


@dataclass(frozen=True, slots=True)
class Clip:
    """One still (T=1) or cine with everything known about its geometry and time.

    sha256 is the digest of the decoded pixels (`pixel_sha256`); two clips are equal when their
    digests and descriptions are. It is empty for a clip that is gone through once and not kept, of
    which no frame was decoded yet. times_s counts from the first frame, or is None when unknown.

    offset: x, y of the clip's corner in the picture of its source, for a pane cut out of a
    console image. source_frames: which frames of the source these are, None for all of them in
    order; two panes of one cine are paired by it.
    """

    pixels: PixelStack = field(compare=False, repr=False)
    sha256: str
    mode: Mode
    source: Source
    regions: tuple[Region, ...] = ()
    spacing_mm: SpacingMm | None = None
    times_s: tuple[float, ...] | None = None
    offset: tuple[int, int] = (0, 0)
    source_frames: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        check_frames(tuple(self.pixels.shape), what="clip pixels")
        if min(self.offset) < 0:
            raise ValueError(f"offset {self.offset} lies outside the source")
        if self.source_frames is not None:
            _check_source_frames(self.source_frames, self.n_frames)
        if checked_spacing(self.spacing_mm) != self.spacing_mm:
            raise ValueError(f"spacing {self.spacing_mm} is not positive and finite; use None")
        for region in self.regions:
            if not region.box.fits(self.rows, self.cols):
                raise ValueError(f"{region.box} leaves the image of {self.rows} x {self.cols}")
        if self.times_s is not None:
            if len(self.times_s) != self.n_frames:
                raise ValueError(f"{len(self.times_s)} frame times for {self.n_frames} frames")
            if not all(isfinite(t) for t in self.times_s):
                raise ValueError("frame times must be finite; use None when unknown")
            if any(b <= a for a, b in zip(self.times_s, self.times_s[1:], strict=False)):
                raise ValueError("frame times must increase")

    @property
    def n_frames(self) -> int:
        return int(self.pixels.shape[0])

    @property
    def rows(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def cols(self) -> int:
        return int(self.pixels.shape[2])

    def source_frame(self, index: int) -> int:
        """Number, in the source, of frame `index` of the clip; both count from 0."""
        first = self.source.first_frame
        return first + index if self.source_frames is None else self.source_frames[index]

    def frame(self, index: int) -> Frame:
        """Frame `index` (0-based) with the clip's geometry; IndexError outside the clip."""
        if not 0 <= index < self.n_frames:
            raise IndexError(f"frame {index} of a clip of {self.n_frames} frames")
        return Frame(
            pixels=read_only(self.pixels[index]),
            mode=self.mode,
            spacing_mm=self.spacing_mm,
            time_s=None if self.times_s is None else self.times_s[index],
            source=self.source,
            index=index,
        )


@dataclass(frozen=True, slots=True)
class Frame:
    """One image (H,W) or (H,W,3) out of a clip."""

    pixels: Pixels = field(compare=False, repr=False)
    mode: Mode
    source: Source
    index: int
    spacing_mm: SpacingMm | None = None
    time_s: float | None = None

    def __post_init__(self) -> None:
        check_frames((1, *self.pixels.shape), what="frame pixels (with a leading 1)")
