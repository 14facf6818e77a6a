"""How do pictures of both modes, cut out and listed in pairs, become studies?

Groups often keep exported pictures of the lesion, one of B-mode and one of contrast at the same
instant, and not the cines. A table says which two belong together:

    patient,bmode,ceus,time_s
    007,007/01-b.png,007/01-c.png,14.2

Every picture becomes a clip of one frame, and the clips of a pair name each other's file. Where
the table gives no boxes the lesion is the whole picture. A pair is used or refused as one. One
study per patient.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from renalkit.domain.geometry import Box
from renalkit.domain.image import Clip, Mode, Pixels, brightest, darkest, pixel_sha256, read_only
from renalkit.domain.study import Defect, Lesion, Roi, Study
from renalkit.errors import InputRefused, Reason
from renalkit.readers.annotations import FrameAnnotation, bad_annotation, box_around, fitted
from renalkit.readers.contract import FileReport, Outcome, ReadContext, ReadResult
from renalkit.readers.folder_table import (
    FolderTable,
    Identifiers,
    Names,
    PatientRow,
    PictureRow,
    TableLayout,
    few_lines,
    read_folder_table,
)
from renalkit.readers.pictures import (
    ANY_LESION,
    VIDEO_SUFFIXES,
    WHOLE_PICTURES,
    FileClip,
    placeholder_lesion,
    read_clip,
    refused_file,
)
from renalkit.readers.tables import Row, Table, bad_table, number, read_table

NOT_LISTED = "not in the label table"

_COLOURED, _GREY = 0.2, 0.05
"""Colour of a picture (see `_colour`) from which it is tinted, and below which it is grey."""

BoxColumns = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class PairColumns:
    """Which column holds what; None: the table does not say.

    bmode, ceus: the pictures. box, ceus_box: x, y, width, height of the lesion in px of the B-mode
    and of the contrast picture. time_s: when in the cine; clock_s: since injection; the first of
    the two becomes the time of the frames. label: held against the label table where that is
    another one.
    """

    patient: str
    bmode: str
    ceus: str | None = None
    lesion: str | None = None
    time_s: str | None = None
    clock_s: str | None = None
    label: str | None = None
    box: BoxColumns | None = None
    ceus_box: BoxColumns | None = None


@dataclass(frozen=True, slots=True)
class PairLayout:
    """table: of pairs, its path below the import folder. labels: the label table, perhaps the same
    one; None when nothing says a class."""

    table: str
    columns: PairColumns
    labels: TableLayout | None = None


@dataclass(frozen=True, slots=True)
class _Pair:
    """One line: what is read together. ceus: None for a B-mode picture alone."""

    line: int
    patient: str
    bmode: Path
    ceus: Path | None
    lesion: str | None
    time_s: float | None
    boxes: tuple[FrameAnnotation | None, FrameAnnotation | None]

    @property
    def paths(self) -> tuple[Path, ...]:
        return (self.bmode,) if self.ceus is None else (self.bmode, self.ceus)


@dataclass(slots=True)
class _Listed:
    """What the table of pairs says. lost: pictures without their partner, and why."""

    pairs: list[_Pair] = field(default_factory=list[_Pair])
    lost: dict[Path, Defect] = field(default_factory=dict[Path, Defect])
    defects: tuple[Defect, ...] = ()


def read_pair_folder(
    files: Iterable[Path], layout: PairLayout, context: ReadContext
) -> Iterator[ReadResult]:
    """Studies of a folder of pairs, in the order of their patients; every file is reported.

    Args:
        files: pictures and tables; each picture that no line names is refused.

    Raises:
        InputRefused: before the first study, when a table cannot be used: BAD_TABLE,
            UNKNOWN_LABEL, SPLIT_OVERLAP, MISSING_FILE (no table at the stated place).
    """
    rest = {context.relative(p).as_posix(): p for p in sorted(files)}
    path = _taken(rest, layout.table, "no table of pairs")
    shared = layout.labels is None or layout.labels.path == layout.table
    labels_path = path
    if layout.labels is not None and not shared:
        labels_path = _taken(rest, layout.labels.path, "no label table")
    table = read_table(path)
    listed = _listed(table, layout.columns, rest)
    people = None
    if layout.labels is not None:
        people = read_folder_table(labels_path, layout.labels, Identifiers())
        if not shared:
            _check_labels(table, layout.columns, people)
            yield ReadResult(None, (_table_report(labels_path, _unmet(people, listed.pairs)),))
    yield ReadResult(None, (_table_report(path, listed.defects),))
    named = {p for pair in listed.pairs for p in pair.paths}
    for picture in rest.values():
        if picture not in named:
            why = listed.lost.get(picture, _UNLISTED)
            yield ReadResult(None, (FileReport(picture, Outcome.REFUSED, (why,)),))
    patients: dict[str, list[_Pair]] = {}
    for pair in sorted(listed.pairs, key=lambda p: (p.patient, p.bmode)):
        patients.setdefault(pair.patient, []).append(pair)
    for patient, pairs in patients.items():
        yield _Patient(patient, people, context).read(pairs)


_UNLISTED = Defect(Reason.NOT_IN_TABLE, "the table of pairs does not list this picture")


def _taken(files: dict[str, Path], place: str, found: str) -> Path:
    if place not in files:
        raise InputRefused(
            Reason.MISSING_FILE,
            found,
            where=place,
            expected="a table at this place below the import folder",
            remedy="add it; the guide to ingest says which columns it has",
        )
    return files.pop(place)


def _table_report(path: Path, defects: tuple[Defect, ...]) -> FileReport:
    return FileReport(path, Outcome.WARNED if defects else Outcome.USED, defects)


# ---- what the tables say -------------------------------------------------------------------


def _listed(table: Table, columns: PairColumns, pictures: Mapping[str, Path]) -> _Listed:
    """The lines of the table, each picture in one of them."""
    names = Names(list(pictures))
    found = _Listed()
    owners: dict[Path, int] = {}
    seen: set[tuple[str, ...]] = set()
    missing: list[int] = []
    repeated: list[int] = []
    for row in table.rows:
        where = f"{table.where}, line {row.line}"
        cells = [row.values[columns.bmode], row.values[columns.ceus] if columns.ceus else ""]
        if not row.values[columns.patient].strip():
            raise bad_table("empty patient", where=where)
        if not any(cells):
            raise bad_table("a line that names no picture", where=where)
        if tuple(row.values.values()) in seen:
            repeated.append(row.line)
            continue
        seen.add(tuple(row.values.values()))
        at = [names.find(cell, where=where) if cell else None for cell in cells]
        paths = [None if name is None else pictures[name] for name in at]
        for path in filter(None, paths):
            first = owners.setdefault(path, row.line)
            if first != row.line or paths[0] == paths[1]:
                raise bad_table(
                    "a picture in both columns"
                    if first == row.line
                    else f"a picture that line {first} names already",
                    where=where,
                    expected="every picture in one pair",
                    remedy="correct the line; a picture that belongs to two pairs needs a copy",
                )
        absent = any(cell and path is None for cell, path in zip(cells, paths, strict=True))
        bmode, ceus = paths
        if absent:
            missing.append(row.line)
        if absent or bmode is None:
            words = "its partner is not in the folder" if absent else "no B-mode picture beside it"
            for path in filter(None, paths):
                found.lost[path] = Defect(Reason.MISSING_FILE, words)
            continue
        found.pairs.append(_pair(row, columns, (bmode, ceus), table))
    found.defects = tuple(
        Defect(reason, f"{len(lines)} lines {words}: {few_lines(lines)}")
        for reason, words, lines in (
            (Reason.MISSING_FILE, "name a picture that is not there", missing),
            (Reason.DUPLICATE_FILE, "repeat an earlier one", repeated),
        )
        if lines
    )
    return found


def _pair(row: Row, columns: PairColumns, paths: tuple[Path, Path | None], table: Table) -> _Pair:
    where = f"{table.where}, line {row.line}"
    times = (
        number(row.values[c], dialect=table.dialect, where=f"{where}, column {c}")
        for c in (columns.time_s, columns.clock_s)
        if c is not None
    )
    box = _box(row, columns.box, table)
    ceus_box = _box(row, columns.ceus_box, table)
    if ceus_box is not None and (box is None or paths[1] is None):
        raise bad_table(
            "a box in the contrast picture alone",
            where=where,
            expected="the box in the B-mode picture too, and both pictures",
        )
    return _Pair(
        row.line,
        row.values[columns.patient],
        *paths,
        row.values[columns.lesion] or None if columns.lesion else None,
        next((t for t in times if t is not None), None),
        (box, ceus_box or box),
    )


def _box(row: Row, columns: BoxColumns | None, table: Table) -> FrameAnnotation | None:
    """The box of a line, None where its cells are empty; the picture's size is not known yet."""
    if columns is None or not any(row.values[c] for c in columns):
        return None
    where = f"{table.where}, line {row.line}"
    x, y, width, height = (
        number(row.values[c], dialect=table.dialect, where=f"{where}, column {c}") for c in columns
    )
    if x is None or y is None or width is None or height is None:
        raise bad_table("a box with an empty cell", where=where, expected=", ".join(columns))
    box, notes = box_around(x, y, x + width, y + height, where=where)
    return FrameAnnotation("", 0, ANY_LESION, box=box, defects=notes)


def _check_labels(table: Table, columns: PairColumns, people: FolderTable) -> None:
    """Refuse a class in the table of pairs that the label table does not give the patient."""
    if columns.label is None:
        return
    for row in table.rows:
        said, facts = row.values[columns.label], people.pictures.get(row.values[columns.patient])
        if not said or facts is None:
            continue
        if said not in {facts.label, *(f.lesion.label for f in facts.lesions)}:
            raise bad_table(
                f"a class that is not the patient's in the label table: {said[:40]!r}",
                where=table.where,
                line=row.line,
                expected="the same class in both tables",
                remedy="correct one of them, or take the column out of the table of pairs",
            )


def _unmet(people: FolderTable, pairs: Iterable[_Pair]) -> tuple[Defect, ...]:
    """Patients of the label table without pictures, and what else was noticed in it."""
    unmet = len(set(people.pictures) - {p.patient for p in pairs})
    words = f"{unmet} patients of the label table have no pair of pictures"
    return (*people.defects, *((Defect(Reason.MISSING_FILE, words),) if unmet else ()))


# ---- what the pictures show ----------------------------------------------------------------


@dataclass(slots=True)
class _Patient:
    """The study of one patient on its way. people: the label table, None when there is none."""

    name: str
    people: FolderTable | None
    context: ReadContext
    reports: list[FileReport] = field(default_factory=list[FileReport])
    clips: list[Clip] = field(default_factory=list[Clip])
    rois: dict[str, list[Roi]] = field(default_factory=dict[str, list[Roi]])
    defects: list[Defect] = field(default_factory=list[Defect])
    formats: set[str] = field(default_factory=set[str])
    _seen: set[frozenset[str]] = field(default_factory=set[frozenset[str]])

    def read(self, pairs: list[_Pair]) -> ReadResult:
        """The study; without one when every pair was refused."""
        finished = self.context.recall([path for pair in pairs for path in pair.paths])
        if finished is not None:
            return finished
        for pair in pairs:
            try:
                read = self._pictures(pair)
                self._add(pair, read, self._regions(pair, read))
            except _PairLeft as left:
                self.reports += left.reports
        if not self.clips:
            return ReadResult(None, tuple(self.reports))
        return self._study()

    @property
    def _facts(self) -> PictureRow | None:
        return None if self.people is None else self.people.pictures.get(self.name)

    def _pictures(self, pair: _Pair) -> list[FileClip]:
        """The decoded pictures, each naming the other's file."""
        spacing = None if self._facts is None else self._facts.spacing_mm
        read: list[FileClip] = []
        for path, mode in zip(pair.paths, (Mode.B, Mode.CEUS), strict=False):
            try:
                if path.suffix.lower() in VIDEO_SUFFIXES:
                    raise InputRefused(Reason.FORMAT_REFUSED, "a video", expected="a picture")
                read.append(read_clip(path, self.context, mode=mode, spacing_mm=spacing))
            except InputRefused as error:
                raise _refused(pair, error, path) from error
        files = frozenset(r.clip.source.file_sha256 for r in read)
        if len(files) < len(read):
            raise _refused(pair, bad_annotation("one picture under two names"))
        if files in self._seen:
            again = Defect(Reason.DUPLICATE_FILE, "the patient has these very pictures already")
            raise _PairLeft([FileReport(p, Outcome.SKIPPED, (again,)) for p in pair.paths])
        self._seen.add(files)
        times = None if pair.time_s is None else (pair.time_s,)
        for at, one in enumerate(read):
            others = files - {one.clip.source.file_sha256}
            source = replace(one.clip.source, partner_sha256="".join(others))
            clip = replace(one.clip, source=source, times_s=times)
            read[at] = replace(one, clip=clip)
        if len(read) == 2:
            read[1] = _in_8_bits(read[1])
        return read

    def _regions(
        self, pair: _Pair, read: list[FileClip]
    ) -> tuple[str | None, list[FrameAnnotation]]:
        """The lesion of a pair and where it is on each picture; no lesion on a normal kidney."""
        if self._facts is not None and self._facts.label is not None:
            if pair.boxes[0] is not None:
                words = f"a box on a picture of class '{self._facts.label}': not used"
                self.defects.append(Defect(Reason.BAD_ANNOTATION, words, len(self.clips)))
            return None, []
        name = self._lesion_name(pair)
        sizes = {(r.clip.rows, r.clip.cols) for r in read}
        if len(sizes) > 1 and pair.boxes[0] is not None and pair.boxes[0] is pair.boxes[1]:
            raise _refused(
                pair,
                bad_annotation(
                    "one box for two pictures of different size",
                    expected="a box of its own for the contrast picture",
                ),
            )
        regions: list[FrameAnnotation] = []
        for one, given in zip(read, pair.boxes, strict=False):
            clip = one.clip
            whole = FrameAnnotation("", 0, name, box=Box(0, 0, clip.cols, clip.rows))
            region = fitted(given or whole, clip.rows, clip.cols)
            if region.box is None:
                error = bad_annotation("a box outside the picture", expected="a box inside it")
                raise _refused(pair, error)
            regions.append(region)
        return name, regions

    def _lesion_name(self, pair: _Pair) -> str:
        """Which lesion of the label table a pair shows; its only one without being named."""
        known = [] if self._facts is None else [f.name for f in self._facts.lesions]
        if len(known) == 1:
            return known[0]
        name = pair.lesion or ANY_LESION
        if known and name not in known:
            raise _refused(
                pair,
                bad_annotation(
                    "a pair that does not say which lesion it shows",
                    expected=f"one of the {len(known)} lesions the label table lists",
                ),
            )
        return name

    def _add(
        self, pair: _Pair, read: list[FileClip], found: tuple[str | None, list[FrameAnnotation]]
    ) -> None:
        """Take a pair into the study."""
        name, regions = found
        doubts = _doubts(read)
        for at, one in enumerate(read):
            clip = len(self.clips)
            noticed = [*doubts, *(regions[at].defects if regions else ())]
            self.clips.append(one.clip)
            self.formats.add(one.source_format)
            self.reports.append(one.report(*noticed))
            self.defects += [replace(d, clip=clip) for d in (*one.warnings, *noticed)]
            if name is not None:
                roi = Roi(clip, 0, box=regions[at].box)
                self.rois.setdefault(name, []).append(roi)

    def _study(self) -> ReadResult:
        context, facts = self.context, self._facts
        key = context.pseudonyms.study(f"pair-folder\0{self.name}")
        known = {} if facts is None else {f.name: f.lesion for f in facts.lesions}
        lesions: list[Lesion] = []
        for name in sorted({*known, *self.rois}):
            lesion = known.get(name) or placeholder_lesion()
            rois = tuple(self.rois.get(name, ()))
            lesions.append(replace(lesion, key=context.pseudonyms.lesion(key, name), rois=rois))
        person = PatientRow()
        if self.people is not None:
            person = self.people.patients.get(self.name, person)
        study = Study(
            key=key,
            patient=context.pseudonyms.patient(self.name),
            clips=tuple(self.clips),
            lesions=tuple(lesions),
            label=None if facts is None or lesions else facts.label,
            site=person.site,
            scanner=person.scanner,
            covariates={"source_format": "+".join(sorted(self.formats)), **person.covariates},
            defects=(*person.defects, WHOLE_PICTURES, *self.defects),
        )
        listed = self.people is None or facts is not None
        return ReadResult(study, tuple(self.reports), None if listed else NOT_LISTED)


class _PairLeft(Exception):
    """A pair that is not used: each of its files with its reason."""

    def __init__(self, reports: list[FileReport]) -> None:
        self.reports = reports
        super().__init__(f"{len(reports)} files")


def _refused(pair: _Pair, error: InputRefused, at: Path | None = None) -> _PairLeft:
    """at: the file that is to blame, None for both."""
    other = Defect(error.reason, f"its partner was refused: {error.found}")
    return _PairLeft(
        [
            refused_file(p, error) if at in (None, p) else FileReport(p, Outcome.REFUSED, (other,))
            for p in pair.paths
        ]
    )


def _in_8_bits(read: FileClip) -> FileClip:
    """A contrast picture as networks take it: 16-bit values by round(255 v / 65535)."""
    pixels = np.asarray(read.clip.pixels[0])
    if pixels.dtype != np.uint16:
        return read
    small = np.rint(pixels.astype(np.float64) / 257.0).astype(np.uint8)[None]
    clip = replace(read.clip, pixels=read_only(small), sha256=pixel_sha256(small))
    words = f"16 bits reduced to 8: the largest value, {pixels.max()}, became {small.max()}"
    return replace(read, clip=clip, notes=(*read.notes, Defect(Reason.CONVERTED, words)))


def _doubts(read: list[FileClip]) -> list[Defect]:
    """What speaks against two pictures being B-mode and contrast of one instant."""
    if len(read) < 2:
        return []
    bmode, contrast = (np.asarray(r.clip.pixels[0]) for r in read)
    found: list[Defect] = []
    if _colour(bmode) > _COLOURED and _colour(contrast) < _GREY:
        words = "B-mode in colour and contrast in grey: exchanged, perhaps"
        found.append(Defect(Reason.PAIR_MISMATCH, words))
    if bmode.shape[:2] != contrast.shape[:2]:
        sizes = " and ".join(f"{p.shape[0]} x {p.shape[1]}" for p in (bmode, contrast))
        found.append(Defect(Reason.PAIR_MISMATCH, f"pictures of different size: {sizes}"))
    return found


def _colour(pixels: Pixels) -> float:
    """How far red, green and blue are apart, as a share of the brightest of them; 0 for grey."""
    if pixels.ndim == 2:
        return 0.0
    high, low = (f(pixels).astype(np.float64) for f in (brightest, darkest))
    return float((high - low).sum() / max(high.sum(), 1.0))
