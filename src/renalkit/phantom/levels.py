"""How hard is a phantom cohort, and how well could anyone do on it?

A level fixes the AUC of the ideal observer for B-mode alone, CEUS alone and both together. Each
patient has latent features per modality, standard normal but for the class:

    f = +-d/2 w + e        (+ for the positive class, w of unit length, e standard normal)

so the ideal observer of one modality scores d w.f and reaches AUC = Phi(d / sqrt 2). The noise of
the two modalities is correlated by rho along their w only; seen together they give
D^2 = 2 d^2 / (1 + rho). Everything else (size, position, scanner, gain) is drawn without looking
at the class. A level is frozen once published: a changed level gets a new name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

Vector = npt.NDArray[np.float64]

BMODE_FEATURES = ("echo", "texture", "margin")
"""Latent B-mode features; positive: darker than cortex, more uneven, more irregular outline."""

CEUS_FEATURES = ("peak", "arrival", "washout", "unevenness")
"""Latent CEUS features; positive: stronger, earlier, faster washout, more uneven than cortex."""

_BMODE_SHARE = np.sqrt(np.array([0.25, 0.30, 0.45]))
_CEUS_SHARE = np.sqrt(np.array([0.20, 0.30, 0.30, 0.20]))


@dataclass(frozen=True, slots=True)
class Level:
    """One named difficulty.

    auc_single: of the ideal observer of either modality alone. auc_both: of the one who sees both.
    """

    name: str
    auc_single: float
    auc_both: float

    @property
    def distance(self) -> float:
        """d: distance of the class means along the informative direction, in SD."""
        return math.sqrt(2) * float(ndtri(self.auc_single))

    @property
    def correlation(self) -> float:
        """rho: within-class correlation of the two modalities along their directions."""
        both = math.sqrt(2) * float(ndtri(self.auc_both))
        return 2 * (self.distance / both) ** 2 - 1


LEVELS = MappingProxyType(
    {
        level.name: level
        for level in (
            Level("easy", auc_single=0.92, auc_both=0.96),
            Level("default", auc_single=0.82, auc_both=0.88),
            Level("hard", auc_single=0.70, auc_both=0.75),
        )
    }
)


@dataclass(frozen=True, slots=True, eq=False)
class Latents:
    """Latent features of one mass: bmode (3,) in the order of BMODE_FEATURES, ceus (4,)."""

    bmode: Vector
    ceus: Vector


def draw_latents(level: Level, *, positive: bool, rng: np.random.Generator) -> Latents:
    """Draw the features of a mass of the positive (malignant, high grade) or negative class."""
    rho = level.correlation
    shared = rng.standard_normal()

    def draw(share: Vector) -> Vector:
        noise = rng.standard_normal(len(share))
        own = float(share @ noise)
        along = math.sqrt(rho) * shared + math.sqrt(1 - rho) * own
        mean = level.distance / 2 if positive else -level.distance / 2
        return noise + (along - own + mean) * share

    return Latents(draw(_BMODE_SHARE), draw(_CEUS_SHARE))


def class_mean(level: Level, *, positive: bool) -> Vector:
    """Mean of the features (B-mode, then CEUS; (7,)) of a class."""
    mean = level.distance / 2 if positive else -level.distance / 2
    return mean * np.concatenate([_BMODE_SHARE, _CEUS_SHARE])


def bmode_score(level: Level, latents: Latents) -> float:
    """Log likelihood ratio positive : negative of the B-mode features."""
    return level.distance * float(_BMODE_SHARE @ latents.bmode)


def ceus_score(level: Level, latents: Latents) -> float:
    """Log likelihood ratio positive : negative of the CEUS features."""
    return level.distance * float(_CEUS_SHARE @ latents.ceus)


def joint_score(level: Level, latents: Latents) -> float:
    """Log likelihood ratio of both, their correlation taken into account."""
    return (bmode_score(level, latents) + ceus_score(level, latents)) / (1 + level.correlation)
