"""Small exported networks, drawn with ONNX's own helpers so that no torch is needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

SIDE, CHANNELS, CLASSES = 8, 2, 2


def weights(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Of a 3x3 convolution to one mask and of a layer to the classes."""
    source = np.random.default_rng(seed)
    kernel = source.normal(size=(1, CHANNELS, 3, 3)).astype(np.float32)
    return kernel, source.normal(size=(1, CLASSES)).astype(np.float32)


def expected(image: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """What the network gives, in float64: convolution, then its mean times the layer."""
    kernel, layer = weights(seed)
    padded = np.pad(image.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    mask = np.zeros((len(image), 1, SIDE, SIDE))
    for y in range(3):
        for x in range(3):
            part = padded[:, :, y : y + SIDE, x : x + SIDE]
            mask += np.einsum("bchw,oc->bohw", part, kernel[:, :, y, x])
    return {"mask_logits": mask, "class_logits": mask.mean((2, 3)) @ layer}


def write(path: Path, seed: int = 0, scale: float = 1.0) -> Path:
    """The network as ONNX; `scale` spoils the layer."""
    kernel, layer = weights(seed)
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["mask_logits"], pads=[1, 1, 1, 1]),
        helper.make_node("ReduceMean", ["mask_logits", "places"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "layer"], ["class_logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [
            helper.make_tensor_value_info(
                "image", TensorProto.FLOAT, ["batch", CHANNELS, SIDE, SIDE]
            )
        ],
        [
            helper.make_tensor_value_info("mask_logits", TensorProto.FLOAT, None),
            helper.make_tensor_value_info("class_logits", TensorProto.FLOAT, None),
        ],
        [
            numpy_helper.from_array(kernel, "kernel"),
            numpy_helper.from_array(layer * np.float32(scale), "layer"),
            numpy_helper.from_array(np.array([2, 3], np.int64), "places"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    save(model, str(path))
    return path


def images(n: int, seed: int = 3) -> np.ndarray:
    """(n,c,s,s) float32 in 0..1."""
    source = np.random.default_rng(seed)
    return source.random((n, CHANNELS, SIDE, SIDE), dtype=np.float32)
