"""Which 95 % interval of a macro AUC covers in 95 % of cohorts when a patient has many frames?

As `coverage_auc.py`, with three classes (50, 30 and 20 % of the patients) and a score for each: the
score of the own class is higher by mu, so that all three AUCs against the rest are one number in
closed form, for patient means as for frames. The scores of a patient correlate by 0.3.

    OMP_NUM_THREADS=1 nice python validation/coverage_macro.py [--cohorts 2000]

Writes results/coverage_macro.json; a few minutes. The bootstrap draws 300 resamples.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
from coverage_auc import (
    AUCS,
    FRAME_SD,
    FRAMES,
    PATIENTS,
    RESAMPLES,
    auc_of_frames,
    shift_for,
)

from renalkit.errors import StatisticUndefined
from renalkit.metrics.auc_inference import Scale, mean_auc
from renalkit.metrics.bootstrap import Auc, BootstrapPlan, MeanOfStatistics, cluster_bootstrap
from renalkit.metrics.inference import Estimate, clopper_pearson

RESULTS = Path(__file__).resolve().parent / "results" / "coverage_macro.json"
SHARES, CORRELATION, SEED = (0.5, 0.3, 0.2), 0.3, 2001
Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]


def draw(rng: np.random.Generator, n: int, mu: float) -> Arrays:
    """Class of each patient (n,), scores of its frames (rows, 3), patient of each row (rows,)."""
    of_patient = np.repeat(np.arange(3), [round(share * n) for share in SHARES])
    patient = np.repeat(np.arange(n), rng.integers(FRAMES[0], FRAMES[1] + 1, n))
    shared = np.sqrt(CORRELATION) * rng.normal(size=(n, 1))
    level = mu * np.eye(3)[of_patient] + shared
    level = level + np.sqrt(1 - CORRELATION) * rng.normal(size=(n, 3))
    return of_patient, level[patient] + FRAME_SD * rng.normal(size=(patient.size, 3)), patient


def intervals(cohort: Arrays, seed: int) -> Iterator[tuple[str, Estimate | None]]:
    """Every method's interval; those of frames ask for the AUC of frames."""
    of_patient, scores, patient = cohort
    sums = np.stack([np.bincount(patient, column) for column in scores.T], axis=1)
    means = sums / np.bincount(patient)[:, None]
    for unit, truth, x, groups in (
        ("patient means", of_patient, means, np.arange(len(means))),
        ("frames", of_patient[patient], scores, patient),
    ):
        parts = [((truth == k).astype(int), x[:, k]) for k in range(3)]
        source = "Obuchowski" if unit == "frames" else "DeLong"
        patients = groups if unit == "frames" else None
        for scale in (Scale.PLAIN, Scale.LOGIT):
            yield f"{source} on {unit}, {scale.value}", mean_auc(parts, patients, scale=scale)
        mean = MeanOfStatistics(tuple(Auc(t, s) for t, s in parts))
        try:
            resampled = cluster_bootstrap(mean, groups, BootstrapPlan(RESAMPLES, seed))
        except StatisticUndefined:
            resampled = None
        yield f"bootstrap percentile, {unit}", resampled


def cell(n: int, auc: float, cohorts: int) -> dict[str, object]:
    """Shares of cohorts whose interval holds the truth, with exact Monte-Carlo intervals."""
    mu = shift_for(auc)
    rng = np.random.default_rng([SEED, n, round(1000 * auc)])
    held: Counter[str] = Counter()
    width: Counter[str] = Counter()
    for _ in range(cohorts):
        cohort = draw(rng, n, mu)
        for name, found in intervals(cohort, int(rng.integers(2**31))):
            true = auc_of_frames(mu) if "frames" in name else auc
            held[name] += int(found is not None and found.low <= true <= found.high)
            width[name] += 0.0 if found is None else found.high - found.low
    covered = {}
    for name, k in held.items():
        low, high = (round(v, 5) for v in clopper_pearson(k, cohorts))
        mean_width = round(width[name] / cohorts, 5)
        covered[name] = {"share": k / cohorts, "low": low, "high": high, "mean_width": mean_width}
    return {"patients": n, "auc": auc, "cohorts": cohorts, "covered": covered}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cohorts", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    cells = []
    for n, auc in product(PATIENTS, AUCS):
        cells.append(cell(n, auc, given.cohorts))
        print(f"{n} patients, AUC {auc}")
        for name, of in cells[-1]["covered"].items():
            print(f"  {name:38}{of['share']:.4f}  width {of['mean_width']:.3f}", flush=True)
    settings = {"seed": SEED, "shares": SHARES, "correlation": CORRELATION, "resamples": RESAMPLES}
    given.out.write_text(json.dumps({"settings": settings, "cells": cells}, indent=1) + "\n")


if __name__ == "__main__":
    main()
