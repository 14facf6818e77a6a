"""What does a paper's protocol give on the user's own patients? `renalkit reproduce`.

A preset (presets/<paper>.toml) holds the paper's protocol as an experiment, what is done otherwise
and why, and the rows of its main table. A variant (P3: two readings of its split; P2: a network
given perfusion figures too) and a profile ('faithful', 'cpu') change keys of the experiment; every
change stands in the report beside what the paper says.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeVar

from renalkit.config import Settings, parse_settings, to_toml, with_values
from renalkit.errors import ConfigError
from renalkit.metrics.reader_study import TieRule
from renalkit.store.files import make_folder, write_json, write_text
from renalkit.store.runs import RunFolder
from renalkit.usecases.progress import Progress
from renalkit.usecases.readers import ReadersRequest, check_readings, evaluate_readers
from renalkit.usecases.reading_cases import ReaderPlan
from renalkit.usecases.run import run_experiment
from renalkit.usecases.run_request import RunRequest

PAPERS = ("P1", "P2", "P3", "P4", "P5")
START = "start of the weights"
"""Topic of the deviation that --init-from changes."""
TIES = TieRule.POSITIVE
"""What a case is called on which as many readers say yes as no; the papers do not say."""

T = TypeVar("T")


class Deviation(Settings):
    """One point at which this protocol is not the paper's."""

    topic: str
    paper: str
    here: str


class Row(Settings):
    """One row of the paper's table: a system of the run by label, or a group of readers. ours: the
    paper has no such row."""

    name: str
    system: str | None = None
    readers: str | None = None
    ours: bool = False


class Profile(Settings):
    """How much machine there is: keys that differ, parameters that differ for every system, and
    what that changes."""

    words: str
    set: dict[str, Any] = {}
    params: dict[str, Any] = {}
    deviations: tuple[Deviation, ...] = ()


class Variant(Settings):
    """One reading of a paper that allows several, or more than the paper has.

    rows: further ones of the table. asked: only when named.
    """

    words: str
    set: dict[str, Any] = {}
    systems: tuple[dict[str, Any], ...] = ()
    rows: tuple[Row, ...] = ()
    asked: bool = False


class PaperPreset(Settings):
    """A paper's protocol; see the module."""

    paper: Literal["P1", "P2", "P3", "P4", "P5"]
    title: str
    rows: tuple[Row, ...]
    deviations: tuple[Deviation, ...]
    experiment: dict[str, Any]
    profiles: dict[str, Profile]
    variants: dict[str, Variant] = {}


def paper_preset(paper: str) -> PaperPreset:
    """The preset of a paper.

    Raises:
        ConfigError: no such paper.
    """
    if paper.upper() not in PAPERS:
        raise ConfigError([f"'{paper}': no such paper; known: {', '.join(PAPERS)}"])
    text = files("renalkit").joinpath("presets", f"{paper.lower()}.toml").read_text("utf-8")
    return parse_settings(PaperPreset, tomllib.loads(text))


@dataclass(frozen=True, slots=True)
class ReproduceRequest:
    """What the user asked for.

    variant: where there are several; None takes all readings of the paper. readings: table of what
    readers said. overrides: keys that differ further, listed in the report. name: of the run.
    """

    paper: str
    cohort: Path
    output: Path
    profile: str = "faithful"
    variant: str | None = None
    readings: Path | None = None
    key_file: Path | None = None
    overrides: tuple[str, ...] = ()
    waive: tuple[str, ...] = ()
    processes: int = 1
    name: str | None = None
    init_from: tuple[str, ...] = ()


def run_reproduce(request: ReproduceRequest, progress: Progress) -> dict[str, Any]:
    """Run the protocol, one run per variant; each resumes like any run.

    Raises:
        ConfigError: no such paper, profile or variant, or a setting that does not fit. Otherwise
        what `renalkit run` and `renalkit readers evaluate` raise.
    """
    preset = paper_preset(request.paper)
    profile = _named(preset.profiles, request.profile, "--profile")
    chosen: Mapping[str, Variant | None] = {
        name: variant for name, variant in preset.variants.items() if not variant.asked
    } or {"": None}
    if request.variant is not None:
        chosen = {request.variant: _named(preset.variants, request.variant, "--variant")}
    readers = _readers(request)
    if readers is not None:
        check_readings(replace(readers, cohort=request.cohort))
    runs: list[dict[str, Any]] = []
    for name, variant in chosen.items():
        runs.append(_run(request, preset, profile, (name, variant), progress))
    return {"paper": preset.paper, "profile": request.profile, "runs": runs}


def _readers(request: ReproduceRequest) -> ReadersRequest | None:
    if request.readings is None:
        return None
    plan = ReaderPlan(ties=TIES)
    return ReadersRequest(request.readings, plan, key_file=request.key_file)


def _named(known: Mapping[str, T], name: str, option: str) -> T:
    if name not in known:
        offered = ", ".join(known) or "none"
        raise ConfigError([f"{option}: '{name}' is not offered for this paper; known: {offered}"])
    return known[name]


def _run(
    request: ReproduceRequest,
    preset: PaperPreset,
    profile: Profile,
    variant: tuple[str, Variant | None],
    progress: Progress,
) -> dict[str, Any]:
    reading, chosen = variant
    parts = [request.name or f"{preset.paper.lower()}-{request.profile}", reading]
    name = "-".join(part for part in parts if part)
    experiment = {
        "name": name,
        "cohort": os.path.relpath(request.cohort.resolve(), request.output.resolve()),
        **protocol(preset, profile, chosen),
    }
    make_folder(request.output)
    file = request.output / f"{name}.toml"
    words = f"# {preset.paper}, profile '{request.profile}': {profile.words}.\n"
    write_text(file, words + to_toml(experiment))

    def beside(folder: RunFolder) -> None:
        readers = _readers(request)
        if readers is not None:
            evaluate_readers(replace(readers, run=folder.path), progress)
        write_json(folder.reproduction, reproduction_record(preset, request, variant))

    found = run_experiment(
        RunRequest(
            *(file, request.output, request.overrides, request.waive, request.processes),
            init_from=request.init_from,
        ),
        progress,
        beside,
    )
    return {**found, "variant": reading}


def protocol(preset: PaperPreset, profile: Profile, variant: Variant | None) -> dict[str, Any]:
    """The experiment of a profile and a variant, as tables without name and cohort."""
    found = dict(preset.experiment)
    if variant is not None:
        found["systems"] = [*found["systems"], *variant.systems]
        found = with_values(found, variant.set)
    found = with_values(found, profile.set)
    for system in found.get("systems", ()):
        system["params"] = {**system.get("params", {}), **profile.params}
    return found


def reproduction_record(
    preset: PaperPreset, request: ReproduceRequest, variant: tuple[str, Variant | None]
) -> dict[str, Any]:
    """What the report of a run must know of the paper: rows of its table, and what differs."""
    reading, chosen = variant
    profile = preset.profiles[request.profile]
    deviations = [*preset.deviations, *profile.deviations]
    if request.init_from:
        runs = ", ".join(dict.fromkeys("/".join(Path(f).parts[-2:]) for f in request.init_from))
        here = f"the networks of {runs}"
        deviations = [
            d.model_copy(update={"here": here}) if d.topic == START else d for d in deviations
        ]
    return {
        "schema": 1,
        "paper": preset.paper,
        "title": preset.title,
        "profile": request.profile,
        "profile_words": profile.words,
        "variant": reading,
        "variant_words": "" if chosen is None else chosen.words,
        "rows": [
            row.model_dump(mode="json")
            for row in (*preset.rows, *(() if chosen is None else chosen.rows))
        ],
        "deviations": [d.model_dump(mode="json") for d in deviations],
        "overrides": list(request.overrides),
    }


def reproduce_words(found: Mapping[str, Any]) -> str:
    """The end of a reproduction for a person."""
    lines = [f"{found['paper']}, profile '{found['profile']}'"]
    for run in found["runs"]:
        variant = f" ({run['variant']})" if run["variant"] else ""
        lines.append(f"report{variant}: {run['report']}")
    return "\n".join(lines)
