"""What do tables of readings say: scores and votes of readers, and their outlines?

Nothing is guessed: what the rules do not hold with is refused with its line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from renalkit.domain.geometry import Box, MaskRLE
from renalkit.domain.readings import Outline, Place, Reader, ReadingTable
from renalkit.errors import InputRefused, Reason
from renalkit.readers.mrmc_files import parse_imrmc, parse_rjafroc
from renalkit.readers.reading_rules import Collected, ReadingColumns, ReadingRules
from renalkit.readers.tables import (
    Dialect,
    Row,
    Table,
    bad_table,
    number,
    parse_table,
    read_bytes,
    read_table,
)

OUTLINE_COLUMNS = ("reader", "file", "frame", "x", "y", "width", "height", "lesion")


def read_readings(path: Path, rules: ReadingRules | None = None) -> ReadingTable:
    """A table of readings by its ending: .csv, .imrmc, or .xlsx (RJafroc).

    Raises InputRefused: UNREADABLE; FORMAT_REFUSED for other endings; BAD_TABLE with the line.
    """
    kinds = {".csv": parse_readings, ".imrmc": parse_imrmc, ".xlsx": parse_rjafroc}
    parse = kinds.get(path.suffix.lower())
    if parse is None:
        raise InputRefused(
            Reason.FORMAT_REFUSED,
            f"a table of readings ending in {path.suffix!r}",
            where=path.name,
            expected=", ".join(kinds),
            remedy="save it as CSV; an iMRMC file must end in .imrmc",
        )
    return parse(read_bytes(path), where=path.name, rules=rules)


def read_roster(path: Path, dialect: Dialect | None = None) -> tuple[Reader, ...]:
    """The readers of a study: CSV with the columns reader, group and perhaps years."""
    table = read_table(path, required=("reader", "group"), dialect=dialect)
    found: dict[str, Reader] = {}
    for row in table.rows:
        reader = _reader(row, table, ReadingColumns())
        if reader.name in found:
            raise bad_table(
                f"reader {reader.name!r} stands twice", where=table.where, line=row.line
            )
        found[reader.name] = reader
    return tuple(found.values())


# ------------------------------------------------------------------ our own CSV


def parse_readings(data: bytes, *, where: str, rules: ReadingRules | None = None) -> ReadingTable:
    """Readings of a CSV, one line per case, reader and arm; other columns are not looked at.

    A line with neither score nor vote is a case that was not read. Truth may stand in a column
    (the same on every line of a case) or come from the rules; both must agree.
    Raises InputRefused(BAD_TABLE).
    """
    rules = rules or ReadingRules()
    names = rules.columns
    table = parse_table(data, where=where, required=names.named, dialect=rules.dialect)
    if names.score not in table.columns and names.vote not in table.columns:
        raise bad_table(
            f"neither a column {names.score!r} nor {names.vote!r}",
            where=where,
            line=1,
            expected="scores, votes or both",
            remedy="name the column of the scores or votes",
        )
    found = Collected(where, rules)
    for row in table.rows:
        place = f"{where}, line {row.line}"
        cells = {name: row.values.get(name, "") for name in (names.score, names.vote, names.truth)}
        case = row.values[names.case]
        score = number(cells[names.score], dialect=table.dialect, where=place)
        vote = rules.words.read(cells[names.vote], where=place) if cells[names.vote] else None
        if cells[names.truth]:
            found.say_truth(case, rules.words.read(cells[names.truth], where=place), row.line)
        found.say_reader(_reader(row, table, names), row.line)
        found.add(
            (case, row.values[names.reader], row.values.get(names.arm, "")), (score, vote), row.line
        )
    return found.table()


def _reader(row: Row, table: Table, names: ReadingColumns) -> Reader:
    place = f"{table.where}, line {row.line}"
    years = number(row.values.get(names.years, ""), dialect=table.dialect, where=place)
    if years is not None and (years < 0 or years != int(years)):
        raise bad_table(
            f"{years:g} years of experience",
            where=table.where,
            line=row.line,
            expected="a whole number",
        )
    name = row.values[names.reader]
    if not name.strip() or name != name.strip():
        raise bad_table(
            "a reader without a name, or with spaces around it", where=table.where, line=row.line
        )
    return Reader(name, row.values.get(names.group, ""), None if years is None else int(years))


# ------------------------------------------------------------------ outlines


def read_outlines(
    path: Path,
    *,
    readers: Sequence[Reader] | None = None,
    patients: Mapping[str, str] | None = None,
    dialect: Dialect | None = None,
) -> tuple[tuple[Outline, ...], tuple[Reader, ...]]:
    """Outlines of a CSV, and the readers in it.

    Columns reader, file, frame, x, y, width, height, lesion; perhaps group, patient, and mask (as
    run-length text). patients: patient of each file, where there is no column patient.
    Raises InputRefused: BAD_TABLE, BAD_ANNOTATION with the line.
    """
    table = read_table(path, required=OUTLINE_COLUMNS, dialect=dialect)
    found: dict[tuple[Place, str], Outline] = {}
    known = Collected(path.name, ReadingRules(readers=readers))
    for row in table.rows:
        place = f"{path.name}, line {row.line}"
        known.say_reader(_reader(row, table, ReadingColumns()), row.line)
        outline = _outline(row, place, table.dialect, patients)
        if (outline.place, outline.reader) in found:
            raise bad_table(
                f"a second outline of this lesion by {outline.reader!r}",
                where=path.name,
                line=row.line,
                expected="one line per reader, file, frame and lesion",
            )
        found[outline.place, outline.reader] = outline
    return tuple(found.values()), tuple(known.readers.values())


def _outline(row: Row, place: str, dialect: Dialect, patients: Mapping[str, str] | None) -> Outline:
    def bad(found: str, expected: str) -> InputRefused:
        return InputRefused(Reason.BAD_ANNOTATION, found, where=place, expected=expected)

    numbers: list[int] = []
    for name in ("frame", "x", "y", "width", "height"):
        value = number(row.values[name], dialect=dialect, where=place)
        if value is None or value != int(value) or value < 0:
            raise bad(f"{name} {row.values[name][:20]!r}", "a whole number, 0 or more")
        numbers.append(int(value))
    frame, x, y, width, height = numbers
    file = row.values["file"]
    patient = row.values.get("patient", "") or (patients or {}).get(file, "")
    if patients is not None and not patient:
        raise bad(f"file {file[:80]!r} is of no known patient", "a file of the cohort")
    text = row.values.get("mask", "")
    try:
        mask = MaskRLE.parse(text) if text else None
        return Outline(
            row.values["reader"],
            file,
            frame,
            row.values["lesion"],
            Box(x, y, width, height),
            mask,
            patient,
        )
    except ValueError as error:
        raise bad(str(error)[:200], "a box with area, and a mask as rows x cols : runs") from error
