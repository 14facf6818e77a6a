"""How does a region take up contrast, and how sure are the figures?

A curve of linear echo power over seconds is fitted by a lognormal or gamma-variate bolus, or read
without a model from the smoothed curve. Figures and their names:

    PE      peak enhancement above the offset            WiR, WoR   steepest rise and fall per s
    TTP     time of the peak                             WiAUC      area from arrival to peak
    t0      arrival                                      WoAUC      area after the peak
    RT, FT  rise and fall time, by the tangents          WiWoAUC    both
    mTT     mean time since arrival                      WiPI       WiAUC / RT
    QOF     1 - SSE / SST                                mu, sigma or alpha, beta: of the model

(C. Strouthos et al., IEEE Trans. UFFC 57:1296, 2010; closed forms in `renalkit.ceus.bolus`.) TTP
and t0 count from the zero of the times. Figures of a curve in grey levels end in `_display`: they
are no measure of the amount of agent.

Intervals come from a block bootstrap: residuals, put on one scale by their own variance model, are
drawn in blocks that are longer than they are correlated, and the model is fitted again (H. Kunsch,
Ann. Statist. 17:1217, 1989; block length of D. Politis and H. White, Econom. Rev. 23:53, 2004). The
same blocks serve all curves of a clip, so ratios of lesion to cortex use what both share.

What a clip does not show is not answered: no bolus, a peak outside the clip, a wash-in or wash-out
that was not seen, a tail that one bolus does not describe, a peak at full white.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import exp, hypot, log, sqrt
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import fdtrc

from renalkit.ceus.bolus import (
    Bolus,
    BolusKind,
    CurveValues,
    GammaVariate,
    curve_values,
)
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

Floats = npt.NDArray[np.float64]
Method = Literal["lognormal", "gamma-variate", "model-free"]

POWERS = ("PE", "WiAUC", "WoAUC", "WiWoAUC", "WiR", "WoR", "WiPI")
"""Figures in units of power (times or per seconds)."""

DURATIONS = ("RT", "FT", "mTT")
MOMENTS = ("TTP", "t0")
"""Times that count from the zero of the times."""

_RISE = ("t0", "RT", "mTT", "WiAUC", "WiWoAUC", "WiR", "WiPI", "mu", "sigma", "alpha", "beta")
_FALL = ("FT", "mTT", "WoAUC", "WiWoAUC", "WoR", "mu", "sigma", "alpha", "beta")
_EVERY = (*POWERS, *DURATIONS, *MOMENTS, "mu", "sigma", "alpha", "beta")
_PER_SECOND = {"WiR": "/s", "WoR": "/s", "WiAUC": " s", "WoAUC": " s", "WiWoAUC": " s"}

_FEWEST_FRAMES = 20
_SHORTEST_S = 10.0
_BLOCK_S = 2.5  # of the test for a bolus: longer than echoes are correlated
_NO_BOLUS_P = 1e-4
_TAIL_P = 0.02
_MOST_SAMPLES = 800
_MODEL_FREE_END = 0.1  # share of the peak
_WHITE_REFUSED, _WHITE_SAID = 0.05, 0.01
_REFIT_STEPS = 20
_OTHER_FLOORS = (0.1, 4.0)
_FLOORS = np.geomspace(1e-3, 2.0, 24)


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
class Figure:
    """One figure. value: None when the clip does not show it; reason says why. low, high: the
    interval, None without one."""

    name: str
    unit: str
    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class NoBolus:
    """No figures, because the curve shows no bolus; reason says what it shows."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class CurveFit:
    """A fitted curve.

    method: as used. bolus: None without a model. times_s, fitted: (T,) the fit on all frames of
    the curve, offset included. figures: by name. warnings: in words. residual: standard deviation
    as a share of PE. block_s: length of the bootstrap's blocks.
    """

    name: str
    method: Method
    bolus: Bolus | None
    times_s: Floats
    fitted: Floats
    figures: Mapping[str, Figure]
    warnings: tuple[str, ...]
    residual: float
    frames: int
    block_s: float
    unit: str
    linear: bool

    def value(self, name: str) -> float | None:
        """A figure by its plain name (without `_display`)."""
        figure = self.figures.get(_shown(name, self.linear))
        return None if figure is None else figure.value


@dataclass(frozen=True, slots=True)
class Comparison:
    """Lesion against reference. ratios, differences: by name of the figure."""

    of: str
    reference: str
    ratios: Mapping[str, Figure]
    differences: Mapping[str, Figure]


@dataclass(frozen=True, slots=True)
class Perfusion:
    """What all regions of a clip show. comparisons: of each other region with the reference."""

    curves: Mapping[str, CurveFit | NoBolus]
    comparisons: tuple[Comparison, ...]
    options: FitOptions


def analyse(
    curves: Mapping[str, RoiCurve], options: FitOptions | None = None, reference: str = "cortex"
) -> Perfusion:
    """Fit all curves of a clip, with intervals, and compare each with the reference.

    Args:
        curves: by name, on the same frames. A frame counts when every curve keeps it.
        reference: name of the region to compare with; no comparison when it is not there.

    Raises:
        ValueError: curves have different frames.
    """
    chosen = options or FitOptions()
    if not curves:
        raise ValueError("no curve to analyse")
    first = next(iter(curves.values()))
    if any(not np.array_equal(c.times_s, first.times_s) for c in curves.values()):
        raise ValueError("curves to be compared must be of the same frames")
    kept = np.logical_and.reduce([c.kept for c in curves.values()])
    prepared = {n: _prepared(replace(c, kept=kept), chosen) for n, c in curves.items()}
    works = {name: work for name, work in prepared.items() if isinstance(work, _Work)}
    residuals = {name: _residuals(work) for name, work in works.items()}
    # One length of block for all curves: what they share must be drawn together.
    block = max((part.block for part in residuals.values()), default=2)
    drawn = {
        name: _resampled(work, replace(residuals[name], block=block), chosen)
        for name, work in works.items()
    }
    found: dict[str, CurveFit | NoBolus] = {
        name: _figures(work, drawn[name], block, chosen) if isinstance(work, _Work) else work
        for name, work in prepared.items()
    }
    comparisons = tuple(
        _compared((fit, drawn[name]), (base, drawn[reference]), chosen)
        for name, fit in found.items()
        if name != reference
        and isinstance(fit, CurveFit)
        and isinstance(base := found.get(reference), CurveFit)
    )
    return Perfusion(found, comparisons, chosen)


def fit_curve(given: RoiCurve, options: FitOptions | None = None) -> CurveFit | NoBolus:
    """`analyse` for one curve."""
    return analyse({given.name: given}, options, reference="").curves[given.name]


# Fit


@dataclass(frozen=True, slots=True, eq=False)
class _Work:
    """A curve on its way to figures. times_s, power: (N,) kept and thinned. model: of (N,)."""

    given: RoiCurve
    times_s: Floats
    power: Floats
    kind: BolusKind | None
    parameters: Floats
    model: Floats
    noise: Noise


def _prepared(given: RoiCurve, options: FitOptions) -> _Work | NoBolus:
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
    parameters = best.parameters[int(best.score.argmin())]
    model = curve(best.kind, times, parameters[None])[0]
    reason = _no_bolus(times, power, model, bolus(best.kind, parameters))
    if reason:
        return NoBolus(given.name, reason)
    if options.method == "model-free":
        model = _smoother(times, options.smoothing_s) @ power
        return _Work(given, times, power, None, parameters, model, options.noise)
    return _Work(given, times, power, best.kind, parameters, model, options.noise)


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


def _smoother(times_s: Floats, sd_s: float) -> Floats:
    """(N,N) weights of a local straight line, Gaussian in time; no bias on even slopes."""
    apart = times_s[None, :] - times_s[:, None]
    w = np.exp(-0.5 * (apart / sd_s) ** 2)
    s0, s1, s2 = w.sum(axis=1), (w * apart).sum(axis=1), (w * apart**2).sum(axis=1)
    spare = s0 * s2 - s1**2
    straight = (w * (s2[:, None] - s1[:, None] * apart)) / np.where(spare > 0, spare, 1.0)[:, None]
    return np.where((spare > 1e-9 * s0**2)[:, None], straight, w / s0[:, None])


def _starts(kind: BolusKind, times_s: Floats, power: Floats) -> Floats:
    """Where to begin, (8,5): the peak of the smoothed curve, arrival before it by several rules."""
    smooth = _smoother(times_s, 1.0) @ power
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


# Figures


def _figures(work: _Work, drawn: Mapping[str, Floats], block: int, options: FitOptions) -> CurveFit:
    """The figures with intervals from their replicates (R,) by plain name."""
    given = work.given
    values = _values(work, work.power, work.parameters)
    others = _with_other_weights(work, values)
    reasons, warnings = _unseen(work, values)
    figures: dict[str, Figure] = {}
    for name, value in values.items():
        shown = _shown(name, given.linear)
        unit = _unit(name, given.unit)
        if name in reasons or not np.isfinite(value):
            figures[shown] = Figure(shown, unit, None, reason=reasons.get(name, "undefined"))
            continue
        low, high = _interval(
            (value, *(other[name] for other in others)),
            drawn.get(name),
            options.level,
            logarithmic=_is_scale(name),
        )
        figures[shown] = Figure(shown, unit, value, low, high)
    pause = float(np.median(np.diff(work.times_s)))
    if work.kind is None:
        fitted = np.interp(given.times_s, work.times_s, work.model)
    else:
        fitted = curve(work.kind, given.times_s, work.parameters[None])[0]
    return CurveFit(
        name=given.name,
        method="model-free" if work.kind is None else work.kind.value,
        bolus=None if work.kind is None else bolus(work.kind, work.parameters),
        times_s=given.times_s,
        fitted=fitted,
        figures=figures,
        warnings=tuple(warnings),
        residual=float(np.std(work.power - work.model)) / max(values["PE"], 1e-300),
        frames=int(given.kept.sum()),
        block_s=block * pause,
        unit=given.unit,
        linear=given.linear,
    )


def _values(work: _Work, power: Floats, parameters: Floats) -> dict[str, float]:
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


def _with_other_weights(work: _Work, values: Mapping[str, float]) -> list[Mapping[str, float]]:
    """The figures of fits that look harder at onset and tail, or at the peak: the same if the
    model is true."""
    if work.kind is None:
        return [values]
    found: list[Mapping[str, float]] = []
    for factor in _OTHER_FLOORS:
        other = Noise(factor * work.noise.floor)
        again = fit_batch(work.kind, work.times_s, work.power, work.parameters[None], other)
        found.append(_values(work, work.power, again.parameters[0]))
    return found


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


def _unseen(work: _Work, values: Mapping[str, float]) -> tuple[dict[str, str], list[str]]:
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
    elif _tail_off(work):
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


def _tail_off(work: _Work) -> bool:
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
    own, fitted = (
        spread(f, work.parameters[None], noise)[0] for noise in (_own_noise(work), work.noise)
    )
    sd = np.where((since > -0.3) & (since < 1.0), np.maximum(fitted, own), own)
    r = (work.power - work.model) / sd
    few, many = (
        np.concatenate(rows).T / sd[:, None] for rows in ((slopes[0],), (slopes[0], added))
    )
    left_few, left = (r - a @ np.linalg.lstsq(a, r, rcond=None)[0] for a in (few, many))
    rest = float((left**2).sum())
    free = left.size / _correlated(left) - many.shape[1]
    # Residuals below a thousandth of the curve are no noise to test against.
    if free < 1 or float(np.abs(work.power - work.model).max()) < 1e-3 * np.ptp(work.model):
        return False
    ratio = (float((left_few**2).sum()) - rest) / rest * free / len(added)
    return float(fdtrc(len(added), free, max(ratio, 0.0))) < _TAIL_P


# Intervals


@dataclass(frozen=True, slots=True, eq=False)
class _Residuals:
    """relative: (N,) over their own spread. block: samples drawn together. sd: (N,) the spread."""

    relative: Floats
    block: int
    sd: Floats


def _own_noise(work: _Work) -> Noise:
    """The floor that makes the residuals most likely, which need not be that of the fit."""
    agent = work.model - work.parameters[4]
    peak = exp(float(work.parameters[0]))
    squares = (work.power - work.model) ** 2
    variance = agent[None] ** 2 + (_FLOORS[:, None] * peak) ** 2
    mean = np.maximum((squares / variance).mean(axis=1), 1e-300)
    cost = squares.size * np.log(mean) + np.log(variance).sum(axis=1)
    return Noise(float(_FLOORS[int(cost.argmin())]))


def _residuals(work: _Work) -> _Residuals:
    parameters = work.parameters
    if work.kind is None:
        peak, offset = float(work.model.max()), float(work.model.min())
        parameters = np.array([log(max(peak - offset, 1e-300)), 0, 0, 0, offset])
        work = replace(work, parameters=parameters)
    sd = spread(work.model[None], parameters[None], _own_noise(work))[0]
    relative = (work.power - work.model) / sd
    n, tau = relative.size, _correlated(relative)
    lag = (tau - 1) / (tau + 1)  # of the AR(1) process with this correlation time
    block = int(np.clip(round(1.5 * (6 * lag**2 / (1 - lag**2) ** 2 * n) ** (1 / 3)), 2, n // 4))
    independent = n / tau
    # Fitting took up as many independent residuals as there are parameters.
    grown = independent / max(independent - N_PARAMETERS, 1.0)
    # Blocks cut correlations at their ends; this much of the variance of a mean is lost.
    lost = min(0.5, 2 * lag / ((1 - lag**2) * block))
    return _Residuals((relative - relative.mean()) * sqrt(grown / (1 - lost)), block, sd)


def _correlated(residuals: Floats) -> float:
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


def _resampled(work: _Work, residuals: _Residuals, options: FitOptions) -> dict[str, Floats]:
    """Figures of refitted curves, (R,) by plain name; blocks depend on seed and frames only."""
    if options.resamples == 0:
        return {}
    n, block = residuals.relative.size, residuals.block
    rng = np.random.default_rng(options.seed)
    starts = rng.random((options.resamples, n))[:, : -(-n // block)]
    first = (starts * n).astype(np.intp)
    places = ((first[:, :, None] + np.arange(block)) % n).reshape(options.resamples, -1)[:, :n]
    curves = work.model + residuals.sd * residuals.relative[places]
    if work.kind is None:
        smooth = curves @ _smoother(work.times_s, options.smoothing_s).T
        rows = [_values(work, row, work.parameters) for row in smooth]
    else:
        starts_at = np.repeat(work.parameters[None], options.resamples, axis=0)
        refits = fit_batch(
            work.kind, work.times_s, curves, starts_at, options.noise, steps=_REFIT_STEPS
        )
        rows = [_values(work, work.power, row) for row in refits.parameters]
    names = [name for name in rows[0] if name != "QOF"]
    return {name: np.array([row[name] for row in rows]) for name in names}


def _is_scale(name: str) -> bool:
    return name in POWERS or name in DURATIONS or name in ("alpha", "beta", "sigma")


def _interval(
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


# Comparison


def _compared(
    ours: tuple[CurveFit, dict[str, Floats]],
    reference: tuple[CurveFit, dict[str, Floats]],
    options: FitOptions,
) -> Comparison:
    (fit, drawn), (base, base_drawn) = ours, reference
    ratios: dict[str, Figure] = {}
    differences: dict[str, Figure] = {}
    for plain in (*POWERS, *DURATIONS, *MOMENTS):
        name = _shown(plain, fit.linear)
        a, b = fit.figures[name], base.figures[name]
        reason = a.reason or b.reason
        pair = drawn.get(plain), base_drawn.get(plain)
        both = None if pair[0] is None or pair[1] is None else (pair[0], pair[1])
        if plain not in MOMENTS or options.from_injection:
            ratios[name] = _ratio(name, (a.value, b.value), both, options.level, reason)
        if plain not in POWERS:
            differences[name] = _difference(name, (a.value, b.value), both, options.level, reason)
    return Comparison(fit.name, base.name, ratios, differences)


def _ratio(
    name: str,
    values: tuple[float | None, float | None],
    drawn: tuple[Floats, Floats] | None,
    level: float,
    reason: str,
) -> Figure:
    a, b = values
    if a is None or b is None or b == 0:
        return Figure(name, "", None, reason=reason or "undefined")
    with np.errstate(divide="ignore", invalid="ignore"):
        replicates = None if drawn is None else drawn[0] / drawn[1]
    low, high = _interval((a / b,), replicates, level, logarithmic=True)
    return Figure(name, "", a / b, low, high)


def _difference(
    name: str,
    values: tuple[float | None, float | None],
    drawn: tuple[Floats, Floats] | None,
    level: float,
    reason: str,
) -> Figure:
    a, b = values
    if a is None or b is None:
        return Figure(name, "s", None, reason=reason or "undefined")
    replicates = None if drawn is None else drawn[0] - drawn[1]
    low, high = _interval((a - b,), replicates, level, logarithmic=False)
    return Figure(name, "s", a - b, low, high)


def _shown(name: str, linear: bool) -> str:
    return name if linear or name == "QOF" else f"{name}_display"


def _unit(name: str, power: str) -> str:
    if name in POWERS:
        return power + _PER_SECOND.get(name, "")
    if name == "mu":
        return "ln s"
    return "" if name in ("QOF", "sigma", "alpha") else "s"
