"""Which frames of a cine are kept: every k-th or every t seconds, then picked by a person.

P1 takes frames at a fixed interval and lets a radiologist pick from them. `every_frames` and
`every_seconds` do the first, a contact sheet (numbered thumbnails) and a keep list (a table with
the columns file, frame, keep) the second. All of it is deterministic.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from renalkit.errors import InputRefused, Reason
from renalkit.readers.tables import parse_table
from renalkit.store.cohorts import plain_cell, safe_cell

KEEP_COLUMNS = ("file", "frame", "keep")

_REMEDY = "write the list again and change the keep column only"
_LABEL_PX = 14
_GAP_PX = 2


def every_frames(n_frames: int, step: int) -> tuple[int, ...]:
    """Frames 0, step, 2 step, ... of a cine of n_frames.

    Raises ValueError unless step >= 1 and n_frames >= 0.

    >>> every_frames(10, 4)
    (0, 4, 8)
    """
    if step < 1 or n_frames < 0:
        raise ValueError(f"step {step} of {n_frames} frames: the step is at least 1")
    return tuple(range(0, n_frames, step))


def every_seconds(times_s: Sequence[float] | None, interval_s: float) -> tuple[int, ...]:
    """For each multiple of the interval since the first frame, the first frame at or after it.

    A frame is taken once, so a gap longer than the interval gives one frame, not several.
    times_s must increase.

    Raises:
        ValueError: the interval is not positive.
        InputRefused: NO_TIMING, the cine has no frame times.

    >>> every_seconds([0.0, 0.5, 1.0, 1.5, 2.2], 1.0)
    (0, 2, 4)
    """
    if not interval_s > 0:
        raise ValueError(f"interval {interval_s} s is not positive")
    if not times_s:
        raise InputRefused(
            Reason.NO_TIMING,
            "a cine without frame times",
            expected="a time per frame",
            remedy="sample every k-th frame instead",
        )
    times = np.asarray(times_s, float)
    # A tenth of a microsecond of slack: 3 * 0.1 is not 0.3.
    slots = np.floor((times - times[0]) / interval_s + 1e-7)
    taken = np.flatnonzero(np.diff(slots, prepend=-1.0) >= 1)
    return tuple(int(i) for i in taken)


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """One frame for a contact sheet: its number in the cine and its pixels (H,W) or (H,W,3)."""

    frame: int
    pixels: npt.NDArray[np.generic]


def thumbnail(frame: int, pixels: npt.NDArray[np.generic], side_px: int) -> Thumbnail:
    """A frame shrunk at once, so that the frames of a long cine need not be held together."""
    return Thumbnail(frame, _thumbnail(pixels, side_px))


def contact_sheet(items: Sequence[Thumbnail], *, columns: int = 8, side_px: int = 128) -> bytes:
    """A PNG with the frames as numbered thumbnails, row by row; the same input, the same bytes.

    Each frame is scaled into side_px x side_px without changing its shape. 16-bit frames are
    stretched from their own minimum to their maximum, 8-bit ones are shown as they are.

    Raises ValueError for no frames, or sizes below 1 column and 16 pixels.
    """
    if not items or columns < 1 or side_px < 16:
        raise ValueError("a contact sheet needs frames, a column and 16 pixels a side")
    columns = min(columns, len(items))
    rows = ceil(len(items) / columns)
    cell_h, cell_w = side_px + _LABEL_PX + _GAP_PX, side_px + _GAP_PX
    sheet = np.full((rows * cell_h + _GAP_PX, columns * cell_w + _GAP_PX, 3), 32, np.uint8)
    for place, item in enumerate(items):
        y, x = _GAP_PX + place // columns * cell_h, _GAP_PX + place % columns * cell_w
        small = _thumbnail(item.pixels, side_px)
        top = y + _LABEL_PX + (side_px - small.shape[0]) // 2
        left = x + (side_px - small.shape[1]) // 2
        sheet[top : top + small.shape[0], left : left + small.shape[1]] = small
        cv2.putText(
            sheet, str(item.frame), (x + 2, y + _LABEL_PX - 3), cv2.FONT_HERSHEY_SIMPLEX, 0.4,
            (255, 255, 255), 1, cv2.LINE_8,
        )  # fmt: skip
    done, data = cv2.imencode(".png", sheet[..., ::-1])
    assert done
    return data.tobytes()


def _thumbnail(pixels: npt.NDArray[np.generic], side_px: int) -> npt.NDArray[np.uint8]:
    """Frame as (h,w,3) uint8 with its longer side equal to side_px."""
    values: npt.NDArray[Any] = np.asarray(pixels)
    if values.dtype != np.uint8:
        low, high = float(values.min()), float(values.max())
        scale = 255.0 / (high - low) if high > low else 0.0
        values = np.rint((values.astype(np.float64) - low) * scale).astype(np.uint8)
    if values.ndim == 2:
        values = np.repeat(values[..., None], 3, axis=2)
    height, width = values.shape[:2]
    scale = side_px / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    return np.asarray(
        cv2.resize(np.ascontiguousarray(values), size, interpolation=method), np.uint8
    )


def keep_list(
    frames: Mapping[str, Sequence[int]],
    *,
    dropped: Collection[tuple[str, int]] = (),
    sheets: Mapping[tuple[str, int], str] | None = None,
) -> str:
    """The text of a keep list, sorted by file and frame; keep is 1 except for dropped frames.

    file is whatever names the cine for the person who picks; it stays on that person's machine.
    sheets: the contact sheet of every frame, as a fourth column that reading ignores.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(KEEP_COLUMNS if sheets is None else (*KEEP_COLUMNS, "sheet"))
    for file in sorted(frames):
        for frame in sorted(set(frames[file])):
            row = (safe_cell(file), frame, int((file, frame) not in dropped))
            writer.writerow(row if sheets is None else (*row, sheets[file, frame]))
    return text.getvalue()


def read_decisions(data: bytes, *, where: str = "keep list") -> dict[tuple[str, int], bool]:
    """What a keep list says about each (file, frame) it names.

    Raises InputRefused(BAD_TABLE), with the line: other columns or values, a frame twice.
    """
    return {key: keep for key, (_, keep) in _lines(data, where).items()}


def _lines(data: bytes, where: str) -> dict[tuple[str, int], tuple[int, bool]]:
    """The line and the decision of each (file, frame)."""
    table = parse_table(data, where=where, required=KEEP_COLUMNS)
    found: dict[tuple[str, int], tuple[int, bool]] = {}
    for row in table.rows:
        file, frame, keep = (row.values[c] for c in KEEP_COLUMNS)
        key = (plain_cell(file), int(frame) if re.fullmatch("[0-9]{1,9}", frame) else -1)
        if keep not in ("0", "1") or key[1] < 0 or key in found:
            raise _bad_line(row.line, where)
        found[key] = (row.line, keep == "1")
    return found


def read_keep_list(
    data: bytes,
    sampled: Mapping[str, Sequence[int]] | None = None,
    *,
    where: str = "keep list",
) -> dict[str, tuple[int, ...]]:
    """The frames a person kept, by file. Every sampled frame must be listed once, with 0 or 1.

    sampled: what was offered, by file; None when that is not known, then the list stands alone.

    Raises InputRefused(BAD_TABLE): other columns or values, a frame that was not sampled, a frame
    twice or not at all (a line lost in editing must not pass for a decision).
    """
    lines = _lines(data, where)
    kept: dict[str, list[int]] = {file: [] for file in sampled or {}}
    offered = {(file, frame) for file, frames in (sampled or {}).items() for frame in frames}
    for (file, frame), (line, keep) in lines.items():
        if sampled is not None and (file, frame) not in offered:
            raise _bad_line(line, where)
        kept.setdefault(file, []).extend([frame] if keep else [])
    lost = len(offered - lines.keys())
    if lost:
        raise InputRefused(
            Reason.BAD_TABLE,
            f"{lost} sampled frames are not listed",
            where=where,
            expected="every sampled frame with 0 or 1",
            remedy=_REMEDY,
        )
    return {file: tuple(sorted(frames)) for file, frames in kept.items()}


def _bad_line(line: int, where: str) -> InputRefused:
    return InputRefused(
        Reason.BAD_TABLE,
        "a frame that was not sampled, is listed twice, or is neither 0 nor 1",
        where=f"{where}, line {line}",
        expected="the lines as they were written, keep set to 0 or 1",
        remedy=_REMEDY,
    )
