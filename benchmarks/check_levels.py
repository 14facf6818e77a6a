"""Do the pictures of a level hold what the level states, and no easy way to it?

Patients of a level are drawn and rendered as for a cohort: one B-mode picture, and the frames of a
contrast clip of 60 s, one per second. For each part (modality) it is checked that

    (a) the ideal observer on the latent features reaches the stated AUC within its interval,
    (b) features measured by hand from the pixels with the true outline reach at least 95 % of that
        observer's distance from chance (linear discriminant, cross-validated over patients),
    (c) linear models on mean intensity, size, position and the margin stay at 0.60 or below,
    (d) the measured features tell the other modality's score no better than the correlation of
        the level lets the true ones do (the pictures themselves are shown not to depend on the
        other modality's features by tests/unit/phantom/test_ceus.py).

Run: python benchmarks/check_levels.py [--patients 600] [--level default] [--part bmode] [--json OUT]
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from renalkit.ceus.bolus import Bolus, BolusKind, Lognormal, bolus_of, curve_values
from renalkit.metrics.auc_inference import Scale, delong
from renalkit.phantom.bmode.anatomy import Tissue
from renalkit.phantom.bmode.picture import PhantomImage, Scanner, levels_db, render
from renalkit.phantom.ceus.console import Panel
from renalkit.phantom.ceus.study import ROIS, CeusStudy, FrameTruth, draw_ceus, linear_power
from renalkit.phantom.levels import (
    LEVELS,
    Latents,
    Level,
    bmode_score,
    ceus_score,
    class_mean,
    joint_score,
)
from renalkit.phantom.patients import Patient, PatientPlan, Stream, draw_patient

Vector = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
SIZE = 256


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One patient: latents, what was measured by hand, and what needs no measuring."""

    positive: bool
    latents: Latents
    measured: Vector
    trivial: dict[str, list[float]]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One modality to check.

    draw: Row of a patient from plan and index. own, other: scores of the ideal observer of
    this and of the other modality. own_latents: the share of (bmode, ceus) that may be measured.
    names: of the latent features.
    """

    name: str
    draw: Callable[[PatientPlan, int], Row]
    own: Callable[[Level, Latents], float]
    other: Callable[[Level, Latents], float]
    own_latents: Callable[[Latents], Vector]
    names: tuple[str, ...]


# B-mode


def bmode_row(plan: PatientPlan, index: int) -> Row:
    """Patient `index`: one picture, the operator's gain and depth gain unknown to the measurer."""
    patient = draw_patient(plan, index)
    image = render((patient.anatomy, "malignant"), patient.views[0], patient.scanner, SIZE)
    return _row(patient, measure_bmode(image, patient.scanner), easy_values(image))


def _row(patient: Patient, measured: Vector, trivial: dict[str, list[float]]) -> Row:
    if patient.latents is None:
        raise ValueError(f"{patient.name} has no mass")
    return Row(bool(patient.positive), patient.latents, measured, trivial)


def measure_bmode(image: PhantomImage, scanner: Scanner) -> Vector:
    """Echo level, unevenness and irregularity of the outline, and the size for their biases."""
    mask = image.lesion_mask
    size_mm = 2 * math.sqrt(mask.sum() / math.pi) * image.mm_per_px
    echo, texture = _echo_and_texture(image, scanner)
    outline = irregularity(mask)
    return np.array([echo, texture, outline, math.log(size_mm)])


_DEPTH_STEP_MM = 0.5
REFERENCES = (Tissue.CORTEX, Tissue.NEIGHBOUR, Tissue.CONNECTIVE)
_BLOCK = (5, 5)  # depth samples, beams: about 2.5 mm x 3 mm


def _echo_and_texture(image: PhantomImage, scanner: Scanner) -> tuple[float, float]:
    """Level over cortex (dB) and log variance of block means beyond that of cortex.

    The picture is put back on beams and the log compression undone. Mass, cortex and the wider
    tissues around are fitted together: a level each, the unknown gain as smooth curves over depth
    and across, and a slope over the way through the mass, in and behind it (its own attenuation).
    Priors keep the fit from running away; blocks far off (calcification, its shadow) count less.
    """
    beams = 160
    half = math.radians(scanner.half_angle_deg)
    depth = (np.arange(round(scanner.depth_mm / _DEPTH_STEP_MM)) + 0.5) * _DEPTH_STEP_MM
    angle = np.linspace(-half, half, beams)
    x = (scanner.radius_mm + depth)[:, None] * np.sin(angle)[None, :]
    z = (scanner.radius_mm + depth)[:, None] * np.cos(angle)[None, :] - scanner.radius_mm
    columns = ((x + scanner.field_mm / 2) / image.mm_per_px - 0.5).astype(np.float32)
    rows = ((z - scanner.top_mm) / image.mm_per_px - 0.5).astype(np.float32)

    def on_beams(plane: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        found = cv2.remap(plane.astype(np.float32), columns, rows, cv2.INTER_LINEAR)
        return np.asarray(found, np.float32)

    level = levels_db(on_beams(image.pixels), scanner)
    level += 3.0 * np.linspace(-1, 1, beams, dtype=np.float32)[None, :] ** 4
    core = cv2.distanceTransform(image.lesion_mask.astype(np.uint8), cv2.DIST_L2, 5)
    shrink_mm = min(2.5, 0.25 * float(core.max()) * image.mm_per_px)
    core = on_beams(core) * image.mm_per_px > shrink_mm
    near = cv2.dilate(image.lesion_mask.astype(np.uint8), np.ones((9, 9), np.uint8))
    free = on_beams(near) < 0.01
    kernel = np.ones((5, 5), np.uint8)

    def within(tissue: Tissue) -> Mask:
        shown = cv2.erode(((image.kind == tissue) & (image.pixels > 0)).astype(np.uint8), kernel)
        return (on_beams(shown) > 0.99) & free

    path_cm = np.cumsum(on_beams(image.lesion_mask) > 0.5, axis=0) * _DEPTH_STEP_MM / 10

    knots, across = np.linspace(0.0, scanner.depth_mm, 9), np.linspace(-1.0, 1.0, 6)
    beam = np.broadcast_to(np.linspace(-1.0, 1.0, beams, dtype=np.float32), level.shape)
    down = np.broadcast_to(depth[:, None], level.shape).astype(np.float32)
    regions = [core, *(within(tissue) for tissue in REFERENCES)]
    design, values, weights, region = [], [], [], []
    for number, where in enumerate(regions):
        share, block = _blocks(level, where)
        good = share > 0.6
        steps, way, at_depth, aside = (
            _blocks(plane.astype(np.float32), where)[1][good]
            for plane in (np.ones_like(level), path_cm, down, beam)
        )
        hats = [
            np.interp(place, at, row)
            for place, at in ((at_depth, knots), (aside, across))
            for row in np.eye(len(at))
        ]
        kinds = [steps * (number == other) for other in range(len(regions))]
        design.append(np.column_stack([*kinds, way, *hats]))
        values.append(block[good])
        weights.append(share[good])
        region.append(np.full(len(way), number))
    matrix, target = np.concatenate(design), np.concatenate(values)
    weight, number = np.concatenate(weights), np.concatenate(region)
    over_depth, over_beams = (
        [7.0, 7.0, 3.0, 2.0, 1.6, 2.0, 3.0, 8.0, 9.0],
        [4.0, 2.0, 0.7, 0.7, 2.0, 4.0],
    )
    prior_db = [20.0] * len(regions) + [0.3] + over_depth + over_beams
    prior = np.diag(1 / np.array(prior_db) ** 2)
    # Mass and the tissue around are uneven; their blocks are not independent.
    noise = np.array([3.0, 1.8, *[5.0] * (len(regions) - 2)])[number] ** 2
    robust = np.ones(len(target))
    for _ in range(4):
        scaled = matrix * (weight * robust / noise)[:, None]
        solution = np.linalg.solve(scaled.T @ matrix + prior, scaled.T @ target)
        rest = target - matrix @ solution
        robust = np.minimum(1.0, 2.0 * np.sqrt(noise) / np.maximum(np.abs(rest), 1e-6))
    spread = [
        float(np.var(rest[number == kind])) if (number == kind).sum() > 3 else 1.0
        for kind in (0, 1)
    ]
    echo = float(solution[0] - solution[1])
    return echo, math.log(max(spread[0] - 0.8 * spread[1], 0.0) + 0.7)


def _blocks(plane: npt.NDArray[np.float32], where: Mask) -> tuple[Vector, Vector]:
    """Share of each block that counts, and the mean over it."""
    rows, columns = (n // b * b for n, b in zip(plane.shape, _BLOCK, strict=True))

    def fold(values: npt.NDArray[np.float32]) -> Vector:
        cut = values[:rows, :columns].astype(np.float64)
        shape = (rows // _BLOCK[0], _BLOCK[0], columns // _BLOCK[1], _BLOCK[1])
        return cut.reshape(shape).mean(axis=(1, 3))

    counted = where.astype(np.float32)
    share = fold(counted)
    return share, fold(plane * counted) / np.maximum(share, 1e-6)


def irregularity(mask: Mask) -> float:
    """Log variance of the outline's relative radius beyond an ellipse, pixel steps taken off."""
    rows, columns = np.nonzero(mask)
    centre = np.array([columns.mean(), rows.mean()])
    spread = np.cov(np.stack([columns, rows]))
    big = cv2.resize(mask.astype(np.float32), None, fx=4, fy=4, interpolation=cv2.INTER_LINEAR)
    outlines, _ = cv2.findContours(
        (big > 0.5).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    points = max(outlines, key=len)[:, 0, :].astype(float)
    points = (points + 0.5) / 4 - 0.5 - centre
    lengths, axes = np.linalg.eigh(spread)
    points = points @ axes / np.sqrt(lengths) / 2
    angle = np.arctan2(points[:, 1], points[:, 0])
    order = np.argsort(angle)
    even = np.linspace(-np.pi, np.pi, 256, endpoint=False)
    radius = np.interp(even, angle[order], np.hypot(*points.T)[order], period=2 * np.pi)
    power = 2 * np.abs(np.fft.rfft(radius / radius.mean()) / 256) ** 2
    steps = power[14:28].mean() * 7
    return math.log(max(power[3:10].sum() - steps, 1e-4))


def easy_values(image: PhantomImage) -> dict[str, list[float]]:
    """What needs no look at the mass: means of grey, size, place."""
    return _easy(image.pixels.astype(float), image.lesion_mask)


def _easy(grey: Vector, mask: Mask) -> dict[str, list[float]]:
    rows, columns = np.nonzero(mask)
    top, left, bottom, right = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
    wide = max(4, round(0.25 * max(bottom - top, right - left)))
    box = np.zeros_like(mask)
    box[max(top - wide, 0) : bottom + wide, max(left - wide, 0) : right + wide] = True
    box[top:bottom, left:right] = False
    shown = grey > 0
    height, width = grey.shape
    frame = np.ones_like(mask)
    frame[height // 5 : -height // 5, width // 5 : -width // 5] = False
    return {
        "mean grey of the picture": [grey.mean()],
        "mean grey of the mass": [grey[mask].mean()],
        "size": [math.log(mask.sum())],
        "place": [rows.mean(), columns.mean()],
        "margin of the picture": [grey[frame].mean(), grey[frame & shown].std()],
        "margin of the mass's box": [grey[box].mean(), grey[box].std()],
        "outside the mass": [grey[shown & ~mask].mean(), grey[shown & ~mask].std()],
    }


# Contrast


def ceus_row(plan: PatientPlan, index: int) -> Row:
    """Patient `index`: one frame per second of the clip, the operator's gain unknown."""
    cv2.setNumThreads(1)
    patient = draw_patient(plan, index)
    clip = draw_ceus(
        (patient.anatomy, patient.views[0]),
        patient.scanner,
        None if patient.latents is None else patient.latents.ceus,
        patient.stream(Stream.CEUS),
    )
    frames = [
        seen_frame(pixels, truth, clip.display.dynamic_range_db)
        for pixels, truth in CeusStudy(clip).frames(np.arange(0.0, clip.timing.duration_s, 1.0))
    ]
    return _row(patient, measure_ceus(frames), easy_ceus(frames))


@dataclass(frozen=True, slots=True, eq=False)
class SeenFrame:
    """What is kept of one frame.

    lesion, cortex: mean linear power with the true masks, NaN where they cannot be seen. patch:
    (P, P) linear power around the centre of the mass, inside: (P, P) its mask. step_px: of the
    patch in pixels of the screen. lost: the section is out of plane. easy: as `easy_values`.
    """

    time_s: float
    lesion: float
    cortex: float
    patch: Vector
    inside: Mask
    lost: bool
    easy: dict[str, list[float]]


_PATCH = 64


def seen_frame(
    pixels: npt.NDArray[np.uint8], truth: FrameTruth, dynamic_range_db: float
) -> SeenFrame:
    place = truth.places[Panel.CONTRAST]
    red = pixels[..., 0]
    means: dict[str, float] = {}
    for name in ROIS:
        section = truth.sections.get(name)
        means[name] = math.nan
        if section is not None:
            seen = red[section.box(place).slices][section.mask]
            means[name] = float(linear_power(seen, dynamic_range_db).mean())
    patch, inside = np.zeros((_PATCH, _PATCH)), np.zeros((_PATCH, _PATCH), np.bool_)
    section = truth.sections.get("lesion")
    easy: dict[str, list[float]] = {}
    if section is not None:
        box = section.box(place)
        rows, columns = np.nonzero(section.mask)
        centre = (box.x + columns.mean(), box.y + rows.mean())
        reach = 1.15 * math.sqrt(section.mask.sum() / math.pi)
        at = (np.arange(_PATCH) + 0.5) / _PATCH * 2 - 1
        x = np.broadcast_to(centre[0] + reach * at[None, :], (_PATCH, _PATCH)).astype(np.float32)
        y = np.broadcast_to(centre[1] + reach * at[:, None], (_PATCH, _PATCH)).astype(np.float32)
        power = linear_power(red, dynamic_range_db).astype(np.float32)
        patch = np.asarray(cv2.remap(power, x, y, cv2.INTER_LINEAR), np.float64)
        mask = truth.mask("lesion", Panel.CONTRAST, red.shape)
        inside = np.asarray(cv2.remap(mask.astype(np.float32), x, y, cv2.INTER_LINEAR)) > 0.99
        easy = _easy_of_panel(red, mask, place.view.slices)
    return SeenFrame(
        truth.clock_s, means["lesion"], means["cortex"], patch, inside,
        truth.out_of_plane > 0.25 or truth.flash, easy,
    )  # fmt: skip


def measure_ceus(frames: list[SeenFrame]) -> Vector:
    """Peak, half-rise time, mean transit time and late level over cortex, unevenness, log size."""
    kept = [f for f in frames if not f.lost and math.isfinite(f.lesion + f.cortex)]
    times = np.array([f.time_s for f in kept])
    curves = [fitted(times, np.array([getattr(f, name) for f in kept])) for name in ROIS]
    mass, cortex = (read_off(curve) for curve in curves)
    filled = [f for f in kept if f.time_s > 12.0]
    mean = np.mean([f.patch for f in filled], axis=0)
    # Contrast shows the mass with an even outline: its rim is left out.
    core = cv2.erode(
        np.all([f.inside for f in filled], axis=0).astype(np.uint8), np.ones((9, 9), np.uint8)
    )
    smooth = cv2.GaussianBlur(np.log(mean + 1.0), (0, 0), 2.0)[core > 0]
    size = math.log(float(np.mean([f.easy["size"] for f in filled])))
    return np.array([*(mass - cortex), math.log(float(smooth.std()) + 0.02), size])


def fitted(times: Vector, power: Vector) -> Bolus:
    """Least squares fit of a lognormal bolus; large powers count less, as they vary more."""
    base, top = float(np.quantile(power, 0.05)), float(np.quantile(power, 0.95))
    weight = 0.3 * top + power

    def bolus(free: Vector) -> Lognormal:
        peak, rise, transit, arrival = np.exp(free[:3]).tolist() + [float(free[3])]
        curve = bolus_of(BolusKind.LOGNORMAL, peak, arrival, rise, rise * (1.05 + transit))
        return cast("Lognormal", curve)

    def rest(free: Vector) -> Vector:
        return (bolus(free).power(times) + math.exp(free[4]) - power) / weight

    start = [math.log(top), math.log(7.0), math.log(4.0), 12.0, math.log(max(base, 0.1))]
    lows = [math.log(top) - 3, math.log(2.0), math.log(0.3), 2.0, -5.0]
    highs = [math.log(top) + 2, math.log(30.0), math.log(40.0), 30.0, math.log(top + 1.0)]
    found = least_squares(rest, start, bounds=(lows, highs), x_scale=[1, 1, 1, 3, 3])
    return bolus(np.asarray(found.x))


def read_off(bolus: Bolus) -> Vector:
    """Log peak, time of half the peak on the way up, log mean transit time, log level at 55 s."""
    values = curve_values(bolus)
    times = np.linspace(values.arrival_s, values.peak_at_s, 400)
    half = float(np.interp(0.5 * values.peak, bolus.power(times), times))
    late = float(bolus.power(55.0)) / values.peak
    return np.array(
        [math.log(values.peak), half, math.log(values.transit_s), math.log(max(late, 1e-3))]
    )


def _easy_of_panel(
    red: npt.NDArray[np.uint8], mask: Mask, view: tuple[slice, slice]
) -> dict[str, list[float]]:
    """The easy values of one frame's contrast panel; the margin is that of the screen."""
    found = _easy(red[view].astype(float), mask[view])
    grey = red.astype(float)
    height, width = grey.shape
    frame = np.ones_like(mask)
    frame[height // 8 : -height // 8, width // 8 : -width // 8] = False
    return found | {"margin of the picture": [grey[frame].mean(), grey[frame].std()]}


def easy_ceus(frames: list[SeenFrame]) -> dict[str, list[float]]:
    """The easy values, as means over the clip."""
    seen = [f.easy for f in frames if f.easy]
    return {name: list(np.mean([one[name] for one in seen], axis=0)) for name in seen[0]}


BMODE = Part(
    "bmode", bmode_row, bmode_score, ceus_score, lambda latents: latents.bmode,
    ("echo", "texture", "margin"),
)  # fmt: skip
CEUS = Part(
    "ceus", ceus_row, ceus_score, bmode_score, lambda latents: latents.ceus,
    ("peak", "arrival", "washout", "unevenness"),
)  # fmt: skip
PARTS = (BMODE, CEUS)
# What together stays at 0.60: everything a rule without contrast, texture and outline knows.
JOINT = (
    "mean grey of the picture", "mean grey of the mass", "size", "place", "margin of the picture",
)  # fmt: skip


# Statistics


def cross_validated(features: Vector, truth: Mask, folds: int = 10) -> Vector:
    """Scores of Fisher's linear discriminant, each patient scored by the other folds."""
    scores = np.zeros(len(truth))
    fold = _folds(truth, folds)
    for k in range(folds):
        train, test = fold != k, fold == k
        scores[test] = discriminant(features[train], truth[train])(features[test])
    return scores


def discriminant(features: Vector, truth: Mask) -> Callable[[Vector], Vector]:
    """Fisher's linear discriminant learned from (n,f), as a function of (m,f)."""
    means = [features[truth == side].mean(axis=0) for side in (False, True)]
    rest = np.concatenate([features[truth == side] - means[side] for side in (False, True)])
    covariance = np.atleast_2d(np.cov(rest.T)) + 1e-9 * np.eye(features.shape[1])
    weights = np.linalg.solve(covariance, means[1] - means[0])
    return lambda values: (values - (means[0] + means[1]) / 2) @ weights


def auc_with_interval(truth: Mask, scores: Vector) -> dict[str, float]:
    found = delong(truth, scores, scale=Scale.PLAIN)
    return {"auc": found.value, "low": found.low, "high": found.high}


def within_class(values: Vector, truth: Mask) -> Vector:
    means = np.stack([values[~truth].mean(axis=0), values[truth].mean(axis=0)])
    return values - means[truth.astype(np.intp)]


def _folds(truth: Mask, folds: int) -> npt.NDArray[np.intp]:
    """Patients dealt to the folds in turn, each class by itself."""
    fold = np.zeros(len(truth), np.intp)
    for side in (False, True):
        fold[truth == side] = np.arange(int((truth == side).sum())) % folds
    return fold


def explained(features: Vector, target: Vector, folds: int = 10) -> float:
    """Share of the target's variance that a linear model tells of left-out patients."""
    fold = np.arange(len(target)) % folds
    rest = np.zeros(len(target))
    full = np.column_stack([np.ones(len(target)), features])
    for k in range(folds):
        train, test = fold != k, fold == k
        weights, *_ = np.linalg.lstsq(full[train], target[train], rcond=None)
        rest[test] = target[test] - full[test] @ weights
    return 1 - float((rest**2).mean() / target.var())


def check(part: Part, level: Level, rows: list[Row]) -> dict[str, Any]:
    """All figures of one part at one level."""
    truth = np.array([row.positive for row in rows])
    ideal = np.array([part.own(level, row.latents) for row in rows])
    measured = np.array([row.measured for row in rows])
    latents = np.array([part.own_latents(row.latents) for row in rows])
    oracle = auc_with_interval(truth, ideal)
    by_hand = auc_with_interval(truth, cross_validated(measured, truth))
    easy = {
        name: auc_with_interval(
            truth, cross_validated(np.array([row.trivial[name] for row in rows]), truth)
        )
        for name in rows[0].trivial
    }
    joint = np.array([sum((row.trivial[name] for name in JOINT), []) for row in rows])
    easy["all of them"] = auc_with_interval(truth, cross_validated(joint, truth))
    clean = within_class(measured, truth)
    recovered = {
        name: math.sqrt(max(0.0, explained(clean, within_class(latents[:, k], truth))))
        for k, name in enumerate(part.names[: latents.shape[1]])
    }
    other = within_class(np.array([part.other(level, row.latents) for row in rows]), truth)
    own = within_class(ideal, truth)
    everything = np.array([np.concatenate([r.latents.bmode, r.latents.ceus]) for r in rows])
    everything = everything - np.array([class_mean(level, positive=bool(side)) for side in truth])
    return {
        "part": part.name,
        "level": level.name,
        "patients": len(rows),
        "stated": level.auc_single,
        "oracle": oracle,
        "by hand": by_hand,
        "share of the distance from chance": (by_hand["auc"] - 0.5) / (oracle["auc"] - 0.5),
        "correlation of measured and true": recovered,
        "easy": easy,
        "other modality": {
            "stated correlation": level.correlation,
            "of the true scores": float(np.corrcoef(own, other)[0, 1]),
            "by hand": math.sqrt(max(0.0, explained(clean, other))),
        },
    }


def check_both(level: Level, bmode: list[Row], ceus: list[Row]) -> dict[str, Any]:
    """The figures of both modalities of the same patients, seen together."""
    truth = np.array([row.positive for row in bmode])
    measured = np.array(
        [np.concatenate([one.measured, two.measured]) for one, two in zip(bmode, ceus, strict=True)]
    )
    oracle = auc_with_interval(truth, np.array([joint_score(level, row.latents) for row in bmode]))
    by_hand = auc_with_interval(truth, cross_validated(measured, truth))
    return {
        "part": "both",
        "level": level.name,
        "patients": len(bmode),
        "stated": level.auc_both,
        "oracle": oracle,
        "by hand": by_hand,
        "share of the distance from chance": (by_hand["auc"] - 0.5) / (oracle["auc"] - 0.5),
    }


def report_both(found: dict[str, Any]) -> None:
    print(f"both, level {found['level']}, {found['patients']} patients")
    for name in ("oracle", "by hand"):
        value = found[name]
        print(f"  {name:<32} {value['auc']:.3f} ({value['low']:.3f}-{value['high']:.3f})")
    print(
        f"  stated {found['stated']:.2f}, share of the distance from chance "
        f"{found['share of the distance from chance']:.3f}",
        flush=True,
    )


def report(found: dict[str, Any]) -> None:
    def line(name: str, value: dict[str, float]) -> None:
        print(f"  {name:<32} {value['auc']:.3f} ({value['low']:.3f}-{value['high']:.3f})")

    print(f"{found['part']}, level {found['level']}, {found['patients']} patients")
    line(f"oracle (stated {found['stated']:.2f})", found["oracle"])
    line("measured by hand", found["by hand"])
    print(f"  share of the distance from chance {found['share of the distance from chance']:.3f}")
    for name, value in found["correlation of measured and true"].items():
        print(f"  measured vs true {name:<15} r = {value:.3f}")
    for name, value in found["easy"].items():
        line(name, value)
    for name, value in found["other modality"].items():
        print(f"  other modality, {name:<20} r = {value:.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--patients", type=int, default=600)
    parser.add_argument("--level", action="append", choices=list(LEVELS))
    parser.add_argument("--part", action="append", choices=[part.name for part in PARTS])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    results = []
    with ProcessPoolExecutor(given.processes) as pool:
        for name in given.level or LEVELS:
            seen: list[list[Row]] = []
            for part in PARTS:
                if given.part and part.name not in given.part:
                    continue
                plan = PatientPlan(given.patients, given.seed, name, positive_share=0.5)
                rows = list(pool.map(partial(part.draw, plan), range(given.patients), chunksize=8))
                seen.append(rows)
                results.append(check(part, LEVELS[name], rows))
                report(results[-1])
            if len(seen) == len(PARTS):
                results.append(check_both(LEVELS[name], *seen))
                report_both(results[-1])
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
