"""Are there calipers, letters or coloured marks burned into the picture itself?

A mark is drawn, so it is as bright as the picture gets, one to a few pixels thin, and has a dark
surrounding; echoes of that brightness are either broad or lie in one direction. Three shapes are
looked for: junctions of a thin horizontal and a thin vertical stroke (caliper crosses, letters,
corners of boxes), rows of evenly spaced bright dots (dotted caliper lines), and thin strokes in a
colour where the picture is grey.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from renalkit.domain.image import brightest, darkest

_STROKE_PX = 5
_CONTRAST = 70.0
_COLOUR = 60.0
_DOTS_IN_ROW = 7
_MOST_DOTS = 60


@dataclass(frozen=True, slots=True)
class Marks:
    """How many drawn things of each kind were found on a picture."""

    junctions: int
    dotted_lines: int
    coloured_strokes: int

    @property
    def any(self) -> bool:
        """Whether the picture carries burned-in marks; a single junction may be an echo."""
        return self.junctions >= 2 or self.dotted_lines >= 1 or self.coloured_strokes >= 1


def _components(
    binary: npt.NDArray[np.uint8],
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]:
    """Stats (n,5: x y width height area) and centroids (n,2) of 8-connected parts."""
    _, _, stats, centres = cv2.connectedComponentsWithStats(binary, connectivity=8)
    return np.asarray(stats[1:], np.int32), np.asarray(centres[1:], np.float64)


def _thin(grey: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Pixels near the top of the grey scale that stand out of a 7 x 7 neighbourhood."""
    opened = cv2.morphologyEx(grey, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    top = max(200.0, 0.8 * float(grey.max()))
    return ((grey >= top) & (grey - opened >= _CONTRAST)).astype(np.uint8)


def _junctions(thin: npt.NDArray[np.uint8]) -> int:
    """Parts in which a horizontal and a vertical stroke meet.

    A stroke of a drawn cross is straight: opening with a line of `_STROKE_PX` pixels keeps it,
    and speckle, which is curved and ragged, is removed by one of the two openings.
    """
    across = cv2.morphologyEx(thin, cv2.MORPH_OPEN, np.ones((1, _STROKE_PX), np.uint8))
    down = cv2.morphologyEx(thin, cv2.MORPH_OPEN, np.ones((_STROKE_PX, 1), np.uint8))
    near = np.ones((3, 3), np.uint8)
    grown = [cv2.dilate(part, near) > 0 for part in (across, down, thin)]
    both = np.logical_and.reduce(grown).astype(np.uint8)
    return len(_components(both)[0])


def _dotted_lines(thin: npt.NDArray[np.uint8]) -> int:
    """Whether there is a row of at least seven small bright parts at even distances: 0 or 1."""
    stats, centres = _components(thin)
    small = (stats[:, 4] <= 9) & (stats[:, 2] <= 4) & (stats[:, 3] <= 4)
    dots = centres[small]
    if not _DOTS_IN_ROW <= len(dots) <= _MOST_DOTS:
        return 0
    gaps = dots[None] - dots[:, None]
    far = np.hypot(gaps[..., 0], gaps[..., 1])
    for i, j in zip(*np.nonzero((far >= 3) & (far <= 12)), strict=True):
        if j < i:
            continue
        steps = dots[i] + np.arange(2, _DOTS_IN_ROW)[:, None] * gaps[i, j]
        miss = np.hypot(*(steps[:, None] - dots[None]).transpose(2, 0, 1)).min(axis=1)
        # Dots are found to about half a pixel; among many bright speckles rows arise by chance.
        if (miss <= 1.2).all():
            return 1
    return 0


def find_marks(pixels: npt.NDArray[np.generic]) -> Marks:
    """Burned-in marks of one picture (H,W) or (H,W,3), 8 bit or scaled to it by its own range.

    A picture in which more than a tenth of the pixels is coloured is a colour map (Doppler); its
    coloured strokes are not counted.
    """
    image = np.asarray(pixels, np.float32)
    if pixels.dtype != np.uint8:
        low, high = float(image.min()), float(image.max())
        image = (image - low) * (255.0 / (high - low)) if high > low else image * 0
    coloured = 0
    if image.ndim == 3:
        high = brightest(image)
        chroma = (high - darkest(image)) >= _COLOUR
        if 0 < chroma.mean() <= 0.1:
            stats, _ = _components(chroma.astype(np.uint8))
            long = np.maximum(stats[:, 2], stats[:, 3])
            filled = stats[:, 4] / (stats[:, 2] * stats[:, 3])
            slim = (np.minimum(stats[:, 2], stats[:, 3]) <= 3) | (filled <= 0.5)
            coloured = int(((long >= 2 * _STROKE_PX) & slim).sum())
        image = high
    thin = _thin(image)
    return Marks(_junctions(thin), _dotted_lines(thin), coloured)
