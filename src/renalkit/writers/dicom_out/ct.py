"""How do kidney and masses found on a CT series become a DICOM Segmentation and a report?

Arrays lie as the files do: slice by slice in the order of the headers, each with the rows and
columns of its file. Where that is in the patient is left to highdicom, which copies the place of
each slice from its source; nothing is turned here. Slices may be sheared, oblique, unevenly spaced
or missing, since each has a place of its own.

Sources: DICOM PS3.3 A.51 and C.8.20 (Segmentation); PS3.16 TID 1500, TID 1411 (Volumetric ROI).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from highdicom.seg import Segmentation, SegmentDescription
from highdicom.sr import (
    ReferencedSegment,
    SourceSeriesForSegmentation,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, SegmentationStorage

from renalkit.domain.study import RoiOrigin, Side
from renalkit.errors import InputRefused, Reason
from renalkit.writers.dicom_out.codes import Algorithm, Code, Structure
from renalkit.writers.dicom_out.general import WARNING, ResultLabel, finished, general
from renalkit.writers.dicom_out.report import (
    STAND_IN,
    Finding,
    Group,
    about,
    assembled,
    check_findings,
    evidence_of,
    found_of,
)
from renalkit.writers.dicom_out.segmentation import check_described, check_labels, segment_item
from renalkit.writers.dicom_out.source import Source, checked_slices, compression, put
from renalkit.writers.dicom_uid import derived_uid

Marked = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

_PROCEDURE = Code("77477000", "SCT", "Computed tomography")
_LABEL_MAP = UID("1.2.840.10008.5.1.4.1.1.66.7")  # newer than the list of pydicom 3.0
_OUR_OWN = (
    *("SpecificCharacterSet", "SOPInstanceUID", "SegmentSequence"),
    "ContributingEquipmentSequence",
)
"""Elements of highdicom's that are ours to say, or would differ from call to call."""


@dataclass(frozen=True, slots=True)
class VolumeSegment:
    """One structure of a map of segments: its number is its place in the list, from 1.

    label: at most 64 characters, unique, the same in a report. algorithm: what drew it, unless a
    person did.
    """

    label: str
    structure: Structure
    origin: RoiOrigin = RoiOrigin.REFERENCE
    algorithm: Algorithm | None = None
    side: Side | None = None

    def __post_init__(self) -> None:
        check_described(self)


def ct_segmentation(
    headers: Sequence[Dataset],
    marked: Marked,
    segments: Sequence[VolumeSegment],
    label: ResultLabel,
    *,
    labelmap: bool = False,
) -> Dataset:
    """A Segmentation of the slices of one CT series.

    Args:
        headers: of the slices, see `readers.dicom_source.read_ct_header`.
        marked: (Z,H,W) the number of the segment of each pixel, 0 for none; slice by slice as the
            headers, rows and columns as in the files.
        segments: described in the order of their numbers; some may be nowhere.
        labelmap: one number per pixel (Label Map Segmentation) instead of a bit per segment;
            fewer programs read it.

    Raises:
        InputRefused: the source cannot be referred to, MASK_MISMATCH, EMPTY_MASK.
        ValueError: no segment, two of one label, or a number without a segment.
    """
    sources = checked_slices(headers)
    check_labels(segments)
    first = sources[0]
    _check_marked(marked, sources, len(segments))
    sop_class = _LABEL_MAP if labelmap else SegmentationStorage
    data = general(first, label, sop_class, "SEG")
    made = Segmentation(
        source_images=[_stand_in(s.header, n) for n, s in enumerate(sources, start=1)],
        pixel_array=marked,
        segmentation_type="LABELMAP" if labelmap else "BINARY",
        segment_descriptions=[_described(s, n) for n, s in enumerate(segments, start=1)],
        series_instance_uid=data.SeriesInstanceUID,
        series_number=label.series_number,
        sop_instance_uid=STAND_IN,
        instance_number=label.instance_number,
        manufacturer=data.Manufacturer,
        manufacturer_model_name=data.ManufacturerModelName,
        software_versions=data.SoftwareVersions,
        device_serial_number=data.DeviceSerialNumber,
        content_label="RENALKIT",
        content_description=WARNING.capitalize(),
        omit_empty_frames=True,
    )
    for element in made:
        # What general said of patient, study, series and equipment stands.
        if element.tag not in data and element.keyword not in _OUR_OWN:
            data.add(element)
    dimensions = str(derived_uid("dimensions", data.SeriesInstanceUID, data.InstanceNumber))
    _replace(data, sources, dimensions)
    put(data, "FrameOfReferenceUID", _frame_of_reference(first))
    data.ContentQualification = "RESEARCH"
    data.BurnedInAnnotation = "NO"
    for keyword, value in compression(first).items():
        put(data, keyword, value)
    data.SegmentSequence = [segment_item(s, n, first) for n, s in enumerate(segments, start=1)]
    return finished(data, label, first)


def _check_marked(marked: Marked, sources: Sequence[Source], count: int) -> None:
    wanted = (len(sources), sources[0].rows, sources[0].cols)
    if marked.shape != wanted:
        raise InputRefused(
            Reason.MASK_MISMATCH,
            f"segments of {' x '.join(map(str, marked.shape))} pixels",
            expected=f"{' x '.join(map(str, wanted))}, the slices of the source",
            remedy="put the result on the grid of the source first",
        )
    if int(marked.max()) > count:
        raise ValueError(f"segment {int(marked.max())}, described are {count}")
    if not marked.any():
        raise InputRefused(
            Reason.EMPTY_MASK,
            "segments without a pixel",
            expected="at least one pixel",
            remedy="write no segmentation where nothing was found",
        )


def _stand_in(header: Dataset, number: int) -> Dataset:
    """A slice with the place of its source and nothing that names anybody.

    highdicom takes only names and UIDs that keep to the standard, and the field has others.
    """
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, f"2.25.{number}"
    data.StudyInstanceUID = data.SeriesInstanceUID = data.FrameOfReferenceUID = STAND_IN
    data.Modality = "CT"
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyID"):
        setattr(data, keyword, None)
    data.AccessionNumber = data.StudyDate = data.StudyTime = None
    data.Rows, data.Columns = header.Rows, header.Columns
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        put(data, keyword, header[keyword].value)
    put(data, "SliceThickness", header.get("SliceThickness"))
    return data


def _described(segment: VolumeSegment, number: int) -> SegmentDescription:
    """What highdicom needs to know; `segment_item` says the rest."""
    structure = segment.structure
    return SegmentDescription(
        segment_number=number,
        segment_label=segment.label,
        segmented_property_category=structure.category.sr,
        segmented_property_type=structure.kind.sr,
        algorithm_type="MANUAL",
    )


def _frame_of_reference(source: Source) -> str:
    """That of the source; one for its series where it has none."""
    given = str(source.header.get("FrameOfReferenceUID") or "")
    return given or str(derived_uid("frame of reference", source.series_uid))


def _replace(data: Dataset, sources: Sequence[Source], dimensions: str) -> None:
    """Put the sources where their stand-ins are, and a UID for the one that highdicom draws."""
    by_number = {f"2.25.{n}": source for n, source in enumerate(sources, start=1)}
    for element in list(data.iterall()):
        if element.VR != "SQ":
            continue
        for item in element.value:
            source = by_number.get(str(item.get("ReferencedSOPInstanceUID", "")))
            if source is not None:
                put(item, "ReferencedSOPInstanceUID", source.uid)
            if item.get("SeriesInstanceUID") == STAND_IN:
                put(item, "SeriesInstanceUID", sources[0].series_uid)
            if "DimensionOrganizationUID" in item:
                item.DimensionOrganizationUID = dimensions


def ct_report(
    headers: Sequence[Dataset],
    findings: Sequence[Finding],
    label: ResultLabel,
    segmentation: Dataset,
) -> Dataset:
    """A Comprehensive SR on the slices of one CT series: a group per finding (TID 1411).

    Args:
        findings: without frames, masks and curves; each has the label of a segment.
        segmentation: of the same slices, see `ct_segmentation`.

    Raises:
        InputRefused: the source cannot be referred to.
        ValueError: no finding, two of one label, one without a segment, a segmentation of others.
    """
    sources = checked_slices(headers)
    check_findings(findings)
    referred = {
        item.ReferencedSOPInstanceUID
        for series in segmentation.ReferencedSeriesSequence
        for item in series.ReferencedInstanceSequence
    }
    if not referred <= {source.uid for source in sources}:
        raise ValueError("the segmentation is not one of the same slices")
    numbers = {item.SegmentLabel: item.SegmentNumber for item in segmentation.SegmentSequence}
    groups: list[Group] = []
    for finding in findings:
        if finding.label not in numbers or finding.mask is not None or finding.curve is not None:
            raise ValueError(f"finding {finding.label!r}: expected a segment of that label alone")
        groups.append(
            VolumetricROIMeasurementsAndQualitativeEvaluations(
                **about(finding, sources[0]),
                **found_of(finding),
                referenced_segment=ReferencedSegment(
                    segmentation.SOPClassUID,
                    segmentation.SOPInstanceUID,
                    numbers[finding.label],
                    source_series=SourceSeriesForSegmentation(STAND_IN),
                ),
            )
        )
    evidence = evidence_of(sources, segmentation)
    return assembled(sources[0], groups, label, _PROCEDURE, evidence)
