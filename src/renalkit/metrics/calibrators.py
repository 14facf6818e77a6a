"""Making scores mean what they say: undoing a class balance that training imposed, and maps fitted
on validation patients.

Probabilities (n, k) of k classes, rows summing to 1. Maps are fitted on patients of the validation
part of a fold and applied to its tested patients; how well that worked is measured by
`renalkit.metrics.calibration`.

Sources: Saerens, Latinne and Decaestecker 2002, Neural Comput 14:21 (other shares of classes);
Charoenphakdee, Vongkulbhisal, Chairatanakul and Sugiyama 2021, CVPR (focal loss);
Platt 1999, in Advances in Large Margin Classifiers (slope, intercept and targets that are never 0
or 1); Guo et al. 2017, ICML (temperature); Alexandari et al. 2020, ICML (slope with a bias per
class); Zadrozny and Elkan 2002, KDD (isotonic); Niculescu-Mizil and Caruana 2005, ICML (isotonic
regression needs many cases).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from renalkit.errors import StatisticUndefined
from renalkit.metrics.classification import AnyArray, Floats

LEAST_SCORE = 1e-12
"""Scores below it count as it: no finite slope moves a score of exactly 0."""

# ------------------------------------------------------------------ the balance of training


def imposed_shares(
    images: Sequence[float],
    sampling: Literal["plain", "oversample", "balanced"],
    loss_weights: Sequence[float] | None = None,
) -> Floats:
    """(k,) shares of the classes that training behaves as if it had seen.

    Let images n_c of class c be drawn with probability s_c (n_c / n for 'plain', 1 / k for
    'balanced' and 'oversample') and weigh w_c in the loss. The mean loss is a sum over c of
    s_c w_c E[-log q_c(x) | c]; pointwise its minimum is q_c(x) proportional to s_c w_c f(x | c),
    which is the posterior of a population with shares proportional to s_c w_c. So for
    cross-entropy and its sums over cuts; of a focal loss first take `focal_posterior`.

    Raises: StatisticUndefined for a class without images or weights that are not above 0.
    """
    n = np.asarray(images, dtype=np.float64)
    w = np.ones_like(n) if loss_weights is None else np.asarray(loss_weights, dtype=np.float64)
    if (
        n.size < 2
        or w.shape != n.shape
        or not (n > 0).all()
        or not (np.isfinite(w) & (w > 0)).all()
    ):
        raise StatisticUndefined(
            f"images {list(images)} and weights {loss_weights} of the classes",
            where="prior correction",
            expected="two or more classes, each with images and a weight above 0",
        )
    drawn = n if sampling == "plain" else np.ones_like(n)
    return drawn * w / float((drawn * w).sum())


def effective_number_weights(images: Sequence[float], beta: float) -> Floats:
    """(k,) weights (1 - beta) / (1 - beta^n_c) of a class-balanced loss, scaled to sum to k.

    Cui et al. 2019, CVPR, eq. 8.

    >>> effective_number_weights((3659, 6135), 0.9999).round(4).tolist()
    [1.1989, 0.8011]
    """
    raw = -1 / np.expm1(np.asarray(images, dtype=np.float64) * np.log(beta))
    return raw * len(raw) / float(raw.sum())


def focal_posterior(probabilities: npt.ArrayLike, gamma: float, per_logit: bool) -> Floats:
    """(n, k) class posterior behind the softmax scores (n, k) of a network trained by a focal loss.

    A focal loss is not proper: its minimum states less than the posterior. Of a loss of the softmax
    P_c is proportional to q_c / ((1 - q_c)^g - g (1 - q_c)^(g - 1) q_c log q_c), g = gamma
    (Charoenphakdee et al. 2021, CVPR). per_logit: of a loss of every logit z_c against
    its own yes or no, that holds for each sigmoid by itself; the softmax leaves z_c open by a shift
    for all classes, found from the posteriors' sum of 1. gamma 0 changes nothing in the first case.
    """
    q = np.clip(np.asarray(probabilities, dtype=np.float64), LEAST_SCORE, 1 - LEAST_SCORE)
    if not per_logit:
        found = _unfocused(q, 1 - q, gamma)
        return found / found.sum(axis=1, keepdims=True)
    z = np.log(q)

    def alone(shift: Floats) -> Floats:
        v, rest = special.expit(z + shift), special.expit(-z - shift)
        yes, no = _unfocused(v, rest, gamma), _unfocused(rest, v, gamma)
        return yes / (yes + no)

    low, high = np.full((len(z), 1), -60.0), np.full((len(z), 1), 60.0)
    for _ in range(60):
        middle = (low + high) / 2
        above = alone(middle).sum(axis=1, keepdims=True) > 1
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    found = alone((low + high) / 2)
    return found / found.sum(axis=1, keepdims=True)


def _unfocused(v: Floats, rest: Floats, gamma: float) -> Floats:
    """v / phi(v) with rest = 1 - v."""
    return v / (rest ** (gamma - 1) * (rest - gamma * v * np.log(v)))


def with_shares(
    probabilities: npt.ArrayLike, imposed: npt.ArrayLike, wanted: npt.ArrayLike
) -> Floats:
    """(n, k) scores for a population with the wanted shares (k,), from a model of the imposed ones.

    p'_c is proportional to p_c wanted_c / imposed_c: the odds of two classes are multiplied by one
    factor, and f(x | c) stays (Saerens et al. 2002). Equal shares change nothing.

    >>> with_shares([[0.5, 0.5]], [0.5, 0.5], [0.2, 0.8]).tolist()
    [[0.2, 0.8]]
    """
    factors = np.asarray(wanted, dtype=np.float64) / np.asarray(imposed, dtype=np.float64)
    odds = np.asarray(probabilities, dtype=np.float64) * factors
    return odds / odds.sum(axis=1, keepdims=True)


# ------------------------------------------------------------------ maps


class Calibration(StrEnum):
    """How scores are mapped; the later ones bend more and need more patients."""

    NONE = "none"
    TEMPERATURE = "temperature"
    PLATT = "platt"
    ISOTONIC = "isotonic"


@dataclass(frozen=True, slots=True)
class Needs:
    """Least validation patients, in all and of each class, for a map to be fitted."""

    patients: int
    of_a_class: int


NEEDS = {
    Calibration.TEMPERATURE: Needs(10, 2),
    Calibration.PLATT: Needs(40, 10),
    Calibration.ISOTONIC: Needs(200, 40),
}
"""Below these a map costs more in chance than it gains: `validation/simulate_patient_scores.py`."""


@dataclass(frozen=True, slots=True)
class Calibrator:
    """A fitted map of scores. apply: p'_c proportional to p_c^slope exp(bias_c), or steps.

    slope, biases: of temperature (slope 1 / T, biases 0) and Platt (biases add to 0). at, height:
    of isotonic regression of two classes: scores of class 1 and what they become, with straight
    lines between and the ends held outside. n: validation patients. asked: what was wanted.
    note: why it is not that, "" where it is.
    """

    kind: Calibration
    asked: Calibration
    n: int
    slope: float = 1.0
    biases: tuple[float, ...] = ()
    at: tuple[float, ...] = ()
    height: tuple[float, ...] = ()
    note: str = ""

    def apply(self, probabilities: AnyArray) -> Floats:
        """(n, k) calibrated scores, rows summing to 1."""
        p = np.asarray(probabilities, dtype=np.float64)
        if self.kind is Calibration.NONE:
            return p
        if self.kind is Calibration.ISOTONIC:
            one = np.interp(p[:, 1], self.at, self.height)
            return np.stack([1 - one, one], axis=1)
        return special.softmax(_line(_logs(p), self.slope, np.array(self.biases)), axis=1)


def fit_calibrator(truth: AnyArray, probabilities: AnyArray, asked: Calibration) -> Calibrator:
    """The map asked for, or the nearest simpler one that these patients suffice for.

    truth (n,) classes 0 .. k-1, probabilities (n, k), one row per validation patient. Steps down
    from isotonic to Platt to temperature to none while patients are too few (`NEEDS`), the classes
    are more than two (isotonic), or the slope is not above 0: scores that fall with the class are
    no matter of calibration. The note says why.

    The slope and biases maximise the likelihood with Platt's targets, for several classes
    (n_c + 1) / (n_c + k) for the true one of n_c patients and 1 / (n_c + k) for each other: finite
    even where the scores separate the classes. Isotonic heights are held within 1 / (n + 2) and
    (n + 1) / (n + 2), for the same reason.

    Raises: StatisticUndefined for other shapes, truths outside the classes, or scores that are not
    finite.
    """
    t, p = _checked(truth, probabilities)
    least = int(np.bincount(t, minlength=p.shape[1]).min())
    notes: list[str] = []
    steps = list(Calibration)
    for kind in reversed(steps[1 : steps.index(asked) + 1]):
        needs = NEEDS[kind]
        why = ""
        if len(t) < needs.patients or least < needs.of_a_class:
            why = (
                f"needs {needs.patients} validation patients, {needs.of_a_class} of each class; "
                f"there are {len(t)}, {least} of the rarest"
            )
        elif kind is Calibration.ISOTONIC and p.shape[1] != 2:
            why = "is for two classes"
        else:
            found = _fitted(t, p, kind, asked)
            if kind is Calibration.ISOTONIC or found.slope > 0:
                return replace(found, note="; ".join(notes))
            why = "the scores of validation patients do not rise with the class"
        notes.append(f"{kind.value}: {why}")
    return Calibrator(Calibration.NONE, asked, len(t), note="; ".join(notes))


def _checked(truth: AnyArray, probabilities: AnyArray) -> tuple[npt.NDArray[np.intp], Floats]:
    t, p = np.asarray(truth, dtype=np.int64), np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 2 or p.shape[1] < 2 or t.shape != p.shape[:1]:
        raise StatisticUndefined(
            f"truths of shape {t.shape} and probabilities of shape {p.shape}",
            where="calibration",
            expected="(patients,) and (patients, classes), two or more classes",
        )
    if not np.isfinite(p).all() or (t.size and not ((t >= 0) & (t < p.shape[1])).all()):
        raise StatisticUndefined(
            "scores that are not finite, or truths that are no class",
            where="calibration",
            expected=f"classes 0 to {p.shape[1] - 1} and finite scores",
        )
    return t.astype(np.intp), p


def _fitted(
    t: npt.NDArray[np.intp], p: Floats, kind: Calibration, asked: Calibration
) -> Calibrator:
    if kind is Calibration.ISOTONIC:
        at, height = isotonic(p[:, 1], (t == 1).astype(np.float64))
        n = len(t)
        held = np.clip(height, 1 / (n + 2), (n + 1) / (n + 2))
        return Calibrator(kind, asked, n, at=tuple(at.tolist()), height=tuple(held.tolist()))
    n_classes = p.shape[1]
    counts = np.bincount(t, minlength=n_classes)[t][:, None]
    targets = np.where(
        np.arange(n_classes) == t[:, None], (counts + 1) / (counts + n_classes),
        1 / (counts + n_classes),
    )  # fmt: skip
    logs = _logs(p)
    free = n_classes - 1 if kind is Calibration.PLATT else 0
    biases_of = np.vstack([np.zeros((1, free)), np.eye(free)]) if free else None

    def cost(x: Floats) -> tuple[float, Floats]:
        biases = np.zeros(n_classes) if biases_of is None else biases_of @ x[1:]
        line = _line(logs, x[0], biases)
        log_q = special.log_softmax(line, axis=1)
        error = np.exp(log_q) - targets
        slope = float((error * logs).sum())
        rest = error.sum(axis=0)[1:] if free else np.zeros(0)
        return float(-(targets * log_q).sum()), np.concatenate([[slope], rest])

    # Convex and smooth: any descent ends at the one minimum.
    start = np.concatenate([[1.0], np.zeros(free)])
    found = optimize.minimize(
        cost, start, jac=True, method="BFGS", options={"gtol": 1e-9, "maxiter": 1000}
    ).x
    biases = np.zeros(n_classes) if biases_of is None else biases_of @ found[1:]
    biases = biases - biases.mean()
    return Calibrator(kind, asked, len(t), float(found[0]), tuple(biases.tolist()))


def _logs(p: Floats) -> Floats:
    return np.log(np.maximum(p, LEAST_SCORE))


def _line(logs: Floats, slope: float, biases: Floats) -> Floats:
    return slope * logs + biases


def isotonic(scores: npt.ArrayLike, values: npt.ArrayLike) -> tuple[Floats, Floats]:
    """The rising step function nearest to the values by squares: its scores (m,) and heights (m,).

    scores, values (n,); equal scores are one. Pool adjacent violators (Ayer et al. 1955, Ann Math
    Stat 26:641).

    >>> [a.tolist() for a in isotonic([1, 2, 3, 4], [0, 1, 0, 1])]
    [[1.0, 2.0, 3.0, 4.0], [0.0, 0.5, 0.5, 1.0]]
    """
    s, v = np.asarray(scores, dtype=np.float64), np.asarray(values, dtype=np.float64)
    at, place = np.unique(s, return_inverse=True)
    blocks: list[tuple[float, int, int]] = []
    """Sum, number of rows, number of distinct scores."""
    for total, rows in zip(np.bincount(place, weights=v), np.bincount(place), strict=True):
        blocks.append((float(total), int(rows), 1))
        while len(blocks) > 1 and blocks[-2][0] * blocks[-1][1] >= blocks[-1][0] * blocks[-2][1]:
            second, first = blocks.pop(), blocks.pop()
            blocks.append((first[0] + second[0], first[1] + second[1], first[2] + second[2]))
    height = np.repeat([t / n for t, n, _ in blocks], [m for _, _, m in blocks])
    return at, height
