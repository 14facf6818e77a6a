"""How does a dual-panel contrast examination look, frame by frame, and what is true in each?

    plan  = draw_ceus(subject, scanner, features, rng)     plain numbers
    study = CeusStudy(plan)                                fields laid out once
    for pixels, truth in study.frames(): ...               (H,W,3) RGB, one at a time

A frame shows linear echo power I on a logarithmic scale,

    g = 255 / DR * 10 log10(1 + I)      so that      I = 10^(g DR / 255 / 10) - 1,

with I = (sum of tissue share x bolus) x microbubble speckle + reflectors + electronic noise, before
8-bit rounding. The red channel of the contrast panel is g. Motion warps fields that were scan
converted once; the body wall stays with the probe. Out of plane, the slice holds a share of a
neighbouring section.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from renalkit.ceus.linear import linear_power
from renalkit.ceus.phases import Phase, label_phases
from renalkit.domain.geometry import Box, Region
from renalkit.phantom.ceus.console import (
    STYLES,
    Panel,
    PanelPlace,
    background,
    clock_patch,
    clock_text,
    show_index,
)
from renalkit.phantom.ceus.contrast import TISSUES, BubbleSpeckle, Mixture
from renalkit.phantom.ceus.motion import displacement
from renalkit.phantom.ceus.plan import (
    SILENT,
    CeusOptions,
    CeusPlan,
    Display,
    Flash,
    Noise,
    Timing,
    draw_ceus,
)
from renalkit.phantom.ceus.scene import ROIS, STEADIED, Maps, RoiTruth, Scene

__all__ = [
    "PAIR_MARGIN",
    "ROIS",
    "SATURATED_SHARE",
    "SILENT",
    "CeusOptions",
    "CeusPlan",
    "CeusStudy",
    "Display",
    "Flash",
    "FrameTruth",
    "Noise",
    "RoiTruth",
    "Section",
    "Timing",
    "crop_pairs",
    "draw_ceus",
    "linear_power",
    "pair_times",
]

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

SATURATED_SHARE = 0.02
"""A frame counts as saturated when more of the mass (or kidney) than this is at full white."""

PAIR_MARGIN = 0.1
"""Added around the mass on each side of a frame pair, as a share of its box."""

_FLASH_INDEX = 1.1  # mechanical index of a flash
_LEAST_ASIDE = 0.01  # a smaller share of another section is not worth its laying out
_GRAIN_MEAN, _GRAIN_SHIFTS = 12, 64


@dataclass(frozen=True, slots=True, eq=False)
class Section:
    """Where something is in the picture: x, y of the upper left corner in the panel's view, and
    mask (h,w), tight."""

    x: int
    y: int
    mask: Mask

    def box(self, place: PanelPlace) -> Box:
        """The box on the screen, in one of the panels."""
        height, width = self.mask.shape
        return Box(place.view.x + self.x, place.view.y + self.y, width, height)


@dataclass(frozen=True, slots=True, eq=False)
class FrameTruth:
    """What is true of one frame.

    index: of the frame. time_s: since the first frame. clock_s: since injection; clock: as
    burned in. right_mm, deep_mm: displacement of the kidney. elevation_mm: out of the plane;
    out_of_plane: share of the slice in another section, 0..1. flash: high-power frame.
    saturated_share: share of the mass (kidney without one) at full white. sections: outlines of
    "lesion", "kidney" and "cortex" where they can be seen. places: of both panels.
    """

    index: int
    time_s: float
    clock_s: float
    clock: str
    right_mm: float
    deep_mm: float
    elevation_mm: float
    out_of_plane: float
    flash: bool
    saturated_share: float
    sections: Mapping[str, Section]
    places: Mapping[Panel, PanelPlace]

    @property
    def saturated(self) -> bool:
        """More than SATURATED_SHARE of the mass is at full white."""
        return self.saturated_share > SATURATED_SHARE

    def box(self, name: str, panel: Panel) -> Box | None:
        """Box on the screen, None when it cannot be seen."""
        section = self.sections.get(name)
        return None if section is None else section.box(self.places[panel])

    def mask(self, name: str, panel: Panel, shape: tuple[int, int]) -> Mask:
        """Mask (H,W) of the whole screen."""
        full = np.zeros(shape, np.bool_)
        section = self.sections.get(name)
        if section is not None:
            full[section.box(self.places[panel]).slices] = section.mask
        return full

    def row(self) -> dict[str, Any]:
        """Plain values for a table; boxes as x, y, width, height or None."""
        names = ("index", "time_s", "clock_s", "clock", "right_mm", "deep_mm", "elevation_mm")
        values: dict[str, Any] = {name: getattr(self, name) for name in names}
        values |= {"out_of_plane": self.out_of_plane, "flash": self.flash}
        values |= {"saturated": self.saturated, "saturated_share": self.saturated_share}
        for name in ("lesion", "kidney"):
            for panel in Panel:
                box = self.box(name, panel)
                at = None if box is None else (box.x, box.y, box.width, box.height)
                values[f"{name}_{panel}_box"] = at
        return values


class CeusStudy:
    """A planned examination whose frames can be rendered; memory does not grow with its length."""

    def __init__(self, plan: CeusPlan) -> None:
        self.plan = plan
        self.scene = Scene(plan)
        self.places = self.scene.places
        self._background = background(plan.screen, plan.scanner)

    @property
    def regions(self) -> tuple[Region, Region]:
        """The two panels for the Sequence of Ultrasound Regions, B-mode first."""
        return self.places[Panel.BMODE].region, self.places[Panel.CONTRAST].region

    @property
    def rois(self) -> dict[str, RoiTruth]:
        """Truth of the regions that can be seen in the reference section, by name of ROIS."""
        return self.scene.rois

    def expected(self, name: str, times_s: npt.ArrayLike) -> F64:
        """Mean power (T,) of a region at times since the first frame: still and without noise,
        with the flash's destruction but without its flare."""
        roi = self.rois[name]
        return roi.baseline + np.array(roi.weights) @ self.scene.agent(_times(times_s))

    def frames(self, times_s: npt.ArrayLike | None = None) -> Iterator[tuple[Pixels, FrameTruth]]:
        """Render frames one after the other.

        Args:
            times_s: rising times since the first frame; the whole clip when None. Noise and
                speckle have the same statistics at any choice of times.

        Yields:
            (H,W,3) uint8 RGB, not used again, and its truth.

        Raises:
            ValueError: the times do not rise.
        """
        plan, scene = self.plan, self.scene
        times = plan.frame_times_s() if times_s is None else _times(times_s)
        if (np.diff(times) < 0).any():
            raise ValueError("frame times must rise")
        moved = displacement(plan.motion, times)
        disturbance = _Disturbance(scene)
        agent = scene.agent(times) * scene.unit
        rng = np.random.default_rng([plan.seed, 33])
        for index, time in enumerate(times.tolist()):
            right, deep = float(moved.right_mm[index]), float(moved.deep_mm[index])
            share = float(moved.out_of_plane[index])
            aside = share if share >= _LEAST_ASIDE else 0.0
            flash = plan.flash is not None and (
                plan.flash.at_s <= time < plan.flash.at_s + plan.flash.duration_s
            )
            maps = scene.maps(right, deep)
            pause = time - float(times[index - 1]) if index else math.inf
            power = disturbance.power(pause, agent[:, index], scene.mixture(aside))
            if flash:
                # Bursting bubbles and tissue harmonics light up the whole picture.
                power = power * np.float32(3.0) + np.float32(scene.white / 2) * disturbance.speckle
            grey = self._contrast(np.asarray(power, np.float32), maps)
            picture = self._bmode(aside, maps, rng)
            sections = self._sections(aside, maps)
            clock_s = time + plan.timing.clock_start_s
            truth = FrameTruth(
                index=index,
                time_s=time,
                clock_s=clock_s,
                clock=clock_text(clock_s),
                right_mm=right,
                deep_mm=deep,
                elevation_mm=float(moved.elevation_mm[index]),
                out_of_plane=share,
                flash=flash,
                saturated_share=_white_share(grey, sections),
                sections=sections,
                places=self.places,
            )
            yield self._compose(picture, grey, truth), truth

    def _contrast(self, power: F32, maps: Maps) -> Pixels:
        """Grey levels of the contrast view from beam power (N,)."""
        warped = cv2.remap(self.scene.scan_converted(power), *maps, cv2.INTER_LINEAR)
        level = cv2.log(np.asarray(warped, np.float32) + np.float32(1.0))
        step = 255.0 / self.plan.display.dynamic_range_db * 10.0 / math.log(10.0)
        return np.asarray(cv2.convertScaleAbs(level, alpha=step), np.uint8)

    def _bmode(self, aside: float, maps: Maps, rng: np.random.Generator) -> Pixels:
        """Grey levels of the B-mode view."""
        source = self.scene.plane(aside=False).picture
        if aside > 0.0:
            other = self.scene.plane(aside=True).picture
            source = np.asarray(cv2.addWeighted(source, 1 - aside, other, aside, 0.0), np.uint8)
        picture = cv2.remap(source, *maps, cv2.INTER_LINEAR)
        bank, inside, offset = self._grain
        height, width = self.scene.view
        y, x = rng.integers(0, _GRAIN_SHIFTS, 2)
        grained = cv2.add(picture, bank[y : y + height, x : x + width], mask=inside)
        return np.asarray(cv2.subtract(grained, offset), np.uint8)

    @cached_property
    def _grain(self) -> tuple[Pixels, Pixels, Pixels]:
        """Electronic noise of the B-mode view in grey levels around _GRAIN_MEAN, with room to
        shift; the fan as 0 and 255; the mean over the view."""
        rng = np.random.default_rng([self.plan.seed, 34])
        height, width = self.scene.view
        shape = (height + _GRAIN_SHIFTS, width + _GRAIN_SHIFTS)
        noise = cv2.GaussianBlur(rng.standard_normal(shape, dtype=np.float32), (0, 0), 0.8)
        grain = np.rint(np.asarray(noise) * np.float32(5.0) + _GRAIN_MEAN)
        fan = self.scene.fan.astype(np.uint8)
        return np.clip(grain, 0, 255).astype(np.uint8), 255 * fan, _GRAIN_MEAN * fan

    def _sections(self, aside: float, maps: Maps) -> dict[str, Section]:
        """Outlines in the view; out of plane, between those of the two sections."""
        found: dict[str, Section] = {}
        for name, window in self.scene.windows.items():
            level = self.scene.plane(aside=False).levels[name]
            if aside > 0.0:
                other = self.scene.plane(aside=True).levels[name]
                level = np.asarray(cv2.addWeighted(level, 1 - aside, other, aside, 0.0))
            here = maps[0][window], maps[1][window]
            warped = cv2.remap(
                level, *here, cv2.INTER_LINEAR, None, cv2.BORDER_CONSTANT, (-1e3, 0.0, 0.0, 0.0)
            )
            mask = np.asarray(warped) > 0
            x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
            if width > 0 and height > 0:
                tight = mask[y : y + height, x : x + width].copy()
                found[name] = Section(window[1].start + x, window[0].start + y, tight)
        return found

    def _compose(self, picture: Pixels, grey: Pixels, truth: FrameTruth) -> Pixels:
        """The whole screen."""
        fixed, screen = self._background, self._background.pixels.copy()
        screen[self.places[Panel.BMODE].view.slices] = cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB)
        coloured = cv2.LUT(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), self._palette)
        screen[self.places[Panel.CONTRAST].view.slices] = coloured
        if fixed.clock_at is not None:
            patch = clock_patch(self.plan.screen, truth.clock)
            x, y = fixed.clock_at
            target = screen[y : y + patch.shape[0], x : x + patch.shape[1]]
            np.maximum(target, patch, out=target)
        screen.reshape(-1, 3)[fixed.over] = fixed.over_pixels
        if truth.flash:
            show_index(screen, self.plan.screen, _FLASH_INDEX)
        return screen

    @cached_property
    def _palette(self) -> Pixels:
        """Colour of each grey level of the contrast picture, (1,256,3); red is the level."""
        tint = np.array(STYLES[self.plan.screen.style].tint)
        return np.rint(np.arange(256)[None, :, None] * tint).astype(np.uint8)


def crop_pairs(
    study: CeusStudy, times_s: Sequence[float], margin: float = PAIR_MARGIN
) -> Iterator[tuple[Pixels, Pixels, FrameTruth]]:
    """Frame pairs cropped to the mass, without rendering the clip in between.

    Args:
        study: with a mass. times_s: rising times since the first frame. margin: added on each
            side as a share of the box, inside the panel.

    Yields:
        B-mode and contrast crop (h,w,3) uint8 RGB of the same place, as on the screen, and the
        truth. Times at which the mass cannot be seen give nothing.
    """
    for pixels, truth in study.frames(times_s):
        if "lesion" in truth.sections:
            bmode, contrast = (_crop(pixels, truth, panel, margin) for panel in Panel)
            yield bmode, contrast, truth


def _crop(pixels: Pixels, truth: FrameTruth, panel: Panel, margin: float) -> Pixels:
    """The mass in one panel of a screen (H,W,3), (h,w,3)."""
    box, pane = truth.box("lesion", panel), truth.places[panel].box
    assert box is not None
    inside = Box(box.x - pane.x, box.y - pane.y, box.width, box.height)
    window = inside.grown(margin, pane.height, pane.width).slices
    return np.ascontiguousarray(pixels[pane.slices][window])


def pair_times(plan: CeusPlan, count: int) -> list[float]:
    """Times for `count` frame pairs as `renalkit ceus cohort` chooses frames: the same number from
    the cortical and the medullary phase (an odd one from the first), in even steps, each moved by
    up to 2 s to where the section is seen. A clip that ends before a phase has none of it; fewer
    frames than pairs give fewer times.

    Raises:
        ValueError: count is not positive.
    """
    if count < 1:
        raise ValueError(f"{count} frame pairs: at least 1")
    times = plan.frame_times_s()
    clock = times + plan.timing.clock_start_s
    labels = label_phases(clock, injection_s=0.0)
    assert labels is not None
    of = [
        np.flatnonzero([p is q for q in labels.labels]) for p in (Phase.CORTICAL, Phase.MEDULLARY)
    ]
    phases = [frames for frames in of if frames.size] or [np.arange(times.size)]
    aside = np.round(displacement(plan.motion, times).out_of_plane, 2)
    chosen: list[int] = []
    for place, frames in enumerate(phases):
        share = -(-(count - len(chosen)) // (len(phases) - place))
        pause = float(np.median(np.diff(clock[frames]))) if frames.size > 1 else 1.0
        edges = np.linspace(clock[frames[0]], clock[frames[-1]] + pause, share + 1)
        for target in (edges[:-1] + edges[1:]) / 2:
            free = frames[~np.isin(frames, chosen)]
            if free.size == 0:
                break
            far = np.abs(clock[free] - target)
            near = far <= max(2.0, float(far.min()))
            cost = aside[free] + 1e-3 * far
            chosen.append(int(free[near][int(cost[near].argmin())]))
    return [float(times[i]) for i in sorted(chosen)]


class _Disturbance:
    """Speckle, noise and slow fluctuation of one rendering, frame after frame."""

    def __init__(self, scene: Scene) -> None:
        seed, noise = scene.plan.seed, scene.plan.noise
        self._scene, self._noise = scene, noise
        self._means = {name: mean.astype(np.float32) for name, mean in scene.means.items()}
        self._gain = _relative_noise(scene)
        self._rng = np.random.default_rng([seed, 35])
        self._drift = self._rng.standard_normal(len(TISSUES) + len(STEADIED))
        self._bubbles = BubbleSpeckle(
            scene.grid, noise.correlation_s, np.random.default_rng([seed, 36])
        )
        # Tissue keeps its speckle.
        still = BubbleSpeckle(scene.grid, 1.0, np.random.default_rng([seed, 37]))
        self._still = still.step(math.inf)
        self.speckle: F32 = np.ones_like(self._still)
        """Of the newest frame, (N,) of mean 1."""

    def power(self, pause_s: float, agent: F64, mixture: Mixture) -> F32:
        """Echo power (N,) of the next frame, a pause after the last one.

        The means over mass and cortex are set to what the agent gives, times their fluctuation:
        a curve's residual is then the same for a small mass as for a large one.
        """
        change = 1.0 + self._gain * np.clip(self._fluctuation(pause_s), -3.0, 3.0)
        held = agent.copy()
        held[1:7] *= change[1:7]
        power = np.einsum("k,kn->n", held.astype(np.float32), mixture.weights)
        steady, shown = self._scene.reflectors(mixture), power
        floor = self._scene.noise_floor
        if self._noise.speckle:
            self.speckle = self._bubbles.step(pause_s)
            shown = power * self.speckle
            steady, floor = steady * self._still, floor * self._bubbles.fresh
        for place, (name, member) in enumerate(
            zip(STEADIED, (mixture.lesion, mixture.cortex), strict=True), start=len(TISSUES)
        ):
            mean = self._means.get(name)
            if mean is None:
                continue
            wanted = float((mean * power).sum()) * float(change[place])
            found, inside = float((mean * shown).sum()), float((mean * shown * member).sum())
            # Out of plane the region may hold too little of its tissue to be set by it.
            if inside > 0.2 * found:
                shown = shown * (1 + np.float32((wanted - found) / inside) * member)
        return shown + steady + floor

    def _fluctuation(self, pause_s: float) -> F64:
        """Ornstein-Uhlenbeck processes of unit deviation, one per tissue and region."""
        keep = math.exp(-pause_s / self._noise.correlation_s)
        fresh = self._rng.standard_normal(self._drift.size)
        self._drift = keep * self._drift + math.sqrt(1 - keep * keep) * fresh
        return self._drift


def _relative_noise(scene: Scene) -> float:
    """Relative deviation that gives the stated residual over the whole clip."""
    sd = scene.plan.noise.roi_sd
    mean = next((scene.means[name] for name in STEADIED if name in scene.means), None)
    if mean is None:
        return sd
    weights = scene.plane(aside=False).mixture.weights.astype(np.float64) @ mean
    curve = weights @ scene.agent(scene.plan.frame_times_s())
    strength = float(np.sqrt(np.mean(curve**2)))
    peak = float((weights @ scene.agent(np.arange(0.0, 120.0, 0.25))).max())
    # A clip that ends before the agent comes has no curve to disturb.
    return min(0.3, sd * peak / max(strength, 1e-9))


def _times(times_s: npt.ArrayLike) -> F64:
    return np.atleast_1d(np.asarray(times_s, np.float64))


def _white_share(grey: Pixels, sections: Mapping[str, Section]) -> float:
    section = sections.get("lesion") or sections.get("kidney")
    if section is None:
        return 0.0
    height, width = section.mask.shape
    part = grey[section.y : section.y + height, section.x : section.x + width]
    return float((part[section.mask] == 255).mean())
