"""DICOM studies get their lesions from a table by patient or by file, and their regions by frame."""

from __future__ import annotations

import csv
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, generate_frames

from renalkit.domain.cohort import study_label
from renalkit.domain.geometry import Box
from renalkit.domain.study import GradeSystem
from renalkit.errors import InputRefused, Reason
from renalkit.store.cohorts import load_cohort
from renalkit.store.pixels import verify
from renalkit.usecases.cohort import show, show_words
from renalkit.usecases.ingest import IngestReport, request_of, run_ingest

CANARY = "ZZCANARY"


@pytest.fixture(scope="module")
def cines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two patients, `007` and `7`; 3 frames each."""
    root = tmp_path_factory.mktemp("dicom") / "in"
    root.mkdir()
    data = pydicom.dcmread(str(get_testdata_file("examples_ybr_color.dcm")))
    frames = list(generate_frames(data.PixelData, number_of_frames=int(data.NumberOfFrames)))
    for n, patient in enumerate(("007", "7")):
        data.PatientID, data.PatientName = patient, f"{CANARY}^{n}"
        data.StudyInstanceUID = f"1.2.826.0.1.{n + 1}"
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.2.{n + 1}"
        data.NumberOfFrames = 3
        if "FrameTimeVector" in data:
            del data.FrameTimeVector
        data.PixelData = encapsulate(frames[3 * n : 3 * n + 3])
        data.save_as(root / f"cine{n}.dcm")
    return root


def take(source: Path, output: Path, **more: object) -> IngestReport:
    return run_ingest(request_of(source=source, output=output, keep_pixels=True, **more))  # type: ignore[arg-type]


def table(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(text)
    return path


def test_T01_rows_meet_patients_by_their_exact_identifier(cines: Path, tmp_path: Path) -> None:
    labels = table(
        tmp_path,
        "patient,lesion,label,side,size_mm,histology,grade,grade_system,age\n"
        "007,a,malignant,left,31.5,ccRCC,2,WHO_ISUP,61\n"
        "007,b,malignant,right,12,ccRCC,3,WHO_ISUP,61\n"
        "7,a,benign,left,22,AML,,,40\n"
        "0007,a,benign,left,22,AML,,,40\n",
    )
    report = take(cines, tmp_path / "out", labels=labels)
    cohort = load_cohort(tmp_path / "out")
    assert len(cohort.patients) == 2
    two, one = sorted(cohort.studies, key=lambda s: -len(s.lesions))
    assert [le.size_mm for le in sorted(two.lesions, key=lambda le: le.size_mm or 0)] == [12, 31.5]
    assert {le.grade_system for le in two.lesions} == {GradeSystem.WHO_ISUP}
    assert (two.covariates["age_years"], one.covariates["age_years"]) == (61, 40)
    assert (study_label(two), study_label(one)) == ("malignant", "benign")
    assert any("1 labelled" in w.words for w in report.warnings)


def test_a_study_the_table_does_not_list_is_excluded_and_counted(
    cines: Path, tmp_path: Path
) -> None:
    labels = table(tmp_path, "patient,label\n007,malignant\n")
    report = take(cines, tmp_path / "out", labels=labels, classes="benign,malignant")
    assert report.cohort.flow.excluded == (("not in the label table", 1),)
    assert report.cohort.flow.screened_studies == 2


def test_rows_may_name_files_and_patients(cines: Path, tmp_path: Path) -> None:
    labels = table(tmp_path, "file,patient,label\ncine0.dcm,same,benign\ncine1.dcm,same,benign\n")
    report = take(cines, tmp_path / "out", labels=labels, classes="benign,malignant")
    assert len(report.cohort.patients) == 1
    assert len(report.cohort.studies) == 2
    with report.links.open(newline="") as file:
        kinds = [r["stands_for"] for r in csv.DictReader(file) if r["kind"] == "patient"]
    assert kinds == ["same"]


def test_boxes_per_frame_become_regions_of_the_lesion(cines: Path, tmp_path: Path) -> None:
    labels = table(tmp_path, "patient,label\n007,malignant\n7,benign\n")
    boxes = tmp_path / "boxes.csv"
    boxes.write_text(
        "file,frame,x,y,width,height,lesion\n"
        "cine0.dcm,1,10,20,30,40,\ncine0.dcm,2,11,21,30,40,\ncine0.dcm,9,1,1,5,5,\nabsent.dcm,0,1,1,5,5,\n"
    )
    report = take(cines, tmp_path / "out", labels=labels, annotations=boxes)
    outlined = next(s for s in report.cohort.studies if s.lesions[0].label == "malignant")
    assert [(r.clip, r.frame, r.box) for r in outlined.lesions[0].rois] == [
        (0, 1, Box(10, 20, 30, 40)),
        (0, 2, Box(11, 21, 30, 40)),
    ]
    assert any("frame 9" in d.words for d in outlined.defects)
    assert any("1 labelled patients or files" in w.words for w in report.warnings)


def test_an_unknown_label_or_a_table_without_anchor_is_refused(cines: Path, tmp_path: Path) -> None:
    with pytest.raises(InputRefused, match="neither a patient nor a file column"):
        take(cines, tmp_path / "out", labels=table(tmp_path, "name,label\nx,benign\n"))
    labels = table(tmp_path, "patient,label\n007,boese\n")
    with pytest.raises(InputRefused) as refused:
        take(cines, tmp_path / "out", labels=labels, classes="benign,malignant")
    assert refused.value.reason is Reason.UNKNOWN_LABEL


def test_cines_resume_and_keep_their_pixels_exactly(cines: Path, tmp_path: Path) -> None:
    first = take(cines, tmp_path / "out", classes="benign,malignant")
    again = take(cines, tmp_path / "out", classes="benign,malignant")
    assert (first.recalled, again.recalled) == (0, 2)
    assert again.cohort.digest == first.cohort.digest
    for study in load_cohort(tmp_path / "out").studies:
        for clip in study.clips:
            assert clip.n_frames == 3
            verify(tmp_path / "out", clip.sha256)
    for path in (tmp_path / "out").rglob("*"):
        assert not path.is_file() or CANARY.encode() not in path.read_bytes()


def test_files_whose_decoder_was_stopped_are_read_again(
    cines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as busy:
        busy.setattr("renalkit.readers.decode_worker.PATIENCE", 0.0)
        with pytest.raises(InputRefused, match="decoder-killed"):
            take(cines, tmp_path / "out", classes="benign,malignant")
    report = take(cines, tmp_path / "out", classes="benign,malignant")
    assert report.recalled == 0
    assert "refused" not in {a.outcome for a in report.account}


def test_show_adds_up(cines: Path, tmp_path: Path) -> None:
    labels = table(tmp_path, "patient,label,size_mm\n007,malignant,30\n7,benign,20\n")
    take(cines, tmp_path / "out", labels=labels)
    summary = show(tmp_path / "out")
    assert [(c.label, c.patients, c.studies, c.images) for c in summary.classes] == [
        ("benign", 1, 1, 3),
        ("malignant", 1, 1, 3),
    ]
    assert summary.flow.included_images == sum(c.images for c in summary.classes) == 6
    assert sum(summary.account.values()) == 2
    assert summary.lesion_size_mm == (20, 25, 30)
    assert sum(summary.scanners.values()) == 2
    words = show_words(summary)
    assert "Screened: 2 studies of 2 patients" in words
    assert "median 25 mm" in words
    assert summary.as_json()["flow"]["screened_studies"] == 2
