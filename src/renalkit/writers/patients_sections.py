"""Who were the patients, and do systems do equally well in all of them? Patients and subgroups."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, log10

from renalkit.writers.csv_table import csv_text
from renalkit.writers.document import (
    Block,
    Cell,
    Column,
    Figure,
    Folded,
    Paragraph,
    Section,
    Table,
    TableBuilder,
)
from renalkit.writers.figures import Interval, intervals
from renalkit.writers.source import Json, ReportSource, estimate, metric_name
from renalkit.writers.wording import (
    EN_DASH,
    NO_BREAK,
    NOT_AVAILABLE,
    PLUS_MINUS,
    Estimate,
    count,
    finite,
    methods_of,
    number,
    p_value,
    plural,
    share,
)

NUMBER = "number"
_UNITS = {
    **{name: name for name in ("years", "mm", "cm", "kg", "ml")},
    **{f"{a}_{b}": f"{a}/{b}" for a in ("g", "mg", "mmol") for b in ("l", "dl")},
    **{"t_l": "T/l", "u_l": "U/l", "ug_l": "µg/l", "umol_l": "µmol/l", "ng_ml": "ng/ml"},
    **{"ml_min": "ml/min", "mmhg": "mmHg", "percent": "%"},
}
"""How a unit at the end of a column's name is written, as ingest knows them."""
_COUNTED = ("cells", "platelets", "leukocytes", "thrombocytes")
_SHORT = {"bmi": "BMI", "egfr": "eGFR", "asa": "ASA", "ecog": "ECOG", "crp": "CRP"}
_GRADE = {"grade_who_isup": "Grade (WHO/ISUP)", "grade_fuhrman": "Grade (Fuhrman)"}
_MEASURES = ("auc", "accuracy", "sensitivity", "specificity", "dice")
_DRAWN = ("auc", "accuracy", "dice")


def variable_words(name: str) -> str:
    """The name of a column as readers write it.

    >>> variable_words("age_years"), variable_words("burned_in"), variable_words("crp_mg_l")
    ('Age (years)', 'Burned in', 'CRP (mg/l)')
    """
    if name in _GRADE:
        return _GRADE[name]
    base, unit = measured_in(name)
    text = " ".join(_SHORT.get(word, word) for word in base.split("_"))
    text = text[:1].upper() + text[1:] if base.split("_")[0] not in _SHORT else text
    return f"{text} ({unit})" if unit else text


def measured_in(name: str) -> tuple[str, str]:
    """The name of a column without its unit, and the unit ('' without one).

    Cells and platelets are counted: of them 'g_l' is 10^9 per litre (G/l), not grams.

    >>> measured_in("size_mm"), measured_in("platelets_g_l"), measured_in("sex")
    (('size', 'mm'), ('platelets', 'G/l'), ('sex', ''))
    """
    for end in sorted(_UNITS, key=len, reverse=True):
        base = name.removesuffix(f"_{end}")
        if base not in (name, ""):
            counted = end == "g_l" and base.endswith(_COUNTED)
            return base, "G/l" if counted else _UNITS[end]
    return name, ""


# ---- patients ------------------------------------------------------------------------------


def patients(source: ReportSource) -> Section:
    """The characteristics of patients by class, and by part where there are external patients."""
    found = source.characteristics
    if found is None:
        words = "No table of patients is stored with this run; 'renalkit evaluate' writes it."
        return Section("patients", "Patients", (Paragraph(words),))
    blocks: list[Block] = []
    if not any(table["rows"] for table in found["tables"]):
        blocks.append(Paragraph("The cohort holds no facts about its patients to compare."))
    for place, table in enumerate(t for t in found["tables"] if t["rows"]):
        blocks.append(_characteristics(table, f"characteristics{f'-{place + 1}' if place else ''}"))
    blocks.append(_counts(found["tables"][0]))
    return Section("patients", "Patients", tuple(blocks))


def _characteristics(found: Json, name: str) -> Table:
    groups = found["groups"]
    by = str(found["by"])
    everyone = sum(g["patients"] for g in groups)
    table = TableBuilder(
        name,
        f"Characteristics of patients, by {by}.",
        (
            Column("Characteristic"),
            Column("Value"),
            Column(f"All {_n(everyone)}", NUMBER),
            *(Column(f"{g['name']} {_n(g['patients'])}", NUMBER) for g in groups),
            Column("Missing", NUMBER),
            Column("p", NUMBER),
            Column("SMD", NUMBER),
        ),
    )
    for row in found["rows"]:
        _characteristic(table, row)
    caption = (
        f"The unit is the patient. Numbers are mean {PLUS_MINUS} SD where no group departs from "
        "a normal distribution (Shapiro-Wilk, 5 %), otherwise median (interquartile range); "
        "counts are n (% of known values). SMD: standardised mean difference, of several groups "
        "the largest; it does not grow with the number of patients as p values shrink. p values "
        "are not adjusted."
    )
    if found["left_out"]:
        caption += f" {plural(found['left_out'], 'patient')} of unknown {by} left out."
    return table.build(caption)


def _n(patients: int) -> str:
    """Number of a group, which stays on one line."""
    return f"(n = {count(patients)})".replace(" ", NO_BREAK)


def _characteristic(table: TableBuilder, row: Json) -> None:
    cells = [row["overall"], *row["groups"]]
    p = finite(row["p"])
    test = Cell(p_value(p) if p is not None else NOT_AVAILABLE, note=str(row["test"]))
    tail = (count(row["overall"]["missing"]), test, number(row["smd"]))
    name = variable_words(str(row["variable"]))
    if row["kind"] == "number":
        normal = row["summary"] == "mean and SD"
        form = f"mean {PLUS_MINUS} SD" if normal else "median (IQR)"
        digits = _digits(finite(row["overall"].get("sd")))
        table.add(name, form, *(_of_numbers(c, digits, normal=normal) for c in cells), *tail)
        return
    for place, level in enumerate(row["levels"]):
        shares = [_of_counts(c, place) for c in cells]
        if place == 0:
            table.add(name, str(level), *shares, *tail)
        else:
            table.add("", str(level), *shares, "", "", "")


def _digits(sd: float | None) -> int:
    """Decimals that show two digits of the scatter: one to three."""
    return 1 if not sd else min(3, max(1, 1 - floor(log10(sd))))


def _of_numbers(cell: Json, digits: int, *, normal: bool) -> str:
    if not cell["n"]:
        return NOT_AVAILABLE
    if normal:
        return f"{number(cell['mean'], digits)} {PLUS_MINUS} {number(cell['sd'], digits)}"
    low, high = number(cell["q1"], digits), number(cell["q3"], digits)
    return f"{number(cell['median'], digits)} ({low}{EN_DASH}{high})"


def _of_counts(cell: Json, place: int) -> str:
    known, found = int(cell["n"]), int(cell["counts"][place])
    return f"{count(found)} ({share(found, known)})" if known else NOT_AVAILABLE


def _counts(found: Json) -> Table:
    table = TableBuilder(
        "histology",
        "Patients, lesions and images by class and histology.",
        (
            Column("Class"),
            Column("Histology"),
            Column("Patients", NUMBER),
            Column("Lesions", NUMBER),
            Column("Images", NUMBER),
        ),
    )
    for row in found["counts"]:
        names = (str(row["class"] or "unknown"), str(row["histology"] or "not given"))
        table.add(*names, *(count(row[n]) for n in ("patients", "lesions", "images")))
    return table.build("A patient with lesions of several kinds stands in several lines.")


# ---- subgroups -----------------------------------------------------------------------------


def subgroups(source: ReportSource) -> Section:
    """Figures of each system by scanner, site, size and so on, with tests of interaction."""
    found = source.subgroups
    if found is None:
        words = "No figures of subgroups are stored with this run; 'renalkit evaluate' writes them."
        return Section("subgroups", "Subgroups", (Paragraph(words),))
    order = [str(s["label"]) for s in source.systems]
    # Labels become file names; those of the run's figures were checked.
    systems = [s for s in found["systems"] if s["variables"] and s["label"] in order]
    if not systems:
        words = "No variable of this cohort has two known groups of patients, so none is compared."
        return Section("subgroups", "Subgroups", (Paragraph(words),))
    few = int(found["least_patients"])
    left_out = {"leave-site-out": "site", "leave-scanner-out": "scanner"}.get(
        str(source.split.get("plan"))
    )
    blocks: list[Block] = [
        Paragraph(
            "Subgroups were not trained or tuned for. A test of interaction asks whether the "
            "groups of one variable differ at all; a difference between two intervals is no test. "
            f"Groups of fewer than {count(few)} patients have no figures (n/a), and AUC, "
            "sensitivity and specificity need "
            f"{count(found['least_of_a_class'])} patients of each class they rest on."
            + (
                f" Every {left_out} was tested by models that never saw it: the figures by "
                f"{left_out} say how they do at a new one."
                if left_out
                else ""
            ),
            "note",
        )
    ]
    for system in systems:
        blocks += _of_system(system, order)
    return Section("subgroups", "Subgroups", tuple(blocks))


def _of_system(system: Json, order: Sequence[str]) -> list[Block]:
    label = str(system["label"])
    shown = [n for n in _MEASURES if _known(system, n)]
    if not shown:
        return [Paragraph("Every group of patients is too small for a figure.", opening=label)]
    place = order.index(label)
    drawn = [n for n in _DRAWN if n in shown]
    if "auc" in drawn and "accuracy" in drawn:
        drawn.remove("accuracy")  # it stands in the table
    blocks: list[Block] = [_forest(system, name, place) for name in drawn]
    blocks.append(_interactions(system, [n for n in _DRAWN if n in shown]))
    blocks.append(Folded(f"All figures of subgroups: {label}", (_all_figures(system, shown),)))
    return blocks


def _known(system: Json, measure: str) -> bool:
    return any(
        finite((level.get(measure) or {}).get("value")) is not None
        for variable in system["variables"]
        for level in variable["levels"]
    )


def _group_words(variable: Json) -> str:
    name = variable_words(str(variable["name"]))
    return f"{name} of {variable['class']}" if variable["class"] else name


def _forest(system: Json, measure: str, place: int) -> Figure:
    items: list[Interval] = []
    rows: list[list[object]] = []
    for variable in system["variables"]:
        for level in variable["levels"]:
            e = estimate(level, measure)
            patients = int(level["patients"])
            words = f"{_group_words(variable)}: {level['level']} (n = {count(patients)})"
            items.append(Interval(words, e, place=place))
            group = (_group_words(variable), str(level["level"]), patients)
            rows.append([*group, e.value, e.low, e.high, e.n, e.method or e.note])
    label = str(system["label"])
    known = [i.estimate for i in items]
    name = metric_name(measure)
    return Figure(
        f"subgroups-{measure}-{label}",
        f"{name} by subgroup: {label}.",
        intervals(items, f"{name}, with interval"),
        caption=f"n: patients of the group. {methods_of(known)}.",
        csv=csv_text(
            ("variable", "group", "patients", measure, "low", "high", "n", "method"), rows
        ),
    )


def _interactions(system: Json, measures: Sequence[str]) -> Table:
    label = str(system["label"])
    table = TableBuilder(
        f"interaction-{label}",
        f"Tests of interaction: {label}.",
        (
            Column("Variable"),
            Column("Unknown", NUMBER),
            Column("Measure"),
            Column("Test"),
            Column("p", NUMBER),
            Column("p\N{NO-BREAK SPACE}(Holm)", NUMBER),
        ),
    )
    for variable in system["variables"]:
        unknown = count(variable["unknown"])
        for place, measure in enumerate(measures):
            test = variable["interaction"][measure]
            table.add(
                _group_words(variable),
                unknown if place == 0 else "",
                metric_name(measure),
                str(test["test"]),
                p_value(test["p"]),
                p_value(test["p_holm"]),
            )
    return table.build(
        "Do the groups of a variable differ? Holm's adjustment is over the variables of this "
        "system and measure. Unknown: patients without a value, in none of the groups."
    )


def _all_figures(system: Json, measures: Sequence[str]) -> Table:
    label = str(system["label"])
    table = TableBuilder(
        f"subgroups-{label}",
        f"Figures by subgroup: {label}.",
        (
            Column("Variable"),
            Column("Group"),
            Column("Patients", NUMBER),
            *(Column(metric_name(n), NUMBER) for n in measures),
        ),
        stacked=True,
    )
    for variable in system["variables"]:
        for level in variable["levels"]:
            figures: list[Estimate] = [estimate(level, n) for n in measures]
            words = (_group_words(variable), str(level["level"]), count(level["patients"]))
            table.add(*words, *figures)
    words = "Histology and grade exist within a class: their AUC is against all of the other class."
    methods = methods_of(table.estimates)
    return table.build(f"{words} {methods}." if methods else words)
