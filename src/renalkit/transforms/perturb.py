"""What is left of a picture when its most telling places are blurred, and what when only they stay?

Deletion goes from the picture to its blur, insertion from the blur to the picture, in both cases
the places with the highest values first. The blur keeps grey and colour of the surroundings, so
that the network is not shown an edge that the explanation itself drew.

Source: Petsiuk, Das and Saenko 2018, RISE, section 4.3.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

BLUR = 0.1
"""Standard deviation of the blur as a share of the picture's side."""

Picture = npt.NDArray[np.uint8]

# Shape legend: c channels, h rows, w columns, p steps and the start.


def blurred(picture: Picture) -> Picture:
    """(c,h,w) uint8 with what is finer than a tenth of its side taken away; borders reflected."""
    sigma = BLUR * max(picture.shape[1:])
    return np.stack([cv2.GaussianBlur(channel, (0, 0), sigma) for channel in picture])


def ranked(values: npt.NDArray[np.floating], seed: int = 0) -> npt.NDArray[np.int64]:
    """Flat places of a map (h,w), the highest first; ties in an order drawn by the seed."""
    ties = np.random.default_rng(seed).random(values.size)
    return np.lexsort((ties, -values.ravel()))


def replaced(
    picture: Picture, other: Picture, order: npt.NDArray[np.int64], steps: int
) -> npt.NDArray[np.uint8]:
    """Pictures (steps+1,c,h,w) in which ever more places show the other picture.

    picture, other: (c,h,w) uint8. order: flat places, first replaced first. The first result is
    the picture, the last one the other; each step replaces the same number of places (+-1).

    Raises:
        ValueError: shapes differ, the order does not name every place, or fewer than one step.
    """
    n = picture.shape[1] * picture.shape[2]
    if picture.shape != other.shape or order.shape != (n,) or steps < 1:
        raise ValueError(
            f"pictures {picture.shape} and {other.shape}, {order.size} places, {steps} steps"
        )
    found = np.repeat(picture[None], steps + 1, axis=0).reshape(steps + 1, len(picture), n)
    shown = other.reshape(len(picture), n)
    for step in range(1, steps + 1):
        places = order[: round(n * step / steps)]
        found[step][:, places] = shown[:, places]
    return found.reshape(steps + 1, *picture.shape)
