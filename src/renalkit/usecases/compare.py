"""Several systems, or several settings of one, on the same folds in one table."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from renalkit.config import parse_value, read_toml, to_toml, toml_value, with_overrides
from renalkit.errors import ConfigError
from renalkit.store.files import make_folder, write_json, write_text
from renalkit.store.runs import RunFolder, amending_manifest
from renalkit.usecases.differences import comparisons_of
from renalkit.usecases.evaluate import evaluate_results
from renalkit.usecases.experiment import SPLIT_PATHS
from renalkit.usecases.progress import Progress
from renalkit.usecases.results import Json, read_results
from renalkit.usecases.run import run_experiment
from renalkit.usecases.run_request import RunRequest


@dataclass(frozen=True, slots=True)
class Preset:
    """Variants of the first system of an experiment: label -> keys that differ."""

    words: str
    variants: Mapping[str, Mapping[str, Any]]


PRESETS: Mapping[str, Preset] = {
    "P1-ablation": Preset(
        "the three contributions P1 claims, each switched off in turn",
        {
            "full": {},
            "no-cbam": {"params.cbam": False},
            "no-residual": {"params.residual": False},
            "no-separable": {"params.separable": False, "params.classifier_separable": False},
            "separable-both": {"params.separable": True, "params.classifier_separable": True},
            "plain": {
                "params.cbam": False,
                "params.residual": False,
                "params.separable": False,
                "params.classifier_separable": False,
            },
        },
    ),
    "P1-input-size": Preset(
        "the three input sizes P1 compares",
        {f"{size}px": {"size": size} for size in (64, 128, 256)},
    ),
    "P2-backbones": Preset(
        "the networks behind which P2 and P3 chose EfficientNet-B3; they name no others",
        {
            name: {"params.backbone": name}
            for name in (
                "efficientnet-b3",
                "efficientnet-b0",
                "efficientnet-b1",
                "efficientnet-b2",
                "efficientnet-b4",
                "densenet121",
                "resnet18",
                "resnet50",
                "se-resnet50",
            )
        },
    ),
    "P2-fusion": Preset(
        "P2's weighted sum beside one backbone for both modalities, other scales of alpha and "
        "beta, and other fusions",
        {
            "adaptive": {},
            "shared-backbone": {"params.share_backbone": True},
            "sigmoids": {"params.attention_weights": "sigmoid"},
            "per-channel": {"params.attention_per_channel": True},
            "concat": {"params.fusion": "concat"},
            "gated": {"params.fusion": "gated"},
            "cross-attention": {"params.fusion": "cross_attention"},
        },
    ),
}


@dataclass(frozen=True, slots=True)
class CompareRequest:
    """target: a run folder, or an experiment file together with vary or preset."""

    target: Path
    vary: tuple[str, ...]
    preset: str | None
    reference: str | None
    output: Path
    overrides: tuple[str, ...] = ()
    waive: tuple[str, ...] = ()
    processes: int = 1


def run_compare(request: CompareRequest, progress: Progress) -> Json:
    """The comparison table of a run; with an experiment file its variants are trained first."""
    folder = request.target
    if folder.is_file():
        experiment = _varied_file(request)
        given = (request.overrides, request.waive, request.processes)
        asked = RunRequest(experiment, request.output, *given)
        folder = Path(run_experiment(asked, progress)["folder"])
    elif request.vary or request.preset:
        found = "is a run folder" if folder.is_dir() else "is not there"
        raise ConfigError([f"--vary and --preset need an experiment file; '{folder.name}' {found}"])
    results = read_results(folder, progress)
    metrics = evaluate_results(results, None, progress)
    found = comparisons_of(results, request.reference)
    with amending_manifest(folder):
        write_json(RunFolder(folder).comparisons, found)
    return {"run": str(folder), "systems": metrics["systems"], **found}


def _varied_file(request: CompareRequest) -> Path:
    """Write the experiment with one system per variant beside its run."""
    tables = read_toml(request.target)
    systems = tables.get("systems")
    if not isinstance(systems, list) or not systems:
        raise ConfigError(["systems: an experiment needs at least one"], where=request.target.name)
    if not request.vary and not request.preset:
        return request.target
    variants = _variants(request)
    first = dict(systems[0])
    if "init_from" in first:
        first["init_from"] = str(request.target.resolve().parent / str(first["init_from"]))
    tables["systems"] = [_variant(first, label, changes) for label, changes in variants.items()]
    name = request.preset or "+".join(v.partition("=")[0].rpartition(".")[2] for v in request.vary)
    tables["name"] = f"{tables.get('name', 'experiment')}-{name}"
    base = request.target.resolve().parent
    tables["cohort"] = str(base / str(tables.get("cohort", "")))
    if isinstance(tables.get("split"), dict):
        paths = {k: str(base / str(v)) for k, v in tables["split"].items() if k in SPLIT_PATHS}
        tables["split"] = tables["split"] | paths
    path = make_folder(request.output) / f"{tables['name']}.toml"
    write_text(path, to_toml(tables))
    return path


def _variants(request: CompareRequest) -> dict[str, dict[str, Any]]:
    if request.preset is not None:
        if request.preset not in PRESETS:
            known = ", ".join(f"{k} ({p.words})" for k, p in PRESETS.items())
            raise ConfigError([f"preset: no '{request.preset}'; there are {known}"])
        return {k: dict(v) for k, v in PRESETS[request.preset].variants.items()}
    axes: list[list[tuple[str, Any]]] = []
    for item in request.vary:
        key, separator, text = item.partition("=")
        if not separator or not text:
            raise ConfigError([f"--vary '{item}': expected KEY=A,B,C, e.g. params.width=0.25,0.5"])
        axes.append([(key, parse_value(v.strip())) for v in text.split(",")])
    return {
        ",".join(f"{k.rpartition('.')[2]}={v}" for k, v in chosen).replace(",", "+"): dict(chosen)
        for chosen in itertools.product(*axes)
    }


def _variant(first: dict[str, Any], label: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The first system with changes; keys are relative to a [[systems]] table."""
    keys = {
        k.removeprefix("systems.0.").replace("input.size", "size"): v for k, v in changes.items()
    }
    varied = with_overrides(first, [f"{k}={toml_value(v)}" for k, v in keys.items()])
    return {**varied, "label": label}


def compare_words(found: Json) -> str:
    """The comparison for a terminal: one line per system, then the paired differences."""
    lines = [f"{'system':24}{'Dice':>24}{'AUC':>24}{'accuracy':>24}{'parameters':>12}{'ms':>7}"]
    ways: dict[str, None] = {}
    for s in found["systems"]:
        masks, calls = s["segmentation"], s["classification"]
        figures = {
            "Dice": masks["pooled"]["dice"] if masks else None,
            "AUC": calls["patient"]["auc"] if calls else None,
            "accuracy": calls["patient"]["accuracy"] if calls else None,
        }
        cells = [_cell(figure) for figure in figures.values()]
        ways |= {_way(name, figure): None for name, figure in figures.items() if figure}
        size = f"{s['complexity']['parameters']:,}" if s["complexity"] else "n/a"
        times = [t["ms_per_image"] for t in s["training"] if t["ms_per_image"]]
        ms = f"{sum(times) / len(times):.1f}" if times else "n/a"
        lines.append(f"{s['label']:24}{cells[0]:>24}{cells[1]:>24}{cells[2]:>24}{size:>12}{ms:>7}")
    lines += [*ways, ""]
    lines.append(f"{found['reference']} minus the other, same patients:")
    for r in found["rows"]:
        d = r["difference"]
        interval = "" if d["low"] is None else f" ({d['low']:+.3f} to {d['high']:+.3f})"
        p = "" if r["p"] is None else f", p = {r['p']:.3g} (Holm {r['p_holm']:.3g})"
        unit = f" {r['length_unit']}" if "length_unit" in r else ""
        lines.append(
            f"  {r['label']:24}{r['metric']:10}{d['value']:+.3f}{unit}{interval}{p}, "
            f"n = {d['n']} {d['unit']}s, {d['method']}"
        )
    return "\n".join(lines)


def _way(name: str, figure: Json) -> str:
    """What a column is of, and how its intervals were made."""
    interval = "" if figure["low"] is None else f", {figure['level']:.0%} interval"
    return f"  {name}: n = {figure['n']} {figure['unit']}s{interval}: {figure['method']}"


def _cell(figure: Json | None) -> str:
    if figure is None or figure["value"] is None:
        return "n/a"
    if figure["low"] is None:
        return f"{figure['value']:.3f}"
    return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"
