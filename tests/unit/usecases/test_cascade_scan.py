"""A cascade whose networks see what is there: is it drawn where it is, on any grid?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import ndimage

from renalkit.domain.image import Mode, Source, pixel_sha256
from renalkit.domain.prediction import SystemRef
from renalkit.domain.sample import SampleKey
from renalkit.domain.scan import FoundScan
from renalkit.domain.volume import CYST, KIDNEY, TUMOUR, Volume, VolumeGrid, affine_of
from renalkit.runtime.parity import mask_dice
from renalkit.systems.ct_cascade import CascadeParams, windowed
from renalkit.usecases.cascade_scan import Spoken, Stages, find_masses

PARAMS = CascadeParams.model_validate(
    {
        "kidney": {"spacing_mm": 5.0, "channels": [4, 8, 16], "margin_mm": 8.0},
        "mass": {
            "spacing_mm": [2.0, 1.5, 1.5],
            "patch": [24, 32, 32],
            "channels": [4, 8],
            "members": 2,
        },
        "lesion": {"side": 16},
    }
)
SPOKEN = Spoken(
    SampleKey("p-" + "0" * 20, "s-" + "0" * 20, "", 0, 0),
    SystemRef("ct-cascade", "ct-cascade", "0" * 64),
    2,
    ("cystic", "solid"),
)
FAT_HU, KIDNEY_HU, MASS_HU, BRIGHT_HU = -100, 100, 220, 290
KIDNEYS = ((-60.0, 10.0, 0.0), (60.0, 10.0, 5.0))
SEMI_AXES = (22.0, 20.0, 34.0)
MASSES = (((-60.0, 8.0, 26.0), 11.0, MASS_HU), ((70.0, 24.0, 0.0), 8.0, BRIGHT_HU))


def between(a: float, b: float) -> float:
    return float(windowed(np.array([(a + b) / 2]))[0])


def kidney(image):
    return np.where(image > between(FAT_HU, KIDNEY_HU), 10.0, -10.0).astype(np.float32)


def mass(image):
    found = np.where(image > between(KIDNEY_HU, MASS_HU), 10.0, -10.0)
    return np.concatenate([kidney(image), found], axis=1).astype(np.float32)


def nothing(image):
    return np.full((len(image), 2, *image.shape[2:]), -10.0, np.float32)


def name(image):
    """Solid where the middle is brightest."""
    side = image.shape[-1] // 2
    bright = image[:, 0, side, side, side] > between(MASS_HU, BRIGHT_HU)
    return np.stack([np.where(bright, -2.0, 2.0), np.where(bright, 2.0, -2.0)], axis=1)


SEEING = Stages(kidney, (mass, mass), name)


def scan(grid: VolumeGrid) -> tuple[Volume, np.ndarray]:
    """The scene on a grid, and the number of each mass at each voxel."""
    index = np.argwhere(np.ones(grid.shape, bool))
    at = grid.to_lps(index)
    hu = np.full(len(at), FAT_HU, np.int16)
    for centre in KIDNEYS:
        hu[(((at - centre) / SEMI_AXES) ** 2).sum(axis=1) <= 1] = KIDNEY_HU
    numbers = np.zeros(len(at), np.uint8)
    for number, (centre, radius, value) in enumerate(MASSES, start=1):
        inside = np.linalg.norm(at - np.asarray(centre), axis=1) <= radius
        hu[inside], numbers[inside] = value, number
    pixels = hu.reshape(grid.shape)
    volume = Volume(
        pixels=pixels,
        sha256=pixel_sha256(pixels),
        mode=Mode.CT,
        source=Source("0" * 64, "0" * 64, "dicom-ct"),
        spacing_mm=grid.spacing_mm[1:],
        grid=grid,
    )
    return volume, numbers.reshape(grid.shape)


def grid_of(steps, shape=(44, 72, 110), slice_at=None) -> VolumeGrid:
    """A grid with these steps (columns: z, y, x) whose middle is the scene's."""
    steps = np.asarray(steps, np.float64)
    last = shape[0] - 1 if slice_at is None else slice_at[-1]
    middle = np.array([last, shape[1] - 1, shape[2] - 1]) / 2
    affine = np.eye(4)
    affine[:3, :3] = steps
    affine[:3, 3] = np.array([0.0, 10.0, 2.0]) - steps @ middle
    return VolumeGrid(shape, affine_of(affine), slice_at)


PLAIN = np.array([[0, 0, 1.7], [0, 1.7, 0], [2.5, 0, 0]])
TURN = np.deg2rad(12)
GRIDS = {
    "plain": grid_of(PLAIN),
    "negated axis": grid_of(PLAIN * (1, 1, -1)),
    "both flipped": grid_of(PLAIN * (1, -1, -1)),
    "reversed": grid_of(PLAIN * (-1, 1, 1)),
    "tilted": grid_of(PLAIN + [[0, 0, 0], [0.5, 0, 0], [0, 0, 0]], (48, 80, 110)),
    "oblique": grid_of(
        np.array([[np.cos(TURN), 0, np.sin(TURN)], [0, 1, 0], [-np.sin(TURN), 0, np.cos(TURN)]])
        @ PLAIN,
        (56, 72, 120),
    ),
    "non-uniform": grid_of(
        PLAIN, (41, 72, 110), tuple(float(k) for k in range(44) if k not in (9, 10, 30))
    ),
}


def check(found: FoundScan, numbers: np.ndarray, off: float) -> None:
    for number in (1, 2):
        known = np.argwhere(numbers == number)
        here = np.median(found.instances[numbers == number])
        said = np.argwhere(found.instances == here)
        assert here > 0
        assert np.abs(said.mean(axis=0) - known.mean(axis=0)).max() < 0.5
        assert len(said) == pytest.approx(len(known), rel=off)


@pytest.mark.parametrize("case", GRIDS, ids=str)
def test_masses_are_found_where_they_are(case: str) -> None:
    volume, numbers = scan(GRIDS[case])
    found = find_masses(volume, SEEING, PARAMS, SPOKEN)
    assert len(found.lesions) == 2
    assert found.boxes_mm is not None
    assert len(found.boxes_mm) == 2
    # Across a missing slice a mass is drawn from what lies on both sides.
    check(found, numbers, 0.15 if case == "non-uniform" else 0.12)
    largest, smaller = found.lesions
    assert (largest.number, smaller.number) == (1, 2)
    assert largest.scores == pytest.approx((0.982, 0.018), abs=1e-3)
    assert smaller.scores == pytest.approx((0.018, 0.982), abs=1e-3)
    assert set(np.unique(found.labels[found.instances == 1])) == {CYST}
    assert set(np.unique(found.labels[found.instances == 2])) == {TUMOUR}
    assert found.fold == 2
    whole = np.asarray(volume.pixels) > 0
    both = int((whole & (found.labels > 0)).sum())
    assert 2 * both / (int(whole.sum()) + int((found.labels > 0).sum())) > 0.95


def test_members_that_differ_agree_on_nothing_and_halve_the_probability() -> None:
    volume, _ = scan(GRIDS["plain"])
    found = find_masses(volume, replace(SEEING, mass=(mass, nothing)), PARAMS, SPOKEN)
    assert all(v.agreement == 0 for v in found.lesions)
    sure = find_masses(volume, SEEING, PARAMS, SPOKEN)
    assert all(v.agreement > 0.99 and v.confidence > 0.7 for v in sure.lesions)


@pytest.mark.parametrize("case", ["plain", "tilted", "oblique"])
def test_a_coarse_member_sees_larger_voxels_and_is_averaged_where_it_saw(case: str) -> None:
    volume, numbers = scan(GRIDS[case])
    params = with_mass(coarse_mm=(3.0, 2.5, 2.5), overlap=0.0)
    tiles: dict[str, list[tuple[int, ...]]] = {"fine": [], "coarse": []}
    darkest: list[float] = []

    def seen_by(who: str, network):
        def score(image):
            tiles[who].append(image.shape[2:])
            darkest.append(float(image.min()))
            return network(image)

        return score

    both = (seen_by("fine", mass), seen_by("coarse", mass))
    found = find_masses(volume, replace(SEEING, mass=both), params, SPOKEN)
    assert len(found.lesions) == 2
    check(found, numbers, 0.15)
    assert {*tiles["fine"], *tiles["coarse"]} == {(24, 32, 32)}
    assert 0 < len(tiles["coarse"]) < len(tiles["fine"])
    if case == "plain":
        assert min(darkest) == pytest.approx(float(windowed(np.array([FAT_HU]))[0])), "no air"
    assert all(v.agreement > 0.6 and v.confidence > 0.7 for v in found.lesions)
    half = find_masses(volume, replace(SEEING, mass=(nothing, mass)), params, SPOKEN)
    assert all(0.3 < v.confidence <= 0.5 and v.agreement == 0 for v in half.lesions)


def test_one_member_of_two_is_enough_below_one_half() -> None:
    def unsure(image):
        return np.full((len(image), 2, *image.shape[2:]), -3.0, np.float32)

    volume, numbers = scan(GRIDS["plain"])
    stages = replace(SEEING, mass=(mass, unsure))
    assert len(find_masses(volume, stages, with_mass(threshold=0.55), SPOKEN).lesions) == 0
    found = find_masses(volume, stages, with_mass(threshold=0.27), SPOKEN)
    check(found, numbers, 0.12)  # (1 + 0.05) / 4: where the sure one is at one half
    assert all(v.agreement == 0 for v in found.lesions)


def with_mass(**settings: object) -> CascadeParams:
    return CascadeParams.model_validate(
        PARAMS.model_dump() | {"mass": PARAMS.mass.model_dump() | settings}
    )


def test_every_second_member_of_each_fold_is_coarse() -> None:
    two = with_mass(coarse_mm=(3.0, 2.5, 2.5)).mass
    assert [two.spacing_of(n)[0] for n in range(4)] == [2.0, 3.0, 2.0, 3.0]
    assert {PARAMS.mass.spacing_of(n)[0] for n in range(4)} == {2.0}
    with pytest.raises(ValidationError, match="at least 2 members"):
        with_mass(coarse_mm=(3.0, 2.5, 2.5), members=1)


def test_classes_are_told_from_hu_and_the_mass_they_are_of() -> None:
    volume, _ = scan(GRIDS["plain"])
    seen: list[np.ndarray] = []

    def look(image):
        seen.append(image)
        return name(image)

    find_masses(volume, replace(SEEING, name=look), PARAMS, SPOKEN)
    for image, (_, _, hu) in zip(seen, sorted(MASSES, key=lambda m: -m[1]), strict=True):
        value, inside = image[0]
        assert mask_dice(inside > 0, value > between(KIDNEY_HU, hu)) > 0.9


def test_without_a_kidney_nothing_is_searched() -> None:
    volume, _ = scan(GRIDS["plain"])
    found = find_masses(volume, replace(SEEING, kidney=lambda x: nothing(x)[:, :1]), PARAMS, SPOKEN)
    assert found.boxes_mm == ()
    assert found.lesions == ()
    assert not found.labels.any()


def test_without_a_network_for_classes_masses_have_no_scores() -> None:
    volume, _ = scan(GRIDS["plain"])
    found = find_masses(volume, replace(SEEING, name=None), PARAMS, SPOKEN)
    assert [v.scores for v in found.lesions] == [None, None]
    assert set(np.unique(found.labels)) == {0, KIDNEY, TUMOUR}


def test_one_slice_is_a_scan_too() -> None:
    grid = grid_of(PLAIN * (2, 1, 1), (1, 72, 110))
    volume, numbers = scan(grid)
    found = find_masses(volume, SEEING, replace_least(PARAMS), SPOKEN)
    assert found.labels.shape == (1, 72, 110)
    assert ndimage.label(found.labels > 0)[1] == 2  # type: ignore[index]
    assert numbers.any()


def replace_least(params: CascadeParams) -> CascadeParams:
    kidney_ = params.kidney.model_copy(update={"least_ml": 0.5})
    return params.model_copy(update={"kidney": kidney_})


def half_a_kidney(image):
    """Stage 1 that sees the lower half of kidneys only, as with a large mass above."""
    seen = kidney(image)
    seen[:, :, seen.shape[2] // 2 :] = -10.0
    return seen


@pytest.mark.parametrize(("turns", "whole"), [(4, True), (1, False)])
def test_a_box_is_widened_until_nothing_reaches_its_face(turns: int, whole: bool) -> None:
    volume, _ = scan(grid_of(PLAIN))
    mass_params = PARAMS.mass.model_copy(update={"widen_mm": 10.0, "widen_turns": turns})
    params = PARAMS.model_copy(update={"mass": mass_params})
    stages = replace(SEEING, kidney=half_a_kidney)
    kept = find_masses(volume, replace(SEEING), PARAMS, SPOKEN)
    narrow = params.model_copy(update={"mass": mass_params.model_copy(update={"widen_mm": 0.0})})
    cut_off = find_masses(volume, stages, narrow, SPOKEN)
    found = find_masses(volume, stages, params, SPOKEN)
    assert (cut_off.labels > 0).sum() < 0.9 * (kept.labels > 0).sum()
    assert (found.labels > 0).sum() > (cut_off.labels > 0).sum()
    if whole:
        assert ((found.labels > 0) != (kept.labels > 0)).mean() < 1e-4
    assert found.boxes_mm is not None
    outer = volume.grid.corners_mm
    for low, high in found.boxes_mm:
        assert (np.asarray(low) >= outer.min(axis=0) - 1e-6).all()
        assert (np.asarray(high) <= outer.max(axis=0) + 1e-6).all()


def test_widening_ends_at_the_scan() -> None:
    """Where everything is drawn, the box is the whole scan in the end, and no more."""
    volume, _ = scan(grid_of(PLAIN))

    def all_of_it(image):
        return np.full((len(image), 2, *image.shape[2:]), 10.0, np.float32)

    mass_params = PARAMS.mass.model_copy(update={"widen_mm": 100.0, "widen_turns": 10})
    params = PARAMS.model_copy(update={"mass": mass_params})
    found = find_masses(volume, replace(SEEING, mass=(all_of_it,)), params, SPOKEN)
    assert found.boxes_mm is not None
    (box,) = found.boxes_mm
    outer = volume.grid.corners_mm
    np.testing.assert_allclose(box, (outer.min(axis=0), outer.max(axis=0)))
