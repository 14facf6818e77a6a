"""The networks of a package of a CT cascade, computed without torch, as a cascade that looks at
scans."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from renalkit.domain.prediction import SystemRef
from renalkit.errors import ModelRefused
from renalkit.runtime.cascade_package import RESULT, load_cascade_package, stage_of
from renalkit.runtime.engines import Engine, EngineOptions
from renalkit.runtime.sliding import Score
from renalkit.systems.ct_cascade import CascadeParams
from renalkit.usecases.cascade_model import CascadeModel, stages_of


def cascade_of_package(path: Path, options: EngineOptions) -> CascadeModel:
    """The cascade of a package, every network proven on its golden pair.

    Raises:
        ModelRefused: a changed or foreign file, settings of another version, a mode that package or
            processor do not have, or results that differ from those of the golden pair.
        MissingExtra: no engine is installed.
    """
    package = load_cascade_package(path)
    spec = package.spec
    try:
        params = CascadeParams.model_validate(spec.params)
        masses = {len(fold.networks) - 2 for fold in spec.folds}
        if masses != {params.mass.members}:
            raise ValueError(f"{masses} networks of masses, {params.mass.members} in its settings")
    except (ValidationError, ValueError) as error:
        raise ModelRefused(
            f"settings of another version ({' '.join(str(error).split())[:160]})",
            where=path.name,
            remedy="use the version of renalkit it was made with, or export the run again",
        ) from error
    engines = package.engines(options)
    return CascadeModel(
        name=f"{spec.name} {spec.version}",
        engine=f"{engines[0]['kidney'].name} {options.precision.value}",
        system=SystemRef(spec.system, spec.name, spec.weights_sha256),
        params=params,
        classes=spec.classes,
        phases=spec.phases,
        folds=tuple(fold.fold for fold in spec.folds),
        stages=stages_of([scorers(own) for own in engines]),
    )


def scorers(engines: Mapping[str, Engine]) -> dict[str, Score]:
    """Networks by name as functions from images to logits."""
    return {name: _scorer(engine, RESULT[stage_of(name)]) for name, engine in engines.items()}


def _scorer(engine: Engine, result: str) -> Score:
    if engine.inputs != ("image",) or result not in engine.outputs:
        raise ModelRefused(
            f"takes {', '.join(engine.inputs)}, gives {', '.join(engine.outputs)}",
            where="network",
            expected=f"image in, {result} out",
            remedy="export the run again",
        )
    return lambda image: engine.run({"image": image})[result]
