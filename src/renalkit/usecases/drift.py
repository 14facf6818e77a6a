"""Do two cohorts show the same kind of pictures and patients, before a model meets the second?

Measured per patient: grey values, sharpness, size and scale of the pictures (mean over at most
eight frames), the share of the picture the lesion takes, and every fact kept about patients,
scanner and class included. Nothing is trained and no torch is needed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt

from renalkit.domain.cohort import Cohort
from renalkit.domain.profile import Kind, Variable, patient_classes, patient_variables
from renalkit.domain.sample import Sample, b_mode_samples
from renalkit.errors import StatisticUndefined
from renalkit.metrics.characteristics import compare_numbers
from renalkit.metrics.drift import separability, shift_of_categories, shift_of_numbers
from renalkit.metrics.multiplicity import holm
from renalkit.store.cohorts import load_cohort, table_text
from renalkit.store.files import write_text
from renalkit.usecases.characteristics import p_words
from renalkit.usecases.progress import Progress
from renalkit.usecases.results import Json

MOST_FRAMES = 8
"""Frames of a patient that are looked at, evenly spread over those there are."""

GREY = ("grey_mean", "grey_sd", "grey_p5", "grey_p95", "gradient")
"""Grey values from 0 to 255 inside the ultrasound regions; gradient: their mean step per pixel."""

_PICTURE = (*GREY, "rows", "columns", "spacing_mm", "lesion_share")
_COUNTED = "images"
_LEVEL = 0.05


def picture_variables(cohort: Cohort, progress: Progress) -> tuple[Variable, ...]:
    """What the pictures of each patient are like, one number per variable."""
    by_patient: dict[str, list[Sample]] = defaultdict(list)
    for sample in b_mode_samples(cohort):
        by_patient[sample.key.patient].append(sample)
    progress.stage(f"looking at {cohort.name}", len(by_patient))
    found: dict[str, dict[str, float]] = {name: {} for name in (*_PICTURE, _COUNTED)}
    for patient, samples in sorted(by_patient.items()):
        found[_COUNTED][patient] = float(len(samples))
        chosen = np.unique(np.linspace(0, len(samples) - 1, MOST_FRAMES).round().astype(int))
        rows = [_look(samples[k]) for k in chosen]
        for name in _PICTURE:
            known = [row[name] for row in rows if name in row]
            if known:
                found[name][patient] = float(np.mean(known))
        progress.advance()
    return tuple(Variable(n, Kind.NUMBER, values) for n, values in found.items() if values)


def _look(sample: Sample) -> dict[str, float]:
    frame = sample.load()
    pixels = frame.pixels.astype(np.float64)
    if frame.pixels.dtype == np.uint16:
        pixels = pixels / 257
    grey = pixels.mean(axis=2) if pixels.ndim == 3 else pixels
    inside = _inside(sample, grey.shape)
    values = grey[inside]
    steps = np.abs(np.diff(grey, axis=1))[inside[:, 1:] & inside[:, :-1]]
    p5, p95 = np.quantile(values, (0.05, 0.95))
    found = {
        "grey_mean": float(values.mean()),
        "grey_sd": float(values.std()),
        "grey_p5": float(p5),
        "grey_p95": float(p95),
        "gradient": float(steps.mean()),
        "rows": float(grey.shape[0]),
        "columns": float(grey.shape[1]),
    }
    if sample.spacing_mm is not None:
        found["spacing_mm"] = float(np.mean(sample.spacing_mm))
    if sample.mask is not None and sample.mask.area_px:
        found["lesion_share"] = sample.mask.area_px / grey.size
    return found


def _inside(sample: Sample, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """The ultrasound regions of the clip; the whole picture where none is known."""
    regions = sample.study.clips[sample.key.clip].regions
    mask = np.zeros(shape[:2], dtype=bool)
    for region in regions:
        b = region.box
        mask[b.y : b.y + b.height, b.x : b.x + b.width] = True
    return mask if mask.any() else ~mask


# ---------------------------------------------------------------- two cohorts


def drift(first: Path, second: Path, progress: Progress, csv: Path | None = None) -> Json:
    """Compare two cohort folders; written as CSV too when asked for.

    Raises StoreError: no cohort, or the CSV cannot be written.
    """
    found = drift_of((load_cohort(first), load_cohort(second)), progress)
    if csv is not None:
        write_text(csv, drift_csv(found))
    return found


def drift_of(cohorts: tuple[Cohort, Cohort], progress: Progress) -> Json:
    """Every variable of two cohorts side by side, with adjusted tests, and all of them together."""
    pictures = [picture_variables(c, progress) for c in cohorts]
    known = [
        {v.name: v for v in (*seen, _class(c), *patient_variables(c))}
        for seen, c in zip(pictures, cohorts, strict=True)
    ]
    rows = [_row(name, known[0].get(name), known[1].get(name)) for name in {**known[0], **known[1]}]
    tested = [r for r in rows if r["p"] is not None]
    adjusted = holm(np.array([r["p"] for r in tested])) if tested else []
    for row, p in zip(tested, adjusted, strict=True):
        row["p_holm"] = float(p)
    progress.stage("telling the cohorts apart")
    return {
        "schema": 1,
        "unit": "patient",
        "cohorts": [
            {
                "name": c.name,
                "digest": c.digest,
                "patients": len(c.patients),
                "images": c.flow.included_images,
            }
            for c in cohorts
        ],
        "rows": rows,
        "separability": _separable(pictures),
    }


def _class(cohort: Cohort) -> Variable:
    known = {p: c for p, c in patient_classes(cohort).items() if c is not None}
    return Variable("class", Kind.CATEGORY, known, cohort.task.classes)


def _row(name: str, first: Variable | None, second: Variable | None) -> Json:
    there = [v for v in (first, second) if v is not None]
    if any(v.kind is Kind.CATEGORY for v in there):
        return {"variable": name, "kind": "category"} | _categories(first, second)
    values = [
        np.array(list(v.values.values()) if v else [], dtype=np.float64) for v in (first, second)
    ]
    shift = shift_of_numbers(values[0], values[1])
    return {
        "variable": name,
        "kind": "number",
        "cohorts": [asdict(g) for g in compare_numbers(values).groups],
        **_plain(asdict(shift)),
    }


def _categories(first: Variable | None, second: Variable | None) -> Json:
    words = [[str(w) for w in v.values.values()] if v else [] for v in (first, second)]
    order = [level for v in (first, second) if v for level in v.levels]
    levels = list(dict.fromkeys([*order, *sorted({*words[0], *words[1]})]))
    counts = [[w.count(level) for level in levels] for w in words]
    shift = shift_of_categories(counts[0], counts[1])
    cohorts = [{"n": len(w), "counts": c} for w, c in zip(words, counts, strict=True)]
    return {"levels": levels, "cohorts": cohorts, **_plain(asdict(shift))}


def _plain(shift: Mapping[str, object]) -> Json:
    return {
        "test": shift["test"],
        "statistic": shift["statistic"],
        "p": shift["p_value"],
        "p_holm": None,
        "psi": shift["psi"],
        "psi_chance": shift["psi_chance"],
        "smd": shift["smd"],
    }


def _separable(pictures: Sequence[Sequence[Variable]]) -> Json:
    """Whether the pictures alone tell the cohorts apart."""
    names = sorted({v.name for seen in pictures for v in seen} - {_COUNTED, "lesion_share"})
    facts = [
        [
            {v.name: float(v.values[p]) for v in seen if v.name in names and p in v.values}
            for p in sorted({p for v in seen for p in v.values})
        ]
        for seen in pictures
    ]
    try:
        found = separability(facts[0], facts[1], names)
    except StatisticUndefined as error:
        return {"auc": None, "p": None, "n": sum(map(len, facts)), "note": str(error)}
    return {
        "auc": found.auc,
        "p": found.p_value,
        "permutations": found.n_permutations,
        "n": found.n,
        "variables": names,
    }


# ---------------------------------------------------------------- as text


def drift_csv(found: Json) -> str:
    """One line per variable."""
    one, two = (c["name"] for c in found["cohorts"])
    head = ("variable", f"{one} (1)", f"{two} (2)", "known (1)", "known (2)")
    tail = ("PSI", "PSI by chance", "SMD", "p", "p (Holm)", "test")
    return table_text((*head, *tail), [_line(row) for row in found["rows"]])


def _line(row: Json) -> list[str]:
    numbers = (row["psi"], row["psi_chance"], row["smd"])
    return [
        row["variable"],
        *(_cell(row, k) for k in (0, 1)),
        *(str(c["n"]) for c in row["cohorts"]),
        *("" if v is None else f"{v:.3f}" for v in numbers),
        *(p_words(row[p]) for p in ("p", "p_holm")),
        row["test"],
    ]


def _cell(row: Json, k: int) -> str:
    cell = row["cohorts"][k]
    if not cell["n"]:
        return "unknown"
    if row["kind"] == "number":
        return f"{cell['median']:.4g} ({cell['q1']:.4g} to {cell['q3']:.4g})"
    pairs = [
        f"{level} {100 * n / cell['n']:.0f} %"
        for level, n in zip(row["levels"], cell["counts"], strict=True)
        if n
    ]
    return ", ".join(pairs)


def drift_words(found: Json) -> str:
    """The comparison for a terminal, the largest differences first."""
    one, two = found["cohorts"]
    lines = [
        f"1: {one['name']}, {one['patients']} patients, {one['images']} images",
        f"2: {two['name']}, {two['patients']} patients, {two['images']} images",
        f"{'':28}{'PSI':>7}{'chance':>8}{'SMD':>7}{'p, Holm':>9}  1 | 2",
    ]
    for row in sorted(found["rows"], key=lambda r: (1 if r["p"] is None else r["p"], -_excess(r))):
        numbers = (row["psi"], row["psi_chance"], row["smd"])
        psi, chance, smd = ("" if v is None else f"{v:.2f}" for v in numbers)
        mark = "*" if row["p_holm"] is not None and row["p_holm"] < _LEVEL else ""
        cells = f"{_cell(row, 0)} | {_cell(row, 1)}"
        p = p_words(row["p_holm"])
        lines.append(f"{row['variable'] + mark:28}{psi:>7}{chance:>8}{smd:>7}{p:>9}  {cells}")
    apart = found["separability"]
    if apart["auc"] is None:
        lines.append(f"telling the cohorts apart by their pictures: n/a ({apart['note']})")
    else:
        lines.append(
            f"telling the cohorts apart by their pictures: AUC {apart['auc']:.3f}, "
            f"p = {apart['p']:.3g}, {apart['permutations']} permutations of {apart['n']} patients"
        )
    lines.append(f"* adjusted p below {_LEVEL}")
    return "\n".join(lines)


def _excess(row: Json) -> float:
    """PSI beyond what chance gives."""
    return 0.0 if row["psi"] is None else row["psi"] - row["psi_chance"]
