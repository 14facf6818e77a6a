"""How long does one JPEG ultrasound frame take here and in pydicom?

A generated cine of 768 x 1024 YBR_FULL_422 frames (grey sector, coloured text and scale bar in the
margin, as consoles draw them), a second one coloured all over (our slowest case), and the JPEG
files of the real ultrasound set where RENALKIT_DATA names it. Both sides decode every frame to
RGB from a file on disk: pydicom by `dcmread(path).pixel_array` with its default plugins (all frames
in one array, it has no other way), ours by opening the lazy stack a study holds and taking one
frame after the other, as ingest does; walking through the file and checking the digest of each
payload are included. Parity: identical pixels of every frame.

    python benchmarks/bench_ingest.py [--frames N] [--quick]
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import warnings
from pathlib import Path

import book
import cv2
import imagecodecs
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, JPEGBaseline8Bit

from renalkit.readers.contract import Limits
from renalkit.readers.dicom_pixels import LazyDicomFrames, describe, frame_places, read_payload
from renalkit.readers.dicom_prescan import FileSource, prescan

ROWS, COLS = 768, 1024


def console_frame(seed: int, *, coloured: bool) -> np.ndarray:
    """One RGB console picture: speckle in a sector, text, a colour bar."""
    rng = np.random.default_rng(seed)
    speckle = cv2.GaussianBlur(rng.rayleigh(60, (ROWS, COLS)).astype(np.float32), (0, 0), 1.2)
    y, x = np.mgrid[0:ROWS, 0:COLS]
    sector = (np.abs(x - COLS / 2) < (y + 60) * 0.7) & (np.hypot(x - COLS / 2, y + 60) < 780)
    grey = np.where(sector, np.clip(speckle, 0, 255), 0).astype(np.uint8)
    frame = np.stack([grey] * 3, axis=-1)
    cv2.putText(
        frame, "MI 1.1  TIs 0.4", (20, 40), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (250, 240, 120), 1
    )
    ramp = np.linspace(255, 0, 40).astype(np.uint8)
    frame[60:100, 980:1000] = np.stack([ramp, ramp // 2, 255 - ramp], -1)[:, None]
    if coloured:
        frame[..., 0] = cv2.add(frame[..., 0], (x // 5).astype(np.uint8))
        frame[..., 2] = cv2.add(frame[..., 2], (y // 4).astype(np.uint8))
    return frame


def write_cine(
    path: Path, frames: int, *, coloured: bool, shape: tuple[int, int] = (ROWS, COLS)
) -> None:
    """A JPEG baseline multi-frame ultrasound file; a console's frames, or their upper left part,
    sixteen of them over and over."""
    rows, cols = shape
    drawn = [
        bytes(
            imagecodecs.jpeg8_encode(
                np.ascontiguousarray(console_frame(i, coloured=coloured)[:rows, :cols]),
                level=90,
                subsampling="422",
            )
        )
        for i in range(min(frames, 16))
    ]
    streams = [drawn[i % len(drawn)] for i in range(frames)]
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.3.1")
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3.4")
    data.Modality, data.PhotometricInterpretation = "US", "YBR_FULL_422"
    data.Rows, data.Columns, data.NumberOfFrames = rows, cols, frames
    data.SamplesPerPixel, data.PlanarConfiguration = 3, 0
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation, data.FrameTime = 7, 0, "40"
    data.PixelData = encapsulate(streams)
    data["PixelData"].VR = "OB"
    data.save_as(path, enforce_file_format=True)


def payload_digests(path: Path) -> list[str]:
    """What the decode worker hands over at ingest."""
    scan = prescan(path, Limits())
    with FileSource(path) as source:
        places, _ = frame_places(scan, describe(scan, Limits()), source)
        return [hashlib.sha256(read_payload(source, place)).hexdigest() for place in places]


def open_stack(path: Path, digests: list[str]) -> LazyDicomFrames:
    """The stack a study would hold for this file."""
    limits = Limits()
    scan = prescan(path, limits)
    about = describe(scan, limits)
    with FileSource(path) as source:
        places, _ = frame_places(scan, about, source)
    return LazyDicomFrames(path, about, places, digests, None)


def pydicom_frames(path: Path) -> np.ndarray:
    data = pydicom.dcmread(path)
    pixels = data.pixel_array
    return pixels if int(data.get("NumberOfFrames") or 1) > 1 else pixels[None]


def go_through(path: Path, digests: list[str]) -> None:
    stack = open_stack(path, digests)
    for index in range(len(stack)):
        stack[index]


def measure(found: book.Book, name: str, path: Path) -> None:
    """Both sides on one file."""
    reference, digests = pydicom_frames(path), payload_digests(path)
    mine = open_stack(path, digests)
    count = len(mine)
    same = len(reference) == count
    differing = sum(not np.array_equal(mine[i], reference[i]) for i in range(count) if same)
    found.compare(
        f"{name}, {count} frames",
        "ms per frame",
        {
            "renalkit": lambda: go_through(path, digests),
            "pydicom": lambda: pydicom_frames(path),
        },
        peer="pydicom",
        parity=[book.Parity("frames whose pixels differ", differing if same else np.inf, 0)],
        scale=1000 / count,
    )


def is_jpeg(path: Path) -> bool:
    syntax = str(pydicom.dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID)
    return syntax == "1.2.840.10008.1.2.4.50"


def bench(found: book.Book) -> None:
    warnings.filterwarnings("ignore", module="pydicom")  # a real file misspells its character set
    with tempfile.TemporaryDirectory() as folder:
        for name, coloured in (("console 768x1024", False), ("all coloured 768x1024", True)):
            path = Path(folder) / f"{coloured}.dcm"
            write_cine(path, 2 if found.quick else found.given.frames, coloured=coloured)
            measure(found, name, path)
    real = Path(os.environ.get("RENALKIT_DATA", "")) / "us_dicom"
    if found.quick or "RENALKIT_DATA" not in os.environ or not real.is_dir():
        print("no real files: RENALKIT_DATA is not set, or --quick", file=sys.stderr)
        return
    for path in filter(is_jpeg, sorted(real.glob("*.dcm"))):
        measure(found, path.stem, path)


if __name__ == "__main__":
    sys.exit(
        book.main(
            __file__,
            __doc__,
            bench,
            repeats=7,
            options=lambda parser: parser.add_argument("--frames", type=int, default=12),
        )
    )
