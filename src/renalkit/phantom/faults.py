"""Which faults of real archives does a simulated study carry, on purpose?

Each dial is the share of studies with that fault. What was done to which study stands in the
truth table, so that every check of the toolkit can be held against it.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields

import cv2
import numpy as np
import numpy.typing as npt

from renalkit.errors import ConfigError


@dataclass(frozen=True, slots=True)
class FaultDials:
    """Shares of studies, 0..1.

    missing_frames: a stretch of a clip (a tenth of it) or a CT slice was lost on the way. tilt:
    the CT gantry was tilted. wrong_units: spacing written in mm where cm are announced.
    duplicates: the study comes again under another patient's name. label_noise: the label table
    gives the other class. leaking_calipers: calipers were left in the picture, and of those all
    belong to the positive class.
    """

    missing_frames: float = 0.0
    tilt: float = 0.0
    wrong_units: float = 0.0
    duplicates: float = 0.0
    label_noise: float = 0.0
    leaking_calipers: float = 0.0

    def __post_init__(self) -> None:
        problems = [
            f"{field.name}: {getattr(self, field.name)} is not a share within 0 to 1"
            for field in fields(self)
            if not 0.0 <= getattr(self, field.name) <= 1.0
        ]
        if problems:
            raise ConfigError(problems, where="phantom faults")


@dataclass(frozen=True, slots=True)
class Faults:
    """What is wrong with one study. missing: first and end of the lost stretch as shares of the
    clip, or None. tilt_deg: of the gantry, 0 when upright."""

    missing: tuple[float, float] | None = None
    tilt_deg: float = 0.0
    wrong_units: bool = False
    duplicated: bool = False
    label_flipped: bool = False
    calipers: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Which faults there are."""
        return tuple(name for name, value in asdict(self).items() if value)


def draw_faults(dials: FaultDials, *, positive: bool, rng: np.random.Generator) -> Faults:
    """Draw the faults of one study. The draws do not depend on the dials' other values."""
    lost, tilted, units, twice, flipped, measured, place, angle = rng.random(8)
    start = 0.2 + 0.6 * float(place)
    return Faults(
        missing=(start, start + 0.1) if lost < dials.missing_frames else None,
        tilt_deg=round(5.0 + 15.0 * float(angle), 1) if tilted < dials.tilt else 0.0,
        wrong_units=bool(units < dials.wrong_units),
        duplicated=bool(twice < dials.duplicates),
        label_flipped=bool(flipped < dials.label_noise),
        calipers=positive and bool(measured < dials.leaking_calipers),
    )


def kept_frames(n_frames: int, faults: Faults) -> tuple[int, ...]:
    """Indices of the frames (or slices) that arrived; at least one is lost when any is."""
    if faults.missing is None:
        return tuple(range(n_frames))
    first = math.floor(faults.missing[0] * n_frames)
    end = max(first + 1, math.floor(faults.missing[1] * n_frames))
    return tuple(i for i in range(n_frames) if not first <= i < end)


def tilted(
    volume: npt.NDArray[np.int16], spacing_mm: tuple[float, float, float], tilt_deg: float
) -> npt.NDArray[np.int16]:
    """The volume as a tilted gantry scans it.

    Slices keep their places along the table; each is turned about its middle row by tilt_deg
    (positive: the back of the patient nearer the head). Air where the volume ends.

    Args:
        volume: (Z,Y,X) HU. spacing_mm: (z, y, x).

    Returns:
        (Z,Y,X) HU; the row direction of its slices is (0, cos t, sin t).
    """
    slices, rows, _ = volume.shape
    step_z, step_y, _ = spacing_mm
    angle = math.radians(tilt_deg)
    along = (np.arange(rows) - (rows - 1) / 2) * step_y
    source_y = ((rows - 1) / 2 + along * math.cos(angle) / step_y).astype(np.float32)
    out = np.empty_like(volume)
    z_shift = along * math.sin(angle) / step_z
    for k in range(slices):
        source_z = (k + z_shift).astype(np.float32)
        out[k] = _rows_at(volume, source_z, source_y)
    return out


def _rows_at(
    volume: npt.NDArray[np.int16],
    source_z: npt.NDArray[np.float32],
    source_y: npt.NDArray[np.float32],
) -> npt.NDArray[np.int16]:
    """Rows (Y,X) taken at fractional (z, y), linear between the four nearest."""
    slices, rows, cols = volume.shape
    z0, y0 = np.floor(source_z).astype(int), np.floor(source_y).astype(int)
    fz, fy = (source_z - z0)[:, None], (source_y - y0)[:, None]
    total = np.zeros((rows, cols), np.float32)
    for dz, wz in ((0, 1 - fz), (1, fz)):
        for dy, wy in ((0, 1 - fy), (1, fy)):
            inside = (z0 + dz >= 0) & (z0 + dz < slices) & (y0 + dy >= 0) & (y0 + dy < rows)
            taken = volume[np.clip(z0 + dz, 0, slices - 1), np.clip(y0 + dy, 0, rows - 1)]
            total += wz * wy * np.where(inside[:, None], taken, np.int16(-1000))
    return np.rint(total).astype(np.int16)


def leave_calipers(
    frame: npt.NDArray[np.uint8], ends: tuple[tuple[int, int], tuple[int, int]]
) -> None:
    """Draw two caliper crosses and the dotted line between them into an RGB frame (H,W,3).

    ends: (x, y) of both ends in px.
    """
    colour = (255, 230, 90)
    (x0, y0), (x1, y1) = ends
    for x, y in ends:
        cv2.drawMarker(frame, (x, y), colour, cv2.MARKER_CROSS, 13, 1)
    dots = max(2, round(math.hypot(x1 - x0, y1 - y0) / 6))
    for share in np.linspace(0, 1, dots):
        x, y = round(x0 + share * (x1 - x0)), round(y0 + share * (y1 - y0))
        cv2.circle(frame, (x, y), 0, colour, -1)
