"""Is a DICOM file whole and of sane proportions, and where is what in it?

An iterative walk over the bytes, before any library sees them: every declared length is compared
with the bytes that are there, nothing is allocated from a declared size, nesting needs no
recursion. The few values a reader needs are kept as raw bytes; text of the file appears in no
message. Encoding rules: DICOM PS3.5 section 7 (elements, sequences), annex A (transfer syntaxes,
encapsulation), PS3.10 section 7 (file meta information).

Rules for files that break the standard in ways seen in the field: of elements given twice the
first wins (warning); elements out of order are used (warning); the walk follows the meta group by
group number, so a wrong group length is only a warning; a data set that is explicit where the
transfer syntax says implicit, or the reverse, is used with a warning when exactly one reading
walks through the whole file.
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from renalkit.domain.study import Defect
from renalkit.errors import InputRefused, Reason
from renalkit.readers.contract import Limits
from renalkit.readers.dicom_syntaxes import DEFLATED_LE, EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE

PIXEL_DATA = 0x7FE00010
REGIONS = 0x00186011
VOI_LUT = 0x00283010
MODALITY_LUT = 0x00283000

_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
_KEPT_VALUE_BYTES = 1 << 20
_FRAGMENTS = 1_000_000
_WINDOW = 1 << 16

_SHORT = frozenset(
    (b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"PN")
    + (b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US")
)
_LONG = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
)
_PIXEL_TAGS = frozenset((PIXEL_DATA, 0x7FE00008, 0x7FE00009))
_DOCUMENT = 0x00420011

# Tags whose values are kept, with the VR they have when the file does not say (implicit).
_TOP: dict[int, str] = {
    **dict.fromkeys((0x00020002, 0x00020010, 0x00080016, 0x00080018, 0x0020000D, 0x0020000E), "UI"),
    **dict.fromkeys((0x00080005, 0x00080008, 0x00080060, 0x00100040, 0x00280004), "CS"),
    **dict.fromkeys((0x00080070, 0x00081090, 0x00100020, 0x00100021), "LO"),
    **dict.fromkeys((0x00080020, 0x00100030), "DA"),
    **{0x00100010: "PN", 0x00101010: "AS", 0x00280009: "AT", 0x00280008: "IS"},
    **dict.fromkeys((0x00181063, 0x00181065, 0x00280030, 0x00281052, 0x00281053), "DS"),
    **dict.fromkeys((0x00281050, 0x00281051), "DS"),
    **dict.fromkeys((0x00200032, 0x00200037), "DS"),
    **dict.fromkeys((0x00200012, 0x00200013, 0x00200100), "IS"),
    **dict.fromkeys((0x0008103E, 0x00181030, 0x00281054), "LO"),
    **{0x00080032: "TM", 0x00181210: "SH", 0x00200052: "UI"},
    **dict.fromkeys((0x00180040, 0x00082144), "IS"),
    **dict.fromkeys((0x00280002, 0x00280006, 0x00280010, 0x00280011), "US"),
    **dict.fromkeys((0x00280100, 0x00280101, 0x00280102, 0x00280103), "US"),
    **dict.fromkeys((0x00281101, 0x00281102, 0x00281103), "US"),
    **dict.fromkeys((0x00281201, 0x00281202, 0x00281203), "OW"),
    **dict.fromkeys((0x00281221, 0x00281222, 0x00281223), "OW"),
    **dict.fromkeys((0x7FE00001, 0x7FE00002), "OV"),
}
_INSIDE: dict[int, dict[int, str]] = {
    REGIONS: {
        **dict.fromkeys((0x00186012, 0x00186014, 0x00186024, 0x00186026), "US"),
        **dict.fromkeys((0x00186016, 0x00186018, 0x0018601A, 0x0018601C, 0x0018601E), "UL"),
        **dict.fromkeys((0x0018602C, 0x0018602E), "FD"),
    },
    VOI_LUT: {0x00283002: "US", 0x00283006: "OW"},
    MODALITY_LUT: {0x00283002: "US", 0x00283006: "OW"},
}

_PREAMBLES = (
    *(b"MZ", b"\x7fELF", b"#!", b"PK\x03\x04", b"<", b"%PDF", b"\xfe\xed\xfa\xce"),
    *(b"\xfe\xed\xfa\xcf", b"\xce\xfa\xed\xfe", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe"),
)
_EXPORT_AGAIN = "export the file again from the source system"


class ByteSource(Protocol):
    """Bytes that can be read at any offset."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes from `offset`; fewer at the end."""
        ...


class FileSource:
    """A file read in windows, so that a walk over many small elements costs few system calls."""

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self._handle).st_size
        self._start, self._window = 0, b""

    def read(self, offset: int, count: int) -> bytes:
        if count > _WINDOW:
            return self._all(offset, count)
        end = offset + count
        if offset < self._start or end > self._start + len(self._window):
            self._start, self._window = offset, os.pread(self._handle, _WINDOW, offset)
        at = offset - self._start
        return self._window[at : at + count]

    def _all(self, offset: int, count: int) -> bytes:
        parts: list[bytes] = []
        while count > 0 and (piece := os.pread(self._handle, count, offset)):
            parts.append(piece)
            offset, count = offset + len(piece), count - len(piece)
        return b"".join(parts)

    def close(self) -> None:
        os.close(self._handle)

    def __enter__(self) -> FileSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class MemorySource:
    """Bytes already in memory (a data set that was inflated)."""

    data: bytes | bytearray = field(repr=False)

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, count: int) -> bytes:
        return bytes(self.data[offset : offset + count])


@dataclass(frozen=True, slots=True)
class Value:
    """One element's value as it stands in the file."""

    vr: str
    raw: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Values:
    """Kept values of one level of the data set, by tag."""

    by_tag: Mapping[int, Value] = field(repr=False)
    big_endian: bool = False

    def __contains__(self, tag: int) -> bool:
        return tag in self.by_tag

    def raw(self, tag: int) -> bytes:
        """The bytes without trailing padding (spaces and one NUL); empty when absent."""
        value = self.by_tag.get(tag)
        return b"" if value is None else value.raw.removesuffix(b"\0").rstrip(b" ")

    def text(self, tag: int) -> str:
        """ASCII text without padding; bytes that are not ASCII become question marks."""
        return self.raw(tag).decode("ascii", "replace").replace("�", "?").strip()

    def integers(self, tag: int) -> tuple[int, ...]:
        """Numbers of a binary or integer-string element; ValueError when it is something else."""
        value = self.by_tag.get(tag)
        if value is None:
            return ()
        form = _INTEGER_FORMS.get(value.vr)
        if form is None:
            return tuple(int(part) for part in _number_texts(self.raw(tag)))
        return tuple(int(n) for n in self._unpack(form, value.raw))

    def floats(self, tag: int) -> tuple[float, ...]:
        """Numbers of a floating or decimal-string element; ValueError when it is something else."""
        value = self.by_tag.get(tag)
        if value is None:
            return ()
        form = _FLOAT_FORMS.get(value.vr)
        if form is None:
            return tuple(float(part) for part in _number_texts(self.raw(tag)))
        return tuple(float(n) for n in self._unpack(form, value.raw))

    def _unpack(self, form: str, raw: bytes) -> tuple[float, ...]:
        count, rest = divmod(len(raw), struct.calcsize("<" + form))
        if rest:
            raise ValueError(f"{len(raw)} bytes are no whole number of values")
        return struct.unpack(f"{'>' if self.big_endian else '<'}{count}{form}", raw)


_INTEGER_FORMS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "OV": "Q", "UV": "Q", "OW": "H"}
_FLOAT_FORMS = {"FD": "d", "FL": "f", "US": "H", "SS": "h", "UL": "I", "SL": "i"}
_NUMBER = re.compile(rb"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,4})?|[+-]?(nan|inf)", re.IGNORECASE)


def _number_texts(raw: bytes) -> list[str]:
    """The parts of a multi-valued number string. int() and float() alone would take `1_0`."""
    if not raw.strip():
        return []
    parts = [part.strip() for part in raw.split(b"\\")]
    if not all(len(part) <= 64 and _NUMBER.fullmatch(part) for part in parts):
        raise ValueError("text that is not a number")
    return [part.decode("ascii") for part in parts]


@dataclass(frozen=True, slots=True)
class PixelData:
    """Where the pixels are: one native run, or fragments as (offset, length)."""

    offset: int
    length: int
    vr: str
    fragments: tuple[tuple[int, int], ...] | None = field(default=None, repr=False)
    offset_table: tuple[int, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Prescan:
    """What the walk found. `inflated` is the data set of a deflated file; offsets refer to it."""

    transfer_syntax: str
    values: Values
    items: Mapping[int, tuple[Values, ...]]
    pixel_data: PixelData | None
    findings: tuple[Defect, ...]
    inflated: MemorySource | None = field(default=None, repr=False)

    @property
    def big_endian(self) -> bool:
        return self.transfer_syntax == EXPLICIT_BE


def looks_like_dicom(path: Path) -> bool:
    """Whether a file carries the DICOM mark after its preamble, whatever its name."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def prescan(path: Path, limits: Limits, *, allow_headerless: bool = False) -> Prescan:
    """Walk through a file.

    Raises:
        InputRefused: EMPTY, TOO_LARGE, NOT_DICOM, HEADERLESS, NO_TRANSFER_SYNTAX, TRUNCATED,
            TRUNCATED_PIXELS, LENGTH_EXCEEDS_FILE, TOO_MANY_ELEMENTS, TOO_DEEP, INFLATE_LIMIT,
            BAD_ELEMENT, FRAGMENTS_MISMATCH.
    """
    with FileSource(path) as source:
        return prescan_source(source, limits, allow_headerless=allow_headerless)


def prescan_source(
    source: ByteSource, limits: Limits, *, allow_headerless: bool = False
) -> Prescan:
    """As `prescan`, over any bytes."""
    if source.size == 0:
        raise InputRefused(Reason.EMPTY, "file of 0 bytes", remedy="copy the file again")
    if source.size > limits.file_bytes:
        raise InputRefused(
            Reason.TOO_LARGE,
            f"file of {source.size} bytes",
            expected=f"at most {limits.file_bytes}",
            remedy="raise the limit if the file is meant to be that large",
        )
    findings: list[Defect] = []
    start = _dataset_or_meta_start(source, findings, allow_headerless)
    syntax, begin, meta = _read_meta(source, start, limits, findings, allow_headerless)
    inflated: MemorySource | None = None
    dataset: ByteSource = source
    if syntax == DEFLATED_LE:
        inflated = dataset = MemorySource(_inflate(source, begin, limits, findings))
        begin = 0
    walk, wrong = _walk_dataset(dataset, begin, syntax, limits)
    if wrong is not None:
        findings.append(wrong)
    findings.extend(walk.findings)
    return Prescan(
        transfer_syntax=syntax,
        values=Values(meta | walk.top, walk.big_endian),
        items={
            tag: tuple(Values(item, walk.big_endian) for item in items)
            for tag, items in walk.items.items()
        },
        pixel_data=walk.pixel_data,
        findings=tuple(findings),
        inflated=inflated,
    )


def _dataset_or_meta_start(source: ByteSource, findings: list[Defect], headerless: bool) -> int:
    head = source.read(0, 132)
    if head[128:132] == b"DICM":
        if head.startswith(_PREAMBLES):
            findings.append(
                Defect(Reason.FOREIGN_PREAMBLE, "preamble that another program could run or open")
            )
        return 132
    plausible = len(head) >= 8 and head[:2] in (b"\x02\0", b"\x08\0") and head[3] == 0
    if plausible:
        plausible = head[4:6] in _SHORT | _LONG or struct.unpack("<I", head[4:8])[0] <= 64
    if not plausible:
        raise InputRefused(
            Reason.NOT_DICOM,
            "content that is not DICOM",
            expected="a DICOM file with its mark after the preamble",
            remedy="remove the file from the folder or export it again",
        )
    if not headerless:
        raise InputRefused(
            Reason.HEADERLESS,
            "DICOM data without preamble and mark",
            expected="a DICOM file as PS3.10 defines it",
            remedy="export again, or allow headerless files",
        )
    findings.append(Defect(Reason.HEADERLESS, "DICOM data without preamble and mark"))
    return 0


def _read_meta(
    source: ByteSource, start: int, limits: Limits, findings: list[Defect], headerless: bool
) -> tuple[str, int, dict[int, Value]]:
    """Transfer syntax, where the data set begins, and the kept meta values."""
    walk = _Walk(source, start, explicit=True, big_endian=False, limits=limits)
    walk.only_group = 0x0002
    walk.run()
    begin = walk.position
    declared = walk.meta_length
    if declared is not None and declared[1] != begin - declared[0]:
        findings.append(
            Defect(
                Reason.META_LENGTH,
                f"meta group said to be {declared[1]} bytes, is {begin - declared[0]}",
            )
        )
    syntax = Values(walk.top).text(0x00020010)
    if not syntax and headerless and start == 0:
        sniff = source.read(begin, 6)[4:6]
        syntax = EXPLICIT_LE if sniff in _SHORT | _LONG else IMPLICIT_LE
    if not syntax:
        raise InputRefused(
            Reason.NO_TRANSFER_SYNTAX,
            "no transfer syntax in the file meta information",
            expected="element (0002,0010)",
            remedy=_EXPORT_AGAIN,
        )
    return syntax, begin, dict(walk.top)


def _inflate(source: ByteSource, begin: int, limits: Limits, findings: list[Defect]) -> bytearray:
    """The deflated data set (PS3.5 A.5), never more than `limits.inflated_bytes`."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    data, offset = bytearray(), begin
    try:
        while not inflater.eof and offset < source.size:
            piece = source.read(offset, _WINDOW)
            offset += len(piece)
            while piece and not inflater.eof:
                data += inflater.decompress(piece, _WINDOW * 16)
                piece = inflater.unconsumed_tail
                if len(data) > limits.inflated_bytes:
                    raise InputRefused(
                        Reason.INFLATE_LIMIT,
                        f"data that inflate to more than {limits.inflated_bytes} bytes",
                        expected="a deflated file of ordinary size",
                        remedy="export the file uncompressed",
                    )
    except zlib.error as error:
        raise InputRefused(
            Reason.BAD_ELEMENT, "deflated data that are damaged", remedy=_EXPORT_AGAIN
        ) from error
    if not inflater.eof:
        raise InputRefused(
            Reason.TRUNCATED, "deflated data that end too early", remedy=_EXPORT_AGAIN
        )
    left = inflater.unused_data + source.read(offset, 4096)
    if left.strip(b"\0"):
        raise InputRefused(
            Reason.BAD_ELEMENT, "bytes after the end of the deflated data", remedy=_EXPORT_AGAIN
        )
    return data


def _walk_dataset(
    source: ByteSource, begin: int, syntax: str, limits: Limits
) -> tuple[_Walk, Defect | None]:
    """Walk as the transfer syntax says, or the other way where only that works."""
    says_explicit, big = syntax != IMPLICIT_LE, syntax == EXPLICIT_BE
    looks_explicit = source.read(begin, 6)[4:6] in _SHORT | _LONG
    if says_explicit == looks_explicit or big or source.size - begin < 8:
        walk = _Walk(source, begin, explicit=says_explicit, big_endian=big, limits=limits)
        walk.run()
        return walk, None
    readings: list[_Walk] = []
    refusals: list[InputRefused] = []
    for explicit in (says_explicit, not says_explicit):
        walk = _Walk(source, begin, explicit=explicit, big_endian=False, limits=limits)
        try:
            walk.run()
        except InputRefused as refused:
            refusals.append(refused)
        else:
            readings.append(walk)
    if len(readings) == 1 and readings[0].top:
        walk = readings[0]
        if walk.explicit == says_explicit:
            return walk, None
        return walk, Defect(
            Reason.WRONG_TRANSFER_SYNTAX,
            f"data set is {'explicit' if walk.explicit else 'implicit'}, "
            "its transfer syntax says the other",
        )
    limit = [r for r in refusals if r.reason in (Reason.TOO_DEEP, Reason.TOO_MANY_ELEMENTS)]
    if limit:
        raise limit[0]
    raise InputRefused(
        Reason.WRONG_TRANSFER_SYNTAX,
        "data set that is not encoded as its transfer syntax says",
        expected="one way of reading it that fits the whole file",
        remedy=_EXPORT_AGAIN,
    )


@dataclass(slots=True)
class _Level:
    """One open sequence or item. end is None for undefined length."""

    end: int | None
    is_item: bool
    explicit: bool
    wanted: dict[int, str] | None
    values: dict[int, Value] | None
    last_tag: int = -1


class _Walk:
    """State of one walk; `run` goes through, the attributes are its result."""

    def __init__(
        self, source: ByteSource, begin: int, *, explicit: bool, big_endian: bool, limits: Limits
    ) -> None:
        self.source, self.position, self.explicit = source, begin, explicit
        self.big_endian, self.limits = big_endian, limits
        self.begin = begin
        self.only_group: int | None = None
        self.meta_length: tuple[int, int] | None = None
        self.top: dict[int, Value] = {}
        self.items: dict[int, list[dict[int, Value]]] = {}
        self.pixel_data: PixelData | None = None
        self.findings: list[Defect] = []
        self._levels = [_Level(source.size, True, explicit, _TOP, self.top)]
        self._count = 0
        self._big_bytes = 0
        self._noted: set[Reason] = set()
        order = ">" if big_endian else "<"
        self._tag_form = struct.Struct(order + "HH")
        self._u16, self._u32 = struct.Struct(order + "H"), struct.Struct(order + "I")

    def run(self) -> None:
        """Go through the whole data set (or the one group asked for)."""
        while self._close_finished():
            level = self._levels[-1]
            if level.is_item:
                if not self._element(level):
                    return
            else:
                self._item(level)
        header = (self.pixel_data.offset if self.pixel_data else self.position) - self.begin
        if header - self._big_bytes > self.limits.header_bytes:
            raise InputRefused(
                Reason.TOO_LARGE,
                f"{header - self._big_bytes} bytes before the pixels",
                expected=f"at most {self.limits.header_bytes}",
                remedy=_EXPORT_AGAIN,
            )

    def _close_finished(self) -> bool:
        """Leave every level that ends here; False at the end of the data set."""
        while (end := self._levels[-1].end) is not None and self.position >= end:
            if len(self._levels) == 1:
                return False
            if self.position > end:
                raise self._bad("an element that leaves its sequence")
            self._levels.pop()
        if self.position >= self.source.size:
            raise self._truncated("a sequence that is not closed")
        return True

    def _head(self, count: int) -> bytes:
        head = self.source.read(self.position, count)
        if len(head) < count:
            raise self._truncated("an element cut off in its head")
        return head

    def _element(self, level: _Level) -> bool:
        """One element of a data set or item; False when the walk is over."""
        at = self.position
        if len(self._levels) == 1 and self._only_padding_left(at):
            return False
        head = self._head(8)
        group, number = self._tag_form.unpack_from(head)
        tag = group << 16 | number
        if self.only_group is not None and len(self._levels) == 1 and group != self.only_group:
            return False
        if tag == _ITEM_END and len(self._levels) > 1 and level.end is None:
            self.position += 8
            self._levels.pop()
            return True
        if group == 0xFFFE:
            raise self._bad("an item mark where an element belongs")
        vr, length, value_at = self._vr_and_length(head, tag, level)
        self._count_element(tag, level)
        if tag in _PIXEL_TAGS and len(self._levels) == 1:
            self._pixels(tag, vr, length, value_at)
            return True
        if length == _UNDEFINED:
            if vr not in ("SQ", "UN"):
                raise self._bad("an element of undefined length that is no sequence")
            # PS3.5 6.2.2 note: UN of undefined length holds an implicit little endian sequence.
            self._open_sequence(tag, None, value_at, vr == "SQ" and level.explicit)
            return True
        self._check_length(tag, length, value_at, level)
        if vr == "SQ" or (
            not level.explicit
            and tag not in (level.wanted or {})
            and length >= 8
            and self.source.read(value_at, 4) == self._tag_form.pack(0xFFFE, 0xE000)
        ):
            self._open_sequence(tag, value_at + length, value_at, level.explicit)
            return True
        self._keep(tag, vr, length, value_at)
        self.position = value_at + length
        return True

    def _vr_and_length(self, head: bytes, tag: int, level: _Level) -> tuple[str, int, int]:
        if not level.explicit:
            known = (level.wanted or {}).get(tag)
            vr = "SQ" if tag in _INSIDE else known or "UN"
            return vr, self._u32.unpack_from(head, 4)[0], self.position + 8
        code = head[4:6]
        if code in _SHORT:
            return code.decode(), self._u16.unpack_from(head, 6)[0], self.position + 8
        if code in _LONG:
            head = self._head(12)
            return code.decode(), self._u32.unpack_from(head, 8)[0], self.position + 12
        raise self._bad("a value representation that does not exist")

    def _count_element(self, tag: int, level: _Level) -> None:
        self._count += 1
        if self._count > self.limits.elements:
            raise InputRefused(
                Reason.TOO_MANY_ELEMENTS,
                f"more than {self.limits.elements} elements",
                expected="a DICOM image of ordinary size",
                remedy=_EXPORT_AGAIN,
            )
        if tag == level.last_tag or (level.values is not None and tag in level.values):
            self._note(Reason.DUPLICATE_ELEMENT, "an element given twice; the first is used")
        elif tag < level.last_tag:
            self._note(Reason.BAD_ELEMENT, "elements out of order")
        level.last_tag = max(tag, level.last_tag)

    def _check_length(self, tag: int, length: int, value_at: int, level: _Level) -> None:
        remaining = self.source.size - value_at
        if length > remaining:
            if length > self.limits.value_bytes:
                raise InputRefused(
                    Reason.LENGTH_EXCEEDS_FILE,
                    f"an element said to be {length} bytes with {remaining} left",
                    expected="lengths within the file",
                    remedy=_EXPORT_AGAIN,
                )
            raise self._truncated(f"an element of {length} bytes with {remaining} left")
        if level.end is not None and value_at + length > level.end:
            raise self._bad("an element that leaves its item")
        private = (tag >> 16) % 2 == 1
        if length > self.limits.value_bytes:
            # Scanners keep raw data in private elements; they are stepped over, never loaded.
            if not private and tag != _DOCUMENT:
                raise InputRefused(
                    Reason.TOO_LARGE,
                    f"an element of {length} bytes that is not pixels",
                    expected=f"at most {self.limits.value_bytes}",
                    remedy=_EXPORT_AGAIN,
                )
            self._big_bytes += length

    def _open_sequence(self, tag: int, end: int | None, value_at: int, explicit: bool) -> None:
        if len(self._levels) // 2 >= self.limits.sequence_depth:
            raise InputRefused(
                Reason.TOO_DEEP,
                f"sequences nested more than {self.limits.sequence_depth} deep",
                expected="a DICOM image of ordinary structure",
                remedy=_EXPORT_AGAIN,
            )
        top = len(self._levels) == 1
        wanted = _INSIDE.get(tag) if top and tag not in self.items else None
        if wanted is not None:
            self.items[tag] = []
        self._levels.append(_Level(end, False, explicit, wanted, None, tag))
        self.position = value_at

    def _item(self, level: _Level) -> None:
        """One item of a sequence, or the sequence's end."""
        head = self._head(8)
        group, number = self._tag_form.unpack_from(head)
        tag, length = group << 16 | number, self._u32.unpack_from(head, 4)[0]
        self.position += 8
        if tag == _SEQUENCE_END and level.end is None:
            self._levels.pop()
            return
        if tag != _ITEM:
            raise self._bad("something other than an item inside a sequence")
        self._count += 1
        if self._count > self.limits.elements:
            raise InputRefused(
                Reason.TOO_MANY_ELEMENTS,
                f"more than {self.limits.elements} elements",
                expected="a DICOM image of ordinary size",
                remedy=_EXPORT_AGAIN,
            )
        values: dict[int, Value] | None = None
        if level.wanted is not None:
            values = {}
            self.items[level.last_tag].append(values)
        end = None if length == _UNDEFINED else self.position + length
        if end is not None:
            if end > self.source.size:
                self._check_length(0, length, self.position, self._levels[0])
            if level.end is not None and end > level.end:
                raise self._bad("an item that leaves its sequence")
        self._levels.append(_Level(end, True, level.explicit, level.wanted, values))

    def _keep(self, tag: int, vr: str, length: int, value_at: int) -> None:
        level = self._levels[-1]
        if tag == 0x00020000 and length == 4:
            raw = self.source.read(value_at, 4)
            self.meta_length = (value_at + 4, self._u32.unpack(raw)[0])
        if level.values is None or level.wanted is None or tag in level.values:
            return
        known = level.wanted.get(tag)
        if known is None:
            return
        if length > _KEPT_VALUE_BYTES:
            raise self._bad(f"a descriptive element of {length} bytes")
        level.values[tag] = Value(known if vr == "UN" else vr, self.source.read(value_at, length))

    def _pixels(self, tag: int, vr: str, length: int, value_at: int) -> None:
        if length != _UNDEFINED:
            if length > self.source.size - value_at:
                raise self._cut_pixels(f"pixels of {length} bytes with fewer left")
            self.position = value_at + length
            found = PixelData(value_at, length, vr)
        else:
            found = self._fragments(vr, value_at)
        if tag != PIXEL_DATA:
            raise self._bad("floating-point pixels, which ultrasound does not have")
        if self.pixel_data is None:
            self.pixel_data = found
        else:
            self._note(Reason.DUPLICATE_ELEMENT, "an element given twice; the first is used")

    def _fragments(self, vr: str, value_at: int) -> PixelData:
        """The items of encapsulated pixels (PS3.5 A.4): offset table, then fragments."""
        size, at = self.source.size, value_at
        fragments: list[tuple[int, int]] = []
        table: bytes | None = None
        while True:
            head = self.source.read(at, 8)
            if not head and table is not None:
                self._note(Reason.FRAGMENTS_MISMATCH, "pixel fragments without an end mark")
                break
            if len(head) < 8:
                raise self._cut_pixels("pixel fragments cut off in a head")
            tag, length = self._tag_form.unpack_from(head), self._u32.unpack_from(head, 4)[0]
            at += 8
            if tag == (0xFFFE, 0xE0DD):
                break
            if tag != (0xFFFE, 0xE000):
                raise InputRefused(
                    Reason.FRAGMENTS_MISMATCH,
                    "something other than a fragment among the pixel fragments",
                    expected="items up to the end mark",
                    remedy=_EXPORT_AGAIN,
                )
            if length > size - at:
                raise self._cut_pixels(f"a pixel fragment of {length} bytes with {size - at} left")
            if length % 2:
                self._note(Reason.FRAGMENTS_MISMATCH, "a pixel fragment of odd length")
            if table is None:
                if length > 8 * self.limits.frames:
                    raise InputRefused(
                        Reason.FRAGMENTS_MISMATCH,
                        f"frame offset table of {length} bytes",
                        expected=f"at most {self.limits.frames} frames",
                        remedy=_EXPORT_AGAIN,
                    )
                table = self.source.read(at, length)
            else:
                fragments.append((at, length))
                if len(fragments) > _FRAGMENTS:
                    raise InputRefused(
                        Reason.FRAGMENTS_MISMATCH,
                        f"more than {_FRAGMENTS} pixel fragments",
                        expected="a clip of ordinary size",
                        remedy=_EXPORT_AGAIN,
                    )
            at += length
        self.position = at
        offsets = struct.unpack(
            f"<{len(table or b'') // 4}I", (table or b"")[: len(table or b"") // 4 * 4]
        )
        return PixelData(value_at, at - value_at, vr, tuple(fragments), offsets)

    def _only_padding_left(self, at: int) -> bool:
        """Zero bytes after the last element are padding of a sector, not an element."""
        if self.pixel_data is None:
            return False
        left = self.source.read(at, min(_WINDOW, self.source.size - at))
        return not left.strip(b"\0")

    def _note(self, reason: Reason, words: str) -> None:
        if reason not in self._noted:
            self._noted.add(reason)
            self.findings.append(Defect(reason, words))

    def _bad(self, found: str) -> InputRefused:
        return InputRefused(
            Reason.BAD_ELEMENT, f"{found} (at byte {self.position})", remedy=_EXPORT_AGAIN
        )

    def _truncated(self, found: str) -> InputRefused:
        return InputRefused(
            Reason.TRUNCATED,
            f"{found} (at byte {self.position} of {self.source.size})",
            expected="a whole file",
            remedy="copy or export the file again",
        )

    def _cut_pixels(self, found: str) -> InputRefused:
        return InputRefused(
            Reason.TRUNCATED_PIXELS,
            found,
            expected="all pixels the file declares",
            remedy="copy or export the file again",
        )
