"""Which part of which CT volume does each training step see, and how is it changed?

Everything random about row r of step t is drawn from a generator named by (seed, t, r), so a batch
is a function of seed and step alone: a resumed training needs no state, and batches may be made
ahead. Rotation, zoom, shift and mirror are one map, so that a patch is interpolated once; one that
is not moved is not interpolated at all. Beyond the volume there is air.

Shape legend: b rows of a batch, (Z,Y,X) a volume, (z,y,x) a patch or crop.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy import ndimage
from scipy.spatial.transform import Rotation
from torch import Tensor

from renalkit.domain.volume import AIR_HU, CYST, KIDNEY, TUMOUR, WINDOW_HU
from renalkit.errors import ConfigError, Reason, TrainingFailed
from renalkit.learn.outputs import VolumeBatch
from renalkit.learn.volume_options import VolumeRanges

Triple = tuple[int, int, int]
Floats = npt.NDArray[np.float64]

_PLACE, _CHANGE, _ORDER = 0, 1, 2
"""Purpose of a generator, so that no two purposes share one."""


@dataclass(frozen=True, slots=True, eq=False)
class HeldVolume:
    """A CT volume in memory.

    hu: (Z,Y,X) int16. labels: (Z,Y,X) uint8 as in `domain.volume`, `learn.outputs.UNKNOWN` where
    nobody said. spacing_mm: (z, y, x).
    """

    name: str
    hu: npt.NDArray[np.int16] = field(repr=False)
    labels: npt.NDArray[np.uint8] = field(repr=False)
    spacing_mm: tuple[float, float, float]

    def __post_init__(self) -> None:
        if self.hu.ndim != 3 or self.hu.dtype != np.int16 or not self.hu.size:
            raise ValueError(f"{self.name}: HU {self.hu.dtype} {self.hu.shape}, not int16 (Z,Y,X)")
        if self.labels.shape != self.hu.shape or self.labels.dtype != np.uint8:
            raise ValueError(f"{self.name}: labels {self.labels.dtype} {self.labels.shape}")
        if min(self.spacing_mm) <= 0:
            raise ValueError(f"{self.name}: spacing {self.spacing_mm} mm")

    @property
    def shape(self) -> Triple:
        z, y, x = self.hu.shape
        return z, y, x


class BatchSource(Protocol):
    """Where training steps get their batches from."""

    @property
    def digest(self) -> str:
        """Of everything that decides what the batches hold."""
        ...

    def batch(self, step: int) -> VolumeBatch:
        """The batch of a step, 0 is the first; the same whenever it is asked for."""
        ...

    def names(self, step: int) -> list[str]:
        """What the batch of a step was made from."""
        ...


def _generator(seed: int, purpose: int, *place: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, purpose, *place])))


def _digest(plan: object, volumes: Iterable[HeldVolume], more: object = None) -> str:
    found = hashlib.sha256(json.dumps([plan, more], sort_keys=True).encode())
    for volume in volumes:
        head = [volume.name, volume.shape, volume.spacing_mm]
        found.update(json.dumps(head).encode())
        for array in (volume.hu, volume.labels):
            found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


# ---- one patch --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Change:
    """One fully described change of a patch; the default changes nothing.

    angles_deg: about z, y and x, in that order. shift_mm: (z, y, x). Values: (HU - middle) *
    hu_scale + middle + hu_shift, noise of this SD, window, gamma.
    """

    angles_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)
    zoom: float = 1.0
    shift_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    flip: bool = False
    hu_scale: float = 1.0
    hu_shift: float = 0.0
    noise_hu: float = 0.0
    noise_seed: int = 0
    gamma: float = 1.0

    @property
    def moves(self) -> bool:
        """Whether voxels have to be interpolated."""
        return self.flip or self.zoom != 1 or any((*self.angles_deg, *self.shift_mm))


def sample_change(ranges: VolumeRanges | None, rng: np.random.Generator) -> Change:
    """Draw a change. The number of draws does not depend on the outcome of any."""
    if ranges is None:
        return Change()
    move, value, mirror = rng.random(3) < (*(ranges.probability,) * 2, ranges.flip_probability)
    turn = rng.uniform(-1, 1, 3) * (ranges.rotation_deg, ranges.tilt_deg, ranges.tilt_deg)
    shift = rng.uniform(-1, 1, 3) * ranges.shift_mm
    spread = rng.random(3)
    zoom, scale, gamma = (
        math.exp(math.log(low) + u * (math.log(high) - math.log(low)))
        for u, (low, high) in zip(
            spread.tolist(), (ranges.zoom, ranges.hu_scale, ranges.gamma), strict=True
        )
    )
    offset, noise = rng.uniform(-1, 1) * ranges.hu_shift, rng.random() * ranges.noise_hu
    seed = int(rng.integers(2**53))
    change: dict[str, Any] = {"flip": bool(mirror)}
    if move:
        a, b, c = turn.tolist()
        z, y, x = shift.tolist()
        change |= {"angles_deg": (a, b, c), "zoom": zoom, "shift_mm": (z, y, x)}
    if value:
        change |= {"hu_scale": scale, "hu_shift": offset, "gamma": gamma}
        change |= {"noise_hu": noise, "noise_seed": seed}
    return Change(**change)


def patch(
    volume: HeldVolume, start: Triple, size: Triple, change: Change, window_hu: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """The part of a volume from voxel `start` on, changed about its middle.

    start: may lie outside the volume. Returns (1,z,y,x) float32 in -1 to 1, and labels (z,y,x)
    uint8, 0 beyond the volume.
    """
    if change.moves:
        hu, labels = _moved(volume, start, size, change)
    else:
        hu, labels = _straight(volume, start, size)
    middle, half = sum(window_hu) / 2, (window_hu[1] - window_hu[0]) / 2
    value = (hu - middle) * change.hu_scale + change.hu_shift
    if change.noise_hu > 0:
        drawn = _generator(change.noise_seed, _CHANGE).standard_normal(size, np.float32)
        value += torch.from_numpy(drawn) * change.noise_hu
    value = (value / half).clamp_(-1, 1)
    if change.gamma != 1:
        value = ((value + 1) / 2) ** change.gamma * 2 - 1
    return value[None], labels


def _straight(volume: HeldVolume, start: Triple, size: Triple) -> tuple[Tensor, Tensor]:
    hu = np.full(size, AIR_HU, np.float32)
    labels = np.zeros(size, np.uint8)
    source: list[slice] = []
    target: list[slice] = []
    for first, length, whole in zip(start, size, volume.shape, strict=True):
        low, high = max(first, 0), min(first + length, whole)
        source.append(slice(low, max(low, high)))
        target.append(slice(low - first, max(low, high) - first))
    hu[tuple(target)] = volume.hu[tuple(source)]
    labels[tuple(target)] = volume.labels[tuple(source)]
    return torch.from_numpy(hu), torch.from_numpy(labels)


def _moved(
    volume: HeldVolume, start: Triple, size: Triple, change: Change
) -> tuple[Tensor, Tensor]:
    """Linear between voxels for HU, the nearest voxel for labels."""
    turn, offset = _map(volume.spacing_mm, start, size, change)
    ends = np.array(np.meshgrid(*((0, n - 1) for n in size), indexing="ij")).reshape(3, -1)
    corners = turn @ ends + offset[:, None]
    low = np.maximum(np.floor(corners.min(axis=1)), 0).astype(int)
    high = np.minimum(np.ceil(corners.max(axis=1)) + 1, volume.shape).astype(int)
    if (high <= low).any():
        return torch.full(size, float(AIR_HU)), torch.zeros(size, dtype=torch.uint8)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    # What lies outside reads as 0: HU are counted from air.
    hu = torch.from_numpy(volume.hu[box].astype(np.float32) - AIR_HU)
    labels = torch.from_numpy(volume.labels[box].astype(np.float32))
    within, outside = high - low, np.asarray(size)
    theta = np.empty((3, 4))
    theta[:, :3] = turn * (outside / within[:, None])
    centre = turn @ ((outside - 1) / 2) + offset - low
    theta[:, 3] = (2 * centre + 1) / within - 1
    # torch counts x, y, z.
    flipped = np.concatenate([theta[::-1, 2::-1], theta[::-1, 3:]], axis=1)
    grid = F.affine_grid(
        torch.from_numpy(flipped.astype(np.float32))[None], [1, 1, *size], align_corners=False
    )
    out = F.grid_sample(hu[None, None], grid, "bilinear", "zeros", align_corners=False)
    named = F.grid_sample(labels[None, None], grid, "nearest", "zeros", align_corners=False)
    return out[0, 0] + AIR_HU, named[0, 0].to(torch.uint8)


def _map(
    spacing_mm: tuple[float, float, float], start: Triple, size: Triple, change: Change
) -> tuple[Floats, Floats]:
    """(3,3) and (3,): index of a patch's voxel -> index of the volume, fractions allowed."""
    about_z, about_y, about_x = change.angles_deg
    turn = Rotation.from_euler("zyx", (about_z, about_y, about_x), degrees=True).as_matrix()
    # Rotations are of (x, y, z), arrays of (z, y, x).
    turn = turn[::-1, ::-1] / change.zoom
    if change.flip:
        turn = turn * (1.0, 1.0, -1.0)
    mm = np.asarray(spacing_mm)
    matrix = turn * mm / mm[:, None]
    middle = (np.asarray(size) - 1) / 2
    return matrix, np.asarray(start) + middle - np.asarray(change.shift_mm) / mm - matrix @ middle


# ---- patches of volumes, and whole volumes ----------------------------------------------------


@dataclass(frozen=True, slots=True)
class PatchPlan:
    """Which parts are shown.

    size: (z, y, x) voxels; None shows whole volumes, each once per pass, padded at their ends with
    air to a multiple of `multiple`. mass_share: of patches about a voxel of a mass, each mass alike
    however small; kidney_share: of those about a voxel of kidney; the rest lies anywhere in a
    volume drawn at random. A voxel meant lies in the middle half of its patch, as far as the patch
    can stay inside the volume. batch: patches per step. ranges: of changes; None shows volumes as
    they are.

    Raises ConfigError (all problems at once).
    """

    size: Triple | None
    batch: int = 2
    seed: int = 0
    mass_share: float = 0.5
    kidney_share: float = 0.25
    multiple: Triple = (1, 1, 1)
    ranges: VolumeRanges | None = VolumeRanges()
    window_hu: tuple[float, float] = WINDOW_HU

    def __post_init__(self) -> None:
        problems = _wrong(self.size or (1, 1, 1), self.batch, self.seed, self.window_hu)
        if min(self.mass_share, self.kidney_share) < 0 or self.mass_share + self.kidney_share > 1:
            problems.append(
                f"mass_share, kidney_share: {self.mass_share}, {self.kidney_share}; "
                "neither negative, together at most 1"
            )
        if min(self.multiple) < 1:
            problems.append(f"multiple: {self.multiple} must be greater than 0")
        if problems:
            raise ConfigError(problems, where="patches")


def _wrong(size: Triple, batch: int, seed: int, window_hu: tuple[float, float]) -> list[str]:
    problems: list[str] = []
    if min(size) < 1:
        problems.append(f"size: {size} must be greater than 0")
    if batch < 1:
        problems.append(f"batch: {batch} must be greater than 0")
    if seed < 0:
        problems.append(f"seed: {seed} must not be negative")
    if not window_hu[0] < window_hu[1]:
        problems.append(f"window_hu: {window_hu} is not low < high")
    return problems


class Patches:
    """Patches of volumes, or whole volumes, as `PatchPlan` says.

    Raises:
        TrainingFailed: no volume, or none that has what the plan asks for.
    """

    def __init__(self, volumes: Sequence[HeldVolume], plan: PatchPlan) -> None:
        self.volumes, self.plan = tuple(volumes), plan
        if not self.volumes:
            raise _nothing("no volume")
        if plan.size is None:
            return
        self._masses = [(i, m) for i, v in enumerate(self.volumes) for m in _masses(v.labels)]
        kidneys = ((i, np.flatnonzero(v.labels == KIDNEY)) for i, v in enumerate(self.volumes))
        self._kidneys = [(i, k.astype(np.int32)) for i, k in kidneys if k.size]
        if plan.mass_share > 0 and not self._masses:
            raise _nothing("no mass in any volume")
        if plan.kidney_share > 0 and not self._kidneys:
            raise _nothing("no kidney in any volume")

    @property
    def digest(self) -> str:
        """Of plan, HU and labels."""
        return self._found

    @cached_property
    def _found(self) -> str:
        return _digest(asdict(self.plan), self.volumes)

    def batch(self, step: int) -> VolumeBatch:
        """image (b,1,z,y,x) and labels (b,z,y,x); whole volumes are padded to the largest."""
        places = [self._place(step, row) for row in range(self.plan.batch)]
        size = self.plan.size or self._common([volume for volume, _ in places])
        images: list[Tensor] = []
        labels: list[Tensor] = []
        for row, (volume, start) in enumerate(places):
            rng = _generator(self.plan.seed, _CHANGE, step, row)
            change = sample_change(self.plan.ranges, rng)
            image, label = patch(volume, start, size, change, self.plan.window_hu)
            images.append(image)
            labels.append(label)
        return VolumeBatch(torch.stack(images), torch.stack(labels))

    def names(self, step: int) -> list[str]:
        """Of the volumes in a batch."""
        return [self._place(step, row)[0].name for row in range(self.plan.batch)]

    def _common(self, volumes: Sequence[HeldVolume]) -> Triple:
        z, y, x = (
            -(-max(v.shape[axis] for v in volumes) // step) * step
            for axis, step in enumerate(self.plan.multiple)
        )
        return z, y, x

    def _place(self, step: int, row: int) -> tuple[HeldVolume, Triple]:
        plan = self.plan
        if plan.size is None:
            turn, place = divmod(step * plan.batch + row, len(self.volumes))
            order = _generator(plan.seed, _ORDER, turn).permutation(len(self.volumes))
            return self.volumes[order[place]], (0, 0, 0)
        rng = _generator(plan.seed, _PLACE, step, row)
        kind = rng.random()
        if kind < plan.mass_share:
            return self._about(self._masses, plan.size, rng)
        if kind < plan.mass_share + plan.kidney_share:
            return self._about(self._kidneys, plan.size, rng)
        volume = self.volumes[int(rng.integers(len(self.volumes)))]
        return volume, _start(volume.shape, plan.size, rng.random(3) * volume.shape, rng)

    def _about(
        self,
        parts: Sequence[tuple[int, npt.NDArray[np.int32]]],
        size: Triple,
        rng: np.random.Generator,
    ) -> tuple[HeldVolume, Triple]:
        index, voxels = parts[int(rng.integers(len(parts)))]
        volume = self.volumes[index]
        voxel = np.unravel_index(int(voxels[rng.integers(len(voxels))]), volume.shape)
        return volume, _start(volume.shape, size, np.asarray(voxel, np.float64), rng)


def _nothing(found: str) -> TrainingFailed:
    return TrainingFailed(
        found,
        where=str(Reason.UNKNOWN_LABEL),
        expected="volumes with the labels that patches are drawn about",
        remedy="add labelled volumes, or set the share to 0",
    )


def _masses(labels: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.int32]]:
    """Places in the raveled array of each mass: of each part of a label that hangs together."""
    found: list[npt.NDArray[np.int32]] = []
    for value in (TUMOUR, CYST):
        parts: Any
        parts, count = ndimage.label(labels == value, np.ones((3, 3, 3)))  # type: ignore[misc]
        where = np.flatnonzero(parts)
        owner = parts.ravel()[where]
        found += [where[owner == p].astype(np.int32) for p in range(1, count + 1)]
    return found


def _start(shape: Triple, size: Triple, voxel: Floats, rng: np.random.Generator) -> Triple:
    """First voxel of a patch with `voxel` in its middle half, inside the volume where it fits, else
    about it."""
    starts: list[int] = []
    for whole, length, at, u in zip(shape, size, voxel, rng.random(3), strict=True):
        first = int(at) - int(length * (0.25 + 0.5 * u))
        room = whole - length
        starts.append(min(max(first, 0), room) if room >= 0 else room // 2)
    return starts[0], starts[1], starts[2]


# ---- crops about lesions ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CropPlan:
    """How crops about lesions are shown.

    size: (z, y, x) voxels, cut from the middle of each held crop; what a held crop has beyond that
    comes into view when it is turned. balanced: a class is drawn, then one of its crops; else each
    crop once per pass. mask_input: the voxels of any mass are a second channel of the image.

    Raises ConfigError (all problems at once).
    """

    size: Triple
    batch: int = 16
    seed: int = 0
    balanced: bool = True
    mask_input: bool = False
    ranges: VolumeRanges | None = VolumeRanges()
    window_hu: tuple[float, float] = WINDOW_HU

    def __post_init__(self) -> None:
        problems = _wrong(self.size, self.batch, self.seed, self.window_hu)
        if problems:
            raise ConfigError(problems, where="crops")


class LesionCrops:
    """Crops about lesions with their classes.

    crops: volumes whose middle is the lesion's, already on the grid the network is to see. labels:
    the class of each, -1 where unknown; those are not shown.

    Raises:
        TrainingFailed: no crop with a class.
    """

    def __init__(self, crops: Sequence[HeldVolume], labels: Sequence[int], plan: CropPlan) -> None:
        if len(crops) != len(labels):
            raise ValueError(f"{len(crops)} crops, {len(labels)} classes")
        self.crops, self.labels, self.plan = tuple(crops), tuple(labels), plan
        known = sorted({label for label in self.labels if label >= 0})
        self._members = [[i for i, label in enumerate(labels) if label == c] for c in known]
        self._known = [i for i, label in enumerate(self.labels) if label >= 0]
        if not self._known:
            raise _nothing("no lesion with a class")

    @property
    def digest(self) -> str:
        """Of plan, HU, masks and classes."""
        return self._found

    @cached_property
    def _found(self) -> str:
        return _digest(asdict(self.plan), self.crops, self.labels)

    def batch(self, step: int) -> VolumeBatch:
        """image (b,1,z,y,x), with masks (b,2,z,y,x), and label (b,)."""
        rows: list[Tensor] = []
        chosen = self._chosen(step)
        for row, index in enumerate(chosen):
            rng = _generator(self.plan.seed, _CHANGE, step, row)
            rows.append(self._crop(index, sample_change(self.plan.ranges, rng)))
        return self._together(chosen, rows)

    def names(self, step: int) -> list[str]:
        """Of the crops in a batch."""
        return [self.crops[i].name for i in self._chosen(step)]

    def plain(self, chosen: Sequence[int]) -> VolumeBatch:
        """These crops as they are, as a trained network is to see them."""
        return self._together(chosen, [self._crop(i, Change()) for i in chosen])

    def _together(self, chosen: Sequence[int], rows: list[Tensor]) -> VolumeBatch:
        label = torch.tensor([self.labels[i] for i in chosen], dtype=torch.int64)
        return VolumeBatch(torch.stack(rows), label=label)

    def _crop(self, index: int, change: Change) -> Tensor:
        crop, plan = self.crops[index], self.plan
        z, y, x = ((n - s) // 2 for n, s in zip(crop.shape, plan.size, strict=True))
        image, labels = patch(crop, (z, y, x), plan.size, change, plan.window_hu)
        if not plan.mask_input:
            return image
        mass = (labels == TUMOUR) | (labels == CYST)
        return torch.cat([image, mass[None].float()])

    def _chosen(self, step: int) -> list[int]:
        plan = self.plan
        if plan.balanced:
            rng = _generator(plan.seed, _PLACE, step)
            groups = [
                self._members[int(c)] for c in rng.integers(len(self._members), size=plan.batch)
            ]
            return [group[int(rng.integers(len(group)))] for group in groups]
        chosen: list[int] = []
        for place in range(step * plan.batch, (step + 1) * plan.batch):
            turn, at = divmod(place, len(self._known))
            order = _generator(plan.seed, _ORDER, turn).permutation(len(self._known))
            chosen.append(self._known[order[at]])
        return chosen
