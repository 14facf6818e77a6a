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


def _opening(spec: Json, card: Json) -> list[str]:
    """Name, notice, and what the authors say it is and is not for."""
    authors = card["authors"]
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
    return lines


def readme(spec: Json, card: Json, parity: Json) -> str:
    """The package in Markdown."""
    job = spec["job"]
    members = len(spec["members"])
    on = parity["compared_on"]
    lines = [
        *_opening(spec, card),
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


def cascade_readme(spec: Json, card: Json, parity: Json) -> str:
    """The package of a CT cascade in Markdown."""
    on = parity["compared_on"]
    phases = ", ".join(spec["phases"]) or "not stated"
    lines = [
        *_opening(spec, card),
        "## What it is",
        "",
        f"{card['model']['title']}. It looks at CT scans (contrast phases it was trained on: "
        f"{phases}) and answers: where kidneys and masses are; {' or '.join(spec['classes'])}.",
        "",
        card["package"]["words"],
        "",
        "    renalkit predict PACKAGE SCAN -o RESULTS",
        "",
        "needs renalkit with the extra `runtime` and no torch. SCAN: DICOM CT series, NIfTI in HU,",
        "a folder or a zip archive of them.",
        "",
        "## Files",
        "",
        "| file | content |",
        "| --- | --- |",
        "| `spec.json` | settings of the stages, classes, contrast phases |",
        "| `card.json` | model card: data, training, performance, cautions |",
        "| `fold-K/kidney/model.onnx` | stage 1: the whole coarse scan, any size |",
        "| `fold-K/mass-M/model.onnx` | stage 2: patches |",
        "| `fold-K/lesion/model.onnx` | stage 3: a cube around a mass |",
        "| `fold-K/*/weights.safetensors` | the weights as trained |",
        "| `golden.safetensors` | a simulated scan and the trained results |",
        "| `parity.json` | exported networks beside the trained ones |",
        "| `patients.json` | keyed hashes of the patients the networks have seen |",
        "| `MANIFEST.sha256` | digest of every file; checked at each loading |",
        "",
        "## Exported beside trained",
        "",
        f"Each network on {on['what']}; {on['scans']} {on['scans_what']}. {on['note']}".strip(),
        "",
        "| engine | mode | largest difference | Dice of masks | change of score "
        "| tested scans: Dice of kidney and mass | of mass |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for form in parity["forms"]:
        rows, scans = form["networks"], form["scans"]
        lines.append(
            f"| {form['engine']} | {form['mode']} "
            f"| {max(max(n['difference'].values()) for n in rows):.1e} "
            f"| {_least([n['dice'] for n in rows])} "
            f"| {_most([n['score'] for n in rows])} "
            f"| {_least([scan['dice_kidney_and_mass'] for scan in scans])} "
            f"| {_least([scan['dice_mass'] for scan in scans])} |"
        )
    return "\n".join([*lines, ""])
