"""What is known of a CT scan of a cohort: its labels, and which voxels are which lesion?"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from renalkit.domain.cohort import Cohort
from renalkit.domain.sample import SampleKey
from renalkit.domain.study import Lesion, Study
from renalkit.domain.volume import Volume
from renalkit.errors import InputRefused, Reason

_SHIFTED_VOXELS = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class ScanTruth:
    """The reference of one scan, on its own grid.

    labels: (Z,Y,X) uint8, 0 neither, 1 kidney, 2 tumour, 3 cyst. instances: (Z,Y,X) uint8, the
    number of each lesion, 0 elsewhere. lesions: by that number, from 1 in the order of the study;
    only those drawn on this scan.
    """

    key: SampleKey
    volume: Volume
    labels: npt.NDArray[np.uint8] = field(repr=False)
    instances: npt.NDArray[np.uint8] = field(repr=False)
    lesions: Mapping[int, Lesion]

    @property
    def classes(self) -> dict[int, str]:
        """Class in the cohort's task, by number; lesions of unknown class are left out."""
        return {n: one.label for n, one in self.lesions.items() if one.label is not None}


def labelled_scans(cohort: Cohort, phases: Collection[str] = ()) -> tuple[SampleKey, ...]:
    """The scans of a cohort that have labels, in order: what can be learnt from and tested on.

    phases: only these; none for all.
    """
    return tuple(
        scan_key(study, clip)
        for study in cohort.studies
        for clip, volume in enumerate(study.clips)
        if isinstance(volume, Volume)
        and volume.labels is not None
        and (not phases or volume.phase in phases)
    )


def scan_key(study: Study, clip: int) -> SampleKey:
    """How a scan is named: clip number `clip` of its study, frame 0, no lesion."""
    return SampleKey(study.patient, study.key, "", clip, 0)


def scan_truth(study: Study, clip: int) -> ScanTruth:
    """The reference of one scan of a study.

    Lesions are drawn on one phase of a study; where no lesion is drawn on this scan, those of a
    phase on the same grid are its own. Where two overlap, the later one has the voxel.

    Raises:
        InputRefused: BAD_ANNOTATION, a clip that is no volume or has no labels; TOO_LARGE, more
            than 255 lesions.
    """
    key = scan_key(study, clip)
    volume = study.clips[clip]
    if not isinstance(volume, Volume) or volume.labels is None:
        raise InputRefused(
            Reason.BAD_ANNOTATION,
            "a scan without labels" if isinstance(volume, Volume) else "no CT volume",
            where=key.text,
            expected="a CT volume with kidney and masses labelled",
            remedy="ingest it with its label file",
        )
    if len(study.lesions) > 255:
        raise InputRefused(
            Reason.TOO_LARGE, f"{len(study.lesions)} lesions", where=key.text, expected="255"
        )
    drawn_on = _drawn_on(study, clip, volume)
    instances = np.zeros(volume.grid.shape, np.uint8)
    lesions: dict[int, Lesion] = {}
    for number, lesion in enumerate(study.lesions, start=1):
        for roi in lesion.rois:
            if roi.clip == drawn_on and roi.mask is not None and roi.mask.area_px:
                instances[roi.frame][roi.mask.decode()] = number
                lesions[number] = lesion
    there = set(np.unique(instances).tolist())
    drawn = volume.labels.pixels
    return ScanTruth(
        key=key,
        volume=volume,
        labels=np.stack([np.asarray(drawn[k], np.uint8) for k in range(volume.n_frames)]),
        instances=instances,
        lesions={n: one for n, one in lesions.items() if n in there},
    )


def _drawn_on(study: Study, clip: int, volume: Volume) -> int:
    """The clip whose outlines are those of this scan."""
    clips = sorted({roi.clip for lesion in study.lesions for roi in lesion.rois})
    if clip in clips:
        return clip
    for other in clips:
        one = study.clips[other]
        if isinstance(one, Volume) and one.grid.shift_from(volume.grid) < _SHIFTED_VOXELS:
            return other
    return clip
