"""What is a table of readings held against, whatever its format?

A reading that stands twice, a reader or case that nobody listed, a score off the scale, a truth
that contradicts itself and a study with holes are refused with their line.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields

from renalkit.domain.readings import Reader, Reading, ReadingTable, ReadingValue, ScoreScale
from renalkit.errors import InputRefused, Reason
from renalkit.readers.tables import Dialect, bad_table, folded

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class ReadingColumns:
    """Names of the columns of a CSV. case and reader must be there, and score or vote."""

    case: str = "patient"
    reader: str = "reader"
    group: str = "group"
    years: str = "years"
    arm: str = "arm"
    score: str = "score"
    vote: str = "vote"
    truth: str = "truth"

    @property
    def named(self) -> tuple[str, ...]:
        """Columns that must be there: those of case and reader, and those under another name."""
        usual = ReadingColumns()
        parts = ((f.name, getattr(self, f.name), getattr(usual, f.name)) for f in fields(self))
        return tuple(n for what, n, often in parts if n != often or what in ("case", "reader"))


@dataclass(frozen=True, slots=True)
class CallWords:
    """How a positive and a negative call are written (case and spaces do not matter)."""

    positive: tuple[str, ...] = ("1", "true", "yes", "positive")
    negative: tuple[str, ...] = ("0", "false", "no", "negative")

    def read(self, text: str, *, where: str) -> bool:
        word = folded(text)
        if word in map(folded, self.positive):
            return True
        if word in map(folded, self.negative):
            return False
        raise InputRefused(
            Reason.BAD_TABLE,
            f"the call {text[:40]!r}",
            where=where,
            expected=f"{'/'.join(self.positive)} or {'/'.join(self.negative)}",
            remedy="say which words mean positive and negative (--positive, --negative)",
        )


@dataclass(frozen=True, slots=True)
class ReadingRules:
    """What a table of readings is held against.

    truth: of the cases of the study (True: positive); then every case must be one of them.
    readers: of the study; then every reader must be one of them. scale: of the scores.
    incomplete: keep cases that not every reader read in every arm; they are refused otherwise.
    """

    columns: ReadingColumns = field(default_factory=ReadingColumns)
    words: CallWords = field(default_factory=CallWords)
    truth: Mapping[str, bool] | None = None
    readers: Sequence[Reader] | None = None
    scale: ScoreScale | None = None
    dialect: Dialect | None = None
    incomplete: bool = False


class Collected:
    """Readings as they come, each held against the rules with its line."""

    def __init__(self, where: str, rules: ReadingRules) -> None:
        self.where, self.rules = where, rules
        self.readers = {r.name: r for r in rules.readers or ()}
        self.truth: dict[str, bool] = {}
        self.readings: dict[tuple[str, str, str], Reading] = {}
        self._lines: dict[tuple[str, str, str], int] = {}
        self._truth_lines: dict[str, int] = {}

    def bad(
        self, found: str, line: int, *, expected: str = "", remedy: str = "correct the line"
    ) -> InputRefused:
        return bad_table(found, where=self.where, line=line, expected=expected, remedy=remedy)

    def say_reader(self, reader: Reader, line: int) -> None:
        known = self.readers.get(reader.name)
        if known is None:
            if self.rules.readers is not None:
                raise self.bad(
                    f"reader {reader.name[:40]!r} is not one of the study",
                    line,
                    expected=f"one of {', '.join(self.readers)}"[:300],
                    remedy="correct the name, or add the reader to the list of readers",
                )
            self.readers[reader.name] = reader
            return
        for what, before, now in (
            ("group", known.group, reader.group),
            ("years", known.years, reader.years),
        ):
            if now not in ("", None) and before not in ("", None) and now != before:
                raise self.bad(
                    f"reader {reader.name[:40]!r} has {what} {now} here and {before} before",
                    line,
                    expected=f"one {what} per reader",
                )
        # What one line leaves out another may say.
        years = reader.years if known.years is None else known.years
        self.readers[reader.name] = Reader(reader.name, known.group or reader.group, years)

    def say_truth(self, case: str, positive: bool, line: int) -> None:
        before = self.truth.setdefault(case, positive)
        first = self._truth_lines.setdefault(case, line)
        if before is not positive:
            raise self.bad(
                f"case {case[:40]!r} is positive and negative (first on line {first})",
                line,
                expected="one truth per case",
            )

    def add(
        self, key: tuple[str, str, str], said: tuple[float | None, bool | None], line: int
    ) -> None:
        case, reader, _ = key
        score, vote = said
        if not case.strip():
            raise self.bad("a reading without a case", line, expected="the case it is of")
        if self.rules.truth is not None and case not in self.rules.truth:
            raise self.bad(
                f"case {case[:40]!r} is not one of the study",
                line,
                expected=f"one of its {len(self.rules.truth)} cases",
                remedy="correct the case, or leave the line out",
            )
        if key in self._lines:
            raise self.bad(
                f"a second reading of case {case[:40]!r} by {reader[:40]!r}"
                f" (first on line {self._lines[key]})",
                line,
                expected="one line per case, reader and arm",
                remedy="keep one of them; several readings of one case need arms of their own",
            )
        scale = self.rules.scale
        if score is not None and scale is not None and not scale.holds(score):
            raise self.bad(
                f"score {score:g} is not on the scale",
                line,
                expected=scale.text,
                remedy="correct the score, or state the scale the readers used",
            )
        self._lines[key] = line
        if score is not None or vote is not None:
            self.readings[key] = Reading(*key, score, vote)

    def table(self, *, needs_truth: bool = False) -> ReadingTable:
        """All of it. Raises InputRefused(BAD_TABLE) for no reading, truth that is missing or
        contradicts the rules, and holes."""
        if not self.readings:
            raise bad_table("no reading", where=self.where, expected="at least one")
        read = dict.fromkeys(case for case, _, _ in self._lines)
        truth = self._whole_truth(read, needs_truth)
        cases = tuple(truth if truth is not None else read)
        readers = tuple(r for r in self.readers.values())
        table = ReadingTable(readers, cases, tuple(self.readings.values()), truth, self.rules.scale)
        if not self.rules.incomplete:
            self._refuse_holes(table)
        return table

    def _whole_truth(self, read: Iterable[str], needed: bool) -> dict[str, bool] | None:
        given = self.rules.truth
        if given is not None:
            for case, positive in self.truth.items():
                if case in given and given[case] is not positive:
                    raise self.bad(
                        f"case {case[:40]!r} is {'positive' if positive else 'negative'} here"
                        " and not in the study",
                        self._truth_lines[case],
                        expected="the truth of the study",
                    )
            return dict(given)
        lacking = [case for case in read if case not in self.truth]
        if lacking and (needed or self.truth):
            raise bad_table(
                f"{len(lacking)} cases without truth ({_some(lacking)})",
                where=self.where,
                expected="the truth of every case, or of none",
            )
        return dict(self.truth) or None

    def _refuse_holes(self, table: ReadingTable) -> None:
        for kind in ReadingValue:
            holes = table.missing(kind) if table.has(kind) else ()
            if holes:
                shown = _some([f"{c} by {r}{f' in {a}' if a else ''}" for c, r, a in holes])
                if len(holes) > _SHOWN:
                    lacking = Counter(f"{r}{f' in {a}' if a else ''}" for _, r, a in holes)
                    cases = len(table.cases)
                    shown = _some([f"{who} lacks {n} of {cases}" for who, n in lacking.items()])
                raise bad_table(
                    f"{len(holes)} of {len(holes) + self._given(kind)} {kind.value}s are missing"
                    f" ({shown})",
                    where=self.where,
                    expected="every case read by every reader in every arm",
                    remedy="fill them in, or ask to keep incomplete cases (--incomplete); they are "
                    "left out where a comparison needs all readers, and counted",
                )

    def _given(self, kind: ReadingValue) -> int:
        return sum(r.value(kind) == r.value(kind) for r in self.readings.values())


def _some(names: Sequence[str]) -> str:
    more = "" if len(names) <= _SHOWN else f" and {len(names) - _SHOWN} more"
    return f"{', '.join(n[:60] for n in names[:_SHOWN])}{more}"
