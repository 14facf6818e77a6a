"""Whose abdomen does a simulated CT show, and how is it scanned?

A `CtCase` is a patient and an acquisition in plain numbers (`dataclasses.asdict` gives JSON);
`volume.render` turns it into pixels. Coordinates are LPS in mm with the origin in the middle of the
trunk at the level of the kidneys. Anchors: kidney semi-axes about 52/27/24 mm, slice spacing
0.5-5 mm (median 3), pixel spacing 0.66-1.04 mm at a matrix of 512 (field of view of at least
340 mm); tumours per case 1: 90 %, 2: 8 %, 3: 2 %; cysts 0: 49 %, 1: 17 %, 2: 13 %, more: 21 %.
For comparison, Glodny et al. (BMC Urology 9:19, 2009) measured kidneys 109 mm long with 15 mm of
parenchyma and 7 mm of cortex.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from renalkit.domain.volume import Phase
from renalkit.errors import ConfigError
from renalkit.phantom.ct.lesions import (
    Kidney,
    Lesion,
    LesionLabel,
    Side,
    draw_diameter,
    draw_lesion,
    place,
    place_touching,
)
from renalkit.phantom.ct.shapes import Ellipsoid, Points, Vector, random_rotation, rotation_of

LEAST_FIELD_MM = 340.0
HIGHEST_MM, LOWEST_MM = 150.0, -170.0
"""How far the simulated body reaches, relative to the kidneys."""

_SLICE_SPACINGS_MM = (0.5, 0.75, 1.0, 1.25, 2.0, 2.5, 3.0, 4.0, 5.0)
_SLICE_SHARES = (0.03, 0.03, 0.12, 0.07, 0.08, 0.12, 0.23, 0.06, 0.26)
_TUMOURS = (0.90, 0.08, 0.02)
_CYSTS = (0.49, 0.17, 0.13, 0.09, 0.05, 0.03, 0.02, 0.01, 0.01)
_MOST_LESIONS = 20


DistractorKind = Literal[
    "column",
    "extrarenal_pelvis",
    "splenule",
    "bowel_loop",
    "adrenal_nodule",
    "vessel",
    "liver_cyst",
    "stone",
]
DISTRACTORS: tuple[DistractorKind, ...] = get_args(DistractorKind)
KidneyPlan = Literal["drawn", "both", "left_only", "right_only", "horseshoe"]


@dataclass(frozen=True, slots=True)
class CtPlan:
    """What scans to draw; None leaves a number to the anchors.

    normal_share: scans without a mass. tumours, cysts: their number; a mass without room in either
    kidney is left out. tumour_mm, cyst_mm: range of a diameter drawn log-uniformly. aml_share: of
    the tumours. touching_share: chance that a further mass touches one in the same kidney.
    distractors: mean number of lesion-like findings.
    kidneys: "drawn" gives 1 % agenesis and 1 % horseshoe kidneys. phases: in order of time.
    matrix: rows = columns. slices: number; needs the spacing to cover kidneys and masses.
    field_mm: in-plane field of view. noise_hu: SD at 3 mm slices in the middle of the body.

    Raises:
        ConfigError: with every value that cannot be simulated.
    """

    normal_share: float = 0.1
    tumours: int | None = None
    cysts: int | None = None
    tumour_mm: tuple[float, float] | None = None
    cyst_mm: tuple[float, float] | None = None
    aml_share: float = 0.1
    touching_share: float = 0.15
    distractors: float = 1.5
    kidneys: KidneyPlan = "drawn"
    phases: tuple[Phase, ...] = (Phase.NEPHROGRAPHIC,)
    matrix: int = 512
    slices: int | None = None
    slice_spacing_mm: float | None = None
    field_mm: float | None = None
    noise_hu: float | None = None

    def __post_init__(self) -> None:
        checks = (
            ("normal_share", self.normal_share, 0.0, 1.0),
            ("tumours", self.tumours, 0, _MOST_LESIONS),
            ("cysts", self.cysts, 0, _MOST_LESIONS),
            ("aml_share", self.aml_share, 0.0, 0.94),
            ("touching_share", self.touching_share, 0.0, 1.0),
            ("distractors", self.distractors, 0.0, float(len(DISTRACTORS))),
            ("matrix", self.matrix, 64, 1024),
            ("slices", self.slices, 8, 1000),
            ("slice_spacing_mm", self.slice_spacing_mm, 0.4, 10.0),
            ("field_mm", self.field_mm, LEAST_FIELD_MM, 700.0),
            ("noise_hu", self.noise_hu, 0.0, 100.0),
        )
        problems = [
            f"{name} is {value}, expected {low:g} to {high:g}"
            for name, value, low, high in checks
            if value is not None and not low <= value <= high
        ]
        for name, sizes, low, high in (
            ("tumour_mm", self.tumour_mm, 3.0, 130.0),
            ("cyst_mm", self.cyst_mm, 2.0, 90.0),
        ):
            if sizes is not None and not low <= sizes[0] <= sizes[1] <= high:
                problems.append(f"{name} is {sizes}, expected (least, most) in {low:g}..{high:g}")
        if self.kidneys not in get_args(KidneyPlan):
            known = ", ".join(get_args(KidneyPlan))
            problems.append(f"kidneys is {self.kidneys!r}, expected one of {known}")
        if not self.phases or len(set(self.phases)) != len(self.phases):
            problems.append(f"phases is {self.phases}, expected one or more different phases")
        problems += [
            f"phases has {phase!r}, expected {', '.join(Phase)}"
            for phase in self.phases
            if phase not in tuple(Phase)
        ]
        if problems:
            raise ConfigError(problems, where="CtPlan")


@dataclass(frozen=True, slots=True)
class Body:
    """The trunk.

    frame_mm: semi-axes x, y of the muscle wall's outer surface. fat_mm: subcutaneous, in front, at
    the sides and behind. wall_mm: muscle wall. outline: cosine and sine amplitudes of waves 2, 3,
    5 around it, relative. taper: relative widening per 100 mm towards the head. spine_y_mm: centre
    of the vertebral bodies. oral_contrast: in the bowel. seed: of organs.
    """

    frame_mm: tuple[float, float]
    fat_mm: Vector
    wall_mm: float
    outline: tuple[float, ...]
    taper: float
    spine_y_mm: float
    oral_contrast: bool
    seed: int

    def scale(self, z_mm: Points | float) -> Points:
        """Size of the section at height z relative to z = 0."""
        return 1.0 + self.taper * np.asarray(z_mm) / 100.0

    def frame_depth_mm(
        self, x_mm: npt.NDArray[np.floating], y_mm: npt.NDArray[np.floating]
    ) -> tuple[Points, Points]:
        """Depth below the muscle wall's outer surface along the ray to the centre, and its radius.

        A superellipse of exponent 2.5 with waves on its outline; at z = 0.
        """
        a, b = self.frame_mm
        level = ((np.abs(x_mm) / a) ** 2.5 + (np.abs(y_mm) / b) ** 2.5) ** 0.4 + 1e-6
        distance = np.hypot(x_mm, y_mm)
        surface = distance / level
        angle = np.arctan2(y_mm, x_mm)
        wave = np.ones_like(surface)
        for index, order in enumerate((2, 3, 5)):
            cosine, sine = self.outline[2 * index : 2 * index + 2]
            wave += cosine * np.cos(order * angle) + sine * np.sin(order * angle)
        surface = surface * wave
        return surface - distance, surface

    def excess_mm(self, points_mm: Points) -> float:
        """How far points (N, 3) leave the room in front of the spine and inside the wall."""
        scale = self.scale(points_mm[:, 2])
        x = points_mm[:, 0] / scale
        y = self.spine_y_mm + (points_mm[:, 1] - self.spine_y_mm) / scale
        depth, _ = self.frame_depth_mm(x, y)
        spine = 28.0 - np.hypot(x, points_mm[:, 1] - self.spine_y_mm)
        behind = points_mm[:, 1] - self.spine_y_mm - 27.0
        aorta_x, aorta_y = self.aorta_mm
        vessels = [
            13.0 - np.hypot(x - at_x, points_mm[:, 1] - aorta_y) for at_x in (aorta_x, -18.0)
        ]
        ends = np.maximum(points_mm[:, 2] - HIGHEST_MM + 8.0, LOWEST_MM + 8.0 - points_mm[:, 2])
        return float(np.max([self.wall_mm + 2.0 - depth, spine, behind, ends, *vessels]))

    @property
    def perirenal_mm(self) -> float:
        """Thickness of the fat around the kidneys; the thicker the skin's, the thicker."""
        return float(np.clip(4.0 + 0.45 * self.fat_mm[1], 7.0, 15.0))

    @property
    def aorta_mm(self) -> tuple[float, float]:
        """Centre x, y of the aorta."""
        return 9.0, self.spine_y_mm - 30.0


@dataclass(frozen=True, slots=True)
class Distractor:
    """A finding that looks like a renal mass and is none.

    It has no label, but a column (of Bertin: cortex within the sinus) belongs to the kidney.
    """

    kind: DistractorKind
    side: Side
    body: Ellipsoid
    seed: int


@dataclass(frozen=True, slots=True)
class CtCase:
    """One patient and scan.

    isthmus_mm: path of the parenchymal bridge of a horseshoe kidney, else empty. contrast: factor
    on all enhancement. noise_hu: SD in the middle of the body. bias_hu: amplitude of the slow
    shading. shape: (Z, Y, X). spacing_mm: (z, y, x). origin_lps_mm: (x, y, z) of the centre of the
    first voxel; slices ascend towards the head, rows to the back, columns to the left.
    """

    seed: int
    body: Body
    kidneys: tuple[Kidney, ...]
    isthmus_mm: tuple[Vector, ...]
    lesions: tuple[Lesion, ...]
    distractors: tuple[Distractor, ...]
    phases: tuple[Phase, ...]
    contrast: float
    noise_hu: float
    bias_hu: float
    shape: tuple[int, int, int]
    spacing_mm: Vector
    origin_lps_mm: Vector


def draw_case(plan: CtPlan, seed: int) -> CtCase:
    """Draw a patient and a scan; the same plan and seed give the same case.

    Raises:
        ConfigError: slices x spacing do not cover the kidneys and masses.
    """
    streams = np.random.default_rng([seed, 0xC7]).spawn(6)
    body = draw_body(streams[0])
    kidneys, isthmus = _draw_kidneys(plan, body, streams[1])
    lesions = _draw_lesions(plan, body, kidneys, streams[2])
    distractors = _draw_distractors(plan, body, kidneys, lesions, streams[3])
    shape, spacing, origin = _draw_grid(plan, body, kidneys, lesions, streams[4])
    rng = streams[5]
    noise = float(rng.uniform(8.0, 15.0)) if plan.noise_hu is None else plan.noise_hu
    return CtCase(
        seed=seed,
        body=body,
        kidneys=kidneys,
        isthmus_mm=isthmus,
        lesions=lesions,
        distractors=distractors,
        phases=plan.phases,
        contrast=float(np.clip(rng.normal(1.0, 0.08), 0.8, 1.2)),
        # Fewer photons per slice: SD as the root of the thickness, kept from extremes by dose
        # control.
        noise_hu=noise * (3.0 / float(np.clip(spacing[0], 0.75, 5.0))) ** 0.4,
        bias_hu=float(rng.uniform(1.0, 4.0)),
        shape=shape,
        spacing_mm=spacing,
        origin_lps_mm=origin,
    )


def draw_body(rng: np.random.Generator) -> Body:
    """A trunk; every number follows from the generator."""
    width = float(np.clip(rng.normal(142.0, 8.0), 126.0, 160.0))
    depth = float(np.clip(0.69 * width + rng.normal(0.0, 3.0), 88.0, 112.0))
    fat = float(np.clip(math.exp(rng.normal(2.7, 0.4)), 7.0, 34.0))
    return Body(
        frame_mm=(width, depth),
        fat_mm=(fat * float(rng.uniform(0.8, 1.2)), 0.8 * fat, fat * float(rng.uniform(0.9, 1.4))),
        wall_mm=float(rng.uniform(11.0, 16.0)),
        taper=float(rng.normal(0.01, 0.025)),
        spine_y_mm=depth - float(rng.uniform(55.0, 60.0)),
        outline=tuple(float(value) for value in rng.normal(0.0, 0.012, 6)),
        oral_contrast=bool(rng.random() < 0.25),
        seed=int(rng.integers(0, 2**53)),
    )


def _draw_kidneys(
    plan: CtPlan, body: Body, rng: np.random.Generator
) -> tuple[tuple[Kidney, ...], tuple[Vector, ...]]:
    layout: str = plan.kidneys
    chance = rng.random()
    if layout == "drawn":
        layout = "both" if chance < 0.98 else "horseshoe" if chance < 0.99 else "left_only"
        if layout == "left_only" and rng.random() < 0.5:
            layout = "right_only"
    horseshoe = layout == "horseshoe"
    single = layout in ("left_only", "right_only")
    size = rng.normal(1.0, 0.05)
    kidneys: list[Kidney] = []
    sides: tuple[tuple[Side, float], ...] = (("right", -1.0), ("left", 1.0))
    for side, sign in sides:
        drawn = _draw_kidney(side, sign, body, horseshoe, size * (1.14 if single else 1.0), rng)
        if layout != {"right": "left_only", "left": "right_only"}[side]:
            kidneys.append(drawn)
    if not horseshoe:
        return tuple(kidneys), ()
    # The bridge of the lower poles passes in front of the aorta and the vena cava.
    poles = [k.hull.world(np.array([[-0.86, -0.05, 0.0]]))[0] for k in kidneys]
    front = np.array([0.0, body.aorta_mm[1] - 25.0, (poles[0][2] + poles[1][2]) / 2 - 4.0])
    t = np.linspace(0.0, 1.0, 9)[:, None]
    control = 2.0 * front - (poles[0] + poles[1]) / 2
    path = (1 - t) ** 2 * poles[0] + 2 * t * (1 - t) * control + t**2 * poles[1]
    return tuple(kidneys), tuple((float(x), float(y), float(z)) for x, y, z in path)


def _draw_kidney(
    side: Side,
    sign: float,
    body: Body,
    horseshoe: bool,
    size: float,
    rng: np.random.Generator,
) -> Kidney:
    a, b, c = (np.array([52.0, 27.0, 24.0]) * size * np.exp(rng.normal(0.0, 0.04, 3))).tolist()
    x = sign * float(rng.normal(63.0, 3.0) + 0.25 * (body.frame_mm[0] - 142.0))
    y = body.spine_y_mm - float(rng.uniform(2.0, 10.0))
    z = float(rng.normal(-7.0 if side == "right" else 5.0, 6.0))
    # Upper poles medial and posterior; in a horseshoe kidney the lower poles converge in front.
    medial, back = float(rng.normal(0.20, 0.06)), float(rng.normal(0.20, 0.08))
    turn = math.radians(float(rng.normal(32.0, 7.0)))
    if horseshoe:
        x, y, z = 0.80 * x, y - 6.0, z - 22.0
        medial, back, turn = -0.42, 0.34, math.radians(62.0)
    # The hilum faces the midline and a little to the front.
    rotation = rotation_of(
        (-sign * medial, back, 1.0), (sign * math.cos(turn), math.sin(turn), 0.0)
    )
    return Kidney(
        side=side,
        hull=Ellipsoid((x, y, z), (a, b, c), rotation),
        bend=float(rng.uniform(0.18, 0.34)),
        lip=float(rng.uniform(0.15, 0.35)),
        sinus=float(rng.uniform(0.85, 1.15)),
        pyramids=int(rng.integers(12, 18)),
        seed=int(rng.integers(0, 2**53)),
    )


def _draw_lesions(
    plan: CtPlan, body: Body, kidneys: Sequence[Kidney], rng: np.random.Generator
) -> tuple[Lesion, ...]:
    normal = rng.random() < plan.normal_share
    drawn = (
        1 + int(rng.choice(len(_TUMOURS), p=_TUMOURS)),
        int(rng.choice(len(_CYSTS), p=_CYSTS)),
    )
    labels: list[tuple[LesionLabel, float]] = []
    wanted: tuple[tuple[LesionLabel, int | None, int, tuple[float, float] | None], ...] = (
        ("tumour", plan.tumours, drawn[0], plan.tumour_mm),
        ("cyst", plan.cysts, drawn[1], plan.cyst_mm),
    )
    for label, asked, count, sizes in wanted:
        for _ in range((0 if normal else count) if asked is None else asked):
            diameter = draw_diameter(label, rng)
            if sizes is not None:
                diameter = math.exp(rng.uniform(math.log(sizes[0]), math.log(sizes[1])))
            labels.append((label, diameter))
    labels.sort(key=lambda one: -one[1])  # room is found for the largest first
    placed: list[Lesion] = []
    for label, diameter in labels:
        lesion = draw_lesion(len(placed) + 1, label, diameter, plan.aml_share, rng)
        touch = rng.random() < plan.touching_share
        best: tuple[float, Lesion] | None = None
        for index in rng.permutation(len(kidneys)):
            kidney = kidneys[int(index)]
            here = [one for one in placed if one.side == kidney.side]
            found = None
            if here and touch:
                first = int(rng.integers(len(here)))
                partners = [here[first], *(one for one in placed if one is not here[first])]
                found = place_touching(lesion, kidney, partners, body.excess_mm, rng)
            if found is None:
                found = place(lesion, kidney, placed, body.excess_mm, rng)
            if found is None:
                continue
            excess = body.excess_mm(found.surface())
            if best is None or excess < best[0]:
                best = (excess, found)
            if excess <= 0.0:
                break
        if best is not None:
            placed.append(best[1])
    return tuple(placed)


def _draw_distractors(
    plan: CtPlan,
    body: Body,
    kidneys: Sequence[Kidney],
    lesions: Sequence[Lesion],
    rng: np.random.Generator,
) -> tuple[Distractor, ...]:
    chance = plan.distractors / len(DISTRACTORS)
    found: list[Distractor] = []
    for kind in DISTRACTORS:
        if rng.random() >= chance:
            continue
        for _ in range(12):
            kidney = kidneys[int(rng.integers(len(kidneys)))]
            drawn = _draw_distractor(kind, body, kidney, rng)
            if drawn is None:
                continue
            centre = np.asarray([drawn.body.centre_mm])
            reach = max(drawn.body.semi_axes_mm)
            clear = all(float(one.depth_mm(centre)[0]) < -reach - 2.0 for one in lesions)
            apart = all(
                math.dist(drawn.body.centre_mm, one.body.centre_mm)
                > reach + max(one.body.semi_axes_mm)
                for one in found
            )
            if clear and apart:
                found.append(drawn)
                break
    return tuple(found)


def _draw_distractor(
    kind: DistractorKind, body: Body, kidney: Kidney, rng: np.random.Generator
) -> Distractor | None:
    """One try; None where the kind does not belong."""
    side = 1.0 if kidney.side == "left" else -1.0
    if (kind == "splenule" and side < 0) or (kind == "liver_cyst" and side > 0):
        return None
    least, most = {
        "column": (6.0, 10.0),
        "extrarenal_pelvis": (8.0, 14.0),
        "splenule": (4.0, 8.0),
        "bowel_loop": (9.0, 14.0),
        "adrenal_nodule": (5.0, 13.0),
        "vessel": (5.0, 9.0),
        "liver_cyst": (4.0, 15.0),
        "stone": (1.5, 4.0),
    }[kind]
    semi = rng.uniform(least, most) * np.exp(rng.normal(0.0, 0.12, 3))
    if kind == "extrarenal_pelvis":
        local = np.array([rng.uniform(-0.25, 0.15), -1.05, 0.0])
    elif kind == "column":
        local = np.array([rng.choice((-0.3, 0.3)), rng.uniform(-0.35, -0.1), 0.0])
    elif kind == "vessel":
        local = np.array([rng.uniform(-0.1, 0.3), -1.45, 0.0])
    elif kind == "stone":
        local = np.array([rng.uniform(-0.4, 0.4), -0.3, rng.uniform(-0.15, 0.15)])
    elif kind == "adrenal_nodule":
        local = np.array([1.12, -0.55, 0.0])
    else:
        local = np.zeros(3)
    centre = kidney.hull.world(local[None])[0]
    if kind in ("splenule", "bowel_loop"):
        front = np.array([side * rng.uniform(-0.2, 0.9), -1.0, rng.uniform(-0.6, 0.6)])
        front /= np.linalg.norm(front)
        local = (front * 50.0) @ np.asarray(kidney.hull.rotation).T / kidney.hull.semi_axes_mm
        start, normal = kidney.surface((local / np.linalg.norm(local))[None])
        centre = start[0] + normal[0] * (semi.max() + 3.0)
    elif kind == "liver_cyst":
        centre = np.array([rng.uniform(-112.0, -85.0), rng.uniform(-40.0, 5.0), rng.uniform(0, 50)])
    x, y, z = centre.tolist()
    a, b, c = semi.tolist()
    shape = Ellipsoid((x, y, z), (a, b, c), random_rotation(rng))
    outside = float(kidney.radius(centre[None])[0]) > 1.0
    if kind in ("splenule", "bowel_loop", "vessel", "adrenal_nodule") and not outside:
        return None
    if body.excess_mm(centre[None]) > 0.0:
        return None
    return Distractor(kind, kidney.side, shape, int(rng.integers(0, 2**53)))


def _draw_grid(
    plan: CtPlan,
    body: Body,
    kidneys: Sequence[Kidney],
    lesions: Sequence[Lesion],
    rng: np.random.Generator,
) -> tuple[tuple[int, int, int], Vector, Vector]:
    drawn_spacing = float(rng.choice(_SLICE_SPACINGS_MM, p=_SLICE_SHARES))
    above, below, roomy, shift_x, shift_y = (
        rng.uniform(20.0, 80.0),
        rng.uniform(20.0, 90.0),
        rng.uniform(1.02, 1.22),
        *rng.uniform(-6.0, 6.0, 2),
    )
    tops = [k.hull.centre_mm[2] + k.hull.half_extent_mm[2] for k in kidneys]
    bottoms = [k.hull.centre_mm[2] - k.hull.half_extent_mm[2] for k in kidneys]
    tops += [float(one.surface()[:, 2].max()) for one in lesions]
    bottoms += [float(one.surface()[:, 2].min()) for one in lesions]
    top, bottom = max(tops) + 4.0, min(bottoms) - 4.0
    high = min(top + above, HIGHEST_MM)
    low = max(bottom - below, LOWEST_MM)
    spacing = drawn_spacing if plan.slice_spacing_mm is None else plan.slice_spacing_mm
    count = math.ceil((high - low) / spacing)
    if plan.slices is not None:
        count = plan.slices
        if plan.slice_spacing_mm is None:
            spacing = min(5.0, max(0.5, (high - low) / count))
        extent = count * spacing
        if extent < top - bottom or extent > HIGHEST_MM - LOWEST_MM:
            raise ConfigError(
                [
                    f"{count} slices of {spacing:g} mm are {extent:.0f} mm, expected "
                    f"{top - bottom:.0f} (kidneys and masses) to {HIGHEST_MM - LOWEST_MM:.0f} mm "
                    "(the simulated body)"
                ],
                where="CtPlan",
            )
        middle = float(np.clip((high + low) / 2, top - extent / 2, bottom + extent / 2))
        middle = float(np.clip(middle, LOWEST_MM + extent / 2, HIGHEST_MM - extent / 2))
        low = middle - extent / 2
    width = 2 * (body.frame_mm[0] + body.fat_mm[1]) + 6.0
    field = float(np.clip(width * roomy, LEAST_FIELD_MM, 532.0))
    if plan.field_mm is not None:
        field = plan.field_mm
    step = field / plan.matrix
    # The patient does not lie exactly in the middle; nothing is cut off for that.
    spare = max(0.0, (field - width) / 2)
    x = float(np.clip(shift_x, -spare, spare)) - (field - step) / 2
    y = float(shift_y) - (field - step) / 2 + 12.0
    shape = (count, plan.matrix, plan.matrix)
    return shape, (spacing, step, step), (x, y, low + spacing / 2)
