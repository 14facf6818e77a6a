"""Whose files are written, where, and under which names?"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from renalkit.phantom.ceus.study import PAIR_MARGIN
from renalkit.phantom.patients import Patient, draw_patient
from renalkit.store.files import sha256_bytes
from renalkit.usecases.phantom_plans import PhantomPlan
from renalkit.writers.dicom_phantom import PhantomIdentity

_DATES = ("20230110", "20230424", "20230905", "20240219", "20240617", "20241021")


def plan_settings(plan: PhantomPlan) -> dict[str, Any]:
    """What decides the files, as JSON holds it; parts that the kind does not use are left out."""
    unused = {"us": ("ceus", "ct", "pairs"), "ct": ("ceus", "pairs", "pictures", "size")}
    unused |= {"ceus": ("ct", "pictures", "size"), "cohort": ("ct", "pairs", "pictures")}
    found = asdict(plan)
    for name in unused[plan.kind]:
        del found[name]
    if plan.pairs is None or plan.margin == PAIR_MARGIN:
        del found["margin"]  # as it was before it could be chosen
    if plan.shapes is None:
        del found["shapes"]
    else:  # where the masks lie decides nothing
        found["shapes"]["files"] = [file.sha256 for file in plan.shapes.files]
    return json.loads(json.dumps(found))


@dataclass(frozen=True)
class Case:
    """One patient of a plan. folder: of the cohort."""

    plan: PhantomPlan
    patient: Patient
    folder: Path

    @classmethod
    def draw(cls, plan: PhantomPlan, index: int, folder: Path) -> Case:
        """Patient number `index` (from 0)."""
        patient = draw_patient(plan.patients, index)
        if plan.kind != "ct" and patient.positive is None:
            # A kidney without a mass has one label only.
            faults = replace(patient.faults, label_flipped=False)
            patient = replace(patient, faults=faults)
        return cls(plan, patient, folder)

    @property
    def names(self) -> tuple[str, ...]:
        """The patient, and the other patient the same files come under, if that is the fault."""
        name = self.patient.name
        return (name, f"{name}B") if self.patient.faults.duplicated else (name,)

    @property
    def truth(self) -> Path:
        """Folder of the patient's truth."""
        return self.folder / "truth" / self.patient.name

    @cached_property
    def _key(self) -> str:
        # Cohorts of different plans may meet in one archive: no identifier may be in both.
        text = json.dumps(plan_settings(self.plan), sort_keys=True)
        return sha256_bytes(text.encode())

    def identity(self, name: str, model: str) -> PhantomIdentity:
        """Header of the patient's one study, under one of the names."""
        patient = self.patient
        described = {"us": "Renal B-mode", "ceus": "Renal CEUS", "ct": "CT abdomen"}
        return PhantomIdentity(
            key=f"{self._key}/{name}",
            patient_id=name,
            patient_name=f"PHANTOM^{name}",
            sex=patient.covariates.sex,
            age_years=patient.covariates.age_years,
            date=_DATES[patient.index % len(_DATES)],
            time=f"{8 + patient.index % 10:02d}{(7 * patient.index) % 60:02d}00",
            institution=patient.site,
            manufacturer="Phantom",
            model=model,
            description=described.get(self.plan.kind, "Renal B-mode and CEUS"),
        )
