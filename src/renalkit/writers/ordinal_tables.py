"""Ordered classes in the report: how far off calls and scores are, and each cut of the order."""

from __future__ import annotations

from collections.abc import Sequence

from renalkit.writers.document import Cell, Column, Table, TableBuilder
from renalkit.writers.source import Json, estimate
from renalkit.writers.wording import count, methods_of

NUMBER = "number"
_FIGURES = ("kappa_quadratic", "grade_error", "rps", "cut_auc")


def ordinal_tables(systems: Sequence[Json], unit: str) -> list[Table]:
    """Agreement and error in grades, then the AUC of each cut; none where nothing is ordered.

    unit: 'patient' or 'frame', as the figures of the systems have it.
    """
    found = [(s, s["classification"][unit].get("ordinal")) for s in systems]
    own = [(s, raw) for s, raw in found if raw]
    if not own:
        return []
    title = "per patient" if unit == "patient" else "per image"
    return [_grades(own, unit, title), _cuts(own, unit, title)]


def _grades(own: Sequence[tuple[Json, Json]], unit: str, title: str) -> Table:
    table = TableBuilder(
        f"ordinal-{unit}",
        f"Ordered classes {title}.",
        (
            Column("System"),
            Column("Weighted kappa", NUMBER),
            Column("Error in grades", NUMBER),
            Column("RPS", NUMBER),
            Column("AUC over cuts", NUMBER),
        ),
        stacked=True,
    )
    for s, raw in own:
        table.add(Cell(str(s["label"]), strong=True), *(estimate(raw, n) for n in _FIGURES))
    return table.build(
        "Weighted kappa: quadratic weights, 1 is perfect, 0 chance. Error in grades: mean distance "
        "between call and truth. RPS: ranked probability score, 0 is perfect, 1 certainty at the "
        "far end. AUC over cuts: mean of 'this class or above' against those below. "
        f"{methods_of(table.estimates)}."
    )


def _cuts(own: Sequence[tuple[Json, Json]], unit: str, title: str) -> Table:
    table = TableBuilder(
        f"cuts-{unit}",
        f"Each cut of the order {title}.",
        (Column("System"), Column("Called"), Column("Above", NUMBER), Column("AUC", NUMBER)),
    )
    for s, raw in own:
        for cut in raw["cuts"]:
            name = Cell(str(s["label"]), strong=True)
            table.add(name, str(cut["cut"]), count(cut["above"]), estimate(cut, "auc"))
    noun = "patients" if unit == "patient" else "images"
    return table.build(f"Above: {noun} of this class or above. {methods_of(table.estimates)}.")
