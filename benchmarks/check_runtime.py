"""Does a package predict in an environment with the extra `runtime` alone, how large is it, and how
soon does it start?

    python benchmarks/check_runtime.py PACKAGE [--keep FOLDER] [--out FILE.json]

Makes a fresh virtual environment, installs renalkit with the extra `runtime` from this checkout,
and measures: size on disk (promised: at most 0.6 GB), start of `renalkit --help` and of importing
an engine (promised: below 1 s on an idle machine; medians of five), and that the golden pair of
PACKAGE goes through every member while torch is not there. Exits with 1 when a promise of size or
absence is broken; times are printed with the load they were measured under.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MOST_GB = 0.6
PREDICT = """
import importlib.util, sys
from pathlib import Path
assert importlib.util.find_spec("torch") is None, "torch is there"
from renalkit.runtime.package import load_package, score
package = load_package(Path(sys.argv[1]))
given, _ = package.golden()
for engine in package.engines():
    print(engine.name, {n: v.shape for n, v in score(engine, given).items()})
"""
STARTS = {
    "renalkit --help": ["-m", "renalkit", "--help"],
    "import of OpenVINO": ["-c", "import openvino"],
    "import of renalkit.runtime.package": ["-c", "import renalkit.runtime.package"],
}


def size_gb(folder: Path) -> float:
    """Bytes of the files in a folder."""
    return sum(p.lstat().st_size for p in folder.rglob("*") if p.is_file()) / 1e9


def seconds(words: list[str]) -> float:
    begin = time.perf_counter()
    subprocess.run(words, check=True, capture_output=True)
    return time.perf_counter() - begin


def measure(package: Path, place: Path) -> dict[str, object]:
    venv.create(place, with_pip=True)
    python = str(place / "bin" / "python")
    empty = size_gb(place)
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", f"{ROOT}[runtime]"], check=True, cwd=place
    )
    installed = size_gb(place)
    done = subprocess.run(
        [python, "-c", PREDICT, str(package.resolve())], capture_output=True, text=True, cwd=place
    )
    starts = {
        name: statistics.median(seconds([python, *words]) for _ in range(5))
        for name, words in STARTS.items()
    }
    return {
        "size_gb": round(installed, 3),
        "of_which_pip_and_python": round(empty, 3),
        "start_s": {name: round(s, 2) for name, s in starts.items()},
        "load": os.getloadavg()[0],
        "predicts": done.returncode == 0,
        "said": (done.stdout or done.stderr)[-2000:],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", type=Path)
    parser.add_argument("--keep", type=Path, help="folder for the environment; else temporary")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        found = measure(asked.package, asked.keep or Path(temporary))
    print(json.dumps(found, indent=2))
    if asked.out is not None:
        asked.out.write_text(json.dumps(found, indent=2, sort_keys=True) + "\n")
    kept = found["predicts"] and float(str(found["size_gb"])) <= MOST_GB
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
