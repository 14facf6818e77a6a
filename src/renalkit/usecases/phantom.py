"""How does a user make a cohort of simulated patients?

The cohort grows in a hidden folder beside the target and is put in place when it is whole, so that
no half cohort looks whole; called again after an interruption, the whole patients found there are
kept. Patients are made by several processes; the files are the same for any number of them.

    .NAME.phantom-partial/settings.json   of the interrupted call
    .NAME.phantom-partial/cohort/         becomes NAME
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import as_completed
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from renalkit import __version__
from renalkit.errors import InputRefused, Reason
from renalkit.phantom.levels import LEVELS
from renalkit.store.files import (
    clean_temporaries,
    locked,
    make_folder,
    move_folder,
    read_json,
    refused,
    sha256_file,
    write_json,
    write_text,
)
from renalkit.usecases.phantom_case import plan_settings
from renalkit.usecases.phantom_plans import PhantomPlan
from renalkit.usecases.phantom_shapes import check_masks
from renalkit.usecases.phantom_studies import record_of, write_patient
from renalkit.usecases.phantom_tables import (
    join_tables,
    label_rows,
    lesion_rows,
    pair_rows,
    reading_rows,
    table_file,
    truth_row,
)
from renalkit.usecases.processes import interrupts_held, one_thread_each, processes
from renalkit.usecases.progress import Progress

_SUMMARY = "phantom.json"
_NOTE = """Simulated patients. Nothing in this folder shows a person. Research use only.

The tables are what a study would have; truth/ holds what is true and must not be seen by what is
tested.
"""
_INGEST = """
To read it, in this folder:

    renalkit ingest {} -o ../cohorts/phantom
"""
_DICOM = "dicom --labels labels.csv --annotations boxes.csv"
_SCANS = "dicom --labels lesions.csv"


def make_phantom(
    plan: PhantomPlan, folder: Path, progress: Progress, workers: int = 0
) -> dict[str, Any]:
    """Write the cohort of a plan; returns the summary that phantom.json holds.

    Args:
        folder: new or empty; a folder that holds this very cohort is left as it is.
        workers: processes; 0 is one per core.

    Raises:
        InputRefused: the folder holds something else.
        ConfigError: masks that cannot be painted into, all of them.
        StoreError: the disk refused, or a process was killed; call again to go on.
        Locked: another process makes this cohort.
    """
    folder = folder.resolve()
    partial = folder.parent / f".{folder.name}.phantom-partial"
    settings = {"plan": plan_settings(plan), "version": __version__}
    found = _existing(folder, settings)
    if found is None:
        with locked(partial):
            # Another process may have ended its work a moment ago.
            found = _existing(folder, settings)
            if found is None:
                if plan.shapes is not None:
                    check_masks(plan.shapes, progress)
                cohort = _begin(partial, settings)
                _write_all(plan, cohort, progress, workers or os.cpu_count() or 1)
                found = _finish(plan, cohort, settings)
                move_folder(cohort, folder)
    shutil.rmtree(partial, ignore_errors=True)
    return found


def _existing(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """The summary when this cohort is there already; None when the place is free.

    Raises:
        InputRefused: it is not free. StoreError: it cannot be looked at.
    """
    try:
        if not folder.exists():
            return None
        taken = not folder.is_dir() or any(folder.iterdir())
        whole = taken and (folder / _SUMMARY).is_file()
        fixed = folder.is_mount() or folder == Path.cwd()
    except OSError as error:
        raise refused(error, folder) from error
    if not taken and not fixed:
        return None
    found = "a folder with files in it" if folder.is_dir() else "a file of that name"
    if whole:
        summary = read_json(folder / _SUMMARY)
        if all(summary.get(key) == value for key, value in settings.items()):
            return summary
        found = "a phantom cohort of another plan"
    elif not taken:
        found = "the working folder or a whole disk, which cannot be put in place at once"
    raise InputRefused(
        Reason.EXTRA_FILE,
        found,
        where=str(folder.name or folder),
        expected="a new or empty folder",
        remedy="name another folder" + (" or remove this one first" if taken else " inside it"),
    )


def _begin(partial: Path, settings: Mapping[str, Any]) -> Path:
    """The growing cohort: the rest of an interrupted call with the same settings, else empty."""
    file, cohort = partial / "settings.json", partial / "cohort"
    if not file.is_file() or read_json(file) != settings:
        shutil.rmtree(cohort, ignore_errors=True)
        write_json(file, settings)
    make_folder(cohort)
    clean_temporaries(cohort)
    return cohort


def _write_all(plan: PhantomPlan, cohort: Path, progress: Progress, workers: int) -> None:
    total = plan.patients.n_patients
    missing = [i for i in range(total) if not record_of(cohort, i).is_file()]
    progress.stage("simulate patients", total)
    progress.advance(total - len(missing))
    if workers == 1 or len(missing) < 2:
        for index in missing:
            write_patient(plan, index, cohort)
            progress.advance()
        return
    with processes("makes patients", min(workers, len(missing)), one_thread_each) as pool:
        with interrupts_held():  # a process that is being started would show where it was hit
            waiting = [pool.submit(write_patient, plan, index, cohort) for index in missing]
        for done in as_completed(waiting):
            done.result()
            progress.advance()


def _finish(plan: PhantomPlan, cohort: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Tables over all patients, and the summary."""
    indices = range(plan.patients.n_patients)
    folders = [record_of(cohort, index).parent for index in indices]
    for name in ("boxes", "regions"):
        join_tables((folder / f"{name}.csv" for folder in folders), cohort / f"{name}.csv")
    join_tables((folder / "outlines.csv" for folder in folders), cohort / "reader_boxes.csv")
    tally = _Tally()
    truth = cohort / "truth" / "patients.csv"
    with ExitStack() as stack:
        names = ("labels", "lesions", "readings", "pairs")
        labels, lesions, readings, pairs, truths = (
            stack.enter_context(table_file(path))
            for path in (*(cohort / f"{n}.csv" for n in names), truth)
        )
        for index in indices:
            record = read_json(record_of(cohort, index))
            for add, rows in (
                (labels, label_rows(plan, record)),
                (lesions, lesion_rows(plan, record)),
                (readings, reading_rows(record)),
                (pairs, pair_rows(record)),
                (truths, [truth_row(plan, record)]),
            ):
                for row in rows:
                    add(row)
            tally.count(record)
    write_text(cohort / "README.txt", _note(plan))
    summary = dict(settings) | tally.summary(plan) | {"truth_sha256": sha256_file(truth)}
    write_json(cohort / _SUMMARY, summary)
    return summary


def _note(plan: PhantomPlan) -> str:
    """What a newcomer should know of the folder."""
    if plan.kind == "ct":
        return _NOTE + _INGEST.format(_SCANS)
    plain = plan.pictures or plan.pairs is not None
    return _NOTE + _INGEST.format("." if plain else _DICOM)


@dataclass(slots=True)
class _Tally:
    """What a cohort holds, counted patient by patient."""

    labels: Counter[str] = field(default_factory=Counter[str])
    faults: Counter[str] = field(default_factory=Counter[str])
    holds: Counter[str] = field(default_factory=Counter[str])
    positive: list[bool] = field(default_factory=list[bool])
    ideal: dict[str, list[float]] = field(
        default_factory=lambda: {name: [] for name in ("bmode", "ceus", "both")}
    )

    def count(self, record: Mapping[str, Any]) -> None:
        ceus = record.get("ceus", {})
        self.labels[record["label"]] += 1
        self.faults.update(name for name, value in record["faults"].items() if value)
        self.holds["images"] += len(record.get("images", ()))
        self.holds["frames"] += ceus.get("frames", 0)
        self.holds["pairs"] += len(ceus.get("pairs", ()))
        self.holds["slices"] += record.get("slices", 0)
        if record.get("ideal") is not None:
            self.positive.append(record["label"] in ("malignant", "high"))
            for name, scores in self.ideal.items():
                scores.append(record["ideal"][name])

    def summary(self, plan: PhantomPlan) -> dict[str, Any]:
        found: dict[str, Any] = {
            "patients_by_label": dict(sorted(self.labels.items())),
            "n_patients": self.labels.total(),
            **{f"n_{name}": number for name, number in self.holds.items()},
            "faults": dict(sorted(self.faults.items())),
        }
        if plan.kind == "ct":
            return found
        level = LEVELS[plan.patients.level]
        stated = {"bmode": level.auc_single, "ceus": level.auc_single, "both": level.auc_both}
        found["level"] = {"name": level.name, "ideal_auc": stated}
        from renalkit.metrics.classification import auc  # slow to load, and not for every process

        both = 0 < sum(self.positive) < len(self.positive)
        truth = np.array(self.positive)
        found["ideal_auc_of_these_patients"] = {
            name: round(auc(truth, np.array(scores)), 4) if both else None
            for name, scores in self.ideal.items()
        }
        return found


def phantom_words(summary: Mapping[str, Any], folder: Path) -> str:
    """What was made, for a person."""
    names = {"images": "B-mode pictures", "frames": "contrast frames", "pairs": "frame pairs"}
    names["slices"] = "CT slices"
    held = [f"{summary[f'n_{k}']} {words}" for k, words in names.items() if summary[f"n_{k}"]]
    count = summary["n_patients"]
    people = f"{count} simulated patient{'s' if count > 1 else ''}"
    return ", ".join([people, *held]) + f": {folder}"
