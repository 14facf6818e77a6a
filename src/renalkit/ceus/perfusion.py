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

t0 and what follows from it have no interval: parts of a region that fill at different times move it
by more than noise does, and replicates of one bolus do not know that.

What a clip does not show is not answered: no bolus, a peak outside the clip, a wash-in or wash-out
that was not seen, a tail that one bolus does not describe, a peak at full white.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from renalkit.ceus.bolus import Bolus
from renalkit.ceus.curve_fit import (
    DURATIONS,
    MOMENTS,
    POWERS,
    CurveWork,
    FitOptions,
    Method,
    NoBolus,
    figures_by_other_weights,
    figures_of,
    loosened,
    prepared,
    smoother,
    spread_of,
    unseen,
)
from renalkit.ceus.curves import RoiCurve
from renalkit.ceus.fits import bolus, curve, fit_batch
from renalkit.ceus.residuals import Residuals, drawn_curves, in_blocks, interval

__all__ = [
    "DURATIONS",
    "MOMENTS",
    "POWERS",
    "Comparison",
    "CurveFit",
    "Figure",
    "FitOptions",
    "NoBolus",
    "Perfusion",
    "analyse",
    "fit_curve",
]

Floats = npt.NDArray[np.float64]

_PER_SECOND = {"WiR": "/s", "WoR": "/s", "WiAUC": " s", "WoAUC": " s", "WiWoAUC": " s"}
_REFIT_STEPS = 20
_NO_INTERVAL = {
    "t0": "no interval: parts of the region that fill at different times move it more than noise"
}


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure. value: None when the clip does not show it. low, high: the interval, None without
    one. reason: why there is no value, or no interval of a figure that is never given one."""

    name: str
    unit: str
    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""


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
    asked = {n: prepared(replace(c, kept=kept), chosen) for n, c in curves.items()}
    works = {name: work for name, work in asked.items() if isinstance(work, CurveWork)}
    # Intervals do not rely on what the frames before arrival say of the offset.
    loose = {name: loosened(work) for name, work in works.items()}
    residuals = {
        name: in_blocks(work.power - work.model, spread_of(work)) for name, work in loose.items()
    }
    # One length of block for all curves: what they share must be drawn together.
    block = max((part.block for part in residuals.values()), default=2)
    drawn = {name: _resampled(work, residuals[name], block, chosen) for name, work in loose.items()}
    found: dict[str, CurveFit | NoBolus] = {
        name: _figures(work, drawn[name], block, chosen) if isinstance(work, CurveWork) else work
        for name, work in asked.items()
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


# Figures of a curve


def _figures(
    work: CurveWork, drawn: Mapping[str, Floats], block: int, options: FitOptions
) -> CurveFit:
    """The figures with intervals from their replicates (R,) by plain name."""
    given = work.given
    values = figures_of(work, work.power, work.parameters)
    others = figures_by_other_weights(work, values)
    reasons, warnings = unseen(work, values)
    figures: dict[str, Figure] = {}
    for name, value in values.items():
        shown = _shown(name, given.linear)
        unit = _unit(name, given.unit)
        if name in reasons or not np.isfinite(value):
            figures[shown] = Figure(shown, unit, None, reason=reasons.get(name, "undefined"))
            continue
        low, high = interval(
            (value, *(other[name] for other in others)),
            None if name in _NO_INTERVAL else drawn.get(name),
            options.level,
            logarithmic=_is_scale(name),
        )
        figures[shown] = Figure(shown, unit, value, low, high, _NO_INTERVAL.get(name, ""))
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


def _resampled(
    work: CurveWork, residuals: Residuals, block: int, options: FitOptions
) -> dict[str, Floats]:
    """Figures of refitted curves, (R,) by plain name."""
    if options.resamples == 0:
        return {}
    curves = drawn_curves(work.model, residuals, block, options.resamples, options.seed)
    if work.kind is None:
        smooth = curves @ smoother(work.times_s, options.smoothing_s).T
        rows = [figures_of(work, row, work.parameters) for row in smooth]
    else:
        starts_at = np.repeat(work.parameters[None], options.resamples, axis=0)
        refits = fit_batch(
            work.kind, work.times_s, curves, starts_at, options.noise, steps=_REFIT_STEPS
        )
        rows = [figures_of(work, work.power, row) for row in refits.parameters]
    names = [name for name in rows[0] if name != "QOF"]
    return {name: np.array([row[name] for row in rows]) for name in names}


def _is_scale(name: str) -> bool:
    return name in POWERS or name in DURATIONS or name in ("alpha", "beta", "sigma")


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
        reason = next((f.reason for f in (a, b) if f.value is None), _NO_INTERVAL.get(plain, ""))
        both = None
        if plain not in _NO_INTERVAL and plain in drawn and plain in base_drawn:
            both = drawn[plain], base_drawn[plain]
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
    low, high = interval((a / b,), replicates, level, logarithmic=True)
    return Figure(name, "", a / b, low, high, reason)


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
    low, high = interval((a - b,), replicates, level, logarithmic=False)
    return Figure(name, "s", a - b, low, high, reason)


def _shown(name: str, linear: bool) -> str:
    return name if linear or name == "QOF" else f"{name}_display"


def _unit(name: str, power: str) -> str:
    if name in POWERS:
        return power + _PER_SECOND.get(name, "")
    if name == "mu":
        return "ln s"
    return "" if name in ("QOF", "sigma", "alpha") else "s"
