"""Are the figures of perfusion right, and do their intervals hold the truth?

Simulated patients of a level, as a cohort has them, each with a clip of 120 s (600 x 800). To save
processor time the clips are rendered at 5 frames per second instead of 10; their noise is correlated
over half a second, so little is lost. The mass and the cortex are outlined truly on the reference
frame that the method chooses, as a reader would; the panes, the injection and the dynamic range are
given. Truth are the figures of the region in its section: of the sum of the boluses of all tissues
in it, at the edge too (`CeusStudy.rois`). Ways of measuring:

    tracked            motion found on B-mode, lost sections rejected, linear power, lognormal bolus
    true motion        the same with the simulated motion; frames count when less than a tenth of the
                       slice is in another section
    no compensation    regions stay where they were, all frames count
    no linearisation   tracked, but the mean of displayed grey is fitted
    gamma variate      tracked, another model
    no model           tracked, read off the smoothed curve

An error is relative, of t0 in seconds. A figure that is not answered has no error and is counted.
Clips are done one after the other; what is finished is kept beside the result and not done again.

Run: python benchmarks/check_ceus_perfusion.py --count 100 [--seed 1] [--out FILE]
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from ceus_check import Settings, check_cines, drawn_study

from renalkit.ceus.bolus import CurveValues
from renalkit.ceus.curves import CurveMeter, RoiCurve
from renalkit.ceus.linear import PaletteRefused, PowerScale, read_palette
from renalkit.ceus.maps import MapMeter, cell_px, parametric_maps, summarise
from renalkit.ceus.motion import Tracker, finish_track
from renalkit.ceus.perfusion import CurveFit, Figure, FitOptions, Perfusion, analyse
from renalkit.ceus.reference import choose_reference, sample_indices
from renalkit.domain.geometry import Box
from renalkit.phantom.ceus.console import Panel
from renalkit.phantom.ceus.study import CeusStudy, FrameTruth

Mask = npt.NDArray[np.bool_]
Pixels = npt.NDArray[np.uint8]

FIELDS = {
    "PE": "peak",
    "TTP": "peak_at_s",
    "WiAUC": "wash_in",
    "mTT": "transit_s",
    "RT": "rise_s",
    "t0": "arrival_s",
    "FT": "fall_s",
    "WoAUC": "wash_out",
    "WiR": "rise_rate",
    "WiPI": "wash_in_index",
}
COVERED = ("PE", "TTP", "mTT", "WiAUC", "RT", "t0")
RATIOS = ("PE", "WiAUC", "mTT")
IN_PLANE = 0.1
TRACKED = FitOptions(from_injection=True)
SHORT = replace(TRACKED, resamples=0)
WAYS: dict[str, tuple[str, FitOptions]] = {
    "tracked": ("tracked", TRACKED),
    "true motion": ("true motion", TRACKED),
    "no compensation": ("no compensation", SHORT),
    "no linearisation": ("grey", SHORT),
    "gamma variate": ("tracked", replace(SHORT, method="gamma-variate")),
    "no model": ("tracked", replace(SHORT, method="model-free")),
}


def main() -> None:
    check_cines(__doc__, "results/ceus/perfusion.json", one_clip, brief, summary, table)


def one_clip(index: int, settings: Settings) -> dict[str, Any]:
    return judged(measured(index, settings))


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """One clip: curves by way of measuring, the truth, and the middle of the maps over the mass.

    correlation: of the tracker (T,). out_of_plane: true share (T,). maps_s: to fit the maps.
    """

    curves: Mapping[str, Mapping[str, RoiCurve]]
    truth: Mapping[str, CurveValues]
    maps: Mapping[str, float | None]
    maps_s: float
    correlation: npt.NDArray[np.float64]
    out_of_plane: npt.NDArray[np.float64]


def measured(index: int, settings: Settings) -> Measured:
    """Render a clip and measure its curves in every way, frame by frame."""
    study = drawn_study(index, settings, rate_hz=settings["rate_hz"])
    times = study.plan.frame_times_s()
    panes = {panel: study.places[panel].view for panel in Panel}
    here, there = panes[Panel.BMODE], panes[Panel.CONTRAST]
    reference, first = reference_frame(study, times)
    masks = outlines(first[1], study)
    box = Box(*cv2.boundingRect(masks["lesion"].astype(np.uint8)))
    palette = read_palette([first[0][there.slices]])
    if isinstance(palette, PaletteRefused):
        raise TypeError(palette.words)
    scale = PowerScale(palette, study.plan.display.dynamic_range_db)
    grey = PowerScale(palette, None)
    meters = {
        "tracked": CurveMeter(masks, scale),
        "true motion": CurveMeter(masks, scale),
        "no compensation": CurveMeter(masks, scale),
        "grey": CurveMeter(masks, grey),
    }
    size = cell_px((study.scene.mm_per_px, study.scene.mm_per_px))
    mapped = MapMeter(box, scale, size, (float(times[0]), float(times[-1])))
    tracker = Tracker(first[0][here.slices], box)
    shifts, aside = [], []
    for pixels, truth in study.frames():
        shift = tracker.step(pixels[here.slices])
        levels = palette.levels(pixels[there.slices])
        moved = (
            (truth.right_mm - first[1].right_mm) / study.scene.mm_per_px,
            (truth.deep_mm - first[1].deep_mm) / study.scene.mm_per_px,
        )
        found = shift.dx, shift.dy
        for name, at in (("tracked", found), ("grey", found), ("true motion", moved)):
            meters[name].add_levels(levels, truth.time_s, at)
        meters["no compensation"].add_levels(levels, truth.time_s)
        mapped.add_levels(levels, truth.time_s, found, kept=truth.out_of_plane < IN_PLANE)
        shifts.append(shift)
        aside.append(truth.out_of_plane)
    out_of_plane = np.array(aside)
    track = finish_track(tracker, reference, shifts)
    kept = {
        "tracked": track.kept,
        "grey": track.kept,
        "true motion": out_of_plane < IN_PLANE,
        "no compensation": None,
    }
    begun = time.process_time()
    maps = parametric_maps(mapped.cells())
    maps_s = time.process_time() - begun
    rows = summarise(maps, {"lesion": masks["lesion"]})
    return Measured(
        {name: meter.curves(kept[name]) for name, meter in meters.items()},
        {name: roi.values for name, roi in study.rois.items()},
        {row.name: row.mean if row.name in ("PE", "WiAUC") else row.median for row in rows},
        maps_s,
        track.correlation,
        out_of_plane,
    )


def reference_frame(
    study: CeusStudy, times: npt.NDArray[np.float64]
) -> tuple[int, tuple[Pixels, FrameTruth]]:
    """The frame that `choose_reference` takes from the clip, rendered on its own."""
    view = study.places[Panel.BMODE].view
    samples = sample_indices(len(times))
    frames = [(pixels.copy(), truth) for pixels, truth in study.frames(times[samples])]
    chosen = choose_reference([pixels[view.slices] for pixels, _ in frames], samples).index
    return chosen, frames[samples.index(chosen)]


def outlines(truth: FrameTruth, study: CeusStudy) -> dict[str, Mask]:
    """The true regions in the contrast pane, as far as they have a curve."""
    view = study.places[Panel.CONTRAST].view
    shape = view.height, view.width
    found: dict[str, Mask] = {}
    for name in study.rois:
        section, mask = truth.sections[name], np.zeros(shape, np.bool_)
        height, width = section.mask.shape
        mask[section.y : section.y + height, section.x : section.x + width] = section.mask
        found[name] = mask
    return found


def judged(clip: Measured) -> dict[str, Any]:
    """Errors and coverage of every way, as plain values."""
    row: dict[str, Any] = {"ways": {}, "truth": {n: truths(v) for n, v in clip.truth.items()}}
    for way, (curves, options) in WAYS.items():
        begun = time.process_time()
        found = analyse(clip.curves[curves], options)
        row["ways"][way] = {
            "s": time.process_time() - begun,
            "regions": {name: errors(found, name, clip.truth[name]) for name in clip.truth},
            "ratios": ratios(found, clip.truth),
        }
    row["maps"] = {
        name: None if value is None else value / row["truth"]["lesion"][name] - 1
        for name, value in clip.maps.items()
    }
    row["maps_s"] = clip.maps_s
    row["kept"] = float(np.mean(clip.curves["tracked"]["lesion"].kept))
    return row


def truths(values: CurveValues) -> dict[str, float]:
    return {name: float(getattr(values, field)) for name, field in FIELDS.items()}


def errors(found: Perfusion, region: str, truth: CurveValues) -> dict[str, Any]:
    """By figure: error, whether the interval holds the truth, half its width over the value."""
    fit = found.curves[region]
    if not isinstance(fit, CurveFit):
        return {"refused": fit.reason}
    result: dict[str, Any] = {}
    for name, true in truths(truth).items():
        figure = fit.figures.get(name) or fit.figures[f"{name}_display"]
        scale = 1.0 if name == "t0" else abs(true)
        power = figure.unit.startswith("grey")
        result[name] = None if power else outcome(figure, true, scale)
    bolus = fit.bolus
    result["QOF"] = fit.value("QOF")
    result["sigma"] = None if bolus is None else getattr(bolus, "sigma", None)
    return result


def outcome(figure: Figure, true: float, scale: float) -> list[float | bool | None] | None:
    if figure.value is None:
        return None
    held = half = None
    if figure.low is not None and figure.high is not None:
        held = bool(figure.low <= true <= figure.high)
        half = (figure.high - figure.low) / 2 / scale
    return [(figure.value - true) / scale, held, half]


def ratios(found: Perfusion, truth: Mapping[str, CurveValues]) -> dict[str, Any]:
    """The mass over the cortex; grey levels are compared with echo power, for want of better."""
    if not found.comparisons:
        return {}
    mass, cortex = (truths(truth[name]) for name in ("lesion", "cortex"))
    shown = found.comparisons[0].ratios
    result: dict[str, Any] = {}
    for name in RATIOS:
        figure = shown.get(name) or shown[f"{name}_display"]
        true = mass[name] / cortex[name]
        result[name] = outcome(figure, true, true)
    return result


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Over clips: median absolute error with its bootstrap interval, coverage, answered."""
    return {
        "clips": len(rows),
        "regions": {
            region: {
                way: {
                    name: over([r["ways"][way]["regions"].get(region, {}).get(name) for r in rows])
                    for name in FIELDS
                }
                for way in WAYS
            }
            for region in ("lesion", "cortex")
        },
        "ratios": {
            way: {name: over([r["ways"][way]["ratios"].get(name) for r in rows]) for name in RATIOS}
            for way in WAYS
        },
        "pooled": {
            name: over(
                [
                    r["ways"]["tracked"]["regions"].get(region, {}).get(name)
                    for r in rows
                    for region in ("lesion", "cortex")
                ]
            )
            for name in COVERED
        },
        "refused": {
            way: sum("refused" in e for r in rows for e in r["ways"][way]["regions"].values())
            for way in WAYS
        },
        "maps": {
            name: over([None if (v := r["maps"][name]) is None else [v, None, None] for r in rows])
            for name in ("PE", "TTP", "WiAUC", "mTT")
        },
        "kept": float(np.median([r["kept"] for r in rows])),
        "fit_s": float(np.median([r["ways"]["tracked"]["s"] for r in rows])),
        "maps_s": float(np.median([r["maps_s"] for r in rows])),
    }


def over(found: Sequence[Sequence[Any] | None]) -> dict[str, float | int | None]:
    known = [f for f in found if f is not None]
    result: dict[str, float | int | None] = {"n": len(found), "answered": len(known)}
    if not known:
        return result
    off = np.abs([f[0] for f in known])
    drawn_at = np.random.default_rng(0).integers(0, off.size, (2000, off.size))
    low, high = np.percentile(np.median(off[drawn_at], axis=1), [2.5, 97.5])
    result |= {"error": float(np.median(off)), "low": float(low), "high": float(high)}
    result["bias"] = float(np.median([f[0] for f in known]))
    held = [f[1] for f in known if f[1] is not None]
    result["coverage"] = float(np.mean(held)) if held else None
    widths = [f[2] for f in known if f[2] is not None]
    result["half_width"] = float(np.median(widths)) if widths else None
    return result


def brief(row: Mapping[str, Any]) -> str:
    mass = row["ways"]["tracked"]["regions"]["lesion"]
    words = [
        f"{name} {'not answered' if (e := mass.get(name)) is None else f'{e[0]:+.3f}'}"
        for name in ("PE", "TTP", "mTT", "t0")
    ]
    return ", ".join(words)


def table(found: Mapping[str, Any]) -> str:
    """The summary as Markdown."""
    names = ("PE", "TTP", "WiAUC", "mTT", "RT", "t0")
    lines = [f"{found['clips']} clips"]
    for region, ways in found["regions"].items():
        head = " | ".join(f"{n}, {'s' if n == 't0' else '%'}" for n in names)
        lines += ["", f"| {region}: median error | {head} |", "| --- |" + " --- |" * len(names)]
        for way, cells in ways.items():
            lines.append(f"| {way} | {' | '.join(shown(n, cells[n]) for n in names)} |")
        held = " | ".join(names)
        lines += ["", f"| {region}: tracked | {held} |", "| --- |" + " --- |" * len(names)]
        tracked = ways["tracked"]
        for words, key in (("coverage of 95 %", "coverage"), ("half width", "half_width")):
            cells = " | ".join(number(tracked[n].get(key)) for n in names)
            lines.append(f"| {words} | {cells} |")
        bias = " | ".join(number(tracked[n].get("bias")) for n in names)
        answered = " | ".join(f"{tracked[n]['answered']} of {tracked[n]['n']}" for n in names)
        lines += [f"| bias | {bias} |", f"| answered | {answered} |"]
    pooled = found["pooled"]
    shares = {n: pooled[n].get("coverage") for n in COVERED}
    held = ", ".join(f"{n} {number(share)}" for n, share in shares.items() if share is not None)
    lines += ["", f"Coverage of both regions together: {held}."]
    lines += ["", "| mass over cortex | PE, % | WiAUC, % | mTT, % |", "| --- | --- | --- | --- |"]
    for way, cells in found["ratios"].items():
        lines.append(f"| {way} | {' | '.join(shown(n, cells[n]) for n in RATIOS)} |")
    maps = ", ".join(f"{n} {shown(n, v)} %" for n, v in found["maps"].items())
    lines += [
        "",
        "Coverage of the ratios when tracked: "
        + ", ".join(f"{n} {number(found['ratios']['tracked'][n].get('coverage'))}" for n in RATIOS)
        + ".",
        f"Maps, mean (PE, WiAUC) or median (TTP, mTT) over the mass against its curve: {maps}.",
        f"Kept {found['kept']:.2f} of the frames; curves with intervals {found['fit_s']:.1f} s, "
        f"maps {found['maps_s']:.1f} s of processor time per clip.",
    ]
    return "\n".join(lines)


def shown(name: str, cell: Mapping[str, Any]) -> str:
    """Error with its interval; nothing where less than half of the clips answer."""
    if 2 * cell["answered"] < max(1, cell["n"]):
        return ""
    factor, digits = (1, 2) if name == "t0" else (100, 1)
    low, middle, high = (f"{factor * cell[k]:.{digits}f}" for k in ("low", "error", "high"))
    return f"{middle} ({low}-{high})"


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    main()
