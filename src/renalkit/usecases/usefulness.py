"""Can the scores of a classifying system be taken as probabilities, and would acting on them help?

Patients of the tested parts. Nothing is fitted here: where the settings ask for calibration inside
the folds or for a correction of class shares, both states are measured, before and after. Two
classes: the probability of the positive class. Several classes: the most probable class and whether
it was right (top label), without a decision curve, for there is no one intervention to decide on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict

import numpy as np
import numpy.typing as npt

from renalkit.domain.prediction import Prediction, Unit
from renalkit.errors import StatisticUndefined
from renalkit.metrics.bootstrap import mean_of_rows
from renalkit.metrics.calibration import (
    Binning,
    BinRule,
    CalibrationError,
    brier_decomposition,
    recalibration,
    reliability_curve,
    squared_errors,
    top_label,
)
from renalkit.metrics.decision import decision_curve
from renalkit.store.files import write_json
from renalkit.usecases.patients import Patients, patients_of, rescaled
from renalkit.usecases.results import (
    Json,
    RunResults,
    SystemResults,
    bootstrapped,
    estimate_json,
    positive_class,
    undefined_json,
)

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

BINNING = Binning(5, BinRule.EQUAL_MASS)
"""Bins of equally many patients: with equal widths, most bins of a small cohort are empty."""

THRESHOLDS: Floats = np.array([k / 20 for k in range(1, 20)], dtype=np.float64)
"""Probabilities from which one would operate, 5 % to 95 %."""

LEAST_PATIENTS = 10
_NO_DECISION = "several classes: there is no one intervention to decide on"


def write_usefulness(results: RunResults) -> Json:
    """Write usefulness.json of a run: calibration and decision curves of its systems."""
    found = usefulness_of(results)
    write_json(results.folder.usefulness, found)
    return found


def usefulness_of(results: RunResults) -> Json:
    """Calibration and, for two classes, net benefit of every system that gives classes."""
    positive = positive_class(results)
    return {
        "schema": 1,
        "probability_of": "the most probable class"
        if positive is None
        else results.task.classes[positive],
        "bins": BINNING.words,
        "resampling": {"resamples": results.plan.n_boot, "seed": results.plan.seed},
        "systems": [
            _of_system(results, system)
            for system in results.systems
            if any(p.scores is not None for p in system.pooled)
        ],
    }


def _of_system(results: RunResults, system: SystemResults) -> Json:
    said = patients_of(results, system)
    known = [p for p in said.pooled if p.target is not None]
    head: Json = {"label": system.job.label, "patients": len(known), "note": ""}
    if len(known) < LEAST_PATIENTS:
        return head | {"note": f"{len(known)} patients of known class, fewer than {LEAST_PATIENTS}"}
    truth, chances = _chances(results, known)
    patients = [p.key.patient for p in known]
    smaller = min(int(truth.sum()), int((~truth).sum()))
    head["positive"] = int(truth.sum())
    several = positive_class(results) is None
    if smaller == 0:
        words = "every call has the same outcome" if several else "one class only"
        return head | {"note": f"{words} among {len(known)} patients"}
    found = head | {
        "calibration": _calibration(results, truth, chances, patients),
        "decision": {"note": _NO_DECISION}
        if several
        else _decision(results, truth, chances, patients),
    }
    return found | _before(results, said)


def _before(results: RunResults, said: Patients) -> Json:
    """Calibration of the same patients as it was before scores were changed, where they were."""
    if not rescaled(results.statistics):
        return {}
    known = [p for p in said.before if p.target is not None]
    truth, chances = _chances(results, known)
    if truth.all() or not truth.any():
        return {}
    patients = [p.key.patient for p in known]
    return {"before": _calibration(results, truth, chances, patients)}


def _chances(results: RunResults, known: Sequence[Prediction]) -> tuple[Bools, Floats]:
    """Of patients: positive or not, or whether the call was right, and the score that says so."""
    targets = np.array([p.target for p in known], dtype=np.intp)
    scores = np.array([p.scores for p in known], dtype=np.float64)
    positive = positive_class(results)
    if positive is None:
        return top_label(targets, scores)
    return targets == positive, scores[:, positive]


def _calibration(results: RunResults, truth: Bools, chances: Floats, patients: list[str]) -> Json:
    plan, n = results.plan, len(patients)
    names = ("slope", "intercept", "in_the_large")
    try:
        line = recalibration(truth, chances, level=plan.level)
        lines = {name: estimate_json(getattr(line, name)) for name in names}
    except StatisticUndefined as error:
        lines = {n_: undefined_json(n, Unit.PATIENT, str(error), plan.level) for n_ in names}
    parts = brier_decomposition(truth, chances, BINNING)
    bins = _or_note(lambda: _bins(results, truth, chances, patients))
    return {
        **lines,
        "ece": bootstrapped(CalibrationError(truth, chances, BINNING), patients, plan),
        "brier": bootstrapped(mean_of_rows(squared_errors(truth, chances)), patients, plan),
        "brier_parts": asdict(parts) | {"scaled": parts.scaled},
        "reliability": bins,
    }


def _bins(results: RunResults, truth: Bools, chances: Floats, patients: list[str]) -> Json:
    curve = reliability_curve(truth, chances, np.array(patients), BINNING, results.plan)
    return {
        "bins": [
            {
                "low": b.low,
                "high": b.high,
                "n": b.n_rows,
                "predicted": b.mean_predicted,
                "observed": estimate_json(b.wilson or b.resampled),
            }
            for b in curve
        ],
        "note": "",
    }


def _decision(results: RunResults, truth: Bools, chances: Floats, patients: list[str]) -> Json:
    def found() -> Json:
        curve = decision_curve(truth, chances, THRESHOLDS, np.array(patients), results.plan)
        columns = zip(curve.thresholds, curve.model, curve.treat_all, curve.avoided, strict=True)
        return {
            "points": [
                {
                    "threshold": float(cut),
                    "net_benefit": estimate_json(model),
                    "treat_all": estimate_json(every),
                    "avoided_per_100": estimate_json(avoided),
                }
                for cut, model, every, avoided in columns
            ],
            "note": "",
        }

    return _or_note(found)


def _or_note(compute: Callable[[], Json]) -> Json:
    """What is computed, or why it cannot be."""
    try:
        return compute()
    except StatisticUndefined as error:
        return {"note": str(error)}
