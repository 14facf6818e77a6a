"""What does one contrast cine show: panes, motion, phases, chosen frames, curves?

Every frame is decoded once for motion and curves together, and of it only the parts that are
looked at, so time grows with the length of the clip and memory does not.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from renalkit.ceus.arrival import Arrival, find_arrival
from renalkit.ceus.clock import Clock, ClockReader, ClockReading, NoClock, check_clock, find_clock
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
from renalkit.ceus.motion import Shift, Track, Tracker, finish_track, moved_box, moved_mask, walk
from renalkit.ceus.overlays import static_overlays
from renalkit.ceus.panels import OnePanel, Pane, Side, TwoPanels, Unclear, find_panels
from renalkit.ceus.perfusion import Perfusion, analyse
from renalkit.ceus.phases import Phase, PhaseLabels, label_phases
from renalkit.ceus.propagation import Carried, How, propagate
from renalkit.ceus.reference import choose_box, choose_reference, sample_indices
from renalkit.ceus.sampling import Sample, sample
from renalkit.domain.geometry import Box, MaskRLE, bounding_box
from renalkit.domain.image import Clip, windows_of
from renalkit.domain.study import Roi, RoiOrigin, Scanner
from renalkit.errors import InputRefused, Reason
from renalkit.usecases.ceus_settings import CeusSettings
from renalkit.usecases.progress import Progress, Silent

Mask = npt.NDArray[np.bool_]
Pixels = npt.NDArray[np.generic]

Outliner = Callable[[Pixels], Mask | None]
"""Outlines the lesion (H,W) on a B-mode pane (H,W[,3]); None where it sees none."""

LESION = "lesion"
"""Name of the only lesion, and of what a segmentation system outlines."""

CORTEX = "cortex"
"""Name of the region that others are compared with."""

TRACKED = "tracked"
"""Name of the curve of the box that was followed when nobody outlined anything."""

_CANDIDATES = 24
_CLOCK_SLACK_S = 1.5
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
    clock: ClockReading
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
    outliner: Outliner | None = None,
    progress: Progress | None = None,
) -> CeusClip:
    """Analyse a dual cine.

    Args:
        clip: as read. regions: outlined on the screen in either pane, by name; "cortex" is what
            others are compared with. scanner, presets: for layouts without regions in the header.
        outliner: outlines the lesion on the reference frame where `regions` holds none.

    Raises:
        InputRefused: LAYOUT_UNKNOWN, no two panes, or they cannot be told; BAD_ANNOTATION, a
            region in no pane; EMPTY_MASK, the outliner saw no lesion; CONSTANT_IMAGE, nothing to
            follow.
    """
    told = progress or Silent()
    told.stage("finding the panes")
    side = None if settings.contrast is None else Side(settings.contrast)
    panels = two_panels(clip, presets, scanner, side)
    inside = {name: tuple(_in_pane(r, panels) for r in rois) for name, rois in regions.items()}
    work = _Work(clip, panels, inside, settings, told, outliner)
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
    box = mask.box
    if box is None:
        raise InputRefused(
            Reason.EMPTY_MASK, "a region without a pixel", remedy="leave it out or draw it"
        )
    return box


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
    outliner: Outliner | None

    @property
    def _shape(self) -> tuple[int, int]:
        box = self.panels.bmode.box
        return box.height, box.width

    def run(self) -> CeusClip:
        warnings: list[str] = []
        frames = sample(self.clip.pixels, _CANDIDATES)
        drawn = static_overlays(frames.frames)
        clock = find_clock(frames.frames) if self.settings.clock else NoClock("left out as asked")
        reference, reason = self._reference(drawn)
        if self.outliner is not None and not any(name != CORTEX for name in self.regions):
            self.regions = {**self.regions, LESION: (self._outlined(reference, self.outliner),)}
        masks, box, said = self._masks(reference, drawn)
        warnings += said
        palette = self._palette(frames, drawn, warnings)
        found = self._measure(_Setting(reference, box, masks, palette, drawn, clock))
        warnings += found.warnings
        masks = found.masks
        zero = self._injection(found.clock, warnings)
        lead = next((n for n in masks if n not in (CORTEX, TRACKED)), next(iter(masks)))
        arrival, phases = self._phases(found, lead, zero, warnings)
        quality = found.quality(lead)
        choices, missing = self._choose(quality, phases, warnings)
        perfusion = None
        curves = found.curves
        if curves is not None:
            curves = {n: replace(c, times_s=c.times_s - (zero or 0.0)) for n, c in curves.items()}
        if curves is not None and self.regions:
            options = self.settings.fit.options(from_injection=zero is not None)
            self.progress.stage("fitting curves")
            perfusion = analyse(curves, options, CORTEX)
        maps, summaries = self._maps(found, zero or 0.0, warnings)
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
            clock=found.clock,
            injection_s=zero,
            phases=phases,
            choices=choices,
            missing=missing,
            perfusion=perfusion,
            maps=maps,
            map_summaries=summaries,
            warnings=tuple(warnings),
        )

    def _injection(self, clock: ClockReading, warnings: list[str]) -> float | None:
        """When the agent was given, on the clock of the frame times: as the user says, else as
        the burned-in clock says where it runs with the frame times."""
        given, read = self.settings.injection_s, clock.injection_s
        if clock.agrees is False and not clock.times_wrong:
            warnings.append(f"the burned-in clock is not believed: {clock.words}")
        if given is not None and read is not None and abs(given - read) > _CLOCK_SLACK_S:
            warnings.append(f"injection given at {given:g} s, by the clock at {read:.1f} s")
        return read if given is None else given

    def _reference(self, drawn: Mask) -> tuple[int, str]:
        """The frame most like the others: of those outlined, else of the whole clip."""
        outlined = sorted({r.frame for rois in self.regions.values() for r in rois})
        lesions = [rois for name, rois in self.regions.items() if name != CORTEX] or list(
            self.regions.values()
        )
        common = [f for f in outlined if all(any(r.frame == f for r in rois) for rois in lesions)]
        candidates = common or outlined or sample_indices(self.clip.n_frames, _CANDIDATES)
        few = np.unique(np.linspace(0, len(candidates) - 1, _CANDIDATES).round().astype(int))
        numbers = [candidates[int(i)] for i in few]
        pane = self.panels.bmode.box
        pictures = [windows_of(self.clip.pixels, n, [pane])[0] for n in numbers]
        chosen = choose_reference(pictures, numbers, drawn[pane.slices])
        return chosen.index, chosen.reason

    def _outlined(self, reference: int, outliner: Outliner) -> Roi:
        """The lesion as a segmentation system outlines it on the reference frame."""
        picture = windows_of(self.clip.pixels, reference, [self.panels.bmode.box])[0]
        mask = outliner(picture)
        if mask is None or np.count_nonzero(mask) < FEWEST_PIXELS:
            raise InputRefused(
                Reason.EMPTY_MASK,
                f"frame {reference}, on which the segmentation system outlines no lesion",
                expected="a lesion",
                remedy="outline it by hand",
            )
        encoded = MaskRLE.encode(mask)
        return Roi(0, reference, encoded, _around(encoded), RoiOrigin.PREDICTED)

    def _masks(self, reference: int, drawn: Mask) -> tuple[dict[str, Mask], Box, list[str]]:
        """Masks of the outlined frame nearest to the reference, the box to follow there, and what
        had to be assumed."""
        said: list[str] = []
        masks: dict[str, Mask] = {}
        for name, rois in self.regions.items():
            roi = _nearest(rois, reference)
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
            box = _tight(whole)
            return masks, box, said
        pane = self.panels.bmode.box
        picture = windows_of(self.clip.pixels, reference, [pane])[0]
        try:
            found = choose_box(picture, drawn[pane.slices])
        except ValueError as error:
            raise InputRefused(
                Reason.CONSTANT_IMAGE, f"no region given and {error}", remedy="outline the lesion"
            ) from error
        said.append(f"no region given: followed {found.reason}; no perfusion figures")
        box = found.box
        return {TRACKED: region_mask(Roi(0, reference, box=box), self._shape)}, box, said

    def _palette(self, frames: Sample, drawn: Mask, warnings: list[str]) -> Palette:
        here = self.panels.contrast.box.slices
        palette = read_palette([f[here] for f in frames.frames], drawn[here])
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

    def _measure(self, on: _Setting) -> _Measured:
        """Motion, curves, clock and quality of all frames, in one pass over them."""
        area = self._area(on.box, on.masks)
        options = self.settings.motion.options()
        here = _moved(on.box, -area.x, -area.y)
        drawn = on.drawn[self.panels.bmode.box.slices][area.slices]
        try:
            tracker = Tracker(self._windows(on.reference, area)[0], here, options, drawn)
        except ValueError as error:
            raise InputRefused(
                Reason.CONSTANT_IMAGE, str(error), remedy="choose another region or frame"
            ) from error
        count = self.clip.n_frames
        tracker.refine([self._windows(i, area)[0] for i in sample_indices(count, _CANDIDATES)])
        masks, said = self._at_reference(on, area, tracker)
        scale = PowerScale(on.palette, self.settings.dynamic_range_db)
        meter = CurveMeter({n: m[area.slices] for n, m in masks.items()}, scale)
        times = self.clip.times_s or tuple(float(i) for i in range(count))
        mapper = self._mapper(area, masks, scale)
        clock = None if isinstance(on.clock, NoClock) else ClockReader(_own_corner(on.clock))
        line = () if isinstance(on.clock, NoClock) else (on.clock.box,)
        shifts = [Shift(0.0, 0.0, 0.0)] * count
        shown: list[float | None] = [None] * count
        usual = _Usual(tracker)
        sharp, level = np.zeros(count), np.zeros(count)
        self.progress.stage("following the kidney", -(-count // _STEP))
        for done, index in enumerate(walk(count, on.reference), 1):
            if index == on.reference - 1:
                tracker.restart()
            bmode, contrast, *text = self._windows(index, area, line)
            shifts[index] = shift = tracker.step(bmode)
            levels = on.palette.levels(contrast)
            meter.add_levels(levels, times[index], (shift.dx, shift.dy))
            if mapper is not None and usual.shows(shift.correlation, index == on.reference):
                mapper.add_levels(levels, times[index], (shift.dx, shift.dy))
            if clock is not None:
                shown[index] = clock.step(text[0])
            place = moved_box(here, shift.dx, shift.dy, area.height, area.width)
            sharp[index] = 0.0 if place is None else sharpness_of(bmode[place.slices])
            level[index] = float(levels.mean())
            if done % _STEP == 0 or done == count:
                self.progress.advance()
        track = finish_track(tracker, on.reference, shifts)
        flash = find_flashes(times, level)
        if flash.any():
            said.append(f"{int(flash.sum())} frames at high power (flash) left out of curves")
        reading = check_clock(on.clock, shown, self.clip.times_s)
        known = None if reading.times_wrong else self.clip.times_s
        if known is None:
            why = "not known"
            if reading.times_wrong:
                why = (
                    f"not believed ({reading.words}; frames may be missing; 'clock=false' if what "
                    "is read is no contrast clock)"
                )
            said.append(f"frame times are {why}: no arrival, no phases and no perfusion figures")
        return _Measured(
            area=area,
            masks=masks,
            track=replace(track, box=_moved(track.box, area.x, area.y)),
            sharpness=sharp,
            flash=flash,
            times_s=known,
            clock=reading,
            all_curves=meter.curves(track.kept & ~flash),
            mapper=None if known is None else mapper,
            warnings=tuple(said),
        )

    def _at_reference(
        self, on: _Setting, area: Box, tracker: Tracker
    ) -> tuple[dict[str, Mask], list[str]]:
        """Masks where the tissue is on the reference frame, also those of other frames."""
        masks, said = dict(on.masks), list[str]()
        for name, rois in self.regions.items():
            frame = _nearest(rois, on.reference).frame
            if frame == on.reference:
                continue
            shift = tracker.step(self._windows(frame, area)[0])
            tracker.restart()
            masks[name] = moved_mask(masks[name], -shift.dx, -shift.dy)
            said.append(
                f"region '{name}' is carried from frame {frame} to reference frame "
                f"{on.reference} (correlation {shift.correlation:.2f})"
            )
            if np.count_nonzero(masks[name]) < FEWEST_PIXELS:
                raise InputRefused(
                    Reason.BAD_ANNOTATION,
                    f"region '{name}' of frame {frame} that leaves the pane on the reference frame",
                    remedy=f"outline it on frame {on.reference} too",
                )
        return masks, said

    def _mapper(self, area: Box, masks: Mapping[str, Mask], scale: PowerScale) -> MapMeter | None:
        """For maps over all regions; None when none are wanted or possible."""
        times = self.clip.times_s
        if not (self.settings.maps and self.regions and times):
            return None
        whole = _tight(np.logical_or.reduce(list(masks.values())))
        box = _moved(whole, -area.x, -area.y)
        cell = cell_px(self.panels.contrast.spacing_mm)
        # Whole cells: the box grows to hold what is left over, as far as the area reaches.
        width = min(-(-box.width // cell) * cell, area.width - box.x)
        height = min(-(-box.height // cell) * cell, area.height - box.y)
        if min(width, height) < cell:
            return None
        return MapMeter(Box(box.x, box.y, width, height), scale, cell, (times[0], times[-1]))

    def _maps(
        self, found: _Measured, zero: float, warnings: list[str]
    ) -> tuple[ParametricMaps | None, tuple[MapSummary, ...]]:
        if found.mapper is None:
            return None, ()
        self.progress.stage("fitting maps")
        try:
            cells = found.mapper.cells()
            maps = parametric_maps(replace(cells, times_s=cells.times_s - zero))
        except ValueError as error:
            warnings.append(f"no maps: {error}")
            return None, ()
        maps = replace(maps, box=_moved(maps.box, found.area.x, found.area.y))
        return maps, tuple(summarise(maps, found.masks))

    def _area(self, box: Box, masks: Mapping[str, Mask]) -> Box:
        """The part of the panes that is looked at: regions, template and room to move."""
        rows, cols = self._shape
        for mask in masks.values():
            box = box.union(_tight(mask))
        options = self.settings.motion.options()
        room = options.search_px + options.least_px // 2
        room += round(options.grow * max(box.width, box.height))
        x, y = max(0, box.x - room), max(0, box.y - room)
        right = min(cols, box.x + box.width + room)
        return Box(x, y, right - x, min(rows, box.y + box.height + room) - y)

    def _windows(self, index: int, area: Box, more: Sequence[Box] = ()) -> Sequence[Pixels]:
        """The area of both panes, then other boxes of the screen."""
        both = [_moved(area, p.box.x, p.box.y) for p in (self.panels.bmode, self.panels.contrast)]
        return windows_of(self.clip.pixels, index, [*both, *more])

    def _phases(
        self, found: _Measured, lead: str, injection: float | None, warnings: list[str]
    ) -> tuple[Arrival, PhaseLabels | None]:
        if found.times_s is None:
            return Arrival(None, "frame times are not known or not believed"), None
        assert found.curves is not None
        curve = found.curves.get(CORTEX) or found.curves[lead]
        arrival = find_arrival(curve.times_s, curve.power, curve.kept)
        labels = label_phases(
            found.times_s,
            injection_s=injection,
            arrival_s=arrival.time_s,
            bounds=self.settings.phases.bounds(),
        )
        if labels is None:
            warnings.append(f"phases are not known: no clock, and {arrival.reason}")
        return arrival, labels

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


def _tight(mask: Mask) -> Box:
    """The box of a region, which is never empty here."""
    box = bounding_box(mask)
    assert box is not None
    return box


def _nearest(rois: Sequence[Roi], frame: int) -> Roi:
    return min(rois, key=lambda r: (abs(r.frame - frame), r.frame))


def _own_corner(clock: Clock) -> Clock:
    """The clock in a window that holds nothing but its line."""
    return replace(clock, box=Box(0, 0, clock.box.width, clock.box.height))


@dataclass(frozen=True, slots=True, eq=False)
class _Setting:
    """What the pass over all frames needs. box, masks: in pane coordinates; drawn: (H,W) of the
    screen, what is no echo."""

    reference: int
    box: Box
    masks: Mapping[str, Mask]
    palette: Palette
    drawn: Mask
    clock: Clock | NoClock


@dataclass(frozen=True, slots=True, eq=False)
class _Measured:
    """What the pass over all frames gave. area: the part of the panes that was looked at. masks:
    on the reference frame."""

    area: Box
    masks: dict[str, Mask]
    track: Track
    sharpness: npt.NDArray[np.float64]
    flash: Mask
    times_s: tuple[float, ...] | None
    clock: ClockReading
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

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._seen: list[float] = []

    def shows(self, correlation: float, reference: bool) -> bool:
        """reference: the frame that others are compared with, which says nothing of them."""
        if reference:
            return True
        insort(self._seen, correlation)
        usual = self._seen[(3 * len(self._seen)) // 4]
        options = self._tracker.options
        least = max(options.least_correlation, options.above_chance * self._tracker.chance)
        return correlation >= max(options.lost_below * usual, least)


def _moved(box: Box, dx: int, dy: int) -> Box:
    return Box(box.x + dx, box.y + dy, box.width, box.height)


def carried_region(
    found: CeusClip, name: str, frames: Sequence[int], how: How = "nearest"
) -> list[Carried]:
    """One region on the given frames, in pane coordinates, or why it is not there.

    What is carried from a predicted outline stays predicted: it is no surer than that.
    """
    box, rois = found.panels.bmode.box, found.regions[name]
    carried = propagate(rois, found.track, frames, (box.height, box.width), how)
    if any(r.origin is RoiOrigin.PREDICTED for r in rois):
        return [_as_predicted(c) for c in carried]
    return carried


def _as_predicted(carried: Carried) -> Carried:
    if carried.roi is None:
        return carried
    return replace(carried, roi=replace(carried.roi, origin=RoiOrigin.PREDICTED))
