"""What does the label table of a picture folder say about each picture, lesion and patient?

Everything that would make a label wrong (unknown label, two labels for one lesion, a grade without
its system, one patient in two parts of a split) refuses the table as a whole, with line numbers.
Rows without a file and repeated rows are only reported.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from renalkit.domain.geometry import SpacingMm, checked_spacing
from renalkit.domain.study import (
    Boundary,
    Composition,
    Covariate,
    Defect,
    Echo,
    Findings,
    Lesion,
    Outline,
    Pole,
    Scanner,
    Side,
)
from renalkit.errors import InputRefused, Reason
from renalkit.readers.covariates import CovariateColumn
from renalkit.readers.pictures import ANY_LESION, LesionFacts, placeholder_lesion
from renalkit.readers.tables import (
    Dialect,
    LabelMap,
    Row,
    Table,
    bad_table,
    check_split,
    grade,
    look_alikes,
    look_up_all,
    number,
    read_table,
)

_Kind = TypeVar("_Kind", bound=StrEnum)
_YES_NO = {"yes": True, "no": False, "true": True, "false": False, "1": True, "0": False}


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column holds what; None: the table does not say. image names the picture.

    covariates: columns kept as facts about the patient (age, sex, laboratory values).
    spacing_mm: millimetres per pixel, equal in both directions.
    """

    image: str
    patient: str | None = None
    label: str | None = None
    lesion: str | None = None
    side: str | None = None
    size_mm: str | None = None
    histology: str | None = None
    grade: str | None = None
    grade_system: str | None = None
    reference_standard: str | None = None
    typical: str | None = None
    pole: str | None = None
    composition: str | None = None
    echo: str | None = None
    shape: str | None = None
    boundary: str | None = None
    calcification: str | None = None
    flow_grade: str | None = None
    spacing_mm: str | None = None
    site: str | None = None
    manufacturer: str | None = None
    model: str | None = None
    split: str | None = None
    covariates: tuple[CovariateColumn, ...] = ()

    def __post_init__(self) -> None:
        if self.grade is not None and self.grade_system is None:
            raise InputRefused(
                Reason.BAD_TABLE,
                "a grade column without a grade_system column",
                expected="WHO_ISUP or FUHRMAN for every grade",
                remedy="add a grade_system column to the table and name it in the mapping",
            )

    @property
    def named(self) -> tuple[str, ...]:
        """All columns the mapping names, each once."""
        single = [getattr(self, n) for n in self.__slots__ if n != "covariates"]
        kept = [c.column for c in self.covariates]
        return tuple(dict.fromkeys([*(n for n in single if n is not None), *kept]))


@dataclass(frozen=True, slots=True)
class TableLayout:
    """The label table: its path below the import folder, its columns and its labels.

    normal: the classes that mean "no lesion here".
    """

    path: str
    columns: Columns
    labels: LabelMap | None = None
    normal: tuple[str, ...] = ()
    dialect: Dialect | None = None

    def __post_init__(self) -> None:
        if self.columns.label is not None and self.labels is None:
            raise ValueError("a label column needs a label map")


@dataclass(frozen=True, slots=True)
class PictureRow:
    """What the table says about one picture. patient is None where it names no patients."""

    patient: str | None
    lesions: tuple[LesionFacts, ...] = ()
    label: str | None = None
    spacing_mm: SpacingMm | None = None


@dataclass(frozen=True, slots=True)
class PatientRow:
    """What the table says about one patient."""

    site: str | None = None
    scanner: Scanner = Scanner()
    covariates: Mapping[str, Covariate] = field(default_factory=dict[str, Covariate])
    defects: tuple[Defect, ...] = ()


@dataclass(frozen=True, slots=True)
class FolderTable:
    """The table resolved against the pictures that exist (relative path -> row)."""

    pictures: Mapping[str, PictureRow]
    patients: Mapping[str, PatientRow]
    defects: tuple[Defect, ...]


class Names:
    """Finds the picture a table or annotation file means: by path, by name, by name without suffix.

    Accents count the same whether composed (as typed) or not (as macOS stores them). Of several
    pictures of a name the one whose folders agree is meant, also when the import folder lies above
    or below the one the table was written for. A name that could mean two pictures is refused.
    Only existing pictures are ever returned, so no path from a table is opened.
    """

    def __init__(self, pictures: Sequence[str]) -> None:
        self._known = {path: path for path in pictures}
        self._names: dict[str, list[str]] = {}
        self._stems: dict[str, list[str]] = {}
        for path in pictures:
            name = composed(PurePosixPath(path).name)
            self._names.setdefault(name, []).append(path)
            self._stems.setdefault(PurePosixPath(name).stem, []).append(path)

    def find(self, text: str, *, where: str = "") -> str | None:
        """The relative path of the picture, None when there is none."""
        wanted = text.replace("\\", "/")
        if wanted in self._known:
            return self._known[wanted]
        name = composed(wanted).rpartition("/")[2]
        hits = self._names.get(name) or self._stems.get(name) or []
        if len(hits) > 1:
            hits = [path for path in hits if _same_end(composed(path), composed(wanted))] or hits
        if len(hits) == 1:
            self._known[wanted] = hits[0]  # the next frame of the same clip is found at once
        if len(hits) > 1:
            raise InputRefused(
                Reason.BAD_TABLE,
                f"a name that {len(hits)} pictures have",
                where=where,
                expected="the path of the picture below the import folder",
                remedy="write the folder too",
            )
        return hits[0] if hits else None


class Identifiers(Names):
    """For tables whose rows are about patients: compared as written, `007` is not `7`."""

    def __init__(self) -> None:
        super().__init__(())

    def find(self, text: str, *, where: str = "") -> str | None:
        return text


def _same_end(path: str, other: str) -> bool:
    """Whether one path, with a folder at least, is the end of the other."""
    short, long = sorted((f"/{path}", f"/{other}"), key=len)
    return short.count("/") > 1 and long.endswith(short)


def composed(name: str) -> str:
    """A file name with composed accents (Unicode NFC)."""
    return unicodedata.normalize("NFC", name)


def read_folder_table(path: Path, layout: TableLayout, names: Names) -> FolderTable:
    """Read and check the table. Raises InputRefused: BAD_TABLE, UNKNOWN_LABEL, SPLIT_OVERLAP."""
    columns = layout.columns
    table = read_table(path, required=columns.named, dialect=layout.dialect)
    if columns.split is not None and columns.patient is not None:
        check_split(table, columns.patient, columns.split)
    classes: tuple[str | None, ...] = (None,) * len(table.rows)
    if columns.label is not None and layout.labels is not None:
        classes = look_up_all(table, columns.label, layout.labels)
    missing: list[int] = []
    repeated: list[int] = []
    by_picture: dict[str, list[tuple[Row, str | None]]] = {}
    seen: set[tuple[str, ...]] = set()
    for row, label in zip(table.rows, classes, strict=True):
        place = f"{table.where}, line {row.line}"
        found = names.find(row.values[columns.image], where=place)
        if found is None:
            missing.append(row.line)
            continue
        same = (found, *(row.values[c] for c in columns.named if c != columns.image))
        if same in seen:
            repeated.append(row.line)
            continue
        seen.add(same)
        by_picture.setdefault(found, []).append((row, label))
    reader = _Cells(table, layout)
    pictures = {name: reader.picture(name, rows) for name, rows in by_picture.items()}
    defects = [
        Defect(reason, f"{len(lines)} rows {words}: lines {few_lines(lines)}")
        for reason, words, lines in (
            (Reason.MISSING_FILE, "name no picture", missing),
            (Reason.DUPLICATE_FILE, "repeat an earlier row", repeated),
        )
        if lines
    ]
    return FolderTable(pictures, reader.patients(), tuple(defects))


def few_lines(lines: Sequence[int]) -> str:
    """Numbers of lines for a message, the first 20 of many."""
    return ", ".join(map(str, lines[:20])) + (" ..." if len(lines) > 20 else "")


class _Cells:
    """Turns rows into facts and keeps account of what was said about each lesion and patient."""

    def __init__(self, table: Table, layout: TableLayout) -> None:
        self.table, self.layout = table, layout
        self._lesions: dict[tuple[str, str], tuple[Lesion, int]] = {}
        self._patients: dict[str, list[Row]] = {}

    def _where(self, row: Row, column: str | None) -> str:
        return f"{self.table.where}, line {row.line}" + (f", column {column}" if column else "")

    def _text(self, row: Row, column: str | None) -> str | None:
        return (row.values[column] or None) if column else None

    def _number(self, row: Row, column: str | None) -> float | None:
        text = self._text(row, column)
        where = self._where(row, column)
        return number(text or "", dialect=self.layout.dialect, where=where)

    def _choice(self, row: Row, column: str | None, kind: type[_Kind]) -> _Kind | None:
        text = self._text(row, column)
        return None if text is None else self._one(row, column, {k.value: k for k in kind}, text)

    def _flag(self, row: Row, column: str | None) -> bool | None:
        text = self._text(row, column)
        return None if text is None else self._one(row, column, _YES_NO, text)

    def _one(self, row: Row, column: str | None, known: Mapping[str, Any], text: str) -> Any:
        if text in known:
            return known[text]
        raise bad_table(
            "a cell that is none of the known words",
            where=self._where(row, column),
            expected=f"{', '.join(known)} or nothing",
        )

    def picture(self, name: str, rows: Sequence[tuple[Row, str | None]]) -> PictureRow:
        columns = self.layout.columns
        patients = {row.values[columns.patient] for row, _ in rows} if columns.patient else {name}
        first = rows[0][0]
        if len(patients) != 1:
            raise bad_table(
                "one picture for two patients", where=self.table.where, line=rows[-1][0].line
            )
        patient = patients.pop()
        if not patient.strip():
            raise bad_table("empty patient", where=self._where(first, columns.patient))
        normal = {label for _, label in rows if label in self.layout.normal}
        if normal and len(rows) > 1:
            words = f"class '{normal.pop()}' beside another row of the same picture"
            raise bad_table(words, where=self.table.where, line=rows[-1][0].line)
        spacings = {self._spacing(row) for row, _ in rows}
        if len(spacings) > 1:
            raise bad_table(
                "one picture with two pixel spacings", where=self.table.where, line=first.line
            )
        spacing = spacings.pop()
        self._patients.setdefault(patient, []).extend(row for row, _ in rows)
        facts: list[LesionFacts] = []
        for row, label in rows if not normal else ():
            facts.append(self._facts(row, label, patient))
        doubled = len({f.name for f in facts}) != len(facts)
        if doubled:
            facts = list({f.name: f for f in facts}.values())
        return PictureRow(
            patient if columns.patient else None,
            tuple(facts),
            normal.pop() if normal else None,
            spacing,
        )

    def _spacing(self, row: Row) -> SpacingMm | None:
        value = self._number(row, self.layout.columns.spacing_mm)
        if value is None:
            return None
        spacing = checked_spacing((value, value))
        if spacing is None or value > 10:
            raise bad_table(
                "a pixel spacing that is not plausible",
                where=self._where(row, self.layout.columns.spacing_mm),
                expected="millimetres per pixel, above 0 and at most 10, or nothing",
            )
        return spacing

    def _facts(self, row: Row, label: str | None, patient: str) -> LesionFacts:
        """The lesion of a row; a second row of the same lesion must say the same."""
        columns = self.layout.columns
        name = self._text(row, columns.lesion) or ANY_LESION
        lesion = self._lesion(row, label)
        known, line = self._lesions.setdefault((patient, name), (lesion, row.line))
        if known.label != lesion.label:
            raise bad_table(
                f"two labels for one lesion (the other on line {line})",
                where=self._where(row, columns.label),
                expected="one label per lesion",
                remedy="correct the label, or tell several lesions apart by a lesion column",
            )
        if known != lesion:
            raise bad_table(
                f"a lesion described differently on line {line}",
                where=self._where(row, None),
                expected="the same words on every row of a lesion",
            )
        return LesionFacts(name, lesion)

    def _lesion(self, row: Row, label: str | None) -> Lesion:
        columns = self.layout.columns
        where = self._where(row, columns.grade)
        graded = grade(
            self._text(row, columns.grade) or "",
            self._text(row, columns.grade_system) if columns.grade else None,
            where=where,
        )
        flow = self._number(row, columns.flow_grade)
        if flow is not None and flow != int(flow):
            raise bad_table(
                "a flow grade that is not whole", where=self._where(row, columns.flow_grade)
            )
        try:
            return Lesion(
                key=placeholder_lesion().key,
                label=label,
                side=self._choice(row, columns.side, Side),
                size_mm=self._number(row, columns.size_mm),
                histology=self._text(row, columns.histology),
                grade=graded[0] if graded else None,
                grade_system=graded[1] if graded else None,
                findings=Findings(
                    pole=self._choice(row, columns.pole, Pole),
                    composition=self._choice(row, columns.composition, Composition),
                    echo=self._choice(row, columns.echo, Echo),
                    shape=self._choice(row, columns.shape, Outline),
                    boundary=self._choice(row, columns.boundary, Boundary),
                    calcification=self._flag(row, columns.calcification),
                    flow_grade=None if flow is None else int(flow),
                ),
                reference_standard=self._text(row, columns.reference_standard),
                typical=self._flag(row, columns.typical),
            )
        except ValueError as error:
            raise bad_table(str(error), where=self.table.where, line=row.line) from error

    def patients(self) -> dict[str, PatientRow]:
        """What is said about each patient, over all of its rows."""
        if self.layout.columns.patient is None:
            return {name: self._patient(rows, ()) for name, rows in self._patients.items()}
        alike = {text for group in look_alikes(self._patients) for text in group}
        words = "the identifier differs from another patient's only in zeros, spaces, case or width"
        note = (Defect(Reason.IDENTITY_CONFLICT, words + ": kept apart"),)
        return {
            name: self._patient(rows, note if name in alike else ())
            for name, rows in self._patients.items()
        }

    def _patient(self, rows: Sequence[Row], notes: tuple[Defect, ...]) -> PatientRow:
        columns = self.layout.columns
        defects = list(notes)

        def agreed(read: Callable[[Row], Any], column: str | None) -> Any:
            values = {read(row) for row in rows} - {None} if column else set()
            if len(values) > 1:
                words = f"the rows of the patient disagree in column {column}: left empty"
                defects.append(Defect(Reason.FIELD_NULLED, words))
            return values.pop() if len(values) == 1 else None

        def text(column: str | None) -> str | None:
            return agreed(lambda row: self._text(row, column), column)

        covariates: dict[str, Covariate] = {}
        for kept in columns.covariates:
            value = agreed(lambda row, k=kept: k.value(row, self.table), kept.column)
            if value is not None:
                covariates[kept.name] = value
        part = text(columns.split)
        if part is not None:
            covariates["split"] = part
        scanner = Scanner(text(columns.manufacturer), text(columns.model))
        return PatientRow(text(columns.site), scanner, covariates, tuple(defects))
