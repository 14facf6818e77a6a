"""What does a model package say of itself to a person: README.md and LICENSE.txt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Json = Mapping[str, Any]


def licence_text(card: Json) -> str:
    """Terms of the weights as their authors wrote them."""
    said = str(card["authors"].get("licence") or "").strip()
    terms = (
        said or "The authors have not said under which terms these weights may be used. Ask them."
    )
    contact = str(card["authors"].get("contact") or "").strip()
    lines = ["Licence of the trained weights and exported networks in this folder:", "", terms]
    return "\n".join([*lines, *(["", f"Contact: {contact}"] if contact else []), ""])


def readme(spec: Json, card: Json, parity: Json) -> str:
    """The package in Markdown."""
    authors = card["authors"]
    job = spec["job"]
    members = len(spec["members"])
    on = parity["compared_on"]
    lines = [
        f"# {spec['name']} {spec['version']}",
        "",
        str(spec["notice"]),
        "",
        f"**Intended use.** {authors['intended_use'].strip()}",
        "",
        f"**Limitations.** {authors['limitations'].strip()}",
        "",
    ]
    if authors.get("out_of_scope", "").strip():
        lines += [f"**Out of scope.** {authors['out_of_scope'].strip()}", ""]
    lines += [
        "## What it is",
        "",
        f"{card['model']['title'] or job['system']}. {members} network"
        f"{'s, one per fold, whose mean counts' if members > 1 else ''}. "
        f"It looks at {' and '.join(job['modalities'])} "
        f"({job['input'].get('region', 'frame')}, {job['input']['size']} px) and answers: "
        f"{_answers(spec)}.",
        "",
        "    renalkit predict PACKAGE STUDY -o RESULTS",
        "",
        "needs renalkit with the extra `runtime` and no torch.",
        "",
        "## Files",
        "",
        "| file | content |",
        "| --- | --- |",
        "| `spec.json` | preparation of pictures, classes, threshold, from frames to patients |",
        "| `card.json` | model card: data, training, performance, cautions |",
        "| `fold-K/model.onnx` | network of a fold, any batch length |",
        "| `fold-K/weights.safetensors` | its weights as trained |",
        "| `golden.safetensors` | made-up inputs (no patient's) and the trained results |",
        "| `parity.json` | exported networks beside the trained ones |",
        "| `patients.json` | keyed hashes of the patients the networks have seen |",
        "| `MANIFEST.sha256` | digest of every file; checked at each loading |",
        "",
        "## Exported beside trained",
        "",
        f"{on['frames']} frames of {on['patients']} patients: {on['what']}."
        if on["patients"]
        else f"{on['frames']} {on['what']}. {on['note']}".strip(),
        "",
        "| engine | mode | largest difference | Dice of masks | change of score | change of AUC |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for form in parity["forms"]:
        rows = form["members"]
        lines.append(
            f"| {form['engine']} | {form['mode']} "
            f"| {max(max(m['difference'].values()) for m in rows):.1e} "
            f"| {_least([m['dice'] for m in rows])} "
            f"| {_most([m['score'] for m in rows])} "
            f"| {_most([form['patients']['difference']])} |"
        )
    return "\n".join([*lines, ""])


def _answers(spec: Json) -> str:
    found: list[str] = []
    if "mask_logits" in spec["outputs"]:
        found.append("where the lesion is")
    if "class_logits" in spec["outputs"]:
        found.append(" or ".join(spec["classes"]))
    return "; ".join(found)


def _least(values: list[float | None]) -> str:
    known = [v for v in values if v is not None]
    return f"{min(known):.4f}" if known else ""


def _most(values: list[float | None]) -> str:
    known = [v for v in values if v is not None]
    return f"{max(known):.1e}" if known else ""
