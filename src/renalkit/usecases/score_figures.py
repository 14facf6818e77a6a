"""How good is one score of a table? Areas, operating points, calibration, usefulness.

Where rows are patients, intervals are DeLong's and exact ones; where a patient has several rows,
Obuchowski's and those of resampled patients. Those of an AUC are made on the logit scale; on the
plain scale, as other software prints it, they stand beside. A figure that does not exist is null
with its reason.
"""

from __future__ import annotations

from dataclasses import asdict
from math import isfinite

import numpy as np
import numpy.typing as npt

from renalkit.domain.prediction import Unit
from renalkit.errors import StatisticUndefined
from renalkit.metrics.auc_inference import Scale, auc_estimate
from renalkit.metrics.bootstrap import Auc, BootstrapPlan, mean_of_rows
from renalkit.metrics.calibration import (
    Binning,
    brier_decomposition,
    calibration_error,
    log_loss,
    recalibration,
    reliability_curve,
    squared_errors,
)
from renalkit.metrics.classification import binary_confusion, roc_curve
from renalkit.metrics.curves import (
    AveragePrecision,
    PartialAuc,
    precision_recall_curve,
)
from renalkit.metrics.decision import decision_curve
from renalkit.metrics.inference import Estimate
from renalkit.metrics.predictive_values import (
    PredictiveValueAt,
    likelihood_ratios,
    predictive_values,
)
from renalkit.usecases.call_figures import call_figures
from renalkit.usecases.results import Json, bootstrapped, estimate_json, figure, undefined_json
from renalkit.usecases.stats_options import Asked, Wish
from renalkit.usecases.table_scores import Bools, Floats, Ints, Scored, Texts

# ------------------------------------------------------------------ figures of one score


def score_figures(scored: Scored, index: int, asked: Asked) -> Json:
    """Everything about one score."""
    truth, scores, groups = scored.of(index)
    plan, n = asked.plan, len(set(groups.tolist()))
    positive = truth == 1
    patients = None if scored.independent else groups

    def area(scale: Scale) -> Json:
        return figure(
            lambda: auc_estimate(truth, scores, patients, plan.level, scale), n, plan.level
        )

    found: Json = {
        "score": scored.names[index],
        "n_rows": len(truth),
        "n_patients": n,
        "n_positive": int(positive.sum()),
        "n_negative": int((~positive).sum()),
        "auc": area(Scale.LOGIT),
        "auc_plain": area(Scale.PLAIN),
        "auc_bootstrap": bootstrapped(Auc(truth, scores), groups.tolist(), plan),
        "average_precision": bootstrapped(AveragePrecision(truth, scores), groups.tolist(), plan),
        "partial_auc": [
            {
                "part": f"{part.axis.value} {part.low:g} to {part.high:g}",
                "raw": bootstrapped(PartialAuc(truth, scores, part), groups.tolist(), plan),
                "standardised": bootstrapped(
                    PartialAuc(truth, scores, part, standardised=True), groups.tolist(), plan
                ),
            }
            for part in asked.parts
        ],
        "operating_points": [_operating_point(scored, index, wish, asked) for wish in asked.wishes],
        "notes": [],
    }
    if np.unique(scores).size == 2:
        found["notes"].append(
            "two values only: one operating point, whose AUC is the mean of sensitivity and "
            "specificity and not comparable with the area under a full curve"
        )
    if asked.probabilities:
        found["calibration"] = _calibration(scored, (truth, scores, groups), plan)
    if asked.decision:
        found["decision_curve"] = _decision(asked, (truth, scores, groups))
    if asked.curves:
        found["curves"] = _curves(truth, scores)
    return found


def _operating_point(scored: Scored, index: int, wish: Wish, asked: Asked) -> Json:
    truth, scores, groups = scored.of(index)
    plan, n = asked.plan, len(set(groups.tolist()))
    try:
        threshold = wish.threshold(scored, index)
    except StatisticUndefined as error:
        return {"asked": wish.text, "threshold": None, "note": str(error)}
    positive, called = truth == 1, scores >= threshold["value"]
    counts = binary_confusion(positive, called)
    found: Json = {"asked": wish.text, "threshold": threshold, "counts": asdict(counts)}
    found |= call_figures(positive, called, groups.tolist(), plan, independent=scored.independent)
    if scored.independent:
        for name in ("positive", "negative"):
            found[f"likelihood_ratio_{name}"] = figure(
                lambda name=name: getattr(
                    likelihood_ratios(counts, Unit.PATIENT, plan.level), name
                ),
                n,
                plan.level,
            )
    if asked.prevalence is not None:
        found["prevalence"] = asked.prevalence
        found |= _predictive(scored, (positive, called, groups), asked.prevalence, plan)
    return found


def _predictive(
    scored: Scored, rows: tuple[Bools, Bools, Texts], prevalence: float, plan: BootstrapPlan
) -> Json:
    """PPV and NPV at a prevalence."""
    positive, called, groups = rows
    found: Json = {}
    for name in ("ppv", "npv"):
        if scored.independent:
            counts = binary_confusion(positive, called)
            found[f"{name}_at_prevalence"] = figure(
                lambda counts=counts, name=name: getattr(
                    predictive_values(counts, prevalence, Unit.PATIENT, plan.level), name
                ),
                len(groups),
                plan.level,
            )
        else:
            value = PredictiveValueAt(positive, called, prevalence, negative=name == "npv")
            found[f"{name}_at_prevalence"] = bootstrapped(value, groups.tolist(), plan)
    return found


# ------------------------------------------------------------------ probabilities


def _calibration(scored: Scored, rows: tuple[Ints, Floats, Texts], plan: BootstrapPlan) -> Json:
    truth, scores, groups = rows
    n, binning = len(set(groups.tolist())), Binning()
    clusters = None if scored.independent else groups
    found: Json = {
        name: figure(
            lambda name=name: getattr(recalibration(truth, scores, clusters, plan.level), name),
            n,
            plan.level,
        )
        for name in ("slope", "intercept", "in_the_large")
    }
    try:
        found["brier"] = bootstrapped(
            mean_of_rows(squared_errors(truth, scores)), groups.tolist(), plan
        )
        ece, loss = calibration_error(truth, scores, binning), log_loss(truth, scores)
        bins = reliability_curve(truth, scores, groups, binning, plan)
    except StatisticUndefined as error:
        why = undefined_json(n, Unit.PATIENT, str(error), plan.level)
        return {**found, "brier": why, "note": str(error)}
    unsure = "no interval: above 0 by chance alone"
    found["ece"] = _bare(ece, n, f"{binning.words}, {unsure}", plan.level)
    found["log_loss"] = (
        _bare(loss, n, "no interval", plan.level)
        if isfinite(loss)
        else undefined_json(n, Unit.PATIENT, "infinite: an error was sure", plan.level)
    )
    found["reliability_curve"] = [
        {
            "low": b.low,
            "high": b.high,
            "n_rows": b.n_rows,
            "mean_predicted": b.mean_predicted,
            "observed": estimate_json(b.wilson or b.resampled),
        }
        for b in bins
    ]
    try:
        found["brier_parts"] = asdict(brier_decomposition(truth, scores, binning))
    except StatisticUndefined as error:
        found["brier_parts"] = {"note": str(error)}
    return found


def _bare(value: float, n: int, method: str, level: float) -> Json:
    """A number without interval."""
    return estimate_json(
        Estimate(value, float("nan"), float("nan"), level, n, Unit.PATIENT, method)
    )


def _decision(asked: Asked, rows: tuple[Ints, Floats, Texts]) -> list[Json]:
    truth, scores, groups = rows
    cuts = np.array(sorted(asked.decision))
    try:
        curve = decision_curve(truth, scores, cuts, groups, asked.plan)
    except StatisticUndefined as error:
        n = len(set(groups.tolist()))
        why = undefined_json(n, Unit.PATIENT, str(error), asked.plan.level)
        return [{"threshold": float(c), "net_benefit": why} for c in cuts]
    return [
        {
            "threshold": float(cut),
            "net_benefit": estimate_json(curve.model[k]),
            "treat_all": estimate_json(curve.treat_all[k]),
            "interventions_avoided_per_100": estimate_json(curve.avoided[k]),
        }
        for k, cut in enumerate(cuts)
    ]


def _curves(truth: Ints, scores: Floats) -> Json:
    """Every point; the threshold of "call none" is null."""

    def plain(values: npt.NDArray[np.float64]) -> list[float | None]:
        return [float(v) if isfinite(v) else None for v in values]

    try:
        roc, precision = roc_curve(truth, scores), precision_recall_curve(truth, scores)
    except StatisticUndefined as error:
        return {"note": str(error)}
    return {
        "roc": {
            "threshold": plain(roc.thresholds),
            "false_positive_rate": plain(roc.false_positive_rate),
            "true_positive_rate": plain(roc.true_positive_rate),
        },
        "precision_recall": {
            "threshold": plain(precision.thresholds),
            "precision": plain(precision.precision),
            "recall": plain(precision.recall),
        },
    }
