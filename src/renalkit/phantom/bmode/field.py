"""On what grid are tissues laid out, and how do smooth random values on it arise?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[np.floating[Any]]

FLOOR_DB = -80.0
"""Level of a reflector that is not there."""


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """Points of a regular grid and a generator for what is random on it.

    x_mm, z_mm: (R, C) coordinates, z away from the transducer face. depth_mm: (R, C) along the
    beams. beam_x, beam_z: (R, C) direction of the beams, unit length. All float32.
    """

    x_mm: Plane
    z_mm: Plane
    depth_mm: Plane
    beam_x: Plane
    beam_z: Plane
    step_mm: float
    rng: np.random.Generator

    def grain(self, along_x_mm: float, along_z_mm: float | None = None) -> Plane:
        """Smooth noise of mean 0 and deviation 1 that keeps its value over the given length."""
        along_z_mm = along_x_mm if along_z_mm is None else along_z_mm
        lengths = (along_x_mm / self.step_mm, along_z_mm / self.step_mm)
        rows, columns = self.x_mm.shape
        return smooth_noise((rows, columns), lengths, self.rng)

    def window(self, centre_mm: tuple[float, float], reach_mm: tuple[float, float]) -> Window:
        """Rows and columns within reach of a point (x, z), at least one of each."""
        rows = _span(self.z_mm[:, 0], centre_mm[1], reach_mm[1])
        return rows, _span(self.x_mm[0], centre_mm[0], reach_mm[0])

    def crop(self, window: Window) -> Field:
        """The field within a window; it shares the generator."""
        return Field(
            self.x_mm[window],
            self.z_mm[window],
            self.depth_mm[window],
            self.beam_x[window],
            self.beam_z[window],
            self.step_mm,
            self.rng,
        )


Window = tuple[slice, slice]


def make_field(x_mm: Plane, z_mm: Plane, apex_mm: float, rng: np.random.Generator) -> Field:
    """Beams run from a point apex_mm behind the middle of the transducer face."""
    x, z = x_mm.astype(np.float32, copy=False), z_mm.astype(np.float32, copy=False)
    from_apex = z + np.float32(apex_mm)
    radius = np.asarray(cv2.magnitude(x, from_apex), np.float32) + np.float32(1e-3)
    step_mm = float(x_mm[0, 1] - x_mm[0, 0])
    return Field(x, z, radius - np.float32(apex_mm), x / radius, from_apex / radius, step_mm, rng)


def smooth_noise(
    size: int | tuple[int, int],
    grain_px: float | tuple[float, float],
    rng: np.random.Generator,
) -> Plane:
    """Smooth random values of about mean 0 and deviation 1, float32.

    size: (rows, columns), or both in one number. grain_px: length over which values stay alike,
    (along columns' x, along rows' z) if they differ.
    """
    rows, columns = size if isinstance(size, tuple) else (size, size)
    grain_x, grain_z = grain_px if isinstance(grain_px, tuple) else (grain_px, grain_px)
    nodes = (max(4, round(rows / grain_z) + 3), max(4, round(columns / grain_x) + 3))
    coarse = rng.standard_normal(nodes, dtype=np.float32)
    fine = np.asarray(cv2.resize(coarse, (columns, rows), interpolation=cv2.INTER_CUBIC))
    # Interpolation between independent nodes lowers the deviation to about 0.87.
    return fine.astype(np.float32, copy=False) / np.float32(0.87)


def ramp(values: Plane, width: float) -> Plane:
    """0 below -width/2, 1 above width/2, straight between."""
    return np.clip(values * np.float32(1.0 / width) + np.float32(0.5), 0.0, 1.0)


def blend(below: Plane, above: Plane | float, level_mm: Plane, edge_mm: float) -> Plane:
    """`above` where level_mm > 0, with a transition of edge_mm."""
    return below + ramp(level_mm, edge_mm) * (above - below)


def line_db(distance_mm: Plane, width_mm: float) -> Plane:
    """Level of a thin reflector, 20 log10 exp(-(distance / width)^2), not below FLOOR_DB."""
    steep = np.float32(-20.0 / np.log(10.0) / width_mm**2)
    return np.maximum(distance_mm * distance_mm * steep, np.float32(FLOOR_DB))


def around(azimuth: Plane, values: npt.NDArray[np.float64]) -> Plane:
    """Look up values given at even angles over a full turn, at the azimuths (-pi..pi)."""
    count = len(values)
    index = (azimuth * np.float32(count / (2 * np.pi))).astype(np.int32)
    return values.astype(np.float32)[index % count]


def _span(places: Plane, centre: float, reach: float) -> slice:
    first = int(np.searchsorted(places, centre - reach))
    last = int(np.searchsorted(places, centre + reach))
    first = min(max(first, 0), len(places) - 1)
    return slice(first, max(last, first + 1))
