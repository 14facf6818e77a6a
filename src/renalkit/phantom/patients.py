"""Who are the simulated patients: class, mass, kidney, scanner, file, readers, faults?

Every patient has random streams of their own, one per matter, so that what one patient or one
matter draws never depends on another: patients can be made in any order and by any number of
processes, and a cine added to a patient leaves the stills as they were.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import IntEnum
from typing import Any, Literal

import numpy as np

from renalkit.errors import ConfigError
from renalkit.phantom.bmode.anatomy import Anatomy, Side, View, draw_anatomy, draw_view
from renalkit.phantom.bmode.lesion import lesion_features
from renalkit.phantom.bmode.picture import SCANNERS, Scanner
from renalkit.phantom.covariates import Covariates, Target, draw_covariates
from renalkit.phantom.faults import FaultDials, Faults, draw_faults
from renalkit.phantom.histology import Histology, choose_histology
from renalkit.phantom.levels import (
    LEVELS,
    Latents,
    Level,
    bmode_score,
    ceus_score,
    draw_latents,
    joint_score,
)
from renalkit.phantom.readings import READERS, Reading, read_case

Label = Literal["benign", "malignant", "low", "high", "normal"]

CLASSES: dict[Target, tuple[Label, Label]] = {
    "malignancy": ("benign", "malignant"),
    "grade": ("low", "high"),
}
"""Negative and positive class by target."""

_SITES = ("site-1", "site-2")
_SCANNER_SHARES = {"site-1": (0.5, 0.35, 0.15), "site-2": (0.15, 0.35, 0.5)}
_MOST_PATIENTS = 9999


class Stream(IntEnum):
    """Random streams of a patient."""

    CLASS = 0
    MASS = 1
    PLACE = 2
    VIEWS = 3
    FILE = 4
    FAULTS = 5
    READERS = 6
    CEUS = 7
    CT = 8


@dataclass(frozen=True, slots=True)
class PatientPlan:
    """Which patients to draw.

    n_patients: 1..9999. seed: the same seed gives the same patients. level: name of a difficulty.
    target: malignancy (benign, malignant) or grade (low: 1 or 2, high: 3 or 4; all malignant).
    positive_share: of the patients with a mass. normal_share: of all, without a mass.
    views: fewest and most pictures per patient. dials: faults put in on purpose.
    """

    n_patients: int
    seed: int = 0
    level: str = "default"
    target: Target = "malignancy"
    positive_share: float = 0.6
    normal_share: float = 0.0
    views: tuple[int, int] = (1, 4)
    dials: FaultDials = field(default_factory=FaultDials)

    def __post_init__(self) -> None:
        fewest, most = self.views
        problems: list[str] = []
        if not 1 <= self.n_patients <= _MOST_PATIENTS:
            problems.append(f"patients: {self.n_patients} is not within 1 to {_MOST_PATIENTS}")
        if self.seed < 0:
            problems.append(f"seed: {self.seed} is negative")
        if self.level not in LEVELS:
            problems.append(f"level: {self.level!r} is not one of {', '.join(LEVELS)}")
        if self.target not in CLASSES:
            problems.append(f"target: {self.target!r} is not one of {', '.join(CLASSES)}")
        if not 1 <= fewest <= most <= 9:
            problems.append(f"views: ({fewest}, {most}) is not 1 <= fewest <= most <= 9")
        for name in ("positive_share", "normal_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                problems.append(f"{name}: {getattr(self, name)} is not within 0 to 1")
        if problems:
            raise ConfigError(problems, where="phantom")


@dataclass(frozen=True, slots=True, eq=False)
class Patient:
    """One simulated patient and all that is true of them.

    name: P0001, ... label: class, or normal. positive: None without a mass, as are latents,
    histology, grade (WHO/ISUP, None for benign masses) and the ideal scores (log likelihood
    ratios of the ideal observers of B-mode, CEUS and both). readings: of all READERS.
    """

    name: str
    index: int
    seed: int
    label: Label
    positive: bool | None
    latents: Latents | None
    histology: Histology | None
    grade: int | None
    ideal: tuple[float, float, float] | None
    anatomy: Anatomy
    views: tuple[View, ...]
    scanner: Scanner
    site: str
    covariates: Covariates
    faults: Faults
    readings: tuple[Reading, ...]

    def stream(self, matter: Stream) -> np.random.Generator:
        """A fresh generator for a matter; always the same numbers."""
        return _stream(self.seed, self.index, matter)

    @property
    def side(self) -> Side:
        return self.anatomy.side

    @property
    def written_label(self) -> Label:
        """Class in the label table; another than the true one where the fault says so."""
        if self.faults.label_flipped and self.positive is not None:
            pair = next(pair for pair in CLASSES.values() if self.label in pair)
            return pair[0] if self.positive else pair[1]
        return self.label

    def truth(self) -> dict[str, Any]:
        """Everything as plain values."""
        latents = self.latents
        return {
            "patient": self.name,
            "label": self.label,
            "written_label": self.written_label,
            "histology": self.histology,
            "grade": self.grade,
            "latents": None
            if latents is None
            else {"bmode": latents.bmode.tolist(), "ceus": latents.ceus.tolist()},
            "ideal": None
            if self.ideal is None
            else dict(zip(("bmode", "ceus", "both"), self.ideal, strict=True)),
            "anatomy": asdict(self.anatomy),
            "views": [asdict(view) for view in self.views],
            "scanner": asdict(self.scanner),
            "site": self.site,
            "covariates": self.covariates.row(),
            "faults": asdict(self.faults),
            "readings": [asdict(reading) for reading in self.readings],
        }


def draw_patient(plan: PatientPlan, index: int) -> Patient:
    """Patient number `index`, counted from 0; independent of all others but for the class, whose
    shares are met over the whole cohort."""
    level = LEVELS[plan.level]
    label = _label(plan, index)
    positive = None if label == "normal" else label == CLASSES[plan.target][1]
    mass = _stream(plan.seed, index, Stream.MASS)
    latents = None if positive is None else draw_latents(level, positive=positive, rng=mass)
    features = None if latents is None else lesion_features(latents.bmode, mass)
    place = _stream(plan.seed, index, Stream.PLACE)
    side: Side = "right" if place.random() < 0.5 else "left"
    anatomy = draw_anatomy(features, side, place)
    site = _SITES[int(place.integers(len(_SITES)))]
    scanner = SCANNERS[int(place.choice(len(SCANNERS), p=_SCANNER_SHARES[site]))]
    views = _stream(plan.seed, index, Stream.VIEWS)
    count = int(views.integers(plan.views[0], plan.views[1] + 1))
    histology, grade = _pathology(plan, latents, positive, mass)
    return Patient(
        name=f"P{index + 1:04d}",
        index=index,
        seed=plan.seed,
        label=label,
        positive=positive,
        latents=latents,
        histology=histology,
        grade=grade,
        ideal=None if latents is None else _ideal(level, latents),
        anatomy=anatomy,
        views=tuple(draw_view(anatomy, views) for _ in range(count)),
        scanner=scanner,
        site=site,
        covariates=draw_covariates(
            plan.target,
            positive=bool(positive),
            rng=_stream(plan.seed, index, Stream.FILE),
        ),
        faults=draw_faults(
            plan.dials, positive=bool(positive), rng=_stream(plan.seed, index, Stream.FAULTS)
        ),
        readings=_readings(level, latents, positive, _stream(plan.seed, index, Stream.READERS)),
    )


def _stream(seed: int, index: int, matter: Stream) -> np.random.Generator:
    return np.random.default_rng([seed, int(matter), index])


def _label(plan: PatientPlan, index: int) -> Label:
    """The class; the shares are met to the nearest patient, in random order."""
    negative, positive = CLASSES[plan.target]
    normal = round(plan.n_patients * plan.normal_share)
    positives = round((plan.n_patients - normal) * plan.positive_share)
    order = np.random.default_rng([plan.seed, int(Stream.CLASS)]).permutation(plan.n_patients)
    place = int(order[index])
    if place < normal:
        return "normal"
    return positive if place < normal + positives else negative


def _ideal(level: Level, latents: Latents) -> tuple[float, float, float]:
    return bmode_score(level, latents), ceus_score(level, latents), joint_score(level, latents)


def _pathology(
    plan: PatientPlan,
    latents: Latents | None,
    positive: bool | None,
    rng: np.random.Generator,
) -> tuple[Histology | None, int | None]:
    """Histology and grade. Grading is studied in clear cell and papillary carcinoma (P3)."""
    if latents is None or positive is None:
        return None, None
    level = LEVELS[plan.level]
    if plan.target == "grade":
        histology = Histology.CCRCC if rng.random() < 0.85 else Histology.PRCC
        low, high = (3, 4) if positive else (1, 2)
        return histology, low if rng.random() < 0.7 else high
    histology = choose_histology(level, latents, positive=positive, rng=rng)
    if not positive or histology is Histology.CHRCC:  # chromophobe carcinoma is not graded
        return histology, None
    return histology, int(rng.choice(4, p=(0.1, 0.6, 0.22, 0.08))) + 1


def _readings(
    level: Level, latents: Latents | None, positive: bool | None, rng: np.random.Generator
) -> tuple[Reading, ...]:
    """What the readers say, from the same evidence as the ideal observer's."""
    if latents is None or positive is None:
        return ()
    both = (2 / (1 + level.correlation)) ** 0.5 * level.distance
    middle = both**2 / 2 * (1 if positive else -1)
    evidence = (joint_score(level, latents) - middle) / both
    return tuple(
        read_case(reader, positive=positive, evidence=evidence, rng=rng) for reader in READERS
    )
