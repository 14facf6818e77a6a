"""How does a user make a cohort of simulated patients?

The cohort grows in a hidden folder beside the target and is renamed when it is whole, so that no
half cohort looks whole; called again after an interruption, the whole patients found there are
kept. Patients are made by several processes; the files are the same for any number of them.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from renalkit import __version__
from renalkit.errors import ConfigError, InputRefused, Reason, StoreError
from renalkit.phantom.ceus.console import Layout
from renalkit.phantom.ceus.study import CeusOptions
from renalkit.phantom.covariates import Target
from renalkit.phantom.ct.anatomy import CtPlan, KidneyPlan, Phase
from renalkit.phantom.faults import FaultDials
from renalkit.phantom.levels import LEVELS
from renalkit.phantom.patients import PatientPlan
from renalkit.store.files import (
    fsync_folder,
    locked,
    make_folder,
    read_json,
    sha256_bytes,
    write_json,
    write_text,
)
from renalkit.usecases.phantom_studies import PhantomPlan, table_text, write_patient
from renalkit.usecases.progress import Progress

_SUMMARY = "phantom.json"
_NOTE = """Simulated patients. Nothing in this folder shows a person. Research use only.

labels.csv, boxes.csv and readings.csv are what a study would have; truth/ holds what is true and
must not be seen by what is tested.
"""


def patient_plan(
    patients: int,
    seed: int,
    level: str,
    target: str,
    shares: tuple[float, float],
    faults: Sequence[str],
) -> PatientPlan:
    """The patients as the command line names them. shares: (positive, normal). faults:
    NAME=SHARE each.

    Raises:
        ConfigError: with every option that is impossible.
    """
    return PatientPlan(
        n_patients=patients,
        seed=seed,
        level=level,
        target=cast("Target", target),
        positive_share=shares[0],
        normal_share=shares[1],
        dials=_dials(faults),
    )


def us_plan(patients: PatientPlan, *, pictures: bool, size: int, uncompressed: bool) -> PhantomPlan:
    """B-mode stills as DICOM, or as pictures with masks."""
    quality = None if uncompressed else 90
    return PhantomPlan("us", patients, pictures=pictures, size=size, jpeg_quality=quality)


def ceus_plan(
    patients: PatientPlan,
    *,
    clip: tuple[float, float, float],
    screen: tuple[int, int, str | None],
    pairs: int | None,
    uncompressed: bool,
) -> PhantomPlan:
    """Contrast clips. clip: (seconds, frames per second, jitter). screen: (rows, cols, layout).

    Raises:
        ConfigError: an option is impossible.
    """
    rows, cols, layout = screen
    return PhantomPlan(
        "ceus",
        patients,
        ceus=_clip(clip, rows, cols, layout),
        pairs=pairs,
        jpeg_quality=None if uncompressed else 90,
    )


def cohort_plan(patients: PatientPlan, *, clip: tuple[float, float, float]) -> PhantomPlan:
    """B-mode stills and a contrast clip of the same patients."""
    return PhantomPlan("cohort", patients, ceus=_clip(clip, 600, 800, None))


def ct_plan(
    patients: int,
    seed: int,
    faults: Sequence[str],
    *,
    phases: Sequence[str],
    normal_share: float,
    matrix: int,
    slice_mm: float | None,
    kidneys: str,
) -> PhantomPlan:
    """CT scans.

    Raises:
        ConfigError: with every option that is impossible.
    """
    scan = CtPlan(
        normal_share=normal_share,
        phases=cast("tuple[Phase, ...]", tuple(phases)),
        matrix=matrix,
        slice_spacing_mm=slice_mm,
        kidneys=cast("KidneyPlan", kidneys),
    )
    scan = replace(scan, phases=tuple(Phase(phase) for phase in phases))
    return PhantomPlan("ct", PatientPlan(patients, seed, dials=_dials(faults)), ct=scan)


def _dials(faults: Sequence[str]) -> FaultDials:
    known = [one.name for one in fields(FaultDials)]
    shares: dict[str, float] = {}
    problems: list[str] = []
    for fault in faults:
        name, _, value = fault.partition("=")
        try:
            share = float(value)
        except ValueError:
            share = float("nan")
        if name not in known or not 0.0 <= share <= 1.0:
            problems.append(
                f"--fault {fault}: expected NAME=SHARE with a share within 0 to 1 and a name of "
                + ", ".join(known)
            )
        shares[name] = share
    if problems:
        raise ConfigError(problems, where="phantom")
    return FaultDials(**shares)


def _clip(
    clip: tuple[float, float, float], rows: int, cols: int, layout: str | None
) -> CeusOptions:
    seconds, rate, jitter = clip
    checks = (
        ("--seconds", seconds, 1.0, 3600.0),
        ("--fps", rate, 0.5, 60.0),
        ("--jitter", jitter, 0.0, 0.3),
        ("--rows", rows, 240, 2160),
        ("--cols", cols, 320, 3840),
    )
    problems = [
        f"{name} {value:g} is not within {low:g} to {high:g}"
        for name, value, low, high in checks
        if not low <= value <= high
    ]
    if layout is not None and layout not in tuple(Layout):
        problems.append(f"--layout {layout} is not one of {', '.join(Layout)}")
    if problems:
        raise ConfigError(problems, where="phantom")
    return CeusOptions(
        duration_s=seconds,
        rate_hz=rate,
        jitter=jitter,
        rows=rows,
        cols=cols,
        layout=None if layout is None else Layout(layout),
    )


def make_phantom(
    plan: PhantomPlan, folder: Path, progress: Progress, workers: int = 0
) -> dict[str, Any]:
    """Write the cohort of a plan; returns the summary that phantom.json holds.

    Args:
        folder: new or empty; a folder that holds this very cohort is left as it is.
        workers: processes; 0 is one per core.

    Raises:
        InputRefused: the folder holds something else.
        StoreError: the disk refused, or a process was killed; call again to go on.
    """
    settings = {"plan": _settings(plan), "version": __version__}
    made = _existing(folder, settings)
    if made is not None:
        return made
    partial = folder.parent / f".{folder.name}.phantom-partial"
    make_folder(partial)
    with locked(partial):
        _begin(partial, settings)
        _write_all(plan, partial, progress, workers or os.cpu_count() or 1)
        summary = _finish(plan, partial, settings)
    (partial / "settings.json").unlink()
    (partial / ".lock").unlink(missing_ok=True)
    if folder.exists():
        folder.rmdir()
    partial.replace(folder)
    fsync_folder(folder.parent)
    return summary


def _settings(plan: PhantomPlan) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return [plain(v) for v in value] if isinstance(value, list | tuple) else value

    return plain(asdict(plan))


def _existing(folder: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The summary when this cohort is there already; None when the folder is free."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    if (folder / _SUMMARY).is_file():
        summary = read_json(folder / _SUMMARY)
        if all(summary.get(key) == value for key, value in settings.items()):
            return summary
        found = "a phantom cohort of another plan"
    else:
        found = "a folder with files in it" if folder.is_dir() else "a file of that name"
    raise InputRefused(
        Reason.EXTRA_FILE,
        found,
        where=folder.name,
        expected="a new or empty folder",
        remedy="name another folder or remove this one first",
    )


def _begin(partial: Path, settings: dict[str, Any]) -> None:
    """Keep the whole patients of an interrupted call with the same settings, else start anew."""
    file = partial / "settings.json"
    if file.is_file() and read_json(file) == settings:
        return
    for item in partial.iterdir():
        if item.name != ".lock":
            shutil.rmtree(item) if item.is_dir() else item.unlink()
    write_json(file, settings)


def _write_all(plan: PhantomPlan, partial: Path, progress: Progress, workers: int) -> None:
    missing = [
        index
        for index in range(plan.patients.n_patients)
        if not (partial / "truth" / f"P{index + 1:04d}" / "patient.json").is_file()
    ]
    progress.stage("simulate patients", plan.patients.n_patients)
    progress.advance(plan.patients.n_patients - len(missing))
    if workers == 1 or len(missing) < 2:
        for index in missing:
            write_patient(plan, index, partial)
            progress.advance()
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(missing)), context, _quiet)
    try:
        waiting = [pool.submit(write_patient, plan, index, partial) for index in missing]
        for done in as_completed(waiting):
            done.result()
            progress.advance()
    except BrokenProcessPool as error:
        raise StoreError(
            "a process that makes patients was killed",
            where=partial.name,
            remedy="free memory or use fewer --workers; the same command goes on",
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in multiprocessing.active_children():
            child.terminate()


def _quiet() -> None:
    """One process per core: libraries inside it take one thread each; Ctrl-C ends it silently."""
    import signal

    import cv2

    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _finish(plan: PhantomPlan, partial: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Tables over all patients, and the summary."""
    records = [
        read_json(partial / "truth" / f"P{index + 1:04d}" / "patient.json")
        for index in range(plan.patients.n_patients)
    ]
    write_text(
        partial / "labels.csv", table_text([r for one in records for r in _labels(plan, one)])
    )
    write_text(partial / "truth" / "patients.csv", table_text([_truth_row(one) for one in records]))
    if plan.kind != "ct":
        for name in ("boxes", "outlines"):
            _join(partial, [one["patient"] for one in records], name)
        readings = [
            {"patient": one["patient"]} | reading for one in records for reading in one["readings"]
        ]
        if readings:
            write_text(partial / "readings.csv", table_text(readings))
        pairs = [
            pair | {"label": one["written_label"]}
            for one in records
            for pair in one.get("ceus", {}).get("pairs", ())
        ]
        if pairs:
            write_text(partial / "pairs.csv", table_text(pairs))
    write_text(partial / "README.txt", _NOTE)
    summary = settings | _summary(plan, records)
    summary["truth_sha256"] = sha256_bytes((partial / "truth" / "patients.csv").read_bytes())
    write_json(partial / _SUMMARY, summary)
    return summary


def _join(partial: Path, patients: list[str], name: str) -> None:
    """The patients' tables of one name as one table beside the pictures."""
    parts: list[str] = []
    for patient in patients:
        file = partial / "truth" / patient / f"{name}.csv"
        if file.is_file():
            head, _, body = file.read_text().partition("\n")
            parts.append(body if parts else f"{head}\n{body}")
    if parts:
        write_text(
            partial / ("boxes.csv" if name == "boxes" else "reader_boxes.csv"), "".join(parts)
        )


def _labels(plan: PhantomPlan, record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Lines of the label table: per picture for pictures, else per patient."""
    lesion = record["anatomy"]["lesion"]
    common = {
        "label": record["written_label"],
        "side": record["anatomy"]["side"],
        "size_mm": None if lesion is None else round(lesion["size_mm"], 1),
        "histology": record["histology"],
        "grade": record["grade"],
        "grade_system": None if record["grade"] is None else "WHO_ISUP",
        "site": record["site"],
        **record["covariates"],
    }
    if plan.kind == "ct":
        common = {"label": record["written_label"], **record["covariates"]}
    if plan.pictures:
        for image in record["images"]:
            yield {
                "patient": record["patient"],
                "image": image["file"],
                "mask": image["mask"],
                "spacing_mm": round(image["mm_per_px"], 6),
                "manufacturer": "Phantom",
                "model": record["scanner"]["name"],
            } | common
        return
    for name in record["copies"]:
        yield {"patient": name} | common


def _truth_row(record: dict[str, Any]) -> dict[str, Any]:
    ideal = record["ideal"] or {}
    faults = {name: value for name, value in record["faults"].items() if value}
    return {
        "patient": record["patient"],
        "label": record["label"],
        "histology": record["histology"],
        "grade": record["grade"],
        **{f"ideal_{name}": ideal.get(name) for name in ("bmode", "ceus", "both")},
        "faults": " ".join(sorted(faults)),
    }


def _summary(plan: PhantomPlan, records: list[dict[str, Any]]) -> dict[str, Any]:
    level = LEVELS[plan.patients.level]
    found: dict[str, Any] = {
        "patients_by_label": dict(sorted(Counter(r["label"] for r in records).items())),
        "n_patients": len(records),
        "n_images": sum(len(r.get("images", ())) for r in records),
        "n_frames": sum(r.get("ceus", {}).get("frames", 0) for r in records),
        "faults": dict(
            sorted(Counter(k for r in records for k, v in r["faults"].items() if v).items())
        ),
    }
    if plan.kind == "ct":
        return found
    stated = {"bmode": level.auc_single, "ceus": level.auc_single, "both": level.auc_both}
    found["level"] = {"name": level.name, "ideal_auc": stated}
    found["ideal_auc_of_these_patients"] = {name: _auc(records, name) for name in stated}
    return found


def _auc(records: list[dict[str, Any]], name: str) -> float | None:
    """AUC of an ideal observer on these patients; None unless both classes occur."""
    masses = [r for r in records if r["ideal"] is not None]
    scores = np.array([r["ideal"][name] for r in masses])
    positive = np.array([r["label"] in ("malignant", "high") for r in masses], bool)
    if positive.all() or not positive.any():
        return None
    difference = np.subtract.outer(scores[positive], scores[~positive])
    return round(float(((difference > 0) + 0.5 * (difference == 0)).mean()), 4)
