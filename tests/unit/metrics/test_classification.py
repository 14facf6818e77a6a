"""Counts, rankings and thresholds against scikit-learn and by properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from renalkit.errors import StatisticUndefined
from renalkit.metrics.classification import (
    BinaryConfusion,
    OperatingPoint,
    ThresholdRule,
    TuningPart,
    auc,
    binary_confusion,
    choose_threshold,
    class_recalls,
    confusion_at,
    confusion_matrix,
    cumulative_auc,
    cumulative_splits,
    macro_auc,
    macro_f1,
    multiclass_accuracy,
    pairs_won,
    roc_curve,
)

VALIDATION = TuningPart.VALIDATION


@st.composite
def scored_cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Both classes present, many ties."""
    n = draw(st.integers(2, 40))
    truth = draw(
        st.lists(st.integers(0, 1), min_size=n, max_size=n).filter(lambda t: 0 < sum(t) < n)
    )
    scores = draw(st.lists(st.integers(-6, 6), min_size=n, max_size=n))
    return np.array(truth), np.array(scores) / 4


@given(scored_cases(), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_auc_and_curve_equal_scikit_learn_in_any_row_order(cases, random):
    truth, scores = cases
    assert auc(truth, scores) == pytest.approx(sk.roc_auc_score(truth, scores), abs=1e-12)
    order = list(range(truth.size))
    random.shuffle(order)
    assert auc(truth[order], scores[order]) == auc(truth, scores)
    fpr, tpr, cuts = sk.roc_curve(truth, scores, drop_intermediate=False)
    curve = roc_curve(truth[order], scores[order])
    np.testing.assert_allclose(curve.false_positive_rate, fpr, atol=1e-12)
    np.testing.assert_allclose(curve.true_positive_rate, tpr, atol=1e-12)
    np.testing.assert_array_equal(curve.thresholds, cuts)


@given(scored_cases())
@settings(deadline=None)
def test_auc_is_the_share_of_won_pairs(cases):
    truth, scores = cases
    pos, neg = scores[truth == 1], scores[truth == 0]
    won = (pos[:, None] > neg).mean() + 0.5 * (pos[:, None] == neg).mean()
    assert auc(truth, scores) == pytest.approx(won, abs=1e-12)


@st.composite
def hard_to_sort(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Any finite scores, many of them neighbours of others in the last bits of a double."""
    s = np.array(draw(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2)))
    steps = draw(st.lists(st.integers(-9, 9), min_size=s.size, max_size=s.size))
    with np.errstate(over="ignore", invalid="ignore"):
        near = s + np.array(steps) * np.spacing(s)
    scores = np.concatenate([s, np.where(np.isfinite(near), near, s), -s])
    turned = draw(st.permutations(range(scores.size)))
    return np.arange(scores.size) % 2, scores[turned]


@given(scored_cases() | hard_to_sort())
@settings(deadline=None)
def test_pairs_won_are_counted_exactly(cases):
    truth, scores = cases
    right = np.where(truth[:, None] == 1, scores[:, None] > scores, scores[:, None] < scores)
    other = truth[:, None] != truth
    want = (right * other + 0.5 * other * (scores[:, None] == scores)).sum(axis=1)
    assert pairs_won(truth == 1, scores).tolist() == want.tolist()


@given(scored_cases())
@settings(deadline=None)
def test_auc_metamorphic(cases):
    truth, scores = cases
    value = auc(truth, scores)
    assert auc(1 - truth, scores) == pytest.approx(1 - value, abs=1e-12)
    assert auc(truth, -scores) == pytest.approx(1 - value, abs=1e-12)
    assert auc(truth, np.exp(scores) + 3) == value
    both = np.concatenate
    assert auc(both([truth, truth]), both([scores, scores])) == pytest.approx(value, abs=1e-12)


@given(scored_cases(), st.integers(-7, 7))
@settings(deadline=None)
def test_measures_equal_scikit_learn(cases, cut):
    truth, scores = cases
    called = scores >= cut / 4
    c = confusion_at(truth, scores, cut / 4)
    assert c == binary_confusion(truth, called)
    tn, fp, fn, tp = sk.confusion_matrix(truth, called, labels=[0, 1]).ravel()
    assert c == BinaryConfusion(tp, fp, tn, fn)
    nan = {"zero_division": math.nan}
    theirs = [
        sk.accuracy_score(truth, called),
        sk.recall_score(truth, called, **nan),
        sk.recall_score(truth, called, pos_label=0, **nan),
        sk.precision_score(truth, called, **nan),
        sk.precision_score(truth, called, pos_label=0, **nan),
        sk.f1_score(truth, called, **nan),
    ]
    ours = [m.value for m in c.measures().values()]
    np.testing.assert_allclose(ours, theirs, atol=1e-12, equal_nan=True)
    swapped = binary_confusion(1 - truth, ~called)
    assert (swapped.sensitivity, swapped.ppv) == (c.specificity, c.npv)


@given(scored_cases(), st.floats(0.05, 1.0))
@settings(deadline=None)
def test_thresholds_are_the_best_of_all(cases, target):
    truth, scores = cases
    every = np.concatenate([np.unique(scores), [scores.max() + 1]])
    at = [confusion_at(truth, scores, v) for v in every]
    youden = [c.sensitivity.value + c.specificity.value for c in at]

    def chosen(*wanted, **costs):
        t = choose_threshold(truth, scores, VALIDATION, OperatingPoint(*wanted, **costs))
        assert (t.source, t.source_n) == (VALIDATION, truth.size)
        return t.value, confusion_at(truth, scores, t.value)

    _, c = chosen(ThresholdRule.YOUDEN)
    assert c.sensitivity.value + c.specificity.value == pytest.approx(max(youden))
    _, c = chosen(ThresholdRule.F1)
    assert c.f1.value == pytest.approx(max(c.f1.value for c in at))
    _, c = chosen(ThresholdRule.SENSITIVITY, target)
    fit = [c for c in at if c.sensitivity.value >= target]
    assert c.sensitivity.value >= target
    assert c.specificity.value == max(c.specificity.value for c in fit)
    _, c = chosen(ThresholdRule.SPECIFICITY, target)
    fit = [c for c in at if c.specificity.value >= target]
    assert c.specificity.value >= target
    assert c.sensitivity.value == max(c.sensitivity.value for c in fit)
    for share in (None, target / 2):
        at_share = truth.mean() if share is None else share

        def cost(c, p=at_share):
            missed, needless = 1 - c.sensitivity.value, 1 - c.specificity.value
            return 7.5 * p * missed + (1 - p) * needless

        _, c = chosen(ThresholdRule.COST, missed_cost=7.5, prevalence=share)
        assert cost(c) == pytest.approx(min(cost(c) for c in at))


@given(scored_cases())
@settings(deadline=None)
def test_thresholds_move_with_the_scores(cases):
    truth, scores = cases
    for wanted in (
        OperatingPoint(ThresholdRule.YOUDEN),
        OperatingPoint(ThresholdRule.F1),
        OperatingPoint(ThresholdRule.COST, missed_cost=3),
    ):
        plain = choose_threshold(truth, scores, VALIDATION, wanted).value
        moved = choose_threshold(truth, 8 * scores + 16, VALIDATION, wanted).value
        np.testing.assert_array_equal(8 * scores + 16 >= moved, scores >= plain)


def test_threshold_carries_its_rule_and_source():
    truth, scores = np.array([0, 1, 0, 1]), np.array([0.1, 0.2, 0.3, 0.9])
    wanted = OperatingPoint(ThresholdRule.SENSITIVITY, 0.9)
    t = choose_threshold(truth, scores, TuningPart.TRAIN, wanted)
    assert (t.value, t.rule, t.source) == (0.2, "sensitivity >= 0.9", TuningPart.TRAIN)
    half = OperatingPoint(ThresholdRule.HALF)
    assert choose_threshold(truth, scores, TuningPart.TRAIN, half).value == 0.5
    # Equal merit: the more sensitive threshold.
    assert choose_threshold(truth, np.array([3, 2, 1, 0]), TuningPart.TRAIN).value == 0


def test_a_dear_miss_lowers_the_threshold_and_a_rare_disease_raises_it():
    rng = np.random.default_rng(0)
    truth = rng.random(400) < 0.5
    scores = rng.normal(size=400) + 1.2 * truth

    def at(missed_cost, prevalence=None):
        wanted = OperatingPoint(ThresholdRule.COST, missed_cost=missed_cost, prevalence=prevalence)
        return wanted.threshold(truth, scores)

    assert at(10) < at(1) < at(0.1)
    assert at(1, 0.9) < at(1, 0.5) < at(1, 0.1)
    # A miss of weight 1 at equal shares weighs both errors alike: Youden's point.
    assert at(1, 0.5) == OperatingPoint().threshold(truth, scores)
    assert at(1e9) == scores[truth].min(), "no miss at any price"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((ThresholdRule.SENSITIVITY, None), "sensitivity needs a target"),
        ((ThresholdRule.SPECIFICITY, 0.0), "above 0, at most 1"),
        ((ThresholdRule.SENSITIVITY, 1.1), "above 0, at most 1"),
        ((ThresholdRule.YOUDEN, 0.9), "youden has no target"),
        ((ThresholdRule.COST,), "cost needs cost of a missed"),
        ((ThresholdRule.COST, None, 0.0), "expected above 0"),
        ((ThresholdRule.COST, None, float("inf")), "expected above 0"),
        ((ThresholdRule.F1, None, 2.0), "f1 has no cost"),
        ((ThresholdRule.COST, None, 2.0, 1.0), "prevalence 1.0"),
        ((ThresholdRule.HALF, None, None, 0.3), "expected rule cost"),
    ],
)
def test_operating_points_without_meaning_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        OperatingPoint(*values)


def test_the_test_part_is_no_source_of_a_threshold():
    with pytest.raises(ValueError, match="test"):
        choose_threshold(np.array([0, 1]), np.array([0.0, 1.0]), "test")  # type: ignore[arg-type]


@given(st.integers(2, 5), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_several_classes_equal_scikit_learn(n_classes, seed):
    rng = np.random.default_rng(seed)
    truth = np.concatenate([np.arange(n_classes), rng.integers(0, n_classes, 40)])
    scores = rng.dirichlet(np.ones(n_classes), truth.size).round(1)
    scores[:, -1] = 1 - scores[:, :-1].sum(axis=1)
    called = scores.argmax(axis=1)
    matrix = confusion_matrix(truth, called, n_classes)
    np.testing.assert_array_equal(matrix, sk.confusion_matrix(truth, called))
    assert multiclass_accuracy(matrix).value == pytest.approx(sk.accuracy_score(truth, called))
    assert macro_f1(matrix) == pytest.approx(
        sk.f1_score(truth, called, average="macro", zero_division=0), abs=1e-12
    )
    np.testing.assert_allclose(
        [r.value for r in class_recalls(matrix)], sk.recall_score(truth, called, average=None)
    )
    if n_classes == 2:
        assert macro_auc(truth, scores) == pytest.approx(auc(truth, scores[:, 1]), abs=1e-12)
    else:
        theirs = np.mean([sk.roc_auc_score(truth == k, scores[:, k]) for k in range(n_classes)])
        assert macro_auc(truth, scores) == pytest.approx(theirs, abs=1e-12)


def test_undefined_measures_say_so():
    c = binary_confusion(np.array([0, 0, 1]), np.array([0, 0, 0]))
    assert not c.ppv.defined
    assert math.isnan(c.ppv.value)
    assert all(math.isnan(v) for v in c.ppv.interval())
    assert (c.f1.value, c.sensitivity.value, c.npv.k, c.npv.n) == (0, 0, 2, 3)


@pytest.mark.parametrize(
    ("truth", "scores", "message"),
    [
        ([1, 1], [0.1, 0.2], "one class"),
        ([0, 0], [0.1, 0.2], "one class"),
        ([0, 1], [0.1, math.nan], "1 of 2 scores are NaN"),
        ([0, 1], [0.1, math.inf], "NaN or infinite"),
        ([0, 2], [0.1, 0.2], "other than 0 and 1"),
        ([0, math.nan], [0.1, 0.2], "other than 0 and 1"),
        ([0, 1], [0.1], "2 truths with 1 values"),
        ([], [], "shape"),
        ([0, 1], [[0.1], [0.2]], "axes"),
    ],
)
def test_scores_that_allow_no_auc_are_refused(truth, scores, message):
    for function in (auc, roc_curve, lambda t, s: choose_threshold(t, s, VALIDATION)):
        with pytest.raises(StatisticUndefined, match=message):
            function(np.array(truth), np.array(scores))


def test_classes_outside_the_task_are_refused():
    with pytest.raises(StatisticUndefined, match="not in the task"):
        confusion_matrix(np.array([0, 3]), np.array([0, 1]), 3)
    with pytest.raises(StatisticUndefined, match="not in the task"):
        confusion_matrix(np.array([0.0, 1.0]), np.array([0, 1]), 3)
    with pytest.raises(StatisticUndefined, match="neither occur"):
        macro_f1(confusion_matrix(np.array([0, 1]), np.array([0, 1]), 3))
    with pytest.raises(StatisticUndefined, match="one class"):
        macro_auc(np.array([0, 1]), np.full((2, 3), 1 / 3))
    with pytest.raises(ValueError, match="negative"):
        BinaryConfusion(1, -1, 0, 0)


# ---------------------------------------------------------------- ordered classes


@given(st.integers(0, 1000), st.integers(2, 5))
@settings(deadline=None)
def test_cumulative_auc_is_the_mean_of_the_cuts(seed, n_classes):
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.concatenate([np.arange(n_classes), rng.integers(0, n_classes, 20)]))
    scores = (truth + rng.normal(size=truth.size)).round(1)
    want = np.mean([sk.roc_auc_score(truth >= k, scores) for k in range(1, n_classes)])
    assert cumulative_auc(truth, scores) == pytest.approx(want, abs=1e-12)
    # The scale turned round, with its scores.
    turned = cumulative_auc(n_classes - 1 - truth, -scores)
    assert turned == pytest.approx(want, abs=1e-12)
    chances = rng.dirichlet(np.ones(n_classes), truth.size)
    want = np.mean(
        [sk.roc_auc_score(truth >= k, chances[:, k:].sum(axis=1)) for k in range(1, n_classes)]
    )
    assert cumulative_auc(truth, chances) == pytest.approx(want, abs=1e-9)


def test_cumulative_auc_of_perfect_constant_and_two_class_scores():
    truth = np.array([0, 1, 1, 2, 3])
    assert cumulative_auc(truth, truth * 2.0) == 1
    assert cumulative_auc(truth, np.ones(5)) == 0.5
    two, scores = np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8])
    assert cumulative_auc(two, scores) == auc(two, scores)
    splits = cumulative_splits(truth, np.arange(5.0))
    assert [t.tolist() for t, _ in splits] == [[0, 1, 1, 1, 1], [0, 0, 0, 1, 1], [0, 0, 0, 0, 1]]


def test_ordered_classes_without_cases_are_refused():
    scores = np.arange(4.0)
    for truth, given_scores, message in (
        (np.array([0, 0, 2, 2]), scores, r"classes with \[2, 0, 2\] cases"),
        (np.zeros(4, dtype=int), scores, "at least two classes"),
        (np.array([0, 1, 1, 0]), np.ones((4, 3)), r"\[2, 2, 0\]"),
        (np.array([0, 1, 3, 2]), np.ones((4, 3)), "not in the task"),
        (np.array([0, 1, 1, 0]), scores * math.nan, "NaN"),
        (np.array([0, 1, 1, 0]), scores[:3], "one per case"),
        (np.array([0, 1, 1, 0]), np.ones((4, 2, 1)), "3 axes"),
        (np.array([0.5, 1, 1, 0]), scores, "not in the task"),
        (np.array([], dtype=int), np.array([]), "one class per case"),
    ):
        with pytest.raises(StatisticUndefined, match=message):
            cumulative_auc(truth, given_scores)
