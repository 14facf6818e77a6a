"""How much surface lies inside one neighbourhood of 2x2 pixels or 2x2x2 voxels?

A mask is read as samples at pixel centres; between a centre inside and one outside the surface
passes half way. Each neighbourhood (a square of four, a cube of eight centres) then holds a short
piece of contour or surface, its "surfel", whose size in mm or mm2 depends on the spacing. Summed
over all neighbourhoods the surfels give the length of a contour or the area of a surface without
the stair-case error of counting border pixels.

Source: Nikolov et al. 2021, J Med Internet Res 23:e26151, "surface DSC"; polygons as in marching
cubes (Lorensen and Cline 1987). What the published table of cube sizes follows, and what is
computed here rather than listed:
  - polygons join the mid-points of the cube edges whose two ends differ;
  - on a face with two opposite corners inside, the corners of the rarer kind in the cube are cut
    off one by one;
  - of all triangulations of a bent polygon the one with the largest area in the unit cube counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import product

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Corner = tuple[int, int, int]
Edge = tuple[Corner, Corner]

_CORNERS: tuple[Corner, ...] = tuple((a, b, c) for a, b, c in product((0, 1), repeat=3))


def neighbourhood_codes(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """Code of every neighbourhood: bit k is set where the k-th of its 2**ndim centres is inside.

    mask: (H, W) or (Z, Y, X); outside the array counts as background. Returns an array one longer
    per axis. Centres are numbered with the last axis fastest, as `itertools.product` does.
    """
    padded = np.pad(mask, 1)
    codes = np.zeros([n + 1 for n in mask.shape], dtype=np.uint8)
    for bit, offset in enumerate(product((0, 1), repeat=mask.ndim)):
        window = tuple(slice(o, o + n + 1) for o, n in zip(offset, mask.shape, strict=True))
        codes |= padded[window].astype(np.uint8) << bit
    return codes


def surfel_sizes(spacing: Sequence[float]) -> Floats:
    """Size of the surfel of every code: lengths (16,) for two axes, areas (256,) for three.

    Codes of neighbourhoods wholly inside or outside have size 0.

    >>> surfel_sizes((2.0, 1.0))[0b0011].item()  # upper row inside: a piece along the last axis
    1.0
    """
    if len(spacing) == 2:
        return _contour_lengths(spacing[0], spacing[1])
    codes, normals = _unit_triangles()
    z, y, x = spacing
    areas = np.linalg.norm(normals * np.array([y * x, z * x, z * y]), axis=1)
    return np.bincount(codes, weights=areas, minlength=256).astype(np.float64)


def _contour_lengths(down: float, right: float) -> Floats:
    """Lengths for codes of (0,0) (0,1) (1,0) (1,1): bits 0 to 3."""
    half_diagonal = 0.5 * float(np.hypot(down, right))
    lengths = np.zeros(16)
    for code in range(1, 15):
        inside = code.bit_count()
        if inside != 2:
            lengths[code] = half_diagonal
        elif code in (0b0011, 0b1100):  # a row inside: the contour runs along the last axis
            lengths[code] = right
        elif code in (0b0101, 0b1010):
            lengths[code] = down
        else:  # two opposite centres: both are cut off
            lengths[code] = 2 * half_diagonal
    return lengths


@lru_cache(maxsize=1)
def _unit_triangles() -> tuple[npt.NDArray[np.intp], Floats]:
    """All surface triangles of the 256 unit cubes: their code (N,) and area vector (N, 3)."""
    codes: list[int] = []
    normals: list[Floats] = []
    for code in range(1, 255):
        for loop in _loops(code):
            best = max(_triangulations(loop), key=_total_area)
            for triangle in best:
                codes.append(code)
                normals.append(_area_vector(triangle))
    return np.array(codes, dtype=np.intp), np.array(normals)


def _loops(code: int) -> list[tuple[Edge, ...]]:
    """Closed polygons of a cube, as sequences of cube edges."""
    inside = {corner for bit, corner in enumerate(_CORNERS) if code >> bit & 1}
    rarer_is_inside = len(inside) <= 4
    links: dict[Edge, list[Edge]] = {}
    for face in _faces():
        crossed = [
            (face[i], face[(i + 1) % 4])
            for i in range(4)
            if (face[i] in inside) != (face[(i + 1) % 4] in inside)
        ]
        pairs = [(_edge(*crossed[0]), _edge(*crossed[1]))] if len(crossed) == 2 else []
        if len(crossed) == 4:
            pairs = [
                (_edge(face[i - 1], face[i]), _edge(face[i], face[(i + 1) % 4]))
                for i in range(4)
                if (face[i] in inside) == rarer_is_inside
            ]
        for first, second in pairs:
            links.setdefault(first, []).append(second)
            links.setdefault(second, []).append(first)
    loops: list[tuple[Edge, ...]] = []
    while links:
        start = next(iter(links))
        loop, here = [start], start
        while (onward := [e for e in links.pop(here) if e in links]) != []:
            here = onward[0]
            loop.append(here)
        loops.append(tuple(loop))
    return loops


def _faces() -> Iterator[tuple[Corner, ...]]:
    for axis, side in product(range(3), (0, 1)):
        ring: list[Corner] = []
        for u, v in ((0, 0), (0, 1), (1, 1), (1, 0)):
            a, b, c = np.insert([u, v], axis, side).tolist()
            ring.append((a, b, c))
        yield tuple(ring)


def _edge(first: Corner, second: Corner) -> Edge:
    return (first, second) if first < second else (second, first)


def _triangulations(loop: tuple[Edge, ...]) -> list[list[tuple[Edge, Edge, Edge]]]:
    """Every way to cut a polygon into triangles (Catalan recursion; at most 6 corners here)."""
    if len(loop) < 3:
        return [[]]
    return [
        [*left, (loop[0], loop[k], loop[-1]), *right]
        for k in range(1, len(loop) - 1)
        for left in _triangulations(loop[: k + 1])
        for right in _triangulations(loop[k:])
    ]


def _area_vector(triangle: tuple[Edge, Edge, Edge]) -> Floats:
    """Normal of the triangle between edge mid-points, as long as its area."""
    a, b, c = (np.mean(edge, axis=0) for edge in triangle)
    return np.cross(b - a, c - a) / 2


def _total_area(triangles: list[tuple[Edge, Edge, Edge]]) -> float:
    # Rounded so that equal areas tie whatever the order of summation.
    return round(float(sum(np.linalg.norm(_area_vector(t)) for t in triangles)), 9)
