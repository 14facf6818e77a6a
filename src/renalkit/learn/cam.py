"""Where in a picture does a network see what speaks for a class? CAM, Grad-CAM and Grad-CAM++.

A map is made of the feature maps of the layers a network names (`Net.cam_layers`), one layer per
modality, and of the logit of the class: of a fused network the fused one, so that a modality's
weight in the fusion is part of its map and the maps of one picture share one scale. Where a
modality is missing, the logit is that of the head of the one that is there, as in prediction.

    CAM         sum_n w_n A_n, w of the linear layer behind the mean over places. The mean of the
                map over places, plus the bias, is the logit (summed over modalities).
    Grad-CAM    sum_n (mean over places of dy/dA_n) A_n
    Grad-CAM++  sum_n (sum over places of a relu(dy/dA_n)) A_n, a = 1 / (2 + dy/dA_n * sum A_n)

All are then cut at zero: what is left speaks for the class. Sources: Zhou et al., CVPR 2016, eq. 1
and 2; Selvaraju et al., ICCV 2017, eq. 1 and 2; Chattopadhay et al., WACV 2018, eq. 19 (y taken
as the exponent, whose factor exp(y) is the same for all places of a picture and left out).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from renalkit.errors import ModelRefused
from renalkit.learn.options import Device
from renalkit.learn.outputs import FeatureNet, Net, Outputs
from renalkit.learn.predictor import resolve_device
from renalkit.learn.prepared import PreparedSet

CamMethod = Literal["cam", "grad-cam", "grad-cam++"]

# Shape legend: N images, b of a batch, S side of the input, n feature maps of y x x places,
# k classes, m modalities.

_LEAST_DENOMINATOR = 1.0
"""Of Grad-CAM++. It is 2 or more for feature maps >= 0; a swish dips to -0.28."""
_SETTLING_BATCH = 16
_SAME_LOGIT = 1e-3
"""Largest difference of a CAM's logit, as a share of 1 + its size: single precision."""


@dataclass(frozen=True, slots=True, eq=False)
class ActivationMaps:
    """Maps of N images, by modality.

    maps: (N,S,S) float32 >= 0, on the input grid. signed: (N,y,x) float32, on the layer's own grid
    and before the cut at zero. logits: (N,) of the class explained.
    """

    maps: Mapping[str, npt.NDArray[np.float32]]
    signed: Mapping[str, npt.NDArray[np.float32]]
    logits: npt.NDArray[np.float32]


def activation_maps(
    net: Net,
    data: PreparedSet,
    targets: npt.ArrayLike,
    method: CamMethod = "grad-cam",
    batch_size: int = 16,
    device: Device = "auto",
) -> ActivationMaps:
    """One map per image and modality for the class named in `targets`.

    Args:
        net: in evaluation mode while it is looked at; mode and gradients are restored.
        data: images as the network takes them.
        targets: (N,) class indices. Of ordered classes the logit is the log-probability.
        method: see the module.
        batch_size: images at once; the result does not depend on it.

    Raises:
        ModelRefused: the network names no layer or no class, a layer is not used as it says, the
            method does not exist for it, or a result is NaN or infinite.
        ValueError: no images, or targets that do not fit.
    """
    wanted = np.asarray(targets, np.int64)
    if len(data) == 0 or wanted.shape != (len(data),):
        raise ValueError(f"{len(data)} images with targets of shape {wanted.shape}")
    if wanted.min() < 0:
        raise ValueError(f"targets from {wanted.min()}: expected class indices")
    layers = net.cam_layers()
    if not layers:
        raise ModelRefused(
            "no layer to make a map of",
            where=type(net).__name__,
            expected="a network whose classes come from feature maps",
            remedy="explain another system of the run",
        )
    target = resolve_device(device)
    net.to(target)
    parts: list[tuple[dict[str, Tensor], Tensor]] = []
    with torch.inference_mode(False), _explained(net):
        for start in range(0, len(data), batch_size):
            rows = range(start, min(start + batch_size, len(data)))
            question = _Question(
                torch.from_numpy(wanted[rows.start : rows.stop]).to(target),
                torch.from_numpy(np.array(data.present[rows.start : rows.stop])).to(target),
            )
            parts.append(_signed(net, layers, _given(net, data, rows, target), question, method))
    signed = {name: torch.cat([maps[name] for maps, _ in parts]) for name in layers}
    logits = torch.cat([logit for _, logit in parts])
    for name, values in (*signed.items(), ("class_logits", logits)):
        if not bool(torch.isfinite(values).all()):
            raise ModelRefused(
                "a map holds NaN or infinite values",
                where=name,
                expected="finite values",
                remedy="train again or use other weights; nothing was explained",
            )
    return ActivationMaps(
        {n: _on_input(v, data.size).numpy() for n, v in signed.items()},
        {n: v.numpy() for n, v in signed.items()},
        logits.numpy(),
    )


def _on_input(signed: Tensor, size: int) -> Tensor:
    """(N,y,x) -> (N,S,S) >= 0, linear between the centres of places."""
    positive = signed.clamp_min(0.0)[:, None]
    return F.interpolate(positive, (size, size), mode="bilinear", align_corners=False)[:, 0]


def _given(
    net: Net, data: PreparedSet, rows: range, device: torch.device
) -> tuple[Tensor | None, ...]:
    """What the network is called with for these images."""
    image = torch.from_numpy(np.stack([data.network_input(i) for i in rows])).to(device)
    if not isinstance(net, FeatureNet) or not data.features.shape[1]:
        return (image,)
    features = torch.from_numpy(np.array(data.features[rows.start : rows.stop]))
    return image, None, features.to(device)


@dataclass(frozen=True, slots=True)
class _Question:
    """target: (b,) class indices. present: (b,m) bool."""

    target: Tensor
    present: Tensor

    @property
    def complete(self) -> Tensor:
        """(b,) whether every modality is there."""
        return self.present.all(1)


@contextmanager
def _explained(net: nn.Module) -> Generator[None]:
    """Evaluation mode, gradients on, but none for parameters; both restored afterwards."""
    mode = net.training
    frozen = [(p, p.requires_grad) for p in net.parameters()]
    net.eval()
    try:
        for parameter, _ in frozen:
            parameter.requires_grad_(False)
        with torch.enable_grad():
            yield
    finally:
        for parameter, before in frozen:
            parameter.requires_grad_(before)
        net.train(mode)


@contextmanager
def _watching(
    layers: Mapping[str, nn.Module], linears: Sequence[nn.Linear]
) -> Generator[tuple[dict[nn.Module, list[Tensor]], list[tuple[nn.Linear, Tensor]]]]:
    """Feature maps per layer, one per call, and what each linear layer gave; no hook stays behind.

    The network goes on with a copy of each feature map, so that a step in place does not change
    what was seen, and the gradient ends at the map: what lies below is not gone through.
    """
    seen: dict[nn.Module, list[Tensor]] = {layer: [] for layer in layers.values()}
    given: list[tuple[nn.Linear, Tensor]] = []

    def keep(module: nn.Module, _: Any, output: Any) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim != 4:
            raise ModelRefused(
                "a layer that gives no feature maps",
                where=type(module).__name__,
                expected="one tensor (b,n,y,x)",
            )
        leaf = output.detach().requires_grad_(True)
        seen[module].append(leaf)
        return leaf.clone()

    def note(module: nn.Module, _: Any, output: Tensor) -> None:
        given.append((cast("nn.Linear", module), output))

    handles: list[Any] = []
    try:
        for layer in seen:
            handles.append(layer.register_forward_hook(keep))
        for linear in linears:
            handles.append(linear.register_forward_hook(note))
        yield seen, given
    finally:
        for handle in handles:
            handle.remove()


def _signed(
    net: Net,
    layers: Mapping[str, nn.Module],
    given: tuple[Tensor | None, ...],
    question: _Question,
    method: CamMethod,
) -> tuple[dict[str, Tensor], Tensor]:
    """Maps (b,y,x) by modality before the cut, and the logits (b,) they explain, on the CPU."""
    linears = [m for m in net.modules() if isinstance(m, nn.Linear)] if method == "cam" else []
    with _watching(layers, linears) as (seen, heads):
        outputs = net(*given)
    logit = _logit(outputs, question)
    features = _by_modality(layers, seen, len(logit))
    if method == "cam":
        maps = _cam(features, heads, outputs, question)
    else:
        leaves = [leaf for calls in seen.values() for leaf in calls]
        slopes = iter(torch.autograd.grad(logit.sum(), leaves, materialize_grads=True))
        gradients = {layer: [next(slopes) for _ in calls] for layer, calls in seen.items()}
        slopes_of = _by_modality(layers, gradients, len(logit))
        weigh = _grad_cam if method == "grad-cam" else _grad_cam_plus_plus
        maps = {name: weigh(features[name], slopes_of[name]) for name in layers}
    plain = {name: values.detach().float().cpu() for name, values in maps.items()}
    return plain, logit.detach().float().cpu()


def _by_modality(
    layers: Mapping[str, nn.Module], seen: Mapping[nn.Module, list[Tensor]], n_images: int
) -> dict[str, Tensor]:
    """(b,n,y,x) per modality. A layer that modalities share has seen them in their order."""
    found: dict[str, Tensor] = {}
    for layer, calls in seen.items():
        names = [name for name, own in layers.items() if own is layer]
        rows = sum(len(call) for call in calls)
        if rows != n_images * len(names):
            raise ModelRefused(
                f"a layer used for {rows} feature maps",
                where=" and ".join(names),
                expected=f"{n_images} for each modality",
                remedy="mend cam_layers of the network",
            )
        found |= zip(names, torch.cat(calls).chunk(len(names)), strict=True)
    return {name: found[name] for name in layers}


def _logit(outputs: Outputs, question: _Question) -> Tensor:
    """(b,) what is explained: the logit of the class."""
    logits = outputs.class_logits
    if logits is None:
        raise ModelRefused(
            "a network without class scores",
            where="class_logits",
            expected="a system that classifies",
            remedy="explain another system of the run",
        )
    complete = question.complete
    if outputs.branch_logits is not None and not bool(complete.all()):
        there = question.present.to(logits.dtype)[:, :, None]
        alone = (outputs.branch_logits * there).sum(1) / there.sum(1).clamp_min(1.0)
        logits = torch.where(complete[:, None], logits, alone)
    if int(question.target.max()) >= logits.shape[1]:
        raise ValueError(f"target {int(question.target.max())} of {logits.shape[1]} classes")
    return logits.gather(1, question.target[:, None])[:, 0]


def _grad_cam(features: Tensor, slopes: Tensor) -> Tensor:
    return (slopes.mean((2, 3), keepdim=True) * features).sum(1)


def _grad_cam_plus_plus(features: Tensor, slopes: Tensor) -> Tensor:
    below = (2.0 + slopes * features.sum((2, 3), keepdim=True)).clamp_min(_LEAST_DENOMINATOR)
    weights = (F.relu(slopes) / below).sum((2, 3), keepdim=True)
    return (weights * features).sum(1)


def _cam(
    features: Mapping[str, Tensor],
    heads: Sequence[tuple[nn.Linear, Tensor]],
    outputs: Outputs,
    question: _Question,
) -> dict[str, Tensor]:
    """w^T f per modality, checked: means over places plus the bias must be the logit."""
    refused = ModelRefused(
        "class scores that are no linear function of feature maps averaged over places",
        where="method cam",
        expected="a mean over places and one linear layer, every modality being there",
        remedy="use the method grad-cam, which asks for nothing",
    )
    scores = outputs.class_logits
    assert scores is not None
    head = next(
        (h for h, out in heads if out.shape == scores.shape and torch.equal(out, scores)), None
    )
    if head is None or not bool(question.complete.all()):
        raise refused
    weight = head.weight[question.target]
    widths = [f.shape[1] for f in features.values()]
    shared = all(width == weight.shape[1] for width in widths)
    if not shared and sum(widths) != weight.shape[1]:
        raise refused
    columns = [weight] * len(widths) if shared else list(weight.split(widths, 1))
    counts = outputs.modality_weights if shared else None
    maps: dict[str, Tensor] = {}
    for place, (name, own) in enumerate(zip(features, columns, strict=True)):
        scaled = own if counts is None else own * counts[:, place, None]
        maps[name] = (scaled[:, :, None, None] * features[name]).sum(1)
    wanted = scores.gather(1, question.target[:, None])[:, 0]
    found = sum((m.mean((1, 2)) for m in maps.values()), torch.zeros_like(wanted))
    bias = cast("Tensor | None", head.bias)
    found = found if bias is None else found + bias[question.target]
    if bool(((found - wanted).abs() > _SAME_LOGIT * (1.0 + wanted.abs())).any()):
        raise refused
    return maps


def randomised(net: Net, build: Callable[[], Net], data: PreparedSet, seed: int) -> Net:
    """A network of the same architecture with fresh weights, as a control for its maps.

    Every parameter is drawn anew as `build` draws it. The statistics of normalisation layers are
    then taken from the images (their labels are not looked at), because a deep network with those
    of its construction says nothing at all. Standardisation of features is kept.

    Raises:
        ModelRefused: `build` makes another architecture.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = build()
        drawn = dict(fresh.named_parameters())
        other = copy.deepcopy(net).cpu()
        own = dict(other.named_parameters())
        if {n: p.shape for n, p in own.items()} != {n: p.shape for n, p in drawn.items()}:
            raise ModelRefused("another architecture", where="randomised network")
        norms = [m for m in other.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
        momenta = [m.momentum for m in norms]
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(drawn[name])
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # the mean over all batches
            other.train()
            for start in range(0, len(data), _SETTLING_BATCH):
                rows = range(start, min(start + _SETTLING_BATCH, len(data)))
                if len(rows) > 1:
                    other(*_given(other, data, rows, torch.device("cpu")))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    return other.eval()
