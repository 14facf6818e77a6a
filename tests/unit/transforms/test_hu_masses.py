"""Thresholds and connected parts find what they are made for, on balls in ellipsoids."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from renalkit.domain.volume import CYST, KIDNEY, TUMOUR, VolumeGrid, affine_of
from renalkit.readers.contract import ReadOptions
from renalkit.readers.ct_pictures import read_ct_picture, read_picture_labels
from renalkit.readers.decode_worker import DecodeWorker
from renalkit.transforms.hu_masses import hu_masses
from renalkit.transforms.volumes import cut

DATA = Path(os.environ.get("RENALKIT_DATA", Path(__file__).parents[4] / "shared" / "data"))
REAL = DATA / "kits19_ct_slices"

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


@pytest.mark.parametrize("k", [17, 20, 24])
@pytest.mark.parametrize("thickness_mm", [1.0, 5.0])
def test_one_slice_is_searched_in_its_plane(k: int, thickness_mm: float) -> None:
    """Kidneys of a slice are found whatever its thickness, and on its own pixels."""
    hu, drawn = scene(165)
    one = cut(GRID, (slice(k, k + 1), slice(0, 75), slice(0, 100)))
    affine = np.asarray(one.affine_lps_mm).copy()
    affine[2, 0] = thickness_mm
    labels, numbers, masses = hu_masses(hu[k : k + 1], VolumeGrid(one.shape, affine_of(affine)))
    truth = drawn[k : k + 1]
    assert labels.shape == numbers.shape == truth.shape
    both = 2 * int(((labels > 0) & (truth > 0)).sum())
    assert both / int((labels > 0).sum() + (truth > 0).sum()) > 0.8
    assert all(0.3 <= m.roundness <= 1 for m in masses)


@pytest.mark.skipif(
    not REAL.is_dir(), reason="NO REAL CT SLICES (set RENALKIT_DATA): thresholds are NOT tested"
)
def test_kidneys_are_found_on_a_real_slice() -> None:
    """Its pictures have no known window: 0 to 255 HU is taken, and black for fat."""
    with (REAL / "manifest.csv").open() as file:
        row = next(r for r in csv.DictReader(file) if r["case_id"] == "case_00136")
    spacing, options = (float(row["spacing_y_mm"]), float(row["spacing_x_mm"])), ReadOptions()
    with DecodeWorker(options.limits) as worker:
        volume = read_ct_picture(REAL / row["image"], (0.0, 255.0), spacing, options, worker)
        truth = read_picture_labels(REAL / row["mask"], options, worker)
    hu = np.asarray(volume.pixels).copy()
    hu[hu <= 0] = -100
    labels, _, _ = hu_masses(hu, volume.grid)
    assert labels.shape == truth.shape == (1, 512, 512)
    both = 2 * int(((labels > 0) & (truth > 0)).sum())
    assert both / int((labels > 0).sum() + (truth > 0).sum()) > 0.7
