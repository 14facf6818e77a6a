"""How far do size, findings, age and sex get on the very same folds? A row beside every network.

Per fold a ridge logistic regression is fitted on the training patients alone, its preparation and
penalty included; it then speaks about the frames of the validation and the test part, so that its
predictions lie, and are judged, like those of any system. What is known only with the diagnosis
(histology, grade) and where a patient was examined are never its inputs.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from renalkit.domain.cohort import Cohort
from renalkit.domain.prediction import Prediction, SystemRef, Unit
from renalkit.domain.profile import (
    AFTER_THE_FACT,
    FINDINGS,
    OF_LESIONS,
    PLACES,
    class_without_lesion,
    facts_about,
    patient_variables,
)
from renalkit.domain.sample import Sample, b_mode_samples
from renalkit.domain.splits import Fold, Plan, Split, SplitOptions, make_split, patient_facts
from renalkit.errors import ConfigError, StatisticUndefined
from renalkit.metrics.logistic import FactModel, Facts, TrainingRows, fit_fact_model
from renalkit.store.files import read_json, sha256_file, write_json
from renalkit.store.predictions import save_predictions
from renalkit.store.runs import RunFolder
from renalkit.store.splits import load_split
from renalkit.systems._contract import Task
from renalkit.usecases.experiment import CLINICAL, Experiment, Job
from renalkit.usecases.parts import fold_digest

DEFAULT_COLUMNS = ("size_mm", *FINDINGS, "age_years", "sex")
"""Taken where nothing is named, as far as at least half of the patients have them."""

INNER_PARTS = (5, 4, 3)
"""Parts of the inner cross-validation; the first that the training patients suffice for."""

VERSION = 1
"""Of the way the model is made; a fold of another version is fitted anew."""


def clinical_columns(cohort: Cohort, wanted: Sequence[str] | None) -> tuple[str, ...]:
    """The facts the model uses: those named, or the default ones that enough patients have.

    Facts of lesions are left out where a class has no lesions: not to have a size would give it
    away. Raises ConfigError for names that are unknown or may not be used.
    """
    known = {v.name: len(v.values) for v in patient_variables(cohort)}
    bare = class_without_lesion(cohort)
    if wanted is None:
        half = len(cohort.patients) / 2
        return tuple(
            n for n in DEFAULT_COLUMNS if known.get(n, 0) >= half and not (bare and n in OF_LESIONS)
        )
    usable = [n for n in known if n not in (*AFTER_THE_FACT, *PLACES)]
    problems: list[str] = []
    for name in wanted:
        if name in AFTER_THE_FACT:
            problems.append(f"'{name}' is known only with the diagnosis it would predict")
        elif name in PLACES:
            problems.append(f"'{name}' says where a patient was examined, not what the lesion is")
        elif name not in known:
            there = ", ".join(usable) or "none"
            problems.append(f"no fact '{name}' in this cohort; there are: {there}")
        elif bare and name in OF_LESIONS:
            problems.append(f"'{name}' is of lesions, and class '{bare}' has none")
    if problems:
        raise ConfigError([f"clinical.columns: {p}" for p in problems])
    return tuple(wanted)


def clinical_job(experiment: Experiment, columns: Sequence[str]) -> Job:
    """The model as a system of the run."""
    return Job(
        label=CLINICAL,
        system=CLINICAL,
        task=Task.CLASSIFICATION,
        params={"columns": list(columns), "version": VERSION},
        train=experiment.train,
        input=experiment.input,
        augment=experiment.augment,
        folds=(),
    )


def stored_clinical_job(folder: RunFolder, experiment: Experiment) -> Job | None:
    """The model a run has, None when it has none."""
    record = folder.system(CLINICAL) / "model.json"
    if not record.exists():
        return None
    return clinical_job(experiment, read_json(record)["columns"])


def fit_clinical(folder: RunFolder, experiment: Experiment, cohort: Cohort) -> bool:
    """Fit what is missing of the model and keep its predictions; False when there is no model.

    There is none when no fact can be used, or the cohort is not that of the folds.
    Raises ConfigError for columns that cannot be used.
    """
    columns = clinical_columns(cohort, experiment.clinical.columns)
    split = load_split(folder.folds)
    divided = {p for f in split.folds for p in f.train | f.validation | f.test}
    if not columns or not divided <= set(cohort.patients):
        return False
    samples = b_mode_samples(cohort)
    groups = groups_of(folder)
    job = clinical_job(experiment, columns)
    for fold in split.folds:
        _fit_fold(folder, (cohort, samples, groups), (split, fold), job)
    write_json(folder.system(CLINICAL) / "model.json", {"columns": list(columns)})
    return True


def groups_of(folder: RunFolder) -> Mapping[str, str]:
    """Group of each patient that the check of the cohort joined with others."""
    return read_json(folder.check).get("groups", {}) if folder.check.exists() else {}


def _fit_fold(
    folder: RunFolder,
    data: tuple[Cohort, Sequence[Sample], Mapping[str, str]],
    place: tuple[Split, Fold],
    job: Job,
) -> None:
    cohort, samples, groups = data
    split, fold = place
    own = folder.fold(CLINICAL, fold.index)
    digest = fold_digest(job, cohort.digest, split.digest, fold.index)
    if own.done.exists() and read_json(own.done)["digest"] == digest:
        return
    start = time.perf_counter()
    labelled = [s for s in samples if s.key.patient in fold.train and s.label is not None]
    rows, _ = training_rows(cohort, labelled, groups, split.seed)
    model = fitted_model(rows, job.params["columns"], len(cohort.task.classes))
    if model is None:
        return
    write_json(own.model, _plain(model, cohort))
    sha256 = sha256_file(own.model)
    ref = SystemRef(CLINICAL, CLINICAL, sha256)
    counts = {"train": len(labelled)}
    for name, path in (("validation", own.validation), ("test", own.test)):
        chosen = [s for s in samples if fold.part_of(s.key.patient) == name]
        save_predictions(path, _predictions(model, chosen, ref, fold.index))
        counts[name] = len(chosen)
    write_json(
        own.done,
        {
            "digest": digest,
            "weights_sha256": sha256,
            "epochs": None,
            "best_epoch": None,
            "images": counts,
            "patients": {n: len(getattr(fold, n)) for n in ("train", "validation", "test")},
            "train_seconds": round(time.perf_counter() - start, 1),
        },
    )


def fitted_model(rows: TrainingRows, columns: Sequence[str], n_classes: int) -> FactModel | None:
    """The model; with the untuned penalty where an inner part lacks a class, None without two."""
    try:
        return fit_fact_model(rows, columns, n_classes)
    except StatisticUndefined:
        try:
            return fit_fact_model(replace(rows, inner=None), columns, n_classes)
        except StatisticUndefined:
            return None


def _facts(sample: Sample) -> Facts:
    """What is known of the lesion of a frame and its patient."""
    lesion = next((le for le in sample.study.lesions if le.key == sample.key.lesion), None)
    return facts_about(sample.study, lesion)


def training_rows(
    cohort: Cohort, samples: Sequence[Sample], groups: Mapping[str, str], seed: int
) -> tuple[TrainingRows, list[str]]:
    """One row per lesion (or study without lesion), every patient counting once in all.

    samples: of known class. Returns the rows and the patient of each.
    """
    places = {(s.key.study, s.key.lesion): s for s in samples}
    chosen = [places[place] for place in sorted(places)]
    patients = [s.key.patient for s in chosen]
    rows = Counter(patients)
    part_of = _inner_parts(cohort, set(patients), groups, seed)
    learned = TrainingRows(
        facts=[_facts(s) for s in chosen],
        labels=np.array([s.label for s in chosen], dtype=np.intp),
        weights=np.array([1 / rows[p] for p in patients]),
        inner=None if part_of is None else np.array([part_of[p] for p in patients], dtype=np.intp),
    )
    return learned, patients


def _inner_parts(
    cohort: Cohort, patients: set[str], groups: Mapping[str, str], seed: int
) -> dict[str, int] | None:
    """Part of the inner cross-validation of each training patient; None when they are too few."""
    facts = [f for f in patient_facts(cohort, groups) if f.patient in patients]
    for n in INNER_PARTS:
        try:
            inner = make_split(facts, Plan.KFOLD, seed, SplitOptions(folds=n))
        except ConfigError:
            continue
        return {p: fold.index for fold in inner.folds for p in fold.test}
    return None


def _predictions(
    model: FactModel, samples: Sequence[Sample], ref: SystemRef, fold: int
) -> list[Prediction]:
    found = model.probabilities([_facts(s) for s in samples])
    return [
        Prediction(
            unit=Unit.FRAME,
            key=sample.key,
            scores=tuple(float(v) for v in row),
            target=sample.label,
            system=ref,
            fold=fold,
            roi_origin=sample.roi_origin,
        )
        for sample, row in zip(samples, found, strict=True)
    ]


def _plain(model: FactModel, cohort: Cohort) -> dict[str, object]:
    """The model as JSON; odds ratios are per standard deviation of the training patients."""
    labels = cohort.task.classes[1:] if model.n_classes == 2 else cohort.task.classes
    return {
        "ridge": model.ridge,
        "tried": [{"ridge": r, "log_loss": v} for r, v in model.tried.items()],
        "columns": [
            {"name": c.name, "fill": c.fill, "mean": c.mean, "sd": c.sd} for c in model.columns
        ],
        "classes": [
            {
                "class": label,
                "intercept": float(row[0]),
                "coefficients": [float(v) for v in row[1:]],
                "odds_ratios": [float(v) for v in np.exp(row[1:])],
            }
            for label, row in zip(labels, model.coefficients, strict=True)
        ],
    }
