"""Thresholds and connected parts find what they are made for, on balls in ellipsoids."""

from __future__ import annotations

import numpy as np
import pytest

from renalkit.domain.volume import CYST, KIDNEY, TUMOUR, VolumeGrid, affine_of
from renalkit.transforms.hu_masses import hu_masses

GRID = VolumeGrid(
    (40, 75, 100),
    affine_of(((0, 0, 2.4, -119.0), (0, 2.4, 0, -89.0), (3.5, 0, 0, -70.0), (0, 0, 0, 1))),
)
AXES = np.array((24.0, 22.0, 48.0))
RIGHT, LEFT = np.array((-58.0, 35.0, 0.0)), np.array((58.0, 35.0, 0.0))
BALLS = (
    (np.array((82.0, 40.0, 10.0)), 12.0, 10, "cystic"),
    (np.array((-58.0, 10.0, -20.0)), 15.0, 110, "solid"),
    (np.array((-56.0, 36.0, 15.0)), 10.0, -60, "AML"),
)
POINTS = GRID.to_lps(np.argwhere(np.ones(GRID.shape, bool))).reshape(*GRID.shape, 3)


def ball(centre: np.ndarray, radii: np.ndarray | float) -> np.ndarray:
    return (((POINTS - centre) / radii) ** 2).sum(axis=-1) <= 1


def scene(kidney_hu: int) -> tuple[np.ndarray, np.ndarray]:
    """HU and labels: a body of fat with muscle behind, two kidneys and the balls."""
    hu = np.full(GRID.shape, -1000, np.int16)
    labels = np.zeros(GRID.shape, np.uint8)
    hu[ball(np.zeros(3), np.array((112.0, 80.0, 1e6)))] = -100
    hu[ball(np.array((0.0, 60.0, 0.0)), np.array((30.0, 18.0, 1e6)))] = 60
    for centre in (RIGHT, LEFT):
        at = ball(centre, AXES)
        hu[at], labels[at] = kidney_hu, KIDNEY
    for centre, radius, value, kind in BALLS:
        at = ball(centre, radius)
        hu[at], labels[at] = value, CYST if kind == "cystic" else TUMOUR
    noise = np.random.default_rng(0).normal(0, 8, GRID.shape)
    return (hu + noise).astype(np.int16), labels


def test_kidneys_and_masses_of_every_kind_are_found() -> None:
    hu, drawn = scene(165)
    labels, numbers, masses = hu_masses(hu, GRID)
    both = 2 * int(((labels > 0) & (drawn > 0)).sum())
    assert both / int((labels > 0).sum() + (drawn > 0).sum()) > 0.85
    assert sorted(m.kind for m in masses) == ["AML", "cystic", "solid"]
    for centre, radius, _, kind in BALLS:
        (one,) = (m for m in masses if m.kind == kind)
        mask, truth = numbers == one.number, ball(centre, radius)
        assert 2 * int((mask & truth).sum()) / int(mask.sum() + truth.sum()) > 0.6
        assert set(np.unique(labels[mask])) == {CYST if kind == "cystic" else TUMOUR}
        assert one.roundness > 0.3
    assert sorted(set(np.unique(numbers).tolist()) - {0}) == [m.number for m in masses]


@pytest.mark.parametrize("kidney_hu", [35, -100])
def test_without_contrast_nothing_is_found(kidney_hu: int) -> None:
    labels, numbers, masses = hu_masses(scene(kidney_hu)[0], GRID)
    assert masses == ()
    assert not labels.any()
    assert not numbers.any()
