"""Which files of a study can a model be given, and as what?

A file, folder or zip archive becomes studies like those of a cohort, by the same road: dual cines
are taken apart into panes of chosen frames, pairs of pictures are read as their table lists them,
everything else is frames of B-mode. Every file ends as used, refused or skipped, with its reason.
Of headers nothing is kept: studies and patients are named after the user's own files.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from renalkit.ceus.layouts import Presets
from renalkit.ceus.panels import OnePanel, Side, find_panels
from renalkit.domain.geometry import MaskRLE
from renalkit.domain.image import Clip, Mode, Source, read_only
from renalkit.domain.study import Defect, Lesion, Roi, RoiOrigin, Scanner, Study
from renalkit.errors import ConfigError, InputRefused, Reason
from renalkit.readers.annotations import FrameAnnotation
from renalkit.readers.archives import is_archive, unpacked
from renalkit.readers.contract import FileReport, Outcome, ReadContext, ReadOptions, ReadResult
from renalkit.readers.decode_worker import DecodeWorker
from renalkit.readers.dicom_prescan import looks_like_dicom
from renalkit.readers.pair_folder import read_pair_folder
from renalkit.readers.pictures import ANY_LESION, VIDEO_SUFFIXES, file_sha256
from renalkit.readers.pseudonyms import KEY_BYTES, Pseudonyms
from renalkit.readers.stills import decode_options
from renalkit.readers.walk import walk_files
from renalkit.usecases.ceus_cohort import ContrastOptions, ContrastStudies, IdentifiedOutliner
from renalkit.usecases.ceus_input import (
    Cine,
    is_cortex,
    own_annotations,
    read_annotations,
    read_cine,
)
from renalkit.usecases.ceus_settings import CeusSettings
from renalkit.usecases.ingest_labels import StudyLabels
from renalkit.usecases.ingest_layouts import Sources, foreign_files, pair_layout
from renalkit.usecases.models import Model

PICTURES = "pictures, DICOM files or videos"
_NOBODY = bytes(KEY_BYTES)
"""Keys are made of the user's own file names, which results state anyway: nothing to hide."""


@dataclass(frozen=True, slots=True)
class InputOptions:
    """How a study is read.

    settings, presets: of the analysis of contrast cines. regions: outlines of the lesion, as
    `ceus analyse` takes them. outliner: outlines it instead. one_patient: all files are of one
    patient, whatever their headers say.
    """

    settings: CeusSettings
    presets: Path | None = None
    regions: Path | None = None
    outliner: IdentifiedOutliner | None = None
    keep_pixels: bool = False
    one_patient: bool = False


@dataclass(frozen=True, slots=True)
class Offered:
    """The files of a study. root: what names count from; left: entries that cannot be read, of an
    archive perhaps not below the root."""

    root: Path
    files: tuple[Path, ...]
    left: tuple[FileReport, ...]

    def name(self, path: Path) -> str:
        """A file as its owner knows it."""
        inside = path.is_relative_to(self.root)
        return path.relative_to(self.root).as_posix() if inside else path.name


@contextmanager
def offered(source: Path, expected: str = PICTURES) -> Generator[Offered]:
    """The files of a file, folder or zip archive, for as long as the context lasts.

    expected: what is looked for, for messages.

    Raises:
        InputRefused: nothing to read, or an archive that cannot be taken out.
    """
    if source.is_file() and is_archive(source):
        with unpacked(source) as archive:
            yield _offered(_top(archive.folder), source.name, archive.refused, expected)
    elif source.is_file():
        yield Offered(source.parent, (source,), ())
    else:
        yield _offered(source, source.name, (), expected)


def _top(folder: Path) -> Path:
    """Where the files are: archives often hold one folder that holds everything."""
    while len(found := list(folder.iterdir())) == 1 and found[0].is_dir():
        folder = found[0]
    return folder


def _offered(folder: Path, name: str, refused: tuple[FileReport, ...], expected: str) -> Offered:
    walked = list(walk_files(folder))
    left = (*refused, *(w for w in walked if isinstance(w, FileReport)))
    if not walked and not refused:
        raise InputRefused(Reason.EMPTY, "no file", where=name, expected=expected)
    return Offered(folder, tuple(w for w in walked if isinstance(w, Path)), left)


@dataclass(slots=True)
class StudyReader:
    """Reads what is offered for one model.

    output: where the analysis of each contrast cine is written. worker: must live as long as the
    frames of the studies are looked at.
    """

    model: Model
    offered: Offered
    options: InputOptions
    output: Path
    worker: DecodeWorker
    _keys: Pseudonyms = field(init=False)
    _names: dict[str, str] = field(init=False)
    _annotations: tuple[FrameAnnotation, ...] = field(init=False)
    _presets: Presets | None = field(init=False)
    _of_patient: dict[str, str] = field(init=False, default_factory=dict[str, str], repr=False)
    _cines: dict[str, Cine] = field(init=False, default_factory=dict[str, Cine])
    _analyses: dict[str, str] = field(init=False, default_factory=dict[str, str])

    def __post_init__(self) -> None:
        """Raises ConfigError: nothing says where the lesion is, or it need not be said."""
        options = self.options
        self._keys = Pseudonyms(_NOBODY)
        self._names = {self._key(p): self.offered.name(p) for p in self.offered.files}
        outlines = read_annotations(options.regions)
        self._annotations = tuple(replace(a, label=None) for a in outlines)
        self._presets = None if options.presets is None else Presets.load(options.presets)
        told = bool(outlines) or options.outliner is not None
        if told and self.model.whole_frames:
            raise ConfigError([f"--regions, --roi-model: {self.model.name} looks at whole frames"])
        if not (told or self.model.whole_frames or self._sources.pairs is not None):
            raise ConfigError(
                [
                    f"{self.model.name} looks at the lesion cut out, and nothing says where it is: "
                    "give outlines (--regions: box table, CVAT or LabelMe), a system that outlines "
                    "it (--roi-model RUN/SYSTEM), or cut pictures listed in pairs.csv"
                ]
            )

    def studies(self) -> Iterator[ReadResult]:
        """Every file in one result, studies as the model wants them.

        Raises InputRefused for a table of pairs that cannot be used.
        """
        if self.offered.left:
            yield ReadResult(None, self.offered.left)
        if self.model.whole_frames:
            yield from self._single_files()
        elif self._sources.pairs is not None:
            yield from self._pairs(self._sources)
        else:
            yield from self._examinations()

    def file_of(self, clip: Clip) -> str:
        """The file a clip is of, as its owner knows it."""
        return self._names[clip.source.keyed_path]

    def analysis_of(self, name: str) -> str | None:
        """Where below the output a contrast cine's analysis was written."""
        return self._analyses.get(name)

    def checked(self, report: FileReport) -> FileReport:
        """The report of a file after frames of it were looked at: they may be damaged."""
        cine = self._cines.pop(self.offered.name(report.path), None)
        if cine is None or report.outcome not in (Outcome.USED, Outcome.WARNED):
            return report
        try:
            found = cine.check()
        except InputRefused as error:
            return _left(report.path, error)
        noted = tuple(dict.fromkeys((*report.reasons, *found)))
        return FileReport(report.path, Outcome.WARNED if noted else Outcome.USED, noted)

    # ---- whole frames ----------------------------------------------------------------------

    def _single_files(self) -> Iterator[ReadResult]:
        """Each file a study of its own frames."""
        for path in self.offered.files:
            name = self.offered.name(path)
            try:
                cine = self._read(path)
            except InputRefused as error:
                yield _refused(path, error)
            else:
                yield _result(self._study([cine], name), [cine])

    # ---- pairs of pictures -----------------------------------------------------------------

    def _pairs(self, sources: Sources) -> Iterator[ReadResult]:
        layout = replace(pair_layout(replace(sources, labels=None), ()), labels=None)
        foreign = foreign_files(sources, layout)
        for path, words in foreign.items():
            skipped = (Defect(Reason.NOT_RECOGNISED, words),)
            yield ReadResult(None, (FileReport(path, Outcome.SKIPPED, skipped),))
        files = [p for p in sources.files if p not in foreign]
        context = ReadContext(self.offered.root, self._keys, self.worker, self._read_options)
        for result in read_pair_folder(files, layout, context):
            yield (
                result
                if result.study is None
                else replace(result, study=self._of_one(result.study))
            )

    def _of_one(self, study: Study) -> Study:
        if not self.options.one_patient:
            return study
        return replace(study, patient=self._keys.patient("all"))

    # ---- cines and outlined pictures -------------------------------------------------------

    def _examinations(self) -> Iterator[ReadResult]:
        """Files that belong to one examination are one study, as in a cohort."""
        groups: dict[tuple[str, str], list[Cine]] = {}
        for path in self.offered.files:
            try:
                cine = self._read(path)
            except InputRefused as error:
                yield _refused(path, error)
                continue
            if cine.patient:
                groups.setdefault((cine.patient, cine.study_uid), []).append(cine)
            else:
                yield from self._examination([cine])
        for cines in groups.values():
            yield from self._examination(cines)

    def _examination(self, cines: Sequence[Cine]) -> Iterator[ReadResult]:
        dual: list[Cine] = []
        outlined: dict[str, Sequence[FrameAnnotation]] = {}
        for cine in cines:
            key = cine.clip.source.keyed_path
            try:
                alone = len(self.offered.files) == 1
                outlined[key] = own_annotations(cine, self._annotations, alone=alone)
                if self.options.outliner is None and all(map(is_cortex, outlined[key])):
                    raise _no_outline(cine.name)
                if self._is_dual(cine):
                    dual.append(cine)
                    continue
                study = self._b_mode(cine, [a for a in outlined[key] if not is_cortex(a)])
            except InputRefused as error:
                yield _refused(cine.path, error)
            else:
                yield _result(study, [cine])
        if dual:
            yield self._taken_apart(dual, outlined)

    def _is_dual(self, cine: Cine) -> bool:
        """Whether the file is to be taken apart; refused where the model needs contrast."""
        needs_contrast = not self.model.answers_from_b_mode
        if cine.clip.n_frames < 2:
            if needs_contrast:
                raise InputRefused(
                    Reason.LAYOUT_UNKNOWN,
                    "a still image",
                    where=cine.name,
                    expected="a dual cine: this network looks at "
                    + " and ".join(self.model.inputs.modalities),
                    remedy="give the cine, or cut pictures in pairs",
                )
            return False
        if needs_contrast:
            return True
        side = self.options.settings.contrast
        found = find_panels(
            cine.clip, self._presets, cine.scanner, None if side is None else Side(side)
        )
        return not isinstance(found, OnePanel)

    def _taken_apart(
        self, cines: Sequence[Cine], outlined: dict[str, Sequence[FrameAnnotation]]
    ) -> ReadResult:
        """Dual cines of one examination as panes of their chosen frames."""
        options = ContrastOptions(
            self.options.settings, self.options.presets, self.options.outliner
        )
        labels = StudyLabels(regions=outlined)
        maker = ContrastStudies(options, self.output, labels, self._keys)
        plain = self._study(cines, cines[0].name)
        study = maker.attached(plain) or plain
        if not study.lesions:
            study = replace(study, lesions=(self._lesion(study),))
        for number, cine in enumerate(cines):
            self._analyses[cine.name] = (
                maker.place(study, number).relative_to(self.output).as_posix()
            )
        return maker.apart(study, _result(study, cines), self._key)

    def _b_mode(self, cine: Cine, own: Sequence[FrameAnnotation]) -> Study:
        """A file of B-mode alone, the lesion outlined on its frames."""
        study = self._study([cine], cine.name)
        if self.options.outliner is None:
            labels = StudyLabels(regions={cine.clip.source.keyed_path: own})
            return labels.attach(study, self._keys) or study
        found = (self._predicted(cine, index) for index in range(cine.clip.n_frames))
        rois = [roi for roi in found if roi is not None]
        if not rois:
            raise InputRefused(
                Reason.EMPTY_MASK,
                "no frame on which the segmentation system outlines a lesion",
                where=cine.name,
                remedy="outline it by hand (--regions)",
            )
        return replace(study, lesions=(replace(self._lesion(study), rois=tuple(rois)),))

    def _predicted(self, cine: Cine, index: int) -> Roi | None:
        assert self.options.outliner is not None
        mask = self.options.outliner(np.asarray(cine.clip.pixels[index]))
        if mask is None:
            return None
        return Roi(0, index, MaskRLE.encode(mask), origin=RoiOrigin.PREDICTED)

    def _lesion(self, study: Study) -> Lesion:
        return Lesion(self._keys.lesion(study.key, ANY_LESION))

    # ---- files -----------------------------------------------------------------------------

    @property
    def _sources(self) -> Sources:
        return Sources(self.offered.root, self.offered.files)

    @property
    def _read_options(self) -> ReadOptions:
        return ReadOptions(keep_pixels=self.options.keep_pixels)

    def _key(self, path: Path) -> str:
        return self._keys.path(Path(self.offered.name(path)))

    def _read(self, path: Path) -> Cine:
        """One file as a clip that knows which file it is of."""
        name = self.offered.name(path)
        if looks_like_dicom(path) or path.suffix.lower() in VIDEO_SUFFIXES:
            keep = self.options.keep_pixels
            cine = read_cine(path, name, self.worker, keep_pixels=keep)
        else:
            cine = self._still(path, name)
        if any(region.data_type == "colour-flow" for region in cine.clip.regions):
            raise InputRefused(
                Reason.LAYOUT_UNKNOWN,
                "a colour Doppler picture",
                where=name,
                expected="B-mode or contrast",
                remedy="leave it out",
            )
        source = replace(cine.clip.source, keyed_path=self._key(path))
        if not source.file_sha256:
            source = replace(source, file_sha256=file_sha256(path))
        cine = replace(cine, clip=replace(cine.clip, source=source))
        if cine.is_dicom:
            self._cines[name] = cine
        return cine

    def _still(self, path: Path, name: str) -> Cine:
        pixels = self.worker.run("still", path, decode_options(self._read_options.limits)).pixels
        clip = Clip(read_only(pixels[None]), "", Mode.B, Source("", "", "picture"))
        return Cine(name, path, clip, None, is_dicom=False, timing="none")

    def _study(self, cines: Sequence[Cine], name: str) -> Study:
        first = cines[0]
        patient = name
        if self.options.one_patient:
            patient = "all"
        elif first.patient:
            # The first file of this patient names it; headers stay where they are.
            patient = self._of_patient.setdefault(first.patient, name)
        return Study(
            key=self._keys.study("\0".join(c.name for c in cines)),
            patient=self._keys.patient(patient),
            clips=tuple(c.clip for c in cines),
            scanner=first.scanner or Scanner(),
            covariates=first.person,
        )


def _result(study: Study, cines: Sequence[Cine]) -> ReadResult:
    reports = (
        FileReport(c.path, Outcome.WARNED if c.defects else Outcome.USED, c.defects) for c in cines
    )
    return ReadResult(study, tuple(reports))


def _refused(path: Path, error: InputRefused) -> ReadResult:
    return ReadResult(None, (_left(path, error),))


def _left(path: Path, error: InputRefused) -> FileReport:
    """A file that is not used; what is no picture at all was not asked for either."""
    plain = InputRefused(error.reason, error.found, expected=error.expected, remedy=error.remedy)
    aside = error.reason in (Reason.DICOMDIR_IGNORED, Reason.NOT_AN_IMAGE_OBJECT)
    outcome = Outcome.SKIPPED if aside else Outcome.REFUSED
    return FileReport(path, outcome, (Defect(error.reason, str(plain)),))


def _no_outline(name: str) -> InputRefused:
    return InputRefused(
        Reason.BAD_ANNOTATION,
        "no outline of a lesion in this file",
        where=name,
        expected="an outline on one frame or more",
        remedy="name the file in --regions as it lies in its folder, or give --roi-model",
    )
