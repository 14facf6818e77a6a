"""Net benefit by hand, by its identities, and in resamples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renalkit.errors import StatisticUndefined
from renalkit.metrics.bootstrap import (
    AnyStatistic,
    BootstrapPlan,
    IntervalMethod,
    cluster_bootstrap,
    paired_cluster_bootstrap,
)
from renalkit.metrics.classification import confusion_at
from renalkit.metrics.decision import (
    decision_curve,
    interventions_avoided,
    net_benefit,
    treat_all,
)

QUICK = BootstrapPlan(300, 1)


def value(statistic) -> float:
    return float(statistic.numerator.sum() / statistic.denominator.sum())


@st.composite
def predicted_cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    n = draw(st.integers(1, 40))
    truth = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n))
    tenths = draw(st.lists(st.integers(0, 20), min_size=n, max_size=n))
    return np.array(truth), np.array(tenths) / 20


@given(predicted_cases(), st.sampled_from([0.05, 0.1, 0.25, 0.5, 0.9]))
@settings(deadline=None)
def test_net_benefit_is_vickers_and_elkins_formula(cases, threshold):
    truth, p = cases
    c = confusion_at(truth, p, threshold)
    odds = threshold / (1 - threshold)
    model = c.tp / c.n - c.fp / c.n * odds
    share = truth.mean()
    everyone = share - (1 - share) * odds
    assert value(net_benefit(truth, p, threshold)) == pytest.approx(model, abs=1e-12)
    assert value(treat_all(truth, threshold)) == pytest.approx(everyone, abs=1e-12)
    avoided = value(interventions_avoided(truth, p, threshold))
    assert avoided == pytest.approx((model - everyone) / odds * 100, abs=1e-9)
    assert model <= share + 1e-12


def test_operations_avoided_by_hand():
    """100 patients, 40 malignant. At 20 % the model operates on 38 + 25 and spares 2 + 35.

    35 - 2 / 0.25 = 27 per 100 net: the 35 benign spared, each missed cancer paid as four of them.
    """
    truth = np.repeat([1, 1, 0, 0], [38, 2, 25, 35])
    p = np.repeat([0.9, 0.1, 0.5, 0.1], [38, 2, 25, 35])
    assert value(net_benefit(truth, p, 0.2)) == pytest.approx(0.38 - 0.25 * 0.25)
    assert value(treat_all(truth, 0.2)) == pytest.approx(0.4 - 0.6 * 0.25)
    assert value(interventions_avoided(truth, p, 0.2)) == pytest.approx(27)


def test_a_perfect_model_gains_the_prevalence_and_nobody_called_gains_nothing():
    truth = np.array([0, 0, 0, 1])
    for threshold in (0.1, 0.5, 0.9):
        assert value(net_benefit(truth, truth + 0.0, threshold)) == 0.25
        assert value(net_benefit(truth, np.zeros(4), threshold)) == 0
        assert value(interventions_avoided(truth, np.ones(4), threshold)) == 0
        assert value(interventions_avoided(truth, truth + 0.0, threshold)) == 75
    # A patient exactly at the threshold is operated on.
    assert value(net_benefit(truth, np.full(4, 0.5), 0.5)) == value(treat_all(truth, 0.5))


def test_curve_intervals_equal_the_loop_over_resamples():
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(30), 2)
    truth = (np.arange(30) % 3 == 0)[groups].astype(int)
    p = np.clip(0.4 * truth + 0.5 * rng.random(60), 0, 1)
    curve = decision_curve(truth, p, np.array([0.2, 0.5]), groups, QUICK)
    for k, threshold in enumerate((0.2, 0.5)):
        odds = threshold / (1 - threshold)

        def model(rows: np.ndarray, t=threshold, w=odds) -> float:
            called = p[rows] >= t
            return float((called * np.where(truth[rows] == 1, 1.0, -w)).mean())

        def everyone(rows: np.ndarray, w=odds) -> float:
            return float(truth[rows].mean() - (1 - truth[rows].mean()) * w)

        def avoided(rows: np.ndarray, w=odds, f=model, g=everyone) -> float:
            return (f(rows) - g(rows)) / w * 100

        pairs = (
            (curve.model[k], model),
            (curve.treat_all[k], everyone),
            (curve.avoided[k], avoided),
        )
        for ours, function in pairs:
            slow = cluster_bootstrap(AnyStatistic(function, 60), groups, QUICK)
            assert (ours.value, ours.low, ours.high) == pytest.approx(
                (slow.value, slow.low, slow.high), abs=1e-9
            )
            assert ours.n == 30


@pytest.mark.parametrize("method", list(IntervalMethod))
def test_a_curve_where_nobody_is_called_is_exactly_0(method):
    truth, p = np.array([0, 1, 0, 1]), np.array([0.1, 0.2, 0.3, 0.4])
    curve = decision_curve(truth, p, np.array([0.9]), np.arange(4), BootstrapPlan(200, 0, method))
    e = curve.model[0]
    assert (e.value, e.low, e.high) == (0, 0, 0)
    assert "the same in all" in e.method


def test_two_models_are_compared_on_the_same_patients():
    rng = np.random.default_rng(4)
    truth = rng.integers(0, 2, 80)
    p = np.clip(0.3 * truth + 0.6 * rng.random(80), 0, 1)
    same = paired_cluster_bootstrap(
        net_benefit(truth, p, 0.3), net_benefit(truth, p, 0.3), np.arange(80), QUICK
    )
    assert (same.difference.value, same.p_value) == (0, 1)
    against_all = paired_cluster_bootstrap(
        net_benefit(truth, p, 0.3), treat_all(truth, 0.3), np.arange(80), QUICK
    )
    assert against_all.difference.low <= against_all.difference.value


def test_what_cannot_be_decided_is_refused():
    truth, p = np.array([0, 1]), np.array([0.2, 0.7])
    for function in (net_benefit, interventions_avoided):
        for t, s, message in (
            (truth, p + 1, "outside 0 to 1"),
            (truth, p * np.nan, "NaN"),
            (truth, p[:1], "one per case"),
            (truth + 1, p, "other than 0 and 1"),
        ):
            with pytest.raises(StatisticUndefined, match=message):
                function(t, s, 0.5)
        for threshold in (0, 1, -0.2, np.nan):
            with pytest.raises(ValueError, match="threshold"):
                function(truth, p, threshold)
    with pytest.raises(StatisticUndefined, match="at least one"):
        decision_curve(truth, p, np.array([]), np.arange(2))
    with pytest.raises(StatisticUndefined, match="1 patient"):
        decision_curve(truth, p, np.array([0.5]), np.zeros(2))
