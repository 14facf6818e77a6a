"""What a network is given: one frame with its truth, and which patient it belongs to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

import numpy as np
import numpy.typing as npt

from renalkit.domain.cohort import ClassTask, Cohort
from renalkit.domain.geometry import Box, MaskRLE, SpacingMm
from renalkit.domain.image import Frame, Mode
from renalkit.domain.study import Lesion, Roi, RoiOrigin, Study


@dataclass(frozen=True, slots=True, order=True)
class SampleKey:
    """Frame < lesion < patient. lesion is '' for a frame without lesion."""

    patient: str
    study: str
    lesion: str
    clip: int
    frame: int

    @property
    def text(self) -> str:
        """One word for tables and file names."""
        return f"{self.study}.{self.clip}.{self.frame}"


@dataclass(frozen=True, slots=True)
class Beside:
    """The contrast frame of the same instant: its clip and frame in the study, and the lesion."""

    clip: int
    frame: int
    box: Box


@dataclass(frozen=True, slots=True)
class Sample:
    """One frame with its truth; pixels are read when `load` is called.

    label: class index, None when unknown. mask: union of the lesions on this frame, known and
    empty for a frame without lesion, None when nobody outlined the lesion. box: around the
    lesions of this frame, None when there is none. beside: the contrast frame of the same
    instant, where there is one and the lesion is known on both.
    """

    key: SampleKey
    study: Study
    label: int | None
    mask: MaskRLE | None
    roi_origin: RoiOrigin = RoiOrigin.REFERENCE
    box: Box | None = None
    beside: Beside | None = None

    @property
    def spacing_mm(self) -> SpacingMm | None:
        return self.study.clips[self.key.clip].spacing_mm

    def load(self) -> Frame:
        """The frame with its pixels."""
        return self.study.clips[self.key.clip].frame(self.key.frame)


def _union(masks: list[MaskRLE]) -> MaskRLE:
    if len(masks) == 1:
        return masks[0]
    total: npt.NDArray[np.bool_] = masks[0].decode()
    for mask in masks[1:]:
        total = total | mask.decode()
    return MaskRLE.encode(total)


def roi_box(roi: Roi) -> Box:
    """The region's own box, or the one around its mask.

    Raises:
        ValueError: an empty mask.
    """
    if roi.box is not None:
        return roi.box
    assert roi.mask is not None
    box = roi.mask.box
    if box is None:
        raise ValueError(f"an empty region on clip {roi.clip}, frame {roi.frame}")
    return box


def _around(rois: Iterable[Roi]) -> Box | None:
    """One box around all regions that mark something."""
    boxes = [roi_box(r) for r in rois if r.mask is None or r.mask.area_px]
    return reduce(Box.union, boxes) if boxes else None


def _annotated(study: Study, task: ClassTask) -> Iterable[Sample]:
    places: dict[tuple[int, int], list[Lesion]] = {}
    for lesion in study.lesions:
        for roi in lesion.rois:
            places.setdefault((roi.clip, roi.frame), []).append(lesion)
    for (clip, frame), lesions in sorted(places.items()):
        if study.clips[clip].mode not in (Mode.B, Mode.DUAL):
            continue
        rois = [r for le in lesions for r in le.rois if (r.clip, r.frame) == (clip, frame)]
        masks = [r.mask for r in rois if r.mask is not None]
        labels = {le.label for le in lesions}
        label = labels.pop() if len(labels) == 1 else None
        yield Sample(
            key=SampleKey(study.patient, study.key, lesions[0].key, clip, frame),
            study=study,
            label=None if label is None else task.index(label),
            mask=_union(masks) if len(masks) == len(rois) else None,
            roi_origin=max((r.origin for r in rois), key=list(RoiOrigin).index),
            box=_around(rois),
        )


def _unannotated(study: Study, task: ClassTask) -> Iterable[Sample]:
    """Stills of lesions nobody outlined, and every frame of studies without lesion."""
    labels = {le.label for le in study.lesions} or {study.label}
    label = labels.pop() if len(labels) == 1 else None
    lesion = study.lesions[0].key if study.lesions else ""
    for c, clip in enumerate(study.clips):
        if clip.mode not in (Mode.B, Mode.DUAL):
            continue
        known_empty = not study.lesions and study.label is not None
        empty = MaskRLE(clip.rows, clip.cols, (clip.rows * clip.cols,)) if known_empty else None
        for f in range(clip.n_frames):
            yield Sample(
                key=SampleKey(study.patient, study.key, lesion, c, f),
                study=study,
                label=None if label is None else task.index(label),
                mask=empty,
            )


def b_mode_samples(cohort: Cohort, *, known: bool = True) -> tuple[Sample, ...]:
    """Every B-mode frame with a usable truth, sorted by key: P1's unit of training.

    Frames whose lesions disagree in class keep their mask and have no label. A frame with
    neither label nor mask is left out, unless known is False: then nothing need be known.
    """
    found: list[Sample] = []
    for study in cohort.studies:
        outlined = any(le.rois for le in study.lesions)
        source = _annotated(study, cohort.task) if outlined else _unannotated(study, cohort.task)
        found += [s for s in source if not known or s.label is not None or s.mask is not None]
    return tuple(sorted(found, key=lambda s: s.key))
