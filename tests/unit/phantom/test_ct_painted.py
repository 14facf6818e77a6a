"""Scans painted into masks: the masks stay, the tissue in them is right, the body fits around."""

from dataclasses import replace

import numpy as np
import pytest

from renalkit.domain.volume import Phase, VolumeGrid, affine_of
from renalkit.metrics.volume_lesions import connected_instances
from renalkit.phantom.ct import volume as ct
from renalkit.phantom.ct.anatomy import CtPlan
from renalkit.phantom.ct.painted import Shapes, paint_shapes

SPACING = (6.0, 4.0, 4.0)
SHAPE = (32, 56, 88)
PLAN = CtPlan(phases=(Phase.NEPHROGRAPHIC,), aml_share=0.0, noise_hu=0.0)


def grid_of(shape=SHAPE, spacing=SPACING, turn_deg=0.0):
    z, y, x = spacing
    a = np.radians(turn_deg)
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1.0]])
    matrix = np.eye(4)
    matrix[:3, :3] = turn @ np.array([[0, 0, x], [0, y, 0], [z, 0, 0.0]])
    matrix[:3, 3] = (-170.0, -95.0, 40.0)
    return VolumeGrid(shape, affine_of(matrix))


def ball(centre_mm, radii_mm, shape=SHAPE, spacing=SPACING):
    """Voxels (Z,Y,X) of an ellipsoid; centre and radii (z, y, x) from the first voxel."""
    axes = np.meshgrid(
        *(np.arange(n) * s for n, s in zip(shape, spacing, strict=True)), indexing="ij"
    )
    terms = zip(axes, centre_mm, radii_mm, strict=True)
    return sum(((a - c) / r) ** 2 for a, c, r in terms) < 1


def bean(x_mm, sinus_mm):
    """A kidney with a bay; x of its centre, and from it to that of the bay."""
    kidney = ball((96, 120, x_mm), (52, 28, 25))
    return kidney & ~ball((96, 112, x_mm + sinus_mm), (18, 14, 14))


def shapes_of(labels, grid):
    return Shapes(labels, connected_instances(labels, grid.voxel_mm3)[0], grid)


def drawn_labels():
    labels = np.zeros(SHAPE, np.uint8)
    labels[bean(110, 22) | bean(240, -22)] = 1
    labels[ball((66, 120, 90), (22, 20, 20))] = 2
    labels[ball((130, 124, 258), (18, 18, 18))] = 3
    return labels


@pytest.fixture(scope="module")
def shapes():
    return shapes_of(drawn_labels(), grid_of())


@pytest.fixture(scope="module")
def painted(shapes):
    return paint_shapes(shapes, PLAN, 3)


def test_the_masks_are_the_truth_voxel_by_voxel(shapes, painted):
    _, volume = painted
    np.testing.assert_array_equal(volume.labels, shapes.labels)
    np.testing.assert_array_equal(volume.instances, shapes.instances)
    assert volume.grid == shapes.grid
    assert [(one.label, one.side) for one in volume.lesions] == [
        ("tumour", "right"),
        ("cyst", "left"),
    ]
    for one in volume.lesions:
        voxels = int((shapes.instances == one.number).sum())
        assert one.voxel_volume_mm3 == pytest.approx(voxels * shapes.grid.voxel_mm3)
        index = np.argwhere(shapes.instances == one.number).mean(axis=0)
        np.testing.assert_allclose(one.centre_mm, shapes.grid.to_lps([index])[0], atol=1e-6)


def test_each_label_has_its_tissue(shapes, painted):
    _, volume = painted
    hu, labels = volume.hu[Phase.NEPHROGRAPHIC], volume.labels
    assert 140 < np.median(hu[labels == 1]) < 190
    tumour, cyst = (one.mean_hu["nephrographic"] for one in volume.lesions)
    assert 60 < tumour < 170
    assert -5 < cyst < 75  # voxels are coarse: its rim is half kidney
    core = ball((130, 124, 258), (9, 9, 9))
    assert abs(np.median(hu[core]) - 10) < 20
    behind = hu[16, 38, (27, 60)]  # 20 mm behind the kidneys lies fat or muscle, no air
    assert (behind > -160).all()
    assert hu[0, 0, 0] < -900 or hu[0, 0, 0] > -200


def test_kidneys_of_the_masks_meet_those_of_the_body(painted):
    case, _ = painted
    right, left = case.kidneys
    assert (right.side, left.side) == ("right", "left")
    assert right.hull.centre_mm[0] == pytest.approx(-left.hull.centre_mm[0], abs=5.0)
    for one in (right, left):
        assert abs(one.hull.centre_mm[2]) < 15
        assert -20 < one.hull.centre_mm[1] - case.body.spine_y_mm < 5
        long, _, _ = one.hull.semi_axes_mm
        assert 40 < long < 75


def test_the_seed_decides_all_but_the_masks(shapes, painted):
    _, volume = painted
    again, other = (paint_shapes(shapes, PLAN, seed)[1] for seed in (3, 4))
    phase = Phase.NEPHROGRAPHIC
    np.testing.assert_array_equal(again.hu[phase], volume.hu[phase])
    assert (other.hu[phase] != volume.hu[phase]).mean() > 0.5
    np.testing.assert_array_equal(other.labels, volume.labels)


def test_pixels_do_not_depend_on_the_slabs(shapes, painted, monkeypatch):
    monkeypatch.setattr(ct, "_SLAB_VOXELS", 5 * SHAPE[1] * SHAPE[2])
    _, volume = paint_shapes(shapes, PLAN, 3)
    difference = volume.hu[Phase.NEPHROGRAPHIC].astype(int) - painted[1].hu[Phase.NEPHROGRAPHIC]
    assert np.abs(difference).max() <= 1
    assert np.count_nonzero(difference) < 100


def test_a_turned_grid_keeps_its_place(shapes, painted):
    grid = grid_of(turn_deg=14.0)
    _, volume = paint_shapes(replace(shapes, grid=grid), PLAN, 3)
    assert volume.grid == grid
    # The patient is turned with the scanner.
    straight, turned = painted[1].hu[Phase.NEPHROGRAPHIC], volume.hu[Phase.NEPHROGRAPHIC]
    np.testing.assert_array_equal(straight, turned)


def test_contrast_phases_differ_as_in_drawn_scans(shapes):
    plan = replace(PLAN, phases=tuple(Phase))
    _, volume = paint_shapes(shapes, plan, 3)
    kidney = {p: float(np.median(hu[volume.labels == 1])) for p, hu in volume.hu.items()}
    assert kidney[Phase.NON_CONTRAST] < 50
    assert kidney[Phase.NON_CONTRAST] < kidney[Phase.EXCRETORY]
    spread = {p: float(hu[volume.labels == 1].std()) for p, hu in volume.hu.items()}
    assert spread[Phase.CORTICOMEDULLARY] > spread[Phase.NEPHROGRAPHIC]


@pytest.mark.parametrize(
    ("x_mm", "sinus_mm", "side"),
    [(110, 22, "right"), (240, -22, "left"), (174, 22, "right"), (174, -22, "left")],
)
def test_one_kidney_lies_on_its_side(x_mm, sinus_mm, side):
    """By the half of the scan; in its middle, away from the hilum."""
    labels = bean(x_mm, sinus_mm).astype(np.uint8)
    case, _ = paint_shapes(shapes_of(labels, grid_of()), PLAN, 1)
    (kidney,) = case.kidneys
    assert kidney.side == side
    assert (kidney.hull.centre_mm[0] > 0) == (side == "left")


def test_fused_kidneys_are_two():
    labels = np.zeros(SHAPE, np.uint8)
    labels[bean(110, 22) | bean(240, -22) | ball((66, 112, 175), (14, 14, 80))] = 1
    case, volume = paint_shapes(shapes_of(labels, grid_of()), PLAN, 1)
    assert [one.side for one in case.kidneys] == ["right", "left"]
    assert volume.lesions == ()


def test_the_body_widens_for_kidneys_that_lie_far_out(painted):
    labels = np.zeros(SHAPE, np.uint8)
    labels[bean(60, 22) | bean(290, -22)] = 1
    case, _ = paint_shapes(shapes_of(labels, grid_of()), PLAN, 3)
    assert case.body.frame_mm[0] > painted[0].body.frame_mm[0]


def test_masks_cut_by_the_border_of_the_scan():
    labels = drawn_labels()[10:22, 20:40, 22:66]
    shapes = shapes_of(np.ascontiguousarray(labels), grid_of(labels.shape))
    _, volume = paint_shapes(shapes, PLAN, 3)
    hu = volume.hu[Phase.NEPHROGRAPHIC]
    assert 130 < np.median(hu[volume.labels == 1]) < 190


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda labels, numbers: (labels * 2, numbers), "expected 1"),
        (lambda labels, numbers: (np.where(labels == 1, 7, labels), numbers), "expected 1"),
        (lambda labels, numbers: (labels, numbers * 2), "not numbered"),
        (lambda labels, numbers: (labels, np.where(labels == 1, 1, numbers)), "no tumour or cyst"),
        (lambda labels, numbers: (labels, numbers[:-1]), "differ in shape"),
    ],
    ids=["no-kidney", "unknown-label", "numbers", "lesion-in-kidney", "shapes"],
)
def test_what_are_no_shapes(shapes, change, words):
    labels, numbers = change(shapes.labels, shapes.instances)
    with pytest.raises(ValueError, match=words):
        Shapes(labels.astype(np.uint8), numbers.astype(np.uint8), shapes.grid)


def test_a_few_slices_are_no_volume():
    labels = np.ones((7, 20, 20), np.uint8)
    with pytest.raises(ValueError, match="grid of"):
        Shapes(labels, np.zeros_like(labels), grid_of(labels.shape))
