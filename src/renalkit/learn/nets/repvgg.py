"""RepVGG: several branches to learn with, one 3x3 convolution per block to answer with.

Ding et al., CVPR 2021. Parameter names are those of the authors' files.
Shape legend: b images, c input channels, s side in pixels, n features, (y,x) places, k classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from renalkit.errors import ModelRefused
from renalkit.learn.nets.blocks import ImageNetLevels, Pointwise
from renalkit.learn.nets.heads import class_layer
from renalkit.learn.nets.spec import NetSpec, scaled
from renalkit.learn.outputs import Guide, Net, Outputs
from renalkit.learn.pretrained import Loaded, load_encoder

STAGES = (64, 128, 256, 512)
PROBES = 4
ALLOWED = 1e-4
"""Largest difference of the two forms that is let through, as a share of the largest logit."""


class Layout(StrEnum):
    """The sizes of the paper (table 2)."""

    A0 = "a0"
    A1 = "a1"
    A2 = "a2"
    B0 = "b0"
    B1 = "b1"


BLOCKS: Mapping[str, tuple[int, int, int, int]] = {"a": (2, 4, 14, 1), "b": (4, 6, 16, 1)}
WIDTHS: Mapping[Layout, tuple[float, float, float, float]] = {
    Layout.A0: (0.75, 0.75, 0.75, 2.5),
    Layout.A1: (1, 1, 1, 2.5),
    Layout.A2: (1.5, 1.5, 1.5, 2.75),
    Layout.B0: (1, 1, 1, 2.5),
    Layout.B1: (2, 2, 2, 4),
}


@dataclass(frozen=True, slots=True)
class RepVGGPlan:
    """layout: blocks and widths. width: multiplier of every layer. dropout: before the last layer.
    ordinal: ordered classes. deployed: the form with one convolution per block."""

    layout: Layout = Layout.A0
    width: float = 1.0
    dropout: float = 0.0
    ordinal: bool = False
    deployed: bool = False


class Deployed(NamedTuple):
    """How far the two forms are apart on the probe pictures: largest difference of a logit, and
    the largest logit."""

    largest_difference: float
    largest_logit: float


class ConvBN(nn.Module):
    """Convolution without bias, then normalisation."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        self.bn = nn.BatchNorm2d(conv.out_channels)

    def forward(self, features: Tensor) -> Tensor:
        return self.bn(self.conv(features))


def _folded(kernel: Tensor, bn: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """K' = K gamma / sqrt(var + eps), b' = beta - mean gamma / sqrt(var + eps), in float64."""
    assert bn.running_var is not None
    assert bn.running_mean is not None
    scale = bn.weight.double() / (bn.running_var.double() + bn.eps).sqrt()
    bias = bn.bias.double() - bn.running_mean.double() * scale
    return kernel.double() * scale[:, None, None, None], bias


class RepVGGBlock(nn.Module):
    """3x3 + 1x1 + identity, each normalised, summed, ReLU; or one 3x3 convolution and ReLU.

    The identity is there where stride and channels allow it.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, *, deployed: bool = False
    ) -> None:
        super().__init__()
        self.stride = stride
        self.rbr_reparam: nn.Conv2d | None = None
        self.rbr_dense: ConvBN | None = None
        self.rbr_1x1: ConvBN | None = None
        self.rbr_identity: nn.BatchNorm2d | None = None
        if deployed:
            self.rbr_reparam = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1)
            return
        wide = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.rbr_dense = ConvBN(wide)
        self.rbr_1x1 = ConvBN(Pointwise(in_channels, out_channels, every=stride))
        if stride == 1 and in_channels == out_channels:
            self.rbr_identity = nn.BatchNorm2d(out_channels)

    def forward(self, features: Tensor) -> Tensor:
        """(b,c_in,y,x) -> (b,c_out,y/stride,x/stride)."""
        if self.rbr_reparam is not None:
            return F.relu(self.rbr_reparam(features))
        assert self.rbr_dense is not None
        assert self.rbr_1x1 is not None
        total = self.rbr_dense(features) + self.rbr_1x1(features)
        if self.rbr_identity is not None:
            total = total + self.rbr_identity(features)
        return F.relu(total)

    @torch.no_grad()
    def merged(self) -> RepVGGBlock:
        """A new block of one convolution that gives the same in evaluation mode."""
        assert self.rbr_dense is not None
        assert self.rbr_1x1 is not None
        wide = self.rbr_dense.conv.weight
        kernel, bias = _folded(wide, self.rbr_dense.bn)
        point, point_bias = _folded(self.rbr_1x1.conv.weight, self.rbr_1x1.bn)
        kernel, bias = kernel + F.pad(point, (1, 1, 1, 1)), bias + point_bias
        if self.rbr_identity is not None:
            delta = nn.init.dirac_(torch.empty_like(wide))
            same, same_bias = _folded(delta, self.rbr_identity)
            kernel, bias = kernel + same, bias + same_bias
        out_channels, in_channels = wide.shape[:2]
        block = RepVGGBlock(in_channels, out_channels, self.stride, deployed=True)
        assert block.rbr_reparam is not None
        block.to(device=wide.device, dtype=wide.dtype)
        block.rbr_reparam.weight.copy_(kernel)
        assert block.rbr_reparam.bias is not None
        block.rbr_reparam.bias.copy_(bias)
        return block.eval()


class RepVGG(Net):
    """Stem and four stages, the mean over the places, one layer: plain CAM fits it.

    A grey picture fills all three channels of the stem; ImageNet's mean and spread are taken off.
    """

    def __init__(self, spec: NetSpec, modality: str, plan: RepVGGPlan) -> None:
        super().__init__()
        self.spec, self.modality = spec, modality
        self.levels = ImageNetLevels()
        multipliers = [m * plan.width for m in WIDTHS[plan.layout]]
        before = min(STAGES[0], scaled(STAGES[0], multipliers[0]))
        self.stage0 = RepVGGBlock(3, before, 2, deployed=plan.deployed)
        stages: list[nn.Sequential] = []
        for count, base, multiplier in zip(
            BLOCKS[plan.layout[0]], STAGES, multipliers, strict=True
        ):
            out = scaled(base, multiplier)
            blocks = [
                RepVGGBlock(out if i else before, out, 1 if i else 2, deployed=plan.deployed)
                for i in range(count)
            ]
            stages.append(nn.Sequential(*blocks))
            before = out
        self.stage1, self.stage2, self.stage3, self.stage4 = stages
        self.dropout = nn.Dropout(plan.dropout)
        self.fc = class_layer(before, spec.n_classes, ordinal=plan.ordinal)

    def cam_layers(self) -> Mapping[str, nn.Module]:
        return {self.modality: self.stage4}

    def forward(self, image: Tensor, guide: Guide | None = None) -> Outputs:
        """image (b,1,s,s) or (b,3,s,s); the guide is not used."""
        self.spec.check(image)
        features = self.stage0(self.levels(image))
        for stage in (self.stage1, self.stage2, self.stage3, self.stage4):
            features = stage(features)
        return Outputs(None, self.fc(self.dropout(features.mean((2, 3)))))

    def start(self, path: Path, sha256: str) -> Loaded:
        """Begin from ImageNet weights in a local file; raises ModelRefused as `load_encoder`."""
        return load_encoder(
            self, path, sha256, first_conv="stage0.rbr_dense.conv", published=published_names
        )

    @property
    def deployed(self) -> bool:
        """Whether each block is one convolution."""
        return self.stage0.rbr_reparam is not None

    def settle(self) -> None:
        """RepVGG is scored with its branches merged (P4)."""
        self.deploy()

    @torch.no_grad()
    def deploy(self) -> Deployed:
        """Merge the branches of every block in place, and say how far the results move.

        Measured on a few fixed random pictures. A network that is deployed already stays as it is
        and has moved by nothing.

        Raises:
            ModelRefused: the network is in training mode, where the branches have no fixed
                meaning; or the results move by more than 1e-4 of the largest logit, and the
                network is as it was.
        """
        if self.training:
            raise ModelRefused(
                "a network in training mode",
                where="re-parameterisation",
                expected="evaluation mode, with running statistics",
                remedy="call eval() first",
            )
        like = next(self.parameters())
        source = torch.Generator().manual_seed(0)
        side = self.spec.size
        probe = torch.rand(PROBES, self.spec.channels, side, side, generator=source).to(like)
        before = cast(Tensor, self(probe).class_logits)
        highest = float(before.abs().max())
        if self.deployed:
            return Deployed(0.0, highest)
        parts = ("stage0", "stage1", "stage2", "stage3", "stage4")
        learned = {name: self.get_submodule(name) for name in parts}
        for name, stage in learned.items():
            if isinstance(stage, RepVGGBlock):
                self.add_module(name, stage.merged())
            else:
                blocks = [cast(RepVGGBlock, block).merged() for block in stage.children()]
                self.add_module(name, nn.Sequential(*blocks))
        largest = float((cast(Tensor, self(probe).class_logits) - before).abs().max())
        if not largest <= ALLOWED * highest:
            for name, stage in learned.items():
                self.add_module(name, stage)
            raise ModelRefused(
                f"the merged network differs by {largest:.3g} at logits up to {highest:.3g}",
                where="re-parameterisation",
                expected=f"at most {ALLOWED:g} of the largest logit",
                remedy="train again: a running variance near 0 or huge weights lose the digits",
            )
        return Deployed(largest, highest)


def published_names(own: str) -> tuple[str, ...]:
    """Ours and the authors' name, and timm's.

    >>> published_names("stage1.0.rbr_dense.conv.weight")[1]
    'stages.0.0.conv_kxk.conv.weight'
    """
    stage, _, rest = own.partition(".")
    if not stage.startswith("stage"):
        return (own,)
    timm = "stem" if stage == "stage0" else f"stages.{int(stage.removeprefix('stage')) - 1}"
    for ours, theirs in (
        ("rbr_dense", "conv_kxk"),
        ("rbr_1x1", "conv_1x1"),
        ("rbr_identity", "identity"),
    ):
        rest = rest.replace(ours, theirs)
    return own, f"{timm}.{rest}"
