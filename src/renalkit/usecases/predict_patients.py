"""What does a model say of a patient, given what it says of the frames?

Each member's frames go the way of its fold (rule, correction, calibration); the patient's score is
the mean of the members, held against the median of their thresholds: as in the figures of the run,
and of an external test.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from renalkit.domain.prediction import Prediction, Unit, aggregate
from renalkit.metrics.calibrators import Calibration
from renalkit.metrics.patient_way import FoldWay
from renalkit.usecases.models import Model
from renalkit.usecases.results import called_class, pool

Json = dict[str, Any]


def frame_scores(model: Model, said: Sequence[Prediction]) -> Json:
    """One frame: its scores as they enter the rule, and the class it would give a patient alone.

    said: one prediction per member, with scores.
    """
    entering = [m.way.corrected([p])[0] for m, p in zip(model.members, said, strict=True)]
    (mean,) = pool(entering)
    alone = [m.way.patients([p])[0] for m, p in zip(model.members, said, strict=True)]
    (ended,) = pool(alone)
    return {"scores": _named(model, mean), "called": _called(model, ended)}


def patient_answer(model: Model, said: Sequence[Sequence[Prediction]]) -> Json:
    """One patient. said: per member, the frames of this patient, each with scores.

    Returns:
        scores (calibrated where the run asks for it), called, threshold; before: scores without
        correction and calibration; frames, roi, modalities: how many frames, where their outlines
        came from and what they were judged by; modality_weights: mean of alpha and beta over frames
        and members; members: the same of each member.
    """
    ends = [m.way.patients(frames)[0] for m, frames in zip(model.members, said, strict=True)]
    (pooled,) = pool(ends)
    plain = [
        aggregate(frames, Unit.PATIENT, m.way.choice.pooling)[0]
        for m, frames in zip(model.members, said, strict=True)
    ]
    (before,) = pool(plain)
    first = said[0]
    found: Json = {
        "scores": _named(model, pooled),
        "called": _called(model, pooled),
        "threshold": threshold_of(model),
        "frames": len(first),
        "roi": dict(sorted(Counter(p.roi_origin.value for p in first).items())),
        "members": [
            {
                "fold": m.fold,
                "scores": _named(model, p),
                "called": _called(model, p),
                "threshold": None if m.threshold is None else m.threshold.value,
            }
            for m, p in zip(model.members, ends, strict=True)
        ],
    }
    if before.scores != pooled.scores:
        found["before"] = _named(model, before)
    judged = Counter("+".join(p.modalities) for p in first if p.modalities is not None)
    if judged:
        found["modalities"] = dict(sorted(judged.items()))
    weights = [p.modality_weights for frames in said for p in frames if p.modality_weights]
    if weights:
        means = (fmean(column) for column in zip(*weights, strict=True))
        found["modality_weights"] = dict(zip(model.inputs.modalities, means, strict=True))
    return found


def notes_of(model: Model, answer: Json, unknown: Sequence[str]) -> list[str]:
    """What a reader must know of a patient's answer. unknown: features that are not known."""
    notes: list[str] = []
    whole = "+".join(model.inputs.modalities)
    for judged, n in answer.get("modalities", {}).items():
        if judged != whole:
            notes.append(f"{n} of {answer['frames']} frames by the head of {judged} alone")
    if unknown:
        notes.append(f"not known, as if never measured: {', '.join(unknown)}")
    if len(model.task.classes) == 2 and answer["threshold"] is None:
        notes.append("the model has no threshold: the class of the larger score is named")
    return notes


def threshold_of(model: Model) -> float | None:
    """Median over the members; None for several classes, or without figures of the run."""
    values = sorted(m.threshold.value for m in model.members if m.threshold is not None)
    middle = len(values) // 2
    if not values:
        return None
    return values[middle] if len(values) % 2 else fmean(values[middle - 1 : middle + 1])


def way_words(model: Model) -> str:
    """How frames become a patient, in one sentence."""
    ways = [m.way for m in model.members]
    words = f"{_most(w.choice.pooling.rule.value for w in ways)} of the frames"
    if any(w.shares is not None for w in ways):
        words += ", corrected for the classes' shares"
    kinds = [w.calibrator.kind for w in ways]
    if any(kind is not Calibration.NONE for kind in kinds):
        words += f", calibrated by {_most(k.value for k in kinds)}"
    members = len(ways)
    return f"{words}; mean of {members} models" if members > 1 else words


def ways_json(model: Model) -> list[Json]:
    """The way of each member, as metrics.json has them."""
    ways: list[FoldWay] = [m.way for m in model.members]
    return [way.as_json() for way in ways]


def _most(found: Any) -> str:
    """The names that occur, each once."""
    return " or ".join(dict.fromkeys(found))


def _named(model: Model, p: Prediction) -> Json:
    assert p.scores is not None
    return dict(zip(model.task.classes, p.scores, strict=True))


def _called(model: Model, p: Prediction) -> str:
    thresholds = {m.fold: m.threshold for m in model.members if m.threshold is not None}
    return model.task.classes[called_class(p, thresholds, model.task.positive_index)]
