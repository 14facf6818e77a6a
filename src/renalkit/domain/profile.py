"""What does a cohort say about each patient? One value per patient and variable.

The table of patients, subgroups and the clinical model all look here, so that they speak of the
same patients and mean the same by a name. Of several lesions the index lesion speaks for the
patient: the largest of those that have the patient's class.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from renalkit.domain.cohort import Cohort
from renalkit.domain.splits import patient_facts
from renalkit.domain.study import (
    Boundary,
    Composition,
    Covariate,
    Echo,
    GradeSystem,
    Lesion,
    Outline,
    Pole,
    Side,
    Study,
)

YES, NO = "yes", "no"

_LEVELS: Mapping[str, tuple[str, ...]] = {
    "side": tuple(Side),
    "pole": tuple(Pole),
    "composition": tuple(Composition),
    "echo": tuple(Echo),
    "shape": tuple(Outline),
    "boundary": tuple(Boundary),
    "calcification": (NO, YES),
    "flow_grade": ("0", "1", "2", "3"),
    "typical": (NO, YES),
    **{f"grade_{system.value.lower()}": ("1", "2", "3", "4") for system in GradeSystem},
}
FINDINGS = ("pole", "composition", "echo", "shape", "boundary", "calcification", "flow_grade")
"""What an examiner sees, in the order of the table."""

GRADES = tuple(f"grade_{system.value.lower()}" for system in GradeSystem)

AFTER_THE_FACT = ("histology", *GRADES, "typical", "reference_standard")
"""Known only with the diagnosis: never an input of a model that predicts it."""

PLACES = ("site", "scanner")
"""Where and with what a patient was examined."""

OF_LESIONS = ("size_mm", "side", *FINDINGS, *AFTER_THE_FACT)
"""What only a patient with a lesion can have."""

_FIRST = ("age_years", "sex")


class Kind(StrEnum):
    NUMBER = "number"
    CATEGORY = "category"


@dataclass(frozen=True, slots=True)
class Variable:
    """One fact about patients. values: by patient, without those of whom it is not known.

    levels: of a category, in the order of a table; empty for numbers.
    """

    name: str
    kind: Kind
    values: Mapping[str, float | str]
    levels: tuple[str, ...] = ()


def patient_classes(cohort: Cohort) -> dict[str, str | None]:
    """Class of every patient: the positive one if any lesion has it, else the rarest; or None."""
    return {f.patient: f.stratum or None for f in patient_facts(cohort, {})}


def class_without_lesion(cohort: Cohort) -> str | None:
    """The class that means "no lesion here", if the task has one: all of its studies have none."""
    with_lesion = {le.label for s in cohort.studies for le in s.lesions}
    without = {s.label for s in cohort.studies if not s.lesions} - with_lesion
    return next((label for label in cohort.task.classes if label in without), None)


def facts_about(study: Study, lesion: Lesion | None) -> dict[str, float | str]:
    """Everything known by name: covariates of the study, facts of the lesion, site and scanner.

    Truth values become yes and no, whole numbers that are grades become text.
    """
    found: dict[str, Covariate | None] = dict(study.facts)
    if lesion is not None:
        own = lesion.findings
        found |= {
            "size_mm": lesion.size_mm,
            "side": lesion.side,
            **{name: getattr(own, name) for name in FINDINGS},
            "flow_grade": None if own.flow_grade is None else str(own.flow_grade),
            "histology": lesion.histology,
            "typical": lesion.typical,
            "reference_standard": lesion.reference_standard,
        }
        if lesion.grade_system is not None:
            found[f"grade_{lesion.grade_system.value.lower()}"] = str(lesion.grade)
    found["site"] = study.site
    known_scanner = study.scanner.manufacturer or study.scanner.model
    found["scanner"] = study.scanner.name if known_scanner else None
    return {name: _plain(value) for name, value in found.items() if value is not None}


def _plain(value: Covariate) -> float | str:
    if isinstance(value, bool):
        return YES if value else NO
    return str(value) if isinstance(value, str) else float(value)


def patient_variables(cohort: Cohort) -> tuple[Variable, ...]:
    """Every variable that is known of at least one patient, in the order of a table.

    Facts come from the study of the index lesion, and what that study lacks from the patient's
    other studies. Site and scanner are unknown for a patient who has several.
    """
    classes = patient_classes(cohort)
    by_patient: dict[str, list[Study]] = {p: [] for p in cohort.patients}
    for study in cohort.studies:
        by_patient[study.patient].append(study)
    known = {p: _facts_of(studies, classes[p]) for p, studies in by_patient.items()}
    names = {name for facts in known.values() for name in facts}
    others = sorted(names - {*_FIRST, *OF_LESIONS, *PLACES})
    order = [n for n in (*_FIRST, *others, *OF_LESIONS, *PLACES) if n in names]
    return tuple(_variable(name, known) for name in order)


def _facts_of(studies: Sequence[Study], label: str | None) -> dict[str, float | str]:
    candidates = [
        (-(lesion.size_mm or 0.0), lesion.key, study, lesion)
        for study in studies
        for lesion in study.lesions
        if lesion.label == label
    ]
    index = min(candidates, key=lambda c: c[:2], default=None)
    first = studies[0] if index is None else index[2]
    found = facts_about(first, None if index is None else index[3])
    for study in studies:
        found = facts_about(study, None) | found
    for name, values in (
        ("site", {s.site for s in studies}),
        ("scanner", {s.scanner.name for s in studies}),
    ):
        if len(values) > 1:
            found.pop(name, None)
    return found


def _variable(name: str, known: Mapping[str, Mapping[str, float | str]]) -> Variable:
    values = {p: facts[name] for p, facts in known.items() if name in facts}
    if all(isinstance(v, float) for v in values.values()):
        return Variable(name, Kind.NUMBER, values)
    words = {p: _word(v) for p, v in values.items()}
    return Variable(name, Kind.CATEGORY, words, _ordered(name, words.values()))


def _word(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _ordered(name: str, words: Iterable[str]) -> tuple[str, ...]:
    there = set(words)
    fixed = _LEVELS.get(name, (NO, YES) if there <= {YES, NO} else ())
    return (*(w for w in fixed if w in there), *sorted(there - set(fixed)))
