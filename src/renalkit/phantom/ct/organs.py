"""Which organs, vessels and bones surround the kidneys of a simulated patient?

Each is an ellipsoid, a tube or an upright cylinder with a tissue, listed in the order in which
they are painted: organs, bowel, then muscles, bones and great vessels. Positions are for a trunk
of 142 x 98 mm (muscle wall, semi-axes) and scaled to the patient's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from renalkit.phantom.ct.anatomy import Body, CtCase
from renalkit.phantom.ct.lesions import Kidney
from renalkit.phantom.ct.shapes import Ellipsoid, Vector, rotation_of


@dataclass(frozen=True, slots=True)
class Tube:
    """Points within a radius of a path; one radius per point."""

    path_mm: tuple[Vector, ...]
    radii_mm: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Cylinder:
    """An upright elliptic cylinder."""

    centre_mm: Vector
    semi_axes_mm: tuple[float, float]
    half_height_mm: float


@dataclass(frozen=True, slots=True)
class Part:
    """One organ or part of it.

    inner: tissue inside a wall of wall_mm (bone marrow, bowel content), "" for none. gas_y_mm: the
    inside is gas in front of this level, None for no gas. clipped: to the space inside the muscle
    wall. grain_mm: of its texture, 0 for none.
    """

    shape: Ellipsoid | Tube | Cylinder
    tissue: str
    inner: str = ""
    wall_mm: float = 0.0
    gas_y_mm: float | None = None
    clipped: bool = True
    grain_mm: float = 0.0
    seed: int = 0


def soft_parts(case: CtCase) -> list[Part]:
    """Organs and bowel, painted before the fat around the kidneys."""
    body = case.body
    rng = np.random.default_rng([body.seed, 2])
    place = _Scaled(body)
    return [
        *_upper_organs(place, rng),
        *_mesentery(body, rng),
        *_colon(place, rng),
        *_small_bowel(place, body, rng),
        *_pancreas_and_duodenum(place, body, rng),
    ]


def hard_parts(case: CtCase) -> list[Part]:
    """Muscles, bones, great vessels and adrenals, painted after the fat around the kidneys."""
    rng = np.random.default_rng([case.body.seed, 3])
    return [
        *_muscles(case.body),
        *_spine(case.body, rng),
        *_ribs(case.body, rng),
        *_great_vessels(case.body, rng),
        *(part for kidney in case.kidneys for part in _adrenal(kidney)),
    ]


def renal_parts(case: CtCase, kidney: Kidney) -> list[Part]:
    """Vessels and ureter of a kidney, painted with it."""
    body = case.body
    sign = 1.0 if kidney.side == "left" else -1.0
    aorta_x, aorta_y = body.aorta_mm
    hilum = _at(kidney, (0.0, -0.75, 0.0))
    root = _at(kidney, (0.05, -1.35, 0.0))
    z = hilum[2]
    if sign > 0:
        vein = [hilum, root, (aorta_x + 6.0, aorta_y - 15.0, z + 8.0), (-14.0, aorta_y, z + 10.0)]
        artery = [hilum, _at(kidney, (0.0, -1.3, 0.0)), (aorta_x + 8.0, aorta_y, z + 8.0)]
    else:
        vein = [hilum, root, (-20.0, aorta_y, z + 10.0)]
        artery = [hilum, (-20.0, aorta_y + 13.0, z + 5.0), (aorta_x, aorta_y + 6.0, z + 8.0)]
    pelvis = _at(kidney, (-0.12, -0.8, 0.0))
    ureter = [
        pelvis,
        (sign * 38.0, body.spine_y_mm - 14.0, z - 45.0),
        (sign * 40.0, body.spine_y_mm - 22.0, z - 90.0),
        (sign * 32.0, body.spine_y_mm - 28.0, z - 190.0),
    ]
    return [
        Part(_tube(artery, 2.6), "aorta"),
        Part(_tube(vein, 4.6), "renal_vein"),
        Part(_tube(ureter, 1.9), "ureter"),
    ]


class _Scaled:
    """Positions in the reference trunk -> this patient's."""

    def __init__(self, body: Body) -> None:
        self.x = body.frame_mm[0] / 142.0
        self.y = body.frame_mm[1] / 98.0

    def __call__(self, x: float, y: float, z: float) -> Vector:
        return x * self.x, y * self.y, z

    def ellipsoid(self, centre: Vector, semi: Vector, rotation_deg: float = 0.0) -> Ellipsoid:
        """Turned about the long axis of the body by so many degrees."""
        turn = math.radians(rotation_deg)
        axes = (
            (math.cos(turn), math.sin(turn), 0.0),
            (-math.sin(turn), math.cos(turn), 0.0),
            (0.0, 0.0, 1.0),
        )
        return Ellipsoid(self(*centre), (semi[0] * self.x, semi[1] * self.y, semi[2]), axes)


def _upper_organs(place: _Scaled, rng: np.random.Generator) -> Iterator[Part]:
    seed = int(rng.integers(0, 2**31))
    drop = float(rng.normal(0.0, 10.0))
    for centre, semi in (
        ((-84.0, -14.0, 78.0 + drop), (60.0, 76.0, 84.0)),
        ((-112.0, -14.0, 18.0 + drop), (34.0, 56.0, 70.0)),
        ((-8.0, -66.0, 98.0 + drop), (88.0, 34.0, 52.0)),
    ):
        yield Part(place.ellipsoid(centre, semi), "liver", grain_mm=9.0, seed=seed)
    hilum = place(-45.0, -25.0, 70.0 + drop)
    for _ in range(9):
        end = np.array(place(-95.0, -10.0, 60.0 + drop)) + rng.uniform(-1, 1, 3) * (32, 45, 50)
        middle = (np.array(hilum) + end) / 2 + rng.normal(0.0, 8.0, 3)
        path = [hilum, _vector(middle), _vector(end)]
        yield Part(Tube(tuple(path), (3.6, 2.2, 2.2)), "portal")
    yield Part(place.ellipsoid((-60.0, -50.0, 6.0 + drop), (15.0, 22.0, 27.0), -25.0), "bile")
    spleen = float(rng.normal(0.0, 8.0))
    yield Part(
        place.ellipsoid((104.0, 30.0, 72.0 + spleen), (24.0, 50.0, 50.0), 18.0),
        "spleen",
        grain_mm=7.0,
        seed=seed + 1,
    )
    stomach = place.ellipsoid((52.0, -42.0, 88.0), (46.0, 36.0, 52.0), 20.0)
    yield Part(
        stomach,
        "bowel_wall",
        inner="food",
        wall_mm=4.0,
        gas_y_mm=stomach.centre_mm[1] + float(rng.uniform(-24.0, -8.0)),
        grain_mm=6.0,
        seed=seed + 2,
    )


def _mesentery(body: Body, rng: np.random.Generator) -> Iterator[Part]:
    """Branches of the vessels to the bowel."""
    front = body.aorta_mm[1] - 41.0
    for _ in range(48):
        start = np.array([rng.normal(5.0, 10.0), front, rng.uniform(-150.0, 10.0)])
        end = start + rng.normal(0.0, 1.0, 3) * (42.0, 12.0, 16.0) - (0.0, 14.0, 0.0)
        middle = (start + end) / 2 + rng.normal(0.0, 7.0, 3)
        path = [_vector(start), _vector(middle), _vector(end)]
        tissue = "portal" if rng.random() < 0.6 else "aorta"
        yield Part(_tube(path, float(rng.uniform(0.9, 2.0))), tissue)


def _colon(place: _Scaled, rng: np.random.Generator) -> Iterator[Part]:
    """Ascending, transverse and descending colon with haustra, stool and gas."""
    # Its bends lie below the liver and the spleen.
    ascending = [(-100.0, -22.0, -165.0), (-100.0, -16.0, -100.0), (-82.0, -26.0, -46.0)]
    transverse = [
        (-74.0, -46.0, -42.0),
        (-45.0, -72.0, -40.0),
        (15.0, -76.0, -36.0),
        (65.0, -66.0, -12.0),
        (98.0, -38.0, 24.0),
    ]
    descending = [(106.0, -16.0, 26.0), (110.0, 0.0, -30.0), (108.0, -4.0, -165.0)]
    for route, radius, gas in (
        (ascending, 20.0, 0.35),
        (transverse, 16.0, 0.75),
        (descending, 12.0, 0.25),
    ):
        points = np.array([place(*point) for point in _resampled(route, 15.0)])
        points += rng.normal(0.0, 2.5, points.shape)
        path = tuple(_vector(point) for point in points)
        radii = tuple((radius * rng.uniform(0.8, 1.15, len(path))).tolist())
        level = float(points[:, 1].mean() + rng.uniform(-0.6, 0.4) * radius)
        gas_y = level if rng.random() < gas else None
        # Its own fat keeps it off the liver and the kidney.
        yield Part(Tube(path, tuple(r + 5.0 for r in radii)), "fat")
        yield Part(
            Tube(path, radii),
            "bowel_wall",
            inner="stool",
            wall_mm=2.0,
            gas_y_mm=gas_y,
            grain_mm=3.5,
            seed=int(rng.integers(0, 2**31)),
        )


def _small_bowel(place: _Scaled, body: Body, rng: np.random.Generator) -> Iterator[Part]:
    """Loops in the middle and left of the abdomen, in front of the great vessels."""
    for _ in range(int(rng.integers(75, 100))):
        x = float(np.clip(rng.normal(20.0, 48.0), -95.0, 100.0))
        z = float(rng.uniform(-172.0, 32.0))
        y = float(rng.uniform(-80.0, -26.0 + 8.0 * (abs(x) > 50)))
        turn = rng.uniform(0.0, 2.0 * math.pi)
        length = rng.uniform(10.0, 24.0)
        along = np.array([math.cos(turn), 0.5 * math.sin(turn), rng.uniform(-0.8, 0.8)])
        bend = rng.normal(0.0, 6.0, 3)
        middle = np.array(place(x, y, z))
        path = (middle - along * length, middle + bend, middle + along * length)
        radius = float(rng.uniform(7.5, 12.5))
        gas_y = float(middle[1]) - 0.35 * radius if rng.random() < 0.12 else None
        inner = "contrast" if body.oral_contrast and rng.random() < 0.6 else "chyme"
        yield Part(
            Tube(tuple(_vector(p) for p in path), (radius,) * 3),
            "bowel_wall",
            inner=inner,
            wall_mm=float(rng.uniform(1.6, 4.0)),
            gas_y_mm=gas_y,
        )


def _pancreas_and_duodenum(place: _Scaled, body: Body, rng: np.random.Generator) -> Iterator[Part]:
    _, aorta_y = body.aorta_mm
    front = aorta_y - 16.0
    lift = float(rng.normal(8.0, 8.0))
    duodenum = [
        (-40.0, front - 12.0, 30.0 + lift),
        (-44.0, front - 4.0, -8.0 + lift),
        (-30.0, front, -32.0 + lift),
        (4.0, front - 2.0, -36.0 + lift),
        (30.0, front - 10.0, -22.0 + lift),
    ]
    yield Part(_tube(duodenum, 11.0), "bowel_wall", inner="chyme", wall_mm=3.0)
    pancreas = [
        (-28.0, front - 6.0, 2.0 + lift),
        (-14.0, front - 16.0, 16.0 + lift),
        (8.0, front - 22.0, 24.0 + lift),
        (40.0, front - 14.0, 36.0 + lift),
        (76.0, front + 12.0, 46.0 + lift),
    ]
    radii = (13.0, 10.0, 8.5, 8.0, 7.0)
    yield Part(Tube(tuple(pancreas), radii), "pancreas", grain_mm=2.5, seed=7)
    splenic = [(x, y + 7.0, z + 3.0) for x, y, z in pancreas[2:]] + [place(92.0, 22.0, 60.0)]
    yield Part(_tube(splenic, 3.6), "portal")
    yield Part(
        _tube([(-12.0, front - 10.0, 18.0 + lift), (-38.0, front - 8.0, 60.0 + lift)], 6.0),
        "portal",
    )
    superior = [
        (-6.0, front - 11.0, 14.0 + lift),
        (-6.0, front - 26.0, -60.0),
        (4.0, -52.0, -160.0),
    ]
    yield Part(_tube(superior, 4.8), "portal")
    artery = [
        (9.0, aorta_y - 9.0, 22.0 + lift),
        (8.0, front - 10.0, 6.0 + lift),
        (6.0, front - 24.0, -60.0),
        (14.0, -52.0, -160.0),
    ]
    yield Part(_tube(artery, 3.2), "aorta")


def _muscles(body: Body) -> Iterator[Part]:
    y = body.spine_y_mm
    for sign in (-1.0, 1.0):
        heights = np.linspace(45.0, -172.0, 15)
        share = (45.0 - heights) / 217.0
        path = tuple(
            (sign * (27.0 + 36.0 * s), y + 2.0 - 22.0 * s**2, float(z))
            for s, z in zip(share, heights, strict=True)
        )
        yield Part(
            Tube(path, tuple((9.0 + 16.0 * np.minimum(share * 1.4, 1.0)).tolist())), "muscle"
        )
        yield Part(
            Ellipsoid((sign * 66.0, y + 31.0, -45.0), (26.0, 10.0, 100.0)), "muscle", clipped=False
        )
        crus = [(sign * 13.0, y - 22.0, 140.0), (sign * 14.0, y - 20.0, 0.0)]
        yield Part(_tube(crus, 4.5), "muscle")


def _spine(body: Body, rng: np.random.Generator) -> Iterator[Part]:
    y = body.spine_y_mm
    seed = int(rng.integers(0, 2**31))
    phase = float(rng.uniform(-18.0, 18.0))

    def bone(shape: Ellipsoid | Tube | Cylinder, wall_mm: float = 1.4) -> Part:
        return Part(shape, "cortical", "marrow", wall_mm, clipped=False, grain_mm=2.5, seed=seed)

    for index in range(-5, 6):
        z = phase + 36.0 * index
        size = 1.0 - 0.02 * index
        yield Part(
            Cylinder((0.0, y, z + 18.0), (22.0 * size, 15.5 * size), 5.5), "disc", clipped=False
        )
        yield bone(Cylinder((0.0, y, z), (23.0 * size, 16.5 * size), 13.5), 1.5)
        for sign in (-1.0, 1.0):
            pedicle = [(sign * 15.0, y + 12.0, z + 5.0), (sign * 16.0, y + 22.0, z + 3.0)]
            yield bone(_tube(pedicle, 4.8))
            lamina = [(sign * 15.0, y + 24.0, z - 2.0), (sign * 2.0, y + 33.0, z - 8.0)]
            yield bone(_tube(lamina, 4.2))
            transverse = [(sign * 17.0, y + 20.0, z + 2.0), (sign * 42.0, y + 25.0, z)]
            yield bone(_tube(transverse, 3.6))
            facet = Ellipsoid((sign * 17.0, y + 25.0, z - 15.0), (6.5, 7.0, 11.0))
            yield bone(facet)
        spinous = rotation_of((0.0, 1.0, -0.35), (1.0, 0.0, 0.0))
        yield bone(Ellipsoid((0.0, y + 43.0, z - 12.0), (14.0, 3.4, 9.5), spinous))
    canal = Cylinder((0.0, y + 23.5, -10.0), (11.0, 8.5), 190.0)
    yield Part(canal, "fat", clipped=False)
    sac = Cylinder((0.0, y + 23.0, -10.0), (8.5, 7.0), 190.0)
    yield Part(sac, "canal", clipped=False)


def _ribs(body: Body, rng: np.random.Generator) -> Iterator[Part]:
    """Ribs 12 to 8, falling from the spine to the side, and the iliac wings."""
    for level, (start_z, end_deg, drop) in enumerate(
        (
            (74.0, 52.0, 42.0),
            (110.0, 96.0, 80.0),
            (146.0, 126.0, 112.0),
            (180.0, 140.0, 124.0),
            (214.0, 150.0, 132.0),
        )
    ):
        for sign in (-1.0, 1.0):
            angles = np.radians(np.arange(14.0, end_deg, 7.0))
            x, y = np.sin(angles) * sign, np.cos(angles)
            _, surface = body.frame_depth_mm(x, y)
            z = start_z - drop * (angles / angles[-1]) ** 0.9 + rng.normal(0.0, 2.0)
            reach = (surface - 6.0) * body.scale(z)
            path = tuple(zip((x * reach).tolist(), (y * reach).tolist(), z.tolist(), strict=True))
            radius = (4.0 if level == 0 else 4.8,) * len(path)
            yield Part(Tube(path, radius), "cortical", "marrow", 1.5, clipped=False)
    for sign in (-1.0, 1.0):
        rotation = rotation_of((sign * 0.45, 0.75, 0.15), (sign * 0.5, 0.0, 1.0))
        wing = Ellipsoid((sign * 92.0, body.spine_y_mm - 2.0, -165.0), (56.0, 58.0, 6.5), rotation)
        yield Part(wing, "cortical", "marrow", 1.8, clipped=False)


def _great_vessels(body: Body, rng: np.random.Generator) -> Iterator[Part]:
    x, y = body.aorta_mm
    radius = float(rng.uniform(8.5, 11.5))
    fork = -95.0
    aorta = [(x, y + 5.0, 170.0), (x, y, 20.0), (x - 2.0, y, fork)]
    yield Part(_tube(aorta, radius), "aorta", clipped=False)
    for sign in (-1.0, 1.0):
        branch = [(x - 2.0, y, fork), (x + sign * 34.0, y + 6.0, fork - 85.0)]
        yield Part(_tube(branch, 5.6), "aorta", clipped=False)
        vein = [(-18.0, y + 2.0, fork - 12.0), (-12.0 + sign * 36.0, y + 13.0, fork - 85.0)]
        yield Part(_tube(vein, 7.0), "vena_cava", clipped=False)
    flat = float(rng.uniform(1.5, 3.6))
    for shift in (-flat, flat):
        cava = [(-19.0 + shift, y - 2.0, 170.0), (-19.0 + shift, y + 1.0, fork - 12.0)]
        yield Part(_tube(cava, 12.0 - flat), "vena_cava", clipped=False)
    for _ in range(int(rng.integers(0, 9))):  # plaques in the wall of the aorta
        angle, z = rng.uniform(0.0, 2.0 * math.pi), rng.uniform(fork, 60.0)
        centre = (x + radius * math.cos(angle), y + radius * math.sin(angle), float(z))
        semi = (1.6, 1.6, float(rng.uniform(1.5, 5.0)))
        yield Part(Ellipsoid(centre, semi), "stone", clipped=False)


def _adrenal(kidney: Kidney) -> Iterator[Part]:
    top = np.asarray(_at(kidney, (1.0, -0.55, 0.0)))
    sign = 1.0 if kidney.side == "left" else -1.0
    crest = _vector(top + (-sign * 2.0, -12.0, 6.0))
    for foot in ((sign * 9.0, 8.0, 0.0), (-sign * 3.0, 10.0, -4.0)):
        yield Part(_tube([crest, _vector(top + foot)], 2.3), "adrenal")


def _at(kidney: Kidney, local: Vector) -> Vector:
    return _vector(kidney.hull.world(np.asarray([local]))[0])


def _tube(path: Sequence[Vector], radius: float) -> Tube:
    return Tube(tuple(path), (radius,) * len(path))


def _vector(values: np.ndarray) -> Vector:
    x, y, z = values.tolist()
    return x, y, z


def _resampled(route: Sequence[Vector], step_mm: float) -> list[Vector]:
    """Points along a smooth curve through the route, about step_mm apart."""
    points = np.asarray(route)
    lengths = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    wanted = np.linspace(0.0, lengths[-1], max(2, round(lengths[-1] / step_mm)))
    return [
        _vector(np.array([np.interp(w, lengths, points[:, axis]) for axis in range(3)]))
        for w in wanted
    ]
