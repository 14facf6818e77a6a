"""Which DICOM compressions can be read here?

Answers from the names of installed packages alone (nothing is imported), so that `renalkit info`
is instant.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from renalkit.readers.dicom_syntaxes import (
    JPEG,
    JPEG_2000,
    JPEG_LOSSLESS,
    JPEG_LS,
    NATIVE,
    RLE,
)


@dataclass(frozen=True, slots=True)
class Codec:
    """One compression: its transfer syntaxes, and the package (pip name) that decodes it."""

    name: str
    transfer_syntaxes: tuple[str, ...]
    available: bool
    package: str


_NEEDS = (
    ("uncompressed and deflated", NATIVE, "numpy", "numpy"),
    ("RLE", RLE, "imagecodecs", "imagecodecs"),
    ("JPEG baseline and extended", JPEG, "imagecodecs", "imagecodecs"),
    ("JPEG lossless", JPEG_LOSSLESS, "imagecodecs", "imagecodecs"),
    ("JPEG-LS", JPEG_LS, "jpeg_ls", "pyjpegls"),
    ("JPEG 2000 and HTJ2K", JPEG_2000, "openjpeg", "pylibjpeg-openjpeg"),
)


def available_codecs() -> tuple[Codec, ...]:
    """Every compression this package knows, with whether its decoder is installed."""
    return tuple(
        Codec(name, syntaxes, find_spec(module) is not None, package)
        for name, syntaxes, module, package in _NEEDS
    )
