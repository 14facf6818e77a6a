"""What do a few burned-in characters say: digits, colon, point, minus and T?

Consoles write with a handful of plain faces. Templates of several faces are drawn at the height of
the line; the face that explains all ink best is kept for the whole clip. A line is read by dynamic
programming: characters and gaps follow one another so that the normalised correlation of all
characters, weighted by their width, is largest and little ink is left over.

Shape legend: h rows, w columns of a line of text.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Line = npt.NDArray[np.float32]

ALPHABET = "0123456789:.-T"
FACES = ("simplex", "plain", "duplex", "complex", "sans", "dots")
HEIGHTS = range(6, 65)
"""Heights of digits in px that are tried."""

_CV_FACES = MappingProxyType(
    {
        "simplex": cv2.FONT_HERSHEY_SIMPLEX,
        "plain": cv2.FONT_HERSHEY_PLAIN,
        "duplex": cv2.FONT_HERSHEY_DUPLEX,
        "complex": cv2.FONT_HERSHEY_COMPLEX,
    }
)
# The 5 x 7 dots of character generators, rows as bits.
_DOTS = MappingProxyType(
    {
        "0": (14, 17, 19, 21, 25, 17, 14),
        "1": (4, 12, 4, 4, 4, 4, 14),
        "2": (14, 17, 1, 2, 4, 8, 31),
        "3": (31, 2, 4, 2, 1, 17, 14),
        "4": (2, 6, 10, 18, 31, 2, 2),
        "5": (31, 16, 30, 1, 1, 17, 14),
        "6": (6, 8, 16, 30, 17, 17, 14),
        "7": (31, 1, 2, 4, 8, 8, 8),
        "8": (14, 17, 17, 14, 17, 17, 14),
        "9": (14, 17, 17, 15, 1, 2, 12),
        ":": (0, 4, 0, 0, 0, 4, 0),
        ".": (0, 0, 0, 0, 0, 0, 4),
        "-": (0, 0, 0, 31, 0, 0, 0),
        "T": (31, 4, 4, 4, 4, 4, 4),
    }
)


@dataclass(frozen=True, slots=True)
class Reading:
    """text: without spaces. score: 0..1, how well all ink is explained. weakest: correlation of the
    least certain character. margin: least lead of a digit over the next likely one."""

    text: str
    score: float
    weakest: float
    margin: float


@lru_cache(maxsize=256)
def templates(face: str, height: int) -> MappingProxyType[str, Line]:
    """Each character (height + 2, w) of a face whose digits are `height` px tall, 0..1.

    One dark row above and below, one dark column left and right; neighbours may share a column.

    Raises:
        ValueError: an unknown face, or a height outside HEIGHTS.
    """
    if face not in FACES or height not in HEIGHTS:
        raise ValueError(f"no face '{face}' of {height} px")
    drawn = {char: _draw(face, height, char) for char in ALPHABET}
    zero = np.flatnonzero(drawn["0"].max(axis=1) > 0.25)
    top = int(zero[0]) - 1
    made: dict[str, Line] = {}
    for char, picture in drawn.items():
        columns = np.flatnonzero(picture.max(axis=0) > 0.25)
        inked = picture[top : top + height + 2, columns[0] : columns[-1] + 1]
        cut = np.pad(inked, ((0, height + 2 - len(inked)), (1, 1)))
        cut.flags.writeable = False
        made[char] = cut
    return MappingProxyType(made)


def _draw(face: str, height: int, char: str) -> Line:
    """One character with room above and below."""
    if face == "dots":
        return _dots(char, height)
    if face == "sans":
        return _sans(char, _sans_size(height))
    return _hershey(char, _CV_FACES[face], _hershey_scale(_CV_FACES[face], height), height)


def _hershey(char: str, font: int, scale: float, height: int) -> Line:
    canvas = np.zeros((2 * height + 8, 2 * height + 8), np.uint8)
    at = (4, round(1.6 * height) + 2)
    cv2.putText(canvas, char, at, font, scale, 255, 1, cv2.LINE_AA)
    return np.asarray(canvas.astype(np.float32) / np.float32(255), np.float32)


@lru_cache(maxsize=512)
def _hershey_scale(font: int, height: int) -> float:
    """The scale at which a zero is as tall as asked for."""
    scales = np.arange(0.02, 0.16, 0.002) * height
    tall = [_ink_rows(_hershey("0", font, float(s), 2 * height)) for s in scales]
    best = np.abs(np.array(tall) - height)
    return float(np.median(scales[best == best.min()]))


def _sans(char: str, size: float) -> Line:
    font = ImageFont.load_default(size)
    canvas = Image.new("L", (int(2 * size) + 6, int(2.2 * size) + 6))
    ImageDraw.Draw(canvas).text((4, 4), char, fill=255, font=font)
    return np.asarray(np.asarray(canvas, np.float32) / np.float32(255), np.float32)


@lru_cache(maxsize=128)
def _sans_size(height: int) -> float:
    sizes = np.arange(1.0, 2.0, 0.04) * height
    best = np.abs(np.array([_ink_rows(_sans("0", float(s))) for s in sizes]) - height)
    return float(np.median(sizes[best == best.min()]))


def _dots(char: str, height: int) -> Line:
    rows = np.array([[row >> bit & 1 for bit in (4, 3, 2, 1, 0)] for row in _DOTS[char]])
    size = (max(3, round(5 * height / 7)), height)
    grid = rows.astype(np.float32)
    picture = np.asarray(cv2.resize(grid, size, interpolation=cv2.INTER_LINEAR_EXACT), np.float32)
    return np.pad(picture, 2)


def _ink_rows(picture: Line) -> int:
    rows = np.flatnonzero(picture.max(axis=1) > 0.25)
    return 0 if rows.size == 0 else int(rows[-1] - rows[0]) + 1


_WORTH = 0.55  # correlation from which a character is better than nothing
_INK = 0.3


def read_line(line: Line, face: str, height: int) -> Reading:
    """The characters of a line (h,w) of grey levels 0..1 on dark, with 3 or more rows around."""
    cols = line.shape[1]
    room = np.pad(line, ((0, 0), (2, 2)))
    inked = line.max(axis=0) > _INK
    unread = np.concatenate([[0.0], np.cumsum(np.where(inked, 0.7, 0.0))])
    cost = np.concatenate([[0.0, 0.0], unread, [unread[-1], unread[-1]]])
    shapes = [(c, t) for c, t in templates(face, height).items() if t.shape[0] <= room.shape[0]]
    matches = [(char, shape.shape[1], *_matches(room, shape)) for char, shape in shapes]
    # worth[x]: of the best reading of the columns before x.
    total = cols + 4
    worth = np.zeros(total + 1)
    back: list[tuple[int, str, float]] = [(0, "", 0.0)] * (total + 1)
    for x in range(1, total + 1):
        worth[x] = worth[x - 1] - (cost[x] - cost[x - 1])
        back[x] = (x - 1, "", 0.0)
        for char, width, free, tight in matches:
            # Neighbours share one dark column, or touch.
            for shared, values in ((1, free), (2, tight)):
                start = x - width + shared
                if 0 <= start < len(values):
                    value = values[start]
                    gained = worth[start] + (value - _WORTH) * (width - shared)
                    if gained > worth[x]:
                        worth[x], back[x] = gained, (start, char, value)
    rivals = {char: free for char, _, free, _ in matches if char.isdigit()}
    return _traced(back, inked, rivals)


def _matches(room: Line, shape: Line) -> tuple[list[float], list[float]]:
    """Correlation of a character at each start column, with and without its dark columns; the
    latter, which see less, count a little less."""
    if shape.shape[1] > room.shape[1]:
        return [], []
    free = _correlation(room, shape)
    tight = np.float32(0.95) * _correlation(room, shape[:, 1:-1])[1 : free.size + 1]
    return np.maximum(free, tight).tolist(), tight.tolist()


def _correlation(room: Line, shape: Line) -> Line:
    """The best over the rows; 0 where the ink is less than a third as strong as the template's."""
    cut = np.ascontiguousarray(shape)
    strength = cv2.matchTemplate(room, cut, cv2.TM_CCOEFF) / max(1e-6, cut.size * float(cut.var()))
    found = cv2.matchTemplate(room, cut, cv2.TM_CCOEFF_NORMED)
    return np.where((strength > 0.35) & np.isfinite(found), found, 0.0).max(axis=0)


def _traced(
    back: list[tuple[int, str, float]], inked: npt.NDArray[np.bool_], rivals: dict[str, list[float]]
) -> Reading:
    """Follow the best path back."""
    chars: list[tuple[int, int, str, float]] = []
    x = len(back) - 1
    while x > 0:
        start, char, value = back[x]
        if char:
            chars.append((start, x, char, value))
        x = start
    covered, total, width = np.zeros_like(inked), 0.0, 0
    margin = 1.0
    for start, end, char, value in chars:
        covered[max(0, start - 2) : max(0, end - 2)] = True
        total += value * (end - start)
        width += end - start
        if char in rivals:
            near = slice(max(0, start - 2), start + 3)
            others = (max(v[near], default=0.0) for c, v in rivals.items() if c != char)
            margin = min(margin, value - max(others))
    left = int(np.count_nonzero(inked & ~covered))
    text = "".join(char for _, _, char, _ in reversed(chars))
    weakest = min((value for _, _, _, value in chars), default=0.0)
    return Reading(text, total / max(1, width + 2 * left), weakest, margin)
