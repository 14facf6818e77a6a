"""Which patients train, validate and test in each fold, so that no patient is in two parts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum


class Plan(StrEnum):
    """How patients are divided."""

    KFOLD = "kfold"
    REPEATED_KFOLD = "repeated-kfold"
    HOLDOUT = "holdout"
    LEAVE_SITE_OUT = "leave-site-out"
    LEAVE_SCANNER_OUT = "leave-scanner-out"
    EXTERNAL = "external"


@dataclass(frozen=True, slots=True)
class Fold:
    """One division of the patients. The three parts are disjoint."""

    index: int
    train: frozenset[str]
    validation: frozenset[str]
    test: frozenset[str]
    name: str = ""

    def __post_init__(self) -> None:
        for a, b in (("train", "validation"), ("train", "test"), ("validation", "test")):
            both = getattr(self, a) & getattr(self, b)
            if both:
                raise ValueError(f"fold {self.index}: {len(both)} patients in {a} and in {b}")
        if not self.train:
            raise ValueError(f"fold {self.index} has no training patients")

    def part_of(self, patient: str) -> str | None:
        """'train', 'validation', 'test', or None when the fold does not use the patient."""
        for part in ("train", "validation", "test"):
            if patient in getattr(self, part):
                return part
        return None


@dataclass(frozen=True, slots=True)
class Split:
    """The folds of an experiment.

    Tested parts are pairwise disjoint within one repeat; a hold-out is tested by every inner
    fold (shared_test), its models being scored singly and as their mean.
    """

    plan: Plan
    seed: int
    folds: tuple[Fold, ...]
    repeats: int = 1
    shared_test: bool = False

    def __post_init__(self) -> None:
        if not self.folds:
            raise ValueError("a split needs at least one fold")
        if [f.index for f in self.folds] != list(range(len(self.folds))):
            raise ValueError("folds must be numbered 0, 1, 2, ...")
        if self.shared_test:
            if len({f.test for f in self.folds}) != 1:
                raise ValueError("folds of a hold-out must share one test part")
            return
        per_repeat = len(self.folds) // self.repeats
        for start in range(0, len(self.folds), per_repeat):
            seen: set[str] = set()
            for fold in self.folds[start : start + per_repeat]:
                if seen & fold.test:
                    raise ValueError(f"fold {fold.index} tests patients already tested")
                seen |= fold.test

    @property
    def digest(self) -> str:
        """Hash of plan, seed and every part of every fold."""
        parts = [f"{self.plan.value} {self.seed} {self.repeats} {self.shared_test}"]
        for fold in self.folds:
            for part in (fold.train, fold.validation, fold.test):
                parts.append(",".join(sorted(part)))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()
