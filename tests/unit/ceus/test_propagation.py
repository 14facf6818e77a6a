"""Outlined regions carried by the motion track, refused where the section is lost."""

import cv2
import numpy as np
import pytest

from renalkit.ceus.motion import Track
from renalkit.ceus.propagation import propagate
from renalkit.domain.geometry import Box, MaskRLE
from renalkit.domain.study import Roi, RoiOrigin

SHAPE = (120, 160)


def moving(lost=(), count=21):
    """Half a pixel to the right and a quarter up per frame, reference in the middle."""
    steps = np.arange(count) - count // 2
    kept = np.ones(count, np.bool_)
    kept[list(lost)] = False
    shift = np.stack([0.5 * steps, -0.25 * steps], axis=1)
    return Track(
        count // 2, Box(0, 0, 64, 64), shift, np.where(kept, 0.9, 0.2), kept, 0.6, "template"
    )


def disc(frame, radius=15, *, at=(70, 60), box=True, mask=True):
    picture = np.zeros(SHAPE, np.uint8)
    x, y = at[0] + 0.5 * (frame - 10), at[1] - 0.25 * (frame - 10)
    cv2.circle(picture, (round(x), round(y)), radius, 1, -1)
    left, top, width, height = cv2.boundingRect(picture)
    return Roi(
        clip=1,
        frame=frame,
        mask=MaskRLE.encode(picture) if mask else None,
        box=Box(left, top, width, height) if box else None,
    )


def test_a_region_moves_with_the_kidney_and_is_marked():
    found = propagate([disc(10)], moving(), range(21), SHAPE)
    assert [c.frame for c in found] == list(range(21))
    for carried in found:
        true = disc(carried.frame)
        assert abs(carried.roi.box.x - true.box.x) <= 1
        assert abs(carried.roi.box.y - true.box.y) <= 1
        ours, theirs = carried.roi.mask.decode(), true.mask.decode()
        assert 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()) > 0.95
        assert carried.roi.clip == 1
    assert found[10].roi.origin is RoiOrigin.REFERENCE
    assert {c.roi.origin for c in found if c.frame != 10} == {RoiOrigin.PROPAGATED}
    assert found[3].reason == "carried from frame 10"


def test_nothing_is_carried_to_or_from_a_lost_frame():
    track = moving(lost=(4, 5, 10))
    found = propagate([disc(10), disc(2)], track, [3, 4, 9, 10], SHAPE)
    assert found[0].reason == "carried from frame 2"
    assert found[1].roi is None
    assert found[1].reason == "out of plane here: correlation 0.20"
    assert found[2].reason == "carried from frame 2"
    assert found[3].roi == disc(10)
    alone = propagate([disc(10)], track, [9], SHAPE)[0]
    assert alone.roi is None
    assert alone.reason == "every outlined frame is out of plane"


def test_the_nearest_outline_is_taken_and_the_earlier_of_two_as_near():
    found = propagate([disc(4, 10), disc(16, 20)], moving(), [6, 10, 12], SHAPE)
    assert [c.reason[-2:].strip() for c in found] == ["4", "4", "16"]


def test_blending_lies_between_the_outlines_before_and_after():
    found = propagate([disc(0, 10), disc(20, 20)], moving(), [5, 10, 15], SHAPE, "blend")
    assert [c.roi.box.width for c in found] == pytest.approx([26, 31, 36], abs=1)
    areas = [np.pi * r**2 for r in (12.5, 15, 17.5)]
    assert [c.roi.mask.area_px for c in found] == pytest.approx(areas, rel=0.08)
    assert found[0].reason == "carried from frame 0 and 20"
    beyond = propagate([disc(5), disc(10)], moving(), [15], SHAPE, "blend")[0]
    assert beyond.reason == "carried from frame 10"


@pytest.mark.parametrize("parts", [{"mask": False}, {"box": False}])
def test_boxes_or_masks_alone_stay_alone(parts):
    roi = propagate([disc(10, **parts)], moving(), [12], SHAPE)[0].roi
    assert (roi.mask is None) == (parts.get("mask") is False)
    assert (roi.box is None) == (parts.get("box") is False)


def test_a_region_that_leaves_the_picture_is_refused():
    track = moving()
    track.shift_px[20] = (300.0, 0.0)
    found = propagate([disc(10)], track, [20], SHAPE)[0]
    assert found.roi is None
    assert found.reason == "the region has left the picture"


@pytest.mark.parametrize(
    ("rois", "frames", "words"),
    [
        ([], [0], "no outlined region"),
        ([disc(1), Roi(clip=0, frame=2, box=Box(1, 1, 5, 5))], [0], "several clips"),
        ([disc(1), disc(1)], [0], "same frame"),
        ([disc(1), disc(2, mask=False)], [0], "that others lack"),
        ([disc(1)], [21], "frame 21 of a clip of 21"),
        ([disc(21)], [0], "frame 21 of a clip of 21"),
    ],
)
def test_bad_input_is_refused(rois, frames, words):
    with pytest.raises(ValueError, match=words):
        propagate(rois, moving(), frames, SHAPE)


def test_a_mask_of_another_size_and_an_unknown_way_are_refused():
    with pytest.raises(ValueError, match="on a pane of 60 x 60"):
        propagate([disc(10)], moving(), [11], (60, 60))
    with pytest.raises(ValueError, match="neither 'nearest' nor 'blend'"):
        propagate([disc(10)], moving(), [11], SHAPE, "mean")
