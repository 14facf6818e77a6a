"""Operation counts against closed forms."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from renalkit.learn.complexity import complexity
from renalkit.learn.nets.resnet import ResNet, ResNetPlan
from renalkit.learn.nets.spec import NetSpec
from renalkit.learn.nets.unet import TernausNet, UNetPlan
from renalkit.learn.outputs import Net, Outputs

torch.set_num_threads(1)


class Wrapped(Net):
    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, image, guide=None):
        for layer in self.layers:
            image = layer(image)
        return Outputs((image,), None)


@settings(max_examples=30, deadline=None)
@given(
    groups=st.sampled_from([1, 2, 4]),
    out=st.sampled_from([4, 8, 12]),
    kernel=st.sampled_from([1, 3, 7]),
    stride=st.sampled_from([1, 2]),
    bias=st.booleans(),
)
def test_convolution(groups, out, kernel, stride, bias):
    layer = nn.Conv2d(8, out, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=bias)
    found = complexity(Wrapped(layer), 8, 32)
    side = 32 // stride
    macs = kernel**2 * 8 // groups * out * side * side
    assert found.macs == macs
    assert found.flops == 2 * macs + bias * out * side * side
    assert found.layers[0].output_shape == (1, out, side, side)
    assert found.parameters == kernel**2 * 8 // groups * out + bias * out


def test_transposed_convolution_normalisation_activation_pooling():
    found = complexity(
        Wrapped(
            nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ),
        4,
        16,
    )
    up, norm, act, pool = found.layers
    assert up.macs == 9 * 4 * 6 * 16 * 16
    assert up.flops == 2 * up.macs + 6 * 32 * 32
    assert norm.flops == 2 * 6 * 32 * 32
    assert act.flops == 6 * 32 * 32
    assert pool.flops == 4 * 6 * 16 * 16
    assert found.flops == sum(layer.flops for layer in found.layers)


def test_a_layer_called_twice_counts_twice_but_holds_its_parameters_once():
    shared = nn.Conv2d(2, 2, 1, bias=False)

    class Twice(Net):
        def __init__(self):
            super().__init__()
            self.shared = shared

        def forward(self, image, guide=None):
            return Outputs((self.shared(self.shared(image)),), None)

    found = complexity(Twice(), 2, 16)
    assert found.macs == 2 * 4 * 256
    assert found.parameters == 4


def test_resnet18_has_its_published_operations():
    spec = NetSpec(channels=3, size=224, n_classes=1000, segments=False, classifies=True)
    found = complexity(ResNet(spec, ResNetPlan()), 3, 224)
    # 1.81 G multiply-accumulates (He et al. 2016, table 1: 1.8 x 10^9)
    assert found.macs == pytest.approx(1.814e9, rel=1e-3)
    assert found.parameters == found.trainable == 11_689_512


def test_the_network_is_left_as_it_was():
    net = TernausNet(NetSpec(channels=1, size=64), UNetPlan(width=0.125)).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = complexity(net, 1, 64)
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())
    assert found.parameters == sum(layer.parameters for layer in found.layers)
