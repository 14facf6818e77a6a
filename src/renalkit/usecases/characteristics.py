"""Who were the patients, and do the classes differ in age, size, findings? The table of a paper.

One row per variable, one column per class (or per group of another variable). The unit is the
patient; of several lesions the index lesion speaks for the patient (`renalkit.domain.profile`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import floor, log10, nan
from pathlib import Path

import numpy as np

from renalkit.domain.cohort import Cohort
from renalkit.domain.profile import (
    AFTER_THE_FACT,
    Kind,
    Variable,
    patient_classes,
    patient_variables,
)
from renalkit.errors import ConfigError
from renalkit.metrics.characteristics import (
    CategoryComparison,
    NumberSummary,
    compare_categories,
    compare_numbers,
)
from renalkit.store.cohorts import load_cohort, table_text
from renalkit.store.files import write_json, write_text
from renalkit.store.runs import RunFolder
from renalkit.usecases.results import Json

CLASS = "class"
NESTED = "no test: each value belongs to one group only"


def table_of(cohort: Cohort, by: str = CLASS) -> Json:
    """The table of a cohort, grouped by class or by a category that is known of the patients.

    Raises ConfigError when there is no such category; it names those there are.
    """
    classes = patient_classes(cohort)
    labels = tuple(c for c in cohort.task.classes if c in classes.values())
    known = {p: c for p, c in classes.items() if c is not None}
    variables = patient_variables(cohort)
    if by == CLASS:
        return grouped(cohort, CLASS, known, labels, variables)
    categories = {v.name: v for v in variables if v.kind is Kind.CATEGORY}
    if by not in categories:
        names = ", ".join((CLASS, *categories))
        raise ConfigError([f"--by: no category '{by}' in this cohort; there are {names}"])
    chosen = categories[by]
    groups = {p: str(v) for p, v in chosen.values.items()}
    rest = (Variable(CLASS, Kind.CATEGORY, known, labels), *(v for v in variables if v.name != by))
    return grouped(cohort, by, groups, chosen.levels, rest)


def grouped(
    cohort: Cohort,
    by: str,
    groups: Mapping[str, str],
    names: Sequence[str],
    variables: Sequence[Variable],
) -> Json:
    """The table for any grouping of patients; those without a group are counted and left out.

    groups: group of each patient. names: the groups in order.
    """
    members = {name: sorted(p for p, g in groups.items() if g == name) for name in names}
    return {
        "by": by,
        "unit": "patient",
        "groups": [{"name": name, "patients": len(members[name])} for name in names],
        "left_out": len(cohort.patients) - sum(map(len, members.values())),
        "rows": [_row(v, list(members.values())) for v in variables],
        "counts": _counts(cohort),
    }


def _row(variable: Variable, members: Sequence[Sequence[str]]) -> Json:
    numbers = variable.kind is Kind.NUMBER
    found = _number_row(variable, members) if numbers else _category_row(variable, members)
    return {"variable": variable.name, "kind": variable.kind.value} | found


def _number_row(variable: Variable, members: Sequence[Sequence[str]]) -> Json:
    arrays = [np.array([variable.values.get(p, nan) for p in g], dtype=float) for g in members]
    found = compare_numbers(arrays)
    return {
        "summary": "mean and SD" if found.normal else "median and quartiles",
        "overall": asdict(found.overall),
        "groups": [asdict(g) for g in found.groups],
        "test": found.test,
        "statistic": found.statistic,
        "p": found.p_value,
        "smd": found.smd,
    }


def _category_row(variable: Variable, members: Sequence[Sequence[str]]) -> Json:
    counts = [
        [sum(variable.values.get(p) == level for p in group) for level in variable.levels]
        for group in members
    ]
    table = np.array(counts, dtype=np.int64).reshape(len(members), len(variable.levels))
    several = table.shape[1] > 1 and int((table.sum(axis=1) > 0).sum()) > 1
    nested = several and bool(((table > 0).sum(axis=0) <= 1).all())
    if nested and variable.name in AFTER_THE_FACT:
        # Histology of benign and of malignant lesions: a test would only repeat the definition.
        found = CategoryComparison(NESTED, None, None, None)
    else:
        found = compare_categories(table)
    return {
        "levels": list(variable.levels),
        "overall": _shares(table.sum(axis=0).tolist(), sum(map(len, members))),
        "groups": [_shares(row, len(group)) for row, group in zip(counts, members, strict=True)],
        "test": found.test,
        "statistic": found.statistic,
        "p": found.p_value,
        "smd": found.smd,
    }


def _shares(counts: Sequence[int], patients: int) -> Json:
    known = sum(counts)
    return {"n": known, "missing": patients - known, "counts": list(counts)}


def _counts(cohort: Cohort) -> list[Json]:
    """Patients, lesions and images by class and histology; a patient may stand in several lines.

    Images are frames that show the lesion where lesions are outlined, else all of its study.
    """
    rows: dict[tuple[str, str], tuple[set[str], int, set[tuple[str, int, int]]]] = {}
    for study in cohort.studies:
        every = {
            (study.key, c, f) for c, clip in enumerate(study.clips) for f in range(clip.n_frames)
        }
        outlined = any(lesion.rois for lesion in study.lesions)
        found = [
            (
                (lesion.label or "", lesion.histology or ""),
                1,
                {(study.key, r.clip, r.frame) for r in lesion.rois} if outlined else every,
            )
            for lesion in study.lesions
        ] or [((study.label or "", ""), 0, every)]
        for key, lesions, images in found:
            people, n, seen = rows.get(key, (set[str](), 0, set[tuple[str, int, int]]()))
            rows[key] = (people | {study.patient}, n + lesions, seen | images)
    order = {name: k for k, name in enumerate(cohort.task.classes)}
    return [
        {
            "class": label or None,
            "histology": histology or None,
            "patients": len(people),
            "lesions": lesions,
            "images": len(images),
        }
        for (label, histology), (people, lesions, images) in sorted(
            rows.items(), key=lambda r: (order.get(r[0][0], len(order)), -len(r[1][0]), r[0][1])
        )
    ]


# ---------------------------------------------------------------- as text


def table_csv(table: Json) -> str:
    """The table as a paper prints it; number of known values where some are missing."""
    names = [f"{g['name']} (n = {g['patients']})" for g in table["groups"]]
    total = sum(g["patients"] for g in table["groups"])
    head = ["variable", "value", f"all (n = {total})", *names, "missing", "p", "test", "SMD"]
    return table_text(head, [line for row in table["rows"] for line in _lines(row)])


def _lines(row: Json) -> list[list[str]]:
    cells = [row["overall"], *row["groups"]]
    tail = [
        str(row["overall"]["missing"]),
        p_words(row["p"]),
        row["test"],
        "" if row["smd"] is None else f"{row['smd']:.3f}",
    ]
    if row["kind"] == Kind.NUMBER:
        normal = row["summary"] == "mean and SD"
        form = "mean ± SD" if normal else "median (IQR)"
        digits = _digits(row["overall"]["sd"])
        shown = [_number_words(NumberSummary(**c), normal, digits) for c in cells]
        return [[row["variable"], form, *shown, *tail]]
    lines = [
        [row["variable"] if k == 0 else "", level, *(_share_words(c, k) for c in cells)]
        for k, level in enumerate(row["levels"])
    ]
    return [line + (tail if k == 0 else [""] * 4) for k, line in enumerate(lines)]


def _digits(sd: float | None) -> int:
    """Decimals that show two digits of the scatter: one to three."""
    return 1 if not sd else min(3, max(1, 1 - floor(log10(sd))))


def _number_words(cell: NumberSummary, normal: bool, digits: int) -> str:
    if cell.n == 0:
        return "n/a"
    if normal:
        sd = "n/a" if cell.sd is None else f"{cell.sd:.{digits}f}"
        return f"{cell.mean:.{digits}f} ± {sd}"
    return f"{cell.median:.{digits}f} ({cell.q1:.{digits}f} to {cell.q3:.{digits}f})"


def _share_words(cell: Json, level: int) -> str:
    count, known = cell["counts"][level], cell["n"]
    return f"{count} ({100 * count / known:.1f} %)" if known else "n/a"


def p_words(p: float | None) -> str:
    """A p-value as papers print it."""
    if p is None:
        return ""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


# ---------------------------------------------------------------- in a run


def write_characteristics(folder: RunFolder, cohort: Cohort, external: frozenset[str]) -> None:
    """Write characteristics.json and .csv: by class and, with external patients, by part."""
    tables = [table_of(cohort)]
    if external:
        parts = {p: "external" if p in external else "development" for p in cohort.patients}
        classes = {p: c for p, c in patient_classes(cohort).items() if c is not None}
        of_class = Variable(CLASS, Kind.CATEGORY, classes, cohort.task.classes)
        variables = (of_class, *patient_variables(cohort))
        tables.append(grouped(cohort, "part", parts, ("development", "external"), variables))
    write_json(folder.characteristics, {"schema": 1, "tables": tables})
    for table in tables:
        name = "" if table["by"] == CLASS else f"-{table['by']}"
        write_text(folder.path / f"characteristics{name}.csv", table_csv(table))


# ---------------------------------------------------------------- the command


def cohort_table(folder: Path, by: str = CLASS, csv: Path | None = None) -> Json:
    """The table of a cohort folder; written as CSV too when asked for.

    Raises ConfigError (no such grouping), StoreError (no cohort, or the CSV cannot be written).
    """
    table = table_of(load_cohort(folder), by)
    if csv is not None:
        write_text(csv, table_csv(table))
    return table


def table_words(table: Json) -> str:
    """The table for a terminal."""
    groups = [f"{g['name']} (n = {g['patients']})" for g in table["groups"]]
    rows = [["", f"all (n = {sum(g['patients'] for g in table['groups'])})", *groups, "p", "SMD"]]
    for row in table["rows"]:
        for name, value, *cells, missing, p, _, smd in _lines(row):
            unknown = f", {missing} unknown" if missing not in ("", "0") else ""
            first = f"{name}, {value}{unknown}" if name else f"  {value}"
            rows.append([first, *cells, p, smd])
    widths = [max(len(r[k]) for r in rows) for k in range(len(rows[0]))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows]
    lines.append("")
    for c in table["counts"]:
        of = ", ".join(w for w in (c["class"] or "no class", c["histology"]) if w)
        lines.append(
            f"{of}: {c['patients']} patients, {c['lesions']} lesions, {c['images']} images"
        )
    if table["left_out"]:
        lines.append(f"left out: {table['left_out']} patients of unknown {table['by']}")
    return "\n".join(lines)
