"""Where things are in an image: boxes, ultrasound regions and compact masks.

Pixel coordinates are (x right, y down), a pixel (x, y) covers [x, x+1) x [y, y+1).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

import numpy as np
import numpy.typing as npt

SpacingMm = tuple[float, float]
"""Millimetres per pixel as (row, column), both positive and finite."""


def checked_spacing(spacing_mm: SpacingMm | None) -> SpacingMm | None:
    """The spacing if it can be measured with, otherwise None; an unknown scale is never 1.0."""
    if spacing_mm is None:
        return None
    row, col = float(spacing_mm[0]), float(spacing_mm[1])
    return (row, col) if isfinite(row) and isfinite(col) and row > 0 and col > 0 else None


@dataclass(frozen=True, slots=True)
class Box:
    """Axis-aligned pixel box with its top-left corner inside and x+width, y+height outside."""

    x: int
    y: int
    width: int
    height: int

    def __post_init__(self) -> None:
        if self.width <= 0 or self.height <= 0:
            raise ValueError(f"box {self} is empty; width and height must be positive")
        if self.x < 0 or self.y < 0:
            raise ValueError(f"box {self} starts outside the image")

    @property
    def slices(self) -> tuple[slice, slice]:
        """Row and column slices for indexing an image."""
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)

    def fits(self, rows: int, cols: int) -> bool:
        """Whether the box lies wholly inside an image of rows x cols pixels."""
        return self.x + self.width <= cols and self.y + self.height <= rows

    def clipped(self, rows: int, cols: int) -> Box | None:
        """The part of the box inside an image of rows x cols pixels, None when there is none."""
        x1, y1 = min(self.x + self.width, cols), min(self.y + self.height, rows)
        if x1 <= self.x or y1 <= self.y:
            return None
        return Box(self.x, self.y, x1 - self.x, y1 - self.y)

    def union(self, other: Box) -> Box:
        """The smallest box that holds both."""
        x, y = min(self.x, other.x), min(self.y, other.y)
        right = max(self.x + self.width, other.x + other.width)
        bottom = max(self.y + self.height, other.y + other.height)
        return Box(x, y, right - x, bottom - y)

    def grown(self, share: float, rows: int, cols: int) -> Box:
        """The box enlarged on each side by `share` of its width and height, inside the image."""
        dx, dy = round(self.width * share), round(self.height * share)
        x0, y0 = max(0, self.x - dx), max(0, self.y - dy)
        x1 = min(cols, self.x + self.width + dx)
        y1 = min(rows, self.y + self.height + dy)
        return Box(x0, y0, x1 - x0, y1 - y0)


def bounding_box(mask: npt.NDArray[np.bool_]) -> Box | None:
    """The tight box of a mask (H,W), None when it is empty."""
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return None
    return Box(int(cols[0]), int(rows[0]), int(np.ptp(cols)) + 1, int(np.ptp(rows)) + 1)


@dataclass(frozen=True, slots=True)
class Region:
    """One item of the Sequence of Ultrasound Regions (PS3.3 C.8.5.5): where the echo image is.

    spacing_mm is None unless both axes are in centimetres; data_type is the coded region data
    type in words ("tissue", "colour-flow", "doppler", ...), spatial_format likewise ("2d", ...).
    """

    box: Box
    spacing_mm: SpacingMm | None
    data_type: str
    spatial_format: str = "2d"

    def __post_init__(self) -> None:
        if checked_spacing(self.spacing_mm) != self.spacing_mm:
            raise ValueError(f"region spacing {self.spacing_mm} is not positive and finite")


@dataclass(frozen=True, slots=True)
class MaskRLE:
    """A binary mask as alternating run lengths in row-major order, the first run being zeros."""

    rows: int
    cols: int
    runs: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.rows <= 0 or self.cols <= 0:
            raise ValueError(f"mask of {self.rows} x {self.cols} pixels has no area")
        if any(r < 0 for r in self.runs) or any(r == 0 for r in self.runs[1:]):
            raise ValueError("mask runs must be positive (only the first may be zero)")
        if sum(self.runs) != self.rows * self.cols:
            raise ValueError(
                f"mask runs cover {sum(self.runs)} pixels, the image has {self.rows * self.cols}"
            )

    @classmethod
    def encode(cls, mask: npt.ArrayLike) -> MaskRLE:
        """Encode an array (H,W); every non-zero element is inside.

        >>> MaskRLE.encode([[0, 1], [1, 0]]).runs
        (1, 2, 1)
        """
        array = np.asarray(mask)
        if array.ndim != 2:
            raise ValueError(f"mask must be (H,W), got shape {array.shape}")
        flat = (array != 0).ravel()
        edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        bounds = np.concatenate(([0], edges, [flat.size]))
        runs = np.diff(bounds).tolist()
        if flat.size and flat[0]:
            runs = [0, *runs]
        return cls(int(array.shape[0]), int(array.shape[1]), tuple(int(r) for r in runs))

    def decode(self) -> npt.NDArray[np.bool_]:
        """The mask as a boolean array (H,W)."""
        values = np.arange(len(self.runs)) % 2 == 1
        return np.repeat(values, self.runs).reshape(self.rows, self.cols)

    @property
    def area_px(self) -> int:
        """Number of pixels inside."""
        return sum(self.runs[1::2])

    @property
    def box(self) -> Box | None:
        """`bounding_box` of the mask, from its runs alone.

        >>> MaskRLE.encode([[0, 0, 0], [0, 1, 1]]).box
        Box(x=1, y=1, width=2, height=1)
        """
        ends = np.cumsum(self.runs)
        last = ends[1::2] - 1
        if last.size == 0:
            return None
        first = ends[0::2][: last.size]
        top, bottom = int(first[0]) // self.cols, int(last[-1]) // self.cols
        left, right = 0, self.cols - 1
        if (first // self.cols == last // self.cols).all():
            left, right = int((first % self.cols).min()), int((last % self.cols).max())
        return Box(left, top, right - left + 1, bottom - top + 1)

    @property
    def text(self) -> str:
        """The form kept in tables: ``rows x cols : run run run``.

        >>> MaskRLE.parse(MaskRLE(2, 2, (1, 2, 1)).text).runs
        (1, 2, 1)
        """
        return f"{self.rows}x{self.cols}:{' '.join(map(str, self.runs))}"

    @classmethod
    def parse(cls, text: str) -> MaskRLE:
        """The inverse of `text`; ValueError when the text has another form."""
        head, separator, body = text.partition(":")
        rows, cross, cols = head.partition("x")
        if not separator or not cross:
            raise ValueError("mask text must look like 'rows x cols : run run ...'")
        return cls(int(rows), int(cols), tuple(int(r) for r in body.split()))
