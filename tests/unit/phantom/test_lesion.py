"""Looks of a mass: one-to-one with the latent features, class-independent otherwise, painted so."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from renalkit.phantom.bmode.field import FLOOR_DB, make_field
from renalkit.phantom.bmode.lesion import (
    LesionFeatures,
    draw_features,
    latent_features,
    lesion_features,
    lesion_outline,
    malignancy_log_ratio,
    paint_lesion,
    typical_lesion,
)
from renalkit.phantom.histology import Histology
from renalkit.phantom.levels import LEVELS

N = 1500
PLAIN = LesionFeatures(40.0, -3.0, 3.0, 0.06, halo=False, calcification=False)


@pytest.fixture(scope="module")
def both_classes():
    rng = np.random.default_rng(11)
    return [[draw_features(label, rng) for _ in range(N)] for label in ("malignant", "benign")]


def auc(score, both):
    malignant, benign = ([score(f) for f in features] for features in both)
    return mannwhitneyu(malignant, benign).statistic / N**2


def square(step=0.4, half=40.0):
    axis = np.arange(-half, half, step, dtype=np.float32)
    return make_field(*np.meshgrid(axis, axis + 60), 50.0, np.random.default_rng(3))


def outline_of(features, field, seed=0, aspect=1.0):
    offsets = field.x_mm, field.z_mm - 60
    return lesion_outline(
        features, offsets, features.size_mm / 2, aspect, np.random.default_rng(seed)
    )


def painted(features, seed=0):
    field = square()
    outline = outline_of(features, field, seed)
    empty = np.zeros_like(field.x_mm)
    return field, outline, *paint_lesion(features, outline, field, (empty, empty + FLOOR_DB, empty))


def test_ideal_observer_reaches_the_auc_of_the_level(both_classes):
    # Standard error of an AUC of 0.82 with 2 x 1500 cases: 0.0077.
    found = auc(malignancy_log_ratio, both_classes)
    assert found == pytest.approx(LEVELS["default"].auc_single, abs=4 * 0.0077)


def test_only_the_three_features_know_the_class(both_classes):
    standard_error = 0.0105
    for score in (
        lambda f: f.size_mm,
        lambda f: float(f.halo),
        lambda f: float(f.calcification),
        lambda f: f.through_db_cm,
        lambda f: f.edge_shadow,
    ):
        assert auc(score, both_classes) == pytest.approx(0.5, abs=4 * standard_error)
    for score in (lambda f: -f.echo_db, lambda f: f.heterogeneity_db, lambda f: f.irregularity):
        assert 0.6 < auc(score, both_classes) < 0.78


def test_ideal_score_is_calibrated(both_classes):
    # Among features with log ratio near s, malignant : benign must be exp(s).
    malignant, benign = (np.array([malignancy_log_ratio(f) for f in fs]) for fs in both_classes)
    for low, high in ((-2, -1), (-1, 0), (0, 1), (1, 2)):
        n_m = ((malignant >= low) & (malignant < high)).sum()
        n_b = ((benign >= low) & (benign < high)).sum()
        found = math.log(n_m / n_b)
        error = math.sqrt(1 / n_m + 1 / n_b)
        assert low - 4 * error < found < high + 4 * error


@given(st.lists(st.floats(-4, 4), min_size=3, max_size=3))
def test_latents_come_back_from_the_look(values):
    features = lesion_features(np.array(values), np.random.default_rng(0))
    assert latent_features(features) == pytest.approx(values, abs=1e-9)


@settings(max_examples=30)
@given(st.integers(0, 2), st.floats(-3, 3), st.floats(0.01, 2))
def test_each_latent_moves_its_own_feature_one_way(axis, start, step):
    latents = np.zeros(3)
    latents[axis] = start
    one = lesion_features(latents, np.random.default_rng(1))
    latents[axis] += step
    two = lesion_features(latents, np.random.default_rng(1))
    moved = (two.echo_db - one.echo_db, two.heterogeneity_db - one.heterogeneity_db,
             two.irregularity - one.irregularity)  # fmt: skip
    assert [np.sign(m) for m in moved] == [(-1, 1, 1)[k] if k == axis else 0 for k in range(3)]
    assert (one.size_mm, one.halo, one.through_db_cm) == (two.size_mm, two.halo, two.through_db_cm)


def test_a_look_that_no_latent_gives_is_refused():
    with pytest.raises(ValueError, match="no latent"):
        latent_features(replace(PLAIN, heterogeneity_db=0.0))


def test_outline_varies_as_stated():
    field = square()
    for irregularity in (0.02, 0.06, 0.12):
        outline = outline_of(replace(PLAIN, irregularity=irregularity), field)
        edge = np.abs(outline.level_mm) < 0.3
        radius = np.hypot(field.x_mm, field.z_mm - 60)[edge]
        assert radius.std() / 20 == pytest.approx(irregularity, rel=0.25)
        assert radius.mean() == pytest.approx(20, rel=0.05)


def test_echo_and_texture_inside_are_as_stated():
    for seed in range(3):
        _, outline, echo, _, _ = painted(PLAIN, seed)
        inside = echo[outline.level_mm > 2.5]
        assert inside.mean() == pytest.approx(-3.0, abs=0.4)
        assert inside.std() == pytest.approx(3.0, rel=0.2)


def test_parts_of_a_mass_lie_where_they_belong():
    rng = np.random.default_rng(2)
    cyst = typical_lesion(Histology.CYST, rng)
    _, outline, echo, specular, loss = painted(cyst)
    core = outline.level_mm > 3
    assert echo[core].max() < -30
    assert loss[core].mean() < -0.2
    assert specular.max() > 5
    _, outline, echo, _, loss = painted(replace(PLAIN, calcification=True, heterogeneity_db=0.1))
    assert echo.max() == pytest.approx(17, abs=0.5)
    assert loss.max() > 3
    _, outline, echo, _, _ = painted(replace(PLAIN, halo=True, heterogeneity_db=0.1))
    rim = echo[np.abs(outline.level_mm - 1.6) < 0.3].mean()
    assert rim < echo[outline.level_mm > 4].mean() - 3
    _, outline, echo, _, _ = painted(replace(PLAIN, scar=True, heterogeneity_db=0.1))
    assert echo[outline.level_mm > 17].mean() > echo[np.abs(outline.level_mm - 5) < 1].mean() + 3


@pytest.mark.parametrize("histology", Histology)
def test_every_histology_has_a_typical_look(histology):
    rng = np.random.default_rng(4)
    looks = [typical_lesion(histology, rng) for _ in range(5)]
    assert all(10 <= look.size_mm <= 70 for look in looks)
    echo = np.mean([look.echo_db for look in looks])
    low, high = {
        Histology.CCRCC: (0, 7),
        Histology.PRCC: (-9, -4),
        Histology.CHRCC: (-4, 0),
        Histology.AML: (10, 16),
        Histology.ONCOCYTOMA: (-1, 2),
        Histology.CYST: (-60, -40),
    }[histology]
    assert low < echo < high
