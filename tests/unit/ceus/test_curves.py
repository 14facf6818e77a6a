"""Curves of regions: the mean is of linear power, and the region moves with the tissue."""

from dataclasses import replace

import numpy as np
import pytest

from renalkit.ceus.curves import CurveMeter, RoiCurve
from renalkit.ceus.linear import Palette, PowerScale, linear_power

SCALE = PowerScale(Palette("grey"), 50.0)


def square(at=(20, 30), size=10, shape=(60, 80)):
    mask = np.zeros(shape, np.bool_)
    mask[at[0] : at[0] + size, at[1] : at[1] + size] = True
    return mask


def test_the_mean_is_of_power_and_not_of_grey():
    pane = np.zeros((60, 80), np.uint8)
    pane[20:25, 30:40] = 200
    meter = CurveMeter({"a": square()}, SCALE)
    meter.add(pane, 0.0)
    assert meter.curves()["a"].power[0] == pytest.approx(linear_power(np.array(200), 50.0) / 2)


def test_the_region_follows_the_shift():
    rng = np.random.default_rng(1)
    scene = rng.integers(0, 255, (100, 120)).astype(np.uint8)
    still, moved = CurveMeter({"a": square()}, SCALE), CurveMeter({"a": square()}, SCALE)
    for k, (dx, dy) in enumerate([(0, 0), (3, -2), (-4, 5), (7.4, 0.2)]):
        x, y = 20 - round(dx), 20 - round(dy)
        moved.add(scene[y : y + 60, x : x + 80], float(k), (dx, dy))
        still.add(scene[20:80, 20:100], float(k))
    assert np.array_equal(moved.curves()["a"].power, still.curves()["a"].power)


def test_a_region_that_leaves_the_picture_does_not_count():
    meter = CurveMeter({"a": square()}, SCALE)
    for time, shift in enumerate(((0.0, 0.0), (44.0, 0.0), (float("nan"), 0.0), (2.0, 0.0))):
        meter.add(np.full((60, 80), 90, np.uint8), float(time), shift)
    assert meter.curves()["a"].kept.tolist() == [True, False, False, True]


def test_frames_can_be_left_out_while_or_after_measuring():
    meter = CurveMeter({"a": square(), "b": square((5, 5))}, SCALE)
    for k in range(4):
        meter.add(np.full((60, 80), 40 * k, np.uint8), 0.1 * k, kept=k != 1)
    later = meter.curves(np.array([True, True, False, True]))
    assert later["b"].kept.tolist() == [True, False, False, True]
    assert meter.curves()["b"].kept.tolist() == [True, False, True, True]


def test_white_is_counted_where_the_curve_is_highest():
    meter = CurveMeter({"a": square()}, SCALE)
    for k in range(40):
        pane = np.full((60, 80), 100, np.uint8)
        if k == 7:
            pane[20:30, 30:35] = 255
        meter.add(pane, float(k))
    curve = meter.curves()["a"]
    assert curve.saturated[7] == 0.5
    assert curve.saturated_share == pytest.approx(0.125)
    assert np.isnan(replace(curve, kept=np.zeros(40, np.bool_)).saturated_share)


def test_regions_that_cannot_be_measured_are_refused():
    with pytest.raises(ValueError, match="fewer than"):
        CurveMeter({"a": square(size=3)}, SCALE)
    with pytest.raises(ValueError, match="no region"):
        CurveMeter({}, SCALE)
    with pytest.raises(ValueError, match="another"):
        CurveMeter({"a": square(), "b": square(shape=(61, 80))}, SCALE)
    with pytest.raises(ValueError, match="the frame is"):
        CurveMeter({"a": square()}, SCALE).add(np.zeros((50, 80), np.uint8), 0.0)


def test_a_curve_checks_itself():
    good = RoiCurve("a", np.arange(3.0), np.ones(3), np.ones(3, np.bool_), np.zeros(3), 20)
    with pytest.raises(ValueError, match="rise"):
        replace(good, times_s=np.array([0.0, 1.0, 1.0]))
    with pytest.raises(ValueError, match="shape"):
        replace(good, power=np.ones(4))
    with pytest.raises(ValueError, match="finite"):
        replace(good, power=np.array([1.0, np.nan, 1.0]))


def test_frames_may_come_in_any_order() -> None:
    mask = np.ones((4, 4), np.bool_)
    meter = CurveMeter({"a": mask}, PowerScale(Palette("grey"), 60.0))
    for time, level in ((2.0, 20), (3.0, 30), (1.0, 10)):
        meter.add(np.full((4, 4), level, np.uint8), time, kept=time != 3.0)
    curve = meter.curves(np.array([True, True, True]))["a"]
    assert curve.times_s.tolist() == [1.0, 2.0, 3.0]
    assert (np.diff(curve.power) > 0).all()
    assert curve.kept.tolist() == [True, True, False]
