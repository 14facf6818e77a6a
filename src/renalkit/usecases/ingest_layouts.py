"""Which layout does a source folder have, and what lies where in it?

A layout is recognised by what is there, never by majority: the public BUSI names; a table of pairs;
a label table whose image column names pictures of the folder, or class folders; DICOM files.
Anything else is refused with what was looked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path, PurePosixPath

from renalkit.domain.cohort import ClassTask
from renalkit.errors import ConfigError, InputRefused, Reason
from renalkit.readers.annotation_files import labelme_frame
from renalkit.readers.busi import CLASSES as BUSI_CLASSES
from renalkit.readers.busi import is_busi
from renalkit.readers.covariates import CovariateChoice, choose_covariates
from renalkit.readers.dicom_ct_slice import is_ct
from renalkit.readers.dicom_prescan import looks_like_dicom
from renalkit.readers.folder_table import Columns, TableLayout
from renalkit.readers.image_folder import Beside, BesideFiles, FolderLayout, SharedFile
from renalkit.readers.kits import CLASSES as KITS_CLASSES
from renalkit.readers.kits import is_kits
from renalkit.readers.nnunet import is_nnunet
from renalkit.readers.pair_folder import BoxColumns, PairColumns, PairLayout
from renalkit.readers.pictures import VIDEO_SUFFIXES
from renalkit.readers.tables import LabelMap, Table, bad_table, folded, read_table

NORMAL = ("normal", "healthy")
"""Class names that mean: no lesion here."""

TABLE_NAME = "labels.csv"
PAIRS_NAME = "pairs.csv"
PICTURE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".tif", ".tiff", ".bmp"),
    *(".gif", ".webp", ".svg", ".eps"),  # named like pictures: refused with their reason
    *VIDEO_SUFFIXES,
)

# What the columns of a label table may be called, but for case, spaces and signs; the first is the
# name used in the guides.
_NAMES = {
    "image": ("image", "file", "filename", "image_name"),
    "patient": ("patient", "patient_id"),
    "ceus": ("ceus", "contrast"),
}
_BOX = ("x", "y", "width", "height")
_CEUS_BOX = ("ceus_x", "ceus_y", "ceus_width", "ceus_height")
_OF_PAIRS = ("bmode", "ceus", "pair", "time_s", "clock_s", *_BOX, *_CEUS_BOX)


class Layout(StrEnum):
    """How the files of a source lie."""

    DICOM = "dicom"
    IMAGES = "images"
    PAIRS = "pairs"
    BUSI = "busi"
    CT = "ct"
    KITS = "kits"
    NNUNET = "nnunet"


VOLUMES = (Layout.CT, Layout.KITS, Layout.NNUNET)
"""Layouts whose studies are CT volumes."""


@dataclass(frozen=True, slots=True)
class Sources:
    """The files of a source folder, with the places the user named (absolute, or None).

    masks: where the masks are, as the user said; None recognises the usual places.
    covariates: further columns of the label table to keep.
    """

    root: Path
    files: tuple[Path, ...]
    labels: Path | None = None
    annotations: Path | None = None
    masks: Beside | None = None
    covariates: tuple[str, ...] = ()

    def relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    @property
    def table(self) -> Path | None:
        """The label table: the one named, else labels.csv at the top of the folder."""
        default = self.root / TABLE_NAME
        return self.labels or (default if default in self.files else None)

    @property
    def pairs(self) -> Path | None:
        """The table of pairs: pairs.csv at the top of the folder."""
        place = self.root / PAIRS_NAME
        return place if place in self.files else None


def find_layout(wanted: str, sources: Sources, classes: Sequence[str]) -> Layout:
    """The layout the user states, or the one that is recognised.

    Raises InputRefused(LAYOUT_UNKNOWN), ConfigError for a layout that does not exist.
    """
    if wanted != "auto":
        if wanted not in list(Layout):
            raise ConfigError([f"layout '{wanted}' is not one of auto, {', '.join(Layout)}"])
        return Layout(wanted)
    if is_busi(sources.files, sources.root):
        return Layout.BUSI
    if sources.pairs is not None and "bmode" in _meanings(read_table(sources.pairs), _OF_PAIRS):
        return Layout.PAIRS
    if _table_names_pictures(sources):
        return Layout.IMAGES
    if is_kits(sources.files):
        return Layout.KITS
    if is_nnunet(sources.files):
        return Layout.NNUNET
    dicom = _one_dicom_per_folder(sources)
    if dicom:
        return Layout.CT if all(map(is_ct, dicom)) else Layout.DICOM
    if _class_folders(sources, classes) or (classes and _outlined_pictures(sources)):
        return Layout.IMAGES
    raise InputRefused(
        Reason.LAYOUT_UNKNOWN,
        f"{len(sources.files)} files in no known layout",
        where="the source folder",
        expected="DICOM files; or the layout of KiTS or nnU-Net; "
        f"or pictures with {TABLE_NAME} (columns image, label, patient); "
        f"or {PAIRS_NAME} (columns patient, bmode, ceus) that lists pictures in pairs; "
        "or a folder of pictures per class named by --classes; or pictures with annotations whose "
        "labels are named by --classes; or the BUSI names",
        remedy="add the table or give --labels, --classes or --layout",
    )


def _one_dicom_per_folder(sources: Sources) -> list[Path]:
    """The first DICOM file of each folder."""
    found: dict[Path, Path] = {}
    for path in sources.files:
        if path.parent not in found and looks_like_dicom(path):
            found[path.parent] = path
    return list(found.values())


def _table_names_pictures(sources: Sources) -> bool:
    """Whether the image column of the label table names a picture (it may name DICOM files)."""
    if sources.table is None:
        return False
    table = read_table(sources.table)
    column = columns_of(table).get("image")
    if column is None:
        return False
    pictures = [p for p in sources.files if _is_picture(p)]
    names = {n for p in pictures for n in (p.name, p.stem)}
    cells = {row.values[column].replace("\\", "/").rpartition("/")[2] for row in table.rows}
    return bool(names & cells)


def _outlined_pictures(sources: Sources) -> bool:
    relative = {sources.relative(p) for p in sources.files}
    return any(map(_named_picture, relative)) and _annotations(sources, relative, None) is not None


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURE_SUFFIXES


def _normal(labels: LabelMap | None) -> tuple[str, ...]:
    """The classes, however they are written, that mean: no lesion here."""
    return tuple(c for c in labels.classes if folded(c) in NORMAL) if labels else ()


def _class_folders(sources: Sources, classes: Sequence[str]) -> bool:
    return any(_is_picture(p) and p.parent.name in classes for p in sources.files)


def columns_of(table: Table) -> dict[str, str]:
    """The meaning of the table's columns, by their names (a column of another name is unused)."""
    return _meanings(table, [m for m in Columns.__slots__ if m != "covariates"])


def _meanings(table: Table, wanted: Iterable[str]) -> dict[str, str]:
    columns = {_plain(c): c for c in table.columns}
    found: dict[str, str] = {}
    for meaning in wanted:
        names = (_plain(n) for n in _NAMES.get(meaning, (meaning,)))
        column = next((columns[n] for n in names if n in columns), None)
        if column is not None:
            found[meaning] = column
    return found


def _plain(name: str) -> str:
    """A column's name without what people vary: `Patient ID` is `patient_id`."""
    return re.sub(r"[\W_]", "", folded(name))


def covariates_of(table: Table, wanted: Sequence[str] = ()) -> CovariateChoice:
    """Which columns of the table are kept as facts about the patient, and which are not read."""
    found = columns_of(table)
    return choose_covariates(table, found.values(), wanted, found.get("patient"))


def _labels(table: Table, column: str) -> list[str]:
    """The labels a table holds; InputRefused when two of them may be meant as one."""
    first: dict[str, tuple[str, int]] = {}
    for row in table.rows:
        text = row.values[column]
        known, line = first.setdefault(folded(text), (text, row.line))
        if known != text:
            raise InputRefused(
                Reason.UNKNOWN_LABEL,
                f"labels {known[:40]!r} (line {line}) and {text[:40]!r} (line {row.line}) "
                "that differ only in case, width or spaces",
                where=f"{table.where}, column {column}",
                expected="one spelling for each class",
                remedy="write the class the same way in every row",
            )
    found = sorted({text for text, _ in first.values()} - {""})
    if not found:
        raise InputRefused(
            Reason.BAD_TABLE,
            "no row has a label",
            where=f"{table.where}, column {column}",
            expected="a label in every row",
            remedy="fill the column, or take it out when the folders or outlines name the classes",
        )
    return found


def table_layout(
    table: Table,
    path: str,
    classes: Sequence[str],
    anchor: str | None = None,
    covariates: Sequence[str] = (),
) -> TableLayout:
    """How to read a label table; classes: the labels it may hold, all of them when none are given.

    anchor: the column that says what a row is about, when it is not the image. covariates: further
    columns to keep. Raises ConfigError when one of these is unknown or may not be kept.
    """
    found = columns_of(table)
    named = anchor or found.get("image")
    if named is None:
        raise InputRefused(
            Reason.BAD_TABLE,
            "no image column",
            where=table.where,
            expected=f"one of the columns {', '.join(_NAMES['image'])}",
            remedy="name the column that holds the picture's file name 'image'",
        )
    if "label" not in found:
        labels = None
    else:
        texts = classes or _labels(table, found["label"])
        labels = LabelMap.identity(texts)
    choice = covariates_of(table, covariates)
    if choice.refused:
        raise ConfigError([f"--covariates: {problem}" for problem in choice.refused])
    columns = Columns(**{**found, "image": named}, covariates=choice.kept)
    return TableLayout(path, columns, labels, _normal(labels))


def picture_layout(sources: Sources, classes: Sequence[str]) -> FolderLayout:
    """Where pictures, masks, annotations and labels are in a folder of pictures.

    Pictures: below `images/` when there is such a folder, else everywhere. Masks: as named, else
    `masks/NAME.*` (in the same folders as the pictures), else `NAME_mask*.png` beside the picture.
    Annotations: as named, else LabelMe files beside.
    """
    relative = {sources.relative(p) for p in sources.files}
    table = sources.table
    layout_table = None
    if table is not None:
        if not table.is_relative_to(sources.root):
            raise ConfigError(["--labels: the label table of a picture folder lies inside it"])
        layout_table = table_layout(
            read_table(table), sources.relative(table), classes, covariates=sources.covariates
        )
    by_folder = layout_table is None or layout_table.labels is None
    folders = LabelMap.identity(classes) if by_folder and _class_folders(sources, classes) else None
    # What neither table nor folder says, the labels of the outlines say.
    outlined = LabelMap.identity(classes) if by_folder and classes and not folders else None
    masks = sources.masks
    if masks is not None and not any(map(masks.pattern.fullmatch, relative)):
        raise ConfigError([f"--masks: no file of the source is at '{masks.template}'"])
    if masks is None and any(r.startswith("masks/") for r in relative):
        inside = any(r.startswith("masks/") and r.count("/") > 1 for r in relative)
        masks = Beside("masks/{folder}/{stem}.*" if inside else "masks/{stem}.*")
    elif masks is None and any(re.search(r"_mask[^/]*\.png$", r) for r in relative):
        masks = Beside("{folder}/{stem}_mask*.png")
    return FolderLayout(
        images="images/**/*" if any(r.startswith("images/") for r in relative) else "**/*",
        masks=masks,
        annotations=_annotations(sources, relative, outlined),
        table=layout_table,
        label_folders=folders,
        normal=_normal(folders),
    )


def pair_layout(sources: Sources, classes: Sequence[str]) -> PairLayout:
    """What the columns of pairs.csv hold, and which table says the classes: the label table, or
    pairs.csv itself where there is none.

    Raises InputRefused: no pairs.csv (MISSING_FILE), or not its columns (BAD_TABLE); ConfigError:
    the label table lies outside.
    """
    place = sources.pairs
    if place is None:
        raise InputRefused(
            Reason.MISSING_FILE,
            "no table of pairs",
            where=PAIRS_NAME,
            expected="the table at the top of the source, with columns patient, bmode and ceus",
            remedy="add it; the guide to ingest shows one",
        )
    table = read_table(place)
    found = _meanings(table, ("patient", "lesion", "label", *_OF_PAIRS))
    lacking = [name for name in ("patient", "bmode") if name not in found]
    for box in (_BOX, _CEUS_BOX):
        part = [name for name in box if name in found]
        lacking += [name for name in box if part and name not in found]
    if _CEUS_BOX[0] in found and _BOX[0] not in found:
        lacking += _BOX
    if lacking:
        raise bad_table(
            f"no column {', '.join(lacking)}",
            where=f"{PAIRS_NAME}, line 1",
            expected="patient, bmode and ceus; boxes as x, y, width, height (in the contrast "
            f"picture: {', '.join(_CEUS_BOX)})",
            remedy="add the column, or name the right one so",
        )
    boxes = (_box_columns(found, _BOX), _box_columns(found, _CEUS_BOX))
    named = {m: found.get(m) for m in ("ceus", "lesion", "time_s", "clock_s", "label")}
    columns = PairColumns(
        found["patient"], found["bmode"], **named, box=boxes[0], ceus_box=boxes[1]
    )
    if sources.table is None:
        if "label" not in found:
            return PairLayout(PAIRS_NAME, columns)
        said = _beside_pairs(table)
    else:
        place, said = sources.table, read_table(sources.table)
    if not place.is_relative_to(sources.root):
        raise ConfigError(["--labels: the label table of a folder of pairs lies inside it"])
    anchor = columns_of(said).get("patient")
    if anchor is None:
        raise bad_table(
            "no patient column",
            where=f"{said.where}, line 1",
            expected="the patients of the table of pairs",
            remedy="add the column 'patient'",
        )
    layout = table_layout(said, sources.relative(place), classes, anchor, sources.covariates)
    return PairLayout(PAIRS_NAME, columns, layout)


def _beside_pairs(table: Table) -> Table:
    """A table of pairs without the columns that are about pictures."""
    of_pairs = _meanings(table, _OF_PAIRS).values()
    return replace(table, columns=tuple(c for c in table.columns if c not in of_pairs))


def unread_columns(layout: Layout, sources: Sources) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Columns of each table that are not read, with the reason (empty where there is none)."""
    if sources.table is not None and layout not in (Layout.BUSI, Layout.KITS, Layout.NNUNET):
        yield "the label table", covariates_of(read_table(sources.table), sources.covariates).left
    if layout is Layout.PAIRS and sources.pairs is not None:
        table = _beside_pairs(read_table(sources.pairs))
        left = covariates_of(table, sources.covariates).left
        if sources.table is not None:
            own = _meanings(table, ("patient", "lesion", "label")).values()
            left = {c: "" for c in table.columns if c not in own}
        yield PAIRS_NAME, left


def _box_columns(found: Mapping[str, str], names: Sequence[str]) -> BoxColumns | None:
    if names[0] not in found:
        return None
    x, y, width, height = (found[name] for name in names)
    return x, y, width, height


def _annotations(
    sources: Sources, relative: Iterable[str], labels: LabelMap | None
) -> BesideFiles | SharedFile | None:
    given = sources.annotations
    if given is None:
        pictures = {str(PurePosixPath(r).with_suffix("")) for r in relative if _named_picture(r)}
        beside = any(r.endswith(".json") and r[: -len(".json")] in pictures for r in relative)
        return BesideFiles("labelme", Beside("{folder}/{stem}.json"), labels) if beside else None
    if not given.is_relative_to(sources.root):
        raise ConfigError(["--annotations: those of a picture folder lie inside it"])
    place = sources.relative(given)
    if given.suffix.lower() == ".csv":
        return SharedFile("boxes", place, labels)
    if given.suffix.lower() == ".json":
        return SharedFile("coco", place, labels)
    head = "" if place == "." else f"{place}/"
    if given.suffix.lower() == ".xml":
        parent = PurePosixPath(place).parent.as_posix()
        beside_it = Beside(("" if parent == "." else f"{parent}/") + "{stem}.xml")
        return BesideFiles("cvat", beside_it, labels)
    inside = [PurePosixPath(r) for r in relative if r.startswith(head)]
    if any(p.suffix == ".xml" for p in inside):
        return BesideFiles("cvat", Beside(head + "{stem}.xml"), labels)
    per_frame = any(p.suffix == ".json" and labelme_frame(p.stem)[0] != p.stem for p in inside)
    frame = "_frame{frame}" if per_frame else ""
    return BesideFiles("labelme", Beside(f"{head}{{stem}}{frame}.json"), labels)


def _named_picture(relative: str) -> bool:
    return PurePosixPath(relative).suffix.lower() in PICTURE_SUFFIXES


def foreign_files(sources: Sources, layout: FolderLayout | PairLayout) -> dict[Path, str]:
    """Files of a picture folder that no part of the layout can want, with the words why."""
    wanted: re.Pattern[str] | None = None
    if isinstance(layout, PairLayout):
        known = {layout.table, layout.labels.path if layout.labels else layout.table}
    else:
        known = {layout.table.path} if layout.table else set[str]()
        if isinstance(layout.annotations, SharedFile):
            known.add(layout.annotations.path)
        elif layout.annotations is not None:
            wanted = layout.annotations.place.pattern
    result: dict[Path, str] = {}
    for path in sources.files:
        relative = sources.relative(path)
        if _is_picture(path) or relative in known or (wanted and wanted.fullmatch(relative)):
            continue
        dicom = looks_like_dicom(path)
        words = "a DICOM file in a picture folder" if dicom else "neither picture nor annotation"
        result[path] = words
    return result


_POSITIVE = ("malignant", "tumour")
_CLASSES_FROM = (
    "give a label table (--labels, columns label and patient, image or file), "
    "or name two or more classes"
)


def task_of(
    layout: Layout,
    classes: Sequence[str],
    found: Iterable[str],
    positive: str | None,
    *,
    ordered: bool = False,
) -> ClassTask:
    """The task: the classes asked for, else those the source holds.

    Raises ConfigError: fewer than two classes, an unknown positive class, two classes without one
    that is called malignant and none named positive, or an order of fewer than three.
    """
    known = tuple(sorted(set(found)))
    if layout is Layout.BUSI:
        known = BUSI_CLASSES
    elif layout is Layout.KITS and set(known) & set(KITS_CLASSES):
        known = KITS_CLASSES
    given = tuple(classes) or known
    if len(given) < 2:
        words = f"only the class '{given[0]}' was found" if given else "no class was found"
        raise ConfigError([f"--classes: {words}; {_CLASSES_FROM}"])
    if len(given) == 2 and positive is None:
        positive = next((c for c in given if folded(c) in _POSITIVE), None)
        if positive is None:
            raise ConfigError([f"--positive: which of {' and '.join(given)} is the positive class"])
    try:
        return ClassTask(given, positive, ordered)
    except ValueError as error:
        raise ConfigError([f"--classes, --positive, --ordered: {error}"]) from error
