"""Re-parameterisation changes nothing but the speed."""

import hashlib
import statistics

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from renalkit.errors import ModelRefused
from renalkit.learn.nets.repvgg import (
    Layout,
    RepVGG,
    RepVGGBlock,
    RepVGGPlan,
    published_names,
)
from renalkit.learn.nets.spec import NetSpec

torch.set_num_threads(1)
SPEC = NetSpec(3, 64, 2, segments=False, classifies=True, multiple=1)
NARROW = RepVGGPlan(width=0.125)


def shaken(module, seed=0):
    """Running statistics and scales as after a training: fresh ones hide mistakes."""
    source = torch.Generator().manual_seed(seed)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            with torch.no_grad():
                for tensor, low, high in (
                    (norm.running_mean, -0.5, 0.5),
                    (norm.running_var, 0.3, 2.0),
                    (norm.weight, 0.5, 1.5),
                    (norm.bias, -0.5, 0.5),
                ):
                    tensor.copy_(torch.rand(tensor.shape, generator=source) * (high - low) + low)
    return module


def net(plan=NARROW, spec=SPEC, seed=0):
    torch.manual_seed(seed)
    return shaken(RepVGG(spec, "CEUS", plan)).eval()


def logits(model, image):
    with torch.no_grad():
        return model(image).class_logits


def both_forms(model, image):
    before = logits(model, image)
    found = model.deploy()
    after = logits(model, image)
    return before, after, found


def test_float64_agrees_to_1e_10():
    before, after, found = both_forms(net().double(), torch.rand(8, 3, 64, 64, dtype=torch.float64))
    assert float((after - before).abs().max()) <= 1e-10
    assert found.largest_difference <= 1e-10


def test_a0_in_float32_agrees_to_1e_5_of_the_largest_logit_on_100_images():
    source = torch.Generator().manual_seed(3)
    images = torch.rand(100, 3, 32, 32, generator=source)
    images[0] = 0
    spec = NetSpec(3, 32, 2, segments=False, classifies=True, multiple=1)
    before, after, found = both_forms(net(RepVGGPlan(), spec), images)
    assert float((after - before).abs().max() / before.abs().max()) <= 1e-5
    assert torch.equal(after.argmax(1), before.argmax(1))
    torch.testing.assert_close(torch.softmax(after, 1), torch.softmax(before, 1), rtol=0, atol=1e-5)
    assert found.largest_difference <= 1e-5 * found.largest_logit


@pytest.mark.parametrize(("side", "n"), [(33, 1), (50, 3), (64, 8)])
def test_odd_sides_and_batches(side, n):
    spec = NetSpec(1, side, 3, segments=False, classifies=True, multiple=1)
    before, after, _ = both_forms(net(spec=spec), torch.rand(n, 1, side, side))
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("stride", "out"), [(1, 8), (2, 8), (1, 12)])
def test_blocks_with_and_without_identity(stride, out):
    torch.manual_seed(0)
    block = shaken(RepVGGBlock(8, out, stride)).double().eval()
    assert (block.rbr_identity is not None) == (stride == 1 and out == 8)
    given = torch.randn(2, 8, 9, 9, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(block.merged()(given), block(given), rtol=0, atol=1e-12)


def test_training_mode_is_refused_and_changes_nothing():
    model = net().train()
    with pytest.raises(ModelRefused, match="training mode"):
        model.deploy()
    assert not model.deployed


def test_a_second_switch_is_nothing():
    model = net()
    model.deploy()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    again = model.deploy()
    assert again.largest_difference == 0.0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert set(before) == set(model.state_dict())


def test_a_merged_network_has_one_convolution_per_block_and_keeps_its_cam_layer():
    model = net()
    model.deploy()
    assert model.deployed
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert sum(isinstance(m, nn.Conv2d) for m in model.modules()) == 22
    assert model.cam_layers() == {"CEUS": model.stage4}


def test_saved_merged_weights_load_into_the_merged_form(tmp_path):
    model = net()
    image = torch.rand(2, 3, 64, 64)
    model.deploy()
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    other = RepVGG(SPEC, "CEUS", RepVGGPlan(width=0.125, deployed=True)).eval()
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    assert torch.equal(logits(other, image), logits(model, image))


def test_lost_digits_are_refused_and_the_learning_form_stays():
    model = net()
    image = torch.rand(2, 3, 64, 64)
    # Two branches that cancel: added one after the other in float32 they lose their digits.
    block = model.stage2[0]
    with torch.no_grad():
        block.rbr_dense.bn.bias += 3e8
        block.rbr_1x1.bn.bias -= 3e8
    before = logits(model, image)
    with pytest.raises(ModelRefused, match="merged network differs"):
        model.deploy()
    assert not model.deployed
    assert torch.equal(logits(model, image), before)


def gradients(image, order, dtype):
    model = net().to(dtype).to(memory_format=order).train()
    model(image.to(dtype).contiguous(memory_format=order)).class_logits.square().sum().backward()
    return [p.grad.double() for p in model.parameters()]


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_the_order_of_channels_in_memory_changes_no_gradient(order):
    """Against float64, as a share of each largest gradient. Median of pictures: in one of twelve a
    unit lies so near its kink that rounding turns it on or off."""
    off = []
    for seed in range(5):
        image = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
        exact = gradients(image, torch.contiguous_format, torch.float64)
        found = gradients(image, order, torch.float32)
        pairs = zip(found, exact, strict=True)
        off.append(max(float((f - e).abs().max() / e.abs().max()) for f, e in pairs))
    assert statistics.median(off) < 1e-3, off


def test_plain_cam_adds_up_to_the_logits():
    model = net()
    seen = {}
    model.cam_layers()["CEUS"].register_forward_hook(lambda m, given, out: seen.update(maps=out))
    image = torch.rand(2, 3, 64, 64)
    found = logits(model, image)
    cam = torch.einsum("kn,bnyx->bkyx", model.fc.weight, seen["maps"])
    torch.testing.assert_close(cam.mean((2, 3)) + model.fc.bias, found, rtol=1e-4, atol=1e-5)


def test_the_authors_and_timms_files_fit(tmp_path):
    source = net()
    state = {n: v for n, v in source.state_dict().items() if not n.startswith("fc.")}
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = source.stage1(source.stage0(image))
    for number, head in enumerate(("linear", "head.fc")):
        path = tmp_path / f"{number}.safetensors"
        named = {published_names(name)[number]: value for name, value in state.items()}
        save_file(named | {f"{head}.weight": torch.zeros(3, 3)}, path)
        target = RepVGG(SPEC, "CEUS", NARROW).eval()
        loaded = target.start(path, hashlib.sha256(path.read_bytes()).hexdigest())
        assert loaded.left_out == (f"{head}.weight",)
        with torch.no_grad():
            assert torch.equal(target.stage1(target.stage0(image)), expected)


@pytest.mark.parametrize("layout", list(Layout))
def test_every_layout_gives_a_32nd_of_the_side(layout):
    model = net(RepVGGPlan(layout, width=0.125))
    with torch.no_grad():
        found = model.stage4(
            model.stage3(model.stage2(model.stage1(model.stage0(torch.rand(1, 3, 64, 64)))))
        )
    assert found.shape[2:] == (2, 2)
