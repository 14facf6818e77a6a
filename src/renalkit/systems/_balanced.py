"""The class-balanced loss that P2, P3 and P4 share, and the choice of head that goes with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from renalkit.systems._contract import ClassBalance, OpenChoice
from renalkit.systems._start import ImageNetStart

if TYPE_CHECKING:
    from renalkit.learn.outputs import Losses, Outputs, Targets


class BalancedParams(ImageNetStart):
    """Choices of head and loss."""

    dropout: float = Field(default=0.3, ge=0, lt=1, description="before each last layer")
    head: Literal["softmax", "ordinal"] = Field(
        default="softmax",
        description="ordinal: classes in rising order, one threshold between neighbours (CORAL)",
    )
    focal: Literal["sigmoid", "softmax"] = Field(
        default="sigmoid",
        description="focal loss of every logit, or of the softmax; not used by an ordinal head",
    )
    gamma: float = Field(
        default=2.0, ge=0, le=10, description="focusing; 0 is cross-entropy; not used when ordinal"
    )
    beta: float = Field(
        default=0.9999,
        ge=0,
        lt=1,
        description="class weights (1 - beta) / (1 - beta^n), n training images of the class; 0 is "
        "none; not used where `[train]` asks for class weights",
    )
    normalise_weights: bool = Field(
        default=True,
        description="class weights sum to the number of classes; false leaves them raw",
    )


def loss_of(
    params: BalancedParams,
    balance: ClassBalance,
    *,
    fused_weight: float = 1.0,
    branch_weight: float = 0.0,
) -> Callable[[Outputs, Targets], Losses]:
    """The loss these parameters ask for."""
    from renalkit.learn.losses import (  # torch loads only for training
        BalancedPlan,
        balanced_loss,
        class_balanced_weights,
    )

    weights = balance.weights
    if weights is None:
        weights = class_balanced_weights(
            balance.counts, params.beta, normalised=params.normalise_weights
        )
    focal = "sigmoid-focal" if params.focal == "sigmoid" else "softmax-focal"
    return balanced_loss(
        BalancedPlan(
            per_image="ordinal" if params.head == "ordinal" else focal,
            gamma=params.gamma,
            class_weights=weights,
            fused_weight=fused_weight,
            branch_weight=branch_weight,
        )
    )


COUNTED = OpenChoice(
    "number of images in the class weights",
    "'the number of samples', images or patients not said",
    "images of the training part of the fold, before sampling; kept with each fold",
)
TWICE = OpenChoice(
    "double correction of imbalance",
    "class-balanced sampling and class-balanced loss together",
    "both, as stated; in P2's data they multiply the odds by 2.5, which calibration and prior "
    "correction inside the folds undo",
    "beta",
)
ORDERED = OpenChoice(
    "more than two classes",
    "two classes only",
    "any number; for grades 1 to 4 an ordinal head whose loss is class-balanced binary "
    "cross-entropy over the cuts",
    "head",
)
