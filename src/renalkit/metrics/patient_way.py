"""How do the frames of one fold become patients? Everything fixed before anybody is tested.

A way is found on the validation part of a fold (`renalkit.usecases.patients`) and stored with the
run. Whoever is tested goes it, and so does a new patient: the frames' scores are set to the shares
of classes among training patients, a rule makes one score per patient of them, and a map
calibrates these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import inf, isfinite
from typing import Any

import numpy as np

from renalkit.domain.prediction import Pooling, Prediction, Rule, Unit, aggregate
from renalkit.metrics.calibrators import Calibration, Calibrator, focal_posterior, with_shares
from renalkit.metrics.pooling import PoolingChoice

_NUMBERS = {
    Rule.TOPK: "share",
    Rule.NOISY_OR: "noisy_or_frames",
    Rule.ATTENTION: "temperature",
}
"""The number of a rule, as `Pooling` names it."""


@dataclass(frozen=True, slots=True)
class Shares:
    """Shares of the classes that training imposed, and those of its patients.

    gamma: of the focal loss that is undone first, 0 without one; per_logit: its kind.
    """

    imposed: tuple[float, ...]
    wanted: tuple[float, ...]
    gamma: float = 0.0
    per_logit: bool = False


@dataclass(frozen=True, slots=True)
class FoldWay:
    """The way of one fold. shares: None where nothing is corrected."""

    fold: int
    choice: PoolingChoice
    shares: Shares | None
    calibrator: Calibrator

    def corrected(self, frames: Sequence[Prediction]) -> list[Prediction]:
        """Frames as they enter the rule; each has scores."""
        return corrected(frames, self.shares)

    def patients(self, frames: Sequence[Prediction]) -> list[Prediction]:
        """Frames as the fold's network scored them -> one prediction per patient."""
        found = aggregate(self.corrected(frames), Unit.PATIENT, self.choice.pooling)
        return calibrated(found, self.calibrator)

    def as_json(self) -> dict[str, Any]:
        """What metrics.json keeps; an infinite loss is null."""
        pooling = self.choice.pooling
        losses = {r.value: v if isfinite(v) else None for r, v in self.choice.losses.items()}
        names = [_NUMBERS[pooling.rule]] if pooling.rule in _NUMBERS else []
        about = asdict(self.calibrator)
        return {
            "fold": self.fold,
            "rule": pooling.rule.value,
            **{name: getattr(pooling, name) for name in names},
            "n": self.choice.n,
            "losses": losses,
            "note": self.choice.note,
            "prior": None if self.shares is None else asdict(self.shares),
            "calibration": about | {"kind": self.calibrator.kind.value},
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any], positive: int = 1) -> FoldWay:
        """The way that `as_json` described. positive: index of that class, for noisy-or.

        Raises:
            KeyError, TypeError, ValueError: it describes none.
        """
        rule = Rule(found["rule"])
        pooling = Pooling(rule, positive=positive)
        if rule in _NUMBERS:
            name = _NUMBERS[rule]
            pooling = replace(pooling, **{name: float(found[name])})
        losses = {Rule(r): inf if v is None else float(v) for r, v in found["losses"].items()}
        prior, about = found["prior"], dict(found["calibration"])
        shares = None
        if prior is not None:
            pair = {n: tuple(map(float, prior[n])) for n in ("imposed", "wanted")}
            shares = Shares(**prior | pair)
        about |= {n: Calibration(about[n]) for n in ("kind", "asked")}
        about |= {n: tuple(map(float, about[n])) for n in ("biases", "at", "height")}
        choice = PoolingChoice(pooling, losses, int(found["n"]), str(found["note"]))
        return cls(int(found["fold"]), choice, shares, Calibrator(**about))


def corrected(frames: Sequence[Prediction], shares: Shares | None) -> list[Prediction]:
    """Frames with scores for the shares of classes among training patients."""
    if shares is None or not frames:
        return list(frames)
    scores = np.array([p.scores for p in frames], dtype=np.float64)
    if shares.gamma or shares.per_logit:
        scores = focal_posterior(scores, shares.gamma, shares.per_logit)
    found = with_shares(scores, shares.imposed, shares.wanted)
    return _with_scores(frames, found.tolist())


def calibrated(patients: Sequence[Prediction], calibrator: Calibrator) -> list[Prediction]:
    """Patients with calibrated scores."""
    if calibrator.kind is Calibration.NONE or not patients:
        return list(patients)
    found = calibrator.apply(np.array([p.scores for p in patients]))
    return _with_scores(patients, found.tolist())


def _with_scores(
    predictions: Sequence[Prediction], scores: Sequence[Sequence[float]]
) -> list[Prediction]:
    return [replace(p, scores=tuple(s)) for p, s in zip(predictions, scores, strict=True)]
