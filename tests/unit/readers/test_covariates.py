"""Which columns are kept as facts about a patient, and what is never kept."""

from __future__ import annotations

import pytest

from renalkit.errors import InputRefused
from renalkit.readers.covariates import CovariateChoice, CovariateKind, choose_covariates
from renalkit.readers.tables import Table, parse_table


def table(**columns: list[str]) -> Table:
    """A table of named columns of equal length."""
    rows = zip(*columns.values(), strict=True)
    lines = [",".join(columns), *(",".join(row) for row in rows)]
    return parse_table("\n".join(lines).encode(), where="labels.csv")


def choose(found: Table, *wanted: str) -> CovariateChoice:
    return choose_covariates(found, {"patient", "label"}, wanted, "patient")


def kinds(choice: CovariateChoice) -> dict[str, CovariateKind]:
    return {k.name: k.kind for k in choice.kept}


PATIENTS = [f"P{n}" for n in range(8)]


def test_what_is_kept_without_being_named() -> None:
    found = table(
        patient=PATIENTS,
        label=["benign"] * 8,
        Age=["50"] * 8,
        gender=["M", "female", "f", "m", "", "F", "o", "male"],
        symptoms=["yes", "no"] * 4,
        bmi=["23.1"] * 8,
        haemoglobin_g_l=["132", "", *["140"] * 6],
        score=["3"] * 8,
    )
    choice = choose(found)
    assert kinds(choice) == {
        "age_years": CovariateKind.AGE,
        "sex": CovariateKind.SEX,
        "symptoms": CovariateKind.YES_NO,
        "bmi": CovariateKind.NUMBER,
        "haemoglobin_g_l": CovariateKind.NUMBER,
    }
    assert choice.left == {"score": ""}
    sex = next(k for k in choice.kept if k.name == "sex")
    assert [sex.value(row, found) for row in found.rows] == [*"MFFM", None, *"FOM"]
    blood = next(k for k in choice.kept if k.name == "haemoglobin_g_l")
    assert [blood.value(row, found) for row in found.rows[:2]] == [132.0, None]


def test_a_named_column_is_kept_when_it_holds_numbers_or_few_words() -> None:
    found = table(patient=PATIENTS, score=["3"] * 8, smoker=["never", "former"] * 4)
    choice = choose(found, "score", "smoker")
    assert kinds(choice) == {"score": CovariateKind.NUMBER, "smoker": CovariateKind.WORD}
    assert not choice.refused
    assert choice.kept[1].value(found.rows[1], found) == "former"


@pytest.mark.parametrize(
    ("column", "cells", "why"),
    [
        ("PatientName", ["Smith", "Smith"] * 4, "'name' in its name"),
        ("date_of_visit", ["5"] * 8, "'date' in its name"),
        ("case_id", ["1"] * 8, "'id' in its name"),
        ("BirthYear", ["1950"] * 8, "'birth' in its name"),
        ("seen", ["2024-01-03"] * 8, "dates"),
        ("seen", ["3.1.2024", ""] * 4, "dates"),
        ("number", [f"10045{n}" for n in range(8)], "six or more digits"),
        ("remarks", [f"seen by colleague {n}" for n in range(8)], "neither numbers nor"),
        ("remarks", ["x" * 41, "y"] * 4, "neither numbers nor"),
        ("margin_mean", ["1.5"] * 8, "uses the name itself"),
        ("crp", [""] * 8, "empty"),
    ],
)
def test_what_could_name_a_person_is_not_kept_even_when_asked_for(
    column: str, cells: list[str], why: str
) -> None:
    choice = choose(table(**{"patient": PATIENTS, column: cells}), column)
    assert not choice.kept
    (refused,) = choice.refused
    assert why in refused
    assert column in refused


def test_wanted_columns_that_do_not_exist_or_mean_something_else_are_refused() -> None:
    found = table(patient=PATIENTS, label=["benign"] * 8, age=["1"] * 8, age_years=["1"] * 8)
    refused = choose(found, "crp", "label").refused
    assert "no column 'crp' in labels.csv" in refused
    assert any("'label' is read already" in words for words in refused)
    assert any("two columns say 'age_years'" in words for words in refused)


def test_columns_of_other_words_are_left_with_their_reason() -> None:
    found = table(patient=PATIENTS, sex=["w"] * 8, albumin_g_l=["40", "n/a"] * 4)
    choice = choose(found)
    assert not choice.kept
    assert choice.left["sex"].startswith("its words are not M, F, O")
    assert choice.left["albumin_g_l"] == "not every cell is a number"


def test_the_very_old_cannot_be_told_apart_and_impossible_ages_are_refused() -> None:
    found = table(patient=PATIENTS[:3], age=["89", "104", "-1"])
    (age,) = choose(found).kept
    assert [age.value(row, found) for row in found.rows[:2]] == [89, 90]
    with pytest.raises(InputRefused, match="line 4, column age.*not plausible"):
        age.value(found.rows[2], found)
