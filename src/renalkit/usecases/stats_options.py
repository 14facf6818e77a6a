"""What is asked of the scores of a table, as words of a command line and as checked settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite
from typing import TypeVar

from renalkit.errors import ConfigError
from renalkit.metrics.bootstrap import BootstrapPlan, IntervalMethod
from renalkit.metrics.classification import OperatingPoint, ThresholdRule
from renalkit.metrics.curves import Axis, RocPart
from renalkit.usecases.results import Json
from renalkit.usecases.table_scores import Scored

T = TypeVar("T")

OPTIMISTIC = "these very rows: optimistic"
"""Where a threshold comes from that is judged by the rows it was chosen on."""


class Adjust(StrEnum):
    """How p-values of several comparisons are adjusted. bh: Benjamini and Hochberg."""

    HOLM = "holm"
    BH = "bh"


@dataclass(frozen=True, slots=True)
class Wish:
    """An operating point: given thresholds by score, or a rule. text: as the user wrote it."""

    text: str
    given: dict[str, float] | None = None
    rule: OperatingPoint | None = None

    @staticmethod
    def parse(text: str, names: tuple[str, ...], prevalence: float | None) -> Wish:
        """A number, NAME=NUMBER,..., or youden, f1, sensitivity:0.95, specificity:0.9, cost:10.

        Raises: ValueError.
        """
        rules = {r.value: r for r in ThresholdRule if r is not ThresholdRule.HALF}
        word, separator, number = text.partition(":")
        if word in rules:
            rule = rules[word]
            value = float(number) if separator else None
            if rule is ThresholdRule.COST:
                point = OperatingPoint(rule, None, value, prevalence)
            else:
                point = OperatingPoint(rule, value)
            return Wish(text, rule=point)
        if "=" not in text:
            return Wish(text, dict.fromkeys(names, _finite_number(text)))
        pairs = [item.rpartition("=") for item in text.split(",")]
        given = {name: _finite_number(value) for name, _, value in pairs}
        if set(given) != set(names) or len(pairs) != len(names):
            raise ValueError(f"{text!r} does not give each of {', '.join(names)} one threshold")
        return Wish(text, given)

    def threshold(self, scored: Scored, index: int) -> Json:
        """Value, rule in words and where it comes from. Raises: StatisticUndefined."""
        name = scored.names[index]
        if self.given is not None:
            return {"value": self.given[name], "rule": "given", "from": "given", "n_rows": 0}
        assert self.rule is not None
        source = scored.tuning or scored
        truth, scores, _ = source.of(index)
        return {
            "value": self.rule.threshold(truth, scores),
            "rule": self.rule.words,
            "from": OPTIMISTIC if scored.tuning is None else "rows set apart for it",
            "n_rows": len(truth),
        }


def _finite_number(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise ValueError(f"{text!r} is no number")
    return value


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of every score, beside its AUC and average precision.

    prevalence: for predictive values elsewhere. parts: of the ROC curve. probabilities: scores are
    those of the positive class, so calibration exists. decision: thresholds of a decision curve.
    margin: of non-inferiority. curves: give every point of the curves.
    """

    plan: BootstrapPlan
    adjust: Adjust = Adjust.HOLM
    prevalence: float | None = None
    wishes: tuple[Wish, ...] = ()
    parts: tuple[RocPart, ...] = ()
    probabilities: bool = False
    decision: tuple[float, ...] = ()
    margin: float | None = None
    curves: bool = False


@dataclass(frozen=True, slots=True)
class Options:
    """The same as words of a command line."""

    level: float = 0.95
    seed: int = 0
    resamples: int = 2000
    interval: str = IntervalMethod.PERCENTILE.value
    adjust: str = Adjust.HOLM.value
    prevalence: float | None = None
    thresholds: tuple[str, ...] = ()
    partial: tuple[str, ...] = ()
    probabilities: bool = False
    decision: tuple[float, ...] = ()
    margin: float | None = None
    curves: bool = False

    def asked(self, names: tuple[str, ...]) -> Asked:
        """Checked; ConfigError lists every problem."""
        problems: list[str] = []

        def read(option: str, make: Callable[[], T], otherwise: T) -> T:
            try:
                return make()
            except ValueError as error:
                problems.append(f"{option}: {error}")
                return otherwise

        if self.prevalence is not None and not 0 < self.prevalence < 1:
            problems.append(f"--prevalence {self.prevalence:g}: expected above 0 and below 1")
        if self.margin is not None and not 0 < self.margin < 1:
            problems.append(f"--margin {self.margin:g}: expected above 0 and below 1")
        if any(not 0 < t < 1 for t in self.decision):
            problems.append("--decision: expected probabilities between 0 and 1")
        if self.decision and not self.probabilities:
            problems.append(
                "--decision: needs --probabilities, for thresholds are compared with them"
            )
        plan = read("--interval", self._plan, BootstrapPlan())
        adjust = read("--adjust", lambda: Adjust(self.adjust), Adjust.HOLM)
        wishes = [
            read("--threshold", lambda t=t: Wish.parse(t, names, self.prevalence), None)
            for t in self.thresholds
        ]
        parts = [read("--partial", lambda t=t: _part(t), None) for t in self.partial]
        if problems:
            raise ConfigError(problems)
        return Asked(
            plan,
            adjust,
            self.prevalence,
            tuple(w for w in wishes if w is not None),
            tuple(p for p in parts if p is not None),
            self.probabilities,
            self.decision,
            self.margin,
            self.curves,
        )

    def _plan(self) -> BootstrapPlan:
        method = IntervalMethod(self.interval)
        return BootstrapPlan(self.resamples, self.seed, method, self.level)


def _part(text: str) -> RocPart:
    """specificity:0.8-1 or sensitivity:0.9-1."""
    axis, _, ends = text.partition(":")
    low, separator, high = ends.partition("-")
    if not separator:
        raise ValueError(f"{text!r}: expected specificity:0.8-1 or sensitivity:0.9-1")
    return RocPart(float(low), float(high), Axis(axis))


def column_value(text: str | None) -> tuple[str, str] | None:
    """COL=VALUE; ConfigError for anything else."""
    if text is None:
        return None
    column, separator, value = text.partition("=")
    if not (column and separator and value):
        raise ConfigError([f"--tune-on {text!r}: expected COL=VALUE, e.g. part=validation"])
    return column, value


def fractions(text: str | None) -> tuple[float, ...]:
    """Numbers separated by commas; ConfigError for anything else."""
    try:
        return tuple(float(word) for word in (text or "").split(",") if word.strip())
    except ValueError as error:
        raise ConfigError([f"--decision {text!r}: expected numbers such as 0.1,0.2"]) from error
