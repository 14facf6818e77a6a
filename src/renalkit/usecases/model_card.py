"""What is a trained system, on whom was it made, how good is it, and what may it be used for?

The card is a plain object (card.json, see docs/data-formats.md) that the report of a run, a model
package or an export can carry. There is no card while its authors have not said what the system is
for and what its limits are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from renalkit.errors import ConfigError, ModelRefused
from renalkit.store.files import write_json, write_text
from renalkit.store.runs import RunFolder, amending_manifest
from renalkit.usecases.report import read_source
from renalkit.usecases.reporting import CardWords, make_reporting, read_reporting
from renalkit.usecases.results import Json
from renalkit.writers import data_words, figure_words, scan_words, training_words
from renalkit.writers.markdown import document_md
from renalkit.writers.model_card import card_document
from renalkit.writers.report import NOT_A_DEVICE, render_document
from renalkit.writers.scan_words import Say, spoken
from renalkit.writers.source import ReportSource

SCHEMA = 1
NEEDED = {
    "intended_use": "what the system is meant for, for whom, in whose hands",
    "limitations": "where it fails or was not tested",
}
SUFFIXES = (".md", ".html", ".json")
Stored = Mapping[str, Any]
_CURVES = ("roc", "rocs")
_SCANS = "kidneys and masses on CT scans"
_KEPT_BY_RUN = ("froc", "missed")


@dataclass(frozen=True, slots=True)
class CardRequest:
    """What the user asked for. system: label in the run, the first when None."""

    run: Path
    system: str | None = None
    output: Path | None = None


def write_card(request: CardRequest) -> Json:
    """The card of one system of a run, written as Markdown, HTML or JSON by the suffix.

    Makes reporting.toml where there is none. Without an output it is RUN/SYSTEM/card.json.

    Raises:
        ConfigError: intended use or limitations are empty, an unknown system or suffix.
        ModelRefused: no finished fold of the system.
        StoreError: no figures yet, or a damaged run.
    """
    if request.output is not None and request.output.suffix.lower() not in SUFFIXES:
        raise ConfigError(
            [f"--output: '{request.output.name}' ends in none of {', '.join(SUFFIXES)}"]
        )
    run = RunFolder(request.run)
    card = card_for(run, request.system)
    label = card["model"]["label"]
    output = request.output or run.system(label) / "card.json"
    with amending_manifest(run.path):
        suffix = output.suffix.lower()
        if suffix == ".json":
            write_json(output, card)
        else:
            page = card_document(card)
            write_text(output, document_md(page) if suffix == ".md" else render_document(page).html)
    return {"schema": SCHEMA, "output": str(output), "card": card}


def card_for(run: RunFolder, system: str | None) -> Json:
    """The card of one system of a run, the first when None; nothing but reporting.toml is written.

    Raises as `write_card`.
    """
    source = read_source(run, None, pictures=False)
    label = _label(source, system)
    make_reporting(run, source)
    said = read_reporting(run).card
    _refuse_unsaid(said, run.reporting.name)
    return card_of(source, label, said)


def _label(source: ReportSource, wanted: str | None) -> str:
    labels = [str(s["label"]) for s in source.systems]
    label = wanted or (labels[0] if labels else "")
    if label not in labels:
        raise ConfigError([f"--system: no '{label}' in this run; there are {', '.join(labels)}"])
    system = next(s for s in source.systems if s["label"] == label)
    if source.scans and system["system"] not in source.cards:
        raise ModelRefused(
            "a rule that learns nothing, or a system that is not installed",
            where=label,
            expected="a trained system",
            remedy="name one with --system",
        )
    if not system["folds"] or (source.scans and not system["scans"]):
        raise ModelRefused(
            "no finished fold of this system",
            where=label,
            expected="a trained and tested system",
            remedy="run the experiment to its end",
        )
    return label


def _refuse_unsaid(said: CardWords, where: str) -> None:
    problems = [
        f"card.{key}: empty; write {asks}. There is no card without it"
        for key, asks in NEEDED.items()
        if not getattr(said, key).strip()
    ]
    if problems:
        raise ConfigError(problems, where=where)


# ---- the card ------------------------------------------------------------------------------


def card_of(source: ReportSource, label: str, said: CardWords) -> Json:
    """The card of a system as a plain object; `source` is that of the whole run."""
    one = only(source, label)
    system = one.systems[0]
    job = _asked_of_stages(one, system) if one.scans else one.jobs.get(label, {})
    published = one.cards.get(str(system["system"]), {})
    return {
        "schema": SCHEMA,
        "kind": "model card",
        "notice": NOT_A_DEVICE,
        "authors": said.model_dump(mode="json"),
        "model": {
            "label": label,
            "system": system["system"],
            "title": published.get("title"),
            "summary": published.get("summary"),
            "reference": published.get("reference"),
            "task": _SCANS if one.scans else system["task"],
            "classes": list(one.classes),
            "positive": one.positive,
            "parameters": (system.get("complexity") or {}).get("parameters"),
            "input": job.get("input"),
            "params": _without_path(job.get("params")),
            "open_choices": published.get("open_choices", []),
            "words": _said(one, _MODEL),
        },
        "weights": [
            {"fold": f.fold, "sha256": f.facts.get("weights_sha256")} for f in one.folds_done
        ],
        "data": {
            "cohort": dict(one.metrics["cohort"]),
            "images": one.images,
            "patients": _patients(one),
            "split": dict(one.split),
            "words": _said(one, _DATA),
        },
        "training": {
            "options": job.get("train"),
            "augment": job.get("augment"),
            "folds": list(system["training"]),
            "words": _said(one, _TRAINING),
        },
        "performance": {
            "segmentation": system.get("segmentation"),
            **(_of_scans(system) if one.scans else {}),
            "classification": _without_curves(system.get("classification")),
            "calibration": _calibration(one),
            "published": published.get("claims", []),
            "words": _said(one, _FIGURES),
        },
        "subgroups": _subgroups(one),
        "cautions": (scan_words if one.scans else figure_words).cautions(one),
        "provenance": {
            "run": one.name,
            "settings_digest": one.settings_digest,
            "cohort_digest": one.metrics["cohort_digest"],
            "split_digest": one.metrics["split_digest"],
            "versions": dict((one.record or {}).get("versions") or {}),
            "finished": (one.record or {}).get("finished"),
        },
    }


_MODEL = (
    training_words.systems,
    training_words.predictors,
    training_words.output,
    training_words.ensembling,
    training_words.refusals,
)
_DATA = (
    data_words.study_flow,
    data_words.nameless,
    data_words.classes,
    data_words.people,
    data_words.places,
    data_words.images,
    data_words.reference_standard,
    data_words.privacy,
)
_TRAINING = (
    training_words.partition,
    training_words.fewer_folds,
    training_words.disjointness,
    training_words.preprocessing,
    training_words.augmentation,
    training_words.initialisation,
    training_words.training,
    training_words.selection,
)
_FIGURES = (
    training_words.external_test,
    figure_words.scoring,
    figure_words.level,
)


def _said(source: ReportSource, sentences: Sequence[Say]) -> list[str]:
    return [words for say in sentences if (words := spoken(source, say))]


def only(source: ReportSource, label: str) -> ReportSource:
    """The source as if the run had this system alone, its own settings being those of the run."""
    job = source.jobs.get(label)
    name = next(str(s["system"]) for s in source.systems if s["label"] == label)
    settings = dict(source.settings)
    if job:
        settings |= {"train": job["train"], "input": job["input"], "systems": []}

    def mine(found: Stored | None) -> Stored | None:
        if found is None:
            return None
        return {**found, "systems": [s for s in found["systems"] if s["label"] == label]}

    return replace(
        source,
        metrics=mine(source.metrics) or {},
        usefulness=mine(source.usefulness),
        subgroups=mine(source.subgroups),
        comparisons=None,
        settings=settings,
        jobs={label: job} if job else {},
        cards={n: c for n, c in source.cards.items() if n == name},
        folds_done=[f for f in source.folds_done if f.label == label],
    )


def _without_path(params: Stored | None) -> Json | None:
    """Parameters without the place of a file, which may name people or machines."""
    return None if params is None else {k: v for k, v in params.items() if k != "init_weights"}


def _asked_of_stages(source: ReportSource, system: Stored) -> Json:
    """What the networks of a cascade were asked for; nothing of a system that learns nothing."""
    if system["system"] not in source.cards:
        return {}
    settings = source.settings
    asked = {k: settings.get(k) for k in ("params", "train", "augment")}
    used = {k: settings.get(k) for k in ("phases", "stages", "batch", "patches")}
    return asked | {"input": used}


def _of_scans(system: Stored) -> Json:
    """Figures of lesions, and how much was searched; without the points of free-response curves and
    the list of missed lesions, which the run keeps."""
    lesions = system["lesions"]
    criteria = {
        name: {k: v for k, v in one.items() if k not in _KEPT_BY_RUN}
        for name, one in lesions["criteria"].items()
    }
    return {"lesions": {**lesions, "criteria": criteria}, "coverage": system["coverage"]}


def _without_curves(found: Stored | None) -> Json | None:
    """Figures without the points of ROC curves, which the run keeps."""
    if found is None:
        return None
    return {
        name: {k: v for k, v in part.items() if k not in _CURVES}
        if isinstance(part, Mapping)
        else part
        for name, part in found.items()
    }


def _patients(source: ReportSource) -> list[Json]:
    """Each recorded fact of the patients, over all of them."""
    tables = (source.characteristics or {"tables": []})["tables"]
    rows = tables[0]["rows"] if tables else []
    return [
        {k: row[k] for k in ("variable", "kind", "summary", "levels", "overall") if k in row}
        for row in rows
    ]


def _calibration(source: ReportSource) -> Json | None:
    """Calibration without its curve; None where there is none."""
    systems = (source.usefulness or {"systems": []})["systems"]
    found = systems[0].get("calibration") if systems else None
    if found is None:
        return None
    return {k: v for k, v in found.items() if k != "reliability"}


def _subgroups(source: ReportSource) -> list[Json]:
    systems = (source.subgroups or {"systems": []})["systems"]
    return list(systems[0]["variables"]) if systems else []


def card_words(found: Json) -> str:
    """Where the card is and what speaks against its figures, for a terminal."""
    card = found["card"]
    lines = [f"Card of {card['model']['label']}: {found['output']}"]
    return "\n".join([*lines, *(f"  {words}" for words in card["cautions"]), f"  {card['notice']}"])
