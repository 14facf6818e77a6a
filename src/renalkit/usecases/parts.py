"""Which data an experiment works on, and whether each fold has what its systems must learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from renalkit.domain.cohort import Cohort
from renalkit.domain.pairs import paired_samples
from renalkit.domain.sample import Sample
from renalkit.domain.splits import Fold
from renalkit.errors import CheckFailed, ConfigError, InputRefused, Reason
from renalkit.learn.prepared import PreparedSet, shows
from renalkit.store.cohorts import load_cohort
from renalkit.store.files import sha256_bytes
from renalkit.systems._contract import System
from renalkit.transforms.preprocess import Region
from renalkit.usecases.experiment import Divided, Job

Indices = npt.NDArray[np.int64]


def load_data(
    experiment: Divided, cohort_path: Path | None = None
) -> tuple[Cohort, frozenset[str]]:
    """The cohort, joined with the external one where there is one, and the external patients.

    Raises:
        CheckFailed: L12, a patient or a picture is in both cohorts.
        ConfigError: the two cohorts ask different questions.
    """
    return joined_data(cohort_path or experiment.cohort, experiment.split.external)


def joined_data(place: Path, external: Path | None) -> tuple[Cohort, frozenset[str]]:
    """The same of the folders of a cohort and, where there is one, of the external cohort."""
    cohort = load_cohort(place)
    if external is None:
        return cohort, frozenset()
    outside = load_cohort(external)
    if outside.task != cohort.task:
        raise ConfigError(
            [
                "split.external: its classes are "
                f"{', '.join(outside.task.classes)}, those of the cohort "
                f"{', '.join(cohort.task.classes)}; ingest both with the same --classes"
            ]
        )
    patients = set(cohort.patients) & set(outside.patients)
    pictures = {c.sha256 for s in cohort.studies for c in s.clips}
    shared = [s.key for s in outside.studies if any(c.sha256 in pictures for c in s.clips)]
    if patients or shared:
        raise CheckFailed(
            f"{len(patients)} patients and {len(shared)} studies are in both cohorts (L12)",
            where="split.external",
            expected="patients the systems have never seen",
            remedy="remove them from the external cohort; this guard cannot be waived",
        )
    joined = Cohort(
        cohort.name,
        cohort.task,
        (*cohort.studies, *outside.studies),
        (*cohort.exclusions, *outside.exclusions),
    )
    return joined, frozenset(outside.patients)


def samples_of(cohort: Cohort, region: Region, *, known: bool = True) -> tuple[Sample, ...]:
    """The frames an experiment is about, sorted by key.

    All with a usable truth, each with its contrast partner; with region 'lesion' those on which the
    lesion is outlined. known: False takes frames without truth too, to predict them.
    """
    found = paired_samples(cohort, known=known)
    return found if region == "frame" else tuple(s for s in found if s.box is not None)


def usable(data: PreparedSet, system: System[Any], part: str, indices: Indices) -> Indices:
    """The images of a part a system can be given: complete ones, and for the test part also those
    with a modality missing where the system can answer then."""
    there = data.complete
    if part == "test" and system.missing:
        there = np.asarray(data.present.any(axis=1))
    return indices[there[indices]]


def fold_digest(job: Job, cohort_digest: str, split_digest: str, fold: int) -> str:
    """What a finished fold was made of: settings of its system, cohort, folds, and which one."""
    parts = (job.digest, cohort_digest, split_digest, str(fold))
    return sha256_bytes("\n".join(parts).encode())


def part_indices(samples: Sequence[Sample], fold: Fold) -> Mapping[str, Indices]:
    """Positions of the samples of each part; patients outside the fold are in none."""
    parts = [fold.part_of(s.key.patient) for s in samples]
    return {
        name: np.flatnonzero([p == name for p in parts]) for name in ("train", "validation", "test")
    }


def require_truth(samples: Sequence[Sample], folds: Sequence[Fold], jobs: Sequence[Job]) -> None:
    """Refuse an experiment in which a fold lacks what a system must learn or be chosen by.

    Raises InputRefused for the first such fold.
    """
    for fold in folds:
        parts = part_indices(samples, fold)
        for name in ("train", "validation"):
            chosen = [samples[i] for i in parts[name]]
            for job in jobs:
                if job.folds and fold.index not in job.folds:
                    continue
                shown = [s for s in chosen if all(shows(s, m) for m in job.modalities)]
                labels = {s.label for s in shown if s.label is not None}
                masked = any(s.mask is not None and s.mask.area_px for s in shown)
                problem = ""
                remedy = "use fewer folds, another task for this system, or more patients"
                if not chosen:
                    problem = f"the {name} part has no images"
                elif not shown:
                    problem = f"no image of the {name} part has a contrast frame beside it"
                    remedy = "make the cohort from cines or pairs, or train systems of B-mode"
                elif job.task.segments and not masked:
                    problem = f"no image of the {name} part has a lesion mask"
                elif job.task.classifies and len(labels) < 2:
                    problem = f"the {name} part has fewer than two classes"
                if problem:
                    raise InputRefused(
                        Reason.BAD_ANNOTATION,
                        f"fold {fold.index}: {problem}",
                        where=job.label,
                        expected="truth for the task in the training and the validation part",
                        remedy=remedy,
                    )
