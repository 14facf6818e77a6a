"""What does a picture file declare about itself, and do its bytes keep the promise?

The formats are recognised by content. Everything here reads headers and counts bytes; no pixel is
decoded and nothing is allocated by a declared size, so a file that lies is refused first.

Formats: PNG (ISO/IEC 15948), JPEG (ITU-T T.81), TIFF 6.0, BMP (version 3 headers and later).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from renalkit.errors import DecodeFailed, Reason
from renalkit.readers.contract import Limits

TEXT_BYTES = 1 << 20
"""Largest inflated text or profile chunk; real ones are a few kilobytes."""

_PNG = b"\x89PNG\r\n\x1a\n"
_REMEDY = "export the picture again as PNG, 8 or 16 bits"
_PIECE = 1 << 16


@dataclass(frozen=True, slots=True)
class Header:
    """What a picture declares: format name, size, samples per pixel as stored, bits per sample.

    palette: samples are indices of a colour table. alpha: a transparency sample or table exists.
    orientation: the TIFF/EXIF code 1..8 where the header itself states it (TIFF only).
    """

    format: str
    rows: int
    cols: int
    samples: int
    bits: int
    palette: bool = False
    alpha: bool = False
    orientation: int = 1

    @property
    def decoded_bytes(self) -> int:
        """Bytes of the decoded picture; a palette becomes three samples."""
        samples = 3 if self.palette else self.samples
        return self.rows * self.cols * samples * (2 if self.bits > 8 else 1)


def refused(reason: Reason, found: str, expected: str = "", remedy: str = _REMEDY) -> DecodeFailed:
    """The error of a picture that cannot be used; it names no file, the caller knows which."""
    return DecodeFailed(reason, found, expected=expected, remedy=remedy)


_FOREIGN = (
    (b"GIF8", "GIF"),
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"%PDF", "PDF"),
    (b"8BPS", "Photoshop"),
    (b"II+\0", "BigTIFF"),
    (b"MM\0+", "BigTIFF"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\xff\x0a", "JPEG XL"),
    (b"qoif", "QOI"),
    (b"\x1f\x8b", "gzip"),
    (b"PK\x03\x04", "zip"),
)


def check_size(rows: int, cols: int, decoded_bytes: int, limits: Limits) -> None:
    """Raises DecodeFailed (TOO_SMALL, TOO_LARGE) for a declared size outside the limits."""
    words = f"{rows} x {cols} pixels"
    if min(rows, cols) < limits.min_side_px:
        raise refused(
            Reason.TOO_SMALL, words, f"at least {limits.min_side_px} pixels on each side",
            "leave thumbnails out",
        )  # fmt: skip
    if max(rows, cols) > limits.max_side_px or decoded_bytes > limits.decoded_bytes:
        raise refused(
            Reason.TOO_LARGE,
            words,
            f"at most {limits.max_side_px} pixels on a side and {limits.decoded_bytes} bytes",
            "export single pictures",
        )


def read_header(data: bytes, limits: Limits) -> Header:
    """The checked declaration of a PNG, JPEG, TIFF or BMP file given as bytes.

    Raises DecodeFailed: EMPTY, NOT_AN_IMAGE, FORMAT_REFUSED (a known format we do not take),
    TOO_SMALL, TOO_LARGE (before anything is inflated), TRUNCATED, TRUNCATED_PIXELS, CODEC_ERROR,
    ANIMATED, DECOMPRESSION_BOMB.
    """
    if not data:
        raise refused(Reason.EMPTY, "empty file", remedy="copy the file again")
    if data.startswith(_PNG):
        return _png(data, limits)
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg(data, limits)
    if data[:4] in (b"II*\0", b"MM\0*"):
        return _tiff(data, limits)
    if data.startswith(b"BM") and len(data) >= 18:
        return _bmp(data, limits)
    for magic, name in _FOREIGN:
        if data.startswith(magic):
            raise refused(Reason.FORMAT_REFUSED, f"{name} file", "PNG, JPEG, TIFF or BMP")
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        raise refused(Reason.FORMAT_REFUSED, "WebP file", "PNG, JPEG, TIFF or BMP")
    head = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith((b"<svg", b"<?xml")) and b"<svg" in data[:65536].lower():
        raise refused(Reason.FORMAT_REFUSED, "SVG file", "PNG, JPEG, TIFF or BMP")
    raise refused(Reason.NOT_AN_IMAGE, "no picture by its content", "PNG, JPEG, TIFF or BMP")


# --- PNG ------------------------------------------------------------------------------------

_PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PNG_BITS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and body of every chunk up to IEND, with lengths and checksums verified."""
    at = len(_PNG)
    while True:
        if at + 12 > len(data):
            raise refused(Reason.TRUNCATED, "PNG ends before its IEND chunk")
        (length,) = struct.unpack_from(">I", data, at)
        kind = data[at + 4 : at + 8]
        end = at + 12 + length
        if length > 0x7FFFFFFF or end > len(data):
            raise refused(Reason.TRUNCATED, f"PNG chunk of {length} bytes leaves the file")
        (crc,) = struct.unpack_from(">I", data, end - 4)
        if zlib.crc32(data[at + 4 : end - 4]) != crc:
            raise refused(Reason.CODEC_ERROR, "PNG checksum is wrong: the file is damaged")
        yield kind, data[at + 8 : end - 4]
        if kind == b"IEND":
            return
        at = end


def _inflated(pieces: list[bytes], limit: int) -> int:
    """How many bytes a zlib stream yields, counted up to limit + 1 and kept nowhere."""
    stream, total = zlib.decompressobj(), 0
    try:
        for piece in pieces:
            pending = piece
            while pending and total <= limit and not stream.eof:
                total += len(stream.decompress(pending, _PIECE))
                pending = stream.unconsumed_tail
    except zlib.error as error:
        raise refused(Reason.CODEC_ERROR, "compressed data of the PNG are damaged") from error
    return total


def _compressed_part(kind: bytes, body: bytes) -> bytes | None:
    """The zlib stream of a zTXt, iTXt or iCCP chunk, None when it holds none."""
    if kind in (b"zTXt", b"iCCP"):
        return body[body.find(b"\0") + 2 :]
    if kind == b"iTXt":
        head = body.split(b"\0", 1)
        if len(head) == 2 and head[1][:1] == b"\x01":
            rest = head[1][2:].split(b"\0", 2)
            return rest[2] if len(rest) == 3 else None
    return None


def _png_size(rows: int, cols: int, bits: int, interlaced: bool) -> int:
    """Bytes of the filtered scan lines, one filter byte per row (ISO/IEC 15948, 7.2 and 8)."""
    if not interlaced:
        return rows * (1 + (cols * bits + 7) // 8)
    total = 0
    for x, y, dx, dy in _ADAM7:
        width, height = -(-(cols - x) // dx), -(-(rows - y) // dy)
        if width > 0 and height > 0:
            total += height * (1 + (width * bits + 7) // 8)
    return total


def _png(data: bytes, limits: Limits) -> Header:
    kinds: set[bytes] = set()
    pieces: list[bytes] = []
    head = (0, 0, 0, 0, 0, 0, 0)
    for kind, body in _png_chunks(data):
        if not kinds and (kind != b"IHDR" or len(body) != 13):
            raise refused(Reason.CODEC_ERROR, "PNG does not begin with its IHDR chunk")
        if kind == b"IHDR":
            head = struct.unpack(">IIBBBBB", body)
        if kind == b"acTL":
            raise refused(Reason.ANIMATED, "animated PNG", "one picture", "export single frames")
        packed = _compressed_part(kind, body)
        if packed is not None and _inflated([packed], TEXT_BYTES) > TEXT_BYTES:
            raise refused(
                Reason.DECOMPRESSION_BOMB,
                "text chunk of the PNG inflates without end",
                f"at most {TEXT_BYTES} bytes",
            )
        if kind == b"IDAT":
            pieces.append(body)
        kinds.add(kind)
    cols, rows, bits, colour, method, filtering, interlace = head
    if bits not in _PNG_BITS.get(colour, ()) or method or filtering or interlace > 1:
        raise refused(Reason.CODEC_ERROR, "PNG header holds values the format does not have")
    samples = _PNG_SAMPLES[colour]
    header = Header(
        "png", rows, cols, samples, bits, colour == 3, colour in (4, 6) or b"tRNS" in kinds
    )
    _allowed(header, limits)
    wanted = _png_size(rows, cols, bits * samples, interlace == 1)
    got = _inflated(pieces, wanted)
    if got < wanted:
        raise refused(
            Reason.TRUNCATED_PIXELS, f"PNG data for {got} bytes of pixels", f"{wanted} bytes"
        )
    if got > wanted:
        raise refused(
            Reason.DECOMPRESSION_BOMB, "PNG holds more data than pixels", f"{wanted} bytes"
        )
    if colour == 3 and b"PLTE" not in kinds:
        raise refused(Reason.BAD_PALETTE, "palette PNG without its palette")
    return header


def _allowed(header: Header, limits: Limits) -> None:
    check_size(header.rows, header.cols, header.decoded_bytes, limits)


# --- JPEG -----------------------------------------------------------------------------------

_SOF_TAKEN = {0xC0, 0xC1, 0xC2}
_SOF_ALL = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def _jpeg(data: bytes, limits: Limits) -> Header:
    at, header = 2, None
    while True:
        while at < len(data) and data[at] == 0xFF and at + 1 < len(data) and data[at + 1] == 0xFF:
            at += 1  # fill bytes before a marker
        if at + 4 > len(data):
            raise refused(Reason.TRUNCATED, "JPEG ends inside its headers")
        if data[at] != 0xFF:
            raise refused(Reason.CODEC_ERROR, "JPEG marker expected: the file is damaged")
        marker = data[at + 1]
        (length,) = struct.unpack_from(">H", data, at + 2)
        if length < 2 or at + 2 + length > len(data):
            raise refused(Reason.TRUNCATED, "JPEG segment leaves the file")
        if marker in _SOF_ALL:
            header = _jpeg_frame(marker, data[at + 4 : at + 2 + length])
        at += 2 + length
        if marker == 0xDA:
            break
    if header is None:
        raise refused(Reason.CODEC_ERROR, "JPEG without a frame header")
    _allowed(header, limits)
    if data.find(b"\xff\xd9", at) < 0:
        raise refused(Reason.TRUNCATED_PIXELS, "JPEG without its end marker: the file is cut")
    return header


def _jpeg_frame(marker: int, body: bytes) -> Header:
    if len(body) < 6:
        raise refused(Reason.TRUNCATED, "JPEG frame header is cut")
    bits, rows, cols, samples = struct.unpack_from(">BHHB", body)
    if marker not in _SOF_TAKEN or bits != 8:
        raise refused(
            Reason.FORMAT_REFUSED,
            f"JPEG process {marker:#x} with {bits} bits",
            "baseline or progressive JPEG of 8 bits",
        )
    if samples not in (1, 3):
        raise refused(
            Reason.FORMAT_REFUSED,
            f"JPEG of {samples} colour components (CMYK is a print format)",
            "grey or RGB",
        )
    return Header("jpeg", rows, cols, samples, 8)


# --- TIFF -----------------------------------------------------------------------------------

_TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4}
_TIFF_CODES = {1: "B", 3: "H", 4: "I"}
_COMPRESSION = {1: "none", 5: "LZW", 7: "JPEG", 8: "deflate", 32773: "PackBits", 32946: "deflate"}
_TAGS_MAX = 512


def _tiff_tags(data: bytes) -> dict[int, tuple[int, ...]]:
    """The integer tags of the only directory; several pages are refused."""
    order = "<" if data[:2] == b"II" else ">"
    cut = refused(Reason.TRUNCATED, "TIFF directory leaves the file")
    if len(data) < 8:
        raise cut
    (at,) = struct.unpack_from(order + "I", data, 4)
    if at + 2 > len(data):
        raise cut
    (count,) = struct.unpack_from(order + "H", data, at)
    if count > _TAGS_MAX or at + 6 + 12 * count > len(data):
        raise cut
    tags: dict[int, tuple[int, ...]] = {}
    for index in range(count):
        entry = at + 2 + 12 * index
        tag, kind, number = struct.unpack_from(order + "HHI", data, entry)
        if kind not in _TIFF_CODES:
            continue
        size = _TIFF_SIZES[kind] * number
        place = entry + 8 if size <= 4 else struct.unpack_from(order + "I", data, entry + 8)[0]
        if place + size > len(data):
            raise cut
        tags[tag] = struct.unpack_from(f"{order}{number}{_TIFF_CODES[kind]}", data, place)
    if struct.unpack_from(order + "I", data, at + 2 + 12 * count)[0]:
        raise refused(Reason.ANIMATED, "TIFF of several pages", "one page", "export single pages")
    return tags


def _tiff(data: bytes, limits: Limits) -> Header:
    tags = _tiff_tags(data)

    def first(tag: int, default: int) -> int:
        values = tags.get(tag, (default,))
        return values[0] if values else default

    rows, cols = first(257, 0), first(256, 0)
    compression, photometric, samples = first(259, 1), first(262, -1), first(277, 1)
    bits = set(tags.get(258, (1,)))
    if compression not in _COMPRESSION:
        words = "fax TIFF" if compression in (2, 3, 4, 32771) else f"TIFF compression {compression}"
        raise refused(Reason.FORMAT_REFUSED, words, ", ".join(sorted(set(_COMPRESSION.values()))))
    depth = bits.pop() if len(bits) == 1 else 0
    integers = set(tags.get(339, (1,))) == {1}
    known = (
        photometric in (0, 1, 2, 3) and samples in (1, 3, 4) and depth in (1, 8, 16) and integers
    )
    odd = (photometric == 0 and depth == 16) or (samples > 1 and depth != 8)
    if not known or odd or first(284, 1) != 1 or first(266, 1) != 1:
        raise refused(
            Reason.FORMAT_REFUSED,
            f"TIFF of colour model {photometric}, {samples} samples of {depth or 'mixed'} bits",
            "grey of 1, 8 or 16 bits, palette, or RGB of 8 bits",
        )
    orientation = first(274, 1)
    header = Header(
        "tiff", rows, cols, samples, depth, photometric == 3, samples == 4,
        orientation if 1 <= orientation <= 8 else 1,
    )  # fmt: skip
    _allowed(header, limits)
    offsets = tags.get(273, ()) or tags.get(324, ())
    counts = tags.get(279, ()) or tags.get(325, ())
    if not offsets or len(offsets) != len(counts):
        raise refused(Reason.CODEC_ERROR, "TIFF does not say where its pixels are")
    if any(o + n > len(data) for o, n in zip(offsets, counts, strict=True)):
        raise refused(Reason.TRUNCATED_PIXELS, "TIFF pixel data leave the file: it is cut")
    wanted = rows * ((cols * samples * depth + 7) // 8)
    if compression == 1 and sum(counts) < wanted:
        raise refused(
            Reason.TRUNCATED_PIXELS, f"{sum(counts)} bytes of TIFF pixels", f"{wanted} bytes"
        )
    return header


# --- BMP ------------------------------------------------------------------------------------


def _bmp(data: bytes, limits: Limits) -> Header:
    offset, size = struct.unpack_from("<II", data, 10)
    if size < 40 or len(data) < 14 + 40:
        raise refused(Reason.FORMAT_REFUSED, "BMP with an old or cut header", "a Windows BMP")
    cols, rows, _planes, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    rows = abs(rows)  # negative means stored from the top
    if bits not in (1, 4, 8, 24, 32) or compression not in (0, 3):
        raise refused(
            Reason.FORMAT_REFUSED,
            f"BMP of {bits} bits, compression {compression}",
            "an uncompressed BMP of 1, 4, 8, 24 or 32 bits",
        )
    samples = {24: 3, 32: 4}.get(bits, 1)
    header = Header("bmp", rows, cols, samples, min(bits, 8), bits <= 8, bits == 32)
    _allowed(header, limits)
    wanted = rows * (((cols * bits + 31) // 32) * 4)
    if offset + wanted > len(data):
        raise refused(
            Reason.TRUNCATED_PIXELS, f"{max(0, len(data) - offset)} bytes of BMP pixels",
            f"{wanted} bytes",
        )  # fmt: skip
    return header
