"""Multi-frame CT: the same volumes as from single slices, in all ten geometries, or words."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from highdicom.legacy import LegacyConvertedEnhancedCTImage
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless

from renalkit.errors import InputRefused, Reason
from renalkit.phantom.ct.geometry import Geometry
from renalkit.readers.contract import Limits, Outcome, ReadOptions
from renalkit.readers.decode_worker import DecodeWorker
from renalkit.readers.dicom_ct import ReadSeries, read_ct_series

sys.path.insert(0, str(Path(__file__).parents[2] / "corpus"))
corpus = importlib.import_module("make_ct")

OPTIONS = ReadOptions()
ENHANCED = "1.2.840.10008.5.1.4.1.1.2.1"


@pytest.fixture(scope="module")
def worker() -> Iterator[DecodeWorker]:
    with DecodeWorker(Limits()) as found:
        yield found


def converted(
    folder: Path, geometry: Geometry = Geometry.PLAIN, syntax: str = ExplicitVRLittleEndian
) -> Path:
    """A series of slices in `ct` as one object, made by other software."""
    files = sorted(corpus.write(folder / "ct", geometry).glob("*.dcm"))
    made = LegacyConvertedEnhancedCTImage(
        [pydicom.dcmread(path) for path in files],
        series_instance_uid="1.2.3",
        series_number=5,
        sop_instance_uid="1.2.3.4",
        instance_number=1,
        transfer_syntax_uid=syntax,
    )
    made.save_as(folder / "frames.dcm")
    return folder / "frames.dcm"


def read(path: Path, worker: DecodeWorker) -> ReadSeries:
    files = sorted(path.rglob("*.dcm")) if path.is_dir() else [path]
    return read_ct_series(files, OPTIONS, worker)


@pytest.mark.parametrize("geometry", Geometry)
def test_frames_make_the_volume_that_slices_make(
    tmp_path: Path, worker: DecodeWorker, geometry: Geometry
) -> None:
    found = read(converted(tmp_path, geometry), worker)
    slices = read(tmp_path / "ct", worker)
    assert len(found.series) == len(slices.series)
    for one, other in zip(found.series, slices.series, strict=True):
        assert one.volume.grid.shift_from(other.volume.grid) < 1e-9
        assert one.volume.source_axes == other.volume.source_axes
        assert one.volume.sha256 == other.volume.sha256
        assert one.volume.phase == other.volume.phase
        assert {d.reason for d in one.defects} == {d.reason for d in other.defects}
        assert np.array_equal(one.volume.pixels[5], other.volume.pixels[5])
    (report,) = found.reports
    assert report.outcome in (Outcome.USED, Outcome.WARNED)
    gone = {d.reason for r in slices.reports for d in r.reasons}
    assert {d.reason for d in report.reasons} == gone


def test_compressed_frames_and_enhanced_ct_are_read_too(
    tmp_path: Path, worker: DecodeWorker
) -> None:
    path = converted(tmp_path, syntax=JPEGLSLossless)
    change(path, lambda data: setattr(data, "SOPClassUID", ENHANCED))
    (series,) = read(path, worker).series
    stack = np.stack([series.volume.pixels[k] for k in range(24)])
    assert np.array_equal(stack, corpus.scene())


def test_a_changed_file_is_noticed(tmp_path: Path, worker: DecodeWorker) -> None:
    path = converted(tmp_path)
    (series,) = read(path, worker).series
    data = pydicom.dcmread(path)
    data.PixelData = data.PixelData[::-1]
    data.save_as(path)
    with pytest.raises(InputRefused) as refused:
        series.volume.pixels[0]
    assert refused.value.reason is Reason.CHANGED_DURING_READ


def change(path: Path, how: Callable[[Any], Any]) -> None:
    data = pydicom.dcmread(path)
    how(data)
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.save_as(path)


def without_groups(data: Any) -> None:
    del data.PerFrameFunctionalGroupsSequence


def one_group_less(data: Any) -> None:
    data.PerFrameFunctionalGroupsSequence = list(data.PerFrameFunctionalGroupsSequence)[1:]


def a_frame_nowhere(data: Any) -> None:
    del data.PerFrameFunctionalGroupsSequence[3].PlanePositionSequence


def a_damaged_position(data: Any) -> None:
    position = data.PerFrameFunctionalGroupsSequence[3].PlanePositionSequence[0]
    position.ImagePositionPatient = [1, 2]


def no_hounsfield(data: Any) -> None:
    for groups in (
        *data.SharedFunctionalGroupsSequence,
        *data.PerFrameFunctionalGroupsSequence,
    ):
        for item in groups.get("PixelValueTransformationSequence", ()):
            item.RescaleType = "OD"


def half_the_pixels(data: Any) -> None:
    data.PixelData = data.PixelData[: len(data.PixelData) // 2]


def no_frames(data: Any) -> None:
    data.NumberOfFrames = 0


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        (without_groups, Reason.BAD_FRAMES),
        (one_group_less, Reason.BAD_FRAMES),
        (a_frame_nowhere, Reason.BAD_GEOMETRY),
        (a_damaged_position, Reason.BAD_GEOMETRY),
        (no_hounsfield, Reason.NOT_HU),
        (half_the_pixels, Reason.TRUNCATED_PIXELS),
        (no_frames, Reason.BAD_FRAMES),
    ],
)
def test_objects_that_cannot_be_used_are_refused_in_words(
    tmp_path: Path, worker: DecodeWorker, how: Callable[[Any], Any], reason: Reason
) -> None:
    path = converted(tmp_path)
    change(path, how)
    found = read(path, worker)
    assert found.series == ()
    (report,) = found.reports
    assert report.outcome is Outcome.REFUSED
    assert [d.reason for d in report.reasons] == [reason]
