"""How is a network of CT volumes trained, so that an interruption costs nothing but time?

Like `renalkit.learn.loop`, but counted in steps: a batch is a function of the step
(`renalkit.learn.patches`), so the state is the step, the rows so far, weights, optimiser and
torch's generators. A resumed training ends with the same weights, bit for bit, on the same machine
with the same library versions and threads.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from renalkit.errors import TrainingFailed
from renalkit.learn.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from renalkit.learn.data import Progress
from renalkit.learn.devices import STOPPED, Stop, stop_requests
from renalkit.learn.outputs import Net
from renalkit.learn.patches import BatchSource
from renalkit.learn.predictor import (
    computes_bf16,
    evaluating,
    plain_state,
    resolve_device,
    save_weights,
)
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
from renalkit.learn.volume_losses import VolumeLoss
from renalkit.learn.volume_options import VolumeOptions, volume_rate
from renalkit.store.files import (
    clean_temporaries,
    make_folder,
    sha256_bytes,
    write_json,
    write_text,
)

Validate = Callable[[Net], Mapping[str, float]]
_NOT_DECISIVE = ("threads", "checkpoint_minutes", "device", "log_steps")
"""Options that may differ between the parts of a resumed training."""


@dataclass(frozen=True, slots=True, eq=False)
class VolumeTask:
    """One network to train.

    build: a new network; its weights are drawn after seeding. source: of training batches; nothing
    of a validation or test patient may be in it. digest: of everything else that decides the
    result: architecture, loss, validation. validate: figures of the network in evaluation mode;
    the same weights must give the same figures. monitor: the figure that is best when largest; NaN
    counts as the worst. Without validation the last weights are kept.
    """

    build: Callable[[], Net]
    loss: VolumeLoss
    source: BatchSource
    digest: str
    validate: Validate | None = None
    monitor: str = ""

    def __post_init__(self) -> None:
        if (self.validate is None) == bool(self.monitor):
            raise ValueError("validation needs the name of a figure to watch, and the reverse")


@dataclass(frozen=True, slots=True)
class VolumeRow:
    """Figures after a step. loss: mean over the steps since the row before. lr: of the last step.
    figures: of validation; empty where there was none. seconds: wall clock since the row before."""

    step: int
    lr: float
    loss: float
    seconds: float
    figures: Mapping[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Values for strict JSON: None for NaN."""
        figures = {k: None if math.isnan(v) else v for k, v in self.figures.items()}
        plain = (self.step, self.lr, self.loss, self.seconds, figures)
        return dict(zip(("step", "lr", "loss", "seconds", "figures"), plain, strict=True))

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> VolumeRow:
        """The row that `as_dict` described."""
        figures = {k: math.nan if v is None else float(v) for k, v in plain["figures"].items()}
        return cls(
            int(plain["step"]),
            float(plain["lr"]),
            float(plain["loss"]),
            float(plain["seconds"]),
            figures,
        )


@dataclass(frozen=True, slots=True)
class VolumeHistory:
    """What a training gave. best_step: the weights kept are those after it; 1 is the first.
    precision: '32' or 'bf16', of its last part."""

    rows: tuple[VolumeRow, ...]
    best_step: int
    weights_sha256: str
    threads: int
    device: str
    precision: str
    notes: tuple[str, ...] = ()

    @property
    def steps(self) -> int:
        return self.rows[-1].step

    @property
    def seconds(self) -> float:
        return sum(row.seconds for row in self.rows)


def best_volume_row(rows: Sequence[VolumeRow], monitor: str) -> int:
    """Position of the earliest row with the largest figure; of the last row where none has it."""
    judged = [i for i, row in enumerate(rows) if row.figures]
    if not judged:
        return len(rows) - 1
    merits = [rows[i].figures[monitor] for i in judged]
    merits = [-math.inf if math.isnan(m) else m for m in merits]
    return judged[merits.index(max(merits))]


def volume_history_csv(rows: Sequence[VolumeRow]) -> str:
    """The rows as CSV with a header; a figure that does not exist is an empty cell."""
    names = list(dict.fromkeys(name for row in rows for name in row.figures))
    lines = [",".join(["step", "lr", "train_loss", "seconds", *names])]
    for row in rows:
        cells = [row.lr, row.loss, row.seconds, *(row.figures.get(n, math.nan) for n in names)]
        text = ("" if math.isnan(cell) else f"{cell:.9g}" for cell in cells)
        lines.append(",".join([str(row.step), *text]))
    return "\n".join(lines) + "\n"


def train_volume(
    task: VolumeTask, options: VolumeOptions, folder: Path, progress: Progress
) -> VolumeHistory:
    """Train a network, or go on with it, or find it done.

    Writes ``history.csv`` with each row, checkpoints below ``state/`` while it works, and at the
    end ``weights.safetensors`` (best step) and ``history.json``; then ``state/`` goes.

    Args:
        task: network, loss, batches and validation.
        options: settings; `seed` decides initial weights and dropout, batches have their own.
        folder: of this training; nobody else writes there.
        progress: told each step.

    Raises:
        ModelRefused: device 'cuda' and there is none.
        TrainingFailed: the loss or a weight became NaN or infinite; ``failure.json`` names the
            batch.
        StoreError: the folder belongs to other settings, or the disk refused.
        KeyboardInterrupt: after SIGINT or SIGTERM; the state is saved and the same call resumes.
    """
    make_folder(folder)
    digest = volume_digest(task, options)
    done = _history(folder, digest)
    if done is not None:
        return done
    settings = torch_settings(options.threads, deterministic=options.deterministic)
    with stop_requests() as stop, settings:
        _Training(task, options, folder, digest, stop).run(progress)
    done = _history(folder, digest)
    assert done is not None
    return done


def volume_digest(task: VolumeTask, options: VolumeOptions) -> str:
    """What a checkpoint must agree with."""
    settings = {k: v for k, v in asdict(options).items() if k not in _NOT_DECISIVE}
    plain = [settings, task.digest, task.source.digest, task.monitor]
    return sha256_bytes(json.dumps(plain, sort_keys=True).encode())


def _history(folder: Path, digest: str) -> VolumeHistory | None:
    plain = finished(folder, digest)
    if plain is None:
        return None
    return VolumeHistory(
        rows=tuple(VolumeRow.from_dict(row) for row in plain["rows"]),
        best_step=int(plain["best_step"]),
        weights_sha256=plain["weights_sha256"],
        threads=int(plain["threads"]),
        device=plain["device"],
        precision=plain["precision"],
        notes=tuple(plain["notes"]),
    )


class _Training:
    """A training in the making: the state that a checkpoint holds, and the steps that change it."""

    def __init__(
        self, task: VolumeTask, options: VolumeOptions, folder: Path, digest: str, stop: Stop
    ) -> None:
        self.task, self.options, self.folder = task, options, folder
        self.digest, self.stop = digest, stop
        self.device = resolve_device(options.device)
        torch.manual_seed(options.seed)
        self.net = task.build().to(self.device)
        if options.channels_last:
            # The stub of Module.to knows no call with a memory format alone.
            cast("Any", self.net).to(memory_format=torch.channels_last_3d)
        self.bf16 = options.precision == "bf16" or (
            options.precision == "auto" and computes_bf16(self.device)
        )
        self.optimizer = _optimizer(self.net, options)
        self.step = 0
        self.rows: list[VolumeRow] = []
        self.best: dict[str, Tensor] = {}
        self.losses: list[float] = []
        self.seconds_before = 0.0
        self.number = 0
        self.notes: list[str] = []
        self.saved_at_s = self.started_s = time.monotonic()

    @property
    def precision(self) -> str:
        return "bf16" if self.bf16 else "32"

    # ---- the course of training

    def run(self, progress: Progress) -> None:
        """Train to the end."""
        clean_temporaries(self.folder)
        self._resume()
        self.started_s = time.monotonic() - self.seconds_before
        steps = self.options.steps
        progress.stage(f"{steps} steps", steps - self.step)
        while True:
            if self.losses and self._row_due():
                self._add_row(progress)
            if self.step == steps:
                break
            if self.stop.asked:
                self._save()
                raise KeyboardInterrupt(STOPPED)
            if time.monotonic() - self.saved_at_s > 60 * self.options.checkpoint_minutes:
                self._save()
            self._train_step()
            progress.advance()
        self._finish()

    def _train_step(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = volume_rate(self.options, self.step)
        self.net.train()
        batch = self.task.source.batch(self.step).to(self.device)
        if self.options.channels_last:
            batch = batch._replace(image=batch.image.to(memory_format=torch.channels_last_3d))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            outputs = self.net(batch.image)
        loss = self.task.loss(outputs, batch).total
        value = float(loss.detach())
        if not math.isfinite(value):
            raise self._failed(f"the loss is {value}", self.step)
        loss.backward()
        if self.options.clip_norm > 0:
            # A norm that is not finite shows in the loss of the next step, or in the weights.
            nn.utils.clip_grad_norm_(self.net.parameters(), self.options.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.losses.append(value)
        self.step += 1

    def _validation_due(self) -> bool:
        every = self.options.validate_steps
        if self.task.validate is None or not every:
            return False
        return self.step % every == 0 or self.step == self.options.steps

    def _row_due(self) -> bool:
        ended = self.step == self.options.steps
        return ended or self.step % self.options.log_steps == 0 or self._validation_due()

    def _add_row(self, progress: Progress) -> None:
        figures = self._validated() if self._validation_due() else {}
        seconds = time.monotonic() - self.started_s
        lr = volume_rate(self.options, self.step - 1)
        loss = math.fsum(self.losses) / len(self.losses)
        self.rows.append(VolumeRow(self.step, lr, loss, seconds, figures))
        self.losses = []
        self.started_s = time.monotonic()
        if best_volume_row(self.rows, self.task.monitor) == len(self.rows) - 1 and (
            figures or self.step == self.options.steps
        ):
            self.best = self._weights()
        write_text(self.folder / HISTORY_TABLE, volume_history_csv(self.rows))
        shown = {"loss": loss, **figures}
        progress.advance(0, ", ".join(f"{k} {v:.3f}" for k, v in shown.items()))

    def _validated(self) -> dict[str, float]:
        assert self.task.validate is not None
        self._weights()  # refuses what is not finite, before anybody computes with it
        generator = torch.get_rng_state()
        try:
            with evaluating(self.net):
                found = {k: float(v) for k, v in self.task.validate(self.net).items()}
        except KeyboardInterrupt:
            torch.set_rng_state(generator)
            self._save()
            raise
        torch.set_rng_state(generator)
        if self.task.monitor not in found:
            raise ValueError(f"validation gave {sorted(found)}, not '{self.task.monitor}'")
        for name, value in found.items():
            if math.isinf(value):
                raise self._failed(f"the validation figure '{name}' is {value}", self.step - 1)
        return found

    def _weights(self) -> dict[str, Tensor]:
        """The weights as they are, on the CPU; they are finite."""
        state = plain_state(self.net)
        if not all(bool(torch.isfinite(v).all()) for v in state.values()):
            raise self._failed("a weight is NaN or infinite", self.step - 1)
        return state

    def _failed(self, found: str, step: int) -> TrainingFailed:
        step = max(step, 0)
        names = self.task.source.names(step)
        write_json(
            self.folder / FAILURE, {"found": found, "step": step + 1, "images": sorted(set(names))}
        )
        return TrainingFailed(
            f"{found} in step {step + 1} (images {', '.join(names[:3])}"
            f"{', ...' if len(names) > 3 else ''})",
            where=self.folder.name,
            expected="finite numbers",
            remedy=f"look at the images listed in {FAILURE}; try a lower lr or a smaller clip_norm",
        )

    def _finish(self) -> None:
        self.net.load_state_dict(self.best, strict=True)
        sha256 = save_weights(self.net, self.folder / WEIGHTS)
        write_text(self.folder / HISTORY_TABLE, volume_history_csv(self.rows))
        write_json(
            self.folder / HISTORY,
            {
                "digest": self.digest,
                "rows": [row.as_dict() for row in self.rows],
                "best_step": self.rows[best_volume_row(self.rows, self.task.monitor)].step,
                "weights_sha256": sha256,
                **here(self.device, self.precision),
                "notes": self.notes,
            },
        )
        (self.folder / FAILURE).unlink(missing_ok=True)
        remove_state(self.folder)

    # ---- checkpoints

    def _save(self) -> None:
        tensors = {f"model/{k}": v for k, v in self._weights().items()}
        tensors |= {f"best/{k}": v for k, v in self.best.items()}
        tensors |= optimizer_tensors(self.optimizer)
        tensors["rng/cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["rng/cuda"] = torch.cuda.get_rng_state(self.device)
        values = {
            "digest": self.digest,
            "step": self.step,
            "losses": self.losses,
            "rows": [row.as_dict() for row in self.rows],
            "seconds": time.monotonic() - self.started_s,
            **here(self.device, self.precision),
            "notes": self.notes,
        }
        self.number += 1
        save_checkpoint(self.folder / STATE, self.number, Checkpoint(tensors, values))
        self.saved_at_s = time.monotonic()

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
        load_optimizer(self.optimizer, under(tensors, "optimizer/"))
        torch.set_rng_state(tensors["rng/cpu"])
        if self.device.type == "cuda" and "rng/cuda" in tensors:
            torch.cuda.set_rng_state(tensors["rng/cuda"], self.device)
        self.step = int(values["step"])
        self.losses = [float(value) for value in values["losses"]]
        self.rows = [VolumeRow.from_dict(row) for row in values["rows"]]
        self.seconds_before = float(values["seconds"])
        now = here(self.device, self.precision)
        self.notes = [*values["notes"], *found.notes, *moved(values, now)]


def _optimizer(net: Net, options: VolumeOptions) -> torch.optim.Optimizer:
    parameters = [p for p in net.parameters() if p.requires_grad]
    lr, decay = options.lr, options.weight_decay
    if options.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=lr, weight_decay=decay)
    return torch.optim.SGD(
        parameters,
        lr=lr,
        momentum=options.momentum,
        weight_decay=decay,
        nesterov=options.momentum > 0,
    )
