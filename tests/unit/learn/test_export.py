"""Every system leaves torch as a graph that gives the same, on both engines, in any batch."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from renalkit.domain.image import Mode
from renalkit.learn.export import (
    MeanOfMembers,
    VolumeShape,
    deployed,
    pair_of,
    reference_results,
    write_onnx,
)
from renalkit.learn.nets.volume_resnet import VolumeResNet, VolumeResNetPlan
from renalkit.learn.nets.volume_unet import VolumeUNet, VolumeUNetPlan
from renalkit.learn.outputs import FeatureNet, Net, Outputs
from renalkit.learn.prepared import CHANNELS
from renalkit.runtime.abilities import Precision
from renalkit.runtime.engines import (
    BACKENDS,
    Arrays,
    Backend,
    EngineOptions,
    open_engine,
    write_openvino,
)
from renalkit.runtime.parity import compare
from renalkit.runtime.quantise import write_int8
from renalkit.systems import get_system
from renalkit.systems._contract import Shape, Task

torch.set_num_threads(1)
SMALL = {"backbone": "efficientnet-b0", "width": 0.25, "norm_momentum": 0.9}
NARROW = {"width": 0.125}
MERGING = {"width": 0.125, "layout": "a0"}


def shape_of(name: str, features: tuple[str, ...] = (), size: int = 32) -> Shape:
    modes: tuple[Mode, ...] = get_system(name).takes[0]
    return Shape(sum(CHANNELS[m] for m in modes), size, 2, modes, features)


def settled(name: str, shape: Shape, task: Task | None = None, **params: Any) -> Net:
    """A network whose normalisation has seen something, so that results depend on the picture."""
    system = get_system(name)
    torch.manual_seed(1)
    net = system.build(system.params(params), shape, task or system.default_task)
    with torch.no_grad():
        for _ in range(3):
            image = torch.rand(8, shape.channels, shape.size, shape.size)
            if isinstance(net, FeatureNet) and shape.features:
                net(image, None, torch.rand(8, len(shape.features)))
            else:
                net(image)
    return net.eval()


def given_for(shape: Shape, n: int, seed: int = 5) -> dict[str, np.ndarray]:
    source = np.random.default_rng(seed)
    found = {"image": source.random((n, shape.channels, shape.size, shape.size), np.float32)}
    if shape.features:
        numbers = source.normal(size=(n, len(shape.features))).astype(np.float32)
        numbers[0, 0] = np.nan
        found["features"] = numbers
    return found


# Those left out are built of the same parts: resnet34 (resnet18), unet (stunet), nested-unet (with
# every head below).
CASES = [
    pytest.param("multitask-us", Task.BOTH, NARROW, (), id="multitask-us"),
    pytest.param(
        "multitask-us", Task.BOTH, NARROW | {"coupling": "mask_crop"}, (), id="multitask-us-crop"
    ),
    pytest.param("stunet", Task.SEGMENTATION, NARROW, (), id="stunet"),
    pytest.param("ternausnet", Task.BOTH, NARROW, (), id="ternausnet"),
    pytest.param("resnet18", Task.BOTH, NARROW, (), id="resnet18"),
    pytest.param("resnext50", Task.CLASSIFICATION, NARROW, (), id="resnext50"),
    pytest.param("repvgg-ceus", Task.CLASSIFICATION, MERGING, (), id="repvgg-ceus"),
    pytest.param("bmode-net", Task.CLASSIFICATION, SMALL, (), id="bmode-net"),
    pytest.param("ceus-net", Task.CLASSIFICATION, SMALL, ("ttp",), id="ceus-net"),
    pytest.param("mufnet-2022", Task.CLASSIFICATION, SMALL, ("ttp", "pe"), id="mufnet-2022"),
    pytest.param(
        "mufnet-2025",
        Task.CLASSIFICATION,
        SMALL | {"share_backbone": True, "fusion": "cross_attention", "fusion_width": 16},
        (),
        id="mufnet-2025-shared-cross-attention",
    ),
    pytest.param(
        "mufnet-2025", Task.CLASSIFICATION, SMALL | {"head": "ordinal"}, (), id="mufnet-2025"
    ),
]


@pytest.mark.parametrize(("name", "task", "params", "features"), CASES)
def test_exported_networks_say_the_same(
    name: str, task: Task, params: dict[str, Any], features: tuple[str, ...], tmp_path: Path
) -> None:
    shape = shape_of(name, features)
    net = settled(name, shape, task, **params)
    path = tmp_path / "model.onnx"
    graph = write_onnx(deployed(net), shape, len(features), path)
    assert graph.inputs["image"] == (None, shape.channels, shape.size, shape.size)
    assert ("features" in graph.inputs) == bool(features)
    assert "BatchNormalization" not in graph.operators, "normalisation is folded"
    if name == "repvgg-ceus":
        assert graph.operators["Conv"] == 22, "one convolution per block"
    if name in {"resnet18", "resnext50"}:
        assert "Slice" not in graph.operators, "strided 1x1 convolutions are plain"
    content = path.read_bytes()
    assert b"site-packages" not in content
    assert b".py" not in content, "where the network was written is nobody's business"
    for backend in BACKENDS:
        engine = open_engine(path, EngineOptions(backend=backend, threads=1))
        for n in (1, 3):
            given = given_for(shape, n)
            expected = reference_results(net, given, all_heads=False)
            assert tuple(expected) == graph.outputs
            found = compare(expected, engine.run(given))
            assert found.problems(Precision.FP32) == [], backend
            assert max(found.largest.values()) > 1e-3
            assert n == 1 or len(np.unique(expected[graph.outputs[0]])) > 1


def test_every_head_is_kept_where_the_answer_is_their_mean(tmp_path: Path) -> None:
    shape = shape_of("nested-unet")
    net = settled("nested-unet", shape, **NARROW)
    path = tmp_path / "model.onnx"
    write_onnx(deployed(net, all_heads=True), shape, 0, path)
    given = given_for(shape, 2)
    expected = reference_results(net, given, all_heads=True)
    assert expected["mask_logits"].shape == (2, 4, 32, 32)
    found = open_engine(path, EngineOptions(threads=1)).run(given)
    assert compare(expected, found).problems(Precision.FP32) == []


@cache
def two_branches(backbone: str) -> tuple[Net, bytes]:
    """A fused network and its graph, which several tests read."""
    wide = {} if backbone == "resnet18" else {"width": 0.25, "norm_momentum": 0.9}
    shape = shape_of("mufnet-2022")
    net = settled("mufnet-2022", shape, backbone=backbone, **wide)
    with TemporaryDirectory() as folder:
        write_onnx(deployed(net), shape, 0, Path(folder, "model.onnx"))
        return net, Path(folder, "model.onnx").read_bytes()


@pytest.mark.parametrize("backbone", ["efficientnet-b0", "resnet18"])
def test_both_backbones_as_one_are_the_same_function(backbone: str, tmp_path: Path) -> None:
    shape = shape_of("mufnet-2022")
    net, content = two_branches(backbone)
    apart, one = deployed(net), deployed(net, paired=True)
    assert one.pair is not None
    image = torch.rand(3, shape.channels, shape.size, shape.size)
    with torch.no_grad():
        for a, b in zip(apart(image), one(image), strict=True):
            torch.testing.assert_close(a, b, atol=2e-6, rtol=1e-5)
    graph = write_onnx(one, shape, 0, tmp_path / "model.onnx")
    each = sum(node.op_type == "Conv" for node in onnx.load_from_string(content).graph.node)
    assert graph.operators["Conv"] == each // 2
    given = {"image": image.numpy()}
    found = open_engine(tmp_path / "model.onnx", EngineOptions(threads=1)).run(given)
    expected = reference_results(net, given, all_heads=False)
    assert compare(expected, found).problems(Precision.FP32) == []


def test_backbones_that_mix_channels_are_not_joined() -> None:
    shape = shape_of("mufnet-2022")
    system = get_system("mufnet-2022")
    for params in ({"backbone": "densenet121"}, SMALL | {"share_backbone": True}):
        net = system.build(system.params(params), shape, Task.CLASSIFICATION)
        assert pair_of(net) is None
        assert deployed(net.eval(), paired=True).pair is None
    single = settled("bmode-net", shape_of("bmode-net"), **SMALL)
    assert pair_of(single) is None


def test_openvino_files_and_8_bits(tmp_path: Path) -> None:
    """Ranges fitted on other pictures; a classifier's scores stay within the tolerance."""
    shape = shape_of("resnet18")
    net = settled("resnet18", shape, Task.CLASSIFICATION, **NARROW)
    path = tmp_path / "model.onnx"
    write_onnx(deployed(net), shape, 0, path)
    write_openvino(path, tmp_path / "model.xml")
    given = given_for(shape, 4)
    expected = reference_results(net, given, all_heads=False)
    native = open_engine(tmp_path / "model.xml", EngineOptions(backend="openvino", threads=1))
    assert compare(expected, native.run(given)).problems(Precision.FP32) == []
    write_int8(path, tmp_path / "model-int8.onnx", given_for(shape, 16, seed=6))
    kinds = {node.op_type for node in onnx.load(str(tmp_path / "model-int8.onnx")).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    # Read as any ONNX file: whether the processor is quick at it does not matter here.
    moved = compare(expected, _in(tmp_path / "model-int8.onnx", "onnxruntime", given))
    assert moved.score is not None
    assert 0 < moved.score < 0.05


def test_both_engines_read_an_8_bit_network_of_two_branches(tmp_path: Path) -> None:
    """Its attention multiplies arrays of three axes, its activations have both signs."""
    shape = shape_of("mufnet-2022")
    net, content = two_branches("efficientnet-b0")
    (tmp_path / "model.onnx").write_bytes(content)
    given = given_for(shape, 4)
    expected = reference_results(net, given, all_heads=False)
    write_int8(tmp_path / "model.onnx", tmp_path / "int8.onnx", given_for(shape, 16, seed=6))
    for backend in BACKENDS:
        moved = compare(expected, _in(tmp_path / "int8.onnx", backend, given))
        assert moved.score is not None
        assert 0 < moved.score < 0.05


def _in(path: Path, backend: Backend, given: dict[str, np.ndarray]) -> Arrays:
    """What an engine answers; 8-bit numbers are not asked for, the file has them."""
    return open_engine(path, EngineOptions(backend=backend, threads=1)).run(given)


def test_members_together_are_the_mean_of_their_probabilities() -> None:
    shape = shape_of("multitask-us")
    nets = [settled("multitask-us", shape, Task.BOTH, **NARROW) for _ in range(2)]
    with torch.no_grad():
        nets[1].segmentation.heads[-1].bias.add_(2.0)  # type: ignore[union-attr]
        image = torch.rand(2, 1, 32, 32)
        said = MeanOfMembers(nets, all_heads=False).eval()(image)
        each = [net(image) for net in nets]
        masks = [torch.sigmoid(o.mask_logits[-1]) for o in each]
        scores = [torch.softmax(o.class_logits, 1) for o in each]
    torch.testing.assert_close(said["mask"], (masks[0] + masks[1]) / 2)
    torch.testing.assert_close(said["classes"], (scores[0] + scores[1]) / 2)
    assert (masks[1] > masks[0]).all()


def test_the_trained_network_stays_as_it_was() -> None:
    shape = shape_of("repvgg-ceus")
    net = settled("repvgg-ceus", shape, **MERGING)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    deployed(net)
    after = net.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())


UNET = VolumeUNetPlan(channels=(4, 6, 8), strides=((1, 2, 2), (2, 2, 2)), n_outputs=2)
VOLUMES = [
    pytest.param(UNET, VolumeShape(1, (4, 8, 8), UNET.multiple), id="masks, any size"),
    pytest.param(
        VolumeResNetPlan(width=0.125, n_inputs=2), VolumeShape(2, (16, 16, 16)), id="class"
    ),
]


@pytest.mark.parametrize(("plan", "shape"), VOLUMES)
def test_exported_networks_on_volumes_say_the_same(
    plan: VolumeUNetPlan | VolumeResNetPlan, shape: VolumeShape, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    masks = isinstance(plan, VolumeUNetPlan)
    net = VolumeUNet(plan) if isinstance(plan, VolumeUNetPlan) else VolumeResNet(plan)
    with torch.no_grad():
        net(torch.rand(8, shape.channels, *shape.size))
    graph = write_onnx(deployed(net.eval()), shape, 0, tmp_path / "model.onnx")
    free = shape.multiple is not None
    assert graph.inputs["image"][2:] == ((None,) * 3 if free else shape.size)
    assert graph.outputs == (("mask_logits",) if masks else ("class_logits",))
    assert graph.operators["Conv"] == (11 if masks else 12), "only the finest head is left"
    assert "BatchNormalization" not in graph.operators
    source = np.random.default_rng(2)
    sizes = [(1, *shape.size), (3, *shape.size)]
    sizes += [(2, 2, 16, 8), (1, 6, 4, 20)] if free else []
    for backend in BACKENDS:
        engine = open_engine(tmp_path / "model.onnx", EngineOptions(backend=backend, threads=1))
        for n, *size in sizes:
            given = {"image": source.normal(size=(n, shape.channels, *size)).astype(np.float32)}
            expected = reference_results(net, given, all_heads=False)
            found = compare(expected, engine.run(given))
            assert found.problems(Precision.FP32) == [], backend
            assert max(found.largest.values()) > 1e-2


def test_a_volume_that_is_traced_has_room_for_more_than_one_step() -> None:
    with pytest.raises(ValueError, match=r"2 or more times \(8, 8, 8\)"):
        VolumeShape(1, (8, 16, 16), (8, 8, 8))


class Woven(nn.Module):
    """One normalisation that can be folded, under two names, and four that cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4))
        self.a, self.b = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.either = nn.BatchNorm2d(4)
        self.first = nn.BatchNorm2d(4)
        self.left, self.right = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.same = self.twice

    def forward(self, image: torch.Tensor) -> Outputs:
        x = self.same(self.twice(image).mean(1, keepdim=True))
        x = self.either(self.a(x)) + self.either(self.b(self.first(x)))
        x = self.b(x)
        return Outputs(None, (self.left(x) * self.right(x)).mean((2, 3)))

    def settle(self) -> None:
        return


def test_only_a_normalisation_of_one_convolution_is_folded(tmp_path: Path) -> None:
    torch.manual_seed(3)
    net = Woven()
    with torch.no_grad():
        for _ in range(3):
            net(torch.rand(8, 1, 8, 8))
    form = deployed(cast("Net", net))
    given = torch.rand(2, 1, 8, 8)
    expected = net.eval()(given).class_logits
    write_onnx(form, Shape(1, 8, 4, ("bmode",), ()), 0, tmp_path / "model.onnx")
    left = {path for path, part in form.named_modules() if isinstance(part, nn.BatchNorm2d)}
    assert left == {"net.either", "net.first", "net.left", "net.right"}
    assert form.get_submodule("net.same") is form.get_submodule("net.twice")
    (found,) = form(given)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    engine = open_engine(tmp_path / "model.onnx", EngineOptions(threads=1))
    (said,) = engine.run({"image": given.numpy()}).values()
    assert said == pytest.approx(expected.detach().numpy(), abs=1e-5)
