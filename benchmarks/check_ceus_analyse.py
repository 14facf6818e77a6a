"""What does `renalkit ceus analyse` make of whole studies, with nothing but what a hospital has?

Simulated patients of a level, written as `renalkit phantom ceus` writes them (JPEG DICOM, 600 x 800)
and read and analysed as `renalkit ceus analyse` does. Given are the file, the dynamic range that is
printed on its screen, and mass and cortex outlined on one frame: the one nearest to 30 s that shows
the section. Panes, clock and injection, reference, motion, lost sections, arrival, phases, frames
and figures are the program's own. The cines have 5 frames per second instead of 10, to save time.

    panes        in the right order, every true box of the kidney inside its pane, and as far from one
                 another as the boxes are
    injection    on the clock of the frame times, s
    figures      of mass and cortex and of their ratio, against those of the sum of all tissues in the
                 outline; relative error, of t0 in s
    arrival      in the cortex, s
    phases       frames whose label agrees with the true seconds since the injection
    motion       distance between found and true shift in kept frames, px
    lost         sensitivity: share of the frames that is rejected when at least half of the slice is
                 another section; specificity: share of the others that is kept
    frames       chosen ones: number, share in the right phase, share out of plane
    warnings     how many cines have each

What is finished is kept beside the result and not done again.

Run: python benchmarks/check_ceus_analyse.py --count 100 [--seed 1] [--out FILE]
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from ceus_check import Settings, between, check_cines, middle, pooled
from check_ceus_perfusion import COVERED, RATIOS, errors, number, over, ratios, shown

from renalkit.ceus.bolus import CurveValues
from renalkit.ceus.panels import TwoPanels
from renalkit.ceus.perfusion import CurveFit
from renalkit.ceus.phases import label_phases
from renalkit.domain.geometry import Box, MaskRLE
from renalkit.domain.study import Roi
from renalkit.readers.contract import ReadOptions
from renalkit.readers.decode_worker import DecodeWorker
from renalkit.usecases.ceus_clip import CORTEX, LESION, CeusClip, analyse_clip
from renalkit.usecases.ceus_input import Cine, mask_roi, read_cine
from renalkit.usecases.ceus_settings import CeusSettings
from renalkit.usecases.phantom_plans import People, ceus_plan
from renalkit.usecases.phantom_studies import record_of, write_patient

READ_AT_S = 30.0  # when a reader outlines: cortex and mass are bright
SEEN, LOST = 0.05, 0.5  # shares of the slice in another section
REGIONS = (LESION, CORTEX)


def main() -> None:
    check_cines(__doc__, "results/ceus/analyse.json", one_clip, brief, summary, table)


def one_clip(index: int, settings: Settings) -> dict[str, Any]:
    """Write, analyse and judge one patient."""
    people = People(index + 1, seed=settings["seed"], level=settings["level"])
    timing = settings["seconds"], settings["rate_hz"], 0.0
    plan = ceus_plan(people, clip=timing, screen=(600, 800, None), pairs=None, uncompressed=False)
    with TemporaryDirectory() as place, DecodeWorker(ReadOptions().limits) as worker:
        folder = Path(place)
        write_patient(plan, index, folder)
        truth = Truth(folder, index)
        cine = read_cine(truth.file, truth.file.name, worker, keep_pixels=False)
        regions = outlined(truth, cine, worker)
        given = CeusSettings(dynamic_range_db=truth.dynamic_range_db)
        found = analyse_clip(cine.clip, regions, given, scanner=cine.scanner)
        spacing = cine.clip.regions[0].spacing_mm
    assert spacing is not None
    return judged(found, truth, spacing[0])


class Truth:
    """What the phantom wrote beside the file of a patient. frames: rows of frames.csv."""

    def __init__(self, folder: Path, index: int) -> None:
        record = record_of(folder, index)
        study = json.loads(record.read_text())["ceus"]
        self.file = folder / "dicom" / record.parent.name / "ceus.dcm"
        self.dynamic_range_db = float(study["plan"]["screen"]["dynamic_range_db"][1])
        self.values = {name: CurveValues(**v) for name, v in study["rois"].items()}
        with (record.parent / "frames.csv").open(newline="") as file:
            csv.field_size_limit(2**24)
            self.frames = list(csv.DictReader(file))
        self.out_of_plane = self.column("out_of_plane")
        self.clock_s = self.column("clock_s")

    def column(self, name: str) -> npt.NDArray[np.float64]:
        return np.array([float(row[name]) for row in self.frames])

    def boxes(self, pane: str) -> Iterator[Box]:
        """The kidney in one of the panes, frame by frame, where it is seen."""
        for row in self.frames:
            if row[f"kidney_{pane}_box"]:
                yield Box(*map(int, row[f"kidney_{pane}_box"].split()))


def outlined(truth: Truth, cine: Cine, worker: DecodeWorker) -> dict[str, list[Roi]]:
    """The outlines as mask files of one frame."""
    seen = np.flatnonzero(truth.out_of_plane < SEEN)
    frame = int(seen[np.abs(truth.clock_s[seen] - READ_AT_S).argmin()])
    regions: dict[str, list[Roi]] = {}
    for name in truth.values:
        path = truth.file.with_name(f"{name}.png")
        mask = MaskRLE.parse(truth.frames[frame][f"{name}_mask"]).decode()
        cv2.imwrite(str(path), 255 * mask.astype(np.uint8))
        regions[name] = [mask_roi(path, frame, cine, worker)]
    return regions


def judged(found: CeusClip, truth: Truth, mm_per_px: float) -> dict[str, Any]:
    """Errors and answers as plain values."""
    assert found.perfusion is not None
    kept, lost = found.track.kept, truth.out_of_plane >= LOST
    right = label_phases(truth.clock_s.tolist(), injection_s=0.0)
    assert right is not None
    labels = [None] * len(lost) if found.phases is None else list(found.phases.labels)
    chosen = np.array(found.chosen, np.intp)
    at = found.arrival.time_s
    return {
        "panes": {"by": found.panels.by, "right": panes_right(found.panels, truth)},
        "injection_s": found.injection_s,
        "clock": found.clock.words,
        "regions": {n: errors(found.perfusion, n, v) for n, v in truth.values.items()},
        "ratios": ratios(found.perfusion, truth.values),
        "arrival_s": None if at is None else at - truth.values[CORTEX].arrival_s,
        "phases": float(np.mean([a == b for a, b in zip(labels, right.labels, strict=True)])),
        "phases_by": None if found.phases is None else found.phases.by,
        "motion_px": motion(found, truth, mm_per_px),
        "lost": {
            "lost": int(lost.sum()),
            "rejected": int((lost & ~kept).sum()),
            "in_plane": int((~lost).sum()),
            "kept": int((~lost & kept).sum()),
        },
        "frames": {
            "chosen": len(chosen),
            "right phase": float(np.mean([labels[i] == right.labels[i] for i in chosen])),
            "out of plane": float(np.mean(lost[chosen])),
        },
        "warnings": [*found.warnings, *fit_warnings(found)],
    }


def panes_right(panels: TwoPanels, truth: Truth) -> bool:
    bmode, contrast = list(truth.boxes("bmode")), list(truth.boxes("contrast"))
    inside = all(
        pane.box.union(box) == pane.box
        for pane, boxes in ((panels.bmode, bmode), (panels.contrast, contrast))
        for box in boxes
    )
    apart = contrast[0].x - bmode[0].x, contrast[0].y - bmode[0].y
    return inside and tuple(panels.offset) == apart


def motion(found: CeusClip, truth: Truth, mm_per_px: float) -> dict[str, float]:
    """Distance from the true shift in kept frames, the reference left out."""
    true = np.stack([truth.column("right_mm"), truth.column("deep_mm")], axis=1) / mm_per_px
    reference = found.track.reference
    away = np.hypot(*(found.track.shift_px - (true - true[reference])).T)
    kept = found.track.kept.copy()
    kept[reference] = False
    return {"median": float(np.median(away[kept])), "p95": float(np.percentile(away[kept], 95))}


def fit_warnings(found: CeusClip) -> Iterator[str]:
    assert found.perfusion is not None
    for name, fit in found.perfusion.curves.items():
        for words in fit.warnings if isinstance(fit, CurveFit) else (fit.reason,):
            yield f"{name}: {words}"


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Over patients: medians with bootstrap intervals of patients, pooled shares likewise."""

    def of(region: str, name: str) -> list[Any]:
        return [r["regions"].get(region, {}).get(name) for r in rows]

    def absolute(values: list[float | None]) -> list[float | None]:
        return [None if v is None else abs(v) for v in values]

    lost = [r["lost"] for r in rows]
    said = [{re.sub(r"\d[\d.:]*", "#", words) for words in r["warnings"]} for r in rows]
    return {
        "clips": len(rows),
        "panes_right": sum(r["panes"]["right"] for r in rows),
        "panes_by": Counter(r["panes"]["by"] for r in rows),
        "injection_s": middle(absolute([r["injection_s"] for r in rows])),
        "injection_none": sum(r["injection_s"] is None for r in rows),
        "regions": {
            region: {name: over(of(region, name)) for name in COVERED} for region in REGIONS
        },
        "pooled": {name: over([*of(LESION, name), *of(CORTEX, name)]) for name in COVERED},
        "ratios": {name: over([r["ratios"].get(name) for r in rows]) for name in RATIOS},
        "arrival_s": middle(absolute([r["arrival_s"] for r in rows])),
        "arrival_none": sum(r["arrival_s"] is None for r in rows),
        "phases": {
            "share": float(np.mean([r["phases"] for r in rows])),
            "lowest": float(min(r["phases"] for r in rows)),
            "by": Counter(r["phases_by"] for r in rows),
        },
        "motion_px": middle([r["motion_px"]["median"] for r in rows]),
        "motion_p95_px": middle([r["motion_px"]["p95"] for r in rows]),
        "sensitivity": pooled([n["rejected"] for n in lost], [n["lost"] for n in lost]),
        "specificity": pooled([n["kept"] for n in lost], [n["in_plane"] for n in lost]),
        "frames": {
            key: float(np.mean([r["frames"][key] for r in rows])) for key in rows[0]["frames"]
        },
        "warnings": dict(Counter(words for words_of in said for words in words_of).most_common()),
    }


def brief(row: Mapping[str, Any]) -> str:
    mass, lost = row["regions"].get(LESION, {}), row["lost"]
    words = [
        f"{name} {'not answered' if (e := mass.get(name)) is None else f'{e[0]:+.3f}'}"
        for name in ("PE", "TTP", "mTT", "t0")
    ]
    return (
        f"{', '.join(words)}, panes {row['panes']['right']}, injection {row['injection_s']}, "
        f"arrival {row['arrival_s']}, phases {row['phases']:.3f}, motion "
        f"{row['motion_px']['median']:.2f} px, rejected {lost['rejected']} of {lost['lost']}, "
        f"kept {lost['kept']} of {lost['in_plane']}"
    )


def table(found: Mapping[str, Any]) -> str:
    """The summary as Markdown."""
    head = " | ".join(f"{n}, {'s' if n == 't0' else '%'}" for n in COVERED)
    lines = [f"{found['clips']} cines", "", f"| | {head} |", "| --- |" + " --- |" * len(COVERED)]
    for region, cells in found["regions"].items():
        words = "mass" if region == LESION else region
        rows = {
            "median error": [shown(n, cells[n]) for n in COVERED],
            "coverage of 95 %": [number(cells[n].get("coverage")) for n in COVERED],
            "answered": [f"{cells[n]['answered']} of {cells[n]['n']}" for n in COVERED],
        }
        lines += [f"| {words}: {n} | {' | '.join(row)} |" for n, row in rows.items()]
    both = " | ".join(number(found["pooled"][n].get("coverage")) for n in COVERED)
    lines += [f"| both: coverage of 95 % | {both} |"]
    share = ", ".join(
        f"{n} {shown(n, c)} % (coverage {number(c.get('coverage'))})"
        for n, c in found["ratios"].items()
    )
    phases, frames = found["phases"], found["frames"]
    rows = {
        "panes right": f"{found['panes_right']} of {found['clips']}",
        "injection off by, s": f"{between(found['injection_s'])}; "
        f"not found in {found['injection_none']}",
        "arrival in the cortex off by, s": f"{between(found['arrival_s'])}; "
        f"not found in {found['arrival_none']}",
        "frames in the right phase": f"{phases['share']:.3f}, worst cine {phases['lowest']:.3f}",
        "motion, px": f"{between(found['motion_px'])}; 95th percentile "
        f"{between(found['motion_p95_px'])}",
        "out of plane: sensitivity": between(found["sensitivity"], "share", 3),
        "out of plane: specificity": between(found["specificity"], "share", 3),
        "chosen frames": f"{frames['chosen']:.1f}, in the right phase {frames['right phase']:.3f}, "
        f"out of plane {frames['out of plane']:.3f}",
        "mass over cortex: median error": share,
    }
    lines += ["", "| | |", "| --- | --- |", *(f"| {n} | {v} |" for n, v in rows.items())]
    lines += ["", "| warning | cines |", "| --- | --- |"]
    lines += [f"| {words} | {count} |" for words, count in found["warnings"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
