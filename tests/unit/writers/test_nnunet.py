"""A cohort written for nnU-Net is read back as the same volumes and labels."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from renalkit.domain.cohort import ClassTask, Cohort
from renalkit.domain.image import Mode, Source, pixel_sha256
from renalkit.domain.study import Study
from renalkit.domain.volume import LabelMap, Volume, VolumeGrid, affine_of
from renalkit.errors import ConfigError, InputRefused
from renalkit.readers.contract import Limits, ReadContext
from renalkit.readers.decode_worker import DecodeWorker
from renalkit.readers.nnunet import read_nnunet
from renalkit.readers.pseudonyms import Pseudonyms
from renalkit.writers.nnunet import write_nnunet

AFFINE = affine_of(((0, 0, 2.0, -43.0), (0, 2.0, 0, -37.0), (3.0, 0, 0, -35.0), (0, 0, 0, 1)))
SHAPE = (6, 40, 44)


def study(n: int, *, labels: bool = True, at: tuple[float, ...] | None = None) -> Study:
    pixels = np.random.default_rng(n).integers(-1000, 1000, SHAPE).astype(np.int16)
    drawn = (pixels % 4).astype(np.uint8)
    volume = Volume(
        pixels=pixels,
        sha256=pixel_sha256(pixels),
        mode=Mode.CT,
        source=Source("0" * 64, "f-0", "nifti"),
        grid=VolumeGrid(SHAPE, AFFINE, at),
        labels=LabelMap(drawn, pixel_sha256(drawn)) if labels else None,
    )
    return Study(key=f"s-{n:020x}", patient=f"p-{n:020x}", clips=(volume,))


def cohort(*studies: Study) -> Cohort:
    return Cohort("c", ClassTask(("cyst", "tumour"), "tumour"), studies)


def test_it_is_read_back(tmp_path: Path) -> None:
    studies = [study(n) for n in range(3)]
    unfit = [study(7, labels=False), study(8, at=(0, 1, 2, 3, 4, 6))]
    unfit.append(replace(study(9), clips=study(9).clips * 2))
    folder = tmp_path / "Dataset007_Kidney"
    patients = [s.patient for s in studies]
    left = write_nnunet(folder, cohort(*studies, *unfit), [(patients[:2], patients[2:])])
    assert sorted(left) == [s.key for s in unfit]
    split = json.loads((folder / "splits_final.json").read_text())
    assert split == [{"train": [s.key for s in studies[:2]], "val": [studies[2].key]}]
    assert json.loads((folder / "dataset.json").read_text())["numTraining"] == 3
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    with DecodeWorker(Limits()) as worker:
        context = ReadContext(tmp_path, Pseudonyms(b"k" * 32), worker)
        found = [r.study for r in read_nnunet(files, context) if r.study is not None]
    assert len(found) == 3
    for one, original in zip(found, studies, strict=True):
        (a,), (b,) = one.clips, original.clips
        assert isinstance(a, Volume)
        assert isinstance(b, Volume)
        assert a.sha256 == b.sha256
        assert a.grid.shift_from(b.grid) < 1e-4
        assert a.labels is not None
        assert b.labels is not None
        assert a.labels.sha256 == b.labels.sha256


def test_names_and_cohorts_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Dataset007_Name"):
        write_nnunet(tmp_path / "kidney", cohort(study(1)))
    with pytest.raises(InputRefused, match="none of 1 studies"):
        write_nnunet(tmp_path / "Dataset001_K", cohort(study(1, labels=False)))
