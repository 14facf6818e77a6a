"""Net benefit and interventions avoided against the package dcurves of the method's authors.

Needs a Python with dcurves, apart from the project's own environment.

    python validation/dcurves_net_benefit.py --python REFERENCE/bin/python
"""

from __future__ import annotations

import numpy as np
from side_by_side import Table, run_python

from renalkit.metrics.bootstrap import BootstrapPlan
from renalkit.metrics.decision import decision_curve

CODE = """
import numpy as np
import pandas as pd
from dcurves import dca
data = pd.DataFrame({k: given[k] for k in ("truth", "model")})
curve = dca(data=data, outcome="truth", modelnames=["model"], thresholds=np.array(given["cuts"]))
for model in ("model", "all"):
    rows = curve[curve.model == model].sort_values("threshold")
    found[model] = rows.net_benefit
    found[model + " avoided"] = rows.net_intervention_avoided
"""


def main() -> None:
    rng = np.random.default_rng(12)
    truth = (rng.random(300) < 0.3).astype(int)
    model = np.clip(0.15 + 0.4 * truth + 0.2 * rng.normal(size=300), 0, 1)
    model[::2] = model[::2].round(2)  # half of them exactly on a threshold
    cuts = np.arange(1, 90) / 100
    found = run_python(CODE, {"truth": truth, "model": model, "cuts": cuts}, "dcurves")
    curve = decision_curve(truth, model, cuts, np.arange(300), BootstrapPlan(100))
    table = Table("dcurves, thresholds 0.01 to 0.89")
    table.add("net benefit, model", found["model"], [e.value for e in curve.model])
    table.add("net benefit, all", found["all"], [e.value for e in curve.treat_all])
    avoided = np.array([e.value for e in curve.avoided]) / 100
    table.add("interventions avoided per patient", found["model avoided"], avoided)
    table.finish()


if __name__ == "__main__":
    main()
