"""Every D row ends as it must: outcome, reason, time, memory, no foreign exception, no leak."""

import importlib
import os
import resource
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from renalkit.readers.contract import FileReport, Outcome, ReadOptions
from renalkit.readers.decode_worker import DecodeWorker
from renalkit.readers.dicom_us import read_dicom_us
from renalkit.readers.pseudonyms import Pseudonyms
from renalkit.readers.walk import walk_files

sys.path.insert(0, str(Path(__file__).parents[2] / "corpus"))
corpus = importlib.import_module("make_dicom")
ROWS = corpus.DICOM_ROWS


@pytest.fixture(scope="module")
def worker():
    with DecodeWorker() as one:
        yield one


def ingest(folder, worker, options=None, patient=None):
    found = list(walk_files(folder))
    reports = [f for f in found if isinstance(f, FileReport)]
    files = [f for f in found if isinstance(f, Path)]
    studies = []
    patient_of = None if patient is None else lambda path: patient
    for result in read_dicom_us(
        files,
        folder,
        Pseudonyms(b"k" * 32),
        options or ReadOptions(),
        worker,
        patient_of=patient_of,
    ):
        reports.extend(result.files)
        if result.study is not None:
            studies.append(result.study)
    return studies, sorted(reports, key=lambda r: os.fsencode(r.path))


def test_corpus_has_all_its_rows():
    ids = {r.id for r in ROWS}
    numbers = [*range(28), *range(30, 46), 47, 48, *range(50, 64)]  # D46 is the codec fuzz
    assert ids == {f"D{n:02d}" for n in numbers}
    assert len(ROWS) == 200
    assert len({r.name for r in ROWS}) == len(ROWS)


def test_corpus_is_deterministic(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for one in ROWS[::9]:
            folder = tmp_path / name / one.name
            folder.mkdir()
            one.build(folder)
    left = {p.relative_to(tmp_path / "a"): p for p in (tmp_path / "a").rglob("*.dcm")}
    assert len(left) > 15
    for relative, path in left.items():
        assert path.read_bytes() == (tmp_path / "b" / relative).read_bytes()


@pytest.mark.parametrize("one", ROWS, ids=lambda r: r.name)
def test_row(one, tmp_path, worker):
    one.build(tmp_path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    deaths, start = worker.deaths, (time.process_time(), time.monotonic())
    studies, reports = ingest(tmp_path, worker, one.options, one.patient)
    # Ten seconds of work per file; the wall may take longer where other jobs run.
    assert time.process_time() - start[0] < 10
    assert time.monotonic() - start[1] < 60
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 512 << 10
    assert worker.deaths == deaths

    assert len(reports) == len(one.expected)
    for report, (outcome, reason) in zip(reports, one.expected, strict=True):
        reasons = [d.reason for d in report.reasons]
        assert (report.outcome, reasons) == (outcome, reasons if reason else [])
        assert reason is None or reason in reasons
        assert len(set(reasons)) == len(reasons)
    used = sum(o in (Outcome.USED, Outcome.WARNED) for o, _ in one.expected)
    assert sum(len(s.clips) for s in studies) == used

    words = [d.words for r in reports for d in r.reasons]
    for text in [*words, *(repr(s) for s in studies), *(repr(r.reasons) for r in reports)]:
        assert text.isprintable()
        assert not any(planted in text for planted in corpus.PLANTED)
        assert str(tmp_path) not in text


@pytest.mark.parametrize(
    "one", [r for r in ROWS if r.id in ("D16", "D22", "D48", "D60")], ids=lambda r: r.name
)
def test_row_twice_is_the_same(one, tmp_path, worker):
    """V8: reading again gives the same verdict and equal studies."""
    one.build(tmp_path)
    first, again = (ingest(tmp_path, worker, one.options, one.patient) for _ in range(2))
    assert first == again


def test_one_bad_file_among_good_ones(tmp_path, worker):
    """V7: all the others are used, in one study or many."""
    good = corpus.part10(corpus.still())
    for number in range(30):
        changes = {0x00080018: corpus.uid(f"1.2.3.{number + 1}")}
        changes[0x00100020] = corpus.cs(f"P{number % 7 + 10}", "LO")
        (tmp_path / f"{number:03d}.dcm").write_bytes(corpus.part10(corpus.still(changes)))
    (tmp_path / "007x.dcm").write_bytes(good[:500])
    studies, reports = ingest(tmp_path, worker)
    assert Counter(r.outcome for r in reports) == {Outcome.USED: 30, Outcome.REFUSED: 1}
    assert len(studies) == 7
    assert sum(len(s.clips) for s in studies) == 30


def test_no_file_is_written(tmp_path, worker):
    """V3, V6: hostile UIDs create nothing anywhere near, and no link is followed out."""
    for one in (r for r in ROWS if r.id in ("D20", "D21", "D24")):
        (tmp_path / one.name).mkdir()
        one.build(tmp_path / one.name)
    before = sorted(tmp_path.rglob("*"))
    ingest(tmp_path, worker)
    assert sorted(tmp_path.rglob("*")) == before
    assert not Path("/tmp/pwn").exists()
