"""AUC, DeLong, partial areas and power against R's pROC on its aSAH data (113 patients).

Needs R with pROC (Debian: r-cran-proc). The data come from the installed package; they are not
part of this repository. Rows named "printed" compare with figures written down from pROC's own
tests, so that a change of either program shows.

    python validation/r_proc_asah.py
"""

from __future__ import annotations

import numpy as np
from side_by_side import Table, run_r

from renalkit.domain.prediction import Unit
from renalkit.metrics.auc_inference import (
    Alternative,
    Scale,
    delong,
    delong_covariance,
    paired_delong,
    unpaired_delong,
)
from renalkit.metrics.classification import roc_curve
from renalkit.metrics.curves import Axis, RocPart, partial_auc
from renalkit.metrics.sample_size import AucDesign, AucModel, auc_variance, power_for_auc

MARKERS = ("wfns", "s100b", "ndka")
SCRIPT = """
data(aSAH)
out("truth", as.numeric(aSAH$outcome == "Poor"))
x <- list(wfns = as.numeric(aSAH$wfns), s100b = aSAH$s100b, ndka = aSAH$ndka)
r <- lapply(x, function(v) roc(aSAH$outcome, v, levels = c("Good", "Poor"), direction = "<"))
for (m in names(x)) {
  out(paste0("scores ", m), x[[m]])
  out(paste0("auc ", m), auc(r[[m]]))
  out(paste0("var ", m), var(r[[m]]))
  out(paste0("ci ", m), ci.auc(r[[m]], method = "delong"))
  for (correct in c(FALSE, TRUE)) {
    out(paste("spec", correct, m), auc(r[[m]], partial.auc = c(1, 0.9),
        partial.auc.correct = correct, allow.invalid.partial.auc.correct = TRUE))
    out(paste("sens", correct, m), auc(r[[m]], partial.auc = c(1, 0.8), partial.auc.focus = "sens",
        partial.auc.correct = correct, allow.invalid.partial.auc.correct = TRUE))
    out(paste("middle", correct, m), auc(r[[m]], partial.auc = c(0.85, 0.4),
        partial.auc.correct = correct, allow.invalid.partial.auc.correct = TRUE))
  }
  out(paste0("fpr ", m), 1 - r[[m]]$specificities)
  out(paste0("tpr ", m), r[[m]]$sensitivities)
}
for (pair in list(c("wfns", "s100b"), c("wfns", "ndka"), c("ndka", "s100b"))) {
  a <- r[[pair[1]]]; b <- r[[pair[2]]]; name <- paste(pair, collapse = " ")
  out(paste("cov", name), cov(a, b))
  t <- roc.test(a, b, method = "delong", paired = TRUE)
  out(paste("paired", name), c(t$statistic, t$p.value))
  out(paste("greater", name),
      roc.test(a, b, method = "delong", paired = TRUE, alternative = "greater")$p.value)
  u <- roc.test(a, b, method = "delong", paired = FALSE)
  out(paste("unpaired", name), c(u$statistic, u$parameter, u$p.value))
}
for (a in c(0.7, 0.85, 0.95)) {
  out(paste("obuchowski", a), pROC:::var.params.obuchowski(sqrt(2) * qnorm(a), 1, 1.5))
  out(paste("power", a), power.roc.test(auc = a, ncases = 12, ncontrols = 18)$power)
}
"""
PRINTED = {
    ("AUC", "wfns"): 0.823678861788618,
    ("AUC", "s100b"): 0.731368563685637,
    ("AUC", "ndka"): 0.611957994579946,
    ("var", "wfns"): 0.00146991470882,
    ("var", "s100b"): 0.00266868245717,
    ("var", "ndka"): 0.00319081054939,
}
PRINTED_PAIRS = {
    ("wfns", "s100b"): (2.20898359144091, 0.0271757822291882),
    ("wfns", "ndka"): (2.79777591868904, 0.00514557970691098),
    ("ndka", "s100b"): (-1.39077002573558, 0.164295175223054),
}


def main() -> None:
    r = run_r(SCRIPT, ("pROC",), "apt install r-cran-proc")
    truth, scores = r["truth"], {m: r[f"scores {m}"] for m in MARKERS}
    table = Table("R pROC, aSAH: 41 of 113 patients with poor outcome")
    aucs, cov = delong_covariance(truth, np.stack(list(scores.values())))
    for k, m in enumerate(MARKERS):
        e = delong(truth, scores[m], Unit.PATIENT, scale=Scale.PLAIN)
        table.add(f"AUC {m}", r[f"auc {m}"], aucs[k])
        table.add(f"AUC {m}, printed", PRINTED["AUC", m], aucs[k])
        table.add(f"variance {m}", r[f"var {m}"], cov[k, k])
        table.add(f"variance {m}, printed", PRINTED["var", m], cov[k, k])
        table.add(f"95 % interval {m}", r[f"ci {m}"], [e.low, e.value, e.high])
        curve = roc_curve(truth, scores[m])
        table.add(f"false positive rates {m}", np.sort(r[f"fpr {m}"]), curve.false_positive_rate)
        table.add(f"true positive rates {m}", np.sort(r[f"tpr {m}"]), curve.true_positive_rate)
        for correct in (False, True):
            words = "McClish" if correct else "raw"
            for name, part in (
                ("spec", RocPart(0.9)),
                ("middle", RocPart(0.4, 0.85)),
                ("sens", RocPart(0.8, 1, Axis.SENSITIVITY)),
            ):
                ours = partial_auc(truth, scores[m], part, standardised=correct)
                label = f"partial AUC {m}, {part.axis} {part.low:g}-{part.high:g}, {words}"
                table.add(label, r[f"{name} {str(correct).upper()} {m}"], ours)
    for m, printed in (("s100b", [0.6301182, 0.8326189]), ("wfns", [0.7485349, 0.8988228])):
        e = delong(truth, scores[m], scale=Scale.PLAIN)
        table.add(f"interval {m}, printed", printed, [e.low, e.high], 1e-6)
    for a, b in PRINTED_PAIRS:
        c = paired_delong(truth, scores[a], scores[b])
        ours = cov[MARKERS.index(a), MARKERS.index(b)]
        table.add(f"covariance {a}, {b}", r[f"cov {a} {b}"], ours)
        table.add(f"paired Z and p, {a} vs {b}", r[f"paired {a} {b}"], [c.statistic, c.p_value])
        table.add(
            f"paired Z and p, {a} vs {b}, printed", PRINTED_PAIRS[a, b], [c.statistic, c.p_value]
        )
        greater = paired_delong(truth, scores[a], scores[b], Alternative.GREATER).p_value
        table.add(f"one-sided p, {a} > {b}", r[f"greater {a} {b}"], greater)
        u = unpaired_delong((truth, scores[a]), (truth, scores[b]))
        ours = [u.statistic, u.df, u.p_value]
        table.add(f"unpaired D, df, p, {a} vs {b}", r[f"unpaired {a} {b}"], ours)
    for a in (0.7, 0.85, 0.95):
        ours = 12_000 * auc_variance(a, 12_000, 18_000, AucModel.OBUCHOWSKI)
        table.add(f"Obuchowski variance x n, AUC {a}", r[f"obuchowski {a}"], ours)
        design = AucDesign(model=AucModel.OBUCHOWSKI, null_variance=True)
        # pROC rounds 1/(32 pi) to 0.0099 and 1/(4 pi) to 0.0792 here.
        ours = power_for_auc(a, 0.5, 12, 18, design)
        table.add(f"power of 12 + 18 patients, AUC {a}", r[f"power {a}"], ours, 0.01)
    table.finish()


if __name__ == "__main__":
    main()
