"""What every network takes and returns, so that one loop trains all systems."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

# Shape legend: b images of a batch, c input channels, s side in pixels, k classes, h heads,
# m modalities, f numbers beside the picture.


class Outputs(NamedTuple):
    """Result of a forward pass; parts a system does not have are None.

    mask_logits: h tensors (b,1,s,s), one per supervised head, the last is the one used alone; of
    volumes (b,k,Z,Y,X), earlier heads on coarser grids.
    class_logits: (b,k).
    attention: (b,1,s,s) in [0,1], the spatial attention map shown to the user; only in eval mode.
    branch_logits: (b,m,k), what each modality's own head says (MUF-Net).
    modality_weights: (b,m), how much each modality counts in the fusion (alpha, beta of P2).
    """

    mask_logits: tuple[Tensor, ...] | None
    class_logits: Tensor | None
    attention: Tensor | None = None
    branch_logits: Tensor | None = None
    modality_weights: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Targets:
    """Truth for a batch.

    mask: (b,1,s,s) float in {0,1}; has_mask: (b,) bool, False where the reference is unknown
    (a normal image has a known, empty mask). label: (b,) int64, -1 where unknown.
    """

    mask: Tensor
    has_mask: Tensor
    label: Tensor


UNKNOWN = 255
"""Label of a voxel about which the reference says nothing."""


class VolumeBatch(NamedTuple):
    """CT volumes, patches or crops, and the truth about them, as far as it is asked for.

    image: (b,c,Z,Y,X) float32, windowed HU in -1 to 1, then masks in {0,1} where the network takes
    them. labels: (b,Z,Y,X) uint8 as in `domain.volume`, `UNKNOWN` where nobody said. label: (b,)
    int64, -1 where unknown.
    """

    image: Tensor
    labels: Tensor | None = None
    label: Tensor | None = None

    def to(self, device: torch.device) -> VolumeBatch:
        """The same on a device."""
        labels, label = (None if t is None else t.to(device) for t in self[1:])
        return VolumeBatch(self.image.to(device), labels, label)


@dataclass(frozen=True, slots=True)
class Guide:
    """Reference masks offered to a network early in training.

    mask: (b,1,s,s) float; share: the part of the reference in the mixture with the prediction,
    1 at the first step of training, 0 at prediction. has_mask: (b,) bool, False where the
    reference is unknown, so that the network sees its own prediction there; None: all are known.
    """

    mask: Tensor
    share: float
    has_mask: Tensor | None = None


class Net(nn.Module):
    """Base of all networks: image in, `Outputs` out.

    taken: names of the tensors that came from an earlier network's weights.
    """

    taken: frozenset[str] = frozenset()

    def forward(self, image: Tensor, guide: Guide | None = None) -> Outputs:
        """image: (b,c,s,s) float32."""
        raise TypeError(
            f"{type(self).__name__} does not define forward (guide={guide is not None})"
        )

    def settle(self) -> None:
        """Take the form the network is scored in; called in evaluation mode, once its weights are
        there. For most networks that is the form they are trained in."""

    def held_in(self, names: Collection[str]) -> Mapping[str, str]:
        """Own tensors by name -> their names in the weights of a larger network that has this one
        as a part; names: of all tensors there. Empty when they are called alike, or not there."""
        return {}

    def cam_layers(self) -> Mapping[str, nn.Module]:
        """The layer whose (b,n,y,x) output an activation map is made of, per modality (a network
        of one picture may call it 'picture'); empty where there is none."""
        return {}


class FeatureNet(Net):
    """Base of networks that are also given numbers beside the picture."""

    def forward(
        self, image: Tensor, guide: Guide | None = None, features: Tensor | None = None
    ) -> Outputs:
        """image: (b,c,s,s) float32. features: (b,f) float32, NaN where unknown, None for f = 0."""
        raise TypeError(
            f"{type(self).__name__} does not define forward (guide={guide is not None}, "
            f"features={features is not None})"
        )

    def standardise(self, mean: Tensor, spread: Tensor) -> None:
        """Take over mean and spread (f,) of the training part; they are kept with the weights."""
        raise TypeError(f"{type(self).__name__} does not define standardise ({mean}, {spread})")


class Losses(NamedTuple):
    """Loss parts of a batch, scalars; `total` is what is minimised."""

    total: Tensor
    segmentation: Tensor | None = None
    classification: Tensor | None = None
