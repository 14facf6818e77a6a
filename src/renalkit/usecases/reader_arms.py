"""Do readers read better in another arm, such as with AI, and whom does the AI mislead?

Differences are the other arm minus the baseline.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

import numpy as np
import numpy.typing as npt

from renalkit.domain.prediction import Unit
from renalkit.errors import StatisticUndefined
from renalkit.metrics.auc_inference import paired_delong
from renalkit.metrics.bootstrap import mean_of_rows
from renalkit.metrics.classification import Floats
from renalkit.metrics.inference import Proportion
from renalkit.metrics.mrmc import (
    ArmContrast,
    Figure,
    Generalise,
    MrmcPlan,
    obuchowski_rockette,
    one_shot,
)
from renalkit.metrics.reader_study import compare_calls
from renalkit.usecases.reader_figures import adjust
from renalkit.usecases.reading_cases import ReaderStudy
from renalkit.usecases.results import Json, bootstrapped, estimate_json, undefined_json

Bools = npt.NDArray[np.bool_]
_OR, _U = "Obuchowski-Rockette", "U-statistic"


def contrasts(study: ReaderStudy, ai: dict[str, bool] | None) -> list[Json]:
    """Every other arm beside the baseline. ai: what the AI that readers saw called, by case.

    p-values are adjusted over the readers, or over the groups, of one figure (and method).
    """
    found: list[Json] = []
    for arm in study.table.arms:
        if arm == study.baseline:
            continue
        groups, readers = _groups(study, arm), _readers(study, arm)
        for figure in Figure:
            adjust([r for r in readers if r["figure"] == figure.value])
            for way in {(r["method"], r["to"]) for r in groups}:
                own = (r for r in groups if (r["method"], r["to"]) == way)
                adjust([r for r in own if r["figure"] == figure.value])
        found.append(
            {
                "first": arm,
                "second": study.baseline,
                "groups": groups,
                "readers": readers,
                "changes": _changes(study, arm, ai),
            }
        )
    return found


def overall(study: ReaderStudy) -> list[Json]:
    """The test that no arm differs, of all readers as a sample; empty for fewer than three arms."""
    rows: list[Json] = []
    if len(study.table.arms) < 3 or len(study.names) < 2:
        return rows
    for figure in Figure:
        values = _stacked(study, figure, study.table.arms)
        if values is None:
            continue
        row: Json = {
            "figure": figure.value,
            "method": _OR,
            "to": Generalise.READERS_AND_CASES.value,
        }
        try:
            test = obuchowski_rockette(study.truth, values, MrmcPlan(figure, level=study.level))
            df2 = test.df2 if isfinite(test.df2) else None
            rows.append(row | {"f": test.f, "df1": test.df1, "df2": df2, "p": test.p_value})
        except StatisticUndefined as error:
            rows.append(row | {"f": None, "p": None, "note": error.found})
    return rows


def _stacked(study: ReaderStudy, figure: Figure, arms: Sequence[str]) -> Floats | None:
    """Ratings (I, J, n) that a figure needs: scores for an AUC, else votes."""
    of = study.scores if figure is Figure.AUC else study.votes
    found = [of(arm) for arm in arms]
    known = [values for values in found if values is not None]
    return np.stack(known) if len(known) == len(arms) else None


# ------------------------------------------------------------------ groups: several readers


def _groups(study: ReaderStudy, arm: str) -> list[Json]:
    rows: list[Json] = []
    for figure in Figure:
        values = _stacked(study, figure, (arm, study.baseline))
        if values is None:
            continue
        for group, members in study.groups.items():
            rows += _group_rows(study, group, values[:, members], figure)
    return rows


def _group_rows(study: ReaderStudy, group: str, values: Floats, figure: Figure) -> list[Json]:
    truth, level = study.truth, study.level
    ways: list[tuple[str, Generalise]] = [(_OR, Generalise.CASES)]
    if values.shape[1] > 1:
        ways.insert(0, (_OR, Generalise.READERS_AND_CASES))
        if figure is Figure.AUC:
            ways.append((_U, Generalise.READERS_AND_CASES))
    rows: list[Json] = []
    for method, to in ways:
        about: Json = {
            "group": group,
            "n_readers": values.shape[1],
            "figure": figure.value,
            "method": method,
            "to": to.value,
        }
        try:
            if method == _U:
                shot = one_shot(truth, values, level=level)
                arms, (contrast,) = shot.arms, shot.contrasts
            else:
                test = obuchowski_rockette(truth, values, MrmcPlan(figure, to=to, level=level))
                arms, (contrast,) = test.arms, test.contrasts
        except StatisticUndefined as error:
            why = undefined_json(len(study.cases), Unit.PATIENT, error.found, level)
            rows.append(about | {"difference": why, "p": None})
            continue
        first, second = (estimate_json(a) for a in arms)
        rows.append(about | {"first": first, "second": second} | _contrast(contrast))
    return rows


def _contrast(found: ArmContrast) -> Json:
    return {
        "difference": estimate_json(found.difference),
        "statistic": found.statistic,
        "df": found.df if isfinite(found.df) else None,
        "p": found.p_value,
    }


# ------------------------------------------------------------------ one reader at a time


def _readers(study: ReaderStudy, arm: str) -> list[Json]:
    rows: list[Json] = []
    votes = _stacked(study, Figure.SENSITIVITY, (arm, study.baseline))
    scores = _stacked(study, Figure.AUC, (arm, study.baseline))
    for place, name in enumerate(study.names):
        if scores is not None:
            rows.append(
                {"reader": name} | area_difference(study, scores[0, place], scores[1, place])
            )
        if votes is not None:
            rows += (
                {"reader": name} | row
                for row in call_differences(study, votes[0, place], votes[1, place])
            )
    return rows


def area_difference(study: ReaderStudy, first: Floats, second: Floats) -> Json:
    """AUC of two rows of scores (n,), first minus second."""
    about: Json = {"figure": Figure.AUC.value}
    try:
        found = paired_delong(study.truth, first, second, level=study.level)
    except StatisticUndefined as error:
        why = undefined_json(len(study.cases), Unit.PATIENT, error.found, study.level)
        return about | {"difference": why, "p": None}
    return about | {
        "first": estimate_json(found.first),
        "second": estimate_json(found.second),
        "difference": estimate_json(found.difference),
        "p": found.p_value,
        "test": "paired DeLong",
    }


def call_differences(study: ReaderStudy, first: Floats | Bools, second: Floats) -> list[Json]:
    """Sensitivity and specificity of two rows of calls (n,), first minus second."""
    found = compare_calls(study.truth, first, second, study.level)
    return [
        {
            "figure": name,
            "first": estimate_json(found.first.measures()[name].estimate(level=study.level)),
            "second": estimate_json(found.second.measures()[name].estimate(level=study.level)),
            "difference": estimate_json(test.difference),
            "p": test.p_value,
            "test": test.test,
        }
        for name, test in (("sensitivity", found.sensitivity), ("specificity", found.specificity))
    ]


# ------------------------------------------------------------------ changed calls


def _changes(study: ReaderStudy, arm: str, ai: dict[str, bool] | None) -> list[Json]:
    """How calls change from the baseline, by reader and by group, and by whether the AI was right.

    A reader is misled where the AI was wrong and a right call became wrong (automation bias), and
    helped where the AI was right and a wrong call became right.
    """
    votes = _stacked(study, Figure.SENSITIVITY, (arm, study.baseline))
    if votes is None:
        return []
    places = np.arange(len(study.cases))
    called = None
    if ai is not None:
        places = np.array([i for i, c in enumerate(study.cases) if c in ai], dtype=np.intp)
        called = np.array([ai[study.cases[i]] for i in places], dtype=np.bool_)
    if not places.size:
        return []
    truth = study.truth[places]
    right = (votes[:, :, places] == 1) == truth
    ai_right = None if called is None else called == truth
    people = [study.cases[i] for i in places]
    of_readers = {name: np.array([i]) for i, name in enumerate(study.names)}
    return [
        {"kind": kind, "who": who} | _changed(study, right[:, rows], ai_right, people)
        for kind, members in (("reader", of_readers), ("group", study.groups))
        for who, rows in members.items()
    ]


def _changed(
    study: ReaderStudy, right: Bools, ai_right: Bools | None, people: Sequence[str]
) -> Json:
    """right (2, J, n): with, without."""
    after, before = right

    def counts(kept: Bools) -> Json:
        return {
            "decisions": int(kept.sum()),
            "right_before": int((before & kept).sum()),
            "right_to_wrong": int((before & ~after & kept).sum()),
            "wrong_to_right": int((~before & after & kept).sum()),
        }

    def share(of: Bools, whole: Bools) -> Json:
        """Over patients: the calls of one patient by several readers resemble each other."""
        n = int(whole.sum())
        if not n:
            return undefined_json(0, Unit.PATIENT, "0 of 0", study.level)
        if len(after) == 1:
            return estimate_json(Proportion(int(of[whole].sum()), n).estimate(level=study.level))
        patients = np.broadcast_to(np.array(people), whole.shape)[whole].tolist()
        values = of[whole].astype(np.float64)
        return bootstrapped(mean_of_rows(values), patients, study.resampling)

    every = np.ones_like(after)
    found: Json = {"all": counts(every), "changed": share(before != after, every)}
    if ai_right is None:
        return found
    ai = np.broadcast_to(ai_right, after.shape)
    return found | {
        "ai_right": counts(ai),
        "ai_wrong": counts(~ai),
        "helped": share(after, ai & ~before),
        "misled": share(~after, ~ai & before),
    }
