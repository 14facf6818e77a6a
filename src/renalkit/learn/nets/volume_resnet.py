"""Which 3-D network says what kind of lesion lies in a crop of a CT volume?

MONAI's 3-D ResNet (He et al. 2016; Hara et al. 2018) with a first convolution small enough for
crops of a few dozen voxels. Shape legend: b crops, c input channels, k classes, (Z,Y,X) voxels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from monai.networks.nets.resnet import ResNet
from torch import Tensor, nn

from renalkit.errors import ConfigError
from renalkit.learn.nets.spec import scaled
from renalkit.learn.nets.volume_unet import check_volume
from renalkit.learn.outputs import Guide, Net, Outputs

_BLOCKS: dict[int, list[int]] = {10: [1, 1, 1, 1], 18: [2, 2, 2, 2]}
_WIDTHS = (64, 128, 256, 512)


@dataclass(frozen=True, slots=True)
class VolumeResNetPlan:
    """Size of a 3-D ResNet.

    depth: 10 or 18 layers. width: multiplier of 64, 128, 256, 512 channels. n_inputs: 1 for
    windowed HU alone, 2 with the mask of the mass beside it. dropout: before the last layer.
    first_kernel, first_stride: of the first convolution; MONAI's own are 7 and 1. pool: halve the
    maps after it.

    Raises ConfigError (all problems at once).
    """

    depth: Literal[10, 18] = 10
    width: float = 0.25
    n_inputs: int = 1
    n_classes: int = 3
    dropout: float = 0.2
    first_kernel: int = 3
    first_stride: int = 1
    pool: bool = True

    def __post_init__(self) -> None:
        problems: list[str] = []
        if self.depth not in _BLOCKS:
            problems.append(f"depth: {self.depth}; 10 and 18 are known")
        if not 0 < self.width <= 4:
            problems.append(f"width: {self.width} is not above 0 and at most 4")
        if self.n_inputs < 1:
            problems.append(f"n_inputs: {self.n_inputs}; a network needs at least 1")
        if self.n_classes < 2:
            problems.append(f"n_classes: {self.n_classes}; classification needs at least 2")
        if not 0 <= self.dropout < 1:
            problems.append(f"dropout: {self.dropout} is not at least 0 and below 1")
        if self.first_kernel not in (3, 5, 7) or self.first_stride not in (1, 2):
            problems.append(
                f"first_kernel, first_stride: {self.first_kernel}, {self.first_stride}; "
                "3, 5 or 7, and 1 or 2"
            )
        if problems:
            raise ConfigError(problems, where="lesion network")


class VolumeResNet(Net):
    """image (b,c,Z,Y,X) of any size -> `Outputs` whose class_logits are (b,k).

    A batch in training needs at least 2 crops: batch normalisation.
    """

    def __init__(self, plan: VolumeResNetPlan) -> None:
        super().__init__()
        self.plan = plan
        widths = [scaled(width, plan.width) for width in _WIDTHS]
        self.body = ResNet(
            "basic",
            _BLOCKS[plan.depth],
            widths,
            spatial_dims=3,
            n_input_channels=plan.n_inputs,
            conv1_t_size=plan.first_kernel,
            conv1_t_stride=plan.first_stride,
            no_max_pool=not plan.pool,
            feed_forward=False,
            bias_downsample=False,
        )
        self.dropout = nn.Dropout(plan.dropout)
        self.classify = nn.Linear(widths[-1], plan.n_classes)

    def forward(self, image: Tensor, guide: Guide | None = None) -> Outputs:
        """Raises InputRefused: another number of channels, NaN or infinite values."""
        check_volume(image, self.plan.n_inputs, (1, 1, 1))
        found = self.classify(self.dropout(self.body(image)))
        return Outputs(mask_logits=None, class_logits=found)
