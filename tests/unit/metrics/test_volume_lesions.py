"""Lesions of known shape at known depth in kidneys of known shape, and label volumes gone wrong."""

from __future__ import annotations

import csv
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from renalkit.domain.study import Side
from renalkit.domain.volume import (
    CYST,
    TUMOUR,
    Phase,
    VolumeGrid,
    affine_of,
    canonical_grid,
    to_canonical,
)
from renalkit.errors import InputRefused, Reason
from renalkit.metrics.nephrometry import nephrometry
from renalkit.metrics.volume_lesions import LesionMeasures, ScanMeasures, measure_lesions
from renalkit.phantom.ct.anatomy import CtPlan, draw_case
from renalkit.phantom.ct.volume import render_phases

DATA = Path(os.environ.get("RENALKIT_DATA", Path(__file__).parents[4] / "shared" / "data"))

Ball = tuple[float, float, float, float]
KIDNEY = np.array([24.0, 27.0, 52.0])
LOW, HIGH = np.array([-120.0, -50.0, -78.0]), np.array([120.0, 50.0, 78.0])


def even(spacing: tuple[float, float, float] = (2.0, 2.0, 2.0)) -> VolumeGrid:
    dz, dy, dx = spacing
    n = [int(size / step) for size, step in zip((HIGH - LOW)[::-1], spacing, strict=True)]
    x, y, z = LOW
    rows = ((0, 0, dx, x), (0, dy, 0, y), (dz, 0, 0, z), (0, 0, 0, 1))
    return VolumeGrid((n[0], n[1], n[2]), affine_of(rows))


def drawn(
    grid: VolumeGrid, *balls: Ball, sides: tuple[int, ...] = (-1, 1), value: int = TUMOUR
) -> np.ndarray:
    """Ellipsoid kidneys at x = +-60 with a sinus open to the middle; balls (x, y, z, radius) from
    the centre of the left one."""
    index = np.moveaxis(np.indices(grid.shape), 0, -1).reshape(-1, 3)
    x, y, z = grid.to_lps(index).reshape(*grid.shape, 3).transpose(3, 0, 1, 2)
    labels = np.zeros(grid.shape, np.uint8)
    for side in sides:
        inside = (
            sum(
                ((a - c) / r) ** 2
                for a, c, r in zip((x, y, z), (60 * side, 0, 0), KIDNEY, strict=True)
            )
            <= 1
        )
        sinus = ((x - 44 * side) / 15) ** 2 + (y / 10) ** 2 + (z / 20) ** 2 <= 1
        labels[inside & ~sinus] = 1
    for bx, by, bz, radius in balls:
        labels[(x - 60 - bx) ** 2 + (y - by) ** 2 + (z - bz) ** 2 <= radius**2] = value
    return labels


def only(found: ScanMeasures) -> LesionMeasures:
    assert len(found.lesions) == 1
    return found.lesions[0]


def outside(ball: Ball) -> float:
    """Share of the ball outside the ellipsoid, by 100,000 points."""
    rng = np.random.default_rng(0)
    p = rng.normal(size=(100_000, 3))
    p *= ball[3] * rng.random((len(p), 1)) ** (1 / 3) / np.linalg.norm(p, axis=1)[:, None]
    return float(((((p + ball[:3]) / KIDNEY) ** 2).sum(axis=1) > 1).mean())


@pytest.mark.parametrize(
    ("ball", "polarity"),
    [
        ((0.0, 0.0, 52.0, 15.0), "upper"),
        ((0.0, 0.0, -45.0, 20.0), "lower"),
        ((12.0, 0.0, 30.0, 8.0), "upper"),
        ((30.0, 5.0, 10.0, 24.0), "middle"),
    ],
)
def test_balls_at_known_depth(ball: Ball, polarity: str) -> None:
    """Equivalent diameter to 2 %, the others to a voxel's width on their line, exophytic share to
    0.04."""
    grid = even()
    lesion = only(measure_lesions(drawn(grid, ball), grid))
    assert lesion.equivalent_mm == pytest.approx(2 * ball[3], rel=0.02)
    assert lesion.axial_mm == pytest.approx(2 * ball[3], abs=2.1)
    assert lesion.feret_mm == pytest.approx(2 * ball[3], abs=3.5)
    assert lesion.centre_mm == pytest.approx((60 + ball[0], ball[1], ball[2]), abs=0.3)
    assert (lesion.side, lesion.value, lesion.notes) == (Side.LEFT, TUMOUR, ())
    anatomy = lesion.anatomy
    assert anatomy is not None
    assert anatomy.exophytic_share == pytest.approx(outside(ball), abs=0.04)
    assert anatomy.polarity == polarity
    assert anatomy.long_axis == pytest.approx(ball[2] / 52, abs=0.05)
    assert anatomy.from_centre_mm == pytest.approx(float(np.linalg.norm(ball[:3])), abs=1.0)
    assert anatomy.kidney_gap_mm == 0


def test_gap_to_the_sinus_and_polar_lines() -> None:
    """The sinus ends 1 mm medial of the kidney's centre and leaves the outline up to z = +-18."""
    grid = even()
    gaps: list[float] = []
    for x in (10.0, 14.0, 18.0):
        anatomy = only(measure_lesions(drawn(grid, (x, 0.0, 0.0, 8.0)), grid)).anatomy
        assert anatomy is not None
        assert anatomy.sinus_mm is not None
        assert anatomy.polar_mm == pytest.approx((-18, 18), abs=2.0)
        gaps.append(anatomy.sinus_mm)
    # The balls begin 2, 6 and 10 mm lateral of the kidney's centre.
    assert gaps == pytest.approx([3.0, 7.0, 11.0], abs=1.5)


def test_scores_of_a_known_mass() -> None:
    """A ball of 30 mm on the lateral edge between the poles: R 1, E 1, N by the gap, L 3."""
    grid = even()
    found = nephrometry(only(measure_lesions(drawn(grid, (26.0, 0.0, 0.0, 15.0)), grid)))
    assert found is not None
    assert [p.points for p in found.renal.parts] == [1, 1, 1, 3]
    assert {p.name: p.points for p in found.padua.parts} == {
        "pole": 2,
        "exophytic": 1,
        "rim": 1,
        "sinus": 1,
        "collecting system": None,
        "size": 1,
    }
    assert found.c_index.value == pytest.approx(26 / 15, rel=0.05)


def figures(lesion: LesionMeasures) -> list[float]:
    anatomy = lesion.anatomy
    assert anatomy is not None
    sizes = [lesion.volume_mm3, lesion.equivalent_mm, lesion.axial_mm, lesion.feret_mm]
    polar = anatomy.polar_mm or ()
    single = [getattr(anatomy, f.name) for f in fields(anatomy)]
    return [*sizes, *lesion.centre_mm, *polar, *(v for v in single if isinstance(v, float))]


@pytest.mark.parametrize("axes", ["IPL", "PIR"])
def test_the_order_and_direction_of_the_axes_change_nothing(axes: str) -> None:
    grid = even()
    labels = drawn(grid, (20.0, 4.0, 12.0, 12.0))
    order = [next(i for i, pair in enumerate(("SI", "PA", "LR")) if a in pair) for a in axes]
    turned = [axes[k] != "SPL"[order[k]] for k in range(3)]
    steps = np.asarray(grid.affine_lps_mm)[:3, :3][:, order].copy()
    first = grid.first_mm.copy()
    shape = [grid.shape[i] for i in order]
    for k, back in enumerate(turned):
        if back:
            first = first + steps[:, k] * (shape[k] - 1)
            steps[:, k] *= -1
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = steps, first
    other = VolumeGrid((shape[0], shape[1], shape[2]), affine_of(matrix))
    moved = np.ascontiguousarray(
        labels.transpose(order)[tuple(slice(None, None, -1 if t else 1) for t in turned)]
    )
    a, b = only(measure_lesions(labels, grid)), only(measure_lesions(moved, other))
    if axes[0] in "SI":  # an axial diameter is one of a slice
        assert figures(b) == pytest.approx(figures(a), rel=0.01, abs=0.05)
    assert b.volume_mm3 == pytest.approx(a.volume_mm3)
    assert b.anatomy is not None
    assert b.anatomy.exophytic_share == pytest.approx(a.anatomy.exophytic_share, abs=0.01)  # type: ignore[union-attr]


def test_a_mirrored_patient_has_the_same_lesion_on_the_other_side() -> None:
    grid = even()
    labels = drawn(grid, (20.0, 4.0, 12.0, 12.0))
    a = only(measure_lesions(labels, grid))
    b = only(measure_lesions(np.ascontiguousarray(labels[:, :, ::-1]), grid))
    assert (a.side, b.side) == (Side.LEFT, Side.RIGHT)
    assert a.anatomy is not None
    assert b.anatomy is not None
    assert b.anatomy.exophytic_share == pytest.approx(a.anatomy.exophytic_share, abs=0.02)
    assert b.anatomy.sinus_mm == pytest.approx(a.anatomy.sinus_mm, abs=0.8)


@pytest.mark.parametrize("spacing", [(1.5, 1.2, 1.2), (5.0, 1.5, 1.5)])
def test_other_spacing(spacing: tuple[float, float, float]) -> None:
    ball = (20.0, 4.0, 12.0, 12.0)
    grid = even(spacing)
    lesion = only(measure_lesions(drawn(grid, ball), grid))
    assert lesion.volume_mm3 == pytest.approx(4 / 3 * np.pi * 12**3, rel=0.03)
    assert lesion.anatomy is not None
    assert lesion.anatomy.exophytic_share == pytest.approx(outside(ball), abs=0.05)
    assert lesion.anatomy.sinus_mm == pytest.approx(10.5, abs=2.5)


def test_missing_slices_and_shear_change_no_volume() -> None:
    """A slice left out is stood for by its neighbours; a sheared grid has its own voxel volume."""
    ball = (20.0, 4.0, 12.0, 12.0)
    full = even()
    gone = [k for k in range(full.shape[0]) if k != 45]
    matrix = full.affine_lps_mm
    uneven = VolumeGrid((len(gone), *full.shape[1:]), matrix, tuple(map(float, gone)))
    tilted = np.asarray(matrix).copy()
    tilted[1, 0] += 0.5  # each slice half a millimetre further back
    tilted[1, 3] -= 20
    for grid in (uneven, VolumeGrid(full.shape, affine_of(tilted))):
        lesion = only(measure_lesions(drawn(grid, ball), grid))
        assert lesion.volume_mm3 == pytest.approx(4 / 3 * np.pi * 12**3, rel=0.03)
        assert lesion.anatomy is not None
        assert lesion.anatomy.exophytic_share == pytest.approx(outside(ball), abs=0.05)


def test_density_and_enhancement() -> None:
    grid = even((4.0, 2.0, 2.0))
    labels = drawn(grid, (20.0, 4.0, 12.0, 12.0))
    hu = {
        Phase.NEPHROGRAPHIC: np.where(labels == 2, 90, 0).astype(np.int16),
        Phase.NON_CONTRAST: np.where(labels == 2, 31, 0).astype(np.int16),
    }
    lesion = only(measure_lesions(labels, grid, hu=hu))
    assert lesion.mean_hu == {Phase.NON_CONTRAST: 31.0, Phase.NEPHROGRAPHIC: 90.0}
    assert lesion.enhancement_hu == {(Phase.NON_CONTRAST, Phase.NEPHROGRAPHIC): 59.0}


def test_several_lesions_and_given_instances() -> None:
    grid = even()
    labels = drawn(grid, (20.0, 0.0, 30.0, 9.0), (20.0, 0.0, -30.0, 7.0))
    labels |= drawn(grid, (-120.0, 20.0, 0.0, 6.0), sides=(), value=CYST) * (labels != 2)
    found = measure_lesions(labels, grid)
    assert [(le.value, le.side) for le in found.lesions] == [
        (TUMOUR, Side.LEFT),
        (TUMOUR, Side.LEFT),
        (CYST, Side.RIGHT),
    ]
    instances = np.where(labels == 2, 4, 0)
    assert [le.number for le in measure_lesions(labels, grid, instances=instances).lesions] == [4]


# ---------------------------------------------------------------- what is wrong or missing


def test_nothing_labelled_and_normal_kidneys() -> None:
    grid = even((4.0, 2.0, 2.0))
    empty = measure_lesions(np.zeros(grid.shape, np.uint8), grid)
    assert (empty.lesions, empty.notes) == ((), ("nothing labelled",))
    normal = measure_lesions(drawn(grid), grid)
    assert (normal.lesions, normal.notes, len(normal.kidney_mm3)) == ((), (), 2)


def test_a_tumour_without_kidney_or_far_from_it() -> None:
    grid = even((4.0, 2.0, 2.0))
    alone = measure_lesions(drawn(grid, (20.0, 0.0, 0.0, 12.0), sides=()), grid)
    assert alone.notes == ("no kidney is labelled",)
    lesion = only(alone)
    assert (lesion.anatomy, lesion.notes) == (None, ("no kidney to relate it to",))
    assert nephrometry(lesion) is None
    far = only(measure_lesions(drawn(grid, (46.0, 0.0, 0.0, 8.0)), grid))
    assert far.anatomy is None
    assert "mm from the nearest kidney" in far.notes[0]


def test_one_kidney() -> None:
    grid = even()
    labels = drawn(grid, (20.0, 4.0, 12.0, 12.0), sides=(1,))
    found = measure_lesions(labels, grid)
    assert found.notes == ("one kidney: left and right by the middle of the scan",)
    assert only(found).side is Side.LEFT
    assert only(found).anatomy is not None
    told = measure_lesions(labels, grid, midline_mm=100.0)
    assert (told.notes, only(told).side) == ((), Side.RIGHT)


def test_fused_kidneys() -> None:
    grid = even((4.0, 2.0, 2.0))
    labels = drawn(grid, (20.0, 4.0, 12.0, 12.0))
    at = grid.to_index([[-60.0, -8.0, -46.0], [60.0, 8.0, -34.0]]).round().astype(int)
    bridge = tuple(slice(a, b) for a, b in np.sort(at, axis=0).T)
    labels[bridge] = np.maximum(labels[bridge], 1)
    found = measure_lesions(labels, grid)
    assert found.fused
    assert set(found.kidney_mm3) == {Side.LEFT, Side.RIGHT}
    lesion = only(found)
    assert (lesion.side, lesion.anatomy) == (Side.LEFT, None)
    assert lesion.notes == ("fused kidneys have no poles",)


def test_a_lesion_cut_by_the_border_and_a_kidney_cut() -> None:
    grid = even()
    labels = drawn(grid, (0.0, 0.0, 30.0, 12.0))
    k = int(grid.to_index([[0.0, 0.0, 30.0]])[0, 0])
    part = VolumeGrid((k, *grid.shape[1:]), grid.affine_lps_mm)
    lesion = only(measure_lesions(labels[:k], part))
    assert lesion.notes == ("touches the border of the scan: larger than measured",)
    assert lesion.anatomy is not None
    assert "the kidney touches the border of the scan" in lesion.anatomy.uncertain


def test_labels_that_leave_no_sinus_give_none() -> None:
    grid = even()
    labels = drawn(grid, (20.0, 4.0, 12.0, 12.0))
    x, y, z = grid.to_lps(np.moveaxis(np.indices(grid.shape), 0, -1).reshape(-1, 3)).T
    hull = (((np.stack([np.abs(x) - 60, y, z], 1)) / KIDNEY) ** 2).sum(1) <= 1
    labels[(labels == 0) & hull.reshape(grid.shape)] = 1
    lesion = only(measure_lesions(labels, grid))
    assert lesion.anatomy is not None
    assert lesion.anatomy.sinus_mm is None
    assert lesion.anatomy.uncertain == ("the labels leave no sinus inside the kidney",)
    found = nephrometry(lesion)
    assert found is not None
    assert found.renal.total is None


def test_wrong_geometry_and_values_are_refused() -> None:
    grid = even((4.0, 2.0, 2.0))
    labels = drawn(grid)
    with pytest.raises(InputRefused, match="voxels on a scan of") as error:
        measure_lesions(labels[1:], grid)
    assert error.value.reason is Reason.MASK_MISMATCH
    with pytest.raises(InputRefused, match="instances: .* voxels beside labels"):
        measure_lesions(labels, grid, instances=labels[1:])
    with pytest.raises(InputRefused, match="nephrographic: "):
        measure_lesions(labels, grid, hu={Phase.NEPHROGRAPHIC: np.zeros((2, 3, 4), np.int16)})
    with pytest.raises(InputRefused, match="label values from 0 to 5") as error:
        measure_lesions(np.where(labels == 1, 5, 0).astype(np.uint8), grid)
    assert error.value.reason is Reason.UNKNOWN_LABEL
    with pytest.raises(InputRefused, match="labels of type float64"):
        measure_lesions(labels.astype(float), grid)  # type: ignore[arg-type]


# ---------------------------------------------------------------- phantoms and real masks


def test_a_phantom_scan_against_its_truth() -> None:
    """Stored truth: volume exact; of lesions of 10 mm and more, centre within a voxel, HU to 4
    (noise, shading), exophytic share to 0.2: a bean is neither convex nor an ellipsoid."""
    plan = CtPlan(
        normal_share=0, matrix=160, slice_spacing_mm=4.0, tumours=2, cysts=1, kidneys="both"
    )
    volume = render_phases(draw_case(plan, 3), (Phase.NON_CONTRAST, Phase.NEPHROGRAPHIC))
    found = measure_lesions(volume.labels, volume.grid, instances=volume.instances, hu=volume.hu)
    truth = {one.number: one for one in volume.lesions}
    assert found.notes == ()
    assert len(found.lesions) == 3
    for lesion in found.lesions:
        true = truth[lesion.number]
        assert lesion.side.value == true.side
        assert lesion.volume_mm3 == pytest.approx(true.voxel_volume_mm3, rel=1e-6)
        assert lesion.anatomy is not None
        if true.diameter_mm >= 10:
            for phase, mean in true.mean_hu.items():
                assert lesion.mean_hu[Phase(phase)] == pytest.approx(mean, abs=4)
            assert np.linalg.norm(np.subtract(lesion.centre_mm, true.centre_mm)) < 2.3
            assert lesion.anatomy.exophytic_share == pytest.approx(true.exophytic_share, abs=0.2)
            assert lesion.anatomy.polarity == true.polarity


@pytest.mark.data
@pytest.mark.parametrize("case", ["case_00020", "case_00043"])
def test_real_masks(case: str) -> None:
    """Volumes and axial diameters of the manifest (found by other code), and scores in range."""
    folder = DATA / "kits23_labels"
    if not folder.is_dir():
        pytest.skip(f"NOT TESTED ON REAL MASKS: no {folder} (set RENALKIT_DATA)")
    with (folder / "manifest.csv").open() as rows:
        row = next(r for r in csv.DictReader(rows) if r["case_id"] == case)
    image: Any = nib.load(folder / row["volume"])
    raw = np.asarray(image.dataobj).astype(np.uint8)
    grid, axes = canonical_grid(raw.shape, np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine)
    assert axes == "IPL"
    found = measure_lesions(to_canonical(raw, axes).astype(np.uint8), grid)
    assert found.notes == ()
    assert sum(found.kidney_mm3.values()) / 1000 == pytest.approx(float(row["kidney_ml"]), rel=0.01)
    tumours = [le for le in found.lesions if le.value == TUMOUR]
    assert len(tumours) == int(row["tumor_components"])
    whole = sum(le.volume_mm3 for le in tumours) / 1000
    assert whole == pytest.approx(float(row["tumor_ml"]), rel=0.001)
    largest = max(le.axial_mm for le in tumours)
    assert largest == pytest.approx(float(row["tumor_max_axial_mm"]), abs=1.5)
    for lesion in found.lesions:
        scores = nephrometry(lesion)
        assert scores is not None
        assert 4 <= scores.renal.range[0] <= scores.renal.range[1] <= 12
        assert 6 <= scores.padua.range[0] <= scores.padua.range[1] <= 14
        assert lesion.anatomy is not None
        assert lesion.anatomy.sinus_mm is not None
