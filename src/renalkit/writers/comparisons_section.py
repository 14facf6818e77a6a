"""Is one system better than another on the same patients? Differences, pooled and over folds."""

from __future__ import annotations

from collections.abc import Sequence

from renalkit.writers.csv_table import csv_text
from renalkit.writers.document import (
    Block,
    Cell,
    Column,
    Figure,
    Heading,
    Section,
    Table,
    TableBuilder,
    estimate_cell,
)
from renalkit.writers.figures import Interval, intervals
from renalkit.writers.source import ESTIMATE_HEAD, Json, ReportSource, estimate_row, metric_name
from renalkit.writers.wording import (
    NO_BREAK,
    PLUS_MINUS,
    Estimate,
    count,
    finite,
    methods_of,
    number,
    p_value,
    plural,
)

NUMBER = "number"


def comparisons(source: ReportSource) -> Section | None:
    """Differences of the reference system against each other one on the same cases."""
    if not source.comparisons or not source.comparisons["rows"]:
        return None
    reference = str(source.comparisons["reference"])
    rows = list(source.comparisons["rows"])
    blocks: list[Block] = [_drawn(source, reference, rows), _pooled(reference, rows)]
    over = [r for r in rows if r.get("over_folds")]
    if over:
        blocks += [Heading("Over folds"), *_over_folds(reference, over)]
    return Section("comparisons", "Paired comparisons", tuple(blocks))


def _measure(row: Json) -> str:
    unit = row.get("length_unit")
    return metric_name(str(row["metric"])) + (f" ({unit})" if unit else "")


def _digits(row: Json) -> int:
    """Lengths in pixels or millimetres are shown to two places."""
    return 2 if row.get("length_unit") else 3


def _drawn(source: ReportSource, reference: str, rows: Sequence[Json]) -> Figure:
    """Differences of shares; lengths have another axis and stand in the table alone."""
    items = [
        Interval(
            f"{metric_name(str(row['metric']))}, against {row['label']}",
            Estimate.of(row["difference"]),
            place=source.place(row["label"]),
        )
        for row in rows
        if row.get("better") != "lower"
    ]
    csv_rows = [
        (
            reference,
            row["label"],
            row["metric"],
            *estimate_row(Estimate.of(row["difference"])),
            row.get("p"),
            row.get("p_holm"),
        )
        for row in rows
    ]
    others = any(row.get("better") == "lower" for row in rows)
    return Figure(
        "comparisons",
        f"Paired differences of {reference}.",
        intervals(items, f"Difference ({reference} minus the other)", reference=0.0),
        "Point and interval, in the colour of the other system; the line marks no difference."
        + (" Measures of which less is better are in the table only." if others else ""),
        csv=csv_text(("system", "against", "metric", *ESTIMATE_HEAD, "p", "p_holm"), csv_rows),
        description="Paired differences with intervals",
    )


def _pooled(reference: str, rows: Sequence[Json]) -> Table:
    table = TableBuilder(
        "comparisons",
        f"{reference} against the other systems.",
        (
            Column("Against"),
            Column("Measure"),
            Column(reference, NUMBER),
            Column("Other", NUMBER),
            Column("Difference", NUMBER),
            Column("p", NUMBER),
            Column("p\N{NO-BREAK SPACE}(Holm)", NUMBER),
            Column("Signed ranks, p\N{NO-BREAK SPACE}(Holm)", NUMBER),
            Column("Cases", NUMBER),
            Column("Patients", NUMBER),
        ),
        stacked=True,
    )
    for row in rows:
        e, digits, ranks = Estimate.of(row["difference"]), _digits(row), row.get("wilcoxon")
        table.estimates.append(e)
        table.add(
            Cell(str(row["label"]), strong=True),
            _measure(row),
            number(finite(row["reference_value"]), digits),
            number(finite(row["value"]), digits),
            estimate_cell(e, digits, digits, signed=True),
            p_value(finite(row.get("p"))),
            p_value(finite(row.get("p_holm"))),
            "" if ranks is None else p_value(finite(ranks["p_holm"])),
            Cell(_cases(row), note=_left_out(row)),
            count(e.n),
        )
    better = "above 0 favours the former"
    if any(row.get("better") == "lower" for row in rows):
        better += ", of distances and errors below 0"
    caption = (
        f"Difference: {reference} minus the other, on the same cases of the folds both have, "
        f"pooled over them; {better}. p is two-sided; Holm: adjusted over the other systems, for "
        "each measure. Signed ranks: Wilcoxon's test of the patients' means. "
        f"{methods_of(table.estimates)}."
    )
    return table.build(caption)


def _cases(row: Json) -> str:
    """Number of images or lesions where the mean is over these."""
    for key, noun in (("n_frames", "image"), ("n_scans", "scan"), ("n_lesions", "lesion")):
        if key in row:
            return plural(int(row[key]), noun).replace(" ", NO_BREAK)
    return ""


def _left_out(row: Json) -> str:
    n = int(row.get("left_out") or 0)
    return f"{plural(n, 'image')} left out: an empty prediction has no distance" if n else ""


def _over_folds(reference: str, rows: Sequence[Json]) -> list[Block]:
    tested = [r for r in rows if r["over_folds"]["difference"]]
    table = TableBuilder(
        "comparisons-folds",
        f"{reference} against the other systems, over folds.",
        (
            Column("Against"),
            Column("Measure"),
            Column(f"Difference, mean {PLUS_MINUS} SD", NUMBER),
            Column("Interval", NUMBER),
            Column("p", NUMBER),
            Column("p\N{NO-BREAK SPACE}(Holm)", NUMBER),
            Column("Folds", NUMBER),
        ),
    )
    for row in rows:
        over, digits = row["over_folds"], _digits(row)
        e = Estimate.of(over["difference"], str(over["test"]))
        if e.defined:
            table.estimates.append(e)
        mean, sd = finite(over["mean"]), finite(over["sd"])
        spread = f" {PLUS_MINUS} {number(sd, digits)}" if sd is not None else ""
        p = finite(over["p"])
        table.add(
            Cell(str(row["label"]), strong=True),
            _measure(row),
            number(mean, digits, signed=True) + spread,
            e.interval(digits, signed=True).strip("()") or Cell("n/a", note=e.note),
            p_value(p) if p is not None else Cell("n/a", note=str(over["test"])),
            p_value(finite(over["p_holm"])),
            count(len(over["folds"])),
        )
    caption = (
        "Difference of the two systems' figures in each fold; the SD describes the folds. These "
        "are other figures than the pooled ones above: quote one kind, and say which."
    )
    if tested:
        caption += (
            " The test is the corrected resampled t-test, whose variance allows for training "
            f"patients that folds share. {methods_of(table.estimates)}."
        )
    return [table.build(caption)]
