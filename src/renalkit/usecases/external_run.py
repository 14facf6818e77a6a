"""What do external tests of pictures and of scans share: who is asked, how the new run begins?"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from renalkit.domain.cohort import Cohort
from renalkit.domain.splits import Plan, Split
from renalkit.errors import CheckFailed, ConfigError
from renalkit.store.files import make_folder, read_json, write_json, write_text
from renalkit.store.runs import RunFolder
from renalkit.store.splits import save_split
from renalkit.usecases.check import check
from renalkit.usecases.divide import keep_cohort
from renalkit.usecases.experiment import Divided
from renalkit.usecases.progress import Progress

LIKENESS = "L03"
"""The guard whose waiver lets external pictures stand that look like development pictures."""


@dataclass(frozen=True, slots=True)
class ExternalRequest:
    """What the user asked for. cohort: that of the run, when it has moved; name: of the new run."""

    run: Path
    external: Path
    output: Path | None = None
    name: str | None = None
    cohort: Path | None = None
    waive: tuple[str, ...] = ()


def external_settings(first: Divided, request: ExternalRequest) -> dict[str, Any]:
    """The settings of a run with another tested part.

    Raises:
        ConfigError: the run is an external test itself.
    """
    if first.split.plan is Plan.EXTERNAL:
        raise ConfigError([f"{request.run.name}: it is an external test itself; give its own run"])
    plain = first.plain
    plain["name"] = request.name or _name(f"{first.name}-on-{request.external.resolve().name}")
    plain["cohort"] = str((request.cohort or first.cohort).resolve())
    plain["split"] |= {
        "plan": Plan.EXTERNAL.value,
        "external": str(request.external.resolve()),
        "file": None,
    }
    plain["waive"] = sorted({*first.waive, *request.waive})
    return plain


def _name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+=-]+", "-", text)[:64]


def begin_external(
    request: ExternalRequest,
    experiment: Divided,
    data: tuple[Cohort, frozenset[str]],
    split: Split,
    progress: Progress,
) -> RunFolder:
    """The folder of the new run with settings, cohort and folds written.

    data: both cohorts joined, and which patients are the external ones.

    Raises:
        CheckFailed: pictures that look alike, unless L03 is waived.
        ConfigError: the name is taken by another test.
    """
    cohort, outside = data
    progress.stage("looking for pictures of the development cohort")
    report = check(cohort, frozenset(experiment.waive))
    _refuse_likeness(report.groups, outside, LIKENESS in report.waivers)
    folder = RunFolder((request.output or request.run.resolve().parent) / experiment.name)
    _refuse_taken(folder, experiment)
    make_folder(folder.path)
    write_json(folder.check, report.to_json())
    source = RunFolder(request.run)
    words = f"# Models of run {request.run.resolve().name}, tested on cohort "
    words += f"{request.external.name}.\n\n"
    write_text(folder.experiment_toml, words + source.experiment_toml.read_text(encoding="utf-8"))
    settings = {"digest": experiment.digest, "settings": experiment.placed(folder.path), "set": []}
    write_json(folder.experiment_json, settings)
    keep_cohort(folder, cohort)
    save_split(folder.folds, split)
    return folder


def _refuse_likeness(groups: Mapping[str, str], outside: frozenset[str], waived: bool) -> None:
    """Groups that the check joined across the two cohorts: the same picture, perhaps cropped."""
    inside = {g for p, g in groups.items() if p not in outside}
    alike = sorted(p for p, g in groups.items() if p in outside and g in inside)
    if alike and not waived:
        raise CheckFailed(
            f"{len(alike)} external patients have pictures that look like those of development "
            f"patients (L12, {LIKENESS}), first: {alike[0]}",
            where="the external cohort",
            expected="patients the systems have never seen",
            remedy="leave these patients out and ingest again; or, after looking at them, "
            f"--waive {LIKENESS}",
        )


def _refuse_taken(folder: RunFolder, experiment: Divided) -> None:
    """A folder of that name must be this very test."""
    if not folder.experiment_json.exists():
        return
    settings = read_json(folder.experiment_json)
    places = experiment.placed(folder.path)
    if (
        settings.get("digest") != experiment.digest
        or settings["settings"]["split"] != places["split"]
    ):
        raise ConfigError(
            [f"--name: a run named '{experiment.name}' exists and is another; choose another name"]
        )
