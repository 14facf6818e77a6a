"""P1: joint segmentation and classification of renal tumours in B-mode ultrasound."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from pydantic import Field

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

if TYPE_CHECKING:
    from renalkit.learn.outputs import Losses, Net, Outputs, Targets


class MultitaskParams(Params):
    """Choices of the joint network; the defaults are P1 as far as it is stated."""

    width: float = Field(
        default=1.0, ge=0.125, le=2, description="multiplier of the filters 32, 64, 128, 256, 512"
    )
    separable: bool = Field(
        default=False, description="depthwise separable convolutions in the segmentation net"
    )
    cbam: bool = Field(default=True, description="channel and spatial attention in each block")
    residual: bool = Field(default=True, description="shortcut around each block")
    cbam_reduction: int = Field(default=16, ge=1, le=64)
    cbam_min_hidden: int = Field(
        default=1, ge=1, le=64, description="fewest hidden channels of the channel attention"
    )
    deep_supervision: bool = Field(default=True, description="a mask head at each of four depths")
    inference_head: Literal["last", "average"] = Field(
        default="last", description="which mask counts: the deepest head's or the mean of all"
    )
    dropout_bottleneck: float = Field(default=0.2, ge=0, lt=1)
    dropout_classifier: float = Field(default=0.5, ge=0, lt=1)
    classifier_depth: Literal[18, 34] = 18
    classifier_separable: bool = Field(
        default=True, description="DSCResNet; false gives a plain ResNet"
    )
    classifier_width: float | None = Field(
        default=None, ge=0.125, le=2, description="multiplier of 64..512; none: same as width"
    )
    segmentation_weight: float = Field(
        default=0.5, ge=0, le=1, description="w in w * segmentation + (1 - w) * classification"
    )
    dice_weight: float = Field(default=1.0, ge=0)
    bce_weight: float = Field(default=1.0, ge=0)
    coupling: Literal["mask_channel", "mask_crop", "none"] = Field(
        default="mask_channel", description="how the predicted lesion enters the classifier"
    )
    crop_margin: float = Field(
        default=0.1, ge=0, le=1, description="part of the lesion's box added on each side"
    )
    guide_fraction: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="part of training in which the reference mask is mixed in, fading linearly",
    )


CARD = Card(
    name="multitask-us",
    title="Joint multitask B-mode system: AttentionNestedUNet + DSCResNet (P1)",
    reference=(
        "Zhang W, Gao L, Chen L, et al. Joint multitask network (DSCResNet + AttentionNestedUNet) "
        "for grey-scale ultrasound of renal tumours. First Affiliated Hospital of Nanchang "
        "University; 345 patients, 218 malignant and 127 benign, 2019-2023."
    ),
    summary=(
        "UNet++ with channel and spatial attention and a residual link in each block segments the "
        "lesion; its mask enters a residual network of depthwise separable convolutions that says "
        "benign or malignant."
    ),
    claims=(
        Claim("iou", 0.942, "abstract: 94.23 %; experimental results", task="segmentation"),
        Claim("accuracy", 0.818, "experimental results", task="classification"),
        Claim("sensitivity", 0.822, "experimental results", task="classification"),
        Claim("specificity", 0.806, "experimental results", task="classification"),
        Claim("auc", 0.88, "introduction", task="classification"),
        Claim(
            "seconds_per_image",
            0.044,
            "computation of complexity: one training epoch of 3600 images in 2 min 40 s, A6000",
            unit="image",
            n=3600,
        ),
    ),
    open_choices=(
        OpenChoice(
            "unit of the figures",
            "not said whether IoU and accuracy are per image or per patient; no intervals",
            "patient-level figures beside image-level ones, each with n and interval",
        ),
        OpenChoice(
            "split",
            "4:1 in five folds (data set partitioning) and 7:3 (training procedure)",
            "five patient-disjoint folds, 64 % / 16 % / 20 % training / validation / test; "
            "a 7:3 hold-out is a choice of the experiment",
        ),
        OpenChoice(
            "number of images",
            "3504 after augmentation (preprocessing) and 3600 (complexity)",
            "images are counted before augmentation, which is drawn anew in each epoch",
        ),
        OpenChoice(
            "batch size",
            "16 (training parameters) and 8 (timing)",
            "16; a choice of the experiment",
        ),
        OpenChoice(
            "selection of the model",
            "the test part is also called validation part",
            "a validation part of its own; the test part is looked at once",
        ),
        OpenChoice("early stopping", "loss and IoU 'ceased to change'", "patience 20 epochs"),
        OpenChoice(
            "classification network",
            "ResNet with depthwise separable convolutions, depth not given",
            "ResNet-18 layout, standard 7x7 stem and 1x1 shortcuts; each 3x3 replaced by depthwise "
            "3x3 and pointwise 1x1",
            "classifier_depth, classifier_separable, classifier_width",
        ),
        OpenChoice(
            "segmentation filters", "not given", "32, 64, 128, 256, 512 times the width", "width"
        ),
        OpenChoice(
            "separable convolutions in the segmentation",
            "the abstract joins them with NestedUNet, the model section puts them into ResNet only",
            "off in the segmentation net, on in the classifier",
            "separable",
        ),
        OpenChoice(
            "attention",
            "CBAM in the blocks, place, reduction and kernel not given",
            "after the second normalisation of each block; reduction 16; 7x7 with normalisation",
            "cbam, cbam_reduction, cbam_min_hidden",
        ),
        OpenChoice(
            "residual link",
            "from input to output of each block, fit of the channels not given",
            "1x1 convolution with normalisation where the channels differ, before the last ReLU",
            "residual",
        ),
        OpenChoice(
            "deep supervision",
            "named, without weights or the head used at the end",
            "mean of the losses of four heads; the last head is used",
            "deep_supervision, inference_head",
        ),
        OpenChoice(
            "dropout",
            "in both nets, place and rate not given",
            "whole channels at the bottleneck 0.2; before the last layer of the classifier 0.5",
            "dropout_bottleneck, dropout_classifier",
        ),
        OpenChoice(
            "Dice + BCE",
            "summed, weights and smoothing not given",
            "1:1; smoothing 1e-5; Dice per image, then the mean",
            "dice_weight, bce_weight",
        ),
        OpenChoice("joint loss", "not given", "equal parts", "segmentation_weight"),
        OpenChoice(
            "coupling",
            "'the segmented lesions can be directly utilized for classification'",
            "the predicted mask, cut from the gradient, is an extra input channel; a crop around "
            "it is offered",
            "coupling, crop_margin",
        ),
        OpenChoice(
            "mask seen early in training",
            "not given",
            "mixed with the reference mask, whose share falls linearly to 0",
            "guide_fraction",
        ),
        OpenChoice(
            "imbalance",
            "oversampling of benign images and class weights together",
            "class weights inverse to frequency with mean 1, off while oversampling is on unless "
            "asked for: both together correct twice",
        ),
        OpenChoice("bilateral filter", "OpenCV, settings not given", "d 9, sigma 75 and 75"),
        OpenChoice("start of the weights", "not given", "random (He)"),
        OpenChoice(
            "normal images",
            "none in the paper",
            "an image without lesion has a known, empty mask",
        ),
    ),
    parameters={
        "AttentionNestedUNet, 3 channels, four heads": 9_781_554,
        "NestedUNet, 3 channels, four heads": 9_163_428,
        "DSCResNet-18, 3 channels, 2 classes": 1_443_202,
        "DSCResNet-34, 3 channels, 2 classes": 2_606_338,
        "multitask-us, 3 channels, 2 classes": 11_227_892,
    },
)


def build(params: MultitaskParams, shape: Shape, task: Task) -> Net:
    """The network with fresh weights; for classification alone it is DSCResNet on the image."""
    from renalkit.learn.nets.blocks import BlockStyle  # torch loads only when a net is built
    from renalkit.learn.nets.multitask import Coupling, MultitaskNet, MultitaskPlan
    from renalkit.learn.nets.resnet import Layout, ResNetPlan
    from renalkit.learn.nets.spec import NetSpec
    from renalkit.learn.nets.unet import UNetPlan

    spec = NetSpec(shape.channels, shape.size, shape.n_classes, task.segments, task.classifies)
    style = BlockStyle(
        separable=params.separable,
        cbam=params.cbam,
        residual=params.residual,
        cbam_reduction=params.cbam_reduction,
        cbam_min_hidden=params.cbam_min_hidden,
    )
    plan = MultitaskPlan(
        segmentation=UNetPlan(
            width=params.width,
            style=style,
            deep_supervision=params.deep_supervision,
            dropout_bottleneck=params.dropout_bottleneck,
        ),
        classification=ResNetPlan(
            layout=Layout.RESNET34 if params.classifier_depth == 34 else Layout.RESNET18,
            separable=params.classifier_separable,
            width=params.width if params.classifier_width is None else params.classifier_width,
            dropout_classifier=params.dropout_classifier,
        ),
        coupling=Coupling(params.coupling),
        average_heads=params.inference_head == "average",
        crop_margin=params.crop_margin,
    )
    return MultitaskNet(spec, plan)


def loss(
    params: MultitaskParams, task: Task, balance: ClassBalance
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


def decode(params: MultitaskParams, raw: RawOutputs) -> list[Decoded]:
    """Mask probability, class scores and attention map per image."""
    return decode_arrays(raw, average_heads=params.inference_head == "average")


def guide_share(params: MultitaskParams, progress: float) -> float:
    """Share of the reference mask shown to the classifier: 1 at the start, 0 from guide_fraction.

    progress: part of training done, in [0,1]. Without coupling it is 0.
    """
    if params.coupling == "none" or params.guide_fraction == 0:
        return 0.0
    return min(1.0, max(0.0, 1.0 - progress / params.guide_fraction))


SYSTEMS = (
    System(
        name=CARD.name,
        card=CARD,
        params_type=MultitaskParams,
        tasks=frozenset(Task),
        default_task=Task.BOTH,
        build=build,
        loss=loss,
        decode=decode,
        guide_share=guide_share,
    ),
)
