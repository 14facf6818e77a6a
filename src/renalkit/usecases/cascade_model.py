"""What is a trained CT cascade that looks at new scans, whatever computes its networks?

`cascade_of_run` makes one of a run's folds with torch, `cascade_of_package` of a model package
without; nothing here needs it. Of several folds the mean probability counts at every stage: of
their stage-1 networks, of all their mass networks, of their stage-3 networks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from renalkit.domain.cohort import Cohort
from renalkit.domain.prediction import SystemRef
from renalkit.domain.sample import SampleKey
from renalkit.domain.scan import FoundScan
from renalkit.domain.volume import Phase, Volume
from renalkit.errors import CheckFailed, ConfigError, InputRefused, ModelRefused, StoreError
from renalkit.runtime.cascade_package import STAGES
from renalkit.runtime.package import WEIGHTS
from renalkit.runtime.sliding import Score
from renalkit.store.files import read_json, sha256_bytes
from renalkit.store.runs import FoldFolder, RunFolder
from renalkit.systems.ct_cascade import CascadeParams
from renalkit.usecases.cascade_experiment import CascadeExperiment, stored_cascade
from renalkit.usecases.cascade_kind import scan_run_of
from renalkit.usecases.cascade_scan import Spoken, Stages, find_masses, mean_mask, mean_name
from renalkit.usecases.hu_baseline import HU_BASELINE
from renalkit.usecases.parts import load_data
from renalkit.usecases.scan_truth import labelled_scans

UNKNOWN = "unknown"
"""A contrast phase that nobody knows."""


@dataclass(frozen=True, slots=True)
class CascadeModel:
    """name: where it is from; engine: what computes it; phases: contrast phases it was trained on,
    UNKNOWN among them where that of a scan was not known, empty where nobody knows which."""

    name: str
    engine: str
    system: SystemRef
    params: CascadeParams
    classes: tuple[str, ...]
    phases: tuple[str, ...]
    folds: tuple[int, ...]
    stages: Stages = field(repr=False)

    def looks_at(self, phase: Phase | None) -> bool:
        """Whether it was trained on scans of this phase, as far as anybody knows."""
        return phase is None or not self.phases or phase.value in self.phases

    def find(self, volume: Volume, key: SampleKey) -> FoundScan:
        """Kidneys, masses and classes on a new scan. Raises as `find_masses`."""
        return find_masses(
            volume, self.stages, self.params, Spoken(key, self.system, None, self.classes)
        )


def stages_of(folds: Sequence[Mapping[str, Score]]) -> Stages:
    """The networks of one fold or several, each by name, as the three stages."""
    masses = [name for name in folds[0] if name.startswith("mass-")]
    return Stages(
        kidney=mean_mask([own["kidney"] for own in folds]),
        mass=tuple(own[name] for own in folds for name in masses),
        name=mean_name([own["lesion"] for own in folds]),
    )


def joint_digest(digests: Sequence[str]) -> str:
    """One digest for the networks of all folds: that of the fold where there is one."""
    return digests[0] if len(digests) == 1 else sha256_bytes("\n".join(digests).encode())


# ---- the folds of a run ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TrainedCascade:
    """The folds of a run that are wanted, all their networks there. networks: by fold, digest of
    the weights of each network."""

    run: RunFolder
    experiment: CascadeExperiment
    classes: tuple[str, ...]
    networks: Mapping[int, Mapping[str, str]]

    @property
    def folds(self) -> tuple[int, ...]:
        return tuple(self.networks)

    @property
    def weights_sha256(self) -> str:
        """One digest for all networks of these folds."""
        done = [read_json(self.fold(k).done)["weights_sha256"] for k in self.folds]
        return joint_digest([str(one) for one in done])

    @property
    def name(self) -> str:
        """RUN/SYSTEM, and the fold where it is one."""
        whole = f"{self.run.path.resolve().name}/{self.experiment.label}"
        return f"{whole}/fold-{self.folds[0]}" if len(self.folds) == 1 else whole

    def fold(self, index: int) -> FoldFolder:
        """Where a fold lies."""
        return self.run.fold(self.experiment.label, index)

    def weights(self, fold: int, network: str) -> Path:
        """The weights of a network."""
        return self.fold(fold).path / network / WEIGHTS


def trained_cascade(path: Path) -> TrainedCascade:
    """The finished folds of RUN or RUN/SYSTEM, or the one of RUN/SYSTEM/fold-K.

    Raises:
        ModelRefused: no run with CT scans, another folder of it, or no finished fold with weights.
        StoreError: files of the run are missing or damaged.
    """
    run = scan_run_of(path)
    experiment = None if run is None else stored_cascade(run)
    if run is None or experiment is None:
        raise ModelRefused(
            "no run of a CT cascade",
            where=path.name,
            expected="RUN, RUN/SYSTEM or RUN/SYSTEM/fold-0 of a run with CT scans",
            remedy="train the cascade first",
        )
    inside = path.resolve().relative_to(run.path).parts
    label = experiment.label
    asked = {p.name: int(p.name[5:]) for p in (run.path / label).glob("fold-*")}
    if (inside and inside[0] != label) or (len(inside) > 1 and inside[1] not in asked):
        rule = inside[0] == HU_BASELINE
        raise ModelRefused(
            "a rule by HU, which has no networks" if rule else "no such fold or system",
            where="/".join(inside),
            expected=f"{label} or {label}/fold-K",
            remedy="name the cascade that was trained",
        )
    wanted = [asked[inside[1]]] if len(inside) > 1 else sorted(asked.values())
    networks = {k: _networks(run.fold(label, k), experiment) for k in wanted}
    there = {k: known for k, known in networks.items() if known}
    if not there:
        raise ModelRefused(
            "no finished fold with weights of all stages",
            where="/".join((run.path.name, *inside)),
            expected=f"fold-K with {', '.join(STAGES)}, trained here",
            remedy="train the experiment to its end first",
        )
    if not run.cohort.exists():
        raise StoreError("no cohort.json", where=run.path.name, remedy="run the experiment again")
    classes = tuple(str(name) for name in read_json(run.cohort)["task"]["classes"])
    return TrainedCascade(run, experiment, classes, there)


def _networks(fold: FoldFolder, experiment: CascadeExperiment) -> dict[str, str]:
    """Digest of the weights of each network; empty of a fold that is not finished or lacks one."""
    if not fold.done.exists():
        return {}
    known = read_json(fold.done).get("networks", {})
    names = ["kidney", *(f"mass-{k}" for k in range(experiment.params.mass.members)), "lesion"]
    if any(name not in known or not (fold.path / name / WEIGHTS).is_file() for name in names):
        return {}
    return {name: str(known[name]) for name in names}


def cohort_of(trained: TrainedCascade, asked: Path | None = None) -> tuple[Cohort | None, str]:
    """The cohort of the run, or none and why. asked: where it is now.

    Raises what `load_data` does, and StoreError for another cohort, where it was asked for.
    """
    try:
        cohort, _ = load_data(trained.experiment, asked)
    except (StoreError, InputRefused, CheckFailed, ConfigError) as error:
        if asked is not None:
            raise
        return None, f"the run's cohort cannot be read ({error.found})"
    if cohort.digest == read_json(trained.run.cohort)["digest"]:
        return cohort, ""
    problem = "the cohort is not the one the run was trained on"
    if asked is not None:
        raise StoreError(problem, where=asked.name, remedy="give the run's own cohort")
    return None, problem


def phases_of(trained: TrainedCascade, cohort: Cohort | None) -> tuple[str, ...]:
    """Contrast phases of the scans it was trained on: see `CascadeModel`."""
    experiment = trained.experiment
    if experiment.phases or cohort is None:
        return tuple(phase.value for phase in experiment.phases)
    studies = {study.key: study for study in cohort.studies}
    clips = [studies[key.study].clips[key.clip] for key in labelled_scans(cohort)]
    phases = {clip.phase for clip in clips if isinstance(clip, Volume)}
    known = [phase.value for phase in Phase if phase in phases]
    return (*known, *([UNKNOWN] if None in phases else []))
