"""Preparation and its cache; batches that follow from (seed, epoch, step) alone."""

from __future__ import annotations

import itertools
import logging
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from renalkit.domain.geometry import MaskRLE
from renalkit.domain.image import Clip, Mode, Source, pixel_sha256
from renalkit.domain.sample import Sample, SampleKey
from renalkit.domain.study import Study
from renalkit.errors import InputRefused, TrainingFailed
from renalkit.learn import data as data_module
from renalkit.learn import prepared as prepared_module
from renalkit.learn.data import (
    BatchPlan,
    PreparedSet,
    batches,
    epoch_order,
    plain_batches,
    prepare,
    step_slices,
)
from renalkit.transforms.augment import AugmentRanges
from renalkit.transforms.preprocess import Placement, Preprocess

PREPROCESS = Preprocess(size=32)


class Watch:
    def __init__(self) -> None:
        self.stages: list[tuple[str, int | None]] = []
        self.steps = 0

    def stage(self, words: str, total: int | None = None) -> None:
        self.stages.append((words, total))

    def advance(self, steps: int = 1, words: str = "") -> None:
        self.steps += steps


def _study(number: int, n_frames: int, rng: np.random.Generator) -> Study:
    pixels = rng.integers(0, 256, (n_frames, 40 + number, 60)).astype(np.uint8)
    clip = Clip(
        pixels=pixels,
        sha256=pixel_sha256(pixels),
        mode=Mode.B,
        source=Source(f"{number:064x}", f"{number:064x}", "test"),
    )
    return Study(key=f"s-{number:020x}", patient=f"p-{number:020x}", clips=(clip,))


def _samples(n_studies: int = 4, n_frames: int = 3, seed: int = 0) -> list[Sample]:
    """Every third frame has an unknown mask, every fifth an unknown label."""
    rng = np.random.default_rng(seed)
    found: list[Sample] = []
    for number in range(n_studies):
        study = _study(number, n_frames, rng)
        clip = study.clips[0]
        for frame in range(n_frames):
            mask = np.zeros((clip.rows, clip.cols), bool)
            mask[10:25, 15 : 30 + frame] = True
            i = len(found)
            found.append(
                Sample(
                    key=SampleKey(study.patient, study.key, "", 0, frame),
                    study=study,
                    label=None if i % 5 == 4 else number % 2,
                    mask=None if i % 3 == 2 else MaskRLE.encode(mask),
                )
            )
    return found


def _set(labels: list[int], size: int = 32, seed: int = 0) -> PreparedSet:
    rng = np.random.default_rng(seed)
    n = len(labels)
    images = rng.integers(0, 256, (n, 1, size, size)).astype(np.uint8)
    masks = np.zeros_like(images)
    masks[:, :, 8:20, 10:24] = 1
    return PreparedSet(
        images=images,
        masks=masks,
        has_mask=np.ones(n, bool),
        labels=np.array(labels, np.int64),
        levels=np.tile(np.array([0.0, 1.0], np.float32), (n, 1, 1)),
        placements=(Placement.fit((size, size), size),) * n,
        keys=tuple(SampleKey(f"p{i}", f"s{i}", "", 0, 0) for i in range(n)),
        present=np.ones((n, 1), bool),
        features=np.zeros((n, 0), np.float32),
    )


def _same(a: PreparedSet, b: PreparedSet) -> bool:
    arrays = ("images", "masks", "has_mask", "labels", "levels")
    equal = all(np.array_equal(getattr(a, n), getattr(b, n)) for n in arrays)
    return equal and a.placements == b.placements and a.keys == b.keys


# ---- preparation


@pytest.mark.parametrize("normalise", ["unit", "zscore"])
def test_prepared_images_are_what_preprocess_gives(normalise: str) -> None:
    preprocess = replace(PREPROCESS, normalise=normalise)
    samples = _samples()
    watch = Watch()
    found = prepare(samples, preprocess, None, 0, watch)
    assert watch.steps == len(samples) == len(found)
    assert watch.stages == [("prepare images", 12)]
    for i, sample in enumerate(samples):
        mask = None if sample.mask is None else sample.mask.decode()
        single = preprocess.run(np.asarray(sample.load().pixels), mask)
        if normalise == "unit":
            assert np.array_equal(found.network_input(i), single.image)
        else:
            np.testing.assert_allclose(found.network_input(i), single.image, atol=1e-6)
        assert found.placements[i] == single.placement
        assert bool(found.has_mask[i]) == (sample.mask is not None)
        expected = np.zeros((1, 32, 32), np.uint8) if single.mask is None else single.mask
        assert np.array_equal(found.masks[i], expected)
        assert found.labels[i] == (-1 if sample.label is None else sample.label)


def test_workers_and_cache_change_nothing(tmp_path: Path) -> None:
    samples = _samples(9, 8)
    assert len(samples) >= prepared_module.IN_PROCESS_BELOW
    plain = prepare(samples, PREPROCESS, None, 0, Watch())
    watch = Watch()
    parallel = prepare(samples, PREPROCESS, tmp_path, 2, watch)
    assert watch.steps == len(samples)
    assert _same(plain, parallel)
    assert _same(plain, prepare(samples, PREPROCESS, tmp_path, 0, Watch()))


def test_the_cache_is_used_the_second_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = _samples()
    first = prepare(samples, PREPROCESS, tmp_path, 0, Watch())
    monkeypatch.setattr(prepared_module, "_run", lambda task: pytest.fail("prepared again"))
    watch = Watch()
    assert _same(first, prepare(samples, PREPROCESS, tmp_path, 0, watch))
    assert watch.steps == len(samples)


def test_whatever_decides_the_pictures_names_the_cache(tmp_path: Path) -> None:
    samples = _samples()
    variants = [
        (samples, PREPROCESS),
        (samples, replace(PREPROCESS, bilateral=False)),
        (samples, replace(PREPROCESS, size=48)),
        (samples[::-1], PREPROCESS),
        (samples[1:], PREPROCESS),
        (_samples(seed=1), PREPROCESS),
        ([replace(samples[0], mask=None), *samples[1:]], PREPROCESS),
    ]
    for chosen, preprocess in variants:
        prepare(chosen, preprocess, tmp_path, 0, Watch())
    assert len(list(tmp_path.iterdir())) == len(variants)
    # Labels are not part of the pictures.
    relabelled = [replace(s, label=0) for s in samples]
    found = prepare(relabelled, PREPROCESS, tmp_path, 0, Watch())
    assert len(list(tmp_path.iterdir())) == len(variants)
    assert set(found.labels.tolist()) == {0}


@pytest.mark.parametrize("name", ["images.npy", "masks.npy", "contents.json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_a_damaged_cache_is_rebuilt_and_said_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, damage: str
) -> None:
    samples = _samples()
    first = prepare(samples, PREPROCESS, tmp_path, 0, Watch())
    first = first.take(np.arange(len(first)))
    path = next(tmp_path.iterdir()) / name
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    else:
        # Beyond the header of an array; in JSON this makes a brace of a bracket or the like.
        place = 200 if name.endswith("npy") else 0
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    with caplog.at_level(logging.WARNING):
        again = prepare(samples, PREPROCESS, tmp_path, 0, Watch())
    assert _same(first, again)
    said = "is damaged" in caplog.text
    assert said == (not (name == "contents.json" and damage == "gone"))


def test_an_unusable_picture_is_refused_by_name_and_leaves_no_cache(tmp_path: Path) -> None:
    samples = _samples()
    clip = samples[4].study.clips[0]
    black = np.zeros((3, clip.rows, clip.cols), np.uint8)
    dark = replace(clip, pixels=black, sha256=pixel_sha256(black))
    study = replace(samples[4].study, clips=(dark,))
    with pytest.raises(InputRefused, match="every value is 0"):
        prepare([replace(samples[4], study=study)], PREPROCESS, tmp_path, 0, Watch())
    assert not list(tmp_path.rglob("*.json"))
    assert not list(tmp_path.rglob("*.npy"))


def test_no_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="no samples"):
        prepare([], PREPROCESS, None, 0, Watch())


def test_take_copies_in_order(tmp_path: Path) -> None:
    whole = prepare(_samples(), PREPROCESS, tmp_path, 0, Watch())
    part = whole.take([5, 0, 3])
    assert [k.text for k in part.keys] == [whole.keys[i].text for i in (5, 0, 3)]
    assert np.array_equal(part.images[0], whole.images[5])
    assert part.images.flags.writeable


def test_l06_one_picture_does_not_change_another() -> None:
    samples = _samples()
    before = prepare(samples, replace(PREPROCESS, normalise="zscore"), None, 0, Watch())
    clip = samples[-1].study.clips[0]
    loud = np.asarray(clip.pixels) // 2  # type: ignore[arg-type]
    changed = replace(clip, pixels=loud, sha256=pixel_sha256(loud))
    study = replace(samples[-1].study, clips=(changed,))
    after = prepare(
        [*samples[:-1], replace(samples[-1], study=study)],
        replace(PREPROCESS, normalise="zscore"),
        None,
        0,
        Watch(),
    )
    for i in range(len(samples) - 1):
        assert np.array_equal(before.network_input(i), after.network_input(i))


# ---- order


labels_of_parts = st.lists(st.sampled_from([-1, 0, 1, 2]), min_size=1, max_size=60)


@given(labels_of_parts, st.integers(0, 5))
def test_plain_shows_every_image_once(labels: list[int], epoch: int) -> None:
    indices = np.arange(len(labels))[::2]
    order = epoch_order(np.array(labels), indices, BatchPlan(1, 4), epoch)
    assert sorted(order.tolist()) == indices.tolist()


@given(labels_of_parts, st.integers(0, 5))
def test_oversample_brings_every_class_to_the_largest(labels: list[int], epoch: int) -> None:
    array = np.array(labels)
    indices = np.arange(len(labels))
    plan = BatchPlan(1, 4, "oversample")
    if not (array >= 0).any():
        with pytest.raises(TrainingFailed, match="no image with a class"):
            epoch_order(array, indices, plan, epoch)
        return
    order = epoch_order(array, indices, plan, epoch)
    shown = Counter(order.tolist())
    per_class = Counter(array[order][array[order] >= 0].tolist())
    largest = max(Counter(array[array >= 0].tolist()).values())
    assert set(per_class.values()) == {largest}
    assert set(shown) == set(indices.tolist())
    for c in per_class:
        counts = [shown[i] for i in indices if array[i] == c]
        assert max(counts) - min(counts) <= 1
    assert all(shown[i] == 1 for i in indices if array[i] < 0)


def test_balanced_draws_classes_evenly() -> None:
    labels = np.array([0] * 900 + [1] * 90 + [-1] * 10)
    plan = BatchPlan(1, 16, "balanced")
    order = np.concatenate([epoch_order(labels, np.arange(1000), plan, e) for e in range(10)])
    assert len(order) == 9900
    shown = labels[order]
    assert not (shown < 0).any()
    # Binomial(9900, 1/2): 5 standard deviations are 249; a false alarm is rarer than 1e-6.
    assert abs(int((shown == 1).sum()) - 4950) < 249
    # Each of the 90 is drawn 55 times on average, sd 7.4; 6 sd with 90 trials: below 1e-6.
    each = Counter(order[shown == 1].tolist())
    assert len(each) == 90
    assert all(abs(n - 55) < 45 for n in each.values())


def test_epochs_and_seeds_differ_and_repeat() -> None:
    labels = np.zeros(50, np.int64)
    orders = [
        tuple(epoch_order(labels, np.arange(50), BatchPlan(seed, 4), epoch).tolist())
        for seed, epoch in itertools.product((0, 1), (0, 1))
    ]
    assert len(set(orders)) == 4
    assert tuple(epoch_order(labels, np.arange(50), BatchPlan(0, 4), 0).tolist()) == orders[0]


@given(st.integers(1, 200), st.integers(1, 20))
def test_steps_cover_everything_and_none_is_a_single_image(n: int, batch_size: int) -> None:
    steps = step_slices(n, batch_size)
    covered = [i for s in steps for i in range(s.start, s.stop)]
    assert covered == list(range(n))
    lengths = [s.stop - s.start for s in steps]
    assert max(lengths) <= batch_size + 1
    if batch_size > 1 and n > 1:
        assert min(lengths) > 1


# ---- batches


def _bytes(batch: data_module.Batch) -> tuple[bytes, bytes, bytes, bytes]:
    image, targets, _ = batch
    parts = (image, targets.mask, targets.has_mask, targets.label)
    return tuple(p.numpy().tobytes() for p in parts)  # type: ignore[return-value]


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_loader_threads_change_nothing(threads: int) -> None:
    data = _set([0, 1, 0, 0, 1, -1, 0, 0, 1, 0, 0])
    plan = BatchPlan(3, 4, "oversample", AugmentRanges.full(32))
    alone = [_bytes(b) for b in batches(data, np.arange(11), plan, 2)]
    other = [_bytes(b) for b in batches(data, np.arange(11), replace(plan, threads=threads), 2)]
    assert alone == other


@settings(max_examples=15, deadline=None)
@given(start=st.integers(0, 5), threads=st.integers(0, 2))
def test_starting_inside_an_epoch_gives_the_rest_of_it(start: int, threads: int) -> None:
    data = _set([0, 1] * 9)
    plan = BatchPlan(3, 4, "plain", AugmentRanges(), threads)
    whole = [_bytes(b) for b in batches(data, np.arange(18), plan, 0)]
    rest = [_bytes(b) for b in batches(data, np.arange(18), plan, 0, start)]
    assert rest == whole[start:]


def test_no_two_images_of_an_epoch_share_their_change() -> None:
    data = _set([0] * 8)
    same = replace(data, images=np.repeat(data.images[:1], 8, axis=0))
    images = torch.cat(
        [b.image for b in batches(same, np.arange(8), BatchPlan(0, 4, augment=AugmentRanges()), 0)]
    )
    assert len({image.numpy().tobytes() for image in images}) == 8


def test_shapes_types_and_values() -> None:
    data = _set([0, 1, -1, 0])
    ((image, targets, _),) = batches(
        data, np.arange(4), BatchPlan(0, 4, augment=AugmentRanges()), 0
    )
    assert image.shape == targets.mask.shape == (4, 1, 32, 32)
    assert image.dtype == targets.mask.dtype == torch.float32
    assert set(targets.mask.unique().tolist()) <= {0.0, 1.0}
    assert targets.has_mask.dtype == torch.bool
    assert targets.label.dtype == torch.int64


def test_l04_validation_is_not_augmented_and_draws_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = _set([0, 1, 0, 1, 1])
    untouched = [_bytes(b) for b in plain_batches(data, np.arange(5), 2)]
    list(batches(data, np.arange(5), BatchPlan(0, 2, augment=AugmentRanges.full(32)), 0))
    state = np.random.get_state()[1].tobytes()  # noqa: NPY002 - watching the global generator
    torch_state = torch.get_rng_state()

    def forbidden(*given: object) -> None:
        pytest.fail("a generator was made")

    monkeypatch.setattr(data_module, "_generator", forbidden)
    monkeypatch.setattr(np.random, "default_rng", forbidden)
    assert [_bytes(b) for b in plain_batches(data, np.arange(5), 2)] == untouched
    assert np.random.get_state()[1].tobytes() == state  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_state)
    shown = torch.cat([b.image for b in plain_batches(data, np.arange(5), 2)])
    assert np.array_equal(np.rint(shown.numpy() * 255).astype(np.uint8), data.images)


def test_training_leaves_the_prepared_set_as_it_is() -> None:
    data = _set([0, 1, 0, 1, 1])
    before = (data.images.tobytes(), data.masks.tobytes())
    list(batches(data, np.arange(5), BatchPlan(0, 2, augment=AugmentRanges.full(32)), 0))
    assert (data.images.tobytes(), data.masks.tobytes()) == before


def test_an_error_in_a_loader_thread_reaches_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    data = _set([0, 1] * 8)

    def failing(*given: object) -> None:
        raise OSError("disk went away")

    monkeypatch.setattr(data_module, "_assemble_augmented", failing)
    with pytest.raises(OSError, match="disk went away"):
        list(batches(data, np.arange(16), BatchPlan(0, 2, threads=2), 0))


def test_leaving_early_ends_the_threads() -> None:
    before = threading.active_count()
    source = batches(_set([0, 1] * 20), np.arange(40), BatchPlan(0, 2, threads=2), 0)
    next(source)
    source.close()
    assert threading.active_count() <= before
