"""How fast are contrast clips simulated, and with how much memory?

Patients of a cohort, each with a dual-panel clip (60 s at 10 frames/s, 600 x 800), rendered and
compressed as JPEG, spread over processes as a cohort is. Frames per second of wall time, processor
time per frame by part, and the largest memory of a process. There is no other program to compare
with.

    python benchmarks/bench_phantom_ceus.py [--patients N] [--seconds S] [--processes N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import time
from pathlib import Path

import cv2
import imagecodecs
import numpy as np

from renalkit.phantom.bmode.anatomy import draw_anatomy, draw_view
from renalkit.phantom.bmode.lesion import lesion_features
from renalkit.phantom.bmode.picture import SCANNERS
from renalkit.phantom.ceus.study import CeusOptions, CeusStudy, crop_pairs, draw_ceus, pair_times


def one_patient(task: tuple[int, float]) -> dict[str, float]:
    """Render and compress one clip; processor seconds by part."""
    index, seconds = task
    cv2.setNumThreads(1)
    rng = np.random.default_rng([0, index])
    anatomy = draw_anatomy(lesion_features(rng.standard_normal(3), rng), "right", rng)
    subject = anatomy, draw_view(anatomy, rng)
    start = time.process_time()
    options = CeusOptions(duration_s=seconds)
    plan = draw_ceus(subject, SCANNERS[index % 3], rng.standard_normal(4), rng, options)
    study = CeusStudy(plan)
    assert study.rois
    frames = study.frames()
    pixels, _ = next(frames)
    ready = time.process_time()
    n_bytes, packing = 0, 0.0
    for count, (pixels, _) in enumerate(frames, start=1):  # noqa: B007
        before = time.process_time()
        n_bytes += len(imagecodecs.jpeg8_encode(pixels, level=90, subsampling="422"))
        packing += time.process_time() - before
    done = time.process_time()
    for _ in crop_pairs(CeusStudy(plan), pair_times(plan, 10)):
        pass
    return {
        "frames": count + 1,
        "setup_s": ready - start,
        "render_s": done - ready - packing,
        "jpeg_s": packing,
        "pairs_s": time.process_time() - done,
        "mib": n_bytes / 2**20,
        "memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--patients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    tasks = [(index, args.seconds) for index in range(args.patients)]
    start = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(args.processes) as pool:
        rows = pool.map(one_patient, tasks, chunksize=1)
    wall_s = time.perf_counter() - start
    frames = sum(row["frames"] for row in rows)
    result = {
        "patients": args.patients,
        "frames": frames,
        "processes": args.processes,
        "frames_per_s": frames / wall_s,
        "render_ms": 1000 * sum(row["render_s"] for row in rows) / frames,
        "jpeg_ms": 1000 * sum(row["jpeg_s"] for row in rows) / frames,
        "setup_ms_per_patient": 1000 * sum(row["setup_s"] for row in rows) / len(rows),
        "ten_pairs_ms_per_patient": 1000 * sum(row["pairs_s"] for row in rows) / len(rows),
        "mib_per_clip": sum(row["mib"] for row in rows) / len(rows),
        "memory_mib": max(row["memory_mib"] for row in rows),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "opencv": cv2.__version__,
    }
    for name, value in result.items():
        print(f"{name:26} {value:.1f}" if isinstance(value, float) else f"{name:26} {value}")
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
