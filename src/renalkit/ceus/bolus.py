"""Which model describes a bolus curve, and which figures follow from it exactly?

A bolus curve is the linear echo power over the seconds since injection. Two models are offered:

    lognormal      I(t) = A / (sqrt(2 pi) sigma x) exp(-(ln x - mu)^2 / (2 sigma^2)) + C
    gamma variate  I(t) = A x^alpha exp(-x / beta) + C                   x = t - t0 > 0

(C. Strouthos et al., IEEE Trans. UFFC 57:1296, 2010). `curve_values` gives the usual figures in
closed form; `mixture_values` those of a region that holds several tissues.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import gamma, gammainc, ndtr

Times = npt.NDArray[np.float64]


class BolusKind(StrEnum):
    """The model of a bolus curve."""

    LOGNORMAL = "lognormal"
    GAMMA = "gamma-variate"


@dataclass(frozen=True, slots=True)
class Lognormal:
    """A lognormal bolus. area: A. arrival_s: t0. offset: C."""

    area: float
    mu: float
    sigma: float
    arrival_s: float
    offset: float = 0.0

    def __post_init__(self) -> None:
        if not (self.area > 0 and self.sigma > 0):
            raise ValueError(f"not a bolus: area and sigma must be positive: {self}")

    def power(self, times_s: npt.ArrayLike) -> Times:
        """I(t), same shape as the times."""
        x = _since(times_s, self.arrival_s)
        z = (np.log(x) - self.mu) / self.sigma
        return self.area / (math.sqrt(2 * math.pi) * self.sigma * x) * np.exp(-z * z / 2) + (
            self.offset
        )

    def slope(self, times_s: npt.ArrayLike) -> Times:
        """dI/dt."""
        x = _since(times_s, self.arrival_s)
        bolus = self.power(times_s) - self.offset
        return -bolus / x * (1 + (np.log(x) - self.mu) / self.sigma**2)

    def total(self) -> float:
        """Area under the curve above the offset."""
        return self.area

    def until(self, time_s: float) -> float:
        """Area from arrival to a time."""
        x = float(_since(time_s, self.arrival_s))
        return self.area * float(ndtr((math.log(x) - self.mu) / self.sigma))


@dataclass(frozen=True, slots=True)
class GammaVariate:
    """A gamma-variate bolus. amplitude: A. beta_s: beta. arrival_s: t0. offset: C.

    alpha must exceed 1: below, the steepest rise is infinite and lies at arrival.
    """

    amplitude: float
    alpha: float
    beta_s: float
    arrival_s: float
    offset: float = 0.0

    def __post_init__(self) -> None:
        if not (self.amplitude > 0 and self.alpha > 1 and self.beta_s > 0):
            raise ValueError(
                f"not a bolus: amplitude and beta_s must be positive, alpha above 1: {self}"
            )

    def power(self, times_s: npt.ArrayLike) -> Times:
        """I(t), same shape as the times."""
        x = _since(times_s, self.arrival_s)
        return self.amplitude * np.exp(self.alpha * np.log(x) - x / self.beta_s) + self.offset

    def slope(self, times_s: npt.ArrayLike) -> Times:
        """dI/dt."""
        x = _since(times_s, self.arrival_s)
        return (self.power(times_s) - self.offset) * (self.alpha / x - 1 / self.beta_s)

    def total(self) -> float:
        """Area under the curve above the offset."""
        order = self.alpha + 1
        return self.amplitude * self.beta_s**order * float(gamma(order))

    def until(self, time_s: float) -> float:
        """Area from arrival to a time."""
        x = float(_since(time_s, self.arrival_s))
        return self.total() * float(gammainc(self.alpha + 1, x / self.beta_s))


Bolus = Lognormal | GammaVariate


def _since(times_s: npt.ArrayLike, arrival_s: float) -> Times:
    # Before arrival both models tend to 0 with x; 1e-9 s stands for "just arrived".
    return np.maximum(np.asarray(times_s, np.float64) - arrival_s, 1e-9)


@dataclass(frozen=True, slots=True)
class CurveValues:
    """What is read off a bolus curve, above its offset; times in s since injection.

    peak: PE. peak_at_s: TTP. transit_s: mTT, mean time since arrival. wash_in, wash_out: area
    before and after the peak (WiAUC, WoAUC). rise_rate, fall_rate: steepest slopes (WiR > 0,
    WoR < 0) and when. rise_s, fall_s: RT and FT, from where the tangent at the steepest point
    meets the base line to where it meets the peak. wash_in_index: WiPI = WiAUC / RT.
    """

    arrival_s: float
    peak: float
    peak_at_s: float
    transit_s: float
    wash_in: float
    wash_out: float
    rise_rate: float
    rise_rate_at_s: float
    fall_rate: float
    fall_rate_at_s: float
    rise_s: float
    fall_s: float
    wash_in_index: float


def curve_values(bolus: Bolus) -> CurveValues:
    """The figures of one bolus in closed form.

    Lognormal: PE = A / (sqrt(2 pi) sigma) exp(sigma^2/2 - mu), TTP = t0 + exp(mu - sigma^2),
    mTT = exp(mu + sigma^2/2), WiAUC = A Phi(-sigma), WoAUC = A Phi(sigma), steepest at
    ln x = mu - 1.5 sigma^2 -/+ sigma/2 sqrt(sigma^2 + 4). Gamma variate: TTP = t0 + alpha beta,
    mTT = (alpha + 1) beta, steepest at x = beta (alpha -/+ sqrt(alpha)).

    Example:
        >>> round(curve_values(Lognormal(300.0, 3.2, 0.6, 0.0)).peak, 4)
        9.7344
    """
    t0 = bolus.arrival_s
    if isinstance(bolus, Lognormal):
        mu, s = bolus.mu, bolus.sigma
        peak_x, transit = math.exp(mu - s * s), math.exp(mu + s * s / 2)
        half = s / 2 * math.sqrt(s * s + 4)
        steepest = (math.exp(mu - 1.5 * s * s - half), math.exp(mu - 1.5 * s * s + half))
    else:
        peak_x, transit = bolus.alpha * bolus.beta_s, (bolus.alpha + 1) * bolus.beta_s
        root = math.sqrt(bolus.alpha)
        steepest = (bolus.beta_s * (bolus.alpha - root), bolus.beta_s * (bolus.alpha + root))
    return _values([(1.0, bolus)], t0 + peak_x, (t0 + steepest[0], t0 + steepest[1]), transit)


def mixture_values(parts: Sequence[tuple[float, Bolus]]) -> CurveValues:
    """The figures of a sum of boluses, for a region that holds several tissues.

    Args:
        parts: (weight >= 0, bolus); at least one weight is positive.

    Returns:
        Peak and slopes by search to about 1e-7 s, areas in closed form. arrival_s and transit_s
        are means weighted by area, so arrival_s + transit_s is the first moment of the sum.
    """
    parts = [(weight, bolus) for weight, bolus in parts if weight > 0]
    if not parts:
        raise ValueError("a mixture needs a positive weight")
    singles = [curve_values(bolus) for _, bolus in parts]
    start = min(v.arrival_s for v in singles)
    end = max(2 * v.fall_rate_at_s - v.arrival_s for v in singles)
    # A step well below the shortest rise: no extremum hides between two points.
    step = max(1e-3, min(v.rise_rate_at_s - v.arrival_s for v in singles) / 20)
    grid = np.arange(start + step / 2, end, step)
    power, slope = _sum(parts, "power", grid), _sum(parts, "slope", grid)
    peak_at = _highest(lambda t: _sum(parts, "power", t), grid, int(np.argmax(power)))
    steepest = (
        _highest(lambda t: _sum(parts, "slope", t), grid, int(np.argmax(slope))),
        _highest(lambda t: -_sum(parts, "slope", t), grid, int(np.argmin(slope))),
    )
    areas = np.array([weight * bolus.total() for weight, bolus in parts])
    mean_arrival = float(areas @ [v.arrival_s for v in singles] / areas.sum())
    transit = float(areas @ [v.transit_s for v in singles] / areas.sum())
    values = _values(parts, peak_at, steepest, transit)
    fields = {name: getattr(values, name) for name in CurveValues.__slots__}
    return CurveValues(**{**fields, "arrival_s": mean_arrival})


def _values(
    parts: Sequence[tuple[float, Bolus]],
    peak_at_s: float,
    steepest_at_s: tuple[float, float],
    transit_s: float,
) -> CurveValues:
    offset = sum(weight * bolus.offset for weight, bolus in parts)
    peak = float(_sum(parts, "power", peak_at_s)) - offset
    wash_in = sum(weight * bolus.until(peak_at_s) for weight, bolus in parts)
    wash_out = sum(weight * bolus.total() for weight, bolus in parts) - wash_in
    rise, fall = (float(_sum(parts, "slope", at)) for at in steepest_at_s)
    return CurveValues(
        arrival_s=parts[0][1].arrival_s,
        peak=peak,
        peak_at_s=peak_at_s,
        transit_s=transit_s,
        wash_in=wash_in,
        wash_out=wash_out,
        rise_rate=rise,
        rise_rate_at_s=steepest_at_s[0],
        fall_rate=fall,
        fall_rate_at_s=steepest_at_s[1],
        rise_s=peak / rise,
        fall_s=-peak / fall,
        wash_in_index=wash_in * rise / peak,
    )


def _sum(
    parts: Sequence[tuple[float, Bolus]], what: Literal["power", "slope"], times_s: npt.ArrayLike
) -> Times:
    total = np.zeros_like(np.asarray(times_s, np.float64))
    for weight, bolus in parts:
        total = total + weight * getattr(bolus, what)(times_s)
    return total


def _highest(height: Callable[[Times], Times], grid: Times, at: int) -> float:
    """Where a function is highest between the neighbours of a grid point."""
    low, high = float(grid[max(0, at - 1)]), float(grid[min(grid.size - 1, at + 1)])
    for _ in range(7):
        fine = np.linspace(low, high, 33)
        best = int(np.argmax(height(fine)))
        low, high = float(fine[max(0, best - 1)]), float(fine[min(32, best + 1)])
    return (low + high) / 2


def bolus_of(
    kind: BolusKind, peak: float, arrival_s: float, rise_s: float, transit_s: float
) -> Bolus:
    """The bolus with a given peak (PE) at arrival_s + rise_s and, if lognormal, a given mTT.

    The mTT of a gamma variate lies between one and two times from arrival to peak, which is less
    than renal curves show; there, alpha = 1 + 4 rise_s / transit_s keeps the order of washouts.

    Raises:
        ValueError: peak or rise_s is not positive, or transit_s does not exceed rise_s.
    """
    if not (peak > 0 and 0 < rise_s < transit_s):
        raise ValueError(f"no bolus of peak {peak}, rise {rise_s} s and mean transit {transit_s} s")
    if kind is BolusKind.GAMMA:
        alpha = 1 + 4 * rise_s / transit_s
        amplitude = peak * math.exp(alpha - alpha * math.log(rise_s))
        return GammaVariate(amplitude, alpha, rise_s / alpha, arrival_s)
    sigma = math.sqrt(math.log(transit_s / rise_s) / 1.5)
    mu = math.log(rise_s) + sigma**2
    area = peak * math.sqrt(2 * math.pi) * sigma * math.exp(mu - sigma**2 / 2)
    return Lognormal(area, mu, sigma, arrival_s)
