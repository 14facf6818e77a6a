"""Which cine is in a file, and what was outlined on it?

Used by commands that work on a user's own file without making a cohort: nothing of a header is
kept, and results are named after the file.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from renalkit.domain.geometry import MaskRLE
from renalkit.domain.image import Clip, Mode, Source
from renalkit.domain.study import Covariate, Defect, Roi, Scanner
from renalkit.errors import InputRefused, Reason
from renalkit.readers.annotation_files import (
    labelme_frame,
    read_box_table,
    read_cvat_video,
    read_labelme,
)
from renalkit.readers.annotations import FrameAnnotation, fitted, joined_roi
from renalkit.readers.contract import ReadOptions
from renalkit.readers.decode_worker import DecodeWorker
from renalkit.readers.dicom_prescan import looks_like_dicom
from renalkit.readers.dicom_served import ServedFrames
from renalkit.readers.dicom_us import serve_dicom_us
from renalkit.readers.pictures import VIDEO_SUFFIXES
from renalkit.readers.stills import decode_options, read_whole
from renalkit.readers.video_spool import spool_video
from renalkit.store.spool import FrameSpool
from renalkit.usecases.ceus_clip import CORTEX

_NAME = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Cine:
    """One file as a clip.

    name: as its owner knows it. timing: where frame times come from: "header", "pts" of a video,
    or "none". defects: of its header. patient, study_uid, person: see `ServedFile`; empty for a
    video.
    """

    name: str
    path: Path
    clip: Clip
    scanner: Scanner | None
    is_dicom: bool
    timing: str
    defects: tuple[Defect, ...] = ()
    patient: str = field(default="", repr=False)
    study_uid: str = field(default="", repr=False)
    person: Mapping[str, Covariate] = field(default_factory=dict[str, Covariate])

    def check(self) -> tuple[Defect, ...]:
        """What is wrong with the file, after frames of it were looked at.

        Raises:
            InputRefused: it changed meanwhile, or most of those frames are damaged.
        """
        stack = self.clip.pixels
        found = stack.check() if isinstance(stack, ServedFrames) else []
        return (*self.defects, *found)


@contextmanager
def looking_at(cine: Cine) -> Generator[None]:
    """A refusal inside is replaced by what is wrong with the file, where that explains it."""
    try:
        yield
    except InputRefused as refused:
        if refused.reason is not Reason.DECODER_KILLED:
            cine.check()
        raise


def read_cine(
    path: Path, name: str, worker: DecodeWorker, *, keep_pixels: bool, folder: Path | None = None
) -> Cine:
    """One DICOM file or video as a clip.

    Frames of DICOM are decoded by the worker when they are asked for: it must live as long.

    Args:
        folder: on whose disk the frames of a video lie while they are needed; that of temporary
            files if none is given.

    Raises:
        InputRefused: what cannot be read, or is neither. StoreError: the disk refuses the frames.
    """
    options = ReadOptions(keep_pixels=keep_pixels)
    if looks_like_dicom(path):
        try:
            served = serve_dicom_us(path, options, worker)
        except InputRefused as refused:
            raise _named(refused, name) from None
        timing = "none" if served.clip.times_s is None else "header"
        return Cine(
            *(name, path, served.clip, served.scanner),
            is_dicom=True,
            timing=timing,
            defects=served.defects,
            patient=served.patient,
            study_uid=served.study_uid,
            person=served.person,
        )
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        raise InputRefused(
            Reason.NOT_RECOGNISED, "neither DICOM nor a video", where=name, expected="a cine"
        )
    return _video(path, name, worker, options, folder)


def _video(
    path: Path, name: str, worker: DecodeWorker, options: ReadOptions, folder: Path | None
) -> Cine:
    frames = FrameSpool(folder or Path(tempfile.gettempdir()))
    try:
        info = spool_video(path, worker, options.limits, frames)
    except InputRefused as refused:
        raise _named(refused, name) from None
    times = info["times_s"]
    clip = Clip(
        pixels=frames,
        sha256="",
        mode=Mode.DUAL,
        source=Source("", "", str(info["source_format"])),
        times_s=None if times is None else tuple(float(t) for t in times),
    )
    defects = tuple(Defect(Reason(str(reason)), str(words)) for reason, words in info["warnings"])
    return Cine(
        *(name, path, clip, None), is_dicom=False, timing=str(info["timing"]), defects=defects
    )


def _named(refused: InputRefused, name: str) -> InputRefused:
    return InputRefused(
        refused.reason,
        refused.found,
        where=name,
        expected=refused.expected,
        remedy=refused.remedy,
    )


def read_annotations(place: Path | None) -> tuple[FrameAnnotation, ...]:
    """Outlines of a box table, a CVAT file, a LabelMe file or a folder of these."""
    if place is None:
        return ()
    paths = sorted(p for p in place.iterdir() if p.is_file()) if place.is_dir() else [place]
    found: list[FrameAnnotation] = []
    for path in paths:
        data, suffix = read_whole(path, ReadOptions().limits), path.suffix.lower()
        if suffix == ".csv":
            found += read_box_table(data, file=path.name)
        elif suffix == ".xml":
            found += read_cvat_video(data, file=path.stem)
        elif suffix == ".json":
            stem, frame = labelme_frame(path.stem)
            found += read_labelme(data, file=stem, frame=frame)
        elif not place.is_dir():
            raise InputRefused(
                Reason.BAD_ANNOTATION,
                f"regions in a file of type '{suffix}'",
                where=path.name,
                expected="a box table (.csv), CVAT (.xml) or LabelMe (.json)",
            )
    if not found:
        raise InputRefused(Reason.BAD_ANNOTATION, "no region in it", where=place.name)
    return tuple(found)


def own_annotations(
    cine: Cine, annotations: Sequence[FrameAnnotation], *, alone: bool
) -> list[FrameAnnotation]:
    """The outlines that are about this cine. alone: it is the only one, so a list about one file
    is its own.

    Raises:
        InputRefused: BAD_ANNOTATION, a frame the cine does not have, or files that cannot be told
            apart.
    """
    files = sorted({a.file for a in annotations})
    file = _own_file(files, cine, alone=alone)
    own = [a for a in annotations if a.file == file]
    for item in own:
        if not 0 <= item.frame < cine.clip.n_frames:
            raise InputRefused(
                Reason.BAD_ANNOTATION,
                f"a region on frame {item.frame} of a cine of {cine.clip.n_frames} frames",
                where=cine.name,
                expected="frames counted from 0",
            )
    return own


def regions_of(
    cine: Cine, annotations: Sequence[FrameAnnotation], *, alone: bool
) -> dict[str, list[Roi]]:
    """Regions of one cine by name; alone and errors as `own_annotations`."""
    own = own_annotations(cine, annotations, alone=alone)
    grouped: dict[tuple[str, int], list[FrameAnnotation]] = {}
    lesions = sorted({a.lesion for a in own if not is_cortex(a)})
    for item in own:
        name = CORTEX if is_cortex(item) else _lesion_name(item.lesion, lesions)
        placed = fitted(item, cine.clip.rows, cine.clip.cols)
        grouped.setdefault((name, item.frame), []).append(placed)
    regions: dict[str, list[Roi]] = {}
    for (name, frame), items in sorted(grouped.items()):
        roi = joined_roi(0, frame, items)
        if roi is not None:
            regions.setdefault(name, []).append(roi)
    return regions


def _own_file(files: Sequence[str], cine: Cine, *, alone: bool) -> str | None:
    """Which of the files an annotation list names is this cine; None when it names others.

    A name counts when it is the end of the cine's path (its last part with or without ending), or
    the cine's name the end of it. A bare file name is not enough where several files have it: the
    outlines of another patient must never be taken.
    """
    full = [f for f in files if _ends(cine.path.resolve(), Path(f))]
    if full:
        return max(full, key=lambda f: len(Path(f).parts))
    near = [f for f in files if _ends(Path(f), Path(cine.name))]
    if len(near) == 1:
        return near[0]
    if alone and len(files) == 1:
        return files[0]
    if near or (alone and files):
        found = near or files
        raise InputRefused(
            Reason.BAD_ANNOTATION,
            f"regions of {len(found)} files, and which of them is this one cannot be told, "
            f"for instance '{found[0]}' and '{found[1]}'",
            where=cine.name,
            expected="the file as it lies in its folder, or regions of one file alone",
            remedy="name files in the table with their folders, as they are on disk",
        )
    return None


def _ends(path: Path, end: Path) -> bool:
    """Whether a path ends in the parts of another; the last part may lack its ending."""
    parts, wanted = path.parts, end.parts
    if not wanted or len(wanted) > len(parts):
        return False
    last = {path.name, path.stem}
    return parts[len(parts) - len(wanted) : -1] == wanted[:-1] and wanted[-1] in last


def is_cortex(item: FrameAnnotation) -> bool:
    """Whether an outline is of the region that others are compared with."""
    return CORTEX in (item.lesion.strip().lower(), (item.label or "").strip().lower())


def _lesion_name(lesion: str, lesions: Sequence[str]) -> str:
    return "lesion" if len(lesions) == 1 else f"lesion-{_NAME.sub('_', lesion)}"


def mask_roi(path: Path, frame: int, cine: Cine, worker: DecodeWorker) -> Roi:
    pixels = worker.run("still", path, decode_options(ReadOptions().limits, "mask")).pixels
    shape = (cine.clip.rows, cine.clip.cols)
    if pixels.shape != shape or frame >= cine.clip.n_frames:
        raise InputRefused(
            Reason.BAD_ANNOTATION,
            f"a mask of {pixels.shape} for frame {frame}",
            where=path.name,
            expected=f"{shape}, frame 0 to {cine.clip.n_frames - 1}",
        )
    return Roi(0, frame, mask=MaskRLE.encode(pixels))
