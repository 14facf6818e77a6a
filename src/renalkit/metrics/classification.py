"""How well do scores separate classes, and how good are the calls made from them?

Truth of a two-class task is 0 (negative) or 1 (positive); a higher score means more positive; a
case is called positive when its score is at or above the threshold. A threshold chosen on the cases
it is judged by flatters: `choose_threshold` asks which tuning part its data come from, and knows no
test part.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from renalkit.errors import StatisticUndefined
from renalkit.metrics.inference import F1Score, Proportion

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
AnyArray = npt.NDArray[np.generic]


# ------------------------------------------------------------------ two classes, calls


@dataclass(frozen=True, slots=True)
class BinaryConfusion:
    """Counts of calls against the truth, and what follows from them.

    A measure whose denominator is 0 (PPV without a positive call) is an undefined proportion.
    """

    tp: int
    fp: int
    tn: int
    fn: int

    def __post_init__(self) -> None:
        if min(self.tp, self.fp, self.tn, self.fn) < 0:
            raise ValueError("counts are not negative")

    @property
    def n(self) -> int:
        return self.tp + self.fp + self.tn + self.fn

    @property
    def accuracy(self) -> Proportion:
        return Proportion(self.tp + self.tn, self.n)

    @property
    def sensitivity(self) -> Proportion:
        return Proportion(self.tp, self.tp + self.fn)

    @property
    def specificity(self) -> Proportion:
        return Proportion(self.tn, self.tn + self.fp)

    @property
    def ppv(self) -> Proportion:
        return Proportion(self.tp, self.tp + self.fp)

    @property
    def npv(self) -> Proportion:
        return Proportion(self.tn, self.tn + self.fn)

    @property
    def f1(self) -> F1Score:
        return F1Score(self.tp, self.tp + self.fp + self.fn)

    def measures(self) -> dict[str, Proportion | F1Score]:
        """All six by name, in the order of a results table."""
        return {
            "accuracy": self.accuracy,
            "sensitivity": self.sensitivity,
            "specificity": self.specificity,
            "ppv": self.ppv,
            "npv": self.npv,
            "f1": self.f1,
        }


def binary_confusion(truth: AnyArray, called: AnyArray) -> BinaryConfusion:
    """Counts from truth (n,) and calls (n,), both 0/1 or bool.

    Raises: StatisticUndefined if empty, of unequal length, or other values than 0 and 1.
    """
    t, c = _zero_one(truth, "truth"), _zero_one(called, "calls")
    _same_length(t, c)
    return BinaryConfusion(
        tp=int((t & c).sum()),
        fp=int((~t & c).sum()),
        tn=int((~t & ~c).sum()),
        fn=int((t & ~c).sum()),
    )


def confusion_at(truth: AnyArray, scores: AnyArray, threshold: float) -> BinaryConfusion:
    """Counts when every score at or above the threshold is called positive."""
    t, s = binary_scores(truth, scores, both_classes=False)
    return binary_confusion(t, s >= threshold)


# ------------------------------------------------------------------ two classes, ranking


@dataclass(frozen=True, slots=True)
class RocCurve:
    """Operating points from "call none" to "call all"; thresholds fall, both rates rise.

    thresholds[0] is inf (nothing is called positive); every distinct score follows.
    """

    thresholds: Floats
    false_positive_rate: Floats
    true_positive_rate: Floats


def auc(truth: AnyArray, scores: AnyArray) -> float:
    """Probability that a positive case scores above a negative one, ties counting half.

    The Mann-Whitney form (Bamber 1975): exact with ties, no curve is integrated.
    Raises: StatisticUndefined with one class only, or NaN or infinite scores.

    >>> auc(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8]))
    0.75
    """
    t, s = binary_scores(truth, scores)
    positive = np.flatnonzero(t)
    n_pairs = positive.size * (t.size - positive.size)
    return float(pairs_won(t, s)[positive].sum()) / n_pairs


def pairs_won(t: npt.NDArray[np.bool_], s: Floats) -> Floats:
    """Of each case (n,), with how many cases of the other class it is in the right order.

    t, s (n,) as `binary_scores` gives them; equal scores count half. A positive wins over the
    negatives below it, a negative over the positives above it. One sort, then running counts.
    """
    n, n_pos = t.size, int(np.count_nonzero(t))
    # Small whole numbers, changed in place: beside the sort, time goes into fresh memory.
    whole = np.int32 if n < 2**30 else np.int64
    order, found = _in_order(s)
    positive = t[order]
    before = np.zeros(n + 1, dtype=whole)  # positives among the first k
    np.cumsum(positive, out=before[1:])
    starts = _starts(found)
    if starts is None:  # no ties: case k lies between k and k + 1
        first, last = slice(0, n), slice(1, n + 1)
        won = np.arange(1, 2 * n, 2, dtype=whole)
    else:
        ends = np.append(starts[1:], n)
        first, last = (np.repeat(k.astype(whole), ends - starts) for k in (starts, ends))
        won = first + last
    # Twice the pairs won: a positive 2 (rank - positives below), a negative 2 (n_pos - those).
    won -= 2 * n_pos
    won *= positive
    won += 2 * n_pos
    won -= before[first]
    won -= before[last]
    found[order] = won
    found /= 2
    return found


def _in_order(s: Floats) -> tuple[npt.NDArray[np.int64], Floats]:
    """Places that sort finite scores (n,), and the sorted scores: np.argsort in half the time.

    numpy sorts whole numbers faster than it finds an order. The leading bits of a double, read as a
    whole number, rise with it; below them stands the place. Only scores that are equal in these
    bits, the first ten digits of 200,000 scores, can come out in the wrong order: they are sorted
    once more, which is quick for what is nearly sorted.
    """
    bits = s.size.bit_length()
    keys = s.view(np.int64)
    keys = keys ^ ((keys >> 63) & np.iinfo(np.int64).max)  # negative numbers fall with their bits
    keys >>= bits
    keys <<= bits
    keys |= np.arange(s.size)
    keys.sort()
    keys &= (1 << bits) - 1
    ordered = s[keys]
    if bool((ordered[1:] < ordered[:-1]).any()):
        again = np.argsort(ordered, kind="stable")
        return keys[again], ordered[again]
    return keys, ordered


def _starts(ordered: Floats) -> npt.NDArray[np.intp] | None:
    """Where equal values of a sorted array (n,) begin; None if no two are equal."""
    new = ordered[1:] != ordered[:-1]
    return None if new.all() else np.flatnonzero(np.concatenate([[True], new]))


def midranks(values: Floats) -> Floats:
    """Ranks 1 .. n of values (n,); equal values share the mean of their ranks.

    >>> midranks(np.array([0.3, 0.1, 0.3])).tolist()
    [2.5, 1.0, 2.5]
    """
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]


def roc_curve(truth: AnyArray, scores: AnyArray) -> RocCurve:
    """Every operating point of the scores (no point is dropped); refuses as `auc` does."""
    t, s = binary_scores(truth, scores)
    cuts, tp, fp = _counts_at_cuts(t, s)
    return RocCurve(
        thresholds=np.concatenate([[np.inf], cuts]),
        false_positive_rate=np.concatenate([[0.0], fp / (~t).sum()]),
        true_positive_rate=np.concatenate([[0.0], tp / t.sum()]),
    )


# ------------------------------------------------------------------ thresholds


class TuningPart(StrEnum):
    """Parts of a fold a threshold may come from. There is no name for the test part."""

    TRAIN = "train"
    VALIDATION = "validation"


class ThresholdRule(StrEnum):
    """By what merit a threshold is chosen; `OperatingPoint` says what each one needs."""

    HALF = "half"
    YOUDEN = "youden"
    F1 = "f1"
    SENSITIVITY = "sensitivity"
    SPECIFICITY = "specificity"
    COST = "cost"


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """Which threshold is wanted. Ties go to the more sensitive threshold.

      half         0.5, whatever the data
      youden       largest sensitivity + specificity - 1
      f1           largest F1
      sensitivity  highest threshold that reaches the target sensitivity
      specificity  lowest threshold that reaches the target specificity
      cost         smallest expected cost per patient,
                   prevalence x missed_cost x (1 - sensitivity) + (1 - prevalence) x (1 - spec.)

    target: in (0, 1], of sensitivity and specificity alone. missed_cost: a missed positive counts
    as so many needless calls, above 0; of cost alone. prevalence: share of positives where the
    threshold will be used, in (0, 1); of cost, None: that of the cases it is chosen on.
    Cost: Metz 1978, Semin Nucl Med 8:283, section on the optimal operating point.

    Raises: ValueError for a rule without what it needs, or with what it does not.
    """

    rule: ThresholdRule = ThresholdRule.YOUDEN
    target: float | None = None
    missed_cost: float | None = None
    prevalence: float | None = None

    def __post_init__(self) -> None:
        rule = self.rule.value
        rate = self.rule in (ThresholdRule.SENSITIVITY, ThresholdRule.SPECIFICITY)
        cost = self.rule is ThresholdRule.COST
        if rate != (self.target is not None):
            raise ValueError(f"rule {rule} {'needs a' if rate else 'has no'} target")
        if self.target is not None and not 0 < self.target <= 1:
            raise ValueError(f"target {self.target} of rule {rule}: expected above 0, at most 1")
        if cost != (self.missed_cost is not None):
            verb = "needs" if cost else "has no"
            raise ValueError(f"rule {rule} {verb} cost of a missed positive")
        if self.missed_cost is not None and not 0 < self.missed_cost < float("inf"):
            raise ValueError(f"cost {self.missed_cost} of a missed positive: expected above 0")
        if self.prevalence is not None and not (cost and 0 < self.prevalence < 1):
            raise ValueError(
                f"prevalence {self.prevalence} with rule {rule}: expected rule cost, and a share "
                "between 0 and 1"
            )

    @property
    def words(self) -> str:
        """The rule with its numbers, for a table.

        >>> OperatingPoint(ThresholdRule.COST, missed_cost=10, prevalence=0.3).words
        'least cost, a miss as bad as 10 needless calls, prevalence 0.3'
        """
        if self.target is not None:
            return f"{self.rule.value} >= {self.target:g}"
        if self.missed_cost is None:
            return self.rule.value
        share = "of these cases" if self.prevalence is None else f"{self.prevalence:g}"
        cost = f"a miss as bad as {self.missed_cost:g} needless calls"
        return f"least cost, {cost}, prevalence {share}"

    def threshold(self, truth: AnyArray, scores: AnyArray) -> float:
        """The threshold these cases give: truth (n,) 0/1, scores (n,).

        Candidates are the scores that occur, and one just above the highest (call none), so the
        choice moves with any rising transform of the scores. Whoever judges calls on the same
        cases judges them too kindly: `choose_threshold` says where a threshold comes from.
        Raises: StatisticUndefined as `auc`.
        """
        t, s = binary_scores(truth, scores)
        if self.rule is ThresholdRule.HALF:
            return 0.5
        cuts, tp, fp = _counts_at_cuts(t, s)
        cuts = np.concatenate([[np.nextafter(s.max(), np.inf)], cuts])
        tp, fp = np.concatenate([[0], tp]), np.concatenate([[0], fp])
        n_pos, n_neg = int(t.sum()), int((~t).sum())
        if self.rule is ThresholdRule.SENSITIVITY:
            return float(cuts[np.flatnonzero(tp / n_pos >= (self.target or 0))[0]])
        if self.rule is ThresholdRule.SPECIFICITY:
            return float(cuts[np.flatnonzero((n_neg - fp) / n_neg >= (self.target or 0))[-1]])
        # Whole numbers wherever there are, so that equal merits tie exactly.
        if self.rule is ThresholdRule.YOUDEN:
            merit = (tp * n_neg - fp * n_pos).astype(np.float64)
        elif self.rule is ThresholdRule.F1:
            merit = 2 * tp / (tp + fp + n_pos)
        else:
            merit = -self._cost(n_pos - tp, fp, (n_pos, n_neg))
        near = merit >= merit.max() - 1e-12 * np.abs(merit).max()
        return float(cuts[np.flatnonzero(near)[-1]])

    def _cost(self, missed: Ints, needless: Ints, sizes: tuple[int, int]) -> Floats:
        """Expected cost, up to a factor."""
        cost, share = self.missed_cost or 0.0, self.prevalence
        if share is not None:
            cost *= share / (1 - share) * sizes[1] / sizes[0]
        return np.asarray(cost * missed + needless, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Threshold:
    """A threshold and where it comes from: rule in words, part and number of its cases."""

    value: float
    rule: str
    source: TuningPart
    source_n: int


def choose_threshold(
    truth: AnyArray,
    scores: AnyArray,
    source: TuningPart,
    wanted: OperatingPoint | None = None,
) -> Threshold:
    """The threshold that training or validation cases give; without a wish Youden's.

    Raises: StatisticUndefined as `auc`; ValueError for another part.
    """
    wanted = wanted or OperatingPoint()
    part = TuningPart(source)
    return Threshold(wanted.threshold(truth, scores), wanted.words, part, len(truth))


def _counts_at_cuts(t: npt.NDArray[np.bool_], s: Floats) -> tuple[Floats, Ints, Ints]:
    """Distinct scores from high to low, with true and false positives when cutting there."""
    cuts, place = np.unique(s, return_inverse=True)
    pos = np.bincount(place[t], minlength=cuts.size)[::-1].cumsum()
    neg = np.bincount(place[~t], minlength=cuts.size)[::-1].cumsum()
    return cuts[::-1], pos.astype(np.int64), neg.astype(np.int64)


# ------------------------------------------------------------------ several classes


def confusion_matrix(truth: AnyArray, called: AnyArray, n_classes: int) -> Ints:
    """(C, C) counts: rows are true classes, columns called ones; classes are 0 .. C-1.

    Raises: StatisticUndefined if empty, of unequal length, or a class outside 0 .. C-1.
    """
    t, c = _classes(truth, n_classes, "truth"), _classes(called, n_classes, "calls")
    _same_length(t, c)
    counts = np.bincount(t * n_classes + c, minlength=n_classes * n_classes)
    return counts.reshape(n_classes, n_classes).astype(np.int64)


def multiclass_accuracy(matrix: Ints) -> Proportion:
    """Share of cases on the diagonal."""
    return Proportion(int(np.trace(matrix)), int(matrix.sum()))


def class_recalls(matrix: Ints) -> tuple[Proportion, ...]:
    """Per class, the share of its cases that were called it (sensitivity of one against rest)."""
    return tuple(Proportion(int(row[k]), int(row.sum())) for k, row in enumerate(matrix))


def macro_f1(matrix: Ints) -> float:
    """Plain mean over classes of F1, each class against the rest.

    Raises: StatisticUndefined if a class neither occurs nor is ever called.
    """
    hits = np.diag(matrix)
    total = matrix.sum(axis=0) + matrix.sum(axis=1)
    if bool((total == 0).any()):
        raise StatisticUndefined(
            f"classes {np.flatnonzero(total == 0).tolist()} neither occur nor are called",
            where="macro F1",
            remedy="leave such classes out of the task",
        )
    return float(np.mean(2 * hits / total))


def macro_auc(truth: AnyArray, scores: AnyArray) -> float:
    """Plain mean over classes of the AUC of each class against the rest.

    truth (n,) classes 0 .. C-1; scores (n, C), column k for class k. For C = 2 with columns that
    sum to 1 this is the ordinary AUC.
    Raises: StatisticUndefined if a class has no case (or is the only one), or scores not finite.
    """
    if scores.ndim != 2:
        raise StatisticUndefined(f"scores with {scores.ndim} axes", expected="(cases, classes)")
    t = _classes(truth, scores.shape[1], "truth")
    return float(np.mean([auc(t == k, scores[:, k]) for k in range(scores.shape[1])]))


# ------------------------------------------------------------------ ordered classes


def cumulative_splits(truth: AnyArray, scores: AnyArray) -> list[tuple[Ints, Floats]]:
    """Ordered classes (grades) as C - 1 two-class tasks: "class k or above", k = 1 .. C-1.

    truth (n,) classes 0 .. C-1; scores (n,), one that rises with the class, or (n, C) class
    probabilities, of which those of k and above are summed. Each pair is (truth (n,) 0/1, scores
    (n,)), for `auc` or for a resampled `bootstrap.Auc`.
    Raises: StatisticUndefined if a class has no case, fewer than two classes, or scores of another
    shape or not finite.
    """
    s = np.asarray(scores, dtype=np.float64)
    highest = int(np.max(truth, initial=-1))
    n_classes = s.shape[1] if s.ndim == 2 else highest + 1
    t = _classes(truth, n_classes, "truth")
    if s.ndim not in (1, 2):
        raise StatisticUndefined(f"scores with {s.ndim} axes", expected="(cases,) or (cases, C)")
    present = np.bincount(t, minlength=n_classes)
    if n_classes < 2 or bool((present == 0).any()):
        raise StatisticUndefined(
            f"classes with {present.tolist()} cases",
            where="ordered classes",
            expected="at least two classes, each with a case",
            remedy="merge classes without cases with a neighbour",
        )
    upper = s if s.ndim == 1 else np.cumsum(s[:, ::-1], axis=1)[:, ::-1]
    splits = [(t >= k, upper if s.ndim == 1 else upper[:, k]) for k in range(1, n_classes)]
    for above, score in splits:
        binary_scores(above, score)
    return [(above.astype(np.int64), score) for above, score in splits]


def cumulative_auc(truth: AnyArray, scores: AnyArray) -> float:
    """Plain mean over the cuts of an ordered scale of the AUC of "this class or above".

    Arguments and errors as `cumulative_splits`; for two classes the ordinary AUC.

    >>> cumulative_auc(np.array([0, 1, 2, 2]), np.array([1.0, 3, 2, 4]))
    0.875
    """
    return float(np.mean([auc(t, s) for t, s in cumulative_splits(truth, scores)]))


# ------------------------------------------------------------------ checks


def binary_scores(
    truth: AnyArray, scores: AnyArray, *, both_classes: bool = True
) -> tuple[npt.NDArray[np.bool_], Floats]:
    """Checked truth and scores of a two-class task as bool and float arrays (n,).

    Raises: StatisticUndefined if empty, of unequal length, with scores that are not finite, with
    other truths than 0 and 1, or (both_classes) with one class only.
    """
    t = _zero_one(truth, "truth")
    s = np.asarray(scores, dtype=np.float64)
    if s.ndim != 1:
        raise StatisticUndefined(f"scores with {s.ndim} axes", expected="one score per case")
    _same_length(t, s)
    if not bool(np.isfinite(s).all()):
        raise StatisticUndefined(
            f"{int((~np.isfinite(s)).sum())} of {s.size} scores are NaN or infinite",
            where="scores",
            remedy="find out why the system gave no score; do not fill in a number",
        )
    if both_classes and (t.all() or not t.any()):
        raise StatisticUndefined(
            f"all {t.size} cases are of one class",
            where="truth",
            expected="at least one positive and one negative case",
        )
    return t, s


def binary_probabilities(
    truth: AnyArray, probabilities: AnyArray, *, both_classes: bool = True
) -> tuple[npt.NDArray[np.bool_], Floats]:
    """As `binary_scores`, and the scores are probabilities of the positive class.

    Raises: StatisticUndefined also for values below 0 or above 1.
    """
    t, p = binary_scores(truth, probabilities, both_classes=both_classes)
    outside = int(((p < 0) | (p > 1)).sum())
    if outside:
        raise StatisticUndefined(
            f"{outside} of {p.size} values lie outside 0 to 1",
            where="probabilities",
            expected="probabilities of the positive class",
            remedy="other scores can be ranked (AUC), but not calibrated or decided by",
        )
    return t, p


def _zero_one(values: AnyArray, where: str) -> npt.NDArray[np.bool_]:
    v = np.asarray(values)
    if v.ndim != 1 or v.size == 0:
        raise StatisticUndefined(
            f"array of shape {v.shape}", where=where, expected="one value per case, and a case"
        )
    if not bool(((v == 0) | (v == 1)).all()):
        raise StatisticUndefined(
            "values other than 0 and 1", where=where, expected="0 (negative) or 1 (positive)"
        )
    return v == 1


def _classes(values: AnyArray, n_classes: int, where: str) -> npt.NDArray[np.intp]:
    v = np.asarray(values)
    if v.ndim != 1 or v.size == 0:
        raise StatisticUndefined(
            f"array of shape {v.shape}", where=where, expected="one class per case, and a case"
        )
    whole = v.astype(np.intp) if np.issubdtype(v.dtype, np.integer) else np.full(v.shape, -1)
    if bool(((whole < 0) | (whole >= n_classes)).any()):
        raise StatisticUndefined(
            "a class that is not in the task",
            where=where,
            expected=f"whole numbers 0 to {n_classes - 1}",
        )
    return whole


def _same_length(first: npt.NDArray[np.generic], second: npt.NDArray[np.generic]) -> None:
    if first.shape != second.shape:
        raise StatisticUndefined(
            f"{first.shape[0]} truths with {second.shape[0]} values", expected="one per case"
        )
