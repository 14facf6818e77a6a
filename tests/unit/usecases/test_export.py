"""Model packages: whole, exact beside the trained networks, without a patient's pixels or names."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from renalkit.domain.image import Mode
from renalkit.errors import ConfigError, ModelRefused
from renalkit.learn.predictor import save_weights
from renalkit.runtime.abilities import FAST, Precision, this_processor
from renalkit.runtime.engines import EngineOptions
from renalkit.runtime.package import load_package, score
from renalkit.store.files import read_json, write_json
from renalkit.store.runs import REPORTING, RunFolder
from renalkit.store.splits import load_split
from renalkit.systems import get_system
from renalkit.usecases.experiment import jobs_of
from renalkit.usecases.export import ExportRequest, export_system, export_words
from renalkit.usecases.export_gate import Compared, Form, gate, made_up, reads_all_heads
from renalkit.usecases.progress import Silent
from renalkit.usecases.results import stored_experiment

SAID = '[card]\nintended_use = "Research."\nlimitations = "Simulated."\nlicence = "CC-BY-4.0"\n'
SIZE = 32


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, made_run: ModuleType) -> RunFolder:
    """A finished run whose weights are those of small networks as they were initialised."""
    torch.set_num_threads(1)
    folder = RunFolder(made_run.make_run(tmp_path_factory.mktemp("made"), n_patients=14).run)
    (folder.path / REPORTING).write_text(SAID)
    stored = read_json(folder.experiment_json)
    stored["settings"]["input"]["size"] = SIZE
    for system in stored["settings"]["systems"]:
        system["params"] = {"width": 0.125}
    write_json(folder.experiment_json, stored)
    for job in jobs_of(stored_experiment(folder)):
        system = get_system(job.system)
        for fold in load_split(folder.folds).folds:
            own = folder.fold(job.label, fold.index)
            torch.manual_seed(fold.index)
            net = system.build(system.params(job.params), job.shape(2), job.task)
            with torch.no_grad():  # statistics of normalisation that let something through
                net(torch.rand(16, 1, SIZE, SIZE))
            done = read_json(own.done)
            write_json(own.done, done | {"weights_sha256": save_weights(net, own.weights)})
    return folder


@pytest.fixture(scope="module")
def exported(run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All three folds of the classifier, in every format."""
    request = ExportRequest(
        run.system("resnet18"),
        tmp_path_factory.mktemp("models"),
        formats=("onnx", "openvino", "monai-bundle"),
    )
    return export_system(request, Silent())


@pytest.fixture(scope="module")
def package(exported: dict[str, Any]) -> Path:
    return Path(exported["package"])


def test_a_package_is_whole_and_says_what_it_is(
    exported: dict[str, Any], package: Path, run: RunFolder
) -> None:
    assert package.parent.name == "resnet18"
    found = load_package(package)
    assert [m.fold for m in found.spec.members] == [0, 1, 2]
    stored = [read_json(run.fold("resnet18", k).done)["weights_sha256"] for k in range(3)]
    assert list(found.weights_sha256) == stored
    assert found.spec.classes == ("benign", "malignant")
    assert [t["fold"] for t in found.spec.thresholds] == [0, 1, 2]
    assert found.card["authors"]["intended_use"] == "Research."
    assert "CC-BY-4.0" in (package / "LICENSE.txt").read_text()
    page = (package / "README.md").read_text()
    assert "Research." in page
    assert "Simulated." in page
    assert "| openvino | fp32 |" in page
    assert "largest difference" in export_words(exported)
    for form in exported["parity"]:
        assert form["file"] == ("model.xml" if form["engine"] == "openvino" else "model.onnx")


def test_every_engine_was_compared_on_tested_frames_and_agrees(exported: dict[str, Any]) -> None:
    assert exported["compared"]["patients"] == 14
    assert [(f["engine"], f["mode"]) for f in exported["parity"]] == [
        ("openvino", "fp32"),
        ("onnxruntime", "fp32"),
    ]
    for form in exported["parity"]:
        for member in form["members"]:
            assert 0 <= member["difference"]["class_logits"] <= 1e-4
            assert member["largest"]["class_logits"] > 0.01
            assert member["calls"] == 0
        assert form["patients"]["n"] == 14
        assert form["patients"]["difference"] <= 0.002
        assert 0 < form["patients"]["torch"] < 1


def test_nothing_in_it_names_a_patient_or_a_place(package: Path, run: RunFolder) -> None:
    folds = load_split(run.folds).folds
    everyone = frozenset[str]().union(*(f.train | f.validation for f in folds))
    names = {name.encode() for name in everyone}
    for path in sorted(p for p in package.rglob("*") if p.is_file()):
        content = path.read_bytes()
        assert not [n for n in names if n in content], path.name
        assert str(run.path.parents[1]).encode() not in content, path.name
        assert b"/renalkit/learn/" not in content, path.name
    found = load_package(package)
    stranger = "p-" + "f" * 20
    assert found.seen([*everyone, stranger]) == everyone


def test_a_segmenting_system_keeps_one_mask_head(run: RunFolder, tmp_path: Path) -> None:
    fold = run.fold("multitask-us", 1).path
    found = export_system(ExportRequest(fold, tmp_path, version="a1"), Silent())
    package = load_package(tmp_path / "multitask-us" / "a1")
    assert [m.folder for m in package.spec.members] == ["fold-1"]
    assert package.spec.outputs == ("mask_logits", "class_logits")
    (engine,) = package.engines(EngineOptions(threads=1))
    given, (expected,) = package.golden()
    raw = score(engine, given)
    assert raw["mask_logits"].shape == (len(given["image"]), 1, SIZE, SIZE)
    np.testing.assert_allclose(raw["class_logits"], expected["class_logits"], atol=1e-4)
    assert all(m["dice"] >= 0.995 for f in found["parity"] for m in f["members"])
    with pytest.raises(ConfigError, match="--version a1"):
        export_system(ExportRequest(fold, tmp_path, version="a1"), Silent())


PREDICTS = """
from pathlib import Path
from renalkit.runtime.package import load_package, score
from renalkit.systems import get_system
package = load_package(Path(sys.argv[1]))
given, _ = package.golden()
system = get_system(package.spec.job["system"])
params = system.params(package.spec.job["params"])
for engine in package.engines():
    for said in system.decode(params, score(engine, given)):
        print(*said.scores)
"""


def test_it_predicts_where_torch_cannot_be_imported(
    package: Path, without_torch: Callable[..., str]
) -> None:
    rows = [
        list(map(float, line.split())) for line in without_torch(PREDICTS, package).splitlines()
    ]
    assert len(rows) == 3 * 3
    assert all(abs(sum(row) - 1) < 1e-9 for row in rows)


def test_monai_reads_the_bundle_and_gets_the_mean_of_the_folds(package: Path) -> None:
    from monai.bundle import ConfigParser

    bundle = package / "monai-bundle"
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.json"))
    parser.read_meta(str(bundle / "configs" / "metadata.json"))
    parser["bundle_root"] = str(bundle)
    parser["device"] = "$torch.device('cpu')"
    network = parser.get_parsed_content("network")
    found = load_package(package)
    given, expected = found.golden()
    with torch.no_grad():
        said = network(torch.from_numpy(given["image"]))["classes"].numpy()
    shares = [np.exp(e["class_logits"]) for e in expected]
    mean = np.mean([s / s.sum(1, keepdims=True) for s in shares], axis=0)
    np.testing.assert_allclose(said, mean, atol=1e-6)
    prepare = parser.get_parsed_content("preprocessing")
    picture = np.random.default_rng(0).integers(0, 255, (50, 70)).astype(np.uint8)
    assert prepare(picture).shape == (1, SIZE, SIZE)
    meta = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert meta["network_data_format"]["outputs"]["classes"]["num_channels"] == 2
    assert {p.name for p in (bundle / "models").iterdir()} >= {"fold-0.safetensors", "spec.json"}


# ---- refused -------------------------------------------------------------------------------


def test_there_is_no_package_while_use_and_limits_are_unsaid(
    run: RunFolder, tmp_path: Path
) -> None:
    shutil.copytree(run.path.parents[1], tmp_path / "copy")
    other = RunFolder(tmp_path / "copy" / "runs" / run.path.name)
    (other.path / REPORTING).write_text("")
    with pytest.raises(ConfigError, match="card.intended_use: empty"):
        export_system(ExportRequest(other.system("unet"), tmp_path / "models"), Silent())
    assert not (tmp_path / "models").exists()


def test_runs_and_strangers_are_refused(run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="a run, not one of its systems"):
        export_system(ExportRequest(run.path, tmp_path), Silent())
    with pytest.raises(ModelRefused, match="no such system"):
        export_system(ExportRequest(run.system("vgg"), tmp_path), Silent())
    with pytest.raises(ConfigError, match="--format 'tflite'"):
        ExportRequest(run.path, formats=("tflite",))
    with pytest.raises(ConfigError, match="--version '../a'"):
        ExportRequest(run.path, version="../a")


def test_fast_modes_are_refused_where_the_processor_lacks_them(
    run: RunFolder, tmp_path: Path
) -> None:
    lacking = [mode for mode in FAST if not this_processor().can(mode)]
    if not lacking:
        pytest.skip("this processor has every mode")
    request = ExportRequest(run.system("resnet18"), tmp_path, fast=(lacking[0],))
    with pytest.raises(ModelRefused, match="without its instructions"):
        export_system(request, Silent())


def test_weights_that_are_not_those_of_training_are_refused(run: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(run.path.parents[1], tmp_path / "copy")
    other = RunFolder(tmp_path / "copy" / "runs" / run.path.name)
    weights = other.fold("resnet18", 0).weights
    weights.write_bytes(other.fold("resnet18", 1).weights.read_bytes())
    with pytest.raises(ModelRefused, match="digest"):
        export_system(ExportRequest(weights.parent, tmp_path / "models"), Silent())
    assert not list((tmp_path / "models").rglob("*.onnx"))


# ---- the gate ------------------------------------------------------------------------------


def _job(run: RunFolder, label: str) -> Any:
    return next(j for j in jobs_of(stored_experiment(run)) if j.label == label)


def test_made_up_pictures_are_the_same_for_everyone_and_lack_a_modality_once(
    run: RunFolder,
) -> None:
    job = _job(run, "resnet18").model_copy(
        update={"modalities": (Mode.B, Mode.CEUS), "features": ("a", "b")}
    )
    one, other = made_up(job), made_up(job)
    assert all(np.array_equal(one.given[n], other.given[n], equal_nan=True) for n in one.given)
    assert one.given["image"].shape == (3, 4, SIZE, SIZE)
    assert 0 <= one.given["image"].min() < one.given["image"].max() <= 1
    assert one.present.tolist() == [[True, True], [True, True], [True, False]]
    assert not one.given["image"][-1, 1:].any()
    assert np.isnan(one.given["features"]).sum() == 1


@pytest.mark.parametrize("moved", ["logits", "auc"])
def test_the_gate_refuses_what_moves_too_far(run: RunFolder, moved: str) -> None:
    """Beyond the tolerance by any of the results, or by the patients' AUC alone."""
    job = _job(run, "resnet18")
    system = get_system(job.system)
    task = stored_task(run)
    golden = made_up(job, 4)
    golden = replace(golden, labels=np.array([0, 1, 0, 1]), patients=("a", "b", "c", "d"))
    expected = {"class_logits": np.array([[0, 0.0], [0, 0.01], [0, 0.02], [0, 0.03]], np.float32)}
    shift = np.zeros((4, 2), np.float32)
    mode = Precision.FP32
    if moved == "logits":
        shift[2, 1] = 3e-4
    else:
        shift[1, 1], mode = 0.015, Precision.BF16  # no score moves by 0.05, one pair changes
    from renalkit.runtime.parity import compare

    found = {"class_logits": expected["class_logits"] + shift}
    said = Compared(0, compare(expected, found), found)
    words = "class_logits differs by 0.0003" if moved == "logits" else "AUC of patients moves"
    scoring = (system, system.params(job.params))
    with pytest.raises(ModelRefused, match=words):
        gate(Form("openvino", mode, "model.onnx"), [(golden, expected, said)], scoring, task)
    same = Compared(0, compare(expected, expected), dict(expected))
    passed = gate(Form("openvino", mode, "m"), [(golden, expected, same)], scoring, task)
    assert passed["patients"]["difference"] == 0


def stored_task(run: RunFolder) -> Any:
    from renalkit.domain.cohort import ClassTask

    known = read_json(run.cohort)["task"]
    return ClassTask(tuple(known["classes"]), known["positive"])


def test_which_systems_read_all_mask_heads() -> None:
    system = get_system("multitask-us")
    assert not reads_all_heads(system, system.params())
    assert reads_all_heads(system, system.params({"inference_head": "average"}))
