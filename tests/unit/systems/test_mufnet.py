"""P2's and P3's own choices: what each parameter changes, and what the Cards must say."""

import hashlib
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from renalkit.domain.image import Mode
from renalkit.errors import ConfigError, ModelRefused
from renalkit.learn.complexity import complexity
from renalkit.learn.losses import cross_entropy, sigmoid_focal, softmax_focal
from renalkit.learn.nets.backbones import Backbone, BackboneStyle
from renalkit.learn.outputs import Outputs, Targets
from renalkit.systems import get_system
from renalkit.systems._contract import ClassBalance, Shape, Task

torch.set_num_threads(1)
FUSED = get_system("mufnet-2022")
SHAPE = Shape(4, 32, 2, (Mode.B, Mode.CEUS))
GREY = Shape(1, 32, 2, (Mode.B,))
TASK = Task.CLASSIFICATION
SMALL = {"backbone": "efficientnet-b0", "width": 0.125}


def build(system=FUSED, shape=SHAPE, **given):
    return system.build(system.params(SMALL | given), shape, TASK)


def test_the_defaults_are_the_papers():
    params = FUSED.params()
    assert params.backbone == "efficientnet-b3"
    assert not params.share_backbone
    assert params.fusion == "adaptive"
    assert params.attention_reduction == 16
    assert params.attention_weights == "softmax"
    assert (params.fused_weight, params.branch_weight) == (1.0, 0.5)
    assert (params.gamma, params.beta, params.normalise_weights) == (2.0, 0.9999, True)
    assert params.dropout == 0.3
    assert get_system("mufnet-2025").params() == params


def test_each_parameter_reaches_the_network():
    net = build()
    assert len(net.backbones) == 2
    assert net.dropout.p == 0.3
    assert len(build(share_backbone=True).backbones) == 1
    assert build(fusion="concat").fusion.n_features == 2 * net.fusion.n_features
    assert build(fusion="gated", fusion_width=24).fusion.n_features == 24
    assert build(fusion="cross_attention", fusion_width=24).fusion.n_features == 48
    n = net.fusion.n_features
    assert net.fusion.score[0].out_features == n // 16
    assert build(attention_reduction=4).fusion.score[0].out_features == n // 4
    assert build(attention_per_channel=True).fusion.score[2].out_features == n
    assert build(attention_weights="sigmoid").fusion.independent
    assert net.fusion.score[2].bias is None
    assert build(dropout=0.1).dropout.p == 0.1


@pytest.mark.parametrize(
    "wrong",
    [
        {"backbone": "resnet34"},
        {"fusion": "sum"},
        {"beta": 1.0},
        {"gamma": -1},
        {"fusion_width": 10},
        {"head": "poisson"},
        {"init_weights": "w.pth"},
        {"init_sha256": "0" * 64},
        {"init_weights": "w.pth", "init_sha256": "0" * 64, "width": 0.5},
    ],
)
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(ValidationError):
        FUSED.params(wrong)


def test_wrong_modalities_are_named():
    with pytest.raises(
        ConfigError, match="modalities CEUS, B with 4 channels; expected B and CEUS"
    ):
        build(shape=Shape(4, 32, 2, (Mode.CEUS, Mode.B)))
    with pytest.raises(ConfigError, match="expected one modality, grey or colour"):
        build(get_system("bmode-net"), SHAPE)


def targets(label):
    n = len(label)
    return Targets(torch.zeros(n, 1, 1, 1), torch.ones(n, dtype=torch.bool), torch.tensor(label))


def loss_of(system, logits, label, balance, **given):
    return float(
        system.loss(system.params(given), TASK, balance)(Outputs(None, logits), label).total
    )


def test_the_loss_is_what_the_parameters_say():
    single = get_system("ceus-net")
    logits = torch.tensor([[0.3, -0.2], [1.0, 0.5], [-0.4, 0.9]])
    label = targets([0, 1, 1])
    balance = ClassBalance((3659, 6135))
    weights = torch.tensor([1.198853, 0.801147])[label.label]
    focal = sigmoid_focal(logits, label.label, 2.0)
    assert loss_of(single, logits, label, balance) == pytest.approx(
        float((weights * focal).mean()), rel=1e-5
    )
    soft = softmax_focal(logits, label.label, 1.0)
    assert loss_of(single, logits, label, balance, focal="softmax", gamma=1.0) == pytest.approx(
        float((weights * soft).mean()), rel=1e-5
    )
    assert loss_of(single, logits, label, balance, beta=0) == pytest.approx(float(focal.mean()))
    raw = loss_of(single, logits, label, balance, normalise_weights=False)
    scale = 1e-4 / (1 - 0.9999**3659) / 1.198853
    assert raw == pytest.approx(float((weights * focal).mean()) * scale, rel=1e-4)
    asked = ClassBalance((3659, 6135), (0.5, 1.5))
    expected = (torch.tensor([0.5, 1.5, 1.5]) * focal).mean()
    assert loss_of(single, logits, label, asked) == pytest.approx(float(expected), rel=1e-6)


def test_p4_learns_by_class_balanced_cross_entropy():
    system = get_system("repvgg-ceus")
    logits = torch.tensor([[0.3, -0.2], [1.0, 0.5], [-0.4, 0.9]])
    label = targets([0, 1, 1])
    plain = loss_of(system, logits, label, ClassBalance((10, 10)))
    assert plain == pytest.approx(float(cross_entropy(logits, label.label)), rel=1e-6)
    heavy = loss_of(system, logits, label, ClassBalance((10, 90)))
    assert heavy != pytest.approx(plain, rel=1e-2)


def test_imagenet_weights_start_every_backbone(tmp_path):
    torch.manual_seed(3)
    source = Backbone("efficientnet-b0", BackboneStyle(32))
    path = tmp_path / "b0.safetensors"
    save_file(source.body.state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    start = {"init_weights": path, "init_sha256": digest, "width": 1.0}
    for share in (False, True):
        for backbone in build(share_backbone=share, **start).backbones:
            assert torch.equal(backbone.body._conv_stem.weight, source.body._conv_stem.weight)
    net = build(get_system("bmode-net"), GREY, **start)
    assert torch.equal(net.backbone.body._bn1.weight, source.body._bn1.weight)
    with pytest.raises(ModelRefused, match="sha256"):
        build(**(start | {"init_sha256": "0" * 64}))


def test_b0_needs_the_published_operations_and_a_fused_network_twice_as_many():
    # Tan and Le 2019, table 2: 0.39 billion multiply-accumulates for B0 at 224 pixels.
    given = {"width": 1.0, "backbone": "efficientnet-b0"}
    one = complexity(build(get_system("bmode-net"), replace(GREY, size=224), **given), 1, 224)
    assert one.macs == pytest.approx(0.39e9, rel=0.03)
    for share in (False, True):
        net = build(shape=replace(SHAPE, size=224), share_backbone=share, **given)
        assert complexity(net, 4, 224).macs == pytest.approx(2 * one.macs, rel=0.01)


def claims(name):
    return {
        (c.metric, c.where.partition(",")[0]): (c.value, c.low, c.high)
        for c in get_system(name).card.claims
    }


def test_cards_quote_the_papers():
    fused = claims("mufnet-2022")
    assert fused["auc", "P2"] == (0.877, 0.83, 0.93)
    assert fused["npv", "P2"] == (0.700, None, None)
    assert fused["auc of junior readers", "P2"] == (0.740, 0.70, 0.75)
    assert fused["icc of senior readers", "P2"] == (0.83, None, None)
    assert len(fused) == 6 + 2 * 7
    assert claims("mufnet-2025")["auc", "P3"] == (0.909, 0.829, 0.990)
    assert claims("bmode-net")["auc", "P2"][0] == 0.820
    assert claims("bmode-net")["sensitivity", "P3"] == (0.778, 0.596, 0.960)
    assert claims("ceus-net")["sensitivity", "P3"] == (0.802, 0.645, 0.958)
    assert claims("ceus-net")["auc", "P2"] == (0.815, 0.75, 0.89)
    for name in ("mufnet-2022", "mufnet-2025", "bmode-net", "ceus-net", "repvgg-ceus"):
        for claim in get_system(name).card.claims:
            assert claim.unit.startswith("not stated ("), claim
            assert claim.task == "classification"


def test_cards_name_the_contradictions():
    words = {
        name: " ".join(
            f"{c.topic} {c.paper_says} {c.chosen}" for c in get_system(name).card.open_choices
        )
        for name in ("mufnet-2022", "mufnet-2025", "bmode-net", "ceus-net")
    }
    assert "0.39" in words["mufnet-2022"]
    assert "one operating point" in words["mufnet-2022"]
    assert "selection on the test part" in words["mufnet-2025"]
    assert "swaps the sensitivities" in words["mufnet-2025"]
    assert "two shared-weight" in words["mufnet-2025"]
    assert "80/20 hold-out" in words["mufnet-2025"]
    assert "74.5 %" in words["bmode-net"]
    assert "0.70 to 0.83" in words["bmode-net"]
