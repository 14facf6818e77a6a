"""What a system says about a frame, a lesion or a patient; what readers say is in `readings`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum
from math import ceil, exp, expm1, fsum, inf, isfinite, log1p
from statistics import fmean, median

from renalkit.domain.geometry import Box, MaskRLE
from renalkit.domain.image import Mode
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
    TOPK = "topk"
    NOISY_OR = "noisy-or"
    ATTENTION = "attention"


@dataclass(frozen=True, slots=True)
class Pooling:
    """A rule with its numbers: how the scores p_i of n frames become those of a patient.

    mean, median, max and topk work class by class, and their results are divided by their sum.

    topk: mean of the largest ceil(share * n) scores of each class; share 1 is the mean.
    majority: share of the frames that give the class their highest score.
    noisy-or: q = 1 - prod(1 - p_i)^(m / n), the chance that at least one of m frames shows the
        class if frames were independent. m (`noisy_or_frames`) sets the scale: 1 keeps the score of
        frames that agree; 0 stands for m = n, which is the plain noisy-or (Pearl 1988) and rises
        with the number of frames. Two classes: q of the positive class. More: q of each class,
        divided by their sum.
    attention: sum of w_i p_i with w_i proportional to exp(c_i / temperature), c_i the largest score
        of frame i, so that frames which are sure count more. Nothing is learned; large
        temperatures give the mean, small ones the surest frame (softmax pooling, McFee et al. 2018,
        IEEE/ACM TASLP 26:2180).
    positive: index of the class that noisy-or asks for where there are two.
    """

    rule: Rule = Rule.MEAN
    share: float = 0.2
    noisy_or_frames: float = 1.0
    temperature: float = 0.2
    positive: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share of frames {self.share}, expected above 0 and at most 1")
        if not (self.noisy_or_frames >= 0 and isfinite(self.noisy_or_frames)):
            raise ValueError(f"frames of noisy-or {self.noisy_or_frames}, expected 0 or more")
        if not (self.temperature > 0 and isfinite(self.temperature)):
            raise ValueError(f"temperature {self.temperature}, expected above 0")

    def pooled(self, values: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
        """Scores of one patient from those of the frames; their order changes nothing."""
        n_classes = len(values[0])
        if self.rule is Rule.MAJORITY:
            votes = [max(range(len(v)), key=v.__getitem__) for v in values]
            return tuple(votes.count(k) / len(votes) for k in range(n_classes))
        columns = [sorted(c) for c in zip(*values, strict=True)]
        if self.rule is Rule.NOISY_OR and n_classes == 2:
            q = self._any(columns[self.positive])
            return (1 - q, q) if self.positive == 1 else (q, 1 - q)
        if self.rule is Rule.ATTENTION:
            sure = [max(v) for v in values]
            weights = [exp((c - max(sure)) / self.temperature) for c in sure]
            raw = [
                fsum(w * v[k] for w, v in zip(weights, values, strict=True))
                for k in range(n_classes)
            ]
        else:
            raw = [self._column(c) for c in columns]
        total = sum(raw)
        return tuple(r / total for r in raw)

    def _column(self, rising: Sequence[float]) -> float:
        match self.rule:
            case Rule.MEDIAN:
                return float(median(rising))
            case Rule.MAX:
                return rising[-1]
            case Rule.TOPK:
                return fmean(rising[-ceil(self.share * len(rising) - 1e-9) :])
            case Rule.NOISY_OR:
                return self._any(rising)
            case _:
                return fmean(rising)

    def _any(self, scores: Sequence[float]) -> float:
        """Noisy-or of one class."""
        n = len(scores)
        none = fsum(log1p(-max(p, 0.0)) if p < 1 else -inf for p in scores)
        return -expm1(none * (self.noisy_or_frames or n) / n)


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
    (`renalkit.metrics.detection.region_scores`); None where it was not kept. modality_weights: how
    much each modality of a fused network counted (alpha, beta of P2); None without fusion.
    modalities: those the scores come from; None where nothing could be missing.
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
    modality_weights: tuple[float, ...] | None = None
    modalities: tuple[Mode, ...] | None = None

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


def aggregate(
    predictions: Iterable[Prediction], unit: Unit, rule: Rule | Pooling = Rule.MEAN
) -> tuple[Prediction, ...]:
    """Scores of lower units as one per `unit`, sorted; only upward (ValueError otherwise).

    Units with disagreeing truths keep target None. Masks are not carried upward.
    """
    pooling = rule if isinstance(rule, Pooling) else Pooling(rule)
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
                scores=pooling.pooled([p.scores for p in group if p.scores is not None]),
                target=targets.pop() if len(targets) == 1 else None,
                mask=None,
                box=None,
                mark_scores=None,
                modality_weights=None,
                modalities=None,
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
