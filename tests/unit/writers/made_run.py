"""A finished run without training: phantom patients, drawn predictions, real figures of them.

Loaded by path from the tests of the writers and of the use case; also makes the README's picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import safetensors.numpy

from renalkit.domain.cohort import ClassTask, Cohort, Exclusion
from renalkit.domain.experiment import RunRecord, Status
from renalkit.domain.geometry import MaskRLE
from renalkit.domain.image import Clip, Mode, Source, pixel_sha256
from renalkit.domain.prediction import Prediction, SystemRef, Unit
from renalkit.domain.sample import Sample, b_mode_samples
from renalkit.domain.splits import Plan, SplitOptions, make_split, patient_facts
from renalkit.domain.study import Findings, Lesion, Outline, Roi, Scanner, Study
from renalkit.errors import Reason
from renalkit.metrics.detection import region_scores
from renalkit.phantom.bmode.picture import render
from renalkit.phantom.patients import Patient, PatientPlan, draw_patient
from renalkit.store.cohorts import AccountLine, load_cohort, save_cohort
from renalkit.store.files import make_folder, sha256_file, write_bytes, write_json, write_text
from renalkit.store.predictions import save_predictions
from renalkit.store.runs import RunFolder, save_record
from renalkit.store.splits import save_split
from renalkit.usecases.evaluate import evaluate_run
from renalkit.usecases.experiment import jobs_of, read_experiment
from renalkit.usecases.parts import fold_digest
from renalkit.usecases.progress import Silent

SYSTEMS = (
    ("multitask-us", "both", 0.9),
    ("unet", "segmentation", 1.5),
    ("resnet18", "classification", 1.5),
)
"""Name, task and how far off its predictions are."""


picture = cache(render)
"""Pictures of the same patients for every run: drawing them is most of the work."""


@dataclass(frozen=True, slots=True)
class MadeRun:
    """Where the made run and its cohort lie."""

    run: Path
    cohort: Path


def key(prefix: str, number: int) -> str:
    return f"{prefix}-{number:020x}"


def _study(patient: Patient, number: int, size: int, *, facts: bool) -> Study:
    """facts: size, findings, age and sex are known."""
    clips, rois = [], []
    for view in patient.views:
        frame = picture((patient.anatomy, patient.label), view, patient.scanner, size)
        pixels = np.ascontiguousarray(frame.pixels)[None]
        if patient.anatomy.lesion is not None and frame.lesion_mask.any():
            rois.append(Roi(len(clips), 0, MaskRLE.encode(frame.lesion_mask)))
        source = Source(f"{number:064x}", f"{number:064x}", "still")
        clips.append(Clip(pixels, pixel_sha256(pixels), Mode.B, source, spacing_mm=(0.5, 0.5)))
    rng = np.random.default_rng(number)
    larger = 14 * (patient.label == "malignant")
    known = {
        "size_mm": float(np.clip(rng.normal(34 + larger, 12), 8, 95)),
        "findings": Findings(
            shape=Outline.IRREGULAR if rng.random() < 0.25 + larger / 40 else Outline.REGULAR
        ),
    }
    who = {"age_years": float(rng.integers(31, 82)), "sex": "FM"[int(rng.random() < 0.6)]}
    lesion = Lesion(
        key("l", number), label=patient.label, rois=tuple(rois), **(known if facts else {})
    )
    return Study(
        key("s", number),
        key("p", number),
        tuple(clips),
        lesions=(lesion,) if rois else (),
        label=None if rois else patient.label,
        site=patient.site,
        scanner=Scanner("Phantom", patient.scanner.name),
        covariates=who if facts else {},
    )


def make_cohort(
    folder: Path,
    n_patients: int,
    size: int,
    classes: Sequence[str],
    *,
    facts: bool = False,
    ordered: bool = False,
) -> Cohort:
    """Save a phantom cohort with two exclusions and an account."""
    normal = 0.2 if "normal" in classes else 0.0
    plan = PatientPlan(n_patients, seed=5, normal_share=normal, views=(1, 3))
    studies = tuple(_study(draw_patient(plan, i), i, size, facts=facts) for i in range(n_patients))
    gone = tuple(
        Exclusion(key("s", 9000 + i), key("p", 9000 + i), reason)
        for i, reason in enumerate(
            ["no reference standard", "no lesion in view", "no lesion in view"]
        )
    )
    positive = "malignant" if len(classes) == 2 else None
    cohort = Cohort("phantom", ClassTask(tuple(classes), positive, ordered), studies, gone)
    n_images = sum(len(s.clips) for s in studies)
    account = [AccountLine(f"{i:064x}", f"{i:064x}", "used") for i in range(2 * n_images + 1)]
    account += [
        AccountLine(f"{7000 + i:064x}", f"{i:064x}", "refused", (Reason.TRUNCATED.value,))
        for i in range(3)
    ]
    save_cohort(folder, cohort, account)
    return load_cohort(folder)


def _moved(mask: np.ndarray, off: float, rng: np.random.Generator) -> np.ndarray:
    """A mask as a network might have drawn it: shifted, grown, now and then nothing."""
    rows, cols = mask.shape
    shift = rng.normal(0, 0.025 * off * rows, 2)
    scale = float(np.exp(rng.normal(0, 0.09 * off)))
    y, x = np.nonzero(mask) if mask.any() else (np.array([rows / 2]), np.array([cols / 2]))
    centre = (float(x.mean()), float(y.mean()))
    matrix = cv2.getRotationMatrix2D(centre, float(rng.normal(0, 8)), scale)
    matrix[:, 2] += shift
    moved = cv2.warpAffine(mask.astype(np.uint8) * 255, matrix, (cols, rows)) > 127
    return moved if rng.random() > 0.02 * off else np.zeros_like(moved)


def _prediction(
    sample: Sample, system: tuple[str, str, float], weights: tuple[int, str], classes: int
) -> Prediction:
    """weights: fold and hash."""
    (name, task, off), (fold, sha256) = system, weights
    rng = np.random.default_rng([abs(hash_of(name)), abs(hash_of(sample.key.text)), fold])
    scores = None
    if task != "segmentation":
        patient = np.random.default_rng([abs(hash_of(name)), abs(hash_of(sample.key.patient))])
        logits = patient.normal(0, 0.8 * off, classes) + rng.normal(0, 0.3, classes)
        logits[sample.label or 0] += 1.1
        odds = np.exp(logits - logits.max())
        scores = tuple(float(v) for v in odds / odds.sum())
    mask = marks = None
    if task != "classification" and sample.mask is not None:
        drawn = _moved(sample.mask.decode(), off, rng)
        mask = MaskRLE.encode(drawn)
        right = 0.25 * sample.mask.decode()
        marks = region_scores(drawn, 0.6 + right + rng.uniform(-0.1, 0.1))
    ref = SystemRef(name, name, sha256)
    return Prediction(
        Unit.FRAME, sample.key, scores, sample.label, ref, fold, mask, mark_scores=marks
    )


def hash_of(text: str) -> int:
    """A number of a text that does not change between processes."""
    return int.from_bytes(text.encode()[-8:].rjust(8, b"0"), "big") % (1 << 40) + len(text)


def _history(task: str, fold: int, epochs: int = 24) -> str:
    rng = np.random.default_rng(fold)
    lines = [
        "epoch,lr,train_loss,train_segmentation,train_classification,validation_loss,iou,dice,accuracy,auc,seconds"
    ]
    for e in range(1, epochs + 1):
        done = 1 - np.exp(-e / 7)
        dice = f"{0.84 * done + rng.normal(0, 0.02):.4f}" if task != "classification" else ""
        auc = f"{0.5 + 0.35 * done + rng.normal(0, 0.02):.4f}" if task != "segmentation" else ""
        loss, held = 1.2 - 0.85 * done, 1.2 - 0.6 * done + rng.normal(0, 0.03)
        lines.append(f"{e},0.001,{loss:.4f},,,{held:.4f},{dice},{dice},{auc},{auc},1.5")
    return "\n".join(lines) + "\n"


LAYERS = [
    {
        "name": "encoder.0.conv",
        "kind": "Conv2d",
        "output_shape": [1, 8, 64, 64],
        "parameters": 80,
        "macs": 294912,
        "flops": 622592,
    },
    {
        "name": "head",
        "kind": "Conv2d",
        "output_shape": [1, 1, 64, 64],
        "parameters": 9,
        "macs": 32768,
        "flops": 69632,
    },
]


def make_run(
    root: Path,
    *,
    n_patients: int = 14,
    size: int = 64,
    classes: Sequence[str] = ("benign", "malignant"),
    attention: bool = False,
    facts: bool = False,
    plan: Plan = Plan.KFOLD,
    statistics: Sequence[str] = (),
    ordered: bool = False,
) -> MadeRun:
    """Everything `renalkit run` leaves before the report, made in a second or two.

    facts: so that there is a clinical model. statistics: more lines of that table.
    ordered: the classes are in rising order.
    """
    cohort_path = root / "cohorts" / "phantom"
    cohort = make_cohort(cohort_path, n_patients, size, classes, facts=facts, ordered=ordered)
    toml = root / "experiment.toml"
    text = [
        'name = "made-run"',
        'cohort = "cohorts/phantom"',
        "[split]",
        f'plan = "{plan.value}"',
        "folds = 3",
        "[statistics]",
        "bootstrap = 200",
        *statistics,
    ]
    for name, task, _ in SYSTEMS:
        text += ["[[systems]]", f'name = "{name}"', f'task = "{task}"']
    toml.write_text("\n".join(text) + "\n")
    experiment = read_experiment(toml)
    run = RunFolder(root / "runs" / "made-run")
    make_folder(run.path)
    write_text(run.experiment_toml, toml.read_text())
    write_json(
        run.experiment_json,
        {"digest": experiment.digest, "settings": experiment.placed(run.path), "set": []},
    )
    split = make_split(patient_facts(cohort, {}), plan, 0, SplitOptions(folds=3))
    save_split(run.folds, split)
    known = {"name": cohort.name, "digest": cohort.digest, "task": cohort.task.plain}
    write_json(run.cohort, known)
    samples = b_mode_samples(cohort)
    jobs = {job.label: job for job in jobs_of(experiment)}
    for place, system in enumerate(SYSTEMS):
        name, task, _ = system
        for fold in split.folds:
            folder = run.fold(name, fold.index)
            drawn = np.full(3, place * 10 + fold.index, np.float32)
            write_bytes(folder.weights, safetensors.numpy.save({"w": drawn}))
            weights = sha256_file(folder.weights)
            for part, path in (("test", folder.test), ("validation", folder.validation)):
                found = [
                    _prediction(s, system, (fold.index, weights), len(classes))
                    for s in samples
                    if fold.part_of(s.key.patient) == part
                ]
                save_predictions(path, found)
            write_text(folder.history, _history(task, fold.index))
            counts = {p: len(getattr(fold, p)) for p in ("train", "validation", "test")}
            write_json(
                folder.done,
                {
                    "digest": fold_digest(jobs[name], cohort.digest, split.digest, fold.index),
                    "weights_sha256": weights,
                    "best_epoch": 19,
                    "epochs": 24,
                    "images": {k: 2 * v for k, v in counts.items()},
                    "patients": counts,
                    "train_seconds": 71.5,
                    "ms_per_image": 4.2 + place,
                    "threads": 1,
                    "device": "cpu",
                },
            )
        write_json(
            run.complexity(name),
            {
                "layers": LAYERS,
                "parameters": 1234567 * (place + 1),
                "trainable": 89,
                "macs": 327680 * 300,
                "flops": 692224 * 300,
            },
        )
    if attention:
        ramp = np.tile(np.linspace(0, 255, 32, dtype=np.uint8), (32, 1))
        for s in samples:
            folder = make_folder(run.system("multitask-us") / "attention")
            cv2.imwrite(str(folder / f"{s.key.text}.png"), ramp)
    write_json(run.check, CHECK)
    evaluate_run(run.path, Silent())
    record = RunRecord(
        "made-run",
        Status.COMPLETE,
        experiment.digest,
        cohort.digest,
        split.digest,
        {"python": "3.11", "renalkit": "0.1.0"},
        {"processor": "a processor", "cores": "2"},
        "2026-01-02T03:04:05+00:00",
        "2026-01-02T04:04:05+00:00",
        3600.0,
        ("L03",),
    )
    save_record(run, record)
    return MadeRun(run.path, cohort_path)


CHECK = {
    "blocking": False,
    "waivers": ["L03"],
    "findings": [
        {
            "guard": "L03",
            "severity": "block",
            "waived": True,
            "words": "2 images of different patients are nearly the same",
            "studies": [key("s", 1), key("s", 2)],
            "patients": [key("p", 1), key("p", 2)],
            "detail": {"distance": 3},
        },
        {
            "guard": "L07",
            "severity": "review",
            "waived": False,
            "words": "burned-in marks in 4 images",
            "studies": [key("s", 3)],
            "patients": [key("p", 3)],
            "detail": {},
        },
        {
            "guard": "L09",
            "severity": "note",
            "waived": False,
            "words": "scanner and class are not associated",
            "studies": [],
            "patients": [],
            "detail": {"p": 0.4},
        },
    ],
    "probes": [
        {
            "name": "margin",
            "auc": 0.512,
            "low": 0.41,
            "high": 0.62,
            "n": 48,
            "unit": "patient",
            "method": "patient bootstrap, 1000 resamples",
            "alarming": False,
        },
        {
            "name": "metadata",
            "auc": 0.547,
            "low": 0.43,
            "high": 0.66,
            "n": 48,
            "unit": "patient",
            "method": "patient bootstrap, 1000 resamples",
            "alarming": False,
        },
    ],
    "groups": {},
}
