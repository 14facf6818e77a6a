"""What an experiment file of a CT cascade may say: cohort, split, the three stages, statistics.

    name = "kidneys"
    cohort = "../cohorts/ct"
    cascade = "ct-cascade"

The key `cascade` tells such a file from one with `[[systems]]`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from renalkit.config import Settings, parse_settings, read_toml, with_overrides
from renalkit.domain.experiment import settings_digest
from renalkit.domain.volume import Phase
from renalkit.learn.volume_options import VolumeOptions, VolumeRanges
from renalkit.store.files import read_json
from renalkit.store.runs import RunFolder
from renalkit.systems.ct_cascade import CARD, CascadeParams
from renalkit.usecases.experiment import SPLIT_PATHS, Label, SplitSettings
from renalkit.usecases.hu_baseline import HU_BASELINE
from renalkit.usecases.scan_lesions import Size

Stage = Literal["kidney", "mass", "lesion"]
STAGES: tuple[Stage, ...] = ("kidney", "mass", "lesion")


class StageTraining(Settings):
    """How each stage is trained; inner networks of stage 1 like the outer one."""

    kidney: VolumeOptions = VolumeOptions()
    mass: VolumeOptions = VolumeOptions()
    lesion: VolumeOptions = VolumeOptions()


class BatchSettings(Settings):
    """Whole scans, patches and cubes per step of the three stages."""

    kidney: Annotated[int, Field(ge=1, le=64)] = 1
    mass: Annotated[int, Field(ge=1, le=64)] = 2
    lesion: Annotated[int, Field(ge=2, le=256)] = 16


class PatchSettings(Settings):
    """What steps of stage 2 see: see `renalkit.learn.patches.PatchPlan`."""

    mass_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    kidney_share: Annotated[float, Field(ge=0, le=1)] = 0.25


class ScanStatistics(Settings):
    """How figures are made: resamples of patients, and what a lesion's size is."""

    bootstrap: Annotated[int, Field(ge=200, le=100_000)] = 2000
    level: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    seed: int = 0
    size: Size = Size.EQUIVALENT


class CascadeExperiment(Settings):
    """The whole experiment.

    stages: those to train now; the same run goes on with the others later. phases: of the scans
    that are used, unknown ones not among them; empty: all. label: name in tables. baseline: whether
    what thresholds of HU find is compared (`renalkit.usecases.hu_baseline`).
    """

    name: Label
    cohort: Path
    cascade: Literal["ct-cascade"]
    label: Label = CARD.name
    params: CascadeParams = CascadeParams()
    stages: tuple[Stage, ...] = STAGES
    phases: tuple[Phase, ...] = ()
    split: SplitSettings = SplitSettings()
    train: StageTraining = StageTraining()
    batch: BatchSettings = BatchSettings()
    patches: PatchSettings = PatchSettings()
    augment: VolumeRanges = VolumeRanges()
    statistics: ScanStatistics = ScanStatistics()
    baseline: bool = True
    waive: tuple[str, ...] = ()

    @field_validator("stages")
    @classmethod
    def _in_order(cls, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
        if stages != STAGES[: len(stages)] or not stages:
            raise ValueError("expected 'kidney', then 'mass', then 'lesion': each needs the former")
        return stages

    @field_validator("label")
    @classmethod
    def _not_the_rule(cls, label: str) -> str:
        if label == HU_BASELINE:
            raise ValueError(f"'{HU_BASELINE}' is the label of the rule by HU; take another")
        return label

    @property
    def plain(self) -> dict[str, Any]:
        """Everything as JSON values: what experiment.json holds."""
        return self.model_dump(mode="json")

    @property
    def digest(self) -> str:
        """Digest of what decides the results, not of the places of files or the stages so far."""
        left_out = ("cohort", "name", "stages")
        plain = {k: v for k, v in self.plain.items() if k not in left_out}
        plain["split"] = {k: v for k, v in plain["split"].items() if k not in SPLIT_PATHS}
        return settings_digest(plain)

    def placed(self, base: Path) -> dict[str, Any]:
        """The settings as JSON values with paths relative to `base`, so that they can be moved."""
        plain = self.plain
        plain["cohort"] = os.path.relpath(self.cohort, base)
        for key in SPLIT_PATHS:
            path = getattr(self.split, key)
            if path is not None:
                plain["split"][key] = os.path.relpath(path, base)
        return plain

    def found_from(self, base: Path) -> CascadeExperiment:
        """The same experiment with its relative paths looked for below `base`."""
        places = {k: getattr(self.split, k) for k in SPLIT_PATHS}
        found = {k: base / v for k, v in places.items() if v is not None}
        split = self.split.model_copy(update=found)
        return self.model_copy(update={"cohort": base / self.cohort, "split": split})


def is_cascade(tables: Mapping[str, Any]) -> bool:
    """Whether settings are of a cascade."""
    return "cascade" in tables


def read_cascade(path: Path, overrides: Sequence[str] = ()) -> CascadeExperiment:
    """The experiment of a TOML file with command-line overrides.

    A relative cohort or fold file is looked for beside the experiment file. Raises ConfigError
    with every problem.
    """
    tables = with_overrides(read_toml(path), overrides)
    return parse_settings(CascadeExperiment, tables).found_from(path.resolve().parent)


def stored_cascade(folder: RunFolder) -> CascadeExperiment | None:
    """The experiment of a run; None where the run is no cascade's."""
    if not folder.holds_scans:
        return None
    settings = read_json(folder.experiment_json)["settings"]
    return parse_settings(CascadeExperiment, settings).found_from(folder.path.resolve())
