"""Are systems better than readers, and readers better in another arm? Tables of differences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from renalkit.writers.document import (
    Block,
    Cell,
    Column,
    Folded,
    Heading,
    Paragraph,
    Table,
    TableBuilder,
)
from renalkit.writers.reader_words import without_freedom
from renalkit.writers.source import Json, metric_name
from renalkit.writers.wording import (
    MINUS,
    Estimate,
    count,
    listed,
    methods_of,
    number,
    p_value,
)

NUMBER = "number"


def strong(words: object) -> Cell:
    """A cell that names its row."""
    return Cell(str(words), strong=True)


# ---- systems -------------------------------------------------------------------------------


def systems_beside(found: Json) -> list[Block]:
    systems = found["systems"]
    if not systems:
        return []
    arm = f" Readers in the arm '{found['baseline']}'." if len(found["arms"]) > 1 else ""
    blocks: list[Block] = [
        Heading("Systems beside readers"),
        Paragraph(f"Differences are system {MINUS} readers, on the same patients.{arm}"),
    ]
    without = [f"{s['label']}: {s['note']}" for s in systems if s["note"]]
    if without:
        blocks.append(Paragraph(f"Not compared. {'; '.join(without)}.", "note"))
    for part in _PARTS:
        rows = [(s["label"], row) for s in systems for row in s[part.key]]
        groups = [r for r in rows if r[1]["kind"] != "reader"]
        each = [r for r in rows if r[1]["kind"] == "reader"]
        if groups:
            blocks.append(_differences(part, part.name, part.title, groups))
        if each:
            name, title = f"{part.name}-each", f"{part.title.removesuffix('.')}, one by one."
            table = _differences(part, name, title, each)
            blocks.append(Folded(f"{part.title.removesuffix('.')}, one by one", (table,)))
    return blocks


@dataclass(frozen=True, slots=True)
class _Part:
    """One kind of comparison of systems with readers. key: its rows in readers.json."""

    key: str
    name: str
    title: str
    caption: str


_PARTS = (
    _Part(
        "matched",
        "readers-matched",
        "Systems at the readers' operating points.",
        "The system's threshold is found on these patients, where it is at least as sensitive (or "
        "specific) as the readers: a description of this sample, not a threshold to use.",
    ),
    _Part(
        "calls",
        "readers-calls",
        "Systems at their own thresholds beside readers' votes.",
        "Thresholds were chosen on validation patients of each fold.",
    ),
    _Part(
        "areas",
        "readers-auc",
        "AUC of systems beside readers' scores.",
        "Mean: the average AUC of the group, with readers and patients as samples.",
    ),
)


def _who(row: Json) -> str:
    words = {"majority": ", majority", "mean": ", mean"}
    return f"{row['who']}{words.get(str(row['kind']), '')}"


def _compared(table: TableBuilder, row: Json) -> tuple[Estimate | Cell | str, ...]:
    return *_both(table, row), p_value(row["p"]), p_value(row.get("p_holm"))


def _both(table: TableBuilder, row: Json) -> tuple[Estimate | Cell, ...]:
    """Both figures and their difference, with its sign."""
    apart = Estimate.of(row["difference"])
    why = apart.note or "not computed"
    table.estimates.append(apart)
    signed = Cell(apart.head(signed=True), apart.interval(signed=True), apart.note)
    return Estimate.of(row.get("first"), why), Estimate.of(row.get("second"), why), signed


def methods(estimates: Sequence[Estimate]) -> str:
    """`methods_of`, with degrees of freedom, which differ by row, left out."""
    plain = [replace(e, method=without_freedom(e.method)) for e in estimates]
    return methods_of(plain)


def _tests(rows: Sequence[Json]) -> str:
    tests = listed(sorted({str(r["test"]) for r in rows if r.get("test")}))
    return f"p: {tests}. {_family(rows)}" if tests else ""


def _family(rows: Sequence[Json]) -> str:
    """What p-values are adjusted over: those of one figure (at one match) in one table."""
    tested = [(r.get("match", ""), r["figure"]) for r in rows if r["p"] is not None]
    words = [f"{n} of {metric_name(k[1])}" for k, n in Counter(tested).items()]
    return f"Holm, over the tests in this table: {listed(words)}." if words else ""


def _differences(part: _Part, name: str, title: str, rows: Sequence[tuple[object, Json]]) -> Table:
    matched = part.key == "matched"
    table = TableBuilder(
        name,
        title,
        (
            Column("System"),
            Column("Beside"),
            *((Column("Matched"),) if matched else ()),
            Column("Figure"),
            Column("System", NUMBER),
            Column("Readers", NUMBER),
            Column("Difference", NUMBER),
            Column("p", NUMBER),
            Column("p (Holm)", NUMBER),
        ),
        stacked=True,
    )
    for label, row in rows:
        at = f" {number(row['at']['value'])}" if "at" in row else ""
        table.add(
            strong(label),
            _who(row),
            *((f"{row['match']}{at}",) if matched else ()),
            metric_name(str(row["figure"])),
            *_compared(table, row),
        )
    return table.build(
        f"{part.caption} {methods(table.estimates)}. {_tests([row for _, row in rows])}"
    )


# ---- arms ----------------------------------------------------------------------------------


def arms_compared(found: Json) -> list[Block]:
    if not found["contrasts"]:
        return []
    blocks: list[Block] = [Heading("Arms")]
    for k, contrast in enumerate(found["contrasts"], 1):
        first, second = str(contrast["first"]), str(contrast["second"])
        suffix = "" if len(found["contrasts"]) == 1 else f"-{k}"
        blocks.append(Paragraph(f"'{first}' {MINUS} '{second}', the same readers and patients."))
        blocks.append(_mrmc(contrast, suffix))
        blocks.append(_reader_arms(contrast, suffix))
        if contrast["changes"]:
            blocks.append(_changes(contrast, suffix, found["ai"]))
    for row in found["overall"]:
        if row["p"] is not None:
            blocks.append(
                Paragraph(
                    f"All arms, {row['figure']}: F = {number(row['f'], 2)} with {row['df1']} and "
                    f"{number(row['df2'], 1) if row['df2'] else 'infinite'} degrees of freedom, "
                    f"p = {p_value(row['p'])} ({row['method']}, {row['to']})."
                )
            )
    return blocks


def _mrmc(contrast: Json, suffix: str) -> Table:
    table = TableBuilder(
        f"readers-mrmc{suffix}",
        "Arms, averaged over readers.",
        (
            Column("Group"),
            Column("Figure"),
            Column("Readers", NUMBER),
            Column(str(contrast["first"]), NUMBER),
            Column(str(contrast["second"]), NUMBER),
            Column("Difference", NUMBER),
            Column("p", NUMBER),
            Column("p (Holm)", NUMBER),
            Column("Method, and whom it holds for"),
        ),
        stacked=True,
    )
    for row in contrast["groups"]:
        table.add(
            strong(row["group"]),
            metric_name(str(row["figure"])),
            count(row["n_readers"]),
            *_compared(table, row),
            f"{row['method']}, {row['to']}",
        )
    return table.build(
        "Random readers and cases: holds for readers like these and other patients; with three "
        "readers a p near 0.05 is weak. Fixed readers: for these readers only. Holm: over the "
        "groups, for each figure and method; name the method beforehand."
    )


def _reader_arms(contrast: Json, suffix: str) -> Table:
    table = TableBuilder(
        f"readers-arms{suffix}",
        "Arms, every reader.",
        (
            Column("Reader"),
            Column("Figure"),
            Column(str(contrast["first"]), NUMBER),
            Column(str(contrast["second"]), NUMBER),
            Column("Difference", NUMBER),
            Column("p", NUMBER),
            Column("p (Holm)", NUMBER),
        ),
        stacked=True,
    )
    for row in contrast["readers"]:
        figure = metric_name(str(row["figure"]))
        table.add(strong(row["reader"]), figure, *_compared(table, row))
    return table.build(f"{methods(table.estimates)}. {_tests(contrast['readers'])}")


def _helped(calls: Json) -> str:
    return f"{calls['wrong_to_right']} of {calls['decisions'] - calls['right_before']}"


def _misled(calls: Json) -> str:
    return f"{calls['right_to_wrong']} of {calls['right_before']}"


def _changes(contrast: Json, suffix: str, ai: str | None) -> Table:
    first = contrast["changes"][0]
    split = "ai_right" in first
    heads = ["Calls", "Changed", "Wrong to right", "Right to wrong"]
    if split:
        heads += ["AI right: wrong to right", "AI wrong: right to wrong"]
        heads += ["Helped", "Misled"]
    table = TableBuilder(
        f"readers-changes{suffix}",
        "Calls that changed.",
        (Column("Who"), *(Column(h, NUMBER) for h in heads)),
        stacked=True,
    )
    for row in contrast["changes"]:
        every = row["all"]
        cells: list[Cell | str | Estimate] = [
            strong(row["who"]),
            count(every["decisions"]),
            Estimate.of(row["changed"]),
            count(every["wrong_to_right"]),
            count(every["right_to_wrong"]),
        ]
        if split:
            cells += [
                _helped(row["ai_right"]),
                _misled(row["ai_wrong"]),
                Estimate.of(row["helped"]),
                Estimate.of(row["misled"]),
            ]
        table.add(*cells)
    words = (
        f"AI: '{ai}' at its threshold. Helped: share of the calls that were wrong where the AI was "
        "right and became right. Misled (automation bias): share of the calls that were right "
        "where the AI was wrong and became wrong. "
        if split
        else ""
    )
    return table.build(f"{words}{methods_of(table.estimates)}.")
