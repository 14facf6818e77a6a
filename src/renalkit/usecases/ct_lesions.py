"""What do existing segmentations of CT scans say of each mass? The table of `renalkit ct lesions`.

The source is a label file, a folder of studies in one of the CT layouts, or a cohort. Studies come
one by one, so memory does not grow with their number; one that cannot be used is left out with its
reason.

<output>/
  lesions.csv     a line per lesion, units in the names of the columns
  lesions.json    the same with the parts of scores, and what was left out and why
  lesions.html    the same to read, with a slice of each lesion where there is a scan
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path

import numpy as np
import numpy.typing as npt

from renalkit.domain.geometry import SpacingMm
from renalkit.domain.study import Study
from renalkit.domain.volume import (
    CYST,
    TUMOUR,
    WINDOW_HU,
    LabelMap,
    Phase,
    PhaseSource,
    Volume,
    VolumeGrid,
)
from renalkit.errors import ConfigError, InputRefused, Reason
from renalkit.readers.contract import (
    FileReport,
    Outcome,
    ReadContext,
    ReadOptions,
    ReadResult,
)
from renalkit.readers.ct_cases import with_labels
from renalkit.readers.ct_folder import read_ct_folder
from renalkit.readers.ct_pictures import (
    is_picture,
    read_ct_picture,
    read_picture_labels,
    read_picture_values,
    slice_grid,
)
from renalkit.readers.decode_worker import DecodeWorker
from renalkit.readers.dicom_ct import read_ct_series
from renalkit.readers.dicom_prescan import looks_like_dicom
from renalkit.readers.kits import is_kits, read_kits
from renalkit.readers.nifti import (
    is_nifti,
    label_defects,
    labels_on,
    read_nifti_ct,
    read_nifti_labels,
    volume_of,
)
from renalkit.readers.nnunet import is_nnunet, read_nnunet
from renalkit.readers.pseudonyms import KEY_BYTES, Pseudonyms
from renalkit.readers.walk import walk_files
from renalkit.store.cohorts import COHORT, load_cohort
from renalkit.store.files import make_folder, write_json, write_text
from renalkit.usecases.lesion_pictures import lesion_tiles
from renalkit.usecases.lesion_table import Json, LabelledScan, check_place, measured, table_json
from renalkit.usecases.progress import Progress
from renalkit.writers.lesion_page import Place, lesions_csv, lesions_html
from renalkit.writers.overlays import Tile
from renalkit.writers.wording import plural

CSV, JSON, PAGE = "lesions.csv", "lesions.json", "lesions.html"
MOST_PICTURES = 300
UNKNOWN = "unknown"

_NOBODY = bytes(KEY_BYTES)  # studies are named after their files; keys go nowhere


@dataclass(frozen=True, slots=True)
class LesionsRequest:
    """source: label file (NIfTI, or a picture of one slice), folder or cohort. scans: (phase or "",
    file of the same kind, or folder of DICOM slices). instances: file of the same kind. spacing_mm,
    window_hu: of pictures, (rows, columns) and the HU of black and white. All but source and output
    for a label file only."""

    source: Path
    output: Path
    scans: Sequence[tuple[str, Path]] = ()
    instances: Path | None = None
    spacing_mm: SpacingMm | None = None
    window_hu: tuple[float, float] | None = None


def pair_of(text: str | None, name: str) -> tuple[float, float] | None:
    """The two numbers of an option, or one for both.

    >>> pair_of("0.7,0.8", "--spacing"), pair_of("0.7", "--spacing")
    ((0.7, 0.8), (0.7, 0.7))

    Raises:
        ConfigError: something else.
    """
    if text is None:
        return None
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if len(found) not in (1, 2) or not all(map(isfinite, found)):
        raise ConfigError([f"{name} {text}: expected one number, or two with a comma between"])
    return found[0], found[-1]


def scans_of(given: Sequence[str]) -> list[tuple[str, Path]]:
    """PHASE=FILE or FILE as (phase or "", path).

    Raises:
        ConfigError: an unknown phase, or a path that is not there.
    """
    phases = [phase.value for phase in Phase]
    problems: list[str] = []
    found: list[tuple[str, Path]] = []
    for text in given:
        phase, mark, name = text.partition("=")
        if not mark or Path(text).exists():
            phase, name = "", text
        if phase and phase not in (*phases, UNKNOWN):
            problems.append(
                f"--scan {text}: no phase {phase!r}; expected {', '.join((*phases, UNKNOWN))}"
            )
        elif not Path(name).exists():
            problems.append(f"--scan {text}: no such file or folder")
        found.append((phase, Path(name)))
    if problems:
        raise ConfigError(problems)
    return found


def run_lesions(request: LesionsRequest, progress: Progress) -> Json:
    """Measure every lesion of the source and write the table; gives what lesions.json holds.

    Raises:
        InputRefused: nothing to read, no labels, or a label file that cannot be used.
        ConfigError: scans or instances beside a folder, or an output inside the source.
        StoreError: a damaged cohort, or the disk refuses.
    """
    source = request.source
    if source.is_dir():
        _check_folder(request)
    rows: list[Json] = []
    left: list[Json] = []
    pictures: dict[Place, Tile] = {}
    with DecodeWorker(ReadOptions().limits) as worker:
        if source.is_file():
            of = _of_picture if is_picture(source) else _of_file
            found: Iterator[LabelledScan | Json] = iter([of(request, worker)])
        elif (source / COHORT).is_file():
            found = _of_cohort(source)
        else:
            found = _of_folder(source, worker)
        progress.stage("lesions", 0)
        for scan in found:
            if not isinstance(scan, LabelledScan):
                left.append(scan)
                continue
            try:
                one = measured(scan)
            except InputRefused as refused:
                if source.is_file():
                    raise
                left.append(_left(scan.name, refused.reason, str(refused)))
                continue
            rows.append(one.as_json())
            if len(pictures) < MOST_PICTURES:
                pictures |= {(scan.name, n): tile for n, tile in lesion_tiles(one).items()}
            progress.advance(1)
    if not rows:
        why = f"; {left[0]['file']}: {left[0]['words']}" if left else ""
        raise InputRefused(
            Reason.MISSING_FILE,
            f"no labelled scan{why}",
            where=source.name,
            expected="a label file, a cohort with labels, or a folder as the guide to CT has it",
            remedy="give the label file itself (NIfTI: 1 kidney, 2 tumour, 3 cyst)",
        )
    table = table_json(rows, left)
    make_folder(request.output)
    write_json(request.output / JSON, table)
    write_text(request.output / CSV, lesions_csv(table))
    write_text(request.output / PAGE, lesions_html(table, pictures, source.resolve().name))
    return table


def lesions_words(table: Json) -> str:
    """The table for a terminal."""
    lines = [str(table["use"])]
    for scan in table["scans"]:
        lines.append(f"{scan['scan']}: {plural(len(scan['lesions']), 'lesion')}")
        for row in scan["lesions"]:
            words = f"  {row['lesion']} {row['side']} {row['label']}"
            words += f", {row['axial_diameter_mm']:.0f} mm"
            if row["volume_mm3"] is not None:
                words += f", {row['volume_mm3'] / 1000:.1f} mL"
            if row["class"] is not None:
                words += f", {row['class']}"
            if row["renal"] is not None:
                words += f", R.E.N.A.L. {row['renal']['text']}, PADUA {row['padua']['text']}"
            lines.append(words)
    lines += [f"left out {one['file']}: {one['words']}" for one in table["left_out"]]
    return "\n".join(lines)


def _left(name: str, reason: Reason, words: str) -> Json:
    return {"file": name, "reason": reason.value, "words": words}


def _check_folder(request: LesionsRequest) -> None:
    problems: list[str] = []
    given = (request.instances, request.spacing_mm, request.window_hu)
    if request.scans or any(one is not None for one in given):
        problems.append(
            "--scan, --instances, --spacing, --window: beside a label file; a folder holds its own"
        )
    if request.output.resolve().is_relative_to(request.source.resolve()):
        problems.append(f"-o {request.output}: inside the folder that is read")
    if problems:
        raise ConfigError(problems)


# ---- one label file ------------------------------------------------------------------------


def _of_file(request: LesionsRequest, worker: DecodeWorker) -> LabelledScan:
    """A label file with the scans and the map of instances given beside it."""
    path = request.source
    if not is_nifti(path):
        raise InputRefused(
            Reason.FORMAT_REFUSED,
            "labels that are neither a NIfTI file nor a picture",
            where=path.name,
            expected=".nii, .nii.gz or .png",
            remedy="write the labels as NIfTI, or give a folder or cohort",
        )
    if request.spacing_mm is not None or request.window_hu is not None:
        raise ConfigError(["--spacing, --window: of pictures; NIfTI files say both themselves"])
    options = ReadOptions()
    file = read_nifti_labels(path, options, worker)
    labels = labels_on(file.grid, file, where=path.name)
    _check_marked(file.pixels, path.name)
    instances = None
    if request.instances is not None:
        found = read_nifti_labels(request.instances, options, worker)
        marked = replace(found, pixels=(found.pixels > 0).astype(np.uint8))
        labels_on(file.grid, marked, where=request.instances.name)
        instances = found.pixels
        _check_numbered(instances, file.pixels, request.instances.name)
    notes = [d.words for d in file.defects]
    volumes: list[Volume] = []
    for phase, place in request.scans:
        volume = _scan(place, file.grid, worker)
        volume = with_labels(volume, LabelMap(labels.pixels, labels.sha256))
        notes += [d.words for d in label_defects(labels, volume)]
        volumes.append(_of_phase(volume, phase))
    name = path.name.removesuffix(".gz").removesuffix(".nii")
    stated = [bool(phase) for phase, _ in request.scans]
    notes += _phase_notes([v for v, known in zip(volumes, stated, strict=True) if not known])
    return LabelledScan(name, file.grid, file.pixels, instances, volumes, notes=notes)


def _check_marked(labels: npt.NDArray[np.uint8], where: str) -> None:
    if not labels.any():
        raise InputRefused(
            Reason.EMPTY_MASK,
            "labels that mark nothing",
            where=where,
            expected="1 kidney, 2 tumour, 3 cyst",
            remedy="give the file with the segmentation",
        )


def _check_numbered(
    instances: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8], where: str
) -> None:
    """Refuse a map of instances that numbers what is no mass, or nothing."""
    if instances.shape != labels.shape:
        raise InputRefused(
            Reason.MASK_MISMATCH,
            f"instances of {instances.shape} voxels, labels of {labels.shape}",
            where=where,
            expected="the grid of the labels",
            remedy="give the map of instances of these labels, or leave it out",
        )
    mass = np.isin(labels, (TUMOUR, CYST))
    numbers = set(np.unique(instances).tolist()) - {0}
    odd = sorted(numbers - set(np.unique(instances[mass]).tolist()))
    if odd or not numbers:
        raise InputRefused(
            Reason.MASK_MISMATCH,
            f"instance {odd[0]} without a voxel labelled tumour or cyst"
            if odd
            else "instances that number nothing",
            where=where,
            expected="the number of each lesion where it is labelled, 0 elsewhere",
            remedy="give the map of instances of these labels, or leave it out",
        )


def _scan(path: Path, grid: VolumeGrid, worker: DecodeWorker) -> Volume:
    """The scan in a NIfTI file, or the series of a folder of DICOM slices that lies on the grid."""
    if path.is_file():
        if not is_nifti(path):
            raise InputRefused(
                Reason.FORMAT_REFUSED,
                "a scan that is no NIfTI file",
                where=path.name,
                expected=".nii, .nii.gz, or a folder of DICOM slices",
                remedy="give the folder with the slices",
            )
        volume = volume_of(read_nifti_ct(path, ReadOptions(), worker), path, path.name)
        check_place(volume.grid, grid, path.name)
        return volume
    read = read_ct_series(
        [p for p in walk_files(path) if isinstance(p, Path)], ReadOptions(), worker
    )
    if not read.series:
        bad = next((r.reasons[0] for r in read.reports if r.outcome is Outcome.REFUSED), None)
        raise InputRefused(
            Reason.EMPTY if bad is None else bad.reason,
            "no CT series" if bad is None else bad.words,
            where=path.name,
            expected="a NIfTI file or a folder of DICOM CT slices",
        )
    near = min((one.volume for one in read.series), key=lambda v: v.grid.shift_from(grid))
    check_place(near.grid, grid, path.name)
    return near


def _of_phase(volume: Volume, phase: str) -> Volume:
    """The volume with the phase the user states, if one is stated."""
    if not phase:
        return volume
    if phase == UNKNOWN:
        return replace(volume, phase=None, phase_source=None)
    return replace(volume, phase=Phase(phase), phase_source=PhaseSource.HEADER)


def _phase_notes(volumes: Sequence[Volume]) -> list[str]:
    return [
        f"contrast phase {v.phase.value} by the HU of the kidneys, not by the header"
        for v in volumes
        if v.phase is not None and v.phase_source is PhaseSource.HU
    ]


def _of_picture(request: LesionsRequest, worker: DecodeWorker) -> LabelledScan:
    """A label picture of one slice; a scan of unknown window is shown, not measured."""
    path, options, spacing = request.source, ReadOptions(), request.spacing_mm
    labels = read_picture_labels(path, options, worker)
    _check_marked(labels, path.name)
    if spacing is None:
        raise InputRefused(
            Reason.NO_SCALE,
            "a picture, which does not say how large its pixels are",
            where=path.name,
            expected="mm per pixel",
            remedy="--spacing MM, or ROWS,COLUMNS in mm; sizes cannot be guessed",
        )
    if min(spacing) <= 0:
        raise ConfigError([f"--spacing {spacing[0]:g},{spacing[1]:g}: expected more than 0"])
    grid = slice_grid(labels.shape[1:], spacing)
    instances = None
    if request.instances is not None:
        instances = read_picture_values(request.instances, options, worker)
        _check_numbered(instances, labels, request.instances.name)
    window = request.window_hu or WINDOW_HU
    if not -1024 <= window[0] < window[1] <= 32767:
        raise ConfigError([f"--window {window[0]:g},{window[1]:g}: expected rising HU"])
    volumes: list[Volume] = []
    for phase, place in request.scans:
        volume = read_ct_picture(place, window, spacing, options, worker)
        check_place(volume.grid, grid, place.name)
        volumes.append(_of_phase(volume, phase))
    notes: list[str] = []
    if volumes and request.window_hu is None:
        notes.append("grey values of an unknown window are no HU: shown, not measured")
    return LabelledScan(
        path.stem,
        grid,
        labels,
        instances,
        volumes if request.window_hu is not None else (),
        shown=volumes[0] if volumes and request.window_hu is None else None,
        notes=notes,
    )


# ---- many studies --------------------------------------------------------------------------


def _of_cohort(folder: Path) -> Iterator[LabelledScan | Json]:
    for study in load_cohort(folder).studies:
        yield from _of_study(study, study.key)


def _of_folder(folder: Path, worker: DecodeWorker) -> Iterator[LabelledScan | Json]:
    """The studies of a folder; of each file that is refused, why."""
    walked = list(walk_files(folder))
    files = [p for p in walked if isinstance(p, Path)]
    context = ReadContext(folder, Pseudonyms(_NOBODY), worker)
    results: Iterator[ReadResult]
    if is_kits(files):
        results = read_kits(files, context)
    elif is_nnunet(files):
        results = read_nnunet(files, context)
    else:
        slices = [p for p in files if is_nifti(p) or looks_like_dicom(p)]
        results = read_ct_folder(slices, context)
    for report in walked:
        if isinstance(report, FileReport) and report.outcome is Outcome.REFUSED:
            yield _refused(report, folder)
    for result in results:
        yield from (_refused(r, folder) for r in result.files if r.outcome is Outcome.REFUSED)
        if result.study is not None:
            yield from _of_study(result.study, _name(result, folder))


def _refused(report: FileReport, folder: Path) -> Json:
    name = report.path.relative_to(folder).as_posix()
    return _left(name, report.reasons[0].reason, report.reasons[0].words)


def _name(result: ReadResult, folder: Path) -> str:
    """What a study is called: its folder below the source, or its first file there."""
    used = [r.path for r in result.files if r.outcome in (Outcome.USED, Outcome.WARNED)]
    parts = [p.relative_to(folder).parent.parts for p in used]
    common = [level[0] for level in zip(*parts, strict=False) if len(set(level)) == 1]
    if common:
        return "/".join(common)
    if len({p.parent for p in used}) == 1:
        return folder.resolve().name
    return used[-1].name.removesuffix(".gz").removesuffix(".nii")


def _of_study(study: Study, name: str) -> Iterator[LabelledScan | Json]:
    """Each label volume of a study with the scans it lies on."""
    labelled = [(n, c) for n, c in enumerate(study.clips) if isinstance(c, Volume) and c.labels]
    if not labelled:
        yield _left(name, Reason.MISSING_FILE, "no label volume on any of its scans")
        return
    groups: dict[str, list[tuple[int, Volume]]] = {}
    for n, volume in labelled:
        assert volume.labels is not None
        groups.setdefault(volume.labels.sha256, []).append((n, volume))
    notes = [d.words for d in study.defects]
    without = sum(isinstance(c, Volume) for c in study.clips) - len(labelled)
    if without:
        notes.append(f"{without} scans on other grids than the labels: not measured")
    for place, members in enumerate(groups.values(), start=1):
        first, volume = members[0]
        assert volume.labels is not None
        labels = np.stack([np.asarray(volume.labels.pixels[k]) for k in range(volume.n_frames)])
        instances, classes = _instances(study, first, volume)
        volumes = [v for _, v in members]
        yield LabelledScan(
            name if len(groups) == 1 else f"{name}#{place}",
            volume.grid,
            labels.astype(np.uint8),
            instances,
            volumes,
            classes=classes,
            notes=(*dict.fromkeys(notes), *_phase_notes(volumes)),
        )


def _instances(
    study: Study, clip: int, volume: Volume
) -> tuple[npt.NDArray[np.uint8] | None, dict[int, str]]:
    """The map of the study's lesions that are drawn on this volume, and their classes."""
    drawn = [s for s in study.lesions if any(r.clip == clip and r.mask for r in s.rois)]
    if not drawn:
        return None, {}
    out = np.zeros(volume.grid.shape, np.uint8)
    for number, lesion in enumerate(drawn, start=1):
        for roi in lesion.rois:
            if roi.clip == clip and roi.mask is not None:
                out[roi.frame][roi.mask.decode()] = number
    return out, {n: s.label for n, s in enumerate(drawn, start=1) if s.label is not None}
