"""KiTS and nnU-Net folders become studies whose lesions are those that were drawn."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from renalkit.domain.image import Mode, Source, pixel_sha256
from renalkit.domain.study import GradeSystem, Side, Study
from renalkit.domain.volume import (
    CYST,
    KIDNEY,
    TUMOUR,
    LabelMap,
    Phase,
    Volume,
    VolumeGrid,
    affine_of,
)
from renalkit.errors import InputRefused, Reason
from renalkit.metrics.volume_lesions import axial_diameter_mm, connected_instances
from renalkit.phantom.ct.anatomy import CtPlan, draw_case
from renalkit.phantom.ct.volume import CtVolume, render_phases
from renalkit.readers.contract import Limits, Outcome, ReadContext, ReadOptions, ReadResult
from renalkit.readers.ct_lesions import phase_from_hu
from renalkit.readers.decode_worker import DecodeWorker
from renalkit.readers.kits import is_kits, read_kits
from renalkit.readers.nifti import read_nifti_labels
from renalkit.readers.nnunet import is_nnunet, label_values, read_nnunet
from renalkit.readers.pseudonyms import Pseudonyms
from renalkit.writers.nifti import write_nifti

GRID = VolumeGrid(
    (20, 40, 60), affine_of(((0, 0, 2.0, -59.0), (0, 2.0, 0, -39.0), (3.0, 0, 0, 0), (0, 0, 0, 1)))
)
REAL = Path(os.environ.get("RENALKIT_DATA", Path(__file__).parents[3] / ".." / "shared" / "data"))
CLINICAL = {
    **{"case_id": "case_00007", "age_at_nephrectomy": 63, "gender": "female", "bmi": 27.5},
    **{"tumor_histologic_subtype": "clear_cell_rcc", "tumor_isup_grade": "3", "malignant": True},
}


@pytest.fixture(scope="module")
def worker() -> Iterator[DecodeWorker]:
    with DecodeWorker(Limits()) as found:
        yield found


def context(root: Path, worker: DecodeWorker) -> ReadContext:
    return ReadContext(root, Pseudonyms(b"k" * 32), worker)


def drawn(tumours: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """HU and labels (Z,Y,X): kidneys, a tumour in the left one (two if asked), a cyst on the
    right, and a crumb."""
    hu = np.full(GRID.shape, -1000, np.int16)
    hu[:, 2:-2, 2:-2] = 40
    labels = np.zeros(GRID.shape, np.uint8)
    labels[4:16, 12:26, 6:18] = labels[4:16, 12:26, 42:54] = KIDNEY
    labels[6:10, 14:20, 46:52] = TUMOUR
    if tumours == 2:
        labels[12:15, 14:20, 44:48] = TUMOUR
    labels[8:11, 20:24, 8:12] = CYST
    labels[15, 25, 53] = TUMOUR
    hu[labels == KIDNEY] = 165
    hu[labels == TUMOUR] = 100
    hu[labels == CYST] = 10
    return hu, labels


def kits(
    root: Path,
    *,
    tumours: int = 1,
    axes: str = "IPL",
    clinical: dict[str, object] | None = CLINICAL,
    case: str = "case_00007",
) -> Path:
    folder = root / "dataset" / case
    hu, labels = drawn(tumours)
    write_nifti(folder / "imaging.nii.gz", hu, GRID, axes)
    write_nifti(folder / "segmentation.nii.gz", labels, GRID, axes)
    if clinical is not None:
        (root / "dataset" / "kits23.json").write_text(json.dumps([clinical]))
    return folder


def read(root: Path, worker: DecodeWorker) -> list[ReadResult]:
    files = sorted(p for p in root.rglob("*") if p.is_file())
    results = list(read_kits(files, context(root, worker)))
    assert sorted(f.path for r in results for f in r.files) == files
    return results


def studies(results: Sequence[ReadResult]) -> list[Study]:
    return [r.study for r in results if r.study is not None]


def instance_map(study: Study) -> np.ndarray:
    out = np.zeros(study.clips[0].pixels.shape, np.uint8)
    for number, lesion in enumerate(study.lesions, start=1):
        for roi in lesion.rois:
            assert roi.mask is not None
            out[roi.frame][roi.mask.decode()] = number
    return out


def test_a_case_of_2023(tmp_path: Path, worker: DecodeWorker) -> None:
    kits(tmp_path)
    assert is_kits([tmp_path / "dataset" / "case_00007" / "imaging.nii.gz"])
    (study,) = studies(read(tmp_path, worker))
    (volume,) = study.clips
    assert isinstance(volume, Volume)
    hu, labels = drawn()
    assert np.array_equal(volume.pixels, hu)
    assert volume.labels is not None
    assert np.array_equal(volume.labels.pixels, labels)
    assert (volume.source_axes, volume.phase) == ("IPL", Phase.NEPHROGRAPHIC)
    tumour, cyst = study.lesions
    assert (tumour.label, tumour.histology, tumour.grade) == ("solid", "clear_cell_rcc", 3)
    assert tumour.grade_system is GradeSystem.WHO_ISUP
    assert (tumour.side, cyst.side) == (Side.LEFT, Side.RIGHT)
    assert (cyst.label, cyst.histology) == ("cystic", None)
    assert tumour.size_mm == pytest.approx(np.hypot(10, 10) + 2)
    assert [d.reason for d in study.defects] == [Reason.CONVERTED]
    assert study.covariates == {"age_years": 63, "sex": "F", "bmi": 27.5}
    expected = np.where(labels == TUMOUR, 1, np.where(labels == CYST, 2, 0))
    expected[15, 25, 53] = 0
    assert np.array_equal(instance_map(study), expected)


def test_several_tumours_and_one_diagnosis(tmp_path: Path, worker: DecodeWorker) -> None:
    kits(tmp_path, tumours=2)
    (study,) = studies(read(tmp_path, worker))
    assert [le.label for le in study.lesions] == [None, None, "cystic"]
    assert {le.histology for le in study.lesions} == {None}


def test_a_case_of_2019_without_clinical_file(tmp_path: Path, worker: DecodeWorker) -> None:
    kits(tmp_path, clinical=None)
    (study,) = studies(read(tmp_path, worker))
    assert [le.label for le in study.lesions] == ["tumour", "cyst"]


def test_instances_are_joined_by_majority(tmp_path: Path, worker: DecodeWorker) -> None:
    """Two tumours that touch are two where files say so; of three drawings two win."""
    folder = kits(tmp_path)
    first, second = np.zeros(GRID.shape, np.uint8), np.zeros(GRID.shape, np.uint8)
    first[6:10, 14:20, 46:49] = second[6:10, 14:20, 49:52] = 1
    wrong = np.ones(GRID.shape, np.uint8)
    for annotation, array in enumerate((first, first, wrong), start=1):
        name = f"instances/tumor_instance-1_annotation-{annotation}.nii.gz"
        write_nifti(folder / name, array, GRID, "IPL")
    write_nifti(folder / "instances/tumor_instance-2_annotation-1.nii.gz", second, GRID, "IPL")
    write_nifti(folder / "instances/kidney_instance-1_annotation-1.nii.gz", second, GRID, "IPL")
    results = read(tmp_path, worker)
    (study,) = studies(results)
    assert [le.label for le in study.lesions] == [None, None]
    assert np.array_equal(instance_map(study), first + 2 * second)
    skipped = [f.path.name for r in results for f in r.files if f.outcome is Outcome.SKIPPED]
    assert skipped == ["kidney_instance-1_annotation-1.nii.gz"]


def test_a_case_of_2021_and_one_without_scan(tmp_path: Path, worker: DecodeWorker) -> None:
    folder = kits(tmp_path)
    (folder / "segmentation.nii.gz").rename(folder / "aggregated_MAJ_seg.nii.gz")
    other = tmp_path / "dataset" / "case_00008" / "segmentation.nii.gz"
    write_nifti(other, drawn()[1], GRID)
    results = read(tmp_path, worker)
    assert len(studies(results)[0].lesions) == 2
    skipped = [f.path for r in results for f in r.files if f.outcome is Outcome.SKIPPED]
    assert skipped == [other]


def test_labels_beside_their_scan_refuse_the_case(tmp_path: Path, worker: DecodeWorker) -> None:
    folder = kits(tmp_path)
    moved = VolumeGrid(
        GRID.shape,
        affine_of(((0, 0, 2.0, -57.0), (0, 2.0, 0, -39.0), (3.0, 0, 0, 0), (0, 0, 0, 1))),
    )
    write_nifti(folder / "segmentation.nii.gz", drawn()[1], moved, "IPL")
    results = read(tmp_path, worker)
    assert studies(results) == []
    refused = [f for r in results for f in r.files if f.outcome is Outcome.REFUSED]
    assert len(refused) == 2
    assert {d.reason for f in refused for d in f.reasons} == {Reason.MASK_MISMATCH}


def test_labels_turned_otherwise_are_the_same_labels(tmp_path: Path, worker: DecodeWorker) -> None:
    folder = kits(tmp_path)
    write_nifti(folder / "segmentation.nii.gz", drawn()[1], GRID, "RAS")
    (study,) = studies(read(tmp_path, worker))
    assert np.array_equal(study.clips[0].labels.pixels, drawn()[1])  # type: ignore[attr-defined]


def test_a_clinical_file_of_another_form(tmp_path: Path, worker: DecodeWorker) -> None:
    kits(tmp_path, clinical={"case": 1})
    with pytest.raises(InputRefused, match="another form"):
        read(tmp_path, worker)


# ---- nnU-Net -------------------------------------------------------------------------------


def nnunet(root: Path, labels: dict[str, object]) -> list[Path]:
    hu, drawing = drawn()
    folder = root / "Dataset007_Kidney"
    for part in ("Tr", "Ts"):
        write_nifti(folder / f"images{part}" / f"a{part}_0000.nii.gz", hu, GRID)
        write_nifti(folder / f"images{part}" / f"a{part}_0001.nii.gz", hu, GRID)
    write_nifti(folder / "labelsTr" / "aTr.nii.gz", 3 - drawing % 4, GRID)
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
    (folder / "splits.txt").write_text("x")
    return sorted(p for p in root.rglob("*") if p.is_file())


def test_cases_channels_and_meanings(tmp_path: Path, worker: DecodeWorker) -> None:
    files = nnunet(tmp_path, {"background": 3, "kidney": 2, "tumor": 1, "cyst": 0})
    assert is_nnunet(files)
    results = list(read_nnunet(files, context(tmp_path, worker)))
    assert sorted(f.path for r in results for f in r.files) == files
    train, test = sorted(studies(results), key=lambda s: str(s.covariates["split"]), reverse=True)
    assert (train.covariates["split"], test.covariates["split"]) == ("train", "test")
    assert len(train.clips) == 2
    for clip in train.clips:
        assert np.array_equal(clip.labels.pixels, drawn()[1])  # type: ignore[attr-defined]
    assert [le.label for le in train.lesions] == ["tumour", "cyst"]
    assert test.lesions == ()
    skipped = [f.path.name for r in results for f in r.files if f.outcome is Outcome.SKIPPED]
    assert skipped == ["splits.txt"]


def test_both_ways_to_name_labels() -> None:
    second = {"labels": {"background": 0, "kidney": 1, "tumour": 2}}
    first = {"labels": {"0": "background", "1": "kidney", "2": "Tumor"}}
    assert label_values(second) == label_values(first) == {0: 0, 1: 1, 2: 2}
    for bad in ({"liver": 1}, {"kidney": [1, 2]}, {"kidney": 255}):
        with pytest.raises(InputRefused) as caught:
            label_values({"labels": bad})
        assert caught.value.reason is Reason.BAD_JSON


# ---- lesions -------------------------------------------------------------------------------


def test_parts_that_touch_by_a_corner_hang_together() -> None:
    labels = np.zeros((4, 6, 6), np.uint8)
    labels[0, 0, 0] = labels[1, 1, 1] = TUMOUR
    labels[3, 4:, 4:] = CYST
    found, crumbs = connected_instances(labels, voxel_mm3=20.0)
    assert (found[0, 0, 0], found[1, 1, 1], found[3, 5, 5], crumbs) == (1, 1, 2, 0)
    found, crumbs = connected_instances(labels, voxel_mm3=6.0)
    assert (found[0, 0, 0], found[3, 5, 5], crumbs) == (0, 1, 1)


def test_the_axial_diameter_of_a_disc() -> None:
    y, x = np.mgrid[:40, :60]
    disc = (y - 20) ** 2 + (x - 30) ** 2 <= 10**2
    assert axial_diameter_mm(disc, GRID) == pytest.approx(42, abs=0.1)
    assert axial_diameter_mm(np.zeros((40, 60), bool), GRID) == 0


@pytest.fixture(scope="module")
def scan() -> CtVolume:
    plan = CtPlan(
        **{"tumours": 1, "cysts": 0, "tumour_mm": (20.0, 26.0), "kidneys": "both"},
        **{"matrix": 128, "slices": 56, "normal_share": 0.0, "phases": tuple(Phase)},
    )
    return render_phases(draw_case(plan, 5))


@pytest.mark.parametrize("phase", Phase)
def test_the_phase_is_seen_in_the_kidneys(scan: CtVolume, phase: Phase) -> None:
    volume = as_volume(scan, phase)
    assert volume.labels is not None
    assert phase_from_hu(volume, volume.labels) is phase


def as_volume(scan: CtVolume, phase: Phase) -> Volume:
    hu = scan.hu[phase]
    return Volume(
        pixels=hu,
        sha256=pixel_sha256(hu),
        mode=Mode.CT,
        source=Source("0" * 64, "f-0", "nifti"),
        grid=scan.grid,
        labels=LabelMap(scan.labels, pixel_sha256(scan.labels)),
    )


# ---- real masks ----------------------------------------------------------------------------


@pytest.mark.data
def test_real_lesions_have_the_sizes_of_the_manifest(worker: DecodeWorker) -> None:
    """Parts and largest axial diameter of tumours, counted independently when the set was made."""
    folder = REAL / "kits23_labels"
    if not folder.is_dir():
        pytest.skip(f"no real data at {REAL}: set RENALKIT_DATA")
    with (folder / "manifest.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["volume"]][::16]
    assert len(rows) >= 7
    for row in rows:
        found = read_nifti_labels(folder / row["volume"], ReadOptions(), worker)
        labels = found.pixels
        assert int((labels == TUMOUR).sum()) * found.grid.voxel_mm3 / 1000 == pytest.approx(
            float(row["tumor_ml"]), rel=1e-2
        )
        numbers, crumbs = connected_instances(labels, found.grid.voxel_mm3)
        tumours = {int(n) for n in np.unique(numbers[labels == TUMOUR])} - {0}
        assert len(tumours) <= int(row["tumor_components"]) <= len(tumours) + crumbs
        widest = max(axial_diameter_mm(plane == TUMOUR, found.grid) for plane in labels)
        pixel = found.grid.spacing_mm[2]
        assert widest == pytest.approx(float(row["tumor_max_axial_mm"]), abs=1.5 * pixel)
