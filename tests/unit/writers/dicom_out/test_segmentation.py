"""Is every outline stored bit by bit, and tied to the frame it was drawn on?"""

import importlib
import sys
from io import BytesIO
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renalkit.domain.geometry import MaskRLE
from renalkit.domain.study import RoiOrigin, Side
from renalkit.writers.dicom_out.codes import (
    ARTIFICIAL_INTELLIGENCE,
    CORTEX,
    CYST,
    KIDNEY,
    LESION,
    NEOPLASM,
    PRIVATE,
    TRACKING,
    Algorithm,
)
from renalkit.writers.dicom_out.segmentation import Segment, stored_masks, us_segmentation

sys.path.insert(0, str(Path(__file__).parent))
made = importlib.import_module("sources")

NETWORK = Algorithm("multitask-us", "0.1.0", ARTIFICIAL_INTELLIGENCE, {"fold": "3", "size": "256"})
TRACKER = Algorithm("motion track", "0.1.0", TRACKING)


def read_back(data):
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, data, enforce_file_format=True)
    buffer.seek(0)
    return hd.seg.segread(buffer)


def three():
    """Segments with different frames, overlapping."""
    return [
        Segment("Lesion 1", LESION, {4: made.noise(1), 1: made.noise(2)}, RoiOrigin.PREDICTED, NETWORK),
        Segment("Kidney", KIDNEY, {1: made.noise(3, 0.9)}, side=Side.RIGHT),
        Segment("Cortex", CORTEX, {5: made.noise(4), 0: made.noise(5), 4: made.noise(6)}, RoiOrigin.PROPAGATED, TRACKER),
    ]  # fmt: skip


def test_every_mask_is_read_back_on_its_frame():
    header = made.source()
    segments = three()
    found = read_back(us_segmentation(header, segments, made.LABEL))
    assert found.number_of_segments == 3
    pixels = found.get_pixels_by_source_frame(
        header.SOPInstanceUID, range(1, 7), assert_missing_frames_are_empty=True
    )
    for number, segment in enumerate(segments):
        for frame in range(made.FRAMES):
            there = segment.masks.get(frame, np.zeros((made.ROWS, made.COLS), bool))
            assert np.array_equal(pixels[frame, :, :, number], there)


def test_a_still_is_read_back_by_its_instance():
    header = made.source(still=True)
    data = us_segmentation(header, [Segment("Cyst", CYST, {0: made.noise(7)})], made.LABEL)
    origin = data.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0]
    assert "ReferencedFrameNumber" not in origin.SourceImageSequence[0]
    pixels = read_back(data).get_pixels_by_source_instance([header.SOPInstanceUID])
    assert np.array_equal(pixels[0, :, :, 0], made.noise(7))


def test_frames_in_a_class_for_stills_are_told_apart():
    """Breaks the standard, and occurs."""
    header = made.source(still=True, NumberOfFrames=2)
    data = us_segmentation(
        header, [Segment("Cyst", CYST, {0: made.noise(1), 1: made.noise(2)})], made.LABEL
    )
    assert {k: v[0] for k, v in stored_masks(data, 1).items()} == {0: 1, 1: 2}


def test_segments_say_what_they_are_and_who_drew_them():
    found = read_back(us_segmentation(made.source(), three(), made.LABEL))
    first, second, third = (found.get_segment_description(n) for n in (1, 2, 3))
    assert (first.segment_label, first.tracking_id) == ("Lesion 1", "Lesion 1")
    assert first.segmented_property_category.value == "49755003"
    assert first.segmented_property_type.value == "52988006"
    assert first.algorithm_type.value == "AUTOMATIC"
    assert first.algorithm_identification.name == "multitask-us"
    assert first.algorithm_identification.parameters == {"fold": "3", "size": "256"}
    assert second.algorithm_type.value == "MANUAL"
    assert "SegmentAlgorithmName" not in second
    assert second.segmented_property_type.value == "64033007"
    (site,) = second.anatomic_regions
    assert site.value == "64033007"
    assert site.AnatomicRegionModifierSequence[0].CodeValue == "24028007"
    assert third.algorithm_type.value == "SEMIAUTOMATIC"
    assert third.algorithm_identification.parameters is None
    assert third.segmented_property_type.value == "50403003"
    assert "AnatomicRegionModifierSequence" not in third.anatomic_regions[0]
    uids = [found.get_segment_description(n).tracking_uid for n in (1, 2, 3)]
    assert len(set(uids)) == 3
    again = us_segmentation(made.source(SOPInstanceUID="2.25.9"), three(), made.LABEL)
    assert [s.TrackingUID for s in again.SegmentSequence] == uids, "the same in one study"


def test_frames_are_sorted_and_only_outlined_ones_are_stored():
    data = us_segmentation(made.source(), three(), made.LABEL)
    assert data.NumberOfFrames == 6
    places = [
        (
            g.SegmentIdentificationSequence[0].ReferencedSegmentNumber,
            g.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber,
            list(g.FrameContentSequence[0].DimensionIndexValues),
        )
        for g in data.PerFrameFunctionalGroupsSequence
    ]
    assert places == [
        (1, 2, [1, 2]),
        (1, 5, [1, 3]),
        (2, 2, [2, 2]),
        (3, 1, [3, 1]),
        (3, 5, [3, 3]),
        (3, 6, [3, 4]),
    ]


def test_the_owner_of_private_codes_is_named_only_where_there_are_any():
    data = us_segmentation(made.source(), three(), made.LABEL)
    (scheme,) = data.CodingSchemeIdentificationSequence
    assert scheme.CodingSchemeDesignator == PRIVATE
    plain = us_segmentation(
        made.source(), [Segment("Tumour", NEOPLASM, {0: made.noise(1)})], made.LABEL
    )
    assert "CodingSchemeIdentificationSequence" not in plain


@settings(max_examples=40)
@given(
    rows=st.integers(1, 11),
    cols=st.integers(1, 11),
    frames=st.integers(1, 9),
    seed=st.integers(0, 99),
    compact=st.booleans(),
)
def test_bits_are_packed_as_pydicom_reads_them(rows, cols, frames, seed, compact):
    masks = np.random.default_rng(seed).random((frames, rows, cols)) < 0.5
    masks[:, 0, 0] = True
    header = made.source(Rows=rows, Columns=cols, NumberOfFrames=frames)
    given_masks = {k: MaskRLE.encode(m) if compact else m for k, m in enumerate(masks)}
    data = us_segmentation(header, [Segment("Kidney", KIDNEY, given_masks)], made.LABEL)
    assert len(data.PixelData) % 2 == 0
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, data, enforce_file_format=True)
    buffer.seek(0)
    found = pydicom.dcmread(buffer)
    assert np.array_equal(found.pixel_array.reshape(masks.shape), masks)
    stored = stored_masks(found, 1)
    assert all(np.array_equal(stored[k][1], m) for k, m in enumerate(masks))


def test_memory_holds_bits_not_bytes(tmp_path):
    """A long cine is packed frame by frame."""
    import tracemalloc

    shape, frames = (300, 400), 200
    mask = np.zeros(shape, bool)
    mask[100:200, 100:200] = True
    header = made.source(Rows=shape[0], Columns=shape[1], NumberOfFrames=frames)
    segment = Segment("Kidney", KIDNEY, dict.fromkeys(range(frames), MaskRLE.encode(mask)))
    tracemalloc.start()
    us_segmentation(header, [segment], made.LABEL)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < shape[0] * shape[1] * frames / 2, "half a byte per pixel; unpacked would be one"


def test_segments_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="no outline"):
        Segment("Kidney", KIDNEY, {})
    with pytest.raises(ValueError, match="algorithm is named"):
        Segment("Kidney", KIDNEY, {0: made.noise(1)}, RoiOrigin.PREDICTED)
    with pytest.raises(ValueError, match="algorithm is named"):
        Segment("Kidney", KIDNEY, {0: made.noise(1)}, algorithm=NETWORK)
    with pytest.raises(ValueError, match="label"):
        Segment("x" * 65, KIDNEY, {0: made.noise(1)})
    with pytest.raises(ValueError, match="0 segments"):
        us_segmentation(made.source(), [], made.LABEL)
    twice = Segment("Kidney", KIDNEY, {0: made.noise(1)})
    with pytest.raises(ValueError, match="one label: Kidney, Kidney"):
        us_segmentation(made.source(), [twice, twice], made.LABEL)
