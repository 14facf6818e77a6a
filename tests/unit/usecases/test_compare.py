"""Variants of an experiment: one system table per variant, paths that still lead somewhere."""

from __future__ import annotations

import tomllib
from pathlib import Path

from renalkit.usecases.compare import CompareRequest, _varied_file

STUDY = """
name = "s"
cohort = "cohorts/mine"
[split]
file = "old/folds.json"
external = "cohorts/other"
seed = 3
[[systems]]
name = "unet"
params = { width = 0.25 }
"""


def test_variants_find_the_files_of_their_experiment(tmp_path: Path) -> None:
    """The file of the variants lies elsewhere; cohort and folds are those of the experiment."""
    study = tmp_path / "study.toml"
    study.write_text(STUDY)
    asked = CompareRequest(study, ("params.width=0.5,1.0",), None, None, tmp_path / "runs")
    varied = _varied_file(asked)
    assert varied == tmp_path / "runs/s-width.toml"
    tables = tomllib.loads(varied.read_text())
    assert tables["cohort"] == str(tmp_path / "cohorts/mine")
    assert tables["split"] == {
        "file": str(tmp_path / "old/folds.json"),
        "external": str(tmp_path / "cohorts/other"),
        "seed": 3,
    }
    assert [s["params"]["width"] for s in tables["systems"]] == [0.5, 1.0]
    assert [s["label"] for s in tables["systems"]] == ["width=0.5", "width=1.0"]
