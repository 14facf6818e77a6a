import numpy as np
import pytest

from renalkit.phantom.bmode.lesion import lesion_features
from renalkit.phantom.ceus.perfusion import enhancement
from renalkit.phantom.levels import (
    LEVELS,
    bmode_score,
    ceus_score,
    class_mean,
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


def test_the_published_levels_and_their_maps_are_frozen():
    # A change here needs a new level name and every figure that cites the level measured again.
    assert {(x.name, x.auc_single, x.auc_both) for x in LEVELS.values()} == {
        ("easy", 0.92, 0.96),
        ("default", 0.82, 0.88),
        ("hard", 0.70, 0.75),
    }
    level = LEVELS["default"]
    weight = (class_mean(level, positive=True) * 2 / level.distance) ** 2
    assert weight == pytest.approx([0.25, 0.30, 0.45, 0.20, 0.30, 0.30, 0.20])
    for z in (-1.5, 0.0, 2.0):
        looks = lesion_features(np.full(3, z), np.random.default_rng(0))
        assert looks.echo_db == pytest.approx(0.5 - 2.6 * z)
        assert looks.heterogeneity_db == pytest.approx(3.0 * np.exp(0.75 * z))
        assert looks.irregularity == pytest.approx(0.05 * np.exp(0.5 * z))
        uptake = enhancement([z] * 4)
        assert uptake.peak_ratio == pytest.approx(0.75 * np.exp(0.45 * z))
        assert uptake.delay_s == pytest.approx(1.5 - 1.5 * z)
        assert uptake.transit_ratio == pytest.approx(1.15 * np.exp(-0.45 * z))
        assert uptake.unevenness == pytest.approx(0.32 * np.exp(0.5 * z))
