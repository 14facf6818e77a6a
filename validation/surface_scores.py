"""Distances between outlines against the package surface-distance of the definition's authors.

Pairs of irregular blobs in two and three dimensions, some cut by the edge of the image or in two
pieces, with spacings that differ by axis: HD95, HD, average distances both ways, surface Dice at
two tolerances, Dice. Needs a Python with surface-distance, apart from the project's own
environment.

    python validation/surface_scores.py --python REFERENCE/bin/python
"""

from __future__ import annotations

import numpy as np
from side_by_side import Table, run_python

from renalkit.metrics.segmentation import (
    directed_averages,
    percentile_distance,
    score_segmentation,
    surface_dice,
    surface_distances,
)

SPACINGS = ((1.0, 1.0), (0.3, 0.3), (0.2, 0.7), (1.0, 1.0, 1.0), (5.0, 0.8, 0.8), (2.5, 0.6, 1.1))
PAIRS, TOLERANCES = 10, (1.0, 2.0)
CODE = """
import numpy as np
import surface_distance as sd
names = ("HD95", "HD", "average there", "average back", "NSD 1", "NSD 2", "Dice")
found.update({name: [] for name in names})
for case in given["cases"]:
    a, b = (np.array(case[k], dtype=bool) for k in ("a", "b"))
    d = sd.compute_surface_distances(a, b, case["spacing"])
    values = (
        sd.compute_robust_hausdorff(d, 95), sd.compute_robust_hausdorff(d, 100),
        *sd.compute_average_surface_distance(d),
        *(sd.compute_surface_dice_at_tolerance(d, t) for t in given["tolerances"]),
        sd.compute_dice_coefficient(a, b),
    )
    for name, value in zip(names, values):
        found[name].append(float(value))
"""


def blob(rng: np.random.Generator, size: tuple[int, ...]) -> np.ndarray:
    """One or two ragged ellipsoids, which may reach over the edge."""
    mask = np.zeros(size, dtype=bool)
    places = np.indices(size)
    for _ in range(int(rng.integers(1, 3))):
        centre = np.array(size) * rng.uniform(0.1, 0.9, len(size))
        radii = np.array(size) * rng.uniform(0.15, 0.35, len(size))
        axes = zip(places, centre, radii, strict=True)
        inside = sum(((p - c) / r) ** 2 for p, c, r in axes)
        mask |= inside + rng.normal(0, 0.15, size) < 1
    return mask


def main() -> None:
    rng = np.random.default_rng(95)
    cases = []
    for spacing in SPACINGS:
        size = (48, 40) if len(spacing) == 2 else (12, 24, 20)
        cases += [
            {"a": blob(rng, size), "b": blob(rng, size), "spacing": spacing} for _ in range(PAIRS)
        ]
    given = {"cases": cases, "tolerances": TOLERANCES}
    theirs = run_python(CODE, given, "surface-distance")
    ours: dict[str, list[float]] = {name: [] for name in theirs}
    for case in cases:
        d = surface_distances(case["a"], case["b"], case["spacing"])
        values = (
            percentile_distance(d, 95),
            percentile_distance(d, 100),
            *directed_averages(d),
            *(surface_dice(d, t) for t in TOLERANCES),
            score_segmentation(case["a"], case["b"], case["spacing"]).dice,
        )
        for name, value in zip(ours, values, strict=True):
            ours[name].append(value)
    table = Table(f"surface-distance, {len(cases)} pairs of masks, {len(SPACINGS)} spacings")
    for name, expected in theirs.items():
        table.add(name, expected, ours[name])
    table.finish()


if __name__ == "__main__":
    main()
