"""Which frames does a folder of cines offer, and how does a person pick from them?

P1 took frames of videos at a fixed interval and let a physician choose. `run_frames` writes a
contact sheet per file (numbered thumbnails) and one keep list, in which the person sets keep to 0;
`ingest --keep` then takes what is left. Sheets and list name the user's own files: they stay with
the user and are no part of a cohort.

Stopped at any moment, the same command goes on; run again, it keeps what was chosen.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from renalkit import __version__
from renalkit.domain.image import PixelStack
from renalkit.domain.study import Defect
from renalkit.errors import ConfigError, InputRefused, Reason
from renalkit.readers.contract import FileReport, Outcome, ReadOptions
from renalkit.readers.decode_worker import DecodeWorker
from renalkit.readers.dicom_prescan import looks_like_dicom
from renalkit.readers.dicom_us import read_dicom_us
from renalkit.readers.image_folder import glob_pattern
from renalkit.readers.pictures import VIDEO_SUFFIXES, file_sha256, refused_file
from renalkit.readers.pseudonyms import KEY_BYTES, Pseudonyms
from renalkit.readers.sampling import (
    contact_sheet,
    every_frames,
    every_seconds,
    keep_list,
    read_decisions,
    thumbnail,
)
from renalkit.readers.stills import decode_options, read_whole
from renalkit.readers.walk import walk_files
from renalkit.store.files import (
    clean_temporaries,
    locked,
    make_folder,
    read_json,
    write_bytes,
    write_json,
    write_text,
)
from renalkit.usecases.ingest_frames import SAMPLED_NAME, listed_name, read_sampled
from renalkit.usecases.ingest_layouts import PICTURE_SUFFIXES, TABLE_NAME, Sources, picture_layout
from renalkit.usecases.progress import Progress, Silent

KEEP_NAME = "keep.csv"
SHEETS = "sheets"
DONE = ".done"

_COLUMNS, _SIDE_PX, _PER_SHEET = 6, 192, 60


@dataclass(frozen=True, slots=True)
class FramesRequest:
    """What the user asked for: every n-th frame, or one per so many seconds."""

    source: Path
    output: Path
    every: int | None = None
    seconds: float | None = None
    options: ReadOptions = field(default_factory=ReadOptions)

    @property
    def settings(self) -> dict[str, Any]:
        """What the sampled frames and the sheets depend on, beside the files."""
        return {
            "version": __version__,
            "every": self.every,
            "seconds": self.seconds,
            "keep_pixels": self.options.keep_pixels,
        }

    def frames_of(self, n_frames: int, times_s: Sequence[float] | None) -> tuple[int, ...]:
        """The frames offered of one file; a still has one, whatever its time."""
        if n_frames == 1:
            return (0,)
        if self.seconds is not None:
            return every_seconds(times_s, self.seconds)
        return every_frames(n_frames, self.every or 1)


@dataclass(frozen=True, slots=True)
class Offer:
    """What became of one file. file: its listed name. sheets: one per up to 60 frames."""

    file: str
    sha256: str
    outcome: Outcome
    reasons: tuple[Defect, ...] = ()
    n_frames: int = 0
    frames: tuple[int, ...] = ()
    sheets: tuple[str, ...] = ()

    def sheet_of(self, place: int) -> str:
        """The sheet of the place-th sampled frame."""
        return self.sheets[place // _PER_SHEET]

    def as_json(self) -> dict[str, Any]:
        return {
            "file": self.file,
            "sha256": self.sha256,
            "outcome": self.outcome.value,
            "reasons": [{"reason": d.reason.value, "words": d.words} for d in self.reasons],
            "n_frames": self.n_frames,
            "frames": list(self.frames),
            "sheets": list(self.sheets),
        }


@dataclass(frozen=True, slots=True)
class FramesReport:
    """What became of every file. recalled: files an earlier run had finished."""

    offers: tuple[Offer, ...]
    keep_list: Path
    dropped: int
    recalled: int

    def count(self, outcome: Outcome) -> int:
        return sum(o.outcome is outcome for o in self.offers)

    @property
    def refused(self) -> int:
        """Files that were refused."""
        return self.count(Outcome.REFUSED)

    def as_json(self) -> dict[str, Any]:
        """Plain values; files by the names their owner knows."""
        return {
            "keep_list": str(self.keep_list),
            "frames": sum(len(o.frames) for o in self.offers),
            "dropped": self.dropped,
            "resumed": self.recalled,
            "counts": {"total": len(self.offers)} | {o.value: self.count(o) for o in Outcome},
            "files": [o.as_json() for o in self.offers],
        }


def frames_words(report: FramesReport) -> str:
    """The account for a person."""
    found = report.as_json()
    counts = found["counts"]
    lines = [
        f"Files: {counts['total']} = {counts['used']} used + {counts['used-with-warning']} used "
        f"with a warning + {counts['refused']} refused + {counts['skipped']} skipped",
        f"Frames: {found['frames']} offered, {found['dropped']} of them dropped so far",
    ]
    lines += [
        f"Refused {o.file}: {o.reasons[0].words} ({o.reasons[0].reason.value})"
        for o in report.offers
        if o.outcome is Outcome.REFUSED
    ]
    skipped = Counter(
        o.reasons[0].reason.value for o in report.offers if o.outcome is Outcome.SKIPPED
    )
    lines += [f"Skipped {n} files: {reason}" for reason, n in sorted(skipped.items())]
    if found["resumed"]:
        lines.append(f"Resumed: {found['resumed']} files of an earlier run were taken over")
    lines.append(
        f"Look at {SHEETS}/, set keep to 0 in {report.keep_list} for what is not wanted, then "
        "give it to ingest --keep"
    )
    return "\n".join(lines)


def frames_request(
    *,
    source: Path,
    output: Path,
    every: int | None = None,
    seconds: float | None = None,
    keep_pixels: bool = False,
) -> FramesRequest:
    """The request of a command line; ConfigError lists everything wrong with it."""
    root, out = source.resolve(), output.resolve()
    problems: list[str] = []
    if not root.is_dir():
        problems.append("SOURCE: not a folder")
    if out == root or out.is_relative_to(root) or root.is_relative_to(out):
        problems.append("--output: must lie outside the source, and the source outside it")
    if (every is None) == (seconds is None):
        problems.append("--every, --seconds: exactly one of the two")
    if every is not None and every < 1:
        problems.append(f"--every: {every} is not 1 or more")
    if seconds is not None and not 0 < seconds < float("inf"):
        problems.append(f"--seconds: {seconds} is not positive")
    if problems:
        raise ConfigError(problems)
    return FramesRequest(root, out, every, seconds, ReadOptions(keep_pixels=keep_pixels))


def run_frames(request: FramesRequest, progress: Progress | None = None) -> FramesReport:
    """Write the contact sheets and the keep list; what was chosen before stays chosen.

    Raises:
        ConfigError: the output holds choices made among other frames.
        InputRefused: nothing to read, or a keep list in the output that cannot be read.
        StoreError: the disk refused. Locked: another process writes there.
    """
    make_folder(request.output)
    with locked(request.output):
        clean_temporaries(request.output)
        return _Frames(request, progress or Silent()).run()


@dataclass(frozen=True, slots=True)
class _Cine:
    """The frames of one file."""

    pixels: PixelStack
    times_s: Sequence[float] | None
    report: FileReport


@dataclass(slots=True)
class _Frames:
    """One run."""

    request: FramesRequest
    progress: Progress
    recalled: int = 0

    def run(self) -> FramesReport:
        request = self.request
        chosen = self._chosen()
        self.progress.stage("looking for files")
        walked = list(walk_files(request.source))
        files = [w for w in walked if isinstance(w, Path)]
        candidates, passed_by = _candidates(request.source, files)
        passed_by += [w for w in walked if isinstance(w, FileReport)]
        if not candidates:
            raise InputRefused(
                Reason.LAYOUT_UNKNOWN,
                f"{len(walked)} files, none of them a cine or a picture",
                where="the source folder",
                expected="DICOM files, videos or pictures",
                remedy="name the folder that holds them",
            )
        offers = [
            Offer(self._name(r.path), "", r.outcome, r.reasons)
            for r in sorted(passed_by, key=lambda r: self._name(r.path))
        ]
        self.progress.stage("reading", len(candidates))
        seen: set[str] = set()
        with DecodeWorker(request.options.limits) as worker:
            for number, path in enumerate(sorted(candidates, key=self._name), start=1):
                offers.append(self._offer(path, f"{number:04d}", worker, seen))
                self.progress.advance()
        dropped = self._write_lists(offers, chosen)
        self._clean(offers)
        ordered = tuple(sorted(offers, key=lambda o: o.file))
        return FramesReport(ordered, request.output / KEEP_NAME, dropped, self.recalled)

    def _name(self, path: Path) -> str:
        return listed_name(path.relative_to(self.request.source))

    def _chosen(self) -> dict[tuple[str, int], bool]:
        """What a person decided in this folder; only among the frames that are asked for again."""
        keep, record = (self.request.output / n for n in (KEEP_NAME, SAMPLED_NAME))
        if not keep.is_file():
            return {}
        data = read_whole(keep, self.request.options.limits)
        chosen = read_decisions(data, where=keep.name)
        known = read_json(record) if record.is_file() else {}
        if not all(chosen.values()) and known.get("settings") != self.request.settings:
            raise ConfigError(
                [f"--output: its {KEEP_NAME} holds choices among other frames; name another folder"]
            )
        return chosen

    def _offer(self, path: Path, number: str, worker: DecodeWorker, seen: set[str]) -> Offer:
        name = self._name(path)
        try:
            sha256 = file_sha256(path)
            if sha256 in seen and looks_like_dicom(path):
                same = Defect(Reason.DUPLICATE_FILE, "the same file again")
                return Offer(name, sha256, Outcome.SKIPPED, (same,))
            seen.add(sha256)
            known = self._recall(number, name, sha256)
            if known is not None:
                self.recalled += 1
                return known
            cine = self._read(path, name, worker)
            if isinstance(cine, FileReport):
                return Offer(name, sha256, cine.outcome, cine.reasons)
            offer = self._sheets(cine, number, name, sha256)
        except InputRefused as error:
            report = refused_file(path, error)
            return Offer(name, "", report.outcome, report.reasons)
        except OSError as error:
            words = f"file that cannot be read ({type(error).__name__})"
            return Offer(name, "", Outcome.REFUSED, (Defect(Reason.UNREADABLE, words),))
        record = {"settings": self.request.settings, "offer": offer.as_json()}
        write_json(self.request.output / DONE / f"{number}.json", record)
        return offer

    def _recall(self, number: str, name: str, sha256: str) -> Offer | None:
        """The offer an earlier run made of this very file; None when there is none."""
        place = self.request.output / DONE / f"{number}.json"
        if not place.is_file():
            return None
        try:
            record = read_json(place)
            offer = _offer_of(record["offer"])
            same = (record["settings"], offer.file, offer.sha256)
        except (InputRefused, KeyError, TypeError, ValueError):
            return None  # a damaged record is worth nothing: the file is read again
        if same != (self.request.settings, name, sha256):
            return None
        there = all((self.request.output / sheet).is_file() for sheet in offer.sheets)
        return offer if there else None

    def _read(self, path: Path, name: str, worker: DecodeWorker) -> _Cine | FileReport:
        options = self.request.options
        if not looks_like_dicom(path):
            task = "video" if path.suffix.lower() in VIDEO_SUFFIXES else "still"
            found = worker.run(task, path, decode_options(options.limits))
            pixels = found.pixels if "times_s" in found.info else found.pixels[None]
            return _Cine(pixels, found.info.get("times_s"), FileReport(path, Outcome.USED))
        nobody = Pseudonyms(bytes(KEY_BYTES))  # nothing of the header is kept here
        (result,) = read_dicom_us(
            [path], self.request.source, nobody, options, worker, patient_of=lambda _: name
        )
        if result.study is None:
            return result.files[0]
        (clip,) = result.study.clips
        return _Cine(clip.pixels, clip.times_s, result.files[0])

    def _sheets(self, cine: _Cine, number: str, name: str, sha256: str) -> Offer:
        n_frames = int(cine.pixels.shape[0])
        frames = self.request.frames_of(n_frames, cine.times_s)
        sheets: list[str] = []
        for start in range(0, len(frames), _PER_SHEET):
            part = frames[start : start + _PER_SHEET]
            small = [thumbnail(f, cine.pixels[f], _SIDE_PX) for f in part]
            page = f"-{len(sheets) + 1}" if sheets else ""
            sheets.append(f"{SHEETS}/{number}{page}.png")
            image = contact_sheet(small, columns=_COLUMNS, side_px=_SIDE_PX)
            write_bytes(self.request.output / sheets[-1], image)
        report = cine.report
        told = (name, sha256, report.outcome, report.reasons)
        return Offer(*told, n_frames, frames, tuple(sheets))

    def _write_lists(self, offers: Sequence[Offer], chosen: Mapping[tuple[str, int], bool]) -> int:
        """Write keep list and record unless they say the same already; frames dropped so far."""
        output = self.request.output
        record = output / SAMPLED_NAME
        before = read_sampled(record) if record.is_file() else {}
        used = {o.file: o for o in offers if o.frames}
        frames = {(name, frame) for name, o in used.items() for frame in o.frames}
        # A choice holds for the content it was made on.
        dropped = {
            (name, frame)
            for name, frame in frames
            if not chosen.get((name, frame), True)
            and before.get(name, ("",))[0] == used[name].sha256
        }
        if chosen != {key: key not in dropped for key in frames}:
            text = keep_list(
                {name: o.frames for name, o in used.items()},
                dropped=dropped,
                sheets={
                    (name, frame): o.sheet_of(place)
                    for name, o in used.items()
                    for place, frame in enumerate(o.frames)
                },
            )
            write_text(output / KEEP_NAME, text)
        # The record goes last: as long as it is the old one, a repeated run sees what changed.
        settings = self.request.settings
        write_json(record, {"settings": settings, "files": [o.as_json() for o in offers]})
        return len(dropped)

    def _clean(self, offers: Sequence[Offer]) -> None:
        """Remove sheets and records of files that are no longer there."""
        output = self.request.output
        sheets = {sheet for o in offers for sheet in o.sheets}
        for path in (output / SHEETS).glob("*.png"):
            ours = re.fullmatch(r"[0-9]{4,}(-[0-9]+)?\.png", path.name)
            if ours and f"{SHEETS}/{path.name}" not in sheets:
                path.unlink()
        for path in (output / DONE).glob("*.json"):
            if f"{SHEETS}/{path.stem}.png" not in sheets:
                path.unlink()


def _offer_of(record: Mapping[str, Any]) -> Offer:
    return Offer(
        str(record["file"]),
        str(record["sha256"]),
        Outcome(record["outcome"]),
        tuple(Defect(Reason(d["reason"]), str(d["words"])) for d in record["reasons"]),
        int(record["n_frames"]),
        tuple(int(f) for f in record["frames"]),
        tuple(str(s) for s in record["sheets"]),
    )


def _candidates(root: Path, files: Sequence[Path]) -> tuple[list[Path], list[FileReport]]:
    """The files that may hold frames, and why the others do not. Masks are told as ingest does."""
    candidates = [p for p in files if looks_like_dicom(p)]
    dicom = set(candidates)
    others = [p for p in files if p not in dicom]
    # The label table matters to ingest alone: a fault in it must not stand in the way here.
    untold = tuple(p for p in others if p != root / TABLE_NAME)
    layout = picture_layout(Sources(root, untold), ())
    wanted = re.compile(glob_pattern(layout.images))
    passed_by: list[FileReport] = []
    for path in others:
        relative = path.relative_to(root).as_posix()
        if path.suffix.lower() not in PICTURE_SUFFIXES:
            why = Defect(Reason.NOT_RECOGNISED, "neither DICOM nor video nor picture")
        elif layout.masks is not None and layout.masks.pattern.fullmatch(relative):
            why = Defect(Reason.EXTRA_FILE, "a mask, not a picture")
        elif not wanted.fullmatch(relative):
            why = Defect(Reason.EXTRA_FILE, "a picture beside the folder images")
        else:
            candidates.append(path)
            continue
        passed_by.append(FileReport(path, Outcome.SKIPPED, (why,)))
    return candidates, passed_by
