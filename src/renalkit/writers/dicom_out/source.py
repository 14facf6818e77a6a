"""What is a result about: which ultrasound image, which of its frames, and does a mask fit it? Or
which slices of a CT series?

Sources: DICOM PS3.3 A.3 (CT Image IOD), A.6 and A.7 (Ultrasound Image IODs), C.12.1 (SOP Common).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import config
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from renalkit.domain.geometry import MaskRLE
from renalkit.errors import InputRefused, Reason
from renalkit.writers.dicom_uid import derived_uid

Mask = MaskRLE | npt.NDArray[np.bool_]
"""An outline as a filled mask (H,W) of the whole source frame."""

_STILL_CLASSES = frozenset(f"1.2.840.10008.5.1.4.1.1.{tail}" for tail in ("6", "6.1", "7"))
_CLIP_CLASSES = frozenset(
    f"1.2.840.10008.5.1.4.1.1.{tail}" for tail in ("3", "3.1", "7.1", "7.2", "7.3", "7.4")
)
_CT_CLASS = "1.2.840.10008.5.1.4.1.1.2"
_US_CLASSES = frozenset(f"1.2.840.10008.5.1.4.1.1.{tail}" for tail in ("3", "3.1", "6", "6.1"))
# Whatever else the file says; JPEG 2000 and its kin may lose or not, so the file's word counts.
_LOSSY_SYNTAXES = frozenset(
    f"1.2.840.10008.1.2.4.{tail}" for tail in (50, 51, 81, *range(100, 109))
)
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")


@dataclass(frozen=True, slots=True)
class Source:
    """The ultrasound image or cine, or CT slice, that a result is about; `header` is what was read
    of it."""

    header: Dataset
    sop_class: str
    uid: str
    series_uid: str
    study_uid: str
    rows: int
    cols: int
    frames: int
    is_clip: bool

    def check_frame(self, frame: int) -> int:
        """The frame if the source has it (from 0)."""
        if not 0 <= frame < self.frames:
            raise InputRefused(
                Reason.BAD_FRAMES,
                f"a result for frame {frame}",
                expected=f"0 to {self.frames - 1}, as the source has {self.frames}",
                remedy="count frames from 0",
            )
        return int(frame)

    def frame_numbers(self, frames: Sequence[int]) -> list[int] | None:
        """Frames (from 0) as they are referred to: from 1, not at all for a still."""
        numbers = [self.check_frame(frame) + 1 for frame in frames]
        return numbers if self.is_clip and numbers else None

    def reference(self, frames: Sequence[int] = ()) -> Dataset:
        """An item that points to the source, or to some of its frames (from 0)."""
        item = Dataset()
        put(item, "ReferencedSOPClassUID", self.sop_class)
        put(item, "ReferencedSOPInstanceUID", self.uid)
        if numbers := self.frame_numbers(frames):
            item.ReferencedFrameNumber = numbers if len(numbers) > 1 else numbers[0]
        return item


def checked_source(header: Dataset) -> Source:
    """The facts of a header that can be referred to.

    Raises:
        InputRefused: NOT_ULTRASOUND, also for volumes and for objects without pixels; BAD_UID;
            BAD_PIXEL_DESCRIPTION; BAD_FRAMES.
    """
    sop_class = str(header.get("SOPClassUID", ""))
    known = sop_class in _STILL_CLASSES | _CLIP_CLASSES
    if not known or (sop_class not in _US_CLASSES and header.get("Modality") != "US"):
        raise InputRefused(
            Reason.NOT_ULTRASOUND,
            "a source that is no ultrasound image",
            expected="a still or a cine of modality US",
            remedy="give the file the result was made from",
        )
    return _facts(header, sop_class)


def checked_slices(headers: Sequence[Dataset]) -> tuple[Source, ...]:
    """The facts of the slices of one CT series, in their order.

    Raises:
        InputRefused: NOT_CT, also for multi-frame CT; BAD_UID; BAD_PIXEL_DESCRIPTION; BAD_GEOMETRY,
            slices of several series or sizes, or without a place.
    """
    slices: list[Source] = []
    for header in headers:
        if header.get("SOPClassUID") != _CT_CLASS:
            raise InputRefused(
                Reason.NOT_CT,
                "a source that is no CT slice",
                expected="the slices of one CT series",
                remedy="give the files the result was made from",
            )
        one = _facts(header, _CT_CLASS)
        needed = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
        missing = [name for name in needed if not header.get(name)]
        first = slices[0] if slices else one
        places = {(s.study_uid, s.series_uid, s.rows, s.cols) for s in (first, one)}
        if missing or len(places) > 1:
            raise InputRefused(
                Reason.BAD_GEOMETRY,
                f"slices without {missing[0]}" if missing else "slices of several series or sizes",
                expected="the slices of one CT series",
                remedy="give the files the result was made from",
            )
        slices.append(one)
    if not slices:
        raise ValueError("no slice")
    return tuple(slices)


def _facts(header: Dataset, sop_class: str) -> Source:
    study, series, instance = (
        _checked_uid(str(header.get(keyword, "")), keyword)
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    )
    rows, cols = (_whole(header.get(name)) for name in ("Rows", "Columns"))
    if rows < 1 or cols < 1:
        raise InputRefused(
            Reason.BAD_PIXEL_DESCRIPTION,
            "a source without rows or columns",
            expected="both at least 1",
            remedy="give the file the result was made from",
        )
    frames = _whole(header.get("NumberOfFrames") or 1)
    if frames < 1:
        raise InputRefused(
            Reason.BAD_FRAMES,
            "a source without a usable number of frames",
            expected="at least 1",
            remedy="export the file again from the source system",
        )
    # Frames in an image of a class for stills break the standard, and occur.
    is_clip = sop_class in _CLIP_CLASSES or frames > 1
    return Source(header, sop_class, instance, series, study, rows, cols, frames, is_clip)


def _whole(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        return 0


def _checked_uid(text: str, keyword: str) -> str:
    if len(text) > 64 or not _UID.fullmatch(text):
        raise InputRefused(
            Reason.BAD_UID,
            f"a source whose {keyword} is missing or of another form",
            expected="digits and dots, at most 64",
            remedy="export the file again from the source system",
        )
    return text


def put(data: Dataset, keyword: str, value: Any) -> None:
    """Set an element to a value of the source, also where that breaks the standard's form."""
    vr = dictionary_VR(keyword)
    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword
    data[tag] = DataElement(tag, vr, value, validation_mode=config.IGNORE)


def compression(source: Source) -> dict[str, Any]:
    """The lossy-compression elements: what was lost once stays lost (PS3.3 C.7.6.1.1.5)."""
    header = source.header
    said = header.get("LossyImageCompression")
    meta = getattr(header, "file_meta", Dataset())
    if said != "01" and str(meta.get("TransferSyntaxUID", "")) not in _LOSSY_SYNTAXES:
        return {"LossyImageCompression": "00"}
    more = ("LossyImageCompressionRatio", "LossyImageCompressionMethod")
    kept = {keyword: header[keyword].value for keyword in more if header.get(keyword)}
    return {"LossyImageCompression": "01", **kept}


def full_mask(mask: Mask, source: Source, where: str) -> npt.NDArray[np.bool_]:
    """The mask (H,W), checked against the source.

    Raises:
        InputRefused: MASK_MISMATCH, EMPTY_MASK.
    """
    array = mask.decode() if isinstance(mask, MaskRLE) else np.asarray(mask)
    if array.dtype != np.bool_:
        raise InputRefused(
            Reason.MASK_MISMATCH,
            f"a mask of {array.dtype}",
            where=where,
            expected="true and false",
            remedy="threshold probabilities first",
        )
    if array.shape != (source.rows, source.cols):
        raise InputRefused(
            Reason.MASK_MISMATCH,
            f"a mask of {' x '.join(map(str, array.shape))}",
            where=where,
            expected=f"{source.rows} x {source.cols}, the whole source frame",
            remedy="put the mask of a pane or crop back into its frame first",
        )
    if not array.any():
        raise InputRefused(
            Reason.EMPTY_MASK,
            "a mask without a pixel",
            where=where,
            expected="at least one pixel",
            remedy="leave out frames on which nothing is outlined",
        )
    return array


def tracking_uid(source: Source, label: str) -> str:
    """The UID by which a structure of a study is known in all results on it.

    What is found on one CT series is numbered for it alone.
    """
    whole = source.series_uid if source.sop_class == _CT_CLASS else source.study_uid
    return str(derived_uid("tracking", whole, label))
