"""By which codes do results say what they are about?

Standard codes where there are any (SNOMED CT, DICOM PS3.16 annex D, UCUM); the rest has the
designator 99RENALKIT and is explained in docs/dicom-results.md. Codes of the standard were looked
up in pydicom's tables of PS3.16; renal cortex is not in those.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code as SrCode

from renalkit.domain.study import Side

PRIVATE = "99RENALKIT"


@dataclass(frozen=True, slots=True)
class Code:
    """A coded concept: at most 16 characters of value and scheme, 64 of meaning (PS3.3 8.8)."""

    value: str
    scheme: str
    meaning: str

    def __post_init__(self) -> None:
        for name, text, most in (
            ("value", self.value, 16),
            ("scheme", self.scheme, 16),
            ("meaning", self.meaning, 64),
        ):
            checked_text(text, f"code {name}", most)

    @property
    def item(self) -> Dataset:
        """As an item of a code sequence."""
        data = Dataset()
        data.CodeValue, data.CodingSchemeDesignator = self.value, self.scheme
        data.CodeMeaning = self.meaning
        return data

    @property
    def sr(self) -> SrCode:
        """As pydicom and highdicom take it."""
        return SrCode(self.value, self.scheme, self.meaning)


def checked_text(text: str, what: str, most: int) -> str:
    """The text if it fits one DICOM value of at most `most` characters, else ValueError."""
    plain = text.isprintable() and "\\" not in text and text == text.strip() and text != ""
    if not plain or len(text) > most:
        raise ValueError(
            f"{what} {text[:80]!r}: expected 1 to {most} printable characters without backslash "
            "and outer spaces"
        )
    return text


@dataclass(frozen=True, slots=True)
class Structure:
    """What an outline surrounds: category (PS3.16 CID 7150) and kind."""

    category: Code
    kind: Code


_ANATOMY = Code("91723000", "SCT", "Anatomical Structure")
_ABNORMAL = Code("49755003", "SCT", "Morphologically Abnormal Structure")

KIDNEY_SITE = Code("64033007", "SCT", "Kidney")
LEFT = Code("7771000", "SCT", "Left")
RIGHT = Code("24028007", "SCT", "Right")

KIDNEY = Structure(_ANATOMY, KIDNEY_SITE)
CORTEX = Structure(_ANATOMY, Code("50403003", "SCT", "Structure of cortex of kidney"))
LESION = Structure(_ABNORMAL, Code("52988006", "SCT", "Lesion"))
NEOPLASM = Structure(_ABNORMAL, Code("108369006", "SCT", "Neoplasm"))
CYST = Structure(_ABNORMAL, Code("367643001", "SCT", "Cyst"))

ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")
TRACKING = Code("TRACKING", PRIVATE, "Outline carried along by motion tracking")
FITTING = Code("FITTING", PRIVATE, "Model fitted to a curve")

MM = Code("mm", "UCUM", "mm")
MM2 = Code("mm2", "UCUM", "square millimeter")
SECOND = Code("s", "UCUM", "s")
POWER = Code("[arb'U]", "UCUM", "arbitrary unit")
POWER_S = Code("[arb'U].s", "UCUM", "arbitrary unit second")
POWER_PER_S = Code("[arb'U]/s", "UCUM", "arbitrary unit per second")
GREY = Code("{grey}", "UCUM", "grey level")
GREY_S = Code("{grey}.s", "UCUM", "grey level second")
GREY_PER_S = Code("{grey}/s", "UCUM", "grey level per second")
RATIO = Code("{ratio}", "UCUM", "ratio")
ONE = Code("1", "UCUM", "no units")

LONG_AXIS = Code("103339001", "SCT", "Long axis")
SHORT_AXIS = Code("103340004", "SCT", "Short axis")
AREA = Code("42798000", "SCT", "Area")
PROBABILITY = Code("PROBABILITY", PRIVATE, "Probability of a class by a model")
ECHO_POWER = Code("POWER", PRIVATE, "Mean linear echo power of a region")
ECHO_GREY = Code("GREY", PRIVATE, "Mean grey level of a region")

CONFIDENCE = Code("CONFIDENCE", PRIVATE, "Mean probability of mass in a region")
AGREEMENT = Code("AGREEMENT", PRIVATE, "Share of a region on which all networks agree")
CLASS = Code("CLASS", PRIVATE, "Class by a model")

MM3 = Code("mm3", "UCUM", "cubic millimeter")
HOUNSFIELD = Code("[hnsf'U]", "UCUM", "Hounsfield unit")
VOLUME = Code("118565006", "SCT", "Volume")
MEAN_ATTENUATION = Code("112181", "DCM", "Mean Attenuation Coefficient")
BALL_DIAMETER = Code("BALL-DIAMETER", PRIVATE, "Diameter of the ball of equal volume")
LARGEST_DIAMETER = Code("SPACE-DIAMETER", PRIVATE, "Largest diameter in space")
EXOPHYTIC = Code("EXOPHYTIC", PRIVATE, "Share outside the kidney's outline, estimated")

INJECTION = Code("125234", "DCM", "Start of contrast agent administration")
FIRST_FRAME = Code("FIRST-FRAME", PRIVATE, "First frame of the cine")


def of_class(name: str, question: Code) -> Code:
    """The code of a class of a model: the class itself (`CLASS`) or its probability.

    Any name is a class; it is cut to what fits, and a digest keeps long ones apart.
    """
    plain = re.sub(r"[^A-Za-z0-9-]", "-", name)
    short = plain if plain == name and len(name) <= 14 else sha256(name.encode()).hexdigest()[:14]
    words = " ".join("".join(c if c.isprintable() and c != "\\" else " " for c in name).split())
    if question == CLASS:
        return Code(f"C-{short}", PRIVATE, words[:64].strip() or short)
    return Code(f"P-{short}", PRIVATE, f"Probability of {words}"[:64].strip())


def side_code(side: Side) -> Code:
    return LEFT if side is Side.LEFT else RIGHT


@dataclass(frozen=True, slots=True)
class Algorithm:
    """What drew an outline or made a figure. parameters: values by name, without `,` and `=`."""

    name: str
    version: str
    family: Code
    parameters: Mapping[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        checked_text(self.name, "name of an algorithm", 64)
        checked_text(self.version, "version of an algorithm", 64)
        for name, value in self.parameters.items():
            if {",", "="} & set(checked_text(f"{name}{value}", "parameter of an algorithm", 512)):
                raise ValueError(f"parameter {name!r} of an algorithm: no `,` and no `=` in it")

    @property
    def settings(self) -> list[str]:
        """The parameters as `name=value`."""
        return [f"{name}={value}" for name, value in self.parameters.items()]


def private_scheme_used(codes: Iterable[Dataset]) -> bool:
    """Whether any item of code sequences, at any depth of these data sets, is of our own scheme."""
    return any(
        element.keyword == "CodingSchemeDesignator" and element.value == PRIVATE
        for data in codes
        for element in data.iterall()
    )


def scheme_identification() -> Dataset:
    """The item that says whose our own codes are (PS3.3 C.12.1.1.1)."""
    data = Dataset()
    data.CodingSchemeDesignator = PRIVATE
    data.CodingSchemeName = "Codes of renalkit"
    data.CodingSchemeResponsibleOrganization = "renalkit developers"
    return data
