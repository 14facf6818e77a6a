"""Which bolus fits a measured curve best? Many curves, or many starts of one, at once.

Both models are written around their peak P at x_p = TTP - t0, with u = ln(x / x_p):

    lognormal      ln f = ln P - u^2 / (2 sigma^2)            (a Gaussian in the logarithm of time)
    gamma variate  ln f = ln P + alpha (u + 1 - e^u)

which leaves parameters (ln P, ln x_p, ln sigma or ln(alpha - 1), t0, C) that hardly disturb one
another and keep every power positive. They are found by Levenberg-Marquardt steps with weights
1 / (f^2 + floor^2): echo flickers in proportion to its power (speckle), on a floor of electronic
noise; distant points count less (Huber). Steps are taken for a whole batch of curves together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from renalkit.ceus.bolus import Bolus, BolusKind, GammaVariate, Lognormal

Floats = npt.NDArray[np.float64]
Parameters = npt.NDArray[np.float64]

N_PARAMETERS = 5

_HUBER = 3.0  # standard deviations of the residual
_JUST_ARRIVED = 1e-9
_SHORTEST_RISE_S, _LONGEST_RISE_S = 0.3, 600.0
_SIGMA = (0.05, 2.5)
_ALPHA = (1.02, 60.0)


@dataclass(frozen=True, slots=True)
class Noise:
    """How residuals grow with the curve: variance ~ f^2 + (floor x P)^2.

    floor: residual where there is no agent, relative to that at the peak.
    """

    floor: float = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Fits of B curves. parameters: (B,5). score: (B,) -2 log likelihood up to a constant, of
    residuals of the stated variance; lower is better. converged: (B,)."""

    kind: BolusKind
    parameters: Parameters
    score: Floats
    converged: npt.NDArray[np.bool_]


def fit_batch(
    kind: BolusKind,
    times_s: Floats,
    power: Floats,
    starts: Parameters,
    noise: Noise,
    weights: Floats | None = None,
    *,
    steps: int = 60,
) -> Batch:
    """Fit B curves, each from its start.

    Args:
        times_s: (T,) rising. power: (B,T) or (T,) for one curve from several starts. starts:
            (B,5). weights: (T,) or (B,T) of each sample, 0 where it does not count. steps: at most.
    """
    theta = _bounded(kind, starts, times_s)
    y = np.broadcast_to(power, (len(theta), times_s.size))
    count = np.ones_like(times_s) if weights is None else weights
    damping = np.full(len(theta), 1e-2)
    moving = np.ones(len(theta), np.bool_)
    for _ in range(steps):
        here = np.flatnonzero(moving)
        if here.size == 0:
            break
        part = theta[here]
        own = count if count.ndim == 1 else count[here]
        f, slopes = curve_and_slopes(kind, times_s, part)
        r = y[here] - f
        w = _weights(f, part, r, own, noise)
        gradient = np.einsum("bkt,bt->bk", slopes, w * r)
        curvature = np.einsum("bkt,bt,blt->bkl", slopes, w, slopes, optimize=True)
        diagonal = np.einsum("bkk->bk", curvature)
        lift = damping[here, None] * diagonal + 1e-12 * diagonal.max(axis=1, keepdims=True) + 1e-300
        lifted = curvature + np.einsum("bk,kl->bkl", lift, np.eye(N_PARAMETERS))
        step = np.linalg.solve(lifted, gradient[..., None])[..., 0]
        trial = _bounded(kind, part + np.clip(step, -_largest(part), _largest(part)), times_s)
        left = y[here] - curve(kind, times_s, trial)
        before, after = (w * r * r).sum(axis=1), (w * left * left).sum(axis=1)
        better = after <= before
        theta[here[better]] = trial[better]
        damping[here] = np.clip(damping[here] * np.where(better, 0.2, 5.0), 1e-9, 1e9)
        still = np.abs(trial - part).max(axis=1) < 1e-9 * (1 + np.abs(part).max(axis=1))
        done = (better & (before - after <= 1e-10 * before) & (damping[here] < 1e-1)) | still
        moving[here[done | (damping[here] >= 1e8)]] = False
    f = curve(kind, times_s, theta)
    return Batch(kind, theta, _score(f, y, theta, count, noise), ~moving)


def curve(kind: BolusKind, times_s: Floats, parameters: Parameters) -> Floats:
    """Power (B,T) of parameters (B,5)."""
    log_peak, log_rise, shape, arrival, offset = parameters.T[:, :, None]
    u = np.log(np.maximum(times_s - arrival, _JUST_ARRIVED)) - log_rise
    if kind is BolusKind.LOGNORMAL:
        return np.exp(log_peak - 0.5 * (u * np.exp(-shape)) ** 2) + offset
    with np.errstate(over="ignore"):
        return np.exp(log_peak + (1 + np.exp(shape)) * (u + 1 - np.exp(u))) + offset


def curve_and_slopes(
    kind: BolusKind, times_s: Floats, parameters: Parameters
) -> tuple[Floats, Floats]:
    """Power (B,T) and its derivatives (B,5,T)."""
    log_peak, log_rise, shape, arrival, offset = parameters.T[:, :, None]
    x = np.maximum(times_s - arrival, _JUST_ARRIVED)
    u = np.log(x) - log_rise
    if kind is BolusKind.LOGNORMAL:
        steep = np.exp(-2 * shape)
        agent = np.exp(log_peak - 0.5 * steep * u * u)
        by_u, by_shape = -steep * u, steep * u * u
    else:
        with np.errstate(over="ignore"):
            alpha, e = 1 + np.exp(shape), np.exp(np.minimum(u, 50.0))
        agent = np.exp(log_peak + alpha * (u + 1 - e))
        by_u, by_shape = alpha * (1 - e), (alpha - 1) * (u + 1 - e)
    slopes = np.stack(
        [agent, -agent * by_u, agent * by_shape, -agent * by_u / x, np.ones_like(agent)], axis=1
    )
    return agent + offset, slopes


def bolus(kind: BolusKind, parameters: Parameters) -> Bolus:
    """The bolus of parameters (5,)."""
    log_peak, log_rise, shape, arrival, offset = (float(p) for p in parameters)
    peak, rise = float(np.exp(log_peak)), float(np.exp(log_rise))
    if kind is BolusKind.LOGNORMAL:
        sigma = float(np.exp(shape))
        area = peak * np.sqrt(2 * np.pi) * sigma * rise * np.exp(sigma**2 / 2)
        return Lognormal(float(area), log_rise + sigma**2, sigma, arrival, offset)
    alpha = 1 + float(np.exp(shape))
    amplitude = float(np.exp(log_peak + alpha - alpha * log_rise))
    return GammaVariate(amplitude, alpha, rise / alpha, arrival, offset)


def spread(f: Floats, parameters: Parameters, noise: Noise) -> Floats:
    """Relative standard deviation (B,T) of residuals of curves (B,T) with parameters (B,5)."""
    agent = f - parameters[:, 4:]
    return np.sqrt(agent**2 + (noise.floor * np.exp(parameters[:, :1])) ** 2)


def _weights(f: Floats, theta: Parameters, r: Floats, count: Floats, noise: Noise) -> Floats:
    sd = spread(f, theta, noise)
    off = np.abs(r) / sd
    counted = np.where(count > 0, off, np.nan)
    scale = 1.4826 * np.nanmedian(counted, axis=1, keepdims=True) + 1e-15
    return count * np.minimum(1.0, _HUBER * scale / np.maximum(off, 1e-300)) / sd**2


def _score(f: Floats, y: Floats, theta: Parameters, count: Floats, noise: Noise) -> Floats:
    sd = spread(f, theta, noise)
    off = ((y - f) / sd) ** 2
    scale = np.nanmedian(np.where(count > 0, off, np.nan), axis=1, keepdims=True) * 1.4826**2
    clip = _HUBER**2 * np.maximum(scale, 1e-30)
    # Huber's loss beyond the clip, so that a few distant points do not choose the start.
    off = np.where(off > clip, 2 * np.sqrt(clip * off) - clip, off)
    total = np.broadcast_to(count, f.shape).sum(axis=1)
    mean = (count * off).sum(axis=1) / total
    return total * np.log(np.maximum(mean, 1e-30)) + 2 * (count * np.log(sd)).sum(axis=1)


def _largest(theta: Parameters) -> Floats:
    """Largest step (B,5) to be believed: a factor of 2 in what is logarithmic, half of the rise
    in arrival, the peak in offset."""
    rise, peak = np.exp(theta[:, 1]), np.exp(theta[:, 0])
    log = np.full(len(theta), np.log(2.0))
    return np.stack([log, log, log, 0.5 * rise, peak], axis=1)


def _bounded(kind: BolusKind, theta: Parameters, times_s: Floats) -> Parameters:
    """Within what a bolus can be; the arrival at most one clip before the first frame."""
    length = float(times_s[-1] - times_s[0])
    low, high = _SIGMA if kind is BolusKind.LOGNORMAL else (_ALPHA[0] - 1, _ALPHA[1] - 1)
    bounds = np.array(
        [
            [-700.0, 700.0],
            [np.log(_SHORTEST_RISE_S), np.log(_LONGEST_RISE_S)],
            [np.log(low), np.log(high)],
            [times_s[0] - length, times_s[-1]],
            [-np.inf, np.inf],
        ]
    )
    return np.clip(np.asarray(theta, np.float64), bounds[:, 0], bounds[:, 1])
