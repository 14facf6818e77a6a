"""Losses against closed forms and numeric gradients."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from renalkit.learn.losses import (
    LossPlan,
    bce_loss,
    cross_entropy,
    dice_loss,
    joint_loss,
    segmentation_loss,
)
from renalkit.learn.outputs import Outputs, Targets

torch.set_num_threads(1)


def masks(seed=0, n=3, s=6):
    source = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, 1, s, s, generator=source, dtype=torch.float64)
    truth = (torch.rand(n, 1, s, s, generator=source) > 0.6).double()
    return logits, truth


def test_dice_equals_its_formula_per_image_then_mean():
    logits, truth = masks()
    q = 1 / (1 + np.exp(-logits.numpy()))
    g = truth.numpy()
    each = [
        1 - (2 * (a * b).sum() + 1e-5) / (a.sum() + b.sum() + 1e-5)
        for a, b in zip(q, g, strict=True)
    ]
    assert float(dice_loss(logits, truth)) == pytest.approx(np.mean(each), abs=1e-12)


def test_dice_of_empty_and_empty_is_zero_and_of_empty_and_full_is_one():
    empty = torch.zeros(1, 1, 4, 4)
    assert float(dice_loss(torch.full((1, 1, 4, 4), -40.0), empty)) == pytest.approx(0, abs=1e-6)
    assert float(dice_loss(torch.full((1, 1, 4, 4), 40.0), empty)) == pytest.approx(1, abs=1e-5)


def test_bce_equals_its_formula():
    logits, truth = masks(1)
    q = torch.sigmoid(logits)
    expected = -(truth * q.log() + (1 - truth) * (1 - q).log()).mean()
    torch.testing.assert_close(bce_loss(logits, truth), expected, rtol=0, atol=1e-12)


def test_unknown_masks_are_left_out():
    logits, truth = masks(2)
    known = torch.tensor([True, False, True])
    for loss in (dice_loss, bce_loss):
        torch.testing.assert_close(loss(logits, truth, known), loss(logits[known], truth[known]))


def test_no_known_mask_costs_nothing_and_gives_no_gradient():
    logits, truth = masks(3)
    logits.requires_grad_()
    loss = dice_loss(logits, truth, torch.zeros(3, dtype=torch.bool))
    loss.backward()
    assert float(loss.detach()) == 0
    assert float(logits.grad.abs().max()) == 0


@pytest.mark.parametrize("extreme", [1e4, -1e4, 3e38])
def test_extreme_logits_stay_finite(extreme):
    logits = torch.full((2, 1, 4, 4), extreme).requires_grad_()
    truth = torch.zeros(2, 1, 4, 4)
    truth[0] = 1
    total = dice_loss(logits, truth) + bce_loss(logits / 1e3, truth)
    total.backward()
    assert bool(torch.isfinite(total.detach()))
    assert bool(torch.isfinite(logits.grad).all())
    scores = torch.tensor([[extreme, 0.0]]).requires_grad_()
    cross_entropy(scores, torch.tensor([0])).backward()
    assert bool(torch.isfinite(scores.grad).all())


def test_half_precision_is_summed_in_float32():
    logits = torch.zeros(1, 1, 512, 512, dtype=torch.bfloat16)
    assert dice_loss(logits, torch.ones(1, 1, 512, 512)).dtype == torch.float32


def test_gradients_are_those_of_the_numbers():
    logits, truth = masks(4, n=2, s=3)
    known = torch.tensor([True, True])
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: dice_loss(x, truth, known), (logits,))
    assert torch.autograd.gradcheck(lambda x: bce_loss(x, truth, known), (logits,))
    scores = torch.randn(4, 3, dtype=torch.float64).requires_grad_()
    label = torch.tensor([0, 2, -1, 1])
    weights = torch.tensor([0.5, 1.0, 1.5], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: cross_entropy(x, label, weights), (scores,))


@settings(max_examples=40, deadline=None)
@given(
    label=st.lists(st.integers(-1, 2), min_size=1, max_size=6),
    weighted=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_cross_entropy_agrees_with_torch(label, weighted, seed):
    label = torch.tensor(label)
    logits = torch.randn(
        len(label), 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    weights = torch.tensor([0.2, 1.0, 1.8], dtype=torch.float64) if weighted else None
    mine = cross_entropy(logits, label, weights)
    if bool((label < 0).all()):
        assert float(mine) == 0
        return
    foreign = torch.nn.functional.cross_entropy(logits, label, weights, ignore_index=-1)
    torch.testing.assert_close(mine, foreign, rtol=0, atol=1e-12)


def targets():
    _, truth = masks(5)
    return Targets(truth, torch.tensor([True, True, False]), torch.tensor([1, -1, 0]))


def test_segmentation_loss_is_the_mean_over_heads_of_dice_and_bce():
    heads = [masks(seed)[0] for seed in (6, 7)]
    given_targets = targets()
    plan = LossPlan(True, False, dice_weight=0.7, bce_weight=0.3)
    expected = sum(
        0.7 * dice_loss(h, given_targets.mask, given_targets.has_mask)
        + 0.3 * bce_loss(h, given_targets.mask, given_targets.has_mask)
        for h in heads
    )
    torch.testing.assert_close(segmentation_loss(heads, given_targets, plan), expected / 2)


def test_total_weighs_the_two_tasks():
    outputs = Outputs((masks(8)[0],), torch.zeros(3, 2, dtype=torch.float64))
    both = joint_loss(LossPlan(True, True, segmentation_weight=0.3))(outputs, targets())
    torch.testing.assert_close(both.total, 0.3 * both.segmentation + 0.7 * both.classification)
    assert float(both.classification) == pytest.approx(math.log(2))
    alone = joint_loss(LossPlan(False, True))(outputs, targets())
    assert alone.segmentation is None
    torch.testing.assert_close(alone.total, alone.classification)
    masks_only = joint_loss(LossPlan(True, False))(outputs, targets())
    assert masks_only.classification is None
    torch.testing.assert_close(masks_only.total, masks_only.segmentation)


def test_class_weights_reach_the_classification_part():
    logits = torch.tensor([[2.0, 0.0], [2.0, 0.0]], dtype=torch.float64)
    outputs = Outputs(None, logits)
    given_targets = Targets(torch.zeros(2, 1, 1, 1), torch.ones(2).bool(), torch.tensor([0, 1]))
    heavy = joint_loss(LossPlan(False, True, class_weights=(0.5, 1.5)))(outputs, given_targets)
    a, b = math.log1p(math.exp(-2)), math.log1p(math.exp(2))
    assert float(heavy.total) == pytest.approx((0.5 * a + 1.5 * b) / 2, abs=1e-12)
