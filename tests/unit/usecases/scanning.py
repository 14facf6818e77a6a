"""Small simulated CT cohorts, and runs of systems that say nearly what is true of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from renalkit.domain.cohort import ClassTask, Cohort
from renalkit.domain.image import Mode, Source, pixel_sha256
from renalkit.domain.prediction import SystemRef
from renalkit.domain.scan import FoundLesion, FoundScan
from renalkit.domain.splits import Fold, Plan, Split
from renalkit.domain.study import Lesion, Study
from renalkit.domain.volume import LabelMap, Phase, PhaseSource, Volume
from renalkit.phantom.ct.anatomy import CtPlan, draw_case
from renalkit.phantom.ct.volume import render_phases
from renalkit.readers.ct_lesions import marked_lesions
from renalkit.store.cohorts import save_cohort
from renalkit.store.files import make_folder, write_json, write_text
from renalkit.store.runs import RunFolder
from renalkit.store.scans import save_scan
from renalkit.store.splits import save_split
from renalkit.usecases.cascade_experiment import CascadeExperiment, ScanStatistics
from renalkit.usecases.scan_truth import ScanTruth, labelled_scans, scan_truth

TASK = ClassTask(("AML", "cystic", "solid"))
PLAN = CtPlan(
    matrix=96, slice_spacing_mm=6.0, normal_share=0.0, aml_share=0.3, cysts=2, cyst_mm=(9.0, 20.0)
)


def key(prefix: str, number: int) -> str:
    return f"{prefix}-{number:020x}"


def ct_study(number: int, plan: CtPlan = PLAN) -> Study:
    """A simulated patient; the lesions' classes are those of P5."""
    drawn = render_phases(draw_case(plan, number))
    labels = LabelMap(drawn.labels, pixel_sha256(drawn.labels))
    volumes = tuple(
        Volume(
            pixels=hu,
            sha256=pixel_sha256(hu),
            mode=Mode.CT,
            source=Source(f"{number:064x}", f"{number:064x}", "dicom-ct"),
            spacing_mm=drawn.grid.spacing_mm[1:],
            grid=drawn.grid,
            phase=Phase(phase),
            phase_source=PhaseSource.HEADER,
            labels=labels,
        )
        for phase, hu in drawn.hu.items()
    )
    marked, _ = marked_lesions(volumes[0], 0, labels, drawn.instances)
    classes = {one.number: one.lesion_class for one in drawn.lesions}
    lesions = tuple(
        Lesion(
            key("l", 256 * number + one.number),
            label=classes[one.number],
            side=one.side,
            size_mm=one.axial_mm,
            rois=one.rois,
        )
        for one in marked
    )
    return Study(
        key("s", number),
        key("p", number),
        volumes,
        lesions=lesions,
        covariates={"age_years": 40 + number, "sex": "FM"[number % 2]},
    )


def ct_cohort(n: int, plan: CtPlan = PLAN, normal: int = 1) -> Cohort:
    """n patients, the last `normal` of them without a mass."""
    none = replace(plan, tumours=0, cysts=0)
    studies = [ct_study(k, plan if k < n - normal else none) for k in range(n)]
    return Cohort("phantom", TASK, tuple(studies))


def exactly(truth: ScanTruth, ref: SystemRef, fold: int) -> FoundScan:
    """The reference itself, looked for within a box 20 mm around it."""
    points = truth.volume.grid.to_lps(np.argwhere(truth.labels > 0))
    low, high = points.min(axis=0) - 20, points.max(axis=0) + 20
    return FoundScan(
        key=truth.key,
        grid=truth.volume.grid,
        labels=truth.labels,
        instances=truth.instances,
        lesions=tuple(
            FoundLesion(n, tuple(float(c == one.label) for c in TASK.classes), 0.9, 1.0)
            for n, one in truth.lesions.items()
        ),
        system=ref,
        fold=fold,
        boxes_mm=((tuple(low.tolist()), tuple(high.tolist())),),  # type: ignore[arg-type]
    )


def nearly(truth: ScanTruth, ref: SystemRef, fold: int, wrong: float) -> FoundScan:
    """The reference moved by one column, with some lesions missed, some misnamed, and one mark
    where there is none.

    wrong: share of the lesions that are missed, and of those found that get another class.
    """
    rng = np.random.default_rng([fold, int(truth.key.study[2:], 16)])
    labels, instances = (np.roll(a, 1, axis=2) for a in (truth.labels, truth.instances))
    lesions: list[FoundLesion] = []
    for number, one in truth.lesions.items():
        here = instances == number
        if rng.random() < wrong or not here.any():
            labels[here], instances[here] = 1, 0
            continue
        scores = np.full(3, 0.1)
        place = TASK.index(one.label or "solid")
        scores[(place + (rng.random() < wrong)) % 3] = 0.8
        sure = 0.5 + 0.5 * float(rng.random())
        lesions.append(FoundLesion(number, tuple(scores.tolist()), sure, 1.0))
    kidney = np.argwhere(ndimage.binary_erosion(labels == 1))
    at = kidney[int(rng.integers(len(kidney)))]
    box = tuple(slice(int(a) - 1, int(a) + 2) for a in at)
    free = labels[box] == 1
    labels[box][free], instances[box][free] = 3, 255
    lesions.append(FoundLesion(255, (0.1, 0.8, 0.1), 0.4 * float(rng.random()), 0.5))
    there = set(np.unique(instances).tolist())
    return replace(
        exactly(truth, ref, fold),
        labels=labels,
        instances=instances,
        lesions=tuple(one for one in lesions if one.number in there),
    )


def scan_run(
    folder: Path,
    cohort: Cohort,
    labels: Sequence[tuple[str, float | None]] = (("ct-cascade", 0.2),),
) -> RunFolder:
    """A run of two folds beside its cohort, each system as `nearly`, or right where None."""
    save_cohort(folder / "cohort", cohort)
    run = RunFolder(make_folder(folder / "runs" / "ct"))
    patients = cohort.patients
    parts = [frozenset(patients[k::2]) for k in (0, 1)]
    split = Split(
        Plan.KFOLD,
        0,
        tuple(Fold(k, parts[1 - k], frozenset(), parts[k]) for k in (0, 1)),
    )
    save_split(run.folds, split)
    experiment = CascadeExperiment(
        name="ct",
        cohort=folder / "cohort",
        cascade="ct-cascade",
        label=labels[0][0],
        statistics=ScanStatistics(bootstrap=200),
    )
    write_json(
        run.experiment_json,
        {"digest": experiment.digest, "settings": experiment.placed(run.path), "set": []},
    )
    facts = {"name": cohort.name, "digest": cohort.digest, "task": cohort.task.plain}
    write_json(run.cohort, facts)
    studies = {s.key: s for s in cohort.studies}
    for label, wrong in labels:
        for fold in split.folds:
            own = run.fold(label, fold.index)
            for scan in labelled_scans(cohort):
                if scan.patient in fold.test:
                    truth = scan_truth(studies[scan.study], scan.clip)
                    ref = SystemRef("ct-cascade", label, "a" * 64)
                    said = (
                        exactly(truth, ref, fold.index)
                        if wrong is None
                        else nearly(truth, ref, fold.index, wrong)
                    )
                    save_scan(own.path / "scans", said)
            write_json(own.done, {"digest": "0" * 64, "weights_sha256": "a" * 64})
            for stage, name in (
                ("kidney", "dice"),
                ("mass-0", "dice_mass"),
                ("mass-1", "dice_mass"),
            ):
                rows = [
                    f"{20 * e},0.001,{1 / e:.3f},{9.5 * e},{1 - 0.5 / e:.3f}" for e in range(1, 9)
                ]
                head = f"step,lr,train_loss,seconds,{name}"
                write_text(own.path / stage / "history.csv", "\n".join([head, *rows, ""]))
                write_json(own.path / stage / "history.json", {"best_step": 140})
    return run
