"""How fast do exported networks answer, beside PyTorch and ONNX Runtime, and what bounds them?

    python benchmarks/bench_inference.py [--threads 2] [--repeats 15] [--out FILE.json]

Networks with drawn weights at their published sizes: the pair of MUF-Net (two EfficientNet-B3 at
300 px), AttentionNestedUNet at 256 px, RepVGG-A0 at 224 px. Peers: PyTorch as anybody calls it
(evaluation mode, inference_mode), PyTorch in channels_last, ONNX Runtime on the same graph. All hold
the same weights, get the same pictures and use the same number of threads; each agrees with PyTorch
in the same run or the benchmark fails. Rounds go through all of them in turn, so that a busy machine
is busy for all; given are the median and the middle half in ms per image.

The peak is measured here too: floating-point operations per second of a large matrix product, bytes
per second of a large copy. A network's share of the former says how much is left to gain.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from renalkit.learn.complexity import complexity
from renalkit.learn.export import deployed, reference_results, write_onnx
from renalkit.learn.outputs import Net
from renalkit.learn.prepared import CHANNELS
from renalkit.runtime.abilities import FAST, Precision, this_processor
from renalkit.runtime.engines import (
    EngineOptions,
    engine_version,
    installed,
    open_engine,
    write_openvino,
)
from renalkit.runtime.parity import compare
from renalkit.runtime.quantise import write_int8
from renalkit.store.runs import machine_facts, package_versions
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


def ways(
    case: Case, folder: Path, image: np.ndarray, threads: int
) -> tuple[dict[str, Call], dict[str, Any]]:
    """Every way to compute the case, and how far each is from PyTorch."""
    net = case.net()
    given = {"image": image}
    expected = reference_results(net, given, all_heads=False)
    found: dict[str, Call] = {}
    parity: dict[str, Any] = {}

    learned = case.net(settled=False)
    tensor = torch.from_numpy(image)
    found["torch"] = in_torch(learned, tensor)
    last = case.net(settled=False).to(memory_format=torch.channels_last)
    placed = tensor.contiguous(memory_format=torch.channels_last)
    found["torch channels_last"] = in_torch(last, placed)
    if case.system == "repvgg-ceus":
        found["torch, merged"] = in_torch(net, tensor)

    files = {"": folder / "model.onnx"}
    write_onnx(deployed(net), case.shape, 0, files[""])
    pair = deployed(net, paired=True)
    if pair.pair is not None:
        files[", backbones as one"] = folder / "paired.onnx"
        write_onnx(pair, case.shape, 0, files[", backbones as one"])
    for words, path in files.items():
        native = path.with_suffix(".xml")
        write_openvino(path, native)
        for backend in installed():
            options = EngineOptions(backend, Precision.FP32, threads)
            add(f"{backend} fp32{words}", native if backend == "openvino" else path, options,
                given, expected, found, parity)  # fmt: skip
    for mode in FAST:
        if not this_processor().can(mode):
            continue
        path = files[""].with_suffix(".xml")
        if mode is Precision.INT8:
            path = folder / "model-int8.onnx"
            others = np.random.default_rng(7).random((16, *image.shape[1:]), np.float32)
            write_int8(files[""], path, {"image": others})
        options = EngineOptions("openvino", mode, threads)
        add(f"openvino {mode.value}", path, options, given, expected, found, parity)
    return found, parity


def in_torch(net: Net, image: torch.Tensor) -> Call:
    def call() -> Any:
        with torch.inference_mode():
            return net(image)

    return call


def add(
    name: str,
    path: Path,
    options: EngineOptions,
    given: dict[str, np.ndarray],
    expected: dict[str, np.ndarray],
    found: dict[str, Call],
    parity: dict[str, Any],
) -> None:
    engine = open_engine(path, options)
    apart = compare(expected, engine.run(given))
    # Drawn weights have no sharp answer, so a fast mode is measured, not judged, on them.
    if options.precision is Precision.FP32:
        apart.require(options.precision, where=name)
    parity[name] = apart.plain
    found[name] = lambda: engine.run(given)


def timed(calls: dict[str, Call], repeats: int, batch: int) -> dict[str, dict[str, float]]:
    """Milliseconds per image, all ways in turn."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 2):
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            if turn >= 2:
                times[name].append((time.perf_counter() - begin) * 1000 / batch)
    return {
        name: {
            "ms": float(np.median(t)),
            "low": float(np.quantile(t, 0.25)),
            "high": float(np.quantile(t, 0.75)),
        }
        for name, t in times.items()
    }


def peak() -> dict[str, float]:
    """What this machine does at best: GFLOP/s of a product, GB/s of a copy."""
    a, b = torch.rand(2048, 2048), torch.rand(2048, 2048)
    large = np.ones(64 << 20, np.uint8)
    target = np.empty_like(large)
    flops, copies = [], []
    for _ in range(8):
        begin = time.perf_counter()
        torch.mm(a, b)
        flops.append(2 * 2048**3 / (time.perf_counter() - begin) / 1e9)
        begin = time.perf_counter()
        np.copyto(target, large)
        copies.append(2 * large.nbytes / (time.perf_counter() - begin) / 1e9)
    return {"gflops": float(np.median(flops)), "gbytes_s": float(np.median(copies))}


def bench(case: Case, batches: list[int], threads: int, repeats: int) -> dict[str, Any]:
    flops = complexity(case.net(), case.shape.channels, case.size).flops
    rows: list[dict[str, Any]] = []
    for batch in batches:
        source = np.random.default_rng(batch)
        image = source.random((batch, case.shape.channels, case.size, case.size), np.float32)
        with tempfile.TemporaryDirectory() as place:
            calls, parity = ways(case, Path(place), image, threads)
            for name, took in timed(calls, repeats, batch).items():
                rows.append(
                    {"way": name, "batch": batch, **took}
                    | {"gflops": flops / took["ms"] / 1e6}
                    | ({"parity": parity[name]} if name in parity else {})
                )
    return {"network": case.name, "flops_per_image": flops, "rows": rows}


def markdown(found: dict[str, Any]) -> str:
    lines: list[str] = []
    for case in found["cases"]:
        lines += [
            f"**{case['network']}** ({case['flops_per_image'] / 1e9:.1f} GFLOP per image)",
            "",
            "| way | batch | ms per image (middle half) | times torch | share of peak | largest difference |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        eager = {r["batch"]: r["ms"] for r in case["rows"] if r["way"] == "torch"}
        for row in case["rows"]:
            apart = max(row["parity"]["difference"].values()) if "parity" in row else None
            lines.append(
                f"| {row['way']} | {row['batch']} | {row['ms']:.1f} "
                f"({row['low']:.1f}-{row['high']:.1f}) | {eager[row['batch']] / row['ms']:.2f} "
                f"| {row['gflops'] / found['peak']['gflops']:.0%} "
                f"| {'' if apart is None else f'{apart:.1e}'} |"
            )
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--only", help="part of a network's name")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    cases = [c for c in CASES if asked.only is None or asked.only.lower() in c.name.lower()]
    found = {
        "machine": machine_facts() | {"flags": sorted(this_processor().flags & WORTH_KNOWING)},
        "load_before": os.getloadavg()[0],
        "threads": asked.threads,
        "repeats": asked.repeats,
        "versions": package_versions() | {name: engine_version(name) for name in installed()},
        "peak": peak(),
        "cases": [bench(c, asked.batches, asked.threads, asked.repeats) for c in cases],
    }
    print(markdown(found))
    print(f"load before: {found['load_before']:.1f}; peak {found['peak']}")
    if asked.out is not None:
        asked.out.write_text(json.dumps(found, indent=2, sort_keys=True) + "\n")


WORTH_KNOWING = {
    "avx2",
    "avx512f",
    "avx512_bf16",
    "amx_bf16",
    "avx512_vnni",
    "avx_vnni",
    "amx_int8",
}

if __name__ == "__main__":
    main()
