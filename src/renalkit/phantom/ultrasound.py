"""What would a curvilinear probe show of this kidney? A B-mode generator with known truth.

The chain is that of a scanner: scatterers -> point-spread function -> envelope -> attenuation and
gain -> log compression -> scan conversion. It works at baseband: demodulation removes the carrier,
so scatterers are complex Gaussian numbers and the pulse a real Gaussian in depth. Many scatterers
share one resolution cell, hence fully developed speckle with a Rayleigh envelope (mean over
deviation 1.91; Goodman, Statistical Optics, 2nd ed., section 2.9; Wagner et al., IEEE Trans. Sonics
Ultrason. 30, 156, 1983). Across the beam the function widens away from the focus; it is applied
in depth zones that are blended. Smooth surfaces add a coherent part.

What it does not model: multiple scattering, refraction, side lobes, motion.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from renalkit.phantom.anatomy import (
    Anatomy,
    Label,
    Plane,
    Side,
    TissueMap,
    View,
    draw_anatomy,
    draw_features,
    draw_view,
    tissue_map,
)

_TISSUE_GRID = 400
_ZONES = 7


@dataclass(frozen=True, slots=True)
class Scanner:
    """A simulated machine with a curvilinear probe.

    frequency_mhz sets the pulse length and beam width. radius_mm: of the transducer face.
    half_angle_deg and depth_mm bound the fan. gain_db shifts all levels before compression to
    dynamic_range_db. gamma: of the display curve. tgc_db_cm: remaining slope of the depth gain.
    noise_db: electronic noise relative to cortex at half depth. looks: independent envelopes
    averaged (compounding), 1 is plain speckle.
    """

    name: str
    frequency_mhz: float
    radius_mm: float
    half_angle_deg: float
    depth_mm: float
    gain_db: float
    dynamic_range_db: float
    gamma: float
    tgc_db_cm: float
    noise_db: float
    looks: int

    def __post_init__(self) -> None:
        if not (
            1.0 <= self.frequency_mhz <= 10.0
            and 20.0 <= self.radius_mm <= 100.0
            and 15.0 <= self.half_angle_deg <= 60.0
            and 60.0 <= self.depth_mm <= 250.0
            and 20.0 <= self.dynamic_range_db <= 100.0
            and self.gamma > 0
            and self.looks >= 1
        ):
            raise ValueError(f"not a possible curvilinear scanner: {self}")

    @property
    def samples(self) -> int:
        """Samples along a beam, 0.15 mm apart."""
        return round(self.depth_mm / 0.15)

    @property
    def beams(self) -> int:
        """Beams across the fan."""
        return 224

    @property
    def field_mm(self) -> float:
        """Side of the square picture that holds the whole fan."""
        half = math.radians(self.half_angle_deg)
        width = 2 * (self.radius_mm + self.depth_mm) * math.sin(half)
        height = self.depth_mm + self.radius_mm * (1 - math.cos(half))
        return 1.04 * max(width, height)

    @property
    def top_mm(self) -> float:
        """z of the picture's upper edge: the fan's upper corners lie above the face's middle."""
        half = math.radians(self.half_angle_deg)
        height = self.depth_mm + self.radius_mm * (1 - math.cos(half))
        corner = -self.radius_mm * (1 - math.cos(half))
        # A third of the free height above the fan, as on a console's screen.
        return corner - (self.field_mm - height) / 3


SCANNERS = (
    Scanner("scanner-a", 3.5, 50.0, 33.0, 115.0, 0.0, 54.0, 1.1, 0.3, -30.0, 2),
    Scanner("scanner-b", 4.2, 45.0, 35.0, 110.0, 2.0, 49.0, 1.0, -0.3, -27.0, 1),
    Scanner("scanner-c", 3.0, 55.0, 31.0, 122.0, -2.0, 60.0, 1.2, 0.0, -32.0, 3),
)
"""Three machines that differ in frequency, gain, dynamic range and compounding."""


@dataclass(frozen=True, slots=True, eq=False)
class PhantomImage:
    """A simulated B-mode picture and its truth.

    pixels: (S, S) uint8, 0 outside the fan. lesion_mask, kidney_mask: (S, S) bool; the kidney
    includes sinus and mass; both end at the fan's border. mm_per_px: of both axes.
    label: benign | malignant | normal. size_mm: longest diameter of the mass in its largest
    section, None without a mass. parameters: plain values that give the picture again.
    """

    pixels: npt.NDArray[np.uint8]
    lesion_mask: npt.NDArray[np.bool_]
    kidney_mask: npt.NDArray[np.bool_]
    mm_per_px: float
    label: Label
    size_mm: float | None
    parameters: Mapping[str, Any]


def draw_image(
    label: Label, rng: np.random.Generator, scanner: Scanner = SCANNERS[0], size: int = 256
) -> PhantomImage:
    """One picture of a new patient.

    Example:
        >>> draw_image("malignant", np.random.default_rng(0)).pixels.shape
        (256, 256)
    """
    lesion = None if label == "normal" else draw_features(label, rng)
    side: Side = "right" if rng.random() < 0.5 else "left"
    anatomy = draw_anatomy(lesion, side, rng)
    return render((anatomy, label), draw_view(anatomy, rng), scanner, size)


def render(
    subject: tuple[Anatomy, Label], view: View, scanner: Scanner, size: int = 256
) -> PhantomImage:
    """Simulate one picture; the same arguments give the same bytes.

    Args:
        subject: the anatomy and its class. view: where the probe is.
        scanner: the machine. size: side S of the picture in px.
    """
    anatomy, label = subject
    tissue = tissue_map(anatomy, view, *_grid(scanner, _TISSUE_GRID), scanner.radius_mm)
    echo, specular, loss = (
        _to_beams(plane, scanner)
        for plane in (tissue.echo_db, tissue.specular_db, tissue.attenuation_db_mm)
    )
    rng = np.random.default_rng([view.seed, 7])
    loss_db = np.cumsum(loss, axis=0) * np.float32(scanner.depth_mm / scanner.samples)
    amplitude = np.power(np.float32(10.0), (echo - loss_db) / np.float32(20.0))
    coherent = np.power(np.float32(10.0), (specular - loss_db) / np.float32(20.0))
    envelope = np.zeros_like(amplitude)
    for _ in range(scanner.looks):
        envelope += speckle_envelope(amplitude, scanner, rng, coherent=coherent)
    envelope /= np.float32(scanner.looks)
    grey = _compress(envelope, scanner, view, rng)

    rows, columns, fan = _screen_maps(scanner, size)
    pixels = np.asarray(
        cv2.remap(grey, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    )
    pixels = np.where(fan, np.rint(pixels), 0).astype(np.uint8)
    lesion_mask, kidney_mask = _masks(tissue, size, fan)
    return PhantomImage(
        pixels=pixels,
        lesion_mask=lesion_mask,
        kidney_mask=kidney_mask,
        mm_per_px=scanner.field_mm / size,
        label=label,
        size_mm=None if anatomy.lesion is None else anatomy.lesion.size_mm,
        parameters={
            "anatomy": asdict(anatomy),
            "view": asdict(view),
            "scanner": asdict(scanner),
            "size_px": size,
        },
    )


def speckle_envelope(
    amplitude: Plane,
    scanner: Scanner,
    rng: np.random.Generator,
    *,
    coherent: Plane | None = None,
) -> Plane:
    """Detected envelope of random scatterers seen through the probe.

    Args:
        amplitude: (samples, beams) root-mean-square scattering strength, >= 0.
        scanner: gives the point-spread function.
        rng: draws the scatterers.
        coherent: (samples, beams) strength of smooth reflectors, or None.

    Returns:
        (samples, beams) float32. Over uniform amplitude A the mean square is A^2 and the
        envelope is Rayleigh distributed.
    """
    parts = rng.standard_normal((2, *amplitude.shape), dtype=np.float32)
    parts *= amplitude * np.float32(math.sqrt(0.5))
    axial = _axial_kernel(scanner)
    if coherent is not None:
        # Kernels keep the power of noise; a coherent line would be enlarged by their sum.
        parts[0] += coherent / np.float32(axial.sum())
    parts = np.stack([_along_beams(part, axial, scanner) for part in parts])
    return np.asarray(cv2.magnitude(parts[0], parts[1]), dtype=np.float32)


def beam_width_mm(scanner: Scanner, depth_mm: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Full width at half maximum of the beam across the scan plane.

    Diffraction sets the width at the focus (45 % of the depth, f-number 3), beyond which and
    before which the beam opens as a Gaussian beam does.
    """
    wavelength = 1.54 / scanner.frequency_mhz
    waist = 3.0 * wavelength
    opening_mm = math.pi * waist**2 / wavelength * 1.1
    return waist * np.sqrt(1 + ((depth_mm - 0.45 * scanner.depth_mm) / opening_mm) ** 2)


def _axial_kernel(scanner: Scanner) -> npt.NDArray[np.float32]:
    """Pulse of about two periods as a Gaussian over depth samples, of unit energy."""
    full_width_mm = 2.0 * 1.54 / scanner.frequency_mhz / 2 * 1.3
    sigma = full_width_mm / 2.355 / (scanner.depth_mm / scanner.samples)
    return _gauss(sigma)


def _gauss(sigma: float) -> npt.NDArray[np.float32]:
    reach = max(1, math.ceil(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return (kernel / np.sqrt((kernel**2).sum())).astype(np.float32)


def _along_beams(field: Plane, axial: npt.NDArray[np.float32], scanner: Scanner) -> Plane:
    """Convolve with the pulse along depth and with the widening beam across it."""
    samples = field.shape[0]
    one = np.ones(1, np.float32)
    pulsed = np.asarray(cv2.sepFilter2D(field, cv2.CV_32F, one, axial), dtype=np.float32)
    centres = (np.arange(_ZONES) + 0.5) / _ZONES * scanner.depth_mm
    pitch_mm = (
        (scanner.radius_mm + centres) * math.radians(2 * scanner.half_angle_deg) / scanner.beams
    )
    sigmas = beam_width_mm(scanner, centres) / 2.355 / pitch_mm
    edges = np.clip((np.arange(_ZONES) + 0.5) / _ZONES * samples, 0, samples - 1)
    result = np.zeros_like(pulsed)
    power = np.zeros(samples, np.float32)
    index = np.arange(samples, dtype=np.float32)
    for zone in range(_ZONES):
        # Tent weights: each depth is a mixture of its two nearest zones.
        weight = np.interp(index, edges, np.eye(_ZONES)[zone]).astype(np.float32)
        (used,) = np.nonzero(weight)
        rows = slice(int(used[0]), int(used[-1]) + 1)
        blurred = cv2.sepFilter2D(
            np.ascontiguousarray(pulsed[rows]), cv2.CV_32F, _gauss(max(sigmas[zone], 0.6)), one
        )
        result[rows] += weight[rows, None] * np.asarray(blurred)
        power[rows] += weight[rows]
    return result / power[:, None]


def _compress(envelope: Plane, scanner: Scanner, view: View, rng: np.random.Generator) -> Plane:
    """Gain, noise and logarithmic compression to grey values 0..255."""
    samples, beams = envelope.shape
    depth_mm = np.linspace(0.0, scanner.depth_mm, samples, dtype=np.float32)[:, None]
    across = np.linspace(-1.0, 1.0, beams, dtype=np.float32)[None, :]
    # Signal falls with depth; the depth gain restores it but for a slope, and lifts the noise.
    gain_db = (
        scanner.gain_db
        + view.gain_db
        + scanner.tgc_db_cm * (depth_mm - scanner.depth_mm / 2) / 10.0
        - 3.0 * across**4
    )
    noise_db = scanner.noise_db + 0.35 * scanner.frequency_mhz * (
        (depth_mm - scanner.depth_mm / 2) / 10.0
    )
    noise = rng.standard_normal((samples, beams), dtype=np.float32)
    noise = np.abs(np.asarray(cv2.GaussianBlur(noise, (0, 0), 1.2))) * np.float32(3.0)
    total = envelope + noise * np.power(np.float32(10.0), noise_db / np.float32(20.0))
    # Weak reverberation haze under the face.
    total += np.float32(0.35) * np.exp(-depth_mm / np.float32(4.0))
    level_db = np.float32(20.0) * np.log10(total + np.float32(1e-6)) + gain_db
    # Cortex (0 dB) is shown somewhat below the middle of the grey scale.
    top_db = 0.45 * scanner.dynamic_range_db
    unit = np.clip((level_db - top_db) / scanner.dynamic_range_db + 1.0, 0.0, 1.0)
    return (np.power(unit, np.float32(scanner.gamma)) * np.float32(255.0)).astype(np.float32)


def _masks(
    tissue: TissueMap, size: int, fan: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    interpolation = cv2.INTER_AREA if size < _TISSUE_GRID else cv2.INTER_LINEAR
    lesion, kidney = (
        np.asarray(cv2.resize(level, (size, size), interpolation=interpolation)) > 0
        for level in (tissue.lesion_mm, tissue.kidney_mm)
    )
    return lesion & fan, kidney & fan


@lru_cache(maxsize=16)
def _grid(scanner: Scanner, size: int) -> tuple[Plane, Plane]:
    """Coordinates (x, z) in mm of the pixel centres of a picture of size x size px."""
    step = scanner.field_mm / size
    x = (np.arange(size) + 0.5) * step - scanner.field_mm / 2
    z = (np.arange(size) + 0.5) * step + scanner.top_mm
    x_mm, z_mm = np.meshgrid(x.astype(np.float32), z.astype(np.float32))
    return x_mm, z_mm


@lru_cache(maxsize=16)
def _beam_maps(scanner: Scanner) -> tuple[Plane, Plane]:
    """For each (sample, beam): column and row in the tissue grid."""
    radius = scanner.radius_mm + (np.arange(scanner.samples) + 0.5) * (
        scanner.depth_mm / scanner.samples
    )
    half = math.radians(scanner.half_angle_deg)
    angle = np.linspace(-half, half, scanner.beams)
    x = radius[:, None] * np.sin(angle)[None, :]
    z = radius[:, None] * np.cos(angle)[None, :] - scanner.radius_mm
    step = scanner.field_mm / _TISSUE_GRID
    columns = (x + scanner.field_mm / 2) / step - 0.5
    rows = (z - scanner.top_mm) / step - 0.5
    return columns.astype(np.float32), rows.astype(np.float32)


def _to_beams(plane: Plane, scanner: Scanner) -> Plane:
    columns, rows = _beam_maps(scanner)
    return np.asarray(
        cv2.remap(plane, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE),
        dtype=np.float32,
    )


@lru_cache(maxsize=16)
def _screen_maps(scanner: Scanner, size: int) -> tuple[Plane, Plane, npt.NDArray[np.bool_]]:
    """For each pixel: sample and beam to show, and whether it lies in the fan."""
    x, z = (plane.astype(np.float64) for plane in _grid(scanner, size))
    radius = np.hypot(x, z + scanner.radius_mm)
    angle = np.arctan2(x, z + scanner.radius_mm)
    half = math.radians(scanner.half_angle_deg)
    depth = radius - scanner.radius_mm
    fan = (np.abs(angle) <= half) & (depth >= 0) & (depth <= scanner.depth_mm)
    rows = depth / (scanner.depth_mm / scanner.samples) - 0.5
    columns = (angle + half) / (2 * half) * (scanner.beams - 1)
    return rows.astype(np.float32), columns.astype(np.float32), fan
