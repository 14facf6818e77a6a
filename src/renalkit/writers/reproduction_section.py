"""What did a paper print, and what does its protocol give here? The paper's table, both beside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from renalkit.writers.document import (
    Block,
    Cell,
    Column,
    Heading,
    Paragraph,
    Section,
    Table,
    TableBuilder,
)
from renalkit.writers.source import Json, ReportSource, measured, metric_name
from renalkit.writers.wording import NOT_AVAILABLE, Estimate, count, finite, methods_of

NUMBER = "number"
CLASSIFICATION = ("auc", "accuracy", "sensitivity", "specificity", "ppv", "npv")
SEGMENTATION = ("iou", "dice")
BASELINE_ARM = 0


def reproduction(source: ReportSource) -> Section | None:
    """The paper's main table with the figures of this run, and every point that differs."""
    found = source.reproduction
    if found is None:
        return None
    blocks: list[Block] = [Paragraph(_opening(found))]
    tasks = (
        ("reproduction", "Classification", CLASSIFICATION),
        ("reproduction-masks", "Segmentation", SEGMENTATION),
    )
    for name, title, metrics in () if source.scans else tasks:
        table = _table(source, found, (name, title), metrics)
        if table is not None:
            blocks.append(table)
    blocks += [Heading("What differs from the paper"), _deviations(found)]
    if found["overrides"]:
        changed = ", ".join(str(o) for o in found["overrides"])
        blocks.append(Paragraph(f"Changed further on the command line: {changed}."))
    return Section("reproduction", f"The protocol of {found['paper']}", tuple(blocks))


def _opening(found: Json) -> str:
    variant = (
        f" Variant '{found['variant']}': {found['variant_words']}." if found["variant"] else ""
    )
    return (
        f"{found['title']}. Profile '{found['profile']}': {found['profile_words']}.{variant} "
        "Published and measured figures rest on different patients, images and settings; a "
        "difference between them is no test of either."
    )


def _table(
    source: ReportSource, found: Json, name: tuple[str, str], metrics: Sequence[str]
) -> Table | None:
    table = TableBuilder(
        name[0],
        f"{name[1]}: published and measured.",
        (
            Column(str(found["paper"])),
            Column("Figures"),
            *(Column(metric_name(m), NUMBER) for m in metrics),
            Column("n", NUMBER),
            Column("Unit"),
        ),
        stacked=True,
    )
    rows = 0
    for row in found["rows"]:
        published = _published(source, row, metrics)
        here = _measured(source, row, metrics)
        if not any(published.values()) and not any(here.values()):
            continue
        rows += 1
        named = Cell(str(row["name"]), strong=True)
        if not row.get("ours"):
            table.add(
                named,
                "published",
                *(published[m] or Cell(NOT_AVAILABLE) for m in metrics),
                "",
                _basis(source, row, metrics),
            )
        known = [e for e in here.values() if e is not None]
        table.add(
            named if row.get("ours") else "",
            "measured",
            *(here[m] or Cell(NOT_AVAILABLE) for m in metrics),
            count(max(e.n for e in known)) if known else "",
            known[0].unit if known else "not part of this run",
        )
    if not rows:
        return None
    methods = f" {methods_of(table.estimates)}." if table.estimates else ""
    return table.build(
        "Published: as printed, with its interval where the paper gives one. Measured: all folds "
        f"pooled, with interval.{methods}"
    )


def _claims(source: ReportSource, row: Json) -> dict[str, Json]:
    """What the paper prints of a row, by metric; nothing of a row that is ours."""
    if row.get("ours"):
        return {}
    label, group = row.get("system"), row.get("readers")
    ending = f" of {group} readers" if group else ""
    found: dict[str, Json] = {}
    for name, card in source.cards.items():
        owns = any(s["label"] == label and s["system"] == name for s in source.systems)
        if label is not None and not owns:
            continue
        for claim in card["claims"]:
            metric = str(claim["metric"])
            plain = " of " not in metric
            if (group and metric.endswith(ending)) or (not group and plain):
                found.setdefault(metric.removesuffix(ending), claim)
    return found


def _published(source: ReportSource, row: Json, metrics: Sequence[str]) -> dict[str, Cell | None]:
    claims = _claims(source, row)
    cells: dict[str, Cell | None] = {}
    for metric in metrics:
        claim = claims.get(metric)
        if claim is None:
            cells[metric] = None
            continue
        ends = finite(claim.get("low")), finite(claim.get("high"))
        e = Estimate(finite(claim["value"]), *ends, 0.95, 0, "", "")
        cells[metric] = Cell(e.head(), e.interval())
    return cells


def _basis(source: ReportSource, row: Json, metrics: Sequence[str]) -> Cell:
    """What the paper says its figures are of, below the table: the words are long."""
    claims = _claims(source, row)
    units = dict.fromkeys(
        str(claims[m].get("unit") or "not stated") for m in metrics if m in claims
    )
    if not units:
        return Cell(NOT_AVAILABLE)
    return Cell("as printed", note=f"Unit as printed: {'; '.join(units)}")


def _measured(
    source: ReportSource, row: Json, metrics: Sequence[str]
) -> Mapping[str, Estimate | None]:
    label, group = row.get("system"), row.get("readers")
    if label is not None:
        system = next((s for s in source.systems if s["label"] == label), None)
        return {m: None if system is None else measured(system, m) for m in metrics}
    arms = list((source.readers or {}).get("arms", ()))
    groups = arms[BASELINE_ARM]["groups"] if arms else ()
    majority = next((g["majority"] for g in groups if g["group"] == group), None) or {}
    return {m: Estimate.of(majority[m]) if majority.get(m) else None for m in metrics}


def _deviations(found: Json) -> Table:
    table = TableBuilder(
        "deviations",
        "Points at which this protocol is not the paper's.",
        (Column("Topic"), Column("Paper"), Column("Here")),
    )
    for one in found["deviations"]:
        table.add(Cell(str(one["topic"]), strong=True), str(one["paper"]), str(one["here"]))
    return table.build("What the paper leaves open stands with the cards of the systems.")
