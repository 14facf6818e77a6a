"""How do outlines on single frames of an ultrasound cine become a DICOM Segmentation?

Ultrasound has no frame of reference, so frames are tied to frames of the source by reference, not
by place. Only outlined frames are stored, one bit per pixel, segment after segment.

Sources: DICOM PS3.3 A.51 and C.8.20 (Segmentation), C.7.6.16 (Multi-frame Functional Groups),
C.7.6.17 (Multi-frame Dimension), C.12.2 (Common Instance Reference); PS3.5 8.1.1 (packed bits).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.uid import SegmentationStorage

from renalkit.domain.study import RoiOrigin, Side
from renalkit.writers.dicom_out.codes import (
    KIDNEY_SITE,
    Algorithm,
    Code,
    Structure,
    checked_text,
    side_code,
)
from renalkit.writers.dicom_out.general import WARNING, ResultLabel, finished, general
from renalkit.writers.dicom_out.source import (
    Mask,
    Source,
    checked_source,
    compression,
    full_mask,
    put,
    tracking_uid,
)
from renalkit.writers.dicom_uid import derived_uid

_SEGMENTATION = Code("113076", "DCM", "Segmentation")
_PURPOSE = Code("121322", "DCM", "Source image for image processing operation")
_KINDS = {
    RoiOrigin.REFERENCE: "MANUAL",
    RoiOrigin.PROPAGATED: "SEMIAUTOMATIC",
    RoiOrigin.PREDICTED: "AUTOMATIC",
}


class Described(Protocol):
    """What is said of any segment; see `Segment`."""

    @property
    def label(self) -> str: ...
    @property
    def structure(self) -> Structure: ...
    @property
    def origin(self) -> RoiOrigin: ...
    @property
    def algorithm(self) -> Algorithm | None: ...
    @property
    def side(self) -> Side | None: ...


def check_described(segment: Described) -> None:
    """ValueError for a label that fits no segment, or an algorithm too many or too few."""
    checked_text(segment.label, "label of a segment", 64)
    if (segment.algorithm is None) != (segment.origin is RoiOrigin.REFERENCE):
        raise ValueError(
            f"segment {segment.label!r} is {segment.origin}: an algorithm is named for exactly "
            "those outlines that no person drew"
        )


@dataclass(frozen=True, slots=True)
class Segment:
    """One structure, outlined on some frames.

    label: its name, the same in a report on it ("Lesion 1"); at most 64 characters, unique.
    masks: frame (from 0) -> mask (H,W) of the whole source frame, none empty. origin: how the least
    certain of them came about; algorithm: what drew them unless a person did.
    """

    label: str
    structure: Structure
    masks: Mapping[int, Mask] = field(repr=False)
    origin: RoiOrigin = RoiOrigin.REFERENCE
    algorithm: Algorithm | None = None
    side: Side | None = None

    def __post_init__(self) -> None:
        check_described(self)
        if not self.masks:
            raise ValueError(f"segment {self.label!r} has no outline on any frame")


def us_segmentation(header: Dataset, segments: Sequence[Segment], label: ResultLabel) -> Dataset:
    """A Segmentation of an ultrasound still or cine.

    Args:
        header: of the source, see `readers.dicom_source`.
        segments: 1 to 65535, numbered in this order.

    Raises:
        InputRefused: the source cannot be referred to, has no such frame, or a mask does not fit.
        ValueError: no segment, or two of one label.
    """
    source = checked_source(header)
    check_labels(segments)
    data = general(source, label, SegmentationStorage, "SEG")
    data.ImageType = ["DERIVED", "PRIMARY"]
    data.PatientOrientation = []
    data.BurnedInAnnotation = "NO"
    data.ContentQualification = "RESEARCH"
    data.ContentLabel = "RENALKIT"
    data.ContentDescription = WARNING.capitalize()
    data.ContentCreatorName = None
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows, data.Columns = source.rows, source.cols
    data.BitsAllocated = data.BitsStored = 1
    data.HighBit = data.PixelRepresentation = 0
    data.SegmentationType = "BINARY"
    for keyword, value in compression(source).items():
        put(data, keyword, value)
    data.SegmentSequence = [segment_item(s, n, source) for n, s in enumerate(segments, start=1)]
    data.ReferencedSeriesSequence = [_series_reference(source)]
    dimensions = str(derived_uid("dimensions", data.SeriesInstanceUID, data.InstanceNumber))
    data.DimensionOrganizationSequence = [_organisation(dimensions)]
    data.DimensionIndexSequence = [
        _index("SegmentIdentificationSequence", "ReferencedSegmentNumber", dimensions),
        _index("FrameContentSequence", "InStackPositionNumber", dimensions),
    ]
    places = [(n, frame) for n, s in enumerate(segments, start=1) for frame in sorted(s.masks)]
    ranks = {frame: i for i, frame in enumerate(sorted({f for _, f in places}), start=1)}
    data.NumberOfFrames = len(places)
    data.SharedFunctionalGroupsSequence = [Dataset()]
    data.PerFrameFunctionalGroupsSequence = [
        _groups(source, segment, frame, ranks[frame]) for segment, frame in places
    ]
    data.PixelData = b"".join(_packed(_masks(source, segments)))
    data["PixelData"].VR = "OB"
    return finished(data, label, source)


def check_labels(segments: Sequence[Described]) -> None:
    """ValueError unless there are 1 to 65535 segments, each with a label of its own."""
    if not 1 <= len(segments) <= 65535:
        raise ValueError(f"{len(segments)} segments: expected 1 to 65535")
    labels = [s.label for s in segments]
    if len(set(labels)) < len(labels):
        raise ValueError(f"two segments have one label: {', '.join(sorted(labels))[:200]}")


def segment_item(segment: Described, number: int, source: Source) -> Dataset:
    """An item of the Segment Sequence."""
    item = Dataset()
    item.SegmentNumber, item.SegmentLabel = number, segment.label
    item.SegmentAlgorithmType = _KINDS[segment.origin]
    if segment.algorithm is not None:
        item.SegmentAlgorithmName = segment.algorithm.name
        item.SegmentationAlgorithmIdentificationSequence = [_algorithm(segment.algorithm)]
    item.SegmentedPropertyCategoryCodeSequence = [segment.structure.category.item]
    item.SegmentedPropertyTypeCodeSequence = [segment.structure.kind.item]
    site = KIDNEY_SITE.item
    if segment.side is not None:
        site.AnatomicRegionModifierSequence = [side_code(segment.side).item]
    item.AnatomicRegionSequence = [site]
    item.TrackingID = segment.label
    item.TrackingUID = tracking_uid(source, segment.label)
    return item


def _algorithm(algorithm: Algorithm) -> Dataset:
    item = Dataset()
    item.AlgorithmFamilyCodeSequence = [algorithm.family.item]
    item.AlgorithmName, item.AlgorithmVersion = algorithm.name, algorithm.version
    if algorithm.parameters:
        item.AlgorithmParameters = ",".join(algorithm.settings)
    return item


def _series_reference(source: Source) -> Dataset:
    item = Dataset()
    put(item, "SeriesInstanceUID", source.series_uid)
    item.ReferencedInstanceSequence = [source.reference()]
    return item


def _organisation(uid: str) -> Dataset:
    item = Dataset()
    item.DimensionOrganizationUID = uid
    return item


def _index(group: str, keyword: str, organisation: str) -> Dataset:
    item = _organisation(organisation)
    item.FunctionalGroupPointer = tag_for_keyword(group)
    item.DimensionIndexPointer = tag_for_keyword(keyword)
    item.DimensionDescriptionLabel = keyword
    return item


def _groups(source: Source, segment: int, frame: int, rank: int) -> Dataset:
    """Which segment a stored frame belongs to, and which frame of the source it lies on."""
    identification, content, derivation, groups = (Dataset() for _ in range(4))
    identification.ReferencedSegmentNumber = segment
    content.StackID, content.InStackPositionNumber = "1", rank
    content.DimensionIndexValues = [segment, rank]
    origin = source.reference([frame])
    origin.SpatialLocationsPreserved = "YES"
    origin.PurposeOfReferenceCodeSequence = [_PURPOSE.item]
    derivation.DerivationCodeSequence = [_SEGMENTATION.item]
    derivation.SourceImageSequence = [origin]
    groups.SegmentIdentificationSequence = [identification]
    groups.FrameContentSequence = [content]
    groups.DerivationImageSequence = [derivation]
    return groups


def _masks(source: Source, segments: Sequence[Segment]) -> Iterator[npt.NDArray[np.bool_]]:
    for segment in segments:
        for frame in sorted(segment.masks):
            yield full_mask(segment.masks[frame], source, f"{segment.label}, frame {frame}")


def _packed(masks: Iterator[npt.NDArray[np.bool_]]) -> Iterator[bytes]:
    """One bit per pixel, least significant first, without gaps between frames; an even length."""
    rest = np.empty(0, np.bool_)
    length = 0
    for mask in masks:
        bits = np.concatenate((rest, mask.ravel()))
        whole = bits.size // 8 * 8
        rest = bits[whole:]
        length += whole // 8
        yield np.packbits(bits[:whole], bitorder="little").tobytes()
    tail = np.packbits(rest, bitorder="little").tobytes()
    yield tail + b"\0" * ((length + len(tail)) % 2)


def stored_masks(
    segmentation: Dataset, number: int
) -> dict[int, tuple[int, npt.NDArray[np.bool_]]]:
    """Of one segment: frame of the source (from 0) -> its stored frame (from 1) and mask (H,W)."""
    size = segmentation.Rows * segmentation.Columns
    packed = np.frombuffer(segmentation.PixelData, np.uint8)
    found: dict[int, tuple[int, npt.NDArray[np.bool_]]] = {}
    for index, groups in enumerate(segmentation.PerFrameFunctionalGroupsSequence):
        if groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber != number:
            continue
        origin = groups.DerivationImageSequence[0].SourceImageSequence[0]
        first = index * size
        part = packed[first // 8 : (first + size + 7) // 8]
        bits = np.unpackbits(part, bitorder="little")[first % 8 :][:size]
        mask = bits.reshape(segmentation.Rows, segmentation.Columns).astype(np.bool_)
        found[origin.get("ReferencedFrameNumber", 1) - 1] = index + 1, mask
    return found
