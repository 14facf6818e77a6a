"""What does a system reach in each of its folds, and is one better than another over folds?

Fold means describe models that were trained on parts of the cohort; pooled figures describe
patients. Neither is the other, so both are stored and never mixed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from statistics import fmean

import numpy as np
import numpy.typing as npt

from renalkit.domain.prediction import Prediction
from renalkit.domain.splits import Plan, Split
from renalkit.errors import StatisticUndefined
from renalkit.metrics.bootstrap import Auc
from renalkit.metrics.classification import Threshold
from renalkit.metrics.comparisons import corrected_t_test
from renalkit.usecases.ordinal_figures import ordinal_statistics
from renalkit.usecases.patients import patients_of
from renalkit.usecases.results import (
    CASE_SCORES,
    Json,
    RunResults,
    SystemResults,
    called_class,
    estimate_json,
    positive_class,
)

Floats = npt.NDArray[np.float64]
ByFold = Mapping[int, float]

_LEFT_OUT = (Plan.LEAVE_SITE_OUT, Plan.LEAVE_SCANNER_OUT)


def spread(values: ByFold) -> Json:
    """Mean and standard deviation over the folds that have the figure; of: which these are."""
    known = {fold: v for fold, v in sorted(values.items()) if isfinite(v)}
    if not known:
        return {"mean": None, "sd": None, "folds": [], "of": []}
    found = list(known.values())
    sd = float(np.std(found, ddof=1)) if len(found) > 1 else None
    return {"mean": fmean(found), "sd": sd, "folds": found, "of": list(known)}


def masks_by_fold(system: SystemResults) -> dict[str, dict[int, float]]:
    """Mean of each score over the pictures with a lesion of each fold; infinite ones left out."""
    found: dict[str, dict[int, float]] = {name: {} for name in CASE_SCORES}
    for fold in system.folds:
        own = [c.scores for c in system.cases if c.has_lesion and c.fold == fold]
        for name, values in found.items():
            finite = [s[name] for s in own if isfinite(s[name])]
            if finite:
                values[fold] = fmean(finite)
    return found


def classes_by_fold(results: RunResults, system: SystemResults) -> dict[str, dict[int, float]]:
    """Figures per patient of each fold, called at the fold's own threshold."""
    said = patients_of(results, system)
    found: dict[str, dict[int, float]] = {}
    for fold in system.folds:
        part = [p for p in said.test if p.fold == fold and p.target is not None]
        if part:
            for name, value in _figures(results, part, said.thresholds).items():
                found.setdefault(name, {})[fold] = value
    return found


def _figures(
    results: RunResults, part: Sequence[Prediction], thresholds: dict[int, Threshold]
) -> dict[str, float]:
    positive = positive_class(results)
    truth = np.array([p.target for p in part], dtype=np.intp)
    called = np.array([called_class(p, thresholds, positive) for p in part], dtype=np.intp)
    scores = np.array([p.scores for p in part])
    right = truth == called
    found = {"auc": _area(truth, scores, positive), "accuracy": float(right.mean())}
    if results.task.ordered:
        once, codes = np.ones((1, len(truth))), np.arange(len(truth), dtype=np.intp)
        for name, measure in ordinal_statistics(truth, called, scores).items():
            found[name] = float(measure.prepare(codes, len(truth))(once)[0])
    if positive is not None:
        for name, rows in (("sensitivity", truth == positive), ("specificity", truth != positive)):
            found[name] = float(right[rows].mean()) if rows.any() else float("nan")
    return found


def _area(truth: npt.NDArray[np.intp], scores: Floats, positive: int | None) -> float:
    """AUC of the positive class, or the mean over the classes; NaN where one does not occur."""
    ones = np.ones((1, len(truth)))
    codes = np.arange(len(truth), dtype=np.intp)
    wanted = range(scores.shape[1]) if positive is None else (positive,)
    try:
        parts = [Auc((truth == k).astype(int), scores[:, k]) for k in wanted]
        return fmean(float(p.prepare(codes, len(truth))(ones)[0]) for p in parts)
    except StatisticUndefined:
        return float("nan")


def difference_over_folds(one: ByFold, two: ByFold, split: Split, level: float) -> Json:
    """Mean difference of the folds' figures, one minus two, with the corrected resampled t-test.

    n of the test are the mean numbers of training and tested patients of these folds. The test is
    for folds that repeat one experiment: not where all folds test the same patients (hold-out,
    external), nor where each tests another place.
    """
    shared = [f for f in sorted(one.keys() & two.keys()) if isfinite(one[f] - two[f])]
    apart = {f: one[f] - two[f] for f in shared}
    about = spread(apart) | {"difference": None, "p": None}
    if split.shared_test or split.plan is Plan.EXTERNAL:
        return about | {"test": "no test: all folds test the same patients"}
    if split.plan in _LEFT_OUT:
        return about | {"test": "no test: every fold tests another place"}
    sizes = [(len(split.folds[f].train), len(split.folds[f].test)) for f in shared]
    try:
        n_train, n_test = (max(1, round(fmean(s[k] for s in sizes))) for k in (0, 1))
        found = corrected_t_test(np.array(list(apart.values())), n_train, n_test, level)
    except (StatisticUndefined, ValueError):
        words = "fewer than two folds" if len(shared) < 2 else "every fold differs by the same"
        return about | {"test": f"no test: {words}"}
    return about | {
        "difference": estimate_json(found.difference),
        "p": found.p_value,
        "test": found.test,
    }
