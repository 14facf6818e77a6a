"""Reader studies against a second implementation, and against RJafroc and MRMCaov.

The second implementation is in this file and shares no code with the project: AUCs by counting
pairs, covariances by leaving out one case after the other, the analysis of variance in plain loops.

RJafroc and MRMCaov print their results on the Van Dyke data (5 readers, 2 arms, 45 + 69 cases).
The ratings are not kept here: RJafroc has them as inst/extdata/includedRocData.imrmc.

    python validation/check_mrmc.py [--van-dyke FILE.imrmc]
"""

from __future__ import annotations

import argparse
import os
from itertools import product
from pathlib import Path

import numpy as np
from scipy import stats
from side_by_side import Table

from renalkit.domain.readings import ReadingValue
from renalkit.metrics.auc_inference import Scale, paired_delong
from renalkit.metrics.mrmc import (
    CovarianceMethod,
    Generalise,
    MrmcPlan,
    MrmcResult,
    model_against_readers,
    obuchowski_rockette,
    one_shot,
)
from renalkit.readers.readings import read_readings

JACKKNIFE = MrmcPlan(covariance=CovarianceMethod.JACKKNIFE)


def second_implementation(truth: list[int], ratings: list[list[list[float]]]) -> dict[str, float]:
    """Obuchowski-Rockette with the jackknife, random readers and cases, two arms."""

    def area(scores: list[float], out: int | None) -> float:
        won = pairs = 0.0
        for i, (t, s) in enumerate(zip(truth, scores, strict=True)):
            for k, (u, r) in enumerate(zip(truth, scores, strict=True)):
                if t == 1 and u == 0 and out not in (i, k):
                    pairs += 1
                    won += 1.0 if s > r else 0.5 if s == r else 0.0
        return won / pairs

    n, n_arms, n_readers = len(truth), len(ratings), len(ratings[0])
    cells = list(product(range(n_arms), range(n_readers)))
    full = {c: area(ratings[c[0]][c[1]], None) for c in cells}
    left = {c: [area(ratings[c[0]][c[1]], k) for k in range(n)] for c in cells}
    mean = {c: sum(left[c]) / n for c in cells}
    sums = {"var": [], "cov1": [], "cov2": [], "cov3": []}
    for c, d in product(cells, cells):
        covariance = sum(
            (x - mean[c]) * (y - mean[d]) for x, y in zip(left[c], left[d], strict=True)
        ) * ((n - 1) / n)
        same_arm, same_reader = c[0] == d[0], c[1] == d[1]
        name = (
            ("var" if same_reader else "cov2") if same_arm else ("cov1" if same_reader else "cov3")
        )
        sums[name].append(covariance)
    pooled = {name: sum(values) / len(values) for name, values in sums.items()}
    grand = sum(full.values()) / len(full)
    arm = [sum(full[i, j] for j in range(n_readers)) / n_readers for i in range(n_arms)]
    reader = [sum(full[i, j] for i in range(n_arms)) / n_arms for j in range(n_readers)]
    ms_arms = n_readers * sum((a - grand) ** 2 for a in arm) / (n_arms - 1)
    ms_both = sum((full[i, j] - arm[i] - reader[j] + grand) ** 2 for i, j in cells)
    ms_both /= (n_arms - 1) * (n_readers - 1)
    d = ms_both + n_readers * max(pooled["cov2"] - pooled["cov3"], 0)
    df = d**2 * (n_arms - 1) * (n_readers - 1) / ms_both**2
    error = (2 * d / n_readers) ** 0.5
    half = float(stats.t.ppf(0.975, df)) * error
    return {
        **pooled,
        "difference": arm[0] - arm[1],
        "low": arm[0] - arm[1] - half,
        "high": arm[0] - arm[1] + half,
        "F": ms_arms / d,
        "df": df,
        "p": float(stats.f.sf(ms_arms / d, n_arms - 1, df)),
    }


def ours(truth: np.ndarray, ratings: np.ndarray) -> dict[str, float]:
    r = obuchowski_rockette(truth, ratings, JACKKNIFE)
    c = r.contrasts[0]
    parts = r.components
    return {
        "var": parts.variance,
        "cov1": parts.cov1,
        "cov2": parts.cov2,
        "cov3": parts.cov3,
        "difference": c.difference.value,
        "low": c.difference.low,
        "high": c.difference.high,
        "F": r.f,
        "df": r.df2,
        "p": r.p_value,
    }


def study(seed: int, readers: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.repeat([0, 1], [n - n // 2, n // 2]))
    x = 1.2 * truth + rng.normal(size=n) + 0.6 * rng.normal(size=(2, readers, n))
    x = x + 0.4 * rng.normal(size=(2, 1, n)) + 0.4 * truth * rng.normal(size=(2, readers, 1))
    return truth, np.round(x, 1)


def by_second_implementation(table: Table) -> None:
    for seed, readers, n in ((1, 2, 20), (2, 3, 24), (3, 5, 30)):
        truth, x = study(seed, readers, n)
        want = second_implementation(truth.tolist(), x.tolist())
        found = ours(truth, x)
        name = f"second implementation, {readers} readers x {n} cases, 10 figures"
        table.add(name, list(want.values()), list(found.values()), 1e-9)


def special_cases(table: Table) -> None:
    truth, x = study(4, 1, 40)
    fixed = MrmcPlan(to=Generalise.CASES)
    c, d = obuchowski_rockette(truth, x, fixed).contrasts[0], paired_delong(truth, *x[:, 0])
    want = (d.statistic, d.p_value, d.difference.low, d.difference.high)
    found = (c.statistic, c.p_value, c.difference.low, c.difference.high)
    table.add("one fixed reader is DeLong's paired test", want, found)
    truth, x = study(5, 4, 40)
    c = obuchowski_rockette(truth, np.stack([x[0], x[0]])).contrasts[0]
    table.add("identical arms: difference, p", (0, 1), (c.difference.value, c.p_value))
    unbiased = MrmcPlan(covariance=CovarianceMethod.UNBIASED)
    c, d = obuchowski_rockette(truth, x, unbiased).contrasts[0], one_shot(truth, x).contrasts[0]
    table.add(
        "U-statistic and Obuchowski-Rockette with unbiased covariances",
        (c.statistic, c.df, c.p_value),
        (d.statistic, d.df, d.p_value),
    )
    m = model_against_readers(truth, x[0, 0], np.repeat(x[1, :1], 3, axis=0), fixed)
    d = paired_delong(truth, x[0, 0], x[1, 0])
    table.add(
        "a model against copies of one fixed reader is DeLong's paired test",
        (d.statistic, d.p_value),
        (m.statistic, m.p_value),
    )


# As printed by RJafroc (book "RJafrocRocBook", chapter on the OR method, dataset02) with the
# jackknife, and by MRMCaov.m 0.2 (README, VanDyke) with unbiased covariances.
RJAFROC = {
    "figures": (
        *(0.91964573, 0.85877617, 0.90386473, 0.97310789, 0.82979066),
        *(0.94782609, 0.90531401, 0.92173913, 0.99935588, 0.92995169),
    ),
    "mean squares": (0.00479617053, 0.00383619999, 0.00055103062),
    "covariances": (0.00080228827, 0.00034661371, 0.00034407483, 0.00023902837),
    Generalise.READERS_AND_CASES: (
        *(4.4563187, 15.259674, 0.051665686, -0.043800322, -0.087959499, 0.00035885444),
        *(0.82522360, 0.96885048, 0.89413783, 0.98753689),
    ),
    Generalise.CASES: (
        *(5.4759532, np.inf, 0.019279843, -0.043800322, -0.080485914, -0.0071147303),
        *(0.84943008, 0.94464399, 0.90795637, 0.97371835),
    ),
    Generalise.READERS: (
        *(8.704, 4, 0.041958752, -0.043800322, -0.085020224, -0.0025804202),
        *(0.82809808, 0.96597599, 0.89598936, 0.98568536),
    ),
}
MRMCAOV = {
    "covariances": (0.00078839, 0.00034167, 0.00033906, 0.00023561),
    "test": (4.4896, 15.034, 0.051162, -0.0438, -0.087852, 0.0002513),
    "arms": (0.82535, 0.96872, 0.89423, 0.98744),
}


def _row(r: MrmcResult) -> list[float]:
    c = r.contrasts[0].difference
    arms = [v for a in r.arms for v in (a.low, a.high)]
    return [r.f, r.df2, r.p_value, c.value, c.low, c.high, *arms]


def van_dyke(table: Table, path: Path) -> None:
    readings = read_readings(path)
    truth, x = readings.truths(), readings.values(ReadingValue.SCORE)
    for to in Generalise:
        plan = MrmcPlan(covariance=CovarianceMethod.JACKKNIFE, to=to, scale=Scale.PLAIN)
        r = obuchowski_rockette(truth, x, plan)
        want, found = RJAFROC[to], _row(r)
        kept = [i for i, v in enumerate(want) if np.isfinite(v)]
        name = f"RJafroc, {to.value}: F, df, p, difference, intervals"
        table.add(name, [want[i] for i in kept], [found[i] for i in kept], 1e-6)
    p = r.components
    table.add("RJafroc, ten AUCs", RJAFROC["figures"], r.figures.ravel(), 1e-7)
    ours = (p.ms_arms, p.ms_readers, p.ms_interaction)
    table.add("RJafroc, mean squares", RJAFROC["mean squares"], ours, 1e-6)
    ours = (p.variance, p.cov1, p.cov2, p.cov3)
    table.add("RJafroc, jackknife covariances", RJAFROC["covariances"], ours, 1e-6)
    plan = MrmcPlan(covariance=CovarianceMethod.UNBIASED, scale=Scale.PLAIN)
    unbiased = obuchowski_rockette(truth, x, plan)
    p, row = unbiased.components, _row(unbiased)
    ours = (p.variance, p.cov1, p.cov2, p.cov3)
    table.add("MRMCaov, unbiased covariances", MRMCAOV["covariances"], ours, 2e-5)
    table.add("MRMCaov: F, df, p, difference, interval", MRMCAOV["test"], row[:6], 3e-5)
    table.add("MRMCaov: intervals of the arms", MRMCAOV["arms"], row[6:], 1e-5)
    u = one_shot(truth, x, scale=Scale.PLAIN)
    c = u.contrasts[0]
    ours = [
        c.statistic**2,
        c.df,
        c.p_value,
        c.difference.value,
        c.difference.low,
        c.difference.high,
    ]
    table.add("the same by the U-statistic", MRMCAOV["test"], ours, 3e-5)
    arms = [v for a in u.arms for v in (a.low, a.high)]
    table.add("U-statistic: intervals of the arms", MRMCAOV["arms"], arms, 1e-5)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--van-dyke", type=Path, default=os.environ.get("RENALKIT_VAN_DYKE"))
    path = parser.parse_args().van_dyke
    table = Table("Reader studies")
    by_second_implementation(table)
    special_cases(table)
    if path is None:
        print("NOT CHECKED: RJafroc and MRMCaov on the Van Dyke data\n  to check: --van-dyke FILE")
    else:
        van_dyke(table, Path(path))
    table.finish()


if __name__ == "__main__":
    main()
