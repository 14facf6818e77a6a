"""How many parameters and operations does each layer of a network have?

Counted by forward hooks on every module without children, in one pass over one image of zeros.
Closed forms (P1, table of algorithmic complexity): a convolution has k^2 * c_in / groups * c_out
* h * w multiply-accumulates, a linear layer n_in * n_out per row. Operations (FLOPs) are two per
multiply-accumulate plus one per bias; a normalisation has two per value, an activation one, a
pooling k^2 per result. What is not a module (sums, products, interpolation) is not counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from renalkit.learn.outputs import Net


@dataclass(frozen=True, slots=True)
class LayerCost:
    """One layer: its last output's shape for a batch of one, parameters, operations per image."""

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    macs: int
    flops: int


@dataclass(frozen=True, slots=True)
class Complexity:
    """All layers in the order of their first call, and the totals of the network.

    `parameters` counts every parameter of the network once; `trainable` those that learn.
    """

    layers: tuple[LayerCost, ...]
    parameters: int
    trainable: int
    macs: int
    flops: int


def _cost(module: nn.Module, given: Tensor, result: Tensor) -> tuple[int, int]:
    """(multiply-accumulates, operations) of one call."""
    match module:
        case nn.Conv2d():
            window = prod(module.kernel_size) * module.in_channels // module.groups
            macs = window * result.numel()
        case nn.ConvTranspose2d():
            window = prod(module.kernel_size) * module.out_channels // module.groups
            macs = window * given.numel()
        case nn.Linear():
            macs = module.in_features * result.numel()
        case nn.BatchNorm2d():
            return 0, 2 * result.numel()
        case nn.ReLU() | nn.SiLU():
            return 0, result.numel()
        case nn.MaxPool2d():
            size = module.kernel_size
            return 0, (size * size if isinstance(size, int) else prod(size)) * result.numel()
        case _:
            return 0, 0
    return macs, 2 * macs + (result.numel() if module.bias is not None else 0)


def _shape(result: Any) -> tuple[int, ...]:
    """Of a tensor, or of the first one of several."""
    tensors = (
        [result] if isinstance(result, Tensor) else [t for t in result if isinstance(t, Tensor)]
    )
    return tuple(tensors[0].shape)


def complexity(net: Net, channels: int, size: int) -> Complexity:
    """Per-layer table of a network for one image (channels, size, size).

    The network is looked at in evaluation mode without gradients and left in its former mode.
    A layer called several times has its operations summed and its parameters counted once.
    """
    calls: dict[str, LayerCost] = {}
    handles: list[torch.utils.hooks.RemovableHandle] = []

    def watch(name: str, module: nn.Module) -> None:
        own = sum(parameter.numel() for parameter in module.parameters())

        def note(_: nn.Module, given: tuple[Any, ...], result: Any) -> None:
            macs, flops = _cost(module, given[0], result)
            before = calls.get(name)
            calls[name] = LayerCost(
                name=name,
                kind=type(module).__name__,
                output_shape=_shape(result),
                parameters=own,
                macs=macs + (before.macs if before else 0),
                flops=flops + (before.flops if before else 0),
            )

        handles.append(module.register_forward_hook(note))

    for name, module in net.named_modules():
        if not any(module.children()):
            watch(name, module)
    first = next(net.parameters())
    was_training = net.training
    net.eval()
    try:
        with torch.no_grad():
            net(torch.zeros(1, channels, size, size, device=first.device, dtype=first.dtype))
    finally:
        for handle in handles:
            handle.remove()
        net.train(was_training)
    layers = tuple(calls.values())
    return Complexity(
        layers=layers,
        parameters=sum(parameter.numel() for parameter in net.parameters()),
        trainable=sum(p.numel() for p in net.parameters() if p.requires_grad),
        macs=sum(layer.macs for layer in layers),
        flops=sum(layer.flops for layer in layers),
    )
