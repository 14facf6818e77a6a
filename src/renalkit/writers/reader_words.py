"""What does a run say of its readers, in sentences? For the methods paragraph.

Every function gives a few sentences, or "" where the run holds no readings. Methods are named as
the stored figures name them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from renalkit.writers.source import Json, ReportSource, metric_name
from renalkit.writers.wording import listed, plural

_FREEDOM = re.compile(r"(?:,| of) \d+ readers?(?=,|$)| with [\d.]+ df")


def without_freedom(method: str) -> str:
    """A method without readers and degrees of freedom, which differ from row to row.

    >>> without_freedom("Obuchowski-Rockette, random readers and cases, 3 readers, t with 3.1 df")
    'Obuchowski-Rockette, random readers and cases, t'
    """
    return _FREEDOM.sub("", method)


def who_read(found: Json) -> str:
    """Readers by group, and patients: '6 readers (3 junior, 3 senior) read 40 patients'."""
    first = found["arms"][0]
    groups = [g for g in first["groups"] if len(g["readers"]) < len(first["readers"])]
    parts = [f"{len(g['readers'])} {g['group']}" for g in groups]
    who = plural(len(first["readers"]), "reader") + (f" ({', '.join(parts)})" if parts else "")
    return f"{who} read {plural(found['cases'], 'patient')}"


def arms_read(found: Json) -> str:
    """', each in 2 arms: ...', '' for one arm."""
    if len(found["arms"]) < 2:
        return ""
    names = listed([f"'{a['arm']}'" for a in found["arms"]])
    return f", each in {len(found['arms'])} arms: {names}; '{found['baseline']}' is the baseline"


def readings(source: ReportSource) -> str:
    """Who read what, how calls were merged, and how agreement was measured."""
    found = source.readers
    if found is None:
        return ""
    words = [f"{who_read(found)}{arms_read(found)}"]
    groups = found["arms"][0]["groups"]
    if found["vote_at"] is not None:
        words.append(f"A score of {found['vote_at']:g} or more was a positive call")
    if any(g["majority"] and len(g["readers"]) > 1 for g in groups):
        rules = {"chair": f"were settled by {found['chair']}", "left out": "were left out"}
        rule = rules.get(str(found["ties"]), f"were called {found['ties']}")
        ties = f"; ties {rule}" if found["ties"] else ""
        words.append(f"The calls of a group were merged by majority{ties}")
    averages = _methods(g[n] for g in groups for n in ("sensitivity", "specificity", "auc") if g[n])
    if averages:
        words.append(f"Intervals of averages over readers: {averages}")
    kappa = _methods(g["kappa"] for g in groups if g["kappa"])
    agreement = [*([kappa] if kappa else [])]
    if any(g["icc"] for g in groups):
        of = "scores" if found["has"]["score"] else "votes"
        agreement.append(f"intraclass correlation of {of} in the six forms of Shrout and Fleiss")
    if agreement:
        words.append(f"Agreement of readers: {'; '.join(agreement)}")
    return f"{'. '.join(words)}."


def comparisons(source: ReportSource) -> str:
    """How systems and arms were compared with readers."""
    found = source.readers
    if found is None:
        return ""
    words: list[str] = []
    matched = _tests(row for s in found["systems"] for row in s["matched"])
    if matched:
        words.append(
            "Systems were compared with readers and majorities at the readers' sensitivity and at "
            f"their specificity ({matched}), and at the systems' own thresholds"
        )
    areas = _tests(row for s in found["systems"] for row in s["areas"])
    if areas:
        words.append(f"AUCs of systems and readers: {areas}")
    for row in found["contrasts"][:1]:
        every = [f"{r['method']}, {r['to']}" for r in row["groups"]]
        figures = listed(
            [metric_name(n) for n in dict.fromkeys(r["figure"] for r in row["groups"])]
        )
        words.append(f"Arms were compared in {figures}: {'; '.join(dict.fromkeys(every))}")
        one = _tests(row["readers"])
        if one:
            words.append(f"Of each reader: {one}")
    if words:
        words.append("p-values of readers were adjusted within each comparison (Holm)")
    return f"{'. '.join(words)}." if words else ""


def _methods(found: Iterable[Json]) -> str:
    methods = (without_freedom(str(e["method"])) for e in found if e["low"] is not None)
    return "; ".join(dict.fromkeys(methods))


def _tests(rows: Iterable[Json]) -> str:
    return "; ".join(dict.fromkeys(str(r["test"]) for r in rows if r.get("test")))
