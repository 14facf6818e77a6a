"""How are frames of a cine looked at without decoding each of them twice?

`LazyDicomFrames` decodes in this process what the decode worker has decoded before. Who goes
through a cine once has no use for that: here the worker's child decodes a frame when it is asked
for and hands over the parts that are wanted. This process decodes nothing, so a frame that ends
its decoder ends the child. What is wrong with single frames is known once they were asked for
(`ServedFrames.check`).

    stack = ServedFrames(path, file_sha256, about, boxes, worker, limits)
    bmode, contrast = stack.windows(7, [left, right])
    defects = stack.check()

Shape legend: T frames, H rows, W columns.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import ceil, prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from renalkit.domain.geometry import Box
from renalkit.domain.study import Defect
from renalkit.errors import DecodeFailed, InputRefused, Reason
from renalkit.readers.contract import Limits
from renalkit.readers.decode_worker import PATIENCE, DecodeWorker
from renalkit.readers.dicom_pixels import (
    FramePlace,
    PixelDescription,
    blanked,
    decode_windows,
    describe,
    frame_defects,
    frame_places,
    read_payload,
    task_options,
)
from renalkit.readers.dicom_prescan import ByteSource, FileSource, prescan_source
from renalkit.store.files import sha256_file

Array = npt.NDArray[Any]

_TASK = "dicom-windows"
_FRAMES_PER_TIME = 1000
"""Frames for which `Limits.worker_seconds` must be enough, on average."""


@dataclass(slots=True)
class ServedFrames:
    """Frames of one file, decoded by the worker when asked for: (T,H,W) or (T,H,W,3).

    boxes: what stays visible, None for everything. A frame that cannot be decoded is all zero.
    The worker must be there as long as frames are asked for.
    """

    path: Path = field(repr=False)
    file_sha256: str
    about: PixelDescription
    boxes: tuple[Box, ...] | None
    worker: DecodeWorker = field(repr=False)
    limits: Limits = field(default_factory=Limits)
    allow_headerless: bool = False
    _asked: set[int] = field(default_factory=set[int], repr=False)
    _varied: set[int] = field(default_factory=set[int], repr=False)
    _damaged: dict[int, InputRefused] = field(default_factory=dict[int, InputRefused], repr=False)
    _seconds: float = field(default=0.0, repr=False)
    _last: tuple[int, Sequence[Box]] = field(default=(-1, ()), repr=False)
    _every: dict[str, Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._every = task_options(self.limits, allow_headerless=self.allow_headerless)
        self._every["file_sha256"] = self.file_sha256
        self._every["boxes"] = None if self.boxes is None else _plain(self.boxes)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.about.frames, *self.about.frame_shape)

    @property
    def dtype(self) -> np.dtype[np.generic]:
        return self.about.dtype

    def __len__(self) -> int:
        return self.about.frames

    def __getitem__(self, index: int, /) -> Array:
        """Frame `index`; IndexError outside the clip. Raises as `windows`."""
        (whole,) = self.windows(index, [Box(0, 0, self.about.cols, self.about.rows)])
        return whole

    def windows(self, index: int, boxes: Sequence[Box]) -> list[Array]:
        """Parts of frame `index`, equal to those cut out of the whole frame.

        Raises:
            InputRefused: DECODER_KILLED, the child died or the frames take too long;
                CHANGED_DURING_READ, pixels of another size than the file had.
        """
        number = range(len(self))[index]
        self._asked.add(number)
        shapes = [(b.height, b.width, *self.about.frame_shape[2:]) for b in boxes]
        try:
            pixels = self._decoded(number, boxes)
        except InputRefused as refused:
            if refused.reason is Reason.DECODER_KILLED:
                raise
            self._damaged[number] = refused
            return [np.zeros(shape, self.about.dtype) for shape in shapes]
        finally:
            self._begin_next(number, boxes)
        ends = np.cumsum([prod(shape) for shape in shapes])
        if pixels.shape != (ends[-1],) or pixels.dtype != self.about.dtype:
            raise changed_during_read()
        if number not in self._varied and int(pixels.min()) != int(pixels.max()):
            self._varied.add(number)
        parts = np.split(pixels, ends[:-1])
        return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]

    def check(self) -> list[Defect]:
        """What is wrong with the frames asked for so far.

        Raises:
            InputRefused: CHANGED_DURING_READ, the file is not what it was; UNREADABLE, it is gone;
                CONSTANT_IMAGE, all frames have one value everywhere; else, when more than half of
                the frames are damaged, what is wrong with the first of them.
        """
        try:
            same = sha256_file(self.path) == self.file_sha256
        except OSError as error:
            raise unreadable(error) from None
        if not same:
            raise changed_during_read()
        if not self._asked:
            return []
        if 2 * len(self._damaged) > len(self._asked):
            raise self._damaged[min(self._damaged)]
        bad = {number: self._damaged[number].reason for number in sorted(self._damaged)}
        constant = sorted(self._asked - self._varied - self._damaged.keys())
        return frame_defects(bad, constant, len(self._asked))

    def _decoded(self, number: int, boxes: Sequence[Box]) -> Array:
        allowed = PATIENCE * self.limits.worker_seconds * ceil(len(self) / _FRAMES_PER_TIME)
        if self._seconds > allowed:
            raise DecodeFailed(
                Reason.DECODER_KILLED,
                f"frames that take more than {allowed:g} s to decode",
                remedy="export the clip in shorter pieces",
            )
        began = time.monotonic()
        try:
            return self.worker.run(_TASK, self.path, self._options(number, boxes)).pixels
        finally:
            self._seconds += time.monotonic() - began

    def _begin_next(self, number: int, boxes: Sequence[Box]) -> None:
        """Who goes through the clip frame by frame need not wait for the next one."""
        last, self._last = self._last, (number, boxes)
        following = 2 * number - last[0]
        if abs(following - number) == 1 and last[1] == boxes and 0 <= following < len(self):
            self.worker.begin(_TASK, self.path, self._options(following, boxes))

    def _options(self, number: int, boxes: Sequence[Box]) -> dict[str, Any]:
        return {**self._every, "frame": number, "windows": _plain(boxes)}


def changed_during_read() -> InputRefused:
    """The refusal of a file that something writes to."""
    return InputRefused(
        Reason.CHANGED_DURING_READ,
        "a file that changed while it was read",
        remedy="import it again when nothing writes to it",
    )


def unreadable(error: OSError) -> InputRefused:
    """The refusal of a file the system does not let us read; its path is not told."""
    return InputRefused(Reason.UNREADABLE, f"file that cannot be read ({type(error).__name__})")


def _plain(boxes: Sequence[Box]) -> list[list[int]]:
    return [[b.x, b.y, b.width, b.height] for b in boxes]


@lru_cache(maxsize=1)
def _opened(
    path: Path, file_sha256: str, limits: Limits, allow_headerless: bool
) -> tuple[PixelDescription, Sequence[FramePlace], ByteSource | None]:
    """The header of the cine whose frames are asked for; the digest names the file, unchecked."""
    with FileSource(path) as file:
        scan = prescan_source(file, limits, allow_headerless=allow_headerless)
        about = describe(scan, limits)
        places, _ = frame_places(scan, about, scan.inflated or file)
    return about, places, scan.inflated


def decode_parts(path: Path, options: Mapping[str, Any]) -> tuple[Array, dict[str, Any]]:
    """The decode worker's task "dicom-windows": parts of one frame, one after the other (N,).

    options: `limits`, `allow_headerless`, `boxes` as for "dicom", `file_sha256`, `frame` (from 0),
    `windows` ([x, y, width, height] of each part). What lies outside all `boxes` is 0.
    """
    limits = Limits(**options["limits"])
    which = str(options["file_sha256"]), limits, bool(options["allow_headerless"])
    about, places, inflated = _opened(path, *which)
    place = places[int(options["frame"])]
    if inflated is None:
        with FileSource(path) as file:
            payload = read_payload(file, place)
    else:
        payload = read_payload(inflated, place)
    windows = [Box(*box) for box in options["windows"]]
    parts = decode_windows(payload, about, windows)
    if options["boxes"] is not None:
        kept = [Box(*box) for box in options["boxes"]]
        parts = [blanked(part, box, kept) for part, box in zip(parts, windows, strict=True)]
    return np.concatenate([part.reshape(-1) for part in parts]), {}
