"""How fast are contrast clips simulated, and with how much memory?

Patients of a cohort, each with a dual-panel clip (60 s at 10 frames/s, 600 x 800), rendered and
compressed as JPEG, spread over processes as a cohort is. Frames per second of wall time, processor
time per frame by part, and the largest memory of a process. There is no other program to compare
with.

    python benchmarks/bench_phantom_ceus.py [--patients N] [--seconds S] [--processes N] [--quick]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time

import book
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
        "memory_mib": book.own_peak_mib(),
    }


def bench(found: book.Book) -> None:
    given = found.given
    patients, seconds = (2, 2.0) if found.quick else (given.patients, given.seconds)
    tasks = [(index, seconds) for index in range(patients)]
    start = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(given.processes) as pool:
        rows = pool.map(one_patient, tasks, chunksize=1)
    wall_s = time.perf_counter() - start
    frames = sum(row["frames"] for row in rows)
    facts = {
        "patients": patients,
        "frames": frames,
        "processes": given.processes,
        "frames per second": frames / wall_s,
        "rendering, ms per frame": 1000 * sum(row["render_s"] for row in rows) / frames,
        "JPEG, ms per frame": 1000 * sum(row["jpeg_s"] for row in rows) / frames,
        "preparing, ms per patient": 1000 * sum(row["setup_s"] for row in rows) / len(rows),
        "ten pairs, ms per patient": 1000 * sum(row["pairs_s"] for row in rows) / len(rows),
        "MiB per clip": sum(row["mib"] for row in rows) / len(rows),
        "memory of a process, MiB": max(row["memory_mib"] for row in rows),
    }
    for name, value in facts.items():
        found.fact(name, value)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--patients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))


if __name__ == "__main__":
    sys.exit(book.main(__file__, __doc__, bench, options=options))
