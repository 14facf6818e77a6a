"""What does each frame of a multi-frame CT object say of its place, its values and its scan?

Enhanced and legacy converted CT keep this in functional groups, shared by all frames or given per
frame (PS3.3 A.38, A.70, C.7.6.16). Each frame's groups become the values that a single slice would
have, so that everything that is asked of slices is asked of frames. The file was walked by the
pre-scan before it is read here; pixels stay on disk.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from renalkit.errors import InputRefused, Reason
from renalkit.readers.dicom_prescan import Value, Values
from renalkit.readers.dicom_source import UNREADABLE

_SHARED, _PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
_GROUPS: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "PlanePositionSequence": {"ImagePositionPatient": 0x00200032},
        "PlaneOrientationSequence": {"ImageOrientationPatient": 0x00200037},
        "PixelMeasuresSequence": {"PixelSpacing": 0x00280030},
        "PixelValueTransformationSequence": {
            "RescaleIntercept": 0x00281052,
            "RescaleSlope": 0x00281053,
            "RescaleType": 0x00281054,
        },
        "FrameContentSequence": {
            "FrameAcquisitionNumber": 0x00200012,
            "TemporalPositionIndex": 0x00200100,
        },
        "CTReconstructionSequence": {"ConvolutionKernel": 0x00181210},
        "CTImageFrameTypeSequence": {"FrameType": 0x00080008},
    }
)
"""Elements of functional groups, and the tags by which slices say the same."""


def frame_values(path: Path, frames: int, *, allow_headerless: bool) -> list[Values]:
    """The values of each frame, in the order of the file.

    Raises:
        InputRefused: BAD_FRAMES, another number of groups than frames; NOT_DICOM, groups that
            cannot be read as declared.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # values are judged by the reader of slices
        try:
            header = dcmread(
                path,
                stop_before_pixels=True,
                force=allow_headerless,
                specific_tags=[_SHARED, _PER_FRAME],
            )
            shared = next(iter(header.get(_SHARED) or ()), Dataset())
            found = [_flat(item, shared) for item in header.get(_PER_FRAME) or ()]
        except UNREADABLE as error:
            raise InputRefused(
                Reason.NOT_DICOM,
                f"functional groups that cannot be read ({type(error).__name__})",
                remedy="export the series again from the source system",
            ) from error
    if len(found) != frames:
        raise InputRefused(
            Reason.BAD_FRAMES,
            f"functional groups of {len(found)} frames in an object of {frames}",
            expected="one group per frame",
            remedy="export the series again from the source system",
        )
    return found


def _flat(frame: Dataset, shared: Dataset) -> Values:
    by_tag: dict[int, Value] = {}
    for name, elements in _GROUPS.items():
        for item in (frame.get(name) or shared.get(name) or ())[:1]:
            for keyword, tag in elements.items():
                text = "\\".join(_texts(item.get(keyword)))
                if text:
                    by_tag[tag] = Value("DS", text.encode("ascii", "replace"))
    return Values(by_tag)


def _texts(value: object) -> Iterator[str]:
    if value is None:
        return
    yield from map(str, value) if isinstance(value, MultiValue) else (str(value),)
