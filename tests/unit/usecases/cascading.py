"""A finished run of a CT cascade whose networks are set by hand to see what is bright."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scanning import PLAN, ct_cohort, scan_run

from renalkit.domain.cohort import Cohort
from renalkit.domain.prediction import SystemRef
from renalkit.domain.volume import Volume
from renalkit.learn.outputs import Net
from renalkit.learn.predictor import save_weights
from renalkit.store.files import read_json, sha256_bytes, write_json
from renalkit.store.runs import REPORTING, RunFolder
from renalkit.store.scans import SCANS, load_scan, save_scan, saved_scans
from renalkit.systems.ct_cascade import (
    CascadeParams,
    build_kidney,
    build_lesion,
    build_mass,
    windowed,
)
from renalkit.usecases.cascade_evaluate import evaluate_scans
from renalkit.usecases.cascade_run_model import cascade_of_run
from renalkit.usecases.cascade_scan import Spoken, find_masses
from renalkit.usecases.progress import Silent

LABEL = "ct-cascade"
SAID = '[card]\nintended_use = "Research."\nlimitations = "Simulated."\nlicence = "CC-BY-4.0"\n'
PARAMS = {
    "kidney": {"spacing_mm": 9.0, "channels": [4, 4], "norm": "batch"},
    "mass": {
        "spacing_mm": [9.0, 5.0, 5.0],
        "patch": [16, 24, 24],
        "overlap": 0.25,
        "channels": [4, 4],
        "norm": "batch",
        "members": 1,
        "least_mm": 24.0,
    },
    "lesion": {"side": 16, "depth": 10, "width": 0.0625},
}
HU = {"kidney": ((125.0, 210.0),), "mass": ((125.0, 210.0), (70.0, 125.0))}
STEEP = 40.0


def seeing(net: Any, stage: str, shift_hu: float) -> Net:
    """A network whose outputs mark the voxels with HU in the ranges of its stage: the input goes
    through its first block as |x - middle| and along the skip connection to its last one."""
    first, last, head = net.down[0], net.up[-1].conv_block, net.heads[-1].conv.conv
    width = net.plan.channels[0]
    ways = (first.conv1, first.conv2, last.conv1, last.conv2)
    inward, together, skipped, onward = (way.conv.weight for way in ways)
    with torch.no_grad():
        head.weight.zero_()
        for out, (a_hu, b_hu) in enumerate(HU[stage]):
            low, high = windowed(np.array([a_hu, b_hu]) + shift_hu).tolist()
            a, b = 2 * out, 2 * out + 1
            inward[[a, b]], together[out], skipped[out], onward[out] = 0, 0, 0, 0
            centre = tuple(n // 2 for n in inward.shape[2:])
            inward[a, 0, *centre], inward[b, 0, *centre] = 1, -1
            first.norm1.bias[a], first.norm1.bias[b] = -(low + high) / 2, (low + high) / 2
            together[out, [a, b], *centre] = 1
            skipped[out, width + out, *centre] = 1
            onward[out, out, *centre] = 1
            head.weight[out, out] = -STEEP
            head.bias[out] = STEEP * (high - low) / 2
    return net


def small_cohort() -> Cohort:
    """Four patients, the last without a mass, one phase each."""
    return ct_cohort(4, replace(PLAN, matrix=64, slice_spacing_mm=9.0))


def cascade_run(folder: Path) -> RunFolder:
    """Two folds, their networks a little different, what they find stored and evaluated."""
    torch.set_num_threads(1)
    cohort = small_cohort()
    run = scan_run(folder, cohort)
    stored = read_json(run.experiment_json)
    stored["settings"]["params"] = CascadeParams.model_validate(PARAMS).model_dump(mode="json")
    write_json(run.experiment_json, stored)
    params = CascadeParams.model_validate(PARAMS)
    for fold in (0, 1):
        own = run.fold(LABEL, fold)
        torch.manual_seed(fold)
        nets = {
            "kidney": seeing(build_kidney(params.kidney), "kidney", 5.0 * fold),
            "mass-0": seeing(build_mass(params.mass), "mass", 5.0 * fold),
            "lesion": build_lesion(params.lesion, len(cohort.task.classes)),
        }
        digests: dict[str, str] = {}
        for name, net in nets.items():
            (own.path / name).mkdir(exist_ok=True)
            digests[name] = save_weights(net, own.path / name / "weights.safetensors")
        together = sha256_bytes("".join(digests[n] for n in sorted(digests)).encode())
        done = {"digest": "0" * 64, "weights_sha256": together, "networks": digests}
        write_json(own.done, done | {"train_seconds": 1.0, "seconds_per_scan": 1.0})
        _store(run, cohort, fold, together)
    evaluate_scans(run.path, Silent())
    (run.path / REPORTING).write_text(SAID)
    return run


def _store(run: RunFolder, cohort: Cohort, fold: int, together: str) -> None:
    """What a fold finds on its tested scans, in place of what is there."""
    cascade = cascade_of_run(run.fold(LABEL, fold).path)
    studies = {study.key: study for study in cohort.studies}
    folder = run.fold(LABEL, fold).path / SCANS
    ref = SystemRef(LABEL, LABEL, together)
    for path in saved_scans(folder):
        key = load_scan(path).key
        volume = studies[key.study].clips[key.clip]
        assert isinstance(volume, Volume)
        spoken = Spoken(key, ref, fold, cascade.classes)
        save_scan(folder, find_masses(volume, cascade.stages, cascade.params, spoken))
