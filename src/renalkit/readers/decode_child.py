"""What runs inside the decode worker's child process.

Started as ``python -P -m renalkit.readers.decode_child FD MEMORY FILE CPU`` by `decode_worker`;
limits itself first, then answers requests until its standard input ends. A task takes a path and
options and returns pixels and facts; it may raise InputRefused. Whatever else a decoder throws
ends this process, or is listed in DECODER_ERRORS and becomes CODEC_ERROR.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import struct
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

Task = Callable[[Path, Mapping[str, Any]], tuple[Any, dict[str, Any]]]

TASKS: dict[str, tuple[str, str]] = {
    "dicom": ("renalkit.readers.dicom_pixels", "decode_dicom"),
    "dicom-ct": ("renalkit.readers.dicom_ct_slice", "decode_ct_slice"),
    "dicom-windows": ("renalkit.readers.dicom_served", "decode_parts"),
    "nifti": ("renalkit.readers.nifti", "decode_nifti"),
    "still": ("renalkit.readers.stills", "decode_still"),
    "video": ("renalkit.readers.video", "decode_video"),
    "video-part": ("renalkit.readers.video", "decode_video_part"),
}
"""Task -> (module, function). Imported when first asked for: a still needs no video library."""

DECODER_ERRORS = (
    ValueError,
    RuntimeError,
    OSError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    EOFError,
    SyntaxError,  # Pillow's PNG plugin raises it on broken chunks
    struct.error,
)
"""What the decoding libraries were seen to raise on damaged files."""

_NOFILE = 64


def limit_self(memory_bytes: int, file_bytes: int) -> None:
    """Set the limits that hold for the whole life of this process."""
    for what, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NOFILE, _NOFILE),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (value, value))


def limit_cpu(seconds: int) -> None:
    """Allow `seconds` of processor time from now on; the kernel ends the process after that."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime) + seconds + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))


def find_task(name: str) -> Task:
    """The function behind a task name; KeyError for a name that is not in TASKS."""
    module, function = TASKS[name]
    return getattr(importlib.import_module(module), function)


def answer_request(request: Mapping[str, Any], memory: int) -> dict[str, Any]:
    """Do one request: pixels go to the shared memory, the rest is returned."""
    # Imported here: numpy and the errors tree are needed only after the limits are set.
    import numpy as np

    from renalkit.errors import InputRefused, Reason

    try:
        task = find_task(str(request["task"]))
        pixels, info = task(Path(str(request["path"])), dict(request["options"]))
        array = np.ascontiguousarray(pixels)
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        # The shared file holds just the declared pixels; no spare bytes, no second copy. Where it
        # has their size already, as from the frame before, its pages are used again.
        view = array.reshape(-1).view(np.uint8).data if array.size else memoryview(b"")
        if os.fstat(memory).st_size != len(view):
            os.ftruncate(memory, 0)
        offset = 0
        while offset < len(view):
            offset += os.pwrite(memory, view[offset : offset + (64 << 20)], offset)
        return {"shape": list(array.shape), "dtype": array.dtype.str, "info": info}
    except InputRefused as refused:
        return {
            "refused": {
                "reason": refused.reason.value,
                "found": refused.found,
                "expected": refused.expected,
                "remedy": refused.remedy,
            }
        }
    except MemoryError:
        return {
            "refused": {
                "reason": Reason.TOO_LARGE.value,
                "found": "pixels that need more memory than the decoder may use",
                "expected": "a file within the decoder's memory limit",
                "remedy": "export the clip in shorter pieces",
            }
        }
    except DECODER_ERRORS as error:
        # The library's own words may quote file content; only the kind of error is passed on.
        return {
            "refused": {
                "reason": Reason.CODEC_ERROR.value,
                "found": f"pixels that could not be decoded ({type(error).__name__})",
                "expected": "undamaged compressed pixels",
                "remedy": "export the file again from the source system",
            }
        }


def _read(stream: BinaryIO, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = stream.read(count - len(data))
        if not piece:
            return b""
        data += piece
    return data


def _write(stream: BinaryIO, answer: Mapping[str, Any]) -> None:
    body = json.dumps(answer, allow_nan=False).encode()
    stream.write(struct.pack(">I", len(body)) + body)
    stream.flush()


def main(arguments: list[str]) -> int:
    """Answer requests until standard input ends."""
    memory, memory_bytes, file_bytes, seconds = (int(a) for a in arguments)
    limit_self(memory_bytes, file_bytes)
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    # A library that prints must not speak in the middle of an answer.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    _write(sink, {"ready": True})
    while head := _read(source, 4):
        (length,) = struct.unpack(">I", head)
        body = _read(source, length)
        limit_cpu(seconds)
        _write(sink, answer_request(json.loads(body), memory))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
