"""Do groups of patients differ in age, size, findings? The tests behind a table of patients.

Numbers: where no group departs from a normal distribution (Shapiro-Wilk, 5 %), mean and SD with
Welch's t-test, or Welch's analysis of variance for three groups and more; otherwise median and
quartiles with the Mann-Whitney or the Kruskal-Wallis test. Categories: Pearson's chi-square without
continuity correction where expected counts allow it (Cochran 1954), otherwise Fisher's exact test.
The standardised mean difference does not grow with the number of patients, as p-values do.

Sources: Royston 1995, Appl Stat 44:547 (AS R94); Welch 1951, Biometrika 38:330; Freeman and Halton
1951, Biometrika 38:141 (Fisher's test of larger tables); Yang and Dalton 2012, SAS Global Forum 335
(standardised differences). Compared with R (validation/r_characteristics.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import inf, isfinite, sqrt

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from renalkit.errors import StatisticUndefined
from renalkit.metrics.classification import AnyArray, Floats

Counts = npt.NDArray[np.int64]

NORMALITY_LEVEL = 0.05
"""A group whose Shapiro-Wilk p lies below is not normal."""

MOST_FOR_NORMALITY = 5000
"""Above this many values the p-value of Shapiro and Wilk's test is not known well enough."""

_EXACT_BELOW = 50  # values per group; the exact Mann-Whitney test up to there, as in R
_MOST_PATHS = 500_000  # of the exact test of a table; beyond it tables are drawn
_DRAWN_TABLES = 99_999
_TIE = 1e-7  # relative: tables of equal probability, as in R's fisher.test


@dataclass(frozen=True, slots=True)
class NumberSummary:
    """One group: n known and missing values; everything else is None where it does not exist.

    normal_p: p of the Shapiro-Wilk test; None with fewer than 3 values, more than 5000, or equal
    values.
    """

    n: int
    missing: int
    mean: float | None = None
    sd: float | None = None
    median: float | None = None
    q1: float | None = None
    q3: float | None = None
    least: float | None = None
    greatest: float | None = None
    normal_p: float | None = None


@dataclass(frozen=True, slots=True)
class NumberComparison:
    """Groups and the test between them. normal: whether means (else medians) describe them.

    smd: absolute standardised mean difference, the largest of all pairs; None where no pair has
    one. p_value: None where there is no test; test then says why.
    """

    groups: tuple[NumberSummary, ...]
    overall: NumberSummary
    normal: bool
    test: str
    statistic: float | None
    p_value: float | None
    smd: float | None


@dataclass(frozen=True, slots=True)
class CategoryComparison:
    """The test of a table of counts, fields as in `NumberComparison`."""

    test: str
    statistic: float | None
    p_value: float | None
    smd: float | None


# ------------------------------------------------------------------ numbers


def compare_numbers(groups: Sequence[AnyArray]) -> NumberComparison:
    """Compare a measurement between groups: one array (n,) of patients each, NaN where unknown.

    Groups that have fewer than two values are described but not tested.
    Raises: StatisticUndefined for infinite values; ValueError for no group.

    >>> found = compare_numbers([np.array([1.0, 2, 3, 4, 6]), np.array([3.0, 5, 6, 7, 9])])
    >>> found.test, round(found.p_value, 4), round(found.smd, 3)
    ("Welch's t-test", 0.0673, 1.342)
    """
    if not groups:
        raise ValueError("no group to compare")
    known: list[Floats] = []
    for values in groups:
        x = np.asarray(values, dtype=np.float64)
        if x.ndim != 1 or bool(np.isinf(x).any()):
            raise StatisticUndefined(
                f"a group of shape {x.shape} with {int(np.isinf(x).sum())} infinite values",
                where="comparison of numbers",
                expected="one finite number per patient, NaN where unknown",
            )
        known.append(x[~np.isnan(x)])
    missing = [len(g) - x.size for g, x in zip(groups, known, strict=True)]
    summaries = tuple(_summary(x, m) for x, m in zip(known, missing, strict=True))
    overall = _summary(np.concatenate(known), sum(missing))
    tested = [x for x in known if x.size >= 2]
    tried = [s.normal_p for s in summaries if s.n >= 2]
    normal = bool(tried) and all(p is not None and p >= NORMALITY_LEVEL for p in tried)
    test, statistic, p = _test_numbers(tested, normal)
    return NumberComparison(summaries, overall, normal, test, statistic, p, _smd_numbers(tested))


def _summary(x: Floats, missing: int) -> NumberSummary:
    if x.size == 0:
        return NumberSummary(0, missing)
    q1, median, q3 = (float(q) for q in np.quantile(x, (0.25, 0.5, 0.75)))
    tested = 3 <= x.size <= MOST_FOR_NORMALITY and float(np.ptp(x)) > 0
    return NumberSummary(
        n=x.size,
        missing=missing,
        mean=float(x.mean()),
        sd=float(x.std(ddof=1)) if x.size > 1 else None,
        median=median,
        q1=q1,
        q3=q3,
        least=float(x.min()),
        greatest=float(x.max()),
        normal_p=float(stats.shapiro(x).pvalue) if tested else None,
    )


def _test_numbers(groups: Sequence[Floats], normal: bool) -> tuple[str, float | None, float | None]:
    """Name, statistic and p of the test."""
    if len(groups) < 2:
        return "no test: fewer than two groups with two values", None, None
    if float(np.ptp(np.concatenate(groups))) == 0:
        return "no test: all values are equal", None, None
    if normal and len(groups) == 2:
        statistic, p = _welch_t(groups[0], groups[1])
        return "Welch's t-test", statistic, p
    if normal:
        statistic, p = _welch_anova(groups)
        return "Welch's analysis of variance", statistic, p
    if len(groups) > 2:
        found = stats.kruskal(*groups)
        return "Kruskal-Wallis test", float(found.statistic), float(found.pvalue)
    ties = np.unique(np.concatenate(groups)).size < sum(x.size for x in groups)
    exact = not ties and max(x.size for x in groups) < _EXACT_BELOW
    found = stats.mannwhitneyu(
        groups[0], groups[1], use_continuity=True, method="exact" if exact else "asymptotic"
    )
    words = "exact" if exact else "normal approximation, corrected for ties and continuity"
    return f"Mann-Whitney U test, {words}", float(found.statistic), float(found.pvalue)


def _welch_t(a: Floats, b: Floats) -> tuple[float, float]:
    of_a, of_b = float(a.var(ddof=1)) / a.size, float(b.var(ddof=1)) / b.size
    t = (float(a.mean()) - float(b.mean())) / sqrt(of_a + of_b)
    df = (of_a + of_b) ** 2 / (of_a**2 / (a.size - 1) + of_b**2 / (b.size - 1))
    return t, 2 * float(special.stdtr(df, -abs(t)))


def _welch_anova(groups: Sequence[Floats]) -> tuple[float, float]:
    """F and p of Welch 1951: means of groups of unequal variance."""
    n = np.array([x.size for x in groups], dtype=np.float64)
    means = np.array([x.mean() for x in groups])
    weights = n / np.array([x.var(ddof=1) for x in groups])
    k, total = len(groups), weights.sum()
    centre = float(weights @ means) / total
    spread = float((((1 - weights / total) ** 2) / (n - 1)).sum())
    between = float(weights @ (means - centre) ** 2) / (k - 1)
    f = between / (1 + 2 * (k - 2) / (k * k - 1) * spread)
    df = (k * k - 1) / (3 * spread)
    return f, float(special.fdtrc(k - 1, df, f))


def _smd_numbers(groups: Sequence[Floats]) -> float | None:
    found: list[float] = []
    for a, b in combinations(groups, 2):
        spread = sqrt((float(a.var(ddof=1)) + float(b.var(ddof=1))) / 2)
        if spread > 0:
            found.append(abs(float(a.mean()) - float(b.mean())) / spread)
    return max(found, default=None)


# ------------------------------------------------------------------ categories


def compare_categories(counts: AnyArray) -> CategoryComparison:
    """Compare shares between groups: counts (G, K) of G groups in K categories, unknown left out.

    Chi-square where every expected count is at least 1 and at most a fifth of them lies below 5,
    otherwise Fisher's exact test; where that has too many tables, 99,999 of them are drawn.
    Raises: ValueError for counts that are negative or not whole.

    >>> compare_categories(np.array([[3, 1], [1, 3]])).p_value.__round__(4)
    0.4857
    """
    table = np.asarray(counts, dtype=np.float64)
    if table.ndim != 2 or bool((table < 0).any()) or bool((table != table.round()).any()):
        raise ValueError("counts are whole numbers, one row per group, one column per category")
    table = table.astype(np.int64)
    smd = _smd_categories(table)
    table = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0]
    if table.shape[0] < 2:
        return CategoryComparison("no test: fewer than two groups with values", None, None, smd)
    if table.shape[1] < 2:
        return CategoryComparison("no test: all values are equal", None, None, smd)
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    if float(expected.min()) >= 1 and float((expected < 5).mean()) <= 0.2:
        statistic = float(((table - expected) ** 2 / expected).sum())
        df = (table.shape[0] - 1) * (table.shape[1] - 1)
        p = float(special.chdtrc(df, statistic))
        return CategoryComparison("Pearson's chi-square test", statistic, p, smd)
    p, words = fisher_exact(table)
    return CategoryComparison(words, None, p, smd)


def fisher_exact(table: Counts) -> tuple[float, str]:
    """p of Fisher's exact test for any table (Freeman-Halton), and its name.

    Sums the probabilities of all tables with the same margins that are no more probable than the
    one seen. Column by column, tables that leave the same row sums and have the same probability so
    far are one path, so that their number stays small; with too many paths tables are drawn.
    """
    table = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0]
    rows, columns = table.sum(axis=1), np.sort(table.sum(axis=0))
    if rows.size > columns.size:
        rows, columns = columns, np.sort(rows)
    fixed = float(special.gammaln([*(rows + 1), *(columns + 1)]).sum())
    fixed -= float(special.gammaln(int(rows.sum()) + 1))
    seen = fixed - float(special.gammaln(table + 1).sum())
    paths = _all_paths(rows, columns)
    if paths is not None:
        logs, times = paths
        less = logs + fixed <= seen + _TIE
        return min(1.0, float((times * np.exp(logs + fixed))[less].sum())), "Fisher's exact test"
    drawn = stats.random_table(rows, columns, seed=0).rvs(_DRAWN_TABLES)
    logs = fixed - special.gammaln(drawn + 1).sum(axis=(1, 2))
    beyond = int((logs <= seen + _TIE).sum())
    words = f"Fisher's exact test, {_DRAWN_TABLES:,} tables drawn, seed 0"
    return (beyond + 1) / (_DRAWN_TABLES + 1), words


def _all_paths(rows: Counts, columns: Counts) -> tuple[Floats, Floats] | None:
    """Of every table with these margins: -sum log x!, and how many tables have it.

    None when there are too many.
    """
    nodes: dict[tuple[int, ...], tuple[Floats, Floats]] = {
        tuple(int(r) for r in rows): (np.zeros(1), np.ones(1))
    }
    log_factorial = special.gammaln(np.arange(int(rows.sum()) + 1) + 1.0)
    for column in columns[:-1]:
        arrived: dict[tuple[int, ...], list[tuple[Floats, Floats]]] = {}
        size = 0
        for rest, (logs, times) in nodes.items():
            for x in _fillings(int(column), rest):
                step = sum(float(log_factorial[v]) for v in x)
                left = tuple(r - v for r, v in zip(rest, x, strict=True))
                arrived.setdefault(left, []).append((logs - step, times))
                size += logs.size
                if size > _MOST_PATHS:
                    return None
        nodes = {left: _merged(parts) for left, parts in arrived.items()}
    # The last column takes what is left of every row.
    ends = [
        (logs - sum(float(log_factorial[v]) for v in rest), times)
        for rest, (logs, times) in nodes.items()
    ]
    return np.concatenate([e[0] for e in ends]), np.concatenate([e[1] for e in ends])


def _fillings(total: int, rest: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Ways to put `total` into cells of at most rest[i]."""
    if len(rest) == 1:
        return [(total,)] if total <= rest[0] else []
    room = sum(rest[1:])
    return [
        (first, *more)
        for first in range(max(0, total - room), min(total, rest[0]) + 1)
        for more in _fillings(total - first, rest[1:])
    ]


def _merged(parts: Sequence[tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
    """Paths of equal probability as one, with their number."""
    logs = np.concatenate([p[0] for p in parts])
    times = np.concatenate([p[1] for p in parts])
    _, first, place = np.unique(logs.round(9), return_index=True, return_inverse=True)
    return logs[first], np.bincount(place, weights=times).astype(np.float64)


def _smd_categories(table: Counts) -> float | None:
    """Largest standardised difference of two rows of counts; None where none is finite."""
    used = table[table.sum(axis=1) > 0].astype(np.float64)
    found = [_smd_pair(a, b) for a, b in combinations(used / used.sum(axis=1, keepdims=True), 2)]
    return max((d for d in found if isfinite(d)), default=None)


def _smd_pair(a: Floats, b: Floats) -> float:
    """Mahalanobis distance of two vectors of shares (K,), one category left out as it follows."""
    there = (a + b) > 0
    a, b = a[there][1:], b[there][1:]
    apart = a - b
    if not bool(apart.any()):
        return 0.0
    spread = (np.diag(a) - np.outer(a, a) + np.diag(b) - np.outer(b, b)) / 2
    weights = np.linalg.pinv(spread, hermitian=True)
    # A category that only one group has, and all of it, sets the groups apart without end.
    if not bool(np.allclose(spread @ (weights @ apart), apart, atol=1e-9)):
        return inf
    return sqrt(float(apart @ weights @ apart))
