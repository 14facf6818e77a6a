"""Patches and crops: a function of seed and step, in the right place, interpolated once."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation

from renalkit.domain.volume import CYST, KIDNEY, TUMOUR
from renalkit.errors import ConfigError, TrainingFailed
from renalkit.learn.outputs import UNKNOWN
from renalkit.learn.patches import (
    AIR_HU,
    WINDOW_HU,
    Change,
    CropPlan,
    HeldVolume,
    LesionCrops,
    Patches,
    PatchPlan,
    patch,
    sample_change,
)
from renalkit.learn.volume_options import VolumeRanges

torch.set_num_threads(1)
WIDE = (AIR_HU - 1.0, -AIR_HU + 1.0)
STRONG = VolumeRanges(shift_mm=5.0, flip_probability=0.5, probability=1.0)


def made(name="a", shape=(12, 16, 20), spacing=(3.0, 1.8, 1.8)):
    """Kidney with a large tumour and, far from it, a cyst of one voxel."""
    rng = np.random.default_rng(len(name) + shape[0])
    hu = ndimage.gaussian_filter(rng.normal(0, 400, shape), 1.5).astype(np.int16)
    labels = np.zeros(shape, np.uint8)
    labels[1:-1, 2:-2, 1:-1] = KIDNEY
    labels[3:7, 4:7, 2:5] = TUMOUR
    labels[-2, -3, -2] = CYST
    return HeldVolume(name, hu, labels, spacing)


def source(plan, volumes=None):
    return Patches(volumes or [made("a"), made("bb", (10, 30, 8))], plan)


def hu_of(image):
    """Of an image windowed with WIDE, which holds all HU."""
    return image * (WIDE[1] - WIDE[0]) / 2 + sum(WIDE) / 2


def same(first, second):
    return all(
        (a is None and b is None) or torch.equal(a, b) for a, b in zip(first, second, strict=True)
    )


PLAN = PatchPlan((8, 8, 8), batch=3, seed=5, ranges=STRONG)
WHOLE = PatchPlan(None, batch=2, seed=5, multiple=(4, 8, 8), ranges=STRONG)
CROPS = CropPlan((6, 8, 8), batch=5, seed=5, ranges=STRONG)


def crops(plan=CROPS):
    return LesionCrops([made(n, (8, 10, 12)) for n in "abcdef"], [0, 0, 0, 1, -1, 0], plan)


@pytest.mark.parametrize("plan", [PLAN, WHOLE, CROPS], ids=["patches", "whole", "crops"])
def test_a_batch_is_a_function_of_seed_and_step_alone(plan):
    build = crops if plan is CROPS else source
    first, again, other = build(plan), build(plan), build(replace(plan, seed=9))
    later = [first.batch(step) for step in range(4)]
    assert same(again.batch(3), later[3])
    assert again.names(2) == first.names(2)
    assert not same(later[0], later[1])
    assert not same(other.batch(0), later[0])
    assert first.digest == again.digest != other.digest


def test_threads_change_nothing():
    torch.set_num_threads(2)
    two = source(PLAN).batch(1)
    torch.set_num_threads(1)
    assert same(source(PLAN).batch(1), two)


def test_the_digest_knows_every_voxel():
    volume = made()
    labels = volume.labels.copy()
    labels[0, 0, 0] = UNKNOWN
    assert source(PLAN, [volume]).digest != source(PLAN, [replace(volume, labels=labels)]).digest


def test_shapes_types_and_range():
    batch = source(PLAN).batch(0)
    assert batch.image.shape == (3, 1, 8, 8, 8)
    assert batch.image.dtype == torch.float32
    assert float(batch.image.abs().max()) <= 1
    assert batch.labels.shape == (3, 8, 8, 8)
    assert batch.labels.dtype == torch.uint8
    assert batch.label is None


def test_an_unchanged_patch_is_the_voxels_themselves_and_air_beyond():
    volume = made()
    image, labels = patch(volume, (-2, 3, 15), (6, 4, 8), Change(), WIDE)
    wanted = np.full((6, 4, 8), AIR_HU)
    wanted[2:, :, :5] = volume.hu[:4, 3:7, 15:]
    np.testing.assert_allclose(hu_of(image)[0], wanted, atol=1e-3)
    assert np.array_equal(labels[2:, :, :5], volume.labels[:4, 3:7, 15:])
    image, labels = patch(volume, (50, 0, -40), (2, 2, 2), Change(), WIDE)
    assert bool((image == image.min()).all())
    assert not labels.any()
    image, labels = patch(volume, (50, 0, -40), (2, 2, 2), Change(zoom=1.1), WINDOW_HU)
    assert bool((image == -1).all())
    assert not labels.any()


def test_interpolation_at_voxels_gives_the_voxels():
    volume = made()
    plain, labels = patch(volume, (-1, 2, 3), (9, 10, 12), Change(), WIDE)
    # A shift by whole voxels goes through the interpolation.
    moved, named = patch(volume, (0, 0, 0), (9, 10, 12), Change(shift_mm=(3.0, -3.6, -5.4)), WIDE)
    torch.testing.assert_close(hu_of(moved), hu_of(plain), atol=0.05, rtol=0)
    assert torch.equal(named, labels)
    turned, named = patch(
        volume, (-1, 2, 3), (9, 10, 12), Change(angles_deg=(180.0, 0, 0), flip=True), WIDE
    )
    torch.testing.assert_close(hu_of(turned), hu_of(plain.flip(2)), atol=0.05, rtol=0)
    assert torch.equal(named, labels.flip(1))


def test_rotation_zoom_and_shift_are_those_of_the_body():
    volume = made(spacing=(3.0, 1.5, 1.0))
    change = Change((30.0, 8.0, -5.0), 1.2, (2.0, -1.0, 4.0), True)
    size, start = (6, 8, 7), (3, 4, 6)
    image, labels = patch(volume, start, size, change, WIDE)
    turn = Rotation.from_euler("zyx", change.angles_deg, degrees=True)
    mm = np.array(volume.spacing_mm)
    middle = (np.array(size) - 1) / 2
    z, y, x = np.indices(size).reshape(3, -1)
    from_middle = (np.stack([z, y, x], 1) - middle) * mm * (1, 1, -1)
    there = turn.apply(from_middle[:, ::-1])[:, ::-1] / change.zoom - change.shift_mm
    at = (there / mm + middle + start).T
    hu = ndimage.map_coordinates(
        volume.hu.astype(float), at, order=1, mode="grid-constant", cval=AIR_HU
    )
    np.testing.assert_allclose(hu_of(image).numpy().ravel(), hu, atol=0.2)
    named = ndimage.map_coordinates(
        volume.labels, np.floor(at + 0.5), order=0, mode="grid-constant"
    )
    assert (labels.numpy().ravel() != named).mean() < 0.01


def test_values_change_before_the_window_and_gamma_after_it():
    volume = made()
    size = (4, 4, 4)
    given = volume.hu[:4, :4, :4].astype(float)
    change = Change(hu_scale=1.5, hu_shift=40.0, gamma=0.5)
    image, _ = patch(volume, (0, 0, 0), size, change, WINDOW_HU)
    windowed = np.clip(((given - 50) * 1.5 + 40) / 250, -1, 1)
    np.testing.assert_allclose(image[0], np.sqrt((windowed + 1) / 2) * 2 - 1, atol=1e-5)
    noisy = [
        hu_of(patch(volume, (0, 0, 0), (12, 16, 20), Change(noise_hu=10.0, noise_seed=s), WIDE)[0])
        for s in (1, 1, 2)
    ]
    assert torch.equal(noisy[0], noisy[1])
    assert not torch.equal(noisy[0], noisy[2])
    assert float((noisy[0][0] - torch.from_numpy(volume.hu)).std()) == pytest.approx(10, rel=0.05)


def test_changes_stay_in_their_ranges_and_off_is_off():
    rng = np.random.default_rng(0)
    drawn = [sample_change(STRONG, rng) for _ in range(300)]
    angles = np.array([c.angles_deg for c in drawn])
    assert np.abs(angles).max(axis=0) == pytest.approx((15, 5, 5), rel=0.1)
    assert 0.85 <= min(c.zoom for c in drawn) < 0.88 < 1.15 < max(c.zoom for c in drawn) <= 1.18
    assert 0.4 < np.mean([c.flip for c in drawn]) < 0.6
    assert 4 < np.abs([c.shift_mm for c in drawn]).max() <= 5
    assert 15 < max(c.noise_hu for c in drawn) <= 20
    usual = [sample_change(VolumeRanges(), rng) for _ in range(300)]
    assert not any(c.flip for c in usual)
    assert 0.7 < np.mean([c.moves for c in usual]) < 0.9
    assert sample_change(VolumeRanges(probability=0.0), rng) == Change()
    assert sample_change(None, rng) == Change()


def test_shares_are_kept_and_the_smallest_mass_is_drawn_as_often_as_the_largest():
    volume = made()
    voxels = PatchPlan((1, 1, 1), batch=400, mass_share=0.6, kidney_share=0.3, ranges=None)
    found = np.bincount(source(voxels, [volume]).batch(0).labels.ravel(), minlength=4)
    assert found[CYST] == pytest.approx(120, abs=30)
    assert found[TUMOUR] == pytest.approx(120, abs=40)
    assert found[KIDNEY] == pytest.approx(135, abs=35)


def test_the_voxel_meant_lies_in_the_middle_half_and_patches_stay_inside():
    big = made(shape=(40, 40, 40))
    labels = np.zeros(big.shape, np.uint8)
    labels[20, 21, 22] = CYST
    plan = PatchPlan((8, 10, 12), batch=60, mass_share=1.0, kidney_share=0.0, ranges=None)
    batch = source(plan, [replace(big, labels=labels)]).batch(0)
    at = np.argwhere(batch.labels.numpy())[:, 1:]
    assert len(at) == 60
    assert (at >= np.array(plan.size) * 0.25 - 1).all()
    assert (at <= np.array(plan.size) * 0.75 + 1).all()
    assert len(np.unique(at, axis=0)) > 20
    bright = replace(big, hu=np.full_like(big.hu, 500))
    anywhere = replace(plan, mass_share=0.0)
    assert bool((source(anywhere, [bright]).batch(0).image == 1).all())


def test_a_volume_smaller_than_the_patch_lies_in_its_middle():
    volume = made(shape=(12, 16, 20))
    plan = PatchPlan((16, 24, 20), batch=1, mass_share=0.0, kidney_share=0.0, ranges=None)
    labels = source(plan, [volume]).batch(0).labels[0]
    assert np.array_equal(labels[2:14, 4:20], volume.labels)


def test_whole_volumes_come_once_per_pass_and_are_padded_at_their_ends():
    volumes = [made(n, (9 + i, 16, 20)) for i, n in enumerate("abc")]
    whole = source(replace(WHOLE, batch=3, ranges=None), volumes)
    for step in range(3):
        assert sorted(whole.names(step)) == ["a", "b", "c"]
        batch = whole.batch(step)
        assert batch.image.shape == (3, 1, 12, 16, 24)
        for row, name in enumerate(whole.names(step)):
            volume = next(v for v in volumes if v.name == name)
            assert np.array_equal(batch.labels[row, : volume.shape[0], :, :20], volume.labels)
            assert bool((batch.image[row, 0, volume.shape[0] :] == -1).all())
    orders = {tuple(whole.names(step)) for step in range(12)}
    assert len(orders) > 2


def test_classes_are_drawn_alike_and_unknown_ones_never():
    many = crops(replace(CROPS, batch=300))
    label = many.batch(0).label
    assert label.dtype == torch.int64
    assert sorted(set(label.tolist())) == [0, 1]
    assert float(label.float().mean()) == pytest.approx(0.5, abs=0.1)
    assert "e" not in many.names(0)
    once = crops(replace(CROPS, balanced=False))
    assert sorted(once.names(0)) == sorted(once.names(1)) == ["a", "b", "c", "d", "f"]


def test_crops_are_cut_from_the_middle_and_may_bring_their_mask():
    held = crops(replace(CROPS, mask_input=True))
    batch = held.plain([3, 4])
    assert batch.image.shape == (2, 2, 6, 8, 8)
    assert batch.label.tolist() == [1, -1]
    volume = held.crops[3]
    middle = (slice(1, 7), slice(1, 9), slice(2, 10))
    windowed = np.clip((volume.hu[middle].astype(np.float32) - 50) / 250, -1, 1)
    np.testing.assert_allclose(batch.image[0, 0], windowed, atol=1e-6)
    assert np.array_equal(batch.image[0, 1], volume.labels[middle] >= TUMOUR)
    assert crops().batch(0).image.shape == (5, 1, 6, 8, 8)


def test_nothing_to_draw_from_is_said():
    empty = replace(made(), labels=np.zeros((12, 16, 20), np.uint8))
    with pytest.raises(TrainingFailed, match="no mass"):
        source(PLAN, [empty])
    with pytest.raises(TrainingFailed, match="no kidney"):
        source(replace(PLAN, mass_share=0.0), [empty])
    with pytest.raises(TrainingFailed, match="no volume"):
        Patches([], PLAN)
    with pytest.raises(TrainingFailed, match="no lesion with a class"):
        LesionCrops([made()], [-1], CROPS)


def test_wrong_settings_list_every_problem():
    with pytest.raises(ConfigError) as wrong:
        PatchPlan((0, 1, 1), 0, -1, 0.8, 0.3, (0, 1, 1), window_hu=(1.0, 1.0))
    assert len(wrong.value.problems) == 6
    with pytest.raises(ConfigError) as wrong:
        CropPlan((1, 1, 1), 0, -1)
    assert len(wrong.value.problems) == 2
    with pytest.raises(ConfigError) as wrong:
        VolumeRanges(rotation_deg=-1, zoom=(2, 1), probability=2)
    assert len(wrong.value.problems) == 3
    for bad in ({"hu": np.zeros((2, 2, 2), np.float32)}, {"labels": np.zeros((1, 1, 1), np.uint8)}):
        with pytest.raises(ValueError, match="a: "):
            replace(made(), **bad)
