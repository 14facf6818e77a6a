"""Which images does each training step see, and how are they changed?

Everything random about a batch is drawn from a generator named by (seed, epoch, position): the
state of the loader is two numbers, a resumed training needs no generator state, and the number of
loader threads changes nothing.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from renalkit.errors import Reason, TrainingFailed
from renalkit.learn.options import Sampling
from renalkit.learn.outputs import Targets
from renalkit.learn.prepared import PreparedSet, Progress, cache_digest, prepare
from renalkit.transforms.augment import AugmentRanges, sample_augmentation

__all__ = [
    "Batch",
    "BatchPlan",
    "PreparedSet",
    "Progress",
    "batches",
    "cache_digest",
    "epoch_order",
    "feature_scale",
    "plain_batches",
    "prepare",
    "step_share",
    "step_slices",
]

Indices = npt.NDArray[np.int64]


class Batch(NamedTuple):
    """image: (b,C,S,S) float32. features: (b,F) float32, NaN where unknown; None without any."""

    image: Tensor
    targets: Targets
    features: Tensor | None = None


# Shape legend: b images of a batch, C channels, F numbers beside the picture, S side in pixels.

_ORDER, _AUGMENT, _FRAMES = 0, 1, 2
"""Purpose of a generator, the third word of its name, so that no two purposes share one."""


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """How training batches are made.

    sampling: 'plain' shows every image once per epoch; 'oversample' repeats the images of smaller
    classes up to the size of the largest (P1), images without label are shown once; 'balanced'
    draws a class, then one of its images (P2), as many draws as there are images with a label.
    augment: ranges of random changes; None shows the images as they are. frames_per_patient: at
    most so many of a patient's images are drawn for each epoch, 0 takes all. threads: how many
    threads prepare batches ahead; 0 prepares them when asked for. rank, devices: this device's
    share of each batch is made (`step_share`); images and changes are those of a single device.
    """

    seed: int
    batch_size: int
    sampling: Sampling = "plain"
    augment: AugmentRanges | None = None
    threads: int = 0
    rank: int = 0
    devices: int = 1
    frames_per_patient: int = 0


def _generator(plan: BatchPlan, epoch: int, purpose: int, position: int) -> np.random.Generator:
    words = np.random.SeedSequence([plan.seed, epoch, purpose, position])
    return np.random.Generator(np.random.PCG64(words))


def epoch_order(
    labels: Indices, indices: Indices, plan: BatchPlan, epoch: int, patients: Sequence[str] = ()
) -> Indices:
    """The images of an epoch in the order they are shown.

    Args:
        labels: (N,) class of every image of the set, -1 unknown.
        indices: the training part.
        plan: seed, sampling and frames per patient.
        epoch: 0 is the first.
        patients: of every image; looked at only when the frames per patient are limited.

    Raises:
        TrainingFailed: 'balanced' or 'oversample' and no image with a label.
    """
    indices = _drawn_frames(patients, indices, plan, epoch)
    rng = _generator(plan, epoch, _ORDER, 0)
    if plan.sampling == "plain":
        return rng.permutation(indices)
    known = labels[indices]
    members = [indices[known == c] for c in np.unique(known[known >= 0])]
    if not members:
        raise TrainingFailed(
            f"sampling '{plan.sampling}' found no image with a class",
            where=str(Reason.UNKNOWN_LABEL),
            expected="labels in the training part",
            remedy="use sampling 'plain'",
        )
    if plan.sampling == "balanced":
        n_draws = sum(len(m) for m in members)
        classes = rng.integers(len(members), size=n_draws)
        places = rng.random(n_draws)
        sizes = np.array([len(m) for m in members])
        # random() < 1, but the product may round up to the size itself.
        chosen = np.minimum((places * sizes[classes]).astype(np.int64), sizes[classes] - 1)
        return np.array([members[c][p] for c, p in zip(classes, chosen, strict=True)], np.int64)
    largest = max(len(m) for m in members)
    parts = [indices[known < 0]]
    for images in members:
        # Whole copies, and a random rest without repetition: counts differ by at most one.
        copies, rest = divmod(largest, len(images))
        parts += [images] * copies + [rng.permutation(images)[:rest]]
    return rng.permutation(np.concatenate(parts))


def _drawn_frames(
    patients: Sequence[str], indices: Indices, plan: BatchPlan, epoch: int
) -> Indices:
    """At most `frames_per_patient` images of each patient, in the order given."""
    limit = plan.frames_per_patient
    if not limit:
        return indices
    rng = _generator(plan, epoch, _FRAMES, 0)
    members: dict[str, list[int]] = {}
    for index in map(int, indices):
        members.setdefault(patients[index], []).append(index)
    kept: list[int] = []
    for _, images in sorted(members.items()):
        chosen = images
        if len(images) > limit:
            chosen = [images[i] for i in rng.choice(len(images), limit, replace=False)]
        kept += chosen
    return np.array(sorted(kept), np.int64)


def step_slices(n_images: int, batch_size: int) -> list[slice]:
    """Positions of each step; a last batch of one image joins the one before.

    Batch normalisation cannot work on a single image.

    >>> [(s.start, s.stop) for s in step_slices(9, 4)]
    [(0, 4), (4, 9)]
    """
    edges = [*range(0, n_images, batch_size), n_images]
    if len(edges) > 2 and edges[-1] - edges[-2] == 1:
        del edges[-2]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


def step_share(step: slice, rank: int, devices: int) -> slice:
    """The positions of a step that one of several devices takes, in order of rank.

    Sizes differ by at most one. Nobody gets a single image (see `step_slices`): in a small batch
    the last ranks get none.

    >>> [(s.start, s.stop) for s in (step_share(slice(10, 15), r, 3) for r in range(3))]
    [(10, 12), (12, 15), (15, 15)]
    """
    n_images = step.stop - step.start
    used = max(1, min(devices, n_images // 2))
    edges = [step.start + n_images * min(r, used) // used for r in (rank, rank + 1)]
    return slice(*edges)


def _assemble(data: PreparedSet, chosen: Indices) -> Batch:
    """Images as they are: no generator is touched."""
    size = data.size
    images = np.empty((len(chosen), data.images.shape[1], size, size), np.float32)
    for row, index in enumerate(chosen):
        images[row] = data.network_input(int(index))
    masks = np.asarray(data.masks[chosen]).astype(np.float32)
    return _batch(data, chosen, images, masks)


def _batch(
    data: PreparedSet,
    chosen: Indices,
    images: npt.NDArray[np.float32],
    masks: npt.NDArray[np.float32],
) -> Batch:
    features = torch.from_numpy(data.features[chosen]) if data.features.shape[1] else None
    return Batch(torch.from_numpy(images), _targets(data, chosen, masks), features)


def _targets(data: PreparedSet, chosen: Indices, masks: npt.NDArray[np.float32]) -> Targets:
    return Targets(
        mask=torch.from_numpy(masks),
        has_mask=torch.from_numpy(data.has_mask[chosen]),
        label=torch.from_numpy(data.labels[chosen]),
    )


def _assemble_augmented(
    data: PreparedSet, chosen: Indices, first: int, epoch: int, plan: BatchPlan
) -> Batch:
    """first: position in the epoch of the batch's first image."""
    if plan.augment is None:
        return _assemble(data, chosen)
    size = data.size
    images = np.empty((len(chosen), data.images.shape[1], size, size), np.float32)
    masks = np.empty((len(chosen), 1, size, size), np.float32)
    for row, index in enumerate(chosen):
        rng = _generator(plan, epoch, _AUGMENT, first + row)
        change = sample_augmentation(plan.augment, size, rng)
        image, mask = change.apply(data.network_input(int(index)), np.asarray(data.masks[index]))
        images[row] = image
        masks[row] = mask
    return _batch(data, chosen, images, masks)


def feature_scale(features: npt.NDArray[np.float32]) -> tuple[Tensor, Tensor]:
    """Mean and spread (F,) of the known values (N,F); 0 and 1 where none is known, spread 1 where
    all agree."""
    known = np.ma.masked_invalid(features.astype(np.float64))
    mean = np.ma.filled(known.mean(axis=0), 0.0)
    spread = np.ma.filled(known.std(axis=0), 1.0)
    spread = np.where(spread <= 1e-9 * np.maximum(1.0, np.abs(mean)), 1.0, spread)
    return torch.from_numpy(mean).float(), torch.from_numpy(spread).float()


def batches(
    data: PreparedSet, train_indices: Indices, plan: BatchPlan, epoch: int, start: int = 0
) -> Generator[Batch]:
    """Training batches of an epoch from step `start` on.

    Each item: see `Batch`. The same (plan, epoch, step) gives the
    same tensors, bit for bit, whatever `start` and `plan.threads` are. With several devices the
    shares of all ranks are together the batch of one; a rank without a share gets that of rank 0,
    to go through the same motions.

    Raises:
        TrainingFailed: see `epoch_order`.
    """
    order = epoch_order(data.labels, train_indices, plan, epoch, data.patients)
    steps = step_slices(len(order), plan.batch_size)[start:]

    def make(step: slice) -> Batch:
        share = step_share(step, plan.rank, plan.devices)
        if share.start == share.stop:
            share = step_share(step, 0, plan.devices)
        return _assemble_augmented(data, order[share], share.start, epoch, plan)

    if plan.threads <= 0:
        yield from map(make, steps)
        return
    waiting: deque[Future[Batch]] = deque()
    with ThreadPoolExecutor(plan.threads, thread_name_prefix="batch") as pool:
        try:
            for step in steps:
                waiting.append(pool.submit(make, step))
                if len(waiting) > plan.threads + 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def plain_batches(data: PreparedSet, indices: Indices, batch_size: int) -> Iterator[Batch]:
    """Validation and test batches: the order given, no augmentation, no random number drawn."""
    for start in range(0, len(indices), batch_size):
        yield _assemble(data, indices[start : start + batch_size])
