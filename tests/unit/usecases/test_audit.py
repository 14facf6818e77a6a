"""Published tables through the command: the stored examples reach the findings of 8.7."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from renalkit.cli import app
from renalkit.errors import InputRefused
from renalkit.usecases.audit import audit_table, audit_words

EXAMPLES = Path(__file__).parents[3] / "examples" / "published"
Rows = dict[tuple[str, str], dict[str, Any]]


def rows_of(name: str) -> tuple[Rows, list[Any]]:
    found = audit_table(EXAMPLES / name)
    return {(r["name"], r["source"]): r for r in found["rows"]}, found["between_sources"]


def kinds(row: dict[str, Any]) -> set[str]:
    return {f["finding"] for f in row["findings"]}


def words(row: dict[str, Any], kind: str) -> str:
    return next(f["words"] for f in row["findings"] if f["finding"] == kind)


def test_readers_of_p2_have_single_points_and_the_other_class_as_positive() -> None:
    rows, _ = rows_of("p2-table3.csv")
    for reader, implied in (
        ("junior radiologists", {"ppv": 0.390, "npv": 0.392, "accuracy": 0.389}),
        ("senior radiologists", {"ppv": 0.390, "npv": 0.396, "accuracy": 0.388}),
    ):
        row = rows[reader, "Table 3"]
        assert row["prevalence"] == pytest.approx(implied, abs=5e-4)
        assert {"single-point-auc", "positive-share-differs", "no-whole-numbers"} <= kinds(row)
        text = words(row, "positive-share-differs")
        assert "0.552 (100 + 81 patients)" in text
        assert "the other class fits better" in text
    # Narrower than 181 patients allow, and leaning to one side.
    assert "lopsided-interval" in kinds(rows["junior radiologists", "Table 3"])


def test_single_modality_networks_of_p2_are_no_pooled_table() -> None:
    rows, notes = rows_of("p2-table3.csv")
    b_mode = rows["B-mode", "Table 3"]
    assert {"accuracy-outside", "prevalence-disagrees", "lopsided-interval"} <= kinds(b_mode)
    assert b_mode["prevalence"] == pytest.approx({"ppv": 0.458, "npv": 0.651}, abs=5e-4)
    assert "accuracy 0.745 lies outside 0.750 to 0.770" in words(b_mode, "accuracy-outside")
    ceus = rows["CEUS", "Table 3"]
    assert {"accuracy-borderline", "prevalence-disagrees"} <= kinds(ceus)
    assert ceus["prevalence"] == pytest.approx({"ppv": 0.489, "npv": 0.629}, abs=5e-4)
    assert not b_mode["consistent"]
    assert not ceus["consistent"]
    (note,) = notes
    assert note["finding"] == "sources-disagree"
    assert note["words"] == ("B-mode: Table 3 and Results differ in AUC lower bound (0.700, 0.720)")


def test_the_fused_network_of_p2_mixes_patients_and_images() -> None:
    row = rows_of("p2-table3.csv")[0]["MUF-Net", "Table 3"]
    implied = {"ppv": 0.633, "npv": 0.634, "accuracy": 0.692}
    assert row["prevalence"] == pytest.approx(implied, abs=5e-4)
    assert {"units-mixed", "no-whole-numbers"} <= kinds(row)
    assert "sensitivity 0.804 is no share of 100 patients" in words(row, "no-whole-numbers")
    (width,) = row["widths"]
    assert width["fits"] == ["patients"]
    assert width["expected"]["patients"] == pytest.approx([0.827, 0.927], abs=5e-4)
    assert width["implied_n"][0] <= 181 <= width["implied_n"][1]


def test_p3_implies_three_prevalences_and_swaps_two_rows() -> None:
    rows, notes = rows_of("p3-table2.csv")
    fused = rows["MUF-Net", "Table 2"]
    implied = {"ppv": 0.42, "npv": 0.41, "accuracy": 0.11}
    assert fused["prevalence"] == pytest.approx(implied, abs=5e-3)
    assert {"prevalence-disagrees", "units-mixed", "no-whole-numbers"} <= kinds(fused)
    auc = next(w for w in fused["widths"] if w["measure"] == "auc")
    assert auc["expected"]["patients"] == pytest.approx([0.830, 0.988], abs=5e-4)
    assert auc["fits"] == ["patients"]
    assert "lopsided-interval" in kinds(rows["B-mode", "Table 2"]), "accuracy 0.530 to 0.857"
    assert ["swapped", "sensitivity, specificity"] in [
        [n["finding"], n["words"].rpartition(": ")[2]] for n in notes
    ]


def write(folder: Path, text: str) -> Path:
    path = folder / "t.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,sensitivty\nx,0.8\n", "no meaning for the columns sensitivty"),
        ("row,sensitivity\nx,0.8\n", "no column name"),
        ("name,sensitivity\n", "no row"),
        ("name,sensitivity\nx,0.8\nx,0.9\n", "stands twice"),
        ("name,sensitivity\nx,eighty\n", "line 2.*column sensitivity"),
        ("name,auc,auc_low\nx,0.8,0.7\n", "one bound"),
        ("name,auc,auc_low,auc_high\nx,0.8,0.9,0.7\n", "low to high"),
        ("name,auc,positive_patients\nx,0.8,7\n", "go together"),
        ("name,auc,n_patients,positive_patients,negative_patients\nx,0.8,9,7,3\n", "are not 9"),
        ("name,auc,n_patients,positive_patients\nx,0.8,9,9\n", "both classes"),
        ("name,auc,n_images\nx,0.8,many\n", "no whole number"),
    ],
)
def test_a_table_that_cannot_be_read_names_its_line(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(InputRefused, match=message):
        audit_table(write(tmp_path, text))


def test_counts_may_be_given_in_three_ways(tmp_path: Path) -> None:
    text = (
        "name,sensitivity,specificity,n_patients,positive_patients,negative_patients\n"
        "a,0.90,0.80,,10,10\nb,0.90,0.80,20,10,\nc,0.90,0.80,20,,10\nd,0.90,0.80,20,,\n"
    )
    found = audit_table(write(tmp_path, text))
    assert [r["whole_numbers"] for r in found["rows"]] == [{"patients": True}] * 4
    assert found["consistent"]


def test_the_command_gives_json_and_words() -> None:
    path = str(EXAMPLES / "p2-table3.csv")
    done = CliRunner().invoke(app, ["audit", path, "--json"])
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert found["consistent"] is False
    assert len(found["rows"]) == 6
    text = audit_words(audit_table(Path(path)))
    assert CliRunner().invoke(app, ["audit", path]).stdout.strip() == text
    assert "B-mode (Table 3): cannot be one pooled table" in text
    assert "a question to the authors" in text
