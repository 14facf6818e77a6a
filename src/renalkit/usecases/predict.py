"""What a trained system says about new images: masks, class scores, overlays."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from renalkit import RESEARCH_ONLY
from renalkit.domain.cohort import ClassTask
from renalkit.domain.geometry import SpacingMm
from renalkit.domain.image import Mode
from renalkit.errors import ConfigError, InputRefused, ModelRefused, Reason, StoreError
from renalkit.learn.outputs import Net
from renalkit.learn.predictor import load_trained, predict_arrays
from renalkit.readers.contract import FileReport, ReadOptions
from renalkit.readers.decode_worker import DecodeWorker
from renalkit.readers.dicom_prescan import looks_like_dicom
from renalkit.readers.dicom_us import read_dicom_us
from renalkit.readers.pictures import VIDEO_SUFFIXES
from renalkit.readers.pseudonyms import KEY_BYTES, Pseudonyms
from renalkit.readers.stills import decode_options
from renalkit.readers.walk import walk_files
from renalkit.store.files import make_folder, read_json, write_bytes, write_json
from renalkit.store.runs import FoldFolder, RunFolder
from renalkit.systems import get_system
from renalkit.systems._contract import Decoded
from renalkit.transforms.preprocess import check_usable
from renalkit.usecases.experiment import Job, jobs_of
from renalkit.usecases.progress import Progress
from renalkit.usecases.results import stored_experiment
from renalkit.usecases.train import MASK_THRESHOLD


@dataclass(frozen=True, slots=True)
class Model:
    """A trained system: its settings and the networks of one or more folds."""

    job: Job
    task: ClassTask
    nets: tuple[Net, ...]
    weights_sha256: tuple[str, ...]
    threshold: float | None


@dataclass(frozen=True, slots=True)
class Incoming:
    """One frame to predict; name is the user's own file name, frame counts from 0 in its file."""

    name: str
    frame: int
    pixels: npt.NDArray[Any]
    spacing_mm: SpacingMm | None


def load_model(path: Path) -> Model:
    """The networks of RUN/SYSTEM (every finished fold) or of one fold folder.

    Raises ModelRefused when it is a whole run, when there are no weights, or when they differ from
    what training recorded.
    """
    if RunFolder(path).experiment_json.exists():
        labels = ", ".join(j.label for j in jobs_of(stored_experiment(RunFolder(path))))
        raise ModelRefused(
            "a run, not one of its systems",
            where=path.name,
            expected=f"RUN/SYSTEM with one of {labels}",
            remedy="name the system that shall predict",
        )
    one_fold = (path / "weights.safetensors").exists()
    system_folder = path.parent if one_fold else path
    run = RunFolder(system_folder.parent)
    experiment = stored_experiment(run)
    job = next((j for j in jobs_of(experiment) if j.label == system_folder.name), None)
    folds = [FoldFolder(p) for p in ([path] if one_fold else sorted(path.glob("fold-*")))]
    folds = [f for f in folds if f.done.exists() and f.weights.exists()]
    if job is None or not folds:
        raise ModelRefused(
            "no finished fold with weights",
            where=path.name,
            expected="RUN/SYSTEM or RUN/SYSTEM/fold-0 of a run that was trained here",
            remedy="train the experiment first",
        )
    if not run.cohort.exists():
        raise StoreError("no cohort.json", where=run.path.name, remedy="run the experiment again")
    known = read_json(run.cohort)["task"]
    task = ClassTask(tuple(known["classes"]), known["positive"])
    system = get_system(job.system)
    params = system.params(job.params)
    _refuse_pairs(job)
    shape = job.shape(len(task.classes))
    nets: list[Net] = []
    hashes: list[str] = []
    for fold in folds:
        net = system.build(params, shape, job.task)
        sha256 = read_json(fold.done)["weights_sha256"]
        load_trained(net, fold.weights, sha256)
        nets.append(net)
        hashes.append(sha256)
    return Model(job, task, tuple(nets), tuple(hashes), _threshold(run, job.label))


def _refuse_pairs(job: Job) -> None:
    """Files hold neither the lesion's outline nor, told apart, the contrast frame of an instant."""
    if job.modalities == (Mode.B,) and job.input.region == "frame" and not job.features:
        return
    raise ModelRefused(
        f"a system that looks at {' and '.join(job.modalities)} of the {job.input.region}",
        where=job.label,
        expected="a system of whole B-mode frames",
        remedy="make a cohort ('renalkit ceus cohort', or 'renalkit ingest' with outlines) and "
        "give it to 'renalkit external'",
    )


def _threshold(run: RunFolder, label: str) -> float | None:
    """Median over folds of the thresholds chosen on validation; None for several classes."""
    if not run.metrics.exists():
        return None
    for system in read_json(run.metrics)["systems"]:
        if system["label"] == label and system["classification"]:
            values = [t["value"] for t in system["classification"]["thresholds"]]
            return float(median(values)) if values else None
    return None


def predict_frame(model: Model, pixels: npt.NDArray[Any], where: str) -> Decoded:
    """Mean over the model's folds for one frame; the mask comes back in source geometry.

    pixels: (H,W) or (H,W,3). Returns Decoded with mask (H,W) probability.
    Raises InputRefused for a frame no network can say anything about.
    """
    check_usable(pixels, where=where)
    system = get_system(model.job.system)
    params = system.params(model.job.params)
    prepared = model.job.input.run(pixels, where=where)
    found = [
        system.decode(
            params, predict_arrays(net, prepared.image[None], tta=model.job.train.tta, device="cpu")
        )[0]
        for net in model.nets
    ]
    masks = [f.mask for f in found if f.mask is not None]
    scores = [f.scores for f in found if f.scores is not None]
    mask = None
    if masks:
        mask = prepared.placement.invert_mask(np.mean(masks, axis=0).astype(np.float32))
    return Decoded(mask=mask, scores=np.mean(scores, axis=0) if scores else None)


def predict_folder(
    model_path: Path, source: Path, output: Path, keep_pixels: bool, progress: Progress
) -> dict[str, Any]:
    """Predict every frame below `source` and write predictions.json, masks/ and overlays/.

    Files and frames that cannot be used are listed with their reason; one bad file never stops the
    others, and a bad frame of a cine or video not its other frames.

    Raises ModelRefused (see `load_model`), InputRefused (nothing to read), ConfigError (`output` is
    inside `source`, where the next call would read it), StoreError (it cannot be written).
    """
    model = load_model(model_path)
    root = source if source.is_dir() else source.parent
    offered: list[Path | FileReport] = [source] if source.is_file() else list(walk_files(source))
    if not offered:
        raise InputRefused(
            Reason.EMPTY, "no file", where=source.name, expected="pictures, DICOM files or videos"
        )
    if source.is_dir() and output.resolve().is_relative_to(source.resolve()):
        raise ConfigError([f"-o {output}: inside the folder that is read; choose one beside it"])
    make_folder(output)
    rows: list[dict[str, Any]] = []
    refused: list[dict[str, Any]] = []
    progress.stage("predict", len(offered))
    with DecodeWorker(ReadOptions().limits) as worker:
        for item in offered:
            if isinstance(item, FileReport):
                first = item.reasons[0]
                refused.append(_refusal(_name(item.path, root), first.reason, first.words))
                continue
            name = _name(item, root)
            try:
                for frame in _frames(item, root, ReadOptions(keep_pixels=keep_pixels), worker):
                    try:
                        rows.append(_predict_one(model, frame, output))
                    except InputRefused as error:
                        refused.append(_refusal(name, error.reason, str(error), frame.frame))
            except InputRefused as error:
                refused.append(_refusal(name, error.reason, str(error)))
            progress.advance()
    result = {
        "use": RESEARCH_ONLY,
        "system": model.job.system,
        "weights_sha256": list(model.weights_sha256),
        "classes": list(model.task.classes),
        "threshold": model.threshold,
        "frames": rows,
        "refused": refused,
    }
    write_json(output / "predictions.json", result)
    return result


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _refusal(name: str, reason: Reason, words: str, frame: int | None = None) -> dict[str, Any]:
    where = {} if frame is None else {"frame": frame}
    return {"file": name, **where, "reason": reason.value, "words": words}


def _frames(
    path: Path, root: Path, options: ReadOptions, worker: DecodeWorker
) -> Iterator[Incoming]:
    """The frames of one file, decoded in the worker process."""
    name = _name(path, root)
    if not looks_like_dicom(path):
        task = "video" if path.suffix.lower() in VIDEO_SUFFIXES else "still"
        pixels = worker.run(task, path, decode_options(options.limits)).pixels
        for index, frame in enumerate(pixels if task == "video" else pixels[None]):
            yield Incoming(name, index, frame, None)
        return
    nobody = Pseudonyms(bytes(KEY_BYTES))  # nothing of the header is kept here
    for result in read_dicom_us([path], root, nobody, options, worker, patient_of=lambda _: name):
        if result.study is None:
            first = result.files[0].reasons[0]
            raise InputRefused(first.reason, first.words, where=name)
        for clip in result.study.clips:
            for index in range(clip.n_frames):
                yield Incoming(name, index, clip.pixels[index], clip.spacing_mm)


def _predict_one(model: Model, frame: Incoming, output: Path) -> dict[str, Any]:
    found = predict_frame(model, frame.pixels, frame.name)
    stem = f"{re.sub(r'[^A-Za-z0-9._-]+', '_', frame.name)}.{frame.frame:05d}"
    row: dict[str, Any] = {"file": frame.name, "frame": frame.frame}
    if found.scores is not None:
        row["scores"] = dict(zip(model.task.classes, map(float, found.scores), strict=True))
        row["called"] = model.task.classes[_called(model, found.scores)]
    if found.mask is not None:
        mask = found.mask >= MASK_THRESHOLD
        row["mask_area_px"] = int(mask.sum())
        if frame.spacing_mm is not None:
            row["mask_area_mm2"] = float(mask.sum() * frame.spacing_mm[0] * frame.spacing_mm[1])
        row["mask"] = f"masks/{stem}.png"
        row["overlay"] = f"overlays/{stem}.png"
        write_bytes(output / row["mask"], _png(mask.astype(np.uint8) * 255))
        write_bytes(output / row["overlay"], _png(_overlay(frame.pixels, mask)))
    return row


def _called(model: Model, scores: npt.NDArray[np.float64]) -> int:
    if len(scores) != 2 or model.threshold is None:
        return int(np.argmax(scores))
    positive = 1 if model.task.positive is None else model.task.index(model.task.positive)
    return positive if scores[positive] >= model.threshold else 1 - positive


def _overlay(pixels: npt.NDArray[Any], mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """The picture in colour (BGR) with the contour of the mask."""
    grey = pixels if pixels.dtype == np.uint8 else (pixels // 257).astype(np.uint8)
    colour = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR if grey.ndim == 2 else cv2.COLOR_RGB2BGR)
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(colour, contours, -1, (0, 200, 255), max(1, min(grey.shape[:2]) // 200))
    return colour.astype(np.uint8)


def _png(image: npt.NDArray[np.uint8]) -> bytes:
    ok, data = cv2.imencode(".png", image)
    assert ok
    return data.tobytes()


def predict_words(found: dict[str, Any]) -> str:
    """The predictions for a terminal."""
    lines = [RESEARCH_ONLY]
    for row in found["frames"]:
        words = [f"{row['file']}#{row['frame']}"]
        if "called" in row:
            words.append(f"{row['called']} ({row['scores'][row['called']]:.2f})")
        if "mask_area_px" in row:
            words.append(f"mask {row['mask_area_px']} px")
        lines.append("  ".join(words))
    lines += _refused_words(found["refused"])
    return "\n".join(lines)


def _refused_words(refused: Sequence[dict[str, Any]]) -> list[str]:
    lines: list[str] = []
    for r in refused:
        frame = f"#{r['frame']}" if "frame" in r else ""
        lines.append(f"refused {r['file']}{frame}: {r['words']}")
    return lines
