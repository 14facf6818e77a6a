"""What an experiment file may say: cohort, split, input, training, systems, statistics."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from renalkit.config import Settings, parse_settings, problems_of, read_toml, with_overrides
from renalkit.domain.experiment import settings_digest, without_younger
from renalkit.domain.image import Mode
from renalkit.domain.prediction import Rule
from renalkit.domain.splits import Plan
from renalkit.errors import ConfigError
from renalkit.learn.options import TrainOptions
from renalkit.learn.prepared import Inputs
from renalkit.metrics.calibrators import Calibration
from renalkit.metrics.classification import OperatingPoint, ThresholdRule
from renalkit.systems import get_system
from renalkit.systems._contract import Params, Shape, System, Task
from renalkit.transforms.augment import AugmentRanges
from renalkit.transforms.preprocess import Preprocess

SPLIT_PATHS = ("file", "external", "follow")
"""Keys of [split] that name files or folders."""

Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+=-]{0,63}$")]


class SplitSettings(Settings):
    """Which patients train, validate and test.

    plan, folds, repeats: see `renalkit.domain.splits`. test_share: of all, for a hold-out.
    validation_share: of what is not tested. external: cohort folder that plan 'external' tests.
    file: folds.json of an earlier run, or nnU-Net's splits_final.json, for the very same folds.
    follow: an earlier k-fold run whose folds are kept, so that its models can start this one's
    (`follow_split`).
    """

    plan: Plan = Plan.KFOLD
    folds: Annotated[int, Field(ge=1, le=50)] = 5
    repeats: Annotated[int, Field(ge=1, le=50)] = 1
    test_share: Annotated[float, Field(gt=0, lt=0.9)] = 0.2
    validation_share: Annotated[float, Field(gt=0, lt=0.9)] = 0.2
    stratify: bool = True
    seed: int = 0
    external: Path | None = None
    file: Path | None = None
    follow: Path | None = None

    @model_validator(mode="after")
    def _keys_go_together(self) -> SplitSettings:
        if (self.plan is Plan.EXTERNAL) != (self.external is not None):
            raise ValueError("plan 'external' and the key 'external' (a cohort folder) go together")
        if self.follow is not None and (self.file is not None or self.plan is not Plan.KFOLD):
            raise ValueError("the key 'follow' (a run) goes with plan 'kfold' and without 'file'")
        return self

    @model_serializer(mode="wrap")
    def _as_earlier(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_younger(handler(self), {"follow": None})


class SystemSettings(Settings):
    """One system to train: the name users type, its parameters, and what differs for it.

    label: name in tables when one system appears twice. folds: only these folds (all when empty).
    train: keys of [train] that differ for this system. size: input side that differs. modalities:
    what it looks at, where it can choose (B, CEUS). features: facts of the study given to it as
    numbers beside the picture; "perfusion" stands for figures of the contrast curves
    (`renalkit.usecases.features`).
    init_from: RUN/SYSTEM of an earlier run, or a model package, whose weights each fold starts from
    (`renalkit.usecases.transfer`).
    """

    name: str
    label: Label | None = None
    task: Task | None = None
    params: dict[str, Any] = Field(default_factory=dict)
    folds: tuple[int, ...] = ()
    train: dict[str, Any] = Field(default_factory=dict)
    size: int | None = None
    modalities: tuple[Mode, ...] | None = None
    features: tuple[str, ...] = ()
    init_from: Path | None = None

    @model_serializer(mode="wrap")
    def _as_earlier(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        plain: dict[str, Any] = handler(self)
        if not plain["features"]:
            del plain["features"]
        return without_younger(plain, {"modalities": None, "init_from": None})


CLINICAL = "clinical"
"""Label of the logistic model on facts about the patient; no system may have it."""


class ClinicalSettings(Settings):
    """The logistic model that stands beside the systems (`renalkit.usecases.clinical_model`).

    columns: facts it uses. Not set: size, findings, age and sex as far as known; empty: no model.
    """

    columns: tuple[str, ...] | None = None


_YOUNGER: dict[str, Any] = {
    "topk_share": 0.2,
    "noisy_or_frames": 1.0,
    "prior_correction": False,
    "calibration": Calibration.NONE.value,
}
"""Statistics that runs of earlier versions do not name."""


class StatisticsSettings(Settings):
    """How figures are made from predictions.

    rule: frames to patients, with topk_share, noisy_or_frames and attention_temperature as
    `Pooling` has them; 'validation' takes in each fold the rule with the lowest log-loss of its
    validation patients, and a temperature that is not set is chosen there too. prior_correction:
    scores for the class shares of training patients instead of those that sampler and loss
    imposed. calibration: fitted on the validation patients of each fold. threshold: chosen on the
    validation part of each fold, by threshold_target, missed_cost and prevalence where the rule
    needs them (`OperatingPoint`). bootstrap: resamples of patients. tolerance_px / tolerance_mm:
    of the surface Dice.
    """

    rule: Rule | Literal["validation"] = Rule.MEAN
    topk_share: Annotated[float, Field(gt=0, le=1)] = 0.2
    noisy_or_frames: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    attention_temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    prior_correction: bool = False
    calibration: Calibration = Calibration.NONE
    threshold: ThresholdRule = ThresholdRule.YOUDEN
    threshold_target: float | None = None
    missed_cost: float | None = None
    prevalence: float | None = None
    bootstrap: Annotated[int, Field(ge=200, le=100_000)] = 2000
    level: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    tolerance_px: Annotated[float, Field(gt=0)] = 2.0
    tolerance_mm: Annotated[float, Field(gt=0)] = 1.0
    surface_definition: Literal["surfel", "border"] = "surfel"
    seed: int = 0

    @property
    def operating_point(self) -> OperatingPoint:
        """How thresholds are chosen."""
        return OperatingPoint(
            self.threshold, self.threshold_target, self.missed_cost, self.prevalence
        )

    @model_validator(mode="after")
    def _the_rule_has_its_numbers(self) -> StatisticsSettings:
        try:
            assert self.operating_point
        except ValueError as error:
            keys = "keys threshold, threshold_target, missed_cost, prevalence"
            raise ValueError(f"{error} ({keys})") from error
        return self

    @model_serializer(mode="wrap")
    def _as_earlier(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what is not set, so that digests of runs older than these keys stay."""
        plain: dict[str, Any] = handler(self)
        return without_younger({k: v for k, v in plain.items() if v is not None}, _YOUNGER)


class Divided(Protocol):
    """What any experiment says of its cohort, whatever it trains."""

    @property
    def name(self) -> str: ...

    @property
    def cohort(self) -> Path: ...

    @property
    def split(self) -> SplitSettings: ...

    @property
    def waive(self) -> tuple[str, ...]: ...

    @property
    def plain(self) -> dict[str, Any]: ...

    @property
    def digest(self) -> str: ...

    def placed(self, base: Path) -> dict[str, Any]: ...


class Experiment(Settings):
    """The whole experiment. `systems` are compared on the same folds, the first one being the
    system of interest and the others its baselines. waive: guards of `cohort check` by name.
    """

    name: Label
    cohort: Path
    systems: Annotated[tuple[SystemSettings, ...], Field(min_length=1)]
    split: SplitSettings = SplitSettings()
    input: Preprocess = Preprocess()
    augment: AugmentRanges = AugmentRanges()
    train: TrainOptions = TrainOptions()
    statistics: StatisticsSettings = StatisticsSettings()
    clinical: ClinicalSettings = ClinicalSettings()
    waive: tuple[str, ...] = ()
    workers: Annotated[int, Field(ge=0, le=64)] = 0

    @property
    def plain(self) -> dict[str, Any]:
        """Everything as JSON values: what experiment.json holds and what the digest covers.

        Without the clinical model where nothing is said of it, so that digests of older runs stay.
        """
        plain = self.model_dump(mode="json")
        if self.clinical.columns is None:
            del plain["clinical"]
        return plain

    @property
    def digest(self) -> str:
        """Digest of what decides the results (not of the places of files)."""
        plain = {k: v for k, v in self.plain.items() if k not in ("cohort", "workers", "name")}
        plain["split"] = {k: v for k, v in plain["split"].items() if k not in SPLIT_PATHS}
        for system in plain["systems"]:
            if "init_from" in system:
                system["init_from"] = "/".join(Path(system["init_from"]).resolve().parts[-2:])
        return settings_digest(plain)

    def placed(self, base: Path) -> dict[str, Any]:
        """The settings as JSON values with paths relative to `base`, so that they can be moved."""
        plain = self.plain
        plain["cohort"] = os.path.relpath(self.cohort, base)
        for key in SPLIT_PATHS:
            path = getattr(self.split, key)
            if path is not None:
                plain["split"][key] = os.path.relpath(path, base)
        for system, settings in zip(plain["systems"], self.systems, strict=True):
            if settings.init_from is not None:
                system["init_from"] = os.path.relpath(settings.init_from, base)
        return plain

    def found_from(self, base: Path) -> Experiment:
        """The same experiment with its relative paths looked for below `base`."""
        places = {k: getattr(self.split, k) for k in SPLIT_PATHS}
        found = {k: base / v for k, v in places.items() if v is not None}
        split = self.split.model_copy(update=found)
        systems = tuple(
            s if s.init_from is None else s.model_copy(update={"init_from": base / s.init_from})
            for s in self.systems
        )
        changed = {"cohort": base / self.cohort, "split": split, "systems": systems}
        return self.model_copy(update=changed)

    def started_from(self, initial: Sequence[str]) -> Experiment:
        """The same experiment with systems that start from earlier weights.

        initial: LABEL=RUN/SYSTEM for one system, or RUN/SYSTEM for all. Raises ConfigError when
        two of them are for one system.
        """
        labels = [s.label or s.name for s in self.systems]
        found: dict[str, Path] = {}
        problems: list[str] = []
        for item in initial:
            one = [x for x in labels if item.startswith(f"{x}=")]
            path = Path(item[len(one[0]) + 1 :] if one else item).resolve()
            for label in one or labels:
                if label in found:
                    problems.append(f"--init-from {item}: '{label}' has initial weights already")
                found[label] = path
        if problems:
            raise ConfigError(problems)
        systems = tuple(
            s.model_copy(update={"init_from": found[x]}) if x in found else s
            for x, s in zip(labels, self.systems, strict=True)
        )
        return self.model_copy(update={"systems": systems})


class Job(Settings):
    """One system of an experiment, ready to train: everything resolved and checked."""

    label: str
    system: str
    task: Task
    params: dict[str, Any]
    train: TrainOptions
    input: Preprocess
    augment: AugmentRanges
    folds: tuple[int, ...]
    modalities: tuple[Mode, ...] = (Mode.B,)
    features: tuple[str, ...] = ()
    init_from: Path | None = None

    @property
    def digest(self) -> str:
        """Digest of its settings; which weights a fold starts from is in the digest of the fold."""
        since = {"modalities": ["B"], "features": []}
        plain = self.model_dump(mode="json", exclude={"init_from"})
        return settings_digest(without_younger(plain, since))

    @property
    def inputs(self) -> Inputs:
        """What its network is given."""
        return Inputs(self.modalities, self.features)

    def shape(self, n_classes: int) -> Shape:
        """What its network takes and gives."""
        channels = self.inputs.channels
        return Shape(channels, self.input.size, n_classes, self.modalities, self.features)


def _job(experiment: Experiment, item: SystemSettings, where: str) -> Job:
    problems: list[str] = []
    system: System[Params] | None = None
    try:
        system = get_system(item.name)
    except ConfigError as error:
        problems += [f"{where}.name: {p}" for p in error.problems]
    train = experiment.train
    try:
        merged = {**_fields(experiment.train), **item.train}
        train = _Train.model_validate({"train": merged}).train
    except ValueError as error:
        problems += _lines(error, _Train, where)
    params: dict[str, Any] = dict(item.params)
    task = item.task
    if system is not None:
        try:
            params = system.params(item.params).model_dump(mode="json")
        except ValueError as error:
            problems += _lines(error, system.params_type, f"{where}.params")
        task = task or system.default_task
        if task not in system.tasks:
            known = ", ".join(sorted(t.value for t in system.tasks))
            problems.append(
                f"{where}.task: {item.name} does not do '{task.value}' (it does {known})"
            )
        problems += _input_problems(experiment, item, system, task, where)
    if problems:
        raise ConfigError(problems)
    modalities = item.modalities or (system.takes[0] if system else (Mode.B,))
    return Job(
        label=item.label or item.name,
        system=item.name,
        task=task or Task.BOTH,
        params=params,
        train=train,
        input=replace(experiment.input, size=item.size) if item.size else experiment.input,
        augment=experiment.augment,
        folds=item.folds,
        modalities=modalities,
        features=item.features,
        init_from=item.init_from,
    )


def _input_problems(
    experiment: Experiment, item: SystemSettings, system: System[Params], task: Task, where: str
) -> list[str]:
    """What a system cannot be given."""
    problems: list[str] = []
    if item.modalities is not None and item.modalities not in system.takes:
        known = " or ".join("[" + ", ".join(t) + "]" for t in system.takes)
        given = ", ".join(item.modalities)
        problems.append(f"{where}.modalities: {item.name} takes {known}, not [{given}]")
    if item.features and not system.features:
        problems.append(f"{where}.features: {item.name} takes no numbers beside the picture")
    if experiment.input.region == "lesion" and task.segments:
        problems.append(
            f"{where}.task: '{task.value}' with input.region 'lesion': the cut already says where "
            "the lesion is; use region 'frame' or task 'classification'"
        )
    return problems


class _Train(Settings):
    train: TrainOptions


def _fields(options: TrainOptions) -> dict[str, Any]:
    return {name: getattr(options, name) for name in TrainOptions.__dataclass_fields__}


def _lines(error: ValueError, model: type[Any], where: str) -> list[str]:
    if isinstance(error, ValidationError):
        return problems_of(error, model, where)
    return [f"{where}: {error}"]


def jobs_of(experiment: Experiment) -> tuple[Job, ...]:
    """One job per system; ConfigError lists the problems of all of them."""
    problems: list[str] = []
    jobs: list[Job] = []
    for index, item in enumerate(experiment.systems):
        try:
            jobs.append(_job(experiment, item, f"systems.{index}"))
        except ConfigError as error:
            problems += error.problems
    labels = [job.label for job in jobs]
    for label in sorted({x for x in labels if labels.count(x) > 1}):
        problems.append(f"systems: two systems are labelled '{label}'; give one a label")
    if CLINICAL in labels:
        problems.append(f"systems: '{CLINICAL}' is the label of the logistic model; take another")
    if problems:
        raise ConfigError(problems)
    return tuple(jobs)


def read_experiment(path: Path, overrides: Sequence[str] = ()) -> Experiment:
    """The experiment of a TOML file with command-line overrides.

    A relative cohort or fold file is looked for beside the experiment file. Raises ConfigError
    with every problem, including those of each system's parameters.
    """
    tables = with_overrides(read_toml(path), overrides)
    experiment = parse_settings(Experiment, tables)
    jobs_of(experiment)
    return experiment.found_from(path.resolve().parent)
