"""Is a video file whole, and does it name no other file, before any library reads it?

MP4 and MOV are boxes with a length each, AVI is RIFF with one length, WMV is ASF whose header says
how long the file is.
"""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from renalkit.errors import DecodeFailed, Reason
from renalkit.readers.contract import Limits

_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_MOV_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
_PLAYLISTS = (b"#extm3u", b"ffconcat", b"concat:", b"http:", b"https:", b"file ", b"[playlist]",
              b"rtsp:", b"subfile", b"<asx", b"<smil", b"<mpd")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Container:
    """demuxer: the one to use, by content. length_known: the file says how long it is, and is so
    long. rate: it gives a frame rate or times; where it gives none, libraries make one up."""

    demuxer: Literal["mov", "avi", "asf"]
    length_known: bool = False
    rate: bool = True


def bad_video(reason: Reason, found: str, expected: str = "", remedy: str = "") -> DecodeFailed:
    """A refusal with the usual remedy."""
    advice = remedy or "export the clip again as MP4 or AVI, or as DICOM"
    return DecodeFailed(reason, found, expected=expected, remedy=advice)


def check_container(file: BinaryIO) -> Container:
    """What the container says of itself.

    Raises:
        DecodeFailed: REMOTE_REFERENCE, FORMAT_REFUSED, TRUNCATED.
    """
    demuxer = _recognised(file)
    if demuxer == "mov":
        _check_boxes(file)
        return Container(demuxer)
    if demuxer == "avi":
        return _check_riff(file)
    return Container(demuxer, length_known=_check_asf(file))


def opened_video(path: Path, limits: Limits) -> BinaryIO:
    """A regular file of allowed size, open for reading."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise bad_video(Reason.UNREADABLE, f"cannot be opened ({error.strerror})") from error
    file = os.fdopen(handle, "rb")
    facts = os.fstat(handle)
    problem = None
    if not stat.S_ISREG(facts.st_mode):
        problem = bad_video(Reason.SPECIAL_FILE, "not a regular file")
    elif facts.st_size == 0:
        problem = bad_video(Reason.EMPTY, "empty file")
    elif facts.st_size > limits.file_bytes:
        problem = bad_video(
            Reason.TOO_LARGE, f"{facts.st_size} bytes", f"at most {limits.file_bytes} bytes"
        )
    if problem is not None:
        file.close()
        raise problem
    return file


def _recognised(file: BinaryIO) -> Literal["mov", "avi", "asf"]:
    """The one demuxer to use, by content."""
    head = file.read(4096)
    words = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if words.startswith(_PLAYLISTS):
        raise bad_video(
            Reason.REMOTE_REFERENCE, "a playlist that names other files", "the video itself"
        )
    if head[4:8] in _MOV_BOXES:
        return "mov"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    if head.startswith(_ASF):
        return "asf"
    raise bad_video(Reason.FORMAT_REFUSED, "no MP4, MOV, AVI or WMV by its content")


def _check_boxes(file: BinaryIO) -> None:
    """Every top-level box lies in the file, there is one moov, and it refers to no other file."""
    size = file.seek(0, os.SEEK_END)
    at, kinds = 0, set[bytes]()
    while at + 8 <= size:
        file.seek(at)
        length, kind = struct.unpack(">I4s", file.read(8))
        if length == 1:
            body = file.read(8)
            length = struct.unpack(">Q", body)[0] if len(body) == 8 else 0
        elif length == 0:
            length = size - at
        if length < 8 or at + length > size:
            raise bad_video(Reason.TRUNCATED, "a part of the video leaves the file: it is cut")
        if kind == b"moov":
            file.seek(at)
            _check_references(file.read(min(length, 64 << 20)))
        kinds.add(kind)
        at += length
    if b"moov" not in kinds:
        raise bad_video(
            Reason.TRUNCATED, "video without its index (moov): the recording was cut off"
        )


def _check_references(moov: bytes) -> None:
    at = moov.find(b"dref")
    while at >= 0:
        # dref: version and flags, count; then the first entry: size, type, version and flags.
        entry = moov[at + 12 : at + 24]
        if len(entry) == 12 and not struct.unpack(">I", entry[8:12])[0] & 1:
            raise bad_video(
                Reason.REMOTE_REFERENCE, "frames that lie in another file", "the video itself"
            )
        at = moov.find(b"dref", at + 4)
    if b"rmra" in moov:
        raise bad_video(Reason.REMOTE_REFERENCE, "a reference movie", "the video itself")


def _check_riff(file: BinaryIO) -> Container:
    """AVI: its length (0 when the recorder never came to write it) and rate."""
    size = file.seek(0, os.SEEK_END)
    file.seek(4)
    declared = struct.unpack("<I", file.read(4))[0] + 8
    _check_length(size, declared)
    file.seek(0)
    head = file.read(65536)
    at, rated = head.find(b"strh"), False
    while at >= 0 and not rated:
        body = head[at + 8 : at + 36]
        if body[:4] == b"vids" and len(body) == 28:
            scale, rate = struct.unpack("<II", body[20:28])
            rated = scale > 0 and rate > 0
        at = head.find(b"strh", at + 4)
    return Container("avi", length_known=declared > 8, rate=rated)


def _check_asf(file: BinaryIO) -> bool:
    """Whether the header says how long the file is (a recording that went on air does not)."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(65536)
    body = head[head.find(_ASF_FILE) :][40:92] if _ASF_FILE in head else b""
    if len(body) < 52:
        return False
    declared, flags = struct.unpack_from("<Q", body)[0], struct.unpack_from("<I", body, 48)[0]
    if flags & 1 or declared == 0:
        return False
    _check_length(size, declared)
    return True


def _check_length(size: int, declared: int) -> None:
    if declared > size:
        raise bad_video(Reason.TRUNCATED, f"{size} bytes of a video of {declared}: it is cut")
