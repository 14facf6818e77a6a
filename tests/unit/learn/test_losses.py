"""Losses against closed forms and numeric gradients."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from renalkit.learn.losses import (
    BalancedPlan,
    LossPlan,
    balanced_loss,
    bce_loss,
    class_balanced_weights,
    cross_entropy,
    dice_loss,
    joint_loss,
    ordinal_entropy,
    segmentation_loss,
    sigmoid_focal,
    softmax_focal,
)
from renalkit.learn.nets.heads import OrdinalLayer
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


# ---- class-balanced losses (Cui et al. 2019; numbers of their code, torchvision and by hand) ---


def of_one(loss, z, label, gamma=2.0):
    logits = torch.tensor([z], dtype=torch.float64)
    return float(loss(logits, torch.tensor([label]), gamma))


@pytest.mark.parametrize(
    ("beta", "counts", "raw", "normalised"),
    [
        (0.9999, (3573, 2720), (3.32834e-4, 4.19893e-4), (0.884343, 1.115657)),
        (0.9999, (3659, 6135), None, (1.198853, 0.801147)),
        (0.999, (5000, 50), None, (0.0936486, 1.9063514)),
        (0.9, (10, 1), (0.153534, 1.0), (0.266198, 1.733802)),
    ],
)
def test_class_balanced_weights_are_those_of_cui(beta, counts, raw, normalised):
    assert class_balanced_weights(counts, beta) == pytest.approx(normalised, abs=5e-7)
    if raw is not None:
        found = class_balanced_weights(counts, beta, normalised=False)
        assert found == pytest.approx(raw, rel=2e-6)


def test_limits_of_the_class_balanced_weights():
    assert class_balanced_weights((5, 500), 0.0) == (1.0, 1.0)
    heavy = class_balanced_weights((10, 40), 1 - 1e-12)
    assert heavy == pytest.approx((1.6, 0.4), rel=1e-6)
    assert class_balanced_weights((7, 0, 7), 0.99) == pytest.approx((1.0, 0.0, 1.0))
    for counts, beta in (((0, 0), 0.9), ((3, -1), 0.9), ((3, 3), 1.0), ((), 0.5)):
        with pytest.raises(ValueError, match="class-balanced weights"):
            class_balanced_weights(counts, beta)


@pytest.mark.parametrize(
    ("z", "sigmoid", "soft", "entropy"),
    [
        ((2.0, -1.0), 0.024461620344, 0.000109283324, 0.048587351574),
        ((0.0, 0.0), 0.346573590280, 0.173286795140, 0.693147180560),
        ((-3.0, 3.0), 5.532560882051, 5.972828662713, 6.002475685138),
    ],
)
def test_focal_losses_have_the_known_values(z, sigmoid, soft, entropy):
    assert of_one(sigmoid_focal, z, 0) == pytest.approx(sigmoid, abs=1e-12)
    assert of_one(softmax_focal, z, 0) == pytest.approx(soft, abs=1e-12)
    assert of_one(softmax_focal, z, 0, gamma=0.0) == pytest.approx(entropy, abs=1e-12)


def test_without_focus_they_are_plain_entropies():
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    label = torch.tensor([0, 1, 2, 2, 0, 1])
    hot = torch.nn.functional.one_hot(label, 3).double()
    binary = torch.nn.functional.binary_cross_entropy_with_logits(logits, hot, reduction="none")
    torch.testing.assert_close(sigmoid_focal(logits, label, 0.0), binary.sum(1))
    plain = torch.nn.functional.cross_entropy(logits, label, reduction="none")
    torch.testing.assert_close(softmax_focal(logits, label, 0.0), plain)


def test_the_focus_is_a_power_of_what_is_missing():
    logits = torch.randn(5, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    label = torch.tensor([0, 1, 1, 0, 1])
    p = torch.softmax(logits, 1).gather(1, label[:, None])[:, 0]
    torch.testing.assert_close(softmax_focal(logits, label, 1.5), -((1 - p) ** 1.5) * p.log())
    q = torch.sigmoid(logits)
    pt = torch.where(torch.nn.functional.one_hot(label, 2).bool(), q, 1 - q)
    expected = (-((1 - pt) ** 1.5) * pt.log()).sum(1)
    torch.testing.assert_close(sigmoid_focal(logits, label, 1.5), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_far_logits_stay_finite_and_cost_what_they_must(dtype, gamma):
    for loss in (sigmoid_focal, softmax_focal):
        for z in (100.0, -100.0):
            logits = torch.tensor([[z, -z]], dtype=dtype).requires_grad_()
            found = loss(logits, torch.tensor([0]), gamma)
            found.sum().backward()
            assert bool(torch.isfinite(logits.grad).all())
            wrong = 200.0
            assert float(found.detach()) == pytest.approx(0.0 if z > 0 else wrong, abs=1e-6)


def test_gradients_of_the_balanced_losses():
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    logits.requires_grad_()
    label = torch.tensor([0, 2, 1, 1])
    for loss in (sigmoid_focal, softmax_focal):
        for gamma in (0.0, 2.0):
            assert torch.autograd.gradcheck(loss, (logits, label, gamma))
    assert torch.autograd.gradcheck(lambda x: ordinal_entropy(x, label), (logits,))


def test_ordinal_entropy_is_the_binary_one_over_the_cuts():
    head = OrdinalLayer(1, 4).double()
    g = torch.tensor([[0.3], [-1.2], [2.0], [0.0]], dtype=torch.float64)
    label = torch.tensor([0, 1, 2, 3])
    above = g @ head.weight.T - head.thresholds()
    truth = (label[:, None] > torch.arange(3)).double()
    plain = torch.nn.functional.binary_cross_entropy_with_logits(above, truth, reduction="none")
    torch.testing.assert_close(ordinal_entropy(head(g), label), plain.sum(1))


def test_far_ordinal_logits_stay_finite():
    head = OrdinalLayer(1, 4)
    g = torch.tensor([[1e4], [-1e4]], requires_grad=True)
    ordinal_entropy(head(g), torch.tensor([0, 3])).sum().backward()
    assert bool(torch.isfinite(g.grad).all())
    assert bool(torch.isfinite(head.cuts.grad).all())


def balanced(plan, logits, label, branches=None):
    given_targets = Targets(torch.zeros(len(label), 1, 1, 1), torch.ones(len(label)).bool(), label)
    return balanced_loss(plan)(Outputs(None, logits, branch_logits=branches), given_targets)


def test_the_balanced_loss_is_a_weighted_sum_over_images_by_their_number():
    logits = torch.randn(4, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    label = torch.tensor([0, 1, -1, 1])
    plan = BalancedPlan(class_weights=(0.4, 1.6))
    each = sigmoid_focal(logits, label, 2.0)
    expected = (0.4 * each[0] + 1.6 * each[1] + 1.6 * each[3]) / 3
    found = balanced(plan, logits, label)
    torch.testing.assert_close(found.total, expected)
    assert found.segmentation is None
    torch.testing.assert_close(found.classification, expected)
    nothing = balanced(plan, logits.requires_grad_(), torch.full((4,), -1))
    nothing.total.backward()
    assert float(nothing.total.detach()) == 0


def test_the_total_joins_the_fused_and_the_single_heads():
    source = torch.Generator().manual_seed(4)
    logits = torch.randn(3, 2, generator=source, dtype=torch.float64)
    branches = torch.randn(3, 2, 2, generator=source, dtype=torch.float64)
    label = torch.tensor([0, 1, 1])
    plan = BalancedPlan()
    parts = [balanced(plan, z, label).total for z in (logits, *branches.unbind(1))]
    found = balanced(plan, logits, label, branches)
    torch.testing.assert_close(found.total, parts[0] + 0.5 * parts[1] + 0.5 * parts[2])
    torch.testing.assert_close(found.classification, parts[0])
    other = balanced(BalancedPlan(fused_weight=2.0, branch_weight=0.1), logits, label, branches)
    torch.testing.assert_close(other.total, 2 * parts[0] + 0.1 * (parts[1] + parts[2]))


@pytest.mark.parametrize("per_image", ["sigmoid-focal", "softmax-focal", "ordinal"])
def test_each_balanced_loss_falls_with_the_right_logit(per_image):
    plan = BalancedPlan(per_image)
    label = torch.tensor([1])
    totals = [
        float(balanced(plan, torch.tensor([[0.0, z, 0.0]]), label).total) for z in (-1.0, 0.0, 3.0)
    ]
    assert totals == sorted(totals, reverse=True)
