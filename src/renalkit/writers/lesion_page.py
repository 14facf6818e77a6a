"""How does the table of masses of CT scans read? As CSV, as a page, and as PDF.

All three show the same rows (`usecases.lesion_table`). In the CSV every number has its unit in the
name of its column, and columns depend only on what the rows hold.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_pdf import FigureCanvasPdf, PdfPages
from matplotlib.figure import Figure as Canvas

from renalkit import RESEARCH_ONLY, __version__
from renalkit.writers.csv_table import csv_text
from renalkit.writers.document import (
    Block,
    Cell,
    Column,
    Document,
    Figure,
    Paragraph,
    Section,
    TableBuilder,
)
from renalkit.writers.figures import INK, STYLE
from renalkit.writers.overlays import PREDICTION, REFERENCE, Tile, gallery
from renalkit.writers.report import NOT_A_DEVICE, render_document
from renalkit.writers.source import Json
from renalkit.writers.wording import EN_DASH, NOT_AVAILABLE, number, plural, shown

Place = tuple[str, int]
"""Name of a scan and number of a lesion."""

OUTLINES = "Blue: kidney and masses. Orange, dashed: this mass."

_PER_ROW = 3
_PER_PAGE = 4
_A4_IN = (8.27, 11.69)
_NOTE_CHARS = 90


def lesions_csv(table: Json) -> str:
    """A line per lesion, numbers in full."""
    rows = [_flat(scan, lesion) for scan in table["scans"] for lesion in scan["lesions"]]
    columns = list(_flat(_NO_SCAN, _NO_LESION))
    for row in rows:
        # What only some rows have goes behind its neighbour of the row that has it.
        behind = 0
        for name in row:
            if name not in columns:
                columns.insert(behind, name)
            behind = columns.index(name) + 1
    return csv_text(columns, [[row.get(name) for name in columns] for row in rows])


_NO_SCAN: Json = {"scan": "", "notes": ()}
_NO_LESION: Json = {
    **dict.fromkeys(("lesion", "label", "side", "class", "polarity")),
    **dict.fromkeys(("volume_mm3", "equivalent_diameter_mm", "axial_diameter_mm")),
    **dict.fromkeys(("largest_diameter_mm", "long_axis_share", "exophytic_share")),
    **dict.fromkeys(("kidney_gap_mm", "renal", "padua", "c_index")),
    **{"centre_lps_mm": (None, None, None), "mean_hu": {}, "enhancement_hu": {}},
    **{"uncertain": (), "notes": ()},
}


def _flat(scan: Json, lesion: Json) -> dict[str, Any]:
    """One row of the CSV."""
    row: dict[str, Any] = {"scan": scan["scan"]}
    for name in ("lesion", "label", "side", "volume_mm3", "equivalent_diameter_mm"):
        row[name] = lesion[name]
    row |= {name: lesion[name] for name in ("axial_diameter_mm", "largest_diameter_mm")}
    row |= {
        f"centre_{axis}_lps_mm": value
        for axis, value in zip("xyz", lesion["centre_lps_mm"], strict=True)
    }
    row |= {f"mean_{_word(phase)}_hu": hu for phase, hu in lesion["mean_hu"].items()}
    row |= {f"enhancement_{_word(two)}_hu": hu for two, hu in lesion["enhancement_hu"].items()}
    row["class"] = lesion["class"]
    row |= {f"probability_{name}": p for name, p in (lesion.get("probability") or {}).items()}
    row |= {n: lesion[n] for n in ("confidence_probability", "agreement_share") if n in lesion}
    row |= {n: lesion[n] for n in ("polarity", "long_axis_share", "exophytic_share")}
    row["kidney_gap_mm"] = lesion["kidney_gap_mm"]
    for system in ("renal", "padua"):
        row |= _flat_score(system, lesion[system])
    c_index = lesion["c_index"] or {}
    row |= {f"c_index_{n}": c_index.get(n) for n in ("ratio", "distance_mm", "radius_mm")}
    row["uncertain"] = "; ".join(lesion["uncertain"])
    row["notes"] = "; ".join((*scan["notes"], *lesion["notes"]))
    return row


def _flat_score(system: str, score: Json | None) -> dict[str, Any]:
    found = score or {}
    names = ("text", "least_points", "most_points", "group")
    row = {f"{system}_{name}": found.get(name) for name in names}
    for part in found.get("parts", ()):
        name = f"{system}_{_word(part['name']).lower()}"
        row |= {f"{name}_points": part["points"], f"{name}_{part['unit']}": part["value"]}
    return row


def _word(text: str) -> str:
    return text.replace(" ", "_").replace("-", "_")


# ---- the page ------------------------------------------------------------------------------


def lesions_html(table: Json, pictures: Mapping[Place, Tile], title: str) -> str:
    """The table and the pictures as a page that needs nothing else."""
    return render_document(_document(table, pictures, title)).html


def _document(table: Json, pictures: Mapping[Place, Tile], title: str) -> Document:
    scans = table["scans"]
    lesions = [lesion for scan in scans for lesion in scan["lesions"]]
    sections = [Section("lesions", "Lesions", tuple(_tables(scans)))]
    figures = tuple(figure for scan in scans for figure in _figures(scan, pictures))
    if figures:
        sections.append(Section("pictures", "Slices through their centres", figures))
    if table["left_out"]:
        left = TableBuilder(
            "left-out", "Files that were not used.", (Column("File", code=True), Column("Why"))
        )
        for one in table["left_out"]:
            left.add(str(one["file"]), str(one["words"]))
        sections.append(Section("left", "Left out", (left.build(),)))
    return Document(
        title=title,
        subtitle="Masses of CT scans",
        facts=(
            ("Scans", str(len(scans))),
            ("Lesions", str(len(lesions))),
            ("renalkit", __version__),
        ),
        sections=tuple(sections),
        footer=NOT_A_DEVICE,
    )


def _tables(scans: Sequence[Json]) -> Iterator[Block]:
    lesions = [(scan, lesion) for scan in scans for lesion in scan["lesions"]]
    if not lesions:
        yield Paragraph("No mass is labelled.")
    else:
        names = list(dict.fromkeys(name for _, lesion in lesions for name, _ in _facts(lesion)))
        columns = [Column("Scan", code=True), Column("Lesion")]
        columns += [Column(name) for name in names]
        table = TableBuilder("lesions", "What was measured.", columns)
        for scan, lesion in lesions:
            known = dict(_facts(lesion))
            cells = [Cell(known.get(name, NOT_AVAILABLE)) for name in names]
            table.add(
                Cell(str(scan["scan"])), Cell(str(lesion["lesion"]), note=_doubt(lesion)), *cells
            )
        yield table.build(
            "Diameters: of the ball of equal volume, largest in an axial slice, largest in space. "
            "Exophytic share and scores are estimated from the labels."
        )
    for scan in scans:
        for note in scan["notes"]:
            yield Paragraph(str(note), "note", opening=f"{scan['scan']}.")


def _doubt(lesion: Json) -> str:
    return "; ".join((*lesion["uncertain"], *lesion["notes"]))


def _figures(scan: Json, pictures: Mapping[Place, Tile]) -> Iterator[Figure]:
    numbers = [v["lesion"] for v in scan["lesions"] if (scan["scan"], v["lesion"]) in pictures]
    for first in range(0, len(numbers), _PER_ROW):
        part = numbers[first : first + _PER_ROW]
        tiles = [pictures[scan["scan"], n] for n in part]
        what = f"{scan['scan']}, lesion {', '.join(map(str, part))}"
        name = f"{scan['scan']}-{part[0]}"
        drawing = gallery(tiles, f"Axial slices with outlines: {what}")
        yield Figure(name, f"{what}.", drawing, OUTLINES, pictures=True)


def _facts(lesion: Json) -> Iterator[tuple[str, str]]:
    """What a reader wants to know of a lesion: name and words."""
    yield "Label", f"{lesion['side']} {lesion['label']}"
    volume = lesion["volume_mm3"]
    yield "Volume (mL)", number(None if volume is None else volume / 1000, 1)
    sizes = ("equivalent_diameter_mm", "axial_diameter_mm", "largest_diameter_mm")
    yield "Diameters (mm)", " / ".join(number(lesion[name], 1) for name in sizes)
    for phase, hu in lesion["mean_hu"].items():
        yield f"Mean HU, {phase.replace('-', ' ')}", number(hu, 0)
    for two, hu in lesion["enhancement_hu"].items():
        yield f"HU, {two}", number(hu, 0, signed=True)
    if lesion["class"] is not None:
        probability = (lesion.get("probability") or {}).get(lesion["class"])
        sure = "" if probability is None else f" ({number(probability, 2)})"
        yield "Class", f"{lesion['class']}{sure}"
    if "agreement_share" in lesion:
        yield "Agreement", number(lesion["agreement_share"], 2)
        yield "Probability of mass", number(lesion["confidence_probability"], 2)
    yield "Pole", lesion["polarity"] or NOT_AVAILABLE
    yield "Exophytic share", number(lesion["exophytic_share"], 2)
    for name, system in (("R.E.N.A.L.", "renal"), ("PADUA", "padua")):
        score = lesion[system]
        group = "" if score is None or score["group"] is None else f" ({score['group']})"
        text = NOT_AVAILABLE if score is None else str(score["text"]).replace("-", EN_DASH)
        yield name, f"{text}{group}"
    yield "C-index", number((lesion["c_index"] or {}).get("ratio"), 2)


# ---- PDF -----------------------------------------------------------------------------------


def lesions_pdf(table: Json, pictures: Mapping[Place, Tile], title: str) -> bytes:
    """The same on A4 pages; equal content gives equal bytes."""
    rows = [(scan, lesion) for scan in table["scans"] for lesion in scan["lesions"]]
    pages = [rows[n : n + _PER_PAGE] for n in range(0, max(1, len(rows)), _PER_PAGE)]
    out = io.BytesIO()
    facts = {"Title": shown(title), "Creator": f"renalkit {__version__}", "CreationDate": None}
    with mpl.rc_context(STYLE), PdfPages(out, metadata={**facts, "Producer": None}) as file:
        for at, part in enumerate(pages, start=1):
            canvas = Canvas(figsize=_A4_IN)
            FigureCanvasPdf(canvas)
            _head(canvas, table, title, f"page {at} of {len(pages)}")
            for place, (scan, lesion) in enumerate(part):
                picture = pictures.get((scan["scan"], lesion["lesion"]))
                _entry(canvas, scan, lesion, picture, 0.88 - 0.205 * place)
            file.savefig(canvas)
    return out.getvalue()


def _head(canvas: Canvas, table: Json, title: str, page: str) -> None:
    count = sum(len(scan["lesions"]) for scan in table["scans"])
    words = f"{plural(count, 'mass', 'masses')}; renalkit {__version__}; {page}"
    canvas.text(0.08, 0.955, shown(title), fontsize=13, weight="bold", color=INK)
    canvas.text(0.08, 0.935, words, color=INK)
    canvas.text(0.08, 0.915, RESEARCH_ONLY, weight="bold", color=INK)
    canvas.text(0.08, 0.03, OUTLINES, fontsize=7.5, color=INK)
    if not count:
        canvas.text(0.08, 0.86, "No mass was found.", color=INK)


def _entry(canvas: Canvas, scan: Json, lesion: Json, tile: Tile | None, top: float) -> None:
    left = 0.08
    if tile is not None:
        height = 0.17
        ax = canvas.add_axes((left, top - height - 0.012, height * _A4_IN[1] / _A4_IN[0], height))
        ax.imshow(tile.image, cmap="gray", vmin=0, vmax=255, interpolation="bilinear")
        for mask, tone, line in (
            (tile.reference, REFERENCE, "solid"),
            (tile.prediction, PREDICTION, "dashed"),
        ):
            if mask is not None and 0 < mask.area_px < mask.rows * mask.cols:
                ax.contour(mask.decode(), (0.5,), colors=tone, linewidths=0.9, linestyles=line)
        ax.set_axis_off()
        words = shown(tile.words).replace("\n", ", ")
        canvas.text(left, top - height - 0.021, words, size=6, color=INK)
        left += 0.28
    name = f"{shown(str(scan['scan']))}, lesion {lesion['lesion']}"
    canvas.text(left, top - 0.012, name, weight="bold", color=INK)
    lines = [f"{key}: {value}" for key, value in _facts(lesion)]
    half = (len(lines) + 1) // 2
    for n, part in enumerate((lines[:half], lines[half:])):
        at = left + 0.29 * n
        canvas.text(
            at,
            top - 0.022,
            "\n".join(map(shown, part)),
            fontsize=7,
            va="top",
            linespacing=1.35,
            color=INK,
        )
    if doubt := "; ".join((*scan["notes"], *lesion["uncertain"], *lesion["notes"])):
        told = textwrap.wrap(f"Note: {shown(doubt)}.", _NOTE_CHARS, max_lines=3)
        canvas.text(left, top - 0.155, "\n".join(told), fontsize=6.5, va="top", color=INK)
