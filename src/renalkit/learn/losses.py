"""How far are a network's outputs from the truth?

Shape legend: b images, s side in pixels, k classes, h heads. All losses work on logits, in
float32 or, where given, float64; half precision is raised to float32 first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

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


# ---- class-balanced losses of P2, P3 and P4 --------------------------------------------------


def class_balanced_weights(
    counts: Sequence[int], beta: float, *, normalised: bool = True
) -> tuple[float, ...]:
    """(1 - beta) / (1 - beta^n) per class, then scaled so that they sum to the number of classes.

    Cui et al., CVPR 2019, eq. 8. counts: images per class. A class without images weighs 0 and is
    not counted. beta 0 weighs all classes alike, beta towards 1 by 1/n. Not normalised they are as
    small as 1 - beta, and so is every step of the optimiser.

    Raises:
        ValueError: beta outside [0,1), a negative count, or no image at all.

    >>> [round(w, 4) for w in class_balanced_weights((3659, 6135), 0.9999)]
    [1.1989, 0.8011]
    """
    if not 0 <= beta < 1 or min(counts, default=0) < 0 or not any(counts):
        raise ValueError(f"class-balanced weights of {tuple(counts)} images at beta {beta}")
    raw = [0.0 if n == 0 else (1 - beta) / -_expm1_log(beta, n) for n in counts]
    scale = sum(n > 0 for n in counts) / sum(raw) if normalised else 1.0
    return tuple(scale * w for w in raw)


def _expm1_log(beta: float, n: int) -> float:
    """beta^n - 1 without cancellation."""
    return -1.0 if beta == 0 else math.expm1(n * math.log(beta))


def sigmoid_focal(logits: Tensor, label: Tensor, gamma: float) -> Tensor:
    """Focal loss of every logit against its own yes or no, summed over the classes: (b,).

    With u the logit where the class is the image's and its negative elsewhere:
    -(1 - sigmoid(u))^gamma log sigmoid(u), the factor as exp(gamma log sigmoid(-u)). That is the
    form exp(-gamma y z - gamma log1p(exp(-z))) of Cui et al. 2019 without its overflow at -100.
    """
    exact = _exact(logits)
    mine = F.one_hot(label.clamp_min(0), exact.shape[1]).bool()
    signed = torch.where(mine, exact, -exact)
    factor = torch.exp(gamma * F.logsigmoid(-signed))
    return -(factor * F.logsigmoid(signed)).sum(1)


def softmax_focal(logits: Tensor, label: Tensor, gamma: float) -> Tensor:
    """-(1 - p)^gamma log p with p the softmax score of the image's class: (b,).

    The factor is exp(gamma log(1 - p)), log(1 - p) summed over the other classes; with gamma 0 it
    is cross-entropy. Source: Lin et al., ICCV 2017.
    """
    log_scores = F.log_softmax(_exact(logits), 1)
    mine = F.one_hot(label.clamp_min(0), log_scores.shape[1]).bool()
    log_rest = log_scores.masked_fill(mine, -math.inf).logsumexp(1)
    return -torch.exp(gamma * log_rest) * log_scores[mine]


def ordinal_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Binary cross-entropy of "above cut j" over the k - 1 cuts, summed: (b,).

    logits: (b,k), their softmax the class probabilities; P(class > j) is the sum of those above j.
    Source: Cao, Mirjalili and Raschka 2020 (CORAL), eq. 4, with equal weights.
    """
    log_scores = F.log_softmax(_exact(logits), 1)
    up_to = log_scores.logcumsumexp(1)[:, :-1]
    above = log_scores.flip(1).logcumsumexp(1).flip(1)[:, 1:]
    cuts = torch.arange(above.shape[1], device=label.device)
    return -torch.where(label[:, None] > cuts, above, up_to).sum(1)


PerImage = Literal["sigmoid-focal", "softmax-focal", "ordinal"]


@dataclass(frozen=True, slots=True)
class BalancedPlan:
    """A class-balanced loss and how the heads of a fused network share it.

    total = fused_weight * loss of the class logits + branch_weight * loss of each modality's own.
    class_weights: one per class, by the label of the image; None weighs all alike.
    """

    per_image: PerImage = "sigmoid-focal"
    gamma: float = 2.0
    class_weights: tuple[float, ...] | None = None
    fused_weight: float = 1.0
    branch_weight: float = 0.5


def balanced_loss(plan: BalancedPlan) -> Callable[[Outputs, Targets], Losses]:
    """The loss of P2 to P4: sum over the images with a label, weighted, by their number.

    An image without label (-1) does not count. Eq. 1 of P2 joins the heads; branch logits are
    there in fused networks only.
    """

    def of(logits: Tensor, label: Tensor) -> Tensor:
        match plan.per_image:
            case "sigmoid-focal":
                per_image = sigmoid_focal(logits, label, plan.gamma)
            case "softmax-focal":
                per_image = softmax_focal(logits, label, plan.gamma)
            case "ordinal":
                per_image = ordinal_entropy(logits, label)
        if plan.class_weights is not None:
            per_image = per_image * per_image.new_tensor(plan.class_weights)[label.clamp_min(0)]
        return _mean_of_known(per_image, label >= 0)

    def compute(outputs: Outputs, targets: Targets) -> Losses:
        assert outputs.class_logits is not None
        fused = of(outputs.class_logits, targets.label)
        if outputs.branch_logits is None:
            return Losses(fused, None, fused)
        alone = [of(logits, targets.label) for logits in outputs.branch_logits.unbind(1)]
        total = plan.fused_weight * fused + plan.branch_weight * torch.stack(alone).sum()
        return Losses(total, None, fused)

    return compute
