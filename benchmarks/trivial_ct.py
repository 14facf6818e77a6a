"""How far does a threshold get on the CT phantom?

The method: smooth, keep voxels between two HU inside a region of interest, open, take connected
components of at least 50 mm3 as masses. Its two thresholds are the best of a grid, chosen on the
very scans it is scored on, so the figures flatter it. Regions, from fair to generous:

    body      everywhere inside the patient
    box       the box around kidneys and masses, grown by 10 mm
    organ     the true kidneys and masses, filled and grown by 4 mm

Detection: a component and a reference mass belong together at IoU >= 0.1, one to one. Dice: of all
mass voxels of a scan, mean over scans with a mass; recall and precision pooled over masses.

    python benchmarks/trivial_ct.py [--scans N] [--matrix N] [--seed S] [--processes N] [--json FILE]
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from scipy import ndimage

from renalkit.phantom.ct.volume import CtPlan, Phase, draw_case, render

REGIONS = ("body", "box", "organ")
LOW_HU = (-150, -60, 0, 30, 60, 90)
HIGH_HU = (-10, 30, 60, 90, 120, 150)
BANDS = tuple((low, high) for low, high in itertools.product(LOW_HU, HIGH_HU) if low < high)
LEAST_MM3, IOU = 50.0, 0.1
CUBE = np.ones((3, 3, 3), bool)


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


def score(mask: np.ndarray, instances: np.ndarray, voxel_mm3: float) -> tuple[int, int, float]:
    """Hits, components and Dice of one scan."""
    parts, count = ndimage.label(ndimage.binary_opening(mask, iterations=1), CUBE)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    keep = sizes * voxel_mm3 >= LEAST_MM3
    keep[0] = False
    found = keep[parts]
    overlap = 2.0 * (found & (instances > 0)).sum()
    total = found.sum() + (instances > 0).sum()
    dice = float(overlap / total) if total else math.nan
    n = int(instances.max())
    joint = np.bincount(
        (instances.astype(np.int64) * (count + 1) + parts)[found & (instances > 0)].ravel(),
        minlength=(n + 1) * (count + 1),
    ).reshape(n + 1, count + 1)
    reference = np.bincount(instances.ravel(), minlength=n + 1)
    iou = joint / np.maximum(reference[:, None] + sizes[None] - joint, 1)
    hits = 0
    while iou.size and iou.max() >= IOU:
        row, column = np.unravel_index(iou.argmax(), iou.shape)
        iou[row], iou[:, column] = 0.0, 0.0
        hits += 1
    return hits, int(keep.sum()), dice


def one_scan(task: tuple[int, int, str]) -> dict:
    """Scores of every region and band on one scan, and its number of masses."""
    seed, matrix, phase = task
    plan = CtPlan(matrix=matrix, slice_spacing_mm=3.0, phases=(Phase(phase),))
    volume = render(draw_case(plan, seed), Phase(phase))
    smooth = ndimage.gaussian_filter(volume.hu[Phase(phase)].astype(np.float32), (0.5, 0.8, 0.8))
    voxel = math.prod(volume.spacing_mm)
    out = {}
    for name, where in regions(smooth, volume.labels, volume.spacing_mm).items():
        slices = ndimage.find_objects(where.astype(np.uint8))[0]
        hu, inside = smooth[slices], where[slices]
        instances = volume.instances[slices]
        out[name] = [
            score((hu > low) & (hu < high) & inside, instances, voxel) for low, high in BANDS
        ]
    visible = len(np.unique(volume.instances)) - 1
    return {"scores": out, "masses": visible}


def summary(results: list[dict], region: str) -> dict[str, dict]:
    """Best band by F1 of detection and by Dice."""
    masses = sum(one["masses"] for one in results)
    sick = [one for one in results if one["masses"]]
    rows = []
    for index, (low, high) in enumerate(BANDS):
        cells = [one["scores"][region][index] for one in results]
        hits, found = sum(c[0] for c in cells), sum(c[1] for c in cells)
        recall, precision = hits / max(masses, 1), hits / max(found, 1)
        dice = float(np.mean([one["scores"][region][index][2] for one in sick]))
        f1 = 2 * recall * precision / max(recall + precision, 1e-9)
        rows.append(
            {
                "low_hu": low,
                "high_hu": high,
                "recall": recall,
                "precision": precision,
                "f1": f1,
                "dice": dice,
                "false_positives_per_scan": (found - hits) / len(results),
            }
        )
    return {
        "best_f1": max(rows, key=lambda row: row["f1"]),
        "best_dice": max(rows, key=lambda row: row["dice"]),
    }


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scans", type=int, default=30)
    parser.add_argument("--matrix", type=int, default=160)
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--phases", nargs="+", default=["nephrographic"])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    report = {"scans": args.scans, "matrix": args.matrix, "phases": {}}
    with ProcessPoolExecutor(args.processes) as pool:
        for phase in args.phases:
            tasks = [(args.seed + k, args.matrix, phase) for k in range(args.scans)]
            results = list(pool.map(one_scan, tasks))
            masses = sum(one["masses"] for one in results)
            print(f"{phase}: {args.scans} scans, {masses} masses")
            report["phases"][phase] = {"masses": masses}
            for region in REGIONS:
                best = summary(results, region)
                report["phases"][phase][region] = best
                for name, row in best.items():
                    print(
                        f"  {region:5} {name:9} {row['low_hu']:5d}..{row['high_hu']:4d} HU  "
                        f"recall {row['recall']:.2f}  precision {row['precision']:.2f}  "
                        f"Dice {row['dice']:.2f}  "
                        f"false positives/scan {row['false_positives_per_scan']:.1f}"
                    )
    if args.json:
        args.json.write_text(json.dumps(report, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
