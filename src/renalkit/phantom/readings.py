"""What would radiologists of given skill say about a simulated mass?

The decision variable of reader r for case i is

    x = +-d_r/2 + sqrt(k) c_i + sqrt(1 - k) n_ir

with c_i the within-class deviate of the ideal score (the evidence in the pictures, the same for
all readers) and n_ir the reader's own noise, both standard normal: the AUC of the reader is
Phi(d_r / sqrt 2), any two readers correlate by k within a class, and a case that is hard for one
is hard for the others and for a network (binormal model; Dorfman, Berbaum, Metz, Invest Radiol
1992;27:723).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Reader:
    """One radiologist.

    auc: skill. correlation: k, with the evidence the readers share. years: of experience.
    criterion: decision variable above which the vote is positive, 0 in the middle of the classes.
    outline_sd: relative error of a drawn radius.
    """

    name: str
    group: str
    years: int
    auc: float
    correlation: float = 0.6
    criterion: float = 0.0
    outline_sd: float = 0.08

    @property
    def distance(self) -> float:
        """d_r: distance of the class means."""
        return math.sqrt(2) * float(ndtri(self.auc))


# Groups, experience and mean AUC as in P2, section 3.3: junior 0.740, senior 0.794.
READERS = (
    Reader("junior-1", "junior", 5, 0.73, criterion=-0.1, outline_sd=0.10),
    Reader("junior-2", "junior", 5, 0.74, criterion=0.2, outline_sd=0.10),
    Reader("junior-3", "junior", 6, 0.75, criterion=0.0, outline_sd=0.09),
    Reader("senior-1", "senior", 10, 0.78, criterion=0.1, outline_sd=0.06),
    Reader("senior-2", "senior", 13, 0.79, criterion=0.0, outline_sd=0.05),
    Reader("senior-3", "senior", 15, 0.81, criterion=-0.1, outline_sd=0.05),
)


@dataclass(frozen=True, slots=True)
class Reading:
    """What one reader says about one mass. score: 0..100, certainty of the positive class.
    vote: positive or not. confidence: the same on the five-step scale 1..5."""

    reader: str
    group: str
    score: int
    vote: bool
    confidence: int


def read_case(
    reader: Reader, *, positive: bool, evidence: float, rng: np.random.Generator
) -> Reading:
    """One reading. evidence: within-class deviate of the ideal score, mean 0 and SD 1."""
    k = reader.correlation
    x = (
        (reader.distance if positive else -reader.distance) / 2
        + math.sqrt(k) * evidence
        + math.sqrt(1 - k) * rng.standard_normal()
    )
    certainty = float(ndtr(x - reader.criterion))
    return Reading(
        reader=reader.name,
        group=reader.group,
        score=round(100 * certainty),
        vote=x > reader.criterion,
        confidence=min(5, 1 + int(5 * certainty)),
    )


def draw_outline(mask: Mask, reader: Reader, rng: np.random.Generator) -> Mask:
    """The mass as the reader would outline it: the true radius with smooth errors.

    Args:
        mask: (H,W) truth. rng: of this reading.

    Returns:
        (H,W) mask; empty when the truth is.
    """
    rows, cols = np.nonzero(mask)
    if rows.size == 0:
        return mask.copy()
    centre_y, centre_x = float(rows.mean()), float(cols.mean())
    angles = np.linspace(0, 2 * math.pi, 180, endpoint=False)
    error = np.full(angles.shape, 0.6 * rng.standard_normal())
    for order in (1, 2, 3, 4):
        a, b = rng.standard_normal(2)
        error += 0.57 * (a * np.cos(order * angles) + b * np.sin(order * angles)) / order
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    points = max(contours, key=len)[:, 0, :].astype(np.float64) - (centre_x, centre_y)
    direction = np.arctan2(points[:, 1], points[:, 0])
    factor = 1 + reader.outline_sd * np.interp(direction, angles, error, period=2 * math.pi)
    drawn = points * np.maximum(factor, 0.2)[:, None] + (centre_x, centre_y)
    canvas = np.zeros(mask.shape, np.uint8)
    cv2.fillPoly(canvas, [np.rint(drawn).astype(np.int32)], 1)
    return canvas.astype(bool)
