"""What do cut-out frame pairs hold of the classes, and how much of it do few patients teach?

A level says what whole pictures and whole cines hold (`check_levels.py`). A network of P2 to P4 is
shown less: the mass cut out with a margin, one instant at a time, a patient's score being the mean
over frames. Patients are drawn and their frame pairs cut out as by `renalkit phantom ceus --pairs`.
Of each frame are measured, with the true outline,

    B-mode    grey of the mass: mean, spread, tenths at both ends, mean over the median around;
              unevenness of the outline
    contrast  grey of the mass: mean, spread, spread when smoothed, mean over the median, upper
              quarter and upper tenth around

and joined by Fisher's linear discriminant, over patients. "Frame by frame" takes means over frames,
which is what the mean of linear scores of frames can know. "In order" knows all frames of contrast
by their place in time. AUC with DeLong's interval when nine tenths of the patients teach, and the
mean over draws when only few do.

Run: python benchmarks/check_crops.py [--patients 1000] [--few 77] [--json OUT]
"""

from __future__ import annotations

import argparse
import json
import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from check_levels import auc_with_interval, cross_validated, discriminant, irregularity

from renalkit.metrics.classification import auc
from renalkit.phantom.ceus.console import Panel
from renalkit.phantom.ceus.study import CeusStudy, FrameTruth, draw_ceus, pair_times
from renalkit.phantom.patients import PatientPlan, Stream, draw_patient

Vector = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_DRAWS = 200


def patient_row(plan: PatientPlan, pairs: int, margin: float, index: int) -> dict[str, Any]:
    """Class, and what is measured of each frame: bmode (T,6), contrast (T,6)."""
    cv2.setNumThreads(1)
    patient = draw_patient(plan, index)
    study = CeusStudy(
        draw_ceus(
            (patient.anatomy, patient.views[0]),
            patient.scanner,
            None if patient.latents is None else patient.latents.ceus,
            patient.stream(Stream.CEUS),
        )
    )
    found = [
        frame_values(pixels, truth, margin)
        for pixels, truth in study.frames(pair_times(study.plan, pairs))
        if "lesion" in truth.sections
    ]
    bmode, contrast = (np.array(part) for part in zip(*found, strict=True))
    late = np.repeat(contrast[-1:], pairs - len(contrast), axis=0)
    return {
        "positive": bool(patient.positive),
        "bmode": bmode.mean(axis=0),
        "contrast": contrast.mean(axis=0),
        "contrast in order": np.concatenate([contrast, late]).ravel(),
    }


def frame_values(
    pixels: npt.NDArray[np.uint8], truth: FrameTruth, margin: float
) -> tuple[list[float], list[float]]:
    """Both pictures of one frame (H,W,3), cut to the mass and a margin."""
    found: list[list[float]] = []
    for panel in (Panel.BMODE, Panel.CONTRAST):
        box, pane = truth.box("lesion", panel), truth.places[panel].view
        assert box is not None
        top, left = round(margin * box.height), round(margin * box.width)
        rows = slice(max(pane.y, box.y - top), min(pane.y + pane.height, box.y + box.height + top))
        cols = slice(max(pane.x, box.x - left), min(pane.x + pane.width, box.x + box.width + left))
        grey = pixels[rows, cols, 0].astype(np.float64)
        mask = truth.mask("lesion", panel, (pixels.shape[0], pixels.shape[1]))[rows, cols]
        inside, around = grey[mask], grey[~mask & (grey > 8)]
        around = around if around.size > 20 else grey[~mask]
        shown = [float(inside.mean()), float(inside.std())]
        if panel is Panel.BMODE:
            tenths = np.quantile(inside, (0.1, 0.9)) - inside.mean()
            shown += [*tenths.tolist(), shown[0] - float(np.median(around)), irregularity(mask)]
        else:
            smooth = cv2.GaussianBlur(grey, (0, 0), 3.0)[mask]
            shown += [float(smooth.std())]
            shown += (shown[0] - np.quantile(around, (0.5, 0.75, 0.9))).tolist()
        found.append(shown)
    return found[0], found[1]


def taught_by_few(features: Vector, truth: Mask, few: int, seed: int = 0) -> dict[str, float]:
    """Mean and standard deviation, over draws, of the AUC of those who did not teach."""
    rng = np.random.default_rng(seed)
    found: list[float] = []
    for _ in range(_DRAWS):
        teach = np.zeros(len(truth), np.bool_)
        for side in (False, True):
            of = np.flatnonzero(truth == side)
            teach[rng.permutation(of)[: round(few * len(of) / len(truth))]] = True
        scores = discriminant(features[teach], truth[teach])(features[~teach])
        found.append(auc(truth[~teach].astype(int), scores))
    return {"mean": float(np.mean(found)), "sd": float(np.std(found))}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--patients", type=int, default=1000)
    parser.add_argument("--level", default="default")
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--margin", type=float, default=0.2)
    parser.add_argument("--few", type=int, default=77)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    plan = PatientPlan(given.patients, seed=given.seed, level=given.level)
    measure = partial(patient_row, plan, given.pairs, given.margin)
    with ProcessPoolExecutor(given.processes) as pool:
        rows = list(pool.map(measure, range(given.patients), chunksize=8))
    truth = np.array([row["positive"] for row in rows])
    seen = {
        "B-mode": ("bmode",),
        "contrast, frame by frame": ("contrast",),
        "contrast, in order": ("contrast in order",),
        "both, frame by frame": ("bmode", "contrast"),
        "both, contrast in order": ("bmode", "contrast in order"),
    }
    found: dict[str, Any] = {}
    for name, parts in seen.items():
        features = np.array([np.concatenate([row[part] for part in parts]) for row in rows])
        many = auc_with_interval(truth, cross_validated(features, truth))
        few = taught_by_few(features, truth, given.few)
        found[name] = {"many": many, "few": few}
        print(
            f"{name:<26} {many['auc']:.3f} ({many['low']:.3f}-{many['high']:.3f}); taught by "
            f"{given.few} patients {few['mean']:.3f} (SD {few['sd']:.3f})"
        )
    if given.json is not None:
        settings = {k: v for k, v in vars(given).items() if k not in ("json", "processes")}
        given.json.write_text(json.dumps({"settings": settings, "seen": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
