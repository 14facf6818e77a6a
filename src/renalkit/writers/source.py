"""What does a report need to know? Everything of a run as plain values, read by the use case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from renalkit.writers.figures import Course
from renalkit.writers.overlays import Tile
from renalkit.writers.wording import Estimate, finite

Json = Mapping[str, Any]

CLINICAL = "clinical"
"""The logistic model on facts about the patient; it is no network."""


@dataclass(frozen=True, slots=True)
class Case:
    """One scored frame of cases.csv; scores are None where they do not exist."""

    label: str
    fold: int
    patient: str
    study: str
    clip: int
    frame: int
    of_class: str
    scores: Mapping[str, float | None]
    unit: str
    note: str

    @property
    def place(self) -> tuple[str, str, int, int, int]:
        """Order among equal scores, so that a report does not depend on the order of files."""
        return (self.patient, self.study, self.clip, self.frame, self.fold)

    @property
    def sample(self) -> str:
        """The sample's key as one word."""
        return f"{self.study}.{self.clip}.{self.frame}"


@dataclass(frozen=True, slots=True)
class ChosenCase:
    """A case to show: why it was chosen ('best', 'median', 'worst'), and its picture."""

    case: Case
    rank: str
    tile: Tile


@dataclass(frozen=True, slots=True)
class FoldFacts:
    """One fold of one system as done.json has it."""

    label: str
    fold: int
    facts: Json


@dataclass(frozen=True, slots=True)
class ReportSource:
    """A whole run. Absent parts are None or empty and the report says so.

    check, record, comparisons, images, reader_ceiling, characteristics, subgroups, usefulness,
    readers, reproduction: JSON of the run. settings: resolved experiment. jobs: resolved settings
    of each system by label. toml: the experiment as given. folds: per fold its name and the
    patients of its parts.
    cards: by system name. layers: complexity.json by label. pictures: chosen cases by label;
    without_pictures: why there are none. mapped: labels of systems with maps of attention.
    authors: what reporting.toml says. tiles: of a run with scans, pictures of lesions by label.
    """

    name: str
    metrics: Json
    comparisons: Json | None = None
    check: Json | None = None
    record: Json | None = None
    images: Json | None = None
    reader_ceiling: Json | None = None
    characteristics: Json | None = None
    subgroups: Json | None = None
    lesions: Json | None = None
    coefficients: Json | None = None
    usefulness: Json | None = None
    readers: Json | None = None
    reproduction: Json | None = None
    settings: Json = field(default_factory=lambda: {})
    jobs: Mapping[str, Json] = field(default_factory=lambda: {})
    settings_digest: str = ""
    toml: str = ""
    split: Json = field(default_factory=lambda: {})
    cards: Mapping[str, Json] = field(default_factory=lambda: {})
    layers: Mapping[str, Json] = field(default_factory=lambda: {})
    courses: Mapping[str, Sequence[Course]] = field(default_factory=lambda: {})
    cases: Sequence[Case] = ()
    folds_done: Sequence[FoldFacts] = ()
    pictures: Mapping[str, Sequence[ChosenCase]] = field(default_factory=lambda: {})
    without_pictures: str = ""
    mapped: Sequence[str] = ()
    authors: Json = field(default_factory=lambda: {})
    tiles: Mapping[str, Sequence[Tile]] = field(default_factory=lambda: {})

    @property
    def scans(self) -> bool:
        """Whether the run is about CT scans, whose figures are other ones."""
        return self.metrics.get("kind") == "scans"

    @property
    def systems(self) -> list[Json]:
        return list(self.metrics["systems"])

    @property
    def networks(self) -> list[Json]:
        """Systems that see images."""
        return [s for s in self.systems if s["system"] != CLINICAL]

    @property
    def clinical_model(self) -> Json | None:
        """The model of facts, where there is one."""
        return next((s for s in self.systems if s["system"] == CLINICAL), None)

    def place(self, label: Any) -> int:
        """Where a system stands among those of the run: its colour and marker in every figure."""
        order = [s["label"] for s in self.systems]
        return order.index(label) if label in order else len(order)

    def fold_words(self, fold: int) -> str:
        """What a fold tests where each has its own name (a site, a scanner), else its number."""
        names = [str(f.get("name") or "") for f in self.split.get("folds", ())]
        own = fold < len(names) and names.count(names[fold]) == 1
        return names[fold] or str(fold) if own else str(fold)

    @property
    def segmenting(self) -> list[Json]:
        """Systems with segmentation figures."""
        return [s for s in self.systems if s.get("segmentation")]

    @property
    def classifying(self) -> list[Json]:
        """Systems with classification figures."""
        return [s for s in self.systems if s.get("classification")]

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(str(c) for c in self.metrics["task"]["classes"])

    @property
    def positive(self) -> str | None:
        """The class that counts as positive; None for more than two."""
        if len(self.classes) != 2:
            return None
        return self.metrics["task"].get("positive") or self.classes[1]

    @property
    def patient_known(self) -> bool:
        return bool(self.metrics["cohort"].get("patient_known", True))


ESTIMATE_HEAD = ("value", "low", "high", "level", "n", "unit", "method", "note")
"""Columns of an estimate in a CSV file beside a figure."""


def estimate_row(e: Estimate) -> tuple[Any, ...]:
    """The cells of these columns."""
    return (e.value, e.low, e.high, e.level, e.n, e.unit, e.method, e.note)


def estimate(raw: Json | None, name: str, why: str = "not computed for this unit") -> Estimate:
    """A named estimate of a group; `why` is the reason shown when it is null or absent."""
    found = None if raw is None else raw.get(name)
    return Estimate.of(found, why)


def why_none(system: Json, kind: str) -> str:
    """Why a system has no figures of a kind ('segmentation' or 'classification')."""
    if not system["folds"]:
        return "no fold of this system is finished"
    if system["task"] in (kind, "both"):
        return "no tested image has the truth this needs"
    return "this system gives no mask" if kind == "segmentation" else "this system gives no class"


OVER_IMAGES = "patient, mean over images"
"""Unit of a mean over images whose interval samples patients."""


def measured(system: Json, metric: str) -> Estimate | None:
    """The figure of a system that answers a published claim, None when it does not exist.

    Segmentation: mean over images, with patients as the sampled unit. Classification: patients.
    Time: mean over folds.
    """
    segmentation, classification = system.get("segmentation"), system.get("classification")
    if segmentation and metric in segmentation["pooled"]:
        found = Estimate.of(segmentation["pooled"][metric])
        return replace(found, unit=OVER_IMAGES) if found.unit == "patient" else found
    patient = classification["patient"] if classification else None
    if patient and patient.get(metric) is not None:
        return Estimate.of(patient[metric])
    if metric == "seconds_per_image":
        times = [t for t in (finite(f.get("ms_per_image")) for f in system["training"]) if t]
        if times:
            mean_s = sum(times) / len(times) / 1000
            return Estimate(mean_s, None, None, 0.95, len(times), "fold", "mean over folds")
    return None


METRIC_NAMES: Mapping[str, str] = {
    "dice": "Dice",
    "iou": "IoU",
    "hd95": "HD95",
    "assd": "ASSD",
    "nsd": "NSD",
    "recall": "Lesions found",
    "auc": "AUC",
    "accuracy": "Accuracy",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "f1": "F1",
    "kappa_quadratic": "Weighted kappa",
    "grade_error": "Error in grades",
    "rps": "RPS",
    "seconds_per_image": "Seconds per image",
}


def metric_name(metric: str) -> str:
    """A metric as readers write it."""
    return METRIC_NAMES.get(metric, metric)
