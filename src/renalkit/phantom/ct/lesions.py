"""Which renal masses does a simulated CT show, how large, and where in the kidney?

Counts and sizes follow the KiTS23 labels: diameters are drawn by their percentiles
(`TUMOUR_DIAMETERS_MM`, `CYST_DIAMETERS_MM`). Classes follow P5: AML (macroscopic fat), cystic
(Bosniak 2019, at most about 25 % enhancing tissue; Silverman et al., Radiology 2019) and solid.
Label 2 (tumour) are solid masses, AML and Bosniak III-IV, which are operated on; label 3 (cyst) are
Bosniak I-IIF.

A mass is a star-shaped body: with local coordinates q (units of the semi-axes) its surface is at
|q| = 1 + sum_k a_k cos(f_k d_k . q/|q| + p_k).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.special import ndtri

from renalkit.phantom.ct.shapes import (
    Ellipsoid,
    Field,
    Points,
    Vector,
    random_rotation,
    unit_ball,
    unit_sphere,
)
from renalkit.phantom.histology import Histology

Side = Literal["left", "right"]
LesionLabel = Literal["tumour", "cyst"]
LesionClass = Literal["AML", "cystic", "solid"]
Bosniak = Literal["", "I", "II", "IIF", "III", "IV"]
Polarity = Literal["upper", "middle", "lower"]
Room = Callable[[Points], float]
"""By how many mm do points (N, 3) leave the room there is for a mass (0 or less: all inside)?"""

PERCENTS = (0.5, 5.0, 25.0, 50.0, 75.0, 95.0, 99.5)
TUMOUR_DIAMETERS_MM = (6.0, 8.0, 22.0, 33.0, 53.0, 106.0, 125.0)
CYST_DIAMETERS_MM = (3.0, 4.0, 7.0, 11.0, 18.0, 41.0, 75.0)
"""Diameters at PERCENTS; log-linear in the normal quantile between them."""

SOLID_SHARE_OF_PARENCHYMA = (0.5, 0.95)
"""Range of the nephrographic HU of a solid mass over that of the parenchyma, uniform."""

# Shares of solid masses in KiTS23 (310, 45, 38 and 26 of 419), and where in the range of
# enhancement each lies (mean, SD): clear cell and oncocytoma strong, papillary weak.
_SOLID = {
    Histology.CCRCC: (0.74, 0.78, 0.12),
    Histology.PRCC: (0.11, 0.54, 0.06),
    Histology.CHRCC: (0.09, 0.64, 0.09),
    Histology.ONCOCYTOMA: (0.06, 0.80, 0.10),
}
_MOST_ENHANCING_OF_CYSTIC = 0.22
_BOSNIAK_OF_CYSTS: tuple[tuple[Bosniak, float], ...] = (("I", 0.62), ("II", 0.28), ("IIF", 0.10))
_SURFACE, _VOLUME, _FEW = unit_sphere(300), unit_ball(1500), unit_ball(400)
_FINE_SURFACE = unit_sphere(2000)


@dataclass(frozen=True, slots=True)
class Lobe:
    """One term of a mass's outline: amplitude, frequency, direction and phase."""

    amplitude: float
    frequency: float
    direction: Vector
    phase: float


@dataclass(frozen=True, slots=True)
class Septum:
    """A bowed sheet through a cystic mass: part of a sphere. centre_mm: from that of the mass."""

    centre_mm: Vector
    radius_mm: float
    thickness_mm: float


@dataclass(frozen=True, slots=True)
class Lesion:
    """One mass.

    number: its value in the instance map, from 1. body, lobes: shape. diameter_mm: of the sphere
    of equal volume. volume_mm3: analytic. exophytic_share: volume outside the kidney's outline.
    polarity: third of the kidney's long axis in which the centre lies. enhancement: nephrographic
    HU of the viable tissue over that of the parenchyma (solid). base_hu: HU without contrast of
    the viable tissue, fat or fluid. unevenness_hu: SD of its texture. cores: necrosis or scar.
    nodule, septa, wall_mm: of cystic masses. enhancing_share: volume share of enhancing tissue.
    touching: number of the mass it touches, 0 for none.
    """

    number: int
    side: Side
    label: LesionLabel
    lesion_class: LesionClass
    histology: Histology
    bosniak: Bosniak
    body: Ellipsoid
    lobes: tuple[Lobe, ...]
    diameter_mm: float
    volume_mm3: float
    exophytic_share: float
    polarity: Polarity
    enhancement: float
    base_hu: float
    unevenness_hu: float
    cores: tuple[Ellipsoid, ...]
    core_kind: Literal["", "necrosis", "scar"]
    nodule: Ellipsoid | None
    septa: tuple[Septum, ...]
    wall_mm: float
    calcifications: tuple[Ellipsoid, ...]
    enhancing_share: float
    touching: int
    seed: int

    def surface(self, directions: Points = _SURFACE) -> Points:
        """Points (N, 3) of the surface in mm."""
        return self.body.world(directions * outline(self.lobes, directions)[:, None])

    def depth_mm(self, points_mm: Points) -> Points:
        """Approximate depth (N,) below the surface in mm, negative outside."""
        local = self.body.local(points_mm)
        radius = np.maximum(np.linalg.norm(local, axis=1), 1e-9)
        limit = outline(self.lobes, local / radius[:, None])
        return (limit - radius) * self.diameter_mm / 2

    def moved(self, centre_mm: Vector) -> Lesion:
        """The same mass elsewhere."""
        shift = np.subtract(centre_mm, self.body.centre_mm)

        def there(part: Ellipsoid) -> Ellipsoid:
            x, y, z = (np.asarray(part.centre_mm) + shift).tolist()
            return replace(part, centre_mm=(x, y, z))

        return replace(
            self,
            body=there(self.body),
            cores=tuple(map(there, self.cores)),
            nodule=None if self.nodule is None else there(self.nodule),
            calcifications=tuple(map(there, self.calcifications)),
        )


@dataclass(frozen=True, slots=True)
class Kidney:
    """One kidney: a bent ellipsoid with a sinus, pyramids and a pelvis.

    hull: axes along the long axis (upwards), lateral and thickness. bend, lip: shift towards the
    hilum of the poles (|u| = 1) and of the lips before and behind the hilum (|w| = 1), in lateral
    semi-axes; they make the outline a bean from the front and a C in a slice. sinus: size relative
    to usual.
    """

    side: Side
    hull: Ellipsoid
    bend: float
    lip: float
    sinus: float
    pyramids: int
    seed: int

    def radius(self, points_mm: Points) -> Points:
        """Normalised radius (N,), 1 on the outline."""
        local = self.hull.local(points_mm)
        straight = local[:, 1] + self.shift(local[:, 0], local[:, 2])
        return np.sqrt(local[:, 0] ** 2 + straight**2 + local[:, 2] ** 2)

    def shift(self, u: Field, w: Field) -> Field:
        """What bending took from v at (u, w), all in semi-axes; it keeps the volume."""
        along, across = np.float32(self.bend), np.float32(self.lip)
        return along * (u * u - np.float32(0.35)) + across * (w * w - np.float32(0.2))

    def surface(self, direction: Points, radius: float = 1.0) -> tuple[Points, Points]:
        """Points of the outline (N, 3) and outward normals there, for unit vectors (N, 3)."""
        local = direction * radius
        bent = local.copy()
        bent[:, 1] -= self.shift(local[:, 0], local[:, 2])
        gradient = local.copy()
        gradient[:, 0] += 2.0 * self.bend * local[:, 0] * local[:, 1]
        gradient[:, 2] += 2.0 * self.lip * local[:, 2] * local[:, 1]
        normal = (gradient / self.hull.semi_axes_mm) @ np.asarray(self.hull.rotation)
        return self.hull.world(bent), normal / np.linalg.norm(normal, axis=1, keepdims=True)


def outline(lobes: Sequence[Lobe], directions: Points) -> Points:
    """Radius (N,) of the outline relative to the ellipsoid in unit directions (N, 3)."""
    limit = np.ones(len(directions))
    for lobe in lobes:
        angle = lobe.frequency * (directions @ np.asarray(lobe.direction)) + lobe.phase
        limit += lobe.amplitude * np.cos(angle)
    return limit


def draw_diameter(label: LesionLabel, rng: np.random.Generator) -> float:
    """Equivalent diameter in mm by the percentiles of its label."""
    values = TUMOUR_DIAMETERS_MM if label == "tumour" else CYST_DIAMETERS_MM
    at = ndtri(np.asarray(PERCENTS) / 100.0)
    return float(np.exp(np.interp(rng.standard_normal(), at, np.log(values))))


def draw_lesion(
    number: int,
    label: LesionLabel,
    diameter_mm: float,
    aml_share: float,
    rng: np.random.Generator,
) -> Lesion:
    """Draw a mass at the origin; `place` or `place_touching` give it a kidney."""
    lesion_class: LesionClass = "cystic"
    if label == "tumour":
        chance = rng.random()
        lesion_class = (
            "AML" if chance < aml_share else "cystic" if chance < aml_share + 0.06 else "solid"
        )
    rough = 0.05 if lesion_class == "solid" else 0.04 if lesion_class == "AML" else 0.012
    body, lobes = _draw_body(diameter_mm, rough, rng)
    lesion = Lesion(
        number=number,
        side="left",
        label=label,
        lesion_class=lesion_class,
        histology=Histology.CYST,
        bosniak="",
        body=body,
        lobes=lobes,
        diameter_mm=diameter_mm,
        volume_mm3=math.pi / 6.0 * diameter_mm**3,
        exophytic_share=0.0,
        polarity="middle",
        enhancement=0.0,
        base_hu=0.0,
        unevenness_hu=0.0,
        cores=(),
        core_kind="",
        nodule=None,
        septa=(),
        wall_mm=0.0,
        calcifications=(),
        enhancing_share=1.0,
        touching=0,
        seed=int(rng.integers(0, 2**53)),
    )
    if lesion_class == "cystic":
        return _cystic(lesion, rng)
    return _solid(lesion, rng) if lesion_class == "solid" else _fatty(lesion, rng)


def place(
    lesion: Lesion,
    kidney: Kidney,
    others: Sequence[Lesion],
    excess_mm: Room,
    rng: np.random.Generator,
) -> Lesion | None:
    """Put a mass into a kidney, apart from the others and inside the abdomen.

    Entirely endophytic, or with a drawn exophytic share reached by moving it along the outward
    normal. Returns None when every place tried overlaps another mass.
    """
    endophytic = rng.random() < 0.2
    share = 0.0 if endophytic else float(rng.uniform(0.08, 0.8))
    gap_mm = float(rng.uniform(4.0, 8.0))
    best: Lesion | None = None
    least = math.inf
    inside = lesion.body.world(_FEW)
    for attempt in range(70):
        direction = rng.standard_normal(3)
        direction[0] *= 1.3
        direction /= np.linalg.norm(direction)
        if direction[1] < -0.45:  # the hilum
            continue
        if attempt == 35:  # a large mass that found no room bulges further out
            share = max(share, 0.6)
        moved = lesion.moved(_centre_for(lesion, inside, kidney, direction[None], share))
        if any(_gap(moved, other) < gap_mm for other in others):
            continue
        excess = excess_mm(moved.surface())
        if excess < least:
            best, least = moved, excess
        if excess <= 0.0:
            break
    return None if best is None else _located(best, kidney)


def place_touching(
    lesion: Lesion,
    kidney: Kidney,
    others: Sequence[Lesion],
    excess_mm: Room,
    rng: np.random.Generator,
) -> Lesion | None:
    """Put a mass into a kidney so that its surface meets that of others[0]; None without room."""
    partner, rest = others[0], others[1:]
    best: Lesion | None = None
    least = math.inf
    surface, partner_surface = lesion.surface(), partner.surface()
    for direction in rng.permutation(unit_sphere(30)):
        near, far = 0.0, (lesion.diameter_mm + partner.diameter_mm) * 0.8
        for _ in range(11):
            middle = (near + far) / 2
            centre = np.asarray(partner.body.centre_mm) + direction * middle
            meet = partner.depth_mm(surface + centre).max() > 0.0
            meet = meet or lesion.depth_mm(partner_surface - centre).max() > 0.0
            near, far = (middle, far) if meet else (near, middle)
        moved = lesion.moved(_along(partner.body.centre_mm, direction, near))
        if any(_gap(moved, other) < 2.0 for other in rest):
            continue
        depth = float(kidney.radius(np.asarray([moved.body.centre_mm]))[0])
        cost = abs(depth - 0.85) + 0.2 * max(0.0, excess_mm(moved.surface()))
        if depth < 1.5 and cost < least:
            best, least = moved, cost
    return None if best is None else replace(_located(best, kidney), touching=partner.number)


def _draw_body(
    diameter_mm: float, rough: float, rng: np.random.Generator
) -> tuple[Ellipsoid, tuple[Lobe, ...]]:
    """Axes and outline, scaled so that the volume is that of the sphere of this diameter."""
    lobes = tuple(
        Lobe(
            float(rough * rng.uniform(0.4, 1.0)),
            float(rng.uniform(2.0, 6.0)),
            _unit(rng),
            float(rng.uniform(0.0, 2.0 * math.pi)),
        )
        for _ in range(4)
    )
    axes = np.exp(rng.normal(0.0, 0.09, 3))
    relative = float(np.mean(outline(lobes, _FINE_SURFACE) ** 3) * np.prod(axes))
    a, b, c = (axes * diameter_mm / 2 / relative ** (1 / 3)).tolist()
    return Ellipsoid((0.0, 0.0, 0.0), (a, b, c), random_rotation(rng)), lobes


def _solid(lesion: Lesion, rng: np.random.Generator) -> Lesion:
    enhancement = float(rng.uniform(*SOLID_SHARE_OF_PARENCHYMA))
    kinds = tuple(_SOLID)
    odds = np.array(
        [
            share / sd * math.exp(-0.5 * ((enhancement - mean) / sd) ** 2)
            for share, mean, sd in _SOLID.values()
        ]
    )
    histology = kinds[int(rng.choice(len(kinds), p=odds / odds.sum()))]
    radius = lesion.diameter_mm / 2
    cores: tuple[Ellipsoid, ...] = ()
    core_kind: Literal["", "necrosis", "scar"] = ""
    chance = float(np.clip((lesion.diameter_mm - 30.0) / 50.0, 0.0, 0.85))
    if histology is Histology.ONCOCYTOMA and lesion.diameter_mm > 25 and rng.random() < 0.4:
        core_kind = "scar"
        cores = tuple(
            Ellipsoid(
                lesion.body.centre_mm,
                (0.5 * radius, 0.07 * radius, 0.2 * radius),
                random_rotation(rng),
            )
            for _ in range(3)
        )
    elif histology is not Histology.ONCOCYTOMA and rng.random() < chance:
        core_kind = "necrosis"
        cores = tuple(
            Ellipsoid(
                _along((0.0, 0.0, 0.0), np.asarray(_unit(rng)), 0.28 * radius),
                _vector(rng.uniform(0.25, 0.5, 3) * radius),
                random_rotation(rng),
            )
            for _ in range(int(rng.integers(2, 5)))
        )
    # The larger, the more mixed.
    uneven = {Histology.CCRCC: 11.0, Histology.PRCC: 4.0}.get(histology, 6.0)
    uneven *= 1.0 + min(lesion.diameter_mm, 100.0) / 80.0
    lesion = replace(
        lesion,
        histology=histology,
        enhancement=enhancement,
        base_hu=float(rng.normal(34.0, 4.0)),
        unevenness_hu=uneven,
        cores=cores,
        core_kind=core_kind,
        calcifications=_specks(lesion, 0.12, 0.5, rng),
    )
    return replace(lesion, enhancing_share=_enhancing_share(lesion))


def _fatty(lesion: Lesion, rng: np.random.Generator) -> Lesion:
    return replace(
        lesion,
        histology=Histology.AML,
        base_hu=float(rng.uniform(-70.0, -38.0)),
        unevenness_hu=26.0,
        enhancing_share=0.4,
    )


def _cystic(lesion: Lesion, rng: np.random.Generator) -> Lesion:
    bosniak: Bosniak
    if lesion.label == "tumour":
        bosniak = "III" if rng.random() < 0.5 else "IV"
    else:
        kinds, shares = zip(*_BOSNIAK_OF_CYSTS, strict=True)
        bosniak = kinds[int(rng.choice(len(kinds), p=shares))]
        if lesion.diameter_mm < 10.0:  # too small to be classified otherwise
            bosniak = "I"
    histology = Histology.CYST
    if lesion.label == "tumour" and rng.random() < (0.5 if bosniak == "III" else 0.85):
        histology = Histology.CCRCC if rng.random() < 0.75 else Histology.PRCC
    radius = lesion.diameter_mm / 2
    # Bosniak 2019: II 1-3 septa of at most 2 mm; IIF 4 or more, or 3 mm; III 4 mm; IV a nodule.
    count, thickness, wall = {
        "I": (0, 0.0, 0.5),
        "II": (int(rng.integers(1, 4)), 1.0, 0.8),
        "IIF": (int(rng.integers(4, 6)), 1.6, 2.0),
        "III": (int(rng.integers(2, 5)), float(rng.uniform(4.0, 5.0)), 3.0),
        "IV": (int(rng.integers(1, 4)), 2.5, 2.5),
    }[bosniak]
    nodule = None
    if bosniak == "IV":
        where = _along((0.0, 0.0, 0.0), np.asarray(_unit(rng)), 0.72 * radius)
        size = rng.uniform(0.24, 0.36, 3) * radius
        nodule = Ellipsoid(where, _vector(size), random_rotation(rng))
    lesion = replace(
        lesion,
        histology=histology,
        bosniak=bosniak,
        base_hu=float(rng.uniform(2.0, 18.0)),
        unevenness_hu=1.0,
        nodule=nodule,
        septa=tuple(_septum(radius, thickness, rng) for _ in range(count)),
        wall_mm=wall,
        calcifications=_specks(lesion, 0.0 if bosniak == "I" else 0.3, 0.95, rng),
    )
    # In a small mass septa of that thickness leave no fluid: thinner ones keep the class.
    while (share := _enhancing_share(lesion)) > _MOST_ENHANCING_OF_CYSTIC:
        septa = tuple(
            replace(septum, thickness_mm=0.75 * septum.thickness_mm) for septum in lesion.septa
        )
        lesion = replace(lesion, septa=septa, wall_mm=0.75 * lesion.wall_mm)
    return replace(lesion, enhancing_share=share)


def _septum(radius_mm: float, thickness_mm: float, rng: np.random.Generator) -> Septum:
    bow_mm = float(rng.uniform(1.2, 3.0)) * radius_mm
    offset_mm = float(rng.uniform(-0.5, 0.5)) * radius_mm
    centre = _along((0.0, 0.0, 0.0), np.asarray(_unit(rng)), offset_mm - bow_mm)
    return Septum(centre, bow_mm, thickness_mm)


def _specks(
    lesion: Lesion, chance: float, reach: float, rng: np.random.Generator
) -> tuple[Ellipsoid, ...]:
    """Calcifications around `reach` radii from the centre."""
    if lesion.diameter_mm < 12.0 or rng.random() >= chance:
        return ()
    radius = lesion.diameter_mm / 2
    return tuple(
        Ellipsoid(
            _along((0.0, 0.0, 0.0), np.asarray(_unit(rng)), reach * 0.9 * radius),
            _vector(rng.uniform(0.7, 2.0, 3)),
            random_rotation(rng),
        )
        for _ in range(int(rng.integers(1, 5)))
    )


def _enhancing_share(lesion: Lesion) -> float:
    """Share of the volume that takes up contrast, over evenly spread points."""
    points = lesion.body.world(_VOLUME)
    if lesion.lesion_class == "solid":
        dead = np.zeros(len(points), bool)
        for core in lesion.cores:
            dead |= np.linalg.norm(core.local(points), axis=1) < 1.0
        return 1.0 - float(dead.mean())
    depth = lesion.depth_mm(points)
    live = depth < lesion.wall_mm
    if lesion.bosniak in ("III", "IV"):
        for septum in lesion.septa:
            live |= in_septum(septum, points - np.asarray(lesion.body.centre_mm)) > 0.0
    if lesion.nodule is not None:
        live |= np.linalg.norm(lesion.nodule.local(points), axis=1) < 1.0
    return float(live.mean())


def in_septum(septum: Septum, offsets_mm: Points) -> Points:
    """Depth (N,) inside a septum in mm for offsets (N, 3) from the centre of the mass."""
    distance = np.linalg.norm(offsets_mm - np.asarray(septum.centre_mm), axis=1)
    return septum.thickness_mm / 2 - np.abs(distance - septum.radius_mm)


def exophytic_share(lesion: Lesion, kidney: Kidney) -> float:
    """Volume share of the mass outside the kidney's outline."""
    return float((kidney.radius(lesion.body.world(_VOLUME)) > 1.0).mean())


def _centre_for(
    lesion: Lesion, inside: Points, kidney: Kidney, direction: Points, share: float
) -> Vector:
    """Centre along the normal at a point of the outline with so much of the mass outside it.

    inside: points (N, 3) spread over the mass, relative to its centre.
    """
    start, normal = kidney.surface(direction)
    radius = lesion.diameter_mm / 2
    if share <= 0.0:
        depth = min(1.15 * radius, 0.75 * kidney.hull.semi_axes_mm[2])
        return _along(_vector(start[0]), normal[0], -depth)
    low, high = -1.2 * radius - 12.0, 1.0 * radius
    for _ in range(9):
        middle = (low + high) / 2
        outside = kidney.radius(inside + start + normal * middle) > 1.0
        low, high = (middle, high) if float(outside.mean()) < share else (low, middle)
    return _along(_vector(start[0]), normal[0], (low + high) / 2)


def _located(lesion: Lesion, kidney: Kidney) -> Lesion:
    along = float(kidney.hull.local(np.asarray([lesion.body.centre_mm]))[0, 0])
    polarity: Polarity = "upper" if along > 1 / 3 else "lower" if along < -1 / 3 else "middle"
    share = exophytic_share(lesion, kidney)
    return replace(lesion, side=kidney.side, polarity=polarity, exophytic_share=share)


def _gap(lesion: Lesion, other: Lesion) -> float:
    """Approximate distance of two surfaces in mm, negative when they overlap."""
    between = math.dist(lesion.body.centre_mm, other.body.centre_mm)
    loose = between - 0.65 * (lesion.diameter_mm + other.diameter_mm)
    if loose > 10.0:
        return loose
    here = -float(other.depth_mm(lesion.surface()).max())
    return min(here, -float(lesion.depth_mm(other.surface()).max()))


def _unit(rng: np.random.Generator) -> Vector:
    vector = rng.standard_normal(3)
    return _vector(vector / np.linalg.norm(vector))


def _vector(values: Points) -> Vector:
    x, y, z = values.tolist()
    return x, y, z


def _along(start_mm: Vector, direction: Points, distance_mm: float) -> Vector:
    return _vector(np.asarray(start_mm) + direction * distance_mm)
