"""Majorities, groups, and a model at a reader's operating point."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renalkit.errors import StatisticUndefined
from renalkit.metrics.agreement import IccForm, icc
from renalkit.metrics.bootstrap import BootstrapPlan
from renalkit.metrics.classification import auc, confusion_at
from renalkit.metrics.mrmc import Generalise
from renalkit.metrics.reader_study import (
    GroupPlan,
    Match,
    MatchedDifference,
    TieRule,
    compare_calls,
    majority_vote,
    model_at_reader,
    reader_auc,
    summarise_group,
)

NAN = float("nan")
FAST = BootstrapPlan(n_boot=200)


def readings(seed: int = 0, readers: int = 3, n: int = 60):
    """Truth (n,), model scores (n,), reader scores and votes (J, n)."""
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.repeat([0, 1], [n - n // 2, n // 2]))
    evidence = 1.4 * truth + rng.normal(size=n)
    model = evidence + 0.3 * rng.normal(size=n)
    scores = np.round(evidence + 0.8 * rng.normal(size=(readers, n)), 1)
    return truth, model, scores, (scores > 0.7).astype(float)


VOTES = np.array([[1, 1, 0, 0, NAN], [1, 0, 0, 1, 1], [1, NAN, 0, NAN, 0.0]])


@pytest.mark.parametrize(
    ("rule", "chair", "calls", "decided"),
    [
        (TieRule.POSITIVE, None, [1, 1, 0, 1, 1], [1, 1, 1, 1, 1]),
        (TieRule.NEGATIVE, None, [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]),
        (TieRule.LEFT_OUT, None, [1, 0, 0, 0, 0], [1, 0, 1, 0, 0]),
        (TieRule.CHAIR, 0, [1, 1, 0, 0, 0], [1, 1, 1, 1, 0]),
        (TieRule.CHAIR, 1, [1, 0, 0, 1, 1], [1, 1, 1, 1, 1]),
    ],
)
def test_majority_and_its_ties(rule: TieRule, chair: int | None, calls, decided):
    found = majority_vote(VOTES, rule, chair)
    assert found.calls.tolist() == [bool(c) for c in calls]
    assert found.decided.tolist() == [bool(d) for d in decided]
    assert (found.ties, found.rule) == (3, rule)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_an_odd_number_of_votes_needs_no_rule(seed):
    votes = np.random.default_rng(seed).integers(0, 2, (5, 20)).astype(float)
    found = [majority_vote(votes, rule) for rule in TieRule if rule is not TieRule.CHAIR]
    assert all(f.ties == 0 and f.decided.all() for f in found)
    assert all((f.calls == (votes.sum(axis=0) > 2.5)).all() for f in found)
    flipped = majority_vote(1 - votes, TieRule.POSITIVE)
    assert (flipped.calls == ~found[0].calls).all()


def test_majority_refusals():
    with pytest.raises(StatisticUndefined, match="1 cases without a vote"):
        majority_vote(np.array([[1, NAN], [0, NAN]]), TieRule.POSITIVE)
    with pytest.raises(StatisticUndefined, match="votes other than 0 and 1"):
        majority_vote(np.array([[1, 0.5]]), TieRule.POSITIVE)
    for rule, chair in ((TieRule.CHAIR, None), (TieRule.POSITIVE, 0)):
        with pytest.raises(ValueError, match="chair"):
            majority_vote(VOTES, rule, chair)


def test_a_group_with_scores():
    truth, _, scores, votes = readings()
    found = summarise_group("abc", truth, votes, GroupPlan(TieRule.NEGATIVE), scores)
    assert [r.name for r in found.readers] == ["a", "b", "c"]
    sensitivities = [r.calls.sensitivity.value for r in found.readers if r.calls]
    assert found.sensitivity is not None
    assert found.sensitivity.value == pytest.approx(np.mean(sensitivities))
    assert found.sensitivity.n == 30
    assert found.auc is not None
    assert found.auc.value == pytest.approx(np.mean([auc(truth, s) for s in scores]))
    assert "random readers and cases" in found.auc.method
    assert [c.form.value for c in found.icc] == [
        *("ICC(1,1)", "ICC(2,1)", "ICC(3,1)", "ICC(1,k)", "ICC(2,k)", "ICC(3,k)")
    ]
    assert found.icc[1].estimate == icc(scores.T, IccForm.TWO_SINGLE).estimate
    assert found.kappa is not None
    assert found.majority is not None
    assert found.majority.n == truth.size
    assert found.notes == ()


def test_a_group_of_votes_only_has_no_auc():
    truth, _, _, votes = readings()
    found = summarise_group("abc", truth, votes, GroupPlan(TieRule.NEGATIVE))
    assert found.auc is None
    assert found.icc[1].estimate == icc(votes.T, IccForm.TWO_SINGLE).estimate
    assert all(r.auc is None for r in found.readers)


def test_a_group_of_scores_only_has_no_operating_point():
    truth, _, scores, _ = readings()
    found = summarise_group("abc", truth, None, GroupPlan(TieRule.NEGATIVE), scores)
    assert found.auc is not None
    assert (found.sensitivity, found.majority, found.vote, found.kappa) == (None, None, None, None)
    with pytest.raises(ValueError, match="neither votes nor scores"):
        summarise_group("abc", truth, None, GroupPlan(TieRule.NEGATIVE))


def test_a_reader_who_used_two_scores_only_has_no_auc_and_the_others_have():
    truth, _, scores, votes = readings()
    scores[1] = votes[1]
    found = summarise_group("abc", truth, votes, GroupPlan(TieRule.NEGATIVE), scores)
    assert [r.auc is None for r in found.readers] == [False, True, False]
    assert found.notes == ("b: no AUC (votes, where scores are needed)",)


def test_a_group_of_one_reader_speaks_for_that_reader():
    truth, _, scores, votes = readings(readers=1)
    found = summarise_group(["a"], truth, votes, GroupPlan(TieRule.POSITIVE), scores)
    assert found.sensitivity is not None
    assert "fixed readers" in found.sensitivity.method
    assert (found.kappa, found.agreement, found.icc) == (None, None, ())
    assert "one reader" in found.notes[0]
    assert found.majority == found.readers[0].calls


def test_a_group_that_always_says_the_same():
    truth, _, _, votes = readings()
    found = summarise_group("abc", truth, np.ones_like(votes), GroupPlan(TieRule.POSITIVE))
    assert found.kappa is None
    assert found.notes[0] == "no kappa: all readers use one class for all 60 cases"
    assert found.notes[1] == "no ICC(1,1): all 180 ratings are 1"
    assert found.sensitivity is not None
    assert found.specificity is not None
    assert (found.sensitivity.value, found.specificity.value) == (1, 0)
    assert math.isnan(found.sensitivity.low)
    assert found.agreement is not None
    assert found.agreement.pairwise.value == 1


def test_undecided_cases_are_left_out_of_the_majority_and_counted():
    truth, _, _, votes = readings(readers=2)
    found = summarise_group("ab", truth, votes, GroupPlan(TieRule.LEFT_OUT))
    assert found.majority is not None
    assert found.vote is not None
    assert found.majority.n == truth.size - found.vote.ties < truth.size
    chaired = summarise_group("ab", truth, votes, GroupPlan(TieRule.CHAIR, chair="b"))
    assert chaired.majority == chaired.readers[1].calls


def test_group_refusals():
    truth, _, _, votes = readings()
    with pytest.raises(ValueError, match="'z' is not among"):
        summarise_group("abc", truth, votes, GroupPlan(TieRule.CHAIR, chair="z"))
    with pytest.raises(ValueError, match="2 names for 3 readers"):
        summarise_group("ab", truth, votes, GroupPlan(TieRule.POSITIVE))
    votes[0, 0] = NAN
    with pytest.raises(StatisticUndefined, match="1 of 180 votes are missing"):
        summarise_group("abc", truth, votes, GroupPlan(TieRule.POSITIVE))


def test_fixed_readers_have_narrower_averages_than_a_sample_of_them():
    truth, _, scores, votes = readings(5)
    scores = scores + np.array([0, 1.5, -1.5])[:, None] * truth  # readers of unlike skill
    both, fixed = (
        summarise_group("abc", truth, votes, GroupPlan(TieRule.POSITIVE, to=to), scores).auc
        for to in (Generalise.READERS_AND_CASES, Generalise.CASES)
    )
    assert both is not None
    assert fixed is not None
    assert both.high - both.low > fixed.high - fixed.low


def test_a_vote_is_never_passed_off_as_a_curve():
    truth, _, scores, votes = readings()
    assert reader_auc(truth, scores[0]).value == pytest.approx(auc(truth, scores[0]))
    with pytest.raises(StatisticUndefined, match="one operating point, not a curve"):
        reader_auc(truth, votes[0])
    with pytest.raises(StatisticUndefined, match="one operating point, not a curve"):
        summarise_group("abc", truth, votes, GroupPlan(TieRule.POSITIVE), votes)


def test_compare_calls_by_hand():
    truth = np.array([1, 1, 1, 1, 0, 0, 0])
    first, second = np.array([1, 1, 1, 0, 0, 1, 0]), np.array([1, 0, 0, 0, 0, 0, 0])
    found = compare_calls(truth, first, second)
    assert (found.first.tp, found.second.tp) == (3, 1)
    assert found.sensitivity.difference.value == pytest.approx(0.5)
    assert found.specificity.difference.value == pytest.approx(-1 / 3)
    assert found.sensitivity.difference.n == 4
    same = compare_calls(truth, first, first)
    assert (same.sensitivity.p_value, same.specificity.difference.value) == (1, 0)
    with pytest.raises(StatisticUndefined, match="missing"):
        compare_calls(truth, first, np.where(second == 1, NAN, 0))
    with pytest.raises(StatisticUndefined, match="one class"):
        compare_calls(np.ones(7), first, second)


@given(st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=15)
def test_the_matched_model_is_never_worse_where_it_is_matched_and_no_better_threshold_exists(
    seed, coarse
):
    truth, model, _, votes = readings(seed, n=24)
    if coarse:
        model = np.round(model)
    for match in Match:
        found = model_at_reader(truth, model, votes[0], match, BootstrapPlan(n_boot=100))
        measures = found.model.measures(), found.reader.measures()
        assert measures[0][match.value].value >= measures[1][match.value].value - 1e-12
        apart = measures[0][match.other.value].value - measures[1][match.other.value].value
        assert found.difference.value == pytest.approx(apart)
        assert found.test.difference.value == pytest.approx(apart)
        every = [confusion_at(truth, model, c).measures() for c in [*model, np.inf]]
        best = max(
            m[match.other.value].value
            for m in every
            if m[match.value].value >= measures[1][match.value].value - 1e-12
        )
        assert measures[0][match.other.value].value == pytest.approx(best)


def test_matching_at_the_corners():
    truth, model, _, _ = readings(3)
    for votes, match, calls in (
        (np.zeros(60), Match.SENSITIVITY, 0),
        (np.ones(60), Match.SPECIFICITY, 60),
    ):
        found = model_at_reader(truth, model, votes, match, FAST)
        assert found.model.tp + found.model.fp == calls
        assert (found.difference.value, found.test.p_value) == (0, 1)
    whole = model_at_reader(truth, model, np.zeros(60), Match.SPECIFICITY, FAST)
    assert whole.model.fp == 0
    assert whole.model.sensitivity.value == np.mean(model[truth == 1] > model[truth == 0].max())


def test_a_model_that_gives_the_readers_votes_differs_by_nothing():
    truth, _, _, votes = readings(4)
    for match in Match:
        found = model_at_reader(truth, votes[0], votes[0], match, FAST)
        assert (found.difference.value, found.difference.low, found.test.p_value) == (0, 0, 1)
        assert found.model == found.reader


def test_the_interval_says_that_it_matches_in_every_resample():
    truth, model, _, votes = readings(6)
    found = model_at_reader(truth, model, votes[0], Match.SPECIFICITY, FAST)
    assert found.difference.low <= found.difference.value <= found.difference.high
    assert "specificity matched in each" in found.difference.method
    assert "within classes" in found.difference.method
    with pytest.raises(StatisticUndefined, match="3 votes for 60 cases"):
        model_at_reader(truth, model, votes[0][:3], Match.SPECIFICITY)


def test_matching_in_resamples_is_matching_of_the_drawn_cases():
    """The counted form gives what `model_at_reader` gives on a table with the rows repeated."""
    rng = np.random.default_rng(9)
    truth, model, _, votes = readings(7, n=30)
    for scores in (model, np.round(model)):
        for match in Match:
            t, v = truth == 1, votes[0] == 1
            evaluate = MatchedDifference(t, scores, v, match).prepare(np.arange(30), 30)
            for counts in rng.multinomial(30, np.full(30, 1 / 30), size=20):
                rows = np.repeat(np.arange(30), counts)
                found = model_at_reader(truth[rows], scores[rows], votes[0, rows], match, FAST)
                assert evaluate(counts[None].astype(float))[0] == pytest.approx(
                    found.test.difference.value
                )
    only = np.where(t, 1.0, 0.0)[None]
    assert math.isnan(evaluate(only)[0])
