"""What a guard says: one finding with its severity, in words, and whom it concerns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

Fact = str | int | float


class Severity(StrEnum):
    """BLOCK stops training unless waived; REVIEW asks for a look; NOTE belongs in the report."""

    BLOCK = "block"
    REVIEW = "review"
    NOTE = "note"


def _no_facts() -> Mapping[str, Fact]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing a guard found. guard is its id (L01 ...); detail holds the numbers behind words."""

    guard: str
    severity: Severity
    words: str
    studies: tuple[str, ...] = ()
    patients: tuple[str, ...] = ()
    detail: Mapping[str, Fact] = field(default_factory=_no_facts)

    def __post_init__(self) -> None:
        if not self.words.strip():
            raise ValueError("a finding needs words")
        object.__setattr__(self, "studies", tuple(sorted(set(self.studies))))
        object.__setattr__(self, "patients", tuple(sorted(set(self.patients))))
        object.__setattr__(self, "detail", MappingProxyType(dict(self.detail)))
