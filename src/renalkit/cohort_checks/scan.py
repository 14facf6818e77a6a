"""What do the guards need of every picture? Each frame is decoded once and boiled down here.

Legend: N frames, S = 32 side of a fingerprint, K = 96 side of a thumbnail.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from renalkit.cohort_checks.burned_in import Marks, find_marks
from renalkit.domain.cohort import Cohort, study_label

Float32 = npt.NDArray[np.float32]

PRINT_SIDE = 32
THUMB_SIDE = 96
BORDER_SHARE = 0.06
_DARK = 6.0
_APART = 0.1


@dataclass(frozen=True, slots=True)
class Look:
    """One frame as the guards see it. label is the class of its study, None when not one.

    print: detail of the picture (S,S), unit length and zero mean, all zero without contrast.
    thumb: the picture at (K,K), 8 bit. border: statistics of the outer 6 per cent.
    """

    patient: str
    study: str
    label: str | None
    clip: int
    frame: int
    frame_sha256: str
    print: Float32 = field(compare=False, repr=False)
    thumb: npt.NDArray[np.uint8] = field(compare=False, repr=False)
    border: tuple[float, ...]
    marks: Marks


@dataclass(frozen=True, slots=True)
class Scan:
    """A cohort with one `Look` per examined frame, in order of study, clip and frame.

    links: pairs of patients known to belong together (from a link table of the hospital).
    """

    cohort: Cohort
    looks: tuple[Look, ...]
    links: tuple[tuple[str, str], ...] = ()


def scan_cohort(
    cohort: Cohort,
    *,
    frames_per_clip: int = 32,
    links: tuple[tuple[str, str], ...] = (),
    marks: bool = True,
) -> Scan:
    """Look at every still and at up to `frames_per_clip` evenly spaced frames of every cine.

    marks: look for burned-in marks too, which takes most of the time.

    Raises ValueError when a link names a patient who is not in the cohort.
    """
    unknown = {p for pair in links for p in pair} - set(cohort.patients)
    if unknown:
        raise ValueError(f"links name {len(unknown)} patients not in the cohort: {min(unknown)}")
    looks: list[Look] = []
    for study in cohort.studies:
        label = study_label(study)
        for c, clip in enumerate(study.clips):
            wanted = min(clip.n_frames, frames_per_clip)
            for f in np.unique(np.linspace(0, clip.n_frames - 1, wanted).round().astype(int)):
                pixels = np.asarray(clip.pixels[int(f)])
                grey = grey_of(pixels)
                thumb = cv2.resize(grey, (THUMB_SIDE, THUMB_SIDE), interpolation=cv2.INTER_AREA)
                looks.append(
                    Look(
                        study.patient,
                        study.key,
                        label,
                        c,
                        int(f),
                        frame_sha256(pixels),
                        fingerprint(grey),
                        np.clip(thumb.round(), 0, 255).astype(np.uint8),
                        border_statistics(grey),
                        find_marks(pixels) if marks else Marks(0, 0, 0),
                    )
                )
    return Scan(cohort, tuple(looks), links)


def frame_sha256(pixels: npt.NDArray[np.generic]) -> str:
    """Digest of one decoded frame: shape, dtype and bytes."""
    head = f"{pixels.shape} {pixels.dtype.newbyteorder('<').str}".encode()
    little = np.ascontiguousarray(pixels).astype(pixels.dtype.newbyteorder("<"), copy=False)
    return hashlib.sha256(head + little.tobytes()).hexdigest()


def grey_of(pixels: npt.NDArray[np.generic]) -> Float32:
    """Brightness 0..255 (H,W) of a picture (H,W) or (H,W,3); other depths by their own range."""
    image = np.asarray(pixels, np.float32)
    if image.ndim == 3:
        image = (image @ np.array([0.299, 0.587, 0.114], np.float32)).astype(np.float32)
    if pixels.dtype != np.uint8:
        low, high = float(image.min()), float(image.max())
        image = (image - low) * np.float32(255.0 / (high - low)) if high > low else image * 0
    return image


def shown(grey: Float32) -> Float32:
    """1 where the picture shows something, 0 in dark areas connected with the border (H,W).

    The black around a sector is the same in every picture of a machine, and so are the scales,
    icons and words that stand in it: taken as content they would make strangers look alike. What
    stands apart and is smaller than a tenth of the largest part does not count.
    """
    dark = (grey <= _DARK).astype(np.uint8)
    _, parts = cv2.connectedComponents(dark, connectivity=4)
    rim = np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])
    inside = (~np.isin(parts, np.unique(rim[rim > 0]))).astype(np.uint8)
    count, apart, facts, _ = cv2.connectedComponentsWithStats(inside, connectivity=8)
    if count > 2:
        area = facts[1:, cv2.CC_STAT_AREA]
        inside = np.isin(apart, 1 + np.flatnonzero(area >= _APART * area.max())).astype(np.uint8)
    return inside.astype(np.float32)


def detail(grey: Float32, sigma_px: float) -> Float32:
    """What remains of a picture (H,W) after its smooth part is taken away, inside what is shown.

    The smooth part is a Gaussian mean over shown pixels only (normalised convolution), so the edge
    of the sector leaves no trace. Brightness and slow gain changes drop out.
    """
    inside = shown(grey)
    weight = cv2.GaussianBlur(inside, (0, 0), sigma_px)
    smooth = cv2.GaussianBlur(grey * inside, (0, 0), sigma_px) / np.maximum(weight, 1e-3)
    return np.asarray((grey - smooth) * inside, np.float32)


def fingerprint(grey: Float32) -> Float32:
    """Detail at (S,S) with zero mean and unit length; zeros for a picture without contrast."""
    small = cv2.resize(grey, (PRINT_SIDE, PRINT_SIDE), interpolation=cv2.INTER_AREA)
    rest = detail(np.asarray(small, np.float32), 2.0)
    rest = rest - rest.mean()
    length = float(np.linalg.norm(rest))
    return (rest / length if length > 1.0 else rest * 0).astype(np.float32)


def border_statistics(grey: Float32) -> tuple[float, ...]:
    """Mean, spread, dark share and bright share of each side and mean of each corner (20 values).

    Sides are strips of 6 per cent of height or width, at least one pixel.
    """
    high = max(1, round(grey.shape[0] * BORDER_SHARE))
    wide = max(1, round(grey.shape[1] * BORDER_SHARE))
    values: list[float] = []
    for strip in (grey[:high], grey[-high:], grey[:, :wide], grey[:, -wide:]):
        values += [
            float(strip.mean()),
            float(strip.std()),
            float((strip <= _DARK).mean()),
            float((strip >= 240).mean()),
        ]
    for corner in (
        grey[:high, :wide],
        grey[:high, -wide:],
        grey[-high:, :wide],
        grey[-high:, -wide:],
    ):
        values.append(float(corner.mean()))
    return tuple(values)
