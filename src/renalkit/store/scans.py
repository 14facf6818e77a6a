"""How results of CT scans lie on disk: STUDY.CLIP.FRAME.npz (labels, instances) and, beside it and
written last, STUDY.CLIP.FRAME.json (the rest)."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from renalkit.domain.prediction import SystemRef
from renalkit.domain.sample import SampleKey
from renalkit.domain.scan import BoxMm, FoundLesion, FoundScan
from renalkit.domain.volume import VolumeGrid, affine_of
from renalkit.errors import StoreError
from renalkit.store.files import make_folder, read_json, write_json, write_with

SCANS = "scans"
"""Folder of the tested scans in that of a fold."""


def save_scan(folder: Path, scan: FoundScan) -> None:
    """Write one scan, whole or not at all; equal content gives equal bytes."""
    make_folder(folder)

    def fill(path: Path) -> None:
        np.savez_compressed(path, labels=scan.labels, instances=scan.instances)

    write_with(folder / f"{scan.key.text}.npz", fill)
    write_json(
        folder / f"{scan.key.text}.json",
        {
            "patient": scan.key.patient,
            "study": scan.key.study,
            "clip": scan.key.clip,
            "fold": scan.fold,
            "system": scan.system.name,
            "label": scan.system.label,
            "weights_sha256": scan.system.weights_sha256,
            "affine_lps_mm": scan.grid.affine_lps_mm,
            "slice_at": scan.grid.slice_at,
            "boxes_mm": scan.boxes_mm,
            "lesions": [
                {
                    "number": lesion.number,
                    "scores": lesion.scores,
                    "confidence": lesion.confidence,
                    "agreement": lesion.agreement,
                }
                for lesion in scan.lesions
            ],
        },
    )


def saved_scans(folder: Path) -> tuple[Path, ...]:
    """What `load_scan` takes, in order."""
    return tuple(sorted(folder.glob("*.json")))


def load_scan(path: Path) -> FoundScan:
    """The scan of a JSON file and the arrays beside it; StoreError when either is damaged."""
    remedy = "remove the fold folder and run the experiment again; other folds are kept"
    facts = read_json(path)
    arrays = path.with_suffix(".npz")
    try:
        with np.load(io.BytesIO(arrays.read_bytes()), allow_pickle=False) as found:
            labels, instances = found["labels"], found["instances"]
        return FoundScan(
            key=SampleKey(facts["patient"], facts["study"], "", facts["clip"], 0),
            grid=_grid(labels.shape, facts),
            labels=labels,
            instances=instances,
            lesions=tuple(_lesion(row) for row in facts["lesions"]),
            system=_system(facts),
            fold=facts["fold"],
            boxes_mm=_boxes(facts["boxes_mm"]),
        )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise StoreError(
            f"unreadable results of a scan ({error})", where=path.name, remedy=remedy
        ) from error


def saved_system(path: Path) -> SystemRef:
    """Which system found what `load_scan` would give; its arrays are not read."""
    return _system(read_json(path))


def _system(facts: dict[str, Any]) -> SystemRef:
    return SystemRef(facts["system"], facts["label"], facts["weights_sha256"])


def _grid(shape: tuple[int, ...], facts: dict[str, Any]) -> VolumeGrid:
    z, y, x = shape
    at = facts["slice_at"]
    return VolumeGrid(
        (z, y, x), affine_of(facts["affine_lps_mm"]), None if at is None else tuple(at)
    )


def _boxes(rows: list[Any] | None) -> tuple[BoxMm, ...] | None:
    if rows is None:
        return None
    return tuple(((a, b, c), (d, e, f)) for (a, b, c), (d, e, f) in rows)


def _lesion(row: dict[str, Any]) -> FoundLesion:
    scores = None if row["scores"] is None else tuple(row["scores"])
    return FoundLesion(row["number"], scores, row["confidence"], row["agreement"])
