"""How does a system of a run do beside the readers, on the cases that they read?

A reader's votes are one operating point. A system is compared with it there: its specificity at
the reader's sensitivity and the reverse, and both at the threshold that its validation patients
gave. AUCs are compared only where readers gave scores.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from renalkit.domain.prediction import Unit
from renalkit.errors import ConfigError, StatisticUndefined
from renalkit.metrics.auc_inference import delong
from renalkit.metrics.classification import BinaryConfusion, Floats, binary_confusion
from renalkit.metrics.mrmc import Figure, Generalise, MrmcPlan, model_against_readers
from renalkit.metrics.reader_study import Match, majority_vote, model_at_reader
from renalkit.usecases.patients import patients_of
from renalkit.usecases.reader_arms import area_difference, call_differences
from renalkit.usecases.reader_figures import adjust, calls_json, roc_json
from renalkit.usecases.reading_cases import (
    LEAST_OF_A_CLASS,
    ReaderPlan,
    ReaderStudy,
    positive_of,
)
from renalkit.usecases.results import (
    Json,
    RunResults,
    SystemResults,
    called_class,
    estimate_json,
    positive_class,
    undefined_json,
)

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class SystemCalls:
    """What a system said of each patient: probability of the positive class, and its call."""

    label: str
    scores: dict[str, float]
    calls: dict[str, bool]


def system_calls(results: RunResults, plan: ReaderPlan) -> tuple[SystemCalls, ...]:
    """The systems of a run that stand beside the readers, and the one that readers saw.

    Raises: ConfigError for a system that the run does not have, or that gives no classes.
    """
    classifying = {
        s.job.label: s for s in results.systems if any(p.scores is not None for p in s.pooled)
    }
    asked = (*plan.systems, *([plan.ai] if plan.ai else []))
    unknown = [name for name in asked if name not in classifying]
    if unknown:
        there = ", ".join(classifying) or "none"
        raise ConfigError(
            [
                f"--system or --ai: '{name}' gives no classes in this run; {there} do"
                for name in unknown
            ]
        )
    wanted = [n for n in classifying if not plan.systems or n in asked]
    return tuple(_calls(results, classifying[name], plan) for name in wanted)


def _calls(results: RunResults, system: SystemResults, plan: ReaderPlan) -> SystemCalls:
    said = patients_of(results, system)
    wanted = results.task.index(positive_of(results.cohort, plan.positive))
    scores: dict[str, float] = {}
    calls: dict[str, bool] = {}
    for p in said.pooled:
        if p.scores is not None:
            scores[p.key.patient] = p.scores[wanted]
            called = called_class(p, said.thresholds, positive_class(results))
            calls[p.key.patient] = called == wanted
    return SystemCalls(system.job.label, scores, calls)


def beside_readers(study: ReaderStudy, systems: Sequence[SystemCalls]) -> list[Json]:
    """Every system beside readers, majorities and groups of the baseline arm.

    p-values are adjusted over the systems and readers, or systems and groups, of one comparison.
    """
    found = [_system(study, s) for s in systems]
    families: dict[tuple[str, bool, str, str], list[Json]] = defaultdict(list)
    for name in ("matched", "calls", "areas"):
        for row in (r for s in found for r in s[name]):
            one = row["kind"] == "reader"
            families[name, one, row.get("match", ""), row["figure"]].append(row)
    for rows in families.values():
        adjust(rows)
    return found


def _system(study: ReaderStudy, system: SystemCalls) -> Json:
    """On the cases the system was tested on, which may be fewer than were read."""
    kept = [c for c in study.cases if c in system.scores]
    about: Json = {"label": system.label, "cases": len(kept), "note": ""}
    part = replace(study, table=study.table.of_cases(set(kept)))
    positives = int(part.truth.sum()) if kept else 0
    empty: Json = {"auc": None, "roc": None, "point": None, "matched": [], "calls": [], "areas": []}
    if min(positives, len(kept) - positives) < LEAST_OF_A_CLASS:
        words = f"tested on {positives} positive and {len(kept) - positives} negative of the cases"
        return about | empty | {"note": words}
    scores = np.array([system.scores[c] for c in part.cases], dtype=np.float64)
    called = np.array([system.calls[c] for c in part.cases], dtype=np.bool_)
    try:
        area = estimate_json(delong(part.truth, scores, level=part.level))
    except StatisticUndefined as error:
        area = undefined_json(len(kept), Unit.PATIENT, error.found, part.level)
    return about | {
        "auc": area,
        "roc": roc_json(part.truth, scores),
        "point": calls_json(binary_confusion(part.truth, called), part.level),
        "matched": list(_matched(part, scores)),
        "calls": list(_at_threshold(part, called)),
        "areas": list(_areas(part, scores)),
    }


def _opponents(study: ReaderStudy) -> Iterator[tuple[Json, Bools, Floats]]:
    """Readers and majorities of the baseline: who, cases decided (n,), calls (n,)."""
    votes = study.votes(study.baseline)
    if votes is None:
        return
    for name, own in zip(study.names, votes, strict=True):
        yield {"kind": "reader", "who": name}, np.ones(own.size, dtype=np.bool_), own
    for name, rows in study.groups.items():
        if rows.size > 1:
            plan = study.group_plan(rows)
            members = [study.names[i] for i in rows]
            chair = None if plan.chair is None else members.index(plan.chair)
            found = majority_vote(votes[rows], plan.ties, chair)
            yield {"kind": "majority", "who": name}, found.decided, found.calls.astype(np.float64)


def _matched(study: ReaderStudy, scores: Floats) -> Iterator[Json]:
    for who, decided, votes in _opponents(study):
        for match in Match:
            other = match.other.value
            row = who | {"match": match.value, "figure": other}
            try:
                found = model_at_reader(
                    study.truth[decided], scores[decided], votes[decided], match, study.resampling
                )
            except StatisticUndefined as error:
                why = undefined_json(int(decided.sum()), Unit.PATIENT, error.found, study.level)
                yield row | {"difference": why, "p": None}
                continue
            yield row | {
                "at": _share(found.reader, match.value, study.level),
                "matched": _share(found.model, match.value, study.level),
                "first": _share(found.model, other, study.level),
                "second": _share(found.reader, other, study.level),
                "difference": estimate_json(found.difference),
                "p": found.test.p_value,
                "test": found.test.test,
                "threshold": found.threshold,
            }


def _share(counts: BinaryConfusion, name: str, level: float) -> Json:
    return estimate_json(counts.measures()[name].estimate(Unit.PATIENT, level))


def _at_threshold(study: ReaderStudy, called: Bools) -> Iterator[Json]:
    for who, decided, votes in _opponents(study):
        part = replace(study, table=study.table.of_cases(_cases(study, decided)))
        try:
            rows = call_differences(part, called[decided], votes[decided])
        except StatisticUndefined as error:
            why = undefined_json(int(decided.sum()), Unit.PATIENT, error.found, study.level)
            rows = [
                {"figure": m.value, "difference": why, "p": None}
                for m in (Match.SENSITIVITY, Match.SPECIFICITY)
            ]
        yield from (who | row for row in rows)


def _cases(study: ReaderStudy, kept: Bools) -> set[str]:
    return {c for c, k in zip(study.cases, kept, strict=True) if k}


def _areas(study: ReaderStudy, scores: Floats) -> Iterator[Json]:
    """AUC of the system less that of each reader, and less the mean of each group."""
    ratings = study.scores(study.baseline)
    if ratings is None:
        return
    for name, own in zip(study.names, ratings, strict=True):
        yield {"kind": "reader", "who": name} | area_difference(study, scores, own)
    for name, rows in study.groups.items():
        about: Json = {"kind": "mean", "who": name, "figure": Figure.AUC.value}
        if rows.size < 2:
            continue
        plan = MrmcPlan(to=Generalise.READERS_AND_CASES, level=study.level)
        try:
            found = model_against_readers(study.truth, scores, ratings[rows], plan)
        except StatisticUndefined as error:
            why = undefined_json(len(study.cases), Unit.PATIENT, error.found, study.level)
            yield about | {"difference": why, "p": None}
            continue
        yield about | {
            "first": estimate_json(found.model),
            "second": estimate_json(found.readers),
            "difference": estimate_json(found.difference),
            "p": found.p_value,
            "test": f"Obuchowski-Rockette, {plan.to.value}",
        }
