"""Cohen's and Fleiss' kappa against statsmodels.

Needs a Python with statsmodels, apart from the project's own environment.

    python validation/statsmodels_kappa.py --python REFERENCE/bin/python
"""

from __future__ import annotations

import numpy as np
from side_by_side import Table, run_python

from renalkit.metrics.agreement import KappaWeights, cohen_kappa, fleiss_kappa

CODE = """
from statsmodels.stats.inter_rater import aggregate_raters, cohens_kappa, fleiss_kappa
found["cohen"] = []
for weights in (None, "linear", "quadratic"):
    k = cohens_kappa(given["table"], wt=weights)
    found["cohen"].append([k.kappa, k.std_kappa, k.std_kappa0, k.z_value, k.pvalue_two_sided])
found["fleiss"] = fleiss_kappa(aggregate_raters(given["votes"])[0])
"""


def main() -> None:
    rng = np.random.default_rng(23)
    given = {
        "table": np.array([[53, 5, 2], [11, 14, 5], [1, 6, 3]]),
        "votes": rng.integers(0, 3, (40, 1)) * (rng.random((40, 4)) < 0.7),
    }
    found = run_python(CODE, given, "statsmodels")
    table = Table("statsmodels.stats.inter_rater")
    for weights, expected in zip(KappaWeights, found["cohen"], strict=True):
        k = cohen_kappa(given["table"], weights)
        ours = (k.estimate.value, k.standard_error, k.null_error, k.z, k.p_value)
        table.add(f"cohens_kappa, {weights.value}: value, errors, z, p", expected, ours)
    table.add("fleiss_kappa", found["fleiss"], fleiss_kappa(given["votes"], 3).estimate.value)
    table.finish()


if __name__ == "__main__":
    main()
