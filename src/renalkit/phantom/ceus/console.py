"""What does a console put on its screen around a dual contrast examination, and where?

The screen holds two panels of the same scale: the fundamental (B-mode) picture at low transmit
power and the contrast picture, side by side or one above the other, in either order. Text, rulers,
grey and colour bar, focus marks, body mark, contrast clock and calipers are burned in as real
consoles do. Panel rectangles, scale and clock are truth; all makes are fictitious.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType

import cv2
import numpy as np
import numpy.typing as npt

from renalkit.domain.geometry import Box, Region
from renalkit.phantom.bmode.picture import Scanner

Colour = tuple[int, int, int]
Pixels = npt.NDArray[np.uint8]

_SHOWN_SHARE = 0.86


class Layout(StrEnum):
    """Where the B-mode panel lies; the contrast panel takes the other half."""

    LEFT = "b-left"
    RIGHT = "b-right"
    TOP = "b-top"
    BOTTOM = "b-bottom"


class Panel(StrEnum):
    """The two pictures of a dual examination."""

    BMODE = "bmode"
    CONTRAST = "contrast"


@dataclass(frozen=True, slots=True)
class Style:
    """How the screen of one make looks.

    bar, ink, mark: colours (R,G,B) of the header, of text and of rulers and marks. tint: (R,G,B)
    weights of the contrast picture; the red weight is 1, so red is the grey level. clock_left:
    the clock is below the left edge of the contrast panel, else below its right edge.
    """

    name: str
    bar: Colour
    ink: Colour
    mark: Colour
    tint: tuple[float, float, float]
    clock_left: bool


STYLES = MappingProxyType(
    {
        "scanner-a": Style(
            "Aster A9", (16, 26, 44), (225, 228, 232), (205, 205, 205), (1.0, 0.82, 0.5), False
        ),
        "scanner-b": Style(
            "Boreal 7", (38, 40, 66), (240, 226, 140), (70, 210, 80), (1.0, 0.74, 0.36), True
        ),
        "scanner-c": Style(
            "Corvus C3", (6, 6, 8), (120, 220, 235), (120, 220, 235), (1.0, 1.0, 1.0), False
        ),
    }
)
"""The make of each scanner, by the scanner's name."""


@dataclass(frozen=True, slots=True)
class Caliper:
    """A distance measured on the screen, from one point (x, y) to another in mm of the picture."""

    start_mm: tuple[float, float]
    end_mm: tuple[float, float]

    @property
    def length_mm(self) -> float:
        """Its length."""
        return math.dist(self.start_mm, self.end_mm)


@dataclass(frozen=True, slots=True)
class Screen:
    """One console set up for one dual examination.

    rows, cols: of the frame. style: key of STYLES. layout: of the panels. half_angle_deg: of the
    shown fan, at most the scanner's. clock: the contrast clock is shown. texts: lines for the
    header (name, identifier, institution, date). calipers: drawn in the B-mode panel.
    mechanical_index, dynamic_range_db (B-mode, contrast), frame_hz: as printed.
    """

    rows: int
    cols: int
    style: str
    layout: Layout
    half_angle_deg: float
    clock: bool
    texts: tuple[str, str, str, str]
    calipers: tuple[Caliper, ...]
    mechanical_index: float
    dynamic_range_db: tuple[float, float]
    frame_hz: float

    def __post_init__(self) -> None:
        if self.style not in STYLES:
            raise ValueError(f"style {self.style!r} is not one of {', '.join(STYLES)}")
        if not (240 <= self.rows <= 2160 and 320 <= self.cols <= 3840):
            raise ValueError(f"a screen of {self.rows} x {self.cols} px is not within 240x320..4K")
        if not 15.0 <= self.half_angle_deg <= 60.0:
            raise ValueError(f"half angle {self.half_angle_deg} is not within 15 to 60 degrees")


@dataclass(frozen=True, slots=True)
class PanelPlace:
    """Where a panel lies.

    box: the panel. view: the part of it that holds the fan. mm_per_px: of both axes. face_px:
    (x, y) on the screen of the middle of the transducer face, where depth is 0.
    """

    box: Box
    view: Box
    mm_per_px: float
    face_px: tuple[float, float]

    @property
    def region(self) -> Region:
        """As an item of the DICOM Sequence of Ultrasound Regions."""
        return Region(self.box, (self.mm_per_px, self.mm_per_px), "tissue")


def panel_places(screen: Screen, scanner: Scanner) -> dict[Panel, PanelPlace]:
    """Both panels; same size and scale, so one moves onto the other by the offset of their boxes.

    Example:
        >>> from renalkit.phantom.bmode.picture import SCANNERS
        >>> screen = plain_screen(Layout.LEFT)
        >>> [p.box.x for p in panel_places(screen, SCANNERS[0]).values()]
        [4, 402]
    """
    head, foot, edge = _margins(screen)
    if screen.layout in (Layout.LEFT, Layout.RIGHT):
        width, height = (screen.cols - 3 * edge + 1) // 2, screen.rows - head - foot
        corners = [(edge, head), (screen.cols - edge - width, head)]
    else:
        width, height = screen.cols - 2 * edge, (screen.rows - head - foot - edge) // 2
        corners = [(edge, head), (edge, screen.rows - foot - height)]
    if screen.layout in (Layout.RIGHT, Layout.BOTTOM):
        corners.reverse()
    return {
        panel: _place(screen, scanner, Box(x, y, width, height))
        for panel, (x, y) in zip(Panel, corners, strict=True)
    }


def _margins(screen: Screen) -> tuple[int, int, int]:
    """Height of header and footer, width of the gaps, in px."""
    return round(0.09 * screen.rows), round(0.045 * screen.rows), max(2, round(0.005 * screen.cols))


def _place(screen: Screen, scanner: Scanner, box: Box) -> PanelPlace:
    half = math.radians(screen.half_angle_deg)
    width_mm = 2 * (scanner.radius_mm + scanner.depth_mm) * math.sin(half)
    rise_mm = scanner.radius_mm * (1 - math.cos(half))
    height_mm = scanner.depth_mm + rise_mm
    # Room for the ruler on the right and a line of text above and below.
    ruler, line = _ruler_px(screen), _line_px(screen)
    free_w, free_h = box.width - ruler, box.height - 2 * line
    # Side by side, panels cut the lower corners of the fan, as consoles do to show it larger.
    scale = max(_SHOWN_SHARE * width_mm / free_w, height_mm / free_h)
    view_w = min(math.ceil(width_mm / scale) + 2, free_w)
    view_h = min(math.ceil(height_mm / scale) + 2, free_h)
    top = box.y + line + (free_h - view_h) // 4
    view = Box(box.x + (free_w - view_w) // 2, top, view_w, view_h)
    face = (view.x + view_w / 2, view.y + 1 + rise_mm / scale)
    return PanelPlace(box, view, scale, face)


def _ruler_px(screen: Screen) -> int:
    return round(0.032 * screen.cols)


def _line_px(screen: Screen) -> int:
    return round(0.036 * screen.rows)


def plain_screen(layout: Layout, style: str = "scanner-a") -> Screen:
    """A screen of 600 x 800 px with nothing special on it."""
    return Screen(
        rows=600,
        cols=800,
        style=style,
        layout=layout,
        half_angle_deg=29.0,
        clock=True,
        texts=("PHANTOM", "000000", "SIMULATED", ""),
        calipers=(),
        mechanical_index=0.08,
        dynamic_range_db=(54.0, 46.0),
        frame_hz=10.0,
    )


def clock_text(clock_s: float) -> str:
    """What the contrast clock shows: whole minutes and seconds since injection.

    >>> clock_text(46.9)
    'T1 0:46'
    """
    whole = math.floor(clock_s + 1e-6)
    sign = "-" if whole < 0 else ""
    return f"T1 {sign}{abs(whole) // 60}:{abs(whole) % 60:02d}"


@dataclass(frozen=True, slots=True, eq=False)
class Background:
    """What does not change during a clip.

    pixels: (H,W,3) the screen without echoes. over, over_pixels: flat places (N,) and colours
    (N,3) of what is burned in over the echoes. clock_at: (x, y) of the clock's patch, or None.
    """

    pixels: Pixels
    over: npt.NDArray[np.intp]
    over_pixels: Pixels
    clock_at: tuple[int, int] | None


@dataclass(frozen=True, slots=True, eq=False)
class _Canvas:
    """A screen in the making: base (H,W,3) below the echoes, over (H,W,3) above them."""

    screen: Screen
    scanner: Scanner
    base: Pixels
    over: Pixels

    @property
    def style(self) -> Style:
        return STYLES[self.screen.style]

    def text(
        self, text: str, at: tuple[int, int], colour: Colour | None = None, size: float = 1.0
    ) -> None:
        """Write a line; `at` is the left end of its base line."""
        scale = _TEXT_SIZE * self.screen.rows * size
        font, ink = cv2.FONT_HERSHEY_SIMPLEX, colour or self.style.ink
        cv2.putText(self.base, text, at, font, scale, ink, 1, cv2.LINE_AA)


_TEXT_SIZE = 0.00074
_CALIPER: Colour = (250, 235, 90)


def background(screen: Screen, scanner: Scanner) -> Background:
    """Draw everything but echoes and clock."""
    places = panel_places(screen, scanner)
    empty = np.zeros((screen.rows, screen.cols, 3), np.uint8)
    canvas = _Canvas(screen, scanner, empty, empty.copy())
    _header(canvas)
    for panel, place in places.items():
        _ruler(canvas, place)
        _marks(canvas, panel, place)
    for caliper in screen.calipers:
        _draw_caliper(canvas, places[Panel.BMODE], caliper)
    # What lies beside the fan but within its rectangle is burned in as well.
    for place in places.values():
        here = place.view.slices
        np.maximum(canvas.over[here], canvas.base[here], out=canvas.over[here])
    over = np.flatnonzero(canvas.over.any(axis=2))
    clock_at = None
    if screen.clock:
        box, (width, height) = places[Panel.CONTRAST].box, _clock_size(screen)
        right = box.x + box.width - width - _ruler_px(screen)
        x = box.x + 4 if canvas.style.clock_left else right
        clock_at = (x, box.y + box.height - height)
    return Background(canvas.base, over, canvas.over.reshape(-1, 3)[over], clock_at)


def _clock_size(screen: Screen) -> tuple[int, int]:
    return round(0.13 * screen.cols), _line_px(screen)


@lru_cache(maxsize=64)
def clock_patch(screen: Screen, text: str) -> Pixels:
    """The clock (h,w,3) with its text; the same patch for the same text."""
    width, height = _clock_size(screen)
    patch = np.zeros((height, width, 3), np.uint8)
    at, scale = (2, round(0.72 * height)), 1.15 * _TEXT_SIZE * screen.rows
    ink = STYLES[screen.style].ink
    cv2.putText(patch, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, ink, 1, cv2.LINE_AA)
    patch.flags.writeable = False
    return patch


def _header(canvas: _Canvas) -> None:
    base, style, cols = canvas.base, canvas.style, canvas.screen.cols
    head, foot, _ = _margins(canvas.screen)
    base[: head - 4] = style.bar
    base[base.shape[0] - foot + 2 :] = style.bar
    first, second = round(0.36 * head), round(0.76 * head)
    # A made-up sign: a disc with a notch, in the colour of the marks.
    centre = (round(0.021 * cols), round(0.43 * head))
    cv2.circle(base, centre, round(0.26 * head), style.mark, -1, cv2.LINE_AA)
    cv2.circle(base, (centre[0] + 4, centre[1] - 2), round(0.13 * head), style.bar, -1, cv2.LINE_AA)
    screen = canvas.screen
    name, identifier, institution, date = screen.texts
    for at, upper, lower in (
        (0.05, style.name, institution),
        (0.3, name, identifier),
        (0.66, "", f"TIS {screen.mechanical_index / 4:.2f}"),
        (0.82, date, "Kidney CEUS"),
    ):
        canvas.text(upper, (round(at * cols), first))
        canvas.text(lower, (round(at * cols), second))
    show_index(base, screen, screen.mechanical_index)


def show_index(pixels: Pixels, screen: Screen, mechanical_index: float) -> None:
    """Write the mechanical index into the header of a screen (H,W,3), over what is there."""
    head, style = _margins(screen)[0], STYLES[screen.style]
    x, y = round(0.66 * screen.cols), round(0.36 * head)
    pixels[1 : y + 4, x : round(0.81 * screen.cols)] = style.bar
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, _TEXT_SIZE * screen.rows
    text = f"MI {mechanical_index:.2f}"
    cv2.putText(pixels, text, (x, y), font, scale, style.ink, 1, cv2.LINE_AA)


def _ruler(canvas: _Canvas, place: PanelPlace) -> None:
    """Centimetre ticks right of the fan, numbers every 5 cm, and the focus."""
    mark, ruler = canvas.style.mark, _ruler_px(canvas.screen)
    x = place.view.x + place.view.width + 3
    for cm in range(int(canvas.scanner.depth_mm / 10) + 1):
        y = round(place.face_px[1] + 10 * cm / place.mm_per_px)
        tick = max(3, ruler // 3) if cm % 5 == 0 else max(2, ruler // 6)
        cv2.line(canvas.base, (x, y), (x + tick, y), mark, 1)
        if cm % 5 == 0 and cm > 0:
            canvas.text(str(cm), (x + ruler // 3 + 1, y + 4), mark, 0.8)
    y = round(place.face_px[1] + 0.55 * canvas.scanner.depth_mm / place.mm_per_px)
    cv2.fillPoly(canvas.base, [np.array([[x + 2, y], [x + 8, y - 4], [x + 8, y + 4]])], mark)


def _marks(canvas: _Canvas, panel: Panel, place: PanelPlace) -> None:
    """Name of the mode, orientation mark, bar of grey or colour, settings, body mark."""
    screen, style, box = canvas.screen, canvas.style, place.box
    line, low = _line_px(screen), place.box.y + place.box.height
    bmode = panel is Panel.BMODE
    canvas.text("B" if bmode else "CONTRAST", (box.x + 6, box.y + round(0.7 * line)))
    shown_db = screen.dynamic_range_db[0 if bmode else 1]
    settings = f"{screen.frame_hz:.0f}Hz  G{61 if bmode else 74}  DR{shown_db:.0f}"
    beside_clock = screen.clock and not bmode and style.clock_left
    indent = round(0.15 * screen.cols) if beside_clock else 6
    canvas.text(settings, (box.x + indent, low - round(0.3 * line)), size=0.9)
    # The orientation mark lies beside the cranial end of the transducer face.
    half = math.radians(screen.half_angle_deg)
    corner = place.face_px[0] - canvas.scanner.radius_mm * math.sin(half) / place.mm_per_px
    at = (round(corner) - 10, place.view.y + 6)
    cv2.circle(canvas.base, at, 5, style.mark, -1 if bmode else 1, cv2.LINE_AA)
    tint = np.array((1.0, 1.0, 1.0) if bmode else style.tint)
    tall, wide = round(0.14 * screen.rows), max(6, round(0.011 * screen.cols))
    ramp = np.linspace(255, 0, tall)[:, None] * tint[None, :]
    x, y = box.x + 6, box.y + line + 6
    canvas.base[y : y + tall, x : x + wide] = ramp.astype(np.uint8)[:, None]
    if bmode:
        # Outline of a flank with the probe on it.
        size = round(0.016 * screen.cols)
        x, y = box.x + round(0.035 * screen.cols), low - 2 * line - size
        outline = (size, round(1.35 * size))
        cv2.ellipse(canvas.base, (x, y), outline, 0, 0, 360, style.mark, 1, cv2.LINE_AA)
        probe = (x + size // 3, y - size // 4)
        cv2.line(canvas.base, probe, (probe[0] + size // 2, probe[1] + size), (60, 220, 60), 2)


def _draw_caliper(canvas: _Canvas, place: PanelPlace, caliper: Caliper) -> None:
    """Two crosses, a dotted line between them, and the length below the panel."""
    over = canvas.over
    start, end = (
        np.array(place.face_px) + np.array(point) / place.mm_per_px
        for point in (caliper.start_mm, caliper.end_mm)
    )
    arm = max(3, round(0.006 * canvas.screen.cols))
    for at in (start, end):
        x, y = (round(float(value)) for value in at)
        cv2.line(over, (x - arm, y), (x + arm, y), _CALIPER, 1)
        cv2.line(over, (x, y - arm), (x, y + arm), _CALIPER, 1)
    steps = max(2, int(math.dist(start, end) / 6))
    for share in np.linspace(0, 1, steps + 1)[1:-1]:
        x, y = (round(float(value)) for value in start + share * (end - start))
        cv2.circle(over, (x, y), 0, _CALIPER, -1)
    box, line = place.box, _line_px(canvas.screen)
    at = (box.x + round(0.08 * canvas.screen.cols), box.y + box.height - round(1.5 * line))
    canvas.text(f"D {caliper.length_mm / 10:.2f} cm", at, _CALIPER)
