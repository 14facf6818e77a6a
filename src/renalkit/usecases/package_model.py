"""The networks of a model package, computed without torch, as a model that predicts."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from renalkit.domain.cohort import ClassTask
from renalkit.errors import ConfigError, ModelRefused
from renalkit.learn.prepared import PreparedSet
from renalkit.runtime.abilities import FAST, Precision
from renalkit.runtime.engines import Engine, EngineOptions
from renalkit.runtime.package import load_package, score_stream
from renalkit.systems._contract import RawOutputs
from renalkit.usecases.experiment import Job, StatisticsSettings
from renalkit.usecases.models import Member, Model
from renalkit.usecases.stored_ways import ways_in

_TOGETHER = 4
"""Pictures computed at once. More are no faster each, and an engine asks for the memory between its
layers anew for every size: at 32 of 300 px that took as long as half of the computing."""


def package_options(fast: str | None, cache: Path | None) -> EngineOptions:
    """How a package is computed. fast: a mode by name, None for fp32; cache: of compiled networks.

    Raises ConfigError for a mode that does not exist.
    """
    known = [mode.value for mode in FAST]
    if fast is not None and fast not in known:
        raise ConfigError([f"--fast: '{fast}' is not one of {', '.join(known)}"])
    precision = Precision.FP32 if fast is None else Precision(fast)
    return EngineOptions(precision=precision, cache=cache)


def load_package_model(path: Path, options: EngineOptions) -> Model:
    """The member networks of a package, proven on its golden pair.

    Raises:
        ModelRefused: a changed or foreign file, settings of another version, a mode that package
            or processor do not have, or results that differ from those of the golden pair.
        MissingExtra: no engine is installed.
    """
    package = load_package(path)
    spec = package.spec
    try:
        job = Job.model_validate(spec.job)
        statistics = StatisticsSettings.model_validate(spec.statistics)
        task = ClassTask(spec.classes, spec.positive, spec.ordered)
    except (ValidationError, ValueError) as error:
        raise ModelRefused(
            f"settings of another version ({' '.join(str(error).split())[:160]})",
            where=path.name,
            remedy="use the version of renalkit it was made with, or export the model again",
        ) from error
    folds = [m.fold for m in spec.members]
    figures = {"thresholds": spec.thresholds, "ways": spec.ways}
    ways = ways_in(figures, statistics, task, folds, spec.name)
    engines = package.engines(options)
    members = [
        Member(
            m.fold,
            m.weights_sha256,
            partial(_score, engine, spec.mirrored),
            ways[m.fold].way,
            ways[m.fold].threshold,
        )
        for m, engine in zip(spec.members, engines, strict=True)
    ]
    named = f"{spec.name} {spec.version}"
    return Model.of(named, f"{engines[0].name} {options.precision.value}", job, task, members)


def _score(engine: Engine, mirrored: bool, data: PreparedSet) -> Iterator[RawOutputs]:
    starts = range(0, len(data), _TOGETHER)
    given = (_given(data, slice(start, start + _TOGETHER)) for start in starts)
    found = score_stream(engine, given, mirrored=mirrored)
    for start, raw in zip(starts, found, strict=True):
        yield {**raw, "present": data.present[start : start + _TOGETHER]}


def _given(data: PreparedSet, rows: slice) -> dict[str, npt.NDArray[np.float32]]:
    chosen = range(*rows.indices(len(data)))
    image = np.stack([data.network_input(i) for i in chosen])
    features = data.features[rows]
    return {"image": image, **({"features": features} if features.shape[1] else {})}
