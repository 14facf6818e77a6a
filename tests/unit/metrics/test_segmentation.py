"""Overlap and distance scores against closed forms, surface-distance and MONAI."""

from __future__ import annotations

import math
import warnings
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from renalkit.errors import InputRefused
from renalkit.metrics.segmentation import (
    BothEmpty,
    LengthUnit,
    ScoreRule,
    SurfaceDefinition,
    average_distance,
    dice_from_iou,
    directed_averages,
    equivalent_diameter,
    percentile_distance,
    score_segmentation,
    surface_dice,
    surface_distances,
)
from renalkit.metrics.surfels import surfel_sizes

SURFEL, BORDER = SurfaceDefinition.SURFEL, SurfaceDefinition.BORDER
DEFINITIONS = pytest.mark.parametrize("definition", list(SurfaceDefinition))

small_masks = hnp.arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9)))


@st.composite
def mask_pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    ndim = draw(st.sampled_from([2, 3]))
    shape = tuple(draw(st.lists(st.integers(1, 7), min_size=ndim, max_size=ndim)))
    masks = hnp.arrays(np.bool_, shape)
    spacing = tuple(draw(st.lists(st.sampled_from([0.5, 1.0, 2.5]), min_size=ndim, max_size=ndim)))
    return draw(masks), draw(masks), spacing


def numbers(scores: object) -> np.ndarray:
    names = ("dice", "iou", "hd95", "assd", "nsd", "area_error", "diameter_error")
    return np.array([getattr(scores, n) for n in names])


def blobs(seed: int, ndim: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Two overlapping irregular objects, some of them cut by the image edge."""
    rng = np.random.default_rng(seed)
    grids = np.meshgrid(*[np.arange(size)] * ndim, indexing="ij")
    masks = []
    centre = rng.uniform(0.2, 0.8, ndim) * size
    for _ in range(2):
        c = centre + rng.normal(0, size * 0.06, ndim)
        radii = rng.uniform(0.12, 0.3, ndim) * size
        r2 = sum(((g - m) / r) ** 2 for g, m, r in zip(grids, c, radii, strict=True))
        masks.append(r2 + rng.normal(0, 0.15, r2.shape) < 1)
    return masks[0], masks[1]


# ---------------------------------------------------------------- properties


@DEFINITIONS
@given(pair=mask_pairs())
@settings(max_examples=60, deadline=None)
def test_swapping_the_masks_changes_only_the_sign_of_size_errors(definition, pair):
    a, b, spacing = pair
    rule = ScoreRule(definition)
    forth = numbers(score_segmentation(a, b, spacing, rule))
    back = numbers(score_segmentation(b, a, spacing, rule))
    np.testing.assert_allclose(forth[:5], back[:5], rtol=1e-12)
    np.testing.assert_allclose(forth[5:], -back[5:], rtol=1e-12)


@DEFINITIONS
@given(pair=mask_pairs(), shift=st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_moving_flipping_and_transposing_change_nothing(definition, pair, shift):
    a, b, spacing = pair
    rule = ScoreRule(definition)
    want = numbers(score_segmentation(a, b, spacing, rule))
    pad = [(shift, 3)] * a.ndim
    moved = score_segmentation(np.pad(a, pad), np.pad(b, pad), spacing, rule)
    turned = score_segmentation(np.flip(a, 0).T, np.flip(b, 0).T, spacing[::-1], rule)
    np.testing.assert_allclose(numbers(moved), want, rtol=1e-12)
    np.testing.assert_allclose(numbers(turned), want, rtol=1e-9)


@DEFINITIONS
@given(pair=mask_pairs(), factor=st.sampled_from([0.25, 2.0, 8.0]))
@settings(max_examples=40, deadline=None)
def test_lengths_scale_with_the_spacing_and_shares_do_not(definition, pair, factor):
    a, b, spacing = pair
    one = score_segmentation(a, b, spacing, ScoreRule(definition, tolerance=1.0))
    scaled = tuple(s * factor for s in spacing)
    big = score_segmentation(a, b, scaled, ScoreRule(definition, tolerance=factor))
    np.testing.assert_allclose([big.dice, big.iou, big.nsd], [one.dice, one.iou, one.nsd])
    np.testing.assert_allclose([big.hd95, big.assd], factor * np.array([one.hd95, one.assd]))
    np.testing.assert_allclose(big.diameter_error, factor * one.diameter_error, atol=1e-12)
    np.testing.assert_allclose(big.area_error, factor**a.ndim * one.area_error)


@DEFINITIONS
@given(pair=mask_pairs())
@settings(max_examples=60, deadline=None)
def test_ranges_and_relations(definition, pair):
    a, b, spacing = pair
    s = score_segmentation(a, b, spacing, ScoreRule(definition))
    if s.note == "both empty":
        return
    assert 0 <= s.iou <= s.dice <= 1
    assert s.dice == pytest.approx(dice_from_iou(s.iou), abs=1e-12)
    assert 0 <= s.nsd <= 1
    d = surface_distances(a, b, spacing, definition)
    assert percentile_distance(d, 50) <= s.hd95 <= percentile_distance(d, 100)
    assert surface_dice(d, 1e9) == (1.0 if not s.note else 0.0)


@DEFINITIONS
@given(mask=small_masks.filter(np.any))
@settings(max_examples=40, deadline=None)
def test_a_mask_agrees_with_itself(definition, mask):
    s = score_segmentation(mask, mask, None, ScoreRule(definition, tolerance=0.0))
    assert (s.dice, s.iou, s.nsd, s.hd95, s.assd) == (1, 1, 1, 0, 0)
    assert (s.area_error, s.diameter_error, s.note) == (0, 0, "")


# ---------------------------------------------------------------- known answers (8.5)


def test_contour_of_a_rectangle_and_surface_of_a_box():
    """Straight sides have their own length; each corner of 2-D contours is cut by half a pixel."""
    mask = np.zeros((12, 14), bool)
    mask[2:8, 3:13] = True
    sizes = surface_distances(mask, mask, (0.5, 2.0)).reference_sizes
    assert sizes.sum() == pytest.approx(2 * 5 * 0.5 + 2 * 9 * 2.0 + 4 * 0.5 * math.hypot(0.5, 2.0))
    areas = surfel_sizes((2.0, 3.0, 5.0))
    assert areas[0b00001111] == pytest.approx(15.0)  # a flat piece between two layers
    assert areas[0] == areas[255] == 0


def two_dimensional(points: tuple[tuple[int, int], ...]) -> np.ndarray:
    mask = np.zeros((128, 128), bool)
    for p in points:
        mask[p] = True
    return mask


KNOWN = {
    "pixels": (
        two_dimensional(((50, 70),)),
        two_dimensional(((50, 72),)),
        (2, 1),
        (1.5, 1.5, 2, 2, 0.5, 0),
    ),
    "squares": (
        np.pad(np.ones((2, 2), bool), ((1, 3), (1, 3))),
        np.pad(np.ones((3, 2), bool), ((1, 2), (1, 3))),
        (2, 1),
        (0.095492, 0.447214, 2, 2, 0.870268, 0.8),
    ),
    "shifted squares": (
        np.pad(np.ones((10, 10), bool), ((5, 5), (5, 8))),
        np.pad(np.ones((10, 10), bool), ((5, 5), (8, 5))),
        (1, 1),
        (1.5, 1.5, 3, 3, 0.5, 0.7),
    ),
}


@pytest.mark.parametrize("name", list(KNOWN))
def test_published_surfel_answers_in_two_dimensions(name):
    a, b, spacing, (forth, back, hd100, hd95, nsd, dice) = KNOWN[name]
    d = surface_distances(a, b, spacing)
    assert directed_averages(d) == pytest.approx((forth, back), abs=1e-6)
    assert percentile_distance(d, 100) == hd100
    s = score_segmentation(a, b, spacing)
    assert (s.hd95, s.nsd, s.dice) == pytest.approx((hd95, nsd, dice), abs=1e-6)


def test_published_surfel_answers_in_three_dimensions():
    a, b = np.zeros((2, 128, 128, 128), bool)
    a[50, 60, 70] = b[50, 60, 72] = True
    d = surface_distances(a, b, (3, 2, 1))
    assert directed_averages(d) == pytest.approx((1.5, 1.5))
    assert (percentile_distance(d), surface_dice(d, 1)) == (2, 0.5)
    a, b = np.zeros((2, 100, 100, 100), bool)
    a[:50] = b[:51] = True
    d = surface_distances(a, b, (2, 1, 1))
    assert directed_averages(d) == pytest.approx((0.322447, 0.339396), abs=1e-6)
    assert surface_dice(d, 1) == pytest.approx(0.836145, abs=1e-6)
    assert score_segmentation(a, b, (2, 1, 1)).dice == pytest.approx(0.990099, abs=1e-6)


def test_the_two_definitions_differ_on_the_published_spheres():
    z, y, x = np.ogrid[:99, :99, :99]
    r2 = (z - 20) ** 2 + (y - 33) ** 2 + (x - 22) ** 2
    small, large = r2 <= 20**2, r2 <= 40**2
    border = surface_distances(small, large, None, BORDER)
    assert percentile_distance(border, 100) == pytest.approx(20.223748, abs=1e-6)
    assert percentile_distance(border) == pytest.approx(20.09975, abs=1e-5)
    surfel = surface_distances(small, large, None, SURFEL)
    assert percentile_distance(surfel) == pytest.approx(19.949937, abs=1e-6)


def test_iou_of_the_published_multitask_system_implies_its_dice():
    assert dice_from_iou(0.942) == pytest.approx(0.970, abs=5e-4)


def test_diameters_of_circle_and_sphere():
    assert equivalent_diameter(math.pi * 9, 2) == pytest.approx(6, rel=1e-12)
    assert equivalent_diameter(4 / 3 * math.pi * 27, 3) == pytest.approx(6, rel=1e-12)


# ---------------------------------------------------------------- other software


@pytest.fixture(scope="module")
def surface_distance_package() -> ModuleType:
    """The reference implementation; it predates NumPy 2, so its old names are given back."""
    import scipy.ndimage
    import surface_distance.metrics as package

    class OldNdimage:
        filters = morphology = scipy.ndimage

    package.ndimage = OldNdimage
    return package


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("seed", range(6))
def test_surfel_scores_equal_those_of_the_surface_distance_package(
    surface_distance_package, ndim, seed
):
    a, b = blobs(seed, ndim, 48 if ndim == 2 else 20)
    spacing = np.random.default_rng(seed).uniform(0.2, 3, ndim).tolist()
    theirs = surface_distance_package.compute_surface_distances(a, b, spacing)
    ours = surface_distances(a, b, spacing, SURFEL)
    assert ours.unit is LengthUnit.MM
    pkg = surface_distance_package
    assert directed_averages(ours) == pytest.approx(
        pkg.compute_average_surface_distance(theirs), rel=1e-9
    )
    for percent in (50, 95, 100):
        assert percentile_distance(ours, percent) == pytest.approx(
            pkg.compute_robust_hausdorff(theirs, percent), rel=1e-9
        )
    for tolerance in (0.5, 1.0, 3.0):
        assert surface_dice(ours, tolerance) == pytest.approx(
            pkg.compute_surface_dice_at_tolerance(theirs, tolerance), rel=1e-9
        )


def test_every_cube_has_the_area_of_the_published_table():
    from surface_distance import lookup_tables

    kernel = lookup_tables.ENCODE_NEIGHBOURHOOD_3D_KERNEL
    for spacing in ((1.0, 1.0, 1.0), (3.0, 2.0, 1.0), (0.7, 0.31, 2.2)):
        theirs = lookup_tables.create_table_neighbour_code_to_surface_area(spacing)
        ours = surfel_sizes(spacing)
        bits = kernel.ravel().tolist()  # last axis fastest: our bit order
        for code in range(256):
            their_code = sum(b for k, b in enumerate(bits) if code >> k & 1)
            assert ours[code] == pytest.approx(theirs[their_code], abs=1e-12)


def monai_border_scores(a, b, spacing, tolerance) -> list[float]:
    import torch
    from monai.metrics import (
        compute_average_surface_distance,
        compute_hausdorff_distance,
        compute_surface_dice,
    )
    from monai.metrics.meandice import compute_dice

    torch.set_num_threads(1)
    y, y_pred = (torch.from_numpy(m[None, None].astype(np.float32)) for m in (a, b))
    how = {"y": y, "y_pred": y_pred, "include_background": True, "spacing": spacing}
    scores = [
        compute_dice(y_pred=y_pred, y=y, include_background=True),
        compute_hausdorff_distance(**how, percentile=95),
        compute_average_surface_distance(**how, symmetric=True),
        compute_surface_dice(**how, class_thresholds=[tolerance]),
    ]
    return [float(t.squeeze()) for t in scores]


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_border_scores_equal_those_of_monai(ndim, seed):
    a, b = blobs(seed, ndim, 48 if ndim == 2 else 20)
    spacing = np.random.default_rng(seed).uniform(0.2, 3, ndim).tolist()
    tolerance = 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI warns of its own arguments
        theirs = monai_border_scores(a, b, spacing, tolerance)
    s = score_segmentation(a, b, spacing, ScoreRule(BORDER, tolerance=tolerance))
    assert [s.dice, s.hd95, s.assd, s.nsd] == pytest.approx(theirs, rel=2e-6)


# ---------------------------------------------------------------- empty masks and refusals


@DEFINITIONS
def test_one_empty_mask_scores_zero_at_infinite_distance(definition):
    full, empty = np.ones((4, 5), np.uint8), np.zeros((4, 5), np.uint8)
    s = score_segmentation(full, empty, None, ScoreRule(definition))
    assert (s.dice, s.iou, s.nsd, s.hd95, s.assd) == (0, 0, 0, math.inf, math.inf)
    assert (s.note, s.area_error, s.unit) == ("prediction empty", -20, LengthUnit.PX)
    assert score_segmentation(empty, full, None, ScoreRule(definition)).note == "reference empty"
    assert math.isnan(directed_averages(surface_distances(full, empty))[1])


@DEFINITIONS
def test_two_empty_masks_follow_the_stated_rule(definition):
    empty = np.zeros((3, 4, 5), bool)
    s = score_segmentation(empty, empty, (1, 1, 1), ScoreRule(definition))
    assert s.note == "both empty"
    assert all(math.isnan(v) for v in (s.dice, s.iou, s.nsd, s.hd95, s.assd))
    assert (s.area_error, s.diameter_error) == (0, 0)
    one = score_segmentation(
        empty, empty, (1, 1, 1), ScoreRule(definition, both_empty=BothEmpty.ONE)
    )
    assert (one.dice, one.iou, one.nsd) == (1, 1, 1)
    assert math.isnan(one.hd95)
    assert math.isnan(average_distance(surface_distances(empty, empty, None, definition)))


@pytest.mark.parametrize(
    ("a", "b", "spacing", "message"),
    [
        (np.ones((3, 3), bool), np.ones((3, 4), bool), None, "prediction has shape"),
        (np.ones(3, bool), np.ones(3, bool), None, "masks with 1 axes"),
        (np.ones((3, 3), bool), np.ones((3, 3), bool), (1.0,), "spacing"),
        (np.ones((3, 3), bool), np.ones((3, 3), bool), (1.0, 0.0), "spacing"),
        (np.ones((3, 3), bool), np.ones((3, 3), bool), (1.0, math.nan), "spacing"),
        (np.ones((3, 3), bool), np.full((3, 3), 0.7), None, "other than 0 and 1"),
        (np.full((3, 3), 255, np.uint8), np.ones((3, 3), bool), None, "other than 0 and 1"),
    ],
)
def test_masks_that_cannot_be_compared_are_refused(a, b, spacing, message):
    with pytest.raises(InputRefused, match=message):
        score_segmentation(a, b, spacing)


@pytest.mark.parametrize(("name", "bad"), [("tolerance", -1.0), ("percentile", 0.0)])
def test_rules_that_mean_nothing_are_refused(name, bad):
    with pytest.raises(ValueError, match=name):
        ScoreRule(**{name: bad})
