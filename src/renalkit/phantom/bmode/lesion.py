"""How does a renal mass look in B-mode, and which numbers say so?

Three features follow the latent ones of `levels` (standard normal but for the class):

    echo level            0.5 - 2.6 z dB relative to cortex      (z > 0: darker)
    texture               3.0 exp(0.75 z) dB standard deviation  (z > 0: more uneven)
    outline               0.05 exp(0.5 z) of the radius          (z > 0: more irregular)

The maps are one-to-one, so the ideal observer of a level reads the latents from the features.
Everything else (size, halo, calcification, sound transmission, shape) is drawn without looking
at the class. The steps are wide beside the error with which the features can be measured from a
picture with the true outline (benchmarks/check_levels.py), and small beside what gain, depth gain
and neighbouring tissues do to plain brightness. The maps belong to the frozen levels.

`typical_lesion` gives textbook looks per histology for galleries; no level uses them. Echo levels
after the graded series of Forman et al., Radiology 188:431, 1993 (carcinoma), rim, cysts and
shadow after Siegel et al., AJR 167:987, 1996 (angiomyolipoma against carcinoma).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from renalkit.phantom.bmode.field import FLOOR_DB, Field, Plane, around, blend, line_db, ramp
from renalkit.phantom.histology import Histology
from renalkit.phantom.levels import LEVELS, Latents, Level, bmode_score, draw_latents

Vector = npt.NDArray[np.float64]

_ECHO_DB, _ECHO_STEP_DB = 0.5, 2.6
_TEXTURE_DB, _TEXTURE_STEP = 3.0, 0.75
_OUTLINE, _OUTLINE_STEP = 0.05, 0.5
_SMALLEST_MM, _LARGEST_MM = 15.0, 75.0
_HALO_SHARE, _CALCIFICATION_SHARE = 0.25, 0.12
_ORDERS = np.arange(3, 10)


@dataclass(frozen=True, slots=True)
class LesionFeatures:
    """How a mass looks.

    size_mm: longest diameter, 15..75. echo_db: mean echo level relative to cortex.
    heterogeneity_db: standard deviation of the level inside. irregularity: standard deviation of
    the outline's radius as a share of the radius. halo: dark rim. calcification: bright specks
    with shadows. through_db_cm: gain of sound per cm of mass, beside the same way through
    kidney; positive: enhancement behind, negative: shadow. edge_shadow: 0..1, refraction at the
    flanks. wall: thin bright wall as of a cyst. scar: central stellate scar.
    """

    size_mm: float
    echo_db: float
    heterogeneity_db: float
    irregularity: float
    halo: bool
    calcification: bool
    through_db_cm: float = 0.0
    edge_shadow: float = 0.0
    wall: bool = False
    scar: bool = False


def lesion_features(bmode: Vector, rng: np.random.Generator) -> LesionFeatures:
    """The look of a mass with the given latent B-mode features (3,); the rest is drawn."""
    echo, texture, margin = (float(value) for value in bmode)
    halo, calcification = rng.random(2)
    return LesionFeatures(
        size_mm=float(
            np.clip(38.0 * math.exp(0.30 * rng.standard_normal()), _SMALLEST_MM, _LARGEST_MM)
        ),
        echo_db=_ECHO_DB - _ECHO_STEP_DB * echo,
        heterogeneity_db=_TEXTURE_DB * math.exp(_TEXTURE_STEP * texture),
        irregularity=_OUTLINE * math.exp(_OUTLINE_STEP * margin),
        halo=bool(halo < _HALO_SHARE),
        calcification=bool(calcification < _CALCIFICATION_SHARE),
        through_db_cm=float(rng.normal(0.0, 0.3)),
        edge_shadow=float(rng.uniform(0.0, 0.5)),
    )


def latent_features(features: LesionFeatures) -> Vector:
    """Latent B-mode features (3,) behind a look: the inverse of `lesion_features`.

    Raises:
        ValueError: heterogeneity or irregularity is not positive, which no latent gives.
    """
    if not (features.heterogeneity_db > 0 and features.irregularity > 0):
        raise ValueError(f"no latent features give this look: {features}")
    return np.array(
        [
            (_ECHO_DB - features.echo_db) / _ECHO_STEP_DB,
            math.log(features.heterogeneity_db / _TEXTURE_DB) / _TEXTURE_STEP,
            math.log(features.irregularity / _OUTLINE) / _OUTLINE_STEP,
        ]
    )


def draw_features(
    label: Literal["benign", "malignant"],
    rng: np.random.Generator,
    level: Level = LEVELS["default"],
) -> LesionFeatures:
    """Draw the appearance of a mass of the given class at a level."""
    latents = draw_latents(level, positive=label == "malignant", rng=rng)
    return lesion_features(latents.bmode, rng)


def malignancy_log_ratio(features: LesionFeatures, level: Level = LEVELS["default"]) -> float:
    """Log likelihood ratio malignant : benign of a look drawn at the level, the ideal score."""
    return bmode_score(level, Latents(latent_features(features), np.zeros(4)))


def typical_lesion(histology: Histology, rng: np.random.Generator) -> LesionFeatures:
    """A textbook look of the histology, with a little variation. For galleries only."""

    def vary(middle: float, spread: float) -> float:
        return middle + spread * float(rng.uniform(-1.0, 1.0))

    match histology:
        case Histology.CCRCC:
            return LesionFeatures(
                vary(42, 6), vary(3.5, 1.0), vary(4.2, 0.5), vary(0.06, 0.01), True, False
            )
        case Histology.PRCC:
            return LesionFeatures(
                vary(27, 4), vary(-6.5, 1.0), vary(1.2, 0.2), vary(0.025, 0.005), False, False
            )
        case Histology.CHRCC:
            return LesionFeatures(
                vary(38, 5), vary(-2.0, 0.8), vary(1.2, 0.2), vary(0.03, 0.005), False, False
            )
        case Histology.AML:
            return LesionFeatures(
                vary(22, 4), vary(13.0, 1.0), vary(1.0, 0.2), vary(0.05, 0.01), False, False,
                through_db_cm=vary(-4.5, 0.5),
            )  # fmt: skip
        case Histology.ONCOCYTOMA:
            return LesionFeatures(
                vary(36, 5), vary(0.5, 0.8), vary(1.2, 0.2), vary(0.025, 0.005), False, False,
                scar=True,
            )  # fmt: skip
        case Histology.CYST:
            return LesionFeatures(
                vary(34, 5), -45.0, 0.0, vary(0.015, 0.005), False, False,
                through_db_cm=vary(3.5, 0.5), edge_shadow=1.0, wall=True,
            )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """Where a mass is cut by the picture: on a field, all (R, C) float32.

    level_mm: approximate signed distance to the outline, positive inside. azimuth: around the
    centre, rad. radius_mm: mean radius in this section.
    """

    level_mm: Plane
    azimuth: Plane
    radius_mm: float


def lesion_outline(
    features: LesionFeatures, offsets: tuple[Plane, Plane], radius_mm: float, aspect: float,
    rng: np.random.Generator,
) -> Outline:  # fmt: skip
    """Outline of a mass: an ellipse whose radius varies in the 3rd to 9th order.

    offsets: distance from its centre along two axes, mm. radius_mm: half the longest diameter.
    The relative radius is 1 + sum a_k cos(k phi + p_k); the a_k are scaled so that its standard
    deviation is the irregularity. Orders 0 to 2 are left to size, place and aspect.
    """
    du, dv = offsets
    turn = rng.uniform(0, math.pi)
    p = du * np.float32(math.cos(turn)) + dv * np.float32(math.sin(turn))
    q = (dv * np.float32(math.cos(turn)) - du * np.float32(math.sin(turn))) / np.float32(aspect)
    azimuth = np.arctan2(q, p)
    weights = rng.standard_normal(_ORDERS.size) / np.sqrt(_ORDERS)
    weights *= features.irregularity * math.sqrt(2.0) / np.linalg.norm(weights)
    phases = rng.uniform(0, 2 * np.pi, _ORDERS.size)
    turns = np.arange(2048) * (2 * np.pi / 2048)
    relative = 1.0 + np.cos(np.outer(turns, _ORDERS) + phases) @ weights
    level_mm = radius_mm * around(azimuth, relative) - np.hypot(p, q)
    return Outline(level_mm.astype(np.float32), azimuth, radius_mm)


def paint_lesion(
    features: LesionFeatures, outline: Outline, field: Field, maps: tuple[Plane, Plane, Plane]
) -> tuple[Plane, Plane, Plane]:
    """Lay a mass over echo, specular level and loss (dB, dB, dB per mm), all (R, C)."""
    echo, specular, loss = maps
    level = outline.level_mm
    inside = features.echo_db + _texture(features, level, field)
    if features.scar:
        arms = around(outline.azimuth, _star(field.rng))
        inside = blend(inside, features.echo_db + 6.0, 0.42 * outline.radius_mm * arms
                       - (outline.radius_mm - level), 1.5)  # fmt: skip
    if features.halo:
        inside = inside - 7.0 * np.clip(1.0 - np.abs(level - 1.2) / 1.4, 0.0, 1.0)
    # An irregular mass is also less sharply bounded.
    echo = blend(echo, inside, level, 0.8 + 18.0 * features.irregularity)
    covered = ramp(level, 1.0)

    slope_z, slope_x = np.gradient(level)
    steep = np.hypot(slope_x, slope_z) + np.float32(1e-6)
    facing = np.abs(slope_x * field.beam_x + slope_z * field.beam_z) / steep
    # Compressed tissue around the mass gives a faint line, fainter where the margin is ragged; a
    # cyst's wall shows where the beam meets it squarely.
    height = 15.0 - 40.0 * (1.0 - facing) if features.wall else 2.0 - 50.0 * features.irregularity
    rim = np.maximum(line_db(level, 0.5) + height, FLOOR_DB)
    specular = np.maximum(specular + FLOOR_DB * covered, rim)
    flank = np.exp(-((level / 0.9) ** 2)) * np.clip(1.0 - 2.2 * facing, 0.0, 1.0)
    loss = loss * (1.0 - covered) - 0.1 * features.through_db_cm * covered
    loss = loss + 0.7 * features.edge_shadow * flank
    if features.calcification:
        echo, loss = _specks(features.size_mm, level, field, (echo, loss))
    return echo, specular, loss


def _texture(features: LesionFeatures, level: Plane, field: Field) -> Plane:
    """Uneven level inside, with necrosis, of mean 0 and the stated deviation over this section.

    What counts is the section but for its rim, where a halo or partial volume would show.
    """
    raw = 0.95 * field.grain(max(3.0, features.size_mm / 5.5)) + 0.3 * field.grain(1.8)
    # Where a very uneven mass is darkest it is liquid.
    values = np.float32(features.heterogeneity_db) * raw
    values = values - 8.0 * ramp(-values - 8.0, 1.5)
    within = values[level > min(2.5, 0.25 * float(level.max()))]
    if within.size > 8 and features.heterogeneity_db > 0:
        values = (values - within.mean()) * (features.heterogeneity_db / float(within.std()))
    return values


def _star(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    turns = np.arange(512) * (2 * np.pi / 512)
    arms = int(rng.integers(4, 7))
    return 0.45 + 0.55 * np.abs(np.cos(arms / 2 * turns + rng.uniform(0, np.pi))) ** 3


def _specks(
    size_mm: float, level: Plane, field: Field, maps: tuple[Plane, Plane]
) -> tuple[Plane, Plane]:
    """One to three calcifications: bright, with a shadow."""
    echo, loss = maps
    rows, columns = np.nonzero(level > 0.18 * size_mm)
    for _ in range(int(field.rng.integers(1, 4))):
        pick, radius_mm = field.rng.random(), field.rng.uniform(0.6, 1.4)
        if rows.size == 0:
            continue
        at = rows[int(pick * rows.size)], columns[int(pick * rows.size)]
        across = (field.x_mm - field.x_mm[at]) / 1.4
        speck = radius_mm - np.hypot(across, field.z_mm - field.z_mm[at])
        echo = blend(echo, 17.0, speck, 0.8)
        loss = loss + 4.0 * ramp(speck, 0.8)
    return echo, loss
