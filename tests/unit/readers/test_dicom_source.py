"""Does a header for results hold what they need, nothing more, and no damaged file get in?"""

import importlib
import os
import sys
from pathlib import Path

import pydicom
import pytest

from renalkit.errors import InputRefused, Reason
from renalkit.readers.contract import Limits, Outcome, ReadOptions
from renalkit.readers.dicom_source import read_us_header
from renalkit.readers.walk import walk_files

sys.path.insert(0, str(Path(__file__).parents[2] / "corpus"))
corpus = importlib.import_module("make_dicom")
DATA = Path(os.environ.get("RENALKIT_DATA", Path(__file__).parents[4] / "shared" / "data"))
REAL = sorted((DATA / "us_dicom").glob("*.dcm"))
KEPT = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality"),
    *("PatientID", "PatientName", "StudyDate", "Rows", "Columns", "NumberOfFrames"),
)


@pytest.mark.data
@pytest.mark.skipif(not REAL, reason="no real ultrasound DICOM files: set RENALKIT_DATA")
@pytest.mark.parametrize("path", REAL, ids=lambda p: p.stem)
@pytest.mark.filterwarnings("ignore::UserWarning:pydicom.*")
def test_real_headers_are_those_pydicom_reads(path):
    found, whole = read_us_header(path), pydicom.dcmread(path)
    for keyword in KEPT:
        assert found.get(keyword) == whole.get(keyword)
    assert "PixelData" not in found
    assert "InstitutionName" not in found
    assert not [element for element in found if element.tag.is_private]


ROWS = [row for row in corpus.DICOM_ROWS if len(row.expected) == 1]
BEHIND_THE_PIXELS = ("D16-out-of-order",)
WHOLE = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "Rows", "Columns")


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.name)
def test_damaged_files_are_refused_and_usable_ones_read(row, tmp_path):
    """Without a warning or a foreign exception, and without text of the file in the message."""
    row.build(tmp_path)
    (path,) = [p for p in walk_files(tmp_path) if isinstance(p, Path)] or [None]
    if path is None:
        return  # no regular file
    usable = row.expected[0][0] in (Outcome.USED, Outcome.WARNED)
    header, words = None, ""
    try:
        header = read_us_header(path, row.options)
    except InputRefused as refused:
        words = str(refused)
    assert not [text for text in corpus.PLANTED if text in words]
    assert header is not None or not usable
    if header is not None and usable and row.name not in BEHIND_THE_PIXELS:
        assert [keyword for keyword in WHOLE if keyword not in header] == []


def test_nothing_but_named_elements_is_read(tmp_path):
    secret = {0x00080080: ("LO", b"SECRETHOSPITAL"), 0x00290010: ("LO", b"SECRETBLOCK ")}
    (tmp_path / "a.dcm").write_bytes(corpus.part10(corpus.cine(changes=secret)))
    header = read_us_header(tmp_path / "a.dcm")
    assert "SECRET" not in str(header)
    assert header.NumberOfFrames == 4


def test_limits_hold(tmp_path):
    (tmp_path / "a.dcm").write_bytes(corpus.part10(corpus.cine()))
    with pytest.raises(InputRefused) as refused:
        read_us_header(tmp_path / "a.dcm", ReadOptions(limits=Limits(file_bytes=1000)))
    assert refused.value.reason is Reason.TOO_LARGE
