"""Partial areas and precision-recall against scikit-learn, closed forms and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

import renalkit.metrics.curves as module
from renalkit.errors import StatisticUndefined
from renalkit.metrics.bootstrap import AnyStatistic, BootstrapPlan, Drawing, cluster_bootstrap
from renalkit.metrics.classification import auc
from renalkit.metrics.curves import (
    AveragePrecision,
    Axis,
    PartialAuc,
    RocPart,
    average_precision,
    partial_auc,
    precision_recall_curve,
)


@st.composite
def scored_cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Both classes present, many ties."""
    n = draw(st.integers(2, 40))
    truth = draw(
        st.lists(st.integers(0, 1), min_size=n, max_size=n).filter(lambda t: 0 < sum(t) < n)
    )
    scores = draw(st.lists(st.integers(-6, 6), min_size=n, max_size=n))
    return np.array(truth), np.array(scores) / 4


@given(scored_cases(), st.sampled_from([0.05, 0.1, 0.3, 0.77]))
@settings(deadline=None)
def test_standardised_partial_area_is_scikit_learns(cases, max_fpr):
    truth, scores = cases
    ours = partial_auc(truth, scores, RocPart(1 - max_fpr), standardised=True)
    theirs = sk.roc_auc_score(truth, scores, max_fpr=max_fpr)
    assert ours == pytest.approx(theirs, abs=1e-10)


@given(scored_cases(), st.floats(0.01, 0.99))
@settings(deadline=None)
def test_parts_add_up_to_the_whole_area(cases, cut):
    truth, scores = cases
    whole = auc(truth, scores)
    for axis in Axis:
        parts = [RocPart(0, cut, axis), RocPart(cut, 1, axis)]
        assert sum(partial_auc(truth, scores, p) for p in parts) == pytest.approx(whole, abs=1e-12)
        full = RocPart(0, 1, axis)
        for standardised in (False, True):
            value = partial_auc(truth, scores, full, standardised=standardised)
            assert value == pytest.approx(whole, abs=1e-12)


@given(scored_cases(), st.floats(0, 0.9))
@settings(deadline=None)
def test_the_other_axis_is_the_curve_from_its_other_end(cases, low):
    truth, scores = cases
    a = partial_auc(truth, scores, RocPart(low, 0.95, Axis.SENSITIVITY))
    b = partial_auc(1 - truth, -scores, RocPart(low, 0.95))
    assert a == pytest.approx(b, abs=1e-12)
    assert partial_auc(truth, np.exp(scores), RocPart(low)) == partial_auc(
        truth, scores, RocPart(low)
    )


def test_partial_area_by_hand():
    """Operating points (0, 0.5), (0.5, 0.5), (0.5, 1), (1, 1); specificity 0.25 to 0.75."""
    truth, scores = np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8])
    part = RocPart(0.25, 0.75)
    # FPR 0.25 to 0.5 at 0.5, then 0.5 to 0.75 at 1.
    assert partial_auc(truth, scores, part) == pytest.approx(0.25 * 0.5 + 0.25 * 1)
    assert (part.chance, part.perfect) == (0.25, 0.5)
    standard = partial_auc(truth, scores, part, standardised=True)
    assert standard == pytest.approx((1 + (0.375 - 0.25) / 0.25) / 2)


def test_chance_and_separation():
    truth = np.array([0, 0, 0, 1, 1])
    for part in (RocPart(0.9), RocPart(0.2, 0.7, Axis.SENSITIVITY)):
        constant, perfect = np.ones(5), truth + 0.0
        assert partial_auc(truth, constant, part) == pytest.approx(part.chance)
        assert partial_auc(truth, constant, part, standardised=True) == pytest.approx(0.5)
        assert partial_auc(truth, perfect, part) == pytest.approx(part.perfect)
        assert partial_auc(truth, perfect, part, standardised=True) == pytest.approx(1)
    assert average_precision(truth, np.ones(5)) == pytest.approx(0.4)
    assert average_precision(truth, truth + 0.0) == 1


@given(scored_cases())
@settings(deadline=None)
def test_average_precision_and_curve_are_scikit_learns(cases):
    truth, scores = cases
    want = sk.average_precision_score(truth, scores)
    assert average_precision(truth, scores) == pytest.approx(want, abs=1e-12)
    precision, recall, cuts = sk.precision_recall_curve(truth, scores)
    ours = precision_recall_curve(truth, scores)
    # theirs rises in threshold and ends with an artificial point (precision 1, recall 0)
    np.testing.assert_array_equal(ours.thresholds, cuts[::-1])
    np.testing.assert_allclose(ours.precision, precision[-2::-1], atol=1e-12)
    np.testing.assert_allclose(ours.recall, recall[-2::-1], atol=1e-12)


def clips(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(14), rng.integers(1, 6, 14))
    truth = (np.arange(14) % 2)[groups]
    return truth, (rng.normal(size=groups.size) + truth).round(1), groups


@pytest.mark.parametrize("chunk", [50, 10**6])
@pytest.mark.parametrize("drawing", list(Drawing))
def test_intervals_equal_the_loop_over_resamples(monkeypatch, chunk, drawing):
    truth, scores, groups = clips(3)
    plan = BootstrapPlan(200, 1, drawing=drawing)
    part = RocPart(0.6, 0.95, Axis.SENSITIVITY)
    pairs = [
        (PartialAuc(truth, scores, part), lambda r: partial_auc(truth[r], scores[r], part)),
        (
            PartialAuc(truth, scores, RocPart(0.8), standardised=True),
            lambda r: partial_auc(truth[r], scores[r], RocPart(0.8), standardised=True),
        ),
        (
            AveragePrecision(truth, scores),
            lambda r: sk.average_precision_score(truth[r], scores[r]),
        ),
    ]
    for fast, function in pairs:
        slow = cluster_bootstrap(AnyStatistic(function, groups.size), groups, plan, truth)
        with monkeypatch.context() as m:
            m.setattr(module, "_CHUNK", chunk)
            got = cluster_bootstrap(fast, groups, plan, truth)
        assert (got.value, got.low, got.high) == pytest.approx(
            (slow.value, slow.low, slow.high), abs=1e-12
        )


def test_a_resample_without_a_class_is_undefined():
    truth, scores = np.array([0, 0, 1, 1]), np.array([1.0, 2, 3, 4])
    counts = np.array([[1.0, 1, 0, 0], [0, 0, 1, 1], [1, 1, 1, 1]])
    for statistic in (PartialAuc(truth, scores, RocPart(0.5)), AveragePrecision(truth, scores)):
        values = statistic.prepare(np.arange(4), 4)(counts)
        assert np.isnan(values[0])
        assert np.isfinite(values[2])


def test_what_has_no_curve_is_refused():
    truth, scores = np.array([0, 1]), np.array([0.1, 0.2])
    for function in (
        average_precision,
        precision_recall_curve,
        lambda t, s: partial_auc(t, s, RocPart(0.9)),
    ):
        for t, s, message in (
            (np.ones(2), scores, "one class"),
            (truth, scores * np.nan, "NaN"),
            (truth, scores[:1], "one per case"),
        ):
            with pytest.raises(StatisticUndefined, match=message):
                function(t, s)
    for bad in ((0.5, 0.5), (-0.1, 0.5), (0.5, 1.1), (np.nan, 1)):
        with pytest.raises(ValueError, match="expected 0 <= a < b <= 1"):
            RocPart(*bad)
