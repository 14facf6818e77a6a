"""Does a comparison of two arms hold its 5 % level when readers and cases are samples?

Roe and Metz 1997, Acad Radiol 4:298: decision variables with effects of reader, case, reader x
case and all of these x arm, equal variances. There is no difference between the arms, so a test at
5 % should reject in 5 % of studies; and the interval of one arm's mean AUC should cover the AUC of
the model, Phi(mu / sqrt(2 (1 + 2 reader variance))), in 95 %.

    nice -n 10 python validation/simulate_mrmc.py [--studies 2000] [--out results/mrmc_level.json]

The tests that take readers (or cases) as fixed are shown to reject too often, which is why they
are not the default. Hillis and Berbaum 2005, Acad Radiol 12:1534, found the levels of the
closely related DBM test over 144 such settings to span 0.05, with a standard deviation of 0.011:
with few readers it holds 5 % on average, not in every setting.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path

import numpy as np
from scipy.stats import norm

from renalkit.metrics.auc_inference import Scale
from renalkit.metrics.mrmc import (
    CovarianceMethod,
    Generalise,
    MrmcPlan,
    obuchowski_rockette,
    one_shot,
)

# Variances of case, arm x case, reader x case and the rest (sum 1); Roe and Metz 1997, table 1.
CASES = {"H": (0.3, 0.3, 0.2, 0.2), "L": (0.1, 0.1, 0.2, 0.6)}
# Variance of reader, and of arm x reader: small for every AUC, or large (by mu).
MU = {0.702: 0.75, 0.855: 1.5, 0.961: 2.5}
READERS = {
    "L": {0.75: 0.0055, 1.5: 0.0055, 2.5: 0.0055},
    "H": {0.75: 0.011, 1.5: 0.030, 2.5: 0.056},
}
SIZES = ((3, 40, 40), (6, 100, 81))

PLANS = {
    "random readers and cases, DeLong": MrmcPlan(),
    "random readers and cases, jackknife": MrmcPlan(covariance=CovarianceMethod.JACKKNIFE),
    "random readers and cases, DeLong, plain intervals": MrmcPlan(scale=Scale.PLAIN),
    "fixed readers, DeLong": MrmcPlan(to=Generalise.CASES),
    "fixed cases": MrmcPlan(to=Generalise.READERS),
}
U = "random readers and cases, U-statistic"
# What is shown to fail needs fewer studies: every fourth.
FAILING = {"fixed readers, DeLong": 4, "fixed cases": 4}


def draw(
    rng: np.random.Generator, sizes: tuple[int, int, int], mu: float, variances: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Truth (n,) and ratings (2, J, n) of one study without a difference between the arms."""
    readers, n_pos, n_neg = sizes
    reader, arm_reader, case, arm_case, reader_case, rest = np.sqrt(variances)
    truth = np.repeat([1, 0], [n_pos, n_neg])
    n = truth.size

    def of_readers(*shape: int) -> np.ndarray:
        """Effects of readers differ between the two states of truth."""
        return rng.normal(size=(*shape, readers, 2))[..., truth]

    x = mu * truth + reader * of_readers(1) + arm_reader * of_readers(2)
    x = x + case * rng.normal(size=n) + arm_case * rng.normal(size=(2, 1, n))
    x = x + reader_case * rng.normal(size=(readers, n)) + rest * rng.normal(size=(2, readers, n))
    return truth, x


def simulate(
    case: str, reader: str, mu: float, sizes: tuple[int, int, int], studies: int, seed: int
):
    of_reader = READERS[reader][mu]
    variances = (of_reader, of_reader, *CASES[case])
    true_auc = float(norm.cdf(mu / np.sqrt(2 * (1 + 2 * of_reader))))
    rejected, covered = dict.fromkeys([*PLANS, U], 0), dict.fromkeys([*PLANS, U], 0)
    rng, mean = np.random.default_rng(seed), 0.0
    for k in range(studies):
        truth, x = draw(rng, sizes, mu, variances)
        for name, plan in PLANS.items():
            if k % FAILING.get(name, 1):
                continue
            found = obuchowski_rockette(truth, x, plan)
            rejected[name] += found.contrasts[0].p_value < 0.05
            covered[name] += found.arms[0].low <= true_auc <= found.arms[0].high
        u = one_shot(truth, x)
        mean += u.arms[0].value / studies
        rejected[U] += u.contrasts[0].p_value < 0.05
        covered[U] += u.arms[0].low <= true_auc <= u.arms[0].high
    return {
        "structure": case + reader,
        "readers": sizes[0],
        "positive": sizes[1],
        "negative": sizes[2],
        "true_auc": round(true_auc, 4),
        "mean_auc": round(mean, 4),
        "rejected": {name: n / -(-studies // FAILING.get(name, 1)) for name, n in rejected.items()},
        "covered": {name: n / -(-studies // FAILING.get(name, 1)) for name, n in covered.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1997)
    here = Path(__file__).parent
    parser.add_argument("--out", type=Path, default=here / "results" / "mrmc_level.json")
    given = parser.parse_args()
    rows = []
    settings = list(product(SIZES, MU.values(), CASES, READERS))
    for k, (sizes, mu, case, reader) in enumerate(settings):
        row = simulate(case, reader, mu, sizes, given.studies, given.seed + k)
        rows.append(row)
        shares = "  ".join(f"{v:.3f}" for v in row["rejected"].values())
        print(
            f"{row['structure']} {sizes} AUC {row['true_auc']:.3f}: rejected {shares}", flush=True
        )
    names = [*PLANS, U]
    summary = {
        kind: {
            name: {
                "mean": float(np.mean([r[kind][name] for r in rows])),
                "least": min(r[kind][name] for r in rows),
                "most": max(r[kind][name] for r in rows),
            }
            for name in names
        }
        for kind in ("rejected", "covered")
    }
    error = (0.05 * 0.95 / given.studies) ** 0.5
    record = {
        "studies_per_setting": given.studies,
        "seed": given.seed,
        "standard_error_of_a_share": round(error, 5),
        "summary": summary,
        "settings": rows,
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(record, indent=1) + "\n")
    for kind, of_method in summary.items():
        for name, s in of_method.items():
            print(f"{kind} {name}: mean {s['mean']:.4f}, {s['least']:.4f} to {s['most']:.4f}")


if __name__ == "__main__":
    main()
