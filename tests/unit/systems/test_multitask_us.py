"""P1's own choices: what each parameter changes, and what the Card must say."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from renalkit.systems import get_system
from renalkit.systems._contract import ClassBalance, Shape, Task
from renalkit.systems._decode import sigmoid, softmax

torch.set_num_threads(1)
SYSTEM = get_system("multitask-us")
SHAPE = Shape(1, 32, 2)


def build(task=Task.BOTH, **given):
    return SYSTEM.build(SYSTEM.params({"width": 0.125} | given), SHAPE, task)


def count(net):
    return sum(parameter.numel() for parameter in net.parameters())


def kinds(net):
    return [type(module).__name__ for module in net.modules()]


def test_each_claimed_contribution_can_be_switched_off():
    full = build()
    assert kinds(full).count("CBAM") == 15
    without = build(cbam=False)
    assert "CBAM" not in kinds(without)
    assert count(build(residual=False)) < count(full)
    assert count(build(separable=True)) < count(full)
    assert count(build(classifier_separable=False)) > count(full)
    plain = build(Task.SEGMENTATION, cbam=False, residual=False)
    unetpp = get_system("nested-unet")
    assert count(plain) == count(
        unetpp.build(unetpp.params({"width": 0.125}), SHAPE, Task.SEGMENTATION)
    )
    image = torch.rand(1, 1, 32, 32)
    assert without.eval()(image).attention is None


def test_heads_dropout_depth_and_widths():
    image = torch.rand(2, 1, 32, 32)
    assert len(build().eval()(image).mask_logits) == 4
    assert len(build(deep_supervision=False).eval()(image).mask_logits) == 1
    net = build()
    assert net.segmentation.encoder.dropout.p == 0.2
    assert net.classification.dropout.p == 0.5
    assert count(build(classifier_depth=34)) > count(net)
    assert count(build(classifier_width=0.5)) > count(net)
    assert net.classification.conv1.in_channels == 2
    assert build(coupling="mask_crop").classification.conv1.in_channels == 1
    assert build(coupling="none").classification.conv1.in_channels == 1
    assert build(Task.CLASSIFICATION).classification.conv1.in_channels == 1


@given(fraction=st.floats(0.01, 1), progress=st.floats(0, 1))
def test_the_guide_falls_from_one_to_zero(fraction, progress):
    params = SYSTEM.params({"guide_fraction": fraction})
    share = SYSTEM.guide_share(params, progress)
    assert 0 <= share <= 1
    assert SYSTEM.guide_share(params, 0.0) == 1
    assert SYSTEM.guide_share(params, fraction) == 0
    if progress < fraction:
        assert share == pytest.approx(1 - progress / fraction)


def test_there_is_no_guide_without_coupling_or_fraction():
    for given_params in ({"coupling": "none"}, {"guide_fraction": 0}):
        assert SYSTEM.guide_share(SYSTEM.params(given_params), 0.0) == 0


def test_the_mask_is_the_last_heads_or_the_mean_of_all():
    logits = np.zeros((1, 4, 2, 2), np.float32)
    logits[:, -1] = 20.0
    last = SYSTEM.decode(SYSTEM.params(), {"mask_logits": logits})[0].mask
    mean = SYSTEM.decode(SYSTEM.params({"inference_head": "average"}), {"mask_logits": logits})
    np.testing.assert_allclose(last, 1, atol=1e-6)
    np.testing.assert_allclose(mean[0].mask, (3 * 0.5 + 1) / 4, atol=1e-6)


def test_loss_weighs_the_tasks_by_its_parameter():
    from renalkit.learn.outputs import Outputs, Targets

    outputs = Outputs((torch.zeros(1, 1, 4, 4),), torch.tensor([[0.0, 3.0]]))
    targets = Targets(torch.ones(1, 1, 4, 4), torch.tensor([True]), torch.tensor([0]))
    losses = SYSTEM.loss(
        SYSTEM.params({"segmentation_weight": 0.8}), Task.BOTH, ClassBalance((4, 4))
    )(outputs, targets)
    expected = 0.8 * losses.segmentation + 0.2 * losses.classification
    torch.testing.assert_close(losses.total, expected)


def test_the_card_carries_the_claims_and_the_papers_contradictions():
    card = SYSTEM.card
    claims = {(claim.metric, claim.task): claim.value for claim in card.claims}
    assert claims[("iou", "segmentation")] == 0.942
    assert claims[("accuracy", "classification")] == 0.818
    assert claims[("sensitivity", "classification")] == 0.822
    assert claims[("specificity", "classification")] == 0.806
    assert claims[("auc", "classification")] == 0.88
    said = " ".join(choice.paper_says for choice in card.open_choices)
    for contradiction in ("4:1", "7:3", "3504", "3600", "16 (", "8 ("):
        assert contradiction in said
    assert get_system("stunet").card.claims[0].value == 0.9231


def test_every_parameter_is_explained_by_an_open_choice_of_the_card():
    named = {
        name.strip() for choice in SYSTEM.card.open_choices for name in choice.param.split(",")
    }
    assert set(SYSTEM.params_type.model_fields) <= named


@given(st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=6))
def test_softmax_and_sigmoid_are_finite_for_any_finite_logits(logits):
    scores = softmax(logits)
    assert np.isfinite(scores).all()
    assert scores.sum() == pytest.approx(1, abs=1e-12)
    both = sigmoid(logits) + sigmoid(-np.asarray(logits))
    np.testing.assert_allclose(both, 1, atol=1e-12)


def test_binary_softmax_is_the_sigmoid_of_the_difference():
    logits = np.array([[0.3, 1.7], [-2.0, 5.0]])
    np.testing.assert_allclose(softmax(logits)[:, 1], sigmoid(logits[:, 1] - logits[:, 0]))


def test_imagenet_weights_need_their_digest_and_full_width():
    resnet = get_system("resnet18")
    with pytest.raises(ValidationError, match="given together"):
        resnet.params({"init_weights": "weights.pth"})
    with pytest.raises(ValidationError, match=r"width 1\.0 only"):
        resnet.params({"init_weights": "w.pth", "init_sha256": "0" * 64, "width": 0.5})
    with pytest.raises(ValidationError, match="pattern"):
        resnet.params({"init_weights": "w.pth", "init_sha256": "abc"})


def test_a_system_starts_from_a_weight_file(tmp_path):
    import hashlib

    from safetensors.torch import save_file

    resnet = get_system("resnet18")
    shape = Shape(3, 32, 2)
    source = resnet.build(resnet.params(), shape, Task.CLASSIFICATION)
    path = tmp_path / "resnet18.safetensors"
    save_file(source.state_dict(), path)
    given_params = {
        "init_weights": str(path),
        "init_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    target = resnet.build(resnet.params(given_params), shape, Task.BOTH)
    assert torch.equal(target.layer4[1].conv2.weight, source.layer4[1].conv2.weight)
    assert not torch.equal(target.fc.weight, source.fc.weight)
