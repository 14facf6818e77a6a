"""What a system says about a frame, a lesion or a patient; what readers say is in `readings`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum
from math import isfinite
from statistics import fmean, median

from renalkit.domain.geometry import Box, MaskRLE
from renalkit.domain.sample import SampleKey
from renalkit.domain.study import RoiOrigin


class Unit(IntEnum):
    """The unit of analysis; numbers of different units never mix. Ordered: frame < patient."""

    FRAME = 0
    LESION = 1
    PATIENT = 2

    @property
    def word(self) -> str:
        return self.name.lower()


class Rule(StrEnum):
    """How the scores of lower units become one: chosen before the test part is opened."""

    MEAN = "mean"
    MEDIAN = "median"
    MAX = "max"
    MAJORITY = "majority"


@dataclass(frozen=True, slots=True)
class SystemRef:
    """Which trained system spoke: name, run-unique label, hash of its weights."""

    name: str
    label: str
    weights_sha256: str


@dataclass(frozen=True, slots=True)
class Prediction:
    """Scores and mask for one unit, with the fold that proves it was not trained on.

    scores: probabilities per class in task order, or None for a pure segmentation. target: true
    class index if known. mask and box are in SOURCE pixels. n_frames: frames behind the scores.
    mark_scores: mean probability of each connected region of the mask, the largest region first
    (`renalkit.metrics.detection.region_scores`); None where it was not kept.
    """

    unit: Unit
    key: SampleKey
    scores: tuple[float, ...] | None
    target: int | None
    system: SystemRef
    fold: int | None
    mask: MaskRLE | None = None
    box: Box | None = None
    roi_origin: RoiOrigin = RoiOrigin.REFERENCE
    n_frames: int = 1
    mark_scores: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.mark_scores is not None and not all(0 <= s <= 1 for s in self.mark_scores):
            raise ValueError(f"scores of regions {self.mark_scores} are not probabilities")
        if self.scores is not None:
            if not all(isfinite(s) and -1e-9 <= s <= 1 + 1e-9 for s in self.scores):
                raise ValueError(f"scores {self.scores} are not probabilities")
            if abs(sum(self.scores) - 1) > 1e-6:
                raise ValueError(f"scores {self.scores} do not sum to 1")
            if self.target is not None and not 0 <= self.target < len(self.scores):
                raise ValueError(f"target {self.target} with {len(self.scores)} classes")


def _one(values: Sequence[tuple[float, ...]], rule: Rule) -> tuple[float, ...]:
    columns = list(zip(*values, strict=True))
    if rule is Rule.MAJORITY:
        votes = [max(range(len(v)), key=v.__getitem__) for v in values]
        return tuple(votes.count(k) / len(votes) for k in range(len(columns)))
    reduce = {Rule.MEAN: fmean, Rule.MEDIAN: median, Rule.MAX: max}[rule]
    raw = [float(reduce(sorted(c))) for c in columns]
    total = sum(raw)
    return tuple(r / total for r in raw)


def aggregate(
    predictions: Iterable[Prediction], unit: Unit, rule: Rule = Rule.MEAN
) -> tuple[Prediction, ...]:
    """Scores of lower units as one per `unit`, sorted; only upward (ValueError otherwise).

    Units with disagreeing truths keep target None. Masks are not carried upward.
    """
    groups: dict[tuple[str, str, int | None], list[Prediction]] = defaultdict(list)
    for p in predictions:
        if p.unit > unit:
            raise ValueError(f"cannot turn {p.unit.word} predictions into {unit.word} ones")
        if p.scores is None:
            continue
        groups[(_place(p.key, unit), p.system.label, p.fold)].append(p)
    out: list[Prediction] = []
    for _, group in sorted(groups.items(), key=lambda g: (g[0][0], g[0][1], g[0][2] or 0)):
        group.sort(key=lambda p: p.key)
        first, targets = group[0], {p.target for p in group}
        out.append(
            replace(
                first,
                unit=unit,
                scores=_one([p.scores for p in group if p.scores is not None], rule),
                target=targets.pop() if len(targets) == 1 else None,
                mask=None,
                box=None,
                mark_scores=None,
                n_frames=sum(p.n_frames for p in group),
            )
        )
    return tuple(out)


def _place(key: SampleKey, unit: Unit) -> str:
    if unit is Unit.PATIENT:
        return key.patient
    if unit is Unit.LESION:
        return f"{key.patient}.{key.lesion or key.study}"
    return f"{key.patient}.{key.text}"
