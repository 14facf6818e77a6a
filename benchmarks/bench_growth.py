"""Does time grow in step with the work, and does memory stay where it is?

    python benchmarks/bench_growth.py [--most 100000] [--quick]

Each size is measured in a process of its own, the making of its data not counted:

- frames of JPEG cines, 10,000 at most in a file, opened and gone through one by one as ingest does
- patients, a picture each, through the whole of `renalkit ingest`; memory of its largest process
- frames of a prepared cache, an augmented epoch of batches
- scores of patients: AUC with DeLong's interval
- patients with 40 frames each: 200 resamples of AUC

Time is processor time, so that other work bends no curve. Growth as n^1 is in step, n^0 is not at all. Memory is what processes ask for; files mapped into it,
which the system can drop, do not count.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import book
import numpy as np
from bench_ingest import go_through, payload_digests, write_cine
from drawn import do, write_pictures

from renalkit.domain.prediction import Unit
from renalkit.metrics.auc_inference import delong
from renalkit.metrics.bootstrap import Auc, BootstrapPlan, resample

SIDE, FRAMES_EACH, RESAMPLES = 64, 40, 200
LONGEST = 10_000
"""Frames in one file."""
HELD: list[np.ndarray] = []
"""Stays mapped until the end: only then is it known which memory is that of mapped files."""


def cine(task: book.Json) -> book.Json:
    seconds = 0.0
    for path in sorted((Path(task["folder"]) / f"cines{task['n']}").iterdir()):
        digests = payload_digests(path)
        seconds += book.timed(lambda path=path, digests=digests: go_through(path, digests)).cpu_s
    return {"seconds": seconds}


def ingest(task: book.Json) -> book.Json:
    folder = Path(task["folder"])
    took = book.timed(
        lambda: do("ingest", folder / str(task["n"]), "-o", folder / f"cohort{task['n']}")
    )
    return {"seconds": took.wall_s}


def epoch(task: book.Json) -> book.Json:
    from renalkit.domain.sample import SampleKey
    from renalkit.learn.data import BatchPlan, PreparedSet, batches
    from renalkit.transforms.augment import AugmentRanges
    from renalkit.transforms.preprocess import Placement

    n, folder = int(task["n"]), Path(task["folder"])
    images, masks = (np.load(folder / f"{k}{n}.npy", mmap_mode="r") for k in ("images", "masks"))
    HELD.extend((images, masks))
    data = PreparedSet(
        images=images,
        masks=masks,
        has_mask=np.ones(n, bool),
        labels=np.zeros(n, np.int64),
        levels=np.tile(np.array([0.0, 1.0], np.float32), (n, 1, 1)),
        placements=(Placement.fit((SIDE, SIDE), SIDE),) * n,
        keys=tuple(SampleKey(f"p{i}", f"s{i}", "", 0, 0) for i in range(n)),
        present=np.ones((n, 1), bool),
        features=np.zeros((n, 0), np.float32),
    )
    plan = BatchPlan(0, 16, "plain", AugmentRanges(), 1)

    def work() -> None:
        for _ in batches(data, np.arange(n), plan, 0):
            pass

    return {"seconds": book.timed(work).cpu_s}


def interval(task: book.Json) -> book.Json:
    rng = np.random.default_rng(0)
    truth = np.arange(task["n"]) % 2
    scores = truth + rng.normal(size=truth.size)
    return {"seconds": book.timed(lambda: delong(truth, scores, Unit.PATIENT)).cpu_s}


def resampling(task: book.Json) -> book.Json:
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(task["n"]), FRAMES_EACH)
    truth = patient % 2
    scores = truth + rng.normal(size=truth.size)

    def work() -> None:
        for one in resample([Auc(truth, scores)], patient, BootstrapPlan(RESAMPLES)):
            one.estimate()

    return {"seconds": book.timed(work).cpu_s}


def write_cines(folder: Path, frames: int) -> None:
    folder.mkdir()
    for first in range(0, frames, LONGEST):
        path = folder / f"{first:06d}.dcm"
        write_cine(path, min(LONGEST, frames - first), coloured=False, shape=(96, 128))


def write_cache(folder: Path, n: int) -> None:
    """Prepared pictures and masks of one value each, as files that are mapped."""
    for name, value in (("images", 100), ("masks", 1)):
        shape = (n, 1, SIDE, SIDE)
        whole = np.lib.format.open_memmap(folder / f"{name}{n}.npy", "w+", np.uint8, shape)
        whole[:] = value
        whole[..., : SIDE // 2] = 0
        whole.flush()


def bench(found: book.Book) -> None:
    most = 1000 if found.quick else found.given.most
    frames = [n for n in (100, 1000, 10_000, 100_000) if n <= most]
    patients = [n // 10 for n in frames]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for n in frames:
            write_cines(folder / f"cines{n}", n)
            write_cache(folder, n)
        for n in patients:
            write_pictures(folder / str(n), n, SIDE)
        here = {"folder": name}
        found.grow("Frames of cines, opened and read", "frames", "cine", frames, here)
        found.grow("Ingest of pictures", "patients", "ingest", patients, here)
        found.grow("An augmented epoch", "frames", "epoch", frames, here)
    found.grow("AUC with DeLong's interval", "scores", "interval", frames, {})
    found.grow(f"{RESAMPLES} resamples of AUC", "patients", "resampling", patients, {})


if __name__ == "__main__":
    sys.exit(
        book.main(
            __file__,
            __doc__,
            bench,
            children={f.__name__: f for f in (cine, ingest, epoch, interval, resampling)},
            options=lambda parser: parser.add_argument("--most", type=int, default=100_000),
        )
    )
