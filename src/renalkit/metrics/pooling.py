"""Which rule makes one score per patient of the scores of frames? Asked of validation patients.

The patients a rule is chosen on are those of the validation part of a fold, never tested ones. The
measure is the log-loss per patient: it is proper, so a rule cannot win by stating more than the
frames know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite, log
from statistics import fmean

from renalkit.domain.prediction import Pooling, Prediction, Rule, Unit, aggregate

LEAST_PATIENTS = 10
"""Validation patients of known class below which nothing is chosen on them."""

CANDIDATES = tuple(rule for rule in Rule if rule is not Rule.MAJORITY)
"""Rules to choose from. Votes are no probabilities: unanimous ones are certain, and the log-loss
rewards that for as long as nobody in a small validation part contradicts."""

TEMPERATURES = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02)
"""Tried for the attention rule, from nearly the mean to nearly the surest frame."""


@dataclass(frozen=True, slots=True)
class PoolingChoice:
    """What was chosen. losses: log-loss per patient of each rule tried (infinite: a sure error).

    n: validation patients of known class. note: why nothing was chosen, "" where it was.
    """

    pooling: Pooling
    losses: Mapping[Rule, float]
    n: int
    note: str = ""


def patient_log_loss(patients: Sequence[Prediction]) -> float:
    """Mean of minus log of the score of the true class; infinite as soon as one error was sure.

    patients: predictions with scores and a known target (ValueError otherwise).
    """
    chances: list[float] = []
    for p in patients:
        if p.scores is None or p.target is None:
            raise ValueError("a patient without scores or without known class")
        chances.append(p.scores[p.target])
    return fmean(-log(c) if c > 0 else inf for c in chances) if chances else inf


def choose_pooling(
    validation: Sequence[Prediction],
    base: Pooling,
    rules: Sequence[Rule] = CANDIDATES,
    temperatures: Sequence[float] = TEMPERATURES,
) -> PoolingChoice:
    """The rule with the lowest log-loss of validation patients; equal ones: the first of `rules`.

    Args:
        validation: frames of the validation part of one fold, any order.
        base: the numbers of the rules; its own rule is taken where nothing can be chosen.
        rules: those to choose from; one alone chooses the temperature of attention only.
        temperatures: tried for attention; equal losses: the first.

    With fewer than `LEAST_PATIENTS` patients of known class, or one class only, the base stands.
    """
    patients = [p for p in aggregate(validation, Unit.PATIENT, base) if p.target is not None]
    n, n_present = len(patients), len({p.target for p in patients})
    if n < LEAST_PATIENTS or n_present < 2:
        words = "one class only" if n_present == 1 else f"fewer than {LEAST_PATIENTS}"
        return PoolingChoice(base, {}, n, f"not chosen: {n} validation patients, {words}")
    losses: dict[Rule, float] = {}
    best, least = base, inf
    for rule in rules:
        tried = [replace(base, rule=rule)]
        if rule is Rule.ATTENTION:
            tried = [replace(base, rule=rule, temperature=t) for t in temperatures]
        for pooling in tried:
            loss = _loss(validation, pooling)
            losses[rule] = min(loss, losses.get(rule, inf))
            if loss < least:
                best, least = pooling, loss
    note = "" if isfinite(least) else "not chosen: every rule was sure of a wrong class"
    return PoolingChoice(best, losses, n, note)


def _loss(validation: Sequence[Prediction], pooling: Pooling) -> float:
    found = aggregate(validation, Unit.PATIENT, pooling)
    return patient_log_loss([p for p in found if p.target is not None])
