"""What the scripts of this folder share: other programs are run, and their figures stand by ours.

A script ends with 0 if every figure agrees, 1 if one does not, and 77 (printing NOT CHECKED) if the
other program is not installed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

AGREES, DIFFERS, NOT_CHECKED = 0, 1, 77


class Table:
    """Rows of name, the other program's figure, ours, and how far apart they may be.

    The distance is relative to the larger figure, or to 0.001 if both are smaller.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.rows: list[tuple[str, float, float, float]] = []

    def add(self, name: str, expected: Any, ours: Any, tolerance: float = 1e-9) -> None:
        """One figure, or arrays of equal shape: then the pair that is furthest apart is shown."""
        theirs, mine = (np.atleast_1d(np.asarray(v, dtype=np.float64)) for v in (expected, ours))
        if theirs.shape != mine.shape:
            raise SystemExit(f"{name}: {theirs.shape} figures against {mine.shape}")
        at = int(np.argmax([_apart(a, b) for a, b in zip(theirs.flat, mine.flat, strict=True)]))
        label = name if theirs.size == 1 else f"{name} (worst of {theirs.size})"
        self.rows.append((label, float(theirs.flat[at]), float(mine.flat[at]), tolerance))

    def finish(self) -> NoReturn:
        """Prints the table and ends the script."""
        width = max(len(name) for name, *_ in self.rows)
        print(f"{self.title}\n{'':{width}}  {'expected':>19}  {'ours':>19}  {'apart':>8}")
        wrong = 0
        for name, expected, ours, tolerance in self.rows:
            apart = _apart(expected, ours)
            agrees = apart <= tolerance
            wrong += not agrees
            mark = "" if agrees else f"  DIFFERS (allowed {tolerance:g})"
            print(f"{name:{width}}  {expected:19.12g}  {ours:19.12g}  {apart:8.1e}{mark}")
        print(f"{len(self.rows) - wrong} of {len(self.rows)} agree")
        sys.exit(DIFFERS if wrong else AGREES)


def _apart(a: float, b: float) -> float:
    if a == b or (np.isnan(a) and np.isnan(b)):
        return 0.0
    if not (np.isfinite(a) and np.isfinite(b)):
        return float("inf")
    return abs(a - b) / max(abs(a), abs(b), 1e-3)


def not_checked(what: str, remedy: str) -> NoReturn:
    """The other program is missing: says so loudly, so that silence never means agreement."""
    print(f"NOT CHECKED: {what}\n  to check: {remedy}")
    sys.exit(NOT_CHECKED)


def run_r(script: str, packages: tuple[str, ...], remedy: str) -> dict[str, np.ndarray]:
    """Runs R; `out(name, numbers)` in the script gives the figures back at full precision."""
    rscript = shutil.which("Rscript")
    if rscript is None:
        not_checked("Rscript is not installed", remedy)
    head = (
        'out <- function(name, x) cat(name, "=", paste(sprintf("%.17g", x), collapse=","), "\\n")\n'
    )
    load = "".join(f"suppressPackageStartupMessages(library({p}))\n" for p in packages)
    done = subprocess.run(
        [rscript, "-"], input=head + load + script, capture_output=True, text=True, timeout=300
    )
    if done.returncode:
        if "there is no package called" in done.stderr:
            not_checked(done.stderr.strip().splitlines()[0], remedy)
        raise SystemExit(f"R failed:\n{done.stderr}")
    lines = [line.split("=", 1) for line in done.stdout.splitlines() if "=" in line]
    return {k.strip(): np.array([float(v) for v in values.split(",")]) for k, values in lines}


def r_vector(values: np.ndarray) -> str:
    """Numbers as R reads them."""
    return "c(" + ",".join(f"{v:.17g}" for v in np.asarray(values, dtype=np.float64)) + ")"


def run_python(code: str, given: dict[str, Any], packages: str) -> dict[str, Any]:
    """Runs code in another Python that has the packages; it sees `given` and fills `found`.

    That Python is --python, the environment variable RENALKIT_REFERENCE_PYTHON, or this one.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--python", default=os.environ.get("RENALKIT_REFERENCE_PYTHON", sys.executable)
    )
    python = Path(parser.parse_args().python)
    remedy = (
        f"python3 -m venv REFERENCE && REFERENCE/bin/pip install {packages}, "
        "then this script with --python REFERENCE/bin/python (never into the project's own .venv)"
    )
    wrapped = (
        "import json, sys\ngiven, found = json.load(sys.stdin), {}\n"
        f"{code}\njson.dump(found, sys.stdout, default=lambda v: v.tolist())"
    )
    data = json.dumps(given, default=lambda v: v.tolist())
    done = subprocess.run(
        [python, "-c", wrapped], input=data, capture_output=True, text=True, timeout=300
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1]
        if last.startswith("ModuleNotFoundError"):
            not_checked(last, remedy)
        raise SystemExit(f"the reference program failed:\n{done.stderr}")
    return json.loads(done.stdout)
