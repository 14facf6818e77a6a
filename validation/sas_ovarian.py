"""The ovarian-cancer example of DeLong, DeLong and Clarke-Pearson 1988, as in SAS PROC LOGISTIC.

Needs the example's 43 complete rows in a text file: the numbers between DATALINES and the semicolon
of the SAS/STAT example "Comparing Receiver Operating Characteristic Curves" (albumin, total
protein, K-G score, indicator; support.sas.com). They are not part of this repository.

    python validation/sas_ovarian.py ROWS.txt

Expected figures: computed from these rows by R pROC and an independent program. In the K-G score
10 - score is taken, and indicator 1 is the positive class.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from side_by_side import Table, not_checked

from renalkit.metrics.auc_inference import Scale, delong, equal_aucs, paired_delong

AREAS = {
    "albumin": (0.736559, 0.092694, 0.5549, 0.9182),
    "K-G": (0.725806, 0.102822, 0.5243, 0.9273),
    "total protein": (0.647849, 0.100047, 0.4518, 0.8439),
}
AGAINST_KG = {
    "albumin": (0.010753, 0.095344, 0.012719, 0.910206),
    "total protein": (-0.077957, 0.104610, 0.555350, 0.456140),
}
Z = 1.959963984540054


def main() -> None:
    if len(sys.argv) != 2:
        not_checked("the rows of the SAS example were not given", "see the head of this script")
    numbers = np.array(Path(sys.argv[1]).read_text(encoding="utf-8").split(), dtype=float)
    rows = numbers.reshape(-1, 4)
    if len(rows) != 43:
        raise SystemExit(f"{len(rows)} rows: expected 43")
    truth = rows[:, 3]
    scores = {"albumin": rows[:, 0], "K-G": 10 - rows[:, 2], "total protein": rows[:, 1]}
    table = Table("DeLong 1988, ovarian cancer: 31 of 43 patients positive")
    for name, expected in AREAS.items():
        e = delong(truth, scores[name], scale=Scale.PLAIN)
        se = (e.high - e.low) / (2 * Z)
        table.add(f"AUC and SE, {name}", expected[:2], [e.value, se], 5e-6)
        table.add(f"interval, {name}", expected[2:], [e.low, e.high], 1e-4)
    for name, expected in AGAINST_KG.items():
        c = paired_delong(truth, scores[name], scores["K-G"])
        se = (c.difference.high - c.difference.low) / (2 * Z)
        ours = [c.difference.value, se, c.statistic**2, c.p_value]
        table.add(f"{name} - K-G: difference, SE, chi-square, p", expected, ours, 5e-5)
    all_three = equal_aucs(
        truth, np.stack([scores["K-G"], scores["albumin"], scores["total protein"]])
    )
    ours = [all_three.statistic, all_three.df, all_three.p_value]
    table.add("all equal: chi-square, df, p", (2.533978, 2, 0.281678), ours, 5e-6)
    table.finish()


if __name__ == "__main__":
    main()
