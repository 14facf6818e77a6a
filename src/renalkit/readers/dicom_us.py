"""How do DICOM ultrasound stills and cines become studies?

Headers of all files are read first (by the pre-scan; pixels untouched), so that files can be
grouped by patient and study and identities compared. Then, study by study, every frame is decoded
once in the worker process; the clips that come out decode lazily. A single cine that is only gone
through once is served by the worker instead (`serve_dicom_us`). Pixels outside all ultrasound
regions are blanked. Of the header remain: the scanner, age, sex, geometry and frame times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from renalkit.domain.geometry import Box
from renalkit.domain.image import Clip, Source
from renalkit.domain.study import Covariate, Defect, Scanner, Study
from renalkit.errors import InputRefused, Reason
from renalkit.readers.contract import (
    FileReport,
    Outcome,
    ReadOptions,
    ReadResult,
    Recall,
    recall_nothing,
)
from renalkit.readers.decode_worker import DecodeWorker
from renalkit.readers.dicom_identity import (
    Identity,
    check_charset,
    checked_uid,
    header_patient,
    identity_conflicts,
    read_person,
    read_scanner,
)
from renalkit.readers.dicom_layout import Layout, read_layout, read_times
from renalkit.readers.dicom_pixels import (
    LazyDicomFrames,
    PixelDescription,
    describe,
    frame_defects,
    frame_places,
    task_options,
)
from renalkit.readers.dicom_prescan import (
    MODALITY_LUT,
    VOI_LUT,
    FileSource,
    Prescan,
    Values,
    prescan_source,
)
from renalkit.readers.dicom_served import ServedFrames, changed_during_read, unreadable
from renalkit.readers.pseudonyms import Pseudonyms
from renalkit.store.files import sha256_file

PatientOf = Callable[[Path], str | None]
"""Maps a file to the identifier of its patient; None leaves the file to its own header."""

Beforehand = Callable[[Sequence["DicomStudy"]], None]
"""Told of all studies before the pixels of the first are read: what it finishes is recalled."""

_KIND = "dicom-us"
_US_CLASSES = frozenset(
    f"1.2.840.10008.5.1.4.1.1.{tail}" for tail in ("3", "3.1", "6", "6.1", "6.2")
)
_VOLUME_CLASS = "1.2.840.10008.5.1.4.1.1.6.2"
_CAPTURE_CLASSES = frozenset(
    f"1.2.840.10008.5.1.4.1.1.{tail}" for tail in ("7", "7.1", "7.2", "7.3", "7.4")
)
_DIRECTORY_CLASS = "1.2.840.10008.1.3.10"
_OTHER_OBJECTS = (
    *("1.2.840.10008.5.1.4.1.1.11.", "1.2.840.10008.5.1.4.1.1.88.", "1.2.840.10008.5.1.4.1.1.66"),
    *("1.2.840.10008.5.1.4.1.1.104.", "1.2.840.10008.5.1.4.1.1.481.", "1.2.840.10008.5.1.4.1.1.9"),
    *("1.2.840.10008.5.1.4.1.1.67", "1.2.840.10008.5.1.4.34.", "1.2.840.10008.5.1.4.1.1.68"),
)
_OTHER_MODALITIES = frozenset(
    ("SR", "PR", "KO", "SEG", "RTSTRUCT", "RTPLAN", "RTDOSE", "DOC", "ECG", "HD", "REG", "AU")
    + ("PLAN", "FID", "SMR", "RWV", "ANN")
)


@dataclass(frozen=True, slots=True)
class _Facts:
    """What is known of one file after its header was read."""

    path: Path = field(repr=False)
    file_sha256: str
    identity: Identity
    scanner: Scanner
    person: Mapping[str, Covariate]
    about: PixelDescription
    layout: Layout
    times_s: tuple[float, ...] | None
    keep_all: bool
    defects: tuple[Defect, ...]

    @property
    def boxes(self) -> tuple[Box, ...] | None:
        """What stays visible; None keeps everything."""
        return None if self.keep_all else tuple(r.box for r in self.layout.regions)


@dataclass(frozen=True, slots=True)
class DicomStudy:
    """Files of one patient and study whose headers are read, and whose pixels are not.

    conflict: what is doubtful about whose they are.
    """

    files: tuple[_Facts, ...]
    conflict: Defect | None

    @property
    def paths(self) -> list[Path]:
        return [facts.path for facts in self.files]

    @property
    def pixels(self) -> int:
        """How many pixels its frames have together."""
        return sum(f.about.frames * f.about.rows * f.about.cols for f in self.files)


class _Skipped(Exception):
    """The file is none this reader is for."""

    def __init__(self, reason: Reason, words: str) -> None:
        super().__init__(words)
        self.defect = Defect(reason, words)


def read_dicom_us(
    files: Sequence[Path],
    root: Path,
    pseudonyms: Pseudonyms,
    options: ReadOptions,
    worker: DecodeWorker,
    *,
    patient_of: PatientOf | None = None,
    recall: Recall = recall_nothing,
    beforehand: Beforehand | None = None,
) -> Iterator[ReadResult]:
    """Studies out of DICOM files, one per patient and study UID, in the order of the paths.

    root is the import folder: keyed paths are relative to it. Each file is in exactly one result.
    A file that is damaged refuses itself, not its study. recall: as in `ReadContext`.
    """
    groups: dict[tuple[str, str], list[_Facts]] = {}
    seen: dict[str, str] = {}
    for path in sorted(files, key=lambda p: str(p).encode("utf-8", "surrogateescape")):
        try:
            facts = _inspect(path, options, patient_of)
            _check_instance(facts, seen)
        except _Skipped as skipped:
            yield _alone(path, Outcome.SKIPPED, skipped.defect)
        except InputRefused as refused:
            yield _alone(path, Outcome.REFUSED, _as_defect(refused))
        except OSError as error:
            yield _alone(path, Outcome.REFUSED, _as_defect(unreadable(error)))
        else:
            key = (facts.identity.patient, facts.identity.study_uid)
            groups.setdefault(key, []).append(facts)
    conflicts = identity_conflicts(f.identity for group in groups.values() for f in group)
    studies = [DicomStudy(tuple(g), conflicts.get(patient)) for (patient, _), g in groups.items()]
    if beforehand is not None:
        beforehand(studies)
    reader = DicomReader(root, pseudonyms, options, worker, patient_of)
    for study in studies:
        yield recall(study.paths) or reader.read(study)


@dataclass(frozen=True, slots=True)
class ServedFile:
    """One file as a clip that is gone through once and not kept.

    defects: of the header. patient, study_uid: identifiers as the header has them, patient empty
    where it names nobody; they say which files belong together and are not to be kept. person: age
    and sex.
    """

    clip: Clip
    scanner: Scanner
    defects: tuple[Defect, ...]
    patient: str = field(repr=False)
    study_uid: str = field(repr=False)
    person: Mapping[str, Covariate]


def serve_dicom_us(path: Path, options: ReadOptions, worker: DecodeWorker) -> ServedFile:
    """One file as a clip that is gone through once, and what its header says.

    No frame is decoded here: the worker does it when one is asked for, so the worker must live as
    long, and what frames are worth is said afterwards by `check` of the clip's `ServedFrames`.
    Digest of the pixels and keyed path are empty.

    Raises:
        InputRefused: the header is refused, or the file is none this reader is for.
    """
    try:
        facts = _inspect(path, options, None, anonymous=True)
    except _Skipped as skipped:
        raise InputRefused(skipped.defect.reason, skipped.defect.words) from None
    except OSError as error:
        raise unreadable(error) from None
    stack = ServedFrames(
        *(path, facts.file_sha256, facts.about, facts.boxes, worker),
        limits=options.limits,
        allow_headerless=options.allow_headerless,
    )
    clip = Clip(
        pixels=stack,
        sha256="",
        mode=facts.layout.mode,
        source=Source(facts.file_sha256, "", _KIND),
        regions=facts.layout.regions,
        spacing_mm=facts.layout.spacing_mm,
        times_s=facts.times_s,
    )
    return ServedFile(
        *(clip, facts.scanner, facts.defects, facts.identity.patient, facts.identity.study_uid),
        person=facts.person,
    )


def _alone(path: Path, outcome: Outcome, defect: Defect) -> ReadResult:
    return ReadResult(None, (FileReport(path, outcome, (defect,)),))


def _as_defect(refused: InputRefused) -> Defect:
    remedy = f"; {refused.remedy}" if refused.remedy else ""
    return Defect(refused.reason, f"{refused.found}{remedy}")


def _check_instance(facts: _Facts, seen: dict[str, str]) -> None:
    """The first file with an instance UID stays; a copy is skipped, another content refused."""
    first = seen.setdefault(facts.identity.instance_uid, facts.file_sha256)
    if first == facts.file_sha256 and seen.get(facts.file_sha256) is None:
        seen[facts.file_sha256] = facts.identity.instance_uid
        return
    if first == facts.file_sha256:
        raise _Skipped(Reason.DUPLICATE_FILE, "the same file again")
    raise InputRefused(
        Reason.UID_COLLISION,
        "another file with the same instance UID came first",
        expected="a UID per image",
        remedy="find out which of the two is right and remove the other",
    )


def _inspect(
    path: Path, options: ReadOptions, patient_of: PatientOf | None, *, anonymous: bool = False
) -> _Facts:
    """Read and judge a header; pixels are not decoded. anonymous: it need not name anybody."""
    with FileSource(path) as source:
        scan = prescan_source(source, options.limits, allow_headerless=options.allow_headerless)
        capture = _check_kind(scan)
        about = describe(scan, options.limits)
        _, irregular = frame_places(scan, about, scan.inflated or source)
    defects = [*scan.findings, *irregular]
    values = scan.values
    checked = [
        checked_uid(values, 0x0020000D, "study", defects),
        checked_uid(values, 0x00080018, "instance", defects),
    ]
    if values.raw(0x0020000E):
        checked_uid(values, 0x0020000E, "series", defects)
    patient = patient_of(path) if patient_of is not None else None
    identity = Identity(
        _header_patient(values, anonymous=anonymous) if patient is None else patient,
        *checked,
        birth_and_sex=(values.raw(0x00100030).strip(), values.raw(0x00100040).strip()),
    )
    layout = read_layout(scan, about.rows, about.cols)
    defects.extend(layout.defects)
    keep_all = _check_blanking(layout, capture, options, defects)
    times_s, timing = read_times(values, about.frames)
    defects.extend(timing)
    _check_display(scan, defects)
    check_charset(values, defects)
    person = read_person(values, defects)
    return _Facts(
        *(path, sha256_file(path), identity, read_scanner(values), person, about, layout),
        times_s=times_s,
        keep_all=keep_all,
        defects=tuple(defects),
    )


def _header_patient(values: Values, *, anonymous: bool) -> str:
    try:
        return header_patient(values)
    except InputRefused:
        if not anonymous:
            raise
        return ""


def _check_kind(scan: Prescan) -> bool:
    """Whether the file is a capture of a screen rather than an ultrasound image."""
    sop_class = scan.values.text(0x00080016) or scan.values.text(0x00020002)
    modality = scan.values.text(0x00080060)
    if sop_class == _DIRECTORY_CLASS:
        raise _Skipped(Reason.DICOMDIR_IGNORED, "a directory file; the folder itself is walked")
    if sop_class.startswith(_OTHER_OBJECTS) or modality in _OTHER_MODALITIES:
        raise _Skipped(Reason.NOT_AN_IMAGE_OBJECT, "a DICOM object that is not an image")
    if sop_class == _VOLUME_CLASS:
        raise InputRefused(
            Reason.LAYOUT_UNKNOWN,
            "a 3-D ultrasound volume",
            expected="2-D stills and cines",
            remedy="export the planes that are to be read as images",
        )
    if sop_class not in _US_CLASSES and modality != "US":
        raise InputRefused(
            Reason.NOT_ULTRASOUND,
            "a DICOM image that is not ultrasound",
            expected="ultrasound images",
            remedy="leave it out of this import",
        )
    return sop_class in _CAPTURE_CLASSES


def _check_blanking(
    layout: Layout, capture: bool, options: ReadOptions, defects: list[Defect]
) -> bool:
    """Whether all pixels are kept because nothing says where the ultrasound is."""
    if layout.regions:
        return False
    reason = Reason.LAYOUT_UNKNOWN if capture else Reason.NO_REGIONS
    found = "a screen capture" if capture else "no ultrasound region in the header"
    if not options.keep_pixels:
        raise InputRefused(
            reason,
            f"{found}: burned-in text cannot be told from the picture",
            expected="the Sequence of Ultrasound Regions",
            remedy="look at the pixels, then allow them with --keep-pixels",
        )
    defects.append(Defect(reason, f"{found}; all pixels kept, taken for one B-mode picture"))
    return True


def _check_display(scan: Prescan, defects: list[Defect]) -> None:
    """Note rescale and window values that make no sense; ultrasound pixels need neither."""
    values = scan.values
    slope, intercept, width = (
        _numbers(values, tag) for tag in (0x00281053, 0x00281052, 0x00281051)
    )
    plain = slope in ((), (1.0,)) and intercept in ((), (0.0,))
    if not plain:
        defects.append(Defect(Reason.BAD_RESCALE, "rescale slope or intercept; not applied"))
    lut_bad = any(
        _lut_is_bad(item) for tag in (VOI_LUT, MODALITY_LUT) for item in scan.items.get(tag, ())
    )
    if lut_bad or width is None or any(not w >= 1 for w in width):
        defects.append(Defect(Reason.BAD_WINDOW, "window or look-up table unusable; not applied"))


def _numbers(values: Values, tag: int) -> tuple[float, ...] | None:
    try:
        return values.floats(tag)
    except ValueError:
        return None


def _lut_is_bad(item: Values) -> bool:
    try:
        descriptor = item.integers(0x00283002)
    except ValueError:
        return True
    data = item.by_tag.get(0x00283006)
    if len(descriptor) != 3 or data is None:
        return True
    return len(data.raw) < (descriptor[0] or 65536) * (1 if descriptor[2] <= 8 else 2)


@dataclass(slots=True)
class DicomReader:
    """Decodes the files of one study after another."""

    root: Path = field(repr=False)
    pseudonyms: Pseudonyms
    options: ReadOptions
    worker: DecodeWorker
    patient_of: PatientOf | None

    def read(self, of: DicomStudy) -> ReadResult:
        """The study, or why its files gave none; each file is in the result."""
        group, conflict = of.files, of.conflict
        clips: list[Clip] = []
        reports: list[FileReport] = []
        defects: list[Defect] = []
        margins: list[Mapping[str, float]] = []
        used: list[_Facts] = []
        for facts in group:
            try:
                clip, found, margin = self._clip(facts)
            except InputRefused as refused:
                report = FileReport(facts.path, Outcome.REFUSED, (_as_defect(refused),))
            except OSError as error:
                why = (_as_defect(unreadable(error)),)
                report = FileReport(facts.path, Outcome.REFUSED, why)
            else:
                noted = (*facts.defects, *found, *((conflict,) if conflict else ()))
                defects.extend(replace(d, clip=len(clips)) for d in noted)
                clips.append(clip)
                margins.append(margin)
                used.append(facts)
                report = FileReport(facts.path, Outcome.WARNED if noted else Outcome.USED, noted)
            reports.append(report)
        if not clips:
            return ReadResult(None, tuple(reports))
        patient = self.pseudonyms.patient(group[0].identity.patient)
        study = Study(
            # Two patients under one study UID (a conflict of the source) stay two studies.
            key=self.pseudonyms.study(f"{patient}/{group[0].identity.study_uid}"),
            patient=patient,
            clips=tuple(clips),
            scanner=used[0].scanner,
            covariates={**used[0].person, **_mean_margins(margins)},
            defects=tuple(defects),
        )
        return ReadResult(study, tuple(reports))

    def _clip(self, facts: _Facts) -> tuple[Clip, list[Defect], Mapping[str, float]]:
        """The clip of one file; read again once when the file changed meanwhile."""
        for attempt in (1, 2):
            try:
                return self._decoded(facts)
            except InputRefused as refused:
                if refused.reason is not Reason.CHANGED_DURING_READ or attempt == 2:
                    raise
            again = _inspect(facts.path, self.options, self.patient_of)
            if again.identity != facts.identity:
                break
            facts = again
        raise changed_during_read()

    def _decoded(self, facts: _Facts) -> tuple[Clip, list[Defect], Mapping[str, float]]:
        limits, headerless = self.options.limits, self.options.allow_headerless
        boxes = facts.boxes
        request = task_options(limits, allow_headerless=headerless)
        request["boxes"] = boxes and [[b.x, b.y, b.width, b.height] for b in boxes]
        refused: InputRefused | None = None
        info: dict[str, Any] = {}
        try:
            info = self.worker.run("dicom", facts.path, request).info
        except InputRefused as error:
            refused = error
        with FileSource(facts.path) as source:
            scan = prescan_source(source, limits, allow_headerless=headerless)
            places, _ = frame_places(scan, facts.about, scan.inflated or source)
        # A file that changed explains a refusal better than the refusal itself.
        if sha256_file(facts.path) != facts.file_sha256:
            raise changed_during_read()
        if refused is not None:
            raise refused
        bad = {int(index): Reason(reason) for index, reason in info["bad"]}
        constant = [int(index) for index in info["constant"] if int(index) not in bad]
        defects = frame_defects(bad, constant, facts.about.frames)
        stack = LazyDicomFrames(
            facts.path,
            facts.about,
            places,
            [str(digest) for digest in info["payload_sha256"]],
            boxes,
            frozenset(bad),
            limits,
        )
        clip = Clip(
            pixels=stack,
            sha256=str(info["sha256"]),
            mode=facts.layout.mode,
            source=Source(facts.file_sha256, self._keyed_path(facts.path), _KIND),
            regions=facts.layout.regions,
            spacing_mm=facts.layout.spacing_mm,
            times_s=facts.times_s,
        )
        margin = {str(k): float(v) for k, v in info["margin"].items()}
        return clip, defects, margin

    def _keyed_path(self, path: Path) -> str:
        inside = path.is_relative_to(self.root)
        return self.pseudonyms.path(path.relative_to(self.root) if inside else path)


def _mean_margins(margins: Sequence[Mapping[str, float]]) -> dict[str, Covariate]:
    """margin_statistics of the study: the mean over its clips that have a margin."""
    with_margin = [m for m in margins if m]
    names = with_margin[0] if with_margin else {}
    return {name: sum(m[name] for m in with_margin) / len(with_margin) for name in names}
