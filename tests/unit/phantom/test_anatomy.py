"""Anatomy: class overlap as promised, masks and tissue levels where they belong."""

import math

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from renalkit.phantom.anatomy import (
    draw_anatomy,
    draw_features,
    draw_view,
    malignancy_log_ratio,
    smooth_noise,
    tissue_map,
)

N = 4000


@pytest.fixture(scope="module")
def both_classes():
    rng = np.random.default_rng(11)
    return [[draw_features(label, rng) for _ in range(N)] for label in ("malignant", "benign")]


def auc(score, both):
    malignant, benign = ([score(f) for f in features] for features in both)
    return mannwhitneyu(malignant, benign).statistic / N**2


def test_ideal_observer_reaches_about_085(both_classes):
    # Standard error of an AUC of 0.85 with 2 x 4000 cases: 0.0043. Bounds are +- 4 of them wide
    # around the closed form for the four Gaussian features plus what two signs add.
    assert 0.83 < auc(malignancy_log_ratio, both_classes) < 0.875


def test_size_alone_is_a_weak_rule(both_classes):
    expected = 0.5 * (1 + math.erf(0.5 / math.sqrt(2) / math.sqrt(2)))
    assert auc(lambda f: f.size_mm, both_classes) == pytest.approx(expected, abs=4 * 0.0061)


def test_no_single_feature_comes_near_the_ideal(both_classes):
    for score in (
        lambda f: -f.echo_db,
        lambda f: f.heterogeneity_db,
        lambda f: f.irregularity,
        lambda f: float(f.halo),
        lambda f: float(f.calcification),
    ):
        assert 0.53 < auc(score, both_classes) < 0.77


def test_ideal_score_is_calibrated(both_classes):
    # Among features with log ratio near s, malignant : benign must be exp(s).
    malignant, benign = (np.array([malignancy_log_ratio(f) for f in fs]) for fs in both_classes)
    for low, high in ((-2, -1), (-1, 0), (0, 1), (1, 2)):
        n_m = ((malignant >= low) & (malignant < high)).sum()
        n_b = ((benign >= low) & (benign < high)).sum()
        found = math.log(n_m / n_b)
        error = math.sqrt(1 / n_m + 1 / n_b)
        assert low - 4 * error < found < high + 4 * error


def test_smooth_noise_is_standardised():
    rng = np.random.default_rng(4)
    values = np.stack([smooth_noise(200, 8.0, rng) for _ in range(10)])
    assert values.mean() == pytest.approx(0, abs=0.1)
    assert values.std() == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("side", ["left", "right"])
def test_tissue_levels_are_ordered_as_in_a_kidney(side):
    rng = np.random.default_rng(5)
    x, z = np.meshgrid(
        np.arange(-80, 80, 0.5, dtype=np.float32), np.arange(-20, 140, 0.5, dtype=np.float32)
    )
    for _ in range(5):
        anatomy = draw_anatomy(None, side, rng)
        view = draw_view(anatomy, rng)
        tissue = tissue_map(anatomy, view, x, z, 50.0)
        kidney = tissue.kidney_mm
        area = (kidney > 0).sum() * 0.25
        assert area == pytest.approx(
            math.pi * anatomy.half_length_mm * anatomy.half_width_mm, rel=0.06
        )
        assert (tissue.lesion_mm < 0).all()
        distance = np.hypot(x - view.centre_x_mm, z - view.centre_z_mm)
        sinus = tissue.echo_db[distance < 5].mean()
        cortex = tissue.echo_db[(kidney > 1) & (kidney < 3)].mean()
        medulla = np.percentile(tissue.echo_db[(kidney > 5) & (kidney < 14)], 10)
        assert sinus > cortex + 4
        assert medulla < cortex - 4
