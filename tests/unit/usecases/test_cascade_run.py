"""A CT cascade is trained fold by fold on a small simulated cohort."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from renalkit.domain.volume import Phase
from renalkit.errors import ConfigError, InputRefused, StoreError
from renalkit.store.cohorts import save_cohort
from renalkit.store.runs import RunFolder
from renalkit.store.scans import load_scan, saved_scans
from renalkit.usecases.cascade_experiment import read_cascade, stored_cascade
from renalkit.usecases.cascade_run import prepare_cascade, train_cascade
from renalkit.usecases.cascade_train import inner_turns
from renalkit.usecases.progress import Silent
from renalkit.usecases.run_request import RunRequest

sys.path.insert(0, str(Path(__file__).parent))
from scanning import PLAN, ct_cohort

EXPERIMENT = """
name = "tiny"
cohort = "cohort"
cascade = "ct-cascade"
[params.kidney]
spacing_mm = 16.0
channels = [2, 4]
[params.mass]
spacing_mm = [9.0, 8.0, 8.0]
patch = [24, 32, 32]
overlap = 0.0
channels = [2, 4]
members = 2
least_mm = 60.0
[params.lesion]
side = 16
depth = 10
width = 0.0625
[split]
folds = 2
stratify = false
[batch]
lesion = 2
[train.kidney]
steps = 2
validate_steps = 1
threads = 1
[train.mass]
steps = 2
validate_steps = 2
threads = 1
[train.lesion]
steps = 1
validate_steps = 1
threads = 1
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort of six patients, an experiment beside it."""
    folder = tmp_path_factory.mktemp("cascade")
    save_cohort(folder / "cohort", ct_cohort(6, replace(PLAN, matrix=64, slice_spacing_mm=9.0)))
    (folder / "tiny.toml").write_text(EXPERIMENT)
    return folder


def request(place: Path, *overrides: str, **changes) -> RunRequest:
    return RunRequest(place / "tiny.toml", place / "runs", overrides, ("L03",), **changes)


@pytest.fixture(scope="module")
def trained(place: Path) -> Path:
    """Stage 1 first, then the rest of the same run."""
    first = train_cascade(request(place, 'stages=["kidney"]'), Silent())
    assert first["finished"] == {"ct-cascade": []}
    assert first["complete"]
    folder = Path(first["folder"])
    weights = {p: p.read_bytes() for p in folder.glob("*/fold-*/kidney/weights.safetensors")}
    assert len(weights) == 2
    whole = train_cascade(request(place), Silent())
    assert whole["finished"] == {"ct-cascade": [0, 1]}
    assert whole["complete"]
    assert all(p.read_bytes() == data for p, data in weights.items())
    return folder


def test_every_labelled_scan_is_tested_once_by_a_fold_that_never_saw_it(trained: Path) -> None:
    folds = json.loads((trained / "folds.json").read_text())["folds"]
    tested: Counter[str] = Counter()
    for index in (0, 1):
        path = trained / "ct-cascade" / f"fold-{index}"
        done = json.loads((path / "done.json").read_text())
        assert set(done["networks"]) == {"kidney", "mass-0", "mass-1", "lesion"}
        assert len(set(done["networks"].values())) == 4
        assert {p.name for p in path.glob("kidney-inner-*")} == {
            "kidney-inner-0",
            "kidney-inner-1",
        }
        for found in map(load_scan, saved_scans(path / "scans")):
            assert found.fold == index
            assert found.key.patient in folds[index]["test"]
            assert found.system.weights_sha256 == done["weights_sha256"]
            tested[found.key.patient] += 1
    assert len(tested) == 6
    assert set(tested.values()) == {1}


def test_a_finished_run_is_left_alone(place: Path, trained: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in trained.glob("ct-cascade/**/*") if p.is_file()}
    again = train_cascade(request(place), Silent())
    assert again["complete"]
    assert before == {p: p.stat().st_mtime_ns for p in before}
    stored = stored_cascade(RunFolder(trained))
    assert stored is not None
    assert stored.digest == read_cascade(place / "tiny.toml").digest


def test_other_settings_under_the_same_name_are_refused(place: Path, trained: Path) -> None:
    assert trained.exists()
    with pytest.raises(StoreError, match="exists with other settings"):
        prepare_cascade(request(place, "params.mass.members=3"), Silent())


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (['stages=["mass"]'], "'kidney', then 'mass'"),
        (['label="hu-threshold"'], "take another"),
        (['split.plan="repeated-kfold"', "split.repeats=2"], "several times"),
        (["params.mass.patchs=3"], "patchs"),
        (["train.kidney.steps=0"], "steps"),
        (['phases=["venous"]'], "phases"),
    ],
)
def test_settings_that_cannot_be_are_refused(place: Path, overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        prepare_cascade(request(place, *overrides, 'name="other"'), Silent())


def test_start_weights_and_a_phase_nobody_has_are_refused(place: Path) -> None:
    with pytest.raises(ConfigError, match="--init-from"):
        prepare_cascade(request(place, init_from=("runs/other",)), Silent())
    with pytest.raises(InputRefused, match="no CT scan with labels in phase excretory"):
        prepare_cascade(request(place, 'phases=["excretory"]', 'name="other"'), Silent())


def test_phases_and_stages_are_read(place: Path) -> None:
    found = read_cascade(place / "tiny.toml", ('phases=["nephrographic"]',))
    assert found.phases == (Phase.NEPHROGRAPHIC,)
    assert found.cohort == place / "cohort"
    assert (
        found.digest
        == read_cascade(
            place / "tiny.toml", ('phases=["nephrographic"]', 'stages=["kidney"]')
        ).digest
    )


@given(
    st.dictionaries(st.text("abcdef", min_size=1), st.integers(0, 6), min_size=7, max_size=12),
    st.integers(2, 4),
    st.integers(0, 9),
)
def test_l04_those_of_one_group_are_kept_from_the_same_inner_network(
    patients: dict[str, int], folds: int, seed: int
) -> None:
    groups = {p: f"g{g}" for p, g in patients.items()}
    if len(set(groups.values())) < folds:
        with pytest.raises(InputRefused, match="reference_jittered"):
            inner_turns(patients, groups, folds, seed)
        return
    turns = inner_turns(patients, groups, folds, seed)
    assert set(turns) == set(patients)
    assert set(turns.values()) == set(range(folds))
    for one in patients:
        for other in patients:
            assert groups[one] != groups[other] or turns[one] == turns[other]
