"""Which building blocks do the networks share?

Shape legend: b images, c channels, h rows, w columns of a feature map.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class BlockStyle:
    """How a convolution block is made.

    separable: depthwise + pointwise instead of full 3x3 convolutions. cbam: channel and spatial
    attention after the second normalisation. residual: the (projected) input is added before the
    last ReLU. cbam_reduction, cbam_min_hidden: hidden channels of the channel attention are
    max(cbam_min_hidden, channels // cbam_reduction).
    """

    separable: bool = False
    cbam: bool = False
    residual: bool = False
    cbam_reduction: int = 16
    cbam_min_hidden: int = 1


PLAIN = BlockStyle()

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_SPREAD = (0.229, 0.224, 0.225)


class ImageNetLevels(nn.Module):
    """Values in 0..1, grey or RGB, to three channels with ImageNet's mean and spread taken off."""

    mean: Tensor
    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, values in (("mean", IMAGENET_MEAN), ("spread", IMAGENET_SPREAD)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """(b,1,h,w) or (b,3,h,w) -> (b,3,h,w)."""
        return (image - self.mean) / self.spread


class Pointwise(nn.Conv2d):
    """1x1 convolution without bias that looks at every `every`-th place only.

    The same function as one with a stride, whose gradient writes past its memory in oneDNN when
    the input has fewer than 16 channels in channels-last order (oneDNN issue 6035).
    """

    def __init__(self, in_channels: int, out_channels: int, *, every: int = 1) -> None:
        super().__init__(in_channels, out_channels, 1, bias=False)
        self.every = every

    def forward(self, input: Tensor) -> Tensor:
        """(b,c_in,h,w) -> (b,c_out,h/every,w/every), rounded up."""
        return super().forward(input[..., :: self.every, :: self.every])


def separable_conv(in_channels: int, out_channels: int, *, stride: int = 1) -> nn.Sequential:
    """Depthwise 3x3 then pointwise 1x1, both without bias (a normalisation follows)."""
    return nn.Sequential(
        nn.Conv2d(
            in_channels,
            in_channels,
            3,
            stride=stride,
            padding=1,
            groups=in_channels,
            bias=False,
        ),
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
    )


def conv3x3(in_channels: int, out_channels: int, *, separable: bool) -> nn.Module:
    """3x3 convolution of a U-Net block: full with bias, or separable without."""
    if separable:
        return separable_conv(in_channels, out_channels)
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)


def projection(in_channels: int, out_channels: int) -> nn.Module:
    """Shortcut that fits the channels: identity where they agree, else 1x1 convolution + BN."""
    if in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)
    )


def upsample(features: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear with aligned corners, as in UNet++; (b,c,h,w) -> (b,c,*size)."""
    return F.interpolate(features, size=size, mode="bilinear", align_corners=True)


def side(features: Tensor) -> tuple[int, int]:
    """(h, w) of a feature map."""
    return int(features.shape[-2]), int(features.shape[-1])


class CBAM(nn.Module):
    """Convolutional block attention: which channels, then which places.

    Channel weights: sigmoid(MLP(mean over places) + MLP(maximum over places)). Spatial weights:
    sigmoid(BN(conv7x7(mean and maximum over channels))). The MLP has biases, the 7x7 convolution
    has none (Woo et al., ECCV 2018, eq. 2 and 3).
    """

    def __init__(self, channels: int, *, reduction: int = 16, min_hidden: int = 1) -> None:
        super().__init__()
        hidden = max(min_hidden, channels // reduction)
        self.mlp = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels)
        )
        self.spatial = nn.Sequential(nn.Conv2d(2, 1, 7, padding=3, bias=False), nn.BatchNorm2d(1))

    def refine(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(b,c,h,w) -> refined features (b,c,h,w), spatial weights (b,1,h,w) in [0,1]."""
        # max instead of amax: on a CPU its gradient is three times as fast (one place per maximum)
        places = features.flatten(2)
        pooled = torch.stack((places.mean(2), places.max(2).values))
        channel = torch.sigmoid(self.mlp(pooled).sum(0))[:, :, None, None]
        features = features * channel
        strongest = features.max(1, keepdim=True).values
        maps = torch.cat((features.mean(1, keepdim=True), strongest), 1)
        spatial = torch.sigmoid(self.spatial(maps))
        return features * spatial, spatial

    def forward(self, features: Tensor) -> Tensor:
        """(b,c,h,w) -> (b,c,h,w)."""
        return self.refine(features)[0]


class ConvBlock(nn.Module):
    """conv-BN-ReLU-conv-BN, then CBAM and the shortcut as far as the style has them, then ReLU."""

    def __init__(self, in_channels: int, out_channels: int, style: BlockStyle = PLAIN) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, out_channels, separable=style.separable)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv3x3(out_channels, out_channels, separable=style.separable)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.cbam = (
            CBAM(
                out_channels,
                reduction=style.cbam_reduction,
                min_hidden=style.cbam_min_hidden,
            )
            if style.cbam
            else None
        )
        self.shortcut = projection(in_channels, out_channels) if style.residual else None

    def attend(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """(b,c_in,h,w) -> (b,c_out,h,w) and the spatial weights (b,1,h,w) where there is CBAM."""
        out = self.relu(self.bn1(self.conv1(features)))
        out = self.bn2(self.conv2(out))
        spatial = None
        if self.cbam is not None:
            out, spatial = self.cbam.refine(out)
        if self.shortcut is not None:
            out = out + self.shortcut(features)
        return self.relu(out), spatial

    def forward(self, features: Tensor) -> Tensor:
        """(b,c_in,h,w) -> (b,c_out,h,w)."""
        return self.attend(features)[0]


class SpatialGate(nn.Module):
    """Weights each place of a skip connection by what the decoder asks for.

    weights = sigmoid(BN(conv1x1(ReLU(BN(conv1x1(skip)) + BN(conv1x1(gating)))))): the additive
    gate of Oktay et al., MIDL 2018, eq. 1, at the resolution of the skip.
    """

    def __init__(self, skip_channels: int, gating_channels: int) -> None:
        super().__init__()
        hidden = max(2, skip_channels // 2)
        self.of_skip = nn.Sequential(
            nn.Conv2d(skip_channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden)
        )
        self.of_gating = nn.Sequential(
            nn.Conv2d(gating_channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden)
        )
        self.weigh = nn.Sequential(nn.Conv2d(hidden, 1, 1, bias=False), nn.BatchNorm2d(1))

    def forward(self, skip: Tensor, gating: Tensor) -> tuple[Tensor, Tensor]:
        """skip (b,c1,h,w), gating (b,c2,h,w) -> weighted skip and weights (b,1,h,w) in [0,1]."""
        weights = torch.sigmoid(self.weigh(F.relu(self.of_skip(skip) + self.of_gating(gating))))
        return skip * weights, weights


class ClassHead(nn.Module):
    """Mean over places, dropout, one linear layer; (b,c,h,w) -> class logits (b,k)."""

    def __init__(self, channels: int, n_classes: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, n_classes)

    def forward(self, features: Tensor) -> Tensor:
        return self.fc(self.dropout(features.mean((2, 3))))
