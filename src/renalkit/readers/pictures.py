"""How do the pictures of one patient, with masks and known facts, become a Study?

The layouts (`image_folder`, `busi`) only say which files belong together and what is known about
them; decoding, pairing with masks, refusals and keys are here, once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from renalkit.domain.geometry import SpacingMm
from renalkit.domain.image import Clip, Mode, Source, pixel_sha256, read_only
from renalkit.domain.study import Covariate, Defect, Lesion, Roi, Scanner, Study
from renalkit.errors import InputRefused, Reason
from renalkit.readers.annotations import (
    FrameAnnotation,
    MaskValues,
    as_annotation,
    bad_annotation,
    fitted,
    joined_roi,
    mask_pixels,
    merged,
)
from renalkit.readers.contract import FileReport, Outcome, PixelsAndFacts, ReadContext, ReadResult
from renalkit.readers.stills import decode_options
from renalkit.store.files import sha256_file

ANY_LESION = "1"
"""Name of the lesion where the source does not tell lesions apart."""

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".wmv")
"""Names that are offered to the video decoder; it then judges by content."""

WHOLE_PICTURES = Defect(
    Reason.NO_REGIONS,
    "picture files declare no ultrasound regions: whole pictures are kept, with any text in them",
)


@dataclass(frozen=True, slots=True)
class LesionFacts:
    """What a table or folder says about one lesion; `lesion` carries a placeholder key."""

    name: str
    lesion: Lesion


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture or video file with everything the layout knows about it.

    lesions: the lesions it shows. label: class of a picture without lesion (for instance normal).
    masks: mask files, merged. annotations: regions from annotation files (already read);
    annotation_files: those of these files that belong to this picture alone.
    """

    path: Path
    lesions: tuple[LesionFacts, ...] = ()
    label: str | None = None
    masks: tuple[Path, ...] = ()
    annotations: tuple[FrameAnnotation, ...] = ()
    annotation_files: tuple[Path, ...] = ()
    spacing_mm: SpacingMm | None = None

    @property
    def companions(self) -> tuple[Path, ...]:
        """The files that share the picture's fate."""
        return (*self.masks, *self.annotation_files)


@dataclass(frozen=True, slots=True)
class PatientFiles:
    """The pictures of one study. patient and study are the identities keys are made from."""

    patient: str
    study: str
    pictures: tuple[Picture, ...]
    patient_known: bool
    site: str | None = None
    scanner: Scanner = Scanner()
    defects: tuple[Defect, ...] = ()
    exclude_because: str | None = None
    covariates: Mapping[str, Covariate] = field(default_factory=dict[str, Covariate])


@dataclass(frozen=True, slots=True)
class _Read:
    """A picture that was decoded, with its regions."""

    picture: Picture
    clip: Clip
    source_format: str
    annotations: tuple[FrameAnnotation, ...]


def placeholder_lesion() -> Lesion:
    """A lesion without facts; its key is set when the study is known."""
    return Lesion("l-" + "0" * 20)


def refused_file(path: Path, error: InputRefused) -> FileReport:
    """The report of a file that a decoder or a rule refused."""
    words = "; ".join(
        t for t in (error.found, error.expected and f"expected {error.expected}") if t
    )
    return FileReport(path, Outcome.REFUSED, (Defect(error.reason, words),))


def identity(context: ReadContext, path: Path, sha256: str) -> str:
    """Identity of a file that names no patient: its place and its content."""
    return f"{context.relative(path).as_posix()}\0{sha256}"


def file_sha256(path: Path) -> str:
    """Digest of a file; InputRefused(UNREADABLE) when it cannot be read."""
    try:
        return sha256_file(path)
    except OSError as error:
        raise InputRefused(
            Reason.UNREADABLE,
            f"cannot be read ({error.strerror})",
            remedy="check that the file exists and that you may read it",
        ) from error


def read_patient(files: PatientFiles, values: MaskValues, context: ReadContext) -> ReadResult:
    """Decode the pictures of one study and put it together; refused files are reported.

    The result has no study when every picture was refused.
    """
    finished = context.recall([q for p in files.pictures for q in (p.path, *p.companions)])
    if finished is not None:
        return finished
    reports: list[FileReport] = []
    read: list[_Read] = []
    for picture in files.pictures:
        done, told = _read_picture(picture, values, context)
        reports.extend(told)
        if done is not None:
            read.append(done)
    if not read:
        return ReadResult(None, tuple(reports))
    study_key = context.pseudonyms.study(files.study)
    lesions, disputes = _lesions(read, study_key, context)
    labels = {r.picture.label for r in read if r.picture.label is not None}
    formats = sorted({r.source_format for r in read})
    defects = [*files.defects, *disputes, WHOLE_PICTURES]
    if lesions and labels:
        words = f"{len(labels)} class without lesion beside lesions: kept as pictures only"
        defects.append(Defect(Reason.CONVERTED, words))
    study = Study(
        key=study_key,
        patient=context.pseudonyms.patient(files.patient),
        clips=tuple(r.clip for r in read),
        lesions=lesions,
        label=labels.pop() if len(labels) == 1 and not lesions else None,
        patient_known=files.patient_known,
        site=files.site,
        scanner=files.scanner,
        covariates={"source_format": "+".join(formats), **files.covariates},
        defects=tuple(defects) + _clip_defects(reports, read),
    )
    return ReadResult(study, tuple(reports), files.exclude_because)


def _clip_defects(reports: Sequence[FileReport], read: Sequence[_Read]) -> tuple[Defect, ...]:
    """The warnings of the used pictures, with the number of their clip."""
    number = {r.picture.path: index for index, r in enumerate(read)}
    return tuple(
        replace(defect, clip=number[report.path])
        for report in reports
        if report.outcome is Outcome.WARNED and report.path in number
        for defect in report.reasons
    )


def _decode(path: Path, role: str, context: ReadContext) -> PixelsAndFacts:
    options = decode_options(context.options.limits, role)
    task = "video" if path.suffix.lower() in VIDEO_SUFFIXES else "still"
    return context.decoder.run(task, path, options)


def _read_picture(
    picture: Picture, values: MaskValues, context: ReadContext
) -> tuple[_Read | None, list[FileReport]]:
    try:
        read = read_clip(picture.path, context, spacing_mm=picture.spacing_mm)
    except InputRefused as error:
        words = "belongs to a picture that was refused"
        masks = (Defect(error.reason, words),)
        return None, [
            refused_file(picture.path, error),
            *(FileReport(m, Outcome.REFUSED, masks) for m in picture.companions),
        ]
    clip = read.clip
    try:
        from_files, reports = _read_masks(picture, (clip.rows, clip.cols), values, context)
        regions = _placed((*from_files, *picture.annotations), clip.pixels.shape, picture)
        if picture.label is not None and not picture.lesions:
            regions = _none_expected(regions, picture)
    except _PairRefused as refusal:
        return None, refusal.reports
    noticed = dict.fromkeys(d for item in regions for d in item.defects)
    reports.insert(0, read.report(*noticed))
    reports.extend(FileReport(path, Outcome.USED) for path in picture.annotation_files)
    return _Read(picture, clip, read.source_format, regions), reports


@dataclass(frozen=True, slots=True)
class FileClip:
    """A picture or video file as a clip. warnings: what was wrong; notes: what was changed."""

    path: Path
    clip: Clip
    source_format: str
    warnings: tuple[Defect, ...]
    notes: tuple[Defect, ...]

    def report(self, *noticed: Defect) -> FileReport:
        """The report of the file, used; with a warning for what was noticed later too."""
        warnings = (*self.warnings, *noticed)
        outcome = Outcome.WARNED if warnings else Outcome.USED
        return FileReport(self.path, outcome, (*warnings, *self.notes))


def read_clip(
    path: Path,
    context: ReadContext,
    *,
    mode: Mode = Mode.B,
    spacing_mm: SpacingMm | None = None,
) -> FileClip:
    """Decode one file. Raises InputRefused, with the reason of the decoder."""
    sha256 = file_sha256(path)
    decoded = _decode(path, "image", context)
    frames = decoded.pixels[None] if decoded.info.get("times_s", ...) is ... else decoded.pixels
    source_format = str(decoded.info["source_format"])
    keyed_path = context.pseudonyms.path(Path(context.relative(path)))
    return FileClip(
        path,
        Clip(
            pixels=read_only(frames),
            sha256=pixel_sha256(frames),
            mode=mode,
            source=Source(sha256, keyed_path, source_format),
            spacing_mm=spacing_mm,
            times_s=_times(decoded.info.get("times_s")),
        ),
        source_format,
        tuple(Defect(Reason(str(r)), str(w)) for r, w in decoded.info.get("warnings", ())),
        tuple(Defect(Reason.CONVERTED, str(words)) for words in decoded.info.get("notes", ())),
    )


def _times(values: Iterable[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(float(v) for v in values)


class _PairRefused(Exception):
    """A picture and its regions do not belong together: both are refused."""

    def __init__(self, picture: Picture, error: InputRefused, at: Path | None = None) -> None:
        words = "its mask or annotation was refused: " + error.found
        blamed = {at} if at is not None else set(picture.companions)
        another = (Defect(error.reason, "another file of the same picture was refused"),)
        masks = [
            refused_file(m, error) if m in blamed else FileReport(m, Outcome.REFUSED, another)
            for m in picture.companions
        ]
        own = FileReport(picture.path, Outcome.REFUSED, (Defect(error.reason, words),))
        self.reports = [own, *masks]
        super().__init__(words)


def _read_masks(
    picture: Picture, size: tuple[int, int], values: MaskValues, context: ReadContext
) -> tuple[tuple[FrameAnnotation, ...], list[FileReport]]:
    """The union of the picture's mask files as one annotation, with a report per file."""
    masks: list[np.ndarray] = []
    reports: list[FileReport] = []
    for path in picture.masks:
        try:
            decoded = _decode(path, "mask", context)
            lossy = bool(decoded.info.get("lossy"))
            pixels, noticed = mask_pixels(decoded.pixels, values, lossy=lossy)
            if pixels.shape != size:
                raise bad_annotation(
                    f"mask of {pixels.shape[0]} x {pixels.shape[1]} pixels",
                    expected=f"{size[0]} x {size[1]} pixels, like its picture",
                    reason=Reason.MASK_MISMATCH,
                )
        except InputRefused as error:
            raise _PairRefused(picture, error, path) from error
        if not pixels.any() and picture.label is None:
            noticed = (*noticed, Defect(Reason.EMPTY_MASK, "the mask covers no pixel"))
        reports.append(FileReport(path, Outcome.WARNED if noticed else Outcome.USED, noticed))
        masks.append(pixels)
    if not masks:
        return (), reports
    base = FrameAnnotation(picture.path.name, 0, ANY_LESION)
    return (as_annotation(merged(masks), base),), reports


def _placed(
    items: Iterable[FrameAnnotation], shape: tuple[int, ...], picture: Picture
) -> tuple[FrameAnnotation, ...]:
    """Annotations checked against the frames and named after the lesions of the picture."""
    named = {facts.name for facts in picture.lesions}
    result: list[FrameAnnotation] = []
    for item in items:
        try:
            if item.frame >= shape[0]:
                raise bad_annotation(
                    f"annotation of frame {item.frame}", expected=f"frames 0 to {shape[0] - 1}"
                )
            placed = fitted(item, shape[1], shape[2])
            if len(named) == 1:
                # The table knows one lesion here: every region belongs to it.
                placed = replace(placed, lesion=next(iter(named)))
            elif named and placed.lesion not in named:
                raise bad_annotation(
                    "a region that does not say which lesion it shows",
                    expected=f"one of the {len(named)} lesions the table lists for the picture",
                )
        except InputRefused as error:
            raise _PairRefused(picture, error) from error
        result.append(placed)
    return tuple(result)


def _none_expected(
    regions: Iterable[FrameAnnotation], picture: Picture
) -> tuple[FrameAnnotation, ...]:
    """A picture said to show no lesion: empty masks say the same, others contradict it."""
    if any(r.mask is not None or r.box is not None for r in regions):
        error = bad_annotation(
            f"a region on a picture of class '{picture.label}', which has no lesion",
            expected="an empty mask, or another class",
        )
        raise _PairRefused(picture, error)
    return ()


def _lesions(
    read: Sequence[_Read], study_key: str, context: ReadContext
) -> tuple[tuple[Lesion, ...], tuple[Defect, ...]]:
    """The lesions of a study with their regions, in the order of their names."""
    facts: dict[str, Lesion] = {}
    regions: dict[tuple[str, int, int], list[FrameAnnotation]] = {}
    drawn: dict[str, set[str]] = {}
    for clip, item in enumerate(read):
        for fact in item.picture.lesions:
            facts.setdefault(fact.name, fact.lesion)
        for region in item.annotations:
            regions.setdefault((region.lesion, clip, region.frame), []).append(region)
            if (region.mask or region.box) and item.picture.label is None:
                facts.setdefault(region.lesion, placeholder_lesion())
                said = drawn.setdefault(region.lesion, set())
                if region.label is not None:
                    said.add(region.label)
    # The table's word comes first. Two classes for one lesion: none of them can be trusted.
    disputed = {n for n, labels in drawn.items() if len(labels) > 1 and facts[n].label is None}
    for name, labels in drawn.items():
        if facts[name].label is None and len(labels) == 1:
            facts[name] = replace(facts[name], label=labels.pop())
    rois: dict[str, list[Roi]] = {}
    for (name, clip, frame), items in sorted(regions.items()):
        roi = joined_roi(clip, frame, items)
        if roi is not None:
            rois.setdefault(name, []).append(roi)
    words = f"{len(disputed)} lesions with different labels on different pictures: label removed"
    defects = (Defect(Reason.FIELD_NULLED, words),) if disputed else ()
    lesions = tuple(
        replace(
            facts[name],
            key=context.pseudonyms.lesion(study_key, name),
            rois=tuple(rois.get(name, ())),
        )
        for name in sorted(facts)
    )
    return lesions, defects
