"""EfficientNet without its head: MONAI's layers, padded for the picture that is really given.

Tan and Le, ICML 2019. Shape legend: b images, s side in pixels, n features, (y,x) places.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from monai.networks.nets.efficientnet import EfficientNet
from torch import Tensor, nn

SCALES: Mapping[str, tuple[float, float]] = {
    "efficientnet-b0": (1.0, 1.0),
    "efficientnet-b1": (1.0, 1.1),
    "efficientnet-b2": (1.1, 1.2),
    "efficientnet-b3": (1.2, 1.4),
    "efficientnet-b4": (1.4, 1.8),
}
"""Multipliers of width and depth."""
STAGES = (
    "r1_k3_s11_e1_i32_o16_se0.25",
    "r2_k3_s22_e6_i16_o24_se0.25",
    "r2_k5_s22_e6_i24_o40_se0.25",
    "r3_k3_s22_e6_i40_o80_se0.25",
    "r3_k5_s11_e6_i80_o112_se0.25",
    "r4_k5_s22_e6_i112_o192_se0.25",
    "r1_k3_s11_e6_i192_o320_se0.25",
)
"""Stages of B0: repeats, kernel, stride, expansion, channels in and out, squeeze (table 1)."""
LAST = 1280
DIVISOR = 8


class EfficientNetMaps(EfficientNet):
    """(b,3,s,s) -> (b,n,y,x), y = x = s / 32 rounded up; B3 at 300 px gives (b,1536,10,10).

    MONAI's EfficientNetBN pads for the published side of each network whatever is given to it;
    here the padding is TensorFlow's SAME at side `size`, multiple of 32 or not. SiLU is torch's:
    the same function as MONAI's swish, without its memory-efficient form.
    """

    def __init__(
        self, name: str, size: int, width: float, norm_momentum: float, drop_connect: float
    ) -> None:
        wide, deep = SCALES[name]
        super().__init__(
            list(STAGES),
            width_coefficient=wide * width,
            depth_coefficient=deep,
            image_size=size,
            norm=("batch", {"eps": 1e-3, "momentum": norm_momentum}),
            drop_connect_rate=drop_connect,
            depth_divisor=DIVISOR,
        )
        del self._fc, self._dropout, self._avg_pooling
        for module in self.modules():
            if hasattr(module, "_swish"):
                cast(Any, module)._swish = nn.SiLU()

    def forward(self, inputs: Tensor) -> Tensor:
        """(b,3,s,s) -> (b,n,y,x)."""
        features = self._conv_stem(self._conv_stem_padding(inputs))
        features = self._blocks(self._swish(self._bn0(features)))
        features = self._conv_head(self._conv_head_padding(features))
        return self._swish(self._bn1(features))

    @staticmethod
    def features_of(name: str, width: float) -> int:
        """n, rounded to a multiple of 8 by at most a tenth as in the published networks.

        >>> EfficientNetMaps.features_of("efficientnet-b3", 1.0)
        1536
        """
        wanted = LAST * SCALES[name][0] * width
        rounded = max(DIVISOR, int(wanted + DIVISOR / 2) // DIVISOR * DIVISOR)
        return rounded + DIVISOR if rounded < 0.9 * wanted else rounded
