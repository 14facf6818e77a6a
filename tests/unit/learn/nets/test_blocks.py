"""Blocks: counts, ranges, and that each switch does what its name says."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from renalkit.errors import ConfigError, InputRefused, Reason
from renalkit.learn.nets.blocks import (
    CBAM,
    BlockStyle,
    ConvBlock,
    Pointwise,
    SpatialGate,
    projection,
    separable_conv,
    upsample,
)
from renalkit.learn.nets.spec import NetSpec, scaled

torch.set_num_threads(1)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("channels", [3, 8, 16])
@pytest.mark.parametrize("side", [9, 32])
def test_a_pointwise_layer_is_a_strided_1x1_convolution(channels, side):
    layer = Pointwise(channels, 6, every=2).to(memory_format=torch.channels_last)
    image = torch.rand(2, channels, side, side)
    packed = image.clone(memory_format=torch.channels_last).requires_grad_()
    layer(packed).square().sum().backward()
    weight = layer.weight.detach().contiguous().requires_grad_()
    image.requires_grad_()
    # the middle of a 3x3 kernel: the strided 1x1 convolution itself may write past its memory
    middle = torch.nn.functional.pad(weight, (1, 1, 1, 1))
    expected = torch.nn.functional.conv2d(image, middle, stride=2, padding=1)
    expected.square().sum().backward()
    torch.testing.assert_close(layer(packed), expected)
    torch.testing.assert_close(layer.weight.grad, weight.grad)
    torch.testing.assert_close(packed.grad, image.grad)


@pytest.mark.parametrize(
    ("channels", "expected"), [(32, 262), (64, 680), (128, 2284), (256, 8564), (512, 33412)]
)
def test_cbam_counts_at_reduction_16(channels, expected):
    assert count(CBAM(channels)) == expected


def test_cbam_counts_follow_the_closed_form_with_a_hidden_minimum():
    channels, hidden = 8, 4
    mlp = channels * hidden + hidden + hidden * channels + channels
    assert count(CBAM(channels, min_hidden=4)) == mlp + 2 * 49 + 2


def test_cbam_weights_lie_between_zero_and_one_and_only_damp():
    torch.manual_seed(0)
    cbam = CBAM(8).eval()
    features = torch.randn(3, 8, 12, 10)
    refined, spatial = cbam.refine(features)
    assert spatial.shape == (3, 1, 12, 10)
    assert 0 <= float(spatial.detach().min()) <= float(spatial.detach().max()) <= 1
    assert bool((refined.abs() <= features.abs()).all())
    torch.testing.assert_close(cbam(features), refined)


def test_cbam_equals_the_published_formula():
    torch.manual_seed(1)
    cbam = CBAM(8, reduction=2).eval()
    x = torch.randn(2, 8, 9, 9)
    channel = torch.sigmoid(cbam.mlp(x.mean((2, 3))) + cbam.mlp(x.amax((2, 3))))
    y = x * channel[:, :, None, None]
    maps = torch.stack((y.mean(1), y.amax(1)), 1)
    expected = y * torch.sigmoid(cbam.spatial(maps))
    torch.testing.assert_close(cbam(x), expected)


def test_separable_convolution_counts():
    assert count(separable_conv(32, 64)) == 9 * 32 + 32 * 64


def test_projection_is_the_identity_where_channels_agree():
    assert count(projection(8, 8)) == 0
    assert count(projection(8, 12)) == 8 * 12 + 2 * 12


@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize("cbam", [False, True])
@pytest.mark.parametrize("residual", [False, True])
def test_each_switch_adds_exactly_its_own_parameters(separable, cbam, residual):
    style = BlockStyle(separable=separable, cbam=cbam, residual=residual)
    convolutions = 9 * 6 + 6 * 8 + 9 * 8 + 8 * 8 if separable else (9 * 6 + 1) * 8 + (9 * 8 + 1) * 8
    expected = convolutions + 2 * 2 * 8
    expected += count(CBAM(8)) if cbam else 0
    expected += 6 * 8 + 2 * 8 if residual else 0
    block = ConvBlock(6, 8, style)
    assert count(block) == expected
    out, spatial = block.attend(torch.randn(2, 6, 8, 8))
    assert out.shape == (2, 8, 8, 8)
    assert float(out.detach().min()) >= 0
    assert (spatial is not None) == cbam


def test_residual_link_carries_the_input_past_dead_convolutions():
    block = ConvBlock(8, 8, BlockStyle(residual=True)).eval()
    torch.nn.init.zeros_(block.conv2.weight)
    torch.nn.init.zeros_(block.conv2.bias)
    features = torch.rand(1, 8, 6, 6)
    torch.testing.assert_close(block(features), features)


def test_gate_weighs_places_not_channels():
    gate = SpatialGate(6, 10).eval()
    skip = torch.rand(2, 6, 8, 8) + 0.5
    gated, weights = gate(skip, torch.randn(2, 10, 8, 8))
    assert weights.shape == (2, 1, 8, 8)
    torch.testing.assert_close(gated / skip, weights.expand_as(skip))


def test_upsampling_keeps_the_corners():
    x = torch.randn(1, 2, 4, 4)
    up = upsample(x, (8, 8))
    torch.testing.assert_close(up[..., [0, -1], :][..., [0, -1]], x[..., [0, -1], :][..., [0, -1]])


@given(channels=st.integers(1, 2048), width=st.floats(0.01, 4))
def test_scaled_is_whole_and_at_least_four(channels, width):
    assert scaled(channels, width) == max(4, round(channels * width))


@settings(max_examples=60)
@given(size=st.integers(-40, 600))
def test_sizes_are_taken_or_refused_with_the_nearest_sizes(size):
    if size >= 32 and size % 16 == 0:
        assert NetSpec(size=size).size == size
        return
    with pytest.raises(ConfigError, match="nearest") as refusal:
        NetSpec(size=size)
    offered = [int(part) for part in str(refusal.value).split("nearest: ")[1].split(" or ")]
    for good in offered:
        NetSpec(size=good)
    best = min(max(32, size // 16 * 16), max(32, size // 16 * 16 + 16), key=lambda s: abs(s - size))
    assert best in offered


def test_all_problems_of_a_shape_are_named_at_once():
    with pytest.raises(ConfigError) as refusal:
        NetSpec(channels=0, size=100, n_classes=1, classifies=True)
    assert len(refusal.value.problems) == 3
    assert "96 or 112" in str(refusal.value)
    with pytest.raises(ConfigError, match="segment, classify or both"):
        NetSpec(segments=False)


@pytest.mark.parametrize(
    ("shape", "value", "reason"),
    [
        ((2, 1, 48, 48), 0.0, Reason.DIMS_MISMATCH),
        ((2, 3, 64, 64), 0.0, Reason.DIMS_MISMATCH),
        ((2, 1, 64, 48), 0.0, Reason.DIMS_MISMATCH),
        ((1, 64, 64), 0.0, Reason.DIMS_MISMATCH),
        ((2, 1, 64, 64), float("nan"), Reason.NON_FINITE),
        ((2, 1, 64, 64), float("inf"), Reason.NON_FINITE),
    ],
)
def test_batches_that_do_not_fit_are_refused(shape, value, reason):
    batch = torch.zeros(shape)
    batch[..., -1] = value
    with pytest.raises(InputRefused, match="network input") as refusal:
        NetSpec(channels=1, size=64).check(batch)
    assert refusal.value.reason is reason
