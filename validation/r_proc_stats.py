"""`renalkit stats` on a table, against R: pROC on its aSAH data (113 patients), base R besides.

The command itself is run on a CSV, so that reading, labels, choice of columns and JSON are checked
as well. Rows named "printed" are figures written down from pROC.

    python validation/r_proc_stats.py
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from side_by_side import Table, run_r

MARKERS = ("wfns", "s100b", "ndka")
CUTS = {"wfns": 4, "s100b": 0.3, "ndka": 12}
SCRIPT = """
data(aSAH)
truth <- aSAH$outcome == "Poor"
x <- list(wfns = as.numeric(aSAH$wfns), s100b = aSAH$s100b, ndka = aSAH$ndka)
cuts <- list(wfns = 4, s100b = 0.3, ndka = 12)
out("truth", as.numeric(truth))
r <- lapply(x, function(v) roc(aSAH$outcome, v, levels = c("Good", "Poor"), direction = "<"))
right <- list()
for (m in names(x)) {
  out(paste("scores", m), x[[m]])
  out(paste("ci", m), ci.auc(r[[m]], method = "delong"))
  out(paste("partial", m), auc(r[[m]], partial.auc = c(1, 0.9), partial.auc.correct = TRUE,
      allow.invalid.partial.auc.correct = TRUE))
  called <- x[[m]] >= cuts[[m]]
  right[[m]] <- called == truth
  for (name in c("sens", "spec")) {
    own <- if (name == "sens") truth else !truth
    t <- binom.test(sum(right[[m]][own]), sum(own))
    out(paste(name, m), c(t$conf.int[1], t$estimate, t$conf.int[2]))
  }
}
p <- c()
for (pair in list(c("wfns", "s100b"), c("wfns", "ndka"), c("s100b", "ndka"))) {
  t <- roc.test(r[[pair[1]]], r[[pair[2]]], method = "delong", paired = TRUE)
  out(paste("paired", pair[1], pair[2]), c(t$statistic, t$p.value))
  p <- c(p, t$p.value)
  b <- sum(right[[pair[1]]] & !right[[pair[2]]])
  n <- b + sum(!right[[pair[1]]] & right[[pair[2]]])
  k <- min(b, n - b)
  mid <- 2 * pbinom(k, n, 0.5) - dbinom(k, n, 0.5)
  out(paste("mcnemar", pair[1], pair[2]), if (2 * k < n) mid else 1 - dbinom(k, n, 0.5))
}
out("holm", p.adjust(p, "holm"))
out("bh", p.adjust(p, "BH"))
"""
PRINTED = {
    "wfns": (0.7485349, 0.8236788618, 0.8988228),
    "s100b": (0.6301182, 0.7313685637, 0.8326189),
}
PRINTED_Z = {
    ("wfns", "s100b"): (2.2089835914, 0.0271757822),
    ("wfns", "ndka"): (2.7977759187, 0.0051455797),
}


def ours(r: dict[str, np.ndarray], adjust: str) -> dict[str, Any]:
    """What the command says of the same table."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "asah.csv"
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("outcome", *MARKERS))
            labels = np.where(r["truth"] == 1, "Poor", "Good")
            columns = [r[f"scores {m}"] for m in MARKERS]
            writer.writerows(zip(labels, *(map(repr, c.tolist()) for c in columns), strict=True))
        cuts = ",".join(f"{m}={v}" for m, v in CUTS.items())
        command = [sys.executable, "-m", "renalkit", "stats", str(path), "--label", "outcome"]
        command += ["--positive", "Poor", "--scores", ",".join(MARKERS), "--threshold", cuts]
        command += ["--partial", "specificity:0.9-1", "--adjust", adjust, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def main() -> None:
    r = run_r(SCRIPT, ("pROC",), "apt install r-cran-proc")
    found = ours(r, "holm")
    table = Table("renalkit stats beside R, aSAH: 41 of 113 patients with poor outcome")
    for score in found["scores"]:
        m = score["score"]
        ci = [score["auc_plain"][k] for k in ("low", "value", "high")]
        table.add(f"AUC {m} with interval", r[f"ci {m}"], ci)
        if m in PRINTED:
            table.add(f"AUC {m} with interval, printed", PRINTED[m], ci, 1e-6)
        part = score["partial_auc"][0]["standardised"]["value"]
        table.add(f"partial AUC {m}, specificity 0.9-1, McClish", r[f"partial {m}"], part)
        (point,) = score["operating_points"]
        for name, figure in (("sens", point["sensitivity"]), ("spec", point["specificity"])):
            exact = [figure[k] for k in ("low", "value", "high")]
            table.add(f"{name}. {m} at {CUTS[m]:g}, exact interval", r[f"{name} {m}"], exact)
    rows = [d for d in found["differences"] if (d["metric"], d["kind"]) == ("auc", "analytic")]
    for d in rows:
        pair = d["first"], d["second"]
        values = d["statistic"], d["p"]
        table.add(
            f"DeLong Z and p, {pair[0]} vs {pair[1]}", r[f"paired {pair[0]} {pair[1]}"], values
        )
        if pair in PRINTED_Z:
            table.add(
                f"DeLong Z and p, {pair[0]} vs {pair[1]}, printed", PRINTED_Z[pair], values, 1e-8
            )
    for d in found["differences"]:
        if d["metric"].startswith("accuracy"):
            theirs = r[f"mcnemar {d['first']} {d['second']}"]
            table.add(f"McNemar mid-p, {d['first']} vs {d['second']}", theirs, d["p"])
    table.add("Holm", r["holm"], [d["p_adjusted"] for d in rows])
    rows = [d for d in ours(r, "bh")["differences"]]
    adjusted = [d["p_adjusted"] for d in rows if (d["metric"], d["kind"]) == ("auc", "analytic")]
    table.add("Benjamini-Hochberg", r["bh"], adjusted)
    table.finish()


if __name__ == "__main__":
    main()
