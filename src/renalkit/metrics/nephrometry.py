"""How complex is a renal mass for surgery? R.E.N.A.L., PADUA and C-index from measured lengths.

Each part of a score holds its points, the continuous value they come from, and its basis: measured
on the segmentation; estimated, where the published rule needs what a segmentation does not hold
(the kidney's outline under the mass, the sinus, polar lines: `kidney_anatomy`); or unknown, with
the reason. A score with an unknown part has a range instead of a total, and a group only where the
whole range lies in it. Several masses of a kidney are scored one by one.

Sources, and what they leave open:

- R.E.N.A.L.: Kutikov and Uzzo, J Urol 182:844, 2009, table 1. R by the largest distance in space.
  E: "entirely endophytic" is at most 2 % of the volume outside the outline. N: the gap to the
  sinus, or to the collecting system where it is given. L: polar lines in axial levels; the axial
  midline lies halfway between them. a / p: at least two thirds of the volume in front of or behind
  the plane through the kidney's centre, the hilum and the body's axis; else x. The suffix h
  (abutting the main renal vessels) is left out: vessels are not segmented. Groups: 4 to 6 low, 7
  to 9 moderate, 10 to 12 high.
- PADUA: Ficarra et al., Eur Urol 56:786, 2009. Polar: less than half of the volume between the
  sinus lines. Rim: medial where the mass's centre lies on the hilum's side of the kidney's. Sinus:
  involved where the gap is at most 1 mm. Collecting system: unknown unless given, then likewise.
  Groups: 6 to 7 low, 8 to 9 intermediate, 10 to 14 high.
- C-index: Simmons et al., J Urol 183:1708, 2010: distance of the centres of mass and kidney over
  the mass's radius (half of the largest axial diameter). The kidney's centre is the centre of
  gravity of its outline. Below 1, the mass covers the kidney's centre.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from renalkit.metrics.volume_lesions import Anatomy, LesionMeasures

ENDOPHYTIC_SHARE = 0.02
INVOLVED_MM = 1.0
ONE_FACE_SHARE = 2 / 3


class Basis(StrEnum):
    """What a part of a score rests on."""

    MEASURED = "measured"
    ESTIMATED = "estimated"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Part:
    """One item of a score. points: None where unknown. least, most: what the item can give.

    value: what the points come from, in `unit`; None where it has no one number. note: why
    unknown, or what the value cannot say.
    """

    name: str
    points: int | None
    least: int
    most: int
    value: float | None
    unit: str
    basis: Basis
    note: str = ""


@dataclass(frozen=True, slots=True)
class Score:
    """A score of several items. suffix: letters without points. groups: (most points, name)."""

    system: str
    parts: tuple[Part, ...]
    suffix: str
    groups: tuple[tuple[int, str], ...]

    @property
    def range(self) -> tuple[int, int]:
        """Least and most it can be; equal where every part is known."""
        known = [
            (p.points, p.points) if p.points is not None else (p.least, p.most) for p in self.parts
        ]
        return sum(a for a, _ in known), sum(b for _, b in known)

    @property
    def total(self) -> int | None:
        low, high = self.range
        return low if low == high else None

    @property
    def group(self) -> str | None:
        """None where the range spans several."""
        low, high = (next(name for most, name in self.groups if n <= most) for n in self.range)
        return low if low == high else None

    @property
    def estimated(self) -> bool:
        """Whether any part is not measured."""
        return any(p.basis is not Basis.MEASURED for p in self.parts)

    @property
    def text(self) -> str:
        """For instance '9x', or '8-9a' where a part is unknown."""
        low, high = self.range
        return (f"{low}" if low == high else f"{low}-{high}") + self.suffix


@dataclass(frozen=True, slots=True)
class CIndex:
    """distance_mm of the centres over radius_mm of the mass; the kidney's centre is estimated."""

    value: float
    distance_mm: float
    radius_mm: float


@dataclass(frozen=True, slots=True)
class Nephrometry:
    """All three of one lesion. uncertain: why estimated parts may be off."""

    renal: Score
    padua: Score
    c_index: CIndex
    uncertain: tuple[str, ...]


def nephrometry(lesion: LesionMeasures, collecting_mm: float | None = None) -> Nephrometry | None:
    """Scores of a lesion, None where it has no kidney to relate it to (its notes say why).

    collecting_mm: gap between the lesion and the collecting system, where somebody segmented it.
    """
    anatomy = lesion.anatomy
    if anatomy is None:
        return None
    return Nephrometry(
        renal=renal_score(lesion.feret_mm, anatomy, collecting_mm),
        padua=padua_score(lesion.feret_mm, anatomy, collecting_mm),
        c_index=c_index(anatomy.from_centre_mm, lesion.axial_mm),
        uncertain=anatomy.uncertain,
    )


def c_index(distance_mm: float, diameter_mm: float) -> CIndex:
    """C-index of a mass of that diameter whose centre lies that far from the kidney's.

    >>> c_index(50.0, 40.0).value
    2.5

    Raises:
        ValueError: a diameter that is not positive.
    """
    if not diameter_mm > 0:
        raise ValueError(f"diameter of {diameter_mm} mm: expected more than 0")
    return CIndex(2 * distance_mm / diameter_mm, distance_mm, diameter_mm / 2)


def renal_score(diameter_mm: float, anatomy: Anatomy, collecting_mm: float | None = None) -> Score:
    """R.E.N.A.L. score; see the head of this file."""
    near = anatomy.sinus_mm
    basis, note = Basis.ESTIMATED, "gap to the sinus fat"
    if collecting_mm is not None:
        near = collecting_mm if near is None else min(near, collecting_mm)
        basis, note = Basis.MEASURED, "gap to the collecting system or sinus"
    parts = (
        Part("R", _by_size(diameter_mm, seven_is=3), 1, 3, diameter_mm, "mm", Basis.MEASURED),
        Part("E", _exophytic(anatomy), 1, 3, anatomy.exophytic_share, "share", Basis.ESTIMATED),
        Part("N", _nearness(near), 1, 3, near, "mm", basis, note)
        if near is not None
        else Part("N", None, 1, 3, None, "mm", Basis.UNKNOWN, "no sinus in the labels"),
        _location(anatomy),
    )
    front = anatomy.anterior_share
    suffix = "a" if front >= ONE_FACE_SHARE else "p" if front <= 1 - ONE_FACE_SHARE else "x"
    return Score("R.E.N.A.L.", parts, suffix, ((6, "low"), (9, "moderate"), (12, "high")))


def padua_score(diameter_mm: float, anatomy: Anatomy, collecting_mm: float | None = None) -> Score:
    """PADUA score; see the head of this file."""
    between, sinus = anatomy.between_sinus, anatomy.sinus_mm
    no_sinus = "no sinus in the labels"
    parts = (
        Part("pole", 1 if between < 0.5 else 2, 1, 2, between, "share", Basis.ESTIMATED)
        if between is not None
        else Part("pole", None, 1, 2, None, "share", Basis.UNKNOWN, no_sinus),
        Part(
            "exophytic",
            _exophytic(anatomy),
            1,
            3,
            anatomy.exophytic_share,
            "share",
            Basis.ESTIMATED,
        ),
        Part(
            "rim", 2 if anatomy.medial_mm > 0 else 1, 1, 2, anatomy.medial_mm, "mm", Basis.ESTIMATED
        ),
        Part("sinus", _involved(sinus), 1, 2, sinus, "mm", Basis.ESTIMATED)
        if sinus is not None
        else Part("sinus", None, 1, 2, None, "mm", Basis.UNKNOWN, no_sinus),
        Part(
            "collecting system", _involved(collecting_mm), 1, 2, collecting_mm, "mm", Basis.MEASURED
        )
        if collecting_mm is not None
        else Part(
            "collecting system", None, 1, 2, None, "mm", Basis.UNKNOWN, "not in the segmentation"
        ),
        Part("size", _by_size(diameter_mm, seven_is=2), 1, 3, diameter_mm, "mm", Basis.MEASURED),
    )
    groups = ((7, "low"), (9, "intermediate"), (14, "high"))
    front = anatomy.anterior_share > 0.5
    return Score("PADUA", parts, "a" if front else "p", groups)


def _by_size(diameter_mm: float, seven_is: int) -> int:
    """Points of at most 4 cm, between, and above 7 cm, where the scores part at 7 cm itself."""
    if diameter_mm <= 40:
        return 1
    return seven_is if diameter_mm == 70 else 2 if diameter_mm < 70 else 3


def _exophytic(anatomy: Anatomy) -> int:
    share = anatomy.exophytic_share
    return 1 if share >= 0.5 else 2 if share > ENDOPHYTIC_SHARE else 3


def _nearness(gap_mm: float) -> int:
    return 1 if gap_mm >= 7 else 2 if gap_mm > 4 else 3


def _involved(gap_mm: float) -> int:
    return 2 if gap_mm <= INVOLVED_MM else 1


def _location(anatomy: Anatomy) -> Part:
    lines, between = anatomy.polar_mm, anatomy.between_polar
    if lines is None or between is None:
        return Part("L", None, 1, 3, None, "share", Basis.UNKNOWN, "no polar lines")
    low, high = anatomy.z_mm
    middle = sum(lines) / 2
    if low >= lines[1] or high <= lines[0]:
        points = 1
    elif low <= middle <= high or between > 0.5:
        # Over the midline, mostly across a polar line, or wholly between the lines.
        points = 3
    else:
        points = 2
    return Part("L", points, 1, 3, between, "share", Basis.ESTIMATED, "share between polar lines")
