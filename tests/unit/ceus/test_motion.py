"""Motion: shifts to a fraction of a pixel, lost sections refused, walls and fans left alone."""

from functools import lru_cache

import cv2
import numpy as np
import pytest

from renalkit.ceus.motion import (
    Shift,
    Track,
    Tracker,
    TrackOptions,
    finish_track,
    in_plane,
    moved_box,
    moved_mask,
    track,
    walk,
)
from renalkit.domain.geometry import Box
from renalkit.phantom.ceus.console import Layout, Panel
from renalkit.phantom.ceus.motion import displacement
from renalkit.phantom.ceus.study import CeusOptions, CeusStudy, draw_ceus
from renalkit.phantom.patients import PatientPlan, Stream, draw_patient

BOX = Box(60, 70, 80, 70)


def speckle(seed, shape=(220, 240)):
    """Speckle as a picture shows it, (H,W) float, room around it."""
    rng = np.random.default_rng(seed)
    field = rng.standard_normal((2, shape[0] + 100, shape[1] + 100))
    blurred = [cv2.GaussianBlur(part, (0, 0), 1.5) for part in field]
    envelope = np.hypot(*blurred)
    return np.clip(90 + 30 * np.log(envelope / envelope.mean() + 1e-3), 5, 250)


def shown(field, dx=0.0, dy=0.0, seed=None, shape=(220, 240)):
    """The field after a shift, with electronic noise, as grey levels."""
    by = np.array([[1, 0, dx - 50], [0, 1, dy - 50]], np.float32)
    picture = cv2.warpAffine(field.astype(np.float32), by, (shape[1], shape[0]))
    if seed is not None:
        picture = picture + np.random.default_rng(seed).normal(0, 4, shape)
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


@lru_cache(maxsize=4)
def cine(index, step_s=0.5, *, calipers=False, moving=True):
    """B-mode panes (T,h,w) of a simulated clip, and what is true of them."""
    patient = draw_patient(PatientPlan(20, seed=50_000), index)
    options = CeusOptions(duration_s=60.0, layout=Layout.LEFT, calipers=calipers, moving=moving)
    study = CeusStudy(
        draw_ceus(
            (patient.anatomy, patient.views[0]),
            patient.scanner,
            patient.latents.ceus,
            patient.stream(Stream.CEUS),
            options,
        )
    )
    times = np.arange(0, 60, step_s)
    view = study.places[Panel.BMODE].view
    frames, truths = zip(
        *((pixels[view.slices], truth) for pixels, truth in study.frames(times)), strict=True
    )
    return np.stack(frames), truths, displacement(study.plan.motion, times), study.scene.mm_per_px


def lesion_box(truth, shape):
    section = truth.sections["lesion"]
    height, width = section.mask.shape
    return Box(section.x, section.y, width, height).clipped(*shape)


def true_shift(moved, mm_per_px, reference):
    right, deep = moved.right_mm / mm_per_px, moved.deep_mm / mm_per_px
    return np.stack([right - right[reference], deep - deep[reference]], axis=1)


@pytest.mark.parametrize("method", ["template", "phase"])
@pytest.mark.parametrize("shift", [(0.0, 0.0), (3.4, -7.8), (-31.25, 22.6), (44.5, 0.5)])
def test_a_shift_is_found_to_a_tenth_of_a_pixel(method, shift):
    field = speckle(1)
    tracker = Tracker(shown(field, seed=1), BOX, TrackOptions(method=method))
    found = tracker.step(shown(field, *shift, seed=2))
    assert found.dx == pytest.approx(shift[0], abs=0.15)
    assert found.dy == pytest.approx(shift[1], abs=0.15)
    assert found.correlation > 0.75


def test_colour_pictures_give_the_shift_of_grey_ones():
    field = speckle(2)
    first, other = shown(field), shown(field, 4.0, 2.0)
    in_colour = Tracker(np.dstack([first] * 3), BOX).step(np.dstack([other] * 3))
    in_grey = Tracker(first, BOX).step(other)
    assert (in_colour.dx, in_colour.dy) == pytest.approx((in_grey.dx, in_grey.dy), abs=1e-3)


def test_the_search_follows_a_drift_far_beyond_its_reach_and_comes_back():
    field = speckle(3, (220, 400))
    tracker = Tracker(shown(field, shape=(220, 400)), BOX, TrackOptions(search_px=16))
    for dx in range(0, 100, 10):
        assert tracker.step(shown(field, dx, 0, shape=(220, 400))).dx == pytest.approx(dx, abs=0.2)
    assert tracker.step(shown(field, 0, 0, shape=(220, 400))).dx == pytest.approx(0, abs=0.2)


def test_a_bright_fixed_wall_and_a_change_of_gain_do_not_hold_the_template():
    field, wall = speckle(4), np.minimum(255, 60 + shown(speckle(14)).astype(int))
    first, other = shown(field), (0.6 * shown(field, 9.0, -6.0)).astype(np.uint8)
    first[:84], other[:84] = wall[:84], wall[:84]
    found = Tracker(first, BOX).step(other)
    assert (found.dx, found.dy) == pytest.approx((9.0, -6.0), abs=0.2)


def test_overlays_are_left_out():
    field = speckle(5)
    first, other = shown(field), shown(field, 6.0, 5.0)
    overlay = np.zeros(first.shape, np.bool_)
    overlay[80:130:4, 62:138:2] = True
    first[overlay], other[overlay] = 255, 255
    found = Tracker(first, BOX, ignore=overlay).step(other)
    assert (found.dx, found.dy) == pytest.approx((6.0, 5.0), abs=0.3)


def test_a_box_at_the_edge_is_followed_out_of_the_picture():
    field = speckle(6)
    tracker = Tracker(shown(field), Box(0, 0, 70, 70))
    found = tracker.step(shown(field, -12.0, -9.0))
    assert (found.dx, found.dy) == pytest.approx((-12.0, -9.0), abs=0.2)


def test_refining_averages_the_pictures_that_show_the_section():
    field, other = speckle(7), speckle(8)
    noise = np.random.default_rng(0)
    assert Tracker(shown(field), BOX).refine([]) == 0

    def noisy(source, dx, dy):
        return np.clip(shown(source, dx, dy) + noise.normal(0, 25, (220, 240)), 0, 255).astype(
            np.uint8
        )

    pictures = [noisy(field, dx, dy) for dx, dy in [(0, 0), (5, 2), (-8, 3), (2, -6), (4, 4)]]
    tracker = Tracker(noisy(field, 0, 0), BOX)
    before = tracker.step(pictures[1]).correlation
    assert tracker.refine([*pictures, noisy(other, 0, 0)]) == 5
    again = tracker.step(noisy(field, 11, -4))
    assert again.correlation > before + 0.1
    assert (again.dx, again.dy) == pytest.approx((11, -4), abs=0.3)


def test_other_speckle_correlates_as_a_mixture_should():
    """Half of another section leaves 0.71 of the correlation: what `lost_below` rests on."""
    field, other = speckle(9), speckle(10)
    tracker = Tracker(shown(field), BOX)
    mixed = cv2.addWeighted(shown(field), 0.5, shown(other), 0.5, 0)
    assert tracker.step(mixed).correlation == pytest.approx(0.71, abs=0.06)
    assert tracker.step(shown(other)).correlation < 0.3


@pytest.mark.parametrize("method", ["template", "phase"])
def test_a_breathing_phantom_is_followed_and_lost_sections_are_refused(method):
    frames, truths, moved, mm_per_px = cine(1)
    reference = 40
    box = lesion_box(truths[reference], frames.shape[1:3])
    result = track(frames, box, reference, TrackOptions(method=method))
    lost = moved.out_of_plane >= 0.5
    error = np.hypot(*(result.shift_px - true_shift(moved, mm_per_px, reference)).T)
    assert (moved.out_of_plane >= 0.6).sum() >= 2
    assert (~result.kept[moved.out_of_plane >= 0.6]).all()
    assert result.kept[~lost].mean() >= 0.95
    assert np.median(error[result.kept]) < 0.3
    assert error[result.kept].max() < 1.0
    assert result.residual_correlation > 0.7
    assert result.method == method


def test_a_clip_that_stays_in_plane_keeps_its_frames():
    frames, truths, _, _ = cine(2, 2.0, moving=False)
    result = track(frames, lesion_box(truths[0], frames.shape[1:3]), 0)
    assert result.kept_share == 1.0
    assert max(result.travel_px) < 0.5


def test_calipers_left_on_the_mass_do_not_hold_the_template():
    frames, truths, moved, mm_per_px = cine(3, 1.0, calipers=True)
    result = track(frames, lesion_box(truths[10], frames.shape[1:3]), 10)
    error = np.hypot(*(result.shift_px - true_shift(moved, mm_per_px, 10)).T)
    assert np.median(error[result.kept]) < 0.5


def test_the_track_does_not_depend_on_the_order_in_which_frames_are_asked_for():
    field = speckle(11)
    frames = np.stack([shown(field, 2.0 * i, -i, seed=i) for i in range(9)])
    asked = []

    class Stack:
        shape, dtype = frames.shape, frames.dtype

        def __getitem__(self, index):
            asked.append(index)
            return frames[index]

    seen = []
    result = track(Stack(), BOX, 4, visit=lambda index, *_: seen.append(index))
    assert seen == [4, 5, 6, 7, 8, 3, 2, 1, 0] == list(walk(9, 4))
    assert sorted(asked) == [0, 1, 2, 3, 4, 4, 5, 6, 7, 8]
    assert result.shift_px[4] == pytest.approx((0, 0), abs=0.01)
    assert result.correlation[4] == pytest.approx(1.0, abs=1e-4)
    assert np.abs(result.shift_px - [(2.0 * (i - 4), 4 - i) for i in range(9)]).max() < 0.2


def test_frames_of_noise_are_all_lost_but_the_reference():
    rng = np.random.default_rng(12)
    frames = rng.integers(0, 255, (8, 160, 160)).astype(np.uint8)
    result = track(frames, Box(40, 40, 64, 64), 3)
    assert result.kept.tolist() == [i == 3 for i in range(8)]
    assert result.residual_correlation is None


def test_in_plane_needs_more_than_chance_and_survives_many_lost_frames():
    kept, limit = in_plane([0.9] * 5 + [0.4] * 12)
    assert kept.tolist() == [True] * 5 + [False] * 12
    assert limit == pytest.approx(0.75 * 0.9)
    assert not in_plane([0.2, 0.25, 0.1], chance=0.06)[0].any()
    assert in_plane([1.0, 0.6, 0.5], reference=0)[0].all()
    assert in_plane([0.85, 0.8, 0.9, 0.75])[0].all()
    assert not in_plane([0.14, 0.12])[0].any()
    assert in_plane([])[0].size == 0


def test_boxes_move_by_whole_pixels_and_stay_inside():
    box = Box(10, 20, 30, 40)
    assert moved_box(box, 2.6, -3.4, 100, 100) == Box(13, 17, 30, 40)
    assert moved_box(box, -20, 0, 100, 100) == Box(0, 20, 20, 40)
    assert moved_box(box, 0, 95, 100, 100) is None


def test_masks_move_by_fractions_of_pixels():
    mask = np.zeros((60, 60), np.bool_)
    cv2_mask = mask.astype(np.uint8)
    cv2.circle(cv2_mask, (30, 30), 10, 1, -1)
    mask = cv2_mask > 0
    whole = moved_mask(mask, 5, -4)
    assert (whole[:50, 5:] == mask[4:54, :-5]).all()
    rows, cols = np.nonzero(moved_mask(mask, 2.5, 3.25))
    assert (cols.mean() - 30, rows.mean() - 30) == pytest.approx((2.5, 3.25), abs=0.5)
    assert moved_mask(mask, 100, 0).sum() == 0
    assert 0 < moved_mask(mask, 25, 0).sum() < mask.sum()
    assert moved_mask(np.zeros_like(mask), 3, 3).sum() == 0


def test_motion_is_scaled_to_a_pane_of_other_spacing():
    result = Track(
        0, BOX, np.array([[0.0, 0.0], [4.0, 6.0]]), np.ones(2), np.ones(2, np.bool_), 0.5, "phase"
    )
    other = result.scaled((0.3, 0.4), (0.6, 0.2))
    assert other.shift_px[1].tolist() == pytest.approx([8.0, 3.0])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: TrackOptions(method="flow"), "neither 'template' nor 'phase'"),
        (lambda: TrackOptions(search_px=1), "not within 4 to 500"),
        (lambda: TrackOptions(least_px=300), "no template can be cut"),
        (lambda: TrackOptions(lost_below=1.5), "are between 0 and 1"),
        (lambda: TrackOptions(above_chance=0), "must be positive"),
        (lambda: Tracker(np.zeros((100, 100), np.uint8), Box(10, 10, 50, 50)), "no speckle"),
        (lambda: Tracker(np.zeros((100, 100), np.uint8), Box(60, 10, 50, 50)), "leaves"),
        (lambda: Tracker(np.zeros((9, 100), np.uint8), Box(0, 0, 5, 5)), "too small"),
        (lambda: Tracker(np.zeros((100, 100)), Box(0, 0, 50, 50)), "not .* of 8 bits"),
        (lambda: Tracker(shown(speckle(0)), BOX).step(np.zeros((9, 9), np.uint8)), "a clip of"),
        (lambda: track(np.zeros((3, 99, 99), np.uint8), BOX, 3), "reference frame 3 of 3"),
        (lambda: finish_track(Tracker(shown(speckle(0)), BOX), 5, [Shift(0, 0, 1)]), "frame 5"),
    ],
)
def test_what_cannot_be_followed_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
