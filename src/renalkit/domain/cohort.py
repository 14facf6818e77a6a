"""Which studies are analysed, which were screened and left out, and why."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from renalkit.domain.study import Study, checked_key
from renalkit.domain.volume import Volume


@dataclass(frozen=True, slots=True)
class ClassTask:
    """The question asked of every lesion: its classes in order, and which one is positive.

    positive is None for more than two classes (then figures are macro-averaged). ordered: the three
    or more classes are grades, in rising order, and an error of one is smaller than one of two.
    """

    classes: tuple[str, ...]
    positive: str | None = None
    ordered: bool = False

    def __post_init__(self) -> None:
        if len(self.classes) < 2 or len(set(self.classes)) != len(self.classes):
            raise ValueError(f"a task needs two or more different classes, got {self.classes}")
        if self.positive is not None and self.positive not in self.classes:
            raise ValueError(f"positive class '{self.positive}' is not among {self.classes}")
        if self.ordered and (len(self.classes) < 3 or self.positive is not None):
            raise ValueError("ordered classes are three or more, none of them the positive one")

    @property
    def plain(self) -> dict[str, Any]:
        """As JSON values; without `ordered` where it is not, as earlier versions wrote it."""
        found: dict[str, Any] = {"classes": list(self.classes), "positive": self.positive}
        return found | ({"ordered": True} if self.ordered else {})

    @classmethod
    def parse(cls, plain: Mapping[str, Any]) -> ClassTask:
        """From the values of `plain`."""
        ordered = plain.get("ordered") is True
        return cls(tuple(plain["classes"]), plain.get("positive"), ordered)

    @property
    def positive_index(self) -> int | None:
        """Position of the positive class of two, the second where none is named; None for more."""
        if len(self.classes) != 2:
            return None
        return 1 if self.positive is None else self.index(self.positive)

    def index(self, label: str) -> int:
        """Position of a label; ValueError names the known classes."""
        if label not in self.classes:
            raise ValueError(f"label '{label}' is not one of {', '.join(self.classes)}")
        return self.classes.index(label)


@dataclass(frozen=True, slots=True)
class Exclusion:
    """A screened study that is not analysed, with its reason in words and its class if known."""

    study: str
    patient: str
    reason: str
    label: str | None = None

    def __post_init__(self) -> None:
        checked_key(self.study, "s")
        checked_key(self.patient, "p")
        if not self.reason.strip():
            raise ValueError("an exclusion needs its reason")


@dataclass(frozen=True, slots=True)
class Flow:
    """The counts of a study flow chart; screened = included + excluded by construction."""

    screened_patients: int
    screened_studies: int
    included_patients: int
    included_studies: int
    included_images: int
    excluded: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Cohort:
    """The studies of one task. Order does not matter: studies are kept sorted by key."""

    name: str
    task: ClassTask
    studies: tuple[Study, ...]
    exclusions: tuple[Exclusion, ...] = ()

    def __post_init__(self) -> None:
        studies = tuple(sorted(self.studies, key=lambda s: s.key))
        exclusions = tuple(sorted(self.exclusions, key=lambda e: (e.study, e.reason)))
        keys = [s.key for s in studies] + [e.study for e in exclusions]
        double = sorted(k for k, n in Counter(keys).items() if n > 1)
        if double:
            raise ValueError(f"studies listed twice (included or excluded): {', '.join(double)}")
        object.__setattr__(self, "studies", studies)
        object.__setattr__(self, "exclusions", exclusions)

    @property
    def patients(self) -> tuple[str, ...]:
        """Included patients, sorted."""
        return tuple(sorted({s.patient for s in self.studies}))

    @property
    def flow(self) -> Flow:
        excluded = Counter(e.reason for e in self.exclusions)
        screened = {s.patient for s in self.studies} | {e.patient for e in self.exclusions}
        return Flow(
            screened_patients=len(screened),
            screened_studies=len(self.studies) + len(self.exclusions),
            included_patients=len(self.patients),
            included_studies=len(self.studies),
            included_images=sum(c.n_frames for s in self.studies for c in s.clips),
            excluded=tuple(sorted(excluded.items())),
        )

    @property
    def digest(self) -> str:
        """Content digest of pixels, lesions and labels; independent of order and of paths."""
        task = self.task
        order = ("ordered",) if task.ordered else ()
        total = hashlib.sha256(repr((task.classes, task.positive, *order)).encode())
        for study in self.studies:
            total.update(study_digest(study).encode())
        for item in self.exclusions:
            total.update(repr((item.study, item.reason)).encode())
        return total.hexdigest()

    def without(self, reasons: dict[str, str]) -> Cohort:
        """A cohort with the named studies moved to the exclusions; unknown keys are an error."""
        unknown = sorted(set(reasons) - {s.key for s in self.studies})
        if unknown:
            raise ValueError(f"cannot exclude studies that are not included: {', '.join(unknown)}")
        gone = tuple(
            Exclusion(s.key, s.patient, reasons[s.key], study_label(s))
            for s in self.studies
            if s.key in reasons
        )
        kept = tuple(s for s in self.studies if s.key not in reasons)
        return Cohort(self.name, self.task, kept, (*self.exclusions, *gone))


def study_label(study: Study) -> str | None:
    """The one class of a study: its own, or that of its lesions when they agree; else None."""
    if not study.lesions:
        return study.label
    labels = {lesion.label for lesion in study.lesions}
    return labels.pop() if len(labels) == 1 else None


def study_digest(study: Study) -> str:
    """Content digest of one study: pixel digests, geometry, lesions and labels."""
    parts = [
        repr((study.key, study.patient, study.label, study.site, study.scanner)),
        repr(sorted(study.covariates.items())),
        *(repr((c.sha256, c.mode.value, c.regions, c.spacing_mm, c.times_s)) for c in study.clips),
        *(repr((c.grid, c.phase, c.labels)) for c in study.clips if isinstance(c, Volume)),
        *(repr(lesion) for lesion in study.lesions),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
