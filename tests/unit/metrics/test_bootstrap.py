"""Resampling of patients: fast paths against the loop, coverage, order, refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

import renalkit.metrics.bootstrap as bootstrap_module
from renalkit.domain.prediction import Unit
from renalkit.errors import StatisticUndefined
from renalkit.metrics.bootstrap import (
    AnyStatistic,
    Auc,
    BootstrapPlan,
    Difference,
    Drawing,
    IntervalMethod,
    RatioOfSums,
    cluster_bootstrap,
    mean_of_patient_means,
    mean_of_rows,
    paired_cluster_bootstrap,
    resample,
)
from renalkit.metrics.classification import auc
from renalkit.metrics.comparisons import bootstrap_non_inferiority

QUICK = BootstrapPlan(n_boot=200, seed=3)


def clips(seed: int, n_patients: int = 14) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """truth, scores with ties, patient of each row; unequal numbers of rows."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_patients), rng.integers(1, 7, n_patients))
    truth = np.arange(n_patients)[groups] % 2
    scores = (rng.normal(size=n_patients)[groups] + truth + rng.normal(size=groups.size)).round(1)
    return truth, scores, groups


def statistics(truth, scores, groups):
    """Each fast statistic and the plain function of drawn rows it stands for."""
    called = scores >= 0.5
    _, codes = np.unique(groups, return_inverse=True)

    def patient_means(rows: np.ndarray) -> float:
        # As many drawn rows as the patient has are one drawing of it: 2 drawings, 2 means.
        sizes = np.bincount(codes)
        drawn = np.bincount(codes[rows], minlength=sizes.size)
        sums = np.bincount(codes[rows], weights=scores[rows], minlength=sizes.size)
        return float((sums / sizes).sum() / (drawn / sizes).sum())

    return {
        "mean": (mean_of_rows(scores), lambda r: scores[r].mean()),
        "patient means": (mean_of_patient_means(scores, groups), patient_means),
        "sensitivity": (
            RatioOfSums((called & (truth == 1)).astype(float), truth.astype(float)),
            lambda r: called[r][truth[r] == 1].mean() if truth[r].any() else np.nan,
        ),
        "auc": (Auc(truth, scores), lambda r: auc(truth[r], scores[r])),
    }


@pytest.mark.parametrize("name", ["mean", "patient means", "sensitivity", "auc"])
@pytest.mark.parametrize("seed", [0, 1])
def test_fast_statistics_equal_the_loop_over_resamples(name, seed):
    truth, scores, groups = clips(seed)
    fast, function = statistics(truth, scores, groups)[name]
    slow = AnyStatistic(function, groups.size)
    for method in IntervalMethod:
        plan = BootstrapPlan(200, seed, method)
        a, b = (cluster_bootstrap(s, groups, plan, strata=truth) for s in (fast, slow))
        assert (a.value, a.low, a.high) == pytest.approx((b.value, b.low, b.high), abs=1e-12)
        assert a.method == b.method


@pytest.mark.parametrize("chunk", [1, 50, 10**6])
def test_auc_does_not_depend_on_how_memory_is_bounded(monkeypatch, chunk):
    truth, scores, groups = clips(5)
    for many in (0, 10**6):
        monkeypatch.setattr(bootstrap_module, "_CHUNK", chunk)
        monkeypatch.setattr(bootstrap_module, "_MANY_PATIENTS", many)
        codes, n = np.unique(groups, return_inverse=True)[1], 14
        counts = np.random.default_rng(1).integers(1, 4, (30, n)).astype(float)
        got = Auc(truth, scores).prepare(codes, n)(counts)
        rows = [np.repeat(np.arange(groups.size), c[groups].astype(int)) for c in counts]
        assert got == pytest.approx([auc(truth[r], scores[r]) for r in rows], abs=1e-12)


@pytest.mark.parametrize("chunk", [14, 14 * 33])
def test_draws_do_not_depend_on_how_memory_is_bounded(monkeypatch, chunk):
    truth, scores, groups = clips(6)
    for strata in (None, truth):
        want = cluster_bootstrap(mean_of_rows(scores), groups, QUICK, strata)
        with monkeypatch.context() as m:
            m.setattr(bootstrap_module, "_CHUNK", chunk)
            got = cluster_bootstrap(mean_of_rows(scores), groups, QUICK, strata)
        assert (got.low, got.high) == pytest.approx((want.low, want.high), abs=1e-12)


@given(st.integers(0, 1000), st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_row_order_and_key_type_do_not_matter(seed, random):
    truth, scores, groups = clips(seed)
    order = list(range(groups.size))
    random.shuffle(order)
    keys = np.array([f"{g:03d}" for g in groups])[order]
    for make in (lambda o: Auc(truth[o], scores[o]), lambda o: mean_of_rows(scores[o])):
        a = cluster_bootstrap(make(slice(None)), groups, QUICK, truth)
        b = cluster_bootstrap(make(order), keys, QUICK, truth[order])
        assert (a.value, a.low, a.high) == pytest.approx((b.value, b.low, b.high), abs=1e-12)


@given(st.integers(0, 1000))
@example(498)  # many resamples equal the sample's own mean, up to rounding
@settings(max_examples=25, deadline=None)
def test_interval_of_a_mean_moves_and_scales_with_the_values(seed):
    _, scores, groups = clips(seed)
    for method in IntervalMethod:
        plan = BootstrapPlan(200, seed, method)
        a = cluster_bootstrap(mean_of_rows(scores), groups, plan)
        b = cluster_bootstrap(mean_of_rows(4 * scores + 8), groups, plan)
        assert (b.low, b.high) == pytest.approx((4 * a.low + 8, 4 * a.high + 8), abs=1e-9)


def test_standard_error_of_a_mean_is_the_closed_form():
    """One row per patient: the spread of resampled means is s/sqrt(n) (population s).

    4000 resamples give the spread to about 1.1 %; 6 % is beyond 5 of its standard errors.
    """
    values = np.random.default_rng(11).exponential(size=60)
    evaluate = mean_of_rows(values).prepare(np.arange(60), 60)
    plan = BootstrapPlan(n_boot=4000, seed=5)
    draws = np.concatenate(
        [evaluate(c) for c in bootstrap_module._counts([np.arange(60)], 60, plan)]
    )
    assert draws.std() == pytest.approx(values.std() / np.sqrt(60), rel=0.06)
    # Percentile and BCa differ in the direction of the skewness.
    plain, bca = (
        cluster_bootstrap(mean_of_rows(values), np.arange(60), BootstrapPlan(4000, 5, m))
        for m in IntervalMethod
    )
    assert bca.low > plain.low
    assert bca.high > plain.high


def test_bca_equals_scipy():
    """scipy draws other resamples: with 20000 each the ends differ by a few percent of the width."""
    values = np.random.default_rng(2).exponential(size=40)
    ours = cluster_bootstrap(
        mean_of_rows(values), np.arange(40), BootstrapPlan(20000, 1, IntervalMethod.BCA)
    )
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20000, method="BCa", rng=np.random.default_rng(3)
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.04 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.04 * width)


def test_coverage_of_patients_and_not_of_frames():
    """300 cohorts of 60 patients x 10 frames around a true mean of 0.

    A percentile interval of 60 patients covers about 94 %. The test fails by chance less than
    once in 1e5 runs if the true coverage lies between 91 % and 97 %.
    """
    rng = np.random.default_rng()
    n, frames = 300, 10
    groups = np.repeat(np.arange(60), frames)
    held = naive = 0
    for _ in range(n):
        values = rng.normal(size=60)[groups] + 0.5 * rng.normal(size=groups.size)
        e = cluster_bootstrap(
            mean_of_rows(values), groups, BootstrapPlan(400, int(rng.integers(2**31)))
        )
        held += e.low <= 0 <= e.high
        half = 1.96 * values.std() / np.sqrt(values.size)
        naive += abs(values.mean()) <= half
    assert stats.binom.ppf(5e-6, n, 0.91) <= held <= stats.binom.isf(5e-6, n, 0.97)
    assert naive < 0.75 * n  # near 0.5: frames counted as independent


def test_paired_systems_share_their_patients():
    truth, scores, groups = clips(8, 40)
    plan = BootstrapPlan(500, 2)
    noise = np.random.default_rng(0).normal(0, 0.05, scores.size)
    pair = paired_cluster_bootstrap(
        Auc(truth, scores), Auc(truth, scores + noise), groups, plan, truth
    )
    assert pair.difference.value == pytest.approx(pair.first.value - pair.second.value)
    # Nearly equal systems: their difference is known far better than either AUC.
    assert pair.difference.high - pair.difference.low < 0.2 * (pair.first.high - pair.first.low)
    same = paired_cluster_bootstrap(Auc(truth, scores), Auc(truth, 2 * scores), groups, plan)
    assert (same.difference.value, same.difference.low, same.difference.high) == (0, 0, 0)
    assert same.p_value == 1
    apart = paired_cluster_bootstrap(mean_of_rows(scores + 1), mean_of_rows(scores), groups, plan)
    assert apart.p_value == pytest.approx(2 / 501)
    assert (apart.difference.n, apart.difference.unit) == (40, Unit.PATIENT)


def test_strata_keep_the_mix_and_say_so():
    truth, scores, groups = clips(9)
    counts = next(bootstrap_module._counts([np.arange(0, 14, 2), np.arange(1, 14, 2)], 14, QUICK))
    assert (counts[:, ::2].sum(axis=1) == 7).all()
    assert (counts[:, 1::2].sum(axis=1) == 7).all()
    e = cluster_bootstrap(Auc(truth, scores), groups, QUICK, strata=truth)
    assert e.method == "percentile cluster bootstrap, 200 resamples, within classes, seed 3"
    assert e == cluster_bootstrap(Auc(truth, scores), groups, QUICK, strata=truth)


def test_many_statistics_share_one_set_of_resamples():
    truth, scores, groups = clips(12)
    parts = (mean_of_rows(scores), Auc(truth, scores), Auc(truth, -scores))
    together = resample(parts, groups, QUICK, truth)
    assert [r.estimate() for r in together] == [
        cluster_bootstrap(s, groups, QUICK, truth) for s in parts
    ]
    assert together[1].draws == pytest.approx(1 - together[2].draws, abs=1e-12)
    apart = together[1].minus(together[2]).estimate()
    assert apart == cluster_bootstrap(Difference(*parts[1:]), groups, QUICK, truth)


def hierarchical(method: IntervalMethod = IntervalMethod.PERCENTILE, n_boot: int = 200):
    return BootstrapPlan(n_boot, 3, method, drawing=Drawing.HIERARCHICAL)


@pytest.mark.parametrize("name", ["mean", "patient means", "sensitivity", "auc"])
@pytest.mark.parametrize("method", list(IntervalMethod))
def test_hierarchical_drawing_equals_the_loop_over_rows(name, method):
    truth, scores, groups = clips(4)
    fast, function = statistics(truth, scores, groups)[name]
    slow = AnyStatistic(function, groups.size)
    a, b = (cluster_bootstrap(s, groups, hierarchical(method), truth) for s in (fast, slow))
    assert (a.value, a.low, a.high) == pytest.approx((b.value, b.low, b.high), abs=1e-12)
    assert a.method.startswith(f"{method.value} hierarchical bootstrap")


def test_hierarchical_draws_rows_of_drawn_patients_only():
    groups = np.array(["b", "a", "b", "c", "b", "a"])  # 2 rows of a, 3 of b, 1 of c
    codes = np.unique(groups, return_inverse=True)[1]
    counts = next(bootstrap_module._row_counts([np.arange(3)], codes, hierarchical(n_boot=5000)))
    of_patient = np.stack([counts[:, codes == g].sum(axis=1) for g in range(3)], axis=1)
    drawn = of_patient / [2, 3, 1]
    assert (drawn == drawn.round()).all()
    assert (drawn.sum(axis=1) == 3).all()
    # Each patient is drawn once on average, each of its rows too; 0.07 is five standard errors.
    assert counts.mean(axis=0) == pytest.approx(np.ones(6), abs=0.07)


def test_spread_of_hierarchical_means_is_the_closed_form():
    """G patients x F rows: the variance adds S_b/G between and S_w/(G F) within patients.

    S_b is the population variance of patient means, S_w the mean population variance of rows
    within patients (Davison and Hinkley 1997, section 3.8). 8000 resamples: 0.8 % of the spread.
    """
    rng = np.random.default_rng(7)
    rows = rng.normal(size=(30, 1)) * 0.3 + rng.normal(size=(30, 8))
    groups = np.repeat(np.arange(30), 8)
    one = resample((mean_of_rows(rows.ravel()),), groups, hierarchical(n_boot=8000))[0]
    between, within = rows.mean(axis=1).var(), rows.var(axis=1).mean()
    assert one.draws.var() == pytest.approx(between / 30 + within / (30 * 8), rel=0.08)
    # With one row per patient nothing is left to draw within patients.
    single = (mean_of_rows(rows[:, 0]), np.arange(30))
    assert resample(single[:1], single[1], hierarchical())[0].draws == pytest.approx(
        resample(single[:1], single[1], QUICK)[0].draws, abs=1e-12
    )


@pytest.mark.parametrize("chunk", [90, 90 * 33])
def test_hierarchical_draws_do_not_depend_on_how_memory_is_bounded(monkeypatch, chunk):
    truth, scores, groups = clips(6)
    want = cluster_bootstrap(Auc(truth, scores), groups, hierarchical(), truth)
    monkeypatch.setattr(bootstrap_module, "_CHUNK", chunk)
    got = cluster_bootstrap(Auc(truth, scores), groups, hierarchical(), truth)
    assert (got.low, got.high) == pytest.approx((want.low, want.high), abs=1e-12)


@pytest.mark.parametrize("method", list(IntervalMethod))
def test_what_is_the_same_in_all_resamples_has_no_interval(method):
    _, scores, groups = clips(10)
    plan = BootstrapPlan(200, method=method)
    hits = mean_of_rows(np.ones(scores.size))
    found = cluster_bootstrap(hits, groups, plan)
    assert found.value == 1
    assert math.isnan(found.low)
    assert found.method == "no interval: all 200 resamples of patients give the same"
    alike = paired_cluster_bootstrap(mean_of_rows(scores), mean_of_rows(scores), groups, plan)
    assert (alike.difference.low, alike.difference.high, alike.p_value) == (0, 0, 1)
    fewer = mean_of_rows(np.full(scores.size, 0.9))
    worse = [bootstrap_non_inferiority((fewer, hits), groups, m, plan).shown for m in (0.05, 0.2)]
    assert worse == [False, True]


def test_what_cannot_be_resampled_is_refused():
    truth, scores, groups = clips(10)
    rare = (groups == 0).astype(int)
    cases = [
        (
            lambda: cluster_bootstrap(mean_of_rows(scores), np.zeros(scores.size), QUICK),
            "1 patient",
        ),
        (lambda: cluster_bootstrap(Auc(rare, scores), groups, QUICK), "of 200 resamples"),
        (lambda: cluster_bootstrap(mean_of_rows(scores * np.nan), groups, QUICK), "NaN"),
        (lambda: cluster_bootstrap(mean_of_rows(scores), groups[1:], QUICK), "groups of shape"),
        (
            lambda: cluster_bootstrap(mean_of_rows(scores), groups, QUICK, np.arange(scores.size)),
            "more than one stratum",
        ),
        (
            lambda: cluster_bootstrap(RatioOfSums(scores, 0 * scores), groups, QUICK),
            "does not exist in the sample",
        ),
        (
            lambda: cluster_bootstrap(
                Difference(mean_of_rows(scores), mean_of_rows(scores[1:])), groups, QUICK
            ),
            "rows",
        ),
        (
            lambda: paired_cluster_bootstrap(
                mean_of_rows(scores), mean_of_rows(scores[1:]), groups, QUICK
            ),
            "all statistics on the same rows",
        ),
        (
            lambda: cluster_bootstrap(
                Auc(rare, scores),
                groups,
                BootstrapPlan(200, 0, IntervalMethod.BCA),
                rare,
            ),
            "hangs on one patient",
        ),
    ]
    for call, message in cases:
        with pytest.raises(StatisticUndefined, match=message):
            call()
    with pytest.raises(ValueError, match="at least 100"):
        BootstrapPlan(n_boot=10)
