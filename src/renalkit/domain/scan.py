"""What was found on one CT scan: kidneys and masses drawn, masses numbered and named."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite

import numpy as np
import numpy.typing as npt

from renalkit.domain.prediction import SystemRef
from renalkit.domain.sample import SampleKey
from renalkit.domain.volume import CYST, TUMOUR, VolumeGrid

LabelArray = npt.NDArray[np.uint8]
PointMm = tuple[float, float, float]
BoxMm = tuple[PointMm, PointMm]
"""Lowest and highest (x, y, z), LPS mm."""


@dataclass(frozen=True, slots=True)
class FoundLesion:
    """One mass that a system marked.

    number: in the map of instances. scores: probabilities per class in the order of the task, None
    where nothing named it. confidence: mean probability of mass over its voxels. agreement: share
    of the voxels that any member of the ensemble calls mass here which all members call so; 1 for
    one member.
    """

    number: int
    scores: tuple[float, ...] | None
    confidence: float
    agreement: float

    def __post_init__(self) -> None:
        if not 1 <= self.number <= 255:
            raise ValueError(f"lesion number {self.number}, expected 1 to 255")
        for name, value in (("confidence", self.confidence), ("agreement", self.agreement)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} {value} of lesion {self.number} is not within 0 and 1")
        if self.scores is None:
            return
        if not all(isfinite(s) and -1e-9 <= s <= 1 + 1e-9 for s in self.scores):
            raise ValueError(f"scores {self.scores} are not probabilities")
        if abs(sum(self.scores) - 1) > 1e-6:
            raise ValueError(f"scores {self.scores} do not sum to 1")


@dataclass(frozen=True, slots=True, eq=False)
class FoundScan:
    """Everything a system says of a scan, on the scan's own grid.

    labels: (Z,Y,X) 0 neither, 1 kidney, 2 tumour, 3 cyst, as `LabelMap`. instances: (Z,Y,X) the
    number of each mass, 0 elsewhere; every mass is labelled tumour or cyst. fold proves that the
    patient was not trained on; None outside cross-validation. boxes_mm: where masses were looked
    for; None: everywhere.
    """

    key: SampleKey
    grid: VolumeGrid
    labels: LabelArray = field(repr=False)
    instances: LabelArray = field(repr=False)
    lesions: tuple[FoundLesion, ...]
    system: SystemRef
    fold: int | None = None
    boxes_mm: tuple[BoxMm, ...] | None = None

    def __post_init__(self) -> None:
        for name, array in (("labels", self.labels), ("instances", self.instances)):
            if array.shape != self.grid.shape or array.dtype != np.uint8:
                raise ValueError(f"{name} {array.dtype} {array.shape} on {self.grid.shape}")
        if int(self.labels.max(initial=0)) > CYST:
            raise ValueError(f"label {int(self.labels.max())}, expected 0 to {CYST}")
        # Slice by slice, since counting makes eight bytes of each voxel.
        there = np.zeros(256, np.bool_)
        for plane in self.instances:
            there |= np.bincount(plane.ravel(), minlength=256) > 0
        numbers = (np.flatnonzero(there[1:]) + 1).tolist()
        if sorted(lesion.number for lesion in self.lesions) != numbers:
            raise ValueError(f"lesions {[v.number for v in self.lesions]}, drawn {numbers}")
        if bool((self.labels[self.instances > 0] < TUMOUR).any()):
            raise ValueError("a numbered mass is not labelled as one")
