"""Does a picture come back as it was drawn, and say what it shows?"""

import importlib
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest

from renalkit.domain.study import Side
from renalkit.errors import InputRefused, Reason
from renalkit.writers.dicom_out.capture import secondary_capture

sys.path.insert(0, str(Path(__file__).parent))
made = importlib.import_module("sources")


@pytest.mark.parametrize("shape", [(1, 1, 3), (5, 7, 3), (40, 33, 3)])
def test_the_pixels_come_back(shape):
    picture = np.random.default_rng(2).integers(0, 256, shape, dtype=np.uint8)
    data = secondary_capture(made.source(), picture, made.LABEL, burned_in=False)
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, data, enforce_file_format=True)
    buffer.seek(0)
    found = pydicom.dcmread(buffer).pixel_array.reshape(shape)
    assert np.array_equal(found, picture)


def test_a_picture_that_is_a_view_is_stored_as_seen():
    picture = np.random.default_rng(2).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    turned = picture.transpose(1, 0, 2)[::-1]
    data = secondary_capture(made.source(), turned, made.LABEL, burned_in=False)
    assert data.PixelData[:18] == turned[0, :6].tobytes()


def test_it_names_the_frames_it_shows():
    picture = np.zeros((4, 4, 3), np.uint8)
    data = secondary_capture(
        made.source(),
        picture,
        made.LABEL,
        burned_in=True,
        frames=[0, 5],
        comment="Outline of the mass.",
        side=Side.LEFT,
    )
    (origin,) = data.SourceImageSequence
    assert origin.ReferencedSOPInstanceUID == "2.25.3"
    assert list(origin.ReferencedFrameNumber) == [1, 6]
    assert data.BurnedInAnnotation == "YES"
    assert data.Laterality == "L"
    assert data.ImageComments == ("Outline of the mass. Research use only, not for diagnosis.")
    whole = secondary_capture(made.source(), picture, made.LABEL, burned_in=False)
    assert "ReferencedFrameNumber" not in whole.SourceImageSequence[0]
    assert whole.BurnedInAnnotation == "NO"
    still = secondary_capture(
        made.source(still=True), picture, made.LABEL, burned_in=False, frames=[0]
    )
    assert "ReferencedFrameNumber" not in still.SourceImageSequence[0]


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((70000, 1, 3), np.uint8),
    ],
    ids=["grey", "alpha", "float", "empty", "tall"],
)
def test_pictures_of_another_form_are_refused(picture):
    with pytest.raises(ValueError, match="expected"):
        secondary_capture(made.source(), picture, made.LABEL, burned_in=False)


def test_a_frame_the_source_has_not_is_refused():
    with pytest.raises(InputRefused) as refused:
        secondary_capture(
            made.source(), np.zeros((4, 4, 3), np.uint8), made.LABEL, burned_in=False, frames=[6]
        )
    assert refused.value.reason is Reason.BAD_FRAMES
