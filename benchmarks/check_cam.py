"""Do the maps find the one place and the one modality that tell the classes?

Pictures of simulated patients (a B-mode pane and the contrast pane beside it) are cut to a window
in which the mass takes a tenth to a third of the area and lies anywhere. The class is then drawn
anew, so that nothing in the rendered pictures depends on it, and written into one place only:

    bmode      grey levels inside the mass on the B-mode pane, nothing on the contrast pane
    ceus       inside the mass on the contrast pane, nothing on the B-mode pane
    corner     a patch of the B-mode pane outside the mass: a shortcut that the maps must give away

A fused network (`mufnet-2022`, CPU settings) is trained for each by `renalkit train` on two folds
and explained by `renalkit explain` with each method: whose modality carries the evidence, alpha and
beta, how much of the map lies inside the mass compared with the mass's area, and the same of the
network with random weights.

Run: python benchmarks/check_cam.py [--patients 100] [--epochs 8] [--size 128] [--json OUT]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from renalkit.domain.cohort import ClassTask, Cohort
from renalkit.domain.geometry import MaskRLE, bounding_box
from renalkit.domain.image import Clip, Mode, Source, pixel_sha256
from renalkit.domain.study import Lesion, Roi, Study
from renalkit.phantom.ceus.console import Panel
from renalkit.phantom.ceus.study import CeusStudy, draw_ceus
from renalkit.phantom.patients import PatientPlan, Stream, draw_patient
from renalkit.store.cohorts import save_cohort
from renalkit.store.runs import machine_facts, package_versions
from renalkit.usecases.explain import ExplainRequest, explain
from renalkit.usecases.progress import Silent
from renalkit.usecases.run import RunRequest, train_experiment

Picture = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

TASK = ClassTask(("low", "high"), "high")
SIGNALS = ("bmode", "ceus", "corner")
METHODS = ("grad-cam", "grad-cam++", "cam")
TRUE_PLACE = {"bmode": ("B", True), "ceus": ("CEUS", True), "corner": ("B", False)}
"""Modality that tells the classes, and whether it does so inside the mass."""
CLOCK_S = 25.0
SIDE_PX = 160
WINDOWS = 4
"""Per patient, on the same instant."""
STEP = 20
LEVELS = (50, 190)
STRENGTH = 0.6
"""The place is pulled to a grey level of its class, so far."""

EXPERIMENT = """
name = "{name}"
cohort = "{cohort}"
waive = {waive}
[split]
folds = 2
[input]
size = {size}
bilateral = false
[augment]
rotation_deg = 0.0
contrast = [1.0, 1.0]
brightness = 0.0
[train]
epochs = {epochs}
batch_size = 16
optimizer = "adam"
lr = 0.002
schedule = "cosine"
sampling = "balanced"
monitor = "patient-auc"
patience = {epochs}
threads = 1
device = "cpu"
[statistics]
bootstrap = 1000
[[systems]]
name = "mufnet-2022"
params = {{ backbone = "efficientnet-b0", width = 0.25, norm_momentum = 0.3, drop_connect = 0.0 }}
"""


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """A window of both panes at one instant, (s,s,3) uint8, and where the mass is, (s,s)."""

    bmode: Picture
    contrast: Picture
    mask: Mask


def rendered(plan: PatientPlan, index: int) -> list[Pair]:
    """Windows on one instant of patient `index`; none where the mass cannot be seen whole."""
    cv2.setNumThreads(1)
    patient = draw_patient(plan, index)
    if patient.latents is None:
        return []
    views = (patient.anatomy, patient.views[0])
    clip = draw_ceus(views, patient.scanner, patient.latents.ceus, patient.stream(Stream.CEUS))
    at = max(0.0, CLOCK_S - clip.timing.clock_start_s)
    pixels, truth = next(iter(CeusStudy(clip).frames([min(at, clip.timing.duration_s - 0.1)])))
    box = truth.box("lesion", Panel.BMODE)
    if box is None:
        return []
    full = truth.mask("lesion", Panel.BMODE, pixels.shape[:2])
    panes = [truth.places[p].view for p in (Panel.BMODE, Panel.CONTRAST)]
    rng = np.random.default_rng([plan.seed, index])
    found: list[Pair] = []
    for _ in range(WINDOWS):
        side = round(rng.uniform(1.9, 2.6) * max(box.width, box.height))
        if side > min(panes[0].width, panes[0].height):
            continue
        left = _somewhere(rng, box.x - panes[0].x, box.width, side, panes[0].width)
        top = _somewhere(rng, box.y - panes[0].y, box.height, side, panes[0].height)
        # The same window in both panes.
        cuts = [np.s_[v.y + top : v.y + top + side, v.x + left : v.x + left + side] for v in panes]
        bmode, contrast = (_squared(pixels[cut]) for cut in cuts)
        mask = _squared(255 * full[cuts[0]].astype(np.uint8)) >= 128
        found.append(Pair(bmode, contrast, mask))
    return found


def _somewhere(rng: np.random.Generator, start: int, length: int, side: int, limit: int) -> int:
    """Where a window begins that lies inside the pane and holds the whole mass."""
    low, high = max(start + length - side, 0), min(start, limit - side)
    return int(rng.integers(low, max(low, high) + 1))


def _squared(values: Picture) -> Picture:
    shape = (SIDE_PX, SIDE_PX)
    return np.asarray(cv2.resize(values, shape, interpolation=cv2.INTER_AREA), np.uint8)


def planted(pair: Pair, signal: str, *, high: bool) -> Pair:
    """The pair with the class written into one place; the change has a soft edge."""
    place = pair.mask
    if signal == "corner":
        place = np.zeros_like(place)
        third = SIDE_PX // 3
        # The corner farthest from the mass.
        rows, columns = np.nonzero(pair.mask)
        top = slice(0, third) if rows.mean() > SIDE_PX / 2 else slice(-third, None)
        left = slice(0, third) if columns.mean() > SIDE_PX / 2 else slice(-third, None)
        place[top, left] = True
        place &= ~pair.mask
    soft = cv2.GaussianBlur(STRENGTH * place.astype(np.float32), (0, 0), 2.0)[..., None]
    changed = pair.contrast if signal == "ceus" else pair.bmode
    told = (1 - soft) * changed + soft * LEVELS[high]
    told = np.clip(np.rint(told), 0, 255).astype(np.uint8)
    if signal == "ceus":
        return Pair(pair.bmode, told, pair.mask)
    return Pair(told, pair.contrast, pair.mask)


def cohort_of(patients: list[list[Pair]], signal: str) -> Cohort:
    """One study per patient, windows as frames; classes drawn without looking at the pictures."""
    order = np.random.default_rng(7).permutation(len(patients))
    studies: list[Study] = []
    for number, index in enumerate(order):
        high = number % 2 == 1
        pairs = [planted(pair, signal, high=high) for pair in patients[index]]
        key = hashlib.sha256(f"{signal} {index}".encode()).hexdigest()
        source = Source(key, key[:8], "dicom-us")
        grey = np.stack([p.bmode[..., 0] for p in pairs])
        tinted = np.stack([p.contrast for p in pairs])
        clips = (
            Clip(grey, pixel_sha256(grey), Mode.B, source),
            Clip(tinted, pixel_sha256(tinted), Mode.CEUS, source, offset=(SIDE_PX, 0)),
        )
        rois = [Roi(0, i, MaskRLE.encode(p.mask)) for i, p in enumerate(pairs)]
        rois += [Roi(1, i, box=bounding_box(p.mask)) for i, p in enumerate(pairs)]
        lesion = Lesion(f"l-{key[:20]}", TASK.classes[high], rois=tuple(rois))
        studies.append(Study(f"s-{key[:20]}", f"p-{key[:20]}", clips, (lesion,)))
    return Cohort(signal, TASK, tuple(studies))


def drawn(options: argparse.Namespace) -> list[list[Pair]]:
    """So many patients, in the order of their numbers."""
    plan = PatientPlan(n_patients=2 * options.patients, seed=options.seed)
    found: list[list[Pair]] = []
    with ProcessPoolExecutor(options.workers) as pool:
        for start in range(0, plan.n_patients, STEP):
            found += filter(None, pool.map(partial(rendered, plan), range(start, start + STEP)))
            if len(found) >= options.patients:
                break
    return found[: options.patients]


def checked(
    patients: list[list[Pair]], signal: str, options: argparse.Namespace, place: Path
) -> Any:
    """Train on one signal and explain with every method."""
    save_cohort(place / signal, cohort_of(patients, signal))
    words = EXPERIMENT.format(
        name=f"cam-{signal}",
        cohort=place / signal,
        size=options.size,
        epochs=options.epochs,
        waive=json.dumps(options.waive),
    )
    (place / f"{signal}.toml").write_text(words)
    train_experiment(RunRequest(place / f"{signal}.toml", place / "runs"), Silent())
    found: dict[str, Any] = {}
    for method in METHODS:
        system = place / "runs" / f"cam-{signal}" / "mufnet-2022"
        output = place / "out" / f"{signal}-{method}"
        request = ExplainRequest(system, output, method, frames=1, steps=options.steps)
        result = explain(request, Silent())
        rows = result["frames"]
        found["accuracy"] = float(np.mean([r["called"] == r["class"] for r in rows]))
        found[method] = said(result["cohort"])
    return found


def said(cohort: dict[str, Any]) -> dict[str, Any]:
    """The figures over all patients, rounded."""

    def short(figure: dict[str, Any]) -> list[float | None]:
        values = (figure["all"][name] for name in ("value", "low", "high"))
        return [None if v is None else round(v, 3) for v in values]

    names = (
        *("inside", "area", "inside_minus_area", "inside_control", "inside_minus_control"),
        *("evidence", "evidence_control", "evidence_minus_control", "rank_correlation"),
    )
    return {
        "patients": cohort["n_patients"],
        **{m: {n: short(own[n]) for n in names} for m, own in cohort["modalities"].items()},
        "weights": {m: short(w) for m, w in cohort["weights"].items()},
        "weights_control": {
            m: short({"all": w["control"]["all"]}) for m, w in cohort["weights"].items()
        },
    }


def verdicts(signal: str, found: dict[str, Any], method: str) -> dict[str, bool]:
    """What the maps must say of this signal, by the bounds of 95 % intervals over patients."""
    right, inside = TRUE_PLACE[signal]
    wrong = "CEUS" if right == "B" else "B"
    own = found[method]
    low_evidence, high_evidence = own[right]["evidence"][1], own[wrong]["evidence"][2]
    weights, control = own["weights"], own["weights_control"]
    margin = own[right]["inside_minus_area"]
    beyond = own[right]["inside_minus_control"]
    return {
        "evidence is in the right modality": low_evidence > 0.5 > high_evidence,
        "random network's evidence is not": own[right]["evidence_minus_control"][1] > 0,
        "weight is on the right modality": weights[right][1] > 0.5,
        "random network's weight is not": control[right][2] < weights[right][1],
        "map is in the right place": margin[1] > 0 if inside else margin[2] < 0,
        "random network's is not": beyond[1] > 0 if inside else beyond[2] < 0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--patients", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--signals", nargs="+", default=list(SIGNALS), choices=SIGNALS)
    parser.add_argument("--waive", nargs="*", default=[])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, help="Folder that keeps cohorts, runs and pictures.")
    options = parser.parse_args()
    started = time.perf_counter()
    patients = drawn(options)
    print(f"{len(patients)} patients in {time.perf_counter() - started:.0f} s", flush=True)
    result: dict[str, Any] = {
        "patients": len(patients),
        "epochs": options.epochs,
        "size": options.size,
        "seed": options.seed,
        "lesion_area": round(float(np.mean([p.mask.mean() for own in patients for p in own])), 3),
        "signals": {},
        "versions": package_versions(),
        "machine": machine_facts() | {"load": round(os.getloadavg()[0], 1)},
    }
    with tempfile.TemporaryDirectory() as temporary:
        place = options.keep or Path(temporary)
        for signal in options.signals:
            found = checked(patients, signal, options, place)
            found["holds"] = {m: verdicts(signal, found, m) for m in METHODS}
            result["signals"][signal] = found
            print(signal, json.dumps(found, indent=1), flush=True)
            if options.json:
                options.json.parent.mkdir(parents=True, exist_ok=True)
                options.json.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{time.perf_counter() - started:.0f} s in all")


if __name__ == "__main__":
    main()
