"""Small CT series as files: a ball and a smaller one beside it, in every geometry."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from renalkit.domain.volume import VolumeGrid, affine_of
from renalkit.phantom.ct.geometry import Geometry, scanned, source_grid
from renalkit.writers.dicom_phantom import CtScan, PhantomIdentity, write_ct_slices

WHO = PhantomIdentity(
    *("who", "P0001", "PHANTOM^P0001", "F", 61, "20240101", "080000", "Site", "Phantom"),
    *("Phantom CT", "CT abdomen"),
)
GRID = VolumeGrid(
    (24, 40, 44),
    affine_of(((0, 0, 2.0, -43.0), (0, 1.9, 0, -37.0), (3.0, 0, 0, -35.0), (0, 0, 0, 1))),
)
CENTRE, SECOND = np.array((8.0, 6.0, 4.0)), np.array((-14.0, -8.0, -9.0))


def ball(grid: VolumeGrid, centre_mm: np.ndarray, radius_mm: float) -> np.ndarray:
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1).reshape(-1, 3)
    apart = np.linalg.norm(grid.to_lps(index) - centre_mm, axis=1)
    return (apart <= radius_mm).reshape(grid.shape)


def scene(value: int = 300) -> np.ndarray:
    """HU (Z,Y,X) on GRID: tissue in air with the large ball bright and the small one dark."""
    hu = np.full(GRID.shape, -1000, np.int16)
    hu[2:-2, 4:-4, 4:-4] = 40
    hu[ball(GRID, CENTRE, 11.0)] = value
    hu[ball(GRID, SECOND, 6.0)] = -100
    return hu


def drawn() -> np.ndarray:
    """Labels (Z,Y,X) on GRID: the large ball is a tumour, the small one a cyst; kidney around."""
    labels = np.zeros(GRID.shape, np.uint8)
    labels[ball(GRID, CENTRE, 14.0)] = labels[ball(GRID, SECOND, 9.0)] = 1
    labels[ball(GRID, CENTRE, 11.0)] = 2
    labels[ball(GRID, SECOND, 6.0)] = 3
    return labels


def write(
    folder: Path,
    geometry: Geometry = Geometry.PLAIN,
    description: str = "venous",
    *,
    series: int = 1,
    who: PhantomIdentity = WHO,
) -> Path:
    """One series as the geometry has it, a folder of slices."""
    scans = [scene(200), scene(300)] if geometry is Geometry.TWO_PHASES else [scene()]
    spacing = source_grid(geometry, GRID).spacing_mm
    step_z = GRID.spacing_mm[0]
    scan = CtScan((step_z, *spacing[1:]), series, description, "Iodine")
    write_ct_slices(folder, scanned(geometry, GRID, scans), who, scan)
    return folder
