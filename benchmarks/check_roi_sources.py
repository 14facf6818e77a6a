"""Who finds the tumour: how much do the networks depend on who drew the box?

The same simulated cines become three cohorts, which differ only in where the tumour's outline comes
from, and the trained networks of a run score each:

    reference    the true box in every frame
    propagated   the true box in the first frame, followed by `renalkit ceus cohort` through the rest
    predicted    no box: a segmentation system outlines the tumour (--roi-model)

For each: patients that could be used, overlap of the boxes with the true ones (mean over a patient's
B-mode frames; median and tenth percentile over patients), and the AUC of every system with its
interval. Differences between sources are paired over the patients that all have (DeLong).

What is finished is kept in the output folder and not done again.

Run: python benchmarks/check_roi_sources.py STUDY RUN --roi-model RUN/SYSTEM -o FOLDER [--count 120]
STUDY is a folder of `renalkit phantom ceus`, RUN one of `renalkit reproduce P2`.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from renalkit.domain.geometry import Box
from renalkit.domain.image import Clip, Mode
from renalkit.errors import Exit
from renalkit.metrics.auc_inference import delong, paired_delong, patient_means
from renalkit.store.cohorts import load_cohort
from renalkit.store.files import make_folder, write_json
from renalkit.usecases.progress import Silent
from renalkit.usecases.results import positive_class, read_results

SOURCES = ("reference", "propagated", "predicted")
SETTINGS = Path(__file__).parents[1] / "examples" / "analysis" / "contrast-demo.toml"

Row = dict[str, str]
Scores = dict[str, dict[str, tuple[bool, float]]]
"""System -> patient -> (is positive, mean score of frames and folds)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--roi-model", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--count", type=int, default=120)
    given = parser.parse_args()
    study: Path = given.study
    labels = rows(study / "labels.csv")[: given.count]
    names = {row["patient"] for row in labels}
    boxes = [row for row in rows(study / "regions.csv") if Path(row["file"]).parts[1] in names]
    place = make_folder(given.output)
    cines = make_folder(place / "cines")
    for name in sorted(names):
        for file in (study / "dicom" / name).iterdir():
            there = make_folder(cines / "dicom" / name) / file.name
            if not there.exists():
                os.link(file, there)
    save(cines / "labels.csv", labels)
    save(cines / "reference.csv", boxes)
    save(cines / "propagated.csv", [row for row in boxes if row["frame"] == "0"])
    truth = {
        (Path(row["file"]).parts[1], int(row["frame"])): Box(
            *(int(row[side]) for side in ("x", "y", "width", "height"))
        )
        for row in boxes
        if row["lesion"] != "cortex"
    }
    scores: dict[str, Scores] = {}
    found: dict[str, Any] = {"patients": len(labels), "sources": {}}
    for source in SOURCES:
        cohort = place / source
        drawn = ["--annotations", cines / f"{source}.csv"]
        if source == "predicted":
            drawn = ["--roi-model", given.roi_model]
        renalkit(
            *("ceus", "cohort", cines / "dicom", "--labels", cines / "labels.csv"),
            *(*drawn, "--settings", SETTINGS, "-o", cohort),
            fine=(Exit.OK, Exit.PARTIAL),
        )
        tested = place / "runs" / source
        renalkit(
            *("external", given.run, cohort, "-o", tested.parent, "--name", source),
            *("--waive", "L03"),
        )
        scores[source] = with_names(read_scores(tested), cohort)
        found["sources"][source] = {
            "patients": len(load_cohort(cohort).patients),
            "overlap": overlap(cohort, cines, truth),
            "auc": {name: auc(list(of.values())) for name, of in scores[source].items()},
        }
    found["differences"] = {
        source: {
            name: difference(scores[SOURCES[0]][name], scores[source][name]) for name in systems
        }
        for source in SOURCES[1:]
        for systems in [scores[source]]
    }
    write_json(place / "figures.json", found)
    print(json.dumps(found, indent=1))


def renalkit(*words: object, fine: Sequence[int] = (0,)) -> None:
    command = [str(Path(sys.executable).with_name("renalkit")), *(str(word) for word in words)]
    status = subprocess.run(command, check=False).returncode
    if status not in fine:
        raise SystemExit(f"renalkit {words[0]} ended with status {status}")


def rows(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def save(path: Path, found: Sequence[Mapping[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(found[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)


def read_scores(run: Path) -> Scores:
    results = read_results(run, Silent())
    positive = positive_class(results)
    assert positive is not None
    found: Scores = {}
    for system in results.systems:
        of_frames = [
            (p.key.patient, p.target == positive, p.scores[positive])
            for p in system.pooled
            if p.scores is not None
        ]
        people, truth, score = (np.array(column) for column in zip(*of_frames, strict=True))
        means = patient_means(truth, score, people)
        found[system.job.label] = {
            str(who): (bool(t), float(s))
            for who, t, s in zip(np.unique(people), *means, strict=True)
        }
    return found


def with_names(scores: Scores, cohort: Path) -> Scores:
    """The simulated patients under the study's names: each cohort has a key of its own."""
    links = rows(cohort.with_name(f"{cohort.name}.keys") / "links.csv")
    name = {row["key"]: row["stands_for"] for row in links}
    return {system: {name[p]: s for p, s in of.items()} for system, of in scores.items()}


def overlap(cohort: Path, cines: Path, truth: Mapping[tuple[str, int], Box]) -> dict[str, Any]:
    """Boxes of the B-mode frames over the true ones: intersection by union, mean per patient."""
    names = {
        sha256(file.read_bytes()).hexdigest(): file.parent.name
        for file in cines.glob("dicom/*/*.dcm")
    }
    of_patients: list[float] = []
    for study in load_cohort(cohort).studies:
        found: list[float] = []
        for roi in study.lesions[0].rois:
            clip = study.clips[roi.clip]
            drawn = roi.mask.box if roi.mask is not None else roi.box
            if clip.mode is not Mode.B or drawn is None or clip.source_frames is None:
                continue
            frame = names[clip.source.file_sha256], clip.source_frames[roi.frame]
            if frame in truth:
                true = in_pane(truth[frame], study.clips)
                found.append(shared_part(drawn, true))
        if found:
            of_patients.append(fmean(found))
    return {
        "patients": len(of_patients),
        "median": round(float(np.median(of_patients)), 3),
        "tenth": round(float(np.quantile(of_patients, 0.1)), 3),
        "below_half": int(sum(share < 0.5 for share in of_patients)),
    }


def in_pane(box: Box, panes: Sequence[Clip]) -> Box:
    """A box of the screen in the coordinates of the pane it lies in; both show the same section."""
    for clip in panes:
        x, y = box.x - clip.offset[0], box.y - clip.offset[1]
        rows, cols = clip.pixels.shape[1:3]
        if 0 <= x + box.width / 2 < cols and 0 <= y + box.height / 2 < rows:
            return Box(x, y, box.width, box.height)
    raise SystemExit(f"{box} lies in no pane")


def shared_part(one: Box, other: Box) -> float:
    across = min(one.x + one.width, other.x + other.width) - max(one.x, other.x)
    down = min(one.y + one.height, other.y + other.height) - max(one.y, other.y)
    both = max(across, 0) * max(down, 0)
    return both / (one.width * one.height + other.width * other.height - both)


def auc(scored: Sequence[tuple[bool, float]]) -> dict[str, Any]:
    truth, score = np.array(scored).T
    found = delong(truth, score)
    return {"value": found.value, "low": found.low, "high": found.high, "n": len(scored)}


def difference(
    one: Mapping[str, tuple[bool, float]], other: Mapping[str, tuple[bool, float]]
) -> Any:
    """AUC of `other` minus that of `one`, over the patients both have."""
    people = sorted(set(one) & set(other))
    truth, before = np.array([one[p] for p in people]).T
    found = paired_delong(truth, np.array([other[p][1] for p in people]), before)
    apart = found.difference
    return {"value": apart.value, "low": apart.low, "high": apart.high, "n": len(people)}


if __name__ == "__main__":
    main()
