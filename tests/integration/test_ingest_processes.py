"""Studies read by several processes: the same bytes, nothing lost, nobody left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate

from renalkit.errors import Exit, StoreError
from renalkit.usecases.ingest import IngestReport, request_of, run_ingest

sys.path.insert(0, str(Path(__file__).parent))
from sessions import LIMIT_S, ended, start, until, workers

PATIENTS = 6


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cines of 30 frames of six patients; of a seventh one whose frames are no pictures."""
    root = tmp_path_factory.mktemp("processes") / "in"
    root.mkdir()
    rows = ["patient,label"]
    data = pydicom.dcmread(str(get_testdata_file("examples_ybr_color.dcm")))
    for n in range(PATIENTS + 1):
        data.PatientID, data.PatientName = f"P{n:03d}", "N"
        data.StudyInstanceUID = f"1.2.826.0.1.{n + 1}"
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.2.{n + 1}"
        rows.append(f"P{n:03d},{('benign', 'malignant')[n % 2]}")
        if n == PATIENTS:
            data.PixelData = encapsulate([b"\xff\xd8 no picture"] * int(data.NumberOfFrames))
        data.save_as(root / f"cine{n}.dcm")
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("safe") / "project.key"


def tree(folder: Path) -> dict[str, bytes]:
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != ".lock")
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def take(source: Path, output: Path, key: Path, workers: int) -> IngestReport:
    options = {"key_file": key, "workers": workers, "keep_pixels": True}
    return run_ingest(request_of(source=source, output=output, **options))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def alone(source: Path, key: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes."""
    output = tmp_path_factory.mktemp("alone") / "cohort"
    take(source, output, key, 1)
    return output


def links(output: Path) -> bytes:
    return (output.parent / f"{output.name}.keys" / "links.csv").read_bytes()


def test_the_bytes_are_the_same_for_any_number_of_processes(
    source: Path, key: Path, alone: Path, tmp_path: Path
) -> None:
    output = tmp_path / "cohort"
    report = take(source, output, key, 3)
    assert tree(output) == tree(alone)
    assert links(output) == links(alone)
    assert report.recalled == 0, "nothing is of an earlier run"
    assert report.refused == 1
    again = take(source, output, key, 3)
    assert again.recalled == PATIENTS + 1
    assert again.account == report.account


def test_a_disk_that_refuses_one_process_ends_the_import_with_its_reason(
    source: Path, key: Path, tmp_path: Path
) -> None:
    output = tmp_path / "cohort"
    output.mkdir()
    (output / ".lock").touch()
    (output / "pixels").write_bytes(b"in the way")
    with pytest.raises(StoreError, match="pixels"):
        take(source, output, key, 2)
    (output / "pixels").unlink()
    assert take(source, output, key, 1).refused == 1


def begin(source: Path, output: Path, key: Path) -> subprocess.Popen[str]:
    """The import by two processes."""
    words = ["ingest", str(source), "-o", str(output), "--key-file", str(key), "--keep-pixels"]
    return start([*words, "--workers", "2"])


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_X01_stopped_while_processes_read_it_goes_on(
    source: Path, key: Path, alone: Path, tmp_path: Path, how: signal.Signals
) -> None:
    output = tmp_path / "cohort"
    staged = tmp_path / "cohort.keys" / "staged"
    process = begin(source, output, key)
    until(lambda: any(staged.glob("[!.]*.json")), process)
    assert len(workers(process.pid)) == 2, "it was over before it was stopped"
    os.kill(process.pid, how)
    _, said = process.communicate(timeout=LIMIT_S)
    if how is signal.SIGINT:
        assert process.returncode == Exit.INTERRUPTED, said
        assert "Traceback" not in said
    ended(process.pid)
    finished = len(list(staged.glob("[!.]*.json")))
    report = take(source, output, key, 1)
    assert report.recalled == finished >= 1
    assert tree(output) == tree(alone)


def test_a_process_that_is_killed_is_said_and_the_import_goes_on_later(
    source: Path, key: Path, alone: Path, tmp_path: Path
) -> None:
    output = tmp_path / "cohort"
    process = begin(source, output, key)
    until(lambda: any((tmp_path / "cohort.keys" / "staged").glob("[!.]*.json")), process)
    os.kill(workers(process.pid)[0], signal.SIGKILL)
    _, said = process.communicate(timeout=LIMIT_S)
    assert process.returncode == Exit.STORE
    assert "fewer --workers" in said
    ended(process.pid)
    take(source, output, key, 1)
    assert tree(output) == tree(alone)
