"""Can these ImageNet weights start this network, and if so, how do they fit in?

Weights come from a local file whose sha256 is known beforehand; nothing is downloaded. The
networks carry the parameter names of torchvision and timm (`conv1`, `layer1.0.conv1`,
`features.0`) or say which names a published file has for theirs; wrappers and the classifier of the
1000 classes are dealt with here.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from renalkit.errors import ModelRefused

WRAPPERS = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "model.", "backbone.", "encoder.")
FOREIGN_HEADS = ("fc.", "_fc.", "classifier.", "head.", "linear.", "pre_logits.")
OWN_HEADS = ("fc.", "classifier.", "decoder.", "last.", "head.")
COUNTER = "num_batches_tracked"
# What the parsers raise on damaged bytes: torch's restricted unpickler lets inner errors out.
UNREADABLE = (
    safetensors.SafetensorError,
    pickle.UnpicklingError,
    struct.error,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was taken from a weight file: tensors taken, names left out, and how the first
    convolution was fitted ('as is', 'sum over RGB' or 'RGB and mean over RGB')."""

    n_tensors: int
    left_out: tuple[str, ...]
    first_convolution: str


def _some(names: Iterable[str], limit: int = 8) -> str:
    names = sorted(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def read_weights(path: Path, sha256: str) -> dict[str, Tensor]:
    """Tensors by name from a .safetensors, .pth or .pt file.

    The file is read once; its digest is compared before anything is parsed, and the bytes that
    were hashed are the bytes that are parsed. A pickle is opened with weights_only.

    Raises:
        ModelRefused: missing file, other digest, unknown ending, unreadable content, something
            that is not a tensor, or a tensor with NaN or infinity.
    """
    where = path.name
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise ModelRefused(
            f"cannot read the weights ({type(problem).__name__})",
            where=where,
            expected="a local file",
        ) from problem
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ModelRefused(
            f"sha256 {found}",
            where=where,
            expected=f"sha256 {sha256}",
            remedy="get the file again, or give the digest of the file that is meant",
        )
    try:
        if path.suffix == ".safetensors":
            named: object = safetensors.torch.load(content)
        elif path.suffix in {".pth", ".pt"}:
            named = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        else:
            raise ModelRefused(
                f"file ending {path.suffix!r}", where=where, expected=".safetensors, .pth or .pt"
            )
    except UNREADABLE as problem:
        raise ModelRefused(
            f"not a readable weight file ({type(problem).__name__})",
            where=where,
            expected="tensors by name, without other Python objects",
            remedy="convert it to safetensors on a machine where its source is trusted",
        ) from problem
    return _tensors(named, where)


def _tensors(named: object, where: str) -> dict[str, Tensor]:
    for wrapper in WRAPPERS:
        if isinstance(named, Mapping) and isinstance(named.get(wrapper), Mapping):
            named = named[wrapper]
    if not isinstance(named, Mapping) or not named:
        raise ModelRefused(
            f"a {type(named).__name__} without tensors", where=where, expected="tensors by name"
        )
    items = cast(Mapping[object, object], named)
    strange = [str(name) for name, value in items.items() if not isinstance(value, Tensor)]
    if strange:
        raise ModelRefused(
            f"not a tensor: {_some(strange)}", where=where, expected="tensors by name only"
        )
    tensors = {str(name): cast(Tensor, value) for name, value in items.items()}
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    broken = [
        name
        for name, value in tensors.items()
        if value.is_floating_point() and not bool(torch.isfinite(value).all())
    ]
    if broken:
        raise ModelRefused(
            f"NaN or infinite weights: {_some(broken)}", where=where, expected="finite weights"
        )
    return tensors


def fit_first_convolution(weight: Tensor, channels: int) -> tuple[Tensor, str]:
    """Fit an RGB convolution (out,3,k,k) to 1, 3 or 4 input channels, and say how.

    1: the sum over RGB, which gives for a grey image what the three equal channels gave.
    4: RGB as they are and the mean over RGB for the fourth channel.

    Raises:
        ModelRefused: other numbers of channels.

    >>> fit_first_convolution(torch.ones(2, 3, 1, 1), 1)[0].flatten().tolist()
    [3.0, 3.0]
    """
    if weight.ndim != 4 or weight.shape[1] != 3 or channels not in {1, 3, 4}:
        raise ModelRefused(
            f"first convolution of shape {tuple(weight.shape)} for {channels} input channels",
            expected="weights for RGB and a network for 1, 3 or 4 channels",
        )
    if channels == 1:
        return weight.sum(1, keepdim=True), "sum over RGB"
    if channels == 4:
        return torch.cat((weight, weight.mean(1, keepdim=True)), 1), "RGB and mean over RGB"
    return weight, "as is"


def own_names(name: str) -> tuple[str, ...]:
    """The names a published file has for ours where they agree."""
    return (name,)


def load_encoder(
    net: nn.Module,
    path: Path,
    sha256: str,
    *,
    first_conv: str,
    published: Callable[[str], tuple[str, ...]] = own_names,
) -> Loaded:
    """Start the encoder of a network from a weight file; heads and decoder keep their weights.

    first_conv: name of the module whose input channels are fitted, such as 'conv1'. published: the
    names a file may have for one of the network's.

    Raises:
        ModelRefused: as `read_weights`; names that are missing or unexpected; wrong shapes. The
            network is unchanged then.
    """
    where = path.name
    own = net.state_dict()
    renamed = {foreign: name for name in own for foreign in published(name)}
    found = read_weights(path, sha256)
    given = {renamed.get(name, name): value for name, value in found.items()}
    wanted = {name for name in own if not name.startswith(OWN_HEADS)}
    left_out = {name for name in given if name.startswith(FOREIGN_HEADS)}
    offered = set(given) - left_out
    missing = {name for name in wanted - offered if not name.endswith(COUNTER)}
    unexpected = offered - wanted
    if missing or unexpected:
        parts = [
            f"{word}: {_some(names)}"
            for word, names in (("missing", missing), ("unexpected", unexpected))
            if names
        ]
        raise ModelRefused(
            "; ".join(parts),
            where=where,
            expected=f"the {len(wanted)} names of this encoder",
            remedy="check that the file belongs to this architecture",
        )
    taken = {name: given[name] for name in offered}
    first = f"{first_conv}.weight"
    channels = int(own[first].shape[1])
    taken[first], how = fit_first_convolution(taken[first], channels)
    wrong = [
        f"{name} {tuple(value.shape)} instead of {tuple(own[name].shape)}"
        for name, value in taken.items()
        if value.shape != own[name].shape
    ]
    if wrong:
        raise ModelRefused(
            f"wrong shapes: {_some(wrong)}",
            where=where,
            expected="the shapes of this encoder at width 1.0",
        )
    net.load_state_dict(taken, strict=False)
    return Loaded(len(taken), tuple(sorted(left_out)), how)
