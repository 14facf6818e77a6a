"""A model package predicts what the run predicts, in a process that cannot import torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch

from renalkit.learn.predictor import save_weights
from renalkit.store.files import read_json, write_json
from renalkit.store.runs import REPORTING, RunFolder
from renalkit.systems import get_system
from renalkit.usecases.ceus_settings import ceus_settings
from renalkit.usecases.experiment import jobs_of
from renalkit.usecases.export import ExportRequest, export_system
from renalkit.usecases.predict import run_predict
from renalkit.usecases.predict_input import InputOptions
from renalkit.usecases.progress import Silent
from renalkit.usecases.results import stored_experiment
from renalkit.usecases.run_model import load_run_model

SIZE = 32
LABEL = "resnet18"
PREDICTS = """
from renalkit.cli import main
main()
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, made_run: ModuleType) -> RunFolder:
    """A finished run whose first system has small networks as they were initialised."""
    torch.set_num_threads(1)
    folder = RunFolder(made_run.make_run(tmp_path_factory.mktemp("made"), n_patients=14).run)
    said = '[card]\nintended_use = "Research."\nlimitations = "Simulated."\nlicence = "CC-BY-4.0"\n'
    (folder.path / REPORTING).write_text(said)
    stored = read_json(folder.experiment_json)
    stored["settings"]["input"]["size"] = SIZE
    for system in stored["settings"]["systems"]:
        system["params"] = {"width": 0.125}
    write_json(folder.experiment_json, stored)
    job = next(j for j in jobs_of(stored_experiment(folder)) if j.label == LABEL)
    system = get_system(job.system)
    for path in sorted(folder.system(LABEL).glob("fold-*")):
        own = folder.fold(LABEL, int(path.name.removeprefix("fold-")))
        net = system.build(system.params(job.params), job.shape(2), job.task)
        with torch.no_grad():  # statistics of normalisation that let something through
            net(torch.rand(16, 1, SIZE, SIZE))
        write_json(
            own.done, read_json(own.done) | {"weights_sha256": save_weights(net, own.weights)}
        )
    return folder


def test_a_package_says_what_the_run_says_and_needs_no_torch(
    run: RunFolder, tmp_path: Path, with_runtime_alone: Callable[..., str]
) -> None:
    study = tmp_path / "study"
    study.mkdir()
    for k in range(3):
        pixels = np.random.default_rng(k).integers(0, 255, (50, 70)).astype(np.uint8)
        assert cv2.imwrite(str(study / f"{k}.png"), pixels)
    options = InputOptions(ceus_settings(None), one_patient=True)
    wanted = run_predict(
        load_run_model(run.system(LABEL)), study, tmp_path / "wanted", options, Silent()
    )
    package = export_system(ExportRequest(run.system(LABEL), tmp_path / "models"), Silent())
    words = ["predict", package["package"], str(study), "-o", str(tmp_path / "out")]
    found = json.loads(with_runtime_alone(PREDICTS, *words, "--one-patient", "--json"))
    assert found["refused"] == []
    assert found["engine"].endswith("fp32")
    assert wanted["engine"] == "torch fp32"
    assert found["weights_sha256"] == wanted["weights_sha256"]
    assert found["threshold"] == wanted["threshold"] is not None
    assert found["ways"] == json.loads(json.dumps(wanted["ways"]))
    (patient,), (other,) = found["patients"], wanted["patients"]
    assert patient["frames"] == 3
    assert patient["scores"] == pytest.approx(other["scores"], abs=1e-4)
    for row, same in zip(found["frames"], wanted["frames"], strict=True):
        assert row["scores"] == pytest.approx(same["scores"], abs=1e-4)
