"""How long does a contrast cine take from the file to curves and figures?

    python benchmarks/bench_ceus.py [--lengths 45 90 180] [--quick]

Simulated dual cines of 600 x 800 px at 10 frames/s, JPEG DICOM. The peer does the same to curves,
figures and chosen frames written plainly on whole arrays: pydicom's pixel_array, OpenCV's template
matching in the same search window, SciPy's curve_fit; it makes no maps, no intervals and no checks.
Each side runs in a process of its own; processor time is that of all its processes, memory that of
the largest. Parity: equal pixels of both panes, the same time to peak within 1 s. The peer is left
out where its arrays would not fit into memory; growth with the length is shown of ours.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import book
import cv2
import numpy as np
from drawn import do

if TYPE_CHECKING:
    from renalkit.readers.decode_worker import DecodeWorker

RATE_HZ, SEED, DR_DB = 10, 4, 50.0
PARITY_FRAMES = (0, 7, 100, 301)
SEARCH_PX = 48
SMALL = ("--rows", 300, "--cols", 400)
"""The screen of quick runs."""


def made(folder: Path, seconds: int, *more: object) -> Path:
    """A cine with its truth beside it."""
    out = folder / f"p{seconds}"
    words = ["--seconds", seconds, "--fps", RATE_HZ, "--seed", SEED, "--workers", 1, *more]
    do("phantom", "ceus", "-o", out, "-n", 1, *words)
    return out


def task(phantom: Path) -> tuple[Path, int, np.ndarray]:
    """The file, a frame on which the mass is outlined, and the mask on the screen."""
    from renalkit.domain.geometry import MaskRLE

    csv.field_size_limit(10**9)
    with next((phantom / "truth").rglob("frames.csv")).open(newline="") as file:
        rows = list(csv.DictReader(file))
    good = [
        i
        for i, r in enumerate(rows)
        if i >= min(200, len(rows) // 2) and float(r["out_of_plane"]) < 0.01
    ]
    frame = next(i for i in good if rows[i]["lesion_mask"])
    mask = MaskRLE.parse(rows[frame]["lesion_mask"].split(",")[0]).decode()
    return next((phantom / "dicom").rglob("*.dcm")), frame, mask


def ours(given: book.Json) -> book.Json:
    """From the file to curves, figures with intervals, frames and maps."""
    from renalkit.domain.geometry import MaskRLE
    from renalkit.domain.study import Roi
    from renalkit.readers.decode_worker import DecodeWorker
    from renalkit.usecases.ceus_clip import analyse_clip
    from renalkit.usecases.ceus_input import read_cine
    from renalkit.usecases.ceus_settings import ceus_settings

    path, frame, mask = task(Path(given["folder"]) / f"p{given['n']}")
    steps: dict[str, float] = {}
    with DecodeWorker() as worker:
        clock = _Steps(steps, worker)
        clock.stage("reading the header")
        cine = read_cine(path, path.name, worker, keep_pixels=False)
        settings = ceus_settings(None, [f"dynamic_range_db={DR_DB}"])
        roi = Roi(0, frame, mask=MaskRLE.encode(mask))
        found = analyse_clip(cine.clip, {"lesion": [roi]}, settings, progress=clock)
        clock.stage("checking the file")
        assert cine.check() == ()
        clock.stage("")
        decoding_s = clock.child_s()
        wanted = [i for i in PARITY_FRAMES if i < cine.clip.n_frames]
        pixels = [np.asarray(cine.clip.pixels[i]) for i in wanted]
    assert found.perfusion is not None
    boxes = [p.box for p in (found.panels.bmode, found.panels.contrast)]
    return {
        "ttp_s": found.perfusion.curves["lesion"].value("TTP") + (found.injection_s or 0.0),
        "chosen": len(found.chosen),
        "steps_s": steps,
        "decoding_s": decoding_s,
        "panes": [int(np.sum(p[b.slices], dtype=np.int64)) for p in pixels for b in boxes],
        "boxes": [[b.x, b.y, b.width, b.height] for b in boxes],
    }


class _Steps:
    """Processor time per stage, of this process and of the decoding one."""

    def __init__(self, steps: dict[str, float], worker: DecodeWorker) -> None:
        self._steps, self._worker, self._at, self._name = steps, worker, 0.0, ""

    def stage(self, words: str, total: int | None = None) -> None:
        now = book.processor_s()
        if self._name:
            self._steps[self._name] = now - self._at
        self._name, self._at = words, now

    def advance(self, steps: int = 1, words: str = "") -> None:
        """Nothing to draw."""

    def child_s(self) -> float:
        """Of the decoding process, which lives still (proc(5))."""
        if self._worker.pid is None:
            return 0.0
        facts = Path(f"/proc/{self._worker.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(facts[11]) + int(facts[12])) / os.sysconf("SC_CLK_TCK")


def plain(given: book.Json) -> book.Json:
    """The same on whole arrays, without maps, intervals and checks. Panes come from the header."""
    import pydicom
    from scipy.optimize import curve_fit

    path, frame, mask = task(Path(given["folder"]) / f"p{given['n']}")
    data = pydicom.dcmread(path)
    boxes = []
    for item in data.SequenceOfUltrasoundRegions[:2]:
        x, y = item.RegionLocationMinX0, item.RegionLocationMinY0
        boxes.append((x, y, item.RegionLocationMaxX1 - x + 1, item.RegionLocationMaxY1 - y + 1))
    times = np.arange(int(data.NumberOfFrames)) * float(data.FrameTime) / 1000
    cine = data.pixel_array  # RGB by pydicom 3
    first, second = (cine[:, y : y + h, x : x + w] for x, y, w, h in boxes)
    tinted = [float(np.ptp(p[::50].astype(int), axis=3).mean()) for p in (first, second)]
    (bx, by, bw, bh) = boxes[int(np.argmin(tinted))]
    bmode = (first if tinted[0] < tinted[1] else second)[..., 1]
    contrast = second if tinted[0] < tinted[1] else first
    inside = mask[by : by + bh, bx : bx + bw]
    rows, cols = np.nonzero(inside)
    y0, y1, x0, x1 = rows.min(), rows.max() + 1, cols.min(), cols.max() + 1
    template = bmode[frame, y0:y1, x0:x1]
    top, left = max(0, y0 - SEARCH_PX), max(0, x0 - SEARCH_PX)
    levels = np.power(10.0, np.arange(256) * (DR_DB / 2550.0)).astype(np.float32) - 1
    power = levels[contrast.max(axis=3)]
    curve, kept = np.zeros(len(bmode)), np.zeros(len(bmode))
    for i, picture in enumerate(bmode):
        window = picture[top : y1 + SEARCH_PX, left : x1 + SEARCH_PX]
        _, kept[i], _, at = cv2.minMaxLoc(cv2.matchTemplate(window, template, cv2.TM_CCOEFF_NORMED))
        dy, dx = at[1] + top - y0, at[0] + left - x0
        y, x = np.clip(rows + dy, 0, bh - 1), np.clip(cols + dx, 0, bw - 1)
        curve[i] = power[i, y, x].mean()
    good = kept > 0.7 * np.quantile(kept, 0.75)

    def bolus(t: Any, area: float, mu: float, sigma: float, t0: float, c: float) -> Any:
        x = np.maximum(t - t0, 1e-6)
        return (
            area
            / (np.sqrt(2 * np.pi) * sigma * x)
            * np.exp(-((np.log(x) - mu) ** 2) / (2 * sigma**2))
            + c
        )

    peak = float(curve[good].max())
    at = float(times[good][np.argmax(curve[good])])
    start = (peak * 30, 3.0, 0.6, max(0.0, at - 8), 0.0)
    low, high = (0, 0, 0.1, -5, -peak), (np.inf, 6, 2, at, peak)
    fit, _ = curve_fit(bolus, times[good], curve[good], start, bounds=(low, high), maxfev=20000)
    ttp = fit[3] + np.exp(fit[1] - fit[2] ** 2)
    ours_first = [boxes[int(np.argmin(tinted))], boxes[int(np.argmax(tinted))]]
    return {
        "ttp_s": float(ttp),
        "panes": [
            int(np.sum(cine[i, y : y + h, x : x + w], dtype=np.int64))
            for i in PARITY_FRAMES
            if i < len(cine)
            for x, y, w, h in ours_first
        ],
        "boxes": [list(map(int, b)) for b in ours_first],
    }


def fits(seconds: int) -> bool:
    """Whether the peer's copies of the whole cine fit; measured: 12.6 MiB a frame."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20
    return 12.6 * seconds * RATE_HZ < 0.7 * whole


def compare(found: book.Book, given: book.Json) -> None:
    a, b = found.child("ours", given)[0], found.child("plain", given)[0]
    differing = sum(x != y for k in ("boxes", "panes") for x, y in zip(a[k], b[k], strict=True))
    found.compare(
        f"A cine of {given['n']} s",
        "s",
        {name: lambda name=name: found.child(name, given)[1] for name in ("ours", "plain")},
        peer="plain",
        parity=[
            book.Parity("panes that differ", differing, 0),
            book.Parity("time to peak, s", abs(a["ttp_s"] - b["ttp_s"]), 1.0),
        ],
        clock="cpu_s",
    )
    steps = a["steps_s"] | {"of all that in the decoding process": a["decoding_s"]}
    found.fact(f"processor time of a cine of {given['n']} s, s", steps)


def bench(found: book.Book) -> None:
    lengths, more = ([20, 40], SMALL) if found.quick else (found.given.lengths, ())
    with tempfile.TemporaryDirectory() as name:
        for seconds in lengths:
            made(Path(name), seconds, *more)
        for seconds in lengths[-1:] if found.quick else filter(fits, lengths):
            compare(found, {"folder": name, "n": seconds})
        found.grow("Analysis of a cine", "seconds", "ours", lengths, {"folder": name})


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--lengths", type=int, nargs="+", default=[45, 90, 180])


if __name__ == "__main__":
    works = {"ours": ours, "plain": plain}
    sys.exit(book.main(__file__, __doc__, bench, repeats=3, children=works, options=options))
