"""What do all results have in common: whose they are, what made them, how they are told apart?

Sources: DICOM PS3.3 C.7.1.1 (Patient), C.7.2.1 (General Study), C.7.3.1 (General Series), C.7.5.2
(Enhanced General Equipment), C.12.1 (SOP Common); PS3.5 B.2 (UIDs made of 128-bit numbers).
"""

from __future__ import annotations

import hashlib
import re
import uuid
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.multival import MultiValue
from pydicom.uid import UID, ExplicitVRLittleEndian

from renalkit import __version__
from renalkit.errors import InputRefused, Reason
from renalkit.store.files import write_with
from renalkit.writers.dicom_out.codes import (
    checked_text,
    private_scheme_used,
    scheme_identification,
)
from renalkit.writers.dicom_out.source import Source, put
from renalkit.writers.dicom_uid import derived_uid

WARNING = "research use only, not for diagnosis"

_ZONE = re.compile(r"([+-])(0\d|1[0-4])([0-5]\d)")

# Type 2 elements are written even when the source has none.
_REQUIRED = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
)
_OPTIONAL = (
    *("IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence", "PatientIdentityRemoved"),
    *("DeidentificationMethod", "DeidentificationMethodCodeSequence"),
)


@dataclass(frozen=True, slots=True)
class ResultLabel:
    """What the series of a result is called.

    description: 1 to 26 characters; the warning is added. series_number: 1 or more, one that the
    study does not use yet. written: when, with a time zone. repeatable: derive all UIDs from
    source, label and content, so that the same call gives the same file; else they are fresh.
    """

    description: str
    series_number: int
    written: datetime
    instance_number: int = 1
    repeatable: bool = False

    def __post_init__(self) -> None:
        checked_text(self.description, "description of a series", 62 - len(WARNING))
        if self.written.tzinfo is None:
            raise ValueError("the time of writing needs a time zone")
        for number in (self.series_number, self.instance_number):
            if not 1 <= number < 2**31:
                raise ValueError(f"number {number}: series and instances count from 1")

    @property
    def series(self) -> str:
        """The description with the warning."""
        return f"{self.description}: {WARNING}"


def general(source: Source, label: ResultLabel, sop_class: UID, modality: str) -> Dataset:
    """Patient, study, series, equipment and SOP modules of a result without its instance UID."""
    data = Dataset()
    data.SpecificCharacterSet = "ISO_IR 192"
    data.SOPClassUID = sop_class
    put(data, "StudyInstanceUID", source.study_uid)
    for keyword in _REQUIRED:
        put(data, keyword, _copied(source.header, keyword))
    for keyword in _OPTIONAL:
        if keyword in source.header:
            put(data, keyword, _copied(source.header, keyword))
    if match := _ZONE.fullmatch(str(source.header.get("TimezoneOffsetFromUTC", ""))):
        data.TimezoneOffsetFromUTC = match[0]
    date, time = _local(label.written, match)
    data.SeriesDate = data.ContentDate = data.InstanceCreationDate = date
    data.SeriesTime = data.ContentTime = data.InstanceCreationTime = time
    data.Modality = modality
    instant = label.written.astimezone(UTC).isoformat()
    same = (source.study_uid, modality, label.series_number, label.series, instant)
    data.SeriesInstanceUID = derived_uid("series", *same) if label.repeatable else _fresh_uid()
    data.SeriesNumber, data.InstanceNumber = label.series_number, label.instance_number
    data.SeriesDescription = label.series
    data.Manufacturer = data.ManufacturerModelName = "renalkit"
    data.DeviceSerialNumber = data.SoftwareVersions = __version__
    return data


def _copied(header: Dataset, keyword: str) -> Any:
    """The source's value as text that can be written in UTF-8; sequences as they are."""
    value = header.get(keyword)
    if value is None:
        return None
    if dictionary_VR(keyword) == "SQ":
        items = deepcopy(value)
        for item in items:
            list(item.iterall())  # decoded now: raw bytes would be written as they are
        return items
    text = "\\".join(map(str, value)) if isinstance(value, MultiValue) else str(value)
    if "\ufffd" in text or any("\ud800" <= c <= "\udfff" for c in text):
        raise InputRefused(
            Reason.CHARSET,
            f"a source whose {keyword} is not in its declared character set",
            expected="text that can be carried over unchanged",
            remedy="correct the character set of the source, or export the file again",
        )
    return text


def _local(written: datetime, offset: re.Match[str] | None) -> tuple[str, str]:
    """Date and time in the zone the source declares for all its times, in UTC where it does not."""
    zone = UTC
    if offset is not None:
        apart = timedelta(hours=int(offset[2]), minutes=int(offset[3]))
        zone = timezone(-apart if offset[1] == "-" else apart)
    at = written.astimezone(zone)
    return at.strftime("%Y%m%d"), at.strftime("%H%M%S.%f")


def _fresh_uid() -> UID:
    return UID(f"2.25.{uuid.uuid4().int}")


def finished(data: Dataset, label: ResultLabel, source: Source) -> Dataset:
    """The data set with its instance UID, file meta information and the owner of private codes."""
    if private_scheme_used([data]):
        data.CodingSchemeIdentificationSequence = [scheme_identification()]
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    uid = _fresh_uid()
    if label.repeatable:
        data.SOPInstanceUID = "2.25.0"
        uid = derived_uid("instance", source.uid, _digest(data))
    data.SOPInstanceUID = uid
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = uid
    return data


def _digest(data: Dataset) -> str:
    buffer = BytesIO()
    dcmwrite(buffer, data, implicit_vr=False, little_endian=True)
    return hashlib.sha256(buffer.getbuffer()).hexdigest()


def save(data: Dataset, path: Path) -> None:
    """Write a result; the file appears when it is whole.

    Raises:
        StoreError: the disk refused.
    """
    write_with(path, lambda temporary: dcmwrite(temporary, data, enforce_file_format=True))
