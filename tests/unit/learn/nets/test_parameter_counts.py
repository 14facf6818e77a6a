"""Parameter counts as published, or counted by hand, for every network."""

import pytest
import torch

from renalkit.learn.nets.blocks import PLAIN, BlockStyle
from renalkit.learn.nets.multitask import ATTENTION, MultitaskNet, MultitaskPlan
from renalkit.learn.nets.repvgg import BLOCKS, WIDTHS, RepVGG, RepVGGPlan
from renalkit.learn.nets.repvgg import Layout as RepLayout
from renalkit.learn.nets.resnet import Layout, ResNet, ResNetPlan
from renalkit.learn.nets.spec import NetSpec
from renalkit.learn.nets.unet import NestedUNet, STUNet, TernausNet, UNet, UNetPlan
from renalkit.learn.prepared import CHANNELS
from renalkit.systems import SYSTEMS, baselines, get_system, multitask_us
from renalkit.systems._contract import Shape, Task

SEGMENT = NetSpec(channels=3, size=64)
CLASSIFY = NetSpec(channels=3, size=64, n_classes=2, segments=False, classifies=True)
BOTH = NetSpec(channels=3, size=64, n_classes=2, classifies=True)


def count(build):
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build().parameters())


def nested(style=PLAIN, *, deep=True):
    return lambda: NestedUNet(SEGMENT, UNetPlan(style=style, deep_supervision=deep))


def residual(layout, *, separable=False):
    return lambda: ResNet(CLASSIFY, ResNetPlan(layout, separable=separable))


def system_net(name, **params):
    system = get_system(name)
    taken = system.takes[0]
    shape = Shape(sum(CHANNELS[mode] for mode in taken), 96, 2, taken)
    return lambda: system.build(system.params(params), shape, Task.CLASSIFICATION)


def repvgg(layout, *, merged):
    spec = NetSpec(channels=3, size=224, n_classes=1000, segments=False, classifies=True)
    return lambda: RepVGG(spec, "CEUS", RepVGGPlan(RepLayout(layout), deployed=merged))


# With 1000 classes, as the authors of RepVGG count.
PUBLISHED_REPVGG = {
    "A0": (9_108_968, 8_309_384),
    "A1": (14_092_264, 12_789_864),
    "A2": (28_210_600, 25_499_944),
    "B0": (15_817_960, 14_339_048),
    "B1": (57_415_016, 51_829_480),
}
B3 = 10_696_232  # without its head; with 1000 classes 12,233,232, as published
ATTENTION_BLOCK = 1536 * 96 + 96 + 96
EXPECTED = {
    "AttentionNestedUNet, 3 channels, four heads": (nested(ATTENTION), 9_781_554),
    "NestedUNet, 3 channels, four heads": (nested(), 9_163_428),
    "NestedUNet, 3 channels, one head": (nested(deep=False), 9_163_329),
    "U-Net, 3 channels, one head": (lambda: UNet(SEGMENT, UNetPlan()), 7_852_545),
    "STUNet, 3 channels, one head": (lambda: STUNet(SEGMENT, UNetPlan()), 7_984_313),
    "TernausNet, 3 channels, one head": (lambda: TernausNet(SEGMENT, UNetPlan()), 22_927_393),
    "ResNet-18, 3 channels, 2 classes": (residual(Layout.RESNET18), 11_177_538),
    "ResNet-34, 3 channels, 2 classes": (residual(Layout.RESNET34), 21_285_698),
    "ResNeXt-50, 3 channels, 2 classes": (residual(Layout.RESNEXT50), 22_984_002),
    "DSCResNet-18, 3 channels, 2 classes": (
        residual(Layout.RESNET18, separable=True),
        1_443_202,
    ),
    "DSCResNet-34, 3 channels, 2 classes": (
        residual(Layout.RESNET34, separable=True),
        2_606_338,
    ),
    "multitask-us, 3 channels, 2 classes": (
        lambda: MultitaskNet(BOTH, MultitaskPlan()),
        9_781_554 + 1_443_202 + 64 * 49,  # the stem sees one channel more: the mask
    ),
    "MUF-Net, EfficientNet-B3 twice, 2 classes": (
        system_net("mufnet-2022"),
        2 * B3 + ATTENTION_BLOCK + 3 * (1536 + 1) * 2,
    ),
    "MUF-Net, EfficientNet-B3 shared, 2 classes": (
        system_net("mufnet-2025", share_backbone=True),
        B3 + ATTENTION_BLOCK + 3 * (1536 + 1) * 2,
    ),
    "EfficientNet-B3, 2 classes": (system_net("ceus-net"), B3 + (1536 + 1) * 2),
    "RepVGG-A0, 2 classes, while learning": (system_net("repvgg-ceus"), 9_108_968 - 998 * 1281),
    **{
        f"RepVGG-{name}, 1000 classes, {state}": (
            repvgg(name.lower(), merged=state == "merged"),
            PUBLISHED_REPVGG[name][state == "merged"],
        )
        for name in PUBLISHED_REPVGG
        for state in ("while learning", "merged")
    },
}


@pytest.mark.parametrize("name", EXPECTED)
def test_counts(name):
    build, expected = EXPECTED[name]
    assert count(build) == expected


def test_cards_state_exactly_these_counts():
    stated = {}
    for system in SYSTEMS:
        for name, value in system.card.parameters.items():
            assert stated.setdefault(name, value) == value
    assert stated == {name: expected for name, (_, expected) in EXPECTED.items()}
    assert multitask_us.CARD.parameters
    assert baselines.UNET_CARD.parameters


def test_efficientnet_b3_has_the_published_count_with_its_1000_classes():
    assert B3 + (1536 + 1) * 1000 == 12_233_232


def test_repvgg_has_the_published_widths_and_stages():
    assert WIDTHS["a0"] == (0.75, 0.75, 0.75, 2.5)
    assert WIDTHS["a2"] == (1.5, 1.5, 1.5, 2.75)
    assert WIDTHS["a1"] == WIDTHS["b0"] == (1, 1, 1, 2.5)
    assert WIDTHS["b1"] == (2, 2, 2, 4)
    assert BLOCKS == {"a": (2, 4, 14, 1), "b": (4, 6, 16, 1)}
    millions = {n: tuple(round(c / 1e6, 3) for c in both) for n, both in PUBLISHED_REPVGG.items()}
    assert millions == {
        "A0": (9.109, 8.309),
        "A1": (14.092, 12.790),
        "A2": (28.211, 25.500),
        "B0": (15.818, 14.339),
        "B1": (57.415, 51.829),
    }


def test_attention_adds_cbam_and_projections_to_the_plain_nested_net():
    cbam = {32: 262, 64: 680, 128: 2284, 256: 8564, 512: 33412}
    filters = [32, 64, 128, 256, 512]
    added = 0
    for i, out in enumerate(filters):
        for j in range(len(filters) - i):
            before = ([3, *filters][i]) if j == 0 else out * j + filters[i + 1]
            added += cbam[out] + before * out + 2 * out
    assert count(nested(ATTENTION)) - count(nested()) == added


def test_resnext_has_torchvisions_count_without_its_head():
    # torchvision and timm both state 25,028,904 with 1000 classes.
    assert 22_984_002 - (2048 + 1) * 2 + (2048 + 1) * 1000 == 25_028_904
    assert 11_177_538 - (512 + 1) * 2 + (512 + 1) * 1000 == 11_689_512
    assert 21_285_698 - (512 + 1) * 2 + (512 + 1) * 1000 == 21_797_672


def test_separable_blocks_shrink_the_nested_net():
    assert count(nested(BlockStyle(separable=True))) < count(nested()) / 5


def test_width_scales_the_filters_to_8_to_128():
    assert UNetPlan(width=0.25).filters == (8, 16, 32, 64, 128)


def test_parameter_names_are_torchvisions():
    with torch.device("meta"):
        names = set(ResNet(CLASSIFY, ResNetPlan()).state_dict())
        nextnames = set(ResNet(CLASSIFY, ResNetPlan(Layout.RESNEXT50)).state_dict())
        vgg = {n for n in TernausNet(SEGMENT, UNetPlan()).state_dict() if n.startswith("features")}
    assert {"conv1.weight", "bn1.running_mean", "layer1.0.conv1.weight", "fc.bias"} <= names
    assert {"layer2.0.downsample.0.weight", "layer4.1.bn2.bias"} <= names
    assert len(names) == 122
    assert {"layer1.0.conv3.weight", "layer1.0.downsample.1.bias"} <= nextnames
    assert vgg == {
        f"features.{i}.{part}" for i in (0, 3, 6, 8, 11, 13, 16, 18) for part in ("weight", "bias")
    }
