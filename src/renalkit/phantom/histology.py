"""Which histology has a simulated mass, given its class and its latent features?

Shares within a class follow surgical series: of malignant masses 66 % clear cell, 12 % papillary
and 6 % chromophobe carcinoma (555 partial nephrectomies, BMC Urology 24:175, 2024); of benign ones
87 oncocytomas, 17 angiomyolipomas, 10 cysts (815 nephrectomies below 7 cm, Snyder et al., J. Urol.
176:2391, 2006); other histologies are left out and the shares renormalised.

The histology is drawn after the features, by Bayes' rule with a prototype per histology, so that
the features given the class stay exactly Gaussian and the AUC of a level holds, while an
angiomyolipoma tends to be bright and a papillary carcinoma dark and weakly enhancing. A look that
would give the class away beyond the features (an anechoic cyst) belongs to galleries only.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from renalkit.phantom.levels import Latents, Level, class_mean

Vector = npt.NDArray[np.float64]


class Histology(StrEnum):
    """Histological kinds of renal mass."""

    CCRCC = "ccRCC"
    PRCC = "pRCC"
    CHRCC = "chRCC"
    AML = "AML"
    ONCOCYTOMA = "oncocytoma"
    CYST = "cyst"


MALIGNANT = (Histology.CCRCC, Histology.PRCC, Histology.CHRCC)
BENIGN = (Histology.AML, Histology.ONCOCYTOMA, Histology.CYST)

PREVALENCE: Mapping[Histology, float] = MappingProxyType(
    {
        Histology.CCRCC: 66 / 84,
        Histology.PRCC: 12 / 84,
        Histology.CHRCC: 6 / 84,
        Histology.AML: 17 / 114,
        Histology.ONCOCYTOMA: 87 / 114,
        Histology.CYST: 10 / 114,
    }
)
"""Share of each histology within its class."""

_PROTOTYPES: Mapping[Histology, tuple[float, ...]] = MappingProxyType(
    {
        # echo (dark), texture, margin | peak, arrival (early), washout, unevenness: slope of the
        # log chance per SD from the class mean. Clear cell: iso- to hyperechoic, hypervascular;
        # papillary: dark, late, weak; AML: bright, even, slow washout; oncocytoma: sharply
        # bounded, hypervascular; complicated cyst: dark, smooth, hardly enhancing.
        Histology.CCRCC: (-0.5, 0.3, 0.2, 1.0, 0.6, 0.3, 0.5),
        Histology.PRCC: (1.4, -0.3, -0.3, -2.4, -1.8, -0.6, -1.0),
        Histology.CHRCC: (0.3, -1.1, -0.8, -1.0, -0.8, 0.0, -1.3),
        Histology.AML: (-2.2, -1.0, 0.0, -0.6, -0.6, -1.3, -0.6),
        Histology.ONCOCYTOMA: (0.2, 0.2, -0.2, 0.8, 0.6, 0.3, 0.3),
        Histology.CYST: (1.6, -0.5, -1.1, -2.6, -1.4, -0.8, -1.0),
    }
)


def choose_histology(
    level: Level, latents: Latents, *, positive: bool, rng: np.random.Generator
) -> Histology:
    """Draw the histology of a mass of the malignant (positive) or benign class.

    The chance of h is proportional to w_h exp(m_h . f), with f the features less their class mean,
    m_h the prototype's slopes and w_h set so that the shares over all masses are as stated in
    PREVALENCE.
    """
    kinds = MALIGNANT if positive else BENIGN
    centred = np.concatenate([latents.bmode, latents.ceus]) - class_mean(level, positive=positive)
    chances = _chances(centred[None], kinds, _log_weights(kinds))[0]
    return kinds[int(rng.choice(len(kinds), p=chances))]


def _chances(centred: Vector, kinds: tuple[Histology, ...], log_weights: Vector) -> Vector:
    """(n, kinds) probabilities for (n, 7) features."""
    logits = log_weights + centred @ np.array([_PROTOTYPES[kind] for kind in kinds]).T
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


@lru_cache(maxsize=2)
def _log_weights(kinds: tuple[Histology, ...]) -> Vector:
    """Weights that give the stated shares over standard normal features, by fixed point."""
    features = np.random.default_rng(0).standard_normal((8192, 7))
    features = np.concatenate([features, -features])
    target = np.log([PREVALENCE[kind] for kind in kinds])
    weights = target.copy()
    for _ in range(60):
        weights += target - np.log(_chances(features, kinds, weights).mean(axis=0))
    return weights
