"""How long does one augmented training picture take here and in MONAI?

Both sides get the same work, every operation switched on: affine (rotation, scale, shift), elastic
deformation, left-right flip, gamma, Gaussian noise, on one float32 picture and its uint8 mask,
drawing of the parameters included, one thread each. MONAI is measured twice: as users chain it
(RandAffined, Rand2DElasticd, ...) and with its affine part folded into Rand2DElasticd, its
fastest form. The sides take turns inside one run and medians are compared.

    python benchmarks/bench_augmentation.py [--repeats N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import monai
import numpy as np
import torch
from monai.transforms import (
    Affine,
    Compose,
    Rand2DElasticd,
    RandAdjustContrastd,
    RandAffined,
    RandFlipd,
    RandGaussianNoised,
)

from renalkit.transforms.augment import Augmentation, AugmentRanges, sample_augmentation

ROTATION_DEG, SCALE, TRANSLATE, NOISE_SD = 15.0, (0.9, 1.15), 0.05, 0.02


def picture_and_mask(size: int) -> tuple[np.ndarray, np.ndarray]:
    """A smooth random picture (1, S, S) in 0..1 and a disc as its mask."""
    noise = np.random.default_rng(0).random((size, size), dtype=np.float32)
    smooth = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2.5), None, 0, 1, cv2.NORM_MINMAX)
    y, x = np.mgrid[:size, :size]
    disc = (np.hypot(y - size / 2, x - size / 3) < size / 6).astype(np.uint8)
    return smooth[None], disc[None]


def ours(size: int) -> Callable[[], None]:
    image, mask = picture_and_mask(size)
    ranges = AugmentRanges(
        flip_probability=1.0,
        rotation_deg=ROTATION_DEG,
        scale=SCALE,
        translate=TRANSLATE,
        gamma=(0.8, 1.25),
        elastic_sigma_px=size / 8,
        elastic_amplitude_px=size / 40,
        noise_sd=NOISE_SD,
        probability=1.0,
    )
    rng = np.random.default_rng(1)

    def step() -> None:
        sample_augmentation(ranges, size, rng).apply(image, mask)

    return step


def theirs(size: int, *, folded: bool) -> Callable[[], None]:
    image, mask = picture_and_mask(size)
    keys, modes = ("image", "mask"), ("bilinear", "nearest")
    affine = {
        "rotate_range": np.deg2rad(ROTATION_DEG),
        "scale_range": (SCALE[0] - 1, SCALE[1] - 1),
        "translate_range": TRANSLATE * size,
    }
    elastic = {
        "spacing": (size // 8, size // 8),
        "magnitude_range": (0.0, size / 40),
        "prob": 1.0,
        "mode": modes,
        "padding_mode": "zeros",
    }
    geometry = (
        [Rand2DElasticd(keys, **elastic, **affine)]
        if folded
        else [
            RandAffined(keys, prob=1.0, mode=modes, padding_mode="zeros", **affine),
            Rand2DElasticd(keys, **elastic),
        ]
    )
    chain = Compose(
        [
            *geometry,
            RandFlipd(keys, prob=1.0, spatial_axis=1),
            RandAdjustContrastd("image", prob=1.0, gamma=(0.8, 1.25)),
            RandGaussianNoised("image", prob=1.0, std=NOISE_SD),
        ]
    )
    chain.set_random_state(1)

    def step() -> None:
        chain({"image": image, "mask": mask})

    return step


def parity(size: int) -> dict[str, float]:
    """Correlation of one affine change in the interior: ours with MONAI's and with OpenCV's."""
    image, _ = picture_and_mask(size)
    angle, scale, shift = 12.0, 1.1, (3.0, -2.0)
    op = Augmentation(size, rotation_deg=angle, scale=scale, shift_x_px=3.0, shift_y_px=-2.0)
    mine = op.apply(image)[0][0]
    centre = ((size - 1) / 2, (size - 1) / 2)
    matrix = cv2.getRotationMatrix2D(centre, angle, scale)
    matrix[:, 2] += shift
    by_opencv = cv2.warpAffine(image[0], matrix, (size, size), flags=cv2.INTER_LINEAR)
    # MONAI takes the matrix from output to source, axes in the order row, column, about the centre.
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))
    to_centre = np.array([[1, 0, centre[0]], [0, 1, centre[1]], [0, 0, 1]])
    about = np.linalg.inv(to_centre) @ inverse @ to_centre
    swap = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]])
    by_monai = Affine(affine=swap @ about @ swap, padding_mode="zeros", image_only=True)(
        torch.from_numpy(image)
    )
    inner = np.s_[size // 5 : -size // 5, size // 5 : -size // 5]

    def correlation(other: np.ndarray) -> float:
        return float(np.corrcoef(mine[inner].ravel(), other[inner].ravel())[0, 1])

    return {"monai": correlation(np.asarray(by_monai)[0]), "opencv": correlation(by_opencv)}


def measure(steps: dict[str, Callable[[], None]], repeats: int, inner: int) -> dict[str, float]:
    """Median ms per picture of each side; the sides take turns so that both see the same load."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        for _ in range(5):
            step()
    for _ in range(repeats):
        for name, step in steps.items():
            start = time.perf_counter()
            for _ in range(inner):
                step()
            times[name].append((time.perf_counter() - start) / inner * 1000)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)

    result: dict[str, object] = {
        "threads": 1,
        "repeats": options.repeats,
        "versions": {
            "opencv": cv2.__version__,
            "monai": monai.__version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }
    rows = []
    passed = True
    for size in (128, 256):
        ms = measure(
            {
                "ours": ours(size),
                "monai_chain": theirs(size, folded=False),
                "monai_folded": theirs(size, folded=True),
            },
            options.repeats,
            inner=20,
        )
        agreement = parity(size)
        ratio = ms["monai_chain"] / ms["ours"]
        folded_ratio = ms["monai_folded"] / ms["ours"]
        passed &= folded_ratio >= 3 and min(agreement.values()) > 0.999
        rows.append(
            f"{size:>7}  {ms['ours']:>8.2f}  {ms['monai_chain']:>11.2f}  {ratio:>5.1f}x"
            f"  {ms['monai_folded']:>12.2f}  {folded_ratio:>5.1f}x"
            f"  {agreement['monai']:.5f} / {agreement['opencv']:.5f}"
        )
        result[f"size_{size}"] = {
            "ms_per_image": ms,
            "ratio_chain": ratio,
            "ratio_folded": folded_ratio,
            "affine_correlation": agreement,
        }
    result["target_met"] = passed
    text = json.dumps(result, indent=2)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")
    print(text)
    print("size px   ours ms  MONAI chain   ratio  MONAI folded   ratio  r(MONAI) / r(OpenCV)")
    print("\n".join(rows))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
