"""How does the predicted lesion reach the classifier (the joint network of P1)?

Shape legend: b images, c input channels, s side in pixels, k classes, h heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from renalkit.learn.nets.blocks import BlockStyle
from renalkit.learn.nets.resnet import ResNet, ResNetPlan
from renalkit.learn.nets.spec import NetSpec
from renalkit.learn.nets.unet import NestedUNet, UNetPlan
from renalkit.learn.outputs import Guide, Net, Outputs


class Coupling(StrEnum):
    """How the lesion found by the segmentation enters the classification."""

    MASK_CHANNEL = "mask_channel"
    MASK_CROP = "mask_crop"
    NONE = "none"


ATTENTION = BlockStyle(cbam=True, residual=True)


@dataclass(frozen=True, slots=True)
class MultitaskPlan:
    """The segmentation and the classification net and what joins them.

    average_heads: the mask passed on is the mean of all heads' probabilities, not the last one's.
    crop_margin: part of the lesion's box added on each side of a crop.
    """

    segmentation: UNetPlan = field(
        default_factory=lambda: UNetPlan(style=ATTENTION, deep_supervision=True)
    )
    classification: ResNetPlan = field(default_factory=lambda: ResNetPlan(separable=True))
    coupling: Coupling = Coupling.MASK_CHANNEL
    average_heads: bool = False
    crop_margin: float = 0.1


def mix_with_reference(predicted: Tensor, guide: Guide | None) -> Tensor:
    """share * reference + (1 - share) * prediction per image; (b,1,s,s) -> (b,1,s,s).

    Images whose reference is unknown keep the prediction.
    """
    if guide is None or guide.share <= 0:
        return predicted
    share = torch.full(
        (predicted.shape[0], 1, 1, 1), guide.share, dtype=predicted.dtype, device=predicted.device
    )
    if guide.has_mask is not None:
        share = share * guide.has_mask.view(-1, 1, 1, 1).to(share.dtype)
    return predicted + share * (guide.mask.to(predicted.dtype) - predicted)


def crop_to_mask(image: Tensor, mask: Tensor, margin: float) -> Tensor:
    """Enlarge the square around each mask (probability >= 0.5) to the whole image.

    image (b,c,s,s), mask (b,1,s,s) -> (b,c,s,s). The square's side is the longer side of the box
    plus `margin` of it at both ends, never above s; it is moved inside the image at the border.
    An empty mask keeps the whole image.
    """
    size = image.shape[-1]
    inside = mask[:, 0] >= 0.5
    places = torch.arange(size, device=image.device, dtype=image.dtype)
    sides: list[Tensor] = []
    centres: list[Tensor] = []
    for dim in (1, 2):  # columns are occupied over rows (dim 1), rows over columns (dim 2)
        occupied = inside.any(dim)
        low = torch.where(occupied, places, size).amin(1)
        high = torch.where(occupied, places, -1).amax(1) + 1
        sides.append(high - low)
        centres.append((low + high) / 2)
    found = inside.flatten(1).any(1)
    side = torch.maximum(sides[0], sides[1]) * (1 + 2 * margin)
    side = torch.where(found, side.clamp(1, size), size)
    scale = side / size
    theta = torch.zeros(image.shape[0], 2, 3, device=image.device, dtype=image.dtype)
    for axis, centre in enumerate(centres):
        kept = torch.where(found, centre, size / 2).clamp(side / 2, size - side / 2)
        theta[:, axis, axis] = scale
        theta[:, axis, 2] = kept * 2 / size - 1
    grid = F.affine_grid(theta, list(image.shape), align_corners=False)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)


class MultitaskNet(Net):
    """AttentionNestedUNet whose mask, detached, enters DSCResNet (P1, fig. 1).

    The mask is the sigmoid of the last head. In training it is mixed with the reference mask by
    the guide's share, so that the classifier does not learn from the first, meaningless masks.
    """

    def __init__(self, spec: NetSpec, plan: MultitaskPlan) -> None:
        super().__init__()
        self.spec = spec
        self.plan = plan
        self.segmentation = (
            NestedUNet(replace(spec, classifies=False), plan.segmentation)
            if spec.segments
            else None
        )
        self.classification = None
        if spec.classifies:
            extra = int(spec.segments and plan.coupling is Coupling.MASK_CHANNEL)
            self.classification = ResNet(
                replace(spec, channels=spec.channels + extra, segments=False), plan.classification
            )

    def cam_layers(self) -> Mapping[str, nn.Module]:
        """The classifier's; none where it sees a crop, whose places are not those of the image."""
        crops = self.segmentation is not None and self.plan.coupling is Coupling.MASK_CROP
        return {} if self.classification is None or crops else self.classification.cam_layers()

    def forward(self, image: Tensor, guide: Guide | None = None) -> Outputs:
        """image (b,c,s,s); the guide counts in training only.

        Only the image is checked: a mask that became NaN is the training loop's to report.
        """
        self.spec.check(image)
        masks = attention = None
        if self.segmentation is not None:
            found = self.segmentation.compute(image)
            masks, attention = found.mask_logits, found.attention
        if self.classification is None:
            return Outputs(masks, None, attention)
        seen = image if masks is None else self._coupled(image, masks, guide)
        return Outputs(masks, self.classification.compute(seen).class_logits, attention)

    def _coupled(self, image: Tensor, masks: tuple[Tensor, ...], guide: Guide | None) -> Tensor:
        if self.plan.coupling is Coupling.NONE:
            return image
        used = masks if self.plan.average_heads else masks[-1:]
        predicted = torch.stack([torch.sigmoid(mask.detach()) for mask in used]).mean(0)
        predicted = predicted.to(image.dtype)
        mixed = mix_with_reference(predicted, guide if self.training else None)
        if self.plan.coupling is Coupling.MASK_CROP:
            return crop_to_mask(image, mixed, self.plan.crop_margin)
        return torch.cat((image, mixed), 1)
