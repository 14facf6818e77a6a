"""How is one simulated patient written to disk: pictures, ultrasound clips, CT series, truth?

    dicom/P0001/bmode-1.dcm           a B-mode still per view
    dicom/P0001/ceus.dcm              the dual-panel contrast clip
    dicom/P0001/ct-nephrographic/     one file per slice
    images/P0001_1.png, masks/        pictures instead of DICOM
    pairs/P0001/1-bmode.png, 1-ceus.png
    truth/P0001/                      what no reader of the files may see; patient.json comes last

A patient is whole when its patient.json is there.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from renalkit.domain.geometry import Box, MaskRLE, Region
from renalkit.phantom.bmode.picture import PhantomImage, render
from renalkit.phantom.ceus.console import Panel
from renalkit.phantom.ceus.study import (
    CeusOptions,
    CeusStudy,
    FrameTruth,
    crop_pairs,
    draw_ceus,
    pair_times,
)
from renalkit.phantom.ct.anatomy import CtPlan, Phase, draw_case
from renalkit.phantom.ct.volume import CtVolume, render_phases
from renalkit.phantom.faults import Faults, kept_frames, leave_calipers, tilted
from renalkit.phantom.patients import Patient, PatientPlan, Stream, draw_patient
from renalkit.phantom.readings import READERS, bounding_box, draw_outline
from renalkit.store.files import make_folder, write_bytes, write_json, write_text, write_with
from renalkit.writers.dicom_phantom import (
    FrameTimes,
    PhantomIdentity,
    write_ct_series,
    write_us_clip,
)

Kind = Literal["us", "ceus", "ct", "cohort"]
Picture = npt.NDArray[np.uint8]

_DATES = ("20230110", "20230424", "20230905", "20240219", "20240617", "20241021")
_STILL_MARGIN = (40, 30)  # columns left of and rows above the picture on a still's screen


@dataclass(frozen=True, slots=True)
class PhantomPlan:
    """What to write.

    kind: us (B-mode), ceus, ct, or cohort (B-mode and CEUS of the same patients).
    pictures: PNG with masks instead of DICOM, for kind us. size: side of a B-mode picture in px.
    ceus: of the clips. pairs: number of cropped frame pairs instead of a clip, or None.
    ct: of the scans. jpeg_quality: None for uncompressed ultrasound.
    """

    kind: Kind
    patients: PatientPlan
    pictures: bool = False
    size: int = 256
    ceus: CeusOptions = field(default_factory=CeusOptions)
    pairs: int | None = None
    ct: CtPlan = field(default_factory=CtPlan)
    jpeg_quality: int | None = 90


def write_patient(plan: PhantomPlan, index: int, folder: Path) -> None:
    """Write all files of patient number `index` (from 0) below the folder.

    Raises:
        StoreError: the disk refused.
    """
    patient = draw_patient(plan.patients, index)
    copies = [patient.name]
    if patient.faults.duplicated:
        copies.append(f"{patient.name}B")
    truth = folder / "truth" / patient.name
    record: dict[str, Any] = patient.truth() | {"copies": copies}
    tables: dict[str, list[dict[str, Any]]] = {"boxes": [], "outlines": []}
    if plan.kind in ("us", "cohort"):
        record["images"] = _write_bmode(plan, patient, folder, copies, tables)
    if plan.kind in ("ceus", "cohort"):
        record["ceus"] = _write_ceus(plan, patient, folder, copies, tables)
    if plan.kind == "ct":
        record |= _write_ct(plan, patient, folder, copies)
    for name, rows in tables.items():
        if rows:
            write_text(truth / f"{name}.csv", table_text(rows))
    write_json(truth / "patient.json", record)


def table_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of equal keys as CSV; None is an empty cell, numbers are written as they are."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: "" if v is None else v for k, v in row.items()} for row in rows)
    return text.getvalue()


def _identity(patient: Patient, name: str, description: str, model: str) -> PhantomIdentity:
    date = _DATES[patient.index % len(_DATES)]
    return PhantomIdentity(
        key=f"{patient.seed}/{name}/{description}",
        patient_id=name,
        patient_name=f"PHANTOM^{name}",
        sex=patient.covariates.sex,
        age_years=patient.covariates.age_years,
        date=date,
        time=f"{8 + patient.index % 10:02d}{(7 * patient.index) % 60:02d}00",
        institution=patient.site,
        manufacturer="Phantom",
        model=model,
        description=description,
    )


def _region(region: Region, faults: Faults) -> Region:
    """The region as written: in mm where cm are announced, if that is the fault."""
    if not faults.wrong_units or region.spacing_mm is None:
        return region
    row_mm, col_mm = region.spacing_mm
    return replace(region, spacing_mm=(10 * row_mm, 10 * col_mm))


def _write_bmode(
    plan: PhantomPlan,
    patient: Patient,
    folder: Path,
    copies: Sequence[str],
    tables: dict[str, list[dict[str, Any]]],
) -> list[dict[str, Any]]:
    """B-mode pictures or stills; returns one row per picture."""
    rows: list[dict[str, Any]] = []
    label = "normal" if patient.positive is None else "malignant" if patient.positive else "benign"
    for number, view in enumerate(patient.views, start=1):
        image = render((patient.anatomy, label), view, patient.scanner, plan.size)
        if plan.pictures:
            file = f"images/{patient.name}_{number}.png"
            mask = f"masks/{patient.name}_{number}.png"
            corner, pixels = (0, 0), image.pixels
            if patient.faults.calipers:
                coloured = np.stack([pixels] * 3, axis=-1)
                _measure(coloured, image, (0, 0))
                pixels = coloured
            write_bytes(folder / file, _png(pixels))
            if image.lesion_mask.any():
                write_bytes(folder / mask, _png(image.lesion_mask.astype(np.uint8) * 255))
        else:
            file, mask = f"dicom/{patient.name}/bmode-{number}.dcm", ""
            screen, corner = _still_screen(patient, image)
            region = Region(
                Box(*corner, plan.size, plan.size), (image.mm_per_px, image.mm_per_px), "tissue"
            )
            for name in copies:
                write_us_clip(
                    folder / "dicom" / name / f"bmode-{number}.dcm",
                    [screen],
                    1,
                    _identity(patient, name, "Renal B-mode", patient.scanner.name),
                    shape=(screen.shape[0], screen.shape[1]),
                    regions=[_region(region, patient.faults)],
                    times=None,
                    laterality=patient.side[0].upper(),
                    series=1,
                    instance=number,
                    jpeg_quality=plan.jpeg_quality,
                )
        rows.append(
            {
                "file": file,
                "mask": mask if plan.pictures and image.lesion_mask.any() else "",
                "mm_per_px": image.mm_per_px,
                "corner": list(corner),
                "lesion_mask": MaskRLE.encode(image.lesion_mask).text,
                "kidney_mask": MaskRLE.encode(image.kidney_mask).text,
            }
        )
        _note_regions(tables, file, 0, patient, image.lesion_mask, corner, number)
    return rows


def _note_regions(
    tables: dict[str, list[dict[str, Any]]],
    file: str,
    frame: int,
    patient: Patient,
    mask: npt.NDArray[np.bool_],
    corner: tuple[int, int],
    number: int,
) -> None:
    """The true box of the mass on a frame, and the readers' boxes and outlines."""
    box = bounding_box(mask)
    if box is None:
        return
    tables["boxes"].append(_box_row(file, frame, _moved(box, corner)))
    for place, reader in enumerate(READERS):
        rng = np.random.default_rng(
            [patient.seed, int(Stream.READERS), patient.index, number, place]
        )
        drawn = draw_outline(mask, reader, rng)
        theirs = bounding_box(drawn)
        if theirs is not None:
            row = {"reader": reader.name, "group": reader.group}
            row |= _box_row(file, frame, _moved(theirs, corner))
            tables["outlines"].append(row | {"mask": MaskRLE.encode(drawn).text})


def _moved(box: Box, corner: tuple[int, int]) -> Box:
    return Box(box.x + corner[0], box.y + corner[1], box.width, box.height)


def _box_row(file: str, frame: int, box: Box) -> dict[str, Any]:
    return {
        "file": file,
        "frame": frame,
        "x": box.x,
        "y": box.y,
        "width": box.width,
        "height": box.height,
        "lesion": "1",
    }


def _still_screen(patient: Patient, image: PhantomImage) -> tuple[Picture, tuple[int, int]]:
    """A console's screen with the picture on it, (H,W,3), and the picture's corner (x, y)."""
    size = image.pixels.shape[0]
    x, y = _STILL_MARGIN
    screen = np.zeros((size + y + 18, size + 2 * x, 3), np.uint8)
    screen[y : y + size, x : x + size] = image.pixels[..., None]
    for text, place in (
        (f"{patient.name} {patient.site}", (6, 12)),
        (patient.scanner.name, (6, 25)),
    ):
        cv2.putText(screen, text, place, cv2.FONT_HERSHEY_PLAIN, 0.8, (220, 220, 220), 1)
    if patient.faults.calipers:
        _measure(screen, image, (x, y))
    return screen, (x, y)


def _measure(screen: Picture, image: PhantomImage, corner: tuple[int, int]) -> None:
    """Leave the calipers of a measurement across the mass."""
    box = bounding_box(image.lesion_mask)
    if box is not None:
        middle = corner[1] + box.y + box.height // 2
        left = corner[0] + box.x
        leave_calipers(screen, ((left, middle), (left + box.width - 1, middle)))


def _write_ceus(
    plan: PhantomPlan,
    patient: Patient,
    folder: Path,
    copies: Sequence[str],
    tables: dict[str, list[dict[str, Any]]],
) -> dict[str, Any]:
    """The contrast clip, or cropped frame pairs; returns its truth."""
    texts = (f"PHANTOM^{patient.name}", patient.name, patient.site, "SIMULATED")
    options = replace(
        plan.ceus, texts=texts, calipers=plan.ceus.calipers or patient.faults.calipers
    )
    clip = draw_ceus(
        (patient.anatomy, patient.views[0]),
        patient.scanner,
        None if patient.latents is None else patient.latents.ceus,
        patient.stream(Stream.CEUS),
        options,
    )
    study = CeusStudy(clip)
    if plan.pairs is not None:
        pairs = list(_write_pairs(study, plan.pairs, patient, folder))
        return {"plan": clip.as_dict(), "rois": _rois(study), "pairs": pairs}
    kept = kept_frames(clip.n_frames, patient.faults)
    all_times = clip.frame_times_s()
    # Lost frames leave no trace in the header: the pauses are those of a whole clip.
    pauses = tuple(float(v) for v in np.round(1000 * np.diff(all_times, prepend=0.0), 3))
    even = clip.timing.jitter == 0
    times = FrameTimes(1000 / clip.timing.rate_hz, None if even else (0.0, *pauses[1 : len(kept)]))
    truths: list[FrameTruth] = []
    for place, name in enumerate(copies):
        taken: list[FrameTruth] = truths if place == 0 else []
        write_us_clip(
            folder / "dicom" / name / "ceus.dcm",
            _noted(study.frames([float(all_times[i]) for i in kept]), taken),
            len(kept),
            _identity(patient, name, "Renal CEUS", patient.scanner.name),
            shape=(clip.screen.rows, clip.screen.cols),
            regions=[_region(region, patient.faults) for region in study.regions],
            times=times,
            laterality=patient.side[0].upper(),
            series=2,
            jpeg_quality=plan.jpeg_quality,
        )
    file = f"dicom/{patient.name}/ceus.dcm"
    truth = folder / "truth" / patient.name
    shape = (clip.screen.rows, clip.screen.cols)
    rows: list[dict[str, Any]] = []
    for frame, one in enumerate(truths):
        mask = one.mask("lesion", Panel.BMODE, shape)
        rows.append({"frame": frame} | one.row() | {"lesion_mask": MaskRLE.encode(mask).text})
        box = one.box("lesion", Panel.BMODE)
        if box is not None:
            tables["boxes"].append(_box_row(file, frame, box))
    write_text(truth / "frames.csv", table_text(rows))
    return {"plan": clip.as_dict(), "rois": _rois(study), "frames": len(rows)}


def _noted(
    frames: Iterable[tuple[Picture, FrameTruth]], truths: list[FrameTruth]
) -> Iterator[Picture]:
    """The pictures; their truths are kept aside."""
    for pixels, truth in frames:
        truths.append(truth)
        yield pixels


def _rois(study: CeusStudy) -> dict[str, Any]:
    return {name: asdict(roi.values) for name, roi in study.rois.items()}


def _write_pairs(
    study: CeusStudy, count: int, patient: Patient, folder: Path
) -> Iterator[dict[str, Any]]:
    """Cropped pairs as PNG; one row each."""
    if patient.positive is None:
        return
    times = pair_times(study.plan, count)
    for number, (bmode, contrast, truth) in enumerate(crop_pairs(study, times), start=1):
        names = [f"pairs/{patient.name}/{number:02d}-{part}.png" for part in ("bmode", "ceus")]
        for name, pixels in zip(names, (bmode, contrast), strict=True):
            write_bytes(folder / name, _png(pixels))
        yield {
            "patient": patient.name,
            "pair": number,
            "bmode": names[0],
            "ceus": names[1],
            "time_s": truth.time_s,
            "clock_s": truth.clock_s,
        }


def _write_ct(
    plan: PhantomPlan, patient: Patient, folder: Path, copies: Sequence[str]
) -> dict[str, Any]:
    """CT series, their masks and their truth."""
    case = draw_case(plan.ct, int(patient.stream(Stream.CT).integers(0, 2**31)))
    volume = render_phases(case)
    truth = folder / "truth" / patient.name
    for name in copies:
        for number, (phase, hu) in enumerate(volume.hu.items(), start=1):
            _write_phase(patient, folder / "dicom" / name, name, volume, (number, phase, hu))

    def fill(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez_compressed(file, labels=volume.labels, instances=volume.instances)

    make_folder(truth)
    write_with(truth / "masks.npz", fill)
    return {
        "label": "tumour" if case.lesions else "normal",
        "written_label": "tumour" if case.lesions else "normal",
        "case": _plain(asdict(case)),
        "lesions": [_plain(asdict(lesion)) for lesion in volume.lesions],
        "series": [f"dicom/{patient.name}/ct-{phase}" for phase in volume.hu],
    }


def _write_phase(
    patient: Patient,
    folder: Path,
    name: str,
    volume: CtVolume,
    series: tuple[int, Phase, npt.NDArray[np.int16]],
) -> None:
    number, phase, hu = series
    spacing = volume.spacing_mm
    tilt = patient.faults.tilt_deg
    if tilt:
        hu = tilted(hu, spacing, tilt)
    write_ct_series(
        folder / f"ct-{phase}",
        hu,
        _identity(patient, name, "CT abdomen", "Phantom CT"),
        spacing_mm=spacing,
        origin_mm=volume.origin_lps_mm,
        series=number,
        description=str(phase),
        contrast=None if phase is Phase.NON_CONTRAST else "Iodine",
        tilt_deg=tilt,
        kept=kept_frames(hu.shape[0], patient.faults),
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


def _png(pixels: Picture) -> bytes:
    # Explicit settings: the bytes must not follow a library's changing defaults.
    ordered = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(
        ".png", ordered, [cv2.IMWRITE_PNG_COMPRESSION, 6, cv2.IMWRITE_PNG_STRATEGY, 0]
    )
    assert done, "PNG encoding of an 8-bit picture cannot fail"
    return data.tobytes()
