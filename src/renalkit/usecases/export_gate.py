"""Does every form a model is exported in say what the trained network says? The parity gate.

Compared on tested frames of the run, by the network that was trained without their patients; where
there is no cohort, on made-up pictures. Results of both sides are decoded alike: masks, class
scores, and the AUC over patients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from renalkit.domain.cohort import ClassTask
from renalkit.domain.sample import Sample
from renalkit.errors import ModelRefused, StatisticUndefined
from renalkit.learn.prepared import CHANNELS, PreparedSet, prepare
from renalkit.metrics.classification import auc, macro_auc
from renalkit.runtime.abilities import Precision
from renalkit.runtime.engines import BACKENDS, Backend, EngineOptions, installed, open_engine
from renalkit.runtime.package import score_stream
from renalkit.runtime.parity import ALLOWED, Parity, compare
from renalkit.systems import get_system
from renalkit.systems._contract import Params, RawOutputs, System
from renalkit.usecases.experiment import Job
from renalkit.usecases.parts import usable
from renalkit.usecases.progress import Silent

Json = dict[str, Any]
Results = dict[str, npt.NDArray[Any]]

FRAMES_PER_PATIENT = 2
BATCH = 8
MADE_UP = 3
"""Pictures of the golden pair."""

# Shape legend: n images, c channels, s side in pixels, f numbers, m modalities, k classes.


@dataclass(frozen=True, slots=True, eq=False)
class Golden:
    """What a member is compared on. given: 'image' (n,c,s,s) and 'features' (n,f); present (n,m);
    labels (n,), -1 where unknown; patients (n,), empty of made-up pictures."""

    given: Results
    present: npt.NDArray[np.bool_]
    labels: npt.NDArray[np.int64]
    patients: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.present)


@dataclass(frozen=True, slots=True)
class Form:
    """One way to compute a member: an engine, a mode, and the file it reads."""

    backend: Backend
    precision: Precision
    file: str

    @property
    def words(self) -> str:
        return f"{self.backend} {self.precision.value} ({self.file})"


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """One form of one member beside the trained network."""

    fold: int
    parity: Parity
    results: Results


# ---- what is compared on -----------------------------------------------------------------------


def made_up(job: Job, n: int = MADE_UP, seed: int = 0) -> Golden:
    """Grainy pictures of nobody, the same for everyone; the last lacks its last modality.

    So that a package holds no pixel of a patient.
    """
    source = np.random.default_rng(seed)
    size, inputs = job.input.size, job.inputs
    image = source.random((n, inputs.channels, size, size), dtype=np.float32)
    for picture in image:
        for channel in picture:
            coarse = source.random((8, 8), dtype=np.float32)
            large = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
            channel[:] = np.clip(0.7 * large + 0.3 * channel, 0.0, 1.0)
    present = np.ones((n, len(inputs.modalities)), np.bool_)
    if len(inputs.modalities) > 1:
        present[-1, -1] = False
        image[-1, -CHANNELS[inputs.modalities[-1]] :] = 0
    given: Results = {"image": image}
    if inputs.features:
        numbers = source.normal(size=(n, len(inputs.features))).astype(np.float32)
        numbers[-1, -1] = np.nan
        given["features"] = numbers
    return Golden(given, present, np.full(n, -1, np.int64), ())


def frames_of(
    job: Job, samples: Sequence[Sample], part: npt.NDArray[np.int64], most: int
) -> Golden | None:
    """At most so many frames of a part of the cohort, its patients in turn; None without any.

    Two frames of a patient at most, evenly spread, so that many patients are among them.
    part: positions of its samples.
    """
    of_patient: dict[str, list[int]] = {}
    for i in part:
        of_patient.setdefault(samples[i].key.patient, []).append(int(i))
    turns: list[tuple[int, str, int]] = []
    for patient, places in of_patient.items():
        n = min(FRAMES_PER_PATIENT, len(places))
        spread = [places[(2 * k + 1) * len(places) // (2 * n)] for k in range(n)]
        turns += [(k, patient, place) for k, place in enumerate(spread)]
    chosen = [samples[place] for _, _, place in sorted(turns)[:most]]
    if not chosen:
        return None
    data = prepare(chosen, job.input, None, 0, Silent(), job.inputs)
    kept = data.take(usable(data, get_system(job.system), "test", np.arange(len(data))))
    return _golden_of(kept) if len(kept) else None


def _golden_of(data: PreparedSet) -> Golden:
    given: Results = {"image": np.stack([data.network_input(i) for i in range(len(data))])}
    if data.features.shape[1]:
        given["features"] = data.features
    return Golden(given, data.present, data.labels, data.patients)


# ---- the gate ---------------------------------------------------------------------------------


def forms(fast: Sequence[Precision], files: Mapping[tuple[Backend, Precision], str]) -> list[Form]:
    """Every engine that is installed in every mode asked for, as far as there is a file for it.

    files: name of the file by engine and mode.
    """
    return [
        Form(backend, precision, files[backend, precision])
        for precision in (Precision.FP32, *fast)
        for backend in BACKENDS
        if backend in installed() and (backend, precision) in files
    ]


def compared(form: Form, folder: Path, fold: int, golden: Golden, expected: Results) -> Compared:
    """A member computed in one form; `expected`: by torch. Nothing is refused yet."""
    engine = open_engine(
        folder / form.file, EngineOptions(backend=form.backend, precision=form.precision)
    )
    starts = range(0, len(golden), BATCH)
    batches = ({n: v[i : i + BATCH] for n, v in golden.given.items()} for i in starts)
    parts = list(score_stream(engine, batches))
    found = {name: np.concatenate([p[name] for p in parts]) for name in expected}
    return Compared(fold, compare(expected, found), found)


def gate(
    form: Form,
    members: Sequence[tuple[Golden, Results, Compared]],
    scoring: tuple[System[Params], Params],
    task: ClassTask,
) -> Json:
    """One form over all members as JSON values.

    members: of each what it was compared on, torch's results, and the form's.

    Raises:
        ModelRefused: a difference beyond the tolerance of the mode.
    """
    problems = [
        f"fold {found.fold}: {words}"
        for _, _, found in members
        for words in found.parity.problems(form.precision)
    ]
    patients = _patients(members, scoring, task)
    allowed = ALLOWED[form.precision]
    if patients["difference"] is not None and not patients["difference"] <= allowed.auc:
        problems.append(
            f"AUC of patients moves by {patients['difference']:.4f} (allowed {allowed.auc:g})"
        )
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ModelRefused(
            "; ".join(problems[:3]) + more,
            where=f"parity, {form.words}",
            expected="what the trained network says",
            remedy="export without this mode"
            if form.precision is not Precision.FP32
            else "train with smaller weights, or report this network: folding lost its digits",
        )
    return {
        "engine": form.backend,
        "mode": form.precision.value,
        "file": form.file,
        "allowed": allowed.plain,
        "members": [{"fold": c.fold} | c.parity.plain for _, _, c in members],
        "patients": patients,
    }


def _patients(
    members: Sequence[tuple[Golden, Results, Compared]],
    scoring: tuple[System[Params], Params],
    task: ClassTask,
) -> Json:
    """AUC over patients, whose score is the mean of their frames, of both sides."""
    truths: dict[str, int] = {}
    scores: tuple[dict[str, list[Any]], dict[str, list[Any]]] = ({}, {})
    for golden, expected, found in members:
        for side, raw in zip(scores, (expected, found.results), strict=True):
            for i, said in enumerate(_scores(scoring, raw, golden)):
                if golden.patients and golden.labels[i] >= 0 and said is not None:
                    truths[golden.patients[i]] = int(golden.labels[i])
                    side.setdefault(golden.patients[i], []).append(said)
    known = sorted(truths)
    result: Json = {"n": len(known), "torch": None, "exported": None, "difference": None}
    if not known:
        return result
    truth = np.array([truths[p] for p in known])
    try:
        areas = [
            _area(truth, np.array([np.mean(side[p], axis=0) for p in known]), task)
            for side in scores
        ]
    except StatisticUndefined:
        return result | {"note": "a class has no patient among these"}
    return result | {
        "torch": areas[0],
        "exported": areas[1],
        "difference": abs(areas[0] - areas[1]),
    }


def _area(truth: npt.NDArray[Any], scores: npt.NDArray[Any], task: ClassTask) -> float:
    positive = task.positive_index
    if positive is None:
        return macro_auc(truth, scores)
    return auc(truth == positive, scores[:, positive])


def _scores(
    scoring: tuple[System[Params], Params], raw: RawOutputs, golden: Golden
) -> list[npt.NDArray[np.float64] | None]:
    system, params = scoring
    decoded = system.decode(params, {**raw, "present": golden.present})
    return [d.scores for d in decoded]


def reads_all_heads(system: System[Params], params: Params) -> bool:
    """Whether a system's answer is made of every mask head, not of the last one alone."""
    heads = np.random.default_rng(0).normal(size=(1, 4, 2, 2)).astype(np.float32)
    every = system.decode(params, {"mask_logits": heads})[0].mask
    last = system.decode(params, {"mask_logits": heads[:, -1:]})[0].mask
    assert every is not None
    assert last is not None
    return not np.allclose(every, last)
