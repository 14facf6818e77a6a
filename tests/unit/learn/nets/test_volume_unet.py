"""The 3-D U-Net: MONAI's function, its sizes, what it refuses, and that it learns."""

import pytest
import torch
from monai.networks.nets import DynUNet
from torch import nn

from renalkit.errors import ConfigError, InputRefused, Reason
from renalkit.learn.nets.volume_unet import KIDNEY_PLAN, MASS_PLAN, VolumeUNet, VolumeUNetPlan
from renalkit.learn.predictor import load_weights, save_weights

torch.set_num_threads(1)
TINY = VolumeUNetPlan((2, 3, 4), ((1, 2, 2), (2, 2, 2)), n_outputs=2)


def made(plan=TINY, seed=0):
    torch.manual_seed(seed)
    return VolumeUNet(plan)


def test_stated_numbers_of_weights():
    for plan, stated in ((KIDNEY_PLAN, 128_179), (MASS_PLAN, 350_862)):
        assert sum(p.numel() for p in VolumeUNet(plan).parameters()) == stated


def test_is_the_function_of_monais_dynunet():
    plan = VolumeUNetPlan((4, 6, 8, 10), ((1, 2, 2), (2, 2, 2), (2, 1, 2)), n_outputs=3)
    net = made(plan)
    steps = [(1, 1, 1), *plan.strides]
    other = DynUNet(
        *(3, 1, 3, [3] * 4, steps, steps[1:]),
        filters=plan.channels,
        norm_name=("instance", {"affine": True}),
        deep_supervision=True,
        deep_supr_num=2,
    )
    pairs = [
        (net.down[0], other.input_block),
        *zip(net.down[1:-1], other.downsamples, strict=True),
        (net.down[-1], other.bottleneck),
        *zip(net.up, other.upsamples, strict=True),
        *zip(net.heads, [*other.deep_supervision_heads[::-1], other.output_block], strict=True),
    ]
    for mine, theirs in pairs:
        theirs.load_state_dict(mine.state_dict(), strict=True)
    image = torch.randn(2, 1, 8, 16, 24)
    net.eval(), other.eval()
    with torch.no_grad():
        torch.testing.assert_close(net(image).mask_logits[-1], other(image))
        net.train(), other.train()
        heads, stacked = net(image).mask_logits, other(image)
    for mine, theirs in zip(heads[::-1], stacked.unbind(1), strict=True):
        full = nn.functional.interpolate(mine, image.shape[2:])
        torch.testing.assert_close(full, theirs, atol=2e-5, rtol=1e-4)


def test_a_head_per_decoder_level_in_training_and_the_finest_alone_afterwards():
    net = made()
    image = torch.randn(1, 1, 4, 8, 12)
    assert [tuple(h.shape) for h in net(image).mask_logits] == [(1, 2, 4, 4, 6), (1, 2, 4, 8, 12)]
    assert [tuple(h.shape) for h in net.eval()(image).mask_logits] == [(1, 2, 4, 8, 12)]
    single = made(VolumeUNetPlan((2, 3, 4), TINY.strides, deep_supervision=False))
    assert [tuple(h.shape) for h in single(image).mask_logits] == [(1, 1, 4, 8, 12)]


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_kernels_norm_and_inputs_can_be_chosen(norm):
    plan = VolumeUNetPlan(
        *((2, 3), ((1, 2, 2),)), kernels=((1, 3, 3), (3, 3, 5)), n_inputs=2, norm=norm
    )
    assert plan.multiple == (1, 2, 2)
    assert made(plan)(torch.randn(2, 2, 3, 4, 6)).mask_logits[-1].shape == (2, 1, 3, 4, 6)


@pytest.mark.parametrize("volumes", [1, 2])
def test_training_and_evaluation_normalise_alike(volumes):
    net = made()
    image = torch.randn(volumes, 1, 8, 8, 8) * 3 + 1
    with torch.no_grad():
        torch.testing.assert_close(
            net(image).mask_logits[-1], net.eval()(image).mask_logits[-1], atol=2e-5, rtol=1e-4
        )


def test_one_volume_alone_learns_as_it_would_beside_another():
    alone, beside = made(), made()
    image = torch.randn(1, 1, 8, 8, 8) * 3 + 1
    for net, batch in ((alone, image), (beside, torch.cat([image, image]))):
        sum((head * head).flatten(1).sum(1).mean() for head in net(batch).mask_logits).backward()
    for (name, mine), theirs in zip(alone.named_parameters(), beside.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, atol=2e-4, rtol=1e-3, msg=name)


def test_volumes_of_a_batch_do_not_see_one_another():
    net = made().eval()
    image = torch.randn(3, 1, 4, 8, 8)
    with torch.no_grad():
        whole = net(image).mask_logits[-1]
        torch.testing.assert_close(net(image.flip(0)).mask_logits[-1].flip(0), whole)
        torch.testing.assert_close(net(image[1:2]).mask_logits[-1], whole[1:2])


def test_heads_expect_2_percent_before_they_have_learned():
    net = made()
    biases = torch.cat([head.conv.conv.bias for head in net.heads])
    assert torch.sigmoid(biases).tolist() == pytest.approx([0.02] * 4)


def test_the_seed_decides_the_weights_and_every_weight_gets_a_gradient():
    first, again, other = made(), made(), made(seed=1)
    for mine, same in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(mine, same)
    assert not torch.equal(first.down[0].conv1.conv.weight, other.down[0].conv1.conv.weight)
    heads = first(torch.randn(2, 1, 8, 8, 8)).mask_logits
    sum((head * torch.randn_like(head)).sum() for head in heads).backward()
    for name, weight in first.named_parameters():
        assert weight.grad is not None, name
        assert bool((weight.grad != 0).any()), name


def test_saved_weights_come_back(tmp_path):
    net, other = made(), made(seed=1)
    sha256 = save_weights(net, tmp_path / "w.safetensors")
    load_weights(other, tmp_path / "w.safetensors", sha256)
    image = torch.randn(1, 1, 4, 8, 8)
    with torch.no_grad():
        assert torch.equal(net.eval()(image).mask_logits[-1], other.eval()(image).mask_logits[-1])


@pytest.mark.parametrize(
    ("shape", "value", "reason"),
    [
        ((1, 1, 4, 8, 6), 0.0, Reason.DIMS_MISMATCH),
        ((1, 2, 4, 8, 8), 0.0, Reason.DIMS_MISMATCH),
        ((1, 8, 8, 8), 0.0, Reason.DIMS_MISMATCH),
        ((1, 1, 0, 8, 8), 0.0, Reason.DIMS_MISMATCH),
        ((1, 1, 2, 4, 4), 0.0, Reason.DIMS_MISMATCH),
        ((1, 1, 4, 8, 8), float("nan"), Reason.NON_FINITE),
        ((1, 1, 4, 8, 8), float("inf"), Reason.NON_FINITE),
    ],
)
def test_refuses_what_it_cannot_judge(shape, value, reason):
    with pytest.raises(InputRefused) as refused:
        made()(torch.full(shape, value))
    assert refused.value.reason is reason


def test_a_wrong_plan_lists_every_problem():
    with pytest.raises(ConfigError) as wrong:
        VolumeUNetPlan((8,), ((2, 2, 2),), kernels=((2, 3, 3),), n_outputs=0)
    assert len(wrong.value.problems) == 4
    with pytest.raises(ConfigError, match="1 and 2"):
        VolumeUNetPlan((8, 8), ((3, 2, 2),))
