"""A frame and a box to follow when none is given."""

import cv2
import numpy as np
import pytest

from renalkit.ceus.reference import choose_box, choose_reference, sample_indices


def speckle(seed, shape=(240, 260)):
    rng = np.random.default_rng(seed)
    parts = [cv2.GaussianBlur(rng.standard_normal(shape), (0, 0), 1.5) for _ in range(2)]
    envelope = np.hypot(*parts)
    return np.clip(90 + 30 * np.log(envelope / envelope.mean() + 1e-3), 5, 250)


def fan(shape=(240, 260)):
    """A sector (H,W) that leaves the corners dark."""
    area = np.zeros(shape, np.uint8)
    cv2.ellipse(area, (shape[1] // 2, -40), (270, 270), 90, -30, 30, 1, -1)
    area[:10] = 0
    return area > 0


def test_samples_are_spread_over_the_clip():
    assert sample_indices(10, 5) == [1, 3, 5, 7, 9]
    assert sample_indices(3, 24) == [0, 1, 2]
    with pytest.raises(ValueError, match="both at least 1"):
        sample_indices(0)


def test_the_reference_is_a_frame_like_most_others():
    here, there = speckle(1), speckle(2)
    rng = np.random.default_rng(3)
    shares = [1.0, 0.5, 0.0, 0.9, 0.05, 0.02, 0.0, 0.8]
    pictures = [
        np.clip(
            np.roll(a * there + (1 - a) * here, i % 5 - 2, axis=1) + rng.normal(0, 3, here.shape),
            0,
            255,
        ).astype(np.uint8)
        for i, a in enumerate(shares)
    ]
    frames = [10 * i for i in range(len(shares))]
    chosen = choose_reference(pictures, frames)
    assert shares[chosen.index // 10] <= 0.05
    assert chosen.agreement > 0.4
    assert "8 frames" in chosen.reason
    assert choose_reference(pictures, frames) == chosen
    overlay = np.zeros(here.shape, np.bool_)
    overlay[100:110] = True
    assert shares[choose_reference(pictures, frames, overlay).index // 10] <= 0.05


def test_a_single_candidate_is_the_reference():
    assert choose_reference([speckle(4).astype(np.uint8)], [7]).index == 7


def test_no_candidates_or_other_numbers_are_refused():
    with pytest.raises(ValueError, match="0 pictures"):
        choose_reference([], [])
    with pytest.raises(ValueError, match="1 pictures with 2"):
        choose_reference([speckle(4).astype(np.uint8)], [7, 8])


def test_the_box_lies_on_speckle_in_the_middle_of_the_fan():
    picture = np.where(fan(), speckle(5), 0).astype(np.uint8)
    chosen = choose_box(picture)
    box = chosen.box
    assert fan()[box.slices].mean() > 0.98
    assert abs(box.x + box.width / 2 - 130) < 25
    assert 90 < box.y + box.height / 2 < 160
    assert "no region was given" in chosen.reason


def test_the_box_avoids_what_has_no_speckle():
    picture = np.where(fan(), speckle(6), 0).astype(np.uint8)
    picture[60:200, 100:140] = np.where(fan(), 60, 0)[60:200, 100:140]
    plain = choose_box(np.where(fan(), speckle(6), 0).astype(np.uint8)).box
    aside = choose_box(picture).box
    assert aside != plain


def test_a_dark_picture_has_no_box():
    with pytest.raises(ValueError, match="give a region of interest"):
        choose_box(np.zeros((240, 260), np.uint8))
