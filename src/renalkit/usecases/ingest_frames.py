"""Which frames of each cine enter the cohort: those a person kept, or every n-th?

The reader gives whole clips; here they are reduced before their pixels are stored. A reduced clip
keeps the times of its frames in the cine, `Source.first_frame` is its first frame there, and a
note of the study lists all of them, so that every stored frame can be found again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from renalkit.domain.image import Clip, Pixels, PixelStack, pixel_sha256
from renalkit.domain.study import Defect, Lesion
from renalkit.errors import InputRefused, Reason
from renalkit.readers.contract import FileReport, Limits, Outcome, ReadResult
from renalkit.readers.sampling import every_frames, read_keep_list
from renalkit.readers.stills import read_whole
from renalkit.store.files import read_json

SAMPLED_NAME = "frames.json"
"""What `renalkit frames` writes beside the keep list: the frames it offered, file by file."""

_UNWRITABLE = re.compile("[\x00-\x1f\x7f\\\\\ud800-\udfff]")


def listed_name(relative: Path) -> str:
    """How a keep list names a file; what a table of text cannot hold is written out.

    >>> listed_name(Path("ward/cine 1.dcm"))
    'ward/cine 1.dcm'
    """
    # The sign of the escapes is escaped as well, so that two files never share a name.
    return _UNWRITABLE.sub(lambda m: f"\\u{ord(m.group()):04x}", relative.as_posix())


@dataclass(frozen=True, slots=True)
class Picks:
    """Which frames are taken. Without a keep list and with step 1: all.

    kept: frames by keyed path, in order; None when there is no keep list. changed: keyed paths of
    files that are no longer those whose frames were listed. missing: listed files that are not in
    the source.
    """

    kept: Mapping[str, tuple[int, ...]] | None = None
    step: int = 1
    changed: frozenset[str] = frozenset()
    missing: int = 0

    def __bool__(self) -> bool:
        return self.kept is not None or self.step > 1

    @property
    def fingerprint(self) -> tuple[str, ...]:
        """What the result of a study depends on; nothing when all frames are taken."""
        if not self:
            return ()
        kept = sorted((self.kept or {}).items())
        return (f"every {self.step}", repr(kept), repr(sorted(self.changed)))

    def place(self, clip: Clip, source_frame: int) -> int | None:
        """The index in a stored clip of a frame of its file; None when it was not taken."""
        if self.kept is not None:
            frames = self.kept.get(clip.source.keyed_path, ())
            return frames.index(source_frame) if source_frame in frames else None
        if self.step > 1:
            index, rest = divmod(source_frame, self.step)
            return index if not rest and 0 <= index < clip.n_frames else None
        return source_frame - clip.source.first_frame

    def reduced(self, result: ReadResult, key_of: Callable[[Path], str]) -> ReadResult:
        """The result with the frames that are taken, each file that has none with its reason.

        Regions move with their frames; those on frames that are not taken are counted in a
        defect. Raises InputRefused when the source can no longer be read.
        """
        study = result.study
        if study is None or not self:
            return result
        choices = [self._choice(clip) for clip in study.clips]
        clips: list[Clip] = []
        places: dict[tuple[int, int], tuple[int, int]] = {}
        defects: list[Defect] = []
        number: dict[int, int] = {}
        for index, (clip, choice) in enumerate(zip(study.clips, choices, strict=True)):
            if isinstance(choice, _LeftOut):
                continue
            number[index] = len(clips)
            places |= {(index, f): (len(clips), at) for at, f in enumerate(choice)}
            if len(choice) < clip.n_frames:
                words = f"frames {', '.join(map(str, choice))} of {clip.n_frames} taken"
                defects.append(Defect(Reason.CONVERTED, words, len(clips)))
                clip = _taken(clip, choice)
            clips.append(clip)
        left_out = {
            clip.source.keyed_path: choice if isinstance(choice, _LeftOut) else None
            for clip, choice in zip(study.clips, choices, strict=True)
        }
        reports = _reports(result.files, left_out, key_of)
        if not clips:
            return ReadResult(None, reports)
        lesions = tuple(_moved(lesion, places) for lesion in study.lesions)
        for index, own in number.items():
            rois = [r for le in study.lesions for r in le.rois if r.clip == index]
            lost = sum((r.clip, r.frame) not in places for r in rois)
            if lost:
                defects.append(not_taken(lost, own))
        told = [d for d in study.defects if d.clip is None or d.clip in number]
        told = [d if d.clip is None else replace(d, clip=number[d.clip]) for d in told]
        study = replace(study, clips=tuple(clips), lesions=lesions, defects=(*told, *defects))
        return ReadResult(study, reports, result.exclude_because)

    def _choice(self, clip: Clip) -> tuple[int, ...] | _LeftOut:
        if self.kept is None:
            return every_frames(clip.n_frames, self.step)
        key = clip.source.keyed_path
        if key in self.changed:
            return _refused(Reason.NOT_IN_TABLE, "not the file whose frames were listed")
        frames = self.kept.get(key)
        if frames is None:
            return _refused(Reason.NOT_IN_TABLE, "the keep list does not name this file")
        if not frames:
            defect = Defect(Reason.NOT_IN_TABLE, "the keep list keeps no frame of this file")
            return _LeftOut(Outcome.SKIPPED, defect)
        if frames[-1] >= clip.n_frames:
            words = f"the keep list names frame {frames[-1]} of a file of {clip.n_frames} frames"
            return _refused(Reason.BAD_TABLE, words)
        return frames


@dataclass(frozen=True, slots=True)
class _LeftOut:
    """A file of which no frame is taken."""

    outcome: Outcome
    defect: Defect


def _refused(reason: Reason, words: str) -> _LeftOut:
    return _LeftOut(Outcome.REFUSED, Defect(reason, words))


def not_taken(regions: int, clip: int) -> Defect:
    """The defect of regions whose frames are not in the cohort."""
    return Defect(Reason.NOT_IN_TABLE, f"{regions} regions lie on frames not taken", clip)


@dataclass(frozen=True, slots=True)
class TakenFrames:
    """Some frames of a stack, in order."""

    base: PixelStack = field(repr=False)
    frames: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.frames), *(int(n) for n in self.base.shape[1:]))

    @property
    def dtype(self) -> np.dtype[np.generic]:
        return self.base.dtype

    def __getitem__(self, index: int, /) -> Pixels:
        """Frame `index` of those taken; IndexError outside."""
        if not 0 <= index < len(self.frames):
            raise IndexError(f"frame {index} of {len(self.frames)} taken frames")
        return self.base[self.frames[index]]


def _taken(clip: Clip, frames: tuple[int, ...]) -> Clip:
    pixels = TakenFrames(clip.pixels, frames)
    try:
        digest = pixel_sha256(pixels)
    except OSError as error:
        raise InputRefused(
            Reason.UNREADABLE,
            f"cannot be read any more ({error.strerror})",
            remedy="run the same command again when the source is there",
        ) from error
    return replace(
        clip,
        pixels=pixels,
        sha256=digest,
        source=replace(clip.source, first_frame=clip.source.first_frame + frames[0]),
        times_s=None if clip.times_s is None else tuple(clip.times_s[f] for f in frames),
    )


def _moved(lesion: Lesion, places: Mapping[tuple[int, int], tuple[int, int]]) -> Lesion:
    kept = [(r, places[r.clip, r.frame]) for r in lesion.rois if (r.clip, r.frame) in places]
    return replace(lesion, rois=tuple(replace(r, clip=c, frame=f) for r, (c, f) in kept))


def _reports(
    files: tuple[FileReport, ...],
    left_out: Mapping[str, _LeftOut | None],
    key_of: Callable[[Path], str],
) -> tuple[FileReport, ...]:
    """The reports with the files that are left out. Masks and outlines follow their picture."""
    reports: list[FileReport] = []
    current: _LeftOut | None = None
    for report in files:
        key = key_of(report.path)
        if key in left_out:
            current = left_out[key]
            if current is not None:
                report = FileReport(report.path, current.outcome, (current.defect,))
        elif current is not None and report.outcome is not Outcome.REFUSED:
            words = "belongs to a picture that is left out"
            report = FileReport(report.path, Outcome.SKIPPED, (Defect(Reason.NOT_IN_TABLE, words),))
        reports.append(report)
    return tuple(reports)


def read_picks(
    path: Path, root: Path, identities: Mapping[Path, tuple[str, str]], limits: Limits
) -> Picks:
    """The picks of a keep list for the files below root.

    identities: keyed path and content hash of every file. When the record of the sampling lies
    beside the list, every sampled frame must be listed and the files must be the same.

    Raises InputRefused: BAD_TABLE (with the line), BAD_JSON, UNREADABLE.
    """
    record = path.parent / SAMPLED_NAME
    sampled = read_sampled(record) if record.is_file() else None
    offered = None if sampled is None else {name: frames for name, (_, frames) in sampled.items()}
    kept = read_keep_list(read_whole(path, limits), offered, where=path.name)
    found = {listed_name(p.relative_to(root)): own for p, own in identities.items()}
    return Picks(
        kept={found[name][0]: frames for name, frames in kept.items() if name in found},
        changed=frozenset(
            found[name][0]
            for name, (sha256, _) in (sampled or {}).items()
            if name in found and found[name][1] != sha256
        ),
        missing=sum(name not in found for name in kept),
    )


def read_sampled(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Content hash and sampled frames of every file that gave frames, by its listed name.

    Raises InputRefused(BAD_JSON).
    """
    try:
        files: list[Any] = read_json(path)["files"]
        return {
            str(f["file"]): (str(f["sha256"]), tuple(int(n) for n in f["frames"]))
            for f in files
            if f["frames"]
        }
    except (KeyError, TypeError, ValueError) as error:
        raise InputRefused(
            Reason.BAD_JSON,
            "not the record of a sampling",
            where=path.name,
            expected="the file as `renalkit frames` wrote it",
            remedy="run renalkit frames again, or move the keep list out of its folder",
        ) from error
