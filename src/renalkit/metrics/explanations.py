"""How good is an activation map? Share inside a region, deletion and insertion, rank correlation.

Conventions: a map is >= 0 and says how much each place speaks for the class; a map that is zero
everywhere says nothing, and what cannot be said of it is NaN.

Sources: Petsiuk, Das and Saenko 2018, RISE (deletion and insertion); Adebayo et al. 2018, Sanity
checks for saliency maps (rank correlation with the maps of a randomised network).
"""

from __future__ import annotations

from math import nan

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.floating]
Mask = npt.NDArray[np.bool_]

# Shape legend: h rows, w columns, p steps and the start.


def inside_share(values: Floats, region: Mask) -> float:
    """Share of a map (h,w) >= 0 that lies inside a region (h,w).

    A map that is the same everywhere gives the region's share of the area. NaN for a map that is
    zero everywhere.

    >>> inside_share(np.array([[3.0, 1.0]]), np.array([[True, False]]))
    0.75

    Raises:
        ValueError: shapes differ, or the map holds negative, NaN or infinite values.
    """
    if values.shape != region.shape or values.ndim != 2:
        raise ValueError(f"a map {values.shape} and a region {region.shape}")
    if not bool(np.isfinite(values).all()) or float(values.min()) < 0:
        raise ValueError("a map with negative, NaN or infinite values")
    total = float(values.sum(dtype=np.float64))
    return float(values[region].sum(dtype=np.float64)) / total if total > 0 else nan


def curve_area(scores: Floats) -> float:
    """Area under scores (p,) taken at equal steps from 0 to 1: the trapezoid rule.

    >>> curve_area(np.array([1.0, 0.5, 0.0]))
    0.5

    Raises:
        ValueError: fewer than two scores, or one that is NaN or infinite.
    """
    if scores.ndim != 1 or scores.size < 2 or not bool(np.isfinite(scores).all()):
        raise ValueError(f"scores of shape {scores.shape}: expected at least two finite ones")
    return float((scores[:-1] + scores[1:]).mean()) / 2


def rank_correlation(first: Floats, second: Floats) -> float:
    """Spearman's correlation of two maps of equal shape, ties at their mean rank.

    NaN when one of them is the same everywhere.

    >>> rank_correlation(np.array([1.0, 2.0, 9.0]), np.array([-3.0, 0.0, 0.1]))
    1.0

    Raises:
        ValueError: shapes differ or a value is NaN or infinite.
    """
    if first.shape != second.shape:
        raise ValueError(f"maps of shapes {first.shape} and {second.shape}")
    if not bool(np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("a map with NaN or infinite values")
    a, b = (stats.rankdata(m.ravel()) for m in (first, second))
    a, b = a - a.mean(), b - b.mean()
    spread = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / spread if spread > 0 else nan
