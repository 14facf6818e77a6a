"""The tests behind a table of patient characteristics against R.

Base R only; the standardised difference of categories is written out with R's mahalanobis().

    python validation/r_characteristics.py
"""

from __future__ import annotations

import numpy as np
from side_by_side import Table, r_vector, run_r

from renalkit.metrics.characteristics import compare_categories, compare_numbers, fisher_exact

TABLES = (
    ((30, 20), (25, 45)),
    ((3, 1), (1, 3)),
    ((12, 0), (7, 6)),
    ((10, 4, 1, 0), (3, 9, 5, 4)),
    ((20, 6, 3, 1, 0, 0), (0, 1, 2, 9, 8, 4)),
    ((5, 2, 1), (1, 6, 2), (0, 1, 7)),
    ((40, 30, 30), (30, 40, 35), (20, 25, 45)),
    ((31, 15, 9, 4, 2, 1), (28, 17, 12, 6, 1, 5)),
)


def simulated() -> dict[str, np.ndarray]:
    """Groups that are normal, skewed, tied, small and large."""
    rng = np.random.default_rng(4)
    return {
        "na": rng.normal(58, 14, 61),
        "nb": rng.normal(53, 10, 44),
        "nc": rng.normal(50, 12, 20),
        "sa": rng.lognormal(3.5, 0.6, 48),
        "sb": rng.lognormal(3.2, 0.5, 33),
        "sc": rng.lognormal(3.0, 0.5, 12),
        "la": rng.lognormal(3.5, 0.6, 148),
        "lb": rng.lognormal(3.3, 0.5, 133),
        "ta": (rng.lognormal(3.5, 0.6, 40)).round(-1),
        "tb": (rng.lognormal(3.2, 0.5, 35)).round(-1),
        "tc": (rng.lognormal(3.2, 0.9, 25)).round(-1),
    }


def script(data: dict[str, np.ndarray]) -> str:
    lines = [f"{name} <- {r_vector(values)}" for name, values in data.items()]
    for name in data:
        lines += [
            f'out("shapiro {name}", shapiro.test({name})$p.value)',
            f'out("summary {name}", c(mean({name}), sd({name}), quantile({name}, c(.5,.25,.75))))',
        ]
    lines += [
        "both <- function(t) c(t$statistic, t$p.value)",
        'out("n ab", both(t.test(na, nb)))',
        'out("n abc", both(oneway.test(v ~ g, data.frame(v = c(na, nb, nc),',
        "    g = rep(1:3, c(length(na), length(nb), length(nc)))))))",
        'out("s ab", both(wilcox.test(sa, sb, exact = TRUE)))',
        'out("l ab", both(wilcox.test(la, lb)))',
        'out("t ab", both(suppressWarnings(wilcox.test(ta, tb))))',
        'out("s abc", both(kruskal.test(list(sa, sb, sc))))',
        'out("t abc", both(kruskal.test(list(ta, tb, tc))))',
        "apart <- function(p, q) {",
        "  cover <- function(p) diag(p, length(p)) - p %*% t(p)",
        "  p <- p[-1]; q <- q[-1]",
        "  sqrt(mahalanobis(p, q, (cover(p) + cover(q)) / 2))",
        "}",
    ]
    for k, table in enumerate(TABLES):
        lines += [
            f"m <- t(matrix({r_vector(np.array(table).ravel())}, ncol = {len(table)}))",
            f'out("chi {k}", both(suppressWarnings(chisq.test(m, correct = FALSE))))',
            f'out("fisher {k}", fisher.test(m, workspace = 2e7)$p.value)',
        ]
        if len(table) == 2:
            lines.append(f'out("smd {k}", apart(m[1,] / sum(m[1,]), m[2,] / sum(m[2,])))')
    return "\n".join(lines)


def main() -> None:
    data = simulated()
    r = run_r(script(data), (), "apt install r-base-core")
    table = Table(
        "R: shapiro.test, t.test, oneway.test, wilcox.test, kruskal.test, chisq.test, fisher.test"
    )
    for name, values in data.items():
        one = compare_numbers([values]).groups[0]
        assert one.normal_p is not None
        table.add(f"Shapiro-Wilk p, {name}", r[f"shapiro {name}"], one.normal_p, 1e-7)
        ours = [one.mean, one.sd, one.median, one.q1, one.q3]
        table.add(f"mean, SD, quartiles, {name}", r[f"summary {name}"], ours)
    for key, test in (
        ("n ab", "Welch's t-test"),
        ("n abc", "Welch's analysis of variance"),
        ("s ab", "Mann-Whitney U test, exact"),
        ("l ab", "Mann-Whitney U test, normal"),
        ("t ab", "Mann-Whitney U test, normal"),
        ("s abc", "Kruskal-Wallis"),
        ("t abc", "Kruskal-Wallis"),
    ):
        kind, which = key.split()
        found = compare_numbers([data[kind + letter] for letter in which])
        assert found.test.startswith(test), f"{key}: {found.test}"
        table.add(f"{test}: statistic, p", r[key], [found.statistic, found.p_value], 1e-8)
    for k, counts in enumerate(TABLES):
        found = compare_categories(np.array(counts))
        if found.statistic is not None:
            table.add(f"chi-square {counts}", r[f"chi {k}"], [found.statistic, found.p_value])
        p, words = fisher_exact(np.array(counts))
        # Where there are too many tables to walk, some are drawn: 4 standard errors.
        allowed = 4 * np.sqrt(p * (1 - p) / 99_999) / p if "drawn" in words else 1e-6
        table.add(f"{words} {counts}", r[f"fisher {k}"], p, allowed)
        if len(counts) == 2:
            table.add(f"standardised difference {counts}", r[f"smd {k}"], found.smd)
    table.finish()


if __name__ == "__main__":
    main()
