"""How is the analysis of a contrast cine written down, so that every figure can be traced?

analysis.json holds settings and findings, frames.csv a line per frame with its reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from renalkit import __version__
from renalkit.ceus.panels import Pane, TwoPanels
from renalkit.ceus.perfusion import CurveFit, Figure, Perfusion
from renalkit.domain.geometry import Box
from renalkit.domain.image import Clip
from renalkit.store.cohorts import table_text
from renalkit.usecases.ceus_clip import CeusClip
from renalkit.usecases.ceus_settings import CeusSettings
from renalkit.writers.ceus_tables import map_rows, plain

SCHEMA = 1

_FRAME_COLUMNS = (
    *("frame", "time_s", "phase", "chosen", "reason", "dx_px", "dy_px", "correlation"),
    *("in_plane", "sharpness", "saturated", "flash"),
)


def analysis_json(clip: Clip, found: CeusClip, settings: CeusSettings) -> dict[str, Any]:
    """Everything but the columns of the tables, as plain values."""
    times = clip.times_s
    choices = Counter(str(c.phase) for c in found.choices if c.chosen and c.phase)
    return {
        "schema": SCHEMA,
        "renalkit": __version__,
        "settings": settings.model_dump(mode="json"),
        "clip": {
            "frames": clip.n_frames,
            "rows": clip.rows,
            "cols": clip.cols,
            "seconds": None if times is None else times[-1] - times[0],
            "scanner_regions": len(clip.regions),
        },
        "panels": panels_json(found.panels),
        "palette": found.palette.kind,
        "regions": {
            name: {
                "frames": len(rois),
                "origins": sorted({r.origin.value for r in rois}),
                "pixels": int(np.count_nonzero(found.masks[name])),
            }
            for name, rois in found.regions.items()
        },
        "motion": {
            "method": found.track.method,
            "reference_frame": found.track.reference,
            "reference_reason": found.reference_reason,
            "box": _box(found.track.box),
            "kept_share": found.track.kept_share,
            "residual_correlation": found.track.residual_correlation,
            "travel_px": list(found.track.travel_px),
            "lost_below": found.track.lost_below,
            "frames": found.track.n_frames,
        },
        "arrival": {
            "time_s": found.arrival.time_s,
            "doubt_s": found.arrival.doubt_s,
            "reason": found.arrival.reason,
        },
        "clock": {
            "box": None if found.clock.box is None else _box(found.clock.box),
            "read_share": found.clock.read_share,
            "agrees": found.clock.agrees,
            "rate": found.clock.rate,
            "words": found.clock.words,
        },
        "injection_s": found.injection_s,
        "phases": None
        if found.phases is None
        else {
            "by": found.phases.by,
            "injection_s": found.phases.injection_s,
            "reason": found.phases.reason,
            "frames": dict(sorted(Counter(map(str, found.phases.labels)).items())),
        },
        "chosen": {
            "frames": list(found.chosen),
            "of_phase": dict(sorted(choices.items())),
            "missing": {str(p): n for p, n in found.missing.items()},
        },
        "perfusion": None if found.perfusion is None else plain(found.perfusion),
        "maps": map_rows(found.map_summaries),
        "warnings": list(found.warnings),
    }


def panels_json(panels: TwoPanels) -> dict[str, Any]:
    """Where the panes are, by what, how sure."""
    return {
        "by": panels.by,
        "confidence": panels.confidence,
        "evidence": list(panels.evidence),
        "bmode": _pane(panels.bmode),
        "contrast": _pane(panels.contrast),
    }


def _pane(pane: Pane) -> dict[str, Any]:
    spacing = pane.spacing_mm
    return {"box": _box(pane.box), "spacing_mm": None if spacing is None else list(spacing)}


def _box(box: Box) -> list[int]:
    return [box.x, box.y, box.width, box.height]


def frames_csv(clip: Clip, found: CeusClip) -> str:
    """One line per frame: time, phase, whether chosen and why, motion, quality."""
    quality = found.quality
    rows = [
        (
            str(c.index),
            "" if clip.times_s is None else _text(clip.times_s[c.index]),
            "" if c.phase is None else str(c.phase),
            "yes" if c.chosen else "no",
            c.reason,
            *(_text(v) for v in quality.shift_px[c.index]),
            _text(quality.correlation[c.index]),
            "yes" if quality.kept[c.index] else "no",
            _text(quality.sharpness[c.index]),
            _text(quality.saturated[c.index]),
            "yes" if quality.flash[c.index] else "no",
        )
        for c in found.choices
    ]
    return table_text(_FRAME_COLUMNS, rows)


def _text(value: float) -> str:
    return "" if not np.isfinite(value) else f"{float(value):.6g}"


def features(perfusion: Perfusion) -> dict[str, float]:
    """The named vector of perfusion figures: every known figure of every region, ratio and
    difference."""
    found: dict[str, float] = {}
    for name, fit in perfusion.curves.items():
        if isinstance(fit, CurveFit):
            found |= _named(name, fit.figures)
    for c in perfusion.comparisons:
        found |= _named(f"{c.of}_over_{c.reference}", c.ratios)
        found |= _named(f"{c.of}_minus_{c.reference}", c.differences)
    return found


def _named(prefix: str, figures: Mapping[str, Figure]) -> dict[str, float]:
    place = prefix.replace("-", "_").lower()
    return {
        f"perfusion_{place}_{name.lower()}": f.value
        for name, f in figures.items()
        if f.value is not None
    }
