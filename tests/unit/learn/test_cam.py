"""Activation maps: closed forms, signs, modalities, and that nothing stays behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from renalkit.domain.sample import SampleKey
from renalkit.errors import ModelRefused
from renalkit.learn.cam import activation_maps, randomised
from renalkit.learn.outputs import FeatureNet, Guide, Net, Outputs
from renalkit.learn.prepared import Inputs, PreparedSet
from renalkit.systems import get_system
from renalkit.systems._contract import Shape, Task
from renalkit.transforms.preprocess import Placement

N, SIDE = 6, 16
TARGETS = np.array([0, 1, 2, 0, 1, 2])


def pictures(channels: int = 1, modalities: int = 1, n_features: int = 0) -> PreparedSet:
    rng = np.random.default_rng(1)
    return PreparedSet(
        images=rng.integers(0, 256, (N, channels, SIDE, SIDE)).astype(np.uint8),
        masks=np.zeros((N, 1, SIDE, SIDE), np.uint8),
        has_mask=np.zeros(N, np.bool_),
        labels=np.zeros(N, np.int64),
        levels=np.tile(np.array([0.0, 1.0], np.float32), (N, channels, 1)),
        placements=(Placement.fit((SIDE, SIDE), SIDE),) * N,
        keys=tuple(SampleKey(f"p{i}", f"s{i}", "", 0, 0) for i in range(N)),
        present=np.ones((N, modalities), np.bool_),
        features=rng.normal(size=(N, n_features)).astype(np.float32),
    )


class Pooled(Net):
    """Convolutions, mean over places, one linear layer: the network CAM is defined for."""

    def __init__(self, n_logits: int = 3, in_place: bool = False) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.body = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=in_place)
        )
        self.top = nn.Conv2d(8, 5, 3, stride=2, padding=1)
        self.in_place = in_place
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(5, n_logits)

    def forward(self, image: Tensor, guide: Guide | None = None) -> Outputs:
        features = self.top(self.body(image))
        if self.in_place:
            features = F.relu(features, inplace=True)
        return Outputs(None, self.fc(self.drop(features.mean((2, 3)))))

    def cam_layers(self) -> Mapping[str, nn.Module]:
        return {"B": self.top}


class Fused(FeatureNet):
    """Two branches with weights that sum to one, heads of their own and numbers beside."""

    def __init__(self, share: bool = False, fusion: str = "adaptive", n_features: int = 0) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.grey = nn.Conv2d(3, 5, 3, stride=4, padding=1)
        self.tinted = self.grey if share else nn.Conv2d(3, 5, 3, stride=4, padding=1)
        self.attention = nn.Linear(5, 1, bias=False)
        self.fusion = fusion
        self.fc = nn.Linear((10 if fusion == "concat" else 5) + n_features, 3)
        self.heads = nn.ModuleList(nn.Linear(5, 3) for _ in range(2))

    def forward(
        self, image: Tensor, guide: Guide | None = None, features: Tensor | None = None
    ) -> Outputs:
        maps = self.grey(image[:, :1].expand(-1, 3, -1, -1)), self.tinted(image[:, 1:])
        pooled = [F.silu(m).mean((2, 3)) if self.fusion == "bent" else m.mean((2, 3)) for m in maps]
        weights = torch.softmax(torch.cat([self.attention(p) for p in pooled], 1), 1)
        if self.fusion == "concat":
            joined = torch.cat(pooled, 1)
        else:
            joined = sum(w[:, None] * p for w, p in zip(weights.unbind(1), pooled, strict=True))
        if features is not None:
            joined = torch.cat((joined, features), 1)
        branches = torch.stack([h(p) for h, p in zip(self.heads, pooled, strict=True)], 1)
        shown = None if self.fusion == "concat" else weights
        return Outputs(None, self.fc(joined), branch_logits=branches, modality_weights=shown)

    def cam_layers(self) -> Mapping[str, nn.Module]:
        return {"B": self.grey, "CEUS": self.tinted}


def explained(net: Net, data: PreparedSet, method: str = "grad-cam", **more: object):
    return activation_maps(net, data, TARGETS, method, device="cpu", **more)


def features_of(net: Pooled, data: PreparedSet) -> Tensor:
    net.eval()
    with torch.no_grad():
        image = torch.from_numpy(np.stack([data.network_input(i) for i in range(N)]))
        return net.top(net.body(image))


def test_cam_is_the_weights_of_the_class_times_the_feature_maps():
    net, data = Pooled(), pictures()
    wanted = torch.einsum("bn,bnyx->byx", net.fc.weight[TARGETS], features_of(net, data))
    found = explained(net, data, "cam")
    np.testing.assert_allclose(found.signed["B"], wanted.detach(), rtol=1e-5, atol=1e-6)


def test_the_mean_of_cam_and_the_bias_make_the_logit():
    net, data = Pooled(), pictures()
    found = explained(net, data, "cam")
    bias = net.fc.bias.detach().numpy()[TARGETS]
    np.testing.assert_allclose(found.signed["B"].mean((1, 2)) + bias, found.logits, atol=1e-5)


def test_grad_cam_of_a_linear_network_is_cam_up_to_the_number_of_places():
    net, data = Pooled(), pictures()
    cam, grad = explained(net, data, "cam").signed["B"], explained(net, data).signed["B"]
    np.testing.assert_allclose(grad * cam[0].size, cam, rtol=1e-4, atol=1e-6)


def test_grad_cam_plus_plus_follows_its_equation():
    net, data = Pooled(in_place=True), pictures()
    maps = F.relu(features_of(net, data)).detach()
    slope = (net.fc.weight[TARGETS] / maps[0, 0].numel())[:, :, None, None].expand_as(maps)
    a = slope**2 / (2 * slope**2 + maps.sum((2, 3), keepdim=True) * slope**3)
    wanted = ((a * F.relu(slope)).sum((2, 3), keepdim=True) * maps).sum(1)
    net.cam_layers = lambda: {"B": net.last}
    net.last = nn.Identity()
    net.forward = lambda image, guide=None: Outputs(
        None, net.fc(net.last(F.relu(net.top(net.body(image)))).mean((2, 3)))
    )
    found = explained(net, data, "grad-cam++").signed["B"]
    np.testing.assert_allclose(found, wanted.detach(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("method", ["cam", "grad-cam", "grad-cam++"])
def test_what_speaks_against_the_class_is_cut_and_what_speaks_for_it_stays(method: str):
    net = Pooled()
    with torch.no_grad():
        net.fc.weight[:] = torch.tensor([[1.0], [-1.0], [0.0]])
        net.top.weight.abs_()
        net.top.bias.zero_()
    found = explained(net, pictures(), method)
    assert (found.maps["B"] >= 0).all()
    assert (found.maps["B"][TARGETS == 0].sum((1, 2)) > 0).all()
    assert not found.maps["B"][TARGETS > 0].any()


def test_maps_lie_on_the_input_grid():
    found = explained(Pooled(), pictures())
    assert found.maps["B"].shape == (N, SIDE, SIDE)
    assert found.maps["B"].dtype == np.float32
    assert found.signed["B"].shape == (N, 4, 4)


def test_a_bright_place_is_found_where_it_is():
    net, data = Pooled(), pictures()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.abs_()
    images = np.zeros_like(data.images)
    images[:, :, 1:5, 10:14] = 255
    found = explained(net, replace(data, images=images)).maps["B"]
    rows, columns = np.unravel_index(found.reshape(N, -1).argmax(1), (SIDE, SIDE))
    assert ((rows < 8) & (columns >= 8)).all()


@pytest.mark.parametrize("method", ["cam", "grad-cam", "grad-cam++"])
@pytest.mark.parametrize("share", [False, True])
def test_maps_do_not_depend_on_order_and_size_of_batches(method: str, share: bool):
    net, data = Fused(share), pictures(4, 2)
    order = np.array([4, 0, 5, 2, 1, 3])
    whole = explained(net, data, method)
    mixed = activation_maps(net, data.take(order), TARGETS[order], method, 2, device="cpu")
    for name in ("B", "CEUS"):
        np.testing.assert_allclose(mixed.maps[name], whole.maps[name][order], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("share", [False, True])
def test_cam_of_a_fused_network_has_the_weight_of_its_modality(share: bool):
    net, data = Fused(share), pictures(4, 2)
    found = explained(net, data, "cam")
    image = torch.from_numpy(np.stack([data.network_input(i) for i in range(N)]))
    with torch.no_grad():
        counts = net.eval()(image).modality_weights.numpy()
        grey = net.grey(image[:, :1].expand(-1, 3, -1, -1))
        tinted = net.tinted(image[:, 1:])
    weight = net.fc.weight.detach()[TARGETS]
    for place, (name, maps) in enumerate((("B", grey), ("CEUS", tinted))):
        wanted = torch.einsum("bn,bnyx->byx", weight, maps).numpy() * counts[:, place, None, None]
        np.testing.assert_allclose(found.signed[name], wanted, rtol=1e-4, atol=1e-6)
    both = sum(found.signed[n].mean((1, 2)) for n in ("B", "CEUS"))
    bias = net.fc.bias.detach().numpy()[TARGETS]
    np.testing.assert_allclose(both + bias, found.logits, rtol=1e-4, atol=1e-5)


def test_two_branches_joined_side_by_side_have_a_cam():
    net, data = Fused(fusion="concat"), pictures(4, 2)
    found = explained(net, data, "cam")
    both = sum(found.signed[n].mean((1, 2)) for n in ("B", "CEUS"))
    bias = net.fc.bias.detach().numpy()[TARGETS]
    np.testing.assert_allclose(both + bias, found.logits, rtol=1e-4, atol=1e-5)


def test_branches_that_share_a_backbone_get_the_map_of_their_own_picture():
    net, data = Fused(share=True), pictures(4, 2)
    images = np.array(data.images)
    images[:, 1:] = images[:, :1]
    same = explained(net, replace(data, images=images), "cam").signed
    ratio = same["B"] / same["CEUS"]
    np.testing.assert_allclose(ratio, ratio[:, :1, :1] * np.ones_like(ratio), rtol=1e-2)
    images[:, 1:] = 0
    dark = explained(net, replace(data, images=images), "cam").signed
    assert (np.ptp(dark["CEUS"][:, 1:, 1:], axis=(1, 2)) < 1e-6).all()
    assert (np.ptp(dark["B"][:, 1:, 1:], axis=(1, 2)) > 1e-3).all()


def test_one_call_with_both_modalities_one_after_the_other_is_told_apart():
    class Stacked(Fused):
        def forward(
            self, image: Tensor, guide: Guide | None = None, features: Tensor | None = None
        ) -> Outputs:
            both = torch.cat((image[:, :1].expand(-1, 3, -1, -1), image[:, 1:]))
            grey, tinted = self.grey(both).mean((2, 3)).chunk(2)
            return Outputs(None, self.fc(0.5 * grey + 0.5 * tinted))

    class Twice(Fused):
        def forward(
            self, image: Tensor, guide: Guide | None = None, features: Tensor | None = None
        ) -> Outputs:
            grey = self.grey(image[:, :1].expand(-1, 3, -1, -1)).mean((2, 3))
            return Outputs(None, self.fc(0.5 * grey + 0.5 * self.grey(image[:, 1:]).mean((2, 3))))

    data = pictures(4, 2)
    once, twice = explained(Stacked(share=True), data), explained(Twice(share=True), data)
    for name in ("B", "CEUS"):
        np.testing.assert_allclose(once.maps[name], twice.maps[name], rtol=1e-5, atol=1e-7)


def test_a_missing_modality_has_no_map_and_the_other_explains_its_own_head():
    net, data = Fused(), pictures(4, 2)
    present = np.array(data.present)
    present[2, 1] = False
    images = np.array(data.images)
    images[2, 1:] = 0
    partial = replace(data, images=images, present=present)
    found = explained(net, partial)
    assert not found.signed["CEUS"][2].any()
    with torch.no_grad():
        head = net.eval()(torch.from_numpy(partial.network_input(2))[None]).branch_logits
    assert found.logits[2] == pytest.approx(float(head[0, 0, TARGETS[2]]), abs=1e-6)
    with pytest.raises(ModelRefused, match="every modality being there"):
        explained(net, partial, "cam")


def test_numbers_beside_the_picture_reach_the_network():
    data = pictures(4, 2, n_features=2)
    net = Fused(n_features=2)
    first = explained(net, data).logits
    second = explained(net, replace(data, features=data.features + 1)).logits
    assert (first != second).all()
    with pytest.raises(ModelRefused, match="no linear function"):
        explained(net, data, "cam")


def test_cam_is_refused_where_class_scores_are_no_linear_function_of_the_maps():
    with pytest.raises(ModelRefused, match="use the method grad-cam"):
        explained(Fused(fusion="bent"), pictures(4, 2), "cam")


def test_a_step_in_place_behind_the_layer_changes_nothing():
    net, data = Pooled(in_place=True), pictures()
    seen = explained(net, data).signed["B"]
    with torch.enable_grad():
        maps = features_of(net, data).requires_grad_(True)
        logit = net.fc(F.relu(maps).mean((2, 3)))[torch.arange(N), TARGETS]
        slopes = torch.autograd.grad(logit.sum(), maps)[0]
    wanted = (slopes.mean((2, 3), keepdim=True) * maps).sum(1).detach()
    np.testing.assert_allclose(seen, wanted, rtol=1e-4, atol=1e-7)


def test_hooks_mode_and_gradients_are_as_before_also_after_a_failure():
    class Failing(Pooled):
        def forward(self, image: Tensor, guide: Guide | None = None) -> Outputs:
            super().forward(image)
            raise RuntimeError("stop")

    for net in (Pooled(), Failing()):
        net.fc.weight.requires_grad_(False)
        net.train()
        for method in ("cam", "grad-cam"):
            try:
                explained(net, pictures(), method)
            except RuntimeError:
                assert isinstance(net, Failing)
        assert not any(m._forward_hooks for m in net.modules())
        assert all(m.training for m in net.modules())
        wants = {n: p.requires_grad for n, p in net.named_parameters()}
        assert not wants.pop("fc.weight")
        assert all(wants.values())


def test_inference_mode_around_does_not_matter():
    net, data = Pooled(), pictures()
    wanted = explained(net, data).maps["B"]
    with torch.inference_mode():
        np.testing.assert_array_equal(explained(net, data).maps["B"], wanted)


def test_what_cannot_be_explained_is_refused():
    data = pictures()
    nowhere, wild = Pooled(), Pooled()
    nowhere.cam_layers = dict
    with pytest.raises(ModelRefused, match="no layer to make a map of"):
        explained(nowhere, data)
    wild.top.weight.data[:] = torch.nan
    with pytest.raises(ModelRefused, match="NaN or infinite"):
        explained(wild, data)
    unused = Pooled()
    unused.cam_layers = lambda: {"B": nn.Conv2d(1, 1, 1)}
    with pytest.raises(ModelRefused, match="0 feature maps"):
        explained(unused, data)
    flat = Pooled()
    flat.cam_layers = lambda: {"B": flat.fc}
    with pytest.raises(ModelRefused, match="gives no feature maps"):
        explained(flat, data)
    for targets in (TARGETS[:2], TARGETS + 1, TARGETS - 1):
        with pytest.raises(ValueError, match="target"):
            activation_maps(Pooled(), data, targets, device="cpu")


def test_a_randomised_network_has_other_weights_and_settled_statistics():
    def build() -> Net:
        net = Pooled()
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.reset_parameters()
        return net

    net, data = Pooled(), pictures()
    before = {n: v.clone() for n, v in net.state_dict().items()}
    first, again = (randomised(net, build, data, seed) for seed in (1, 1))
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert not torch.equal(first.fc.weight, net.fc.weight)
    assert not torch.equal(first.body[1].running_mean, net.body[1].running_mean)
    assert not first.training
    with pytest.raises(ModelRefused, match="another architecture"):
        randomised(net, lambda: Pooled(n_logits=2), data, 1)


NARROW = {"width": 0.125}
EXACT = ("resnet18", "multitask-us", "bmode-net", "ceus-net", "mufnet-2022", "repvgg-ceus")
"""Systems whose scores are linear in the mean over places: their CAM makes the logit."""


def built(name: str, **params: object) -> tuple[Net, PreparedSet]:
    """A narrow network of a system and pictures of the modalities it takes."""
    system = get_system(name)
    given = NARROW | params
    if "backbone" in system.params_type.model_fields:
        given = {"backbone": "efficientnet-b0", "norm_momentum": 0.9} | given
    inputs = Inputs(system.takes[0])
    shape = Shape(inputs.channels, 64, 3, inputs.modalities)
    torch.manual_seed(5)
    net = system.build(system.params(given), shape, Task.CLASSIFICATION)
    small = pictures(inputs.channels, len(inputs.modalities))
    images = np.random.default_rng(2).integers(0, 256, (N, inputs.channels, 64, 64))
    with torch.no_grad():  # statistics of normalisation that let something through
        net.train()(torch.from_numpy(images).float() / 255)
    placements = (Placement.fit((64, 64), 64),) * N
    return net, replace(small, images=images.astype(np.uint8), placements=placements)


@pytest.mark.parametrize("name", EXACT)
def test_the_cam_of_a_system_makes_its_logit(name: str):
    net, data = built(name)
    found, slopes = explained(net, data, "cam"), explained(net, data)
    head = net.classification.fc if name == "multitask-us" else net.fc
    both = sum(m.mean((1, 2)) for m in found.signed.values())
    bias = head.bias.detach().numpy()[TARGETS]
    np.testing.assert_allclose(both + bias, found.logits, rtol=1e-3, atol=1e-4)
    assert set(found.maps) in ({"picture"}, {"B"}, {"CEUS"}, {"B", "CEUS"})
    for key, values in found.signed.items():
        assert found.maps[key].shape == (N, 64, 64)
        assert slopes.signed[key].shape == values.shape
        if len(found.maps) == 1:  # in a fused network the weights depend on the maps as well
            places = values[0].size
            np.testing.assert_allclose(slopes.signed[key] * places, values, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("fusion", ["adaptive", "concat", "gated", "cross_attention"])
@pytest.mark.parametrize("share", [False, True])
def test_every_fusion_has_a_map_per_modality(fusion: str, share: bool):
    net, data = built("mufnet-2025", fusion=fusion, share_backbone=share, fusion_width=16)
    found = explained(net, data, "grad-cam++")
    assert list(found.signed) == ["B", "CEUS"]
    assert not np.allclose(found.signed["B"], found.signed["CEUS"])
    if fusion in ("gated", "cross_attention"):
        with pytest.raises(ModelRefused, match="use the method grad-cam"):
            explained(net, data, "cam")


def test_ordered_classes_are_explained_by_their_log_probability():
    net, data = built("ceus-net", head="ordinal")
    found = explained(net, data)
    assert (found.logits < 0).all()
    with pytest.raises(ModelRefused, match="use the method grad-cam"):
        explained(net, data, "cam")


def test_a_classifier_that_sees_a_crop_has_no_map_on_the_image():
    system = get_system("multitask-us")
    params = system.params(NARROW | {"coupling": "mask_crop"})
    assert not system.build(params, Shape(1, 64, 2), Task.BOTH).cam_layers()
    assert system.build(params, Shape(1, 64, 2), Task.CLASSIFICATION).cam_layers()
    assert not system.build(params, Shape(1, 64, 2), Task.SEGMENTATION).cam_layers()
