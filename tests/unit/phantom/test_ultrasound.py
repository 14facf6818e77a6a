"""B-mode simulation: speckle statistics, beam widening, fan, masks, determinism."""

from dataclasses import replace

import numpy as np
import pytest

from renalkit.phantom.bmode.anatomy import Tissue, draw_anatomy, draw_view
from renalkit.phantom.bmode.lesion import LesionFeatures
from renalkit.phantom.bmode.picture import (
    SCANNERS,
    TOP_SHARE,
    Scanner,
    beam_width_mm,
    draw_image,
    levels_db,
    render,
    speckle_envelope,
    speckle_size_mm,
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


@pytest.mark.parametrize("looks", [2, 3])
def test_compounding_raises_the_signal_to_noise_ratio(looks):
    # The mean of L independent Rayleigh envelopes: 1.913 sqrt(L).
    scanner = SCANNERS[0]
    mean = sum(uniform_envelope(scanner, seed) for seed in range(looks))[20:-20, 20:-20] / looks
    assert mean.mean() / mean.std() == pytest.approx(1.913 * looks**0.5, rel=0.05)


def test_power_follows_the_scattering_strength():
    scanner = SCANNERS[0]
    amplitude = np.full((scanner.samples, scanner.beams), 3.0, np.float32)
    envelope = speckle_envelope(amplitude, scanner, np.random.default_rng(1)).astype(float)
    # Cells of 1 mm^2 and less: a band of 60 samples holds some 500 of them.
    for start in range(60, scanner.samples - 80, 120):
        power = (envelope[start : start + 60, 20:-20] ** 2).mean()
        assert power == pytest.approx(9.0, rel=0.2)
    assert (envelope**2).mean() == pytest.approx(9.0, rel=0.05)


@pytest.mark.parametrize("scanner", SCANNERS, ids=lambda s: s.name)
def test_correlation_lengths_are_as_set(scanner):
    shares = np.array([0.25, 0.45, 0.7, 0.93])
    axial_mm, lateral_mm = speckle_size_mm(scanner, shares * scanner.depth_mm)
    fields = [uniform_envelope(scanner, seed) ** 2 for seed in range(4)]
    sample_mm = scanner.depth_mm / scanner.samples
    found_axial = np.mean(
        [lateral_correlation(f[:, 40:-40].T.copy(), reach=12) for f in fields], axis=0
    )
    assert halfwidth(found_axial) * sample_mm == pytest.approx(axial_mm, rel=0.08)
    for share, expected in zip(shares, lateral_mm, strict=True):
        at = int(share * scanner.samples)
        found = np.mean([lateral_correlation(f[at - 25 : at + 25]) for f in fields], axis=0)
        pitch = (scanner.radius_mm + share * scanner.depth_mm) * np.deg2rad(
            2 * scanner.half_angle_deg
        )
        # 200 samples x 220 beams hold some thousand cells; zones are blended linearly.
        assert halfwidth(found) * pitch / (scanner.beams - 1) == pytest.approx(expected, rel=0.15)


def test_out_of_focus_the_beam_is_wider_than_its_speckle():
    depths = np.array([20.0, 52.0, 110.0])
    beam = beam_width_mm(SCANNERS[0], depths)
    _, speckle = speckle_size_mm(SCANNERS[0], depths)
    # Unchirped, the intensity is correlated over just the full width of |h|.
    assert speckle[1] == pytest.approx(beam[1], rel=0.02)
    assert (speckle[[0, 2]] < beam[[0, 2]]).all()


def test_beam_is_narrowest_at_the_focus():
    depths = np.linspace(0, SCANNERS[0].depth_mm, 400)
    width = beam_width_mm(SCANNERS[0], depths)
    assert depths[width.argmin()] == pytest.approx(0.45 * SCANNERS[0].depth_mm, abs=2)


@pytest.mark.parametrize("scanner", SCANNERS, ids=lambda s: s.name)
@pytest.mark.parametrize("size", [64, 256])
def test_picture_masks_and_fan(scanner, size):
    image = draw_image("malignant", np.random.default_rng(2), scanner, size)
    assert image.pixels.shape == image.lesion_mask.shape == image.kidney_mask.shape == (size, size)
    assert image.pixels.dtype == np.uint8
    assert image.lesion_mask.dtype == image.kidney_mask.dtype == np.bool_
    assert image.kind.shape == (size, size)
    of_mass = image.kind == Tissue.LESION
    assert (of_mass & image.lesion_mask).sum() > 0.8 * image.lesion_mask.sum()
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


def test_log_compression_is_undone():
    for scanner in SCANNERS:
        grey = np.array([1.0, 100.0, 254.0])
        share = (grey / 255) ** (1 / scanner.gamma)
        expected = (share - 1 + TOP_SHARE) * scanner.dynamic_range_db - scanner.gain_db - 2.0
        assert levels_db(grey, scanner, gain_db=2.0) == pytest.approx(expected, abs=1e-3)


def test_levels_of_a_picture_are_those_of_the_tissue():
    # Plain speckle has its mean level in dB 2.5 below that of its power.
    scanner = replace(SCANNERS[0], looks=1, tgc_db_cm=0.0)
    anatomy = draw_anatomy(replace(BRIGHT, size_mm=50.0), "right", np.random.default_rng(3))
    view = draw_view(anatomy, np.random.default_rng(4))
    view = replace(view, gain_db=0.0, tgc_db=(), contact_db=())
    image = render((anatomy, "benign"), view, scanner, 512)
    levels = levels_db(image.pixels, scanner)
    # 3 dB across^4 are lost towards the fan's border.
    assert levels[(image.kind == Tissue.CORTEX) & image.kidney_mask].mean() == pytest.approx(
        -3.3, abs=1.5
    )
    assert levels[image.lesion_mask].mean() == pytest.approx(12 - 3.0, abs=1.7)


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
