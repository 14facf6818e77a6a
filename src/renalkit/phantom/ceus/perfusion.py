"""How does contrast agent come and go in each tissue of a simulated kidney?

Each tissue has a bolus curve (`renalkit.ceus.bolus`); those of a mass follow from its latent
features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from renalkit.ceus.bolus import Bolus, BolusKind, bolus_of


@dataclass(frozen=True, slots=True)
class LesionPerfusion:
    """How a mass takes up contrast.

    bolus: of the mass as a whole. unevenness: standard deviation of the natural logarithm of the
    local strength. necrosis: share of the section without flow. delay_spread_s: standard
    deviation of the local arrival. rim_db: strength of the outermost 2 mm relative to the inside.
    """

    bolus: Bolus
    unevenness: float
    necrosis: float
    delay_spread_s: float
    rim_db: float


@dataclass(frozen=True, slots=True)
class Perfusion:
    """The curves of one examination; the peak of the cortex is 1.

    artery: the larger vessels in the sinus. neighbour: liver or spleen. soft: fat, muscle, wall.
    lesion: None for a normal kidney.
    """

    cortex: Bolus
    outer_medulla: Bolus
    inner_medulla: Bolus
    artery: Bolus
    sinus: Bolus
    neighbour: Bolus
    soft: Bolus
    lesion: LesionPerfusion | None


@dataclass(frozen=True, slots=True)
class Enhancement:
    """What the CEUS features of a mass look like.

    peak_ratio: its PE over that of the cortex. delay_s: its arrival after the cortex.
    transit_ratio: its mTT over that of the cortex. unevenness: as in LesionPerfusion.
    """

    peak_ratio: float
    delay_s: float
    transit_ratio: float
    unevenness: float


def enhancement(features: Sequence[float] | npt.NDArray[np.float64]) -> Enhancement:
    """Appearance of latent features in the order of levels.CEUS_FEATURES, each monotone.

    A feature of 0 is a mass that takes up somewhat less than cortex, 1.5 s later, and keeps it
    somewhat longer; one standard deviation is 57 % of peak, 1.5 s, 57 % of mTT, 65 % of unevenness.
    """
    peak, early, washout, uneven = (float(np.clip(f, -3.5, 3.5)) for f in features)
    return Enhancement(
        peak_ratio=0.75 * math.exp(0.45 * peak),
        delay_s=1.5 - 1.5 * early,
        transit_ratio=1.15 * math.exp(-0.45 * washout),
        unevenness=0.32 * math.exp(0.5 * uneven),
    )


def draw_perfusion(
    side: Literal["left", "right"],
    mass: Enhancement | None,
    rng: np.random.Generator,
    kind: BolusKind = BolusKind.LOGNORMAL,
) -> Perfusion:
    """Draw the curves of an examination; all but those of the mass ignore the mass.

    Cortex enhances 10 to 15 s after injection and fully some 6 s later, medulla from outside to
    inside over the next half minute, liver slowly (portal), spleen strongly and for long.
    """
    arrival = float(rng.uniform(10.0, 14.5))
    rise = float(np.clip(rng.normal(6.3, 0.7), 4.8, 8.0))
    transit = float(np.clip(rng.normal(32.0, 4.0), 24.0, 42.0))
    spread = rng.uniform(0.9, 1.1, (6, 3))
    rim_db = float(rng.uniform(0.0, 3.5))
    slower = float(rng.uniform(1.0, 1.25))

    def tissue(row: int, peak: float, delay_s: float, rise_s: float, transit_s: float) -> Bolus:
        f = spread[row]
        return bolus_of(kind, peak * f[0], arrival + delay_s, rise_s * f[1], transit_s * f[2])

    neighbour = (0.22, 4.0, 32.0, 110.0) if side == "right" else (0.7, 0.5, 13.0, 110.0)
    lesion = None
    if mass is not None:
        mass_rise = rise * slower
        mass_transit = max(transit * mass.transit_ratio, 1.3 * mass_rise)
        lesion = LesionPerfusion(
            bolus=bolus_of(kind, mass.peak_ratio, arrival + mass.delay_s, mass_rise, mass_transit),
            unevenness=mass.unevenness,
            necrosis=float(np.clip(0.3 * (mass.unevenness - 0.4), 0.0, 0.25)),
            delay_spread_s=0.4,
            rim_db=rim_db,
        )
    return Perfusion(
        cortex=bolus_of(kind, 1.0, arrival, rise, transit),
        outer_medulla=tissue(0, 0.5, 5.0, 15.0, 50.0),
        inner_medulla=tissue(1, 0.4, 12.0, 21.0, 60.0),
        artery=tissue(2, 1.3, -1.2, 5.0, 26.0),
        sinus=tissue(3, 0.025, 2.0, 10.0, 45.0),
        neighbour=tissue(4, *neighbour),
        soft=tissue(5, 0.005, 5.0, 14.0, 60.0),
        lesion=lesion,
    )
