"""Which fact about a lesion is to be told apart: its class, its histology or its grade?

The label table says all three of a lesion; a cohort asks one question. What is asked for becomes
the class of the lesion, and a study that does not know it is left out with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from enum import StrEnum

from renalkit.domain.study import Lesion, Study
from renalkit.errors import ConfigError


class Target(StrEnum):
    LABEL = "label"
    HISTOLOGY = "histology"
    GRADE = "grade"


GRADES = ("G1", "G2", "G3", "G4")
"""Classes of target `grade`, in rising order; those no lesion has are left out."""


def asked_of(study: Study, target: Target) -> tuple[Study, str | None]:
    """The study with what is asked for as its classes, and why it is left out (None: it is not).

    A grade is called G1 to G4, of the one system there is (`one_scale`). Studies without lesion
    have neither histology nor grade.
    """
    if target is Target.LABEL:
        return study, None
    lesions = tuple(replace(lesion, label=_fact(lesion, target)) for lesion in study.lesions)
    asked = replace(study, lesions=lesions, label=None)
    if not lesions:
        return asked, f"no lesion that could have a {target.value}"
    if all(lesion.label is None for lesion in lesions):
        return asked, f"no {target.value} is known"
    return asked, None


def one_scale(studies: Iterable[Study]) -> None:
    """Raises ConfigError for grades of two systems: Fuhrman 2 is not WHO/ISUP 2."""
    systems = {le.grade_system for s in studies for le in s.lesions} - {None}
    if len(systems) > 1:
        names = " and ".join(sorted(str(s) for s in systems))
        raise ConfigError(
            [f"--target: grades of {names} are not one scale; leave those of one system empty"]
        )


def _fact(lesion: Lesion, target: Target) -> str | None:
    if target is Target.HISTOLOGY:
        return lesion.histology
    return None if lesion.grade is None else GRADES[lesion.grade - 1]
