"""The road from the predicted mask to the classifier."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from renalkit.learn.nets.multitask import (
    ATTENTION,
    Coupling,
    MultitaskNet,
    MultitaskPlan,
    crop_to_mask,
    mix_with_reference,
)
from renalkit.learn.nets.resnet import ResNetPlan
from renalkit.learn.nets.spec import NetSpec
from renalkit.learn.nets.unet import UNetPlan
from renalkit.learn.outputs import Guide

torch.set_num_threads(1)
SPEC = NetSpec(channels=1, size=32, n_classes=3, classifies=True)


def net(coupling=Coupling.MASK_CHANNEL, **choices):
    torch.manual_seed(3)
    plan = MultitaskPlan(
        segmentation=UNetPlan(width=0.125, style=ATTENTION, deep_supervision=True),
        classification=ResNetPlan(separable=True, width=0.125),
        coupling=coupling,
        **choices,
    )
    return MultitaskNet(SPEC, plan)


@given(share=st.floats(0, 1))
def test_mixture_runs_from_prediction_to_reference(share):
    predicted = torch.tensor([0.2, 0.9]).view(2, 1, 1, 1)
    reference = torch.ones(2, 1, 1, 1)
    mixed = mix_with_reference(predicted, Guide(reference, share))
    torch.testing.assert_close(mixed, (1 - share) * predicted + share * reference)


def test_images_without_reference_keep_their_prediction():
    predicted = torch.full((2, 1, 2, 2), 0.3)
    guide = Guide(torch.ones(2, 1, 2, 2), 1.0, torch.tensor([True, False]))
    mixed = mix_with_reference(predicted, guide)
    assert mixed[0].unique().tolist() == [1.0]
    torch.testing.assert_close(mixed[1], predicted[1])


@pytest.mark.parametrize("coupling", [Coupling.MASK_CHANNEL, Coupling.MASK_CROP])
def test_classification_sends_no_gradient_into_the_segmentation(coupling):
    joint = net(coupling)
    joint(torch.rand(2, 1, 32, 32)).class_logits.sum().backward()
    assert all(parameter.grad is None for parameter in joint.segmentation.parameters())
    assert joint.classification.conv1.weight.grad is not None


@pytest.mark.parametrize("coupling", [Coupling.MASK_CHANNEL, Coupling.MASK_CROP])
def test_the_guide_counts_in_training_only(coupling):
    joint = net(coupling)
    image = torch.rand(2, 1, 32, 32)
    mask = torch.zeros(2, 1, 32, 32)
    mask[:, :, 4:10, 4:10] = 1
    plain = joint(image).class_logits
    assert not torch.allclose(joint(image, Guide(mask, 1.0)).class_logits, plain)
    joint.eval()
    torch.testing.assert_close(
        joint(image, Guide(mask, 1.0)).class_logits, joint(image).class_logits
    )


def test_without_coupling_the_classifier_sees_the_image_alone():
    joint = net(Coupling.NONE).eval()
    image = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(joint(image).class_logits, joint.classification(image).class_logits)


def test_average_heads_changes_what_the_classifier_sees():
    image = torch.rand(2, 1, 32, 32)
    last, average = net().eval(), net(average_heads=True).eval()
    average.load_state_dict(last.state_dict())
    assert not torch.equal(last(image).class_logits, average(image).class_logits)


def test_attention_map_is_shown_in_evaluation_only():
    joint = net()
    image = torch.rand(2, 1, 32, 32)
    assert joint(image).attention is None
    shown = joint.eval()(image).attention
    assert shown.shape == (2, 1, 32, 32)
    assert 0 <= float(shown.detach().min()) <= float(shown.detach().max()) <= 1


@settings(max_examples=40, deadline=None)
@given(
    top=st.integers(0, 40),
    left=st.integers(0, 40),
    height=st.integers(3, 20),
    width=st.integers(3, 20),
    margin=st.floats(0, 0.5),
)
def test_crop_holds_the_whole_lesion_and_enlarges_it(top, left, height, width, margin):
    mask = torch.zeros(1, 1, 64, 64)
    mask[:, :, top : top + height, left : left + width] = 1
    cropped = crop_to_mask(mask, mask, margin)
    side = min(64.0, max(height, width) * (1 + 2 * margin))
    expected_area = height * width * (64 / side) ** 2
    assert cropped.shape == mask.shape
    # bilinear sampling blurs an edge by at most one pixel of the source
    blur = (height + width + 2) * (64 / side) ** 2
    assert abs(float(cropped.sum()) - expected_area) <= blur


def test_crop_of_an_exact_box_is_the_box_resized():
    image = torch.rand(1, 2, 64, 64)
    mask = torch.zeros(1, 1, 64, 64)
    mask[:, :, 16:48, 8:40] = 1
    expected = torch.nn.functional.interpolate(
        image[:, :, 16:48, 8:40], scale_factor=2, mode="bilinear", align_corners=False
    )
    # the outermost pixels look past the box, as a crop of the image may
    cropped = crop_to_mask(image, mask, 0.0)
    torch.testing.assert_close(cropped[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1])


def test_an_empty_mask_keeps_the_whole_image():
    image = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(crop_to_mask(image, torch.zeros(2, 1, 32, 32), 0.1), image)


def test_weights_that_diverged_show_in_the_outputs_and_are_not_blamed_on_the_image():
    joint = net()
    torch.nn.init.constant_(joint.segmentation.heads[-1].bias, float("nan"))
    outputs = joint(torch.rand(2, 1, 32, 32))
    assert bool(outputs.mask_logits[-1].isnan().all())
    assert bool(outputs.class_logits.isnan().all())


def test_the_network_can_be_exported_without_its_look_at_the_values():
    joint = net().eval()
    image = torch.rand(1, 1, 32, 32)
    graph = torch.export.export(joint, (image,)).module()
    torch.testing.assert_close(graph(image).class_logits, joint(image).class_logits)
