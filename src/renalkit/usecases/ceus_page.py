"""What does the page of a contrast cine show?"""

from __future__ import annotations

import numpy as np

from renalkit import RESEARCH_ONLY
from renalkit.ceus.motion import moved_mask
from renalkit.domain.image import Clip, windows_of
from renalkit.usecases.ceus_clip import CORTEX, CeusClip
from renalkit.usecases.ceus_settings import CeusSettings
from renalkit.writers.ceus_figures import CeusPage, Picture


def ceus_page(clip: Clip, found: CeusClip, settings: CeusSettings, title: str) -> CeusPage:
    """The page of an analysed clip with curves: B-mode on the reference frame, contrast on the
    frame where the lesion is brightest, with the outlines where the tissue is then."""
    assert found.curves is not None
    assert found.perfusion is not None
    reference = found.track.reference
    lead = next((n for n in found.masks if n != CORTEX), CORTEX)
    curve = found.curves[lead]
    brightest = int(np.nanargmax(np.where(curve.kept, curve.power, -1)))
    (bmode,) = windows_of(clip.pixels, reference, [found.panels.bmode.box])
    (contrast,) = windows_of(clip.pixels, brightest, [found.panels.contrast.box])
    dx, dy = found.track.shift_px[brightest].tolist()
    return CeusPage(
        title=title,
        bmode=Picture(
            f"B-mode, {curve.times_s[reference]:.1f} s", np.asarray(bmode, np.uint8), found.masks
        ),
        contrast=Picture(
            f"Contrast, {curve.times_s[brightest]:.1f} s",
            np.asarray(contrast, np.uint8),
            {name: moved_mask(mask, dx, dy) for name, mask in found.masks.items()},
        ),
        curves=found.curves,
        perfusion=found.perfusion,
        phases=_phase_spans(found),
        maps=found.maps,
        spacing_mm=found.panels.contrast.spacing_mm,
        warnings=found.warnings,
        notes=_notes(clip, found, settings),
    )


def _phase_spans(found: CeusClip) -> list[tuple[str, float, float]]:
    """Name, start and end of each phase on the time axis of the figures."""
    times, phases = found.quality.times_s, found.phases
    if times is None or phases is None:
        return []
    times = times - (found.injection_s or 0.0)
    first = [i for i, label in enumerate(phases.labels) if i == 0 or label != phases.labels[i - 1]]
    ends = [*first[1:], len(times) - 1]
    return [
        (str(phases.labels[i]), float(times[i]), float(times[j]))
        for i, j in zip(first, ends, strict=True)
    ]


def _notes(clip: Clip, found: CeusClip, settings: CeusSettings) -> tuple[str, ...]:
    """What must be known to read the figures."""
    assert found.perfusion is not None
    options = found.perfusion.options
    db = settings.dynamic_range_db
    how = [
        f"{found.track.kept_share:.0%} of {clip.n_frames} frames in plane",
        "figures of grey levels" if db is None else f"echo power by a dynamic range of {db:g} dB",
    ]
    if options.resamples:
        how.append(f"{options.level:.0%} intervals")
    if found.phases is not None:
        how.append(found.phases.reason)
    return "; ".join(how), RESEARCH_ONLY
