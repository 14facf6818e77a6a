"""How does a picture of one CT slice (PNG, JPEG, TIFF, BMP) become a volume of one slice?

A picture knows neither Hounsfield units nor millimetres; whoever made it may. window_hu says which
HU are black and white: grey values are spread evenly between them, and what lay beyond is lost.
Without a spacing the volume's own (`Volume.spacing_mm`) is None and its grid counts pixels: nothing
in mm may be said of it. A picture is taken to lie as CT is shown: front up, the patient's right on
the left.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from renalkit.domain.geometry import SpacingMm
from renalkit.domain.image import Mode, Source, pixel_sha256
from renalkit.domain.volume import Volume, VolumeGrid, affine_of
from renalkit.errors import InputRefused, Reason
from renalkit.readers.contract import Decoder, ReadOptions
from renalkit.readers.nifti import LABELS
from renalkit.readers.stills import decode_options
from renalkit.store.files import sha256_file

KIND = "picture"
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")


def is_picture(path: Path) -> bool:
    """Whether a file is named as a picture."""
    return path.name.lower().endswith(SUFFIXES)


def slice_grid(shape: Sequence[int], spacing_mm: SpacingMm | None) -> VolumeGrid:
    """The grid of a picture (H,W); in pixels where the spacing is unknown. A slice is 1 thick."""
    rows, cols = shape
    dy, dx = spacing_mm or (1.0, 1.0)
    affine = ((0, 0, dx, 0), (0, dy, 0, 0), (1, 0, 0, 0), (0, 0, 0, 1))
    return VolumeGrid((1, rows, cols), affine_of(affine))


def read_ct_picture(
    path: Path,
    window_hu: tuple[float, float],
    spacing_mm: SpacingMm | None,
    options: ReadOptions,
    worker: Decoder,
) -> Volume:
    """A slice (1,H,W) in HU.

    Raises:
        InputRefused: what the decoding of pictures refuses; NOT_HU, a picture in colour.
        ValueError: a window that is no range.
    """
    low, high = window_hu
    if not -1024 <= low < high <= 32767:
        raise ValueError(f"window {window_hu}: expected rising HU from -1024 on")
    grey = _decoded(path, "image", options, worker)
    if grey.ndim == 3:
        if (grey[..., :1] != grey).any():
            raise InputRefused(
                Reason.NOT_HU,
                "a picture in colour",
                where=path.name,
                expected="grey values",
                remedy="export the slice without marks and colours",
            )
        grey = grey[..., 0]
    white = 255 if grey.dtype == np.uint8 else 65535
    hu = np.rint(low + grey.astype(np.float64) * ((high - low) / white)).astype(np.int16)[None]
    return Volume(
        pixels=hu,
        sha256=pixel_sha256(hu),
        mode=Mode.CT,
        source=Source(sha256_file(path), path.name, KIND),
        spacing_mm=spacing_mm,
        grid=slice_grid(grey.shape, spacing_mm),
    )


def read_picture_labels(path: Path, options: ReadOptions, worker: Decoder) -> npt.NDArray[np.uint8]:
    """Labels (1,H,W) of a picture whose values are the labels.

    Raises:
        InputRefused: what the decoding of pictures refuses; UNKNOWN_LABEL.
    """
    values = read_picture_values(path, options, worker)
    strange = sorted(set(np.unique(values).tolist()) - set(LABELS))
    if strange:
        raise InputRefused(
            Reason.UNKNOWN_LABEL,
            f"label values {', '.join(map(str, strange[:5]))}",
            where=path.name,
            expected="0 neither, 1 kidney, 2 tumour, 3 cyst",
            remedy="renumber the labels",
        )
    return values


def read_picture_values(path: Path, options: ReadOptions, worker: Decoder) -> npt.NDArray[np.uint8]:
    """Whole numbers (1,H,W) up to 255: labels, or lesions by number.

    Raises:
        InputRefused: what the decoding of pictures refuses; BAD_ANNOTATION, larger numbers.
    """
    values = _decoded(path, "mask", options, worker)
    if int(values.max()) > 255:
        raise InputRefused(
            Reason.BAD_ANNOTATION,
            f"values up to {int(values.max())}",
            where=path.name,
            expected="at most 255",
            remedy="renumber them",
        )
    return values.astype(np.uint8)[None]


def _decoded(path: Path, role: str, options: ReadOptions, worker: Decoder) -> npt.NDArray[Any]:
    try:
        return worker.run("still", path, decode_options(options.limits, role)).pixels
    except InputRefused as refused:
        refused.where = refused.where or path.name
        raise
