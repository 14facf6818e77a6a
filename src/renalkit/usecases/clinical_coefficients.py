"""What does the clinical model say about each fact? Odds ratios with intervals over patients.

Tested figures come from a model per fold. To show what such a model looks like, it is fitted once
more, in the same way, to all patients that any fold trains or validates on, and described: nothing
is predicted with it.
"""

from __future__ import annotations

from math import exp

import numpy as np

from renalkit.domain.prediction import Unit
from renalkit.domain.sample import b_mode_samples
from renalkit.errors import StatisticUndefined
from renalkit.metrics.inference import Estimate
from renalkit.metrics.logistic import (
    RIDGES,
    Column,
    FactModel,
    TrainingRows,
    coefficient_intervals,
    design_of,
    separated,
)
from renalkit.store.files import write_json
from renalkit.store.splits import load_split
from renalkit.usecases.clinical_model import fitted_model, groups_of, training_rows
from renalkit.usecases.experiment import CLINICAL
from renalkit.usecases.results import Json, RunResults, estimate_json, undefined_json


def write_coefficients(results: RunResults) -> Json | None:
    """Write clinical/coefficients.json of a run; None, and no file, without a clinical model."""
    if all(s.job.label != CLINICAL for s in results.systems):
        return None
    found = coefficients_of(results)
    if found is not None:
        write_json(results.folder.coefficients, found)
    return found


def coefficients_of(results: RunResults) -> Json | None:
    """The model on all development patients: odds ratio of every column, penalty, events.

    events_per_variable: patients of the smaller class (or, of one class against the rest, of the
    smaller side) per column. None where the patients are of one class.
    """
    split = load_split(results.folder.folds)
    patients = {p for f in split.folds for p in f.train | f.validation}
    samples = [
        s
        for s in b_mode_samples(results.cohort)
        if s.label is not None and s.key.patient in patients
    ]
    columns = next(s.job for s in results.systems if s.job.label == CLINICAL).params["columns"]
    groups = groups_of(results.folder)
    rows, people = training_rows(results.cohort, samples, groups, split.seed)
    model = fitted_model(rows, columns, len(results.task.classes))
    if model is None:
        return None
    wanted = [1] if model.n_classes == 2 else list(range(model.n_classes))
    return {
        "schema": 1,
        "patients": len(set(people)),
        "rows": len(people),
        "ridge": model.ridge,
        "chosen": bool(model.tried),
        "strongest": model.ridge == max(RIDGES),
        "columns": list(columns),
        "classes": [_of_class(results, model, (rows, people), k) for k in wanted],
    }


def _of_class(
    results: RunResults, model: FactModel, learned: tuple[TrainingRows, list[str]], k: int
) -> Json:
    """One class against the rest (of two classes the second against the first)."""
    rows, people = learned
    truth = rows.labels == k
    design = design_of(rows.facts, model.columns)
    sides = [
        {p for p, t in zip(people, truth.tolist(), strict=True) if t is s} for s in (True, False)
    ]
    events = min(map(len, sides))
    found: tuple[Estimate | None, ...] = (None,) * len(model.columns)
    try:
        data = (design, truth, rows.weights)
        found = coefficient_intervals(data, model.ridge, np.array(people), results.plan)
    except StatisticUndefined:
        pass  # fewer than two patients: the coefficients have no intervals
    beta = model.coefficients[0 if model.n_classes == 2 else k, 1:].tolist()
    return {
        "class": results.task.classes[k],
        "events": events,
        "events_per_variable": events / len(model.columns) if model.columns else None,
        "separated": separated(design, truth),
        "facts": [
            {
                "fact": column.fact,
                "level": column.level,
                "unknown": column.unknown,
                "against": _most_frequent(rows, column),
                "odds_ratio": _odds_ratio(column, b, e, (len(set(people)), results.plan.level)),
            }
            for column, b, e in zip(model.columns, beta, found, strict=True)
        ],
    }


def _most_frequent(rows: TrainingRows, column: Column) -> str | None:
    """What a level of a category is compared with; None for numbers."""
    if column.level is None:
        return None
    words = [str(row[column.fact]) for row in rows.facts if column.fact in row]
    return min(set(words), key=lambda w: (-words.count(w), w))


def _odds_ratio(
    column: Column, coefficient: float, found: Estimate | None, about: tuple[int, float]
) -> Json:
    """Per unit of a number, or of a level against the reference. about: patients, level."""
    n, level = about
    value = exp(coefficient / column.sd)
    if found is None:
        words = "too few patients of one class to resample"
        return undefined_json(n, Unit.PATIENT, words, level) | {"value": value}
    whole = estimate_json(found)
    for end in ("low", "high"):
        if whole[end] is not None:
            whole[end] = exp(whole[end] / column.sd)
    return whole | {"value": value}
