"""Does a system do equally well in every group of patients: scanner, site, size, histology, ...?

Every figure has its interval and its n; groups of too few patients have none. The test of
interaction asks per variable whether its groups differ at all; its p-values are adjusted over the
variables of a system (Holm).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from renalkit.domain.cohort import Cohort
from renalkit.domain.prediction import Unit
from renalkit.domain.profile import GRADES, Variable, patient_classes, patient_variables
from renalkit.errors import StatisticUndefined
from renalkit.metrics.auc_inference import delong
from renalkit.metrics.bootstrap import mean_of_rows
from renalkit.metrics.characteristics import compare_categories, compare_numbers
from renalkit.metrics.inference import Proportion
from renalkit.metrics.multiplicity import holm
from renalkit.metrics.subgroups import Interaction, equal_aucs_of_groups, equal_ranks_of_groups
from renalkit.store.cohorts import table_text
from renalkit.store.files import write_json, write_text
from renalkit.usecases.patients import patients_of
from renalkit.usecases.results import (
    Json,
    RunResults,
    SystemResults,
    bootstrapped,
    called_class,
    estimate_json,
    positive_class,
    undefined_json,
)

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Keys = npt.NDArray[np.str_]

LEAST_PATIENTS = 10
"""A group of fewer patients has no figures."""

LEAST_OF_A_CLASS = 5
"""AUC, sensitivity and specificity need as many patients of each class they rest on."""

_GIVEN = ("scanner", "site", "sex", "side")
_BY_DIAGNOSIS = ("histology", *GRADES, "typical")
_SIZES = ((20.0, "up to 20 mm"), (40.0, "20 to 40 mm"), (70.0, "40 to 70 mm"))
_OVER_SIZES = "over 70 mm"
_AGES = ((50.0, "under 50 years"), (65.0, "50 to 64 years"))
_OVER_AGES = "65 years and over"
_FIGURES = ("auc", "accuracy", "sensitivity", "specificity", "dice")
_TESTED = ("auc", "accuracy", "dice")
_CSV = ("system", "variable", "class", "group", "patients", "figure", "value", "low", "high", "n")
_CSV_END = ("unit", "method", "interaction p", "interaction p (Holm)")


@dataclass(frozen=True, slots=True)
class Grouping:
    """Patients by the level of a variable. of_class: index of the class all of them have, or None.

    Histology and grade exist within a class: the AUC of a level is against all patients of the
    other class, and its accuracy is the share of its patients that is called rightly.
    """

    name: str
    levels: tuple[str, ...]
    level_of: Mapping[str, str]
    of_class: int | None = None


def groupings_of(cohort: Cohort) -> tuple[Grouping, ...]:
    """How the patients can be grouped; what has fewer than two known levels is left out."""
    known = {v.name: v for v in patient_variables(cohort)}
    found = [_given(known[name]) for name in _GIVEN if name in known]
    if "size_mm" in known:
        found.append(_binned(known["size_mm"], "size", (_SIZES, _OVER_SIZES), closed=True))
    if "age_years" in known:
        found.append(_binned(known["age_years"], "age", (_AGES, _OVER_AGES), closed=False))
    classes = patient_classes(cohort)
    for name in (n for n in _BY_DIAGNOSIS if n in known):
        for index, label in enumerate(cohort.task.classes):
            members = {p for p, c in classes.items() if c == label}
            found.append(_given(known[name], members, index))
    return tuple(g for g in found if len(g.levels) > 1)


def _given(
    variable: Variable, members: set[str] | None = None, of_class: int | None = None
) -> Grouping:
    """The levels of a category as they are, of all patients or of the members."""
    level_of = {p: str(v) for p, v in variable.values.items() if members is None or p in members}
    levels = tuple(v for v in variable.levels if v in level_of.values())
    return Grouping(variable.name, levels, level_of, of_class)


def _binned(
    variable: Variable, name: str, bins: tuple[Sequence[tuple[float, str]], str], *, closed: bool
) -> Grouping:
    """bins: (edge, words) upwards, and words beyond. closed: an edge belongs to the bin below."""
    edges, over = bins

    def level(value: float) -> str:
        inside = (words for edge, words in edges if value < edge or (closed and value == edge))
        return next(inside, over)

    level_of = {p: level(float(v)) for p, v in variable.values.items()}
    order = (*(words for _, words in edges), over)
    return Grouping(name, tuple(w for w in order if w in level_of.values()), level_of)


# ---------------------------------------------------------------- one system


def subgroups_of(results: RunResults) -> Json:
    """The figures of every system in every subgroup, with the tests of interaction."""
    groupings = groupings_of(results.cohort)
    return {
        "schema": 1,
        "least_patients": LEAST_PATIENTS,
        "least_of_a_class": LEAST_OF_A_CLASS,
        "systems": [
            {"label": s.job.label, "variables": _variables(results, s, groupings)}
            for s in results.systems
        ],
    }


@dataclass(frozen=True, slots=True)
class _Said:
    """What a system called: one row per patient of one known class."""

    patients: Keys
    truth: npt.NDArray[np.intp]
    called: npt.NDArray[np.intp]
    scores: Floats

    def of(self, rows: Bools) -> _Said:
        return _Said(self.patients[rows], self.truth[rows], self.called[rows], self.scores[rows])


@dataclass(frozen=True, slots=True)
class _Drawn:
    """Dice of a system: one row per frame with a lesion."""

    patients: Keys
    dice: Floats

    def of(self, rows: Bools) -> _Drawn:
        return _Drawn(self.patients[rows], self.dice[rows])


@dataclass(frozen=True, slots=True)
class _Level:
    """One subgroup. compared: the patients its AUC is made of; empty for several classes."""

    name: str
    said: _Said
    compared: _Said
    drawn: _Drawn


def _said(results: RunResults, system: SystemResults) -> _Said:
    found = patients_of(results, system)
    positive = positive_class(results)
    known = [p for p in found.pooled if p.target is not None]
    scores = np.array([p.scores for p in known], dtype=np.float64)
    return _Said(
        np.array([p.key.patient for p in known], dtype=np.str_),
        np.array([p.target for p in known], dtype=np.intp),
        np.array([called_class(p, found.thresholds, positive) for p in known], dtype=np.intp),
        scores.reshape(len(known), len(results.task.classes)),
    )


def _variables(
    results: RunResults, system: SystemResults, groupings: Sequence[Grouping]
) -> list[Json]:
    said = _said(results, system)
    cases = [c for c in system.pooled_cases if c.has_lesion]
    drawn = _Drawn(
        np.array([c.key.patient for c in cases], dtype=np.str_),
        np.array([c.scores["dice"] for c in cases], dtype=np.float64),
    )
    found = [_variable(results, grouping, said, drawn) for grouping in groupings]
    for name in _TESTED:
        tests = [v["interaction"][name] for v in found]
        with_p = [t for t in tests if t["p"] is not None]
        adjusted = holm(np.array([t["p"] for t in with_p])) if with_p else []
        for test, p in zip(with_p, adjusted, strict=True):
            test["p_holm"] = float(p)
    return found


def _variable(results: RunResults, grouping: Grouping, said: _Said, drawn: _Drawn) -> Json:
    levels = [_level(results, grouping, name, (said, drawn)) for name in grouping.levels]
    # Of an external test the cohort holds patients nobody was asked about.
    levels = [v for v in levels if len(v.said.patients) or len(v.drawn.patients)]
    figures = [_figures(results, level) for level in levels]

    def large(name: str) -> list[_Level]:
        pairs = zip(levels, figures, strict=True)
        return [level for level, f in pairs if f[name]["value"] is not None]

    people = set(said.patients.tolist()) | set(drawn.patients.tolist())
    if grouping.of_class is not None:
        wanted = results.task.classes[grouping.of_class]
        people = {p for p, c in patient_classes(results.cohort).items() if c == wanted} & people
    return {
        "name": grouping.name,
        "class": None if grouping.of_class is None else results.task.classes[grouping.of_class],
        "unknown": len(people - set(grouping.level_of)),
        "levels": figures,
        "interaction": {
            "auc": _plain(_test_auc(results, grouping, large("auc"))),
            "accuracy": _plain(_test_accuracy(large("accuracy"))),
            "dice": _plain(_test_dice(large("dice"))),
        },
    }


def _level(
    results: RunResults, grouping: Grouping, name: str, system: tuple[_Said, _Drawn]
) -> _Level:
    said, drawn = system

    def inside(patients: Keys) -> Bools:
        return np.array([grouping.level_of.get(p) == name for p in patients.tolist()], dtype=bool)

    rows = inside(said.patients)
    compared = rows if grouping.of_class is None else rows | (said.truth != grouping.of_class)
    if positive_class(results) is None:
        compared = np.zeros_like(rows)
    return _Level(name, said.of(rows), said.of(compared), drawn.of(inside(drawn.patients)))


def _figures(results: RunResults, level: _Level) -> Json:
    positive = positive_class(results)
    said = level.said
    right = said.truth == said.called
    found: Json = {
        "level": level.name,
        "patients": len(set(said.patients.tolist()) | set(level.drawn.patients.tolist())),
        "positive": None if positive is None else int((said.truth == positive).sum()),
        "frames": len(level.drawn.dice),
        "auc": _auc(results, level),
        "accuracy": _share(results, right, LEAST_PATIENTS),
    }
    if positive is not None:
        of_positive = said.truth == positive
        found["sensitivity"] = _share(results, right[of_positive], LEAST_OF_A_CLASS)
        found["specificity"] = _share(results, right[~of_positive], LEAST_OF_A_CLASS)
    drawn, n = level.drawn, len(set(level.drawn.patients.tolist()))
    if n < LEAST_PATIENTS:
        found["dice"] = _few(results, n, LEAST_PATIENTS)
    else:
        groups = drawn.patients.tolist()
        found["dice"] = bootstrapped(mean_of_rows(drawn.dice), groups, results.plan)
    return found


def _few(results: RunResults, n: int, least: int, of_what: str = "") -> Json:
    words = f"{n} patient{'s' * (n != 1)}{of_what}, fewer than {least}"
    return undefined_json(n, Unit.PATIENT, words, results.plan.level)


def _share(results: RunResults, right: Bools, least: int) -> Json:
    if len(right) < least:
        return _few(results, len(right), least)
    share = Proportion(int(right.sum()), len(right))
    return estimate_json(share.estimate(Unit.PATIENT, results.plan.level))


def _auc(results: RunResults, level: _Level) -> Json:
    positive, compared = positive_class(results), level.compared
    n = len(level.said.patients)
    if positive is None:
        words = "several classes"
        return undefined_json(n, Unit.PATIENT, words, results.plan.level)
    if n < LEAST_PATIENTS:
        return _few(results, n, LEAST_PATIENTS)
    truth = compared.truth == positive
    smaller = min(int(truth.sum()), int((~truth).sum()))
    if smaller < LEAST_OF_A_CLASS:
        return _few(results, smaller, LEAST_OF_A_CLASS, " of one class")
    try:
        found = delong(truth, compared.scores[:, positive], Unit.PATIENT, results.plan.level)
    except StatisticUndefined as error:
        return undefined_json(n, Unit.PATIENT, str(error), results.plan.level)
    return estimate_json(found)


# ---------------------------------------------------------------- interaction


def _test_auc(results: RunResults, grouping: Grouping, levels: Sequence[_Level]) -> Interaction:
    positive = positive_class(results)
    if positive is None:
        return Interaction("no test: several classes", None, None)
    if grouping.of_class is not None:
        return equal_ranks_of_groups([v.said.scores[:, positive] for v in levels])
    return equal_aucs_of_groups(
        [(v.said.truth == positive, v.said.scores[:, positive]) for v in levels]
    )


def _test_accuracy(levels: Sequence[_Level]) -> Interaction:
    right = [int((v.said.truth == v.said.called).sum()) for v in levels]
    counts = [[r, len(v.said.truth) - r] for r, v in zip(right, levels, strict=True)]
    found = compare_categories(np.array(counts, dtype=np.int64).reshape(len(levels), 2))
    return Interaction(found.test, found.statistic, found.p_value)


def _test_dice(levels: Sequence[_Level]) -> Interaction:
    """Patients' mean Dice between the groups."""
    if not levels:
        return Interaction("no test: fewer than two groups", None, None)
    means: list[Floats] = []
    for level in levels:
        _, codes = np.unique(level.drawn.patients, return_inverse=True)
        means.append(np.bincount(codes, weights=level.drawn.dice) / np.bincount(codes))
    found = compare_numbers(means)
    return Interaction(f"{found.test} of patients' mean Dice", found.statistic, found.p_value)


def _plain(test: Interaction) -> Json:
    return {"test": test.test, "statistic": test.statistic, "p": test.p_value, "p_holm": None}


# ---------------------------------------------------------------- as files


def write_subgroups(results: RunResults) -> Json:
    """Write subgroups.json and subgroups.csv of a run."""
    found = subgroups_of(results)
    write_json(results.folder.subgroups, found)
    write_text(results.folder.subgroups.with_suffix(".csv"), subgroups_csv(found))
    return found


def subgroups_csv(found: Json) -> str:
    """One line per system, variable, group and figure."""
    rows: list[list[str]] = []
    for system in found["systems"]:
        for variable in system["variables"]:
            for level in variable["levels"]:
                for name in (n for n in _FIGURES if n in level):
                    rows.append(_line(system["label"], variable, level, name))
    return table_text((*_CSV, *_CSV_END), rows)


def _line(label: str, variable: Json, level: Json, name: str) -> list[str]:
    figure, test = level[name], variable["interaction"].get(name, {})
    numbers = [figure["value"], figure["low"], figure["high"], figure["n"]]
    places = (label, variable["name"], variable["class"] or "", level["level"])
    words = (figure["unit"], figure["method"] or figure.get("note", ""))
    ps = (test.get("p"), test.get("p_holm"))
    return [
        *places,
        str(level["patients"]),
        name,
        *("" if v is None else f"{v:.6g}" for v in numbers),
        *words,
        *("" if p is None else f"{p:.3g}" for p in ps),
    ]
