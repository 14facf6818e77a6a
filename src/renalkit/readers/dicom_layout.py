"""Where on a console image is ultrasound, at which scale, and when was each frame taken?

Sources: DICOM PS3.3 C.8.5.5 (US Region Calibration), C.7.6.5 (Cine), C.10.4 (pixel spacing).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, combinations
from math import isfinite

from renalkit.domain.geometry import Box, Region, SpacingMm, checked_spacing
from renalkit.domain.image import Mode
from renalkit.domain.study import Defect
from renalkit.errors import InputRefused, Reason
from renalkit.readers.dicom_prescan import REGIONS, Prescan, Values

DATA_TYPES = {
    **{0: "none", 1: "tissue", 2: "colour-flow", 3: "pw-doppler", 4: "cw-doppler"},
    **{5: "doppler-mean-trace", 6: "doppler-mode-trace", 7: "doppler-max-trace"},
    **{8: "volume-trace", 9: "volume-rate-trace", 10: "ecg-trace", 11: "pulse-trace"},
    **{12: "phonocardiogram-trace", 13: "grey-bar", 14: "colour-bar", 15: "backscatter"},
    **{16: "area-trace", 17: "area-rate-trace", 18: "other-trace"},
}
SPATIAL_FORMATS = {0: "none", 1: "2d", 2: "m-mode", 3: "spectral", 4: "waveform", 5: "graphics"}
_CENTIMETRES = 3
_PICTURE_TYPES = ("tissue", "colour-flow")
_LARGEST_EXTENT_MM = 1000.0


@dataclass(frozen=True, slots=True)
class Layout:
    """What is known about the picture's geometry. regions is empty when the file has none."""

    regions: tuple[Region, ...]
    mode: Mode
    spacing_mm: SpacingMm | None
    defects: tuple[Defect, ...]


def read_layout(scan: Prescan, rows: int, cols: int) -> Layout:
    """Every region of the file, and the mode and scale they imply.

    mode is B with one 2-D region of tissue (colour flow counts as tissue; the same box twice as
    one), DUAL with several side by side. spacing_mm is the scale all of them share, else None.

    Raises:
        InputRefused: LAYOUT_UNKNOWN, regions without any 2-D tissue, or overlapping ones.
    """
    defects: list[Defect] = []
    regions: list[Region] = []
    for item in scan.items.get(REGIONS, ()):
        region = _region(item, rows, cols, defects)
        if region is not None:
            regions.append(region)
    if not regions:
        spacing = _pixel_spacing(scan.values, defects)
        return Layout((), Mode.B, spacing, tuple(defects))
    pictures = [r for r in regions if r.spatial_format == "2d" and r.data_type in _PICTURE_TYPES]
    boxes = list(dict.fromkeys(r.box for r in pictures))
    if not boxes:
        raise InputRefused(
            Reason.LAYOUT_UNKNOWN,
            f"{len(regions)} regions, none a 2-D picture of tissue",
            expected="a B-mode or contrast picture",
            remedy="leave M-mode, spectral Doppler and report pages out",
        )
    if any(_overlap(a, b) for a, b in combinations(boxes, 2)):
        raise InputRefused(
            Reason.LAYOUT_UNKNOWN,
            f"{len(boxes)} pictures of tissue that overlap one another",
            expected="one picture, or several side by side",
            remedy="export the picture without its inset",
        )
    scales = {None if r.spacing_mm is None else _rounded(r.spacing_mm) for r in pictures}
    spacing = pictures[0].spacing_mm if len(scales) == 1 else None
    if spacing is None:
        _note(defects, Reason.NO_SCALE, "no scale that all pictures share; sizes in mm are n/a")
    mode = Mode.B if len(boxes) == 1 else Mode.DUAL
    return Layout(tuple(regions), mode, spacing, tuple(defects))


def _note(defects: list[Defect], reason: Reason, words: str) -> None:
    if all(d.reason is not reason for d in defects):
        defects.append(Defect(reason, words))


def _rounded(spacing: SpacingMm) -> SpacingMm:
    return float(f"{spacing[0]:.6g}"), float(f"{spacing[1]:.6g}")


def _overlap(a: Box, b: Box) -> bool:
    """Whether two boxes share more than a tenth of the smaller one."""
    width = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
    height = min(a.y + a.height, b.y + b.height) - max(a.y, b.y)
    smaller = min(a.width * a.height, b.width * b.height)
    return width > 0 and height > 0 and 10 * width * height > smaller


def _single(item: Values, tag: int) -> int | None:
    try:
        numbers = item.integers(tag)
    except ValueError:
        return None
    return numbers[0] if len(numbers) == 1 else None


def _region(item: Values, rows: int, cols: int, defects: list[Defect]) -> Region | None:
    """One item; None when it has no area inside the image.

    The corners are both inside the region. Writers that give the first pixel outside instead
    exceed the image by one; more than that means the numbers belong to another image size, so the
    box is clipped and its scale is not used.
    """
    corners = [_single(item, tag) for tag in (0x00186018, 0x0018601A, 0x0018601C, 0x0018601E)]
    x0, y0, x1, y1 = corners
    if x0 is None or y0 is None or x1 is None or y1 is None or x1 < x0 or y1 < y0:
        _note(defects, Reason.NO_SCALE, "a region without usable corners; not used")
        return None
    foreign = x0 < 0 or y0 < 0 or x1 > cols or y1 > rows
    x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, cols - 1), min(y1, rows - 1)
    if x1 < x0 or y1 < y0:
        _note(defects, Reason.NO_SCALE, "a region outside the image; not used")
        return None
    box = Box(x0, y0, x1 - x0 + 1, y1 - y0 + 1)
    data_type = DATA_TYPES.get(_single(item, 0x00186014) or 0, "unknown")
    spatial_format = SPATIAL_FORMATS.get(_single(item, 0x00186012) or 0, "unknown")
    spacing = None
    if foreign:
        _note(defects, Reason.NO_SCALE, "a region that leaves the image; clipped, scale not used")
    else:
        spacing = _region_spacing(item, box)
    if spacing is None and spatial_format == "2d" and data_type in _PICTURE_TYPES:
        _note(defects, Reason.NO_SCALE, "a picture without a usable scale; sizes in mm are n/a")
    return Region(box, spacing, data_type, spatial_format)


def _region_spacing(item: Values, box: Box) -> SpacingMm | None:
    """Millimetres per pixel when both axes are in centimetres, whatever their direction."""
    if _single(item, 0x00186024) != _CENTIMETRES or _single(item, 0x00186026) != _CENTIMETRES:
        return None
    try:
        across, down = item.floats(0x0018602C), item.floats(0x0018602E)
    except ValueError:
        return None
    if len(across) != 1 or len(down) != 1:
        return None
    spacing = checked_spacing((abs(down[0]) * 10.0, abs(across[0]) * 10.0))
    if spacing is None:
        return None
    extent = max(spacing[0] * box.height, spacing[1] * box.width)
    return spacing if extent <= _LARGEST_EXTENT_MM else None


def _pixel_spacing(values: Values, defects: list[Defect]) -> SpacingMm | None:
    """(0028,0030) of an image without regions."""
    spacing = None
    if 0x00280030 in values:
        try:
            numbers = values.floats(0x00280030)
        except ValueError:
            numbers = ()
        spacing = checked_spacing((numbers[0], numbers[1])) if len(numbers) == 2 else None
    if spacing is None:
        _note(defects, Reason.NO_SCALE, "no usable scale; sizes in mm are n/a")
    return spacing


def read_times(values: Values, frames: int) -> tuple[tuple[float, ...] | None, tuple[Defect, ...]]:
    """Seconds of each frame since the first, or None with the reason.

    Frame Time Vector (ms, each entry the step to the previous frame), then Frame Time (ms), then
    Cine Rate and Recommended Display Frame Rate (1/s). The first that is present decides: when it
    is unusable, a display rate is not taken for the missing truth. A display rate that stands alone
    is used with a warning.
    """
    if frames == 1:
        return None, ()
    try:
        steps, tag = _steps(values, frames)
    except ValueError:
        steps, tag = None, 0
    times = None if steps is None else tuple(accumulate(steps, initial=0.0))
    if times is None or not all(isfinite(t) for t in times):
        return None, (Defect(Reason.NO_TIMING, "no usable frame times; phases are n/a"),)
    if any(b <= a for a, b in zip(times, times[1:], strict=False)):
        return None, (Defect(Reason.NO_TIMING, "frame times that do not increase"),)
    if tag == _DISPLAY_RATE:
        words = "frame times from the recommended display rate: it may have been taken at another"
        return times, (Defect(Reason.NO_TIMING, words),)
    return times, ()


_DISPLAY_RATE = 0x00082144


def _steps(values: Values, frames: int) -> tuple[Sequence[float] | None, int]:
    """Seconds between neighbouring frames (frames - 1 of them), and the element that says so."""
    vector = values.floats(0x00181065)
    if vector:
        good = len(vector) == frames and all(isfinite(t) and t > 0 for t in vector[1:])
        return [t / 1000.0 for t in vector[1:]] if good else None, 0x00181065
    for tag, is_rate in ((0x00181063, False), (0x00180040, True), (_DISPLAY_RATE, True)):
        numbers = values.floats(tag)
        if not numbers:
            continue
        if len(numbers) != 1 or not isfinite(numbers[0]) or numbers[0] <= 0:
            return None, tag
        step = 1.0 / numbers[0] if is_rate else numbers[0] / 1000.0
        return [step] * (frames - 1), tag
    return None, 0
