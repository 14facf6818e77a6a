"""How fast do exported networks answer, beside PyTorch and ONNX Runtime, and what bounds them?

    python benchmarks/bench_inference.py [--only NAME] [--quick]

Networks with drawn weights at their published sizes: the pair of MUF-Net (two EfficientNet-B3 at
300 px), AttentionNestedUNet at 256 px, RepVGG-A0 at 224 px. Peers: PyTorch as anybody calls it
(evaluation mode, inference_mode), PyTorch in channels_last, ONNX Runtime on the same graph. All hold
the same weights, get the same pictures and use the same number of threads.

What the machine does at best is measured here too: floating-point operations per second of a large
matrix product, bytes per second of a large copy. A network's operations are counted; its bytes are
weights, inputs and results of every layer with weights, as if nothing stayed in the caches. Their
quotient, beside that of the machine, says what bounds it; its share of the product says how much is
left to gain. A fast mode is compared with the product in its own numbers.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import book
import numpy as np
import torch

from renalkit.learn.complexity import complexity
from renalkit.learn.export import deployed, results_of, write_onnx
from renalkit.learn.outputs import Net
from renalkit.learn.prepared import CHANNELS
from renalkit.runtime.abilities import FAST, Precision, this_processor
from renalkit.runtime.engines import EngineOptions, installed, open_engine, write_openvino
from renalkit.runtime.parity import ALLOWED, Parity, compare
from renalkit.runtime.quantise import write_int8
from renalkit.systems import get_system
from renalkit.systems._contract import Shape, Task

Call = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """A network at its published size."""

    name: str
    system: str
    task: Task
    size: int
    params: dict[str, Any]

    @property
    def shape(self) -> Shape:
        modes = get_system(self.system).takes[0]
        return Shape(sum(CHANNELS[m] for m in modes), self.size, 2, modes)

    def net(self, settled: bool = True) -> Net:
        system = get_system(self.system)
        torch.manual_seed(0)
        net = system.build(system.params(self.params), self.shape, self.task)
        with torch.no_grad():  # statistics of normalisation that let something through
            net(torch.rand(4, self.shape.channels, self.size, self.size))
        net.eval()
        if settled:
            net.settle()
        return net


CASES = (
    Case(
        "MUF-Net pair, B3, 300 px", "mufnet-2022", Task.CLASSIFICATION, 300, {"norm_momentum": 0.9}
    ),
    Case("AttentionNestedUNet, 256 px", "multitask-us", Task.SEGMENTATION, 256, {}),
    Case("RepVGG-A0, 224 px", "repvgg-ceus", Task.CLASSIFICATION, 224, {}),
)
QUICK = Case(
    "MUF-Net pair, B0, 64 px",
    "mufnet-2022",
    Task.CLASSIFICATION,
    64,
    {"backbone": "efficientnet-b0", "norm_momentum": 0.9},
)


def written(case: Case, folder: Path, threads: int) -> dict[str, tuple[Path, EngineOptions]]:
    """The case as files of every kind, each with how it is computed."""
    net = case.net()
    files = {"": folder / "model.onnx"}
    write_onnx(deployed(net), case.shape, 0, files[""])
    pair = deployed(net, paired=True)
    if pair.pair is not None:
        files[", backbones as one"] = folder / "paired.onnx"
        write_onnx(pair, case.shape, 0, files[", backbones as one"])
    found: dict[str, tuple[Path, EngineOptions]] = {}
    for words, path in files.items():
        native = path.with_suffix(".xml")
        write_openvino(path, native)
        for backend in installed():
            options = EngineOptions(backend, Precision.FP32, threads)
            read = native if backend == "openvino" else path
            found[f"{backend} fp32{words}"] = read, options
    for mode in FAST:
        if not this_processor().can(mode):
            continue
        path = files[""].with_suffix(".xml")
        if mode is Precision.INT8:
            path = folder / "model-int8.onnx"
            shape = (16, case.shape.channels, case.size, case.size)
            write_int8(
                files[""], path, {"image": np.random.default_rng(7).random(shape, np.float32)}
            )
        found[f"openvino {mode.value}"] = path, EngineOptions("openvino", mode, threads)
    return found


def ways(
    case: Case, files: Mapping[str, tuple[Path, EngineOptions]], image: np.ndarray
) -> tuple[dict[str, Call], dict[str, Parity]]:
    """Every way to compute the case, and how far each is from PyTorch."""
    given, tensor = {"image": image}, torch.from_numpy(image)
    last = case.net(settled=False).to(memory_format=torch.channels_last)
    found: dict[str, Call] = {
        "torch": in_torch(case.net(settled=False), tensor),
        "torch channels_last": in_torch(last, tensor.contiguous(memory_format=torch.channels_last)),
    }
    if case.system == "repvgg-ceus":
        found["torch, merged"] = in_torch(case.net(), tensor)
    said = {name: results_of(call(), all_heads=False) for name, call in found.items()}
    expected = {name: value.numpy() for name, value in said.pop("torch").items()}
    parity = {
        way: compare(expected, {name: value.numpy() for name, value in results.items()})
        for way, results in said.items()
    }
    for name, (path, options) in files.items():
        engine = open_engine(path, options)
        parity[name] = compare(expected, engine.run(given))
        found[name] = partial(engine.run, given)
    return found, parity


def in_torch(net: Net, image: torch.Tensor) -> Call:
    def call() -> Any:
        with torch.inference_mode():
            return net(image)

    return call


def required(parity: Mapping[str, Parity]) -> list[book.Parity]:
    """Of the modes in 32 bits; drawn weights have no sharp answer, so a fast mode is measured on
    them, not judged."""
    return [
        book.Parity(f"{name} with torch, share of the largest value", share(one),
                    ALLOWED[Precision.FP32].difference or 0.0)
        for name, one in parity.items()
        if not any(mode.value in name for mode in FAST)
    ]  # fmt: skip


def share(one: Parity) -> float:
    """Largest difference of any result, as a share of the largest value where that is above 1."""
    return max(value / max(1.0, one.largest[name]) for name, value in one.difference.items())


def peaks() -> dict[str, float]:
    """What this machine does at best: GFLOP/s of products, GB/s of a copy."""
    large = np.ones(64 << 20, np.uint8)
    target = np.empty_like(large)

    def rate(work: float, call: Call) -> float:
        return statistics.median(work / book.timed(call).wall_s / 1e9 for _ in range(8))

    found = {"GB/s of a copy": rate(2 * large.nbytes, lambda: np.copyto(target, large))}
    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16}
    for name, kind in kinds.items():
        if not this_processor().can(Precision(name)):
            continue
        a, b = (torch.rand(2048, 2048).to(kind) for _ in range(2))
        found[f"GFLOP/s of a product, {name}"] = rate(2 * 2048**3, lambda a=a, b=b: torch.mm(a, b))
    return found


def layer_bytes(net: Net, image: torch.Tensor) -> int:
    """Bytes that go in and out of every layer with weights of its own, weights included."""
    total = 0

    def count(layer: torch.nn.Module, given: Any, result: Any) -> None:
        nonlocal total
        tensors = [*layer.parameters(recurse=False), *given, result]
        total += sum(t.nbytes for t in tensors if isinstance(t, torch.Tensor))

    kinds = (torch.nn.Conv2d, torch.nn.Linear, torch.nn.ConvTranspose2d)
    hooks = [m.register_forward_hook(count) for m in net.modules() if isinstance(m, kinds)]
    with torch.inference_mode():
        net(image)
    for hook in hooks:
        hook.remove()
    return total


def measure(
    found: book.Book,
    case: Case,
    files: Mapping[str, tuple[Path, EngineOptions]],
    batch: int,
    best: Mapping[str, float],
) -> None:
    net = case.net()
    source = np.random.default_rng(batch)
    image = source.random((batch, case.shape.channels, case.size, case.size), np.float32)
    flops = complexity(net, case.shape.channels, case.size).flops
    moved = layer_bytes(net, torch.from_numpy(image)) / batch
    calls, parity = ways(case, files, image)
    table = found.compare(
        f"{case.name}, batch {batch}",
        "ms per image",
        calls,
        peer="torch",
        parity=required(parity),
        scale=1000 / batch,
    )
    for row in table["rows"]:
        name, seconds = row["side"], row["wall_s"]["median"] / 1000
        kind = "bf16" if "bf16" in name else None if "int8" in name else "fp32"
        peak = best.get(f"GFLOP/s of a product, {kind}")
        row["GFLOP/s"] = flops / seconds / 1e9
        row["share of product"] = None if peak is None else row["GFLOP/s"] / peak
        row["share of copy"] = moved / seconds / 1e9 / best["GB/s of a copy"]
        row["apart from torch"] = share(parity[name]) if name in parity else None
    ridge = best["GFLOP/s of a product, fp32"] / best["GB/s of a copy"]
    found.fact(
        f"{case.name}, batch {batch}",
        {
            "GFLOP per image": flops / 1e9,
            "MB through its layers": moved / 1e6,
            "operations per byte": flops / moved,
            "of the machine": ridge,
        },
    )


def bench(found: book.Book) -> None:
    best = peaks()
    found.fact("at best", best)
    only, batches = found.given.only, [2] if found.quick else found.given.batches
    for case in [QUICK] if found.quick else CASES:
        if only is not None and only.lower() not in case.name.lower():
            continue
        with tempfile.TemporaryDirectory() as place:
            files = written(case, Path(place), found.threads)
            for batch in batches:
                measure(found, case, files, batch, best)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--only", help="part of a network's name")


if __name__ == "__main__":
    sys.exit(book.main(__file__, __doc__, bench, threads=0, options=options))
