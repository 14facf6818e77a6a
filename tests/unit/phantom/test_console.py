"""Console screens: panels where the regions say, clock and ruler as the truth has them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renalkit.phantom.bmode.picture import SCANNERS
from renalkit.phantom.ceus.console import (
    STYLES,
    Caliper,
    Layout,
    Panel,
    background,
    clock_patch,
    clock_text,
    panel_places,
    plain_screen,
)

sizes = st.tuples(st.integers(300, 1100), st.integers(400, 1920))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(Layout), sizes, st.sampled_from(SCANNERS))
def test_panels_lie_as_the_layout_says(layout, size, scanner):
    rows, cols = size
    screen = replace(plain_screen(layout), rows=rows, cols=cols)
    places = panel_places(screen, scanner)
    bmode, contrast = places[Panel.BMODE].box, places[Panel.CONTRAST].box
    assert (bmode.width, bmode.height) == (contrast.width, contrast.height)
    if layout in (Layout.LEFT, Layout.RIGHT):
        assert bmode.y == contrast.y
        first, second = sorted((bmode, contrast), key=lambda box: box.x)
        assert first.x + first.width <= second.x
        assert (bmode.x < contrast.x) == (layout is Layout.LEFT)
    else:
        assert bmode.x == contrast.x
        first, second = sorted((bmode, contrast), key=lambda box: box.y)
        assert first.y + first.height <= second.y
        assert (bmode.y < contrast.y) == (layout is Layout.TOP)
    for place in places.values():
        assert place.box.fits(rows, cols)
        view, box = place.view, place.box
        assert box.x <= view.x
        assert box.y <= view.y
        assert view.x + view.width <= box.x + box.width
        assert view.y + view.height <= box.y + box.height
        assert place.region.box == box
        assert place.region.spacing_mm == (place.mm_per_px, place.mm_per_px)
        # The whole depth is shown, at the stated scale.
        assert view.height * place.mm_per_px >= scanner.depth_mm
    a, b = places[Panel.BMODE], places[Panel.CONTRAST]
    assert a.mm_per_px == b.mm_per_px
    assert (a.view.x - a.box.x, a.view.y - a.box.y) == (b.view.x - b.box.x, b.view.y - b.box.y)


@given(st.floats(0, 3599))
def test_the_clock_shows_whole_minutes_and_seconds(clock_s):
    text = clock_text(clock_s)
    minutes, seconds = text.removeprefix("T1 ").split(":")
    shown = 60 * int(minutes) + int(seconds)
    assert shown <= clock_s + 1e-5 < shown + 1.00002
    assert len(seconds) == 2


def test_the_clock_is_drawn_as_its_text():
    screen = plain_screen(Layout.LEFT)
    shown = {text: clock_patch(screen, text) for text in ("T1 0:45", "T1 0:46", "T1 1:46")}
    assert all(patch.any() for patch in shown.values())
    assert len({patch.tobytes() for patch in shown.values()}) == 3
    assert clock_patch(screen, "T1 0:46") is shown["T1 0:46"]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("layout", Layout)
def test_the_ruler_has_the_scale_of_the_region(style, layout):
    screen, scanner = plain_screen(layout, style), SCANNERS[0]
    pixels = background(screen, scanner).pixels
    for place in panel_places(screen, scanner).values():
        column = pixels[:, place.view.x + place.view.width + 3].any(axis=1)
        ticks = [
            y for y in np.flatnonzero(column) if place.box.y <= y < place.box.y + place.box.height
        ]
        # Centimetre ticks one pixel high; the focus mark may add a few rows.
        wanted = [
            round(place.face_px[1] + 10 * cm / place.mm_per_px)
            for cm in range(int(scanner.depth_mm / 10) + 1)
        ]
        assert set(wanted) <= set(ticks)
        assert len(ticks) <= len(wanted) + 8


def test_calipers_mark_the_ends_and_print_the_length():
    caliper = Caliper((-10.0, 50.0), (10.0, 50.0))
    assert caliper.length_mm == 20.0
    plain = plain_screen(Layout.RIGHT)
    marked = replace(plain, calipers=(caliper,))
    without, found = (background(screen, SCANNERS[1]) for screen in (plain, marked))
    added = np.setdiff1d(found.over, without.over)
    x, y = added % 800, added // 800
    place = panel_places(marked, SCANNERS[1])[Panel.BMODE]
    assert abs(y.mean() - (place.face_px[1] + 50 / place.mm_per_px)) < 1
    inner = 20 / place.mm_per_px
    assert inner <= np.ptp(x) <= inner + 14
    below = found.pixels.astype(int) - without.pixels
    assert below.any()


def test_styles_differ_and_red_is_the_grey_level():
    assert set(STYLES) == {scanner.name for scanner in SCANNERS}
    assert all(style.tint[0] == 1.0 for style in STYLES.values())
    pictures = {
        background(plain_screen(Layout.LEFT, s), SCANNERS[0]).pixels.tobytes() for s in STYLES
    }
    assert len(pictures) == len(STYLES)


@pytest.mark.parametrize(
    "change",
    [{"style": "acme"}, {"rows": 100}, {"cols": 9000}, {"half_angle_deg": 5.0}],
)
def test_impossible_screens_are_refused(change):
    with pytest.raises(ValueError, match="style|screen|angle"):
        replace(plain_screen(Layout.LEFT), **change)
