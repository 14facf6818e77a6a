"""Backbones: sizes, padding, and whose ImageNet weights they take."""

import hashlib
import re
import subprocess
import sys
from typing import get_args

import pytest
import torch
from monai.networks.nets import EfficientNetBN
from safetensors.torch import save_file
from torch import nn

from renalkit.errors import ModelRefused
from renalkit.learn.nets.backbones import BACKBONES, Backbone, BackboneStyle
from renalkit.systems.mufnet import BackboneName

torch.set_num_threads(1)
NARROW = BackboneStyle(64, width=0.125)


def maps(name, size, channels=3, **style):
    net = Backbone(name, BackboneStyle(size, **style)).eval()
    with torch.no_grad():
        return net, net(torch.rand(2, channels, size, size))


def test_every_name_of_the_parameters_can_be_built():
    assert set(get_args(BackboneName)) == set(BACKBONES)


def test_no_backbone_needs_torchvision():
    code = (
        "import sys, renalkit.learn.nets.mufnet as m;"
        "assert not any(name.startswith('torchvision') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_b3_at_300_pixels_gives_10_by_10_by_1536():
    net, found = maps("efficientnet-b3", 300)
    assert found.shape == (2, 1536, 10, 10)
    assert net.n_features == 1536


@pytest.mark.parametrize("name", BACKBONES)
def test_features_are_as_many_as_stated_for_grey_and_colour(name):
    net, found = maps(name, 64, channels=1, width=0.25)
    assert found.shape[:2] == (2, net.n_features)
    assert found.shape[2] == found.shape[3] == 2
    image = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(net(image), net(image.expand(-1, 3, -1, -1)))


@pytest.mark.parametrize("size", [33, 70, 96, 100])
def test_any_side_gives_a_32nd_rounded_up(size):
    net, found = maps("efficientnet-b0", size, width=0.125)
    assert found.shape[2] == -(-size // 32)
    # TensorFlow's SAME: ceil(in / stride) out of every layer, the odd pixel of padding at the end.
    side = size
    for module in net.body.modules():
        if isinstance(module, nn.Conv2d) and module.stride == (2, 2):
            side = -(-side // 2)
    assert side == found.shape[2]
    kernel, out = 3, -(-size // 2)
    before = max((out - 1) * 2 + kernel - size, 0) // 2
    after = max((out - 1) * 2 + kernel - size, 0) - before
    assert tuple(net.body._conv_stem_padding.padding) == (before, after, before, after)


def test_it_is_monais_network_where_monais_padding_fits():
    torch.manual_seed(0)
    theirs = EfficientNetBN("efficientnet-b0", pretrained=False)
    ours = Backbone("efficientnet-b0", BackboneStyle(224))
    state = {k: v for k, v in theirs.state_dict().items() if not k.startswith("_fc.")}
    ours.body.load_state_dict(state, strict=True)
    # running statistics of a real pass, so that the results are no tiny numbers
    theirs.train()(torch.rand(2, 3, 64, 64))
    state = {k: v for k, v in theirs.state_dict().items() if not k.startswith("_fc.")}
    ours.body.load_state_dict(state, strict=True)
    image = torch.rand(1, 3, 64, 64)
    seen = {}
    theirs._avg_pooling.register_forward_hook(lambda m, given, out: seen.update(maps=given[0]))
    with torch.no_grad():
        theirs.eval()(image)
        found = ours.eval().body(image)
    torch.testing.assert_close(found, seen["maps"], rtol=1e-4, atol=1e-6)


def test_no_memory_efficient_swish_is_left():
    kinds = {type(m).__name__ for m in Backbone("efficientnet-b0", NARROW).modules()}
    assert "SiLU" in kinds
    assert not any("Swish" in kind for kind in kinds)


def test_norm_momentum_and_drop_connect_reach_the_layers():
    style = BackboneStyle(64, width=0.125, norm_momentum=0.2, drop_connect=0.0)
    net = Backbone("efficientnet-b0", style)
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {norm.momentum for norm in norms} == {0.2}
    image = torch.rand(4, 3, 64, 64)
    net.train()
    torch.testing.assert_close(net(image), net(image))


def saved(path, state):
    save_file({k: v.contiguous() for k, v in state.items()}, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def foreign_name(name, own):
    """As the published files have it."""
    if name.startswith("efficientnet"):
        return re.sub(r"^_blocks\.\d+\.", "_blocks.", own)
    if name == "densenet121":
        return "features." + re.sub(
            r"\.layers\.(norm|conv)(\d)", r".\1.\2", own.replace("denselayer", "denselayer")
        )
    return own


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("efficientnet-b0", "_fc"),
        ("densenet121", "classifier"),
        ("resnet18", "fc"),
    ],
)
def test_published_files_fit(tmp_path, name, head):
    style = BackboneStyle(64)
    torch.manual_seed(1)
    source, target = Backbone(name, style), Backbone(name, style)
    state = {foreign_name(name, own): v for own, v in source.body.state_dict().items()}
    assert len(state) == len(source.body.state_dict())
    path = tmp_path / "weights.safetensors"
    digest = saved(path, state | {f"{head}.weight": torch.zeros(2, 2)})
    loaded = target.start(path, digest)
    assert loaded.n_tensors == len(state)
    assert loaded.left_out == (f"{head}.weight",)
    assert loaded.first_convolution == "as is"
    for own, value in target.body.state_dict().items():
        assert torch.equal(value, source.body.state_dict()[own]), own


def test_an_unfit_file_and_a_backbone_without_file_are_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    digest = saved(path, {"_conv_stem.weight": torch.zeros(1)})
    with pytest.raises(ModelRefused, match="missing: "):
        Backbone("efficientnet-b0", NARROW).start(path, digest)
    with pytest.raises(ModelRefused, match="ImageNet weights for se-resnet50"):
        Backbone("se-resnet50", NARROW).start(path, digest)
