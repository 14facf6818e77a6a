"""Pictures of simulated contrast examinations for the documentation.

    python docs/figures_phantom_ceus.py [--out docs/images]

phantom-ceus-film.png: one examination over time, both panels. phantom-ceus-layouts.png: the four
panel layouts and three consoles. phantom-ceus-curves.png: curves measured on the pixels with the
true masks against the truth.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np

from renalkit.ceus.bolus import BolusKind, bolus_of, curve_values
from renalkit.phantom.bmode.anatomy import draw_anatomy, draw_view
from renalkit.phantom.bmode.lesion import lesion_features
from renalkit.phantom.bmode.picture import SCANNERS
from renalkit.phantom.ceus.console import Layout, Panel
from renalkit.phantom.ceus.motion import STILL
from renalkit.phantom.ceus.study import (
    SILENT,
    CeusOptions,
    CeusPlan,
    CeusStudy,
    FrameTruth,
    draw_ceus,
    linear_power,
)

mpl.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

FILM_TIMES_S = (4.0, 13.0, 15.0, 18.0, 24.0, 32.0, 44.0, 58.0)
LESION, CORTEX = (235, 80, 60), (70, 170, 235)


def examination(seed: int, features: tuple[float, ...], options: CeusOptions) -> CeusPlan:
    """A plan with given CEUS features and otherwise random."""
    rng = np.random.default_rng(seed)
    lesion = replace(lesion_features(rng.standard_normal(3), rng), size_mm=34.0)
    anatomy = draw_anatomy(lesion, "right", rng)
    subject = anatomy, draw_view(anatomy, rng)
    plan = draw_ceus(subject, SCANNERS[seed % 3], features, rng, options)
    return replace(plan, display=replace(plan.display, headroom_db=12.0))


def outlined(pixels: np.ndarray, truth: FrameTruth) -> np.ndarray:
    """The frame with the true outline of the mass in both panels."""
    marked = pixels.copy()
    for panel in Panel:
        mask = truth.mask("lesion", panel, pixels.shape[:2]).astype(np.uint8)
        lines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(marked, lines, -1, LESION, 1, cv2.LINE_AA)
    return marked


def film(out: Path) -> None:
    """A strongly, early and unevenly enhancing mass that washes out."""
    plan = examination(7, (1.2, 0.8, 1.0, 0.9), CeusOptions(layout=Layout.LEFT))
    study = CeusStudy(plan)
    figure, axes = plt.subplots(4, 2, figsize=(12, 18.4), facecolor="black")
    for axis, (pixels, truth) in zip(axes.flat, study.frames(FILM_TIMES_S), strict=True):
        axis.imshow(outlined(pixels, truth) if truth.index == 3 else pixels)
        axis.set_axis_off()
        note = "  (true outline)" if truth.index == 3 else ""
        axis.set_title(f"{truth.clock_s:.0f} s after injection{note}", color="white", fontsize=11)
    figure.subplots_adjust(0.005, 0.005, 0.995, 0.98, 0.01, 0.06)
    figure.savefig(out / "phantom-ceus-film.png", dpi=80, facecolor="black")
    plt.close(figure)


def layouts(out: Path) -> None:
    """Four layouts, three makes; calipers and a flash."""
    figure, axes = plt.subplots(2, 2, figsize=(12, 9.2), facecolor="black")
    for seed, (axis, layout) in enumerate(zip(axes.flat, Layout, strict=True)):
        options = CeusOptions(layout=layout, calipers=seed in (1, 2), flash=seed == 3)
        study = CeusStudy(examination(20 + seed, (0.3 - seed, 0.5, 0.5, 0.5), options))
        ((pixels, truth),) = study.frames([30.2 if seed == 3 else 17.0])
        axis.imshow(pixels)
        axis.set_axis_off()
        axis.set_title(layout + ("  flash" if truth.flash else ""), color="white", fontsize=11)
    figure.subplots_adjust(0.005, 0.005, 0.995, 0.96, 0.01, 0.06)
    figure.savefig(out / "phantom-ceus-layouts.png", dpi=80, facecolor="black")
    plt.close(figure)


def measured(study: CeusStudy, name: str) -> np.ndarray:
    """Mean linear power of a region on the contrast panel, frame after frame."""
    powers: list[float] = []
    for pixels, truth in study.frames():
        box, section = truth.box(name, Panel.CONTRAST), truth.sections.get(name)
        if box is None or section is None:
            powers.append(np.nan)
            continue
        red = pixels[box.slices][section.mask][:, 0]
        powers.append(float(linear_power(red, study.plan.display.dynamic_range_db).mean()))
    return np.array(powers)


def curves(out: Path) -> None:
    """Measured curves against the truth: without noise, with the default noise, three masses."""
    options = CeusOptions(layout=Layout.LEFT, rate_hz=5.0)
    plan = examination(7, (1.2, 0.8, 1.0, 0.9), options)
    figure, axes = plt.subplots(2, 2, figsize=(11, 7.2))
    silent = replace(plan, motion=STILL, noise=SILENT)
    for axis, shown, title in (
        (axes[0, 0], silent, "no noise, no motion"),
        (axes[0, 1], plan, "default noise and motion, true masks followed"),
    ):
        study = CeusStudy(shown)
        times = shown.frame_times_s()
        for name, colour in (("lesion", LESION), ("cortex", CORTEX)):
            tone = np.array(colour) / 255
            axis.plot(times, measured(study, name), ".", ms=2.5, color=tone, alpha=0.6)
            axis.plot(times, study.expected(name, times), color=0.6 * tone, label=f"{name}, truth")
            values = study.rois[name].values
            axis.plot(values.peak_at_s, values.peak, "o", mfc="none", color=0.6 * tone)
        axis.set_title(title, fontsize=10)
        axis.legend(fontsize=8)
    axis, fine = axes[1, 0], np.linspace(0, 90, 901)
    for features, label in (
        ((1.5, 1.0, 1.5, 0.0), "strong, early, fast washout"),
        ((0.0, 0.0, 0.0, 0.0), "features 0"),
        ((-1.5, -1.0, -1.5, 0.0), "weak, late, slow washout"),
    ):
        drawn = examination(7, features, options).perfusion
        assert drawn.lesion is not None
        axis.plot(fine, drawn.lesion.bolus.power(fine), label=label)
    axis.plot(fine, drawn.cortex.power(fine), "k--", label="cortex")
    axis.plot(fine, drawn.outer_medulla.power(fine), "k:", label="outer medulla")
    axis.plot(fine, drawn.inner_medulla.power(fine), "k-.", lw=0.8, label="inner medulla")
    axis.set_title("features and curves (power relative to the peak of cortex)", fontsize=10)
    axis.legend(fontsize=8)
    axis = axes[1, 1]
    bolus = bolus_of(BolusKind.LOGNORMAL, 1.0, 12.0, 7.0, 30.0)
    values = curve_values(bolus)
    axis.plot(fine, bolus.power(fine), "k")
    axis.fill_between(fine, bolus.power(fine), where=fine <= values.peak_at_s, alpha=0.25)
    axis.plot([values.peak_at_s] * 2, [0, values.peak], "C1--", lw=1)
    foot = values.rise_rate_at_s - bolus.power(values.rise_rate_at_s) / values.rise_rate
    axis.plot([foot, foot + values.rise_s], [0, values.peak], "C2", lw=1)
    foot = values.fall_rate_at_s - bolus.power(values.fall_rate_at_s) / values.fall_rate
    axis.plot([foot - values.fall_s, foot], [values.peak, 0], "C3", lw=1)
    axis.axvline(values.arrival_s + values.transit_s, color="C4", lw=1, ls=":")
    axis.set_ylim(-0.05, 1.15)
    for text, at in (
        ("PE, TTP", (values.peak_at_s + 0.8, values.peak + 0.02)),
        ("WiAUC", (values.peak_at_s - 4.5, 0.3)),
        ("RT", (values.arrival_s - 3.5, 0.6)),
        ("FT", (values.peak_at_s + 13, 0.75)),
        ("t0 + mTT", (values.arrival_s + values.transit_s + 1, 0.5)),
    ):
        axis.text(*at, text, fontsize=9)
    axis.set_xlim(0, 80)
    axis.set_title("figures of a lognormal bolus", fontsize=10)
    for axis in axes.flat:
        axis.set_xlabel("seconds after injection")
        axis.set_ylabel("linear echo power")
        axis.grid(alpha=0.2)
    figure.tight_layout()
    figure.savefig(out / "phantom-ceus-curves.png", dpi=90)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "images")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    film(out)
    layouts(out)
    curves(out)


if __name__ == "__main__":
    main()
