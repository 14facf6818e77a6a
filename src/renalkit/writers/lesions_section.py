"""Which lesions are found, by size and at what price, and which are missed? Readers as ceiling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from renalkit.writers.csv_table import csv_text
from renalkit.writers.document import (
    Block,
    Cell,
    Column,
    Figure,
    Folded,
    Heading,
    Paragraph,
    Section,
    Table,
    TableBuilder,
)
from renalkit.writers.figures import FrocLine, Interval, free_response, intervals
from renalkit.writers.source import ESTIMATE_HEAD, Json, ReportSource, estimate, estimate_row
from renalkit.writers.wording import (
    EN_DASH,
    NOT_AVAILABLE,
    Estimate,
    count,
    finite,
    listed,
    methods_of,
    number,
    plural,
    share,
)

NUMBER = "number"
_MOST_NAMED = 40
_TITLE = "Lesion by lesion"


def lesions(source: ReportSource) -> Section | None:
    """Detection of every segmenting system; None where none segments."""
    if not source.segmenting:
        return None
    found = source.lesions
    if found is None:
        words = "Lesions were not counted in this run; 'renalkit evaluate' counts them."
        return Section("lesions", _TITLE, (Paragraph(words),))
    known = {str(s["label"]) for s in source.systems}
    systems = [s for s in found["systems"] if str(s["label"]) in known]
    if not any(s["lesions"] or s["marks"] for s in systems):
        words = "No lesion is outlined in the tested images, and no system marked anything."
        return Section("lesions", _TITLE, (Paragraph(words),))
    blocks: list[Block] = [_whole(found, systems)]
    sized = [s for s in systems if s["by_size"]]
    if sized:
        blocks += [Heading("By size"), _recall_by_size(source, sized), _by_size(found, sized)]
    else:
        blocks.append(Paragraph("No tested image has a scale, so lesions are not told by size."))
    blocks += [Heading("Free-response curves"), *_froc(source, systems)]
    blocks += _ceiling(source, found.get("readers"))
    blocks += _misses(systems)
    return Section("lesions", _TITLE, tuple(blocks))


def _strong(system: Json) -> Cell:
    return Cell(str(system["label"]), strong=True)


# ---- found, missed, in vain ----------------------------------------------------------------


def _whole(found: Json, systems: Sequence[Json]) -> Table:
    table = TableBuilder(
        "lesions",
        "Lesions found and marks made.",
        (
            Column("System"),
            Column("Lesions", NUMBER),
            Column("Marks", NUMBER),
            Column("Found", NUMBER),
            Column("Found well", NUMBER),
            Column("Precision", NUMBER),
            Column("F1", NUMBER),
            Column("False marks per image", NUMBER),
            Column("Left clean", NUMBER),
        ),
        stacked=True,
    )
    names = ("recall", "recall_well", "precision", "f1", "false_per_picture")
    for s in systems:
        clean = Estimate.of(s["clean"], "every tested image has a lesion")
        figures = [estimate(s, n) for n in names]
        table.add(_strong(s), count(s["lesions"]), count(s["marks"]), *figures, clean)
    images = sorted({int(s["pictures"]) for s in systems})
    people = sorted({int(s["patients"]) for s in systems})
    return table.build(
        f"A lesion is one outline of the reference on one image ({_range(images)} images of "
        f"{_range(people)} patients), a mark one region of the predicted mask. Found: "
        f"{found['rule']}; well: IoU of at least {number(found['well'], 1)}. Precision: share of "
        "marks that found a lesion. Left clean: images without a lesion that have no mark. Shares "
        "are of lesions, marks and images; intervals take the patient as the unit. "
        f"{methods_of(table.estimates)}."
    )


def _range(values: Sequence[int]) -> str:
    low, high = count(values[0]), count(values[-1])
    return low if low == high else f"{low} to {high}"


# ---- by size -------------------------------------------------------------------------------


def _recall_by_size(source: ReportSource, systems: Sequence[Json]) -> Figure:
    sizes = list(dict.fromkeys(str(b["size"]) for s in systems for b in s["by_size"]))
    sizes.sort(key=lower_edge)
    items: list[Interval] = []
    rows: list[tuple[object, ...]] = []
    for size in sizes:
        for s in systems:
            part = next((b for b in s["by_size"] if b["size"] == size and b["lesions"]), None)
            if part is None:
                continue
            e, n = estimate(part, "recall"), int(part["lesions"])
            label = str(s["label"])
            words = f"{size} (n = {count(n)}): {label}"
            items.append(Interval(words, e, place=source.place(label)))
            rows.append((label, size, n, *estimate_row(e)))
    return Figure(
        "lesions-size",
        "Share of lesions found, by their size.",
        intervals(items, "Lesions found"),
        "n: lesions of that size, by the diameter of the circle of equal area; n/a: too few "
        "patients.",
        csv=csv_text(("system", "size", "lesions", *ESTIMATE_HEAD), rows),
        description="Share of lesions found by size with intervals",
    )


def lower_edge(size: str) -> float:
    """Where a size bin begins: 'under 5 mm', '5 to 10 mm', '40 mm and over'."""
    first = size.split()[0]
    return 0.0 if first == "under" else float(first)


def _by_size(found: Json, systems: Sequence[Json]) -> Table:
    table = TableBuilder(
        "lesions-size",
        "Lesions found and marks made, by size.",
        (
            Column("System"),
            Column("Size"),
            Column("Lesions", NUMBER),
            Column("Found", NUMBER),
            Column("Marks", NUMBER),
            Column("Precision", NUMBER),
        ),
    )
    for s in systems:
        for part in s["by_size"]:
            recall, precision = (_or_few(estimate(part, n)) for n in ("recall", "precision"))
            table.add(
                _strong(s),
                str(part["size"]),
                count(part["lesions"]),
                recall if part["lesions"] else EN_DASH,
                count(part["marks"]),
                precision if part["marks"] else EN_DASH,
            )
    words = (
        "Lesions by their own diameter, marks by theirs; an edge belongs to the larger size. Sizes "
        f"of fewer than {count(found['least_patients'])} patients have no figures."
    )
    unknown = max(int(s["size_unknown"]) for s in systems)
    if unknown:
        words += f" {plural(unknown, 'lesion')} on images without a scale left out."
    methods = methods_of(table.estimates)
    return table.build(f"{words} {methods}." if methods else words)


def _or_few(e: Estimate) -> Estimate:
    """The same reason for all sizes of too few patients, so that a table has one note for them."""
    return e if e.defined else replace(e, note="fewer patients than needed for a figure")


# ---- free response -------------------------------------------------------------------------


def _froc(source: ReportSource, systems: Sequence[Json]) -> list[Block]:
    drawn = [s for s in systems if s["froc"]]
    without = [s for s in systems if not s["froc"]]
    blocks: list[Block] = []
    if without:
        why = sorted({_why_none(s) for s in without})
        blocks.append(
            Paragraph(
                f"No curve for {listed([str(s['label']) for s in without])} ({'; '.join(why)})."
            )
        )
    if not drawn:
        return blocks
    curves: list[FrocLine] = []
    rows: list[tuple[object, ...]] = []
    for s in drawn:
        label, points = str(s["label"]), s["froc"]["points"]
        vain = tuple(float(p["false_per_picture"]) for p in points)
        curves.append(
            FrocLine(
                label, vain, tuple(float(p["sensitivity"]) for p in points), source.place(label)
            )
        )
        rows += [(label, p["threshold"], p["sensitivity"], p["false_per_picture"]) for p in points]
    scores = listed(sorted({str(s.get("score") or "score of the picture") for s in drawn}))
    blocks.append(
        Figure(
            "froc",
            "Free-response curves.",
            free_response(curves),
            "Share of lesions found against false marks per image, as the threshold falls. Score "
            f"of a mark: {scores}. A curve ends, at its marker, where the mask's own threshold of "
            "0.5 lets no weaker marks through.",
            csv=csv_text(("system", "threshold", "sensitivity", "false_per_picture"), rows),
            description="Free-response curves of the systems",
        )
    )
    blocks.append(_at_rates(drawn))
    return blocks


def _why_none(system: Json) -> str:
    if not system["lesions"]:
        return "no lesion in the tested images"
    if not system["marks"]:
        return "nothing was marked"
    return str(system.get("score") or "no score per candidate: one operating point")


def _at_rates(systems: Sequence[Json]) -> Table:
    """Up to the first rate that the whole curve stays below: from there on nothing changes."""
    table = TableBuilder(
        "froc",
        "Lesions found at given rates of false marks.",
        (
            Column("System"),
            Column("False marks per image, at most", NUMBER),
            Column("Threshold", NUMBER),
            Column("Found", NUMBER),
        ),
    )
    for s in systems:
        most = max(float(p["false_per_picture"]) for p in s["froc"]["points"])
        for at in s["froc"]["at"]:
            table.add(
                _strong(s),
                number(float(at["rate"]), 3),
                number(finite(at["threshold"])),
                estimate(at, "sensitivity"),
            )
            if float(at["rate"]) >= most:
                break
    return table.build(
        "Threshold: lowest score of a mark that counts. It was read off the tested images "
        "themselves, so these figures describe the curve and are optimistic as an operating point. "
        "Rates above the last one of a system change nothing. "
        f"{methods_of(table.estimates)}."
    )


# ---- readers as ceiling --------------------------------------------------------------------


def _ceiling(source: ReportSource, readers: Json | None) -> list[Block]:
    """Dice of the systems beside that of readers with one another."""
    if readers is None:
        return []
    e = Estimate.of(readers["mean"])
    names = [str(n) for n in readers["readers"]]
    items = [Interval(f"{plural(len(names), 'reader')} with one another", e)]
    items += [
        Interval(
            str(s["label"]),
            estimate(s["segmentation"]["pooled"], "dice"),
            place=source.place(s["label"]),
        )
        for s in source.segmenting
    ]
    what = str(readers["what"])
    lowest = finite(readers.get("lowest"))
    pairs = plural(int(readers["pairs"]), "pair")
    least = f", the lowest {number(lowest)}" if lowest is not None else ""
    caption = (
        f"Readers: Dice of every two readers' {what} of one lesion ({pairs}{least}). Systems: Dice "
        "with the reference per image. A system cannot be asked to agree with the reference better "
        "than readers agree with one another."
    )
    if what == "boxes":
        caption += (
            " Boxes agree otherwise than outlines do, so this is not the ceiling of outlines."
        )
    if readers.get("empty"):
        caption += f" {plural(int(readers['empty']), 'pair')} of empty outlines left out."
    rows = [(i.name, *estimate_row(i.estimate)) for i in items]
    table = TableBuilder(
        "ceiling",
        "Dice of the systems beside that between readers.",
        (Column("Who"), Column("Dice", NUMBER), Column("Patients", NUMBER)),
    )
    for item in items:
        table.add(Cell(item.name, strong=True), item.estimate, count(item.estimate.n))
    return [
        Heading("Readers as ceiling"),
        Figure(
            "ceiling",
            "Dice of the systems beside that between readers.",
            intervals(items, "Dice"),
            f"{caption} {methods_of([i.estimate for i in items])}.",
            csv=csv_text(("who", *ESTIMATE_HEAD), rows),
            description="Dice of systems and between readers with intervals",
        ),
        table.build(),
    ]


# ---- misses --------------------------------------------------------------------------------


def _misses(systems: Sequence[Json]) -> list[Block]:
    blocks: list[Block] = []
    for s in systems:
        missed = s.get("missed")
        if missed:
            table = _missed(s, missed)
            words = (
                f"Missed by {s['label']}: {plural(len(missed), 'lesion')} of {count(s['lesions'])}"
            )
            blocks.append(Folded(f"{words} ({share(len(missed), int(s['lesions']))})", (table,)))
    return [Heading("Missed lesions"), *blocks] if blocks else []


def _missed(system: Json, missed: Sequence[Json]) -> Table:
    label = str(system["label"])
    table = TableBuilder(
        f"missed-{label}",
        f"Lesions that {label} missed.",
        (
            Column("Patient", code=True),
            Column("Study", code=True),
            Column("Clip", NUMBER),
            Column("Frame", NUMBER),
            Column("Lesion", NUMBER),
            Column("Size (mm)", NUMBER),
        ),
    )
    for m in missed[:_MOST_NAMED]:
        table.add(
            str(m["patient"]),
            str(m["study"]),
            *(count(m[n]) for n in ("clip", "frame", "lesion")),
            number(finite(m["size_mm"]), 1) if m["size_mm"] is not None else NOT_AVAILABLE,
        )
    words = (
        "The largest first; pseudonyms, and numbers from 0. Size: diameter of the circle of equal "
        "area."
    )
    if len(missed) > _MOST_NAMED:
        words += f" The first {count(_MOST_NAMED)} of {count(len(missed))}; lesions.json names all."
    return table.build(words)
