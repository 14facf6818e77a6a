"""Voxels lie where the affine says, axes turn without loss, and a volume is a clip."""

from __future__ import annotations

from itertools import permutations, product

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from renalkit.domain.image import Clip, Mode, Source, pixel_sha256
from renalkit.domain.volume import (
    LabelMap,
    Phase,
    PhaseSource,
    Volume,
    VolumeGrid,
    affine_of,
    axes_of,
    canonical_grid,
    from_canonical,
    source_affine,
    to_canonical,
)

SOURCE = Source("0" * 64, "f-0", "dicom-ct")
ALL_AXES = [
    "".join(letters) for pairs in permutations(("SI", "PA", "LR")) for letters in product(*pairs)
]


def grid(
    shape: tuple[int, int, int] = (3, 4, 5), at: tuple[float, ...] | None = None
) -> VolumeGrid:
    affine = ((0, 0, 0.8, -10), (0, 0.7, 0, 20), (3.0, 0, 0, -5), (0, 0, 0, 1))
    return VolumeGrid(shape, affine_of(affine), at)


def volume(**more: object) -> Volume:
    pixels = np.zeros((3, 4, 5), np.int16)
    settings = {"pixels": pixels, "sha256": pixel_sha256(pixels), "mode": Mode.CT, "source": SOURCE}
    return Volume(**(settings | {"grid": grid()} | more))  # type: ignore[arg-type]


def test_an_upright_grid() -> None:
    found = grid()
    assert found.axes == "SPL"
    assert found.spacing_mm == pytest.approx((3.0, 0.7, 0.8))
    assert found.voxel_mm3 == pytest.approx(3.0 * 0.7 * 0.8)
    assert found.upright
    assert (found.shear_deg, found.turn_deg) == pytest.approx((0, 0), abs=1e-6)
    assert found.to_lps([(0, 0, 0), (2, 1, 4)]) == pytest.approx(
        np.array([(-10, 20, -5), (-6.8, 20.7, 1)])
    )


@given(
    seed=st.integers(0, 999),
    index=st.tuples(*[st.floats(-3, 9)] * 3),
    gap=st.sampled_from((None, (0.0, 1.0, 3.0), (0.0, 0.6, 1.9))),
)
def test_a_place_and_its_index_belong_together(
    seed: int, index: tuple[float, float, float], gap: tuple[float, ...] | None
) -> None:
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    affine[:3, :3] = turn * rng.uniform(0.5, 5, 3) + 0.1 * rng.standard_normal((3, 3))
    affine[:3, 3] = rng.uniform(-300, 300, 3)
    found = VolumeGrid((3, 4, 5), affine_of(affine), gap)
    assert found.to_index(found.to_lps([index]))[0] == pytest.approx(index, abs=1e-6)


def test_slices_lie_where_they_are_said_to_lie() -> None:
    gap = grid(at=(0, 1, 3))
    assert gap.to_lps([(2, 0, 0), (1.5, 0, 0)])[:, 2] == pytest.approx([4, 1])
    assert gap.to_index([(-10, 20, 1.0)])[0, 0] == pytest.approx(1.5)
    assert grid().shift_from(gap) == pytest.approx(3.0 / 0.7)
    assert gap.shift_from(gap) == 0
    assert grid().shift_from(grid((3, 4, 6))) == np.inf


def test_shear_and_turn_are_told_apart() -> None:
    """A gantry tilt moves neighbouring slices along their rows; a turned patient does not."""
    angle = np.radians(15)
    row = np.array((0, np.cos(angle), np.sin(angle)))
    tilted = np.eye(4)
    tilted[:3, :3] = np.stack([(0, 0, 3.0), 0.7 * row, (0.8, 0, 0)], axis=1)
    found = VolumeGrid((3, 4, 5), affine_of(tilted))
    assert (found.shear_deg, found.turn_deg) == pytest.approx((15, 15), abs=1e-6)
    assert found.spacing_mm[0] == pytest.approx(3 * np.cos(angle))
    turned = np.eye(4)
    normal = np.array((0, -np.sin(angle), np.cos(angle)))
    turned[:3, :3] = np.stack([3.0 * normal, 0.7 * row, (0.8, 0, 0)], axis=1)
    found = VolumeGrid((3, 4, 5), affine_of(turned))
    assert (found.shear_deg, found.turn_deg) == pytest.approx((0, 15), abs=1e-5)
    assert not found.upright


@pytest.mark.parametrize("axes", ALL_AXES)
def test_axes_are_those_of_nibabel_and_turn_without_loss(axes: str) -> None:
    """All 48 orientations; nibabel writes them for RAS coordinates in the same letters."""
    assert len(ALL_AXES) == 48
    array = np.arange(24).reshape(2, 3, 4)
    ras = np.eye(4)
    ras[:3, :3] = 0
    for column, (row, sign) in enumerate(nibabel.orientations.axcodes2ornt(tuple(axes))):
        ras[int(row), column] = sign
    lps = np.diag([-1.0, -1, 1, 1]) @ ras
    assert "".join(nibabel.aff2axcodes(ras)) == axes == axes_of(lps[:3, :3])
    found, said = canonical_grid((2, 3, 4), lps)
    assert said == axes
    assert found.axes == "SPL"
    straight = to_canonical(array, axes)
    assert straight.shape == found.shape
    assert np.array_equal(from_canonical(straight, axes), array)
    assert source_affine(found, axes) == pytest.approx(lps)
    for index in np.ndindex(array.shape):
        place = (lps @ (*index, 1))[:3]
        k, j, i = np.rint(found.to_index([place])[0]).astype(int)
        assert straight[k, j, i] == array[index]


def test_what_names_no_axes_is_refused() -> None:
    for bad in ("SPS", "SP", "XYZ", "SPLL"):
        with pytest.raises(ValueError, match="three different body axes"):
            to_canonical(np.zeros((1, 1, 1)), bad)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"shape": (0, 4, 5)}, "with voxels"),
        ({"affine_lps_mm": ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 0, 0), (0, 0, 0, 1))}, "singular"),
        ({"affine_lps_mm": ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 1, 1))}, "0, 0, 0, 1"),
        ({"affine_lps_mm": ((float("nan"), 0, 0, 0),) * 4}, "finite"),
        ({"slice_at": (0, 1)}, "one per slice"),
        ({"slice_at": (0, 2, 2)}, "rise"),
    ],
)
def test_grids_that_cannot_be_are_refused(change: dict[str, object], words: str) -> None:
    whole = {"shape": (3, 4, 5), "affine_lps_mm": grid().affine_lps_mm, "slice_at": None}
    with pytest.raises(ValueError, match=words):
        VolumeGrid(**(whole | change))  # type: ignore[arg-type]


def test_a_volume_is_a_clip_with_a_grid() -> None:
    found = volume(phase=Phase.NEPHROGRAPHIC, phase_source=PhaseSource.HU)
    assert isinstance(found, Clip)
    assert found.n_frames == 3
    assert found.frame(1).mode is Mode.CT
    assert found != volume()
    labels = np.zeros((3, 4, 6), np.uint8)
    for change, words in (
        ({"grid": grid((3, 4, 6))}, "on a grid"),
        ({"mode": Mode.B}, "of mode B"),
        ({"phase": Phase.EXCRETORY}, "needs its source"),
        ({"labels": LabelMap(labels, pixel_sha256(labels))}, "labels"),
        ({"source_axes": "RRR"}, "body axes"),
    ):
        with pytest.raises(ValueError, match=words):
            volume(**change)
