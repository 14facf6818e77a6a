"""Tables of readings and outlines: what is read, and what is refused with its line."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from renalkit.domain.geometry import MaskRLE
from renalkit.domain.readings import Reader, ReadingValue, ScoreScale, by_place
from renalkit.errors import InputRefused, Reason
from renalkit.phantom.patients import PatientPlan, draw_patient
from renalkit.readers.reading_rules import CallWords, ReadingColumns, ReadingRules
from renalkit.readers.readings import parse_readings, read_outlines, read_readings, read_roster
from renalkit.readers.tables import Dialect
from renalkit.usecases.phantom_tables import reading_rows, table_file

PLAIN = "patient,reader,score,vote\nP1,a,10,0\nP1,b,20,0\nP2,a,80,1\nP2,b,,\n"
WHOLE = PLAIN.replace("P2,b,,", "P2,b,90,1")


def parse(text: str, **rules):
    return parse_readings(text.encode(), where="r.csv", rules=ReadingRules(**rules))


def test_a_table_of_scores_and_votes():
    table = parse(WHOLE)
    assert [r.name for r in table.readers] == ["a", "b"]
    assert table.cases == ("P1", "P2")
    assert table.values(ReadingValue.SCORE).tolist() == [[[10, 80], [20, 90]]]
    assert table.values(ReadingValue.VOTE).tolist() == [[[0, 1], [0, 1]]]
    assert table.truth is None


def test_truth_of_the_study_orders_the_cases_and_arms_keep_their_order():
    text = "patient,reader,arm,score\nB,x,without,1\nA,x,without,2\nA,x,with,3\nB,x,with,4\n"
    table = parse(text, truth={"A": True, "B": False})
    assert table.arms == ("without", "with")
    assert table.values(ReadingValue.SCORE)[:, 0].tolist() == [[2, 1], [3, 4]]
    assert table.truths().tolist() == [True, False]


def test_truth_in_a_column():
    text = "patient,reader,vote,truth\nA,x,yes,malignant\nB,x,no,benign\nA,y,yes,malignant\nB,y,yes,benign\n"
    words = CallWords(("yes", "malignant"), ("no", "benign"))
    assert parse(text, words=words).truth == {"A": True, "B": False}
    with pytest.raises(InputRefused, match=r"line 4.*positive and negative \(first on line 2\)"):
        parse(text.replace("A,y,yes,malignant", "A,y,yes,benign"), words=words)
    with pytest.raises(InputRefused, match="line 2.*not in the study"):
        parse(text, words=words, truth={"A": False, "B": False})
    with pytest.raises(InputRefused, match="1 cases without truth"):
        parse(text.replace("benign", ""), words=words)


def test_incomplete_cases_are_kept_only_on_request():
    with pytest.raises(InputRefused, match=r"1 of 4 scores are missing \(P2 by b\)") as caught:
        parse(PLAIN)
    assert caught.value.reason is Reason.BAD_TABLE
    table = parse(PLAIN, incomplete=True)
    assert np.isnan(table.values(ReadingValue.SCORE)).sum() == 1
    assert table.crossed(ReadingValue.VOTE)[1] == ("P2",)


def test_cases_of_the_study_that_nobody_read_are_missing():
    truth = {"P1": False, "P2": True, "P3": True}
    with pytest.raises(InputRefused, match="P3 by a"):
        parse(WHOLE, truth=truth)
    assert parse(WHOLE, truth=truth, incomplete=True).cases == ("P1", "P2", "P3")


@pytest.mark.parametrize(
    ("text", "rules", "words"),
    [
        (
            WHOLE + "P1,a,11,0\n",
            {},
            r"line 6: a second reading of case 'P1' by 'a' \(first on line 2\)",
        ),
        (WHOLE, {"truth": {"P1": False}}, "line 4: case 'P2' is not one of the study"),
        (WHOLE, {"readers": (Reader("a"),)}, "line 3: reader 'b' is not one of the study"),
        (WHOLE, {"scale": ScoreScale(0, 50)}, "line 4: score 80 is not on the scale.*0 to 50"),
        (WHOLE, {"scale": ScoreScale(0, 100, 20)}, "line 2: score 10 .*in steps of 20"),
        (WHOLE.replace("80,1", "80,maybe"), {}, "line 4: the call 'maybe'.*1/true/yes/positive"),
        (WHOLE.replace("80,1", "high,1"), {}, "line 4: a cell that is not a number"),
        (WHOLE.replace("80,1", "nan,1"), {}, "line 4: a cell that is not a number"),
        (WHOLE.replace("P2,a", "P2,"), {}, "line 4: a reader without a name"),
        (WHOLE.replace("P2,a", ",a"), {}, "line 4: a reading without a case"),
        ("patient,reader\nP1,a\n", {}, "neither a column 'score' nor 'vote'"),
        ("reader,score\na,1\n", {}, "no column patient"),
        ("patient,reader,score\nP1,a,\n", {}, "no reading"),
        ("patient,reader,score\n", {}, "no reading"),
        (
            "patient,reader,group,vote\nA,x,junior,1\nB,x,senior,1\n",
            {},
            "group senior here and junior before",
        ),
        ("patient,reader,years,vote\nA,x,5.5,1\n", {}, "5.5 years of experience"),
    ],
)
def test_refusals_name_the_line(text: str, rules: dict[str, object], words: str):
    with pytest.raises(InputRefused, match=words):
        parse(text, **rules)


def test_columns_words_and_dialect_are_chosen_by_the_caller():
    columns = ReadingColumns(case="case", score="confidence", vote="malignant?")
    text = "case;reader;confidence;malignant?\n1;a;4,5;ja\n2;a;1;nein\n"
    table = parse(
        text,
        columns=columns,
        words=CallWords(("ja",), ("nein",)),
        scale=ScoreScale(1, 5),
        dialect=Dialect(";", ","),
    )
    assert table.values(ReadingValue.SCORE).tolist() == [[[4.5, 1]]]
    assert table.values(ReadingValue.VOTE).tolist() == [[[1, 0]]]


def test_a_column_that_is_named_must_be_there():
    with pytest.raises(InputRefused, match="no column confidnce"):
        parse(WHOLE, columns=ReadingColumns(score="confidnce"))


def test_a_group_given_on_any_line_counts():
    text = "patient,reader,group,years,vote\nA,x,,,1\nB,x,junior,,1\nC,x,,4,0\n"
    assert parse(text).readers == (Reader("x", "junior", 4),)


def test_roster_gives_groups_to_readings_without_them(tmp_path):
    (tmp_path / "readers.csv").write_text("reader,group,years\na,junior,5\nb,senior,12\n")
    roster = read_roster(tmp_path / "readers.csv")
    assert roster == (Reader("a", "junior", 5), Reader("b", "senior", 12))
    assert parse(WHOLE, readers=roster).of_group("senior").readers == (roster[1],)
    (tmp_path / "readers.csv").write_text("reader,group\na,junior\na,senior\n")
    with pytest.raises(InputRefused, match="line 3: reader 'a' stands twice"):
        read_roster(tmp_path / "readers.csv")


def test_the_file_decides_by_its_ending(tmp_path):
    (tmp_path / "r.csv").write_text(WHOLE)
    assert read_readings(tmp_path / "r.csv").cases == ("P1", "P2")
    with pytest.raises(InputRefused, match=r"ending in '.txt'"):
        read_readings(tmp_path / "r.txt")
    with pytest.raises(InputRefused, match="cannot be read"):
        read_readings(tmp_path / "absent.csv")


def test_readings_of_simulated_patients_are_read_as_they_are_written(tmp_path):
    """readings.csv beside a phantom cohort needs no settings."""
    truth: dict[str, bool] = {}
    with table_file(tmp_path / "readings.csv") as add:
        for index in range(12):
            patient = draw_patient(PatientPlan(n_patients=12, seed=3), index)
            if patient.positive is not None:
                truth[patient.name] = patient.positive
            record = {"copies": [patient.name], "readings": [asdict(r) for r in patient.readings]}
            for row in reading_rows(record):
                add(row)
    plain = read_readings(tmp_path / "readings.csv")
    assert (len(plain.readers), plain.groups) == (6, ("junior", "senior"))
    assert plain.values(ReadingValue.VOTE).shape == (1, 6, len(truth))
    strict = ReadingRules(truth=truth, scale=ScoreScale(0, 100, 1))
    table = read_readings(tmp_path / "readings.csv", strict)
    assert not np.isnan(table.values(ReadingValue.SCORE)).any()
    graded = ReadingRules(columns=ReadingColumns(score="confidence"), scale=ScoreScale(1, 5, 1))
    assert read_readings(tmp_path / "readings.csv", graded).values(ReadingValue.SCORE).max() <= 5


MASK = MaskRLE.encode(np.eye(4)).text
OUTLINES = (
    "reader,group,file,frame,x,y,width,height,lesion,mask\n"
    f"a,junior,f.dcm,0,0,0,4,4,1,{MASK}\n"
    "b,senior,f.dcm,0,1,0,3,4,1,\n"
)


def outlines(tmp_path, text: str = OUTLINES, **options):
    (tmp_path / "o.csv").write_text(text)
    return read_outlines(tmp_path / "o.csv", **options)


def test_outlines_with_masks_and_boxes(tmp_path):
    found, readers = outlines(tmp_path, patients={"f.dcm": "P1"})
    assert [r.group for r in readers] == ["junior", "senior"]
    assert found[0].mask == MaskRLE.parse(MASK)
    assert (found[1].mask, found[1].box.width, found[1].patient) == (None, 3, "P1")
    assert set(by_place(found)[("f.dcm", 0, "1")]) == {"a", "b"}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("b,senior", "a,junior", "line 3: a second outline of this lesion by 'a'"),
        ("1,0,3,4,1", "1,0,0,4,1", "line 3: box .* is empty"),
        ("1,0,3,4,1", "-1,0,3,4,1", "line 3: x '-1'"),
        ("1,0,3,4,1", ",0,3,4,1", "line 3: x ''"),
        ("1,0,3,4,1", "1.5,0,3,4,1", "line 3: x '1.5'"),
        (MASK, "4x4:9", "line 2: mask runs cover 9"),
        ("b,senior", "b,", None),
    ],
)
def test_outlines_that_are_refused(tmp_path, old: str, new: str, words: str | None):
    text = OUTLINES.replace(old, new)
    if words is None:
        assert len(outlines(tmp_path, text)[0]) == 2
        return
    with pytest.raises(InputRefused, match=words):
        outlines(tmp_path, text)


def test_outlines_of_strangers_are_refused(tmp_path):
    with pytest.raises(InputRefused, match="no known patient"):
        outlines(tmp_path, patients={"other.dcm": "P1"})
    with pytest.raises(InputRefused, match="'b' is not one of the study"):
        outlines(tmp_path, readers=(Reader("a"),))
