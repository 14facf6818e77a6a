"""Which B-mode and contrast pictures show the same lesion at the same instant?

Two clips of one study are panes of one cine when they come from the same file, or from two files
that name each other as partners, and one is B-mode, the other contrast. Their frames are paired by
their number in that file, so pairing is data and not order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from renalkit.domain.cohort import Cohort
from renalkit.domain.geometry import Box
from renalkit.domain.image import Mode
from renalkit.domain.sample import Beside, Sample, SampleKey, b_mode_samples, roi_box
from renalkit.domain.study import Lesion, RoiOrigin, Study

MARGIN_MAX = 0.3
"""Largest margin around a lesion, as a share of its box (P2 and P3 cut the lesion out)."""

FEATURE_PREFIX = "perfusion_"
"""Facts of a study with this prefix are figures of its contrast curves."""


@dataclass(frozen=True, slots=True)
class FramePair:
    """A B-mode frame, its contrast partner and the lesion on both.

    key names the B-mode frame; contrast and contrast_frame the clip and frame beside it. label:
    class index, None when unknown. roi_origin: the less certain of both regions' origins (L14).
    """

    key: SampleKey
    study: Study
    contrast: int
    contrast_frame: int
    label: int | None
    bmode_box: Box
    contrast_box: Box
    roi_origin: RoiOrigin

    @property
    def features(self) -> Mapping[str, float]:
        """Figures of the study's contrast curves by name, for instance "perfusion_lesion_ttp_s"."""
        return perfusion_features(self.study)


def frame_pairs(cohort: Cohort) -> tuple[FramePair, ...]:
    """Every pair of a cohort on which a lesion is outlined in both panes, sorted by key."""
    found = [
        pair
        for study in cohort.studies
        for lesion in study.lesions
        for pair in _of_lesion(study, lesion, cohort)
    ]
    return tuple(sorted(found, key=lambda p: p.key))


def paired_samples(cohort: Cohort, *, known: bool = True) -> tuple[Sample, ...]:
    """Every B-mode frame with a usable truth and, where there is one, its contrast partner.

    The same frames in the same order as `b_mode_samples`. known: as there.
    """
    partners = {
        pair.key: (Beside(pair.contrast, pair.contrast_frame, pair.contrast_box), pair.roi_origin)
        for pair in frame_pairs(cohort)
    }
    found: list[Sample] = []
    for sample in b_mode_samples(cohort, known=known):
        beside, origin = partners.get(sample.key, (None, sample.roi_origin))
        found.append(replace(sample, beside=beside, roi_origin=origin))
    return tuple(found)


def perfusion_features(study: Study) -> dict[str, float]:
    """The named vector of perfusion figures of a study, by name; empty when there are none."""
    return {
        name: float(value)
        for name, value in sorted(study.covariates.items())
        if name.startswith(FEATURE_PREFIX) and not isinstance(value, str)
    }


def panes(study: Study) -> tuple[tuple[int, int], ...]:
    """Numbers of the B-mode and contrast clips that are panes of one cine.

    Raises:
        ValueError: a cine has both kinds, and more than one pane of one.
    """
    of_files: dict[frozenset[str], dict[Mode, list[int]]] = {}
    for number, clip in enumerate(study.clips):
        if clip.mode in (Mode.B, Mode.CEUS):
            kinds = of_files.setdefault(clip.source.files, {})
            kinds.setdefault(clip.mode, []).append(number)
    found = [kinds for kinds in of_files.values() if len(kinds) == 2]
    for kinds in found:
        if any(len(numbers) > 1 for numbers in kinds.values()):
            raise ValueError("more than two panes of one file, or of one pair of files")
    return tuple((kinds[Mode.B][0], kinds[Mode.CEUS][0]) for kinds in found)


def _of_lesion(study: Study, lesion: Lesion, cohort: Cohort) -> Iterator[FramePair]:
    rois = {(roi.clip, roi.frame): roi for roi in lesion.rois}
    for bmode, contrast in panes(study):
        here, beside = study.clips[bmode], study.clips[contrast]
        partner = {beside.source_frame(i): i for i in range(beside.n_frames)}
        for frame in range(here.n_frames):
            other = partner.get(here.source_frame(frame))
            if other is None:
                continue
            pair = rois.get((bmode, frame)), rois.get((contrast, other))
            if pair[0] is None or pair[1] is None:
                continue
            yield FramePair(
                key=SampleKey(study.patient, study.key, lesion.key, bmode, frame),
                study=study,
                contrast=contrast,
                contrast_frame=other,
                label=None if lesion.label is None else cohort.task.index(lesion.label),
                bmode_box=roi_box(pair[0]),
                contrast_box=roi_box(pair[1]),
                roi_origin=max((r.origin for r in pair if r), key=list(RoiOrigin).index),
            )
