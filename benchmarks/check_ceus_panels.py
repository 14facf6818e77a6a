"""How often are the panes of a simulated contrast clip found to 2 px, refused, or silently wrong?

Clips of 20 frames go through every combination of layout, console, tags kept or removed, and part
of the examination (spread over a minute; its first two seconds, before contrast; two seconds of
enhancement). Of each clip a JPEG copy (quality 90, tags removed) is asked too, and one variant that
must never be split: a single pane, the B-mode picture twice, colour flow in one pane, a dark
contrast pane, or a still. The contrast clock is read in the lossless and the JPEG frames.

With tags a pane is right when it is the announced one, without when it encloses the fan's view; to
2 px on every edge, B-mode and contrast in order. "silently wrong" is any answer that is neither
right nor a refusal. Beside it the column profile of benchmarks/trivial_panels.py.

Run: python benchmarks/check_ceus_panels.py [--count 300] [--seed 5007] [--rows FILE] [--json OUT]
Rows are appended to FILE clip by clip, and clips that are there already are not done again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from ceus_check import done_rows
from trivial_panels import overlap
from trivial_panels import split as by_columns

from renalkit.ceus.clock import read_clock
from renalkit.ceus.panels import Answer, TwoPanels, Unclear, find_panels
from renalkit.domain.geometry import Box, Region
from renalkit.domain.image import Clip, Mode, Source
from renalkit.metrics.inference import Proportion
from renalkit.phantom.bmode.picture import SCANNERS
from renalkit.phantom.ceus.console import Layout, Panel
from renalkit.phantom.ceus.study import CeusStudy, draw_ceus
from renalkit.phantom.patients import PatientPlan, Stream, draw_patient

Film = npt.NDArray[np.uint8]
TIMES = {
    "minute": np.linspace(0.0, 59.0, 20),
    "first 2 s": 0.1 * np.arange(20),
    "enhanced 2 s": 25.0 + 0.1 * np.arange(20),
}
VARIANTS = ("B-mode alone", "contrast alone", "B-mode twice", "colour flow", "dark", "still")
QUALITY = 90
EXACT_PX = 2


def study_of(plan: PatientPlan, index: int) -> tuple[CeusStudy, str, bool]:
    """The clip of an index, the name of its times, and whether its tags are kept."""
    layout = list(Layout)[index % 4]
    scanner = SCANNERS[index // 4 % 3]
    when = list(TIMES)[index // 12 % 3]
    tagged = index // 36 % 2 == 0
    patient = draw_patient(plan, index)
    features = None if patient.latents is None else patient.latents.ceus
    subject = (patient.anatomy, patient.views[0])
    drawn = draw_ceus(subject, scanner, features, patient.stream(Stream.CEUS))
    screen = type(drawn.screen)(**{**_fields(drawn.screen), "layout": layout})
    return CeusStudy(type(drawn)(**{**_fields(drawn), "screen": screen})), when, tagged


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def clip_of(film: Film, regions: tuple[Region, ...] = ()) -> Clip:
    return Clip(film, "0" * 64, Mode.DUAL, Source("-", "-", "phantom"), regions)


def farthest(box: Box, true: Box) -> int:
    """Largest distance of an edge from where it should be."""
    right = box.x + box.width - true.x - true.width
    bottom = box.y + box.height - true.y - true.height
    return max(abs(v) for v in (box.x - true.x, box.y - true.y, right, bottom))


def judged(answer: Answer, study: CeusStudy) -> dict[str, Any]:
    """Outcome of one answer: exact, off (px beyond 2), swapped, one panel, refused."""
    if isinstance(answer, Unclear):
        return {"outcome": "refused", "reason": answer.reasons[-1]}
    if not isinstance(answer, TwoPanels):
        return {"outcome": "one panel"}
    true = {
        panel: place.box if answer.by == "regions" else place.view
        for panel, place in study.places.items()
    }
    found = {Panel.BMODE: answer.bmode.box, Panel.CONTRAST: answer.contrast.box}
    off = max(farthest(found[p], true[p]) for p in Panel)
    mixed = max(
        farthest(found[Panel.BMODE], true[Panel.CONTRAST]),
        farthest(found[Panel.CONTRAST], true[Panel.BMODE]),
    )
    shift = (
        abs(answer.offset[0] - true[Panel.CONTRAST].x + true[Panel.BMODE].x),
        abs(answer.offset[1] - true[Panel.CONTRAST].y + true[Panel.BMODE].y),
    )
    outcome = "exact" if off <= EXACT_PX else "swapped" if mixed <= EXACT_PX else "off"
    row = {"outcome": outcome, "off_px": off, "shift_px": max(shift)}
    return row | {"by": answer.by, "confidence": answer.confidence}


def jpeg(film: Film) -> Film:
    coded = (cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1] for frame in film)
    return np.stack([np.asarray(cv2.imdecode(one, cv2.IMREAD_COLOR), np.uint8) for one in coded])


def variant(film: Film, study: CeusStudy, name: str) -> Film:
    """What must not be split."""
    places = study.places
    bmode, contrast = places[Panel.BMODE], places[Panel.CONTRAST]
    if name == "still":
        return film[:1]
    if name in ("B-mode alone", "contrast alone"):
        box = (bmode if name == "B-mode alone" else contrast).box
        return np.ascontiguousarray(film[(slice(None), *box.slices)])
    changed = film.copy()
    here = changed[(slice(None), *contrast.view.slices)]
    here[:] = 0 if name == "dark" else film[(slice(None), *bmode.view.slices)]
    if name == "colour flow":
        rng = np.random.default_rng(7)
        for frame in here:
            speed = cv2.GaussianBlur(rng.standard_normal(frame.shape[:2], np.float32), (0, 0), 7)
            box = np.zeros(speed.shape, np.bool_)
            box[speed.shape[0] // 4 : -speed.shape[0] // 4, speed.shape[1] // 3 : -40] = True
            frame[box & (speed > 0.05)] = (230, 60, 20)
            frame[box & (speed < -0.05)] = (20, 60, 230)
    return changed


def clocked(film: Film, times: npt.NDArray[np.float64], true: list[float]) -> dict[str, Any]:
    reading = read_clock(film, times.tolist())
    right = sum(
        s is not None and abs(s - t) < 1e-6 for s, t in zip(reading.seconds, true, strict=True)
    )
    read = sum(s is not None for s in reading.seconds)
    return {"frames": len(true), "right": right, "wrong": read - right, "agrees": reading.agrees}


def one_clip(plan: PatientPlan, index: int) -> dict[str, Any]:
    study, when, tagged = study_of(plan, index)
    times = TIMES[when]
    shown = [(frame.copy(), truth.clock_s) for frame, truth in study.frames(times)]
    film = np.stack([frame for frame, _ in shown])
    clock = [float(np.floor(c + 1e-6)) for _, c in shown]
    start = time.perf_counter()
    answer = find_panels(clip_of(film, study.regions if tagged else ()))
    seconds = time.perf_counter() - start
    mean = film.mean(axis=(0, 3))
    columns = by_columns(mean)
    places = study.places
    apart = all(
        sum(overlap(box, place.view) > 0 for place in places.values()) == 1
        for box in columns.values()
    )
    column_off = max(farthest(columns[p], places[p].view) for p in Panel)
    coded = jpeg(film)
    name = VARIANTS[index % len(VARIANTS)]
    never = find_panels(clip_of(variant(film, study, name)))
    return {
        "layout": str(study.plan.screen.layout),
        "style": study.plan.screen.style,
        "when": when,
        "tagged": tagged,
        "lossless": judged(answer, study),
        "seconds": round(seconds, 3),
        "jpeg": judged(find_panels(clip_of(coded)), study),
        "columns": {"apart": apart, "off_px": column_off},
        "variant": {"name": name, "answer": type(never).__name__},
        "clock": clocked(film, times, clock),
        "clock_jpeg": clocked(coded, times, clock),
    }


def share(count: int, n: int) -> dict[str, Any]:
    if n == 0:
        return {"count": 0, "n": 0}
    estimate = Proportion(count, n).estimate()
    numbers = (round(float(v), 4) for v in (estimate.value, estimate.low, estimate.high))
    return {"count": count, "n": n} | dict(zip(("share", "low", "high"), numbers, strict=True))


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Shares with 95 % Clopper-Pearson intervals."""

    def outcomes(part: list[dict[str, Any]], kind: str) -> dict[str, Any]:
        counts = Counter(row[kind]["outcome"] for row in part)
        wrong = sum(v for k, v in counts.items() if k not in ("exact", "refused"))
        named = {"exact": counts["exact"], "refused": counts["refused"], "silently wrong": wrong}
        return {name: share(count, len(part)) for name, count in named.items()}

    plain = [row for row in rows if not row["tagged"]]
    split = [row["jpeg"] for row in rows if "off_px" in row["jpeg"]]
    result: dict[str, Any] = {
        "all clips, tags in half": outcomes(rows, "lossless"),
        "tags kept": outcomes([row for row in rows if row["tagged"]], "lossless"),
        "tags removed": outcomes(plain, "lossless"),
        "tags removed, by layout": {
            str(lay): outcomes([r for r in plain if r["layout"] == lay], "lossless")
            for lay in Layout
        },
        "tags removed, by time": {
            when: outcomes([r for r in plain if r["when"] == when], "lossless") for when in TIMES
        },
        f"JPEG {QUALITY}, tags removed": outcomes(rows, "jpeg")
        | {
            "within the stated 4 px, in order": share(
                sum(s["off_px"] <= 4 for s in split), len(rows)
            ),
            "silently wrong": share(
                sum(row["jpeg"]["outcome"] != "refused" for row in rows)
                - sum(s["off_px"] <= 4 for s in split),
                len(rows),
            ),
            "split, distance of panes exact": share(
                sum(s["shift_px"] == 0 for s in split), len(rows)
            ),
            "largest error px": max((s["off_px"] for s in split), default=None),
            "swapped": sum(row["jpeg"]["outcome"] == "swapped" for row in rows),
        },
        "column profile": {
            "panes apart": share(sum(r["columns"]["apart"] for r in rows), len(rows)),
            "exact": share(sum(r["columns"]["off_px"] <= EXACT_PX for r in rows), len(rows)),
        },
        "must not be split": {
            name: Counter(r["variant"]["answer"] for r in rows if r["variant"]["name"] == name)
            for name in VARIANTS
        },
    }
    for kind in ("clock", "clock_jpeg"):
        frames, right, wrong = (sum(r[kind][n] for r in rows) for n in ("frames", "right", "wrong"))
        result[kind] = {"right": share(right, frames), "wrong": share(wrong, frames)}
    result["seconds per clip, median"] = float(np.median([row["seconds"] for row in rows]))
    result["refusals"] = Counter(
        row["lossless"]["reason"] for row in rows if row["lossless"]["outcome"] == "refused"
    )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=5007)
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    plan = PatientPlan(max(given.count, 1), seed=given.seed)
    with TemporaryDirectory() as folder:
        rows = done_rows(
            given.count,
            given.rows or Path(folder) / "rows.jsonl",
            {"seed": given.seed, "count": given.count},
            lambda index: one_clip(plan, index),
            lambda row: f"{row['lossless']['outcome']}, JPEG {row['jpeg']['outcome']}",
        )
    result = {"count": given.count, "seed": given.seed} | summary(rows)
    text = json.dumps(result, indent=1)
    print(text)
    if given.json is not None:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
