"""What is written as NIfTI, nibabel and our own reader find at the same place."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from renalkit.domain.volume import VolumeGrid, affine_of
from renalkit.errors import InputRefused, Reason
from renalkit.readers.contract import Limits, ReadOptions
from renalkit.readers.decode_worker import DecodeWorker
from renalkit.readers.nifti import read_nifti_labels
from renalkit.writers.nifti import write_nifti

SHAPE = (4, 5, 6)
SHEARED = affine_of(((0, 0, 0.8, -10), (0, 0.7, 0, 20), (3.0, 0.2, 0, -5), (0, 0, 0, 1)))


@pytest.mark.parametrize("axes", ["LPS", "RAS", "IPL"])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_it_comes_back_on_the_axes_asked_for(tmp_path: Path, axes: str, name: str) -> None:
    grid = VolumeGrid(SHAPE, SHEARED)
    array = np.arange(120, dtype=np.uint8).reshape(SHAPE)
    write_nifti(tmp_path / name, array, grid, axes)
    image = nibabel.load(tmp_path / name)
    assert "".join(nibabel.aff2axcodes(image.affine)) == axes
    with DecodeWorker(Limits()) as worker:
        found = read_nifti_labels(tmp_path / name, ReadOptions(), worker)
    assert np.array_equal(found.pixels, array)
    assert found.source_axes == axes
    assert found.grid.shift_from(grid) < 1e-5
    again = (tmp_path / name).read_bytes()
    write_nifti(tmp_path / name, array, grid, axes)
    assert (tmp_path / name).read_bytes() == again


def test_what_one_affine_cannot_place_is_refused(tmp_path: Path) -> None:
    uneven = VolumeGrid(SHAPE, SHEARED, (0, 1, 2, 3.5))
    with pytest.raises(InputRefused, match="uneven") as caught:
        write_nifti(tmp_path / "a.nii", np.zeros(SHAPE, np.uint8), uneven)
    assert caught.value.reason is Reason.UNEVEN_SLICES
    with pytest.raises(ValueError, match="on a grid"):
        write_nifti(tmp_path / "a.nii", np.zeros((1, 1, 1), np.uint8), uneven)
    assert not list(tmp_path.iterdir())
