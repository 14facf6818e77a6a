"""How far do residuals reach, how long are they correlated, and how wide is an interval then?

Residuals of a bolus curve grow with it and are correlated in time. Divided by their own spread and
drawn in blocks longer than the correlation (H. Kunsch, Ann. Statist. 17:1217, 1989), they make new
curves as likely as the one measured; the length of blocks is that of D. Politis and H. White,
Econom. Rev. 23:53, 2004, for a process of first order.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, hypot, log, sqrt

import numpy as np
import numpy.typing as npt

from renalkit.ceus.fits import N_PARAMETERS, Noise

Floats = npt.NDArray[np.float64]

_FLOORS = np.geomspace(1e-3, 2.0, 24)
_LONGER = 1.5  # than the best block for a variance: intervals ask for more than that


@dataclass(frozen=True, slots=True, eq=False)
class Residuals:
    """relative: (N,) over their own spread, grown by what a fit takes up. block: samples that are
    drawn together. sd: (N,) the spread."""

    relative: Floats
    block: int
    sd: Floats


def own_noise(agent: Floats, residuals: Floats, peak: float) -> Noise:
    """The floor that makes the residuals (N,) of a curve of agent (N,) most likely."""
    variance = agent[None] ** 2 + (_FLOORS[:, None] * peak) ** 2
    mean = np.maximum((residuals**2 / variance).mean(axis=1), 1e-300)
    cost = residuals.size * np.log(mean) + np.log(variance).sum(axis=1)
    return Noise(float(_FLOORS[int(cost.argmin())]))


def in_blocks(residuals: Floats, sd: Floats) -> Residuals:
    """Residuals (N,) of a fit made ready to be drawn; sd: (N,) their spread up to a factor."""
    relative = residuals / sd
    n, tau = relative.size, correlated(relative)
    lag = (tau - 1) / (tau + 1)  # of the first-order process that is as long correlated
    best = (6 * lag**2 / (1 - lag**2) ** 2 * n) ** (1 / 3)
    block = int(np.clip(round(_LONGER * best), 2, n // 4))
    independent = n / tau
    # Fitting took up as many independent residuals as there are parameters.
    grown = independent / max(independent - N_PARAMETERS, 1.0)
    # Blocks cut correlations at their ends; this much of the variance of a mean is lost.
    lost = min(0.5, 2 * lag / ((1 - lag**2) * block))
    return Residuals((relative - relative.mean()) * sqrt(grown / (1 - lost)), block, sd)


def correlated(residuals: Floats) -> float:
    """Samples per independent one: 1 + 2 x sum of autocorrelations while pairs stay positive
    (C. Geyer, Statist. Sci. 7:473, 1992)."""
    n = residuals.size
    centred = residuals - residuals.mean()
    spectrum = np.abs(np.fft.rfft(centred, 2 * n)) ** 2
    lags = np.fft.irfft(spectrum)[:n]
    if lags[0] <= 0:
        return 1.0
    pairs = (lags[1 : n - 1 : 2] + lags[2:n:2][: lags[1 : n - 1 : 2].size]) / lags[0]
    stop = np.flatnonzero(pairs <= 0)
    return max(1.0, 1.0 + 2.0 * float(pairs[: stop[0] if stop.size else None].sum()))


def drawn_curves(
    model: Floats, residuals: Residuals, block: int, resamples: int, seed: int
) -> Floats:
    """New curves (R,N) around a model (N,). Which samples are drawn depends on the seed and the
    numbers only, so that curves of the same frames are drawn together."""
    n = model.size
    starts = np.random.default_rng(seed).random((resamples, n))[:, : -(-n // block)]
    first = (starts * n).astype(np.intp)
    places = ((first[:, :, None] + np.arange(block)) % n).reshape(resamples, -1)[:, :n]
    return model + residuals.sd * residuals.relative[places]


def interval(
    values: tuple[float, ...], drawn: Floats | None, level: float, *, logarithmic: bool
) -> tuple[float | None, float | None]:
    """Normal interval around a value, on a logarithmic scale for what is a positive multiple.

    Args:
        values: the figure, then the same by other weights: their distance is uncertainty of the
            model and adds to that of the replicates. drawn: (R,) replicates.
    """
    value, *others = values
    if drawn is None:
        return None, None
    signed = np.sign(value) * drawn if logarithmic else drawn
    usable = signed[np.isfinite(signed) & ((signed > 0) | (not logarithmic))]
    if usable.size < 0.9 * drawn.size or value == 0:
        return None, None
    scale = np.log(usable) if logarithmic else usable
    low, high = np.quantile(scale, [(1 - level) / 2, (1 + level) / 2])
    if logarithmic:
        apart = [abs(log(other / value)) for other in others if other / value > 0]
    else:
        apart = [abs(other - value) for other in others]
    half = hypot(float(high - low) / 2, max(apart, default=0.0))
    if not logarithmic:
        return value - half, value + half
    edges = sorted((value * exp(-half), value * exp(half)))
    return edges[0], edges[1]
