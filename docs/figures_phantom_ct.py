"""Draw the pictures of the CT phantom in docs/images.

    python docs/figures_phantom_ct.py

phantom-ct.png: one slice in the four contrast phases with the outlines of its masses, and scans of
each kind. Window -160..240 HU, as an abdominal CT is read.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt

from renalkit.phantom.ct.volume import CtCase, CtPlan, CtVolume, Phase, draw_case, render_phases

OUT = Path(__file__).parent / "images"
WINDOW_HU = (-160, 240)
COLOURS = ("#ff5a5f", "#3ddc97", "#ffc145", "#d291ff", "#ff9f6b")
ONE = (Phase.NEPHROGRAPHIC,)
EARLY = (Phase.CORTICOMEDULLARY,)


def section(case: CtCase, z_mm: float, phases: tuple[Phase, ...]) -> CtVolume:
    """A few slices about a height, at full matrix."""
    spacing = case.spacing_mm[0]
    x, y, _ = case.origin_lps_mm
    return render_phases(
        dataclasses.replace(case, shape=(3, *case.shape[1:]), origin_lps_mm=(x, y, z_mm - spacing)),
        phases,
    )


def show(axes: plt.Axes, volume: CtVolume, phase: Phase, title: str, outlines: bool) -> None:
    """One axial slice, the patient's right on the left, with masses and kidneys outlined."""
    axes.imshow(volume.hu[phase][1], cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1])
    if outlines:
        kidney = volume.labels[1] > 0
        if kidney.any():
            axes.contour(kidney, [0.5], colors=["#5bc0ff"], linewidths=0.7, linestyles=":")
        for number in np.unique(volume.instances[1])[1:]:
            colour = COLOURS[(int(number) - 1) % len(COLOURS)]
            axes.contour(volume.instances[1] == number, [0.5], colors=[colour], linewidths=0.9)
    body = np.argwhere(volume.hu[phase][1] > -300)
    (top, left), (bottom, right) = body.min(0), body.max(0)
    axes.set_xlim(max(left - 8, 0), min(right + 8, volume.labels.shape[2]))
    axes.set_ylim(min(bottom + 4, volume.labels.shape[1]), max(top - 12, 0))
    axes.set_title(title, fontsize=8)
    axes.axis("off")


def first(plan: CtPlan, wanted: str, middle: bool = False) -> CtCase:
    """The first case whose largest mass is of a class, histology, Bosniak class or core.

    middle: and beside the hilum of its kidney.
    """
    for seed in range(200):
        case = draw_case(plan, seed)
        one = case.lesions[0]
        kidney = next(k for k in case.kidneys if k.side == one.side)
        beside = abs(one.body.centre_mm[2] - kidney.hull.centre_mm[2]) < 8.0
        if wanted in (one.lesion_class, str(one.histology), one.bosniak, one.core_kind) and (
            beside or not middle
        ):
            return case
    raise LookupError(wanted)


def mass_height(case: CtCase, index: int = 0) -> float:
    """Height of a mass."""
    return case.lesions[index].body.centre_mm[2]


def panels() -> list[tuple[CtVolume, Phase, str, bool]]:
    """All pictures in reading order."""
    base = {"matrix": 512, "slice_spacing_mm": 2.5, "normal_share": 0.0, "distractors": 3.0}
    plan = CtPlan(
        tumours=1,
        cysts=2,
        tumour_mm=(35, 45),
        cyst_mm=(15, 28),
        aml_share=0,
        kidneys="both",
        **base,
    )
    case = first(plan, "ccRCC", middle=True)
    four = section(case, mass_height(case), tuple(Phase))
    out = [(four, phase, str(phase), True) for phase in Phase]

    normal = draw_case(dataclasses.replace(plan, tumours=0, cysts=0), 12)
    middle = normal.kidneys[0].hull.centre_mm[2]
    out.append((section(normal, middle, EARLY), EARLY[0], "normal kidneys", True))
    touching = dataclasses.replace(
        plan, cysts=1, touching_share=1.0, kidneys="left_only", cyst_mm=(22, 30)
    )
    pair = next(c for c in (draw_case(touching, s) for s in range(50)) if c.lesions[1].touching)
    reach = [one.surface()[:, 2] for one in pair.lesions[:2]]
    height = (max(z.min() for z in reach) + min(z.max() for z in reach)) / 2
    out.append((section(pair, height, ONE), ONE[0], "touching masses, right kidney absent", True))
    fused = draw_case(dataclasses.replace(plan, kidneys="horseshoe", tumours=0, cysts=0), 5)
    bridge = fused.isthmus_mm[len(fused.isthmus_mm) // 2][2]
    out.append((section(fused, bridge + 2.0, ONE), ONE[0], "horseshoe kidney", True))
    large = dataclasses.replace(plan, tumour_mm=(75, 90), cysts=0)
    necrotic = first(large, "necrosis")
    out.append((section(necrotic, mass_height(necrotic), ONE), ONE[0], "large necrotic mass", True))

    for aml, wanted, title in (
        (0.94, "AML", "angiomyolipoma"),
        (0.0, "IV", "cystic mass, Bosniak IV"),
        (0.0, "oncocytoma", "oncocytoma"),
        (0.0, "pRCC", "papillary carcinoma"),
    ):
        one = dataclasses.replace(plan, aml_share=aml, tumour_mm=(32, 48), cysts=0)
        found = first(one, wanted)
        mass = found.lesions[0]
        height = (mass.nodule or mass.body).centre_mm[2]
        out.append((section(found, height, ONE), ONE[0], title, True))
    return out


def main() -> int:
    """Write the figure."""
    found = panels()
    figure, grid = plt.subplots(3, 4, figsize=(13, 8.6), facecolor="white")
    for axes, panel in zip(grid.flat, found, strict=True):
        show(axes, *panel)
    figure.tight_layout(pad=0.4)
    OUT.mkdir(exist_ok=True)
    figure.savefig(OUT / "phantom-ct.png", dpi=110)
    return 0


if __name__ == "__main__":
    sys.exit(main())
