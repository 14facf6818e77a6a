"""Do scores mean what they say, and would acting on them help? Calibration and decision curves."""

from __future__ import annotations

from collections.abc import Sequence

from renalkit.writers.csv_table import csv_text
from renalkit.writers.document import (
    Block,
    Cell,
    Column,
    Figure,
    Heading,
    Paragraph,
    Section,
    Table,
    TableBuilder,
)
from renalkit.writers.figures import Benefit, Reliability, decision, reliability
from renalkit.writers.source import Json, ReportSource, estimate
from renalkit.writers.wording import (
    EN_DASH,
    NO_BREAK,
    count,
    listed,
    methods_of,
    number,
    percent_level,
    plural,
    share,
)

NUMBER = "number"
_TITLE = "Calibration and usefulness"
_PRINTED = (0.1, 0.2, 0.3, 0.5)
_STATED = 0.2
"""The threshold of the sentence: one missed tumour as bad as four needless surgeries."""
_PARTS = ("reliability", "resolution", "uncertainty", "within_bins", "brier", "scaled")


def usefulness(source: ReportSource) -> Section:
    """Calibration of every classifying system with reliability and decision curves."""
    found = source.usefulness
    if found is None:
        words = "Calibration is not stored with this run; 'renalkit evaluate' computes it."
        return Section("usefulness", _TITLE, (Paragraph(words),))
    measured = [s for s in found["systems"] if "calibration" in s]
    without = [f"{s['label']}: {s['note']}" for s in found["systems"] if "calibration" not in s]
    blocks: list[Block] = []
    if not found["systems"]:
        blocks.append(Paragraph("No system of this run gives classes, so there are no scores."))
    if without:
        blocks.append(Paragraph(f"Not computed. {'; '.join(without)}.", "note"))
    order = [str(s["label"]) for s in source.systems]
    if measured:
        blocks.append(
            Paragraph(
                f"{_made(measured)} They are the probabilities of {found['probability_of']}, "
                "of tested patients pooled over the folds; each fold's scores come from its own "
                "model.",
                "note",
            )
        )
        blocks += _calibration(_states(measured), found, order)
        blocks += _decision(measured, order, str(found["probability_of"]))
    return Section("usefulness", _TITLE, tuple(blocks))


def _made(systems: Sequence[Json]) -> str:
    """Whether these are the scores of the systems themselves."""
    if any("before" in s for s in systems):
        return (
            "Scores were changed inside the folds, by what their training and validation parts say "
            "alone (table of patients' scores); before and after stand side by side."
        )
    return "Scores were taken as the systems gave them and not recalibrated."


def _states(systems: Sequence[Json]) -> list[Json]:
    """Each system before and after its scores were changed, where they were; `of`: its name."""
    found: list[Json] = []
    for s in systems:
        if "before" in s:
            before: Json = {"label": f"{s['label']}, before", "calibration": s["before"]}
            found.append({**s, "of": s["label"], **before})
            found.append({**s, "of": s["label"], "label": f"{s['label']}, after"})
        else:
            found.append(s)
    return found


def _place(label: str, order: Sequence[str]) -> int:
    return order.index(label) if label in order else 0


def _strong(system: Json) -> Cell:
    return Cell(str(system["label"]), strong=True)


# ---- calibration ---------------------------------------------------------------------------


def _calibration(systems: Sequence[Json], found: Json, order: Sequence[str]) -> list[Block]:
    blocks: list[Block] = [Heading("Calibration"), _lines(systems, str(found["bins"]))]
    drawn = [s for s in systems if "bins" in s["calibration"]["reliability"]]
    if drawn:
        blocks.append(_curves(drawn, str(found["bins"]), order))
    blocks.append(_parts(systems, str(found["bins"])))
    return blocks


def _lines(systems: Sequence[Json], bins: str) -> Table:
    table = TableBuilder(
        "calibration",
        "Calibration per patient.",
        (
            Column("System"),
            Column("Patients", NUMBER),
            Column("Slope", NUMBER),
            Column("Intercept", NUMBER),
            Column("In the large", NUMBER),
            Column("ECE", NUMBER),
            Column("Brier", NUMBER),
        ),
        stacked=True,
    )
    for s in systems:
        names = ("slope", "intercept", "in_the_large", "ece", "brier")
        figures = [estimate(s["calibration"], n) for n in names]
        table.add(_strong(s), count(s["patients"]), *figures)
    return table.build(
        "Slope 1: right; below 1: scores are too extreme. In the large 0: right on average; above "
        f"0: scores are too low. ECE: expected calibration error over {bins}; above 0 by chance "
        "alone, so its interval lies too high. Brier: mean squared error, 0 is perfect. "
        f"{methods_of(table.estimates)}."
    )


def _parts(systems: Sequence[Json], bins: str) -> Table:
    table = TableBuilder(
        "brier",
        "Brier score in parts.",
        (
            Column("System"),
            Column("Reliability", NUMBER),
            Column("Resolution", NUMBER),
            Column("Uncertainty", NUMBER),
            Column("Within bins", NUMBER),
            Column("Brier", NUMBER),
            Column("Scaled", NUMBER),
        ),
    )
    for s in systems:
        table.add(_strong(s), *(number(s["calibration"]["brier_parts"][n]) for n in _PARTS))
    return table.build(
        f"Brier = reliability {EN_DASH} resolution + uncertainty + within bins, over {bins}. "
        "Reliability: distance from the diagonal, 0 is best. Resolution: how far bins depart from "
        f"the overall share, large is best. Scaled: 1 {EN_DASH} Brier / uncertainty, 1 is perfect, "
        "0 no better than the overall share."
    )


def _curves(systems: Sequence[Json], bins: str, order: Sequence[str]) -> Figure:
    panels: list[Reliability] = []
    rows: list[list[object]] = []
    for s in systems:
        label, found = str(s["label"]), s["calibration"]["reliability"]["bins"]
        observed = tuple(estimate(b, "observed") for b in found)
        predicted = tuple(float(b["predicted"]) for b in found)
        place = _place(str(s.get("of", label)), order)
        panels.append(Reliability(label, predicted, observed, place))
        for b, e in zip(found, observed, strict=True):
            numbers = [b["low"], b["high"], int(b["n"]), b["predicted"], e.value, e.low, e.high]
            rows.append([label, *numbers])
    every = [e for p in panels for e in p.observed]
    return Figure(
        "reliability",
        "Reliability curves per patient.",
        reliability(panels),
        caption=f"A point per bin ({bins}); the diagonal is perfect calibration. "
        f"{methods_of(every)}.",
        csv=csv_text(
            ("system", "from", "to", "patients", "predicted", "observed", "low", "high"), rows
        ),
    )


# ---- decisions -----------------------------------------------------------------------------


def _decision(systems: Sequence[Json], order: Sequence[str], positive: str) -> list[Block]:
    drawn = [s for s in systems if "points" in s["decision"]]
    blocks: list[Block] = [Heading("Usefulness")]
    reasons = sorted({str(s["decision"]["note"]) for s in systems if s not in drawn})
    if reasons:
        who = listed([str(s["label"]) for s in systems if s not in drawn])
        blocks.append(Paragraph(f"No decision curve for {who} ({'; '.join(reasons)})."))
    if not drawn:
        return blocks
    return [*blocks, _benefits(drawn, order), *_avoided(drawn, positive), _printed(drawn)]


def _benefits(systems: Sequence[Json], order: Sequence[str]) -> Figure:
    curves = [_benefit(s, str(s["label"]), "net_benefit", order) for s in systems]
    # Acting on all is drawn once, of the system that was tested on most patients.
    widest = max(systems, key=lambda s: int(s["patients"]))
    everyone = _benefit(widest, "act on all", "treat_all", order)
    rows: list[list[object]] = []
    for s in systems:
        for point in s["decision"]["points"]:
            row: list[object] = [str(s["label"]), point["threshold"]]
            for name in ("net_benefit", "treat_all", "avoided_per_100"):
                e = estimate(point, name)
                row += [e.value, e.low, e.high]
            rows.append(row)
    head = ["system", "threshold"]
    for name in ("net benefit", "act on all", "avoided per 100"):
        head += [name, f"{name}, low", f"{name}, high"]
    known = [e for c in curves for e in c.net_benefit]
    methods = methods_of([max(known, key=lambda e: (e.high or 0.0) - (e.low or 0.0))])
    return Figure(
        "decision",
        "Decision curves per patient.",
        decision(curves, everyone),
        caption="Net benefit: true positives less false positives at the price the threshold "
        "states, per patient. A system helps at a threshold where its curve lies above both "
        f"acting on all and acting on none. {methods}.",
        csv=csv_text(head, rows),
    )


def _benefit(system: Json, name: str, which: str, order: Sequence[str]) -> Benefit:
    points = system["decision"]["points"]
    return Benefit(
        name,
        tuple(float(p["threshold"]) for p in points),
        tuple(estimate(p, which) for p in points),
        _place(str(system["label"]), order),
    )


def _avoided(systems: Sequence[Json], positive: str) -> list[Block]:
    """Net benefit as surgeries avoided at one stated threshold, and what that rests on."""
    said: list[str] = []
    for s in systems:
        point = next((p for p in s["decision"]["points"] if p["threshold"] == _STATED), None)
        e = estimate(point, "avoided_per_100")
        if not e.defined:
            continue
        interval = e.interval(1).strip("()")
        level = f"{percent_level(e.level)} CI {interval}; " if interval else ""
        if e.value == 0 == e.low == e.high:
            level = "every patient scores as much; "
        said.append(f"{s['label']} {e.head(1)} ({level}n = {plural(e.n, e.unit)})")
    if not said:
        return []
    first = systems[0]
    odds = (1 - _STATED) / _STATED
    share_of = share(int(first["positive"]), int(first["patients"]))
    text = (
        "Per 100 patients, at no loss of net benefit, by operating on those whose score reaches "
        f"{100 * _STATED:.0f}{NO_BREAK}% instead of on all: {'; '.join(said)}. This takes every "
        f"patient to be operated on otherwise; one missed case of {positive} to be as bad as "
        f"{number(odds, 0)} needless surgeries; scores to be calibrated probabilities; and "
        f"patients to be like these, of whom {share_of} are {positive}. Below 0 the system does "
        "harm."
    )
    return [Paragraph(text, opening="Surgeries avoided.")]


def _printed(systems: Sequence[Json]) -> Table:
    table = TableBuilder(
        "avoided",
        "Net benefit and surgeries avoided.",
        (
            Column("System"),
            Column("Threshold", NUMBER),
            Column("Net benefit", NUMBER),
            Column("Acting on all", NUMBER),
            Column("Avoided per 100", NUMBER),
        ),
    )
    for s in systems:
        for point in s["decision"]["points"]:
            if point["threshold"] not in _PRINTED:
                continue
            benefit, everyone = estimate(point, "net_benefit"), estimate(point, "treat_all")
            avoided = table.length(estimate(point, "avoided_per_100"), 1)
            table.add(_strong(s), number(point["threshold"], 2), benefit, everyone, avoided)
    return table.build(
        "Avoided: surgeries per 100 patients saved against operating on all at no loss of net "
        "benefit. figures/decision.csv has all thresholds."
    )
