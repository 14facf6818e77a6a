"""Does a model at a reader's sensitivity (or specificity) hold its 5 % level?

Model and reader see the same case with binormal evidence of equal skill, correlated within cases;
the reader calls above the middle. So the model's ROC curve passes through the reader's point, and a
test at 5 % should reject in 5 % of studies, an interval contain 0 in 95 %. McNemar's test, which
takes the threshold found on the same cases as given, is shown failing.

    nice -n 10 python validation/simulate_matched.py [--studies 1000] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path

import numpy as np

from renalkit.metrics.bootstrap import BootstrapPlan
from renalkit.metrics.reader_study import Match, compare_calls, model_at_reader

PATIENTS, SKILL, CORRELATION = (60, 120, 180), (1.2, 2.0), (0.0, 0.5)
"""Skill: distance of the classes in standard deviations, AUC 0.80 and 0.92."""

POSITIVE = 0.55


def simulate(setting: tuple[int, float, float], studies: int, seed: int) -> dict[str, object]:
    """Shares of studies in which each test rejects, and in which the interval contains 0."""
    n, skill, shared = setting
    rng = np.random.default_rng(seed)
    truth = np.arange(n) < round(POSITIVE * n)
    rejected, covered, total = {"bootstrap": 0, "McNemar": 0}, 0, 0
    for k in range(studies):
        case, *own = rng.normal(size=(3, n))
        model, reader = (
            np.sqrt(shared) * case + np.sqrt(1 - shared) * noise + skill * truth for noise in own
        )
        votes = reader > skill / 2
        for match in Match:
            found = model_at_reader(truth, model, votes, match, BootstrapPlan(500, seed=k))
            given = compare_calls(truth, model >= found.threshold, votes)
            test = given.specificity if match is Match.SENSITIVITY else given.sensitivity
            rejected["bootstrap"] += found.test.p_value < 0.05
            rejected["McNemar"] += test.p_value < 0.05
            covered += found.difference.low <= 0 <= found.difference.high
            total += 1
    return {
        "patients": n,
        "skill": skill,
        "correlation": shared,
        "rejected": {name: round(float(x) / total, 4) for name, x in rejected.items()},
        "covered": round(float(covered) / total, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=2022)
    here = Path(__file__).parent
    parser.add_argument("--out", type=Path, default=here / "results" / "matched_level.json")
    given = parser.parse_args()
    rows: list[dict[str, object]] = []
    for k, setting in enumerate(product(PATIENTS, SKILL, CORRELATION)):
        rows.append(simulate(setting, given.studies, given.seed + k))
        print(json.dumps(rows[-1]), flush=True)
    record = {"studies_per_setting": given.studies, "seed": given.seed, "settings": rows}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
