"""Tests of differences: closed forms, other software, brute force, levels, degenerate inputs."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

import renalkit.metrics.comparisons as module
from renalkit.domain.prediction import Unit
from renalkit.errors import StatisticUndefined
from renalkit.metrics.bootstrap import (
    Auc,
    BootstrapPlan,
    RatioOfSums,
    mean_of_patient_means,
    mean_of_rows,
)
from renalkit.metrics.classification import auc
from renalkit.metrics.comparisons import (
    McNemar,
    PairedCalls,
    PermutationPlan,
    auc_non_inferiority,
    auc_permutation_test,
    bootstrap_non_inferiority,
    calls_non_inferiority,
    corrected_t_test,
    mcnemar,
    paired_calls,
    permutation_test,
    tango_interval,
    unpaired_permutation_test,
    wilcoxon_signed_rank,
)

AIRWAYS = PairedCalls(1, 1, 7, 12)
"""Bentur et al. 2009, the example of Fagerland, Lydersen and Laake 2013."""

COUNTS = st.integers(0, 30)


# ---------------------------------------------------------------- McNemar


@pytest.mark.parametrize(
    ("method", "p"),
    [
        (McNemar.EXACT, 0.0703),
        (McNemar.MID_P, 0.0391),
        (McNemar.CHI_SQUARE, 0.0339),
        (McNemar.CORRECTED, 0.0771),
    ],
)
def test_mcnemar_as_published(method, p):
    """Fagerland, Lydersen and Laake 2013, table of the airway example: four p-values."""
    assert mcnemar(AIRWAYS, method).p_value == pytest.approx(p, abs=5e-5)


def test_mcnemar_approval_ratings():
    """R 4.2: mcnemar.test(matrix(c(794, 86, 150, 570), 2))."""
    found = mcnemar(PairedCalls(794, 150, 86, 570), McNemar.CORRECTED)
    assert found.statistic == pytest.approx(16.8177966102, rel=1e-10)
    assert found.p_value == pytest.approx(4.11456228135e-05, rel=1e-10)


@given(COUNTS, COUNTS, COUNTS, COUNTS)
def test_mcnemar_exact_is_the_binomial_test(both, b, c, neither):
    if both + b + c + neither == 0:
        return
    found = mcnemar(PairedCalls(both, b, c, neither), McNemar.EXACT)
    want = stats.binomtest(b, b + c).pvalue if b + c else 1.0
    assert found.p_value == pytest.approx(want, abs=1e-12)
    swapped = mcnemar(PairedCalls(both, c, b, neither), McNemar.EXACT)
    assert swapped.p_value == found.p_value
    assert swapped.difference.value == -found.difference.value
    mid = mcnemar(PairedCalls(both, b, c, neither)).p_value
    assert mid <= found.p_value
    assert mid > 0


def test_mid_p_averages_to_its_level():
    """Half the observed point counts: over fair coins the mid-p value has mean 1/2 on each side."""
    n = 11
    p = np.array([mcnemar(PairedCalls(0, k, n - k, 0)).p_value for k in range(n + 1)])
    weight = stats.binom.pmf(np.arange(n + 1), n, 0.5)
    assert (p * weight).sum() == pytest.approx(0.5, abs=1e-12)


def test_mcnemar_counts_from_calls():
    first = np.array([1, 1, 0, 0, 1])
    second = np.array([1, 0, 1, 0, 0])
    assert paired_calls(first, second) == PairedCalls(1, 2, 1, 1)


def test_mcnemar_of_identical_systems():
    for method in McNemar:
        found = mcnemar(PairedCalls(30, 0, 0, 10), method)
        assert (found.p_value, found.statistic, found.difference.value) == (1, 0, 0)
        # Without a discordant pair the score interval is z^2 / (n + z^2) to both sides.
        z2 = stats.norm.ppf(0.975) ** 2
        assert found.difference.high == pytest.approx(z2 / (40 + z2), abs=1e-12)
        assert found.difference.low == pytest.approx(-z2 / (40 + z2), abs=1e-12)


def test_mcnemar_refuses_frames_and_empty_tables():
    with pytest.raises(StatisticUndefined, match="frames as independent"):
        mcnemar(AIRWAYS, unit=Unit.FRAME)
    for bad in ((0, 0, 0, 0), (3, -1, 0, 0)):
        with pytest.raises(ValueError, match="not negative"):
            PairedCalls(*bad)
    with pytest.raises(StatisticUndefined, match="other than 0 and 1"):
        paired_calls(np.array([0.5, 1]), np.array([1, 1]))


def score_by_search(calls: PairedCalls, delta: float) -> float:
    """The score with the discordant chance found by maximising the multinomial likelihood."""
    b, c, n = calls.first_only, calls.second_only, calls.n

    def minus_log_likelihood(q: float) -> float:
        p = q + delta
        rest = 1 - p - q
        total = 0.0
        for count, chance in ((b, p), (c, q), (n - b - c, rest)):
            if count:
                total -= count * math.log(max(chance, 1e-300))
        return total

    low, high = max(0.0, -delta), (1 - delta) / 2
    q = optimize.minimize_scalar(
        minus_log_likelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-12}
    ).x
    return (b - c - n * delta) / math.sqrt(n * (2 * q + delta - delta**2))


@pytest.mark.parametrize("counts", [(1, 1, 7, 12), (36, 12, 2, 0), (20, 5, 0, 3), (0, 9, 4, 2)])
def test_tango_limits_are_where_the_likelihood_says(counts):
    calls = PairedCalls(*counts)
    low, high = tango_interval(calls)
    assert score_by_search(calls, low) == pytest.approx(1.95996, abs=2e-4)
    assert score_by_search(calls, high) == pytest.approx(-1.95996, abs=2e-4)


@given(COUNTS, COUNTS, COUNTS, COUNTS)
def test_tango_and_chi_square_agree_on_zero(both, b, c, neither):
    if both + b + c + neither == 0:
        return
    calls = PairedCalls(both, b, c, neither)
    low, high = tango_interval(calls)
    assert -1 <= low <= (b - c) / calls.n <= high <= 1
    p = mcnemar(calls, McNemar.CHI_SQUARE).p_value
    if abs(p - 0.05) > 1e-6:
        assert (p < 0.05) == (low > 0 or high < 0)
    mirrored = tango_interval(PairedCalls(both, c, b, neither))
    assert mirrored == pytest.approx((-high, -low), abs=1e-9)


# ---------------------------------------------------------------- permutation


def frames(seed: int, n_patients: int = 8) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """truth, two systems with ties, patient of each row; some patients hold both classes."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_patients), rng.integers(1, 4, n_patients))
    truth = rng.integers(0, 2, groups.size)
    truth[:2] = [0, 1]
    first = (rng.normal(size=groups.size) + truth).round(1)
    return truth, first, (first + rng.normal(size=groups.size)).round(1), groups


@pytest.mark.parametrize("seed", range(4))
def test_auc_permutation_is_every_exchange_of_ranked_scores(seed):
    truth, first, second, groups = frames(seed)
    u, v = (stats.rankdata(s) for s in (first, second))
    differences = []
    for swap in itertools.product((False, True), repeat=8):
        exchanged = np.array(swap)[groups]
        one, two = np.where(exchanged, v, u), np.where(exchanged, u, v)
        differences.append(auc(truth, one) - auc(truth, two))
    found = auc_permutation_test(truth, first, second, groups)
    assert found.difference.value == pytest.approx(auc(truth, first) - auc(truth, second))
    beyond = np.abs(differences) >= abs(differences[0]) - 1e-12
    assert found.p_value == pytest.approx(beyond.mean(), abs=1e-12)
    assert found.test.startswith("permutation of patients, all ")


@pytest.mark.parametrize("seed", range(3))
def test_permutation_of_means_and_shares_is_every_exchange(seed):
    truth, first, second, groups = frames(seed, 6)
    hits = [((s > 0) & (truth == 1)).astype(float) for s in (first, second)]
    pairs = {
        "mean": [mean_of_rows(s) for s in (first, second)],
        "patient means": [mean_of_patient_means(s, groups) for s in (first, second)],
        "sensitivity": [RatioOfSums(h, truth.astype(float)) for h in hits],
    }
    for one, two in pairs.values():
        apart, total = one.numerator - two.numerator, one.denominator.sum()
        values = [
            (apart * np.array(signs)[groups]).sum() / total
            for signs in itertools.product((1, -1), repeat=6)
        ]
        found = permutation_test(one, two, groups)
        assert found.difference.value == pytest.approx(values[0], abs=1e-12)
        want = (np.abs(values) >= abs(values[0]) - 1e-12).mean()
        assert found.p_value == pytest.approx(want, abs=1e-12)


def test_random_exchanges_approach_all_exchanges():
    """4000 random exchanges of 14 patients against all 16384: four standard errors of the share."""
    truth, first, second, groups = frames(11, 14)
    exact = auc_permutation_test(truth, first, second, groups, PermutationPlan(20000))
    drawn = auc_permutation_test(truth, first, second, groups, PermutationPlan(4000, 1))
    assert "all" in exact.test
    assert drawn.test == "permutation of patients, 4000 exchanges, seed 1"
    se = math.sqrt(exact.p_value * (1 - exact.p_value) / 4000)
    assert abs(drawn.p_value - exact.p_value) < 4 * se + 1e-3


def test_permutation_agrees_with_scipy():
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(2, 10))
    theirs = stats.permutation_test(
        (x, y), lambda a, b: np.mean(a - b), permutation_type="samples", n_resamples=np.inf
    )
    ours = permutation_test(mean_of_rows(x), mean_of_rows(y), np.arange(10))
    assert ours.p_value == pytest.approx(theirs.pvalue, abs=1e-12)


@given(st.integers(0, 500), st.randoms(use_true_random=False))
@settings(max_examples=20, deadline=None)
def test_permutation_knows_no_order_scale_or_sign(seed, random):
    truth, first, second, groups = frames(seed)
    order = list(range(truth.size))
    random.shuffle(order)
    a = auc_permutation_test(truth, first, second, groups)
    b = auc_permutation_test(
        truth[order], np.exp(second[order]), 3 * first[order], groups[order].astype(str)
    )
    assert b.p_value == a.p_value
    assert b.difference.value == pytest.approx(-a.difference.value, abs=1e-12)


def test_permutation_of_identical_and_constant_systems():
    truth, first, _, groups = frames(1)
    same = auc_permutation_test(truth, first, 2 * first, groups)
    assert (same.p_value, same.difference.value) == (1, 0)
    dice = permutation_test(mean_of_rows(first), mean_of_rows(first), groups)
    assert (dice.p_value, dice.difference.value) == (1, 0)
    assert math.isnan(dice.difference.low)
    constant = auc_permutation_test(truth, np.ones(truth.size), np.zeros(truth.size), groups)
    assert constant.p_value == 1


def unpaired_data():
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(40), 3)
    arm = (np.arange(40) < 20)[groups].astype(int)
    truth = (np.arange(40) % 2)[groups]
    scores = rng.normal(size=40)[groups] + truth * (1 + arm) + 0.3 * rng.normal(size=120)
    return truth, scores, arm, groups


def test_unpaired_permutation_is_scipys_for_means():
    """One row per patient and a mean: scipy's independent permutation test, by its exact count."""
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=5), rng.normal(1, 1, size=6)
    theirs = stats.permutation_test(
        (x, y), lambda a, b: a.mean() - b.mean(), n_resamples=np.inf, permutation_type="independent"
    )
    arm = np.repeat([1, 0], [5, 6])
    ours = unpaired_permutation_test(
        mean_of_rows(np.concatenate([x, y])), np.arange(11), arm, PermutationPlan(40000, 0)
    )
    assert ours.difference.value == pytest.approx(x.mean() - y.mean())
    assert ours.p_value == pytest.approx(theirs.pvalue, abs=0.012)


def test_unpaired_permutation_keeps_patients_and_classes():
    truth, scores, arm, groups = unpaired_data()
    found = unpaired_permutation_test(Auc(truth, scores), groups, arm, strata=truth)
    first = auc(truth[arm == 1], scores[arm == 1])
    assert found.difference.value == pytest.approx(first - auc(truth[arm == 0], scores[arm == 0]))
    assert found.difference.n == 40
    assert 0 < found.p_value < 1
    # A patient's three frames move together: the same as one row per patient.
    ranks = mean_of_patient_means(scores, groups)
    one = unpaired_permutation_test(ranks, groups, arm)
    means = scores.reshape(40, 3).mean(axis=1)
    two = unpaired_permutation_test(mean_of_rows(means), np.arange(40), arm[::3])
    assert one.p_value == two.p_value


def test_permutation_holds_its_level():
    """400 null cohorts of 16 patients x 4 frames: 5 % of p-values below 0.05, not far more.

    Two systems with the same patient effect and independent noise; binomial limits at 1e-5.
    """
    rng = np.random.default_rng()
    groups = np.repeat(np.arange(16), 4)
    truth = (np.arange(16) % 2)[groups]
    plan = PermutationPlan(199)
    below = 0
    for _ in range(400):
        patient = rng.normal(size=(2, 16)) + truth[::4]
        first, second = patient[:, groups] + 0.5 * rng.normal(size=(2, 64))
        below += auc_permutation_test(truth, first, second, groups, plan).p_value <= 0.05
    assert stats.binom.ppf(1e-5, 400, 0.05) <= below <= stats.binom.isf(1e-5, 400, 0.05)


# ---------------------------------------------------------------- Wilcoxon


def test_wilcoxon_depression_scale():
    """R's example (Hollander and Wolfe 1973, depression scores of nine patients).

    wilcox.test(x, y, paired=TRUE, conf.int=TRUE): V = 40, p = 0.0390625, pseudomedian 0.46,
    interval 0.010 to 0.786.
    """
    x = np.array([1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30])
    y = np.array([0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29])
    found = wilcoxon_signed_rank(x, y, np.arange(9))
    assert (found.statistic, found.p_value) == (40, pytest.approx(0.0390625, abs=1e-12))
    d = found.difference
    assert (d.value, d.low, d.high) == pytest.approx((0.46, 0.010, 0.786), abs=5e-4)
    assert found.test == "Wilcoxon signed rank, exact"


@given(st.integers(0, 1000), st.integers(2, 11))
@settings(max_examples=30, deadline=None)
def test_wilcoxon_is_exact_with_ties(seed, n):
    """Against the sum over all signs of the mid-ranks."""
    x = np.random.default_rng(seed).integers(-3, 4, n).astype(float)
    found = wilcoxon_signed_rank(x, np.zeros(n), np.arange(n))
    moved = x[x != 0]
    if moved.size == 0:
        assert found.p_value == 1
        return
    ranks = stats.rankdata(np.abs(moved))
    sums = np.array(
        [ranks[np.array(s)].sum() for s in itertools.product((False, True), repeat=len(moved))]
    )
    w = ranks[moved > 0].sum()
    want = min(1, 2 * min((sums <= w + 1e-9).mean(), (sums >= w - 1e-9).mean()))
    assert found.p_value == pytest.approx(want, abs=1e-12)
    assert ("left out" in found.test) == (moved.size < n)


def test_wilcoxon_is_scipys_exact_and_normal():
    rng = np.random.default_rng(8)
    for n, method in ((30, "exact"), (300, "asymptotic")):
        x, y = rng.normal(0.1, 1, n), rng.normal(size=n)
        theirs = stats.wilcoxon(x, y, correction=True, method=method)
        ours = wilcoxon_signed_rank(x, y, np.arange(n))
        assert ours.p_value == pytest.approx(theirs.pvalue, rel=1e-9)
        assert min(ours.statistic, n * (n + 1) / 2 - ours.statistic) == theirs.statistic
        assert ours.difference.low <= ours.difference.value <= ours.difference.high


def test_wilcoxon_averages_rows_of_a_patient_and_sees_through_rounding():
    x = np.array([0.3, 0.1, 0.3, 0.9])
    y = np.array([0.2, 0.0, 0.2, 0.8])
    found = wilcoxon_signed_rank(x, y, np.array(["a", "a", "b", "c"]))
    assert found.difference.n == 3
    # Three equal differences of 0.1: all sums 0 .. 6 by twos, 1 of 8 exchanges at each end.
    assert found.p_value == pytest.approx(0.25, abs=1e-12)
    assert math.isnan(found.difference.low)
    assert found.difference.method == "no interval: 3 patients bound nothing at 95 %"


def test_wilcoxon_of_identical_systems_and_refusals():
    x = np.array([0.5, 0.6, 0.7])
    same = wilcoxon_signed_rank(x, x, np.arange(3))
    assert (same.p_value, same.statistic, same.difference.value) == (1, 0, 0)
    assert same.test == "Wilcoxon signed rank, no difference, 3 without difference left out"
    for values, groups, message in (
        (x * np.nan, np.arange(3), "NaN"),
        (x[:2], np.arange(3), "unequal"),
        (x, np.zeros(3), "1 patient"),
    ):
        with pytest.raises(StatisticUndefined, match=message):
            wilcoxon_signed_rank(values, x, groups)


# ---------------------------------------------------------------- folds


def test_corrected_t_by_hand():
    """Differences 1, 2, 3 over 3 folds, 80 training and 40 test patients.

    Mean 2, variance 1, corrected variance 1/3 + 1/2 = 5/6, t = 2 / sqrt(5/6) = 2.1909 with 2 df.
    """
    found = corrected_t_test(np.array([1.0, 2, 3]), 80, 40)
    t = 2 / math.sqrt(5 / 6)
    assert found.statistic == pytest.approx(t)
    assert found.p_value == pytest.approx(2 * stats.t.sf(t, 2))
    half = stats.t.ppf(0.975, 2) * math.sqrt(5 / 6)
    assert (found.difference.low, found.difference.high) == pytest.approx((2 - half, 2 + half))
    assert found.difference.n == 120


def test_corrected_t_without_test_patients_tends_to_the_t_test():
    d = np.array([0.02, -0.01, 0.03, 0.04, 0.01])
    found = corrected_t_test(d, 10**9, 1)
    assert found.p_value == pytest.approx(stats.ttest_1samp(d, 0).pvalue, rel=1e-6)


def test_corrected_t_of_identical_systems_and_refusals():
    same = corrected_t_test(np.zeros(5), 80, 20)
    assert (same.statistic, same.p_value, same.difference.low) == (0, 1, 0)
    for bad, message in (
        ([0.1, 0.1, 0.1], "same 0.1"),
        ([0.1], "two folds"),
        ([0.1, math.nan], "NaN"),
    ):
        with pytest.raises(StatisticUndefined, match=message):
            corrected_t_test(np.array(bad), 80, 20)
    with pytest.raises(ValueError, match="0 test"):
        corrected_t_test(np.array([0.1, 0.2]), 80, 0)


# ---------------------------------------------------------------- non-inferiority


def auc_pair(n: int = 120, seed: int = 4):
    rng = np.random.default_rng(seed)
    truth = np.arange(n) % 2
    signal = rng.normal(size=n) + 1.5 * truth
    return truth, signal + 0.3 * rng.normal(size=n), signal + 0.3 * rng.normal(size=n)


def test_auc_non_inferiority_is_the_shifted_test():
    truth, new, reference = auc_pair()
    found = auc_non_inferiority(truth, (new, reference), 0.05)
    d = found.difference
    se = (d.high - d.low) / (2 * stats.norm.ppf(0.975))
    assert found.p_value == pytest.approx(stats.norm.sf((d.value + 0.05) / se), rel=1e-9)
    assert found.shown == (found.p_value < 0.025)
    # One row per patient: Obuchowski's variance is DeLong's.
    clustered = auc_non_inferiority(truth, (new, reference), 0.05, np.arange(truth.size))
    assert clustered.p_value == pytest.approx(found.p_value, rel=1e-9)
    # The margin at which it just fails is the lower end of the interval.
    edge = auc_non_inferiority(truth, (new, reference), -d.low)
    assert edge.p_value == pytest.approx(0.025, abs=1e-9)
    same = auc_non_inferiority(truth, (new, 2 * new), 0.01)
    assert (same.shown, same.p_value) == (True, 0)


@given(COUNTS, COUNTS, COUNTS, COUNTS, st.sampled_from([0.02, 0.1, 0.3]))
def test_calls_non_inferiority_interval_and_test_agree(both, b, c, neither, margin):
    if both + b + c + neither == 0:
        return
    found = calls_non_inferiority(PairedCalls(both, b, c, neither), margin)
    if abs(found.p_value - 0.025) > 1e-6:
        assert found.shown == (found.p_value < 0.025)


@pytest.mark.parametrize("counts", [(43, 0, 1, 0), (50, 3, 6, 11)])
def test_calls_non_inferiority_is_the_score_of_the_likelihood(counts):
    calls = PairedCalls(*counts)
    found = calls_non_inferiority(calls, 0.1)
    z = score_by_search(calls, -0.1)
    assert stats.norm.isf(found.p_value) == pytest.approx(z, abs=2e-4)
    assert found.difference.value == (calls.first_only - calls.second_only) / calls.n


def test_bootstrap_non_inferiority_of_dice():
    rng = np.random.default_rng(9)
    groups = np.repeat(np.arange(40), 5)
    dice = 0.9 + 0.03 * rng.normal(size=40)[groups] + 0.01 * rng.normal(size=200)
    worse = dice - 0.02 - 0.01 * rng.normal(size=200)
    plan = BootstrapPlan(500, 1)
    inside = bootstrap_non_inferiority(
        (mean_of_rows(worse), mean_of_rows(dice)), groups, 0.05, plan
    )
    assert inside.shown
    assert inside.p_value == pytest.approx(1 / 501)
    outside = bootstrap_non_inferiority(
        (mean_of_rows(worse), mean_of_rows(dice)), groups, 0.01, plan
    )
    assert not outside.shown
    assert outside.p_value > 0.9
    same = bootstrap_non_inferiority((mean_of_rows(dice), mean_of_rows(dice)), groups, 0.01, plan)
    assert same.shown
    for margin in (0, -0.1, math.nan):
        with pytest.raises(ValueError, match="margin"):
            bootstrap_non_inferiority((mean_of_rows(dice),) * 2, groups, margin, plan)


# ---------------------------------------------------------------- refusals


def refused_calls():
    truth, first, second, groups = frames(0)
    one_class = np.ones_like(truth)
    f1 = RatioOfSums(first, first + 10)
    t, s, arm, g = unpaired_data()
    return [
        (lambda: auc_permutation_test(one_class, first, second, groups), "one class"),
        (lambda: auc_permutation_test(truth, first, second * np.nan, groups), "NaN"),
        (lambda: auc_permutation_test(truth, first, second[1:], groups), "one per case"),
        (lambda: auc_permutation_test(truth, first, second, 0 * groups), "1 patient"),
        (lambda: permutation_test(mean_of_rows(first), f1, groups), "different denominators"),
        (
            lambda: permutation_test(mean_of_rows(first), mean_of_rows(second * np.nan), groups),
            "not finite",
        ),
        (
            lambda: permutation_test(
                RatioOfSums(first, 0 * first), RatioOfSums(second, 0 * first), groups
            ),
            "nothing in the denominator",
        ),
        (lambda: unpaired_permutation_test(Auc(t, s), g, arm * 0), "patients in both"),
        (lambda: unpaired_permutation_test(Auc(t, s), g, arm + 1), "0 and 1"),
        (
            lambda: unpaired_permutation_test(Auc(t, s), g, np.arange(120) % 2),
            "more than one group",
        ),
        (lambda: unpaired_permutation_test(Auc(t, s), g, arm[1:]), "119 values for 120 rows"),
        (lambda: unpaired_permutation_test(Auc(arm, s), g, arm), "does not exist in both"),
        (
            lambda: unpaired_permutation_test(Auc(t, s), g, arm, strata=np.arange(120) % 3),
            "more than one stratum",
        ),
        (
            lambda: unpaired_permutation_test(
                Auc(np.isin(g, (3, 30)).astype(int), s), g, arm, PermutationPlan(200)
            ),
            "exchanges do not have",
        ),
    ]


@pytest.mark.parametrize("place", range(14))
def test_what_cannot_be_compared_is_refused(place):
    call, message = refused_calls()[place]
    with pytest.raises(StatisticUndefined, match=message):
        call()


def test_a_plan_of_few_permutations_is_refused():
    with pytest.raises(ValueError, match="at least 99"):
        PermutationPlan(50)


def test_permutation_does_not_depend_on_how_memory_is_bounded(monkeypatch):
    truth, scores, arm, groups = unpaired_data()
    want = unpaired_permutation_test(Auc(truth, scores), groups, arm, PermutationPlan(500)).p_value
    want_pair = permutation_test(mean_of_rows(scores), mean_of_rows(truth + 0.0), groups).p_value
    monkeypatch.setattr(module, "_CHUNK", 40 * 7)
    got = unpaired_permutation_test(Auc(truth, scores), groups, arm, PermutationPlan(500)).p_value
    assert got == want
    got_pair = permutation_test(mean_of_rows(scores), mean_of_rows(truth + 0.0), groups).p_value
    assert got_pair == want_pair
