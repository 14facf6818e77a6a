"""Starting from an earlier network: the same weights bit for bit, heads and statistics left out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from renalkit.domain.image import Mode
from renalkit.errors import ModelRefused
from renalkit.learn.outputs import Net
from renalkit.learn.predictor import save_weights
from renalkit.learn.transfer import CLASS_HEADS, start_from
from renalkit.store.files import sha256_file
from renalkit.systems import SYSTEMS, get_system
from renalkit.systems._contract import Params, Shape, System, Task

torch.set_num_threads(1)
MUFNET = {"backbone": "efficientnet-b0"}
SMALL: dict[str, Mapping[str, object]] = {
    "multitask-us": {"width": 0.125, "cbam_min_hidden": 4},
    **{name: {"width": 0.125} for name in ("unet", "nested-unet", "stunet", "ternausnet")},
    **{name: {"width": 0.125} for name in ("resnet18", "resnet34", "resnext50")},
    **dict.fromkeys(("mufnet-2022", "mufnet-2025", "bmode-net", "ceus-net"), MUFNET),
}


def built(name: str, seed: int = 0, features: tuple[str, ...] = (), **params: object) -> Net:
    torch.manual_seed(seed)
    system = get_system(name)
    modalities = system.takes[0]
    channels = sum({Mode.B: 1, Mode.CEUS: 3}[m] for m in modalities)
    shape = Shape(channels, 64, 2, modalities, features)
    given = {**SMALL.get(name, {}), **params}
    return system.build(system.params(given), shape, Task.CLASSIFICATION)


def written(net: Net, folder: Path) -> tuple[Path, str]:
    path = folder / "weights.safetensors"
    save_weights(net, path)
    return path, sha256_file(path)


def test_weights_are_taken_bit_for_bit_and_class_heads_stay_as_drawn(tmp_path: Path) -> None:
    source, net = built("mufnet-2022", 1), built("mufnet-2025", 2)
    drawn = {k: v.clone() for k, v in net.state_dict().items()}
    found = start_from(net, *written(source, tmp_path), same_numbers=True)
    earlier, now = source.state_dict(), net.state_dict()
    assert all(torch.equal(now[k], earlier[k]) for k in found.taken)
    assert {k.split(".")[0] for k in found.heads} == {"fc", "branches"}
    assert all(torch.equal(now[k], drawn[k]) for k in found.heads)
    assert not torch.equal(earlier["fc.weight"], now["fc.weight"])
    assert (set(found.taken) | set(found.heads), found.unmatched) == (set(now), ())
    assert {k.split(".")[0] for k in found.taken} == {"backbones", "fusion"}
    assert found.plain["taken"] == len(found.taken)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(("single", "place"), [("bmode-net", 0), ("ceus-net", 1)])
def test_a_network_of_one_modality_takes_its_backbone_from_a_fused_one(
    single: str, place: int, shared: bool, tmp_path: Path
) -> None:
    source, net = built("mufnet-2022", 1, share_backbone=shared), built(single, 2)
    found = start_from(net, *written(source, tmp_path), same_numbers=True)
    earlier, now = source.state_dict(), net.state_dict()
    part = f"backbones.{0 if shared else place}."
    assert found.unmatched == ()
    assert {k.split(".")[0] for k in found.taken} == {"backbone"}
    assert net.taken == set(found.taken)
    for name in found.taken:
        assert torch.equal(now[name], earlier[part + name.removeprefix("backbone.")])


def test_statistics_of_numbers_are_never_taken(tmp_path: Path) -> None:
    source, net = (built("mufnet-2025", s, ("size_mm", "age_years")) for s in (1, 2))
    for n, (one, mean) in enumerate(((source, 5.0), (net, 7.0)), start=1):
        one.standardise(torch.full((2,), mean), torch.full((2,), float(n)))  # type: ignore[operator]
    path, sha256 = written(source, tmp_path)
    drawn = {k: v.clone() for k, v in net.state_dict().items()}
    found = start_from(net, path, sha256, same_numbers=False)
    assert all(n.startswith("numbers.") for n in found.numbers)
    assert all(torch.equal(net.state_dict()[k], drawn[k]) for k in found.numbers)
    found = start_from(net, path, sha256, same_numbers=True)
    assert found.numbers == ("numbers.mean", "numbers.spread")
    now = net.state_dict()
    assert now["numbers.mean"].tolist() == [7.0, 7.0]
    assert torch.equal(
        now["numbers.layers.0.weight"], source.state_dict()["numbers.layers.0.weight"]
    )


@pytest.mark.parametrize("head", ["softmax", "ordinal"])
def test_class_layers_are_taken_where_asked_for_and_their_thresholds_learn(
    head: str, tmp_path: Path
) -> None:
    source, net = (built("mufnet-2022", s, head=head) for s in (1, 2))
    found = start_from(net, *written(source, tmp_path), same_numbers=True, heads_too=True)
    earlier, now = source.state_dict(), net.state_dict()
    assert (set(found.taken), found.heads, found.unmatched) == (set(now), (), ())
    assert all(torch.equal(now[k], earlier[k]) for k in now)
    level = "cuts" if head == "ordinal" else "bias"
    assert set(found.taken) - net.taken == {
        f"{layer}.{level}" for layer in ("fc", "branches.B", "branches.CEUS")
    }


@pytest.mark.parametrize(("single", "mode"), [("bmode-net", "B"), ("ceus-net", "CEUS")])
def test_a_network_of_one_modality_takes_the_class_layer_of_that_modality(
    single: str, mode: str, tmp_path: Path
) -> None:
    source, net = built("mufnet-2022", 1), built(single, 2)
    found = start_from(net, *written(source, tmp_path), same_numbers=True, heads_too=True)
    assert found.unmatched == ()
    assert torch.equal(
        net.state_dict()["fc.weight"], source.state_dict()[f"branches.{mode}.weight"]
    )


@pytest.mark.parametrize("head", ["softmax", "ordinal"])
@pytest.mark.parametrize("width", [0, 8])
def test_what_a_class_layer_says_of_pictures_is_taken_without_numbers(
    width: int, head: str, tmp_path: Path
) -> None:
    names = ("size_mm", "age_years")
    source = built("mufnet-2022", 1, head=head)
    net = built("mufnet-2022", 2, names, number_width=width, head=head)
    drawn = net.state_dict()["fc.beside"].clone()
    path, sha256 = written(source, tmp_path)
    found = start_from(net, path, sha256, same_numbers=False, heads_too=True)
    assert torch.equal(net.state_dict()["fc.weight"], source.state_dict()["fc.weight"])
    assert torch.equal(net.state_dict()["fc.beside"], drawn)
    assert "fc.beside" in found.numbers
    assert {"fc.weight", "fc.beside"} & net.taken == {"fc.weight"}
    again = built("mufnet-2022", 3, names, number_width=width, head=head)
    start_from(again, *written(net, tmp_path), same_numbers=True, heads_too=True)
    assert torch.equal(again.state_dict()["fc.beside"], drawn)


def test_class_layers_of_another_kind_are_refused(tmp_path: Path) -> None:
    net = built("mufnet-2022", 2, head="ordinal")
    path, sha256 = written(built("mufnet-2022", 1), tmp_path)
    with pytest.raises(ModelRefused, match=r"class layers that do not fit: fc\.weight, fc\.cuts"):
        start_from(net, path, sha256, same_numbers=True, heads_too=True)


def test_what_does_not_fit_is_named_and_another_architecture_is_refused(tmp_path: Path) -> None:
    shared, net = (
        built("mufnet-2025", 1, share_backbone=True),
        built("mufnet-2025"),
    )
    found = start_from(net, *written(shared, tmp_path), same_numbers=True)
    assert {k[:12] for k in found.unmatched} == {"backbones.1."}
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(ModelRefused, match=r"0% of the weights fit \(0 of"):
        start_from(net, *written(built("bmode-net"), tmp_path), same_numbers=True)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_another_file_and_nan_are_refused(tmp_path: Path) -> None:
    net = built("resnet18")
    path, sha256 = written(built("resnet18", 1), tmp_path)
    with pytest.raises(ModelRefused, match="sha256"):
        start_from(net, path, "0" * 64, same_numbers=True)
    from safetensors.torch import load_file, save_file

    tensors: dict[str, Tensor] = load_file(path)
    tensors["conv1.weight"][0, 0, 0, 0] = torch.nan
    save_file(tensors, path)
    with pytest.raises(ModelRefused, match="sha256"):
        start_from(net, path, sha256, same_numbers=True)
    with pytest.raises(ModelRefused, match=r"NaN or infinite weights: conv1\.weight"):
        start_from(net, path, sha256_file(path), same_numbers=True)


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda s: s.name)
def test_class_heads_are_the_layers_that_know_the_number_of_classes(system: System[Params]) -> None:
    params = system.params(SMALL.get(system.name, {}))
    modalities = system.takes[0]
    channels = sum({Mode.B: 1, Mode.CEUS: 3}[m] for m in modalities)
    with torch.device("meta"):
        two, three = (
            system.build(params, Shape(channels, 64, k, modalities), Task.CLASSIFICATION)
            if Task.CLASSIFICATION in system.tasks
            else None
            for k in (2, 3)
        )
    assert two is not None
    assert three is not None
    shapes = {k: v.shape for k, v in two.state_dict().items()}
    know = {k for k, v in three.state_dict().items() if v.shape != shapes[k]}
    assert know
    assert know <= {k for k in shapes if k.startswith(CLASS_HEADS)}
