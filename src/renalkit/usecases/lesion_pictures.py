"""What does a lesion look like on its scan? The axial slice through its centre, with outlines."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from renalkit.domain.geometry import MaskRLE
from renalkit.domain.volume import WINDOW_HU, Phase, Volume
from renalkit.metrics.volume_lesions import LesionMeasures
from renalkit.usecases.lesion_table import UNKNOWN_PHASE, MeasuredScan
from renalkit.writers.overlays import Tile
from renalkit.writers.wording import number

FIELD_MM = 160.0
"""Side of what is shown around a lesion."""

_BEST = (Phase.NEPHROGRAPHIC, Phase.CORTICOMEDULLARY, Phase.EXCRETORY, Phase.NON_CONTRAST, None)


def lesion_tiles(found: MeasuredScan) -> dict[int, Tile]:
    """A picture of each lesion by its number; none where there is no scan.

    Front is up and the patient's right is left. The phase in which kidneys show best is taken.
    """
    volumes = {v.phase: v for v in reversed(found.scan.volumes)}
    shown = next((volumes[p] for p in _BEST if p in volumes), found.scan.shown)
    if shown is None:
        return {}
    return {lesion.number: _tile(found, lesion, shown) for lesion in found.measures.lesions}


def windowed(hu: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    """HU as grey values, black at -200 and white at 300."""
    low, high = WINDOW_HU
    grey = (hu.astype(np.float32) - low) * (255 / (high - low))
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8)


def _tile(found: MeasuredScan, lesion: LesionMeasures, volume: Volume) -> Tile:
    grid = found.scan.grid
    z, y, x = grid.to_index([lesion.centre_mm])[0].tolist()
    there = np.flatnonzero((found.instances == lesion.number).any(axis=(1, 2)))
    k = int(there[np.abs(there - z).argmin()])
    _, dy, dx = grid.spacing_mm
    box = (_around(y, dy, grid.shape[1]), _around(x, dx, grid.shape[2]))
    rows, cols = (part.stop - part.start for part in box)
    # Square pixels as small as the smaller side of the scan's.
    step = min(dy, dx)
    size = (max(1, round(cols * dx / step)), max(1, round(rows * dy / step)))
    grey = cv2.resize(
        windowed(np.asarray(volume.pixels[k])[box]), size, interpolation=cv2.INTER_LINEAR
    )
    marked, mass = (
        MaskRLE.encode(cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0)
        for mask in (found.scan.labels[k][box] > 0, found.instances[k][box] == lesion.number)
    )
    phase = UNKNOWN_PHASE if volume.phase is None else volume.phase.value
    words = f"slice {k + 1} of {grid.shape[0]} from below, {phase.replace('-', ' ')}\n"
    low, high = WINDOW_HU
    words += "grey as given" if volume is found.scan.shown else f"{number(low, 0)} to {high:.0f} HU"
    return Tile(grey.astype(np.uint8), marked, mass, f"Lesion {lesion.number}", words)


def _around(centre: float, step_mm: float, most: int) -> slice:
    """So many pixels around a place that they show the field, inside the picture."""
    n = min(most, max(1, round(FIELD_MM / step_mm)))
    first = min(max(0, round(centre - n / 2)), most - n)
    return slice(first, first + n)
