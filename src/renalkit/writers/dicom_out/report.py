"""How do outlines, figures and curves become a structured report that other software can read?

A measurement report (PS3.16 TID 1500) holds a group per finding: where it is (an outline on one
frame, TID 1410), what was measured with units and intervals (TID 300, TID 310), and how it was
judged. A curve is a group per moment (TID 1501 with TID 1502). The content tree is highdicom's.

Sources: DICOM PS3.3 A.35.3 (Comprehensive SR), C.17.2 (SR Document General), C.18.6 (spatial
coordinates); PS3.16 annex A.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from highdicom.sr import (
    AlgorithmIdentification,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    ImageRegion,
    LongitudinalTemporalOffsetFromEvent,
    Measurement,
    MeasurementProperties,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    NumContentItem,
    ObservationContext,
    ObserverContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    ReferencedSegmentationFrame,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    SourceImageForRegion,
    SourceImageForSegmentation,
    TextContentItem,
    TimePointContext,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes as standard
from pydicom.uid import (
    ComprehensiveSRStorage,
    SegmentationStorage,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
)

from renalkit import __version__
from renalkit.domain.study import Side
from renalkit.errors import InputRefused, Reason
from renalkit.writers.dicom_out.codes import (
    FIRST_FRAME,
    KIDNEY_SITE,
    SECOND,
    Algorithm,
    Code,
    Structure,
    checked_text,
    side_code,
)
from renalkit.writers.dicom_out.general import WARNING, ResultLabel, finished, general
from renalkit.writers.dicom_out.segmentation import stored_masks
from renalkit.writers.dicom_out.source import (
    Mask,
    Source,
    checked_source,
    full_mask,
    put,
    tracking_uid,
)
from renalkit.writers.dicom_uid import derived_uid

MOST_CURVE_POINTS = 256
_MOST_OUTLINE_POINTS = 8000  # two floats each in an element of at most 65534 bytes

_PROCEDURE = Code("16310003", "SCT", "Diagnostic ultrasonography")
_ABOVE = Code("371886008", "SCT", "+, range of upper measurement uncertainty")
_BELOW = Code("371885007", "SCT", "-, range of lower measurement uncertainty")
_COMMENT = Code("121106", "DCM", "Comment")

# highdicom takes neither retired classes nor UIDs that break the standard's form, and the field has
# both: the tree is built on a stand-in, which is then replaced by the source.
STAND_IN = "2.25.0"

Group = (
    MeasurementsAndQualitativeEvaluations
    | PlanarROIMeasurementsAndQualitativeEvaluations
    | VolumetricROIMeasurementsAndQualitativeEvaluations
)


@dataclass(frozen=True, slots=True)
class Quantity:
    """A measured number. interval: (low, high), holds the value; its level is one of the
    parameters of the finding's algorithm.

    A figure that does not exist is left out; there is none without a finite value.
    """

    concept: Code
    value: float
    unit: Code
    interval: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        low, high = self.interval or (self.value, self.value)
        if not all(isfinite(x) for x in (low, self.value, high)):
            raise ValueError(f"{self.concept.meaning}: {self.value} in {self.interval}; not finite")
        if not low <= self.value <= high:
            raise ValueError(
                f"{self.concept.meaning}: {self.value} lies outside its interval {self.interval}"
            )


@dataclass(frozen=True, slots=True)
class Curve:
    """Values over time of one region: as many values as times and frames.

    times_s: since `since`, increasing. frames: of the source, from 0.
    """

    concept: Code
    unit: Code
    times_s: Sequence[float]
    values: Sequence[float]
    frames: Sequence[int]
    since: Code = FIRST_FRAME

    def __post_init__(self) -> None:
        if not len(self.times_s) == len(self.values) == len(self.frames):
            raise ValueError(
                f"curve of {len(self.times_s)} times, {len(self.values)} values, "
                f"{len(self.frames)} frames: expected equal numbers"
            )
        if not 1 <= len(self.values) <= MOST_CURVE_POINTS:
            raise ValueError(
                f"curve of {len(self.values)} points: expected 1 to {MOST_CURVE_POINTS}; thin it, "
                "the whole belongs into a table"
            )
        if not all(isfinite(x) for x in (*self.times_s, *self.values)):
            raise ValueError("curve with a value or time that is not finite: leave such points out")
        if any(b <= a for a, b in zip(self.times_s, self.times_s[1:], strict=False)):
            raise ValueError("times of a curve must increase")


@dataclass(frozen=True, slots=True)
class Finding:
    """One structure and what is known of it.

    label: its name, the same as in a segmentation; unique. frame, mask: one frame (from 0) on which
    it is outlined, mask (H,W) of the whole source frame; both or neither. answers: questions with
    coded answers. algorithm: what measured.
    """

    label: str
    structure: Structure
    quantities: Sequence[Quantity] = ()
    answers: Sequence[tuple[Code, Code]] = ()
    frame: int | None = None
    mask: Mask | None = field(default=None, repr=False)
    curve: Curve | None = field(default=None, repr=False)
    side: Side | None = None
    algorithm: Algorithm | None = None

    def __post_init__(self) -> None:
        checked_text(self.label, "label of a finding", 64)
        if (self.frame is None) != (self.mask is None):
            raise ValueError(f"finding {self.label!r}: a mask needs its frame, a frame its mask")
        if not (self.quantities or self.answers or self.curve or self.mask is not None):
            raise ValueError(f"finding {self.label!r} says nothing")


def measurement_report(
    header: Dataset,
    findings: Sequence[Finding],
    label: ResultLabel,
    *,
    segmentation: Dataset | None = None,
) -> Dataset:
    """A Comprehensive SR on an ultrasound still or cine.

    Args:
        header: of the source, see `readers.dicom_source`.
        findings: at least one.
        segmentation: of the same source, with a segment of the same label for each mask that no
            single outline can describe (parts, holes, more than 8000 corners); the report then
            refers to it.

    Raises:
        InputRefused: the source cannot be referred to, has no such frame, or a mask does not fit
            the source, or needs a segmentation and is not in it.
        ValueError: no finding, two of one label, a segmentation of another source.
    """
    source = checked_source(header)
    check_findings(findings)
    if segmentation is not None:
        _check_segmentation(segmentation, source)
    groups: list[Group] = []
    for finding in findings:
        groups.append(_group(finding, source, segmentation))
        if finding.curve is not None:
            groups.extend(_moments(finding, finding.curve, source))
    return assembled(source, groups, label, _PROCEDURE, evidence_of([source], segmentation))


def check_findings(findings: Sequence[Finding]) -> None:
    """ValueError unless there is a finding and each has a label of its own."""
    labels = [finding.label for finding in findings]
    if not labels or len(set(labels)) < len(labels):
        raise ValueError(f"findings {labels}: expected at least one, each with a label of its own")


def assembled(
    source: Source, groups: Sequence[Group], label: ResultLabel, procedure: Code, evidence: Dataset
) -> Dataset:
    """The report of measurement groups, in which image or series have the UID of the stand-in."""
    report = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=_device()),
        procedure_reported=procedure.sr,
        imaging_measurements=groups,
    )
    report[0].ContentSequence.append(
        TextContentItem(_COMMENT.sr, f"{WARNING.capitalize()}.", RelationshipTypeValues.CONTAINS)
    )
    _replace_stand_in(report[0], source)
    data = general(source, label, ComprehensiveSRStorage, "SR")
    data.CompletionFlag, data.VerificationFlag = "PARTIAL", "UNVERIFIED"
    data.PreliminaryFlag = "PRELIMINARY"
    data.ReferencedPerformedProcedureStepSequence = []
    data.PerformedProcedureCodeSequence = []
    data.CurrentRequestedProcedureEvidenceSequence = [evidence]
    for element in report[0]:
        data.add(element)
    return finished(data, label, source)


def _check_segmentation(segmentation: Dataset, source: Source) -> None:
    instances = [
        item.ReferencedSOPInstanceUID
        for series in segmentation.get("ReferencedSeriesSequence", [])
        for item in series.ReferencedInstanceSequence
    ]
    if segmentation.get("SOPClassUID") != SegmentationStorage or instances != [source.uid]:
        raise ValueError("the segmentation is not one of the same source")


def _device() -> ObserverContext:
    return ObserverContext(
        observer_type=standard.DCM.Device,
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=derived_uid("device", "renalkit", __version__),
            name="renalkit",
            manufacturer_name="renalkit",
            model_name="renalkit",
            serial_number=__version__,
        ),
    )


def evidence_of(sources: Sequence[Source], segmentation: Dataset | None) -> Dataset:
    """An item with images of one series and a segmentation on them."""
    study = Dataset()
    put(study, "StudyInstanceUID", sources[0].study_uid)
    images = Dataset()
    put(images, "SeriesInstanceUID", sources[0].series_uid)
    images.ReferencedSOPSequence = [source.reference() for source in sources]
    study.ReferencedSeriesSequence = [images]
    if segmentation is not None:
        outlines, item = Dataset(), Dataset()
        outlines.SeriesInstanceUID = segmentation.SeriesInstanceUID
        item.ReferencedSOPClassUID = segmentation.SOPClassUID
        item.ReferencedSOPInstanceUID = segmentation.SOPInstanceUID
        outlines.ReferencedSOPSequence = [item]
        study.ReferencedSeriesSequence.append(outlines)
    return study


def _tracking(finding: Finding, source: Source) -> TrackingIdentifier:
    return TrackingIdentifier(uid=tracking_uid(source, finding.label), identifier=finding.label)


def about(finding: Finding, source: Source) -> dict[str, Any]:
    """What all groups of a finding say, as arguments of highdicom."""
    side = None if finding.side is None else side_code(finding.side).sr
    said: dict[str, Any] = {
        "tracking_identifier": _tracking(finding, source),
        "finding_type": finding.structure.kind.sr,
        "finding_category": finding.structure.category.sr,
        "finding_sites": [FindingSite(KIDNEY_SITE.sr, laterality=side)],
    }
    if (algorithm := finding.algorithm) is not None:
        said["algorithm_id"] = AlgorithmIdentification(
            name=algorithm.name,
            version=algorithm.version,
            parameters=algorithm.settings,
            family=algorithm.family.sr,
        )
    return said


def found_of(finding: Finding) -> dict[str, Any]:
    """What was measured and judged, as arguments of highdicom."""
    return {
        "measurements": [_measurement(quantity) for quantity in finding.quantities],
        "qualitative_evaluations": [
            QualitativeEvaluation(question.sr, answer.sr) for question, answer in finding.answers
        ],
    }


def _image(source: Source, *frames: int) -> tuple[str, str, list[int] | None]:
    """Class, UID and frames (from 1) of the stand-in for the source."""
    kind = UltrasoundMultiFrameImageStorage if source.is_clip else UltrasoundImageStorage
    return kind, STAND_IN, source.frame_numbers(frames)


def _replace_stand_in(root: Dataset, source: Source) -> None:
    for element in list(root.iterall()):
        if element.VR != "SQ":
            continue
        for item in element.value:
            if item.get("ReferencedSOPInstanceUID") == STAND_IN:
                put(item, "ReferencedSOPClassUID", source.sop_class)
                put(item, "ReferencedSOPInstanceUID", source.uid)
            elif item.get("UID") == STAND_IN:
                put(item, "UID", source.series_uid)


def _group(finding: Finding, source: Source, segmentation: Dataset | None) -> Group:
    contents = found_of(finding)
    said = about(finding, source)
    if finding.mask is None or finding.frame is None:
        return MeasurementsAndQualitativeEvaluations(
            **said,
            **contents,
            source_images=[SourceImageForMeasurementGroup(*_image(source))],
        )
    where = f"{finding.label}, frame {finding.frame}"
    mask = full_mask(finding.mask, source, where)
    image = _image(source, finding.frame)
    outline = single_outline(mask)
    if outline is not None and len(outline) <= _MOST_OUTLINE_POINTS:
        place: dict[str, Any] = {
            "referenced_region": ImageRegion("POLYLINE", outline, SourceImageForRegion(*image))
        }
    else:
        place = {"referenced_segment": _stored(finding, mask, segmentation, image, where)}
    return PlanarROIMeasurementsAndQualitativeEvaluations(**said, **place, **contents)


def _stored(
    finding: Finding,
    mask: npt.NDArray[np.bool_],
    segmentation: Dataset | None,
    image: tuple[str, str, list[int] | None],
    where: str,
) -> ReferencedSegmentationFrame:
    """Where a segmentation holds a mask."""
    if segmentation is not None:
        for item in segmentation.SegmentSequence:
            if item.get("TrackingID") != finding.label:
                continue
            frame, stored = stored_masks(segmentation, item.SegmentNumber).get(
                finding.frame or 0, (0, None)
            )
            if stored is not None and np.array_equal(stored, mask):
                found = ReferencedSegmentationFrame(
                    segmentation.SOPClassUID,
                    segmentation.SOPInstanceUID,
                    frame,
                    item.SegmentNumber,
                    SourceImageForSegmentation(*image),
                )
                # A stored frame is of one segment; naming both is not allowed (PS3.3 10.3).
                del found[0].ReferencedSOPSequence[0].ReferencedSegmentNumber
                return found
    raise InputRefused(
        Reason.MASK_MISMATCH,
        "a mask of several parts, with holes, or with too long an outline",
        where=where,
        expected="one outline, or a segmentation with this mask under the same label",
        remedy="write a segmentation of all masks first and pass it on",
    )


def _measurement(quantity: Quantity) -> Measurement:
    unit = quantity.unit.sr
    properties = None
    if quantity.interval is not None:
        low, high = quantity.interval
        properties = MeasurementProperties()
        properties.extend(
            NumContentItem(name.sr, distance, unit, None, RelationshipTypeValues.HAS_PROPERTIES)
            for name, distance in ((_ABOVE, high - quantity.value), (_BELOW, quantity.value - low))
        )
    return Measurement(quantity.concept.sr, quantity.value, unit, properties=properties)


def _moments(finding: Finding, curve: Curve, source: Source) -> list[Group]:
    """A group per point of a curve, tied to the finding by its tracking identifier only."""
    groups: list[Group] = []
    points = zip(curve.times_s, curve.values, curve.frames, strict=True)
    for order, (time_s, value, frame) in enumerate(points, start=1):
        moment = TimePointContext(
            time_point=f"{time_s:.3f} s",
            time_point_order=order,
            temporal_offset_from_event=LongitudinalTemporalOffsetFromEvent(
                float(time_s), SECOND.sr, curve.since.sr
            ),
        )
        groups.append(
            MeasurementsAndQualitativeEvaluations(
                tracking_identifier=_tracking(finding, source),
                time_point_context=moment,
                measurements=[Measurement(curve.concept.sr, float(value), curve.unit.sr)],
                source_images=[SourceImageForMeasurementGroup(*_image(source, frame))],
            )
        )
    return groups


def single_outline(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64] | None:
    """The closed outline (N,2) of a mask (H,W) as x, y in pixels, None for parts or holes.

    The corner of the first pixel is (0, 0), its centre (0.5, 0.5), as in PS3.3 C.18.6. The line
    runs a quarter pixel inside the mask's border, so exactly the centres of its pixels are within.
    """
    fine = np.repeat(np.repeat(mask.astype(np.uint8), 2, axis=0), 2, axis=1)
    lines, _ = cv2.findContours(fine, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if len(lines) != 1:
        return None
    points = (lines[0][:, 0].astype(np.float64) + 0.5) / 2
    return np.vstack((points, points[:1]))
