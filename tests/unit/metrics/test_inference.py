"""Estimates and intervals of proportions."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from renalkit.domain.prediction import Unit
from renalkit.errors import StatisticUndefined
from renalkit.metrics.inference import Estimate, F1Score, Proportion, clopper_pearson, wilson

counts = st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
levels = st.sampled_from([0.8, 0.9, 0.95, 0.99])


@given(counts, levels)
def test_intervals_equal_scipy(count, level):
    k, n = count
    for ours, method in ((clopper_pearson, "exact"), (wilson, "wilson")):
        theirs = stats.binomtest(k, n).proportion_ci(level, method)
        assert ours(k, n, level) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


@given(counts, levels)
def test_intervals_mirror_and_hold_the_value(count, level):
    k, n = count
    for interval in (clopper_pearson, wilson):
        low, high = interval(k, n, level)
        assert 0 <= low <= k / n <= high <= 1
        assert interval(n - k, n, level) == pytest.approx((1 - high, 1 - low), abs=1e-9)


@pytest.mark.parametrize("p", [0.02, 0.3, 0.77])
@pytest.mark.parametrize("n", [7, 40])
def test_clopper_pearson_covers_at_least_its_level(p, n):
    """Exact coverage: the sum of binomial probabilities of the counts whose interval holds p."""
    held = [k for k in range(n + 1) if clopper_pearson(k, n)[0] <= p <= clopper_pearson(k, n)[1]]
    assert stats.binom.pmf(held, n, p).sum() >= 0.95 - 1e-12


def test_closed_forms_at_the_ends():
    assert clopper_pearson(0, 20) == pytest.approx((0, 1 - 0.025 ** (1 / 20)), abs=1e-12)
    assert clopper_pearson(20, 20) == pytest.approx((0.025 ** (1 / 20), 1), abs=1e-12)
    assert wilson(0, 20)[0] == 0
    assert wilson(20, 20)[1] == 1


def test_proportion_becomes_an_estimate_with_its_basis():
    e = Proportion(45, 50).estimate(Unit.LESION)
    assert (e.value, e.n, e.unit, e.method) == (0.9, 50, Unit.LESION, "Clopper-Pearson")
    assert (e.low, e.high) == clopper_pearson(45, 50)
    assert e.text(2) == "0.90 (0.78 to 0.97)"
    below = Estimate(-0.166, -0.319, -0.014, 0.95, 9, Unit.PATIENT, "t")
    assert below.text() == "-0.166 (-0.319 to -0.014)"
    assert e.basis == "n = 50 lesions, 95 % CI: Clopper-Pearson"
    assert Estimate(0.5, math.nan, math.nan, 0.95, 1, Unit.PATIENT, "none: one").text() == "0.500"


@given(counts)
def test_f1_interval_is_that_of_the_jaccard_index(count):
    k, n = count
    f1 = F1Score(k, n)
    low, high = clopper_pearson(k, n)
    assert f1.value == pytest.approx(2 * k / (2 * k + (n - k)))
    assert f1.interval() == pytest.approx((2 * low / (1 + low), 2 * high / (1 + high)))
    assert f1.estimate().low <= f1.value <= f1.estimate().high


@pytest.mark.parametrize("measure", [Proportion, F1Score])
def test_frames_and_nothing_get_no_exact_interval(measure):
    with pytest.raises(StatisticUndefined, match="frames as independent"):
        measure(3, 5).estimate(Unit.FRAME)
    with pytest.raises(StatisticUndefined, match="0 of 0"):
        measure(0, 0).estimate()
    assert math.isnan(measure(0, 0).value)
    assert not measure(0, 0).defined


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": math.nan}, "needs a value"),
        ({"low": 0.9, "high": 0.1}, "interval"),
        ({"low": math.nan}, "interval"),
        ({"level": 95}, "level"),
        ({"n": 0}, "how many units"),
        ({"method": ""}, "how many units"),
    ],
)
def test_estimates_without_meaning_are_refused(change, message):
    fields = {
        "value": 0.5,
        "low": 0.4,
        "high": 0.6,
        "level": 0.95,
        "n": 3,
        "unit": Unit.PATIENT,
        "method": "m",
    }
    with pytest.raises(ValueError, match=message):
        Estimate(**fields | change)


@pytest.mark.parametrize(("k", "n"), [(-1, 3), (4, 3), (0, 0)])
def test_counts_without_meaning_are_refused(k, n):
    for interval in (clopper_pearson, wilson):
        with pytest.raises(ValueError, match="expected 0 <= k <= n"):
            interval(k, n)
