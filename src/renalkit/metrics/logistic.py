"""How far do size, findings and a patient's file get without any picture? Logistic regression.

Facts become columns by a rule that is learned on training patients and then only applied: numbers
are filled with the training median where unknown (a second column says that they were) and
standardised; categories have a column per value. The penalty is chosen by cross-validation inside
the training patients, preparation included. Several classes: one model each against the rest, their
probabilities scaled to sum to 1.

Source: le Cessie and van Houwelingen 1992, Appl Stat 41:191 (ridge estimators in logistic
regression). Compared with scikit-learn in the tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from renalkit.errors import StatisticUndefined
from renalkit.metrics.bootstrap import BootstrapPlan, Codes, Evaluate, resample
from renalkit.metrics.classification import AnyArray, Floats
from renalkit.metrics.inference import Estimate

Facts = Mapping[str, float | str]
"""What is known of one row, by name; what is unknown is not there."""

RIDGES = tuple(10 ** (k / 2) for k in range(-4, 9))
"""Penalties that are tried: 0.01 to 10,000 in steps of the root of ten."""

UNTUNED = 1.0
"""The penalty where there are too few patients to choose one."""

_CLIP = 1e-6  # probabilities nearer to 0 or 1 count as this in the log loss


# ------------------------------------------------------------------ from facts to columns


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the design: what it reads, and how it is standardised.

    level: of a category; None for a number. unknown: the column that says a fact is not known.
    fill: what takes the place of an unknown number.
    """

    fact: str
    level: str | None
    unknown: bool
    fill: float
    mean: float
    sd: float

    @property
    def name(self) -> str:
        """For a table of coefficients.

        >>> Column("sex", "F", False, 0.0, 0.5, 0.5).name
        'sex = F'
        """
        if self.unknown:
            return f"{self.fact} unknown"
        return self.fact if self.level is None else f"{self.fact} = {self.level}"

    def raw(self, rows: Sequence[Facts]) -> Floats:
        """Values (n,) before standardisation."""
        if self.unknown:
            return np.array([float(self.fact not in row) for row in rows])
        if self.level is not None:
            return np.array([float(row.get(self.fact) == self.level) for row in rows])
        return np.array([float(row.get(self.fact, self.fill)) for row in rows])

    def standardised(self, rows: Sequence[Facts]) -> Floats:
        return (self.raw(rows) - self.mean) / self.sd


def learn_columns(rows: Sequence[Facts], facts: Sequence[str]) -> tuple[Column, ...]:
    """Columns for these facts from training rows; what does not vary there has none.

    The most frequent value of a category has no column: it is what the others are compared with.
    """
    found: list[Column] = []
    for fact in facts:
        known = [row[fact] for row in rows if fact in row]
        if not known:
            continue
        if all(isinstance(v, float) for v in known):
            middle = float(np.median(np.array(known, dtype=np.float64)))
            wanted = [Column(fact, None, False, middle, 0.0, 1.0)]
        else:
            words = [str(v) for v in known]
            levels = sorted(set(words), key=lambda w: (-words.count(w), w))[1:]
            wanted = [Column(fact, level, False, 0.0, 0.0, 1.0) for level in levels]
        wanted.append(Column(fact, None, True, 0.0, 0.0, 1.0))
        for column in wanted:
            raw = column.raw(rows)
            sd = float(raw.std())
            if sd > 0:
                found.append(
                    Column(
                        column.fact,
                        column.level,
                        column.unknown,
                        column.fill,
                        float(raw.mean()),
                        sd,
                    )
                )
    return tuple(found)


def design_of(rows: Sequence[Facts], columns: Sequence[Column]) -> Floats:
    """Standardised values (n, p)."""
    if not columns:
        return np.zeros((len(rows), 0))
    return np.stack([c.standardised(rows) for c in columns], axis=1)


# ------------------------------------------------------------------ the fit


def fit_ridge_logistic(
    design: Floats, truth: AnyArray, ridge: float, weights: AnyArray | None = None
) -> Floats:
    """Intercept and coefficients (1 + p,) of the model with the least penalised loss.

    design (n, p); truth (n,) 0/1; weights (n,) of rows, 1 each when not given. Loss: sum of weights
    times log(1 + exp(-eta)) for positive, log(1 + exp(eta)) for negative rows, plus ridge / 2 times
    the squared length of the coefficients; the intercept is free. Newton's method, halving steps.

    Raises: StatisticUndefined with one class only; ValueError for a ridge that is not above 0.
    """
    if not ridge > 0:
        raise ValueError(f"ridge {ridge}: expected above 0")
    t = np.asarray(truth, dtype=bool)
    w = np.ones(t.size) if weights is None else np.asarray(weights, dtype=np.float64)
    if bool(t.all()) or not bool(t.any()):
        raise StatisticUndefined(
            "one class only", where="logistic regression", expected="patients of both classes"
        )
    return _fits(_with_intercept(design), t, w[None], ridge)[0]


def _with_intercept(design: Floats) -> Floats:
    return np.concatenate([np.ones((len(design), 1)), np.asarray(design, np.float64)], axis=1)


def _fits(x: Floats, t: npt.NDArray[np.bool_], weights: Floats, ridge: float) -> Floats:
    """Coefficients (B, q) of B fits to x (n, q) and t (n,) with weights (B, n) of the rows."""
    penalty = np.full(x.shape[1], ridge)
    penalty[0] = 0.0
    sign = np.where(t, -1.0, 1.0)
    products = (x[:, :, None] * x[:, None, :]).reshape(len(x), -1)
    beta = np.zeros((len(weights), x.shape[1]))

    def loss(b: Floats) -> Floats:
        return (weights * np.logaddexp(0, sign * (b @ x.T))).sum(axis=1) + b**2 @ penalty / 2

    for _ in range(100):
        fitted = special.expit(beta @ x.T)
        gradient = (weights * (t - fitted)) @ x - penalty * beta
        curvature = (weights * fitted * (1 - fitted)) @ products
        curvature = curvature.reshape(-1, x.shape[1], x.shape[1]) + np.diag(penalty)
        step = np.linalg.solve(curvature, gradient[:, :, None])[:, :, 0]
        before = loss(beta)
        while True:
            large = np.abs(step).max(axis=1) > 1e-12
            worse = large & (loss(beta + step) > before + 1e-12)
            if not worse.any():
                break
            step[worse] /= 2
        beta = beta + step
        size = np.maximum(1.0, np.abs(beta).max(axis=1))
        if bool((np.abs(step).max(axis=1) < 1e-10 * size).all()):
            break
    return beta


def separated(design: Floats, truth: AnyArray) -> bool:
    """Whether a linear rule tells the classes apart without error (ties on the border allowed).

    Then no maximum-likelihood model exists; with a penalty coefficients are finite, and as large as
    the penalty lets them be. design (n, p); truth (n,) 0/1. A linear programme: Konis 2007, Linear
    programming algorithms for detecting separated data, section 4.

    >>> separated(np.array([[1.0], [2.0], [3.0]]), np.array([0, 0, 1]))
    True
    """
    signed = np.where(np.asarray(truth, dtype=bool), 1.0, -1.0)[:, None] * _with_intercept(design)
    found = optimize.linprog(
        -signed.sum(axis=0), A_ub=-signed, b_ub=np.zeros(len(signed)), bounds=(-1, 1)
    )
    return bool(found.success) and -float(found.fun) > 1e-7 * len(signed)


@dataclass(slots=True)
class _Refits:
    """Fits to resamples, made once for all coefficients."""

    x: Floats
    t: npt.NDArray[np.bool_]
    weights: Floats
    ridge: float
    counts: Floats | None = None
    found: Floats | None = None

    def of(self, counts: Floats, codes: Codes) -> Floats:
        """Coefficients (B, 1 + p); NaN where a resample has one class only."""
        if self.counts is not counts or self.found is None:
            weights = counts[:, codes] * self.weights
            both = (weights @ self.t > 0) & (weights @ ~self.t > 0)
            found = np.full((len(counts), self.x.shape[1]), np.nan)
            found[both] = _fits(self.x, self.t, weights[both], self.ridge)
            self.counts, self.found = counts, found
        return self.found


@dataclass(frozen=True, slots=True)
class _Coefficient:
    """One coefficient as a `Statistic` of the bootstrap."""

    refits: _Refits
    place: int

    @property
    def n_rows(self) -> int:
        return len(self.refits.t)

    def prepare(self, codes: Codes, n_groups: int) -> Evaluate:
        return lambda counts: self.refits.of(counts, codes)[:, self.place]


def coefficient_intervals(
    data: tuple[Floats, AnyArray, AnyArray],
    ridge: float,
    groups: AnyArray,
    plan: BootstrapPlan | None = None,
) -> tuple[Estimate | None, ...]:
    """Every coefficient (without intercept) with its interval over resampled patients.

    data: design (n, p), truth (n,) 0/1 and weights (n,) of the rows; groups (n,) patients. The
    penalty is kept as it is, so intervals are of penalised coefficients: shorter, and nearer to 0,
    than those of a model without penalty. None where too many resamples have one class only.

    Raises: StatisticUndefined as `fit_ridge_logistic`, and with fewer than two patients.
    """
    design, truth, weights = data
    fit_ridge_logistic(design, truth, ridge, weights)
    t, w = np.asarray(truth, dtype=bool), np.asarray(weights, dtype=np.float64)
    refits = _Refits(_with_intercept(design), t, w, ridge)
    drawn = resample([_Coefficient(refits, k + 1) for k in range(design.shape[1])], groups, plan)
    found: list[Estimate | None] = []
    for one in drawn:
        try:
            found.append(one.estimate())
        except StatisticUndefined:
            found.append(None)
    return tuple(found)


@dataclass(frozen=True, slots=True)
class FactModel:
    """A fitted model. coefficients (C, 1 + p), intercept first; C is 1 for two classes.

    tried: mean log loss of each penalty inside the training patients; empty where none was chosen.
    """

    columns: tuple[Column, ...]
    coefficients: Floats
    n_classes: int
    ridge: float
    tried: Mapping[float, float]

    def probabilities(self, rows: Sequence[Facts]) -> Floats:
        """Probability of every class (n, C) for new rows."""
        design = design_of(rows, self.columns)
        # Not a matrix product: its sums are ordered by how many rows come together.
        products = self.coefficients[:, None, 1:] * design
        raw = special.expit(self.coefficients[:, :1] + products.sum(axis=2))
        if self.n_classes == 2:
            return np.stack([1 - raw[0], raw[0]], axis=1)
        return (raw / raw.sum(axis=0)).T


@dataclass(frozen=True, slots=True)
class TrainingRows:
    """What a model learns from: facts, class 0 .. C-1 and weight of every row.

    inner (n,): part of the inner cross-validation, the same for all rows of a patient; None leaves
    the penalty at `UNTUNED`.
    """

    facts: Sequence[Facts]
    labels: npt.NDArray[np.intp]
    weights: Floats
    inner: npt.NDArray[np.intp] | None = None

    def of(self, rows: npt.NDArray[np.bool_]) -> TrainingRows:
        facts = [f for f, r in zip(self.facts, rows, strict=True) if r]
        return TrainingRows(facts, self.labels[rows], self.weights[rows])


def fit_fact_model(rows: TrainingRows, names: Sequence[str], n_classes: int) -> FactModel:
    """Prepare, choose the penalty and fit, all on these rows.

    Raises: StatisticUndefined when a class has no row, or none outside one of the inner parts.
    """
    tried = _tried(rows, names, n_classes)
    # Of equal losses the stronger penalty: the simpler model.
    ridge = min(tried, key=lambda r: (tried[r], -r)) if tried else UNTUNED
    columns = learn_columns(rows.facts, names)
    return _fit(rows, columns, n_classes, ridge, tried)


def _fit(
    rows: TrainingRows,
    columns: tuple[Column, ...],
    n_classes: int,
    ridge: float,
    tried: Mapping[float, float],
) -> FactModel:
    design = design_of(rows.facts, columns)
    wanted = (1,) if n_classes == 2 else tuple(range(n_classes))
    fits = [fit_ridge_logistic(design, rows.labels == k, ridge, rows.weights) for k in wanted]
    return FactModel(columns, np.stack(fits), n_classes, ridge, tried)


def _tried(rows: TrainingRows, names: Sequence[str], n_classes: int) -> dict[float, float]:
    """Mean log loss of every penalty over the inner parts, each predicted by the others."""
    if rows.inner is None:
        return {}
    total = dict.fromkeys(RIDGES, 0.0)
    for part in np.unique(rows.inner):
        left, out = rows.of(rows.inner != part), rows.of(rows.inner == part)
        columns = learn_columns(left.facts, names)
        for ridge in RIDGES:
            found = _fit(left, columns, n_classes, ridge, {}).probabilities(out.facts)
            chance = found[np.arange(len(out.labels)), out.labels]
            total[ridge] -= float(out.weights @ np.log(np.clip(chance, _CLIP, None)))
    return {ridge: loss / float(rows.weights.sum()) for ridge, loss in total.items()}
