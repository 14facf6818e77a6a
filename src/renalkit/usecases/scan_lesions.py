"""How many lesions of CT scans are found, by size and by every named hit criterion, and how many of
them are named rightly?

A scan counts like a picture of `lesions`: its lesions and marks are instances of two maps on its
own grid. A class is right on a lesion that was found and whose mark names its class; of all
lesions, a missed one is wrong. Sizes are of the reference for recall and classes, of the mark for
precision. Intervals are over patients.

The paper (P5) reports classes below 5 mm and from 5 mm on, and names neither its hit criterion nor
how a size was measured: all criteria are given, and the size is chosen and said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from renalkit.domain.sample import SampleKey
from renalkit.domain.volume import VolumeGrid
from renalkit.errors import InputRefused, Reason
from renalkit.metrics.bootstrap import BootstrapPlan
from renalkit.metrics.detection import (
    SIZE_EDGES_MM,
    Criterion,
    HitRule,
    instance_overlaps,
    match_overlaps,
    size_bins,
)
from renalkit.metrics.kidney_anatomy import Floats, points_mm, slice_shares, surface
from renalkit.metrics.segmentation import equivalent_diameter
from renalkit.metrics.volume_lesions import axial_diameter_mm, feret_mm
from renalkit.usecases.lesions import (
    NO_SCORE,
    OF_REGION,
    Detected,
    KnownLesion,
    Mark,
    detection_figures,
    ratio_over_patients,
    share_over_patients,
)
from renalkit.usecases.results import Json

CRITERIA: Mapping[str, HitRule] = MappingProxyType(
    {
        "any voxel": HitRule(Criterion.ANY, 0.0, 1),
        "IoU 0.1": HitRule(Criterion.IOU, 0.1, 1),
        "Dice 0.5": HitRule(Criterion.DICE, 0.5, 1),
        "centroid": HitRule(Criterion.CENTROID, 0.0, 1),
    }
)
"""All pair one lesion with one mark."""

PAPER_EDGES_MM = (5.0,)
LARGE_MM = 10.0
"""From here on a lesion is large enough to be characterised on CT."""


class Size(StrEnum):
    """How the size of a lesion is measured, in mm; see `volume_lesions`."""

    EQUIVALENT = "equivalent diameter"
    AXIAL = "axial diameter"
    FERET = "largest diameter in space"


@dataclass(frozen=True, slots=True, eq=False)
class ScanLesions:
    """Lesions and marks of one scan, by rising number. key: its frame is 0.

    sizes_mm (R,), marked_mm (P,). overlaps: (R,P) by name of the criterion. classes: of the
    lesions and marks, None where unknown. scores: of the marks, all or none.
    """

    key: SampleKey
    sizes_mm: Floats
    marked_mm: Floats
    overlaps: Mapping[str, Floats]
    classes: tuple[str | None, ...]
    marked_classes: tuple[str | None, ...]
    scores: tuple[float, ...] | None


@dataclass(frozen=True, slots=True)
class Instances:
    """A map (Z,Y,X) of lesions, and by their numbers what is known of them."""

    map: npt.NDArray[np.integer]
    classes: Mapping[int, str] = field(default_factory=dict[int, str])
    scores: Mapping[int, float] | None = None


def scan_lesions(
    key: SampleKey,
    grid: VolumeGrid,
    reference: Instances,
    marked: Instances,
    size: Size = Size.EQUIVALENT,
) -> ScanLesions:
    """Compare what was marked on a scan with its reference.

    Raises:
        InputRefused: MASK_MISMATCH, maps of another shape than the grid, or scores for some marks
            only.
    """
    for where, given in (("reference", reference), ("prediction", marked)):
        if tuple(given.map.shape) != grid.shape:
            raise InputRefused(
                Reason.MASK_MISMATCH,
                f"{tuple(given.map.shape)} voxels on a scan of {grid.shape}",
                where=f"{key.text}, {where}",
                expected="the grid of the scan",
                remedy="write the lesions on the grid of the scan",
            )
    lesions, marks = (instance_sizes(given.map, grid, size) for given in (reference, marked))
    scores = None
    if marked.scores is not None:
        without = sorted(set(marks) - set(marked.scores))
        if without:
            raise InputRefused(
                Reason.MASK_MISMATCH,
                f"no score for marks {', '.join(map(str, without[:5]))}",
                where=key.text,
                expected="a score for each mark, or none at all",
            )
        scores = tuple(float(marked.scores[n]) for n in marks)
    return ScanLesions(
        key=key,
        sizes_mm=np.array(list(lesions.values()), np.float64),
        marked_mm=np.array(list(marks.values()), np.float64),
        overlaps={
            name: instance_overlaps(reference.map, marked.map, rule.criterion)
            for name, rule in CRITERIA.items()
        },
        classes=tuple(reference.classes.get(n) for n in lesions),
        marked_classes=tuple(marked.classes.get(n) for n in marks),
        scores=scores,
    )


def instance_sizes(
    instances: npt.NDArray[np.integer], grid: VolumeGrid, size: Size
) -> dict[int, float]:
    """Size in mm by number of each instance, rising."""
    found: dict[int, float] = {}
    shares = slice_shares(grid) * grid.voxel_mm3
    for number, box in enumerate(ndimage.find_objects(instances), start=1):
        if box is None:
            continue
        mask = np.asarray(instances[box] == number, np.bool_)
        if size is Size.EQUIVALENT:
            volume = float(mask.sum(axis=(1, 2)) @ shares[box[0]])
            found[number] = equivalent_diameter(volume, 3)
        elif size is Size.AXIAL:
            found[number] = max(axial_diameter_mm(plane, grid) for plane in mask)
        else:
            rim = surface(np.pad(mask, 1))[1:-1, 1:-1, 1:-1]
            first = (box[0].start, box[1].start, box[2].start)
            found[number] = feret_mm(points_mm(rim, grid, first), grid)
    return found


def scan_figures(
    scans: Sequence[ScanLesions], plan: BootstrapPlan, size: Size = Size.EQUIVALENT
) -> Json:
    """Detection and classes by every criterion; `size` is only said, as `scan_lesions` took it.

    Each figure with its interval over patients; below the least number of patients, only why not.
    """
    return {
        "size": size.value,
        "criteria": {name: _figures(scans, name, plan) for name in CRITERIA},
    }


@dataclass(frozen=True, slots=True)
class _Named:
    """A reference lesion with a known class: whether it was found, and named rightly."""

    key: SampleKey
    size_mm: float
    found: bool
    right: bool


def _figures(scans: Sequence[ScanLesions], name: str, plan: BootstrapPlan) -> Json:
    rule = CRITERIA[name]
    lesions: list[KnownLesion] = []
    marks: list[Mark] = []
    named: list[_Named] = []
    scored = all(scan.scores is not None for scan in scans if len(scan.marked_mm))
    for scan in scans:
        matches = match_overlaps(scan.overlaps[name], rule)
        pair_of = {r: (p, overlap) for r, p, overlap in matches.pairs}
        scores = scan.scores if scored else None
        for number, mm in enumerate(scan.sizes_mm.tolist()):
            mark, overlap = pair_of.get(number, (None, 0.0))
            score = None if mark is None or scores is None else scores[mark]
            lesions.append(KnownLesion(scan.key, number, overlap, mm, score))
            known = scan.classes[number]
            if known is not None:
                right = mark is not None and scan.marked_classes[mark] == known
                named.append(_Named(scan.key, mm, mark is not None, right))
        for number, (mm, hit) in enumerate(
            zip(scan.marked_mm.tolist(), matches.right.tolist(), strict=True)
        ):
            marks.append(Mark(scan.key, hit, mm, None if scores is None else scores[number]))
    pictures = tuple((scan.key, bool(len(scan.sizes_mm))) for scan in scans)
    found = Detected(pictures, tuple(lesions), tuple(marks), OF_REGION if scored else NO_SCORE)
    normal = {key for key, has in pictures if not has}
    rows = [(m.key, 1.0, 0.0) for m in marks if m.key in normal]
    rows += [(key, 0.0, 1.0) for key in normal]
    large = [le for le in lesions if (le.size_mm or 0.0) >= LARGE_MM]
    return {
        "rule": rule.words,
        **detection_figures(plan, found),
        "false_per_normal": ratio_over_patients(sorted(rows), plan) if normal else None,
        "large": {
            "from_mm": LARGE_MM,
            "recall": share_over_patients([(le.key, le.found) for le in large], plan),
            **_accuracy([n for n in named if n.size_mm >= LARGE_MM], plan),
        },
        "classes": [
            {"edges_mm": list(edges), "sizes": _classes(named, edges, plan)}
            for edges in (PAPER_EDGES_MM, SIZE_EDGES_MM)
        ],
    }


def _classes(named: Sequence[_Named], edges: Sequence[float], plan: BootstrapPlan) -> list[Json]:
    """Accuracy of classes on found and on all lesions, all sizes first."""
    if not named:
        return []
    names = size_bins(edges)
    of = np.searchsorted(edges, [n.size_mm for n in named], side="right")
    groups = [("all", list(named))]
    groups += [
        (name, [n for n, k in zip(named, of.tolist(), strict=True) if k == place])
        for place, name in enumerate(names)
    ]
    return [{"size": name} | _accuracy(rows, plan) for name, rows in groups if rows]


def _accuracy(named: Sequence[_Named], plan: BootstrapPlan) -> Json:
    return {
        "lesions": len(named),
        "found": sum(n.found for n in named),
        "accuracy_found": share_over_patients([(n.key, n.right) for n in named if n.found], plan),
        "accuracy_all": share_over_patients([(n.key, n.right) for n in named], plan),
    }
