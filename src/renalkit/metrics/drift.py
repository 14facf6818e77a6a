"""Do the inputs of two cohorts differ: one variable at a time, and all together?

A p-value says whether a difference is chance, and with many patients every difference is found; the
standardised difference and the population stability index say how large it is. All together, a
classifier is asked which cohort a patient is from: an AUC near 0.5 means that it cannot tell.

Sources: Kolmogorov-Smirnov two-sample test; Siddiqi 2006, Credit Risk Scorecards (PSI: below 0.1
little, above 0.25 much, in samples large enough); Lopez-Paz and Oquab 2017, ICLR (classifier
two-sample test).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from renalkit.errors import StatisticUndefined
from renalkit.metrics.characteristics import compare_categories, compare_numbers
from renalkit.metrics.classification import AnyArray, Floats, auc
from renalkit.metrics.logistic import UNTUNED, Facts, TrainingRows, fit_fact_model

PSI_BINS = 10
_PARTS = 5


@dataclass(frozen=True, slots=True)
class Shift:
    """How far a variable lies apart in two cohorts. p_value None: test says why.

    statistic: the largest distance of the two distributions (KS) for numbers, chi-square for
    categories. psi: population stability index, None without values in both; psi_chance: what it is
    on average in two samples of one population of these sizes. smd: absolute standardised
    difference, None where it is not finite.
    """

    test: str
    statistic: float | None
    p_value: float | None
    psi: float | None = None
    psi_chance: float | None = None
    smd: float | None = None


def shift_of_numbers(first: AnyArray, second: AnyArray) -> Shift:
    """Compare a measurement (n,), (m,) of two cohorts; NaN where unknown.

    PSI: in ten bins with equal shares of the first cohort (fewer where values repeat).

    >>> x = np.arange(100.0)
    >>> shift_of_numbers(x, x).p_value, round(shift_of_numbers(x, x + 50).statistic, 2)
    (1.0, 0.5)
    """
    a, b = (np.asarray(v, dtype=np.float64) for v in (first, second))
    a, b = a[~np.isnan(a)], b[~np.isnan(b)]
    if min(a.size, b.size) < 2:
        return Shift("no test: fewer than two values in one cohort", None, None)
    found: Any = stats.ks_2samp(a, b)
    cuts = np.unique(np.quantile(a, np.linspace(0, 1, PSI_BINS + 1)[1:-1]))
    bins = [
        np.bincount(np.searchsorted(cuts, v, side="right"), minlength=cuts.size + 1) for v in (a, b)
    ]
    return Shift(
        "Kolmogorov-Smirnov test",
        float(found.statistic),
        float(found.pvalue),
        *_stability(bins[0], bins[1]),
        compare_numbers([a, b]).smd,
    )


def shift_of_categories(first: Sequence[int], second: Sequence[int]) -> Shift:
    """Compare the counts of the same categories in two cohorts."""
    table = np.array([first, second], dtype=np.int64)
    found = compare_categories(table)
    known = bool((table.sum(axis=1) > 0).all())
    psi = _stability(table[0], table[1]) if known else (None, None)
    return Shift(found.test, found.statistic, found.p_value, *psi, found.smd)


def _stability(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Sum of (share - share) log(share / share), an empty bin counting as half a patient; and its
    expectation without any shift, (bins - 1) (1/n + 1/m) (Yurdakul and Naranjo 2020)."""
    there = (a + b) > 0
    p, q = (np.maximum(x[there], 0.5) / x.sum() for x in (a, b))
    chance = (int(there.sum()) - 1) * (1 / float(a.sum()) + 1 / float(b.sum()))
    return float(((q - p) * np.log(q / p)).sum()), chance


@dataclass(frozen=True, slots=True)
class Separability:
    """How well a classifier tells the cohorts apart. auc: out of fold; p_value: permutation."""

    auc: float
    p_value: float
    n_permutations: int
    n: int


def separability(
    first: Sequence[Facts],
    second: Sequence[Facts],
    names: Sequence[str],
    n_permutations: int = 199,
    seed: int = 0,
) -> Separability:
    """Can a logistic regression on these variables tell which cohort a patient is from?

    One row of facts per patient. Scores come out of fold (5 parts, ridge 1); the p-value from
    patients exchanged between the cohorts, everything fitted anew.

    Raises: StatisticUndefined with fewer than ten patients in a cohort.
    """
    if min(len(first), len(second)) < 2 * _PARTS:
        raise StatisticUndefined(
            f"{len(first)} and {len(second)} patients",
            where="separability",
            expected=f"at least {2 * _PARTS} in each cohort",
        )
    facts = [*first, *second]
    labels = np.repeat(np.array([0, 1], dtype=np.intp), [len(first), len(second)])
    rng = np.random.default_rng(seed)
    value = _out_of_fold(facts, labels, names, rng)
    drawn = [
        _out_of_fold(facts, rng.permutation(labels), names, rng) for _ in range(n_permutations)
    ]
    p = (1 + sum(d >= value - 1e-12 for d in drawn)) / (n_permutations + 1)
    return Separability(value, p, n_permutations, len(facts))


def _out_of_fold(
    facts: Sequence[Facts],
    labels: npt.NDArray[np.intp],
    names: Sequence[str],
    rng: np.random.Generator,
) -> float:
    part = np.empty(labels.size, dtype=np.intp)
    for k in (0, 1):
        members = np.flatnonzero(labels == k)
        part[members] = rng.permutation(np.arange(members.size) % _PARTS)
    scores: Floats = np.empty(labels.size)
    rows = TrainingRows(facts, labels, np.ones(labels.size))
    for k in range(_PARTS):
        model = fit_fact_model(rows.of(part != k), names, 2)
        assert model.ridge == UNTUNED
        scores[part == k] = model.probabilities(rows.of(part == k).facts)[:, 1]
    return auc(labels, scores)
