"""Which fit stands for a measured curve, and which of its figures does the clip show?

Arrays have N samples: the frames that count, or means over them where a fit needs fewer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import exp, log
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import fdtrc

from renalkit.ceus.bolus import Bolus, BolusKind, CurveValues, GammaVariate, curve_values
from renalkit.ceus.curves import RoiCurve
from renalkit.ceus.fits import (
    N_PARAMETERS,
    Noise,
    bolus,
    curve,
    curve_and_slopes,
    fit_batch,
    spread,
)
from renalkit.ceus.residuals import correlated, own_noise

Floats = npt.NDArray[np.float64]
Method = Literal["lognormal", "gamma-variate", "model-free"]

POWERS = ("PE", "WiAUC", "WoAUC", "WiWoAUC", "WiR", "WoR", "WiPI")
"""Figures in units of power (times or per seconds)."""

DURATIONS = ("RT", "FT", "mTT")
MOMENTS = ("TTP", "t0")
"""Times that count from the zero of the times."""

_RISE = ("t0", "RT", "mTT", "WiAUC", "WiWoAUC", "WiR", "WiPI", "mu", "sigma", "alpha", "beta")
_FALL = ("FT", "mTT", "WoAUC", "WiWoAUC", "WoR", "mu", "sigma", "alpha", "beta")

_FEWEST_FRAMES = 20
_SHORTEST_S = 10.0
_BLOCK_S = 2.5  # of the test for a bolus: longer than echoes are correlated
_NO_BOLUS_P = 1e-4
_TAIL_P = 0.005
_LONGEST_NOISE_S = 5.0  # residuals that stay correlated for longer are no noise
_MOST_SAMPLES = 800
_MODEL_FREE_END = 0.1  # share of the peak
_WHITE_REFUSED, _WHITE_SAID = 0.05, 0.01
_OTHER_FLOORS = (0.1, 4.0)
_BEFORE_S, _BEFORE_WEIGHT = 1.0, 100.0


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How a curve is turned into figures.

    method: "best" is the likelier of the two models. noise: see Noise; a high floor keeps a
    region that mixes tissues from being judged by its faint onset and tail. smoothing_s: standard
    deviation of the Gaussian kernel of the model-free curve. resamples: 0 gives no intervals.
    from_injection: the zero of the times is the injection, so ratios of times mean something.
    """

    method: Method | Literal["best"] = "lognormal"
    noise: Noise = Noise(0.25)
    smoothing_s: float = 1.5
    resamples: int = 200
    level: float = 0.95
    seed: int = 0
    from_injection: bool = False

    def __post_init__(self) -> None:
        if not 0.5 <= self.level < 1 or self.smoothing_s <= 0 or self.resamples < 0:
            raise ValueError(f"level, smoothing or resamples make no sense: {self}")


@dataclass(frozen=True, slots=True)
class NoBolus:
    """No figures, because the curve shows no bolus; reason says what it shows."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class CurveWork:
    """A curve on its way to figures.

    times_s, power: (N,) kept and thinned. kind: None without a model. parameters: (5,) of the fit
    whose offset is that of the frames before arrival. model: (N,) that fit, or the smoothed curve.
    loose: parameters of the fit whose offset is free. second_tail: one bolus does not describe the
    tail; then the offset is free everywhere, so that it takes up what it can.
    """

    given: RoiCurve
    times_s: Floats
    power: Floats
    kind: BolusKind | None
    parameters: Floats
    model: Floats
    loose: Floats
    noise: Noise
    second_tail: bool = False


def loosened(work: CurveWork) -> CurveWork:
    """The same with the fit whose offset is free; without a model nothing changes."""
    if work.kind is None:
        return work
    model = curve(work.kind, work.times_s, work.loose[None])[0]
    return replace(work, parameters=work.loose, model=model)


def prepared(given: RoiCurve, options: FitOptions) -> CurveWork | NoBolus:
    """Fit a curve, or say why it shows no bolus."""
    times, power = _thinned(given.times_s[given.kept], given.power[given.kept])
    if times.size < _FEWEST_FRAMES or times[-1] - times[0] < _SHORTEST_S:
        span = times[-1] - times[0] if times.size else 0.0
        return NoBolus(
            given.name, f"{times.size} usable frames over {span:.1f} s are too few for a curve"
        )
    if float(np.ptp(power)) <= 1e-12 * float(np.abs(power).max()):
        return NoBolus(given.name, "the curve is flat")
    kinds = [BolusKind(options.method)] if options.method in list(BolusKind) else list(BolusKind)
    if options.method == "model-free":
        kinds = [BolusKind.LOGNORMAL]
    fits = [
        fit_batch(kind, times, power, _starts(kind, times, power), options.noise) for kind in kinds
    ]
    best = min(fits, key=lambda fit: fit.score.min())
    first = best.parameters[int(best.score.argmin())]
    weights = _weights(times, first)
    pinned = fit_batch(best.kind, times, power, first[None], options.noise, weights)
    parameters = pinned.parameters[0]
    model = curve(best.kind, times, parameters[None])[0]
    reason = _no_bolus(times, power, model, bolus(best.kind, parameters))
    if reason:
        return NoBolus(given.name, reason)
    if options.method == "model-free":
        model = smoother(times, options.smoothing_s) @ power
        return CurveWork(given, times, power, None, parameters, model, first, options.noise)
    work = CurveWork(given, times, power, best.kind, parameters, model, first, options.noise)
    return replace(loosened(work), second_tail=True) if _tail_off(work) else work


def _thinned(times_s: Floats, power: Floats) -> tuple[Floats, Floats]:
    """Means over equal pauses when there are more samples than a fit needs."""
    if times_s.size <= _MOST_SAMPLES:
        return times_s, power
    edges = np.linspace(times_s[0], times_s[-1], _MOST_SAMPLES + 1)
    place = np.clip(np.searchsorted(edges, times_s, side="right") - 1, 0, _MOST_SAMPLES - 1)
    count = np.bincount(place, minlength=_MOST_SAMPLES)
    used = count > 0
    return tuple(
        np.bincount(place, values, _MOST_SAMPLES)[used] / count[used] for values in (times_s, power)
    )  # type: ignore[return-value]


def smoother(times_s: Floats, sd_s: float) -> Floats:
    """(N,N) weights of a local straight line, Gaussian in time; no bias on even slopes."""
    apart = times_s[None, :] - times_s[:, None]
    w = np.exp(-0.5 * (apart / sd_s) ** 2)
    s0, s1, s2 = w.sum(axis=1), (w * apart).sum(axis=1), (w * apart**2).sum(axis=1)
    spare = s0 * s2 - s1**2
    straight = (w * (s2[:, None] - s1[:, None] * apart)) / np.where(spare > 0, spare, 1.0)[:, None]
    return np.where((spare > 1e-9 * s0**2)[:, None], straight, w / s0[:, None])


def _starts(kind: BolusKind, times_s: Floats, power: Floats) -> Floats:
    """Where to begin, (8,5): the peak of the smoothed curve, arrival before it by several rules."""
    smooth = smoother(times_s, 1.0) @ power
    top = int(smooth.argmax())
    base = float(np.quantile(smooth, 0.02))
    peak = max(float(smooth[top]) - base, 1e-12 * float(np.abs(power).max()))
    low = np.flatnonzero(smooth[: top + 1] < base + 0.1 * peak)
    onset = float(times_s[low[-1]]) if low.size else float(times_s[0])
    shapes = (0.4, 0.9) if kind is BolusKind.LOGNORMAL else (0.5, 3.0)
    starts = [
        [
            log(peak),
            log(max(float(times_s[top]) - onset + back, 0.5)),
            log(shape),
            onset - back,
            base,
        ]
        for back in (0.0, 1.0, 3.0, 8.0)
        for shape in shapes
    ]
    return np.array(starts)


def _weights(times_s: Floats, parameters: Floats) -> Floats:
    """Weights (N,) that let the frames before arrival say what the offset is.

    Nothing flickers there but the floor, so they know it far better than the tail does, where
    agent that stays is taken for it.
    """
    rise = exp(float(parameters[1]))
    before = times_s < parameters[3] - max(_BEFORE_S, 0.2 * rise)
    return np.where(before, _BEFORE_WEIGHT, 1.0)


def _no_bolus(times_s: Floats, power: Floats, model: Floats, found: Bolus) -> str:
    """Why the curve shows no bolus; empty when it does.

    Means over blocks of 2.5 s are all but independent: an F test asks whether the model leaves
    less of their variance than chance lets four parameters take.
    """
    values = curve_values(found)
    block = ((times_s - times_s[0]) // _BLOCK_S).astype(np.intp)
    count = np.bincount(block)
    used = count > 0
    means, left = (np.bincount(block, v)[used] / count[used] for v in (power, power - model))
    free = means.size - N_PARAMETERS
    if free < 1:
        return f"{means.size} blocks of {_BLOCK_S} s are too few to tell a bolus from noise"
    whole, rest = float(((means - means.mean()) ** 2).sum()), float((left**2).sum())
    ratio = max(whole - rest, 0.0) / (N_PARAMETERS - 1) / max(rest / free, 1e-300)
    if float(fdtrc(N_PARAMETERS - 1, free, ratio)) > _NO_BOLUS_P:
        return "no bolus: the curve does not rise above its own noise"
    if not times_s[0] < values.peak_at_s < times_s[-1]:
        where = "after" if values.peak_at_s >= times_s[-1] else "before"
        return f"the peak is not seen: it lies {where} the usable frames"
    return ""


def figures_of(work: CurveWork, power: Floats, parameters: Floats) -> dict[str, float]:
    """All figures by plain name, asked for or not."""
    if work.kind is None:
        found = _read_off(work.times_s, work.model if power is work.power else power)
        return {**found, "QOF": _quality(work.power, work.model)}
    model = bolus(work.kind, parameters)
    named = _named(curve_values(model))
    if isinstance(model, GammaVariate):
        named |= {"alpha": model.alpha, "beta": model.beta_s}
    else:
        named |= {"mu": model.mu, "sigma": model.sigma}
    return {**named, "QOF": _quality(work.power, work.model)}


def figures_by_other_weights(
    work: CurveWork, values: Mapping[str, float]
) -> list[Mapping[str, float]]:
    """The figures of fits that look harder at onset and tail, or at the peak: the same if the
    model is true."""
    if work.kind is None:
        return [values]
    floor, times, start = work.noise.floor, work.times_s, work.parameters[None]
    pinned = None if work.second_tail else _weights(times, work.parameters)
    ways = [(Noise(factor * floor), pinned) for factor in _OTHER_FLOORS]
    fits = [
        fit_batch(work.kind, times, work.power, start, noise, weights)
        for noise, weights in (*ways, (work.noise, None))
    ]
    return [figures_of(work, work.power, fit.parameters[0]) for fit in fits]


def _named(values: CurveValues) -> dict[str, float]:
    return {
        "PE": values.peak,
        "TTP": values.peak_at_s,
        "RT": values.rise_s,
        "FT": values.fall_s,
        "mTT": values.transit_s,
        "WiAUC": values.wash_in,
        "WoAUC": values.wash_out,
        "WiWoAUC": values.wash_in + values.wash_out,
        "WiR": values.rise_rate,
        "WoR": values.fall_rate,
        "WiPI": values.wash_in_index,
        "t0": values.arrival_s,
    }


def _quality(power: Floats, model: Floats) -> float:
    return 1.0 - float(((power - model) ** 2).sum() / ((power - power.mean()) ** 2).sum())


def _read_off(times_s: Floats, smooth: Floats) -> dict[str, float]:
    """Figures of a smoothed curve without a model; areas and mTT end with the clip.

    The offset is the lowest tenth before the peak; t0 is where the tangent at the steepest rise
    meets it, which is later than the first echo.
    """
    top = int(smooth.argmax())
    before = np.sort(smooth[: top + 1])
    offset = float(before[: max(1, before.size // 10)].mean())
    slope = np.gradient(smooth, times_s)
    up = int(slope[: top + 1].argmax())
    down = top + int(slope[top:].argmin())
    peak, rise = float(smooth[top]) - offset, float(slope[up])
    fall = float(slope[down])
    t0 = float(times_s[up]) - (float(smooth[up]) - offset) / rise if rise > 0 else float("nan")
    above = smooth - offset
    since = times_s >= t0
    into, out = since & (times_s <= times_s[top]), times_s >= times_s[top]
    wash_in = float(np.trapezoid(above[into], times_s[into]))
    wash_out = float(np.trapezoid(above[out], times_s[out]))
    moment = float(np.trapezoid((above * (times_s - t0))[since], times_s[since]))
    return {
        "PE": peak,
        "TTP": float(times_s[top]),
        "RT": peak / rise if rise > 0 else float("nan"),
        "FT": -peak / fall if fall < 0 else float("nan"),
        "mTT": moment / (wash_in + wash_out),
        "WiAUC": wash_in,
        "WoAUC": wash_out,
        "WiWoAUC": wash_in + wash_out,
        "WiR": rise,
        "WoR": fall,
        "WiPI": wash_in * rise / peak,
        "t0": t0,
    }


def unseen(work: CurveWork, values: Mapping[str, float]) -> tuple[dict[str, str], list[str]]:
    """Why which figures are not answered, and what to be wary of."""
    reasons: dict[str, str] = {}
    warnings: list[str] = []
    first, last = float(work.times_s[0]), float(work.times_s[-1])

    def withhold(names: tuple[str, ...], why: str) -> None:
        warnings.append(why)
        for name in names:
            reasons.setdefault(name, why)

    rising = int(((work.times_s >= values["t0"]) & (work.times_s <= values["TTP"])).sum())
    model = bolus(work.kind or BolusKind.LOGNORMAL, work.parameters)
    steep = curve_values(model)
    if first > steep.rise_rate_at_s:
        # Without a model the offset is what the clip starts with.
        names = _RISE if work.kind else (*_RISE, *POWERS)
        withhold(names, "the wash-in is not seen: the clip starts after the steepest rise")
    if last < steep.fall_rate_at_s or model.until(last) < 0.5 * model.total():
        withhold(_FALL, "the wash-out is not seen: the clip ends too early")
    elif work.kind is None:
        left = float(work.model[-1] - work.model.max()) / values["PE"] + 1
        if left > _MODEL_FREE_END:
            why = f"the clip ends at {100 * left:.0f} % of the peak: too early without a model"
            withhold(("mTT", "WoAUC", "WiWoAUC"), why)
    elif work.second_tail:
        withhold(("mTT",), "the tail does not follow one bolus: a second, slower one is in it")
    if rising < 3:
        withhold(_RISE, f"{rising} usable frames between arrival and peak are too few")
    white = work.given.saturated_share
    if white > _WHITE_REFUSED:
        withhold(POWERS, f"{100 * white:.0f} % of the region is at full white at the peak")
    elif white > _WHITE_SAID:
        # Of exponentially distributed echo, clipping a share s takes s of the mean.
        warnings.append(f"white pixels make the peak about {100 * white:.0f} % too low")
    if not work.given.linear:
        warnings.append("dynamic range not known: figures are of grey levels, not of echo power")
    return reasons, warnings


def spread_of(work: CurveWork) -> Floats:
    """Spread (N,) of the residuals up to a factor: their own, not that of the fit's weights."""
    if work.kind is None:
        offset = float(work.model.min())
        peak = float(work.model.max()) - offset
    else:
        offset, peak = float(work.parameters[4]), exp(float(work.parameters[0]))
    agent = work.model - offset
    floor = own_noise(agent, work.power - work.model, peak).floor
    return np.sqrt(agent**2 + (floor * peak) ** 2)


def _tail_off(work: CurveWork) -> bool:
    """Whether two slower boluses on top would take significantly more of the residuals.

    A score test: their shapes and the slopes of the parameters are regressed on the residuals,
    and an F test counts as many samples as are independent. The rise counts less than it could:
    several arrivals in one region are no second tail.
    """
    assert work.kind is not None
    f, slopes = curve_and_slopes(work.kind, work.times_s, work.parameters[None])
    slower = np.repeat(work.parameters[None], 2, axis=0)
    slower[:, 1] += np.log([3.0, 8.0])
    slower[:, 2] = log(0.7)
    slower[:, 4] = 0.0
    added = curve(BolusKind.LOGNORMAL, work.times_s, slower)
    rise = exp(float(work.parameters[1]))
    since = (work.times_s - work.parameters[3]) / rise
    own, fitted = spread_of(work), spread(f, work.parameters[None], work.noise)[0]
    sd = np.where((since > -0.3) & (since < 1.0), np.maximum(fitted, own), own)
    r = (work.power - work.model) / sd
    few, many = (
        np.concatenate(rows).T / sd[:, None] for rows in ((slopes[0],), (slopes[0], added))
    )
    left_few, left = (r - a @ np.linalg.lstsq(a, r, rcond=None)[0] for a in (few, many))
    rest = float((left**2).sum())
    # Residuals below a thousandth of the curve are no noise to test against.
    if float(np.abs(work.power - work.model).max()) < 1e-3 * np.ptp(work.model):
        return False
    together = correlated(left)
    free = left.size / together - many.shape[1]
    if free < 1 or together * float(np.median(np.diff(work.times_s))) > _LONGEST_NOISE_S:
        return True
    ratio = (float((left_few**2).sum()) - rest) / rest * free / len(added)
    return float(fdtrc(len(added), free, max(ratio, 0.0))) < _TAIL_P
