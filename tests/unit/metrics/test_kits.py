"""KiTS scores are those of surface-distance with the KiTS tolerances, and guards that fire."""

from __future__ import annotations

import numpy as np
import pytest
import surface_distance
from scipy import ndimage

from renalkit.domain.volume import VolumeGrid, affine_of
from renalkit.errors import InputRefused, Reason
from renalkit.metrics.kits import CLASSES, score_kits

SHAPE, SPACING = (12, 24, 26), (3.0, 0.8, 0.9)


def grid(first: float = 0.0, at: tuple[float, ...] | None = None) -> VolumeGrid:
    dz, dy, dx = SPACING
    rows = ((0, 0, dx, first), (0, dy, 0, 0), (dz, 0, 0, 0), (0, 0, 0, 1))
    return VolumeGrid(SHAPE, affine_of(rows), at)


def labels(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(SHAPE)
    return np.digitize(ndimage.gaussian_filter(noise, 2), (0.0, 0.05, 0.09)).astype(np.uint8)


@pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")  # of surface_distance
@pytest.mark.parametrize("seed", range(4))
def test_the_numbers_are_those_of_surface_distance(seed: int) -> None:
    reference, prediction = labels(seed), np.roll(labels(seed), 1, axis=1)
    found = score_kits(reference, prediction, grid(), grid())
    assert list(found) == ["kidney and mass", "mass", "tumour"]
    for name, score in found.items():
        a, b = (np.isin(x, CLASSES[name].labels) for x in (reference, prediction))
        distances = surface_distance.compute_surface_distances(a, b, SPACING)
        tolerance = CLASSES[name].tolerance_mm
        wanted = surface_distance.compute_surface_dice_at_tolerance(distances, tolerance)
        assert score.surface_dice == pytest.approx(wanted, abs=1e-9)
        assert score.dice == pytest.approx(surface_distance.compute_dice_coefficient(a, b))
        assert 0 < score.surface_dice < 1


def test_empty_classes() -> None:
    kidney = np.zeros(SHAPE, np.uint8)
    kidney[3:6, 4:9, 4:9] = 1
    mass = kidney.copy()
    mass[4, 5, 5] = 3
    found = score_kits(kidney, mass, grid(), grid())
    assert found["kidney and mass"].dice == 1
    assert (found["mass"].dice, found["mass"].surface_dice) == (0, 0)
    assert (found["tumour"].dice, found["tumour"].surface_dice) == (1, 1)


def test_other_geometry_and_values_are_refused() -> None:
    array = labels(0)
    for other, reason in (
        ((array, grid(), array, grid(0.5)), Reason.MASK_MISMATCH),
        ((array, grid(at=(*range(11), 11.5)), array, grid(at=(*range(11), 11.5))), "uneven"),
        ((array, grid(), array + 4, grid()), Reason.UNKNOWN_LABEL),
    ):
        reference, its_grid, prediction, other_grid = other
        with pytest.raises(InputRefused) as caught:
            score_kits(reference, prediction, its_grid, other_grid)
        assert caught.value.reason is (Reason.UNEVEN_SLICES if reason == "uneven" else reason)
    with pytest.raises(ValueError, match="other grids"):
        score_kits(array[1:], array, grid(), grid())
