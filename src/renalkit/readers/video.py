"""How does a video file (MP4, MOV, AVI, WMV) become frames with times that can be trusted?

The container is recognised by content and opened with that one demuxer through our own file
handle, so nothing written in the file can make the library open another file or an address.
A video whose frames do not all decode is refused as a whole: a cine that ends early would pass
unnoticed. Needs the extra `video` (PyAV).

Shapes: (T,H,W) or (T,H,W,3), uint8. times_s counts from the first frame.
"""

from __future__ import annotations

import importlib
import struct
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from renalkit.errors import Reason
from renalkit.readers.contract import Limits
from renalkit.readers.still_headers import check_size
from renalkit.readers.stills import Array, Info, limits_from
from renalkit.readers.video_container import (
    Container,
    bad_video,
    check_container,
    opened_video,
)

_CODEC_ERRORS = (OSError, ValueError, LookupError, RuntimeError, EOFError, ArithmeticError,
                 TypeError, AttributeError, struct.error)  # fmt: skip
_LEAST_STEP_S, _MOST_STEP_S = 0.001, 30.0
_NO_RATE = "the file gives no frame rate: no time is used"
_SHUFFLED = "frame times do not increase: no time is used"
_ODD_RATE = "frame times that no examination has ({:g} s between frames): no time is used"
_NO_COUNT = "the file does not say how many frames it has: {} would not be noticed"


def decode_video(path: Path, options: Mapping[str, Any]) -> tuple[Array, Info]:
    """All frames of the only video stream of a file, and what is known about their times.

    info: source_format, codec, colour, lossy, times_s (seconds, or None), timing ("pts" or
    "none"), variable_rate, rotation_deg, notes, warnings (pairs of reason and words).

    Raises:
        DecodeFailed: REMOTE_REFERENCE (playlists, references to other files), FORMAT_REFUSED
            (no video that is read here, or PyAV is not installed), EMPTY, TRUNCATED, TOO_LARGE,
            TOO_SMALL, BAD_VIDEO (no or several video streams, frames that do not decode, another
            number of frames than declared).
    """
    limits = limits_from(options)
    frames = _frames_of(path, limits, limits.decoded_bytes)
    found: list[Array] = []
    info = _taken(frames, found, limits.decoded_bytes)
    assert info is not None
    return _stacked(found), info


def decode_video_part(path: Path, options: Mapping[str, Any]) -> tuple[Array, Info]:
    """The next frames of a video that is too long to be held whole.

    options: as for `decode_video`; first (number of the first frame wanted; 0 opens the file, any
    other must follow on the frames given last) and bytes (give no more than about so many).

    Returns:
        Frames (n,H,W) or (n,H,W,3), n may be 0; info has "done", and with the last part all that
        `decode_video` says. Only then is the video known to be whole.

    Raises:
        DecodeFailed: as `decode_video`; DECODER_KILLED, this process did not give the part before.
    """
    limits, first = limits_from(options), int(options["first"])
    if first == 0:
        _under_way.clear()
        _under_way[(str(path), 0)] = _frames_of(path, limits, limits.clip_bytes)
    frames = _under_way.pop((str(path), first), None)
    if frames is None:
        raise bad_video(
            Reason.DECODER_KILLED, "a decoder that lost its place", "one part after another"
        )
    found: list[Array] = []
    info = _taken(frames, found, int(options["bytes"]))
    if info is None:
        _under_way[(str(path), first + len(found))] = frames
    return _stacked(found), {"done": info is not None, **(info or {})}


_under_way: dict[tuple[str, int], Generator[Array, None, Info]] = {}
"""The video that is read in parts, by path and number of its next frame."""


def _taken(
    frames: Generator[Array, None, Info], found: list[Array], most_bytes: int
) -> Info | None:
    """Take frames until they fill `most_bytes`; what is known of the video when it ended."""
    held = 0
    while held < most_bytes:
        try:
            found.append(next(frames))
        except StopIteration as end:
            return end.value
        held += found[-1].nbytes
    return None


def _frames_of(path: Path, limits: Limits, most_bytes: int) -> Generator[Array, None, Info]:
    """Every frame (H,W) or (H,W,3), turned as the file says; at the end what is known."""
    with opened_video(path, limits) as file:
        told = check_container(file)
        file.seek(0)
        return (yield from _decoded(file, told, limits, most_bytes))


def _decoded(
    file: BinaryIO, told: Container, limits: Limits, most_bytes: int
) -> Generator[Array, None, Info]:
    try:
        # The extra may be missing, and everything else must work without it.
        av = importlib.import_module("av")
    except ImportError as error:
        raise bad_video(
            Reason.FORMAT_REFUSED,
            "videos need PyAV, which is not installed",
            remedy="install renalkit with the extra 'video', then read the files again",
        ) from error
    try:
        with av.open(
            file,
            format=told.demuxer,
            options={"protocol_whitelist": "file"},
            metadata_errors="replace",
        ) as container:
            return (yield from _frames(container, told, limits, most_bytes))
    except (*_CODEC_ERRORS, av.FFmpegError) as error:  # FFmpegError is not always one of them
        raise bad_video(
            Reason.BAD_VIDEO, f"frames cannot be decoded ({type(error).__name__}): it is damaged"
        ) from error


def _frames(
    container: Any, told: Container, limits: Limits, most_bytes: int
) -> Generator[Array, None, Info]:
    streams = container.streams.video
    if len(streams) != 1:
        raise bad_video(Reason.BAD_VIDEO, f"{len(streams)} video streams", "one video stream")
    stream = streams[0]
    declared, codec = int(stream.frames), stream.codec_context
    size = (int(codec.height), int(codec.width))
    check_size(*size, 0, limits)
    most = min(limits.frames, most_bytes // (size[0] * size[1] * 3))
    if declared > most:
        raise bad_video(
            Reason.TOO_LARGE, f"{declared} frames", f"at most {most} frames of this size",
            "cut the clip to the part that shows the lesion",
        )  # fmt: skip
    codec.thread_count = 1  # threads reserve memory per frame, and the decoder's is limited
    codec.options = {"err_detect": "explode"}
    stamps: list[int | None] = []
    rotation: int | None = None
    colour = False
    for frame in container.decode(stream):
        if frame.is_corrupt:
            raise bad_video(Reason.BAD_VIDEO, f"frame {len(stamps)} is damaged")
        if (frame.height, frame.width) != size or len(stamps) >= most:
            raise bad_video(Reason.BAD_VIDEO, "frames that change their size or do not end")
        turn = round(frame.rotation)
        rotation = turn if rotation is None else rotation
        if turn != rotation or turn % 90:
            raise bad_video(Reason.BAD_VIDEO, "frames that are rotated by odd or different angles")
        stamps.append(frame.pts)
        pixels = _pixels(frame.to_ndarray(format="rgb24"))
        colour |= pixels.ndim == 3
        yield np.rot90(pixels, turn // 90)
    if rotation is None or (declared and len(stamps) != declared):
        raise bad_video(
            Reason.BAD_VIDEO, f"{len(stamps)} frames decoded", f"{declared} as declared"
        )
    times, why = _times(stamps, stream.time_base) if told.rate else (None, _NO_RATE)
    info: Info = {
        "source_format": {"mov": "mp4"}.get(told.demuxer, told.demuxer),
        "codec": str(codec.name),
        "colour": colour,
        "lossy": True,
        "times_s": times,
        "timing": "none" if times is None else "pts",
        "variable_rate": times is not None and _varies(times),
        "rotation_deg": rotation,
        "notes": [f"turned by {rotation} degrees as the file says"] if rotation else [],
        "warnings": [(Reason.NO_TIMING.value, why)] if why else [],
    }
    if info["variable_rate"]:
        _warn(info, Reason.CONVERTED, "variable frame rate: each frame keeps its time")
    if container.streams.audio:
        _warn(info, Reason.CONVERTED, "the sound track was left out")
    if not declared:
        lost = "lost frames" if told.length_known else "a cut end"
        _warn(info, Reason.BAD_VIDEO, _NO_COUNT.format(lost))
    if codec.sample_aspect_ratio not in (None, 0, 1):
        _warn(info, Reason.CONVERTED, "pixels are not square in this video")
    return info


def _warn(info: Info, reason: Reason, words: str) -> None:
    info["warnings"].append((reason.value, words))


def _pixels(rgb: Array) -> Array:
    """One plane where red, green and blue are equal."""
    grey = np.array_equal(rgb[..., 0], rgb[..., 1]) and np.array_equal(rgb[..., 1], rgb[..., 2])
    return np.ascontiguousarray(rgb[..., 0]) if grey else rgb


def _stacked(frames: list[Array]) -> Array:
    """Frames as one array; grey ones become colour when others have colour."""
    if not frames:
        return np.empty((0, 1, 1), np.uint8)
    if all(f.ndim == 2 for f in frames):
        return np.stack(frames)
    return np.stack([np.repeat(f[..., None], 3, axis=2) if f.ndim == 2 else f for f in frames])


def _times(stamps: list[int | None], base: Any) -> tuple[list[float] | None, str]:
    """Seconds since the first frame; None, with the reason, when they cannot be believed."""
    known = [s for s in stamps if s is not None]
    if len(known) != len(stamps) or not base or float(base) <= 0:
        return None, _SHUFFLED
    times = [(s - known[0]) * float(base) for s in known]
    steps = np.diff(times)
    if (steps <= 0).any():
        return None, _SHUFFLED
    usual = float(np.median(steps)) if steps.size else _LEAST_STEP_S
    if not _LEAST_STEP_S <= usual <= _MOST_STEP_S:
        return None, _ODD_RATE.format(usual)
    return times, ""


def _varies(times: list[float]) -> bool:
    steps = np.diff(np.asarray(times))
    # Containers round times to their own clock (1 ms in AVI and WMV).
    return bool(steps.size and steps.max() - steps.min() > 0.002)
