"""How does a simulated abdominal CT look in each contrast phase, and what is its truth?

    case = draw_case(CtPlan(), seed=1)
    volume = render(case, Phase.NEPHROGRAPHIC)

HU of the kidney follow the project's anchors: cortex/medulla 32/32 without contrast, 190/95
corticomedullary, 165/160 nephrographic; fat -100, sinus -80, vertebrae about 300 on average, cysts
2-18, AML -70..-20, solid masses 0.5-0.95 of the parenchyma in the nephrographic phase. Solid masses
take their course over the phases from the means of two series, in HU without contrast,
corticomedullary, nephrographic, excretory: clear cell 34, 173, 149, 98 and oncocytoma 31, 151, 137,
79 (doi 10.5301/uj.5000256, hypervascular masses); chromophobe 135, 161, 148 and papillary 50, 60,
58 after contrast (The Scientific World Journal 2015, 476750). HU of the other tissues are chosen.
All phases of a case share one geometry.

Noise is Gaussian with the band-pass correlation of filtered back-projection, of a fixed SD in the
body and less outside it, with a slow shading. Pixels depend on case and phase only: neither on the
number of slabs nor on the other phases rendered.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from renalkit.domain.volume import VolumeGrid
from renalkit.errors import ConfigError
from renalkit.phantom.ct.anatomy import CtCase, CtPlan, Phase, draw_case
from renalkit.phantom.ct.lesions import Lesion
from renalkit.phantom.ct.scene import CYST, KIDNEY, TUMOUR, Anatomy, Slab, anatomy, slab
from renalkit.phantom.ct.shapes import Field, Grid, Vector
from renalkit.phantom.ct.torso import warped
from renalkit.phantom.histology import Histology

PHASES = tuple(Phase)
LABELS: Mapping[str, int] = {"kidney": KIDNEY, "tumour": TUMOUR, "cyst": CYST}
_SLAB_VOXELS = 3_000_000

# HU without contrast, corticomedullary, nephrographic, excretory.
_TISSUE_HU: Mapping[str, tuple[float, ...]] = {
    "air": (-1000.0,) * 4,
    "gas": (-950.0,) * 4,
    "lung": (-860.0, -845.0, -845.0, -850.0),
    "skin": (10.0, 12.0, 18.0, 16.0),
    "fat": (-103.0, -102.0, -100.0, -100.0),
    "fascia": (-60.0, -55.0, -50.0, -52.0),
    "strand": (-45.0, -15.0, -10.0, -22.0),
    "muscle": (55.0, 58.0, 66.0, 64.0),
    "liver": (58.0, 78.0, 114.0, 98.0),
    "portal": (42.0, 150.0, 165.0, 120.0),
    "bile": (8.0,) * 4,
    "water": (9.0, 9.0, 10.0, 10.0),
    "spleen": (48.0, 135.0, 122.0, 100.0),
    "pancreas": (38.0, 100.0, 88.0, 70.0),
    "bowel_wall": (38.0, 78.0, 92.0, 75.0),
    "chyme": (18.0,) * 4,
    "contrast": (260.0,) * 4,
    "food": (28.0,) * 4,
    "stool": (0.0,) * 4,
    "aorta": (42.0, 305.0, 160.0, 118.0),
    "vena_cava": (42.0, 128.0, 150.0, 115.0),
    "renal_vein": (42.0, 190.0, 158.0, 118.0),
    "adrenal": (25.0, 65.0, 72.0, 55.0),
    "adrenal_nodule": (8.0, 52.0, 68.0, 40.0),
    "cortical": (620.0,) * 4,
    "marrow": (195.0, 198.0, 203.0, 203.0),
    "disc": (85.0, 86.0, 90.0, 90.0),
    "canal": (28.0, 30.0, 32.0, 32.0),
    "cortex": (32.0, 190.0, 165.0, 128.0),
    "medulla": (32.0, 95.0, 160.0, 150.0),
    "isthmus": (32.0, 160.0, 163.0, 135.0),
    "sinus": (-80.0, -80.0, -80.0, -80.0),
    "urine": (4.0, 5.0, 8.0, 720.0),
    "ureter": (20.0, 30.0, 32.0, 480.0),
    "ureter_wall": (30.0, 45.0, 60.0, 60.0),
    "stone": (680.0,) * 4,
}
# Enhanced by a constant density of contrast in the lumen, not by the blood.
_NOT_BLOOD = ("urine", "ureter", "contrast")
_PARENCHYMA_SHARE = (0.55, 0.45)
_UNEVEN_HU = {
    "liver": 3.0,
    "spleen": 3.0,
    "pancreas": 10.0,
    "marrow": 30.0,
    "food": 22.0,
    "stool": 270.0,
    "cortex": 4.0,
    "sinus": 12.0,
}
_SPLEEN_EARLY_HU = 28.0

# Rise over the nephrographic one: corticomedullary, excretory. Without contrast 34 HU are taken
# for chromophobe and papillary carcinoma.
_COURSE = {
    Histology.CCRCC: (1.21, 0.56),
    Histology.ONCOCYTOMA: (1.13, 0.46),
    Histology.CHRCC: (0.80, 0.90),
    Histology.PRCC: (0.63, 0.93),
}


@dataclass(frozen=True, slots=True)
class LesionTruth:
    """One row of the truth table.

    centre_mm: LPS. volume_mm3: analytic; voxel_volume_mm3: of its instance, 0 when it covers no
    voxel by half. mean_hu: by phase, over its instance before noise and shading, NaN without one.
    """

    number: int
    side: str
    label: str
    lesion_class: str
    histology: str
    bosniak: str
    centre_mm: Vector
    diameter_mm: float
    volume_mm3: float
    voxel_volume_mm3: float
    exophytic_share: float
    polarity: str
    enhancing_share: float
    calcified: bool
    touching: int
    mean_hu: dict[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class CtVolume:
    """A rendered scan.

    hu: (Z, Y, X) int16 by phase. labels: 0, 1 kidney, 2 tumour, 3 cyst; instances: lesion number,
    both (Z, Y, X) uint8. spacing_mm: (z, y, x). origin_lps_mm: (x, y, z) of voxel (0, 0, 0).
    direction: unit LPS vectors of increasing column, row and slice. lesions: truth in their order.
    given: the grid of the masks it was painted into, None for a drawn one.
    """

    hu: dict[Phase, npt.NDArray[np.int16]]
    labels: npt.NDArray[np.uint8]
    instances: npt.NDArray[np.uint8]
    spacing_mm: Vector
    origin_lps_mm: Vector
    direction: tuple[Vector, Vector, Vector]
    lesions: tuple[LesionTruth, ...]
    given: VolumeGrid | None = None

    @property
    def affine_lps_mm(self) -> tuple[tuple[float, float, float, float], ...]:
        """Voxel index (z, y, x, 1) -> LPS mm."""
        if self.given is not None:
            return self.given.affine_lps_mm
        dz, dy, dx = self.spacing_mm
        x, y, z = self.origin_lps_mm
        return (
            (0.0, 0.0, dx, x),
            (0.0, dy, 0.0, y),
            (dz, 0.0, 0.0, z),
            (0.0, 0.0, 0.0, 1.0),
        )

    @property
    def grid(self) -> VolumeGrid:
        return VolumeGrid(self.labels.shape, self.affine_lps_mm)


def tissue_hu(case: CtCase, phase: Phase) -> dict[str, float]:
    """HU of every tissue of a case in one phase, its lesions' parts included."""
    index = PHASES.index(phase)

    def enhanced(name: str, values: Sequence[float]) -> float:
        gain = 1.0 if name in _NOT_BLOOD else case.contrast
        return values[0] + gain * (values[index] - values[0])

    table = {name: enhanced(name, values) for name, values in _TISSUE_HU.items()}
    for lesion in case.lesions:
        name = f"lesion {lesion.number}"
        if lesion.lesion_class == "solid":
            courses = {p: _solid_hu(case, lesion, p) for p in (Phase.NON_CONTRAST, phase)}
            table[name] = courses[phase]
            dull = 0.35 if lesion.core_kind == "scar" else 0.0
            core = 22.0 if lesion.core_kind == "necrosis" else lesion.base_hu
            table[f"{name} core"] = core + dull * (table[name] - lesion.base_hu)
        elif lesion.lesion_class == "AML":
            table[name] = enhanced("", [lesion.base_hu + rise for rise in (0.0, 14.0, 12.0, 8.0)])
        else:
            live = lesion.bosniak in ("III", "IV")
            wall = (28.0, 95.0, 105.0, 75.0) if live else (24.0, 28.0, 32.0, 30.0)
            table[name] = enhanced("", [lesion.base_hu + rise for rise in (0.0, 0.5, 1.0, 1.0)])
            table[f"{name} wall"] = enhanced("", wall)
            table[f"{name} nodule"] = enhanced("", (32.0, 125.0, 115.0, 85.0))
    return table


def render(case: CtCase, phase: Phase) -> CtVolume:
    """Render one phase; see `render_phases`."""
    return render_phases(case, (phase,))


def render_phases(case: CtCase, phases: Sequence[Phase] | None = None) -> CtVolume:
    """Render phases (those of the case by default) on one grid with their common truth.

    Raises:
        ConfigError: no phase asked for, or one twice.
    """
    dz, dy, dx = case.spacing_mm
    grid = Grid.regular(case.origin_lps_mm, (dx, dy, dz), case.shape)
    common = anatomy(case, grid)

    def cut(here: slice) -> Slab:
        return slab(common, grid.cut((here, slice(None), slice(None))))

    drawn = rendered(common, case.phases if phases is None else phases, cut)
    lesions = tuple(
        _truth(case, one, int(drawn.counts[one.number]), drawn.sums_of(one.number))
        for one in case.lesions
    )
    return CtVolume(
        hu=drawn.hu,
        labels=drawn.labels,
        instances=drawn.instances,
        spacing_mm=case.spacing_mm,
        origin_lps_mm=case.origin_lps_mm,
        direction=((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
        lesions=lesions,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Rendered:
    """The arrays of a `CtVolume`, and by lesion number the voxels and, by phase, the sum of their
    HU before noise and shading."""

    hu: dict[Phase, npt.NDArray[np.int16]]
    labels: npt.NDArray[np.uint8]
    instances: npt.NDArray[np.uint8]
    counts: npt.NDArray[np.int64]
    sums: dict[Phase, npt.NDArray[np.float64]]

    def sums_of(self, number: int) -> dict[Phase, float]:
        """Of one lesion."""
        return {phase: sums[number] for phase, sums in self.sums.items()}


def rendered(common: Anatomy, phases: Sequence[Phase], cut: Callable[[slice], Slab]) -> Rendered:
    """Render what `cut` gives for ranges of slices.

    Raises:
        ConfigError: no phase asked for, or one twice.
    """
    wanted = tuple(phases)
    if not wanted or len(set(wanted)) != len(wanted):
        raise ConfigError([f"phases is {wanted}, expected one or more different phases"])
    case = common.case
    tables = {phase: tissue_hu(case, phase) for phase in wanted}
    sections = {phase: _section_hu(common, table) for phase, table in tables.items()}
    hu = {phase: np.empty(case.shape, np.int16) for phase in wanted}
    labels, instances = np.empty(case.shape, np.uint8), np.empty(case.shape, np.uint8)
    bins = len(case.lesions) + 1
    counts = np.zeros(bins, np.int64)
    sums = {phase: np.zeros(bins) for phase in wanted}
    depth = max(1, _SLAB_VOXELS // math.prod(case.shape[1:]))
    for first in range(0, case.shape[0], depth):
        here = slice(first, min(first + depth, case.shape[0]))
        part = cut(here)
        labels[here], instances[here] = part.labels, part.instances
        marked = part.instances > 0
        numbers = part.instances[marked]
        counts += np.bincount(numbers, minlength=bins)
        for phase in wanted:
            clean = _composed(part, case, sections[phase], tables[phase], phase)
            sums[phase] += np.bincount(numbers, clean[marked], minlength=bins)
            _scanned(clean, case, common, phase, first, hu[phase][here])
    return Rendered(hu, labels, instances, counts, sums)


def parenchyma_hu(case: CtCase, phase: Phase) -> float:
    """Mean of cortex and medulla by their volumes."""
    index = PHASES.index(phase)
    values = [
        sum(
            w * _TISSUE_HU[t][k]
            for w, t in zip(_PARENCHYMA_SHARE, ("cortex", "medulla"), strict=True)
        )
        for k in (0, index)
    ]
    return values[0] + case.contrast * (values[1] - values[0])


def _solid_hu(case: CtCase, lesion: Lesion, phase: Phase) -> float:
    full = lesion.enhancement * parenchyma_hu(case, Phase.NEPHROGRAPHIC)
    early, late = _COURSE[lesion.histology]
    share = dict(zip(PHASES, (0.0, early, 1.0, late), strict=True))[phase]
    return lesion.base_hu + share * (full - lesion.base_hu)


def _section_hu(common: Anatomy, table: Mapping[str, float]) -> Field:
    section = common.section
    total = section.uneven_hu.copy()
    for tissue, share in section.shares.items():
        total += share * np.float32(table[tissue])
    return total


def _composed(
    part: Slab, case: CtCase, section: Field, table: Mapping[str, float], phase: Phase
) -> Field:
    """The slab in HU (Z, Y, X) without noise."""
    volume = warped(section, part.grid, case.body, table["air"])
    uneven = dict(_UNEVEN_HU)
    if phase is Phase.CORTICOMEDULLARY:
        uneven["spleen"] = _SPLEEN_EARLY_HU  # arciform enhancement
    uneven |= {f"lesion {one.number}": _unevenness(one, phase) for one in case.lesions}
    for layer in part.layers:
        region = volume[layer.box]
        if layer.texture is None:
            difference = np.float32(table[layer.tissue]) - region
        else:
            difference = layer.texture * np.float32(uneven[layer.tissue])
            difference += np.float32(table[layer.tissue])
            difference -= region
        difference *= layer.cover
        region += difference
    return volume


def _unevenness(lesion: Lesion, phase: Phase) -> float:
    """Enhancing tissue is uneven by its enhancement, fat in an AML always."""
    quiet = phase is Phase.NON_CONTRAST and lesion.lesion_class == "solid"
    return lesion.unevenness_hu * (0.25 if quiet else 1.0)


def _scanned(
    clean: Field,
    case: CtCase,
    common: Anatomy,
    phase: Phase,
    first: int,
    out: npt.NDArray[np.int16],
) -> None:
    """Add table, shading and noise; write int16 HU."""
    rows, cols = clean.shape[1:]
    section = common.section
    body = np.clip(1.0 - section.shares["air"], 0.3, 1.0).astype(np.float32)
    x = np.linspace(-1.0, 1.0, cols, dtype=np.float32)
    y = np.linspace(-1.0, 1.0, rows, dtype=np.float32)[:, None]
    angle = np.random.default_rng([case.seed, 6]).uniform(0.0, 2.0 * math.pi)
    shading = np.float32(case.bias_hu) * (
        np.float32(math.cos(angle)) * x + np.float32(math.sin(angle)) * y - (x * x + y * y) + 0.4
    ).astype(np.float32)
    # More tissue to pass in the middle: more noise.
    deviation = np.float32(case.noise_hu) * body * (np.float32(1.1) - 0.5 * (x * x + y * y))
    deviation = deviation.astype(np.float32)
    dense = section.table
    step_mm = case.spacing_mm[1]
    below = _white(case, phase, first, rows, cols)
    for index in range(len(clean)):
        above = _white(case, phase, first + index + 1, rows, cols)
        # Neighbouring slices share some of their rays.
        noise = _band_pass(np.float32(0.93) * below + np.float32(0.37) * above, step_mm)
        below = above
        noise *= deviation
        noise += shading * body
        noise += clean[index]
        noise += dense * np.float32(1150.0)
        np.clip(noise, -1024.0, 3071.0, out=noise)
        np.rint(noise, out=noise)
        out[index] = noise


def _white(case: CtCase, phase: Phase, index: int, rows: int, cols: int) -> Field:
    rng = np.random.default_rng([case.seed, 7, PHASES.index(phase), index])
    return rng.standard_normal((rows, cols), dtype=np.float32)


def _band_pass(white: Field, step_mm: float) -> Field:
    """Noise of deviation 1 whose spectrum rises from low frequencies and falls to high ones."""
    fine, coarse = 0.55 / step_mm, 1.8 / step_mm
    narrow = cv2.GaussianBlur(white, (0, 0), max(fine, 0.3), borderType=cv2.BORDER_REFLECT)
    wide = cv2.GaussianBlur(white, (0, 0), max(coarse, 0.6), borderType=cv2.BORDER_REFLECT)
    out = np.asarray(narrow, np.float32) - np.float32(0.8) * np.asarray(wide, np.float32)
    out /= np.float32(_deviation(max(fine, 0.3), max(coarse, 0.6)))
    return out


def _deviation(fine: float, coarse: float) -> float:
    """SD of the band-pass of unit white noise, from the sampled kernels."""
    size = 2 * math.ceil(4 * coarse) + 1
    a, b = (np.asarray(cv2.getGaussianKernel(size, s)).ravel() for s in (fine, coarse))
    return math.sqrt((a @ a) ** 2 - 1.6 * (a @ b) ** 2 + 0.64 * (b @ b) ** 2)


def _truth(case: CtCase, lesion: Lesion, voxels: int, sums: Mapping[Phase, float]) -> LesionTruth:
    return LesionTruth(
        number=lesion.number,
        side=lesion.side,
        label=lesion.label,
        lesion_class=lesion.lesion_class,
        histology=str(lesion.histology),
        bosniak=lesion.bosniak,
        centre_mm=lesion.body.centre_mm,
        diameter_mm=lesion.diameter_mm,
        volume_mm3=lesion.volume_mm3,
        voxel_volume_mm3=voxels * math.prod(case.spacing_mm),
        exophytic_share=lesion.exophytic_share,
        polarity=lesion.polarity,
        enhancing_share=lesion.enhancing_share,
        calcified=bool(lesion.calcifications),
        touching=lesion.touching,
        mean_hu={str(p): total / voxels if voxels else math.nan for p, total in sums.items()},
    )


__all__ = [
    "LABELS",
    "PHASES",
    "CtCase",
    "CtPlan",
    "CtVolume",
    "LesionTruth",
    "Phase",
    "draw_case",
    "parenchyma_hu",
    "render",
    "render_phases",
    "tissue_hu",
]
