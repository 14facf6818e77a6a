"""Drift between two cohorts: pictures, facts, what only one of them knows."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from renalkit.domain.cohort import ClassTask, Cohort
from renalkit.domain.geometry import Box, MaskRLE, Region
from renalkit.domain.image import Clip, Mode, Source, pixel_sha256
from renalkit.domain.study import Lesion, Roi, Scanner, Study
from renalkit.store.cohorts import save_cohort
from renalkit.usecases.drift import drift, drift_csv, drift_of, drift_words, picture_variables
from renalkit.usecases.progress import Silent

TASK = ClassTask(("benign", "malignant"), "malignant")


def study(n: int, rng: np.random.Generator, bright: int, **facts: float) -> Study:
    pixels = (rng.integers(0, 100, (2, 24, 30)) + bright).astype(np.uint8)
    mask = np.zeros((24, 30), bool)
    mask[4:10, 5:17] = True
    clip = Clip(
        pixels,
        pixel_sha256(pixels),
        Mode.B,
        Source(f"{n:064x}", "f-0", "png"),
        spacing_mm=(0.5, 0.5),
    )
    rois = tuple(Roi(0, f, MaskRLE.encode(mask)) for f in range(2))
    lesion = Lesion(f"l-{n:020x}", TASK.classes[n % 2], rois=rois)
    scanner = Scanner("M", "A" if bright < 50 else "B")
    who = (f"s-{n:020x}", f"p-{n:020x}")
    return Study(*who, (clip,), (lesion,), scanner=scanner, covariates=facts)


def cohort(name: str, start: int, bright: int, n: int = 14, **facts: float) -> Cohort:
    rng = np.random.default_rng(start)
    studies = tuple(study(start + k, rng, bright, **facts) for k in range(n))
    return Cohort(name, TASK, studies)


def test_brighter_pictures_of_another_scanner_are_found() -> None:
    found = drift_of((cohort("one", 0, 0), cohort("two", 100, 100)), Silent())
    rows = {r["variable"]: r for r in found["rows"]}
    assert rows["grey_mean"]["p_holm"] < 0.001
    assert rows["grey_mean"]["psi"] > rows["grey_mean"]["psi_chance"]
    assert rows["scanner"]["p_holm"] < 0.001
    assert rows["spacing_mm"]["p"] == 1
    assert rows["class"]["p"] == 1
    assert rows["lesion_share"]["cohorts"][0]["median"] == pytest.approx(72 / 720)
    assert found["separability"]["auc"] > 0.95
    assert found["separability"]["p"] == pytest.approx(1 / 200)
    assert [c["images"] for c in found["cohorts"]] == [28, 28]


def test_equal_cohorts_do_not_differ() -> None:
    found = drift_of((cohort("one", 0, 0), cohort("two", 100, 0)), Silent())
    assert all(r["p_holm"] is None or r["p_holm"] > 0.05 for r in found["rows"])


def test_what_one_cohort_does_not_know_is_shown_without_a_test() -> None:
    pair = (cohort("one", 0, 0, age_years=50.0), cohort("two", 100, 0))
    found = drift_of(pair, Silent())
    age = next(r for r in found["rows"] if r["variable"] == "age_years")
    assert [c["n"] for c in age["cohorts"]] == [14, 0]
    assert age["p"] is None
    assert "unknown" in drift_words(found)
    lines = list(csv.DictReader(io.StringIO(drift_csv(found))))
    assert len(lines) == len(found["rows"])
    line = next(r for r in lines if r["variable"] == "age_years")
    assert (line["one (1)"], line["two (2)"], line["known (2)"]) == (
        "50 (50 to 50)",
        "unknown",
        "0",
    )


def test_grey_values_are_those_inside_the_regions() -> None:
    rng = np.random.default_rng(0)
    one = study(0, rng, 0)
    pixels = np.zeros((1, 24, 30), np.uint8)
    pixels[:, :12] = 200
    region = Region(Box(0, 0, 30, 12), None, "tissue", "2D")
    source = Source("0" * 64, "f-0", "dicom")
    clip = Clip(pixels, pixel_sha256(pixels), Mode.B, source, regions=(region,))
    inside = Study(one.key, one.patient, (clip,), (Lesion("l-" + "0" * 20, "benign"),))
    found = {v.name: v for v in picture_variables(Cohort("c", TASK, (inside,)), Silent())}
    assert found["grey_mean"].values[one.patient] == 200
    assert found["gradient"].values[one.patient] == 0
    assert "spacing_mm" not in found


def test_too_few_patients_cannot_be_told_apart() -> None:
    found = drift_of((cohort("one", 0, 0, n=4), cohort("two", 100, 0)), Silent())
    assert found["separability"]["auc"] is None
    assert "at least 10" in found["separability"]["note"]
    assert "n/a" in drift_words(found)


def test_the_command_reads_two_cohort_folders(tmp_path: Path) -> None:
    pair = (cohort("one", 0, 0), cohort("two", 100, 0))
    for c in pair:
        save_cohort(tmp_path / c.name, c)
    found = drift(tmp_path / "one", tmp_path / "two", Silent(), tmp_path / "d.csv")
    assert found == drift_of(pair, Silent())
    assert (tmp_path / "d.csv").read_text().startswith("variable,one (1),two (2)")
