"""How does the mean echo power of a region change over the seconds?

A region is drawn once, on a reference frame, and moved with the tissue. Its curve is the mean of
linear power over its pixels; the mean of displayed grey would be that of decibels, which is lower
the more the picture flickers. Frames are given one at a time, so a clip is never held as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite

import numpy as np
import numpy.typing as npt

from renalkit.ceus.linear import SATURATED_LEVEL, Levels, PowerScale

Times = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

FEWEST_PIXELS = 12
"""A smaller region has no mean worth a curve."""

_LEAST_SHARE = 0.75  # of a region that must lie in the picture for a frame to count


@dataclass(frozen=True, slots=True, eq=False)
class RoiCurve:
    """The curve of a region.

    times_s: (T,) rising. power: (T,) mean over the region, NaN where it left the picture. kept:
    (T,) frames that count. saturated: (T,) share of the region at full white. pixels: of the
    region. unit: of the power; linear: it is proportional to echo power.
    """

    name: str
    times_s: Times
    power: Times
    kept: Mask
    saturated: Times
    pixels: int
    unit: str = "a.u."
    linear: bool = True

    def __post_init__(self) -> None:
        shape = self.times_s.shape
        if len(shape) != 1 or any(
            a.shape != shape for a in (self.power, self.kept, self.saturated)
        ):
            raise ValueError(
                f"curve {self.name!r}: times, power, kept and saturated differ in shape"
            )
        if not np.isfinite(self.times_s).all() or (np.diff(self.times_s) <= 0).any():
            raise ValueError(f"curve {self.name!r}: times must be finite and rise")
        if not np.isfinite(self.power[self.kept]).all():
            raise ValueError(f"curve {self.name!r}: power must be finite on the frames kept")

    @property
    def saturated_share(self) -> float:
        """Mean share of the region at full white over the kept tenth of the frames with the
        highest power: white there makes the peak too low. NaN without kept frames."""
        kept = np.flatnonzero(self.kept)
        if kept.size == 0:
            return float("nan")
        top = kept[np.argsort(self.power[kept])[-max(1, kept.size // 10) :]]
        return float(self.saturated[top].mean())


class CurveMeter:
    """Takes frames of a contrast pane one at a time and gives the curve of each region.

    Args:
        masks: (H,W) by name, in the pane as the reference frame shows it.
        scale: from pixels to power.

    Raises:
        ValueError: a mask has fewer than 12 pixels, or masks differ in shape.
    """

    def __init__(self, masks: Mapping[str, Mask], scale: PowerScale) -> None:
        if not masks:
            raise ValueError("no region to measure")
        self._scale, self._power = scale, scale.table().astype(np.float64)
        self._shape = next(iter(masks.values())).shape
        self._places: dict[str, tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]] = {}
        for name, mask in masks.items():
            rows, cols = np.nonzero(mask)
            if mask.shape != self._shape:
                raise ValueError(f"region {name!r} is {mask.shape}, another {self._shape}")
            if rows.size < FEWEST_PIXELS:
                raise ValueError(
                    f"region {name!r} has {rows.size} pixels, fewer than {FEWEST_PIXELS}"
                )
            self._places[name] = rows, cols
        self._times: list[float] = []
        self._kept: list[bool] = []
        self._means: dict[str, list[float]] = {name: [] for name in masks}
        self._white: dict[str, list[float]] = {name: [] for name in masks}

    def add(
        self,
        pane: npt.NDArray[np.generic],
        time_s: float,
        shift: tuple[float, float] = (0.0, 0.0),
        *,
        kept: bool = True,
    ) -> None:
        """Measure the next frame.

        Args:
            pane: (H,W) or (H,W,3) uint8 RGB. time_s: its time. shift: (dx, dy) in px of the tissue
                since the reference frame. kept: False for a frame that shall not count.
        """
        self.add_levels(self._scale.palette.levels(pane), time_s, shift, kept=kept)

    def add_levels(
        self,
        levels: Levels,
        time_s: float,
        shift: tuple[float, float] = (0.0, 0.0),
        *,
        kept: bool = True,
    ) -> None:
        """`add` for a pane whose grey levels (H,W) are known already."""
        if levels.shape != self._shape:
            raise ValueError(f"the frame is {levels.shape}, the regions {self._shape}")
        self._times.append(time_s)
        self._kept.append(kept and all(isfinite(part) for part in shift))
        dx, dy = (round(part) if isfinite(part) else 0 for part in shift)
        for name, (rows, cols) in self._places.items():
            y, x = rows + dy, cols + dx
            inside = (y >= 0) & (y < self._shape[0]) & (x >= 0) & (x < self._shape[1])
            values = levels[y[inside], x[inside]]
            enough = values.size >= _LEAST_SHARE * rows.size
            self._means[name].append(float(self._power[values].mean()) if enough else float("nan"))
            self._white[name].append(
                float((values >= SATURATED_LEVEL).mean()) if enough else float("nan")
            )

    def curves(self, kept: Mask | None = None) -> dict[str, RoiCurve]:
        """The curves so far, by name of the region, in the order of time whatever that of `add`.

        Args:
            kept: (T,) frames that count in the order of time, when that is known only at the end
                (a threshold over all correlations); together with what `add` was told.
        """
        order = np.argsort(self._times, kind="stable")
        times = np.array(self._times)[order]
        counting = np.array(self._kept, np.bool_)[order]
        if kept is not None:
            counting = counting & kept
        found: dict[str, RoiCurve] = {}
        for name, (rows, _) in self._places.items():
            power = np.array(self._means[name])[order]
            found[name] = RoiCurve(
                name,
                times,
                power,
                counting & np.isfinite(power),
                np.array(self._white[name])[order],
                rows.size,
                self._scale.unit,
                self._scale.linear,
            )
        return found
