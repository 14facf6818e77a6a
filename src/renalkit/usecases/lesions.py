"""How many lesions does a system find, which does it miss, and how much does it mark in vain?

Everything rests on the stored masks and the scores of their regions. Lesions of the reference are
those that were outlined one by one; predicted ones are the connected regions of the mask. Rows are
lesions and pictures, intervals are over patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from renalkit.domain.prediction import Prediction, Unit
from renalkit.domain.profile import class_without_lesion
from renalkit.domain.sample import Sample, SampleKey, b_mode_samples
from renalkit.errors import StoreError
from renalkit.metrics.bootstrap import (
    BootstrapPlan,
    RatioOfSums,
)
from renalkit.metrics.detection import (
    FROC_RATES,
    SIZE_EDGES_MM,
    FrocSensitivity,
    HitRule,
    diameter,
    froc,
    lesions_of,
    match_lesions,
    size_bins,
)
from renalkit.store.cohorts import table_text
from renalkit.store.files import write_json, write_text
from renalkit.usecases.reader_ceiling import stored_ceiling
from renalkit.usecases.results import (
    Json,
    RunResults,
    bootstrapped,
    share_of_rows,
    undefined_json,
)
from renalkit.usecases.subgroups import LEAST_PATIENTS

RULE = HitRule()
"""Found: IoU of at least 0.1, one region for one lesion, regions of at least 10 pixels."""

WELL = 0.5
"""IoU from which a lesion is found well."""

OF_REGION = "mean probability of the region"
OF_PICTURE = "1 minus the probability of '{}' of the picture"
NO_SCORE = "no score per candidate: one operating point"


@dataclass(frozen=True, slots=True)
class KnownLesion:
    """One reference lesion on one picture or scan. size_mm: None without a scale.

    score: of the mark that found it, None if none did or marks have no scores.
    """

    key: SampleKey
    number: int
    overlap: float
    size_mm: float | None
    score: float | None

    @property
    def found(self) -> bool:
        return self.overlap > 0


@dataclass(frozen=True, slots=True)
class Mark:
    """One predicted region. score: its own or its picture's, None where there is neither."""

    key: SampleKey
    right: bool
    size_mm: float | None
    score: float | None


@dataclass(frozen=True, slots=True)
class Detected:
    """What a system marked: pictures or scans with lesions or none, their lesions, its marks.

    score: what the scores of its marks are.
    """

    pictures: tuple[tuple[SampleKey, bool], ...]
    lesions: tuple[KnownLesion, ...]
    marks: tuple[Mark, ...]
    score: str


def lesions_of_run(results: RunResults) -> Json:
    """Detection of every system that outlines, and the Dice between readers if it is stored."""
    samples = {s.key: s for s in b_mode_samples(results.cohort)}
    empty = class_without_lesion(results.cohort)
    index = None if empty is None else results.task.index(empty)
    systems: list[Json] = []
    for system in (s for s in results.systems if s.pooled_cases):
        found = _detected(system.pooled, samples, index)
        head = {"label": system.job.label, "score": found.score.format(empty)}
        systems.append(head | detection_figures(results.plan, found))
    return {
        "schema": 1,
        "rule": RULE.words,
        "well": WELL,
        "least_patients": LEAST_PATIENTS,
        "systems": systems,
        "readers": stored_ceiling(results.folder),
    }


# ---------------------------------------------------------------- what was found


def lesions_found(
    predictions: Sequence[Prediction], samples: dict[SampleKey, Sample]
) -> dict[tuple[SampleKey, int], bool]:
    """Whether each reference lesion of pictures with a mask was found, by picture and number."""
    return {(le.key, le.number): le.found for le in _detected(predictions, samples, None).lesions}


def _detected(
    predictions: Sequence[Prediction], samples: dict[SampleKey, Sample], empty: int | None
) -> Detected:
    """empty: the class that means "no lesion"; its probability scores marks without own scores."""
    pictures: list[tuple[SampleKey, bool]] = []
    lesions: list[KnownLesion] = []
    marks: list[Mark] = []
    drawn = [p for p in predictions if p.mask is not None and samples[p.key].mask is not None]
    own = bool(drawn) and all(p.mark_scores is not None for p in drawn)
    for p in drawn:
        sample = samples[p.key]
        assert p.mask is not None
        reference = _outlined(sample)
        predicted = lesions_of(p.mask.decode(), RULE.least_size)
        scores = _scores(p, len(predicted), own, empty)
        matches = match_lesions(reference, predicted, RULE)
        pair_of = {r: (k, v) for r, k, v in matches.pairs}
        spacing = sample.spacing_mm
        pictures.append((p.key, bool(reference)))
        for number, mask in enumerate(reference):
            size = None if spacing is None else diameter(mask, spacing)
            mark, overlap = pair_of.get(number, (None, 0.0))
            score = None if mark is None else scores[mark]
            lesions.append(KnownLesion(p.key, number, overlap, size, score))
        found = zip(predicted, matches.right.tolist(), scores, strict=True)
        for mask, right, score in found:
            size = None if spacing is None else diameter(mask, spacing)
            marks.append(Mark(p.key, right, size, score))
    scored = all(m.score is not None for m in marks)
    what = OF_REGION if own else OF_PICTURE if scored and empty is not None else NO_SCORE
    return Detected(tuple(pictures), tuple(lesions), tuple(marks), what)


def _scores(p: Prediction, n: int, own: bool, empty: int | None) -> list[float | None]:
    """Score of each of the n regions that count, the largest first.

    Raises StoreError where a mask has more regions than scores.
    """
    if own:
        known = p.mark_scores or ()
        if len(known) < n:
            raise StoreError(
                f"{len(known)} scores for {n} regions of a mask",
                where=f"{p.system.label}, {p.key.text}",
                expected="one score per region",
                remedy="remove the fold folder and run the experiment again; other folds are kept",
            )
        return list(known[:n])
    return [None if empty is None or p.scores is None else 1 - p.scores[empty]] * n


def _outlined(sample: Sample) -> tuple[np.ndarray[tuple[int, int], np.dtype[np.bool_]], ...]:
    """The lesions of a frame, one by one; an empty outline is none."""
    place = (sample.key.clip, sample.key.frame)
    masks = [
        roi.mask
        for lesion in sample.study.lesions
        for roi in lesion.rois
        if (roi.clip, roi.frame) == place and roi.mask is not None
    ]
    return tuple(m.decode() for m in masks if m.area_px)


def detection_figures(plan: BootstrapPlan, found: Detected) -> Json:
    """Recall, precision, marks in vain, by size, and FROC, with intervals over patients."""
    with_none = [(key, False) for key, has in found.pictures if not has]
    marked = {m.key for m in found.marks}
    return {
        "pictures": len(found.pictures),
        "patients": len({key.patient for key, _ in found.pictures}),
        "lesions": len(found.lesions),
        "marks": len(found.marks),
        "recall": share_over_patients([(le.key, le.found) for le in found.lesions], plan),
        "recall_well": share_over_patients(
            [(le.key, le.overlap >= WELL) for le in found.lesions], plan
        ),
        "precision": share_over_patients([(m.key, m.right) for m in found.marks], plan),
        "f1": _f1(found, plan),
        "false_per_picture": _false_rate(found, plan),
        "clean": share_over_patients([(key, key not in marked) for key, _ in with_none], plan)
        if with_none
        else None,
        "by_size": _by_size(found, plan),
        "size_unknown": sum(le.size_mm is None for le in found.lesions),
        "missed": [_missed(le) for le in _missed_first(found)],
        "froc": _froc(found, plan),
    }


def _missed_first(found: Detected) -> list[KnownLesion]:
    """The lesions nothing found, the largest first; those of unknown size last."""
    gone = [le for le in found.lesions if not le.found]
    return sorted(gone, key=lambda le: (-(le.size_mm or 0.0), le.key, le.number))


def _missed(lesion: KnownLesion) -> Json:
    k = lesion.key
    places = {"patient": k.patient, "study": k.study, "clip": k.clip, "frame": k.frame}
    return places | {"lesion": lesion.number, "size_mm": lesion.size_mm}


def share_over_patients(
    rows: Sequence[tuple[SampleKey, bool]], plan: BootstrapPlan, least: int = 0
) -> Json:
    """Share of rows that are true, over patients; none for fewer than `least` of them."""
    people = [key.patient for key, _ in rows]
    n = len(set(people))
    if rows and n < least:
        words = f"{n} patient{'s' * (n != 1)}, fewer than {least}"
        return undefined_json(n, Unit.PATIENT, words, plan.level)
    return share_of_rows([value for _, value in rows], people, plan)


def _f1(found: Detected, plan: BootstrapPlan) -> Json:
    """Twice the pairs over lesions and marks together."""
    rows = [(le.key, 2.0 * le.found, 1.0) for le in found.lesions]
    rows += [(m.key, 0.0, 1.0) for m in found.marks]
    return ratio_over_patients(rows, plan)


def _false_rate(found: Detected, plan: BootstrapPlan) -> Json:
    rows = [(m.key, float(not m.right), 0.0) for m in found.marks]
    rows += [(key, 0.0, 1.0) for key, _ in found.pictures]
    return ratio_over_patients(rows, plan)


def ratio_over_patients(
    rows: Sequence[tuple[SampleKey, float, float]], plan: BootstrapPlan
) -> Json:
    if not rows:
        return undefined_json(0, Unit.PATIENT, "0 of 0", plan.level)
    top, bottom = (np.array([r[k] for r in rows], dtype=np.float64) for k in (1, 2))
    return bootstrapped(RatioOfSums(top, bottom), [r[0].patient for r in rows], plan)


def _by_size(found: Detected, plan: BootstrapPlan) -> list[Json]:
    """Recall of lesions and precision of marks by their own diameter, where there is a scale."""
    rows: list[Json] = []
    for k, name in enumerate(size_bins()):
        lesions = [le for le in found.lesions if size_bin(le.size_mm) == k]
        marks = [m for m in found.marks if size_bin(m.size_mm) == k]
        if lesions or marks:
            found_ones = [(le.key, le.found) for le in lesions]
            right_ones = [(m.key, m.right) for m in marks]
            rows.append(
                {
                    "size": name,
                    "lesions": len(lesions),
                    "marks": len(marks),
                    "recall": share_over_patients(found_ones, plan, LEAST_PATIENTS),
                    "precision": share_over_patients(right_ones, plan, LEAST_PATIENTS),
                }
            )
    return rows


def size_bin(size_mm: float | None) -> int | None:
    return None if size_mm is None else int(np.searchsorted(SIZE_EDGES_MM, size_mm, side="right"))


def _froc(found: Detected, plan: BootstrapPlan) -> Json | None:
    """None where marks have no scores of their own, or there are no lesions."""
    if not found.lesions or not found.marks or any(m.score is None for m in found.marks):
        return None
    scores = np.array([m.score for m in found.marks], dtype=np.float64)
    right = np.array([m.right for m in found.marks], dtype=bool)
    curve = froc(scores, right, len(found.lesions), len(found.pictures))
    keys = [key for key, _ in found.pictures] + [le.key for le in found.lesions]
    people = [key.patient for key in keys] + [m.key.patient for m in found.marks]
    kinds = [len(found.pictures), len(found.lesions), len(found.marks)]
    kind = np.repeat(np.arange(3), kinds)
    before = len(keys)
    all_scores = np.concatenate([np.zeros(before), scores])
    all_right = np.concatenate([np.zeros(before, dtype=bool), right])
    at: list[Json] = []
    for rate in FROC_RATES:
        point = curve.at(rate)
        statistic = FrocSensitivity(kind, all_scores, all_right, rate)
        at.append(
            {
                "rate": rate,
                "threshold": None if point is None else point.threshold,
                "sensitivity": bootstrapped(statistic, people, plan),
                "by_size": []
                if point is None
                else _sensitivity_by_size(found, point.threshold, plan),
            }
        )
    return {
        "points": [
            {
                "threshold": p.threshold,
                "sensitivity": p.sensitivity,
                "false_per_picture": p.false_per_picture,
            }
            for p in curve.points
        ],
        "at": at,
    }


def _sensitivity_by_size(found: Detected, threshold: float, plan: BootstrapPlan) -> list[Json]:
    """Share of the lesions of each size that marks scored at least `threshold` find."""
    rows: list[Json] = []
    for k, name in enumerate(size_bins()):
        hits = [
            (le.key, le.score is not None and le.score >= threshold)
            for le in found.lesions
            if size_bin(le.size_mm) == k
        ]
        if hits:
            share = share_over_patients(hits, plan, LEAST_PATIENTS)
            rows.append({"size": name, "lesions": len(hits), "sensitivity": share})
    return rows


# ---------------------------------------------------------------- as files


def write_lesions(results: RunResults) -> Json:
    """Write lesions.json and lesions.csv of a run."""
    found = lesions_of_run(results)
    write_json(results.folder.lesions, found)
    write_text(results.folder.lesions.with_suffix(".csv"), lesions_csv(found))
    return found


def lesions_csv(found: Json) -> str:
    """One line per system, size and figure; all sizes first."""
    names = ("recall", "recall_well", "precision", "f1", "false_per_picture", "clean")
    rows: list[list[str]] = []
    for system in found["systems"]:
        whole = [("all", name, system[name]) for name in names if system[name] is not None]
        parts = [(p["size"], n, p[n]) for p in system["by_size"] for n in ("recall", "precision")]
        curve = system["froc"] or {"at": []}
        read: list[tuple[str, str, Json]] = []
        for a in curve["at"]:
            name = f"sensitivity at {a['rate']:g} per picture"
            read.append(("all", name, a["sensitivity"]))
            read += [(part["size"], name, part["sensitivity"]) for part in a["by_size"]]
        for size, name, e in (*whole, *parts, *read):
            numbers = (e["value"], e["low"], e["high"], e["n"])
            shown = ("" if v is None else f"{v:.6g}" for v in numbers)
            words = (e["unit"], e["method"] or e.get("note", ""))
            rows.append([system["label"], size, name, *shown, *words])
    head = ("system", "size", "figure", "value", "low", "high", "n", "unit", "method")
    return table_text(head, rows)
