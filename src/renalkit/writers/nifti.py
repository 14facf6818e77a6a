"""How is a volume written as NIfTI, on the grid it has or on that of the file it came from?"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt

from renalkit.domain.volume import VolumeGrid, from_canonical, source_affine
from renalkit.errors import InputRefused, Reason
from renalkit.store.files import write_bytes

PLAIN_AXES = "LPS"


def write_nifti(
    path: Path, array: npt.NDArray[Any], grid: VolumeGrid, source_axes: str = PLAIN_AXES
) -> None:
    """Write an array (Z,Y,X) on its grid as .nii, or .nii.gz; equal arrays give equal bytes.

    source_axes: the axes of the file's array, first index first; those of a volume that came from
    NIfTI put a result voxel for voxel on the original file's grid. Only an sform is written: a
    qform could not hold a shear.

    Raises:
        ValueError: an array of another shape than the grid.
        InputRefused: UNEVEN_SLICES, slices that one affine cannot place.
        StoreError: the disk refused.
    """
    if array.shape != grid.shape:
        raise ValueError(f"array {array.shape} on a grid {grid.shape}")
    if grid.slice_at is not None:
        raise InputRefused(
            Reason.UNEVEN_SLICES,
            "slices at uneven distances",
            where=path.name,
            expected="one affine for all voxels, as NIfTI has it",
            remedy="resample the volume to an even grid first, or write DICOM",
        )
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ source_affine(grid, source_axes)
    image = nibabel.Nifti1Image(np.ascontiguousarray(from_canonical(array, source_axes)), affine)
    image.set_qform(None, code=0)
    image.set_sform(affine, code=1)
    image.header.set_xyzt_units("mm")
    data = image.to_bytes()
    write_bytes(path, gzip.compress(data, 4, mtime=0) if path.suffix == ".gz" else data)
