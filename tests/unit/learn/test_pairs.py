"""Two modalities of one instant go through preparation, batches and validation together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from renalkit.domain.cohort import ClassTask, Cohort
from renalkit.domain.geometry import Box
from renalkit.domain.image import Clip, Mode, Source, pixel_sha256
from renalkit.domain.pairs import paired_samples
from renalkit.domain.sample import Sample
from renalkit.domain.study import Lesion, Roi, Study
from renalkit.errors import ConfigError
from renalkit.learn.data import BatchPlan, batches, epoch_order, feature_scale, plain_batches
from renalkit.learn.outputs import Outputs, Targets
from renalkit.learn.prepared import Inputs, PreparedSet, prepare
from renalkit.learn.validation import ValidationBatch, summarise
from renalkit.transforms.augment import AugmentRanges
from renalkit.transforms.preprocess import Preprocess

torch.set_num_threads(1)

SIZE, FRAMES, PATIENTS = 32, 5, 4
BOTH = (Mode.B, Mode.CEUS)
LESION = Preprocess(size=SIZE, bilateral=False, region="lesion", margin=0.1)


class Quiet:
    def stage(self, words: str, total: int | None = None) -> None: ...
    def advance(self, steps: int = 1, words: str = "") -> None: ...


def _clip(mode: Mode, number: int, frames: tuple[int, ...]) -> Clip:
    rng = np.random.default_rng([number, mode is Mode.B])
    pixels = rng.integers(1, 256, (len(frames), 60, 70, 3)).astype(np.uint8)
    source = Source(f"{number}" * 64, f"f-{number}", "dicom-us")
    return Clip(pixels, pixel_sha256(pixels), mode, source, source_frames=frames)


def _study(number: int) -> Study:
    """Contrast of the last B-mode frame is missing."""
    clips = (
        _clip(Mode.B, number, tuple(range(FRAMES))),
        _clip(Mode.CEUS, number, tuple(range(FRAMES - 1))),
    )
    rois = [Roi(0, f, box=Box(10, 12, 30, 20)) for f in range(FRAMES)]
    rois += [Roi(1, f, box=Box(20, 15, 30, 20)) for f in range(FRAMES - 1)]
    label = ("benign", "malignant")[number % 2]
    lesion = Lesion(f"l-{number:020x}", label=label, rois=tuple(rois))
    facts = {} if number == 1 else {"perfusion_lesion_pe": float(number)}
    patient = f"p-{number:020x}"
    return Study(f"s-{number:020x}", patient, clips, (lesion,), covariates=facts)


@pytest.fixture(scope="module")
def samples() -> tuple[Sample, ...]:
    task = ClassTask(("benign", "malignant"), "malignant")
    return paired_samples(Cohort("c", task, tuple(_study(n) for n in range(PATIENTS))))


@pytest.fixture(scope="module")
def data(samples: tuple[Sample, ...]) -> PreparedSet:
    wanted = Inputs(BOTH, ("perfusion_lesion_pe",))
    return prepare(samples, LESION, None, 1, Quiet(), wanted)


def test_the_lesion_is_cut_out_of_both_pictures(samples, data) -> None:
    assert data.images.shape == (PATIENTS * FRAMES, 4, SIZE, SIZE)
    sample = samples[0]
    assert sample.beside is not None
    beside = sample.study.clips[1].frame(sample.beside.frame).pixels
    window = Box(20, 15, 30, 20).grown(0.1, 60, 70).slices
    expected, _ = LESION.run_colour(np.asarray(beside[window]))
    assert np.array_equal(data.images[0, 1:], expected)
    here = np.asarray(sample.load().pixels)[Box(10, 12, 30, 20).grown(0.1, 60, 70).slices]
    alone = replace(LESION, region="frame", margin=0.0).run(here)
    assert np.array_equal(data.images[0, :1], np.rint(alone.image * 255))


def test_a_missing_partner_is_known_and_black(data) -> None:
    missing = np.arange(len(data)) % FRAMES == FRAMES - 1
    assert np.array_equal(data.present[:, 1], ~missing)
    assert data.present[:, 0].all()
    assert np.array_equal(data.complete, ~missing)
    assert not data.images[missing, 1:].any()
    assert data.images[missing, 0].any()


def test_facts_come_beside_the_picture_unknown_ones_as_nan(data) -> None:
    by_patient = data.features[::FRAMES, 0]
    assert np.array_equal(by_patient, [0, np.nan, 2, 3], equal_nan=True)
    mean, spread = feature_scale(data.features)
    assert mean.item() == pytest.approx(5 / 3)
    assert spread.item() == pytest.approx(np.std([0, 2, 3]))
    assert [v.item() for v in feature_scale(np.full((3, 1), np.nan, np.float32))] == [0, 1]
    assert feature_scale(np.full((3, 1), 7.0, np.float32))[1].item() == 1


def test_the_cache_gives_the_same_set_and_tells_modalities_apart(
    samples, data, tmp_path: Path
) -> None:
    wanted = Inputs(BOTH, ("perfusion_lesion_pe",))
    for _ in range(2):
        found = prepare(samples, LESION, tmp_path, 1, Quiet(), wanted)
        assert np.array_equal(found.images, data.images)
        assert np.array_equal(found.levels, data.levels)
        assert np.array_equal(found.present, data.present)
    prepare(samples, LESION, tmp_path, 1, Quiet())
    prepare(samples, replace(LESION, margin=0.2), tmp_path, 1, Quiet(), wanted)
    assert len(list(tmp_path.iterdir())) == 3


def test_z_scores_are_of_each_channel(samples) -> None:
    plan = replace(LESION, normalise="zscore")
    found = prepare(samples[:2], plan, None, 1, Quiet(), Inputs(BOTH))
    place = found.placements[0]
    rows, cols = place.inner_shape
    inner = found.network_input(0)[:, place.top : place.top + rows, place.left : place.left + cols]
    assert np.allclose(inner.mean(axis=(1, 2)), 0, atol=1e-4)
    assert np.allclose(inner.std(axis=(1, 2)), 1, atol=1e-3)


def test_both_pictures_of_a_pair_are_moved_alike(data) -> None:
    """With equal pictures in all channels, the changed channels stay equal."""
    same = replace(data, images=np.repeat(data.images[:, :1], 4, axis=1))
    ranges = AugmentRanges(elastic_amplitude_px=3.0, elastic_sigma_px=8.0)
    plan = BatchPlan(3, 8, augment=ranges)
    batch = next(iter(batches(same, np.arange(8), plan, 0)))
    assert batch.image.shape == (8, 4, SIZE, SIZE)
    assert torch.equal(batch.image[:, 0], batch.image[:, 3])
    assert not torch.equal(batch.image, next(plain_batches(same, np.arange(8), 8)).image)
    assert batch.features is not None
    assert batch.features.shape == (8, 1)


def test_so_many_frames_of_a_patient_are_drawn_anew_for_each_epoch(data) -> None:
    plan = BatchPlan(1, 4, frames_per_patient=2)
    indices = np.arange(len(data))
    orders = [epoch_order(data.labels, indices, plan, e, data.patients) for e in range(12)]
    for order in orders:
        assert len(order) == len(set(order.tolist())) == 2 * PATIENTS
        assert [list(data.patients).count(p) for p in set(data.patients)] == [FRAMES] * PATIENTS
        drawn = [data.patients[i] for i in order]
        assert {drawn.count(p) for p in set(drawn)} == {2}
    assert set(np.concatenate(orders).tolist()) == set(indices.tolist())
    again = epoch_order(data.labels, indices, plan, 3, data.patients)
    assert np.array_equal(again, orders[3])
    whole = epoch_order(data.labels, indices, replace(plan, frames_per_patient=9), 0, data.patients)
    assert sorted(whole.tolist()) == indices.tolist()


def test_patients_are_judged_by_the_mean_of_their_frames() -> None:
    """a: two frames wrong by little, one right by much; b: all wrong; c: of two classes."""
    positive = np.array([0.45, 0.45, 0.9, 0.6, 0.7, 0.2, 0.8])
    labels = [1, 1, 1, 0, 0, 0, 1]
    patients = ["a", "a", "a", "b", "b", "c", "c"]
    logits = torch.log(torch.tensor(np.stack([1 - positive, positive], 1)))
    n = len(labels)
    targets = Targets(torch.zeros(n, 1, 2, 2), torch.zeros(n).bool(), torch.tensor(labels))
    found = summarise(
        iter([ValidationBatch(torch.tensor(0.0), Outputs(None, logits), targets)]), patients
    )
    assert found.accuracy == pytest.approx(3 / 7)
    assert found.patient_accuracy == pytest.approx(1 / 2)
    assert found.patient_log_loss == pytest.approx(-(np.log(0.6) + np.log(0.35)) / 2)


def test_a_cut_needs_its_lesion_region() -> None:
    with pytest.raises(ConfigError, match="margin"):
        Preprocess(margin=0.1)
    with pytest.raises(ConfigError, match="region"):
        Preprocess(region="kidney")  # type: ignore[arg-type]
    assert "region" not in Preprocess().as_dict()
    assert LESION.as_dict()["margin"] == 0.1
