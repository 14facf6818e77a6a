"""What does a label table say, read so strictly that nothing is merged, shifted or guessed?

UTF-8 only, cells are text (`007` and `7` differ, `NA` is the text NA), every line has exactly as
many cells as the header, and every refusal names its line. What a cell means is decided by the
converters below, which refuse what they do not know and suggest, but never choose.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from math import isfinite
from pathlib import Path
from types import MappingProxyType

from renalkit.domain.study import GradeSystem
from renalkit.errors import InputRefused, Reason

MAX_BYTES = 256 << 20
MAX_ROWS = 1_000_000
MAX_COLUMNS = 1_000
MAX_FIELD = 64 << 10

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_FORMULA = re.compile(r"^(?:[=@\t\r]|[+\-].*[(|!])", re.DOTALL)
_REMEDY = "correct the line in the table and save it as CSV (UTF-8)"


@dataclass(frozen=True, slots=True)
class Dialect:
    """How cells are separated and decimals are written; the default is plain CSV."""

    delimiter: str = ","
    decimal: str = "."

    def __post_init__(self) -> None:
        if self.delimiter not in (",", ";", "\t", "|"):
            raise ValueError(f"delimiter {self.delimiter!r} is not one of , ; tab |")
        if self.decimal not in (".", ",") or self.decimal == self.delimiter:
            raise ValueError(f"decimal sign {self.decimal!r} is not . or , or is the delimiter")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table: its line number in the file (1-based) and its cells by column."""

    line: int
    values: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Table:
    """A table as it was written. where is the file's name, for messages."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    where: str
    dialect: Dialect = Dialect()


def bad_table(
    found: str, *, where: str, line: int | None = None, expected: str = "", remedy: str = _REMEDY
) -> InputRefused:
    """The error of a table that cannot be used, with its line."""
    place = where if line is None else f"{where}, line {line}"
    return InputRefused(Reason.BAD_TABLE, found, where=place, expected=expected, remedy=remedy)


def read_table(
    path: Path, *, required: Sequence[str] = (), dialect: Dialect | None = None
) -> Table:
    """Read a delimited text file; `required` columns must be in its header.

    Raises InputRefused(BAD_TABLE) for anything but a rectangular UTF-8 table: another encoding,
    a spreadsheet file, NUL and control characters, unterminated quotes, lines with more or fewer
    cells than the header, doubled or empty column names, formulas, another delimiter than the
    dialect's (default: comma, which is only left when the caller says so), missing columns;
    InputRefused(UNREADABLE) when the file cannot be read.
    """
    return parse_table(read_bytes(path), where=path.name, required=required, dialect=dialect)


def read_bytes(path: Path) -> bytes:
    """The bytes of a table; `read_table` says what is refused."""
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise bad_table("not a regular file", where=path.name, expected="a table")
        if size > MAX_BYTES:
            raise bad_table(f"{size} bytes", where=path.name, expected=f"at most {MAX_BYTES}")
        return path.read_bytes()
    except OSError as error:
        raise InputRefused(
            Reason.UNREADABLE,
            f"cannot be read ({error.strerror})",
            where=path.name,
            remedy="check that the table exists and that you may read it",
        ) from error


def parse_table(
    data: bytes, *, where: str, required: Sequence[str] = (), dialect: Dialect | None = None
) -> Table:
    """`read_table` for bytes."""
    chosen = dialect or Dialect()
    text = _decoded(data, where)
    bad = _CONTROL.search(text)
    if bad is not None:
        line = text.count("\n", 0, bad.start()) + 1
        raise bad_table(f"control character {ord(bad.group()):#04x}", where=where, line=line)
    lines = _split(text, chosen, where)
    if not lines:
        raise bad_table("no header line", where=where, expected="a line of column names")
    columns = _header(lines[0][1], chosen, where)
    rows = tuple(_row(line, cells, columns, where) for line, cells in lines[1:])
    missing = [name for name in required if name not in columns]
    if missing:
        raise bad_table(
            f"no column {', '.join(missing)}",
            where=where,
            line=1,
            expected=f"one of the columns {', '.join(columns)}"[:500],
            remedy="add the column, or name the right one in the column mapping",
        )
    return Table(columns, rows, where, chosen)


_MAGIC = (
    (b"PK\x03\x04", "a spreadsheet (xlsx, ods) or zip file"),
    (b"PK\x05\x06", "an empty zip file"),
    (b"\xd0\xcf\x11\xe0", "an old spreadsheet file (xls)"),
    (b"\xff\xfe", "text in UTF-16"),
    (b"\xfe\xff", "text in UTF-16"),
    (b"\x1f\x8b", "a gzip file"),
    (b"%PDF", "a PDF file"),
    (b"SQLite format 3", "a database file"),
)


def _decoded(data: bytes, where: str) -> str:
    remedy = "save it as CSV (UTF-8), without formulas, links or macros"
    if not data:
        raise bad_table("empty file", where=where, expected="a table", remedy=remedy)
    for magic, name in _MAGIC:
        if data.startswith(magic):
            raise bad_table(name, where=where, expected="CSV text in UTF-8", remedy=remedy)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise bad_table(
            "text that is not UTF-8 (Latin-1, cp1252 or GBK, perhaps)",
            where=where,
            line=line,
            expected="UTF-8",
            remedy=remedy,
        ) from error


def _split(text: str, dialect: Dialect, where: str) -> list[tuple[int, list[str]]]:
    """Line number and cells of every line; blank lines may only stand at the end."""
    # csv raises for a field over its own limit (131,072), a lone quote and an open quote.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=dialect.delimiter, strict=True)
    lines: list[tuple[int, list[str]]] = []
    blank: int | None = None
    start = 1
    try:
        for cells in reader:
            if not cells:
                blank = blank or start
            elif blank is not None:
                raise bad_table("blank line", where=where, line=blank)
            else:
                lines.append((start, cells))
            if len(cells) > MAX_COLUMNS:
                raise bad_table(
                    f"{len(cells)} cells", where=where, line=start,
                    expected=f"at most {MAX_COLUMNS}",
                )  # fmt: skip
            if len(lines) > MAX_ROWS + 1:
                raise bad_table("too many lines", where=where, expected=f"at most {MAX_ROWS}")
            start = reader.line_num + 1
    except csv.Error as error:
        raise bad_table(f"broken quoting or an endless cell ({error})", where=where, line=start) \
            from error  # fmt: skip
    return lines


def _header(cells: list[str], dialect: Dialect, where: str) -> tuple[str, ...]:
    joined = "".join(cells)
    for sign, name in ((";", "semicolon"), ("\t", "tab"), (",", "comma"), ("|", "bar")):
        if sign != dialect.delimiter and sign in joined:
            raise bad_table(
                f"the header holds a {name}: another delimiter, perhaps",
                where=where,
                line=1,
                expected=f"cells separated by {dialect.delimiter!r}",
                remedy=f"say that the delimiter is {sign!r}, or save the table with commas",
            )
    seen: dict[str, str] = {}
    for cell in cells:
        name = cell.strip()
        if not name or name != cell:
            raise bad_table("column name that is empty or has spaces around", where=where, line=1)
        if name.casefold() in seen:
            raise bad_table(
                f"column '{name[:40]}' stands twice (or differs only in case)", where=where, line=1
            )
        seen[name.casefold()] = name
        _check_cell(cell, 1, where)
    return tuple(cells)


def _check_cell(cell: str, line: int, where: str) -> None:
    if len(cell) > MAX_FIELD:
        raise bad_table(
            f"cell of {len(cell)} characters", where=where, line=line,
            expected=f"at most {MAX_FIELD}",
        )  # fmt: skip
    if _FORMULA.match(cell):
        raise bad_table(
            "a formula", where=where, line=line, expected="values",
            remedy="save the values of the cells, not their formulas",
        )  # fmt: skip


def _row(line: int, cells: list[str], columns: tuple[str, ...], where: str) -> Row:
    if len(cells) != len(columns):
        raise bad_table(
            f"{len(cells)} cells", where=where, line=line, expected=f"{len(columns)} cells"
        )
    for cell in cells:
        _check_cell(cell, line, where)
    return Row(line, MappingProxyType(dict(zip(columns, cells, strict=True))))


# --- What cells mean ------------------------------------------------------------------------


def folded(text: str) -> str:
    """Text without the differences people overlook: width, case, outer and repeated spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


@dataclass(frozen=True, slots=True)
class LabelMap:
    """Which label text means which class; nothing else is a label."""

    classes: Mapping[str, str]

    def __post_init__(self) -> None:
        if not self.classes:
            raise ValueError("a label map needs at least one label")
        object.__setattr__(self, "classes", MappingProxyType(dict(self.classes)))

    @classmethod
    def identity(cls, classes: Iterable[str]) -> LabelMap:
        """Every class is written exactly as its name."""
        return cls({name: name for name in classes})

    def look_up(self, text: str, *, where: str = "") -> str:
        """The class of a label; InputRefused(UNKNOWN_LABEL) names the known ones."""
        found = self.classes.get(text)
        if found is not None:
            return found
        shown = f"label {text[:40]!r}" if text.strip() else "an empty label"
        near = [known for known in self.classes if folded(known) == folded(text)]
        remedy = "correct the label, or name it among the classes"
        if near:
            remedy = f"it resembles {near[0]!r}; if they are the same, write it that way"
        raise InputRefused(
            Reason.UNKNOWN_LABEL,
            shown,
            where=where,
            expected=f"one of {', '.join(repr(k) for k in self.classes)}",
            remedy=remedy,
        )


def look_up_all(table: Table, column: str, labels: LabelMap) -> tuple[str, ...]:
    """The class of every row; one InputRefused lists every unknown label (up to 20)."""
    result: list[str] = []
    problems: list[InputRefused] = []
    for row in table.rows:
        try:
            result.append(labels.look_up(row.values[column], where=f"line {row.line}"))
        except InputRefused as error:
            problems.append(error)
    if problems:
        first = problems[0]
        found = "; ".join(f"{e.where}: {e.found}" for e in problems[:20])
        more = f"; and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise InputRefused(
            Reason.UNKNOWN_LABEL,
            found + more,
            where=f"{table.where}, column {column}",
            expected=first.expected,
            remedy=first.remedy,
        )
    return tuple(result)


def iso_date(text: str, *, where: str = "") -> date:
    """A date written YYYY-MM-DD; every other form can be read in two ways and is refused.

    >>> iso_date("2024-03-01")
    datetime.date(2024, 3, 1)
    """
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        try:
            return date.fromisoformat(text)
        except ValueError:
            pass
    raise InputRefused(
        Reason.BAD_TABLE,
        "a date that is not YYYY-MM-DD",
        where=where,
        expected="an ISO date such as 2024-03-01",
        remedy="write dates as YYYY-MM-DD; day/month order and spreadsheet serials are ambiguous",
    )


def number(text: str, *, dialect: Dialect | None = None, where: str = "") -> float | None:
    """A finite number, None for an empty cell; thousands separators and units are refused.

    >>> number("12,5", dialect=Dialect(";", ","))
    12.5
    """
    if not text:
        return None
    sign = re.escape((dialect or Dialect()).decimal)
    if re.fullmatch(rf"[+-]?[0-9]+(?:{sign}[0-9]+)?(?:[eE][+-]?[0-9]{{1,3}})?", text):
        value = float(text.replace((dialect or Dialect()).decimal, "."))
        if isfinite(value):
            return value
    raise InputRefused(
        Reason.BAD_TABLE,
        "a cell that is not a number",
        where=where,
        expected=f"digits with the decimal sign {(dialect or Dialect()).decimal!r}, or nothing",
        remedy=_REMEDY,
    )


_GRADES = {
    **{str(n): n for n in range(1, 5)},
    **{f"G{n}": n for n in range(1, 5)},
    **dict(zip(("I", "II", "III", "IV"), range(1, 5), strict=True)),
}
_SYSTEMS = {
    "WHO_ISUP": GradeSystem.WHO_ISUP,
    "WHO/ISUP": GradeSystem.WHO_ISUP,
    "ISUP": GradeSystem.WHO_ISUP,
    "FUHRMAN": GradeSystem.FUHRMAN,
    "Fuhrman": GradeSystem.FUHRMAN,
}


def grade(text: str, system: str | None, *, where: str = "") -> tuple[int, GradeSystem] | None:
    """Nuclear grade with its system, None when both cells are empty.

    Grades: 1-4, G1-G4, I-IV. Systems: WHO_ISUP (WHO/ISUP, ISUP), FUHRMAN (Fuhrman). A grade
    without its system is refused, because Fuhrman 2 is not WHO/ISUP 2; so is `2/3`.
    """
    if not text and not system:
        return None
    if not system:
        raise InputRefused(
            Reason.BAD_TABLE,
            "a grade without its system",
            where=where,
            expected="WHO_ISUP or FUHRMAN in the grade_system column",
            remedy="add a grade_system column and fill it for every graded lesion",
        )
    if text not in _GRADES or system not in _SYSTEMS:
        raise InputRefused(
            Reason.BAD_TABLE,
            f"grade {text[:12]!r} in system {system[:12]!r}",
            where=where,
            expected="1-4, G1-G4 or I-IV, in WHO_ISUP or FUHRMAN",
            remedy="decide on one grade per lesion (the higher one of '2/3', for instance)",
        )
    return _GRADES[text], _SYSTEMS[system]


def look_alikes(identifiers: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Groups of different identifiers that people may mean as one.

    They differ only in leading zeros, spaces, case or character width. They stay different; the
    groups are for a warning.

    >>> look_alikes(["007", "7", "8"])
    (('007', '7'),)
    """
    groups: dict[str, set[str]] = {}
    for text in identifiers:
        bare = folded(text).replace(" ", "")
        groups.setdefault(bare.lstrip("0") or "0", set()).add(text)
    return tuple(tuple(sorted(g)) for g in groups.values() if len(g) > 1)


def check_split(table: Table, patient: str, split: str) -> None:
    """Raises InputRefused(SPLIT_OVERLAP) when one patient is listed in two parts of a split."""
    first: dict[str, tuple[str, int]] = {}
    problems: list[str] = []
    for row in table.rows:
        part = row.values[split]
        known = first.setdefault(row.values[patient], (part, row.line))
        if known[0] != part:
            problems.append(f"lines {known[1]} and {row.line}")
    if problems:
        raise InputRefused(
            Reason.SPLIT_OVERLAP,
            f"{len(problems)} times one patient in two parts ({'; '.join(problems[:10])})",
            where=f"{table.where}, column {split}",
            expected="every patient in one part",
            remedy="put all rows of a patient into the same part",
        )
