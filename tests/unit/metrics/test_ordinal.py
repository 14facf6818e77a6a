"""Ordered classes against scikit-learn, closed forms and hand counts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, cohen_kappa_score, mean_absolute_error

from renalkit.errors import StatisticUndefined
from renalkit.metrics.agreement import KappaWeights, cohen_kappa
from renalkit.metrics.bootstrap import BootstrapPlan, cluster_bootstrap, mean_of_rows
from renalkit.metrics.classification import auc, confusion_matrix, cumulative_splits
from renalkit.metrics.ordinal import QuadraticKappa, absolute_errors, ranked_probability_scores


def drawn(n: int = 200, k: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, k, n)
    scores = rng.dirichlet(np.ones(k), n) + 0.6 * np.eye(k)[truth]
    scores /= scores.sum(axis=1, keepdims=True)
    return truth, scores.argmax(axis=1), scores


@pytest.mark.parametrize("seed", range(5))
def test_kappa_and_error_are_those_of_scikit_learn(seed: int) -> None:
    truth, called, _ = drawn(seed=seed)
    known = cohen_kappa_score(truth, called, weights="quadratic")
    kappa = QuadraticKappa(truth, called, 4)
    assert kappa.prepare(np.arange(200), 200)(np.ones((1, 200)))[0] == pytest.approx(known)
    table = confusion_matrix(truth, called, 4)
    assert cohen_kappa(table, KappaWeights.QUADRATIC).estimate.value == pytest.approx(known)
    known_error = mean_absolute_error(truth, called)
    assert absolute_errors(truth, called, 4).mean() == pytest.approx(known_error)


def test_a_resample_is_the_kappa_of_the_rows_drawn() -> None:
    truth, called, _ = drawn(60)
    codes = np.repeat(np.arange(20), 3)
    counts = np.random.default_rng(1).integers(0, 4, 20)
    rows = np.repeat(np.arange(60), counts[codes])
    found = QuadraticKappa(truth, called, 4).prepare(codes, 20)(counts[None].astype(float))
    known = cohen_kappa_score(truth[rows], called[rows], weights="quadratic", labels=range(4))
    assert found[0] == pytest.approx(known)


def test_the_interval_counts_patients_and_not_rows() -> None:
    """The same rows, as twenty patients and as four hundred: fewer patients say less."""
    truth, called, _ = drawn(20)
    truth, called = np.repeat(truth, 20), np.repeat(called, 20)
    kappa, plan = QuadraticKappa(truth, called, 4), BootstrapPlan(n_boot=500)
    few = cluster_bootstrap(kappa, np.repeat(np.arange(20), 20), plan)
    many = cluster_bootstrap(kappa, np.arange(400), plan)
    assert few.value == pytest.approx(many.value)
    assert few.high - few.low > 3 * (many.high - many.low)


def test_one_class_for_all_has_no_kappa() -> None:
    ones = np.ones(6, dtype=int)
    found = QuadraticKappa(ones, ones, 4).prepare(np.arange(6), 6)(np.ones((1, 6)))
    assert np.isnan(found[0])
    with pytest.raises(StatisticUndefined):
        cluster_bootstrap(QuadraticKappa(ones, ones, 4), np.arange(6), BootstrapPlan(n_boot=200))


def test_ranked_probability_scores_by_hand() -> None:
    p = np.array([[0.1, 0.2, 0.3, 0.4]])
    # Cumulated 0.1, 0.3, 0.6 against steps at the truth.
    expected = {
        0: (0.9**2 + 0.7**2 + 0.4**2) / 3,
        1: (0.1**2 + 0.7**2 + 0.4**2) / 3,
        2: (0.1**2 + 0.3**2 + 0.4**2) / 3,
        3: (0.1**2 + 0.3**2 + 0.6**2) / 3,
    }
    for truth, value in expected.items():
        assert ranked_probability_scores(np.array([truth]), p)[0] == pytest.approx(value)


def test_of_two_classes_it_is_the_brier_score_and_of_calls_the_error() -> None:
    rng = np.random.default_rng(2)
    truth, p = rng.integers(0, 2, 50), rng.random(50)
    found = ranked_probability_scores(truth, np.stack([1 - p, p], axis=1)).mean()
    assert found == pytest.approx(brier_score_loss(truth, p))
    truth, called, _ = drawn()
    certain = np.eye(4)[called]
    scores = ranked_probability_scores(truth, certain)
    assert scores == pytest.approx(absolute_errors(truth, called, 4) / 3)


def test_the_expected_score_of_uniform_chances_is_in_closed_form() -> None:
    """All classes alike and chances 1/k: (k + 1) / (6 k)."""
    for k in (2, 3, 4, 7):
        truth = np.arange(k)
        uniform = np.full((k, k), 1 / k)
        found = ranked_probability_scores(truth, uniform).mean()
        assert found == pytest.approx((k + 1) / (6 * k))


@given(st.lists(st.floats(0.01, 1), min_size=4, max_size=4), st.integers(0, 3))
def test_turning_the_order_changes_nothing_and_the_truth_is_best(
    weights: list[float], truth: int
) -> None:
    p = np.array([weights]) / sum(weights)
    one = ranked_probability_scores(np.array([truth]), p)[0]
    assert one == pytest.approx(ranked_probability_scores(np.array([3 - truth]), p[:, ::-1])[0])
    assert 0 <= one <= 1
    # Proper: over truths drawn by p, no other statement does better than p.
    own = sum(p[0, c] * ranked_probability_scores(np.array([c]), p)[0] for c in range(4))
    other = np.full((1, 4), 0.25)
    beside = sum(p[0, c] * ranked_probability_scores(np.array([c]), other)[0] for c in range(4))
    assert own <= beside + 1e-12


def test_each_cut_is_an_auc_of_summed_chances() -> None:
    truth, _, scores = drawn()
    for k, (above, score) in enumerate(cumulative_splits(truth, scores), start=1):
        assert auc(above, score) == pytest.approx(auc(truth >= k, scores[:, k:].sum(axis=1)))


@pytest.mark.parametrize(
    ("truth", "p", "words"),
    [
        ([], np.zeros((0, 3)), "of shape"),
        ([0], [0.5], "of shape"),
        ([0, 1], [[1.0, 0.0]], "of shape"),
        ([3], [[0.2, 0.3, 0.5]], "outside the classes"),
        ([0], [[0.2, 0.3, 0.4]], "no probabilities"),
        ([0], [[1.2, -0.2, 0.0]], "no probabilities"),
        ([0], [[np.nan, 0.5, 0.5]], "no probabilities"),
    ],
)
def test_other_input_is_refused(truth, p, words) -> None:
    with pytest.raises(StatisticUndefined, match=words):
        ranked_probability_scores(np.array(truth), np.array(p))


def test_calls_outside_the_classes_are_refused() -> None:
    with pytest.raises(StatisticUndefined):
        absolute_errors(np.array([0, 1]), np.array([0, 4]), 4)
    assert (
        cluster_bootstrap(
            mean_of_rows(absolute_errors(np.array([0, 3]), np.array([3, 0]), 4)),
            np.array(["a", "b"]),
            BootstrapPlan(n_boot=200),
        ).value
        == 3
    )
