"""How does a folder of pictures or videos, with masks and a label table, become studies?

The layout is stated, not guessed: which files are pictures, where the mask of a picture is, what
the table's columns mean. One study per patient of the table; without patients, one per picture.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from renalkit.domain.study import Defect
from renalkit.errors import ConfigError, InputRefused, Reason
from renalkit.readers.annotations import FrameAnnotation, MaskValues
from renalkit.readers.contract import FileReport, Outcome, ReadContext, ReadResult
from renalkit.readers.folder_table import (
    FolderTable,
    Names,
    PictureRow,
    TableLayout,
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
from renalkit.readers.tables import LabelMap


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
    `labels/{stem}_frame{frame}.json`. `{stem}` must stand beside plain text, so that `a1` and
    `a10` cannot be confused.
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
class FolderLayout:
    """What lies where below the import folder.

    images: glob of the pictures. masks: mask files of a picture. label_folders: the class is the
    name of the picture's folder, looked up here; normal names its classes without lesion.
    """

    images: str = "**/*"
    masks: Beside | None = None
    mask_values: MaskValues = MaskValues()
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
    yield from _reports(sorted_files, table)
    groups: dict[tuple[bool, str], list[tuple[Picture, str]]] = {}
    for relative, path in sorted_files.pictures.items():
        own = sorted_files.masks.get(relative, ())
        try:
            picture, patient = _picture(relative, path, table, layout, context)
        except InputRefused as error:
            yield ReadResult(None, tuple(refused_file(p, error) for p in (path, *own)))
            continue
        known = patient is not None
        key = (known, patient if patient is not None else relative)
        groups.setdefault(key, []).append((replace(picture, masks=own), relative))
    for (known, name), members in groups.items():
        yield _study(name, members, known, table, layout, context)


def _sort(files: Iterable[Path], layout: FolderLayout, context: ReadContext) -> _Sorted:
    everything = {context.relative(p).as_posix(): p for p in sorted(files)}
    table_name = layout.table.path if layout.table else None
    table = everything.pop(table_name, None) if table_name else None
    mask_of: dict[tuple[str | None, str], list[Path]] = {}
    pattern = layout.masks.pattern if layout.masks else None
    rest: dict[str, Path] = {}
    for relative, path in everything.items():
        found = pattern.fullmatch(relative) if pattern else None
        if found is None:
            rest[relative] = path
        else:
            folder = found.groupdict().get("folder") if "folder" in found.re.groupindex else None
            mask_of.setdefault((folder, found.group("stem")), []).append(path)
    is_picture = re.compile(glob_pattern(layout.images))
    pictures = {r: p for r, p in rest.items() if is_picture.fullmatch(r)}
    others = tuple(p for r, p in rest.items() if r not in pictures)
    stems: dict[str, int] = {}
    for relative in pictures:
        stem = PurePosixPath(relative).stem
        stems[stem] = stems.get(stem, 0) + 1
    masks: dict[str, tuple[Path, ...]] = {}
    by_folder = pattern is not None and "folder" in pattern.groupindex
    for relative in pictures:
        place = PurePosixPath(relative)
        folder = place.parent.as_posix() if by_folder else None
        key = (None if folder == "." else folder, place.stem)
        # One mask for two pictures of the same name in different folders would be a guess.
        if key in mask_of and (by_folder or stems[place.stem] == 1):
            masks[relative] = tuple(mask_of.pop(key))
    orphans = tuple(p for paths in mask_of.values() for p in paths)
    return _Sorted(pictures, masks, table, orphans, others)


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
        defect = Defect(Reason.EXTRA_FILE, "mask without its one picture")
        yield ReadResult(None, (FileReport(path, Outcome.REFUSED, (defect,)),))
    for path in files.others:
        defect = Defect(Reason.EXTRA_FILE, "no part of the stated layout")
        yield ReadResult(None, (FileReport(path, Outcome.SKIPPED, (defect,)),))


def _picture(
    relative: str,
    path: Path,
    table: FolderTable | None,
    layout: FolderLayout,
    context: ReadContext,
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
    annotations: tuple[FrameAnnotation, ...] = ()
    picture = Picture(path, lesions, label, annotations=annotations, spacing_mm=row.spacing_mm)
    return picture, row.patient


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
            touched = (pictures[0].path, *pictures[0].masks)
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
