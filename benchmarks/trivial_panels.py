"""How far does a simple rule get in finding the two panels of a phantom contrast clip?

The rule: average three frames, sum the grey of each column, cut where the profile is lowest between
a quarter and three quarters of the width, take the first half for B-mode. In each half the panel is
the rectangle of rows and columns whose mean grey exceeds a tenth of the half's highest. Patients are
those of a cohort; panels do not follow the level, which only changes the mass.

Run: python benchmarks/trivial_panels.py [--patients 100]
"""

from __future__ import annotations

import argparse
from collections import Counter

import numpy as np
import numpy.typing as npt

from renalkit.domain.geometry import Box
from renalkit.metrics.inference import Proportion
from renalkit.phantom.ceus.console import Layout, Panel
from renalkit.phantom.ceus.study import CeusStudy, draw_ceus
from renalkit.phantom.patients import PatientPlan, Stream, draw_patient

Grey = npt.NDArray[np.float64]
ALIKE = 0.8


def split(grey: Grey) -> dict[Panel, Box]:
    """The rule on a mean frame (H,W)."""
    profile = grey.mean(axis=0)
    width = len(profile)
    cut = width // 4 + int(np.argmin(profile[width // 4 : -width // 4]))
    return {Panel.BMODE: _extent(grey[:, :cut], 0), Panel.CONTRAST: _extent(grey[:, cut:], cut)}


def _extent(half: Grey, left: int) -> Box:
    rows, columns = half.mean(axis=1), half.mean(axis=0)
    y = np.flatnonzero(rows > 0.1 * rows.max())
    x = np.flatnonzero(columns > 0.1 * columns.max())
    return Box(left + int(x[0]), int(y[0]), int(np.ptp(x)) + 1, int(np.ptp(y)) + 1)


def overlap(first: Box, second: Box) -> float:
    """Intersection over union of two boxes."""
    wide = min(first.x + first.width, second.x + second.width) - max(first.x, second.x)
    high = min(first.y + first.height, second.y + second.height) - max(first.y, second.y)
    shared = max(wide, 0) * max(high, 0)
    return shared / (first.width * first.height + second.width * second.height - shared)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--patients", type=int, default=100)
    given = parser.parse_args()
    plan = PatientPlan(given.patients)
    cut, found, all_of = Counter[Layout](), Counter[Layout](), Counter[Layout]()
    for index in range(given.patients):
        patient = draw_patient(plan, index)
        clip = draw_ceus(
            (patient.anatomy, patient.views[0]),
            patient.scanner,
            None if patient.latents is None else patient.latents.ceus,
            patient.stream(Stream.CEUS),
        )
        study = CeusStudy(clip)
        frames = [pixels.mean(axis=2) for pixels, _ in study.frames([5.0, 25.0, 50.0])]
        boxes = split(np.mean(frames, axis=0))
        layout, places = clip.screen.layout, study.places
        all_of[layout] += 1
        apart = all(
            sum(overlap(box, place.view) > 0 for place in places.values()) == 1
            for box in boxes.values()
        )
        cut[layout] += apart
        found[layout] += all(overlap(boxes[p], places[p].view) >= ALIKE for p in Panel)
    print(f"panels apart, and both found in the right order (overlap >= {ALIKE})")
    for layout in [*Layout, None]:
        n = all_of.total() if layout is None else all_of[layout]
        row = [c.total() if layout is None else c[layout] for c in (cut, found)]
        if n:
            shares = [Proportion(k, n).estimate() for k in row]
            text = "   ".join(f"{e.value:.2f} ({e.low:.2f}-{e.high:.2f})" for e in shares)
            print(f"  {layout or 'all':<10} {text}   n = {n} clips")


if __name__ == "__main__":
    main()
