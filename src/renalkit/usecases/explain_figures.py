"""What do the maps of a cohort say together? Figures per modality and class, over patients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from renalkit.domain.prediction import Unit
from renalkit.metrics.bootstrap import BootstrapPlan, mean_of_patient_means
from renalkit.usecases.results import Json, bootstrapped, undefined_json

CONTROL = "control"
"""Name of what the randomised network says, beside what the trained one says."""

_OF_MAPS = ("inside", "evidence", "deletion", "insertion")

Row = Mapping[str, Any]
Take = Callable[[Row], float | None]


def cohort_figures(
    frames: Sequence[Row], classes: Sequence[str], modalities: Sequence[str], plan: BootstrapPlan
) -> Json:
    """Means over patients of what `explain.json` holds per frame, with intervals over patients.

    Per modality: inside, area, deletion, insertion, evidence and rank_correlation; `control` has
    those of the randomised network, `inside_minus_area` and the differences to the control are
    paired. weights: per modality of a fused network. Each is given over all patients and by class.
    """
    groups = {"all": list(frames)} | {
        name: [f for f in frames if f["class"] == name] for name in classes
    }
    return {
        "n_frames": len(frames),
        "n_patients": len({f["patient"] for f in frames}),
        "modalities": {m: _of_modality(groups, m, plan) for m in modalities},
        "weights": {
            m: _by_group(groups, _weight(m), plan)
            | {CONTROL: _by_group(groups, _weight(m, CONTROL), plan)}
            for m in modalities
            if any(f["weights"] for f in frames)
        },
    }


def _of_modality(groups: Mapping[str, list[Row]], modality: str, plan: BootstrapPlan) -> Json:
    def own(name: str) -> Take:
        return lambda row: row["maps"].get(modality, {}).get(name)

    def control(name: str) -> Take:
        return lambda row: row["maps"].get(modality, {}).get(CONTROL, {}).get(name)

    shown = [f["maps"][modality] for f in groups["all"] if modality in f["maps"]]
    found: Json = {
        "n_frames": len(shown),
        "empty": sum(m["evidence"] == 0 or m["evidence"] is None for m in shown),
        "area": _by_group(groups, own("area"), plan),
        "rank_correlation": _by_group(groups, own("rank_correlation"), plan),
        "inside_minus_area": _by_group(groups, _minus(own("inside"), own("area")), plan),
    }
    for name in _OF_MAPS:
        found[name] = _by_group(groups, own(name), plan)
        found[f"{name}_{CONTROL}"] = _by_group(groups, control(name), plan)
        found[f"{name}_minus_{CONTROL}"] = _by_group(groups, _minus(own(name), control(name)), plan)
    return found


def _weight(modality: str, of: str | None = None) -> Take:
    def take(row: Row) -> float | None:
        weights = (row["weights"] if of is None else row[of]["weights"]) or {}
        return weights.get(modality)

    return take


def _minus(first: Take, second: Take) -> Take:
    def take(row: Row) -> float | None:
        one, two = first(row), second(row)
        return None if one is None or two is None else one - two

    return take


def _by_group(groups: Mapping[str, list[Row]], take: Take, plan: BootstrapPlan) -> Json:
    return {name: _mean(rows, take, plan) for name, rows in groups.items()}


def _mean(rows: Sequence[Row], take: Take, plan: BootstrapPlan) -> Json:
    """Mean of patients' means over the frames that have the value."""
    known = [(row["patient"], value) for row in rows if (value := take(row)) is not None]
    if not known:
        return undefined_json(0, Unit.PATIENT, "no frame has it", plan.level)
    patients = [p for p, _ in known]
    values = np.array([v for _, v in known], np.float64)
    return bootstrapped(mean_of_patient_means(values, np.array(patients)), patients, plan)
