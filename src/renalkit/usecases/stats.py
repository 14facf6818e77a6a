"""Statistics of the scores in any table: how good each is, and which differ."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from renalkit.usecases.class_scores import class_differences, class_figures
from renalkit.usecases.results import Json
from renalkit.usecases.score_differences import equality, score_differences
from renalkit.usecases.score_figures import score_figures
from renalkit.usecases.stats_options import Asked, Options
from renalkit.usecases.table_scores import Columns, Scored, read_scores


def table_statistics(path: Path, columns: Columns, options: Options) -> Json:
    """Figures of every score, and differences of every two, as one JSON object without NaN.

    Raises ConfigError (options), InputRefused (table), StatisticUndefined (an average over patients
    of both classes); a figure that does not exist is null with a note.
    """
    asked = options.asked(columns.scores)
    scored = read_scores(path, columns)
    found = _head(scored, columns, asked)
    indices = range(len(scored.names))
    if columns.classes:
        return found | {
            "scores": [class_figures(scored, k, asked) for k in indices],
            "differences": class_differences(scored, asked),
        }
    return found | {
        "scores": [score_figures(scored, k, asked) for k in indices],
        "equality": None if columns.unpaired else equality(scored, asked),
        "differences": score_differences(scored, asked, unpaired=columns.unpaired),
    }


def _head(scored: Scored, columns: Columns, asked: Asked) -> Json:
    plan, tuning = asked.plan, scored.tuning
    by_class = {label: int((scored.truth == k).sum()) for label, k in scored.labels.items()}
    if columns.negative or columns.positive:
        negative = [label for label, k in scored.labels.items() if k == 0]
        by_class = {
            str(columns.positive): int((scored.truth == 1).sum()),
            " + ".join(negative) or "none": int((scored.truth == 0).sum()),
        }
    per_patient = np.unique(scored.groups, return_counts=True)[1]
    return {
        "schema": 1,
        "table": scored.where,
        "label": columns.label,
        "positive": columns.positive,
        "classes": by_class,
        "cluster": columns.cluster,
        "averaged": columns.average,
        "paired": not columns.unpaired,
        "n_rows": len(scored.truth),
        "n_patients": scored.n_patients,
        "most_rows_of_a_patient": int(per_patient.max()),
        "independent_rows": scored.independent,
        "left_out": list(scored.left_out),
        "tuning": None
        if tuning is None
        else {"n_rows": len(tuning.truth), "n_patients": tuning.n_patients},
        "level": plan.level,
        "seed": plan.seed,
        "resamples": plan.n_boot,
        "adjust": asked.adjust.value,
    }
