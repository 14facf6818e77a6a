"""Phantom cohorts on disk: bytes by seed whatever the workers, resumption, bad arguments."""

import csv
import hashlib
import json
import shutil
import tracemalloc

import cv2
import numpy as np
import pydicom
import pytest

from renalkit.domain.geometry import MaskRLE
from renalkit.errors import InputRefused, StoreError
from renalkit.phantom.ceus.study import CeusOptions
from renalkit.phantom.ct.anatomy import CtPlan, Phase
from renalkit.phantom.faults import FaultDials
from renalkit.phantom.patients import PatientPlan
from renalkit.usecases.phantom import make_phantom
from renalkit.usecases.phantom_plans import PhantomPlan
from renalkit.usecases.phantom_studies import write_patient
from renalkit.usecases.progress import Silent

PICTURES = PhantomPlan(
    "us", PatientPlan(5, seed=5, normal_share=0.2, views=(1, 2)), pictures=True, size=64
)


def make(plan, folder, workers=1):
    return make_phantom(plan, folder, Silent(), workers)


def digests(folder):
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def rows_of(file):
    with file.open(newline="") as text:
        return list(csv.DictReader(text))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom") / "images-of-a-user"
    return folder, make(PICTURES, folder)


def test_same_seed_same_bytes_for_any_number_of_workers(pictures, tmp_path):
    folder, summary = pictures
    assert make(PICTURES, tmp_path / "b", workers=2) == summary
    assert digests(tmp_path / "b") == digests(folder)


def test_the_label_table_describes_exactly_the_pictures(pictures):
    folder, summary = pictures
    rows = rows_of(folder / "labels.csv")
    assert len(rows) == summary["n_images"]
    named = {r["image"] for r in rows} | {r["mask"] for r in rows if r["mask"]}
    assert named == {n for n in digests(folder) if n.endswith(".png")}
    for row in rows:
        picture = cv2.imread(str(folder / row["image"]), cv2.IMREAD_UNCHANGED)
        assert picture.shape == (64, 64)
        if row["label"] == "normal":
            assert row["mask"] == row["size_mm"] == ""
            continue
        mask = cv2.imread(str(folder / row["mask"]), cv2.IMREAD_UNCHANGED)
        assert set(np.unique(mask)) == {0, 255}


def test_called_again_nothing_changes(pictures):
    folder, summary = pictures
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    assert make(PICTURES, folder) == summary
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before


def test_an_interrupted_call_leaves_nothing_that_looks_whole_and_goes_on(
    pictures, tmp_path, monkeypatch
):
    import renalkit.usecases.phantom as module

    target, done = tmp_path / "c", []

    def interrupted(plan, index, folder):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(index)
        real(plan, index, folder)

    real = module.write_patient
    with monkeypatch.context() as patched:
        patched.setattr(module, "write_patient", interrupted)
        with pytest.raises(KeyboardInterrupt):
            make(PICTURES, target)
    assert not target.exists()
    done.clear()
    monkeypatch.setattr(module, "write_patient", lambda *a: (done.append(a[1]), real(*a)))
    make(PICTURES, target)
    assert len(done) == 2
    assert digests(target) == digests(pictures[0])
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_the_rest_of_another_plan_is_not_kept(pictures, tmp_path):
    partial = tmp_path / ".c.phantom-partial"
    shutil.copytree(pictures[0], partial)
    (partial / "settings.json").write_text("{}")
    make(PICTURES, tmp_path / "c")
    assert digests(tmp_path / "c") == digests(pictures[0])


def test_an_occupied_place_is_refused_and_left_alone(pictures, tmp_path):
    (tmp_path / "mine.png").write_bytes(b"mine")
    with pytest.raises(InputRefused, match="with files in it"):
        make(PICTURES, tmp_path)
    with pytest.raises(InputRefused, match="a file of that name"):
        make(PICTURES, tmp_path / "mine.png")
    assert (tmp_path / "mine.png").read_bytes() == b"mine"
    other = PhantomPlan("us", PatientPlan(5, seed=6), pictures=True, size=64)
    with pytest.raises(InputRefused, match="another plan"):
        make(other, pictures[0])


def test_the_working_folder_cannot_be_put_in_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputRefused, match="the working folder") as caught:
        make(PICTURES, tmp_path)
    assert "inside it" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_and_leaves_no_cohort(tmp_path, monkeypatch):
    def full(*_):
        raise StoreError("write refused: the disk is full")

    monkeypatch.setattr("renalkit.usecases.phantom_studies.write_json", full)
    with pytest.raises(StoreError, match="disk is full"):
        make(PICTURES, tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_b_mode_stills_are_dicom_with_faults_as_dialled(tmp_path):
    dials = FaultDials(duplicates=1.0, wrong_units=1.0, leaking_calipers=1.0)
    plan = PhantomPlan("us", PatientPlan(2, seed=1, views=(1, 1), dials=dials), size=128)
    summary = make(plan, tmp_path / "c")
    assert summary["faults"]["duplicated"] == 2
    for row in rows_of(tmp_path / "c" / "labels.csv"):
        data = pydicom.dcmread(tmp_path / "c" / "dicom" / row["patient"] / "bmode-1.dcm")
        assert data.PatientID == row["patient"]
        item = data.SequenceOfUltrasoundRegions[0]
        assert item.PhysicalDeltaX > 0.5, "cm per pixel, ten times too large"
    first, copy = (
        pydicom.dcmread(tmp_path / "c" / "dicom" / name / "bmode-1.dcm")
        for name in ("P0001", "P0001B")
    )
    assert first.StudyInstanceUID != copy.StudyInstanceUID
    assert np.array_equal(first.pixel_array, copy.pixel_array)


def test_pictures_come_twice_and_in_wrong_units_as_dialled(tmp_path):
    dials = FaultDials(duplicates=1.0, wrong_units=1.0)
    people = PatientPlan(1, seed=1, views=(2, 2), dials=dials)
    make(PhantomPlan("us", people, pictures=True, size=64), tmp_path / "c")
    rows = rows_of(tmp_path / "c" / "labels.csv")
    assert [r["patient"] for r in rows] == ["P0001", "P0001", "P0001B", "P0001B"]
    for first, copy in zip(rows[:2], rows[2:], strict=True):
        for name in ("image", "mask"):
            assert first[name] != copy[name]
            assert (tmp_path / "c" / first[name]).read_bytes() == (
                tmp_path / "c" / copy[name]
            ).read_bytes()
        truth = json.loads((tmp_path / "c" / "truth" / "P0001" / "patient.json").read_text())
        scale = truth["images"][0]["mm_per_px"]
        assert float(first["spacing_mm"]) == pytest.approx(10 * scale, abs=1e-6)


def test_a_patient_without_a_mass_has_no_other_label(tmp_path):
    dials = FaultDials(label_noise=1.0)
    people = PatientPlan(2, seed=1, views=(1, 1), normal_share=0.5, dials=dials)
    summary = make(PhantomPlan("us", people, pictures=True, size=64), tmp_path / "c")
    assert summary["faults"] == {"label_flipped": 1}
    truth = {r["patient"]: r for r in rows_of(tmp_path / "c" / "truth" / "patients.csv")}
    for row in rows_of(tmp_path / "c" / "labels.csv"):
        true = truth[row["patient"]]
        assert (row["label"] != true["label"]) == (true["label"] != "normal")


def test_stills_and_clip_are_one_study(tmp_path):
    options = CeusOptions(duration_s=1.0, rate_hz=2.0, rows=240, cols=320)
    plan = PhantomPlan("cohort", PatientPlan(1, seed=3, views=(2, 2)), size=64, ceus=options)
    make(plan, tmp_path / "c")
    files = sorted((tmp_path / "c" / "dicom" / "P0001").iterdir())
    assert [f.name for f in files] == ["bmode-1.dcm", "bmode-2.dcm", "ceus.dcm"]
    read = [pydicom.dcmread(f) for f in files]
    assert len({d.StudyInstanceUID for d in read}) == 1
    assert [d.SeriesNumber for d in read] == [1, 1, 2]
    assert len({d.SeriesInstanceUID for d in read}) == 2
    assert len({d.SOPInstanceUID for d in read}) == 3


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ceus") / "c"
    options = CeusOptions(duration_s=3.0, rate_hz=4.0, rows=240, cols=320)
    plan = PhantomPlan("ceus", PatientPlan(1, seed=3), ceus=options)
    return folder, make(plan, folder)


def test_a_contrast_clip_has_its_regions_times_and_truth(clip):
    folder, summary = clip
    data = pydicom.dcmread(folder / "dicom" / "P0001" / "ceus.dcm")
    assert data.NumberOfFrames == summary["n_frames"] == 12
    assert float(data.FrameTime) == pytest.approx(250)
    assert len(data.SequenceOfUltrasoundRegions) == 2
    rows = rows_of(folder / "truth" / "P0001" / "frames.csv")
    assert [int(r["frame"]) for r in rows] == list(range(12))
    assert float(rows[-1]["time_s"]) == pytest.approx(2.75)
    truth = json.loads((folder / "truth" / "P0001" / "patient.json").read_text())
    assert {"lesion", "cortex"} <= set(truth["ceus"]["rois"])
    boxes = rows_of(folder / "boxes.csv")
    assert {r["file"] for r in boxes} == {"dicom/P0001/ceus.dcm"}


def test_regions_of_a_clip_are_its_boxes_and_a_square_of_cortex(tmp_path):
    options = CeusOptions(duration_s=2.0, rate_hz=1.0)
    make(PhantomPlan("ceus", PatientPlan(3, seed=3), ceus=options), tmp_path / "c")
    rows = rows_of(tmp_path / "c" / "regions.csv")
    assert [r for r in rows if r["lesion"] == "1"] == rows_of(tmp_path / "c" / "boxes.csv")
    squares = [r for r in rows if r["lesion"] == "cortex"]
    assert len(squares) == len({r["file"] for r in squares}) == 3
    for row in squares:
        patient = row["file"].split("/")[1]
        frames = rows_of(tmp_path / "c" / "truth" / patient / "frames.csv")
        cortex = MaskRLE.parse(frames[int(row["frame"])]["cortex_mask"]).decode()
        x, y, width, height = (int(row[k]) for k in ("x", "y", "width", "height"))
        assert width == height >= 5
        assert cortex[y : y + height, x : x + width].all()


def test_memory_does_not_grow_with_the_clip(tmp_path):
    def peak(rate):
        options = CeusOptions(duration_s=20.0, rate_hz=rate, rows=240, cols=320)
        plan = PhantomPlan("ceus", PatientPlan(1, seed=3), ceus=options)
        tracemalloc.start()
        write_patient(plan, 0, tmp_path / str(rate))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(0.5)  # what is imported and laid out once
    # 140 frames more; their truths together would be 3 MB.
    assert peak(8.0) - peak(1.0) < 1_000_000


def test_lost_frames_are_gone_from_clip_and_truth(tmp_path):
    options = CeusOptions(duration_s=5.0, rate_hz=4.0, rows=240, cols=320)
    people = PatientPlan(1, seed=3, dials=FaultDials(missing_frames=1.0))
    summary = make(PhantomPlan("ceus", people, ceus=options), tmp_path / "c")
    assert summary["n_frames"] == 18
    rows = rows_of(tmp_path / "c" / "truth" / "P0001" / "frames.csv")
    times = np.array([float(r["time_s"]) for r in rows])
    assert np.diff(times).max() == pytest.approx(0.75)


def test_pairs_instead_of_a_clip(tmp_path):
    options = CeusOptions(duration_s=30.0, rate_hz=2.0, rows=240, cols=320)
    people = PatientPlan(1, seed=3, dials=FaultDials(duplicates=1.0))
    make(PhantomPlan("ceus", people, ceus=options, pairs=3), tmp_path / "c")
    rows = rows_of(tmp_path / "c" / "pairs.csv")
    assert 2 <= len(rows) <= 6
    assert {r["patient"] for r in rows} == {"P0001", "P0001B"}
    for row in rows:
        shapes = {cv2.imread(str(tmp_path / "c" / row[k])).shape for k in ("bmode", "ceus")}
        assert len(shapes) == 1


def test_the_margin_is_all_that_differs(tmp_path):
    options = CeusOptions(duration_s=30.0, rate_hz=2.0, rows=240, cols=320)
    shapes = []
    for name, margin in (("tight", 0.0), ("wide", 0.3)):
        plan = PhantomPlan("ceus", PatientPlan(1, seed=3), ceus=options, pairs=1, margin=margin)
        make(plan, tmp_path / name)
        (row,) = rows_of(tmp_path / name / "pairs.csv")
        shapes.append(cv2.imread(str(tmp_path / name / row["ceus"])).shape[:2])
    (height, width), wide = shapes
    assert wide == (height + 2 * round(0.3 * height), width + 2 * round(0.3 * width))
    for table in ("labels.csv", "readings.csv"):
        assert rows_of(tmp_path / "tight" / table) == rows_of(tmp_path / "wide" / table)


def test_ct_series_with_masks(tmp_path):
    scan = CtPlan(phases=(Phase.NEPHROGRAPHIC,), matrix=64, slice_spacing_mm=8.0, tumours=1)
    make(PhantomPlan("ct", PatientPlan(1, seed=1), ct=scan), tmp_path / "c")
    files = sorted((tmp_path / "c" / "dicom" / "P0001" / "ct-nephrographic").iterdir())
    masks = np.load(tmp_path / "c" / "truth" / "P0001" / "masks.npz")
    assert masks["labels"].shape == (len(files), 64, 64)
    truth = json.loads((tmp_path / "c" / "truth" / "P0001" / "patient.json").read_text())
    assert len(truth["lesions"]) >= 1
    assert not {"histology", "readings", "ideal", "anatomy"} & set(truth), "of another mass"


def test_ct_labels_are_exchanged_as_dialled(tmp_path):
    scan = CtPlan(phases=(Phase.NEPHROGRAPHIC,), matrix=64, slice_spacing_mm=8.0, normal_share=0.5)
    people = PatientPlan(4, seed=1, dials=FaultDials(label_noise=1.0))
    make(PhantomPlan("ct", people, ct=scan), tmp_path / "c")
    pairs = zip(
        rows_of(tmp_path / "c" / "labels.csv"),
        rows_of(tmp_path / "c" / "truth" / "patients.csv"),
        strict=True,
    )
    assert {(written["label"], true["label"]) for written, true in pairs} == {
        ("normal", "tumour"),
        ("tumour", "normal"),
    }
