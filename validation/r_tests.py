"""McNemar, Wilcoxon, adjusted p-values and calibration slopes against R.

Needs R with the package sandwich (Debian: r-base-core, r-cran-sandwich) for the cluster-robust
variance; everything else is base R.

    python validation/r_tests.py
"""

from __future__ import annotations

import numpy as np
from side_by_side import Table, r_vector, run_r

from renalkit.metrics.calibration import recalibration
from renalkit.metrics.comparisons import McNemar, PairedCalls, mcnemar, wilcoxon_signed_rank
from renalkit.metrics.inference import Estimate, clopper_pearson, wilson
from renalkit.metrics.multiplicity import benjamini_hochberg, holm

Z = 1.959963984540054
CALLS = ((794, 150, 86, 570), (1, 1, 7, 12), (40, 6, 6, 9), (20, 0, 9, 3))
COUNTS = ((0, 12), (7, 40), (33, 33))


def simulated() -> dict[str, np.ndarray]:
    """150 patients x 4 frames with predictions that are too extreme; pairs with and without ties.

    The ties are exact in doubles (eighths): R ranks 0.3 - 0.2 and 0.2 - 0.1 as different.
    """
    rng = np.random.default_rng(20)
    groups = np.repeat(np.arange(150), 4)
    logit = 1.3 * rng.normal(size=150)
    truth = (rng.random(150) < 1 / (1 + np.exp(-logit)))[groups]
    x = 0.3 + 1.6 * logit[groups] + 0.5 * rng.normal(size=600)
    return {
        "groups": groups,
        "truth": truth.astype(float),
        "x": x,
        "a30": rng.normal(0.2, 1, 30),
        "b30": rng.normal(size=30),
        "a300": (8 * rng.normal(0.1, 1, 300)).round() / 8,
        "b300": (8 * rng.normal(size=300)).round() / 8,
        "p": rng.random(25) ** 2,
    }


def script(data: dict[str, np.ndarray]) -> str:
    lines = [f"{name} <- {r_vector(values)}" for name, values in data.items()]
    lines += [
        'out("holm", p.adjust(p, "holm"))',
        'out("bh", p.adjust(p, "BH"))',
        "w <- wilcox.test(a30, b30, paired = TRUE, conf.int = TRUE)",
        'out("w30", c(w$statistic, w$p.value, w$estimate, w$conf.int))',
        "w <- suppressWarnings(wilcox.test(a300, b300, paired = TRUE))",
        'out("w300", c(w$statistic, w$p.value))',
        "first <- !duplicated(groups)",
        "for (some in list(rows = rep(TRUE, 600), patients = first)) {",
        "  n <- sum(some)",
        "  line <- glm(truth[some] ~ x[some], family = binomial, control = list(epsilon = 1e-14))",
        "  large <- glm(truth[some] ~ 1 + offset(x[some]), family = binomial,",
        "               control = list(epsilon = 1e-14))",
        '  out(paste("coef", n), c(coef(line), coef(large)))',
        '  out(paste("se", n), sqrt(c(diag(vcov(line)), diag(vcov(large)))))',
        "  if (n == 600) {",
        '    robust <- function(m) vcovCL(m, groups, type = "HC0", cadjust = TRUE)',
        '    out("robust", sqrt(c(diag(robust(line)), diag(robust(large)))))',
        "  }",
        "}",
    ]
    for k, (both, first, second, neither) in enumerate(CALLS):
        m = f"matrix(c({both},{second},{first},{neither}), 2)"
        lines += [
            f'out("plain {k}", mcnemar.test({m}, correct = FALSE)$p.value)',
            f'out("corrected {k}", mcnemar.test({m})$p.value)',
            f'out("exact {k}", binom.test({first}, {first + second})$p.value)',
        ]
    for k, (hits, n) in enumerate(COUNTS):
        lines += [
            f'out("exact interval {k}", binom.test({hits}, {n})$conf.int)',
            f'out("wilson {k}", prop.test({hits}, {n}, correct = FALSE)$conf.int)',
        ]
    return "\n".join(lines)


def main() -> None:
    data = simulated()
    r = run_r(script(data), ("sandwich",), "apt install r-cran-sandwich")
    table = Table("R: mcnemar.test, binom.test, wilcox.test, p.adjust, glm, sandwich")
    table.add("Holm", r["holm"], holm(data["p"]))
    table.add("Benjamini-Hochberg", r["bh"], benjamini_hochberg(data["p"]))
    for k, counts in enumerate(CALLS):
        for name, method in (
            ("plain", McNemar.CHI_SQUARE),
            ("corrected", McNemar.CORRECTED),
            ("exact", McNemar.EXACT),
        ):
            expected = r[f"{name} {k}"]
            if np.isnan(expected).any():
                continue
            # R takes the correction off even where it exceeds the difference; we stop at 0.
            if name == "corrected" and counts[1] == counts[2]:
                expected = 1.0
            ours = mcnemar(PairedCalls(*counts), method).p_value
            table.add(f"McNemar {counts}, {method}", expected, ours)
    for k, (hits, n) in enumerate(COUNTS):
        table.add(f"Clopper-Pearson {hits}/{n}", r[f"exact interval {k}"], clopper_pearson(hits, n))
        table.add(f"Wilson {hits}/{n}", r[f"wilson {k}"], wilson(hits, n))
    w = wilcoxon_signed_rank(data["a30"], data["b30"], np.arange(30))
    ours = [w.statistic, w.p_value, w.difference.value, w.difference.low, w.difference.high]
    table.add("Wilcoxon n = 30: V, p, pseudomedian, interval", r["w30"], ours)
    w = wilcoxon_signed_rank(data["a300"], data["b300"], np.arange(300))
    table.add("Wilcoxon n = 300 with ties: V, p", r["w300"], [w.statistic, w.p_value])

    first = np.concatenate([[True], np.diff(data["groups"]) > 0])
    probability = 1 / (1 + np.exp(-data["x"]))
    for n, some, groups in (
        (150, first, None),
        (600, np.ones(600, dtype=bool), data["groups"]),
    ):
        found = recalibration(data["truth"][some], probability[some], groups)
        parts = (found.intercept, found.slope, found.in_the_large)
        words = "glm" if groups is None else "vcovCL"
        table.add(
            f"intercept, slope, in the large, n = {n}",
            r[f"coef {n}"],
            [e.value for e in parts],
            1e-7,
        )
        expected = r[f"se {n}"] if groups is None else r["robust"]
        table.add(f"their standard errors, {words}", expected, [_se(e) for e in parts], 1e-7)
    table.finish()


def _se(e: Estimate) -> float:
    return (e.high - e.low) / (2 * Z)


if __name__ == "__main__":
    main()
