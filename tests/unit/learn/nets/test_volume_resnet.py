"""The 3-D ResNet of lesion crops: sizes, what it refuses, gradients, order of the batch."""

import pytest
import torch

from renalkit.errors import ConfigError, InputRefused, Reason
from renalkit.learn.nets.volume_resnet import VolumeResNet, VolumeResNetPlan
from renalkit.learn.predictor import load_weights, save_weights

torch.set_num_threads(1)
TINY = VolumeResNetPlan(width=0.0625, dropout=0.0)


def made(plan=TINY, seed=0):
    torch.manual_seed(seed)
    return VolumeResNet(plan)


def test_stated_number_of_weights():
    assert sum(p.numel() for p in made(VolumeResNetPlan()).parameters()) == 897_747


@pytest.mark.parametrize("size", [(16, 16, 16), (5, 9, 12)])
@pytest.mark.parametrize(("depth", "inputs", "classes"), [(10, 1, 3), (18, 2, 2)])
def test_any_size_gives_a_logit_per_class(size, depth, inputs, classes):
    plan = VolumeResNetPlan(
        depth, 0.0625, inputs, classes, first_kernel=5, first_stride=2, pool=False
    )
    found = made(plan)(torch.randn(2, inputs, *size))
    assert found.class_logits.shape == (2, classes)
    assert found.mask_logits is None


def test_crops_of_a_batch_do_not_see_one_another():
    net = made().eval()
    image = torch.randn(3, 1, 16, 16, 16)
    with torch.no_grad():
        whole = net(image).class_logits
        torch.testing.assert_close(net(image.flip(0)).class_logits.flip(0), whole)
        torch.testing.assert_close(net(image[1:2]).class_logits, whole[1:2])


def test_the_seed_decides_the_weights_and_every_weight_gets_a_gradient():
    first, again, other = made(), made(), made(seed=1)
    for mine, same in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(mine, same)
    assert not torch.equal(first.classify.weight, other.classify.weight)
    found = first(torch.randn(4, 1, 16, 16, 16)).class_logits
    (found * torch.randn_like(found)).sum().backward()
    for name, weight in first.named_parameters():
        assert weight.grad is not None, name
        assert bool((weight.grad != 0).any()), name


def test_saved_weights_come_back(tmp_path):
    net, other = made(), made(seed=1)
    sha256 = save_weights(net, tmp_path / "w.safetensors")
    load_weights(other, tmp_path / "w.safetensors", sha256)
    image = torch.randn(2, 1, 8, 8, 8)
    with torch.no_grad():
        assert torch.equal(net.eval()(image).class_logits, other.eval()(image).class_logits)


@pytest.mark.parametrize(
    ("shape", "value", "reason"),
    [
        ((2, 2, 8, 8, 8), 0.0, Reason.DIMS_MISMATCH),
        ((2, 8, 8, 8), 0.0, Reason.DIMS_MISMATCH),
        ((2, 1, 8, 8, 8), float("nan"), Reason.NON_FINITE),
    ],
)
def test_refuses_what_it_cannot_judge(shape, value, reason):
    with pytest.raises(InputRefused) as refused:
        made()(torch.full(shape, value))
    assert refused.value.reason is reason


def test_a_wrong_plan_lists_every_problem():
    with pytest.raises(ConfigError) as wrong:
        VolumeResNetPlan(34, 0.0, 0, 1, 1.0, 4)  # type: ignore[arg-type]
    assert len(wrong.value.problems) == 6
