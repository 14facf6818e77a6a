"""What does a trained model say about pictures, whatever computes its networks?

A model is one or more networks (members) that were trained alike, each with the way its frames
become patients. How a member is computed is behind one port: prepared pictures in, named arrays
out. `run_model` makes members of a run's folds with torch; nothing here needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from renalkit.domain.cohort import ClassTask, Cohort
from renalkit.domain.geometry import MaskRLE
from renalkit.domain.image import Clip, Mode, Source
from renalkit.domain.prediction import Prediction, SystemRef, Unit
from renalkit.domain.sample import Sample
from renalkit.domain.study import Study
from renalkit.errors import InputRefused, Reason
from renalkit.learn.prepared import Inputs, PreparedSet, prepare
from renalkit.metrics.classification import Threshold
from renalkit.metrics.detection import region_scores
from renalkit.metrics.patient_way import FoldWay
from renalkit.systems import get_system
from renalkit.systems._contract import Decoded, RawOutputs, Task
from renalkit.transforms.preprocess import Placement, Preprocess
from renalkit.usecases.experiment import Job
from renalkit.usecases.parts import samples_of, usable
from renalkit.usecases.progress import Silent

MASK_THRESHOLD = 0.5
"""Probability from which a pixel counts as lesion. Fixed, so that nothing is tuned on test data."""

BATCH = 32
"""Pictures prepared and scored at once."""

Scorer = Callable[[PreparedSet], Iterable[RawOutputs]]
"""One network: prepared pictures -> what `System.decode` takes, in their order, a few at a time.

Raises ModelRefused for results that are not finite."""

_NOBODY = "0" * 20


@dataclass(frozen=True, slots=True)
class Member:
    """One network of a model. way, threshold: of the fold that it was trained in; threshold None
    where there is none."""

    fold: int
    weights_sha256: str
    score: Scorer = field(repr=False)
    way: FoldWay
    threshold: Threshold | None


@dataclass(frozen=True, slots=True)
class Model:
    """A trained system. name: where it is from; engine: what computes it; params: of the system;
    input, inputs: what its networks are given."""

    name: str
    engine: str
    label: str
    system: str
    kind: Task
    params: dict[str, Any]
    input: Preprocess
    inputs: Inputs
    task: ClassTask
    members: tuple[Member, ...]

    @classmethod
    def of(
        cls, name: str, engine: str, job: Job, task: ClassTask, members: Iterable[Member]
    ) -> Model:
        """The model of a job of an experiment, wherever its networks lie."""
        return cls(
            name=name,
            engine=engine,
            label=job.label,
            system=job.system,
            kind=job.task,
            params=job.params,
            input=job.input,
            inputs=job.inputs,
            task=task,
            members=tuple(members),
        )

    @property
    def whole_frames(self) -> bool:
        """Whether it looks at B-mode frames as they are, so that nobody need say where the lesion
        is."""
        return self.inputs.modalities == (Mode.B,) and self.input.region == "frame"

    @property
    def answers_from_b_mode(self) -> bool:
        """Whether it can say something about a B-mode picture without contrast."""
        missing = get_system(self.system).missing
        modalities = self.inputs.modalities
        return modalities == (Mode.B,) or (missing and Mode.B in modalities)

    def decoded(self, data: PreparedSet) -> list[list[Decoded]]:
        """What each member says of each picture: members in order, then pictures."""
        system = get_system(self.system)
        params = system.params(self.params)
        return [
            [found for raw in member.score(data) for found in system.decode(params, raw)]
            for member in self.members
        ]

    def predictions(
        self, sample: Sample, placement: Placement, decoded: Sequence[Decoded]
    ) -> list[Prediction]:
        """One prediction per member."""
        return [
            prediction_of(sample, d, placement, self._ref(m), m.fold)
            for m, d in zip(self.members, decoded, strict=True)
        ]

    def _ref(self, member: Member) -> SystemRef:
        return SystemRef(self.system, self.label, member.weights_sha256)


@dataclass(frozen=True, slots=True)
class Scored:
    """What the members of a model say of one sample. decoded: one per member."""

    sample: Sample
    placement: Placement
    decoded: tuple[Decoded, ...]

    @property
    def probability(self) -> npt.NDArray[np.float32] | None:
        """(H,W) mean over the members in source geometry; None of a system without masks."""
        masks = [d.mask for d in self.decoded if d.mask is not None]
        if not masks:
            return None
        return self.placement.invert_mask(np.mean(masks, axis=0).astype(np.float32))


def new_samples(model: Model, study: Study) -> tuple[Sample, ...]:
    """The frames of a study the model is about; nothing need be known of its class.

    Without any frame of it the model can use, the result is empty.
    """
    cohort = Cohort("new", model.task, (study,))
    return samples_of(cohort, model.input.region, known=False)


@dataclass(frozen=True, slots=True)
class Unscored:
    """A sample nothing can be said about."""

    sample: Sample
    error: InputRefused


def scored(model: Model, samples: Sequence[Sample]) -> Iterator[Scored | Unscored]:
    """Every sample with what is said of it, or why nothing can be said; in their order.

    Raises ModelRefused for results that are not finite.
    """
    system = get_system(model.system)
    for start in range(0, len(samples), BATCH):
        chosen: list[Sample] = []
        parts: list[PreparedSet] = []
        refused: dict[int, InputRefused] = {}
        batch = samples[start : start + BATCH]
        for at, found in enumerate(_prepared(model, batch)):
            if isinstance(found, InputRefused):
                refused[at] = found
            elif not len(usable(found, system, "test", np.arange(1))):
                refused[at] = _lacking(model, batch[at])
            else:
                chosen.append(batch[at])
                parts.append(found)
        said = iter(_together(model, chosen, parts))
        for at, sample in enumerate(batch):
            yield Unscored(sample, refused[at]) if at in refused else next(said)


def _prepared(model: Model, batch: Sequence[Sample]) -> Iterator[PreparedSet | InputRefused]:
    """Each sample alone, so that one that cannot be used says so for itself."""
    for sample in batch:
        try:
            yield prepare([sample], model.input, None, 0, Silent(), model.inputs)
        except InputRefused as error:
            yield error


def _lacking(model: Model, sample: Sample) -> InputRefused:
    return InputRefused(
        Reason.MISSING_FILE,
        "no contrast picture of this instant on which the lesion is known"
        if sample.beside is None
        else "a picture that lacks what the network looks at",
        expected=" and ".join(model.inputs.modalities),
        remedy="give the dual cine, or both pictures of each pair",
    )


def _together(
    model: Model, samples: Sequence[Sample], parts: Sequence[PreparedSet]
) -> Iterator[Scored]:
    if not samples:
        return
    data = joined(parts)
    members = model.decoded(data)
    for i, sample in enumerate(samples):
        yield Scored(sample, data.placements[i], tuple(said[i] for said in members))


def joined(parts: Sequence[PreparedSet]) -> PreparedSet:
    """Prepared sets of one kind as one."""
    return PreparedSet(
        **{
            name: np.concatenate([getattr(p, name) for p in parts])
            for name in ("images", "masks", "has_mask", "labels", "levels", "present", "features")
        },
        placements=tuple(x for p in parts for x in p.placements),
        keys=tuple(x for p in parts for x in p.keys),
    )


def outline_of(model: Model, pixels: npt.NDArray[Any], where: str) -> npt.NDArray[np.bool_] | None:
    """(H,W) of the largest region that a segmentation model marks; None where it sees no lesion.

    pixels: (H,W) or (H,W,3). where: name for messages.

    Raises:
        InputRefused: a frame no network can say anything about.
    """
    source = Source("", "", "picture")
    clip = Clip(np.asarray(pixels)[None], "", Mode.B, source)
    study = Study(f"s-{_NOBODY}", f"p-{_NOBODY}", (clip,))
    (found,) = scored(model, new_samples(model, study))
    if isinstance(found, Unscored):
        error = found.error
        raise InputRefused(
            error.reason, error.found, where=where, expected=error.expected, remedy=error.remedy
        )
    probability = found.probability
    assert probability is not None
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        (probability >= MASK_THRESHOLD).astype(np.uint8)
    )
    if count < 2:
        return None
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    return np.asarray(labels == largest)


def prediction_of(
    sample: Sample, decoded: Decoded, placement: Placement, ref: SystemRef, fold: int | None
) -> Prediction:
    """One image's result in source coordinates."""
    mask = mark_scores = None
    if decoded.mask is not None:
        probability = placement.invert_mask(decoded.mask)
        mask = MaskRLE.encode(probability >= MASK_THRESHOLD)
        mark_scores = region_scores(probability >= MASK_THRESHOLD, probability)
    return Prediction(
        unit=Unit.FRAME,
        key=sample.key,
        scores=None if decoded.scores is None else tuple(float(s) for s in decoded.scores),
        target=sample.label,
        system=ref,
        fold=fold,
        mask=mask,
        roi_origin=sample.roi_origin,
        mark_scores=mark_scores,
        modality_weights=decoded.modality_weights,
        modalities=decoded.modalities,
    )
