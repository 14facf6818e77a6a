"""How far are a network's outputs from the truth?

Shape legend: b images, s side in pixels, k classes, h heads. All losses work on logits, in
float32 or, where given, float64; half precision is raised to float32 first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from renalkit.learn.outputs import Losses, Outputs, Targets

DICE_SMOOTH = 1e-5


def _exact(value: Tensor) -> Tensor:
    return value if value.dtype == torch.float64 else value.float()


def _mean_of_known(per_image: Tensor, known: Tensor | None) -> Tensor:
    """Mean over the images with known truth; 0, still joined to the graph, when there is none."""
    if known is None:
        return per_image.mean()
    weight = known.to(per_image.dtype)
    return (per_image * weight).sum() / weight.sum().clamp_min(1)


def dice_loss(logits: Tensor, mask: Tensor, known: Tensor | None = None) -> Tensor:
    """1 - (2 sum(q g) + e) / (sum q + sum g + e) per image, then the mean; e = 1e-5.

    q = sigmoid(logits) (b,1,s,s), g = mask (b,1,s,s) in {0,1}; known (b,) bool or None. An empty
    reference costs nearly 1 until the prediction is empty too, with a gradient near 0: the
    cross-entropy part has to teach it. Source: P1, Dice loss.

    >>> bool(dice_loss(torch.full((1, 1, 2, 2), 30.0), torch.ones(1, 1, 2, 2)) < 1e-6)
    True
    """
    probability = torch.sigmoid(_exact(logits)).flatten(1)
    reference = mask.to(probability.dtype).flatten(1)
    overlap = (probability * reference).sum(1)
    total = probability.sum(1) + reference.sum(1)
    return _mean_of_known(1 - (2 * overlap + DICE_SMOOTH) / (total + DICE_SMOOTH), known)


def bce_loss(logits: Tensor, mask: Tensor, known: Tensor | None = None) -> Tensor:
    """Binary cross-entropy from logits, mean over the pixels of an image, then over images.

    Stable for any finite logit: max(x,0) - x g + log(1 + exp(-|x|)). Source: P1, BCELoss.
    """
    exact = _exact(logits)
    per_pixel = F.binary_cross_entropy_with_logits(exact, mask.to(exact.dtype), reduction="none")
    return _mean_of_known(per_pixel.flatten(1).mean(1), known)


def cross_entropy(logits: Tensor, label: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Softmax cross-entropy, weighted mean over the images whose label is known (not -1).

    logits (b,k), label (b,) int64, class_weights (k,). sum(w_y l) / sum(w_y); 0 when no label is
    known.

    >>> round(float(cross_entropy(torch.zeros(2, 4), torch.tensor([1, -1]))), 4)
    1.3863
    """
    exact = _exact(logits)
    known = label >= 0
    chosen = label.clamp_min(0)
    per_image = -F.log_softmax(exact, 1).gather(1, chosen[:, None])[:, 0]
    weight = known.to(exact.dtype)
    if class_weights is not None:
        weight = weight * class_weights.to(exact)[chosen]
    return (per_image * weight).sum() / weight.sum().clamp_min(torch.finfo(exact.dtype).tiny)


@dataclass(frozen=True, slots=True)
class LossPlan:
    """Weights of the parts.

    Segmentation: mean over heads of dice_weight * Dice + bce_weight * BCE. Both tasks:
    segmentation_weight * segmentation + (1 - segmentation_weight) * classification.
    """

    segments: bool
    classifies: bool
    dice_weight: float = 1.0
    bce_weight: float = 1.0
    segmentation_weight: float = 0.5
    class_weights: tuple[float, ...] | None = None


def segmentation_loss(heads: Sequence[Tensor], targets: Targets, plan: LossPlan) -> Tensor:
    """Mean over the h supervised heads of Dice + BCE; images without a reference are left out."""
    parts = [
        plan.dice_weight * dice_loss(head, targets.mask, targets.has_mask)
        + plan.bce_weight * bce_loss(head, targets.mask, targets.has_mask)
        for head in heads
    ]
    return torch.stack(parts).mean()


def joint_loss(plan: LossPlan) -> Callable[[Outputs, Targets], Losses]:
    """The loss of a system: outputs and truth -> parts and their weighted total."""

    def compute(outputs: Outputs, targets: Targets) -> Losses:
        segmentation = classification = None
        if plan.segments:
            assert outputs.mask_logits is not None
            segmentation = segmentation_loss(outputs.mask_logits, targets, plan)
        if plan.classifies:
            assert outputs.class_logits is not None
            weights = None
            if plan.class_weights is not None:
                weights = torch.tensor(plan.class_weights, device=outputs.class_logits.device)
            classification = cross_entropy(outputs.class_logits, targets.label, weights)
        if segmentation is None or classification is None:
            total = segmentation if segmentation is not None else classification
            assert total is not None
        else:
            share = plan.segmentation_weight
            total = share * segmentation + (1 - share) * classification
        return Losses(total, segmentation, classification)

    return compute
