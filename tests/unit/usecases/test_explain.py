"""Explaining tested frames: whose network, which frames, what is written, and what is refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from renalkit.domain.cohort import ClassTask, Cohort
from renalkit.domain.geometry import Box, MaskRLE
from renalkit.domain.image import Clip, Mode, Source, pixel_sha256
from renalkit.domain.splits import Plan, SplitOptions, make_split, patient_facts
from renalkit.domain.study import Lesion, Roi, Study
from renalkit.errors import ConfigError, ModelRefused, StoreError
from renalkit.learn.predictor import save_weights
from renalkit.store.cohorts import save_cohort
from renalkit.store.files import read_json, write_json
from renalkit.store.runs import RunFolder
from renalkit.store.splits import load_split, save_split
from renalkit.systems import get_system
from renalkit.usecases.experiment import Experiment, jobs_of
from renalkit.usecases.explain import ExplainRequest, explain, explain_words
from renalkit.usecases.parts import samples_of
from renalkit.usecases.progress import Silent
from renalkit.usecases.train import Training
from renalkit.writers.explain import EXAMPLES, examples_of

TASK = ClassTask(("benign", "malignant"), "malignant")
N, FRAMES, LONELY = 12, 3, 5
SMALL = {"backbone": "efficientnet-b0", "width": 0.25, "norm_momentum": 0.9}


def study(n: int) -> Study:
    """A cine of both panes with an outlined lesion; one study has lost its contrast pane."""
    rng = np.random.default_rng(n)
    source = Source(f"{n:064x}", "f-0", "dicom-us")
    mask = np.zeros((40, 50), np.bool_)
    cv2.ellipse(canvas := mask.astype(np.uint8), (24, 20), (9, 6), 0, 0, 360, 1, -1)
    mask = canvas > 0
    grey = rng.integers(0, 255, (FRAMES, 40, 50)).astype(np.uint8)
    tinted = rng.integers(0, 255, (FRAMES, 40, 50, 3)).astype(np.uint8)
    clips = (
        Clip(grey, pixel_sha256(grey), Mode.B, source),
        Clip(tinted, pixel_sha256(tinted), Mode.CEUS, source, offset=(50, 0)),
    )
    rois = tuple(Roi(0, f, MaskRLE.encode(mask)) for f in range(FRAMES))
    if n != LONELY:
        rois += tuple(Roi(1, f, box=Box(15, 14, 19, 13)) for f in range(FRAMES))
    lesion = Lesion(f"l-{n:020x}", TASK.classes[n % 2], rois=rois)
    return Study(f"s-{n:020x}", f"p-{n:020x}", clips, (lesion,))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run of two folds whose networks have the weights they were initialised with."""
    place = tmp_path_factory.mktemp("explained")
    cohort = Cohort("here", TASK, tuple(study(n) for n in range(N)))
    save_cohort(place / "here", cohort)
    experiment = Experiment.model_validate(
        {
            "name": "e",
            "cohort": str(place / "here"),
            "split": {"folds": 2},
            "input": {"size": 32, "region": "lesion", "margin": 0.3, "bilateral": False},
            "train": {"threads": 1, "device": "cpu"},
            "statistics": {"bootstrap": 200},
            "systems": [
                {"name": "mufnet-2022", "params": SMALL},
                {"name": "ceus-net", "params": SMALL},
                {"name": "resnet18", "params": {"width": 0.125}},
                {"name": "repvgg-ceus", "params": {"width": 0.125}},
            ],
        }
    )
    folder = RunFolder(place / "runs" / "e")
    split = make_split(patient_facts(cohort, {}), Plan.KFOLD, 0, SplitOptions(folds=2))
    save_split(folder.folds, split)
    settings = {"digest": experiment.digest, "settings": experiment.placed(folder.path), "set": []}
    write_json(folder.experiment_json, settings)
    training = Training(folder, cohort, split, samples_of(cohort, "lesion"), 0)
    for job in jobs_of(experiment):
        system = get_system(job.system)
        for fold in split.folds:
            own = folder.fold(job.label, fold.index)
            own.path.mkdir(parents=True)
            torch.manual_seed(fold.index)
            net = system.build(system.params(job.params), job.shape(2), job.task)
            with torch.no_grad():  # statistics of normalisation that let something through
                net(torch.rand(16, job.shape(2).channels, 32, 32))
            sha256 = save_weights(net, own.weights)
            write_json(own.done, {"digest": training.digest(job, fold), "weights_sha256": sha256})
    return folder


@pytest.fixture(scope="module")
def output(run: RunFolder) -> Path:
    folder = run.path.parent.parent / "out"
    explain(request(run, folder), Silent())
    return folder


def request(run: RunFolder, output: Path, **more: object) -> ExplainRequest:
    plain = ExplainRequest(run.path / "mufnet-2022", output, frames=2, steps=2)
    return replace(plain, **more)


def test_every_tested_patient_is_explained_by_the_network_of_its_own_fold(
    run: RunFolder, output: Path
) -> None:
    found = read_json(output / "explain.json")
    split = load_split(run.folds)
    for part in found["folds"]:
        fold = split.folds[part["fold"]]
        done = read_json(run.fold("mufnet-2022", fold.index).done)
        assert part["weights_sha256"] == done["weights_sha256"]
        rows = [f for f in found["frames"] if f["fold"] == fold.index]
        assert {f["patient"] for f in rows} == fold.test
        assert not {f["patient"] for f in rows} & (fold.train | fold.validation)
    assert len(found["frames"]) == 2 * N
    assert found["cohort"]["n_patients"] == N


def test_figures_of_frames_are_what_they_are_called(output: Path) -> None:
    found = read_json(output / "explain.json")
    for row in found["frames"]:
        assert sum(row["scores"].values()) == pytest.approx(1)
        assert row["target"] == row["called"] == max(row["scores"], key=row["scores"].get)
        assert row["region"] == "outline"
        if row["patient"] == f"p-{LONELY:020x}":
            assert list(row["maps"]) == row["modalities"] == ["B"]
            assert row["weights"] is None
            continue
        assert list(row["maps"]) == row["modalities"] == ["B", "CEUS"]
        assert sum(row["weights"].values()) == pytest.approx(1, abs=1e-6)
        assert sum(m["evidence"] or 0 for m in row["maps"].values()) == pytest.approx(1)
        for own in row["maps"].values():
            assert 0 < own["area"] < 1
            assert own["inside"] is None or 0 <= own["inside"] <= 1
            assert own["deletion_curve"][0] == pytest.approx(row["scores"][row["target"]], abs=1e-5)
            assert own["insertion_curve"][-1] == pytest.approx(own["deletion_curve"][0], abs=1e-6)
            assert own["insertion_curve"][0] == pytest.approx(own["deletion_curve"][-1], abs=1e-6)
            assert set(own["control"]) == {"inside", "evidence", "deletion", "insertion"}


def test_cohort_figures_are_means_of_patients_with_intervals(output: Path) -> None:
    found = read_json(output / "explain.json")
    for of_class in ("all", *TASK.classes):
        rows = [f for f in found["frames"] if f["weights"] and of_class in ("all", f["class"])]
        per_patient: dict[str, list[float]] = {}
        for row in rows:
            per_patient.setdefault(row["patient"], []).append(row["weights"]["B"])
        figure = found["cohort"]["weights"]["B"][of_class]
        assert figure["value"] == pytest.approx(np.mean([np.mean(v) for v in per_patient.values()]))
        assert figure["n"] == len(per_patient)
        assert figure["low"] <= figure["value"] <= figure["high"]
    own = found["cohort"]["modalities"]["CEUS"]
    assert own["n_frames"] == 2 * (N - 1)
    difference = own["inside"]["all"]["value"] - own["area"]["all"]["value"]
    if own["empty"] == 0:
        assert own["inside_minus_area"]["all"]["value"] == pytest.approx(difference)


def test_mean_maps_sum_to_one_over_modalities(output: Path) -> None:
    found = read_json(output / "explain.json")
    for layers in found["mean_maps"].values():
        assert set(layers) == {"B", "CEUS", "lesion"}
        assert np.array(layers["B"]["mean"]).shape == (32, 32)
        assert 0.3 < np.mean(layers["lesion"]["mean"]) < 0.6


def test_pictures_and_page_say_what_they_are(output: Path) -> None:
    found = read_json(output / "explain.json")
    for row in found["frames"]:
        picture = cv2.imread(str(output / row["picture"]))
        assert picture.shape[1] > picture.shape[0] * 0.8
    page = (output / "explain.html").read_text()
    for words in (
        "Share of the map inside the lesion",
        "confidential",
        "Not for diagnosis",
        "CEUS",
    ):
        assert words in page or words == "CEUS"
    assert page.count("data:image/png") == len(examples_of(found)) + 2 * len(TASK.classes)
    assert len(examples_of(found)) == 2 * EXAMPLES
    assert "confidential" in explain_words(found)
    assert "Research use only" in explain_words(found)


def test_finished_folds_are_kept_and_a_lost_one_is_made_again_alike(
    run: RunFolder, output: Path
) -> None:
    before = {p.name: p.stat().st_mtime_ns for p in output.glob("fold-*.json")}
    words = (output / "explain.json").read_bytes()
    content = (output / "fold-1.json").read_bytes()
    (output / "fold-1.json").unlink()
    explain(request(run, output), Silent())
    assert (output / "fold-0.json").stat().st_mtime_ns == before["fold-0.json"]
    assert (output / "fold-1.json").read_bytes() == content
    assert (output / "explain.json").read_bytes() == words


def test_other_options_for_the_same_folder_are_refused(run: RunFolder, output: Path) -> None:
    with pytest.raises(StoreError, match="other options"):
        explain(request(run, output, method="grad-cam++"), Silent())


def test_a_few_patients_of_one_fold_and_one_class(run: RunFolder, tmp_path: Path) -> None:
    wanted = {
        "patients": 4,
        "folds": (1,),
        "target": "malignant",
        "steps": 0,
        "method": "cam",
        "frames": 1,
    }
    lonely = next(f for f in load_split(run.folds).folds if f"p-{LONELY:020x}" not in f.test)
    wanted["folds"] = (lonely.index,)
    found = explain(request(run, tmp_path, **wanted), Silent())
    assert [f["fold"] for f in found["folds"]] == [lonely.index]
    patients = {f["patient"]: f["class"] for f in found["frames"]}
    assert sorted(patients.values()) == ["benign"] * 2 + ["malignant"] * 2
    assert {f["target"] for f in found["frames"]} == {"malignant"}
    assert "deletion" not in found["frames"][0]["maps"]["B"]


def test_the_result_does_not_depend_on_how_many_frames_are_held(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"patients": 4, "steps": 0, "folds": (0,)}
    whole = explain(request(run, tmp_path / "a", **asked), Silent())
    monkeypatch.setattr("renalkit.usecases.explain.PORTION", 1)
    parts = explain(request(run, tmp_path / "b", **asked), Silent())
    assert len(whole["frames"]) == 8
    for one, two in zip(whole["frames"], parts["frames"], strict=True):
        assert one["maps"].keys() == two["maps"].keys()
        for name, own in one["maps"].items():
            assert own["inside"] == pytest.approx(two["maps"][name]["inside"], rel=1e-4)
            assert own["evidence"] == pytest.approx(two["maps"][name]["evidence"], abs=1e-4)
    for of_class, layers in whole["mean_maps"].items():
        for name, layer in layers.items():
            again = parts["mean_maps"][of_class][name]
            assert layer["patients"] == again["patients"]
            np.testing.assert_allclose(layer["mean"], again["mean"], atol=1e-4)


def test_a_contrast_network_has_the_outline_of_the_other_pane(
    run: RunFolder, tmp_path: Path
) -> None:
    found = explain(
        request(run, tmp_path, system=run.path / "ceus-net", steps=0, frames=1), Silent()
    )
    assert {f["region"] for f in found["frames"]} == {"outline"}
    assert found["modalities"] == ["CEUS"]
    assert found["cohort"]["weights"] == {}
    assert found["cohort"]["n_patients"] == N - 1


@pytest.mark.parametrize(("system", "modality"), [("resnet18", "B"), ("repvgg-ceus", "CEUS")])
def test_networks_of_one_picture_have_one_map(
    run: RunFolder, tmp_path: Path, system: str, modality: str
) -> None:
    asked = {"system": run.path / system, "method": "cam", "patients": 4, "folds": (0,)}
    found = explain(request(run, tmp_path, **asked), Silent())
    assert {tuple(f["maps"]) for f in found["frames"]} == {(modality,)}
    assert found["cohort"]["modalities"][modality]["evidence"]["all"]["value"] in (1.0, None)


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"target": "other"}, ConfigError, "expected one of benign, malignant"),
        ({"folds": (0, 7)}, ModelRefused, "no finished fold 7"),
        ({"patients": -1}, ConfigError, "patients: -1 is below 0"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    run: RunFolder, tmp_path: Path, changed: dict[str, object], error: type, words: str
) -> None:
    with pytest.raises(error, match=words):
        explain(request(run, tmp_path / "x", **changed), Silent())
    assert not (tmp_path / "x").exists()


def test_a_run_and_a_folder_inside_it_are_refused(run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="a run, not one of its systems"):
        explain(request(run, tmp_path / "x", system=run.path), Silent())
    with pytest.raises(ModelRefused, match="no such system"):
        explain(request(run, tmp_path / "x", system=run.path / "unet"), Silent())
    with pytest.raises(ConfigError, match="inside the run"):
        explain(request(run, run.path / "out"), Silent())


def test_a_network_of_other_folds_is_refused(run: RunFolder, tmp_path: Path) -> None:
    """Patients moved from training to test after training: the digest of the folds tells."""
    copy = RunFolder(tmp_path / "runs" / "e")
    shutil.copytree(run.path, copy.path)
    shutil.copytree(run.path.parent.parent / "here", tmp_path / "here")
    split = load_split(copy.folds)
    first, second = split.folds
    moved = replace(
        split,
        folds=(
            replace(first, train=second.train, test=second.test, validation=second.validation),
            replace(second, train=first.train, test=first.test, validation=first.validation),
        ),
    )
    save_split(copy.folds, moved)
    with pytest.raises(StoreError, match="other settings, data or folds"):
        explain(request(copy, tmp_path / "x"), Silent())


def test_changed_and_missing_weights_are_refused(run: RunFolder, tmp_path: Path) -> None:
    copy = RunFolder(tmp_path / "runs" / "e")
    shutil.copytree(run.path, copy.path)
    shutil.copytree(run.path.parent.parent / "here", tmp_path / "here")
    weights = copy.fold("mufnet-2022", 0).weights
    weights.write_bytes(copy.fold("mufnet-2022", 1).weights.read_bytes())
    with pytest.raises(ModelRefused, match="weights with digest"):
        explain(request(copy, tmp_path / "x", folds=(0,)), Silent())
    for fold in (0, 1):
        copy.fold("mufnet-2022", fold).weights.unlink()
    with pytest.raises(ModelRefused, match="no finished fold with weights"):
        explain(request(copy, tmp_path / "x"), Silent())
