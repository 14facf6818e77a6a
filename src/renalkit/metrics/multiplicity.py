"""How small must a p-value be when several are looked at? Adjusted p-values.

An adjusted p-value is compared with the level itself (0.05), not with a smaller one. Compared with
R's p.adjust and statsmodels (validation/).
"""

from __future__ import annotations

import numpy as np

from renalkit.errors import StatisticUndefined
from renalkit.metrics.classification import AnyArray, Floats


def holm(p_values: AnyArray) -> Floats:
    """Adjusted p-values (m,) that hold the chance of any false finding, whatever depends on what.

    Holm 1979, Scand J Stat 6:65: the k-th smallest of m is multiplied by m - k + 1, in order.
    Raises: StatisticUndefined if there is none, or one is NaN or outside 0 to 1.

    >>> holm(np.array([0.01, 0.04, 0.03])).round(3).tolist()
    [0.03, 0.06, 0.06]
    """
    p, order = _in_order(p_values)
    stepped = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    return _back(stepped, order)


def benjamini_hochberg(p_values: AnyArray) -> Floats:
    """Adjusted p-values (m,) that hold the expected share of false ones among the findings.

    Benjamini and Hochberg 1995, JRSS B 57:289; for independent or positively dependent tests.
    Raises: as `holm`.

    >>> benjamini_hochberg(np.array([0.01, 0.04, 0.03])).round(3).tolist()
    [0.03, 0.04, 0.04]
    """
    p, order = _in_order(p_values)
    share = p[order] * p.size / np.arange(1, p.size + 1)
    return _back(np.minimum.accumulate(share[::-1])[::-1], order)


def _in_order(p_values: AnyArray) -> tuple[Floats, np.ndarray[tuple[int], np.dtype[np.intp]]]:
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or p.size == 0 or not bool(((p >= 0) & (p <= 1)).all()):
        raise StatisticUndefined(
            f"p-values {p.tolist()}",
            expected="at least one, each from 0 to 1",
            remedy="leave comparisons without a p-value out, and say so",
        )
    return p, np.argsort(p, kind="stable")


def _back(stepped: Floats, order: np.ndarray[tuple[int], np.dtype[np.intp]]) -> Floats:
    adjusted = np.empty_like(stepped)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted
