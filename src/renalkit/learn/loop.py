"""How is one fold trained, so that an interruption changes nothing but the time it took?

State is (epoch, step), the rows so far, weights, optimiser and torch's generators; everything
about batches follows from the seed (`renalkit.learn.data`). A resumed training on the same machine
with the same library versions, threads and number of devices ends with the same weights, bit for
bit. Several devices go through the same steps together (`renalkit.learn.devices`).
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from renalkit.domain.experiment import without_younger
from renalkit.errors import TrainingFailed
from renalkit.learn.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from renalkit.learn.data import (
    Batch,
    BatchPlan,
    Indices,
    PreparedSet,
    Progress,
    batches,
    epoch_order,
    plain_batches,
    step_slices,
)
from renalkit.learn.devices import (
    STOPPED,
    Alone,
    Group,
    require_devices,
    stop_requests,
    train_together,
)
from renalkit.learn.options import SINCE, TrainOptions
from renalkit.learn.outputs import Guide, Losses, Net, Outputs, Targets
from renalkit.learn.predictor import evaluating, plain_state, save_weights
from renalkit.learn.schedule import learning_rate
from renalkit.learn.selection import EpochRow, best_row, history_csv, should_stop
from renalkit.learn.training_folder import (
    FAILURE,
    HISTORY,
    HISTORY_TABLE,
    STATE,
    WEIGHTS,
    finished,
    foreign,
    here,
    load_optimizer,
    moved,
    optimizer_tensors,
    remove_state,
    torch_settings,
    under,
)
from renalkit.learn.validation import Validation, ValidationBatch, summarise
from renalkit.store.files import (
    clean_temporaries,
    make_folder,
    sha256_bytes,
    write_json,
    write_text,
)
from renalkit.transforms.augment import AugmentRanges

log = logging.getLogger(__name__)

CUDA_STEPS_PER_CHECK = 20
"""On a GPU the loss is looked at once per so many steps: looking waits for the device."""
_NOT_DECISIVE = ("loader_threads", "checkpoint_minutes", "threads", "device")
"""Options that may differ between the parts of a resumed training."""


@dataclass(frozen=True, slots=True, eq=False)
class FoldTask:
    """One network to train on one division of the images.

    build: a new network; its weights are drawn after seeding. loss: (Outputs, Targets) -> Losses.
    train, validation: positions in `data`, disjoint; validation may be empty. guide_share: share
    of the reference mask shown to the network at a progress in [0,1].
    """

    build: Callable[[], Net]
    loss: Callable[[Outputs, Targets], Losses]
    data: PreparedSet
    train: Indices
    validation: Indices
    guide_share: Callable[[float], float]
    segments: bool
    classifies: bool
    n_classes: int

    def __post_init__(self) -> None:
        shared = np.intersect1d(self.train, self.validation)
        if len(shared):
            raise ValueError(f"{len(shared)} images are in training and in validation")
        if len(self.train) < 2:
            raise TrainingFailed(
                f"{len(self.train)} training images",
                where="training part",
                expected="at least 2",
                remedy="use fewer folds or add patients",
            )


@dataclass(frozen=True, slots=True)
class FoldHistory:
    """What training a fold gave. best_epoch: 1 is the first. rows: one per epoch."""

    rows: tuple[EpochRow, ...]
    best_epoch: int
    weights_sha256: str
    threads: int
    device: str
    notes: tuple[str, ...] = ()
    devices: int = 1

    @property
    def epochs(self) -> int:
        return len(self.rows)

    @property
    def seconds(self) -> float:
        return sum(row.seconds for row in self.rows)


def train_fold(
    task: FoldTask,
    options: TrainOptions,
    ranges: AugmentRanges | None,
    folder: Path,
    progress: Progress,
) -> FoldHistory:
    """Train a fold, or go on with it, or find it done.

    Writes ``history.csv`` after each epoch, checkpoints below ``state/`` while it works, and at
    the end ``weights.safetensors`` (best epoch) and ``history.json``; then ``state/`` goes.

    Args:
        task: network, loss and images.
        options: settings; `seed` decides initial weights, batches, augmentation and dropout.
        ranges: augmentation of training images, None for none.
        folder: of this fold; nobody else writes there.
        progress: told each step.

    Raises:
        ConfigError: more devices asked for than there are, or than the other settings allow.
        TrainingFailed: the loss or a weight became NaN or infinite; ``failure.json`` names the
            batch.
        StoreError: the folder belongs to other settings, or the disk refused.
        KeyboardInterrupt: after SIGINT or SIGTERM; the state is saved and the same call resumes.
    """
    make_folder(folder)
    digest = task_digest(task, options, ranges)
    done = _finished(folder, digest)
    if done is not None:
        return done

    def train(group: Group, told: Progress) -> None:
        with torch_settings(options.threads, deterministic=options.deterministic):
            _Training(task, options, ranges, folder, group, digest).run(told)

    if options.devices == 1:
        with stop_requests() as stop:
            train(Alone(stop), progress)
    else:
        require_devices(options)
        train_together(options, train, progress)
    done = _finished(folder, digest)
    assert done is not None
    return done


def task_digest(task: FoldTask, options: TrainOptions, ranges: AugmentRanges | None) -> str:
    """What a checkpoint must agree with: settings, images and truth of both parts."""
    data = task.data
    parts = {
        name: [(data.keys[i].text, int(data.labels[i]), bool(data.has_mask[i])) for i in indices]
        for name, indices in (("train", task.train), ("validation", task.validation))
    }
    settings = {
        k: v for k, v in without_younger(asdict(options), SINCE).items() if k not in _NOT_DECISIVE
    }
    augment = None if ranges is None else ranges.as_dict()
    plain: list[Any] = [settings, augment, parts, data.size, task.n_classes]
    if data.images.shape[1] > 1 or data.features.shape[1]:
        plain.append([data.images.shape[1], data.features.shape[1]])
    return sha256_bytes(json.dumps(plain, sort_keys=True).encode())


def _finished(folder: Path, digest: str) -> FoldHistory | None:
    plain = finished(folder, digest)
    if plain is None:
        return None
    return FoldHistory(
        rows=tuple(EpochRow.from_dict(row) for row in plain["rows"]),
        best_epoch=int(plain["best_epoch"]),
        weights_sha256=plain["weights_sha256"],
        threads=int(plain["threads"]),
        device=plain["device"],
        notes=tuple(plain["notes"]),
        devices=int(plain.get("devices", 1)),
    )


def _optimizer(net: Net, options: TrainOptions) -> torch.optim.Optimizer:
    own = [p for name, p in net.named_parameters() if p.requires_grad and name not in net.taken]
    taken = [p for name, p in net.named_parameters() if p.requires_grad and name in net.taken]
    groups: list[dict[str, Any]] = [{"params": own, "share": 1.0}]
    if options.taken_rate == 1:
        groups[0]["params"] = [p for p in net.parameters() if p.requires_grad]
    elif taken:
        groups.append({"params": taken, "share": options.taken_rate})
    lr, decay = options.lr, options.weight_decay
    if options.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=options.momentum, weight_decay=decay)
    kind = torch.optim.Adam if options.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, lr=lr, weight_decay=decay)


def _hold_taken(net: Net) -> None:
    """Leave the layers taken from an initial model as they are."""
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name not in net.taken)


def _learning(module: nn.Module, net: Net, options: TrainOptions) -> None:
    """Training mode, but for batch normalisation that is left as it was taken."""
    module.train()
    if options.taken_rate > 0:
        return
    for name, part in net.named_modules():
        if f"{name}.running_mean" in net.taken:
            part.eval()


class _Trainee(nn.Module):
    """The network behind plain arguments: Fabric walks through what it is called with, and
    cannot walk through a frozen Guide."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net

    def forward(
        self,
        image: Tensor,
        mask: Tensor | None = None,
        known: Tensor | None = None,
        share: float = 0.0,
        features: Tensor | None = None,
    ) -> Outputs:
        guide = None if mask is None else Guide(mask, share, known)
        if features is None:
            return self.net(image, guide)
        return self.net(image, guide, features)


class _Training:
    """One fold in the making: the state that a checkpoint holds, and the steps that change it."""

    def __init__(
        self,
        task: FoldTask,
        options: TrainOptions,
        ranges: AugmentRanges | None,
        folder: Path,
        group: Group,
        digest: str,
    ) -> None:
        self.task, self.options, self.folder = task, options, folder
        self.group, self.digest = group, digest
        self.plan = BatchPlan(
            options.seed,
            options.batch_size,
            options.sampling,
            ranges,
            options.loader_threads,
            group.rank,
            group.devices,
            options.frames_per_patient,
        )
        self.fabric = group.fabric(options)
        torch.manual_seed(options.seed)
        self.net = task.build()
        if options.taken_rate == 0:
            _hold_taken(self.net)
        group.network(self.net, options)
        if options.channels_last:
            _channels_last(self.net)
        self.module, self.optimizer = self.fabric.setup(
            _Trainee(self.net), _optimizer(self.net, options)
        )
        if isinstance(task.loss, nn.Module):
            task.loss.to(self.fabric.device)
        self.epoch = 0
        self.step = 0
        self.rows: list[EpochRow] = []
        self.best: dict[str, Tensor] = {}
        self.average: dict[str, Tensor] = {}
        self.sums = torch.zeros(4, dtype=torch.float64, device=self.fabric.device)
        self.seconds_before = 0.0
        self.number = 0
        self.notes: list[str] = []
        self.unchecked: list[tuple[int, Tensor]] = []
        self.saved_at_s = time.monotonic()

    # ---- the course of training

    def run(self, progress: Progress) -> None:
        """Train to the end; with several devices each calls this, and rank 0 writes."""
        with self.group.in_turn():
            clean_temporaries(self.folder)
            self._resume()
        self.group.same(self.net.state_dict().values())
        options = self.options
        while not (self.rows and should_stop(self.rows, options, self.task.segments)):
            started_s = time.monotonic() - self.seconds_before
            data = self.task.data
            order = epoch_order(data.labels, self.task.train, self.plan, self.epoch, data.patients)
            slices = step_slices(len(order), options.batch_size)
            losses = [row.validation_loss for row in self.rows]
            lr = learning_rate(options, self.epoch, losses)
            progress.stage(f"epoch {self.epoch + 1} of {options.epochs}", len(slices) - self.step)
            self._train_epoch(order, slices, lr, started_s, progress)
            try:
                with evaluating(self.module), self._averaged():
                    found = Validation(*self.group.first(self._validate))
                    candidate = plain_state(self.net)
            except KeyboardInterrupt:
                self._save(time.monotonic() - started_s)
                raise
            row = self._row(lr, found, time.monotonic() - started_s)
            self._end_epoch(row, candidate)
            progress.advance(0, _words(row))
            if any(self.group.agree(self.group.stop.asked)):
                raise KeyboardInterrupt(STOPPED)
        if self.group.rank == 0:
            self._finish()

    def _train_epoch(
        self,
        order: Indices,
        slices: list[slice],
        lr: float,
        started_s: float,
        progress: Progress,
    ) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["share"]
        _learning(self.module, self.net, self.options)
        source = batches(self.task.data, self.task.train, self.plan, self.epoch, self.step)
        try:
            for batch in source:
                self._train_step(batch, slices[self.step], len(slices))
                self.step += 1
                if self._look_now(len(slices)):
                    self._require_finite(order, slices)
                progress.advance()
                late = time.monotonic() - self.saved_at_s > 60 * self.options.checkpoint_minutes
                stop, save = self.group.agree(self.group.stop.asked, late)
                if stop:
                    self._require_finite(order, slices)
                    self._save(time.monotonic() - started_s)
                    raise KeyboardInterrupt(STOPPED)
                if save:
                    self._require_finite(order, slices)
                    self._save(time.monotonic() - started_s)
        finally:
            source.close()

    def _train_step(self, batch: Batch, step: slice, steps: int) -> None:
        """step: the batch's positions in the epoch, of which this rank has its share."""
        image, targets, features = self._moved(batch)
        done = (self.epoch * steps + self.step) / (self.options.epochs * steps)
        share = self.task.guide_share(done)
        shown = (targets.mask, targets.has_mask, share) if share > 0 else ()
        given = self.module(image, *shown, features=features)
        outputs, targets = self.group.join(given, targets, step)
        losses = self.task.loss(outputs, targets)
        self.fabric.backward(losses.total)
        self.group.sum_gradients(self.net)
        if self.options.clip_norm > 0:
            # A non-finite norm is found through the loss of the next step, without waiting here.
            self.fabric.clip_gradients(
                self.module,
                self.optimizer,
                max_norm=self.options.clip_norm,
                error_if_nonfinite=False,
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.group.same(self.net.buffers())
        if self.options.ema > 0:
            self._blend(self.epoch * steps + self.step)
        total = losses.total.detach()
        parts = [total, *(_or_nan(p, total) for p in (losses.segmentation, losses.classification))]
        count = torch.ones_like(total)
        self.sums += torch.stack([*parts, count]).double() * len(targets.label)
        self.unchecked.append((self.step, total))

    @torch.no_grad()
    def _blend(self, steps_done: int) -> None:
        """Move the average of the weights towards them; slowly only once there are many steps."""
        decay = min(self.options.ema, (1 + steps_done) / (10 + steps_done))
        for name, value in self.net.state_dict().items():
            before = self.average.get(name)
            if before is None or not value.is_floating_point():
                self.average[name] = value.detach().clone()
            else:
                before.lerp_(value, 1 - decay)

    @contextmanager
    def _averaged(self) -> Generator[None]:
        """The network with its averaged weights, where averaging is on."""
        if not self.average:
            yield
            return
        own = plain_state(self.net)
        self.net.load_state_dict(self.average, strict=True)
        try:
            yield
        finally:
            self.net.load_state_dict(own, strict=True)

    def _validate(self) -> tuple[float, ...]:
        patients = [self.task.data.patients[i] for i in self.task.validation]
        return astuple(summarise(self._validation_batches(), patients))

    def _validation_batches(self) -> Iterator[ValidationBatch]:
        task = self.task
        for batch in plain_batches(task.data, task.validation, self.options.batch_size):
            if self.group.stop.asked:
                raise KeyboardInterrupt(STOPPED)
            image, targets, features = self._moved(batch)
            outputs = self.module(image, features=features)
            yield ValidationBatch(task.loss(outputs, targets).total, outputs, targets)

    def _moved(self, batch: Batch) -> Batch:
        image, targets, features = batch
        device = self.fabric.device
        if device.type == "cuda":
            image = image.pin_memory()
        image = image.to(device, non_blocking=True)
        if self.options.channels_last:
            image = image.contiguous(memory_format=torch.channels_last)
        moved = Targets(
            targets.mask.to(device), targets.has_mask.to(device), targets.label.to(device)
        )
        return Batch(image, moved, None if features is None else features.to(device))

    # ---- what must not happen

    def _look_now(self, n_steps: int) -> bool:
        if self.fabric.device.type == "cpu" or self.step == n_steps:
            return True
        return len(self.unchecked) >= CUDA_STEPS_PER_CHECK

    def _require_finite(self, order: Indices, slices: list[slice]) -> None:
        """Raise for the first step since the last look whose loss was not finite."""
        waiting, self.unchecked = self.unchecked, []
        if not waiting:
            return
        values = torch.stack([loss for _, loss in waiting]).double().cpu().tolist()
        for (step, _), value in zip(waiting, values, strict=True):
            if not math.isfinite(value):
                names = [self.task.data.keys[i].text for i in order[slices[step]]]
                raise self._failed(f"the loss is {value}", step, names)

    def _failed(self, found: str, step: int, names: list[str]) -> TrainingFailed:
        # All ranks come here together. The first that raises ends all: rank 0 writes before that.
        with self.group.in_turn():
            if self.group.rank == 0:
                write_json(
                    self.folder / FAILURE,
                    {"found": found, "epoch": self.epoch + 1, "step": step + 1, "images": names},
                )
        return TrainingFailed(
            f"{found} in epoch {self.epoch + 1}, step {step + 1} (images {', '.join(names[:3])}"
            f"{', ...' if len(names) > 3 else ''})",
            where=self.folder.name,
            expected="finite numbers",
            remedy=f"look at the images listed in {FAILURE}; try a lower lr, clip_norm 1 or "
            "precision '32'",
        )

    # ---- epochs and their record

    def _row(self, lr: float, found: Validation, seconds: float) -> EpochRow:
        total, segmentation, classification, count = self.sums.cpu().tolist()
        if math.isinf(found.loss) or (len(self.task.validation) and math.isnan(found.loss)):
            raise self._failed(f"the validation loss is {found.loss}", self.step - 1, [])
        return EpochRow(
            epoch=self.epoch + 1,
            lr=lr,
            train_loss=total / count,
            train_segmentation=segmentation / count,
            train_classification=classification / count,
            validation_loss=found.loss,
            iou=found.iou,
            dice=found.dice,
            accuracy=found.accuracy,
            auc=found.auc,
            seconds=seconds,
            patient_accuracy=found.patient_accuracy,
            patient_auc=found.patient_auc,
            patient_log_loss=found.patient_log_loss,
        )

    def _end_epoch(self, row: EpochRow, candidate: dict[str, Tensor]) -> None:
        self.rows.append(row)
        if best_row(self.rows, self.options.monitor, self.task.segments) == len(self.rows) - 1:
            self.best = candidate
        self.epoch, self.step = self.epoch + 1, 0
        self.sums.zero_()
        if self.group.rank == 0:
            write_text(self.folder / HISTORY_TABLE, history_csv(self.rows))
        self._save(0.0)
        self.seconds_before = 0.0

    def _finish(self) -> None:
        path = self.folder / WEIGHTS
        self.net.load_state_dict(self.best, strict=True)
        sha256 = save_weights(self.net, path)
        write_text(self.folder / HISTORY_TABLE, history_csv(self.rows))
        write_json(
            self.folder / HISTORY,
            {
                "digest": self.digest,
                "rows": [row.as_dict() for row in self.rows],
                "best_epoch": best_row(self.rows, self.options.monitor, self.task.segments) + 1,
                "weights_sha256": sha256,
                "threads": torch.get_num_threads(),
                "device": self.fabric.device.type,
                "devices": self.group.devices,
                "torch": torch.__version__,
                "notes": self.notes,
            },
        )
        (self.folder / FAILURE).unlink(missing_ok=True)
        remove_state(self.folder)

    # ---- checkpoints

    def _save(self, seconds: float) -> None:
        tensors = {f"model/{k}": v for k, v in plain_state(self.net).items()}
        tensors |= {f"best/{k}": v for k, v in self.best.items()}
        average = {k: v.cpu().contiguous().clone() for k, v in self.average.items()}
        tensors |= {f"average/{k}": v for k, v in average.items()}
        if not all(bool(torch.isfinite(v).all()) for v in tensors.values()):
            raise self._failed("a weight is NaN or infinite", max(self.step - 1, 0), [])
        tensors |= optimizer_tensors(self.optimizer)
        generators = {"cpu": torch.get_rng_state()}
        if self.fabric.device.type == "cuda":
            generators["cuda"] = torch.cuda.get_rng_state(self.fabric.device)
        for rank, states in enumerate(self.group.gather(generators)):
            tensors |= {_generator_name(rank, kind): state for kind, state in states.items()}
        tensors["sums"] = self.sums.cpu().clone()
        values = {
            "digest": self.digest,
            "epoch": self.epoch,
            "step": self.step,
            "rows": [row.as_dict() for row in self.rows],
            "seconds": seconds,
            **here(self.fabric.device),
            "scaler": self._scaler_state(),
            "notes": self.notes,
        }
        self.number += 1
        if self.group.rank == 0:
            save_checkpoint(self.folder / STATE, self.number, Checkpoint(tensors, values))
        self.saved_at_s = time.monotonic()

    def _scaler_state(self) -> dict[str, Any]:
        scaler = getattr(self.fabric.strategy.precision, "scaler", None)
        return {} if scaler is None else dict(scaler.state_dict())

    def _resume(self) -> None:
        found = load_checkpoint(self.folder / STATE)
        self.notes += found.notes
        self.number = found.number
        if found.checkpoint is None:
            return
        tensors, values = found.checkpoint.tensors, found.checkpoint.values
        if values["digest"] != self.digest:
            raise foreign(self.folder)
        self.net.load_state_dict(under(tensors, "model/"), strict=True)
        self.best = under(tensors, "best/")
        device = self.fabric.device
        self.average = {k: v.to(device) for k, v in under(tensors, "average/").items()}
        load_optimizer(self.optimizer, under(tensors, "optimizer/"))
        if values["scaler"]:
            cast("Any", self.fabric.strategy.precision).scaler.load_state_dict(values["scaler"])
        torch.set_rng_state(tensors[_generator_name(self.group.rank, "cpu")])
        on_device = tensors.get(_generator_name(self.group.rank, "cuda"))
        if on_device is not None and self.fabric.device.type == "cuda":
            torch.cuda.set_rng_state(on_device, self.fabric.device)
        self.sums.copy_(tensors["sums"])
        self.epoch, self.step = int(values["epoch"]), int(values["step"])
        self.rows = [EpochRow.from_dict(row) for row in values["rows"]]
        self.seconds_before = float(values["seconds"])
        self.notes = [*values["notes"], *found.notes, *moved(values, here(self.fabric.device))]


def _generator_name(rank: int, kind: str) -> str:
    return f"rng/{rank}/{kind}" if rank else f"rng/{kind}"


def _or_nan(part: Tensor | None, like: Tensor) -> Tensor:
    return torch.full_like(like, math.nan) if part is None else part.detach().to(like.dtype)


def _channels_last(net: nn.Module) -> None:
    # The stub of Module.to knows no call with a memory format alone.
    cast("Any", net).to(memory_format=torch.channels_last)


def _words(row: EpochRow) -> str:
    shown = [f"loss {row.train_loss:.3f}"]
    for name, value in (
        ("validation", row.validation_loss),
        ("IoU", row.iou),
        ("accuracy", row.accuracy),
        ("AUC", row.auc),
    ):
        if not math.isnan(value):
            shown.append(f"{name} {value:.3f}")
    return ", ".join(shown)
