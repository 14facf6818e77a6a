"""How good are calls? Accuracy, sensitivity, specificity, predictive values and F1 as figures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from renalkit.domain.prediction import Unit
from renalkit.metrics.bootstrap import BootstrapPlan, RatioOfSums, mean_of_rows
from renalkit.metrics.classification import BinaryConfusion, binary_confusion
from renalkit.usecases.results import Json, bootstrapped, estimate_json, undefined_json

Bools = npt.NDArray[np.bool_]


def call_figures(
    truth: Bools, called: Bools, groups: Sequence[str], plan: BootstrapPlan, *, independent: bool
) -> Json:
    """All six by name; truth and calls (n,), groups (n,): patient of each row.

    independent: rows are patients, with exact intervals; otherwise patients are resampled. A figure
    without anything in its denominator is null, with its reason.
    """
    if independent:
        return count_figures(binary_confusion(truth, called), plan.level)
    found: Json = {}
    for name, (top, bottom) in call_rates(truth, called).items():
        kept = [g for g, b in zip(groups, bottom, strict=True) if b]
        found[name] = (
            bootstrapped(mean_of_rows(top[bottom].astype(float)), kept, plan)
            if kept
            else undefined_json(0, Unit.FRAME, "0 of 0", plan.level)
        )
    hits, marked = (truth & called).astype(np.float64), (1 * truth + 1 * called).astype(np.float64)
    return {**found, "f1": bootstrapped(RatioOfSums(2 * hits, marked), groups, plan)}


def count_figures(counts: BinaryConfusion, level: float) -> Json:
    """All six by name from counts of independent patients, with exact intervals."""
    return {
        name: estimate_json(m.estimate(Unit.PATIENT, level))
        if m.defined
        else undefined_json(0, Unit.PATIENT, "0 of 0", level)
        for name, m in counts.measures().items()
    }


def call_rates(truth: Bools, called: Bools) -> dict[str, tuple[Bools, Bools]]:
    """Which rows (n,) each share counts: those called rightly, and those it is a share of."""
    return {
        "accuracy": (truth == called, np.ones_like(truth)),
        "sensitivity": (truth & called, truth),
        "specificity": (~truth & ~called, ~truth),
        "ppv": (truth & called, called),
        "npv": (~truth & ~called, ~called),
    }
