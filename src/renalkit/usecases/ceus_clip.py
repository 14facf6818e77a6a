"""What does one contrast cine show: panes, motion, phases, chosen frames, curves?

Every frame is decoded once for motion and curves together, and of it only the parts that are
looked at, so time grows with the length of the clip and memory does not.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from renalkit.ceus.arrival import Arrival, find_arrival
from renalkit.ceus.curves import FEWEST_PIXELS, CurveMeter, RoiCurve
from renalkit.ceus.frames import (
    FrameChoice,
    FrameQuality,
    find_flashes,
    missing_frames,
    select_frames,
    sharpness_of,
)
from renalkit.ceus.layouts import Presets
from renalkit.ceus.linear import Palette, PaletteRefused, PowerScale, read_palette
from renalkit.ceus.maps import (
    MapMeter,
    MapSummary,
    ParametricMaps,
    cell_px,
    parametric_maps,
    summarise,
)
from renalkit.ceus.motion import Shift, Track, Tracker, TrackOptions, finish_track, moved_box, walk
from renalkit.ceus.panels import OnePanel, Pane, Side, TwoPanels, Unclear, find_panels
from renalkit.ceus.perfusion import Perfusion, analyse
from renalkit.ceus.phases import Phase, PhaseLabels, label_phases
from renalkit.ceus.reference import choose_box, choose_reference, sample_indices
from renalkit.ceus.sampling import CroppedStack
from renalkit.domain.geometry import Box, MaskRLE
from renalkit.domain.image import Clip, windows_of
from renalkit.domain.study import Roi, Scanner
from renalkit.errors import InputRefused, Reason
from renalkit.usecases.ceus_settings import CeusSettings
from renalkit.usecases.progress import Progress, Silent

Mask = npt.NDArray[np.bool_]
Pixels = npt.NDArray[np.generic]

CORTEX = "cortex"
"""Name of the region that others are compared with."""

TRACKED = "tracked"
"""Name of the curve of the box that was followed when nobody outlined anything."""

_CANDIDATES = 24
_STEP = 100  # frames per step of the progress


@dataclass(frozen=True, slots=True, eq=False)
class CeusClip:
    """Everything found in one contrast cine; T frames, in the pixels of a pane.

    regions: what was outlined, by name, in pane coordinates. masks: (H,W) on the reference frame.
    curves: their times count, like those of figures, from the injection, else the first frame.
    phases, perfusion, curves, maps: None where time is not known; perfusion and maps also without a
    region.
    injection_s: on the clock of the frame times. choices: one per frame. missing: frames per phase
    that could not be had. warnings: in words, in the order of the work.
    """

    panels: TwoPanels
    palette: Palette
    regions: Mapping[str, tuple[Roi, ...]]
    masks: Mapping[str, Mask]
    track: Track
    reference_reason: str
    quality: FrameQuality
    curves: Mapping[str, RoiCurve] | None
    arrival: Arrival
    injection_s: float | None
    phases: PhaseLabels | None
    choices: tuple[FrameChoice, ...]
    missing: Mapping[Phase, int]
    perfusion: Perfusion | None
    maps: ParametricMaps | None
    map_summaries: tuple[MapSummary, ...]
    warnings: tuple[str, ...]

    @property
    def chosen(self) -> tuple[int, ...]:
        """Numbers of the chosen frames, rising."""
        return tuple(c.index for c in self.choices if c.chosen)


def analyse_clip(
    clip: Clip,
    regions: Mapping[str, Sequence[Roi]],
    settings: CeusSettings,
    *,
    scanner: Scanner | None = None,
    presets: Presets | None = None,
    progress: Progress | None = None,
) -> CeusClip:
    """Analyse a dual cine.

    Args:
        clip: as read. regions: outlined on the screen in either pane, by name; "cortex" is what
            others are compared with. scanner, presets: for layouts without regions in the header.

    Raises:
        InputRefused: LAYOUT_UNKNOWN, no two panes, or they cannot be told; BAD_ANNOTATION, a
            region in no pane; CONSTANT_IMAGE, nothing to follow.
    """
    told = progress or Silent()
    told.stage("finding the panes")
    side = None if settings.contrast is None else Side(settings.contrast)
    panels = two_panels(clip, presets, scanner, side)
    inside = {name: tuple(_in_pane(r, panels) for r in rois) for name, rois in regions.items()}
    work = _Work(clip, panels, inside, settings, told)
    return work.run()


def two_panels(
    clip: Clip, presets: Presets | None, scanner: Scanner | None, contrast: Side | None
) -> TwoPanels:
    """The two panes of a clip.

    Raises:
        InputRefused: LAYOUT_UNKNOWN, with what was seen.
    """
    answer = find_panels(clip, presets, scanner, contrast)
    match answer:
        case TwoPanels():
            return answer
        case OnePanel():
            raise InputRefused(
                Reason.LAYOUT_UNKNOWN,
                f"one panel: {'; '.join(answer.evidence)}",
                expected="B-mode and contrast side by side or stacked",
                remedy="analyse the dual-panel clip, or give a layout in a preset file",
            )
        case Unclear():
            raise InputRefused(
                Reason.LAYOUT_UNKNOWN,
                f"panes that cannot be told: {'; '.join(answer.reasons)}",
                expected="B-mode and contrast side by side or stacked",
                remedy="say where the contrast pane is, or give a layout in a preset file",
            )


def _in_pane(roi: Roi, panels: TwoPanels) -> Roi:
    """The region in the coordinates of the panes, wherever on the screen it was drawn."""
    box = roi.box or _around(roi.mask)
    for pane in (panels.bmode, panels.contrast):
        if pane.box.union(box) == pane.box:
            return Roi(
                roi.clip,
                roi.frame,
                None if roi.mask is None else _cut(roi.mask, pane),
                None
                if roi.box is None
                else Box(box.x - pane.box.x, box.y - pane.box.y, box.width, box.height),
                roi.origin,
            )
    raise InputRefused(
        Reason.BAD_ANNOTATION,
        f"a region at {box} of frame {roi.frame} that lies in neither pane",
        expected=f"inside {panels.bmode.box} or {panels.contrast.box}",
        remedy="outline it in one of the two pictures",
    )


def _around(mask: MaskRLE | None) -> Box:
    assert mask is not None
    x, y, width, height = cv2.boundingRect(mask.decode().astype(np.uint8))
    if not width:
        raise InputRefused(
            Reason.EMPTY_MASK, "a region without a pixel", remedy="leave it out or draw it"
        )
    return Box(x, y, width, height)


def _cut(mask: MaskRLE, pane: Pane) -> MaskRLE:
    return MaskRLE.encode(mask.decode()[pane.box.slices])


def region_mask(roi: Roi, shape: tuple[int, int]) -> Mask:
    """(H,W) of a region; of a box without a mask the ellipse that fits into it."""
    if roi.mask is not None:
        return roi.mask.decode()
    assert roi.box is not None
    box = roi.box
    y, x = np.ogrid[: shape[0], : shape[1]]
    across = (x + 0.5 - box.x - box.width / 2) / (box.width / 2)
    down = (y + 0.5 - box.y - box.height / 2) / (box.height / 2)
    return across**2 + down**2 <= 1


@dataclass(slots=True, eq=False)
class _Work:
    """One analysis on its way. regions are in pane coordinates."""

    clip: Clip
    panels: TwoPanels
    regions: Mapping[str, tuple[Roi, ...]]
    settings: CeusSettings
    progress: Progress

    @property
    def _shape(self) -> tuple[int, int]:
        box = self.panels.bmode.box
        return box.height, box.width

    def run(self) -> CeusClip:
        warnings: list[str] = []
        reference, reason = self._reference()
        picture = self._pane(reference)
        masks, box, said = self._masks(reference, picture)
        warnings += said
        palette = self._palette(warnings)
        found = self._measure(reference, box, masks, palette)
        warnings += found.warnings
        lead = next((n for n in masks if n not in (CORTEX, TRACKED)), next(iter(masks)))
        arrival, injection, phases = self._phases(found, lead, warnings)
        quality = found.quality(lead)
        choices, missing = self._choose(quality, phases, warnings)
        perfusion = None
        curves = found.curves
        if curves is not None:
            curves = {n: replace(c, times_s=c.times_s - self._zero) for n, c in curves.items()}
        if curves is not None and self.regions:
            options = self.settings.fit.options(from_injection=injection is not None)
            self.progress.stage("fitting curves")
            perfusion = analyse(curves, options, CORTEX)
        maps, summaries = self._maps(found, masks, warnings)
        return CeusClip(
            panels=self.panels,
            palette=palette,
            regions=self.regions,
            masks=masks,
            track=found.track,
            reference_reason=reason,
            quality=quality,
            curves=curves,
            arrival=arrival,
            injection_s=injection,
            phases=phases,
            choices=choices,
            missing=missing,
            perfusion=perfusion,
            maps=maps,
            map_summaries=summaries,
            warnings=tuple(warnings),
        )

    def _pane(self, frame: int) -> Pixels:
        return CroppedStack(self.clip.pixels, self.panels.bmode.box)[frame]

    def _reference(self) -> tuple[int, str]:
        """The frame most like the others: of those outlined, else of the whole clip."""
        outlined = sorted({r.frame for rois in self.regions.values() for r in rois})
        lesions = [rois for name, rois in self.regions.items() if name != CORTEX] or list(
            self.regions.values()
        )
        common = [f for f in outlined if all(any(r.frame == f for r in rois) for rois in lesions)]
        candidates = common or outlined or sample_indices(self.clip.n_frames, _CANDIDATES)
        few = np.unique(np.linspace(0, len(candidates) - 1, _CANDIDATES).round().astype(int))
        numbers = [candidates[int(i)] for i in few]
        chosen = choose_reference([self._pane(n) for n in numbers], numbers)
        return chosen.index, chosen.reason

    def _masks(self, reference: int, picture: Pixels) -> tuple[dict[str, Mask], Box, list[str]]:
        """Masks on the reference frame, the box to follow, and what had to be assumed."""
        said: list[str] = []
        masks: dict[str, Mask] = {}
        for name, rois in self.regions.items():
            roi = min(rois, key=lambda r: (abs(r.frame - reference), r.frame))
            if roi.frame != reference:
                said.append(
                    f"region '{name}' is not outlined on reference frame {reference}; taken "
                    f"from frame {roi.frame} without moving it"
                )
            if roi.mask is None:
                said.append(f"region '{name}' is a box: figures are of the ellipse inside it")
            masks[name] = region_mask(roi, self._shape)
            if np.count_nonzero(masks[name]) < FEWEST_PIXELS:
                raise InputRefused(
                    Reason.BAD_ANNOTATION,
                    f"region '{name}' with fewer than {FEWEST_PIXELS} pixels",
                    expected="a region large enough for a mean",
                    remedy="outline the whole lesion",
                )
        if masks:
            whole = np.logical_or.reduce(
                [m for n, m in masks.items() if n != CORTEX] or [*masks.values()]
            )
            box = Box(*(int(v) for v in cv2.boundingRect(whole.astype(np.uint8))))
            return masks, box, said
        try:
            found = choose_box(picture)
        except ValueError as error:
            raise InputRefused(
                Reason.CONSTANT_IMAGE, f"no region given and {error}", remedy="outline the lesion"
            ) from error
        said.append(f"no region given: followed {found.reason}; no perfusion figures")
        box = found.box
        return {TRACKED: region_mask(Roi(0, reference, box=box), self._shape)}, box, said

    def _palette(self, warnings: list[str]) -> Palette:
        contrast = self.panels.contrast.box
        frames = [
            windows_of(self.clip.pixels, i, [contrast])[0]
            for i in sample_indices(self.clip.n_frames, _CANDIDATES)
        ]
        palette = read_palette(frames)
        if isinstance(palette, PaletteRefused):
            raise InputRefused(
                Reason.LAYOUT_UNKNOWN,
                f"a contrast pane whose palette cannot be read: {palette.words}",
                expected="a grey or tinted contrast picture",
                remedy="check that the pane shows contrast and no colour Doppler",
            )
        if not palette.exact:
            warnings.append("the palette is assumed to be even in luminance")
        if self.settings.dynamic_range_db is None:
            warnings.append(
                "dynamic range not given: figures are in grey levels and no measure of the agent"
            )
        return palette

    def _measure(
        self, reference: int, box: Box, masks: Mapping[str, Mask], palette: Palette
    ) -> _Measured:
        """Motion, curves and quality of all frames, in one pass over them."""
        area = self._area(box, masks)
        options = self.settings.motion.options()
        first = self._windows(reference, area)[0]
        try:
            tracker = Tracker(first, _moved(box, -area.x, -area.y), options)
        except ValueError as error:
            raise InputRefused(
                Reason.CONSTANT_IMAGE, str(error), remedy="choose another region or frame"
            ) from error
        scale = PowerScale(palette, self.settings.dynamic_range_db)
        meter = CurveMeter({n: m[area.slices] for n, m in masks.items()}, scale)
        count = self.clip.n_frames
        times = self.clip.times_s or tuple(float(i) for i in range(count))
        mapper = self._mapper(area, masks, scale)
        shifts = [Shift(0.0, 0.0, 0.0)] * count
        usual = _Usual(options)
        sharp, level = np.zeros(count), np.zeros(count)
        here = _moved(box, -area.x, -area.y)
        self.progress.stage("following the kidney", -(-count // _STEP))
        for done, index in enumerate(walk(count, reference), 1):
            if index == reference - 1:
                tracker.restart()
            bmode, contrast = self._windows(index, area)
            shifts[index] = shift = tracker.step(bmode)
            levels = palette.levels(contrast)
            meter.add_levels(levels, times[index], (shift.dx, shift.dy))
            if mapper is not None and usual.shows(shift.correlation):
                mapper.add_levels(levels, times[index] - self._zero, (shift.dx, shift.dy))
            place = moved_box(here, shift.dx, shift.dy, area.height, area.width)
            sharp[index] = 0.0 if place is None else sharpness_of(bmode[place.slices])
            level[index] = float(levels.mean())
            if done % _STEP == 0 or done == count:
                self.progress.advance()
        track = finish_track(tracker, reference, shifts)
        kept = track.kept
        flash = find_flashes(times, level)
        curves = meter.curves(kept & ~flash)
        warnings: list[str] = []
        if flash.any():
            warnings.append(f"{int(flash.sum())} frames at high power (flash) left out of curves")
        if self.clip.times_s is None:
            warnings.append(
                "frame times are not known: no arrival, no phases and no perfusion figures"
            )
        return _Measured(
            area, track, sharp, flash, self.clip.times_s, curves, mapper, tuple(warnings)
        )

    @property
    def _zero(self) -> float:
        """The zero of the times of figures: the injection, or the first frame."""
        return self.settings.injection_s or 0.0

    def _mapper(self, area: Box, masks: Mapping[str, Mask], scale: PowerScale) -> MapMeter | None:
        """For maps over all regions; None when none are wanted or possible."""
        times = self.clip.times_s
        if not (self.settings.maps and self.regions and times):
            return None
        whole = np.logical_or.reduce(list(masks.values())).astype(np.uint8)
        box = _moved(Box(*(int(v) for v in cv2.boundingRect(whole))), -area.x, -area.y)
        cell = cell_px(self.panels.contrast.spacing_mm)
        # Whole cells: the box grows to hold what is left over, as far as the area reaches.
        width = min(-(-box.width // cell) * cell, area.width - box.x)
        height = min(-(-box.height // cell) * cell, area.height - box.y)
        if min(width, height) < cell:
            return None
        span = times[0] - self._zero, times[-1] - self._zero
        return MapMeter(Box(box.x, box.y, width, height), scale, cell, span)

    def _maps(
        self, found: _Measured, masks: Mapping[str, Mask], warnings: list[str]
    ) -> tuple[ParametricMaps | None, tuple[MapSummary, ...]]:
        if found.mapper is None:
            return None, ()
        self.progress.stage("fitting maps")
        try:
            maps = parametric_maps(found.mapper.cells())
        except ValueError as error:
            warnings.append(f"no maps: {error}")
            return None, ()
        maps = replace(maps, box=_moved(maps.box, found.area.x, found.area.y))
        return maps, tuple(summarise(maps, masks))

    def _area(self, box: Box, masks: Mapping[str, Mask]) -> Box:
        """The part of the panes that is looked at: regions, template and room to move."""
        rows, cols = self._shape
        for mask in masks.values():
            box = box.union(Box(*(int(v) for v in cv2.boundingRect(mask.astype(np.uint8)))))
        options = self.settings.motion.options()
        room = options.search_px + options.least_px // 2
        room += round(options.grow * max(box.width, box.height))
        x, y = max(0, box.x - room), max(0, box.y - room)
        right = min(cols, box.x + box.width + room)
        return Box(x, y, right - x, min(rows, box.y + box.height + room) - y)

    def _windows(self, index: int, area: Box) -> Sequence[Pixels]:
        both = [_moved(area, p.box.x, p.box.y) for p in (self.panels.bmode, self.panels.contrast)]
        return windows_of(self.clip.pixels, index, both)

    def _phases(
        self, found: _Measured, lead: str, warnings: list[str]
    ) -> tuple[Arrival, float | None, PhaseLabels | None]:
        if found.times_s is None:
            return Arrival(None, "frame times are not known"), None, None
        assert found.curves is not None
        arrival = find_in(found.curves.get(CORTEX) or found.curves[lead])
        injection = self.settings.injection_s
        labels = label_phases(
            found.times_s,
            injection_s=injection,
            arrival_s=arrival.time_s,
            bounds=self.settings.phases.bounds(),
        )
        if labels is None:
            warnings.append(f"phases are not known: no clock, and {arrival.reason}")
        return arrival, injection, labels

    def _choose(
        self, quality: FrameQuality, phases: PhaseLabels | None, warnings: list[str]
    ) -> tuple[tuple[FrameChoice, ...], dict[Phase, int]]:
        wanted = self.settings.frames.wanted()
        if phases is None and wanted.rule != "uniform":
            warnings.append(f"frames chosen evenly: rule '{wanted.rule}' needs phases")
            wanted = replace(wanted, rule="uniform", anchors=())
        labels = None if phases is None else phases.labels
        choices = select_frames(quality, labels, wanted, self.settings.frames.gates())
        missing = missing_frames(choices, wanted) if phases is not None else {}
        for phase, count in missing.items():
            warnings.append(f"{count} of {wanted.per_phase} {phase} frames could not be had")
        return tuple(choices), missing


def find_in(curve: RoiCurve) -> Arrival:
    """The arrival in a curve."""
    return find_arrival(curve.times_s, curve.power, curve.kept)


@dataclass(frozen=True, slots=True, eq=False)
class _Measured:
    """What the pass over all frames gave. area: the part of the panes that was looked at."""

    area: Box
    track: Track
    sharpness: npt.NDArray[np.float64]
    flash: Mask
    times_s: tuple[float, ...] | None
    all_curves: Mapping[str, RoiCurve]
    mapper: MapMeter | None
    warnings: tuple[str, ...]

    @property
    def curves(self) -> Mapping[str, RoiCurve] | None:
        """None where times are not known."""
        return None if self.times_s is None else self.all_curves

    def quality(self, lead: str) -> FrameQuality:
        white = np.nan_to_num(self.all_curves[lead].saturated, nan=1.0)
        return FrameQuality(
            times_s=None if self.times_s is None else np.array(self.times_s),
            sharpness=self.sharpness,
            saturated=white,
            correlation=self.track.correlation,
            shift_px=self.track.shift_px,
            kept=self.track.kept,
            flash=self.flash,
        )


class _Usual:
    """Whether a frame shows the section, judged by the frames seen before it.

    The limit of `in_plane` is known only when all frames are; maps add frames up as they come.
    """

    def __init__(self, options: TrackOptions) -> None:
        self._options = options
        self._seen: list[float] = []

    def shows(self, correlation: float) -> bool:
        insort(self._seen, correlation)
        usual = self._seen[(3 * len(self._seen)) // 4]
        limit = max(self._options.lost_below * usual, self._options.least_correlation)
        return correlation >= limit


def _moved(box: Box, dx: int, dy: int) -> Box:
    return Box(box.x + dx, box.y + dy, box.width, box.height)
