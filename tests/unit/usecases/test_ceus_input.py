"""Outlines go to the cine they were drawn on, and to no other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from renalkit.domain.geometry import Box
from renalkit.domain.image import Clip, Mode, Source, pixel_sha256
from renalkit.errors import InputRefused
from renalkit.readers.annotations import FrameAnnotation
from renalkit.usecases.ceus_input import Cine, regions_of

PIXELS = np.zeros((3, 60, 80), np.uint8)


def cine(folder: Path, name: str) -> Cine:
    clip = Clip(PIXELS, pixel_sha256(PIXELS), Mode.DUAL, Source("a" * 64, "f-0", "dicom-us"))
    return Cine(name, folder / name, clip, None, is_dicom=True, timing="header")


def table(*files: str) -> list[FrameAnnotation]:
    """One box per file, each at another place."""
    return [
        FrameAnnotation(file=f, frame=0, box=Box(4 + 5 * i, 6, 10, 10), lesion="1")
        for i, f in enumerate(files)
    ]


def left_of(found: dict[str, list]) -> int:
    (roi,) = found["lesion"]
    return roi.box.x


@pytest.mark.parametrize("alone", [True, False])
def test_the_same_file_name_in_another_folder_is_another_patient(
    tmp_path: Path, alone: bool
) -> None:
    rows = table("dicom/P1/ceus.dcm", "dicom/P2/ceus.dcm")
    folder = tmp_path / "dicom"
    assert left_of(regions_of(cine(folder, "P2/ceus.dcm"), rows, alone=alone)) == 9
    assert left_of(regions_of(cine(folder / "P1", "ceus.dcm"), rows, alone=alone)) == 4


def test_moved_files_are_known_by_their_folder(tmp_path: Path) -> None:
    rows = table("study/dicom/P1/ceus.dcm", "study/dicom/P2/ceus.dcm")
    assert left_of(regions_of(cine(tmp_path, "P2/ceus.dcm"), rows, alone=False)) == 9
    assert regions_of(cine(tmp_path, "P3/ceus.dcm"), rows, alone=False) == {}


@pytest.mark.parametrize("alone", [True, False])
def test_a_bare_name_of_several_files_is_refused(tmp_path: Path, alone: bool) -> None:
    rows = table("P1/ceus.dcm", "P2/ceus.dcm")
    with pytest.raises(InputRefused, match="regions of 2 files.*cannot be told"):
        regions_of(cine(tmp_path, "ceus.dcm"), rows, alone=alone)


def test_a_list_about_one_file_belongs_to_the_only_cine(tmp_path: Path) -> None:
    rows = table("whatever.mp4")
    assert left_of(regions_of(cine(tmp_path, "ceus.dcm"), rows, alone=True)) == 4
    assert regions_of(cine(tmp_path, "ceus.dcm"), rows, alone=False) == {}
    with pytest.raises(InputRefused, match="regions of 2 files"):
        regions_of(cine(tmp_path, "ceus.dcm"), table("a.mp4", "b.mp4"), alone=True)


def test_names_without_ending_are_known(tmp_path: Path) -> None:
    assert left_of(regions_of(cine(tmp_path, "one.dcm"), table("two", "one"), alone=True)) == 9
