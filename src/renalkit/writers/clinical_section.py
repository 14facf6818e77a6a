"""What does the clinical model rest on? Its odds ratios, and how far they can be trusted."""

from __future__ import annotations

from collections.abc import Sequence

from renalkit.writers.document import (
    Block,
    Column,
    Paragraph,
    Section,
    Table,
    TableBuilder,
)
from renalkit.writers.patients_sections import measured_in, variable_words
from renalkit.writers.source import Json, ReportSource
from renalkit.writers.wording import Estimate, count, finite, listed, methods_of, number, plural

NUMBER = "number"
_FEW_EVENTS = 10


def clinical(source: ReportSource) -> Section | None:
    """The model of facts that stands beside the networks; None where a run has none."""
    if source.clinical_model is None:
        return None
    found = source.coefficients
    if found is None:
        words = "Its odds ratios are not stored with this run; 'renalkit evaluate' computes them."
        return Section("clinical", "Clinical model", (Paragraph(words),))
    facts = listed([_inside(variable_words(str(c))) for c in found["columns"]])
    chosen = "chosen by cross-validation" if found["chosen"] else "not chosen for these patients"
    if found["chosen"] and found.get("strongest"):
        chosen += ", the strongest that was tried: these facts hardly help"
    blocks: list[Block] = [
        Paragraph(
            f"The row '{source.clinical_model['label']}' in the tables of this report is no "
            f"network: it is a logistic regression on {facts}, fitted anew in every fold to the "
            "training patients of that fold. It says how far these facts get without any image."
        ),
        Paragraph(
            "The odds ratios are of a model fitted once more, to all "
            f"{plural(found['patients'], 'patient')} for development: a description, not what was "
            f"tested. Its ridge penalty is {_penalty(float(found['ridge']))} ({chosen}) on "
            "standardised facts, so odds ratios and their intervals are drawn towards 1.",
            "note",
        ),
    ]
    blocks += [_odds_ratios(found, one) for one in found["classes"]]
    cautions = _cautions(found["classes"])
    if cautions:
        blocks.append(Paragraph(" ".join(cautions), "warning"))
    return Section("clinical", "Clinical model", tuple(blocks))


def _inside(words: str) -> str:
    """A name inside a sentence: in small letters, unless it is an abbreviation."""
    return words if words[1:2].isupper() else words[:1].lower() + words[1:]


def _odds_ratios(found: Json, one: Json) -> Table:
    name = "clinical" if len(found["classes"]) == 1 else f"clinical-{one['class']}"
    table = TableBuilder(
        "".join(c if c.isalnum() or c in "-_" else "-" for c in name),
        f"Odds ratios of {one['class']} in the clinical model.",
        (
            Column("Fact"),
            Column("Compared"),
            Column("Odds ratio", NUMBER),
        ),
    )
    for fact in one["facts"]:
        e = Estimate.of(fact["odds_ratio"])
        cell = table.length(e, 3)
        table.add(variable_words(str(fact["fact"])), _compared(fact), cell)
    caption = (
        f"{plural(one['events'], 'patient')} of the smaller class for "
        f"{plural(len(one['facts']), 'coefficient')}: "
        f"{number(finite(one['events_per_variable']), 1)} events per variable. "
    )
    caption += (
        "A linear rule on these facts separates the classes completely."
        if one["separated"]
        else "The classes are not separated by these facts."
    )
    methods = methods_of(table.estimates)
    return table.build(f"{caption} {methods}." if methods else caption)


def _penalty(ridge: float) -> str:
    return count(ridge) if ridge >= 100 else f"{ridge:.3g}"


def _compared(fact: Json) -> str:
    if fact["unknown"]:
        return "unknown against known"
    if fact["level"] is not None:
        return f"{fact['level']} against {fact['against']}"
    unit = measured_in(str(fact["fact"]))[1] or "unit"
    return f"per {unit.removesuffix('s')}"


def _cautions(classes: Sequence[Json]) -> list[str]:
    words: list[str] = []
    few = [
        f"{number(per, 1)} for {one['class']}"
        for one in classes
        if (per := finite(one["events_per_variable"])) is not None and per < _FEW_EVENTS
    ]
    if few:
        words.append(
            f"Fewer than {count(_FEW_EVENTS)} events per variable ({listed(few)}): the odds ratios "
            "are unstable. Name fewer facts in [clinical] columns."
        )
    apart = [str(one["class"]) for one in classes if one["separated"]]
    if apart:
        words.append(
            f"The facts separate {listed(apart)} from the rest, so without the penalty there would "
            "be no odds ratios; their size is that of the penalty."
        )
    return words
