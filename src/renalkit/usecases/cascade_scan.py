"""What do the three stages of a CT cascade say of one scan, whatever computes its networks?

Everything is written on the scan's own grid. Shape legend: (Z,Y,X) that grid, (K,J,I) an upright
grid a network works on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage, special

from renalkit.domain.prediction import SystemRef
from renalkit.domain.sample import SampleKey
from renalkit.domain.scan import BoxMm, FoundLesion, FoundScan, LabelArray
from renalkit.domain.volume import AIR_HU, Volume, VolumeGrid
from renalkit.metrics.volume_lesions import connected_instances, numbered_only
from renalkit.runtime.sliding import Score, SlideOptions, plan_tiles, slide, whole
from renalkit.systems.ct_cascade import (
    HALF,
    CascadeParams,
    KidneyParams,
    LesionParams,
    MassParams,
    at_least,
    box_of,
    drawn,
    index_box,
    joined,
    lesion_cube,
    lesion_image,
    named,
    part_box,
    search_boxes,
    widened,
    windowed,
)
from renalkit.transforms.volumes import cut, nearest, resampled, working_grid

Floats = npt.NDArray[np.float32]
Classify = Callable[[Floats], npt.NDArray[Any]]
"""Cubes (b,c,s,s,s) -> logits (b,k)."""


@dataclass(frozen=True, slots=True)
class Stages:
    """The networks of a cascade, ready to score. name: None where no class is asked for."""

    kidney: Score = field(repr=False)
    mass: tuple[Score, ...] = field(repr=False)
    name: Classify | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Spoken:
    """Who speaks of whom: the scan's place in its cohort, the system, its fold, its classes."""

    key: SampleKey
    system: SystemRef
    fold: int | None
    classes: tuple[str, ...]


def mean_mask(networks: Sequence[Score]) -> Score:
    """Networks that draw masks as one, by their mean probability; one stays as it is."""
    if len(networks) == 1:
        return networks[0]

    def score(image: Floats) -> Floats:
        said = [special.expit(network(image).astype(np.float64)) for network in networks]
        return special.logit(np.clip(np.mean(said, axis=0), _LEAST, 1 - _LEAST)).astype(np.float32)

    return score


def mean_name(networks: Sequence[Classify]) -> Classify:
    """Networks that name masses as one, by their mean probability; one stays as it is."""
    if len(networks) == 1:
        return networks[0]

    def score(cubes: Floats) -> npt.NDArray[np.float64]:
        said = [special.softmax(network(cubes).astype(np.float64), axis=1) for network in networks]
        return np.log(np.clip(np.mean(said, axis=0), _LEAST, 1))

    return score


_LEAST = 1e-12
"""Probabilities are kept so far from 0 and 1 that their logits are finite."""


def find_masses(volume: Volume, stages: Stages, params: CascadeParams, spoken: Spoken) -> FoundScan:
    """Kidneys, masses and their classes on a scan.

    Raises:
        ModelRefused: results of a network that are not finite.
    """
    boxes = kidney_boxes(volume, stages.kidney, params.kidney)
    found = searched(volume, boxes, stages.mass, params.mass)
    canvas = _Canvas.on(volume.grid)
    for box, inside in found.items():
        canvas.draw(box, inside, params.mass)
    return canvas.named(volume, stages.name, params, spoken, tuple(found))


def coarse(volume: Volume, params: KidneyParams) -> tuple[npt.NDArray[np.int16], VolumeGrid]:
    """The whole scan as stage 1 sees it, (K,J,I) HU, and its grid."""
    grid = coarse_grid(volume.grid, params)
    return on_grid(volume, grid), grid


def coarse_grid(scan: VolumeGrid, params: KidneyParams) -> VolumeGrid:
    """The grid stage 1 sees a scan on."""
    step = params.spacing_mm
    return working_grid(scan, (step, step, step))


def on_grid(volume: Volume, grid: VolumeGrid) -> npt.NDArray[np.int16]:
    """HU of a scan on another grid; air beyond it. Only what lies there is read."""
    margin = 2 * (max(grid.spacing_mm) + max(volume.grid.spacing_mm))
    corners = grid.corners_mm
    low, high = corners.min(axis=0) - margin, corners.max(axis=0) + margin
    planes, rows, cols = index_box(volume.grid, box_of(low, high))
    hu = [np.asarray(volume.pixels[z])[rows, cols] for z in range(planes.start, planes.stop)]
    source = cut(volume.grid, (planes, rows, cols))
    slices = resampled(np.stack(hu), source, grid, fill=AIR_HU)
    return np.stack([np.rint(plane).astype(np.int16) for plane in slices])


def kidney_boxes(volume: Volume, score: Score, params: KidneyParams) -> tuple[BoxMm, ...]:
    """Where masses are looked for; none where no kidney is found."""
    return boxes_on(volume.grid, coarse(volume, params)[0], score, params)


def boxes_on(
    scan: VolumeGrid, hu: npt.NDArray[np.int16], score: Score, params: KidneyParams
) -> tuple[BoxMm, ...]:
    """The same from what `coarse` made of the scan."""
    found = kidney_probability(hu, score, params)
    return search_boxes(found, coarse_grid(scan, params), scan, params)


def kidney_probability(
    hu: npt.NDArray[np.int16], score: Score, params: KidneyParams
) -> npt.NDArray[np.float64]:
    """(K,J,I) of kidney or mass, from the whole coarse scan (K,J,I) at once."""
    logits = score(kidney_image(hu, params))[0, 0]
    return special.expit(logits[tuple(slice(n) for n in hu.shape)].astype(np.float64))


def kidney_image(hu: npt.NDArray[np.int16], params: KidneyParams) -> Floats:
    """The coarse scan (K,J,I) as stage 1 is given it: (1,1,k,j,i), with air up to the
    next multiple of what it halves to."""
    deep = 2 ** (len(params.channels) - 1)
    ends = [(0, -n % deep) for n in hu.shape]
    return np.pad(windowed(hu), ends, constant_values=-1.0)[None, None]


@dataclass(frozen=True, slots=True, eq=False)
class InBox:
    """What stage 2 says in one box: see `mass_probability`. work: the grid of its arrays."""

    work: VolumeGrid
    mean: npt.NDArray[Any]
    votes: npt.NDArray[np.uint8]
    members: int

    def inside(self, params: MassParams) -> npt.NDArray[np.bool_]:
        """(K,J,I) where it draws kidney or mass."""
        kidney, mass = self.mean
        return np.asarray((kidney >= HALF) | (mass >= params.threshold))

    @classmethod
    def of(cls, volume: Volume, box: BoxMm, members: Sequence[Score], params: MassParams) -> InBox:
        """Stage 2 in one box of a scan; what coarse members say is brought to the finer grid."""
        work = working_grid(volume.grid, params.spacing_mm, box)
        mean = np.zeros((2, *work.shape), np.float32)
        votes = np.zeros(work.shape, np.uint8)
        alike: dict[tuple[float, float, float], list[Score]] = {}
        for number, member in enumerate(members):
            alike.setdefault(params.spacing_of(number), []).append(member)
        for spacing, some in alike.items():
            wide = at_least(box, params.patch, spacing, volume.grid)
            grid = working_grid(volume.grid, spacing, wide)
            theirs, said = mass_probability(on_grid(volume, grid), some, params)
            share = np.float32(len(some) / len(members))
            for channel, probability in zip(mean, theirs, strict=True):
                for plane, values in zip(channel, resampled(probability, grid, work), strict=True):
                    plane += share * values
            for plane, count in zip(votes, nearest(said, grid, work), strict=True):
                plane += count
        return cls(work, mean, votes, len(members))


def searched(
    volume: Volume, boxes: tuple[BoxMm, ...], members: Sequence[Score], params: MassParams
) -> dict[BoxMm, InBox]:
    """Stage 2 in every box, which is at least a patch. Stage 1 cuts large masses off, so a box is
    widened where kidney or mass reaches its face, until none does or `widen_turns` are over; boxes
    that meet are joined."""
    found: dict[BoxMm, InBox] = {}
    boxes = joined([at_least(b, params.patch, params.spacing_mm, volume.grid) for b in boxes])
    for turn in range(params.widen_turns + 1):
        found = {b: found.get(b) or InBox.of(volume, b, members, params) for b in boxes}
        if params.widen_mm == 0 or turn == params.widen_turns:
            break
        wider = joined(
            [
                widened(b, f.inside(params), f.work, volume.grid, params.widen_mm)
                for b, f in found.items()
            ]
        )
        if wider == boxes:
            break
        boxes = wider
    return found


def mass_probability(
    hu: npt.NDArray[np.int16], members: Sequence[Score], params: MassParams
) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint8]]:
    """(2,K,J,I) mean probability of kidney-or-mass and of mass, and (K,J,I) how many members say
    mass, on a box (K,J,I) HU."""
    size = hu.shape[0], hu.shape[1], hu.shape[2]
    plan = plan_tiles(
        size, ((params.patch[0],), (params.patch[1],), (params.patch[2],)), params.overlap
    )
    slabs = slide(windowed(hu)[None], members, plan, 2, SlideOptions(votes=True))
    mean, votes = whole(slabs, size[0])
    assert votes is not None
    return mean, votes[1]


@dataclass(frozen=True, slots=True)
class _Canvas:
    """What is drawn so far, (Z,Y,X). mass: mean probability. any, every: whether any and whether
    every member says mass."""

    grid: VolumeGrid
    labels: LabelArray
    mass: npt.NDArray[np.float16]
    any: npt.NDArray[np.bool_]
    every: npt.NDArray[np.bool_]

    @classmethod
    def on(cls, grid: VolumeGrid) -> _Canvas:
        flags = (np.zeros(grid.shape, np.bool_) for _ in range(2))
        return cls(grid, np.zeros(grid.shape, np.uint8), np.zeros(grid.shape, np.float16), *flags)

    def draw(self, box: BoxMm, inside: InBox, params: MassParams) -> None:
        """What stage 2 says in one box."""
        place = index_box(self.grid, box)
        here = cut(self.grid, place)
        kidney, mass = (np.stack(list(resampled(p, inside.work, here))) for p in inside.mean)
        self.labels[place] = drawn(kidney, mass, params, self.grid.voxel_mm3)
        self.mass[place] = mass
        said = np.stack(list(nearest(inside.votes, inside.work, here)))
        self.any[place] = said > 0
        self.every[place] = said == inside.members

    def named(
        self,
        volume: Volume,
        name: Classify | None,
        params: CascadeParams,
        spoken: Spoken,
        boxes: tuple[BoxMm, ...],
    ) -> FoundScan:
        """Masses numbered, the largest first, each with its scores."""
        instances, _ = connected_instances(self.labels, self.grid.voxel_mm3)
        labels = numbered_only(self.labels, instances)
        lesions: list[FoundLesion] = []
        for number, part in enumerate(ndimage.find_objects(instances), start=1):
            inside = instances[part] == number
            scores = None
            if name is not None:
                scores = lesion_scores(volume, part, inside, name, params.lesion)
            some = int((self.any[part] & inside).sum())
            agreed = int((self.every[part] & inside).sum()) / some if some else 0.0
            confidence = float(self.mass[part][inside].astype(np.float64).mean())
            lesions.append(FoundLesion(number, scores, min(confidence, 1.0), agreed))
        classes = {
            v.number: spoken.classes[int(np.argmax(v.scores))]
            for v in lesions
            if v.scores is not None
        }
        return FoundScan(
            key=spoken.key,
            grid=self.grid,
            labels=named(labels, instances, classes, params.lesion),
            instances=instances,
            lesions=tuple(lesions),
            system=spoken.system,
            fold=spoken.fold,
            boxes_mm=boxes,
        )


def lesion_scores(
    volume: Volume,
    part: tuple[slice, ...],
    inside: npt.NDArray[np.bool_],
    name: Classify,
    params: LesionParams,
) -> tuple[float, ...]:
    """Probability of each class for the mass whose voxels in a part of the scan's array are
    `inside`."""
    cube = lesion_cube(part_box(volume.grid, part), params)
    mask = np.stack(list(nearest(inside, cut(volume.grid, (part[0], part[1], part[2])), cube)))
    logits = np.asarray(name(lesion_image(on_grid(volume, cube), mask, params))[0], np.float64)
    return tuple(float(p) for p in special.softmax(logits))
