"""Are motion, lost sections, arrival, phases and carried regions of contrast cines right?

Simulated patients of a level, as a cohort has them, each with a clip of 120 s (600 x 800). To save
processor time the clips are rendered at 5 frames per second instead of 10; breathing then moves the
kidney twice as far from frame to frame. The reference frame is chosen by the method, the region is
the true outline of the mass in that frame, as a reader would give it. Measured are

    motion       distance between found and true shift in kept frames, in px: with the region, by
                 phase correlation, with no region given, with white noise of 25 grey levels added
                 to the picture; and without compensation, in all frames
    lost         a frame is out of plane when at least half of its slice shows another section
                 (`FrameTruth.out_of_plane` >= 0.5): from there on most of what is seen is not the
                 outlined section. Sensitivity: share of those that is rejected. Specificity: share
                 of the others that is kept. Calm: share kept when the clip holds in-plane frames only
    arrival      against the area-weighted t0 of the region's bolus, s
    phases       frames whose label agrees with the true seconds since injection: by the clock as
                 shown (whole seconds, read without error) and from the arrival in the cortex
    frames       what each rule chooses: number, share in the right phase, share out of plane
    regions      overlap of carried boxes and masks with the frame's own truth

Clips are done one after the other; what is finished is kept beside the result and not done again.

Run: python benchmarks/check_ceus_motion.py --count 100 [--seed 1] [--out results/ceus/motion.json]
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from ceus_check import Settings, between, check_cines, drawn_study, middle, pooled

from renalkit.ceus.arrival import find_arrival
from renalkit.ceus.frames import (
    FrameQuality,
    Rule,
    Wanted,
    find_flashes,
    missing_frames,
    select_frames,
    sharpness_of,
    white_share,
)
from renalkit.ceus.motion import Track, TrackOptions, in_plane, moved_mask, track
from renalkit.ceus.phases import PhaseLabels, label_phases
from renalkit.ceus.propagation import propagate
from renalkit.ceus.reference import choose_box, choose_reference, sample_indices
from renalkit.domain.geometry import Box, MaskRLE
from renalkit.domain.study import Roi
from renalkit.phantom.ceus.console import Panel
from renalkit.phantom.ceus.motion import displacement
from renalkit.phantom.ceus.study import CeusStudy, FrameTruth

LOST = 0.5
RULES: tuple[Rule, ...] = ("uniform", "phase", "keyframe")
REGION, PHASE, CHOSEN, NOISY, STILL = ERRORS = (
    "with the region",
    "by phase correlation",
    "no region given",
    "noisy picture",
    "without compensation",
)
NOISE = 25.0  # grey levels
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


def main() -> None:
    check_cines(__doc__, "results/ceus/motion.json", one_clip, brief, summary, table)


def one_clip(index: int, settings: Settings) -> dict[str, Any]:
    """Everything that is measured on one clip."""
    study = drawn_study(index, settings)
    times = np.arange(0, settings["seconds"], 1 / settings["rate_hz"])
    bmode, contrast, truths = rendered(study, times)
    moved = displacement(study.plan.motion, times)
    scale = study.scene.mm_per_px
    true_px = np.stack([moved.right_mm, moved.deep_mm], axis=1) / scale
    lost = moved.out_of_plane >= LOST

    samples = sample_indices(len(times))
    reference = choose_reference([bmode[i] for i in samples], samples).index
    shape = (bmode.shape[1], bmode.shape[2])
    outlines = {name: outline(truths[reference], name, shape) for name in ("lesion", "cortex")}
    box = box_of(outlines["lesion"])
    pictures = [bmode[i] for i in samples]
    begun = time.process_time()
    found = track(bmode, box, reference, samples=pictures)
    step_ms = (time.process_time() - begun) / len(times) * 1e3
    anywhere, noisy = choose_box(bmode[reference]).box, noised(bmode, index)
    by_phase = TrackOptions(method="phase")
    others = {
        PHASE: track(bmode, box, reference, by_phase, samples=pictures),
        CHOSEN: track(bmode, anywhere, reference, samples=pictures),
        NOISY: track(noisy, box, reference, samples=[noisy[i] for i in samples]),
    }
    row: dict[str, Any] = {
        "mm_per_px": scale,
        "step_ms": step_ms,
        "kept": found.kept_share,
        "correlation": found.residual_correlation,
        "lost": float(lost.mean()),
        "motion_px": {
            REGION: errors(found, true_px),
            **{name: errors(other, true_px) for name, other in others.items()},
            STILL: figures(np.hypot(*(true_px - true_px[reference]).T)),
        },
        "rejection": {
            name: rejection(one, lost) for name, one in {REGION: found, **others}.items()
        },
        "calm": calm(found, moved.out_of_plane),
    }
    curves = {name: curve(study, contrast, found, mask) for name, mask in outlines.items()}
    row["arrival_s"] = arrivals(study, (times, contrast), found, (outlines, curves))
    labels, row["phases"] = phases(times, truths, found, curves["cortex"])
    row["frames"] = selection(times, (bmode, contrast), (found, box, labels), (truths, lost))
    row["regions"] = carried(found, truths, (outlines["lesion"], shape))
    return row


def rendered(
    study: CeusStudy, times: Floats
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], list[FrameTruth]]:
    """Grey levels of both panes, (T,h,w) each, and what is true."""
    shape = (
        len(times),
        study.places[Panel.BMODE].view.height,
        study.places[Panel.BMODE].view.width,
    )
    bmode, contrast = np.empty(shape, np.uint8), np.empty(shape, np.uint8)
    truths: list[FrameTruth] = []
    for k, (pixels, truth) in enumerate(study.frames(times)):
        bmode[k] = pixels[study.places[Panel.BMODE].view.slices][..., 0]
        contrast[k] = pixels[study.places[Panel.CONTRAST].view.slices][..., 0]
        truths.append(truth)
    return bmode, contrast, truths


def noised(frames: npt.NDArray[np.uint8], seed: int) -> npt.NDArray[np.uint8]:
    """The frames with white noise, new in each frame."""
    rng = np.random.default_rng([seed, 41])
    found = np.empty_like(frames)
    for k, frame in enumerate(frames):
        noise = rng.standard_normal(frame.shape, dtype=np.float32)
        found[k] = np.clip(frame + np.float32(NOISE) * noise, 0, 255)
    return found


def outline(truth: FrameTruth, name: str, shape: tuple[int, int]) -> Mask:
    """A region's true mask in the view."""
    full = np.zeros(shape, np.bool_)
    section = truth.sections.get(name)
    if section is not None:
        height, width = section.mask.shape
        full[section.y : section.y + height, section.x : section.x + width] = section.mask
    return full


def box_of(mask: Mask) -> Box:
    return Box(*cv2.boundingRect(mask.astype(np.uint8)))


def figures(values: Floats) -> dict[str, float]:
    return {
        "median": float(np.median(values)),
        "p95": float(np.percentile(values, 95)),
        "largest": float(values.max()),
    }


def errors(found: Track, true_px: Floats) -> dict[str, float]:
    """Distance from the true shift in kept frames, the reference left out."""
    away = np.hypot(*(found.shift_px - (true_px - true_px[found.reference])).T)
    kept = found.kept.copy()
    kept[found.reference] = False
    return figures(away[kept]) if kept.any() else dict.fromkeys(("median", "p95", "largest"), 1e3)


def rejection(found: Track, lost: Mask) -> dict[str, int]:
    return {
        "lost": int(lost.sum()),
        "rejected": int((lost & ~found.kept).sum()),
        "in_plane": int((~lost).sum()),
        "kept": int((~lost & found.kept).sum()),
    }


def calm(found: Track, out_of_plane: Floats) -> float:
    """Share kept when only frames that are wholly in plane are judged."""
    return float(in_plane(found.correlation[out_of_plane < 0.05])[0].mean())


def curve(
    study: CeusStudy, contrast: npt.NDArray[np.uint8], found: Track | None, mask: Mask
) -> Floats:
    """Mean linear power of a region, moved by the track or left where it is."""
    step = study.plan.display.dynamic_range_db / 2550.0
    power = np.power(10.0, np.arange(256) * step) - 1.0
    values: list[float] = []
    for k, picture in enumerate(contrast):
        here = mask if found is None else moved_mask(mask, *found.shift_px[k].tolist())
        values.append(float(power[picture[here]].mean()) if here.any() else np.nan)
    return np.array(values)


def arrivals(
    study: CeusStudy,
    clip: tuple[Floats, npt.NDArray[np.uint8]],
    found: Track,
    regions: tuple[dict[str, Mask], dict[str, Floats]],
) -> dict[str, float | None]:
    """Found minus true arrival of both regions, and of the mass without compensation."""
    (times, contrast), (outlines, curves) = clip, regions
    still = curve(study, contrast, None, outlines["lesion"])
    away: dict[str, float | None] = {}
    for name, power, kept in (
        ("lesion", curves["lesion"], found.kept),
        ("cortex", curves["cortex"], found.kept),
        ("without compensation", still, None),
    ):
        roi = study.rois["cortex" if name == "cortex" else "lesion"]
        at = find_arrival(times, power, kept).time_s
        away[name] = None if at is None else at - roi.values.arrival_s
    return away


def phases(
    times: Floats, truths: list[FrameTruth], found: Track, cortex: Floats
) -> tuple[PhaseLabels, dict[str, float | None]]:
    """Labels by the clock, and the share of frames that are right by clock and by arrival."""
    true = label_phases([t.clock_s for t in truths], injection_s=0.0)
    shown = [re.fullmatch(r"T1 (\d+):(\d\d)", t.clock) for t in truths]
    seconds = [60 * int(m[1]) + int(m[2]) for m in shown if m is not None]
    # A clock of whole seconds lags behind by half a second on average.
    injection_s = float(np.mean(times - seconds)) - 0.5
    by_clock = label_phases(times, injection_s=injection_s)
    by_arrival = label_phases(times, arrival_s=find_arrival(times, cortex, found.kept).time_s)
    assert true is not None
    assert by_clock is not None
    return by_clock, {
        name: None
        if labels is None
        else float(np.mean([a == b for a, b in zip(labels.labels, true.labels, strict=True)]))
        for name, labels in (("clock", by_clock), ("arrival", by_arrival))
    }


def selection(
    times: Floats,
    panes: tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]],
    by: tuple[Track, Box, PhaseLabels],
    true: tuple[list[FrameTruth], Mask],
) -> dict[str, dict[str, float]]:
    """What each rule chooses."""
    (bmode, contrast), (found, box, labels), (truths, lost) = panes, by, true
    quality = FrameQuality(
        times_s=times,
        sharpness=np.array([sharpness_of(np.ascontiguousarray(b[box.slices])) for b in bmode]),
        saturated=np.array([white_share(c[box.slices]) for c in contrast]),
        correlation=found.correlation,
        shift_px=found.shift_px,
        kept=found.kept,
        flash=find_flashes(times, contrast.mean(axis=(1, 2))),
    )
    right = label_phases([t.clock_s for t in truths], injection_s=0.0)
    assert right is not None
    outcome: dict[str, dict[str, float]] = {}
    for rule in RULES:
        wanted = Wanted(rule)
        choices = select_frames(quality, labels.labels, wanted)
        chosen = [c for c in choices if c.chosen]
        outcome[rule] = {
            "chosen": len(chosen),
            "missing": sum(missing_frames(choices, wanted).values()),
            "right phase": float(np.mean([c.phase == right.labels[c.index] for c in chosen])),
            "out of plane": float(np.mean([lost[c.index] for c in chosen])),
        }
    return outcome


def carried(
    found: Track, truths: list[FrameTruth], outlined: tuple[Mask, tuple[int, int]]
) -> dict[str, dict[str, float]]:
    """Overlap of carried regions with the truth of every kept frame: from the reference, from
    three outlined frames to the nearest or blended, and left where it was."""
    mask, shape = outlined
    kept = np.flatnonzero(found.kept)
    three = sorted({int(kept[int(len(kept) * q)]) for q in (0.15, 0.5, 0.85)})
    rois = [roi_of(frame, outline(truths[frame], "lesion", shape)) for frame in three]
    one = [roi_of(found.reference, mask)]
    frames = [int(f) for f in kept if int(f) not in (*three, found.reference)]
    ways = {
        "from one frame": propagate(one, found, frames, shape),
        "nearest of three": propagate(rois, found, frames, shape),
        "blend of three": propagate(rois, found, frames, shape, "blend"),
    }
    results: dict[str, dict[str, float]] = {}
    for name, regions in ways.items():
        pairs = [
            (region.roi, outline(truths[region.frame], "lesion", shape))
            for region in regions
            if region.roi is not None
        ]
        results[name] = overlaps(
            [(box_of(true), roi.box) for roi, true in pairs if roi.box and true.any()],
            [(true, roi.mask.decode()) for roi, true in pairs if roi.mask],
        )
    trues = [outline(truths[frame], "lesion", shape) for frame in frames]
    results["left where it was"] = overlaps(
        [(box_of(true), box_of(mask)) for true in trues if true.any()],
        [(true, mask) for true in trues],
    )
    return results


def roi_of(frame: int, mask: Mask) -> Roi:
    return Roi(clip=0, frame=frame, mask=MaskRLE.encode(mask), box=box_of(mask))


def overlaps(boxes: list[tuple[Box, Box]], masks: list[tuple[Mask, Mask]]) -> dict[str, float]:
    """Median IoU of boxes and median Dice of masks."""
    dice = [2 * float((a & b).sum()) / max(1.0, float(a.sum() + b.sum())) for a, b in masks]
    return {
        "box IoU": float(np.median([iou(a, b) for a, b in boxes])),
        "mask Dice": float(np.median(dice)),
    }


def iou(first: Box, second: Box) -> float:
    wide = min(first.x + first.width, second.x + second.width) - max(first.x, second.x)
    high = min(first.y + first.height, second.y + second.height) - max(first.y, second.y)
    shared = max(wide, 0) * max(high, 0)
    return shared / (first.width * first.height + second.width * second.height - shared)


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Over clips: medians with bootstrap intervals of clips, pooled shares likewise."""

    def absolute(name: str) -> list[float | None]:
        return [None if (v := r["arrival_s"][name]) is None else abs(v) for r in rows]

    ways = list(rows[0]["rejection"])
    return {
        "clips": len(rows),
        "frames": sum(r["rejection"][REGION]["lost"] for r in rows)
        + sum(r["rejection"][REGION]["in_plane"] for r in rows),
        "motion_px": {n: middle([r["motion_px"][n]["median"] for r in rows]) for n in ERRORS},
        "motion_p95_px": {n: middle([r["motion_px"][n]["p95"] for r in rows]) for n in ERRORS},
        "sensitivity": {
            n: pooled(
                [r["rejection"][n]["rejected"] for r in rows],
                [r["rejection"][n]["lost"] for r in rows],
            )
            for n in ways
        },
        "specificity": {
            n: pooled(
                [r["rejection"][n]["kept"] for r in rows],
                [r["rejection"][n]["in_plane"] for r in rows],
            )
            for n in ways
        },
        "calm": {
            **middle([r["calm"] for r in rows]),
            "lowest": float(min(r["calm"] for r in rows)),
        },
        "kept": middle([r["kept"] for r in rows]),
        "correlation": middle([r["correlation"] for r in rows]),
        "arrival_s": {n: middle(absolute(n)) for n in rows[0]["arrival_s"]},
        "arrival_none": {
            n: sum(r["arrival_s"][n] is None for r in rows) for n in rows[0]["arrival_s"]
        },
        "phases": {
            n: {
                "share": float(np.mean([r["phases"][n] or 0.0 for r in rows])),
                "lowest": float(min(r["phases"][n] or 0.0 for r in rows)),
            }
            for n in ("clock", "arrival")
        },
        "frames_chosen": {
            rule: {
                key: float(np.mean([r["frames"][rule][key] for r in rows]))
                for key in rows[0]["frames"][rule]
            }
            for rule in RULES
        },
        "regions": {
            way: {
                key: middle([r["regions"][way][key] for r in rows])
                for key in rows[0]["regions"][way]
            }
            for way in rows[0]["regions"]
        },
        "step_ms": middle([r["step_ms"] for r in rows]),
    }


def brief(row: dict[str, Any]) -> str:
    error, of = row["motion_px"][REGION], row["rejection"][REGION]
    return (
        f"motion {error['median']:.2f} px (largest {error['largest']:.2f}), rejected "
        f"{of['rejected']} of {of['lost']}, kept {of['kept']} of {of['in_plane']}, arrival "
        f"{row['arrival_s']['lesion']}, step {row['step_ms']:.2f} ms"
    )


def table(found: Mapping[str, Any]) -> str:
    """The summary as Markdown."""

    lines = [
        f"{found['clips']} clips, {found['frames']} frames",
        "",
        "| motion | residual, px | 95th percentile, px | sensitivity | specificity |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name in ERRORS:
        rejected = [
            between(found[what][name], "share", 3) if name in found[what] else ""
            for what in ("sensitivity", "specificity")
        ]
        lines.append(
            f"| {name} | {between(found['motion_px'][name])} | "
            f"{between(found['motion_p95_px'][name])} | {' | '.join(rejected)} |"
        )
    lines += ["", "| arrival | off by, s | not found |", "| --- | --- | --- |"]
    lines += [
        f"| {name} | {between(v)} | {found['arrival_none'][name]} |"
        for name, v in found["arrival_s"].items()
    ]
    lines += ["", "| phases | frames right | worst clip |", "| --- | --- | --- |"]
    lines += [
        f"| by {n} | {v['share']:.3f} | {v['lowest']:.3f} |" for n, v in found["phases"].items()
    ]
    lines += ["", "| rule | chosen | right phase | out of plane |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {n} | {v['chosen']:.1f} | {v['right phase']:.3f} | {v['out of plane']:.3f} |"
        for n, v in found["frames_chosen"].items()
    ]
    lines += ["", "| region | box IoU | mask Dice |", "| --- | --- | --- |"]
    lines += [
        f"| {n} | {between(v['box IoU'])} | {between(v['mask Dice'])} |"
        for n, v in found["regions"].items()
    ]
    calm_of = found["calm"]
    lines += [
        "",
        f"In-plane frames alone: {calm_of['median']:.3f} kept (lowest {calm_of['lowest']:.3f}). "
        f"Kept {between(found['kept'])}, residual correlation {between(found['correlation'])}, "
        f"{found['step_ms']['median']:.2f} ms per frame.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
