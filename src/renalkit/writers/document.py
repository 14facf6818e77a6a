"""What is a page made of? Sections of paragraphs, tables, figures and folded parts, as data.

Nothing here is markup but `Svg`, which only this package draws; all other words are escaped when
the page is rendered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from renalkit.writers.wording import NO_BREAK, NOT_AVAILABLE, THIN_SPACE, Estimate

Align = Literal["text", "number"]


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell: words, an interval beside them, the reason when there is no figure.

    ch: widths of figure and interval in characters, set for a whole column so that points align.
    """

    text: str
    interval: str = ""
    note: str = ""
    strong: bool = False
    ch: tuple[float, float] = (0, 0)
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """Head of a column. code: words in fixed width, such as hashes."""

    head: str
    align: Align = "text"
    code: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A numbered table. stacked: intervals below their figures, for many columns."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""
    stacked: bool = False
    notes: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"table {self.name}: {len(row)} cells, {len(self.columns)} heads")


@dataclass(frozen=True, slots=True)
class Svg:
    """Markup drawn by this package; the only words of a document that are not escaped."""

    markup: str


@dataclass(frozen=True, slots=True)
class Figure:
    """A numbered figure with its numbers beside it. csv: the same numbers as a file.

    keep: whether it may stand as a file of its own beside other figures; pictures of patients
    go into a folder of their own.
    """

    name: str
    title: str
    svg: Svg
    caption: str = ""
    csv: str = ""
    beside: Table | None = None
    pictures: bool = False
    description: str = ""


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Running text. kind 'note' is set apart, 'lead' opens the report; opening: words in bold."""

    text: str
    kind: Literal["plain", "lead", "note", "warning"] = "plain"
    opening: str = ""


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading inside a section."""

    text: str


@dataclass(frozen=True, slots=True)
class Code:
    """Text in fixed width, kept as it is."""

    text: str


@dataclass(frozen=True, slots=True)
class Folded:
    """Parts shown on demand (and in print)."""

    summary: str
    blocks: tuple[Block, ...]


Block = Paragraph | Heading | Table | Figure | Code | Folded


@dataclass(frozen=True, slots=True)
class Section:
    name: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """A whole report. facts: the few lines under the title."""

    title: str
    subtitle: str
    facts: tuple[tuple[str, str], ...]
    sections: tuple[Section, ...]
    footer: str = ""


_Raw = Cell | str | Estimate


@dataclass(slots=True)
class TableBuilder:
    """Collects rows and settles footnotes and alignment when `build` is called."""

    name: str
    title: str
    columns: Sequence[Column]
    digits: int = 3
    ci_digits: int = 2
    signed: bool = False
    stacked: bool = False
    rows: list[tuple[Cell, ...]] = field(default_factory=lambda: [])
    estimates: list[Estimate] = field(default_factory=lambda: [])

    def add(self, *cells: _Raw) -> None:
        """One row; an Estimate is written with the digits of the table."""
        self.rows.append(tuple(self._cell(c) for c in cells))

    def length(self, estimate: Estimate, digits: int = 2) -> Cell:
        """A cell for an estimate that is no proportion."""
        self.estimates.append(estimate)
        return estimate_cell(estimate, digits, digits)

    def _cell(self, raw: _Raw) -> Cell:
        if isinstance(raw, Cell):
            return raw
        if isinstance(raw, Estimate):
            self.estimates.append(raw)
            return estimate_cell(raw, self.digits, self.ci_digits, signed=self.signed)
        return Cell(raw)

    def build(self, caption: str = "") -> Table:
        marks: dict[str, str] = {}
        marked: list[list[Cell]] = []
        for row in self.rows:
            cells: list[Cell] = []
            for cell in row:
                if cell.note:
                    mark = marks.setdefault(cell.note, _mark(len(marks)))
                    cells.append(_with(cell, mark=mark))
                else:
                    cells.append(cell)
            marked.append(cells)
        for index, column in enumerate(self.columns):
            if column.align == "number":
                _align([row[index] for row in marked], marked, index)
        marked = _without_repeats(marked)
        return Table(
            self.name,
            self.title,
            tuple(self.columns),
            tuple(tuple(row) for row in marked),
            caption,
            self.stacked,
            tuple((mark, note) for note, mark in marks.items()),
        )


def estimate_cell(
    estimate: Estimate, digits: int = 3, ci_digits: int = 2, *, signed: bool = False
) -> Cell:
    """A figure with its interval; the reason when there is no figure."""
    if not estimate.defined:
        return Cell(NOT_AVAILABLE, note=estimate.note)
    return Cell(
        estimate.head(digits, signed=signed),
        estimate.interval(ci_digits, signed=signed),
        estimate.note,
    )


def _mark(index: int) -> str:
    letters = "abcdefghijklmnopqrstuvwxyz"
    return letters[index] if index < len(letters) else f"a{index}"


def _with(cell: Cell, *, mark: str = "", ch: tuple[float, float] | None = None) -> Cell:
    return Cell(cell.text, cell.interval, cell.note, cell.strong, ch or cell.ch, mark or cell.mark)


_NARROW = {
    ".": 0.5,
    ",": 0.5,
    " ": 0.5,
    "(": 0.6,
    ")": 0.6,
    "/": 0.5,
    NO_BREAK: 0.5,
    THIN_SPACE: 0.3,
}


def _width(text: str) -> float:
    """About how wide a figure is, in widths of a digit."""
    return sum(_NARROW.get(c, 1.0) for c in text)


def _align(column: Sequence[Cell], rows: list[list[Cell]], index: int) -> None:
    """Give all cells of a column the width of the widest, so that points stand in line."""
    ch = (
        round(max((_width(c.text) for c in column), default=0.0), 2),
        round(max((_width(c.interval) for c in column), default=0.0), 2),
    )
    for row in rows:
        row[index] = _with(row[index], ch=ch)


def _without_repeats(rows: list[list[Cell]]) -> list[list[Cell]]:
    """Empty first cells that repeat the one above, so that the rows of a system stand together."""
    above = ""
    out: list[list[Cell]] = []
    for row in rows:
        same = bool(row[0].text) and row[0].text == above
        above = row[0].text
        out.append([Cell(""), *row[1:]] if same else row)
    return out
