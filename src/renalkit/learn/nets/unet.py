"""Which encoder-decoder networks segment an image: U-Net, UNet++, STUNet, TernausNet?

Shape legend: b images, c input channels, s side in pixels, k classes. Feature maps of level i
have side s / 2**i.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from renalkit.learn.nets.blocks import (
    PLAIN,
    BlockStyle,
    ClassHead,
    ConvBlock,
    SpatialGate,
    side,
    upsample,
)
from renalkit.learn.nets.spec import NetSpec, scaled
from renalkit.learn.outputs import Guide, Net, Outputs

FILTERS = (32, 64, 128, 256, 512)


@dataclass(frozen=True, slots=True)
class UNetPlan:
    """Choices common to the U-Net family.

    width: multiplier of the filters 32, 64, 128, 256, 512. deep_supervision: one head per nested
    level (UNet++ only). dropout_bottleneck: whole channels of the deepest features are dropped.
    dropout_classifier: before the last layer of the class head.
    """

    width: float = 1.0
    style: BlockStyle = PLAIN
    deep_supervision: bool = False
    dropout_bottleneck: float = 0.0
    dropout_classifier: float = 0.0

    @property
    def filters(self) -> tuple[int, ...]:
        return tuple(scaled(channels, self.width) for channels in FILTERS)


class Encoder(nn.Module):
    """Five convolution blocks with 2x2 max-pooling between them."""

    def __init__(self, channels: int, plan: UNetPlan) -> None:
        super().__init__()
        widths = (channels, *plan.filters)
        self.blocks = nn.ModuleList(
            ConvBlock(before, after, plan.style)
            for before, after in zip(widths[:-1], widths[1:], strict=True)
        )
        self.dropout = nn.Dropout2d(plan.dropout_bottleneck)

    def forward(self, image: Tensor) -> list[Tensor]:
        """(b,c,s,s) -> features of levels 0 to 4."""
        levels: list[Tensor] = []
        features = image
        for block in self.blocks:
            features = block(F.max_pool2d(features, 2) if levels else features)
            levels.append(features)
        levels[-1] = self.dropout(levels[-1])
        return levels


class UNetDecoder(nn.Module):
    """Upsamples level by level, joining the encoder's features, gated if asked."""

    def __init__(self, filters: Sequence[int], style: BlockStyle, *, gated: bool = False) -> None:
        super().__init__()
        pairs = list(zip(filters[:-1], filters[1:], strict=True))
        self.blocks = nn.ModuleList(
            ConvBlock(upper + lower, upper, style) for upper, lower in pairs
        )
        self.gates = (
            nn.ModuleList(SpatialGate(upper, lower) for upper, lower in pairs) if gated else None
        )

    def forward(self, levels: list[Tensor]) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """Encoder levels -> (one feature map of level 0), spatial weights of the uppermost gate."""
        features, weights = levels[-1], None
        for i in reversed(range(len(self.blocks))):
            skip = levels[i]
            features = upsample(features, side(skip))
            if self.gates is not None:
                skip, weights = self.gates[i](skip, features)
            features = self.blocks[i](torch.cat((skip, features), 1))
        return (features,), weights


class NestedDecoder(nn.Module):
    """Nested, densely joined decoder of UNet++ (Zhou et al., DLMIA 2018, eq. 1).

    Node x{i}_{j} of level i sees all earlier nodes of its level and the upsampled x{i+1}_{j-1}.
    """

    def __init__(self, filters: Sequence[int], style: BlockStyle) -> None:
        super().__init__()
        self.depth = len(filters) - 1
        self.nodes = nn.ModuleDict(
            {
                f"x{i}_{j}": ConvBlock(filters[i] * j + filters[i + 1], filters[i], style)
                for j in range(1, self.depth + 1)
                for i in range(self.depth + 1 - j)
            }
        )

    def forward(self, levels: list[Tensor]) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """Encoder levels -> nodes x0_1 .. x0_4, spatial attention of the last node or None."""
        grid: list[list[Tensor]] = [[features] for features in levels]
        spatial = None
        for j in range(1, self.depth + 1):
            for i in range(self.depth + 1 - j):
                joined = torch.cat((*grid[i], upsample(grid[i + 1][j - 1], side(grid[i][0]))), 1)
                node, spatial = self.nodes[f"x{i}_{j}"].attend(joined)  # type: ignore[operator]
                grid[i].append(node)
        return tuple(grid[0][1:]), spatial


class UNetFamily(Net):
    """An encoder with a decoder and heads, a class head, or both.

    Without segmentation there is no decoder; the class head works on the mean of the bottleneck.
    """

    def __init__(self, spec: NetSpec, plan: UNetPlan, decoder: nn.Module | None) -> None:
        super().__init__()
        self.spec = spec
        filters = plan.filters
        self.encoder = Encoder(spec.channels, plan)
        self.decoder = decoder if spec.segments else None
        n_heads = len(filters) - 1 if plan.deep_supervision else 1
        self.heads = (
            nn.ModuleList(nn.Conv2d(filters[0], 1, 1) for _ in range(n_heads))
            if spec.segments
            else None
        )
        self.classifier = (
            ClassHead(filters[-1], spec.n_classes, dropout=plan.dropout_classifier)
            if spec.classifies
            else None
        )

    def forward(self, image: Tensor, guide: Guide | None = None) -> Outputs:
        """image (b,c,s,s); the guide is not used."""
        self.spec.check(image)
        return self.compute(image)

    def compute(self, image: Tensor) -> Outputs:
        """As forward, for an image that was checked or made by another network."""
        levels = self.encoder(image)
        masks = spatial = None
        if self.decoder is not None and self.heads is not None:
            nodes, spatial = self.decoder(levels)
            kept = nodes[-len(self.heads) :]
            masks = tuple(head(node) for head, node in zip(self.heads, kept, strict=True))
        scores = self.classifier(levels[-1]) if self.classifier is not None else None
        return Outputs(masks, scores, None if self.training else spatial)


class UNet(UNetFamily):
    """U-Net (Ronneberger et al. 2015) with batch normalisation and bilinear upsampling."""

    def __init__(self, spec: NetSpec, plan: UNetPlan) -> None:
        super().__init__(spec, plan, UNetDecoder(plan.filters, plan.style))


class STUNet(UNetFamily):
    """U-Net with a spatial attention gate on every skip connection.

    P1 describes "a variant of the traditional U-Net architecture" with "spatial attention
    mechanisms"; neither the 3-D network STU-Net nor the Swin-based ST-Unet fits that text.
    """

    def __init__(self, spec: NetSpec, plan: UNetPlan) -> None:
        super().__init__(spec, plan, UNetDecoder(plan.filters, plan.style, gated=True))


class NestedUNet(UNetFamily):
    """UNet++; with CBAM and residual links in its block style it is P1's AttentionNestedUNet."""

    def __init__(self, spec: NetSpec, plan: UNetPlan) -> None:
        super().__init__(spec, plan, NestedDecoder(plan.filters, plan.style))


VGG11_LAYERS = (64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512)
TERNAUS_FILTERS = 32


class _Up(nn.Module):
    """conv-ReLU, then a transposed convolution that doubles the side, ReLU."""

    def __init__(self, in_channels: int, middle: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, middle, 3, padding=1)
        self.up = nn.ConvTranspose2d(middle, out_channels, 3, stride=2, padding=1, output_padding=1)

    def forward(self, features: Tensor) -> Tensor:
        return F.relu(self.up(F.relu(self.conv(features))))


class TernausNet(Net):
    """U-Net with a VGG11 encoder (Iglovikov and Shvets 2018), without normalisation.

    `features` has the layout and the keys of VGG11's feature part, so ImageNet weights fit. The
    weights start by He's rule: without normalisation the default start loses the signal.
    """

    def __init__(self, spec: NetSpec, plan: UNetPlan) -> None:
        super().__init__()
        self.spec = spec
        layers: list[nn.Module] = []
        self.taps: list[int] = []  # index of the ReLU before each pooling: the skip connections
        before = spec.channels
        for channels in VGG11_LAYERS:
            if channels:
                after = scaled(channels, plan.width)
                layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
                before = after
            else:
                self.taps.append(len(layers) - 1)
                layers.append(nn.MaxPool2d(2))
        self.taps.append(len(layers) - 1)
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout2d(plan.dropout_bottleneck)
        base, deep = scaled(TERNAUS_FILTERS, plan.width), before
        skips = [scaled(channels, plan.width) for channels in (64, 128, 256, 512, 512)]
        self.decoder = self.last = self.head = None
        if spec.segments:
            self.decoder = nn.ModuleList(
                (
                    _Up(deep, base * 16, base * 8),
                    _Up(base * 8 + skips[4], base * 16, base * 8),
                    _Up(base * 8 + skips[3], base * 16, base * 4),
                    _Up(base * 4 + skips[2], base * 8, base * 2),
                    _Up(base * 2 + skips[1], base * 4, base),
                )
            )
            self.last = nn.Conv2d(base + skips[0], base, 3, padding=1)
            self.head = nn.Conv2d(base, 1, 1)
        self.classifier = (
            ClassHead(deep, spec.n_classes, dropout=plan.dropout_classifier)
            if spec.classifies
            else None
        )
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and module is not self.head:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, image: Tensor, guide: Guide | None = None) -> Outputs:
        """image (b,c,s,s); the guide is not used."""
        self.spec.check(image)
        skips: list[Tensor] = []
        features = image
        for index, layer in enumerate(self.features):
            features = layer(features)
            if index in self.taps:
                skips.append(features)
        bottleneck = self.dropout(F.max_pool2d(features, 2))
        scores = self.classifier(bottleneck) if self.classifier is not None else None
        if self.decoder is None or self.last is None or self.head is None:
            return Outputs(None, scores)
        features = bottleneck
        for up, skip in zip(self.decoder, reversed(skips), strict=True):
            features = up(features)
            if side(features) != side(skip):  # a side that is no multiple of 32 was floored
                features = upsample(features, side(skip))
            features = torch.cat((features, skip), 1)
        return Outputs((self.head(F.relu(self.last(features))),), scores)
