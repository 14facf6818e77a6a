"""From colours back to echo power: exact where the palette is known, refused where it is not."""

import imagecodecs
import numpy as np
import pytest

from renalkit.ceus.linear import (
    Palette,
    PaletteRefused,
    PowerScale,
    linear_power,
    palette_of_bar,
    read_palette,
)
from renalkit.phantom.ceus.console import STYLES


def speckle(seed=0, shape=(120, 160), bright=120.0):
    """Grey levels (H,W) uint8 as a contrast picture has them."""
    rng = np.random.default_rng(seed)
    power = rng.exponential(1.0, shape) * 10 ** (bright / 60)
    return np.clip(np.rint(57 * np.log10(1 + power)), 0, 255).astype(np.uint8)


def tinted(grey, tint):
    return np.rint(grey[..., None] * np.array(tint)).astype(np.uint8)


@pytest.mark.parametrize("style", sorted(STYLES))
def test_a_tint_is_undone_exactly(style):
    tint = STYLES[style].tint
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16).repeat(8, 0).repeat(8, 1)
    palette = read_palette([tinted(grey, tint)])
    assert isinstance(palette, Palette)
    assert palette.exact
    assert palette.tint == pytest.approx(tint, abs=0.01)
    assert np.array_equal(palette.levels(tinted(grey, tint)), grey)


@pytest.mark.parametrize("style", ["scanner-a", "scanner-b"])
def test_a_tint_survives_jpeg_with_halved_chroma(style):
    grey = speckle()
    packed = imagecodecs.jpeg8_encode(tinted(grey, STYLES[style].tint), level=90, subsampling="422")
    shown = imagecodecs.jpeg8_decode(packed)
    palette = read_palette([shown])
    assert isinstance(palette, Palette)
    assert palette.kind == "tint"
    off = palette.levels(shown).astype(float) - grey
    assert abs(off.mean()) < 0.3
    assert np.abs(off).mean() < 4


def test_a_bar_gives_a_palette_that_is_no_tint():
    g = np.arange(256)
    hot = np.stack([np.minimum(255, 2 * g), g, np.maximum(0, 2 * g - 255)], axis=1).astype(np.uint8)
    bar = hot[::-1][:, None].repeat(5, axis=1)
    palette = palette_of_bar(bar)
    assert isinstance(palette, Palette)
    grey = speckle(bright=200)
    assert np.abs(palette.levels(hot[grey]).astype(int) - grey).max() <= 3
    unknown = read_palette([hot[grey]])
    assert isinstance(unknown, Palette)
    assert unknown.kind == "luminance"
    assert not unknown.exact


def test_colour_doppler_over_grey_is_no_palette():
    picture = tinted(speckle(), (1.0, 1.0, 1.0))
    speed = np.linspace(40, 255, 40).astype(np.uint8)
    picture[30:70, 40:80, 0], picture[30:70, 40:80, 1:] = speed, 30
    picture[70:90, 40:80, 2], picture[70:90, 40:80, :2] = speed, 30
    refused = read_palette([picture])
    assert isinstance(refused, PaletteRefused)
    assert "colour" in refused.words
    box = np.zeros(picture.shape[:2], np.bool_)
    box[28:92, 38:82] = True
    assert isinstance(read_palette([picture], ignore=box), Palette)


def test_a_dark_picture_does_not_tell_its_palette():
    refused = read_palette([np.full((40, 40, 3), 3, np.uint8)])
    assert isinstance(refused, PaletteRefused)
    assert "dark" in refused.words


def test_without_a_dynamic_range_power_is_the_grey_level():
    scale = PowerScale(Palette("grey"), None)
    assert not scale.linear
    assert scale.unit == "grey level"
    assert np.array_equal(scale.table(), np.arange(256))
    known = PowerScale(Palette("grey"), 46.0)
    assert known.table()[255] == pytest.approx(10**4.6 - 1, rel=1e-6)
    assert known.table() == pytest.approx(linear_power(np.arange(256), 46.0), rel=1e-6)


@pytest.mark.parametrize("wrong", [0.0, -40.0, float("nan"), 4000.0])
def test_an_impossible_dynamic_range_is_refused(wrong):
    with pytest.raises(ValueError, match="dynamic range"):
        PowerScale(Palette("grey"), wrong)


def test_pixels_of_another_kind_are_refused():
    with pytest.raises(ValueError, match="uint8"):
        Palette("grey").levels(np.zeros((4, 4), np.uint16))
    with pytest.raises(ValueError, match="at least one"):
        read_palette([])
