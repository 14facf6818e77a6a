"""How long does a three-minute contrast cine take, and does memory grow with its length?

    python benchmarks/bench_ceus.py [--out results/ceus/speed.json] [--lengths 45 90 180]

Simulated dual cines of 600 x 800 px at 10 frames/s, JPEG DICOM. The peer does the same to curves,
figures and chosen frames written plainly on whole arrays: pydicom's pixel_array, OpenCV's template
matching in the same search window, SciPy's curve_fit; it makes no maps, no intervals and no checks.
Both run in a process of their own, one thread, in turn, and are measured in processor time and peak
memory. Parity in the same run: equal pixels of both panes, the same time to peak within 1 s.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

if TYPE_CHECKING:
    from renalkit.readers.decode_worker import DecodeWorker

RATE_HZ, SEED, DR_DB = 10, 4, 50.0
PARITY_FRAMES = (0, 7, 100, 301)
SEARCH_PX = 48


def made(folder: Path, seconds: int) -> Path:
    """A cine with its truth beside it."""
    out = folder / f"p{seconds}"
    words = [sys.executable, "-m", "renalkit", "phantom", "ceus", "-o", str(out), "-n", "1"]
    words += ["--seconds", str(seconds), "--fps", str(RATE_HZ), "--seed", str(SEED)]
    subprocess.run([*words, "--workers", "1"], check=True, capture_output=True)
    return out


def task(phantom: Path) -> tuple[Path, int, np.ndarray]:
    """The file, a frame on which the mass is outlined, and the mask on the screen."""
    from renalkit.domain.geometry import MaskRLE

    csv.field_size_limit(10**9)
    with next((phantom / "truth").rglob("frames.csv")).open(newline="") as file:
        rows = list(csv.DictReader(file))
    good = [i for i, r in enumerate(rows) if i >= 200 and float(r["out_of_plane"]) < 0.01]
    frame = next(i for i in good if rows[i]["lesion_mask"])
    mask = MaskRLE.parse(rows[frame]["lesion_mask"].split(",")[0]).decode()
    return next((phantom / "dicom").rglob("*.dcm")), frame, mask


def ours(path: Path, frame: int, mask: np.ndarray) -> dict[str, Any]:
    """From the file to curves, figures with intervals, frames and maps."""
    from renalkit.domain.geometry import MaskRLE
    from renalkit.domain.study import Roi
    from renalkit.readers.decode_worker import DecodeWorker
    from renalkit.usecases.ceus_clip import analyse_clip
    from renalkit.usecases.ceus_input import read_cine
    from renalkit.usecases.ceus_settings import ceus_settings

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
        now = _processor_s() + self.child_s()
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


def plain(path: Path, frame: int, mask: np.ndarray) -> dict[str, Any]:
    """The same on whole arrays, without maps, intervals and checks. Panes come from the header."""
    import pydicom
    from scipy.optimize import curve_fit

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


def _processor_s() -> float:
    """User and system time of this process and of its children that ended."""
    uses = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in uses)


def measured(who: str, phantom: Path) -> dict[str, Any]:
    """One side in a process of its own: result, seconds, peak memory of its largest process."""
    words = [sys.executable, __file__, "--side", who, "--phantom", str(phantom)]
    began = time.monotonic()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    one = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    text = subprocess.run(words, check=True, capture_output=True, text=True, env=one).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = json.loads(text)
    found["wall_s"] = time.monotonic() - began
    found["processor_s"] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return found


def run_side(who: str, phantom: Path) -> None:
    path, frame, mask = task(phantom)
    found = (ours if who == "ours" else plain)(path, frame, mask)
    peaks = [
        resource.getrusage(w).ru_maxrss for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    ]
    print(json.dumps(found | {"peak_mib": max(peaks) / 1024}))


def _peer_mib(seconds: int) -> float:
    """Measured: pydicom converts the colours of the whole array in several copies."""
    return 12.6 * seconds * RATE_HZ


def _peer_fits(seconds: int) -> bool:
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20
    return _peer_mib(seconds) < 0.7 * whole


def _tell_steps(found: dict[str, Any]) -> None:
    for words, value in found["steps_s"].items():
        print(f"       {words}: {value:.1f} s", flush=True)
    print(f"       of all that in the decoding process: {found['decoding_s']:.1f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--lengths", type=int, nargs="+", default=[45, 90, 180])
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--side", choices=["ours", "plain"], help=argparse.SUPPRESS)
    parser.add_argument("--phantom", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        run_side(given.side, given.phantom)
        return
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        for seconds in given.lengths:
            phantom = made(Path(name), seconds)
            sides = ("ours", "plain") if _peer_fits(seconds) else ("ours",)
            runs = [{who: measured(who, phantom) for who in sides} for _ in range(given.repeats)]
            best = {
                who: min((r[who] for r in runs), key=lambda m: m["processor_s"]) for who in sides
            }
            rows.append({"seconds": seconds, "frames": seconds * RATE_HZ, **best})
            a = best["ours"]
            if "plain" not in best:
                print(
                    f"{seconds:4d} s: ours {a['processor_s']:.1f} s, {a['peak_mib']:.0f} MiB; plain "
                    f"not run, it would need about {_peer_mib(seconds) / 1024:.0f} GiB",
                    flush=True,
                )
                _tell_steps(a)
                continue
            b = best["plain"]
            assert a["boxes"] == b["boxes"], (a["boxes"], b["boxes"])
            assert a["panes"] == b["panes"], "pixels differ from pydicom's"
            assert abs(a["ttp_s"] - b["ttp_s"]) < 1.0, (a["ttp_s"], b["ttp_s"])
            print(
                f"{seconds:4d} s: ours {a['processor_s']:.1f} s, {a['peak_mib']:.0f} MiB; plain "
                f"{b['processor_s']:.1f} s, {b['peak_mib']:.0f} MiB; ratio "
                f"{b['processor_s'] / a['processor_s']:.1f}; time to peak {a['ttp_s']:.2f} / "
                f"{b['ttp_s']:.2f} s",
                flush=True,
            )
            _tell_steps(a)
    if given.out:
        machine = (
            f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
        )
        given.out.parent.mkdir(parents=True, exist_ok=True)
        # Processor time grows with what else runs on shared cores; the reader may judge by how much.
        facts = {"machine": machine, "load_1_5_15_min": os.getloadavg(), "rows": rows}
        given.out.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
