"""What does one CT slice, a file or a frame of one, say of its place, its values and its scan?

Positions and directions are LPS (PS3.3 C.7.6.2). Values become Hounsfield units by the slice's own
rescale slope and intercept (C.11.1): int16, rounded where the slope is fractional, never below
-1024, which is what padding outside the scanned circle becomes. Decoding runs in the decode
worker's child (task "dicom-ct"); this process decodes only bytes that the child has decoded before.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from renalkit.domain.study import Covariate, Defect, Scanner
from renalkit.domain.volume import Phase
from renalkit.errors import InputRefused, Reason
from renalkit.readers.contract import Limits, ReadOptions
from renalkit.readers.dicom_identity import (
    Identity,
    check_charset,
    checked_uid,
    header_patient,
    read_person,
    read_scanner,
)
from renalkit.readers.dicom_pixels import (
    FramePlace,
    PixelDescription,
    decode_payload,
    describe,
    frame_places,
    read_payload,
)
from renalkit.readers.dicom_prescan import FileSource, Prescan, Values, prescan, prescan_source
from renalkit.store.files import sha256_file

Hu = npt.NDArray[np.int16]
Vector = tuple[float, float, float]

_CT_CLASS = "1.2.840.10008.5.1.4.1.1.2"
_ENHANCED_CLASSES = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
_CLASSES = (_CT_CLASS, *_ENHANCED_CLASSES)
_LEAST_HU = -1024
_EXPORT_AGAIN = "export the series again from the source system"
_PHASES: Mapping[Phase, re.Pattern[str]] = {
    Phase.NON_CONTRAST: re.compile(
        r"non[- _]?contrast|un[- ]?enhanced|without|w/o|nativ|plain|pre[- _]?contrast|\bnc\b"
    ),
    Phase.CORTICOMEDULLARY: re.compile(r"cortico|arterial|\bart\b|\bcmp?\b"),
    Phase.NEPHROGRAPHIC: re.compile(r"nephro|portal|(?<!arterio)venous|\bpv\b|\bven\b"),
    Phase.EXCRETORY: re.compile(r"excret|delay|pyelo|urograph|\blate\b"),
}


class NotASlice(Exception):
    """The file is none this reader is for; it is skipped."""

    def __init__(self, reason: Reason, words: str) -> None:
        super().__init__(words)
        self.defect = Defect(reason, words)


@dataclass(frozen=True, slots=True)
class CtSlice:
    """One slice as its header describes it; pixels untouched.

    frame: of a multi-frame object, from 0; None for a file of its own. row, column: unit directions
    of increasing column and of increasing row. position: centre of the first pixel, mm. spacing_mm:
    (between rows, between columns). number: InstanceNumber, None where missing; of a frame its own,
    from 1. scan: what may tell scans in one series apart, by name.
    """

    path: Path = field(repr=False)
    file_sha256: str
    identity: Identity
    series_uid: str = field(repr=False)
    frame_of_reference: str = field(repr=False)
    scanner: Scanner
    person: Mapping[str, Covariate]
    about: PixelDescription
    slope: float
    intercept: float
    row: Vector
    column: Vector
    position: Vector
    spacing_mm: tuple[float, float]
    number: int | None
    scan: Mapping[str, str] = field(repr=False)
    phase: Phase | None
    defects: tuple[Defect, ...] = ()
    frame: int | None = None

    @property
    def normal(self) -> npt.NDArray[np.float64]:
        return np.cross(self.row, self.column)


def read_ct_slices(
    path: Path, options: ReadOptions, patient: str | None = None
) -> tuple[CtSlice, ...]:
    """Read and judge the header: one slice, or one per frame of a multi-frame object. patient: who
    it is of, when it is known better than the file.

    Raises:
        NotASlice: a localizer, a report or the like.
        InputRefused: what the pre-scan and the pixel description refuse; NOT_CT, NOT_HU,
            BAD_RESCALE, BAD_GEOMETRY, NO_SCALE, NO_PATIENT, BAD_UID, BAD_FRAMES.
    """
    with FileSource(path) as source:
        scan = prescan_source(source, options.limits, allow_headerless=options.allow_headerless)
        _check_kind(scan)
        about = _describe(scan, options.limits)
        _, irregular = frame_places(scan, about, scan.inflated or source)
    values = scan.values
    defects = [*scan.findings, *irregular]
    uids = [
        checked_uid(values, tag, name, defects)
        for tag, name in ((0x0020000D, "study"), (0x00080018, "instance"), (0x0020000E, "series"))
    ]
    identity = Identity(
        header_patient(values) if patient is None else patient,
        *uids[:2],
        birth_and_sex=(values.raw(0x00100030).strip(), values.raw(0x00100040).strip()),
    )
    check_charset(values, defects)
    person = read_person(values, defects)
    whole = (path, sha256_file(path), identity, uids[2], values.text(0x00200052))
    scanner, phase = read_scanner(values), phase_of_words(*map(values.text, _DESCRIPTIONS))
    many = is_multi_frame(scan)
    own = [values]
    if many:
        # pydicom takes half a second to import; single slices do without it.
        from renalkit.readers.dicom_ct_frames import frame_values

        own = frame_values(path, about.frames, allow_headerless=options.allow_headerless)
    return tuple(
        CtSlice(
            *(*whole, scanner, person, about, *_rescale(one), *_placed(one), _spacing(one)),
            number=frame + 1 if many else _whole(values, 0x00200013),
            scan={name: one.raw(tag).hex() for name, tag in _SCAN_TAGS.items()},
            phase=phase,
            defects=tuple(defects),
            frame=frame if many else None,
        )
        for frame, one in enumerate(own)
    )


_DESCRIPTIONS = (0x0008103E, 0x00181030)
_SCAN_TAGS = {
    "acquisition number": 0x00200012,
    "temporal position": 0x00200100,
    "acquisition time": 0x00080032,
    "convolution kernel": 0x00181210,
    "image type": 0x00080008,
}


def phase_of_words(*texts: str) -> Phase | None:
    """The one contrast phase that descriptions name; None when they name none or several.

    >>> phase_of_words("Abdomen Portal-Venous 3.0"), phase_of_words("ART+VEN"), phase_of_words("")
    (<Phase.NEPHROGRAPHIC: 'nephrographic'>, None, None)
    """
    said = " ".join(texts).casefold()
    found = [phase for phase, words in _PHASES.items() if words.search(said)]
    return found[0] if len(found) == 1 else None


def is_ct(path: Path) -> bool:
    """Whether a DICOM file says it is CT; damaged headers do not."""
    try:
        return prescan(path, Limits(), allow_headerless=True).values.text(0x00080060) == "CT"
    except (InputRefused, OSError):
        return False


def _check_kind(scan: Prescan) -> None:
    values = scan.values
    sop_class = values.text(0x00080016) or values.text(0x00020002)
    kinds = values.text(0x00080008).upper().split("\\")
    if sop_class == "1.2.840.10008.1.3.10":
        raise NotASlice(Reason.DICOMDIR_IGNORED, "a directory file; the folder itself is walked")
    if scan.pixel_data is None and sop_class not in _CLASSES:
        raise NotASlice(Reason.NOT_AN_IMAGE_OBJECT, "a DICOM object that is not an image")
    if values.text(0x00080060) == "CT" and sop_class.startswith("1.2.840.10008.5.1.4.1.1.7"):
        raise NotASlice(Reason.NOT_AN_IMAGE_OBJECT, "a captured page, such as a dose report")
    if sop_class not in _CLASSES or values.text(0x00080060) not in ("CT", ""):
        raise InputRefused(
            Reason.NOT_CT,
            "a DICOM image that is not CT",
            expected="slices of CT series",
            remedy="import it by itself",
        )
    if "LOCALIZER" in kinds:
        raise NotASlice(Reason.LOCALIZER, "a localizer (scout view)")


def is_multi_frame(scan: Prescan) -> bool:
    """Whether the object keeps its slices as frames (enhanced or legacy converted CT)."""
    return (scan.values.text(0x00080016) or scan.values.text(0x00020002)) in _ENHANCED_CLASSES


def _describe(scan: Prescan, limits: Limits) -> PixelDescription:
    """The pixel description. MONOCHROME1 turns the display round, not the values."""
    about = describe(scan, limits)
    several = about.frames != 1 and not is_multi_frame(scan)
    if about.samples != 1 or about.palette is not None or several:
        raise InputRefused(
            Reason.BAD_PIXEL_DESCRIPTION,
            f"a CT slice of {about.samples} samples per pixel and {about.frames} frames",
            expected="one grey picture",
            remedy=_EXPORT_AGAIN,
        )
    return replace(about, photometric="MONOCHROME2")


def _geometry(found: str, expected: str, reason: Reason = Reason.BAD_GEOMETRY) -> InputRefused:
    return InputRefused(reason, found, expected=expected, remedy=_EXPORT_AGAIN)


def _numbers(values: Values, tag: int, count: int) -> tuple[float, ...] | None:
    try:
        found = values.floats(tag)
    except ValueError:
        return None
    return found if len(found) == count and all(isfinite(v) for v in found) else None


def _whole(values: Values, tag: int) -> int | None:
    found = _numbers(values, tag, 1)
    return int(found[0]) if found is not None and found[0] == int(found[0]) else None


def _placed(values: Values) -> tuple[Vector, Vector, Vector]:
    """Row and column directions, and position of the first pixel."""
    directions, position = _numbers(values, 0x00200037, 6), _numbers(values, 0x00200032, 3)
    if directions is None or position is None:
        raise _geometry(
            "no usable image position or orientation", "both, as every CT slice has them"
        )
    row, column = np.asarray(directions[:3]), np.asarray(directions[3:])
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if abs(lengths[0] - 1) > 0.01 or abs(lengths[1] - 1) > 0.01 or abs(row @ column) > 0.01:
        raise _geometry(
            f"row and column directions of lengths {lengths[0]:.3f} and {lengths[1]:.3f} whose "
            f"product is {row @ column:.3f}",
            "two perpendicular unit directions",
        )
    row = row / lengths[0]
    column = column - (column @ row) * row
    column = column / np.linalg.norm(column)
    if max(abs(v) for v in position) > 10_000:
        raise _geometry("a position more than 10 m away", "millimetres from the table's zero")
    (a, b, c), (d, e, f), (g, h, i) = row.tolist(), column.tolist(), position
    return (a, b, c), (d, e, f), (g, h, i)


def _spacing(values: Values) -> tuple[float, float]:
    found = _numbers(values, 0x00280030, 2)
    if found is None or min(found) <= 0:
        raise _geometry("no usable pixel spacing", "two positive lengths in mm", Reason.NO_SCALE)
    return found[0], found[1]


def _rescale(values: Values) -> tuple[float, float]:
    slope, intercept = (_numbers(values, tag, 1) for tag in (0x00281053, 0x00281052))
    kind = values.text(0x00281054).upper()
    if kind not in ("", "HU", "US"):
        raise InputRefused(
            Reason.NOT_HU,
            "a rescale type other than HU",
            expected="Hounsfield units",
            remedy="export the original CT series",
        )
    if slope is None or intercept is None or not 1e-4 <= abs(slope[0]) <= 1e3:
        raise InputRefused(
            Reason.BAD_RESCALE,
            "rescale slope or intercept missing, not finite, zero or beyond reason",
            expected="the slope and intercept that give Hounsfield units",
            remedy=_EXPORT_AGAIN,
        )
    return slope[0], intercept[0]


def hounsfield(stored: npt.NDArray[Any], slope: float, intercept: float) -> Hu:
    """Stored values (H,W) as HU, int16, at least -1024."""
    if slope == 1 and intercept == int(intercept):
        hu = stored.astype(np.int32) + int(intercept)
    else:
        hu = np.rint(stored.astype(np.float64) * slope + intercept)
    return np.clip(hu, _LEAST_HU, 32767).astype(np.int16)


def payload_of(one: CtSlice, options: ReadOptions) -> bytes:
    """The bytes of a slice's pixels as they lie in the file. InputRefused as `prescan`."""
    return _payload(one.path, one.frame or 0, options.limits, options.allow_headerless)[0]


def _payload(
    path: Path, frame: int, limits: Limits, headerless: bool
) -> tuple[bytes, PixelDescription, Prescan]:
    facts = path.stat()
    stamp = (facts.st_mtime_ns, facts.st_size)
    scan, about, places = _scanned(path, stamp, limits, headerless)
    if frame >= len(places):
        raise InputRefused(Reason.CHANGED_DURING_READ, "a file that has fewer frames than before")
    with FileSource(path) as file:
        return read_payload(scan.inflated or file, places[frame]), about, scan


@lru_cache(maxsize=1)
def _scanned(
    path: Path, stamp: tuple[int, int], limits: Limits, headerless: bool
) -> tuple[Prescan, PixelDescription, list[FramePlace]]:
    """What the pre-scan finds, kept for the next frame of the same unchanged file."""
    with FileSource(path) as file:
        scan = prescan_source(file, limits, allow_headerless=headerless)
        about = _describe(scan, limits)
        places, _ = frame_places(scan, about, scan.inflated or file)
    return scan, about, places


def decode_known(found: CtSlice, payload_sha256: str, options: ReadOptions) -> Hu:
    """HU (H,W) of a slice that the worker has decoded before.

    Raises:
        InputRefused: CHANGED_DURING_READ, the file holds other pixels now.
    """
    payload = payload_of(found, options)
    if hashlib.sha256(payload).hexdigest() != payload_sha256:
        raise InputRefused(
            Reason.CHANGED_DURING_READ,
            "a file that changed since it was first read",
            remedy="import it again when nothing writes to it",
        )
    return hounsfield(decode_payload(payload, found.about), found.slope, found.intercept)


def decode_ct_slice(path: Path, options: Mapping[str, Any]) -> tuple[Hu, dict[str, Any]]:
    """The decode worker's task "dicom-ct": HU (H,W) of one slice.

    options: `limits` (asdict of Limits), `allow_headerless`; of multi-frame objects `frame` and
    its `rescale` (slope, intercept). info: `payload_sha256`.
    """
    limits = Limits(**options.get("limits", {}))
    frame, headerless = int(options.get("frame", 0)), bool(options.get("allow_headerless"))
    payload, about, scan = _payload(path, frame, limits, headerless)
    slope, intercept = options["rescale"] if "rescale" in options else _rescale(scan.values)
    hu = hounsfield(decode_payload(payload, about), slope, intercept)
    return hu, {"payload_sha256": hashlib.sha256(payload).hexdigest()}
