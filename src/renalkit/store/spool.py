"""Where do the frames of a video lie that is too long for memory?

In a file without a name, on the disk of a folder: its space is free again when the frames are no
longer needed or the process ends, however it ends. One zstd block per frame, lossless; a frame is
read without touching the others.
"""

from __future__ import annotations

import errno
import os
import tempfile
import weakref
from pathlib import Path

import imagecodecs
import numpy as np

from renalkit.domain.image import Pixels
from renalkit.store.files import make_folder, refused

_LEVEL = 1  # higher levels take several times as long and save a tenth


class FrameSpool:
    """Frames (T,H,W) or (T,H,W,3), uint8, added one after another and read in any order.

    A frame (H,W) beside frames (H,W,3) is read with its three channels equal.
    """

    def __init__(self, folder: Path) -> None:
        """folder: whose disk is used; made if it is not there.

        Raises:
            StoreError: the disk refuses.
        """
        self._folder = make_folder(folder)
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                self._handle = os.dup(file.fileno())
        except OSError as error:
            raise refused(error, folder) from error
        weakref.finalize(self, os.close, self._handle)
        self._places: list[tuple[int, int, bool]] = []  # offset, bytes, coloured
        self._size: tuple[int, int] = (0, 0)
        self._end, self._coloured = 0, False

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self._places), *self._size, *((3,) if self._coloured else ()))

    @property
    def dtype(self) -> np.dtype[np.generic]:
        return np.dtype(np.uint8)

    def append(self, frame: Pixels) -> None:
        """Add a frame (H,W) or (H,W,3) of uint8.

        Raises:
            ValueError: another size or type than the first. StoreError: the disk refuses.
        """
        size = (int(frame.shape[0]), int(frame.shape[1]))
        if frame.dtype != np.uint8 or (self._places and size != self._size):
            raise ValueError(f"frame of {frame.dtype} and {size} among frames of {self._size}")
        data = bytes(imagecodecs.zstd_encode(frame.tobytes(), level=_LEVEL))
        try:
            if os.pwrite(self._handle, data, self._end) != len(data):
                raise OSError(errno.ENOSPC, "disk full")
        except OSError as error:
            raise refused(error, self._folder) from error
        coloured = frame.ndim == 3
        self._places.append((self._end, len(data), coloured))
        self._size, self._end = size, self._end + len(data)
        self._coloured |= coloured

    def __getitem__(self, index: int, /) -> Pixels:
        """Frame `index`; IndexError outside the clip."""
        offset, length, coloured = self._places[index]
        data = imagecodecs.zstd_decode(os.pread(self._handle, length, offset))
        shape = (*self._size, 3) if coloured else self._size
        frame = np.frombuffer(data, np.uint8).reshape(shape)
        if coloured or not self._coloured:
            return frame
        return np.repeat(frame[..., None], 3, axis=2)
