"""How does a simulated examination become the DICOM files a scanner would send?

Ultrasound clips are multi-frame images with their ultrasound regions, physical spacing and frame
times; CT phases are series of single slices with their geometry. Frames are taken one after the
other, so memory does not grow with the clip. Patient names and identifiers say "PHANTOM"; a
comment says that the picture is simulated. The same arguments give the same bytes.

Sources: DICOM PS3.3 A.7 (Ultrasound Multi-frame Image IOD), C.8.5.5 (US Region Calibration),
C.7.6.5 (Cine), A.3 (CT Image IOD); PS3.5 A.4 (encapsulation).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import imagecodecs
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
)

from renalkit.domain.geometry import Region
from renalkit.phantom.ct.geometry import ScannedSlice
from renalkit.store.files import replacing_folder, write_with
from renalkit.writers.dicom_uid import derived_uid

_COMMENT = "Simulated image. Not a patient. Research use only."
_SOFTWARE = "renalkit phantom"
_DATA_TYPES = {"tissue": 0x0001, "colour-flow": 0x0002}


@dataclass(frozen=True, slots=True)
class PhantomIdentity:
    """Whose examination this claims to be.

    key: text from which all UIDs of the study are derived, unique per study. patient_id and
    patient_name are written as they are. sex: M, F or O. date: YYYYMMDD. time: HHMMSS.
    """

    key: str
    patient_id: str
    patient_name: str
    sex: str
    age_years: int
    date: str
    time: str
    institution: str
    manufacturer: str
    model: str
    description: str


@dataclass(frozen=True, slots=True)
class FrameTimes:
    """When frames were taken: all `step_ms` apart, or each after its own pause.

    vector_ms: pause before each frame, the first 0; None for an even clip.
    """

    step_ms: float
    vector_ms: tuple[float, ...] | None = None


def write_us_clip(
    path: Path,
    frames: Iterable[npt.NDArray[np.uint8]],
    n_frames: int,
    identity: PhantomIdentity,
    *,
    shape: tuple[int, int],
    regions: Sequence[Region],
    times: FrameTimes | None,
    laterality: str,
    series: int = 1,
    instance: int = 1,
    contrast: str | None = None,
    jpeg_quality: int | None = 90,
) -> None:
    """Write one ultrasound clip, or a still.

    Args:
        path: of the file; appears only when it is whole.
        frames: n_frames pictures (H,W,3) uint8 RGB, taken one at a time.
        shape: (H,W). regions: at least one; spacing in mm per pixel. laterality: L or R.
        times: of the clip's frames; None for a still, which has one frame.
        contrast: agent, or None without one.
        jpeg_quality: 1..100 for JPEG baseline (4:2:2), None for uncompressed RGB.

    Raises:
        ValueError: the frames are not what was announced.
        StoreError: the disk refused.
    """
    rows, cols = shape
    syntax = ExplicitVRLittleEndian if jpeg_quality is None else JPEGBaseline8Bit
    kind = UltrasoundImageStorage if times is None else UltrasoundMultiFrameImageStorage
    data = _general(identity, kind, syntax, (series, instance))
    data.Modality, data.BodyPartExamined, data.Laterality = "US", "KIDNEY", laterality
    data.ImageType = ["ORIGINAL", "PRIMARY", "ABDOMINAL", "0001"]
    data.SequenceOfUltrasoundRegions = [_region(region) for region in regions]
    if times is not None:
        _time(data, n_frames, times)
    if contrast is not None:
        data.ContrastBolusAgent = contrast
    data.PatientOrientation = []
    data.SamplesPerPixel, data.PlanarConfiguration = 3, 0
    data.PhotometricInterpretation = "RGB" if jpeg_quality is None else "YBR_FULL_422"
    data.Rows, data.Columns = rows, cols
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    data.LossyImageCompression = "00" if jpeg_quality is None else "01"
    if jpeg_quality is not None:
        data.LossyImageCompressionMethod = "ISO_10918_1"

    def fill(temporary: Path) -> None:
        dcmwrite(temporary, data, enforce_file_format=True)
        with temporary.open("ab") as file:
            if jpeg_quality is None:
                _append_raw(file, frames, n_frames, shape)
            else:
                _append_jpeg(file, frames, n_frames, shape, jpeg_quality)

    write_with(path, fill)


def write_ct_series(
    folder: Path,
    volume: npt.NDArray[np.int16],
    identity: PhantomIdentity,
    *,
    spacing_mm: tuple[float, float, float],
    origin_mm: tuple[float, float, float],
    series: int,
    description: str,
    contrast: str | None,
    reverse: bool = False,
    tilt_deg: float = 0.0,
    kept: Sequence[int] | None = None,
) -> None:
    """Write one axial CT series, a file per slice, named by slice number.

    Args:
        folder: appears only when it is whole; one file per slice.
        volume: (Z,Y,X) Hounsfield units, x to the patient's left, y to the back, z to the head.
        spacing_mm: (z, y, x). origin_mm: (x, y, z) centre of the first voxel, LPS.
        contrast: agent, or None for a plain scan.
        reverse: number the slices from the head down.
        tilt_deg: of the gantry the volume was scanned with (see `phantom.faults.tilted`).
        kept: indices of the slices that are written, all by default; numbers stay as they were.

    Raises:
        StoreError: the disk refused.
    """
    slices, rows, _ = volume.shape
    step_z, step_y, _ = spacing_mm
    angle = math.radians(tilt_deg)
    along_y, along_z = math.cos(angle), math.sin(angle)
    half_mm = (rows - 1) / 2 * step_y
    x, y, z = origin_mm

    def written() -> Iterator[ScannedSlice]:
        for index in range(slices) if kept is None else kept:
            # A tilted slice is turned about its middle row.
            first = (x, y + half_mm * (1 - along_y), z + index * step_z - half_mm * along_z)
            number = slices - index if reverse else index + 1
            row, column = (1.0, 0.0, 0.0), (0.0, along_y, along_z)
            yield ScannedSlice(volume[index], first, row, column, number, series)

    scan = CtScan(spacing_mm, series, description, contrast, tilt_deg, half_mm * along_z)
    write_ct_slices(folder, written(), identity, scan)


@dataclass(frozen=True, slots=True)
class CtScan:
    """What the slices of a series have in common.

    spacing_mm: (z, y, x). contrast: agent, or None for a plain scan. tilt_deg: of the gantry.
    table_mm: from a slice's first pixel up to its place along the table.
    """

    spacing_mm: tuple[float, float, float]
    series: int
    description: str
    contrast: str | None
    tilt_deg: float = 0.0
    table_mm: float = 0.0


def write_ct_slices(
    folder: Path, slices: Iterable[ScannedSlice], identity: PhantomIdentity, scan: CtScan
) -> None:
    """Write one CT series of slices that lie anywhere, a file per slice, named by its number.

    Raises:
        StoreError: the disk refused.
    """
    frame_of_reference = derived_uid(identity.key, "frame of reference")
    step_z, step_y, step_x = scan.spacing_mm
    with replacing_folder(folder) as temporary:
        for one in slices:
            rows, cols = one.hu.shape
            names = (scan.series, one.number)
            data = _general(identity, CTImageStorage, ExplicitVRLittleEndian, names)
            data.Modality, data.BodyPartExamined = "CT", "ABDOMEN"
            data.SeriesDescription = scan.description
            data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
            data.FrameOfReferenceUID = frame_of_reference
            data.PositionReferenceIndicator = ""
            data.PatientPosition = "FFS"
            data.ImageOrientationPatient = [_decimal(v) for v in (*one.row, *one.column)]
            data.ImagePositionPatient = [_decimal(v) for v in one.position_mm]
            data.SliceLocation = _decimal(one.position_mm[2] + scan.table_mm)
            if scan.tilt_deg:
                data.GantryDetectorTilt = _decimal(scan.tilt_deg)
            data.PixelSpacing = [_decimal(step_y), _decimal(step_x)]
            data.SliceThickness = _decimal(step_z)
            data.KVP, data.AcquisitionNumber = "120", one.scan
            if scan.contrast is not None:
                data.ContrastBolusAgent = scan.contrast
            data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
            data.Rows, data.Columns = rows, cols
            data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
            data.PixelRepresentation = 0
            data.RescaleIntercept, data.RescaleSlope, data.RescaleType = "-1024", "1", "HU"
            data.WindowCenter, data.WindowWidth = "40", "400"
            stored = np.clip(one.hu.astype(np.int32) + 1024, 0, 4095).astype("<u2")
            data.PixelData = stored.tobytes()
            data["PixelData"].VR = "OW"
            dcmwrite(temporary / f"{one.number:04d}.dcm", data, enforce_file_format=True)


def _general(
    identity: PhantomIdentity, sop_class: UID, syntax: UID, number: tuple[int, int]
) -> Dataset:
    """Patient, study, series, equipment and SOP modules. number: (series, instance)."""
    series, instance = number
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = sop_class
    uid = derived_uid(identity.key, series, instance)
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = uid
    data.StudyInstanceUID = derived_uid(identity.key)
    data.SeriesInstanceUID = derived_uid(identity.key, series)
    data.PatientID, data.PatientName = identity.patient_id, identity.patient_name
    data.PatientSex, data.PatientAge = identity.sex, f"{identity.age_years:03d}Y"
    data.PatientBirthDate = ""
    data.StudyDate = data.SeriesDate = data.ContentDate = data.AcquisitionDate = identity.date
    data.StudyTime = data.SeriesTime = data.ContentTime = data.AcquisitionTime = identity.time
    data.StudyID, data.AccessionNumber = "1", ""
    data.StudyDescription = identity.description
    data.ReferringPhysicianName = ""
    data.SeriesNumber, data.InstanceNumber = series, instance
    data.InstitutionName = identity.institution
    data.Manufacturer, data.ManufacturerModelName = identity.manufacturer, identity.model
    data.SoftwareVersions = _SOFTWARE
    data.ImageComments = _COMMENT
    data.BurnedInAnnotation = "NO" if sop_class == CTImageStorage else "YES"
    return data


def _time(data: Dataset, n_frames: int, times: FrameTimes) -> None:
    """The Multi-frame and Cine modules."""
    data.NumberOfFrames = n_frames
    data.CineRate = data.RecommendedDisplayFrameRate = max(1, round(1000 / times.step_ms))
    if times.vector_ms is None:
        data.FrameTime = _decimal(times.step_ms)
        data.FrameIncrementPointer = 0x00181063
    else:
        data.FrameTimeVector = [_decimal(step) for step in times.vector_ms]
        data.FrameIncrementPointer = 0x00181065


def _region(region: Region) -> Dataset:
    """One item of the Sequence of Ultrasound Regions."""
    if region.spacing_mm is None:
        raise ValueError("a phantom's region has a spacing")
    item = Dataset()
    item.RegionSpatialFormat = 1  # 2D
    item.RegionDataType = _DATA_TYPES[region.data_type]
    item.RegionFlags = 0
    box = region.box
    item.RegionLocationMinX0, item.RegionLocationMinY0 = box.x, box.y
    item.RegionLocationMaxX1 = box.x + box.width - 1
    item.RegionLocationMaxY1 = box.y + box.height - 1
    item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = 3  # cm
    row_mm, col_mm = region.spacing_mm
    item.PhysicalDeltaX, item.PhysicalDeltaY = col_mm / 10, row_mm / 10
    return item


def _decimal(value: float) -> str:
    """A decimal string of at most 16 characters."""
    return f"{value:.6f}".rstrip("0").rstrip(".") or "0"


_PIXEL_DATA = struct.pack("<HH", 0x7FE0, 0x0010)
_ITEM = struct.pack("<HH", 0xFFFE, 0xE000)
_END = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def _append_jpeg(
    file: BinaryIO,
    frames: Iterable[npt.NDArray[np.uint8]],
    n_frames: int,
    shape: tuple[int, int],
    quality: int,
) -> None:
    """Encapsulated pixel data: an empty offset table, then one fragment per frame."""
    file.write(_PIXEL_DATA + b"OB\0\0" + struct.pack("<I", 0xFFFFFFFF))
    file.write(_ITEM + struct.pack("<I", 0))
    for frame in _checked(frames, n_frames, shape):
        stream = bytes(imagecodecs.jpeg8_encode(frame, level=quality, subsampling="422"))
        stream += b"\0" * (len(stream) % 2)
        file.write(_ITEM + struct.pack("<I", len(stream)) + stream)
    file.write(_END)


def _append_raw(
    file: BinaryIO,
    frames: Iterable[npt.NDArray[np.uint8]],
    n_frames: int,
    shape: tuple[int, int],
) -> None:
    size = n_frames * shape[0] * shape[1] * 3
    if size >= 0xFFFFFFFE:
        raise ValueError(f"{size} bytes of uncompressed pixels do not fit one element")
    file.write(_PIXEL_DATA + b"OB\0\0" + struct.pack("<I", size + size % 2))
    for frame in _checked(frames, n_frames, shape):
        file.write(np.ascontiguousarray(frame).data)
    file.write(b"\0" * (size % 2))


def _checked(
    frames: Iterable[npt.NDArray[np.uint8]], n_frames: int, shape: tuple[int, int]
) -> Iterable[npt.NDArray[np.uint8]]:
    """The frames, each of the announced shape and as many as announced."""
    count = 0
    for count, frame in enumerate(frames, start=1):
        if frame.shape != (*shape, 3) or frame.dtype != np.uint8 or count > n_frames:
            raise ValueError(
                f"frame {count} is {frame.shape} {frame.dtype}; announced: {n_frames} frames of "
                f"{(*shape, 3)} uint8"
            )
        yield frame
    if count != n_frames:
        raise ValueError(f"{count} frames came, {n_frames} were announced")
