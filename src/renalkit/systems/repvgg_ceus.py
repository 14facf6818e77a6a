"""P4: RepVGG on contrast-enhanced ultrasound, Fuhrman grade of clear cell carcinoma."""

from __future__ import annotations

from collections.abc import Callable
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

if TYPE_CHECKING:
    from renalkit.learn.outputs import Losses, Net, Outputs, Targets


class RepVGGParams(BalancedParams):
    """Choices of RepVGG; class-balanced cross-entropy by default."""

    layout: Literal["a0", "a1", "a2", "b0", "b1"] = Field(
        default="a0", description="blocks and widths of the published networks"
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="before the last layer")
    focal: Literal["sigmoid", "softmax"] = Field(
        default="softmax", description="which loss gamma focuses"
    )
    gamma: float = Field(default=0.0, ge=0, le=10, description="focusing; 0 is cross-entropy")


CARD = Card(
    name="repvgg-ceus",
    title="RepVGG on contrast-enhanced ultrasound: Fuhrman I-II or III-IV (P4)",
    reference=(
        "Bai Y, An ZC, Li F, et al. Deep learning using contrast-enhanced ultrasound images to "
        "predict the nuclear grade of clear cell renal cell carcinoma. World J Urol 2024;42:184. "
        "Network: Ding X, et al. RepVGG. CVPR 2021."
    ),
    summary=(
        "RepVGG learns with three branches per block and answers with one 3x3 convolution per "
        "block; the mean over the places and one linear layer let plain class activation maps "
        "show what counted."
    ),
    claims=tuple(
        Claim(
            metric,
            value,
            "abstract: test set",
            unit="not stated (177 cases)",
            task="classification",
        )
        for metric, value in (
            ("sensitivity", 0.748),
            ("specificity", 0.791),
            ("accuracy", 0.770),
            ("auc", 0.852),
        )
    ),
    open_choices=(
        OpenChoice(
            "network",
            "RepVGG, which one is not said (abstract only)",
            "A0; A1, A2, B0 and B1 offered",
            "layout, width",
        ),
        OpenChoice("input", "CEUS images", "224 px; the side of the experiment; B-mode alone too"),
        OpenChoice(
            "loss",
            "not given",
            "class-balanced cross-entropy, weights normalised",
            "gamma, focal, normalise_weights",
        ),
        COUNTED,
        TWICE,
        ORDERED,
        OpenChoice("optimiser", "not given", "SGD, 0.01, cosine; choices of the experiment"),
        OpenChoice("dropout", "not given", "none", "dropout"),
        OpenChoice(
            "start of the weights",
            "not given",
            "random; the authors' ImageNet weights load from a local file",
            "init_weights, init_sha256",
        ),
        OpenChoice(
            "form that is scored",
            "not given",
            "after re-parameterisation, checked against the form that learned",
        ),
        OpenChoice(
            "share of high grade",
            "not given",
            "counted in the training part of each fold",
        ),
    ),
    parameters={
        "RepVGG-A0, 2 classes, while learning": 7_830_530,
        "RepVGG-A0, 1000 classes, while learning": 9_108_968,
        "RepVGG-A0, 1000 classes, merged": 8_309_384,
        "RepVGG-A1, 1000 classes, while learning": 14_092_264,
        "RepVGG-A1, 1000 classes, merged": 12_789_864,
        "RepVGG-A2, 1000 classes, while learning": 28_210_600,
        "RepVGG-A2, 1000 classes, merged": 25_499_944,
        "RepVGG-B0, 1000 classes, while learning": 15_817_960,
        "RepVGG-B0, 1000 classes, merged": 14_339_048,
        "RepVGG-B1, 1000 classes, while learning": 57_415_016,
        "RepVGG-B1, 1000 classes, merged": 51_829_480,
    },
)


def build(params: RepVGGParams, shape: Shape, task: Task) -> Net:
    """The form that learns, from ImageNet weights where given.

    Raises:
        ConfigError: more than one modality, or neither grey nor colour.
        ModelRefused: the weight file does not fit.
    """
    from renalkit.learn.nets.repvgg import (  # torch loads only when a net is built
        Layout,
        RepVGG,
        RepVGGPlan,
    )
    from renalkit.learn.nets.spec import NetSpec

    if len(shape.modalities) != 1 or shape.channels not in {1, 3}:
        raise ConfigError(
            [
                f"modalities {', '.join(shape.modalities)} with {shape.channels} channels; "
                "expected one modality, grey or colour"
            ],
            where="network shape",
        )
    spec = NetSpec(
        shape.channels, shape.size, shape.n_classes, segments=False, classifies=True, multiple=1
    )
    plan = RepVGGPlan(Layout(params.layout), params.width, params.dropout, params.head == "ordinal")
    net = RepVGG(spec, shape.modalities[0].value, plan)
    if params.init_weights is not None and params.init_sha256 is not None:
        net.start(params.init_weights, params.init_sha256)
    return net


def loss(
    params: RepVGGParams, task: Task, balance: ClassBalance
) -> Callable[[Outputs, Targets], Losses]:
    """Class-balanced cross-entropy, or what the parameters ask for."""
    return loss_of(params, balance)


def decode(params: RepVGGParams, raw: RawOutputs) -> list[Decoded]:
    """Class scores per image."""
    return decode_arrays(raw)


def guide_share(params: RepVGGParams, progress: float) -> float:
    """0: no reference mask is looked at."""
    return 0.0


SYSTEMS = (
    System(
        CARD.name,
        CARD,
        RepVGGParams,
        frozenset({Task.CLASSIFICATION}),
        Task.CLASSIFICATION,
        build,
        loss,
        decode,
        guide_share,
        takes=((Mode.CEUS,), (Mode.B,)),
    ),
)
