"""Frame selection: four rules, gates, a reason for every frame, the same every time."""

from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import pytest

from renalkit.ceus.frames import (
    RULES,
    FrameQuality,
    Gates,
    Wanted,
    find_flashes,
    missing_frames,
    select_frames,
    sharpness_of,
    white_share,
)
from renalkit.ceus.phases import Phase, label_phases
from renalkit.phantom.ceus.console import Layout, Panel
from renalkit.phantom.ceus.study import CeusOptions, CeusStudy, draw_ceus
from renalkit.phantom.patients import PatientPlan, Stream, draw_patient

TIMES = np.arange(0, 60, 0.25)
PHASES = label_phases(TIMES, injection_s=0.0).labels
WANTED = Wanted(per_phase=5)


def table(seed=0, **changes):
    """240 frames at 4/s, some of which fail a gate."""
    rng = np.random.default_rng(seed)
    count = len(TIMES)
    correlation = rng.uniform(0.7, 0.95, count)
    kept = np.ones(count, np.bool_)
    kept[60:68] = False
    shift = np.stack([6 * np.sin(2 * np.pi * TIMES / 4), np.zeros(count)], axis=1)
    quality = FrameQuality(
        times_s=TIMES,
        sharpness=rng.uniform(90, 110, count),
        saturated=np.zeros(count),
        correlation=correlation,
        shift_px=shift,
        kept=kept,
        flash=np.zeros(count, np.bool_),
    )
    return replace(quality, **changes)


def picked(choices):
    return [c.index for c in choices if c.chosen]


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_chooses_usable_frames_of_the_wanted_phases_and_logs_all(rule):
    wanted = replace(WANTED, rule=rule, anchors=(50, 130) if rule == "anchor" else ())
    choices = select_frames(table(), PHASES, wanted)
    assert [c.index for c in choices] == list(range(240))
    assert all(c.reason and c.phase == PHASES[c.index] for c in choices)
    chosen = [c for c in choices if c.chosen]
    assert len(chosen) == 10
    assert all(table().kept[c.index] for c in chosen)
    assert {c.phase for c in chosen} == {Phase.CORTICAL, Phase.MEDULLARY}
    assert choices == select_frames(table(), PHASES, wanted)
    assert choices[61].reason.startswith("out of plane")
    assert choices[0].reason == "phase baseline is not wanted"
    assert missing_frames(choices, wanted) == {}


def test_phase_takes_even_steps_of_time_within_each_phase():
    choices = select_frames(table(kept=np.ones(240, np.bool_)), PHASES, WANTED)
    cortical = TIMES[[c.index for c in choices if c.chosen and c.phase == Phase.CORTICAL]]
    assert cortical.tolist() == [12.0, 16.0, 20.0, 24.0, 28.0]
    assert choices[48].reason == "step 1 of 5 of cortical, nearest to 12.0 s"


def test_uniform_takes_even_steps_over_the_phases_together():
    wanted = Wanted("uniform", per_phase=5)
    times = TIMES[picked(select_frames(table(kept=np.ones(240, np.bool_)), PHASES, wanted))]
    assert np.diff(times) == pytest.approx(5.0, abs=0.26)
    assert times[0] == pytest.approx(12.5, abs=0.13)


def test_uniform_counts_seconds_and_not_frames():
    """Twice the frame rate in the second half must not draw twice the pictures there."""
    times = np.concatenate([np.arange(0, 30, 0.5), np.arange(30, 60, 0.05)])
    count = len(times)
    quality = FrameQuality(
        times, np.ones(count), np.zeros(count), np.ones(count), np.zeros((count, 2)),
        np.ones(count, np.bool_), np.zeros(count, np.bool_),
    )  # fmt: skip
    chosen = picked(select_frames(quality, None, Wanted("uniform", per_phase=10)))
    assert sum(times[chosen] < 30) == 10


def test_keyframe_takes_the_best_of_each_bin():
    correlation = np.full(240, 0.8)
    correlation[[46, 70]] = 0.95
    sharpness = np.full(240, 100.0)
    sharpness[85] = 150.0
    wanted = Wanted("keyframe", per_phase=5)
    quality = table(correlation=correlation, sharpness=sharpness, kept=np.ones(240, np.bool_))
    chosen = picked(select_frames(quality, PHASES, wanted))
    assert {46, 70, 85} <= set(chosen)


def test_anchor_takes_frames_near_in_time_or_alike_in_position():
    near = Wanted("anchor", per_phase=3, anchors=(80, 160))
    choices = select_frames(table(), PHASES, near)
    assert picked(choices) == [79, 80, 81, 159, 160, 161]
    assert choices[81].reason == "cortical, 0.25 s from anchor frame 80"
    alike = replace(near, near="appearance", anchors=(84,), per_phase=4)
    choices = select_frames(table(), PHASES, alike)
    shift = table().shift_px
    assert np.abs(shift[picked(choices)] - shift[84]).max() < 0.01
    assert len(picked(choices)) == 8


def test_an_anchor_out_of_plane_has_no_appearance_to_compare_with():
    wanted = Wanted("anchor", per_phase=3, anchors=(61,), near="appearance")
    with pytest.raises(ValueError, match="frame 61 is out of plane"):
        select_frames(table(), PHASES, wanted)


def test_each_gate_gives_its_reason():
    flash, saturated = np.zeros(240, np.bool_), np.zeros(240)
    sharpness, shift = np.full(240, 100.0), np.zeros((240, 2))
    flash[50], saturated[51], sharpness[52] = True, 0.3, 30.0
    shift[54:] = 60.0
    shift[53] = 90.0
    quality = table(flash=flash, saturated=saturated, sharpness=sharpness, shift_px=shift)
    reasons = {c.index: c.reason for c in select_frames(quality, PHASES, WANTED)}
    assert reasons[50] == "flash"
    assert reasons[51] == "saturated: 30% of the region is white"
    assert reasons[52].startswith("blurred: 0.30 of")
    assert reasons[53].startswith("in motion: 17")
    assert not reasons[54].startswith("in motion")
    free = Gates(sharpness=0.0, saturated=1.0, fastest_px_s=1e9, flash=True, out_of_plane=True)
    blocked = ("flash", "saturated", "blurred", "in motion", "out of plane")
    open_choices = select_frames(quality, PHASES, WANTED, free)
    assert not any(c.reason.startswith(blocked) for c in open_choices)


def test_a_step_without_a_usable_frame_is_made_up_for():
    kept = np.ones(240, np.bool_)
    kept[40:72] = False
    choices = select_frames(table(kept=kept), PHASES, WANTED)
    assert Counter(c.phase for c in choices if c.chosen) == {
        Phase.CORTICAL: 5,
        Phase.MEDULLARY: 5,
    }
    assert any("which holds no usable frame" in c.reason for c in choices if c.chosen)


def test_too_few_usable_frames_are_all_chosen_and_the_shortfall_is_told():
    kept = np.zeros(240, np.bool_)
    kept[[45, 90]] = True
    choices = select_frames(table(kept=kept), PHASES, WANTED)
    assert picked(choices) == [45, 90]
    assert missing_frames(choices, WANTED) == {Phase.CORTICAL: 3, Phase.MEDULLARY: 5}


def test_a_clip_that_ends_early_lacks_a_phase():
    choices = select_frames(
        FrameQuality(TIMES[:80], *(a[:80] for a in rows(table()))), PHASES[:80], WANTED
    )
    assert missing_frames(choices, WANTED) == {Phase.MEDULLARY: 5}


def rows(quality):
    return (
        quality.sharpness, quality.saturated, quality.correlation, quality.shift_px,
        quality.kept, quality.flash,
    )  # fmt: skip


def test_without_times_only_uniform_steps_of_frames_can_be_taken():
    quality = table(times_s=None, kept=np.ones(240, np.bool_))
    choices = select_frames(quality, None, Wanted("uniform", per_phase=5))
    assert np.unique(np.diff(picked(choices))).tolist() == [24]
    assert all(c.phase is None for c in choices)
    with pytest.raises(ValueError, match="neither a contrast clock nor an arrival"):
        select_frames(quality, None, WANTED)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Wanted("best"), "not one of uniform, phase, keyframe, anchor"),
        (lambda: Wanted(per_phase=0), "at least one frame"),
        (lambda: Wanted(phases=(Phase.LATE, Phase.LATE)), "named once"),
        (lambda: Wanted("anchor"), "exactly with the rule 'anchor'"),
        (lambda: Wanted("anchor", anchors=(1,), near="colour"), "neither 'time' nor"),
        (lambda: Gates(sharpness=2.0), "shares between"),
        (lambda: Gates(near_s=0), "must be positive"),
        (lambda: table(times_s=TIMES[::-1]), "must rise"),
        (lambda: table(times_s=TIMES[1:]), "240 frames"),
        (lambda: table(flash=np.zeros(3, np.bool_)), "one row per frame"),
        (lambda: select_frames(table(), PHASES[1:]), "239 phases for 240"),
        (lambda: select_frames(table(), PHASES, Wanted("anchor", anchors=(240,))), "240 frames"),
        (lambda: find_flashes([0.0, 1.0], [1.0]), "2.* times and .*1.* grey"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_blur_lowers_sharpness_and_white_is_counted():
    picture = np.random.default_rng(0).integers(0, 255, (60, 60)).astype(np.uint8)
    assert sharpness_of(cv2.GaussianBlur(picture, (0, 0), 2.0)) < 0.2 * sharpness_of(picture)
    assert sharpness_of(np.zeros((20, 20), np.uint8)) == 0.0
    assert white_share(np.array([255, 254, 253, 0], np.uint8)) == 0.5
    assert white_share(np.zeros(0, np.uint8)) == 0.0


def test_flashes_of_a_phantom_are_found_and_nothing_else():
    patient = draw_patient(PatientPlan(20, seed=50_000), 4)
    options = CeusOptions(
        rows=300, cols=400, duration_s=60, rate_hz=10, layout=Layout.LEFT, flash=True
    )
    study = CeusStudy(
        draw_ceus(
            (patient.anatomy, patient.views[0]),
            patient.scanner,
            patient.latents.ceus,
            patient.stream(Stream.CEUS),
            options,
        )
    )
    times = np.concatenate([np.arange(8, 28, 0.5), np.arange(28, 34, 0.25)])
    view = study.places[Panel.CONTRAST].view
    grey, truth = zip(
        *((pixels[view.slices][..., 0].mean(), t.flash) for pixels, t in study.frames(times)),
        strict=True,
    )
    assert sum(truth) == 2
    assert find_flashes(times, grey).tolist() == list(truth)
