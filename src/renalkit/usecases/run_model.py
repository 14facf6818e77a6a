"""The networks of a run, computed with torch, as a model that predicts."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from renalkit.domain.cohort import ClassTask
from renalkit.errors import ModelRefused, StoreError
from renalkit.learn.options import TrainOptions
from renalkit.learn.outputs import Net
from renalkit.learn.predictor import load_trained, predict_batches
from renalkit.learn.prepared import PreparedSet
from renalkit.store.files import read_json
from renalkit.store.runs import FoldFolder, RunFolder
from renalkit.systems import get_system
from renalkit.systems._contract import RawOutputs
from renalkit.usecases.experiment import jobs_of
from renalkit.usecases.models import BATCH, Member, Model
from renalkit.usecases.results import stored_experiment
from renalkit.usecases.stored_ways import stored_ways


def load_run_model(path: Path) -> Model:
    """The networks of RUN/SYSTEM (every finished fold) or of one fold folder.

    Raises:
        ModelRefused: a whole run, no weights, weights that differ from what training recorded, or
            folds whose way from frames to patients is not known.
        StoreError: files of the run are missing or damaged.
    """
    if RunFolder(path).experiment_json.exists():
        labels = ", ".join(j.label for j in jobs_of(stored_experiment(RunFolder(path))))
        raise ModelRefused(
            "a run, not one of its systems",
            where=path.name,
            expected=f"RUN/SYSTEM with one of {labels}",
            remedy="name the system that shall predict",
        )
    one_fold = (path / "weights.safetensors").exists()
    system_folder = path.parent if one_fold else path
    run = RunFolder(system_folder.parent)
    experiment = stored_experiment(run)
    job = next((j for j in jobs_of(experiment) if j.label == system_folder.name), None)
    folders = [path] if one_fold else sorted(path.glob("fold-*"), key=_number)
    folds = [f for f in map(FoldFolder, folders) if f.done.exists() and f.weights.exists()]
    if job is None or not folds:
        raise ModelRefused(
            "no finished fold with weights",
            where=path.name,
            expected="RUN/SYSTEM or RUN/SYSTEM/fold-0 of a run that was trained here",
            remedy="train the experiment first",
        )
    if not run.cohort.exists():
        raise StoreError("no cohort.json", where=run.path.name, remedy="run the experiment again")
    task = ClassTask.parse(read_json(run.cohort)["task"])
    system = get_system(job.system)
    params, shape = system.params(job.params), job.shape(len(task.classes))
    ways = stored_ways(run, experiment, job, task, [_number(f.path) for f in folds])
    members: list[Member] = []
    for fold in folds:
        net = system.build(params, shape, job.task)
        sha256 = read_json(fold.done)["weights_sha256"]
        load_trained(net, fold.weights, sha256)
        stored = ways[_number(fold.path)]
        score = partial(_score, net, job.train)
        members.append(Member(stored.way.fold, sha256, score, stored.way, stored.threshold))
    named = f"{run.path.name}/{job.label}"
    return Model.of(named, "torch fp32", job, task, members)


def _number(fold: Path) -> int:
    return int(fold.name.removeprefix("fold-"))


def _score(net: Net, options: TrainOptions, data: PreparedSet) -> Iterator[RawOutputs]:
    yield from predict_batches(net, data, BATCH, "cpu", options.tta)
