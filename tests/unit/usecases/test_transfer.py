"""Runs that start from an earlier run's weights, which saw nobody the fold tests."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from renalkit.domain.cohort import ClassTask, Cohort
from renalkit.domain.image import Clip, Mode, Source, pixel_sha256
from renalkit.domain.splits import Fold, Plan, Split
from renalkit.domain.study import Lesion, Study
from renalkit.errors import CheckFailed, ConfigError, ModelRefused, StoreError
from renalkit.runtime.package import load_package
from renalkit.store.cohorts import save_cohort
from renalkit.store.runs import REPORTING, RunFolder
from renalkit.store.splits import load_split, save_split
from renalkit.usecases.experiment import read_experiment
from renalkit.usecases.export import ExportRequest, export_system
from renalkit.usecases.progress import Silent
from renalkit.usecases.run import prepare_run, run_experiment, train_experiment
from renalkit.usecases.run_request import RunRequest
from renalkit.usecases.verify import verify_run

TASK = ClassTask(("benign", "malignant"), "malignant")
EARLIER = tuple(range(24))
LATER = (*range(4, 24), 30, 31, 32, 33)
"""Twenty of the earlier patients and four new ones."""

TEXT = """
name = "{name}"
cohort = "cohorts/{cohort}"
[input]
size = 32
[train]
epochs = 1
optimizer = "sgd"
lr = {lr}
momentum = 0.0
threads = 1
device = "cpu"
[statistics]
bootstrap = 200
[clinical]
columns = []
[split]
{split}
[[systems]]
name = "resnet18"
params = {{ width = 0.125 }}
{system}
"""


def study(n: int, seed: int = 0) -> Study:
    """A still of noise, so that no two look alike; its patient has number n."""
    pixels = np.random.default_rng([seed, n]).integers(0, 255, (1, 48, 48)).astype(np.uint8)
    clip = Clip(pixels, pixel_sha256(pixels), Mode.B, Source(f"{n:064x}", "f-0", "png"))
    lesion = Lesion(f"l-{n:020x}", TASK.classes[n % 2])
    return Study(f"s-{n:020x}", f"p-{n:020x}", (clip,), (lesion,))


def other_key(one: Study) -> Study:
    """The same study as an import with another key names it."""
    return replace(one, key="s-f" + one.key[3:], patient="p-f" + one.patient[3:])


def request(place: Path, name: str, cohort: str, **parts: Any) -> RunRequest:
    """A run of the given name; keys of TEXT in parts."""
    init_from = parts.pop("init_from", ())
    given = {"lr": "1e-30", "split": "folds = 2", "system": ""} | parts
    path = place / f"{name}.toml"
    path.write_text(TEXT.format(name=name, cohort=cohort, **given))
    return RunRequest(path, place / "runs", init_from=init_from)


def saved(place: Path, name: str, studies: Sequence[Study]) -> None:
    save_cohort(place / "cohorts" / name, Cohort(name, TASK, tuple(studies)))


FOLLOW = 'follow = "runs/p2"'
FROM = 'init_from = "runs/p2/resnet18"'


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An earlier run, a cohort that overlaps its by design, and a run that follows and starts."""
    folder = tmp_path_factory.mktemp("transfer")
    saved(folder, "p2", [study(n) for n in EARLIER])
    saved(folder, "p3", [study(n) for n in LATER])
    train_experiment(request(folder, "p2", "p2", lr="0.05"), Silent())
    run_experiment(request(folder, "p3", "p3", split=FOLLOW, system=FROM), Silent())
    return folder


@pytest.fixture
def copied(place: Path, tmp_path: Path) -> Path:
    """A copy of the earlier run and the cohorts that a test may change."""
    shutil.copytree(place / "cohorts", tmp_path / "cohorts")
    shutil.copytree(place / "runs" / "p2", tmp_path / "runs" / "p2")
    return tmp_path


def test_each_fold_starts_from_the_model_of_the_fold_it_follows(place: Path) -> None:
    earlier, run = RunFolder(place / "runs" / "p2"), RunFolder(place / "runs" / "p3")
    before, split = load_split(earlier.folds), load_split(run.folds)
    assert len(split.folds) == len(before.folds) == 2
    for fold, model in zip(split.folds, before.folds, strict=True):
        own = run.fold("resnet18", fold.index)
        done = json.loads(own.done.read_text())
        initial = done["initial"]
        assert (initial["run"], initial["label"], initial["from_fold"]) == (
            "p2",
            "resnet18",
            model.index,
        )
        assert not (fold.validation | fold.test) & model.train
        assert not fold.test & model.validation
        assert initial["validated_again"] == len(fold.validation & model.validation) > 0
        assert initial["shared_in_training"] == len(fold.train & model.train) > 0
        assert initial["compared_by"] == "pseudonyms and pictures"
        assert initial["class_heads_left_out"] == ["fc.weight", "fc.bias"]
        # At a rate of 1e-30 weights do not move in an epoch; running statistics do.
        source = load_file(earlier.fold("resnet18", model.index).weights)
        now = load_file(own.weights)
        moving = ("running_mean", "running_var", "num_batches_tracked")
        same = [k for k in now if not k.startswith("fc.") and not k.endswith(moving)]
        assert len(same) == 60
        assert all(np.array_equal(now[k], source[k]) for k in same)
        assert not np.array_equal(now["fc.weight"], source["fc.weight"])


def test_the_run_verifies_and_a_planted_patient_in_its_start_is_found(place: Path) -> None:
    run = RunFolder(place / "runs" / "p3")
    assert verify_run(run.path, Silent())["ok"]
    kept = run.initial("resnet18").read_text()
    fold = load_split(run.folds).folds[1]
    for seen, patient, found in (
        ("trained", min(fold.test), "trained with 1 patients it validates or tests"),
        ("trained", min(fold.validation), "trained with 1 patients it validates or tests"),
        ("validated", min(fold.test), "chosen with 1 patients it tests"),
        ("validated", min(fold.validation), None),
    ):
        stored = json.loads(kept)
        stored["folds"][1][seen].append(patient)
        run.initial("resnet18").write_text(json.dumps(stored))
        words = [d["words"] for d in verify_run(run.path, Silent())["differences"]]
        run.initial("resnet18").write_text(kept)
        expected = [] if found is None else [f"initial weights were {found}"]
        assert [w for w in words if w.startswith("initial weights were")] == expected


def test_a_resumed_run_keeps_its_start_and_a_retrained_source_is_noticed(place: Path) -> None:
    run = RunFolder(place / "runs" / "p3")
    asked = request(place, "p3", "p3", split=FOLLOW, system=FROM)
    before = run.initial("resnet18").read_bytes()
    assert train_experiment(asked, Silent())["complete"]
    assert run.initial("resnet18").read_bytes() == before
    with pytest.raises(StoreError, match="exists with other settings"):
        train_experiment(request(place, "p3", "p3", split=FOLLOW), Silent())
    stored = json.loads(before)
    stored["folds"][0]["weights_sha256"] = "0" * 64
    run.initial("resnet18").write_text(json.dumps(stored))
    asked = request(place, "p3", "p3", split=FOLLOW, system=FROM)
    with pytest.raises(StoreError, match="finished under other settings"):
        train_experiment(asked, Silent())
    run.initial("resnet18").write_bytes(before)


def test_L13_patients_the_models_have_seen_are_refused(place: Path) -> None:
    with pytest.raises(CheckFailed, match=r"was trained with.*\(L13\): fold 0: \d+ patients") as e:
        prepare_run(request(place, "leak", "p3", system=FROM), Silent())
    assert "split.follow" in e.value.remedy
    assert not (place / "runs" / "leak" / "experiment.json").exists()
    assert not (place / "runs" / "leak" / "resnet18").exists()


def test_the_very_same_folds_start_from_their_own_models(place: Path) -> None:
    same = 'file = "runs/p2/folds.json"'
    run = prepare_run(request(place, "same", "p2", split=same, system=FROM), Silent())
    stored = json.loads(run.folder.initial("resnet18").read_text())
    for fold, found in zip(run.split.folds, stored["folds"], strict=True):
        assert found["candidates"] == [fold.index]
        assert found["validated_again"] == len(fold.validation)
        assert found["shared_in_training"] == len(fold.train)


PARTS = ("train", "validation", "test")


@pytest.mark.parametrize("before", PARTS)
@pytest.mark.parametrize("now", PARTS)
def test_L13_one_patient_in_another_part_is_caught(place: Path, before: str, now: str) -> None:
    """Fold 0 of the earlier run, but one patient moved from a part of it to another. Two tested
    patients validate, so that both classes stay there."""
    source = load_split(RunFolder(place / "runs" / "p2").folds).folds[0]
    name = f"{before}-{now}"
    planted = min(getattr(source, before))
    more = {max(p for p in source.test if int(p[2:], 16) % 2 == c) for c in (0, 1)}
    parts = {x: getattr(source, x) - {planted} - more for x in PARTS}
    parts["validation"] |= more
    parts[now] |= {planted}
    path = place / f"{name}.json"
    save_split(path, Split(Plan.KFOLD, 0, (Fold(0, **parts),)))
    asked = request(place, name, "p2", split=f'file = "{path.name}"', system=FROM)
    if (before, now) in {("train", "validation"), ("train", "test"), ("validation", "test")}:
        with pytest.raises(CheckFailed, match=r"fold 0: 1 patients at least \(model of fold 0\)"):
            prepare_run(asked, Silent())
        return
    run = prepare_run(asked, Silent())
    (found,) = json.loads(run.folder.initial("resnet18").read_text())["folds"]
    assert found["from_fold"] == 0
    assert found["validated_again"] == len(parts["validation"] & source.validation)


def test_L13_one_planted_patient_is_caught_by_name_and_by_picture(place: Path) -> None:
    """New patients only: any model may start any fold, until one of them is an old one."""
    strangers = [study(n) for n in range(100, 124)]
    saved(place, "new", [*strangers, study(300)])
    chosen = prepare_run(request(place, "new", "new", system=FROM), Silent())
    stored = json.loads(RunFolder(chosen.folder.path).initial("resnet18").read_text())
    assert stored["compared_by"] == "pictures only"
    assert [f["candidates"] for f in stored["folds"]] == [[0, 1], [0, 1]]
    plants: dict[str, Study] = {"name": study(0, seed=9), "both": study(0)}
    for name, planted in plants.items():
        saved(place, name, [*strangers, planted])
        run = prepare_run(request(place, name, name, system=FROM), Silent())
        stored = json.loads(run.folder.initial("resnet18").read_text())
        models = load_split(RunFolder(place / "runs" / "p2").folds).folds
        refused = 0
        for fold, found in zip(run.split.folds, stored["folds"], strict=True):
            now = fold.part_of(planted.patient)
            roles = {m.index: (m.part_of(planted.patient), now) for m in models}
            leaks = {("train", "validation"), ("train", "test"), ("validation", "test")}
            assert found["candidates"] == [k for k, role in roles.items() if role not in leaks]
            refused += 2 - len(found["candidates"])
        assert refused
    # Under another pseudonym beside one who is known: the picture joins the two.
    saved(place, "alias", [*strangers, study(1), other_key(study(0))])
    with pytest.raises(CheckFailed, match="1 patients at least"):
        prepare_run(request(place, "alias", "alias", system=FROM, split="folds = 2"), Silent())


def test_cohorts_made_with_different_keys_are_refused(place: Path) -> None:
    saved(place, "rekeyed", [other_key(study(n)) for n in LATER])
    with pytest.raises(CheckFailed, match="no pseudonym is in both cohorts, yet pictures of 20"):
        prepare_run(request(place, "rekeyed", "rekeyed", system=FROM), Silent())


def test_the_choice_is_the_least_shared_then_the_best_validated(copied: Path) -> None:
    saved(copied, "new", [study(n) for n in range(100, 124)])
    for fold, loss in ((0, 0.9), (1, 0.4)):
        history = RunFolder(copied / "runs" / "p2").fold("resnet18", fold).history
        head, row = history.read_text().splitlines()
        cells = dict(zip(head.split(","), row.split(","), strict=True)) | {
            "validation_loss": str(loss)
        }
        history.write_text(f"{head}\n{','.join(cells.values())}\n")
    run = prepare_run(request(copied, "new", "new", system=FROM), Silent())
    stored = json.loads(run.folder.initial("resnet18").read_text())
    assert [(f["from_fold"], f["shared_in_training"]) for f in stored["folds"]] == [(1, 0)] * 2


def test_weights_of_weights_count_as_seen(place: Path, copied: Path) -> None:
    """A third run from the second: what the first one's models saw is seen still."""
    shutil.copytree(place / "runs" / "p3", copied / "runs" / "p3")
    first, second = (
        load_split(RunFolder(copied / "runs" / x).folds).folds[0] for x in ("p2", "p3")
    )
    old = min(first.train - (second.train | second.validation | second.test))
    everyone = first.train | first.validation | first.test
    for now in PARTS:
        parts = {x: getattr(second, x) & everyone for x in PARTS}
        parts[now] |= {old}
        save_split(copied / f"{now}.json", Split(Plan.KFOLD, 0, (Fold(0, **parts),)))
        asked = request(
            copied,
            f"third-{now}",
            "p2",
            split=f'file = "{now}.json"',
            system='init_from = "runs/p3/resnet18"',
        )
        if now == "train":
            run = prepare_run(asked, Silent())
            (found,) = json.loads(run.folder.initial("resnet18").read_text())["folds"]
            assert found["from_fold"] == 0
            assert old in found["trained"]
            continue
        with pytest.raises(CheckFailed, match=r"fold 0: 1 patients at least \(model of fold 0\)"):
            prepare_run(asked, Silent())


def test_a_chain_of_three_cohorts_is_compared_with_all_of_them(place: Path, copied: Path) -> None:
    """Patients of the first cohort who are not in the second are found in the last one's folds."""
    shutil.copytree(place / "runs" / "p3", copied / "runs" / "p3")
    link = 'init_from = "runs/p3/resnet18"'
    strangers = [study(n) for n in range(100, 124)]
    saved(copied, "new", strangers)
    run = prepare_run(request(copied, "fourth", "new", system=link), Silent())
    stored = json.loads(run.folder.initial("resnet18").read_text())
    assert stored["compared_by"] == "pictures only"
    only_first = next(n for n in EARLIER if n not in LATER)
    saved(copied, "planted", [*strangers, study(only_first)])
    run = prepare_run(request(copied, "planted", "planted", system=link), Silent())
    stored = json.loads(run.folder.initial("resnet18").read_text())
    assert any(len(f["candidates"]) < 2 for f in stored["folds"])
    saved(copied, "rekeyed", [*strangers, other_key(study(only_first))])
    with pytest.raises(CheckFailed, match="pictures of 1 patients look alike"):
        prepare_run(request(copied, "rekeyed", "rekeyed", system=link), Silent())
    shutil.rmtree(copied / "runs" / "p2")
    with pytest.raises(
        CheckFailed, match=r"have seen \d+ patients of a cohort that is not at hand"
    ):
        prepare_run(request(copied, "alone", "new", system=link), Silent())


# ---- from a model package


@pytest.fixture(scope="module")
def package(place: Path) -> Path:
    """The models of the later run, passed on: they have seen patients of both cohorts."""
    run = RunFolder(place / "runs" / "p3")
    said = '[card]\nintended_use = "Research."\nlimitations = "Noise."\nlicence = "CC-BY-4.0"\n'
    (run.path / REPORTING).write_text(said)
    return Path(
        export_system(ExportRequest(run.system("resnet18"), place / "models"), Silent())["package"]
    )


def test_L13_a_package_says_whom_its_models_have_seen(place: Path, package: Path) -> None:
    link = f'init_from = "{package}"'
    strangers = [study(n) for n in range(200, 224)]
    models = load_split(RunFolder(place / "runs" / "p3").folds).folds
    behind = load_split(RunFolder(place / "runs" / "p2").folds).folds
    for name, planted in (("later", study(LATER[-1], 9)), ("first", study(EARLIER[0], 9))):
        saved(place, f"pack-{name}", [*strangers, planted])
        run = prepare_run(request(place, f"pack-{name}", f"pack-{name}", system=link), Silent())
        stored = json.loads(run.folder.initial("resnet18").read_text())
        assert stored["compared_by"] == "hashes of pseudonyms"
        refused = 0
        for fold, found in zip(run.split.folds, stored["folds"], strict=True):
            now = fold.part_of(planted.patient)
            leaks = {("train", "validation"), ("train", "test"), ("validation", "test")}
            fit = [
                m.index
                for m, b in zip(models, behind, strict=True)
                if not {(x.part_of(planted.patient), now) for x in (m, b)} & leaks
            ]
            assert found["candidates"] == fit
            refused += 2 - len(fit)
        assert refused


def test_a_run_from_a_package_passes_on_whom_it_has_seen(place: Path, package: Path) -> None:
    strangers = [study(n) for n in range(200, 224)]
    saved(place, "elsewhere", strangers)
    link = f'init_from = "{package}"'
    found = run_experiment(request(place, "elsewhere", "elsewhere", system=link), Silent())
    run = RunFolder(place / "runs" / "elsewhere")
    assert verify_run(run.path, Silent())["ok"]
    assert "of the model package resnet18 " in Path(found["report"]).read_text()
    weights = load_file(run.fold("resnet18", 0).weights)
    taken = json.loads(run.fold("resnet18", 0).done.read_text())["initial"]["from_fold"]
    source = load_file(package / f"fold-{taken}" / "weights.safetensors")
    assert np.array_equal(weights["conv1.weight"], source["conv1.weight"])
    (run.path / REPORTING).write_text((place / "runs/p3" / REPORTING).read_text())
    again = export_system(ExportRequest(run.system("resnet18"), place / "more"), Silent())
    passed_on = load_package(Path(again["package"]))
    old, young = study(EARLIER[0]).patient, strangers[0].patient
    assert passed_on.seen([old, young, study(400).patient]) == {old, young}
    # A further run on the same strangers and a patient of the very first cohort.
    saved(place, "further", [*strangers, study(EARLIER[0], 9)])
    asked = request(
        place,
        "further",
        "further",
        split='follow = "runs/elsewhere"',
        system='init_from = "runs/elsewhere/resnet18"',
    )
    with pytest.raises(CheckFailed, match="1 patients at least"):
        prepare_run(asked, Silent())


def test_a_package_that_was_changed_starts_nothing(
    place: Path, package: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(package, changed)
    stored = json.loads((changed / "patients.json").read_text())
    stored["members"]["fold-0"][0]["trained"].pop()
    (changed / "patients.json").write_text(json.dumps(stored))
    with pytest.raises(ModelRefused, match=r"patients\.json changed"):
        prepare_run(request(place, "no", "p3", system=f'init_from = "{changed}"'), Silent())


# ---- refused


def other_weights(run: RunFolder) -> None:
    own, other = run.fold("resnet18", 0), run.fold("resnet18", 1)
    own.weights.write_bytes(other.weights.read_bytes())


def other_folds(run: RunFolder) -> None:
    text = json.loads(run.folds.read_text())
    from renalkit.domain.splits import Split
    from renalkit.store.splits import save_split

    split = load_split(run.folds)
    turned = tuple(
        replace(f, train=g.train, validation=g.validation, test=g.test)
        for f, g in zip(split.folds, split.folds[::-1], strict=True)
    )
    save_split(run.folds, Split(split.plan, split.seed, turned))
    assert json.loads(run.folds.read_text()) != text


def no_weights(run: RunFolder) -> None:
    for k in (0, 1):
        run.fold("resnet18", k).weights.unlink()


def no_cohort(run: RunFolder) -> None:
    shutil.rmtree(run.path.parent.parent / "cohorts" / "p2")


@pytest.mark.parametrize(
    ("harm", "error", "words"),
    [
        (other_weights, ModelRefused, "sha256"),
        (other_folds, StoreError, "finished under other settings, data or folds"),
        (no_weights, ModelRefused, "no finished fold with weights"),
        (no_cohort, StoreError, "the cohort of run 'p2' cannot be read"),
    ],
)
def test_a_source_that_is_not_what_it_was_is_refused(
    copied: Path, harm: Callable[[RunFolder], None], error: type[Exception], words: str
) -> None:
    harm(RunFolder(copied / "runs" / "p2"))
    with pytest.raises(error, match=words):
        prepare_run(request(copied, "p3", "p3", split=FOLLOW, system=FROM), Silent())


HEADS = f"{FROM}\ntrain = {{ taken_heads = true, taken_rate = 0.0 }}"


def test_class_layers_are_taken_for_the_same_classes_only(place: Path) -> None:
    train_experiment(request(place, "heads", "p3", split=FOLLOW, system=HEADS, lr="0.05"), Silent())
    run = RunFolder(place / "runs" / "heads")
    found = json.loads(run.initial("resnet18").read_text())
    assert (found["class_heads_taken"], found["class_heads_left_out"]) == (True, [])
    own, earlier = (
        load_file(RunFolder(place / "runs" / name).fold("resnet18", 0).weights)
        for name in ("heads", "p2")
    )
    assert {k for k in own if not np.array_equal(own[k], earlier[k])} == {"fc.bias"}
    grades = ClassTask(("high", "low"), "high")
    asked = [
        replace(s, lesions=(replace(s.lesions[0], label=grades.classes[n % 2]),))
        for n, s in enumerate(study(n, 5) for n in range(40, 60))
    ]
    save_cohort(place / "cohorts" / "grades", Cohort("grades", grades, tuple(asked)))
    words = "resnet18 tells benign, malignant apart, this cohort high, low; they must be the same"
    with pytest.raises(ConfigError, match=words):
        prepare_run(request(place, "grades", "grades", system=HEADS), Silent())


def test_what_can_be_asked_for(place: Path) -> None:
    for path, words in (
        ("runs/none/resnet18", "no run 'none'"),
        ("runs/p2/unet", r"no system 'unet' \(has resnet18\)"),
        ("runs/ask/resnet18", "no run 'ask'"),
    ):
        with pytest.raises(ConfigError, match=words):
            prepare_run(request(place, "ask", "p3", system=f'init_from = "{path}"'), Silent())
    two = request(place, "two", "p3", system='[[systems]]\nname = "unet"')
    experiment = read_experiment(two.experiment)
    one = experiment.started_from(["unet=runs/p2/resnet18"])
    assert [s.init_from is None for s in one.systems] == [True, False]
    assert one.digest != experiment.digest
    every = experiment.started_from([str(place / "runs/p2/resnet18")])
    assert [str(s.init_from) for s in every.systems] == [str(place / "runs/p2/resnet18")] * 2
    with pytest.raises(ConfigError, match="'unet' has initial weights already"):
        experiment.started_from(["a/b", "unet=c/d"])
    with pytest.raises(ConfigError, match="goes with plan 'kfold'"):
        read_experiment(request(place, "two", "p3", split=FOLLOW + '\nplan = "holdout"').experiment)


def test_the_command_line_and_moved_runs_lead_to_the_same_start(copied: Path) -> None:
    asked = request(
        copied, "cli", "p3", split=FOLLOW, init_from=(str(copied / "runs/p2/resnet18"),)
    )
    run = prepare_run(asked, Silent())
    kept = json.loads(run.folder.experiment_json.read_text())
    assert kept["settings"]["systems"][0]["init_from"] == "../p2/resnet18"
    assert kept["settings"]["split"]["follow"] == "../p2"
    same = read_experiment(request(copied, "cli", "p3", split=FOLLOW, system=FROM).experiment)
    assert kept["digest"] == same.digest


class Told(Silent):
    def __init__(self) -> None:
        self.stages: list[str] = []

    def stage(self, words: str, total: int | None = None) -> None:
        self.stages.append(words)


def test_a_run_that_began_is_not_checked_again_unless_what_is_waived_changed(copied: Path) -> None:
    again = request(copied, "p2", "p2", lr="0.05")
    for waive, checked in (((), False), (("L07",), True)):
        told = Told()
        prepared = prepare_run(replace(again, waive=waive), told)
        assert any("checking the cohort" in words for words in told.stages) is checked
        assert prepared.split == load_split(RunFolder(copied / "runs" / "p2").folds)
