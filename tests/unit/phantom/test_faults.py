import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from renalkit.errors import ConfigError
from renalkit.phantom.faults import (
    FaultDials,
    Faults,
    draw_faults,
    kept_frames,
    leave_calipers,
    tilted,
)

ALL = FaultDials(1, 1, 1, 1, 1, 1)


def test_no_dials_no_faults():
    rng = np.random.default_rng(0)
    assert all(draw_faults(FaultDials(), positive=True, rng=rng) == Faults() for _ in range(50))


def test_dials_are_shares_of_studies():
    rng = np.random.default_rng(0)
    dials = FaultDials(missing_frames=0.3, label_noise=0.1)
    drawn = [draw_faults(dials, positive=False, rng=rng) for _ in range(2000)]
    assert np.mean([one.missing is not None for one in drawn]) == pytest.approx(0.3, abs=0.04)
    assert np.mean([one.label_flipped for one in drawn]) == pytest.approx(0.1, abs=0.03)
    assert not any(one.wrong_units or one.duplicated for one in drawn)


def test_calipers_leak_the_class():
    rng = np.random.default_rng(0)
    assert all(draw_faults(ALL, positive=True, rng=rng).calipers for _ in range(20))
    assert not any(draw_faults(ALL, positive=False, rng=rng).calipers for _ in range(20))


def test_faults_have_names():
    faults = draw_faults(ALL, positive=True, rng=np.random.default_rng(0))
    expected = "missing tilt_deg wrong_units duplicated label_flipped calipers"
    assert faults.names == tuple(expected.split())
    assert Faults().names == ()


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_a_dial_that_is_no_share_is_refused(value):
    with pytest.raises(ConfigError, match="label_noise"):
        FaultDials(label_noise=value)


@given(st.integers(1, 700), st.integers(0, 1000))
def test_a_stretch_is_lost(n, seed):
    faults = draw_faults(ALL, positive=False, rng=np.random.default_rng(seed))
    kept = kept_frames(n, faults)
    assert list(kept) == sorted(set(kept))
    assert len(kept) < n
    assert n - len(kept) <= max(1, n // 10 + 1)


def test_a_tilted_scan_of_a_ramp_is_exact():
    """HU linear in y and z: linear interpolation gives the tilted plane without error."""
    z, y, _ = np.mgrid[0:40, 0:30, 0:5]
    volume = (20 * z + 4 * y).astype(np.int16)
    found = tilted(volume, (2.0, 1.0, 1.0), 10.0).astype(float)
    t = np.radians(10.0)
    along = np.arange(30) - 14.5
    expected = 20 * (20 + along * np.sin(t) / 2.0) + 4 * (14.5 + along * np.cos(t))
    assert np.abs(found[20, :, 2] - expected).max() <= 0.5
    assert np.array_equal(tilted(volume, (2.0, 1.0, 1.0), 0.0), volume)


def test_beyond_the_volume_there_is_air():
    volume = np.full((4, 60, 3), 50, np.int16)
    assert tilted(volume, (1.0, 1.0, 1.0), 20.0)[0, 0].max() == -1000


def test_calipers_are_drawn_where_asked():
    frame = np.zeros((60, 80, 3), np.uint8)
    leave_calipers(frame, ((20, 30), (60, 30)))
    assert frame[30, 20].any()
    assert frame[30, 60].any()
    assert not frame[:15].any()
