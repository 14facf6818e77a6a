"""Which residual networks classify an image: ResNet, DSCResNet, ResNeXt?

Parameter names are those of torchvision and timm, so that their ImageNet weights fit.
Shape legend: b images, c input channels, s side in pixels, k classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from renalkit.learn.nets.blocks import ConvBlock, Pointwise, separable_conv, side, upsample
from renalkit.learn.nets.spec import NetSpec, scaled
from renalkit.learn.outputs import Guide, Net, Outputs

STAGES = (64, 128, 256, 512)


class Layout(StrEnum):
    """Known depths and kinds of block."""

    RESNET18 = "resnet18"
    RESNET34 = "resnet34"
    RESNEXT50 = "resnext50"


BLOCKS_PER_STAGE = {
    Layout.RESNET18: (2, 2, 2, 2),
    Layout.RESNET34: (3, 4, 6, 3),
    Layout.RESNEXT50: (3, 4, 6, 3),
}


@dataclass(frozen=True, slots=True)
class ResNetPlan:
    """Choices of a residual network.

    separable: each 3x3 convolution of a basic block is depthwise + pointwise (DSCResNet).
    width: multiplier of 64, 128, 256, 512. dropout_classifier: before the last layer.
    """

    layout: Layout = Layout.RESNET18
    separable: bool = False
    width: float = 1.0
    dropout_classifier: float = 0.0


def _conv3x3(in_channels: int, out_channels: int, stride: int, *, separable: bool) -> nn.Module:
    if separable:
        return separable_conv(in_channels, out_channels, stride=stride)
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)


def _downsample(in_channels: int, out_channels: int, stride: int) -> nn.Module | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(
        Pointwise(in_channels, out_channels, every=stride),
        nn.BatchNorm2d(out_channels),
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut (He et al. 2016, fig. 5 left)."""

    def __init__(self, in_channels: int, planes: int, stride: int, *, separable: bool) -> None:
        super().__init__()
        self.conv1 = _conv3x3(in_channels, planes, stride, separable=separable)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = _conv3x3(planes, planes, 1, separable=separable)
        self.bn2 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _downsample(in_channels, planes, stride)

    def forward(self, features: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(features)))
        out = self.bn2(self.conv2(out))
        return self.relu(out + (features if self.downsample is None else self.downsample(features)))


class ResNeXtBlock(nn.Module):
    """1x1, grouped 3x3 (32 groups of 4 at the first stage), 1x1 (Xie et al. 2017, fig. 3c)."""

    expansion = 4

    def __init__(self, in_channels: int, planes: int, stride: int) -> None:
        super().__init__()
        middle = planes * 2  # 32 groups x 4 channels at planes 64
        out_channels = planes * self.expansion
        self.conv1 = nn.Conv2d(in_channels, middle, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(
            middle, middle, 3, stride=stride, padding=1, groups=math.gcd(32, middle), bias=False
        )
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = nn.Conv2d(middle, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _downsample(in_channels, out_channels, stride)

    def forward(self, features: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(features)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu(out + (features if self.downsample is None else self.downsample(features)))


class StageDecoder(nn.Module):
    """Light U-Net decoder over the stem and the stages of a residual network."""

    def __init__(self, stages: Sequence[int], width: float) -> None:
        super().__init__()
        widths = [scaled(channels, width) for channels in (256, 128, 64, 32)]
        skips = [*reversed(stages[:-1])]
        before = [stages[-1], *widths[:-1]]
        self.blocks = nn.ModuleList(
            ConvBlock(low + skip, out) for low, skip, out in zip(before, skips, widths, strict=True)
        )
        self.last = ConvBlock(widths[-1], scaled(16, width))
        self.head = nn.Conv2d(scaled(16, width), 1, 1)

    def forward(self, levels: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Stem and stages, shallow to deep -> mask logits (b,1,s,s)."""
        features = levels[-1]
        for block, skip in zip(self.blocks, reversed(levels[:-1]), strict=True):
            features = block(torch.cat((skip, upsample(features, side(skip))), 1))
        return self.head(self.last(upsample(features, size)))


class ResNet(Net):
    """7x7 stem + max-pooling, four stages, then a class head, a light decoder or both."""

    def __init__(self, spec: NetSpec, plan: ResNetPlan) -> None:
        super().__init__()
        self.spec = spec
        stem = scaled(STAGES[0], plan.width)
        self.conv1 = nn.Conv2d(spec.channels, stem, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        outs = [stem]
        stages: list[nn.Sequential] = []
        for index, count in enumerate(BLOCKS_PER_STAGE[plan.layout]):
            planes = scaled(STAGES[index], plan.width)
            blocks: list[nn.Module] = []
            before = outs[-1]
            for number in range(count):
                stride = 2 if index and not number else 1
                if plan.layout is Layout.RESNEXT50:
                    blocks.append(ResNeXtBlock(before, planes, stride))
                    before = planes * ResNeXtBlock.expansion
                else:
                    blocks.append(BasicBlock(before, planes, stride, separable=plan.separable))
                    before = planes
            stages.append(nn.Sequential(*blocks))
            outs.append(before)
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.dropout = nn.Dropout(plan.dropout_classifier)
        self.fc = nn.Linear(outs[-1], spec.n_classes) if spec.classifies else None
        self.decoder = StageDecoder(outs, plan.width) if spec.segments else None
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def cam_layers(self) -> Mapping[str, nn.Module]:
        """The last stage, of whichever modality the picture is."""
        return {"picture": self.layer4} if self.spec.classifies else {}

    def forward(self, image: Tensor, guide: Guide | None = None) -> Outputs:
        """image (b,c,s,s); the guide is not used."""
        self.spec.check(image)
        return self.compute(image)

    def compute(self, image: Tensor) -> Outputs:
        """As forward, for an image that was checked or made by another network."""
        levels = [self.relu(self.bn1(self.conv1(image)))]
        features = self.maxpool(levels[0])
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            features = stage(features)
            levels.append(features)
        masks = (self.decoder(levels, side(image)),) if self.decoder is not None else None
        scores = None
        if self.fc is not None:
            pooled = F.adaptive_avg_pool2d(levels[-1], 1).flatten(1)
            scores = self.fc(self.dropout(pooled))
        return Outputs(masks, scores)
