"""What is around the organs of a simulated trunk: skin, fat, muscle wall, back muscles and table?

The section of the trunk is drawn once, finer than the pixels, and scaled slice by slice about the
spine, so the wall costs one resampling per slice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from renalkit.phantom.ct.anatomy import Body
from renalkit.phantom.ct.shapes import Field, Grid

Plane = npt.NDArray[np.floating[Any]]
_FINE_MM, _MOST_FINE = 0.5, 4
_LATTICE_MM = 420.0


@dataclass(frozen=True, slots=True, eq=False)
class Torso:
    """The section at z = 0, all (Y, X).

    shares: of each tissue in a pixel, summing to 1. cavity: coverage by the space of the organs.
    table: coverage by the patient table, fixed to the scanner. strands: two smooth fields whose
    mixture changes with height; the zero lines are vessels and folds in the fat.
    """

    shares: dict[str, Plane]
    uneven_hu: Plane
    cavity: Plane
    table: Plane
    strands: tuple[Plane, Plane]


def torso(body: Body, grid: Grid) -> Torso:
    """Draw the section on the columns and rows of a grid."""
    flat = Grid(grid.x, grid.y, np.zeros((1, 1, 1), np.float32), grid.step_mm)
    parts = min(_MOST_FINE, math.ceil(grid.step_mm[0] / _FINE_MM))
    fine = flat.finer((parts, parts, 1))
    x, y = np.broadcast_arrays(fine.x.astype(np.float32), fine.y.astype(np.float32))
    rng = np.random.default_rng([body.seed, 1])
    depth, skin_depth = _depths(body, x, y)
    wall = _wall_thickness(body, x, y)
    spine = np.float32(body.spine_y_mm)
    edge = np.float32(grid.step_mm[0] / parts)

    def step(level_mm: Plane) -> Plane:
        return np.clip(level_mm / edge + np.float32(0.5), 0.0, 1.0).astype(np.float32)

    patient = step(skin_depth)
    beneath = step(skin_depth - np.float32(1.8))
    frame = step(depth)
    # Behind the spine lie the back muscles, not organs.
    behind = y - spine - np.float32(33.0) - np.float32(0.0016) * (np.abs(x) - 60.0) ** 2
    back = np.float32(1.0) - np.hypot(
        (np.abs(x) - np.float32(34.0)) / np.float32(30.0),
        (y - spine - np.float32(37.0)) / np.float32(19.0),
    )
    inside = step(np.minimum(depth - wall, -behind)) * (np.float32(1.0) - step(20.0 * back))

    muscle = step(np.minimum(depth, wall - depth))
    faint = lattice((12.0, 12.0), x, y, rng)
    lateral = (np.abs(x) > 66.0) & (y < spine + 20.0)
    for share in (0.37, 0.69):  # fat between the three oblique layers
        line = step(np.float32(0.45) - np.abs(depth - share * wall)) * lateral
        muscle *= np.float32(1.0) - np.clip(0.35 + 0.35 * faint, 0.0, 0.8) * line
    # Erector spinae: two columns a side, divided by fat; the lattice gives marbling.
    split = step(np.float32(0.7) - np.abs(np.abs(x) - 20.0 - 0.25 * (y - spine - 37.0)))
    muscle = np.maximum(muscle, step(20.0 * back) * frame * (1.0 - 0.5 * split))
    # Marbling by fat: patches rather than lines, most in the deep layer of the back.
    streaks = lattice((3.5, 4.5), x, y, rng) + np.float32(0.6) * lattice((8.0, 8.0), x, y, rng)
    marbling = np.clip(0.5 * (streaks - np.float32(1.2)), 0.0, 0.45) * step(behind + 14.0)
    muscle *= np.float32(1.0) - marbling

    fat = beneath - muscle
    shares = {
        "air": _coarse(1.0 - patient, parts),
        "skin": _coarse(patient - beneath, parts),
        "muscle": _coarse(muscle, parts),
        "fat": _coarse(fat, parts),
    }
    fascia = step(np.float32(0.4) - np.abs(skin_depth - 0.55 * (skin_depth - depth))) * (depth < 0)
    uneven = 3.5 * lattice((9.0, 9.0), x, y, rng) + 22.0 * fascia
    first, second = lattice((11.0, 11.0), x, y, rng), lattice((11.0, 11.0), x, y, rng)
    return Torso(
        shares=shares,
        uneven_hu=_coarse(uneven * beneath, parts),
        cavity=_coarse(inside, parts),
        table=_coarse(_table(body, x, y), parts),
        strands=(_coarse(first, parts), _coarse(second, parts)),
    )


def warped(plane: Plane, grid: Grid, body: Body, outside: float) -> Field:
    """A section at every height of the grid, scaled about the spine: (Z, Y, X)."""
    out = np.empty(grid.shape, np.float32)
    x0, y0 = float(grid.x[0]), float(grid.y[0, 0])
    dx, dy, _ = grid.step_mm
    for index, z in enumerate(grid.z[:, 0, 0]):
        shrink = 1.0 / float(body.scale(float(z)))
        shift_x = (x0 * shrink - x0) / dx
        shift_y = (body.spine_y_mm + (y0 - body.spine_y_mm) * shrink - y0) / dy
        matrix = np.array([[shrink, 0.0, shift_x], [0.0, shrink, shift_y]])
        cv2.warpAffine(
            plane,
            matrix,
            (plane.shape[1], plane.shape[0]),
            dst=out[index],
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=(outside,),
        )
    return out


def lattice(
    grain_mm: tuple[float, float], x_mm: Plane, y_mm: Plane, rng: np.random.Generator
) -> Plane:
    """Smooth random values of about mean 0 and deviation 1 from a lattice with steps x, y in mm."""
    step_x, step_y = grain_mm
    nodes = (round(2 * _LATTICE_MM / step_y), round(2 * _LATTICE_MM / step_x))
    coarse = rng.standard_normal(nodes, dtype=np.float32)
    return np.asarray(
        cv2.remap(
            coarse,
            (x_mm + np.float32(_LATTICE_MM)) / np.float32(step_x),
            (y_mm + np.float32(_LATTICE_MM)) / np.float32(step_y),
            cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_REFLECT,
        )
    ) / np.float32(0.75)


def _depths(body: Body, x: Plane, y: Plane) -> tuple[Plane, Plane]:
    """Depth below the muscle wall's outer surface and below the skin, mm along the ray."""
    depth, _ = body.frame_depth_mm(x, y)
    front, side, back = body.fat_mm
    sine = y / (np.hypot(x, y) + 1e-3)
    fat = (
        side + (front - side) * np.clip(-sine, 0, 1) ** 2 + (back - side) * np.clip(sine, 0, 1) ** 2
    )
    # The furrow over the spine and the navel's hollow.
    fat = fat - np.minimum(0.5 * back, 7.0) * np.exp(-((x / 13.0) ** 2)) * (y > 0)
    return depth.astype(np.float32), (depth + fat).astype(np.float32)


def _wall_thickness(body: Body, x: Plane, y: Plane) -> Plane:
    """Thickness of the muscle wall: thin in the midline and beside the straight muscles."""
    front = np.clip(-y / 40.0, 0.0, 1.0)
    linea_alba = 0.3 * np.exp(-((x / 4.0) ** 2))
    semilunar = 0.25 * np.exp(-(((np.abs(x) - 66.0) / 5.0) ** 2))
    rectus = 0.3 * np.clip((74.0 - np.abs(x)) / 16.0, 0.0, 1.0)
    thin = front * np.clip(linea_alba + semilunar + rectus, 0, 0.8)
    # Behind, only a sheet covers the back muscles.
    thin += (
        np.clip((y - body.spine_y_mm) / 25.0, 0.0, 1.0)
        * 0.72
        * np.clip((112.0 - np.abs(x)) / 40.0, 0.0, 1.0)
    )
    uneven = 1.0 + 0.12 * np.sin(0.06 * x + 2.0) * np.cos(0.08 * y)
    return (body.wall_mm * uneven * (1.0 - np.clip(thin, 0.0, 0.8))).astype(np.float32)


def _table(body: Body, x: Plane, y: Plane) -> Plane:
    """The curved table top: two thin sheets around foam, as coverage of a dense material."""
    lowest = body.frame_mm[1] + body.fat_mm[2] + 9.0
    surface = lowest - 0.0009 * x**2
    total = np.zeros_like(x)
    for offset, weight in ((0.0, 1.0), (18.0, 0.55)):
        total += weight * np.clip(1.4 - np.abs(y - surface - offset), 0.0, 1.0)
    return (np.clip(total, 0.0, 1.0) * (np.abs(x) < 215.0)).astype(np.float32)


def _coarse(plane: Plane, parts: int) -> Plane:
    rows, cols = plane.shape
    blocks = plane.reshape(rows // parts, parts, cols // parts, parts)
    return np.ascontiguousarray(blocks.mean(axis=(1, 3), dtype=np.float32))


def lung_level(body: Body, grid: Grid) -> Field:
    """Height in mm above the diaphragm (Z, Y, X), positive in the lungs."""
    x, y = np.broadcast_arrays(grid.x, grid.y)
    depth, surface = body.frame_depth_mm(x, y)
    outwards = 1.0 - depth / surface
    rear = np.clip(y / 60.0, 0.0, 1.0)
    dome = 168.0 - (68.0 + 22.0 * rear) * np.clip(outwards / 0.86, 0.0, 1.3) ** 4
    # Heart and great vessels keep the middle free.
    dome += 60.0 * np.exp(-((x / 35.0) ** 2)) * (y < body.spine_y_mm)
    return (grid.z - dome.astype(np.float32)).astype(np.float32)


def strand_cover(section: Torso, z_mm: float) -> Plane:
    """Coverage (Y, X) of the mesenteric fat by vessels and folds at one height."""
    first, second = section.strands
    angle = z_mm / 14.0
    mixed = np.float32(np.cos(angle)) * first + np.float32(np.sin(angle)) * second
    other = np.float32(np.sin(angle)) * first - np.float32(np.cos(angle)) * second
    lines = np.clip(np.float32(1.0) - np.abs(mixed) * np.float32(6.0), 0.0, 1.0)
    return lines * np.clip(other, 0.0, 1.0)
