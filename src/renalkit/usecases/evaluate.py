"""What the stored predictions of a run say, with intervals over patients.

Everything is computed again from predictions and cohort, without torch: segmentation per frame,
classification per patient and per frame, thresholds from the validation part of each fold only.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from math import isfinite
from pathlib import Path

import numpy as np
import numpy.typing as npt

from renalkit.domain.cohort import Cohort, study_label
from renalkit.domain.pairs import paired_samples
from renalkit.domain.prediction import Prediction, Unit
from renalkit.domain.splits import Plan
from renalkit.errors import ConfigError
from renalkit.metrics.auc_inference import auc_estimate, mean_auc
from renalkit.metrics.bootstrap import (
    BootstrapPlan,
    MeanOfStatistics,
    RatioOfSums,
    Statistic,
    mean_of_rows,
)
from renalkit.metrics.classification import Threshold, confusion_matrix, roc_curve
from renalkit.metrics.segmentation import (
    LengthUnit,
)
from renalkit.store.cohorts import load_account
from renalkit.store.files import read_json, write_json, write_text
from renalkit.store.runs import RunFolder, amending_manifest
from renalkit.store.splits import load_split
from renalkit.usecases.call_figures import call_figures
from renalkit.usecases.cascade_evaluate import KIND, evaluate_scans, main_figures
from renalkit.usecases.characteristics import write_characteristics
from renalkit.usecases.clinical_coefficients import write_coefficients
from renalkit.usecases.clinical_model import fit_clinical
from renalkit.usecases.differences import comparisons_of
from renalkit.usecases.folds import classes_by_fold, masks_by_fold, spread
from renalkit.usecases.images import write_images
from renalkit.usecases.lesions import write_lesions
from renalkit.usecases.ordinal_figures import ordinal_figures
from renalkit.usecases.parts import load_data
from renalkit.usecases.patients import decided_per_fold, patients_of
from renalkit.usecases.progress import Progress
from renalkit.usecases.reader_ceiling import keep_outlines, write_reader_ceiling
from renalkit.usecases.reader_results import write_readers
from renalkit.usecases.results import (
    CASE_SCORES,
    Case,
    Json,
    RunResults,
    SystemResults,
    bootstrap_plan,
    bootstrapped,
    called_class,
    figure,
    positive_class,
    read_results,
    share_of_rows,
    stored_experiment,
    undefined_json,
)
from renalkit.usecases.subgroups import write_subgroups
from renalkit.usecases.usefulness import write_usefulness

Floats = npt.NDArray[np.float64]
_CASE_COLUMNS = (
    *("label", "fold", "patient", "study", "lesion", "clip", "frame", "class"),
    *CASE_SCORES,
    *("area_error", "diameter_error", "unit", "note"),
)


# ---------------------------------------------------------------- segmentation


def _segmentation(results: RunResults, system: SystemResults) -> Json | None:
    lesions = [c for c in system.pooled_cases if c.has_lesion]
    if not lesions:
        return None
    plan = results.plan
    empty = [c for c in system.pooled_cases if not c.has_lesion]
    by_class = {
        name: [c for c in lesions if c.of_class == name]
        for name in results.task.classes
        if any(c.of_class == name for c in lesions)
    }
    rule = results.statistics
    unit = lesions[0].unit
    return {
        "n_frames": len(lesions),
        "n_patients": len({c.key.patient for c in lesions}),
        "pooled": {name: _mean_case(lesions, name, plan) for name in CASE_SCORES},
        "by_class": {
            name: {
                "n_frames": len(cases),
                "dice": _mean_case(cases, "dice", plan),
                "iou": _mean_case(cases, "iou", plan),
            }
            for name, cases in by_class.items()
        },
        "fold_mean": {n: spread(v) for n, v in masks_by_fold(system).items()},
        "missed": sum(c.scores["dice"] == 0 for c in lesions),
        "length_unit": unit,
        "definition": rule.surface_definition,
        "tolerance": rule.tolerance_mm if unit == LengthUnit.MM else rule.tolerance_px,
        "infinite": sum(not isfinite(c.scores["hd95"]) for c in lesions),
        "empty_reference": None if not empty else _empty_reference(empty, plan),
    }


def _mean_case(cases: Sequence[Case], name: str, plan: BootstrapPlan) -> Json:
    """Mean over frames; infinite distances (an empty prediction) are left out and counted."""
    kept = [c for c in cases if isfinite(c.scores[name])]
    if not kept:
        return undefined_json(0, Unit.PATIENT, "no case with a finite value", plan.level)
    values = np.array([c.scores[name] for c in kept])
    return bootstrapped(mean_of_rows(values), [c.key.patient for c in kept], plan)


def _empty_reference(cases: Sequence[Case], plan: BootstrapPlan) -> Json:
    clean = [c.note == "both empty" for c in cases]
    groups = [c.key.patient for c in cases]
    return {"n_frames": len(cases), "clean": share_of_rows(clean, groups, plan)}


# ---------------------------------------------------------------- classification


def _classification(results: RunResults, system: SystemResults) -> Json | None:
    if all(p.scores is None for p in system.test):
        return None
    said = patients_of(results, system)
    found: Json = {
        "patient": _unit_figures(results, said.pooled, said.thresholds, Unit.PATIENT),
        "frame": _unit_figures(results, said.frames, said.frame_thresholds, Unit.FRAME),
        "fold_mean": {n: spread(v) for n, v in classes_by_fold(results, system).items()},
        "thresholds": [
            {"fold": fold, "value": t.value, "rule": t.rule, "n": t.source_n}
            for fold, t in sorted(said.thresholds.items())
        ],
    }
    if decided_per_fold(results.statistics):
        found["ways"] = [way.as_json() for way in said.ways]
    return found


def _unit_figures(
    results: RunResults,
    predictions: Sequence[Prediction],
    thresholds: dict[int, Threshold],
    unit: Unit,
) -> Json:
    known = [p for p in predictions if p.target is not None]
    if not known:
        return {"n": 0, "excluded": len(predictions), "note": "no truth is known"}
    positive = positive_class(results)
    truth = np.array([p.target for p in known], dtype=np.intp)
    called = np.array([called_class(p, thresholds, positive) for p in known], dtype=np.intp)
    scores = np.array([p.scores for p in known])
    groups = [p.key.patient for p in known]
    matrix = confusion_matrix(truth, called, len(results.task.classes))
    shared = {
        "n": len(known),
        "excluded": len(predictions) - len(known),
        "macro": positive is None,
        "confusion": matrix.tolist(),
        "note": "" if len(known) == len(predictions) else "units whose truths disagree left out",
    }
    right = mean_of_rows((truth == called).astype(float))
    if positive is None:
        return shared | _several_classes(results, (truth, called, scores), groups, right, unit)
    return shared | _two_classes(
        results, (truth == positive, called == positive, scores[:, positive]), groups, unit
    )


def _several_classes(
    results: RunResults,
    data: tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], Floats],
    groups: Sequence[str],
    right: Statistic,
    unit: Unit,
) -> Json:
    truth, called, scores = data
    plan, classes = results.plan, results.task.classes
    present = [k for k in range(len(classes)) if 0 < int((truth == k).sum()) < len(truth)]
    parts = [((truth == k).astype(int), scores[:, k]) for k in present]
    curves = {classes[k]: _roc(truth == k, scores[:, k]) for k in present}
    n_groups = len(set(groups))
    if len(present) < len(classes):
        area = undefined_json(n_groups, Unit.PATIENT, "a class does not occur", plan.level)
    else:
        patients = None if unit is Unit.PATIENT else np.asarray(groups)
        area = figure(lambda: mean_auc(parts, patients, plan.level), n_groups, plan.level)
    overlaps = tuple(
        RatioOfSums(2.0 * ((truth == k) & (called == k)), 1.0 * (truth == k) + 1.0 * (called == k))
        for k in range(len(classes))
    )
    f1 = bootstrapped(MeanOfStatistics(overlaps), groups, plan)
    none = dict.fromkeys(("sensitivity", "specificity", "ppv", "npv"))
    accuracy = bootstrapped(right, groups, plan)
    recall = {
        classes[k]: share_of_rows(
            (called[truth == k] == k).tolist(),
            [g for g, t in zip(groups, truth, strict=True) if t == k],
            plan,
        )
        for k in present
    }
    found = {"auc": area, "accuracy": accuracy, "f1": f1, "recall": recall, "rocs": curves, **none}
    if results.task.ordered:
        found["ordinal"] = ordinal_figures((truth, called, scores), groups, classes, plan, unit)
    return found


def _two_classes(
    results: RunResults,
    data: tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_], Floats],
    groups: Sequence[str],
    unit: Unit,
) -> Json:
    truth, called, scores = data
    plan = results.plan
    n_groups = len(set(groups))
    independent = unit is Unit.PATIENT
    patients = None if independent else np.asarray(groups)
    area = figure(
        lambda: auc_estimate(truth.astype(int), scores, patients, plan.level), n_groups, plan.level
    )
    curve = _roc(truth, scores) if 0 < int(truth.sum()) < len(truth) else None
    figures = call_figures(truth, called, groups, plan, independent=independent)
    return {"auc": area, "roc": curve, **figures}


def _roc(truth: npt.NDArray[np.bool_], scores: Floats) -> Json:
    curve = roc_curve(truth.astype(int), scores)
    return {"fpr": curve.false_positive_rate.tolist(), "tpr": curve.true_positive_rate.tolist()}


# ---------------------------------------------------------------- the cohort in counts


def cohort_counts(
    cohort: Cohort, folders: Sequence[Path] = (), external: frozenset[str] = frozenset()
) -> Json:
    """Flow, classes, scanners and the account of files, as counts.

    A picture and its contrast partner are two images. folders: of the cohort and, where one tests
    the models, of the external cohort. external: patients of the latter.
    """
    rows: dict[str, tuple[set[str], int]] = {}
    scanners: dict[str, tuple[set[str], int]] = {}
    sites: dict[str, tuple[set[str], int]] = {}
    for s in paired_samples(cohort):
        label = "unlabelled" if s.label is None else cohort.task.classes[s.label]
        site = s.study.site or "unknown"
        for table, name in ((rows, label), (scanners, s.study.scanner.name), (sites, site)):
            people, images = table.get(name, (set[str](), 0))
            table[name] = (people | {s.key.patient}, images + 1 + (s.beside is not None))
    flow = cohort.flow
    account = Counter(line.outcome for folder in folders for line in load_account(folder))
    elsewhere = [s for s in cohort.studies if s.patient in external]
    return {
        "flow": {**asdict(flow), "excluded": [list(e) for e in flow.excluded]},
        "classes": [_count(rows[n]) | {"label": n} for n in sorted(rows)],
        "scanners": [_count(scanners[n]) | {"name": n} for n in sorted(scanners)],
        "sites": [_count(sites[n]) | {"name": n} for n in sorted(sites)],
        "account": [{"outcome": str(n), "files": account[n]} for n in sorted(account)],
        "patient_known": all(s.patient_known for s in cohort.studies),
        "external": {
            "patients": len({s.patient for s in elsewhere}),
            "images": sum(c.n_frames for s in elsewhere for c in s.clips),
        },
        "mixed_patients": sum(study_label(s) is None for s in cohort.studies),
    }


def _count(found: tuple[set[str], int]) -> Json:
    return {"patients": len(found[0]), "images": found[1]}


# ---------------------------------------------------------------- the whole


def evaluate_run(
    path: Path,
    progress: Progress,
    cohort_path: Path | None = None,
    outlines: Path | None = None,
) -> Json:
    """Compute and write the figures of a run; fits the clinical model first where it is missing.

    metrics.json, comparisons.json, images.json, cases.csv; characteristics.json, subgroups.json
    and lesions.json, these as CSV too. outlines: readers' outlines, for the Dice between readers.
    A run with CT scans: `evaluate_scans`.
    """
    folder = RunFolder(path)
    if folder.holds_scans:
        if outlines is not None:
            raise ConfigError(["--outlines: of a run with CT scans there are none"])
        return evaluate_scans(path, progress, cohort_path)
    experiment = stored_experiment(folder)
    cohort = load_data(experiment, cohort_path)[0]
    progress.stage("clinical model")
    with amending_manifest(path):
        fit_clinical(folder, experiment, cohort)
        if outlines is not None:
            where = cohort_path or experiment.cohort
            plan = bootstrap_plan(experiment.statistics)
            keep_outlines(folder, outlines, (cohort, where), plan)
    results = read_results(path, progress, cohort_path)
    return evaluate_results(results, cohort_path, progress)


def evaluate_results(results: RunResults, cohort_path: Path | None, progress: Progress) -> Json:
    """Figures of results already read; writes the same files as `evaluate_run`."""
    folder = results.folder
    progress.stage("figures", len(results.systems))
    systems: list[Json] = []
    n_folds = len(load_split(folder.folds).folds)
    for system in results.systems:
        wanted = set(system.job.folds) or set(range(n_folds))
        systems.append(
            {
                "label": system.job.label,
                "system": system.job.system,
                "task": system.job.task.value,
                "folds": list(system.folds),
                "complete": wanted <= set(system.folds),
                "segmentation": _segmentation(results, system),
                "classification": _classification(results, system),
                "training": [_training(folder, system.job.label, f) for f in system.folds],
                "complexity": _complexity(folder, system.job.label),
            }
        )
        progress.advance()
    metrics: Json = {
        "schema": 1,
        "cohort_digest": results.cohort.digest,
        "split_digest": load_split(folder.folds).digest,
        "task": results.task.plain,
        "statistics": results.statistics.model_dump(mode="json"),
        "cohort": cohort_counts(results.cohort, _folders(results, cohort_path), _external(results)),
        "systems": systems,
    }
    with amending_manifest(folder.path):
        write_text(folder.cases, _cases_text(results))
        write_json(folder.metrics, metrics)
        write_json(folder.comparisons, comparisons_of(results, None))
        write_images(folder, results.cohort)
        write_characteristics(folder, results.cohort, _external(results))
        write_subgroups(results)
        write_coefficients(results)
        write_usefulness(results)
        write_reader_ceiling(results)
        write_lesions(results)
        write_readers(results)
    return metrics


def _folders(results: RunResults, cohort_path: Path | None) -> tuple[Path, ...]:
    """Of the cohort, and of the one that tests its models."""
    split, first = results.experiment.split, cohort_path or results.experiment.cohort
    if split.plan is not Plan.EXTERNAL or split.external is None:
        return (first,)
    return (first, split.external)


def _external(results: RunResults) -> frozenset[str]:
    """The patients of the external cohort, where there is one."""
    if results.experiment.split.plan is not Plan.EXTERNAL:
        return frozenset()
    return load_split(results.folder.folds).folds[0].test


def _training(folder: RunFolder, label: str, fold: int) -> Json:
    done = read_json(folder.fold(label, fold).done)
    names = ("epochs", "best_epoch", "train_seconds", "images", "patients")
    timing = folder.timing(label)
    ms = read_json(timing)["ms_per_image"] if timing.exists() else None
    return {"fold": fold, "ms_per_image": ms, **{n: done.get(n) for n in names}}


def _complexity(folder: RunFolder, label: str) -> Json | None:
    path = folder.complexity(label)
    if not path.exists():
        return None
    found = read_json(path)
    return {n: found[n] for n in ("parameters", "macs", "flops")}


def _cases_text(results: RunResults) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_CASE_COLUMNS)
    for system in results.systems:
        for c in sorted(system.cases, key=lambda c: (c.fold, c.key)):
            k = c.key
            places = (k.patient, k.study, k.lesion, k.clip, k.frame)
            values = [f"{v:.6g}" for v in c.scores.values()]
            writer.writerow([c.label, c.fold, *places, c.of_class, *values, c.unit, c.note])
    return out.getvalue()


def metrics_words(metrics: Json) -> str:
    """The main figures of a run for a terminal."""
    lines: list[str] = []
    if metrics.get("kind") == KIND:
        for label, figures in main_figures(metrics).items():
            lines.append(label)
            lines += [f"  {name:28}{_words(value)}" for name, value in figures.items()]
        return "\n".join(lines)
    for s in metrics["systems"]:
        lines.append(
            f"{s['label']} ({s['task']}, folds {', '.join(map(str, s['folds'])) or 'none'})"
        )
        if s["segmentation"]:
            for name in ("dice", "iou"):
                lines.append(f"  {name:12}{_words(s['segmentation']['pooled'][name])}")
        if s["classification"]:
            for name in ("auc", "accuracy", "sensitivity", "specificity"):
                figure = s["classification"]["patient"].get(name)
                if figure:
                    lines.append(f"  {name:12}{_words(figure)}")
    return "\n".join(lines)


def _words(figure: Json) -> str:
    if figure["value"] is None:
        return f"n/a ({figure.get('note', '')})"
    interval = ""
    if figure["low"] is not None:
        interval = f" ({figure['low']:.3f} to {figure['high']:.3f})"
    return (
        f"{figure['value']:.3f}{interval}  n = {figure['n']} {figure['unit']}s, {figure['method']}"
    )
