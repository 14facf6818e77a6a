"""How well does a predicted outline fit? An image with both outlines, as one drawing."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import cv2
import numpy as np
import numpy.typing as npt

from renalkit.domain.geometry import MaskRLE
from renalkit.writers.document import Svg
from renalkit.writers.wording import shown

REFERENCE = "#56B4E9"
PREDICTION = "#E69F00"
_SIDE_PX = 300
_LABEL = 34.0
_GAP = 14.0

Grey = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Tile:
    """One picture with its outlines and the words under it; attention has its own small size.

    image: (H,W) 8-bit. reference, prediction: masks of the same size, or None. attention: (s,s)
    8-bit or None.
    """

    image: Grey
    reference: MaskRLE | None
    prediction: MaskRLE | None
    title: str
    words: str
    attention: Grey | None = None


def grey_image(pixels: npt.NDArray[np.generic]) -> Grey:
    """Any frame (H,W) or (H,W,3) as 8-bit grey; deeper ones are stretched to their range.

    >>> grey_image(np.array([[0, 512], [256, 1024]], dtype=np.uint16)).tolist()
    [[0, 128], [64, 255]]
    """
    array = np.asarray(pixels)
    if array.ndim == 3:
        array = cv2.cvtColor(_eight_bit(array), cv2.COLOR_RGB2GRAY)
    return _eight_bit(array)


def _eight_bit(array: npt.NDArray[np.generic]) -> Grey:
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array, dtype=np.uint8)
    values = array.astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if high <= low:
        return np.zeros(array.shape, dtype=np.uint8)
    return np.round((values - low) * (255 / (high - low))).astype(np.uint8)


def png_uri(image: npt.NDArray[np.uint8]) -> str:
    """An image (H,W) or (H,W,3 as BGR) as a data URI; equal pixels give equal bytes."""
    done, data = cv2.imencode(
        ".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 9, cv2.IMWRITE_PNG_STRATEGY, 0]
    )
    assert done, "PNG encoding of an 8-bit picture cannot fail"
    return "data:image/png;base64," + base64.b64encode(data.tobytes()).decode()


def contour_path(mask: MaskRLE, scale: float) -> str:
    """The outline of a mask as an SVG path, in pixels times `scale`, holes included.

    Pixels are doubled first, so the outline runs a quarter of a pixel inside the outermost ones
    and that of a single pixel still encloses an area.
    """
    array = mask.decode().astype(np.uint8)
    big = cv2.resize(array, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    found, _ = cv2.findContours(big, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    parts: list[str] = []
    for contour in found:
        points = (contour.reshape(-1, 2) + 0.5) * (scale / 2)
        body = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        parts.append(f"M{body}Z")
    return "".join(parts)


def _resized(image: Grey) -> tuple[Grey, float]:
    """The picture at the size it is shown (never enlarged beyond it) and that scale."""
    longest = max(image.shape)
    scale = _SIDE_PX / longest
    if scale < 1:
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    return image, scale


def gallery(tiles: Sequence[Tile], description: str) -> Svg:
    """Tiles side by side, attention maps in a second row where there are any."""
    maps = any(t.attention is not None for t in tiles)
    x, parts, heights = 0.0, list[str](), list[float]()
    for tile in tiles:
        small, scale = _resized(tile.image)
        width, height = tile.image.shape[1] * scale, tile.image.shape[0] * scale
        heights.append(height)
        parts.append(
            f'<g transform="translate({x + (_SIDE_PX - width) / 2:.1f} {_LABEL - 12:.1f})">'
            f'<image href="{png_uri(small)}" width="{width:.1f}" height="{height:.1f}" '
            'preserveAspectRatio="none"/>'
            + _outline(tile.reference, scale, REFERENCE, "")
            + _outline(tile.prediction, scale, PREDICTION, ' stroke-dasharray="6 3"')
            + "</g>"
        )
        parts.append(
            f'<text x="{x + _SIDE_PX / 2:.1f}" y="14" text-anchor="middle" font-weight="600">'
            f"{escape(shown(tile.title))}</text>"
        )
        x += _SIDE_PX + _GAP
    tallest = max(heights)
    base = _LABEL - 12 + tallest
    for index, tile in enumerate(tiles):
        centre = index * (_SIDE_PX + _GAP) + _SIDE_PX / 2
        for line, words in enumerate(shown(tile.words).split("\n")):
            parts.append(
                f'<text x="{centre:.1f}" y="{base + 18 + 16 * line:.1f}" text-anchor="middle" '
                f'fill="#444">{escape(words)}</text>'
            )
    total = base + 18 + 16 * max(t.words.count("\n") for t in tiles) + 12
    if maps:
        total = _attention_row(tiles, total, parts)
    span = len(tiles) * (_SIDE_PX + _GAP) - _GAP
    return Svg(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {span:.1f} {total:.1f}" '
        f'width="{span:.0f}" height="{total:.0f}" '
        'font-family="DejaVu Sans, Helvetica, Arial, sans-serif" font-size="13" fill="#222" '
        f'role="img" aria-label="{escape(shown(description), quote=True)}">{"".join(parts)}</svg>'
    )


def _outline(mask: MaskRLE | None, scale: float, tone: str, extra: str) -> str:
    if mask is None or not mask.area_px:
        return ""
    path = contour_path(mask, scale)
    halo = f'<path d="{path}" fill="none" stroke="#000" stroke-opacity="0.45" stroke-width="3.2"/>'
    return halo + f'<path d="{path}" fill="none" stroke="{tone}" stroke-width="1.8"{extra}/>'


def _attention_row(tiles: Sequence[Tile], top: float, parts: list[str]) -> float:
    side = _SIDE_PX * 0.6
    for index, tile in enumerate(tiles):
        if tile.attention is None:
            continue
        tinted = cv2.applyColorMap(tile.attention, cv2.COLORMAP_CIVIDIS).astype(np.uint8)
        x = index * (_SIDE_PX + _GAP) + (_SIDE_PX - side) / 2
        parts.append(
            f'<image x="{x:.1f}" y="{top:.1f}" width="{side:.1f}" height="{side:.1f}" '
            f'href="{png_uri(tinted)}"/>'
            f'<text x="{x + side / 2:.1f}" y="{top + side + 16:.1f}" text-anchor="middle" '
            'fill="#444">spatial attention</text>'
        )
    return top + side + 26
