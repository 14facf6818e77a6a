"""Which files are in a zip archive, and can they be taken out without harm?

Members are written one after another into a folder of temporary files that is removed afterwards.
Nothing is written outside it: names that lead out, links and special files are refused, each with
its reason. What an archive declares of sizes is not believed: bytes are counted while they are
inflated.
"""

from __future__ import annotations

import os
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from renalkit.domain.study import Defect
from renalkit.errors import InputRefused, Reason
from renalkit.readers.contract import FileReport, Limits, Outcome
from renalkit.store.files import make_folder
from renalkit.store.files import refused as disk_refused

SUFFIX = ".zip"

_CHUNK = 1 << 20
_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1
_END_WITHIN = (1 << 16) + 22
_LONGEST_ENTRY = 1 << 12
_LONGEST_PART = 200
_BESIDE = "__MACOSX/"
_DEEPEST = 24


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """What one archive may hold. total_bytes: of all members together, inflated."""

    members: int = 20_000
    total_bytes: int = 8 << 30


@dataclass(frozen=True, slots=True)
class Unpacked:
    """folder: holds what was taken out; refused: members that were not, each with its reason."""

    folder: Path
    refused: tuple[FileReport, ...]


def is_archive(path: Path) -> bool:
    """Whether a file is named like an archive and begins like one."""
    if path.suffix.lower() != SUFFIX:
        return False
    try:
        with path.open("rb") as file:
            return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
    except OSError:
        return False


@contextmanager
def unpacked(
    path: Path, files: Limits | None = None, limits: ArchiveLimits | None = None
) -> Generator[Unpacked]:
    """The members of an archive as files, for as long as the context lasts.

    Args:
        files: what one file may be. limits: what the archive may be.

    Raises:
        InputRefused: no archive (NOT_RECOGNISED), too many members (TOO_LARGE), or more bytes than
            allowed together (DECOMPRESSION_BOMB).
        StoreError: the disk refuses.
    """
    each, whole = files or Limits(), limits or ArchiveLimits()
    with tempfile.TemporaryDirectory(prefix="renalkit-") as name:
        folder = Path(name)
        try:
            _check_directory(path, whole)
            with zipfile.ZipFile(path) as archive:
                reports = _taken_out(archive, folder, each, whole, path.name)
        except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError) as error:
            raise InputRefused(
                Reason.NOT_RECOGNISED,
                f"an archive that cannot be read ({type(error).__name__})",
                where=path.name,
                expected="a zip archive",
                remedy="pack the files again",
            ) from error
        except OSError as error:
            raise disk_refused(error, folder) from error
        yield Unpacked(folder, tuple(reports))


def _check_directory(path: Path, whole: ArchiveLimits) -> None:
    """Refuse a list of members that is too long before it is read into memory."""
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - _END_WITHIN))
        tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + 22:
        raise zipfile.BadZipFile
    count, size = struct.unpack_from("<HI", tail, at + 10)
    if count > whole.members or size > whole.members * _LONGEST_ENTRY:
        raise _too_many(count, whole, path.name)


def _too_many(count: int, whole: ArchiveLimits, where: str) -> InputRefused:
    return InputRefused(
        Reason.TOO_LARGE,
        f"an archive of {count} members or more",
        where=where,
        expected=f"at most {whole.members}",
        remedy="pack one examination at a time",
    )


def _taken_out(
    archive: zipfile.ZipFile, folder: Path, each: Limits, whole: ArchiveLimits, where: str
) -> list[FileReport]:
    listed = archive.infolist()
    if len(listed) > whole.members:
        raise _too_many(len(listed), whole, where)
    members = [m for m in listed if not m.is_dir()]
    reports: list[FileReport] = []
    left = whole.total_bytes
    taken: set[str] = set()
    for number, member in enumerate(members):
        if member.filename.startswith(_BESIDE):
            aside = (Defect(Reason.EXTRA_FILE, "written by the program that packed the files"),)
            reports.append(FileReport(folder / f"member-{number}", Outcome.SKIPPED, aside))
            continue
        place = _place(member, taken)
        if isinstance(place, Defect):
            words = f"{place.words}: {member.filename[:80]!r}"
            report = (Defect(place.reason, words),)
            reports.append(FileReport(folder / f"member-{number}", Outcome.REFUSED, report))
            continue
        target = folder.joinpath(*place.parts)
        written = _write(archive, member, target, min(each.file_bytes, left))
        if isinstance(written, Defect):
            if written.reason is Reason.TOO_LARGE and left <= each.file_bytes:
                raise InputRefused(
                    Reason.DECOMPRESSION_BOMB,
                    f"more than {whole.total_bytes} bytes",
                    where=where,
                    expected="an archive of one examination",
                    remedy="pack one examination at a time",
                )
            reports.append(FileReport(target, Outcome.REFUSED, (written,)))
            continue
        left -= written
    return reports


def _place(member: zipfile.ZipInfo, taken: set[str]) -> PurePosixPath | Defect:
    """Where a member may lie below the folder, or why nowhere."""
    name = member.filename
    path = PurePosixPath(name)
    parts = name.split("/")
    strange = "\\" in name or "\0" in name or ":" in parts[0] or any(c < " " for c in name)
    if path.is_absolute() or strange or any(p in ("", ".", "..") for p in parts):
        return Defect(Reason.SPECIAL_FILE, "a member whose name leads out of the archive")
    if len(parts) > _DEEPEST or any(
        len(p.encode("utf-8", "replace")) > _LONGEST_PART for p in parts
    ):
        return Defect(Reason.UNREADABLE, "a member whose name is too long or too deep")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        return Defect(Reason.SPECIAL_FILE, "a link, pipe or device")
    if member.flag_bits & _ENCRYPTED:
        return Defect(Reason.UNREADABLE, "an encrypted member")
    if member.compress_type not in _PACKED:
        return Defect(Reason.FORMAT_REFUSED, "a member packed by a method other than deflate")
    # A file where another member needs a folder, or the same name again in other letters.
    plain = name.casefold()
    above = {"/".join(plain.split("/")[:n]) for n in range(1, len(parts))}
    if plain in taken or f"{plain}/" in taken or above & taken:
        return Defect(Reason.DUPLICATE_FILE, "a second member of this name")
    taken.add(plain)
    taken.update(f"{a}/" for a in above)
    return path


def _write(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, most: int
) -> int | Defect:
    """Bytes written; a Defect leaves no file behind."""
    make_folder(target.parent)
    count = 0
    problem: Defect | None = None
    try:
        with archive.open(member) as packed, target.open("xb") as file:
            while problem is None and (chunk := packed.read(_CHUNK)):
                count += len(chunk)
                if count > most:
                    problem = Defect(Reason.TOO_LARGE, f"more than {most} bytes when unpacked")
                else:
                    file.write(chunk)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        problem = Defect(Reason.TRUNCATED, f"a damaged member ({type(error).__name__})")
    if problem is not None:
        target.unlink(missing_ok=True)
        return problem
    return count
