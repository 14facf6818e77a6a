"""What does a run say of its figures, in sentences?

For the methods paragraph, the checklists and the model card. Every function gives one or a few
sentences, or "" where the run holds nothing to say. Methods are named as the stored
figures name them.
"""

from __future__ import annotations

from collections.abc import Iterable

from renalkit.writers.source import Json, ReportSource, estimate, metric_name
from renalkit.writers.wording import Estimate, count, listed, percent_level, plain, plural

_FIGURES = ("auc", "accuracy", "sensitivity", "specificity", "ppv", "npv", "f1")
_OUTLINES = ("dice", "iou", "hd95", "assd", "nsd")
_PLACES = ("site", "scanner")
_ORDINAL = {
    "kappa_quadratic": "weighted kappa",
    "grade_error": "error in grades",
    "rps": "ranked probability score",
    "cut_auc": "AUC over cuts",
}


def scoring(source: ReportSource) -> str:
    """From scores of images to calls of patients."""
    rule = source.metrics.get("statistics")
    if not rule or not source.classifying:
        return ""
    words = f"Scores of images became scores of patients {_rule_words(rule)}."
    ways = [w for s in source.classifying for w in s["classification"].get("ways", ())]
    if rule.get("prior_correction"):
        focal = any(w["prior"] and w["prior"]["gamma"] for w in ways)
        words += (
            " Before that they were set from the class shares that sampling and loss had imposed "
            "to those of the training patients of each fold (odds times one factor per class"
            f"{', after undoing the focal loss' if focal else ''})."
        )
    if rule.get("calibration"):
        less = any(w["calibration"]["kind"] != w["calibration"]["asked"] for w in ways)
        simpler = ", or a simpler one where these were too few" if less else ""
        words += (
            f" Scores of patients were calibrated ({rule['calibration']}) by a map fitted on the "
            f"validation patients of each fold{simpler}."
        )
    if source.positive is not None:
        extra = [
            f"{plain(k)} {rule[k]:g}"
            for k in ("threshold_target", "missed_cost", "prevalence")
            if rule.get(k) is not None
        ]
        named = f"rule '{rule['threshold']}'" + (f", {listed(extra)}" if extra else "")
        words += (
            f" Thresholds were chosen on the validation part of each fold ({named}) and applied "
            "to its tested part."
        )
    return words


def _rule_words(rule: Json) -> str:
    """The rule with its numbers."""
    name = str(rule["rule"])
    if name == "validation":
        return (
            "by the rule with the lowest log-loss of patients in the validation part of each fold"
        )
    numbers = {
        "topk": f" (largest {rule.get('topk_share', 0.2):g} of the images)",
        "noisy-or": f" (images counted as {rule.get('noisy_or_frames', 1):g}; 0: as many as are)",
    }
    temperature = rule.get("attention_temperature")
    if name == "attention":
        chosen = "chosen in validation" if temperature is None else f"{temperature:g}"
        numbers[name] = f" (temperature {chosen})"
    return f"by the rule '{name}'{numbers.get(name, '')}"


def methods_used(found: Iterable[Estimate]) -> str:
    """The methods that these figures name, each once."""
    return "; ".join(dict.fromkeys(e.method for e in found if e.defined and e.method))


def classification_intervals(source: ReportSource) -> str:
    """How intervals of classification figures per patient were made, figure by figure."""
    patients = [s["classification"]["patient"] for s in source.classifying]
    by_method: dict[str, list[str]] = {}
    for name in _FIGURES:
        used = methods_used(estimate(p, name) for p in patients)
        if used:
            by_method.setdefault(used, []).append(metric_name(name))
    for name, words in _ORDINAL.items():
        used = methods_used(estimate(p.get("ordinal"), name) for p in patients)
        if used:
            by_method.setdefault(used, []).append(words)
    if not by_method:
        return ""
    parts = [f"{listed(names)}: {method}" for method, names in by_method.items()]
    order = " Classes are ordered." if source.metrics["task"].get("ordered") else ""
    return f"Intervals of figures per patient: {'; '.join(parts)}.{order}"


def segmentation_intervals(source: ReportSource) -> str:
    """How outlines were scored and intervals of Dice made."""
    rule = source.metrics.get("statistics")
    if not rule or not source.segmenting:
        return ""
    used = methods_used(estimate(s["segmentation"]["pooled"], "dice") for s in source.segmenting)
    words = (
        f"Outlines were scored per image (surfaces by the definition "
        f"'{rule['surface_definition']}')."
    )
    return f"{words} Intervals of Dice: {used}." if used else words


def level(source: ReportSource) -> str:
    """Level of intervals and seed of the resamples."""
    rule = source.metrics.get("statistics")
    if not rule:
        return ""
    return (
        f"Intervals are at {percent_level(float(rule['level']))}; resampling draws whole patients "
        f"{rule['bootstrap']} times with seed {rule['seed']}."
    )


def paired_tests(source: ReportSource) -> str:
    """How systems were compared, and whether p-values are adjusted."""
    found = source.comparisons
    if not found or not found["rows"]:
        return ""
    used = methods_used(Estimate.of(r["difference"]) for r in found["rows"])
    adjusted = any(r.get("p_holm") is not None for r in found["rows"])
    holm = "adjusted (Holm)" if adjusted else "not adjusted for the number of comparisons"
    return (
        f"Systems were compared with {found['reference']} on the same patients by {used}; "
        f"p-values are {holm}."
    )


def patient_tests(source: ReportSource) -> str:
    """Tests of the table of patients."""
    rows = (source.characteristics or {"tables": []})["tables"]
    tests = sorted({str(r["test"]) for t in rows for r in t["rows"] if r["p"] is not None})
    return f"Classes of patients were compared by {listed(tests)}." if tests else ""


def calibration(source: ReportSource) -> str:
    """Whether calibration and net benefit were measured."""
    found = source.usefulness
    if found is None or not any("calibration" in s for s in found["systems"]):
        return ""
    changed = any("before" in s for s in found["systems"])
    how = "before and after scores were changed" if changed else "without recalibration"
    words = f"Calibration was measured {how}, over {found['bins']}"
    curves = any("points" in s.get("decision", {}) for s in found["systems"])
    return f"{words}, and net benefit by decision curves." if curves else f"{words}."


def subgroup_names(source: ReportSource) -> list[str]:
    """Variables by which subgroups have figures."""
    found = (source.subgroups or {"systems": []})["systems"]
    return [plain(n) for n in dict.fromkeys(str(v["name"]) for s in found for v in s["variables"])]


def subgroups(source: ReportSource) -> str:
    """Which subgroups there are and how interaction was tested."""
    names = subgroup_names(source)
    if not names:
        return ""
    return (
        f"Subgroups by {listed(names)}; tests of interaction were adjusted over the variables "
        "(Holm)."
    )


def measures(source: ReportSource) -> str:
    """Which figures are given, in which unit."""
    parts: list[str] = []
    if source.classifying:
        patients = [s["classification"]["patient"] for s in source.classifying]
        names = [metric_name(n) for n in _FIGURES if any(estimate(p, n).defined for p in patients)]
        parts.append(f"per patient (and per image, apart) {listed(names)}")
    if source.segmenting:
        names = [n for n in _OUTLINES if n in source.segmenting[0]["segmentation"]["pooled"]]
        parts.append(f"per image with a lesion {listed([metric_name(n) for n in names])}")
    return f"Measured were {'; '.join(parts)}." if parts else ""


def diagnostic(source: ReportSource) -> str:
    """Sensitivity, specificity and predictive values per patient."""
    parts: list[str] = []
    for s in source.classifying:
        found = [
            f"{metric_name(n).lower() if len(n) > 3 else metric_name(n)} {e.words()}"
            for n in ("sensitivity", "specificity", "ppv", "npv")
            if (e := estimate(s["classification"]["patient"], n)).defined
        ]
        if found:
            n = int(s["classification"]["patient"]["n"])
            parts.append(f"{s['label']} (n = {plural(n, 'patient')}): {', '.join(found)}")
    return f"{'; '.join(parts)}." if parts else ""


def explanations(source: ReportSource) -> str:
    """Whether maps of attention are kept and shown."""
    if not source.mapped:
        return ""
    return (
        f"Maps of spatial attention of {listed(source.mapped)} are kept with the run and shown "
        "with the best, median and worst case."
    )


def between_places(source: ReportSource) -> str:
    """Whether figures are given by site and scanner."""
    names = [n for n in subgroup_names(source) if n in _PLACES]
    return f"Figures by {listed(names)} with tests of interaction." if names else ""


def test_size(source: ReportSource) -> str:
    """Patients and events that the figures rest on."""
    parts: list[str] = []
    for s in source.classifying:
        patient = s["classification"]["patient"]
        words = f"{s['label']}: {plural(int(patient['n']), 'patient')}"
        if source.positive and patient.get("confusion"):
            events = sum(patient["confusion"][source.classes.index(source.positive)])
            words += f", {count(events)} {source.positive}"
        parts.append(words)
    for s in source.segmenting:
        found = s["segmentation"]
        parts.append(
            f"{s['label']}: outlines in {plural(int(found['n_frames']), 'image')} of "
            f"{plural(int(found['n_patients']), 'patient')}"
        )
    return f"Tested: {'; '.join(parts)}." if parts else ""


# ---- systems -------------------------------------------------------------------------------


def performance(source: ReportSource) -> str:
    """The main figures of every system with intervals and n."""
    parts: list[str] = []
    for s in source.systems:
        found: list[str] = []
        if s.get("segmentation"):
            dice = estimate(s["segmentation"]["pooled"], "dice")
            found += [f"Dice {dice.sentence()}"] if dice.defined else []
        if s.get("classification"):
            patient = s["classification"]["patient"]
            auc = estimate(patient, "auc")
            found += [f"AUC {auc.sentence()}"] if auc.defined else []
            found += [
                f"{metric_name(n).lower()} {e.words()}"
                for n in ("accuracy", "sensitivity", "specificity")
                if (e := estimate(patient, n)).defined
            ]
        if found:
            parts.append(f"{s['label']}: {'; '.join(found)}")
    return f"{'. '.join(parts)}." if parts else ""


def failures(source: ReportSource) -> str:
    """What went wrong, in counts."""
    parts: list[str] = []
    for s in source.segmenting:
        found = s["segmentation"]
        parts.append(
            f"{s['label']} missed the lesion in {count(found['missed'])} of "
            f"{plural(int(found['n_frames']), 'image')}"
        )
    for s in source.classifying:
        matrix = s["classification"]["patient"].get("confusion")
        if matrix:
            n = sum(map(sum, matrix))
            wrong = n - sum(matrix[k][k] for k in range(len(matrix)))
            parts.append(f"{s['label']} called {count(wrong)} of {plural(n, 'patient')} wrongly")
    return f"{'; '.join(parts)}." if parts else ""


def software(source: ReportSource) -> str:
    """Versions of what decides the numbers."""
    versions = (source.record or {}).get("versions") or {}
    rest = [f"{name} {v}" for name, v in versions.items() if name != "renalkit"]
    own = f"renalkit {versions['renalkit']}" if "renalkit" in versions else "renalkit"
    return f"Computed with {own} ({', '.join(rest)})." if rest else f"Computed with {own}."


def cautions(source: ReportSource) -> list[str]:
    """What the run itself knows to speak against its figures."""
    found: list[str] = []
    if not source.patient_known:
        found.append("The source names no patients; figures 'per patient' count studies.")
    incomplete = [str(s["label"]) for s in source.systems if not s["complete"]]
    if incomplete:
        found.append(f"Not every fold is finished for {listed(incomplete)}.")
    if source.check is None:
        found.append("The check of the cohort is not stored with the run.")
    else:
        waived = sorted({str(f["guard"]) for f in source.check["findings"] if f["waived"]})
        if waived:
            found.append(f"Findings of the check were waived by name: {listed(waived)}.")
        loud = [str(p["name"]) for p in source.check["probes"] if p["alarming"]]
        if loud:
            found.append(
                f"Shortcut: the classes can be told apart without the tissue ({listed(loud)})."
            )
    if source.split.get("plan") not in ("external", "leave-site-out"):
        found.append("Tested on patients of the same source only; no external test in this run.")
    return found
