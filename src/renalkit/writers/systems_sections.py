"""What are the systems, and with what were they run? Complexity, Cards, configuration."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from renalkit.writers.document import (
    Block,
    Cell,
    Code,
    Column,
    Folded,
    Heading,
    Paragraph,
    Section,
    Table,
    TableBuilder,
)
from renalkit.writers.source import Json, ReportSource, measured, metric_name, why_none
from renalkit.writers.wording import (
    EN_DASH,
    NOT_AVAILABLE,
    Estimate,
    count,
    duration,
    finite,
    large,
    listed,
    number,
    plural,
)

NUMBER = "number"
_TIME_NOTE = "network alone when predicting on this machine; see 'Where' for what the paper timed"
_PATH_KEYS = ("cohort", "file", "external", "init_weights")


# ---- complexity ----------------------------------------------------------------------------


def complexity(source: ReportSource) -> Section:
    """Size and cost of every network, layer by layer on demand."""
    table = TableBuilder(
        "complexity",
        "Size and cost of the networks.",
        (
            Column("System"),
            Column("Parameters", NUMBER),
            Column("MACs per image", NUMBER),
            Column("FLOPs per image", NUMBER),
            Column("ms per image", NUMBER),
            Column("Measured on"),
        ),
    )
    for s in source.networks:
        found = s.get("complexity") or {}
        times = [t for t in (finite(f.get("ms_per_image")) for f in s["training"]) if t is not None]
        table.add(
            Cell(str(s["label"]), strong=True),
            count(found.get("parameters")),
            large(found.get("macs")),
            large(found.get("flops")),
            number(fmean(times), 1) if times else NOT_AVAILABLE,
            _device(source, str(s["label"])),
        )
    blocks: list[Block] = [
        table.build(
            "For one image at the network's input size. MACs: multiply-accumulates of "
            "convolutions and linear layers; FLOPs: two per MAC, and biases, normalisations, "
            "activations, pooling. Sums and interpolation are not counted. Time: network "
            "alone, batch of one, mean over folds."
        )
    ]
    for s in source.systems:
        layers = source.layers.get(str(s["label"]))
        if layers and layers.get("layers"):
            per_layer = _layer_table(str(s["label"]), layers)
            words = f"{s['label']}: {plural(len(layers['layers']), 'layer')}"
            blocks.append(Folded(words, (per_layer,)))
    return Section("complexity", "Complexity", tuple(blocks))


def _device(source: ReportSource, label: str) -> str:
    found = sorted(
        {
            f"{d.facts.get('device', 'unknown')}, {plural(int(d.facts['threads']), 'thread')}"
            for d in source.folds_done
            if d.label == label and d.facts.get("threads") is not None
        }
    )
    return "; ".join(found)


def _layer_table(label: str, raw: Json) -> Table:
    table = TableBuilder(
        f"layers-{label}",
        f"Layers of {label}.",
        (
            Column("Layer", code=True),
            Column("Kind"),
            Column("Output"),
            Column("Parameters", NUMBER),
            Column("MACs", NUMBER),
            Column("FLOPs", NUMBER),
        ),
    )
    for layer in raw["layers"]:
        shape = " × ".join(str(n) for n in layer["output_shape"][1:])
        table.add(
            str(layer["name"]),
            str(layer["kind"]),
            shape,
            count(layer["parameters"]),
            count(layer["macs"]),
            count(layer["flops"]),
        )
    table.add(
        Cell("total", strong=True),
        "",
        "",
        count(raw["parameters"]),
        count(raw["macs"]),
        count(raw["flops"]),
    )
    return table.build("Output: channels × rows × columns.")


# ---- cards ---------------------------------------------------------------------------------


def cards(source: ReportSource) -> Section | None:
    """What each system claims in print, what was measured here, and what its paper left open."""
    blocks: list[Block] = []
    if any(card.get("claims") for card in source.cards.values()):
        blocks.append(
            Paragraph(
                "Published and measured figures stand side by side; they rest on different "
                "patients, "
                "images and settings, so a difference between them is no test of either."
            )
        )
    for name, card in source.cards.items():
        labels = [s for s in source.systems if s["system"] == name]
        blocks.append(Heading(str(card["title"])))
        blocks.append(Paragraph(str(card["summary"])))
        blocks.append(Paragraph(f"Reference: {card['reference']}"))
        if card["claims"]:
            blocks.append(_claims_table(name, card, labels))
        if card["open_choices"]:
            blocks.append(
                Folded(
                    f"{name}: {plural(len(card['open_choices']), 'choice')} left open by the paper",
                    (choices_table(name, card),),
                )
            )
    uses = dict.fromkeys(str(card["intended_use"]) for card in source.cards.values())
    blocks += [Paragraph(f"Intended use: {use}") for use in uses]
    return Section("cards", "Cards of the systems", tuple(blocks)) if blocks else None


def _claims_table(name: str, card: Json, systems: Sequence[Json]) -> Table:
    table = TableBuilder(
        f"card-{name}",
        f"{name}: published and measured.",
        (
            Column("Measure"),
            Column("Published", NUMBER),
            Column("Unit, n"),
            Column("Where"),
            Column("Measured here as"),
            Column("Measured", NUMBER),
            Column("n", NUMBER),
            Column("Unit"),
        ),
    )
    for claim in card["claims"]:
        published = _published(claim)
        first = (metric_name(str(claim["metric"])), published, _basis(claim), str(claim["where"]))
        shown_first = first
        for s in systems or [{}]:
            e = measured(s, str(claim["metric"])) if s else None
            if e is None:
                why = _why_unmeasured(s, claim)
                table.add(
                    *shown_first, str(s.get("label", "")), Cell(NOT_AVAILABLE, note=why), "", ""
                )
            else:
                digits_cell: Any = (
                    e
                    if claim["metric"] != "seconds_per_image"
                    else Cell(number(e.value), note=_TIME_NOTE)
                )
                table.add(*shown_first, str(s["label"]), digits_cell, count(e.n), e.unit)
            shown_first = ("", "", "", "")
    return table.build(
        "Published: as printed, without interval where the paper gives none. Measured: pooled, "
        "with interval; segmentation as the mean over images with patients as the sampled unit, "
        "classification per patient."
    )


def _why_unmeasured(system: Json, claim: Json) -> str:
    task = str(claim.get("task") or "")
    if not system:
        return "this system is not part of the run"
    if not system["folds"] or (task and not system.get(task)):
        return why_none(system, task)
    return "not among the figures of this run"


def _published(claim: Json) -> Cell:
    value = finite(claim["value"])
    e = Estimate(value, finite(claim.get("low")), finite(claim.get("high")), 0.95, 0, "", "")
    return Cell(e.head(), e.interval())


def _basis(claim: Json) -> str:
    unit, n = claim.get("unit"), claim.get("n")
    if unit is None and n is None:
        return "not stated"
    return listed(
        [
            part
            for part in (str(unit or "unit not stated"), f"n = {count(n)}" if n else "n not stated")
        ]
    ).replace(" and ", ", ")


def choices_table(name: str, card: Json) -> Table:
    """What a paper leaves open, and what is chosen here."""
    table = TableBuilder(
        f"choices-{name}",
        f"{name}: choices the paper leaves open.",
        (Column("Topic"), Column("Paper"), Column("Chosen here"), Column("Setting", code=True)),
    )
    for choice in card["open_choices"]:
        table.add(
            Cell(str(choice["topic"]), strong=True),
            str(choice["paper_says"]),
            str(choice["chosen"]),
            str(choice["param"]) or EN_DASH,
        )
    return table.build()


# ---- configuration -------------------------------------------------------------------------


def configuration(source: ReportSource) -> Section:
    """What is needed to repeat the run and to believe it."""
    blocks: list[Block] = [_digests(source)]
    folds = source.split.get("folds", ())
    if folds:
        blocks.append(_folds(source))
    if source.folds_done:
        blocks.append(_weights(source))
    if source.record:
        blocks.append(_facts("versions", "Versions.", source.record.get("versions") or {}))
        blocks.append(_facts("machine", "Machine.", source.record.get("machine") or {}))
    else:
        blocks.append(
            Paragraph(
                "The run's record (versions, machine, times) was not there when this report "
                "was written.",
                "note",
            )
        )
    if source.toml:
        blocks.append(Folded("experiment.toml, as given", (Code(without_paths(source.toml)),)))
    if source.settings:
        plain = json.dumps(_named(source.settings), indent=2, sort_keys=True, ensure_ascii=False)
        blocks.append(Folded("All settings, resolved", (Code(plain),)))
    return Section("configuration", "Configuration and provenance", tuple(blocks))


def without_paths(toml: str) -> str:
    """The experiment file with folders taken off its paths: they may name people or places.

    >>> without_paths('cohort = "/home/someone/cohorts/a"')
    'cohort = "…/a"'
    >>> without_paths('params = { width = 1.0, init_weights = "/home/someone/c/net.pth" }')
    'params = { width = 1.0, init_weights = "…/net.pth" }'
    """
    keys = "|".join(_PATH_KEYS)
    pattern = rf"""(?m)((?:^|[\s{{,.])(?:{keys})\s*=\s*["'])([^"'\n]*[/\\])"""
    return re.sub(pattern, lambda m: f"{m.group(1)}…/", toml)


def _named(value: Any) -> Any:
    """Settings with paths cut to their last part."""
    if isinstance(value, dict):
        return {
            k: _last_part(v) if k in _PATH_KEYS and isinstance(v, str) else _named(v)
            for k, v in value.items()
        }
    if isinstance(value, list):
        return [_named(v) for v in value]
    return value


def _last_part(path: str) -> str:
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]


def _digests(source: ReportSource) -> Table:
    table = TableBuilder(
        "digests", "What the figures rest on.", (Column("What"), Column("SHA-256", code=True))
    )
    table.add(Cell("Cohort", strong=True), str(source.metrics["cohort_digest"]))
    table.add(Cell("Split", strong=True), str(source.metrics["split_digest"]))
    if source.settings_digest:
        table.add(Cell("Settings", strong=True), source.settings_digest)
    caption = "Digests of content: equal data, folds and settings give equal digests."
    record = source.record
    if record:
        caption += (
            f" Run {record['status']}: last call started {record['started']}, finished "
            f"{record['finished']}; all training together took {duration(record['seconds'])}."
        )
    return table.build(caption)


def _folds(source: ReportSource) -> Table:
    table = TableBuilder(
        "folds",
        "Folds.",
        (
            Column("Fold"),
            Column("Training", NUMBER),
            Column("Validation", NUMBER),
            Column("Test", NUMBER),
        ),
    )
    for index, fold in enumerate(source.split["folds"]):
        name = str(fold.get("name") or "")
        table.add(
            Cell(f"{index} {name}".strip(), strong=True),
            *(count(fold[part]) for part in ("train", "validation", "test")),
        )
    return table.build(
        f"Numbers of patients. Plan {source.split.get('plan')}, seed {source.split.get('seed')}. "
        "folds.json beside this report lists the patients by pseudonym."
    )


def _weights(source: ReportSource) -> Table:
    table = TableBuilder(
        "weights",
        "Weights that were tested.",
        (Column("System"), Column("Fold", NUMBER), Column("SHA-256 of the weights", code=True)),
    )
    for item in source.folds_done:
        table.add(
            Cell(item.label, strong=True),
            count(item.fold),
            str(item.facts.get("weights_sha256", "")),
        )
    return table.build()


def _facts(name: str, title: str, facts: Json) -> Table:
    table = TableBuilder(name, title, (Column("What"), Column("Value")))
    for key, value in facts.items():
        table.add(Cell(str(key).replace("_", " "), strong=True), str(value))
    return table.build()
