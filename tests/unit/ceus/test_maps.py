"""Maps: each part of a region gets its own figures, whatever the motion and the length."""

import tracemalloc

import numpy as np
import pytest

from renalkit.ceus.bolus import BolusKind, bolus_of, curve_values
from renalkit.ceus.linear import Palette, PowerScale
from renalkit.ceus.maps import MAPS, CellCurves, MapMeter, cell_px, parametric_maps, summarise
from renalkit.domain.geometry import Box

DR = 50.0
SCALE = PowerScale(Palette("grey"), DR)
PARTS = {
    "left": bolus_of(BolusKind.LOGNORMAL, 900.0, 10.0, 6.0, 25.0),
    "right": bolus_of(BolusKind.LOGNORMAL, 300.0, 14.0, 9.0, 30.0),
}
SHAPE = (60, 90)
BOX = Box(10, 10, 64, 32)


def side(name, shape=SHAPE):
    mask = np.zeros(shape, np.bool_)
    mask[12:40, 12 : 40 if name == "left" else 72] = True
    mask[:, : 44 if name == "right" else 0] = False
    return mask


def frame(time, rng, shift=(0, 0), *, bolus=True):
    """A pane whose left half enhances early and strongly, with speckle; a third has no agent."""
    power = np.zeros(SHAPE)
    power[:, :42] = PARTS["left"].power(time) if bolus else 0
    power[:, 42:] = PARTS["right"].power(time) if bolus else 0
    power[32:, 42:] = 0
    power = np.roll(power + 3.0, (shift[1], shift[0]), (0, 1)) * rng.exponential(1.0, SHAPE)
    return np.clip(np.rint(2550 / DR * np.log10(1 + power)), 0, 255).astype(np.uint8)


def measured(times, *, moving=False, bolus=True, seed=0):
    rng = np.random.default_rng(seed)
    meter = MapMeter(BOX, SCALE, 8, (times[0], times[-1]))
    for k, time in enumerate(times):
        shift = (round(5 * np.sin(k)), round(4 * np.cos(1.3 * k))) if moving else (0, 0)
        meter.add(frame(time, rng, shift, bolus=bolus), float(time), shift)
    return meter.cells()


@pytest.mark.parametrize("moving", [False, True])
def test_each_half_has_its_own_figures(moving):
    maps = parametric_maps(measured(np.arange(0, 100, 0.5), moving=moving))
    assert set(maps.values) == set(MAPS)
    assert maps.values["PE"].shape == (4, 8)
    rows = {(row.region, row.name): row for row in summarise(maps, {n: side(n) for n in PARTS})}
    for name, bolus in PARTS.items():
        truth = curve_values(bolus)
        wanted = {"PE": truth.peak, "TTP": truth.peak_at_s, "WiAUC": truth.wash_in}
        for figure, value in (wanted | {"mTT": truth.transit_s}).items():
            row = rows[name, figure]
            assert row.median == pytest.approx(value, rel=0.12), (name, figure)
            assert row.low_quartile <= row.median <= row.high_quartile
    assert rows["left", "PE"].unit == "a.u."
    assert rows["left", "WiAUC"].unit == "a.u. s"


def test_a_cell_without_agent_has_no_value():
    maps = parametric_maps(measured(np.arange(0, 100, 0.5)))
    assert np.isnan(maps.values["PE"][3, 5:]).all()
    assert np.isfinite(maps.values["PE"][:2]).all()
    empty = parametric_maps(measured(np.arange(0, 60, 0.5), bolus=False))
    assert np.isnan(empty.values["TTP"]).mean() > 0.95
    (row, *_) = summarise(empty, {"none": np.zeros(SHAPE, np.bool_)})
    assert row.cells == 0
    assert row.median is None


def test_a_clip_cut_before_the_wash_out_has_no_mean_transit():
    maps = parametric_maps(measured(np.arange(0, 22, 0.2)))
    assert np.isfinite(maps.values["TTP"][:2, :4]).all()
    assert np.isnan(maps.values["mTT"]).all()


def test_memory_does_not_grow_with_the_clip():
    def peak(seconds):
        pane = np.full(SHAPE, 100, np.uint8)
        tracemalloc.start()
        meter = MapMeter(BOX, SCALE, 4, (0, seconds))
        for time in np.arange(seconds, 0, -0.5):
            meter.add(pane, float(time))
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size, meter.cells()

    short, long = peak(200), peak(3000)
    assert long[0] < 1.5 * short[0]
    assert len(long[1].times_s) <= 128
    assert long[1].power == pytest.approx(float(SCALE.table()[100]))
    assert long[1].frames.sum(axis=0) == pytest.approx(6000)
    assert (np.diff(long[1].times_s) > 0).all()


def test_frames_that_do_not_count_leave_no_trace():
    meter = MapMeter(BOX, SCALE, 8, (0, 1))
    pane = np.full(SHAPE, 100, np.uint8)
    meter.add(pane, 0.0)
    meter.add(pane + 100, 0.1, kept=False)
    meter.add(pane + 100, 0.2, (float("nan"), 0.0))
    meter.add(pane + 100, 0.3, (500.0, 0.0))
    cells = meter.cells()
    assert cells.frames.max() == 1
    assert cells.power[np.isfinite(cells.power)] == pytest.approx(float(SCALE.table()[100]))


def test_part_of_a_box_may_leave_the_picture():
    meter = MapMeter(BOX, SCALE, 8, (0, 1))
    meter.add(np.full(SHAPE, 100, np.uint8), 0.0, (-26.0, 0.0))
    frames = meter.cells().frames[0]
    assert frames[:, :2].max() == 0
    assert frames[:, 2:].min() == 1


def test_cells_have_a_size_in_millimetres():
    assert cell_px((0.2, 0.2), 3.0) == 15
    assert cell_px((2.0, 2.0), 3.0) == 2
    assert cell_px(None) == 8


def test_impossible_maps_are_refused():
    with pytest.raises(ValueError, match="smaller than a cell"):
        MapMeter(Box(0, 0, 5, 50), SCALE, 8, (0, 1))
    with pytest.raises(ValueError, match="too few"):
        parametric_maps(measured(np.arange(0, 5, 0.5)))
    meter = MapMeter(BOX, SCALE, 8, (0, 4))
    with pytest.raises(ValueError, match="not within"):
        meter.add(np.zeros(SHAPE, np.uint8), 5.0)
    with pytest.raises(ValueError, match="no span"):
        MapMeter(BOX, SCALE, 8, (5, 4))


def test_a_map_has_the_size_of_its_box():
    cells = measured(np.arange(0, 60, 0.5))
    assert isinstance(cells, CellCurves)
    maps = parametric_maps(cells)
    assert maps.picture("PE").shape == (BOX.height, BOX.width)
    assert maps.picture("PE")[0, 0] == pytest.approx(maps.values["PE"][0, 0])
