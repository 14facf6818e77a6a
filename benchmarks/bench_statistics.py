"""How long do DeLong's interval and the cluster bootstrap take here, in pROC and in scikit-learn?

DeLong: one AUC with its 95 % interval from 200,000 scores, against pROC's roc() and ci.auc()
(scikit-learn has no DeLong). Bootstrap: 2,000 resamples of 250 patients with 40 frames each, five
systems in the same resamples, against a plain loop that draws patients, gathers their rows and
calls roc_auc_score, and against the same loop in R with pROC's auc(). The loops are run on a few
resamples and their time is scaled up to 2,000; R is started once, so the time it says itself counts.
Parity: intervals and AUCs of both sides.

    python benchmarks/bench_statistics.py [--quick]

Needs scikit-learn (the dev extra) and R with pROC (Debian: r-cran-proc).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import book
import numpy as np
from sklearn.metrics import roc_auc_score

from renalkit.domain.prediction import Unit
from renalkit.metrics.auc_inference import Scale, delong
from renalkit.metrics.bootstrap import AnyStatistic, Auc, BootstrapPlan, resample

SCORES, PATIENTS, FRAMES, SYSTEMS, RESAMPLES = 200_000, 250, 40, 5, 2000
SKLEARN_RESAMPLES, PROC_RESAMPLES, CHECKED = 40, 10, 100
NEAR = 1e-9

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


def largest(a: object, b: object) -> float:
    return float(np.abs(np.subtract(a, b)).max())


def took(lines: list[list[float]]) -> Iterator[book.Took]:
    """What R said of itself, one line per call."""
    return (book.Took(wall_s, cpu_s, elsewhere=True) for cpu_s, wall_s, *_ in lines)


def bench(found: book.Book) -> None:
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

    arrays = {"truth": truth, "scores": scores, "frame_truth": y, "patient": patient}
    r = in_r(arrays | {"frame_scores": x}, book.UNTIMED + found.repeats)
    e = delong(truth, scores, Unit.PATIENT, scale=Scale.PLAIN)  # as pROC's
    few = BootstrapPlan(CHECKED)
    by_sklearn = AnyStatistic(lambda i: float(roc_auc_score(y[i], x[0][i])), y.size)
    fast, slow = resample([Auc(y, x[0]), by_sklearn], patient, few)
    areas = [one.value for one in resample([Auc(y, s) for s in x], patient, few)]
    by_r = {name: took(r[name]) for name in ("delong", "boot")}
    found.compare(
        f"AUC of {SCORES:,} scores with DeLong's interval",
        "ms",
        {
            "renalkit": lambda: delong(truth, scores, Unit.PATIENT),
            "pROC": lambda: next(by_r["delong"]),
        },
        peer="pROC",
        parity=[
            book.Parity("interval", largest(r["delong"][0][2:], (e.low, e.value, e.high)), NEAR)
        ],
        scale=1000,
        clock="cpu_s",
    )
    found.compare(
        f"{RESAMPLES:,} resamples of {PATIENTS} patients with {FRAMES} frames, {SYSTEMS} systems",
        "s",
        {"renalkit": ours, "scikit-learn loop": loop, "pROC loop": lambda: next(by_r["boot"])},
        peer="scikit-learn loop",
        parity=[
            book.Parity("AUCs of frames, pROC", largest(r["areas"][0][2:], areas), NEAR),
            book.Parity(
                f"AUC in {CHECKED} resamples, scikit-learn", largest(fast.draws, slow.draws), NEAR
            ),
        ],
        scale={
            "renalkit": 1,
            "scikit-learn loop": RESAMPLES / SKLEARN_RESAMPLES,
            "pROC loop": RESAMPLES / PROC_RESAMPLES,
        },
        clock="cpu_s",
    )


if __name__ == "__main__":
    sys.exit(book.main(__file__, __doc__, bench, repeats=5))
