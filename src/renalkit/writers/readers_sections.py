"""How do readers do alone, as groups, beside the systems and with another way of reading?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from renalkit.writers.csv_table import csv_text
from renalkit.writers.document import (
    Block,
    Cell,
    Column,
    Figure,
    Folded,
    Heading,
    Paragraph,
    Section,
    Table,
    TableBuilder,
)
from renalkit.writers.figures import Curve, Panel, Points, roc
from renalkit.writers.reader_comparisons import arms_compared, methods, strong, systems_beside
from renalkit.writers.reader_words import arms_read, who_read
from renalkit.writers.source import Json, ReportSource, estimate, metric_name
from renalkit.writers.wording import (
    EN_DASH,
    Estimate,
    count,
    finite,
    plural,
)

NUMBER = "number"
_CALLS = ("accuracy", "sensitivity", "specificity", "ppv", "npv")
_ICC_WORDS = (
    "ICC(1,.): other readers for every case; (2,.): readers as a sample, their bias counts; (3,.): "
    "these readers, bias does not count. (.,1): one reader; (.,k): the mean of all."
)


def readers(source: ReportSource) -> Section | None:
    """The readings kept in the run; no section without them."""
    if source.readers is None:
        return None
    return readers_section(source.readers, [str(s["label"]) for s in source.systems])


def readers_section(found: Json, order: Sequence[str]) -> Section:
    """Readers, groups and majorities, agreement, systems and arms. order: of systems' colours."""
    blocks: list[Block] = [Paragraph(_opening(found), "note")]
    drawing = _roc(found, order)
    if drawing is not None:
        blocks.append(drawing)
    if found["has"]["vote"]:
        blocks.append(_majorities(found))
    blocks.append(_averages(found))
    blocks.append(_each(found))
    blocks += _agreement(found)
    blocks += systems_beside(found)
    blocks += arms_compared(found)
    return Section("readers", "Readers", tuple(blocks))


# ---- who read what -------------------------------------------------------------------------


def _opening(found: Json) -> str:
    positive = found["positive"] or "positive"
    sentences = [f"{who_read(found)}, {count(found['positives'])} {positive}{arms_read(found)}"]
    if found["vote_at"] is not None:
        sentences.append(f"A score of {found['vote_at']:g} or more counts as a positive call")
    if found["scale"]:
        sentences.append(f"Scores run from {found['scale']}")
    sentences += _left_out(found["left_out"])
    return f"{'. '.join(sentences)}."


def _left_out(left_out: Json) -> Iterator[str]:
    for reason, n in left_out.get("excluded", {}).items():
        yield f"Read but excluded from the cohort ({reason}): {plural(int(n), 'patient')}"
    for name, words in (
        ("without_class", "Read but without one class"),
        ("not_read", "Of the cohort, but read by nobody"),
        ("incomplete", "Left out because not every reader read them in every arm"),
    ):
        if left_out.get(name):
            yield f"{words}: {plural(int(left_out[name]), 'patient')}"


def _several(found: Json) -> bool:
    return len(found["arms"]) > 1


def _arm_columns(found: Json) -> tuple[Column, ...]:
    return (Column("Arm"),) if _several(found) else ()


def _arm_cells(found: Json, arm: str) -> tuple[str, ...]:
    return (arm,) if _several(found) else ()


# ---- figure --------------------------------------------------------------------------------


def _point(calls: Json) -> tuple[float, float] | None:
    sensitivity = finite(calls["sensitivity"]["value"])
    specificity = finite(calls["specificity"]["value"])
    if sensitivity is None or specificity is None:
        return None
    return 1 - specificity, sensitivity


def _roc(found: Json, order: Sequence[str]) -> Figure | None:
    """Curves of systems, points of readers; a panel per arm."""
    curves = [_curve(s, "label", order) for s in found["systems"] if s["roc"] is not None]
    panels: list[Panel] = []
    rows: list[tuple[object, ...]] = []
    for arm in found["arms"]:
        points = _points(arm)
        scored = [] if points else [r for r in arm["readers"] if r["roc"] is not None]
        lines = [*curves, *(_curve(r, "reader", [*order, *_names(arm)]) for r in scored)]
        panels.append(
            Panel(str(arm["arm"]) if _several(found) else "", tuple(lines), tuple(points))
        )
        rows += (
            ("majority" if p.large else "reader", p.name, arm["arm"], *at)
            for p in points
            for at in p.at
        )
        rows += (
            ("curve", c.name, arm["arm"], x, y)
            for c in lines
            for x, y in zip(c.fpr, c.tpr, strict=True)
        )
    if not rows:
        return None
    points = any(p.points for p in panels)
    caption = (
        "A small mark is one reader's votes, a large open one the majority of the group. "
        "A vote is one operating point: no curve is drawn through it."
        if points
        else "Curves of the readers' scores."
    )
    return Figure(
        "readers-roc",
        "Readers' operating points" + (" on the systems' curves." if curves else ".")
        if points
        else "Readers' ROC curves.",
        roc(panels),
        caption=caption + (" A panel per arm." if _several(found) else ""),
        csv=csv_text(("kind", "name", "arm", "false_positive_rate", "true_positive_rate"), rows),
        description="Operating points of readers and ROC curves of systems",
    )


def _curve(of: Json, name: str, order: Sequence[str]) -> Curve:
    label, raw = str(of[name]), of["roc"]
    place = order.index(label) if label in order else len(order)
    return Curve(label, tuple(raw["fpr"]), tuple(raw["tpr"]), place)


def _names(arm: Json) -> list[str]:
    return [str(r["reader"]) for r in arm["readers"]]


def _points(arm: Json) -> list[Points]:
    calls = {r["reader"]: r["calls"] for r in arm["readers"] if r["calls"]}
    groups = arm["groups"] if len(arm["groups"]) == 1 else arm["groups"][:-1]
    found: list[Points] = []
    for place, g in enumerate(groups):
        at = [_point(calls[name]) for name in g["readers"] if name in calls]
        known = tuple(p for p in at if p is not None)
        if known:
            found.append(Points(str(g["group"]), known, place))
        whole = None if g["majority"] is None else _point(g["majority"])
        if whole is not None and len(g["readers"]) > 1:
            found.append(Points(f"{g['group']}, majority", (whole,), place, large=True))
    return found


# ---- readers and groups --------------------------------------------------------------------


def _call_columns(found: Json) -> tuple[Column, ...]:
    names = (*(_CALLS if found["has"]["vote"] else ()), *(("auc",) if _has_auc(found) else ()))
    return tuple(Column(metric_name(n), NUMBER) for n in names)


def _has_auc(found: Json) -> bool:
    return bool(found["has"]["score"]) or any(s["auc"] for s in found["systems"])


def _call_cells(found: Json, calls: Json | None, area: Estimate) -> list[Estimate]:
    cells = [estimate(calls, n, area.note) for n in _CALLS] if found["has"]["vote"] else []
    return [*cells, *([area] if _has_auc(found) else [])]


def _by_group(found: Json) -> Iterator[tuple[Json, Json]]:
    """Arms and their groups, group by group."""
    for place in range(len(found["arms"][0]["groups"])):
        for arm in found["arms"]:
            yield arm, arm["groups"][place]


def _ties(group: Json, rule: str | None) -> str:
    if not group["ties"]:
        return ""
    words = {"chair": "settled by the chair", "left out": "left out"}
    return f"{plural(int(group['ties']), 'tie')} {words.get(str(rule), f'called {rule}')}"


_NO_CURVE = "votes are one operating point: no AUC"


def _majorities(found: Json) -> Table:
    table = TableBuilder(
        "readers-majority",
        "Majorities of readers" + (" and systems." if found["systems"] else "."),
        (
            Column("Who"),
            *_arm_columns(found),
            Column("Patients", NUMBER),
            *_call_columns(found),
        ),
        stacked=True,
    )
    for arm, g in _by_group(found):
        n = len(g["readers"])
        who = f"{g['group']}, majority of {n}" if n > 1 else f"{g['group']}, one reader"
        decided = sum(g["majority"]["counts"].values()) if g["majority"] else 0
        patients = Cell(count(decided), note=_ties(g, found["ties"]))
        area = Estimate.of(g["auc"], _NO_CURVE)
        if area.defined and n > 1:
            area = replace(area, note="mean of the readers' AUCs")
        cells = _call_cells(found, g["majority"], area)
        table.add(strong(who), *_arm_cells(found, arm["arm"]), patients, *cells)
    for s in found["systems"]:
        why = str(s["note"])
        cells = _call_cells(found, s["point"], Estimate.of(s["auc"], why))
        table.add(
            strong(s["label"]),
            *_arm_cells(found, EN_DASH),
            Cell(count(s["cases"]), note=why),
            *cells,
        )
    systems = " Systems at the thresholds of their folds." if found["systems"] else ""
    return table.build(
        f"PPV and NPV hold at the share of positive patients here.{systems} "
        f"{methods(table.estimates)}."
    )


def _averages(found: Json) -> Table:
    names = (
        *(("sensitivity", "specificity") if found["has"]["vote"] else ()),
        *(("auc",) if found["has"]["score"] else ()),
    )
    table = TableBuilder(
        "readers-average",
        "Averages over readers.",
        (
            Column("Group"),
            *_arm_columns(found),
            Column("Readers", NUMBER),
            *(Column(metric_name(n), NUMBER) for n in names),
        ),
    )
    for arm, g in _by_group(found):
        cells = (estimate(g, m) for m in names)
        n = count(len(g["readers"]))
        table.add(strong(g["group"]), *_arm_cells(found, arm["arm"]), n, *cells)
    notes = sorted({n for arm in found["arms"] for g in arm["groups"] for n in g["notes"]})
    more = f" {'; '.join(notes)}." if notes else ""
    return table.build(
        "Intervals speak for readers like these and other patients, unless they say 'fixed "
        f"readers'. {methods(table.estimates)}.{more}"
    )


def _each(found: Json) -> Table:
    table = TableBuilder(
        "readers-each",
        "Every reader.",
        (Column("Reader"), Column("Group"), *_arm_columns(found), *_call_columns(found)),
        stacked=True,
    )
    for place in range(len(found["arms"][0]["readers"])):
        for arm in found["arms"]:
            r = arm["readers"][place]
            cells = _call_cells(found, r["calls"], Estimate.of(r["auc"], _NO_CURVE))
            table.add(strong(r["reader"]), str(r["group"]), *_arm_cells(found, arm["arm"]), *cells)
    return table.build(f"n = {plural(found['cases'], 'patient')}. {methods(table.estimates)}.")


# ---- agreement -----------------------------------------------------------------------------


def _agreement(found: Json) -> list[Block]:
    if len(found["arms"][0]["readers"]) < 2:
        return []
    blocks: list[Block] = [Heading("Agreement of readers")]
    groups = [(a, g) for a in found["arms"] for g in a["groups"] if len(g["readers"]) > 1]
    if found["has"]["vote"]:
        table = TableBuilder(
            "readers-agreement",
            "Agreement of votes.",
            (
                Column("Group"),
                *_arm_columns(found),
                Column("Fleiss' kappa", NUMBER),
                Column("Pairs that agree", NUMBER),
                Column("All agree", NUMBER),
            ),
        )
        for arm, g in groups:
            table.add(
                strong(g["group"]),
                *_arm_cells(found, arm["arm"]),
                Estimate.of(g["kappa"], "all votes are the same"),
                estimate(g["agreement"], "pairwise"),
                estimate(g["agreement"], "unanimous"),
            )
        blocks.append(table.build(f"{methods(table.estimates)}."))
    blocks.append(_icc(found, groups))
    pairs = _pairs(found, groups)
    if pairs is not None:
        blocks.append(Folded("Kappa of every two readers", (pairs,)))
    return blocks


def _icc(found: Json, groups: Sequence[tuple[Json, Json]]) -> Table:
    forms = list(dict.fromkeys(c["form"] for _, g in groups for c in g["icc"]))
    what = "scores" if found["has"]["score"] else "votes"
    table = TableBuilder(
        "readers-icc",
        f"Intraclass correlation of {what}.",
        (Column("Group"), *_arm_columns(found), *(Column(f, NUMBER) for f in forms)),
        stacked=True,
    )
    for arm, g in groups:
        of_form = {c["form"]: c["estimate"] for c in g["icc"]}
        cells = [Estimate.of(of_form.get(f), "does not exist for these readings") for f in forms]
        table.add(strong(g["group"]), *_arm_cells(found, arm["arm"]), *cells)
    votes = "" if found["has"]["score"] else " Of votes, kappa says the same more directly."
    return table.build(f"{_ICC_WORDS}{votes} {_level(table.estimates)} F intervals.")


def _level(estimates: Sequence[Estimate]) -> str:
    known = [e.level for e in estimates if e.defined]
    return f"{100 * known[0]:g} %" if known else "95 %"


def _pairs(found: Json, groups: Sequence[tuple[Json, Json]]) -> Table | None:
    last = groups[-1][1]["group"]
    rows = [(arm, row) for arm, g in groups if g["group"] == last for row in g["pairs"]]
    kinds = [k for k in ("kappa", "linear", "quadratic") if any(k in row for _, row in rows)]
    if not kinds:
        return None
    heads = {
        "kappa": "Kappa of votes",
        "linear": "Scores, linear weights",
        "quadratic": "Scores, quadratic weights",
    }
    table = TableBuilder(
        "readers-pairs",
        "Cohen's kappa of every two readers.",
        (
            Column("First"),
            Column("Second"),
            *_arm_columns(found),
            *(Column(heads[k], NUMBER) for k in kinds),
        ),
    )
    for arm, row in rows:
        cells = [estimate(row, k) for k in kinds]
        table.add(str(row["first"]), str(row["second"]), *_arm_cells(found, arm["arm"]), *cells)
    return table.build(f"{methods(table.estimates)}.")
