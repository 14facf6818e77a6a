"""How are a simulated CT scan, its masks and its truth written?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from renalkit.phantom.ct.anatomy import Phase, draw_case
from renalkit.phantom.ct.volume import CtVolume, render_phases
from renalkit.phantom.faults import kept_frames, tilted
from renalkit.phantom.patients import Stream
from renalkit.store.files import replacing
from renalkit.usecases.phantom_case import Case
from renalkit.writers.dicom_phantom import write_ct_series
from renalkit.writers.nifti import write_nifti


def write_scan(case: Case) -> dict[str, Any]:
    """A series of slices per phase, and the masks (Z,Y,X) as truth/P0001/masks.npz.

    Beside the series lie the labels and the numbers of lesions as a reader would have drawn them
    (NIfTI), unless the scan has a fault after which they would fit no series.

    Returns:
        The scan's truth.
    """
    patient = case.patient
    scan = draw_case(case.plan.ct, int(patient.stream(Stream.CT).integers(0, 2**31)))
    volume = render_phases(scan)
    for name in case.names:
        for number, (phase, hu) in enumerate(volume.hu.items(), start=1):
            _write_phase(case, name, volume, (number, phase, hu))
        _write_drawn(case, name, volume)
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


def _write_drawn(case: Case, name: str, volume: CtVolume) -> None:
    faults = case.patient.faults
    if faults.missing is not None or faults.tilt_deg or faults.wrong_units:
        return
    folder = case.folder / "dicom" / name
    write_nifti(folder / "segmentation.nii.gz", volume.labels, volume.grid)
    write_nifti(folder / "instances.nii.gz", volume.instances, volume.grid)


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
    left, back, up = (scale * value for value in volume.origin_lps_mm)
    write_ct_series(
        case.folder / _series(name, phase),
        hu,
        case.identity(name, "Phantom CT"),
        spacing_mm=(z, y, x),
        origin_mm=(left, back, up),
        series=number,
        description=str(phase),
        contrast=None if phase is Phase.NON_CONTRAST else "Iodine",
        tilt_deg=faults.tilt_deg,
        kept=_kept(case, volume),
    )


def _plain(value: Any) -> Any:
    """Only what JSON can hold; NaN becomes None."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
