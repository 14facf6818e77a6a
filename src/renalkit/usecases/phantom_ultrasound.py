"""How are the B-mode stills, contrast clips and frame pairs of a simulated patient written?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from renalkit.domain.geometry import Box, MaskRLE, Region, bounding_box
from renalkit.phantom.bmode.picture import PhantomImage, render
from renalkit.phantom.ceus.console import Panel
from renalkit.phantom.ceus.study import CeusStudy, FrameTruth, crop_pairs, draw_ceus, pair_times
from renalkit.phantom.faults import Faults, kept_frames, leave_calipers
from renalkit.phantom.patients import Patient, Stream
from renalkit.phantom.readings import READERS, draw_outline
from renalkit.store.files import write_bytes
from renalkit.usecases.phantom_case import Case
from renalkit.usecases.phantom_tables import Add, box_row, renamed, table_file
from renalkit.writers.dicom_phantom import FrameTimes, write_us_clip

Picture = npt.NDArray[np.uint8]

_STILL_MARGIN = (40, 30)  # columns left of and rows above the picture on a still's screen
_OUTLINED = ("lesion", "kidney", "cortex")
_IN_PLANE = 0.1  # largest share of another section on a frame where a region is outlined
_LEAST_HALF_PX = 3


def write_ultrasound(case: Case) -> dict[str, Any]:
    """All that the plan asks for; boxes and outlines beside the truth.

    Returns:
        The truth of stills ("images") and clip or pairs ("ceus").
    """
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        boxes, regions = (
            stack.enter_context(table_file(case.truth / f"{name}.csv"))
            for name in ("boxes", "regions")
        )
        if case.plan.kind != "ceus":
            outlines = stack.enter_context(table_file(case.truth / "outlines.csv"))
            found["images"] = list(_stills(case, boxes, outlines))
        if case.plan.kind != "us":
            found["ceus"] = _contrast(case, boxes, regions)
    return found


def _stills(case: Case, boxes: Add, outlines: Add) -> Iterator[dict[str, Any]]:
    """Write stills, or pictures with masks; gives the truth of each."""
    patient = case.patient
    label = "normal" if patient.positive is None else "malignant" if patient.positive else "benign"
    for number, view in enumerate(patient.views, start=1):
        image = render((patient.anatomy, label), view, patient.scanner, case.plan.size)
        write = _write_picture if case.plan.pictures else _write_still
        file, corner = write(case, image, number)
        mask = ""
        if case.plan.pictures and image.lesion_mask.any():
            mask = f"masks/{patient.name}_{number}.png"
            outline = _png(image.lesion_mask.astype(np.uint8) * 255)
            for name in case.names:
                write_bytes(case.folder / renamed(mask, patient.name, name), outline)
        _note_mass(case, (file, number), image.lesion_mask, corner, (boxes, outlines))
        yield {
            "file": file,
            "mask": mask,
            "mm_per_px": image.mm_per_px,
            "corner": list(corner),
            "lesion_mask": MaskRLE.encode(image.lesion_mask).text,
            "kidney_mask": MaskRLE.encode(image.kidney_mask).text,
        }


def _write_picture(case: Case, image: PhantomImage, number: int) -> tuple[str, tuple[int, int]]:
    """One PNG; its path, and the corner (x, y) of the picture in it."""
    file = f"images/{case.patient.name}_{number}.png"
    pixels = image.pixels
    if case.patient.faults.calipers:
        pixels = np.stack([pixels] * 3, axis=-1)
        _measure(pixels, image, (0, 0))
    for name in case.names:
        write_bytes(case.folder / renamed(file, case.patient.name, name), _png(pixels))
    return file, (0, 0)


def _write_still(case: Case, image: PhantomImage, number: int) -> tuple[str, tuple[int, int]]:
    """One DICOM still; its path, and the corner (x, y) of the picture on its screen."""
    patient, size = case.patient, case.plan.size
    file = f"dicom/{patient.name}/bmode-{number}.dcm"
    screen, corner = _still_screen(patient, image)
    region = Region(Box(*corner, size, size), (image.mm_per_px, image.mm_per_px), "tissue")
    for name in case.names:
        write_us_clip(
            case.folder / renamed(file, patient.name, name),
            [screen],
            1,
            case.identity(name, patient.scanner.name),
            shape=(screen.shape[0], screen.shape[1]),
            regions=[_written(region, patient.faults)],
            times=None,
            laterality=patient.side[0].upper(),
            series=1,
            instance=number,
            jpeg_quality=case.plan.jpeg_quality,
        )
    return file, corner


def _written(region: Region, faults: Faults) -> Region:
    """The region as written: in mm where cm are announced, if that is the fault."""
    if not faults.wrong_units or region.spacing_mm is None:
        return region
    row_mm, col_mm = region.spacing_mm
    return replace(region, spacing_mm=(10 * row_mm, 10 * col_mm))


def _note_mass(
    case: Case,
    still: tuple[str, int],
    mask: npt.NDArray[np.bool_],
    corner: tuple[int, int],
    tables: tuple[Add, Add],
) -> None:
    """The true box of the mass, and the readers' boxes and outlines. still: file and number."""
    patient, (file, number), (boxes, outlines) = case.patient, still, tables
    box = bounding_box(mask)
    if box is None:
        return
    for name in case.names:
        boxes(box_row(renamed(file, patient.name, name), 0, _moved(box, corner)))
    for place, reader in enumerate(READERS):
        rng = np.random.default_rng(
            [patient.seed, int(Stream.READERS), patient.index, number, place]
        )
        drawn = draw_outline(mask, reader, rng)
        theirs = bounding_box(drawn)
        if theirs is not None:
            row = {"reader": reader.name, "group": reader.group}
            row |= box_row(file, 0, _moved(theirs, corner))
            outlines(row | {"mask": MaskRLE.encode(drawn).text})


def _moved(box: Box, corner: tuple[int, int]) -> Box:
    return Box(box.x + corner[0], box.y + corner[1], box.width, box.height)


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


def _contrast(case: Case, boxes: Add, regions: Add) -> dict[str, Any]:
    """Write the clip, or cropped frame pairs; gives the truth."""
    patient = case.patient
    study = CeusStudy(
        draw_ceus(
            (patient.anatomy, patient.views[0]),
            patient.scanner,
            None if patient.latents is None else patient.latents.ceus,
            patient.stream(Stream.CEUS),
            replace(
                case.plan.ceus,
                texts=(f"PHANTOM^{patient.name}", patient.name, patient.site, "SIMULATED"),
                calipers=case.plan.ceus.calipers or patient.faults.calipers,
            ),
        )
    )
    found = {
        "plan": study.plan.as_dict(),
        "rois": {name: asdict(roi.values) for name, roi in study.rois.items()},
    }
    if case.plan.pairs is None:
        return found | {"frames": _write_clip(case, study, (boxes, regions))}
    return found | {"pairs": list(_write_pairs(case, study, case.plan.pairs))}


def _write_clip(case: Case, study: CeusStudy, tables: tuple[Add, Add]) -> int:
    """The clip and, frame by frame, its truth; how many frames it has.

    tables: of boxes, and of regions for the analysis of contrast: the same boxes and, on one frame,
    a square of cortex that curves of the mass are compared with.
    """
    patient, plan = case.patient, study.plan
    kept = kept_frames(plan.n_frames, patient.faults)
    times = plan.frame_times_s()
    shown = [float(times[i]) for i in kept]
    # Lost frames leave no trace in the header: the pauses are those of a whole clip.
    pauses = np.round(1000 * np.diff(times, prepend=0.0), 3).tolist()[: len(kept)]
    even = plan.timing.jitter == 0
    file = f"dicom/{patient.name}/ceus.dcm"
    for name in case.names:
        path = renamed(file, patient.name, name)
        with ExitStack() as stack:
            rows = None
            if name == patient.name:
                rows = stack.enter_context(table_file(case.truth / "frames.csv"))
            write_us_clip(
                case.folder / path,
                _noted(study.frames(shown), path, tables, rows),
                len(kept),
                case.identity(name, patient.scanner.name),
                shape=(plan.screen.rows, plan.screen.cols),
                regions=[_written(region, patient.faults) for region in study.regions],
                times=FrameTimes(1000 / plan.timing.rate_hz, None if even else tuple(pauses)),
                laterality=patient.side[0].upper(),
                series=2,
                contrast="Microbubbles",
                jpeg_quality=case.plan.jpeg_quality,
            )
    return len(kept)


def _noted(
    frames: Iterable[tuple[Picture, FrameTruth]],
    file: str,
    tables: tuple[Add, Add],
    rows: Add | None,
) -> Iterator[Picture]:
    """The pictures; what is true of each goes to the tables."""
    boxes, regions = tables
    compared = False
    for number, (pixels, truth) in enumerate(frames):
        box = truth.box("lesion", Panel.BMODE)
        if box is not None:
            boxes(box_row(file, number, box))
            regions(box_row(file, number, box))
            if not compared and truth.out_of_plane < _IN_PLANE:
                square = cortex_square(truth)
                compared = square is not None
                if square is not None:
                    regions(box_row(file, number, square, "cortex"))
        if rows is not None:
            shape = (pixels.shape[0], pixels.shape[1])
            row = {"frame": number} | truth.row()
            del row["index"]
            for name in _OUTLINED:
                mask = truth.mask(name, Panel.BMODE, shape)
                row[f"{name}_mask"] = MaskRLE.encode(mask).text
            rows(row)
        yield pixels


def cortex_square(truth: FrameTruth) -> Box | None:
    """A square in the cortex of the B-mode panel, as a reader would put it: large, and as deep as
    the mass as far as that goes. None where the cortex has no room for one."""
    cortex, mass = truth.sections.get("cortex"), truth.sections.get("lesion")
    if cortex is None or mass is None:
        return None
    held = np.pad(cortex.mask.astype(np.uint8), 1)
    room = np.asarray(cv2.distanceTransform(held, cv2.DIST_C, 3))[1:-1, 1:-1]
    if float(room.max()) < _LEAST_HALF_PX:
        return None
    rows, cols = np.nonzero(room >= 0.75 * room.max())
    depth = mass.y + mass.mask.shape[0] / 2 - cortex.y
    row, col = min(
        zip(rows.tolist(), cols.tolist(), strict=True), key=lambda at: abs(at[0] - depth)
    )
    half = int(room[row, col]) - 1
    view = truth.places[Panel.BMODE].view
    x, y = view.x + cortex.x + col - half, view.y + cortex.y + row - half
    return Box(x, y, 2 * half + 1, 2 * half + 1)


def _write_pairs(case: Case, study: CeusStudy, count: int) -> Iterator[dict[str, Any]]:
    """Cropped pairs as PNG; gives a row each. A patient without a mass has none."""
    if case.patient.positive is None:
        return
    pairs = crop_pairs(study, pair_times(study.plan, count), case.plan.margin)
    for number, (bmode, contrast, truth) in enumerate(pairs, start=1):
        for name in case.names:
            files = [f"pairs/{name}/{number:02d}-{part}.png" for part in ("bmode", "ceus")]
            for file, pixels in zip(files, (bmode, contrast), strict=True):
                write_bytes(case.folder / file, _png(pixels))
            yield {
                "patient": name,
                "pair": number,
                "bmode": files[0],
                "ceus": files[1],
                "time_s": round(truth.time_s, 6),
                "clock_s": round(truth.clock_s, 6),
            }


def _png(pixels: Picture) -> bytes:
    # Explicit settings: the bytes must not follow a library's changing defaults.
    ordered = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(
        ".png", ordered, [cv2.IMWRITE_PNG_COMPRESSION, 6, cv2.IMWRITE_PNG_STRATEGY, 0]
    )
    assert done, "PNG encoding of an 8-bit picture cannot fail"
    return data.tobytes()
