"""Where in a section can contrast agent be, and how does its echo flicker?

Each sample of the contrast beams holds a mixture of tissues; the weights of the mixture are laid
out once per section, so that a frame is one weighted sum of bolus curves. Memory and time per
frame depend on the grid only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from renalkit.phantom.bmode.anatomy import Anatomy, Tissue, TissueMap, View, tissue_map
from renalkit.phantom.bmode.field import smooth_noise
from renalkit.phantom.bmode.picture import TISSUE_GRID, Scanner, pixel_points
from renalkit.phantom.ceus.perfusion import LesionPerfusion

Plane = npt.NDArray[np.floating[Any]]
F32 = npt.NDArray[np.float32]

KIDNEY_TISSUES = ("cortex", "outer_medulla", "inner_medulla", "artery", "sinus")
TISSUES = (*KIDNEY_TISSUES, "neighbour", "soft", "lesion_early", "lesion_mid", "lesion_late")
"""Order of the weights; the mass enhances in three parts that differ in arrival."""

_DELAY_STEP = math.sqrt(1.5)  # three equal parts at -step, 0, +step have a deviation of 1
_AXIAL_MM = 0.45
_EVEN_OUTLINE = 0.02  # irregularity of every mass in the contrast picture
_BEAM_RAD = 0.0105


@dataclass(frozen=True, slots=True)
class BeamGrid:
    """Samples of the contrast beams.

    radius_mm: of the transducer face. half_angle_rad, depth_mm: of the fan. samples along a beam,
    beams across the fan.
    """

    radius_mm: float
    half_angle_rad: float
    depth_mm: float

    @property
    def samples(self) -> int:
        return round(self.depth_mm / _AXIAL_MM)

    @property
    def beams(self) -> int:
        return round(2 * self.half_angle_rad / _BEAM_RAD)

    def places(self, x_mm: Plane, z_mm: Plane) -> tuple[F32, F32]:
        """(column, row) of points in the grid, for cv2.remap."""
        radius = np.hypot(x_mm, z_mm + self.radius_mm)
        angle = np.arctan2(x_mm, z_mm + self.radius_mm)
        rows = (radius - self.radius_mm) * (self.samples / self.depth_mm) - 0.5
        columns = (angle + self.half_angle_rad) * (self.beams / (2 * self.half_angle_rad)) - 0.5
        return columns.astype(np.float32), rows.astype(np.float32)

    def points(self) -> tuple[Plane, Plane]:
        """x and z in mm of all samples, (samples, beams)."""
        radius = self.radius_mm + (np.arange(self.samples) + 0.5) * (self.depth_mm / self.samples)
        share = (np.arange(self.beams) + 0.5) / self.beams * 2 - 1
        angle = share * self.half_angle_rad
        x = radius[:, None] * np.sin(angle)[None, :]
        return x, radius[:, None] * np.cos(angle)[None, :] - self.radius_mm


@dataclass(frozen=True, slots=True, eq=False)
class Mixture:
    """What one section holds, on a beam grid of N samples.

    weights: (len(TISSUES), N) float32 share of each tissue times its local strength. lesion,
    cortex: (N,) share of the mass and of cortex away from it. reflectors: (N,) float32 power of
    tissue that shines through the contrast picture, 1 for cortex.
    """

    weights: F32
    lesion: F32
    cortex: F32
    reflectors: F32


@dataclass(frozen=True, slots=True, eq=False)
class SectionMap:
    """Tissue of one section on the scanner's square tissue grid, all (N, N).

    tissue: with the mass. healthy: as it were without it. enhancing_mm: level of the mass as
    contrast shows it, in the same place and of the same size but with an even outline, for the
    outline is a B-mode feature. Nothing of the mass's B-mode look reaches the contrast picture.
    """

    tissue: TissueMap
    healthy: TissueMap
    enhancing_mm: Plane


def map_section(anatomy: Anatomy, view: View, scanner: Scanner) -> SectionMap:
    """Lay out a section on the grid on which B-mode lays it out, so that both show the same."""
    x_mm, z_mm = pixel_points(scanner, TISSUE_GRID)
    healthy = tissue_map(replace(anatomy, lesion=None), view, x_mm, z_mm, scanner.radius_mm)
    tissue = even = healthy
    if anatomy.lesion is not None:
        tissue = tissue_map(anatomy, view, x_mm, z_mm, scanner.radius_mm)
        smooth = replace(anatomy, lesion=replace(anatomy.lesion, irregularity=_EVEN_OUTLINE))
        even = tissue_map(smooth, view, x_mm, z_mm, scanner.radius_mm)
    return SectionMap(tissue, healthy, even.lesion_mm)


def mix_tissues(
    section: SectionMap,
    scanner: Scanner,
    lesion: LesionPerfusion | None,
    onto: tuple[BeamGrid, np.random.Generator],
) -> Mixture:
    """Say what part of each tissue lies in each beam sample.

    Args:
        section: on the tissue grid of the scanner. lesion: the mass's enhancement, None without.
        onto: grid of the result, and what draws vessels and the unevenness of the mass.
    """
    grid, rng = onto
    step_mm = scanner.field_mm / TISSUE_GRID
    organs = section.healthy
    inside = organs.kidney_mm

    def share(*kinds: Tissue) -> Plane:
        found = np.isin(organs.kind, [int(kind) for kind in kinds]).astype(np.float32)
        return np.asarray(cv2.GaussianBlur(found, (0, 0), 0.4 / step_mm), np.float32)

    cortex, medulla = share(Tissue.CORTEX), share(Tissue.MEDULLA)
    sinus, neighbour = share(Tissue.SINUS), share(Tissue.NEIGHBOUR, Tissue.VESSEL)
    inner = np.clip((inside - 9.0) / 5.0, 0.0, 1.0)
    course = smooth_noise(TISSUE_GRID, 11.0 / step_mm, rng)
    here = np.clip(2.0 * smooth_noise(TISSUE_GRID, 14.0 / step_mm, rng) + 0.5, 0.0, 1.0)
    vessel = np.clip((0.12 - np.abs(course)) / 0.1, 0.0, 1.0) * here * sinus
    soft = 1.0 - cortex - medulla - sinus - neighbour
    shares = [
        cortex,
        medulla * (1.0 - inner),
        medulla * inner,
        vessel,
        sinus - vessel,
        neighbour,
        soft,
    ]
    mass = np.zeros_like(cortex)
    parts = [mass, mass, mass]
    if lesion is not None:
        level = section.enhancing_mm
        mass = np.clip(level / 0.5 + 0.5, 0.0, 1.0)
        parts = _mass_parts(lesion, level, step_mm, rng)
        cortex = cortex * np.clip((-level - 2.0) / 1.0, 0.0, 1.0)
    shares = [share * (1.0 - mass) for share in shares] + [mass * part for part in parts]
    shine = np.power(10.0, np.minimum(np.maximum(organs.echo_db, organs.specular_db), 25.0) / 10.0)
    columns, rows = grid_places(scanner, *grid.points())
    falloff = _depth_gain(grid)

    def on_beams(plane: Plane) -> F32:
        found = cv2.remap(
            plane.astype(np.float32), columns, rows, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE
        )
        return np.asarray(found, np.float32)

    return Mixture(
        weights=np.stack([(on_beams(share) * falloff).ravel() for share in shares]),
        lesion=on_beams(mass).ravel(),
        cortex=on_beams(cortex).ravel(),
        reflectors=(on_beams(shine) * falloff).ravel(),
    )


def delays_s(lesion: LesionPerfusion) -> tuple[float, float, float]:
    """Arrival of the three parts of a mass relative to its bolus."""
    step = _DELAY_STEP * lesion.delay_spread_s
    return -step, 0.0, step


def grid_places(scanner: Scanner, x_mm: Plane, z_mm: Plane) -> tuple[F32, F32]:
    """(column, row) of points in the scanner's tissue grid, for cv2.remap."""
    step = scanner.field_mm / TISSUE_GRID
    columns = (x_mm + scanner.field_mm / 2) / step - 0.5
    rows = (z_mm - scanner.top_mm) / step - 0.5
    return columns.astype(np.float32), rows.astype(np.float32)


def _depth_gain(grid: BeamGrid) -> F32:
    """What the depth gain leaves uneven: 0.15 dB/cm along and 1.5 dB across the fan."""
    depth = (np.arange(grid.samples) + 0.5) * (grid.depth_mm / grid.samples)
    across = (np.arange(grid.beams) + 0.5) / grid.beams * 2 - 1
    level_db = -0.015 * (depth[:, None] - grid.depth_mm / 2) - 1.5 * across[None, :] ** 4
    return np.power(10.0, level_db / 10.0).astype(np.float32)


def _mass_parts(
    lesion: LesionPerfusion, level_mm: Plane, step_mm: float, rng: np.random.Generator
) -> list[Plane]:
    """Local strength of a mass, mean 1 over the section, in three parts by local arrival."""
    size = level_mm.shape[0]
    within = level_mm > 0
    if not within.any():
        return [np.zeros_like(level_mm)] * 3
    grain_mm = max(3.0, math.sqrt(within.sum()) * step_mm / 6.0)
    uneven = _standard(smooth_noise(size, grain_mm / step_mm, rng), within)
    strength = np.exp(lesion.unevenness * np.clip(uneven, -2.5, 2.5))
    edge = np.quantile(uneven[within], lesion.necrosis)
    if lesion.necrosis > 0:
        strength = strength * np.clip((uneven - edge) / 0.2 + 0.5, 0.02, 1.0)
    rim = np.clip(1.5 - np.abs(level_mm - 1.0), 0.0, 1.0)
    strength = strength * np.power(10.0, lesion.rim_db / 10.0 * rim)
    strength = strength / strength[within].mean()
    timing = _standard(smooth_noise(size, 1.5 * grain_mm / step_mm, rng), within)
    early, late = np.quantile(timing[within], [1 / 3, 2 / 3])
    first, last = timing <= early, timing > late
    return [strength * first, strength * ~(first | last), strength * last]


def _standard(values: Plane, within: npt.NDArray[np.bool_]) -> Plane:
    """Values of mean 0 and deviation 1 over a region."""
    inside = values[within]
    return (values - inside.mean()) / max(float(inside.std()), 1e-3)


class BubbleSpeckle:
    """Echo of moving microbubbles: power over uniform agent, mean 1, exponentially distributed.

    The complex field is an AR(1) process in time whose power is correlated by exp(-dt / tau):
    bubbles are carried out of a resolution cell of about 1 x 2 mm in about half a second.
    """

    def __init__(self, grid: BeamGrid, correlation_s: float, rng: np.random.Generator) -> None:
        self._shape = (grid.samples, grid.beams, 2)
        self._correlation_s, self._rng = correlation_s, rng
        self._along = _gauss(1.3 / 2.355 / _AXIAL_MM)
        self._across = _gauss(1.25)
        self._field: F32 | None = None
        self.fresh = np.empty(0, np.float32)
        """Power of the newest share, (N,): white in time, of the same grain."""

    def step(self, pause_s: float) -> F32:
        """Power (N,) after a pause since the last step."""
        noise = self._rng.standard_normal(self._shape, dtype=np.float32)
        drawn = np.asarray(
            cv2.sepFilter2D(
                noise, cv2.CV_32F, self._across, self._along, borderType=cv2.BORDER_REFLECT
            ),
            np.float32,
        )
        self.fresh = _power(drawn)
        if self._field is None:
            self._field = drawn
        else:
            # The power of a Gaussian field is correlated by the square of its own correlation.
            keep = math.exp(-pause_s / (2 * self._correlation_s))
            self._field = np.asarray(
                cv2.addWeighted(self._field, keep, drawn, math.sqrt(1 - keep * keep), 0.0),
                np.float32,
            )
        return _power(self._field)


def _power(field: F32) -> F32:
    squares = np.asarray(cv2.multiply(field, field, scale=0.5), np.float32)
    return np.asarray(cv2.transform(squares, np.ones((1, 2), np.float32)), np.float32).ravel()


def _gauss(sigma: float) -> F32:
    """Gaussian of unit energy, which keeps the power of white noise."""
    reach = max(1, math.ceil(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return (kernel / np.sqrt((kernel**2).sum())).astype(np.float32)
