"""What becomes of every row of the bad-input corpus? Prints rows x outcome.

A crash is a dead parent or an exception that is not renalkit's own; a silent accept is a row that
must be refused and is used. Run: python benchmarks/corpus_table.py [--json]
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from types import ModuleType
from typing import Any

from renalkit.errors import InputRefused
from renalkit.readers.contract import FileReport, Limits
from renalkit.readers.decode_worker import DecodeWorker
from renalkit.readers.dicom_us import read_dicom_us
from renalkit.readers.pseudonyms import Pseudonyms
from renalkit.readers.stills import decode_options
from renalkit.readers.walk import walk_files

TESTS = Path(__file__).resolve().parents[1] / "tests"


def load(path: Path) -> ModuleType:
    """A module of the tests by its file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def dicom(row: Any, folder: Path, worker: DecodeWorker) -> tuple[list[str], list[str]]:
    """(outcomes found, outcomes that must be), file by file."""
    row.build(folder)
    found = list(walk_files(folder))
    reports = [f for f in found if isinstance(f, FileReport)]
    files = [f for f in found if isinstance(f, Path)]
    who = None if row.patient is None else lambda _: row.patient
    keys = Pseudonyms(b"k" * 32)
    for result in read_dicom_us(files, folder, keys, row.options, worker, patient_of=who):
        reports += result.files
    reports.sort(key=lambda r: os.fsencode(r.path))
    return [r.outcome.value for r in reports], [o.value for o, _ in row.expected]


def picture(row: Any, folder: Path, worker: DecodeWorker) -> tuple[list[str], list[str]]:
    """A still or a video through the worker."""
    path = row.build(folder)
    task = "video" if row.id.startswith("Vd") else "still"
    try:
        info = worker.run(task, path, decode_options(Limits())).info
    except InputRefused:
        return ["refused"], [row.outcome]
    return ["used-with-warning" if info.get("warnings") else "used"], [row.outcome]


def main() -> int:
    """Run the whole corpus; exit 1 on a crash or a silent accept."""
    sys.path.insert(0, str(TESTS / "corpus"))
    images = load(TESTS / "corpus/make_images.py")
    tables = load(TESTS / "unit/readers/test_tables.py")
    rows = [(r, dicom) for r in load(TESTS / "corpus/make_dicom.py").DICOM_ROWS]
    rows += [(r, picture) for r in (*images.IMAGE_ROWS, *images.VIDEO_ROWS)]
    rows += [
        (r, lambda row, folder, worker: ([tables._verdict(row, folder, worker)[0]], [row.outcome]))
        for r in tables.ROWS
    ]
    outcomes: dict[str, Counter[str]] = defaultdict(Counter)
    crashes: list[str] = []
    silent: list[str] = []
    with DecodeWorker() as worker:
        for row, run in rows:
            group = re.match(r"[A-Za-z]+", row.id)
            assert group is not None
            with tempfile.TemporaryDirectory() as name:
                try:
                    found, wanted = run(row, Path(name), worker)
                except Exception as error:
                    crashes.append(f"{row.name}: {type(error).__name__}")
                    continue
            for one, must in zip(found, wanted, strict=True):
                outcomes[row.id][one] += 1
                if must == "refused" and one != "refused":
                    silent.append(row.name)
        deaths = worker.deaths
    result = {
        "rows": len(rows),
        "outcomes": {k: dict(v) for k, v in sorted(outcomes.items(), key=lambda i: _order(i[0]))},
        "crashes": crashes,
        "silent_accepts": silent,
        "worker_deaths": deaths,
    }
    if "--json" in sys.argv:
        print(json.dumps(result, indent=2))
    else:
        names = ("used", "used-with-warning", "refused", "skipped")
        print(f"{'row':6}" + "".join(f"{n:>20}" for n in names))
        for key, counts in result["outcomes"].items():
            print(f"{key:6}" + "".join(f"{counts.get(n, 0) or '':>20}" for n in names))
        print(
            f"\n{len(rows)} variants, {len(crashes)} crashes of the parent, "
            f"{len(silent)} silent accepts, {deaths} deaths of the decoding child"
        )
    return bool(crashes or silent)


def _order(row: str) -> tuple[str, int]:
    found = re.match(r"([A-Za-z]+)(\d+)", row)
    assert found is not None
    return found[1], int(found[2])


if __name__ == "__main__":
    sys.exit(main())
