"""Arrival: found within a fraction of a second, or refused with a reason."""

import numpy as np
import pytest

from renalkit.ceus.arrival import Arrival, ArrivalOptions, find_arrival
from renalkit.ceus.bolus import BolusKind, bolus_of


def power_at(times, arrival_s=13.0):
    """A renal bolus of 400 over a baseline of 2."""
    return 2.0 + bolus_of(BolusKind.LOGNORMAL, 400.0, arrival_s, 6.0, 32.0).power(times)


def curve(times, seed=0, arrival_s=13.0, noise=0.05, floor=0.05):
    """A bolus with multiplicative noise correlated over 0.5 s, and a noisy baseline."""
    rng = np.random.default_rng(seed)
    drift, wander = 0.0, []
    for pause in np.diff(times, prepend=times[0] - 1.0):
        keep = np.exp(-pause / 0.5)
        drift = keep * drift + np.sqrt(1 - keep * keep) * rng.standard_normal()
        wander.append(drift)
    power = power_at(times, arrival_s) * (1 + noise * np.array(wander))
    return power + floor * rng.standard_normal(len(times))


@pytest.mark.parametrize("rate_hz", [4.0, 10.0, 25.0])
@pytest.mark.parametrize("arrival_s", [3.5, 13.0, 71.0])
def test_arrival_is_found_to_half_a_second(rate_hz, arrival_s):
    times = np.arange(0, 120, 1 / rate_hz)
    found = [find_arrival(times, curve(times, seed, arrival_s)) for seed in range(3)]
    assert np.median([abs(f.time_s - arrival_s) for f in found]) < 0.5
    assert all(f.doubt_s == pytest.approx(1 / rate_hz) for f in found)
    assert all(f.baseline == pytest.approx(2.0, abs=0.1) for f in found)


def test_time_is_seconds_whatever_the_clock_and_the_pauses():
    rng = np.random.default_rng(1)
    times = np.cumsum(rng.uniform(0.03, 0.3, 800)) + 1000.0
    assert find_arrival(times, power_at(times, 1013.0)).time_s == pytest.approx(1013.0, abs=0.6)


def test_flashes_and_lost_frames_before_the_bolus_are_passed_over():
    times = np.arange(0, 120, 0.1)
    power = curve(times, 2)
    expected = find_arrival(times, power).time_s
    kept = np.ones(len(times), np.bool_)
    lost = (times > 4) & (times < 6)
    power[lost], kept[lost] = 3000.0, False
    power[(times > 8) & (times < 8.5)] = 5000.0
    power[(times > 60) & (times < 60.5)] = 1e6
    power[20] = np.nan
    assert find_arrival(times, power, kept).time_s == pytest.approx(expected, abs=0.2)


def test_a_section_lost_at_arrival_is_said_to_be_in_doubt():
    times = np.arange(0, 120, 0.1)
    found = find_arrival(times, curve(times, 3), (times < 12.5) | (times > 14.5))
    assert 12.4 < found.time_s < 14.6
    assert found.doubt_s == pytest.approx(2.1, abs=0.15)


@pytest.mark.parametrize("start_s", [13.0, 13.5, 14.5, 17.0, 22.0, 40.0])
def test_a_clip_that_begins_after_arrival_has_none(start_s):
    times = np.arange(start_s, 120, 0.1)
    for seed in range(4):
        found = find_arrival(times, curve(times, seed))
        assert found.time_s is None
        assert "begins" in found.reason or "too short a baseline" in found.reason


@pytest.mark.parametrize(
    "power",
    [
        lambda t: np.zeros_like(t),
        lambda t: np.full_like(t, 7.0),
        lambda t: 5 + 0.5 * np.random.default_rng(4).standard_normal(len(t)),
        lambda t: np.abs(0.1 * np.random.default_rng(5).standard_normal(len(t))),
        lambda t: 1.0 + t / 60,
        lambda t: 100.0 * np.exp(-t / 30) + 1,
    ],
    ids=["dark", "even", "noise", "dark noise", "drift", "washout"],
)
def test_curves_without_a_bolus_have_no_arrival(power):
    times = np.arange(0, 120, 0.1)
    found = find_arrival(times, power(times))
    assert found.time_s is None
    assert "no bolus" in found.reason or "already there" in found.reason


def test_a_still_and_a_clip_of_lost_frames_have_no_arrival():
    assert find_arrival([0.0], [3.0]) == Arrival(None, "only 1 usable frames")
    times = np.arange(0, 60, 0.1)
    assert find_arrival(times, curve(times), np.zeros(len(times), np.bool_)).time_s is None


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: find_arrival([0, 1], [1, 2, 3]), "one value per frame"),
        (lambda: find_arrival([0, 0], [1, 2]), "finite and rise"),
        (lambda: find_arrival([0, np.nan], [1, 2]), "finite and rise"),
        (lambda: ArrivalOptions(share=0.2), "share between 0 and 0.1"),
        (lambda: ArrivalOptions(smooth_s=3.0), "not longer than steady_s"),
        (lambda: ArrivalOptions(frames=0), "at least 1 frame above"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
