"""Which rows of a table are judged? Labels, scores and patients of any CSV, nothing guessed.

A row without a label or without a score is left out and counted. Several rows of one patient are
one patient: a table that names patients twice is refused until the column is given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from renalkit.errors import ConfigError, InputRefused, Reason
from renalkit.metrics.auc_inference import patient_means
from renalkit.readers.tables import Row, Table, bad_table, folded, number, read_table

Json = dict[str, Any]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Texts = npt.NDArray[np.str_]

_PATIENT_NAMES = frozenset(
    {"patient", "patient id", "patientid", "patient_id", "subject", "subject_id", "case_id", "pid"}
)


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns mean what.

    scores: one per system. positive: the label that counts as positive; negative: those that count
    as negative, all others when empty and there is one. classes: for several classes, in order, in
    place of `positive`; a score N then has a column N_CLASS for each, or is one column N where the
    classes are ordered. cluster: patient of each row. tune: column and value of the rows that
    thresholds are chosen on. unpaired: each row has one of the scores only. average: one row per
    patient, the mean of its rows.
    """

    label: str
    scores: tuple[str, ...]
    positive: str | None = None
    negative: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    cluster: str | None = None
    tune: tuple[str, str] | None = None
    unpaired: bool = False
    average: bool = False

    def __post_init__(self) -> None:
        problems: list[str] = []
        if not self.scores or len(set(self.scores)) != len(self.scores):
            problems.append("--scores: expected at least one column, each once")
        if (self.positive is None) == (not self.classes):
            problems.append("--positive VALUE (two classes) or --classes A,B,C: one of them")
        if self.classes and len(set(self.classes)) < max(2, len(self.classes)):
            problems.append("--classes: expected at least two different labels")
        if self.negative and (self.classes or self.positive in self.negative):
            problems.append("--negative goes with --positive, and names other labels")
        if self.average and self.cluster is None:
            problems.append("--average: needs --cluster COL, the patient of each row")
        if self.unpaired and len(self.scores) < 2:
            problems.append("--unpaired: needs two scores")
        if self.classes and (self.unpaired or self.average or self.tune):
            problems.append("--classes: not together with --unpaired, --average or --tune-on")
        if problems:
            raise ConfigError(problems)


@dataclass(frozen=True, slots=True)
class Scored:
    """Rows that are judged.

    truth (n,): 0/1, or class 0 .. C-1. scores (S, n) or, of several classes with a column each,
    (S, n, C); NaN where an unpaired row has no such score. groups (n,): patient of each row.
    independent: every row is a patient. tuning: the rows thresholds are chosen on, if any.
    """

    names: tuple[str, ...]
    truth: Ints
    scores: Floats
    groups: Texts
    independent: bool
    labels: dict[str, int]
    left_out: tuple[Json, ...]
    where: str
    tuning: Scored | None = None

    @property
    def n_patients(self) -> int:
        return len(set(self.groups.tolist()))

    def of(self, index: int) -> tuple[Ints, Floats, Texts]:
        """Truth, score and patients of the rows that have this score."""
        has = ~np.isnan(self.scores[index])
        return self.truth[has], self.scores[index][has], self.groups[has]


def read_scores(path: Path, columns: Columns) -> Scored:
    """The rows of a table that the question is about.

    Raises InputRefused (BAD_TABLE, UNKNOWN_LABEL) with the line, ConfigError for columns that do
    not go together, StatisticUndefined for an average over a patient of both classes.
    """
    needed = [columns.label, *(() if columns.classes else columns.scores)]
    needed += [c for c in (columns.cluster, columns.tune and columns.tune[0]) if c]
    table = read_table(path, required=needed)
    names = _score_columns(table, columns)
    _refuse_hidden_patients(table, columns)
    left_out: Counter[str] = Counter()
    kept: list[tuple[Row, list[float]]] = []
    known = _labels(table, columns)
    for row in table.rows:
        label = row.values[columns.label]
        if not label:
            left_out["without a label"] += 1
            continue
        if label not in known:
            left_out[f"labelled {label}, which counts as neither"] += 1
            continue
        values = [_number(table, row, name) for name in names]
        given = [v is not None for v in values]
        if columns.unpaired and sum(given) > 1:
            raise bad_table(
                "a row with several scores, though they are unpaired",
                where=table.where,
                line=row.line,
                expected="one score per row: the systems saw different patients",
                remedy="leave --unpaired out",
            )
        if not any(given) if columns.unpaired else not all(given):
            missing = ", ".join(n for n, g in zip(names, given, strict=True) if not g)
            left_out[f"without a value in {missing}"] += 1
            continue
        kept.append((row, [np.nan if v is None else v for v in values]))
    if not kept:
        raise bad_table("no row with a label and a score", where=table.where)
    return _scored(table, columns, (known, kept, left_out))


def _score_columns(table: Table, columns: Columns) -> list[str]:
    """The columns to read: one per score, or one per score and class."""
    if not columns.classes:
        return list(columns.scores)
    names: list[str] = []
    single = [name in table.columns for name in columns.scores]
    for name in columns.scores:
        own = [name] if all(single) else [f"{name}_{c}" for c in columns.classes]
        missing = [c for c in own if c not in table.columns]
        if missing:
            raise bad_table(
                f"no column {', '.join(missing)}",
                where=table.where,
                line=1,
                expected="for each score N one column N, or a column N_CLASS for each class",
            )
        names += own
    return names


def _labels(table: Table, columns: Columns) -> dict[str, int]:
    """Number of each label that counts; refuses what would have to be guessed."""
    seen = list(dict.fromkeys(r.values[columns.label] for r in table.rows))
    seen = [label for label in seen if label]
    wanted = columns.classes or (columns.positive or "", *columns.negative)
    absent = [label for label in wanted if label not in seen]
    if absent:
        raise InputRefused(
            Reason.UNKNOWN_LABEL,
            f"no row is labelled {', '.join(repr(a) for a in absent)}",
            where=f"{table.where}, column {columns.label}",
            expected=f"one of {', '.join(repr(s) for s in seen[:20])}",
        )
    if columns.classes:
        return {label: k for k, label in enumerate(columns.classes)}
    others = [label for label in seen if label != columns.positive]
    if not columns.negative and len(others) > 1:
        raise ConfigError(
            [
                f"column {columns.label} holds {len(others)} labels beside "
                f"{columns.positive!r} ({', '.join(repr(o) for o in others[:20])}); say by "
                "--negative A,B which of them count as negative"
            ],
            where=table.where,
        )
    return {str(columns.positive): 1, **dict.fromkeys(columns.negative or others, 0)}


def _number(table: Table, row: Row, name: str) -> float | None:
    place = f"{table.where}, line {row.line}, column {name}"
    return number(row.values[name], dialect=table.dialect, where=place)


def _refuse_hidden_patients(table: Table, columns: Columns) -> None:
    """Rows of one patient must not count as patients."""
    if columns.cluster is not None:
        return
    for name in table.columns:
        if folded(name) not in _PATIENT_NAMES:
            continue
        values = [r.values[name] for r in table.rows]
        distinct = len(set(values))
        if distinct < len(values):
            raise ConfigError(
                [
                    f"column {name} names {distinct} patients in {len(values)} rows, which are not "
                    f"independent: give --cluster {name} (and --average for one score per patient)"
                ],
                where=table.where,
            )


def _scored(
    table: Table,
    columns: Columns,
    found: tuple[dict[str, int], list[tuple[Row, list[float]]], Counter[str]],
) -> Scored:
    known, kept, left_out = found
    truth = np.array([known[row.values[columns.label]] for row, _ in kept], dtype=np.int64)
    values = np.array([v for _, v in kept], dtype=np.float64).T
    if columns.classes and len(values) > len(columns.scores):
        shape = (len(columns.scores), len(columns.classes), len(kept))
        values = values.reshape(shape).transpose(0, 2, 1)
    groups = np.array([_patient(table, row, columns.cluster) for row, _ in kept])
    whole = Scored(
        names=columns.scores,
        truth=truth,
        scores=values,
        groups=groups,
        independent=len(set(groups.tolist())) == len(groups),
        labels=known,
        left_out=tuple({"why": why, "rows": n} for why, n in sorted(left_out.items())),
        where=table.where,
    )
    if columns.tune is None:
        return _averaged(whole) if columns.average else whole
    column, value = columns.tune
    chosen = np.array([row.values[column] == value for row, _ in kept])
    parts = [_rows(whole, rows) for rows in (~chosen, chosen)]
    _refuse_both_parts(parts, table, columns.tune)
    judged, tuning = (_averaged(p) if columns.average else p for p in parts)
    return replace(judged, tuning=tuning)


def _patient(table: Table, row: Row, column: str | None) -> str:
    if column is None:
        return f"line {row.line}"
    if not row.values[column].strip():
        raise bad_table(
            f"no patient in column {column}",
            where=table.where,
            line=row.line,
            expected="whose row it is; rows without a patient would count as one",
        )
    return row.values[column]


def _rows(scored: Scored, rows: Bools) -> Scored:
    groups = scored.groups[rows]
    return replace(
        scored,
        truth=scored.truth[rows],
        scores=scored.scores[:, rows],
        groups=groups,
        independent=len(set(groups.tolist())) == len(groups),
    )


def _refuse_both_parts(parts: Sequence[Scored], table: Table, tune: tuple[str, str]) -> None:
    where = f"{table.where}, column {tune[0]}"
    if not all(len(p.truth) for p in parts):
        raise bad_table(
            f"all rows or none are {tune[1]!r}",
            where=where,
            expected="rows to choose the threshold on, and rows to judge it by",
        )
    both = set(parts[0].groups.tolist()) & set(parts[1].groups.tolist())
    if both:
        raise InputRefused(
            Reason.SPLIT_OVERLAP,
            f"{len(both)} patients are among the rows {tune[1]!r} and among the others",
            where=where,
            expected="thresholds chosen on other patients",
        )


def _averaged(scored: Scored) -> Scored:
    """One row per patient, in the order of their keys."""
    if np.isnan(scored.scores).any():
        raise ConfigError(["--average: not together with --unpaired"])
    found = [patient_means(scored.truth, row, scored.groups) for row in scored.scores]
    return replace(
        scored,
        truth=found[0][0].astype(np.int64),
        scores=np.stack([mean for _, mean in found]),
        groups=np.unique(scored.groups),
        independent=True,
    )
