"""How do simulated B-mode kidneys look? Draws docs/images/phantom-bmode.png.

    python docs/figures_phantom_bmode.py [--plain]

Six masses with the textbook look of their histology (`typical_lesion`) and two as level `default`
draws them. --plain leaves the outlines out.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import matplotlib
import numpy as np

from renalkit.phantom.bmode.anatomy import Anatomy, draw_anatomy, draw_view
from renalkit.phantom.bmode.lesion import lesion_features, typical_lesion
from renalkit.phantom.bmode.picture import SCANNERS, PhantomImage, render
from renalkit.phantom.histology import Histology, choose_histology
from renalkit.phantom.levels import LEVELS, draw_latents

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

TARGET = Path(__file__).resolve().parent / "images" / "phantom-bmode.png"
SIZE = 640
# Seeds chosen so that the eight masses lie in different places.
GALLERY = (
    (Histology.CCRCC, "right", 40, 0),
    (Histology.PRCC, "left", 12, 1),
    (Histology.CHRCC, "right", 13, 2),
    (Histology.AML, "right", 14, 0),
    (Histology.ONCOCYTOMA, "left", 15, 2),
    (Histology.CYST, "right", 16, 0),
)
LEVEL_CASES = ((True, "right", 43, 0), (False, "left", 44, 2))


def pictures() -> list[tuple[str, PhantomImage]]:
    """Title and picture of each of the eight."""
    made = []
    for histology, side, seed, scanner in GALLERY:
        rng = np.random.default_rng(seed)
        anatomy = draw_anatomy(typical_lesion(histology, rng), side, rng)
        made.append((f"{histology}, typical", show(anatomy, rng, scanner)))
    level = LEVELS["default"]
    for positive, side, seed, scanner in LEVEL_CASES:
        rng = np.random.default_rng(seed)
        latents = draw_latents(level, positive=positive, rng=rng)
        histology = choose_histology(level, latents, positive=positive, rng=rng)
        anatomy = draw_anatomy(lesion_features(latents.bmode, rng), side, rng)
        made.append((f"{histology}, level {level.name}", show(anatomy, rng, scanner)))
    return made


def show(anatomy: Anatomy, rng: np.random.Generator, scanner: int) -> PhantomImage:
    return render((anatomy, "malignant"), draw_view(anatomy, rng), SCANNERS[scanner], SIZE)


def main() -> None:
    figure, axes = plt.subplots(2, 4, figsize=(14, 6.6), facecolor="black")
    for axis, (title, image) in zip(axes.flat, pictures(), strict=True):
        axis.imshow(image.pixels, cmap="gray", vmin=0, vmax=255, interpolation="lanczos")
        if "--plain" not in sys.argv:
            outlines, _ = cv2.findContours(
                image.lesion_mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
            )
            for outline in outlines:
                closed = np.vstack([outline[:, 0], outline[:1, 0]])
                axis.plot(*closed.T, ":", color="#ffd24a", linewidth=0.9)
        bar = 20.0 / image.mm_per_px
        bottom = SIZE * 0.80
        axis.plot([SIZE - 30 - bar, SIZE - 30], [bottom, bottom], color="white", linewidth=1.5)
        axis.text(SIZE - 30 - bar / 2, bottom - 8, "2 cm", color="white", ha="center", fontsize=7)
        axis.set_title(title, color="white", fontsize=10)
        axis.set_ylim(SIZE * 0.82, SIZE * 0.08)
        axis.axis("off")
    figure.tight_layout(pad=0.4)
    figure.savefig(TARGET, dpi=110, facecolor="black", metadata={"Software": None})
    print(TARGET)


if __name__ == "__main__":
    main()
