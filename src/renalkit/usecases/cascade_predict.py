"""What does a trained CT cascade say about new scans? Results for each, on its own grid.

<output>/
  predictions.json   scans, their masses, and what became of every file
  lesions.csv        a line per mass, of all scans
  scans/<scan>/      see `scan_results`
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from renalkit import RESEARCH_ONLY
from renalkit.domain.image import pixel_sha256
from renalkit.domain.sample import SampleKey
from renalkit.domain.study import Defect
from renalkit.domain.volume import LabelMap, Phase, PhaseSource, Volume
from renalkit.errors import ConfigError, InputRefused, Reason
from renalkit.readers.archives import is_archive
from renalkit.readers.contract import Decoder, FileReport, Outcome, ReadOptions
from renalkit.readers.ct_lesions import phase_from_hu
from renalkit.readers.ct_pictures import is_picture
from renalkit.readers.decode_worker import DecodeWorker
from renalkit.readers.dicom_ct import CtSeries, read_ct_series
from renalkit.readers.dicom_prescan import looks_like_dicom
from renalkit.readers.nifti import is_nifti, read_nifti_ct, volume_of
from renalkit.readers.pictures import VIDEO_SUFFIXES
from renalkit.readers.pseudonyms import KEY_BYTES, Pseudonyms
from renalkit.store.files import make_folder, write_json, write_text
from renalkit.usecases.cascade_model import UNKNOWN, CascadeModel
from renalkit.usecases.lesion_table import SAME_VOXELS, check_place, table_json
from renalkit.usecases.predict_input import Offered, offered
from renalkit.usecases.progress import Progress
from renalkit.usecases.scan_results import ResultOptions, ScanFiles, write_scan_results
from renalkit.writers.lesion_page import lesions_csv
from renalkit.writers.wording import plural

Json = dict[str, Any]
PREDICTIONS, TABLE, SCANS = "predictions.json", "lesions.csv", "scans"
GIVEN = "DICOM CT series or NIfTI scans in HU"

_NOBODY = bytes(KEY_BYTES)  # keys are made of the user's own file names and go nowhere
_LABELS = re.compile(r"(segmentation|labels?|instances?)|.*_(seg|labels?|instances?)")
_LABEL_FOLDERS = frozenset(("labelsTr", "labelsTs", "segmentations", "instances"))


@dataclass(frozen=True, slots=True)
class ScanOptions:
    """phase: of the one scan of the source, stated by the user; UNKNOWN hides what its header
    says. further: (phase or "", file or folder) of scans on its grid that are measured beside it.
    any_phase: look at scans of phases the system was not trained on too. labelmap: DICOM
    Segmentations as label maps."""

    phase: str | None = None
    further: Sequence[tuple[str, Path]] = ()
    any_phase: bool = False
    labelmap: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class _Scan:
    """A scan as it was read. study: scans of one study may be phases of one another."""

    name: str
    volume: Volume
    study: str
    files: tuple[Path, ...]
    notes: tuple[str, ...]


def run_cascade_predict(
    model: CascadeModel, source: Path, output: Path, options: ScanOptions, progress: Progress
) -> Json:
    """Look at every scan in a file, folder or zip archive; writes predictions.json.

    Scans of one DICOM study on the same voxels are measured as phases of one another. Scans and
    files that cannot be used are listed with their reason.

    Raises:
        InputRefused: nothing that could be a scan, or a further scan that cannot be used.
        ConfigError: `output` is inside `source`, or a phase is stated of several scans.
        ModelRefused: results of a network that are not finite.
        StoreError: the disk refuses.
    """
    phases = (*(phase.value for phase in Phase), UNKNOWN)
    if options.phase is not None and options.phase not in phases:
        raise ConfigError([f"--phase {options.phase}: expected {', '.join(phases)}"])
    if source.is_dir() and output.resolve().is_relative_to(source.resolve()):
        raise ConfigError([f"-o {output}: inside the folder that is read; choose one beside it"])
    with offered(source, GIVEN) as given, DecodeWorker(ReadOptions().limits) as worker:
        answers = _Answers(model, _Reader(given, worker, source), options, output)
        answers.give(progress)
        found = answers.result()
    if not found["scans"] and not found["refused"]:
        raise InputRefused(
            Reason.EMPTY, "no scan", where=source.name, expected=GIVEN, remedy="give the scan"
        )
    make_folder(output)
    write_json(output / PREDICTIONS, found)
    write_text(output / TABLE, lesions_csv(table_json(found["scans"])))
    return found


# ---- what is read ------------------------------------------------------------------------------


@dataclass(slots=True)
class _Reader:
    """Reads what is offered. reports: of every file so far."""

    given: Offered
    worker: Decoder
    source: Path
    reports: dict[Path, FileReport] = field(default_factory=dict[Path, FileReport])
    _names: set[str] = field(default_factory=set[str])

    def sorted_files(self) -> tuple[list[Path], list[Path]]:
        """DICOM files and NIfTI scans; each other file with what became of it."""
        self.reports |= {report.path: report for report in self.given.left}
        dicom: list[Path] = []
        nifti: list[Path] = []
        for path in self.given.files:
            if is_nifti(path):
                if _labels_by_name(path):
                    self._put(path, Outcome.SKIPPED, Reason.NOT_RECOGNISED, "labels by its name")
                else:
                    nifti.append(path)
            elif looks_like_dicom(path):
                dicom.append(path)
            elif is_picture(path) or path.suffix.lower() in VIDEO_SUFFIXES:
                words = f"a picture or video; this system looks at CT scans: give {GIVEN}"
                self._put(path, Outcome.REFUSED, Reason.NOT_CT, words)
            else:
                words = "neither DICOM nor NIfTI"
                self._put(path, Outcome.SKIPPED, Reason.NOT_RECOGNISED, words)
        return dicom, nifti

    def series(self, files: Sequence[Path]) -> list[_Scan]:
        """The CT series among DICOM files."""
        read = read_ct_series(files, ReadOptions(), self.worker)
        self.reports |= {report.path: report for report in read.reports}
        found: list[_Scan] = []
        for one in read.series:
            who = one.slices[0].identity
            scan = _Scan(
                self._name(self._series_name(one)),
                one.volume,
                f"{who.patient}\0{who.study_uid}",
                tuple(dict.fromkeys(one.paths)),
                tuple(defect.words for defect in one.defects),
            )
            found += [scan] if self._deep_enough(scan) else []
        return found

    def nifti(self, path: Path) -> _Scan | None:
        """A NIfTI scan; None where it was refused."""
        try:
            read = read_nifti_ct(path, ReadOptions(), self.worker)
            if int(read.pixels.min()) >= 0:
                raise InputRefused(
                    Reason.NOT_HU,
                    f"values {int(read.pixels.min())} to {int(read.pixels.max())}, none below 0",
                    expected="Hounsfield units: air is -1000, fat -100",
                    remedy="write the scan in HU; labels are no scan",
                )
        except InputRefused as error:
            self._refuse([path], error)
            return None
        outcome = Outcome.WARNED if read.defects else Outcome.USED
        self.reports[path] = FileReport(path, outcome, tuple(read.defects))
        name = path.name.lower().removesuffix(".gz").removesuffix(".nii")
        name = path.name[: len(name)]
        if name == "imaging":
            inside = path.parent != self.given.root
            name = path.parent.name if inside else self.given.root.resolve().name
        scan = _Scan(
            self._name(name),
            volume_of(read, path, ""),
            str(path),
            (path,),
            tuple(defect.words for defect in read.defects),
        )
        return scan if self._deep_enough(scan) else None

    def refuse(self, scan: _Scan, error: InputRefused) -> None:
        """No answer about a scan: its files are refused."""
        self._refuse(scan.files, error)

    def _refuse(self, files: Sequence[Path], error: InputRefused) -> None:
        plain = InputRefused(
            error.reason, error.found, expected=error.expected, remedy=error.remedy
        )
        for path in files:
            self._put(path, Outcome.REFUSED, error.reason, str(plain))

    def _put(self, path: Path, outcome: Outcome, reason: Reason, words: str) -> None:
        self.reports[path] = FileReport(path, outcome, (Defect(reason, words),))

    def _deep_enough(self, scan: _Scan) -> bool:
        if scan.volume.n_frames > 1:
            return True
        error = InputRefused(
            Reason.TOO_FEW_SLICES,
            "one slice",
            expected="a scan of the kidneys: these networks look at volumes",
            remedy="give the whole series",
        )
        self.refuse(scan, error)
        return False

    def _series_name(self, one: CtSeries) -> str:
        """The folder of a series below the source, or what the source is called."""
        parts = [p.relative_to(self.given.root).parent.parts for p in one.paths]
        common = [level[0] for level in zip(*parts, strict=False) if len(set(level)) == 1]
        if common:
            return "_".join(common)
        alone = self.source.is_file()
        return (self.source.stem if alone else self.source.resolve().name) or "scan"

    def _name(self, wanted: str) -> str:
        plain = re.sub(r"[^A-Za-z0-9._-]+", "_", wanted).strip(".") or "scan"
        found = next(
            n
            for k in range(1, 100_000)
            if (n := plain if k == 1 else f"{plain}-{k}") not in self._names
        )
        self._names.add(found)
        return found


def _labels_by_name(path: Path) -> bool:
    stem = path.name.removesuffix(".gz").removesuffix(".nii")
    return _LABELS.fullmatch(stem) is not None or path.parent.name in _LABEL_FOLDERS


# ---- what is said ------------------------------------------------------------------------------


@dataclass(slots=True)
class _Answers:
    """What was said so far."""

    model: CascadeModel
    reader: _Reader
    options: ScanOptions
    output: Path
    scans: list[Json] = field(default_factory=list[Json])
    measured_only: list[Json] = field(default_factory=list[Json])

    def give(self, progress: Progress) -> None:
        """Look at everything."""
        dicom, nifti = self.reader.sorted_files()
        progress.stage("read the series", 1)
        series = self.reader.series(dicom)
        progress.advance()
        self._check_one(len(series) + len(nifti))
        further = [self._further(phase, path) for phase, path in self.options.further]
        progress.stage("find masses", len(series) + len(nifti))
        for scan in map(self._stated, series):
            beside = [
                other
                for other in (*map(self._stated, series), *further)
                if other.name != scan.name
                and other.study in (scan.study, "")
                and other.volume.grid.shift_from(scan.volume.grid) <= SAME_VOXELS
            ]
            self._check_further(scan, further)
            self._answer(scan, beside)
            progress.advance()
        for path in nifti:
            scan = self.reader.nifti(path)
            if scan is not None:
                self._check_further(scan, further)
                self._answer(self._stated(scan), further)
            progress.advance()

    def _check_one(self, scans: int) -> None:
        said = [
            name
            for name, value in (("--phase", self.options.phase), ("--scan", self.options.further))
            if value
        ]
        if said and scans > 1:
            raise ConfigError(
                [f"{', '.join(said)}: of one scan, and the source holds {scans}; give one alone"]
            )

    def _further(self, phase: str, path: Path) -> _Scan:
        """A further phase of the one scan."""
        scans: list[_Scan] = []
        reports: list[FileReport] = []
        # Of an archive nothing would be left once it is closed.
        if path.is_dir() or not is_archive(path):
            with offered(path, GIVEN) as given:
                own = _Reader(given, self.reader.worker, path)
                dicom, nifti = own.sorted_files()
                scans = [*own.series(dicom), *filter(None, map(own.nifti, nifti))]
                reports = list(own.reports.values())
        if len(scans) != 1:
            bad = next((r for r in reports if r.outcome is Outcome.REFUSED), None)
            raise InputRefused(
                Reason.MISSING_FILE if bad is None else bad.reasons[0].reason,
                f"{len(scans)} scans" + ("" if bad is None else f" ({bad.reasons[0].words})"),
                where=f"--scan {path.name}",
                expected="one scan: a NIfTI file or a folder with the slices of one series",
            )
        scan = scans[0]
        return replace(scan, volume=_of_phase(scan.volume, phase), study="", name=f"\0{path}")

    def _check_further(self, scan: _Scan, further: Sequence[_Scan]) -> None:
        for other in further:
            check_place(other.volume.grid, scan.volume.grid, f"--scan {Path(other.name).name}")

    def _stated(self, scan: _Scan) -> _Scan:
        if self.options.phase is None:
            return scan
        return replace(scan, volume=_of_phase(scan.volume, self.options.phase))

    def _answer(self, scan: _Scan, beside: Sequence[_Scan]) -> None:
        """One scan, with the phases of it on the same voxels."""
        phase = scan.volume.phase
        if not self.model.looks_at(phase) and not self.options.any_phase:
            if any(self.model.looks_at(o.volume.phase) for o in beside if o.study):
                self.measured_only.append(
                    {
                        "scan": scan.name,
                        "phase": None if phase is None else phase.value,
                        "words": "never trained on this phase; measured beside one on its voxels",
                    }
                )
            else:
                self.reader.refuse(scan, self._other_phase(phase))
            return
        try:
            self.scans.append(self._found(scan, beside))
        except InputRefused as error:
            self.reader.refuse(scan, error)

    def _other_phase(self, phase: Phase | None) -> InputRefused:
        return InputRefused(
            Reason.NOT_RECOGNISED,
            f"contrast phase {phase.value if phase else UNKNOWN}, on which this system was never "
            "trained",
            expected=" or ".join(self.model.phases),
            remedy="give a scan of such a phase, or look nevertheless with --any-phase",
        )

    def _found(self, scan: _Scan, beside: Sequence[_Scan]) -> Json:
        names = Pseudonyms(_NOBODY)
        key = SampleKey(names.patient(scan.study), names.study(scan.name), "", 0, 0)
        found = self.model.find(scan.volume, key)
        volume, notes = self._phase(scan.volume, LabelMap(found.labels, pixel_sha256(found.labels)))
        folder = self.output / SCANS / scan.name
        files = ScanFiles(volume, scan.files, [other.volume for other in beside])
        options = ResultOptions(
            scan.name, self.model.classes, self.options.labelmap, notes=(*scan.notes, *notes)
        )
        refused: dict[str, str] = {}
        try:
            written = write_scan_results(found, files, folder, options)
        except InputRefused as error:
            if not (folder / "lesions.json").exists():
                raise
            # The DICOM results alone were refused; the others need nothing of the headers.
            written = write_scan_results(found, replace(files, files=()), folder, options)
            refused["dicom"] = str(error)
        return {
            **written["table"]["scans"][0],
            "folder": f"{SCANS}/{scan.name}",
            "written": written["files"],
            "not_written": written["not_written"] | refused,
            "phase": None if volume.phase is None else volume.phase.value,
            "phase_from": None if volume.phase_source is None else volume.phase_source.value,
            "phases_beside": [o.volume.phase.value if o.volume.phase else None for o in beside],
            "voxels": list(volume.grid.shape),
            "spacing_mm": list(volume.grid.spacing_mm),
            "boxes": len(found.boxes_mm or ()),
            "files": [self.reader.given.name(path) for path in scan.files],
        }

    def _phase(self, volume: Volume, labels: LabelMap) -> tuple[Volume, list[str]]:
        """The scan with the phase its kidneys show where nobody said one, and what to say of it."""
        trained = ", ".join(self.model.phases)
        if self.options.phase == UNKNOWN:
            return volume, []
        if volume.phase is not None:
            known = self.model.looks_at(volume.phase)
            return volume, [] if known else [
                f"contrast phase {volume.phase.value}; the system was trained on {trained}"
            ]
        shown = phase_from_hu(volume, labels)
        if shown is None:
            alien = self.model.phases and UNKNOWN not in self.model.phases
            words = f"contrast phase unknown; the system was trained on {trained}"
            return volume, [words] if alien else []
        words = f"contrast phase {shown.value} by the HU of the kidneys, not by the header"
        if not self.model.looks_at(shown):
            words += f"; the system was trained on {trained}"
        return replace(volume, phase=shown, phase_source=PhaseSource.HU), [words]

    def result(self) -> Json:
        """Everything, as predictions.json has it."""
        model, name = self.model, self.reader.given.name
        reports = sorted(self.reader.reports.values(), key=lambda r: name(r.path))
        return {
            "schema": 1,
            "kind": "scans",
            "use": RESEARCH_ONLY,
            "model": model.name,
            "engine": model.engine,
            "system": model.system.name,
            "label": model.system.label,
            "weights_sha256": model.system.weights_sha256,
            "folds": list(model.folds),
            "classes": list(model.classes),
            "trained_phases": list(model.phases),
            "scans": self.scans,
            "measured_only": self.measured_only,
            "files": [
                {
                    "file": name(r.path),
                    "outcome": r.outcome.value,
                    "reasons": [{"reason": d.reason.value, "words": d.words} for d in r.reasons],
                }
                for r in reports
            ],
            "refused": [
                {
                    "file": name(r.path),
                    "reason": r.reasons[0].reason.value,
                    "words": r.reasons[0].words,
                }
                for r in reports
                if r.outcome is Outcome.REFUSED
            ],
        }


def _of_phase(volume: Volume, phase: str) -> Volume:
    """The volume with the phase that is stated, if one is."""
    if not phase:
        return volume
    if phase == UNKNOWN:
        return replace(volume, phase=None, phase_source=None)
    return replace(volume, phase=Phase(phase), phase_source=PhaseSource.HEADER)


def cascade_words(found: Json) -> str:
    """The masses for a terminal."""
    lines = [found["use"]]
    for scan in found["scans"]:
        phase = scan["phase"] or "phase unknown"
        lines.append(f"{scan['scan']} ({phase}): {plural(len(scan['lesions']), 'mass', 'masses')}")
        for row in scan["lesions"]:
            words = f"  {row['lesion']} {row['side']}, {row['axial_diameter_mm']:.0f} mm"
            if row["probability"] is not None:
                words += f", {row['class']} ({row['probability'][row['class']]:.2f})"
            words += f", confidence {row['confidence_probability']:.2f}"
            if row["renal"] is not None:
                words += f", R.E.N.A.L. {row['renal']['text']}"
            lines.append(words)
        if not scan["boxes"]:
            lines.append("  no kidney was found, so no mass was looked for")
        lines += [f"  {note}" for note in scan["notes"]]
        lines.append(f"  results in {scan['folder']}")
    for other in found["measured_only"]:
        lines.append(f"{other['scan']} ({other['phase']}): {other['words']}")
    lines += [f"refused {r['file']}: {r['words']}" for r in found["refused"]]
    return "\n".join(lines)
