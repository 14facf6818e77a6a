"""What is drawn on the screen is told from echoes."""

import cv2
import numpy as np
import pytest

from renalkit.ceus.overlays import static_overlays
from renalkit.phantom.ceus.console import Layout
from renalkit.phantom.ceus.study import CeusOptions, CeusStudy, draw_ceus
from renalkit.phantom.patients import PatientPlan, Stream, draw_patient


def drawn_and_echoes(index, jpeg=None):
    """Frames of a phantom with calipers, pixels that are surely drawn, pixels of the fans."""
    patient = draw_patient(PatientPlan(400, seed=813), index)
    features = None if patient.latents is None else patient.latents.ceus
    options = CeusOptions(layout=Layout.LEFT, rows=450, cols=600, calipers=True)
    subject = (patient.anatomy, patient.views[0])
    plan = draw_ceus(subject, patient.scanner, features, patient.stream(Stream.CEUS), options)
    study = CeusStudy(plan)
    frames = np.stack([f.copy() for f, _ in study.frames(np.linspace(0, 59, 12))])
    if jpeg is not None:
        coded = [cv2.imencode(".jpg", f, [cv2.IMWRITE_JPEG_QUALITY, jpeg])[1] for f in frames]
        frames = np.stack([cv2.imdecode(c, 1) for c in coded])
    screen = study._background
    fans = np.zeros(screen.pixels.shape[:2], bool)
    for place in study.places.values():
        fans[place.view.slices] = study.scene.fan
    over = np.zeros(fans.size, bool)
    over[screen.over] = screen.over_pixels.max(axis=1) > 60
    over = over.reshape(fans.shape)
    beside = (screen.pixels.max(axis=2) > 60) & ~fans
    return (
        frames,
        beside,
        over & fans,
        fans & ~cv2.dilate(over.astype(np.uint8), np.ones((5, 5))).astype(bool),
    )


@pytest.mark.parametrize("index", [0, 1, 2])
def test_text_rulers_bars_and_calipers_are_found_and_echoes_are_left(index):
    frames, beside, over, echoes = drawn_and_echoes(index)
    found = static_overlays(frames)
    assert found[beside].mean() > 0.999
    assert over.any()
    assert found[over].mean() > 0.99
    assert found[echoes].mean() < 0.002


def test_the_changing_clock_is_masked_in_all_its_digits():
    frames, *_ = drawn_and_echoes(0)
    found = static_overlays(frames)
    ink = frames[:, 405:].max(axis=(0, 3)) > 60
    assert found[405:][ink].all()


def test_with_lossy_compression_most_is_found():
    frames, beside, over, echoes = drawn_and_echoes(1, jpeg=90)
    found = static_overlays(frames)
    assert found[beside].mean() > 0.99
    assert found[over].mean() > 0.6
    assert found[echoes].mean() < 0.03


def test_one_frame_says_nothing():
    with pytest.raises(ValueError, match="at least two"):
        static_overlays(np.zeros((1, 40, 40, 3), np.uint8))
