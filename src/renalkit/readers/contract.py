"""What a reader is: a function from files to studies in which every file ends in one bin.

A reader takes the files it is offered and yields `ReadResult`s. Each file it touches appears in
exactly one result as used, used with a warning, refused or skipped, always with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy.typing as npt

from renalkit.domain.study import Defect, Study
from renalkit.readers.pseudonyms import Pseudonyms


class Outcome(StrEnum):
    """What became of a file."""

    USED = "used"
    WARNED = "used-with-warning"
    REFUSED = "refused"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class FileReport:
    """What became of one file. The path stays in memory; only its keyed form is stored."""

    path: Path
    outcome: Outcome
    reasons: tuple[Defect, ...] = ()

    def __post_init__(self) -> None:
        if self.outcome is not Outcome.USED and not self.reasons:
            raise ValueError(f"a file that is {self.outcome.value} needs a reason")


@dataclass(frozen=True, slots=True)
class ReadResult:
    """One study with the files it came from, or files that gave none.

    exclude_because: the source itself says that the study must not be analysed (for instance
    contradictory labels); it is screened, so it belongs to the cohort's exclusions.
    """

    study: Study | None
    files: tuple[FileReport, ...]
    exclude_because: str | None = None

    def __post_init__(self) -> None:
        if self.exclude_because is not None and self.study is None:
            raise ValueError("only a study can be excluded; files without one are refused")


class PixelsAndFacts(Protocol):
    """What a decoding task gave."""

    @property
    def pixels(self) -> npt.NDArray[Any]: ...

    @property
    def info(self) -> dict[str, Any]: ...


class Decoder(Protocol):
    """Who turns a file into pixels; the decode worker does it in a child that can be killed."""

    def run(self, task: str, path: Path, options: Mapping[str, Any]) -> PixelsAndFacts:
        """Do a task ("still", "video") with JSON options; raises InputRefused, nothing else."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What a reader accepts before it allocates anything."""

    file_bytes: int = 2 << 30
    decoded_bytes: int = 2 << 30
    clip_bytes: int = 16 << 30
    frames: int = 20_000
    min_side_px: int = 16
    max_side_px: int = 8_192
    sequence_depth: int = 32
    elements: int = 100_000
    value_bytes: int = 16 << 20
    header_bytes: int = 64 << 20
    inflated_bytes: int = 256 << 20
    worker_bytes: int = 3 << 30
    worker_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What the user allows.

    keep_pixels: keep pixels of files that declare no ultrasound region (burned-in text stays).
    allow_headerless: accept DICOM without the 128-byte preamble.
    """

    keep_pixels: bool = False
    allow_headerless: bool = False
    limits: Limits = field(default_factory=Limits)


Recall = Callable[[Sequence[Path]], ReadResult | None]
"""Gives the result an interrupted run already reached for exactly these files, or None."""


def recall_nothing(paths: Sequence[Path]) -> ReadResult | None:
    """What a reader recalls on a first run."""
    return None


@dataclass(frozen=True, slots=True)
class ReadContext:
    """What a reader needs beside the files: their folder, who names them, who decodes them.

    recall: the result an interrupted run already reached for exactly these files of one study, so
    that a reader need not decode them again; None when there is none.
    """

    root: Path
    pseudonyms: Pseudonyms
    decoder: Decoder
    options: ReadOptions = field(default_factory=ReadOptions)
    recall: Recall = recall_nothing

    def relative(self, path: Path) -> PurePosixPath:
        """The path below the import folder."""
        return PurePosixPath(path.relative_to(self.root).as_posix())
