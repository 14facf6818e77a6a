"""What do the pixels of a DICOM ultrasound file look like, one frame at a time?

Declared sizes are compared with the payload before anything is decoded; a frame is decoded only
after the size in its own compressed header equals the declared one. Results are grey (H,W) with
higher values brighter, or RGB (H,W,3); palettes and YBR are resolved. JPEG frames take a road of
their own (libjpeg-turbo's raw YCbCr and an exact table conversion): bit-identical to pydicom's
`pixel_array`, several times faster, because grey rows need no colour conversion at all. Where
pydicom is wrong we differ: an Adobe marker with transform 1 says the components are YCbCr, and
pydicom 3.0 converts those twice.

Shape legend: H rows, W columns. Sources: DICOM PS3.3 C.7.6.3.1 (pixel description, palettes),
PS3.5 8.2 and annex A.4 (encapsulation), annex G (RLE); ITU-T T.81, T.87, T.800 (code streams).
"""

from __future__ import annotations

import hashlib
import struct
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import numpy.typing as npt

from renalkit.domain.geometry import Box
from renalkit.domain.image import brightest
from renalkit.domain.study import Defect
from renalkit.errors import DecodeFailed, InputRefused, Reason
from renalkit.readers.contract import Limits
from renalkit.readers.decode_child import DECODER_ERRORS
from renalkit.readers.dicom_palette import Palette, read_palette
from renalkit.readers.dicom_prescan import (
    ByteSource,
    FileSource,
    PixelData,
    Prescan,
    prescan,
)
from renalkit.readers.dicom_syntaxes import (
    DEFLATED_LE,
    ENCAPSULATED,
    EXPLICIT_BE,
    JPEG,
    JPEG_2000,
    JPEG_LOSSLESS,
    JPEG_LS,
    NATIVE,
    RLE,
)

Array = npt.NDArray[Any]

_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")
_EXPORT_AGAIN = "export the file again from the source system"


@dataclass(frozen=True, slots=True)
class PixelDescription:
    """What the header says about the pixels, checked.

    swapped: 8-bit pixels lie in big-endian 16-bit words, so neighbours have changed places.
    """

    transfer_syntax: str
    rows: int
    cols: int
    frames: int
    samples: int
    photometric: str
    planar: int
    bits_allocated: int
    bits_stored: int
    signed: bool
    swapped: bool = False
    palette: Palette | None = field(default=None, repr=False)

    @property
    def item_bytes(self) -> int:
        return self.bits_allocated // 8

    @property
    def native_frame_bytes(self) -> int:
        """Bytes of one uncompressed frame; 4:2:2 stores two bytes a pixel instead of three."""
        samples = 2 if self.photometric == "YBR_FULL_422" else self.samples
        return self.rows * self.cols * samples * self.item_bytes

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type of a decoded frame."""
        if self.palette is not None or self.samples == 3 or self.bits_stored <= 8:
            return np.dtype("|i1" if self.signed and self.samples == 1 else "|u1")
        return np.dtype("<i2" if self.signed else "<u2")

    @property
    def frame_shape(self) -> tuple[int, ...]:
        colour = self.samples == 3 or self.palette is not None
        return (self.rows, self.cols, 3) if colour else (self.rows, self.cols)


FramePlace = tuple[tuple[int, int], ...]
"""The (offset, length) pieces that together are one frame's payload."""


def _bad(found: str, reason: Reason = Reason.BAD_PIXEL_DESCRIPTION) -> InputRefused:
    return InputRefused(
        reason, found, expected="a consistent pixel description", remedy=_EXPORT_AGAIN
    )


def _one(scan: Prescan, tag: int, name: str) -> int:
    """A required unsigned 16-bit number of the header."""
    value = scan.values.by_tag.get(tag)
    if value is None or value.vr != "US" or len(value.raw) != 2:
        raise _bad(f"no usable {name}")
    return scan.values.integers(tag)[0]


def _frame_count(scan: Prescan, limits: Limits) -> int:
    if not scan.values.raw(0x00280008).strip():
        return 1
    text = scan.values.raw(0x00280008).strip()
    digits = text.removeprefix(b"+")
    if not digits.isdigit() or len(digits) > 12 or int(digits) < 1:
        raise _bad("number of frames that is no positive whole number", Reason.BAD_FRAMES)
    if int(digits) > limits.frames:
        raise InputRefused(
            Reason.TOO_LARGE,
            f"{int(digits)} frames",
            expected=f"at most {limits.frames}",
            remedy="export the clip in shorter pieces",
        )
    return int(digits)


def describe(scan: Prescan, limits: Limits) -> PixelDescription:
    """Read and check the pixel description.

    Raises:
        InputRefused: UNSUPPORTED_TRANSFER_SYNTAX, TRUNCATED (no pixels), BAD_PIXEL_DESCRIPTION,
            BAD_FRAMES, BAD_PALETTE, TOO_SMALL, TOO_LARGE.
    """
    syntax = scan.transfer_syntax
    if syntax not in NATIVE + ENCAPSULATED:
        raise InputRefused(
            Reason.UNSUPPORTED_TRANSFER_SYNTAX,
            "transfer syntax that is unknown here",
            expected="one of those `renalkit info` lists",
            remedy="export the file uncompressed or as JPEG",
        )
    if scan.pixel_data is None:
        raise InputRefused(
            Reason.TRUNCATED, "an image without pixels", remedy="copy or export the file again"
        )
    rows, cols = _one(scan, 0x00280010, "number of rows"), _one(scan, 0x00280011, "columns")
    if min(rows, cols) == 0:
        raise _bad(f"an image of {rows} x {cols} pixels")
    if min(rows, cols) < limits.min_side_px:
        raise _bad(f"an image of {rows} x {cols} pixels", Reason.TOO_SMALL)
    if max(rows, cols) > limits.max_side_px:
        raise InputRefused(
            Reason.TOO_LARGE,
            f"an image of {rows} x {cols} pixels",
            expected=f"at most {limits.max_side_px} a side",
            remedy=_EXPORT_AGAIN,
        )
    frames = _frame_count(scan, limits)
    samples = _one(scan, 0x00280002, "samples per pixel")
    allocated, stored = _one(scan, 0x00280100, "bits allocated"), _one(scan, 0x00280101, "bits")
    representation = _one(scan, 0x00280103, "pixel representation")
    photometric = scan.values.text(0x00280004)
    if samples not in (1, 3):
        raise _bad(f"{samples} samples per pixel")
    if allocated not in ((8, 16) if samples == 1 else (8,)) or not 1 <= stored <= allocated:
        raise _bad(f"{stored} bits in {allocated} with {samples} samples per pixel")
    if 0x00280102 in scan.values and _one(scan, 0x00280102, "high bit") != stored - 1:
        raise _bad(f"high bit that does not fit {stored} bits")
    if representation not in (0, 1) or (representation == 1 and samples == 3):
        raise _bad(f"pixel representation {representation}")
    if photometric not in ((*_GREY, "PALETTE COLOR") if samples == 1 else _COLOUR):
        raise _bad(f"photometric interpretation that does not fit {samples} samples per pixel")
    native = syntax in NATIVE
    if native and photometric in ("YBR_RCT", "YBR_ICT"):
        raise _bad("a JPEG 2000 colour space in uncompressed pixels")
    if native and photometric == "YBR_FULL_422" and cols % 2:
        raise _bad(f"4:2:2 pixels in {cols} columns")
    planar = _one(scan, 0x00280006, "planar configuration") if 0x00280006 in scan.values else 0
    if planar not in (0, 1):
        raise _bad(f"planar configuration {planar}")
    if native == (scan.pixel_data.fragments is not None):
        raise _bad("pixels that are encapsulated against their transfer syntax, or the reverse")
    found = PixelDescription(
        *(syntax, rows, cols, frames, samples, photometric, planar, allocated, stored),
        signed=representation == 1,
        swapped=syntax == EXPLICIT_BE and allocated == 8 and scan.pixel_data.vr == "OW",
        palette=read_palette(scan.values) if photometric == "PALETTE COLOR" else None,
    )
    if found.swapped and found.native_frame_bytes % 2:
        raise _bad("frames of an odd number of bytes in 16-bit words")
    one = int(np.prod(found.frame_shape)) * found.dtype.itemsize
    for size, limit, what in (
        (one, limits.decoded_bytes, "one frame of"),
        (frames * one, limits.clip_bytes, "a clip of"),
    ):
        if size > limit:
            raise _too_large(f"{what} {size} bytes of decoded pixels", limit)
    return found


def _too_large(found: str, limit: int) -> InputRefused:
    return InputRefused(
        Reason.TOO_LARGE,
        found,
        expected=f"at most {limit}",
        remedy="export the clip in shorter pieces",
    )


def frame_places(
    scan: Prescan, about: PixelDescription, source: ByteSource
) -> tuple[list[FramePlace], list[Defect]]:
    """Where each frame's payload lies, and what was irregular about that.

    Raises:
        InputRefused: TRUNCATED_PIXELS, FRAGMENTS_MISMATCH.
    """
    pixels = scan.pixel_data
    assert pixels is not None
    if pixels.fragments is None:
        return _native_places(pixels, about)
    fragments, frames = pixels.fragments, about.frames
    if len(fragments) < frames or not fragments:
        raise InputRefused(
            Reason.FRAGMENTS_MISMATCH,
            f"{len(fragments)} pixel fragments for {frames} frames",
            expected="at least one fragment per frame",
            remedy=_EXPORT_AGAIN,
        )
    starts, trusted = _starts_by_table(scan, pixels), True
    groups = _group(fragments, starts, frames)
    if groups is None:
        trusted = not starts
        if frames == 1:
            groups = [fragments]
        elif len(fragments) == frames:
            groups = [(fragment,) for fragment in fragments]
        else:
            groups = _group_by_content(fragments, about, source)
    if groups is None:
        raise InputRefused(
            Reason.FRAGMENTS_MISMATCH,
            f"{len(fragments)} pixel fragments that cannot be told apart into {frames} frames",
            expected="a frame offset table, or frames that begin with a code stream mark",
            remedy=_EXPORT_AGAIN,
        )
    if trusted:
        return groups, []
    return groups, [Defect(Reason.FRAGMENTS_MISMATCH, "frame offset table that is wrong; not used")]


def _native_places(
    pixels: PixelData, about: PixelDescription
) -> tuple[list[FramePlace], list[Defect]]:
    each, frames = about.native_frame_bytes, about.frames
    if pixels.length < each * frames:
        raise InputRefused(
            Reason.TRUNCATED_PIXELS,
            f"{pixels.length} bytes of pixels where {each * frames} are declared",
            expected="all pixels the header declares",
            remedy="copy or export the file again",
        )
    places: list[FramePlace] = [((pixels.offset + i * each, each),) for i in range(frames)]
    if pixels.length > each * frames + 1:
        words = f"{pixels.length - each * frames} bytes after the last frame; not used"
        return places, [Defect(Reason.DIMS_MISMATCH, words)]
    return places, []


def _starts_by_table(scan: Prescan, pixels: PixelData) -> tuple[int, ...]:
    """Frame starts relative to the first fragment's head: basic or extended offset table."""
    if pixels.offset_table:
        return pixels.offset_table
    extended = scan.values.by_tag.get(0x7FE00001)
    if extended is None or len(extended.raw) % 8:
        return ()
    return struct.unpack(f"<{len(extended.raw) // 8}Q", extended.raw)


def _group(
    fragments: tuple[tuple[int, int], ...], starts: tuple[int, ...], frames: int
) -> list[FramePlace] | None:
    """Fragments by frame as the offset table says; None when the table does not fit."""
    if len(starts) != frames or starts[0] != 0:
        return None
    origin = fragments[0][0] - 8
    index_of = {at - 8 - origin: i for i, (at, _) in enumerate(fragments)}
    found = [index_of.get(start, -1) for start in starts]
    if min(found) < 0 or any(b <= a for a, b in zip(found, found[1:], strict=False)):
        return None
    bounds = [*found, len(fragments)]
    return [fragments[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]


def _group_by_content(
    fragments: tuple[tuple[int, int], ...], about: PixelDescription, source: ByteSource
) -> list[FramePlace] | None:
    """Frames begin where a code stream begins; None when that gives another number of frames."""
    if about.transfer_syntax in RLE:
        return None
    marks = (b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  ")
    if about.transfer_syntax not in JPEG_2000:
        marks = (b"\xff\xd8\xff",)
    starts = [i for i, (at, _) in enumerate(fragments) if source.read(at, 8).startswith(marks)]
    if len(starts) != about.frames or starts[0] != 0:
        return None
    bounds = [*starts, len(fragments)]
    return [fragments[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]


def read_payload(source: ByteSource, place: FramePlace) -> bytes:
    """The bytes of one frame as they lie in the file."""
    return b"".join(source.read(offset, length) for offset, length in place)


def decode_payload(payload: bytes, about: PixelDescription) -> Array:
    """One frame, decoded, resolved to grey or RGB: (H,W) or (H,W,3) of `about.dtype`.

    Raises:
        InputRefused: DIMS_MISMATCH, CODEC_ERROR, TRUNCATED_PIXELS, BAD_PALETTE. Damaged code
            streams may also raise one of DECODER_ERRORS, or decode to wrong pixels.
    """
    frame, ybr = _samples(payload, about)
    return _resolved(ybr_to_rgb(frame) if ybr else frame, about)


def decode_windows(payload: bytes, about: PixelDescription, boxes: Sequence[Box]) -> list[Array]:
    """Parts of one frame, equal to those cut out of `decode_payload`'s; colours outside them are
    not computed, which for JPEG is most of the time. Same errors."""
    frame, ybr = _samples(payload, about)
    if ybr:
        return [ybr_to_rgb(np.ascontiguousarray(frame[box.slices])) for box in boxes]
    whole = _resolved(frame, about)
    return [whole[box.slices] for box in boxes]


def _samples(payload: bytes, about: PixelDescription) -> tuple[Array, bool]:
    """One frame of stored samples, and whether they are YBR_FULL still (else grey or RGB)."""
    syntax = about.transfer_syntax
    ybr = False
    if syntax in NATIVE:
        frame = _native(payload, about)
    elif syntax in RLE:
        frame = _rle(payload, about)
    else:
        stream = read_stream_head(payload)
        _check_stream(stream, about)
        # Decoders fill up a cut frame with grey, or search for its end for many seconds.
        if syntax not in JPEG_2000 and b"\xff\xd9" not in payload[-64:]:
            raise _broken("a compressed frame without its end")
        if syntax in JPEG:
            frame, ybr = _jpeg(payload, stream, about)
        elif syntax in JPEG_LOSSLESS:
            frame = _jpeg_lossless(payload, about)
        else:
            frame = _by_pydicom(payload, about)
    if frame.shape != (about.rows, about.cols, 3)[: 2 + (about.samples == 3)]:
        raise _dims(f"{frame.shape} decoded")
    return frame, ybr


def _resolved(frame: Array, about: PixelDescription) -> Array:
    """Palette looked up, inverted greys turned, 16-bit containers of 8-bit pixels narrowed."""
    if about.palette is not None:
        return about.palette.apply(frame)
    if about.samples == 3:
        return frame
    if about.photometric == "MONOCHROME1":
        top = -1 if about.signed else (1 << about.bits_stored) - 1
        frame = (top - frame.astype(np.int32)).astype(frame.dtype)
    return np.ascontiguousarray(frame.astype(about.dtype, copy=False))


def _dims(found: str) -> InputRefused:
    return InputRefused(
        Reason.DIMS_MISMATCH,
        f"a frame whose own header disagrees with the file: {found}",
        expected="the size the file declares",
        remedy=_EXPORT_AGAIN,
    )


def _broken(found: str) -> InputRefused:
    return DecodeFailed(
        Reason.CODEC_ERROR,
        found,
        expected="undamaged compressed pixels",
        remedy=_EXPORT_AGAIN,
    )


@dataclass(frozen=True, slots=True)
class StreamHead:
    """What a code stream says about itself."""

    rows: int
    cols: int
    component_ids: tuple[int, ...]
    precision: int
    adobe_transform: int | None = None


def read_stream_head(payload: bytes) -> StreamHead:
    """Size, components and precision out of a JPEG, JPEG-LS or JPEG 2000 code stream.

    Raises:
        DecodeFailed: CODEC_ERROR, no such head was found.
    """
    if payload.startswith(b"\0\0\0\x0cjP  ") or payload.startswith(b"\xff\x4f"):
        return _jpeg_2000_head(payload)
    if not payload.startswith(b"\xff\xd8"):
        raise _broken("a frame that does not begin like its compression")
    adobe: int | None = None
    at = 2
    while at + 4 <= len(payload):
        if payload[at] != 0xFF:
            break
        mark = payload[at + 1]
        if mark == 0xFF:
            at += 1
            continue
        if mark == 0x01 or 0xD0 <= mark <= 0xD7:
            at += 2
            continue
        length = int.from_bytes(payload[at + 2 : at + 4], "big")
        body = payload[at + 4 : at + 2 + length]
        if mark == 0xEE and body.startswith(b"Adobe") and len(body) >= 12:
            adobe = body[11]
        if mark == 0xF7 or (0xC0 <= mark <= 0xCF and mark not in (0xC4, 0xC8, 0xCC)):
            if len(body) < 6 or len(body) < 6 + 3 * body[5]:
                break
            precision, rows, cols, count = struct.unpack(">BHHB", body[:6])
            ids = tuple(body[6 + 3 * i] for i in range(count))
            return StreamHead(rows, cols, ids, precision, adobe)
        if mark in (0xD9, 0xDA) or length < 2:
            break
        at += 2 + length
    raise _broken("a frame without a readable compressed header")


def _jpeg_2000_head(payload: bytes) -> StreamHead:
    at = payload.find(b"\xff\x4f\xff\x51", 0, 4096)
    if at < 0 or len(payload) < at + 42:
        raise _broken("a frame without a readable compressed header")
    x1, y1, x0, y0 = struct.unpack(">4I", payload[at + 8 : at + 24])
    (count,) = struct.unpack(">H", payload[at + 40 : at + 42])
    precisions = payload[at + 42 : at + 42 + 3 * count : 3]
    if not 1 <= count <= 4 or len(precisions) != count:
        raise _broken("a frame without a readable compressed header")
    ids = tuple(range(count))
    return StreamHead(y1 - y0, x1 - x0, ids, max(p & 0x7F for p in precisions) + 1)


def _check_stream(stream: StreamHead, about: PixelDescription) -> None:
    if (stream.rows, stream.cols) != (about.rows, about.cols):
        raise _dims(f"{stream.rows} x {stream.cols} pixels for {about.rows} x {about.cols}")
    if len(stream.component_ids) != about.samples:
        raise _dims(f"{len(stream.component_ids)} components for {about.samples}")
    if stream.precision > about.bits_allocated:
        raise _dims(f"{stream.precision} bits for {about.bits_allocated}")


_RGB_IDS = ((82, 71, 66), (114, 103, 98))


def _jpeg(payload: bytes, stream: StreamHead, about: PixelDescription) -> tuple[Array, bool]:
    if about.samples == 1:
        return imagecodecs.jpeg8_decode(payload), False
    plain = (
        about.photometric in ("YBR_FULL", "YBR_FULL_422")
        and stream.component_ids not in _RGB_IDS
        and stream.adobe_transform in (None, 1)
        and stream.precision == 8
    )
    if not plain:
        return _by_pydicom(payload, about), False
    return imagecodecs.jpeg8_decode(payload, colorspace="YCBCR", outcolorspace="YCBCR"), True


def _jpeg_lossless(payload: bytes, about: PixelDescription) -> Array:
    if about.samples == 1:
        return imagecodecs.ljpeg_decode(payload)
    frame = imagecodecs.jpeg8_decode(payload, colorspace="RGB", outcolorspace="RGB")
    return ybr_to_rgb(frame) if about.photometric.startswith("YBR_FULL") else frame


def _rle(payload: bytes, about: PixelDescription) -> Array:
    """PS3.5 annex G: 64-byte head, one segment per byte plane, most significant first."""
    planes, item = about.samples * about.item_bytes, about.item_bytes
    head = struct.unpack("<16I", payload[:64]) if len(payload) >= 64 else (0,) * 16
    bounds = [*head[1 : 1 + planes], len(payload)]
    ordered = all(a < b for a, b in zip(bounds, bounds[1:], strict=False))
    if head[0] != planes or bounds[0] != 64 or not ordered:
        raise _broken(f"RLE segments that do not fit {planes} byte planes")
    size = about.rows * about.cols
    for start, end in zip(bounds, bounds[1:], strict=False):
        # Two bytes give at most 128: a promise beyond that is refused before allocation.
        if (end - start + 1) // 2 * 128 < size:
            raise InputRefused(
                Reason.TRUNCATED_PIXELS,
                f"{end - start} bytes of RLE for {size} pixels",
                expected="enough compressed data for the declared size",
                remedy=_EXPORT_AGAIN,
            )
    # Segments hold one byte plane each; the decoder wants to know only the element type.
    decoded = imagecodecs.dicomrle_decode(payload, dtype=f"<u{item}")
    flat = np.frombuffer(bytes(decoded), f"<u{item}")
    if flat.size < size * about.samples:
        raise _broken("RLE data that end too early")
    frame = flat[: size * about.samples].reshape(about.samples, about.rows, about.cols)
    frame = frame[0] if about.samples == 1 else np.moveaxis(frame, 0, -1)
    return _finished_raw(np.ascontiguousarray(frame), about)


def _native(payload: bytes, about: PixelDescription) -> Array:
    rows, cols = about.rows, about.cols
    big = about.transfer_syntax == EXPLICIT_BE
    flat = np.frombuffer(payload, f"{'>' if big else '<'}u{about.item_bytes}")
    flat = flat.astype(flat.dtype.newbyteorder("<"), copy=False)
    if about.swapped:
        flat = np.ascontiguousarray(flat.reshape(-1, 2)[:, ::-1]).reshape(-1)
    if about.photometric == "YBR_FULL_422":
        quads = flat.reshape(rows, cols // 2, 4)
        frame = np.empty((rows, cols // 2, 2, 3), np.uint8)
        frame[..., 0] = quads[..., :2]
        frame[..., 1:] = quads[..., None, 2:]
        frame = frame.reshape(rows, cols, 3)
    elif about.samples == 1:
        frame = flat.reshape(rows, cols)
    elif about.planar == 1:
        frame = np.ascontiguousarray(np.moveaxis(flat.reshape(3, rows, cols), 0, -1))
    else:
        frame = flat.reshape(rows, cols, 3)
    return _finished_raw(frame, about)


def _finished_raw(frame: Array, about: PixelDescription) -> Array:
    """Colour space resolved, bits above `bits_stored` taken away (they may hold overlays)."""
    if about.samples == 3:
        return ybr_to_rgb(frame) if about.photometric.startswith("YBR_FULL") else frame
    spare = about.bits_allocated - about.bits_stored
    if about.signed:
        frame = frame.view(f"<i{about.item_bytes}")
    if spare:
        frame = np.right_shift(np.left_shift(frame, spare), spare)
    return frame


def _by_pydicom(payload: bytes, about: PixelDescription) -> Array:
    # pydicom takes half a second to import; JPEG, RLE and uncompressed files do without it.
    from pydicom.encaps import encapsulate
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID

    syntax = about.transfer_syntax
    # Named, so that an installed gdcm is never used: damaged frames make it abort the process.
    plugin = "pylibjpeg" if syntax in JPEG_2000 else "pyjpegls" if syntax in JPEG_LS else "pillow"
    options: dict[str, Any] = {
        "rows": about.rows,
        "columns": about.cols,
        "number_of_frames": 1,
        "samples_per_pixel": about.samples,
        "photometric_interpretation": about.photometric,
        "pixel_representation": int(about.signed),
        "bits_allocated": about.bits_allocated,
        "bits_stored": about.bits_stored,
        "planar_configuration": 0,
        "pixel_keyword": "PixelData",
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frame, _ = get_decoder(UID(syntax)).as_array(
            encapsulate([payload], has_bot=False), index=0, decoding_plugin=plugin, **options
        )
    return frame


@lru_cache(maxsize=1)
def _ybr_tables() -> tuple[Array, Array, Array]:
    """What Cr adds to red, (Cr,Cb) to green and Cb to blue, as rounded by pydicom's formula.

    Entries whose rounding could depend on Y (the sum lies within 1e-4 of a half) are marked by
    adding _DOUBTFUL, and such pixels are converted by the formula itself.
    """
    cr, cb = np.mgrid[0:256, 0:256].astype(np.float64) - 128
    exact = (
        1.402 * cr[:, 0],
        -0.299 * 1.402 / 0.587 * cr - 0.114 * 1.772 / 0.587 * cb,
        1.772 * cb[0],
    )
    tables: list[Array] = []
    for values in exact:
        rounded = np.floor(values + 0.5)
        doubtful = (
            np.abs(values + 0.5 - np.round(values + 0.5)) < 1e-4
        )  # single precision errs by 5e-5
        tables.append((rounded + _DOUBTFUL * doubtful).astype(np.int16).ravel())
    return tables[0], tables[1], tables[2]


_DOUBTFUL = 4096


def ybr_to_rgb(ybr: Array) -> Array:
    """YBR_FULL to RGB (PS3.3 C.7.6.3.1.2), (H,W,3) uint8 both; equal to pydicom's result.

    What is grey (Cb = Cr = 128) is copied, not computed: rows without colour, and of the others
    the half without, as beside a contrast picture.
    """
    coloured = _coloured(ybr)
    half = coloured.shape[1] // 2
    middle = ybr.shape[1] * half // coloured.shape[1]
    left, right = coloured[:, :half].any(axis=1), coloured[:, half:].any(axis=1)
    out = cv2.cvtColor(cv2.extractChannel(ybr, 0), cv2.COLOR_GRAY2RGB)
    for rows, cols in (
        (left & right, slice(None)),
        (left & ~right, slice(None, middle + 1)),  # a word at the middle may belong to both
        (right & ~left, slice(middle, None)),
    ):
        block = (np.flatnonzero(rows), cols)
        if block[0].size:
            out[block] = _colours_to_rgb(ybr[block])
    return out


def _coloured(ybr: Array) -> Array:
    """Which words of each row (H,words) hold a Cb or Cr other than 128."""
    rows, cols, _ = ybr.shape
    word = np.uint64 if cols % 8 == 0 else np.uint8  # eight bytes at a time where rows allow it
    is_chroma = np.tile(np.asarray([0, 255, 255], np.uint8), cols).view(word)
    neutral = np.tile(np.asarray([0, 128, 128], np.uint8), cols).view(word)
    words = np.ascontiguousarray(ybr).reshape(rows, -1).view(word)
    return (words & is_chroma) != neutral


def _colours_to_rgb(ybr: Array) -> Array:
    """Every pixel of (H,W,3) by the tables, the few doubtful ones by the formula."""
    luma, cb, cr = cv2.split(ybr)
    chroma = cv2.merge([cb, cr]).view(np.uint16)[..., 0]
    reds, greens, blues = _ybr_tables()
    added = (cv2.LUT(cr, reds), np.take(greens, chroma), cv2.LUT(cb, blues))
    out = cv2.merge([_added(luma, plus) for plus in added])
    # The tables mark few of the 65536 colours; a clip without them needs no second look.
    for plus in added:
        if int(plus.max()) > _DOUBTFUL // 2:
            marked = np.flatnonzero(plus > _DOUBTFUL // 2)
            out.reshape(-1, 3)[marked] = _ybr_formula(ybr.reshape(-1, 3)[marked])
    return out


def _added(luma: Array, plus: Array) -> Array:
    """luma (H,W) uint8 + plus (H,W) int16, held within 0..255."""
    return np.asarray(cv2.add(luma, plus, dtype=cv2.CV_8U), np.uint8)


def _ybr_formula(ybr: Array) -> Array:
    """The same for a list of pixels (N,3), in single precision as pydicom does it."""
    matrix = np.asarray(
        [
            [1.0, 1.0, 1.0],
            [0.0, -0.114 * 1.772 / 0.587, 1.772],
            [1.402, -0.299 * 1.402 / 0.587, 0.0],
        ],
        np.float32,
    )
    shifted = ybr.astype(np.float32) - np.asarray([0, 128, 128], np.float32)
    return np.clip(np.floor(shifted @ matrix + np.float32(0.5)), 0, 255).astype(np.uint8)


def blank_outside_regions(frame: Array, boxes: Sequence[Box]) -> Array:
    """The frame (H,W[,3]) with every pixel outside all boxes set to 0; a new array."""
    out = np.zeros_like(frame)
    for box in boxes:
        out[box.slices] = frame[box.slices]
    return out


def blanked(window: Array, box: Box, kept: Sequence[Box]) -> Array:
    """`window`, the part `box` of a frame, with every pixel outside all `kept` boxes set to 0."""
    out = np.zeros_like(window)
    for part in kept:
        rows = slice(max(part.y - box.y, 0), max(part.y + part.height - box.y, 0))
        cols = slice(max(part.x - box.x, 0), max(part.x + part.width - box.x, 0))
        out[rows, cols] = window[rows, cols]
    return out


def margin_statistics(frame: Array, boxes: Sequence[Box]) -> dict[str, float]:
    """How much the pixels outside all boxes could tell a classifier, as four numbers.

    frame (H,W) or (H,W,3), 8 bit (others are scaled by their largest value). margin_mean and
    margin_sd in grey levels, margin_saturated the share at 255, margin_strokes the share that
    stands out by more than 60 levels from what lies within 3 pixels on two opposite sides, as the
    strokes of letters and calipers do. Empty when no pixel lies outside.
    """
    outside = np.ones(frame.shape[:2], bool)
    for box in boxes:
        outside[box.slices] = False
    if not outside.any():
        return {}
    grey = brightest(frame) if frame.ndim == 3 else frame
    level = grey.astype(np.float32)
    if grey.dtype != np.uint8:
        level *= 255.0 / max(1.0, float(np.abs(level).max()))
    around = np.pad(level, 3, mode="edge")
    rows, cols = level.shape
    stroke = np.zeros_like(outside)
    for step in (1, 2, 3):
        left, right = around[3:-3, 3 - step :][:, :cols], around[3:-3, 3 + step :][:, :cols]
        above, below = around[3 - step :, 3:-3][:rows], around[3 + step :, 3:-3][:rows]
        stroke |= level - np.maximum(left, right) > 60
        stroke |= level - np.maximum(above, below) > 60
    values = level[outside]
    return {
        "margin_mean": float(values.mean()),
        "margin_sd": float(values.std()),
        "margin_saturated": float((values >= 255).mean()),
        "margin_strokes": float(stroke[outside].mean()),
    }


@dataclass(slots=True)
class LazyDicomFrames:
    """Frames of one file, decoded when asked for: (T,H,W) or (T,H,W,3).

    Every payload is compared with its digest from the decode worker, so that only bytes that were
    decoded there once are decoded in this process. Frames found unusable then are all zero.
    """

    path: Path = field(repr=False)
    about: PixelDescription
    places: Sequence[FramePlace] = field(repr=False)
    payload_sha256: Sequence[str] = field(repr=False)
    boxes: tuple[Box, ...] | None
    unusable: frozenset[int] = frozenset()
    limits: Limits = field(default_factory=Limits)
    _inflated: ByteSource | None = field(default=None, repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.places), *self.about.frame_shape)

    @property
    def dtype(self) -> np.dtype[np.generic]:
        return self.about.dtype

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int, /) -> Array:
        """Frame `index`; IndexError outside the clip.

        Raises:
            InputRefused: CHANGED_DURING_READ, the file is not the one that was read first.
        """
        if index % len(self.places) in self.unusable:
            return np.zeros(self.about.frame_shape, self.about.dtype)
        frame = decode_payload(self._checked_payload(index), self.about)
        return frame if self.boxes is None else blank_outside_regions(frame, self.boxes)

    def windows(self, index: int, boxes: Sequence[Box]) -> list[Array]:
        """Parts of frame `index`, equal to those cut out of the whole frame, but cheaper.

        Raises:
            InputRefused: as when the whole frame is asked for.
        """
        if index % len(self.places) in self.unusable:
            shape = self.about.frame_shape[2:]
            return [np.zeros((b.height, b.width, *shape), self.about.dtype) for b in boxes]
        found = decode_windows(self._checked_payload(index), self.about, boxes)
        if self.boxes is None:
            return found
        return [blanked(w, b, self.boxes) for w, b in zip(found, boxes, strict=True)]

    def _checked_payload(self, index: int) -> bytes:
        payload = self._payload(self.places[index])
        if hashlib.sha256(payload).hexdigest() != self.payload_sha256[index]:
            raise InputRefused(
                Reason.CHANGED_DURING_READ,
                "a file that changed since it was first read",
                remedy="import it again when nothing writes to it",
            )
        return payload

    def _payload(self, place: FramePlace) -> bytes:
        if self.about.transfer_syntax == DEFLATED_LE:
            if self._inflated is None:
                self._inflated = prescan(self.path, self.limits, allow_headerless=True).inflated
            assert self._inflated is not None
            return read_payload(self._inflated, place)
        with FileSource(self.path) as source:
            return read_payload(source, place)


def decode_dicom(path: Path, options: Mapping[str, Any]) -> tuple[Array, dict[str, Any]]:
    """The decode worker's task "dicom": decode every frame once and say what came out.

    options: `limits` (asdict of Limits), `allow_headerless`, `boxes` ([x, y, width, height] of
    what is kept, or None to keep all), `pixels` (whether to return them), `frames` (which to
    return; all when absent). Pixels are (n,H,W) or (n,H,W,3), blanked, or empty.

    info: `sha256` (pixel_sha256 of the whole blanked clip), `payload_sha256` per frame, `bad`
    ([frame, reason] of frames that could not be decoded and are zero), `constant` (frames with one
    value everywhere), `margin` (margin_statistics of the first usable frame).
    """
    limits = Limits(**options.get("limits", {}))
    scan = prescan(path, limits, allow_headerless=bool(options.get("allow_headerless")))
    about = describe(scan, limits)
    boxes = None if options.get("boxes") is None else [Box(*b) for b in options["boxes"]]
    wanted: list[int] = []
    if options.get("pixels"):
        wanted = [int(i) for i in options.get("frames") or range(about.frames)]
    slots = {index: slot for slot, index in enumerate(wanted)}
    asked = len(wanted) * int(np.prod(about.frame_shape)) * about.dtype.itemsize
    if asked > limits.decoded_bytes:
        raise _too_large(f"{asked} bytes of pixels to be held at once", limits.decoded_bytes)
    kept = np.zeros((len(wanted), *about.frame_shape) if wanted else (0,), about.dtype)
    digest = hashlib.sha256(f"{(about.frames, *about.frame_shape)} {about.dtype.str}".encode())
    info: dict[str, Any] = {"payload_sha256": [], "bad": [], "constant": [], "margin": {}}
    with FileSource(path) as file:
        source: ByteSource = scan.inflated or file
        places, _ = frame_places(scan, about, source)
        first: InputRefused | None = None
        for index, place in enumerate(places):
            payload = read_payload(source, place)
            info["payload_sha256"].append(hashlib.sha256(payload).hexdigest())
            try:
                frame = decode_payload(payload, about)
            except InputRefused as refused:
                first = first or refused
                info["bad"].append([index, refused.reason.value])
                frame = np.zeros(about.frame_shape, about.dtype)
            except DECODER_ERRORS as error:
                first = first or _broken(f"a frame that cannot be decoded ({type(error).__name__})")
                info["bad"].append([index, Reason.CODEC_ERROR.value])
                frame = np.zeros(about.frame_shape, about.dtype)
            else:
                if boxes is not None and not info["margin"]:
                    info["margin"] = margin_statistics(frame, boxes)
            if boxes is not None:
                frame = blank_outside_regions(frame, boxes)
            if int(frame.min()) == int(frame.max()):
                info["constant"].append(index)
            digest.update(np.ascontiguousarray(frame).data)
            if index in slots:
                kept[slots[index]] = frame
    if first is not None and 2 * len(info["bad"]) > about.frames:
        raise first
    info["sha256"] = digest.hexdigest()
    return kept, info


def frame_defects(bad: Mapping[int, Reason], constant: Sequence[int], frames: int) -> list[Defect]:
    """Damaged frames, and frames with one value everywhere, in words; frames: how many were seen.

    Raises:
        InputRefused: CONSTANT_IMAGE, no frame shows anything.
    """
    if len(constant) + len(bad) == frames:
        raise InputRefused(
            Reason.CONSTANT_IMAGE,
            "pixels that are all the same",
            expected="a picture",
            remedy="leave the file out",
        )
    defects: list[Defect] = []
    for reason in dict.fromkeys(bad.values()):
        which = [i for i, r in bad.items() if r is reason]
        defects.append(Defect(reason, f"unusable frames, set to zero: {_numbered(which)}"))
    if constant:
        words = f"frames with one value everywhere: {_numbered(constant)}"
        defects.append(Defect(Reason.CONSTANT_IMAGE, words))
    return defects


def _numbered(indices: Sequence[int]) -> str:
    more = f" and {len(indices) - 20} more" if len(indices) > 20 else ""
    return ", ".join(map(str, indices[:20])) + more


def task_options(limits: Limits, *, allow_headerless: bool) -> dict[str, Any]:
    """The part of `decode_dicom`'s options that every call has."""
    return {"limits": asdict(limits), "allow_headerless": allow_headerless}
