"""Frames of two panes are paired by their number in the file, whatever their order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from renalkit.domain.cohort import ClassTask, Cohort
from renalkit.domain.geometry import Box, MaskRLE
from renalkit.domain.image import Clip, Mode, Source, pixel_sha256
from renalkit.domain.pairs import frame_pairs, panes, perfusion_features
from renalkit.domain.study import Lesion, Roi, RoiOrigin, Study

TASK = ClassTask(("benign", "malignant"), "malignant")
BOX = Box(4, 5, 10, 8)


def pane(mode: Mode, frames: tuple[int, ...], file: str = "a") -> Clip:
    """Pixels say which source frame they are; contrast is 100 brighter."""
    values = np.array(frames, np.uint8) + (100 if mode is Mode.CEUS else 0)
    pixels = np.broadcast_to(values[:, None, None], (len(frames), 30, 40)).copy()
    return Clip(
        pixels,
        pixel_sha256(pixels),
        mode,
        Source(file * 64, "f-0", "dicom-us"),
        times_s=tuple(float(f) / 10 for f in frames),
        source_frames=frames,
        offset=(0 if mode is Mode.B else 40, 0),
    )


def cohort(clips: tuple[Clip, ...], rois: tuple[Roi, ...], **facts: float) -> Cohort:
    lesion = Lesion(f"l-{1:020x}", label="malignant", rois=rois)
    study = Study(f"s-{1:020x}", f"p-{1:020x}", clips, (lesion,), covariates=facts)
    return Cohort("c", TASK, (study,))


def both(frame: int, other: int, origin: RoiOrigin = RoiOrigin.REFERENCE) -> tuple[Roi, Roi]:
    return Roi(0, frame, box=BOX, origin=origin), Roi(1, other, box=BOX)


def test_pairs_follow_the_frame_of_the_file() -> None:
    clips = (pane(Mode.B, (3, 5, 9)), pane(Mode.CEUS, (5, 9, 11)))
    rois = (*both(1, 0), *both(2, 1, RoiOrigin.PROPAGATED), Roi(0, 0, box=BOX))
    found = frame_pairs(cohort(clips, rois, perfusion_lesion_ttp_s=12.5, age_years=60.0))
    assert [(p.key.frame, p.contrast_frame) for p in found] == [(1, 0), (2, 1)]
    assert [p.roi_origin for p in found] == [RoiOrigin.REFERENCE, RoiOrigin.PROPAGATED]
    assert [p.label for p in found] == [1, 1]
    second = found[1]
    assert (clips[0].frame(second.key.frame).pixels == 9).all()
    assert (clips[1].frame(second.contrast_frame).pixels == 109).all()
    assert second.bmode_box == second.contrast_box == BOX
    assert found[0].features == {"perfusion_lesion_ttp_s": 12.5}


def test_a_mask_gives_the_box() -> None:
    mask = np.zeros((30, 40), np.bool_)
    mask[5:13, 4:14] = True
    clips = (pane(Mode.B, (0,)), pane(Mode.CEUS, (0,)))
    rois = (Roi(0, 0, mask=MaskRLE.encode(mask)), Roi(1, 0, box=BOX))
    (pair,) = frame_pairs(cohort(clips, rois))
    assert pair.bmode_box == BOX


def test_pictures_of_two_files_pair_where_each_names_the_other() -> None:
    def still(mode: Mode, file: str, partner: str) -> Clip:
        clip = pane(mode, (0,), file)
        return replace(clip, source=replace(clip.source, partner_sha256=partner * 64))

    b, c = still(Mode.B, "a", "b"), still(Mode.CEUS, "b", "a")
    other, lone = still(Mode.CEUS, "c", "d"), pane(Mode.B, (0,), "a")
    study = cohort((lone, other, c, b), ()).studies[0]
    assert panes(study) == ((3, 2),)
    with pytest.raises(ValueError, match="pair of files"):
        panes(replace(study, clips=(b, c, b)))


def test_panes_of_different_cines_are_no_pair() -> None:
    clips = (pane(Mode.B, (0,)), pane(Mode.CEUS, (0,), "b"), pane(Mode.DUAL, (0,)))
    study = cohort(clips, both(0, 0)).studies[0]
    assert panes(study) == ()
    assert perfusion_features(study) == {}


def test_a_third_pane_is_a_fault_and_a_picture_twice_is_none() -> None:
    b, c = pane(Mode.B, (0,)), pane(Mode.CEUS, (0,))
    study = cohort((b, b), ()).studies[0]
    assert panes(study) == ()
    with pytest.raises(ValueError, match="more than two panes of one file"):
        panes(replace(study, clips=(b, c, b)))
