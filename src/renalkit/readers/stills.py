"""How does one picture file (PNG, JPEG, TIFF, BMP) become pixels that can be trusted?

`decode_still` decodes a picture, or a mask when asked for with the option role = "mask". It checks
what the file declares (`still_headers`) before it decodes, and says in `info` what it changed.

Shapes: pictures (H,W) or (H,W,3), uint8 or uint16; masks (H,W), uint8 or uint16 label values.

info: source_format, bits, colour, orientation (EXIF code that was applied, 1 = none),
lossy, notes (list of words, one per change that a reader of the data should know).
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Mapping
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any, TypeAlias

import imagecodecs
import numpy as np
import numpy.typing as npt
from PIL import Image

from renalkit.domain.image import brightest
from renalkit.errors import Reason
from renalkit.readers.contract import Limits
from renalkit.readers.still_headers import Header, read_header, refused

Array: TypeAlias = npt.NDArray[Any]
Info: TypeAlias = dict[str, Any]

CODEC_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    MemoryError,
    RuntimeError,
    struct.error,
    Image.DecompressionBombError,
)
"""What image libraries raise on damaged files; anything else is a fault of ours."""

_TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a.swapaxes(0, 1)[::-1],
}


def read_whole(path: Path, limits: Limits) -> bytes:
    """The bytes of a regular file within the size limit.

    Raises DecodeFailed: SPECIAL_FILE, TOO_LARGE, UNREADABLE, CHANGED_DURING_READ.
    """
    try:
        # Without O_NONBLOCK opening a FIFO would wait for a writer for ever.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise refused(
            Reason.UNREADABLE,
            f"cannot be opened ({error.strerror})",
            remedy="check that the file exists and that you may read it",
        ) from error
    try:
        before = os.fstat(handle)
        if not stat.S_ISREG(before.st_mode):
            raise refused(Reason.SPECIAL_FILE, "not a regular file", remedy="leave it out")
        if before.st_size > limits.file_bytes:
            raise refused(
                Reason.TOO_LARGE, f"{before.st_size} bytes", f"at most {limits.file_bytes}"
            )
        with os.fdopen(handle, "rb", closefd=False) as file:
            data = file.read(before.st_size + 1)
        after = os.fstat(handle)
    except OSError as error:
        raise refused(
            Reason.UNREADABLE,
            f"cannot be read ({error.strerror})",
            remedy="copy the file again from its medium",
        ) from error
    finally:
        os.close(handle)
    if len(data) != before.st_size or after.st_mtime_ns != before.st_mtime_ns:
        raise refused(
            Reason.CHANGED_DURING_READ,
            "the file changed while it was read",
            remedy="wait until nothing writes to the folder, then read it again",
        )
    return data


def _opened(data: bytes, header: Header) -> Image.Image:
    """The decoded Pillow image; only the recognised format's decoder is ever tried."""
    try:
        image = Image.open(BytesIO(data), formats=[header.format.upper()])
        image.load()
    except CODEC_ERRORS as error:
        raise _damaged(header) from error
    expected = (header.cols, header.rows)
    if image.size != expected and image.size != (expected[::-1] if header.orientation > 4 else ()):
        raise refused(Reason.DIMS_MISMATCH, f"decoded to {image.size[1]} x {image.size[0]} pixels")
    return image


def _damaged(header: Header) -> Exception:
    return refused(
        Reason.CODEC_ERROR,
        f"{header.format.upper()} pixels cannot be decoded: the file is damaged",
        remedy="copy or export the picture again",
    )


def _orientation(image: Image.Image, header: Header) -> int:
    """EXIF orientation still to be applied; TIFF pixels are turned by the decoder already."""
    if header.format == "tiff":
        return 1
    try:
        code = image.getexif().get(0x0112, 1)
    except CODEC_ERRORS:
        return 1  # unreadable camera data do not concern the pixels
    return code if isinstance(code, int) and code in _TURNS else 1


def _samples(data: bytes, header: Header, image: Image.Image, *, keep_index: bool) -> Array:
    """Stored samples (H,W) or (H,W,C); palettes as colours (RGB or RGBA) unless keep_index."""
    try:
        if header.format == "png" and header.bits == 16 and header.samples > 1:
            # Pillow reduces colour PNG of 16 bits to 8 without a word.
            return np.asarray(imagecodecs.png_decode(data))
        if image.mode in ("P", "PA"):
            if keep_index and image.mode == "P":
                return np.asarray(image)
            return np.asarray(image.convert("RGBA" if header.alpha else "RGB"))
        if image.mode == "1":
            return np.asarray(image).astype(np.uint8) * np.uint8(255)
        if image.mode in ("I;16", "I;16B", "I"):
            return np.asarray(image).astype(np.uint16)
        if "transparency" in image.info and header.alpha and image.mode in ("L", "RGB"):
            image = image.convert("RGBA")
        if image.mode in ("L", "LA", "RGB", "RGBA"):
            return np.asarray(image)
    except (*CODEC_ERRORS, imagecodecs.PngError) as error:
        raise _damaged(header) from error
    raise refused(Reason.FORMAT_REFUSED, f"colour model {image.mode}", "grey, palette or RGB")


def _split_alpha(samples: Array) -> tuple[Array, Array | None]:
    """Colour part (H,W) or (H,W,3) and the alpha plane (H,W), if there is one."""
    if samples.ndim == 2 or samples.shape[2] == 3:
        return samples, None
    if samples.shape[2] == 2:
        return samples[..., 0], samples[..., 1]
    return samples[..., :3], samples[..., 3]


def _is_grey(colour: Array) -> bool:
    return bool(
        np.array_equal(colour[..., 0], colour[..., 1])
        and np.array_equal(colour[..., 1], colour[..., 2])
    )


def _info(header: Header, orientation: int, colour: bool) -> Info:
    notes: list[str] = []
    applied = orientation if orientation != 1 else header.orientation
    if applied != 1:
        notes.append(f"turned as its orientation tag {applied} says")
    return {
        "source_format": header.format,
        "bits": header.bits,
        "colour": colour,
        "orientation": applied,
        "lossy": header.format == "jpeg",
        "notes": notes,
    }


def decode_options(limits: Limits, role: str = "image") -> dict[str, Any]:
    """The JSON options of a decoding task: what it may use, and image or mask."""
    return {"role": role, "limits": asdict(limits)}


def limits_from(options: Mapping[str, Any]) -> Limits:
    """The limits in a task's options; the defaults where none are given."""
    return Limits(**options.get("limits", {}))


def decode_still(path: Path, options: Mapping[str, Any]) -> tuple[Array, Info]:
    """Pixels of one picture or, with role = "mask", label values of one mask.

    options: see `decode_options`. Raises DecodeFailed with its Reason; see `decode_picture` and
    `decode_mask` for the rules.
    """
    decode = decode_mask if options.get("role") == "mask" else decode_picture
    return decode(path, limits_from(options))


def decode_picture(path: Path, limits: Limits) -> tuple[Array, Info]:
    """Pixels of one picture: (H,W) or (H,W,3), uint8 or uint16.

    Colour with R = G = B becomes one plane; palettes become colours; an alpha plane is dropped
    when it is opaque everywhere; the EXIF orientation is applied. info names each of these.

    Raises DecodeFailed with the Reason; transparent pictures (FORMAT_REFUSED), pictures of one
    value everywhere (CONSTANT_IMAGE), and everything `read_header` and `check_size` refuse.
    """
    data = read_whole(path, limits)
    header = read_header(data, limits)
    image = _opened(data, header)
    pixels, alpha = _split_alpha(_samples(data, header, image, keep_index=False))
    orientation = _orientation(image, header)
    grey = pixels.ndim == 2 or _is_grey(pixels)
    info = _info(header, orientation, colour=not grey)
    if alpha is not None:
        if (alpha != np.iinfo(alpha.dtype).max).any():
            raise refused(
                Reason.FORMAT_REFUSED,
                "picture with transparent parts",
                "an opaque picture",
                "export it without overlay or transparency",
            )
        info["notes"].append("opaque alpha plane dropped")
    if header.palette:
        info["notes"].append("palette resolved to grey" if grey else "palette resolved to colours")
    if grey and pixels.ndim == 3:
        pixels = pixels[..., 0]
        if not header.palette:
            info["notes"].append("three equal colour planes kept as one")
    if (pixels == pixels.flat[0]).all() if grey else (pixels == pixels[0, 0]).all():
        raise refused(
            Reason.CONSTANT_IMAGE, "one value everywhere", "a picture", "leave blank frames out"
        )
    return np.ascontiguousarray(_TURNS[orientation](pixels)), info


def decode_mask(path: Path, limits: Limits) -> tuple[Array, Info]:
    """Label values of one mask file: (H,W), uint8 or uint16, 0 is background.

    A palette whose first colour is black keeps its indices (the usual label map). Colour masks
    take the largest sample. Fully transparent pixels are background; where nothing but the alpha
    plane is drawn, alpha is the mask. Depths of 1, 2 and 4 bits keep their stored values.

    Raises DecodeFailed like `decode_picture`, except that a constant mask is no error here.
    """
    data = read_whole(path, limits)
    header = read_header(data, limits)
    image = _opened(data, header)
    first = image.getpalette() if image.mode == "P" else None
    labels = first is not None and first[:3] == [0, 0, 0] and not header.alpha
    values, alpha = _split_alpha(_samples(data, header, image, keep_index=labels))
    orientation = _orientation(image, header)
    info = _info(header, orientation, colour=False)
    if values.ndim == 3:
        values = brightest(values)
    if alpha is not None and (alpha != np.iinfo(alpha.dtype).max).any():
        values = np.where(alpha > 0, values, 0) if values.any() else alpha
        info["notes"].append("transparent pixels taken as background")
    if not header.palette and header.samples == 1 and header.bits < 8:
        # One to four bits are spread over 0..255 by the decoder: take the stored values back.
        values = values // np.uint8(255 // (2**header.bits - 1))
    return np.ascontiguousarray(_TURNS[orientation](values)), info
