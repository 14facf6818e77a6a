"""How does what a reader gave become a stored result, in this process and in several at once?

Several processes only work ahead: each stores pixels and record of a study as an interrupted import
would have, and the import itself recalls them in its own order. So the cohort has the same bytes
for any number of processes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, field
from pathlib import Path

from renalkit.domain.study import Defect
from renalkit.errors import InputRefused, Reason
from renalkit.readers.contract import FileReport, Outcome, ReadOptions, ReadResult
from renalkit.readers.decode_worker import DecodeWorker
from renalkit.readers.dicom_us import DicomReader, DicomStudy
from renalkit.usecases.ceus_cohort import ContrastStudies
from renalkit.usecases.ingest_frames import Picks
from renalkit.usecases.ingest_labels import StudyLabels
from renalkit.usecases.ingest_staging import Staging
from renalkit.usecases.processes import interrupts_held, one_thread_each, processes
from renalkit.usecases.progress import Progress

_WORTH_PIXELS = 1 << 28
"""With fewer pixels to read, starting processes costs more than it saves."""
_MOST = 16


@dataclass(slots=True)
class Keeping:
    """Takes frames, takes cines apart, stores the pixels and the record."""

    staging: Staging
    picks: Picks
    contrast: ContrastStudies | None

    def kept(self, result: ReadResult) -> ReadResult:
        """The result as it is stored; its files are refused when they can no longer be read."""
        staging, contrast = self.staging, self.contrast
        clips = result.study.clips if result.study is not None else ()
        hashes = staging.hashes
        if any(c.source.file_sha256 != hashes.get(c.source.keyed_path) for c in clips):
            words = "the file changed while it was read"
            return _all_refused(result, Defect(Reason.CHANGED_DURING_READ, words))
        try:
            if not staging.has(result):  # a recalled one holds the frames taken already
                result = self.picks.reduced(result, self._key)
                if contrast is not None:
                    result = contrast.prepared(result, self._key)
            elif contrast is not None and result.study is not None:
                contrast.met(result.study)
            return staging.keep(result)
        except InputRefused as error:
            return _all_refused(result, Defect(error.reason, error.found))

    def _key(self, path: Path) -> str:
        return self.staging.identities[path][0]


def _all_refused(result: ReadResult, defect: Defect) -> ReadResult:
    files = tuple(FileReport(f.path, Outcome.REFUSED, (defect,)) for f in result.files)
    return ReadResult(None, files)


@dataclass(slots=True)
class Ahead:
    """Stores DICOM studies by several processes before the import asks for them.

    workers: processes; 0 takes one per core where it is worth starting them.
    """

    root: Path = field(repr=False)
    options: ReadOptions
    labels: StudyLabels
    keeping: Keeping
    progress: Progress
    workers: int = 0

    def __call__(self, studies: Sequence[DicomStudy]) -> None:
        """Stores the studies that no earlier run has finished.

        Raises:
            StoreError: the disk refused, or a process was killed.
        """
        staging = self.keeping.staging
        missing = [s for s in studies if not staging.finished(s.paths)]
        count = min(self._count(missing), len(missing))
        if count < 2:
            return
        self.progress.stage(f"reading in {count} processes", sum(len(s.files) for s in missing))
        given = (self.root, self.options, self.labels, self.keeping)
        with processes("reads studies", count, _begin, *given) as pool:
            with interrupts_held():
                waiting = {pool.submit(_store, study): study for study in missing}
            for done in as_completed(waiting):
                done.result()
                paths = waiting[done].paths
                staging.made_now(paths)
                self.progress.advance(len(paths))
        self.progress.stage("putting studies together", sum(len(s.files) for s in studies))

    def _count(self, missing: Sequence[DicomStudy]) -> int:
        # An outliner holds the engine of its network, which cannot be handed on.
        contrast = self.keeping.contrast
        if contrast is not None and contrast.options.outliner is not None:
            return 1
        if self.workers:
            return self.workers
        worth = sum(s.pixels for s in missing) >= _WORTH_PIXELS
        return min(os.cpu_count() or 1, _MOST) if worth else 1


_work: tuple[DicomReader, Keeping]
"""Of a process that works ahead."""


def _begin(root: Path, options: ReadOptions, labels: StudyLabels, keeping: Keeping) -> None:
    global _work
    one_thread_each()
    pseudonyms = keeping.staging.pseudonyms
    patient_of = labels.patient_of(root, pseudonyms)
    decoder = DecodeWorker(options.limits)
    _work = DicomReader(root, pseudonyms, options, decoder, patient_of), keeping


def _store(study: DicomStudy) -> None:
    reader, keeping = _work
    keeping.staging.recall(study.paths)  # asked for, so that it is recorded
    keeping.kept(reader.read(study))
