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
    intended_use: str = (
        "Research use only. Not a medical device. Not for diagnosis or treatment decisions."
    )


@dataclass(frozen=True, slots=True)
class Shape:
    """Size of what goes in and comes out: input channels, side in pixels, number of classes."""

    channels: int = 1
    size: int = 128
    n_classes: int = 2


@dataclass(frozen=True, slots=True)
class Decoded:
    """Network results of one image on the network grid, framework-free.

    mask: (s,s) float32 probability or None; scores: (k,) float64 summing to 1 or None;
    attention: (s,s) float32 in [0,1] or None.
    """

    mask: npt.NDArray[np.float32] | None
    scores: npt.NDArray[np.float64] | None
    attention: npt.NDArray[np.float32] | None = None


P = TypeVar("P", bound=Params)
RawOutputs = Mapping[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class System(Generic[P]):
    """A system users can name.

    build(params, shape, task) -> Net
    loss(params, task, class_weights) -> callable (Outputs, Targets) -> Losses
    decode(params, raw) -> one Decoded per image; raw holds arrays 'mask_logits' (b,h,s,s),
        'class_logits' (b,k) and 'attention' (b,1,s,s) as far as the system has them
    guide_share(params, progress) -> share of the reference mask shown to the network,
        progress in [0,1] of training; 0 for systems without coupling
    """

    name: str
    card: Card
    params_type: type[P]
    tasks: frozenset[Task]
    default_task: Task
    build: Callable[[P, Shape, Task], Net]
    loss: Callable[[P, Task, tuple[float, ...] | None], Callable[[Outputs, Targets], Losses]]
    decode: Callable[[P, RawOutputs], list[Decoded]]
    guide_share: Callable[[P, float], float]

    def params(self, given: Mapping[str, Any] | None = None) -> P:
        """The typed parameters; unknown keys and wrong values raise pydantic's ValidationError."""
        return self.params_type.model_validate(dict(given or {}))
