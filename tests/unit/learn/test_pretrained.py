"""Weights from outside: taken whole and checked, or refused with the network unchanged."""

import hashlib
import os
import pickle
from random import Random

import pytest
import torch
from safetensors.torch import save_file

from renalkit.errors import ModelRefused
from renalkit.learn.nets.resnet import Layout, ResNet, ResNetPlan
from renalkit.learn.nets.spec import NetSpec
from renalkit.learn.nets.unet import TernausNet, UNetPlan
from renalkit.learn.pretrained import fit_first_convolution, load_encoder, read_weights

torch.set_num_threads(1)
NARROW = ResNetPlan(Layout.RESNET18, width=0.125)


def net(channels=3, plan=NARROW, *, segments=False):
    spec = NetSpec(channels=channels, size=64, n_classes=2, segments=segments, classifies=True)
    return ResNet(spec, plan)


def foreign(source):
    """The state dict another library would have saved for 1000 classes."""
    state = {
        name: value
        for name, value in source.state_dict().items()
        if not name.startswith(("fc.", "decoder."))
    }
    width = state["layer4.1.bn2.weight"].shape[0]
    return state | {"fc.weight": torch.randn(1000, width), "fc.bias": torch.randn(1000)}


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def source():
    torch.manual_seed(0)
    return net()


@pytest.mark.parametrize("ending", [".safetensors", ".pth", ".pt"])
def test_all_encoder_tensors_are_taken_and_the_head_is_not(tmp_path, source, ending):
    path = tmp_path / f"weights{ending}"
    state = foreign(source)
    save_file(state, path) if ending == ".safetensors" else torch.save(state, path)
    target = net(segments=True)
    head = target.fc.weight.clone()
    decoder = target.decoder.head.weight.clone()
    loaded = load_encoder(target, path, digest(path), first_conv="conv1")
    assert loaded.n_tensors == len(state) - 2
    assert loaded.left_out == ("fc.bias", "fc.weight")
    assert loaded.first_convolution == "as is"
    for name, value in target.state_dict().items():
        if not name.startswith(("fc.", "decoder.")):
            assert torch.equal(value, state[name]), name
    assert torch.equal(target.fc.weight, head)
    assert torch.equal(target.decoder.head.weight, decoder)


def test_wrappers_and_prefixes_are_taken_off(tmp_path, source):
    path = tmp_path / "weights.pth"
    state = {f"module.{name}": value for name, value in foreign(source).items()}
    torch.save({"state_dict": state}, path)
    target = net()
    load_encoder(target, path, digest(path), first_conv="conv1")
    assert torch.equal(target.conv1.weight, source.conv1.weight)


def test_files_without_batch_counters_are_taken(tmp_path, source):
    path = tmp_path / "old.safetensors"
    state = {n: v for n, v in foreign(source).items() if "num_batches" not in n}
    save_file(state, path)
    load_encoder(net(), path, digest(path), first_conv="conv1")


def test_a_grey_image_gives_what_three_equal_channels_gave(tmp_path, source):
    path = tmp_path / "weights.safetensors"
    save_file(foreign(source), path)
    grey = net(channels=1).eval()
    assert load_encoder(grey, path, digest(path), first_conv="conv1").first_convolution.startswith(
        "sum"
    )
    image = torch.rand(2, 1, 64, 64)
    torch.testing.assert_close(
        grey.conv1(image), source.conv1(image.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5
    )


def test_a_fourth_channel_gets_the_mean_over_rgb():
    weight = torch.randn(5, 3, 7, 7)
    fitted, how = fit_first_convolution(weight, 4)
    assert torch.equal(fitted[:, :3], weight)
    torch.testing.assert_close(fitted[:, 3], weight.mean(1))
    assert "mean" in how
    assert torch.equal(fit_first_convolution(weight, 3)[0], weight)
    with pytest.raises(ModelRefused, match="2 input channels"):
        fit_first_convolution(weight, 2)


def test_ternausnet_takes_vgg11(tmp_path):
    plan = UNetPlan(width=0.125)
    spec = NetSpec(channels=3, size=64)
    source = TernausNet(spec, plan)
    state = {n: v for n, v in source.state_dict().items() if n.startswith("features.")}
    state |= {"classifier.0.weight": torch.zeros(4, 4), "classifier.0.bias": torch.zeros(4)}
    path = tmp_path / "vgg11.safetensors"
    save_file(state, path)
    target = TernausNet(NetSpec(channels=1, size=64), plan)
    loaded = load_encoder(target, path, digest(path), first_conv="features.0")
    assert loaded.n_tensors == 16
    assert torch.equal(target.features[18].weight, source.features[18].weight)


def corrupt(state, how):
    if how == "missing":
        del state["layer1.0.conv1.weight"]
    elif how == "unexpected":
        state["layer9.weight"] = torch.zeros(1)
    elif how == "shape":
        state["layer1.0.conv1.weight"] = torch.zeros(3, 3)
    elif how == "nan":
        state["bn1.weight"][0] = float("nan")
    elif how == "inf":
        state["layer4.0.bn1.running_var"][0] = float("inf")
    return state


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("missing", "missing: layer1.0.conv1.weight"),
        ("unexpected", "unexpected: layer9.weight"),
        ("shape", r"wrong shapes: layer1.0.conv1.weight \(3, 3\) instead of"),
        ("nan", "NaN or infinite weights: bn1.weight"),
        ("inf", "running_var"),
    ],
)
def test_what_does_not_fit_is_named_and_leaves_the_network_alone(tmp_path, source, how, words):
    path = tmp_path / "weights.safetensors"
    state = {name: value.clone() for name, value in foreign(source).items()}
    save_file(corrupt(state, how), path)
    target = net()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    with pytest.raises(ModelRefused, match=words):
        load_encoder(target, path, digest(path), first_conv="conv1")
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())


def test_another_architecture_is_refused_with_both_lists(tmp_path, source):
    path = tmp_path / "weights.safetensors"
    save_file(foreign(source), path)
    other = net(plan=ResNetPlan(Layout.RESNEXT50, width=0.125))
    with pytest.raises(ModelRefused, match="missing: .* and .* more"):
        load_encoder(other, path, digest(path), first_conv="conv1")


def test_the_digest_is_checked_before_anything_is_parsed(tmp_path):
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "pwned"),)

    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps(Payload()))
    with pytest.raises(ModelRefused, match="sha256"):
        read_weights(path, "0" * 64)
    # even with the right digest nothing of a pickle is run
    with pytest.raises(ModelRefused, match="not a readable weight file"):
        read_weights(path, digest(path))
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_garbage_and_truncated_files_are_refused(tmp_path, source, ending):
    whole = tmp_path / f"whole{ending}"
    state = foreign(source)
    save_file(state, whole) if ending == ".safetensors" else torch.save(state, whole)
    content = whole.read_bytes()
    for i, part in enumerate((b"", b"\x00" * 64, b"hello", content[:100], content[:-5000])):
        path = tmp_path / f"part{i}{ending}"
        path.write_bytes(part)
        with pytest.raises(ModelRefused, match=f"part{i}"):
            read_weights(path, digest(path))


def test_flipped_bytes_end_in_a_refusal_or_in_finite_tensors(tmp_path):
    whole = tmp_path / "whole.pth"
    torch.save({"a.weight": torch.ones(3, 3), "b.bias": torch.zeros(2)}, whole)
    content = whole.read_bytes()
    random = Random(7)
    outcomes = set()
    for number in range(300):
        damaged = bytearray(content)
        damaged[random.randrange(len(damaged))] ^= 1 << random.randrange(8)
        path = tmp_path / f"{number % 2}.pth"
        path.write_bytes(damaged)
        try:
            tensors = read_weights(path, digest(path))
            outcomes.add("read")
            assert all(bool(torch.isfinite(value).all()) for value in tensors.values())
        except ModelRefused:
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}


def test_things_that_are_not_tensors_are_refused(tmp_path):
    for i, content in enumerate(({"epoch": 3}, [1, 2], {}, torch.zeros(2))):
        path = tmp_path / f"{i}.pth"
        torch.save(content, path)
        with pytest.raises(ModelRefused, match=r"tensor"):
            read_weights(path, digest(path))


def test_unknown_endings_and_missing_files_are_refused(tmp_path):
    path = tmp_path / "weights.bin"
    path.write_bytes(b"x")
    with pytest.raises(ModelRefused, match="file ending"):
        read_weights(path, digest(path))
    with pytest.raises(ModelRefused, match="cannot read the weights"):
        read_weights(tmp_path / "none.pth", "0" * 64)
