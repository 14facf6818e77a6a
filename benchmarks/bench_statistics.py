"""How long do DeLong's interval and the cluster bootstrap take here, in pROC and in scikit-learn?

DeLong: one AUC with its 95 % interval from 200,000 scores, against pROC's roc() and ci.auc()
(scikit-learn has no DeLong). Bootstrap: 2,000 resamples of 250 patients with 40 frames each, five
systems in the same resamples, against a plain loop that draws patients, gathers their rows and
calls roc_auc_score, and against the same loop in R with pROC's auc(). The loops are run on a few
resamples and their time is scaled up to 2,000.

All times are CPU times of one thread, medians of repeats that take turns, so that other work on the
machine matters little; times on the clock stand beside them in the JSON. The figures of both sides
are compared in the same run.

    OMP_NUM_THREADS=1 python benchmarks/bench_statistics.py [--repeats N] [--json FILE]

Needs scikit-learn (the dev extra) and R with pROC (Debian: r-cran-proc). Ends with 1 if figures
differ.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from renalkit.domain.prediction import Unit
from renalkit.metrics.auc_inference import Scale, delong
from renalkit.metrics.bootstrap import AnyStatistic, Auc, BootstrapPlan, resample

SCORES, PATIENTS, FRAMES, SYSTEMS, RESAMPLES = 200_000, 250, 40, 5, 2000
SKLEARN_RESAMPLES, PROC_RESAMPLES, CHECKED = 40, 10, 100
MARK = 20.0

R = """
suppressPackageStartupMessages(library(pROC))
options(digits = 17)
args <- commandArgs(TRUE)
read <- function(name, n) readBin(file.path(args[1], name), "double", n)
n <- {scores}; y <- read("truth", n); x <- read("scores", n)
area <- function(y, x) roc(y, x, levels = c(0, 1), direction = "<", quiet = TRUE)
for (k in seq_len({repeats})) {{
  t <- system.time(ci <- ci.auc(area(y, x), method = "delong"))
  cat("delong", t[1] + t[2], t[3], ci[1], ci[2], ci[3], "\\n")
}}
m <- {rows}; y <- read("frame_truth", m); p <- read("patient", m)
x <- matrix(read("frame_scores", m * {systems}), m, {systems})
rows <- split(seq_len(m), p)
cat("areas", 0, 0, sapply(seq_len({systems}), function(s) auc(area(y, x[, s]))), "\\n")
for (k in seq_len({repeats})) {{
  t <- system.time(for (b in seq_len({resamples})) {{
    i <- unlist(rows[sample(length(rows), replace = TRUE)], use.names = FALSE)
    for (s in seq_len({systems})) auc(area(y[i], x[i, s]))
  }})
  cat("boot", t[1] + t[2], t[3], "\\n")
}}
"""


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """CPU and clock seconds."""
    cpu, clock = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - clock


def medians(times: list[tuple[float, float]], scale: float = 1.0) -> dict[str, float]:
    cpu, clock = (statistics.median(t) * scale for t in zip(*times, strict=True))
    return {"cpu_s": round(cpu, 4), "clock_s": round(clock, 4)}


def in_r(arrays: dict[str, np.ndarray], repeats: int) -> dict[str, list[list[float]]]:
    """Lines of the R script by their first word: CPU seconds, clock seconds, figures."""
    script = R.format(
        scores=SCORES,
        rows=PATIENTS * FRAMES,
        systems=SYSTEMS,
        repeats=repeats,
        resamples=PROC_RESAMPLES,
    )
    with tempfile.TemporaryDirectory() as folder:
        for name, values in arrays.items():
            np.asarray(values, dtype="<f8").tofile(Path(folder) / name)
        done = subprocess.run(
            ["Rscript", "-", folder], input=script, capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise SystemExit(f"R with pROC failed (apt install r-cran-proc):\n{done.stderr}")
    found: dict[str, list[list[float]]] = {}
    for line in done.stdout.splitlines():
        name, *figures = line.split()
        found.setdefault(name, []).append([float(f) for f in figures])
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, SCORES)
    scores = truth + rng.normal(size=SCORES)

    state = np.arange(PATIENTS) % 5 < 2
    patient = np.repeat(np.arange(PATIENTS), FRAMES)
    y = state[patient].astype(int)
    level = 1.2 * state + rng.normal(size=(SYSTEMS, PATIENTS))
    x = level[:, patient] + 0.7 * rng.normal(size=(SYSTEMS, y.size))
    plan = BootstrapPlan(RESAMPLES)

    def ours() -> None:
        for one in resample([Auc(y, s) for s in x], patient, plan):
            one.estimate()

    def loop() -> None:
        drawing = np.random.default_rng(0)
        rows = np.split(np.arange(y.size), PATIENTS)
        for _ in range(SKLEARN_RESAMPLES):
            drawn = drawing.integers(PATIENTS, size=PATIENTS)
            i = np.concatenate([rows[g] for g in drawn])
            for s in x:
                roc_auc_score(y[i], s[i])

    mine, boot, sklearn = [], [], []
    for _ in range(given.repeats):
        mine.append(timed(lambda: delong(truth, scores, Unit.PATIENT)))
        boot.append(timed(ours))
        sklearn.append(timed(loop))
    arrays = {"truth": truth, "scores": scores, "frame_truth": y, "patient": patient}
    r = in_r(arrays | {"frame_scores": x}, given.repeats)

    e = delong(truth, scores, Unit.PATIENT, scale=Scale.PLAIN)  # as pROC's
    few = BootstrapPlan(CHECKED)
    by_sklearn = AnyStatistic(lambda i: float(roc_auc_score(y[i], x[0][i])), y.size)
    fast, slow = resample([Auc(y, x[0]), by_sklearn], patient, few)
    areas = [one.value for one in resample([Auc(y, s) for s in x], patient, few)]
    parity = {
        "DeLong interval, pROC": float(
            np.abs(np.subtract(r["delong"][0][2:], (e.low, e.value, e.high))).max()
        ),
        "five AUCs of frames, pROC": float(np.abs(np.subtract(r["areas"][0][2:], areas)).max()),
        f"AUC in {CHECKED} resamples, scikit-learn": float(np.abs(fast.draws - slow.draws).max()),
    }
    times = {
        "DeLong, ours": medians(mine),
        "DeLong, pROC": medians([(t[0], t[1]) for t in r["delong"]]),
        "bootstrap, ours": medians(boot),
        "bootstrap, scikit-learn loop": medians(sklearn, RESAMPLES / SKLEARN_RESAMPLES),
        "bootstrap, pROC loop": medians(
            [(t[0], t[1]) for t in r["boot"]], RESAMPLES / PROC_RESAMPLES
        ),
    }
    ratios = {
        name: round(times[name]["cpu_s"] / times[name.split(",")[0] + ", ours"]["cpu_s"], 1)
        for name in times
        if "ours" not in name
    }
    for name, of in times.items():
        times_as_fast = f"  {ratios[name]:8.1f} x" if name in ratios else ""
        print(f"{name:30} {of['cpu_s']:10.3f} s CPU  {of['clock_s']:10.3f} s clock{times_as_fast}")
    for name, apart in parity.items():
        print(f"{name}: furthest apart {apart:.1e}")
    short = [name for name, ratio in ratios.items() if ratio < MARK]
    print(f"mark {MARK:g} x: " + (f"short in {', '.join(short)}" if short else "reached in all"))
    load = os.getloadavg()[0]
    print(f"load average {load:.1f} on {os.cpu_count()} cores")
    if given.json:
        record = {"times": times, "ratios_cpu": ratios, "parity": parity, "load": load}
        given.json.write_text(json.dumps(record, indent=1) + "\n")
    if max(parity.values()) > 1e-9:
        raise SystemExit("figures differ")


if __name__ == "__main__":
    main()
