"""Which masses does a segmented CT scan hold? One row per mass, with everything measured on it.

A row is plain JSON; units are part of every name. What a system said of a mass stands beside what
was measured; what cannot be known is None, with the reason in `notes` or in the part of the score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from renalkit import RESEARCH_ONLY
from renalkit.domain.image import PixelStack
from renalkit.domain.scan import FoundLesion, FoundScan
from renalkit.domain.volume import TUMOUR, Phase, Volume, VolumeGrid
from renalkit.errors import InputRefused, Reason
from renalkit.metrics.nephrometry import CIndex, Nephrometry, Part, Score, nephrometry
from renalkit.metrics.volume_lesions import (
    LesionMeasures,
    ScanMeasures,
    connected_instances,
    mean_hu,
    measure_lesions,
)

Json = dict[str, Any]
Bytes = npt.NDArray[np.uint8]

SAME_VOXELS = 0.1
"""Grids whose voxels lie at most so far apart, in voxels, are one."""

UNKNOWN_PHASE = "unknown-phase"

_FLAT = "one slice: no volumes, no place in the kidney, no scores; sides by its middle"


@dataclass(frozen=True, slots=True, eq=False)
class LabelledScan:
    """A segmentation and what there is to measure it on.

    labels: (Z,Y,X) 0 neither, 1 kidney, 2 tumour, 3 cyst. instances: number of each lesion; None:
    parts that hang together. volumes: scans on the same grid, of one phase each. shown: a scan to
    draw on, where none of them may be measured. classes: known class by lesion. said: what a system
    said of each. class_names: in the order of its scores. notes: what is to be known of the scan.
    """

    name: str
    grid: VolumeGrid
    labels: Bytes = field(repr=False)
    instances: Bytes | None = field(default=None, repr=False)
    volumes: Sequence[Volume] = field(default=(), repr=False)
    shown: Volume | None = field(default=None, repr=False)
    classes: Mapping[int, str] = field(default_factory=dict[int, str])
    said: Mapping[int, FoundLesion] = field(default_factory=dict[int, FoundLesion])
    class_names: Sequence[str] = ()
    notes: Sequence[str] = ()


def found_scan(
    found: FoundScan, volumes: Sequence[Volume], class_names: Sequence[str], name: str = ""
) -> LabelledScan:
    """What a system found, as a labelled scan; each class is the one with the highest score.

    Raises:
        ValueError: another number of classes than scores.
    """
    classes: dict[int, str] = {}
    for lesion in found.lesions:
        if lesion.scores is None:
            continue
        if len(lesion.scores) != len(class_names):
            raise ValueError(f"{len(lesion.scores)} scores of classes {list(class_names)}")
        classes[lesion.number] = class_names[int(np.argmax(lesion.scores))]
    return LabelledScan(
        name or found.key.text,
        found.grid,
        found.labels,
        found.instances,
        volumes,
        classes=classes,
        said={lesion.number: lesion for lesion in found.lesions},
        class_names=class_names,
    )


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredScan:
    """A labelled scan with its measures. scan.instances is never None here.

    unknown_hu: mean HU by lesion where the contrast phase is unknown.
    """

    scan: LabelledScan
    instances: Bytes = field(repr=False)
    measures: ScanMeasures
    unknown_hu: Mapping[int, float]
    notes: tuple[str, ...]

    def as_json(self) -> Json:
        """The scan with a row per lesion."""
        sides = {side.value: mm3 for side, mm3 in self.measures.kidney_mm3.items()}
        if self.flat:
            sides = dict.fromkeys(sides)
        return {
            "scan": self.scan.name,
            "kidney_volume_mm3": sides,
            "fused": self.measures.fused,
            "notes": list(self.notes),
            "lesions": [self.row(lesion) for lesion in self.measures.lesions],
        }

    @property
    def flat(self) -> bool:
        """Whether there is one slice only: nothing is known of volumes and anatomy then."""
        return self.scan.grid.shape[0] == 1

    def row(self, lesion: LesionMeasures) -> Json:
        """Everything that is known of one lesion."""
        hu = {phase.value: value for phase, value in lesion.mean_hu.items()}
        if lesion.number in self.unknown_hu:
            hu[UNKNOWN_PHASE] = self.unknown_hu[lesion.number]
        row: Json = {
            "lesion": lesion.number,
            "label": "tumour" if lesion.value == TUMOUR else "cyst",
            "side": lesion.side.value,
            "volume_mm3": None if self.flat else lesion.volume_mm3,
            "equivalent_diameter_mm": None if self.flat else lesion.equivalent_mm,
            "axial_diameter_mm": lesion.axial_mm,
            "largest_diameter_mm": None if self.flat else lesion.feret_mm,
            "centre_lps_mm": list(lesion.centre_mm),
            "mean_hu": hu,
            "enhancement_hu": {
                f"{a.value} to {b.value}": value for (a, b), value in lesion.enhancement_hu.items()
            },
        }
        if self.flat:
            lesion = replace(lesion, anatomy=None, notes=())
        return row | self._class(lesion.number) | _anatomy(lesion) | {"notes": list(lesion.notes)}

    def _class(self, number: int) -> Json:
        said = self.scan.said.get(number)
        found: Json = {"class": self.scan.classes.get(number)}
        if said is not None:
            scores = said.scores
            names = self.scan.class_names
            found |= {
                "probability": None
                if scores is None
                else dict(zip(names, map(float, scores), strict=True)),
                "confidence_probability": said.confidence,
                "agreement_share": said.agreement,
            }
        return found


def check_place(scan: VolumeGrid, labels: VolumeGrid, where: str) -> None:
    """Refuse a scan whose voxels are not those of the labels.

    Raises:
        InputRefused: MASK_MISMATCH.
    """
    apart = scan.shift_from(labels)
    if apart <= SAME_VOXELS:
        return
    raise InputRefused(
        Reason.MASK_MISMATCH,
        f"a scan of {scan.shape} voxels, labels of {labels.shape}"
        if scan.shape != labels.shape
        else f"a scan whose voxels lie up to {apart:.2f} voxels beside those of the labels",
        where=where,
        expected=f"the grid of the labels, within {SAME_VOXELS} voxels",
        remedy="give the scan the labels were drawn on, or write both on one grid",
    )


def check_scale(volume: Volume, where: str) -> None:
    """Refuse a volume whose spacing nobody knows, where something is said in mm.

    Raises:
        InputRefused: NO_SCALE.
    """
    if volume.spacing_mm is None:
        raise InputRefused(
            Reason.NO_SCALE,
            "a picture whose spacing is unknown",
            where=where,
            expected="mm per pixel",
            remedy="state the spacing; sizes cannot be guessed",
        )


def measured(scan: LabelledScan) -> MeasuredScan:
    """Measure every lesion of a scan.

    Raises:
        InputRefused: MASK_MISMATCH, a volume or map of instances on another grid; UNKNOWN_LABEL;
            NO_SCALE, a volume whose spacing is unknown.
    """
    notes = list(scan.notes)
    hu: dict[Phase, PixelStack] = {}
    unknown: PixelStack | None = None
    for volume in scan.volumes:
        check_scale(volume, scan.name)
        check_place(volume.grid, scan.grid, scan.name)
        phase = volume.phase
        if phase in hu or (phase is None and unknown is not None):
            notes.append(f"a second scan, {phase or 'phase unknown'}: not measured")
        elif phase is None:
            unknown = volume.pixels
        else:
            hu[phase] = volume.pixels
    if scan.grid.shape[0] == 1:
        notes.append(_FLAT)
    instances = scan.instances
    if instances is None:
        instances, crumbs = connected_instances(scan.labels, scan.grid.voxel_mm3)
        if crumbs:
            notes.append(f"{crumbs} labelled parts smaller than a ball of 3 mm are no lesions")
    found = measure_lesions(scan.labels, scan.grid, instances=instances, hu=hu)
    without = {} if unknown is None else mean_hu(instances, scan.grid, unknown)
    told = () if scan.grid.shape[0] == 1 else found.notes
    return MeasuredScan(scan, instances, found, without, (*notes, *told))


def table_json(scans: Sequence[Json], left_out: Sequence[Json] = ()) -> Json:
    """The whole table. scans: of `MeasuredScan.as_json`. left_out: file, reason and words."""
    return {
        "schema": 1,
        "use": RESEARCH_ONLY,
        "scans": list(scans),
        "left_out": list(left_out),
    }


def _anatomy(lesion: LesionMeasures) -> Json:
    where, scores = lesion.anatomy, nephrometry(lesion)
    return {
        "polarity": None if where is None else where.polarity,
        "long_axis_share": None if where is None else where.long_axis,
        "exophytic_share": None if where is None else where.exophytic_share,
        "kidney_gap_mm": None if where is None else where.kidney_gap_mm,
        **_nephrometry(scores),
        "uncertain": [] if where is None else list(where.uncertain),
    }


def _nephrometry(scores: Nephrometry | None) -> Json:
    if scores is None:
        return {"renal": None, "padua": None, "c_index": None}
    return {
        "renal": _score(scores.renal),
        "padua": _score(scores.padua),
        "c_index": _c_index(scores.c_index),
    }


def _score(score: Score) -> Json:
    low, high = score.range
    return {
        "text": score.text,
        "least_points": low,
        "most_points": high,
        "group": score.group,
        "parts": [_part(part) for part in score.parts],
    }


def _part(part: Part) -> Json:
    return {
        "name": part.name,
        "points": part.points,
        "least_points": part.least,
        "most_points": part.most,
        "value": part.value,
        "unit": part.unit,
        "basis": part.basis.value,
        "note": part.note,
    }


def _c_index(found: CIndex) -> Json:
    return {
        "ratio": found.value,
        "distance_mm": found.distance_mm,
        "radius_mm": found.radius_mm,
    }
