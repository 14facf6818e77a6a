"""Which 95 % interval of an AUC covers in 95 % of cohorts when a patient has many frames?

Simulated cohorts after the known answer of Obuchowski's variance: a patient's level is N(mu y, 1),
every frame adds N(0, 0.7), and patients have 5 to 20 frames, as many as chance gives them. 40 % of
the patients are positive; mu is chosen so that the mean score of a patient has the AUC of the cell.
Each interval is held to the truth of its own question, both in closed form: the AUC of patient
means, or the lower one of frames. Two systems of equal AUC, whose patient levels and frame noise
correlate by 0.5, show whether the paired tests hold 5 %.

    OMP_NUM_THREADS=1 nice python validation/coverage_auc.py [--cohorts 2000] [--processes 2]
    python validation/coverage_auc.py --draw      # docs/images/coverage-auc.png from the figures

Blocks of cohorts are written as they end; a second call takes up where the first stopped. The
bootstrap draws 300 resamples per cohort; B resamples cover by a factor of about 1 - 2/B less than
infinitely many, so that 0.6 points may be added to its rows.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr

from renalkit.domain.prediction import Unit
from renalkit.errors import StatisticUndefined
from renalkit.metrics.auc_inference import (
    Scale,
    clustered_auc,
    delong,
    paired_clustered_auc,
    paired_delong,
    patient_means,
)
from renalkit.metrics.bootstrap import Auc, BootstrapPlan, IntervalMethod, resample
from renalkit.metrics.comparisons import PermutationPlan, auc_permutation_test
from renalkit.metrics.inference import Estimate, clopper_pearson

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "coverage_auc.json"
FIGURE = HERE.parent / "docs" / "images" / "coverage-auc.png"

PATIENTS, AUCS = (50, 100, 200), (0.75, 0.9)
FRAMES, FRAME_SD, CORRELATION, POSITIVE = (5, 20), 0.7, 0.5, 0.4
RESAMPLES, EXCHANGES, BLOCK = 300, 499, 250
SEED = 1997

FRAME_METHODS = (
    "DeLong on frames (naive)",
    "Obuchowski",
    "Obuchowski, logit",
    "bootstrap percentile, frames",
    "bootstrap BCa, frames",
)
PATIENT_METHODS = (
    "DeLong on patient means",
    "DeLong on patient means, logit",
    "bootstrap percentile, patient means",
    "bootstrap BCa, patient means",
)
TESTS = (
    "DeLong on frames (naive)",
    "DeLong on patient means",
    "Obuchowski",
    "permutation, frames",
    "permutation, patient means",
)


def auc_of_means(mu: float) -> float:
    """AUC of patient means over the random numbers of frames of both patients."""
    own = FRAME_SD**2 / np.arange(FRAMES[0], FRAMES[1] + 1)
    return float(ndtr(mu / np.sqrt(2 + own[:, None] + own)).mean())


def auc_of_frames(mu: float) -> float:
    return float(ndtr(mu / np.sqrt(2 * (1 + FRAME_SD**2))))


def shift_for(auc: float) -> float:
    return float(brentq(lambda mu: auc_of_means(mu) - auc, 0.01, 10))


def draw(rng: np.random.Generator, n: int, mu: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """truth (rows,), scores of two systems (2, rows), patient of each row (rows,)."""
    positive = np.arange(n) < round(POSITIVE * n)
    patient = np.repeat(np.arange(n), rng.integers(FRAMES[0], FRAMES[1] + 1, n))

    def pair(size: int) -> np.ndarray:
        shared = np.sqrt(CORRELATION) * rng.normal(size=size)
        return shared + np.sqrt(1 - CORRELATION) * rng.normal(size=(2, size))

    level = mu * positive + pair(n)
    scores = level[:, patient] + FRAME_SD * pair(patient.size)
    return positive[patient].astype(int), scores, patient


def intervals(
    truth: np.ndarray, scores: np.ndarray, patient: np.ndarray, seed: int
) -> Iterator[tuple[str, Estimate | None]]:
    """Every method's interval of one system, None where the method has none."""
    of_patient, means = patient_means(truth, scores, patient)
    of_patient = of_patient.astype(int)
    yield FRAME_METHODS[0], delong(truth, scores, Unit.PATIENT, scale=Scale.PLAIN)
    yield FRAME_METHODS[1], clustered_auc(truth, scores, patient, scale=Scale.PLAIN)
    yield FRAME_METHODS[2], clustered_auc(truth, scores, patient)
    yield PATIENT_METHODS[0], delong(of_patient, means, scale=Scale.PLAIN)
    yield PATIENT_METHODS[1], delong(of_patient, means)
    plan = BootstrapPlan(RESAMPLES, seed, IntervalMethod.BCA)
    statistics = (
        (FRAME_METHODS[3:], Auc(truth, scores), patient),
        (PATIENT_METHODS[2:], Auc(of_patient, means), np.arange(means.size)),
    )
    for (percentile, bca), statistic, groups in statistics:
        drawn = resample((statistic,), groups, plan)[0]
        for name, one in ((percentile, replace(drawn, without=None)), (bca, drawn)):
            try:
                yield name, one.estimate()
            except StatisticUndefined:
                yield name, None


def p_values(
    truth: np.ndarray, scores: np.ndarray, patient: np.ndarray, seed: int
) -> Iterator[tuple[str, float]]:
    """Every paired test of the two systems."""
    of_patient = patient_means(truth, scores[0], patient)[0].astype(int)
    a, b = (patient_means(truth, s, patient)[1] for s in scores)
    plan = PermutationPlan(EXCHANGES, seed)
    yield TESTS[0], paired_delong(truth, scores[0], scores[1]).p_value
    yield TESTS[1], paired_delong(of_patient, a, b).p_value
    yield TESTS[2], paired_clustered_auc(truth, (scores[0], scores[1]), patient).p_value
    yield TESTS[3], auc_permutation_test(truth, scores[0], scores[1], patient, plan).p_value
    yield TESTS[4], auc_permutation_test(of_patient, a, b, np.arange(a.size), plan).p_value


def simulate(n: int, auc: float, block: int, cohorts: int) -> dict[str, dict[str, float]]:
    """Sums over the cohorts of one block; the block's number is part of the seed."""
    mu = shift_for(auc)
    rng = np.random.default_rng([SEED, n, round(1000 * auc), block])
    sums: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for _ in range(cohorts):
        truth, scores, patient = draw(rng, n, mu)
        seed = int(rng.integers(2**31))
        for name, found in intervals(truth, scores[0], patient, seed):
            true = auc_of_frames(mu) if name in FRAME_METHODS else auc
            sums[name]["cohorts"] += 1
            if found is None:
                sums[name]["undefined"] += 1
                continue
            sums[name]["below"] += found.high < true
            sums[name]["above"] += found.low > true
            sums[name]["width"] += found.high - found.low
            sums[name]["value"] += found.value
        for name, p in p_values(truth, scores, patient, seed):
            sums["test: " + name]["cohorts"] += 1
            sums["test: " + name]["rejected"] += p < 0.05
    return {name: dict(of) for name, of in sums.items()}


def summary(sums: dict[str, dict[str, float]], mu: float, auc: float) -> dict[str, Any]:
    """Shares with exact 95 % Monte-Carlo intervals; an undefined interval does not cover."""
    covered, rejected = {}, {}
    for name, of in sums.items():
        n = int(of["cohorts"])
        if name.startswith("test: "):
            k = int(of["rejected"])
            low, high = clopper_pearson(k, n)
            rejected[name.removeprefix("test: ")] = {
                "share": k / n,
                "low": round(low, 5),
                "high": round(high, 5),
            }
            continue
        undefined, below, above = (int(of.get(k, 0)) for k in ("undefined", "below", "above"))
        k = n - undefined - below - above
        low, high = clopper_pearson(k, n)
        covered[name] = {
            "true": round(auc_of_frames(mu) if name in FRAME_METHODS else auc, 5),
            "mean_value": round(of["value"] / (n - undefined), 5),
            "share": k / n,
            "low": round(low, 5),
            "high": round(high, 5),
            "below": below / n,
            "above": above / n,
            "undefined": undefined,
            "mean_width": round(of["width"] / (n - undefined), 5),
        }
    return {"covered": covered, "rejected": rejected}


def nearest(cells: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Per method: root mean square and largest distance from 95 % over all cells."""
    names = FRAME_METHODS + PATIENT_METHODS
    found = {}
    for name in names:
        apart = np.array([c["covered"][name]["share"] - 0.95 for c in cells])
        found[name] = {
            "rms_distance": round(float(np.sqrt((apart**2).mean())), 5),
            "least": round(float(apart.min()) + 0.95, 5),
            "most": round(float(apart.max()) + 0.95, 5),
            "cells_within_93_97": int((np.abs(apart) <= 0.02 + 1e-12).sum()),
        }
    return found


def write(path: Path, record: dict[str, Any]) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(record, indent=1) + "\n")
    part.replace(path)


def key_of(n: int, auc: float) -> str:
    return f"{n} patients, AUC {auc}"


def run(cohorts: int, processes: int, out: Path) -> dict[str, Any]:
    settings = {
        "seed": SEED,
        "frames_per_patient": FRAMES,
        "frame_sd": FRAME_SD,
        "correlation_of_systems": CORRELATION,
        "share_positive": POSITIVE,
        "resamples": RESAMPLES,
        "exchanges": EXCHANGES,
        "cohorts_per_block": BLOCK,
    }
    settings = json.loads(json.dumps(settings))
    record: dict[str, Any] = {"settings": settings, "blocks": {}}
    if out.is_file():
        record = json.loads(out.read_text())
        if record["settings"] != settings:
            raise SystemExit(f"{out} is of other settings: move it away to start anew")
    blocks = record["blocks"]
    cells = list(product(PATIENTS, AUCS))
    wanted = [(n, a, b) for b in range(-(-cohorts // BLOCK)) for n, a in cells]
    todo = [w for w in wanted if str(w[2]) not in blocks.get(key_of(*w[:2]), {})]
    started = time.perf_counter()
    with ProcessPoolExecutor(processes) as pool:
        running = {pool.submit(simulate, *w, BLOCK): w for w in todo}
        for k, done in enumerate(as_completed(running), 1):
            n, auc, block = running[done]
            blocks.setdefault(key_of(n, auc), {})[str(block)] = done.result()
            write(out, record)
            print(f"{k} of {len(todo)} blocks, {time.perf_counter() - started:.0f} s", flush=True)
    record["cells"] = []
    for n, auc in cells:
        sums: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        for of_block in blocks[key_of(n, auc)].values():
            for name, of in of_block.items():
                for what, value in of.items():
                    sums[name][what] += value
        mu = shift_for(auc)
        head = {"patients": n, "auc": auc, "mu": round(mu, 5)}
        head["cohorts"] = BLOCK * len(blocks[key_of(n, auc)])
        record["cells"].append(head | summary(sums, mu, auc))
    record["overall"] = nearest(record["cells"])
    write(out, record)
    return record


def show(record: dict[str, Any]) -> None:
    cells = record["cells"]
    width = max(len(n) for n in FRAME_METHODS + PATIENT_METHODS)
    for kind, names in (
        ("covered", FRAME_METHODS + PATIENT_METHODS),
        ("mean_width", FRAME_METHODS + PATIENT_METHODS),
        ("rejected", TESTS),
    ):
        heads = "".join(f"{c['patients']:>8}/{c['auc']:<5}" for c in cells)
        print(f"\n{kind:{width}}{heads}")
        for name in names:
            row = [c["rejected" if kind == "rejected" else "covered"][name] for c in cells]
            what = "mean_width" if kind == "mean_width" else "share"
            print(f"{name:{width}}" + "".join(f"{r[what]:>11.4f}   " for r in row))
    print()
    for name, of in record["overall"].items():
        print(
            f"{name:{width}}  {of['least']:.4f} to {of['most']:.4f}, "
            f"rms distance from 0.95 {of['rms_distance']:.4f}, "
            f"{of['cells_within_93_97']} of {len(cells)} cells within 93-97 %"
        )


def draw_figure(record: dict[str, Any]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    cells = record["cells"]
    fig, (left, right) = plt.subplots(1, 2, figsize=(12, 4.8), gridspec_kw={"wspace": 0.7})
    panels = (
        (left, "covered", FRAME_METHODS[1:] + PATIENT_METHODS, 0.95, (0.93, 0.97)),
        (right, "rejected", TESTS[1:], 0.05, (0.04, 0.06)),
    )
    for axis, kind, names, aim, band in panels:
        axis.axvspan(*band, color="0.92")
        axis.axvline(aim, color="0.4", linewidth=0.8)
        for k, cell in enumerate(cells):
            rows = [cell[kind][name] for name in names]
            x = np.array([r["share"] for r in rows])
            error = np.array([[r["share"] - r["low"], r["high"] - r["share"]] for r in rows]).T
            y = np.arange(len(names)) + 0.12 * (k - 2.5)
            colour = ("#1b6ca8", "#c25b12")[AUCS.index(cell["auc"])]
            marker = "osD"[PATIENTS.index(cell["patients"])]
            label = f"{cell['patients']} patients, AUC {cell['auc']}"
            axis.errorbar(
                x, y, xerr=error, fmt=marker, color=colour, markersize=4, lw=0.8, label=label
            )
        axis.set_yticks(range(len(names)), names)
        axis.invert_yaxis()
    naive = [c["covered"][FRAME_METHODS[0]]["share"] for c in cells]
    false = [c["rejected"][TESTS[0]]["share"] for c in cells]
    left.set_xlabel("share of cohorts whose 95 % interval holds the true AUC")
    left.set_title(
        f"Naive DeLong on frames: {min(naive):.0%} to {max(naive):.0%}, not drawn", fontsize=10
    )
    right.set_xlabel("share of cohorts in which equal systems differ at 5 %")
    right.set_title(
        f"Naive paired DeLong: {min(false):.0%} to {max(false):.0%}, not drawn", fontsize=10
    )
    handles, labels = left.get_legend_handles_labels()
    fig.legend(handles, labels, ncol=6, fontsize=8, loc="upper center", frameon=False)
    fig.savefig(FIGURE, dpi=110, bbox_inches="tight")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cohorts", type=int, default=2000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--draw", action="store_true")
    given = parser.parse_args()
    if given.draw:
        draw_figure(json.loads(given.out.read_text()))
        return
    show(run(given.cohorts, given.processes, given.out))


if __name__ == "__main__":
    main()
