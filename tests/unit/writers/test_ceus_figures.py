"""Pages of perfusion: everything drawn stands in a table, and equal results give equal bytes."""

import csv
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from renalkit.ceus.bolus import BolusKind, bolus_of
from renalkit.ceus.curves import RoiCurve
from renalkit.ceus.maps import CellCurves, parametric_maps, summarise
from renalkit.ceus.perfusion import FitOptions, analyse
from renalkit.domain.geometry import Box
from renalkit.writers.ceus_figures import (
    CeusPage,
    Picture,
    map_png,
    page_png,
    page_svg,
)
from renalkit.writers.ceus_tables import (
    curves_csv,
    figure_rows,
    figures_csv,
    map_rows,
    maps_csv,
    plain,
)

TIMES = np.arange(0, 90, 0.5)
SHAPE = (60, 80)
PNG = b"\x89PNG"


def curve(name, power):
    kept = np.arange(TIMES.size) % 17 != 3
    return RoiCurve(name, TIMES, power, kept, np.zeros(TIMES.size), 100)


@pytest.fixture(scope="module")
def bolus():
    return bolus_of(BolusKind.LOGNORMAL, 800.0, 10.0, 6.0, 25.0).power(TIMES)


@pytest.fixture(scope="module")
def curves(bolus):
    rng = np.random.default_rng(0)
    flicker = 1 + 0.05 * rng.standard_normal((2, TIMES.size))
    return {
        "lesion": curve("lesion", 0.5 * bolus * flicker[0]),
        "cortex": curve("cortex", bolus * flicker[1]),
        "=cmd|' /C calc'!A0": curve("=cmd|' /C calc'!A0", 5 * flicker[0]),
    }


@pytest.fixture(scope="module")
def perfusion(curves):
    return analyse(curves, FitOptions(resamples=20))


@pytest.fixture(scope="module")
def maps(bolus):
    power = (bolus[:, None, None] * np.linspace(0.5, 1, 12).reshape(3, 4)).astype(np.float32)
    cells = CellCurves(
        Box(8, 8, 32, 24), 8, TIMES, power, np.ones_like(power), unit="a.u.", linear=True
    )
    return parametric_maps(cells)


@pytest.fixture(scope="module")
def page(curves, perfusion, maps):
    grey = np.arange(SHAPE[0] * SHAPE[1], dtype=np.uint32).reshape(SHAPE) % 255
    mask = np.zeros(SHAPE, np.bool_)
    mask[10:30, 10:36] = True
    masks = {"lesion": mask}
    phases = (("cortical", 10.0, 30.0), ("medullary", 30.0, 90.0))
    pane = grey.astype(np.uint8)
    bmode, contrast = Picture("B-mode, 3.0 s", pane, masks), Picture("Contrast", pane, masks)
    notes = ("96% of 180 frames in plane",)
    warnings = ("region 'lesion' is a box",)
    return CeusPage(
        *("A & B <1>", bmode, contrast, curves, perfusion, phases, maps),
        *((0.2, 0.2), warnings, notes),
    )


def test_a_page_shows_what_was_found(page):
    drawing = page_svg(page).markup
    assert "A &amp; B &lt;1&gt;" in drawing
    assert "lesion: lognormal" in drawing
    assert "mean transit time" in drawing
    assert "no bolus" in drawing
    assert "is a box" in drawing
    assert "in plane" in drawing
    assert "1 cm" in drawing


def test_a_page_without_maps_or_b_mode_is_shorter_and_has_equal_bytes(curves, perfusion, page):
    bare = CeusPage("x", None, Picture("Contrast", page.contrast.pixels, {}), curves, perfusion)
    first = page_svg(bare).markup
    assert "mean transit time" not in first
    assert "B-mode" not in first
    assert first == page_svg(bare).markup
    assert page_png(bare).startswith(PNG)


def test_a_map_has_its_scale(maps, page):
    assert map_png(maps, "PE", page.contrast.masks).startswith(PNG)
    with pytest.raises(KeyError):
        map_png(maps, "PEAK")


def test_tables_hold_every_figure(perfusion):
    rows = figure_rows(perfusion)
    by = {(row[0], row[1]): row for row in rows}
    fit = perfusion.curves["lesion"]
    peak = fit.figures["PE"]
    assert by["lesion", "PE"][2:6] == ("a.u.", peak.value, peak.low, peak.high)
    assert by["lesion / cortex", "PE"][3] == pytest.approx(0.5, rel=0.1)
    assert by["lesion - cortex", "TTP"][2] == "s"
    refused = [row for row in rows if row[6].startswith("no bolus")]
    assert len(refused) == 1
    table = list(csv.reader(io.StringIO(figures_csv(perfusion))))
    assert len(table) == len(rows) + 1
    assert not any(cell.startswith("=") for row in table for cell in row)


def test_the_table_of_curves_has_a_row_per_frame(curves, perfusion):
    table = list(csv.DictReader(io.StringIO(curves_csv(curves, perfusion))))
    assert len(table) == TIMES.size
    assert float(table[40]["time_s"]) == 20.0
    assert float(table[40]["cortex_power"]) == pytest.approx(curves["cortex"].power[40], rel=1e-6)
    assert table[3]["lesion_kept"] == "0"
    assert float(table[40]["cortex_fit"]) > 0


def test_maps_are_summarised_per_region(maps, page):
    summaries = summarise(maps, page.contrast.masks)
    table = list(csv.DictReader(io.StringIO(maps_csv(summaries))))
    assert [row["name"] for row in table] == ["PE", "TTP", "WiAUC", "mTT"]
    assert int(table[0]["cells"]) == map_rows(summaries)[0]["cells"] > 0


def test_plain_values_go_into_json(perfusion):
    found = json.loads(json.dumps(plain(perfusion), allow_nan=False))
    assert found["regions"]["lesion"]["figures"]["PE"]["unit"] == "a.u."
    assert found["comparisons"][0]["ratios"]["PE"]["value"] == pytest.approx(0.5, rel=0.1)
    assert found["options"]["method"] == "lognormal"
    assert any("refused" in region for region in found["regions"].values())


def test_names_of_short_phases_stand_above_one_another(page):
    phases = (("baseline", 0.0, 3.0), ("cortical", 3.0, 6.0), ("medullary", 6.0, 90.0))
    drawing = page_svg(replace(page, phases=phases)).markup
    lines = [
        re.search(rf'<text[^>]*?y="([\d.]+)"[^>]*> ?{name}</text>', drawing)[1]
        for name, *_ in phases
    ]
    assert len(set(lines)) == len(lines)


def test_only_the_surroundings_of_the_regions_are_shown(page):
    tall = np.zeros(SHAPE, np.bool_)
    tall[5:55, 30:36] = True
    pictures = (replace(page.contrast, masks={}), replace(page.contrast, masks={"lesion": tall}))
    whole, cut = (
        int.from_bytes(page_png(replace(page, bmode=None, contrast=one, maps=None))[20:24])
        for one in pictures
    )
    assert cut > whole
