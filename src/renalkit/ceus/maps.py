"""Where in a region does contrast arrive early or late, much or little?

Single pixels flicker too much for a fit, so a map is made of square cells of a few millimetres,
each with the bolus fitted to its own curve. Frames are given one at a time, moved back to where the
tissue was on the reference frame, and added up in at most 128 bins of time, in any order. So memory
depends on the size of the region and not on the length of the clip.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, isfinite, log

import cv2
import numpy as np
import numpy.typing as npt
from scipy.special import fdtrc, ndtr

from renalkit.ceus.bolus import BolusKind
from renalkit.ceus.fits import N_PARAMETERS, Noise, curve, fit_batch
from renalkit.ceus.linear import Levels, PowerScale
from renalkit.domain.geometry import Box, SpacingMm

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

MAPS = ("PE", "TTP", "WiAUC", "mTT")
CELL_MM = 2.5
"""Edge of a cell: several resolution cells of contrast imaging, so that speckle averages out."""

_CELL_PX = 8  # where the scale is not known
_BINS, _LEAST_BIN_S = 128, 0.25
_AT_ONCE = 256
_STEPS = 40
_NO_BOLUS_P = 1e-3
_BLOCK_S = 2.5
_FEWEST_BINS = 20


def cell_px(spacing_mm: SpacingMm | None, cell_mm: float = CELL_MM) -> int:
    """Edge of a cell in px, at least 2; 8 px where the scale is not known.

    >>> cell_px((0.25, 0.25))
    10
    """
    if spacing_mm is None:
        return _CELL_PX
    return max(2, round(cell_mm / (0.5 * (spacing_mm[0] + spacing_mm[1]))))


@dataclass(frozen=True, slots=True, eq=False)
class CellCurves:
    """Curves of the cells of a box. box: in the pane, on the reference frame, a whole number of
    cells. times_s: (N,) mean time of each bin. power: (N,h,w) mean, NaN where no frame showed the
    cell. frames: (N,h,w) how many did. cell: edge in px."""

    box: Box
    cell: int
    times_s: Floats
    power: npt.NDArray[np.float32]
    frames: npt.NDArray[np.float32]
    unit: str
    linear: bool


class MapMeter:
    """Takes frames of a contrast pane, in any order, and adds them up by cell and time.

    Args:
        box: of the region in the pane, on the reference frame. scale: from pixels to power.
        cell: edge of a cell in px. span_s: times of the first and the last frame.

    Raises:
        ValueError: the box is smaller than a cell, or the span ends before it begins.
    """

    def __init__(self, box: Box, scale: PowerScale, cell: int, span_s: tuple[float, float]) -> None:
        if not (isfinite(span_s[0]) and isfinite(span_s[1]) and span_s[1] >= span_s[0]):
            raise ValueError(f"frame times from {span_s[0]} to {span_s[1]} s are no span")
        across, down = box.width // cell, box.height // cell
        if across < 1 or down < 1:
            raise ValueError(f"{box} is smaller than a cell of {cell} px")
        self.box = Box(box.x, box.y, across * cell, down * cell)
        self._scale, self._power, self._cell = scale, scale.table(), cell
        self._span = span_s
        bins = min(_BINS, max(1, ceil((span_s[1] - span_s[0]) / _LEAST_BIN_S)))
        self._sums = np.zeros((bins, down, across), np.float32)
        self._frames = np.zeros((bins, down, across), np.float32)
        self._times = np.zeros(bins)
        self._counts = np.zeros(bins)

    def add(
        self,
        pane: npt.NDArray[np.generic],
        time_s: float,
        shift: tuple[float, float] = (0.0, 0.0),
        *,
        kept: bool = True,
    ) -> None:
        """Add the next frame; arguments as of `CurveMeter.add`."""
        if kept:
            self.add_levels(self._scale.palette.levels(pane), time_s, shift)

    def add_levels(
        self,
        levels: Levels,
        time_s: float,
        shift: tuple[float, float] = (0.0, 0.0),
        *,
        kept: bool = True,
    ) -> None:
        """`add` for a pane whose grey levels (H,W) are known already."""
        if not kept or not all(isfinite(part) for part in shift):
            return
        place = self._bin(time_s)
        left, top = self.box.x + round(shift[0]), self.box.y + round(shift[1])
        rows, cols = levels.shape
        x0, y0 = max(left, 0), max(top, 0)
        x1, y1 = min(left + self.box.width, cols), min(top + self.box.height, rows)
        if x1 <= x0 or y1 <= y0:
            return
        part = np.asarray(cv2.LUT(levels[y0:y1, x0:x1], self._power), np.float32)
        size = self._sums.shape[2], self._sums.shape[1]
        if part.shape == (self.box.height, self.box.width):
            self._sums[place] += np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA))
            self._frames[place] += 1.0
        else:
            whole = np.full((self.box.height, self.box.width), np.nan, np.float32)
            whole[y0 - top : y1 - top, x0 - left : x1 - left] = part
            means = whole.reshape(size[1], self._cell, size[0], self._cell).mean(axis=(1, 3))
            shown = np.isfinite(means)
            self._sums[place][shown] += means[shown]
            self._frames[place] += shown
        self._times[place] += time_s
        self._counts[place] += 1

    def _bin(self, time_s: float) -> int:
        start, end = self._span
        if not start <= time_s <= end:
            raise ValueError(f"a frame at {time_s} s is not within {start} to {end} s")
        bins = self._counts.size
        return min(bins - 1, int((time_s - start) / max(end - start, 1e-9) * bins))

    def cells(self) -> CellCurves:
        """The curves so far."""
        used = self._counts > 0
        frames = self._frames[used]
        with np.errstate(invalid="ignore", divide="ignore"):
            power = np.divide(self._sums[used], frames, dtype=np.float32)
        times = self._times[used] / self._counts[used]
        unit, linear = self._scale.unit, self._scale.linear
        return CellCurves(self.box, self._cell, times, power, frames, unit, linear)


@dataclass(frozen=True, slots=True, eq=False)
class ParametricMaps:
    """Figures by cell.

    values: (h,w) by name of MAPS, NaN where the cell shows no bolus or not that figure. quality:
    (h,w) QOF of each fit. box, cell: where the cells lie in the pane on the reference frame.
    """

    box: Box
    cell: int
    values: Mapping[str, Floats]
    quality: Floats
    unit: str
    linear: bool

    def picture(self, name: str) -> npt.NDArray[np.float32]:
        """A map at the size of its box in px, (H,W)."""
        return np.kron(self.values[name], np.ones((self.cell, self.cell))).astype(np.float32)


@dataclass(frozen=True, slots=True)
class MapSummary:
    """One map within one region. cells: of the region; fitted: those with a value. The rest over
    the fitted ones, None when there are none."""

    region: str
    name: str
    unit: str
    cells: int
    fitted: int
    median: float | None
    low_quartile: float | None
    high_quartile: float | None
    mean: float | None


def parametric_maps(cells: CellCurves, noise: Noise | None = None) -> ParametricMaps:
    """Fit a lognormal bolus to every cell.

    A cell has no value where its curve does not rise above its own noise, or its peak lies
    outside the clip; no mTT where less than half of the area was seen.

    Raises:
        ValueError: fewer than 20 bins of time.
    """
    times = cells.times_s
    if times.size < _FEWEST_BINS:
        raise ValueError(f"{times.size} bins of time are too few for maps")
    chosen = noise or Noise(0.25)
    shape = cells.power.shape[1:]
    power = cells.power.reshape(times.size, -1).T.astype(np.float64)
    weights = cells.frames.reshape(times.size, -1).T.astype(np.float64)
    weights = weights / np.maximum(weights.max(axis=1, keepdims=True), 1.0)
    shown = (weights > 0).sum(axis=1) >= _FEWEST_BINS
    power = np.where(weights > 0, power, 0.0)
    parameters = np.full((len(power), N_PARAMETERS), np.nan)
    usable = np.flatnonzero(shown)
    if usable.size:
        common = _common(times, power[usable], weights[usable], chosen)
        for start in range(0, usable.size, _AT_ONCE):
            part = usable[start : start + _AT_ONCE]
            parameters[part] = _fitted(times, power[part], weights[part], common, chosen)
    found, quality = _figures(times, power, weights, parameters)
    return ParametricMaps(
        cells.box,
        cells.cell,
        {name: values.reshape(shape) for name, values in found.items()},
        quality.reshape(shape),
        cells.unit,
        cells.linear,
    )


def summarise(maps: ParametricMaps, masks: Mapping[str, Mask]) -> list[MapSummary]:
    """Middle and spread of each map over regions given as masks (H,W) of the pane on the reference
    frame; a cell belongs to a region that covers half of it."""
    rows: list[MapSummary] = []
    for region, mask in masks.items():
        here = mask[maps.box.slices].astype(np.float32)
        size = here.shape[1] // maps.cell, here.shape[0] // maps.cell
        inside = np.asarray(cv2.resize(here, size, interpolation=cv2.INTER_AREA)) >= 0.5
        for name in MAPS:
            values = maps.values[name][inside]
            known = values[np.isfinite(values)]
            spread: tuple[float | None, ...] = (None,) * 4
            if known.size:
                low, middle, high = np.quantile(known, [0.25, 0.5, 0.75]).tolist()
                spread = (middle, low, high, float(known.mean()))
            unit = map_unit(name, maps.unit)
            rows.append(MapSummary(region, name, unit, values.size, known.size, *spread))
    return rows


def map_unit(name: str, power: str) -> str:
    """Unit of a map when power has the unit given."""
    return {"PE": power, "WiAUC": f"{power} s"}.get(name, "s")


def _common(times: Floats, power: Floats, weights: Floats, noise: Noise) -> Floats:
    """Parameters of the mean of all cells, where each cell starts."""
    total = weights.sum(axis=0)
    mean = (weights * power).sum(axis=0) / np.maximum(total, 1e-9)
    used = total > 0
    t, y = times[used], mean[used]
    top = int(y.argmax())
    base = float(np.quantile(y, 0.05))
    peak = max(float(y[top]) - base, 1e-9)
    low = np.flatnonzero(y[: top + 1] < base + 0.1 * peak)
    onset = float(t[low[-1]]) if low.size else float(t[0])
    starts = np.array(
        [
            [log(peak), log(max(float(t[top]) - onset + back, 0.5)), log(shape), onset - back, base]
            for back in (0.0, 2.0, 6.0)
            for shape in (0.4, 0.9)
        ]
    )
    batch = fit_batch(BolusKind.LOGNORMAL, t, y, starts, noise)
    return batch.parameters[int(batch.score.argmin())]


def _fitted(times: Floats, power: Floats, weights: Floats, common: Floats, noise: Noise) -> Floats:
    """Parameters (B,5) of the likelier of two starts: the common bolus, as strong as the cell, and
    the same somewhat later and slower."""
    agent = curve(BolusKind.LOGNORMAL, times, common[None])[0] - common[4]
    total = weights.sum(axis=1)
    offset = np.array([np.quantile(y[w > 0], 0.05) for y, w in zip(power, weights, strict=True)])
    strength = ((weights * power).sum(axis=1) / total - offset) / (weights @ agent / total)
    start = np.repeat(common[None], len(power), axis=0)
    start[:, 0] += np.log(np.maximum(strength, 1e-3))
    start[:, 4] = offset
    later = start.copy()
    later[:, 1] += log(1.5)
    later[:, 3] += 1.5
    first, second = (
        fit_batch(BolusKind.LOGNORMAL, times, power, s, noise, weights, steps=_STEPS)
        for s in (start, later)
    )
    better = (second.score < first.score)[:, None]
    return np.where(better, second.parameters, first.parameters)


def _figures(
    times: Floats, power: Floats, weights: Floats, parameters: Floats
) -> tuple[dict[str, Floats], Floats]:
    """Maps (B,) by name and QOF (B,), with NaN where a cell has no answer."""
    model = curve(BolusKind.LOGNORMAL, times, parameters)
    total = np.maximum(weights.sum(axis=1), 1e-9)
    mean = (weights * power).sum(axis=1) / total
    whole = (weights * (power - mean[:, None]) ** 2).sum(axis=1)
    quality = 1 - (weights * (power - model) ** 2).sum(axis=1) / np.maximum(whole, 1e-300)
    peak, rise, sigma = (np.exp(parameters[:, k]) for k in range(3))
    arrival = parameters[:, 3]
    area = peak * np.sqrt(2 * np.pi) * sigma * rise * np.exp(sigma**2 / 2)
    at = arrival + rise
    with np.errstate(invalid="ignore", divide="ignore"):
        seen = ndtr((np.log(np.maximum(times[-1] - arrival, 1e-9) / rise) - sigma**2) / sigma)
    good = _has_bolus(times, power, weights, model) & (at > times[0]) & (at < times[-1])
    good &= peak < 3 * power.max(axis=1)
    transit = rise * np.exp(1.5 * sigma**2)
    found = {"PE": peak, "TTP": at, "WiAUC": area * ndtr(-sigma), "mTT": transit}
    shown = {name: good for name in MAPS} | {"mTT": good & (seen >= 0.5)}
    return {name: np.where(shown[name], found[name], np.nan) for name in MAPS}, quality


def _has_bolus(times: Floats, power: Floats, weights: Floats, model: Floats) -> Mask:
    """Whether each curve (B,N) rises above its own noise: F tests on means over 2.5 s."""
    block = ((times - times[0]) // _BLOCK_S).astype(np.intp)
    into = np.zeros((times.size, int(block[-1]) + 1))
    into[np.arange(times.size), block] = 1.0
    held = weights @ into
    used = held > 0
    means, left = (
        np.where(used, (weights * v) @ into / np.maximum(held, 1e-9), 0.0)
        for v in (power, power - model)
    )
    count = used.sum(axis=1)
    middle = means.sum(axis=1) / np.maximum(count, 1)
    whole = (np.where(used, means - middle[:, None], 0.0) ** 2).sum(axis=1)
    rest = np.maximum((left**2).sum(axis=1), 1e-300)
    free = np.maximum(count - N_PARAMETERS, 1)
    ratio = np.maximum(whole - rest, 0.0) / (N_PARAMETERS - 1) / (rest / free)
    chance = np.asarray(fdtrc(N_PARAMETERS - 1, free, np.nan_to_num(ratio)), np.float64)
    return (chance < _NO_BOLUS_P) & (count > N_PARAMETERS) & np.isfinite(ratio)
