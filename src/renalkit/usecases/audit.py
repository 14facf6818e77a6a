"""Do the numbers of a published table hold together? A CSV as printed, one line per row."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from renalkit.metrics.inference import check_level
from renalkit.metrics.published_tables import (
    MEASURES,
    Cases,
    Printed,
    PublishedRow,
    TableAudit,
    audit_row,
    compare_sources,
    measure_word,
)
from renalkit.readers.tables import Row, Table, bad_table, read_table

Json = dict[str, Any]
UNITS = ("patients", "lesions", "images")
_ENDS = ("low", "high")
_COUNTS = ("positive", "negative", "n")
COLUMNS = (
    *("name", "source"),
    *MEASURES,
    *(f"{m}_{end}" for m in MEASURES for end in _ENDS),
    *(f"{kind}_{unit}" for unit in UNITS for kind in _COUNTS),
)


def audit_table(path: Path, level: float = 0.95) -> Json:
    """Checks every row of a table, and rows of one name that several places print.

    level: of the printed intervals. Raises InputRefused(BAD_TABLE) with the line.
    """
    check_level(level)
    table = read_table(path, required=("name",))
    unknown = [c for c in table.columns if c not in COLUMNS]
    if unknown:
        raise bad_table(
            f"no meaning for the columns {', '.join(unknown)}",
            where=table.where,
            line=1,
            expected=f"some of {', '.join(COLUMNS)}",
            remedy="rename the columns, or take them out",
        )
    rows = [published_row(table, row, level) for row in table.rows]
    if not rows:
        raise bad_table("no row", where=table.where, expected="one line per row of the table")
    places = [(row.name, row.source) for row in rows]
    twice = next((i for i, place in enumerate(places) if place in places[:i]), None)
    if twice is not None:
        raise bad_table(
            f"the row {rows[twice].name!r} stands twice",
            where=table.where,
            line=table.rows[twice].line,
            expected="one line per name and source",
        )
    found = [audit_row(row) for row in rows]
    return {
        "schema": 1,
        "table": table.where,
        "level": level,
        "consistent": all(f.consistent for f in found),
        "rows": [_json(f) for f in found],
        "between_sources": [
            {
                "names": list(note.names),
                "sources": list(note.sources),
                "finding": note.finding.value,
                "words": note.words,
            }
            for note in compare_sources(rows)
        ],
    }


def published_row(table: Table, row: Row, level: float) -> PublishedRow:
    """One line as printed numbers; InputRefused(BAD_TABLE) names the line and the column."""
    try:
        printed = {m: _printed(row, m) for m in MEASURES}
        ends = {m: tuple(_printed(row, f"{m}_{end}") for end in _ENDS) for m in MEASURES}
        intervals = {m: (a, b) for m, (a, b) in ends.items() if a is not None and b is not None}
        half = [m for m, (a, b) in ends.items() if (a is None) != (b is None)]
        if half:
            raise ValueError(f"an interval of the {half[0]} with one bound")
        return PublishedRow(
            row.values["name"],
            **printed,
            intervals=intervals,
            cases=tuple(c for unit in UNITS if (c := _cases(row, unit)) is not None),
            source=row.values.get("source", ""),
            level=level,
        )
    except ValueError as error:
        raise bad_table(str(error), where=table.where, line=row.line) from error


def _printed(row: Row, column: str) -> Printed | None:
    text = row.values.get(column, "")
    try:
        return Printed.parse(text) if text.strip() else None
    except ValueError as error:
        raise ValueError(f"column {column}: {error}") from error


def _cases(row: Row, unit: str) -> Cases | None:
    counts: dict[str, int] = {}
    for kind in _COUNTS:
        text = row.values.get(f"{kind}_{unit}", "").strip()
        if not text:
            continue
        if not re.fullmatch("[0-9]{1,9}", text):
            raise ValueError(f"column {kind}_{unit}: {text[:20]!r} is no whole number")
        counts[kind] = int(text)
    if not counts:
        return None
    positive, negative, n = (counts.get(kind) for kind in _COUNTS)
    if n is None:
        if positive is None or negative is None:
            raise ValueError(f"{unit}: positive_{unit} and negative_{unit} go together")
        return Cases(unit, positive + negative, positive)
    if positive is None and negative is not None:
        positive = n - negative
    if positive is not None and negative is not None and positive + negative != n:
        raise ValueError(f"{positive} + {negative} are not {n} {unit}")
    return Cases(unit, n, positive)


def _json(audit: TableAudit) -> Json:
    return {
        "name": audit.name,
        "source": audit.source,
        "consistent": audit.consistent,
        "findings": [
            {"finding": f.value, "words": w}
            for f, w in zip(audit.findings, audit.words, strict=True)
        ],
        "prevalence": audit.prevalence,
        "prevalence_range": {k: list(v) for k, v in audit.prevalence_range.items()},
        "whole_numbers": audit.whole_numbers,
        "widths": [
            {
                "measure": w.measure,
                "implied_n": list(w.implied),
                "stated_n": w.stated,
                "fits": list(w.fits),
                "expected": {k: list(v) for k, v in w.expected.items()},
            }
            for w in audit.widths
        ],
    }


def audit_words(found: Json) -> str:
    """Findings row by row for a terminal."""
    lines: list[str] = []
    for row in found["rows"]:
        verdict = "may be one pooled table" if row["consistent"] else "cannot be one pooled table"
        place = f" ({row['source']})" if row["source"] else ""
        lines.append(f"{row['name']}{place}: {verdict}")
        if row["prevalence"]:
            implied = ", ".join(
                f"{v:.3f} from {measure_word(k)}" for k, v in row["prevalence"].items()
            )
            lines.append(f"    implied share of positive cases: {implied}")
        for width in row["widths"]:
            low, high = width["implied_n"]
            stated = ", ".join(f"{n:,} {unit}" for unit, n in width["stated_n"].items())
            lines.append(
                f"    interval of the {measure_word(width['measure'])}: as wide as that of "
                f"{low:,} to {high:,} cases{f'; stated {stated}' if stated else ''}"
            )
        lines += [f"  - {f['finding']}: {f['words']}" for f in row["findings"]]
    lines += [f"- {note['finding']}: {note['words']}" for note in found["between_sources"]]
    lines.append(
        "A finding is a question to the authors: means over folds break these identities too."
    )
    return "\n".join(lines)
