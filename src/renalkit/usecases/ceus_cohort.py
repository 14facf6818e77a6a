"""How do dual cines become paired samples of a cohort?

While a study is read, each dual cine is analysed; what is kept of it are its chosen frames, as a
B-mode clip and a contrast clip of the same instants, with every lesion outlined on both. Figures of
its curves become facts of the study, and everything said about its frames lies beside the cohort's
studies:

    <cohort>/ceus/<study>.<clip>/   analysis.json frames.csv curves.csv figures.csv
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from renalkit.ceus.layouts import Presets
from renalkit.ceus.panels import Pane
from renalkit.ceus.sampling import CroppedStack
from renalkit.domain.geometry import Box, Region
from renalkit.domain.image import Clip, Mode, pixel_sha256
from renalkit.domain.study import Defect, Lesion, Roi, Scanner, Study
from renalkit.errors import InputRefused, Reason
from renalkit.readers.annotations import FrameAnnotation, fitted, joined_roi
from renalkit.readers.contract import FileReport, Outcome, ReadResult
from renalkit.readers.pseudonyms import Pseudonyms
from renalkit.store.files import make_folder, write_json, write_text
from renalkit.usecases.ceus_clip import CORTEX, CeusClip, analyse_clip, carried_region
from renalkit.usecases.ceus_input import is_cortex
from renalkit.usecases.ceus_record import analysis_json, features, frames_csv
from renalkit.usecases.ceus_settings import CeusSettings
from renalkit.usecases.ingest_frames import TakenFrames
from renalkit.usecases.ingest_labels import StudyLabels
from renalkit.writers.ceus_tables import curves_csv, figures_csv

FOLDER = "ceus"
NOT_LISTED = "not in the label table"


class IdentifiedOutliner(Protocol):
    """Outlines lesions, and says what it is made of."""

    @property
    def identity(self) -> tuple[str, ...]: ...

    def __call__(self, pixels: npt.NDArray[np.generic], /) -> npt.NDArray[np.bool_] | None: ...


@dataclass(frozen=True, slots=True)
class ContrastOptions:
    """How cines are analysed on their way into a cohort.

    presets: file of console layouts. outliner: outlines the lesion; outlines of people are then not
    used.
    """

    settings: CeusSettings
    presets: Path | None = None
    outliner: IdentifiedOutliner | None = None

    @property
    def fingerprint(self) -> tuple[str, ...]:
        """What the result of a study depends on."""
        layouts = b"" if self.presets is None else self.presets.read_bytes()
        given = (self.settings.model_dump_json(), hashlib.sha256(layouts).hexdigest())
        return ("ceus", *given, *(() if self.outliner is None else self.outliner.identity))


@dataclass(slots=True)
class ContrastStudies:
    """Turns studies as read into studies of paired panes. output: the cohort's folder."""

    options: ContrastOptions
    output: Path
    labels: StudyLabels
    pseudonyms: Pseudonyms
    presets: Presets | None = None
    _lesions_only: StudyLabels = field(init=False)

    def __post_init__(self) -> None:
        if self.options.presets is not None:
            self.presets = Presets.load(self.options.presets)
        kept = {
            path: [a for a in items if not is_cortex(a)]
            for path, items in self.labels.regions.items()
        }
        self._lesions_only = replace(self.labels, regions=kept)

    def met(self, study: Study) -> None:
        """Count the rows of the label table that belong to a study recalled from an earlier run."""
        self.labels.attach(study, self.pseudonyms)

    def prepared(self, result: ReadResult, key_of: Callable[[Path], str]) -> ReadResult:
        """The result with panes of chosen frames instead of its cines.

        A study that the label table does not list is excluded, and one frame of it is kept. A
        clip that is no usable dual cine is refused with its reason.

        Args:
            key_of: keyed path of a file.
        """
        if result.study is None:
            return result
        study = self.attached(result.study)
        if study is None:
            clips = tuple(_first_frame(c) for c in result.study.clips)
            return ReadResult(replace(result.study, clips=clips), result.files, NOT_LISTED)
        return self.apart(study, result, key_of)

    def attached(self, study: Study) -> Study | None:
        """The study with its lesions as labels and outlines have them; None when not listed."""
        return self._lesions_only.attach(study, self.pseudonyms)

    def place(self, study: Study, number: int) -> Path:
        """Folder of the analysis of one of the study's cines."""
        return self.output / FOLDER / f"{study.key}.{number}"

    def apart(self, study: Study, result: ReadResult, key_of: Callable[[Path], str]) -> ReadResult:
        """As `prepared` for a study whose lesions are known. result: its files."""
        made = _Made(study)
        for number, clip in enumerate(study.clips):
            try:
                found = self._analysed(study, number)
            except InputRefused as refused:
                made.refused[clip.source.keyed_path] = Defect(refused.reason, str(refused))
                continue
            made.add(number, found, self.options.settings)
            self._write(study, number, found)
        return made.result(result, key_of)

    def _analysed(self, study: Study, number: int) -> CeusClip:
        clip = study.clips[number]
        if clip.n_frames < 2:
            raise InputRefused(Reason.LAYOUT_UNKNOWN, "a still image", expected="a dual cine")
        outliner = self.options.outliner
        if outliner is not None and len(study.lesions) > 1:
            raise InputRefused(
                Reason.BAD_ANNOTATION,
                f"{len(study.lesions)} lesions for one predicted outline",
                expected="one lesion, or outlines by hand",
            )
        regions: dict[str, Sequence[Roi]] = {
            name: [r for r in lesion.rois if r.clip == number and outliner is None]
            for name, lesion in named_lesions(study.lesions).items()
        }
        regions = {name: rois for name, rois in regions.items() if rois}
        cortex = _cortex(self.labels.regions.get(clip.source.keyed_path, ()), clip, number)
        if cortex:
            regions[CORTEX] = cortex
        return analyse_clip(
            clip,
            regions,
            self.options.settings,
            scanner=study.scanner if study.scanner != Scanner() else None,
            presets=self.presets,
            outliner=outliner,
        )

    def _write(self, study: Study, number: int, found: CeusClip) -> None:
        clip = study.clips[number]
        folder = make_folder(self.place(study, number))
        write_text(folder / "frames.csv", frames_csv(clip, found))
        if found.curves is not None and found.perfusion is not None:
            write_text(folder / "curves.csv", curves_csv(found.curves, found.perfusion))
            write_text(folder / "figures.csv", figures_csv(found.perfusion))
        write_json(folder / "analysis.json", analysis_json(clip, found, self.options.settings))


def named_lesions(lesions: Sequence[Lesion]) -> dict[str, Lesion]:
    """Lesions by the name their region has in an analysis: "lesion", or "lesion-1" and so on."""
    if len(lesions) == 1:
        return {"lesion": lesions[0]}
    return {f"lesion-{n}": lesion for n, lesion in enumerate(lesions, 1)}


def _cortex(items: Sequence[FrameAnnotation], clip: Clip, number: int) -> list[Roi]:
    frames: dict[int, list[FrameAnnotation]] = {}
    for item in items:
        if is_cortex(item) and 0 <= item.frame < clip.n_frames:
            frames.setdefault(item.frame, []).append(fitted(item, clip.rows, clip.cols))
    joined = (joined_roi(number, frame, of) for frame, of in sorted(frames.items()))
    return [roi for roi in joined if roi is not None]


def _first_frame(clip: Clip) -> Clip:
    pixels = TakenFrames(clip.pixels, (0,))
    times = None if clip.times_s is None else clip.times_s[:1]
    return replace(clip, pixels=pixels, sha256=pixel_sha256(pixels), times_s=times)


@dataclass(slots=True)
class _Made:
    """Panes, regions and facts of one study so far; refused: by keyed path of the file."""

    study: Study
    clips: list[Clip] = field(default_factory=list[Clip])
    rois: dict[str, list[Roi]] = field(default_factory=dict[str, list[Roi]])
    facts: dict[str, float] = field(default_factory=dict[str, float])
    defects: list[Defect] = field(default_factory=list[Defect])
    refused: dict[str, Defect] = field(default_factory=dict[str, Defect])

    def add(self, number: int, found: CeusClip, settings: CeusSettings) -> None:
        """Take the chosen frames of one cine."""
        clip, chosen = self.study.clips[number], found.chosen
        if not chosen:
            words = "no frame passed the gates"
            self.refused[clip.source.keyed_path] = Defect(Reason.CONSTANT_IMAGE, words)
            return
        places = (len(self.clips), len(self.clips) + 1)
        panes = ((found.panels.bmode, Mode.B), (found.panels.contrast, Mode.CEUS))
        self.clips += [_pane_clip(clip, pane, mode, chosen) for pane, mode in panes]
        for name, lesion in named_lesions(self.study.lesions).items():
            if name not in found.regions:
                continue
            for at, item in enumerate(carried_region(found, name, chosen, settings.carry)):
                if item.roi is None:
                    continue
                for place in places:
                    roi = replace(item.roi, clip=place, frame=at)
                    self.rois.setdefault(lesion.key, []).append(roi)
        self.defects += [Defect(Reason.CONVERTED, words, places[0]) for words in found.warnings]
        if found.perfusion is not None:
            # Of several cines of a study the first one with figures counts.
            self.facts = self.facts or features(found.perfusion)

    def result(self, read: ReadResult, key_of: Callable[[Path], str]) -> ReadResult:
        """The study of paired panes, each refused file with its reason."""
        files = tuple(self._report(f, key_of(f.path)) for f in read.files)
        if not self.clips:
            return ReadResult(None, files)
        lesions = tuple(
            replace(lesion, rois=tuple(self.rois.get(lesion.key, ())))
            for lesion in self.study.lesions
        )
        told = [replace(d, clip=None) for d in self.study.defects]
        study = replace(
            self.study,
            clips=tuple(self.clips),
            lesions=lesions,
            covariates={**self.study.covariates, **self.facts},
            defects=tuple(dict.fromkeys((*told, *self.defects))),
        )
        return ReadResult(study, files, read.exclude_because)

    def _report(self, report: FileReport, key: str) -> FileReport:
        refused = self.refused.get(key)
        return report if refused is None else FileReport(report.path, Outcome.REFUSED, (refused,))


def _pane_clip(clip: Clip, pane: Pane, mode: Mode, chosen: tuple[int, ...]) -> Clip:
    """The chosen frames of one pane."""
    pixels = TakenFrames(CroppedStack(clip.pixels, pane.box), chosen)
    box = Box(0, 0, pane.box.width, pane.box.height)
    return replace(
        clip,
        pixels=pixels,
        sha256=pixel_sha256(pixels),
        mode=mode,
        regions=(Region(box, pane.spacing_mm, "tissue"),),
        spacing_mm=pane.spacing_mm,
        times_s=None if clip.times_s is None else tuple(clip.times_s[f] for f in chosen),
        offset=(clip.offset[0] + pane.box.x, clip.offset[1] + pane.box.y),
        source_frames=tuple(clip.source_frame(f) for f in chosen),
    )
