"""How does what was found on a CT scan reach people, other programs and the archive?

<output>/
  labels.nii.gz instances.nii.gz   on the axes of the scan's own file
  lesions.csv .json .html .pdf     the table of masses, with a slice of each
  dicom/segmentation.dcm           where the scan came as DICOM: kidney and each mass
  dicom/report.dcm                 the measurements (TID 1500)
  dicom/table.dcm                  the PDF as an object of the archive
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from renalkit import __version__
from renalkit.domain.scan import FoundLesion, FoundScan
from renalkit.domain.study import RoiOrigin
from renalkit.domain.volume import KIDNEY, TUMOUR, Volume, from_canonical
from renalkit.metrics.kidney_anatomy import slice_shares
from renalkit.metrics.volume_lesions import LesionMeasures
from renalkit.readers.contract import ReadOptions
from renalkit.readers.dicom_ct import KIND, slices_of
from renalkit.readers.dicom_source import read_ct_header
from renalkit.store.files import make_folder, write_bytes, write_json, write_text
from renalkit.usecases.lesion_pictures import lesion_tiles
from renalkit.usecases.lesion_table import Json, MeasuredScan, found_scan, measured, table_json
from renalkit.writers.dicom_out import codes
from renalkit.writers.dicom_out.codes import Algorithm, Code, of_class
from renalkit.writers.dicom_out.ct import Marked, VolumeSegment, ct_report, ct_segmentation
from renalkit.writers.dicom_out.document import encapsulated_pdf
from renalkit.writers.dicom_out.general import ResultLabel, save
from renalkit.writers.dicom_out.report import Finding, Quantity
from renalkit.writers.dicom_out.source import checked_slices
from renalkit.writers.lesion_page import lesions_csv, lesions_html, lesions_pdf
from renalkit.writers.nifti import write_nifti
from renalkit.writers.overlays import Tile

SERIES = {"segmentation": 9111, "report": 9112, "table": 9113}
"""Series numbers of the results; high, so that no series of the scanner has them."""

_TITLE = "Renal masses"
_KIDNEY = "Kidney"


@dataclass(frozen=True, slots=True)
class ScanFiles:
    """volume: the scan that was looked at. files: of its study; DICOM slices among others. phases:
    further scans on the same grid."""

    volume: Volume
    files: Sequence[Path] = ()
    phases: Sequence[Volume] = ()


@dataclass(frozen=True, slots=True)
class ResultOptions:
    """name: what the scan is called in table and page; in DICOM it is not named. classes: in the
    order of the scores. labelmap: see `ct_segmentation`. written: time of the DICOM objects, now
    when not set; with it, the same call gives the same bytes. notes: what is to be known of the
    scan, for the table."""

    name: str
    classes: Sequence[str] = ()
    labelmap: bool = False
    written: datetime | None = field(default=None)
    notes: Sequence[str] = ()


def write_scan_results(
    found: FoundScan, scan: ScanFiles, output: Path, options: ResultOptions
) -> Json:
    """Write everything about one scan.

    Returns:
        table: as in lesions.json. files: by name, relative to the output. not_written: name and
        why.

    Raises:
        InputRefused: MASK_MISMATCH, a scan on another grid; MISSING_FILE, DICOM slices that are
            not there any more; what the writers of DICOM refuse.
        StoreError: the disk refused.
    """
    volumes = (scan.volume, *scan.phases)
    labelled = found_scan(found, volumes, options.classes, options.name)
    whole = measured(replace(labelled, notes=options.notes))
    table = table_json([whole.as_json()])
    tiles = lesion_tiles(whole)
    pictures = {(options.name, n): tile for n, tile in tiles.items()}
    make_folder(output)
    files = {
        "table": "lesions.csv",
        "json": "lesions.json",
        "page": "lesions.html",
        "pdf": "lesions.pdf",
    }
    write_text(output / files["table"], lesions_csv(table))
    write_json(output / files["json"], table)
    write_text(output / files["page"], lesions_html(table, pictures, options.name))
    write_bytes(output / files["pdf"], lesions_pdf(table, pictures, options.name))
    not_written: dict[str, str] = {}
    if found.grid.slice_at is None:
        files |= _nifti(found, scan.volume, output)
    else:
        not_written["nifti"] = "slices at uneven distances fit no NIfTI file"
    if scan.volume.source.kind == KIND and scan.files:
        slices = slices_of(scan.volume, scan.files, ReadOptions())
        if not found.labels.any():
            not_written["dicom"] = "neither kidney nor mass was found"
        elif slices[0].frame is not None:
            not_written["dicom"] = "the scan is frames of one object, not single slices"
        else:
            source = _Archive([one.path for one in slices], scan.volume.source_axes, tiles)
            files |= _dicom(found, whole, source, output, options)
    return {"table": table, "files": files, "not_written": not_written}


def _nifti(found: FoundScan, volume: Volume, output: Path) -> dict[str, str]:
    """Both maps as the scan's own file lies; of DICOM: columns, rows, slices."""
    axes = volume.source_axes
    axes = axes[::-1] if volume.source.kind == KIND else axes
    files = {"labels": "labels.nii.gz", "instances": "instances.nii.gz"}
    for name, array in (("labels", found.labels), ("instances", found.instances)):
        write_nifti(output / files[name], array, found.grid, axes)
    return files


@dataclass(frozen=True, slots=True)
class _Archive:
    """The files of the slices, how their pixels lie, and a picture of each lesion."""

    paths: Sequence[Path]
    axes: str
    tiles: Mapping[int, Tile]


def _dicom(
    found: FoundScan, whole: MeasuredScan, source: _Archive, output: Path, options: ResultOptions
) -> dict[str, str]:
    headers = [read_ct_header(path) for path in source.paths]
    by = Algorithm(
        found.system.name,
        __version__,
        codes.ARTIFICIAL_INTELLIGENCE,
        {"weights": found.system.weights_sha256[:32]},
    )
    written = options.written or datetime.now(UTC)

    def label(name: str) -> ResultLabel:
        return ResultLabel(_TITLE, SERIES[name], written, repeatable=True)

    marked, segments = _segments(found, whole, by, source.axes)
    segmentation = ct_segmentation(
        headers, marked, segments, label("segmentation"), labelmap=options.labelmap
    )
    report = ct_report(headers, _findings(found, whole, by), label("report"), segmentation)
    # The name of a file may name the patient: in the archive the series says what it is.
    table = table_json([whole.as_json() | {"scan": "CT series"}])
    pictures = {("CT series", n): tile for n, tile in source.tiles.items()}
    pages = lesions_pdf(table, pictures, _TITLE)
    document = encapsulated_pdf(
        checked_slices(headers), pages, label("table"), _TITLE, burned_in=False
    )
    folder = make_folder(output / "dicom")
    made = {"segmentation": segmentation, "report": report, "document": document}
    names = {"segmentation": "segmentation.dcm", "report": "report.dcm", "document": "table.dcm"}
    for name, data in made.items():
        save(data, folder / names[name])
    return {name: f"dicom/{file}" for name, file in names.items()}


def _segments(
    found: FoundScan, whole: MeasuredScan, by: Algorithm, axes: str
) -> tuple[Marked, list[VolumeSegment]]:
    """The map of segments as the slices lie, kidney first where there is one; parts of a label
    that are no lesion are in none."""
    labels, instances = from_canonical(found.labels, axes), from_canonical(found.instances, axes)
    lesions = whole.measures.lesions
    kidney = labels == KIDNEY
    marked = kidney.astype(np.uint8 if len(lesions) < 255 else np.uint16, order="C")
    segments: list[VolumeSegment] = []
    if kidney.any():
        segments.append(VolumeSegment(_KIDNEY, codes.KIDNEY, RoiOrigin.PREDICTED, by))
    for lesion in lesions:
        kind = codes.NEOPLASM if lesion.value == TUMOUR else codes.CYST
        name = _name(lesion.number)
        segments.append(VolumeSegment(name, kind, RoiOrigin.PREDICTED, by, lesion.side))
        marked[instances == lesion.number] = len(segments)
    return marked, segments


def _name(number: int) -> str:
    return f"Lesion {number}"


def _findings(found: FoundScan, whole: MeasuredScan, by: Algorithm) -> list[Finding]:
    """A finding per segment."""
    findings: list[Finding] = []
    voxels = (found.labels == KIDNEY).sum(axis=(1, 2))
    volume = float(voxels @ slice_shares(found.grid)) * found.grid.voxel_mm3
    if volume:
        size = Quantity(codes.VOLUME, volume, codes.MM3)
        findings.append(Finding(_KIDNEY, codes.KIDNEY, [size], algorithm=by))
    said = {lesion.number: lesion for lesion in found.lesions}
    for lesion in whole.measures.lesions:
        name = whole.scan.classes.get(lesion.number)
        findings.append(
            Finding(
                _name(lesion.number),
                codes.NEOPLASM if lesion.value == TUMOUR else codes.CYST,
                _quantities(whole, lesion, said[lesion.number]),
                [] if name is None else [(codes.CLASS, of_class(name, codes.CLASS))],
                side=lesion.side,
                algorithm=by,
            )
        )
    return findings


def _quantities(whole: MeasuredScan, lesion: LesionMeasures, said: FoundLesion) -> list[Quantity]:
    phase = whole.scan.volumes[0].phase
    hu = whole.unknown_hu[lesion.number] if phase is None else lesion.mean_hu[phase]
    known: list[tuple[Code, float, Code]] = [
        (codes.VOLUME, lesion.volume_mm3, codes.MM3),
        (codes.LONG_AXIS, lesion.axial_mm, codes.MM),
        (codes.LARGEST_DIAMETER, lesion.feret_mm, codes.MM),
        (codes.BALL_DIAMETER, lesion.equivalent_mm, codes.MM),
        (codes.MEAN_ATTENUATION, hu, codes.HOUNSFIELD),
        (codes.CONFIDENCE, said.confidence, codes.ONE),
        (codes.AGREEMENT, said.agreement, codes.ONE),
    ]
    if lesion.anatomy is not None:
        known.append((codes.EXOPHYTIC, lesion.anatomy.exophytic_share, codes.ONE))
    known += [
        (of_class(name, codes.PROBABILITY), score, codes.ONE)
        for name, score in zip(whole.scan.class_names, said.scores or (), strict=False)
    ]
    return [Quantity(*one) for one in known]
