"""What a published system must provide to take part in training, comparison and prediction.

A system file holds Params, CARD, preprocess, decode and SYSTEMS at module level and imports its
network from learn inside `build` and `loss`, so that listing systems never loads torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from renalkit import RESEARCH_ONLY
from renalkit.domain.image import Mode

if TYPE_CHECKING:
    from renalkit.learn.outputs import Losses, Net, Outputs, Targets


class Task(StrEnum):
    """What a system is asked to do."""

    SEGMENTATION = "segmentation"
    CLASSIFICATION = "classification"
    BOTH = "both"

    @property
    def segments(self) -> bool:
        return self is not Task.CLASSIFICATION

    @property
    def classifies(self) -> bool:
        return self is not Task.SEGMENTATION


class Params(BaseModel):
    """Base of every system's typed parameters: unknown keys are refused, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class Claim:
    """One published figure: metric, value, interval, the unit and number it was counted in."""

    metric: str
    value: float
    where: str
    low: float | None = None
    high: float | None = None
    unit: str | None = None
    n: int | None = None
    task: str = ""


@dataclass(frozen=True, slots=True)
class OpenChoice:
    """A point the paper leaves open and what is chosen here."""

    topic: str
    paper_says: str
    chosen: str
    param: str = ""


@dataclass(frozen=True, slots=True)
class Card:
    """A published system as an object: its claims, what it left open, what was chosen."""

    name: str
    title: str
    reference: str
    summary: str
    claims: tuple[Claim, ...]
    open_choices: tuple[OpenChoice, ...]
    parameters: Mapping[str, int]
    intended_use: str = RESEARCH_ONLY


@dataclass(frozen=True, slots=True)
class Shape:
    """Size of what goes in and comes out: input channels, side in pixels, number of classes.

    modalities: whose channels are stacked in the input, in this order. features: names of the
    numbers given beside the picture, for instance perfusion figures.
    """

    channels: int = 1
    size: int = 128
    n_classes: int = 2
    modalities: tuple[Mode, ...] = (Mode.B,)
    features: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ClassBalance:
    """What a loss may know of the training part: images per class in task order, and the weights
    asked for by `class_weights` (None: none)."""

    counts: tuple[int, ...]
    weights: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Decoded:
    """Network results of one image on the network grid, framework-free.

    mask: (s,s) float32 probability or None; scores: (k,) float64 summing to 1 or None;
    attention: (s,s) float32 in [0,1] or None. modality_weights: how much each modality of a fused
    network counted (alpha, beta of P2), in the order of the shape; None where there is no fusion.
    modalities: those the scores come from, fewer than asked for when one was missing; None where
    nothing could be missing.
    """

    mask: npt.NDArray[np.float32] | None
    scores: npt.NDArray[np.float64] | None
    attention: npt.NDArray[np.float32] | None = None
    modality_weights: tuple[float, ...] | None = None
    modalities: tuple[Mode, ...] | None = None


P = TypeVar("P", bound=Params)
RawOutputs = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class System(Generic[P]):
    """A system users can name.

    build(params, shape, task) -> Net
    loss(params, task, balance) -> callable (Outputs, Targets) -> Losses
    decode(params, raw) -> one Decoded per image; raw holds arrays 'mask_logits' (b,h,s,s),
        'class_logits' (b,k), 'attention' (b,1,s,s), 'branch_logits' (b,m,k) and
        'modality_weights' (b,m) as far as the system has them, and 'present' (b,m) bool, False
        where a modality was missing
    guide_share(params, progress) -> share of the reference mask shown to the network,
        progress in [0,1] of training; 0 for systems without coupling
    takes: the sets of modalities its network can be built for; the first is the usual one
    missing: whether it can answer when one of its modalities is missing
    features: whether numbers beside the picture can be given to it
    """

    name: str
    card: Card
    params_type: type[P]
    tasks: frozenset[Task]
    default_task: Task
    build: Callable[[P, Shape, Task], Net]
    loss: Callable[[P, Task, ClassBalance], Callable[[Outputs, Targets], Losses]]
    decode: Callable[[P, RawOutputs], list[Decoded]]
    guide_share: Callable[[P, float], float]
    takes: tuple[tuple[Mode, ...], ...] = ((Mode.B,),)
    missing: bool = False
    features: bool = False

    def params(self, given: Mapping[str, Any] | None = None) -> P:
        """The typed parameters; unknown keys and wrong values raise pydantic's ValidationError."""
        return self.params_type.model_validate(dict(given or {}))
