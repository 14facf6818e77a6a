"""Networks P1 was compared with: U-Net, UNet++, TernausNet, ResNet, ResNeXt, STUNet.

Each segments, classifies or does both: a segmentation net gets a class head on its deepest
features, a classification net a light U-Net decoder over its stages.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from renalkit.domain.image import Mode
from renalkit.systems._contract import (
    Card,
    Claim,
    ClassBalance,
    Decoded,
    OpenChoice,
    Params,
    RawOutputs,
    Shape,
    System,
    Task,
)
from renalkit.systems._decode import decode as decode_arrays
from renalkit.systems._start import ImageNetStart

if TYPE_CHECKING:
    from renalkit.learn.nets.resnet import Layout
    from renalkit.learn.nets.spec import NetSpec
    from renalkit.learn.outputs import Losses, Net, Outputs, Targets


class BaselineParams(Params):
    """Choices common to all baselines."""

    width: float = Field(
        default=1.0, ge=0.125, le=2, description="multiplier of the channels of every layer"
    )
    segmentation_weight: float = Field(
        default=0.5, ge=0, le=1, description="w in w * segmentation + (1 - w) * classification"
    )
    dice_weight: float = Field(default=1.0, ge=0)
    bce_weight: float = Field(default=1.0, ge=0)
    dropout_classifier: float = Field(default=0.0, ge=0, lt=1)


class UNetParams(BaselineParams):
    """Choices of U-Net and STUNet."""

    separable: bool = Field(default=False, description="depthwise separable convolutions")
    dropout_bottleneck: float = Field(default=0.0, ge=0, lt=1)


class NestedUNetParams(UNetParams):
    """Choices of plain UNet++."""

    deep_supervision: bool = Field(default=True, description="a mask head at each of four depths")
    inference_head: Literal["last", "average"] = "last"


class ImageNetParams(BaselineParams, ImageNetStart):
    """Choices of a network whose encoder can start from ImageNet weights in a local file."""


class TernausNetParams(ImageNetParams):
    """Choices of TernausNet."""

    dropout_bottleneck: float = Field(default=0.0, ge=0, lt=1)


class ResNetParams(ImageNetParams):
    """Choices of the residual networks."""


def _spec(shape: Shape, task: Task) -> NetSpec:
    from renalkit.learn.nets.spec import NetSpec  # torch loads only when a net is built

    return NetSpec(shape.channels, shape.size, shape.n_classes, task.segments, task.classifies)


def build_unet(params: UNetParams, shape: Shape, task: Task) -> Net:
    """U-Net with fresh weights."""
    from renalkit.learn.nets.blocks import BlockStyle  # torch loads only when a net is built
    from renalkit.learn.nets.unet import UNet, UNetPlan

    plan = UNetPlan(
        width=params.width,
        style=BlockStyle(separable=params.separable),
        dropout_bottleneck=params.dropout_bottleneck,
        dropout_classifier=params.dropout_classifier,
    )
    return UNet(_spec(shape, task), plan)


def build_stunet(params: UNetParams, shape: Shape, task: Task) -> Net:
    """U-Net with spatial attention gates, fresh weights."""
    from renalkit.learn.nets.blocks import BlockStyle  # torch loads only when a net is built
    from renalkit.learn.nets.unet import STUNet, UNetPlan

    plan = UNetPlan(
        width=params.width,
        style=BlockStyle(separable=params.separable),
        dropout_bottleneck=params.dropout_bottleneck,
        dropout_classifier=params.dropout_classifier,
    )
    return STUNet(_spec(shape, task), plan)


def build_nested_unet(params: NestedUNetParams, shape: Shape, task: Task) -> Net:
    """Plain UNet++ with fresh weights."""
    from renalkit.learn.nets.blocks import BlockStyle  # torch loads only when a net is built
    from renalkit.learn.nets.unet import NestedUNet, UNetPlan

    plan = UNetPlan(
        width=params.width,
        style=BlockStyle(separable=params.separable),
        deep_supervision=params.deep_supervision,
        dropout_bottleneck=params.dropout_bottleneck,
        dropout_classifier=params.dropout_classifier,
    )
    return NestedUNet(_spec(shape, task), plan)


def _start(net: Net, params: ImageNetParams, first_conv: str) -> Net:
    """Load the encoder's ImageNet weights where they were asked for."""
    if params.init_weights is None or params.init_sha256 is None:
        return net
    from renalkit.learn.pretrained import load_encoder  # torch loads only when a net is built

    load_encoder(net, params.init_weights, params.init_sha256, first_conv=first_conv)
    return net


def build_ternausnet(params: TernausNetParams, shape: Shape, task: Task) -> Net:
    """TernausNet, its VGG11 encoder from ImageNet weights where given."""
    from renalkit.learn.nets.unet import TernausNet, UNetPlan  # torch loads only when built

    plan = UNetPlan(
        width=params.width,
        dropout_bottleneck=params.dropout_bottleneck,
        dropout_classifier=params.dropout_classifier,
    )
    return _start(TernausNet(_spec(shape, task), plan), params, "features.0")


def _build_residual(params: ResNetParams, spec: NetSpec, layout: Layout) -> Net:
    from renalkit.learn.nets.resnet import ResNet, ResNetPlan  # torch loads only when built

    plan = ResNetPlan(layout, width=params.width, dropout_classifier=params.dropout_classifier)
    return _start(ResNet(spec, plan), params, "conv1")


def build_resnet18(params: ResNetParams, shape: Shape, task: Task) -> Net:
    """ResNet-18, from ImageNet weights where given."""
    from renalkit.learn.nets.resnet import Layout  # torch loads only when a net is built

    return _build_residual(params, _spec(shape, task), Layout.RESNET18)


def build_resnet34(params: ResNetParams, shape: Shape, task: Task) -> Net:
    """ResNet-34, from ImageNet weights where given."""
    from renalkit.learn.nets.resnet import Layout  # torch loads only when a net is built

    return _build_residual(params, _spec(shape, task), Layout.RESNET34)


def build_resnext50(params: ResNetParams, shape: Shape, task: Task) -> Net:
    """ResNeXt-50 32x4d, from ImageNet weights where given."""
    from renalkit.learn.nets.resnet import Layout  # torch loads only when a net is built

    return _build_residual(params, _spec(shape, task), Layout.RESNEXT50)


def loss(
    params: BaselineParams, task: Task, balance: ClassBalance
) -> Callable[[Outputs, Targets], Losses]:
    """Dice + BCE over the heads and cross-entropy, joined by segmentation_weight."""
    from renalkit.learn.losses import LossPlan, joint_loss  # torch loads only for training

    return joint_loss(
        LossPlan(
            segments=task.segments,
            classifies=task.classifies,
            dice_weight=params.dice_weight,
            bce_weight=params.bce_weight,
            segmentation_weight=params.segmentation_weight,
            class_weights=balance.weights,
        )
    )


def decode(params: BaselineParams, raw: RawOutputs) -> list[Decoded]:
    """Mask probability, class scores and attention map per image."""
    average = isinstance(params, NestedUNetParams) and params.inference_head == "average"
    return decode_arrays(raw, average_heads=average)


def guide_share(params: BaselineParams, progress: float) -> float:
    """0: no baseline looks at the reference mask."""
    return 0.0


_SETTINGS = OpenChoice(
    "training of the baselines",
    "settings of the compared networks not given",
    "the same splits, preprocessing, augmentation, optimiser and stopping rule as multitask-us",
)
_FILTERS = OpenChoice(
    "filters",
    "not given",
    "32, 64, 128, 256, 512 times the width; two 3x3 convolutions with normalisation per block",
    "width",
)
_JOINT = OpenChoice(
    "both tasks at once",
    "not done by the baseline",
    "a class head on the mean of the deepest features, or a light decoder over the stages",
)
_START = OpenChoice(
    "start of the weights",
    "not given in P1 for this network",
    "random (He); ImageNet weights load from a local file",
    "init_weights, init_sha256",
)

UNET_CARD = Card(
    name="unet",
    title="U-Net",
    reference="Ronneberger O, Fischer P, Brox T. U-Net. MICCAI 2015.",
    summary="Encoder and decoder with skip connections, batch normalisation, bilinear upsampling.",
    claims=(),
    open_choices=(_SETTINGS, _FILTERS, _JOINT),
    parameters={"U-Net, 3 channels, one head": 7_852_545},
)
NESTED_CARD = Card(
    name="nested-unet",
    title="UNet++ (NestedUNet)",
    reference="Zhou Z, Siddiquee MMR, Tajbakhsh N, Liang J. UNet++. DLMIA 2018.",
    summary="U-Net with nested, densely joined skip paths and deep supervision; no attention.",
    claims=(),
    open_choices=(_SETTINGS, _FILTERS, _JOINT),
    parameters={
        "NestedUNet, 3 channels, one head": 9_163_329,
        "NestedUNet, 3 channels, four heads": 9_163_428,
    },
)
TERNAUS_CARD = Card(
    name="ternausnet",
    title="TernausNet (U-Net with a VGG11 encoder)",
    reference="Iglovikov V, Shvets A. TernausNet. arXiv:1801.05746, 2018.",
    summary="VGG11 encoder, decoder of transposed convolutions, no normalisation.",
    claims=(),
    open_choices=(
        _SETTINGS,
        _JOINT,
        OpenChoice(
            "start of the weights",
            "described as 'pretrained on ImageNet'",
            "random (He) unless ImageNet weights are given as a local file: none is downloaded",
            "init_weights, init_sha256",
        ),
    ),
    parameters={"TernausNet, 3 channels, one head": 22_927_393},
)
STUNET_CARD = Card(
    name="stunet",
    title="STUNet (U-Net with spatial attention gates)",
    reference="P1, reference 32; gates after Oktay O, et al. Attention U-Net. MIDL 2018.",
    summary="U-Net whose skip connections are weighted place by place by what the decoder asks.",
    claims=(Claim("iou", 0.9231, "abstract: 92.31 %", task="segmentation"),),
    open_choices=(
        OpenChoice(
            "which STUNet",
            "'a variant of the traditional U-Net architecture' with 'spatial attention mechanisms'",
            "U-Net with additive spatial gates on the skips; neither the 3-D STU-Net nor the "
            "Swin-based ST-Unet, which share the name, fits the text",
        ),
        _SETTINGS,
        _FILTERS,
        _JOINT,
    ),
    parameters={"STUNet, 3 channels, one head": 7_984_313},
)


def _residual_card(name: str, title: str, reference: str, parameters: dict[str, int]) -> Card:
    return Card(
        name=name,
        title=title,
        reference=reference,
        summary="7x7 stem, four stages of residual blocks, mean over places, one linear layer.",
        claims=(),
        open_choices=(
            OpenChoice("depth", "not given in P1", "18, 34 (ResNet) and 50 layers (ResNeXt)"),
            _SETTINGS,
            _START,
            _JOINT,
        ),
        parameters=parameters,
    )


_HE = "He K, Zhang X, Ren S, Sun J. Deep residual learning. CVPR 2016."
RESNET18_CARD = _residual_card(
    "resnet18", "ResNet-18", _HE, {"ResNet-18, 3 channels, 2 classes": 11_177_538}
)
RESNET34_CARD = _residual_card(
    "resnet34", "ResNet-34", _HE, {"ResNet-34, 3 channels, 2 classes": 21_285_698}
)
RESNEXT50_CARD = _residual_card(
    "resnext50",
    "ResNeXt-50 32x4d",
    "Xie S, Girshick R, Dollar P, Tu Z, He K. Aggregated residual transformations. CVPR 2017.",
    {"ResNeXt-50, 3 channels, 2 classes": 22_984_002},
)

ALL_TASKS = frozenset(Task)
ONE_MODALITY = ((Mode.B,), (Mode.CEUS,))

UNET = System(
    UNET_CARD.name,
    UNET_CARD,
    UNetParams,
    ALL_TASKS,
    Task.SEGMENTATION,
    build_unet,
    loss,
    decode,
    guide_share,
    takes=ONE_MODALITY,
)
NESTED_UNET = System(
    NESTED_CARD.name,
    NESTED_CARD,
    NestedUNetParams,
    ALL_TASKS,
    Task.SEGMENTATION,
    build_nested_unet,
    loss,
    decode,
    guide_share,
    takes=ONE_MODALITY,
)
TERNAUSNET = System(
    TERNAUS_CARD.name,
    TERNAUS_CARD,
    TernausNetParams,
    ALL_TASKS,
    Task.SEGMENTATION,
    build_ternausnet,
    loss,
    decode,
    guide_share,
    takes=ONE_MODALITY,
)
RESNET18 = System(
    RESNET18_CARD.name,
    RESNET18_CARD,
    ResNetParams,
    ALL_TASKS,
    Task.CLASSIFICATION,
    build_resnet18,
    loss,
    decode,
    guide_share,
    takes=ONE_MODALITY,
)
RESNET34 = System(
    RESNET34_CARD.name,
    RESNET34_CARD,
    ResNetParams,
    ALL_TASKS,
    Task.CLASSIFICATION,
    build_resnet34,
    loss,
    decode,
    guide_share,
    takes=ONE_MODALITY,
)
RESNEXT50 = System(
    RESNEXT50_CARD.name,
    RESNEXT50_CARD,
    ResNetParams,
    ALL_TASKS,
    Task.CLASSIFICATION,
    build_resnext50,
    loss,
    decode,
    guide_share,
    takes=ONE_MODALITY,
)
STUNET = System(
    STUNET_CARD.name,
    STUNET_CARD,
    UNetParams,
    ALL_TASKS,
    Task.SEGMENTATION,
    build_stunet,
    loss,
    decode,
    guide_share,
    takes=ONE_MODALITY,
)
SYSTEMS = (UNET, NESTED_UNET, TERNAUSNET, RESNET18, RESNET34, RESNEXT50, STUNET)
