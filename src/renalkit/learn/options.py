"""How a network is trained: plain settings, readable without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import SerializerFunctionWrapHandler, model_serializer

from renalkit.domain.experiment import without_younger
from renalkit.errors import ConfigError

Optimizer = Literal["adam", "adamw", "sgd"]
Schedule = Literal["constant", "cosine", "step", "plateau"]
Monitor = Literal["loss", "iou", "auc", "accuracy", "loss+iou", "patient-accuracy", "patient-auc"]
Sampling = Literal["plain", "oversample", "balanced"]
Precision = Literal["32", "bf16", "16"]
Device = Literal["cpu", "cuda", "auto"]
ClassWeights = Literal["none", "inverse"]
BatchNorm = Literal["device", "synced"]

SINCE: dict[str, Any] = {
    "batchnorm": "device",
    "frames_per_patient": 0,
    "taken_rate": 1.0,
    "taken_heads": False,
}
"""Settings younger than runs that exist, with the value of those runs."""


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """Settings of the training loop; the defaults are P1's.

    patience: epochs without improvement before stopping. monitor: what counts as improvement;
    'loss+iou' stops when neither validation loss nor IoU improved (P1); 'patient-accuracy' and
    'patient-auc' look at the mean score of each patient's frames (P2), ties go to the lower
    log-loss of patients, then to the earlier epoch. frames_per_patient: at most so many frames of
    a patient are drawn anew for each epoch; 0 takes all. sampling: 'oversample'
    repeats minority classes up to the majority, 'balanced' draws a class first. class_weights:
    'inverse' frequency, mean 1; asking for it together with oversampling corrects imbalance
    twice. ema: decay per step of an average of the weights that is validated and kept instead of
    the last weights (0 is off, as in the papers). tta: predict the mean over the image and its
    left-right mirror (off in the papers). devices: GPUs of this machine (with device 'cpu':
    processes of one thread) that share each batch. batchnorm: with several devices, 'device'
    normalises each share by itself, 'synced' (CUDA only) the whole batch. threads: torch threads,
    0 = all cores. loader_threads: augmentation threads.
    """

    epochs: int = 60
    batch_size: int = 16
    optimizer: Optimizer = "adam"
    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: Schedule = "constant"
    step_epochs: int = 10
    step_factor: float = 0.5
    warmup_epochs: int = 0
    patience: int = 20
    min_epochs: int = 1
    monitor: Monitor = "loss+iou"
    clip_norm: float = 0.0
    precision: Precision = "32"
    device: Device = "auto"
    devices: int = 1
    threads: int = 0
    loader_threads: int = 1
    channels_last: bool = True
    sampling: Sampling = "oversample"
    class_weights: ClassWeights = "none"
    ema: float = 0.0
    tta: bool = False
    deterministic: bool = True
    checkpoint_minutes: float = 5.0
    seed: int = 0
    batchnorm: BatchNorm = "device"
    frames_per_patient: int = 0
    taken_rate: float = 1.0
    taken_heads: bool = False

    def __post_init__(self) -> None:
        positive = ("epochs", "batch_size", "lr", "patience", "min_epochs", "devices")
        problems = [
            f"{name}: {getattr(self, name)} must be greater than 0"
            for name in positive
            if not getattr(self, name) > 0
        ]
        for name in (
            "momentum",
            "weight_decay",
            "warmup_epochs",
            "clip_norm",
            "threads",
            "frames_per_patient",
        ):
            if getattr(self, name) < 0:
                problems.append(f"{name}: {getattr(self, name)} must not be negative")
        if not 0 <= self.taken_rate <= 1:
            problems.append(f"taken_rate: {self.taken_rate} must be within 0 to 1")
        if not 0 <= self.ema < 1:
            problems.append(f"ema: {self.ema} must be at least 0 and below 1")
        if problems:
            raise ConfigError(problems, where="train")

    @model_serializer(mode="wrap")
    def _serialised(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_younger(handler(self), SINCE)
