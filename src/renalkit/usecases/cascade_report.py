"""What does the report of a run with CT scans show beside its figures? Learning curves of the
stages, and slices through the largest lesions, the largest missed one and the largest false mark.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from renalkit.domain.cohort import Cohort
from renalkit.domain.geometry import MaskRLE
from renalkit.domain.scan import FoundScan
from renalkit.domain.volume import VolumeGrid
from renalkit.store.files import read_json
from renalkit.store.runs import RunFolder
from renalkit.store.scans import SCANS, load_scan
from renalkit.systems.ct_cascade import CASCADES
from renalkit.usecases.lesion_pictures import FIELD_MM, windowed
from renalkit.usecases.scan_truth import ScanTruth, scan_key, scan_truth
from renalkit.writers.figures import Course
from renalkit.writers.overlays import Grey, Tile

Row = Mapping[str, str]

_FOUND_BY = "iou_0_1"
_SIZE = "equivalent_diameter_mm"
_LARGEST = 4
_NO_FIGURES = ("step", "lr", "seconds")


def scan_courses(run: RunFolder, systems: Sequence[Mapping[str, Any]]) -> dict[str, list[Course]]:
    """The training of each stage by LABEL/STAGE; inner networks of the first stage left out."""
    found: dict[str, list[Course]] = {}
    for system in systems:
        label = str(system["label"])
        for fold in system["folds"]:
            for path in sorted(run.fold(label, int(fold)).path.glob("*/history.csv")):
                stage = path.parent.name
                if "-inner-" not in stage:
                    found.setdefault(f"{label}/{stage}", []).append(_course(path, int(fold)))
    order = ("kidney", "mass", "lesion")
    place = {name: k for k, name in enumerate(order)}
    return dict(
        sorted(
            found.items(),
            key=lambda item: place.get(item[0].partition("/")[2].partition("-")[0], len(order)),
        )
    )


def _course(path: Path, fold: int) -> Course:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = [n for n in (rows[0] if rows else {}) if n not in _NO_FIGURES]
    kept = path.with_suffix(".json")
    return Course(
        fold,
        tuple(int(row["step"]) for row in rows),
        {name: tuple(_number(row[name]) for row in rows) for name in names},
        read_json(kept)["best_step"] if kept.exists() else None,
    )


def _number(text: str) -> float | None:
    """A cell as a finite number; None when it is empty, NaN or infinite."""
    value = float(text or "nan")
    return value if isfinite(value) else None


def cascade_cards(systems: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The Card of each of the systems that is a cascade."""
    return {
        one.name: {
            "title": one.card.title,
            "reference": one.card.reference,
            "summary": one.card.summary,
            "claims": [asdict(c) for c in one.card.claims],
            "open_choices": [asdict(c) for c in one.card.open_choices],
            "intended_use": one.card.intended_use,
        }
        for one in CASCADES
        if one.name in systems
    }


# ---------------------------------------------------------------- pictures


def scan_tiles(
    run: RunFolder, systems: Sequence[Mapping[str, Any]], cohort: Cohort
) -> dict[str, list[Tile]]:
    """Pictures of chosen lesions by label; chosen from scan_lesions.csv and scan_marks.csv."""
    lesions, marks = (_rows(run.path / f"scan_{name}.csv") for name in ("lesions", "marks"))
    found: dict[str, list[Tile]] = {}
    for label in (str(s["label"]) for s in systems):
        own = [r for r in lesions if r["label"] == label]
        vain = [r for r in marks if r["label"] == label and not r[f"lesion_{_FOUND_BY}"]]
        tiles = [
            _tile(run, cohort, row, title)
            for title, row in (*chosen_lesions(own), *_first("Largest false mark", vain))
        ]
        if tiles:
            found[label] = tiles
    return found


def _rows(path: Path) -> list[Row]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def chosen_lesions(rows: Sequence[Row]) -> list[tuple[str, Row]]:
    """The largest lesions of different patients, and the largest that was missed."""
    chosen: list[tuple[str, Row]] = []
    ranked = sorted(rows, key=_falling)
    for row in ranked:
        if len(chosen) < _LARGEST and row["patient"] not in {r["patient"] for _, r in chosen}:
            chosen.append((f"Large lesion {len(chosen) + 1}", row))
    missed = [r for r in ranked if not r[f"mark_{_FOUND_BY}"] and r not in [c for _, c in chosen]]
    return [*chosen, *_first("Largest missed", missed)]


def _falling(row: Row) -> tuple[float, str, str, int]:
    number = int(row.get("lesion") or row["mark"])
    return (-float(row[_SIZE]), row["patient"], row["study"], number)


def _first(title: str, rows: Sequence[Row]) -> list[tuple[str, Row]]:
    return [(title, min(rows, key=_falling))] if rows else []


def _tile(run: RunFolder, cohort: Cohort, row: Row, title: str) -> Tile:
    study = next(s for s in cohort.studies if s.key == row["study"])
    clip = int(row["clip"])
    truth = scan_truth(study, clip)
    name = f"{scan_key(study, clip).text}.json"
    scan = load_scan(run.fold(row["label"], int(row["fold"])).path / SCANS / name)
    is_lesion = "lesion" in row
    here = (
        truth.instances == int(row["lesion"]) if is_lesion else scan.instances == int(row["mark"])
    )
    z, y, x = np.argwhere(here).mean(axis=0).tolist()
    there = np.flatnonzero(here.any(axis=(1, 2)))
    k = int(there[np.abs(there - z).argmin()])
    grey, reference, prediction = _cut(truth, scan, k, (y, x))
    size = f"{float(row[_SIZE]):.0f} mm"
    if is_lesion:
        called = row[f"called_{_FOUND_BY}"] or "unnamed"
        said = f"called {called}" if row[f"mark_{_FOUND_BY}"] else "not found"
        words = f"{row['class'] or 'class unknown'}, {size}; {said}"
    else:
        words = f"{size}, called {row['called'] or 'unnamed'}"
    words += f"\nslice {k + 1} of {here.shape[0]} from below, fold {row['fold']}"
    return Tile(grey, reference, prediction, title, words)


def _cut(
    truth: ScanTruth, scan: FoundScan, k: int, centre: tuple[float, float]
) -> tuple[Grey, MaskRLE, MaskRLE]:
    """Part of a slice with square pixels, and the masses of reference and system on it."""
    grid = truth.volume.grid
    box, size = _around(grid, centre)
    grey = windowed(np.asarray(truth.volume.pixels[k])[box])
    shown = cv2.resize(grey, size, interpolation=cv2.INTER_LINEAR).astype(np.uint8)
    masks = [_resized(one.instances[k][box] > 0, size) for one in (truth, scan)]
    return shown, masks[0], masks[1]


def _resized(mask: npt.NDArray[np.bool_], size: tuple[int, int]) -> MaskRLE:
    return MaskRLE.encode(
        cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    )


def _around(
    grid: VolumeGrid, centre: tuple[float, float]
) -> tuple[tuple[slice, slice], tuple[int, int]]:
    """Rows and columns that show the field around a place, and their size as (width, height) in
    square pixels of at most 0.6 mm."""
    _, dy, dx = grid.spacing_mm
    parts: list[slice] = []
    for at, step, most in zip(centre, (dy, dx), grid.shape[1:], strict=True):
        n = min(most, max(1, round(FIELD_MM / step)))
        first = min(max(0, round(at - n / 2)), most - n)
        parts.append(slice(first, first + n))
    rows, cols = (part.stop - part.start for part in parts)
    step = min(dy, dx, 0.6)
    return (parts[0], parts[1]), (max(1, round(cols * dx / step)), max(1, round(rows * dy / step)))
