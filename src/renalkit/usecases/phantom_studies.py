"""How is one simulated patient written to disk?

    dicom/P0001/bmode-1.dcm               a B-mode still per view
    dicom/P0001/ceus.dcm                  the dual-panel contrast clip
    dicom/P0001/ct-nephrographic/0001.dcm a slice
    images/P0001_1.png, masks/            pictures instead of DICOM
    pairs/P0001/01-bmode.png, 01-ceus.png
    truth/P0001/                          what no reader of the files may see

A patient is whole when truth/P0001/patient.json is there: it is written last.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from renalkit.store.files import write_json
from renalkit.usecases.phantom_case import Case
from renalkit.usecases.phantom_ct import write_scan
from renalkit.usecases.phantom_plans import PhantomPlan
from renalkit.usecases.phantom_ultrasound import write_ultrasound


def write_patient(plan: PhantomPlan, index: int, folder: Path) -> None:
    """Write all files of patient number `index` (from 0) below the folder.

    Raises:
        StoreError: the disk refused.
    """
    case = Case.draw(plan, index, folder)
    record: dict[str, Any] = case.patient.truth()
    if plan.kind == "ct":
        # Ultrasound, histology and readings are of another mass.
        record = {name: record[name] for name in ("patient", "site", "covariates", "faults")}
        record |= write_scan(case)
    else:
        record |= write_ultrasound(case)
    write_json(record_of(folder, index), record | {"copies": list(case.names)})


def record_of(folder: Path, index: int) -> Path:
    """Where a patient's truth is; the patient is whole when it exists."""
    return folder / "truth" / f"P{index + 1:04d}" / "patient.json"
