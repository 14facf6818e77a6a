"""Splitting a dual contrast clip: by regions, presets, picture; what must be refused; real files."""

import os
from dataclasses import replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest

from renalkit.ceus.layouts import Layout as Preset
from renalkit.ceus.layouts import Presets
from renalkit.ceus.panels import (
    OnePanel,
    Pane,
    Side,
    TwoPanels,
    Unclear,
    find_panels,
    map_box,
    map_mask,
    preview,
    split,
)
from renalkit.domain.geometry import Box, Region
from renalkit.domain.image import Clip, Mode, Source, pixel_sha256
from renalkit.domain.study import Scanner
from renalkit.errors import ConfigError
from renalkit.phantom.ceus.console import Layout, Panel
from renalkit.phantom.ceus.study import CeusOptions, CeusStudy, draw_ceus
from renalkit.phantom.patients import PatientPlan, Stream, draw_patient
from renalkit.readers.contract import ReadOptions
from renalkit.readers.decode_worker import DecodeWorker
from renalkit.readers.dicom_us import read_dicom_us
from renalkit.readers.pseudonyms import Pseudonyms

DATA = Path(os.environ.get("RENALKIT_DATA", Path(__file__).parents[4] / "shared" / "data"))
PLAN = PatientPlan(400, seed=811)
SPREAD = np.linspace(0.0, 59.0, 12)


@cache
def phantom(index, layout, rows=450, cols=600):
    patient = draw_patient(PLAN, index)
    features = None if patient.latents is None else patient.latents.ceus
    plan = draw_ceus(
        (patient.anatomy, patient.views[0]),
        patient.scanner,
        features,
        patient.stream(Stream.CEUS),
        CeusOptions(layout=layout, rows=rows, cols=cols),
    )
    return CeusStudy(plan)


@cache
def film(index, layout):
    return np.stack([frame.copy() for frame, _ in phantom(index, layout).frames(SPREAD)])


def clip_of(pixels, regions=(), **known):
    pixels = np.ascontiguousarray(pixels)
    return Clip(pixels, "0" * 64, Mode.DUAL, Source("f", "k", "test"), tuple(regions), **known)


def part(pixels, box):
    return pixels[(slice(None), *box.slices)]


def farthest(box, true):
    """Largest distance of an edge from where it should be."""
    ends = (box.x + box.width - true.x - true.width, box.y + box.height - true.y - true.height)
    return max(abs(v) for v in (box.x - true.x, box.y - true.y, *ends))


@pytest.mark.parametrize("layout", list(Layout))
@pytest.mark.parametrize("index", [0, 4, 7])
def test_split_without_tags_is_exact_to_2_px_and_in_order(index, layout):
    places = phantom(index, layout).places
    found = find_panels(clip_of(film(index, layout)))
    assert isinstance(found, TwoPanels), found
    assert found.by == "image"
    assert farthest(found.bmode.box, places[Panel.BMODE].view) <= 2
    assert farthest(found.contrast.box, places[Panel.CONTRAST].view) <= 2
    assert (found.bmode.mode, found.contrast.mode) == (Mode.B, Mode.CEUS)
    assert found.bmode.spacing_mm is None


def test_the_three_consoles_are_among_the_tested():
    styles = {phantom(i, Layout.LEFT).plan.screen.style for i in (0, 4, 7)}
    assert styles == {"scanner-a", "scanner-b", "scanner-c"}


@pytest.mark.parametrize("layout", [Layout.RIGHT, Layout.TOP])
def test_split_of_jpeg_pictures(layout):
    pixels = film(0, layout)
    coded = [cv2.imencode(".jpg", f[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1] for f in pixels]
    found = find_panels(clip_of(np.stack([cv2.imdecode(c, 1)[..., ::-1] for c in coded])))
    places = phantom(0, layout).places
    assert isinstance(found, TwoPanels), found
    assert any("lossy" in words for words in found.evidence)
    assert farthest(found.bmode.box, places[Panel.BMODE].view) <= 2
    views = places[Panel.BMODE].view, places[Panel.CONTRAST].view
    assert found.offset == (views[1].x - views[0].x, views[1].y - views[0].y)


def test_regions_say_where_and_the_picture_which():
    study = phantom(4, Layout.RIGHT)
    bar = Region(Box(0, 0, 20, 40), None, "grey-bar", "none")
    found = find_panels(clip_of(film(4, Layout.RIGHT), (bar, *study.regions[::-1])))
    assert isinstance(found, TwoPanels)
    assert found.by == "regions"
    assert found.bmode.box == study.places[Panel.BMODE].box
    scale = study.places[Panel.CONTRAST].mm_per_px
    assert found.contrast == Pane(Mode.CEUS, study.places[Panel.CONTRAST].box, (scale, scale))


def test_regions_of_different_size_are_refused():
    a, b = (place.box for place in phantom(0, Layout.LEFT).places.values())
    regions = [Region(a, None, "tissue"), Region(replace(b, height=b.height - 9), None, "tissue")]
    found = find_panels(clip_of(film(0, Layout.LEFT), regions))
    assert isinstance(found, Unclear)
    assert "different size" in found.reasons[0]


def test_one_region_over_both_panes_is_split_by_the_picture_with_its_scale():
    study = phantom(0, Layout.LEFT)
    a, b = (place.box for place in study.places.values())
    found = find_panels(clip_of(film(0, Layout.LEFT), [Region(a.union(b), (0.3, 0.3), "tissue")]))
    assert isinstance(found, TwoPanels)
    assert found.contrast.spacing_mm == (0.3, 0.3)


def test_single_panes_are_one_panel():
    study, pixels = phantom(0, Layout.LEFT), film(0, Layout.LEFT)
    for place in study.places.values():
        assert isinstance(find_panels(clip_of(part(pixels, place.box))), OnePanel)
        assert isinstance(find_panels(clip_of(part(pixels, place.view))), OnePanel)


def test_a_pane_that_stays_dark_is_not_taken_for_one_panel():
    pixels = film(0, Layout.LEFT).copy()
    part(pixels, phantom(0, Layout.LEFT).places[Panel.CONTRAST].box)[:] = 0
    found = find_panels(clip_of(pixels))
    assert isinstance(found, Unclear)
    assert "room for a dark one" in found.reasons[0]


@pytest.mark.parametrize("shown_twice", list(Panel))
def test_two_pictures_of_one_kind_are_refused_with_their_places(shown_twice):
    study, pixels = phantom(4, Layout.LEFT), film(4, Layout.LEFT).copy()
    other = next(p for p in Panel if p is not shown_twice)
    view = study.places[other].view
    part(pixels, view)[:] = part(pixels, study.places[shown_twice].view)
    found = find_panels(clip_of(pixels))
    assert isinstance(found, Unclear)
    assert "not clear" in found.reasons[-1]
    assert farthest(found.panes[0], study.places[Panel.BMODE].view) <= 2


def test_the_caller_may_say_which_is_the_contrast_pane():
    study, pixels = phantom(4, Layout.LEFT), film(4, Layout.LEFT).copy()
    views = [study.places[p].view for p in Panel]
    part(pixels, views[1])[:] = part(pixels, views[0])
    found = find_panels(clip_of(pixels), contrast=Side.RIGHT)
    assert isinstance(found, TwoPanels)
    assert farthest(found.contrast.box, views[1]) <= 2
    wrong = find_panels(clip_of(pixels), contrast=Side.TOP)
    assert isinstance(wrong, Unclear)
    assert "panes lie left and right" in wrong.reasons[0]


def with_flow(pixels, view):
    """Colour flow over part of a grey pane, another in each frame."""
    coloured, rng = pixels.copy(), np.random.default_rng(5)
    for frame in coloured:
        here = frame[view.slices]
        speed = cv2.GaussianBlur(rng.standard_normal(here.shape[:2], np.float32), (0, 0), 7)
        box = np.zeros(speed.shape, bool)
        box[speed.shape[0] // 4 : -speed.shape[0] // 4, speed.shape[1] // 3 : -40] = True
        here[box & (speed > 0.05)] = (230, 60, 20)
        here[box & (speed < -0.05)] = (20, 60, 230)
    return coloured


def test_colour_flow_is_no_contrast_panel():
    study, pixels = phantom(4, Layout.LEFT), film(4, Layout.LEFT).copy()
    views = [study.places[p].view for p in Panel]
    part(pixels, views[1])[:] = part(pixels, views[0])
    found = find_panels(clip_of(with_flow(pixels, views[1])))
    assert isinstance(found, Unclear)
    assert "colour flow" in found.reasons[-1]
    alone = part(with_flow(pixels, views[0]), study.places[Panel.BMODE].box)
    assert isinstance(find_panels(clip_of(alone)), OnePanel)
    flow = Region(Box(10, 10, 50, 50), None, "colour-flow")
    tissue = Region(Box(0, 0, alone.shape[2], alone.shape[1]), None, "tissue")
    assert isinstance(find_panels(clip_of(alone, (tissue, flow))), OnePanel)


@pytest.mark.parametrize("axis", [1, 2])
def test_panes_without_a_gap(axis):
    study, pixels = phantom(7, Layout.LEFT), film(7, Layout.LEFT)
    cut = [part(pixels, study.places[p].view)[:, 80:180, 60:200] for p in Panel]
    found = find_panels(clip_of(np.concatenate(cut, axis=axis)))
    assert isinstance(found, TwoPanels), found
    step = (140, 0) if axis == 2 else (0, 100)
    assert (found.bmode.box, found.offset) == (Box(0, 0, 140, 100), step)
    fans = [part(pixels, study.places[p].view) for p in Panel]
    touching = find_panels(clip_of(np.concatenate(fans, axis=axis)))
    assert isinstance(touching, TwoPanels), touching
    assert farthest(touching.bmode.box, Box(0, 0, fans[0].shape[2], fans[0].shape[1])) <= 2


def test_a_still_is_never_split_by_its_picture():
    for layout in Layout:
        for count in (1, 4):
            found = find_panels(clip_of(film(0, layout)[:count]))
            assert isinstance(found, Unclear), found


def test_a_frozen_clip_is_refused():
    found = find_panels(clip_of(np.repeat(film(0, Layout.LEFT)[:1], 8, axis=0)))
    assert found == Unclear(("no part of the picture changes over time",))


def test_panes_become_clips_with_their_places_and_scales():
    study, pixels = phantom(0, Layout.BOTTOM), film(0, Layout.BOTTOM)
    times = tuple(SPREAD.tolist())
    clip = clip_of(pixels, study.regions, times_s=times, source_frames=tuple(range(5, 17)))
    found = find_panels(clip)
    assert isinstance(found, TwoPanels)
    for made, pane in zip(split(clip, found), (found.bmode, found.contrast), strict=True):
        assert np.array_equal(made.frame(3).pixels, part(pixels, pane.box)[3])
        assert made.sha256 == pixel_sha256(np.ascontiguousarray(part(pixels, pane.box)))
        assert (made.offset, made.times_s) == ((pane.box.x, pane.box.y), times)
        assert (made.mode, made.spacing_mm) == (pane.mode, pane.spacing_mm)
        assert made.source_frame(3) == 8
    assert split(clip, found, ("a", "b"))[1].sha256 == "b"


def test_one_region_of_interest_maps_to_both_panes():
    two = TwoPanels(
        Pane(Mode.B, Box(4, 10, 50, 40), None),
        Pane(Mode.CEUS, Box(60, 10, 50, 40), None),
        "image",
        1.0,
        (),
    )
    assert map_box(Box(14, 20, 5, 6), two.bmode, two.contrast) == Box(70, 20, 5, 6)
    assert map_box(Box(70, 20, 5, 6), two.contrast, two.bmode) == Box(14, 20, 5, 6)
    with pytest.raises(ValueError, match="leaves its pane"):
        map_box(Box(1, 20, 5, 6), two.bmode, two.contrast)
    mask = np.zeros((60, 120), bool)
    mask[20:26, 14:19] = True
    moved = map_mask(mask, two.bmode, two.contrast)
    assert np.array_equal(np.argwhere(moved), np.argwhere(mask) + (0, 56))
    with pytest.raises(ValueError, match="different size"):
        replace(two, contrast=Pane(Mode.CEUS, Box(60, 10, 50, 41), None))


def test_preview_draws_what_was_found():
    picture = np.zeros((60, 120), np.uint8)
    shown = preview(picture, Unclear(("why",), (Box(4, 10, 50, 40),)))
    assert shown.shape == (60, 120, 3)
    assert tuple(shown[30, 4]) == (255, 255, 255)
    assert not picture.any()
    assert preview(shown, OnePanel(Box(0, 0, 120, 60), ())).any()


# Presets


def console(index, layout):
    study = phantom(index, layout)
    places = study.places
    boxes = places[Panel.BMODE].box, places[Panel.CONTRAST].box
    return Preset("side by side", "Aster", "A9", 450, 600, *boxes)


def test_a_preset_counts_for_its_console_and_is_checked_against_the_picture():
    pixels, known = film(0, Layout.LEFT), Presets((console(0, Layout.LEFT),))
    machine = Scanner("ASTER", " a9 ")
    found = find_panels(clip_of(pixels), known, machine)
    assert isinstance(found, TwoPanels)
    assert (found.by, found.bmode.box) == ("preset", known.layouts[0].bmode)
    other = find_panels(clip_of(pixels), known, Scanner("Aster", "A10"))
    assert isinstance(other, TwoPanels)
    assert other.by == "image"
    for layout, words in ((Layout.RIGHT, "other way round"), (Layout.TOP, "the same shape")):
        seen = find_panels(clip_of(film(0, layout)), known, machine)
        assert isinstance(seen, TwoPanels)
        assert seen.by == "image"
        assert words in seen.evidence[0]
        assert farthest(seen.bmode.box, phantom(0, layout).places[Panel.BMODE].view) <= 2
    dark = film(0, Layout.LEFT).copy()
    part(dark, known.layouts[0].contrast)[:] = 0
    refused = find_panels(clip_of(dark), known, machine)
    assert isinstance(refused, Unclear)
    assert "nothing changes in one of its panes" in refused.reasons[0]
    both = Presets((replace(console(0, Layout.TOP), name="stacked"), *known.layouts))
    chosen = find_panels(clip_of(pixels), both, machine)
    assert isinstance(chosen, TwoPanels)
    assert chosen.evidence[0] == "preset side by side"
    assert isinstance(find_panels(clip_of(pixels[:1]), known, machine), Unclear)


def test_presets_survive_their_file(tmp_path):
    file = tmp_path / "layouts.toml"
    two = Presets((console(0, Layout.LEFT), replace(console(0, Layout.TOP), name='so "called"')))
    file.write_text(two.text, encoding="utf-8")
    assert Presets.load(file) == two
    file.write_text("", encoding="utf-8")
    assert Presets.load(file) == Presets()


def test_a_wrong_file_of_presets_names_every_problem(tmp_path):
    file = tmp_path / "layouts.toml"
    good = Presets((console(0, Layout.LEFT),)).text
    bad = good.replace("rows = 450", "rows = 4").replace('vendor = "Aster"', 'vender = "Aster"')
    file.write_text(bad, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        Presets.load(file)
    words = str(caught.value)
    assert "layouts.toml" in words
    assert "did you mean 'vendor'" in words
    file.write_text(good.replace("rows = 450", "rows = 4"), encoding="utf-8")
    with pytest.raises(ConfigError, match="bmode: leaves the picture of 4 x 600"):
        Presets.load(file)
    file.write_text(good + "\n" + good, encoding="utf-8")
    with pytest.raises(ConfigError, match="given twice"):
        Presets.load(file)
    file.write_text(good.replace("contrast = [", "contrast = [4, 4, 9, 9] # ["), encoding="utf-8")
    with pytest.raises(ConfigError, match="different size"):
        Presets.load(file)


# Real files


@pytest.fixture(scope="module")
def real_clips():
    files = sorted((DATA / "us_dicom").glob("*.dcm"))
    if not files:
        pytest.skip(f"NOT TESTED ON REAL DATA: no ultrasound in {DATA} (set RENALKIT_DATA)")
    options, names = ReadOptions(keep_pixels=True), Pseudonyms(b"k" * 32)
    with DecodeWorker() as worker:
        read = {
            path.stem: list(
                read_dicom_us(
                    [path], path.parent, names, options, worker, patient_of=lambda _: "someone"
                )
            )
            for path in files
        }
    return {name: results[0].study.clips[0] for name, results in read.items()}


@pytest.mark.data
@pytest.mark.parametrize("name", ["gdcm-US-ALOKA-16", "gdcm-US-ALOKA-16_big"])
def test_real_dual_still_of_three_regions(real_clips, name):
    """Two B-mode pictures side by side and a grey bar: places known, neither is contrast."""
    clip = real_clips[name]
    left, right = Box(32, 24, 304, 392), Box(336, 24, 304, 392)
    found = find_panels(clip)
    assert isinstance(found, Unclear)
    assert found.panes == (left, right)
    told = find_panels(clip, contrast=Side.RIGHT)
    assert isinstance(told, TwoPanels)
    assert (told.bmode.box, told.contrast.box, told.by) == (left, right, "regions")
    assert [pane.shape for pane in (c.pixels for c in split(clip, told))] == [(1, 392, 304, 3)] * 2
    assert isinstance(find_panels(replace(clip, regions=())), Unclear)


@pytest.mark.data
def test_no_other_real_file_is_split(real_clips):
    for name, clip in real_clips.items():
        if "ALOKA" in name:
            continue
        for tags in (clip.regions, ()):
            found = find_panels(replace(clip, regions=tags))
            assert not isinstance(found, TwoPanels), name
            if tags:
                assert isinstance(found, OnePanel), (name, found)


@pytest.mark.data
def test_real_contrast_crops_are_never_split():
    files = sorted((DATA / "ceus_thyroid_keyframes" / "images").glob("*.png"))
    if not files:
        pytest.skip(f"NOT TESTED ON REAL DATA: no CEUS crops in {DATA} (set RENALKIT_DATA)")
    crops = {path: cv2.imread(str(path))[None, ..., ::-1] for path in files}
    for path, crop in crops.items():
        assert not isinstance(find_panels(clip_of(crop)), TwoPanels), path.name
    for case in {path.name.split("_")[0] for path in files}:
        cine = np.concatenate([crops[p] for p in files if p.name.startswith(case)])
        assert isinstance(find_panels(clip_of(cine)), OnePanel), case
