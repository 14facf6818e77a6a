"""How does the kidney move under the probe, and in which frames is its section lost?

The B-mode pane is followed, for its speckle moves with the tissue while contrast comes and goes. A
template, the region of interest grown, is found in every frame by normalised cross-correlation
(J. P. Lewis, Fast normalized cross-correlation, Vision Interface 1995, 120), first on a coarse
picture and then around the best place, to a fraction of a pixel by a parabola through the
correlations. Each frame is compared with the reference and not with its neighbour, so errors do not
add up. Body wall, console and the edge of the fan stay where they are: only the template is
followed, in units of local contrast, so that slow changes of brightness and bright fixed layers
carry little weight, and without what lies outside the fan. The alternative is phase correlation
(C. Kuglin, D. Hines, IEEE Conf. Cybernetics and Society 1975, 163), recentred until it rests.

A frame is out of plane when its correlation falls below a share of what the frames of the clip
usually have. Unrelated speckle of another section, holding a share a of the slice, leaves a
correlation of (1 - a) / sqrt((1 - a)^2 + a^2) of the usual: 0.71 at one half, and 0.77 where the
sections share a fifth of their texture. The default lies between.

A shift (dx, dy) says that what lies at (x, y) in the reference frame lies at (x + dx, y + dy) here.
Shapes: T frames, H rows, W columns; grey pictures are (H,W) or (H,W,3) uint8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from renalkit.ceus.texture import (
    F32,
    Grey,
    Mask,
    correlations,
    echo_area,
    grey_of,
    local_contrast,
    vertex,
)
from renalkit.domain.geometry import Box, SpacingMm
from renalkit.domain.image import PixelStack

F64 = npt.NDArray[np.float64]

Method = Literal["template", "phase"]

_COARSE = 2  # px of the picture in one of the coarse picture: more would blur speckle away
_BLUR_PX = 17  # neighbourhood in which contrast is local
_FOLLOWED = 0.6  # share of the usual correlation from which the search moves on to a match
_CANDIDATES = 3  # places of the coarse picture that are looked at closely
_CLOSE = 0.6  # of the highest coarse correlation, from which a place is
_FAINT = 0.1  # but never below this
_ROUNDS = 4  # of phase correlation


@dataclass(frozen=True, slots=True)
class TrackOptions:
    """How to follow and what to keep.

    method: "template" or "phase". grow: share of its size by which the box is enlarged on each
    side. least_px, most_px: shortest and longest side of the template, which stays around the
    box's middle. search_px: how far to look from the last good place along each axis.
    lost_below: correlation, as a share of the clip's upper quartile, below which a frame is out
    of plane. above_chance: it is in any case when its correlation is below so many standard
    deviations of what unrelated speckle of the same grain gives (the best of the some hundred
    places that are searched reaches 3 to 4), or below least_correlation.
    """

    method: Method = "template"
    grow: float = 0.2
    least_px: int = 64
    most_px: int = 200
    search_px: int = 48
    lost_below: float = 0.75
    above_chance: float = 5.0
    least_correlation: float = 0.15

    def __post_init__(self) -> None:
        if self.method not in ("template", "phase"):
            raise ValueError(f"motion method {self.method!r} is neither 'template' nor 'phase'")
        if not (0 <= self.grow <= 5 and 16 <= self.least_px <= self.most_px):
            raise ValueError(f"no template can be cut with {self}")
        if not 4 <= self.search_px <= 500:
            raise ValueError(f"a search of {self.search_px} px is not within 4 to 500")
        if not (0 < self.lost_below < 1 and 0 < self.least_correlation < 1):
            raise ValueError("lost_below and least_correlation are between 0 and 1")
        if self.above_chance <= 0:
            raise ValueError(f"{self.above_chance} deviations above chance: must be positive")


@dataclass(frozen=True, slots=True)
class Shift:
    """Where the reference's content is in a frame, in px, and the correlation (-1..1) there."""

    dx: float
    dy: float
    correlation: float


@dataclass(frozen=True, slots=True)
class _Template:
    """Local contrast of the tracked box, in full and coarse."""

    fine: F32
    coarse: F32


class Tracker:
    """Finds one box of a reference picture in other pictures of the same size.

    `box` is the box that is really followed. `chance` is the standard deviation of its correlation
    with unrelated speckle of the same grain. Memory does not grow with the number of frames.
    """

    def __init__(
        self,
        reference: npt.NDArray[Any],
        box: Box,
        options: TrackOptions | None = None,
        ignore: Mask | None = None,
    ) -> None:
        """Learn the template.

        Args:
            reference: picture of the reference frame. box: region of interest in it.
            options: how to follow. ignore: (H,W), overlays that do not belong to the echo image.

        Raises:
            ValueError: the box leaves the picture, or there is nothing in it to follow.
        """
        self.options = options or TrackOptions()
        grey = grey_of(reference)
        rows, cols = grey.shape
        if not box.fits(rows, cols):
            raise ValueError(f"{box} leaves the picture of {rows} x {cols} pixels")
        if ignore is not None and ignore.shape != grey.shape:
            raise ValueError(f"overlays of {ignore.shape} on a picture of {grey.shape}")
        self.box = _template_box(box, self.options, rows, cols)
        self._shape = grey.shape
        self._valid = echo_area(grey, ignore)
        self._centre = (0, 0)
        self._usual = 0.0
        self._template = self._cut_template(grey, 0.0, 0.0)
        self.chance = _chance(self._template.fine)
        if float(np.abs(self._template.fine).mean()) < 0.05:
            raise ValueError(
                f"{self.box} of the reference frame shows no speckle to follow; choose another "
                "region or reference frame"
            )

    def restart(self) -> None:
        """Look around the reference place next, as before the first frame."""
        self._centre = (0, 0)

    def step(self, picture: npt.NDArray[Any]) -> Shift:
        """Find the template in the next picture.

        Frames may be given in any order; the search starts from the last good place and, where
        that fails, from the reference place.

        Raises:
            ValueError: the picture has another size than the reference.
        """
        if picture.shape[:2] != self._shape:
            raise ValueError(f"a frame of {picture.shape[:2]} in a clip of {self._shape}")
        find = self._match if self.options.method == "template" else self._phase
        good = max(_FOLLOWED * self._usual, self.options.above_chance * self.chance)
        found = find(picture, self._centre)
        if found.correlation < good and self._centre != (0, 0):
            again = find(picture, (0, 0))
            found = again if again.correlation > found.correlation else found
        if found.correlation >= good:
            self._centre = (round(found.dx), round(found.dy))
            # The reference frame, found in itself, says nothing about the others.
            if found.correlation < 0.99:
                kept = 0.9 if self._usual else 0.0
                self._usual = kept * self._usual + (1 - kept) * found.correlation
        return found

    def refine(self, pictures: Sequence[npt.NDArray[Any]]) -> int:
        """Replace the template by its mean over those pictures that show the section.

        Returns:
            How many pictures it was taken from; the template stays when there are fewer than two.
        """
        shifts: list[Shift] = []
        for picture in pictures:
            self.restart()
            shifts.append(self.step(picture))
        self.restart()
        kept, _ = in_plane([s.correlation for s in shifts], self.options, chance=self.chance)
        chosen = [(p, s) for p, s, k in zip(pictures, shifts, kept.tolist(), strict=True) if k]
        if len(chosen) >= 2:
            cuts = [self._cut_template(grey_of(p), s.dx, s.dy) for p, s in chosen]
            self._template = _Template(
                np.mean([c.fine for c in cuts], axis=0), np.mean([c.coarse for c in cuts], axis=0)
            )
            self.chance = _chance(self._template.fine)
        return len(chosen)

    def _match(self, picture: npt.NDArray[Any], centre: tuple[int, int]) -> Shift:
        """Normalised cross-correlation, coarse then fine."""
        step = _COARSE
        reach = -(-self.options.search_px // step)
        coarse = correlations(self._coarse(picture, centre, reach), self._template.coarse)
        found = [
            self._peak(picture, (centre[0] + x * step, centre[1] + y * step), step + 1)
            for x, y in _best_places(coarse, reach)
        ]
        return max(found, key=lambda shift: shift.correlation)

    def _phase(self, picture: npt.NDArray[Any], centre: tuple[int, int]) -> Shift:
        """Phase correlation to whole pixels, repeated around what it found, then the parabola."""
        for _ in range(_ROUNDS):
            power = self._conjugate * np.fft.rfft2(self._window * self._fine(picture, centre, 0))
            height, width = self._window.shape
            found = np.fft.irfft2(power / (np.abs(power) + 1e-6), (height, width))
            y, x = divmod(int(np.argmax(found)), width)
            x, y = x - width * (2 * x > width), y - height * (2 * y > height)
            moved = (centre[0] + x, centre[1] + y)
            if (x, y) == (0, 0) or max(map(abs, moved)) > 2 * self.options.search_px:
                break
            centre = moved
        return self._peak(picture, centre, 2)

    @property
    def _window(self) -> F32:
        """Hann window of the template's shape."""
        size = (self.box.width, self.box.height)
        return np.asarray(cv2.createHanningWindow(size, cv2.CV_32F), np.float32)

    @property
    def _conjugate(self) -> npt.NDArray[np.complexfloating[Any, Any]]:
        """Conjugate spectrum of the template."""
        return np.conj(np.fft.rfft2(self._window * self._template.fine))

    def _peak(self, picture: npt.NDArray[Any], near: tuple[int, int], reach: int) -> Shift:
        """The best place within reach of a place, to a fraction of a pixel."""
        found = correlations(self._fine(picture, near, reach), self._template.fine)
        _, _, _, (x, y) = cv2.minMaxLoc(found)
        return Shift(
            near[0] - reach + x + vertex(found[y], x),
            near[1] - reach + y + vertex(found[:, x], y),
            float(found[y, x]),
        )

    def _fine(self, picture: npt.NDArray[Any], at: tuple[int, int], reach: int) -> F32:
        """Local contrast of the moved box and its surroundings."""
        edge = _BLUR_PX // 2
        window = _Window.around(self.box, at, reach + edge)
        texture = local_contrast(grey_of(window.cut(picture)), window.cut(self._valid), _BLUR_PX)
        return texture[edge:-edge, edge:-edge]

    def _coarse(self, picture: npt.NDArray[Any], at: tuple[int, int], reach: int) -> F32:
        """The same in the coarse picture; reach in its pixels."""
        step = _COARSE
        blur = max(5, _BLUR_PX // step | 1)
        edge = blur // 2
        size = (
            self.box.width // step + 2 * (reach + edge),
            self.box.height // step + 2 * (reach + edge),
        )
        window = _Window.around(self.box, at, (reach + edge) * step)
        # The box need not be a whole number of steps: what is left over stays out.
        window = _Window(window.x, window.y, size[0] * step, size[1] * step)
        small = cv2.resize(grey_of(window.cut(picture)), size, interpolation=cv2.INTER_AREA)
        valid = cv2.resize(window.cut(self._valid), size, interpolation=cv2.INTER_AREA)
        texture = local_contrast(np.asarray(small, np.uint8), np.asarray(valid, np.float32), blur)
        return texture[edge:-edge, edge:-edge]

    def _cut_template(self, grey: Grey, dx: float, dy: float) -> _Template:
        """The template as a picture shows it at a shift."""
        if (dx, dy) != (0.0, 0.0):
            back = np.array([[1, 0, -dx], [0, 1, -dy]], np.float32)
            size = (grey.shape[1], grey.shape[0])
            grey = np.asarray(cv2.warpAffine(grey, back, size), np.uint8)
        return _Template(self._fine(grey, (0, 0), 0), self._coarse(grey, (0, 0), 0))


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """The motion of a clip.

    reference: frame that the others were compared with. box: what was followed, in that frame.
    shift_px: (T,2), dx and dy. correlation: (T,). kept: (T,), the section is in the picture.
    lost_below: the correlation that decided. method: how shifts were found.
    """

    reference: int
    box: Box
    shift_px: F64
    correlation: F64
    kept: Mask
    lost_below: float
    method: Method

    def __post_init__(self) -> None:
        count = len(self.correlation)
        if self.shift_px.shape != (count, 2) or self.kept.shape != (count,):
            raise ValueError("shifts (T,2), correlations (T,) and kept (T,) do not fit together")
        if not 0 <= self.reference < count:
            raise ValueError(f"reference frame {self.reference} of {count}")

    @property
    def n_frames(self) -> int:
        return len(self.correlation)

    @property
    def kept_share(self) -> float:
        """Share of the frames that show the section."""
        return float(self.kept.mean())

    @property
    def residual_correlation(self) -> float | None:
        """Median correlation of the kept frames after the shift; None when none is kept."""
        others = self.kept.copy()
        others[self.reference] = False
        return float(np.median(self.correlation[others])) if others.any() else None

    @property
    def travel_px(self) -> tuple[float, float]:
        """Range of dx and dy over the kept frames."""
        if not self.kept.any():
            return 0.0, 0.0
        dx, dy = np.ptp(self.shift_px[self.kept], axis=0).tolist()
        return dx, dy

    def scaled(self, spacing_mm: SpacingMm, other_mm: SpacingMm) -> Track:
        """The same motion in the pixels of a pane of other spacing; the box stays as it was."""
        ratio = np.array([spacing_mm[1] / other_mm[1], spacing_mm[0] / other_mm[0]])
        return Track(
            self.reference,
            self.box,
            self.shift_px * ratio,
            self.correlation,
            self.kept,
            self.lost_below,
            self.method,
        )


def in_plane(
    correlation: Sequence[float] | F64,
    options: TrackOptions | None = None,
    *,
    reference: int | None = None,
    chance: float = 0.0,
) -> tuple[Mask, float]:
    """Which frames show the section, and the correlation that decides.

    The limit is `lost_below` of the upper quartile, which stands as long as a quarter of the
    frames is in plane, and never less than `least_correlation` and than `above_chance` times
    `chance`. A clip without lost frames has no correlations so far below the usual, and keeps them
    all. The reference frame, which agrees with itself, has no say in what is usual.

    Returns:
        kept (T,) and the limit.
    """
    chosen = options or TrackOptions()
    values = np.asarray(correlation, np.float64)
    others = values if reference is None else np.delete(values, reference)
    usual = float(np.quantile(others, 0.75)) if others.size else 0.0
    least = max(chosen.least_correlation, chosen.above_chance * chance)
    limit = max(chosen.lost_below * usual, least)
    return values >= limit, limit


def walk(n_frames: int, reference: int) -> Iterator[int]:
    """Frames in the order of tracking: from the reference to the end, then back to the start."""
    if not 0 <= reference < n_frames:
        raise ValueError(f"reference frame {reference} of {n_frames}")
    yield from range(reference, n_frames)
    yield from range(reference - 1, -1, -1)


def finish_track(tracker: Tracker, reference: int, shifts: Sequence[Shift]) -> Track:
    """The track of a clip from the shifts of all its frames in order.

    Raises:
        ValueError: the reference frame is not one of them.
    """
    if not 0 <= reference < len(shifts):
        raise ValueError(f"reference frame {reference} of {len(shifts)}")
    correlation = np.array([s.correlation for s in shifts], np.float64)
    kept, limit = in_plane(correlation, tracker.options, reference=reference, chance=tracker.chance)
    return Track(
        reference=reference,
        box=tracker.box,
        shift_px=np.array([(s.dx, s.dy) for s in shifts], np.float64).reshape(-1, 2),
        correlation=correlation,
        kept=kept,
        lost_below=limit,
        method=tracker.options.method,
    )


def track(
    stack: PixelStack,
    box: Box,
    reference: int,
    options: TrackOptions | None = None,
    *,
    ignore: Mask | None = None,
    samples: Sequence[npt.NDArray[Any]] = (),
    visit: Callable[[int, npt.NDArray[Any], Shift], None] | None = None,
) -> Track:
    """Follow a box through a clip, forward and backward from the reference frame.

    Args:
        stack: B-mode pane, (T,H,W) or (T,H,W,3); each frame is decoded once, the reference twice.
            box: region of interest in the reference frame. reference: its number. options: how to
            follow. ignore: (H,W), overlays. samples: some frames of the clip, of which the template
            becomes the mean (`Tracker.refine`): it makes more of a noisy picture. visit: called
            with number, picture and shift of each frame as it is found, so that one decoding
            serves other figures too.

    Raises:
        ValueError: no such frame, the box leaves the picture or shows nothing to follow.
    """
    count = int(stack.shape[0])
    if not 0 <= reference < count:
        raise ValueError(f"reference frame {reference} of {count}")
    tracker = Tracker(stack[reference], box, options, ignore)
    tracker.refine(samples)
    shifts = [Shift(0.0, 0.0, 0.0)] * count
    for index in walk(count, reference):
        if index == reference - 1:
            tracker.restart()
        picture = stack[index]
        shifts[index] = tracker.step(picture)
        if visit is not None:
            visit(index, picture, shifts[index])
    return finish_track(tracker, reference, shifts)


def moved_box(box: Box, dx: float, dy: float, rows: int, cols: int) -> Box | None:
    """A box after a shift, the part inside an image of rows x cols; None when nothing is left."""
    left, top = box.x + round(dx), box.y + round(dy)
    x, y = max(left, 0), max(top, 0)
    right, low = min(left + box.width, cols), min(top + box.height, rows)
    return Box(x, y, right - x, low - y) if right > x and low > y else None


def moved_mask(mask: Mask, dx: float, dy: float) -> Mask:
    """A mask (H,W) after a shift, edges to a fraction of a pixel; what leaves the image is lost."""
    if abs(dx) < 1e-3 and abs(dy) < 1e-3:
        return mask.copy()
    moved = np.zeros_like(mask)
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    if width == 0:
        return moved
    left, top = int(np.floor(dx)), int(np.floor(dy))
    part = np.pad(mask[y : y + height, x : x + width].astype(np.float32), 1)
    by = np.array([[1, 0, dx - left], [0, 1, dy - top]], np.float32)
    part = np.asarray(cv2.warpAffine(part, by, (width + 2, height + 2)), np.float32) >= 0.5
    rows, cols = mask.shape
    x0, y0 = x - 1 + left, y - 1 + top
    a, b = max(x0, 0), max(y0, 0)
    c, d = min(x0 + width + 2, cols), min(y0 + height + 2, rows)
    if c > a and d > b:
        moved[b:d, a:c] = part[b - y0 : d - y0, a - x0 : c - x0]
    return moved


def _best_places(found: F32, reach: int) -> list[tuple[int, int]]:
    """The places (x, y), relative to the middle, of the highest correlation and of others close
    to it: a speckle half a coarse pixel off may look worse than a wall that stayed."""
    found = found.copy()
    places: list[tuple[int, int]] = []
    highest = float(found.max())
    while len(places) < _CANDIDATES:
        _, value, _, (x, y) = cv2.minMaxLoc(found)
        if places and value < max(_CLOSE * highest, _FAINT):
            break
        places.append((x - reach, y - reach))
        found[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3] = -1.0
    return places


def _chance(template: F32) -> float:
    """Standard deviation of the correlation with an unrelated picture of the same grain.

    sqrt(sum rho^2 / N) over the autocorrelation rho of the N pixels (M. Bartlett, J. R. Stat. Soc.
    Suppl. 8:27, 1946).
    """
    field = template - template.mean()
    spectrum = np.abs(np.fft.rfft2(field, (2 * field.shape[0], 2 * field.shape[1]))) ** 2
    rho = np.fft.irfft2(spectrum)
    if not rho[0, 0] > 0:
        return 1.0
    return float(np.sqrt(((rho / rho[0, 0]) ** 2).sum() / field.size))


@dataclass(frozen=True, slots=True)
class _Window:
    """A part of a picture that may reach beyond it."""

    x: int
    y: int
    width: int
    height: int

    @classmethod
    def around(cls, box: Box, at: tuple[int, int], edge: int) -> _Window:
        x, y = box.x + at[0] - edge, box.y + at[1] - edge
        return cls(x, y, box.width + 2 * edge, box.height + 2 * edge)

    def cut(self, picture: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The part, zero beyond the picture."""
        rows, cols = picture.shape[:2]
        x0, y0 = min(max(self.x, 0), cols), min(max(self.y, 0), rows)
        x1, y1 = min(max(self.x + self.width, 0), cols), min(max(self.y + self.height, 0), rows)
        part = picture[y0:y1, x0:x1]
        if part.shape[:2] == (self.height, self.width):
            return part
        full = np.zeros((self.height, self.width, *picture.shape[2:]), picture.dtype)
        full[y0 - self.y : y1 - self.y, x0 - self.x : x1 - self.x] = part
        return full


def _template_box(box: Box, options: TrackOptions, rows: int, cols: int) -> Box:
    """The region of interest grown, within the allowed sides, inside the picture."""
    sides: list[tuple[int, int]] = []
    for start, size, room in ((box.x, box.width, cols), (box.y, box.height, rows)):
        grown_px = round(size * (1 + 2 * options.grow))
        wanted = min(max(grown_px, options.least_px), options.most_px, room)
        first = min(max(start + (size - wanted) // 2, 0), room - wanted)
        sides.append((first, wanted))
    (x, width), (y, height) = sides
    if min(width, height) < 16:
        raise ValueError(f"a picture of {rows} x {cols} pixels is too small to follow motion in")
    return Box(x, y, width, height)
