"""How are a simulated CT scan, its masks and its truth written?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from renalkit.phantom.ct.anatomy import CtCase, Phase, draw_case
from renalkit.phantom.ct.geometry import ScannedSlice
from renalkit.phantom.ct.painted import paint_shapes
from renalkit.phantom.ct.volume import CtVolume, render_phases
from renalkit.phantom.faults import kept_frames, tilted
from renalkit.phantom.patients import Stream
from renalkit.store.files import replacing
from renalkit.usecases.phantom_case import Case
from renalkit.usecases.phantom_shapes import read_shapes
from renalkit.writers.dicom_phantom import CtScan, write_ct_series, write_ct_slices
from renalkit.writers.nifti import PLAIN_AXES, write_nifti


def write_scan(case: Case) -> dict[str, Any]:
    """A series of slices per phase, and the masks (Z,Y,X) as truth/P0001/masks.npz.

    Beside the series lie the labels and the numbers of lesions as a reader would have drawn them
    (NIfTI), unless the scan has a fault after which they would fit no series.

    Returns:
        The scan's truth.
    """
    patient = case.patient
    scan, volume, axes = _made(case)
    for name in case.names:
        for number, (phase, hu) in enumerate(volume.hu.items(), start=1):
            _write_phase(case, name, volume, (number, phase, hu))
        _write_drawn(case, name, volume, axes)
    with replacing(case.truth / "masks.npz") as temporary:
        np.savez_compressed(temporary, labels=volume.labels, instances=volume.instances)
    pair = ("normal", "tumour")
    mass = bool(scan.lesions)
    return {
        "label": pair[mass],
        "written_label": pair[mass is not patient.faults.label_flipped],
        "case": _plain(asdict(scan)),
        "lesions": [_plain(asdict(lesion)) for lesion in volume.lesions],
        "series": [_series(patient.name, phase) for phase in volume.hu],
        "slices": len(_kept(case, volume)) * len(volume.hu),
    }


def _made(case: Case) -> tuple[CtCase, CtVolume, str]:
    """The scan, and the axes of the file its masks came from."""
    plan, patient = case.plan, case.patient
    seed = int(patient.stream(Stream.CT).integers(0, 2**31))
    if plan.shapes is None:
        scan = draw_case(plan.ct, seed)
        return scan, render_phases(scan), PLAIN_AXES
    found = read_shapes(plan.shapes.files[patient.index], plan.shapes)
    scan, volume = paint_shapes(found.shapes, plan.ct, seed)
    return scan, volume, found.source_axes


def _write_drawn(case: Case, name: str, volume: CtVolume, axes: str) -> None:
    faults = case.patient.faults
    if faults.missing is not None or faults.tilt_deg or faults.wrong_units:
        return
    folder = case.folder / "dicom" / name
    write_nifti(folder / "segmentation.nii.gz", volume.labels, volume.grid, axes)
    write_nifti(folder / "instances.nii.gz", volume.instances, volume.grid, axes)


def _series(name: str, phase: Phase) -> str:
    return f"dicom/{name}/ct-{phase}"


def _kept(case: Case, volume: CtVolume) -> tuple[int, ...]:
    return kept_frames(volume.labels.shape[0], case.patient.faults)


def _write_phase(
    case: Case, name: str, volume: CtVolume, series: tuple[int, Phase, npt.NDArray[np.int16]]
) -> None:
    number, phase, hu = series
    faults = case.patient.faults
    if faults.tilt_deg:
        hu = tilted(hu, volume.spacing_mm, faults.tilt_deg)
    # In cm where mm are announced, if that is the fault.
    scale = 0.1 if faults.wrong_units else 1.0
    z, y, x = (scale * value for value in volume.spacing_mm)
    contrast = None if phase is Phase.NON_CONTRAST else "Iodine"
    if volume.given is not None:
        scan = CtScan((z, y, x), number, str(phase), contrast)
        slices = _lying(volume, hu, _kept(case, volume), (number, scale))
        write_ct_slices(
            case.folder / _series(name, phase), slices, case.identity(name, "Phantom CT"), scan
        )
        return
    left, back, up = (scale * value for value in volume.origin_lps_mm)
    write_ct_series(
        case.folder / _series(name, phase),
        hu,
        case.identity(name, "Phantom CT"),
        spacing_mm=(z, y, x),
        origin_mm=(left, back, up),
        series=number,
        description=str(phase),
        contrast=contrast,
        tilt_deg=faults.tilt_deg,
        kept=_kept(case, volume),
    )


def _lying(
    volume: CtVolume, hu: npt.NDArray[np.int16], kept: Sequence[int], told: tuple[int, float]
) -> Iterator[ScannedSlice]:
    """Slices that lie as the masks do. told: number of the series, and mm per mm announced."""
    series, scale = told
    row, column, _ = volume.direction
    for index in kept:
        x, y, z = (scale * volume.grid.to_lps([(index, 0, 0)])[0]).tolist()
        yield ScannedSlice(hu[index], (x, y, z), row, column, index + 1, series)


def _plain(value: Any) -> Any:
    """Only what JSON can hold; NaN becomes None."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
