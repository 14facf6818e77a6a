"""Which epoch is kept, and when does training stop?

Pure functions of the epochs so far: they see training and validation figures and nothing else, so
the choice cannot depend on a test patient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

from renalkit.learn.options import Monitor, TrainOptions


@dataclass(frozen=True, slots=True)
class EpochRow:
    """Figures of one epoch; NaN where a figure does not exist.

    epoch: 1 is the first. loss and its parts: means over images. iou, dice: mean over validation
    images with a lesion in the reference, on the network grid. patient_*: from the mean score of
    each validation patient. seconds: wall clock.
    """

    epoch: int
    lr: float
    train_loss: float
    train_segmentation: float
    train_classification: float
    validation_loss: float
    iou: float
    dice: float
    accuracy: float
    auc: float
    seconds: float
    patient_accuracy: float = math.nan
    patient_auc: float = math.nan
    patient_log_loss: float = math.nan

    def as_dict(self) -> dict[str, float | None]:
        """Values for strict JSON: None for NaN."""
        return {f.name: _or_none(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_dict(cls, values: dict[str, float | None]) -> EpochRow:
        """The row that `as_dict` described."""
        plain = {k: math.nan if v is None else v for k, v in values.items()}
        return cls(**{**plain, "epoch": int(plain["epoch"])})  # type: ignore[arg-type]


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def history_csv(rows: Sequence[EpochRow]) -> str:
    """The rows as CSV with a header; a figure that does not exist is an empty cell."""
    names = [f.name for f in fields(EpochRow)]
    lines = [",".join(names)]
    for row in rows:
        cells = [row.as_dict()[name] for name in names]
        lines.append(",".join("" if cell is None else f"{cell:.9g}" for cell in cells))
    return "\n".join(lines) + "\n"


def _merit(row: EpochRow, monitor: Monitor, segments: bool) -> tuple[float, float]:
    """Larger is better; ties of the monitored figure go to the lower loss (of patients, where
    patients are monitored)."""
    if monitor in ("patient-accuracy", "patient-auc"):
        value = row.patient_accuracy if monitor == "patient-accuracy" else row.patient_auc
        return _or_lowest(value), _or_lowest(-row.patient_log_loss)
    chosen = {"iou": row.iou, "auc": row.auc, "accuracy": row.accuracy}.get(monitor)
    if monitor == "loss+iou" and segments:
        chosen = row.iou
    loss = _or_lowest(-row.validation_loss)
    return (loss, 0.0) if chosen is None else (_or_lowest(chosen), loss)


def _or_lowest(value: float) -> float:
    return -math.inf if math.isnan(value) else value


def best_row(rows: Sequence[EpochRow], monitor: Monitor, segments: bool) -> int:
    """Position of the epoch to keep: the earliest of the best; the last without validation.

    'loss+iou' keeps the best IoU of a system that segments, else the lowest loss. When the
    monitored figure never exists (one class in the validation part), the lowest loss decides.
    """
    if all(math.isnan(row.validation_loss) for row in rows):
        return len(rows) - 1
    merits = [_merit(row, monitor, segments) for row in rows]
    return merits.index(max(merits))


def epochs_without_gain(rows: Sequence[EpochRow], monitor: Monitor, segments: bool) -> int:
    """Epochs since the last improvement; 0 without a validation part.

    'loss+iou' counts a new minimum of the loss or a new maximum of the IoU (P1).
    """
    if all(math.isnan(row.validation_loss) for row in rows):
        return 0
    last = best_row(rows, monitor, segments)
    if monitor == "loss+iou":
        last = max(last, best_row(rows, "loss", segments))
    return len(rows) - 1 - last


def should_stop(rows: Sequence[EpochRow], options: TrainOptions, segments: bool) -> bool:
    """Whether training ends after these epochs."""
    if len(rows) >= options.epochs:
        return True
    waited = epochs_without_gain(rows, options.monitor, segments)
    return len(rows) >= options.min_epochs and waited >= options.patience
