"""Three real readers of 280 renal tumours: ICC, Bland-Altman and pairwise Dice.

The measurements are KiTS23's annotators (readers.csv of the data folder, see its README). Compared
with the values of that README and, where they can be had otherwise, with NumPy and SciPy alone.

    python validation/check_kits23_readers.py [--data FOLDER] [--out FILE.json]

FOLDER holds kits23_labels/readers.csv; default: the environment variable RENALKIT_DATA.
"""

from __future__ import annotations

import argparse
import json
import os
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from side_by_side import Table, not_checked

from renalkit.domain.prediction import Unit
from renalkit.metrics.agreement import (
    BlandAltman,
    DifferenceScale,
    IccForm,
    bland_altman,
    icc,
    reader_dice,
)
from renalkit.metrics.inference import Estimate
from renalkit.readers.tables import read_table

PUBLISHED = {"tumours": 280, "volume": 0.999, "diameter": 0.999, "dice": 0.959, "lowest": 0.762}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=os.environ.get("RENALKIT_DATA"))
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    given = parser.parse_args()
    file = Path(given.data or ".") / "kits23_labels" / "readers.csv"
    if not file.is_file():
        not_checked(f"{file} is not there", "--data FOLDER, or RENALKIT_DATA=FOLDER")
    rows = [r.values for r in read_table(file).rows if r.values["structure"] == "tumor"]
    patients = np.array([r["case_id"] for r in rows])
    measured = {
        name: np.array([[float(r[f"{column}_r{k}"]) for k in (1, 2, 3)] for r in rows])
        for name, column in (("volume", "vol_ml"), ("diameter", "diam_mm"))
    }
    dice = np.array([[float(r[f"dice_{pair}"]) for pair in (12, 13, 23)] for r in rows])
    table = Table("KiTS23 readers")
    table.add("tumours with three annotations", PUBLISHED["tumours"], len(rows))
    figures: dict[str, Any] = {"tumours": len(rows), "patients": len(set(patients))}
    for name, x in measured.items():
        forms = {form: icc(x, form, Unit.LESION).estimate for form in IccForm}
        value = forms[IccForm.TWO_SINGLE].value
        table.add(f"ICC(2,1) of {name}, as published", PUBLISHED[name], round(value, 3))
        table.add(f"ICC(2,1) of {name}, from a table of variances", _icc_by_anova(x), value, 1e-9)
        figures[name] = {form.value: _shown(e) for form, e in forms.items()}
        figures[name] |= {
            f"reader {b + 1} against {a + 1}, {scale.value}": _limits(
                bland_altman(x[:, a], x[:, b], scale, Unit.LESION)
            )
            for a, b in combinations(range(3), 2)
            for scale in DifferenceScale
        }
        d = x[:, 1] - x[:, 0]
        found = bland_altman(x[:, 0], x[:, 1])
        low, high = stats.t.interval(0.95, d.size - 1, d.mean(), stats.sem(d))
        want = (d.mean(), low, high, d.mean() - stats.norm.ppf(0.975) * d.std(ddof=1))
        ours = (found.bias.value, found.bias.low, found.bias.high, found.lower.value)
        table.add(f"Bland-Altman of {name}, readers 1 and 2, by SciPy", want, ours)
    pooled = reader_dice(dice, patients)
    table.add("mean pairwise Dice over tumours, as published", PUBLISHED["dice"], dice.mean(), 1e-3)
    table.add("lowest pairwise Dice, as published", PUBLISHED["lowest"], pooled.lowest, 1e-3)
    by_patient = np.mean([dice[patients == p].mean() for p in np.unique(patients)])
    table.add("mean over patients", by_patient, pooled.mean.value)
    figures["dice"] = _shown(pooled.mean) | {"lowest": pooled.lowest, "pairs": pooled.pairs}
    if given.out:
        given.out.write_text(json.dumps(figures, indent=1) + "\n")
    for name in measured:
        print(f"{name}: ICC(2,1) {icc(measured[name], IccForm.TWO_SINGLE).estimate.text(5)}")
    print(f"pairwise Dice: {pooled.mean.text(4)}, {pooled.mean.basis}")
    table.finish()


def _icc_by_anova(x: np.ndarray) -> float:
    """ICC(2,1) from SciPy's one-way tables: over cases, and over readers."""
    n, k = x.shape
    total = ((x - x.mean()) ** 2).sum()
    f = stats.f_oneway(*x).statistic  # between cases over within cases
    within = total / (n * (k - 1) + f * (n - 1))
    between = f * within
    readers = n * ((x.mean(axis=0) - x.mean()) ** 2).sum() / (k - 1)
    error = (n * (k - 1) * within - (k - 1) * readers) / ((n - 1) * (k - 1))
    return (between - error) / (between + (k - 1) * error + k * (readers - error) / n)


def _shown(e: Estimate) -> dict[str, Any]:
    return {"value": e.value, "low": e.low, "high": e.high, "n": e.n, "unit": e.unit.word}


def _limits(found: BlandAltman) -> dict[str, Any]:
    assert found.slope is not None
    parts = {"bias": found.bias, "lower": found.lower, "upper": found.upper, "slope": found.slope}
    return {name: _shown(e) for name, e in parts.items()} | {"slope_p": found.slope_p}


if __name__ == "__main__":
    main()
