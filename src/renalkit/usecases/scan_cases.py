"""What did each system of a run say of each tested CT scan, and how does it compare with the
reference?

A run with scans has LABEL/fold-K/scans beside its folds (`store.scans`). A fold counts once its
done.json is there. Every scan must be of the cohort and on its own grid, of a patient its fold
tests, and be tested once; else the run is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path

import numpy as np
import numpy.typing as npt

from renalkit.domain.cohort import ClassTask, Cohort
from renalkit.domain.sample import SampleKey
from renalkit.domain.scan import BoxMm, FoundLesion, FoundScan
from renalkit.domain.splits import Plan, Split
from renalkit.domain.study import Lesion
from renalkit.domain.volume import TUMOUR, VolumeGrid
from renalkit.errors import InputRefused, Reason, StoreError
from renalkit.metrics.bootstrap import BootstrapPlan
from renalkit.metrics.kidney_anatomy import slice_shares
from renalkit.metrics.kits import CLASSES, KitsScore, score_kits
from renalkit.store.cohorts import load_cohort
from renalkit.store.files import read_json
from renalkit.store.runs import RunFolder
from renalkit.store.scans import SCANS, load_scan, saved_scans
from renalkit.store.splits import load_split
from renalkit.transforms.volumes import nearest, working_grid
from renalkit.usecases.cascade_experiment import stored_cascade
from renalkit.usecases.parts import load_data
from renalkit.usecases.progress import Progress
from renalkit.usecases.scan_lesions import (
    Instances,
    ScanLesions,
    Size,
    instance_sizes,
    scan_lesions,
)
from renalkit.usecases.scan_truth import ScanTruth, labelled_scans, scan_truth

Labels = npt.NDArray[np.uint8]

_SHIFTED_VOXELS = 0.1
_AGAIN = "remove the fold folder and run the experiment again; other folds are kept"


@dataclass(frozen=True, slots=True)
class Covered:
    """How much of the reference lies where masses were looked for.

    kidney, mass: voxels inside, and all, of labels 1 to 3 and of 2 and 3. lesions: those that lie
    inside as a whole, and all. searched: share of the scan's volume.
    """

    kidney: tuple[int, int]
    mass: tuple[int, int]
    lesions: tuple[int, int]
    searched: float


@dataclass(frozen=True, slots=True, eq=False)
class ScanCase:
    """One tested scan of one system beside its reference.

    scores, reference_ml, found_ml: by evaluation class of KiTS. evened: slices lay unevenly, so
    surfaces and overlaps were scored on even ones. lesions: reference lesions by rising number;
    marks: likewise; sizes_mm: of both, by way of measuring. called: class of each mark.
    """

    label: str
    fold: int
    key: SampleKey
    phase: str
    scores: Mapping[str, KitsScore]
    reference_ml: Mapping[str, float]
    found_ml: Mapping[str, float]
    evened: bool
    covered: Covered | None
    compared: ScanLesions
    lesions: Mapping[int, Lesion]
    marks: Mapping[int, FoundLesion]
    sizes_mm: Mapping[Size, tuple[Mapping[int, float], Mapping[int, float]]]

    @property
    def called(self) -> tuple[str | None, ...]:
        return self.compared.marked_classes

    def compared_by(self, size: Size) -> ScanLesions:
        """The lesions with sizes measured in one of the ways."""
        known, marked = (np.array(list(s.values()), np.float64) for s in self.sizes_mm[size])
        return replace(self.compared, sizes_mm=known, marked_mm=marked)


@dataclass(frozen=True, slots=True)
class SystemScans:
    """A system on the tested scans of its finished folds, by key. missing: tested patients with a
    labelled scan of whom nothing is stored."""

    label: str
    system: str
    folds: tuple[int, ...]
    cases: tuple[ScanCase, ...]
    missing: int


@dataclass(frozen=True, slots=True)
class RunScans:
    """All systems of a run with scans, beside their cohort. size: how bins of size are told.
    tested: of an external test the other cohort, else the same."""

    folder: RunFolder
    cohort: Cohort
    tested: Cohort
    split: Split
    plan: BootstrapPlan
    size: Size
    systems: tuple[SystemScans, ...]

    @property
    def task(self) -> ClassTask:
        return self.cohort.task

    @property
    def external(self) -> frozenset[str]:
        """Patients of the other cohort, of an external test."""
        return self.split.folds[0].test if self.split.plan is Plan.EXTERNAL else frozenset()


def read_scans(
    path: Path, progress: Progress, cohort_path: Path | None = None, size: Size | None = None
) -> RunScans:
    """Load what every finished fold found and compare it with the cohort.

    cohort_path: where the run's cohort is now. size: the stored one, or equivalent diameter.

    Raises:
        InputRefused: MASK_MISMATCH, a scan on another grid than the cohort's.
        StoreError: no run with scans, another cohort, damaged or misplaced scans.
    """
    folder = RunFolder(path)
    experiment = stored_cascade(folder) if folder.experiment_json.exists() else None
    if experiment is None:
        raise StoreError(
            "no experiment.json of a CT cascade",
            where=path.name,
            expected="the folder of a run with CT scans",
            remedy="give the folder that holds experiment.json",
        )
    cohort, _ = load_data(experiment, cohort_path)
    if folder.cohort.exists() and read_json(folder.cohort)["digest"] != cohort.digest:
        raise StoreError(
            "this is not the cohort of the run",
            where=path.name,
            expected=f"digest {str(read_json(folder.cohort)['digest'])[:12]}",
            remedy="give the cohort the run was made on",
        )
    split = load_split(folder.folds)
    labels = _labels(path, experiment.label)
    if not labels:
        raise StoreError(
            "no scans",
            where=path.name,
            expected=f"SYSTEM/fold-0/{SCANS} of at least one system",
            remedy="train the experiment first",
        )
    wanted = experiment.statistics
    plan = BootstrapPlan(n_boot=wanted.bootstrap, seed=wanted.seed, level=wanted.level)
    chosen = size or wanted.size
    known = frozenset(labelled_scans(cohort, experiment.phases))
    systems = tuple(
        _system(folder, label, (cohort, split, known), chosen, progress) for label in labels
    )
    elsewhere = experiment.split.external
    tested = cohort if elsewhere is None else load_cohort(elsewhere)
    return RunScans(folder, cohort, tested, split, plan, chosen, systems)


def _labels(path: Path, first: str) -> list[str]:
    """Systems with scans: the one the run is about, then the others by name."""
    there = sorted({p.parents[1].name for p in path.glob(f"*/fold-*/{SCANS}") if p.is_dir()})
    return sorted(there, key=lambda label: (label != first, label))


def _system(
    folder: RunFolder,
    label: str,
    known: tuple[Cohort, Split, frozenset[SampleKey]],
    size: Size,
    progress: Progress,
) -> SystemScans:
    cohort, split, labelled = known
    folds = [f.index for f in split.folds if folder.fold(label, f.index).done.exists()]
    paths = {k: saved_scans(folder.fold(label, k).path / SCANS) for k in folds}
    total = sum(map(len, paths.values()))
    progress.stage(f"{label}: compare {total} scans", total)
    studies = {s.key: s for s in cohort.studies}
    cases: dict[SampleKey, ScanCase] = {}
    system = ""
    for fold in folds:
        for path in paths[fold]:
            scan = load_scan(path)
            where = f"{label}/fold-{fold}, {scan.key.text}"
            _check_place(scan, (label, fold), split, labelled, where)
            if scan.key in cases:
                raise StoreError(
                    f"tested by fold {cases[scan.key].fold} too",
                    where=where,
                    expected="each scan tested by one fold",
                    remedy="use k-fold, or a hold-out of one fold",
                )
            truth = scan_truth(studies[scan.key.study], scan.key.clip)
            cases[scan.key] = scan_case(label, scan, truth, cohort.task, size)
            system = scan.system.name
            progress.advance()
    tested = {p for k in folds for p in split.folds[k].test} & {key.patient for key in labelled}
    missing = len(tested - {key.patient for key in cases})
    ordered = tuple(cases[key] for key in sorted(cases))
    return SystemScans(label, system, tuple(folds), ordered, missing)


def _check_place(
    scan: FoundScan,
    about: tuple[str, int],
    split: Split,
    labelled: frozenset[SampleKey],
    where: str,
) -> None:
    label, fold = about
    wrong = ""
    if scan.key not in labelled:
        wrong = "a scan this cohort does not have, has no labels of, or of another phase"
    elif (scan.system.label, scan.fold) != (label, fold):
        wrong = f"results of {scan.system.label}, fold {scan.fold}"
    elif scan.key.patient not in split.folds[fold].test:
        wrong = "a scan of a patient this fold does not test"
    if wrong:
        raise StoreError(wrong, where=where, remedy=_AGAIN)


def scan_case(
    label: str, scan: FoundScan, truth: ScanTruth, task: ClassTask, size: Size
) -> ScanCase:
    """Compare what was found on a scan with its reference.

    Raises:
        InputRefused: MASK_MISMATCH, another grid than that of the cohort's volume.
    """
    grid = truth.volume.grid
    apart = scan.grid.shift_from(grid)
    if apart > _SHIFTED_VOXELS:
        beside = f", up to {apart:.2f} voxels beside it" if isfinite(apart) else ""
        raise InputRefused(
            Reason.MASK_MISMATCH,
            f"results on a grid of {scan.grid.shape} for a scan of {grid.shape}{beside}",
            where=f"{label}, {scan.key.text}",
            expected="the scan's own grid",
            remedy="write the results on the grid of the scan",
        )
    marks = {one.number: one for one in sorted(scan.lesions, key=lambda one: one.number)}
    called = {n: _called(one, task) for n, one in marks.items()}
    compared = scan_lesions(
        scan.key,
        grid,
        Instances(truth.instances, truth.classes),
        Instances(
            scan.instances,
            {n: name for n, name in called.items() if name is not None},
            {n: one.confidence for n, one in marks.items()},
        ),
        size,
    )
    shares = slice_shares(grid) * (grid.voxel_mm3 / 1000)
    evened = grid.slice_at is not None
    reference, found, even = truth.labels, scan.labels, grid
    if evened:
        even = working_grid(grid, grid.spacing_mm)
        reference, found = (np.stack([*nearest(a, grid, even)]) for a in (reference, found))
    return ScanCase(
        label=label,
        fold=scan.fold or 0,
        key=scan.key,
        phase=truth.volume.phase or "unknown",
        scores=score_kits(reference, found, even, even),
        reference_ml=_volumes(truth.labels, shares),
        found_ml=_volumes(scan.labels, shares),
        evened=evened,
        covered=None if scan.boxes_mm is None else _covered(truth, scan.boxes_mm),
        compared=compared,
        lesions={n: truth.lesions[n] for n in sorted(truth.lesions)},
        marks=marks,
        sizes_mm={
            way: (
                instance_sizes(truth.instances, grid, way),
                instance_sizes(scan.instances, grid, way),
            )
            for way in Size
        },
    )


def _called(one: FoundLesion, task: ClassTask) -> str | None:
    return None if one.scores is None else task.classes[int(np.argmax(one.scores))]


def _volumes(labels: Labels, shares: npt.NDArray[np.float64]) -> dict[str, float]:
    """Millilitres of each evaluation class."""
    counts = np.stack([np.bincount(plane.ravel(), minlength=4) for plane in labels])
    by_label = shares @ counts
    return {name: float(by_label[list(one.labels)].sum()) for name, one in CLASSES.items()}


def _covered(truth: ScanTruth, boxes: Sequence[BoxMm]) -> Covered:
    """A voxel counts as inside by its centre."""
    grid = truth.volume.grid
    at = np.argwhere(truth.labels > 0)
    points = grid.to_lps(at) if len(at) else np.zeros((0, 3))
    inside = np.zeros(len(at), np.bool_)
    for low, high in boxes:
        inside |= ((points >= np.asarray(low) - 1e-6) & (points <= np.asarray(high) + 1e-6)).all(1)
    mass = truth.labels[tuple(at.T)] >= TUMOUR
    numbers = truth.instances[tuple(at.T)]
    cut = set(np.unique(numbers[~inside]).tolist())
    whole = sum(n not in cut for n in truth.lesions)
    return Covered(
        kidney=(int(inside.sum()), len(at)),
        mass=(int(inside[mass].sum()), int(mass.sum())),
        lesions=(whole, len(truth.lesions)),
        searched=sum(_box_mm3(box) for box in boxes) / _scan_mm3(grid),
    )


def _box_mm3(box: BoxMm) -> float:
    return float(np.prod(np.asarray(box[1]) - np.asarray(box[0])))


def _scan_mm3(grid: VolumeGrid) -> float:
    return float(slice_shares(grid).sum()) * grid.voxel_mm3 * grid.shape[1] * grid.shape[2]
