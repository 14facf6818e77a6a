"""Which parts of a mask hang together, and which of them are kept?

Voxels hang together with any of their 26 neighbours. Only the box around the mask is looked at, so
what a scan holds besides costs nothing. Shape legend: (Z,Y,X) voxels.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Bools = npt.NDArray[np.bool_]
Box = tuple[slice, slice, slice]

_AROUND = np.ones((3, 3, 3), np.bool_)


def box_around(mask: Bools) -> Box | None:
    """The smallest box that holds the mask; None where it is empty."""
    found = ndimage.find_objects(mask.astype(np.uint8, copy=False))
    return None if not found else cast(Box, found[0])


def numbered(mask: Bools) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.intp]]:
    """The parts of a mask (Z,Y,X), numbered from 1 with the largest first (of equals, the one met
    first), 0 elsewhere; and how many voxels each has, (n,)."""
    out = np.zeros(mask.shape, np.int32)
    box = box_around(mask)
    if box is None:
        return out, np.zeros(0, np.intp)
    # The stub does not know that the result is a pair when no output is given.
    parts, count = cast("tuple[npt.NDArray[np.int32], int]", ndimage.label(mask[box], _AROUND))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    order = np.argsort(-sizes, kind="stable")
    rank = np.zeros(count + 1, np.int32)
    rank[order + 1] = np.arange(1, count + 1)
    out[box] = rank[parts]
    return out, sizes[order]


def kept(mask: Bools, *, least: float = 0.0, most: int | None = None) -> Bools:
    """The parts of at least so many voxels (mm3 divided by that of a voxel), and of those at most
    so many, the largest."""
    parts, sizes = numbered(mask)
    number = int((sizes >= least).sum())
    return (parts > 0) & (parts <= (number if most is None else min(number, most)))


def filled(mask: Bools) -> Bools:
    """The mask with its holes: what no way leads out of, from voxel face to voxel face."""
    out = mask.copy()
    box = box_around(mask)
    if box is not None:
        out[box] = ndimage.binary_fill_holes(mask[box])
    return out
