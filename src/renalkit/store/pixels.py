"""Where do decoded pixels lie, and are they still the ones that were read?

One file per clip at ``pixels/<first two hex digits>/<sha256>.zarr.zip``: a zarr 3 array in an
uncompressed zip, one chunk per frame, blosc/zstd with byte shuffle (lossless). The name is the
digest of the decoded pixels (`renalkit.domain.image.pixel_sha256`), so the same picture is stored
once and any change is found by hashing again. Zip members carry a fixed date: equal pixels give
equal files. A frame is read without touching the others. Compression
level 1: level 5 writes three times slower for little gain.
"""

from __future__ import annotations

import zipfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from renalkit.domain.image import Clip, Pixels, PixelStack, pixel_sha256
from renalkit.domain.volume import Volume
from renalkit.errors import InputRefused, Reason, StoreError
from renalkit.store.files import write_with

PIXELS = "pixels"
SUFFIX = ".zarr.zip"
_DATE = (1980, 1, 1, 0, 0, 0)
_REMEDY = "run ingest again on the source, or restore the cohort folder from its copy"


def pixel_path(folder: Path, sha256: str) -> Path:
    """Where the pixels with this digest lie in a cohort folder.

    >>> pixel_path(Path("cohort"), "ab" * 32).name[:4]
    'abab'
    """
    if len(sha256) != 64 or set(sha256) - set("0123456789abcdef"):
        raise StoreError(
            "pixel digest of another form", expected="64 hex digits", remedy="restore the cohort"
        )
    return folder / PIXELS / sha256[:2] / f"{sha256}{SUFFIX}"


def _write(path: Path, pixels: PixelStack, dtype: np.dtype[np.generic]) -> None:
    # zarr takes half a second to import; only writing and reading pixels need it.
    import zarr
    from zarr.codecs import BloscCodec
    from zarr.storage import MemoryStore

    shape = tuple(int(n) for n in pixels.shape)
    parts: dict[str, Any] = {}
    array = zarr.create_array(
        MemoryStore(parts),
        shape=shape,
        chunks=(1, *shape[1:]),
        dtype=dtype,
        compressors=BloscCodec(cname="zstd", clevel=1, shuffle="shuffle"),
        fill_value=0,
        config={"write_empty_chunks": True},
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for index in range(shape[0]):
            array[index] = _source_frame(pixels, index).astype(dtype, copy=False)
            # Each frame leaves memory as soon as it is compressed: a cine may be 2 GiB.
            for name in sorted(n for n in parts if n.startswith("c/")):
                _add(archive, name, parts.pop(name).to_bytes())
        for name in sorted(parts):
            _add(archive, name, parts[name].to_bytes())


def _source_frame(pixels: PixelStack, index: int) -> Pixels:
    """A frame as its source gives it; that a source cannot be read is no fault of our disk."""
    try:
        return np.asarray(pixels[index])
    except OSError as error:
        raise InputRefused(
            Reason.UNREADABLE,
            f"cannot be read any more ({error.strerror})",
            remedy="run the same command again when the source is there",
        ) from error


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, _DATE), data)


@dataclass(frozen=True, slots=True)
class StoredStack:
    """The frames of one stored clip (T,H,W[,3]), read one at a time.

    Holds a path, a shape and a dtype, never an open file: it may be shared by threads and by
    forked or spawned loader workers.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]

    def __getitem__(self, index: int, /) -> Pixels:
        """Frame `index` as (H,W) or (H,W,3), read-only.

        Raises:
            IndexError: no such frame.
            StoreError: the file is missing, damaged or of another shape.
        """
        if not 0 <= index < self.shape[0]:
            raise IndexError(f"frame {index} of {self.shape[0]} stored frames")
        with _opened(self.path) as array:
            found = (tuple(array.shape), np.dtype(array.dtype).newbyteorder("<"))
            if found != (self.shape, self.dtype):
                raise _damaged(self.path, f"shape and type {found[0]} {found[1]}")
            frame = np.asarray(array[index])
        frame.flags.writeable = False
        return frame


@contextmanager
def _opened(path: Path) -> Generator[Any]:
    """The zarr array of a file; StoreError when it is missing or damaged, here or in the block."""
    import zarr
    from zarr.storage import ZipStore

    try:
        # A ZipStore that could not be opened cannot be closed either: ask zipfile first.
        zipfile.ZipFile(path).close()
        store = ZipStore(path, mode="r")
        try:
            yield zarr.open_array(store, mode="r")
        finally:
            store.close()
    except FileNotFoundError as error:
        raise _missing(path) from error
    # What zarr, zip and blosc raise on a damaged file.
    except (OSError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile) as error:
        raise _damaged(path, str(error)[:200]) from error


def _missing(path: Path) -> StoreError:
    return StoreError("stored pixels are missing", where=path.name[:12], remedy=_REMEDY)


def _damaged(path: Path, words: str) -> StoreError:
    return StoreError(f"stored pixels are damaged ({words})", where=path.name[:12], remedy=_REMEDY)


def put_clip(folder: Path, clip: Clip) -> Clip:
    """Store the pixels of a clip, and the labels of a volume; the clip with stored pixels.

    Raises: as `put`.
    """
    kept = replace(clip, pixels=put(folder, clip.pixels, clip.sha256))
    if isinstance(kept, Volume) and kept.labels is not None:
        labels = put(folder, kept.labels.pixels, kept.labels.sha256)
        return replace(kept, labels=replace(kept.labels, pixels=labels))
    return kept


def digests_of(clip: Clip) -> set[str]:
    """Digests of all pixels that `put_clip` stores."""
    labels = clip.labels if isinstance(clip, Volume) else None
    return {clip.sha256} | ({labels.sha256} if labels is not None else set())


def put(folder: Path, pixels: PixelStack, sha256: str) -> StoredStack:
    """Store pixels unless they are there; they are read back and compared first.

    Raises:
        StoreError: the disk refused, or the pixels do not have the digest stated.
        InputRefused: the source of lazy pixels can no longer be read or decoded.
    """
    path = pixel_path(folder, sha256)
    dtype = np.dtype(pixels.dtype).newbyteorder("<")
    shape = tuple(int(n) for n in pixels.shape)

    def fill(temporary: Path) -> None:
        _write(temporary, pixels, dtype)
        if pixel_sha256(StoredStack(temporary, shape, dtype)) != sha256:
            raise StoreError(
                "the pixels are not those the clip's digest was made of",
                where=sha256[:12],
                remedy="read the file again; if it repeats, check the disk and the memory",
            )

    if not path.is_file():
        write_with(path, fill)
    return StoredStack(path, shape, dtype)


def stored(folder: Path, sha256: str, shape: tuple[int, ...], dtype: str) -> StoredStack:
    """The stack of stored pixels without opening the file; StoreError when it is missing."""
    path = pixel_path(folder, sha256)
    if not path.is_file():
        raise _missing(path)
    return StoredStack(path, shape, np.dtype(dtype))


def verify(folder: Path, sha256: str) -> None:
    """Hash stored pixels again; StoreError unless they are the ones their name states."""
    path = pixel_path(folder, sha256)
    with _opened(path) as array:
        shape, dtype = tuple(array.shape), np.dtype(array.dtype).newbyteorder("<")
    if pixel_sha256(StoredStack(path, shape, dtype)) != sha256:
        raise _damaged(path, "another digest")
