"""Which lesions were found, and how much else was marked? Lesion-wise recall, precision and FROC.

A lesion is a connected region (2-D: eight neighbours, 3-D: twenty-six) of at least a stated size,
or an instance that is given as such. One predicted region can find one reference lesion and the
reverse: pairs that overlap enough are chosen so that as many as possible are found, then so that
they overlap most. What remains is missed, or marked in vain; a second mark on a found lesion is
marked in vain too.

Sources: Kuhn 1955 (assignment); Bunch et al. 1978, J Appl Photogr Eng 4:166, and Chakraborty 1989,
Med Phys 16:561 (free-response ROC).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from scipy import ndimage, optimize

from renalkit.errors import InputRefused, Reason, StatisticUndefined
from renalkit.metrics.bootstrap import Codes, Evaluate
from renalkit.metrics.classification import AnyArray, Floats
from renalkit.metrics.segmentation import equivalent_diameter

Mask = npt.NDArray[np.bool_]

FROC_RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Regions marked in vain per picture at which sensitivity is read, as in lung screening."""

SIZE_EDGES_MM = (5.0, 10.0, 20.0, 40.0)
"""Edges of the size bins; an edge belongs to the bin above it."""

_CHUNK = 4_000_000  # largest temporary array of one step, in numbers


class Criterion(StrEnum):
    """What overlap is measured by. any: whether there is any at all (1), or none (0). centroid:
    whether the region's centre of gravity lies in the lesion (1), or not (0)."""

    IOU = "IoU"
    DICE = "Dice"
    ANY = "any overlap"
    CENTROID = "centroid inside"


@dataclass(frozen=True, slots=True)
class HitRule:
    """When a region finds a lesion: the overlap is above 0 and at least `least`.

    least_size: smaller regions, in pixels or voxels, are no lesions.
    """

    criterion: Criterion = Criterion.IOU
    least: float = 0.1
    least_size: int = 10

    def __post_init__(self) -> None:
        if not 0 <= self.least <= 1 or self.least_size < 1:
            raise ValueError("overlap from 0 to 1, and a size of at least one pixel")

    @property
    def words(self) -> str:
        """For a table footer."""
        how = (
            str(self.criterion)
            if self.criterion in (Criterion.ANY, Criterion.CENTROID)
            else f"{self.criterion} >= {self.least:g}"
        )
        size = f", regions of at least {self.least_size} pixels" if self.least_size > 1 else ""
        return f"one to one, {how}{size}"


def lesions_of(mask: npt.NDArray[np.generic], least_size: int = 1) -> tuple[Mask, ...]:
    """Connected regions of a mask (H, W) or (Z, Y, X), the largest first; equal ones by place."""
    labels, order = _regions(mask)
    sizes = np.bincount(labels.ravel())
    return tuple(labels == k for k in order if sizes[k] >= least_size)


def _regions(
    mask: npt.NDArray[np.generic],
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.intp]]:
    """Label 1, 2, ... of every pixel (0: outside), and the labels by falling size."""
    labels = np.zeros(mask.shape, dtype=np.int32)
    ndimage.label(mask != 0, structure=np.ones((3,) * mask.ndim), output=labels)
    sizes = np.bincount(labels.ravel())[1:]
    return labels, np.argsort(-sizes, kind="stable") + 1


def region_scores(
    mask: npt.NDArray[np.generic], probability: npt.NDArray[np.floating]
) -> tuple[float, ...]:
    """Mean probability of each region of the mask, in the order of `lesions_of(mask)`.

    mask, probability: of one shape, probability from 0 to 1.

    >>> region_scores(np.array([[1, 0, 1, 1]]), np.array([[0.9, 0.2, 0.6, 0.8]]))
    (0.7, 0.9)
    """
    labels, order = _regions(mask)
    values = np.asarray(probability, dtype=np.float64).ravel()
    sums = np.bincount(labels.ravel(), weights=values)
    means = sums[order] / np.bincount(labels.ravel())[order]
    return tuple(float(v) for v in np.clip(means, 0.0, 1.0))


def score_map(mask: npt.NDArray[np.generic], scores: Sequence[float]) -> Floats:
    """A map with every region of the mask at its score, 0 elsewhere; scores as `region_scores`.

    Raises: InputRefused(MASK_MISMATCH) for another number of scores than regions.
    """
    labels, order = _regions(mask)
    if len(order) != len(scores):
        raise InputRefused(
            Reason.MASK_MISMATCH,
            f"{len(scores)} scores for a mask of {len(order)} regions",
            expected="one score per connected region",
        )
    values = np.zeros(len(order) + 1)
    values[order] = scores
    return values[labels]


@dataclass(frozen=True, slots=True)
class Matches:
    """What found what in one picture. pairs: (reference, prediction, overlap), by reference."""

    pairs: tuple[tuple[int, int, float], ...]
    n_reference: int
    n_predicted: int

    @property
    def found(self) -> npt.NDArray[np.bool_]:
        """Whether each reference lesion was found (R,)."""
        hit = np.zeros(self.n_reference, dtype=bool)
        hit[[r for r, _, _ in self.pairs]] = True
        return hit

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether each predicted region found a lesion (P,)."""
        hit = np.zeros(self.n_predicted, dtype=bool)
        hit[[p for _, p, _ in self.pairs]] = True
        return hit


def match_lesions(
    reference: Sequence[Mask], predicted: Sequence[Mask], rule: HitRule | None = None
) -> Matches:
    """Pair reference lesions with predicted regions, all masks of one shape.

    Raises: InputRefused(MASK_MISMATCH) for masks of different shapes.
    """
    rule = rule or HitRule()
    shapes = {m.shape for m in (*reference, *predicted)}
    if len(shapes) > 1:
        raise InputRefused(
            Reason.MASK_MISMATCH,
            f"lesions of {len(shapes)} different shapes",
            expected="reference and prediction on one grid",
        )
    if not reference or not predicted:
        return Matches((), len(reference), len(predicted))
    overlap = np.array([[_overlap(r, p, rule.criterion) for p in predicted] for r in reference])
    return match_overlaps(overlap, rule)


def match_overlaps(overlap: Floats, rule: HitRule) -> Matches:
    """Pair reference lesions with predicted regions by their overlaps (R,P)."""
    allowed = (overlap > 0) & (overlap >= rule.least)
    # One more pair outweighs any gain of overlap in the others.
    worth = np.where(allowed, sum(overlap.shape) + overlap, 0.0)
    rows, columns = optimize.linear_sum_assignment(worth, maximize=True)
    pairs = tuple(
        (int(r), int(c), float(overlap[r, c]))
        for r, c in zip(rows, columns, strict=True)
        if allowed[r, c]
    )
    return Matches(pairs, *overlap.shape)


def instance_overlaps(
    reference: npt.NDArray[np.integer], predicted: npt.NDArray[np.integer], criterion: Criterion
) -> Floats:
    """Overlaps (R,P) of the instances of two maps of one shape, by rising number; 0 is none.

    In one pass over what is marked: made for volumes, of which one mask per lesion is too much.

    Raises: InputRefused(MASK_MISMATCH) for maps of different shapes.

    >>> instance_overlaps(np.array([[1, 1, 0, 7]]), np.array([[3, 0, 0, 3]]), Criterion.DICE)
    array([[0.5       ],
           [0.66666667]])
    """
    if reference.shape != predicted.shape:
        raise InputRefused(
            Reason.MASK_MISMATCH,
            f"a prediction of {predicted.shape} for a reference of {reference.shape}",
            expected="reference and prediction on one grid",
        )
    at = np.nonzero((reference > 0) | (predicted > 0))
    numbers_r, r = np.unique(np.append(reference[at], 0), return_inverse=True)
    numbers_p, p = np.unique(np.append(predicted[at], 0), return_inverse=True)
    shape = (numbers_r.size, numbers_p.size)
    if criterion is Criterion.CENTROID:
        inside = np.zeros((shape[0] - 1, shape[1] - 1))
        for column in range(shape[1] - 1):
            here = p[:-1] == column + 1
            found = int(reference[_centre([axis[here] for axis in at])])
            if found:
                inside[int(np.searchsorted(numbers_r[1:], found)), column] = 1.0
        return inside
    both = np.bincount(r[:-1] * shape[1] + p[:-1], minlength=shape[0] * shape[1])
    table = both.reshape(shape).astype(np.float64)
    shared = table[1:, 1:]
    if criterion is Criterion.ANY:
        return (shared > 0).astype(np.float64)
    total = table[1:].sum(axis=1)[:, None] + table[:, 1:].sum(axis=0)
    return 2 * shared / total if criterion is Criterion.DICE else shared / (total - shared)


def _centre(places: Sequence[npt.NDArray[np.intp]]) -> tuple[int, ...]:
    """The pixel or voxel the centre of gravity of places (one array per axis) lies in."""
    return tuple(int(np.floor(axis.mean() + 0.5)) for axis in places)


def _overlap(a: Mask, b: Mask, criterion: Criterion) -> float:
    if criterion is Criterion.CENTROID:
        if not b.any():
            return 0.0
        return float(a[_centre(np.nonzero(b))])
    both = int((a & b).sum())
    if criterion is Criterion.ANY:
        return float(both > 0)
    total = int(a.sum()) + int(b.sum())
    if criterion is Criterion.DICE:
        return 2 * both / total if total else 0.0
    return both / (total - both) if total > both else float(both > 0)


def diameter(mask: Mask, spacing: Sequence[float]) -> float:
    """Diameter of the circle or sphere of equal size, in the unit of spacing."""
    return equivalent_diameter(float(mask.sum()) * float(np.prod(spacing)), mask.ndim)


def size_bins(edges: Sequence[float] = SIZE_EDGES_MM, unit: str = "mm") -> tuple[str, ...]:
    """Names of the bins between and beyond the edges.

    >>> size_bins((5.0, 10.0))
    ('under 5 mm', '5 to 10 mm', '10 mm and over')
    """
    inner = [f"{a:g} to {b:g} {unit}" for a, b in zip(edges[:-1], edges[1:], strict=True)]
    return (f"under {edges[0]:g} {unit}", *inner, f"{edges[-1]:g} {unit} and over")


# ------------------------------------------------------------------ free-response ROC


@dataclass(frozen=True, slots=True)
class FrocPoint:
    """Marks scored at least `threshold`: share of lesions found, marks in vain per picture."""

    threshold: float
    sensitivity: float
    false_per_picture: float


@dataclass(frozen=True, slots=True)
class FrocCurve:
    """Points by falling threshold, one per distinct score; empty where nothing was marked."""

    points: tuple[FrocPoint, ...]
    n_lesions: int
    n_pictures: int

    def at(self, rate: float) -> FrocPoint | None:
        """The point of most sensitivity with at most `rate` marks in vain per picture, or None."""
        allowed = [p for p in self.points if p.false_per_picture <= rate]
        return allowed[-1] if allowed else None


def froc(scores: AnyArray, right: AnyArray, n_lesions: int, n_pictures: int) -> FrocCurve:
    """Free-response ROC. scores (P,) of all marks; right (P,): whether each found a lesion.

    Raises: StatisticUndefined without a lesion or a picture, or for scores that are not finite.
    """
    s, hit = np.asarray(scores, dtype=np.float64), np.asarray(right, dtype=bool)
    if n_lesions < 1 or n_pictures < 1 or int(hit.sum()) > n_lesions:
        raise StatisticUndefined(
            f"{int(hit.sum())} found of {n_lesions} lesions in {n_pictures} pictures",
            where="FROC",
            expected="at least one lesion and one picture",
        )
    if not bool(np.isfinite(s).all()):
        raise StatisticUndefined("marks without a finite score", where="FROC")
    order = np.argsort(-s, kind="stable")
    s, hit = s[order], hit[order]
    last = np.flatnonzero(np.append(np.diff(s) != 0, True)) if s.size else np.array([], dtype=int)
    found, vain = np.cumsum(hit), np.cumsum(~hit)
    points = tuple(
        FrocPoint(float(s[k]), float(found[k]) / n_lesions, float(vain[k]) / n_pictures)
        for k in last
    )
    return FrocCurve(points, n_lesions, n_pictures)


@dataclass(frozen=True, slots=True)
class FrocSensitivity:
    """Sensitivity at a rate of marks in vain per picture, as a `Statistic` of the bootstrap.

    Rows are pictures, lesions and marks together. kind (n,): 0 picture, 1 lesion, 2 mark; scores
    (n,) and right (n,) are read for marks only. Every resample has its own threshold.
    """

    kind: npt.NDArray[np.intp]
    scores: Floats
    right: npt.NDArray[np.bool_]
    rate: float

    @property
    def n_rows(self) -> int:
        return len(self.kind)

    def prepare(self, codes: Codes, n_groups: int) -> Evaluate:
        pictures = np.bincount(codes[self.kind == 0], minlength=n_groups).astype(np.float64)
        lesions = np.bincount(codes[self.kind == 1], minlength=n_groups).astype(np.float64)
        marks = np.flatnonzero(self.kind == 2)
        order = marks[np.argsort(-self.scores[marks], kind="stable")]
        group, hit, score = codes[order], self.right[order], self.scores[order]
        ends = np.append(np.diff(score) != 0, True) if score.size else np.array([], dtype=bool)
        step = max(1, _CHUNK // max(1, order.size))

        def some(counts: Floats) -> Floats:
            weight = counts[:, group]
            found = np.cumsum(weight * hit, axis=1)
            vain = np.cumsum(weight * ~hit, axis=1)
            allowed = (vain <= self.rate * (counts @ pictures)[:, None] + 1e-9) & ends
            best = np.where(allowed, found, 0.0).max(axis=1, initial=0.0)
            total = counts @ lesions
            return np.divide(best, total, out=np.full(best.shape, np.nan), where=total > 0)

        def evaluate(counts: Floats) -> Floats:
            parts = [some(counts[k : k + step]) for k in range(0, len(counts), step)]
            return np.concatenate(parts)

        return evaluate
