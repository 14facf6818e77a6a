"""Augmentation: exact replay, identity, geometry against closed forms, bounds of the draws."""

import json

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renalkit.errors import ConfigError
from renalkit.transforms.augment import (
    Augmentation,
    AugmentRanges,
    elastic_field,
    sample_augmentation,
)

SIZE = 64
EVERYTHING = AugmentRanges(
    gamma=(0.7, 1.4), elastic_sigma_px=8, elastic_amplitude_px=3, noise_sd=0.05, probability=1.0
)


def smooth_picture(size=SIZE, seed=0):
    noise = np.random.default_rng(seed).random((size, size), dtype=np.float32)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 1, cv2.NORM_MINMAX)


def blob_mask(size=SIZE):
    y, x = np.mgrid[:size, :size]
    return (np.hypot((y - size * 0.55) / 1.4, x - size * 0.4) < size / 6).astype(np.uint8)


def draw(seed, ranges=EVERYTHING, size=SIZE):
    return sample_augmentation(ranges, size, np.random.default_rng(seed))


@given(st.integers(0, 2**32))
def test_record_replays_bit_equal_through_json(seed):
    operation = draw(seed)
    again = Augmentation.from_dict(json.loads(json.dumps(operation.as_dict())))
    assert again == operation
    image, mask = smooth_picture()[None], blob_mask()[None]
    first, second = operation.apply(image, mask), again.apply(image, mask)
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])


@given(st.integers(0, 2**32))
def test_same_generator_state_same_operation(seed):
    assert draw(seed) == draw(seed)


@given(st.integers(0, 2**32))
def test_number_of_draws_does_not_depend_on_ranges(seed):
    one, two = np.random.default_rng(seed), np.random.default_rng(seed)
    sample_augmentation(EVERYTHING, SIZE, one)
    sample_augmentation(AugmentRanges.off(), SIZE, two)
    assert one.bit_generator.state == two.bit_generator.state


@given(st.integers(0, 2**32))
def test_off_is_the_identity(seed):
    operation = draw(seed, AugmentRanges.off())
    assert operation == Augmentation(SIZE)
    image, mask = smooth_picture(), blob_mask()
    changed, moved = operation.apply(image, mask)
    assert changed is image
    assert moved is mask


@given(st.integers(0, 2**32))
def test_draws_stay_in_their_ranges(seed):
    r, op = EVERYTHING, draw(seed)
    assert abs(op.rotation_deg) <= r.rotation_deg
    assert r.scale[0] <= op.scale <= r.scale[1] + 1e-12
    assert max(abs(op.shift_x_px), abs(op.shift_y_px)) <= r.translate * SIZE
    assert r.contrast[0] - 1e-12 <= op.contrast <= r.contrast[1] + 1e-12
    assert abs(op.brightness) <= r.brightness
    assert r.gamma[0] - 1e-12 <= op.gamma <= r.gamma[1] + 1e-12
    assert 0 <= op.elastic_amplitude_px <= r.elastic_amplitude_px
    assert 0 <= op.noise_sd <= r.noise_sd


@given(st.integers(0, 2**32))
def test_shapes_types_range_and_untouched_input(seed):
    image = np.stack([smooth_picture(seed=1), 3 * smooth_picture(seed=2) - 1])
    mask = blob_mask()
    copies = image.copy(), mask.copy()
    changed, moved = draw(seed).apply(image, mask)
    assert changed.shape == image.shape
    assert changed.dtype == np.float32
    assert changed.min() >= image.min() - 1e-5
    assert changed.max() <= image.max() + 1e-5
    assert moved.shape == mask.shape
    assert moved.dtype == mask.dtype
    assert set(np.unique(moved)) <= {0, 1}
    assert np.array_equal(image, copies[0])
    assert np.array_equal(mask, copies[1])


@pytest.mark.parametrize("size", [63, 64])
def test_flip_alone_is_the_exact_mirror(size):
    image, mask = smooth_picture(size), blob_mask(size)
    changed, moved = Augmentation(size, flip=True).apply(image, mask)
    assert np.array_equal(changed, image[:, ::-1])
    assert np.array_equal(moved, mask[:, ::-1])


@given(st.integers(-20, 20), st.integers(-20, 20))
def test_whole_pixel_shift_moves_exactly(dx, dy):
    image = smooth_picture()
    changed, _ = Augmentation(SIZE, shift_x_px=dx, shift_y_px=dy).apply(image)
    assert np.array_equal(changed[20:-20, 20:-20], np.roll(image, (dy, dx), (0, 1))[20:-20, 20:-20])


@pytest.mark.parametrize(("angle", "turns"), [(90.0, 1), (180.0, 2), (-90.0, -1)])
def test_quarter_turns_are_counter_clockwise(angle, turns):
    image = smooth_picture()
    changed, _ = Augmentation(SIZE, rotation_deg=angle).apply(image)
    inner = np.s_[1:-1, 1:-1]
    assert np.allclose(changed[inner], np.rot90(image, turns)[inner], atol=0.02)


def test_affine_part_agrees_with_opencv():
    image = smooth_picture(96)
    op = Augmentation(96, rotation_deg=12.0, scale=1.1, shift_x_px=3.0, shift_y_px=-2.0)
    matrix = cv2.getRotationMatrix2D((47.5, 47.5), 12.0, 1.1)
    matrix[:, 2] += (3.0, -2.0)
    reference = cv2.warpAffine(image, matrix, (96, 96), flags=cv2.INTER_LINEAR)
    inner = np.s_[16:-16, 16:-16]
    correlation = np.corrcoef(op.apply(image)[0][inner].ravel(), reference[inner].ravel())[0, 1]
    assert correlation > 0.999


def test_enlarging_enlarges_the_mask_by_the_square():
    before = blob_mask(256)
    _, after = Augmentation(256, scale=1.2).apply(smooth_picture(256), before)
    assert after.sum() / before.sum() == pytest.approx(1.44, rel=0.01)


@given(st.integers(0, 2**32))
def test_mask_and_image_move_together(seed):
    mask = blob_mask(128)
    op = draw(seed, AugmentRanges(elastic_sigma_px=16, elastic_amplitude_px=4, probability=1), 128)
    op = Augmentation(**{**op.as_dict(), "contrast": 1.0, "brightness": 0.0})
    image, moved = op.apply(mask.astype(np.float32), mask)
    shown = image >= 0.5
    assert 2 * (shown & (moved > 0)).sum() / (shown.sum() + moved.sum()) > 0.97


@given(st.integers(0, 2**32))
def test_affine_inverse_brings_a_mask_back(seed):
    y, x = np.mgrid[:128, :128]
    mask = (np.hypot(y - 60, (x - 70) / 1.3) < 24).astype(np.uint8)
    op = draw(seed, AugmentRanges(probability=1.0), 128)
    back = op.spatial_inverse(op.apply(mask.astype(np.float32), mask)[1])
    assert back.dtype == mask.dtype
    assert 2 * (back & mask).sum() / (back.sum() + mask.sum()) > 0.95
    soft = op.spatial_inverse(op.apply(mask.astype(np.float32), mask)[1].astype(np.float32))
    assert 2 * ((soft > 0.5) & (mask > 0)).sum() / ((soft > 0.5).sum() + mask.sum()) > 0.96


@settings(max_examples=50)
@given(st.integers(0, 2**53), st.sampled_from([64, 128, 257]), st.floats(4, 40))
def test_elastic_field_has_its_amplitude_and_never_folds(seed, size, sigma):
    field = elastic_field(size, sigma, sigma / 2, seed).astype(float)
    assert np.hypot(*field).max() == pytest.approx(sigma / 2, rel=1e-4)
    (dxy, dxx), (dyy, dyx) = np.gradient(field[0]), np.gradient(field[1])
    assert ((1 + dxx) * (1 + dyy) - dxy * dyx).min() > 0


def test_paired_pictures_get_the_same_change():
    op = Augmentation(**{**draw(5).as_dict(), "noise_sd": 0.0})
    a, b = smooth_picture(seed=1), smooth_picture(seed=2)
    (first, second), mask = op.apply_all([a, b], blob_mask())
    assert np.array_equal(first, op.apply(a)[0])
    assert np.array_equal(second, op.apply(b)[0])
    assert np.array_equal(mask, op.apply(a, blob_mask())[1])


def test_noise_has_its_size_and_differs_between_paired_pictures():
    grey = np.tile(np.linspace(0, 1, 256, dtype=np.float32), (256, 1))
    (a, b), _ = Augmentation(256, noise_sd=0.04, noise_seed=9).apply_all([grey, grey])
    inner = np.s_[:, 64:192]
    assert (a - grey)[inner].std() == pytest.approx(0.04, rel=0.05)
    assert abs(np.corrcoef((a - grey)[inner].ravel(), (b - grey)[inner].ravel())[0, 1]) < 0.05


def test_contrast_and_gamma_follow_their_formulas():
    image = smooth_picture()
    changed, _ = Augmentation(SIZE, contrast=0.8, brightness=0.02, gamma=1.3).apply(image)
    expected = np.clip((image - image.mean()) * 0.8 + image.mean() + 0.02, 0, 1) ** 1.3
    assert np.allclose(changed, expected, atol=2e-5)


def test_outside_becomes_the_darkest_value():
    image = smooth_picture() + 2
    changed, _ = Augmentation(SIZE, shift_x_px=20.0).apply(image)
    assert np.allclose(changed[:, :19], image.min())


def test_constant_picture_passes_unharmed():
    flat = np.full((SIZE, SIZE), 0.5, np.float32)
    assert np.array_equal(Augmentation(SIZE, contrast=1.3, noise_sd=0.1).apply(flat)[0], flat)


def test_ranges_report_all_problems_and_refuse_folding():
    with pytest.raises(ConfigError) as caught:
        AugmentRanges(flip_probability=2, rotation_deg=-1, scale=(1.2, 0.9), elastic_amplitude_px=9)
    assert len(caught.value.problems) == 4
    assert "fold" in caught.value.problems[-1]


@pytest.mark.parametrize("size", [32, 64, 128, 256, 300])
def test_full_ranges_are_valid_at_every_size(size):
    assert AugmentRanges.full(size).elastic_amplitude_px > 0


def test_record_with_other_keys_is_refused():
    values = Augmentation(SIZE).as_dict()
    del values["flip"]
    with pytest.raises(ConfigError, match="(?s)unknown key 'mirror'.*missing key 'flip'"):
        Augmentation.from_dict({**values, "mirror": True})


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        (np.zeros((63, 64), np.float32), None),
        (np.zeros((1, 1, SIZE, SIZE), np.float32), None),
        (np.zeros((SIZE, SIZE)), None),
        (np.zeros((SIZE, SIZE), np.float32), np.zeros((SIZE, 3), np.uint8)),
        (np.zeros((SIZE, SIZE), np.float32), np.zeros((SIZE, SIZE), np.int64)),
    ],
)
def test_refuses_what_does_not_fit(image, mask):
    with pytest.raises(ValueError, match="expected"):
        Augmentation(SIZE, flip=True).apply(image, mask)


def test_elastic_fields_do_not_depend_on_where_they_lie_in_memory():
    rng = np.random.default_rng(0)
    for seed in range(100):
        between = [np.empty(int(rng.integers(1, 3000)), np.uint8)]
        fields = []
        for _ in range(8):
            between.append(np.empty(int(rng.integers(1, 3000)), np.uint8))
            fields.append(elastic_field(64, 16.0, 3.0, seed))
        assert len({field.tobytes() for field in fields}) == 1
