"""Outlines, run lengths, LabelMe, COCO, CVAT and box tables. COCO goldens: pycocotools 2.0.11."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from renalkit.domain.geometry import Box, MaskRLE
from renalkit.domain.study import RoiOrigin
from renalkit.errors import InputRefused, Reason
from renalkit.readers.annotation_files import (
    labelme_frame,
    parse_xml,
    read_box_table,
    read_coco,
    read_cvat_video,
    read_labelme,
)
from renalkit.readers.annotations import (
    EMPTY,
    OUTSIDE,
    FrameAnnotation,
    MaskValues,
    box_around,
    fitted,
    joined_roi,
    mask_pixels,
    merged,
)
from renalkit.readers.outlines import circle_outline, coco_runs, polygon_mask, runs_mask

_corner = st.tuples(st.floats(-5, 25), st.floats(-5, 25))


def _by_pixel(points, rows, cols):
    """Even-odd rule asked of every pixel centre, one crossing at a time."""
    mask = np.zeros((rows, cols), bool)
    for y in range(rows):
        for x in range(cols):
            cx, cy, inside = x + 0.5, y + 0.5, False
            for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
                if (y0 <= cy) != (y1 <= cy) and x0 + (cy - y0) * (x1 - x0) / (y1 - y0) <= cx:
                    inside = not inside
            mask[y, x] = inside
    return mask


@settings(max_examples=60, deadline=None)
@given(st.lists(_corner, min_size=3, max_size=8))
def test_polygon_equals_the_rule_applied_pixel_by_pixel(points):
    assert np.array_equal(polygon_mask(points, 18, 20), _by_pixel(points, 18, 20))


@given(st.integers(0, 12), st.integers(0, 12), st.integers(1, 12), st.integers(1, 12))
def test_rectangles_on_pixel_edges_have_their_area(x, y, width, height):
    corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
    mask = polygon_mask(corners, 30, 30)
    assert mask.sum() == width * height
    assert mask[y : y + height, x : x + width].all()


@given(st.lists(_corner, min_size=3, max_size=6), st.floats(0, 20))
def test_two_halves_of_the_picture_share_no_pixel(points, at):
    left = polygon_mask([(-9, -9), (at, -9), (at, 40), (-9, 40)], 20, 20)
    right = polygon_mask([(at, -9), (40, -9), (40, 40), (at, 40)], 20, 20)
    assert (left ^ right).all()
    assert not polygon_mask(points[:2], 20, 20).any()


def test_polygon_near_other_software():
    """pycocotools covers 2,806 pixels of this polygon, 11 of them elsewhere."""
    corners = [(10.5, 8.25), (60.75, 12.5), (70.1, 55.2), (33.3, 70.9), (8.8, 40.4)]
    x, y = np.array(corners).T
    area = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
    assert abs(int(polygon_mask(corners, 80, 90).sum()) - 2806) <= 2
    assert polygon_mask(corners, 80, 90).sum() == pytest.approx(area, abs=5)


def test_circle_has_its_area():
    outline = np.array(circle_outline((50, 50), (80, 50)))
    x, y = outline.T
    area = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
    assert area == pytest.approx(np.pi * 900, rel=1e-12)
    assert polygon_mask([tuple(p) for p in outline], 100, 100).sum() == pytest.approx(2827, abs=30)


@pytest.mark.parametrize("points", [[(0, 0)] * 20_001, [(0, 0), (1, 1), (float("nan"), 2)]])
def test_polygon_refuses(points):
    with pytest.raises(ValueError, match="outline"):
        polygon_mask(points, 5, 5)


def _golden_mask():
    mask = np.zeros((9, 12), bool)
    mask[2:7, 3:9] = True
    mask[4, 5], mask[0, 0], mask[8, 11] = False, True, True
    return mask


GOLDEN = "01l04XO00MM0330000h0L"


def test_coco_runs_of_pycocotools():
    runs = coco_runs(GOLDEN, 1000)
    assert np.array_equal(runs_mask(runs, 9, 12, by_column=True), _golden_mask())


def _compressed(runs):
    """The encoder of COCO's text, the inverse written from its description."""
    text = ""
    for index, run in enumerate(runs):
        value = run - runs[index - 2] if index > 2 else run
        more = True
        while more:
            low = value & 0x1F
            value >>= 5
            more = value != (-1 if low & 0x10 else 0)
            text += chr(48 + (low | (0x20 if more else 0)))
    return text


@given(arrays(np.bool_, st.tuples(st.integers(1, 30), st.integers(1, 30))))
def test_coco_runs_round_trip(mask):
    runs = list(MaskRLE.encode(mask.T).runs)
    assert np.array_equal(
        runs_mask(coco_runs(_compressed(runs), 1000), *mask.shape, by_column=True), mask
    )
    assert np.array_equal(runs_mask(MaskRLE.encode(mask).runs, *mask.shape, by_column=False), mask)


@pytest.mark.parametrize("text", ["P", "01l04XO00MM0330000h0 ", "ü", "oooooooooooooooooooo"])
def test_coco_runs_refuse(text):
    with pytest.raises(ValueError, match="compressed runs"):
        coco_runs(text, 1000)


def test_runs_must_cover_the_picture():
    with pytest.raises(ValueError, match="cover 5 pixels"):
        runs_mask([2, 3], 2, 3, by_column=False)


# --- LabelMe --------------------------------------------------------------------------------


def _shape(label, points, kind="polygon", group=None):
    return {"label": label, "points": points, "shape_type": kind, "group_id": group}


def _labelme(*shapes, rows=20, cols=30):
    content = {"imageHeight": rows, "imageWidth": cols, "shapes": list(shapes)}
    return json.dumps(content).encode()


def test_labelme_shapes_merge_and_holes_take_away_in_order():
    big = _shape("tumour", [[2, 2], [12, 2], [12, 12], [2, 12]])
    hole = _shape("hole", [[4, 4], [8, 8]], "rectangle")
    island = _shape("tumour", [[5, 5], [6, 6]], "rectangle")
    (item,) = read_labelme(_labelme(big, hole, island), file="a", frame=3)
    mask = item.mask.decode()
    assert (item.frame, item.lesion, item.label, item.defects) == (3, "1", "tumour", ())
    assert mask.sum() == 100 - 16 + 1
    assert mask[5, 5]
    assert not mask[4, 4]
    (first_hole,) = read_labelme(_labelme(hole, big), file="a")
    assert first_hole.mask.area_px == 100


def test_labelme_groups_are_lesions():
    one = _shape("cyst", [[2, 2], [4, 4]], "rectangle", 1)
    two = _shape("solid", [[10, 10], [14, 10]], "circle", 2)
    items = read_labelme(_labelme(one, two), file="a")
    assert [(i.lesion, i.label) for i in items] == [("1", "cyst"), ("2", "solid")]
    assert items[1].mask.area_px == pytest.approx(np.pi * 16, abs=4)


def test_labelme_notes_points_outside_and_empty_outlines():
    (item,) = read_labelme(_labelme(_shape("x", [[25, 15], [40, 30]], "rectangle")), file="a")
    assert item.defects == (OUTSIDE,)
    assert item.mask.area_px == 25
    (item,) = read_labelme(_labelme(_shape("x", [[1, 1], [1.2, 1], [1.2, 1.2]])), file="a")
    assert item.mask is None
    assert item.defects == (EMPTY,)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (_labelme(_shape("x", [[1, 1], [5, 5]], "line")), "shape type 'line'"),
        (_labelme(_shape("x", [[1, 1], [5, 5]])), "a polygon of 2 points"),
        (_labelme(_shape("x", [[1, 1], [5, 5], [2, 3]], "circle")), "a circle of 3"),
        (_labelme(_shape("x", [[1, "1"], [5, 5], [3, 3]])), "not two numbers"),
        (_labelme(_shape(7, [[1, 1], [5, 5], [1, 2]])), "without a label"),
        (_labelme(_shape("x", [[1, 1], [5, 5]], "rectangle"),
                  _shape("y", [[1, 1], [5, 5]], "rectangle")), "two labels for one lesion"),
        (_labelme(rows=0), "no usable picture size"),
        (_labelme(rows=10**6), "no usable picture size"),
        (b'{"imageHeight": 5, "imageWidth": 5}', "shapes is no JSON list"),
        (b"[1]", "no JSON object"),
        (b'{"imageHeight": NaN}', "not strict JSON"),
    ],
)  # fmt: skip
def test_labelme_refuses(data, words):
    with pytest.raises(InputRefused, match=words):
        read_labelme(data, file="a.json")


def test_labelme_frame_names():
    assert labelme_frame("cine_frame000123") == ("cine", 123)
    assert labelme_frame("cine") == ("cine", 0)


# --- COCO -----------------------------------------------------------------------------------


def _coco(*annotations, rows=9, cols=12):
    return json.dumps({
        "images": [{"id": 1, "file_name": "a.png", "height": rows, "width": cols},
                   {"id": 2, "file_name": "b.png", "height": rows, "width": cols}],
        "categories": [{"id": 1, "name": "tumour"}],
        "annotations": [{"image_id": 1, "category_id": 1, **a} for a in annotations],
    }).encode()  # fmt: skip


def test_coco_forms_agree():
    mask = _golden_mask()
    runs = list(MaskRLE.encode(mask.T).runs)
    for segmentation in ({"size": [9, 12], "counts": GOLDEN}, {"size": [9, 12], "counts": runs}):
        (item,) = read_coco(_coco({"segmentation": segmentation}), file="c")
        assert np.array_equal(item.mask.decode(), mask)
        assert (item.file, item.label) == ("a.png", "tumour")
    (item,) = read_coco(_coco({"segmentation": [[3, 2, 9, 2, 9, 7, 3, 7]]}), file="c")
    assert item.mask.area_px == 30


def test_coco_annotations_of_a_picture_merge():
    left, right = [[0, 0, 2, 0, 2, 2, 0, 2]], [[1, 1, 3, 1, 3, 3, 1, 3]]
    (item,) = read_coco(_coco({"segmentation": left}, {"segmentation": right}), file="c")
    assert item.mask.area_px == 7
    items = read_coco(
        _coco({"segmentation": left, "attributes": {"lesion": 1}},
              {"segmentation": right, "attributes": {"lesion": 2}}), file="c"
    )  # fmt: skip
    assert [(i.lesion, i.mask.area_px) for i in items] == [("1", 4), ("2", 4)]
    (item,) = read_coco(_coco({"bbox": [1, 2, 3.5, 4]}), file="c")
    assert item.box == Box(1, 2, 4, 4)


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        ({"segmentation": {"size": [12, 9], "counts": GOLDEN}}, "another picture size"),
        ({"segmentation": {"size": [9, 12], "counts": [1, 2]}}, "runs cover 3 pixels"),
        ({"segmentation": {"size": [9, 12], "counts": [1.5]}}, "not whole numbers"),
        ({"segmentation": {"size": [9, 12], "counts": [-1, 109]}}, "runs cover"),
        ({"segmentation": {"size": [9, 12], "counts": None}}, "neither a list nor text"),
        ({"segmentation": [[1, 1, 2, 2]]}, "three or more"),
        ({"image_id": 9}, "unknown picture"),
        ({"category_id": 9}, "unknown picture or category"),
        ({"image_id": [1]}, "unknown picture"),
        ({}, "bbox is no JSON list"),
        ({"bbox": [1, 1, 0, 5]}, "box without area"),
    ],
)
def test_coco_refuses(annotation, words):
    with pytest.raises(InputRefused, match=words):
        read_coco(_coco(annotation), file="c.json")


# --- CVAT -----------------------------------------------------------------------------------

_META = "<meta><task><original_size><width>30</width><height>20</height></original_size>" \
        "<source>cine.mp4</source></task></meta>"  # fmt: skip


def _cvat(*tracks):
    return f"<?xml version='1.0' encoding='utf-8'?><annotations>{_META}{''.join(tracks)}</annotations>".encode()


_BOX = '<box frame="{}" outside="{}" keyframe="{}" xtl="2.5" ytl="3" xbr="7.25" ybr="9"/>'


def test_cvat_tracks():
    boxes = "".join(_BOX.format(f, o, k) for f, o, k in ((0, 0, 1), (1, 0, 0), (2, 1, 1)))
    mask = '<mask frame="4" outside="0" keyframe="1" rle="1, 2, 3" left="5" top="6" width="3" height="2"/>'
    polygon = '<polygon frame="4" outside="0" keyframe="1" points="1,1;4,1;4,3;1,3"/>'
    items = read_cvat_video(
        _cvat(
            f'<track id="0" label="tumour">{boxes}</track>',
            f'<track id="1" label="cyst">{mask}</track>',
            f'<track id="2" label="cyst">{polygon}<attribute name="lesion">L2</attribute></track>',
        ),
        file="x.xml",
    )
    assert [(i.frame, i.lesion, i.label, i.origin) for i in items] == [
        (0, "0", "tumour", RoiOrigin.REFERENCE),
        (1, "0", "tumour", RoiOrigin.PROPAGATED),
        (4, "1", "cyst", RoiOrigin.REFERENCE),
        (4, "L2", "cyst", RoiOrigin.REFERENCE),
    ]
    assert {i.file for i in items} == {"cine.mp4"}
    assert items[0].box == Box(2, 3, 6, 6)
    expected = np.zeros((20, 30), bool)
    expected[6, 6], expected[6, 7] = True, True
    assert np.array_equal(items[2].mask.decode(), expected)
    assert items[3].mask.area_px == 6


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"<!DOCTYPE a [<!ENTITY b 'c'>]><annotations>&b;</annotations>", "document type"),
        (b"<!DOCTYPE a SYSTEM 'file:///etc/passwd'><annotations/>", "document type"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><annotations/>".encode("utf-16"), "document type"),
        (b"<annotations>", "not well-formed"),
        (b"", "not well-formed"),
        (b"<a/>", "no CVAT annotations"),
        (b"<annotations/>", "no original_size"),
        (b"<a>" * 40 + b"</a>" * 40, "nested too deeply"),
        (_cvat('<track id="0"><points frame="1" points="1,1"/></track>'), "shape 'points'"),
        (_cvat('<track id="0"><box frame="x"/></track>'), "not whole"),
        (
            _cvat('<track id="0"><box frame="1" xtl="nan" ytl="1" xbr="2" ybr="2"/></track>'),
            "no number",
        ),
        (
            _cvat('<track id="0"><box frame="1" xtl="3" ytl="1" xbr="2" ybr="2"/></track>'),
            "without area",
        ),
        (
            _cvat(
                '<track id="0"><box frame="1" rotation="9" xtl="1" ytl="1" xbr="2" ybr="2"/></track>'
            ),
            "rotated",
        ),
        (
            _cvat(
                '<track id="0"><mask frame="1" rle="7" left="28" top="0" width="3" height="2"/></track>'
            ),
            "leaves",
        ),
        (
            _cvat(
                '<track id="0"><mask frame="1" rle="7" left="1" top="0" width="3" height="2"/></track>'
            ),
            "runs cover 7",
        ),
        (_cvat('<track id="0">' + 2 * _BOX.format(1, 0, 1) + "</track>"), "twice on frame 1"),
    ],
)
def test_cvat_refuses(data, words):
    with pytest.raises(InputRefused, match=words):
        read_cvat_video(data, file="x.xml")


@given(st.binary(max_size=200))
def test_any_bytes_as_xml(data):
    for text in (data, b"<annotations>" + data):
        try:
            parse_xml(text, where="x")
        except InputRefused as error:
            assert error.where == "x"  # noqa: PT017


# --- Boxes, masks, pictures ------------------------------------------------------------------


def test_box_table():
    text = (
        b"file,frame,x,y,width,height,lesion,label\nc.mp4,0,1.5,2,3,4,,\nc.mp4,7,-2,0,9,9,B,cyst\n"
    )
    first, second = read_box_table(text, file="boxes.csv")
    assert (first.frame, first.lesion, first.box, first.label) == (0, "1", Box(1, 2, 4, 4), None)
    assert (second.frame, second.lesion, second.box) == (7, "B", Box(0, 0, 7, 9))
    assert second.defects == (OUTSIDE,)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a,0,1,1,0,5,1", "line 2: a box without area"),
        ("a,-1,1,1,5,5,1", "line 2: a number that is missing"),
        ("a,0,,1,5,5,1", "line 2: a line without"),
        ("a,0,1,1,5,5,1\na,0,2,2,5,5,1", "line 3: a second box"),
        ("a,0,1,1,5,x,1", "line 2: a cell that is not a number"),
    ],
)
def test_box_table_refuses(line, words):
    text = f"file,frame,x,y,width,height,lesion\n{line}\n".encode()
    with pytest.raises(InputRefused, match=words):
        read_box_table(text, file="boxes.csv")


@given(st.floats(-20, 40), st.floats(-20, 40), st.floats(0.1, 30), st.floats(0.1, 30))
def test_boxes_contain_their_edges_inside_the_picture(x, y, width, height):
    box, notes = box_around(x, y, x + width, y + height)
    assert (OUTSIDE in notes) == (x < 0 or y < 0)
    if box is not None:
        assert box.x <= max(x, 0)
        assert box.x + box.width >= x + width
        assert box.y + box.height - (y + height) < 1
    item = fitted(FrameAnnotation("a", 0, "1", box=box), 20, 30)
    assert item.box is None or item.box.fits(20, 30)


def test_mask_values():
    array = np.array([[0, 1, 2], [0, 255, 255]], np.uint8)
    mask, notes = mask_pixels(array, MaskValues(), lossy=False)
    assert mask.sum() == 4
    assert "4 different values" in notes[0].words
    assert mask_pixels(array, MaskValues(threshold=128), lossy=True)[0].sum() == 2
    assert mask_pixels(array, MaskValues(values=(1, 2, 255)), lossy=False)[0].sum() == 4
    with pytest.raises(InputRefused, match="values 255") as caught:
        mask_pixels(array, MaskValues(values=(1, 2)), lossy=False)
    assert caught.value.reason is Reason.UNKNOWN_LABEL
    with pytest.raises(InputRefused, match="lossy mask"):
        mask_pixels(array, MaskValues(), lossy=True)
    for wrong in (
        {"values": ()},
        {"values": (0,)},
        {"threshold": 0},
        {"values": (1,), "threshold": 2},
    ):
        with pytest.raises(ValueError, match="mask"):
            MaskValues(**wrong)


def test_masks_must_have_one_size():
    with pytest.raises(InputRefused, match="2 different sizes"):
        merged([np.ones((2, 3), bool), np.ones((3, 2), bool)])
    item = FrameAnnotation("a", 0, "1", mask=MaskRLE.encode(np.ones((2, 3))))
    with pytest.raises(InputRefused, match="mask of 2 x 3") as caught:
        fitted(item, 3, 2)
    assert caught.value.reason is Reason.MASK_MISMATCH


def test_several_boxes_of_a_lesion_are_one_around_them():
    boxes = (Box(3, 4, 5, 6), Box(10, 2, 4, 4))
    items = [FrameAnnotation("a", 2, "1", box=box) for box in boxes]
    assert joined_roi(0, 2, items).box == Box(3, 2, 11, 8)
    assert joined_roi(0, 2, [FrameAnnotation("a", 2, "1")]) is None
