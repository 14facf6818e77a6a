"""How do readers do alone, by seniority and by majority, and beside a model?

A vote is one operating point. A reader without scores therefore has no AUC here, and a model is
compared with such a reader at that point: its specificity at the reader's sensitivity, or the
reverse, or both at a threshold fixed beforehand. `mrmc` compares arms and AUCs of several readers.

Votes are 1 (positive) or 0, NaN where a reader did not vote; rows are readers, columns independent
cases (patients): (J, n).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from renalkit.domain.prediction import Unit
from renalkit.errors import StatisticUndefined
from renalkit.metrics.agreement import (
    Agreement,
    IccForm,
    IntraclassCorrelation,
    Kappa,
    fleiss_kappa,
    icc,
    percent_agreement,
)
from renalkit.metrics.auc_inference import delong
from renalkit.metrics.bootstrap import BootstrapPlan, Codes, Evaluate, resample
from renalkit.metrics.classification import (
    AnyArray,
    BinaryConfusion,
    Floats,
    binary_confusion,
    binary_scores,
)
from renalkit.metrics.comparisons import Comparison, mcnemar, paired_calls
from renalkit.metrics.inference import Estimate
from renalkit.metrics.mrmc import Figure, Generalise, MrmcPlan, obuchowski_rockette

Bools = npt.NDArray[np.bool_]


# ------------------------------------------------------------------ majority


class TieRule(StrEnum):
    """What a case is called on which as many readers say yes as no. There is no default.

    chair: as the named reader says. left out: the case has no call and is counted.
    """

    POSITIVE = "positive"
    NEGATIVE = "negative"
    CHAIR = "chair"
    LEFT_OUT = "left out"


@dataclass(frozen=True, slots=True)
class MajorityVote:
    """calls (n,), meaningful where decided (n,). ties: cases the rule had to settle, decided or
    not."""

    calls: Bools
    decided: Bools
    ties: int
    rule: TieRule


def majority_vote(votes: AnyArray, rule: TieRule, chair: int | None = None) -> MajorityVote:
    """One call per case from votes (J, n); readers who did not vote on a case do not count there.

    chair: row of the reader who settles ties, for TieRule.CHAIR only; where the chair did not vote
    the case stays undecided.
    Raises: StatisticUndefined for other values than 0, 1 and NaN, or a case nobody voted on;
    ValueError for a chair without its rule, or the reverse.

    >>> majority_vote(np.array([[1, 0, 1], [1, 0, 0.0]]), TieRule.NEGATIVE).calls.tolist()
    [True, False, False]
    """
    v = _votes(votes, missing=True)
    if (rule is TieRule.CHAIR) != (chair is not None):
        raise ValueError("a chair goes with the rule 'chair', and the rule with a chair")
    silent = np.isnan(v).all(axis=0)
    if bool(silent.any()):
        raise StatisticUndefined(
            f"{int(silent.sum())} cases without a vote",
            where="majority vote",
            remedy="leave these cases out, and say how many",
        )
    margin = np.nansum(2 * v - 1, axis=0)
    tied = margin == 0
    calls, decided = margin > 0, np.ones(v.shape[1], dtype=np.bool_)
    if rule is TieRule.POSITIVE:
        calls = calls | tied
    elif rule is TieRule.LEFT_OUT:
        decided = ~tied
    elif chair is not None:
        calls = np.where(tied, v[chair] == 1, calls)
        decided = ~(tied & np.isnan(v[chair]))
    return MajorityVote(calls, decided, int(tied.sum()), rule)


# ------------------------------------------------------------------ groups


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """How a group is summarised. chair: name of the reader who settles ties. to: whether its
    averages speak for readers like these, or for these readers only."""

    ties: TieRule
    chair: str | None = None
    to: Generalise = Generalise.READERS_AND_CASES
    level: float = 0.95


@dataclass(frozen=True, slots=True)
class ReaderSummary:
    """One reader: the operating point of the votes, the AUC of the scores; None without them."""

    name: str
    calls: BinaryConfusion | None
    auc: Estimate | None


@dataclass(frozen=True, slots=True)
class GroupSummary:
    """Readers of one seniority. sensitivity, specificity, auc: averages over readers.

    majority: counts of the decided cases. kappa, agreement: of the votes. icc: all six forms, of
    the scores where there are any, else of the votes. What does not exist for these readings is
    None or missing, and `notes` say why.
    """

    readers: tuple[ReaderSummary, ...]
    sensitivity: Estimate | None
    specificity: Estimate | None
    auc: Estimate | None
    majority: BinaryConfusion | None
    vote: MajorityVote | None
    kappa: Kappa | None
    agreement: Agreement | None
    icc: tuple[IntraclassCorrelation, ...]
    notes: tuple[str, ...]


def summarise_group(
    names: Sequence[str],
    truth: AnyArray,
    votes: AnyArray | None,
    plan: GroupPlan,
    scores: AnyArray | None = None,
) -> GroupSummary:
    """Every reader, their average, their majority and their agreement.

    names (J,), truth (n,) 0/1, votes and scores (J, n) without missing values; one of them may be
    None. Averages over readers are those of a one-arm Obuchowski-Rockette study; a single reader is
    taken as fixed.
    Raises: StatisticUndefined as `figures_of_merit`; ValueError for a chair who is not in the
    group, or neither votes nor scores.
    """
    v = None if votes is None else _votes(votes)
    x = None if scores is None else np.atleast_2d(np.asarray(scores, dtype=np.float64))
    given = x if v is None else v
    if given is None:
        raise ValueError("neither votes nor scores")
    t, _ = binary_scores(truth, given[0])
    if len(names) != len(given):
        raise ValueError(f"{len(names)} names for {len(given)} readers")
    if plan.chair is not None and plan.chair not in names:
        raise ValueError(f"chair {plan.chair!r} is not among {list(names)}")
    to = plan.to if len(given) > 1 else Generalise.CASES
    notes = [] if to is plan.to else ["one reader: averages hold for this reader only"]

    def average(values: Floats | None, figure: Figure) -> Estimate | None:
        if values is None:
            return None
        mrmc_plan = MrmcPlan(figure, to=to, level=plan.level)
        return obuchowski_rockette(t, values[None], mrmc_plan).arms[0]

    readers: list[ReaderSummary] = []
    for i, name in enumerate(names):
        calls = None if v is None else binary_confusion(t, v[i])
        area = None
        try:
            area = None if x is None else reader_auc(t, x[i], level=plan.level)
        except StatisticUndefined as error:
            notes.append(f"{name}: no AUC ({error.found})")
        readers.append(ReaderSummary(name, calls, area))
    vote = majority = None
    if v is not None:
        chair = None if plan.chair is None else list(names).index(plan.chair)
        vote = majority_vote(v, plan.ties, chair)
        if bool(vote.decided.any()):
            majority = binary_confusion(t[vote.decided], vote.calls[vote.decided])
    kappa, agreement = _agreement(v, plan.level, notes)
    return GroupSummary(
        tuple(readers),
        average(v, Figure.SENSITIVITY),
        average(v, Figure.SPECIFICITY),
        average(x, Figure.AUC),
        majority,
        vote,
        kappa,
        agreement,
        _correlations(given if x is None else x, plan.level, notes),
        tuple(notes),
    )


def _agreement(
    votes: Floats | None, level: float, notes: list[str]
) -> tuple[Kappa | None, Agreement | None]:
    if votes is None or len(votes) < 2:
        return None, None
    kappa = None
    try:
        kappa = fleiss_kappa(votes.T, 2, level=level)
    except StatisticUndefined as error:
        notes.append(f"no kappa: {error.found}")
    return kappa, percent_agreement(votes.T, 2, level=level)


def _correlations(
    ratings: Floats, level: float, notes: list[str]
) -> tuple[IntraclassCorrelation, ...]:
    """Every form that exists for these ratings (J, n)."""
    found: list[IntraclassCorrelation] = []
    for form in IccForm if len(ratings) > 1 else ():
        try:
            found.append(icc(ratings.T, form, level=level))
        except StatisticUndefined as error:
            notes.append(f"no {form.value}: {error.found}")
    return tuple(found)


def reader_auc(
    truth: AnyArray, scores: AnyArray, unit: Unit = Unit.PATIENT, level: float = 0.95
) -> Estimate:
    """AUC of one reader's scores (n,), by DeLong; votes have none.

    Raises: StatisticUndefined for scores of at most two values, or as `delong`.
    """
    if np.unique(np.asarray(scores)).size <= 2:
        raise StatisticUndefined(
            "votes, where scores are needed",
            where="AUC of a reader",
            expected="scores of more than two values: votes give one operating point, not a curve",
            remedy="compare with a model at this point (model_at_reader)",
        )
    return delong(truth, scores, unit, level)


# ------------------------------------------------------------------ calls against calls


@dataclass(frozen=True, slots=True)
class CallComparison:
    """Two sets of calls on the same cases, first minus second, by McNemar's test.

    A model at a threshold fixed beforehand against a reader or a majority, or one reader with
    against without AI.
    """

    first: BinaryConfusion
    second: BinaryConfusion
    sensitivity: Comparison
    specificity: Comparison


def compare_calls(
    truth: AnyArray, first: AnyArray, second: AnyArray, level: float = 0.95
) -> CallComparison:
    """Sensitivity and specificity of two sets of calls (n,) 0/1 of the same independent cases.

    Raises: StatisticUndefined with one class only, missing calls, or as `mcnemar`.
    """
    a, b = _votes(np.stack([np.asarray(c, dtype=np.float64) for c in (first, second)])) == 1
    t, _ = binary_scores(truth, a)
    return CallComparison(
        binary_confusion(t, a),
        binary_confusion(t, b),
        mcnemar(paired_calls(a[t], b[t]), level=level),
        mcnemar(paired_calls(~a[~t], ~b[~t]), level=level),
    )


# ------------------------------------------------------------------ a model at a reader's point


class Match(StrEnum):
    """What of the reader the model is made to equal; the other measure is then compared."""

    SENSITIVITY = "sensitivity"
    SPECIFICITY = "specificity"

    @property
    def other(self) -> Match:
        return Match.SPECIFICITY if self is Match.SENSITIVITY else Match.SENSITIVITY


@dataclass(frozen=True, slots=True)
class MatchedComparison:
    """A model made to equal a reader in `match`, model minus reader in the other measure.

    threshold: on the model's scores, found on these cases: a description of this sample, not an
    operating point to use. difference, test: matched anew in every resample. A test that takes the
    threshold as given, such as McNemar's, finds differences where there are none: in 11 to 16 % of
    simulated studies, at 5 % (validation/results/matched_level.json).
    """

    match: Match
    threshold: float
    reader: BinaryConfusion
    model: BinaryConfusion
    difference: Estimate
    test: Comparison


def model_at_reader(
    truth: AnyArray,
    model_scores: AnyArray,
    votes: AnyArray,
    match: Match,
    plan: BootstrapPlan | None = None,
) -> MatchedComparison:
    """A model beside one reader (or a majority) at the reader's sensitivity or specificity.

    truth, model_scores, votes (n,). The model is given the threshold at which it is at least as
    sensitive (or specific) as the reader and otherwise calls as few positive (or as many) as it
    can; with few cases or ties it may be better in the matched measure too, never worse. That is
    the empirical ROC curve as usually read: in the model's favour by the cases of one step.
    Raises: StatisticUndefined with one class only, missing votes or scores.
    """
    t, s = binary_scores(truth, model_scores)
    v = _votes(np.atleast_2d(votes))[0] == 1
    if v.size != t.size:
        raise StatisticUndefined(f"{v.size} votes for {t.size} cases", expected="one per case")

    plan = plan or BootstrapPlan()
    drawn = resample((MatchedDifference(t, s, v, match),), np.arange(t.size), plan, t)[0]
    drawn = replace(drawn, difference=True)
    difference = drawn.estimate()
    words = f"{match.value} matched in each"
    difference = replace(difference, method=f"{difference.method}, {words}")
    threshold = _matching_threshold(t, s, v, match)
    return MatchedComparison(
        match,
        threshold,
        reader=binary_confusion(t, v),
        model=binary_confusion(t, s >= threshold),
        difference=difference,
        test=Comparison(
            difference, difference.value, drawn.p_value(), "bootstrap of patients, matched in each"
        ),
    )


@dataclass(frozen=True, slots=True)
class MatchedDifference:
    """Model minus reader in the other measure than `match`, matched anew in every resample.

    truth, scores, votes (n,). A `bootstrap.Statistic`; NaN in a resample without one class.
    """

    truth: Bools
    scores: Floats
    votes: Bools
    match: Match

    @property
    def n_rows(self) -> int:
        return self.truth.size

    def prepare(self, codes: Codes, n_groups: int) -> Evaluate:
        # Score levels from the highest: rows of a level are called together.
        _, level = np.unique(-self.scores, return_inverse=True)
        shape = (n_groups, int(level.max()) + 1)
        pos, neg = np.zeros(shape), np.zeros(shape)
        np.add.at(pos, (codes, level), self.truth)
        np.add.at(neg, (codes, level), ~self.truth)
        voted, voted_of = (
            np.bincount(codes, weights=self.votes & part, minlength=n_groups)
            for part in (self.truth, ~self.truth)
        )

        def evaluate(counts: Floats) -> Floats:
            # b u: how many of each class the model calls when it calls the highest u levels.
            called, called_of = (
                np.concatenate([np.zeros((len(counts), 1)), (counts @ m).cumsum(axis=1)], axis=1)
                for m in (pos, neg)
            )
            by_reader, of_reader = counts @ voted, counts @ voted_of
            if self.match is Match.SENSITIVITY:
                u = (called < by_reader[:, None]).sum(axis=1)
                found, reader, whole = called_of, of_reader, called_of[:, -1]
            else:
                u = (called_of <= of_reader[:, None]).sum(axis=1) - 1
                found, reader, whole = called, by_reader, called[:, -1]
            gained = found[np.arange(len(u)), u] - reader
            signed = gained if self.match is Match.SPECIFICITY else 0 - gained
            both = (called[:, -1] > 0) & (called_of[:, -1] > 0)
            return np.divide(signed, whole, out=np.full(len(u), np.nan), where=both)

        return evaluate


def _matching_threshold(t: Bools, s: Floats, v: Bools, match: Match) -> float:
    """Counts, not shares, are matched, so nothing hangs on rounding."""
    above_all = float(np.nextafter(s.max(), np.inf))
    if match is Match.SENSITIVITY:
        wanted = int((v & t).sum())
        return float(np.sort(s[t])[::-1][wanted - 1]) if wanted else above_all
    allowed = int((v & ~t).sum())
    negative = np.sort(s[~t])[::-1]
    if allowed == negative.size:
        return float(s.min())
    higher = s[s > negative[allowed]]
    return float(higher.min()) if higher.size else above_all


# ------------------------------------------------------------------ checks


def _votes(votes: AnyArray, *, missing: bool = False) -> Floats:
    v = np.asarray(votes, dtype=np.float64)
    if v.ndim != 2 or min(v.shape) < 1:
        raise StatisticUndefined(
            f"votes of shape {v.shape}", where="reader study", expected="readers x cases"
        )
    absent = int(np.isnan(v).sum())
    if absent and not missing:
        raise StatisticUndefined(
            f"{absent} of {v.size} votes are missing",
            where="reader study",
            expected="every case voted on by every reader",
            remedy="leave out the cases that are incomplete, and say how many",
        )
    if not bool(((v == 0) | (v == 1) | np.isnan(v)).all()):
        raise StatisticUndefined(
            "votes other than 0 and 1",
            where="reader study",
            expected="0 (negative) or 1 (positive)",
            remedy="turn scores into votes at a threshold fixed beforehand",
        )
    return v
