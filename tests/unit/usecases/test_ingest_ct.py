"""CT cohorts go the road of all others: every file accounted for, pixels stored, resumable."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from renalkit.domain.study import Side
from renalkit.domain.volume import Phase, PhaseSource, Volume, VolumeGrid, affine_of
from renalkit.errors import ConfigError, Reason
from renalkit.readers.contract import Outcome
from renalkit.store.cohorts import load_account, load_cohort
from renalkit.store.pixels import verify
from renalkit.usecases.check import check
from renalkit.usecases.cohort import show
from renalkit.usecases.ingest import IngestReport, request_of, run_ingest
from renalkit.writers.nifti import write_nifti

sys.path.insert(0, str(Path(__file__).parents[2] / "corpus"))
corpus = importlib.import_module("make_ct")


def source(root: Path, *, patients: int = 2) -> Path:
    """Patients of two phases each, with one label volume over both."""
    for n in range(1, patients + 1):
        name = f"P{n:04d}"
        who = replace(corpus.WHO, key=name, patient_id=name)
        for series, phase in enumerate(("non-contrast", "nephrographic"), start=1):
            folder = root / name / phase
            corpus.write(folder, description=phase, series=series, who=who)
        write_nifti(root / name / "segmentation.nii.gz", corpus.drawn(), corpus.GRID)
    return root


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source `in` and its cohort `out`."""
    root = tmp_path_factory.mktemp("ct")
    ingest(source(root / "in"), root / "out")
    return root


def ingest(folder: Path, output: Path, **options: object) -> IngestReport:
    return run_ingest(request_of(source=folder, output=output, **options))  # type: ignore[arg-type]


def test_series_and_labels_become_a_cohort(made: Path) -> None:
    cohort, account = load_cohort(made / "out"), load_account(made / "out")
    assert [a.outcome for a in account] == ["used"] * 2 * (2 * 24 + 1)
    assert (cohort.task.classes, cohort.task.positive) == (("cyst", "tumour"), "tumour")
    assert len(cohort.patients) == 2
    for study in cohort.studies:
        for volume in study.clips:
            assert isinstance(volume, Volume)
            assert volume.phase_source is PhaseSource.HEADER
            assert np.array_equal([*map(volume.pixels.__getitem__, range(24))], corpus.scene())
            drawn = volume.labels
            assert drawn is not None
            assert np.array_equal([*map(drawn.pixels.__getitem__, range(24))], corpus.drawn())
            verify(made / "out", volume.sha256)
        phases = {volume.phase for volume in study.clips if isinstance(volume, Volume)}
        assert phases == {Phase.NON_CONTRAST, Phase.NEPHROGRAPHIC}
        tumour, cyst = study.lesions
        assert (tumour.label, cyst.label) == ("tumour", "cyst")
        assert (tumour.side, cyst.side) == (Side.LEFT, Side.RIGHT)
        assert tumour.size_mm == pytest.approx(22, abs=2.5)
        assert {r.clip for r in tumour.rois} == {0}
        assert study.defects == ()


def test_it_resumes_and_ends_with_the_same_bytes(made: Path) -> None:
    before = (made / "out" / "cohort.toml").read_bytes()
    again = ingest(made / "in", made / "out")
    assert again.layout == "ct"
    assert again.recalled == 2
    assert (made / "out" / "cohort.toml").read_bytes() == before


def test_check_and_show_know_volumes(made: Path) -> None:
    """The same scan under two names is found."""
    report = check(load_cohort(made / "out"))
    assert "L01" in {f.guard for f in report.findings}
    assert len(set(report.groups.values())) == 1
    assert show(made / "out").flow.included_images == 2 * 2 * 24


def test_a_table_gives_drawn_lesions_their_class(tmp_path: Path, made: Path) -> None:
    table = tmp_path / "lesions.csv"
    table.write_text(
        "patient,lesion,label,histology,grade,grade_system\n"
        "P0001,1,solid,ccRCC,2,WHO_ISUP\nP0001,2,cystic,,,\nP0002,1,AML,,,\nP0002,3,solid,,,\n"
    )
    cohort = ingest(made / "in", tmp_path / "out", labels=table).cohort
    assert cohort.task.classes == ("AML", "cyst", "cystic", "solid")
    lesions = [le for s in cohort.studies for le in s.lesions]
    graded = [le for le in lesions if le.grade == 2]
    assert [le.histology for le in graded] == ["ccRCC"]
    assert {le.label for le in lesions} == {"solid", "cystic", "AML", "cyst"}
    told = [d for s in cohort.studies for d in s.defects]
    assert [d.reason for d in told] == [Reason.UNKNOWN_LABEL]


def test_a_scan_without_a_mass_needs_no_line_in_the_table(tmp_path: Path) -> None:
    """Patients on whose scans nothing is drawn stay; those with lesions the table lacks do not."""
    for n in (1, 2, 3):
        name = f"P{n:04d}"
        who = replace(corpus.WHO, key=name, patient_id=name)
        corpus.write(tmp_path / "in" / name / "ct", who=who)
        drawn = corpus.drawn() if n > 1 else (corpus.drawn() > 0).astype(np.uint8)
        write_nifti(tmp_path / "in" / name / "segmentation.nii.gz", drawn, corpus.GRID)
    table = tmp_path / "lesions.csv"
    table.write_text("patient,lesion,label\nP0002,1,solid\nP0002,2,cystic\n")
    cohort = ingest(tmp_path / "in", tmp_path / "out", labels=table, positive="solid").cohort
    assert sorted(len(s.lesions) for s in cohort.studies) == [0, 2]
    assert [e.reason for e in cohort.exclusions] == ["not in the label table"]
    assert cohort.task.classes == ("cystic", "solid")


def test_instances_are_numbered_as_they_were_drawn(tmp_path: Path) -> None:
    folder = source(tmp_path / "in", patients=1)
    numbers = np.where(corpus.drawn() == 2, 2, np.where(corpus.drawn() == 3, 1, 0))
    write_nifti(folder / "P0001" / "instances.nii.gz", numbers.astype(np.uint8), corpus.GRID)
    ingest(folder, tmp_path / "out")
    (study,) = load_cohort(tmp_path / "out").studies
    assert [le.label for le in study.lesions] == ["cyst", "tumour"]


def test_labels_beside_their_series_are_refused(tmp_path: Path) -> None:
    folder = source(tmp_path / "in", patients=1)
    affine = np.asarray(corpus.GRID.affine_lps_mm).copy()
    affine[0, 3] += 2.0
    moved = VolumeGrid(corpus.GRID.shape, affine_of(affine))
    write_nifti(folder / "P0001" / "segmentation.nii.gz", corpus.drawn(), moved)
    write_nifti(folder / "other" / "case_seg.nii.gz", corpus.drawn(), corpus.GRID)
    write_nifti(folder / "other" / "scan.nii.gz", corpus.scene(), corpus.GRID)
    report = ingest(folder, tmp_path / "out", classes="cyst,tumour")
    told = {(a.outcome, a.reasons) for a in report.account if a.outcome != "used"}
    assert told == {
        ("refused", ("mask-mismatch",)),
        ("skipped", ("not-recognised",)),
    }
    assert report.refused == 2
    assert [len(s.lesions) for s in report.cohort.studies] == [0]


def test_options_that_mean_nothing_for_volumes(tmp_path: Path, made: Path) -> None:
    folder = made / "in"
    with pytest.raises(ConfigError, match="slices of a volume"):
        ingest(folder, tmp_path / "out", every=2)
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("file,frame,x,y,width,height\n")
    with pytest.raises(ConfigError, match="label volumes"):
        ingest(folder, tmp_path / "out2", annotations=boxes)


def test_a_folder_of_kits_is_recognised(tmp_path: Path) -> None:
    records = []
    for n, histology in enumerate(("clear_cell_rcc", "angiomyolipoma")):
        case = tmp_path / "in" / f"case_{n:05d}"
        write_nifti(case / "imaging.nii.gz", corpus.scene(200 + n), corpus.GRID, "IPL")
        write_nifti(case / "segmentation.nii.gz", corpus.drawn(), corpus.GRID, "IPL")
        records.append({"case_id": case.name, "tumor_histologic_subtype": histology})
    (tmp_path / "in" / "kits.json").write_text(json.dumps(records))
    report = ingest(tmp_path / "in", tmp_path / "out")
    assert report.layout == "kits"
    assert report.cohort.task.classes == ("AML", "cystic", "solid")
    assert report.count(Outcome.USED) == 5
    labels = {le.label for s in load_cohort(tmp_path / "out").studies for le in s.lesions}
    assert labels == {"AML", "cystic", "solid"}
    again = ingest(
        tmp_path / "in", tmp_path / "hist", target="histology", positive="clear_cell_rcc"
    )
    assert again.cohort.task.classes == ("angiomyolipoma", "clear_cell_rcc")
    table = tmp_path / "labels.csv"
    table.write_text("patient,label\ncase_00000,solid\n")
    with pytest.raises(ConfigError, match="not used in the layout 'kits'"):
        ingest(tmp_path / "in", tmp_path / "no", labels=table)


def test_a_folder_of_nnunet_is_recognised(tmp_path: Path) -> None:
    root = tmp_path / "in" / "Dataset001_K"
    for n in range(2):
        write_nifti(root / "imagesTr" / f"c{n}_0000.nii.gz", corpus.scene(200 + n), corpus.GRID)
        write_nifti(root / "labelsTr" / f"c{n}.nii.gz", corpus.drawn(), corpus.GRID)
    labels = {"background": 0, "kidney": 1, "tumor": 2, "cyst": 3}
    (root / "dataset.json").write_text(json.dumps({"labels": labels}))
    report = ingest(tmp_path / "in", tmp_path / "out")
    assert report.layout == "nnunet"
    assert report.cohort.task.classes == ("cyst", "tumour")
    assert len(report.cohort.patients) == 2
