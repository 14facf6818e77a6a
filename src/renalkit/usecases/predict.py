"""What does a trained model say about a new study? Masks, frames, patients; a file for each answer.

<output>/
  predictions.json   patients, frames, and what became of every file
  masks/ overlays/   of systems that outline: one picture per frame
  ceus/<cine>/       analysis of each contrast cine, as in a cohort
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from renalkit import RESEARCH_ONLY
from renalkit.domain.prediction import Prediction
from renalkit.domain.sample import Sample
from renalkit.domain.study import Defect
from renalkit.errors import ConfigError, Reason
from renalkit.readers.contract import FileReport, Outcome, ReadOptions, ReadResult
from renalkit.readers.decode_worker import DecodeWorker
from renalkit.store.files import make_folder, write_bytes, write_json
from renalkit.usecases.models import MASK_THRESHOLD, Model, Scored, new_samples, scored
from renalkit.usecases.predict_input import InputOptions, StudyReader, offered
from renalkit.usecases.predict_patients import (
    frame_scores,
    notes_of,
    patient_answer,
    threshold_of,
    way_words,
    ways_json,
)
from renalkit.usecases.progress import Progress

Json = dict[str, Any]
PREDICTIONS = "predictions.json"


def run_predict(
    model: Model, source: Path, output: Path, options: InputOptions, progress: Progress
) -> Json:
    """Predict everything in a file, folder or zip archive; writes predictions.json.

    Files and frames that cannot be used are listed with their reason; one bad file never stops the
    others, and a bad frame of a cine or video not its other frames.

    Raises:
        InputRefused: nothing to read, or regions or a table of pairs that cannot be used.
        ConfigError: nothing says where the lesion is; `output` is inside `source`, where the next
            call would read it.
        ModelRefused: results that are not finite.
        StoreError: the disk refuses.
    """
    if source.is_dir() and output.resolve().is_relative_to(source.resolve()):
        raise ConfigError([f"-o {output}: inside the folder that is read; choose one beside it"])
    with offered(source) as given, DecodeWorker(ReadOptions().limits) as worker:
        reader = StudyReader(model, given, options, output, worker)
        make_folder(output)
        answers = _Answers(model, reader, output)
        progress.stage("predict", len(given.files) + len(given.left))
        for result in reader.studies():
            answers.take(result)
            progress.advance(len(result.files))
        found = answers.result()
    write_json(output / PREDICTIONS, found)
    return found


@dataclass(slots=True)
class _Answers:
    """What was said so far. frames_of: per patient, the frames that each member scored."""

    model: Model
    reader: StudyReader
    output: Path
    rows: list[Json] = field(default_factory=list[Json])
    reports: list[FileReport] = field(default_factory=list[FileReport])
    bad_frames: list[Json] = field(default_factory=list[Json])
    files_of: dict[str, dict[str, None]] = field(default_factory=dict[str, dict[str, None]])
    frames_of: dict[str, list[list[Prediction]]] = field(
        default_factory=dict[str, list[list[Prediction]]]
    )
    unknown: dict[str, None] = field(default_factory=dict[str, None])

    def take(self, result: ReadResult) -> None:
        """Score a study and account for its files."""
        study = result.study
        if study is None:
            self.reports += result.files
            return
        kept: list[tuple[Json, Sample, list[Prediction]]] = []
        bad: list[Json] = []
        doubted: set[str] = set()
        samples = new_samples(self.model, study)
        for found in scored(self.model, samples):
            name, frame = self._place(found.sample)
            if isinstance(found, Scored):
                said = self.model.predictions(found.sample, found.placement, found.decoded)
                kept.append((self._row(found, said, name, frame), found.sample, said))
            else:
                bad.append(_refusal(name, found.error.reason, str(found.error), frame))
                doubted |= set(self._files(found.sample))
        reports = [self.reader.checked(r) for r in result.files]
        lost = {self._name(r) for r in reports if r.outcome is Outcome.REFUSED}
        told = lost | doubted | {name for _, sample, _ in kept for name in self._files(sample)}
        unused = {self.reader.file_of(c) for c in study.clips} - told
        why = (Defect(Reason.NOT_RECOGNISED, "no frame that this system can be given"),)
        self.reports += [
            FileReport(r.path, Outcome.REFUSED, why) if self._name(r) in unused else r
            for r in reports
        ]
        self.bad_frames += [b for b in bad if b["file"] not in lost]
        for row, sample, said in kept:
            if lost & set(self._files(sample)):
                self._forget(row)
                continue
            self.rows.append(row)
            self._count(sample, said)

    def _count(self, sample: Sample, said: list[Prediction]) -> None:
        patient = sample.key.patient
        self.files_of.setdefault(patient, {}).update(dict.fromkeys(self._files(sample)))
        if not self.model.kind.classifies:
            return
        members = self.frames_of.setdefault(patient, [[] for _ in said])
        for frames, prediction in zip(members, said, strict=True):
            frames.append(prediction)
        number = sample.study.number
        lacking = [n for n in self.model.inputs.features if number(n) is None]
        self.unknown.update(dict.fromkeys(lacking))

    def _row(self, found: Scored, said: list[Prediction], name: str, frame: int) -> Json:
        sample = found.sample
        row: Json = {"file": name, "frame": frame}
        if said[0].scores is not None:
            row |= frame_scores(self.model, said)
        if sample.beside is not None:
            row["contrast"] = self._files(sample)[-1]
        if self.model.input.region == "lesion" and sample.box is not None:
            x, y = sample.study.clips[sample.key.clip].offset
            box = sample.box
            row["box"] = [box.x + x, box.y + y, box.width, box.height]
            row["roi"] = sample.roi_origin.value
        if said[0].modalities is not None:
            row["modalities"] = list(said[0].modalities)
        weights = [p.modality_weights for p in said if p.modality_weights is not None]
        if weights:
            means = np.mean(weights, axis=0).tolist()
            row["modality_weights"] = dict(zip(self.model.inputs.modalities, means, strict=True))
        probability = found.probability
        if probability is not None:
            row |= self._pictures(sample, probability >= MASK_THRESHOLD, name, frame)
        return row

    def _pictures(self, sample: Sample, mask: npt.NDArray[np.bool_], name: str, frame: int) -> Json:
        stem = f"{re.sub(r'[^A-Za-z0-9._-]+', '_', name)}.{frame:05d}"
        found: Json = {"mask_area_px": int(mask.sum())}
        spacing = sample.spacing_mm
        if spacing is not None:
            found["mask_area_mm2"] = float(mask.sum() * spacing[0] * spacing[1])
        found |= {"mask": f"masks/{stem}.png", "overlay": f"overlays/{stem}.png"}
        write_bytes(self.output / found["mask"], _png(mask.astype(np.uint8) * 255))
        pixels = np.asarray(sample.load().pixels)
        write_bytes(self.output / found["overlay"], _png(_overlay(pixels, mask)))
        return found

    def _forget(self, row: Json) -> None:
        for name in ("mask", "overlay"):
            if name in row:
                (self.output / row[name]).unlink(missing_ok=True)

    def _place(self, sample: Sample) -> tuple[str, int]:
        clip = sample.study.clips[sample.key.clip]
        return self.reader.file_of(clip), clip.source_frame(sample.key.frame)

    def _files(self, sample: Sample) -> list[str]:
        """The files a frame comes from, B-mode first."""
        clips = [sample.study.clips[sample.key.clip]]
        if sample.beside is not None:
            clips.append(sample.study.clips[sample.beside.clip])
        return list(dict.fromkeys(map(self.reader.file_of, clips)))

    def _name(self, report: FileReport) -> str:
        return self.reader.offered.name(report.path)

    def result(self) -> Json:
        """Everything, as predictions.json has it."""
        refused = [
            _refusal(self._name(r), r.reasons[0].reason, r.reasons[0].words)
            for r in self.reports
            if r.outcome is Outcome.REFUSED
        ]
        found: Json = {
            "schema": 2,
            "use": RESEARCH_ONLY,
            "model": self.model.name,
            "engine": self.model.engine,
            "system": self.model.system,
            "weights_sha256": [m.weights_sha256 for m in self.model.members],
            "classes": list(self.model.task.classes),
            "positive": self.model.task.positive,
            "threshold": threshold_of(self.model),
            "patients": self._patients(),
            "frames": self.rows,
            "files": [self._file(r) for r in self.reports],
            "refused": sorted(
                [*refused, *self.bad_frames], key=lambda r: (r["file"], r.get("frame", -1))
            ),
        }
        if self.model.kind.classifies:
            found |= {"rule": way_words(self.model), "ways": ways_json(self.model)}
        return found

    def _patients(self) -> list[Json]:
        made: list[Json] = []
        for number, (patient, said) in enumerate(self.frames_of.items(), 1):
            answer = patient_answer(self.model, said)
            notes = notes_of(self.model, answer, list(self.unknown))
            files = list(self.files_of[patient])
            made.append({"patient": number, "files": files, **answer, "notes": notes})
        return made

    def _file(self, report: FileReport) -> Json:
        name = self._name(report)
        found: Json = {"file": name, "outcome": report.outcome.value}
        found["reasons"] = [{"reason": d.reason.value, "words": d.words} for d in report.reasons]
        analysis = self.reader.analysis_of(name)
        return found if analysis is None else found | {"analysis": analysis}


def _refusal(name: str, reason: Reason, words: str, frame: int | None = None) -> Json:
    where = {} if frame is None else {"frame": frame}
    return {"file": name, **where, "reason": reason.value, "words": words}


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


def predict_words(found: Json) -> str:
    """The predictions for a terminal."""
    lines = [RESEARCH_ONLY]
    for patient in found["patients"]:
        lines += _patient_words(patient, found)
    if any("mask" in row for row in found["frames"]) or not found["patients"]:
        lines += [_frame_words(row) for row in found["frames"]]
    for r in found["refused"]:
        frame = f"#{r['frame']}" if "frame" in r else ""
        lines.append(f"refused {r['file']}{frame}: {r['words']}")
    return "\n".join(lines)


def _patient_words(patient: Json, found: Json) -> list[str]:
    files = patient["files"]
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    called, scores = patient["called"], patient["scores"]
    words = [f"patient {patient['patient']} ({files[0]}{more}): {called} ({scores[called]:.2f})"]
    positive = found["positive"]
    if patient["threshold"] is not None and positive is not None:
        cut = patient["threshold"]
        words.append(f"  {positive} {scores[positive]:.3f}, threshold {cut:.3f}, {found['rule']}")
    where = ", ".join(f"{n} {origin}" for origin, n in patient["roi"].items())
    words.append(f"  {patient['frames']} frames; outlines: {where}")
    if "modality_weights" in patient:
        told = ", ".join(f"{m} {w:.2f}" for m, w in patient["modality_weights"].items())
        words.append(f"  weights: {told}")
    return [*words, *(f"  {note}" for note in patient["notes"])]


def _frame_words(row: Json) -> str:
    words = [f"{row['file']}#{row['frame']}"]
    if "called" in row:
        words.append(f"{row['called']} ({row['scores'][row['called']]:.2f})")
    if "mask_area_px" in row:
        words.append(f"mask {row['mask_area_px']} px")
    return "  ".join(words)
