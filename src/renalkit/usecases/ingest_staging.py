"""What has an interrupted ingest finished already?

Every result of a reader is kept as one record once its pixels are stored; a later run takes the
record instead of decoding again. A record is named by the hashes of its files and of everything
that could change the result, so a changed file, table or option is read anew.

Records hold raw identifiers for the link table: they lie beside it and the project's key, never
in the cohort.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from renalkit.domain.image import PixelStack
from renalkit.domain.study import Defect
from renalkit.errors import InputRefused, Reason, StoreError
from renalkit.readers.contract import FileReport, Outcome, ReadResult
from renalkit.readers.pseudonyms import Pseudonyms
from renalkit.store.cohorts import study_from_json, study_to_json
from renalkit.store.files import parse_json, write_json
from renalkit.store.pixels import put_clip, stored


@dataclass(slots=True)
class Staging:
    """Finished results of one ingest. identities: keyed path and file hash of every input file.

    recalled: how many results an earlier run had finished.
    """

    folder: Path
    cohort: Path
    fingerprint: str
    pseudonyms: Pseudonyms
    identities: Mapping[Path, tuple[str, str]]
    links: dict[str, str] = field(default_factory=dict[str, str], repr=False)
    recalled: int = 0
    hashes: dict[str, str] = field(init=False, repr=False)
    _asked: set[Path] = field(default_factory=set[Path])
    _made: set[Path] = field(default_factory=set[Path])
    _last: ReadResult | None = None

    def __post_init__(self) -> None:
        self.hashes = dict(self.identities.values())

    def _place(self, paths: Sequence[Path]) -> Path:
        parts = sorted(" ".join(self.identities[p]) for p in paths)
        name = hashlib.sha256("\n".join([self.fingerprint, *parts]).encode()).hexdigest()
        return self.folder / f"{name}.json"

    def finished(self, paths: Sequence[Path]) -> bool:
        """Whether there is a record of exactly these files."""
        return self._place(paths).is_file()

    def made_now(self, paths: Sequence[Path]) -> None:
        """Another process of this very run has finished these files."""
        self._made.add(self._place(paths))

    def recall(self, paths: Sequence[Path]) -> ReadResult | None:
        """The finished result of exactly these files, None when there is none.

        A decoder that was stopped may have met a busy machine: such files are read again.
        """
        if any(p not in self.identities for p in paths):
            return None
        place = self._place(paths)
        self._asked.add(place)
        if not place.is_file():
            return None
        try:
            record = parse_json(place.read_bytes(), where="staged record")
            by_key = {self.identities[p][0]: p for p in paths}
            reports = tuple(
                FileReport(by_key[f["file"]], Outcome(f["outcome"]), _defects(f["reasons"]))
                for f in record["files"]
            )
            study = record["study"]
            result = ReadResult(
                None if study is None else study_from_json(study, self._stack),
                reports,
                record["exclude_because"],
            )
        except (StoreError, InputRefused, ValueError, KeyError, TypeError):
            # A damaged record is worth nothing: the files are simply read again.
            return None
        if any(d.reason is Reason.DECODER_KILLED for r in reports for d in r.reasons):
            return None
        self.links.update(record["links"])
        self.recalled += place not in self._made
        self._last = result
        return result

    def has(self, result: ReadResult) -> bool:
        """Whether this result was just recalled: its pixels and its record are stored."""
        return result is self._last

    def _stack(self, sha256: str, shape: tuple[int, ...], dtype: str) -> PixelStack:
        return stored(self.cohort, sha256, shape, dtype)

    def keep(self, result: ReadResult) -> ReadResult:
        """Store the pixels of a result, then its record; the result with stored pixels.

        A result nobody will ask for again (no study, and not asked for now) leaves no record.
        """
        place = self._place([f.path for f in result.files])
        study = result.study
        if self.has(result):
            return result
        if study is None and place not in self._asked:
            return result
        if study is not None:
            study = replace(study, clips=tuple(put_clip(self.cohort, c) for c in study.clips))
        issued = self.pseudonyms.issued
        own = () if study is None else (study.key, study.patient)
        links = {key: plain_text(issued[key]) for key in own}
        self.links.update(links)
        record = {
            "files": [
                {
                    "file": self.identities[f.path][0],
                    "outcome": f.outcome.value,
                    "reasons": [[d.reason.value, d.words, d.clip] for d in f.reasons],
                }
                for f in result.files
            ],
            "study": None if study is None else study_to_json(study),
            "exclude_because": result.exclude_because,
            "links": links,
        }
        write_json(place, record)
        return ReadResult(study, result.files, result.exclude_because)

    def prune(self) -> None:
        """Remove the records that no file of this run asked for."""
        for path in self.folder.glob("*.json"):
            if path not in self._asked:
                path.unlink()


def plain_text(raw: str) -> str:
    """Text that UTF-8 can hold: bytes of a file name that are no UTF-8 are written out."""
    return raw.encode("utf-8", "backslashreplace").decode("utf-8")


def _defects(items: Any) -> tuple[Defect, ...]:
    return tuple(Defect(Reason(reason), words, clip) for reason, words, clip in items)
