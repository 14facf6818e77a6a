"""How do the public KiTS data sets (2019, 2021, 2023) lie in a folder, and what do they say?

    case_00000/imaging.nii.gz
    case_00000/segmentation.nii.gz                    (2021: also aggregated_MAJ_seg.nii.gz)
    case_00000/instances/tumor_instance-1_annotation-2.nii.gz      (2021: segmentations/)
    kits.json, kits21.json or kits23.json

Labels are 1 kidney, 2 tumour, 3 cyst. The clinical file speaks of one operated tumour per case; it
is taken for the tumour where there is one. Where several are marked nobody says which it was, so
none gets histology, grade or class. Classes: AML by histology; cystic for cysts and multilocular
cystic carcinoma; every other tumour solid. Without the clinical file: tumour and cyst.

Sources: github.com/neheller/kits19, kits21, kits23; Heller et al., Medical Image Analysis 67 (2021)
101821.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from renalkit.domain.study import Covariate, Defect, GradeSystem
from renalkit.domain.volume import TUMOUR
from renalkit.errors import InputRefused, Reason
from renalkit.readers.contract import FileReport, Limits, Outcome, ReadContext, ReadResult
from renalkit.readers.covariates import OLDEST_YEARS
from renalkit.readers.ct_cases import CtCase, by_value, read_case
from renalkit.readers.ct_lesions import MarkedLesion
from renalkit.readers.stills import read_whole
from renalkit.store.files import parse_json

_CASE = re.compile(r"case_\d{5}")
_IMAGES = ("imaging.nii.gz", "imaging.nii")
_LABELS = (
    *("segmentation.nii.gz", "segmentation.nii", "aggregated_MAJ_seg.nii.gz"),
    "aggregated_MAJ_seg.nii",
)
_INSTANCE = re.compile(r"(tumor|cyst)_instance-(\d+)_annotation-(\d+)\.nii(\.gz)?")
_CLINICAL = re.compile(r"kits(19|21|23)?(_clinical)?\.json")
_INSTANCE_FOLDERS = ("instances", "segmentations")
CLASSES = ("AML", "cystic", "solid")
_CYSTIC = ("multilocular_cystic_rcc",)


def is_kits(files: Sequence[Path]) -> bool:
    """Whether there is a case folder with a scan in it."""
    return any(p.name in _IMAGES and _CASE.fullmatch(p.parent.name) for p in files)


def read_kits(files: Sequence[Path], context: ReadContext) -> Iterator[ReadResult]:
    """A study per case that has a scan; every other file skipped with its reason."""
    clinical, used = _clinical(files)
    for path in used:
        yield ReadResult(None, (FileReport(path, Outcome.USED),))
    cases: dict[Path, list[Path]] = {}
    rest: list[Path] = []
    for path in files:
        folder = next((f for f in (path.parent, path.parent.parent) if _is_case(f)), None)
        if path in used:
            continue
        if folder is None:
            rest.append(path)
        else:
            cases.setdefault(folder, []).append(path)
    for folder, found in sorted(cases.items()):
        case, others = _case(folder, found, clinical)
        rest += others
        if case is not None:
            yield read_case(case, context)
    for path in rest:
        why = (Defect(Reason.NOT_RECOGNISED, "no part of a KiTS case, or of one without scan"),)
        yield ReadResult(None, (FileReport(path, Outcome.SKIPPED, why),))


def _is_case(folder: Path) -> bool:
    return _CASE.fullmatch(folder.name) is not None


def _case(
    folder: Path, found: Sequence[Path], clinical: Mapping[str, Mapping[str, Any]]
) -> tuple[CtCase | None, list[Path]]:
    """The case of a folder (None without a scan) and the files that are no part of it."""
    direct = {p.name: p for p in found if p.parent == folder}
    image = next((direct[n] for n in _IMAGES if n in direct), None)
    if image is None:
        return None, list(found)
    labels = next((direct[n] for n in _LABELS if n in direct), None)
    instances: dict[str, list[Path]] = {}
    for path in sorted(found):
        match = _INSTANCE.fullmatch(path.name)
        if match and labels is not None and path.parent.name in _INSTANCE_FOLDERS:
            instances.setdefault(f"{match[1]}-{int(match[2]):03d}", []).append(path)
    # Tumours first, as in a map without instance files.
    named = {f"{'0' if n.startswith('tumor') else '1'}{n}": tuple(p) for n, p in instances.items()}
    about = clinical.get(folder.name)
    case = CtCase(
        name=folder.name,
        patient=folder.name,
        images=(image,),
        labels=labels,
        instances=named,
        person=_person(about) if about else {},
        facts=_Facts(about) if about else by_value,
        defects=() if about or not clinical else (Defect(Reason.NOT_IN_TABLE, "no clinical data"),),
    )
    own = set(case.files)
    return case, [p for p in found if p not in own]


def _clinical(files: Sequence[Path]) -> tuple[dict[str, Mapping[str, Any]], list[Path]]:
    """Records of the clinical file nearest to the top by case, and the file."""
    named = sorted(
        (p for p in files if _CLINICAL.fullmatch(p.name)), key=lambda p: (len(p.parts), p)
    )
    if not named:
        return {}, []
    records = parse_json(read_whole(named[0], Limits()), where=named[0].name)
    if not isinstance(records, list) or not all(
        isinstance(r, dict) and isinstance(r.get("case_id"), str) for r in records
    ):
        raise InputRefused(
            Reason.BAD_JSON,
            "a clinical file of another form",
            where=named[0].name,
            expected="a list of records with case_id",
            remedy="take the file of the data set, or remove it",
        )
    return {r["case_id"]: r for r in records}, [named[0]]


def _person(about: Mapping[str, Any]) -> dict[str, Covariate]:
    kept: dict[str, Covariate] = {}
    age, bmi = about.get("age_at_nephrectomy"), about.get("bmi")
    if isinstance(age, int | float) and 0 < age < 130:
        kept["age_years"] = min(int(age), OLDEST_YEARS)
    if about.get("gender") in ("male", "female"):
        kept["sex"] = "M" if about["gender"] == "male" else "F"
    if isinstance(bmi, int | float) and 5 < bmi < 100:
        kept["bmi"] = float(bmi)
    return kept


@dataclass(frozen=True, slots=True)
class _Facts:
    """What a clinical record says of the marked lesions."""

    about: Mapping[str, Any]

    def __call__(self, marked: Sequence[MarkedLesion]) -> list[Mapping[str, Any]]:
        single = sum(one.value == TUMOUR for one in marked) == 1
        known = self._tumour() if single else {}
        return [known if one.value == TUMOUR else {"label": "cystic"} for one in marked]

    def _tumour(self) -> Mapping[str, Any]:
        histology = str(self.about.get("tumor_histologic_subtype") or "")
        if not histology:
            return {}
        label = "AML" if histology == "angiomyolipoma" else "solid"
        facts: dict[str, Any] = {
            "label": "cystic" if histology in _CYSTIC else label,
            "histology": histology,
            "reference_standard": "histology",
        }
        grade = str(self.about.get("tumor_isup_grade") or "")
        if grade in ("1", "2", "3", "4"):
            facts |= {"grade": int(grade), "grade_system": GradeSystem.WHO_ISUP}
        return facts
