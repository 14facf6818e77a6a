"""Does every figure of a bolus fit reach the report under one code, with its unit and interval?"""

import importlib
import sys
from dataclasses import replace
from io import BytesIO
from itertools import chain
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest

from renalkit.ceus.bolus import Lognormal
from renalkit.ceus.curves import RoiCurve
from renalkit.ceus.perfusion import POWERS, FitOptions, analyse
from renalkit.writers.dicom_out.codes import CORTEX, INJECTION, LESION, PRIVATE
from renalkit.writers.dicom_out.perfusion import (
    FIGURES,
    coded,
    compared,
    echo_curve,
    fit_algorithm,
    quantities,
)
from renalkit.writers.dicom_out.report import (
    MOST_CURVE_POINTS,
    Finding,
    Quantity,
    measurement_report,
)

sys.path.insert(0, str(Path(__file__).parent))
made = importlib.import_module("sources")

OPTIONS = FitOptions(resamples=40)
TIMES = np.arange(0.0, 120.0, 0.5)


def curve(name, peak, seed, linear=True):
    bolus = Lognormal(area=300.0 * peak, mu=3.2, sigma=0.6, arrival_s=6.0, offset=0.2)
    noise = np.random.default_rng(seed).normal(0, 0.15, TIMES.size)
    return RoiCurve(
        name,
        TIMES,
        bolus.power(TIMES) + noise,
        np.ones(TIMES.size, bool),
        np.zeros(TIMES.size),
        pixels=400,
        unit="a.u." if linear else "grey",
        linear=linear,
    )


@pytest.fixture(scope="module", params=[True, False], ids=["linear", "grey"])
def perfusion(request):
    curves = {n: curve(n, p, i, request.param) for i, (n, p) in enumerate([("lesion", 1.5), ("cortex", 1.0)])}  # fmt: skip
    return analyse(curves, OPTIONS)


def test_every_figure_is_written_once_with_value_and_interval(perfusion):
    fit, (comparison,) = perfusion.curves["lesion"], perfusion.comparisons
    found = quantities(fit, comparison)
    everything = [*fit.figures.values(), *comparison.ratios.values(), *comparison.differences.values()]  # fmt: skip
    there = [f for f in everything if f.value is not None]
    assert [q.value for q in found] == [f.value for f in there]
    assert [q.interval for q in found] == [None if f.low is None else (f.low, f.high) for f in there]  # fmt: skip
    concepts = [(q.concept.scheme, q.concept.value) for q in found]
    assert len(set(concepts)) == len(concepts) > 20
    assert sum(q.interval is not None for q in found) > 20


def test_units_are_those_of_the_fit(perfusion):
    fit = perfusion.curves["lesion"]
    unit = "[arb'U]" if fit.linear else "{grey}"
    words = {"": unit, "/s": unit + "/s", " s": unit + ".s"}
    for name, figure in fit.figures.items():
        _, found = coded(name)
        if name.removesuffix("_display") in POWERS:
            assert found.value == words[figure.unit.removeprefix(fit.unit)]
        else:
            assert found.value == (figure.unit if figure.unit == "s" else "1")


def test_a_report_holds_them(perfusion):
    fit, (comparison,) = perfusion.curves["lesion"], perfusion.comparisons
    found = quantities(fit, comparison)
    algorithm = fit_algorithm(fit, OPTIONS)
    findings = [
        Finding("Lesion 1", LESION, found, frame=0, mask=made.block(), algorithm=algorithm),
        Finding("Cortex", CORTEX, quantities(perfusion.curves["cortex"]), algorithm=algorithm),
    ]
    buffer = BytesIO()
    data = measurement_report(made.source(), findings, made.LABEL)
    pydicom.dcmwrite(buffer, data, enforce_file_format=True)
    buffer.seek(0)
    (group,) = hd.sr.srread(buffer).content.get_planar_roi_measurement_groups()
    read = {m.name.value: (m.value, m.unit.value) for m in group.get_measurements()}
    assert read == {q.concept.value: (q.value, q.unit.value) for q in found}
    said = [item.TextValue for item in group[0].ContentSequence if item.ValueType == "TEXT"]
    assert "interval=95 %" in said
    assert any(text.startswith("bootstrap=40 resamples in blocks of") for text in said)


def test_what_the_clip_does_not_show_is_left_out(perfusion):
    fit = perfusion.curves["lesion"]
    figures = dict(fit.figures)
    name = next(iter(figures))
    figures[name] = replace(figures[name], value=None, low=None, high=None, reason="not seen")
    found = quantities(replace(fit, figures=figures))
    assert coded(name)[0] not in [q.concept for q in found]
    assert len(found) == len(quantities(fit)) - 1


def test_codes_are_unique_and_fit_their_elements():
    names = list(chain(FIGURES, (f"{name}_display" for name in FIGURES)))
    codes = [coded(name)[0] for name in names]
    codes += [compared(name, ratio=r)[0] for name in names if name[:2] not in ("mu", "si", "al", "be", "QO") for r in (True, False)]  # fmt: skip
    assert len({(c.scheme, c.value) for c in codes}) == len(codes)
    assert all(c.scheme == PRIVATE for c in codes[len(FIGURES) :])


def test_a_long_curve_is_thinned_evenly_to_its_kept_points():
    long = curve("lesion", 1.0, 1)
    times = np.arange(1800) / 10
    kept = np.ones(1800, bool)
    kept[[0, 900]] = False
    whole = replace(long, times_s=times, power=np.sqrt(times), kept=kept, saturated=np.zeros(1800))
    found = echo_curve(whole, INJECTION)
    assert len(found.values) == MOST_CURVE_POINTS
    assert (found.frames[0], found.frames[-1]) == (1, 1799)
    assert 900 not in found.frames
    assert max(np.diff(found.frames)) <= 9
    assert list(found.values) == [float(v) for v in whole.power[list(found.frames)]]
    assert found.since is INJECTION
    short = echo_curve(long)
    assert list(short.times_s) == list(TIMES)
    assert short.concept.value == "POWER"
    assert echo_curve(curve("lesion", 1.0, 1, linear=False)).concept.value == "GREY"


def test_no_intervals_no_bootstrap():
    fit = analyse({"lesion": curve("lesion", 1.0, 3)}, FitOptions(resamples=0)).curves["lesion"]
    assert not any(isinstance(q, Quantity) and q.interval for q in quantities(fit))
    assert set(fit_algorithm(fit, FitOptions(resamples=0)).parameters) == {"frames", "region"}
