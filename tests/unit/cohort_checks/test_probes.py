"""Probes agree with scikit-learn, stay quiet on noise and never see the fold they score."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from renalkit.cohort_checks.probes import (
    ProbeData,
    fit_logistic,
    null_test,
    out_of_fold,
    run_probe,
    shuffled,
    within_fold_auc,
)
from renalkit.errors import StatisticUndefined


def noise(seed: int, n: int = 80, features: int = 6) -> ProbeData:
    rng = np.random.default_rng(seed)
    return ProbeData(
        rng.normal(size=(n, features)),
        np.arange(n) // 5 % 2,
        tuple(f"g{i}" for i in range(n)),
        np.arange(n) % 5,
        ("benign", "malignant"),
        1,
    )


def test_logistic_regression_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 4))
    y = (x[:, 0] + rng.normal(size=120) > 0.3).astype(float)
    ours = fit_logistic(x, y, l2=2.0)
    other = LogisticRegression(C=0.5, tol=1e-10, max_iter=1000).fit(x, y)
    assert np.allclose(ours[:-1], other.coef_[0], atol=2e-4)
    assert ours[-1] == pytest.approx(other.intercept_[0], abs=2e-4)


def test_auc_of_one_fold_agrees_with_scikit_learn_ties_included() -> None:
    rng = np.random.default_rng(0)
    score, target = rng.integers(0, 6, 60).astype(float), rng.integers(0, 2, 60).astype(float)
    ours = within_fold_auc(score, target, np.zeros(60, int))[0]
    assert ours == pytest.approx(roc_auc_score(target, score), abs=1e-12)


def test_weights_of_groups_equal_repeated_rows() -> None:
    rng = np.random.default_rng(1)
    score, target, weight = (
        rng.normal(size=30),
        rng.integers(0, 2, 30).astype(float),
        rng.integers(0, 4, 30),
    )
    repeated = within_fold_auc(
        np.repeat(score, weight), np.repeat(target, weight), np.zeros(weight.sum(), int)
    )
    weighted = within_fold_auc(score, target, np.zeros(30, int), weight[None].astype(float))
    assert weighted == pytest.approx(repeated, abs=1e-12)


def test_auc_without_two_classes_is_nan() -> None:
    assert np.isnan(within_fold_auc(np.ones(4), np.ones(4), np.zeros(4, int))[0])


def test_l06_a_tested_row_does_not_change_how_others_are_scored() -> None:
    data = noise(3)
    before = out_of_fold(data.features, data.target.astype(float), data.fold)
    changed = data.features.copy()
    changed[0] *= 1000
    after = out_of_fold(changed, data.target.astype(float), data.fold)
    same_fold = data.fold == data.fold[0]
    same_fold[0] = False
    assert np.array_equal(before[same_fold], after[same_fold])


def test_false_alarms_on_noise_are_rare() -> None:
    # At a true rate of 5 % more than 8 of 50 alarms happen once in 1,000 runs.
    assert sum(run_probe("noise", noise(seed)).alarming for seed in range(50)) <= 8


def test_a_telling_feature_alarms_with_an_interval_around_its_auc() -> None:
    data = noise(0)
    data.features[:, 0] += 1.5 * data.target
    result = run_probe("telling", data)
    assert result.alarming
    assert result.low < result.auc < result.high
    assert (result.n, result.unit) == (80, "patient")


def test_three_classes_are_averaged() -> None:
    rng = np.random.default_rng(0)
    target = np.arange(90) // 5 % 3
    features = np.eye(3)[target] + 0.1 * rng.normal(size=(90, 3))
    groups = tuple(map(str, range(90)))
    data = ProbeData(features, target, groups, np.arange(90) % 5, ("a", "b", "c"), None)
    assert run_probe("three", data).auc == pytest.approx(1)


def test_nothing_to_probe_is_said() -> None:
    data = noise(0)
    data.features[:] = 1
    with pytest.raises(StatisticUndefined, match="nothing varies"):
        run_probe("flat", data)


def test_shuffling_keeps_groups_whole_and_counts_equal() -> None:
    group = [f"g{i // 2}" for i in range(40)]
    target = np.array([i // 2 % 2 for i in range(40)])
    seen = [shuffled(target, group, s) for s in range(5)]
    for now in seen:
        assert now.sum() == target.sum()
        assert np.array_equal(now[::2], now[1::2])
    assert any(not np.array_equal(a, seen[0]) for a in seen)


def test_null_test_reports_the_mean() -> None:
    result = null_test(lambda t: 0.5 + 0.2 * float(t[0]), np.array([1, 1, 1, 1]), list("abcd"))
    assert result.mean == pytest.approx(0.7)
    assert not result.passed
