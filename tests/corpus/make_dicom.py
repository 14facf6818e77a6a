"""Damaged, hostile and odd DICOM ultrasound files, made from nothing: the D rows of the corpus.

``python tests/corpus/make_dicom.py OUT`` writes every row to OUT/<id>-<variant>/. Everything is
built byte by byte here, because no DICOM library writes most of it. Nothing is random without a
fixed seed, so two runs give equal bytes.
"""

from __future__ import annotations

import io
import os
import struct
import sys
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image

from renalkit.errors import Reason
from renalkit.readers.contract import Outcome, ReadOptions

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
DEFLATED, BIG = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
JPEG_50, LOSSLESS_70 = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.70"
JLS_80, J2K_90, RLE_5 = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.5"
US_STILL, US_CINE = "1.2.840.10008.5.1.4.1.1.6.1", "1.2.840.10008.5.1.4.1.1.3.1"
ROOT_UID = "1.2.826.0.1.3680043.10.1234"

PLANTED = ("PLANTEDNAME", "PLANTEDID-4711", "19470811", ROOT_UID)
"""Text of the made files that must appear in no message and no study."""

ROWS, COLS = 64, 80
_LONG = ("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV")

Data = dict[int, Any]
"""tag -> (VR, value); value is bytes, or for SQ a list of Data."""


def pad(text: str | bytes, fill: bytes = b" ") -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return raw + fill * (len(raw) % 2)


def us(*numbers: int) -> tuple[str, bytes]:
    return "US", struct.pack(f"<{len(numbers)}H", *numbers)


def ul(number: int) -> tuple[str, bytes]:
    return "UL", struct.pack("<I", number & 0xFFFFFFFF)


def fd(number: float) -> tuple[str, bytes]:
    return "FD", struct.pack("<d", number)


def uid(text: str | bytes) -> tuple[str, bytes]:
    return "UI", pad(text, b"\0")


def cs(text: str | bytes, vr: str = "CS") -> tuple[str, bytes]:
    return vr, pad(text)


def region(
    box: tuple[int, int, int, int] = (8, 6, 71, 55),
    *,
    kind: tuple[int, int] = (1, 1),
    units: int = 3,
    delta: float = 0.02,
) -> Data:
    """One ultrasound region; box are the corners inside, kind is (spatial format, data type)."""
    x0, y0, x1, y1 = box
    return {
        0x00186012: us(kind[0]),
        0x00186014: us(kind[1]),
        0x00186016: ul(0),
        0x00186018: ul(x0),
        0x0018601A: ul(y0),
        0x0018601C: ul(x1),
        0x0018601E: ul(y1),
        0x00186024: us(units),
        0x00186026: us(units),
        0x0018602C: fd(delta),
        0x0018602E: fd(delta),
    }


def picture(rows: int = ROWS, cols: int = COLS, seed: int = 1) -> np.ndarray:
    """A smooth grey picture (rows, cols) with some texture."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:rows, 0:cols]
    smooth = 90 + 60 * np.sin(x / 9.0 + seed) * np.cos(y / 7.0)
    return np.clip(smooth + rng.normal(0, 8, (rows, cols)), 0, 255).astype(np.uint8)


def still(changes: Data | None = None, *, drop: Iterable[int] = ()) -> Data:
    """A valid grey still of 64 x 80 pixels with one calibrated region."""
    data: Data = {
        0x00080005: cs("ISO_IR 100"),
        0x00080016: uid(US_STILL),
        0x00080018: uid(ROOT_UID + ".3"),
        0x00080020: cs("20240105", "DA"),
        0x00080060: cs("US"),
        0x00080070: cs("Maker", "LO"),
        0x00081090: cs("Model 1", "LO"),
        0x00100010: cs("PLANTEDNAME^FIRST", "PN"),
        0x00100020: cs("PLANTEDID-4711", "LO"),
        0x00100030: cs("19470811", "DA"),
        0x00100040: cs("F"),
        0x00101010: cs("076Y", "AS"),
        0x00186011: ("SQ", [region()]),
        0x0020000D: uid(ROOT_UID + ".1"),
        0x0020000E: uid(ROOT_UID + ".2"),
        0x00280002: us(1),
        0x00280004: cs("MONOCHROME2"),
        0x00280010: us(ROWS),
        0x00280011: us(COLS),
        0x00280100: us(8),
        0x00280101: us(8),
        0x00280102: us(7),
        0x00280103: us(0),
        0x7FE00010: ("OB", picture().tobytes()),
    }
    data.update(changes or {})
    for tag in drop:
        data.pop(tag, None)
    return data


def cine(frames: int = 4, changes: Data | None = None, *, drop: Iterable[int] = ()) -> Data:
    """A valid grey cine at 25 frames a second."""
    pixels = b"".join(picture(seed=i).tobytes() for i in range(frames))
    data = still({0x00080016: uid(US_CINE), 0x7FE00010: ("OB", pixels)})
    data[0x00280008] = cs(str(frames), "IS")
    data[0x00181063] = cs("40", "DS")
    data.update(changes or {})
    for tag in drop:
        data.pop(tag, None)
    return data


def colour(photometric: str = "YBR_FULL_422") -> Data:
    return {0x00280002: us(3), 0x00280004: cs(photometric), 0x00280006: us(0)}


_SWAPPED = {"US": 2, "SS": 2, "UL": 4, "SL": 4, "FD": 8, "FL": 4, "OW": 2, "AT": 2}


def element(
    tag: int, vr: str, value: Any, *, explicit: bool = True, big: bool = False, length: int = -1
) -> bytes:
    """One encoded element; length overrides what the head says."""
    order = ">" if big else "<"
    if vr == "SQ":
        items = [encode(item, explicit=explicit, big=big) for item in value]
        head = struct.Struct(order + "HHI")
        value = b"".join(head.pack(0xFFFE, 0xE000, len(item)) + item for item in items)
    elif big and vr in _SWAPPED:
        value = np.frombuffer(value, f"<u{_SWAPPED[vr]}").byteswap().tobytes()
    size = len(value) if length < 0 else length
    head = struct.pack(order + "HH", tag >> 16, tag & 0xFFFF)
    if not explicit:
        return head + struct.pack(order + "I", size) + value
    if vr in _LONG:
        return head + vr.encode() + b"\0\0" + struct.pack(order + "I", size) + value
    return head + vr.encode() + struct.pack(order + "H", size) + value


def encode(data: Data, *, explicit: bool = True, big: bool = False) -> bytes:
    return b"".join(
        element(tag, vr, value, explicit=explicit, big=big) for tag, (vr, value) in data.items()
    )


def ordered(data: Data) -> Data:
    return dict(sorted(data.items()))


def meta(syntax: str, *, group_length: int | None = None, extra: bytes = b"") -> bytes:
    body = element(0x00020001, "OB", b"\0\1")
    body += element(0x00020002, *uid(US_STILL))
    body += element(0x00020003, *uid(ROOT_UID + ".3"))
    if syntax:
        body += element(0x00020010, *uid(syntax))
    body += extra
    size = len(body) if group_length is None else group_length
    return element(0x00020000, *ul(size)) + body


def part10(
    data: Data | bytes, syntax: str = EXPLICIT, *, head: bytes = b"", info: bytes | None = None
) -> bytes:
    """A whole file. data that is bytes is the encoded data set."""
    raw = data
    if isinstance(raw, dict):
        raw = encode(ordered(raw), explicit=syntax != IMPLICIT, big=syntax == BIG)
    if syntax == DEFLATED:
        packer = zlib.compressobj(6, zlib.DEFLATED, -15)
        raw = packer.compress(raw) + packer.flush()
    return head.ljust(128, b"\0")[:128] + b"DICM" + (meta(syntax) if info is None else info) + raw


def fragments(
    parts: list[bytes], *, table: bytes | None = b"", odd: bool = False, end: bool = True
) -> bytes:
    """Encapsulated pixels: offset table (None: a right one), then one item per part."""
    padded = [p if odd else pad(p, b"\0") for p in parts]
    if table is None:
        starts = np.cumsum([0, *(len(p) + 8 for p in padded[:-1])])
        table = struct.pack(f"<{len(starts)}I", *(int(s) for s in starts))
    raw = struct.pack("<HHI", 0xFFFE, 0xE000, len(table)) + table
    raw += b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(p)) + p for p in padded)
    return raw + (struct.pack("<HHI", 0xFFFE, 0xE0DD, 0) if end else b"")


def encapsulated(data: Data, syntax: str, payload: bytes) -> bytes:
    """A whole file whose pixels are already encoded by `fragments`."""
    rest = {tag: value for tag, value in data.items() if tag != 0x7FE00010}
    tail = struct.pack("<HH", 0x7FE0, 0x0010) + b"OB\0\0\xff\xff\xff\xff" + payload
    return part10(encode(ordered(rest)) + tail, syntax)


def jpeg(frame: np.ndarray, *, quality: int = 90, subsampling: int = 1) -> bytes:
    """JPEG baseline; subsampling 0 is 4:4:4, 1 is 4:2:2."""
    out = io.BytesIO()
    options = {"subsampling": subsampling} if frame.ndim == 3 else {}
    Image.fromarray(frame).save(out, "JPEG", quality=quality, **options)
    return out.getvalue()


def j2k(frame: np.ndarray) -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(frame, codecformat="j2k", level=0))


def jls(frame: np.ndarray) -> bytes:
    return bytes(imagecodecs.jpegls_encode(frame))


def lossless(frame: np.ndarray) -> bytes:
    return bytes(imagecodecs.ljpeg_encode(frame))


def _pack_bits(raw: bytes) -> bytes:
    """RLE of one byte plane: runs where a value repeats, literals elsewhere."""
    out, at = bytearray(), 0
    while at < len(raw):
        run = 1
        while run < 128 and at + run < len(raw) and raw[at + run] == raw[at]:
            run += 1
        if run > 2:
            out += bytes([257 - run, raw[at]])
            at += run
            continue
        stop = at + 1
        while (
            stop < len(raw) and stop - at < 128 and raw[stop - 1 : stop] * 2 != raw[stop : stop + 2]
        ):
            stop += 1
        out += bytes([stop - at - 1]) + raw[at:stop]
        at = stop
    return bytes(pad(bytes(out), b"\0"))


def rle(frame: np.ndarray) -> bytes:
    """One frame (H,W) or (H,W,3), 8 or 16 bit, as PS3.5 annex G has it."""
    samples = [frame] if frame.ndim == 2 else [frame[..., i] for i in range(3)]
    planes: list[bytes] = []
    for sample in samples:
        raw = np.ascontiguousarray(sample.astype(sample.dtype.newbyteorder(">"))).view(np.uint8)
        step = sample.dtype.itemsize
        planes += [raw.reshape(-1)[i::step].tobytes() for i in range(step)]
    packed = [_pack_bits(plane) for plane in planes]
    starts = np.cumsum([64, *(len(p) for p in packed[:-1])]).tolist()
    head = struct.pack("<16I", len(packed), *starts, *([0] * (15 - len(packed))))
    return head + b"".join(packed)


@dataclass(frozen=True, slots=True)
class Row:
    """One variant of a corpus row: what `build` writes to a folder, and what must become of it.

    expected: (outcome, one of the reasons) per file in the order of the paths; None as reason for
    a file that is used without any.
    """

    id: str
    variant: str
    expected: tuple[tuple[Outcome, Reason | None], ...]
    build: Callable[[Path], None]
    options: ReadOptions = ReadOptions()
    patient: str | None = None

    @property
    def name(self) -> str:
        return f"{self.id}-{self.variant}"


_ROWS: list[Row] = []
_USED: tuple[Outcome, Reason | None] = (Outcome.USED, None)
KEEP = ReadOptions(keep_pixels=True)


def refused(reason: Reason) -> tuple[Outcome, Reason | None]:
    return Outcome.REFUSED, reason


def warned(reason: Reason) -> tuple[Outcome, Reason | None]:
    return Outcome.WARNED, reason


def skipped(reason: Reason) -> tuple[Outcome, Reason | None]:
    return Outcome.SKIPPED, reason


def row(
    name: str,
    expected: tuple[Outcome, Reason | None] | list[tuple[Outcome, Reason | None]],
    content: bytes | Callable[[], bytes] | list[bytes],
    **more: Any,
) -> None:
    """Add a row of one or more files; large contents are given as functions and made late."""
    code, _, variant = name.partition(" ")

    def build(folder: Path) -> None:
        made = content() if callable(content) else content
        for number, raw in enumerate([made] if isinstance(made, bytes) else made):
            (folder / f"{number:02d}.dcm").write_bytes(raw)

    wanted = tuple(expected) if isinstance(expected, list) else (expected,)
    _ROWS.append(Row(code, variant.replace(" ", "-"), wanted, build, **more))


def folder_row(
    name: str,
    expected: list[tuple[Outcome, Reason | None]],
    build: Callable[[Path], None],
    **more: Any,
) -> None:
    code, _, variant = name.partition(" ")
    _ROWS.append(Row(code, variant.replace(" ", "-"), tuple(expected), build, **more))


def _length_bomb(vr: str, length: int) -> bytes:
    head = encode(ordered(still(drop=[0x7FE00010, 0x00186011])))[:140]
    head = encode({0x00080016: uid(US_STILL), 0x00080060: cs("US")})
    return part10(head + element(0x00090010, vr, b"", length=length))


def _deep(levels: int) -> bytes:
    opening = struct.pack("<HH", 0x0040, 0xA730) + b"SQ\0\0\xff\xff\xff\xff"
    opening += struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    return part10(encode({0x00080016: uid(US_STILL)}) + opening * levels)


def _many_elements() -> bytes:
    one = np.zeros(200_000, dtype="<u2,<u2,S2,<u2")
    one["f0"], one["f1"] = 0x0009, (np.arange(200_000) % 0xF000) + 0x1000
    one["f2"] = b"SH"
    return part10(encode({0x00080016: uid(US_STILL)}) + one.tobytes())


def _inflate_bomb() -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = encode({0x00080016: uid(US_STILL)})
    start += element(0x7FE00010, "OB", b"", length=300 << 20)
    body = packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH)
    # After a full flush a block depends on nothing before it, so one serves three hundred times.
    body += (packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)) * 300
    return bytes(128) + b"DICM" + meta(DEFLATED) + body + packer.flush()


def _whole_file_rows() -> None:
    good = part10(still())
    row("D00 plain still", _USED, good)
    row("D00 plain cine", _USED, part10(cine()))
    row("D01 empty", refused(Reason.EMPTY), b"")
    row("D02 preamble only", refused(Reason.NO_TRANSFER_SYNTAX), bytes(128) + b"DICM")
    row(
        "D02 meta without syntax",
        refused(Reason.NO_TRANSFER_SYNTAX),
        part10(still(), info=meta("")),
    )
    row("D03 cut in meta", refused(Reason.TRUNCATED), good[:170])
    row("D04 cut in dataset", refused(Reason.TRUNCATED), good[:700])
    row("D04 cut between elements", refused(Reason.TRUNCATED), part10(still(drop=[0x7FE00010])))
    row("D05 element shorter", refused(Reason.TRUNCATED_PIXELS), good[:-1000])
    short = still({0x7FE00010: ("OB", picture().tobytes()[:-1000])})
    row("D05 consistent length", refused(Reason.TRUNCATED_PIXELS), part10(short))
    row("D06 long", refused(Reason.LENGTH_EXCEEDS_FILE), _length_bomb("OB", 0xFFFFFFFE))
    row("D07 long text", refused(Reason.LENGTH_EXCEEDS_FILE), _length_bomb("UT", 0x7FFFFFFE))
    lying = meta(EXPLICIT, group_length=0xFFFFFFF0)
    row("D08 meta length", warned(Reason.META_LENGTH), part10(still(), info=lying))
    bare = encode(ordered(still()))
    row("D09 headerless", refused(Reason.HEADERLESS), bare)
    allowed = ReadOptions(allow_headerless=True)
    row("D09 headerless allowed", warned(Reason.HEADERLESS), bare, options=allowed)
    row("D09 with meta allowed", warned(Reason.HEADERLESS), meta(EXPLICIT) + bare, options=allowed)
    random = np.random.default_rng(10).integers(0, 256, 4096, np.uint8).tobytes()
    row("D10 random", refused(Reason.NOT_DICOM), random)
    row("D10 html", refused(Reason.NOT_DICOM), b"<!DOCTYPE html><html>" + b" " * 300)
    row("D10 pdf", refused(Reason.NOT_DICOM), b"%PDF-1.7\n" + b" " * 300)
    row("D11 200000 elements", refused(Reason.TOO_MANY_ELEMENTS), _many_elements)
    row("D12 5000 deep", refused(Reason.TOO_DEEP), lambda: _deep(5000))
    row("D12 200000 deep", refused(Reason.TOO_DEEP), lambda: _deep(200_000))
    row("D12 32 deep", refused(Reason.TRUNCATED), _deep(32))
    row("D12 33 deep", refused(Reason.TOO_DEEP), _deep(33))
    row("D13 bomb", refused(Reason.INFLATE_LIMIT), _inflate_bomb)
    deflated = part10(still(), DEFLATED)
    row("D13 ordinary", _USED, deflated)
    row("D14 truncated", refused(Reason.TRUNCATED), deflated[:-200])
    row("D14 trailing", refused(Reason.BAD_ELEMENT), deflated + b"garbage behind")
    open_sequence = struct.pack("<HH", 0x0040, 0xA730) + b"SQ\0\0\xff\xff\xff\xff"
    row("D15 open sequence", refused(Reason.TRUNCATED), part10(bare + open_sequence))
    twice = bare + element(0x7FE00010, "OB", picture(seed=9).tobytes())
    row("D16 pixels twice", warned(Reason.DUPLICATE_ELEMENT), part10(twice))
    disordered = dict(reversed(list(still().items())))
    row("D16 out of order", warned(Reason.BAD_ELEMENT), part10(encode(disordered)))
    swap = Reason.WRONG_TRANSFER_SYNTAX
    row("D17 says implicit", warned(swap), part10(bare, info=meta(IMPLICIT)))
    implicit = encode(ordered(still()), explicit=False)
    row("D17 says explicit", warned(swap), part10(implicit, info=meta(EXPLICIT)))
    row("D17 neither", refused(swap), part10(bare[:60] + implicit, info=meta(IMPLICIT)))
    unknown = part10(still(), info=meta("1.2.840.10008.1.9.9"))
    row("D18 unknown syntax", refused(Reason.UNSUPPORTED_TRANSFER_SYNTAX), unknown)
    odd_vr = meta(EXPLICIT, extra=struct.pack("<HH", 2, 0x16) + b"ZZ\2\0ab")
    row("D19 meta vr", refused(Reason.BAD_ELEMENT), part10(still(), info=odd_vr))
    bad_vr = bare[:24] + struct.pack("<HH", 0x0008, 0x0017) + b"\xff\xfe\2\0ab"
    row(
        "D19 dataset vr",
        refused(Reason.BAD_ELEMENT),
        part10(encode({0x00080005: cs("ISO_IR 100")}) + bad_vr[24:] + bare),
    )
    row("D00 implicit", _USED, part10(still(), IMPLICIT))
    row("D00 big endian", _USED, part10(still(), BIG))
    words = still({0x7FE00010: ("OW", picture().tobytes())})
    row("D00 big endian words", _USED, part10(words, BIG))
    row("D00 sector padding", _USED, part10(still()) + bytes(700))


def _identity_rows() -> None:
    bad = refused(Reason.BAD_UID)
    row("D20 instance path", bad, part10(still({0x00080018: uid("../../../../tmp/pwn")})))
    row("D20 study dots", bad, part10(still({0x0020000D: uid("..")})))
    row("D20 series path", bad, part10(still({0x0020000E: uid("/etc/cron.d/x")})))
    row("D21 nul", bad, part10(still({0x00080018: uid(b"1.2.3\0/../x")})))
    row("D22 long", bad, part10(still({0x00080018: uid("1." * 1499 + "12")})))
    row("D22 empty", bad, part10(still({0x00080018: uid("")})))
    row("D22 dots", bad, part10(still({0x00080018: uid("....")})))
    row("D22 65 long", bad, part10(still({0x00080018: uid("1" * 65)})))
    row("D22 64 long", _USED, part10(still({0x00080018: uid("1" * 64)})))
    zero = still({0x00080018: uid("1.2.03.4")})
    row("D22 leading zero", warned(Reason.BAD_UID), part10(zero))
    other = part10(still({0x7FE00010: ("OB", picture(seed=5).tobytes())}))
    row("D23 collision", [_USED, refused(Reason.UID_COLLISION)], [part10(still()), other])
    same = part10(still())
    row("D23 copy", [_USED, skipped(Reason.DUPLICATE_FILE)], [same, same])
    for variant, name in (("dots", "..\\..\\etc\\passwd"), ("absolute", "\\etc\\passwd")):
        record = {0x00041430: cs("IMAGE"), 0x00041500: cs(name)}
        directory = encode({0x00041130: cs("SET"), 0x00041220: ("SQ", [record])})
        info = element(0x00020002, *uid("1.2.840.10008.1.3.10"))
        info += element(0x00020010, *uid(EXPLICIT))
        info = element(0x00020000, *ul(len(info))) + info
        raw = part10(directory, info=info)
        row(f"D24 {variant}", skipped(Reason.DICOMDIR_IGNORED), raw)
    foreign = warned(Reason.FOREIGN_PREAMBLE)
    row("D25 mz", foreign, part10(still(), head=b"MZ\x90"))
    for variant, head in (("elf", b"\x7fELF"), ("shell", b"#!/bin/sh\n"), ("zip", b"PK\3\4")):
        row(f"D26 {variant}", foreign, part10(still(), head=head))
    row("D26 macho", foreign, part10(still(), head=b"\xcf\xfa\xed\xfe"))
    row("D27 tiff", _USED, part10(still(), head=b"II*\0\x08\0\0\0"))
    nobody = refused(Reason.NO_PATIENT)
    row("D57 missing", nobody, part10(still(drop=[0x00100020])))
    for variant, text in (
        ("empty", ""),
        ("spaces", "    "),
        ("anonymous", "ANONYMOUS"),
        ("zeros", "0000"),
    ):
        row(f"D57 {variant}", nobody, part10(still({0x00100020: cs(text, "LO")})))
    row("D57 mapped", _USED, part10(still(drop=[0x00100020])), patient="row 12 of the table")
    conflict = warned(Reason.IDENTITY_CONFLICT)
    second = {0x00080018: uid(ROOT_UID + ".4"), 0x0020000D: uid(ROOT_UID + ".5")}
    births = still(second | {0x00100030: cs("19500101", "DA")})
    row("D58 two births", [conflict] * 2, [part10(still()), part10(births)])
    sexes = still(second | {0x00100040: cs("M")})
    row("D58 two sexes", [conflict] * 2, [part10(still()), part10(sexes)])
    seven = part10(still({0x00100020: cs("7", "LO")}))
    for variant, text in (("zeros", "007"), ("space", " 7"), ("wide", "７")):
        pair = [seven, part10(still(second | {0x00100020: cs(text, "LO")}))]
        row(f"D58 {variant}", [conflict] * 2, pair)
    row("D58 one patient", [_USED] * 2, [part10(still()), part10(still(second))])
    nulled = warned(Reason.FIELD_NULLED)
    row("D53 study date", nulled, part10(still({0x00080020: cs("99999999", "DA")})))
    row("D53 birth text", nulled, part10(still({0x00100030: cs("in spring", "DA")})))
    row("D53 age", nulled, part10(still({0x00101010: cs("-12X", "AS")})))
    row("D53 sex", nulled, part10(still({0x00100040: cs("FEMALE!")})))
    charset = warned(Reason.CHARSET)
    row("D54 path", charset, part10(still({0x00080005: cs("../../evil")})))
    wrong = {
        0x00080005: cs("ISO_IR 192"),
        0x00100010: cs("王".encode("gb18030") + b"^PLANTEDNAME", "PN"),
    }
    row("D54 wrong charset", charset, part10(still(wrong)))
    mixed = {0x00080005: cs("\\ISO 2022 IR 87"), 0x00100010: cs(b"X^\x1b$B;3ED\x1b(B", "PN")}
    row("D54 mixed iso 2022", _USED, part10(still(mixed)))
    names = {
        "escape": b"PLANTEDNAME\x1b[2J^A",
        "log line": b"PLANTEDNAME\r\n2026-01-01 INFO all fine",
        "bidi": "PLANTEDNAME\u202egnp.exe".encode(),
        "64k": b"PLANTEDNAME" + b"x" * 65000,
    }
    for variant, name in names.items():
        changed = {0x00080005: cs("ISO_IR 192"), 0x00100010: cs(name, "PN")}
        row(f"D55 {variant}", _USED, part10(still(changed)))
    row("D56 html", _USED, part10(still({0x00100010: cs("<img src=x onerror=alert(1)>", "PN")})))
    row("D56 formula", _USED, part10(still({0x00100020: cs("=cmd|' /C calc'!A0", "LO")})))


def _description_rows() -> None:
    size, bad = refused(Reason.TOO_LARGE), refused(Reason.BAD_PIXEL_DESCRIPTION)
    row("D30 65535", size, part10(still({0x00280010: us(65535), 0x00280011: us(65535)})))
    row("D30 8193", size, part10(still({0x00280010: us(8193)})))
    row("D30 8192", refused(Reason.TRUNCATED_PIXELS), part10(still({0x00280010: us(8192)})))
    row("D30 15", refused(Reason.TOO_SMALL), part10(still({0x00280010: us(15)})))
    row("D30 16", warned(Reason.DIMS_MISMATCH), part10(still({0x00280010: us(16)})))
    row("D31 frames", size, part10(cine(changes={0x00280008: cs("2147483647", "IS")})))
    row("D31 20001", size, part10(cine(changes={0x00280008: cs("20001", "IS")})))
    row(
        "D31 20000",
        refused(Reason.TRUNCATED_PIXELS),
        part10(cine(changes={0x00280008: cs("20000", "IS")})),
    )
    for text in ("-1", "0", "abc", "1e3"):
        raw = part10(cine(changes={0x00280008: cs(text, "IS")}))
        row(f"D32 {text}", refused(Reason.BAD_FRAMES), raw)
    row("D33 zero", bad, part10(still({0x00280010: us(0)})))
    row("D33 missing", bad, part10(still(drop=[0x00280010])))
    row("D33 ul", bad, part10(still({0x00280010: ul(ROWS)})))
    row("D34 allocated 0", bad, part10(still({0x00280100: us(0)})))
    row("D34 allocated 7", bad, part10(still({0x00280100: us(7)})))
    row("D34 stored 16 of 8", bad, part10(still({0x00280101: us(16)})))
    row("D34 high bit", bad, part10(still({0x00280102: us(3)})))
    for samples in (65535, 2, 4):
        row(f"D35 {samples}", bad, part10(still({0x00280002: us(samples)})))
    row("D36 hack", bad, part10(still({0x00280004: cs("HACK")})))
    row("D36 rgb of one", bad, part10(still({0x00280004: cs("RGB")})))
    odd = colour() | {0x00280011: us(79), 0x7FE00010: ("OB", bytes(64 * 79 * 2))}
    row("D36 422 odd width", bad, part10(still(odd)))
    index = np.minimum(picture() // 4, 63)
    table = struct.pack("<64H", *range(0, 65536, 1024))
    palette = {0x00280004: cs("PALETTE COLOR"), 0x7FE00010: ("OB", index.tobytes())}
    for channel in range(3):
        palette[0x00281101 + channel] = us(64, 0, 16)
        palette[0x00281201 + channel] = ("OW", table)
    row("D37 ordinary", _USED, part10(still(palette)))
    row("D37 big endian", _USED, part10(still(palette), BIG))
    lut = refused(Reason.BAD_PALETTE)
    beyond = palette | {
        0x7FE00010: ("OB", np.where(index == index.max(), 64, index).astype(np.uint8).tobytes())
    }
    row("D37 index beyond", lut, part10(still(beyond)))
    full = {0x00281101 + channel: us(0, 0, 16) for channel in range(3)}
    row("D37 65536 entries short", lut, part10(still(palette | full)))
    row("D37 data short", lut, part10(still(palette | {0x00281202: ("OW", table[:60])})))
    row("D37 no data", lut, part10(still(palette, drop=[0x00281203])))
    row("D37 descriptor", lut, part10(still(palette | {0x00281101: us(64, 0)})))
    inverted = still({0x00280004: cs("MONOCHROME1")})
    row("D00 monochrome1", _USED, part10(inverted))
    scale = warned(Reason.NO_SCALE)
    row("D50 delta zero", scale, part10(still({0x00186011: ("SQ", [region(delta=0.0)])})))
    row("D50 delta nan", scale, part10(still({0x00186011: ("SQ", [region(delta=float("nan"))])})))
    huge = region((8, 6, 4294967295, 4294967295))
    row("D50 box beyond", scale, part10(still({0x00186011: ("SQ", [huge])})))
    row("D50 units", scale, part10(still({0x00186011: ("SQ", [region(units=0)])})))
    for variant, text in (
        ("zero", "0\\0"),
        ("nan", "NaN\\1"),
        ("negative", "-1\\-1"),
        ("one", "0.2"),
    ):
        changed = still({0x00280030: cs(text, "DS")}, drop=[0x00186011])
        row(f"D50 spacing {variant}", scale, part10(changed), options=KEEP)
    no_regions = part10(still(drop=[0x00186011]))
    row("D50 no regions", refused(Reason.NO_REGIONS), no_regions)
    row("D50 no regions kept", warned(Reason.NO_REGIONS), no_regions, options=KEEP)
    rescale = warned(Reason.BAD_RESCALE)
    for variant, text in (("nan", "NaN"), ("zero", "0"), ("tiny", "1e-300"), ("text", "steep")):
        row(f"D51 slope {variant}", rescale, part10(still({0x00281053: cs(text, "DS")})))
    window = warned(Reason.BAD_WINDOW)
    row("D52 width 0", window, part10(still({0x00281051: cs("0", "DS")})))
    row("D52 width negative", window, part10(still({0x00281051: cs("-5", "DS")})))
    empty_lut = {0x00283002: us(0, 0, 16), 0x00283006: ("OW", b"")}
    row("D52 voi lut", window, part10(still({0x00283010: ("SQ", [empty_lut])})))
    row("D52 modality lut", window, part10(still({0x00283000: ("SQ", [empty_lut])})))


def _compressed_rows() -> None:
    grey, bot = picture(), None
    mismatch, fragment = refused(Reason.DIMS_MISMATCH), Reason.FRAGMENTS_MISMATCH
    for name, code, syntax in (
        ("jpeg", jpeg, JPEG_50),
        ("lossless", lossless, LOSSLESS_70),
        ("jpeg ls", jls, JLS_80),
        ("jpeg 2000", j2k, J2K_90),
        ("rle", rle, RLE_5),
    ):
        row(f"D00 {name}", _USED, encapsulated(still(), syntax, fragments([code(grey)])))
    coloured = np.stack([grey, grey[::-1], grey[:, ::-1]], -1)
    tinted = still(colour())
    row("D00 jpeg colour", _USED, encapsulated(tinted, JPEG_50, fragments([jpeg(coloured)])))
    large = still({0x00280010: us(6000), 0x00280011: us(6000)})
    wide = picture(1024, 256)
    row("D38 header smaller", mismatch, encapsulated(large, J2K_90, fragments([j2k(wide)])))
    row(
        "D39 header larger",
        mismatch,
        encapsulated(still(), J2K_90, fragments([j2k(picture(72, 88))])),
    )
    row(
        "D39 jpeg larger",
        mismatch,
        encapsulated(still(), JPEG_50, fragments([jpeg(picture(72, 88))])),
    )
    row(
        "D39 three components",
        mismatch,
        encapsulated(still(), JPEG_50, fragments([jpeg(coloured)])),
    )
    tiny = struct.pack("<16I", 1, 64, *([0] * 14)) + bytes(20)
    vast = still({0x00280010: us(8000), 0x00280011: us(8000)})
    row(
        "D40 rle bomb",
        refused(Reason.TRUNCATED_PIXELS),
        encapsulated(vast, RLE_5, fragments([tiny])),
    )
    vaster = still({0x00280010: us(30000), 0x00280011: us(30000)})
    row("D40 rle 30000", refused(Reason.TOO_LARGE), encapsulated(vaster, RLE_5, fragments([tiny])))
    for frames, expected in ((10**6, refused(Reason.TOO_LARGE)), (1000, refused(fragment))):
        many = cine(changes={0x00280008: cs(str(frames), "IS")})
        row(f"D41 {frames} frames", expected, encapsulated(many, RLE_5, fragments([tiny])))
    segments = struct.pack("<16I", 15, *([0xFFFFFFFF] * 15)) + bytes(64)
    codec = refused(Reason.CODEC_ERROR)
    row("D42 rle segments", codec, encapsulated(still(), RLE_5, fragments([segments])))
    row("D43 jpeg cut", codec, encapsulated(still(), JPEG_50, fragments([jpeg(grey)[:-400]])))
    row("D43 jpeg is html", codec, encapsulated(still(), JPEG_50, fragments([b"<html></html>"])))
    garbage = j2k(grey)[:120] + np.random.default_rng(3).integers(0, 256, 900, np.uint8).tobytes()
    row("D43 j2k garbage", codec, encapsulated(still(), J2K_90, fragments([garbage[:60]])))
    row("D43 jls cut", codec, encapsulated(still(), JLS_80, fragments([jls(grey)[:400]])))
    row("D43 lossless empty", codec, encapsulated(still(), LOSSLESS_70, fragments([b"\xff\xd8"])))
    movie = cine(3)
    frames = [jpeg(picture(seed=i)) for i in range(3)]
    row("D44 right table", _USED, encapsulated(movie, JPEG_50, fragments(frames, table=bot)))
    row("D44 empty table", _USED, encapsulated(movie, JPEG_50, fragments(frames)))
    wrong = struct.pack("<3I", 0, 7, 99)
    row(
        "D44 wrong table",
        warned(fragment),
        encapsulated(movie, JPEG_50, fragments(frames, table=wrong)),
    )
    split = [piece for f in frames for piece in (f[:500], f[500:])]
    row("D44 fragmented", _USED, encapsulated(movie, JPEG_50, fragments(split)))
    lost = fragments(
        [rle(picture(seed=i))[half : half + 3000] for i in range(3) for half in (0, 3000)]
    )
    row("D44 rle fragmented", refused(fragment), encapsulated(movie, RLE_5, lost))
    overflow = movie | {0x7FE00001: ("OV", struct.pack("<3Q", 0, 2**63, 2**64 - 1))}
    raw = encapsulated(overflow, JPEG_50, fragments(frames))
    row("D44 extended table overflow", warned(fragment), raw)
    odd = [f + b"\0" * (1 - len(f) % 2) for f in frames]
    row("D44 odd length", warned(fragment), encapsulated(movie, JPEG_50, fragments(odd, odd=True)))
    row(
        "D44 no end mark",
        warned(fragment),
        encapsulated(movie, JPEG_50, fragments(frames, end=False)),
    )
    cut = encapsulated(movie, JPEG_50, fragments(frames, end=False))[:-300]
    row("D44 last fragment cut", refused(Reason.TRUNCATED_PIXELS), cut)
    stream = j2k(grey)
    inside = stream[:-200] + b"\xfe\xff\xdd\xe0\0\0\0\0" + stream[-192:]
    pieces = b"".join(
        (struct.pack("<HHI", 0xFFFE, 0xE000, 0), struct.pack("<HHI", 0xFFFE, 0xE000, 9000), inside)
    )
    row(
        "D45 delimiter inside",
        refused(Reason.TRUNCATED_PIXELS),
        encapsulated(still(), J2K_90, pieces),
    )
    signed = still({0x00280103: us(1)})
    row("D47 sign mismatch", _USED, encapsulated(signed, J2K_90, fragments([j2k(grey)])))
    other = [frames[0], jpeg(picture(72, 88)), frames[2]]
    row(
        "D48 size change",
        warned(Reason.DIMS_MISMATCH),
        encapsulated(movie, JPEG_50, fragments(other)),
    )
    black = [jpeg(np.zeros_like(grey)), *frames[1:]]
    row(
        "D48 first black",
        warned(Reason.CONSTANT_IMAGE),
        encapsulated(movie, JPEG_50, fragments(black)),
    )
    last = [*frames[:2], frames[2][:-300]]
    row("D48 last cut", warned(Reason.CODEC_ERROR), encapsulated(movie, JPEG_50, fragments(last)))
    all_black = still({0x7FE00010: ("OB", bytes(ROWS * COLS))})
    row("D48 all black", refused(Reason.CONSTANT_IMAGE), part10(all_black))


def _layout_rows() -> None:
    others = {
        "sr": ("SR", "1.2.840.10008.5.1.4.1.1.88.33"),
        "pr": ("PR", "1.2.840.10008.5.1.4.1.1.11.1"),
        "ko": ("KO", "1.2.840.10008.5.1.4.1.1.88.59"),
        "seg": ("SEG", "1.2.840.10008.5.1.4.1.1.66.4"),
        "rtstruct": ("RTSTRUCT", "1.2.840.10008.5.1.4.1.1.481.3"),
    }
    no_object = skipped(Reason.NOT_AN_IMAGE_OBJECT)
    for variant, (modality, sop_class) in others.items():
        changed = still({0x00080060: cs(modality), 0x00080016: uid(sop_class)}, drop=[0x7FE00010])
        row(f"D59 {variant}", no_object, part10(changed))
    pdf = still({0x00080016: uid("1.2.840.10008.5.1.4.1.1.104.1")}, drop=[0x7FE00010])
    pdf[0x00420011] = ("OB", b"%PDF-1.7 " + bytes(17 << 20) + b" ")
    row("D59 pdf", no_object, lambda: part10(pdf))
    unknown = refused(Reason.LAYOUT_UNKNOWN)
    left, right = region((4, 6, 39, 55)), region((40, 6, 75, 55))
    row("D60 dual", _USED, part10(still({0x00186011: ("SQ", [left, right])})))
    flow = region(kind=(1, 2))
    row("D60 colour doppler", _USED, part10(still({0x00186011: ("SQ", [region(), flow])})))
    row("D60 bodymark", _USED, part10(still({0x00186011: ("SQ", [region(kind=(5, 0)), region()])})))
    m_mode = region(kind=(2, 1))
    row("D60 m mode only", unknown, part10(still({0x00186011: ("SQ", [m_mode])})))
    inset = region((30, 20, 60, 50))
    row("D60 inset", unknown, part10(still({0x00186011: ("SQ", [region(), inset])})))
    volume = still({0x00080016: uid("1.2.840.10008.5.1.4.1.1.6.2")})
    row("D60 volume", unknown, part10(volume))
    capture = still({0x00080016: uid("1.2.840.10008.5.1.4.1.1.7")}, drop=[0x00186011])
    row("D60 screenshot", unknown, part10(capture))
    row("D60 screenshot kept", warned(Reason.LAYOUT_UNKNOWN), part10(capture), options=KEEP)
    timing = warned(Reason.NO_TIMING)
    row("D61 missing", timing, part10(cine(drop=[0x00181063])))
    vector = {0x00181065: cs("0\\40\\40", "DS")}
    row("D61 vector length", timing, part10(cine(changes=vector)))
    row("D61 zero", timing, part10(cine(changes={0x00181063: cs("0", "DS")})))
    row("D61 negative", timing, part10(cine(changes={0x00181063: cs("-40", "DS")})))
    row("D61 text", timing, part10(cine(changes={0x00181063: cs("slow", "DS")})))
    rate = cine(changes={0x00180040: cs("25", "IS")}, drop=[0x00181063])
    row("D61 cine rate", _USED, part10(rate))
    display = cine(changes={0x00082144: cs("25", "IS")}, drop=[0x00181063])
    row("D61 display rate", timing, part10(display))
    ct = still({0x00080016: uid("1.2.840.10008.5.1.4.1.1.2"), 0x00080060: cs("CT")})
    row("D62 ct", refused(Reason.NOT_ULTRASOUND), part10(ct))


def _folder_rows() -> None:
    special, good = skipped(Reason.SPECIAL_FILE), part10(still())

    def fifo(folder: Path) -> None:
        os.mkfifo(folder / "00.dcm")
        (folder / "01.dcm").write_bytes(good)

    def loop(folder: Path) -> None:
        (folder / "00.dcm").write_bytes(good)
        (folder / "10").mkdir()
        (folder / "10" / "up").symlink_to(folder, target_is_directory=True)
        (folder / "20").symlink_to("20")

    def device(folder: Path) -> None:
        (folder / "00.dcm").symlink_to("/dev/zero")
        (folder / "01.dcm").write_bytes(good)

    def outside(folder: Path) -> None:
        (folder / "00").symlink_to("/proc", target_is_directory=True)
        (folder / "01.dcm").write_bytes(good)

    def long_path(folder: Path) -> None:
        deep = folder
        while len(str(deep)) < 3800:
            deep = deep / ("d" * 200)
            deep.mkdir()
        (deep / "00.dcm").write_bytes(good)

    def raw_name(folder: Path) -> None:
        Path(os.fsdecode(os.fsencode(folder) + b"/na\xefve \x1b[2J.dcm")).write_bytes(good)

    folder_row("D63 fifo", [special, _USED], fifo)
    folder_row("D63 link loop", [_USED, special, special], loop)
    folder_row("D63 device", [special, _USED], device)
    folder_row("D63 link outside", [special, _USED], outside)
    folder_row("D63 long path", [_USED], long_path)
    folder_row("D63 raw name", [_USED], raw_name)


for _add in (
    *(_whole_file_rows, _identity_rows, _description_rows),
    *(_compressed_rows, _layout_rows, _folder_rows),
):
    _add()

DICOM_ROWS: tuple[Row, ...] = tuple(_ROWS)


def main(arguments: list[str]) -> int:
    """Write every row below the folder given."""
    if len(arguments) != 1:
        print("usage: make_dicom.py OUT", file=sys.stderr)
        return 2
    for one in DICOM_ROWS:
        folder = Path(arguments[0]) / one.name
        folder.mkdir(parents=True)
        one.build(folder)
    print(f"{len(DICOM_ROWS)} rows")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
