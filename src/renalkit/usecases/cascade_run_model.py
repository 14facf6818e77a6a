"""The networks of a run of a CT cascade, computed with torch, as a cascade that looks at scans."""

from __future__ import annotations

from pathlib import Path

from renalkit.domain.prediction import SystemRef
from renalkit.learn.outputs import Net
from renalkit.learn.volume_predictor import load_volume_net, volume_scorer
from renalkit.runtime.cascade_package import stage_of
from renalkit.systems.ct_cascade import build_kidney, build_lesion, build_mass
from renalkit.usecases.cascade_model import (
    CascadeModel,
    TrainedCascade,
    cohort_of,
    phases_of,
    stages_of,
    trained_cascade,
)


def cascade_of_run(path: Path) -> CascadeModel:
    """The cascade of RUN or RUN/SYSTEM (every finished fold) or of one fold folder.

    Raises:
        ModelRefused: see `trained_cascade`; weights that differ from what training recorded.
        StoreError: files of the run are missing or damaged.
    """
    trained = trained_cascade(path)
    return CascadeModel(
        name=trained.name,
        engine="torch fp32",
        system=SystemRef(
            trained.experiment.cascade, trained.experiment.label, trained.weights_sha256
        ),
        params=trained.experiment.params,
        classes=trained.classes,
        phases=phases_of(trained, cohort_of(trained)[0]),
        folds=trained.folds,
        stages=stages_of(
            [
                {n: volume_scorer(trained_network(trained, k, n)) for n in names}
                for k, names in trained.networks.items()
            ]
        ),
    )


def trained_network(trained: TrainedCascade, fold: int, name: str) -> Net:
    """A network of a fold as training left it.

    Raises ModelRefused: weights that differ from what training recorded.
    """
    params = trained.experiment.params

    def build() -> Net:
        stage = stage_of(name)
        if stage == "kidney":
            return build_kidney(params.kidney)
        if stage == "mass":
            return build_mass(params.mass)
        return build_lesion(params.lesion, len(trained.classes))

    return load_volume_net(build, trained.weights(fold, name), trained.networks[fold][name])
