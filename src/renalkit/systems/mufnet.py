"""P2 and P3: MUF-Net, B-mode and contrast pictures fused, and each modality's network alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from renalkit.domain.image import Mode
from renalkit.errors import ConfigError
from renalkit.systems._balanced import COUNTED, ORDERED, TWICE, BalancedParams, loss_of
from renalkit.systems._contract import (
    Card,
    Claim,
    ClassBalance,
    Decoded,
    OpenChoice,
    RawOutputs,
    Shape,
    System,
    Task,
)
from renalkit.systems._decode import decode as decode_arrays
from renalkit.systems._decode import decode_fused

if TYPE_CHECKING:
    from renalkit.learn.nets.backbones import BackboneStyle
    from renalkit.learn.nets.mufnet import HeadPlan
    from renalkit.learn.nets.spec import NetSpec
    from renalkit.learn.outputs import Losses, Net, Outputs, Targets

BackboneName = Literal[
    "efficientnet-b0",
    "efficientnet-b1",
    "efficientnet-b2",
    "efficientnet-b3",
    "efficientnet-b4",
    "densenet121",
    "resnet18",
    "resnet50",
    "se-resnet50",
]
BOTH = (Mode.B, Mode.CEUS)


class SingleParams(BalancedParams):
    """Choices of a network that looks at one modality; the defaults are P2 as far as stated."""

    backbone: BackboneName = Field(
        default="efficientnet-b3", description="the papers chose B3 by comparison"
    )
    norm_momentum: float = Field(
        default=0.01,
        gt=0,
        le=1,
        description="EfficientNet: share of each batch in the running statistics; more for a short "
        "training from scratch",
    )
    drop_connect: float = Field(
        default=0.2,
        ge=0,
        lt=1,
        description="EfficientNet: largest probability of leaving a block out in training",
    )
    number_width: int = Field(
        default=16,
        ge=0,
        le=256,
        description="hidden units for the numbers beside the picture; 0: joined as they are",
    )


class MufNetParams(SingleParams):
    """Choices of the fused network."""

    share_backbone: bool = Field(
        default=False, description="one backbone for both modalities, as P3 words it"
    )
    fusion: Literal["adaptive", "concat", "gated", "cross_attention"] = Field(
        default="adaptive", description="adaptive: alpha f_B + beta f_C of the papers"
    )
    attention_reduction: int = Field(
        default=16, ge=1, le=64, description="hidden units of the attention block: n over this"
    )
    attention_weights: Literal["softmax", "sigmoid"] = Field(
        default="softmax", description="sigmoid: alpha and beta apart, not summing to 1"
    )
    attention_per_channel: bool = Field(
        default=False, description="alpha and beta for every feature; their means are reported"
    )
    fusion_width: int = Field(
        default=256,
        ge=8,
        le=2048,
        multiple_of=4,
        description="features of the gated fusion, and of each modality in cross-attention",
    )
    fused_weight: float = Field(default=1.0, ge=0, description="weight of the fused loss")
    branch_weight: float = Field(
        default=0.5, ge=0, description="weight of each single-modality loss, in training only"
    )


# ---- networks ------------------------------------------------------------------------------


def _parts(params: SingleParams, shape: Shape) -> tuple[NetSpec, BackboneStyle, HeadPlan]:
    from renalkit.learn.nets.backbones import BackboneStyle  # torch loads only when a net is built
    from renalkit.learn.nets.mufnet import HeadPlan
    from renalkit.learn.nets.spec import NetSpec

    return (
        NetSpec(
            shape.channels, shape.size, shape.n_classes, segments=False, classifies=True, multiple=1
        ),
        BackboneStyle(shape.size, params.width, params.norm_momentum, params.drop_connect),
        HeadPlan(
            params.dropout, params.head == "ordinal", len(shape.features), params.number_width
        ),
    )


def build_single(params: SingleParams, shape: Shape, task: Task) -> Net:
    """One backbone and its head, from ImageNet weights where given.

    Raises:
        ConfigError: more than one modality, or neither grey nor colour.
        ModelRefused: the weight file does not fit.
    """
    from renalkit.learn.nets.mufnet import SingleNet  # torch loads only when a net is built

    if len(shape.modalities) != 1 or shape.channels not in {1, 3}:
        raise _wrong(shape, "one modality, grey or colour")
    spec, style, plan = _parts(params, shape)
    net = SingleNet(spec, shape.modalities[0].value, (params.backbone, style), plan)
    if params.init_weights is not None and params.init_sha256 is not None:
        net.backbone.start(params.init_weights, params.init_sha256)
    return net


def build_fused(params: MufNetParams, shape: Shape, task: Task) -> Net:
    """Two backbones, fusion and heads, from ImageNet weights where given.

    Raises:
        ConfigError: other modalities than B and CEUS, or other channels than grey and colour.
        ModelRefused: the weight file does not fit.
    """
    from renalkit.learn.nets.mufnet import Fusion, FusionPlan, MufNet  # torch loads only here
    from renalkit.learn.prepared import CHANNELS

    channels = {mode.value: CHANNELS[mode] for mode in BOTH}
    if shape.modalities != BOTH or shape.channels != sum(channels.values()):
        raise _wrong(shape, "B and CEUS: one grey channel, then three of colour")
    spec, style, plan = _parts(params, shape)
    fusion = FusionPlan(
        Fusion(params.fusion),
        params.attention_reduction,
        params.attention_weights == "sigmoid",
        params.attention_per_channel,
        params.fusion_width,
    )
    net = MufNet(
        spec,
        channels,
        (params.backbone, style),
        fusion,
        plan,
        share_backbone=params.share_backbone,
    )
    if params.init_weights is not None and params.init_sha256 is not None:
        net.start(params.init_weights, params.init_sha256)
    return net


def _wrong(shape: Shape, expected: str) -> ConfigError:
    modalities = ", ".join(shape.modalities)
    return ConfigError(
        [f"modalities {modalities} with {shape.channels} channels; expected {expected}"],
        where="network shape",
    )


def loss_single(
    params: SingleParams, task: Task, balance: ClassBalance
) -> Callable[[Outputs, Targets], Losses]:
    """Class-balanced focal loss of the class logits."""
    return loss_of(params, balance)


def loss_fused(
    params: MufNetParams, task: Task, balance: ClassBalance
) -> Callable[[Outputs, Targets], Losses]:
    """Class-balanced focal losses of the fused and of both single heads, weighted (P2, eq. 1)."""
    return loss_of(
        params,
        balance,
        fused_weight=params.fused_weight,
        branch_weight=params.branch_weight,
    )


def decode_single(params: SingleParams, raw: RawOutputs) -> list[Decoded]:
    """Class scores per image."""
    return decode_arrays(raw)


def decode_both(params: MufNetParams, raw: RawOutputs) -> list[Decoded]:
    """Class scores, alpha and beta per image; a modality's own head where the other is missing."""
    return decode_fused(raw, BOTH)


def guide_share(params: SingleParams, progress: float) -> float:
    """0: no reference mask is looked at."""
    return 0.0


# ---- cards ---------------------------------------------------------------------------------

P2_BASIS = "not stated (181 patients, 9,794 images)"
P3_BASIS = "not stated (100 patients, 6,293 images)"
P2 = (
    "Zhu D, Li J, Li Y, et al. Multimodal ultrasound fusion network for differentiating between "
    "benign and malignant solid renal tumors. Front Mol Biosci 2022;9:982703."
)
P3 = (
    "Zhu Y, Wu J, Long Q, et al. Multimodal deep learning with MUF-net for noninvasive WHO/ISUP "
    "grading of renal cell carcinoma using CEUS and B-mode ultrasound. Front Physiol "
    "2025;16:1558997."
)
Figure = float | tuple[float, float, float]


def _claims(where: str, unit: str, of: str = "", /, **figures: Figure) -> tuple[Claim, ...]:
    """figures: metric -> value, or value with both ends of the 95 % interval."""
    claims: list[Claim] = []
    for metric, figure in figures.items():
        value, *ends = figure if isinstance(figure, tuple) else (figure,)
        low, high = ends or (None, None)
        name = f"{metric} {of}" if of else metric
        claims.append(Claim(name, value, where, low, high, unit, task="classification"))
    return tuple(claims)


P2_FUSED = _claims(
    "P2, results and table 3: MUF-Net",
    P2_BASIS,
    auc=(0.877, 0.83, 0.93),
    accuracy=0.800,
    sensitivity=0.804,
    specificity=0.791,
    ppv=0.869,
    npv=0.700,
)
P2_B = _claims(
    "P2, results and table 3: B-mode",
    P2_BASIS,
    auc=(0.820, 0.72, 0.83),
    accuracy=0.745,
    sensitivity=0.750,
    specificity=0.770,
    ppv=0.734,
    npv=0.623,
)
P2_CEUS = _claims(
    "P2, results and table 3: CEUS-mode",
    P2_BASIS,
    auc=(0.815, 0.75, 0.89),
    accuracy=0.739,
    sensitivity=0.738,
    specificity=0.732,
    ppv=0.725,
    npv=0.622,
)
P2_READERS = (
    *_claims(
        "P2, table 3: majority of 3 juniors, 5 to 6 years",
        "not stated (181 patients)",
        "of junior readers",
        auc=(0.740, 0.70, 0.75),
        accuracy=0.706,
        sensitivity=0.893,
        specificity=0.587,
        ppv=0.580,
        npv=0.895,
        icc=0.81,
    ),
    *_claims(
        "P2, table 3: majority of 3 seniors, 10 to 15 years",
        "not stated (181 patients)",
        "of senior readers",
        auc=(0.794, 0.72, 0.83),
        accuracy=0.757,
        sensitivity=0.959,
        specificity=0.629,
        ppv=0.623,
        npv=0.959,
        icc=0.83,
    ),
)
P3_FUSED = _claims(
    "P3, table 2: MUF-Net",
    P3_BASIS,
    auc=(0.909, 0.829, 0.990),
    accuracy=(0.859, 0.789, 0.928),
    sensitivity=(0.851, 0.736, 0.966),
    specificity=(0.860, 0.791, 0.930),
    ppv=(0.816, 0.737, 0.895),
    npv=(0.893, 0.825, 0.961),
)
P3_B = _claims(
    "P3, table 2: B-mode",
    P3_BASIS,
    auc=(0.838, 0.689, 0.988),
    accuracy=(0.808, 0.530, 0.857),
    sensitivity=(0.778, 0.596, 0.960),
    specificity=(0.827, 0.779, 0.875),
    ppv=(0.750, 0.640, 0.860),
    npv=(0.850, 0.742, 0.959),
)
P3_CEUS = _claims(
    "P3, table 2: CEUS-mode",
    P3_BASIS,
    auc=(0.845, 0.745, 0.944),
    accuracy=(0.818, 0.750, 0.886),
    sensitivity=(0.802, 0.645, 0.958),
    specificity=(0.825, 0.751, 0.898),
    ppv=(0.768, 0.697, 0.839),
    npv=(0.863, 0.780, 0.946),
)

ON_ONE = (
    OpenChoice(
        "input",
        "300 x 300 x 3 for both modalities",
        "the side of the experiment; a grey picture fills all three channels; 0 to 1, then "
        "ImageNet's mean and spread; padding fits any side, not only multiples of 32",
    ),
    OpenChoice(
        "backbone",
        "EfficientNet-B3, chosen among networks that are not named",
        "EfficientNet-B3; B0 to B4, DenseNet-121, ResNet-18, ResNet-50 and SE-ResNet-50 offered",
        "backbone, width",
    ),
    OpenChoice(
        "start of the weights",
        "ImageNet",
        "random unless ImageNet weights are given as a local file: none is downloaded",
        "init_weights, init_sha256",
    ),
    OpenChoice(
        "normalisation and stochastic depth",
        "not given",
        "those of the published EfficientNet: momentum 0.01, blocks left out with up to 0.2",
        "norm_momentum, drop_connect",
    ),
    OpenChoice("dropout", "not given", "0.3 before every last layer", "dropout"),
    OpenChoice(
        "focal loss",
        "the loss acts on each output, the scores come from a softmax",
        "sigmoid focal loss per output, softmax scores; a focal loss of the softmax is offered",
        "focal, gamma",
    ),
    OpenChoice(
        "size of the class weights",
        "P3 prints (1 - beta) / (1 - beta^n), about 3e-4",
        "scaled to sum to the number of classes: raw weights would stall SGD at rate 0.05",
        "normalise_weights, beta",
    ),
    COUNTED,
    TWICE,
    ORDERED,
    OpenChoice(
        "optimiser",
        "SGD, 0.05 halved every 10 epochs, 100 epochs; batch, momentum and decay not given",
        "batch 32, momentum 0.9, weight decay 1e-4; choices of the experiment",
    ),
    OpenChoice(
        "margin of the crop",
        "the box of the lesion; the periphery is named as future work",
        "0; up to 30 % is a choice of the experiment",
    ),
    OpenChoice(
        "frames to patients",
        "50 to 60 frames per patient; how they become one answer is not said",
        "mean of the frames' scores; other rules are choices of the experiment",
    ),
    OpenChoice(
        "numbers beside the picture",
        "none",
        "figures such as perfusion can be added: standardised on the training part, cut at five "
        "spreads, unknown ones 0 with a mark; two layers or none, joined before the last one",
        "number_width",
    ),
)
SELECTION_2022 = OpenChoice(
    "selection of the model",
    "highest accuracy on 'the validation set' of each fold; no third part is named",
    "64 % / 16 % / 20 % training / validation / test patients; patient-level accuracy on the "
    "validation part, then lower patient log-loss, then the earlier epoch",
)
GAMMA_2022 = OpenChoice(
    "gamma and beta",
    "the class-balanced focal loss is cited, its settings are not given",
    "2.0 and 0.9999, which P3 states",
    "gamma, beta",
)
ON_FUSION = (
    OpenChoice(
        "attention block",
        "two blocks sharing weights give alpha and beta; their layers are not given",
        "linear n to n/16, ReLU, linear to 1 without bias, which the softmax would cancel",
        "attention_reduction",
    ),
    OpenChoice(
        "scale of alpha and beta",
        "not given",
        "softmax over the two modalities, so that they sum to 1; sigmoids apart and a weight per "
        "feature are offered",
        "attention_weights, attention_per_channel",
    ),
    OpenChoice(
        "loss weights",
        "the equation is a picture; the fused loss weighs most",
        "1.0 fused, 0.5 for each modality",
        "fused_weight, branch_weight",
    ),
    OpenChoice(
        "fusion",
        "weighted sum; self- and cross-attention are future work",
        "weighted sum; concatenation, gated unit and cross-attention offered",
        "fusion, fusion_width",
    ),
    OpenChoice(
        "a missing modality",
        "not treated",
        "the head of the modality that is there answers, and the result says so",
    ),
)
TWO_BACKBONES = OpenChoice(
    "one backbone or two",
    "P2: two independent networks; P3: two shared-weight networks",
    "two; one for both is offered and sees both modalities in one batch",
    "share_backbone",
)

FUSED_SIZE = {
    "MUF-Net, EfficientNet-B3 twice, 2 classes": 21_549_334,
    "MUF-Net, EfficientNet-B3 shared, 2 classes": 10_853_102,
}

CARD_2022 = Card(
    name="mufnet-2022",
    title="MUF-Net: B-mode and contrast-enhanced ultrasound fused, benign or malignant (P2)",
    reference=P2,
    summary=(
        "Two EfficientNet-B3 look at the cropped lesion in B-mode and in contrast mode; an "
        "attention block gives each modality its weight for this picture, the weighted sum is "
        "classified, and a head for each modality helps in training."
    ),
    claims=(*P2_FUSED, *P2_READERS),
    open_choices=(
        *ON_FUSION,
        TWO_BACKBONES,
        GAMMA_2022,
        SELECTION_2022,
        *ON_ONE,
        OpenChoice(
            "prevalence behind the readers' figures",
            "accuracy, PPV and NPV of both reader groups imply 0.39 positive patients; 55 % are "
            "malignant",
            "readers and networks are compared on one table with one positive class",
        ),
        OpenChoice(
            "AUC of the readers",
            "equals the mean of sensitivity and specificity: one operating point, yet compared by "
            "DeLong with a full curve",
            "readers are compared at their operating point",
        ),
        OpenChoice(
            "unit of the figures",
            "intervals of the AUC fit 181 patients, the other figures the share of images",
            "patient-level figures beside image-level ones, each with n and interval",
        ),
    ),
    parameters=FUSED_SIZE,
)
CARD_2025 = Card(
    name="mufnet-2025",
    title="MUF-Net: WHO/ISUP grade of renal cell carcinoma, G1-2 or G3-4 (P3)",
    reference=P3,
    summary=(
        "The network of P2, begun from its weights, tells low from high grade in clear cell and "
        "papillary carcinoma."
    ),
    claims=P3_FUSED,
    open_choices=(
        *ON_FUSION,
        TWO_BACKBONES,
        OpenChoice(
            "transfer",
            "begun from the P2 network; the same two hospitals and years, overlap not said",
            "a choice of the experiment; per fold only from a network none of whose training "
            "patients are in this fold's validation or test part",
        ),
        OpenChoice(
            "split",
            "80/20 hold-out and five folds in the training cohort",
            "five patient-disjoint folds; the hold-out is a choice of the experiment",
        ),
        OpenChoice(
            "selection of the model",
            "'highest accuracy on the testing cohort', which is selection on the test part",
            "patient-level accuracy on a validation part of its own",
        ),
        OpenChoice(
            "abstract and results",
            "the abstract swaps the sensitivities of B-mode and CEUS-mode",
            "table 2 is quoted",
        ),
        *ON_ONE,
    ),
    parameters=FUSED_SIZE,
)
CARD_B = Card(
    name="bmode-net",
    title="B-mode-Net: EfficientNet-B3 on B-mode alone (P2, P3)",
    reference=f"{P2} {P3}",
    summary="One EfficientNet-B3 on the cropped lesion in B-mode, mean over the places, one layer.",
    claims=(*P2_B, *P3_B),
    open_choices=(
        GAMMA_2022,
        SELECTION_2022,
        *ON_ONE,
        OpenChoice(
            "P2's accuracy",
            "74.5 %, outside 75.0 % to 77.0 %, its own sensitivity and specificity",
            "no pooled table gives that; figures are quoted as printed",
        ),
        OpenChoice(
            "P2's interval of the AUC",
            "0.72 to 0.83 in the text, 0.70 to 0.83 in table 3",
            "the text is quoted",
        ),
        OpenChoice(
            "P3's sensitivity",
            "0.778 in results and table 2, 0.802 in the abstract",
            "table 2 is quoted",
        ),
    ),
    parameters={"EfficientNet-B3, 2 classes": 10_699_306},
)
CARD_CEUS = Card(
    name="ceus-net",
    title="CEUS-mode-Net: EfficientNet-B3 on contrast mode alone (P2, P3)",
    reference=f"{P2} {P3}",
    summary="One EfficientNet-B3 on the cropped lesion in contrast mode, mean over the places, "
    "one layer.",
    claims=(*P2_CEUS, *P3_CEUS),
    open_choices=(
        GAMMA_2022,
        SELECTION_2022,
        *ON_ONE,
        OpenChoice(
            "P3's sensitivity",
            "0.802 in results and table 2, 0.778 in the abstract",
            "table 2 is quoted",
        ),
    ),
    parameters={"EfficientNet-B3, 2 classes": 10_699_306},
)

ONLY_CLASSES = frozenset({Task.CLASSIFICATION})
MUFNET_2022 = System(
    CARD_2022.name,
    CARD_2022,
    MufNetParams,
    ONLY_CLASSES,
    Task.CLASSIFICATION,
    build_fused,
    loss_fused,
    decode_both,
    guide_share,
    takes=(BOTH,),
    missing=True,
    features=True,
)
MUFNET_2025 = replace(MUFNET_2022, name=CARD_2025.name, card=CARD_2025)
BMODE_NET = System(
    CARD_B.name,
    CARD_B,
    SingleParams,
    ONLY_CLASSES,
    Task.CLASSIFICATION,
    build_single,
    loss_single,
    decode_single,
    guide_share,
    takes=((Mode.B,),),
    features=True,
)
CEUS_NET = replace(BMODE_NET, name=CARD_CEUS.name, card=CARD_CEUS, takes=((Mode.CEUS,), (Mode.B,)))
SYSTEMS = (MUFNET_2022, MUFNET_2025, BMODE_NET, CEUS_NET)
