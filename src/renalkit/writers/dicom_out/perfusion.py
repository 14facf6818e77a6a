"""Under which codes do the figures of a bolus fit go into a report?

Time to peak, mean transit time and arrival have codes of the standard (PS3.16 CID 4108, 4109), the
others are our own. The same figure of grey levels instead of echo power is another concept: it is
no measure of the amount of agent.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from renalkit import __version__
from renalkit.ceus.curves import RoiCurve
from renalkit.ceus.perfusion import Comparison, CurveFit, Figure, FitOptions
from renalkit.writers.dicom_out.codes import (
    ECHO_GREY,
    ECHO_POWER,
    FIRST_FRAME,
    FITTING,
    GREY,
    GREY_PER_S,
    GREY_S,
    ONE,
    POWER,
    POWER_PER_S,
    POWER_S,
    PRIVATE,
    RATIO,
    SECOND,
    Algorithm,
    Code,
)
from renalkit.writers.dicom_out.report import MOST_CURVE_POINTS, Curve, Quantity

FIGURES: Mapping[str, tuple[Code, Code]] = {
    "PE": (Code("PE", PRIVATE, "Peak enhancement"), POWER),
    "TTP": (Code("113069", "DCM", "Time To Peak"), SECOND),
    "t0": (Code("126371", "DCM", "Bolus Arrival Time"), SECOND),
    "mTT": (Code("113052", "DCM", "Mean Transit Time"), SECOND),
    "RT": (Code("RT", PRIVATE, "Rise time"), SECOND),
    "FT": (Code("FT", PRIVATE, "Fall time"), SECOND),
    "WiAUC": (Code("WIAUC", PRIVATE, "Area before the peak"), POWER_S),
    "WoAUC": (Code("WOAUC", PRIVATE, "Area after the peak"), POWER_S),
    "WiWoAUC": (Code("WIWOAUC", PRIVATE, "Area under the curve"), POWER_S),
    "WiR": (Code("WIR", PRIVATE, "Steepest rise"), POWER_PER_S),
    "WoR": (Code("WOR", PRIVATE, "Steepest fall"), POWER_PER_S),
    "WiPI": (Code("WIPI", PRIVATE, "Area before peak over rise time"), POWER),
    "QOF": (Code("QOF", PRIVATE, "Explained share of the curve's variance"), ONE),
    "mu": (Code("MU", PRIVATE, "Mean of ln(transit time / s), lognormal model"), ONE),
    "sigma": (Code("SIGMA", PRIVATE, "Spread of ln(transit time / s), lognormal model"), ONE),
    "alpha": (Code("ALPHA", PRIVATE, "Exponent of the gamma variate"), ONE),
    "beta": (Code("BETA", PRIVATE, "Time constant of the gamma variate"), SECOND),
}
"""Code and unit of a figure of `ceus.perfusion` of linear echo power, by name."""

_GREY_UNITS = {POWER: GREY, POWER_S: GREY_S, POWER_PER_S: GREY_PER_S}
_DISPLAY = "_display"


def coded(name: str) -> tuple[Code, Code]:
    """Code and unit of a figure, also of one that ends in `_display`."""
    code, unit = FIGURES[name.removesuffix(_DISPLAY)]
    if not name.endswith(_DISPLAY):
        return code, unit
    grey = Code(_plain(name), PRIVATE, f"{code.meaning}, of grey levels")
    return grey, _GREY_UNITS.get(unit, unit)


def compared(name: str, *, ratio: bool) -> tuple[Code, Code]:
    """Code and unit of a figure divided by that of the reference region, or less that of it."""
    code, unit = coded(name)
    if ratio:
        return Code(f"X-{_plain(name)}", PRIVATE, f"{code.meaning}, over reference"), RATIO
    return Code(f"D-{_plain(name)}", PRIVATE, f"{code.meaning}, minus reference"), unit


def _plain(name: str) -> str:
    """A private code value from a figure's name."""
    plain = name.removesuffix(_DISPLAY).upper()
    return f"GREY-{plain}" if name.endswith(_DISPLAY) else plain


def quantities(fit: CurveFit, comparison: Comparison | None = None) -> list[Quantity]:
    """The figures a fit gives, then their ratios and differences to the reference."""
    found = [_quantity(figure, coded(name)) for name, figure in fit.figures.items()]
    if comparison is not None:
        for name, figure in comparison.ratios.items():
            found.append(_quantity(figure, compared(name, ratio=True)))
        for name, figure in comparison.differences.items():
            found.append(_quantity(figure, compared(name, ratio=False)))
    return [quantity for quantity in found if quantity is not None]


def _quantity(figure: Figure, coded: tuple[Code, Code]) -> Quantity | None:
    if figure.value is None:
        return None
    interval = None
    if figure.low is not None and figure.high is not None:
        interval = figure.low, figure.high
    return Quantity(coded[0], figure.value, coded[1], interval)


def fit_algorithm(fit: CurveFit, options: FitOptions) -> Algorithm:
    """How the figures were made."""
    settings = {"frames": str(fit.frames), "region": "linear" if fit.linear else "grey levels"}
    if options.resamples:
        settings |= {
            "interval": f"{100 * options.level:g} %",
            "bootstrap": f"{options.resamples} resamples in blocks of {fit.block_s:.2f} s",
            "seed": str(options.seed),
        }
    return Algorithm(f"bolus fit: {fit.method}", __version__, FITTING, settings)


def echo_curve(curve: RoiCurve, since: Code = FIRST_FRAME) -> Curve:
    """The kept points of a region's curve, evenly thinned to what a report takes.

    Frame i of the curve is frame i of the source.
    """
    kept = np.flatnonzero(curve.kept)
    if kept.size > MOST_CURVE_POINTS:
        kept = kept[np.linspace(0, kept.size - 1, MOST_CURVE_POINTS).round().astype(np.intp)]
    concept, unit = (ECHO_POWER, POWER) if curve.linear else (ECHO_GREY, GREY)
    return Curve(
        concept,
        unit,
        [float(t) for t in curve.times_s[kept]],
        [float(v) for v in curve.power[kept]],
        [int(i) for i in kept],
        since,
    )
