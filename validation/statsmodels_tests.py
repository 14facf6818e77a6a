"""Adjusted p-values, McNemar, proportions and calibration slopes against statsmodels.

Needs a Python with statsmodels, apart from the project's own environment.

    python validation/statsmodels_tests.py --python REFERENCE/bin/python
"""

from __future__ import annotations

import numpy as np
from side_by_side import Table, run_python

from renalkit.metrics.calibration import recalibration
from renalkit.metrics.comparisons import McNemar, PairedCalls, mcnemar
from renalkit.metrics.inference import clopper_pearson, wilson
from renalkit.metrics.multiplicity import benjamini_hochberg, holm

Z = 1.959963984540054
CODE = """
import numpy as np
import statsmodels.api as sm
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint
for name in ("holm", "fdr_bh"):
    found[name] = multipletests(given["p"], method=name)[1]
found["mcnemar"] = [
    [
        mcnemar([[a, b], [c, d]], exact=True).pvalue,
        mcnemar([[a, b], [c, d]], exact=False, correction=False).pvalue,
        mcnemar([[a, b], [c, d]], exact=False, correction=True).pvalue,
    ]
    for a, b, c, d in given["calls"]
]
found["beta"] = [proportion_confint(k, n, method="beta") for k, n in given["counts"]]
found["wilson"] = [proportion_confint(k, n, method="wilson") for k, n in given["counts"]]
y, x, groups = (np.array(given[k]) for k in ("truth", "x", "groups"))
line = sm.GLM(y, sm.add_constant(x), family=sm.families.Binomial())
large = sm.GLM(y, np.ones_like(x), family=sm.families.Binomial(), offset=x)
for name, how in (
    ("plain", {}),
    ("robust", dict(cov_type="cluster", cov_kwds=dict(groups=groups, use_correction=False))),
):
    fits = [m.fit(tol=1e-13, maxiter=200, **how) for m in (line, large)]
    found[name] = np.concatenate([f.params for f in fits])
    found[name + " se"] = np.concatenate([f.bse for f in fits])
"""


def main() -> None:
    rng = np.random.default_rng(31)
    groups = np.repeat(np.arange(80), 5)
    logit = 1.2 * rng.normal(size=80)
    truth = (rng.random(80) < 1 / (1 + np.exp(-logit)))[groups].astype(int)
    x = 0.2 + 0.7 * logit[groups] + 0.4 * rng.normal(size=400)
    given = {
        "p": rng.random(30) ** 3,
        "calls": [(794, 150, 86, 570), (1, 1, 7, 12), (20, 0, 9, 3)],
        "counts": [(1, 12), (7, 40), (31, 33)],
        "truth": truth,
        "x": x,
        "groups": groups,
    }
    found = run_python(CODE, given, "statsmodels")
    table = Table("statsmodels")
    table.add("multipletests, holm", found["holm"], holm(given["p"]))
    table.add("multipletests, fdr_bh", found["fdr_bh"], benjamini_hochberg(given["p"]))
    methods = (McNemar.EXACT, McNemar.CHI_SQUARE, McNemar.CORRECTED)
    for counts, expected in zip(given["calls"], found["mcnemar"], strict=True):
        ours = [mcnemar(PairedCalls(*counts), m).p_value for m in methods]
        table.add(f"mcnemar {counts}: exact, chi-square, corrected", expected, ours)
    for k, (hits, n) in enumerate(given["counts"]):
        table.add(f"proportion_confint beta {hits}/{n}", found["beta"][k], clopper_pearson(hits, n))
        table.add(f"proportion_confint wilson {hits}/{n}", found["wilson"][k], wilson(hits, n))
    p = 1 / (1 + np.exp(-x))
    for name, of in (("plain", None), ("robust", groups)):
        r = recalibration(truth, p, of)
        parts = (r.intercept, r.slope, r.in_the_large)
        table.add(
            f"GLM, {name}: intercept, slope, in the large",
            found[name],
            [e.value for e in parts],
            1e-7,
        )
        # statsmodels without its own correction leaves out G / (G - 1).
        scale = 1.0 if of is None else np.sqrt(80 / 79)
        ours = [(e.high - e.low) / (2 * Z) / scale for e in parts]
        table.add(f"GLM, {name}: standard errors", found[f"{name} se"], ours, 1e-7)
    table.finish()


if __name__ == "__main__":
    main()
