"""Figures, flow chart and overlays: equal bytes, well-formed, and nothing foreign gets through."""

from __future__ import annotations

import base64
import csv
import io
import re
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgb

from renalkit.domain.geometry import MaskRLE
from renalkit.writers.csv_table import csv_text
from renalkit.writers.figures import (
    Course,
    Curve,
    FrocLine,
    Interval,
    Matrix,
    Panel,
    colour,
    confusion,
    dash,
    free_response,
    intervals,
    learning_curves,
    mark,
    roc,
    shades,
    spread,
    standalone,
)
from renalkit.writers.flowchart import FlowCounts, flow_chart
from renalkit.writers.overlays import Tile, contour_path, gallery, grey_image, png_uri
from renalkit.writers.wording import Estimate

NASTY = "<img src=x onerror=alert(1)>$\\frac{1$\x1b[2J\u202e&\"'"
ESTIMATE = Estimate(0.8, 0.7, 0.9, 0.95, 30, "patient", "bootstrap")
UNDEFINED = Estimate(None, None, None, 0.95, 0, "", "", "one class")
ROC = [Panel("", (Curve(NASTY, (0.0, 0.2, 1.0), (0.0, 0.9, 1.0)),))]
FLOW = FlowCounts(51, 52, 48, 49, 91, ((NASTY, 2), ("no reference standard " * 6, 1)))
DRAWINGS = {
    "roc": lambda: roc(ROC),
    "roc-panels": lambda: roc(ROC * 4),
    "intervals": lambda: intervals(
        [Interval(NASTY, ESTIMATE, (0.7, 0.9)), Interval("b", UNDEFINED, place=1)], NASTY, 0.5
    ),
    "spread": lambda: spread([(NASTY, [0.1, 0.1, 1.0], 1), ("none", [], 0)], "Dice"),
    "confusion": lambda: confusion(
        [Matrix(NASTY, ("a", NASTY, "c"), ((1, 2, 3), (0, 0, 0), (4, 5, 6)))] * 5
    ),
    "curves": lambda: learning_curves(
        [Course(0, (1, 2), {"train_loss": (1.0, 0.5), "dice": (None, 0.4)}, 2)]
    ),
    "curves-empty": lambda: learning_curves([Course(0, (), {}, None)]),
    "free-response": lambda: free_response(
        [FrocLine(NASTY, (0.0, 0.5), (0.4, 0.9)), FrocLine("one point", (0.0,), (1.0,), 1)]
    ),
    "flow": lambda: flow_chart(FLOW, [(NASTY, 1, 2), ("b", 3, 4), ("c", 5, 6)]),
    "flow-bare": lambda: flow_chart(FlowCounts(0, 0, 0, 0, 0, ()), []),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_drawings_are_equal_wellformed_and_inert(name: str) -> None:
    first, second = DRAWINGS[name](), DRAWINGS[name]()
    assert first == second
    tree = ElementTree.fromstring(standalone(first).encode())
    tags = {element.tag.rpartition("}")[2] for element in tree.iter()}
    assert not tags & {"script", "img", "metadata", "foreignObject"}
    assert "\x1b" not in first.markup
    assert not re.search(r"https?://(?!www\.w3\.org/)", first.markup)


def test_no_two_of_many_systems_look_alike() -> None:
    looks = [(colour(k), str(dash(k)), mark(k)) for k in range(24)]
    assert len(set(looks)) == 24
    assert len({look[0] for look in looks[:8]}) == 8
    assert len({look[2] for look in looks[:8]}) == 8, "told apart in grey by the marker"
    assert colour(None) not in {look[0] for look in looks}


def test_colours_differ_to_every_colour_vision() -> None:
    """Smallest distance of any two of the first six, as trichromats and dichromats see them.

    Dichromats: Vienot, Brettel and Mollon 1999, Color Res Appl 24:243.
    """
    rgb = np.array([to_rgb(colour(k)) for k in range(6)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    protan = np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]])
    deutan = np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]])
    for seen in (np.eye(3), protan, deutan):
        there = np.clip(linear @ seen.T, 0, 1) ** (1 / 2.2)
        apart = [np.linalg.norm(a - b) for i, a in enumerate(there) for b in there[:i]]
        assert min(apart) > 0.12


def test_folds_are_shades_of_their_system() -> None:
    found = shades(1, 5)
    assert found[0] == to_rgb(colour(1))
    assert [sum(f) for f in found] == sorted(sum(f) for f in found)
    assert shades(2, 1) == [to_rgb(colour(2))]


def test_the_flow_chart_has_every_reason_and_count() -> None:
    words = " ".join(
        ElementTree.fromstring(flow_chart(FLOW, [("benign", 19, 39)]).markup).itertext()
    )
    for expected in (
        "51 patients, 52 studies",
        "48 patients, 49 studies",
        "91 images",
        "Excluded: 3 studies",
        "39 images",
    ):
        assert expected in words
    assert " ".join(words.split()).count("no reference standard") == 6


@given(st.text())
def test_D56_no_cell_is_a_formula(text: str) -> None:
    row = next(
        iter(csv.reader(io.StringIO(csv_text((), [[text, 1.5]]).partition("\n")[2], newline="")))
    )
    assert not row[0].startswith(("=", "+", "-", "@", "\t", "\r"))


def test_csv_keeps_negative_numbers_and_empties_undefined_ones() -> None:
    assert csv_text(("a", "b", "c"), [(-0.25, None, float("nan"))]) == "a,b,c\n-0.25,,\n"


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(2, 12))
def test_contours_enclose_their_mask(seed: int, side: int) -> None:
    """Filling the outline at high resolution covers the centre of every pixel of the mask only."""
    mask = np.random.default_rng(seed).random((side, side)) > 0.5
    path = contour_path(MaskRLE.encode(mask), 16.0)
    canvas = np.zeros((side * 16, side * 16), np.uint8)
    rings = [
        np.array([[float(v) for v in point.split()] for point in ring.strip("M").split("L")])
        for ring in path.split("Z")
        if ring
    ]
    if rings:
        cv2.fillPoly(canvas, [np.round(r).astype(np.int32) for r in rings], 1)
    assert (canvas[8::16, 8::16][mask] == 1).all()


def test_a_gallery_shows_pictures_contours_and_attention() -> None:
    image = np.full((40, 60), 90, np.uint8)
    mask = np.zeros((40, 60), bool)
    mask[10:20, 10:30] = True
    tile = Tile(
        image,
        MaskRLE.encode(mask),
        MaskRLE.encode(~mask),
        NASTY,
        "Dice 0.5\nb",
        np.eye(8, dtype=np.uint8),
    )
    bare = Tile(image, None, None, "Worst", "Dice 0")
    svg = gallery([tile, bare], NASTY)
    assert svg == gallery([tile, bare], NASTY)
    tree = ElementTree.fromstring(svg.markup)
    tags = [element.tag.rpartition("}")[2] for element in tree.iter()]
    assert tags.count("image") == 3
    assert tags.count("path") == 4
    assert not {"script", "img"} & set(tags)


@given(st.integers(1, 20), st.integers(1, 20))
def test_pictures_are_kept_bit_for_bit(rows: int, cols: int) -> None:
    image = np.random.default_rng([rows, cols]).integers(0, 256, (rows, cols), dtype=np.uint8)
    data = base64.b64decode(png_uri(image).partition(",")[2])
    back = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(back, image)


def test_grey_image_takes_colour_depth_and_constants() -> None:
    assert grey_image(np.zeros((2, 3, 3), np.uint8)).shape == (2, 3)
    assert grey_image(np.full((2, 2), 7, np.uint16)).max() == 0
    assert grey_image(np.array([[0.0, 1.0]])).tolist() == [[0, 255]]
