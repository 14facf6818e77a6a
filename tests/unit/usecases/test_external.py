"""External test of a run: the same networks, other patients, nobody seen twice."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from renalkit.domain.cohort import ClassTask, Cohort
from renalkit.domain.geometry import MaskRLE
from renalkit.domain.image import Clip, Mode, Source, pixel_sha256
from renalkit.domain.prediction import Prediction, SystemRef, Unit
from renalkit.domain.sample import b_mode_samples
from renalkit.domain.splits import Plan, SplitOptions, make_split, patient_facts
from renalkit.domain.study import Lesion, Roi, Study
from renalkit.errors import CheckFailed, ConfigError, ModelRefused
from renalkit.learn.predictor import save_weights
from renalkit.store.cohorts import save_cohort
from renalkit.store.files import write_json, write_text
from renalkit.store.predictions import load_predictions, save_predictions
from renalkit.store.runs import RunFolder
from renalkit.store.splits import load_split, save_split
from renalkit.systems import get_system
from renalkit.systems._contract import Shape
from renalkit.usecases.ceus_settings import ceus_settings
from renalkit.usecases.experiment import Experiment, jobs_of
from renalkit.usecases.external import run_external
from renalkit.usecases.external_run import ExternalRequest
from renalkit.usecases.patients import patients_of
from renalkit.usecases.predict import run_predict
from renalkit.usecases.predict_input import InputOptions
from renalkit.usecases.progress import Silent
from renalkit.usecases.results import called_class, read_results
from renalkit.usecases.run_model import load_run_model

TASK = ClassTask(("benign", "malignant"), "malignant")


def study(n: int, seed: int = 0) -> Study:
    """A still of noise, so that no two look alike."""
    pixels = np.random.default_rng([seed, n]).integers(0, 255, (1, 48, 48)).astype(np.uint8)
    mask = np.zeros((48, 48), bool)
    mask[10:30, 12:36] = True
    clip = Clip(pixels, pixel_sha256(pixels), Mode.B, Source(f"{n:064x}", "f-0", "png"))
    lesion = Lesion(f"l-{n:020x}", TASK.classes[n % 2], rois=(Roi(0, 0, MaskRLE.encode(mask)),))
    return Study(f"s-{n:020x}", f"p-{n:020x}", (clip,), (lesion,))


def cohort(name: str, start: int, n: int, seed: int = 0) -> Cohort:
    return Cohort(name, TASK, tuple(study(start + k, seed) for k in range(n)))


def trained(place: Path) -> RunFolder:
    """A run of two folds whose networks are as they were initialised."""
    development = cohort("here", 0, 14)
    save_cohort(place / "here", development)
    experiment = Experiment.model_validate(
        {
            "name": "e",
            "cohort": str(place / "here"),
            "split": {"folds": 2},
            "input": {"size": 32},
            "train": {"threads": 1, "device": "cpu"},
            "statistics": {"bootstrap": 200, "prior_correction": True},
            "systems": [{"name": "resnet18", "params": {"width": 0.125}}],
        }
    )
    folder = RunFolder(place / "runs" / "e")
    facts = patient_facts(development, {})
    split = make_split(facts, Plan.KFOLD, 0, SplitOptions(folds=2))
    save_split(folder.folds, split)
    write_text(folder.experiment_toml, 'name = "e"\n')
    settings = {"digest": experiment.digest, "settings": experiment.placed(folder.path), "set": []}
    write_json(folder.experiment_json, settings)
    (job,) = jobs_of(experiment)
    system = get_system(job.system)
    for fold in split.folds:
        own = folder.fold(job.label, fold.index)
        net = system.build(system.params(job.params), Shape(1, 32, 2), job.task)
        own.path.mkdir(parents=True)
        sha256 = save_weights(net, own.weights)
        ref = SystemRef(job.system, job.label, sha256)
        said = [
            Prediction(Unit.FRAME, s.key, (0.4, 0.6), s.label, ref, fold.index)
            for s in b_mode_samples(development)
            if s.key.patient in fold.validation
        ]
        save_predictions(own.validation, said)
        done = {"digest": "x", "weights_sha256": sha256, "images": {"train": 7, "validation": 2}}
        write_json(own.done, done | {"epochs": 1, "best_epoch": 1, "train_seconds": 1.0})
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("external")
    trained(folder)
    save_cohort(folder / "there", cohort("there", 100, 12, seed=1))
    request = ExternalRequest(folder / "runs" / "e", folder / "there")
    run_external(request, Silent())
    return folder


def test_every_fold_predicts_every_external_patient_and_nobody_else(place: Path) -> None:
    run = RunFolder(place / "runs" / "e-on-there")
    split = load_split(run.folds)
    assert (split.plan, split.shared_test, len(split.folds)) == (Plan.EXTERNAL, True, 2)
    outside = {f"p-{100 + k:020x}" for k in range(12)}
    for fold in split.folds:
        own = run.fold("resnet18", fold.index)
        said = load_predictions(own.test)
        assert {p.key.patient for p in said} == outside == fold.test
        before = RunFolder(place / "runs" / "e").fold("resnet18", fold.index)
        assert own.weights.read_bytes() == before.weights.read_bytes()
        assert own.validation.read_bytes() == before.validation.read_bytes()


def test_figures_are_those_of_the_mean_of_the_folds(place: Path) -> None:
    run = RunFolder(place / "runs" / "e-on-there")
    metrics = json.loads(run.metrics.read_text())
    (system,) = metrics["systems"]
    patients = system["classification"]["patient"]
    assert patients["n"] == 12
    assert patients["auc"]["n"] == 12
    assert len(system["classification"]["fold_mean"]["auc"]["folds"]) == 2
    assert len(system["classification"]["thresholds"]) == 2
    for name in ("report.html", "record.json", "MANIFEST.sha256", "subgroups.json"):
        assert (run.path / name).is_file(), name
    tables = json.loads(run.characteristics.read_text())["tables"]
    assert [g["patients"] for g in tables[1]["groups"]] == [14, 12]


def test_the_report_says_who_trained_and_who_was_tested(place: Path) -> None:
    run = RunFolder(place / "runs" / "e-on-there")
    counted = json.loads(run.metrics.read_text())["cohort"]
    at_home = counted["flow"]["included_patients"] - 12
    assert counted["external"]["patients"] == 12
    text = " ".join((run.path / "report.html").read_text().split())
    assert f"was trained on {at_home} patients and tested on 12 patients of another" in text
    assert "Scores are means over the models of two folds" in text


def test_new_patients_are_judged_as_those_of_the_external_test(place: Path, tmp_path: Path) -> None:
    """`predict` on the very pictures: correction, rule, mean of folds and threshold are the same."""
    folder = RunFolder(place / "runs" / "e-on-there")
    results = read_results(folder.path, Silent())
    said = patients_of(results, results.systems[0])
    wanted = {p.key.patient: p for p in said.pooled}
    assert all(way.shares is not None for way in said.ways)
    (tmp_path / "in").mkdir()
    for n in range(100, 104):
        pixels = np.asarray(study(n, seed=1).clips[0].pixels[0])
        assert cv2.imwrite(str(tmp_path / "in" / f"{n}.png"), pixels)
    model = load_run_model(folder.system("resnet18"))
    options = InputOptions(ceus_settings(None))
    found = run_predict(model, tmp_path / "in", tmp_path / "out", options, Silent())
    assert len(found["patients"]) == 4
    for n, patient in zip(range(100, 104), found["patients"], strict=True):
        same = wanted[f"p-{n:020x}"]
        assert tuple(patient["scores"].values()) == pytest.approx(same.scores, rel=1e-6)
        called = called_class(same, said.thresholds, 1)
        assert patient["called"] == TASK.classes[called]
        assert patient["before"] != patient["scores"]


def test_running_again_changes_no_prediction(place: Path) -> None:
    own = RunFolder(place / "runs" / "e-on-there").fold("resnet18", 0)
    before = (own.test.stat().st_mtime_ns, own.done.read_bytes())
    run_external(ExternalRequest(place / "runs" / "e", place / "there"), Silent())
    assert (own.test.stat().st_mtime_ns, own.done.read_bytes()) == before


def test_L12_patients_and_pictures_the_models_have_seen_are_refused(place: Path) -> None:
    run = place / "runs" / "e"
    same = cohort("same", 100, 10, seed=1)
    # By pseudonym: imported with the same key.
    save_cohort(place / "same", Cohort("same", TASK, (*same.studies, study(0, seed=5))))
    with pytest.raises(CheckFailed, match="1 patients and 0 studies are in both cohorts"):
        run_external(ExternalRequest(run, place / "same"), Silent())
    # By picture: the same patient under another pseudonym.
    other = replace(study(0), key=f"s-{300:020x}", patient=f"p-{300:020x}")
    save_cohort(place / "again", Cohort("again", TASK, (*same.studies, other)))
    with pytest.raises(CheckFailed, match="0 patients and 1 studies are in both cohorts"):
        run_external(ExternalRequest(run, place / "again"), Silent())
    # By likeness: cropped and brighter, so no digest is the same.
    (clip,) = study(2).clips
    pixels = np.clip(np.asarray(clip.pixels[:]).astype(int) + 9, 0, 255).astype(np.uint8)
    moved = replace(clip, pixels=pixels, sha256=pixel_sha256(pixels))
    alike = replace(study(2), key=f"s-{301:020x}", patient=f"p-{301:020x}", clips=(moved,))
    save_cohort(place / "alike", Cohort("alike", TASK, (*same.studies, alike)))
    with pytest.raises(CheckFailed, match="1 external patients have pictures that look like"):
        run_external(ExternalRequest(run, place / "alike"), Silent())
    assert not (place / "runs" / "e-on-alike").exists()


def test_a_name_that_is_taken_another_task_and_an_untrained_run_are_refused(place: Path) -> None:
    run = place / "runs" / "e"
    save_cohort(place / "third", cohort("third", 200, 10, seed=2))
    with pytest.raises(ConfigError, match="'e-on-there' exists and is another"):
        run_external(ExternalRequest(run, place / "third", name="e-on-there"), Silent())
    turned = Cohort("turned", ClassTask(("malignant", "benign"), "malignant"), (study(201, 2),))
    save_cohort(place / "turned", turned)
    with pytest.raises(ConfigError, match="its classes are"):
        run_external(ExternalRequest(run, place / "turned"), Silent())
    with pytest.raises(ConfigError, match="external test itself"):
        run_external(ExternalRequest(place / "runs" / "e-on-there", place / "third"), Silent())
    bare = RunFolder(place / "bare" / "e")
    for name in ("experiment_json", "folds", "experiment_toml"):
        source = getattr(RunFolder(run), name)
        write_text(getattr(bare, name), source.read_text())
    with pytest.raises(ModelRefused, match="no finished fold"):
        run_external(ExternalRequest(bare.path, place / "third"), Silent())
