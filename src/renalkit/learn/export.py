"""How does a trained network leave torch: as an ONNX graph that gives the same results?

The graph is the network as it answers, not as it learns: normalisation folded into convolutions,
RepVGG's branches merged, strided 1x1 convolutions plain, without mask heads and attention maps that
no answer is read from. The heads of single modalities stay: they answer when the other is missing.

Shape legend: b images, c channels, s side in pixels, f numbers, h heads, k classes, m modalities;
of 3-D networks (z,y,x) voxels stand for (s,s).
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from renalkit.errors import MissingExtra, ModelRefused
from renalkit.learn.nets.backbones import ResNetMaps
from renalkit.learn.nets.blocks import Pointwise
from renalkit.learn.nets.efficientnet import EfficientNetMaps
from renalkit.learn.nets.mufnet import MufNet
from renalkit.learn.outputs import FeatureNet, Net, Outputs
from renalkit.learn.predictor import InputShape, evaluating
from renalkit.store.files import write_bytes

OPSET = 18
"""Of the graphs; the one torch translates to directly, so nothing is converted afterwards."""
RESULTS = ("mask_logits", "class_logits", "branch_logits", "modality_weights")
PROBE = 2
"""Images of the example a graph is traced with; the batch of the graph has any length."""

Arrays = Mapping[str, npt.NDArray[Any]]
Triple = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class VolumeShape:
    """Input of a 3-D network: channels and (z,y,x) voxels.

    multiple: None fixes `size`. Else the graph takes any multiples of it along z, y and x, and
    `size`, at least two of them, is that of the example it is traced with, which no level of the
    network may shrink to one voxel.
    """

    channels: int
    size: Triple
    multiple: Triple | None = None

    def __post_init__(self) -> None:
        if self.multiple is None:
            return
        if any(n < 2 * m or n % m for n, m in zip(self.size, self.multiple, strict=True)):
            raise ValueError(f"{self.size} voxels, expected 2 or more times {self.multiple}")


@dataclass(frozen=True, slots=True)
class Graph:
    """What was written. inputs: shapes by name, None for any length. operators: how many of
    each."""

    inputs: dict[str, tuple[int | None, ...]]
    outputs: tuple[str, ...]
    operators: dict[str, int]


def results_of(outputs: Outputs, *, all_heads: bool) -> dict[str, Tensor]:
    """The results an answer is read from, by name; of the masks the last head's, or all."""
    named: dict[str, Tensor] = {}
    if outputs.mask_logits is not None:
        used = outputs.mask_logits if all_heads else outputs.mask_logits[-1:]
        named["mask_logits"] = torch.cat(used, 1)
    for name in RESULTS[1:]:
        value = getattr(outputs, name)
        if value is not None:
            named[name] = value
    return named


def reference_results(
    net: Net, given: Arrays, *, all_heads: bool, batch: int = 8
) -> dict[str, npt.NDArray[np.float32]]:
    """What the trained network itself says, computed by torch on the CPU.

    given: 'image' (b,c,s,s) and, for networks that take numbers, 'features' (b,f), float32.
    """
    parts: list[dict[str, Tensor]] = []
    with evaluating(net):
        for start in range(0, len(given["image"]), batch):
            rows = slice(start, start + batch)
            image = torch.from_numpy(given["image"][rows])
            parts.append(
                results_of(_called(net, image, _numbers(given, rows)), all_heads=all_heads)
            )
    return {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}


def _numbers(given: Arrays, rows: slice) -> Tensor | None:
    return torch.from_numpy(given["features"][rows]) if "features" in given else None


def _called(net: Net, image: Tensor, features: Tensor | None) -> Outputs:
    return net(image, None, features) if isinstance(net, FeatureNet) else net(image)


# ---- the form that is exported ----------------------------------------------------------------


class Deployed(nn.Module):
    """A network as a function from tensors to a tuple of tensors, in the order of `RESULTS`."""

    def __init__(self, net: Net, *, all_heads: bool, paired: bool) -> None:
        super().__init__()
        self.net = net
        self.all_heads = all_heads
        self.pair = pair_of(net) if paired else None

    def forward(self, image: Tensor, features: Tensor | None = None) -> tuple[Tensor, ...]:
        """image (b,c,s,s), features (b,f)."""
        if self.pair is None:
            found = _called(self.net, image, features)
        else:
            muf = cast(MufNet, self.net)
            muf.spec.check(image)
            found = muf.answer(self.pair(muf.parts(image)), features)
        return tuple(results_of(found, all_heads=self.all_heads).values())


def deployed(net: Net, *, all_heads: bool = False, paired: bool = False) -> Deployed:
    """A copy of a trained network in the form that is exported.

    all_heads: keep every mask head, for systems whose answer is their mean. paired: compute both
    backbones of a fused network as one with grouped convolutions, where that is the same function.
    """
    settled = copy.deepcopy(net).eval().requires_grad_(False)  # which is a tenth faster to trace
    settled.settle()
    _make_plain(settled)
    return Deployed(settled, all_heads=all_heads, paired=paired)


def _make_plain(module: nn.Module) -> None:
    """Put an ordinary strided convolution in the place of every `Pointwise`, which works round a
    fault of training only."""
    for name, child in module.named_children():
        if isinstance(child, Pointwise):
            plain = nn.Conv2d(
                child.in_channels, child.out_channels, 1, stride=child.every, bias=False
            )
            plain.weight = child.weight
            module.add_module(name, plain)
        else:
            _make_plain(child)


@torch.no_grad()
def _fold_normalisation(form: Deployed, example: tuple[Tensor, ...]) -> None:
    """Fold normalisation into convolutions in place; a third less for torch to trace.

    Which belongs to which is seen on the example: a normalisation that reads what one convolution
    gave, and no other. (Whether something else reads it too is not seen here; the parity gate
    would refuse such a network.)
    """
    gave: dict[int, tuple[nn.Module, Tensor]] = {}
    before: dict[nn.Module, set[nn.Module | None]] = {}
    after: dict[nn.Module, set[nn.Module]] = {}

    def leaves(conv: nn.Module, _: object, out: Tensor) -> None:
        gave[id(out)] = conv, out  # held, so that no other tensor takes its place in memory

    def enters(norm: nn.Module, given: tuple[Tensor, ...]) -> None:
        conv, _ = gave.get(id(given[0]), (None, None))
        before.setdefault(norm, set()).add(conv)
        if conv is not None:
            after.setdefault(conv, set()).add(norm)

    hooks = [
        part.register_forward_hook(leaves)
        if isinstance(part, _CONVOLUTIONS)
        else part.register_forward_pre_hook(enters)
        for part in form.modules()
        if isinstance(part, (*_CONVOLUTIONS, *_NORMALISATIONS))
    ]
    form(*example)
    for hook in hooks:
        hook.remove()
    instead: dict[nn.Module, nn.Module] = {}
    for norm, convs in before.items():
        conv = convs.pop() if len(convs) == 1 else None
        if conv is not None and after[conv] == {norm}:
            instead[conv] = fuse_conv_bn_eval(cast(Any, conv), cast(Any, norm))
            instead[norm] = nn.Identity()
    for path, part in list(form.named_modules(remove_duplicate=False)):
        if part in instead:
            form.set_submodule(path, instead[part])


_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)
_NORMALISATIONS = (nn.BatchNorm2d, nn.BatchNorm3d)


class Pair(nn.Module):
    """Two backbones of one architecture as one: their channels side by side, grouped convolutions.

    Each group sees the channels of one modality only, so the function is that of both apart.
    """

    def __init__(self, body: nn.Module, levels: nn.Module) -> None:
        super().__init__()
        self.body, self.levels = body, levels

    def forward(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """m pictures (b,1 or 3,s,s) -> m feature maps (b,n,y,x)."""
        side_by_side = torch.cat([self.levels(part) for part in parts], 1)
        return list(self.body(side_by_side).chunk(len(parts), 1))


def pair_of(net: nn.Module) -> Pair | None:
    """The backbones of a fused network as one; None where there are not several to be joined.

    Possible where every layer is a convolution or works on each channel alone, and none puts
    channels side by side itself: EfficientNet and ResNet.
    """
    if not isinstance(net, MufNet) or len(net.backbones) < 2:
        return None
    bodies = [cast(nn.Module, b.body) for b in net.backbones]
    if not isinstance(bodies[0], (EfficientNetMaps, ResNetMaps)):
        return None
    joined = _joined(bodies)
    levels = cast(nn.Module, cast(Any, net.backbones[0]).levels)
    return None if joined is None else Pair(joined, levels)


_ALONE = (
    nn.Identity,
    nn.ReLU,
    nn.SiLU,
    nn.Sigmoid,
    nn.Dropout,
    nn.ZeroPad2d,
    nn.ConstantPad2d,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
)
"""Layers without weights that work on each channel alone."""


def _joined(modules: Sequence[nn.Module]) -> nn.Module | None:
    """Modules of one architecture -> one on their channels side by side; None where impossible."""
    first = modules[0]
    if isinstance(first, nn.Conv2d):
        return _joined_convolution(cast("Sequence[nn.Conv2d]", modules))
    if isinstance(first, nn.BatchNorm2d):
        return _joined_normalisation(cast("Sequence[nn.BatchNorm2d]", modules))
    if isinstance(first, _ALONE):
        return first
    names = [name for name, _ in first.named_children()]
    if not names or any(True for _ in first.parameters(recurse=False)):
        return None
    whole = copy.deepcopy(first)
    for name in names:
        part = _joined([m.get_submodule(name) for m in modules])
        if part is None:
            return None
        whole.add_module(name, part)
    return whole


def _joined_convolution(parts: Sequence[nn.Conv2d]) -> nn.Conv2d:
    first = parts[0]
    one = nn.Conv2d(
        first.in_channels * len(parts),
        first.out_channels * len(parts),
        cast("tuple[int, int]", first.kernel_size),
        cast("tuple[int, int]", first.stride),
        cast("tuple[int, int]", first.padding),
        cast("tuple[int, int]", first.dilation),
        first.groups * len(parts),
        bias=first.bias is not None,
    )
    with torch.no_grad():
        one.weight.copy_(torch.cat([p.weight for p in parts]))
        if one.bias is not None:
            one.bias.copy_(torch.cat([cast(Tensor, p.bias) for p in parts]))
    return one.eval()


def _joined_normalisation(parts: Sequence[nn.BatchNorm2d]) -> nn.BatchNorm2d:
    one = nn.BatchNorm2d(parts[0].num_features * len(parts), parts[0].eps)
    with torch.no_grad():
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(one, name).copy_(torch.cat([getattr(p, name) for p in parts]))
    return one.eval()


class MeanOfMembers(nn.Module):
    """Networks trained alike as one: the mean of their probabilities, never of their logits.

    all_heads: a mask is the mean of every head's probability, not the last one's.
    """

    def __init__(self, members: Sequence[Net], *, all_heads: bool) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.all_heads = all_heads

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """image (b,c,s,s) -> 'mask' (b,1,s,s) and 'classes' (b,k) in 0..1, as far as there are."""
        said = [results_of(member(image), all_heads=self.all_heads) for member in self.members]
        found: dict[str, Tensor] = {}
        if "mask_logits" in said[0]:
            masks = [torch.sigmoid(s["mask_logits"]).mean(1, keepdim=True) for s in said]
            found["mask"] = torch.stack(masks).mean(0)
        if "class_logits" in said[0]:
            scores = [torch.softmax(s["class_logits"], 1) for s in said]
            found["classes"] = torch.stack(scores).mean(0)
        return found


# ---- the graph --------------------------------------------------------------------------------


def write_onnx(
    form: Deployed, shape: InputShape | VolumeShape, n_features: int, path: Path
) -> Graph:
    """Write the graph atomically.

    Args:
        form: what `deployed` gives; normalisation is folded into its convolutions.
        shape: channels and side of the input, or its voxels.
        n_features: numbers beside the picture; 0 leaves the input 'features' out.
        path: of the ONNX file.

    Raises:
        MissingExtra: the exporter's packages are not installed.
        ModelRefused: torch cannot translate the network.
    """
    size = shape.size if isinstance(shape, VolumeShape) else (shape.size, shape.size)
    seeded = torch.Generator().manual_seed(0)
    example = {"image": torch.rand(PROBE, shape.channels, *size, generator=seeded)}
    free = {"image": _free_lengths(shape)}
    if n_features:
        example["features"] = torch.zeros(PROBE, n_features)
        free["features"] = {0: free["image"][0]}
    with evaluating(form):
        outputs = _names(form, example)
    _fold_normalisation(form.eval(), tuple(example.values()))
    model = _translated(form, example, free, outputs)
    _forget_source(model)
    write_bytes(path, model.SerializeToString())
    counted = Counter(str(node.op_type) for node in model.graph.node)
    return Graph(
        {
            name: tuple(None if i in free[name] else n for i, n in enumerate(value.shape))
            for name, value in example.items()
        },
        outputs,
        dict(sorted(counted.items())),
    )


def _names(form: Deployed, example: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Names of the form's results, in order."""
    found = _called(form.net, example["image"], example.get("features"))
    return tuple(results_of(found, all_heads=form.all_heads))


def _free_lengths(shape: InputShape | VolumeShape) -> dict[int, Any]:
    """The axes of the image that may have any length: the batch, and of volumes what is asked."""
    free: dict[int, Any] = {0: torch.export.Dim("batch", min=1)}
    if isinstance(shape, VolumeShape) and shape.multiple is not None:
        for axis, (name, step) in enumerate(zip("zyx", shape.multiple, strict=True), start=2):
            free[axis] = step * torch.export.Dim(name, min=1)
    return free


def _translated(
    form: Deployed,
    example: Mapping[str, Tensor],
    free: Mapping[str, dict[int, Any]],
    outputs: tuple[str, ...],
) -> Any:
    """The ONNX model of a form whose inputs have any length along the axes named in `free`."""
    try:
        import onnxscript  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"{error.name} is not installed", remedy="install renalkit with the extra 'export'"
        ) from error
    with _silent():
        try:
            program = torch.onnx.export(
                form,
                tuple(example.values()),
                input_names=list(example),
                output_names=list(outputs),
                opset_version=OPSET,
                dynamic_shapes=tuple(free[name] for name in example),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise ModelRefused(
                f"torch cannot translate this network ({' '.join(str(error).split())[:160]})",
                where=type(form.net).__name__,
                remedy="use the safetensors weights",
            ) from error
    assert program is not None
    return program.model_proto


@contextmanager
def _silent() -> Generator[None]:
    """torch speaks of its own operators and plans while it exports."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)


def _forget_source(model: Any) -> None:
    """Take out where on this machine each node came from, and who traced it."""
    for part in (model, model.graph, *model.graph.node, *model.graph.value_info):
        del part.metadata_props[:]
        part.doc_string = ""
    for port in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        port.doc_string = ""
        del port.metadata_props[:]
