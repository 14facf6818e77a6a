"""Headers of ultrasound files as tests of results need them: small, whole, and full of secrets."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
)

from renalkit.writers.dicom_out.general import ResultLabel

ROWS, COLS, FRAMES = 9, 13, 6  # neither a frame nor all of them fill whole bytes
WRITTEN = datetime(2026, 3, 4, 23, 30, 5, 250000, tzinfo=UTC)
LABEL = ResultLabel("Renal masses", 901, WRITTEN, repeatable=True)
SECRETS = {
    "InstitutionName": "SECRETHOSPITAL",
    "OperatorsName": "SECRETNURSE^A",
    "StudyDescription": "SECRETSTUDY",
    "SeriesDescription": "SECRETSERIES",
    "PatientComments": "SECRETCOMMENT",
    "PatientAddress": "SECRETSTREET",
    "StationName": "SECRETSTATION",
    "Manufacturer": "SECRETMAKER",
    "DeviceSerialNumber": "SECRETSERIAL",
}


def source(still: bool = False, lossy: bool = False, **changes: Any) -> Dataset:
    """A header; `changes` are elements by keyword, None removes one."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = JPEGBaseline8Bit if lossy else ExplicitVRLittleEndian
    data.SOPClassUID = UltrasoundImageStorage if still else UltrasoundMultiFrameImageStorage
    data.SOPInstanceUID, data.SeriesInstanceUID, data.StudyInstanceUID = (
        "2.25.3",
        "2.25.2",
        "2.25.1",
    )
    data.Modality = "US"
    data.PatientName, data.PatientID = "Doe^Jane", "P-17"
    data.PatientBirthDate, data.PatientSex = "19610203", "F"
    data.StudyDate, data.StudyTime = "20260304", "101500"
    data.StudyID, data.AccessionNumber, data.ReferringPhysicianName = "77", "ACC9", "Roe^R"
    data.Rows, data.Columns = ROWS, COLS
    if not still:
        data.NumberOfFrames = FRAMES
    for keyword, value in (SECRETS | changes).items():
        if value is None:
            del data[keyword]
        else:
            setattr(data, keyword, value)
    private = data.private_block(0x0029, "SECRETBLOCK", create=True)
    private.add_new(1, "LO", "SECRETPRIVATE")
    return data


def noise(seed: int, share: float = 0.5) -> npt.NDArray[np.bool_]:
    mask = np.random.default_rng(seed).random((ROWS, COLS)) < share
    mask[seed % ROWS, 0] = True
    return mask


def block(rows: slice = slice(2, 6), cols: slice = slice(3, 9)) -> npt.NDArray[np.bool_]:
    mask = np.zeros((ROWS, COLS), np.bool_)
    mask[rows, cols] = True
    return mask
