"""How far does a threshold get on the CT phantom?

The method: smooth, keep voxels between two HU inside a region of interest, open, take connected
components of at least 50 mm3 as masses. Its two thresholds are the best of a grid, chosen on the
very scans it is scored on, so the figures flatter it. Regions, from fair to generous:

    body      everywhere inside the patient
    box       the box around kidneys and masses, grown by 10 mm
    organ     the true kidneys and masses, filled and grown by 4 mm

Detection: a component and a reference mass belong together at IoU >= 0.1, one to one. Lesion Dice:
of a mass with its component, 0 when missed. Voxel Dice: of all mass voxels of a scan, mean over
scans with a mass. Masses that cover no voxel by half are left out. Sizes are diameters of the
sphere of equal volume. Intervals: 95 %, percentile bootstrap of scans, thresholds fixed.

    python benchmarks/trivial_ct.py [--scans N] [--matrix N] [--seed S] [--processes N]
                                    [--phases P ...] [--json FILE]
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from scipy import ndimage

from renalkit.phantom.ct.volume import CtPlan, Phase, draw_case, render

REGIONS = ("body", "box", "organ")
LOW_HU = (-150, -60, 0, 30, 60, 90)
HIGH_HU = (-10, 30, 60, 90, 120, 150)
BANDS = tuple((low, high) for low, high in itertools.product(LOW_HU, HIGH_HU) if low < high)
SIZES_MM = (5.0, 10.0, 20.0, 40.0)
SIZE_NAMES = ("< 5 mm", "5-10", "10-20", "20-40", "> 40 mm")
LEAST_MM3, IOU = 50.0, 0.1
CUBE = np.ones((3, 3, 3), bool)
RESAMPLES = 2000


def regions(hu: np.ndarray, labels: np.ndarray, spacing_mm: tuple[float, ...]) -> dict:
    """Where each variant looks (Z, Y, X)."""
    body = np.zeros(hu.shape, bool)
    for index, image in enumerate(hu):
        parts, count = ndimage.label(image > -300)
        if count:
            body[index] = ndimage.binary_fill_holes(
                parts == np.bincount(parts.ravel())[1:].argmax() + 1
            )
    box = np.zeros(hu.shape, bool)
    where = np.argwhere(labels > 0)
    margin = np.ceil(10.0 / np.asarray(spacing_mm)).astype(int)
    low, high = np.maximum(where.min(0) - margin, 0), where.max(0) + margin + 1
    box[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    outside = ndimage.distance_transform_edt(labels == 0, spacing_mm)
    organ = ndimage.binary_closing(outside <= 4.0, iterations=3) | (outside <= 4.0)
    return {"body": body, "box": box & body, "organ": organ}


def score(mask: np.ndarray, instances: np.ndarray, numbers: np.ndarray, voxel_mm3: float) -> dict:
    """Dice of each mass with its component (0 missed), number of components, Dice of voxels."""
    parts, count = ndimage.label(ndimage.binary_opening(mask, iterations=1), CUBE)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    keep = sizes * voxel_mm3 >= LEAST_MM3
    keep[0] = False
    found = keep[parts]
    total = found.sum() + (instances > 0).sum()
    voxel_dice = float(2.0 * (found & (instances > 0)).sum() / total) if total else math.nan
    n = int(instances.max())
    both = found & (instances > 0)
    joint = np.bincount(
        instances[both].astype(np.int64) * (count + 1) + parts[both],
        minlength=(n + 1) * (count + 1),
    ).reshape(n + 1, count + 1)
    reference = np.bincount(instances.ravel(), minlength=n + 1)
    iou = joint / np.maximum(reference[:, None] + sizes[None] - joint, 1)
    dice = np.zeros(n + 1)
    while iou.size and iou.max() >= IOU:
        row, column = np.unravel_index(iou.argmax(), iou.shape)
        dice[row] = 2 * iou[row, column] / (1 + iou[row, column])
        iou[row], iou[:, column] = 0.0, 0.0
    return {"dice": dice[numbers], "components": int(keep.sum()), "voxel_dice": voxel_dice}


def one_scan(matrix: int, phase: str, seed: int) -> dict:
    """Scores of every region and band on one scan, and the size bin of each of its masses."""
    plan = CtPlan(matrix=matrix, slice_spacing_mm=3.0, phases=(Phase(phase),))
    volume = render(draw_case(plan, seed), Phase(phase))
    smooth = ndimage.gaussian_filter(volume.hu[Phase(phase)].astype(np.float32), (0.5, 0.8, 0.8))
    seen = [one for one in volume.lesions if one.voxel_volume_mm3 > 0]
    numbers = np.array([one.number for one in seen], int)
    bins = np.searchsorted(SIZES_MM, [one.diameter_mm for one in seen])
    out = {}
    for name, where in regions(smooth, volume.labels, volume.spacing_mm).items():
        slices = ndimage.find_objects(where.astype(np.uint8))[0]
        hu, inside, instances = smooth[slices], where[slices], volume.instances[slices]
        out[name] = [
            score(
                (hu > low) & (hu < high) & inside, instances, numbers, math.prod(volume.spacing_mm)
            )
            for low, high in BANDS
        ]
    return {"scores": out, "bins": bins}


class Ratio:
    """Sum over sum, with an interval by resampling scans."""

    def __init__(self, above: list[float], below: list[float]) -> None:
        top, base = np.asarray(above, float), np.asarray(below, float)
        self.n = float(base.sum())
        self.value = float(top.sum() / self.n) if self.n else math.nan
        counts = np.random.default_rng(0).multinomial(
            len(top), np.full(len(top), 1 / len(top)), size=RESAMPLES
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            resampled = (counts @ top) / (counts @ base)
        usable = resampled[np.isfinite(resampled)]
        self.low, self.high = np.percentile(usable, (2.5, 97.5)) if usable.size else (math.nan,) * 2

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f}-{self.high:.2f})"

    def plain(self) -> dict[str, float]:
        """For JSON."""
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n}


def figures(results: list[dict], region: str, band: int) -> dict:
    """All figures of one band: overall and by size bin."""
    cells = [one["scores"][region][band] for one in results]
    hits = [int((cell["dice"] > 0).sum()) for cell in cells]
    masses = [len(one["bins"]) for one in results]
    found = [cell["components"] for cell in cells]
    sick = [k for k, count in enumerate(masses) if count]
    out: dict = {
        "band_hu": BANDS[band],
        "recall": Ratio(hits, masses),
        "precision": Ratio(hits, found),
        "false_positives_per_scan": Ratio(
            [f - h for f, h in zip(found, hits, strict=True)], [1] * len(results)
        ),
        "lesion_dice": Ratio([float(cell["dice"].sum()) for cell in cells], masses),
        "voxel_dice": Ratio([cells[k]["voxel_dice"] for k in sick], [1] * len(sick)),
        "sizes": {},
    }
    for index, name in enumerate(SIZE_NAMES):
        dice = [c["dice"][one["bins"] == index] for c, one in zip(cells, results, strict=True)]
        count = [len(values) for values in dice]
        out["sizes"][name] = {
            "recall": Ratio([int((values > 0).sum()) for values in dice], count),
            "lesion_dice": Ratio([float(values.sum()) for values in dice], count),
        }
    return out


def f1(row: dict) -> float:
    """Harmonic mean of recall and precision."""
    both = (row["recall"].value, row["precision"].value)
    return 0.0 if not all(both) or math.isnan(sum(both)) else 2 * both[0] * both[1] / sum(both)


def table(region: str, name: str, row: dict) -> None:
    """Print one band of one region."""
    low, high = row["band_hu"]
    print(
        f"  {region}, {name}: {low}..{high} HU\n"
        f"    recall {row['recall']}  precision {row['precision']}  "
        f"false positives/scan {row['false_positives_per_scan']}\n"
        f"    lesion Dice {row['lesion_dice']}  voxel Dice {row['voxel_dice']}"
    )
    for size, cell in row["sizes"].items():
        print(
            f"      {size:8} n {cell['recall'].n:4.0f}  recall {cell['recall']}  "
            f"lesion Dice {cell['lesion_dice']}"
        )


def plain(value: object) -> object:
    """Ratios as numbers, for JSON."""
    if isinstance(value, Ratio):
        return value.plain()
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    return value


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scans", type=int, default=60)
    parser.add_argument("--matrix", type=int, default=256)
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--phases", nargs="+", default=["nephrographic"])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    report: dict = {"scans": args.scans, "matrix": args.matrix, "phases": {}}
    with ProcessPoolExecutor(args.processes) as pool:
        for phase in args.phases:
            seeds = range(args.seed, args.seed + args.scans)
            results = list(pool.map(partial(one_scan, args.matrix, phase), seeds))
            masses = sum(len(one["bins"]) for one in results)
            print(f"{phase}: {args.scans} scans, {masses} masses", flush=True)
            report["phases"][phase] = {"masses": masses}
            for region in REGIONS:
                rows = [figures(results, region, band) for band in range(len(BANDS))]
                best = {
                    "best F1": max(rows, key=f1),
                    "best lesion Dice": max(rows, key=lambda row: row["lesion_dice"].value),
                }
                report["phases"][phase][region] = plain(best)
                for name, row in best.items():
                    table(region, name, row)
    if args.json:
        args.json.write_text(json.dumps(report, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
