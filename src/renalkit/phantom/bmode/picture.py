"""What would a curvilinear probe show of this kidney? A B-mode generator with known truth.

The chain is that of a scanner: scatterers -> point-spread function -> envelope -> attenuation and
depth gain -> log compression -> scan conversion. It works at baseband: demodulation removes the
carrier, so scatterers are complex Gaussian numbers. Many of them share one resolution cell, hence
fully developed speckle with a Rayleigh envelope (mean over deviation 1.91; Goodman, Statistical
Optics, 2nd ed., section 2.9; Wagner et al., IEEE Trans. Sonics Ultrason. 30, 156, 1983).

The point-spread function is separable and varies with depth. Along the beam it is a Gaussian pulse.
Across, it is the product of a transmit beam of fixed focus, a Gaussian beam with its curved
wavefront, and a receive beam focused at every depth:

    h(x, z) = exp(-a(z) x^2),  a = (k/2) (z_R + i (z - z_f)) / ((z - z_f)^2 + z_R^2) + 1 / w_r^2

with wave number k, focus z_f, Rayleigh range z_R (A. Siegman, Lasers, ch. 17, read for sound) and
w_r from the receive f-number, which rises once the whole aperture is in use. The intensity of
speckle is then correlated over exp(-|a|^2 x^2 / Re a) (Siegert relation): `speckle_size_mm`.
Between depth zones the kernels are blended; the mixture is scaled to unit power.

A machine that averages L independent looks (compounding) raises the signal-to-noise ratio of its
speckle from 1.91 to 1.91 sqrt(L) and leaves the correlation lengths; the statistics of one look are
those of `looks=1`. Smooth surfaces add a coherent part. Grey values are

    255 u^gamma,  u = 1 + (L - TOP_SHARE * DR) / DR clipped to 0..1

of the level L in dB over cortex at nominal gain and the dynamic range DR; `levels_db` undoes it.

What it does not model: multiple scattering, refraction but for shadows at the flanks of a mass,
grating lobes, motion.
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

from renalkit.phantom.bmode.anatomy import (
    Anatomy,
    Label,
    Side,
    TissueMap,
    View,
    draw_anatomy,
    draw_view,
    tissue_map,
)
from renalkit.phantom.bmode.field import Plane
from renalkit.phantom.bmode.lesion import draw_features

TOP_SHARE = 0.56
"""White lies this share of the dynamic range above cortex at nominal gain."""

TISSUE_GRID = 400
"""Points along a side of the square on which tissue is laid out: other grids give other detail."""

_ZONES = 8
_FOCUS_SHARE = 0.45
_TRANSMIT_F, _RECEIVE_F, _APERTURE_MM = 3.0, 2.2, 22.0
_CLUTTER = 10 ** (-28.0 / 20.0)


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
    includes sinus and mass; both end at the fan's border. kind: (S, S) uint8 of `Tissue`, also
    beyond the border. mm_per_px: of both axes.
    label: benign | malignant | normal. size_mm: longest diameter of the mass in its largest
    section, None without a mass. parameters: plain values that give the picture again.
    """

    pixels: npt.NDArray[np.uint8]
    lesion_mask: npt.NDArray[np.bool_]
    kidney_mask: npt.NDArray[np.bool_]
    kind: npt.NDArray[np.uint8]
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
    tissue = tissue_map(anatomy, view, *pixel_points(scanner, TISSUE_GRID), scanner.radius_mm)
    echo, specular, loss = (
        _to_beams(plane, scanner)
        for plane in (tissue.echo_db, tissue.specular_db, tissue.attenuation_db_mm)
    )
    rng = np.random.default_rng([view.seed, 7])
    loss_db = np.cumsum(loss, axis=0) * np.float32(scanner.depth_mm / scanner.samples)
    amplitude = _from_db(echo - loss_db)
    # The slice has a thickness: a little of the neighbourhood fills what is free of echoes.
    around = np.asarray(cv2.blur(amplitude, (9, 25)), np.float32)
    amplitude = np.maximum(amplitude, np.float32(_CLUTTER) * around)
    coherent = _from_db(specular - loss_db)
    envelope = np.zeros_like(amplitude)
    for _ in range(scanner.looks):
        envelope += speckle_envelope(amplitude, scanner, rng, coherent=coherent)
    envelope /= np.float32(scanner.looks)
    grey = _compress(envelope, scanner, view, rng)

    rows, columns, fan = _screen_maps(scanner, size)
    # Several samples share a pixel of a small picture: their mean is shown.
    shared = round(scanner.field_mm / size / (scanner.depth_mm / scanner.samples))
    if shared > 1:
        grey = np.asarray(cv2.blur(grey, (1, shared | 1)), np.float32)
    pixels = np.asarray(
        cv2.remap(grey, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    )
    pixels = np.where(fan, np.rint(pixels), 0).astype(np.uint8)
    lesion_mask, kidney_mask = _masks(tissue, size, fan)
    return PhantomImage(
        pixels=pixels,
        lesion_mask=lesion_mask,
        kidney_mask=kidney_mask,
        kind=np.asarray(
            cv2.resize(tissue.kind, (size, size), interpolation=cv2.INTER_NEAREST), np.uint8
        ),
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
    field = rng.standard_normal((*amplitude.shape, 2), dtype=np.float32)
    field *= (amplitude * np.float32(math.sqrt(0.5)))[..., None]
    axial = _axial_kernel(scanner)
    if coherent is not None:
        # Kernels keep the power of noise; a coherent line would be enlarged by their sum.
        field[..., 0] += coherent / np.float32(axial.sum())
    field = _along_beams(field, axial, scanner)
    return np.asarray(cv2.magnitude(field[..., 0], field[..., 1]), dtype=np.float32)


def beam_width_mm(scanner: Scanner, depth_mm: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Full width at half maximum of |h| across the scan plane at the depths, any shape."""
    return 2 * np.sqrt(math.log(2) / _lateral_exponent(scanner, depth_mm).real)


def speckle_size_mm(
    scanner: Scanner, depth_mm: npt.NDArray[np.float64]
) -> tuple[float, npt.NDArray[np.float64]]:
    """Full width at half maximum of the correlation of speckle intensity, axial and lateral.

    The axial one is the same at all depths; the lateral ones belong to the depths, any shape.
    For h = exp(-a x^2) the field is correlated over exp(-|a|^2 x^2 / (2 Re a)) and its intensity
    over the square of that.
    """
    exponent = _lateral_exponent(scanner, depth_mm)
    lateral = 2 * np.sqrt(math.log(2) * exponent.real) / np.abs(exponent)
    # A Gaussian pulse of deviation s: correlation of the intensity exp(-x^2 / (2 s^2)).
    return 2 * math.sqrt(2 * math.log(2)) * _pulse_mm(scanner), lateral


def levels_db(
    grey: npt.NDArray[Any], scanner: Scanner, gain_db: float = 0.0
) -> npt.NDArray[np.float32]:
    """Level in dB over cortex of grey values 0..255 of any shape: the log compression undone.

    Values 0 and 255 stand for anything beyond the dynamic range. gain_db: the operator's, if known.
    """
    share = np.power(np.asarray(grey, np.float32) / np.float32(255.0), 1 / scanner.gamma)
    level = (share - 1.0 + TOP_SHARE) * scanner.dynamic_range_db - scanner.gain_db - gain_db
    return level.astype(np.float32)


def _lateral_exponent(
    scanner: Scanner, depth_mm: npt.NDArray[np.float64]
) -> npt.NDArray[np.complex128]:
    """a of h = exp(-a x^2), 1/mm^2."""
    depth_mm = np.asarray(depth_mm, np.float64)
    wavelength = 1.54 / scanner.frequency_mhz
    # A Gaussian of full width F lambda at half maximum falls to 1/e at F lambda / (2 sqrt ln 2).
    waist = _TRANSMIT_F * wavelength / (2 * math.sqrt(math.log(2)))
    rayleigh_mm = math.pi * waist**2 / wavelength
    beyond = depth_mm - _FOCUS_SHARE * scanner.depth_mm
    wave_number = 2 * math.pi / wavelength
    transmit = wave_number / 2 * (rayleigh_mm + 1j * beyond) / (beyond**2 + rayleigh_mm**2)
    receive_f = np.maximum(_RECEIVE_F, depth_mm / _APERTURE_MM)
    receive = receive_f * wavelength / (2 * math.sqrt(math.log(2)))
    return np.asarray(transmit + 1 / receive**2, np.complex128)


def _pulse_mm(scanner: Scanner) -> float:
    """Standard deviation along depth of a pulse of about two periods."""
    return 1.3 * 1.54 / scanner.frequency_mhz / 2.355


def _axial_kernel(scanner: Scanner) -> npt.NDArray[np.float32]:
    """The pulse over depth samples, of unit energy."""
    sigma = _pulse_mm(scanner) / (scanner.depth_mm / scanner.samples)
    reach = max(1, math.ceil(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return (kernel / np.sqrt((kernel**2).sum())).astype(np.float32)


@lru_cache(maxsize=16)
def _lateral_kernels(
    scanner: Scanner,
) -> tuple[npt.NDArray[np.complex64], npt.NDArray[np.float32]]:
    """Kernel over beams in each depth zone (zones, taps), and each sample's weights (.., zones).

    Between two zones the field is a mixture of both; the weights are scaled so that its power is
    that of the scatterers.
    """
    samples = scanner.samples
    places = np.linspace(0.0, 1.0, _ZONES) ** 1.3
    depth_mm = places * scanner.depth_mm
    pitch_mm = (scanner.radius_mm + depth_mm) * math.radians(2 * scanner.half_angle_deg)
    pitch_mm /= scanner.beams - 1
    exponent = _lateral_exponent(scanner, depth_mm)
    reach = math.ceil(float((2.6 / np.sqrt(2 * exponent.real) / pitch_mm).max()))
    taps = np.arange(-reach, reach + 1)
    kernels = np.exp(-exponent[:, None] * (taps * pitch_mm[:, None]) ** 2)
    kernels /= np.sqrt((np.abs(kernels) ** 2).sum(axis=1, keepdims=True))
    at = (np.arange(samples) + 0.5) / samples
    weights = np.stack([np.interp(at, places, row) for row in np.eye(_ZONES)], axis=1)
    power = np.einsum("si,it,sj,jt->s", weights, kernels, weights, kernels.conj()).real
    weights /= np.sqrt(power)[:, None]
    return kernels.astype(np.complex64), weights.astype(np.float32)


def _along_beams(field: Plane, axial: npt.NDArray[np.float32], scanner: Scanner) -> Plane:
    """Convolve (samples, beams, 2) with the pulse along depth and the varying beam across it."""
    one = np.ones(1, np.float32)
    pulsed = np.asarray(cv2.sepFilter2D(field, cv2.CV_32F, one, axial), dtype=np.float32)
    kernels, weights = _lateral_kernels(scanner)
    result = np.zeros_like(pulsed)
    for kernel, weight in zip(kernels, weights.T, strict=True):
        (used,) = np.nonzero(weight)
        rows = slice(int(used[0]), int(used[-1]) + 1)
        # Correlation and convolution agree: the kernel is symmetric.
        real, imaginary = (
            np.asarray(
                cv2.sepFilter2D(pulsed[rows], cv2.CV_32F, np.ascontiguousarray(part), one),
                dtype=np.float32,
            )
            for part in (kernel.real, kernel.imag)
        )
        real[..., 0] -= imaginary[..., 1]
        real[..., 1] += imaginary[..., 0]
        real *= weight[rows, None, None]
        result[rows] += real
    return result


def _from_db(level_db: Plane) -> Plane:
    return np.asarray(cv2.exp(level_db * np.float32(math.log(10.0) / 20.0)), np.float32)


def _compress(envelope: Plane, scanner: Scanner, view: View, rng: np.random.Generator) -> Plane:
    """Gain, noise and logarithmic compression to grey values 0..255."""
    samples, beams = envelope.shape
    depth_mm = np.linspace(0.0, scanner.depth_mm, samples, dtype=np.float32)[:, None]
    across = np.linspace(-1.0, 1.0, beams, dtype=np.float32)[None, :]
    # Signal falls with depth; the depth gain restores it but for a slope and what the operator's
    # sliders add, and lifts the noise.
    gain_db = (
        scanner.gain_db
        + view.gain_db
        + scanner.tgc_db_cm * (depth_mm - scanner.depth_mm / 2) / 10.0
        - 3.0 * across**4
    )
    if view.tgc_db:
        sliders = np.array(view.tgc_db, np.float32)[:, None]
        gain_db += cv2.resize(sliders, (1, samples), interpolation=cv2.INTER_CUBIC)
    if view.contact_db:
        knots = np.array(view.contact_db, np.float32)[None, :]
        gain_db = gain_db + cv2.resize(knots, (beams, 1), interpolation=cv2.INTER_CUBIC)
    # Fat and muscle of the wall defocus single beams a little more than others.
    streaks = rng.standard_normal((1, 28), dtype=np.float32)
    streaks = np.asarray(cv2.resize(streaks, (beams, 1), interpolation=cv2.INTER_CUBIC))
    gain_db = gain_db + 0.6 * streaks * np.minimum(depth_mm / np.float32(40.0), 1.0)
    noise_db = scanner.noise_db + 0.35 * scanner.frequency_mhz * (
        (depth_mm - scanner.depth_mm / 2) / 10.0
    )
    noise = rng.standard_normal((samples, beams), dtype=np.float32)
    noise = np.abs(np.asarray(cv2.GaussianBlur(noise, (0, 0), 1.2))) * np.float32(3.0)
    total = envelope + noise * np.power(np.float32(10.0), noise_db / np.float32(20.0))
    # Weak reverberation haze under the face.
    total += np.float32(0.35) * np.exp(-depth_mm / np.float32(4.0))
    level_db = np.asarray(cv2.log(total + np.float32(1e-6)), np.float32)
    level_db *= np.float32(20.0 / math.log(10.0))
    level_db += gain_db
    # Cortex (0 dB) is shown below the middle of the grey scale.
    top_db = TOP_SHARE * scanner.dynamic_range_db
    unit = np.clip((level_db - top_db) / scanner.dynamic_range_db + 1.0, 0.0, 1.0)
    if scanner.gamma != 1.0:
        unit = np.asarray(cv2.pow(unit, scanner.gamma), np.float32)
    return (unit * np.float32(255.0)).astype(np.float32)


def _masks(
    tissue: TissueMap, size: int, fan: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    interpolation = cv2.INTER_AREA if size < TISSUE_GRID else cv2.INTER_LINEAR
    lesion, kidney = (
        np.asarray(cv2.resize(np.maximum(level, -20), (size, size), interpolation=interpolation))
        > 0
        for level in (tissue.lesion_mm, tissue.kidney_mm)
    )
    return lesion & fan, kidney & fan


@lru_cache(maxsize=16)
def pixel_points(scanner: Scanner, size: int) -> tuple[Plane, Plane]:
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
    step = scanner.field_mm / TISSUE_GRID
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
    x, z = (plane.astype(np.float64) for plane in pixel_points(scanner, size))
    radius = np.hypot(x, z + scanner.radius_mm)
    angle = np.arctan2(x, z + scanner.radius_mm)
    half = math.radians(scanner.half_angle_deg)
    depth = radius - scanner.radius_mm
    fan = (np.abs(angle) <= half) & (depth >= 0) & (depth <= scanner.depth_mm)
    rows = depth / (scanner.depth_mm / scanner.samples) - 0.5
    columns = (angle + half) / (2 * half) * (scanner.beams - 1)
    return rows.astype(np.float32), columns.astype(np.float32), fan
