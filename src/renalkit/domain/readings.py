"""What readers said about the cases of a study: who, in which arm, how sure, and where.

A reader's score is on the reader's own scale (1 to 5, 0 to 100), not a probability, and a vote is
one operating point, so readings are kept apart from predictions. An arm is a way of reading: with
or without AI, one modality or another.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import isfinite, nan
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from renalkit.domain.geometry import Box, MaskRLE

Floats = npt.NDArray[np.float64]
Place = tuple[str, int, str]
"""File, frame and lesion that an outline is of."""


class ReadingValue(StrEnum):
    """What of a reading is looked at."""

    SCORE = "score"
    VOTE = "vote"


@dataclass(frozen=True, slots=True)
class Reader:
    """group: seniority in the study's own words (junior, senior), '' when not stated. years: of
    experience."""

    name: str
    group: str = ""
    years: int | None = None

    def __post_init__(self) -> None:
        if not self.name or self.name != self.name.strip():
            raise ValueError(f"reader {self.name!r}: expected a name without spaces around it")
        if self.years is not None and self.years < 0:
            raise ValueError(f"{self.years} years of experience")


@dataclass(frozen=True, slots=True)
class ScoreScale:
    """Lowest and highest score a reader could give; step None: anything between."""

    low: float
    high: float
    step: float | None = None

    def __post_init__(self) -> None:
        if not (isfinite(self.low) and isfinite(self.high) and self.low < self.high):
            raise ValueError(f"scale from {self.low} to {self.high}")
        if self.step is not None and not 0 < self.step <= self.high - self.low:
            raise ValueError(f"step {self.step} on a scale from {self.low} to {self.high}")

    def holds(self, score: float) -> bool:
        """Whether a reader could have given this score.

        >>> ScoreScale(1, 5, 1).holds(3), ScoreScale(1, 5, 1).holds(3.5), ScoreScale(1, 5).holds(6)
        (True, False, False)
        """
        if not self.low <= score <= self.high:
            return False
        steps = 0.0 if self.step is None else (score - self.low) / self.step
        return abs(steps - round(steps)) < 1e-9

    @property
    def text(self) -> str:
        """In words, for messages: '1 to 5 in steps of 1'."""
        steps = "" if self.step is None else f" in steps of {self.step:g}"
        return f"{self.low:g} to {self.high:g}{steps}"


@dataclass(frozen=True, slots=True)
class Reading:
    """One reader on one case in one arm. score: higher is more positive. vote: positive or not."""

    case: str
    reader: str
    arm: str = ""
    score: float | None = None
    vote: bool | None = None

    def __post_init__(self) -> None:
        if self.score is None and self.vote is None:
            raise ValueError(f"reading of {self.case!r} by {self.reader!r} says nothing")
        if self.score is not None and not isfinite(self.score):
            raise ValueError(f"score {self.score} is not a number")

    def value(self, kind: ReadingValue) -> float:
        """The score, or the vote as 0 or 1; NaN when not given."""
        said = self.score if kind is ReadingValue.SCORE else self.vote
        return nan if said is None else float(said)


@dataclass(frozen=True, slots=True)
class ReadingTable:
    """All readings of a study. truth: of every case (True: positive), or None when not known.

    cases: those that were to be read, also when nobody read them. The order of readers, cases and
    arms (first appearance) is that of every array.
    """

    readers: tuple[Reader, ...]
    cases: tuple[str, ...]
    readings: tuple[Reading, ...]
    truth: Mapping[str, bool] | None = None
    scale: ScoreScale | None = None

    def __post_init__(self) -> None:
        names = {r.name for r in self.readers}
        cases = set(self.cases)
        if len(names) != len(self.readers) or len(cases) != len(self.cases):
            raise ValueError("a reader or a case is listed twice")
        seen: set[tuple[str, str, str]] = set()
        for reading in self.readings:
            key = (reading.case, reading.reader, reading.arm)
            if reading.reader not in names or reading.case not in cases or key in seen:
                raise ValueError(f"reading {key} is of an unknown reader or case, or stands twice")
            if self.scale and reading.score is not None and not self.scale.holds(reading.score):
                raise ValueError(f"score {reading.score} is not on the scale {self.scale.text}")
            seen.add(key)
        if self.truth is not None:
            if set(self.truth) != cases:
                raise ValueError("the truth is not of exactly the cases")
            object.__setattr__(self, "truth", MappingProxyType(dict(self.truth)))

    @property
    def arms(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(r.arm for r in self.readings))

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(r.group for r in self.readers))

    def has(self, kind: ReadingValue) -> bool:
        """Whether any reading gives such a value."""
        return any(r.value(kind) == r.value(kind) for r in self.readings)

    def values(self, kind: ReadingValue, arms: Sequence[str] | None = None) -> Floats:
        """Scores or votes (arms, readers, cases); NaN where there is none. Default: all arms."""
        chosen = self.arms if arms is None else tuple(arms)
        unknown = set(chosen) - set(self.arms)
        if unknown:
            raise ValueError(f"no arm {sorted(unknown)} among {list(self.arms)}")
        places = (
            {a: i for i, a in enumerate(chosen)},
            {r.name: i for i, r in enumerate(self.readers)},
            {c: i for i, c in enumerate(self.cases)},
        )
        found = np.full(tuple(len(p) for p in places), nan)
        for r in self.readings:
            if r.arm in places[0]:
                found[places[0][r.arm], places[1][r.reader], places[2][r.case]] = r.value(kind)
        return found

    def truths(self) -> npt.NDArray[np.bool_]:
        """Truth (cases,). Raises: ValueError when it is not known."""
        if self.truth is None:
            raise ValueError("the readings come without truth")
        return np.array([self.truth[case] for case in self.cases], dtype=np.bool_)

    def missing(self, kind: ReadingValue) -> tuple[tuple[str, str, str], ...]:
        """(case, reader, arm) of every reading that a fully crossed study would have."""
        absent = np.argwhere(np.isnan(self.values(kind)))
        return tuple((self.cases[c], self.readers[r].name, self.arms[a]) for a, r, c in absent)

    def of_readers(self, names: Collection[str]) -> ReadingTable:
        """The readings of these readers; all cases stay."""
        return replace(
            self,
            readers=tuple(r for r in self.readers if r.name in names),
            readings=tuple(r for r in self.readings if r.reader in names),
        )

    def of_group(self, group: str) -> ReadingTable:
        """The readings of one seniority; all cases stay."""
        return self.of_readers({r.name for r in self.readers if r.group == group})

    def of_cases(self, cases: Collection[str]) -> ReadingTable:
        """The readings of these cases."""
        truth = self.truth
        return replace(
            self,
            cases=tuple(c for c in self.cases if c in cases),
            readings=tuple(r for r in self.readings if r.case in cases),
            truth=None if truth is None else {c: truth[c] for c in self.cases if c in cases},
        )

    def renamed(self, names: Mapping[str, str]) -> ReadingTable:
        """Cases under other names, such as the pseudonyms of a cohort.

        Raises: ValueError for a case without a new name, or one name for two cases.
        """
        lost = [case for case in self.cases if case not in names]
        if lost:
            raise ValueError(f"{len(lost)} cases without a new name, the first {lost[0]!r}")
        truth = self.truth
        return replace(
            self,
            cases=tuple(names[c] for c in self.cases),
            readings=tuple(replace(r, case=names[r.case]) for r in self.readings),
            truth=None if truth is None else {names[c]: truth[c] for c in self.cases},
        )

    def crossed(self, kind: ReadingValue) -> tuple[ReadingTable, tuple[str, ...]]:
        """Without the cases that some reader did not read in some arm; and those cases."""
        left_out = {case for case, _, _ in self.missing(kind)}
        kept = self.of_cases({c for c in self.cases if c not in left_out})
        return kept, tuple(c for c in self.cases if c in left_out)

    def voting_at(self, threshold: float) -> ReadingTable:
        """Votes made from the scores: positive at or above the threshold, in place of any votes."""
        return replace(
            self,
            readings=tuple(
                replace(r, vote=r.score >= threshold) for r in self.readings if r.score is not None
            ),
        )


@dataclass(frozen=True, slots=True)
class Outline:
    """Where a reader saw a lesion, in pixels of the source file: a mask, or only a box."""

    reader: str
    file: str
    frame: int
    lesion: str
    box: Box
    mask: MaskRLE | None = None
    patient: str = ""

    @property
    def place(self) -> Place:
        return self.file, self.frame, self.lesion


def by_place(outlines: Iterable[Outline]) -> dict[Place, dict[str, Outline]]:
    """Outlines of the same lesion on the same frame together, by reader; places in order.

    Raises: ValueError if a reader outlined one of them twice.
    """
    found: dict[Place, dict[str, Outline]] = {}
    for outline in outlines:
        there = found.setdefault(outline.place, {})
        if outline.reader in there:
            raise ValueError(f"{outline.reader!r} outlined {outline.place} twice")
        there[outline.reader] = outline
    return dict(sorted(found.items()))
