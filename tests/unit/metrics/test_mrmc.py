"""Reader studies: special cases that are known, other forms written out, and refusals."""

from __future__ import annotations

import math
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renalkit.domain.prediction import Unit
from renalkit.errors import StatisticUndefined
from renalkit.metrics.auc_inference import Scale, delong, delong_covariance, paired_delong
from renalkit.metrics.classification import auc
from renalkit.metrics.mrmc import (
    CovarianceMethod,
    Figure,
    Generalise,
    MrmcPlan,
    auc_covariance,
    figures_of_merit,
    model_against_readers,
    obuchowski_rockette,
    one_shot,
)

CASES = MrmcPlan(to=Generalise.CASES, scale=Scale.PLAIN)


def study(seed: int, arms: int = 2, readers: int = 4, n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Ratings on a five-step scale with effects of readers and cases, ties included."""
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.repeat([0, 1], [n // 2, n - n // 2]))
    x = 1.5 * truth + rng.normal(size=n) + 0.5 * rng.normal(size=(arms, readers, n))
    x = x + 0.3 * rng.normal(size=(1, readers, 1)) * truth + 0.4 * rng.normal(size=(arms, 1, n))
    return truth, np.clip(np.round(x + 2), 0, 4)


def psi(truth: np.ndarray, row: np.ndarray) -> np.ndarray:
    pos, neg = row[truth == 1], row[truth == 0]
    return (pos[:, None] > neg) + 0.5 * (pos[:, None] == neg)


def test_jackknife_covariance_is_that_of_leaving_each_case_out():
    truth, x = study(1)
    rows = x.reshape(-1, truth.size)
    left = np.array(
        [[auc(np.delete(truth, i), np.delete(row, i)) for i in range(truth.size)] for row in rows]
    )
    apart = left - left.mean(axis=1, keepdims=True)
    want = (truth.size - 1) / truth.size * apart @ apart.T
    np.testing.assert_allclose(
        auc_covariance(truth, rows, CovarianceMethod.JACKKNIFE)[1], want, atol=1e-15
    )


def test_unbiased_covariance_takes_only_pairs_that_share_no_case():
    truth, x = study(2, readers=1, n=9)
    a, b = (psi(truth, row) for row in x[:, 0])
    apart = [
        a[i, j] * b[k, m]
        for (i, k), (j, m) in product(
            permutations(range(len(a)), 2), permutations(range(a.shape[1]), 2)
        )
    ]
    found = auc_covariance(truth, x[:, 0], CovarianceMethod.UNBIASED)[1]
    assert found[0, 1] == pytest.approx(a.mean() * b.mean() - np.mean(apart), abs=1e-14)


def test_moments_of_the_u_statistic_written_out():
    truth, x = study(3, readers=3, n=8)
    kernels = np.array([[psi(truth, row) for row in arm] for arm in x])
    found = one_shot(truth, x).moments
    sums, counts = np.zeros((2, 2, 8)), np.zeros(8)
    n_readers, n_pos, n_neg = kernels.shape[1:]
    pairs = list(product(range(n_readers), range(n_pos), range(n_neg)))
    for (r, i, j), (s, k, m) in product(pairs, pairs):
        # 1: the same pair of cases, 2: the positive only, 3: the negative only, 4: neither.
        which = (0 if r == s else 4) + (0 if i == k else 2) + (0 if j == m else 1)
        counts[which] += 1
        for a, b in product(range(2), range(2)):
            sums[a, b, which] += kernels[a, r, i, j] * kernels[b, s, k, m]
    np.testing.assert_allclose(found, sums / counts, atol=1e-13)


@given(st.integers(0, 2**32 - 1), st.integers(2, 5))
@settings(max_examples=40)
def test_with_unbiased_covariances_both_methods_are_one(seed, readers):
    truth, x = study(seed, readers=readers)
    plan = MrmcPlan(covariance=CovarianceMethod.UNBIASED)
    try:
        a, b = obuchowski_rockette(truth, x, plan), one_shot(truth, x)
    except StatisticUndefined as undefined:
        # Unbiased variances of a few readers may be 0 or less: then neither has an answer.
        if "without any variance" not in str(undefined):
            raise
        return
    if a.components.cov2 <= a.components.cov3 or b.contrasts[0].difference.method.endswith("form"):
        return
    one, other = a.contrasts[0], b.contrasts[0]
    assert one.difference.value == pytest.approx(other.difference.value)
    assert (one.statistic, one.df, one.p_value) == pytest.approx(
        (other.statistic, other.df, other.p_value)
    )
    assert (one.difference.low, one.difference.high) == pytest.approx(
        (other.difference.low, other.difference.high)
    )


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_one_fixed_reader_is_delongs_paired_test(seed):
    truth, x = study(seed, readers=1)
    found, want = obuchowski_rockette(truth, x, CASES), paired_delong(truth, x[0, 0], x[1, 0])
    c = found.contrasts[0]
    assert (c.statistic, c.p_value, c.df) == pytest.approx((want.statistic, want.p_value, math.inf))
    got = (c.difference.value, c.difference.low, c.difference.high)
    assert got == pytest.approx((want.difference.value, want.difference.low, want.difference.high))
    arms = obuchowski_rockette(truth, x, MrmcPlan(to=Generalise.CASES)).arms
    for arm, alone in zip(arms, (want.first, want.second), strict=True):
        assert (arm.value, arm.low, arm.high) == pytest.approx((alone.value, alone.low, alone.high))
    assert found.p_value == pytest.approx(c.p_value)


def test_the_arm_of_one_fixed_reader_is_delongs_interval_on_either_scale():
    truth, x = study(13, readers=1)
    for scale in Scale:
        plan = MrmcPlan(to=Generalise.CASES, scale=scale)
        arm, want = obuchowski_rockette(truth, x, plan).arms[0], delong(truth, x[0, 0], scale=scale)
        assert (arm.low, arm.high) == pytest.approx((want.low, want.high))
        assert ("logit" in arm.method) == (scale is Scale.LOGIT)


def test_several_fixed_readers_are_the_contrast_of_delongs_covariance():
    truth, x = study(7, readers=3)
    aucs, cov = delong_covariance(truth, x.reshape(-1, truth.size))
    weights = np.repeat([1 / 3, -1 / 3], 3)
    c = obuchowski_rockette(truth, x, CASES).contrasts[0]
    assert c.difference.value == pytest.approx(weights @ aucs)
    assert c.statistic == pytest.approx(weights @ aucs / math.sqrt(weights @ cov @ weights))


@pytest.mark.parametrize("covariance", list(CovarianceMethod))
@pytest.mark.parametrize("to", list(Generalise))
def test_identical_arms_differ_by_nothing(covariance: CovarianceMethod, to: Generalise):
    truth, x = study(4)
    found = obuchowski_rockette(
        truth, np.stack([x[0], x[0]]), MrmcPlan(covariance=covariance, to=to)
    )
    c = found.contrasts[0]
    assert (c.difference.value, c.statistic, c.p_value) == (0, 0, 1)
    assert (c.difference.low, c.difference.high) == (0, 0)
    assert found.p_value == 1
    same = one_shot(truth, np.stack([x[0], x[0]])).contrasts[0]
    assert (same.difference.value, same.p_value) == (0, 1)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_nothing_hangs_on_order_or_on_the_readers_own_scale(seed):
    truth, x = study(seed, arms=3)
    rng = np.random.default_rng(seed)
    cases, readers = rng.permutation(truth.size), rng.permutation(4)
    for plan in (MrmcPlan(), CASES, MrmcPlan(covariance=CovarianceMethod.UNBIASED)):
        a = obuchowski_rockette(truth, x, plan)
        b = obuchowski_rockette(truth[cases], np.exp(3 * x[:, readers][:, :, cases]), plan)
        assert (a.f, a.df2, a.p_value) == pytest.approx((b.f, b.df2, b.p_value), rel=1e-6)
        swapped = obuchowski_rockette(truth, x[::-1], plan)
        assert [c.p_value for c in swapped.contrasts] == pytest.approx(
            [c.p_value for c in a.contrasts][::-1]
        )
        assert swapped.contrasts[0].difference.value == pytest.approx(
            -a.contrasts[2].difference.value
        )


def test_for_two_arms_t_squared_is_f():
    truth, x = study(11)
    for to in Generalise:
        found = obuchowski_rockette(truth, x, MrmcPlan(to=to))
        c = found.contrasts[0]
        assert (c.statistic**2, c.df, c.p_value) == pytest.approx(
            (found.f, found.df2, found.p_value)
        )


def test_random_readers_widen_the_interval_when_readers_differ():
    truth, x = study(12)
    rng = np.random.default_rng(0)
    x = x + 2.5 * truth * rng.normal(size=(2, 4, 1))  # readers gain differently from the arms
    both, fixed = (obuchowski_rockette(truth, x, p).contrasts[0] for p in (MrmcPlan(), CASES))
    assert both.difference.value == pytest.approx(fixed.difference.value)
    assert both.difference.high - both.difference.low > fixed.difference.high - fixed.difference.low
    assert both.p_value > fixed.p_value


def test_one_arm_has_an_interval_and_nothing_to_compare():
    truth, x = study(5, arms=1)
    for to in Generalise:
        found = obuchowski_rockette(truth, x, MrmcPlan(to=to))
        assert found.contrasts == ()
        assert math.isnan(found.f)
        assert found.arms[0].low < found.arms[0].value < found.arms[0].high
        assert found.arms[0].n == truth.size
    assert "t with" in one_shot(truth, x).arms[0].method


def test_votes_have_sensitivity_and_specificity_with_their_own_cases():
    truth, x = study(6, n=50)
    votes = (x >= 2).astype(float)
    for figure, where in ((Figure.SENSITIVITY, truth == 1), (Figure.SPECIFICITY, truth == 0)):
        right = votes[..., where] if figure is Figure.SENSITIVITY else 1 - votes[..., where]
        found = obuchowski_rockette(truth, votes, MrmcPlan(figure))
        np.testing.assert_allclose(found.figures, right.mean(axis=2))
        assert found.arms[0].n == where.sum()
        single = obuchowski_rockette(truth, votes[:, :1], MrmcPlan(figure, to=Generalise.CASES))
        apart = right[0, 0] - right[1, 0]
        error = apart.std(ddof=1) / math.sqrt(apart.size)
        assert single.contrasts[0].statistic == pytest.approx(apart.mean() / error)


def test_a_model_against_copies_of_one_fixed_reader_is_delongs_paired_test():
    truth, x = study(8)
    model = x[0, 0]
    for copies in (1, 3):
        found = model_against_readers(truth, model, np.repeat(x[1, :1], copies, axis=0), CASES)
        want = paired_delong(truth, model, x[1, 0])
        assert (found.statistic, found.p_value) == pytest.approx((want.statistic, want.p_value))
        assert found.difference.low == pytest.approx(want.difference.low)
        assert found.model.value == pytest.approx(want.first.value)


def test_a_model_against_readers_is_an_arm_that_is_the_same_for_every_reader():
    truth, x = study(9, readers=5)
    model = x[0, 0]
    found = model_against_readers(truth, model, x[1])
    both = np.stack([np.repeat(model[None], 5, axis=0), x[1]])
    c = obuchowski_rockette(truth, both).contrasts[0]
    assert found.difference.value == pytest.approx(c.difference.value)
    # The spread of the readers is the same; the covariances of copies are too.
    assert (found.statistic, found.df) == pytest.approx((c.statistic, c.df))
    assert found.readers.value == pytest.approx(np.mean([auc(truth, r) for r in x[1]]))


def test_a_negative_variance_falls_back_to_the_biased_form_and_says_so():
    found = None
    for seed in range(300):
        rng = np.random.default_rng(seed)
        truth = np.repeat([0, 1], 4)
        x = rng.integers(0, 3, (2, 2, 8)).astype(float)
        if np.unique(x).size > 2:
            result = one_shot(truth, x).contrasts[0].difference
            if "biased form" in result.method:
                found = result
                break
    assert found is not None
    assert found.low < found.value < found.high


def test_complete_separation_everywhere_is_no_difference_without_intervals():
    truth = np.repeat([0, 1], 5)
    x = np.broadcast_to(truth * 10 + np.arange(10), (2, 3, 10)).astype(float)
    found = obuchowski_rockette(truth, x)
    assert (found.arms[0].value, found.contrasts[0].p_value) == (1, 1)
    assert math.isnan(found.arms[0].low)
    assert "no variance" in found.arms[0].method


@pytest.mark.parametrize(
    ("change", "plan", "words"),
    [
        (lambda x: x[:, :1], MrmcPlan(), "1 reader as a sample"),
        (lambda x: x[0], MrmcPlan(), "arms x readers x cases"),
        (lambda x: np.where(x == x.max(), np.nan, x), MrmcPlan(), "readings are missing"),
        (lambda x: (x > 2).astype(float), MrmcPlan(), "one operating point, not a curve"),
        (lambda x: x, MrmcPlan(Figure.SENSITIVITY), "scores, where votes are needed"),
        (lambda x: x, MrmcPlan(unit=Unit.FRAME), "frames"),
        (lambda x: x[:, :, :-1], MrmcPlan(), "truths with"),
    ],
)
def test_refusals(change, plan, words):
    truth, x = study(10)
    with pytest.raises(StatisticUndefined, match=words):
        obuchowski_rockette(truth, change(x), plan)


def test_refusals_of_truth():
    _, x = study(10)
    with pytest.raises(StatisticUndefined, match="one class"):
        figures_of_merit(np.ones(40), x, MrmcPlan())
    with pytest.raises(StatisticUndefined, match="1 positive"):
        one_shot(np.arange(40) == 3, x)
    with pytest.raises(StatisticUndefined, match="at least two"):
        obuchowski_rockette(np.arange(40) == 3, (x > 2).astype(float), MrmcPlan(Figure.SENSITIVITY))
    with pytest.raises(ValueError, match="operating point"):
        model_against_readers(np.ones(40), x[0, 0], x[0], MrmcPlan(Figure.SPECIFICITY))


def test_a_difference_without_any_variance_is_refused():
    truth = np.repeat([0, 1], 5)
    apart = np.broadcast_to(truth * 10 + np.arange(10), (3, 10))
    reverse = np.broadcast_to(-truth * 10 + np.arange(10), (3, 10))
    with pytest.raises(StatisticUndefined, match="without any variance"):
        obuchowski_rockette(truth, np.stack([apart, reverse]).astype(float))
