"""How does a folder of pictures or videos, with masks and a label table, become studies?

The layout is stated, not guessed: which files are pictures, where the mask of a picture is, what
the table's columns mean. One study per patient of the table; without patients, one per picture.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from renalkit.domain.study import Defect
from renalkit.errors import ConfigError, InputRefused, Reason
from renalkit.readers.annotation_files import (
    read_box_table,
    read_coco,
    read_cvat_video,
    read_labelme,
)
from renalkit.readers.annotations import FrameAnnotation, MaskValues
from renalkit.readers.contract import FileReport, Outcome, ReadContext, ReadResult
from renalkit.readers.folder_table import (
    FolderTable,
    Names,
    PictureRow,
    TableLayout,
    composed,
    read_folder_table,
)
from renalkit.readers.pictures import (
    ANY_LESION,
    LesionFacts,
    PatientFiles,
    Picture,
    file_sha256,
    identity,
    placeholder_lesion,
    read_patient,
    refused_file,
)
from renalkit.readers.stills import read_whole
from renalkit.readers.tables import Dialect, LabelMap

BESIDE_THE_LAYOUT = "no part of the stated layout"
"""What is said of a file that is neither picture nor belongs to one."""


def glob_pattern(glob: str) -> str:
    """A glob as a regular expression over relative paths: `**/` any folders, `*` within one name.

    >>> bool(re.fullmatch(glob_pattern("**/*.png"), "a/b/c.png"))
    True
    """
    parts: list[str] = []
    at = 0
    while at < len(glob):
        if glob.startswith("**/", at):
            parts.append("(?:.*/)?")
            at += 3
        elif glob[at] == "*":
            parts.append("[^/]*")
            at += 1
        elif glob[at] == "?":
            parts.append("[^/]")
            at += 1
        else:
            parts.append(re.escape(glob[at]))
            at += 1
    return "".join(parts)


@dataclass(frozen=True, slots=True)
class Beside:
    """Where the files that belong to a picture are: a path with `{stem}` and perhaps `{folder}`.

    `masks/{stem}.png`, `{folder}/{stem}_mask*.png` (several masks), `{folder}/{stem}.json`,
    `labels/{stem}_frame{frame}.json`. `{folder}` at the beginning is the picture's folder; after
    other folders (`masks/{folder}/{stem}.png`) it is counted below the folder of all pictures.
    `{stem}` must stand beside plain text, so that `a1` and `a10` cannot be confused.
    """

    template: str

    def __post_init__(self) -> None:
        text = self.template
        if text.count("{stem}") != 1 or text.count("{folder}") > 1 or text.count("{frame}") > 1:
            raise ConfigError(
                [f"'{text}' must hold {{stem}} once, {{folder}}/{{frame}} once at most"]
            )
        if re.search(r"[*?}]\{stem\}|\{stem\}[*?{]", text):
            raise ConfigError([f"'{text}': plain text must stand on both sides of {{stem}}"])

    @property
    def pattern(self) -> re.Pattern[str]:
        """The template as a regular expression with groups folder, stem, frame."""
        text = glob_pattern(self.template)
        for name, part in (("stem", "[^/]+?"), ("frame", "[0-9]+")):
            text = text.replace(re.escape("{" + name + "}"), f"(?P<{name}>{part})")
        folder = re.escape("{folder}") + "/"
        return re.compile(text.replace(folder, "(?:(?P<folder>.*)/)?"))


@dataclass(frozen=True, slots=True)
class BesideFiles:
    """One annotation file per picture, video or frame, in LabelMe JSON or CVAT for video XML.

    labels: what the labels in the files mean; None ignores them (the table says the class).
    """

    kind: Literal["labelme", "cvat"]
    place: Beside
    labels: LabelMap | None = None

    def __post_init__(self) -> None:
        if self.kind == "cvat" and "{frame}" in self.place.template:
            raise ConfigError(["a CVAT file holds all frames: no {frame} in its place"])


@dataclass(frozen=True, slots=True)
class SharedFile:
    """One annotation file for all pictures: COCO JSON or a CSV of boxes."""

    kind: Literal["coco", "boxes"]
    path: str
    labels: LabelMap | None = None
    dialect: Dialect | None = None


@dataclass(frozen=True, slots=True)
class FolderLayout:
    """What lies where below the import folder.

    images: glob of the pictures or videos. masks: mask files of a picture. annotations: files
    with outlines or boxes. label_folders: the class is the name of the picture's folder, looked
    up here; normal names its classes without lesion.
    """

    images: str = "**/*"
    masks: Beside | None = None
    mask_values: MaskValues = MaskValues()
    annotations: BesideFiles | SharedFile | None = None
    table: TableLayout | None = None
    label_folders: LabelMap | None = None
    normal: tuple[str, ...] = ()
    site: str | None = None

    def __post_init__(self) -> None:
        if self.label_folders is not None and self.table is not None and self.table.labels:
            raise ConfigError(["labels come from the table or from the folders, not from both"])


@dataclass(frozen=True, slots=True)
class _Sorted:
    """The files of the folder by what they are; keys are relative paths."""

    pictures: Mapping[str, Path]
    masks: Mapping[str, tuple[Path, ...]]
    annotations: Mapping[str, tuple[tuple[Path, int], ...]]
    shared: Path | None
    table: Path | None
    orphans: tuple[Path, ...]
    others: tuple[Path, ...]


def read_image_folder(
    files: Iterable[Path], layout: FolderLayout, context: ReadContext
) -> Iterator[ReadResult]:
    """Studies of a picture folder, in the order of their first picture; every file is reported.

    Raises InputRefused before the first study when the table cannot be used: BAD_TABLE,
    UNKNOWN_LABEL, SPLIT_OVERLAP, MISSING_FILE (no table at the stated place).
    """
    sorted_files = _sort(files, layout, context)
    table = _table(sorted_files, layout)
    shared, shared_report = _shared(sorted_files, layout, context)
    yield from _reports(sorted_files, table)
    if shared_report is not None:
        yield ReadResult(None, (shared_report,))
    groups: dict[tuple[bool, str], list[tuple[Picture, str]]] = {}
    for relative, path in sorted_files.pictures.items():
        masks = sorted_files.masks.get(relative, ())
        notes = sorted_files.annotations.get(relative, ())
        own = (*masks, *(p for p, _ in notes))
        try:
            picture, patient = _picture(relative, path, table, layout)
            regions = (*shared.get(relative, ()), *_beside(notes, layout, context))
        except InputRefused as error:
            yield ReadResult(None, tuple(refused_file(p, error) for p in (path, *own)))
            continue
        picture = replace(
            picture, masks=masks, annotations=regions, annotation_files=tuple(p for p, _ in notes)
        )
        known = patient is not None
        key = (known, patient if patient is not None else relative)
        groups.setdefault(key, []).append((picture, relative))
    for (known, name), members in groups.items():
        yield _study(name, members, known, table, layout, context)


def _sort(files: Iterable[Path], layout: FolderLayout, context: ReadContext) -> _Sorted:
    rest = {context.relative(p).as_posix(): p for p in sorted(files)}
    table = rest.pop(layout.table.path, None) if layout.table else None
    source = layout.annotations
    shared = rest.pop(source.path, None) if isinstance(source, SharedFile) else None
    masks, rest = _taken(rest, layout.masks)
    places = source.place if isinstance(source, BesideFiles) else None
    annotations, rest = _taken(rest, places)
    is_picture = re.compile(glob_pattern(layout.images))
    pictures = {r: p for r, p in rest.items() if is_picture.fullmatch(r)}
    base = layout.images.partition("*")[0].rpartition("/")[0]
    mask_of, lost_masks = _paired(masks, layout.masks, pictures, base)
    notes_of, lost_notes = _paired(annotations, places, pictures, base)
    return _Sorted(
        pictures,
        {r: tuple(p for p, _ in found) for r, found in mask_of.items()},
        {r: tuple(found) for r, found in notes_of.items()},
        shared,
        table,
        (*lost_masks, *lost_notes),
        tuple(p for r, p in rest.items() if r not in pictures),
    )


_Companions = dict[tuple[str | None, str], list[tuple[Path, int]]]


def _taken(files: Mapping[str, Path], place: Beside | None) -> tuple[_Companions, dict[str, Path]]:
    """The files a template matches, by folder and stem of their picture; and the others."""
    taken: _Companions = {}
    rest: dict[str, Path] = {}
    pattern = place.pattern if place else None
    for relative, path in files.items():
        found = pattern.fullmatch(relative) if pattern else None
        if found is None:
            rest[relative] = path
            continue
        parts = found.groupdict()
        frame = int(parts.get("frame") or 0)
        key = (parts.get("folder"), composed(found.group("stem")))
        taken.setdefault(key, []).append((path, frame))
    return taken, rest


def _paired(
    companions: _Companions, place: Beside | None, pictures: Mapping[str, Path], base: str
) -> tuple[dict[str, list[tuple[Path, int]]], list[Path]]:
    """Companion files by picture, and those whose one picture is not there."""
    if place is None:
        return {}, []
    by_folder = "{folder}" in place.template
    below = "" if place.template.startswith("{folder}") else base
    owners: dict[tuple[str | None, str], list[str]] = {}
    for relative in pictures:
        at = PurePosixPath(relative)
        at_home = at.relative_to(below) if at.is_relative_to(below) else at
        folder = at_home.parent.as_posix() if by_folder and at_home.parent.name else None
        owners.setdefault((folder, composed(at.stem)), []).append(relative)
    paired: dict[str, list[tuple[Path, int]]] = {}
    lost: list[Path] = []
    for key, found in companions.items():
        # One mask for two pictures of the same name would be a guess.
        if len(owners.get(key, ())) == 1:
            paired[owners[key][0]] = found
        else:
            lost.extend(path for path, _ in found)
    return paired, lost


def _beside(
    files: Iterable[tuple[Path, int]], layout: FolderLayout, context: ReadContext
) -> list[FrameAnnotation]:
    """The regions in the annotation files of one picture or video."""
    source = layout.annotations
    found: list[FrameAnnotation] = []
    for path, frame in files:
        data = read_whole(path, context.options.limits)
        assert isinstance(source, BesideFiles)
        if source.kind == "labelme":
            items = read_labelme(data, file=path.name, frame=frame)
        else:
            items = read_cvat_video(data, file=path.name)
        found.extend(_relabelled(item, source.labels) for item in items)
    return found


def _relabelled(item: FrameAnnotation, labels: LabelMap | None) -> FrameAnnotation:
    """The annotation with its class, or without label where the files' labels are not used."""
    if labels is None or item.label is None:
        return replace(item, label=None)
    return replace(item, label=labels.look_up(item.label))


def _shared(
    files: _Sorted, layout: FolderLayout, context: ReadContext
) -> tuple[dict[str, list[FrameAnnotation]], FileReport | None]:
    """The regions of the one annotation file by picture, and its report."""
    source = layout.annotations
    if not isinstance(source, SharedFile):
        return {}, None
    if files.shared is None:
        raise InputRefused(
            Reason.MISSING_FILE,
            "no annotation file",
            where=source.path,
            expected="an annotation file at this place below the import folder",
            remedy="correct the path of the annotation file in the layout",
        )
    data = read_whole(files.shared, context.options.limits)
    if source.kind == "coco":
        items = read_coco(data, file=files.shared.name)
    else:
        items = read_box_table(data, file=files.shared.name, dialect=source.dialect)
    names = Names(list(files.pictures))
    found: dict[str, list[FrameAnnotation]] = {}
    lost: set[str] = set()
    for item in items:
        relative = names.find(item.file, where=files.shared.name)
        if relative is None:
            lost.add(item.file)
        else:
            found.setdefault(relative, []).append(_relabelled(item, source.labels))
    if not lost:
        return found, FileReport(files.shared, Outcome.USED)
    defect = Defect(Reason.MISSING_FILE, f"{len(lost)} annotated pictures are not in the folder")
    return found, FileReport(files.shared, Outcome.WARNED, (defect,))


def _table(files: _Sorted, layout: FolderLayout) -> FolderTable | None:
    if layout.table is None:
        return None
    if files.table is None:
        raise InputRefused(
            Reason.MISSING_FILE,
            "no label table",
            where=layout.table.path,
            expected="a table at this place below the import folder",
            remedy="correct the path of the table in the layout",
        )
    return read_folder_table(files.table, layout.table, Names(list(files.pictures)))


def _reports(files: _Sorted, table: FolderTable | None) -> Iterator[ReadResult]:
    """Results of the files that are no pictures."""
    if files.table is not None and table is not None:
        outcome = Outcome.WARNED if table.defects else Outcome.USED
        yield ReadResult(None, (FileReport(files.table, outcome, table.defects),))
    for path in files.orphans:
        defect = Defect(Reason.EXTRA_FILE, "mask or annotation without its one picture")
        yield ReadResult(None, (FileReport(path, Outcome.REFUSED, (defect,)),))
    for path in files.others:
        defect = Defect(Reason.EXTRA_FILE, BESIDE_THE_LAYOUT)
        yield ReadResult(None, (FileReport(path, Outcome.SKIPPED, (defect,)),))


def _picture(
    relative: str,
    path: Path,
    table: FolderTable | None,
    layout: FolderLayout,
) -> tuple[Picture, str | None]:
    """A picture with what table or folder say about it, and its patient if one is named."""
    row = PictureRow(None)
    if table is not None:
        if relative not in table.pictures:
            raise InputRefused(
                Reason.NOT_IN_TABLE,
                "the table does not list this picture",
                expected="one row at least",
                remedy="add it to the table or take it out of the folder",
            )
        row = table.pictures[relative]
    lesions, label = row.lesions, row.label
    if layout.label_folders is not None:
        found = layout.label_folders.look_up(PurePosixPath(relative).parent.name)
        if found in layout.normal:
            lesions, label = (), found
        else:
            facts = lesions or (LesionFacts(ANY_LESION, placeholder_lesion()),)
            lesions = tuple(LesionFacts(f.name, replace(f.lesion, label=found)) for f in facts)
    return Picture(path, lesions, label, spacing_mm=row.spacing_mm), row.patient


def _study(
    name: str,
    members: list[tuple[Picture, str]],
    known: bool,
    table: FolderTable | None,
    layout: FolderLayout,
    context: ReadContext,
) -> ReadResult:
    pictures = tuple(picture for picture, _ in members)
    facts = table.patients.get(name) if table is not None else None
    if known:
        patient, study = name, f"picture-folder\0{name}"
    else:
        try:
            patient = study = identity(context, pictures[0].path, file_sha256(pictures[0].path))
        except InputRefused as error:
            touched = (pictures[0].path, *pictures[0].companions)
            return ReadResult(None, tuple(refused_file(p, error) for p in touched))
    files = PatientFiles(patient, study, pictures, known, site=layout.site)
    if facts is not None:
        files = replace(
            files,
            site=facts.site or layout.site,
            scanner=facts.scanner,
            defects=facts.defects,
            covariates=facts.covariates,
        )
    return read_patient(files, layout.mask_values, context)
