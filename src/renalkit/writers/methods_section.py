"""How were the figures made? A paragraph for a paper, from the settings and methods really used."""

from __future__ import annotations

from renalkit.writers.document import Paragraph, Section
from renalkit.writers.source import Json, ReportSource, estimate
from renalkit.writers.wording import Estimate, listed, percent_level, spelled

_FIGURES = ("auc", "accuracy", "sensitivity", "specificity", "ppv", "npv", "f1")


def methods(source: ReportSource) -> Section | None:
    """Statistical methods in running text; None where the run kept no settings of statistics."""
    rule = source.metrics.get("statistics")
    if not rule:
        return None
    parts = [_folds(source), _classification(source, rule), _segmentation(source, rule)]
    parts += [_characteristics(source), _calibration(source), _subgroups(source)]
    parts.append(
        f"Intervals are at {percent_level(float(rule['level']))}; resampling draws whole patients "
        f"{rule['bootstrap']} times with seed {rule['seed']}."
    )
    version = (source.record or {}).get("versions", {}).get("renalkit")
    parts.append(f"Computed with renalkit {version}." if version else "Computed with renalkit.")
    text = " ".join(p for p in parts if p)
    note = "Written from the settings and methods of this run. Check it, and add what was planned."
    return Section("methods", "Statistical methods", (Paragraph(text), Paragraph(note, "note")))


def _folds(source: ReportSource) -> str:
    n = len(source.split.get("folds", ()))
    if not n:
        return ""
    return (
        f"Patients were divided into {spelled(n, 'fold')} (plan {source.split['plan']}, seed "
        f"{source.split['seed']}), with no patient in two parts of a fold."
    )


def _used(found: list[Estimate]) -> str:
    return "; ".join(dict.fromkeys(e.method for e in found if e.defined and e.method))


def _classification(source: ReportSource, rule: Json) -> str:
    if not source.classifying:
        return ""
    words = f"Scores of images became scores of patients by the rule '{rule['rule']}'."
    if source.positive is not None:
        words += (
            f" Thresholds were chosen on the validation part of each fold (rule "
            f"'{rule['threshold']}') and applied to its tested part."
        )
    patients = [s["classification"]["patient"] for s in source.classifying]
    used = _used([estimate(p, n) for p in patients for n in _FIGURES])
    return f"{words} Intervals of classification figures: {used}." if used else words


def _segmentation(source: ReportSource, rule: Json) -> str:
    if not source.segmenting:
        return ""
    found = [estimate(s["segmentation"]["pooled"], "dice") for s in source.segmenting]
    return (
        f"Outlines were scored per image (surfaces by the definition "
        f"'{rule['surface_definition']}'). Intervals of Dice: {_used(found)}."
    )


def _characteristics(source: ReportSource) -> str:
    rows = (source.characteristics or {"tables": []})["tables"]
    tests = sorted({str(r["test"]) for t in rows for r in t["rows"] if r["p"] is not None})
    return f"Classes of patients were compared by {listed(tests)}." if tests else ""


def _calibration(source: ReportSource) -> str:
    found = source.usefulness
    if found is None or not any("calibration" in s for s in found["systems"]):
        return ""
    words = f"Calibration was measured without recalibration, over {found['bins']}"
    curves = any("points" in s.get("decision", {}) for s in found["systems"])
    return f"{words}, and net benefit by decision curves." if curves else f"{words}."


def _subgroups(source: ReportSource) -> str:
    systems = (source.subgroups or {"systems": []})["systems"]
    names = dict.fromkeys(str(v["name"]) for s in systems for v in s["variables"])
    if not names:
        return ""
    words = f"Subgroups by {listed([n.replace('_', ' ') for n in names])}"
    return f"{words}; tests of interaction were adjusted over the variables (Holm)."
