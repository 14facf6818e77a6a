"""What do reporting guidelines ask that this run answers, and what must its authors still write?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from renalkit.writers.checklist import Form, Line, State, counts_words, filled
from renalkit.writers.claim import CLAIM
from renalkit.writers.csv_table import csv_text
from renalkit.writers.document import Block, Cell, Column, Folded, Paragraph, Section, Table
from renalkit.writers.document import TableBuilder as Builder
from renalkit.writers.source import ReportSource
from renalkit.writers.tripod_ai import TRIPOD_AI

FORMS: Mapping[str, Form] = {form.name: form for form in (CLAIM, TRIPOD_AI)}
"""The forms by the name users type."""

NO_COMPLIANCE = (
    "Items are named in our own words: the publications say what they ask. A filled list does not "
    "mean that a study complies; check every answer before you send it to a journal."
)


def checklists(
    source: ReportSource, forms: Sequence[Form] = tuple(FORMS.values()), *, folded: bool = True
) -> Section:
    """Every form with its counts and, folded in a report, its items."""
    blocks: list[Block] = [Paragraph(f"A help for writing. {NO_COMPLIANCE}", "note")]
    for form in forms:
        lines = filled(form, source)
        table = _table(form, lines)
        summary = f"{form.title}: {counts_words(lines)}"
        blocks.append(Folded(summary, (table,)) if folded else table)
    return Section("checklists", "Reporting checklists", tuple(blocks))


def _table(form: Form, lines: Sequence[Line]) -> Table:
    table = Builder(
        f"checklist-{form.name}",
        f"{form.title}, item by item.",
        (Column("Section"), Column("Item"), Column("Asks for"), Column("State"), Column("Answer")),
    )
    for line in lines:
        item = line.item
        state = Cell(line.state.value, strong=line.state in (State.OPEN, State.PARTLY))
        table.add(Cell(item.section, strong=True), item.number, item.asks, state, line.words)
    return table.build(f"Numbers after {form.after}. {counts_words(lines)}.")


def checklists_csv(source: ReportSource, forms: Sequence[Form]) -> str:
    """The forms as one CSV, an item per line, run and authors apart."""
    head = ("form", "item", "section", "asks_for", "state", "from_run", "from_authors", "to_add")
    rows = [
        (
            *(form.name, line.item.number, line.item.section, line.item.asks, line.state.value),
            *(line.from_run, line.from_authors, line.open_part),
        )
        for form in forms
        for line in filled(form, source)
    ]
    return csv_text(head, rows)
