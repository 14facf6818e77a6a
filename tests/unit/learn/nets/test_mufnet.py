"""MUF-Net and the single networks: weights of the modalities, fusions, numbers, maps."""

import pytest
import torch
from torch import nn

from renalkit.errors import InputRefused
from renalkit.learn.complexity import complexity
from renalkit.learn.nets.backbones import BackboneStyle
from renalkit.learn.nets.mufnet import (
    AdaptiveFusion,
    Fusion,
    FusionPlan,
    GatedFusion,
    HeadPlan,
    MufNet,
    Numbers,
    SingleNet,
)
from renalkit.learn.nets.spec import NetSpec

torch.set_num_threads(1)
BACKBONE = ("efficientnet-b0", BackboneStyle(48, width=0.125))
CHANNELS = {"B": 1, "CEUS": 3}


def fused(fusion=None, head=None, n_classes=2, seed=0, **more):
    torch.manual_seed(seed)
    spec = NetSpec(4, 48, n_classes, segments=False, classifies=True, multiple=1)
    net = MufNet(spec, CHANNELS, BACKBONE, fusion or FusionPlan(), head or HeadPlan(), **more)
    return settled(net)


def single(channels=1, head=None, seed=0):
    torch.manual_seed(seed)
    spec = NetSpec(channels, 48, 3, segments=False, classifies=True, multiple=1)
    return settled(SingleNet(spec, "B", BACKBONE, head or HeadPlan()))


def settled(net):
    """Running statistics of real passes, so that evaluation gives no tiny numbers."""
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 0.5
    net.train()
    numbers = None
    if net.numbers is not None:
        numbers = torch.zeros(8, len(net.numbers.mean))
    with torch.no_grad():
        for _ in range(4):
            net(torch.rand(8, net.spec.channels, 48, 48), None, numbers)
    return net.eval()


def looked_at(net, image, features=None):
    """Outputs and the maps of each modality."""
    seen = {}
    handles = [
        layer.register_forward_hook(lambda m, given, out, name=name: seen.update({name: out}))
        for name, layer in net.cam_layers().items()
    ]
    with torch.no_grad():
        outputs = net(image, None, features)
    for handle in handles:
        handle.remove()
    return outputs, seen


def test_alpha_and_beta_are_per_image_and_sum_to_one():
    outputs, _ = looked_at(fused(), torch.rand(5, 4, 48, 48))
    weights = outputs.modality_weights
    assert weights.shape == (5, 2)
    torch.testing.assert_close(weights.sum(1), torch.ones(5))
    assert len(set(weights[:, 0].tolist())) == 5
    assert outputs.branch_logits.shape == (5, 2, 2)


def test_the_fused_logits_are_the_weighted_sum_of_the_maps_of_each_modality():
    # so that an activation map of a modality is its share of the logit
    net = fused(n_classes=3)
    outputs, maps = looked_at(net, torch.rand(4, 4, 48, 48))
    assert list(maps) == ["B", "CEUS"]
    cams = [torch.einsum("kn,bnyx->bkyx", net.fc.weight, m).mean((2, 3)) for m in maps.values()]
    shares = (outputs.modality_weights[:, :, None] * torch.stack(cams, 1)).sum(1)
    torch.testing.assert_close(shares + net.fc.bias, outputs.class_logits, rtol=1e-4, atol=1e-5)


def test_each_branch_sees_its_own_channels_only():
    net = fused()
    image = torch.rand(3, 4, 48, 48)
    before, maps = looked_at(net, image)
    changed = image.clone()
    changed[:, 1:] = 0
    after, other = looked_at(net, changed)
    assert torch.equal(maps["B"], other["B"])
    assert not torch.allclose(maps["CEUS"], other["CEUS"])
    assert torch.equal(before.branch_logits[:, 0], after.branch_logits[:, 0])
    assert bool(torch.isfinite(after.class_logits).all())


def test_one_attention_block_serves_both_modalities():
    fusion = AdaptiveFusion(32, FusionPlan(reduction=8))
    assert [p.shape for p in fusion.parameters()] == [(4, 32), (4,), (1, 4)]
    pooled = torch.randn(6, 2, 32)
    straight = fusion([], pooled)
    swapped = fusion([], pooled.flip(1))
    torch.testing.assert_close(swapped.weights, straight.weights.flip(1))
    torch.testing.assert_close(swapped.features, straight.features)
    hidden = torch.relu(fusion.score[0](pooled))
    torch.testing.assert_close(
        straight.weights, torch.softmax((hidden @ fusion.score[2].weight.T)[..., 0], 1)
    )


def test_weights_apart_and_per_channel():
    pooled = torch.randn(6, 2, 32)
    apart = AdaptiveFusion(32, FusionPlan(independent=True))([], pooled)
    assert not torch.allclose(apart.weights.sum(1), torch.ones(6))
    each = AdaptiveFusion(32, FusionPlan(per_channel=True))([], pooled)
    torch.testing.assert_close(each.weights.sum(1), torch.ones(6))


def test_the_gate_of_two_modalities_is_a_sigmoid_and_its_complement():
    fusion = GatedFusion(8, 2, 4).double()
    pooled = torch.randn(3, 2, 8, dtype=torch.float64)
    scores = fusion.gate(pooled.flatten(1)).view(3, 2, 4)
    z = torch.sigmoid(scores[:, 0] - scores[:, 1])
    first, second = (torch.tanh(p(pooled[:, i])) for i, p in enumerate(fusion.projections))
    torch.testing.assert_close(fusion([], pooled).features, z * first + (1 - z) * second)


@pytest.mark.parametrize("kind", list(Fusion))
@pytest.mark.parametrize("share", [False, True])
def test_every_fusion_learns_from_both_modalities(kind, share):
    net = fused(FusionPlan(kind=kind, width=16), share_backbone=share).train()
    image = torch.rand(4, 4, 48, 48, requires_grad=True)
    outputs = net(image)
    outputs.class_logits.square().sum().backward()
    assert bool((image.grad[:, :1].abs().amax((1, 2, 3)) > 0).all())
    assert bool((image.grad[:, 1:].abs().amax((1, 2, 3)) > 0).all())
    weighted = kind in {Fusion.ADAPTIVE, Fusion.GATED}
    assert (outputs.modality_weights is not None) == weighted


@pytest.mark.parametrize("kind", list(Fusion))
def test_the_operations_of_every_fusion_are_counted(kind):
    net = fused(FusionPlan(kind=kind, width=16))
    counted = complexity(net, net.spec.channels, 48)
    assert counted.parameters == sum(p.numel() for p in net.parameters())
    assert counted.macs > 0
    assert all(layer.output_shape[0] == 1 for layer in counted.layers)


def test_a_shared_backbone_is_there_once_and_its_maps_are_told_apart():
    net = fused(share_backbone=True)
    assert len(net.backbones) == 1
    outputs, maps = looked_at(net, torch.rand(2, 4, 48, 48))
    assert not torch.allclose(maps["B"], maps["CEUS"])
    same = torch.rand(2, 1, 48, 48).expand(-1, 4, -1, -1)
    outputs, maps = looked_at(net, same)
    torch.testing.assert_close(maps["B"], maps["CEUS"])
    torch.testing.assert_close(outputs.modality_weights, torch.full((2, 2), 0.5))


def test_single_networks_take_grey_and_colour():
    for channels in (1, 3):
        net = single(channels)
        outputs, maps = looked_at(net, torch.rand(2, channels, 48, 48))
        assert outputs.class_logits.shape == (2, 3)
        assert outputs.branch_logits is outputs.modality_weights is None
        cam = torch.einsum("kn,bnyx->bkyx", net.fc.weight, maps["B"]).mean((2, 3))
        torch.testing.assert_close(cam + net.fc.bias, outputs.class_logits, rtol=1e-4, atol=1e-5)


def test_dropout_acts_in_training_only():
    net = single(head=HeadPlan(dropout=0.5))
    image = torch.rand(2, 1, 48, 48)
    assert torch.equal(net(image).class_logits, net(image).class_logits)
    pooled = torch.ones(2, 4)
    assert float(net.train().dropout(pooled).max().detach()) == 2.0


# ---- numbers beside the picture ------------------------------------------------------------

NUMBERS = HeadPlan(n_numbers=3, number_width=8)


def test_numbers_are_standardised_cut_and_marked_where_unknown():
    net = fused(head=NUMBERS)
    net.standardise(torch.tensor([10.0, 0.0, 1.0]), torch.tensor([2.0, 1.0, 0.5]))
    seen = {}
    net.numbers.layers.register_forward_hook(lambda m, given, out: seen.update(given=given[0]))
    nan = float("nan")
    net(torch.rand(2, 4, 48, 48), None, torch.tensor([[12.0, nan, 1.0], [-1e9, 0.5, nan]]))
    expected = torch.tensor([[1.0, 0, 0, 1, 0, 1], [-5.0, 0.5, 0, 1, 1, 0]])
    torch.testing.assert_close(seen["given"], expected)


def test_numbers_change_the_fused_answer_only():
    net = fused(head=NUMBERS)
    image = torch.rand(2, 4, 48, 48)
    low, _ = looked_at(net, image, torch.full((2, 3), -2.0))
    high, _ = looked_at(net, image, torch.full((2, 3), 2.0))
    assert not torch.allclose(low.class_logits, high.class_logits)
    assert torch.equal(low.branch_logits, high.branch_logits)
    assert torch.equal(low.modality_weights, high.modality_weights)


def test_none_at_all_means_unknown_when_evaluating_and_is_refused_in_training():
    for net in (fused(head=NUMBERS), single(head=NUMBERS)):
        image = torch.rand(2, net.spec.channels, 48, 48)
        unknown, _ = looked_at(net, image, torch.full((2, 3), float("nan")))
        none, _ = looked_at(net, image)
        assert torch.equal(unknown.class_logits, none.class_logits)
        with pytest.raises(InputRefused, match="0 numbers beside the picture"):
            net.train()(image)
        with pytest.raises(InputRefused, match="expected: 3"):
            net.eval()(image, None, torch.zeros(2, 2))
    with pytest.raises(InputRefused, match="2 numbers beside"):
        fused()(torch.rand(2, 4, 48, 48), None, torch.zeros(2, 2))


def test_numbers_are_joined_as_they_are_where_their_branch_has_no_width():
    plain = HeadPlan(n_numbers=3, number_width=0)
    net = fused(head=plain)
    assert not list(net.numbers.parameters())
    assert net.fc.beside.shape == (2, 6)
    image = torch.rand(1, 4, 48, 48)
    low, high = (looked_at(net, image, torch.full((1, 3), v))[0] for v in (-1.0, 1.0))
    assert torch.equal(
        Numbers(2, 0)(torch.tensor([[float("nan"), 2.0]])), torch.tensor([[0, 2.0, 0, 1]])
    )
    assert not torch.equal(low.class_logits, high.class_logits)


def test_mean_and_spread_travel_with_the_weights():
    net, other = fused(head=NUMBERS), fused(head=NUMBERS, seed=1)
    net.standardise(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4.0, 5.0, 6.0]))
    other.load_state_dict(net.state_dict())
    assert other.numbers.mean.tolist() == [1.0, 2.0, 3.0]
    assert other.numbers.spread.tolist() == [4.0, 5.0, 6.0]


def test_wrong_scales_are_refused():
    net = fused(head=NUMBERS)
    with pytest.raises(ValueError, match="shapes"):
        net.standardise(torch.zeros(2), torch.ones(2))
    with pytest.raises(ValueError, match="not above 0"):
        net.standardise(torch.zeros(3), torch.zeros(3))
    with pytest.raises(ValueError, match="shapes"):
        fused().standardise(torch.zeros(1), torch.ones(1))


def test_infinite_numbers_are_cut_too():
    numbers = Numbers(1, 4)
    inf = float("inf")
    assert torch.equal(numbers(torch.tensor([[inf]])), numbers(torch.tensor([[1e6]])))
