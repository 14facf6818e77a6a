"""The geometry of a CT cascade: boxes, cubes and what is drawn from probabilities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from renalkit.domain.volume import CYST, KIDNEY, TUMOUR, VolumeGrid, affine_of
from renalkit.systems.ct_cascade import (
    CARD,
    CascadeParams,
    KidneyParams,
    LesionParams,
    MassParams,
    at_least,
    build_kidney,
    build_lesion,
    build_mass,
    drawn,
    index_box,
    joined,
    lesion_cube,
    lesion_image,
    lesion_inputs,
    named,
    search_boxes,
    windowed,
)
from renalkit.transforms.volumes import upright_grid, working_grid

GRID = upright_grid((4.0, 4.0, 4.0), ((-100.0, -60.0, 0.0), (100.0, 60.0, 160.0)))
BOX = st.tuples(*[st.tuples(st.integers(-20, 20), st.integers(1, 12))] * 3).map(
    lambda sides: (tuple(float(a) for a, _ in sides), tuple(float(a + n) for a, n in sides))
)


def test_the_window() -> None:
    hu = np.array([-1024, -200, 50, 300, 3000], np.int16)
    np.testing.assert_array_equal(windowed(hu), np.array([-1, -1, 0, 1, 1], np.float32))


def test_a_box_around_each_kidney_none_around_specks() -> None:
    found = np.zeros(GRID.shape)
    found[10:20, 10:16, 5:10] = 0.9
    found[12:22, 10:16, 40:45] = 0.5
    found[30:32, 2:4, 20:22] = 1.0  # 8 voxels, half a millilitre
    params = KidneyParams(margin_mm=10.0)
    boxes = search_boxes(found, GRID, GRID, params)
    assert boxes == (
        ((-90.0, -30.0, 30.0), (-50.0, 14.0, 90.0)),
        ((50.0, -30.0, 38.0), (90.0, 14.0, 98.0)),
    )
    (one,) = search_boxes(found, GRID, GRID, KidneyParams(margin_mm=70.0))
    assert one == ((-100.0, -60.0, 0.0), (100.0, 60.0, 158.0))
    assert search_boxes(np.zeros(GRID.shape), GRID, GRID, params) == ()
    assert len(search_boxes(found, GRID, GRID, KidneyParams(most=1))) == 1


def test_a_box_is_at_least_a_patch_and_stays_in_the_scan() -> None:
    patch, spacing = (8, 5, 10), (5.0, 4.0, 2.0)  # 40, 20 and 20 mm along z, y and x
    middle = ((-4.0, -3.0, 60.0), (4.0, 3.0, 64.0))
    assert at_least(middle, patch, spacing, GRID) == ((-10.0, -10.0, 42.0), (10.0, 10.0, 82.0))
    longer = ((-30.0, -3.0, 60.0), (4.0, 3.0, 164.0))
    assert at_least(longer, patch, spacing, GRID) == ((-30.0, -10.0, 60.0), (4.0, 10.0, 160.0))
    corner = ((-100.0, 55.0, 0.0), (-96.0, 60.0, 4.0))
    assert at_least(corner, patch, spacing, GRID) == ((-100.0, 40.0, 0.0), (-80.0, 60.0, 40.0))
    whole = ((-100.0, -60.0, 0.0), (100.0, 60.0, 160.0))
    assert at_least(middle, (120, 120, 120), spacing, GRID) == whole
    assert working_grid(GRID, spacing, at_least(middle, patch, spacing, GRID)).shape == patch


@given(st.lists(BOX, max_size=6))
def test_joined_boxes_hold_all_and_do_not_meet(boxes) -> None:
    found = joined(boxes)
    for low, high in boxes:
        assert any(
            all(a <= b for a, b in zip(f[0], low, strict=True))
            and all(a >= b for a, b in zip(f[1], high, strict=True))
            for f in found
        )
    for i, one in enumerate(found):
        for other in found[i + 1 :]:
            assert not all(one[0][k] < other[1][k] and other[0][k] < one[1][k] for k in range(3))


def test_an_index_box_holds_the_centres_inside() -> None:
    turned = VolumeGrid(
        (10, 12, 14),
        affine_of([[0, 0, -2.0, 20.0], [0, -2.0, 0, 10.0], [-3.0, 0, 0, 5.0], [0, 0, 0, 1.0]]),
    )
    box = ((-3.0, -8.0, -16.0), (9.0, 3.0, -3.9))
    index = np.argwhere(np.ones(turned.shape))
    at = turned.to_lps(index)
    inside = index[((at >= box[0]) & (at <= box[1])).all(axis=1)]
    found = index_box(turned, box)
    assert [(s.start, s.stop) for s in found] == [
        (int(low), int(high) + 1)
        for low, high in zip(inside.min(axis=0), inside.max(axis=0), strict=True)
    ]
    far = index_box(turned, ((500.0, 500.0, 500.0), (501.0, 501.0, 501.0)))
    assert all(s.stop - s.start == 1 for s in far)


def test_mass_counts_before_kidney_and_specks_of_it_do_not() -> None:
    kidney, mass = np.zeros((2, 12, 12, 12))
    kidney[2:10, 2:10, 2:10] = 0.8
    mass[8:12, 4:8, 4:8] = 0.6
    mass[3, 3, 3] = 0.9
    mass[0, 0, 0] = 0.9
    labels = drawn(kidney, mass, MassParams(least_mm=3.0), voxel_mm3=1.0)
    assert labels[3, 3, 3] == KIDNEY
    assert labels[0, 0, 0] == 0
    assert (labels[8:12, 4:8, 4:8] == TUMOUR).all()
    assert int((labels == TUMOUR).sum()) == 64


def test_a_voxel_is_mass_from_the_threshold_on() -> None:
    kidney, mass = np.full((2, 6, 6, 6), 0.45)
    assert not drawn(kidney, mass, MassParams(), voxel_mm3=1.0).any()
    lower = drawn(kidney, mass, MassParams(threshold=0.4), voxel_mm3=1.0)
    assert (lower == TUMOUR).all(), "mass from 0.4 on, kidney still from one half"


def test_masses_named_cystic_are_labelled_cysts() -> None:
    instances = np.array([[[1, 2, 0]]], np.uint8)
    labels = np.array([[[2, 2, 1]]], np.uint8)
    found = named(labels, instances, {1: "solid", 2: "cystic"}, LesionParams())
    assert found.tolist() == [[[TUMOUR, CYST, KIDNEY]]]


@pytest.mark.parametrize("around", [1.0, 1.5])
def test_the_cube_lies_about_the_mass(around: float) -> None:
    params = LesionParams(side=20, margin=0.25, least_mm=24.0)
    for box, edge in (
        (((0.0, 0.0, 0.0), (8.0, 4.0, 6.0)), 24.0),
        (((0.0, 0.0, 0.0), (60.0, 40.0, 30.0)), 90.0),
    ):
        cube = lesion_cube(box, params, around)
        assert cube.shape == (round(20 * around),) * 3
        assert cube.spacing_mm == pytest.approx((edge / 20,) * 3)
        middle = (np.asarray(box[0]) + box[1]) / 2
        np.testing.assert_allclose(cube.corners_mm.mean(axis=0), middle, atol=1e-9)


@pytest.mark.parametrize("mask_input", [True, False])
def test_stage_3_is_given_hu_and_which_voxels_are_the_mass(mask_input: bool) -> None:
    params = LesionParams(side=16, depth=10, width=0.0625, mask_input=mask_input)
    hu = np.arange(16**3, dtype=np.int16).reshape(16, 16, 16) - 1000
    inside = hu > 0
    image = lesion_image(hu, inside, params)
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image[0, 0], windowed(hu))
    assert image.shape[1] == lesion_inputs(params) == build_lesion(params, 3).plan.n_inputs
    if mask_input:
        np.testing.assert_array_equal(image[0, 1], inside)


def test_networks_have_the_sizes_the_card_states() -> None:
    with torch.device("meta"):
        built = (
            build_kidney(KidneyParams()),
            build_mass(MassParams()),
            build_lesion(LesionParams(), 3),
        )
    counted = [sum(p.numel() for p in net.parameters() if p.requires_grad) for net in built]
    assert counted == list(CARD.parameters.values())
    assert [name.split()[0] for name in CARD.parameters] == ["kidney", "mass", "lesion"]


def test_networks_of_the_cpu_profile_stay_small() -> None:
    def weights(net) -> int:
        return sum(p.numel() for p in net.parameters())

    assert weights(build_kidney(KidneyParams(channels=(8, 12, 20, 32)))) <= 150_000
    mass = MassParams(channels=(8, 16, 32, 64), flat_levels=1)
    net = build_mass(mass)
    assert weights(net) <= 400_000
    assert net.plan.multiple == (4, 8, 8)
    assert net.plan.kernels is not None
    assert net.plan.kernels[0] == (1, 3, 3)
    assert build_lesion(LesionParams(depth=10, width=0.25), 3).plan.n_classes == 3


@pytest.mark.parametrize(
    "given_",
    [
        {"kidney": {"spacing": 4}},
        {"kidney": {"channels": [8]}},
        {"mass": {"members": 0}},
        {"mass": {"overlap": 1.0}},
        {"mass": {"patch": [96, 96, 90]}},
        {"lesion": {"depth": 34}},
        {"boxes": "guess"},
    ],
)
def test_wrong_parameters_are_refused(given_) -> None:
    with pytest.raises(ValidationError):
        CascadeParams.model_validate(given_)
