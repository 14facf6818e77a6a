"""What can go wrong, said so that a user can act on it.

Every error of renalkit says what was found, where, what was expected and what to do.

    RenalkitError                 exit 1
    ├── ConfigError               exit 2   experiment file or option is wrong (all problems at once)
    ├── InputRefused              exit 3   a file, table or value from outside cannot be used
    │   └── DecodeFailed                   pixels could not be decoded in the worker process
    ├── CheckFailed               exit 5   a leak or label guard found something not waived
    ├── StoreError                exit 6   disk full, damaged or foreign store content
    ├── Locked                    exit 7   another process works on the same folder
    ├── ModelRefused              exit 3   weights or model package cannot be trusted or do not fit
    ├── StatisticUndefined        exit 3   the number asked for does not exist for these data
    ├── TrainingFailed            exit 1   non-finite loss and the like
    └── MissingExtra              exit 2   an optional part is not installed

Exit 0 is success, exit 4 "done, but some files were refused", exit 130 interrupted (resumable).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any


class Exit:
    """Exit codes of every command."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    REFUSED = 3
    PARTIAL = 4
    CHECK_FAILED = 5
    STORE = 6
    LOCKED = 7
    INTERRUPTED = 130


class Reason(StrEnum):
    """Machine-readable reason why a file or value was refused or used with a warning."""

    EMPTY = "empty"
    NOT_AN_IMAGE = "not-an-image"
    NOT_DICOM = "not-dicom"
    NO_TRANSFER_SYNTAX = "no-transfer-syntax"
    UNSUPPORTED_TRANSFER_SYNTAX = "unsupported-transfer-syntax"
    WRONG_TRANSFER_SYNTAX = "wrong-transfer-syntax"
    TRUNCATED = "truncated"
    TRUNCATED_PIXELS = "truncated-pixels"
    LENGTH_EXCEEDS_FILE = "length-exceeds-file"
    META_LENGTH = "meta-length"
    HEADERLESS = "headerless"
    TOO_MANY_ELEMENTS = "too-many-elements"
    TOO_DEEP = "too-deep"
    INFLATE_LIMIT = "inflate-limit"
    TOO_LARGE = "too-large"
    TOO_SMALL = "too-small"
    CONSTANT_IMAGE = "constant-image"
    NON_FINITE = "non-finite"
    DUPLICATE_ELEMENT = "duplicate-element"
    BAD_ELEMENT = "bad-element"
    BAD_UID = "bad-uid"
    UID_COLLISION = "uid-collision"
    FOREIGN_PREAMBLE = "foreign-preamble"
    BAD_FRAMES = "bad-frames"
    BAD_PIXEL_DESCRIPTION = "bad-pixel-description"
    BAD_PALETTE = "bad-palette"
    DIMS_MISMATCH = "dims-mismatch"
    FRAGMENTS_MISMATCH = "fragments-mismatch"
    CODEC_ERROR = "codec-error"
    DECODER_KILLED = "decoder-killed"
    NO_SCALE = "no-scale"
    NO_TIMING = "no-timing"
    BAD_RESCALE = "bad-rescale"
    BAD_WINDOW = "bad-window"
    FIELD_NULLED = "field-nulled"
    CHARSET = "charset"
    NO_PATIENT = "no-patient"
    IDENTITY_CONFLICT = "identity-conflict"
    NOT_AN_IMAGE_OBJECT = "not-an-image-object"
    NOT_ULTRASOUND = "not-ultrasound"
    NOT_CT = "not-ct"
    LOCALIZER = "localizer"
    NOT_AXIAL = "not-axial"
    TOO_FEW_SLICES = "too-few-slices"
    BAD_GEOMETRY = "bad-geometry"
    ORIENTATION_CONFLICT = "orientation-conflict"
    SLICE_GAP = "slice-gap"
    UNEVEN_SLICES = "uneven-slices"
    DUPLICATE_SLICE = "duplicate-slice"
    SEVERAL_ACQUISITIONS = "several-acquisitions"
    GANTRY_TILT = "gantry-tilt"
    OBLIQUE = "oblique"
    NOT_HU = "not-hu"
    LAYOUT_UNKNOWN = "layout-unknown"
    NO_REGIONS = "no-regions"
    SPECIAL_FILE = "special-file"
    UNREADABLE = "unreadable"
    CHANGED_DURING_READ = "changed-during-read"
    DICOMDIR_IGNORED = "dicomdir-ignored"
    DECOMPRESSION_BOMB = "decompression-bomb"
    FORMAT_REFUSED = "format-refused"
    ANIMATED = "animated"
    CONVERTED = "converted"
    BAD_VIDEO = "bad-video"
    REMOTE_REFERENCE = "remote-reference"
    UNKNOWN_LABEL = "unknown-label"
    BAD_TABLE = "bad-table"
    BAD_JSON = "bad-json"
    BAD_ANNOTATION = "bad-annotation"
    MASK_MISMATCH = "mask-mismatch"
    EMPTY_MASK = "empty-mask"
    MISSING_FILE = "missing-file"
    EXTRA_FILE = "extra-file"
    DUPLICATE_FILE = "duplicate-file"
    PAIR_MISMATCH = "pair-mismatch"
    SPLIT_OVERLAP = "split-overlap"
    NOT_IN_TABLE = "not-in-table"
    NOT_RECOGNISED = "not-recognised"


class RenalkitError(Exception):
    """Base of every error renalkit raises on purpose."""

    exit_code = Exit.INTERNAL

    def __init__(
        self, found: str, *, where: str = "", expected: str = "", remedy: str = ""
    ) -> None:
        self.found, self.where, self.expected, self.remedy = found, where, expected, remedy
        super().__init__(found)

    def __reduce__(self) -> tuple[Any, ...]:
        """Whole across processes, whatever arguments it was made with."""
        return _again, (type(self), self.args, self.__dict__)

    def __str__(self) -> str:
        head = f"{self.where}: {self.found}" if self.where else self.found
        tail = [
            f"{name}: {text}"
            for name, text in (("expected", self.expected), ("remedy", self.remedy))
            if text
        ]
        return "; ".join([head, *tail])


def _again(kind: type[RenalkitError], args: tuple[Any, ...], facts: dict[str, Any]) -> Any:
    error = kind.__new__(kind, *args)
    error.__dict__.update(facts)
    return error


class ConfigError(RenalkitError, ValueError):
    """The experiment file or an option is wrong; `problems` lists every one of them.

    Also a ValueError, so that settings found wrong deep inside are reported with all others.
    """

    exit_code = Exit.USAGE

    def __init__(self, problems: list[str], *, where: str = "") -> None:
        self.problems = list(problems)
        super().__init__("\n".join(["configuration problems:", *problems]), where=where)


class InputRefused(RenalkitError):
    """A file, table or value from outside cannot be used; `reason` is machine-readable."""

    exit_code = Exit.REFUSED

    def __init__(
        self, reason: Reason, found: str, *, where: str = "", expected: str = "", remedy: str = ""
    ) -> None:
        self.reason = reason
        super().__init__(found, where=where, expected=expected, remedy=remedy)


class DecodeFailed(InputRefused):
    """Pixels could not be decoded; the worker process may have died, this one did not."""


class CheckFailed(RenalkitError):
    """A leak or label guard found something that was not waived by name."""

    exit_code = Exit.CHECK_FAILED


class StoreError(RenalkitError):
    """The store is damaged, foreign, or the disk refused a write."""

    exit_code = Exit.STORE


class Locked(RenalkitError):
    """Another process works on the same folder."""

    exit_code = Exit.LOCKED


class ModelRefused(RenalkitError):
    """Weights or a model package cannot be trusted or do not fit the architecture."""

    exit_code = Exit.REFUSED


class StatisticUndefined(RenalkitError):
    """The statistic asked for does not exist for these data (one class, no variance, empty)."""

    exit_code = Exit.REFUSED


class TrainingFailed(RenalkitError):
    """Training met a state it must not continue from, such as a non-finite loss."""


EXTRA_OF = {
    **dict.fromkeys(("zarr", "pyarrow", "openpyxl"), "study"),
    **dict.fromkeys(("torch", "lightning_fabric", "monai"), "train"),
    **dict.fromkeys(("onnx", "onnxscript"), "export"),
}
"""The extra of renalkit that brings a library."""


class MissingExtra(RenalkitError):
    """An optional part of renalkit is not installed; the message names the extra."""

    exit_code = Exit.USAGE
