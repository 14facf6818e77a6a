"""Which patient does a DICOM file belong to, and which of its other facts can be kept?

Nothing here leaves the process in clear: identifiers go to the pseudonyms, dates and names are
only checked. Sources: DICOM PS3.5 9.1 (UIDs), PS3.3 C.7.1.1 (Patient), C.12.1.1.2 (character
sets).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date

from renalkit.domain.study import Covariate, Defect, Scanner
from renalkit.errors import InputRefused, Reason
from renalkit.readers.covariates import OLDEST_YEARS
from renalkit.readers.dicom_prescan import Values

_UID = re.compile(rb"[0-9]+(\.[0-9]+)*")
_PLACEHOLDERS = frozenset(
    ("anonymous", "anonym", "anon", "anonymized", "anonymised", "unknown", "none", "null", "na")
    + ("n/a", "nn", "test", "patient", "no id", "noid", "no name", "removed", "deidentified")
    + ("unnamed", "default", "nan", "undefined", "xnat", "id", "pid", "patientid", "patient id")
)
_AGE = re.compile(rb"(\d{3})([DWMY])")
_PER_YEAR = {b"D": 365.25, b"W": 52.18, b"M": 12.0, b"Y": 1.0}
_CODECS = {
    **{"": "ascii", "6": "ascii", "100": "latin-1", "101": "iso8859-2", "109": "iso8859-3"},
    **{"110": "iso8859-4", "144": "iso8859-5", "127": "iso8859-6", "126": "iso8859-7"},
    **{"138": "iso8859-8", "148": "iso8859-9", "203": "iso8859-15", "13": "shift_jis"},
    **{"166": "tis-620", "192": "utf-8", "149": "iso2022_kr", "87": "iso2022_jp"},
    **{"159": "iso2022_jp_2", "58": "gb2312"},
}
_CHARSET = re.compile(r"ISO[ _-]?(?:IR|2022[ _-]IR)[ _-]?(\d{1,3})")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who and what a file is, raw; lives only while an import runs."""

    patient: str = field(repr=False)
    study_uid: str = field(repr=False)
    instance_uid: str = field(repr=False)
    birth_and_sex: tuple[bytes, bytes] = field(repr=False)


def checked_uid(values: Values, tag: int, name: str, defects: list[Defect]) -> str:
    """A UID of the standard's form.

    Raises:
        InputRefused: BAD_UID, absent, too long or with other characters. Components that begin
            with a zero are common in the field and only a defect.
    """
    raw = values.raw(tag)
    if len(raw) > 64 or not _UID.fullmatch(raw):
        raise InputRefused(
            Reason.BAD_UID,
            f"a {name} UID of another form ({len(raw)} bytes)",
            expected="digits and dots, at most 64",
            remedy="export the file again from the source system",
        )
    if re.search(rb"(^|\.)0\d", raw):
        defects.append(Defect(Reason.BAD_UID, f"a {name} UID with a leading zero"))
    return raw.decode("ascii")


def patient_identity(patient_id: bytes, issuer: bytes = b"") -> str:
    """The identifier that is handed to `Pseudonyms.patient`: id, or id and issuer.

    Bytes that are not UTF-8 survive as surrogates, so two ids are equal only byte by byte.

    >>> patient_identity(b"007"), patient_identity(b"007", b"CLINIC")
    ('007', '007^^^CLINIC')
    """
    raw = patient_id if not issuer else patient_id + b"^^^" + issuer
    return raw.decode("utf-8", "surrogateescape")


def is_placeholder(identifier: str) -> bool:
    """Whether an identifier names nobody (empty, `ANONYMOUS`, `0000`, `xxx`, ...)."""
    plain = unicodedata.normalize("NFKC", identifier).strip().casefold()
    return plain in _PLACEHOLDERS or not plain.strip("0x-_.?* ")


def header_patient(values: Values) -> str:
    """The patient of a file by its own header.

    Raises:
        InputRefused: NO_PATIENT, missing or a placeholder.
    """
    patient_id = values.raw(0x00100020)
    if is_placeholder(patient_id.decode("utf-8", "surrogateescape")):
        raise InputRefused(
            Reason.NO_PATIENT,
            "no patient identifier, or one that stands for nobody",
            expected="an identifier per patient, so that splits can keep patients apart",
            remedy="give a table that maps files to patients",
        )
    return patient_identity(patient_id, values.raw(0x00100021))


def normalised_identifier(identifier: str) -> str:
    """A form in which ids that a person might take for the same are equal.

    >>> normalised_identifier(" 007") == normalised_identifier("7")
    True
    """
    plain = unicodedata.normalize("NFKC", identifier).strip().casefold()
    return plain.lstrip("0") or plain


def identity_conflicts(identities: Iterable[Identity]) -> dict[str, Defect]:
    """Patients that may be two people, or one person under two ids; never merged or split."""
    births: dict[str, set[bytes]] = {}
    sexes: dict[str, set[bytes]] = {}
    alike: dict[str, set[str]] = {}
    for one in identities:
        birth, sex = one.birth_and_sex
        births.setdefault(one.patient, set()).update({birth} - {b""})
        sexes.setdefault(one.patient, set()).update({sex} - {b""})
        alike.setdefault(normalised_identifier(one.patient), set()).add(one.patient)
    found: dict[str, Defect] = {}
    for patients in alike.values():
        if len(patients) > 1:
            words = f"{len(patients)} patient ids that differ only in writing; kept apart"
            found |= dict.fromkeys(patients, Defect(Reason.IDENTITY_CONFLICT, words))
    for patient in births:
        if len(births[patient]) > 1 or len(sexes[patient]) > 1:
            words = "one patient id with two birth dates or sexes"
            found[patient] = Defect(Reason.IDENTITY_CONFLICT, words)
    return found


def read_person(values: Values, defects: list[Defect]) -> dict[str, Covariate]:
    """age_years (at most 90) and sex, where valid; everything else of the person is left behind."""
    kept: dict[str, Covariate] = {}
    bad_fields = 0
    age = values.raw(0x00101010)
    if match := _AGE.fullmatch(age):
        kept["age_years"] = min(int(int(match[1]) / _PER_YEAR[match[2]]), OLDEST_YEARS)
    elif age.strip():
        bad_fields += 1
    sex = values.raw(0x00100040).strip()
    if sex in (b"M", b"F", b"O"):
        kept["sex"] = sex.decode()
    elif sex:
        bad_fields += 1
    bad_fields += sum(not _date_or_empty(values.raw(tag)) for tag in (0x00080020, 0x00100030))
    if bad_fields:
        defects.append(
            Defect(Reason.FIELD_NULLED, f"{bad_fields} of age, sex and dates unusable; left out")
        )
    return kept


def _date_or_empty(raw: bytes) -> bool:
    text = raw.strip()
    if not text:
        return True
    if not re.fullmatch(rb"\d{8}|\d{4}\.\d{2}\.\d{2}", text):
        return False
    digits = text.replace(b".", b"")
    try:
        date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return False
    return True


def read_scanner(values: Values) -> Scanner:
    """Manufacturer and model as printable text of at most 64 characters."""
    return Scanner(_printable(values.raw(0x00080070)), _printable(values.raw(0x00081090)))


def _printable(raw: bytes) -> str | None:
    text = raw.decode("utf-8", "replace")
    clean = "".join(c for c in text if c.isprintable() and c != "�")
    return " ".join(clean.split())[:64] or None


def check_charset(values: Values, defects: list[Defect]) -> None:
    """Note a character set that is unknown, or that the patient's name is not written in."""
    terms = values.raw(0x00080005).decode("ascii", "replace").upper().split("\\")
    codecs: list[str] = []
    for term in (t.strip() for t in terms):
        match = _CHARSET.fullmatch(term)
        codec = _CODECS.get(match[1]) if match else {"": "ascii", "GB18030": "gb18030"}.get(term)
        codec = "gb18030" if term in ("GBK", "GB18030") else codec
        if codec is None:
            defects.append(Defect(Reason.CHARSET, "an unknown character set"))
            return
        codecs.append(codec)
    name = values.raw(0x00100010)
    if len(codecs) == 1 and b"\x1b" not in name:
        try:
            name.decode(codecs[0])
        except UnicodeDecodeError:
            defects.append(Defect(Reason.CHARSET, "text in another character set than declared"))
