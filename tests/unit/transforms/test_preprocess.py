"""Preprocessing: refusals, grey rules, and the way there and back of masks and points."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renalkit.errors import ConfigError, InputRefused, Reason
from renalkit.transforms.preprocess import (
    Placement,
    Preprocess,
    bilateral,
    check_usable,
    clahe,
    letterbox,
    to_grey,
)

shapes = st.tuples(st.integers(16, 200), st.integers(16, 200))


def noise_picture(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def smooth_blob(shape, seed):
    """A star-shaped outline with smooth radius, as a lesion mask would have."""
    rng = np.random.default_rng(seed)
    height, width = shape
    y, x = np.mgrid[:height, :width]
    cy, cx = height * rng.uniform(0.4, 0.6), width * rng.uniform(0.4, 0.6)
    angle = np.arctan2(y - cy, x - cx)
    radius = min(shape) * rng.uniform(0.2, 0.3)
    outline = radius * (1 + 0.1 * np.sin(2 * angle + rng.uniform(0, 6)) + 0.05 * np.cos(3 * angle))
    return np.hypot(y - cy, x - cx) < outline


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


class TestUsable:
    @pytest.mark.parametrize(
        ("pixels", "reason"),
        [
            (np.zeros((15, 100), np.uint8), Reason.TOO_SMALL),
            (np.zeros((100, 15, 3), np.uint8), Reason.TOO_SMALL),
            (np.full((64, 64), 7, np.uint8), Reason.CONSTANT_IMAGE),
            (np.full((64, 64, 3), 7, np.uint16), Reason.CONSTANT_IMAGE),
            (np.full((64, 64), np.nan, np.float32), Reason.NON_FINITE),
            (np.zeros((64, 64, 4), np.uint8), Reason.BAD_PIXEL_DESCRIPTION),
            (np.zeros((64,), np.uint8), Reason.BAD_PIXEL_DESCRIPTION),
        ],
    )
    def test_refuses_with_reason(self, pixels, reason):
        with pytest.raises(InputRefused, match="expected:") as caught:
            check_usable(pixels, where="frame 3")
        assert caught.value.reason is reason
        assert caught.value.where == "frame 3"

    def test_accepts_one_differing_value(self):
        pixels = np.zeros((16, 16), np.uint8)
        pixels[-1, -1] = 1
        check_usable(pixels)


class TestGrey:
    def test_grey_stored_as_rgb_keeps_its_values(self):
        grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
        assert np.array_equal(to_grey(np.stack([grey] * 3, axis=-1)), grey)

    def test_weights_follow_bt601_in_rgb_order(self):
        primaries = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
        assert to_grey(primaries).tolist() == [[76, 150, 29]]

    @given(st.integers(1, 65535))
    def test_declared_maximum_becomes_white_and_order_is_kept(self, maximum):
        ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
        grey = to_grey(ramp, declared_max=maximum).ravel()
        assert grey[0] == 0
        assert grey[maximum] == 255
        assert (np.diff(grey.astype(int)) >= 0).all()

    def test_undeclared_maximum_is_the_container(self):
        assert to_grey(np.array([[0, 65535]], np.uint16)).tolist() == [[0, 255]]

    @pytest.mark.parametrize("maximum", [0, -1, 65536])
    def test_refuses_impossible_maximum(self, maximum):
        with pytest.raises(InputRefused, match="declared maximum"):
            to_grey(np.zeros((4, 4), np.uint16), declared_max=maximum)

    @pytest.mark.parametrize("dtype", [np.int16, np.float32, np.bool_])
    def test_refuses_other_types(self, dtype):
        with pytest.raises(InputRefused, match="uint8 or uint16"):
            to_grey(np.zeros((4, 4), dtype))


class TestFilters:
    def test_bilateral_keeps_a_step_and_calms_noise(self):
        rng = np.random.default_rng(1)
        step = np.where(np.arange(64) < 32, 40, 200)[None, :] + rng.normal(0, 8, (64, 64))
        out = bilateral(step.clip(0, 255).astype(np.uint8)).astype(float)
        assert out[8:-8, 8:24].std() < 4
        assert out[:, 36:60].mean() - out[:, 4:28].mean() == pytest.approx(160, abs=4)
        assert out[8:-8, 33].mean() - out[8:-8, 30].mean() > 120

    def test_bilateral_is_translation_consistent(self):
        image = noise_picture((80, 80))
        moved = np.roll(image, (5, 9), (0, 1))
        inner = np.s_[20:-20, 20:-20]
        assert np.array_equal(
            np.roll(bilateral(image), (5, 9), (0, 1))[inner], bilateral(moved)[inner]
        )

    def test_clahe_spreads_a_narrow_histogram(self):
        narrow = (noise_picture((128, 128)) // 16 + 100).astype(np.uint8)
        assert clahe(narrow, 4.0, 4).std() > 1.5 * narrow.std()


class TestPlacement:
    @given(shapes, st.integers(0, 3))
    def test_mask_returns_exactly_when_not_shrunk(self, shape, extra):
        mask = np.random.default_rng(sum(shape)).random(shape) < 0.5
        placement = Placement.fit(shape, max(shape) * (1 + extra) + 7 * extra)
        assert np.array_equal(placement.invert_mask(placement.apply_mask(mask)), mask)

    @given(shapes, st.integers(16, 256))
    def test_padding_is_outside_and_inner_fills_the_longer_side(self, shape, size):
        placement = Placement.fit(shape, size)
        height, width = placement.inner_shape
        assert max(height, width) == size
        full = placement.apply_mask(np.ones(shape, bool))
        assert full.sum() == height * width
        assert full.dtype == np.uint8

    @settings(max_examples=60)
    @given(st.integers(0, 10_000), st.sampled_from([96, 128, 192]))
    def test_smooth_blob_survives_shrinking(self, seed, size):
        rng = np.random.default_rng(seed)
        shape = tuple(int(v) for v in rng.integers(256, 768, 2))
        blob = smooth_blob(shape, seed)
        placement = Placement.fit(shape, size)
        small = placement.apply_mask(blob)
        assert dice(placement.invert_mask(small.astype(bool)), blob) >= 0.97
        assert dice(placement.invert_mask(small.astype(np.float32)) >= 0.5, blob) >= 0.97

    @given(shapes, st.integers(16, 400), st.integers(0, 1000))
    def test_points_return(self, shape, size, seed):
        points = np.random.default_rng(seed).uniform(0, min(shape), (5, 2))
        placement = Placement.fit(shape, size)
        assert np.allclose(
            placement.invert_points(placement.apply_points(points)), points, atol=1e-9
        )

    @given(shapes, st.integers(64, 400))
    def test_points_follow_pixels(self, shape, size):
        # The centre of mass of one marked block moves as its centre point does.
        mask = np.zeros(shape, bool)
        r, c = shape[0] // 2, shape[1] // 2
        mask[r - 4 : r + 4, c - 4 : c + 4] = True
        placement = Placement.fit(shape, size)
        rows, columns = np.nonzero(placement.apply_mask(mask))
        expected = placement.apply_points((c - 0.5, r - 0.5))
        assert np.allclose((columns.mean(), rows.mean()), expected, atol=0.75)

    def test_constant_probability_stays_constant(self):
        placement = Placement.fit((100, 60), 64)
        back = placement.invert_mask(np.full((64, 64), 0.25, np.float32))
        assert back.shape == (100, 60)
        assert back.dtype == np.float32
        assert np.all(back == 0.25)

    def test_record_round_trip(self):
        placement = Placement.fit((333, 512), 128)
        assert Placement.from_dict(placement.as_dict()) == placement

    def test_refuses_foreign_mask(self):
        with pytest.raises(InputRefused, match="the shape of its picture"):
            Placement.fit((100, 100), 64).apply_mask(np.zeros((100, 99), bool))
        with pytest.raises(ValueError, match="expected"):
            Placement.fit((100, 100), 64).invert_mask(np.zeros((65, 64), bool))

    @pytest.mark.parametrize("shape", [(64, 128), (128, 64), (100, 70, 3)])
    def test_letterbox_places_the_picture(self, shape):
        image = noise_picture(shape)
        square, placement = letterbox(image, max(shape[:2]))
        assert square.shape == (placement.size, placement.size, *shape[2:])
        rows = slice(placement.top, placement.top + shape[0])
        columns = slice(placement.left, placement.left + shape[1])
        assert np.array_equal(square[rows, columns], image)
        assert square.sum() == image.sum()

    def test_letterbox_agrees_with_opencv_area_mean(self):
        image = noise_picture((200, 100))
        square, _ = letterbox(image, 50)
        assert np.array_equal(
            square[:, 12:37], cv2.resize(image, (25, 50), interpolation=cv2.INTER_AREA)
        )


class TestPreprocess:
    @pytest.mark.parametrize("colour", [(), (3,)])
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    @pytest.mark.parametrize("normalise", ["unit", "zscore"])
    def test_shapes_and_types(self, colour, dtype, normalise):
        pixels = np.random.default_rng(0).integers(0, 255, (120, 90, *colour)).astype(dtype)
        mask = np.zeros((120, 90), np.uint8)
        mask[30:60, 30:60] = 255
        prepared = Preprocess(size=64, normalise=normalise).run(pixels, mask, declared_max=255)
        assert prepared.image.shape == (1, 64, 64)
        assert prepared.image.dtype == np.float32
        assert prepared.mask is not None
        assert set(np.unique(prepared.mask)) == {0, 1}
        assert prepared.mask.shape == (1, 64, 64)
        assert prepared.mask.dtype == np.uint8

    def test_unit_range_and_no_mask(self):
        prepared = Preprocess(size=64, bilateral=False).run(noise_picture((64, 64)))
        assert prepared.mask is None
        assert prepared.image.min() == 0.0
        assert prepared.image.max() == 1.0

    def test_zscore_of_the_inner_part(self):
        prepared = Preprocess(size=128, normalise="zscore", clahe=True).run(
            noise_picture((200, 100))
        )
        inner = prepared.image[0, :, 32:96].astype(float)
        assert inner.mean() == pytest.approx(0, abs=1e-5)
        assert inner.std() == pytest.approx(1, abs=1e-5)
        assert np.unique(prepared.image[0, :, :32]).size == 1

    def test_deterministic_and_leaves_input_alone(self):
        pixels = noise_picture((90, 120, 3))
        before = pixels.copy()
        config = Preprocess(size=96, clahe=True)
        assert np.array_equal(config.run(pixels).image, config.run(pixels).image)
        assert np.array_equal(pixels, before)

    def test_every_field_is_in_the_record(self):
        assert Preprocess(**Preprocess(size=64).as_dict()) == Preprocess(size=64)

    def test_reports_all_problems_at_once(self):
        with pytest.raises(ConfigError) as caught:
            Preprocess(size=3, normalise="median", clahe_clip_limit=0, clahe_grid=0)
        assert len(caught.value.problems) == 4
