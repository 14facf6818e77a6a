"""Which contrast examination is simulated? All of it in plain numbers, drawn from features.

The latent CEUS features of `levels` decide how the mass enhances; everything else (curves of the
organs, gain, dynamic range, motion, console) is drawn without looking at them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from renalkit.ceus.bolus import BolusKind
from renalkit.phantom.bmode.anatomy import Anatomy, View
from renalkit.phantom.bmode.picture import TISSUE_GRID, Scanner, pixel_points
from renalkit.phantom.ceus.console import STYLES, Caliper, Layout, Screen
from renalkit.phantom.ceus.contrast import map_section
from renalkit.phantom.ceus.motion import STILL, Motion, draw_motion
from renalkit.phantom.ceus.perfusion import Perfusion, draw_perfusion, enhancement

Times = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Timing:
    """When frames are taken.

    jitter: standard deviation of the pause between frames as a share of it; above 0 the clip
    needs a frame time vector. clock_start_s: seconds since injection at the first frame.
    """

    duration_s: float
    rate_hz: float
    jitter: float
    clock_start_s: float


@dataclass(frozen=True, slots=True)
class Display:
    """How echo power becomes grey. dynamic_range_db: DR. headroom_db: of the cortex at its peak
    below white. bmode_gain_db: added to the scanner's."""

    dynamic_range_db: float
    headroom_db: float
    bmode_gain_db: float


@dataclass(frozen=True, slots=True)
class Noise:
    """What disturbs a curve.

    roi_sd: standard deviation of the residual of the mass's curve over the clip, as a share of
    its peak; the disturbance is multiplicative. correlation_s: after which it, and the speckle,
    is correlated by 1/e. speckle: microbubble speckle is shown. floor: mean power of electronic
    noise at half depth, in display units (1 is the darkest grey).
    """

    roi_sd: float
    correlation_s: float
    speckle: bool
    floor: float


SILENT = Noise(roi_sd=0.0, correlation_s=0.5, speckle=False, floor=0.0)
"""No noise at all, for checks against the truth."""


@dataclass(frozen=True, slots=True)
class Flash:
    """A few frames at high power that destroy the bubbles in the slice.

    at_s, duration_s: in s since the first frame. left: share of the bubbles that survives.
    """

    at_s: float
    duration_s: float
    left: float


@dataclass(frozen=True, slots=True)
class CeusPlan:
    """One contrast examination as plain numbers; `asdict` gives what JSON can hold."""

    anatomy: Anatomy
    view: View
    scanner: Scanner
    screen: Screen
    perfusion: Perfusion
    motion: Motion
    timing: Timing
    display: Display
    noise: Noise
    flash: Flash | None
    seed: int

    def __post_init__(self) -> None:
        if not (0 < self.timing.duration_s <= 3600 and 0.5 <= self.timing.rate_hz <= 60):
            raise ValueError(f"a clip of {self.timing} is not within 1 h at 0.5 to 60 Hz")
        if not 0 <= self.timing.jitter <= 0.3:
            raise ValueError(f"frame time jitter {self.timing.jitter} is not within 0 to 0.3")
        if not 20 <= self.display.dynamic_range_db <= 100:
            raise ValueError(f"dynamic range {self.display.dynamic_range_db} dB: 20 to 100")
        if not (0 <= self.noise.roi_sd <= 0.3 and self.noise.correlation_s > 0):
            raise ValueError(f"noise of {self.noise} is not within 0 to 0.3 of the peak")
        if (self.anatomy.lesion is None) != (self.perfusion.lesion is None):
            raise ValueError("a mass needs its perfusion, and perfusion of a mass needs the mass")

    @property
    def n_frames(self) -> int:
        """Frames of the whole clip."""
        return max(1, round(self.timing.duration_s * self.timing.rate_hz))

    def frame_times_s(self) -> Times:
        """Times (T,) of the frames since the first one."""
        pauses = np.full(self.n_frames - 1, 1.0 / self.timing.rate_hz)
        if self.timing.jitter > 0:
            drawn = np.random.default_rng([self.seed, 31]).standard_normal(pauses.size)
            pauses *= 1.0 + self.timing.jitter * np.clip(drawn, -2.5, 2.5)
        return np.concatenate([[0.0], np.cumsum(pauses)])

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class CeusOptions:
    """What is chosen about a clip and not drawn.

    layout: drawn when None. kind: of the bolus curves. saturated: gain so high that the peak is
    clipped. flash: destruction and replenishment half way through. calipers: the mass is measured
    on the screen. texts: see Screen.
    """

    duration_s: float = 60.0
    rate_hz: float = 10.0
    jitter: float = 0.0
    rows: int = 600
    cols: int = 800
    layout: Layout | None = None
    kind: BolusKind = BolusKind.LOGNORMAL
    moving: bool = True
    saturated: bool = False
    flash: bool = False
    calipers: bool = False
    texts: tuple[str, str, str, str] = ("PHANTOM", "000000", "SIMULATED", "")


def draw_ceus(
    subject: tuple[Anatomy, View],
    scanner: Scanner,
    features: Sequence[float] | npt.NDArray[np.float64] | None,
    rng: np.random.Generator,
    options: CeusOptions | None = None,
) -> CeusPlan:
    """Draw an examination.

    Args:
        subject: anatomy and a view of it; `draw_view` keeps the mass within the narrower fan of
            a dual panel.
        scanner: the machine; its name chooses the console's make.
        features: latent CEUS features (4,) of the mass, None exactly when there is no mass.
        rng: draws all that does not depend on the features.
        options: what is chosen.

    Raises:
        ValueError: features without a mass, a mass without features, or impossible options.
    """
    chosen = options or CeusOptions()
    anatomy, view = subject
    if (anatomy.lesion is None) != (features is None):
        raise ValueError("features are given exactly when the anatomy has a mass")
    layouts = list(Layout)
    drawn_layout = layouts[int(rng.choice(len(layouts), p=[0.4, 0.3, 0.15, 0.15]))]
    contrast_db = float(rng.choice([40.0, 43.0, 46.0, 50.0]))
    # Operators set the gain as they like: absolute grey tells little.
    headroom_db = float(np.clip(rng.normal(13.5, 3.5), 8.5, 21.0))
    bmode_gain_db = float(rng.normal(-1.0, 1.5))
    mechanical_index = float(np.round(rng.uniform(0.05, 0.11), 2))
    motion = draw_motion(chosen.duration_s, rng)
    mass = None if features is None else enhancement(features)
    perfusion = draw_perfusion(anatomy.side, mass, rng, chosen.kind)
    half = float(rng.uniform(29.0, min(31.0, scanner.half_angle_deg)))
    seed = int(rng.integers(0, 2**53))
    style = scanner.name if scanner.name in STYLES else next(iter(STYLES))
    return CeusPlan(
        anatomy=anatomy,
        view=view,
        scanner=scanner,
        screen=Screen(
            rows=chosen.rows,
            cols=chosen.cols,
            style=style,
            layout=chosen.layout or drawn_layout,
            half_angle_deg=half,
            clock=True,
            texts=chosen.texts,
            calipers=_calipers(subject, scanner) if chosen.calipers else (),
            mechanical_index=mechanical_index,
            dynamic_range_db=(scanner.dynamic_range_db, contrast_db),
            frame_hz=chosen.rate_hz,
        ),
        perfusion=perfusion,
        motion=motion if chosen.moving else STILL,
        timing=Timing(chosen.duration_s, chosen.rate_hz, chosen.jitter, 0.0),
        display=Display(contrast_db, -2.0 if chosen.saturated else headroom_db, bmode_gain_db),
        noise=Noise(roi_sd=0.05, correlation_s=0.5, speckle=True, floor=0.3),
        flash=Flash(0.5 * chosen.duration_s, 0.5, 0.04) if chosen.flash else None,
        seed=seed,
    )


def _calipers(subject: tuple[Anatomy, View], scanner: Scanner) -> tuple[Caliper, ...]:
    """The longest diameter of the mass as measured on the screen."""
    level = map_section(*subject, scanner).tissue.lesion_mm
    x_mm, z_mm = pixel_points(scanner, TISSUE_GRID)
    points = np.stack([x_mm[level > 0], z_mm[level > 0]], axis=1)
    if len(points) < 3:
        return ()
    hull = np.asarray(cv2.convexHull(points))[:, 0].astype(np.float64)
    apart = np.linalg.norm(hull[:, None] - hull[None], axis=2)
    i, j = np.unravel_index(int(apart.argmax()), apart.shape)
    (ax, az), (bx, bz) = hull[i].tolist(), hull[j].tolist()
    return (Caliper((ax, az), (bx, bz)),)
