"""From the experiment file of a CT cascade to a report: every step resumes where an earlier attempt
ended."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from renalkit.domain.splits import Plan
from renalkit.errors import ConfigError, Exit, InputRefused, Locked, Reason
from renalkit.store.files import read_json
from renalkit.store.runs import RunFolder, write_manifest
from renalkit.store.splits import save_split
from renalkit.usecases.cascade_evaluate import evaluate_scans
from renalkit.usecases.cascade_experiment import CascadeExperiment, read_cascade
from renalkit.usecases.cascade_train import CascadeTraining, train_cascade_fold, used_scans
from renalkit.usecases.divide import checked_groups, divide, keep_cohort, refuse_taken, settle
from renalkit.usecases.hu_baseline import write_hu_baseline
from renalkit.usecases.parts import load_data
from renalkit.usecases.progress import Progress
from renalkit.usecases.report import write_report
from renalkit.usecases.run_request import Beside, RunRequest, keep_record, other_processes


def prepare_cascade(request: RunRequest, progress: Progress) -> CascadeTraining:
    """Read, check and divide. The run takes its name only once nothing stands in its way.

    Raises ConfigError, CheckFailed (a leak not waived), InputRefused (no labelled scan, or a fold
    lacks one), StoreError (the run's name is taken by other settings or another cohort).
    """
    if request.init_from:
        raise ConfigError(["--init-from: a CT cascade starts from drawn weights"])
    experiment = read_cascade(request.experiment, request.overrides)
    folder = RunFolder(request.output / experiment.name)
    progress.stage("reading the cohort")
    cohort, outside = load_data(experiment)
    refuse_taken(folder, experiment)
    _refuse_plans(experiment)
    scans = used_scans(cohort, experiment)
    waivers = tuple(sorted({*experiment.waive, *request.waive}))
    groups = checked_groups(folder, cohort, waivers, progress)
    split = divide(folder, experiment, (cohort, outside), groups)
    patients = {key.patient for key in scans}
    for fold in split.folds:
        for name in ("train", "test"):
            if not patients & getattr(fold, name):
                raise InputRefused(
                    Reason.BAD_ANNOTATION,
                    f"fold {fold.index}: no labelled scan in its {name} part",
                    where=cohort.name,
                    expected="labelled scans in every fold",
                    remedy="use fewer folds",
                )
    settle(folder, experiment, (request.experiment, request.overrides))
    keep_cohort(folder, cohort)
    save_split(folder.folds, split)
    return CascadeTraining(folder, experiment, cohort, split, groups, scans)


def _refuse_plans(experiment: CascadeExperiment) -> None:
    """Every scan is tested once."""
    wanted = experiment.split
    if wanted.plan is Plan.REPEATED_KFOLD or (wanted.plan is Plan.HOLDOUT and wanted.folds > 1):
        raise ConfigError(
            [f"split.plan: '{wanted.plan}' tests a scan several times; use 'kfold', or 1 fold"]
        )


def train_cascade(request: RunRequest, progress: Progress) -> dict[str, Any]:
    """Check, divide and train; `complete` tells whether every fold is finished."""
    return _train(request, prepare_cascade(request, progress), progress)


def _train(request: RunRequest, training: CascadeTraining, progress: Progress) -> dict[str, Any]:
    with other_processes(request) as helpers:
        trained = [train_cascade_fold(training, f, progress) for f in training.split.folds]
        for child in helpers:
            child.wait()
    failed = [c.returncode for c in helpers if c.returncode not in (0, Exit.OK)]
    whole = training.experiment.stages[-1] == "lesion"
    # A fold that a helper held is done once the helper ended well.
    done = bool(helpers) or all(trained)
    finished = [
        f.index for f in training.split.folds if training.fold(f.index).finished(training.digest(f))
    ]
    return {
        "run": training.experiment.name,
        "folder": str(training.folder.path),
        "finished": {training.experiment.label: finished},
        "stages": list(training.experiment.stages),
        "complete": not failed and (len(finished) == len(training.split.folds) if whole else done),
    }


def run_cascade(
    request: RunRequest, progress: Progress, beside: Beside | None = None
) -> dict[str, Any]:
    """Train what is missing, then evaluate and write the report; with some stages only, train."""
    started = datetime.now(UTC)
    training = prepare_cascade(request, progress)
    trained = _train(request, training, progress)
    folder = training.folder
    if trained["stages"][-1] != "lesion":
        return trained
    if not trained["complete"]:
        raise Locked(
            "another process is still training folds of this run",
            where=folder.path.name,
            remedy="wait for it, then run the same command again",
        )
    if training.experiment.baseline:
        write_hu_baseline(folder, (training.cohort, training.split), training.scans, progress)
    seconds = sum(
        read_json(training.fold(f.index).done)["train_seconds"] for f in training.split.folds
    )
    return {**trained, **finish_cascade(folder, (seconds, started), progress, beside)}


def finish_cascade(
    folder: RunFolder,
    took: tuple[float, datetime],
    progress: Progress,
    beside: Beside | None = None,
) -> dict[str, str]:
    """Figures, record, what is to lie beside them, report and manifest of a run whose scans are
    stored; where report and figures lie. took: seconds of training, and when this attempt began."""
    evaluate_scans(folder.path, progress)
    keep_record(folder, folder.path.name, *took)
    if beside is not None:
        beside(folder)
    report = write_report(folder.path, None, progress)
    write_manifest(folder.path)
    return {"report": str(report), "metrics": str(folder.metrics)}
