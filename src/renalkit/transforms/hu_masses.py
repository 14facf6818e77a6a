"""Where would thresholds and connected parts alone see kidneys and masses on a CT scan?

Nothing is learnt, so this is the plain peer that networks must beat. On an even grid of 2.5 x 2 x 2
mm, lightly smoothed:

1. Kidneys: on each side of the body's midline, in its posterior half and 25 to 110 mm from the
   midline, the first bright part of at least 30 ml as a threshold falls from 220 HU; then what
   hangs together with it above its median less 25 HU, its gaps closed over 6 mm, and its blurred
   rim.
2. Masses, within 50 mm of a kidney and no further than 6 mm from it. Cysts: parts of -15 to 30 HU.
   Solid ones: parts between 72 HU, which is above muscle, and the kidney's threshold, with kidney
   or cyst in at least 12 % of what surrounds them; around organs beside the kidney it is less.
   Fat: parts below -20 HU enclosed by the kidney; the sinus is open at the hilum. A part is what
   survives an opening of 3 mm (6 or 10 mm where it hangs together with more), of at least 0.3 ml,
   and at least 0.3 round: its volume as a share of the ball that reaches as far from its centre.

A volume of one slice is searched in its plane: a part is as large as the ball of its area, and its
roundness is its area as a share of the disc that reaches as far.

Needs contrast: without it kidneys are as bright as muscle, and nothing is found.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import pi
from typing import cast

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from renalkit.domain.image import PixelStack
from renalkit.domain.volume import AIR_HU, CYST, KIDNEY, TUMOUR, VolumeGrid
from renalkit.transforms.volumes import nearest, resampled, working_grid

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Box = tuple[slice, slice, slice]

GRID_MM = (2.5, 2.0, 2.0)
AML_BELOW_HU, CYSTIC_BELOW_HU = -20.0, 20.0
"""Class of a mass by its mean."""

_BODY_HU, _BONE_HU = -300.0, 350.0
_HIGHEST_HU, _LOWEST_HU, _STEP_HU = 220, 100, 10
_LATERAL_MM = (25.0, 110.0)
_KIDNEY_ML = (30.0, 600.0)
_SECTION_ML = 6.0
"""Least ball of equal area of a kidney cut once, near its pole too."""

_BELOW_MEDIAN_HU = 25.0
_OPENED_MM, _CLOSED_MM, _RIM_MM = 3.0, 6.0, 3.0
_OPENINGS_MM = (_OPENED_MM, 6.0, 10.0)
_SOFT_HU = 30.0
"""Halfway between fat and kidney: where a blurred rim ends."""
_WATER_HU, _WATER_RIM_HU = (-15.0, 30.0), (-45.0, 85.0)
_SOLID_FROM_HU = 72.0
_MASS_ML = (0.3, 700.0)
_ROUND, _CONTACT, _GAP_MM, _AROUND_MM = 0.3, 0.12, 6.0, 50.0


@dataclass(frozen=True, slots=True)
class HuMass:
    """One mass. number: in the map. mean_hu: of its voxels. roundness: 0 to 1."""

    number: int
    mean_hu: float
    roundness: float

    @property
    def kind(self) -> str:
        """AML, cystic or solid."""
        if self.mean_hu < AML_BELOW_HU:
            return "AML"
        return "cystic" if self.mean_hu < CYSTIC_BELOW_HU else "solid"


def hu_masses(pixels: PixelStack, grid: VolumeGrid) -> tuple[Bytes, Bytes, tuple[HuMass, ...]]:
    """Labels (Z,Y,X) 0 neither, 1 kidney, 2 tumour, 3 cyst, the number of each mass, and the masses
    by number. pixels: (Z,Y,X) HU of a contrast phase on `grid`."""
    # One slice has no neighbours to be evened with: it keeps its own place.
    thick = grid.spacing_mm[0] if grid.shape[0] == 1 else GRID_MM[0]
    work = working_grid(grid, (thick, *GRID_MM[1:]))
    hu = np.stack(list(resampled(pixels, grid, work, fill=AIR_HU)))
    smooth = np.asarray(ndimage.gaussian_filter(hu, 0.8), np.float32)
    labels, numbers = np.zeros(hu.shape, np.uint8), np.zeros(hu.shape, np.uint8)
    kidneys = [found for side in (-1, 1) if (found := _kidney(smooth, side)) is not None]
    drawn = [(box, *_parenchyma(smooth[box], solid)) for box, solid in kidneys]
    for box, _, parenchyma, _ in drawn:
        labels[box][parenchyma] = KIDNEY
    masses: list[HuMass] = []
    for box, closed, parenchyma, threshold in drawn:
        for mask in _masses(smooth[box], closed, parenchyma, threshold):
            own = mask & (numbers[box] == 0)
            if len(masses) == 255 or not own.any():
                continue
            one = HuMass(len(masses) + 1, float(hu[box][own].mean()), _roundness(mask))
            labels[box][own] = CYST if one.kind == "cystic" else TUMOUR
            numbers[box][own] = one.number
            masses.append(one)
    back = [np.stack(list(nearest(a, work, grid))) for a in (labels, numbers)]
    there = set(np.unique(back[1]).tolist())
    return back[0], back[1], tuple(one for one in masses if one.number in there)


# ---------------------------------------------------------------- kidneys


def _kidney(hu: Floats, side: int) -> tuple[Box, Bools] | None:
    """The bright part of one side, in a box with room for masses around it; (z, y, x) of `hu`.

    side: -1 before the midline (falling columns), 1 after it.
    """
    body = hu > _BODY_HU
    middle, half = (_middle(np.asarray(body.any(axis=(0, k)), np.bool_)) for k in (1, 2))
    columns = slice(0, int(middle)) if side < 0 else slice(int(middle) + 1, hu.shape[2])
    box = (slice(0, hu.shape[0]), slice(max(0, int(half - 12)), hu.shape[1]), columns)
    part = hu[box]
    least = _SECTION_ML if len(hu) == 1 else _KIDNEY_ML[0]
    for threshold in range(_HIGHEST_HU, _LOWEST_HU - 1, -_STEP_HU):
        bright = (part >= threshold) & (part < _BONE_HU)
        if _ml(bright) < least:
            continue
        for mask in _parts(_without_threads(bright)):
            if _ml(mask) < least:
                break
            if _ml(mask) > _KIDNEY_ML[1]:
                continue
            _, y, x = np.argwhere(mask).mean(axis=0).tolist()
            lateral = abs(x + columns.start - middle) * GRID_MM[2]
            if _LATERAL_MM[0] <= lateral <= _LATERAL_MM[1] and y + box[1].start > half:
                return _placed(box, _grown(part, mask), hu.shape)
    return None


def _without_threads(mask: Bools) -> Bools:
    """What survives an opening of two voxels, within the plane where there is one slice only."""
    cross = np.asarray(ndimage.generate_binary_structure(3, 1), np.bool_)
    if mask.shape[0] == 1:
        cross = cross[1:2]
    return np.asarray(ndimage.binary_opening(mask, cross, iterations=2), np.bool_)


def _grown(hu: Floats, seed: Bools) -> Bools:
    """All that hangs together with the seed and is nearly as bright."""
    bright = (hu >= np.median(hu[seed]) - _BELOW_MEDIAN_HU) & (hu < _BONE_HU)
    whole = next(p for p in _parts(_opened(bright, _OPENED_MM) | seed) if (p & seed).any())
    return whole if _ml(whole) <= _KIDNEY_ML[1] else seed  # it ran into an organ beside it


def _placed(box: Box, mask: Bools, shape: tuple[int, ...]) -> tuple[Box, Bools]:
    """The mask in a box around itself with room for masses."""
    out = np.zeros(shape, np.bool_)
    out[box] = mask
    z, y, x = (
        slice(max(0, b.start - room), min(n, b.stop + room))
        for b, n, room in zip(
            ndimage.find_objects(out.view(np.uint8))[0],
            shape,
            (round(_AROUND_MM / mm) for mm in GRID_MM),
            strict=True,
        )
    )
    return (z, y, x), out[z, y, x]


def _parenchyma(hu: Floats, solid: Bools) -> tuple[Bools, Bools, float]:
    """The kidney without its gaps; what of it, and of its blurred rim, is soft tissue; and the HU
    below which something in it is a mass."""
    threshold = float(np.median(hu[solid])) - _BELOW_MEDIAN_HU
    closed = np.asarray(ndimage.binary_fill_holes(_closed(solid, _CLOSED_MM)), np.bool_)
    return closed, _dilated(solid, _RIM_MM) & (hu > _SOFT_HU), threshold


# ---------------------------------------------------------------- masses


def _masses(hu: Floats, closed: Bools, parenchyma: Bools, threshold: float) -> Iterator[Bools]:
    """Cysts first: a solid mass may lie against one."""
    taken = np.zeros(hu.shape, np.bool_)
    near, kidney = _dilated(closed, _GAP_MM), closed | parenchyma
    for (low, high), rim, contact in (
        (_WATER_HU, _WATER_RIM_HU, 0.0),
        ((_SOLID_FROM_HU, threshold), (_SOFT_HU, threshold), _CONTACT),
    ):
        for opened_mm in _OPENINGS_MM:
            own = (hu >= low) & (hu < high) & ~taken
            for core in _candidates(own, opened_mm):
                shell = _dilated(core, _GAP_MM) & ~_dilated(core, 1.0)
                if not (core & near).any() or float((kidney | taken)[shell].mean()) < contact:
                    continue
                mask = _dilated(core, _RIM_MM) & (hu >= rim[0]) & (hu < rim[1]) & ~taken
                taken |= mask
                yield mask
    outside = _dilated(~closed, min(GRID_MM))
    for core in _candidates(closed & (hu < AML_BELOW_HU), _OPENED_MM):
        if not (core & outside).any():
            yield _dilated(core, _RIM_MM) & closed & (hu < _SOFT_HU)


def _candidates(mask: Bools, opened_mm: float) -> Iterator[Bools]:
    for part in _parts(_opened(mask, opened_mm)):
        if _ml(part) < _MASS_ML[0]:
            return
        if _ml(part) <= _MASS_ML[1] and _roundness(part) >= _ROUND:
            yield part


# ---------------------------------------------------------------- shapes on the working grid


def _parts(mask: Bools) -> Iterator[Bools]:
    """Connected parts (6 neighbours), the largest first."""
    # The stub does not know that the result is a pair when no output is given.
    labels, count = cast("tuple[npt.NDArray[np.int32], int]", ndimage.label(mask))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    for k in sorted(range(1, count + 1), key=lambda k: -sizes[k]):
        yield labels == k


def _voxel_mm3() -> float:
    return float(np.prod(GRID_MM))


def _ml(mask: Bools) -> float:
    """Volume; in one slice that of the ball of equal area."""
    if mask.shape[0] == 1:
        return 4 / 3 * pi * (_mm2(mask) / pi) ** 1.5 / 1000
    return float(mask.sum()) * _voxel_mm3() / 1000


def _mm2(mask: Bools) -> float:
    return float(mask.sum()) * GRID_MM[1] * GRID_MM[2]


def _distance(mask: Bools) -> npt.NDArray[np.float64]:
    """In mm, of each voxel of the mask to the nearest outside it."""
    return np.asarray(ndimage.distance_transform_edt(mask, sampling=GRID_MM), np.float64)


def _dilated(mask: Bools, mm: float) -> Bools:
    return _distance(~mask) <= mm


def _opened(mask: Bools, mm: float) -> Bools:
    core = _distance(mask) > mm
    return mask & _dilated(core, mm) if core.any() else core


def _closed(mask: Bools, mm: float) -> Bools:
    return mask | (_distance(_dilated(mask, mm)) > mm)


def _middle(line: Bools) -> float:
    """Middle of the true places; of the whole where there are none."""
    at = np.flatnonzero(line)
    return float(at[0] + at[-1]) / 2 if at.size else (len(line) - 1) / 2


def _roundness(mask: Bools) -> float:
    """Volume as a share of the ball around the centre that reaches the furthest voxel; in one slice
    area as a share of the disc; 0 to 1."""
    at = np.argwhere(mask) * np.asarray(GRID_MM)
    furthest = float(np.linalg.norm(at - at.mean(axis=0), axis=1).max())
    if mask.shape[0] == 1:
        reach = furthest + (GRID_MM[1] * GRID_MM[2]) ** (1 / 2) / 2
        return min(1.0, _mm2(mask) / (pi * reach**2))
    reach = furthest + _voxel_mm3() ** (1 / 3) / 2
    return min(1.0, float(mask.sum()) * _voxel_mm3() / (4 / 3 * pi * reach**3))
