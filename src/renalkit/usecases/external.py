"""How good are the trained models of a run in another hospital? An external test, as a run.

The networks of every fold predict the other cohort, nothing is trained. The result is a run of its
own (plan `external`, one tested part that all folds share), so every figure, comparison and the
report come about as in any run: per fold, and pooled as the mean of the folds with the median of
the thresholds they had chosen on their own validation parts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from renalkit.domain.cohort import Cohort
from renalkit.domain.prediction import SystemRef
from renalkit.domain.sample import Sample
from renalkit.domain.splits import Fold, Plan, Split
from renalkit.errors import ModelRefused
from renalkit.learn.data import prepare
from renalkit.learn.predictor import load_trained
from renalkit.store.files import (
    locked,
    read_json,
    write_bytes,
    write_json,
)
from renalkit.store.predictions import load_predictions, save_predictions
from renalkit.store.runs import RunFolder
from renalkit.store.splits import load_split
from renalkit.systems import get_system
from renalkit.usecases.clinical_model import stored_clinical_job
from renalkit.usecases.experiment import Experiment, Job, jobs_of
from renalkit.usecases.external_run import ExternalRequest, begin_external, external_settings
from renalkit.usecases.models import prediction_of
from renalkit.usecases.parts import fold_digest, load_data, samples_of, usable
from renalkit.usecases.progress import Progress
from renalkit.usecases.results import stored_experiment
from renalkit.usecases.run import finish_run
from renalkit.usecases.train import decode_all


@dataclass(frozen=True, slots=True)
class _Setting:
    """A run to be tested, and the run that comes of it."""

    source: RunFolder
    folder: RunFolder
    experiment: Experiment
    jobs: tuple[Job, ...]
    cohort: Cohort
    outside: tuple[Sample, ...]
    split: Split


def run_external(request: ExternalRequest, progress: Progress) -> dict[str, Any]:
    """Test the models of a run on another cohort; finished folds are kept, so it resumes.

    Raises:
        CheckFailed: L12, patients or pictures of the development cohort are among the external
            ones; or pictures that look alike, unless L03 is waived.
        ConfigError: the cohorts ask different questions, or the name is taken by another test.
        ModelRefused: no finished fold with weights.
    """
    started = datetime.now(UTC)
    setting = _set_up(request, progress)
    with locked(setting.folder.path):
        for job in setting.jobs:
            _test_system(setting, job, progress)
    done = {job.label: [f.index for f in _folds(setting, job)] for job in setting.jobs}
    made: dict[str, Any] = {
        "run": setting.experiment.name,
        "folder": str(setting.folder.path),
        "finished": done,
        "complete": True,
    }
    return finish_run(setting.folder, made, started, progress)


def _set_up(request: ExternalRequest, progress: Progress) -> _Setting:
    source = RunFolder(request.run)
    first = stored_experiment(source)
    jobs = tuple(j for j in jobs_of(first) if _trained(source, j, range(len(_parts(source)))))
    if not jobs:
        raise ModelRefused(
            "no finished fold with weights",
            where=request.run.name,
            expected="a run that was trained here",
            remedy="train the experiment first",
        )
    experiment = _experiment(first, source, request)
    progress.stage("reading the cohorts")
    cohort, outside = load_data(experiment)
    development = load_split(source.folds)
    folds = tuple(replace(f, test=outside, name="external") for f in development.folds)
    split = Split(Plan.EXTERNAL, development.seed, folds, shared_test=True)
    folder = begin_external(request, experiment, (cohort, outside), split, progress)
    every = samples_of(cohort, experiment.input.region)
    samples = tuple(s for s in every if s.key.patient in outside)
    return _Setting(source, folder, experiment, jobs, cohort, samples, split)


def _parts(source: RunFolder) -> tuple[Fold, ...]:
    return load_split(source.folds).folds


def _experiment(first: Experiment, source: RunFolder, request: ExternalRequest) -> Experiment:
    """The experiment of the run with another tested part and the clinical model it had."""
    plain = external_settings(first, request)
    clinical = stored_clinical_job(source, first)
    plain["clinical"] = {"columns": [] if clinical is None else clinical.params["columns"]}
    return Experiment.model_validate(plain)


def _trained(source: RunFolder, job: Job, folds: range) -> list[int]:
    found = [source.fold(job.label, k) for k in folds]
    return [k for k, f in zip(folds, found, strict=True) if f.done.exists() and f.weights.exists()]


def _folds(setting: _Setting, job: Job) -> list[Fold]:
    trained = _trained(setting.source, job, range(len(setting.split.folds)))
    return [setting.split.folds[k] for k in trained]


def _test_system(setting: _Setting, job: Job, progress: Progress) -> None:
    system = get_system(job.system)
    params = system.params(job.params)
    shape = job.shape(len(setting.cohort.task.classes))
    own = setting.folder.system(job.label)
    for old in (setting.source.complexity(job.label), setting.source.timing(job.label)):
        if old.exists() and not (own / old.name).exists():
            write_json(own / old.name, read_json(old))
    data, tested = None, list[Sample]()
    for fold in _folds(setting, job):
        digest = fold_digest(job, setting.cohort.digest, setting.split.digest, fold.index)
        target = setting.folder.fold(job.label, fold.index)
        if target.finished(digest):
            continue
        progress.stage(f"{job.label}: fold {fold.index + 1} of {len(setting.split.folds)}")
        if data is None:
            workers = setting.experiment.workers
            data = prepare(
                setting.outside, job.input, setting.source.cache, workers, progress, job.inputs
            )
            there = usable(data, system, "test", np.arange(len(setting.outside)))
            data, tested = data.take(there), [setting.outside[i] for i in there]
        before = setting.source.fold(job.label, fold.index)
        known = read_json(before.done)
        net = system.build(params, shape, job.task)
        load_trained(net, before.weights, known["weights_sha256"])
        decoded = decode_all(system, params, net, data, job.train)
        ref = SystemRef(job.system, job.label, known["weights_sha256"])
        found = [
            prediction_of(sample, result, place, ref, fold.index)
            for sample, result, place in zip(tested, decoded, data.placements, strict=True)
        ]
        write_bytes(target.weights, before.weights.read_bytes())
        save_predictions(target.test, found)
        save_predictions(target.validation, load_predictions(before.validation))
        counts = {n: len(getattr(fold, n)) for n in ("train", "validation", "test")}
        images = {**known["images"], "test": len(found)}
        write_json(target.done, known | {"digest": digest, "images": images, "patients": counts})
