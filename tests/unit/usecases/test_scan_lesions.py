"""Lesions of scans found, missed and named: by hand on cubes, and as masks one by one would give."""

from __future__ import annotations

import numpy as np
import pytest

from renalkit.domain.sample import SampleKey
from renalkit.domain.volume import VolumeGrid, affine_of
from renalkit.errors import InputRefused
from renalkit.metrics.bootstrap import BootstrapPlan
from renalkit.metrics.detection import Criterion, HitRule, instance_overlaps, match_lesions
from renalkit.metrics.detection import match_overlaps as matched
from renalkit.usecases.scan_lesions import (
    CRITERIA,
    Instances,
    ScanLesions,
    Size,
    scan_figures,
    scan_lesions,
)

PLAN = BootstrapPlan(n_boot=200)
SHAPE = (12, 30, 30)
GRID = VolumeGrid(SHAPE, affine_of(((0, 0, 1, 0), (0, 1, 0, 0), (1, 0, 0, 0), (0, 0, 0, 1))))


def key(patient: int) -> SampleKey:
    return SampleKey(f"P{patient}", f"S{patient}", "", 0, 0)


def cubes(*corners: tuple[int, int, int, int]) -> np.ndarray:
    """Cubes 1, 2, ...: (z, y, x, edge)."""
    out = np.zeros(SHAPE, np.uint8)
    for number, (z, y, x, edge) in enumerate(corners, start=1):
        out[z : z + edge, y : y + edge, x : x + edge] = number
    return out


def scans(n: int = 12) -> list[ScanLesions]:
    """Each patient: a cube of 4 (4.96 mm) hit whole and named wrongly, one of 8 (9.9 mm) hit with
    a shift of 4 in x (IoU 1/3, Dice 1/2) and named rightly, one of 10 missed; a mark in vain. And
    as many normal scans, every second with one mark."""
    found: list[ScanLesions] = []
    for k in range(n):
        reference = cubes((0, 0, 0, 4), (0, 10, 0, 8), (0, 20, 20, 10))
        marks = cubes((0, 0, 0, 4), (0, 10, 4, 8), (8, 0, 25, 3))
        found.append(
            scan_lesions(
                key(k),
                GRID,
                Instances(reference, {1: "cystic", 2: "solid", 3: "AML"}),
                Instances(marks, {1: "solid", 2: "solid", 3: "AML"}, {1: 0.9, 2: 0.6, 3: 0.7}),
            )
        )
        normal = cubes((2, 2, 2, 3)) if k % 2 else cubes()
        none = Instances(cubes())
        found.append(scan_lesions(key(100 + k), GRID, none, Instances(normal, {}, {1: 0.8})))
    return found


def test_figures_by_hand() -> None:
    figures = scan_figures(scans(), PLAN)
    assert figures["size"] == "equivalent diameter"
    assert list(figures["criteria"]) == ["any voxel", "IoU 0.1", "Dice 0.5", "centroid"]
    for name, found in figures["criteria"].items():
        # The shifted mark's centre of gravity, 7.5, rounds to the voxel past the lesion.
        hits = 1 if name == "centroid" else 2
        assert found["recall"]["value"] == pytest.approx(hits / 3)
        assert found["precision"]["value"] == pytest.approx(hits * 12 / 42)
        assert found["clean"]["value"] == 0.5
        assert found["false_per_normal"]["value"] == 0.5
        assert found["false_per_normal"]["n"] == 24 - 12
        sizes = {row["size"]: row["recall"]["value"] for row in found["by_size"]}
        assert sizes["under 5 mm"] == 1
        assert sizes["10 to 20 mm"] == 0
        large = found["large"]
        assert (large["recall"]["value"], large["lesions"], large["found"]) == (0, 12, 0)
        assert (large["accuracy_found"]["value"], large["accuracy_all"]["value"]) == (None, 0)
    assert figures["criteria"]["any voxel"]["rule"] == "one to one, any overlap"


def test_classes_on_found_and_on_all_lesions() -> None:
    paper, finer = scan_figures(scans(), PLAN)["criteria"]["IoU 0.1"]["classes"]
    assert (paper["edges_mm"], finer["edges_mm"]) == ([5.0], [5.0, 10.0, 20.0, 40.0])
    rows = {
        row["size"]: (
            row["lesions"],
            row["found"],
            row["accuracy_found"]["value"],
            row["accuracy_all"]["value"],
        )
        for row in paper["sizes"]
    }
    assert rows == {
        "all": (36, 24, 0.5, pytest.approx(1 / 3)),
        "under 5 mm": (12, 12, 0.0, 0.0),
        "5 mm and over": (24, 12, 1.0, 0.5),
    }
    assert [row["size"] for row in finer["sizes"]] == [
        "all",
        "under 5 mm",
        "5 to 10 mm",
        "10 to 20 mm",
    ]


def test_froc_has_its_thresholds() -> None:
    """Marks by score: 0.9 right, 0.8 in vain on 6 normal scans, 0.7 in vain, 0.6 right."""
    curve = scan_figures(scans(), PLAN)["criteria"]["IoU 0.1"]["froc"]
    points = [(p["threshold"], p["sensitivity"], p["false_per_picture"]) for p in curve["points"]]
    assert points == [
        (0.9, pytest.approx(1 / 3), 0.0),
        (0.8, pytest.approx(1 / 3), 0.25),
        (0.7, pytest.approx(1 / 3), 0.75),
        (0.6, pytest.approx(2 / 3), 0.75),
    ]
    assert [(a["rate"], a["threshold"]) for a in curve["at"]][:4] == [
        (0.125, 0.9),
        (0.25, 0.8),
        (0.5, 0.8),
        (1.0, 0.6),
    ]


def test_without_scores_there_is_no_curve_and_without_classes_no_accuracy() -> None:
    plain = [
        scan_lesions(key(k), GRID, Instances(cubes((0, 0, 0, 4))), Instances(cubes((0, 0, 0, 4))))
        for k in range(3)
    ]
    found = scan_figures(plain, PLAN)["criteria"]["any voxel"]
    assert found["froc"] is None
    assert found["clean"] is None
    assert found["false_per_normal"] is None
    assert [part["sizes"] for part in found["classes"]] == [[], []]


@pytest.mark.parametrize(
    ("size", "mm"), [(Size.EQUIVALENT, 9.93), (Size.AXIAL, 10.9), (Size.FERET, 13.86)]
)
def test_sizes(size: Size, mm: float) -> None:
    """A cube of 8: 7 steps between centres, on the diagonal of a face or of the cube."""
    given = Instances(cubes((2, 2, 2, 8)))
    assert scan_lesions(key(0), GRID, given, given, size).sizes_mm[0] == pytest.approx(mm, abs=0.01)


@pytest.mark.parametrize("criterion", list(Criterion))
def test_maps_match_as_masks_one_by_one(criterion: Criterion) -> None:
    rng = np.random.default_rng(5)
    rule = HitRule(criterion, 0.05, 1)
    for _ in range(20):
        maps = []
        for _ in range(2):
            corners = rng.integers((0, 0, 0, 2), (8, 22, 22, 8), (4, 4))
            maps.append(cubes(*map(tuple, corners.tolist())))  # type: ignore[arg-type]
        masks = [[m == n for n in np.unique(m[m > 0])] for m in maps]
        wanted = match_lesions(masks[0], masks[1], rule)
        found = matched(instance_overlaps(maps[0], maps[1], criterion), rule)
        assert found.pairs == wanted.pairs
        assert (found.n_reference, found.n_predicted) == tuple(map(len, masks))


def test_wrong_geometry_and_missing_scores_are_refused() -> None:
    good = Instances(cubes((0, 0, 0, 4)))
    with pytest.raises(InputRefused, match=r"prediction: \(6, 30, 30\) voxels on a scan"):
        scan_lesions(key(0), GRID, good, Instances(good.map[:6]))
    with pytest.raises(InputRefused, match="no score for marks 1"):
        scan_lesions(key(0), GRID, good, Instances(good.map, {}, {2: 0.5}))
    with pytest.raises(InputRefused, match="a prediction of"):
        instance_overlaps(good.map, good.map[:6], Criterion.ANY)
    assert set(CRITERIA) == {"any voxel", "IoU 0.1", "Dice 0.5", "centroid"}
