"""How does the explanation of one frame look? Panes side by side, maps above, pixels below.

All maps of a frame share one scale, so that a pane without colour says that this modality speaks
little for the class. Equal results give equal bytes, and a picture holds nothing but its pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from renalkit.writers.wording import number, shown

Picture = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

NAMES = {"B": "B-mode", "CEUS": "contrast"}
"""What the modalities are called for a reader."""

LETTERS = "αβγδ"
_SIDE = 300
_GAP = 8
_HEAD = 46
_UNDER = 22
_FOOT = 20
_INK, _QUIET = (238, 238, 238), (170, 170, 170)
_STRONGEST = 0.7
"""Opacity of the map where it is highest; it is clear where the map is 0."""


@dataclass(frozen=True, slots=True, eq=False)
class Pane:
    """One modality of a frame on the network's input.

    pixels: (1,S,S) grey or (3,S,S) red, green, blue, uint8. heat: (S,S) 0..1. weight: its share in
    the fusion; inside: share of the map inside the lesion; None where there is none.
    """

    modality: str
    pixels: Picture
    heat: npt.NDArray[np.floating]
    weight: float | None
    inside: float | None


def frame_png(panes: Sequence[Pane], region: Mask | None, said: Mapping[str, Any]) -> bytes:
    """The picture of a frame as PNG.

    region: (S,S) the lesion, drawn as a line. said: class (None where unknown), target, scores by
    class, modalities (those that the scores come from).
    """
    width = max(2, len(panes)) * (_SIDE + _GAP) + _GAP
    height = _HEAD + 2 * _SIDE + _UNDER + 2 * _GAP + _FOOT
    canvas = Image.new("RGB", (width, height), (24, 24, 24))
    draw = ImageDraw.Draw(canvas)
    scores = ", ".join(f"{name} {number(value, 2)}" for name, value in said["scores"].items())
    truth = "unknown" if said["class"] is None else said["class"]
    draw.text((_GAP, 5), shown(f"truth: {truth}   map of: {said['target']}"), _INK, _font(14))
    draw.text((_GAP, 25), shown(f"frame score: {scores}"), _INK, _font(12))
    for place, pane in enumerate(panes):
        left = _GAP + place * (_SIDE + _GAP)
        picture = _enlarged(pane.pixels)
        mapped = _outlined(_overlaid(picture, pane.heat), region)
        canvas.paste(Image.fromarray(mapped), (left, _HEAD))
        draw.text((left, _HEAD + _SIDE + 3), _under(pane, place, len(panes)), _INK, _font(12))
        canvas.paste(
            Image.fromarray(_outlined(picture, region)), (left, _HEAD + _SIDE + _UNDER + _GAP)
        )
    words = "Research use only. Pixels as confidential as their source."
    draw.text((_GAP, height - _FOOT + 2), words, _QUIET, _font(10))
    bgr = cv2.cvtColor(np.asarray(canvas), cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, 3])
    assert done, "PNG encoding of an 8-bit picture cannot fail"
    return data.tobytes()


def _under(pane: Pane, place: int, n_panes: int) -> str:
    words = [NAMES.get(pane.modality, pane.modality)]
    if pane.weight is not None:
        words.append(f"{LETTERS[place]} = {number(pane.weight, 2)}")
    elif n_panes == 1:
        words.append("alone")
    if pane.inside is not None:
        words.append(f"in lesion {number(pane.inside, 2)}")
    return shown("   ".join(words))


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """The face that comes with the drawing library, so that pictures are equal everywhere."""
    path = Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(path), size)


def _enlarged(pixels: Picture) -> Picture:
    """(1,S,S) or (3,S,S) -> (side,side,3) red, green, blue."""
    colour = np.repeat(pixels, 3, axis=0) if len(pixels) == 1 else pixels
    picture = np.ascontiguousarray(colour.transpose(1, 2, 0))
    return np.asarray(cv2.resize(picture, (_SIDE, _SIDE), interpolation=cv2.INTER_CUBIC), np.uint8)


def _overlaid(picture: Picture, heat: npt.NDArray[np.floating]) -> Picture:
    large = cv2.resize(heat.astype(np.float32), (_SIDE, _SIDE), interpolation=cv2.INTER_LINEAR)
    large = np.clip(np.asarray(large, np.float32), 0.0, 1.0)
    tint = tinted(large).astype(np.float32)
    opacity = (_STRONGEST * np.sqrt(large))[..., None]
    return np.round(picture * (1 - opacity) + tint * opacity).astype(np.uint8)


def tinted(values: npt.NDArray[np.floating]) -> Picture:
    """(h,w) 0..1 -> (h,w,3) red, green, blue, dark violet to yellow."""
    levels = np.round(np.clip(values, 0.0, 1.0) * 255).astype(np.uint8)
    coloured = cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS)
    return np.asarray(cv2.cvtColor(coloured, cv2.COLOR_BGR2RGB), np.uint8)


def _outlined(picture: Picture, region: Mask | None) -> Picture:
    if region is None:
        return picture
    large = cv2.resize(region.astype(np.float32), (_SIDE, _SIDE), interpolation=cv2.INTER_LINEAR)
    marked = (np.asarray(large) >= 0.5).astype(np.uint8)
    lines, _ = cv2.findContours(marked, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    drawn = picture.copy()
    cv2.drawContours(drawn, lines, -1, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.drawContours(drawn, lines, -1, (255, 255, 255), 1, cv2.LINE_AA)
    return drawn
