"""Logistic regression on facts: agreement with scikit-learn, preparation on training rows only."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from renalkit.errors import StatisticUndefined
from renalkit.metrics.bootstrap import BootstrapPlan
from renalkit.metrics.classification import auc
from renalkit.metrics.logistic import (
    RIDGES,
    UNTUNED,
    TrainingRows,
    coefficient_intervals,
    design_of,
    fit_fact_model,
    fit_ridge_logistic,
    learn_columns,
    separated,
)


def drawn(n: int = 80, p: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p))
    return x, rng.random(n) < 1 / (1 + np.exp(-0.5 - x @ np.linspace(1.5, -1, p)))


@pytest.mark.parametrize("ridge", [0.01, 1.0, 100.0])
def test_coefficients_are_those_of_scikit_learn(ridge: float) -> None:
    x, truth = drawn()
    weights = np.linspace(0.5, 2, len(x))
    known = LogisticRegression(C=1 / ridge, tol=1e-12, max_iter=10_000, solver="newton-cholesky")
    known.fit(x, truth, sample_weight=weights)
    ours = fit_ridge_logistic(x, truth, ridge, weights)
    np.testing.assert_allclose(ours[1:], known.coef_[0], rtol=1e-6, atol=1e-8)
    assert ours[0] == pytest.approx(known.intercept_[0], rel=1e-6)


def test_separated_classes_have_finite_coefficients() -> None:
    x = np.arange(10.0)[:, None] - 4.5
    beta = fit_ridge_logistic(x, x[:, 0] > 0, 1.0)
    assert np.isfinite(beta).all()
    assert beta[1] > 0


@pytest.mark.parametrize(
    ("values", "truth", "expected"),
    [
        ([[1.0], [2.0], [3.0], [4.0]], [0, 0, 1, 1], True),
        ([[1.0], [2.0], [2.0], [4.0]], [0, 0, 1, 1], True),  # quasi-complete: a tie on the border
        ([[1.0], [3.0], [2.0], [4.0]], [0, 0, 1, 1], False),
        ([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.0]], [1, 1, 0, 0], False),
        ([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], [0, 0, 0, 1], True),
    ],
)
def test_separated_classes_are_found(
    values: list[list[float]], truth: list[int], expected: bool
) -> None:
    x, t = np.array(values), np.array(truth)
    assert separated(x, t) is expected
    assert separated(x * 1000, 1 - t) is expected
    # The smaller the penalty the larger the coefficients, without end where classes are separated.
    small, tiny = (np.abs(fit_ridge_logistic(x, t, ridge)[1:]).max() for ridge in (1e-4, 1e-8))
    assert bool(tiny > 1.5 * small) is expected


def test_intervals_of_coefficients_are_those_of_refitted_resamples() -> None:
    x, truth = drawn(60, 2, seed=3)
    patients = np.repeat(np.arange(30), 2)
    weights = np.full(60, 0.5)
    plan = BootstrapPlan(200, seed=4)
    found = coefficient_intervals((x, truth, weights), 0.7, patients, plan)
    whole = fit_ridge_logistic(x, truth, 0.7, weights)
    assert [e.value for e in found if e] == pytest.approx(whole[1:].tolist())
    rng = np.random.default_rng(9)
    refitted = []
    for _ in range(1000):
        counts = np.bincount(rng.integers(30, size=30), minlength=30)
        refitted.append(fit_ridge_logistic(x, truth, 0.7, weights * counts[patients])[1:])
    for k, e in enumerate(found):
        assert e is not None
        assert e.n == 30
        # Two independent bootstraps of the same data.
        assert (e.low, e.high) == pytest.approx(
            tuple(np.quantile(refitted, (0.025, 0.975), axis=0)[:, k]), abs=0.25
        )
    assert coefficient_intervals((x, truth, weights), 0.7, patients, plan) == found


def test_a_coefficient_without_enough_resamples_has_no_interval() -> None:
    x = np.arange(8.0)[:, None]
    rare = np.arange(8) == 3
    (found,) = coefficient_intervals((x, rare, np.ones(8)), 1.0, np.arange(8), BootstrapPlan(200))
    assert found is None


def test_a_strong_penalty_leaves_the_shares_of_the_classes() -> None:
    x, truth = drawn()
    beta = fit_ridge_logistic(x, truth, 1e9)
    assert np.abs(beta[1:]).max() < 1e-6
    assert 1 / (1 + np.exp(-beta[0])) == pytest.approx(truth.mean(), abs=1e-6)


def test_one_class_and_a_wrong_penalty_are_refused() -> None:
    x, _ = drawn(5)
    with pytest.raises(StatisticUndefined, match="one class"):
        fit_ridge_logistic(x, np.ones(5), 1.0)
    with pytest.raises(ValueError, match="above 0"):
        fit_ridge_logistic(x, np.arange(5) > 2, 0.0)


ROWS = [
    {"size": 10.0, "sex": "M"},
    {"size": 20.0, "sex": "M"},
    {"size": 60.0, "sex": "F"},
    {"sex": "M", "echo": "hypo"},
    {"size": 30.0, "echo": "hypo"},
]


def test_columns_are_learnt_from_training_rows() -> None:
    columns = learn_columns(ROWS, ["size", "sex", "echo", "nobody knows"])
    assert [c.name for c in columns] == [
        "size",
        "size unknown",
        "sex = F",
        "sex unknown",
        "echo unknown",
    ]
    size = columns[0]
    assert size.fill == 25, "the training median"
    design = design_of(ROWS, columns)
    np.testing.assert_allclose(design.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(design.std(axis=0), 1)
    new = design_of([{"sex": "never seen", "echo": "hyper"}], columns)[0]
    assert new[0] == (25 - size.mean) / size.sd
    assert new[2] == design[0, 2], "an unseen word is none of the others"


def test_new_rows_do_not_change_what_was_learnt() -> None:
    """L06: a test row scaled 1000 times moves its own column and nothing else."""
    rows = training(60)
    model = fit_fact_model(rows, ["a", "b"], 2)
    one, other = {"a": 1.0, "b": 2.0}, {"a": 1000.0, "b": 2.0}
    before = model.probabilities([one])
    both = model.probabilities([one, other])
    np.testing.assert_array_equal(before[0], both[0])
    assert fit_fact_model(rows, ["a", "b"], 2).coefficients.tolist() == model.coefficients.tolist()


def training(n: int, seed: int = 1, inner: bool = True) -> TrainingRows:
    x, truth = drawn(n, 2, seed)
    facts = [{"a": float(a), "b": float(b)} for a, b in x]
    parts = np.arange(n) % 5 if inner else None
    return TrainingRows(facts, truth.astype(np.intp), np.ones(n), parts)


def test_the_penalty_is_chosen_inside_and_a_model_of_noise_is_shrunk() -> None:
    model = fit_fact_model(training(200), ["a", "b"], 2)
    assert set(model.tried) == set(RIDGES)
    assert model.tried[model.ridge] == min(model.tried.values())
    rng = np.random.default_rng(5)
    noise = [{f"x{k}": float(v) for k, v in enumerate(row)} for row in rng.normal(size=(60, 12))]
    labels = (np.arange(60) % 2).astype(np.intp)
    names = [f"x{k}" for k in range(12)]
    shrunk = fit_fact_model(TrainingRows(noise, labels, np.ones(60), np.arange(60) // 12), names, 2)
    assert shrunk.ridge >= 10
    assert fit_fact_model(training(40, inner=False), ["a"], 2).ridge == UNTUNED


def test_it_ranks_new_patients() -> None:
    model = fit_fact_model(training(300), ["a", "b"], 2)
    new = training(300, seed=9)
    assert auc(new.labels, model.probabilities(new.facts)[:, 1]) > 0.75


def test_several_classes_sum_to_one_and_find_their_class() -> None:
    rng = np.random.default_rng(2)
    labels = np.arange(90) % 3
    facts = [{"a": float(3 * k + rng.normal()), "b": float(rng.normal())} for k in labels]
    rows = TrainingRows(facts, labels.astype(np.intp), np.ones(90), np.arange(90) // 18)
    found = fit_fact_model(rows, ["a", "b"], 3).probabilities(facts)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert (found[labels == 0].argmax(axis=1) == 0).mean() > 0.8
    assert (found[labels == 2].argmax(axis=1) == 2).mean() > 0.8


def test_nothing_known_gives_the_shares() -> None:
    rows = TrainingRows([{}] * 8, (np.arange(8) % 4 == 0).astype(np.intp), np.ones(8))
    model = fit_fact_model(rows, ["a"], 2)
    assert model.columns == ()
    np.testing.assert_allclose(model.probabilities([{}]), [[0.75, 0.25]], atol=1e-9)
