"""How good is a network on the validation part, on its own grid?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from renalkit.learn.outputs import Outputs, Targets
from renalkit.metrics.classification import auc

# Shape legend: b images of a batch, s side in pixels, k classes.


@dataclass(frozen=True, slots=True)
class Validation:
    """Mean loss, mean per-image IoU and Dice, accuracy and AUC; NaN where undefined.

    patient_*: the same from the mean score of each patient's images; patient_log_loss is the mean
    negative logarithm of the true class's score.
    """

    loss: float = math.nan
    iou: float = math.nan
    dice: float = math.nan
    accuracy: float = math.nan
    auc: float = math.nan
    patient_accuracy: float = math.nan
    patient_auc: float = math.nan
    patient_log_loss: float = math.nan


@dataclass(frozen=True, slots=True)
class ValidationBatch:
    """What a validation step found: mean loss (scalar), outputs, targets."""

    loss: Tensor
    outputs: Outputs
    targets: Targets


def overlap(logits: Tensor, targets: Targets) -> Tensor:
    """(n,2) IoU and Dice of the images whose reference is known and not empty.

    logits: (b,1,s,s); a pixel is inside when its probability is above one half (logit > 0).
    """
    inside = (logits > 0).flatten(1)
    truth = (targets.mask > 0.5).flatten(1)
    both = (inside & truth).sum(1).double()
    either = (inside | truth).sum(1).double()
    counted = targets.has_mask & truth.any(1)
    return torch.stack([both / either, 2 * both / (either + both)], dim=1)[counted]


def summarise(batches: Iterator[ValidationBatch], patients: Sequence[str] = ()) -> Validation:
    """Figures over all batches; every batch costs one synchronisation.

    patients: one per image, in order; empty leaves the figures of patients out.
    """
    losses: list[float] = []
    sizes: list[int] = []
    overlaps: list[npt.NDArray[np.float64]] = []
    scores: list[npt.NDArray[np.float64]] = []
    labels: list[npt.NDArray[np.int64]] = []
    for batch in batches:
        sizes.append(len(batch.targets.label))
        losses.append(float(batch.loss))
        if batch.outputs.mask_logits is not None:
            overlaps.append(overlap(batch.outputs.mask_logits[-1], batch.targets).cpu().numpy())
        if batch.outputs.class_logits is not None:
            scores.append(torch.softmax(batch.outputs.class_logits.double(), 1).cpu().numpy())
            labels.append(batch.targets.label.cpu().numpy())
    if not sizes:
        return Validation()
    loss = float(np.average(losses, weights=sizes))
    both = np.concatenate(overlaps) if overlaps else np.empty((0, 2))
    iou, dice = (float(v) for v in both.mean(0)) if len(both) else (math.nan, math.nan)
    if not scores:
        return Validation(loss, iou, dice)
    values, truth = np.concatenate(scores), np.concatenate(labels)
    accuracy, area = _classification(values, truth)
    if not patients:
        return Validation(loss, iou, dice, accuracy, area)
    means, known = _of_patients(values, truth, patients)
    by_patient = _classification(means, known)
    return Validation(loss, iou, dice, accuracy, area, *by_patient, _log_loss(means, known))


def _of_patients(
    scores: npt.NDArray[np.float64], labels: npt.NDArray[np.int64], patients: Sequence[str]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Mean scores (p,k) and label (p,) of each patient with one class among the labelled images."""
    names = np.asarray(patients)[labels >= 0]
    scores, labels = scores[labels >= 0], labels[labels >= 0]
    means: list[npt.NDArray[np.float64]] = []
    truth: list[int] = []
    for name in dict.fromkeys(names.tolist()):
        own = names == name
        classes = set(labels[own].tolist())
        if len(classes) == 1:
            means.append(scores[own].mean(0))
            truth.append(classes.pop())
    return np.array(means).reshape(len(means), scores.shape[1]), np.array(truth, np.int64)


def _log_loss(scores: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> float:
    if not len(labels):
        return math.nan
    own = scores[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(own, np.finfo(np.float64).tiny)).mean())


def _classification(
    scores: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]
) -> tuple[float, float]:
    known = labels >= 0
    scores, labels = scores[known], labels[known]
    if not len(labels):
        return math.nan, math.nan
    accuracy = float(np.mean(scores.argmax(1) == labels))
    return accuracy, validation_auc(scores, labels)


def validation_auc(scores: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> float:
    """AUC of class 1 for two classes, else the mean of one class against the rest.

    scores (n,k), labels (n,). Classes that are absent or alone are left out; NaN without any.
    """
    n_classes = scores.shape[1]
    classes = [1] if n_classes == 2 else list(range(n_classes))
    values = [
        auc((labels == c).astype(np.int64), scores[:, c])
        for c in classes
        if 0 < int(np.sum(labels == c)) < len(labels)
    ]
    return float(np.mean(values)) if values else math.nan
