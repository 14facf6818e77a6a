"""Variances against simulation, exact integrals and pROC's digits; sizes against written-out formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from renalkit.errors import StatisticUndefined
from renalkit.metrics.auc_inference import hanley_mcneil_interval, paired_delong
from renalkit.metrics.comparisons import auc_non_inferiority
from renalkit.metrics.sample_size import (
    AucDesign,
    AucModel,
    AucPair,
    auc_correlation,
    auc_variance,
    n_for_auc,
    n_for_difference,
    n_for_non_inferiority,
    n_for_width,
    power_for_auc,
    power_for_difference,
    power_for_non_inferiority,
)

HM, OB, EMPIRICAL = AucModel.HANLEY_MCNEIL, AucModel.OBUCHOWSKI, AucModel.EMPIRICAL
AUCS = st.floats(0.55, 0.98)


# ---------------------------------------------------------------- variance


def simulated(aucs, correlation: float, n_positive: int, n_negative: int, times: int, seed: int):
    """AUCs (times, 2) of two systems with normal scores, correlated within each class."""
    rng = np.random.default_rng(seed)
    root = np.linalg.cholesky([[1, correlation], [correlation, 1]])
    shift = math.sqrt(2) * stats.norm.ppf(aucs)
    found = np.empty((times, 2))
    for k in range(times):
        pos = rng.normal(size=(n_positive, 2)) @ root.T + shift
        neg = rng.normal(size=(n_negative, 2)) @ root.T
        found[k] = (pos[:, None] > neg).mean(axis=(0, 1))
    return found


def test_empirical_variance_and_correlation_are_those_of_simulated_aucs():
    """4000 cohorts of 30 and 45: a variance is known to 2.2 %, a correlation to 0.012 at most."""
    found = simulated((0.75, 0.9), 0.6, 30, 45, 4000, 1)
    for k, value in enumerate((0.75, 0.9)):
        assert found[:, k].var(ddof=1) == pytest.approx(auc_variance(value, 30, 45), rel=0.1)
    r = auc_correlation((0.75, 0.9), 0.6, 0.6, 1.5)
    assert np.corrcoef(found.T)[0, 1] == pytest.approx(r, abs=0.05)


@given(AUCS, st.integers(2, 60), st.integers(2, 60))
@settings(deadline=None)
def test_empirical_variance_is_the_integral_of_the_kernel(value, n_positive, n_negative):
    """Q = E[Phi(shift - y)^2]: two positives above one negative, integrated by quadrature."""
    shift = math.sqrt(2) * stats.norm.ppf(value)
    y = np.linspace(-9, 9, 4001)
    q = integrate.trapezoid(stats.norm.pdf(y) * stats.norm.cdf(shift + y) ** 2, y)
    parts = value * (1 - value) + (n_positive + n_negative - 2) * (q - value**2)
    want = parts / (n_positive * n_negative)
    assert auc_variance(value, n_positive, n_negative) == pytest.approx(want, rel=1e-7)


def test_by_chance_the_variance_is_the_rank_sums():
    """(m + n + 1) / (12 m n) for the empirical AUC; Hanley and McNeil's thirds give the same."""
    for model in (EMPIRICAL, HM):
        assert auc_variance(0.5, 20, 33, model) == pytest.approx(54 / (12 * 20 * 33))
    # Obuchowski's at chance: 1 / (4 pi) per class (pROC rounds it to 0.0792 / 0.0099 x 0.0099).
    want = (1 / 20 + 1 / 33) / (4 * math.pi)
    assert auc_variance(0.5, 20, 33, OB) == pytest.approx(want)


@given(AUCS, st.integers(2, 80), st.integers(2, 80))
@settings(deadline=None)
def test_hanley_mcneil_is_the_interval_of_published_aucs(value, n_positive, n_negative):
    low, high = hanley_mcneil_interval(value, n_positive, n_negative)
    half = 1.959963984540054 * math.sqrt(auc_variance(value, n_positive, n_negative, HM))
    assert (low, high) == pytest.approx((max(0, value - half), min(1, value + half)))


def test_obuchowski_is_procs_var_params():
    """pROC 1.18: var.params.obuchowski(A, 1, kappa) / ncases for A = sqrt(2) qnorm(auc)."""
    for value, kappa, want in (
        (0.7313685637, 72 / 41, 0.114178094957),
        (0.9, 1.0, 0.0687381002522),
    ):
        n = 1000
        got = auc_variance(value, n, round(n * kappa), OB) * n
        a = math.sqrt(2) * stats.norm.ppf(value)
        f2, g2 = (
            math.exp(-(a**2) / 2) / (4 * math.pi),
            a**2 * math.exp(-(a**2) / 2) / (16 * math.pi),
        )
        kappa = round(n * kappa) / n
        written = f2 * (1 + 1 / kappa + a**2 / 2) + g2 * (1 + kappa) / (2 * kappa)
        assert got == pytest.approx(written, rel=1e-12)
        assert got == pytest.approx(want, rel=1e-4)


@given(AUCS, AUCS, st.floats(0, 1), st.floats(0.2, 5))
@settings(deadline=None)
def test_correlation_properties(first, second, rating, ratio):
    r = auc_correlation((first, second), rating, rating, ratio)
    assert -1e-12 <= r <= 1 + 1e-12
    assert r == pytest.approx(auc_correlation((second, first), rating, rating, ratio))
    # By chance (0.5) the correlation of ranks: 6/pi asin(rating/2), Spearman's in normal data.
    at_half = auc_correlation((0.5, 0.5), rating, rating, ratio)
    assert at_half == pytest.approx(6 / math.pi * math.asin(rating / 2), abs=1e-9)
    assert auc_correlation((first, first), 1, 1, ratio) == pytest.approx(1)


# ---------------------------------------------------------------- sizes


def test_difference_of_two_groups_is_hanley_and_mcneils_formula():
    """Their eq. 6, one-sided 5 %: n = ((z_a sqrt(2 V1) + z_b sqrt(V1 + V2)) / d)^2, large samples."""

    def v(a: float) -> float:
        return a / (2 - a) + 2 * a**2 / (1 + a) - 2 * a**2

    for power in (0.8, 0.9, 0.95):
        for other in (0.75, 0.8, 0.85):
            top = 1.6449 * math.sqrt(2 * v(0.7)) + stats.norm.ppf(power) * math.sqrt(
                v(0.7) + v(other)
            )
            want = (top / (other - 0.7)) ** 2
            design = AucDesign(power, 0.9, 1.0, HM, null_variance=True)
            got = n_for_difference(AucPair(other, 0.7, 0.0), design).n_positive
            assert want <= got <= want + 2.5  # theirs leaves out terms of 1/n^2


@given(
    AUCS,
    st.sampled_from([0.02, 0.05, 0.1]),
    st.sampled_from([0.5, 1, 2.7]),
    st.sampled_from(list(AucModel)),
)
@settings(deadline=None, max_examples=40)
def test_sizes_are_the_smallest_that_do(value, width, ratio, model):
    design = AucDesign(0.8, 0.95, ratio, model)
    z = 1.959963984540054
    found = n_for_width(value, width, design)
    assert found.n_negative == design.negatives(found.n_positive)
    assert found.reached <= width
    if found.n_positive > 2:
        n = found.n_positive - 1
        assert z * math.sqrt(auc_variance(value, n, design.negatives(n), model)) > width
    pair = AucPair(value, value - width, 0.5)
    found = n_for_difference(pair, design)
    assert found.reached >= 0.8
    if found.n_positive > 2:
        n = found.n_positive - 1
        assert power_for_difference(pair, n, design.negatives(n), design) < 0.8
    assert found.n == found.n_positive + found.n_negative


def test_what_makes_a_study_smaller():
    def n(pair: AucPair, **changes) -> int:
        return n_for_difference(pair, AucDesign(**changes)).n

    base = n(AucPair(0.85, 0.8, 0.5))
    assert n(AucPair(0.85, 0.8, 0.8)) < base < n(AucPair(0.85, 0.8, 0.0))
    assert n(AucPair(0.9, 0.8, 0.5)) < base < n(AucPair(0.82, 0.8, 0.5))
    assert (
        base
        < n(AucPair(0.85, 0.8, 0.5), power=0.9)
        < n(AucPair(0.85, 0.8, 0.5), power=0.9, level=0.99)
    )
    assert base < n(AucPair(0.85, 0.8, 0.5), negatives_per_positive=4)
    assert n(AucPair(0.8, 0.85, 0.5), null_variance=False) == base
    assert n_for_auc(0.8, 0.5).n < n_for_auc(0.8, 0.7).n
    same = AucPair(0.85, 0.85, 0.6)
    assert n_for_non_inferiority(same, 0.1).n < n_for_non_inferiority(same, 0.05).n


def test_non_inferiority_of_equal_systems_in_closed_form():
    """d = 0: n = ((z_0.975 + z_0.8) / margin)^2 x variance of the difference per patient."""
    pair, design = AucPair(0.85, 0.85, 0.6), AucDesign(model=OB)
    per_positive = pair.variance(10**6, 10**6, OB) * 10**6
    want = ((1.959964 + 0.841621) / 0.05) ** 2 * per_positive
    assert n_for_non_inferiority(pair, 0.05, design).n_positive == math.ceil(want)


def cohorts(pair: AucPair, n: tuple[int, int], times: int, seed: int):
    """Truth and two systems' scores, correlated by 0.5 within each class."""
    rng = np.random.default_rng(seed)
    root = np.linalg.cholesky([[1, 0.5], [0.5, 1]])
    truth = np.repeat([1, 0], n)
    shift = math.sqrt(2) * stats.norm.ppf([pair.new, pair.reference])
    for _ in range(times):
        yield truth, *(rng.normal(size=(truth.size, 2)) @ root.T + shift * truth[:, None]).T


def test_delongs_test_has_the_planned_power():
    """600 cohorts each: 0.8 is known to 1.6 %, limits at three of these and 2 % for normality."""
    pair = AucPair(0.9, 0.8, auc_correlation((0.9, 0.8), 0.5, 0.5, 1.5))
    size = n_for_difference(pair, AucDesign(negatives_per_positive=1.5))
    n = size.n_positive, size.n_negative
    found = sum(paired_delong(*case).p_value < 0.05 for case in cohorts(pair, n, 600, 3))
    assert found / 600 == pytest.approx(0.8, abs=0.07)
    equal = AucPair(0.85, 0.85, auc_correlation((0.85, 0.85), 0.5, 0.5))
    size = n_for_non_inferiority(equal, 0.1)
    n = size.n_positive, size.n_negative
    shown = sum(auc_non_inferiority(t, s, 0.1).shown for t, *s in cohorts(equal, n, 600, 4))
    assert shown / 600 == pytest.approx(0.8, abs=0.07)


def test_width_is_reached_by_delongs_interval():
    size = n_for_width(0.85, 0.05)
    found = simulated((0.85, 0.85), 0.0, size.n_positive, size.n_negative, 600, 5)
    assert 1.96 * found.std() == pytest.approx(0.05, rel=0.1)


# ---------------------------------------------------------------- refusals


def test_what_cannot_be_planned_is_refused():
    same = AucPair(0.8, 0.8, 0.5)
    for call, message in (
        (lambda: n_for_auc(0.7, 0.7), "no difference to find"),
        (lambda: n_for_difference(same), "no difference to find"),
        (lambda: n_for_non_inferiority(AucPair(0.7, 0.8, 0.5), 0.1), "no difference to find"),
        (lambda: n_for_non_inferiority(AucPair(0.6, 0.8, 0.5), 0.1), "no difference to find"),
        (lambda: n_for_width(0.8, 1e-5), "more than"),
    ):
        with pytest.raises(StatisticUndefined, match=message):
            call()
    for call, message in (
        (lambda: n_for_auc(1.0), "AUC 1.0"),
        (lambda: n_for_auc(math.nan), "AUC nan"),
        (lambda: auc_variance(0.0, 5, 5), "AUC 0.0"),
        (lambda: auc_variance(0.7, 0, 5), "0 positive"),
        (lambda: AucPair(0.8, 1.2, 0.1), "AUC 1.2"),
        (lambda: AucPair(0.8, 0.7, 1.0), "correlation 1.0"),
        (lambda: AucPair(0.8, 0.7, math.nan), "correlation nan"),
        (lambda: auc_correlation((0.8, 0.8), 1.1, 0), "correlations 1.1"),
        (lambda: n_for_width(0.8, 0.0), "half width"),
        (lambda: power_for_non_inferiority(same, 0.0, 10, 10), "margin"),
        (lambda: AucDesign(power=1.0), "power 1.0"),
        (lambda: AucDesign(level=95), "level 95"),
        (lambda: AucDesign(negatives_per_positive=0), "negatives per positive"),
        (lambda: power_for_auc(0.8, 1.5, 10, 10), "AUC 1.5"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
