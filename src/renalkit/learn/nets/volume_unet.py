"""Which 3-D network outlines kidneys and masses in a CT volume, and how large must its input be?

A U-Net of MONAI's DynUNet blocks (nnU-Net, Isensee et al. 2021): two convolutions per level with
normalisation and leaky ReLU, strided convolutions down, transposed ones up, a head per decoder
level. The blocks are put together here because DynUNet keeps its heads in a list that outlives the
call, stacks them at full size, and stores each weight twice. The function is the same (tested).

Shape legend: b volumes, c input channels, k outputs, (Z,Y,X) voxels.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import log, prod
from typing import Literal

import torch
import torch.nn.functional as F
from monai.networks.blocks.dynunet_block import UnetBasicBlock, UnetOutBlock, UnetUpBlock
from torch import Tensor, nn

from renalkit.errors import ConfigError, InputRefused, Reason
from renalkit.learn.outputs import Guide, Net, Outputs

Triple = tuple[int, int, int]
Norm = Literal["instance", "batch"]

_SLOPE = 0.01
"""Of the leaky ReLU, as in nnU-Net."""
_PRIOR = 0.02
"""What a head says everywhere before it has learned: about the share of kidneys in a CT scan."""


@dataclass(frozen=True, slots=True)
class VolumeUNetPlan:
    """Size of a 3-D U-Net.

    channels: of each level, finest first. strides: (z, y, x) from each level to the next coarser
    one, so one fewer; (1,2,2) keeps the slices of an anisotropic volume. kernels: (z, y, x) of the
    convolutions of each level, odd; None: 3 x 3 x 3 on all. n_outputs: sigmoid channels.
    deep_supervision: a head on every level of the decoder while training. norm: 'instance' as in
    nnU-Net, which must see patches of one size in training and use; 'batch' has no such tie and
    costs nothing once exported, but learns from statistics of small batches.

    Raises ConfigError (all problems at once).
    """

    channels: tuple[int, ...] = (8, 16, 32, 64)
    strides: tuple[Triple, ...] = ((2, 2, 2),) * 3
    kernels: tuple[Triple, ...] | None = None
    n_inputs: int = 1
    n_outputs: int = 1
    deep_supervision: bool = True
    norm: Norm = "instance"

    def __post_init__(self) -> None:
        levels = len(self.channels)
        problems: list[str] = []
        if levels < 2 or min(self.channels) < 1:
            problems.append(f"channels: {self.channels}; at least 2 levels of at least 1 channel")
        if len(self.strides) != levels - 1 or not {1, 2} >= {s for t in self.strides for s in t}:
            problems.append(f"strides: {self.strides}; {levels - 1} triples of 1 and 2 are needed")
        sizes = self.kernels or ()
        if self.kernels is not None and (len(sizes) != levels or not {1, 3, 5} >= _all(sizes)):
            problems.append(f"kernels: {sizes}; {levels} triples of 1, 3 and 5 are needed")
        if self.n_inputs < 1 or self.n_outputs < 1:
            problems.append(f"n_inputs, n_outputs: {self.n_inputs}, {self.n_outputs}; at least 1")
        if problems:
            raise ConfigError(problems, where="volume network")

    @property
    def multiple(self) -> Triple:
        """What Z, Y and X of an input must be multiples of.

        >>> VolumeUNetPlan((8, 16, 32), ((1, 2, 2), (2, 2, 2))).multiple
        (2, 4, 4)
        """
        z, y, x = (prod(stride[axis] for stride in self.strides) for axis in range(3))
        return z, y, x

    @property
    def heads(self) -> int:
        """Heads that answer while training."""
        return len(self.strides) if self.deep_supervision else 1

    def check(self, image: Tensor) -> None:
        """Refuse a batch that the network cannot take, or that holds NaN or infinity.

        Raises:
            InputRefused: DIMS_MISMATCH or NON_FINITE.
        """
        check_volume(image, self.n_inputs, self.multiple)
        if exporting():
            return
        below = [n // m for n, m in zip(image.shape[2:], self.multiple, strict=True)]
        if self.norm == "instance" and prod(below) < 2:
            raise InputRefused(
                Reason.DIMS_MISMATCH,
                f"volume of {tuple(image.shape[2:])} voxels",
                where="network input",
                expected=f"more than one multiple of {self.multiple}, to be normalised over",
                remedy="use a larger patch or fewer levels",
            )


def _all(triples: tuple[Triple, ...]) -> set[int]:
    return {size for triple in triples for size in triple}


def exporting() -> bool:
    """Whether a graph is being made, whose checks must not depend on values or free lengths."""
    return torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export()


def check_volume(image: Tensor, channels: int, multiple: Triple) -> None:
    """Refuse what is not (b, channels, Z, Y, X) in multiples of `multiple`, or not finite.

    The look at the values is left out while a graph is exported: it depends on data.

    Raises:
        InputRefused: DIMS_MISMATCH or NON_FINITE.
    """
    fits = image.ndim == 5 and image.shape[1] == channels
    if not fits or any(n < m or n % m for n, m in zip(image.shape[2:], multiple, strict=True)):
        raise InputRefused(
            Reason.DIMS_MISMATCH,
            f"batch of shape {tuple(image.shape)}",
            where="network input",
            expected=f"(volumes, {channels}, Z, Y, X), Z, Y and X multiples of {multiple}",
            remedy="pad with air to the next multiple",
        )
    if exporting():
        return
    if not bool(torch.isfinite(image).all()):
        raise InputRefused(
            Reason.NON_FINITE,
            "volume holds NaN or infinite values",
            where="network input",
            expected="windowed HU in -1 to 1",
            remedy="look for the first preprocessing operation that gives them",
        )


KIDNEY_PLAN = VolumeUNetPlan(channels=(8, 12, 20, 32))
"""Stage 1, whole volumes at low resolution; 128,179 weights."""
MASS_PLAN = VolumeUNetPlan(n_outputs=2)
"""Stage 2, patches around the kidneys; 350,862 weights."""


class VolumeUNet(Net):
    """image (b,c,Z,Y,X) -> `Outputs` whose mask_logits are (b,k,Z,Y,X).

    In training with deep supervision mask_logits holds a tensor per decoder level, coarsest first
    and each on the grid of its level; the last is the full-size answer. In evaluation it is alone.
    """

    def __init__(self, plan: VolumeUNetPlan) -> None:
        super().__init__()
        self.plan = plan
        norm = (plan.norm, {"affine": True})
        kernels = plan.kernels or ((3, 3, 3),) * len(plan.channels)
        steps: tuple[Triple, ...] = ((1, 1, 1), *plan.strides)
        widths = (plan.n_inputs, *plan.channels)
        self.down = nn.ModuleList(
            UnetBasicBlock(3, a, b, kernel, step, norm)
            for (a, b), kernel, step in zip(pairwise(widths), kernels, steps, strict=True)
        )
        upward = list(zip(pairwise(plan.channels), kernels, plan.strides, strict=False))[::-1]
        self.up = nn.ModuleList(
            UnetUpBlock(3, below, width, kernel, 1, step, norm)
            for (width, below), kernel, step in upward
        )
        self.heads = nn.ModuleList(
            UnetOutBlock(3, width, plan.n_outputs) for width in plan.channels[plan.heads - 1 :: -1]
        )
        self.apply(_draw)
        _expect_little(self.heads)
        _quicken(self)

    def forward(self, image: Tensor, guide: Guide | None = None) -> Outputs:
        """Raises InputRefused, see `VolumeUNetPlan.check`."""
        self.plan.check(image)
        passed: list[Tensor] = []
        value = image
        for block in self.down:
            value = block(value)
            passed.append(value)
        passed.pop()
        logits: list[Tensor] = []
        silent = len(self.up) - len(self.heads)
        for level, block in enumerate(self.up):
            value = block(value, passed.pop())
            if level >= silent and (self.training or level == len(self.up) - 1):
                logits.append(self.heads[level - silent](value))
        return Outputs(mask_logits=tuple(logits), class_logits=None)


def _draw(module: nn.Module) -> None:
    """Weights as nnU-Net draws them: He et al. 2015 for the leaky ReLU, biases 0."""
    if isinstance(module, (nn.Conv3d, nn.ConvTranspose3d)):
        nn.init.kaiming_normal_(module.weight, a=_SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _expect_little(heads: nn.Module) -> None:
    """Heads begin at `_PRIOR` (as Lin et al. 2017): from one half, the first hundreds of steps only
    unlearn what is outside."""
    for module in heads.modules():
        if isinstance(module, nn.Conv3d) and module.bias is not None:
            nn.init.constant_(module.bias, log(_PRIOR / (1 - _PRIOR)))


class _InstanceNorm(nn.InstanceNorm3d):
    """Instance normalisation by kernels that are faster on a CPU: a group of each channel alone is
    the same function, and of one volume alone so is batch normalisation."""

    def forward(self, input: Tensor) -> Tensor:
        """(b,n,Z,Y,X) -> (b,n,Z,Y,X)."""
        if not self.training:
            return super().forward(input)
        if len(input) == 1:
            return F.batch_norm(input, None, None, self.weight, self.bias, True, eps=self.eps)
        return F.group_norm(input, self.num_features, self.weight, self.bias, self.eps)


def _quicken(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.InstanceNorm3d):
            setattr(module, name, _InstanceNorm(child.num_features, child.eps, affine=True))
        else:
            _quicken(child)
