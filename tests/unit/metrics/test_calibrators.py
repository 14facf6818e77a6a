"""Maps of scores: known answers, simulated populations, and words where patients are too few."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy import optimize, special
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from renalkit.errors import StatisticUndefined
from renalkit.metrics.calibration import recalibration
from renalkit.metrics.calibrators import (
    NEEDS,
    Calibration,
    effective_number_weights,
    fit_calibrator,
    focal_posterior,
    imposed_shares,
    isotonic,
    with_shares,
)

T, P, ISO = Calibration.TEMPERATURE, Calibration.PLATT, Calibration.ISOTONIC


def two(p: np.ndarray) -> np.ndarray:
    return np.stack([1 - p, p], axis=1)


# ---------------------------------------------------------------- the balance of training


def test_imposed_shares_by_hand() -> None:
    images = (3659, 6135)
    assert imposed_shares(images, "plain") == pytest.approx(np.array(images) / sum(images))
    assert imposed_shares(images, "balanced").tolist() == [0.5, 0.5]
    assert imposed_shares(images, "oversample").tolist() == [0.5, 0.5]
    # P2: the class-balanced sampler and the class-balanced loss, systems.md.
    both = imposed_shares(images, "balanced", (1.1989, 0.8011))
    assert both == pytest.approx([1.1989 / 2, 0.8011 / 2])
    odds_true, odds_imposed = 6135 / 3659, both[1] / both[0]
    assert odds_true / odds_imposed == pytest.approx(2.51, abs=0.01), "corrected twice"
    assert imposed_shares(images, "plain", [1 / n for n in images]) == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize(
    ("images", "weights"),
    [((3, 0), None), ((3,), None), ((3, 4), (1.0, 0.0)), ((3, 4), (1.0,)), ((3, 4), (1, np.nan))],
)
def test_shares_that_cannot_be_are_refused(images, weights) -> None:
    with pytest.raises(StatisticUndefined, match="of the classes"):
        imposed_shares(images, "balanced", weights)


def test_other_shares_by_hand_and_back() -> None:
    p = np.array([[0.2, 0.5, 0.3], [0.9, 0.05, 0.05]])
    imposed, wanted = [1 / 3] * 3, [0.5, 0.25, 0.25]
    found = with_shares(p, imposed, wanted)
    assert found[0] == pytest.approx(np.array([0.1, 0.125, 0.075]) / 0.3)
    assert with_shares(found, wanted, imposed) == pytest.approx(p)
    assert with_shares(p, wanted, wanted) == pytest.approx(p)


@pytest.mark.parametrize(
    ("sampling", "weigh"), [("balanced", True), ("plain", True), ("balanced", False)]
)
def test_double_rebalancing_is_undone_in_a_simulated_population(sampling: str, weigh: bool) -> None:
    """f(x | c) is normal, so the true posterior is known; the model is a logistic regression
    trained with the sampler's draws and the loss's weights."""
    rng = np.random.default_rng(0)
    n = np.array([18_000, 6_000])
    x = np.concatenate([rng.normal(0, 1, n[0]), rng.normal(1.5, 1, n[1])])
    y = np.repeat([0, 1], n)
    weights = np.array([0.4, 1.6]) if weigh else np.ones(2)
    drawn = np.arange(y.size)
    if sampling == "balanced":
        drawn = np.concatenate([rng.choice(np.flatnonzero(y == c), 20_000) for c in (0, 1)])
    model = LogisticRegression(C=1e6).fit(x[drawn, None], y[drawn], weights[y[drawn]])
    new_y = (rng.random(20_000) < 0.25).astype(int)
    new_x = rng.normal(1.5 * new_y, 1)
    said = model.predict_proba(new_x[:, None])
    shares = imposed_shares(n, sampling, weights)
    found = with_shares(said, shares, [0.75, 0.25])
    posterior = special.expit(1.5 * new_x - 1.5**2 / 2 + np.log(0.25 / 0.75))
    assert np.abs(found[:, 1] - posterior).max() < 0.03
    large = recalibration(new_y, found[:, 1]).in_the_large
    assert abs(large.value) < 0.06
    before = recalibration(new_y, said[:, 1]).in_the_large
    assert before.high < -0.5, "without correction the disease is predicted far too often"


def focal_minimum(posterior: np.ndarray, gamma: float, per_logit: bool) -> np.ndarray:
    """Softmax scores of the network that minimises the expected focal loss at this posterior."""

    def loss(z: np.ndarray) -> float:
        if per_logit:
            yes = special.expit(-z) ** gamma * np.logaddexp(0, -z)
            no = special.expit(z) ** gamma * np.logaddexp(0, z)
            return float((posterior * yes + (1 - posterior) * no).sum())
        log_q = special.log_softmax(z)
        return float(
            -(posterior * (1 - np.exp(log_q)) ** gamma * log_q).sum() + 1e-9 * (z**2).sum()
        )

    found = optimize.minimize(
        loss, np.zeros(posterior.size), method="BFGS", options={"gtol": 1e-10}
    )
    return special.softmax(found.x)


@pytest.mark.parametrize("per_logit", [False, True])
@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("posterior", [(0.3, 0.7), (0.05, 0.95), (0.5, 0.3, 0.15, 0.05)])
def test_what_a_focal_loss_hides_is_found_again(posterior, gamma, per_logit) -> None:
    known = np.array(posterior)
    said = focal_minimum(known, gamma, per_logit)
    assert focal_posterior([said], gamma, per_logit)[0] == pytest.approx(known, abs=2e-4)
    if gamma == 2.0 and not per_logit:
        assert said.max() < known.max() - 0.05, "it says less than it knows"


def test_the_double_balance_of_p2_is_undone_in_a_simulated_population() -> None:
    """Class-balanced draws, class-balanced weights and a sigmoid focal loss, as P2 has them."""
    rng = np.random.default_rng(5)
    n = np.array([3659, 6135])
    x = np.concatenate([rng.normal(0, 1, n[0]), rng.normal(1.5, 1, n[1])])
    y = np.repeat([0, 1], n)
    drawn = np.concatenate([rng.choice(np.flatnonzero(y == c), 10_000) for c in (0, 1)])
    weights = effective_number_weights(n.tolist(), 0.9999)
    assert weights == pytest.approx([1.1989, 0.8011], abs=1e-4)
    sign, w = 2.0 * y[drawn] - 1, weights[y[drawn]]

    def loss(b: np.ndarray) -> float:
        u = sign * (b[0] + b[1] * x[drawn])
        return float((w * special.expit(-u) ** 2 * np.logaddexp(0, -u)).mean())

    b = optimize.minimize(loss, np.zeros(2)).x
    new_y = (rng.random(20_000) < 0.55).astype(int)
    new_x = rng.normal(1.5 * new_y, 1)
    said = two(special.expit(2 * (b[0] + b[1] * new_x)))  # softmax of the logits z and -z
    shares = imposed_shares(n.tolist(), "balanced", weights)
    found = with_shares(focal_posterior(said, 2.0, True), shares, [0.45, 0.55])
    posterior = special.expit(1.5 * new_x - 1.5**2 / 2 + np.log(0.55 / 0.45))
    assert np.abs(found[:, 1] - posterior).max() < 0.03
    assert np.abs(with_shares(said, shares, [0.45, 0.55])[:, 1] - posterior).max() > 0.05
    assert np.abs(said[:, 1] - posterior).max() > 0.15


# ---------------------------------------------------------------- maps


def overdone(
    n: int, slope: float, seed: int = 0, shift: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Truth and scores whose logit is `slope` times the true one, plus a shift."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(0, 1.5, n)
    truth = (rng.random(n) < special.expit(logit)).astype(int)
    return truth, two(special.expit(slope * logit + shift))


def test_a_temperature_is_found_and_undone() -> None:
    truth, p = overdone(20_000, 2.5)
    found = fit_calibrator(truth, p, T)
    assert 1 / found.slope == pytest.approx(2.5, rel=0.03)
    assert recalibration(truth, found.apply(p)[:, 1]).slope.value == pytest.approx(1, abs=0.01)
    assert np.array_equal(np.argsort(found.apply(p)[:, 1]), np.argsort(p[:, 1])), "no rank changes"


def test_platt_is_a_logistic_regression_on_the_logit_with_its_targets() -> None:
    truth, p = overdone(400, 1.7, shift=0.8)
    found = fit_calibrator(truth, p, P)
    x = special.logit(p[:, 1])
    plus, minus = (truth == 1).sum(), (truth == 0).sum()
    t = np.where(truth == 1, (plus + 1) / (plus + 2), 1 / (minus + 2))

    def loss(b: np.ndarray) -> float:
        z = b[0] + b[1] * x
        return float((np.logaddexp(0, z) - t * z).sum())

    known = optimize.minimize(
        loss, [0.0, 1.0], method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-12}
    ).x
    assert found.slope == pytest.approx(known[1], abs=1e-5)
    assert found.biases[1] - found.biases[0] == pytest.approx(known[0], abs=1e-5)
    applied = special.expit(known[0] + known[1] * x)
    assert found.apply(p)[:, 1] == pytest.approx(applied, abs=1e-5)


def test_several_classes_find_their_slope_and_biases() -> None:
    rng = np.random.default_rng(3)
    logs = rng.normal(0, 1.5, (30_000, 4))
    truth = np.array([rng.choice(4, p=q) for q in special.softmax(logs, axis=1)])
    wrong = special.softmax(2 * logs + np.array([0.0, 1.0, -1.0, 0.5]), axis=1)
    found = fit_calibrator(truth, wrong, P)
    assert found.slope == pytest.approx(0.5, abs=0.02)
    expected = -np.array([0.0, 1.0, -1.0, 0.5]) / 2
    assert found.biases == pytest.approx(expected - expected.mean(), abs=0.04)
    assert found.apply(wrong) == pytest.approx(special.softmax(logs, axis=1), abs=0.03)
    assert found.apply(wrong).sum(axis=1) == pytest.approx(1)


def test_isotonic_is_that_of_scikit_learn() -> None:
    truth, p = overdone(300, 2.0)
    rounded = np.round(p[:, 1], 2)
    at, height = isotonic(rounded, truth)
    known = IsotonicRegression(out_of_bounds="clip").fit(rounded, truth)
    assert height == pytest.approx(known.predict(at))
    assert all(a <= b for a, b in pairwise(height))
    found = fit_calibrator(truth, two(rounded), ISO)
    new = np.linspace(0, 1, 101)
    held = np.clip(known.predict(new), 1 / 302, 301 / 302)
    assert np.abs(found.apply(two(new))[:, 1] - held).max() < 1 / 302 + 1e-9
    assert found.apply(two(new)).min() > 0


def test_scores_that_separate_the_classes_stay_short_of_certainty() -> None:
    truth = np.repeat([0, 1], 120)
    p = two(np.where(truth == 1, 0.6, 0.4) + np.linspace(0, 0.01, 240))
    for kind in (T, P, ISO):
        found = fit_calibrator(truth, p, kind)
        assert found.kind is kind
        applied = found.apply(p)[:, 1]
        assert applied.min() >= 1 / 242 - 1e-9
        assert applied.max() <= 1 - 1 / 242 + 1e-9


def test_sure_errors_are_finite() -> None:
    truth, p = overdone(240, 1.0)
    p[:3] = [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]
    for kind in (T, P, ISO):
        assert np.isfinite(fit_calibrator(truth, p, kind).apply(p)).all()


@pytest.mark.parametrize(
    ("n", "of_a_class", "asked", "used"),
    [
        (200, 40, ISO, ISO),
        (199, 80, ISO, P),
        (300, 39, ISO, P),
        (40, 10, P, P),
        (39, 10, P, T),
        (60, 9, P, T),
        (10, 2, T, T),
        (9, 4, T, Calibration.NONE),
        (300, 1, ISO, Calibration.NONE),
        (60, 20, Calibration.NONE, Calibration.NONE),
    ],
)
def test_few_patients_get_a_simpler_map_with_words(n, of_a_class, asked, used) -> None:
    truth = np.array([1] * of_a_class + [0] * (n - of_a_class))
    rng = np.random.default_rng(1)
    p = two(np.clip(rng.normal(0.35 + 0.3 * truth, 0.2), 0.02, 0.98))
    found = fit_calibrator(truth, p, asked)
    assert (found.kind, found.asked, found.n) == (used, asked, n)
    assert (found.note == "") == (used is asked)
    if used is not asked:
        needs = NEEDS[asked]
        words = f"{asked.value}: needs {needs.patients} validation patients, {needs.of_a_class} of"
        assert words in found.note
    if used is Calibration.NONE:
        assert found.apply(p) is p


def test_isotonic_of_several_classes_and_falling_scores_step_down() -> None:
    rng = np.random.default_rng(2)
    truth = np.repeat([0, 1, 2], 80)
    p = rng.dirichlet((1, 1, 1), 240) * 0.5 + 0.5 * np.eye(3)[truth]
    found = fit_calibrator(truth, p, ISO)
    assert found.kind is P
    assert found.note == "isotonic: is for two classes"
    truth, p = overdone(60, -1.0)
    found = fit_calibrator(truth, p, P)
    assert found.kind is Calibration.NONE
    assert found.note.count("do not rise with the class") == 2


@pytest.mark.parametrize(
    ("truth", "p", "words"),
    [
        ([0, 1], [[0.5, 0.5]], "of shape"),
        ([0, 1], [0.5, 0.5], "of shape"),
        ([0, 2], [[0.5, 0.5], [0.5, 0.5]], "no class"),
        ([0, 1], [[0.5, np.nan], [0.5, 0.5]], "not finite"),
    ],
)
def test_other_input_is_refused(truth, p, words) -> None:
    with pytest.raises(StatisticUndefined, match=words):
        fit_calibrator(np.array(truth), np.array(p), T)
