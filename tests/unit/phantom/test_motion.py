"""Motion is a function of seconds, rests at end expiration and loses the section now and then."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from renalkit.phantom.ceus.motion import SLICE_MM, STILL, displacement, draw_motion


def moved(seed, times, duration=60.0):
    return displacement(draw_motion(duration, np.random.default_rng(seed)), times)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.floats(0, 60), min_size=1, max_size=20))
def test_a_time_has_one_displacement_at_any_frame_rate(seed, times):
    together = moved(seed, times)
    for index, time in enumerate(times):
        alone = moved(seed, time)
        assert alone.right_mm[0] == together.right_mm[index]
        assert alone.elevation_mm[0] == together.elevation_mm[index]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_motion_is_bounded_smooth_and_in_plane_for_most_of_the_time(seed):
    times = np.arange(0, 60, 0.01)
    d = moved(seed, times)
    assert np.abs(d.right_mm).max() < 18
    assert np.abs(d.deep_mm).max() < 10
    for way in (d.right_mm, d.deep_mm, d.elevation_mm):
        assert np.abs(np.diff(way)).max() < 0.25  # less than 25 mm/s
    assert ((d.out_of_plane >= 0) & (d.out_of_plane <= 1)).all()
    assert (d.out_of_plane[np.abs(d.elevation_mm) >= SLICE_MM] == 1).all()
    assert (d.out_of_plane[np.abs(d.elevation_mm) < 0.1 * SLICE_MM] < 0.03).all()
    order = np.argsort(np.abs(d.elevation_mm))
    assert (np.diff(d.out_of_plane[order]) >= 0).all()


def test_over_many_clips_the_section_is_lost_for_a_few_seconds_of_a_minute():
    times = np.arange(0, 60, 0.1)
    shares = [(moved(seed, times).out_of_plane > 0.5).mean() for seed in range(200)]
    assert 0.01 < np.mean(shares) < 0.12
    assert min(shares) == 0.0


def test_breathing_rests_at_end_expiration():
    d = moved(1, np.arange(0, 60, 0.05))
    travel = d.right_mm - d.right_mm.min()
    assert np.median(travel) < 0.4 * travel.max()


def test_still_is_still():
    d = displacement(STILL, np.linspace(0, 60, 50))
    for way in (d.right_mm, d.deep_mm, d.elevation_mm, d.out_of_plane):
        assert not way.any()
