"""Which lesions does a label table or an annotation file give the studies read from DICOM?

DICOM says who was examined, not what was found. The table's rows are matched to studies by
pseudonym (patient column) or by keyed path (file column), so no raw identifier is kept; frames are
matched by file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from renalkit.domain.study import Defect, Lesion, Study
from renalkit.domain.volume import Volume
from renalkit.errors import InputRefused, Reason
from renalkit.readers.annotation_files import (
    labelme_frame,
    read_box_table,
    read_cvat_video,
    read_labelme,
)
from renalkit.readers.annotations import FrameAnnotation, fitted, joined_roi
from renalkit.readers.contract import Limits
from renalkit.readers.folder_table import (
    Identifiers,
    Names,
    PatientRow,
    PictureRow,
    read_folder_table,
)
from renalkit.readers.pictures import ANY_LESION, LesionFacts, placeholder_lesion
from renalkit.readers.pseudonyms import Pseudonyms
from renalkit.readers.stills import read_whole
from renalkit.readers.tables import read_table
from renalkit.usecases.ingest_frames import Picks, not_taken
from renalkit.usecases.ingest_layouts import columns_of, table_layout

ALL_FRAMES = Picks()


@dataclass(slots=True)
class StudyLabels:
    """What is known about patients and files, by pseudonym and keyed path.

    unused: rows and annotated files that met no study, filled while labels are attached.
    """

    by_patient: Mapping[str, tuple[PictureRow, PatientRow]] = field(
        default_factory=dict[str, tuple[PictureRow, PatientRow]]
    )
    by_file: Mapping[str, tuple[PictureRow, PatientRow]] = field(
        default_factory=dict[str, tuple[PictureRow, PatientRow]]
    )
    regions: Mapping[str, Sequence[FrameAnnotation]] = field(
        default_factory=dict[str, Sequence[FrameAnnotation]]
    )
    defects: tuple[Defect, ...] = ()
    _met: set[str] = field(default_factory=set[str])

    @property
    def listed(self) -> bool:
        """Whether there is a table at all."""
        return bool(self.by_patient or self.by_file)

    def patient_of(self, root: Path, pseudonyms: Pseudonyms) -> Callable[[Path], str | None] | None:
        """Who the table says a file is of, for files whose header names nobody; None if it cannot.

        Reading calls it with paths below `root`.
        """
        named = {key: row.patient for key, (row, _) in self.by_file.items() if row.patient}
        if not named:
            return None
        return lambda path: named.get(pseudonyms.path(path.relative_to(root)))

    @property
    def unmet(self) -> int:
        """Rows and annotated files that belong to no study."""
        return len({*self.by_patient, *self.by_file, *self.regions} - self._met)

    def attach(
        self, study: Study, pseudonyms: Pseudonyms, picks: Picks = ALL_FRAMES
    ) -> Study | None:
        """The study with its lesions, label and regions; None when the table does not list it."""
        paths = [c.source.keyed_path for c in study.clips]
        found = self.by_patient.get(study.patient)
        self._met.update({study.patient} & set(self.by_patient))
        for path in paths:
            if path in self.by_file:
                self._met.add(path)
                found = self.by_file[path] if found is None else _both(found, self.by_file[path])
        if found is None and self.listed:
            return None
        facts = found[0].lesions if found else ()
        regions, defects = self._regions(study, [f.name for f in facts], picks)
        known = {f.name: f.lesion for f in facts}
        for (name, _, _), items in regions.items():
            labels = {i.label for i in items}
            label = labels.pop() if not self.listed and len(labels) == 1 else None
            known.setdefault(name, replace(placeholder_lesion(), label=label))
        if found and found[0].label is not None and regions:
            words = f"regions on a study of class '{found[0].label}': not used"
            defects.append(Defect(Reason.BAD_ANNOTATION, words))
            regions, known = {}, {}
        lesions = tuple(_lesion(study, n, known[n], regions, pseudonyms) for n in sorted(known))
        person = found[1] if found else PatientRow()
        return replace(
            study,
            lesions=lesions,
            label=found[0].label if found and not lesions else None,
            site=person.site or study.site,
            covariates={**study.covariates, **person.covariates},
            defects=(*study.defects, *person.defects, *defects),
        )

    def classified(self, study: Study, pseudonyms: Pseudonyms) -> Study | None:
        """A CT study whose lesions were drawn, with what the table says of each by its number.

        A table that does not tell lesions apart speaks of the only one. None when it does not list
        a study, unless labels are there and mark no lesion.
        """
        found = self.by_patient.get(study.patient)
        if found is None:
            drawn_empty = not study.lesions and any(
                isinstance(c, Volume) and c.labels is not None for c in study.clips
            )
            return study if drawn_empty or not self.listed else None
        self._met.add(study.patient)
        row, person = found
        facts = {pseudonyms.lesion(study.key, f.name): f.lesion for f in row.lesions}
        defects = list(person.defects)
        drawn = {lesion.key for lesion in study.lesions}
        single = [f.lesion for f in row.lesions if f.name == ANY_LESION]
        if len(single) == len(row.lesions) == 1 and len(drawn) != 1:
            words = f"the table speaks of one lesion, {len(drawn)} are drawn: given to none"
            defects.append(Defect(Reason.UNKNOWN_LABEL, words))
            facts = {}
        elif not set(facts) <= drawn:
            lost = len(set(facts) - drawn)
            words = f"{lost} lesions of the table are not among the {len(drawn)} drawn ones"
            defects.append(Defect(Reason.UNKNOWN_LABEL, words))
        lesions = tuple(_described(one, facts.get(one.key)) for one in study.lesions)
        return replace(
            study,
            lesions=lesions,
            label=row.label if not lesions else None,
            site=person.site or study.site,
            covariates={**study.covariates, **person.covariates},
            defects=(*study.defects, *defects),
        )

    def _regions(
        self, study: Study, names: Sequence[str], picks: Picks
    ) -> tuple[dict[tuple[str, int, int], list[FrameAnnotation]], list[Defect]]:
        """Regions by lesion, clip and frame, checked against the frames."""
        found: dict[tuple[str, int, int], list[FrameAnnotation]] = {}
        defects: list[Defect] = []
        for number, clip in enumerate(study.clips):
            items = self.regions.get(clip.source.keyed_path, ())
            self._met.update({clip.source.keyed_path} if items else ())
            lost = 0
            for item in items:
                frame = picks.place(clip, item.frame)
                if frame is None:
                    lost += 1
                    continue
                name = names[0] if len(names) == 1 else item.lesion
                if not 0 <= frame < clip.n_frames or (names and name not in names):
                    words = f"annotation of frame {item.frame} that fits no frame or no lesion"
                    defects.append(Defect(Reason.BAD_ANNOTATION, words, number))
                    continue
                try:
                    placed = fitted(item, clip.rows, clip.cols)
                except InputRefused as error:
                    defects.append(Defect(error.reason, error.found, number))
                    continue
                defects.extend(replace(d, clip=number) for d in placed.defects)
                if placed.mask is not None or placed.box is not None:
                    found.setdefault((name, number, frame), []).append(placed)
            if lost:
                defects.append(not_taken(lost, number))
        return found, list(dict.fromkeys(defects))


def _described(drawn: Lesion, said: Lesion | None) -> Lesion:
    """A drawn lesion with what the table says; where and how large it is, the drawing says."""
    if said is None:
        return drawn
    return replace(
        said,
        key=drawn.key,
        label=said.label or drawn.label,
        side=drawn.side,
        size_mm=drawn.size_mm,
        rois=drawn.rois,
    )


def _both(
    first: tuple[PictureRow, PatientRow], second: tuple[PictureRow, PatientRow]
) -> tuple[PictureRow, PatientRow]:
    """The rows of two files of one study together; the class without lesion must agree."""
    a, b = first[0], second[0]
    if a.label != b.label:
        raise InputRefused(
            Reason.BAD_TABLE,
            "files of one study with lesion and without",
            where="the label table",
            expected="one kind for all files of a study",
            remedy="correct the labels, or leave the files without lesion out",
        )
    facts: dict[str, LesionFacts] = {f.name: f for f in (*a.lesions, *b.lesions)}
    return PictureRow(a.patient, tuple(facts.values()), a.label), first[1]


def _lesion(
    study: Study,
    name: str,
    lesion: Lesion,
    regions: Mapping[tuple[str, int, int], Sequence[FrameAnnotation]],
    pseudonyms: Pseudonyms,
) -> Lesion:
    own = sorted((c, f, items) for (n, c, f), items in regions.items() if n == name)
    joined = (joined_roi(c, f, items) for c, f, items in own)
    rois = tuple(roi for roi in joined if roi is not None)
    return replace(lesion, key=pseudonyms.lesion(study.key, name), rois=rois)


def read_labels(
    path: Path | None,
    annotations: Path | None,
    files: Iterable[Path],
    root: Path,
    pseudonyms: Pseudonyms,
    classes: Sequence[str] = (),
    covariates: Sequence[str] = (),
) -> StudyLabels:
    """Read the label table and the annotations of a DICOM folder; covariates: columns to keep.

    Raises InputRefused: BAD_TABLE, UNKNOWN_LABEL, BAD_ANNOTATION; ConfigError: see `table_layout`.
    """
    relative = [p.relative_to(root).as_posix() for p in files]
    regions = _read_regions(annotations, relative, pseudonyms)
    if path is None:
        return StudyLabels(regions=regions)
    table = read_table(path)
    found = columns_of(table)
    by_file = "image" in found
    anchor = found.get("image") or found.get("patient")
    if anchor is None:
        raise InputRefused(
            Reason.BAD_TABLE,
            "neither a patient nor a file column",
            where=path.name,
            expected="a column patient or file",
            remedy="name the column that holds the PatientID 'patient'",
        )
    layout = table_layout(table, path.name, classes, anchor, covariates)
    rows = read_folder_table(path, layout, Names(relative) if by_file else Identifiers())
    persons = rows.patients
    given = {
        name: (row, persons.get(row.patient or name, PatientRow()))
        for name, row in rows.pictures.items()
    }
    if by_file:
        keyed = {pseudonyms.path(Path(name)): value for name, value in given.items()}
        return StudyLabels(by_file=keyed, regions=regions, defects=rows.defects)
    # Another instance with the same key: patients without files stay out of the link table.
    quiet = Pseudonyms(pseudonyms.key)
    keyed = {quiet.patient(name): value for name, value in given.items()}
    return StudyLabels(by_patient=keyed, regions=regions, defects=rows.defects)


def _read_regions(
    place: Path | None, relative: Sequence[str], pseudonyms: Pseudonyms
) -> dict[str, list[FrameAnnotation]]:
    if place is None:
        return {}
    names = Names(relative)
    found: dict[str, list[FrameAnnotation]] = {}
    for path in annotation_paths(place):
        data = read_whole(path, Limits())
        suffix = path.suffix.lower()
        if suffix == ".csv":
            items = read_box_table(data, file=path.name)
        elif suffix == ".xml":
            items = read_cvat_video(data, file=path.stem)
        else:
            stem, frame = labelme_frame(path.stem)
            items = tuple(replace(i, file=stem) for i in read_labelme(data, file=path.name))
            items = tuple(replace(i, frame=frame) for i in items)
        for item in items:
            target = names.find(item.file, where=path.name)
            key = pseudonyms.path(Path(target or PurePosixPath(item.file)))
            found.setdefault(key, []).append(item)
    return found


def annotation_paths(place: Path) -> tuple[Path, ...]:
    """The annotation files at a place: itself, or those directly in the folder."""
    if not place.is_dir():
        return (place,)
    kinds = (".csv", ".xml", ".json")
    return tuple(sorted(p for p in place.iterdir() if p.suffix.lower() in kinds and p.is_file()))
