"""How does a model card read? From its plain object to a document, for any medium."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from renalkit.writers.document import (
    Block,
    Cell,
    Column,
    Document,
    Folded,
    Paragraph,
    Section,
    Table,
    TableBuilder,
)
from renalkit.writers.source import Json, estimate, metric_name
from renalkit.writers.wording import (
    EN_DASH,
    Estimate,
    count,
    finite,
    listed,
    number,
    plain,
    plural,
)

NUMBER = "number"
_OUTLINES = ("dice", "iou", "hd95", "assd", "nsd")
_CLASSES = ("auc", "accuracy", "sensitivity", "specificity", "ppv", "npv", "f1")
_CALIBRATION_NAMES = {
    "slope": "Calibration slope",
    "intercept": "Calibration intercept",
    "in_the_large": "Calibration in the large",
    "ece": "Expected calibration error",
    "brier": "Brier score",
}
_GROUPED = ("auc", "accuracy", "dice")


def card_document(card: Json) -> Document:
    """The card as a document: use and limits first, then what they rest on."""
    model, provenance = card["model"], card["provenance"]
    scans = bool(card["performance"].get("lesions"))
    folds, performance = (_scan_folds, _scan_performance) if scans else (_folds, _performance)
    sections = (
        _use(card),
        Section("model", "The model", (*_paragraphs(model["words"]), *_model_parts(card))),
        Section("data", "Data", _paragraphs(card["data"]["words"])),
        Section("training", "Training", (*_paragraphs(card["training"]["words"]), folds(card))),
        Section("performance", "Performance", performance(card)),
        Section("subgroups", "Subgroups", _subgroups(card)),
        Section("provenance", "Provenance", (_provenance(card), _weights(card))),
    )
    return Document(
        title=f"Model card: {model['label']}",
        subtitle=str(model["title"] or model["system"]),
        facts=(
            ("Run", str(provenance["run"])),
            ("Task", str(model["task"])),
            ("Classes", listed([str(c) for c in model["classes"]])),
            ("renalkit", str(provenance["versions"].get("renalkit", "unknown"))),
        ),
        sections=sections,
        footer=str(card["notice"]),
    )


def _paragraphs(words: Sequence[str]) -> tuple[Block, ...]:
    return tuple(Paragraph(w) for w in words)


def _use(card: Json) -> Section:
    said = card["authors"]
    blocks: list[Block] = [Paragraph(str(card["notice"]), "warning")]
    for key, opening in (
        ("intended_use", "Intended use."),
        ("out_of_scope", "Not for."),
        ("limitations", "Limitations."),
        ("licence", "Licence of the weights."),
        ("contact", "Contact."),
    ):
        if said[key].strip():
            blocks.append(Paragraph(said[key].strip(), opening=opening))
    blocks += [Paragraph(w, opening="From the run.") for w in card["cautions"]]
    return Section("use", "Use and limits", tuple(blocks))


def _model_parts(card: Json) -> list[Block]:
    model = card["model"]
    blocks: list[Block] = []
    if model["summary"]:
        blocks.append(Paragraph(f"{model['summary']} Reference: {model['reference']}"))
    choices = model["open_choices"]
    if choices:
        table = TableBuilder(
            "choices",
            "Choices the paper leaves open.",
            (Column("Topic"), Column("Chosen here"), Column("Setting", code=True)),
        )
        for c in choices:
            table.add(Cell(str(c["topic"]), strong=True), str(c["chosen"]), c["param"] or EN_DASH)
        blocks.append(Folded(plural(len(choices), "choice") + " made here", (table.build(),)))
    if model["params"]:
        table = TableBuilder(
            "params", "Parameters.", (Column("Parameter", code=True), Column("Value", code=True))
        )
        params = _flat(model["params"])
        for name, value in params.items():
            table.add(name, str(value))
        blocks.append(Folded(plural(len(params), "parameter"), (table.build(),)))
    return blocks


def _flat(params: Json) -> dict[str, Any]:
    """Parameters of stages by their dotted names."""
    found: dict[str, Any] = {}
    for name, value in params.items():
        inner = _flat(value) if isinstance(value, Mapping) else None
        found |= (
            {str(name): value} if inner is None else {f"{name}.{k}": v for k, v in inner.items()}
        )
    return found


def _folds(card: Json) -> Table:
    table = TableBuilder(
        "training",
        "Training of each fold.",
        (
            Column("Fold", NUMBER),
            Column("Epochs", NUMBER),
            Column("Kept", NUMBER),
            Column("Patients (train / validation / test)", NUMBER),
            Column("Images", NUMBER),
        ),
    )
    for f in card["training"]["folds"]:
        table.add(
            count(f["fold"]),
            count(f.get("epochs")),
            count(f.get("best_epoch")),
            _parts(f.get("patients")),
            _parts(f.get("images")),
        )
    return table.build("Kept: the epoch whose weights were tested.")


def _parts(raw: Json | None) -> str:
    return " / ".join(count((raw or {}).get(p)) for p in ("train", "validation", "test"))


def _performance(card: Json) -> tuple[Block, ...]:
    found = card["performance"]
    table = TableBuilder(
        "performance",
        "Figures on tested patients.",
        (
            Column("Measure"),
            Column("Figure", NUMBER),
            Column("n", NUMBER),
            Column("Unit"),
            Column("Interval by"),
        ),
    )
    segmentation, classification = found["segmentation"], found["classification"]
    if segmentation:
        unit = str(segmentation["length_unit"])
        for name in _OUTLINES:
            e = Estimate.of(segmentation["pooled"].get(name))
            length = name in ("hd95", "assd")
            words = f"{metric_name(name)}, mean over images" + (f" ({unit})" if length else "")
            _row(table, words, e, length=length)
    if classification:
        for name in _CLASSES:
            if classification["patient"].get(name) is not None:
                e = Estimate.of(classification["patient"][name])
                _row(table, f"{metric_name(name)} per patient", e)
    if found["calibration"]:
        for name, words in _CALIBRATION_NAMES.items():
            _row(table, words, Estimate.of(found["calibration"].get(name)))
    blocks: list[Block] = [*_paragraphs(found["words"])]
    levels = {e.level for e in table.estimates if e.low is not None}
    level = f"Intervals at {listed([f'{100 * v:g} %' for v in sorted(levels)])}." if levels else ""
    blocks.append(table.build(f"Pooled over the tested parts of the folds. {level}".strip()))
    thresholds = (classification or {}).get("thresholds") or []
    if thresholds:
        blocks.append(_thresholds(thresholds))
    return tuple(blocks)


def _scan_folds(card: Json) -> Table:
    table = TableBuilder(
        "training",
        "Training of each fold.",
        (
            Column("Fold", NUMBER),
            Column("Training (h)", NUMBER),
            Column("Seconds per tested scan", NUMBER),
        ),
    )
    for f in card["training"]["folds"]:
        hours = finite(f.get("train_seconds"))
        table.add(
            count(f["fold"]),
            number(None if hours is None else hours / 3600, 1),
            number(finite(f.get("seconds_per_scan")), 1),
        )
    return table.build("All stages together, as far as recorded.")


def _scan_performance(card: Json) -> tuple[Block, ...]:
    found = card["performance"]
    table = TableBuilder(
        "performance",
        "Figures on tested patients.",
        (
            Column("Measure"),
            Column("Figure", NUMBER),
            Column("n", NUMBER),
            Column("Unit"),
            Column("Interval by"),
        ),
    )
    for one in found["segmentation"]["classes"]:
        _row(table, f"Dice, {one['name']}", Estimate.of(one["dice"]))
        _row(table, f"Surface Dice, {one['name']}", Estimate.of(one["surface_dice"]))
    for name, one in found["lesions"]["criteria"].items():
        large = one["large"]
        sized = f"from {number(large['from_mm'], 0)} mm on"
        for key, words, part in (
            ("recall", "Lesions found", one),
            ("recall", f"Lesions found, {sized}", large),
            ("precision", "Marks that are lesions", one),
            ("false_per_picture", "False marks per scan", one),
            ("accuracy_found", f"Named rightly, of found {sized}", large),
            ("accuracy_all", f"Named rightly, of all {sized}", large),
        ):
            _row(table, f"{words} ({name})", estimate(part, key))
    blocks: list[Block] = [*_paragraphs(found["words"])]
    size = found["lesions"]["size"]
    blocks.append(
        table.build(f"Pooled over the tested parts of the folds; size: {size} of the reference.")
    )
    return tuple(blocks)


def _row(table: TableBuilder, words: str, e: Estimate, *, length: bool = False) -> None:
    cell = table.length(e) if length else e
    table.add(Cell(words, strong=True), cell, count(e.n), e.unit, e.method)


def _thresholds(found: Sequence[Json]) -> Table:
    table = TableBuilder(
        "thresholds",
        "Thresholds.",
        (Column("Fold", NUMBER), Column("Threshold", NUMBER), Column("Rule"), Column("n", NUMBER)),
    )
    for t in found:
        table.add(count(t["fold"]), number(t["value"]), str(t["rule"]), count(t["n"]))
    return table.build("Chosen on the validation patients (n) of each fold, before testing.")


def _subgroups(card: Json) -> tuple[Block, ...]:
    if not card["subgroups"]:
        return (Paragraph("No figures of subgroups are stored with this run."),)
    table = TableBuilder(
        "subgroups",
        "Figures by subgroup.",
        (
            Column("Variable"),
            Column("Group"),
            Column("Patients", NUMBER),
            *(Column(metric_name(n), NUMBER) for n in _GROUPED),
        ),
    )
    for variable in card["subgroups"]:
        for group in variable["levels"]:
            table.add(
                Cell(plain(str(variable["name"])), strong=True),
                str(group["level"]),
                count(group["patients"]),
                *(Estimate.of(group.get(n), "this system gives none") for n in _GROUPED),
            )
    caption = "Groups of too few patients have no figures. Nothing was planned or tuned for groups."
    return (table.build(caption),)


def _provenance(card: Json) -> Table:
    found = card["provenance"]
    table = TableBuilder(
        "provenance", "What the card rests on.", (Column("What"), Column("Value", code=True))
    )
    for key in ("run", "finished", "settings_digest", "cohort_digest", "split_digest"):
        if found[key]:
            table.add(Cell(plain(key), strong=True), str(found[key]))
    for name, version in found["versions"].items():
        table.add(Cell(str(name), strong=True), str(version))
    return table.build("Digests are SHA-256 of content.")


def _weights(card: Json) -> Table:
    table = TableBuilder(
        "weights", "Weights.", (Column("Fold", NUMBER), Column("SHA-256", code=True))
    )
    for w in card["weights"]:
        table.add(count(w["fold"]), str(w["sha256"]))
    return table.build("One set per fold; each was tested on patients it has not seen.")
