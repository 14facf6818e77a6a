"""Results of CT scans: kept whole, and refused when damaged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from renalkit.domain.prediction import SystemRef
from renalkit.domain.sample import SampleKey
from renalkit.domain.scan import FoundLesion, FoundScan
from renalkit.domain.volume import VolumeGrid, affine_of
from renalkit.errors import StoreError
from renalkit.store.scans import load_scan, save_scan, saved_scans

GRID = VolumeGrid((3, 4, 5), affine_of(np.diag([2.0, 1.0, 1.0, 1.0])[[2, 1, 0, 3]]))


def scan() -> FoundScan:
    labels = np.zeros(GRID.shape, np.uint8)
    labels[1, :3] = 1
    labels[1, 1, 1:3] = (2, 3)
    instances = np.zeros(GRID.shape, np.uint8)
    instances[1, 1, 1:3] = (1, 2)
    return FoundScan(
        key=SampleKey("p-" + "0" * 20, "s-" + "1" * 20, "", 2, 0),
        grid=GRID,
        labels=labels,
        instances=instances,
        lesions=(FoundLesion(1, (0.25, 0.75), 0.9, 0.5), FoundLesion(2, None, 0.6, 1.0)),
        system=SystemRef("ct-cascade", "ct-cascade", "a" * 64),
        fold=1,
    )


def test_what_is_kept_comes_back_and_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    box = ((0.0, -1.5, 2.0), (3.0, 4.0, 5.0))
    first = replace(scan(), grid=replace(GRID, slice_at=(0.0, 1.0, 3.0)), boxes_mm=(box,))
    for place in ("a", "b"):
        save_scan(tmp_path / place, first)
    (path,) = saved_scans(tmp_path / "a")
    found = load_scan(path)
    assert (found.key, found.grid, found.lesions) == (first.key, first.grid, first.lesions)
    assert (found.system, found.fold, found.boxes_mm) == (first.system, 1, (box,))
    np.testing.assert_array_equal(found.labels, first.labels)
    np.testing.assert_array_equal(found.instances, first.instances)
    for suffix in (".json", ".npz"):
        one, two = (tmp_path / p / f"{first.key.text}{suffix}" for p in ("a", "b"))
        assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("length", [0, 40])
def test_cut_arrays_are_refused(tmp_path: Path, length: int) -> None:
    save_scan(tmp_path, scan())
    (path,) = saved_scans(tmp_path)
    arrays = path.with_suffix(".npz")
    arrays.write_bytes(arrays.read_bytes()[:length])
    with pytest.raises(StoreError, match="unreadable results"):
        load_scan(path)


def test_a_lesion_without_voxels_and_voxels_without_label_are_refused() -> None:
    whole = scan()
    with pytest.raises(ValueError, match="drawn"):
        replace(whole, lesions=whole.lesions[:1])
    with pytest.raises(ValueError, match="not labelled"):
        replace(whole, labels=np.minimum(whole.labels, 1))
