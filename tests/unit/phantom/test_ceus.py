"""Contrast clips: pixels and truth agree, noise is as stated, nothing grows with the length."""

import hashlib
import tracemalloc
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from renalkit.ceus.bolus import BolusKind, curve_values, mixture_values
from renalkit.ceus.frames import FrameQuality, Wanted, select_frames
from renalkit.ceus.phases import label_phases
from renalkit.phantom.bmode.anatomy import draw_anatomy, draw_view
from renalkit.phantom.bmode.lesion import lesion_features
from renalkit.phantom.bmode.picture import SCANNERS
from renalkit.phantom.ceus.console import Layout, Panel, background, clock_patch
from renalkit.phantom.ceus.contrast import BeamGrid, BubbleSpeckle
from renalkit.phantom.ceus.motion import STILL, displacement
from renalkit.phantom.ceus.study import (
    SILENT,
    CeusOptions,
    CeusStudy,
    Noise,
    crop_pairs,
    draw_ceus,
    linear_power,
    pair_times,
)
from renalkit.phantom.patients import PatientPlan, draw_patient

SMALL = CeusOptions(rows=300, cols=400, rate_hz=2.0, layout=Layout.LEFT)


def plan_of(seed, options=SMALL, features=None, *, mass=True):
    rng = np.random.default_rng(seed)
    lesion = replace(lesion_features(rng.standard_normal(3), rng), size_mm=32.0) if mass else None
    anatomy = draw_anatomy(lesion, "right" if seed % 2 else "left", rng)
    subject = anatomy, draw_view(anatomy, rng)
    drawn = rng.standard_normal(4) if features is None else np.asarray(features, float)
    return draw_ceus(subject, SCANNERS[seed % 3], drawn if mass else None, rng, options)


def quiet(plan, noise=SILENT):
    """Without motion, at a gain that neither clips nor hides the mass."""
    shown = replace(plan.display, headroom_db=13.0)
    return replace(plan, motion=STILL, display=shown, noise=noise)


def curve(study, name, times=None, panel=Panel.CONTRAST):
    """Mean linear power of a region as measured on the screen with the true mask."""
    dynamic_range = study.plan.display.dynamic_range_db
    powers = []
    for pixels, truth in study.frames(times):
        box, section = truth.box(name, panel), truth.sections[name]
        powers.append(linear_power(pixels[box.slices][section.mask][:, 0], dynamic_range).mean())
    return np.array(powers)


@lru_cache(maxsize=8)
def silent_study(seed):
    return CeusStudy(quiet(plan_of(seed)))


def digest(plan, times):
    total = hashlib.sha256()
    for pixels, _ in CeusStudy(plan).frames(times):
        total.update(pixels.tobytes())
    return total.hexdigest()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others():
    times = [0.0, 12.0, 12.5, 30.0]
    first, again = plan_of(4), plan_of(4)
    assert first == again
    assert digest(first, times) == digest(again, times)
    assert digest(first, times) != digest(replace(first, seed=first.seed + 1), times)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", ["lesion", "cortex"])
def test_without_noise_the_screen_gives_the_expected_curve(seed, name):
    study = silent_study(seed)
    times = study.plan.frame_times_s()
    truth = study.rois[name].values
    measured, expected = curve(study, name), study.expected(name, times)
    # 8-bit rounding of the logarithm is unbiased: a mean over many pixels is exact to 0.3 %.
    assert np.abs(measured - expected).max() < 0.003 * truth.peak


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_figures_read_off_the_screen_are_the_stated_ones(seed):
    study = silent_study(seed)
    times = np.concatenate([np.arange(0, 60, 0.5), np.geomspace(60, 600, 40)])
    truth = study.rois["lesion"]
    measured = curve(study, "lesion", times) - truth.baseline
    values = truth.values
    assert measured.max() == pytest.approx(values.peak, rel=0.005)
    assert times[measured.argmax()] == pytest.approx(values.peak_at_s, abs=0.75)
    # First moment and areas by trapezoids. Far out, rounding counts as much as the curve: the
    # moment is that of the first two minutes, of the screen and of the true curve.
    early = times <= 120
    wanted = (study.expected("lesion", times) - truth.baseline)[early]
    t, found = times[early], measured[early]
    moments = [np.trapezoid(y * t, t) / np.trapezoid(y, t) for y in (found, wanted)]
    assert moments[0] == pytest.approx(moments[1], abs=0.1)
    pieces = np.diff(times) * (measured[1:] + measured[:-1]) / 2
    area = np.concatenate([[0.0], np.cumsum(pieces)])
    assert np.interp(values.peak_at_s, times, area) == pytest.approx(values.wash_in, rel=0.02)


@pytest.mark.parametrize("kind", BolusKind)
def test_the_region_of_a_mass_is_that_mass_but_for_its_edge(kind):
    plan = quiet(plan_of(3, replace(SMALL, kind=kind)))
    region, mass = CeusStudy(plan).rois["lesion"].values, plan.perfusion.lesion.bolus
    alone = curve_values(mass)
    assert region.peak_at_s == pytest.approx(alone.peak_at_s, abs=0.5)
    assert region.transit_s == pytest.approx(alone.transit_s, rel=0.03)
    assert region.arrival_s == pytest.approx(alone.arrival_s, abs=0.3)
    cortex = CeusStudy(plan).rois["cortex"].values
    assert region.peak / cortex.peak == pytest.approx(alone.peak, rel=0.2)


def test_features_move_what_is_measured():
    figures = {}
    for sign in (-1.5, 1.5):
        for index, name in enumerate(("peak", "arrival", "washout")):
            features = np.zeros(4)
            features[index] = sign
            values = CeusStudy(quiet(plan_of(5, features=features))).rois["lesion"].values
            figures[name, sign] = (values.peak, values.arrival_s, values.transit_s)
    assert figures["peak", 1.5][0] > 3 * figures["peak", -1.5][0]
    assert figures["arrival", 1.5][1] < figures["arrival", -1.5][1] - 4
    assert figures["washout", 1.5][2] < 0.5 * figures["washout", -1.5][2]


def test_unevenness_can_be_seen_in_the_mass():
    found = []
    for feature in (-1.5, 0.0, 1.5):
        study = CeusStudy(quiet(plan_of(7, features=[0.5, 0, 0, feature])))
        at = study.rois["lesion"].values.peak_at_s
        ((pixels, truth),) = study.frames([at])
        grey = pixels[truth.box("lesion", Panel.CONTRAST).slices][truth.sections["lesion"].mask]
        found.append(np.std(grey[:, 0].astype(float)))
    assert found[0] < 0.8 * found[1] < 0.64 * found[2]


def test_the_residual_has_the_stated_deviation_and_memory():
    # 60 s of an Ornstein-Uhlenbeck process of 0.5 s hold about 60 independent values: a deviation
    # is known to 9 % per clip, to 4.5 % over four; bounds at three of these.
    options = replace(SMALL, rows=240, cols=320, rate_hz=5.0)
    noise = Noise(roi_sd=0.05, correlation_s=0.5, speckle=True, floor=0.3)
    squares, products = [], []
    for seed in range(4):
        study = CeusStudy(quiet(plan_of(seed, options), noise))
        times = study.plan.frame_times_s()
        peak = study.rois["lesion"].values.peak
        expected = study.expected("lesion", times)
        residual = (curve(study, "lesion") - expected) / peak
        squares.append(np.mean(residual**2))
        strong = expected > 0.3 * peak
        relative = np.where(strong, residual / (expected / peak), 0.0)
        pairs = strong[2:] & strong[:-2]
        products.append(
            (relative[2:] * relative[:-2])[pairs].mean() / (relative[strong] ** 2).mean()
        )
    assert np.sqrt(np.mean(squares)) == pytest.approx(0.05, rel=0.14)
    # 0.4 s apart: exp(-0.8) = 0.45.
    assert np.mean(products) == pytest.approx(np.exp(-0.8), abs=0.15)


def test_speckle_alone_leaves_the_mean_of_mass_and_cortex_alone():
    study = CeusStudy(quiet(plan_of(2), Noise(0.0, 0.5, speckle=True, floor=0.0)))
    times = np.arange(10.0, 40.0, 2.0)
    for name, roi in study.rois.items():
        error = curve(study, name, times) - study.expected(name, times)
        assert np.abs(error).max() < 0.01 * roi.values.peak


def test_speckle_is_exponential_and_forgets_as_stated():
    # Over 33000 samples with some 2000 resolution cells a correlation is known to 0.02.
    grid = BeamGrid(50.0, 0.65, 120.0)
    bubbles = BubbleSpeckle(grid, 0.5, np.random.default_rng(3))
    powers = [bubbles.step(pause) for pause in (np.inf, 0.1, 0.15, 0.25, 0.5, 30.0)]
    ages = np.array([0.0, 0.1, 0.25, 0.5, 1.0])
    for power in powers:
        assert power.mean() == pytest.approx(1.0, abs=0.08)
        assert power.std() == pytest.approx(1.0, abs=0.12)
    alike = [np.corrcoef(powers[0], power)[0, 1] for power in powers]
    assert np.allclose(alike[:5], np.exp(-ages / 0.5), atol=0.07)
    assert abs(alike[5]) < 0.07


def test_speckle_on_the_screen_flickers():
    study = CeusStudy(quiet(plan_of(1), Noise(0.0, 0.5, speckle=True, floor=0.0)))
    at = study.rois["cortex"].values.peak_at_s
    powers = []
    for pixels, truth in study.frames(at + np.array([0.0, 0.1, 0.5, 5.0])):
        box, mask = truth.box("cortex", Panel.CONTRAST), truth.sections["cortex"].mask
        red = pixels[box.slices][mask][:, 0]
        powers.append(linear_power(red, study.plan.display.dynamic_range_db))
    # Interpolation between beams lowers the contrast of 1 a little.
    assert 0.7 < powers[0].std() / powers[0].mean() < 1.15
    alike = [np.corrcoef(powers[0], power)[0, 1] for power in powers]
    assert alike[0] > alike[1] > alike[2] > alike[3]
    assert alike[1] > 0.7
    assert abs(alike[3]) < 0.25


def test_masks_follow_the_motion():
    plan = plan_of(6)
    # In plane only: a lost section changes the outline as well.
    plan = replace(plan, motion=replace(plan.motion, elevation_mm=0.0, excursions=()))
    study = CeusStudy(plan)
    times = plan.frame_times_s()[:60]
    moved = displacement(plan.motion, times)
    centres = []
    for _, truth in study.frames(times):
        section = truth.sections["lesion"]
        rows, columns = np.nonzero(section.mask)
        centres.append((section.x + columns.mean(), section.y + rows.mean()))
        assert truth.right_mm == moved.right_mm[truth.index]
    scale = study.places[Panel.BMODE].mm_per_px
    x_mm, y_mm = np.array(centres).T * scale
    assert np.ptp(moved.right_mm) > 2
    # The wall holds back what lies against it, hence not exactly 1.
    slope = np.polyfit(moved.right_mm, x_mm, 1)[0]
    assert 0.8 < slope < 1.1
    assert np.corrcoef(moved.right_mm, x_mm)[0, 1] > 0.98


def test_both_panels_show_the_same_place_and_the_picture_moves_with_the_mask():
    plan = plan_of(6, replace(SMALL, rate_hz=1.0))
    plan = replace(plan, motion=replace(plan.motion, elevation_mm=0.0, excursions=()))
    study = CeusStudy(plan)
    moved = displacement(plan.motion, plan.frame_times_s()).right_mm
    rest, far = int(moved.argmin()), int(moved.argmax())
    times = plan.frame_times_s()[sorted((rest, far))]
    shown = list(study.frames(times))
    boxes = [truth.box("kidney", Panel.BMODE) for _, truth in shown]
    others = [truth.box("kidney", Panel.CONTRAST) for _, truth in shown]
    views = study.places[Panel.BMODE].view, study.places[Panel.CONTRAST].view
    for box, other in zip(boxes, others, strict=True):
        assert (other.x - box.x, other.y - box.y) == (
            views[1].x - views[0].x,
            views[1].y - views[0].y,
        )
    one, two = (pixels[..., 0].astype(float) for pixels, _ in shown)
    first, second = (truth.box("lesion", Panel.BMODE) for _, truth in shown)
    width, height = min(first.width, second.width), min(first.height, second.height)
    a = one[first.y : first.y + height, first.x : first.x + width]
    tracked = two[second.y : second.y + height, second.x : second.x + width]
    stayed = two[first.y : first.y + height, first.x : first.x + width]
    assert np.corrcoef(a.ravel(), tracked.ravel())[0, 1] > 0.8
    assert np.corrcoef(a.ravel(), tracked.ravel())[0, 1] > (
        np.corrcoef(a.ravel(), stayed.ravel())[0, 1] + 0.2
    )


@pytest.mark.parametrize("seed", [7, 9, 10])
def test_out_of_plane_the_mass_shrinks_and_the_picture_changes(seed):
    plan = plan_of(seed)
    lost = replace(plan.motion, along_mm=0.0, deep_mm=0.0, drift_mm=(0.0, 0.0), elevation_mm=6.0)
    breath = replace(lost.breaths[0], start_s=0.0, period_s=10.0, depth=1.0)
    study = CeusStudy(replace(plan, motion=replace(lost, breaths=(breath,), excursions=())))
    (rest, before), (_, between), (gone, after) = study.frames([0.0, 3.5, 5.0])
    assert before.out_of_plane == 0.0
    assert 0.3 < between.out_of_plane < 0.7
    assert after.out_of_plane == 1.0
    areas = [truth.sections["lesion"].mask.sum() for truth in (before, between, after)]
    assert areas[2] < areas[1] < areas[0]
    assert areas[2] < 0.7 * areas[0]
    box = after.box("lesion", Panel.BMODE)
    one, two = (p[box.slices][..., 0].ravel().astype(float) for p in (rest, gone))
    assert np.corrcoef(one, two)[0, 1] < 0.5


def test_the_outlines_are_those_of_the_tissue_map():
    study = silent_study(0)
    ((_, truth),) = study.frames([0.0])
    area = truth.sections["lesion"].mask.sum() * study.places[Panel.BMODE].mm_per_px ** 2
    lesion, view = study.plan.anatomy.lesion, study.plan.view
    axis = lesion.size_mm * view.slice_factor
    expected = np.pi / 4 * axis**2 * study.plan.anatomy.lesion_aspect
    assert area == pytest.approx(expected, rel=0.2)
    lesion_box, kidney_box = (truth.box(n, Panel.BMODE) for n in ("lesion", "kidney"))
    assert kidney_box.x <= lesion_box.x + lesion_box.width
    full = truth.mask("lesion", Panel.CONTRAST, (300, 400))
    assert full.sum() == truth.sections["lesion"].mask.sum()
    assert (full & truth.mask("kidney", Panel.CONTRAST, (300, 400))).sum() == full.sum()
    assert not (full & truth.mask("cortex", Panel.CONTRAST, (300, 400))).any()


def test_the_clock_on_the_screen_is_the_time_since_injection():
    plan = plan_of(9)
    plan = replace(plan, timing=replace(plan.timing, clock_start_s=7.5))
    study = CeusStudy(plan)
    shown = list(study.frames([0.0, 0.6, 55.0]))
    assert [truth.clock for _, truth in shown] == ["T1 0:07", "T1 0:08", "T1 1:02"]
    for pixels, truth in shown:
        patch = clock_patch(plan.screen, truth.clock)
        rows, columns = np.nonzero(patch.any(axis=2))
        found = [
            pixels[y : y + patch.shape[0], x : x + patch.shape[1]][rows, columns]
            for x, y in [background(plan.screen, plan.scanner).clock_at]
        ]
        assert (found[0] == patch[rows, columns]).all()


@pytest.mark.parametrize("layout", Layout)
def test_echoes_stay_within_the_regions(layout):
    plan = plan_of(10, replace(SMALL, layout=layout))
    study = CeusStudy(plan)
    frames = [pixels for pixels, _ in study.frames([0.0, 10.0, 17.0])]
    changed = (frames[2] != frames[0]).any(axis=2)
    for region in study.regions:
        assert changed[region.box.slices].any()
        assert region.data_type == "tissue"
        changed[region.box.slices] = False
    assert not changed.any()
    bmode, contrast = study.regions
    colour = [
        np.ptp(frames[2][region.box.slices].astype(int), axis=2).max()
        for region in (bmode, contrast)
    ]
    assert colour[0] <= colour[1] or plan.screen.style == "scanner-c"


def test_saturation_is_said_where_it_is():
    clipped = CeusStudy(plan_of(11, replace(SMALL, saturated=True), [1.0, 0, 0, 0]))
    normal = CeusStudy(quiet(plan_of(11, features=[0.0, 0, 0, 0])))
    for study, wanted in ((clipped, True), (normal, False)):
        at = study.rois["lesion"].values.peak_at_s
        (_, before), (pixels, peak) = study.frames([2.0, at])
        assert not before.saturated
        assert peak.saturated is wanted
        red = pixels[peak.box("lesion", Panel.CONTRAST).slices][peak.sections["lesion"].mask][:, 0]
        assert (red == 255).mean() == pytest.approx(peak.saturated_share)


def test_a_flash_lights_up_and_empties_the_slice():
    plan = quiet(plan_of(12, replace(SMALL, flash=True, rate_hz=4.0)), Noise(0, 0.5, True, 0.3))
    study = CeusStudy(plan)
    at = plan.flash.at_s
    times = at + np.array([-1.0, 0.25, 1.0, 25.0])
    shown = list(study.frames(times))
    assert [truth.flash for _, truth in shown] == [False, True, False, False]
    view = study.places[Panel.CONTRAST].view.slices
    bright = [pixels[view][..., 0].mean() for pixels, _ in shown]
    assert bright[1] > 1.5 * bright[0]
    assert shown[1][1].saturated_share > 0.02
    before, after, refilled = (study.expected("lesion", times)[i] for i in (0, 2, 3))
    assert after < 0.4 * before
    assert refilled > 1.4 * after
    measured = curve(study, "lesion", times[[0, 2, 3]])
    assert measured == pytest.approx(study.expected("lesion", times[[0, 2, 3]]), rel=0.02)
    marked = [pixels[1:20, 264:320] for pixels, _ in shown]
    assert (marked[0] != marked[1]).any()
    assert (marked[0] == marked[2]).all()


def test_frame_times_are_even_or_vary_as_asked():
    even, varied = plan_of(1), plan_of(1, replace(SMALL, jitter=0.1))
    assert np.allclose(np.diff(even.frame_times_s()), 0.5)
    pauses = np.diff(varied.frame_times_s())
    assert (pauses > 0).all()
    assert pauses.std() == pytest.approx(0.05, rel=0.3)
    assert len(pauses) + 1 == varied.n_frames == 120
    assert (varied.frame_times_s() == varied.frame_times_s()).all()


def test_a_normal_kidney_has_no_mass():
    study = CeusStudy(plan_of(13, mass=False))
    assert set(study.rois) == {"cortex"}
    ((_, truth),) = study.frames([15.0])
    assert "lesion" not in truth.sections
    assert truth.box("lesion", Panel.BMODE) is None
    assert truth.row()["lesion_bmode_box"] is None
    assert not list(crop_pairs(study, [15.0]))


def test_pairs_show_the_same_place_without_the_clip():
    plan = plan_of(14)
    study = CeusStudy(plan)
    times = pair_times(plan, 5)
    assert len(times) == 5
    assert times == sorted(times)
    assert set(times) <= set(plan.frame_times_s().tolist())
    usual = displacement(plan.motion, plan.frame_times_s()).out_of_plane
    assert displacement(plan.motion, times).out_of_plane.mean() <= usual.mean()
    pairs = list(crop_pairs(study, times, margin=0.2))
    assert len(pairs) == 5
    for bmode, contrast, truth in pairs:
        box = truth.box("lesion", Panel.BMODE).grown(0.2, 300, 400)
        assert bmode.shape == contrast.shape == (box.height, box.width, 3)
    again = list(crop_pairs(CeusStudy(plan), times, margin=0.2))
    assert all((a[1] == b[1]).all() for a, b in zip(pairs, again, strict=True))
    with pytest.raises(ValueError, match="pairs"):
        pair_times(plan, 0)


def test_pairs_show_the_instants_that_a_cohort_of_cines_takes():
    plan = replace(plan_of(14), motion=STILL)
    times = plan.frame_times_s()
    ones, noughts, off = np.ones(times.size), np.zeros(times.size), np.zeros(times.size, bool)
    quality = FrameQuality(times, ones, noughts, ones, np.zeros((times.size, 2)), ~off, off)
    phases = label_phases(times, injection_s=-plan.timing.clock_start_s)
    choices = select_frames(quality, phases.labels, Wanted(per_phase=4))
    assert pair_times(plan, 8) == [times[c.index] for c in choices if c.chosen]


def test_a_short_clip_gives_the_pairs_it_has():
    for seconds, count in ((1.0, 2), (8.0, 5), (25.0, 5)):
        plan = plan_of(14, replace(SMALL, duration_s=seconds))
        found = pair_times(plan, 5)
        assert len(found) == len(set(found)) == count


def test_a_crop_ends_where_its_panel_does():
    study = CeusStudy(plan_of(14))
    times = pair_times(study.plan, 1)
    ((bmode, contrast, truth),) = crop_pairs(study, times, margin=9.0)
    pane = truth.places[Panel.BMODE].box
    assert bmode.shape == contrast.shape == (pane.height, pane.width, 3)
    ((screen, _),) = study.frames(times)
    assert (bmode == screen[pane.slices]).all()


def test_plans_are_plain_and_impossible_ones_refused():
    import json

    plan = plan_of(15)
    assert json.loads(json.dumps(plan.as_dict()))["seed"] == plan.seed
    with pytest.raises(ValueError, match="features"):
        draw_ceus((plan.anatomy, plan.view), plan.scanner, None, np.random.default_rng(0))
    for change in (
        {"timing": replace(plan.timing, rate_hz=0.0)},
        {"timing": replace(plan.timing, jitter=0.9)},
        {"display": replace(plan.display, dynamic_range_db=5.0)},
        {"noise": replace(plan.noise, roi_sd=2.0)},
        {"perfusion": replace(plan.perfusion, lesion=None)},
    ):
        with pytest.raises(ValueError, match="clip|jitter|dynamic range|noise|mass"):
            replace(plan, **change)
    with pytest.raises(ValueError, match="rise"):
        next(CeusStudy(plan).frames([2.0, 1.0]))


def test_the_truth_of_a_region_is_a_mixture_of_its_tissues():
    study = silent_study(1)
    roi = study.rois["lesion"]
    assert min(roi.weights) >= 0
    cortex = study.rois["cortex"]
    assert cortex.weights[0] > 0.9 * sum(cortex.weights)
    assert roi.values.peak == pytest.approx(
        mixture_values([(sum(roi.weights[-3:]), study.plan.perfusion.lesion.bolus)]).peak, rel=0.2
    )


def test_memory_does_not_grow_with_the_length():
    def peak(count):
        study = CeusStudy(plan_of(16))
        list(study.frames([0.0]))
        study.scene.plane(aside=True)
        tracemalloc.start()
        for _ in study.frames(np.arange(count) * 0.5):
            pass
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    # Thirty frames hold some out of plane already, whose mixing takes room of its own.
    assert peak(90) < 1.1 * peak(30)


def test_no_panel_tells_of_the_other_modality():
    options = replace(SMALL, duration_s=8.0)
    patient = draw_patient(PatientPlan(3, seed=2), 1)
    shown = {}
    for bmode, ceus in (((0, 0, 0), (0, 0, 0, 0)), ((2, 2, 2), (0, 0, 0, 0)),
                        ((0, 0, 0), (2, 2, 2, 2))):  # fmt: skip
        lesion = lesion_features(np.array(bmode, float), np.random.default_rng(1))
        rng = np.random.default_rng(2)
        anatomy = draw_anatomy(lesion, "right", rng)
        subject = anatomy, draw_view(anatomy, rng)
        study = CeusStudy(draw_ceus(subject, patient.scanner, ceus, rng, options))
        shown[bmode, ceus] = {
            panel: [p[study.places[panel].view.slices] for p, _ in study.frames([0.0, 20.0, 40.0])]
            for panel in Panel
        }
    plain, seen, enhanced = shown.values()

    def same(first, second, panel):
        return np.array_equal(first[panel], second[panel])

    assert same(plain, seen, Panel.CONTRAST)
    assert not same(plain, seen, Panel.BMODE)
    assert same(plain, enhanced, Panel.BMODE)
    assert not same(plain, enhanced, Panel.CONTRAST)
