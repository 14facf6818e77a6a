"""How the systems of an experiment are trained, fold by fold, each fold resumable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from renalkit.domain.cohort import Cohort
from renalkit.domain.prediction import Prediction, SystemRef
from renalkit.domain.sample import Sample
from renalkit.domain.splits import Fold, Split
from renalkit.errors import InputRefused, Locked, Reason
from renalkit.learn.complexity import complexity
from renalkit.learn.data import PreparedSet, feature_scale, prepare
from renalkit.learn.devices import Stop, in_processes
from renalkit.learn.loop import FoldTask, train_fold
from renalkit.learn.options import TrainOptions
from renalkit.learn.outputs import FeatureNet, Net
from renalkit.learn.predictor import (
    load_trained,
    predict_batches,
    time_per_image,
    torch_threads,
)
from renalkit.learn.transfer import start_from
from renalkit.store.files import locked, write_bytes, write_json
from renalkit.store.predictions import save_predictions
from renalkit.store.runs import RunFolder
from renalkit.systems import get_system
from renalkit.systems._contract import ClassBalance, Decoded, Params, Shape, System
from renalkit.usecases.experiment import Job
from renalkit.usecases.models import prediction_of
from renalkit.usecases.parts import part_indices, usable
from renalkit.usecases.progress import Progress
from renalkit.usecases.transfer import digest_of_fold, initial_of

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Training:
    """What all folds of an experiment share."""

    folder: RunFolder
    cohort: Cohort
    split: Split
    samples: tuple[Sample, ...]
    workers: int

    @property
    def n_classes(self) -> int:
        return len(self.cohort.task.classes)

    def shape(self, job: Job) -> Shape:
        """What the job's network takes and gives."""
        return job.shape(self.n_classes)

    def data(self, job: Job, progress: Progress) -> PreparedSet:
        """The pictures the job's network is given."""
        cache = self.folder.cache
        return prepare(self.samples, job.input, cache, self.workers, progress, job.inputs)

    def digest(self, job: Job, fold: Fold) -> str:
        """What a finished fold must agree with to be kept."""
        digests = (self.cohort.digest, self.split.digest)
        return digest_of_fold(self.folder, job, digests, fold.index)


def folds_of(training: Training, job: Job) -> tuple[Fold, ...]:
    """The folds a job is asked for."""
    return tuple(f for f in training.split.folds if not job.folds or f.index in job.folds)


def finished_folds(training: Training, job: Job) -> list[int]:
    """Indices of the folds of a job that ended."""
    return [
        f.index
        for f in folds_of(training, job)
        if training.folder.fold(job.label, f.index).finished(training.digest(job, f))
    ]


def train_fold_of(training: Training, job: Job, fold: Fold, progress: Progress) -> bool:
    """Train one system on one fold and keep its predictions; True when the fold is finished.

    A finished fold is left alone. A fold another process holds is left to it (False).
    """
    folder = training.folder.fold(job.label, fold.index)
    digest = training.digest(job, fold)
    if folder.finished(digest):
        return True
    try:
        with locked(folder.path):
            if not folder.finished(digest):
                progress.stage(f"{job.label}: fold {fold.index + 1} of {len(training.split.folds)}")
                _train_held(training, job, fold, progress)
    except Locked:
        return False
    return True


def _train_held(training: Training, job: Job, fold: Fold, progress: Progress) -> None:
    """Train in this process, or for several devices in one of its own.

    Predicting a fold initialises CUDA, after which no further ranks could be forked from here.
    """
    if job.train.devices == 1:
        _train_locked(training, job, fold, progress)
        return

    def work(number: int, told: Progress, stop: Stop) -> None:
        assert number == 0
        assert not stop.asked
        _train_locked(training, job, fold, told)

    in_processes(1, work, progress)


def _train_locked(training: Training, job: Job, fold: Fold, progress: Progress) -> None:
    system = get_system(job.system)
    params = system.params(job.params)
    shape = training.shape(job)
    folder = training.folder.fold(job.label, fold.index)
    data = training.data(job, progress)
    parts = {
        name: usable(data, system, name, indices)
        for name, indices in part_indices(training.samples, fold).items()
    }
    options = replace(job.train, seed=job.train.seed * 1000 + fold.index)
    weights = None
    if options.class_weights == "inverse":
        weights = inverse_frequency(data.labels[parts["train"]], training.n_classes)
    counts = class_counts(data.labels[parts["train"]], training.n_classes)
    initial = initial_of(training.folder, job, fold.index)

    def build() -> Net:
        net = system.build(params, shape, job.task)
        if isinstance(net, FeatureNet) and shape.features:
            net.standardise(*feature_scale(data.features[parts["train"]]))
        if initial is not None:
            start_from(
                *(net, initial.weights, initial.sha256),
                same_numbers=initial.same_numbers,
                heads_too=job.train.taken_heads,
            )
        return net

    task = FoldTask(
        build=build,
        loss=system.loss(params, job.task, ClassBalance(counts, weights)),
        data=data,
        train=parts["train"],
        validation=parts["validation"],
        guide_share=lambda share: system.guide_share(params, share),
        segments=job.task.segments,
        classifies=job.task.classifies,
        n_classes=training.n_classes,
    )
    history = train_fold(task, options, job.augment, folder.path, progress)
    net = system.build(params, shape, job.task)
    load_trained(net, folder.weights, history.weights_sha256)
    ref = SystemRef(job.system, job.label, history.weights_sha256)
    for name, path in (("validation", folder.validation), ("test", folder.test)):
        decoded = decode_all(system, params, net, data.take(parts[name]), options)
        found = [
            prediction_of(training.samples[i], result, data.placements[i], ref, fold.index)
            for i, result in zip(parts[name], decoded, strict=True)
        ]
        save_predictions(path, found)
        if name == "test":
            _save_attention(training.folder.system(job.label) / "attention", found, decoded)
    complexity_file = training.folder.complexity(job.label)
    if not complexity_file.exists():
        write_json(complexity_file, asdict(complexity(net, shape.channels, shape.size)))
    write_json(
        folder.done,
        {
            "digest": training.digest(job, fold),
            "weights_sha256": history.weights_sha256,
            "best_epoch": history.best_epoch,
            "epochs": history.epochs,
            "images": {name: len(index) for name, index in parts.items()},
            "class_images": list(counts),
            "patients": {n: len(getattr(fold, n)) for n in ("train", "validation", "test")},
            "train_seconds": round(history.seconds, 1),
            "threads": history.threads,
            "device": history.device,
            **({} if initial is None else {"initial": initial.record}),
        },
    )


def time_job(training: Training, job: Job) -> None:
    """Measure one image through the network, once, when nothing else of the run is at work."""
    path = training.folder.timing(job.label)
    if path.exists():
        return
    system = get_system(job.system)
    shape = training.shape(job)
    net = system.build(system.params(job.params), shape, job.task).eval()
    net.settle()
    ms = time_per_image(net, shape, batch=1, repeats=20)
    threads = torch_threads()
    write_json(
        path, {"ms_per_image": round(ms, 2), "batch": 1, "threads": threads, "device": "cpu"}
    )


def _save_attention(
    folder: Path, predictions: Sequence[Prediction], decoded: Sequence[Decoded]
) -> None:
    """Attention maps of tested frames as 8-bit pictures on the network grid, for the report."""
    for prediction, result in zip(predictions, decoded, strict=True):
        if result.attention is not None:
            levels = np.round(result.attention * 255).astype(np.uint8)
            written, data = cv2.imencode(".png", levels)
            assert written
            write_bytes(folder / f"{prediction.key.text}.png", data.tobytes())


def class_counts(labels: Indices, n_classes: int) -> tuple[int, ...]:
    """Images per class, those of unknown class left out."""
    found = np.bincount(labels[labels >= 0], minlength=n_classes)
    return tuple(int(n) for n in found)


def inverse_frequency(labels: Indices, n_classes: int) -> tuple[float, ...]:
    """Class weights by inverse frequency, mean 1 (P1's weight adjustment).

    Raises InputRefused when a class has no training image: its weight would be infinite.
    """
    counts = np.array(class_counts(labels, n_classes), np.float64)
    if (counts == 0).any():
        raise InputRefused(
            Reason.UNKNOWN_LABEL,
            "a class has no training image",
            expected="every class in every training part",
            remedy="use fewer folds or class_weights 'none'",
        )
    raw = 1 / counts
    return tuple(float(w) for w in raw / raw.mean())


def decode_all(
    system: System[Params], params: Params, net: Net, data: PreparedSet, options: TrainOptions
) -> list[Decoded]:
    """Decoded network results of every image in order."""
    found: list[Decoded] = []
    for raw in predict_batches(net, data, 32, options.device, options.tta):
        found += system.decode(params, raw)
    return found
