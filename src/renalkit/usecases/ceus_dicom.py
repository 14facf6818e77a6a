"""How do outlines, curves and figures of a contrast cine go back into the reading room?

Three objects beside the source: a Segmentation of the regions on the chosen frames, a structured
report with figures and curves, and the page as a picture that every viewer shows. Made from the
same file and the same analysis, they are the same bytes but for the time of writing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from renalkit import __version__
from renalkit.ceus.panels import Pane
from renalkit.ceus.perfusion import CurveFit, Perfusion
from renalkit.ceus.propagation import How
from renalkit.domain.image import Clip
from renalkit.domain.study import RoiOrigin
from renalkit.readers.dicom_source import read_us_header
from renalkit.store.files import make_folder
from renalkit.usecases.ceus_clip import CORTEX, CeusClip, carried_region, region_mask
from renalkit.writers.dicom_out.capture import secondary_capture
from renalkit.writers.dicom_out.codes import (
    CORTEX as CORTEX_STRUCTURE,
)
from renalkit.writers.dicom_out.codes import (
    FIRST_FRAME,
    INJECTION,
    LESION,
    TRACKING,
    Algorithm,
    Structure,
)
from renalkit.writers.dicom_out.general import ResultLabel, save
from renalkit.writers.dicom_out.perfusion import echo_curve, fit_algorithm, quantities
from renalkit.writers.dicom_out.report import Finding, measurement_report
from renalkit.writers.dicom_out.segmentation import Segment, us_segmentation

Mask = npt.NDArray[np.bool_]

SERIES = {"outlines": 9101, "report": 9102, "page": 9103}
"""Series numbers of the results; high, so that no series of the console has them."""


def dicom_results(
    path: Path,
    clip: Clip,
    found: CeusClip,
    page: npt.NDArray[np.uint8] | None,
    folder: Path,
    how: How = "nearest",
) -> list[Path]:
    """Write what there is: outlines.dcm, report.dcm, page.dcm.

    Args:
        path: the source file. page: (H,W,3) RGB, None without figures.

    Raises:
        InputRefused: the source cannot be referred to.
    """
    header = read_us_header(path)
    now = datetime.now(UTC)
    make_folder(folder)
    written: list[Path] = []
    segments = _segments(clip, found, how)
    outlines = None
    if segments:
        label = ResultLabel("Contrast regions", SERIES["outlines"], now, repeatable=True)
        outlines = us_segmentation(header, segments, label)
        save(outlines, folder / "outlines.dcm")
        written.append(folder / "outlines.dcm")
    if found.perfusion is not None and found.curves is not None:
        findings = _findings(found, found.perfusion, {s.label: s for s in segments})
        if findings:
            label = ResultLabel("Contrast perfusion", SERIES["report"], now, repeatable=True)
            report = measurement_report(header, findings, label, segmentation=outlines)
            save(report, folder / "report.dcm")
            written.append(folder / "report.dcm")
    if page is not None:
        label = ResultLabel("Contrast figures", SERIES["page"], now, repeatable=True)
        picture = secondary_capture(header, page, label, burned_in=False)
        save(picture, folder / "page.dcm")
        written.append(folder / "page.dcm")
    return written


def _structure(name: str) -> Structure:
    return CORTEX_STRUCTURE if name == CORTEX else LESION


def _on_screen(mask: Mask, pane: Pane, clip: Clip) -> Mask:
    whole = np.zeros((clip.rows, clip.cols), np.bool_)
    whole[pane.box.slices] = mask
    return whole


def _segments(clip: Clip, found: CeusClip, how: How) -> list[Segment]:
    """Every region in both panes, on the chosen frames and where it was outlined."""
    shape = (found.panels.bmode.box.height, found.panels.bmode.box.width)
    made: list[Segment] = []
    for name, rois in found.regions.items():
        few = rois if len(rois) <= len(found.chosen) else ()
        frames = sorted({*found.chosen, *(r.frame for r in few), found.track.reference})
        carried = carried_region(found, name, frames, how)
        masks = {c.frame: region_mask(c.roi, shape) for c in carried if c.roi is not None}
        masks = {frame: mask for frame, mask in masks.items() if mask.any()}
        origins = [c.roi.origin for c in carried if c.roi is not None]
        if not masks:
            continue
        origin = max(origins, key=list(RoiOrigin).index)
        by = _tracker(found) if origin is not RoiOrigin.REFERENCE else None
        for label, pane in (
            (name, found.panels.bmode),
            (f"{name} in contrast", found.panels.contrast),
        ):
            shown = {frame: _on_screen(mask, pane, clip) for frame, mask in masks.items()}
            made.append(Segment(label, _structure(name), shown, origin, by))
    return made


def _tracker(found: CeusClip) -> Algorithm:
    settings = {
        "method": found.track.method,
        "reference frame": str(found.track.reference + 1),
        "kept": f"{found.track.kept_share:.3f}",
    }
    return Algorithm("motion tracking", __version__, TRACKING, settings)


def _findings(
    found: CeusClip, perfusion: Perfusion, segments: Mapping[str, Segment]
) -> list[Finding]:
    assert found.curves is not None
    made: list[Finding] = []
    since = FIRST_FRAME if found.injection_s is None else INJECTION
    compared = {c.of: c for c in perfusion.comparisons}
    for name, fit in perfusion.curves.items():
        if not isinstance(fit, CurveFit):
            continue
        segment = segments.get(name)
        frame = found.track.reference
        outlined = segment is not None and frame in segment.masks
        made.append(
            Finding(
                name,
                _structure(name),
                quantities(fit, compared.get(name)),
                frame=frame if outlined else None,
                mask=segment.masks[frame] if segment is not None and outlined else None,
                curve=echo_curve(found.curves[name], since),
                algorithm=fit_algorithm(fit, perfusion.options),
            )
        )
    return made
