"""Readings that leave and come back are the same; what a format cannot hold is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renalkit.domain.readings import Reader, Reading, ReadingTable
from renalkit.errors import InputRefused
from renalkit.readers.mrmc_files import parse_imrmc, parse_rjafroc
from renalkit.readers.reading_rules import ReadingRules
from renalkit.readers.readings import parse_readings, read_readings
from renalkit.readers.tables import read_table
from renalkit.writers.readings import (
    imrmc_text,
    readings_csv,
    rjafroc_workbook,
    write_imrmc,
    write_readings_csv,
    write_rjafroc,
)

NAMES = st.text("abcXYZ019._é", min_size=1, max_size=6)
SCORES = st.one_of(st.integers(-5, 100), st.floats(-1e6, 1e6)).map(float)


@st.composite
def studies(draw: st.DrawFn) -> ReadingTable:
    """Fully crossed studies with scores, votes and truth."""
    readers = draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
    cases = draw(st.lists(NAMES, min_size=2, max_size=5, unique=True))
    arms = draw(st.lists(NAMES, min_size=1, max_size=2, unique=True))
    return ReadingTable(
        tuple(Reader(r, draw(st.sampled_from(["junior", "senior"])), draw(st.sampled_from([None, 7]))) for r in readers),
        tuple(cases),
        tuple(
            Reading(c, r, a, draw(SCORES), draw(st.booleans()))
            for a in arms
            for r in readers
            for c in cases
        ),
        {c: i % 2 == 1 for i, c in enumerate(cases)},
    )  # fmt: skip


def scores(table: ReadingTable) -> dict[tuple[str, str, str], float | None]:
    return {(r.case, r.reader, r.arm): r.score for r in table.readings}


@given(studies())
@settings(max_examples=60)
def test_csv_comes_back_as_it_left(study: ReadingTable):
    assert parse_readings(readings_csv(study).encode(), where="x") == study


@given(studies())
@settings(max_examples=60)
def test_imrmc_comes_back_with_scores_and_truth(study: ReadingTable):
    text = imrmc_text(study, "any\ntitle")
    back = parse_imrmc(text.encode(), where="x", rules=ReadingRules(readers=study.readers))
    assert back == replace(study, readings=tuple(replace(r, vote=None) for r in study.readings))


@given(studies())
@settings(max_examples=15)
def test_rjafroc_comes_back_with_scores_and_truth(study: ReadingTable):
    content, numbers = rjafroc_workbook(study)
    back = parse_rjafroc(content, where="x", rules=ReadingRules(readers=study.readers))
    cases = {str(n): case for case, n in numbers.items()}
    found = {(cases[c], r, a): s for (c, r, a), s in scores(back).items()}
    assert found == pytest.approx(scores(study), rel=1e-14)
    assert back.truth is not None
    assert {cases[c]: t for c, t in back.truth.items()} == study.truth
    assert back.readers == study.readers
    assert sorted(numbers.values()) == list(range(1, len(numbers) + 1))
    assert rjafroc_workbook(study)[0] == content


STUDY = ReadingTable(
    (Reader("a"), Reader("b")),
    ("P2", "P1"),
    tuple(Reading(c, r, "", 10.0 * (c == "P2") + (r == "b")) for r in "ab" for c in ("P2", "P1")),
    {"P2": True, "P1": False},
)


def test_files_and_the_key_of_the_cases(tmp_path):
    write_imrmc(STUDY, tmp_path / "s.imrmc")
    assert read_readings(tmp_path / "s.imrmc").arms == ("1",)
    write_readings_csv(STUDY, tmp_path / "s.csv")
    assert read_readings(tmp_path / "s.csv") == STUDY
    key = write_rjafroc(STUDY, tmp_path / "s.xlsx")
    rows = [dict(r.values) for r in read_table(key).rows]
    assert rows == [{"case": "1", "patient": "P1"}, {"case": "2", "patient": "P2"}]
    assert read_readings(tmp_path / "s.xlsx").truth == {"1": False, "2": True}


def renamed(reader: str = "a", case: str = "P1") -> ReadingTable:
    readings = tuple(
        replace(r, reader=reader if r.reader == "a" else r.reader, case=case if r.case == "P1" else r.case)
        for r in STUDY.readings
    )  # fmt: skip
    return replace(
        STUDY,
        readers=(Reader(reader), Reader("b")),
        cases=("P2", case),
        readings=readings,
        truth={"P2": True, case: False},
    )


VOTES = replace(STUDY, readings=tuple(Reading(r.case, r.reader, vote=True) for r in STUDY.readings))


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (replace(STUDY, truth=None), "readings without truth"),
        (VOTES, "votes without scores"),
        (renamed(reader="a,c"), "the name 'a,c'.*no commas"),
    ],
)
def test_what_neither_program_takes(table: ReadingTable, words: str):
    for export in (imrmc_text, rjafroc_workbook):
        with pytest.raises(InputRefused, match=words):
            export(table)


def test_what_imrmc_does_not_take():
    with pytest.raises(InputRefused, match="reader called -1 or truth"):
        imrmc_text(renamed(reader="-1"))
    with pytest.raises(InputRefused, match="'P,1'"):
        imrmc_text(renamed(case="P,1"))
    with pytest.raises(InputRefused, match=r"ending in .imrmc"):
        write_imrmc(STUDY, Path("s.txt"))


def test_imrmc_takes_a_study_with_holes_and_rjafroc_does_not():
    some = replace(STUDY, readings=STUDY.readings[:-1])
    back = parse_imrmc(imrmc_text(some).encode(), where="x", rules=ReadingRules(incomplete=True))
    assert len(back.readings) == 3
    with pytest.raises(InputRefused, match="1 scores are missing, the first of case 'P1' by 'b'"):
        rjafroc_workbook(some)


def test_what_rjafroc_does_not_take():
    assert rjafroc_workbook(renamed(case="P 1"))[1] == {"P 1": 1, "P2": 2}
    with pytest.raises(InputRefused, match="'Dr A'.*no commas or spaces"):
        rjafroc_workbook(renamed(reader="Dr A"))
    with pytest.raises(InputRefused, match="one class only"):
        rjafroc_workbook(replace(STUDY, truth={"P1": True, "P2": True}))
