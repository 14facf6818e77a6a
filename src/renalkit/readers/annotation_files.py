"""What do LabelMe, COCO and CVAT files and tables of boxes say about where lesions are?

Each reader takes the bytes of one file and gives `FrameAnnotation`s; none opens a second file.
JSON is read strictly, XML without document types and entities, sizes and depths are bounded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, cast
from xml.parsers import expat  # noqa: S407  document types and entities are refused below

import numpy as np

from renalkit.domain.study import Defect, RoiOrigin
from renalkit.errors import Reason
from renalkit.readers.annotations import (
    OUTSIDE,
    BoolMask,
    FrameAnnotation,
    as_annotation,
    bad_annotation,
    box_around,
    merged,
)
from renalkit.readers.outlines import Point, circle_outline, coco_runs, polygon_mask, runs_mask
from renalkit.readers.tables import Dialect, number, parse_table
from renalkit.store.files import parse_json

Json: TypeAlias = Mapping[str, Any]

MAX_SIDE_PX = 8_192
MAX_SHAPES = 200_000
MAX_XML_BYTES = 256 << 20
MAX_XML_DEPTH = 16
MAX_XML_ELEMENTS = 5_000_000

ERASERS = frozenset({"hole", "background", "_background_", "__ignore__"})
"""Labels of LabelMe shapes that take away from what was drawn before them."""

ONE_LESION = "1"


def _object(value: Any, what: str, where: str) -> Json:
    if not isinstance(value, dict):
        raise bad_annotation(f"{what} is no JSON object", where=where)
    return cast(Json, value)


def _list(value: Any, what: str, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise bad_annotation(f"{what} is no JSON list", where=where)
    if len(cast(list[Any], value)) > MAX_SHAPES:
        raise bad_annotation(f"{what} has more than {MAX_SHAPES} entries", where=where)
    return cast(list[Any], value)


def _size(rows: Any, cols: Any, where: str) -> tuple[int, int]:
    whole = all(isinstance(n, int) and not isinstance(n, bool) for n in (rows, cols))
    if not whole or not (0 < rows <= MAX_SIDE_PX and 0 < cols <= MAX_SIDE_PX):
        raise bad_annotation(
            "no usable picture size", where=where, expected=f"two numbers from 1 to {MAX_SIDE_PX}"
        )
    return int(rows), int(cols)


def _points(value: Any, where: str) -> list[Point]:
    points: list[Point] = []
    for item in _list(value, "points", where):
        pair = _list(item, "a point", where)
        if len(pair) != 2 or not all(_is_number(v) for v in pair):
            raise bad_annotation("a point that is not two numbers", where=where)
        points.append((float(pair[0]), float(pair[1])))
    return points


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e7


def _drawn(points: Sequence[Point], rows: int, cols: int, where: str) -> BoolMask:
    try:
        return polygon_mask(points, rows, cols)
    except ValueError as error:
        raise bad_annotation(str(error), where=where) from error


def _leaves(points: Sequence[Point], rows: int, cols: int) -> tuple[Defect, ...]:
    """The defect of points outside the picture; its very edge still counts as inside."""
    inside = all(0 <= x <= cols and 0 <= y <= rows for x, y in points)
    return () if inside else (OUTSIDE,)


# --- LabelMe --------------------------------------------------------------------------------

_FRAME_NAME = re.compile(r"^(?P<name>.+)_frame(?P<frame>[0-9]{1,9})$")


def labelme_frame(stem: str) -> tuple[str, int]:
    """Video name and frame number in the stem of a LabelMe file; frame 0 for a picture.

    >>> labelme_frame("cine_frame000123")
    ('cine', 123)
    """
    found = _FRAME_NAME.match(stem)
    return (found.group("name"), int(found.group("frame"))) if found else (stem, 0)


def read_labelme(data: bytes, *, file: str, frame: int = 0) -> tuple[FrameAnnotation, ...]:
    """The lesions of one LabelMe file: polygons, rectangles and circles.

    Shapes with the same group_id are one lesion; without group_id all are. Shapes are painted in
    order, and shapes labelled hole or background take away from the lesion (by group_id, else
    from all) what was painted before them.

    Raises InputRefused: BAD_JSON, BAD_ANNOTATION (other shape types, two labels for one lesion).
    """
    content = _object(parse_json(data, where=file), "the file", file)
    rows, cols = _size(content.get("imageHeight"), content.get("imageWidth"), file)
    masks: dict[str, BoolMask] = {}
    labels: dict[str, str] = {}
    notes: dict[str, list[Defect]] = {}
    for index, item in enumerate(_list(content.get("shapes"), "shapes", file)):
        where = f"{file}, shape {index + 1}"
        shape = _object(item, "a shape", where)
        label, group = shape.get("label"), shape.get("group_id")
        if not isinstance(label, str):
            raise bad_annotation("a shape without a label", where=where)
        drawn, outside = _labelme_shape(shape, rows, cols, where)
        if label in ERASERS:
            for name in [str(group)] if group is not None else list(masks):
                if name in masks:
                    masks[name] = masks[name] & ~drawn
            continue
        name = ONE_LESION if group is None else str(group)
        if labels.setdefault(name, label) != label:
            raise bad_annotation(
                "two labels for one lesion",
                where=where,
                expected="the same label, or different group_id numbers for different lesions",
            )
        masks[name] = masks[name] | drawn if name in masks else drawn
        notes.setdefault(name, []).extend(outside)
    return tuple(
        as_annotation(
            masks[name],
            FrameAnnotation(
                file, frame, name, label=labels[name], defects=tuple(dict.fromkeys(notes[name]))
            ),
        )
        for name in masks
    )


def _labelme_shape(
    shape: Json, rows: int, cols: int, where: str
) -> tuple[BoolMask, tuple[Defect, ...]]:
    kind = shape.get("shape_type", "polygon")
    points = _points(shape.get("points"), where)
    if kind in ("rectangle", "circle") and len(points) != 2:
        raise bad_annotation(f"a {kind} of {len(points)} points", where=where, expected="2")
    if kind == "rectangle":
        (x0, y0), (x1, y1) = points
        points = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    elif kind == "circle":
        points = circle_outline(points[0], points[1])
    elif kind != "polygon":
        raise bad_annotation(
            f"shape type {str(kind)[:20]!r}",
            where=where,
            expected="polygon, rectangle or circle",
        )
    elif len(points) < 3:
        raise bad_annotation(f"a polygon of {len(points)} points", where=where, expected="3")
    return _drawn(points, rows, cols, where), _leaves(points, rows, cols)


# --- COCO -----------------------------------------------------------------------------------


def read_coco(data: bytes, *, file: str) -> tuple[FrameAnnotation, ...]:
    """The lesions of a COCO instances file: polygons, both run-length forms, or boxes alone.

    Several annotations of one picture and category are one lesion, because COCO does not say which
    instances belong together over pictures; an annotation with `attributes.lesion` (text or
    number) is that lesion. `file` of the result is the picture's file_name; crowd or not makes no
    difference. Pictures without annotations give nothing.

    Raises InputRefused: BAD_JSON, BAD_ANNOTATION (sizes that disagree, unknown pictures or
    categories, odd polygons, runs that do not fit).
    """
    content = _object(parse_json(data, where=file), "the file", file)
    pictures: dict[Any, tuple[str, int, int]] = {}
    for item in _list(content.get("images"), "images", file):
        picture = _object(item, "a picture", file)
        name, key = picture.get("file_name"), picture.get("id")
        if not isinstance(name, str) or not isinstance(key, int | str) or key in pictures:
            raise bad_annotation("a picture without its own id and file_name", where=file)
        pictures[key] = (name, *_size(picture.get("height"), picture.get("width"), file))
    categories: dict[Any, str] = {}
    for item in _list(content.get("categories"), "categories", file):
        category = _object(item, "a category", file)
        key, name = category.get("id"), category.get("name")
        if not isinstance(key, int | str) or not isinstance(name, str):
            raise bad_annotation("a category without id and name", where=file)
        categories[key] = name
    drawn: dict[tuple[str, str], list[FrameAnnotation]] = {}
    for index, item in enumerate(_list(content.get("annotations"), "annotations", file)):
        found = _coco_item(
            _object(item, "an annotation", file),
            pictures,
            categories,
            f"{file}, annotation {index + 1}",
        )
        drawn.setdefault((found.file, found.lesion), []).append(found)
    return tuple(_united(items, file) for items in drawn.values())


def _united(items: Sequence[FrameAnnotation], where: str) -> FrameAnnotation:
    """Annotations of one lesion on one frame as one; masks win over boxes without mask."""
    labels = {item.label for item in items}
    if len(labels) != 1:
        raise bad_annotation("two labels for one lesion of a picture", where=where)
    masks = [item.mask.decode() for item in items if item.mask is not None]
    boxes = [item.box for item in items if item.box is not None]
    if masks and len(masks) + len(boxes) == len(items) and boxes:
        raise bad_annotation("a lesion that has a mask here and only a box there", where=where)
    if len(boxes) > 1:
        raise bad_annotation("two boxes for one lesion of a picture", where=where)
    defects = tuple(dict.fromkeys(d for item in items for d in item.defects))
    base = FrameAnnotation(
        items[0].file,
        items[0].frame,
        items[0].lesion,
        box=boxes[0] if boxes else None,
        label=items[0].label,
        defects=defects,
    )
    return as_annotation(merged(masks), base) if masks else base


def _coco_item(
    item: Json, pictures: Mapping[Any, tuple[str, int, int]], categories: Mapping[Any, str],
    where: str,
) -> FrameAnnotation:  # fmt: skip
    picture, category = item.get("image_id"), item.get("category_id")
    hashable = isinstance(picture, int | str) and isinstance(category, int | str)
    if not hashable or picture not in pictures or category not in categories:
        raise bad_annotation("an annotation of an unknown picture or category", where=where)
    name, rows, cols = pictures[picture]
    label = categories[category]
    attributes = item.get("attributes")
    lesion: Any = cast(Json, attributes).get("lesion") if isinstance(attributes, dict) else None
    if lesion is not None and not isinstance(lesion, int | str):
        raise bad_annotation("a lesion attribute that is neither text nor number", where=where)
    base = FrameAnnotation(name, 0, str(lesion) if lesion is not None else label, label=label)
    segmentation = item.get("segmentation")
    if segmentation:
        mask, notes = _coco_mask(segmentation, rows, cols, where)
        return as_annotation(mask, replace(base, defects=notes))
    edges = _list(item.get("bbox"), "bbox", where)
    if len(edges) != 4 or not all(_is_number(v) for v in edges):
        raise bad_annotation("neither segmentation nor a box of four numbers", where=where)
    x, y, width, height = (float(v) for v in edges)
    box, notes = box_around(x, y, x + width, y + height, where=where)
    return replace(base, box=box, defects=notes)


def _coco_mask(
    segmentation: Any, rows: int, cols: int, where: str
) -> tuple[BoolMask, tuple[Defect, ...]]:
    if isinstance(segmentation, list):
        parts: list[BoolMask] = []
        notes: tuple[Defect, ...] = ()
        for flat in _list(cast(Any, segmentation), "segmentation", where):
            values = _list(flat, "a polygon", where)
            if len(values) < 6 or len(values) % 2 or not all(_is_number(v) for v in values):
                raise bad_annotation("a polygon that is not three or more x, y pairs", where=where)
            corners = [(float(x), float(y)) for x, y in zip(values[::2], values[1::2], strict=True)]
            parts.append(_drawn(corners, rows, cols, where))
            notes = notes or _leaves(corners, rows, cols)
        return merged(parts), notes
    code = _object(segmentation, "segmentation", where)
    if code.get("size") != [rows, cols]:
        raise bad_annotation(
            "runs for another picture size",
            where=where,
            expected=f"[{rows}, {cols}], like the picture",
            reason=Reason.MASK_MISMATCH,
        )
    counts = code.get("counts")
    try:
        if isinstance(counts, str):
            runs = coco_runs(counts, rows * cols + 1)
        else:
            runs = [int(n) for n in _whole(_many(counts, where), where)]
        return runs_mask(runs, rows, cols, by_column=True), ()
    except ValueError as error:
        raise bad_annotation(str(error), where=where) from error


def _many(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise bad_annotation("runs that are neither a list nor text", where=where)
    return cast(list[Any], value)


def _whole(values: list[Any], where: str) -> list[int]:
    if not all(isinstance(n, int) and not isinstance(n, bool) for n in values):
        raise bad_annotation("runs that are not whole numbers", where=where)
    return cast(list[int], values)


# --- CVAT for video 1.1 ---------------------------------------------------------------------


@dataclass(slots=True)
class _Node:
    """An XML element; text is kept only where it has no children."""

    tag: str
    attributes: dict[str, str]
    children: list[_Node] = field(default_factory=list["_Node"])
    text: str = ""

    def child(self, *path: str) -> _Node | None:
        """The first element down the path, None when there is none."""
        node: _Node | None = self
        for tag in path:
            node = next((c for c in node.children if c.tag == tag), None) if node else None
        return node


def parse_xml(data: bytes, *, where: str) -> _Node:
    """A small XML document as a tree: no document type, no entities of its own, bounded.

    Raises InputRefused(BAD_ANNOTATION).
    """
    if len(data) > MAX_XML_BYTES:
        raise bad_annotation(f"{len(data)} bytes", where=where, expected=f"up to {MAX_XML_BYTES}")
    root = _Node("", {})
    stack, count = [root], 0

    def opened(tag: str, attributes: dict[str, str]) -> None:
        nonlocal count
        count += 1
        if len(stack) > MAX_XML_DEPTH or count > MAX_XML_ELEMENTS:
            raise bad_annotation("XML that is nested too deeply or too long", where=where)
        node = _Node(tag, attributes)
        stack[-1].children.append(node)
        stack.append(node)

    def closed(_tag: str) -> None:
        stack.pop()

    def text(part: str) -> None:
        if len(stack[-1].text) < 4096:
            stack[-1].text += part

    def refuse(*_arguments: Any) -> None:
        raise bad_annotation(
            "XML with a document type or entities", where=where, expected="plain XML"
        )

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = opened, closed
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    parser.ExternalEntityRefHandler = cast(Any, refuse)
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise bad_annotation("not well-formed XML", where=where) from error
    return root


def read_cvat_video(data: bytes, *, file: str) -> tuple[FrameAnnotation, ...]:
    """The lesions of a "CVAT for video 1.1" export: boxes, polygons and masks frame by frame.

    A track is a lesion, named by its attribute `lesion`, else by its id. Shapes marked outside are
    left out; shapes between key frames, which CVAT fills in, come as PROPAGATED. Nothing is
    interpolated here. `file` of the result is the video's name in the export, else `file`.

    Raises InputRefused(BAD_ANNOTATION): other shapes, no picture size, numbers that are none.
    """
    root = parse_xml(data, where=file).child("annotations")
    if root is None:
        raise bad_annotation("no CVAT annotations", where=file, expected="CVAT for video 1.1")
    meta = root.child("meta")
    task = next((n for tag in ("task", "job") if meta and (n := meta.child(tag))), None)
    size = next((n for m in (task, meta) if m and (n := m.child("original_size"))), None)
    if size is None:
        raise bad_annotation("no original_size", where=file, expected="CVAT for video 1.1")
    width, height = size.child("width"), size.child("height")
    rows, cols = _size(
        _integer(height.text if height else "", file), _integer(width.text if width else "", file),
        file,
    )  # fmt: skip
    source = next((n for m in (task, meta) if m and (n := m.child("source"))), None)
    name = source.text.strip() if source and source.text.strip() else file
    found: dict[tuple[int, str], FrameAnnotation] = {}
    for number_, track in enumerate(c for c in root.children if c.tag == "track"):
        for item in _track(track, name, (rows, cols), f"{file}, track {number_ + 1}"):
            key = (item.frame, item.lesion)
            if key in found:
                raise bad_annotation(
                    f"lesion '{item.lesion[:20]}' twice on frame {item.frame}", where=file
                )
            found[key] = item
    return tuple(found[key] for key in sorted(found))


def _track(track: _Node, file: str, size: tuple[int, int], where: str) -> list[FrameAnnotation]:
    label = track.attributes.get("label") or None
    items: list[FrameAnnotation] = []
    for shape in track.children:
        if shape.tag == "attribute":
            continue
        values = shape.attributes
        if values.get("outside") == "1":
            continue
        named = next(
            (c.text.strip() for c in (*shape.children, *track.children)
             if c.tag == "attribute" and c.attributes.get("name") == "lesion" and c.text.strip()),
            None,
        )  # fmt: skip
        keyframe = values.get("keyframe", "1") == "1"
        base = FrameAnnotation(
            file,
            _integer(values.get("frame", ""), where),
            named or track.attributes.get("id", ONE_LESION),
            label=label,
            origin=RoiOrigin.REFERENCE if keyframe else RoiOrigin.PROPAGATED,
        )
        items.append(_cvat_shape(shape, base, size, where))
    return items


def _cvat_shape(
    shape: _Node, base: FrameAnnotation, size: tuple[int, int], where: str
) -> FrameAnnotation:
    values, (rows, cols) = shape.attributes, size
    if _decimal(values.get("rotation", "0"), where) != 0:
        raise bad_annotation("a rotated box", where=where, expected="a polygon instead")
    if shape.tag == "box":
        x0, y0, x1, y1 = (_decimal(values.get(n, ""), where) for n in ("xtl", "ytl", "xbr", "ybr"))
        box, notes = box_around(x0, y0, x1, y1, where=where)
        return replace(base, box=box, defects=notes)
    if shape.tag == "polygon":
        points = [
            (_decimal(x, where), _decimal(y, where))
            for x, _, y in (p.partition(",") for p in values.get("points", "").split(";"))
        ]
        if len(points) < 3:
            raise bad_annotation(f"a polygon of {len(points)} points", where=where)
        mask = _drawn(points, rows, cols, where)
        return as_annotation(mask, replace(base, defects=_leaves(points, rows, cols)))
    if shape.tag == "mask":
        return _cvat_mask(values, base, size, where)
    raise bad_annotation(f"shape '{shape.tag[:20]}'", where=where, expected="box, polygon or mask")


def _cvat_mask(
    values: Mapping[str, str], base: FrameAnnotation, size: tuple[int, int], where: str
) -> FrameAnnotation:
    left, top, width, height = (
        _integer(values.get(n, ""), where) for n in ("left", "top", "width", "height")
    )
    if not (width > 0 and left + width <= size[1] and height > 0 and top + height <= size[0]):
        raise bad_annotation("a mask that leaves the picture", where=where)
    runs = [_integer(n.strip(), where) for n in values.get("rle", "").split(",")]
    try:
        part = runs_mask(runs, height, width, by_column=False)
    except ValueError as error:
        raise bad_annotation(str(error), where=where) from error
    mask = np.zeros(size, bool)
    mask[top : top + height, left : left + width] = part
    return as_annotation(mask, base)


def _integer(text: str, where: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text.strip()):
        raise bad_annotation("a number that is missing or not whole", where=where)
    return int(text)


def _decimal(text: str, where: str) -> float:
    if not re.fullmatch(r"[+-]?[0-9]{1,7}(?:\.[0-9]{0,18})?(?:[eE]-?[0-9]{1,2})?", text.strip()):
        raise bad_annotation("a coordinate that is missing or no number", where=where)
    return float(text)


# --- A table of boxes -----------------------------------------------------------------------

BOX_COLUMNS = ("file", "frame", "x", "y", "width", "height", "lesion")


def read_box_table(
    data: bytes, *, file: str, dialect: Dialect | None = None
) -> tuple[FrameAnnotation, ...]:
    """Boxes of a CSV with the columns file, frame, x, y, width, height, lesion and perhaps label.

    x, y is the top-left corner in pixels, frames count from 0; an empty lesion is the only one.

    Raises InputRefused: BAD_TABLE; BAD_ANNOTATION for a box twice or without area.
    """
    table = parse_table(data, where=file, required=BOX_COLUMNS, dialect=dialect)
    found: dict[tuple[str, int, str], FrameAnnotation] = {}
    for row in table.rows:
        where = f"{file}, line {row.line}"
        x, y, width, height = (
            number(row.values[c], dialect=dialect, where=where) for c in BOX_COLUMNS[2:6]
        )
        if x is None or y is None or width is None or height is None or not row.values["file"]:
            raise bad_annotation("a line without file, x, y, width or height", where=where)
        box, notes = box_around(x, y, x + width, y + height, where=where)
        item = FrameAnnotation(
            row.values["file"],
            _integer(row.values["frame"], where),
            row.values["lesion"] or ONE_LESION,
            box=box,
            label=row.values.get("label") or None,
            defects=notes,
        )
        key = (item.file, item.frame, item.lesion)
        if key in found:
            raise bad_annotation("a second box of this lesion on this frame", where=where)
        found[key] = item
    return tuple(found.values())
