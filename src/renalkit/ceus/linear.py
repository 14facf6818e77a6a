"""Which echo power does a displayed colour stand for?

A contrast picture shows echo power on a logarithmic scale of so many decibels, often tinted. Two
steps undo that: the palette gives the grey level g (0..255) of a colour, the dynamic range DR gives

    power = 10^(g DR / 255 / 10) - offset

A palette that cannot be read, or a dynamic range that is not known, is said and never guessed:
without DR figures stay in grey levels, which grow with the logarithm of the echo power.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

Levels = npt.NDArray[np.uint8]
Powers = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

SATURATED_LEVEL = 253
"""From this grey level on a pixel counts as full white; lossy compression moves white by 1 or 2."""

_LUMINANCE = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, which JPEG uses
_POOL = 8  # px; the mean of proportional colours is proportional, and free of chroma subsampling
_LEAST_BRIGHT = 24.0  # grey level a sample must reach to tell a palette
_TINT_TOLERANCE = 4.0  # grey levels
_CURVE_TOLERANCE = 12.0
_MOST_STRAY = 0.02


def linear_power(
    grey: npt.NDArray[np.generic], dynamic_range_db: float, offset: float = 1.0
) -> npt.NDArray[np.float64]:
    """Echo power of grey levels 0..255, same shape: 10^(g DR/255/10) - offset.

    >>> linear_power(np.array([0, 255]), 60.0).tolist()
    [0.0, 999999.0]
    """
    return np.power(10.0, np.asarray(grey, np.float64) * (dynamic_range_db / 2550.0)) - offset


@dataclass(frozen=True, slots=True, eq=False)
class Palette:
    """How colours stand for grey levels.

    kind: "grey"; "tint": colours proportional to one another, so that the luminance over that of
    the brightest colour is g; "luminance": one row of colours from dark to bright that is taken
    to be even in luminance; "table": the row itself is known, from a colour bar. tint: (R,G,B) of
    g = 255 over 255. table: (256,3) uint8 or None. exact: whether g is known and not assumed.
    """

    kind: Literal["grey", "tint", "luminance", "table"]
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    table: npt.NDArray[np.uint8] | None = None

    @property
    def exact(self) -> bool:
        return self.kind != "luminance"

    def levels(self, pixels: npt.NDArray[np.generic]) -> Levels:
        """Grey levels (H,W) of (H,W) or (H,W,3) uint8 RGB pixels."""
        picture = _eight_bit(pixels)
        if picture.ndim == 2:
            return picture
        if self.table is not None:
            return _nearest(picture, self.table)
        weights = _LUMINANCE / float(_LUMINANCE @ np.array(self.tint))
        return np.asarray(cv2.transform(picture, weights[None, :]), np.uint8).reshape(
            picture.shape[:2]
        )


@dataclass(frozen=True, slots=True)
class PaletteRefused:
    """The colours are no row from dark to bright; words says what they are."""

    words: str


def read_palette(
    frames: Sequence[npt.NDArray[np.generic]], ignore: Mask | None = None
) -> Palette | PaletteRefused:
    """The palette of a contrast picture, from a few frames.

    Args:
        frames: (H,W) or (H,W,3) uint8 RGB, of the contrast pane; some after arrival.
        ignore: (H,W) pixels that are no echo, such as overlays and the colour bar.

    Returns:
        Grey or tint when colours are proportional within 4 grey levels; luminance when they form
        one row; refused when pixels of equal brightness differ in colour (colour Doppler, an
        overlay that is not ignored) or nothing is bright enough to tell.
    """
    if not frames:
        raise ValueError("a palette needs at least one frame")
    colours: list[npt.NDArray[np.float64]] = []
    pooled: list[npt.NDArray[np.float64]] = []
    for frame in frames:
        picture = _eight_bit(frame)
        if picture.ndim == 2:
            return Palette("grey")
        shown = np.ones(picture.shape[:2], np.bool_) if ignore is None else ~ignore
        if shown.shape != picture.shape[:2]:
            raise ValueError(f"ignore is {shown.shape}, the frame {picture.shape[:2]}")
        colours.append(picture[shown].astype(np.float64))
        pooled.append(_pooled(picture, shown))
    every, means = np.concatenate(colours), np.concatenate(pooled)
    if not len(every) or float(np.quantile(every.max(axis=1), 0.999)) < _LEAST_BRIGHT:
        return PaletteRefused("the contrast picture is too dark to tell its palette")
    tint = _proportions(means if len(means) else every)
    if tint is not None:
        return Palette("grey" if min(tint) > 0.985 else "tint", tint)
    stray = _stray_share(every)
    if stray > _MOST_STRAY:
        return PaletteRefused(
            f"{100 * stray:.0f} % of the pixels differ in colour from others as bright as they: "
            "this is no palette from dark to bright (colour Doppler, or an overlay)"
        )
    return Palette("luminance")


def palette_of_bar(bar: npt.NDArray[np.generic]) -> Palette | PaletteRefused:
    """The palette of a colour bar (N,W,3) uint8 that runs evenly between black and white, bright
    at either end."""
    picture = _eight_bit(bar)
    if picture.ndim != 3 or picture.shape[0] < 16:
        return PaletteRefused(f"a bar of shape {picture.shape} has no row of 16 or more colours")
    row = np.median(picture, axis=1)
    if row[0] @ _LUMINANCE > row[-1] @ _LUMINANCE:
        row = row[::-1]
    light = row @ _LUMINANCE
    if light[-1] - light[0] < 60 or (np.diff(light) < -3).any():
        return PaletteRefused("the bar does not run from dark to bright")
    places = np.linspace(0, 255, len(row))
    table = np.stack([np.interp(np.arange(256), places, row[:, k]) for k in range(3)], axis=1)
    return Palette("table", table=np.rint(table).astype(np.uint8))


@dataclass(frozen=True, slots=True, eq=False)
class PowerScale:
    """From pixels of the contrast pane to echo power.

    dynamic_range_db: DR of the contrast picture, None when not known: then power is the grey
    level itself. offset: echo power shown as black.

    Raises:
        ValueError: DR is not within 10 to 150 dB.
    """

    palette: Palette
    dynamic_range_db: float | None
    offset: float = 1.0

    def __post_init__(self) -> None:
        known = self.dynamic_range_db
        if known is not None and not (isfinite(known) and 10 <= known <= 150):
            raise ValueError(f"dynamic range {known} dB is not within 10 to 150; None is unknown")

    @property
    def linear(self) -> bool:
        """Whether powers are proportional to echo power."""
        return self.dynamic_range_db is not None

    @property
    def unit(self) -> str:
        """Of a power: arbitrary units of echo power, or grey levels."""
        return "a.u." if self.linear else "grey level"

    def table(self) -> Powers:
        """Power (256,) of each grey level."""
        levels = np.arange(256)
        if self.dynamic_range_db is None:
            return levels.astype(np.float32)
        return linear_power(levels, self.dynamic_range_db, self.offset).astype(np.float32)


def _eight_bit(pixels: npt.NDArray[np.generic]) -> Levels:
    picture = np.ascontiguousarray(pixels)
    if picture.dtype != np.uint8 or not (
        picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] == 3)
    ):
        raise ValueError(
            f"a contrast picture is (H,W) or (H,W,3) uint8, got {picture.shape} {picture.dtype}"
        )
    return picture.astype(np.uint8, copy=False)


def _pooled(picture: Levels, shown: Mask) -> npt.NDArray[np.float64]:
    """Mean colours of blocks that lie wholly in what is shown, (N,3)."""
    rows, cols = (n // _POOL for n in shown.shape)
    if rows == 0 or cols == 0:
        return np.empty((0, 3))
    cut = slice(0, rows * _POOL), slice(0, cols * _POOL)
    small = np.asarray(
        cv2.resize(picture[cut].astype(np.float32), (cols, rows), interpolation=cv2.INTER_AREA)
    )
    whole = shown[cut].reshape(rows, _POOL, cols, _POOL).all(axis=(1, 3))
    return small[whole].astype(np.float64)


def _proportions(colours: npt.NDArray[np.float64]) -> tuple[float, float, float] | None:
    """(R,G,B) over the strongest channel when all colours share it, else None."""
    strongest = int(colours.sum(axis=0).argmax())
    lead = colours[:, strongest]
    if float(lead.max(initial=0.0)) < _LEAST_BRIGHT / 2:
        return None
    tint = (colours * lead[:, None]).sum(axis=0) / (lead @ lead)
    off = np.abs(colours - lead[:, None] * tint).max(axis=1)
    if float(np.quantile(off, 0.99)) > _TINT_TOLERANCE:
        return None
    r, g, b = tint.tolist()
    return r, g, b


def _stray_share(colours: npt.NDArray[np.float64]) -> float:
    """Share of colours far from the middle one of their luminance."""
    light = np.rint(colours @ _LUMINANCE).astype(np.intp)
    stray = 0
    for value in np.unique(light):
        here = colours[light == value]
        off = np.abs(here - np.median(here, axis=0)).max(axis=1)
        stray += int((off > _CURVE_TOLERANCE).sum())
    return stray / len(colours)


def _nearest(picture: Levels, table: npt.NDArray[np.uint8]) -> Levels:
    """Level of the nearest colour of a table; colours are looked up in steps of 4."""
    axis = np.arange(0, 256, 4) + 1.5
    cube = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    known = table.astype(np.float64)
    nearest = np.empty(len(cube), np.uint8)
    for start in range(0, len(cube), 16384):
        part = cube[start : start + 16384]
        distance = (known**2).sum(axis=1) - 2 * part @ known.T
        nearest[start : start + 16384] = distance.argmin(axis=1)
    r, g, b = (picture[..., k] >> 2 for k in range(3))
    place = r.astype(np.intp) * 4096 + g.astype(np.intp) * 64 + b
    return nearest[place]
