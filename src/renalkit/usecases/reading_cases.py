"""Whose readings are these, and what is true of the cases? A table of readings beside a cohort.

A reader's table names patients as the clinic does. With the cohort's key they get the pseudonyms
that ingest gave them; a case that is no patient of the cohort ends the import with the list of all
such cases, so that nobody is lost by a misspelt name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from renalkit.domain.cohort import Cohort
from renalkit.domain.profile import patient_classes
from renalkit.domain.readings import ReadingTable, ReadingValue, ScoreScale
from renalkit.errors import ConfigError, InputRefused, Reason, StatisticUndefined
from renalkit.metrics.bootstrap import BootstrapPlan
from renalkit.metrics.classification import Floats
from renalkit.metrics.reader_study import GroupPlan, TieRule
from renalkit.readers.pseudonyms import Pseudonyms
from renalkit.readers.tables import bad_table, read_table

Bools = npt.NDArray[np.bool_]
Json = dict[str, Any]

ALL_READERS = "all readers"
LEAST_OF_A_CLASS = 2
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class ReaderPlan:
    """How readings are analysed; kept with them, so that they can be analysed again.

    positive: class that counts as positive; None takes the cohort's. ties, chair: what a case is
    called on which as many readers say yes as no. vote_at: score from which a reader's call is
    positive, in place of votes. scale: lowest, highest and step of the scores. baseline: the arm
    the others are compared with, and the one that systems stand beside; None takes the first.
    systems: of the run; none means all that give classes. ai: the system whose output the readers
    saw in the arms other than the baseline. incomplete: leave out cases that not every reader read.
    """

    positive: str | None = None
    ties: TieRule | None = None
    chair: str | None = None
    vote_at: float | None = None
    scale: tuple[float, float, float | None] | None = None
    baseline: str | None = None
    systems: tuple[str, ...] = ()
    ai: str | None = None
    incomplete: bool = False

    def __post_init__(self) -> None:
        if (self.ties is TieRule.CHAIR) != (self.chair is not None):
            raise ConfigError(
                ["--ties chair goes with --chair READER, and the reader with the rule"]
            )

    @property
    def score_scale(self) -> ScoreScale | None:
        return None if self.scale is None else ScoreScale(*self.scale)

    def as_json(self) -> Json:
        return asdict(self)

    @classmethod
    def of_json(cls, found: Json) -> ReaderPlan:
        """Raises: TypeError, ValueError, ConfigError for what `as_json` did not write."""
        ties, scale = found.get("ties"), found.get("scale")
        plain: Json = found | {
            "ties": None if ties is None else TieRule(ties),
            "scale": None if scale is None else tuple(scale),
            "systems": tuple(found.get("systems", ())),
        }
        return cls(**plain)


# ------------------------------------------------------------------ names and truth


@dataclass(frozen=True, slots=True)
class CohortPlace:
    """A cohort with its folder, beside which the key lies unless it is given."""

    cohort: Cohort
    folder: Path
    key_file: Path | None = None

    @property
    def key(self) -> Path:
        beside = self.folder.parent / f"{self.folder.name}.keys"
        return self.key_file or beside / "project.key"


def with_patients(table: ReadingTable, path: Path, where: str) -> ReadingTable:
    """The readings with the patient of each case in place of its number.

    path: table of case and patient, as the export to RJafroc writes it.
    Raises: InputRefused(BAD_TABLE) for cases it does not have, or one that stands twice.
    """
    known = read_table(path, required=("case", "patient"))
    names: dict[str, str] = {}
    for row in known.rows:
        case, patient = row.values["case"], row.values["patient"]
        if case in names or patient in names.values():
            raise bad_table(
                "a case or patient that stands twice",
                where=known.where,
                line=row.line,
                expected="one line per case, with a patient of its own",
            )
        names[case] = patient
    lost = [c for c in table.cases if c not in names]
    if lost:
        raise InputRefused(
            Reason.BAD_TABLE,
            f"{len(lost)} of {len(table.cases)} cases have no patient in {path.name}: "
            f"{_listed(lost)}",
            where=where,
            expected="the patient of every case",
        )
    return table.renamed(names)


def in_cohort(
    table: ReadingTable, place: CohortPlace, positive: str | None, where: str
) -> tuple[ReadingTable, Json]:
    """The readings of the cohort's patients under their pseudonyms, with the cohort's truth.

    Also what was left out: readings of patients whom the cohort excludes (by reason) or of whom no
    one class is known, and how many patients of the cohort nobody read.
    Raises: InputRefused(BAD_TABLE) for cases that are no patients of the cohort, or a truth in the
    table that is not the cohort's; all of them are listed.
    """
    cohort = place.cohort
    wanted = positive_of(cohort, positive)
    classes = patient_classes(cohort)
    gone = {e.patient: e.reason for e in cohort.exclusions if e.patient not in classes}
    names = _pseudonyms_of(table.cases, place, {*classes, *gone}, where)
    unclear = [c for c in table.cases if names[c] in classes and classes[names[c]] is None]
    kept = [c for c in table.cases if classes.get(names[c]) is not None]
    if not kept:
        raise InputRefused(
            Reason.BAD_TABLE,
            "no reading of a patient whose class is known",
            where=where,
            expected=f"readings of the {len(classes)} patients of the cohort",
        )
    truth = {c: classes[names[c]] == wanted for c in kept}
    if table.truth is not None:
        _refuse_other_truth(table, truth, where)
    named = replace(table.of_cases(kept), truth=truth).renamed(names)
    left_out = {
        "excluded": dict(sorted(Counter(gone[p] for p in names.values() if p in gone).items())),
        "without_class": len(unclear),
        "not_read": len(classes.keys() - set(names.values())),
    }
    return named, left_out


def positive_of(cohort: Cohort, asked: str | None) -> str:
    """The class that counts as positive. Raises: ConfigError when it is none, or has to be said."""
    task = cohort.task
    known = ", ".join(task.classes)
    if asked is not None:
        if asked not in task.classes:
            raise ConfigError([f"--positive: no class '{asked}'; there are {known}"])
        return asked
    if len(task.classes) != 2:
        raise ConfigError(
            [f"--positive CLASS is needed for {len(task.classes)} classes, one of {known}"]
        )
    return task.positive or task.classes[1]


def _pseudonyms_of(
    cases: Sequence[str], place: CohortPlace, known: set[str], where: str
) -> dict[str, str]:
    """Pseudonym of every case, by the key; a case may also stand under its pseudonym already."""
    names = {c: c for c in cases if c in known}
    has_key = place.key.is_file()
    if len(names) < len(cases) and has_key:
        pseudonyms = Pseudonyms(place.key.read_bytes())
        keyed = ((c, pseudonyms.patient(c)) for c in cases if c not in names)
        names |= {c: p for c, p in keyed if p in known}
    strangers = [c for c in cases if c not in names]
    if strangers:
        raise InputRefused(
            Reason.BAD_TABLE,
            f"{len(strangers)} of {len(cases)} cases are no patients of this cohort: "
            f"{_listed(strangers)}",
            where=where,
            expected="patients as ingest met them (PatientID, or the column patient of its table)"
            if has_key
            else "the cohort's key beside it (<cohort>.keys/project.key), or pseudonyms",
            remedy="correct the names, or take these cases out of the table"
            if has_key
            else "give the key with --key-file",
        )
    twice = [p for p, n in Counter(names.values()).items() if n > 1]
    if twice:
        raise InputRefused(
            Reason.BAD_TABLE,
            f"{len(twice)} patients stand under their name and under their pseudonym: "
            f"{_listed([c for c in cases if names[c] in twice])}",
            where=where,
            expected="one name per patient",
        )
    return names


def _refuse_other_truth(table: ReadingTable, truth: dict[str, bool], where: str) -> None:
    said = table.truth or {}
    other = [c for c, positive in truth.items() if said[c] is not positive]
    if other:
        raise InputRefused(
            Reason.BAD_TABLE,
            f"{len(other)} cases have another truth than the cohort: {_listed(other)}",
            where=where,
            expected="the class of the cohort",
            remedy="correct the table, leave the column truth out, or name the other class with "
            "--positive",
        )


def _listed(names: Sequence[str]) -> str:
    more = "" if len(names) <= _SHOWN else f" and {len(names) - _SHOWN} more"
    return f"{', '.join(n[:60] for n in names[:_SHOWN])}{more}"


# ------------------------------------------------------------------ the study


@dataclass(frozen=True, slots=True)
class ReaderStudy:
    """Fully crossed readings with truth, and how they are analysed.

    incomplete: cases left out because some reader did not read them in some arm.
    """

    table: ReadingTable
    plan: ReaderPlan
    resampling: BootstrapPlan
    incomplete: tuple[str, ...] = ()

    @property
    def cases(self) -> tuple[str, ...]:
        return self.table.cases

    @property
    def truth(self) -> Bools:
        return self.table.truths()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(r.name for r in self.table.readers)

    @property
    def level(self) -> float:
        return self.resampling.level

    @property
    def baseline(self) -> str:
        return self.table.arms[0] if self.plan.baseline is None else self.plan.baseline

    @property
    def groups(self) -> dict[str, npt.NDArray[np.intp]]:
        """Rows of the readers of each group; all readers last, alone where there is one group."""
        found: dict[str, npt.NDArray[np.intp]] = {}
        if len(self.table.groups) > 1:
            for group in self.table.groups:
                rows = [i for i, r in enumerate(self.table.readers) if r.group == group]
                found[group or "no group"] = np.array(rows, dtype=np.intp)
        found[ALL_READERS] = np.arange(len(self.table.readers))
        return found

    def scores(self, arm: str) -> Floats | None:
        """Scores (J, n) of an arm, None where readers gave votes only."""
        return self._values(ReadingValue.SCORE, arm)

    def votes(self, arm: str) -> Floats | None:
        """Votes (J, n) of an arm, None where readers gave scores only."""
        return self._values(ReadingValue.VOTE, arm)

    def _values(self, kind: ReadingValue, arm: str) -> Floats | None:
        return self.table.values(kind, [arm])[0] if self.table.has(kind) else None

    def group_plan(self, rows: npt.NDArray[np.intp]) -> GroupPlan:
        """An odd number of votes cannot tie, so that any rule does."""
        if rows.size % 2 or self.plan.ties is None:
            return GroupPlan(TieRule.NEGATIVE, level=self.level)
        return GroupPlan(self.plan.ties, self.plan.chair, level=self.level)


def reader_study(
    table: ReadingTable, plan: ReaderPlan, resampling: BootstrapPlan, where: str
) -> ReaderStudy:
    """The readings that every reader gave in every arm, as the plan wants them looked at.

    Raises: InputRefused without truth; ConfigError for a baseline or rule that does not fit the
    readings; StatisticUndefined with fewer than two cases of a class.
    """
    if table.truth is None:
        raise InputRefused(
            Reason.BAD_TABLE,
            "readings without truth",
            where=where,
            expected="a column truth, the same on every line of a case",
            remedy="add it, or give the cohort with --run or --cohort",
        )
    if plan.vote_at is not None:
        table = table.voting_at(plan.vote_at)
    kept, before = table, len(table.cases)
    for kind in ReadingValue:
        if table.has(kind):
            kept = kept.crossed(kind)[0]
    lost = tuple(c for c in table.cases if c not in set(kept.cases))
    if not kept.cases:
        raise StatisticUndefined(
            f"none of {before} cases was read by every reader in every arm",
            where=where,
            expected="cases that all readers read",
            remedy="leave out the readers or arms that are incomplete",
        )
    positives = int(kept.truths().sum())
    if min(positives, len(kept.cases) - positives) < LEAST_OF_A_CLASS:
        raise StatisticUndefined(
            f"{positives} positive and {len(kept.cases) - positives} negative cases",
            where=where,
            expected=f"at least {LEAST_OF_A_CLASS} of each class",
            remedy="a reader study needs cases of both classes, read by every reader",
        )
    study = ReaderStudy(kept, plan, resampling, lost)
    _check_plan(study)
    return study


def _check_plan(study: ReaderStudy) -> None:
    plan, problems = study.plan, list[str]()
    arms = ", ".join(repr(a) for a in study.table.arms)
    if study.baseline not in study.table.arms:
        problems.append(f"--baseline: no arm {plan.baseline!r}; there are {arms}")
    if plan.ai is not None and len(study.table.arms) < 2:
        problems.append("--ai: the readings have one arm, so nobody read with and without it")
    if plan.chair is not None and plan.chair not in study.names:
        problems.append(f"--chair: no reader {plan.chair!r}; there are {', '.join(study.names)}")
    if study.table.has(ReadingValue.VOTE):
        for group, rows in study.groups.items():
            even = rows.size % 2 == 0
            members = [study.names[i] for i in rows]
            if even and plan.ties is None:
                problems.append(
                    f"--ties: {group} are {rows.size}, whose votes can tie: say what such a case "
                    f"is called, one of {', '.join(TieRule)}"
                )
            elif even and plan.chair is not None and plan.chair not in members:
                problems.append(f"--chair: {plan.chair} is not one of the {rows.size} {group}")
    if problems:
        raise ConfigError(problems)
