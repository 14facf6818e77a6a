"""How do DICOM CT series become studies of volumes in Hounsfield units?

Headers of all files, and of the frames of multi-frame objects, are read first and judged
(`dicom_ct_slice`), then sorted into stacks (`dicom_ct_stacks`); then every slice is decoded once in
the decode worker, which can be killed. The volumes that come out decode lazily, slice by slice, so
memory does not grow with a series. A slice whose pixels are damaged is refused, and the rest is
judged again as if it had not come. Of the header remain scanner, age, sex, geometry and the
contrast phase.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from renalkit.domain.image import Mode, Source
from renalkit.domain.study import Defect, Study
from renalkit.domain.volume import PhaseSource, Volume, to_canonical
from renalkit.errors import InputRefused, Reason
from renalkit.readers.contract import (
    Decoder,
    FileReport,
    Outcome,
    ReadOptions,
    ReadResult,
    Recall,
    recall_nothing,
)
from renalkit.readers.dicom_ct_slice import (
    CtSlice,
    Hu,
    NotASlice,
    decode_known,
    payload_of,
    read_ct_slices,
)
from renalkit.readers.dicom_ct_stacks import SliceStack, stack_of, stacks_of
from renalkit.readers.dicom_identity import identity_conflicts
from renalkit.readers.dicom_served import unreadable
from renalkit.readers.pseudonyms import Pseudonyms

PatientOf = Callable[[Path], str | None]
"""Maps a file to the identifier of its patient; None leaves the file to its own header."""

KIND = "dicom-ct"

_SAME_PLACE_SHARE = 0.25
"""Of the distance of slices: a slice lies at a frame."""


@dataclass(slots=True)
class LazyCtSlices:
    """Slices of a canonical volume (Z,Y,X) int16 HU, decoded when asked for.

    Every payload is compared with its digest from the decode worker, so that only bytes that were
    decoded there once are decoded in this process.
    """

    stack: SliceStack = field(repr=False)
    payload_sha256: Sequence[str] = field(repr=False)
    options: ReadOptions = field(default_factory=ReadOptions)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.stack.grid.shape

    @property
    def dtype(self) -> np.dtype[np.generic]:
        return np.dtype("<i2")

    def __len__(self) -> int:
        return len(self.stack.slices)

    def __getitem__(self, index: int, /) -> npt.NDArray[Any]:
        """Slice `index` (Y,X); IndexError outside. Raises InputRefused(CHANGED_DURING_READ)."""
        at = range(len(self))[index]
        hu = decode_known(self.stack.slices[at], self.payload_sha256[at], self.options)
        return _turned(hu, self.stack)


@dataclass(frozen=True, slots=True)
class CtSeries:
    """One volume with the files of its slices, in the order of its frames.

    defects: of the volume and of single slices. identity: of the first slice, raw.
    """

    volume: Volume
    slices: tuple[CtSlice, ...] = field(repr=False)
    defects: tuple[Defect, ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        """File of each frame."""
        return tuple(one.path for one in self.slices)


@dataclass(frozen=True, slots=True)
class ReadSeries:
    """What became of some files: volumes, and a report for each file."""

    series: tuple[CtSeries, ...]
    reports: tuple[FileReport, ...]


def _turned(hu: Hu, stack: SliceStack) -> npt.NDArray[Any]:
    return to_canonical(hu[None], stack.source_axes)[0]


def read_ct_series(
    files: Sequence[Path],
    options: ReadOptions,
    worker: Decoder,
    *,
    keyed_path: Callable[[Path], str] = lambda _: "",
    patient_of: PatientOf | None = None,
) -> ReadSeries:
    """The volumes of some files, whoever they are of, in the order of their first slices' names.

    keyed_path: what a volume's source is called. patient_of: who a file is of.
    """
    inspected = _inspect_all(files, options, patient_of)
    series: list[CtSeries] = []
    reports = list(inspected.reports)
    for group in _by_series(inspected.slices):
        read = _series(group, options, worker, keyed_path)
        series += read.series
        reports += read.reports
    return ReadSeries(tuple(series), _by_file(reports))


def read_dicom_ct(
    files: Sequence[Path],
    root: Path,
    pseudonyms: Pseudonyms,
    options: ReadOptions,
    worker: Decoder,
    *,
    patient_of: PatientOf | None = None,
    recall: Recall = recall_nothing,
) -> Iterator[ReadResult]:
    """Studies out of DICOM files, one per patient and study UID; each file is in one result.

    root is the import folder: keyed paths are relative to it. recall: as in `ReadContext`.
    """

    def keyed_path(path: Path) -> str:
        inside = path.is_relative_to(root)
        return pseudonyms.path(path.relative_to(root) if inside else path)

    inspected = _inspect_all(files, options, patient_of)
    for report in inspected.reports:
        yield ReadResult(None, (report,))
    conflicts = identity_conflicts(one.identity for one in inspected.slices)
    studies: dict[tuple[str, str], list[CtSlice]] = {}
    for one in inspected.slices:
        studies.setdefault((one.identity.patient, one.identity.study_uid), []).append(one)
    for (patient, study_uid), slices in studies.items():
        finished = recall([one.path for one in slices])
        if finished is not None:
            yield finished
            continue
        series: list[CtSeries] = []
        reports: list[FileReport] = []
        for group in _by_series(slices):
            read = _series(group, options, worker, keyed_path)
            series += read.series
            reports += read.reports
        if not series:
            yield ReadResult(None, _by_file(reports))
            continue
        key = pseudonyms.patient(patient)
        conflict = (conflicts[patient],) if patient in conflicts else ()
        study = Study(
            key=pseudonyms.study(f"{key}/{study_uid}"),
            patient=key,
            clips=tuple(one.volume for one in series),
            scanner=series[0].slices[0].scanner,
            covariates=series[0].slices[0].person,
            defects=(
                *(replace(d, clip=n) for n, one in enumerate(series) for d in one.defects),
                *conflict,
            ),
        )
        yield ReadResult(study, _by_file(reports))


def slices_of(volume: Volume, files: Sequence[Path], options: ReadOptions) -> tuple[CtSlice, ...]:
    """The files of a volume's frames, in their order, found again among files by their headers.

    Raises:
        InputRefused: MISSING_FILE, slices of the volume are not there, or changed since.
    """
    everything = _inspect_all(files, options, None).slices
    first = next((s for s in everything if s.file_sha256 == volume.source.file_sha256), None)
    series = [s for s in everything if first is not None and s.series_uid == first.series_uid]
    for found in stacks_of(series, _same_pixels(options)):
        if isinstance(found, SliceStack) and first in found.slices:
            chosen = _at_frames(volume, found.slices)
            if chosen is not None:
                return chosen
    raise InputRefused(
        Reason.MISSING_FILE,
        f"not every slice of a scan of {volume.n_frames} slices",
        expected="the files the scan was read from, unchanged",
        remedy="give the whole series",
    )


def _at_frames(volume: Volume, slices: Sequence[CtSlice]) -> tuple[CtSlice, ...] | None:
    """The slice that lies at each frame; None where one is missing."""
    grid = volume.grid
    _, rows, cols = volume.source_axes
    y, x = (0 if rows == "P" else grid.shape[1] - 1), (0 if cols == "L" else grid.shape[2] - 1)
    corners = grid.to_lps([(k, y, x) for k in range(grid.shape[0])])
    apart = np.linalg.norm(corners[:, None] - np.asarray([s.position for s in slices]), axis=2)
    if float(apart.min(axis=1).max()) > _SAME_PLACE_SHARE * grid.spacing_mm[0]:
        return None
    return tuple(slices[k] for k in apart.argmin(axis=1).tolist())


@dataclass(frozen=True, slots=True)
class _Inspected:
    slices: tuple[CtSlice, ...]
    reports: tuple[FileReport, ...]


def _inspect_all(
    files: Sequence[Path], options: ReadOptions, patient_of: PatientOf | None
) -> _Inspected:
    """Headers of all files; a report for each that is no usable slice."""
    slices: list[CtSlice] = []
    reports: list[FileReport] = []
    seen: dict[str, str] = {}
    for path in sorted(files, key=lambda p: str(p).encode("utf-8", "surrogateescape")):
        try:
            found = read_ct_slices(path, options, patient_of(path) if patient_of else None)
            _check_instance(found[0], seen)
        except NotASlice as skipped:
            reports.append(FileReport(path, Outcome.SKIPPED, (skipped.defect,)))
        except InputRefused as refused:
            reports.append(FileReport(path, Outcome.REFUSED, (_as_defect(refused),)))
        except OSError as error:
            why = (_as_defect(unreadable(error)),)
            reports.append(FileReport(path, Outcome.REFUSED, why))
        else:
            slices += found
    return _Inspected(tuple(slices), tuple(reports))


def _check_instance(one: CtSlice, seen: dict[str, str]) -> None:
    """The first file with an instance UID stays; a copy is skipped, another content refused."""
    uid = one.identity.instance_uid
    first = seen.setdefault(uid, one.file_sha256)
    if first != one.file_sha256:
        raise InputRefused(
            Reason.UID_COLLISION,
            "another file with the same instance UID came first",
            expected="a UID per image",
            remedy="find out which of the two is right and remove the other",
        )
    if f"{uid} met" in seen:
        raise NotASlice(Reason.DUPLICATE_FILE, "the same file again")
    seen[f"{uid} met"] = ""


def _by_file(reports: Sequence[FileReport]) -> tuple[FileReport, ...]:
    """One report per file: a multi-frame object has one per frame, and is used if a frame is."""
    of: dict[Path, list[FileReport]] = {}
    for report in reports:
        of.setdefault(report.path, []).append(report)
    return tuple(_joined(path, told) for path, told in of.items())


def _joined(path: Path, told: Sequence[FileReport]) -> FileReport:
    reasons = tuple(dict.fromkeys(d for report in told for d in report.reasons))
    outcomes = {report.outcome for report in told}
    if outcomes & {Outcome.USED, Outcome.WARNED}:
        return FileReport(path, Outcome.WARNED if reasons else Outcome.USED, reasons)
    return FileReport(path, max(outcomes, key=[Outcome.SKIPPED, Outcome.REFUSED].index), reasons)


def _as_defect(refused: InputRefused) -> Defect:
    remedy = f"; {refused.remedy}" if refused.remedy else ""
    return Defect(refused.reason, f"{refused.found}{remedy}")


def _by_series(slices: Sequence[CtSlice]) -> Iterator[list[CtSlice]]:
    groups: dict[tuple[str, str, str], list[CtSlice]] = {}
    for one in slices:
        key = (one.identity.patient, one.identity.study_uid, one.series_uid)
        groups.setdefault(key, []).append(one)
    yield from groups.values()


def _series(
    slices: list[CtSlice],
    options: ReadOptions,
    worker: Decoder,
    keyed_path: Callable[[Path], str],
) -> ReadSeries:
    """The volumes of one series."""
    series: list[CtSeries] = []
    reports: list[FileReport] = []
    for found in stacks_of(slices, _same_pixels(options)):
        if not isinstance(found, SliceStack):
            outcome = Outcome.REFUSED if found.refused else Outcome.SKIPPED
            reports.append(FileReport(found.slice.path, outcome, (found.defect,)))
            continue
        one, told = _decoded(found, options, worker, keyed_path)
        reports += told
        if one is not None:
            series.append(one)
    phases = [s.volume.phase for s in series]
    if len(series) > 1 and any(p is not None for p in phases):
        # One description for several scans names none of them.
        series = [
            replace(s, volume=replace(s.volume, phase=None, phase_source=None)) for s in series
        ]
    return ReadSeries(tuple(series), tuple(reports))


def _same_pixels(options: ReadOptions) -> Callable[[CtSlice, CtSlice], bool]:
    def same(one: CtSlice, other: CtSlice) -> bool:
        scale = (one.slope, one.intercept) == (other.slope, other.intercept)
        return scale and payload_of(one, options) == payload_of(other, options)

    return same


def _decoded(
    stack: SliceStack,
    options: ReadOptions,
    worker: Decoder,
    keyed_path: Callable[[Path], str],
) -> tuple[CtSeries | None, list[FileReport]]:
    """The volume of a stack, every slice decoded once by the worker."""
    request = {"limits": asdict(options.limits), "allow_headerless": options.allow_headerless}
    reports: list[FileReport] = []
    while True:
        payloads: list[str] = []
        shape = stack.grid.shape
        digest = hashlib.sha256(f"{shape} <i2".encode())
        damaged: dict[int, InputRefused] = {}
        for at, one in enumerate(stack.slices):
            try:
                decoded = worker.run("dicom-ct", one.path, request | _frame_options(one))
                hu = decoded.pixels
                if hu.shape != (one.about.rows, one.about.cols) or hu.dtype != np.dtype("<i2"):
                    raise InputRefused(Reason.CHANGED_DURING_READ, "a file that changed meanwhile")
            except InputRefused as refused:
                damaged[at] = refused
                continue
            payloads.append(str(decoded.info["payload_sha256"]))
            if not damaged:
                digest.update(np.ascontiguousarray(_turned(hu, stack)).tobytes())
        if not damaged:
            break
        reports += [
            FileReport(stack.slices[at].path, Outcome.REFUSED, (_as_defect(refused),))
            for at, refused in damaged.items()
        ]
        rest = [one for at, one in enumerate(stack.slices) if at not in damaged]
        try:
            stack = stack_of(rest, _damage(stack, len(damaged)))
        except InputRefused as refused:
            why = (_as_defect(refused),)
            return None, [*reports, *(FileReport(r.path, Outcome.REFUSED, why) for r in rest)]
    first = stack.slices[0]
    phase = first.phase if len({one.phase for one in stack.slices}) == 1 else None
    volume = Volume(
        pixels=LazyCtSlices(stack, payloads, options),
        sha256=digest.hexdigest(),
        mode=Mode.CT,
        source=Source(first.file_sha256, keyed_path(first.path), KIND),
        spacing_mm=stack.grid.spacing_mm[1:],
        grid=stack.grid,
        source_axes=stack.source_axes,
        phase=phase,
        phase_source=None if phase is None else PhaseSource.HEADER,
    )
    own = {d for one in stack.slices for d in one.defects}
    defects = (*stack.defects, *sorted(own, key=lambda d: (d.reason, d.words)))
    reports += [_used(one, stack.defects) for one in stack.slices]
    return CtSeries(volume, stack.slices, defects), reports


def _frame_options(one: CtSlice) -> dict[str, Any]:
    if one.frame is None:
        return {}
    return {"frame": one.frame, "rescale": [one.slope, one.intercept]}


def _damage(stack: SliceStack, count: int) -> tuple[Defect, ...]:
    """What stays true of a stack that lost slices, and that it did."""
    kept = tuple(d for d in stack.defects if d.reason is Reason.SEVERAL_ACQUISITIONS)
    words = f"{count} slices with damaged pixels left out"
    return (*kept, Defect(Reason.CODEC_ERROR, words))


def _used(one: CtSlice, of_volume: Sequence[Defect]) -> FileReport:
    noted = (*one.defects, *of_volume)
    return FileReport(one.path, Outcome.WARNED if noted else Outcome.USED, noted)
