"""From an experiment file to a report: every step resumes where an earlier attempt ended."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from renalkit.config import read_toml
from renalkit.domain.cohort import Cohort
from renalkit.domain.splits import Split
from renalkit.errors import Exit, InputRefused, Locked, Reason
from renalkit.store.runs import (
    RunFolder,
    write_manifest,
)
from renalkit.store.splits import load_split, save_split, write_nnunet
from renalkit.usecases.cascade_experiment import is_cascade
from renalkit.usecases.clinical_model import clinical_columns
from renalkit.usecases.divide import (
    checked_groups,
    divide,
    keep_cohort,
    nnunet_cases,
    refuse_taken,
    settle,
)
from renalkit.usecases.experiment import Experiment, Job, jobs_of, read_experiment
from renalkit.usecases.features import with_named_features
from renalkit.usecases.parts import load_data, require_truth, samples_of
from renalkit.usecases.progress import Progress
from renalkit.usecases.results import stored_experiment
from renalkit.usecases.run_request import Beside, RunRequest, keep_record, other_processes
from renalkit.usecases.transfer import choose_initial, keep_initial


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run ready to train: settings read, cohort checked, patients divided."""

    folder: RunFolder
    experiment: Experiment
    jobs: tuple[Job, ...]
    cohort: Cohort
    split: Split
    waivers: tuple[str, ...]


def prepare_run(request: RunRequest, progress: Progress) -> Prepared:
    """Read, check and divide. The run takes its name only once nothing stands in its way.

    Raises ConfigError (also for facts the clinical model or a system cannot use), CheckFailed (a
    leak not waived, or initial weights that have seen patients they may not), InputRefused (a fold
    lacks its truth), ModelRefused (initial weights do not fit),
    StoreError (the run's name is taken by other settings or another cohort).
    """
    experiment = read_experiment(request.experiment, request.overrides)
    experiment = experiment.started_from(request.init_from)
    jobs_of(experiment)
    folder = RunFolder(request.output / experiment.name)
    progress.stage("reading the cohort")
    cohort, outside = load_data(experiment)
    experiment = with_named_features(experiment, cohort)
    jobs = jobs_of(experiment)
    refuse_taken(folder, experiment)
    clinical_columns(cohort, experiment.clinical.columns)
    samples = samples_of(cohort, experiment.input.region)
    if not samples:
        outlined = " and an outlined lesion" if experiment.input.region == "lesion" else ""
        raise InputRefused(
            Reason.BAD_ANNOTATION,
            f"no B-mode frame with a label or a mask{outlined}",
            where=cohort.name,
            expected="labels or masks for the task",
            remedy="look at 'renalkit cohort show' and ingest again with a label table",
        )
    waivers = tuple(sorted({*experiment.waive, *request.waive}))
    groups = checked_groups(folder, cohort, waivers, progress)
    split = divide(folder, experiment, (cohort, outside), groups)
    require_truth(samples, split.folds, jobs)
    initial = choose_initial(folder, jobs, cohort, split, groups, progress)
    settle(folder, experiment, (request.experiment, request.overrides))
    keep_cohort(folder, cohort)
    save_split(folder.folds, split)
    keep_initial(folder, initial)
    return Prepared(folder, experiment, jobs, cohort, split, waivers)


def train_experiment(request: RunRequest, progress: Progress) -> dict[str, Any]:
    """Check, divide and train; `complete` tells whether every fold is finished."""
    if is_cascade(read_toml(request.experiment)):
        from renalkit.usecases.cascade_run import train_cascade

        return train_cascade(request, progress)
    from renalkit.usecases.train import Training, finished_folds, time_job, train_fold_of

    prepared = prepare_run(request, progress)
    training = Training(
        prepared.folder,
        prepared.cohort,
        prepared.split,
        samples_of(prepared.cohort, prepared.experiment.input.region),
        prepared.experiment.workers,
    )
    with other_processes(request) as helpers:
        # Fold by fold over all systems, so that a stopped run still has whole folds to compare.
        for fold in prepared.split.folds:
            for job in prepared.jobs:
                if not job.folds or fold.index in job.folds:
                    train_fold_of(training, job, fold, progress)
        for child in helpers:
            child.wait()
    for job in prepared.jobs:
        time_job(training, job)
    failed = [c.returncode for c in helpers if c.returncode not in (0, Exit.OK)]
    done = {job.label: finished_folds(training, job) for job in prepared.jobs}
    wanted = sum(len(job.folds) or len(prepared.split.folds) for job in prepared.jobs)
    return {
        "run": prepared.experiment.name,
        "folder": str(prepared.folder.path),
        "finished": done,
        "complete": sum(len(f) for f in done.values()) == wanted and not failed,
    }


def train_words(found: dict[str, Any]) -> str:
    """The state of training for a person."""
    lines = [
        f"{label}: folds {', '.join(map(str, f)) or 'none'}"
        for label, f in found["finished"].items()
    ]
    lines.append(
        "complete" if found["complete"] else "not complete; run the same command to resume"
    )
    return "\n".join(lines)


def run_experiment(
    request: RunRequest, progress: Progress, beside: Beside | None = None
) -> dict[str, Any]:
    """Train what is missing, then evaluate, compare and write the report."""
    if is_cascade(read_toml(request.experiment)):
        from renalkit.usecases.cascade_run import run_cascade

        return run_cascade(request, progress, beside)
    started = datetime.now(UTC)
    trained = train_experiment(request, progress)
    folder = RunFolder(Path(trained["folder"]))
    if not trained["complete"]:
        raise Locked(
            "another process is still training folds of this run",
            where=folder.path.name,
            remedy="wait for it, then run the same command again",
        )
    return finish_run(folder, trained, started, progress, beside)


def finish_run(
    folder: RunFolder,
    trained: dict[str, Any],
    since: datetime,
    progress: Progress,
    beside: Beside | None = None,
) -> dict[str, Any]:
    """Everything after training: figures, comparisons, report, record, manifest."""
    from renalkit.usecases.evaluate import evaluate_run
    from renalkit.usecases.report import write_report

    metrics = evaluate_run(folder.path, progress)
    trainings = [t for s in metrics["systems"] for t in s["training"]]
    keep_record(folder, trained["run"], sum(t["train_seconds"] for t in trainings), since)
    if beside is not None:
        beside(folder)
    report = write_report(folder.path, None, progress)
    write_manifest(folder.path)
    return {**trained, "report": str(report), "metrics": str(folder.metrics)}


def run_words(found: dict[str, Any]) -> str:
    """The end of a run for a person."""
    report = f"\nreport: {found['report']}" if "report" in found else ""
    return f"{train_words(found)}{report}"


def export_splits(path: Path, output: Path) -> None:
    """Write the folds of a run in nnU-Net's form, one case per frame."""
    folder = RunFolder(path)
    cohort, _ = load_data(stored_experiment(folder))
    write_nnunet(output, load_split(folder.folds), nnunet_cases(cohort))
