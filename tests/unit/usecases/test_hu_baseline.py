"""The baseline that learns nothing is stored and scored like any system."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from renalkit.errors import StoreError
from renalkit.store.splits import load_split
from renalkit.usecases.cascade_evaluate import evaluate_scans
from renalkit.usecases.hu_baseline import HU_BASELINE, write_hu_baseline
from renalkit.usecases.progress import Silent
from renalkit.usecases.scan_truth import labelled_scans

sys.path.insert(0, str(Path(__file__).parent))
from scanning import PLAN, ct_cohort, scan_run


@pytest.mark.slow
def test_it_stands_beside_the_systems_of_a_run(tmp_path: Path) -> None:
    cohort = ct_cohort(2, replace(PLAN, matrix=128), normal=0)
    run = scan_run(tmp_path, cohort)
    split, scans = load_split(run.folds), labelled_scans(cohort)
    assert write_hu_baseline(run, (cohort, split), scans, Silent()) == (0, 1)
    metrics = evaluate_scans(run.path, Silent())
    assert [s["label"] for s in metrics["systems"]] == ["ct-cascade", HU_BASELINE]
    baseline = metrics["systems"][1]
    assert baseline["complete"]
    assert baseline["segmentation"]["classes"][0]["dice"]["value"] > 0.6
    assert baseline["coverage"] is None
    before = [p.read_bytes() for p in sorted(run.system(HU_BASELINE).rglob("*.json"))]
    write_hu_baseline(run, (cohort, split), scans, Silent())
    assert [p.read_bytes() for p in sorted(run.system(HU_BASELINE).rglob("*.json"))] == before
    with pytest.raises(StoreError, match="under other settings"):
        write_hu_baseline(run, (cohort, split), scans[:1], Silent())
