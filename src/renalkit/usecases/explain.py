"""Where did a trained system see what it says? Maps of tested frames by their own fold's network.

Only frames of a fold's test part are explained, by the network that was trained without their
patients. Beside each map stands that of a network with random weights: what both have in common
does not come from training.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from renalkit import RESEARCH_ONLY
from renalkit.domain.image import Mode
from renalkit.domain.sample import Sample
from renalkit.domain.splits import Fold
from renalkit.errors import ConfigError, InputRefused, ModelRefused, Reason, StoreError
from renalkit.learn.cam import ActivationMaps, CamMethod, activation_maps, randomised
from renalkit.learn.outputs import Net
from renalkit.learn.predictor import load_weights
from renalkit.learn.prepared import CHANNELS, Inputs, PreparedSet, prepare
from renalkit.metrics.explanations import curve_area, inside_share, rank_correlation
from renalkit.store.files import (
    locked,
    make_folder,
    read_json,
    sha256_bytes,
    write_bytes,
    write_json,
    write_text,
)
from renalkit.store.runs import RunFolder
from renalkit.store.splits import load_split
from renalkit.systems import get_system
from renalkit.systems._contract import Decoded, Params, Shape, System
from renalkit.transforms.perturb import blurred, ranked, replaced
from renalkit.transforms.preprocess import Placement
from renalkit.usecases.experiment import Experiment, Job, jobs_of
from renalkit.usecases.explain_figures import CONTROL, cohort_figures
from renalkit.usecases.parts import load_data, part_indices, samples_of, usable
from renalkit.usecases.progress import Progress, Silent
from renalkit.usecases.results import bootstrap_plan, stored_experiment
from renalkit.usecases.train import Training, decode_all
from renalkit.writers.explain import page_html
from renalkit.writers.explain_pictures import Pane, frame_png

Json = dict[str, Any]
Mask = npt.NDArray[np.bool_]
Heat = npt.NDArray[np.float32]

SCHEMA = 1
PORTION = 64
"""Frames at a time, or a few more to keep a patient's together."""
SETTLED_ON = 128
"""At most so many frames settle the normalisation of the randomised network."""
GRID = 32
"""Places per side of the mean maps, which lie on crops brought to one square."""

CONFIDENTIAL = "The pictures hold pixels of the source images: keep them as confidential as those."
DEFINITIONS: dict[str, str] = {
    "inside": "share of a map that lies inside the lesion, on the network's input with its "
    "padding; an even map has the share 'area'",
    "region": "what the lesion is: its outline; where there is none, its box (the crop without "
    "its margin); null where the crop is the box, of which everything is inside",
    "evidence": "this modality's share of all that speaks for the class in the picture; 0 where "
    "the map is empty, null where all maps are",
    "deletion": "area under the score of the class while the modality's places are blurred, the "
    "highest of the map first; small when the map names what decides",
    "insertion": "the same from the blurred picture to the sharp one; large when it does",
    "rank_correlation": "Spearman's correlation with the map of the randomised network, signed, on "
    "the layer's own grid; near 0 when the map comes from training (Adebayo et al. 2018)",
    CONTROL: "the same figures for a network of this architecture with random weights; its maps "
    "are deleted and inserted in front of the trained network",
    "weights": "how much each modality counts in the fusion (alpha, beta)",
    "scores": "of the single frame, before calibration and the rule that makes patients of frames",
}


@dataclass(frozen=True, slots=True)
class ExplainRequest:
    """What the user asked for.

    target: class that is explained; None: of each frame the one with the highest score. folds: all
    finished ones when empty. patients: at most so many, classes in turn; 0 for all. frames: per
    patient, spread evenly; 0 for all. steps: of deletion and insertion; 0 leaves them out. cohort:
    that of the run, when it has moved.
    """

    system: Path
    output: Path
    method: CamMethod = "grad-cam"
    target: str | None = None
    folds: tuple[int, ...] = ()
    patients: int = 0
    frames: int = 4
    steps: int = 10
    seed: int = 0
    cohort: Path | None = None

    def __post_init__(self) -> None:
        problems = [
            f"{name}: {value} is below 0"
            for name, value in (
                ("patients", self.patients),
                ("frames", self.frames),
                ("steps", self.steps),
            )
            if value < 0
        ]
        if problems:
            raise ConfigError(problems)


@dataclass(frozen=True, slots=True)
class _Setting:
    """A system of a run, and what all its folds share."""

    request: ExplainRequest
    experiment: Experiment
    job: Job
    system: System[Params]
    params: Params
    training: Training
    chosen: frozenset[str]
    target: int | None

    @property
    def classes(self) -> tuple[str, ...]:
        return self.training.cohort.task.classes

    @property
    def shape(self) -> Shape:
        return self.training.shape(self.job)


def explain(request: ExplainRequest, progress: Progress) -> Json:
    """Explain tested frames of every fold asked for; finished folds are kept, so it resumes.

    Writes fold-K/*.png, fold-K.json, explain.json and explain.html below the output folder.

    Raises:
        ModelRefused: no such system, no fold with weights, a network without maps or classes, a
            method that does not exist for it.
        StoreError: run and cohort, folds or settings disagree, or the output was made otherwise.
        ConfigError: an unknown class or fold, or an output folder inside the run.
    """
    setting, folds = _set_up(request, progress)
    make_folder(request.output)
    with locked(request.output):
        parts = [_explained_fold(setting, fold, progress) for fold in folds]
        found = _together(setting, parts)
        write_json(request.output / "explain.json", found)
        write_text(request.output / "explain.html", page_html(found, request.output))
    return found


# ---------------------------------------------------------------- what is explained


def _set_up(request: ExplainRequest, progress: Progress) -> tuple[_Setting, list[Fold]]:
    run = RunFolder(request.system.parent)
    if RunFolder(request.system).experiment_json.exists():
        run = RunFolder(request.system)
    experiment = stored_experiment(run)
    jobs = {job.label: job for job in jobs_of(experiment)}
    job = jobs.get(request.system.name)
    if job is None or run.path == request.system:
        raise ModelRefused(
            "a run, not one of its systems" if run.path == request.system else "no such system",
            where=request.system.name,
            expected=f"RUN/SYSTEM with one of {', '.join(jobs)}",
            remedy="name the system that shall be explained",
        )
    if request.output.resolve().is_relative_to(run.path.resolve()):
        raise ConfigError([f"-o {request.output}: inside the run; choose a folder beside it"])
    if not job.task.classifies:
        raise ModelRefused(
            "a system that only outlines",
            where=job.label,
            expected="a system that names classes",
            remedy="its outline is its explanation; explain another system of the run",
        )
    progress.stage("reading the cohort")
    cohort, _ = load_data(experiment, request.cohort)
    classes = cohort.task.classes
    if request.target is not None and request.target not in classes:
        raise ConfigError([f"--target '{request.target}': expected one of {', '.join(classes)}"])
    split = load_split(run.folds)
    samples = samples_of(cohort, experiment.input.region)
    training = Training(run, cohort, split, samples, experiment.workers)
    folds = [fold for fold in split.folds if _has_weights(training, job, fold)]
    unknown = sorted(set(request.folds) - {f.index for f in folds})
    if unknown or not folds:
        raise ModelRefused(
            f"no finished fold {', '.join(map(str, unknown))} with weights".replace("  ", " "),
            where=job.label,
            expected=f"one of {', '.join(str(f.index) for f in folds) or 'a trained run'}",
            remedy="train the experiment here first; a run without weights, such as an external "
            "test or a stored study, has nothing to look into",
        )
    folds = [f for f in folds if not request.folds or f.index in request.folds]
    system = get_system(job.system)
    setting = _Setting(
        request,
        experiment,
        job,
        system,
        system.params(job.params),
        training,
        _patients(request.patients, samples, folds),
        None if request.target is None else classes.index(request.target),
    )
    return setting, folds


def _has_weights(training: Training, job: Job, fold: Fold) -> bool:
    """Whether the fold's own network is there; StoreError when it was trained on other folds."""
    folder = training.folder.fold(job.label, fold.index)
    return folder.finished(training.digest(job, fold)) and folder.weights.exists()


def _patients(limit: int, samples: Sequence[Sample], folds: Sequence[Fold]) -> frozenset[str]:
    """Tested patients, classes in turn until there are `limit` (all for 0)."""
    tested = frozenset[str]().union(*(f.test for f in folds))
    if not limit:
        return tested
    label_of = {s.key.patient: s.label for s in samples if s.key.patient in tested}
    queues: dict[int | None, list[str]] = {}
    for patient in sorted(label_of):
        queues.setdefault(label_of[patient], []).append(patient)
    turns = sorted((n, str(label), p) for label, q in queues.items() for n, p in enumerate(q))
    return frozenset(p for _, _, p in turns[:limit])


def _frames_of(setting: _Setting, fold: Fold) -> list[int]:
    """Positions of the frames to explain in a fold's test part: evenly spread per patient."""
    samples = setting.training.samples
    of_patient: dict[str, list[int]] = {}
    for i in part_indices(samples, fold)["test"]:
        patient = samples[i].key.patient
        if patient in fold.train | fold.validation:
            raise InputRefused(
                Reason.SPLIT_OVERLAP,
                "a tested patient whom this network was trained on",
                where=f"fold {fold.index}",
                remedy="train the experiment again; its folds overlap",
            )
        if patient in setting.chosen:
            of_patient.setdefault(patient, []).append(int(i))
    wanted = setting.request.frames
    found: list[int] = []
    for places in of_patient.values():
        n = len(places) if not wanted else min(wanted, len(places))
        found += [places[(2 * k + 1) * len(places) // (2 * n)] for k in range(n)]
    return sorted(found)


# ---------------------------------------------------------------- one fold


def _explained_fold(setting: _Setting, fold: Fold, progress: Progress) -> Json:
    """The fold's results, made now or found made with the same settings."""
    path = setting.request.output / f"fold-{fold.index}.json"
    folder = setting.training.folder.fold(setting.job.label, fold.index)
    sha256 = read_json(folder.done)["weights_sha256"]
    asked = {k: v for k, v in asdict(setting.request).items() if k not in _PLACES}
    plain = [SCHEMA, setting.training.digest(setting.job, fold), sha256, asked]
    digest = sha256_bytes(json.dumps(plain, sort_keys=True).encode())
    if path.exists():
        found: Json = read_json(path)
        if found.get("digest") == digest:
            return found
        raise StoreError(
            "made by another run or with other options",
            where=path.name,
            expected="the same command",
            remedy="choose another output folder, or remove this one",
        )
    net = setting.system.build(setting.params, setting.shape, setting.job.task)
    # In the form that was trained, which gives the same and has a randomised counterpart.
    load_weights(net, folder.weights, sha256)
    found = {"digest": digest, "fold": fold.index, "weights_sha256": sha256}
    found |= _explained_frames(setting, fold, net, progress)
    write_json(path, found)
    return found


_PLACES = ("system", "output", "cohort", "folds")
"""Parts of a request that change no result of a fold."""


@dataclass(frozen=True, slots=True, eq=False)
class _Evidence:
    """What a network says about some images: maps and decoded results."""

    maps: ActivationMaps
    decoded: list[Decoded]


def _explained_frames(setting: _Setting, fold: Fold, net: Net, progress: Progress) -> Json:
    asked = _frames_of(setting, fold)
    progress.stage(f"{setting.job.label}: fold {fold.index}, explain frames", len(asked))
    found: Json = {"frames": [], "left_out": len(asked), "mean_maps": {}}
    if not asked:
        return found
    spread = asked[:: -(-len(asked) // SETTLED_ON)]
    _, seen = _prepared(setting, spread)
    if not len(seen):
        return found
    control = randomised(net, lambda: _fresh(setting), seen, setting.request.seed)
    for part in _portions(setting, asked):
        frames = _prepared(setting, part)
        if frames[0]:
            rows, means = _explained_portion(setting, fold, (net, control), frames, progress)
            found["frames"] += rows
            found["left_out"] -= len(rows)
            found["mean_maps"] = _added(found["mean_maps"], means)
    return found


def _portions(setting: _Setting, asked: Sequence[int]) -> list[list[int]]:
    """The frames of some patients at a time, so that memory does not grow with the fold."""
    found: list[list[int]] = []
    patient = ""
    for i in asked:
        own = setting.training.samples[i].key.patient
        if not found or (own != patient and len(found[-1]) >= PORTION):
            found.append([])
        found[-1].append(i)
        patient = own
    return found


def _prepared(setting: _Setting, asked: Sequence[int]) -> tuple[list[Sample], PreparedSet]:
    """The frames that the system can be given, as its network takes them."""
    job, workers = setting.job, setting.training.workers
    samples = [setting.training.samples[i] for i in asked]
    data = prepare(samples, job.input, None, workers, Silent(), job.inputs)
    kept = usable(data, setting.system, "test", np.arange(len(data)))
    return [samples[i] for i in kept], data.take(kept)


def _explained_portion(
    setting: _Setting,
    fold: Fold,
    nets: tuple[Net, Net],
    frames: tuple[Sequence[Sample], PreparedSet],
    progress: Progress,
) -> tuple[list[Json], Json]:
    """Rows and sums of maps of some frames; their pictures are written. nets: own and control."""
    samples, data = frames
    job, request = setting.job, setting.request
    regions = _regions(setting, samples, data)
    plain = replace(job.train, tta=False)
    said = [decode_all(setting.system, setting.params, net, data, plain) for net in nets]
    scores = np.array([d.scores for d in said[0]])
    targets = scores.argmax(1) if setting.target is None else np.full(len(data), setting.target)
    own, control = (
        _Evidence(
            activation_maps(net, data, targets, request.method, device=job.train.device), decoded
        )
        for net, decoded in zip(nets, said, strict=True)
    )
    rows: list[Json] = []
    for i, sample in enumerate(samples):
        row = _row(setting, sample, int(targets[i]), own.decoded[i]) | {"fold": fold.index}
        row["region"] = regions[i][0]
        row[CONTROL] = {"weights": _weights(setting, control.decoded[i])}
        there = [m for m, here in zip(job.modalities, data.present[i], strict=True) if here]
        row["maps"] = _figures(setting, (own.maps, control.maps), i, there, regions[i][1])
        if request.steps:
            for name, curves in _curves(setting, nets[0], data, i, int(targets[i]), own, control):
                row["maps"][name] = _merged(row["maps"][name], curves)
        row["picture"] = f"fold-{fold.index}/{sample.key.text}.png"
        picture = _picture(setting, row, data, i, own.maps, regions[i][1])
        write_bytes(request.output / row["picture"], picture)
        rows.append(row)
        progress.advance()
    return rows, _mean_maps(setting, samples, data, own.maps, [r for _, r in regions])


def _fresh(setting: _Setting) -> Net:
    """The architecture with its own random weights, never with those of another training."""
    given = {k: None if k.startswith("init_") else v for k, v in setting.job.params.items()}
    return setting.system.build(setting.system.params(given), setting.shape, setting.job.task)


def _regions(
    setting: _Setting, samples: Sequence[Sample], data: PreparedSet
) -> list[tuple[str | None, Mask | None]]:
    """What the lesion is on each network input, and where it is (S,S)."""
    preprocess = setting.job.input
    masks = data.masks
    if Mode.B not in setting.job.modalities:
        # Outlines are kept on the B-mode pane, whose crop shows the same place.
        masks = prepare(samples, preprocess, None, 0, Silent(), Inputs((Mode.B,))).masks
    found: list[tuple[str | None, Mask | None]] = []
    for sample, placement, mask in zip(samples, data.placements, masks, strict=True):
        if sample.mask is not None and mask.any():
            found.append(("outline", mask[0] > 0))
            continue
        box = None if sample.box is None else _box_region(setting, sample, placement)
        found.append((None, None) if box is None else ("box", box))
    return found


def _box_region(setting: _Setting, sample: Sample, placement: Placement) -> Mask | None:
    """The lesion's box on the network input; None where the crop is the box."""
    assert sample.box is not None
    clip = sample.study.clips[sample.key.clip]
    top = left = 0
    if setting.job.input.region == "lesion":
        window = sample.box.grown(setting.job.input.margin, clip.rows, clip.cols)
        top, left = window.y, window.x
    inside = np.zeros(placement.source_shape, np.uint8)
    y, x = max(0, sample.box.y - top), max(0, sample.box.x - left)
    inside[y : y + sample.box.height, x : x + sample.box.width] = 1
    return None if inside.all() else placement.apply_mask(inside) > 0


# ---------------------------------------------------------------- one frame


def _row(setting: _Setting, sample: Sample, target: int, decoded: Decoded) -> Json:
    assert decoded.scores is not None
    classes, key = setting.classes, sample.key
    used = decoded.modalities or setting.job.modalities
    return {
        "patient": key.patient,
        "study": key.study,
        "lesion": key.lesion,
        "clip": key.clip,
        "frame": key.frame,
        "class": None if sample.label is None else classes[sample.label],
        "target": classes[target],
        "called": classes[int(np.argmax(decoded.scores))],
        "scores": dict(zip(classes, map(float, decoded.scores), strict=True)),
        "modalities": [m.value for m in used],
        "weights": _weights(setting, decoded),
    }


def _weights(setting: _Setting, decoded: Decoded) -> dict[str, float] | None:
    if decoded.modality_weights is None:
        return None
    names = [m.value for m in setting.job.modalities]
    return dict(zip(names, map(float, decoded.modality_weights), strict=True))


def _named(maps: Mapping[str, Heat], modalities: Sequence[Mode]) -> dict[str, Heat]:
    """Maps under the modalities' names; the one layer of a network of one modality is its own."""
    if len(modalities) == 1 and len(maps) == 1:
        return {modalities[0].value: next(iter(maps.values()))}
    return {m.value: maps[m.value] for m in modalities}


def _known(value: float) -> float | None:
    return value if isfinite(value) else None


def _figures(
    setting: _Setting,
    pair: tuple[ActivationMaps, ActivationMaps],
    i: int,
    there: Sequence[Mode],
    region: Mask | None,
) -> dict[str, Json]:
    """What is said of the maps of one frame, by modality that is there. pair: own, control."""
    maps, others = (_named(m.maps, setting.job.modalities) for m in pair)
    signed, drawn = (_named(m.signed, setting.job.modalities) for m in pair)
    found: dict[str, Json] = {}
    for name in (m.value for m in there):
        found[name] = _of_map(maps, name, i, region)
        found[name]["area"] = None if region is None else float(region.mean())
        alike = rank_correlation(signed[name][i], drawn[name][i])
        found[name]["rank_correlation"] = _known(alike)
        found[name][CONTROL] = _of_map(others, name, i, region)
    return found


def _of_map(maps: Mapping[str, Heat], name: str, i: int, region: Mask | None) -> Json:
    """The modality's share of all maps of the frame, and the share of its own in the lesion."""
    total = sum(float(m[i].sum(dtype=np.float64)) for m in maps.values())
    heat = maps[name][i]
    return {
        "evidence": float(heat.sum(dtype=np.float64)) / total if total > 0 else None,
        "inside": None if region is None else _known(inside_share(heat, region)),
    }


def _curves(
    setting: _Setting,
    net: Net,
    data: PreparedSet,
    i: int,
    target: int,
    own: _Evidence,
    control: _Evidence,
) -> list[tuple[str, Json]]:
    """Deletion and insertion of one frame by modality: areas, scores, and the control's areas."""
    modalities, steps = setting.job.modalities, setting.request.steps
    picture = np.array(data.images[i])
    found: list[tuple[str, Json]] = []
    start = 0
    for place, modality in enumerate(modalities):
        part = slice(start, start + CHANNELS[modality])
        start = part.stop
        if not data.present[i, place]:
            continue
        sharp = picture[part]
        soft = blurred(sharp)
        roads: list[npt.NDArray[np.uint8]] = []
        for evidence in (own, control):
            order = ranked(_named(evidence.maps.maps, modalities)[modality.value][i])
            roads += [replaced(sharp, soft, order, steps), replaced(soft, sharp, order, steps)]
        images = np.repeat(picture[None], 4 * (steps + 1), axis=0)
        images[:, part] = np.concatenate(roads)
        variants = replace(data.take(np.full(len(images), i)), images=images)
        options = replace(setting.job.train, tta=False)
        decoded = decode_all(setting.system, setting.params, net, variants, options)
        scores = np.array([d.scores for d in decoded])[:, target].reshape(4, steps + 1)
        areas = [curve_area(road) for road in scores]
        own_areas = {"deletion": areas[0], "insertion": areas[1]}
        curves = {"deletion_curve": scores[0].tolist(), "insertion_curve": scores[1].tolist()}
        other = {CONTROL: {"deletion": areas[2], "insertion": areas[3]}}
        found.append((modality.value, own_areas | curves | other))
    return found


def _merged(first: Json, second: Json) -> Json:
    return first | second | {CONTROL: first[CONTROL] | second[CONTROL]}


def _picture(
    setting: _Setting,
    row: Json,
    data: PreparedSet,
    i: int,
    maps: ActivationMaps,
    region: Mask | None,
) -> bytes:
    """The frame's panes side by side; maps of one frame share one scale."""
    heats = _named(maps.maps, setting.job.modalities)
    highest = max(float(h[i].max()) for h in heats.values())
    panes: list[Pane] = []
    start = 0
    for place, modality in enumerate(setting.job.modalities):
        stop = start + CHANNELS[modality]
        if data.present[i, place]:
            heat = heats[modality.value][i] / highest if highest > 0 else heats[modality.value][i]
            own = row["maps"][modality.value]
            weight = None if row["weights"] is None else row["weights"][modality.value]
            pixels = data.images[i, start:stop]
            panes.append(Pane(modality.value, np.array(pixels), heat, weight, own["inside"]))
        start = stop
    return frame_png(panes, region, row)


# ---------------------------------------------------------------- all folds


def _mean_maps(
    setting: _Setting,
    samples: Sequence[Sample],
    data: PreparedSet,
    maps: ActivationMaps,
    regions: Sequence[Mask | None],
) -> Json:
    """Per class, sums over patients of the mean map (GRID,GRID) on the crop brought to a square.

    Each frame's maps are divided by the sum over its modalities, so that every frame counts alike.
    """
    named = _named(maps.maps, setting.job.modalities)
    of_patient: dict[tuple[str, str], list[dict[str, Heat]]] = {}
    for i, sample in enumerate(samples):
        if sample.label is None:
            continue
        total = sum(float(m[i].sum(dtype=np.float64)) for m in named.values())
        layers = {n: m[i] / np.float32(total or 1.0) for n, m in named.items()}
        region = regions[i]
        if region is not None:
            layers["lesion"] = region.astype(np.float32)
        square = {n: _on_crop(layer, data.placements[i]) for n, layer in layers.items()}
        key = (setting.classes[sample.label], sample.key.patient)
        of_patient.setdefault(key, []).append(square)
    found: Json = {}
    for (of_class, _), frames in sorted(of_patient.items()):
        layers: Json = {}
        for name in sorted({n for frame in frames for n in frame}):
            mean = np.mean([f[name] for f in frames if name in f], axis=0, dtype=np.float64)
            layers[name] = {"patients": 1, "sum": mean.tolist()}
        found = _added(found, {of_class: layers})
    return found


def _on_crop(values: Heat, placement: Placement) -> Heat:
    """(S,S) on the network input -> (GRID,GRID) on the picture alone, without padding."""
    height, width = placement.inner_shape
    inner = values[placement.top : placement.top + height, placement.left : placement.left + width]
    how = cv2.INTER_AREA if min(height, width) >= GRID else cv2.INTER_LINEAR
    resized = cv2.resize(np.ascontiguousarray(inner), (GRID, GRID), interpolation=how)
    return np.asarray(resized, np.float32)


def _together(setting: _Setting, parts: Sequence[Json]) -> Json:
    """explain.json: every frame, and what all say together."""
    frames = [row for part in parts for row in part["frames"]]
    if not frames:
        raise InputRefused(
            Reason.EMPTY,
            "no tested frame that this system can be given",
            where=setting.job.label,
            expected="frames with every modality it looks at",
            remedy="explain more patients or other folds",
        )
    modalities = [m.value for m in setting.job.modalities]
    plan = bootstrap_plan(setting.experiment.statistics)
    request = setting.request
    return {
        "schema": SCHEMA,
        "use": RESEARCH_ONLY,
        "pixels": CONFIDENTIAL,
        "run": setting.experiment.name,
        "system": setting.job.system,
        "label": setting.job.label,
        "classes": list(setting.classes),
        "modalities": modalities,
        "input": {
            "size": setting.job.input.size,
            "region": setting.job.input.region,
            "margin": setting.job.input.margin,
        },
        "method": request.method,
        "target": request.target or "the class with the highest score",
        "steps": request.steps,
        "frames_per_patient": request.frames,
        "seed": request.seed,
        "cohort_digest": setting.training.cohort.digest,
        "split_digest": setting.training.split.digest,
        "folds": [
            {
                "fold": p["fold"],
                "weights_sha256": p["weights_sha256"],
                "frames": len(p["frames"]),
                "left_out": p["left_out"],
            }
            for p in parts
        ],
        "definitions": DEFINITIONS,
        "cohort": cohort_figures(frames, setting.classes, modalities, plan),
        "mean_maps": _joined(parts),
        "frames": frames,
    }


def _added(first: Json, second: Json) -> Json:
    """Sums of mean maps of two groups of patients: per class and layer `patients` and `sum`."""
    found: Json = {of_class: dict(layers) for of_class, layers in first.items()}
    for of_class, layers in second.items():
        own = found.setdefault(of_class, {})
        for name, layer in layers.items():
            before = own.get(name, {"patients": 0, "sum": np.zeros((GRID, GRID)).tolist()})
            own[name] = {
                "patients": before["patients"] + layer["patients"],
                "sum": np.round(np.array(before["sum"]) + layer["sum"], 8).tolist(),
            }
    return found


def _joined(parts: Sequence[Json]) -> Json:
    """Mean maps over the patients of all folds: per class and layer `patients` and `mean`."""
    sums: Json = {}
    for part in parts:
        sums = _added(sums, part["mean_maps"])
    return {
        of_class: {
            name: {
                "patients": layer["patients"],
                "mean": np.round(np.array(layer["sum"]) / layer["patients"], 8).tolist(),
            }
            for name, layer in layers.items()
        }
        for of_class, layers in sums.items()
    }


def explain_words(found: Json) -> str:
    """What a person wants to know first."""
    figures = found["cohort"]
    lines = [
        f"{found['label']}: {figures['n_frames']} frames of {figures['n_patients']} patients, "
        f"{found['method']} of {found['target']}"
    ]
    for name, own in figures["modalities"].items():
        inside, area = own["inside"]["all"], own["area"]["all"]
        if inside["value"] is not None:
            lines.append(
                f"{name}: {inside['value']:.2f} of the map inside the lesion{_interval(inside)}, "
                f"which has {area['value']:.2f} of the picture"
            )
    for name, own in figures["weights"].items():
        lines.append(f"{name}: weight {own['all']['value']:.2f}{_interval(own['all'])}")
    return "\n".join([*lines, found["pixels"], found["use"]])


def _interval(figure: Json) -> str:
    if figure["low"] is None:
        return ""
    return f" ({figure['low']:.2f} to {figure['high']:.2f})"
