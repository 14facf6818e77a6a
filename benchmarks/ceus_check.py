"""What the checks of contrast cines share: simulated patients, cines done one by one, resumed.

A row of plain values is kept for every finished cine, a line of JSON with the settings it was made
with. What was done with the same settings is not done again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from renalkit.phantom.ceus.study import CeusOptions, CeusStudy, draw_ceus
from renalkit.phantom.patients import PatientPlan, Stream, draw_patient

Row = dict[str, Any]
Settings = Mapping[str, Any]
OneClip = Callable[[int, Settings], Row]
Brief = Callable[[Row], str]


def check_cines(
    doc: str | None,
    out: str,
    one: OneClip,
    brief: Brief,
    summary: Callable[[Sequence[Row]], Mapping[str, Any]],
    table: Callable[[Mapping[str, Any]], str],
) -> None:
    """The command of a check: cines of a level, a result as JSON in `out`, a table to print."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=12, help="clips")
    parser.add_argument("--seed", type=int, default=1, help="of the patients")
    parser.add_argument("--level", default="default")
    parser.add_argument("--rate", type=float, default=5.0, help="frames per second rendered")
    parser.add_argument("--seconds", type=float, default=120.0, help="length of a clip")
    parser.add_argument("--out", type=Path, default=Path(out))
    given = parser.parse_args()
    cv2.setNumThreads(1)
    settings = {"seed": given.seed, "level": given.level, "rate_hz": given.rate}
    settings["seconds"] = given.seconds
    rows = done_rows(
        given.count,
        given.out.with_suffix(".clips.jsonl"),
        settings,
        lambda i: one(i, settings),
        brief,
    )
    found = summary(rows)
    given.out.write_text(json.dumps({"settings": settings, **found}, indent=1) + "\n")
    print(table(found))


def done_rows(
    count: int, file: Path, settings: Settings, one: Callable[[int], Row], brief: Brief
) -> list[Row]:
    """Rows of cines 0 to count - 1, from the file or made now and added to it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = _finished(file, settings)
    with file.open("a", encoding="utf-8") as done:
        for index in range(count):
            if index in rows:
                continue
            rows[index] = {"clip": index, **one(index)}
            done.write(json.dumps({"settings": settings, **rows[index]}) + "\n")
            done.flush()
            print(f"{index + 1} of {count}: {brief(rows[index])}", file=sys.stderr)
    return [rows[index] for index in range(count)]


def _finished(file: Path, settings: Settings) -> dict[int, Row]:
    rows: dict[int, Row] = {}
    for line in file.read_text("utf-8").splitlines() if file.exists() else []:
        row = json.loads(line)
        if row.pop("settings") == settings:
            rows[int(row["clip"])] = row
    return rows


def drawn_study(index: int, settings: Settings, **options: float) -> CeusStudy:
    """The examination of one patient as a cohort has it, of the length in the settings."""
    patient = draw_patient(
        PatientPlan(index + 1, seed=settings["seed"], level=settings["level"]), index
    )
    return CeusStudy(
        draw_ceus(
            (patient.anatomy, patient.views[0]),
            patient.scanner,
            None if patient.latents is None else patient.latents.ceus,
            patient.stream(Stream.CEUS),
            CeusOptions(duration_s=settings["seconds"], **options),
        )
    )


def middle(values: Sequence[float | None]) -> dict[str, float | int]:
    """Median over clips with its 95 % bootstrap interval; clips without a value are left out."""
    known = np.array([v for v in values if v is not None], np.float64)
    drawn = np.random.default_rng(0).integers(0, len(known), (2000, len(known)))
    low, high = np.percentile(np.median(known[drawn], axis=1), [2.5, 97.5])
    return {
        "median": float(np.median(known)),
        "low": float(low),
        "high": float(high),
        "largest": float(known.max()),
        "n": len(known),
    }


def pooled(part: Sequence[int], whole: Sequence[int]) -> dict[str, float | int]:
    """Share of parts in wholes over all clips with its 95 % bootstrap interval of clips."""
    of, total = np.array(part, np.float64), np.array(whole, np.float64)
    drawn = np.random.default_rng(0).integers(0, len(of), (2000, len(of)))
    low, high = np.percentile(of[drawn].sum(axis=1) / total[drawn].sum(axis=1), [2.5, 97.5])
    share = float(of.sum() / total.sum())
    return {"share": share, "low": float(low), "high": float(high), "n": int(total.sum())}


def between(v: Mapping[str, float], key: str = "median", digits: int = 2) -> str:
    """A figure of `middle` or `pooled` with its interval, as words."""
    return f"{v[key]:.{digits}f} ({v['low']:.{digits}f}-{v['high']:.{digits}f})"
