"""Reading the burned-in contrast clock and holding it against the frame times."""

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from renalkit.ceus.clock import Clock, NoClock, check_clock, find_clock, read_clock
from renalkit.ceus.glyphs import ALPHABET, FACES, read_line, templates
from renalkit.domain.geometry import Box
from renalkit.phantom.ceus.console import Layout
from renalkit.phantom.ceus.study import CeusOptions, CeusStudy, draw_ceus
from renalkit.phantom.patients import PatientPlan, Stream, draw_patient

PLAN = PatientPlan(400, seed=812)
TIMES = np.arange(0.0, 72.0, 6.1)


def phantom_film(index, times):
    patient = draw_patient(PLAN, index)
    features = None if patient.latents is None else patient.latents.ceus
    options = CeusOptions(layout=list(Layout)[index % 4], rows=450, cols=600, duration_s=80.0)
    subject = (patient.anatomy, patient.views[0])
    plan = draw_ceus(subject, patient.scanner, features, patient.stream(Stream.CEUS), options)
    study = CeusStudy(plan)
    shown = [(frame.copy(), truth.clock_s) for frame, truth in study.frames(times)]
    return np.stack([f for f, _ in shown]), np.floor([c + 1e-6 for _, c in shown]), study


def written(texts, *, size=(400, 640), at=(380, 360), scale=0.5, noise=False):
    """Frames (N,H,W,3) with one text each, and moving noise above."""
    rng = np.random.default_rng(3)
    frames = np.zeros((len(texts), *size, 3), np.uint8)
    for frame, text in zip(frames, texts, strict=True):
        if noise:
            frame[20:140, 40:280] = rng.integers(0, 200, (120, 240, 1), np.uint8)
        cv2.putText(frame, "Kidney CEUS 0.07", (5, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.35, (200,) * 3)
        ink = (230, 230, 180)
        cv2.putText(frame, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, ink, 1, cv2.LINE_AA)
    return frames


def shown_at(times, form="T1 {m}:{s:02d}"):
    return [form.format(m=int(t // 60), s=int(t % 60), d=int(round(10 * t) % 10)) for t in times]


@pytest.mark.parametrize("index", [0, 1, 2, 5])
def test_the_clock_of_a_phantom_is_read_in_every_frame(index):
    film, true, study = phantom_film(index, TIMES)
    reading = read_clock(film, TIMES.tolist())
    assert reading.seconds == tuple(true.tolist())
    assert (reading.agrees, reading.agreement, reading.step_s) == (True, 1.0, 1.0)
    assert reading.injection_s == pytest.approx(-study.plan.timing.clock_start_s, abs=0.6)
    assert reading.box is not None


def test_jpeg_and_a_flash_do_not_disturb_it():
    film, true, _ = phantom_film(2, TIMES)
    coded = [cv2.imencode(".jpg", f, [cv2.IMWRITE_JPEG_QUALITY, 75])[1] for f in film]
    film = np.stack([cv2.imdecode(c, 1) for c in coded])
    assert read_clock(film, TIMES.tolist()).seconds == tuple(true.tolist())


@pytest.mark.parametrize(
    ("form", "step"),
    [("T1 {m}:{s:02d}", 1.0), ("{m:02d}:{s:02d}", 1.0), ("{m}:{s:02d}.{d}", 0.1)],
)
def test_forms_of_clocks(form, step):
    times = np.array([46.0, 47.3, 51.2, 59.9, 60.1, 71.5, 93.4, 125.8])
    reading = read_clock(written(shown_at(times, form), noise=True), (times - 40.0).tolist())
    wanted = np.floor(times / step + 1e-6) * step
    assert np.allclose(np.array(reading.seconds, float), wanted)
    assert reading.step_s == step
    assert reading.agrees
    assert reading.injection_s == pytest.approx(-40.0, abs=step)


def test_a_clock_before_injection_is_negative():
    times = [-3.0, -2.0, -1.0, 0.0, 1.0, 2.0]
    texts = ["T1 -0:03", "T1 -0:02", "T1 -0:01", "T1 0:00", "T1 0:01", "T1 0:02"]
    reading = read_clock(written(texts), [t + 3.5 for t in times])
    assert reading.seconds == tuple(times)
    assert reading.injection_s == pytest.approx(3.0, abs=0.6)


@pytest.mark.parametrize("size", [12, 16, 30])
def test_another_face(size):
    times = np.arange(3.0, 120.0, 9.7)
    frames = []
    for text in shown_at(times):
        picture = Image.new("RGB", (800, 600))
        font = ImageFont.load_default(size)
        ImageDraw.Draw(picture).text((400, 550), text, fill=(220, 220, 220), font=font)
        frames.append(np.asarray(picture))
    reading = read_clock(np.stack(frames), times.tolist())
    assert [s for s in reading.seconds if s is not None] == [
        np.floor(t) for t, s in zip(times, reading.seconds, strict=True) if s is not None
    ]
    assert reading.read_share > 0.9


def test_a_wrong_clock_is_reported_not_used():
    times = np.arange(0.0, 60.0, 5.0)
    fast = read_clock(written(shown_at(1.2 * times)), times.tolist())
    assert fast.agrees is False
    assert "1.20 s per second" in fast.words
    assert fast.injection_s is None
    again = np.where(times < 30, times + 20, times - 30)
    reset = read_clock(written(shown_at(again)), times.tolist())
    assert (reset.agrees, reset.injection_s) == (False, None)
    stopped = read_clock(written(shown_at(np.full(12, 46.0))), times.tolist())
    assert stopped.agrees is False
    assert "stands still" in stopped.words


def test_a_small_picture():
    frames = written(shown_at(np.arange(8.0)), size=(200, 320), at=(190, 180))
    assert read_clock(frames).seconds == tuple(np.arange(8.0))


def test_without_frame_times_the_clock_is_read_but_not_compared():
    reading = read_clock(written(shown_at(np.arange(8.0))))
    assert reading.seconds == tuple(np.arange(8.0))
    assert (reading.agrees, reading.offset_s, reading.injection_s) == (None, None, None)


@pytest.mark.parametrize(
    "texts",
    [
        [""] * 6,
        [f"10:42:{s:02d}" for s in range(6)],  # time of day
        [f"{n}/128" for n in range(100, 106)],  # frame counter
        [f"MI 0.{n:02d}" for n in range(6)],
        ["00:46"] * 6,  # a date's time that stands still and has no mark
    ],
)
def test_other_text_is_no_clock(texts):
    reading = read_clock(written(texts), np.arange(6.0).tolist())
    assert reading.seconds == (None,) * 6
    assert reading.box is None
    assert "none reads like a clock" in reading.reason


def test_a_still_needs_the_mark():
    assert read_clock(written(["T1 0:46"])).seconds == (46.0,)
    assert isinstance(find_clock(written(["00:46"])), NoClock)


def test_a_slip_between_good_readings_is_dropped():
    clock = Clock(Box(0, 0, 9, 9), "simplex", 9, 0.99)
    reading = check_clock(clock, [1.0, 2.0, 38.0, 4.0, None], [1.5, 2.5, 3.5, 4.5, 5.5])
    assert reading.seconds == (1.0, 2.0, None, 4.0, None)
    assert reading.agreement == 1.0
    with pytest.raises(ValueError, match="2 frame times for 1 readings"):
        check_clock(clock, [1.0], [1.0, 2.0])


def test_a_face_that_is_only_similar_must_run_with_the_frame_times():
    clock = Clock(Box(0, 0, 9, 9), "simplex", 9, 0.7)
    times = [float(t) for t in range(10)]
    wild = check_clock(clock, [3.0, 8.0, 2.0, 30.0, 4.0, 9.0, 51.0, 7.0, 3.0, 1.0], times)
    assert wild.seconds == (None,) * 10
    assert "face" in wild.reason
    one_off = check_clock(clock, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 40.0], times)
    assert one_off.seconds == (*(float(n) for n in range(1, 10)), None)
    assert check_clock(clock, [1.0, 2.0], None).seconds == (None, None)


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("height", [7, 11, 24])
def test_every_face_reads_its_own_digits(face, height):
    shapes = templates(face, height)
    assert set(shapes) == set(ALPHABET)
    for text in ("0123456789", "T12:35.4", "-8:06"):
        line = np.concatenate([shapes[c] for c in text], axis=1)
        read = read_line(np.pad(line, ((3, 3), (4, 4))).astype(np.float32), face, height)
        assert read.text == text
        assert read.score > 0.9
    with pytest.raises(ValueError, match="no face"):
        templates("gothic", 10)
