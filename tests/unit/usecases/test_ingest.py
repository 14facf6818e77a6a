"""Every file of a folder ends in one bin, nothing names anybody, and a second run changes nothing."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

from renalkit.domain.cohort import ClassTask, study_label
from renalkit.domain.study import Side
from renalkit.errors import (
    ConfigError,
    Exit,
    InputRefused,
    Locked,
    Reason,
    RenalkitError,
    StoreError,
)
from renalkit.readers.contract import FileReport, Outcome, ReadResult
from renalkit.store import files as durable
from renalkit.store.cohorts import load_account, load_cohort
from renalkit.usecases import ingest as ingest_module
from renalkit.usecases.ingest import IngestReport, ingest_words, request_of, run_ingest

CANARY = "ZZCANARY"


def picture(seed: int, mode: str = "L") -> Image.Image:
    rng = np.random.default_rng(seed)
    shape = (32, 40) if mode == "L" else (32, 40, 3)
    return Image.fromarray(rng.integers(0, 200, shape, dtype=np.uint8), mode)


def mask() -> Image.Image:
    pixels = np.zeros((32, 40), np.uint8)
    pixels[8:20, 10:25] = 255
    return Image.fromarray(pixels)


def picture_folder(root: Path, patients: int = 4) -> Path:
    """Two pictures with masks per patient, and the label table."""
    rows = ["patient,image,label,side,size_mm,age"]
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for n in range(patients):
        for k in range(2):
            name = f"{CANARY}{n}_{k}.png"
            picture(10 * n + k).save(root / "images" / name)
            mask().save(root / "masks" / name)
            rows.append(
                f"{CANARY}-{n:03d},{name},{('benign', 'malignant')[n % 2]},left,{20 + n},{50 + n}"
            )
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    return root


def take(source: Path, output: Path, **more: object) -> IngestReport:
    return run_ingest(request_of(source=source, output=output, **more))  # type: ignore[arg-type]


def tree(folder: Path) -> dict[str, bytes]:
    """Everything in a folder but its lock."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and p.name != ".lock"
    }


def test_a_picture_folder_becomes_a_cohort(tmp_path: Path) -> None:
    report = take(picture_folder(tmp_path / "in"), tmp_path / "out")
    cohort = load_cohort(tmp_path / "out")
    assert report.layout == "images"
    assert cohort == report.cohort
    assert cohort.task.classes == ("benign", "malignant")
    assert cohort.task.positive == "malignant"
    assert [len(s.clips) for s in cohort.studies] == [2] * 4
    lesions = [le for s in cohort.studies for le in s.lesions]
    assert sorted(le.size_mm for le in lesions if le.size_mm) == [20, 21, 22, 23]
    assert {le.side for le in lesions} == {Side.LEFT}
    assert all(len(le.rois) == 2 for le in lesions)
    assert {s.covariates["age_years"] for s in cohort.studies} == {50, 51, 52, 53}
    assert load_account(tmp_path / "out") == report.account
    assert report.count(Outcome.USED) + report.count(Outcome.WARNED) == len(report.account) == 17


def test_Q07_nothing_in_the_cohort_names_anybody(tmp_path: Path) -> None:
    report = take(picture_folder(tmp_path / "in"), tmp_path / "out")
    for name, data in tree(tmp_path / "out").items():
        assert CANARY not in name
        assert CANARY.encode() not in data
    assert CANARY not in ingest_words(report)
    assert CANARY not in str(report.as_json()).replace(str(tmp_path), "")


def test_the_link_table_resolves_every_key_and_is_the_owners_alone(tmp_path: Path) -> None:
    report = take(picture_folder(tmp_path / "in"), tmp_path / "out")
    keys = tmp_path / "out.keys"
    assert keys.stat().st_mode & 0o077 == 0
    assert (keys / "project.key").stat().st_mode & 0o077 == 0
    assert report.links.stat().st_mode & 0o077 == 0
    with report.links.open(newline="") as file:
        links = {row["key"]: (row["kind"], row["stands_for"]) for row in csv.DictReader(file)}
    cohort = load_cohort(tmp_path / "out")
    assert {links[p] for p in cohort.patients} == {
        ("patient", f"{CANARY}-{n:03d}") for n in range(4)
    }
    assert all(s.key in links for s in cohort.studies)
    files = {links[a.keyed_path][1] for a in report.account}
    assert files == set(tree(tmp_path / "in"))


def test_D56_the_link_table_holds_no_formula(tmp_path: Path) -> None:
    root = picture_folder(tmp_path / "in", 2)
    (root / "=cmd|' calc'!A0").write_text("x")
    report = take(root, tmp_path / "out")
    with report.links.open(newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert "'=cmd|' calc'!A0" in cells
    assert not [c for c in cells if c.startswith(("=", "@", "+", "-"))]


def test_V8_a_second_run_changes_nothing_and_decodes_nothing(tmp_path: Path) -> None:
    source = picture_folder(tmp_path / "in")
    first = take(source, tmp_path / "out")
    before = tree(tmp_path / "out")
    again = take(source, tmp_path / "out")
    assert tree(tmp_path / "out") == before
    assert (first.recalled, again.recalled) == (0, 4)
    assert again.account == first.account


def test_the_same_key_gives_the_same_folder_anywhere(tmp_path: Path) -> None:
    source = picture_folder(tmp_path / "in")
    key = tmp_path / "safe" / "my.key"
    take(source, tmp_path / "a" / "c", key_file=key)
    take(source, tmp_path / "b" / "c", key_file=key)
    assert tree(tmp_path / "a" / "c") == tree(tmp_path / "b" / "c")
    assert not (tmp_path / "a" / "c.keys" / "project.key").exists()
    take(source, tmp_path / "other")
    ours, theirs = load_cohort(tmp_path / "other"), load_cohort(tmp_path / "a" / "c")
    assert not set(ours.patients) & set(theirs.patients)


def test_changed_labels_are_read_anew(tmp_path: Path) -> None:
    source = picture_folder(tmp_path / "in")
    take(source, tmp_path / "out")
    table = source / "labels.csv"
    table.write_text(table.read_text().replace(",left,", ",right,"))
    report = take(source, tmp_path / "out")
    assert report.recalled == 0
    assert {le.side for s in load_cohort(tmp_path / "out").studies for le in s.lesions} == {
        Side.RIGHT
    }


def test_a_damaged_staged_record_is_read_anew(tmp_path: Path) -> None:
    source = picture_folder(tmp_path / "in")
    take(source, tmp_path / "out")
    before = tree(tmp_path / "out")
    for number, path in enumerate(sorted((tmp_path / "out.keys" / "staged").iterdir())):
        path.write_text(["", "{}", path.read_text()[:-30], '{"files": 3}'][number])
    assert take(source, tmp_path / "out").recalled == 0
    assert tree(tmp_path / "out") == before


def test_lost_pixels_are_stored_again(tmp_path: Path) -> None:
    source = picture_folder(tmp_path / "in")
    take(source, tmp_path / "out")
    before = tree(tmp_path / "out")
    next((tmp_path / "out" / "pixels").rglob("*.zip")).unlink()
    take(source, tmp_path / "out")
    assert tree(tmp_path / "out") == before


def mixed_folder(root: Path) -> Path:
    """Good pictures, bad ones, text, an empty file, a link in a circle, a pipe, a DICOM file."""
    picture_folder(root, 3)
    images = root / "images"
    picture(77).save(images / "unlisted.png")
    (images / "empty.png").write_bytes(b"")
    (images / "text.png").write_text("no picture")
    whole = (images / f"{CANARY}0_0.png").read_bytes()
    (images / f"{CANARY}0_1.png").write_bytes(whole[: len(whole) // 2])
    (root / "README.md").write_text("words")
    (root / "notes.txt").write_text("words")
    (root / "circle").symlink_to(root)
    (root / "nowhere").symlink_to(root / "absent")
    os.mkfifo(root / "pipe")
    shutil.copy(str(get_testdata_file("examples_ybr_color.dcm")), root / "cine.dcm")
    picture(5).save(root / "masks" / "orphan.png")
    return root


def test_V7_a_mixed_folder_is_accounted_for_file_by_file(tmp_path: Path) -> None:
    root = mixed_folder(tmp_path / "in")
    report = take(root, tmp_path / "out")
    entries = {
        p.relative_to(root).as_posix() for p in root.rglob("*") if not p.is_dir() or p.is_symlink()
    }
    with report.links.open(newline="") as file:
        names = {row["key"]: row["stands_for"] for row in csv.DictReader(file)}
    by_name = {names[a.keyed_path]: a for a in report.account}
    assert set(by_name) == entries
    assert len(report.account) == sum(report.count(o) for o in Outcome)
    bins = {name: a.outcome for name, a in by_name.items()}
    for name in ("README.md", "notes.txt", "pipe", "circle", "nowhere", "cine.dcm"):
        assert bins[name] == "skipped", name
    for name in ("unlisted", "empty", "text", f"{CANARY}0_1"):
        assert bins[f"images/{name}.png"] == "refused", name
    assert bins["masks/orphan.png"] == "refused"
    assert bins[f"images/{CANARY}0_0.png"] == "used"
    assert by_name["images/empty.png"].reasons == ("not-in-table",)
    cohort = load_cohort(tmp_path / "out")
    stored = {p.name.split(".")[0] for p in (tmp_path / "out" / "pixels").rglob("*.zip")}
    assert stored == {c.sha256 for s in cohort.studies for c in s.clips}
    assert report.refused == 6
    assert "6 refused" in ingest_words(report)


def test_a_reader_that_loses_a_file_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = picture_folder(tmp_path / "in")
    real = ingest_module.read_image_folder

    def lossy(*args: object) -> object:
        results = list(real(*args))  # type: ignore[arg-type]
        return iter([*results[:-1], ReadResult(results[-1].study, results[-1].files[1:])])

    monkeypatch.setattr(ingest_module, "read_image_folder", lossy)
    with pytest.raises(RenalkitError, match="ended in no bin or in two"):
        take(source, tmp_path / "out")
    assert not (tmp_path / "out" / "cohort.toml").exists()


def test_a_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = picture_folder(tmp_path / "in")
    target = source / "images" / f"{CANARY}0_0.png"
    hashed = ingest_module._hash

    def hash_then_change(path: Path) -> str:
        found = hashed(path)
        if path == target:
            picture(1234).save(target)
        return found

    monkeypatch.setattr(ingest_module, "_hash", hash_then_change)
    report = take(source, tmp_path / "out")
    changed = [a for a in report.account if "changed-during-read" in a.reasons]
    assert changed
    assert {a.outcome for a in changed} == {"refused"}
    assert len(report.cohort.studies) == 3


def test_columns_are_known_by_any_usual_spelling(tmp_path: Path) -> None:
    source = picture_folder(tmp_path / "in")
    table = source / "labels.csv"
    table.write_text(
        table.read_text().replace(
            "patient,image,label,side,size_mm,age", "Patient ID,File_Name,LABEL,Side,Size (mm),Age"
        )
    )
    lines = table.read_text().splitlines()
    rest = [f"{line},{n}" for n, line in enumerate(lines[1:])]
    table.write_text("\n".join([lines[0] + ",Grading", *rest]) + "\n")
    report = take(source, tmp_path / "out")
    assert len(report.cohort.patients) == 4
    assert all(s.patient_known and s.covariates["age_years"] >= 50 for s in report.cohort.studies)
    lesions = [le for s in report.cohort.studies for le in s.lesions]
    assert {le.label for le in lesions} == {"benign", "malignant"}
    assert {le.side for le in lesions} == {Side.LEFT}
    assert sorted(le.size_mm for le in lesions if le.size_mm) == [20, 21, 22, 23]
    # What is not read is said, so that a misspelt column does not pass unseen.
    (told,) = report.warnings
    assert told.reason is Reason.NOT_RECOGNISED
    assert told.words.endswith("not read: Grading")


def test_facts_about_patients_are_kept_counted_and_guarded(tmp_path: Path) -> None:
    source = picture_folder(tmp_path / "in")
    table = source / "labels.csv"
    head, *rows = table.read_text().splitlines()
    more = [f"{row},{'MF'[n // 2 % 2]},{5.5 + n // 2},3,1970" for n, row in enumerate(rows)]
    table.write_text("\n".join([f"{head},sex,crp_mg_l,score,birth_year", *more]) + "\n")
    with pytest.raises(ConfigError, match="birth_year.*may say who a person is"):
        take(source, tmp_path / "no", covariates="birth_year")
    report = take(source, tmp_path / "out", covariates="score")
    facts = [dict(s.facts) for s in load_cohort(tmp_path / "out").studies]
    assert sorted((f["sex"], f["crp_mg_l"], f["score"]) for f in facts) == [
        ("F", 6.5, 3),
        ("F", 8.5, 3),
        ("M", 5.5, 3),
        ("M", 7.5, 3),
    ]
    assert report.as_json()["covariates"] == {"age_years": 4, "crp_mg_l": 4, "score": 4, "sex": 4}
    (told,) = report.warnings
    assert "birth_year ('birth' in its name" in told.words
    # Other columns asked for: the cohort is made anew, not recalled.
    again = take(source, tmp_path / "out")
    assert "score" not in again.covariates


def test_pictures_without_patient_or_class_are_said(tmp_path: Path) -> None:
    source = picture_folder(tmp_path / "in")
    table = source / "labels.csv"
    table.write_text(table.read_text().replace("patient,", "who,").replace(",label,", ",verdict,"))
    report = take(source, tmp_path / "out", classes="benign,malignant")
    assert not any(s.patient_known for s in report.cohort.studies)
    found = {w.reason: w.words for w in report.warnings}
    assert found[Reason.NOT_RECOGNISED].endswith("who, verdict")
    assert found[Reason.NO_PATIENT].startswith("8 pictures without a patient")
    assert found[Reason.UNKNOWN_LABEL] == "8 of 8 studies have no class"


def test_rows_without_a_picture_are_named(tmp_path: Path) -> None:
    source = picture_folder(tmp_path / "in")
    table = source / "labels.csv"
    table.write_text(table.read_text() + f"{CANARY}-009,lost.png,benign,left,21,50\n")
    report = take(source, tmp_path / "out")
    assert [w.words for w in report.warnings] == ["1 rows name no picture: lines 10"]


def test_classes_of_another_task_are_excluded_and_counted(tmp_path: Path) -> None:
    root = tmp_path / "in"
    for n, name in enumerate(("benign", "malignant", "normal")):
        (root / name).mkdir(parents=True)
        for k in range(2):
            picture(10 * n + k).save(root / name / f"{name} ({k + 1}).png")
            mask().save(root / name / f"{name} ({k + 1})_mask.png") if name != "normal" else None
    report = take(root, tmp_path / "out", classes="benign,malignant")
    assert report.layout == "busi"
    flow = report.cohort.flow
    assert flow.excluded == (("class 'normal' is not part of the task", 2),)
    assert flow.screened_studies == flow.included_studies + 2 == 6
    everything = take(root, tmp_path / "all")
    assert everything.cohort.task.classes == ("benign", "malignant", "normal")
    assert everything.cohort.task.positive is None


def test_folders_named_by_class_need_the_classes(tmp_path: Path) -> None:
    for n, name in enumerate(("cyst", "tumour")):
        (tmp_path / "in" / name).mkdir(parents=True)
        picture(n).save(tmp_path / "in" / name / f"a{n}.png")
    with pytest.raises(InputRefused, match="no known layout.*expected.*BUSI"):
        take(tmp_path / "in", tmp_path / "out")
    report = take(tmp_path / "in", tmp_path / "out", classes="cyst,tumour", positive="tumour")
    assert [le.label for s in report.cohort.studies for le in s.lesions] in (
        ["cyst", "tumour"],
        ["tumour", "cyst"],
    )
    assert not any(s.patient_known for s in report.cohort.studies)


def test_masks_lie_in_the_same_folders_as_their_pictures(tmp_path: Path) -> None:
    root = picture_folder(tmp_path / "in")
    for kind in ("images", "masks"):
        for n in range(4):
            folder = root / kind / f"p{n}"
            folder.mkdir()
            for k in range(2):  # the same two names for every patient
                (root / kind / f"{CANARY}{n}_{k}.png").rename(folder / f"{k}.png")
    table = root / "labels.csv"
    table.write_text(re.sub(rf"{CANARY}(\d)_(\d)", r"images/p\1/\2", table.read_text()))
    report = take(root, tmp_path / "out")
    assert report.count(Outcome.USED) == 17
    assert sum(len(le.rois) for s in report.cohort.studies for le in s.lesions) == 8


@pytest.mark.parametrize(
    ("place", "where"),
    [("labels", "labels/{folder}/{stem}.png"), ("images", "{folder}/{stem}_seg.png")],
)
def test_masks_elsewhere_are_named(tmp_path: Path, place: str, where: str) -> None:
    root = picture_folder(tmp_path / "in")
    suffix = "_seg" if place == "images" else ""
    (root / place).mkdir(exist_ok=True)
    for path in (root / "masks").iterdir():
        path.rename(root / place / f"{path.stem}{suffix}.png")
    report = take(root, tmp_path / "out", masks=where)
    assert report.count(Outcome.USED) == 17
    assert sum(len(le.rois) for s in report.cohort.studies for le in s.lesions) == 8
    if place == "labels":  # unnamed they are not read, and that is said
        words = [w.words for w in take(root, tmp_path / "bare").warnings]
        assert words == ["8 pictures lie outside images/ and are not read; for masks give --masks"]


def test_options_without_meaning_are_refused(tmp_path: Path) -> None:
    root = picture_folder(tmp_path / "in")
    with pytest.raises(ConfigError, match="--masks: no file of the source is at"):
        take(root, tmp_path / "out", masks="{folder}/{stem}_seg.png")
    with pytest.raises(ConfigError, match="--masks: '.*' must hold"):
        take(root, tmp_path / "out", masks="masks")
    with pytest.raises(ConfigError, match="--groups: only for the layout 'busi'"):
        take(root, tmp_path / "out", groups="manifest")
    with pytest.raises(ConfigError, match="--masks: only for folders of pictures"):
        take(root, tmp_path / "out", masks="masks/{stem}.png", layout="dicom")


def test_accents_may_be_composed_or_not(tmp_path: Path) -> None:
    root = picture_folder(tmp_path / "in")
    table = root / "labels.csv"
    table.write_text(table.read_text().replace(CANARY, "\u00fc"))
    for kind, form in (("images", "u\u0308"), ("masks", "\u00fc")):
        for path in (root / kind).iterdir():
            path.rename(path.with_name(path.name.replace(CANARY, form)))
    report = take(root, tmp_path / "out")
    assert report.count(Outcome.USED) == 17
    assert sum(len(le.rois) for s in report.cohort.studies for le in s.lesions) == 8


def test_one_class_or_none_is_told_with_the_way_out(tmp_path: Path) -> None:
    root = picture_folder(tmp_path / "in")
    table = root / "labels.csv"
    table.write_text(table.read_text().replace("malignant", "benign"))
    with pytest.raises(ConfigError, match="only the class 'benign' was found; give a label table"):
        take(root, tmp_path / "out")
    scans = tmp_path / "scans"
    scans.mkdir()
    shutil.copy(get_testdata_file("examples_ybr_color.dcm"), scans)
    with pytest.raises(ConfigError, match="no class was found"):
        take(scans, tmp_path / "us")
    assert not (tmp_path / "us" / "pixels").exists()


def labelme(label: str) -> str:
    square = [[8, 8], [25, 8], [25, 20], [8, 20]]
    shape = {"label": label, "points": square, "group_id": None, "shape_type": "polygon"}
    return json.dumps({"imageHeight": 32, "imageWidth": 40, "shapes": [shape]})


@pytest.mark.parametrize("patients", [True, False])
def test_labels_of_outlines_are_the_classes_where_nothing_else_says_them(
    tmp_path: Path, patients: bool
) -> None:
    root = tmp_path / "in"
    root.mkdir()
    for n in range(4):
        picture(n).save(root / f"{n}.png")
        (root / f"{n}.json").write_text(labelme("malignant" if n % 2 else "benign"))
    with pytest.raises(InputRefused, match="named by --classes"):
        take(root, tmp_path / "out")
    if patients:  # 0 and 2 of one patient, 1 and 3 of another
        rows = (f"{n}.png,{n % 2}" for n in range(4))
        (root / "labels.csv").write_text("\n".join(["image,patient", *rows]) + "\n")
    cohort = take(root, tmp_path / "out", classes="benign,malignant").cohort
    lesions = [le for s in cohort.studies for le in s.lesions]
    assert sorted(le.label for le in lesions if le.label) == sorted(
        ["benign", "malignant"] * (1 if patients else 2)
    )
    assert sum(len(le.rois) for le in lesions) == 4


def test_a_lesion_outlined_under_two_classes_has_none(tmp_path: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    for n, label in enumerate(("benign", "malignant")):
        picture(n).save(root / f"{n}.png")
        (root / f"{n}.json").write_text(labelme(label))
    (root / "labels.csv").write_text("image,patient\n0.png,1\n1.png,1\n")
    report = take(root, tmp_path / "out", classes="benign,malignant")
    (study,) = report.cohort.studies
    assert [le.label for le in study.lesions] == [None]
    assert Reason.FIELD_NULLED in {d.reason for d in study.defects}
    assert [w.words for w in report.warnings] == ["1 of 1 studies have no class"]


def test_two_classes_without_a_known_positive_one_are_refused(tmp_path: Path) -> None:
    root = picture_folder(tmp_path / "in")
    table = root / "labels.csv"
    table.write_text(table.read_text().replace("malignant", "RCC").replace("benign", "AML"))
    with pytest.raises(ConfigError, match="--positive"):
        take(root, tmp_path / "out")
    assert take(root, tmp_path / "out", positive="RCC").cohort.task.positive == "RCC"


def test_T06_an_unknown_label_refuses_the_table(tmp_path: Path) -> None:
    root = picture_folder(tmp_path / "in")
    with pytest.raises(InputRefused, match="label") as refused:
        take(root, tmp_path / "out", classes="benign,maligne")
    assert refused.value.reason is Reason.UNKNOWN_LABEL
    assert not (tmp_path / "out" / "cohort.toml").exists()


@pytest.mark.parametrize("twin", ["Malignant", "malignant ", "\uff4dalignant"])
def test_T06_labels_that_look_alike_are_not_two_classes(tmp_path: Path, twin: str) -> None:
    table = picture_folder(tmp_path / "in") / "labels.csv"
    table.write_text(table.read_text().replace("malignant", twin, 1))
    with pytest.raises(InputRefused, match=r"line 4\) and 'malignant' \(line 5") as refused:
        take(tmp_path / "in", tmp_path / "out")
    assert refused.value.reason is Reason.UNKNOWN_LABEL


def test_T06_a_table_of_empty_labels_is_refused(tmp_path: Path) -> None:
    table = picture_folder(tmp_path / "in") / "labels.csv"
    table.write_text(table.read_text().replace("malignant", "").replace("benign", ""))
    with pytest.raises(InputRefused, match="no row has a label"):
        take(tmp_path / "in", tmp_path / "out")


def test_capital_letters_do_not_change_what_a_class_means(tmp_path: Path) -> None:
    source = picture_folder(tmp_path / "in")
    table = source / "labels.csv"
    text = table.read_text().replace("benign", "Benign").replace("malignant", "Malignant")
    table.write_text(text.replace(f"{CANARY}3_0.png,Malignant", f"{CANARY}3_0.png,Normal"))
    Image.new("L", (40, 32)).save(source / "masks" / f"{CANARY}3_0.png")
    report = take(source, tmp_path / "out", classes="Normal,Benign,Malignant")
    assert report.refused == 0
    assert sum(len(le.rois) for s in report.cohort.studies for le in s.lesions) == 7
    table.write_text(text)
    assert take(source, tmp_path / "two").cohort.task.positive == "Malignant"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"layout": "nifti"}, "--layout"),
        ({"classes": "benign"}, "--classes"),
        ({"classes": "benign,benign"}, "--classes"),
        ({"groups": "all"}, "--groups"),
        ({"labels": Path("/absent/labels.csv")}, "--labels"),
        ({"target": "stage"}, "--target: 'stage' is not one of label, histology, grade"),
        ({"ordered": True}, "--ordered: name the grades in rising order"),
    ],
)
def test_options_that_cannot_be_are_all_named(
    tmp_path: Path, more: dict[str, object], words: str
) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(ConfigError, match=words):
        request_of(source=tmp_path / "in", output=tmp_path / "out", **more)  # type: ignore[arg-type]


def graded_folder(root: Path, grades: Sequence[str], systems: Sequence[str]) -> Path:
    """A picture per patient; every third lesion is benign and has no grade."""
    (root / "images").mkdir(parents=True)
    rows = ["patient,image,label,histology,grade,grade_system"]
    for n, (grade, system) in enumerate(zip(grades, systems, strict=True)):
        picture(10 * n).save(root / "images" / f"{n}.png")
        label, histology = (
            ("malignant", "ccRCC" if n % 2 else "pRCC") if grade else ("benign", "AML")
        )
        rows.append(f"p{n:02d},{n}.png,{label},{histology},{grade},{system}")
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    return root


def test_grades_are_ordered_classes_and_histology_is_not(tmp_path: Path) -> None:
    grades = ["1", "G2", "", "III", "2", "4", ""]
    systems = ["ISUP" if g else "" for g in grades]
    source = graded_folder(tmp_path / "in", grades, systems)
    report = take(source, tmp_path / "grade", target="grade")
    cohort = load_cohort(tmp_path / "grade")
    assert cohort.task == ClassTask(("G1", "G2", "G3", "G4"), ordered=True)
    assert report.as_json()["ordered"] is True
    assert sorted(str(study_label(s)) for s in cohort.studies) == ["G1", "G2", "G2", "G3", "G4"]
    assert dict(cohort.flow.excluded) == {"no grade is known": 2}
    assert take(source, tmp_path / "grade", target="grade").recalled > 0
    three = take(source, tmp_path / "three", target="grade", classes="G2,G3,G4").cohort
    assert three.task == ClassTask(("G2", "G3", "G4"), ordered=True)
    assert dict(three.flow.excluded)["class 'G1' is not part of the task"] == 1

    histology = take(source, tmp_path / "histology", target="histology").cohort
    assert histology.task == ClassTask(("AML", "ccRCC", "pRCC"))
    assert histology.flow.included_patients == 7
    plain = take(source, tmp_path / "label").cohort
    assert plain.task == ClassTask(("benign", "malignant"), "malignant")
    stated = take(
        source, tmp_path / "stated", target="histology", classes="AML,pRCC,ccRCC", ordered=True
    )
    assert stated.cohort.task.ordered, "whoever says that these rise is believed"


def test_grades_that_make_no_order_are_refused(tmp_path: Path) -> None:
    mixed = graded_folder(tmp_path / "mixed", ["1", "2", "3"], ["ISUP", "FUHRMAN", "ISUP"])
    with pytest.raises(ConfigError, match="FUHRMAN and WHO_ISUP are not one scale"):
        take(mixed, tmp_path / "out", target="grade")
    two = graded_folder(tmp_path / "two", ["1", "2", "2"], ["ISUP"] * 3)
    with pytest.raises(ConfigError, match="--positive: which of G1 and G2"):
        take(two, tmp_path / "out2", target="grade")
    assert take(two, tmp_path / "out2", target="grade", positive="G2").cohort.task.positive == "G2"
    none = picture_folder(tmp_path / "none")
    with pytest.raises(ConfigError, match="no class was found"):
        take(none, tmp_path / "out3", target="grade")


def test_source_output_and_key_are_kept_apart(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for output in (source, source / "out", tmp_path):
        with pytest.raises(ConfigError, match="--output"):
            request_of(source=source, output=output)
    for key in (source / "k", tmp_path / "out" / "k"):
        with pytest.raises(ConfigError, match="--key-file"):
            request_of(source=source, output=tmp_path / "out", key_file=key)


def test_a_folder_with_other_files_is_no_output(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".tmp-mine").write_bytes(b"mine")
    with pytest.raises(ConfigError, match="other files"):
        request_of(source=tmp_path / "in", output=tmp_path / "out")
    assert (tmp_path / "out" / ".tmp-mine").read_bytes() == b"mine"


def test_a_second_source_does_not_replace_the_first(tmp_path: Path) -> None:
    take(picture_folder(tmp_path / "a"), tmp_path / "out")
    before = tree(tmp_path / "out")
    with pytest.raises(ConfigError, match="another source"):
        take(picture_folder(tmp_path / "b", 2), tmp_path / "out")
    assert tree(tmp_path / "out") == before


def test_Q08_a_lost_key_is_said_and_not_replaced(tmp_path: Path) -> None:
    source = picture_folder(tmp_path / "in", 2)
    take(source, tmp_path / "out")
    (tmp_path / "out.keys" / "project.key").unlink()
    with pytest.raises(StoreError, match="key this cohort was made with is missing"):
        take(source, tmp_path / "out")
    assert not (tmp_path / "out.keys" / "project.key").exists()


def test_a_folder_in_use_is_locked(tmp_path: Path) -> None:
    source = picture_folder(tmp_path / "in", 2)
    with durable.locked(tmp_path / "out"), pytest.raises(Locked, match="in use") as error:
        take(source, tmp_path / "out")
    assert error.value.exit_code == Exit.LOCKED
    take(source, tmp_path / "out")


def test_an_empty_folder_is_refused_with_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(InputRefused, match="0 files in no known layout") as refused:
        take(tmp_path / "in", tmp_path / "out")
    assert refused.value.exit_code == Exit.REFUSED


def test_a_folder_in_which_every_picture_is_refused_gives_no_cohort(tmp_path: Path) -> None:
    root = picture_folder(tmp_path / "in", 2)
    for path in (root / "images").iterdir():
        path.write_bytes(b"")
    with pytest.raises(InputRefused, match=r"none of 9 files gave a study \(4 x empty: "):
        take(root, tmp_path / "out")


def _stop_after(count: int) -> Callable[..., object]:
    left = [count]
    real = durable.fsync_folder

    def fsync(folder: Path) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        real(folder)

    return fsync


@pytest.mark.parametrize("count", [0, 5, 12, 29])
def test_ctrl_c_leaves_a_resumable_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    source = picture_folder(tmp_path / "in")
    key = tmp_path / "safe" / "my.key"
    take(source, tmp_path / "whole" / "c", key_file=key)
    with monkeypatch.context() as patch:
        patch.setattr(durable, "fsync_folder", _stop_after(count))
        with pytest.raises(KeyboardInterrupt):
            take(source, tmp_path / "cut" / "c", key_file=key)
    take(source, tmp_path / "cut" / "c", key_file=key)
    assert tree(tmp_path / "cut" / "c") == tree(tmp_path / "whole" / "c")


def test_X10_a_full_disk_at_any_write_is_an_error_and_resumable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = picture_folder(tmp_path / "in", 2)
    key = tmp_path / "safe" / "my.key"
    take(source, tmp_path / "whole" / "c", key_file=key)
    reference = tree(tmp_path / "whole" / "c")
    real, writes = durable._put, [0]

    def counted(path: Path, data: bytes) -> None:
        writes[0] += 1
        real(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(durable, "_put", counted)
        take(source, tmp_path / "count" / "c", key_file=key)
    assert writes[0] > 5
    for number in range(0, writes[0], 4):
        left = [number]

        def full(path: Path, data: bytes, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                real(path, data[: len(data) // 2])
                raise OSError(28, "No space left on device")
            real(path, data)

        output = tmp_path / f"cut{number}" / "c"
        with monkeypatch.context() as patch:
            patch.setattr(durable, "_put", full)
            with pytest.raises(
                StoreError, match="disk is full.*run the same command again"
            ) as error:
                take(source, output, key_file=key)
        assert error.value.exit_code == Exit.STORE
        take(source, output, key_file=key)
        assert tree(output) == reference


def test_reports_need_reasons() -> None:
    with pytest.raises(ValueError, match="needs a reason"):
        FileReport(Path("x"), Outcome.REFUSED)
