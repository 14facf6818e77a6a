"""The scripts that compare figures with other programs run, and agree where the program is there."""

from __future__ import annotations

import runpy
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

VALIDATION = Path(__file__).resolve().parents[2] / "validation"
SCRIPTS = (
    "r_proc_asah",
    "r_proc_stats",
    "r_tests",
    "r_characteristics",
    "sklearn_scores",
    "statsmodels_tests",
    "dcurves_net_benefit",
    "surface_scores",
    "sas_ovarian",
)


@pytest.mark.parametrize("name", SCRIPTS)
def test_figures_agree_with_the_other_program(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run here as `python validation/NAME.py` is, but for the libraries, which are loaded."""
    script = str(VALIDATION / f"{name}.py")
    monkeypatch.syspath_prepend(VALIDATION)
    monkeypatch.setattr(sys, "argv", [script])
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        with pytest.raises(SystemExit) as end:
            runpy.run_path(script, run_name="__main__")
    said = capsys.readouterr().out
    if end.value.code == 77:
        pytest.skip(said)
    assert end.value.code == 0, said
    assert "agree" in said


def test_a_figure_that_differs_is_found() -> None:
    code = (
        "from side_by_side import Table\n"
        "t = Table('made up')\n"
        "t.add('right', [1.0, 2.0], [1.0, 2.0 + 1e-12])\n"
        "t.add('wrong', 1.0, 1.001)\n"
        "t.add('infinite', 1.0, float('inf'))\n"
        "t.finish()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=VALIDATION, timeout=60
    )
    assert done.returncode == 1
    assert done.stdout.count("DIFFERS") == 2
    assert "1 of 3 agree" in done.stdout
