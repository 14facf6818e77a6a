"""B-mode simulation: speckle statistics, beam widening, fan, masks, determinism."""

from dataclasses import replace

import numpy as np
import pytest

from renalkit.phantom.anatomy import LesionFeatures, draw_anatomy, draw_view
from renalkit.phantom.ultrasound import (
    SCANNERS,
    Scanner,
    beam_width_mm,
    draw_image,
    render,
    speckle_envelope,
)

BRIGHT = LesionFeatures(34.0, 12.0, 1.0, 0.03, halo=False, calcification=False)
DARK = replace(BRIGHT, echo_db=-9.0)


def uniform_envelope(scanner, seed=0):
    return speckle_envelope(
        np.ones((scanner.samples, scanner.beams), np.float32), scanner, np.random.default_rng(seed)
    )


def halfwidth(profile):
    """Full width at half maximum of an autocorrelation, in samples, interpolated."""
    profile = profile / profile[0]
    first = int(np.argmax(profile < 0.5))
    return 2 * (first - 1 + (profile[first - 1] - 0.5) / (profile[first - 1] - profile[first]))


def lateral_correlation(block, reach=24):
    block = block - block.mean()
    return np.array([(block[:, : block.shape[1] - k] * block[:, k:]).mean() for k in range(reach)])


@pytest.mark.parametrize("scanner", SCANNERS, ids=lambda s: s.name)
def test_speckle_is_rayleigh(scanner):
    envelope = uniform_envelope(scanner)[20:-20, 20:-20].astype(float)
    # sqrt(pi / (4 - pi)) = 1.913; the field holds some thousand independent cells.
    assert envelope.mean() / envelope.std() == pytest.approx(1.913, abs=0.1)
    # Median over root mean square of a Rayleigh variable: sqrt(ln 2).
    assert np.median(envelope) / np.sqrt((envelope**2).mean()) == pytest.approx(0.8326, abs=0.02)


def test_power_follows_the_scattering_strength():
    scanner = SCANNERS[0]
    amplitude = np.full((scanner.samples, scanner.beams), 3.0, np.float32)
    envelope = speckle_envelope(amplitude, scanner, np.random.default_rng(1))
    # Between two zones the mixture of differently wide kernels loses a little power.
    assert (envelope.astype(float) ** 2).mean() == pytest.approx(9.0, rel=0.12)


def test_speckle_widens_with_depth():
    scanner = SCANNERS[0]
    widths_mm = []
    for share in (0.45, 0.7, 0.93):
        at = int(share * scanner.samples)
        correlations = [
            lateral_correlation(uniform_envelope(scanner, seed)[at - 25 : at + 25] ** 2)
            for seed in range(6)
        ]
        pitch = (scanner.radius_mm + share * scanner.depth_mm) * np.deg2rad(
            2 * scanner.half_angle_deg
        )
        widths_mm.append(halfwidth(np.mean(correlations, axis=0)) * pitch / scanner.beams)
    assert widths_mm[0] < widths_mm[1] < widths_mm[2]
    assert widths_mm[2] > 1.5 * widths_mm[0]


def test_beam_is_narrowest_at_the_focus():
    depths = np.linspace(0, SCANNERS[0].depth_mm, 200)
    width = beam_width_mm(SCANNERS[0], depths)
    assert depths[width.argmin()] == pytest.approx(0.45 * SCANNERS[0].depth_mm, abs=1)


@pytest.mark.parametrize("scanner", SCANNERS, ids=lambda s: s.name)
@pytest.mark.parametrize("size", [64, 256])
def test_picture_masks_and_fan(scanner, size):
    image = draw_image("malignant", np.random.default_rng(2), scanner, size)
    assert image.pixels.shape == image.lesion_mask.shape == image.kidney_mask.shape == (size, size)
    assert image.pixels.dtype == np.uint8
    assert image.lesion_mask.dtype == image.kidney_mask.dtype == np.bool_
    assert image.mm_per_px == pytest.approx(scanner.field_mm / size)
    assert not (image.lesion_mask & ~image.kidney_mask).any()
    corner = size // 12
    for rows in (slice(0, corner), slice(-corner, None)):
        for columns in (slice(0, corner), slice(-corner, None)):
            assert not image.pixels[rows, columns].any()
            assert not image.kidney_mask[rows, columns].any()
    assert 0.25 < (image.pixels > 0).mean() < 0.7


def test_fan_has_its_height_in_mm():
    scanner = SCANNERS[0]
    image = draw_image("normal", np.random.default_rng(2), scanner, 512)
    middle = np.nonzero(image.pixels[:, 256] > 0)[0]
    assert (middle[-1] - middle[0] + 1) * image.mm_per_px == pytest.approx(
        scanner.depth_mm, abs=1.5
    )


def test_normal_kidney_has_no_lesion():
    image = draw_image("normal", np.random.default_rng(3))
    assert image.size_mm is None
    assert not image.lesion_mask.any()
    assert image.kidney_mask.any()


def test_lesion_area_fits_its_size():
    areas = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        anatomy = replace(draw_anatomy(BRIGHT, "right", rng), wall_mm=15.0, lesion_angle_rad=-1.5)
        view = replace(draw_view(anatomy, rng), slice_factor=1.0)
        image = render((anatomy, "benign"), view, SCANNERS[0])
        disc = np.pi / 4 * 34.0**2 * anatomy.lesion_aspect
        areas.append(image.lesion_mask.sum() * image.mm_per_px**2 / disc)
    assert 0.85 < np.median(areas) < 1.1


def test_echo_level_shows_in_the_grey_values():
    means = []
    for lesion in (BRIGHT, DARK):
        anatomy = draw_anatomy(lesion, "right", np.random.default_rng(8))
        view = draw_view(anatomy, np.random.default_rng(9))
        image = render((anatomy, "benign"), view, SCANNERS[0])
        means.append(image.pixels[image.lesion_mask].mean())
    assert means[0] > means[1] + 50


def test_same_generator_same_bytes_other_seed_other_speckle():
    one, two, other = (draw_image("benign", np.random.default_rng(s)) for s in (1, 1, 2))
    assert np.array_equal(one.pixels, two.pixels)
    assert one.parameters == two.parameters
    assert not np.array_equal(one.pixels, other.pixels)


def test_scanners_differ_in_grey():
    anatomy = draw_anatomy(BRIGHT, "right", np.random.default_rng(1))
    view = draw_view(anatomy, np.random.default_rng(2))
    means = {
        s.name: (lambda p: p[p > 0].mean())(render((anatomy, "benign"), view, s).pixels)
        for s in SCANNERS
    }
    assert max(means.values()) - min(means.values()) > 8


def test_refuses_an_impossible_scanner():
    values = {name: getattr(SCANNERS[0], name) for name in Scanner.__dataclass_fields__}
    with pytest.raises(ValueError, match="not a possible"):
        Scanner(**{**values, "half_angle_deg": 90.0})
