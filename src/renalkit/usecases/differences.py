"""How much better is one system than another on the same patients?"""

from __future__ import annotations

from math import isfinite

import numpy as np
import numpy.typing as npt

from renalkit.domain.prediction import Prediction
from renalkit.domain.sample import SampleKey, b_mode_samples
from renalkit.domain.splits import Split
from renalkit.errors import ConfigError, StatisticUndefined
from renalkit.metrics.auc_inference import paired_delong
from renalkit.metrics.bootstrap import (
    Auc,
    BootstrapPlan,
    MeanOfStatistics,
    Statistic,
    mean_of_rows,
    paired_cluster_bootstrap,
)
from renalkit.metrics.comparisons import wilcoxon_signed_rank
from renalkit.metrics.multiplicity import holm
from renalkit.store.splits import load_split
from renalkit.usecases.folds import classes_by_fold, difference_over_folds, masks_by_fold
from renalkit.usecases.lesions import lesions_found
from renalkit.usecases.ordinal_figures import LOWER, ordinal_statistics
from renalkit.usecases.patients import Patients, patients_of
from renalkit.usecases.results import (
    CASE_SCORES,
    Json,
    RunResults,
    SystemResults,
    called_class,
    estimate_json,
    on_folds,
    positive_class,
)

Floats = npt.NDArray[np.float64]

DISTANCES = ("hd95", "assd")
"""Scores in the unit of length; lower is better, and an empty prediction has none."""


def comparisons_of(results: RunResults, reference: str | None) -> Json:
    """The reference system against every other, on the folds and cases both have.

    A frame that several of these folds test counts once, with what they say together (`pool`).
    Differences are reference minus other; `better` says which sign favours the reference. Masks:
    paired bootstrap of patients over frames with a lesion, signed ranks of the patients' means
    beside it; recall in the same way over lesions. AUC of two classes: paired DeLong over patients;
    of several classes, accuracy and measures of ordered classes: paired bootstrap of patients.
    `over_folds`: the difference of the folds' figures. p_holm: adjusted over the other systems,
    measure and test by measure and test.

    Raises ConfigError for a reference that is no system of the run.
    """
    labels = [s.job.label for s in results.systems]
    chosen = reference or labels[0]
    if chosen not in labels:
        raise ConfigError([f"reference: no system '{chosen}'; there are {', '.join(labels)}"])
    reference_system = next(s for s in results.systems if s.job.label == chosen)
    split = load_split(results.folder.folds)
    rows: list[Json] = []
    for other in results.systems:
        folds = sorted(set(reference_system.folds) & set(other.folds))
        if other is reference_system or not folds:
            continue
        pair = (
            on_folds(results, reference_system, folds),
            on_folds(results, other, folds),
        )
        about: Json = {"label": other.job.label, "folds": folds, "better": "higher"}
        found = [*_masks(results, pair), *_recall(results, pair), *_classes(results, pair)]
        over = _over_folds(results, pair, split)
        rows += [about | row | {"over_folds": over.get(row["metric"])} for row in found]
    for metric in dict.fromkeys(r["metric"] for r in rows):
        adjust_for_several([r for r in rows if r["metric"] == metric])
    return {"schema": 1, "reference": chosen, "rows": rows}


_Pair = tuple[SystemResults, SystemResults]


def adjust_for_several(rows: list[Json]) -> None:
    """Add p_holm to every test of the rows of one measure."""
    for name in (None, "wilcoxon", "over_folds"):
        tests = [r if name is None else r[name] for r in rows if name is None or r.get(name)]
        known = [t for t in tests if t["p"] is not None]
        adjusted = holm(np.array([t["p"] for t in known])).tolist() if known else []
        for test in tests:
            test["p_holm"] = None
        for test, p in zip(known, adjusted, strict=True):
            test["p_holm"] = p


def _over_folds(results: RunResults, pair: _Pair, split: Split) -> dict[str, Json]:
    level = results.plan.level
    one, two = (masks_by_fold(s) | classes_by_fold(results, s) for s in pair)
    return {m: difference_over_folds(one[m], two[m], split, level) for m in one if m in two}


def _paired(
    plan: BootstrapPlan, first: Statistic, second: Statistic, groups: list[str]
) -> Json | None:
    try:
        found = paired_cluster_bootstrap(first, second, np.asarray(groups), plan)
    except StatisticUndefined:
        return None
    return {
        "difference": estimate_json(found.difference),
        "p": found.p_value,
        "reference_value": found.first.value,
        "value": found.second.value,
    }


def paired_rows(plan: BootstrapPlan, a: Floats, b: Floats, patients: list[str]) -> Json | None:
    """Bootstrap of the mean difference of rows (n,) and the signed rank test of the patients'
    means; None where there is none."""
    found = _paired(plan, mean_of_rows(a), mean_of_rows(b), patients) if len(a) else None
    if found is None:
        return None
    try:
        ranks = wilcoxon_signed_rank(a, b, np.asarray(patients), plan.level)
    except StatisticUndefined:
        return found
    difference = estimate_json(ranks.difference)
    return found | {"wilcoxon": {"difference": difference, "p": ranks.p_value, "test": ranks.test}}


def _masks(results: RunResults, pair: _Pair) -> list[Json]:
    one = {c.key: c for c in pair[0].pooled_cases if c.has_lesion}
    two = {c.key: c for c in pair[1].pooled_cases}
    shared = sorted(one.keys() & two.keys())
    units = {c.unit for k in shared for c in (one[k], two[k])}
    rows: list[Json] = []
    for metric in CASE_SCORES:
        if metric not in ("dice", "iou") and len(units) > 1:
            continue  # of one system in mm, of the other in pixels
        pairs = [(k.patient, one[k].scores[metric], two[k].scores[metric]) for k in shared]
        kept = [p for p in pairs if isfinite(p[1]) and isfinite(p[2])]
        a, b = (np.array([p[k] for p in kept], dtype=np.float64) for k in (1, 2))
        found = paired_rows(results.plan, a, b, [p[0] for p in kept])
        if found is not None:
            about: Json = {"metric": metric, "n_frames": len(kept)}
            if metric in DISTANCES:
                left_out = len(pairs) - len(kept)
                about |= {"better": "lower", "length_unit": next(iter(units)), "left_out": left_out}
            rows.append(about | found)
    return rows


def _recall(results: RunResults, pair: _Pair) -> list[Json]:
    """Share of lesions found, over the lesions of the pictures both outline."""
    if not all(s.pooled_cases for s in pair):
        return []
    samples = {s.key: s for s in b_mode_samples(results.cohort)}
    one, two = (lesions_found(s.pooled, samples) for s in pair)
    both: list[tuple[SampleKey, int]] = sorted(one.keys() & two.keys())
    a, b = (np.array([float(v[k]) for k in both], dtype=np.float64) for v in (one, two))
    found = paired_rows(results.plan, a, b, [key.patient for key, _ in both])
    return [] if found is None else [{"metric": "recall", "n_lesions": len(both)} | found]


def _by_patient(said: Patients) -> dict[tuple[int, str], Prediction]:
    return {
        (-1 if p.fold is None else p.fold, p.key.patient): p
        for p in said.pooled
        if p.target is not None
    }


def _classes(results: RunResults, pair: _Pair) -> list[Json]:
    said = [patients_of(results, s) for s in pair]
    one, two = (_by_patient(s) for s in said)
    shared = sorted(one.keys() & two.keys())
    if not shared:
        return []
    positive = positive_class(results)
    cuts = [s.thresholds for s in said]
    groups = [patient for _, patient in shared]
    truth = np.array([one[k].target for k in shared], dtype=np.intp)
    called = [
        np.array([called_class(p[k], cut, positive) for k in shared], dtype=np.intp)
        for p, cut in zip((one, two), cuts, strict=True)
    ]
    right = [mean_of_rows((c == truth).astype(np.float64)) for c in called]
    rows: list[Json] = []
    area = _areas(results, truth, (one, two), shared)
    if area is not None:
        rows.append({"metric": "auc"} | area)
    accuracy = _paired(results.plan, right[0], right[1], groups)
    if accuracy is not None:
        rows.append({"metric": "accuracy"} | accuracy)
    if results.task.ordered:
        scores = [np.array([p[k].scores for k in shared]) for p in (one, two)]
        rows += _ordered(results, truth, (called, scores), groups)
    return rows


def _ordered(
    results: RunResults,
    truth: npt.NDArray[np.intp],
    said: tuple[list[npt.NDArray[np.intp]], list[Floats]],
    groups: list[str],
) -> list[Json]:
    """Calls and scores of ordered classes, of both systems."""
    one, two = (ordinal_statistics(truth, c, s) for c, s in zip(*said, strict=True))
    rows: list[Json] = []
    for name, measure in one.items():
        found = _paired(results.plan, measure, two[name], groups)
        if found is not None:
            rows.append({"metric": name, "better": "lower" if name in LOWER else "higher"} | found)
    return rows


def _areas(
    results: RunResults,
    truth: np.ndarray[tuple[int], np.dtype[np.intp]],
    systems: tuple[dict[tuple[int, str], Prediction], dict[tuple[int, str], Prediction]],
    shared: list[tuple[int, str]],
) -> Json | None:
    scores = [np.array([p[k].scores for k in shared]) for p in systems]
    positive = positive_class(results)
    if positive is None:
        classes = range(len(results.task.classes))
        parts = [
            MeanOfStatistics(tuple(Auc((truth == k).astype(int), s[:, k]) for k in classes))
            for s in scores
        ]
        return _paired(results.plan, parts[0], parts[1], [patient for _, patient in shared])
    try:
        found = paired_delong(
            (truth == positive).astype(int),
            scores[0][:, positive],
            scores[1][:, positive],
            level=results.plan.level,
        )
    except StatisticUndefined:
        return None
    return {
        "difference": estimate_json(found.difference),
        "p": found.p_value,
        "reference_value": found.first.value,
        "value": found.second.value,
    }
