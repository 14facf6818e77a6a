"""How did images become patients in each fold? Rule, correction of shares, calibration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from renalkit.writers.document import Cell, Column, Table, TableBuilder
from renalkit.writers.source import Json, ReportSource
from renalkit.writers.wording import EN_DASH, count, finite, listed, number, plural

NUMBER = "number"


def ways_table(source: ReportSource, systems: Sequence[Json]) -> Table | None:
    """One row per system and fold; None where nothing but thresholds was left to the folds."""
    table = TableBuilder(
        "patient-scores",
        "Scores of patients: what each fold decided on its training and validation part.",
        (
            Column("System"),
            Column("Fold"),
            Column("Rule"),
            Column("Log-loss", NUMBER),
            Column("Shares"),
            Column("Calibration"),
            Column("Chosen on", NUMBER),
        ),
    )
    for s in systems:
        for way in s["classification"].get("ways", ()):
            map_ = way["calibration"]
            n = max(int(way["n"]), int(map_["n"]))
            table.add(
                Cell(str(s["label"]), strong=True),
                source.fold_words(int(way["fold"])),
                Cell(_rule(way), note=str(way["note"])),
                number(finite(way["losses"].get(way["rule"]))),
                _shares(source, way["prior"]),
                Cell(_map(map_), note=str(map_["note"])),
                plural(n, "validation patient") if n else EN_DASH,
            )
    if not table.rows:
        return None
    return table.build(f"{_chosen(systems)}{_caption(systems)}")


def _rule(way: Json) -> str:
    """A rule with the number it has in this fold."""
    names = {
        "share": "share",
        "temperature": "temperature",
        "noisy_or_frames": "frames",
    }
    found = [f"{words} {way[key]:g}" for key, words in names.items() if key in way]
    return f"{way['rule']} ({listed(found)})" if found else str(way["rule"])


def _shares(source: ReportSource, prior: Json | None) -> str:
    """Imposed and wanted share of the positive class, or of all."""
    if prior is None:
        return EN_DASH
    keep = range(len(source.classes))
    if source.positive:
        keep = [source.classes.index(source.positive)]
    parts = [[f"{float(prior[name][k]):.2f}" for k in keep] for name in ("imposed", "wanted")]
    return f"{' / '.join(parts[0])} to {' / '.join(parts[1])}"


def _map(found: Json) -> str:
    """A calibration map in words."""
    kind = str(found["kind"])
    if kind == "temperature":
        return f"temperature {1 / float(found['slope']):.2f}"
    if kind == "platt":
        return f"Platt, slope {float(found['slope']):.2f}"
    if kind == "isotonic":
        return f"isotonic, {plural(len(set(found['height'])), 'height')}"
    return EN_DASH if found["asked"] == "none" else "none"


def _chosen(systems: Sequence[Json]) -> str:
    """How often each rule was taken, where the folds chose."""
    tried = [w for s in systems for w in s["classification"].get("ways", ()) if w["losses"]]
    if not any(len(w["losses"]) > 1 for w in tried):
        return ""
    often = Counter(str(w["rule"]) for w in tried).most_common()
    times = listed([f"{rule} {count(n)}" for rule, n in often])
    return f"Chosen, times over systems and folds: {times}. "


def _caption(systems: Sequence[Json]) -> str:
    """What the columns mean, as far as they are used."""
    ways = [w for s in systems for w in s["classification"].get("ways", ())]
    parts: list[str] = []
    if any(w["losses"] for w in ways):
        parts.append("Log-loss: mean per validation patient, before calibration.")
    if any(w["prior"] for w in ways):
        parts.append("Shares: what sampling and loss imposed, to that of training patients.")
    if any(w["calibration"]["asked"] != "none" for w in ways):
        parts.append(
            "Calibration: fitted on validation patients; temperatures above 1 and slopes below 1 "
            "make scores less extreme."
        )
    return " ".join(parts)
