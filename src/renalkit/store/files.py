"""How anything durable reaches the disk: whole or not at all, one writer at a time.

Every write is temporary file + fsync + rename + directory fsync. Nothing else in the package opens
a file for writing, so this is also where faults are injected in tests.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from renalkit.errors import InputRefused, Locked, Reason, StoreError

TMP_PREFIX = ".tmp-"
_CHUNK = 1 << 20
_DRAWINGS = (".svg", ".csv", ".tex")
_FLUSHES = 8  # at the same time: the disk writes them in one go


def sha256_file(path: Path) -> str:
    """Digest of a file's bytes, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def sha256_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def fsync_folder(folder: Path) -> None:
    """Make a rename inside the folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> Path:
    """Create a folder and its parents; each new entry is durable.

    Raises StoreError when the disk refuses, or when a file is in the way.
    """
    try:
        if not folder.is_dir():
            make_folder(folder.parent)
            folder.mkdir(exist_ok=True)
            fsync_folder(folder.parent)
    except OSError as error:
        raise refused(error, folder) from error
    return folder


def refused(error: OSError, path: Path) -> StoreError:
    """The disk's refusal in words."""
    words = "the disk is full" if error.errno == errno.ENOSPC else str(error.strerror)
    return StoreError(
        f"write refused: {words}",
        where=path.name,
        remedy="free space or make the folder writable, then run the same command again",
    )


@contextmanager
def replacing(path: Path) -> Generator[Path]:
    """A temporary file beside `path` to fill; it takes its place, durably, when the block is done.

    Raises StoreError when the disk refuses (full, read-only, I/O error); the old content stays, as
    it does when the block fails.
    """
    make_folder(path.parent)
    try:
        handle, name = tempfile.mkstemp(prefix=TMP_PREFIX, suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise refused(error, path) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _flush(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
        fsync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise refused(error, path) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def replacing_folder(folder: Path) -> Generator[Path]:
    """A temporary folder to fill with files; it takes the place of `folder`, durably, when the
    block is done. Many small files are flushed together, which is far quicker than one by one.

    Raises StoreError when the disk refuses; the folder is then as it was, or gone.
    """
    make_folder(folder.parent)
    try:
        temporary = Path(tempfile.mkdtemp(prefix=TMP_PREFIX, dir=folder.parent))
    except OSError as error:
        raise refused(error, folder) from error
    try:
        yield temporary
        with ThreadPoolExecutor(_FLUSHES) as pool:
            list(pool.map(_flush, temporary.iterdir()))
        fsync_folder(temporary)
        temporary.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
        fsync_folder(folder.parent)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise refused(error, folder) from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def write_with(path: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` write a temporary file beside `path`, then put it in place; see `replacing`."""
    with replacing(path) as temporary:
        fill(temporary)


@contextmanager
def text_file(path: Path) -> Generator[TextIO]:
    """A text file to write piece by piece; it appears when the block is done; see `replacing`."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as text:
        yield text


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file atomically."""
    write_with(path, lambda temporary: _put(temporary, data))


def _put(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_drawings(folder: Path, files: Mapping[str, str], pattern: str = "*") -> None:
    """Write figures and tables by relative name, and remove those that are there from before.

    pattern: names of files that may be removed, if they end as figures and tables do.
    """
    for name, text in files.items():
        write_text(folder / name, text)
    for old in sorted(folder.rglob(pattern)):
        if old.suffix in _DRAWINGS and old.relative_to(folder).as_posix() not in files:
            try:
                old.unlink()
            except OSError as error:
                raise refused(error, old) from error


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file: sorted keys, two spaces, no NaN (ValueError), trailing newline."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [k for k, _ in pairs]
    if len(set(keys)) != len(keys):
        double = sorted({k for k in keys if keys.count(k) > 1})
        raise ValueError(f"key given twice: {', '.join(double)[:200]}")
    return dict(pairs)


def _int(text: str) -> int:
    if len(text) > 300:
        raise ValueError("integer with more than 300 digits")
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"number {text[:20]} is out of range")
    return value


def parse_json(text: str | bytes, *, where: str, max_bytes: int = 64 << 20) -> Any:
    """Strict JSON: no NaN, no double keys, no over-long numbers, bounded size and depth.

    Raises InputRefused(BAD_JSON).
    """
    remedy = "export the file again as plain UTF-8 JSON"
    if len(text) > max_bytes:
        raise InputRefused(
            Reason.BAD_JSON, f"{len(text)} bytes", where=where, expected=f"at most {max_bytes}"
        )
    try:
        words = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        value = json.loads(
            words,
            parse_constant=_refuse_constant,
            object_pairs_hook=_pairs,
            parse_int=_int,
            parse_float=_float,
        )
        words.encode()  # a lone surrogate written out in the text is not UTF-8
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise InputRefused(
            Reason.BAD_JSON, f"not strict JSON ({str(error)[:200]})", where=where, remedy=remedy
        ) from error
    return value


def read_json(path: Path) -> Any:
    """Strict JSON from a file; InputRefused when it is not."""
    return parse_json(path.read_bytes(), where=path.name)


def move_folder(whole: Path, target: Path) -> None:
    """Put a whole folder in the place of a missing or empty one, at once.

    Raises StoreError when the disk refuses, or when the place is not free.
    """
    try:
        whole.rename(target)
        fsync_folder(target.parent)
    except OSError as error:
        raise refused(error, target) from error


def clean_temporaries(folder: Path) -> int:
    """Remove temporary files and folders an interrupted writer left behind; returns how many."""
    found = list(folder.rglob(TMP_PREFIX + "*"))
    for path in found:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return len(found)


@contextmanager
def locked(folder: Path) -> Generator[None]:
    """Hold a folder for one writer; a second process gets Locked at once.

    The lock is the kernel's (flock), so it ends with its process, however that ends.
    """
    make_folder(folder)
    path = folder / ".lock"
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise refused(error, path) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(handle, 64).decode(errors="replace").strip()
            raise Locked(
                f"in use by process {holder or 'unknown'}",
                where=folder.name,
                remedy="wait for it to end, or stop it",
            ) from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)
