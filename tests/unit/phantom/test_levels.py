import numpy as np
import pytest

from renalkit.phantom.levels import (
    LEVELS,
    bmode_score,
    ceus_score,
    draw_latents,
    joint_score,
)


def drawn(level, n=6000, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2 == 1
    return labels, [draw_latents(level, positive=bool(y), rng=rng) for y in labels]


def auc(scores, labels):
    ranks = np.argsort(np.argsort(scores)) + 1
    n1, n0 = labels.sum(), (~labels).sum()
    return (ranks[labels].sum() - n1 * (n1 + 1) / 2) / (n1 * n0)


@pytest.mark.parametrize("level", LEVELS.values(), ids=lambda level: level.name)
def test_the_ideal_observers_reach_the_stated_auc(level):
    labels, latents = drawn(level, 24000)
    for score, stated in (
        (bmode_score, level.auc_single),
        (ceus_score, level.auc_single),
        (joint_score, level.auc_both),
    ):
        found = auc(np.array([score(level, one) for one in latents]), labels)
        assert found == pytest.approx(stated, abs=0.01)  # three standard errors


@pytest.mark.parametrize("level", LEVELS.values(), ids=lambda level: level.name)
def test_features_are_standard_normal_within_a_class(level):
    labels, latents = drawn(level)
    for name in ("bmode", "ceus"):
        values = np.array([getattr(one, name) for one in latents])[labels]
        covariance = np.cov(values.T)
        assert np.allclose(covariance, np.eye(len(covariance)), atol=0.12)


def test_only_the_informative_directions_are_correlated():
    level = LEVELS["default"]
    labels, latents = drawn(level)
    b = np.array([bmode_score(level, one) for one in latents])[labels]
    c = np.array([ceus_score(level, one) for one in latents])[labels]
    assert np.corrcoef(b, c)[0, 1] == pytest.approx(level.correlation, abs=0.05)


def test_joint_score_is_the_best_linear_combination():
    level = LEVELS["default"]
    labels, latents = drawn(level)
    b = np.array([bmode_score(level, one) for one in latents])
    c = np.array([ceus_score(level, one) for one in latents])
    assert abs(auc(b + c, labels) - level.auc_both) < 0.02
    assert auc(b + c, labels) > max(auc(b, labels), auc(c, labels))
