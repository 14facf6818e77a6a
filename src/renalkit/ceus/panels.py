"""Which part of a contrast examination's screen is the B-mode picture, which the contrast picture?

    found = find_panels(clip)
    match found:
        case TwoPanels(): bmode, contrast = split(clip, found)
        case OnePanel(): ...      nothing to split
        case Unclear(): ...       refused, with reasons

Where the panes are is taken from the Sequence of Ultrasound Regions, else from a preset of the
console that fits what is seen, else from the picture: the same changing shape twice, side by side
or one above the other. Which of them is the contrast picture is always decided by the picture,
unless the caller says it: one hue, or bubbles that change while tissue keeps its speckle. A still
is never split by its picture.

Boxes of regions and presets are panes as announced; boxes found in the picture enclose the fan.
Coordinates are those of the source picture: x right, y down.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from renalkit.ceus.layouts import Layout, Presets
from renalkit.ceus.live import Live, Part, Twins, live_pixels, neck, parts, seam, twins
from renalkit.ceus.pane_order import FEWEST_FRAMES, Order, pane_order
from renalkit.ceus.sampling import CroppedStack, Sample, sample
from renalkit.domain.geometry import Box, Region, SpacingMm
from renalkit.domain.image import Clip, Mode, PixelStack
from renalkit.domain.study import Scanner

Mask = npt.NDArray[np.bool_]
Pictures = npt.NDArray[np.uint8]
Evidence = tuple[str, ...]

_CLEAR = 0.5  # least confidence of an answer


class Side(StrEnum):
    """Where the contrast pane lies, when the caller knows it."""

    LEFT = "left"
    RIGHT = "right"
    TOP = "top"
    BOTTOM = "bottom"


@dataclass(frozen=True, slots=True)
class Pane:
    """One picture on the screen. spacing_mm: None when unknown."""

    mode: Mode
    box: Box
    spacing_mm: SpacingMm | None


@dataclass(frozen=True, slots=True)
class TwoPanels:
    """Both panes, of equal size, so that one moves onto the other by the distance of their boxes.

    by: where the boxes come from. confidence: 0..1, the weaker of place and order; at least 0.5.
    """

    bmode: Pane
    contrast: Pane
    by: Literal["regions", "preset", "image"]
    confidence: float
    evidence: Evidence

    def __post_init__(self) -> None:
        a, b = self.bmode.box, self.contrast.box
        if (a.width, a.height) != (b.width, b.height):
            raise ValueError(f"panes of different size: {a}, {b}")

    @property
    def offset(self) -> tuple[int, int]:
        """(x, y) from a point of the B-mode pane to the same point of the contrast pane."""
        return self.contrast.box.x - self.bmode.box.x, self.contrast.box.y - self.bmode.box.y


@dataclass(frozen=True, slots=True)
class OnePanel:
    """There is one picture. box: where it is, the whole frame when that is not known better."""

    box: Box
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Unclear:
    """Refused. panes: two panes whose places are known when only their order is not."""

    reasons: Evidence
    panes: tuple[Box, ...] = ()


Answer = TwoPanels | OnePanel | Unclear


def find_panels(
    clip: Clip,
    presets: Presets | None = None,
    scanner: Scanner | None = None,
    contrast: Side | None = None,
) -> Answer:
    """The panes of a clip, or why they cannot be told.

    Args:
        clip: as read, its whole picture.
        presets: layouts of known consoles. scanner: the machine of this clip, for the presets.
        contrast: where the contrast pane lies, when known; overrules the picture's evidence.
    """
    frames = sample(clip.pixels)
    still = len(frames.indices) < FEWEST_FRAMES
    seen = _Seen(clip, frames, None if still else live_pixels(frames.grey))
    regions = _pictures(clip)
    if len(regions) == 2:
        return _by_regions(seen, (regions[0].box, regions[1].box), contrast)
    if len(regions) > 2:
        return Unclear((f"{len(regions)} regions of tissue: expected one or two",))
    known = () if presets is None else presets.of(scanner, clip.rows, clip.cols)
    region = regions[0].box if regions else None
    if seen.live is None:
        return _of_still(seen, region)
    fitting = _by_presets(seen, seen.live.mask, known)
    if isinstance(fitting, TwoPanels) and contrast is None:
        return fitting
    answer = _by_image(seen, seen.live, region, contrast)
    # What kept a preset from being used belongs to the answer.
    why = () if isinstance(fitting, TwoPanels) else fitting.reasons
    if isinstance(answer, Unclear):
        return replace(answer, reasons=(*why, *answer.reasons))
    return replace(answer, evidence=(*why, *answer.evidence))


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """What is looked at. live: None for a still."""

    clip: Clip
    frames: Sample
    live: Live | None

    @property
    def still(self) -> str:
        n = len(self.frames.indices)
        return "a still" if n == 1 else f"a clip of only {n} frames"


def _pictures(clip: Clip) -> tuple[Region, ...]:
    """Regions of tissue with different boxes; colour flow lies over tissue and is no pane."""
    found: dict[Box, Region] = {}
    for region in clip.regions:
        if region.spatial_format == "2d" and region.data_type == "tissue":
            found.setdefault(region.box, region)
    return tuple(found.values())


# By regions


def _by_regions(seen: _Seen, announced: tuple[Box, Box], contrast: Side | None) -> Answer:
    a, b = boxes = _in_order(*announced)
    if max(abs(a.width - b.width), abs(a.height - b.height)) > 2:
        return Unclear((f"two regions of tissue of different size: {_words(a)}, {_words(b)}",))
    if _axis(*boxes) is None:
        return Unclear(
            (f"two regions neither side by side nor stacked: {_words(a)}, {_words(b)}",), boxes
        )
    width, height = min(a.width, b.width), min(a.height, b.height)
    boxes = Box(a.x, a.y, width, height), Box(b.x, b.y, width, height)
    where = f"{len(seen.clip.regions)} ultrasound regions, two of tissue of the same size"
    return _ordered(seen, boxes, contrast, ("regions", 1.0, (where,)))


def _by_presets(seen: _Seen, live: Mask, known: tuple[Layout, ...]) -> TwoPanels | Unclear:
    """The only preset whose two panes both live and look as it says."""
    reasons: list[str] = []
    fitting: list[TwoPanels] = []
    for layout in known:
        what = f"preset {layout.name}"
        one, two = (live[box.slices] for _, box in layout.panes)
        smaller = min(np.count_nonzero(one), np.count_nonzero(two))
        if smaller < 0.1 * one.size:
            reasons.append(f"{what}: nothing changes in one of its panes")
            continue
        outside = np.count_nonzero(live) - np.count_nonzero(one) - np.count_nonzero(two)
        if outside > 0.1 * np.count_nonzero(live):
            reasons.append(f"{what}: the picture changes outside its panes")
            continue
        if np.count_nonzero(one & two) < 0.9 * smaller:
            reasons.append(f"{what}: its panes do not show the same shape")
            continue
        order = pane_order(seen.frames, (layout.bmode, layout.contrast), live)
        if order.refuse or order.second_is_contrast <= -_CLEAR:
            why = order.refuse or f"its panes look the other way round ({order.words})"
            reasons.append(f"{what}: {why}")
            continue
        fitting.append(
            TwoPanels(
                _pane(seen.clip, Mode.B, layout.bmode),
                _pane(seen.clip, Mode.CEUS, layout.contrast),
                "preset",
                0.95 if order.second_is_contrast >= _CLEAR else 0.6,
                (what, order.words),
            )
        )
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = ", ".join(two.evidence[0] for two in fitting)
        return Unclear((f"{len(fitting)} presets fit: {names}",))
    return Unclear(tuple(reasons))


# By the picture


def _by_image(seen: _Seen, live: Live, region: Box | None, contrast: Side | None) -> Answer:
    """The same changing shape twice, within the one region of tissue if there is one."""
    within = live.mask
    if region is not None:
        within = np.zeros_like(live.mask)
        within[region.slices] = live.mask[region.slices]
    found = parts(within)
    if region is not None and all(part.area < 0.3 * found[0].area for part in found[1:]):
        found = found[:1]
    if not found:
        return Unclear(("no part of the picture changes over time",))
    if len(found) == 1:
        how, halves = "two pictures abut", _halves(seen.frames.grey, live, found[0])
        pair = None if halves is None else twins(*halves, live)
        if pair is None:
            return _one(seen, region, found[0].box, "one part of the picture changes")
    else:
        how, pair = "the same changing shape twice", _pair(found, live)
    if pair is None:
        sizes = ", ".join(_words(part.box) for part in found)
        return Unclear((f"{len(found)} changing parts that are not the same shape twice: {sizes}",))
    place = _place_confidence(pair)
    if place < _CLEAR:
        reason = f"two changing parts agree in {pair.contained:.0%} of the smaller one"
        return Unclear((f"{reason}, shift uncertain by {pair.loose_px} px: too little to cut by",))
    lie = "side by side" if pair.axis == "x" else "one above the other"
    evidence = [f"{how}, {lie} ({pair.contained:.1%} of the smaller on the other)"]
    if live.lossy:
        evidence.append("lossy compression: borders of the panes to about 4 px")
    return _ordered(seen, (pair.first, pair.second), contrast, ("image", place, tuple(evidence)))


def _of_still(seen: _Seen, region: Box | None) -> Answer:
    """A still is one panel when its file says so, or when nothing speaks for two."""
    if region is not None:
        return OnePanel(region, ("one ultrasound region of tissue",))
    grey, size = seen.frames.grey, seen.clip.rows * seen.clip.cols
    bright = (grey.max(axis=0) > 12).astype(np.uint8)
    mask = cv2.morphologyEx(bright, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)).astype(np.bool_)
    found = [part for part in parts(mask) if part.area > 0.02 * size]
    if len(found) != 1:
        return Unclear((f"{seen.still} with {len(found)} large bright parts",))
    box = found[0].box
    for axis in ("x", "y"):
        place = seam(grey, box, axis, mask)
        if place is not None:
            return Unclear((f"{seen.still} with a seam at {axis} = {place}",))
    if box.width > 1.5 * box.height:
        return Unclear((f"{seen.still} wide enough for two panes",))
    return _one(seen, None, box, f"{seen.still} with one bright part")


def _one(seen: _Seen, region: Box | None, box: Box, what: str) -> Answer:
    """One picture, unless a second pane of its size could lie dark beside it."""
    if region is not None:
        return OnePanel(region, (f"one ultrasound region of tissue, {what}",))
    right, below = seen.clip.cols - box.x - box.width, seen.clip.rows - box.y - box.height
    if max(box.x, right) >= 0.95 * box.width or max(box.y, below) >= 0.95 * box.height:
        reason = f"one picture ({_words(box)}) with room for a dark one of the same size beside it"
        return Unclear((reason,))
    return OnePanel(box, (f"{what}, with no room for a second pane",))


def _pair(found: list[Part], live: Live) -> Twins | None:
    """The largest part and all others as its twin; else the second alone, when what remains is
    small (a trace below the picture, say)."""
    first, second, *rest = found
    together = twins(first.mask, np.any([part.mask for part in found[1:]], axis=0), live)
    if together is not None and _place_confidence(together) >= _CLEAR:
        return together
    if any(part.area > 0.3 * first.area for part in rest):
        return None
    return twins(first.mask, second.mask, live)


def _halves(grey: npt.NDArray[np.uint8], live: Live, part: Part) -> tuple[Mask, Mask] | None:
    """Two panes without a gap: cut at a seam, or at a neck in the middle of the changing part."""
    for axis in ("x", "y"):
        place = seam(grey, part.box, axis, live.mask)
        if place is None:
            place = neck(part, axis)
        if place is not None:
            first, second = part.mask.copy(), part.mask.copy()
            ahead, behind = slice(place, None), slice(None, place)
            first[(slice(None), ahead) if axis == "x" else (ahead,)] = False
            second[(slice(None), behind) if axis == "x" else (behind,)] = False
            return first, second
    return None


def _place_confidence(pair: Twins) -> float:
    """1 when one shape lies wholly within the other and no other shift does as well."""
    contained = float(np.clip((pair.contained - 0.90) / 0.05, 0.0, 1.0))
    return contained * float(np.clip((5 - pair.loose_px) / 3, 0.0, 1.0))


# Which is which


def _ordered(
    seen: _Seen,
    boxes: tuple[Box, Box],
    contrast: Side | None,
    found: tuple[Literal["regions", "image"], float, Evidence],
) -> Answer:
    by, place, evidence = found
    first, second = boxes
    if contrast is not None:
        sides = (Side.LEFT, Side.RIGHT) if _axis(first, second) == "x" else (Side.TOP, Side.BOTTOM)
        if contrast not in sides:
            lie = f"{sides[0]} and {sides[1]}"
            return Unclear((f"the contrast pane is said to be {contrast}, panes lie {lie}",), boxes)
        order = Order(-1.0 if contrast is sides[0] else 1.0, f"contrast {contrast}, as told")
    else:
        all_of_it = np.ones((seen.clip.rows, seen.clip.cols), np.bool_)
        order = pane_order(seen.frames, boxes, all_of_it if seen.live is None else seen.live.mask)
        if order.refuse:
            return Unclear((*evidence, order.refuse), boxes)
    sure = abs(order.second_is_contrast)
    if sure < _CLEAR:
        reason = f"which of the two is the contrast picture is not clear: {order.words}"
        return Unclear((*evidence, reason), boxes)
    bmode, agent = boxes if order.second_is_contrast > 0 else (second, first)
    return TwoPanels(
        _pane(seen.clip, Mode.B, bmode),
        _pane(seen.clip, Mode.CEUS, agent),
        by,
        round(min(place, sure), 3),
        (*evidence, order.words),
    )


# Geometry


def _in_order(a: Box, b: Box) -> tuple[Box, Box]:
    """Left or upper first."""
    return (a, b) if (a.x + a.y) <= (b.x + b.y) else (b, a)


def _axis(first: Box, second: Box) -> Literal["x", "y"] | None:
    """Along which two boxes lie without overlap; None when along neither or askew."""
    if abs(first.y - second.y) <= 2 and second.x >= first.x + first.width - 2:
        return "x"
    if abs(first.x - second.x) <= 2 and second.y >= first.y + first.height - 2:
        return "y"
    return None


def _pane(clip: Clip, mode: Mode, box: Box) -> Pane:
    """With the scale of the region that holds most of the box, else the clip's."""
    holding = [
        region
        for region in clip.regions
        if region.data_type == "tissue" and region.box.union(box) == region.box
    ]
    return Pane(mode, box, holding[0].spacing_mm if holding else clip.spacing_mm)


def _words(box: Box) -> str:
    return f"{box.width} x {box.height} at {box.x}, {box.y}"


# Use of what was found


def split(
    clip: Clip, panels: TwoPanels, sha256: tuple[str, str] | None = None
) -> tuple[Clip, Clip]:
    """The B-mode and the contrast clip; frames are cropped when they are asked for.

    Args:
        sha256: digests of both panes' pixels when they are known already (`pane_digests` in the
            caller's own pass); otherwise all frames are decoded once for them.
    """
    both = (panels.bmode, panels.contrast)
    if sha256 is None:
        sha256 = pane_digests(clip.pixels, panels)
    made = [
        replace(
            clip,
            pixels=CroppedStack(clip.pixels, pane.box),
            sha256=digest,
            mode=pane.mode,
            regions=(
                Region(Box(0, 0, pane.box.width, pane.box.height), pane.spacing_mm, "tissue"),
            ),
            spacing_mm=pane.spacing_mm,
            offset=(clip.offset[0] + pane.box.x, clip.offset[1] + pane.box.y),
        )
        for pane, digest in zip(both, sha256, strict=True)
    ]
    return made[0], made[1]


def pane_digests(pixels: PixelStack, panels: TwoPanels) -> tuple[str, str]:
    """`pixel_sha256` of both panes in one pass over the frames."""
    stacks = [CroppedStack(pixels, pane.box) for pane in (panels.bmode, panels.contrast)]
    dtype = np.dtype(pixels.dtype).newbyteorder("<")
    digests = [hashlib.sha256(f"{s.shape} {dtype.str}".encode()) for s in stacks]
    for index in range(int(pixels.shape[0])):
        frame = pixels[index]
        for stack, digest in zip(stacks, digests, strict=True):
            part = np.ascontiguousarray(frame[stack.box.slices]).astype(dtype, copy=False)
            digest.update(part.tobytes())
    return digests[0].hexdigest(), digests[1].hexdigest()


def map_box(box: Box, start: Pane, end: Pane) -> Box:
    """A box of the source picture that lies in one pane, at the same place of the other pane.

    Raises:
        ValueError: the box leaves its pane.
    """
    if start.box.union(box) != start.box:
        raise ValueError(f"{box} leaves its pane {start.box}")
    x, y = box.x - start.box.x + end.box.x, box.y - start.box.y + end.box.y
    return Box(x, y, box.width, box.height)


def map_mask(mask: Mask, start: Pane, end: Pane) -> Mask:
    """A mask (H,W) of the source picture moved from one pane to the other; what lies outside the
    first pane is dropped."""
    moved = np.zeros_like(mask)
    moved[end.box.slices] = mask[start.box.slices]
    return moved


_FACE = cv2.FONT_HERSHEY_SIMPLEX
_COLOURS = {Mode.B: (90, 200, 255), Mode.CEUS: (255, 170, 60)}


def preview(picture: Pictures, answer: Answer) -> Pictures:
    """The picture (H,W) or (H,W,3) as RGB with the found boxes: B-mode blue, contrast orange, one
    panel or panes of unknown order white."""
    shown = np.repeat(picture[..., None], 3, axis=2) if picture.ndim == 2 else picture.copy()
    match answer:
        case TwoPanels():
            named = [
                (p.box, str(p.mode), _COLOURS[p.mode]) for p in (answer.bmode, answer.contrast)
            ]
        case OnePanel():
            named = [(answer.box, "one panel", (255, 255, 255))]
        case Unclear():
            named = [(box, "?", (255, 255, 255)) for box in answer.panes]
    for box, text, colour in named:
        corner = (box.x + box.width - 1, box.y + box.height - 1)
        cv2.rectangle(shown, (box.x, box.y), corner, colour, 2)
        # On a ground of its own, and where consoles rarely write.
        (wide, high), _ = cv2.getTextSize(text, _FACE, 0.5, 1)
        x, y = corner[0] - wide - 10, box.y + high + 10
        cv2.rectangle(shown, (x, box.y), (corner[0], y), colour, cv2.FILLED)
        cv2.putText(shown, text, (x + 5, y - 5), _FACE, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return shown
