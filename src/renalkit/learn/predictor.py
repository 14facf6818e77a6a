"""What does a trained network say about images, and can its weights be trusted?

Weights are safetensors files checked by digest, names, shapes and finiteness; nothing is ever
unpickled.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save_file
from torch import Tensor, nn

from renalkit.errors import ModelRefused
from renalkit.learn.options import Device
from renalkit.learn.outputs import FeatureNet, Net, Outputs
from renalkit.learn.prepared import PreparedSet
from renalkit.store.files import sha256_bytes, sha256_file, write_with

Images = npt.NDArray[np.uint8] | npt.NDArray[np.float32] | PreparedSet
RawArrays = dict[str, npt.NDArray[Any]]

# Shape legend: N images, b images of a batch, c channels, S side in pixels, h heads, k classes.


class InputShape(Protocol):
    """Channels and side of a network's input."""

    @property
    def channels(self) -> int: ...

    @property
    def size(self) -> int: ...


def plain_state(net: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers as plain tensors of their own memory, on the CPU.

    Weights shared by two parts of a network come twice, so that every name can be loaded.
    """
    return {
        name: value.detach().to("cpu").contiguous().clone()
        for name, value in cast("dict[str, Tensor]", net.state_dict()).items()
    }


def save_weights(net: nn.Module, path: Path) -> str:
    """Write the weights atomically; returns the SHA-256 of the file.

    Raises:
        ModelRefused: a weight is NaN or infinite.
        StoreError: the disk refused.
    """
    state = plain_state(net)
    _require_finite(state, path.name)
    write_with(path, lambda temporary: save_file(state, temporary))
    return sha256_file(path)


def load_weights(net: nn.Module, path: Path, sha256: str | None = None) -> None:
    """Put the weights of a file into a network of the same architecture.

    Args:
        net: changed in place only when everything fits.
        path: a safetensors file.
        sha256: expected digest of the file; None trusts the content as far as it fits.

    Raises:
        ModelRefused: missing file, another digest, not safetensors, missing or unexpected names,
            another shape or type, NaN or infinite values.
    """
    remedy = "restore the file from the run or model package it came from"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelRefused(
            f"weights cannot be read ({error.strerror})", where=path.name, remedy=remedy
        ) from error
    if sha256 is not None and sha256_bytes(data) != sha256:
        raise ModelRefused(
            f"weights with digest {sha256_bytes(data)[:16]}...",
            where=path.name,
            expected=f"{sha256[:16]}...",
            remedy=remedy,
        )
    try:
        state = load_tensors(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ModelRefused(
            f"not a safetensors file ({str(error)[:120]})", where=path.name, remedy=remedy
        ) from error
    _require_fit(net, state, path.name)
    _require_finite(state, path.name)
    net.load_state_dict(state, strict=True)


def load_trained(net: Net, path: Path, sha256: str | None = None) -> None:
    """`load_weights`, then the network in the form it is scored in, in evaluation mode."""
    load_weights(net, path, sha256)
    net.eval()
    net.settle()


def _require_fit(net: nn.Module, state: dict[str, Tensor], where: str) -> None:
    wanted = cast("dict[str, Tensor]", net.state_dict())
    problems = [f"missing {name}" for name in sorted(set(wanted) - set(state))]
    problems += [f"unexpected {name}" for name in sorted(set(state) - set(wanted))]
    for name in sorted(set(state) & set(wanted)):
        given, asked = state[name], wanted[name]
        if given.shape != asked.shape or given.dtype != asked.dtype:
            problems.append(
                f"{name} is {given.dtype} {tuple(given.shape)}, not "
                f"{asked.dtype} {tuple(asked.shape)}"
            )
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ModelRefused(
            "; ".join(problems[:3]) + more,
            where=where,
            expected="the weights of this architecture and these parameters",
            remedy="use the parameters the network was trained with",
        )


def _require_finite(state: dict[str, Tensor], where: str) -> None:
    for name, value in state.items():
        if not bool(torch.isfinite(value).all()):
            raise ModelRefused(
                f"{name} holds NaN or infinite values",
                where=where,
                expected="finite weights",
                remedy="train again; a network with such weights would still name a class",
            )


def resolve_device(device: Device) -> torch.device:
    """'auto' is a CUDA device when there is one.

    Raises:
        ModelRefused: 'cuda' is asked for and there is none.
    """
    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        raise ModelRefused("no CUDA device", where="device", remedy="use device 'cpu' or 'auto'")
    return torch.device("cuda" if device != "cpu" and there else "cpu")


def computes_bf16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16; without them it is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    has = torch.cpu.get_capabilities()
    return bool(has.get("amx_bf16") or has.get("avx512_bf16"))


@contextmanager
def evaluating(net: nn.Module) -> Generator[None]:
    """Evaluation mode without gradients; the mode before returns afterwards."""
    before = net.training
    net.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        net.train(before)


def _float_batch(images: Images, rows: slice) -> npt.NDArray[np.float32]:
    if isinstance(images, PreparedSet):
        chosen = range(*rows.indices(len(images)))
        return np.stack([images.network_input(i) for i in chosen])
    values = np.asarray(images[rows])
    if values.dtype == np.uint8:
        return values.astype(np.float32) * np.float32(1.0 / 255.0)
    return values.astype(np.float32)


def _arrays(outputs: Outputs) -> dict[str, Tensor]:
    named: dict[str, Tensor] = {}
    if outputs.mask_logits is not None:
        named["mask_logits"] = torch.cat(outputs.mask_logits, dim=1).float()
    if outputs.class_logits is not None:
        named["class_logits"] = outputs.class_logits.float()
    for name in ("attention", "branch_logits", "modality_weights"):
        value = getattr(outputs, name)
        if value is not None:
            named[name] = value.float()
    return named


_PLACED = ("mask_logits", "attention")
"""Results that lie where the picture lies."""


def _mirrored_mean(net: nn.Module, given: Sequence[Tensor | None]) -> dict[str, Tensor]:
    """Mean of the logits for the image and its left-right mirror (the only flip B-mode allows)."""
    image, *more = given
    assert image is not None
    straight = _arrays(net(image, *more))
    mirrored = _arrays(net(torch.flip(image, [-1]), *more))
    return {
        name: (value + (mirrored[name].flip(-1) if name in _PLACED else mirrored[name])) / 2
        for name, value in straight.items()
    }


def predict_batches(
    net: nn.Module,
    images: Images,
    batch_size: int = 32,
    device: Device = "auto",
    tta: bool = False,
) -> Iterator[RawArrays]:
    """Network results in the order of the images, one batch at a time.

    Args:
        net: evaluated without gradients; its mode is restored.
        images: (N,c,S,S) uint8 (scaled to 0..1) or float32 (taken as it is), or a PreparedSet,
            which brings its own grey levels and features.
        batch_size: images held at once.
        device: where to compute; the network is moved there.
        tta: mean of the logits over the image and its left-right mirror.

    Yields:
        'mask_logits' (b,h,S,S), 'class_logits' (b,k), 'attention' (b,1,S,S), 'branch_logits'
        (b,m,k), 'modality_weights' (b,m), float32, as far as the network has them; of a
        PreparedSet also 'present' (b,m) bool.

    Raises:
        ModelRefused: a result is NaN or infinite.
    """
    target = resolve_device(device)
    net.to(target)
    for start in range(0, len(images), batch_size):
        rows = slice(start, start + batch_size)
        batch = torch.from_numpy(_float_batch(images, rows))
        with evaluating(net):
            given = [batch.to(target), *_beside(net, images, rows, target)]
            found = _mirrored_mean(net, given) if tta else _arrays(net(*given))
            raw = {name: value.cpu().numpy() for name, value in found.items()}
        for name, value in raw.items():
            if not np.isfinite(value).all():
                raise ModelRefused(
                    f"{name} holds NaN or infinite values",
                    where=f"images {start} to {start + len(value) - 1}",
                    expected="finite results",
                    remedy="train again or use other weights; nothing was decided from this",
                )
        if isinstance(images, PreparedSet):
            raw["present"] = images.present[rows]
        yield raw


def _beside(
    net: nn.Module, images: Images, rows: slice, device: torch.device
) -> tuple[Tensor | None, ...]:
    """What a network is given after the image: nothing, or no guide and its features."""
    if not isinstance(net, FeatureNet):
        return ()
    if not isinstance(images, PreparedSet) or not images.features.shape[1]:
        return ()
    return None, torch.from_numpy(images.features[rows]).to(device)


def predict_arrays(
    net: nn.Module,
    images: Images,
    batch_size: int = 32,
    device: Device = "auto",
    tta: bool = False,
) -> RawArrays:
    """`predict_batches` joined: (N, ...) arrays. For large sets iterate instead.

    Raises:
        ValueError: no images.
        ModelRefused: a result is NaN or infinite.
    """
    if len(images) == 0:
        raise ValueError("no images to predict")
    parts = list(predict_batches(net, images, batch_size, device, tta))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def torch_threads() -> int:
    """How many threads one operation uses here."""
    return torch.get_num_threads()


def time_per_image(net: nn.Module, shape: InputShape, batch: int = 1, repeats: int = 10) -> float:
    """Median milliseconds per image of a forward pass where the network lies.

    The first two passes are not counted. `shape`: anything with channels and size.
    """
    parameter: Any = next(iter(net.parameters()), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    # A generator of its own: measuring must not move the global one.
    values = torch.rand(
        batch,
        shape.channels,
        shape.size,
        shape.size,
        generator=torch.Generator().manual_seed(0),
    )
    image = values.to(device)
    times_s: list[float] = []
    with evaluating(net):
        for _ in range(repeats + 2):
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            started = time.perf_counter()
            net(image)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times_s.append(time.perf_counter() - started)
    return float(np.median(times_s[2:])) * 1000.0 / batch
