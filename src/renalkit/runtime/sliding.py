"""How does a network that was trained on patches judge a whole volume, in bounded memory?

    plan = plan_tiles(image.shape[1:], ((64,), (96,), (96,)))
    for slab in slide(image, [mask_scorer(engine)], plan, outputs=2):
        labels[slab.z] = slab.mean[1] > 0.5

Tiles of a size the network was trained on cover the volume, overlapping evenly. Each gives logits,
each logit a probability, and where tiles overlap the probabilities are averaged, each weighted by a
Gaussian about the middle of its tile: near its border a tile knows less. Slices that no later tile
reaches are handed out at once, so what is held does not grow with the number of slices.

Tiles and blending are those of MONAI's SlidingWindowInferer (mode 'gaussian', padding 'constant'),
but for the distances between tiles: these are even here, and the last tile of MONAI overlaps more.

Shape legend: (c,Z,Y,X) the volume, (b,c,z,y,x) a batch of tiles, k results of the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations, islice, product
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from renalkit.errors import InputRefused, ModelRefused, Reason
from renalkit.runtime.engines import Engine

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Size = tuple[int, int, int]

Score = Callable[[Floats], Floats]
"""Tiles (b,c,z,y,x) -> logits (b,k,z,y,x): an engine, or torch, or anything else."""

OVERLAP = 0.25
"""Least share of a tile that its neighbour covers too, along each axis."""
SIGMA = 0.125
"""Standard deviation of the weights, as a share of the tile's length."""
LEAST_WEIGHT = 1e-3
"""Corners would weigh some 1e-11 of the middle; below this, weights are raised to it."""
AIR = -1.0
"""Beyond the volume, where a tile is longer: air, in the units networks take."""


# ---- the plan -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AxisTiles:
    """Where tiles lie along one axis. starts: first voxel of each; below 0 where the axis is
    shorter than a tile, which then lies about it."""

    length: int
    tile: int
    starts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TilePlan:
    """Tiles over a volume: all combinations of the places along z, y and x."""

    axes: tuple[AxisTiles, AxisTiles, AxisTiles]

    @property
    def shape(self) -> Size:
        """Of the volume."""
        z, y, x = self.axes
        return z.length, y.length, x.length

    @property
    def tile(self) -> Size:
        z, y, x = self.axes
        return z.tile, y.tile, x.tile

    @property
    def count(self) -> int:
        """Tiles."""
        return prod(len(axis.starts) for axis in self.axes)


def plan_axis(length: int, sizes: Sequence[int], overlap: float = OVERLAP) -> AxisTiles:
    """As few tiles as overlap enough, evenly spaced, the first and last flush with the border.

    sizes: lengths a tile may have; that which computes the fewest voxels is taken, of equals the
    longest. An axis shorter than that lies in the middle of one tile.

    Raises:
        ValueError: no voxels, no size, or an overlap outside [0, 1).

    >>> plan_axis(100, [64], 0.25)
    AxisTiles(length=100, tile=64, starts=(0, 36))
    >>> plan_axis(100, [48, 60, 64], 0.25).tile  # 2 x 60 voxels, not 2 x 64 or 3 x 48
    60
    >>> plan_axis(10, [16]).starts
    (-3,)
    """
    if length < 1 or not sizes or min(sizes) < 1 or not 0 <= overlap < 1:
        raise ValueError(f"no tiles of {list(sizes)} over {length} voxels, overlap {overlap}")
    return min(
        (_axis(length, size, overlap) for size in sizes),
        key=lambda axis: (len(axis.starts) * axis.tile, -axis.tile),
    )


def _axis(length: int, tile: int, overlap: float) -> AxisTiles:
    free = length - tile
    if free <= 0:
        return AxisTiles(length, tile, (-(-free // 2),))
    furthest = max(1, int(tile * (1 - overlap) + 1e-9))
    steps = -(-free // furthest)
    # To the nearest voxel; steps of `free / steps` at most `furthest` stay so when rounded.
    return AxisTiles(
        length, tile, tuple((2 * i * free + steps) // (2 * steps) for i in range(steps + 1))
    )


def plan_tiles(
    shape: Size, sizes: tuple[Sequence[int], Sequence[int], Sequence[int]], overlap: float = OVERLAP
) -> TilePlan:
    """`plan_axis` along z, y and x. Raises ValueError as it does."""
    z, y, x = (plan_axis(n, allowed, overlap) for n, allowed in zip(shape, sizes, strict=True))
    return TilePlan((z, y, x))


def gaussian(tile: Size) -> Floats:
    """(z,y,x) weights of a tile's voxels, 1 in the middle; see SIGMA and LEAST_WEIGHT."""
    weights = np.ones(())
    for n in tile:
        away = np.arange(n) - (n - 1) / 2
        weights = np.multiply.outer(weights, np.exp(-0.5 * (away / (SIGMA * n)) ** 2))
    return np.maximum(weights, max(float(weights.min()), LEAST_WEIGHT)).astype(np.float32)


# ---- the window ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SlideOptions:
    """batch: tiles computed at once. fill: value beyond the volume. mirror: axes (0 z, 1 y, 2 x)
    along which tiles are turned round too, all combinations averaged; each doubles the work, and a
    network that tells left from right is wrong with axis 2. votes: count members as well, which
    holds the sums of each. half: probabilities as float16, right to 0.0005."""

    batch: int = 1
    fill: float = AIR
    mirror: tuple[int, ...] = ()
    votes: bool = False
    half: bool = False

    def __post_init__(self) -> None:
        axes = set(self.mirror)
        if self.batch < 1 or not axes <= {0, 1, 2} or len(axes) < len(self.mirror):
            raise ValueError(f"batch {self.batch}, mirror {self.mirror}")


PLAIN = SlideOptions()


@dataclass(frozen=True, slots=True)
class Slab:
    """Finished slices. mean: (k,n,Y,X) float32 or float16, mean probability of the members; 0
    where nothing was computed. votes: (k,n,Y,X) how many members are above 0.5."""

    z: slice
    mean: npt.NDArray[Any] = field(repr=False)
    votes: npt.NDArray[np.uint8] | None = field(repr=False)


def slide(
    image: npt.NDArray[Any],
    members: Sequence[Score],
    plan: TilePlan,
    outputs: int,
    options: SlideOptions = PLAIN,
    where: Bools | None = None,
) -> Iterator[Slab]:
    """Probabilities of a volume slab by slab, in the order of its slices.

    Args:
        image: (c,Z,Y,X) of any numbers; each tile is made float32.
        members: networks of an ensemble, or one; each sees every tile.
        plan: of the same (Z,Y,X).
        outputs: k of every member.
        where: (Z,Y,X); tiles without a voxel of it are not computed. Inside it nothing changes;
            outside, probabilities may come of fewer tiles, or be 0.

    Raises:
        ValueError: shapes that do not fit the plan, or no or over 255 members.
        InputRefused: NON_FINITE, NaN or infinite values in the image.
        ModelRefused: logits of another shape, or NaN or infinite.
    """
    if image.ndim != 4 or image.shape[1:] != plan.shape:
        raise ValueError(f"image {image.shape}, expected (c, {', '.join(map(str, plan.shape))})")
    if where is not None and where.shape != plan.shape:
        raise ValueError(f"where {where.shape} over {plan.shape}")
    if not 1 <= len(members) <= 255 or outputs < 1:
        raise ValueError(f"{len(members)} members with {outputs} outputs")
    return _slabs(image, members, plan, outputs, options, where)


def whole(
    slabs: Iterable[Slab], depth: int
) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint8] | None]:
    """All slabs of a volume of so many slices as one: mean (k,Z,Y,X), and votes where counted."""
    mean: npt.NDArray[Any] | None = None
    votes: npt.NDArray[np.uint8] | None = None
    for slab in slabs:
        shape = (slab.mean.shape[0], depth, *slab.mean.shape[2:])
        if mean is None:
            mean = np.empty(shape, slab.mean.dtype)
            votes = None if slab.votes is None else np.empty(shape, np.uint8)
        mean[:, slab.z] = slab.mean
        if votes is not None and slab.votes is not None:
            votes[:, slab.z] = slab.votes
    if mean is None:
        raise ValueError("no slabs")
    return mean, votes


def mask_scorer(engine: Engine) -> Score:
    """An exported network's mask logits as a scoring function.

    Raises:
        ModelRefused: a network that takes more than an image, or gives no mask.
    """
    if engine.inputs != ("image",) or "mask_logits" not in engine.outputs:
        raise ModelRefused(
            f"takes {', '.join(engine.inputs)}, gives {', '.join(engine.outputs)}",
            where="network",
            expected="image in, mask_logits out",
            remedy="use a network that draws masks",
        )
    return lambda tiles: engine.run({"image": tiles})["mask_logits"]


Box = tuple[slice, slice, slice]


@dataclass(frozen=True, slots=True)
class _Tile:
    """inside: its voxels in the volume. part: the same voxels in the tile."""

    inside: Box
    part: Box


def _tile(at: tuple[int, ...], plan: TilePlan) -> _Tile:
    inside: list[slice] = []
    part: list[slice] = []
    for start, axis in zip(at, plan.axes, strict=True):
        low, high = max(start, 0), min(start + axis.tile, axis.length)
        inside.append(slice(low, high))
        part.append(slice(low - start, high - start))
    return _Tile((inside[0], inside[1], inside[2]), (part[0], part[1], part[2]))


def _slabs(
    image: npt.NDArray[Any],
    members: Sequence[Score],
    plan: TilePlan,
    outputs: int,
    options: SlideOptions,
    where: Bools | None,
) -> Iterator[Slab]:
    weights = gaussian(plan.tile)
    z_axis, y_axis, x_axis = plan.axes
    open_slices = (min(z_axis.tile, z_axis.length), y_axis.length, x_axis.length)
    # The mean of members can be summed at once; votes need the blend of each.
    sums = np.zeros((len(members) if options.votes else 1, outputs, *open_slices), np.float32)
    total = np.zeros(open_slices, np.float32)
    for row, start in enumerate(z_axis.starts):
        first = max(start, 0)
        last = z_axis.starts[row + 1] if row + 1 < len(z_axis.starts) else z_axis.length
        tiles = (_tile((start, y, x), plan) for y, x in product(y_axis.starts, x_axis.starts))
        wanted = (t for t in tiles if where is None or where[t.inside].any())
        while group := list(islice(wanted, options.batch)):
            given = np.stack([_read(image, tile, plan.tile, options.fill) for tile in group])
            for tile in group:
                total[_held(tile, first)] += weights[tile.part]
            for number, member in enumerate(members):
                found = _probabilities(member, given, outputs, options.mirror)
                found *= weights
                into = sums[number if options.votes else 0]
                for tile, values in zip(group, found, strict=True):
                    into[:, *_held(tile, first)] += values[:, *tile.part]
        done = last - first
        yield _finished(slice(first, last), sums[:, :, :done], total[:done], len(members), options)
        for array in (*sums.reshape(-1, *open_slices), total):
            for k in range(len(array)):
                array[k] = array[k + done] if k + done < len(array) else 0


def _held(tile: _Tile, first: int) -> Box:
    """Where its voxels lie in the slices that are held, the first of them being `first`."""
    z, y, x = tile.inside
    return slice(z.start - first, z.stop - first), y, x


def _read(image: npt.NDArray[Any], tile: _Tile, size: Size, fill: float) -> Floats:
    """(c,z,y,x)"""
    out = np.full((len(image), *size), fill, np.float32)
    out[:, *tile.part] = image[:, *tile.inside]
    if not np.isfinite(out).all():
        z, y, x = tile.inside
        raise InputRefused(
            Reason.NON_FINITE,
            f"NaN or infinite values in slices {z.start} to {z.stop - 1}, rows {y.start} to "
            f"{y.stop - 1}, columns {x.start} to {x.stop - 1}",
            where="volume",
            expected="finite voxels",
        )
    return out


def _probabilities(member: Score, tiles: Floats, outputs: int, mirror: tuple[int, ...]) -> Floats:
    """(b,k,z,y,x) mean over the tiles as they are and turned round; an array of its own."""
    turns = [axes for n in range(len(mirror) + 1) for axes in combinations(mirror, n)]
    expected = (len(tiles), outputs, *tiles.shape[2:])
    out = np.zeros(expected, np.float32)
    for axes in turns:
        turned = tuple(2 + axis for axis in axes)
        logits = member(np.ascontiguousarray(np.flip(tiles, turned)))
        if logits.shape != expected or not np.isfinite(logits).all():
            raise ModelRefused(
                f"logits {logits.shape}, {np.count_nonzero(~np.isfinite(logits))} not finite",
                where="network",
                expected=f"{expected}, finite",
                remedy="use a network of this system with good weights; nothing was decided",
            )
        out += expit(np.flip(logits, turned)).astype(np.float32, copy=False)
    if len(turns) > 1:
        out /= len(turns)
    return out


def _finished(z: slice, sums: Floats, total: Floats, members: int, options: SlideOptions) -> Slab:
    covered = np.maximum(total, LEAST_WEIGHT)  # no tile weighs less; where there was none, 0 / this
    dtype = np.float16 if options.half else np.float32
    if not options.votes:
        return Slab(z, (sums[0] / (covered * members)).astype(dtype, copy=False), None)
    mean = np.zeros(sums.shape[1:], np.float32)
    votes = np.zeros(sums.shape[1:], np.uint8)
    for one in sums:
        probability = one / covered
        mean += probability
        votes += probability > 0.5
    mean /= members
    return Slab(z, mean.astype(dtype, copy=False), votes)
