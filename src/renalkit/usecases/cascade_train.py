"""How are the three stages of a CT cascade trained, fold by fold, each network resumable?

LABEL/fold-K/kidney            the network of stage 1
LABEL/fold-K/kidney-inner-J    those whose boxes stages 2 and 3 learn in
LABEL/fold-K/mass-M            the members of stage 2
LABEL/fold-K/lesion            the network of stage 3
LABEL/fold-K/scans             what they say of the tested scans
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage, special

from renalkit.domain.cohort import Cohort
from renalkit.domain.prediction import SystemRef
from renalkit.domain.sample import SampleKey
from renalkit.domain.scan import BoxMm
from renalkit.domain.splits import Fold, Split
from renalkit.domain.volume import KIDNEY, TUMOUR, Volume, VolumeGrid
from renalkit.errors import InputRefused, Locked, Reason
from renalkit.learn.outputs import Net
from renalkit.learn.patches import CropPlan, HeldVolume, LesionCrops, Patches, PatchPlan
from renalkit.learn.training_folder import WEIGHTS
from renalkit.learn.volume_loop import VolumeTask, train_volume
from renalkit.learn.volume_losses import MASS, WHOLE_KIDNEY, MaskLossPlan, class_loss, mask_loss
from renalkit.learn.volume_options import VolumeOptions
from renalkit.learn.volume_predictor import load_volume_net, volume_scorer
from renalkit.runtime.parity import mask_dice
from renalkit.store.files import locked, sha256_bytes, write_json
from renalkit.store.runs import FoldFolder, RunFolder
from renalkit.store.scans import save_scan
from renalkit.systems.ct_cascade import (
    HALF,
    CascadeParams,
    around,
    at_least,
    build_kidney,
    build_lesion,
    build_mass,
    joined,
    lesion_cube,
    part_box,
    search_boxes,
)
from renalkit.transforms.volumes import nearest, working_grid
from renalkit.usecases.cascade_experiment import CascadeExperiment
from renalkit.usecases.cascade_scan import (
    Spoken,
    Stages,
    boxes_on,
    coarse,
    coarse_grid,
    find_masses,
    kidney_probability,
    mass_probability,
    on_grid,
)
from renalkit.usecases.progress import Progress
from renalkit.usecases.scan_cases import SCANS
from renalkit.usecases.scan_truth import ScanTruth, labelled_scans, scan_truth

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CascadeTraining:
    """What all folds of a cascade share. groups: patient -> those who belong together."""

    folder: RunFolder
    experiment: CascadeExperiment
    cohort: Cohort
    split: Split
    groups: Mapping[str, str]
    scans: tuple[SampleKey, ...]

    @property
    def params(self) -> CascadeParams:
        return self.experiment.params

    def fold(self, index: int) -> FoldFolder:
        """Where a fold lies."""
        return self.folder.fold(self.experiment.label, index)

    def digest(self, fold: Fold) -> str:
        """What a finished fold must agree with to be kept."""
        parts = (self.experiment.digest, self.cohort.digest, self.split.digest, str(fold.index))
        return sha256_bytes("\n".join(parts).encode())


def used_scans(cohort: Cohort, experiment: CascadeExperiment) -> tuple[SampleKey, ...]:
    """The labelled scans of the phases asked for.

    Raises:
        InputRefused: there is none.
    """
    studies = {study.key: study for study in cohort.studies}
    wanted = experiment.phases
    found = tuple(
        key
        for key in labelled_scans(cohort)
        if not wanted or getattr(studies[key.study].clips[key.clip], "phase", None) in wanted
    )
    if not found:
        raise InputRefused(
            Reason.BAD_ANNOTATION,
            "no CT scan with labels" + (f" in phase {', '.join(wanted)}" if wanted else ""),
            where=cohort.name,
            expected="volumes on which kidneys and masses are labelled",
            remedy="ingest them with their label files; look at 'renalkit cohort show'",
        )
    return found


def train_cascade_fold(training: CascadeTraining, fold: Fold, progress: Progress) -> bool:
    """Train the stages asked for of one fold and, with all of them, keep what they find on its
    tested scans; True when that is done.

    A finished fold is left alone. A fold another process holds is left to it (False).
    """
    folder = training.fold(fold.index)
    if folder.finished(training.digest(fold)):
        return True
    try:
        with locked(folder.path):
            if folder.finished(training.digest(fold)):
                return True
            words = f"fold {fold.index + 1} of {len(training.split.folds)}"
            _Fold(training, fold, progress, words).train()
    except Locked:
        return False
    return True


SpacingMm = tuple[float, float, float]
Crops = dict[SampleKey, tuple[HeldVolume, ...]]
"""Boxes of each scan on voxels of one spacing."""


@dataclass(frozen=True)
class _Fold:
    """One fold while it is trained."""

    training: CascadeTraining
    fold: Fold
    progress: Progress
    words: str
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    crops: dict[SpacingMm, Crops] = field(default_factory=dict[SpacingMm, Crops])

    @property
    def params(self) -> CascadeParams:
        return self.training.params

    @property
    def path(self) -> Path:
        return self.training.fold(self.fold.index).path

    def train(self) -> None:
        """Every stage asked for, then the tested scans once all are there."""
        stages = self.training.experiment.stages
        weights = {"kidney": self._kidney("kidney", self._part("train"))}
        if "mass" in stages:
            for member in range(self.params.mass.members):
                weights[f"mass-{member}"] = self._mass(member)
        if "lesion" in stages:
            weights["lesion"] = self._lesion()
            self._test(weights)

    # ---- scans of a part

    def _part(self, name: str) -> tuple[SampleKey, ...]:
        patients: frozenset[str] = getattr(self.fold, name)
        return tuple(key for key in self.training.scans if key.patient in patients)

    @cached_property
    def _studies(self) -> dict[str, Any]:
        return {study.key: study for study in self.training.cohort.studies}

    def _volume(self, key: SampleKey) -> Volume:
        volume = self._studies[key.study].clips[key.clip]
        assert isinstance(volume, Volume)
        return volume

    def _truth(self, key: SampleKey) -> ScanTruth:
        return scan_truth(self._studies[key.study], key.clip)

    def _seed(self, name: str) -> int:
        """Its own for every network of every fold."""
        text = f"{self.training.experiment.split.seed}/{self.fold.index}/{name}"
        return int(sha256_bytes(text.encode())[:8], 16)

    # ---- stage 1

    def _kidney(self, name: str, keys: Sequence[SampleKey]) -> str:
        """Train a network of stage 1 on these scans; the digest of its weights."""
        params = self.params.kidney
        experiment = self.training.experiment
        held = self._coarse
        deep = 2 ** (len(params.channels) - 1)
        options = replace(experiment.train.kidney, seed=self._seed(name))
        plan = PatchPlan(
            size=None,
            batch=experiment.batch.kidney,
            seed=options.seed,
            multiple=(deep, deep, deep),
            ranges=experiment.augment,
        )

        def validate(net: Net) -> dict[str, float]:
            score = volume_scorer(net)
            dice = [
                mask_dice(kidney_probability(held[k].hu, score, params) >= HALF, held[k].labels > 0)
                for k in self._part("validation")
            ]
            return {"dice": float(np.mean(dice))}

        task = VolumeTask(
            build=lambda: build_kidney(params),
            loss=mask_loss(MaskLossPlan((WHOLE_KIDNEY,))),
            source=Patches([held[k] for k in keys], plan),
            digest=self._digest(name),
            validate=validate if self._part("validation") else None,
            monitor="dice" if self._part("validation") else "",
        )
        return self._trained(name, task, options)

    @cached_property
    def _coarse(self) -> dict[SampleKey, HeldVolume]:
        """Training and validation scans as stage 1 sees them."""
        keys = (*self._part("train"), *self._part("validation"))
        self.progress.stage(f"{self.words}: scans for stage 1", len(keys))
        found: dict[SampleKey, HeldVolume] = {}
        for key in keys:
            truth = self._truth(key)
            hu, grid = coarse(truth.volume, self.params.kidney)
            found[key] = _held(key.text, hu, truth, grid)
            self.progress.advance()
        return found

    # ---- boxes

    @cached_property
    def _boxes(self) -> dict[SampleKey, tuple[BoxMm, ...]]:
        """Where stages 2 and 3 learn on the scans of training and validation patients.

        With 'inner', those a network found that never saw the patient; where it found none, those
        of the reference.
        """
        if self.params.boxes == "reference_jittered":
            keys = (*self._part("train"), *self._part("validation"))
            return {key: self._reference_boxes(key) for key in keys}
        found: dict[SampleKey, tuple[BoxMm, ...]] = {}
        for name, learnt, asked in self._inner():
            self._kidney(name, learnt)
            net = self._load(name, lambda: build_kidney(self.params.kidney))
            score = volume_scorer(net)
            for key in asked:
                scan, hu = self._volume(key).grid, self._coarse[key].hu
                boxes = boxes_on(scan, hu, score, self.params.kidney)
                found[key] = boxes or self._reference_boxes(key)
        return found

    def _inner(self) -> Iterator[tuple[str, tuple[SampleKey, ...], tuple[SampleKey, ...]]]:
        """Name of each inner network, the scans it learns from and those it is asked about; the
        outer one is asked about validation patients."""
        train = self._part("train")
        turns = inner_turns(
            {k.patient for k in train},
            self.training.groups,
            self.params.inner_folds,
            self._seed("inner"),
        )
        for inner in range(self.params.inner_folds):
            learnt = tuple(k for k in train if turns[k.patient] != inner)
            yield (
                f"kidney-inner-{inner}",
                learnt,
                tuple(k for k in train if turns[k.patient] == inner),
            )
        yield "kidney", train, self._part("validation")

    def _reference_boxes(self, key: SampleKey) -> tuple[BoxMm, ...]:
        """Around the drawn kidneys, shifted at random."""
        truth = self._truth(key)
        grid = coarse_grid(truth.volume.grid, self.params.kidney)
        kidneys = np.stack(list(nearest(truth.labels, truth.volume.grid, grid))) > 0
        boxes = search_boxes(
            kidneys.astype(np.float64), grid, truth.volume.grid, self.params.kidney
        )
        rng = np.random.default_rng(self._seed(f"boxes/{key.text}"))
        return tuple(_shifted(box, rng, self.params.jitter_mm) for box in boxes)

    # ---- stage 2

    def _mass(self, member: int) -> str:
        params, experiment, name = self.params.mass, self.training.experiment, f"mass-{member}"
        options = replace(experiment.train.mass, seed=self._seed(name))
        plan = PatchPlan(
            size=params.patch,
            batch=experiment.batch.mass,
            seed=options.seed,
            mass_share=experiment.patches.mass_share,
            kidney_share=experiment.patches.kidney_share,
            ranges=experiment.augment,
        )
        held = self._crops(params.spacing_of(member))

        def validate(net: Net) -> dict[str, float]:
            score = volume_scorer(net)
            kidney: list[float] = []
            mass: list[float] = []
            for key in self._part("validation"):
                found = [mass_probability(v.hu, (score,), params)[0] for v in held[key]]
                known = np.concatenate([v.labels.ravel() for v in held[key]])
                for channel, out, least in ((0, kidney, 1), (1, mass, TUMOUR)):
                    said = np.concatenate([(p[channel] >= HALF).ravel() for p in found])
                    out.append(mask_dice(said, known >= least))
            return {"dice_kidney": float(np.mean(kidney)), "dice_mass": float(np.mean(mass))}

        task = VolumeTask(
            build=lambda: build_mass(params),
            loss=mask_loss(MaskLossPlan((WHOLE_KIDNEY, MASS))),
            source=Patches([v for key in self._part("train") for v in held[key]], plan),
            digest=self._digest(name),
            validate=validate if self._part("validation") else None,
            monitor="dice_mass" if self._part("validation") else "",
        )
        return self._trained(name, task, options)

    def _crops(self, spacing_mm: SpacingMm) -> Crops:
        """The boxes of training and validation scans as a member of stage 2 sees them, widened once
        on every side and at least a patch, so that it learns what lies around kidneys."""
        if spacing_mm in self.crops:
            return self.crops[spacing_mm]
        boxes = self._boxes
        widen_mm, patch = self.params.mass.widen_mm, self.params.mass.patch
        self.progress.stage(f"{self.words}: boxes for stage 2", len(boxes))
        found: Crops = {}
        for key, of in boxes.items():
            truth = self._truth(key)
            scan = truth.volume.grid
            wide = joined(
                [at_least(around(b, scan, widen_mm), patch, spacing_mm, scan) for b in of]
            )
            grids = [working_grid(scan, spacing_mm, b) for b in wide]
            found[key] = tuple(
                _held(f"{key.text}.{n}", on_grid(truth.volume, grid), truth, grid)
                for n, grid in enumerate(grids)
            )
            self.progress.advance()
        self.crops[spacing_mm] = found
        return found

    # ---- stage 3

    def _lesion(self) -> str:
        params, experiment, name = self.params.lesion, self.training.experiment, "lesion"
        classes = self.training.cohort.task.classes
        options = replace(experiment.train.lesion, seed=self._seed(name))
        plan = CropPlan(
            size=(params.side, params.side, params.side),
            batch=experiment.batch.lesion,
            seed=options.seed,
            mask_input=params.mask_input,
            ranges=experiment.augment,
        )
        crops, labels = self._cubes(self._part("train"), _AROUND)
        asked, known = self._cubes(self._part("validation"), 1.0)
        checked = LesionCrops(asked, known, replace(plan, ranges=None)) if asked else None

        def validate(net: Net) -> dict[str, float]:
            assert checked is not None
            score = volume_scorer(net)
            images = [checked.plain([i]).image.numpy() for i in range(len(asked))]
            logits = np.concatenate([score(image) for image in images]).astype(np.float64)
            return _named_rightly(logits, np.asarray(known))

        task = VolumeTask(
            build=lambda: build_lesion(params, len(classes)),
            loss=class_loss(),
            source=LesionCrops(crops, labels, plan),
            digest=self._digest(name),
            validate=validate if checked is not None else None,
            monitor="" if checked is None else "log_likelihood",
        )
        return self._trained(name, task, options)

    def _cubes(
        self, keys: Sequence[SampleKey], around: float
    ) -> tuple[list[HeldVolume], list[int]]:
        """Cubes about the reference masses of known class, `around` times as wide, and classes."""
        place = {name: k for k, name in enumerate(self.training.cohort.task.classes)}
        params = self.params.lesion
        crops: list[HeldVolume] = []
        labels: list[int] = []
        for key in keys:
            truth = self._truth(key)
            parts = ndimage.find_objects(truth.instances)
            for number, label in truth.classes.items():
                if label not in place:
                    continue
                cube = lesion_cube(part_box(truth.volume.grid, parts[number - 1]), params, around)
                name = f"{key.text}.{number}"
                crops.append(_held(name, on_grid(truth.volume, cube), truth, cube, number))
                labels.append(place[label])
        return crops, labels

    # ---- training and testing

    def _digest(self, name: str) -> str:
        """Of what decides a network beside its batches and options."""
        return sha256_bytes(f"{self.training.digest(self.fold)}\n{name}".encode())

    def _trained(self, name: str, task: VolumeTask, options: VolumeOptions) -> str:
        self.progress.stage(f"{self.words}: {name}")
        history = train_volume(task, options, self.path / name, self.progress)
        self.seconds[name] = history.seconds
        return history.weights_sha256

    def _load(self, name: str, build: Callable[[], Net]) -> Net:
        return load_volume_net(build, self.path / name / WEIGHTS)

    def _test(self, weights: Mapping[str, str]) -> None:
        params, classes = self.params, self.training.cohort.task.classes
        stages = Stages(
            kidney=volume_scorer(self._load("kidney", lambda: build_kidney(params.kidney))),
            mass=tuple(
                volume_scorer(self._load(f"mass-{m}", lambda: build_mass(params.mass)))
                for m in range(params.mass.members)
            ),
            name=volume_scorer(
                self._load("lesion", lambda: build_lesion(params.lesion, len(classes)))
            ),
        )
        together = sha256_bytes("".join(weights[k] for k in sorted(weights)).encode())
        experiment = self.training.experiment
        ref = SystemRef(experiment.cascade, experiment.label, together)
        keys = self._part("test")
        self.progress.stage(f"{self.words}: tested scans", len(keys))
        started = time.monotonic()
        for key in keys:
            volume = self._volume(key)
            spoken = Spoken(key, ref, self.fold.index, classes)
            save_scan(self.path / SCANS, find_masses(volume, stages, params, spoken))
            self.progress.advance()
        spent = time.monotonic() - started
        fold = self.fold
        write_json(
            self.training.fold(fold.index).done,
            {
                "digest": self.training.digest(fold),
                "weights_sha256": together,
                "networks": dict(sorted(weights.items())),
                "patients": {n: len(getattr(fold, n)) for n in ("train", "validation", "test")},
                "scans": {n: len(self._part(n)) for n in ("train", "validation", "test")},
                "train_seconds": round(sum(self.seconds.values()), 1),
                "seconds": {name: round(s, 1) for name, s in sorted(self.seconds.items())},
                "seconds_per_scan": round(spent / max(1, len(keys)), 2),
            },
        )


def inner_turns(
    patients: Iterable[str], groups: Mapping[str, str], folds: int, seed: int
) -> dict[str, int]:
    """Which inner network each training patient is kept from; those of one group from the same.

    Raises:
        InputRefused: fewer groups than inner networks.
    """
    group = {p: groups.get(p, p) for p in patients}
    names = sorted(set(group.values()))
    if len(names) < folds:
        raise InputRefused(
            Reason.BAD_ANNOTATION,
            f"{len(names)} training patients with a labelled scan",
            where="params.inner_folds",
            expected=f"at least {folds}",
            remedy="add patients, or set params.boxes to 'reference_jittered'",
        )
    order = np.random.default_rng(seed).permutation(len(names))
    turn = {names[i]: n % folds for n, i in enumerate(order.tolist())}
    return {p: turn[g] for p, g in group.items()}


_AROUND = 1.5
"""How much wider cubes are held than shown, so that turning them brings no air into view."""


def _held(
    name: str, hu: npt.NDArray[np.int16], truth: ScanTruth, grid: VolumeGrid, alone: int = 0
) -> HeldVolume:
    """A part of a scan with its labels; alone: the one mass in it, the others are kidney."""
    labels = np.stack(list(nearest(truth.labels, truth.volume.grid, grid)))
    if alone:
        numbers = np.stack(list(nearest(truth.instances, truth.volume.grid, grid)))
        labels[(numbers > 0) & (numbers != alone)] = KIDNEY
    return HeldVolume(name, hu, labels, grid.spacing_mm)


def _shifted(box: BoxMm, rng: np.random.Generator, most_mm: float) -> BoxMm:
    """Each face moved by up to so much."""
    low, high = (tuple((np.asarray(p) + rng.uniform(-most_mm, most_mm, 3)).tolist()) for p in box)
    return low, high


def _named_rightly(logits: Floats, known: npt.NDArray[np.int64]) -> dict[str, float]:
    """Mean log-likelihood of the true class, each class alike, and the share named rightly."""
    true = special.log_softmax(logits, axis=1)[np.arange(len(known)), known]
    per_class = [float(true[known == k].mean()) for k in np.unique(known)]
    right = float((logits.argmax(axis=1) == known).mean())
    return {"log_likelihood": float(np.mean(per_class)), "accuracy": right}
