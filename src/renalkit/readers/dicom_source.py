"""Which part of the header of an ultrasound file, or of a CT slice, does a result on it need?

Results that go back to the reading room must name their patient, study and source image. The file
is walked by the pre-scan first, so a hostile one is refused before any library sees it; then only
the named elements are read. Pixels stay on disk.
"""

from __future__ import annotations

import struct
import warnings
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from renalkit.errors import InputRefused, Reason
from renalkit.readers.contract import ReadOptions
from renalkit.readers.dicom_prescan import prescan

_NEEDED = (
    *("SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "Modality"),
    *("StudyInstanceUID", "SeriesInstanceUID", "StudyDate", "StudyTime", "StudyID"),
    *("AccessionNumber", "ReferringPhysicianName", "TimezoneOffsetFromUTC"),
    *("PatientName", "PatientID", "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence"),
    *("PatientBirthDate", "PatientSex", "PatientIdentityRemoved", "DeidentificationMethod"),
    *("DeidentificationMethodCodeSequence", "Rows", "Columns", "NumberOfFrames"),
    *("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"),
)

_PLACE = (
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"),
    "FrameOfReferenceUID",
)

UNREADABLE = (
    *(InvalidDicomError, ValueError, LookupError, TypeError, AttributeError),
    *(NotImplementedError, EOFError, struct.error),
)
"""What pydicom raises on values it cannot make sense of."""


def read_us_header(path: Path, options: ReadOptions | None = None) -> Dataset:
    """Patient, study, instance and size of a DICOM file; values as they stand there.

    Elements that stand behind the pixels, against the standard's order, are not found.

    Raises:
        InputRefused: what `prescan` refuses; NOT_DICOM, values that cannot be read as declared.
    """
    return _read(path, _NEEDED, options)


def read_ct_header(path: Path, options: ReadOptions | None = None) -> Dataset:
    """The same of a CT slice, with its place in the patient."""
    return _read(path, (*_NEEDED, *_PLACE), options)


def _read(path: Path, names: tuple[str, ...], options: ReadOptions | None) -> Dataset:
    options = options or ReadOptions()
    prescan(path, options.limits, allow_headerless=options.allow_headerless)
    with warnings.catch_warnings():
        # Values that break the standard are carried over as they are, not repaired here.
        warnings.simplefilter("ignore", UserWarning)
        try:
            header = dcmread(
                path,
                stop_before_pixels=True,
                force=options.allow_headerless,
                specific_tags=list(names),
            )
            for _ in header.iterall():
                pass  # decodes every value now, not when it is used
        except UNREADABLE as error:
            raise InputRefused(
                Reason.NOT_DICOM,
                f"a header that cannot be read ({type(error).__name__})",
                where=path.name,
                remedy="export the file again from the source system",
            ) from error
    return header
