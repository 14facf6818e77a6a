"""The table of patients: who counts where, what is tested, what is written."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from renalkit.domain.cohort import ClassTask, Cohort
from renalkit.domain.image import Clip, Mode, Source, pixel_sha256
from renalkit.domain.profile import patient_classes, patient_variables
from renalkit.domain.study import Findings, GradeSystem, Lesion, Scanner, Side, Study
from renalkit.errors import ConfigError
from renalkit.store.cohorts import save_cohort
from renalkit.store.runs import RunFolder
from renalkit.usecases.characteristics import (
    NESTED,
    cohort_table,
    table_csv,
    table_of,
    table_words,
    write_characteristics,
)

TASK = ClassTask(("benign", "malignant"), "malignant")


def lesion(key: int, label: str, **facts: object) -> Lesion:
    return Lesion(f"l-{key:020x}", label, **facts)  # type: ignore[arg-type]


def study(n: int, *lesions: Lesion, patient: int | None = None, **facts: object) -> Study:
    pixels = np.full((2, 20, 24), n % 250, np.uint8)
    clip = Clip(pixels, pixel_sha256(pixels), Mode.B, Source(f"{n:064x}", "f-0", "png"))
    who = n if patient is None else patient
    return Study(f"s-{n:020x}", f"p-{who:020x}", (clip,), lesions, **facts)  # type: ignore[arg-type]


def cohort() -> Cohort:
    """Twelve patients, ages and sizes known, histology within the classes; one has two lesions."""
    ages = (41, 47, 52, 55, 58, 60, 63, 69, 74, 50, 61, 66)
    studies = [
        study(
            n,
            lesion(
                n,
                TASK.classes[n % 2],
                size_mm=20.0 + n,
                side=Side.LEFT if n % 3 else Side.RIGHT,
                histology=("AML", "ccRCC")[n % 2],
                grade=2 if n % 2 else None,
                grade_system=GradeSystem.WHO_ISUP if n % 2 else None,
                findings=Findings(calcification=bool(n % 4)),
            ),
            site=f"H{n % 2}" if n < 11 else None,
            scanner=Scanner("M", "X1" if n < 6 else "X2"),
            covariates={"age_years": float(age), "sex": "MF"[n % 2], "source_format": "png"},
        )
        for n, age in enumerate(ages)
    ]
    two = study(
        20, lesion(20, "benign", size_mm=90.0), lesion(21, "malignant", size_mm=15.0), patient=20
    )
    return Cohort("c", TASK, (*studies, two))


def row(name: str, by: str = "class") -> dict[str, object]:
    return next(r for r in table_of(cohort(), by)["rows"] if r["variable"] == name)


def test_the_index_lesion_is_the_largest_of_the_patients_class() -> None:
    classes = patient_classes(cohort())
    both = f"p-{20:020x}"
    assert classes[both] == "malignant"
    sizes = next(v for v in patient_variables(cohort()) if v.name == "size_mm")
    assert sizes.values[both] == 15


def test_what_one_study_lacks_another_fills_and_two_sites_are_unknown() -> None:
    first = study(0, lesion(0, "benign", size_mm=9.0), site="A", covariates={"age_years": 50.0})
    second = study(1, patient=0, label="benign", site="B", covariates={"sex": "F"})
    other = study(2, lesion(2, "malignant"), site="A")
    values = {
        v.name: v.values for v in patient_variables(Cohort("c", TASK, (first, second, other)))
    }
    who = f"p-{0:020x}"
    assert (values["age_years"][who], values["sex"][who]) == (50, "F")
    assert set(values["site"]) == {f"p-{2:020x}"}


def test_groups_rows_and_missing_values() -> None:
    table = table_of(cohort())
    assert [(g["name"], g["patients"]) for g in table["groups"]] == [
        ("benign", 6),
        ("malignant", 7),
    ]
    names = [r["variable"] for r in table["rows"]]
    assert names == [
        *("age_years", "sex", "size_mm", "side", "calcification", "histology"),
        *("grade_who_isup", "site", "scanner"),
    ]
    age = row("age_years")
    assert age["overall"]["n"] == 12  # type: ignore[index]
    assert [g["missing"] for g in age["groups"]] == [0, 1]  # type: ignore[union-attr, index]
    assert age["test"] == "Welch's t-test"
    side = row("side")
    assert side["levels"] == ["left", "right"]
    assert [g["counts"] for g in side["groups"]] == [[4, 2], [4, 2]]  # type: ignore[union-attr, index]


def test_what_only_defines_the_classes_is_not_tested_but_a_site_of_one_class_is() -> None:
    assert (row("histology")["test"], row("histology")["p"]) == (NESTED, None)
    site = row("site")
    assert site["levels"] == ["H0", "H1"]
    assert site["p"] is not None


def test_counts_of_patients_lesions_and_images_by_histology() -> None:
    counts = table_of(cohort())["counts"]
    assert [
        (c["class"], c["histology"], c["patients"], c["lesions"], c["images"]) for c in counts
    ] == [
        ("benign", "AML", 6, 6, 12),
        ("benign", None, 1, 1, 2),
        ("malignant", "ccRCC", 6, 6, 12),
        ("malignant", None, 1, 1, 2),
    ]


def test_by_another_category_the_class_becomes_a_row() -> None:
    table = table_of(cohort(), "scanner")
    assert [g["name"] for g in table["groups"]] == ["M X1", "M X2"]
    assert table["left_out"] == 1
    assert table["rows"][0]["variable"] == "class"
    assert all(r["variable"] != "scanner" for r in table["rows"])
    with pytest.raises(ConfigError, match="no category 'age_years'.*class, sex, side"):
        table_of(cohort(), "age_years")


def test_csv_and_words_hold_every_row() -> None:
    table = table_of(cohort())
    lines = list(csv.reader(io.StringIO(table_csv(table))))
    assert lines[0][:5] == [
        "variable",
        "value",
        "all (n = 13)",
        "benign (n = 6)",
        "malignant (n = 7)",
    ]
    assert {len(line) for line in lines} == {9}
    age = next(line for line in lines if line[0] == "age_years")
    assert age[1] == "mean ± SD"
    assert age[5] == "1", "one age is unknown"
    assert sum(bool(line[0]) for line in lines[1:]) == len(table["rows"])
    words = table_words(table)
    assert "age_years, mean ± SD, 1 unknown" in words
    assert "malignant, ccRCC: 6 patients, 6 lesions, 12 images" in words


def test_a_cohort_of_one_class_and_no_facts_has_a_table() -> None:
    bare = Cohort("c", TASK, (study(1, lesion(1, "benign")),))
    table = table_of(bare)
    assert table["rows"] == []
    assert [g["patients"] for g in table["groups"]] == [1]
    assert table_csv(table).startswith("variable,")


def test_the_command_and_the_run_write_the_same_table(tmp_path: Path) -> None:
    save_cohort(tmp_path / "c", cohort())
    found = cohort_table(tmp_path / "c", csv=tmp_path / "t.csv")
    assert found == table_of(cohort())
    outside = frozenset(cohort().patients[:4])
    write_characteristics(RunFolder(tmp_path), cohort(), outside)
    stored = json.loads((tmp_path / "characteristics.json").read_text())
    assert stored["tables"][0] == json.loads(json.dumps(found))
    assert (tmp_path / "characteristics.csv").read_bytes() == (tmp_path / "t.csv").read_bytes()
    assert [(g["name"], g["patients"]) for g in stored["tables"][1]["groups"]] == [
        ("development", 9),
        ("external", 4),
    ]
    assert (tmp_path / "characteristics-part.csv").is_file()
