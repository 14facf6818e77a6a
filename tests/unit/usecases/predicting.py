"""A run whose networks are as they were initialised, and studies to predict with it."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from renalkit.cli import app
from renalkit.domain.prediction import Pooling, Rule
from renalkit.learn.predictor import save_weights
from renalkit.metrics.calibrators import Calibration, Calibrator
from renalkit.metrics.patient_way import FoldWay, Shares
from renalkit.metrics.pooling import PoolingChoice
from renalkit.store.files import write_json, write_text
from renalkit.store.runs import RunFolder
from renalkit.systems import get_system
from renalkit.usecases.ceus_settings import ceus_settings
from renalkit.usecases.experiment import Experiment, jobs_of
from renalkit.usecases.predict_input import InputOptions

SMALL = {"backbone": "efficientnet-b0", "width": 0.25, "norm_momentum": 0.9}
CLASSES = ("benign", "malignant")
WAYS = (
    FoldWay(
        0,
        PoolingChoice(Pooling(Rule.TOPK, share=0.3), {Rule.TOPK: 0.5, Rule.MEAN: 0.6}, 20),
        Shares((0.5, 0.5), (0.3, 0.7), gamma=2.0, per_logit=True),
        Calibrator(Calibration.PLATT, Calibration.PLATT, 40, slope=1.5, biases=(-0.2, 0.2)),
    ),
    FoldWay(
        1,
        PoolingChoice(Pooling(Rule.MEAN), {Rule.MEAN: 0.6}, 20),
        Shares((0.5, 0.5), (0.4, 0.6), gamma=2.0, per_logit=True),
        Calibrator(Calibration.TEMPERATURE, Calibration.PLATT, 30, slope=0.8, biases=(0.0, 0.0)),
    ),
)
THRESHOLDS = (0.45, 0.55)
SETTINGS = ceus_settings(
    None, ["dynamic_range_db=50", "fit.resamples=0", "frames.per_phase=4", "maps=false"]
)
PLAIN = InputOptions(SETTINGS)
FEATURES = ["perfusion_lesion_ttp", "age"]


def untrained_run(
    place: Path, systems: Sequence[dict[str, Any]], region: str = "lesion", *, decided: bool = True
) -> RunFolder:
    """Two folds of every system. decided: each fold chose rule, correction and calibration."""
    statistics: dict[str, Any] = {"bootstrap": 200}
    if decided:
        statistics |= {"rule": "validation", "prior_correction": True, "calibration": "platt"}
    experiment = Experiment.model_validate(
        {
            "name": "e",
            "cohort": "c",
            "split": {"folds": 2},
            "input": {"size": 32, "region": region, "bilateral": False},
            "train": {"threads": 1, "device": "cpu"},
            "statistics": statistics,
            "systems": list(systems),
        }
    )
    folder = RunFolder(place / "e")
    settings = {"digest": experiment.digest, "settings": experiment.placed(folder.path), "set": []}
    write_json(folder.experiment_json, settings)
    write_text(folder.experiment_toml, 'name = "e"\n')
    task = {"classes": list(CLASSES), "positive": "malignant"}
    write_json(folder.cohort, {"name": "c", "digest": "", "task": task})
    known: list[dict[str, Any]] = []
    for job in jobs_of(experiment):
        system = get_system(job.system)
        for fold in (0, 1):
            own = folder.fold(job.label, fold)
            own.path.mkdir(parents=True)
            net = system.build(system.params(job.params), job.shape(2), job.task)
            write_json(own.done, {"weights_sha256": save_weights(net, own.weights)})
        thresholds = [
            {"fold": k, "value": v, "rule": "youden", "n": 20} for k, v in enumerate(THRESHOLDS)
        ]
        found: dict[str, Any] = {"thresholds": thresholds}
        if decided:
            found["ways"] = [way.as_json() for way in WAYS]
        known.append({"label": job.label, "folds": [0, 1], "classification": found})
    write_json(folder.metrics, {"systems": known})
    return folder


def contrast_run(folder: Path) -> Path:
    """A run of every system that looks at contrast or at cut-out lesions."""
    systems = [
        {"name": "mufnet-2022", "params": SMALL, "features": FEATURES},
        {"name": "ceus-net", "params": SMALL},
        {"name": "bmode-net", "params": SMALL},
        {"name": "repvgg-ceus", "params": {"width": 0.125}},
    ]
    return untrained_run(folder, systems).path


def contrast_study(folder: Path, patients: int = 1) -> Path:
    """Simulated cines of 58 frames; one.csv outlines the lesion on one frame of each."""
    words = ["phantom", "ceus", "-o", str(folder), "-n", str(patients), "--seconds", "45"]
    done = CliRunner().invoke(app, [*words, "--fps", "1.3", "--seed", "8", "--workers", "1"])
    assert done.exit_code == 0, done.output
    with (folder / "boxes.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    chosen = {
        name: min((r for r in rows[1:] if r[0] == name), key=lambda r: abs(int(r[1]) - 30))
        for name in {r[0] for r in rows[1:]}
    }
    lines = [",".join(r) for r in (rows[0], *(chosen[name] for name in sorted(chosen)))]
    (folder / "one.csv").write_text("\n".join(lines) + "\n")
    return folder
