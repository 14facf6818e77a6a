"""How is a CT cohort written as an nnU-Net raw data set?

    Dataset007_NAME/dataset.json
    Dataset007_NAME/imagesTr/s-KEY_0000.nii.gz     a channel per volume of the study
    Dataset007_NAME/labelsTr/s-KEY.nii.gz

Cases carry the pseudonyms of their studies. nnU-Net takes one grid per case and as many channels
in every case: a study whose volumes differ in grid, one without labels, one whose slices are
unevenly spaced, or with another number of volumes than most, is left out with the reason.
splits_final.json, where asked for, holds the folds: patients stay together.

Source: github.com/MIC-DKFZ/nnUNet, documentation/dataset_format.md.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from renalkit.domain.cohort import Cohort
from renalkit.domain.image import PixelStack
from renalkit.domain.study import Study
from renalkit.domain.volume import CYST, KIDNEY, TUMOUR, Volume
from renalkit.errors import ConfigError, InputRefused, Reason
from renalkit.store.files import write_json
from renalkit.writers.nifti import write_nifti

LABELS = {"background": 0, "kidney": KIDNEY, "tumour": TUMOUR, "cyst": CYST}
_NAME = re.compile(r"Dataset\d{3}_[A-Za-z0-9_-]+")


def write_nnunet(
    folder: Path, cohort: Cohort, folds: Sequence[tuple[Sequence[str], Sequence[str]]] = ()
) -> Mapping[str, str]:
    """Write the data set; the studies that were left out, with their reasons.

    folder: its name is that of the data set. folds: patients to train on and to validate on.

    Raises:
        ConfigError: a folder name of another form.
        InputRefused: EMPTY, no study could be written.
        StoreError: the disk refused.
    """
    if not _NAME.fullmatch(folder.name):
        raise ConfigError([f"--output: '{folder.name}' is not of the form Dataset007_Name"])
    channels = Counter(len(s.clips) for s in cohort.studies)
    usual = min(channels, key=lambda n: (-channels[n], n), default=0)
    left: dict[str, str] = {}
    written: list[Study] = []
    for study in cohort.studies:
        why = _unfit(study, usual)
        if why:
            left[study.key] = why
            continue
        for n, clip in enumerate(study.clips):
            assert isinstance(clip, Volume)
            place = folder / "imagesTr" / f"{study.key}_{n:04d}.nii.gz"
            write_nifti(place, _whole(clip.pixels), clip.grid)
        first = study.clips[0]
        assert isinstance(first, Volume)
        assert first.labels is not None
        labels = _whole(first.labels.pixels)
        write_nifti(folder / "labelsTr" / f"{study.key}.nii.gz", labels, first.grid)
        written.append(study)
    if not written:
        raise InputRefused(
            Reason.EMPTY,
            f"none of {len(cohort.studies)} studies can be an nnU-Net case",
            where=cohort.name,
            expected="CT volumes with labels on one even grid per study",
            remedy="; ".join(sorted(set(left.values()))[:3]) or "use another cohort",
        )
    head = {
        "channel_names": {str(n): "CT" for n in range(usual)},
        "labels": LABELS,
        "numTraining": len(written),
        "file_ending": ".nii.gz",
    }
    if folds:
        split = [
            {
                name: [s.key for s in written if s.patient in set(patients)]
                for name, patients in (("train", train), ("val", validation))
            }
            for train, validation in folds
        ]
        write_json(folder / "splits_final.json", split)
    write_json(folder / "dataset.json", head)
    return left


def _unfit(study: Study, channels: int) -> str:
    """Why a study is no case; empty when it is one."""
    volumes = [c for c in study.clips if isinstance(c, Volume)]
    if len(volumes) != len(study.clips):
        return "not all of it are CT volumes"
    first = volumes[0]
    if first.labels is None:
        return "no labels are drawn"
    if len(volumes) != channels:
        return f"{len(volumes)} volumes, most studies have {channels}"
    if any(v.grid.slice_at is not None for v in volumes):
        return "slices at uneven distances"
    if any(v.grid.shift_from(first.grid) > 0.1 for v in volumes):
        return "volumes on different grids"
    return ""


def _whole(stack: PixelStack) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    return np.stack([np.asarray(stack[k]) for k in range(int(stack.shape[0]))])
