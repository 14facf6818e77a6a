"""How well do the systems of a run with CT scans draw kidneys and masses, find lesions and name
them?

Everything is computed again from stored scans and cohort, without torch. Masks: Dice and surface
Dice by the rules of KiTS, mean over a patient's scans, then over patients. Lesions and classes:
`scan_lesions`. Intervals are over patients.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, median

import numpy as np
import numpy.typing as npt

from renalkit.domain.cohort import Cohort
from renalkit.domain.prediction import Unit
from renalkit.domain.volume import Volume
from renalkit.metrics.bootstrap import BootstrapPlan, RatioOfSums, mean_of_patient_means
from renalkit.metrics.detection import match_overlaps
from renalkit.metrics.kits import CLASSES
from renalkit.store.cohorts import table_text
from renalkit.store.files import read_json, write_json, write_text
from renalkit.store.runs import RunFolder, amending_manifest
from renalkit.usecases.characteristics import write_characteristics
from renalkit.usecases.differences import adjust_for_several, paired_rows
from renalkit.usecases.folds import spread
from renalkit.usecases.progress import Progress
from renalkit.usecases.results import Json, bootstrapped, undefined_json
from renalkit.usecases.scan_cases import RunScans, ScanCase, SystemScans, read_scans
from renalkit.usecases.scan_lesions import CRITERIA, ScanLesions, Size, scan_figures
from renalkit.usecases.scan_truth import labelled_scans, scan_key

Floats = npt.NDArray[np.float64]

SCHEMA = 1
KIND = "scans"
"""What metrics.json says of such a run."""

MAIN = "IoU 0.1"
"""The criterion of the figures in running text and of comparisons."""

UNNAMED, MISSED = "unnamed", "missed"


def evaluate_scans(
    path: Path,
    progress: Progress,
    cohort_path: Path | None = None,
    size: Size | None = None,
    output: RunFolder | None = None,
) -> Json:
    """Compute and write the figures of a run with scans, into the run or another folder.

    metrics.json, comparisons.json, characteristics.json; cases.csv (scans), scan_lesions.csv and
    scan_marks.csv (which mark found which lesion, by every criterion). cohort_path, size and what
    is raised: as `read_scans`.
    """
    found = read_scans(path, progress, cohort_path, size)
    folder = output or found.folder
    progress.stage("figures", len(found.systems))
    systems: list[Json] = []
    for system in found.systems:
        systems.append(_figures(found, system))
        progress.advance()
    metrics: Json = {
        "schema": SCHEMA,
        "kind": KIND,
        "cohort_digest": found.cohort.digest,
        "split_digest": found.split.digest,
        "task": found.task.plain,
        "statistics": {
            "bootstrap": found.plan.n_boot,
            "seed": found.plan.seed,
            "level": found.plan.level,
            "size": found.size.value,
            "main_criterion": MAIN,
            "criteria": list(CRITERIA),
            "sizes": [way.value for way in Size],
        },
        "cohort": scan_counts(found.tested),
        "systems": systems,
    }
    with amending_manifest(folder.path):
        write_json(folder.metrics, metrics)
        write_json(folder.comparisons, _comparisons(found))
        write_characteristics(folder, found.cohort, found.external)
        write_text(folder.cases, _cases_csv(found))
        write_text(folder.path / "scan_lesions.csv", _lesions_csv(found))
        write_text(folder.path / "scan_marks.csv", _marks_csv(found))
    return metrics


def main_figures(metrics: Json) -> dict[str, dict[str, Json]]:
    """What a terminal shows of each system that was tested, by name of the figure."""
    found: dict[str, dict[str, Json]] = {}
    for s in (s for s in metrics["systems"] if s["scans"]):
        lesions = s["lesions"]["criteria"][MAIN]
        large = lesions["large"]
        found[str(s["label"])] = {
            **{f"Dice, {c['name']}": c["dice"] for c in s["segmentation"]["classes"]},
            "lesions found": lesions["recall"],
            f"found from {large['from_mm']:g} mm": large["recall"],
            "false marks per scan": lesions["false_per_picture"],
            "named rightly, of found": lesions["classes"][0]["sizes"][0]["accuracy_found"]
            if lesions["classes"][0]["sizes"]
            else large["accuracy_found"],
        }
    return found


def _figures(found: RunScans, system: SystemScans) -> Json:
    plan, cases = found.plan, system.cases
    compared = [c.compared for c in cases]
    done = [read_json(found.folder.fold(system.label, f).done) for f in system.folds]
    return {
        "label": system.label,
        "system": system.system,
        "folds": list(system.folds),
        "complete": len(system.folds) == len(found.split.folds) and not system.missing,
        "scans": len(cases),
        "patients": len({c.key.patient for c in cases}),
        "missing": system.missing,
        "segmentation": _segmentation(cases, plan) if cases else None,
        "coverage": _coverage(cases, plan),
        "lesions": scan_figures(compared, plan, found.size) if cases else None,
        "sizes": {
            way.value: _by_other_size([c.compared_by(way) for c in cases], plan, way)
            for way in Size
            if cases and way is not found.size
        },
        "confusion": _confusion(compared, found.task.classes),
        "training": [
            {"fold": k} | {n: facts.get(n) for n in ("train_seconds", "seconds_per_scan")}
            for k, facts in zip(system.folds, done, strict=True)
        ],
    }


def _by_other_size(scans: Sequence[ScanLesions], plan: BootstrapPlan, way: Size) -> Json:
    """What P5 tells by size, where another way of measuring tells it."""
    found = scan_figures(scans, plan, way)["criteria"]
    return {
        rule: {"large": figures["large"], "classes": figures["classes"][:1]}
        for rule, figures in found.items()
    }


# ---------------------------------------------------------------- masks


def _segmentation(cases: Sequence[ScanCase], plan: BootstrapPlan) -> Json:
    people = [c.key.patient for c in cases]
    return {
        "scans": len(cases),
        "evened": sum(c.evened for c in cases),
        "definition": "surfel",
        "classes": [
            {
                "name": name,
                "labels": list(rule.labels),
                "tolerance_mm": rule.tolerance_mm,
                "without": sum(c.reference_ml[name] == 0 for c in cases),
                "dice": _mean(cases, lambda c, n=name: c.scores[n].dice, plan),
                "surface_dice": _mean(cases, lambda c, n=name: c.scores[n].surface_dice, plan),
                "dice_where_there": _mean(
                    [c for c in cases if c.reference_ml[name] > 0],
                    lambda c, n=name: c.scores[n].dice,
                    plan,
                ),
                "median_dice": median(c.scores[name].dice for c in cases),
                "least_dice": min(c.scores[name].dice for c in cases),
                "fold_mean": spread(_fold_means(cases, name)),
            }
            for name, rule in CLASSES.items()
        ],
        "patients": len(set(people)),
    }


def _mean(cases: Sequence[ScanCase], of: Callable[[ScanCase], float], plan: BootstrapPlan) -> Json:
    """Mean over each patient's scans, then over patients."""
    if not cases:
        return undefined_json(0, Unit.PATIENT, "no scan has it", plan.level)
    people = np.array([c.key.patient for c in cases])
    values = np.array([of(c) for c in cases])
    return bootstrapped(mean_of_patient_means(values, people), people.tolist(), plan)


def _fold_means(cases: Sequence[ScanCase], name: str) -> dict[int, float]:
    by_fold: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for c in cases:
        by_fold[c.fold][c.key.patient].append(c.scores[name].dice)
    return {k: fmean(fmean(v) for v in people.values()) for k, people in by_fold.items()}


def _coverage(cases: Sequence[ScanCase], plan: BootstrapPlan) -> Json | None:
    """Of voxels over all scans; None where no scan says where masses were looked for."""
    known = [(c, c.covered) for c in cases if c.covered is not None]
    if not known:
        return None
    people = [c.key.patient for c, _ in known]

    def share(parts: Iterable[tuple[int, int]]) -> Json:
        top, bottom = np.array(list(parts), np.float64).T
        if not bottom.sum():
            return undefined_json(len(set(people)), Unit.PATIENT, "no scan has any", plan.level)
        return bootstrapped(RatioOfSums(top, bottom), people, plan)

    def least(parts: Iterable[tuple[int, int]]) -> float | None:
        return min((a / n for a, n in parts if n), default=None)

    kidney, mass = [v.kidney for _, v in known], [v.mass for _, v in known]
    return {
        "scans": len(known),
        "kidney": share(kidney),
        "mass": share(mass),
        "lesions": share(v.lesions for _, v in known),
        "least_kidney": least(kidney),
        "least_mass": least(mass),
        "searched": median(v.searched for _, v in known),
    }


# ---------------------------------------------------------------- classes


def _confusion(scans: Sequence[ScanLesions], classes: Sequence[str]) -> Json:
    """Lesions of known class by what their mark calls them; rows truth, by criterion.

    Columns are the classes, marks without a class, and lesions that nothing found.
    """
    columns = (*classes, UNNAMED, MISSED)
    place = {name: k for k, name in enumerate(columns)}
    tables: Json = {}
    for name, rule in CRITERIA.items():
        counts = np.zeros((len(classes), len(columns)), np.int64)
        for scan in scans:
            pairs = {r: p for r, p, _ in match_overlaps(scan.overlaps[name], rule).pairs}
            for r, known in enumerate(scan.classes):
                if known is None:
                    continue
                called = MISSED
                if r in pairs:
                    called = scan.marked_classes[pairs[r]] or UNNAMED
                counts[place[known], place[called]] += 1
        tables[name] = counts.tolist()
    return {"classes": list(classes), "columns": list(columns), "counts": tables}


# ---------------------------------------------------------------- systems beside one another


def _comparisons(found: RunScans) -> Json:
    """The first system against every other, on the scans both were tested on."""
    first, *others = found.systems
    rows: list[Json] = []
    for other in others:
        pairs = _pairs(first, other)
        if not pairs:
            continue
        about: Json = {
            "label": other.label,
            "folds": sorted(set(first.folds) & set(other.folds)),
            "better": "higher",
        }
        people = sorted({a.key.patient for a, _ in pairs})
        for name in CLASSES:
            one, two = (_patient_means(side, name, people) for side in zip(*pairs, strict=True))
            row = paired_rows(found.plan, one, two, people)
            if row is not None:
                rows.append(about | {"metric": f"Dice, {name}", "n_scans": len(pairs)} | row)
        for metric, kind in (("Lesions found", 0), ("Named rightly, of all", 1)):
            one, two = (
                np.array([v for c in side for v in _hits(c.compared)[kind]], np.float64)
                for side in zip(*pairs, strict=True)
            )
            those = [a.key.patient for a, _ in pairs for _ in _hits(a.compared)[kind]]
            row = paired_rows(found.plan, one, two, those)
            if row is not None:
                rows.append(about | {"metric": metric, "n_lesions": len(those)} | row)
    for metric in dict.fromkeys(r["metric"] for r in rows):
        adjust_for_several([r for r in rows if r["metric"] == metric])
    rows = [row | {"over_folds": None} for row in rows]
    return {"schema": 1, "reference": first.label, "rows": rows}


def _pairs(first: SystemScans, other: SystemScans) -> list[tuple[ScanCase, ScanCase]]:
    by_key = {c.key: c for c in other.cases}
    return [(c, by_key[c.key]) for c in first.cases if c.key in by_key]


def _patient_means(cases: Sequence[ScanCase], name: str, people: Sequence[str]) -> Floats:
    own: dict[str, list[float]] = {p: [] for p in people}
    for c in cases:
        own[c.key.patient].append(c.scores[name].dice)
    return np.array([fmean(own[p]) for p in people])


def _hits(scan: ScanLesions) -> tuple[list[bool], list[bool]]:
    """By the main criterion: of each lesion whether it was found; of each with a known class
    whether it was found and named rightly."""
    pairs = {r: p for r, p, _ in match_overlaps(scan.overlaps[MAIN], CRITERIA[MAIN]).pairs}
    found = [r in pairs for r in range(len(scan.classes))]
    right = [
        r in pairs and scan.marked_classes[pairs[r]] == known
        for r, known in enumerate(scan.classes)
        if known is not None
    ]
    return found, right


# ---------------------------------------------------------------- the cohort in counts


def scan_counts(cohort: Cohort) -> Json:
    """Flow, labelled scans by phase, lesions by class and axial size, spacings, scanners, sites."""
    studies = {s.key: s for s in cohort.studies}
    volumes: list[Volume] = []
    people: dict[str, set[str]] = defaultdict(set)
    phases: Counter[str] = Counter()
    for key in labelled_scans(cohort):
        volume = studies[key.study].clips[key.clip]
        assert isinstance(volume, Volume)
        volumes.append(volume)
        name = volume.phase or "unknown"
        phases[name] += 1
        people[name].add(key.patient)
    flow = cohort.flow
    named = [(s, one) for s in cohort.studies for one in s.lesions if one.rois]
    with_mass = {s.patient for s, _ in named}
    all_people = {k.patient for k in labelled_scans(cohort)}
    return {
        "flow": {**asdict(flow), "excluded": [list(e) for e in flow.excluded]},
        "scans": len(volumes),
        "patients": len(all_people),
        "normal": len(all_people - with_mass),
        "unlabelled": sum(
            isinstance(c, Volume) and scan_key(s, k) not in set(labelled_scans(cohort))
            for s in cohort.studies
            for k, c in enumerate(s.clips)
        ),
        "phases": [
            {"name": n, "scans": phases[n], "patients": len(people[n])} for n in sorted(phases)
        ],
        "classes": [
            {
                "label": name or "unlabelled",
                "lesions": len(own),
                "patients": len({s.patient for s, _ in own}),
                "axial_mm": _range([o.size_mm for _, o in own if o.size_mm is not None]),
            }
            for name in (*cohort.task.classes, None)
            if (own := [(s, o) for s, o in named if o.label == name])
        ],
        "slice_mm": _range([v.grid.spacing_mm[0] for v in volumes]),
        "pixel_mm": _range([v.grid.spacing_mm[2] for v in volumes]),
        "slices": _range([v.n_frames for v in volumes]),
        "scanners": _patients_by(cohort, lambda s: s.scanner.name),
        "sites": _patients_by(cohort, lambda s: s.site or "unknown"),
        "patient_known": all(s.patient_known for s in cohort.studies),
    }


def _patients_by(cohort: Cohort, name: Callable[..., str]) -> list[Json]:
    found: dict[str, set[str]] = defaultdict(set)
    for study in cohort.studies:
        found[name(study)].add(study.patient)
    return [{"name": n, "patients": len(found[n])} for n in sorted(found)]


def _range(values: Sequence[float]) -> Json | None:
    if not values:
        return None
    return {"least": min(values), "median": median(values), "most": max(values)}


# ---------------------------------------------------------------- as tables


def _slug(name: str) -> str:
    return name.lower().replace(" ", "_").replace(".", "_")


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _cases_csv(found: RunScans) -> str:
    """One line per tested scan."""
    names = [_slug(n) for n in CLASSES]
    head = ["label", "fold", "patient", "study", "clip", "phase"]
    head += [f"{what}_{n}" for n in names for what in ("dice", "surface_dice")]
    head += [f"{what}_{n}_ml" for n in names for what in ("reference", "found")]
    head += ["covered_kidney", "covered_mass", "searched", "lesions", "marks", "evened"]
    rows: list[list[str]] = []
    for c in (c for s in found.systems for c in s.cases):
        places = [c.label, c.fold, c.key.patient, c.key.study, c.key.clip, c.phase]
        scores = [v for n in CLASSES for v in (c.scores[n].dice, c.scores[n].surface_dice)]
        volumes = [v for n in CLASSES for v in (c.reference_ml[n], c.found_ml[n])]
        inside: list[float | None] = [None] * 3
        if c.covered is not None:
            parts = (c.covered.kidney, c.covered.mass)
            inside = [*(a / n if n else None for a, n in parts), c.covered.searched]
        counts = [len(c.lesions), len(c.marks), int(c.evened)]
        rows.append(
            [*map(str, places), *map(_shown, (*scores, *volumes, *inside)), *map(str, counts)]
        )
    return table_text(head, rows)


def _lesions_csv(found: RunScans) -> str:
    """One line per lesion of the reference and system: its sizes, and by each criterion the mark
    that found it, its overlap, and what it calls the lesion."""
    head = ["label", "fold", "patient", "study", "clip", "lesion", "class", "side"]
    head += [_slug(f"{way.value} mm") for way in Size]
    head += [f"{what}_{_slug(n)}" for n in CRITERIA for what in ("mark", "overlap", "called")]
    rows: list[list[str]] = []
    for c in (c for s in found.systems for c in s.cases):
        marks, pairs = list(c.marks), _pairs_by_criterion(c.compared)
        for r, (number, lesion) in enumerate(c.lesions.items()):
            row = _places(c) + [str(number), lesion.label or "", lesion.side or ""]
            row += [_shown(c.sizes_mm[way][0][number]) for way in Size]
            for name in CRITERIA:
                p, overlap = pairs[name].get(r, (None, 0.0))
                row += ["", "", ""] if p is None else _mark_cells(c, marks[p], p, overlap)
            rows.append(row)
    return table_text(head, rows)


def _mark_cells(c: ScanCase, number: int, place: int, overlap: float) -> list[str]:
    return [str(number), _shown(overlap), c.called[place] or ""]


def _marks_csv(found: RunScans) -> str:
    """One line per mark: its sizes, what it says, and by each criterion the lesion it found."""
    classes = found.task.classes
    head = ["label", "fold", "patient", "study", "clip", "mark", "called"]
    head += [f"score_{_slug(n)}" for n in classes] + ["confidence", "agreement"]
    head += [_slug(f"{way.value} mm") for way in Size]
    head += [f"lesion_{_slug(n)}" for n in CRITERIA]
    rows: list[list[str]] = []
    for c in (c for s in found.systems for c in s.cases):
        lesions = list(c.lesions)
        back = {
            name: {p: r for r, (p, _) in pairs.items()}
            for name, pairs in _pairs_by_criterion(c.compared).items()
        }
        for p, (number, one) in enumerate(c.marks.items()):
            row = [*_places(c), str(number), c.called[p] or ""]
            row += map(_shown, one.scores or (None,) * len(classes))
            row += [_shown(one.confidence), _shown(one.agreement)]
            row += [_shown(c.sizes_mm[way][1][number]) for way in Size]
            row += [str(lesions[back[n][p]]) if p in back[n] else "" for n in CRITERIA]
            rows.append(row)
    return table_text(head, rows)


def _places(c: ScanCase) -> list[str]:
    return [c.label, str(c.fold), c.key.patient, c.key.study, str(c.key.clip)]


def _pairs_by_criterion(scan: ScanLesions) -> dict[str, dict[int, tuple[int, float]]]:
    """Mark and overlap of each lesion that was found, by place in the order of numbers."""
    return {
        name: {r: (p, v) for r, p, v in match_overlaps(scan.overlaps[name], rule).pairs}
        for name, rule in CRITERIA.items()
    }
