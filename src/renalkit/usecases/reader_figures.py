"""How good is every reader, every group and every majority, and how far do readers agree?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import combinations

import numpy as np
import numpy.typing as npt

from renalkit.domain.prediction import Unit
from renalkit.errors import StatisticUndefined
from renalkit.metrics.agreement import Kappa, KappaWeights, cohen_kappa
from renalkit.metrics.classification import BinaryConfusion, Floats, confusion_matrix, roc_curve
from renalkit.metrics.inference import Estimate
from renalkit.metrics.multiplicity import holm
from renalkit.metrics.reader_study import GroupSummary, summarise_group
from renalkit.usecases.call_figures import count_figures
from renalkit.usecases.reading_cases import ReaderStudy
from renalkit.usecases.results import Json, estimate_json, undefined_json

MOST_LEVELS = 20
"""A scale of more steps than this is a number, not an order of classes: no weighted kappa."""


def arm_figures(study: ReaderStudy, arm: str) -> Json:
    """Readers, groups and their agreement in one arm."""
    votes, scores = study.votes(arm), study.scores(arm)
    groups: list[Json] = []
    readers: dict[str, Json] = {}
    for name, rows in study.groups.items():
        members = [study.names[i] for i in rows]
        found = summarise_group(
            members,
            study.truth,
            None if votes is None else votes[rows],
            study.group_plan(rows),
            None if scores is None else scores[rows],
        )
        groups.append(_group(study, name, rows, found) | {"pairs": _pairs(study, arm, rows)})
        for one in found.readers:
            place = study.names.index(one.name)
            readers[one.name] = {
                "reader": one.name,
                "group": study.table.readers[place].group,
                "years": study.table.readers[place].years,
                "calls": None if one.calls is None else calls_json(one.calls, study.level),
                "auc": optional_json(one.auc),
                "roc": None
                if one.auc is None or scores is None
                else roc_json(study.truth, scores[place]),
            }
    return {"arm": arm, "readers": [readers[n] for n in study.names], "groups": groups}


def _group(study: ReaderStudy, name: str, rows: npt.NDArray[np.intp], found: GroupSummary) -> Json:
    vote = found.vote
    return {
        "group": name,
        "readers": [study.names[i] for i in rows],
        "sensitivity": optional_json(found.sensitivity),
        "specificity": optional_json(found.specificity),
        "auc": optional_json(found.auc),
        "majority": None if found.majority is None else calls_json(found.majority, study.level),
        "ties": None if vote is None else vote.ties,
        "undecided": None if vote is None else int((~vote.decided).sum()),
        "kappa": None if found.kappa is None else _kappa(found.kappa),
        "agreement": None
        if found.agreement is None
        else {
            "pairwise": estimate_json(found.agreement.pairwise),
            "unanimous": estimate_json(found.agreement.unanimous),
        },
        "icc": [
            {"form": c.form.value, "estimate": estimate_json(c.estimate), "p": c.p_value}
            for c in found.icc
        ],
        "notes": list(found.notes),
    }


def calls_json(counts: BinaryConfusion, level: float) -> Json:
    """Counts, and the shares that follow from them."""
    return {"counts": asdict(counts)} | count_figures(counts, level)


def roc_json(truth: npt.NDArray[np.bool_], scores: Floats) -> Json:
    """The empirical curve."""
    curve = roc_curve(truth.astype(int), scores)
    return {"fpr": curve.false_positive_rate.tolist(), "tpr": curve.true_positive_rate.tolist()}


def optional_json(found: Estimate | None) -> Json | None:
    return None if found is None else estimate_json(found)


def defined(make: Callable[[], Json], n: int, level: float) -> Json:
    """What `make` finds, or a figure that does not exist, with the reason."""
    try:
        return make()
    except StatisticUndefined as error:
        return undefined_json(n, Unit.PATIENT, error.found, level)


# ------------------------------------------------------------------ every two readers


def _pairs(study: ReaderStudy, arm: str, rows: npt.NDArray[np.intp]) -> list[Json]:
    """Kappa of every two readers: of the votes, and weighted where scores are steps of a scale."""
    votes, steps = study.votes(arm), _steps(study, arm)
    found: list[Json] = []
    for i, k in combinations(rows.tolist(), 2):
        row: Json = {"first": study.names[i], "second": study.names[k]}
        if votes is not None:
            row["kappa"] = _kappa_of(study, votes[[i, k]], 2, KappaWeights.NONE)
        if steps is not None:
            classes, n_classes = steps
            for weights in (KappaWeights.LINEAR, KappaWeights.QUADRATIC):
                row[weights.value] = _kappa_of(study, classes[[i, k]], n_classes, weights)
        if len(row) > 2:
            found.append(row)
    return found


def _steps(study: ReaderStudy, arm: str) -> tuple[Floats, int] | None:
    """Scores as classes 0 .. C-1 of the stated scale; None when it is none of few steps."""
    scores, scale = study.scores(arm), study.plan.score_scale
    if scores is None or scale is None or scale.step is None:
        return None
    n_classes = 1 + round((scale.high - scale.low) / scale.step)
    return (
        (np.round((scores - scale.low) / scale.step), n_classes)
        if n_classes <= MOST_LEVELS
        else None
    )


def _kappa_of(study: ReaderStudy, two: Floats, n_classes: int, weights: KappaWeights) -> Json:
    whole = two.astype(np.int64)

    def kappa() -> Json:
        matrix = confusion_matrix(whole[0], whole[1], n_classes)
        return _kappa(cohen_kappa(matrix, weights, level=study.level))

    return defined(kappa, len(study.cases), study.level)


def _kappa(found: Kappa) -> Json:
    return estimate_json(found.estimate) | {"p": found.p_value}


# ------------------------------------------------------------------ multiplicity


def adjust(rows: Sequence[Json], key: str = "p") -> int:
    """Give rows with a p-value `p_holm`, adjusted over all of them; how many they are."""
    tested = [row for row in rows if row.get(key) is not None]
    if tested:
        adjusted = holm(np.array([row[key] for row in tested]))
        for row, p in zip(tested, adjusted.tolist(), strict=True):
            row[f"{key}_holm"] = p
    return len(tested)
