"""Does it pay to choose the rule and to calibrate on the validation patients of each fold?

Simulated cohorts, 55 % malignant, 12 frames each, scores twice too sure. Either all frames of a
patient tell the same, or one in four tells and the others hover about 0.5. Five folds as an
experiment has them: a fifth is tested, a fifth of the rest is for validation (19 patients of 120,
64 of 400). Figures are of all tested patients of a cohort together, then the mean over cohorts.
Maps are fitted however few the patients are; the least numbers in `metrics/calibrators.py` follow
from this.

    OMP_NUM_THREADS=1 nice python validation/simulate_patient_scores.py [--cohorts 60]

Writes results/patient_scores.json. Ten minutes on one core.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special

from renalkit.domain.prediction import Pooling, Prediction, Rule, SystemRef, Unit, aggregate
from renalkit.domain.sample import SampleKey
from renalkit.metrics.calibrators import NEEDS, Calibration, Needs, fit_calibrator
from renalkit.metrics.classification import auc
from renalkit.metrics.pooling import choose_pooling

RESULTS = Path(__file__).resolve().parent / "results" / "patient_scores.json"
SIZES, KINDS = (120, 400), ("all frames tell", "one in four tells")
FRAMES, FOLDS, MALIGNANT, SEED = 12, 5, 0.55, 6
REF = SystemRef("simulated", "simulated", "0" * 64)
WAYS: dict[str, tuple[Rule | None, Calibration]] = {
    "mean": (Rule.MEAN, Calibration.NONE),
    "attention": (Rule.ATTENTION, Calibration.NONE),
    "validation": (None, Calibration.NONE),
    "mean, temperature": (Rule.MEAN, Calibration.TEMPERATURE),
    "mean, Platt": (Rule.MEAN, Calibration.PLATT),
    "mean, isotonic": (Rule.MEAN, Calibration.ISOTONIC),
    "validation, temperature": (None, Calibration.TEMPERATURE),
}
"""Rule (None: chosen in each fold) and calibration."""

# What a map would do below the numbers of patients that it is kept from.
NEEDS.update({kind: Needs(2, 1) for kind in NEEDS})


def frames_of(rng: np.random.Generator, kind: str, n: int) -> list[list[Prediction]]:
    """The frames of each patient."""
    truth = (rng.random(n) < MALIGNANT).astype(int)
    patients: list[list[Prediction]] = []
    for i, (y, level) in enumerate(zip(truth.tolist(), rng.normal(0, 1, n), strict=True)):
        tells = rng.random(FRAMES) < 0.25 if kind == KINDS[1] else np.ones(FRAMES, dtype=bool)
        effect = 1.6 if kind == KINDS[1] else 0.8
        logit = np.where(tells, effect * (2 * y - 1) + 0.7 * level, 0.3 * level)
        scores = special.expit(2 * (logit + rng.normal(0, 0.4, FRAMES))).tolist()
        name = f"{i:04d}"
        patients.append(
            [
                Prediction(Unit.FRAME, SampleKey(name, name, "", 0, k), (1 - p, p), y, REF, 0)
                for k, p in enumerate(scores)
            ]
        )
    return patients


def tested(
    parts: tuple[list[Prediction], list[Prediction]], way: tuple[Rule | None, Calibration]
) -> tuple[list[int], list[float], Rule]:
    """Truth and score of the tested patients of a fold, and the rule used."""
    validation, test = parts
    rule, asked = way
    pooling = Pooling(rule or Rule.MEAN)
    if rule is None:
        pooling = choose_pooling(validation, pooling).pooling
    elif rule is Rule.ATTENTION:
        pooling = choose_pooling(validation, pooling, (rule,)).pooling
    held, found = (aggregate(p, Unit.PATIENT, pooling) for p in (validation, test))
    truth = np.array([p.target for p in held], dtype=np.intp)
    map_ = fit_calibrator(truth, np.array([p.scores for p in held]), asked)
    scores = map_.apply(np.array([p.scores for p in found]))[:, 1]
    return [p.target or 0 for p in found], scores.tolist(), pooling.rule


def cohort(rng: np.random.Generator, kind: str, n: int) -> tuple[dict[str, Any], Counter[str]]:
    """AUC and log-loss of one cohort for every way, and the rules that were chosen."""
    frames, order = frames_of(rng, kind, n), rng.permutation(n)
    folds = np.array_split(order, FOLDS)
    chosen: Counter[str] = Counter()
    said: dict[str, tuple[list[int], list[float]]] = {name: ([], []) for name in WAYS}
    for test in folds:
        rest = rng.permutation(np.setdiff1d(order, test))
        held = rest[: len(rest) // 5]
        parts = tuple([f for i in part for f in frames[i]] for part in (held, test))
        for name, way in WAYS.items():
            truth, scores, rule = tested((parts[0], parts[1]), way)
            said[name][0].extend(truth)
            said[name][1].extend(scores)
            if name == "validation":
                chosen[rule.value] += 1
    found: dict[str, Any] = {}
    for name, (truth, scores) in said.items():
        t, p = np.array(truth), np.array(scores)
        given = np.maximum(np.where(t == 1, p, 1 - p), 1e-12)
        found[name] = (auc(t, p), float(-np.log(given).mean()))
    return found, chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cohorts", type=int, default=60)
    n_cohorts = parser.parse_args().cohorts
    cells: list[dict[str, Any]] = []
    for kind in KINDS:
        for n in SIZES:
            rng = np.random.default_rng([SEED, n, KINDS.index(kind)])
            runs = [cohort(rng, kind, n) for _ in range(n_cohorts)]
            chosen = sum((c for _, c in runs), Counter[str]())
            print(f"{kind}, {n} patients; chosen: {dict(chosen.most_common())}")
            ways: dict[str, Any] = {}
            for name in WAYS:
                areas, losses = (np.array([r[name][k] for r, _ in runs]) for k in (0, 1))
                ways[name] = {"auc": float(areas.mean()), "log_loss": float(losses.mean())}
                print(f"  {name:24} AUC {areas.mean():.3f}  log-loss {losses.mean():.3f}")
            cells.append(
                {
                    "frames": kind,
                    "patients": n,
                    "chosen": dict(sorted(chosen.items())),
                    "ways": ways,
                }
            )
    found = {"schema": 1, "cohorts": n_cohorts, "seed": SEED, "cells": cells}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
