"""Fingerprints ignore what a machine draws around a picture; turns and groups are consistent."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from renalkit.cohort_checks.burned_in import find_marks
from renalkit.cohort_checks.duplicates import connected, registered_correlation, turned
from renalkit.cohort_checks.labels import association
from renalkit.cohort_checks.scan import (
    border_statistics,
    detail,
    fingerprint,
    frame_sha256,
    grey_of,
    shown,
)


def speckle(seed: int, side: int = 96) -> np.ndarray:  # type: ignore[type-arg]
    rng = np.random.default_rng(seed)
    image = cv2.GaussianBlur(rng.normal(size=(side, side)).astype(np.float32), (0, 0), 1.5)
    return np.clip(120 + 45 * image / image.std(), 12, 235).astype(np.float32)


@given(
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("abcdefgh")), max_size=12),
    st.randoms(use_true_random=False),
)
def test_l01_components_are_an_equivalence_and_ignore_order(pairs, shuffle) -> None:  # type: ignore[no-untyped-def]
    found = connected("abcdefgh", pairs)
    assert all(found[a] == found[b] for a, b in pairs)
    assert all(found[root] == root <= item for item, root in found.items())
    turned_pairs = [(b, a) for a, b in pairs]
    shuffle.shuffle(turned_pairs)
    assert connected("hgfedcba", turned_pairs) == found


def test_eight_turns_are_different_and_mirrors_undo_themselves() -> None:
    image = np.arange(12).reshape(3, 4)[:3, :3]
    assert len({turned(image, t).tobytes() for t in range(8)}) == 8
    for t in range(8):
        back = (4 - t) % 4 if t < 4 else t
        assert np.array_equal(turned(turned(image, t), back), image)


def test_registration_finds_a_shifted_crop_and_not_a_stranger() -> None:
    wide = speckle(0, 110)
    assert registered_correlation(wide[:96, :96], wide[5:101, 9:105]) > 0.95
    assert registered_correlation(speckle(1), speckle(2)) < 0.6


def test_registration_of_a_flat_picture_is_no_evidence() -> None:
    assert registered_correlation(np.full((96, 96), 50, np.float32), speckle(0)) == -1


def test_the_sector_edge_leaves_no_detail() -> None:
    image = np.zeros((64, 64), np.float32)
    image[10:50, 10:50] = 100
    assert np.abs(detail(image, 2.0)).max() < 1e-2
    assert shown(image).sum() == 1600


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_plain_picture_has_no_fingerprint(value: int) -> None:
    assert not fingerprint(np.full((50, 60), value, np.float32)).any()


def test_brightness_and_contrast_do_not_change_the_fingerprint() -> None:
    image = speckle(0)
    assert np.sum(fingerprint(image) * fingerprint(image * 0.8 + 20)) > 0.99


def test_grey_of_scales_other_depths_and_frame_digest_knows_them() -> None:
    deep = np.array([[0, 4095], [2048, 1024]], np.uint16)
    assert grey_of(deep).max() == 255
    assert not grey_of(np.full((3, 3), 7, np.uint16)).any()
    assert frame_sha256(deep) != frame_sha256(deep.astype(np.uint8))


def test_border_statistics_see_the_border_only() -> None:
    image = speckle(0)
    inside = image.copy()
    inside[10:-10, 10:-10] = 0
    assert border_statistics(image) == border_statistics(inside)
    assert len(border_statistics(image)) == 20


def test_l07_marks_are_found_and_clean_speckle_has_none() -> None:
    clean = speckle(0, 160).astype(np.uint8)
    assert not find_marks(clean).any
    crosses = (clean // 2).astype(np.uint8)
    for x, y in ((40, 40), (100, 90)):
        crosses[y - 4 : y + 5, x] = 255
        crosses[y, x - 4 : x + 5] = 255
    assert find_marks(crosses).junctions == 2
    dotted = (clean // 2).astype(np.uint8)
    dotted[30:80:5, 100] = 255
    assert find_marks(dotted).dotted_lines == 1
    colour = np.repeat(clean[..., None], 3, axis=2)
    assert not find_marks(colour).any
    colour[50, 20:60] = (255, 220, 0)
    assert find_marks(colour).coloured_strokes == 1


def test_a_colour_map_is_not_a_mark() -> None:
    colour = np.repeat((speckle(0, 160) // 2).astype(np.uint8)[..., None], 3, axis=2)
    colour[30:110, 30:110, 0] += 100
    assert find_marks(colour).coloured_strokes == 0


def test_association_of_independent_and_identical_columns() -> None:
    v, p = association([(a, b) for a in "ab" for b in "xyz"] * 20)
    assert v == pytest.approx(0, abs=1e-12)
    assert p > 0.9
    v, p = association([("a", "x"), ("b", "y"), ("c", "z")] * 3)
    assert v == pytest.approx(1)
    assert p < 0.01
    assert association([("a", "x"), ("b", "x")]) == (0.0, 1.0)
