"""What lies where in a simulated longitudinal kidney view, and how bright is it?

Coordinates in mm: x to the right of the beam axis, z away from the transducer face. The cranial
end is on the left, as sonographers show it: liver (right kidney) or spleen (left) covers the upper
pole, the diaphragm lies beyond. Echo levels are in dB relative to renal cortex. An `Anatomy` is the
same for all frames of a patient; a `View` is one placement of the probe.

Nothing here but the mass itself (`lesion`) looks at the class. How bright fat, muscle, liver and
medulla are beside cortex varies from patient to patient; the operator sets the gain by the whole
picture, and gain over depth and contact across the probe vary from view to view. So only a mass
seen against cortex at its own place tells its echo level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from renalkit.phantom.bmode.field import (
    FLOOR_DB,
    Field,
    Plane,
    Window,
    around,
    blend,
    line_db,
    make_field,
    ramp,
)
from renalkit.phantom.bmode.lesion import LesionFeatures, lesion_outline, paint_lesion

Label = Literal["benign", "malignant", "normal"]
Side = Literal["left", "right"]

_FAR_MM = -200.0
# Deviations of the depth gain from face to bottom and of the contact across the probe: small where
# the kidney lies, larger in the near and far field and at the edges of the fan.
_TGC_SD_DB = (7.0, 1.7, 1.3, 1.7, 9.0)
_CONTACT_SD_DB = (4.0, 0.6, 0.6, 0.6, 4.0)
_WIDEST = 1.25  # outermost point of most outlines, in radii
# What every scanner of the phantom shows: the mass is kept within.
_FAN_RADIUS_MM, _FAN_HALF_ANGLE, _FAN_DEPTH_MM = 45.0, math.radians(29.0), 107.0


class Tissue(IntEnum):
    """Kinds of tissue on a map."""

    CONNECTIVE = 0
    WALL = 1
    NEIGHBOUR = 2
    VESSEL = 3
    BOWEL = 4
    FAT = 5
    CORTEX = 6
    MEDULLA = 7
    SINUS = 8
    LESION = 9
    BEYOND = 10  # behind the diaphragm: lung with mirror echoes


@dataclass(frozen=True, slots=True)
class Anatomy:
    """One patient's kidney and what is around it, by plain numbers.

    half_length_mm, half_width_mm: of the kidney. sinus_share: size of the central echo complex
    relative to the kidney. pyramids: their number. fat_mm: perirenal fat. wall_mm: skin to fascia.
    neighbour_db, fat_db, connective_db, sinus_db, medulla_db: echo levels of liver or spleen,
    perirenal fat, retroperitoneal tissue, sinus fat and pyramids. around_db: common part of the
    levels around the kidney, wall included. lesion: None for a normal kidney.
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
    fat_db: float
    connective_db: float
    sinus_db: float
    medulla_db: float
    around_db: float
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
    gain_db: deviation of the operator's gain. seed: of the speckle. tgc_db: deviation of the depth
    gain at evenly spaced depths from face to bottom, none if empty. contact_db: deviation across
    the fan, from the first beam to the last, likewise.
    """

    centre_x_mm: float
    centre_z_mm: float
    tilt_deg: float
    slice_factor: float
    gain_db: float
    seed: int
    tgc_db: tuple[float, ...] = ()
    contact_db: tuple[float, ...] = ()


def draw_anatomy(lesion: LesionFeatures | None, side: Side, rng: np.random.Generator) -> Anatomy:
    """Draw a kidney; everything but the lesion is independent of the class."""
    # Masses at the near and polar outline: those at the deep side lie behind the sinus.
    angle = float(rng.uniform(-math.pi - 0.35, 0.35))
    around_db = float(np.clip(rng.normal(0.0, 6.0), -10.0, 10.0))
    return Anatomy(
        side=side,
        half_length_mm=float(rng.normal(53.0, 3.0)),
        half_width_mm=float(rng.normal(25.0, 1.8)),
        sinus_share=float(rng.uniform(0.40, 0.52)),
        pyramids=int(rng.integers(7, 11)),
        fat_mm=float(rng.uniform(2.0, 7.0)),
        wall_mm=float(rng.uniform(12.0, 22.0)),
        neighbour_db=float(rng.normal(2.0 if side == "right" else 2.5, 4.5)) + around_db,
        fat_db=float(rng.normal(7.0, 4.0)) + around_db,
        connective_db=float(rng.normal(-4.0, 5.0)) + around_db,
        sinus_db=float(rng.normal(13.0, 1.5)) + 0.4 * around_db,
        medulla_db=float(rng.uniform(-9.5, -5.5)),
        around_db=around_db,
        gas=bool(rng.random() < 0.35),
        lesion=lesion,
        lesion_angle_rad=angle,
        lesion_reach=float(rng.uniform(0.72, 1.02)),
        lesion_aspect=float(rng.uniform(0.78, 1.0)),
        seed=int(rng.integers(0, 2**53)),
    )


def draw_view(anatomy: Anatomy, rng: np.random.Generator) -> View:
    """Draw a probe placement; kidney and mass lie in the fan, the mass wholly."""
    tilt = float(rng.normal(4.0, 6.0))
    slice_factor = float(rng.uniform(0.82, 1.0))
    x = float(rng.normal(0.0, 4.0))
    z = float(anatomy.wall_mm + 12.0 + anatomy.half_width_mm + rng.normal(0, 2.5))
    if anatomy.lesion is not None:
        dx, dz = _lesion_place(anatomy, tilt, slice_factor)
        radius = 0.5 * anatomy.lesion.size_mm * slice_factor
        radius *= _WIDEST  # whatever the outline: the place tells nothing of it
        # The probe is moved along for a polar mass and lifted off for a large near one.
        deepest = _FAN_DEPTH_MM - radius - dz
        z = max(min(z, deepest), anatomy.wall_mm + 2.0 + radius - dz)
        half_width = (_FAN_RADIUS_MM + z + dz) * math.tan(_FAN_HALF_ANGLE)
        room = max(0.0, half_width - radius / math.cos(_FAN_HALF_ANGLE))
        x = min(max(x + dx, -room), room) - dx
    return View(
        centre_x_mm=x,
        centre_z_mm=z,
        tilt_deg=tilt,
        slice_factor=slice_factor,
        gain_db=float(rng.normal(0.0, 1.2)) - 0.8 * anatomy.around_db,
        seed=int(rng.integers(0, 2**53)),
        tgc_db=tuple(float(v) for v in rng.normal(0.0, _TGC_SD_DB)),
        contact_db=tuple(float(v) for v in rng.normal(0.0, _CONTACT_SD_DB)),
    )


@dataclass(frozen=True, slots=True, eq=False)
class TissueMap:
    """Tissue on a grid of points, all (N, N), float32 but for `kind`.

    echo_db: diffuse scattering. specular_db: coherent reflection of smooth surfaces; -80 where
    there is none. attenuation_db_mm: two-way loss per mm beyond what the scanner expects.
    lesion_mm, kidney_mm: approximate signed distance to the outline, positive inside, -200 far
    away; lesion_mm is negative everywhere without a mass. kind: (N, N) uint8 of `Tissue`.
    """

    echo_db: Plane
    specular_db: Plane
    attenuation_db_mm: Plane
    lesion_mm: Plane
    kidney_mm: Plane
    kind: npt.NDArray[np.uint8]


def tissue_map(anatomy: Anatomy, view: View, x_mm: Plane, z_mm: Plane, apex_mm: float) -> TissueMap:
    """Lay out the tissues.

    Args:
        anatomy: what there is. view: from where it is seen.
        x_mm, z_mm: (N, N) regular grids of coordinates.
        apex_mm: distance of the virtual centre of the fan behind the transducer face.

    Returns:
        The maps on that grid. The same anatomy and view give the same values.
    """
    field = make_field(x_mm, z_mm, apex_mm, np.random.default_rng(anatomy.seed))
    canvas = _background(anatomy, view, field)
    reach = anatomy.half_length_mm + anatomy.fat_mm + 6.0, anatomy.half_width_mm + 14.0
    window = _kidney_window(view, field, reach)
    organ_mm = np.full_like(canvas.echo, _FAR_MM)
    organ_mm[window] = _paint_kidney(anatomy, view, field.crop(window), canvas.crop(window))
    lesion_mm = np.full_like(canvas.echo, _FAR_MM)
    if anatomy.lesion is not None:
        _paint_mass(anatomy, view, field, (canvas, lesion_mm))
    rows = slice(0, int(np.searchsorted(field.z_mm[:, 0], anatomy.wall_mm + 3.0)) + 1)
    _paint_wall(anatomy, field.crop((rows, slice(None))), canvas.crop((rows, slice(None))))
    return TissueMap(
        echo_db=canvas.echo,
        specular_db=canvas.specular,
        attenuation_db_mm=canvas.loss,
        lesion_mm=lesion_mm,
        kidney_mm=np.maximum(organ_mm, lesion_mm),
        kind=canvas.kind,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Canvas:
    """The maps while they are painted, changed in place."""

    echo: Plane
    specular: Plane
    loss: Plane
    kind: npt.NDArray[np.uint8]

    def crop(self, window: Window) -> _Canvas:
        return _Canvas(
            self.echo[window], self.specular[window], self.loss[window], self.kind[window]
        )

    def mark(self, where: npt.NDArray[np.bool_], tissue: Tissue) -> None:
        self.kind[where] = int(tissue)


def _kidney_axes(view: View, x_mm: Plane, z_mm: Plane) -> tuple[Plane, Plane]:
    """Coordinates along the kidney (caudal positive) and across it (deep positive), mm."""
    angle = math.radians(view.tilt_deg)
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    dx = x_mm - np.float32(view.centre_x_mm)
    dz = z_mm - np.float32(view.centre_z_mm)
    return dx * cos + dz * sin, dz * cos - dx * sin


def _kidney_window(view: View, field: Field, reach_mm: tuple[float, float]) -> Window:
    angle = math.radians(view.tilt_deg)
    cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
    along, across = reach_mm
    return field.window(
        (view.centre_x_mm, view.centre_z_mm),
        (math.hypot(along * cos, across * sin) + 4.0, math.hypot(along * sin, across * cos) + 4.0),
    )


def _lesion_centre(anatomy: Anatomy, slice_factor: float) -> tuple[float, float]:
    """Centre of the mass along and across the kidney, mm."""
    assert anatomy.lesion is not None
    radius = 0.5 * anatomy.lesion.size_mm * slice_factor
    # A large mass is centred further out: it grows from the kidney, not through the sinus.
    reach = anatomy.lesion_reach + 0.35 * max(0.0, radius - 12.0) / 24.0
    angle = anatomy.lesion_angle_rad
    return (
        math.cos(angle) * reach * anatomy.half_length_mm,
        math.sin(angle) * reach * anatomy.half_width_mm,
    )


def _lesion_place(anatomy: Anatomy, tilt_deg: float, slice_factor: float) -> tuple[float, float]:
    """Centre of the mass relative to that of the kidney in the picture, (x, z) in mm."""
    u, v = _lesion_centre(anatomy, slice_factor)
    angle = math.radians(tilt_deg)
    return (
        u * math.cos(angle) - v * math.sin(angle),
        u * math.sin(angle) + v * math.cos(angle),
    )


def _background(anatomy: Anatomy, view: View, field: Field) -> _Canvas:
    """Retroperitoneum, liver or spleen, diaphragm and bowel."""
    # Muscle and connective tissue: streaks along the surface.
    streaks = field.grain(14.0, 1.6)
    echo = anatomy.connective_db + 3.0 * streaks + 2.0 * field.grain(30.0, 12.0)
    fascia = field.grain(22.0, 1.1) * np.clip(field.grain(40.0, 9.0), 0.0, 1.5)
    specular = np.clip(8.0 * fascia - 16.0, FLOOR_DB, 4.0).astype(np.float32)
    canvas = _Canvas(
        echo.astype(np.float32),
        specular,
        np.zeros_like(field.x_mm),
        np.zeros(field.x_mm.shape, np.uint8),
    )
    _paint_neighbour(anatomy, view, field, canvas)
    if anatomy.gas:
        texture = field.grain(5.0)
        deep = field.depth_mm - np.float32(anatomy.wall_mm + 15.0)
        # The probe is held so that no gas covers the mass.
        at_mm = 64.0
        if anatomy.lesion is not None:
            dx, _ = _lesion_place(anatomy, view.tilt_deg, view.slice_factor)
            at_mm = max(at_mm, view.centre_x_mm + dx + 0.7 * anatomy.lesion.size_mm + 16.0)
        cap = 5.0 - np.hypot((field.x_mm - at_mm) / 3.2, deep - 1.5 * texture)
        canvas.echo[:] = blend(canvas.echo, 15.0 + 3.0 * texture, cap, 2.0)
        canvas.loss[:] += 2.0 * ramp(cap - 1.0, 2.0)
        canvas.mark(cap > 0, Tissue.BOWEL)
    return canvas


def _paint_neighbour(anatomy: Anatomy, view: View, field: Field, canvas: _Canvas) -> None:
    """Liver or spleen between wall and kidney, covering the cranial part; vessels, diaphragm."""
    u, v = _kidney_axes(view, field.x_mm, field.z_mm)
    a, b = anatomy.half_length_mm, anatomy.half_width_mm
    below_wall = field.depth_mm - np.float32(anatomy.wall_mm)
    # The lower edge is a wedge whose tip lies under the wall.
    reach = 0.75 if anatomy.side == "right" else 0.25
    wedge = (np.float32(reach * a) - u - 1.1 * below_wall) * np.float32(0.55)
    above_kidney = np.float32(0.55 * b) - v + 0.012 * np.maximum(-u - 0.6 * a, 0.0) ** 2
    level = np.minimum(np.minimum(below_wall, wedge), above_kidney) + 1.2 * field.grain(22.0)
    tissue = anatomy.neighbour_db + 0.6 * field.grain(4.0)
    # Level lines of a smooth field are winding bands: hepatic veins, some with bright walls.
    course = field.grain(34.0)
    vessel = np.zeros_like(course)
    if anatomy.side == "right":
        vessel = np.clip((0.075 - np.abs(course - 0.9)) / 0.05, 0.0, 1.0)
        walls = np.clip((0.05 - np.abs(np.abs(course - 0.9) - 0.14)) / 0.03, 0.0, 1.0)
        tissue = tissue - 16.0 * vessel + 6.0 * walls * (field.grain(40.0) > 0.2)
    # Diaphragm: a bright arc beyond the organ, its mirror image behind.
    far = np.hypot(field.x_mm - np.float32(view.centre_x_mm + 14.0), field.z_mm - 28.0)
    beyond = far - np.float32(a + 36.0)
    tissue = np.where(beyond > 0, tissue - 7.0 - 0.25 * np.minimum(beyond, 40.0), tissue)
    surface = line_db(level, 0.6) + 2.0 + 5.0 * field.grain(9.0)
    arc = line_db(beyond, 0.9) + 14.0 + 4.0 * field.grain(12.0)
    arc = np.where(level > 0, arc, np.float32(FLOOR_DB))
    canvas.echo[:] = blend(canvas.echo, tissue, level, 1.0)
    inside = level > 0
    canvas.specular[inside] = FLOOR_DB
    np.maximum(canvas.specular, np.maximum(surface, arc), out=canvas.specular)
    canvas.mark(inside, Tissue.NEIGHBOUR)
    canvas.mark(inside & (vessel > 0), Tissue.VESSEL)
    canvas.mark(inside & (beyond > 0), Tissue.BEYOND)


def _paint_kidney(anatomy: Anatomy, view: View, field: Field, canvas: _Canvas) -> Plane:
    """Perirenal fat, capsule, cortex, pyramids and sinus; gives the distance to the capsule."""
    u, v = _kidney_axes(view, field.x_mm, field.z_mm)
    a, b = np.float32(anatomy.half_length_mm), np.float32(anatomy.half_width_mm)
    along = u / a
    across = v / b + np.float32(0.06) * np.cos(np.float32(np.pi) * np.clip(along, -1.2, 1.2))
    azimuth = np.arctan2(across, along)
    rho = np.asarray(cv2.magnitude(along, across), np.float32) + np.float32(1e-4)
    rho /= around(azimuth, _lobulation(anatomy, field.rng))
    slope_z, slope_x = (g / np.float32(field.step_mm) for g in np.gradient(rho))
    steepness = np.hypot(slope_x, slope_z) + np.float32(1e-6)
    # The steepness falls to 0 in the middle, where the first-order distance would run away.
    organ_mm = np.clip((1.0 - rho) / steepness, _FAR_MM, b).astype(np.float32)
    facing = np.abs(slope_x * field.beam_x + slope_z * field.beam_z) / steepness

    fat_mm = organ_mm + np.float32(anatomy.fat_mm) * (1.0 + 0.45 * field.grain(22.0))
    fat = anatomy.fat_db + 2.0 * field.grain(3.0) + 2.0 * field.grain(9.0, 1.6)
    canvas.echo[:] = blend(canvas.echo, fat, fat_mm, 2.0)
    canvas.mark(fat_mm > 0, Tissue.FAT)
    # Fat covers the surface of the neighbour where the kidney touches it.
    canvas.specular[fat_mm > -0.5] = FLOOR_DB

    kidney, loss, kind = _parenchyma(anatomy, field, (along, across), (rho, azimuth))
    canvas.echo[:] = blend(canvas.echo, kidney, organ_mm, 0.6)
    canvas.loss[:] += loss
    inside = organ_mm > 0
    canvas.kind[inside] = kind[inside]
    # The capsule reflects where the beam meets it at a right angle, here more and there less.
    capsule = line_db(organ_mm, 0.5) + 40.0 * np.log10(np.maximum(facing, 0.05))
    capsule += 10.0 + 4.5 * field.grain(7.0)
    np.maximum(canvas.specular, capsule, out=canvas.specular)
    return organ_mm


def _lobulation(anatomy: Anatomy, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Relative radius of the kidney's outline over a turn: gentle dents and fetal lobes."""
    turns = np.arange(1024) * (2 * np.pi / 1024)
    orders = np.arange(2, 8)
    weights = 0.011 * rng.standard_normal(orders.size) / np.sqrt(orders / 2)
    outline = 1.0 + np.cos(np.outer(turns, orders) + rng.uniform(0, 2 * np.pi, 6)) @ weights
    lobes = 0.012 * max(0.0, float(rng.normal(0.0, 0.7)))
    return outline + lobes * np.abs(np.sin(anatomy.pyramids / 2 * turns + rng.uniform(0, np.pi)))


def _parenchyma(
    anatomy: Anatomy, field: Field, axes: tuple[Plane, Plane], polar: tuple[Plane, Plane]
) -> tuple[Plane, Plane, npt.NDArray[np.uint8]]:
    """Echo level, loss and kind of tissue within the kidney."""
    rho, azimuth = polar
    rng = field.rng
    count = anatomy.pyramids
    # Even spacing along the outline of an ellipse, not in its parameter.
    fine = np.linspace(0, 2 * np.pi, 2049)
    speed = np.hypot(anatomy.half_length_mm * np.sin(fine), anatomy.half_width_mm * np.cos(fine))
    arc = np.concatenate([[0.0], np.cumsum((speed[1:] + speed[:-1]) / 2)])
    arc = arc * count / arc[-1] + rng.random()
    phase = around(azimuth, arc[:-1])
    index = np.floor(phase).astype(np.intp) % count
    between = np.abs(phase - np.floor(phase) - 0.5) * 2  # 0 in the middle, 1 between pyramids
    tip = (np.float32(anatomy.sinus_share) * rng.uniform(0.98, 1.12, count))[index]
    base = rng.uniform(0.74, 0.84, count)[index]
    darkness = (-anatomy.medulla_db + rng.uniform(-1.0, 1.0, count))[index]
    width = rng.uniform(0.8, 1.1, count)[index]
    tip, base, darkness, width = (
        values.astype(np.float32) for values in (tip, base, darkness, width)
    )
    rough = 0.12 * field.grain(3.5)
    along = np.clip((rho - tip) / (base - tip), 0.0, 1.2)
    half = width * (0.2 + 0.6 * np.minimum(along, 1.0) - 3.0 * np.maximum(along - 0.88, 0.0))
    medulla = np.minimum((half - between) * 4.0, np.minimum(rho - tip, base - rho) * 18.0) + rough
    # A thin bright line of arcuate vessels marks the base in places.
    arcuate = np.exp(-(((rho - base) / 0.022) ** 2)) * (between < 0.5) * (field.grain(6.0) > 0.3)
    cortex = 0.4 * field.grain(5.0) + 5.0 * arcuate
    echo = cortex - darkness * np.clip(medulla + 0.3, 0.0, 1.0)
    kind = np.where(medulla > 0, np.uint8(Tissue.MEDULLA), np.uint8(Tissue.CORTEX))

    # Central echo complex: bright fat, with fingers between the pyramids, vessels and calyces.
    level = anatomy.sinus_share - np.hypot(axes[0] / 1.1, axes[1] / 0.82)
    level += 0.06 * (between - 0.5) + 0.05 * field.grain(8.0) + 0.03 * field.grain(3.0)
    calyces = np.clip((0.16 - np.abs(field.grain(9.0, 6.0))) / 0.1, 0.0, 1.0)
    fat = anatomy.sinus_db + 2.2 * field.grain(2.5) + 1.5 * field.grain(12.0)
    fat = fat - 9.0 * calyces * np.clip(level / 0.12, 0.0, 1.0)
    weight = ramp(level, 0.08)
    kind[level > 0] = int(Tissue.SINUS)
    return echo + weight * (fat - echo), 0.06 * weight, kind


def _paint_mass(anatomy: Anatomy, view: View, field: Field, onto: tuple[_Canvas, Plane]) -> None:
    canvas, lesion_mm = onto
    assert anatomy.lesion is not None
    radius = 0.5 * anatomy.lesion.size_mm * view.slice_factor
    dx, dz = _lesion_place(anatomy, view.tilt_deg, view.slice_factor)
    reach = radius * (1.0 + 4.0 * anatomy.lesion.irregularity) + 8.0
    window = field.window((view.centre_x_mm + dx, view.centre_z_mm + dz), (reach, reach))
    near, part = field.crop(window), canvas.crop(window)
    u, v = _kidney_axes(view, near.x_mm, near.z_mm)
    centre_u, centre_v = _lesion_centre(anatomy, view.slice_factor)
    outline = lesion_outline(
        anatomy.lesion,
        (u - np.float32(centre_u), v - np.float32(centre_v)),
        radius,
        anatomy.lesion_aspect,
        np.random.default_rng([anatomy.seed, 1]),
    )
    # A mass pushes against the body wall, not through it.
    np.minimum(outline.level_mm, near.depth_mm - anatomy.wall_mm - 1.0, out=outline.level_mm)
    maps = paint_lesion(anatomy.lesion, outline, near, (part.echo, part.specular, part.loss))
    part.echo[:], part.specular[:], part.loss[:] = maps
    part.mark(outline.level_mm > 0, Tissue.LESION)
    lesion_mm[window] = outline.level_mm


def _paint_wall(anatomy: Anatomy, field: Field, canvas: _Canvas) -> None:
    """Skin, subcutaneous fat, muscle layers and fascia; parallel to the transducer face."""
    wavy = field.depth_mm + 0.8 * field.grain(35.0, 40.0)
    strands = field.grain(16.0, 1.0)
    thickness = anatomy.wall_mm
    fat_to = 0.4 * thickness
    layer = np.where(wavy < fat_to, -1.0 + 3.5 * strands, -4.0 + 4.5 * strands)
    layer = np.where(wavy < 2.0, 6.0, layer) + anatomy.around_db
    canvas.echo[:] = blend(canvas.echo, layer, thickness - wavy, 1.0)
    weight = np.clip((thickness - wavy) + 0.5, 0.0, 1.0)
    canvas.specular[:] += FLOOR_DB * weight
    # Septa and fascial planes: bright where they run square to the beam, broken elsewhere.
    for at, gain in ((0.2, 2.0), (0.4, 6.0), (0.55, 3.0), (0.7, 5.0), (0.86, 2.0), (1.0, 7.0)):
        bent = wavy - np.float32(at * thickness) + 0.5 * field.grain(18.0, 40.0)
        line = line_db(bent, 0.4) + gain + anatomy.around_db + 5.0 * field.grain(12.0, 4.0)
        np.maximum(canvas.specular, line, out=canvas.specular)
    canvas.mark(wavy < thickness, Tissue.WALL)
