"""What of a contrast examination is laid out once, before the first frame?

The picture of a panel is the `view`; fields that motion moves live on the `source` lattice, the
view grown by a margin with pixels on the same raster. Contrast is computed on the beam grid and
scan converted to the source lattice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt

from renalkit.ceus.bolus import Bolus, CurveValues, mixture_values
from renalkit.phantom.bmode.picture import TISSUE_GRID, Scanner, render
from renalkit.phantom.ceus.console import Panel, PanelPlace, panel_places
from renalkit.phantom.ceus.contrast import (
    TISSUES,
    BeamGrid,
    Mixture,
    delays_s,
    grid_places,
    map_section,
    mix_tissues,
)
from renalkit.phantom.ceus.perfusion import Perfusion
from renalkit.phantom.ceus.plan import CeusPlan

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]
Maps = tuple[F32, F32]

ROIS = ("lesion", "cortex")
"""Regions with a curve: the mass, and kidney cortex at a similar depth as reference."""

STEADIED = ("enhancing", "cortex")
"""Regions whose noise is set: the mass as contrast shows it, and cortex."""

_MARGIN_MM = 14.0
_SLIDING_MM = 12.0  # layer below the wall that takes part in the motion by a growing share
_REFLECTORS = 0.15  # display power of tissue as bright as cortex that shines through
_SIDE_SLICE = 0.7  # in-plane size of the mass in the neighbouring section
_OUTSIDE = np.float32(-1e4)
_FEWEST_PIXELS = 12

# How fast destroyed bubbles are replaced, 1/s, in the order of TISSUES.
_REFILL = np.array([0.5, 0.25, 0.15, 3.0, 0.2, 0.2, 0.1, 0.4, 0.4, 0.4])


@dataclass(frozen=True, slots=True)
class RoiTruth:
    """The curve of a region in its reference section, without noise, motion and flash.

    weights: mean share of each of TISSUES on the region's pixels, partial volume at its edge
    included, in display units. baseline: mean power without agent. values: figures of the curve
    above the baseline.
    """

    name: str
    weights: tuple[float, ...]
    baseline: float
    values: CurveValues


@dataclass(frozen=True, slots=True, eq=False)
class SectionPlane:
    """One section, ready to be shown, on the source lattice (h,w).

    picture: uint8 B-mode grey. levels: float32 by name, positive inside "lesion", "kidney" and
    "cortex". enhancing: the same of the mass as contrast shows it. mixture: tissues on the beam
    grid.
    """

    picture: Pixels
    levels: dict[str, F32]
    enhancing: F32
    mixture: Mixture


class Scene:
    """The fields of a plan; some 20 MB whatever the length of the clip."""

    def __init__(self, plan: CeusPlan) -> None:
        self.plan = plan
        self.places = panel_places(plan.screen, plan.scanner)
        self.place = self.places[Panel.CONTRAST]
        self.mm_per_px = self.place.mm_per_px
        self.margin = math.ceil(_MARGIN_MM / self.mm_per_px)
        self.view = (self.place.view.height, self.place.view.width)
        self._wide = _wider(plan)
        half = math.radians(self._wide.half_angle_deg)
        self.grid = BeamGrid(self._wide.radius_mm, half, self._wide.depth_mm)
        self.source_mm = _points(self.place, self.margin)
        self._planes: dict[bool, SectionPlane] = {}

    @property
    def white(self) -> float:
        """Display power of full white."""
        return 10.0 ** (self.plan.display.dynamic_range_db / 10.0)

    @property
    def unit(self) -> float:
        """Display power of cortex at its peak."""
        return self.white / 10.0 ** (self.plan.display.headroom_db / 10.0)

    @cached_property
    def fan(self) -> npt.NDArray[np.bool_]:
        """Pixels of the view (h,w) within the shown fan."""
        depth, angle = self._polar
        return (
            (angle <= math.radians(self.plan.screen.half_angle_deg))
            & (depth >= 0)
            & (depth <= self.plan.scanner.depth_mm)
        )

    @cached_property
    def _polar(self) -> tuple[F32, F32]:
        x, z = _points(self.place, 0)
        radius_mm = self.plan.scanner.radius_mm
        depth, angle = np.hypot(x, z + radius_mm) - radius_mm, np.arctan2(x, z + radius_mm)
        return depth.astype(np.float32), np.abs(angle).astype(np.float32)

    @cached_property
    def _still_maps(self) -> tuple[F32, F32, F32]:
        """(column, row) in the source of each pixel of the view, and its share of the motion."""
        columns, rows = np.meshgrid(
            np.arange(self.view[1], dtype=np.float32), np.arange(self.view[0], dtype=np.float32)
        )
        # The wall stays with the probe, deep tissue moves, with a sliding layer between.
        share = np.clip((self._polar[0] - self.plan.anatomy.wall_mm) / _SLIDING_MM, 0.0, 1.0)
        share = share * share * (3.0 - 2.0 * share)
        margin = np.float32(self.margin)
        return (
            np.where(self.fan, columns + margin, _OUTSIDE),
            np.where(self.fan, rows + margin, _OUTSIDE),
            share.astype(np.float32),
        )

    def maps(self, right_mm: float, deep_mm: float) -> Maps:
        """Where in the source each pixel of the view looks when deep tissue has moved."""
        columns, rows, share = self._still_maps
        right, deep = np.float32(right_mm / self.mm_per_px), np.float32(deep_mm / self.mm_per_px)
        return np.subtract(columns, right * share), np.subtract(rows, deep * share)

    @cached_property
    def _scan_maps(self) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint16]]:
        columns, rows = self.grid.places(*self.source_mm)
        first, second = cv2.convertMaps(columns, rows, cv2.CV_16SC2)
        return np.asarray(first, np.int16), np.asarray(second, np.uint16)

    def scan_converted(self, samples: F32) -> F32:
        """From beam samples (N,) to the source lattice."""
        beams = samples.reshape(self.grid.samples, self.grid.beams)
        return np.asarray(
            cv2.remap(beams, *self._scan_maps, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE),
            np.float32,
        )

    def plane(self, *, aside: bool) -> SectionPlane:
        """The reference section or the neighbouring one, laid out when first needed."""
        if aside not in self._planes:
            self._planes[aside] = self._laid_out(aside)
        return self._planes[aside]

    def mixture(self, aside: float) -> Mixture:
        """The slice's mixture when a share of it lies in the neighbouring section."""
        here = self.plane(aside=False).mixture
        if aside == 0.0:
            return here
        there = self.plane(aside=True).mixture

        def mean(first: F32, second: F32) -> F32:
            mixed = cv2.addWeighted(
                np.atleast_2d(first), 1 - aside, np.atleast_2d(second), aside, 0.0
            )
            return np.asarray(mixed, np.float32).reshape(first.shape)

        return Mixture(
            mean(here.weights, there.weights),
            mean(here.lesion, there.lesion),
            mean(here.cortex, there.cortex),
            mean(here.reflectors, there.reflectors),
        )

    @cached_property
    def windows(self) -> dict[str, tuple[slice, slice]]:
        """Parts of the view where outlines can lie during the whole clip, by name."""
        found: dict[str, tuple[slice, slice]] = {}
        for name, level in self.plane(aside=False).levels.items():
            x, y, width, height = cv2.boundingRect((level > 0).astype(np.uint8))
            # The source has the margin on each side already: this grows the box by it.
            left, top = max(0, x - 2 * self.margin), max(0, y - 2 * self.margin)
            right, low = min(self.view[1], x + width), min(self.view[0], y + height)
            if width > 0 and right > left and low > top:
                found[name] = (slice(top, low), slice(left, right))
        return found

    @cached_property
    def rois(self) -> dict[str, RoiTruth]:
        """Truth of the regions that can be seen in the reference section, by name of ROIS."""
        found: dict[str, RoiTruth] = {}
        mixture = self.plane(aside=False).mixture
        steady = self.reflectors(mixture) + self.noise_floor
        for name in ROIS:
            mean = self.means.get(name)
            if mean is None:
                continue
            weights = mixture.weights.astype(np.float64) @ mean * self.unit
            values = mixture_values(list(zip(weights.tolist(), self._boluses, strict=True)))
            found[name] = RoiTruth(name, tuple(weights.tolist()), float(steady @ mean), values)
        return found

    @cached_property
    def means(self) -> dict[str, F64]:
        """Weights (N,) of the beam samples whose sum is the mean over a region's pixels, by name
        of ROIS and STEADIED, where the region can be seen."""
        found: dict[str, F64] = {}
        inner = slice(self.margin, -self.margin)
        plane = self.plane(aside=False)
        for name in (*ROIS, "enhancing"):
            level = (plane.enhancing if name == "enhancing" else plane.levels[name])[inner, inner]
            mask = (level > 0) & self.fan
            if mask.sum() >= _FEWEST_PIXELS:
                x, z = (plane[inner, inner][mask] for plane in self.source_mm)
                found[name] = _mean_weights(self.grid, x, z)
        return found

    def agent(self, times_s: F64) -> F64:
        """Agent (len(TISSUES), T), peak of cortex 1, at times since the first frame; flash and
        refilling included."""
        flash, clock = self.plan.flash, times_s + self.plan.timing.clock_start_s
        curves = np.stack([bolus.power(clock) for bolus in self._boluses])
        if flash is not None:
            since = times_s - flash.at_s - flash.duration_s
            lost = (1 - flash.left) * np.exp(-_REFILL[:, None] * np.maximum(since, 0.0))
            curves = np.where(since >= 0, curves * (1 - lost), curves)
        return curves

    def reflectors(self, mixture: Mixture) -> F32:
        """Display power (N,) of tissue that shines through."""
        return np.float32(_REFLECTORS) * mixture.reflectors

    @cached_property
    def noise_floor(self) -> F32:
        """Mean display power (N,) of electronic noise: the depth gain lifts it by 2 dB/cm."""
        depth = (np.arange(self.grid.samples) + 0.5) / self.grid.samples * self.grid.depth_mm
        level_db = 0.2 * (depth - 0.5 * self.plan.scanner.depth_mm)
        floor = self.plan.noise.floor * np.power(10.0, level_db / 10.0)
        return np.repeat(floor, self.grid.beams).astype(np.float32)

    @cached_property
    def _boluses(self) -> list[Bolus]:
        return _tissue_boluses(self.plan.perfusion)

    def _laid_out(self, aside: bool) -> SectionPlane:
        plan, wide = self.plan, self._wide
        anatomy, view = plan.anatomy, plan.view
        if aside:
            anatomy = replace(anatomy, half_width_mm=0.94 * anatomy.half_width_mm)
            view = replace(
                view, slice_factor=_SIDE_SLICE * view.slice_factor, seed=(view.seed + 1) % 2**53
            )
        # The low transmit power of contrast imaging makes the fundamental picture noisier.
        faint = replace(
            wide, gain_db=wide.gain_db + plan.display.bmode_gain_db, noise_db=wide.noise_db + 4.0
        )
        size = math.ceil(wide.field_mm / self.mm_per_px)
        image = render((anatomy, "normal"), view, faint, size)
        columns, rows = grid_places(wide, *self.source_mm)
        # Pixel centres of a picture of another size: (c + 1/2) size / TISSUE_GRID - 1/2.
        zoom, half = np.float32(size / TISSUE_GRID), np.float32(0.5)
        in_picture = ((columns + half) * zoom - half, (rows + half) * zoom - half)
        picture = cv2.remap(image.pixels, *in_picture, cv2.INTER_CUBIC, None, cv2.BORDER_REPLICATE)
        section = map_section(anatomy, view, wide)
        tissue = section.tissue
        fields = {
            "lesion": tissue.lesion_mm, "kidney": tissue.kidney_mm, "even": section.enhancing_mm,
        }  # fmt: skip
        levels = {
            name: np.asarray(
                cv2.remap(level, columns, rows, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE),
                np.float32,
            )
            for name, level in fields.items()
        }
        enhancing = levels.pop("even")
        rng = np.random.default_rng([plan.seed, 32, int(aside)])
        mixture = mix_tissues(section, wide, plan.perfusion.lesion, (self.grid, rng))
        levels["cortex"] = self._cortex_level(mixture, enhancing)
        return SectionPlane(np.asarray(picture, np.uint8), levels, enhancing, mixture)

    def _cortex_level(self, mixture: Mixture, lesion_mm: F32) -> F32:
        """Above 0 in pure cortex at the depth of the mass (at any depth without one)."""
        share = cv2.GaussianBlur(self.scan_converted(mixture.cortex), (0, 0), 0.8 / self.mm_per_px)
        level = np.asarray(share, np.float32) - np.float32(0.9)
        inside = lesion_mm > 0
        if inside.any():
            depth = self.source_mm[1]
            reach = 18.0 + 0.5 * float(np.ptp(depth[inside]))
            near = np.abs(depth - float(depth[inside].mean())) < reach
            level = np.where(near, level, np.float32(-1.0))
        return level


def _points(place: PanelPlace, margin: int) -> tuple[F32, F32]:
    """x and z in mm of the pixel centres of a view, grown by a margin in px."""
    columns = np.arange(-margin, place.view.width + margin) + place.view.x + 0.5
    rows = np.arange(-margin, place.view.height + margin) + place.view.y + 0.5
    x, z = np.meshgrid(
        (columns - place.face_px[0]) * place.mm_per_px, (rows - place.face_px[1]) * place.mm_per_px
    )
    return x.astype(np.float32), z.astype(np.float32)


def _mean_weights(grid: BeamGrid, x_mm: F32, z_mm: F32) -> F64:
    """How much each beam sample (N,) counts in the mean over points, by bilinear interpolation."""
    columns, rows = grid.places(x_mm, z_mm)
    left, top = np.floor(columns), np.floor(rows)
    weights = np.zeros((grid.samples, grid.beams))
    for step_y, share_y in ((0, 1 - rows + top), (1, rows - top)):
        for step_x, share_x in ((0, 1 - columns + left), (1, columns - left)):
            at_y = np.clip(top + step_y, 0, grid.samples - 1).astype(np.intp)
            at_x = np.clip(left + step_x, 0, grid.beams - 1).astype(np.intp)
            np.add.at(weights, (at_y, at_x), share_y * share_x)
    return weights.ravel() / x_mm.size


def _wider(plan: CeusPlan) -> Scanner:
    """The scanner with a fan that reaches beyond the shown one, for tissue that moves in."""
    return replace(
        plan.scanner,
        half_angle_deg=min(60.0, plan.screen.half_angle_deg + 9.0),
        depth_mm=min(250.0, plan.scanner.depth_mm + _MARGIN_MM),
    )


def _tissue_boluses(perfusion: Perfusion) -> list[Bolus]:
    """The boluses in the order of TISSUES; peak of cortex 1."""
    organs: list[Bolus] = [getattr(perfusion, name) for name in TISSUES[:7]]
    if perfusion.lesion is None:
        return [*organs, organs[0], organs[0], organs[0]]
    bolus = perfusion.lesion.bolus
    return organs + [
        replace(bolus, arrival_s=bolus.arrival_s + delay) for delay in delays_s(perfusion.lesion)
    ]
