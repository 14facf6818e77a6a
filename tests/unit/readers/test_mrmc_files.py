"""iMRMC text and RJafroc workbooks: what is read, and what is refused."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from openpyxl import Workbook

from renalkit.domain.readings import Reader, ReadingValue, ScoreScale
from renalkit.errors import InputRefused, Reason
from renalkit.readers.mrmc_files import parse_imrmc, parse_rjafroc
from renalkit.readers.reading_rules import ReadingRules
from renalkit.readers.readings import read_readings

IMRMC = """Made by hand

NR: 2
N0:1
N1: 2
NM: 2
BEGIN DATA:
-1,case 1,truth,0
-1,case 2,0,1
-1,case 3,0,1
a,case 1,A,1
a,case 2,A,2.5
a,case 3,A,-3
b,case 1,A,1
b,case 2,A,2
b,case 3,A,3
a,case 1,B,1
a,case 2,B,2
a,case 3,B,3
b,case 1,B,1
b,case 2,B,2
b,case 3,B,4e-1
"""


def imrmc(text: str = IMRMC, **rules):
    return parse_imrmc(text.encode(), where="s.imrmc", rules=ReadingRules(**rules))


def test_imrmc_text():
    table = imrmc()
    assert table.truth == {"case 1": False, "case 2": True, "case 3": True}
    assert table.arms == ("A", "B")
    assert table.values(ReadingValue.SCORE)[:, :, 2].tolist() == [[-3, 3], [3, 0.4]]
    assert not table.has(ReadingValue.VOTE)
    grouped = imrmc(readers=(Reader("a", "junior"), Reader("b", "senior")))
    assert grouped.groups == ("junior", "senior")


def test_imrmc_with_other_line_ends_and_without_sizes():
    short = IMRMC[IMRMC.index("BEGIN") :].replace("-1,", "truth,").replace("\n", "\r\n")
    assert imrmc(short).truth == imrmc().truth


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("BEGIN DATA:", "BEGIN DATA", "no line BEGIN DATA:"),
        ("N1: 2", "N1: 3", "line 5: N1 is '3', the data have 2"),
        ("NR: 2", "NR: two", "line 3: NR is 'two'"),
        ("-1,case 1,truth,0\n", "", "1 cases without truth .case 1."),
        ("-1,case 1,truth,0\n", "-1,case 1,truth,2\n", "line 8: the call '2'"),
        (
            "-1,case 2,0,1\n",
            "-1,case 2,0,1\n-1,case 2,0,0\n",
            "line 10: case 'case 2' is positive and negative",
        ),
        ("a,case 2,A,2.5", "a,case 2,A,2.5,9", "line 12: 5 cells"),
        ("a,case 2,A,2.5", "a,case 2,,2.5", "line 12: 4 cells, or an empty one"),
        ("a,case 2,A,2.5", "a;case 2;A;2.5", "line 12: 1 cells"),
        ("a,case 2,A,2.5", "a,case 2,A,x", "line 12: a cell that is not a number"),
        ("a,case 2,A,2.5", "a,case 1,A,2.5", r"line 12: a second reading .*first on line 11"),
        ("b,case 2,B,2\n", "", r"1 of 12 scores are missing .case 2 by b in B."),
    ],
)
def test_imrmc_refusals(old: str, new: str, words: str):
    with pytest.raises(InputRefused, match=words):
        imrmc(IMRMC.replace(old, new))


def test_imrmc_keeps_a_study_with_holes_on_request():
    table = imrmc(IMRMC.replace("b,case 2,B,2\n", ""), incomplete=True)
    assert table.crossed(ReadingValue.SCORE)[1] == ("case 2",)


def test_imrmc_that_is_not_text():
    with pytest.raises(InputRefused, match="not UTF-8"):
        parse_imrmc(b"\xff\xfe\x00", where="s.imrmc")


TRUTH = [
    [1, 0, 0, "a, b", "A", "ROC"],
    [2, 1, 1, "a, b", "A", "FCTRL"],
    [5, 1, 1, "a, b", "A", None],
]
FP = [["a", "A", 1, 2], ["b", "A", 1, 1]]
TP = [["a", "A", 2, 1, 5], ["a", "A", 5, 1, 4.5], ["b", "A", 2, 1, 3], ["b", "A", 5, 1, 4]]


def workbook(truth=None, fp=None, tp=None, old: bool = False, heads=("FP", "TP")) -> bytes:
    book = Workbook()
    book.remove(book.active)
    six = ["CaseID", "LesionID", "Weight", "ReaderID", "ModalityID", "Paradigm"]
    sheets = {
        heads[1]: (
            ["ReaderID", "ModalityID", "CaseID", "LesionID", f"{heads[1]}_Rating"],
            tp or TP,
        ),
        heads[0]: (["ReaderID", "ModalityID", "CaseID", f"{heads[0]}_Rating"], fp or FP),
        "TRUTH": (six, truth or TRUTH),
    }
    for name, (head, rows) in sheets.items():
        sheet = book.create_sheet(name)
        cut = 3 if old and name == "TRUTH" else None
        for row in [head, *rows]:
            sheet.append(row[:cut])
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def rjafroc(data: bytes, **rules):
    return parse_rjafroc(data, where="s.xlsx", rules=ReadingRules(**rules))


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("heads", [("FP", "TP"), ("NL", "LL")])
def test_rjafroc_workbook(old: bool, heads: tuple[str, str]):
    table = rjafroc(workbook(old=old, heads=heads))
    assert table.truth == {"1": False, "2": True, "5": True}
    assert table.arms == ("A",)
    scores = table.values(ReadingValue.SCORE)[0]
    assert {r.name: scores[i].tolist() for i, r in enumerate(table.readers)} == {
        "a": [2, 5, 4.5],
        "b": [1, 3, 4],
    }


def test_rjafroc_by_its_ending(tmp_path):
    (tmp_path / "s.xlsx").write_bytes(workbook())
    assert read_readings(tmp_path / "s.xlsx").cases == ("1", "2", "5")


def changed(rows: list[list[object]], row: int, column: int, value: object) -> list[list[object]]:
    copy = [list(r) for r in rows]
    copy[row][column] = value
    return copy


@pytest.mark.parametrize(
    ("sheets", "words"),
    [
        ({"truth": changed(TRUTH, 1, 1, 2)}, "sheet TRUTH, line 3: lesion '2'"),
        ({"truth": changed(TRUTH, 0, 5, "FROC")}, "paradigm 'froc fctrl'"),
        ({"truth": changed(TRUTH, 1, 5, "SPLIT-PLOT-A")}, "paradigm 'roc split-plot-a'"),
        ({"truth": changed(TRUTH, 1, 0, None)}, "sheet TRUTH, line 3: an empty cell"),
        ({"fp": changed(FP, 0, 2, 2)}, "sheet FP/NL, line 2: case '2' is not free of disease"),
        ({"tp": changed(TP, 3, 2, 1)}, "sheet TP/LL, line 5: case '1' is not diseased"),
        ({"tp": changed(TP, 0, 4, "high")}, "line 2: a cell that is not a number"),
        ({"tp": [*TP, TP[0]]}, r"sheet TP/LL, line 6: a second reading of case '2' by 'a'"),
        ({"tp": TP[:-1]}, r"1 of 6 scores are missing \(5 by b in A\)"),
        ({"fp": [["a", "A", 9, 2], *FP]}, "case '9' is not free of disease"),
    ],
)
def test_rjafroc_refusals(sheets, words: str):
    with pytest.raises(InputRefused, match=words):
        rjafroc(workbook(**sheets))


def test_rjafroc_scale_and_readers_are_checked():
    with pytest.raises(InputRefused, match=r"score 4.5 is not on the scale.*1 to 5 in steps of 1"):
        rjafroc(workbook(), scale=ScoreScale(1, 5, 1))
    with pytest.raises(InputRefused, match="'b' is not one of the study"):
        rjafroc(workbook(), readers=(Reader("a"),))


def test_a_workbook_without_its_sheets_or_columns():
    book = Workbook()
    out = io.BytesIO()
    book.save(out)
    with pytest.raises(InputRefused, match="sheet TRUTH: no such sheet"):
        rjafroc(out.getvalue())
    with pytest.raises(InputRefused, match="no such sheet"):
        rjafroc(workbook(heads=("FP", "Other")))


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"CaseID,LesionID\n", workbook()[:500]])
def test_what_is_no_workbook(data: bytes):
    with pytest.raises(InputRefused) as caught:
        rjafroc(data)
    assert caught.value.reason is Reason.FORMAT_REFUSED


def test_damaged_workbooks_are_refused_and_never_crash():
    whole, rng = workbook(), np.random.default_rng(0)
    want = [(r.case, r.reader, r.score) for r in rjafroc(whole).readings]
    refused = 0
    for _ in range(60):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), 3):
            data[place] ^= int(rng.integers(1, 256))
        try:
            assert [(r.case, r.reader, r.score) for r in rjafroc(bytes(data)).readings] == want
        except InputRefused:
            refused += 1
    assert refused > 20


def repacked(part: str, content: bytes) -> bytes:
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(workbook())) as old,
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, content if name == part else old.read(name))
    return out.getvalue()


def test_bombs_and_entities_are_refused_before_they_are_read():
    with pytest.raises(InputRefused) as caught:
        rjafroc(repacked("xl/styles.xml", b" " * (70 << 20)))
    assert caught.value.reason is Reason.TOO_LARGE
    entity = b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "b">]><a>&b;</a>'
    with pytest.raises(InputRefused, match="document type"):
        rjafroc(repacked("xl/workbook.xml", entity))
