"""Losses of volumes: known values, unknown voxels, heads of several sizes."""

import math

import pytest
import torch

from renalkit.errors import ConfigError
from renalkit.learn.losses import bce_loss, dice_loss
from renalkit.learn.outputs import UNKNOWN, Outputs, VolumeBatch
from renalkit.learn.volume_losses import (
    MASS,
    WHOLE_KIDNEY,
    MaskLossPlan,
    channel_masks,
    class_loss,
    coarser,
    mask_loss,
    volume_bce,
    volume_dice,
)

torch.set_num_threads(1)
PLAN = MaskLossPlan((WHOLE_KIDNEY, MASS))


def drawn(seed=0, b=2, size=(4, 4, 4)):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (b, *size), generator=generator, dtype=torch.uint8)
    return torch.randn(b, 2, *size, generator=generator), labels


def loss_of(heads, labels, plan=PLAN):
    return mask_loss(plan)(Outputs(tuple(heads), None), VolumeBatch(labels, labels)).total


def test_one_volume_and_channel_equal_the_losses_of_pictures():
    logits, labels = drawn(b=1)
    mask, known = channel_masks(labels, (MASS,))
    logits = logits[:, :1]
    as_picture = (logits.flatten(2)[..., None], mask.flatten(2)[..., None])
    torch.testing.assert_close(volume_dice(logits, mask, known), dice_loss(*as_picture))
    torch.testing.assert_close(volume_bce(logits, mask, known), bce_loss(*as_picture))


def test_each_volume_of_a_batch_weighs_alike_whatever_the_size_of_its_mass():
    logits, labels = drawn(b=3)
    labels[1] = 0
    labels[1, 0, 0, 0] = 2
    labels[2] = 0
    mask, known = channel_masks(labels, (MASS,))
    logits = logits[:, :1]
    each = [volume_dice(logits[i : i + 1], mask[i : i + 1], known[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(volume_dice(logits, mask, known), sum(each) / 2)


def test_the_truth_costs_nothing_and_its_opposite_everything():
    _, labels = drawn()
    mask, _ = channel_masks(labels, PLAN.channels)
    assert loss_of([80 * mask - 40], labels) < 1e-6
    assert loss_of([40 - 80 * mask], labels) > 30


def test_unknown_voxels_count_nothing_and_get_no_gradient():
    logits, labels = drawn()
    hidden = labels.clone()
    hidden[:, :2] = UNKNOWN
    logits.requires_grad_()
    small = torch.nn.functional.avg_pool3d(logits, 2)
    loss = loss_of([small, logits], hidden)
    upper = [small[:, :, 1:], logits[:, :, 2:]]
    torch.testing.assert_close(loss, loss_of(upper, labels[:, 2:]))
    loss.backward()
    assert bool((logits.grad[:, :, :2] == 0).all())
    assert bool((logits.grad[:, :, 2:] != 0).all())


def test_nothing_known_costs_nothing():
    logits, labels = drawn()
    logits.requires_grad_()
    loss = loss_of([logits], torch.full_like(labels, UNKNOWN))
    loss.backward()
    assert loss == 0
    assert bool((logits.grad == 0).all())


def test_an_empty_channel_is_taught_by_cross_entropy_alone():
    logits, labels = drawn()
    mask, known = channel_masks(labels.clamp_max(1), PLAN.channels)
    alone = volume_dice(logits[:, :1], mask[:, :1], known)
    torch.testing.assert_close(volume_dice(logits, mask, known), alone)
    assert volume_dice(logits, torch.zeros_like(mask), known) == 0


def test_heads_weigh_half_of_the_next_finer_one():
    logits, labels = drawn()
    heads = [torch.nn.functional.avg_pool3d(logits, n) for n in (4, 2, 1)]
    mask, known = channel_masks(labels, PLAN.channels)
    each = []
    for head in heads:
        inside, share = coarser(mask, known, head.shape[2:])
        each.append(volume_dice(head, inside, share) + volume_bce(head, inside, share))
    wanted = (each[0] / 4 + each[1] / 2 + each[2]) / 1.75
    torch.testing.assert_close(loss_of(heads, labels), wanted)
    halved = MaskLossPlan(PLAN.channels, dice_weight=0.5, bce_weight=0.5)
    torch.testing.assert_close(loss_of(heads, labels, halved), wanted / 2)


def test_a_coarser_reference_is_the_share_of_known_voxels_inside():
    labels = torch.tensor([[2, UNKNOWN], [0, 3]], dtype=torch.uint8)[None, None]
    mask, known = channel_masks(labels, (MASS,))
    inside, share = coarser(mask, known, torch.Size((1, 1, 1)))
    assert inside.item() == pytest.approx(2 / 3)
    assert share.item() == 0.75


def test_the_order_of_the_batch_changes_nothing():
    logits, labels = drawn(b=3)
    torch.testing.assert_close(loss_of([logits], labels), loss_of([logits.flip(0)], labels.flip(0)))


def test_crops_are_weighed_by_class_and_unknown_classes_left_out():
    logits = torch.tensor([[0.0, 0.0], [2.0, 0.0], [5.0, 0.0]])
    label = torch.tensor([0, 1, -1])
    batch = VolumeBatch(torch.zeros(3, 1, 1, 1, 1), label=label)
    found = class_loss((1.0, 3.0))(Outputs(None, logits), batch)
    each = [math.log(2), math.log(1 + math.exp(2))]
    assert found.total.item() == pytest.approx((each[0] + 3 * each[1]) / 4)
    assert class_loss()(Outputs(None, logits), batch).total.item() == pytest.approx(sum(each) / 2)


def test_a_wrong_plan_lists_every_problem():
    with pytest.raises(ConfigError) as wrong:
        MaskLossPlan(((),), -1.0)
    assert len(wrong.value.problems) == 2
