"""How far are a network's masks and classes from the truth about a CT volume?

Shape legend: b volumes, h heads, k output channels, (Z,Y,X) voxels of the batch, (z,y,x) voxels of
a coarser head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from renalkit.domain.volume import CYST, KIDNEY, TUMOUR
from renalkit.errors import ConfigError
from renalkit.learn.losses import DICE_SMOOTH, cross_entropy
from renalkit.learn.outputs import UNKNOWN, Losses, Outputs, VolumeBatch

VolumeLoss = Callable[[Outputs, VolumeBatch], Losses]

WHOLE_KIDNEY = (KIDNEY, TUMOUR, CYST)
MASS = (TUMOUR, CYST)


@dataclass(frozen=True, slots=True)
class MaskLossPlan:
    """What the output channels mean and how the parts of the loss weigh.

    channels: for each output the label values that are inside. dice_weight, bce_weight: of Dice and
    of cross-entropy in every head. Heads weigh 1, 1/2, 1/4 ... from the finest on, scaled to sum
    to 1 (nnU-Net, Isensee et al. 2021).
    """

    channels: tuple[tuple[int, ...], ...] = (WHOLE_KIDNEY,)
    dice_weight: float = 1.0
    bce_weight: float = 1.0

    def __post_init__(self) -> None:
        problems: list[str] = []
        if not self.channels or not all(self.channels):
            problems.append(f"channels: {self.channels}; each output needs a label value")
        if min(self.dice_weight, self.bce_weight) < 0 or self.dice_weight + self.bce_weight <= 0:
            problems.append(
                f"dice_weight, bce_weight: {self.dice_weight}, {self.bce_weight}; "
                "neither negative, not both 0"
            )
        if problems:
            raise ConfigError(problems, where="volume loss")


def channel_masks(labels: Tensor, channels: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """(b,Z,Y,X) uint8 -> masks (b,k,Z,Y,X) and which voxels are known (b,1,Z,Y,X), float32 0 or 1.

    >>> mask, known = channel_masks(torch.tensor([[[[0, 1, 2, 255]]]]), ((1, 2, 3), (2, 3)))
    >>> mask[0, :, 0, 0].tolist(), known[0, 0, 0, 0].tolist()
    ([[0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 1.0, 0.0]], [1.0, 1.0, 1.0, 0.0])
    """
    inside = [torch.isin(labels, labels.new_tensor(list(values))) for values in channels]
    return torch.stack(inside, 1).float(), (labels != UNKNOWN)[:, None].float()


def coarser(mask: Tensor, known: Tensor, size: torch.Size) -> tuple[Tensor, Tensor]:
    """Shares of known voxels that are inside (b,k,z,y,x), and shares that are known (b,1,z,y,x)."""
    if mask.shape[2:] == size:
        return mask, known
    steps = [a // b for a, b in zip(mask.shape[2:], size, strict=True)]
    share = F.avg_pool3d(known, steps)
    inside = F.avg_pool3d(mask * known, steps)
    return inside / share.clamp_min(torch.finfo(share.dtype).tiny), share


def volume_dice(logits: Tensor, mask: Tensor, known: Tensor) -> Tensor:
    """1 - (2 sum(q g) + e) / (sum(q + g) + e); q = sigmoid(logits), e 1e-5.

    logits, mask: (b,k,z,y,x); known: (b,1,z,y,x), the weight of each voxel. Mean over volumes and
    channels, so that a small mass counts as much as a large one. A channel of a volume without a
    voxel inside is left out: there Dice has no gradient worth the name, and cross-entropy teaches
    it. 0 when all are empty.
    """
    inside = torch.sigmoid(logits.float()) * known
    reference = mask * known
    axes = (2, 3, 4)
    there = reference.sum(axes)
    overlap = (inside * mask).sum(axes)
    loss = 1 - (2 * overlap + DICE_SMOOTH) / (inside.sum(axes) + there + DICE_SMOOTH)
    counted = (there > 0).float()
    return (loss * counted).sum() / counted.sum().clamp_min(1)


def volume_bce(logits: Tensor, mask: Tensor, known: Tensor) -> Tensor:
    """Binary cross-entropy from logits, mean over the known voxels and the channels; 0 without."""
    per_voxel = F.binary_cross_entropy_with_logits(logits.float(), mask, reduction="none")
    voxels = known.sum().clamp_min(torch.finfo(known.dtype).tiny)
    return (per_voxel * known).sum() / (voxels * logits.shape[1])


def mask_loss(plan: MaskLossPlan) -> VolumeLoss:
    """Dice + cross-entropy over the heads of a network, coarsest first, finest last."""

    def compute(outputs: Outputs, batch: VolumeBatch) -> Losses:
        assert outputs.mask_logits is not None
        assert batch.labels is not None
        mask, known = channel_masks(batch.labels, plan.channels)
        weights = [0.5**i for i in range(len(outputs.mask_logits))][::-1]
        total = mask.new_zeros(())
        for weight, head in zip(weights, outputs.mask_logits, strict=True):
            inside, share = coarser(mask, known, head.shape[2:])
            dice = volume_dice(head, inside, share)
            bce = volume_bce(head, inside, share)
            total = total + weight * (plan.dice_weight * dice + plan.bce_weight * bce)
        total = total / sum(weights)
        return Losses(total, segmentation=total)

    return compute


def class_loss(class_weights: Sequence[float] | None = None) -> VolumeLoss:
    """Softmax cross-entropy, weighted by class, over the crops whose class is known."""

    def compute(outputs: Outputs, batch: VolumeBatch) -> Losses:
        logits, label = outputs.class_logits, batch.label
        assert logits is not None
        assert label is not None
        weights = None if class_weights is None else logits.new_tensor(class_weights)
        total = cross_entropy(logits, label, weights)
        return Losses(total, classification=total)

    return compute
