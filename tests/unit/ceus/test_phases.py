"""Phases by the clock or, said so, by arrival."""

import numpy as np
import pytest

from renalkit.ceus.phases import Phase, PhaseBounds, label_phases


def test_bounds_count_from_injection_and_belong_to_the_later_phase():
    found = label_phases([0.0, 9.9, 10.0, 29.9, 30.0, 179.9, 180.0], injection_s=0.0)
    assert [str(p) for p in found.labels] == [
        "baseline", "baseline", "cortical", "cortical", "medullary", "medullary", "late"
    ]  # fmt: skip
    assert found.by == "clock"
    assert "contrast clock" in found.reason


def test_decimal_clocks_lose_no_frame_to_rounding():
    times = np.arange(0, 60, 0.1)
    labels = label_phases(times, injection_s=-0.3).labels
    assert labels[97] is Phase.CORTICAL
    assert labels[96] is Phase.BASELINE


def test_an_injection_before_the_first_frame_shifts_the_phases():
    labels = label_phases([0.0, 4.9, 5.0], injection_s=-25.0).labels
    assert labels == (Phase.CORTICAL, Phase.CORTICAL, Phase.MEDULLARY)


def test_without_a_clock_phases_rest_on_arrival_and_say_so():
    found = label_phases([10.0, 19.9, 38.1], arrival_s=20.0)
    assert found.labels == (Phase.BASELINE, Phase.CORTICAL, Phase.MEDULLARY)
    assert found.by == "arrival"
    assert found.injection_s == 8.0
    assert "from the arrival" in found.reason


def test_the_clock_goes_before_arrival():
    assert label_phases([0.0], injection_s=1.0, arrival_s=20.0).by == "clock"


def test_nothing_is_labelled_without_either():
    assert label_phases([0.0, 1.0]) is None


def test_bounds_are_parameters():
    bounds = PhaseBounds(cortical_s=8, medullary_s=25, late_s=120)
    labels = label_phases([8.0, 25.0, 120.0], injection_s=0.0, bounds=bounds).labels
    assert labels == (Phase.CORTICAL, Phase.MEDULLARY, Phase.LATE)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: PhaseBounds(cortical_s=40), "must rise"),
        (lambda: PhaseBounds(late_s=float("nan")), "must rise"),
        (lambda: PhaseBounds(usual_arrival_s=-1), "0 to 120"),
        (lambda: label_phases([0.0, float("nan")], injection_s=0.0), "finite time"),
        (lambda: label_phases([0.0], injection_s=float("inf")), "cannot be counted"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
