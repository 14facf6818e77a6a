"""How long does one augmented training picture take here and in MONAI?

Both sides get the same work, every operation switched on: affine (rotation, scale, shift), elastic
deformation, left-right flip, gamma, Gaussian noise, on one float32 picture and its uint8 mask,
drawing of the parameters included, one thread each. MONAI is measured twice: as users chain it
(RandAffined, Rand2DElasticd, ...) and with its affine part folded into Rand2DElasticd, its
fastest form. Parity: one affine change moves the picture alike here, in MONAI and in OpenCV.

    python benchmarks/bench_augmentation.py [--quick]
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import book
import cv2
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
PICTURES = 20
"""Per turn."""


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
        for _ in range(PICTURES):
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
        for _ in range(PICTURES):
            chain({"image": image, "mask": mask})

    return step


def parity(size: int) -> list[book.Parity]:
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

    def apart(who: str, other: np.ndarray) -> book.Parity:
        same = float(np.corrcoef(mine[inner].ravel(), other[inner].ravel())[0, 1])
        return book.Parity(f"1 - correlation of an affine change with {who}", 1 - same, 1e-3)

    return [apart("MONAI", np.asarray(by_monai)[0]), apart("OpenCV", by_opencv)]


def bench(found: book.Book) -> None:
    for size in (128, 256):
        found.compare(
            f"{size} px",
            "ms per picture",
            {
                "renalkit": ours(size),
                "MONAI, chained": theirs(size, folded=False),
                "MONAI, folded": theirs(size, folded=True),
            },
            peer="MONAI, folded",
            parity=parity(size),
            scale=1000 / PICTURES,
        )


if __name__ == "__main__":
    sys.exit(book.main(__file__, __doc__, bench))
