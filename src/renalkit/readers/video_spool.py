"""How is a video read that does not fit into memory?

The decode worker gives it in parts, and every part goes to disk at once, so memory does not grow
with the length of the video. That a video is whole is known only after its last frame.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from renalkit.readers.contract import Decoder, Limits
from renalkit.readers.dicom_served import changed_during_read
from renalkit.readers.stills import Info, decode_options
from renalkit.store.spool import FrameSpool

_PART_BYTES = 32 << 20


def spool_video(path: Path, decoder: Decoder, limits: Limits, frames: FrameSpool) -> Info:
    """Add all frames of a video to `frames`; what is known of it as `decode_video` says it.

    Raises:
        InputRefused: as `decode_video` refuses; CHANGED_DURING_READ. StoreError: the disk refuses.
    """
    before = _stamp(path)
    while True:
        options: dict[str, Any] = decode_options(limits)
        options |= {"first": frames.shape[0], "bytes": _PART_BYTES}
        part = decoder.run("video-part", path, options)
        for frame in part.pixels:
            frames.append(frame)
        if part.info["done"]:
            break
    if _stamp(path) != before:
        raise changed_during_read()
    return part.info


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes with a file; None when there is none."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_ino, facts.st_size, facts.st_mtime_ns
