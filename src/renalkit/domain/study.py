"""One examination of one patient: clips, lesions, findings, and what was wrong with the files.

A raw identifier cannot be stored: keys are pseudonyms of a fixed form, checked here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from renalkit.domain.geometry import Box, MaskRLE
from renalkit.domain.image import Clip
from renalkit.errors import Reason

LOG = "log "
"""Before the name of a covariate: its natural logarithm."""

_KEY = re.compile(r"^[psl]-[0-9a-f]{20}(-\d+)?$")


def checked_key(key: str, prefix: str) -> str:
    """The key if it is a pseudonym ``<prefix>-<20 hex digits>[-n]``, else ValueError."""
    if not _KEY.match(key) or not key.startswith(prefix + "-"):
        raise ValueError(
            f"not a pseudonym: expected '{prefix}-' and 20 hex digits, "
            "made by the project's key (raw identifiers cannot be stored)"
        )
    return key


class Side(StrEnum):
    LEFT = "left"
    RIGHT = "right"


class Pole(StrEnum):
    UPPER = "upper"
    MIDDLE = "middle"
    LOWER = "lower"


class Composition(StrEnum):
    SOLID = "solid"
    CYSTIC = "cystic"
    MIXED = "mixed"


class Echo(StrEnum):
    HYPER = "hyper"
    ISO = "iso"
    HYPO = "hypo"
    ANECHOIC = "anechoic"
    MIXED = "mixed"


class Outline(StrEnum):
    REGULAR = "regular"
    IRREGULAR = "irregular"


class Boundary(StrEnum):
    CLEAR = "clear"
    FUZZY = "fuzzy"


class GradeSystem(StrEnum):
    """The two nuclear grading systems; a grade without its system is refused."""

    WHO_ISUP = "WHO_ISUP"
    FUHRMAN = "FUHRMAN"


class RoiOrigin(StrEnum):
    """Where a region of interest came from."""

    REFERENCE = "reference"
    PROPAGATED = "propagated"
    PREDICTED = "predicted"


@dataclass(frozen=True, slots=True)
class Findings:
    """Ultrasound findings of a lesion in the vocabulary of the papers; None is 'not recorded'."""

    pole: Pole | None = None
    composition: Composition | None = None
    echo: Echo | None = None
    shape: Outline | None = None
    boundary: Boundary | None = None
    calcification: bool | None = None
    flow_grade: int | None = None

    def __post_init__(self) -> None:
        if self.flow_grade is not None and self.flow_grade not in range(4):
            raise ValueError(f"colour-flow grade {self.flow_grade} is not one of 0, 1, 2, 3")


@dataclass(frozen=True, slots=True)
class Roi:
    """Where a lesion is on one frame of one clip of its study: a mask, a box, or both."""

    clip: int
    frame: int
    mask: MaskRLE | None = None
    box: Box | None = None
    origin: RoiOrigin = RoiOrigin.REFERENCE

    def __post_init__(self) -> None:
        if self.clip < 0 or self.frame < 0:
            raise ValueError(f"clip {self.clip}, frame {self.frame}: both count from 0")
        if self.mask is None and self.box is None:
            raise ValueError("a region of interest needs a mask or a box")


@dataclass(frozen=True, slots=True)
class Lesion:
    """One lesion. label is its class in the cohort's task (for instance benign, malignant)."""

    key: str
    label: str | None = None
    side: Side | None = None
    size_mm: float | None = None
    histology: str | None = None
    grade: int | None = None
    grade_system: GradeSystem | None = None
    findings: Findings = Findings()
    reference_standard: str | None = None
    typical: bool | None = None
    rois: tuple[Roi, ...] = ()

    def __post_init__(self) -> None:
        checked_key(self.key, "l")
        if (self.grade is None) != (self.grade_system is None):
            raise ValueError("a grade needs its system (WHO_ISUP or FUHRMAN) and the reverse")
        if self.grade is not None and self.grade not in (1, 2, 3, 4):
            raise ValueError(f"grade {self.grade} is not 1, 2, 3 or 4")
        if self.size_mm is not None and not 0 < self.size_mm < 1000:
            raise ValueError(f"lesion size {self.size_mm} mm is not plausible")
        places = [(r.clip, r.frame) for r in self.rois]
        if len(set(places)) != len(places):
            raise ValueError("two regions of interest of one lesion on the same frame: merge them")


@dataclass(frozen=True, slots=True)
class Defect:
    """Something wrong with the files of a study that did not prevent its use."""

    reason: Reason
    words: str
    clip: int | None = None


@dataclass(frozen=True, slots=True)
class Scanner:
    """The machine; either part may be unknown."""

    manufacturer: str | None = None
    model: str | None = None

    @property
    def name(self) -> str:
        return " ".join(p for p in (self.manufacturer, self.model) if p) or "unknown"


Covariate = str | float | int | bool


def _no_covariates() -> Mapping[str, Covariate]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Study:
    """One examination. label is the class of a study without lesions (for instance normal).

    patient_known is False when the source names no patients: then every study is its own
    patient and only duplicate clusters can tell which belong together.
    """

    key: str
    patient: str
    clips: tuple[Clip, ...]
    lesions: tuple[Lesion, ...] = ()
    label: str | None = None
    patient_known: bool = True
    site: str | None = None
    scanner: Scanner = Scanner()
    covariates: Mapping[str, Covariate] = field(default_factory=_no_covariates)
    defects: tuple[Defect, ...] = ()

    def __post_init__(self) -> None:
        checked_key(self.key, "s")
        checked_key(self.patient, "p")
        if not self.clips:
            raise ValueError("a study needs at least one clip")
        if len({lesion.key for lesion in self.lesions}) != len(self.lesions):
            raise ValueError("two lesions of one study share a key")
        if self.lesions and self.label is not None:
            raise ValueError("a study with lesions is labelled by its lesions, not as a whole")
        for lesion in self.lesions:
            for roi in lesion.rois:
                self._check_roi(roi)
        object.__setattr__(self, "covariates", MappingProxyType(dict(self.covariates)))

    @property
    def facts(self) -> Mapping[str, Covariate]:
        """The covariates that say something about the patient, not about files or their import.

        Figures of contrast curves are not among them: see `domain.pairs.perfusion_features`.
        """
        ours = ("split", "source_format")
        return {
            name: value
            for name, value in self.covariates.items()
            if name not in ours and not name.startswith(("margin_", "perfusion_"))
        }

    @property
    def numbers(self) -> Mapping[str, float]:
        """The covariates that are numbers; yes and no count as 1 and 0."""
        return {n: float(v) for n, v in self.covariates.items() if not isinstance(v, str)}

    def number(self, name: str) -> float | None:
        """A covariate that is a number, or "log NAME", its natural logarithm; None where the study
        does not know it, or it has no logarithm.

        A ratio r and its inverse are equally far from 1 only in logarithms.
        """
        value = self.covariates.get(name.removeprefix(LOG))
        if value is None or isinstance(value, str):
            return None
        if not name.startswith(LOG):
            return float(value)
        return math.log(value) if value > 0 else None

    def _check_roi(self, roi: Roi) -> None:
        if roi.clip >= len(self.clips) or roi.frame >= self.clips[roi.clip].n_frames:
            raise ValueError(f"region of interest on clip {roi.clip}, frame {roi.frame}: no such")
        clip = self.clips[roi.clip]
        if roi.mask is not None and (roi.mask.rows, roi.mask.cols) != (clip.rows, clip.cols):
            raise ValueError(
                f"mask of {roi.mask.rows} x {roi.mask.cols} "
                f"on an image of {clip.rows} x {clip.cols}"
            )
        if roi.box is not None and not roi.box.fits(clip.rows, clip.cols):
            raise ValueError(f"{roi.box} leaves the image of {clip.rows} x {clip.cols}")
