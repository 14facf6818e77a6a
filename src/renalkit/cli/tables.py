"""How are figures shown in a terminal? One line per figure, with interval, n and method."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table

Json = dict[str, Any]

_NAMES = {
    "auc": "AUC",
    "auc_plain": "AUC, plain scale",
    "auc_bootstrap": "AUC, bootstrap",
    "average_precision": "average precision",
    "ppv": "PPV",
    "npv": "NPV",
    "f1": "F1",
    "ppv_at_prevalence": "PPV at the prevalence",
    "npv_at_prevalence": "NPV at the prevalence",
    "likelihood_ratio_positive": "likelihood ratio +",
    "likelihood_ratio_negative": "likelihood ratio -",
    "in_the_large": "calibration in the large",
    "slope": "calibration slope",
    "intercept": "calibration intercept",
    "brier": "Brier score",
    "ece": "calibration error",
    "log_loss": "log loss",
    "kappa": "Cohen's kappa",
    "kappa_quadratic": "kappa, quadratic weights",
}


def as_text(blocks: Iterable[RenderableType]) -> str:
    """Tables and sentences as plain text, as wide as the terminal (120 where there is none)."""
    out = io.StringIO()
    width = max(80, shutil.get_terminal_size((120, 24)).columns)
    # Words of a table are shown as they are: no markup, no colours.
    console = Console(
        file=out, width=width, color_system=None, markup=False, emoji=False, highlight=False
    )
    for block in blocks:
        console.print(block)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()).rstrip()


def shown(figure: Json, digits: int = 3) -> str:
    """A figure with its interval; n/a where there is none."""
    if figure["value"] is None:
        return "n/a"
    interval = ""
    if figure["low"] is not None and figure["high"] is not None:
        interval = f" ({figure['low']:.{digits}f} to {figure['high']:.{digits}f})"
    return f"{figure['value']:.{digits}f}{interval}"


def p_text(p: float | None) -> str:
    """A p-value with as many digits as are of use.

    >>> p_text(0.04321), p_text(0.0000012), p_text(None)
    ('0.043', '<0.0001', '')
    """
    if p is None:
        return ""
    if p < 0.0001:
        return "<0.0001"
    return f"{p:.3f}" if p >= 0.001 else f"{p:.4f}"


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="", box=box.SIMPLE_HEAD)
    for name in columns:
        table.add_column(name, overflow="fold", no_wrap=name not in ("figure", "method", "test"))
    return table


def _basis(figure: Json) -> tuple[str, str]:
    """What a figure rests on, and its method or the reason why it does not exist."""
    unit = figure["unit"] + ("" if figure["n"] == 1 else "s")
    why = figure.get("note", "").partition("; expected:")[0].partition("; remedy:")[0]
    return f"{figure['n']} {unit}", figure["method"] or why


def stats_blocks(found: Json) -> list[RenderableType]:
    """What `stats` found."""
    blocks: list[RenderableType] = [_head(found), ""]
    value = f"value, {100 * found['level']:g} % interval"
    for score in found["scores"]:
        blocks.append(_figures(score["score"], value, _figures_of(score)))
        blocks += [f"  {note}" for note in score.get("notes", [])]
        for point in score.get("operating_points", []):
            rows = [(_word(k), v) for k, v in point.items() if _is_figure(v)]
            blocks.append(_figures(f"{score['score']} {_place(point)}", value, rows))
    if found["differences"]:
        blocks.append(_differences(found))
    equality = found.get("equality")
    if equality:
        blocks.append(
            f"{equality['test']}: p {p_text(equality['p'])}"
            if equality["p"] is not None
            else f"equality of the AUCs: n/a ({equality['note']})"
        )
    return blocks


def _figures(title: str, value: str, rows: Iterable[tuple[str, Json]]) -> Table:
    table = _table(title, ("figure", value, "n", "method"))
    for name, figure in rows:
        table.add_row(name, shown(figure), *_basis(figure))
    return table


def _place(point: Json) -> str:
    """An operating point in words."""
    threshold = point["threshold"]
    if threshold is None:
        return f"at {point['asked']}: n/a ({point['note']})"
    counts = ", ".join(f"{n} {kind.upper()}" for kind, n in point["counts"].items())
    if threshold["rule"] == "given":
        return f"at or above {threshold['value']:g}: {counts}"
    how = f"{threshold['rule']}, chosen on {threshold['from']}"
    return f"at or above {threshold['value']:g} ({how}): {counts}"


def _head(found: Json) -> str:
    classes = ", ".join(f"{n} {label}" for label, n in found["classes"].items())
    lines = [
        f"{found['table']}: {found['n_rows']} rows of {found['n_patients']} patients; "
        f"{found['label']}: {classes}"
    ]
    if found["averaged"]:
        lines.append("Each row is the mean of a patient's rows.")
    elif not found["independent_rows"]:
        lines.append(
            f"Up to {found['most_rows_of_a_patient']} rows per patient: intervals and tests "
            "count patients."
        )
    elif found["cluster"] is None:
        lines.append("Each row counts as one patient.")
    if found["tuning"]:
        lines.append(
            f"Thresholds chosen on {found['tuning']['n_rows']} other rows of "
            f"{found['tuning']['n_patients']} other patients."
        )
    lines += [f"Left out: {o['rows']} rows {o['why']}." for o in found["left_out"]]
    return "\n".join(lines)


def _word(name: str) -> str:
    return _NAMES.get(name, name.replace("_", " "))


def _figures_of(score: Json) -> list[tuple[str, Json]]:
    """Every figure of a score with its name, but those of operating points."""
    rows: list[tuple[str, Json]] = [(_word(k), v) for k, v in score.items() if _is_figure(v)]
    if "auc_kind" in score:
        rows = [(f"{score['auc_kind']} AUC" if n == "AUC" else n, v) for n, v in rows]
        rows[1:1] = [(f"AUC, {part['part']}", part["auc"]) for part in score["parts"]]
        rows += [(f"recall of {k}", v) for k, v in score.get("recall", {}).items()]
    for part in score.get("partial_auc", []):
        rows.append((f"partial AUC, {part['part']}", part["raw"]))
        rows.append((f"partial AUC, {part['part']}, standardised", part["standardised"]))
    rows += [(_word(k), v) for k, v in score.get("calibration", {}).items() if _is_figure(v)]
    for cut in score.get("decision_curve", []):
        figures = ((k, v) for k, v in cut.items() if _is_figure(v))
        rows += [(f"{_word(name)} at {cut['threshold']:g}", v) for name, v in figures]
    return rows


def _is_figure(value: Any) -> bool:
    return isinstance(value, dict) and "value" in value and "unit" in value


def _differences(found: Json) -> Table:
    adjust = {"holm": "Holm", "bh": "Benjamini-Hochberg"}[found["adjust"]]
    interval = f"{100 * found['level']:g} % interval"
    title = f"Differences, first minus second; p adjusted over the pairs by {adjust}"
    columns = ("first - second", "figure", f"difference, {interval}", "p", "adjusted", "n", "test")
    table = _table(title, columns)
    for row in found["differences"]:
        name = row["metric"].replace("auc", "AUC").replace("_", " ")
        test = row["test"] or row["difference"].get("note", "")
        if row.get("thresholds_from", "given") != "given":
            test += f"; thresholds from {row['thresholds_from']}"
        if "shown" in row:
            test += "; shown" if row["shown"] else "; not shown"
        table.add_row(
            f"{row['first']} - {row['second']}",
            name,
            shown(row["difference"]),
            p_text(row["p"]),
            p_text(row.get("p_adjusted")),
            str(row["difference"]["n"]),
            test,
        )
    return table


# ---------------------------------------------------------------- readers


def readers_blocks(found: Json) -> list[RenderableType]:
    """The main tables of `readers evaluate`; the page and --json have the rest."""
    blocks: list[RenderableType] = [_readers_head(found), ""]
    blocks += [_readers_table(found, arm) for arm in found["arms"]]
    for arm in found["arms"]:
        blocks += [_averages_table(found, arm), _agreement_table(found, arm)]
    for title, key in (
        ("Systems at the operating points of majorities", "matched"),
        ("AUC of systems beside the mean AUC of readers", "areas"),
    ):
        rows = [(s["label"], r) for s in found["systems"] for r in s[key] if r["kind"] != "reader"]
        if rows:
            blocks.append(_beside_table(title, rows))
    blocks += [_arms_table(c) for c in found["contrasts"]]
    return blocks


def _readers_head(found: Json) -> str:
    first = found["arms"][0]
    arms = f", {len(found['arms'])} arms" if len(found["arms"]) > 1 else ""
    lines = [
        f"{len(first['readers'])} readers, {found['cases']} patients, {found['positives']} "
        f"{found['positive'] or 'positive'}{arms}"
    ]
    left_out = found["left_out"]
    lines += [f"Left out: {n}, excluded: {why}" for why, n in left_out.get("excluded", {}).items()]
    for name, words in (
        ("without_class", "without one class"),
        ("incomplete", "not read by every reader"),
        ("not_read", "of the cohort, read by nobody"),
    ):
        if left_out.get(name):
            lines.append(f"Left out: {left_out[name]}, {words}")
    return "\n".join(lines)


def _in_arm(found: Json, arm: Json) -> str:
    return f", {arm['arm']}" if len(found["arms"]) > 1 else ""


def _readers_table(found: Json, arm: Json) -> Table:
    calls = ("sensitivity", "specificity") if found["has"]["vote"] else ()
    names = (*calls, *(("auc",) if found["has"]["score"] else ()))
    title = f"Readers and majorities{_in_arm(found, arm)}"
    table = _table(title, ("who", "group", *(_word(n) for n in names)))
    for r in arm["readers"]:
        cells = (shown((r if n == "auc" else r["calls"])[n] or _NONE, 2) for n in names)
        table.add_row(r["reader"], r["group"], *cells)
    if found["has"]["vote"]:
        for g in arm["groups"]:
            if g["majority"] and len(g["readers"]) > 1:
                cells = (shown(g["majority"].get(n) or _NONE, 2) for n in names)
                table.add_row("majority", g["group"], *cells)
    for s in found["systems"] if arm["arm"] == found["baseline"] else ():
        cells = (shown((s if n == "auc" else s["point"] or {}).get(n) or _NONE, 2) for n in names)
        table.add_row(s["label"], "system", *cells)
    return table


_NONE: Json = {"value": None}


def _averages_table(found: Json, arm: Json) -> Table:
    names = ("sensitivity", "specificity", "auc")
    title = f"Averages over readers{_in_arm(found, arm)}"
    table = _table(title, ("group", *(_word(n) for n in names)))
    for g in arm["groups"]:
        table.add_row(g["group"], *(shown(g[n] or _NONE, 2) for n in names))
    return table


def _agreement_table(found: Json, arm: Json) -> Table:
    what = "scores" if found["has"]["score"] else "votes"
    title = f"Agreement of readers{_in_arm(found, arm)}"
    table = _table(title, ("group", "Fleiss' kappa of votes", f"ICC(2,1) of {what}"))
    for g in arm["groups"]:
        forms = {c["form"]: c["estimate"] for c in g["icc"]}
        table.add_row(
            g["group"], *(shown(c or _NONE, 2) for c in (g["kappa"], forms.get("ICC(2,1)")))
        )
    return table


def _beside_table(title: str, rows: Sequence[tuple[str, Json]]) -> Table:
    columns = ("system", "beside", "figure", "difference", "p", "Holm", "test")
    table = _table(f"{title}; system minus readers", columns)
    for label, row in rows:
        at = f" at the same {row['match']}" if "match" in row else ""
        table.add_row(
            label,
            f"{row['who']}, {row['kind']}",
            f"{row['figure']}{at}",
            shown(row["difference"], 2),
            p_text(row["p"]),
            p_text(row.get("p_holm")),
            row.get("test") or row["difference"].get("note", ""),
        )
    return table


def _arms_table(contrast: Json) -> Table:
    columns = ("group", "figure", "difference", "p", "Holm", "method")
    table = _table(f"{contrast['first']} minus {contrast['second']}", columns)
    for row in contrast["groups"]:
        table.add_row(
            row["group"],
            row["figure"],
            shown(row["difference"]),
            p_text(row["p"]),
            p_text(row.get("p_holm")),
            row["difference"].get("note") or f"{row['method']}, {row['to']}",
        )
    return table
