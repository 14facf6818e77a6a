"""What lies where in a simulated longitudinal kidney view, and how bright is it?

Coordinates in mm: x to the right of the beam axis, z away from the transducer face. The cranial
end is on the left, as sonographers show it: liver (right kidney) or spleen (left) covers the upper
pole. Echo levels are in dB relative to renal cortex. An `Anatomy` is the same for all frames of a
patient; a `View` is one placement of the probe.

Benign and malignant masses overlap on purpose. Each class shifts four Gaussian features (size,
echo level, heterogeneity, irregularity) and two signs (halo, calcification); the shifts are such
that the ideal observer, who knows the features without error, reaches an AUC of about 0.85, and
size alone about 0.64. `malignancy_log_ratio` is that observer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

Label = Literal["benign", "malignant", "normal"]
Side = Literal["left", "right"]
Plane = npt.NDArray[np.floating[Any]]
_Grain = Callable[[float], Plane]

# Distance of the class means in standard deviations. Independent Gaussian features add as squares:
# d' = sqrt(sum d_i^2) and AUC = Phi(d' / sqrt 2).
_SIZE_SHIFT, _ECHO_SHIFT, _TEXTURE_SHIFT, _MARGIN_SHIFT = 0.5, 0.9, 0.7, 0.6
_HALO_SHARE = {"benign": 0.18, "malignant": 0.36}
_CALCIFICATION_SHARE = {"benign": 0.08, "malignant": 0.2}
_SMALLEST_MM, _LARGEST_MM = 10.0, 70.0


@dataclass(frozen=True, slots=True)
class LesionFeatures:
    """How a mass looks.

    size_mm: longest diameter, 10..70. echo_db: mean echo level relative to cortex.
    heterogeneity_db: standard deviation of the level inside. irregularity: standard deviation of
    the outline's radius as a share of the radius. halo: dark rim. calcification: bright specks
    with shadows.
    """

    size_mm: float
    echo_db: float
    heterogeneity_db: float
    irregularity: float
    halo: bool
    calcification: bool


def draw_features(
    label: Literal["benign", "malignant"], rng: np.random.Generator
) -> LesionFeatures:
    """Draw the appearance of a mass of the given class."""
    sign = 0.5 if label == "malignant" else -0.5
    size, echo, texture, margin = rng.standard_normal(4)
    halo, calcification = rng.random(2)
    return LesionFeatures(
        size_mm=float(np.clip(_size_mm(size + sign * _SIZE_SHIFT), _SMALLEST_MM, _LARGEST_MM)),
        echo_db=float(1.0 - 4.5 * (echo + sign * _ECHO_SHIFT)),
        heterogeneity_db=float(1.8 * math.exp(0.5 * (texture + sign * _TEXTURE_SHIFT))),
        irregularity=float(0.045 * math.exp(0.5 * (margin + sign * _MARGIN_SHIFT))),
        halo=bool(halo < _HALO_SHARE[label]),
        calcification=bool(calcification < _CALCIFICATION_SHARE[label]),
    )


def malignancy_log_ratio(features: LesionFeatures) -> float:
    """Logarithm of the likelihood ratio malignant : benign of the features, the ideal score.

    For a Gaussian feature with class means +-d/2 and unit variance the log ratio of a value z is
    d z; for a sign with shares p (malignant) and q (benign) it is log(p/q) or log((1-p)/(1-q)).
    The few sizes cut at 10 and 70 mm are scored as if they were not cut.
    """
    score = _SIZE_SHIFT * math.log(features.size_mm / 28.0) / 0.38
    score += _ECHO_SHIFT * (1.0 - features.echo_db) / 4.5
    score += _TEXTURE_SHIFT * math.log(features.heterogeneity_db / 1.8) / 0.5
    score += _MARGIN_SHIFT * math.log(features.irregularity / 0.045) / 0.5
    for present, share in (
        (features.halo, _HALO_SHARE),
        (features.calcification, _CALCIFICATION_SHARE),
    ):
        p, q = share["malignant"], share["benign"]
        score += math.log(p / q) if present else math.log((1 - p) / (1 - q))
    return score


def _size_mm(z: float) -> float:
    return 28.0 * math.exp(0.38 * z)


@dataclass(frozen=True, slots=True)
class Anatomy:
    """One patient's kidney and what is around it, by plain numbers.

    half_length_mm, half_width_mm: of the kidney. sinus_share: size of the central echo complex
    relative to the kidney. pyramids: their number. fat_mm: perirenal fat. wall_mm: skin to fascia.
    neighbour_db: echo level of liver or spleen. lesion: None for a normal kidney.
    lesion_angle_rad: where on the kidney's outline (0 caudal, pi/2 deep, pi cranial).
    lesion_reach: distance of its centre from the kidney's centre, 1 on the outline.
    lesion_aspect: short over long axis. seed: of all details.
    """

    side: Side
    half_length_mm: float
    half_width_mm: float
    sinus_share: float
    pyramids: int
    fat_mm: float
    wall_mm: float
    neighbour_db: float
    gas: bool
    lesion: LesionFeatures | None
    lesion_angle_rad: float
    lesion_reach: float
    lesion_aspect: float
    seed: int


@dataclass(frozen=True, slots=True)
class View:
    """One placement of the probe over an anatomy.

    centre_x_mm, centre_z_mm, tilt_deg: pose of the kidney in the image (positive tilt: caudal end
    deeper). slice_factor: in-plane size of the mass relative to its largest section, 0.75..1.
    gain_db: deviation of the operator's gain. seed: of the speckle.
    """

    centre_x_mm: float
    centre_z_mm: float
    tilt_deg: float
    slice_factor: float
    gain_db: float
    seed: int


def draw_anatomy(lesion: LesionFeatures | None, side: Side, rng: np.random.Generator) -> Anatomy:
    """Draw a kidney; everything but the lesion is independent of the class."""
    # Masses at the near and polar outline: those at the deep side lie behind the sinus.
    angle = float(rng.uniform(-math.pi - 0.35, 0.35))
    return Anatomy(
        side=side,
        half_length_mm=float(rng.normal(53.0, 3.0)),
        half_width_mm=float(rng.normal(25.0, 1.8)),
        sinus_share=float(rng.uniform(0.40, 0.52)),
        pyramids=int(rng.integers(7, 11)),
        fat_mm=float(rng.uniform(2.0, 7.0)),
        wall_mm=float(rng.uniform(14.0, 24.0)),
        neighbour_db=float(rng.normal(2.5 if side == "right" else 3.0, 1.0)),
        gas=bool(rng.random() < 0.35),
        lesion=lesion,
        lesion_angle_rad=angle,
        lesion_reach=float(rng.uniform(0.72, 1.02)),
        lesion_aspect=float(rng.uniform(0.78, 1.0)),
        seed=int(rng.integers(0, 2**53)),
    )


def draw_view(anatomy: Anatomy, rng: np.random.Generator) -> View:
    """Draw a probe placement that keeps kidney and mass in the fan."""
    lesion_mm = 0.0 if anatomy.lesion is None else anatomy.lesion.size_mm
    # The probe is moved towards a polar mass and further away from a large one.
    along = math.cos(anatomy.lesion_angle_rad) * anatomy.lesion_reach * lesion_mm
    return View(
        centre_x_mm=float(rng.normal(-0.45 * along, 4.0)),
        centre_z_mm=float(
            anatomy.wall_mm + 14.0 + anatomy.half_width_mm + 0.18 * lesion_mm + rng.normal(0, 2.5)
        ),
        tilt_deg=float(rng.normal(4.0, 6.0)),
        slice_factor=float(rng.uniform(0.82, 1.0)),
        gain_db=float(rng.normal(0.0, 2.0)),
        seed=int(rng.integers(0, 2**53)),
    )


@dataclass(frozen=True, slots=True, eq=False)
class TissueMap:
    """Tissue on a grid of points, all (N, N) float32.

    echo_db: diffuse scattering. specular_db: coherent reflection of smooth surfaces; -80 where
    there is none. attenuation_db_mm: two-way loss per mm beyond what the scanner expects.
    lesion_mm, kidney_mm: approximate signed distance to the outline, positive inside; lesion_mm
    is negative everywhere without a mass.
    """

    echo_db: Plane
    specular_db: Plane
    attenuation_db_mm: Plane
    lesion_mm: Plane
    kidney_mm: Plane


def tissue_map(anatomy: Anatomy, view: View, x_mm: Plane, z_mm: Plane, apex_mm: float) -> TissueMap:
    """Lay out the tissues.

    Args:
        anatomy: what there is. view: from where it is seen.
        x_mm, z_mm: (N, N) regular grids of coordinates.
        apex_mm: distance of the virtual centre of the fan behind the transducer face.

    Returns:
        The maps on that grid. The same anatomy and view give the same values.
    """
    rng = np.random.default_rng(anatomy.seed)
    step_mm = float(x_mm[0, 1] - x_mm[0, 0])
    size = x_mm.shape[0]

    def grain(length_mm: float) -> Plane:
        return smooth_noise(size, length_mm / step_mm, rng)

    beam_x, beam_z = x_mm, z_mm + apex_mm
    radius = np.hypot(beam_x, beam_z) + 1e-3
    beam_x, beam_z = beam_x / radius, beam_z / radius
    depth = radius - apex_mm

    u, v = _kidney_axes(view, x_mm, z_mm)
    a, b = anatomy.half_length_mm, anatomy.half_width_mm
    bend = 0.06 * b * np.cos(np.pi * np.clip(u / a, -1.2, 1.2))
    rho = np.sqrt((u / a) ** 2 + ((v + bend) / b) ** 2) + 1e-4
    slope_z, slope_x = (np.asarray(g, np.float32) / step_mm for g in np.gradient(rho))
    steepness = np.hypot(slope_x, slope_z) + 1e-6
    organ_mm = (1.0 - rho) / steepness
    # The steepness falls to 0 in the middle, where the first-order distance would run away.
    organ_mm = np.clip(organ_mm, -200.0, b)
    facing = np.abs(slope_x * beam_x + slope_z * beam_z) / steepness

    # Retroperitoneal muscle and connective tissue: streaks along the surface.
    streaks = smooth_noise(size, (14.0 / step_mm, 1.6 / step_mm), rng)
    echo = (-6.0 + 3.5 * streaks).astype(np.float32)
    loss = np.zeros_like(echo)

    echo, wall_specular = _neighbour(anatomy, echo, (x_mm, z_mm, depth), (u, v), grain)
    echo, loss = _bowel(anatomy, echo, loss, (x_mm, depth), grain)

    fat = organ_mm + anatomy.fat_mm + 1.0 * grain(14.0)
    echo = _blend(echo, 8.0 + 2.0 * grain(3.0), fat, 1.5)

    cortex = 0.5 * grain(5.0)
    kidney_echo = _pyramids(anatomy, cortex, rho, np.arctan2((v + bend) / b, u / a), rng)
    kidney_echo, sinus_loss = _sinus(anatomy, kidney_echo, (u / a, (v + bend) / b), grain)
    echo = _blend(echo, kidney_echo, organ_mm, 0.6)
    loss += sinus_loss

    # The capsule reflects where the beam meets it at a right angle.
    capsule = np.exp(-((organ_mm / 0.55) ** 2)) * facing**4
    # Perirenal fat covers the surface of the neighbour where the kidney touches it.
    surface = wall_specular - 80.0 * np.clip(fat + 0.5, 0.0, 1.0)
    specular = np.maximum(surface, 20.0 * np.log10(capsule + 1e-4) + 13.0)

    lesion_mm = np.full_like(echo, -200.0)
    if anatomy.lesion is not None:
        lesion_mm = _lesion_distance(anatomy, anatomy.lesion, view, x_mm, z_mm)
        # A mass pushes against the body wall, not through it.
        lesion_mm = np.minimum(lesion_mm, depth - anatomy.wall_mm - 1.0)
        echo, specular, loss = _lesion(
            anatomy.lesion, lesion_mm, (echo, specular, loss), rng, step_mm
        )

    echo, specular = _wall(anatomy, echo, specular, depth, rng, step_mm)
    return TissueMap(
        echo_db=echo.astype(np.float32),
        specular_db=specular.astype(np.float32),
        attenuation_db_mm=loss.astype(np.float32),
        lesion_mm=lesion_mm.astype(np.float32),
        kidney_mm=np.maximum(organ_mm, lesion_mm).astype(np.float32),
    )


def smooth_noise(
    size: int, grain_px: float | tuple[float, float], rng: np.random.Generator
) -> Plane:
    """Smooth random values (size, size) of about mean 0 and deviation 1.

    grain_px: length over which values stay alike, (along x, along z) if they differ.
    """
    grain_x, grain_z = grain_px if isinstance(grain_px, tuple) else (grain_px, grain_px)
    nodes = (max(4, round(size / grain_z) + 3), max(4, round(size / grain_x) + 3))
    coarse = rng.standard_normal(nodes, dtype=np.float32)
    fine = np.asarray(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC))
    # Interpolation between independent nodes lowers the deviation to about 0.87.
    return fine.astype(np.float32) / np.float32(0.87)


def _blend(below: Plane, above: Plane | float, level_mm: Plane, edge_mm: float) -> Plane:
    """`above` where level_mm > 0, with a transition of edge_mm."""
    weight = np.clip(level_mm / edge_mm + 0.5, 0.0, 1.0)
    return below + weight * (above - below)


def _kidney_axes(view: View, x_mm: Plane, z_mm: Plane) -> tuple[Plane, Plane]:
    """Coordinates along the kidney (caudal positive) and across it (deep positive), mm."""
    angle = math.radians(view.tilt_deg)
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    dx = x_mm - np.float32(view.centre_x_mm)
    dz = z_mm - np.float32(view.centre_z_mm)
    return dx * cos + dz * sin, dz * cos - dx * sin


def _neighbour(
    anatomy: Anatomy,
    echo: Plane,
    where: tuple[Plane, Plane, Plane],
    axes: tuple[Plane, Plane],
    grain: _Grain,
) -> tuple[Plane, Plane]:
    """Liver or spleen between wall and kidney, covering the cranial part; with vessels."""
    _, _, depth = where
    u, v = axes
    a, b = anatomy.half_length_mm, anatomy.half_width_mm
    reach = 0.45 if anatomy.side == "right" else 0.05
    lower_edge = (reach * a - u) * 0.55
    above_kidney = -(v + 0.35 * b) + 0.012 * np.maximum(-u - 0.6 * a, 0) ** 2 + 2.0 * grain(30.0)
    level = np.minimum(np.minimum(depth - anatomy.wall_mm, lower_edge), above_kidney + 0.9 * b)
    level = level + 0.8 * grain(20.0)
    tissue = anatomy.neighbour_db + 0.5 * grain(4.0)
    # Level lines of a smooth field are winding bands: hepatic veins, some with bright walls.
    course = grain(34.0)
    if anatomy.side == "right":
        vessel = np.clip((0.075 - np.abs(course - 0.9)) / 0.05, 0.0, 1.0)
        walls = np.clip((0.05 - np.abs(np.abs(course - 0.9) - 0.14)) / 0.03, 0.0, 1.0)
        tissue = tissue - 16.0 * vessel + 5.0 * walls * (grain(40.0) > 0.2)
    specular = 20.0 * np.log10(np.exp(-((level / 0.6) ** 2)) + 1e-4) + 2.0
    return _blend(echo, tissue, level, 1.0), specular


def _bowel(
    anatomy: Anatomy,
    echo: Plane,
    loss: Plane,
    where: tuple[Plane, Plane],
    grain: _Grain,
) -> tuple[Plane, Plane]:
    """Gas beyond the caudal pole in some patients: a bright cap and a dirty shadow below."""
    texture = grain(5.0)
    if not anatomy.gas:
        return echo, loss
    x_mm, depth = where
    cap = 4.0 - np.hypot((x_mm - 62.0) / 3.2, depth - anatomy.wall_mm - 16.0 - 1.5 * texture)
    return (
        _blend(echo, 12.0 + 3.0 * texture, cap, 2.0),
        loss + 2.2 * np.clip(cap / 2.0, 0.0, 1.0),
    )


def _pyramids(
    anatomy: Anatomy, cortex: Plane, rho: Plane, angle: Plane, rng: np.random.Generator
) -> Plane:
    """Medullary pyramids: darker wedges between sinus and cortex, their tips at the sinus."""
    count = anatomy.pyramids
    # Even spacing along the outline of an ellipse, not in its parameter.
    fine = np.linspace(0, 2 * np.pi, 721)
    speed = np.hypot(anatomy.half_length_mm * np.sin(fine), anatomy.half_width_mm * np.cos(fine))
    arc = np.concatenate([[0.0], np.cumsum((speed[1:] + speed[:-1]) / 2)])
    arc *= count / arc[-1]
    phase = np.interp(np.mod(angle, 2 * np.pi), fine, arc).astype(np.float32)
    phase += np.float32(rng.random())
    index = np.floor(phase).astype(np.int64) % count
    across = np.abs(phase - np.floor(phase) - 0.5) * 2  # 0 in the middle, 1 between two pyramids
    tip = np.float32(anatomy.sinus_share) * rng.uniform(0.98, 1.12, count)[index]
    base = rng.uniform(0.76, 0.84, count)[index]
    darkness = rng.uniform(7.5, 11.0, count)[index]
    along = np.clip((rho - tip) / (base - tip), 0.0, 1.2)
    half_width = 0.2 + 0.62 * np.minimum(along, 1.0) - 3.0 * np.maximum(along - 0.9, 0.0)
    inside = np.minimum((half_width - across) * 5.0, np.minimum(rho - tip, base - rho) * 18.0)
    # A thin bright line of arcuate vessels marks the base in many kidneys.
    arcuate = 3.0 * np.exp(-(((rho - base) / 0.025) ** 2)) * (across < 0.5)
    return (cortex - darkness * np.clip(inside + 0.3, 0.0, 1.0) + arcuate).astype(np.float32)


def _sinus(
    anatomy: Anatomy, echo: Plane, axes: tuple[Plane, Plane], grain: _Grain
) -> tuple[Plane, Plane]:
    """Central echo complex: bright fat with darker vessels and calyces."""
    share = anatomy.sinus_share
    across = axes[1] / 0.82
    level = share - np.hypot(axes[0] / 1.1, across) + 0.05 * grain(7.0) + 0.03 * grain(3.0)
    calyces = np.clip((0.16 - np.abs(grain(9.0))) / 0.1, 0.0, 1.0)
    fat = 13.0 + 1.8 * grain(2.5) - 8.0 * calyces * np.clip(level / 0.12, 0.0, 1.0)
    weight = np.clip(level / 0.06 + 0.5, 0.0, 1.0)
    return echo + weight * (fat - echo), (0.06 * weight).astype(np.float32)


def _lesion_distance(
    anatomy: Anatomy, lesion: LesionFeatures, view: View, x_mm: Plane, z_mm: Plane
) -> Plane:
    """Approximate signed distance to the outline of the mass, mm, positive inside."""
    rng = np.random.default_rng([anatomy.seed, 1])
    u, v = _kidney_axes(view, x_mm, z_mm)
    angle, reach = anatomy.lesion_angle_rad, anatomy.lesion_reach
    radius = 0.5 * lesion.size_mm * view.slice_factor
    # A large mass is centred further out: it grows from the kidney, not through the sinus.
    reach += 0.35 * max(0.0, radius - 12.0) / 24.0
    du = u - np.float32(math.cos(angle) * reach * anatomy.half_length_mm)
    dv = v - np.float32(math.sin(angle) * reach * anatomy.half_width_mm)
    turn = rng.uniform(0, math.pi)
    p = du * math.cos(turn) + dv * math.sin(turn)
    q = (dv * math.cos(turn) - du * math.sin(turn)) / anatomy.lesion_aspect
    azimuth = np.arctan2(q, p)
    orders = np.arange(2, 9)
    weights = rng.standard_normal(orders.size) / orders**0.5
    weights *= lesion.irregularity * math.sqrt(2.0) / np.linalg.norm(weights)
    phases = rng.uniform(0, 2 * np.pi, orders.size)
    outline = np.ones_like(azimuth)
    for order, weight, phase in zip(orders, weights, phases, strict=True):
        outline += np.float32(weight) * np.cos(order * azimuth + np.float32(phase))
    return (radius * outline - np.hypot(p, q)).astype(np.float32)


def _lesion(
    lesion: LesionFeatures,
    level_mm: Plane,
    maps: tuple[Plane, Plane, Plane],
    rng: np.random.Generator,
    step_mm: float,
) -> tuple[Plane, Plane, Plane]:
    echo, specular, loss = maps
    size = echo.shape[0]
    inner_grain_mm = max(3.0, lesion.size_mm / 7.0)
    texture = smooth_noise(size, inner_grain_mm / step_mm, rng)
    fine = smooth_noise(size, 2.5 / step_mm, rng)
    inside = lesion.echo_db + lesion.heterogeneity_db * (0.9 * texture + 0.45 * fine)
    # Necrosis: where a heterogeneous mass is darkest it turns liquid.
    liquid = np.clip((-texture * lesion.heterogeneity_db - 6.0) / 1.5, 0.0, 1.0)
    inside = inside - 14.0 * liquid
    if lesion.halo:
        rim = np.clip(1.0 - np.abs(level_mm - 1.2) / 1.4, 0.0, 1.0)
        inside = inside - 9.0 * rim
    # An irregular mass is also less sharply bounded.
    edge_mm = 0.8 + 18.0 * lesion.irregularity
    echo = _blend(echo, inside, level_mm, edge_mm)
    covered = np.clip(level_mm / 1.0, 0.0, 1.0)
    # Compressed tissue around the mass gives a faint line, fainter where the margin is ragged.
    rim_line = 20.0 * np.log10(np.exp(-((level_mm / 0.5) ** 2)) + 1e-4)
    specular = np.maximum(specular - 80.0 * covered, rim_line + 5.0 - 40.0 * lesion.irregularity)
    loss = loss * (1.0 - covered) - 0.12 * liquid * covered
    if lesion.calcification:
        rows, columns = np.nonzero(level_mm > 0.18 * lesion.size_mm)
        for _ in range(int(rng.integers(1, 4))):
            pick, radius_mm = rng.random(), rng.uniform(0.9, 2.2)
            if rows.size == 0:
                continue
            at = int(pick * rows.size)
            dz = (np.arange(size, dtype=np.float32) - rows[at])[:, None] * step_mm
            dx = (np.arange(size, dtype=np.float32) - columns[at])[None, :] * step_mm
            speck = radius_mm - np.hypot(dx / 1.4, dz)
            echo = _blend(echo, 19.0, speck, 0.8)
            loss = loss + 4.0 * np.clip(speck / 0.8 + 0.5, 0.0, 1.0)
    return echo, specular, loss


def _wall(
    anatomy: Anatomy,
    echo: Plane,
    specular: Plane,
    depth: Plane,
    rng: np.random.Generator,
    step_mm: float,
) -> tuple[Plane, Plane]:
    """Skin, subcutaneous fat, muscle layers and fascia; parallel to the transducer face."""
    size = echo.shape[0]
    wavy = depth + 0.7 * smooth_noise(size, (45.0 / step_mm, 40.0 / step_mm), rng)
    strands = smooth_noise(size, (16.0 / step_mm, 1.0 / step_mm), rng)
    thickness = anatomy.wall_mm
    fat_to = 0.4 * thickness
    layer = np.where(wavy < fat_to, -1.0 + 3.5 * strands, -4.0 + 4.0 * strands)
    layer = np.where(wavy < 2.0, 6.0, layer)
    echo = _blend(echo, layer.astype(np.float32), (thickness - wavy), 1.0)
    weight = np.clip((thickness - wavy) + 0.5, 0.0, 1.0)
    specular = specular - 80.0 * weight
    for at in (fat_to, 0.68 * thickness, thickness):
        line = 20.0 * np.log10(np.exp(-(((wavy - at) / 0.5) ** 2)) + 1e-4)
        specular = np.maximum(specular, line + 5.0)
    return echo, specular
