"""Simulated cohorts: bytes by seed, the table, balance, no shortcut through the scanner."""

import csv
import hashlib
from collections import Counter

import cv2
import numpy as np
import pytest

from renalkit.errors import ConfigError, InputRefused, StoreError
from renalkit.phantom.cohort import COLUMNS, CohortPlan, draw_patients, write_image_cohort
from renalkit.phantom.ultrasound import SCANNERS


def digests(folder):
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def rows_of(folder):
    with (folder / "labels.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort") / "images-of-a-user"
    return folder, write_image_cohort(folder, 10, size=64, seed=5, normal_share=0.2)


def test_same_seed_same_bytes(small, tmp_path):
    folder, summary = small
    again = write_image_cohort(tmp_path / "b", 10, size=64, seed=5, normal_share=0.2)
    assert digests(folder) == digests(tmp_path / "b")
    assert again == summary


def test_other_seed_other_pictures(small, tmp_path):
    write_image_cohort(tmp_path / "b", 10, size=64, seed=6, normal_share=0.2)
    pictures = [
        {d for name, d in digests(f).items() if name.startswith("images")}
        for f in (small[0], tmp_path / "b")
    ]
    assert not pictures[0] & pictures[1]


def test_table_describes_exactly_the_files(small):
    folder, summary = small
    rows = rows_of(folder)
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == summary.n_images
    named = {r["image"] for r in rows} | {r["mask"] for r in rows if r["mask"]} | {"labels.csv"}
    assert named == set(digests(folder))
    for row in rows:
        picture = cv2.imread(str(folder / row["image"]), cv2.IMREAD_UNCHANGED)
        assert picture.shape == (64, 64)
        if row["label"] == "normal":
            assert row["mask"] == row["size_mm"] == ""
            continue
        mask = cv2.imread(str(folder / row["mask"]), cv2.IMREAD_UNCHANGED)
        assert set(np.unique(mask)) == {0, 255}
        assert 10 <= float(row["size_mm"]) <= 70


def test_one_patient_one_label_one_scanner(small):
    facts = {}
    for row in rows_of(small[0]):
        fact = tuple(row[c] for c in ("label", "side", "size_mm", "model", "site"))
        assert facts.setdefault(row["patient"], fact) == fact
    assert len(facts) == 10


def test_shares_are_met(small):
    assert small[1].patients_by_label == {"benign": 3, "malignant": 5, "normal": 2}
    assert small[1].as_dict()["n_patients"] == 10


def test_frames_of_a_patient_differ_but_show_the_same_mass():
    plan = CohortPlan(4, images_per_patient=(3, 3), size=128, seed=1)
    for patient in draw_patients(plan):
        frames = list(patient.frames(plan.size))
        first, *others = frames
        for frame in others:
            assert frame.parameters["anatomy"] == first.parameters["anatomy"]
            assert frame.parameters["view"] != first.parameters["view"]
            assert not np.array_equal(frame.pixels, first.pixels)
        areas = [f.lesion_mask.sum() for f in frames]
        assert min(areas) > 0


def test_a_patient_does_not_depend_on_how_many_frames_others_have():
    plans = [CohortPlan(3, images_per_patient=n, size=32, seed=2) for n in ((1, 1), (2, 2))]
    one, two = (draw_patients(plan) for plan in plans)
    for a, b in zip(one, two, strict=True):
        assert (a.anatomy, a.views[0], a.scanner) == (b.anatomy, b.views[0], b.scanner)
        assert len(b.views) == 2
        assert np.array_equal(next(a.frames(32)).pixels, next(b.frames(32)).pixels)


def test_scanner_and_site_do_not_follow_the_class():
    plan = CohortPlan(2400, images_per_patient=(1, 1), seed=3, malignant_share=0.5)
    table = Counter((p.label, p.scanner.name) for p in draw_patients(plan))
    assert {name for _, name in table} == {s.name for s in SCANNERS}
    for scanner in SCANNERS:
        malignant, benign = table["malignant", scanner.name], table["benign", scanner.name]
        # Difference of two binomial shares of 1200: 4 standard errors are 0.082.
        assert abs(malignant - benign) / 1200 < 0.082


def test_rest_of_an_interrupted_call_does_no_harm(small, tmp_path, monkeypatch):
    def full_disk(*_):
        raise StoreError("no space left")

    target = tmp_path / "c"
    with monkeypatch.context() as patched:
        patched.setattr("renalkit.phantom.cohort.write_text", full_disk)
        with pytest.raises(StoreError, match="no space"):
            write_image_cohort(target, 3, images_per_patient=(1, 1), size=32)
    assert not target.exists()
    write_image_cohort(target, 2, images_per_patient=(1, 1), size=32)
    assert len(rows_of(target)) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_refuses_an_occupied_place_and_leaves_it_alone(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "mine.png").write_bytes(b"mine")
    with pytest.raises(InputRefused, match="with files in it"):
        write_image_cohort(tmp_path, 3)
    assert (tmp_path / "images" / "mine.png").read_bytes() == b"mine"
    with pytest.raises(InputRefused, match="a file of that name"):
        write_image_cohort(tmp_path / "images" / "mine.png", 3)


def test_an_empty_folder_is_taken(tmp_path):
    assert write_image_cohort(tmp_path, 1, images_per_patient=(1, 1), size=32).ideal_auc is None
    assert (tmp_path / "labels.csv").is_file()


def test_reports_all_problems_at_once():
    with pytest.raises(ConfigError) as caught:
        CohortPlan(0, (3, 2), size=8, seed=-1, malignant_share=1.5, normal_share=-0.1)
    assert len(caught.value.problems) == 6
