"""A trained CT cascade is tested on the scans of another hospital."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from renalkit.cli import app
from renalkit.domain.cohort import Cohort
from renalkit.errors import CheckFailed, ConfigError, InputRefused, StoreError
from renalkit.store.cohorts import load_cohort, save_cohort
from renalkit.store.runs import RunFolder
from renalkit.store.scans import SCANS, load_scan, saved_scans
from renalkit.usecases.cascade_external import run_cascade_external
from renalkit.usecases.cascade_run_model import cascade_of_run
from renalkit.usecases.external_run import ExternalRequest
from renalkit.usecases.progress import Silent

sys.path.insert(0, str(Path(__file__).parent))
from cascading import LABEL, cascade_run
from scanning import PLAN, TASK, ct_study

COARSE = replace(PLAN, matrix=64, slice_spacing_mm=9.0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    made = cascade_run(tmp_path_factory.mktemp("cascade") / "here")
    made.experiment_toml.write_text('name = "ct"\n')
    return made


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two patients of another hospital."""
    folder = tmp_path_factory.mktemp("hospital") / "there"
    save_cohort(folder, Cohort("there", TASK, (ct_study(41, COARSE), ct_study(42, COARSE))))
    return folder


@pytest.fixture(scope="module")
def tested(run: RunFolder, there: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    out = tmp_path_factory.mktemp("runs")
    made = run_cascade_external(ExternalRequest(run.path, there, out, waive=("L03",)), Silent())
    assert made["complete"]
    assert Path(made["report"]).is_file()
    return RunFolder(Path(made["folder"]))


def test_every_external_scan_is_looked_at_by_all_folds_together(
    run: RunFolder, there: Path, tested: RunFolder
) -> None:
    model = cascade_of_run(run.path)
    assert model.folds == (0, 1)
    studies = {s.key: s for s in load_cohort(there).studies}
    found = [load_scan(p) for p in saved_scans(tested.fold(LABEL, 0).path / SCANS)]
    assert {f.key.study for f in found} == set(studies)
    for scan in found:
        again = model.find(studies[scan.key.study].clips[scan.key.clip], scan.key)
        assert (scan.labels == again.labels).all()
        assert scan.lesions == again.lesions
        assert scan.system == model.system


def test_figures_count_external_patients_only_and_the_rule_by_hu_is_beside_them(
    tested: RunFolder,
) -> None:
    metrics = json.loads(tested.metrics.read_text())
    systems = {s["label"]: s for s in metrics["systems"]}
    assert set(systems) == {LABEL, "hu-threshold"}
    for system in systems.values():
        assert (system["patients"], system["folds"], system["complete"]) == (2, [0], True)
    fold = json.loads(tested.folds.read_text())["folds"][0]
    assert len(fold["test"]) == 2
    assert fold["name"] == "external"
    assert not set(fold["test"]) & set(fold["train"])


def test_the_report_tells_tested_from_trained_and_shows_the_scans(
    run: RunFolder, tested: RunFolder
) -> None:
    counted = json.loads(tested.metrics.read_text())["cohort"]
    assert (counted["patients"], counted["scans"]) == (2, 2)
    assert counted["flow"]["included_patients"] == 2
    trained = len(json.loads(tested.folds.read_text())["folds"][0]["train"])
    tables = json.loads(tested.characteristics.read_text())["tables"]
    assert [g["patients"] for g in tables[1]["groups"]] == [trained, 2]
    text = " ".join((tested.path / "report.html").read_text().split())
    assert f"trained on {trained} patients of another" in text
    assert "Large lesion 1" in text
    assert "Pictures are left out" not in text


def test_called_again_it_goes_on(tested: RunFolder, run: RunFolder, there: Path) -> None:
    """A scan that is there is kept, one that is missing is made again with the same bytes."""
    target = tested.fold(LABEL, 0)
    first, second = saved_scans(target.path / SCANS)
    kept = {p: p.read_bytes() for p in (first, second, second.with_suffix(".npz"))}
    before = first.stat().st_mtime_ns
    target.done.unlink()
    second.unlink()
    second.with_suffix(".npz").unlink()
    request = ExternalRequest(run.path, there, tested.path.parent, waive=("L03",))
    run_cascade_external(request, Silent())
    assert {p: p.read_bytes() for p in kept} == kept
    assert first.stat().st_mtime_ns == before


def test_L12_who_was_trained_on_is_refused(run: RunFolder, tmp_path: Path) -> None:
    save_cohort(tmp_path / "same", Cohort("same", TASK, (ct_study(0, COARSE),)))
    with pytest.raises(CheckFailed, match="L12"):
        run_cascade_external(ExternalRequest(run.path, tmp_path / "same"), Silent())


def test_a_cohort_that_cannot_be_asked_is_refused(
    run: RunFolder, tested: RunFolder, there: Path, tmp_path: Path
) -> None:
    study = ct_study(43, COARSE)
    bare = replace(study, clips=tuple(replace(c, labels=None) for c in study.clips), lesions=())
    save_cohort(tmp_path / "bare", Cohort("bare", TASK, (bare,)))
    with pytest.raises(InputRefused, match="no labelled scan"):
        run_cascade_external(ExternalRequest(run.path, tmp_path / "bare"), Silent())
    with pytest.raises(ConfigError, match="external test itself"):
        run_cascade_external(ExternalRequest(tested.path, there), Silent())


def test_the_command_tells_a_cascade_from_other_runs(
    run: RunFolder, there: Path, tmp_path: Path
) -> None:
    words = ["external", str(run.path), str(there), "-o", str(tmp_path), "--waive", "L03"]
    said = CliRunner().invoke(app, [*words, "--json"])
    assert said.exit_code == 0, said.output
    assert json.loads(said.stdout)["finished"] == {LABEL: [0]}


def test_another_cohort_under_the_same_name_is_refused(
    run: RunFolder, tested: RunFolder, tmp_path: Path
) -> None:
    save_cohort(tmp_path / "other", Cohort("other", TASK, (ct_study(44, COARSE),)))
    name = tested.path.name
    request = ExternalRequest(
        run.path, tmp_path / "other", tested.path.parent, name, waive=("L03",)
    )
    with pytest.raises((ConfigError, StoreError)):
        run_cascade_external(request, Silent())
