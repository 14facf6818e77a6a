"""How good is a trained CT cascade in another hospital? An external test, as a run.

All folds look at every scan of the other cohort together, as they do when they leave the run: the
mean probability counts at every stage. Nothing is trained. The result is a run of its own with one
part (plan `external`), so figures and report come about as in any run of a cascade.
"""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from renalkit.domain.sample import SampleKey
from renalkit.domain.splits import Fold, Plan, Split
from renalkit.domain.volume import Volume
from renalkit.errors import InputRefused, ModelRefused, Reason
from renalkit.store.files import locked, sha256_bytes, write_json
from renalkit.store.runs import FoldFolder, RunFolder
from renalkit.store.scans import SCANS, save_scan, saved_system
from renalkit.store.splits import load_split
from renalkit.usecases.cascade_experiment import CascadeExperiment, stored_cascade
from renalkit.usecases.cascade_model import CascadeModel
from renalkit.usecases.cascade_run import finish_cascade
from renalkit.usecases.cascade_run_model import cascade_of_run
from renalkit.usecases.cascade_train import CascadeTraining, used_scans
from renalkit.usecases.external_run import ExternalRequest, begin_external, external_settings
from renalkit.usecases.hu_baseline import write_hu_baseline
from renalkit.usecases.parts import load_data
from renalkit.usecases.progress import Progress


def run_cascade_external(request: ExternalRequest, progress: Progress) -> dict[str, Any]:
    """Test the cascade of a run on another cohort; scans that are done are kept, so it resumes.

    Raises:
        CheckFailed: L12, patients or scans of the development cohort are among the external ones;
            or scans that look alike, unless L03 is waived.
        ConfigError: the cohorts ask different questions, or the name is taken by another test.
        InputRefused: no external scan with labels of the phases it was trained on.
        ModelRefused: no finished fold with weights.
    """
    started = datetime.now(UTC)
    stored = stored_cascade(RunFolder(request.run))
    if stored is None:
        raise ModelRefused(
            "no run of a CT cascade", where=request.run.name, expected="the folder of such a run"
        )
    experiment = CascadeExperiment.model_validate(external_settings(stored, request))
    model = cascade_of_run(request.run)
    progress.stage("reading the cohorts")
    cohort, outside = load_data(experiment)
    scans = tuple(k for k in used_scans(cohort, experiment) if k.patient in outside)
    if not scans:
        raise InputRefused(
            Reason.BAD_ANNOTATION,
            "no labelled scan of the phases the cascade learnt from",
            where=request.external.name,
            expected="CT scans on which kidneys and masses are labelled",
            remedy="ingest them with their label files; without labels use 'renalkit predict'",
        )
    development = load_split(RunFolder(request.run).folds)
    seen = frozenset(p for f in development.folds for p in f.train | f.validation | f.test)
    fold = Fold(0, seen, frozenset(), outside, "external")
    split = Split(Plan.EXTERNAL, development.seed, (fold,), shared_test=True)
    folder = begin_external(request, experiment, (cohort, outside), split, progress)
    test = CascadeTraining(folder, experiment, cohort, split, {}, scans)
    with locked(folder.path):
        _test(test, model, progress)
        if experiment.baseline:
            write_hu_baseline(folder, (cohort, split), scans, progress)
    written = finish_cascade(folder, (0.0, started), progress)
    return {
        "run": experiment.name,
        "folder": str(folder.path),
        "finished": {experiment.label: [0]},
        "complete": True,
        **written,
    }


def _test(test: CascadeTraining, model: CascadeModel, progress: Progress) -> None:
    """What the cascade says of every scan that is not there yet."""
    fold = test.split.folds[0]
    target = test.fold(fold.index)
    digest = sha256_bytes(f"{test.digest(fold)}\n{model.system.weights_sha256}".encode())
    if target.finished(digest):
        return
    studies = {study.key: study for study in test.cohort.studies}
    progress.stage(f"{test.experiment.label}: external scans", len(test.scans))
    seconds: list[float] = []
    for key in test.scans:
        if not _there(target, key, model):
            volume = studies[key.study].clips[key.clip]
            assert isinstance(volume, Volume)
            began = time.monotonic()
            found = model.find(volume, key)
            seconds.append(time.monotonic() - began)
            save_scan(target.path / SCANS, replace(found, fold=fold.index))
        progress.advance()
    write_json(
        target.done,
        {
            "digest": digest,
            "weights_sha256": model.system.weights_sha256,
            "patients": {n: len(getattr(fold, n)) for n in ("train", "validation", "test")},
            "scans": {"test": len(test.scans)},
            "train_seconds": 0.0,
            "seconds_per_scan": round(sum(seconds) / max(1, len(seconds)), 2),
        },
    )


def _there(target: FoldFolder, key: SampleKey, model: CascadeModel) -> bool:
    """Whether an earlier attempt with these very networks has stored this scan."""
    path = target.path / SCANS / f"{key.text}.json"
    return path.exists() and saved_system(path) == model.system
