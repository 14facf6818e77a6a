"""Figures of perfusion: exact on exact curves, sure of what they are, silent about the unseen."""

from dataclasses import replace

import numpy as np
import pytest

from renalkit.ceus.bolus import BolusKind, Lognormal, bolus_of, curve_values
from renalkit.ceus.curves import RoiCurve
from renalkit.ceus.perfusion import (
    DURATIONS,
    POWERS,
    CurveFit,
    FitOptions,
    NoBolus,
    analyse,
    fit_curve,
)

QUICK = FitOptions(resamples=0)
SIX = {"PE": "peak", "TTP": "peak_at_s", "mTT": "transit_s", "RT": "rise_s", "WiAUC": "wash_in"}
SIX |= {"t0": "arrival_s", "FT": "fall_s", "WoAUC": "wash_out", "WiR": "rise_rate"}


def made(times, power, name="lesion", **changes):
    times = np.asarray(times, float)
    curve = RoiCurve(
        name,
        times,
        np.asarray(power, float),
        np.ones(times.size, np.bool_),
        np.zeros(times.size),
        500,
    )
    return replace(curve, **changes)


def flicker(times, rng, sd, correlation_s=0.5):
    """Noise (T,) of unit mean, correlated by 1/e after so long."""
    x, out = rng.standard_normal(), []
    for pause in np.diff(times, prepend=times[0] - 1.0):
        keep = np.exp(-pause / correlation_s)
        x = keep * x + np.sqrt(1 - keep**2) * rng.standard_normal()
        out.append(1 + sd * np.clip(x, -3, 3))
    return np.array(out)


def test_the_published_bolus_is_found_again():
    bolus = Lognormal(300.0, 3.2, 0.6, 0.0)
    times = np.arange(0, 150, 0.2)
    fit = fit_curve(made(times, bolus.power(times)), QUICK)
    published = {"PE": 9.7344, "TTP": 17.1158, "mTT": 29.3708, "WiR": 1.15648, "WoR": -0.34219}
    for name, value in (published | {"WiAUC": 82.276, "mu": 3.2, "sigma": 0.6}).items():
        assert fit.value(name) == pytest.approx(value, rel=2e-5), name
    assert fit.value("t0") == pytest.approx(0.0, abs=1e-5)
    assert fit.value("QOF") == pytest.approx(1.0)
    assert fit.figures["WiAUC"].unit == "a.u. s"
    assert not fit.warnings


@pytest.mark.parametrize("kind", BolusKind)
@pytest.mark.parametrize(
    ("peak", "arrival", "offset"), [(97.0, 12.0, 0.0), (97.0, 1200.0, 3.0), (3e5, -4.0, 40.0)]
)
def test_curves_without_noise_are_fitted_exactly(kind, peak, arrival, offset):
    bolus = replace(bolus_of(kind, peak, arrival, 7.0, 30.0), offset=offset)
    times = np.arange(0, 150, 0.25) + max(0.0, arrival - 20.0) + min(0.0, arrival - 3)
    options = replace(QUICK, method=kind.value)
    fit = fit_curve(made(times, bolus.power(times)), options)
    truth = curve_values(bolus)
    for name, field in SIX.items():
        assert fit.value(name) == pytest.approx(getattr(truth, field), rel=1e-4, abs=1e-3), name
    best = fit_curve(made(times, bolus.power(times)), replace(QUICK, method="best"))
    assert best.method == kind.value


def test_uneven_frame_times_and_other_frame_rates_change_nothing():
    bolus = bolus_of(BolusKind.LOGNORMAL, 50.0, 11.0, 6.5, 34.0)
    rng = np.random.default_rng(4)
    uneven = np.cumsum(rng.uniform(0.02, 0.6, 420))
    found = [
        fit_curve(made(t, bolus.power(t)), QUICK).value("mTT")
        for t in (np.arange(0, 130, 0.2), np.arange(0, 130, 0.5), uneven)
    ]
    assert found == pytest.approx([34.0] * 3, rel=1e-4)


def test_frames_not_kept_do_not_count():
    bolus = bolus_of(BolusKind.LOGNORMAL, 50.0, 11.0, 6.5, 34.0)
    times = np.arange(0, 130, 0.2)
    power, kept = bolus.power(times), np.ones(times.size, np.bool_)
    for start in (60, 150, 300):
        power[start : start + 15] *= 8
        kept[start : start + 15] = False
    assert fit_curve(made(times, power, kept=kept), QUICK).value("PE") == pytest.approx(
        50, rel=1e-4
    )


def test_a_few_frames_far_off_hardly_count():
    bolus = bolus_of(BolusKind.LOGNORMAL, 50.0, 11.0, 6.5, 34.0)
    times = np.arange(0, 130, 0.2)
    rng = np.random.default_rng(3)
    power = bolus.power(times) * flicker(times, rng, 0.05)
    power[rng.choice(times.size, 20)] *= 6
    assert fit_curve(made(times, power), QUICK).value("PE") == pytest.approx(50, rel=0.08)


@pytest.mark.parametrize("seed", range(25))
def test_noise_is_no_bolus(seed):
    times = np.arange(0, 120, 0.2)
    power = 40 * flicker(times, np.random.default_rng(seed), 0.15, 1.0)
    found = fit_curve(made(times, power), QUICK)
    assert isinstance(found, NoBolus)


@pytest.mark.parametrize(
    ("power", "words"),
    [
        (lambda t: np.full_like(t, 7.0), "flat"),
        (lambda t: 5 + t + np.sin(3 * t), "not seen"),
        (lambda t: 150 - t + np.sin(3 * t), "not seen"),
    ],
)
def test_flat_and_drifting_curves_are_no_bolus(power, words):
    times = np.arange(0, 120, 0.2)
    found = fit_curve(made(times, power(times)), QUICK)
    assert isinstance(found, NoBolus)
    assert words in found.reason


def test_too_few_frames_are_said():
    times = np.arange(0, 120, 0.2)
    bolus = bolus_of(BolusKind.LOGNORMAL, 50.0, 11.0, 6.5, 34.0)
    few = made(times, bolus.power(times), kept=np.arange(times.size) % 60 == 0)
    assert "too few" in fit_curve(few, QUICK).reason
    short = made(times[:30], bolus.power(times[:30]))
    assert "too few" in fit_curve(short, QUICK).reason


@pytest.mark.parametrize("method", ["lognormal", "gamma-variate", "model-free"])
def test_what_a_cut_clip_does_not_show_is_not_answered(method):
    bolus = bolus_of(BolusKind.LOGNORMAL, 50.0, 11.0, 6.5, 34.0)
    times = np.arange(0, 130, 0.2)
    power = bolus.power(times) * flicker(times, np.random.default_rng(5), 0.03)
    options = replace(QUICK, method=method)
    end = times < 24
    cut = fit_curve(made(times[end], power[end]), options)
    assert isinstance(cut, CurveFit)
    for name in ("mTT", "FT", "WoAUC", "WiWoAUC", "WoR"):
        assert cut.value(name) is None, name
        assert "wash-out" in cut.figures[name].reason
    assert cut.value("TTP") == pytest.approx(17.5, abs=1.5)
    assert cut.value("PE") == pytest.approx(50, rel=0.1)
    rising = times < 14.5
    before = fit_curve(made(times[rising], power[rising]), options)
    assert isinstance(before, NoBolus)
    late = times > 16.5
    after = fit_curve(made(times[late], power[late]), options)
    if isinstance(after, CurveFit):
        for name in ("t0", "RT", "mTT", "WiAUC", "WiR", "WiPI"):
            assert after.value(name) is None, name


def test_a_tail_of_another_tissue_withholds_the_mean_transit():
    rng = np.random.default_rng(7)
    times = np.arange(0, 150, 0.2)
    fast = bolus_of(BolusKind.LOGNORMAL, 50.0, 11.0, 5.0, 8.0)
    slow = bolus_of(BolusKind.LOGNORMAL, 4.0, 14.0, 30.0, 110.0)
    power = (fast.power(times) + slow.power(times)) * flicker(times, rng, 0.08)
    mixed = fit_curve(made(times, power), FitOptions(resamples=60))
    assert mixed.value("mTT") is None
    assert "tail" in mixed.figures["mTT"].reason
    assert mixed.figures["PE"].low < 51 < mixed.figures["PE"].high
    plain = fit_curve(made(times, fast.power(times) * flicker(times, rng, 0.08) + 1), QUICK)
    assert plain.value("mTT") == pytest.approx(8.0, rel=0.1)


def test_a_plateau_after_the_bolus_widens_the_intervals():
    times = np.arange(0, 150, 0.2)
    bolus = bolus_of(BolusKind.LOGNORMAL, 50.0, 11.0, 6.0, 25.0)
    again = 5.0 / (1 + np.exp(-(times - 35) / 5))
    power = (bolus.power(times) + again) * flicker(times, np.random.default_rng(2), 0.03)
    fit = fit_curve(made(times, power), FitOptions(resamples=60))
    assert fit.value("PE") == pytest.approx(50, rel=0.12)
    assert fit.figures["PE"].low < 50 < fit.figures["PE"].high
    assert fit.figures["TTP"].low < 17 < fit.figures["TTP"].high
    assert fit.value("mTT") is None


def test_the_smoothed_curve_gives_about_the_same_figures():
    bolus = replace(bolus_of(BolusKind.LOGNORMAL, 50.0, 11.0, 7.0, 16.0), offset=2.0)
    times = np.arange(0, 150, 0.2)
    power = bolus.power(times) * flicker(times, np.random.default_rng(11), 0.04)
    fit = fit_curve(made(times, power), replace(QUICK, method="model-free"))
    truth = curve_values(bolus)
    assert fit.bolus is None
    assert fit.method == "model-free"
    assert "mu" not in fit.figures
    both = truth.wash_in + truth.wash_out
    for name, value, rel in (
        ("PE", truth.peak, 0.06),
        ("TTP", truth.peak_at_s, 0.08),
        ("WiAUC", truth.wash_in, 0.12),
        ("WiWoAUC", both, 0.08),
        ("mTT", truth.transit_s, 0.15),
    ):
        assert fit.value(name) == pytest.approx(value, rel=rel), name


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    bolus = bolus_of(BolusKind.LOGNORMAL, 50.0, 11.0, 6.5, 30.0)
    truth, times = curve_values(bolus), np.arange(0, 120, 0.5)
    options = FitOptions(resamples=60)
    held = {"PE": 0, "TTP": 0, "mTT": 0}
    n = 40
    for seed in range(n):
        power = bolus.power(times) * flicker(times, np.random.default_rng(100 + seed), 0.13) + 0.1
        fit = fit_curve(made(times, power), options)
        for name in held:
            figure = fit.figures[name]
            if figure.value is None:  # the test for a second tail is wrong in 2 %
                held[name] += 1
                continue
            held[name] += figure.low <= getattr(truth, SIX[name]) <= figure.high
            assert figure.low < figure.value < figure.high
            assert (figure.high - figure.low) / figure.value < 0.5
    assert all(0.85 * n <= count for count in held.values()), held


def test_what_two_curves_share_leaves_their_ratio():
    times = np.arange(0, 120, 0.2)
    rng = np.random.default_rng(9)
    shared = flicker(times, rng, 0.12)
    cortex = bolus_of(BolusKind.LOGNORMAL, 50.0, 11.0, 6.5, 30.0)
    lesion = bolus_of(BolusKind.LOGNORMAL, 20.0, 13.0, 6.5, 30.0)
    curves = {
        name: made(times, bolus.power(times) * shared + 0.05, name)
        for name, bolus in (("lesion", lesion), ("cortex", cortex))
    }
    found = analyse(curves, FitOptions(resamples=100))
    (comparison,) = found.comparisons
    ratio, alone = comparison.ratios["PE"], found.curves["lesion"].figures["PE"]
    assert ratio.low < 0.4 < ratio.high
    assert (ratio.high - ratio.low) / ratio.value < 0.75 * (alone.high - alone.low) / alone.value
    later = comparison.differences["TTP"]
    assert later.value == pytest.approx(2.0, abs=1.0)
    assert later.low < later.value < later.high
    assert "TTP" not in comparison.ratios
    assert set(comparison.ratios) == {*POWERS, *DURATIONS}
    again = analyse(curves, FitOptions(resamples=100)).comparisons[0].ratios["PE"]
    assert again == ratio
    known = analyse(curves, FitOptions(resamples=0, from_injection=True)).comparisons[0]
    assert known.ratios["TTP"].value == pytest.approx(19.5 / 17.5, rel=0.1)


def test_arrival_has_no_interval_and_says_why():
    times = np.arange(0, 120, 0.2)
    bolus = bolus_of(BolusKind.LOGNORMAL, 50.0, 11.0, 6.5, 30.0)
    curves = {
        name: made(times, bolus.power(times) * flicker(times, np.random.default_rng(k), 0.1), name)
        for k, name in enumerate(("lesion", "cortex"))
    }
    found = analyse(curves, FitOptions(resamples=20))
    for figure in (found.curves["lesion"].figures["t0"], found.comparisons[0].differences["t0"]):
        assert figure.value is not None
        assert figure.low is None
        assert figure.high is None
        assert figure.reason.startswith("no interval")


def test_without_a_reference_there_is_no_ratio():
    times = np.arange(0, 120, 0.2)
    bolus = bolus_of(BolusKind.LOGNORMAL, 50.0, 11.0, 6.5, 30.0)
    noise = made(times, 4 * flicker(times, np.random.default_rng(1), 0.1), "cortex")
    found = analyse({"lesion": made(times, bolus.power(times)), "cortex": noise}, QUICK)
    assert isinstance(found.curves["cortex"], NoBolus)
    assert found.comparisons == ()


def test_figures_of_grey_levels_have_another_name():
    times = np.arange(0, 120, 0.2)
    bolus = bolus_of(BolusKind.LOGNORMAL, 50.0, 11.0, 6.5, 30.0)
    fit = fit_curve(made(times, bolus.power(times), unit="grey level", linear=False), QUICK)
    assert "PE" not in fit.figures
    assert fit.figures["PE_display"].unit == "grey level"
    assert any("dynamic range" in words for words in fit.warnings)


@pytest.mark.parametrize(("share", "refused"), [(0.03, False), (0.2, True)])
def test_a_white_peak_is_said_or_refused(share, refused):
    times = np.arange(0, 120, 0.2)
    bolus = bolus_of(BolusKind.LOGNORMAL, 50.0, 11.0, 6.5, 30.0)
    white = np.full(times.size, share)
    fit = fit_curve(made(times, bolus.power(times), saturated=white), QUICK)
    assert (fit.value("PE") is None) == refused
    assert fit.value("TTP") is not None
    assert any("white" in words for words in fit.warnings)


def test_curves_of_different_frames_are_not_compared():
    times = np.arange(0, 120, 0.2)
    a = made(times, np.ones(times.size))
    with pytest.raises(ValueError, match="same frames"):
        analyse({"a": a, "b": replace(a, times_s=times + 1)})
    with pytest.raises(ValueError, match="no curve"):
        analyse({})
    with pytest.raises(ValueError, match="make no sense"):
        FitOptions(level=1.2)
