"""Tables of phantom cohorts: written row by row, there whole or not at all."""

import csv

import pytest

from renalkit.domain.geometry import Box
from renalkit.readers.annotation_files import read_box_table
from renalkit.usecases.phantom_tables import box_row, join_tables, renamed, table_file


def test_rows_are_written_one_by_one(tmp_path):
    with table_file(tmp_path / "t.csv") as add:
        add({"a": 1, "b": None, "c": (1, 2)})
        assert not (tmp_path / "t.csv").exists()
        add({"a": "x, y", "b": True, "c": ()})
    with (tmp_path / "t.csv").open(newline="") as text:
        assert list(csv.reader(text)) == [["a", "b", "c"], ["1", "", "1 2"], ["x, y", "True", ""]]


def test_rows_of_other_keys_are_an_error_and_leave_nothing(tmp_path):
    with pytest.raises(ValueError, match="fields not in"), table_file(tmp_path / "t.csv") as add:
        [add(row) for row in ({"a": 1}, {"b": 1})]
    assert list(tmp_path.iterdir()) == []


def test_without_rows_there_is_no_table(tmp_path):
    with table_file(tmp_path / "t.csv"):
        pass
    join_tables([tmp_path / "t.csv"], tmp_path / "whole.csv")
    assert list(tmp_path.iterdir()) == []


def test_tables_are_joined_under_one_head(tmp_path):
    for name, rows in (("1", [1, 2]), ("3", [3])):
        with table_file(tmp_path / name) as add:
            for row in rows:
                add({"a": row, "b": 0})
    join_tables([tmp_path / "1", tmp_path / "2", tmp_path / "3"], tmp_path / "whole.csv")
    assert (tmp_path / "whole.csv").read_text() == "a,b\n1,0\n2,0\n3,0\n"


def test_boxes_are_read_back_by_ingest(tmp_path):
    with table_file(tmp_path / "boxes.csv") as add:
        add(box_row("dicom/P0001/ceus.dcm", 3, Box(5, 6, 7, 8)))
    (found,) = read_box_table((tmp_path / "boxes.csv").read_bytes(), file="boxes.csv")
    assert (found.file, found.frame, found.lesion) == ("dicom/P0001/ceus.dcm", 3, "1")
    assert found.box == Box(5, 6, 7, 8)


@pytest.mark.parametrize("file", ["dicom/{}/ceus.dcm", "images/{}_1.png", "masks/{}_2.png"])
def test_files_of_a_copy_have_its_name(file):
    assert renamed(file.format("P0001"), "P0001", "P0001B") == file.format("P0001B")
