"""Label tables: rows T01-T11 of the corpus, and what cells mean."""

import csv
import importlib
import io
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from renalkit.domain.study import GradeSystem
from renalkit.errors import InputRefused, Reason
from renalkit.readers.contract import Outcome, ReadContext
from renalkit.readers.decode_worker import DecodeWorker
from renalkit.readers.folder_table import Columns, TableLayout
from renalkit.readers.image_folder import FolderLayout, read_image_folder
from renalkit.readers.pseudonyms import Pseudonyms
from renalkit.readers.tables import (
    Dialect,
    LabelMap,
    grade,
    iso_date,
    look_alikes,
    number,
    parse_table,
    read_table,
)
from renalkit.store.files import parse_json

sys.path.insert(0, str(Path(__file__).parents[2] / "corpus"))
make_tables = importlib.import_module("make_tables")
ROWS = make_tables.TABLE_ROWS


@pytest.fixture(scope="module")
def worker():
    with DecodeWorker() as made:
        yield made


def _layout():
    names = make_tables.FOLDER_HEADER.split(",")
    file, patient, label, lesion, grade_, system, split = names
    columns = Columns(file, patient, label, lesion, grade=grade_, grade_system=system, split=split)
    table = TableLayout("labels.csv", columns, LabelMap(make_tables.LABELS))
    return FolderLayout("*.png", table=table)


def _verdict(row, folder, worker):
    """Outcome and reason codes of one corpus row."""
    path = row.build(folder)
    try:
        if row.kind == "json":
            parse_json(path.read_bytes(), where=path.name)
        elif row.kind == "date":
            iso_date(path.read_text(encoding="utf-8"))
        elif row.kind == "table":
            read_table(path)
        else:
            context = ReadContext(folder, Pseudonyms(bytes(32)), worker)
            results = list(read_image_folder(sorted(folder.iterdir()), _layout(), context))
            files = [f for r in results for f in r.files]
            assert sorted(f.path for f in files) == sorted(folder.iterdir())
            reasons = {d.reason.value for f in files for d in f.reasons}
            reasons |= {d.reason.value for r in results if r.study for d in r.study.defects} - {
                Reason.NO_REGIONS.value
            }
            if any(f.outcome is Outcome.REFUSED for f in files):
                return "refused", reasons
            return "used-with-warning" if reasons else "used", reasons
    except InputRefused as error:
        return "refused", {error.reason.value}
    return "used", set()


def test_corpus_size():
    assert len(ROWS) == 66 + 123 + 51
    assert {r.id for r in ROWS} == {f"T{n:02}" for n in range(1, 12)}
    assert len({r.name for r in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.name)
def test_corpus(row, tmp_path, worker):
    start = time.monotonic()
    outcome, reasons = _verdict(row, tmp_path, worker)
    assert time.monotonic() - start < 10
    assert (outcome, reasons) == (row.outcome, {row.reason} if row.reason else set())


_cells = st.text(
    st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="=@+-"), max_size=12
)


@given(st.lists(st.lists(_cells, min_size=3, max_size=3), max_size=8))
def test_cells_survive_as_text(lines):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerows([["a", "b", "c"], *lines])
    table = parse_table(text.getvalue().encode(), where="t")
    assert [list(r.values.values()) for r in table.rows] == lines


@given(st.binary(max_size=300))
def test_any_bytes_end_in_a_table_or_a_refusal(data):
    try:
        table = parse_table(data, where="t")
    except InputRefused as error:
        reason = error.reason
    else:
        reason = Reason.BAD_TABLE
        assert all(len(r.values) == len(table.columns) for r in table.rows)
    assert reason is Reason.BAD_TABLE


def test_T01_ids_stay_text_and_NA_too():
    table = parse_table(b"id,label\n007,NA\n7,\n 007,null\n", where="t")
    assert [tuple(r.values.values()) for r in table.rows] == [
        ("007", "NA"), ("7", ""), (" 007", "null"),
    ]  # fmt: skip
    assert look_alikes(r.values["id"] for r in table.rows) == ((" 007", "007", "7"),)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"id,label\n1,a\n2,b,c\n", r"line 3: 3 cells; expected: 2 cells"),
        (b"id;label\n1;a\n", r"line 1: .*semicolon.*delimiter is ';'"),
        ("id,label\n1,a\nMüller,b\n".encode("cp1252"), r"line 3: text that is not UTF-8"),
        (b'id,label\n1,"a\nb"\n2,x,y\n', r"line 4: 3 cells"),
        (b"PK\x03\x04", r"spreadsheet.*save it as CSV"),
    ],
)
def test_refusals_say_where(data, words):
    with pytest.raises(InputRefused, match=words):
        parse_table(data, where="labels.csv")


def test_T03_dialect_reads_semicolons_and_decimal_commas():
    dialect = Dialect(";", ",")
    table = parse_table(b"id;size\n1;0,5\n", where="t", dialect=dialect)
    assert number(table.rows[0].values["size"], dialect=dialect) == 0.5
    with pytest.raises(InputRefused, match="not a number"):
        number("0,5")


@pytest.mark.parametrize("text", ["1,5", "1 5", "nan", "inf", "1e999", "0x1", "١", "1_0", "5 mm"])
def test_numbers_refuse(text):
    with pytest.raises(InputRefused, match="not a number"):
        number(text)


def test_missing_column_lists_the_known():
    with pytest.raises(InputRefused, match="no column patient.*columns id, label"):
        parse_table(b"id,label\n", where="t", required=("patient",))


def test_T06_suggestion_without_guess():
    with pytest.raises(InputRefused, match="resembles 'malignant'"):
        LabelMap.identity(["benign", "malignant"]).look_up("Malignant ")
    with pytest.raises(InputRefused, match="one of 'benign', 'malignant'"):
        LabelMap.identity(["benign", "malignant"]).look_up("cyst")


def test_T08_grades():
    assert grade("", None) is None
    assert {grade(t, "WHO_ISUP") for t in ("3", "G3", "III")} == {(3, GradeSystem.WHO_ISUP)}
    assert grade("2", "Fuhrman") == (2, GradeSystem.FUHRMAN)
    for text, system in (("5", "WHO_ISUP"), ("2-3", "FUHRMAN"), ("g2", "FUHRMAN"), ("2", "x")):
        with pytest.raises(InputRefused, match="grade"):
            grade(text, system)
    with pytest.raises(InputRefused, match="grade_system"):
        Columns("file", grade="g")


def test_limits_of_the_dialect():
    with pytest.raises(ValueError, match="delimiter"):
        Dialect(":")
    with pytest.raises(ValueError, match="decimal"):
        Dialect(",", ",")


def test_absent_and_special_files(tmp_path):
    with pytest.raises(InputRefused, match="cannot be read") as caught:
        read_table(tmp_path / "absent.csv")
    assert caught.value.reason is Reason.UNREADABLE
    with pytest.raises(InputRefused, match="not a regular file"):
        read_table(tmp_path)
