"""Which networks turn a picture into feature maps, and whose ImageNet weights fit them?

All come from MONAI, take three channels and give the maps before their own pooling and head.
Shape legend: b images, s side in pixels, n features, (y,x) places of a feature map.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from monai.networks.nets.densenet import DenseNet
from monai.networks.nets.resnet import ResNet
from monai.networks.nets.senet import SENet
from torch import Tensor, nn

from renalkit.errors import ModelRefused
from renalkit.learn.nets.blocks import ImageNetLevels
from renalkit.learn.nets.efficientnet import SCALES, EfficientNetMaps
from renalkit.learn.pretrained import Loaded, load_encoder


@dataclass(frozen=True, slots=True)
class BackboneStyle:
    """Choices that only EfficientNet has, and the side of the picture its padding depends on.

    width: multiplier of the channels of every layer. norm_momentum: share of each batch in the
    running statistics. drop_connect: largest probability of leaving a block out in training.
    """

    size: int
    width: float = 1.0
    norm_momentum: float = 0.01
    drop_connect: float = 0.2


class ResNetMaps(ResNet):
    """MONAI's 2-D ResNet up to its last stage; names as in torchvision."""

    def __init__(self, block: str, layers: list[int]) -> None:
        super().__init__(
            block,
            layers,
            [64, 128, 256, 512],
            spatial_dims=2,
            conv1_t_stride=2,
            feed_forward=False,
            bias_downsample=False,
        )

    def forward(self, x: Tensor) -> Tensor:
        """(b,3,s,s) -> (b,n,y,x)."""
        x = self.maxpool(self.act(self.bn1(self.conv1(x))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class SEResNetMaps(SENet):
    """MONAI's SE-ResNet-50 up to its last stage."""

    def __init__(self) -> None:
        super().__init__(
            spatial_dims=2,
            in_channels=3,
            block="se_resnet_bottleneck",
            layers=[3, 4, 6, 3],
            groups=1,
            reduction=16,
            dropout_prob=None,
            inplanes=64,
            downsample_kernel_size=1,
            input_3x3=False,
        )
        del self.last_linear

    def forward(self, x: Tensor) -> Tensor:
        """(b,3,s,s) -> (b,n,y,x)."""
        return self.features(x)


def _dense_maps() -> nn.Module:
    maps = DenseNet(2, 3, 1).features
    maps.add_module("relu5", nn.ReLU())
    return maps


@dataclass(frozen=True, slots=True)
class Kind:
    """How a backbone is built, its features n, and the names its published weights have for one
    of ours; none where no published file fits."""

    build: Callable[[BackboneStyle], nn.Module]
    n_features: Callable[[BackboneStyle], int]
    published: Callable[[str], tuple[str, ...]] | None
    first_conv: str = ""


def _efficient(name: str) -> Kind:
    def build(style: BackboneStyle) -> nn.Module:
        return EfficientNetMaps(
            name, style.size, style.width, style.norm_momentum, style.drop_connect
        )

    def published(own: str) -> tuple[str, ...]:
        # Blocks are numbered through in EfficientNet-PyTorch, grouped by stage in MONAI.
        return (re.sub(r"^_blocks\.\d+\.", "_blocks.", own),)

    return Kind(
        build,
        lambda style: EfficientNetMaps.features_of(name, style.width),
        published,
        "_conv_stem",
    )


def _dense_names(own: str) -> tuple[str, ...]:
    """torchvision's file of DenseNet-121 writes norm.1, its network norm1."""
    flat = "features." + own.replace(".layers.", ".")
    return flat, re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", flat)


BACKBONES: Mapping[str, Kind] = {
    **{name: _efficient(name) for name in SCALES},
    "densenet121": Kind(lambda _: _dense_maps(), lambda _: 1024, _dense_names, "conv0"),
    "resnet18": Kind(
        lambda _: ResNetMaps("basic", [2, 2, 2, 2]), lambda _: 512, lambda own: (own,), "conv1"
    ),
    "resnet50": Kind(
        lambda _: ResNetMaps("bottleneck", [3, 4, 6, 3]),
        lambda _: 2048,
        lambda own: (own,),
        "conv1",
    ),
    "se-resnet50": Kind(lambda _: SEResNetMaps(), lambda _: 2048, None),
}


class Backbone(nn.Module):
    """Grey or colour picture in 0..1 -> feature maps.

    A grey picture fills all three channels; ImageNet's mean and spread are taken off. `n_features`
    is n. The pooled features are the mean over the places.
    """

    def __init__(self, name: str, style: BackboneStyle) -> None:
        super().__init__()
        self.name = name
        self.kind = BACKBONES[name]
        self.n_features = self.kind.n_features(style)
        self.body = self.kind.build(style)
        self.levels = ImageNetLevels()

    def forward(self, image: Tensor) -> Tensor:
        """(b,1,s,s) or (b,3,s,s) -> (b,n,y,x)."""
        return self.body(self.levels(image))

    def start(self, path: Path, sha256: str) -> Loaded:
        """Begin from ImageNet weights in a local file.

        Raises:
            ModelRefused: as `load_encoder`; no published file fits this backbone.
        """
        if self.kind.published is None:
            raise ModelRefused(
                f"ImageNet weights for {self.name}",
                where=path.name,
                expected=", ".join(n for n, k in BACKBONES.items() if k.published is not None),
                remedy="leave init_weights out or take another backbone",
            )
        return load_encoder(
            self.body,
            path,
            sha256,
            first_conv=self.kind.first_conv,
            published=self.kind.published,
        )
