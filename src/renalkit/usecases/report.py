"""How does the report of a run come about? Reads the run folder, lets writers draw, keeps files.

Everything is rebuilt from what is stored: metrics.json, comparisons.json, predictions, histories.
The cohort is needed for pictures alone; without it the report says so.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from renalkit.domain.cohort import Cohort
from renalkit.domain.prediction import Prediction
from renalkit.domain.sample import Sample, b_mode_samples
from renalkit.errors import CheckFailed, ConfigError, StoreError
from renalkit.store.files import read_json, write_bytes, write_drawings, write_text
from renalkit.store.predictions import load_predictions
from renalkit.store.runs import RunFolder, amending_manifest
from renalkit.store.splits import load_split
from renalkit.systems import get_system
from renalkit.usecases.cascade_evaluate import KIND
from renalkit.usecases.cascade_report import cascade_cards, scan_courses, scan_tiles
from renalkit.usecases.experiment import jobs_of
from renalkit.usecases.parts import joined_data
from renalkit.usecases.progress import Progress
from renalkit.usecases.reporting import read_reporting
from renalkit.usecases.results import stored_experiment
from renalkit.usecases.transfer import initial_facts
from renalkit.writers.figures import Course
from renalkit.writers.overlays import Grey, Tile, grey_image
from renalkit.writers.pdf import page_pdf
from renalkit.writers.report import render_report
from renalkit.writers.source import Case, ChosenCase, FoldFacts, Json, ReportSource
from renalkit.writers.wording import number

SCHEMA = 1
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,63}")
_SCORES = ("dice", "iou", "hd95", "assd", "nsd", "area_error", "diameter_error")
_HIDDEN_LINES = ("both empty", "reference empty")


def write_report(
    folder: Path, cohort: Path | None, progress: Progress, *, pdf: bool = False
) -> Path:
    """Write report.html and figures/ of a run; equal content gives equal bytes.

    cohort: its folder when it is no longer where the experiment says. Pictures are left out, with
    a sentence saying so, when the experiment's own cohort is gone. pdf: report.pdf too; without it
    one of an earlier report is removed, for it would no longer be the same.

    Raises:
        ConfigError: a reporting.toml that cannot be used.
        MissingExtra: a PDF is asked for and cannot be made; nothing is written then.
        StoreError: no figures yet, a damaged run, or a `cohort` that is not the run's.
    """
    run = RunFolder(folder)
    progress.stage("report", 3)
    source = read_source(run, cohort)
    progress.advance(words="read")
    report = render_report(source)
    pages = page_pdf(report.html) if pdf else None
    progress.advance(words="drawn")
    with amending_manifest(run.path):
        write_drawings(run.figures, report.files)
        write_text(run.report, report.html)
        if pages is None:
            run.pdf.unlink(missing_ok=True)
        else:
            write_bytes(run.pdf, pages)
    progress.advance(words="written")
    return run.report


def read_source(run: RunFolder, cohort: Path | None, *, pictures: bool = True) -> ReportSource:
    """Everything the report tells, from the folder of a run; the cohort is read for pictures."""
    metrics = _metrics(run)
    labels = [_label(s["label"]) for s in metrics["systems"]]
    stored = _optional(run.experiment_json) or {}
    settings = stored.get("settings", {})
    scans = metrics.get("kind") == KIND
    cases = () if scans else _cases(run.cases)
    shown: dict[str, list[ChosenCase]] = {}
    tiles: dict[str, list[Tile]] = {}
    without, where = "Pictures were not asked for.", _Places.of(run, settings, cohort)
    if pictures and scans:
        tiles, without = _scan_pictures(run, metrics, where)
    elif pictures:
        shown, without = _pictures(run, metrics, cases, where)
    folds = {
        label: [int(f) for f in s["folds"]]
        for label, s in zip(labels, metrics["systems"], strict=True)
    }
    done = {
        (label, f): read_json(run.fold(label, f).done)
        for label in labels
        for f in folds[label]
        if run.fold(label, f).done.exists()
    }
    return ReportSource(
        name=str(settings.get("name") or run.path.name),
        metrics=metrics,
        comparisons=_optional(run.comparisons),
        check=_optional(run.check),
        record=_optional(run.record),
        images=_optional(run.images),
        reader_ceiling=_optional(run.reader_ceiling),
        characteristics=_optional(run.characteristics),
        subgroups=_optional(run.subgroups),
        lesions=_optional(run.lesions),
        coefficients=_optional(run.coefficients),
        usefulness=_optional(run.usefulness),
        readers=_optional(run.readers),
        reproduction=_optional(run.reproduction),
        settings=settings,
        jobs=_jobs(run),
        settings_digest=str(stored.get("digest", "")),
        toml=run.experiment_toml.read_text(encoding="utf-8")
        if run.experiment_toml.exists()
        else "",
        split=_split(run),
        cards=_cards([str(s["system"]) for s in metrics["systems"]])
        | cascade_cards([str(s["system"]) for s in metrics["systems"]]),
        layers={x: read_json(run.complexity(x)) for x in labels if run.complexity(x).exists()},
        courses=scan_courses(run, metrics["systems"])
        if scans
        else {
            label: [
                _course(run.fold(label, f).history, f, done.get((label, f), {}).get("best_epoch"))
                for f in folds[label]
                if run.fold(label, f).history.exists()
            ]
            for label in labels
        },
        cases=cases,
        folds_done=[FoldFacts(label, f, facts) for (label, f), facts in done.items()],
        pictures=shown,
        without_pictures=without,
        mapped=[x for x in labels if any((run.system(x) / "attention").glob("*.png"))],
        authors=read_reporting(run).plain,
        tiles=tiles,
    )


# ---- files of the run ----------------------------------------------------------------------


def _metrics(run: RunFolder) -> dict[str, Any]:
    remedy = "run 'renalkit evaluate' on this run first"
    if not run.metrics.exists():
        raise StoreError(
            "no figures yet", where=run.path.name, expected="metrics.json", remedy=remedy
        )
    metrics = read_json(run.metrics)
    known = isinstance(metrics, dict) and metrics.get("schema") == SCHEMA
    needed = {"cohort_digest", "split_digest", "task", "cohort", "systems"}
    if not known or not needed <= set(metrics):
        raise StoreError(
            "metrics of another form",
            where=run.metrics.name,
            expected=f"schema {SCHEMA}",
            remedy=remedy,
        )
    return metrics


def _label(value: Any) -> str:
    """A system's label, which is also a folder name; StoreError when it would lead elsewhere."""
    if not isinstance(value, str) or not _LABEL.fullmatch(value):
        raise StoreError(
            "a system's label is no label", where="metrics.json", remedy="evaluate the run again"
        )
    return value


def _optional(path: Path) -> dict[str, Any] | None:
    return read_json(path) if path.exists() else None


def _jobs(run: RunFolder) -> dict[str, Json]:
    """What every network was asked for, all defaults filled in, and the earlier run its weights
    began with; nothing for a bare run."""
    if not run.experiment_json.exists():
        return {}
    try:
        jobs = jobs_of(stored_experiment(run))
    except (ConfigError, StoreError):
        return {}
    found: dict[str, Json] = {}
    for job in jobs:
        earlier = initial_facts(run, job)
        found[job.label] = job.model_dump(mode="json", exclude={"init_from"}) | (
            {} if earlier is None else {"initial": earlier}
        )
    return found


def _split(run: RunFolder) -> Json:
    if not run.folds.exists():
        return {}
    split = load_split(run.folds)
    return {
        "plan": split.plan.value,
        "seed": split.seed,
        "folds": [
            {
                "name": f.name,
                "train": len(f.train),
                "validation": len(f.validation),
                "test": len(f.test),
            }
            for f in split.folds
        ],
    }


def _cards(systems: Sequence[str]) -> dict[str, Json]:
    """The Card of each system once; a system of a package no longer installed has none."""
    found: dict[str, Json] = {}
    for name in dict.fromkeys(systems):
        try:
            card = get_system(name).card
        except ConfigError:
            continue
        # Field by field: asdict would copy the read-only mapping of parameters, which it cannot.
        found[name] = {
            "title": card.title,
            "reference": card.reference,
            "summary": card.summary,
            "claims": [asdict(c) for c in card.claims],
            "open_choices": [asdict(c) for c in card.open_choices],
            "intended_use": card.intended_use,
        }
    return found


def _figure(text: str) -> float | None:
    """A cell as a finite number; None when it is empty, NaN or infinite."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def _course(path: Path, fold: int, best_epoch: int | None) -> Course:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = [n for n in (rows[0] if rows else {}) if n != "epoch"]
    return Course(
        fold,
        tuple(int(row["epoch"]) for row in rows),
        {name: tuple(_figure(row[name]) for row in rows) for name in names},
        best_epoch,
    )


def _cases(path: Path) -> tuple[Case, ...]:
    if not path.exists():
        return ()
    with path.open(encoding="utf-8", newline="") as file:
        return tuple(
            Case(
                label=row["label"],
                fold=int(row["fold"]),
                patient=row["patient"],
                study=row["study"],
                clip=int(row["clip"]),
                frame=int(row["frame"]),
                of_class=row["class"],
                scores={name: _figure(row.get(name) or "") for name in _SCORES},
                unit=row["unit"],
                note=row["note"],
            )
            for row in csv.DictReader(file)
        )


# ---- pictures ------------------------------------------------------------------------------


def choose_cases(cases: Sequence[Case]) -> list[tuple[str, Case]]:
    """The best, the median and the worst case with a lesion by Dice; fewer when there are fewer.

    Ties are settled by the cases' keys. Of an even number the lower middle is the median.
    """
    ranked = sorted(
        (c for c in cases if c.note not in _HIDDEN_LINES and c.scores.get("dice") is not None),
        key=lambda c: (c.scores["dice"], c.place),
    )
    if not ranked:
        return []
    places = {"best": len(ranked) - 1, "median": (len(ranked) - 1) // 2, "worst": 0}
    chosen: dict[int, str] = {}
    for rank, place in places.items():
        chosen.setdefault(place, rank)
    return [(rank, ranked[place]) for place, rank in chosen.items()]


def _pictures(
    run: RunFolder,
    metrics: Json,
    cases: Sequence[Case],
    where: _Places,
) -> tuple[dict[str, list[ChosenCase]], str]:
    """Chosen cases with their images, or why there are none."""
    cohort, why = _run_cohort(metrics, where)
    if cohort is None:
        return {}, why
    samples = {s.key.text: s for s in b_mode_samples(cohort)}
    found: dict[str, list[ChosenCase]] = {}
    for system in metrics["systems"]:
        label = str(system["label"])
        own = [c for c in cases if c.label == label and c.sample in samples]
        predictions: dict[int, Mapping[str, Prediction]] = {}
        chosen: list[ChosenCase] = []
        for rank, case in choose_cases(own):
            if case.fold not in predictions:
                table = load_predictions(run.fold(label, case.fold).test)
                predictions[case.fold] = {p.key.text: p for p in table}
            prediction = predictions[case.fold].get(case.sample)
            sample = samples[case.sample]
            attention = _attention(run.system(label) / "attention" / f"{case.sample}.png")
            chosen.append(
                ChosenCase(case, rank, _tile(rank, case, sample, (prediction, attention)))
            )
        if chosen:
            found[label] = chosen
    return found, ""


def _scan_pictures(
    run: RunFolder, metrics: Json, where: _Places
) -> tuple[dict[str, list[Tile]], str]:
    """Lesions on their scans, or why there are none."""
    cohort, why = _run_cohort(metrics, where)
    return ({}, why) if cohort is None else (scan_tiles(run, metrics["systems"], cohort), "")


@dataclass(frozen=True, slots=True)
class _Places:
    """Where the cohort of a run is. given: said by the user; remembered, external: where the
    experiment's cohort and that of an external test were."""

    given: Path | None
    remembered: Path | None
    external: Path | None

    @classmethod
    def of(cls, run: RunFolder, settings: Json, given: Path | None) -> _Places:
        """Paths in a run are relative to it."""
        said = settings.get("cohort"), (settings.get("split") or {}).get("external")
        return cls(given, *(run.path / p if isinstance(p, str) else None for p in said))


def _run_cohort(metrics: Json, where: _Places) -> tuple[Cohort | None, str]:
    """The cohort the run was made on, with the external one where it was tested on one; a given
    one must be it, a remembered one may be gone."""
    given, remembered = where.given, where.remembered
    needs = "Pictures are left out: they need the cohort"
    again = "Build the report again with --cohort."
    if given is None:
        if remembered is None or not remembered.is_dir():
            return None, f"{needs}, which is not where the experiment says. {again}"
        try:
            cohort, _ = joined_data(remembered, where.external)
        except (StoreError, CheckFailed, ConfigError) as error:
            return None, f"{needs}, which could not be read ({error.found}). {again}"
        if cohort.digest != metrics["cohort_digest"]:
            return None, f"{needs} as it was: it has changed since the run. {again}"
        return cohort, ""
    cohort, _ = joined_data(given, where.external)
    if cohort.digest != metrics["cohort_digest"]:
        raise StoreError(
            "this is not the cohort of the run",
            where=given.name,
            expected=f"digest {str(metrics['cohort_digest'])[:12]}",
            remedy="give the cohort the run was made on, or none",
        )
    return cohort, ""


def _tile(
    rank: str, case: Case, sample: Sample, drawn: tuple[Prediction | None, Grey | None]
) -> Tile:
    prediction, attention = drawn
    dice, hd95 = case.scores.get("dice"), case.scores.get("hd95")
    words = f"Dice {number(dice)}"
    if prediction is None or prediction.mask is None or not prediction.mask.area_px:
        words += ", nothing outlined"
    if hd95 is not None:
        words += f", HD95 {number(hd95, 1)} {case.unit}"
    return Tile(
        image=grey_image(sample.load().pixels),
        reference=sample.mask,
        prediction=None if prediction is None else prediction.mask,
        title=rank.capitalize(),
        words=f"{words}\n{case.of_class or 'class unknown'}, fold {case.fold}",
        attention=attention,
    )


def _attention(path: Path) -> Grey | None:
    """A stored attention map (s,s); None when there is none or it is no 8-bit grey picture."""
    if not path.is_file():
        return None
    found = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if found is None or found.ndim != 2 or found.dtype != np.uint8:
        return None
    return np.asarray(found, dtype=np.uint8)
