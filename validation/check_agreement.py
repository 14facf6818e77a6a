"""ICC, kappa, Bland-Altman and proportional bias against R.

Needs R with the packages psych and vcd (Debian: r-base-core, r-cran-psych, r-cran-vcd). Fleiss'
kappa is in none of these: its value is computed in base R from the class shares, its errors by
leaving each case out and by guessing readers.

    python validation/check_agreement.py
"""

from __future__ import annotations

import numpy as np
from side_by_side import Table, r_vector, run_r

from renalkit.metrics.agreement import (
    DifferenceScale,
    IccForm,
    KappaWeights,
    bland_altman,
    cohen_kappa,
    fleiss_kappa,
    icc,
    mean_squares,
)

# Shrout and Fleiss 1979, table 2.
JUDGES = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
)
# Fleiss, Cohen and Everitt 1969, table 1, as counts of 100.
DIAGNOSES = np.array([[53, 5, 2], [11, 14, 5], [1, 6, 3]])
PRINTED = {  # Shrout and Fleiss 1979, tables 3 and 4
    "mean squares": (11.24, 6.26, 32.49, 1.02),
    "coefficients": (0.17, 0.29, 0.71, 0.44, 0.62, 0.91),
}


def simulated() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(17)
    sizes = rng.lognormal(3, 0.8, (60, 1)) * rng.lognormal(0, 0.1, (60, 3)) + [0, 1, -0.5]
    grades = rng.integers(0, 4, 90)
    votes = np.stack(
        [np.where(rng.random(90) < 0.6, grades, rng.integers(0, 4, 90)) for _ in range(5)], axis=1
    )
    return {"sizes": sizes, "votes": votes}


def script(data: dict[str, np.ndarray]) -> str:
    lines = ["options(digits = 17)"]
    for name, x in (("judges", JUDGES), ("sizes", data["sizes"]), ("votes", data["votes"])):
        lines.append(f"{name} <- matrix({r_vector(x.ravel())}, nrow = {len(x)}, byrow = TRUE)")
    for name in ("judges", "sizes"):
        lines += [
            f"r <- ICC({name}, lmer = FALSE)$results",
            f'out("{name} icc", r$ICC); out("{name} low", r[["lower bound"]])',
            f'out("{name} high", r[["upper bound"]]); out("{name} F", r$F); out("{name} p", r$p)',
        ]
    lines += [
        f"table <- matrix({r_vector(DIAGNOSES.ravel())}, nrow = 3, byrow = TRUE)",
        "cross <- table(factor(votes[, 1], 0:3), factor(votes[, 2], 0:3))",
        'for (t in list(list("paper", table), list("votes", cross))) {',
        '  k <- Kappa(t[[2]], weights = "Equal-Spacing")',
        '  q <- Kappa(t[[2]], weights = "Fleiss-Cohen")',
        '  out(paste(t[[1]], "kappa"), c(k$Unweighted, k$Weighted, q$Weighted))',
        "}",
        "shares <- table(factor(votes, 0:3)) / length(votes)",
        "counts <- t(apply(votes, 1, function(v) table(factor(v, 0:3))))",
        "observed <- mean(apply(counts, 1, function(n) sum(n * (n - 1)) / (5 * 4)))",
        'out("fleiss", (observed - sum(shares^2)) / (1 - sum(shares^2)))',
        "d <- sizes[, 2] - sizes[, 1]; m <- (sizes[, 1] + sizes[, 2]) / 2",
        "line <- summary(lm(d ~ m)); ci <- confint(lm(d ~ m))",
        'out("bias", c(mean(d), t.test(d)$conf.int, sd(d)))',
        'out("slope", c(line$coefficients[2, 1], ci[2, ], line$coefficients[2, 4]))',
        "d <- log(sizes[, 2] / sizes[, 1])",
        'out("ratio", exp(c(mean(d), t.test(d)$conf.int)))',
        "d <- log(sizes[, 3] / sizes[, 1])",
        'out("ratio limits", exp(mean(d) + c(-1, 1) * qnorm(0.975) * sd(d)))',
    ]
    return "\n".join(lines)


def main() -> None:
    data = simulated()
    found = run_r(script(data), ("psych", "vcd"), "apt install r-cran-psych r-cran-vcd")
    table = Table("R psych, vcd, stats")
    ms = mean_squares(JUDGES)
    ours = (ms.between, ms.within, ms.readers, ms.error)
    table.add("Shrout-Fleiss mean squares, as printed", PRINTED["mean squares"], ours, 2e-3)
    values = [icc(JUDGES, form).estimate.value for form in IccForm]
    table.add("Shrout-Fleiss six ICCs, as printed", PRINTED["coefficients"], values, 0.03)
    for name, x in (("judges", JUDGES), ("sizes", data["sizes"])):
        every = [icc(x, form) for form in IccForm]
        for what, numbers in (
            ("icc", [r.estimate.value for r in every]),
            ("low", [r.estimate.low for r in every]),
            ("high", [r.estimate.high for r in every]),
            ("F", [r.f for r in every]),
            ("p", [r.p_value for r in every]),
        ):
            table.add(f"psych ICC, {name}, six forms: {what}", found[f"{name} {what}"], numbers)
    votes = data["votes"]
    cross = np.zeros((4, 4), dtype=np.int64)
    np.add.at(cross, (votes[:, 0], votes[:, 1]), 1)
    for name, counts in (("paper", DIAGNOSES), ("votes", cross)):
        kappas = [cohen_kappa(counts, w) for w in KappaWeights]
        ours = [v for k in kappas for v in (k.estimate.value, k.standard_error)]
        table.add(f"vcd Kappa, {name}: value and error, 3 weights", found[f"{name} kappa"], ours)
    k = fleiss_kappa(votes, 4)
    table.add("Fleiss' kappa", found["fleiss"], k.estimate.value)
    left = [fleiss_kappa(np.delete(votes, i, 0), 4).estimate.value for i in range(len(votes))]
    spread = np.sqrt((len(left) - 1) * np.var(left))
    table.add("Fleiss' kappa: error by the jackknife", spread, k.standard_error, 0.02)
    rng = np.random.default_rng(3)
    null = [fleiss_kappa(rng.integers(0, 4, (90, 5)), 4).estimate.value for _ in range(4000)]
    guessed = fleiss_kappa(rng.integers(0, 4, (90, 5)), 4).null_error
    table.add("Fleiss' kappa: null error by 4,000 simulations", np.std(null), guessed, 0.05)
    sizes = data["sizes"]
    ba = bland_altman(sizes[:, 0], sizes[:, 1])
    table.add(
        "bias, interval, sd", found["bias"], [ba.bias.value, ba.bias.low, ba.bias.high, ba.sd]
    )
    assert ba.slope is not None
    slope = [ba.slope.value, ba.slope.low, ba.slope.high, ba.slope_p]
    table.add("proportional bias: slope, interval, p", found["slope"], slope)
    ratio = bland_altman(sizes[:, 0], sizes[:, 1], scale=DifferenceScale.RATIO)
    table.add(
        "ratio, interval", found["ratio"], [ratio.bias.value, ratio.bias.low, ratio.bias.high]
    )
    limits = bland_altman(sizes[:, 0], sizes[:, 2], scale=DifferenceScale.RATIO)
    table.add("ratio limits", found["ratio limits"], [limits.lower.value, limits.upper.value])
    table.finish()


if __name__ == "__main__":
    main()
