"""What do the prepared pictures of a cohort look like, and are the stored ones still intact?

Preparation (filter, resize) is the same for every epoch, fold and system, so it is done once, in
parallel, and kept in a cache named after everything that decides its content. This module knows
no torch: the worker processes start fast.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from renalkit.domain.geometry import Box, MaskRLE
from renalkit.domain.image import Clip, Mode
from renalkit.domain.sample import Beside, Sample, SampleKey
from renalkit.errors import InputRefused
from renalkit.store.files import (
    clean_temporaries,
    read_json,
    sha256_bytes,
    sha256_file,
    write_json,
    write_with,
)
from renalkit.transforms.preprocess import Placement, Preprocess

log = logging.getLogger(__name__)

SCHEMA = 1
IN_PROCESS_BELOW = 64
"""With fewer pictures, starting worker processes costs more than it saves."""
_FRAMES_PER_TASK = 16

CHANNELS = {Mode.B: 1, Mode.CEUS: 3}
"""Channels of a modality: B-mode is grey; contrast pictures are tinted, so they keep colours."""

B_MODE = (Mode.B,)

# Shape legend: N images, C channels of all modalities, M modalities, F numbers beside the picture,
# S side in pixels.


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a network is given: modalities in the order of its channels, and names of facts of the
    study as numbers beside the picture."""

    modalities: tuple[Mode, ...] = B_MODE
    features: tuple[str, ...] = ()

    @property
    def channels(self) -> int:
        """Channels of all modalities."""
        return sum(CHANNELS[m] for m in self.modalities)


class Progress(Protocol):
    """Who wants to know how far the work is."""

    def stage(self, words: str, total: int | None = None) -> None:
        """Begin a stage of `total` steps (None when unknown)."""
        ...

    def advance(self, steps: int = 1, words: str = "") -> None:
        """Some steps of the stage are done."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class PreparedSet:
    """Pictures and truth on the network grid, in the order of the samples.

    images: (N,C,S,S) uint8, zeros where a modality is missing. masks: (N,1,S,S) uint8 in {0,1},
    zeros where unknown. has_mask: (N,) bool, False where the reference is unknown. labels: (N,)
    int64, -1 where unknown. levels: (N,C,2) float32, shift and spread on the 0..1 scale; the
    network sees (image/255 - shift)/spread (0 and 1 unless z-scores of each picture were asked
    for). present: (N,M) bool, which modalities there are. features: (N,F) float32, NaN where
    unknown. placements (of the first modality), keys: one per image.
    """

    images: npt.NDArray[np.uint8]
    masks: npt.NDArray[np.uint8]
    has_mask: npt.NDArray[np.bool_]
    labels: npt.NDArray[np.int64]
    levels: npt.NDArray[np.float32]
    placements: tuple[Placement, ...]
    keys: tuple[SampleKey, ...]
    present: npt.NDArray[np.bool_]
    features: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        n = len(self.images)
        for name in (
            "masks",
            "has_mask",
            "labels",
            "levels",
            "placements",
            "keys",
            "present",
            "features",
        ):
            if len(getattr(self, name)) != n:
                raise ValueError(f"{name} has {len(getattr(self, name))} entries for {n} images")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> int:
        """Side S of the network input in px."""
        return int(self.images.shape[-1])

    def take(self, indices: npt.ArrayLike) -> PreparedSet:
        """The chosen images, copied, in the order given."""
        chosen = np.asarray(indices, dtype=np.int64)
        return PreparedSet(
            images=np.asarray(self.images[chosen]),
            masks=np.asarray(self.masks[chosen]),
            has_mask=self.has_mask[chosen],
            labels=self.labels[chosen],
            levels=self.levels[chosen],
            placements=tuple(self.placements[i] for i in chosen),
            keys=tuple(self.keys[i] for i in chosen),
            present=self.present[chosen],
            features=self.features[chosen],
        )

    @property
    def patients(self) -> tuple[str, ...]:
        """The patient of every image."""
        return tuple(key.patient for key in self.keys)

    @property
    def complete(self) -> npt.NDArray[np.bool_]:
        """(N,) whether every modality is there."""
        return np.asarray(self.present.all(axis=1))

    def network_input(self, index: int) -> npt.NDArray[np.float32]:
        """One image as the network sees it, (C,S,S) float32."""
        return as_input(self.images[index], self.levels[index])


def as_input(
    image: npt.NDArray[np.uint8], levels: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """(C,S,S) uint8 with shift and spread (C,2) -> (C,S,S) float32, as `Preprocess.run` gives."""
    unit = image.astype(np.float32) * np.float32(1.0 / 255.0)
    shift, spread = levels[:, 0], levels[:, 1]
    if not shift.any() and (spread == 1.0).all():
        return unit
    return (unit - shift[:, None, None]) / spread[:, None, None]


@dataclass(frozen=True, slots=True)
class _Item:
    """One sample of a task: frame, truth, where the lesion is, and the contrast frame beside."""

    frame: int
    mask: MaskRLE | None
    box: Box | None
    beside: Beside | None
    name: str


@dataclass(frozen=True, slots=True)
class _Task:
    """Some frames of one clip; what a worker process is sent. contrast: the clip beside it."""

    clip: Clip
    contrast: Clip | None
    items: tuple[_Item, ...]
    preprocess: Preprocess
    modalities: tuple[Mode, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Done:
    images: npt.NDArray[np.uint8]
    masks: npt.NDArray[np.uint8]
    levels: npt.NDArray[np.float32]
    placements: tuple[Placement, ...]


def _run(task: _Task) -> _Done:
    n, size = len(task.items), task.preprocess.size
    channels = [CHANNELS[m] for m in task.modalities]
    images = np.zeros((n, sum(channels), size, size), np.uint8)
    masks = np.zeros((n, 1, size, size), np.uint8)
    levels = np.tile(np.array([0.0, 1.0], np.float32), (n, sum(channels), 1))
    placements: list[Placement] = []
    for i, item in enumerate(task.items):
        placed: list[Placement] = []
        start = 0
        for modality, width in zip(task.modalities, channels, strict=True):
            into = images[i, start : start + width]
            place = None
            if modality is Mode.B:
                place = _b_mode(task, item, into, masks[i])
            elif item.beside is not None:
                place = _contrast(task, item, item.beside, into)
            if place is not None:
                placed.append(place)
                if task.preprocess.normalise == "zscore":
                    levels[i, start : start + width] = [_levels(c, place) for c in into]
            start += width
        # Without the pictures asked for there is nothing to place; `present` says so.
        placements.append(placed[0] if placed else Placement.fit((size, size), size))
    return _Done(images, masks, levels, tuple(placements))


def _b_mode(
    task: _Task, item: _Item, into: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8]
) -> Placement:
    """Write the B-mode picture (1,S,S) and its truth (1,S,S)."""
    source: npt.NDArray[Any] = np.asarray(task.clip.frame(item.frame).pixels)
    truth = None if item.mask is None else item.mask.decode()
    window = _window(task.preprocess, item.box, source)
    plain = replace(task.preprocess, normalise="unit", region="frame", margin=0.0)
    prepared = plain.run(source[window], None if truth is None else truth[window], where=item.name)
    # A picture scaled by 1/255 goes back to the very 8-bit values it came from.
    into[:] = np.rint(prepared.image * np.float32(255.0)).astype(np.uint8)
    if prepared.mask is not None:
        mask[:] = prepared.mask
    return prepared.placement


def _contrast(task: _Task, item: _Item, beside: Beside, into: npt.NDArray[np.uint8]) -> Placement:
    """Write the contrast picture (3,S,S) of the same instant."""
    assert task.contrast is not None
    source: npt.NDArray[Any] = np.asarray(task.contrast.frame(beside.frame).pixels)
    window = _window(task.preprocess, beside.box, source)
    picture, placement = task.preprocess.run_colour(source[window], where=item.name)
    into[:] = picture
    return placement


def _window(
    preprocess: Preprocess, box: Box | None, pixels: npt.NDArray[Any]
) -> tuple[slice, slice]:
    """The part of a picture that the network sees."""
    rows, cols = int(pixels.shape[0]), int(pixels.shape[1])
    if preprocess.region == "frame":
        return slice(0, rows), slice(0, cols)
    assert box is not None
    return box.grown(preprocess.margin, rows, cols).slices


def _levels(channel: npt.NDArray[np.uint8], placement: Placement) -> tuple[float, float]:
    """Mean and spread inside the picture, not counting the padding; see `Preprocess.normalise`."""
    (top, left), (height, width) = (placement.top, placement.left), placement.inner_shape
    inner = channel[top : top + height, left : left + width] * np.float32(1.0 / 255.0)
    spread = max(float(inner.std(dtype=np.float64)), 1.0 / 255.0)
    return float(inner.mean(dtype=np.float64)), spread


def _tasks(
    samples: Sequence[Sample], preprocess: Preprocess, modalities: tuple[Mode, ...]
) -> list[_Task]:
    """Neighbouring samples of one clip together, so that a clip is sent and opened seldom."""
    tasks: list[_Task] = []
    start = 0
    while start < len(samples):
        first = samples[start]
        clips = first.study.clips
        stop = start + 1
        while (
            stop < len(samples)
            and stop - start < _FRAMES_PER_TASK
            and samples[stop].study is first.study
            and samples[stop].key.clip == first.key.clip
        ):
            stop += 1
        group = samples[start:stop]
        beside = {s.beside.clip for s in group if s.beside is not None}
        seen = Mode.CEUS in modalities and beside
        assert len(beside) < 2 or not seen
        tasks.append(
            _Task(
                clip=clips[first.key.clip],
                contrast=clips[beside.pop()] if seen else None,
                items=tuple(_Item(s.key.frame, s.mask, s.box, s.beside, s.key.text) for s in group),
                preprocess=preprocess,
                modalities=modalities,
            )
        )
        start = stop
    return tasks


def _start_worker() -> None:
    # One process per core already: OpenCV's own threads would only get in each other's way.
    cv2.setNumThreads(1)


@contextmanager
def _executor(workers: int) -> Generator[Executor]:
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        yield executor
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _results(tasks: Sequence[_Task], workers: int) -> Iterator[_Done]:
    n_images = sum(len(task.items) for task in tasks)
    if workers <= 1 or n_images < IN_PROCESS_BELOW:
        yield from map(_run, tasks)
        return
    with _executor(workers) as executor:
        yield from executor.map(_run, tasks)


def cache_digest(
    samples: Sequence[Sample], preprocess: Preprocess, modalities: tuple[Mode, ...] = B_MODE
) -> str:
    """Name of the cache: settings, and of every sample its key, pixels, mask and regions."""
    settings: dict[str, Any] = {"schema": SCHEMA, **preprocess.as_dict()}
    if modalities != B_MODE:
        settings["modalities"] = list(modalities)
    lines = [json.dumps(settings, sort_keys=True)]
    for sample in samples:
        key = sample.key
        clip = sample.study.clips[key.clip].sha256
        mask = "" if sample.mask is None else sample.mask.text
        parts = [key.study, str(key.clip), str(key.frame), clip, mask]
        if preprocess.region == "lesion":
            parts.append(repr(sample.box))
        if Mode.CEUS in modalities and sample.beside is not None:
            parts += [sample.study.clips[sample.beside.clip].sha256, repr(sample.beside)]
        lines.append("\t".join(parts))
    return sha256_bytes("\n".join(lines).encode())


def prepare(
    samples: Sequence[Sample],
    preprocess: Preprocess,
    cache: Path | None,
    workers: int,
    progress: Progress,
    inputs: Inputs | None = None,
) -> PreparedSet:
    """Prepare every sample, or find it prepared in the cache.

    Args:
        samples: in the order wanted; not empty. With region 'lesion' each has its box.
        preprocess: the same settings for training and prediction.
        cache: folder of caches, or None to keep everything in memory.
        workers: processes; 0 or 1 prepares in this one. The result does not depend on it.
        progress: told once per picture group.
        inputs: modalities and features; None: B-mode alone.

    Returns:
        The set; with a cache its pictures are read-only maps of files.

    Raises:
        InputRefused: no sample, or a picture or mask that cannot be used.
        StoreError: the disk refused the cache.
    """
    if not samples:
        raise ValueError("nothing to prepare: no samples")
    wanted = inputs or Inputs()
    progress.stage("prepare images", len(samples))
    tasks = _tasks(samples, preprocess, wanted.modalities)
    if cache is None:
        found = list(_watched(tasks, workers, progress))
        return _assemble(
            samples,
            wanted,
            np.concatenate([d.images for d in found]),
            np.concatenate([d.masks for d in found]),
            np.concatenate([d.levels for d in found]),
            tuple(p for d in found for p in d.placements),
        )
    folder = cache / cache_digest(samples, preprocess, wanted.modalities)[:32]
    ready = _open(folder, samples, wanted)
    if ready is None:
        shape = (len(samples), wanted.channels, preprocess.size, preprocess.size)
        _fill(folder, shape, preprocess, _watched(tasks, workers, progress))
        ready = _open(folder, samples, wanted)
        if ready is None:
            raise RuntimeError("the cache written a moment ago cannot be read")
    else:
        progress.advance(len(samples), "found prepared")
    return ready


def _watched(tasks: Sequence[_Task], workers: int, progress: Progress) -> Iterator[_Done]:
    for done in _results(tasks, workers):
        progress.advance(len(done.images))
        yield done


def _assemble(
    samples: Sequence[Sample],
    inputs: Inputs,
    images: npt.NDArray[np.uint8],
    masks: npt.NDArray[np.uint8],
    levels: npt.NDArray[np.float32],
    placements: tuple[Placement, ...],
) -> PreparedSet:
    return PreparedSet(
        images=images,
        masks=masks,
        has_mask=np.array([s.mask is not None for s in samples], dtype=np.bool_),
        labels=np.array([-1 if s.label is None else s.label for s in samples], dtype=np.int64),
        levels=levels,
        placements=placements,
        keys=tuple(s.key for s in samples),
        present=np.array([[shows(s, m) for m in inputs.modalities] for s in samples], np.bool_),
        features=_features(samples, inputs.features),
    )


def shows(sample: Sample, modality: Mode) -> bool:
    """Whether a sample has a picture of the modality."""
    return modality is Mode.B or sample.beside is not None


def _features(samples: Sequence[Sample], names: tuple[str, ...]) -> npt.NDArray[np.float32]:
    """(N,F) facts of the samples' studies; NaN where a study does not know one."""
    rows = np.full((len(samples), len(names)), np.nan, np.float32)
    if not names:
        return rows
    for row, sample in zip(rows, samples, strict=True):
        known = [sample.study.number(name) for name in names]
        row[:] = [np.nan if value is None else value for value in known]
    return rows


def _header(file: IO[bytes], shape: tuple[int, ...]) -> None:
    description = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_2_0(file, description)


def _fill(
    folder: Path, shape: tuple[int, ...], preprocess: Preprocess, results: Iterator[_Done]
) -> None:
    """Write the arrays piece by piece (a full disk is an error here, not a crash of a map)."""
    levels: list[npt.NDArray[np.float32]] = []
    placements: list[Placement] = []

    def write_both(images_path: Path, masks_path: Path) -> None:
        with images_path.open("wb") as images, masks_path.open("wb") as masks:
            _header(images, shape)
            _header(masks, (shape[0], 1, *shape[2:]))
            for done in results:
                images.write(done.images.tobytes())
                masks.write(done.masks.tobytes())
                levels.append(done.levels)
                placements.extend(done.placements)

    def write_images(images_path: Path) -> None:
        write_with(folder / "masks.npy", lambda masks_path: write_both(images_path, masks_path))

    if folder.is_dir():
        clean_temporaries(folder)
    write_with(folder / "images.npy", write_images)
    # Written last: a cache without it does not count.
    write_json(
        folder / "contents.json",
        {
            "schema": SCHEMA,
            "preprocess": preprocess.as_dict(),
            "sha256": {n: sha256_file(folder / n) for n in ("images.npy", "masks.npy")},
            "levels": np.concatenate(levels).astype(float).tolist(),
            "placements": [p.as_dict() for p in placements],
        },
    )


def _open(folder: Path, samples: Sequence[Sample], inputs: Inputs) -> PreparedSet | None:
    """The cache when it is whole, else None; damage is said, absence is not."""
    contents = folder / "contents.json"
    if not contents.is_file():
        return None
    try:
        plain = read_json(contents)
        for name in ("images.npy", "masks.npy"):
            if sha256_file(folder / name) != plain["sha256"][name]:
                raise ValueError(f"{name} differs from its digest")
        images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        masks = np.load(folder / "masks.npy", mmap_mode="r", allow_pickle=False)
        levels = np.asarray(plain["levels"], dtype=np.float32).reshape(len(samples), -1, 2)
        placements = tuple(Placement.from_dict(p) for p in plain["placements"])
        return _assemble(samples, inputs, images, masks, levels, placements)
    except (InputRefused, OSError, ValueError, KeyError, TypeError) as error:
        log.warning("cache of prepared images %s is damaged (%s); rebuilt", folder.name, error)
        contents.unlink(missing_ok=True)
        return None
