"""Which columns of a label table are facts about a patient to keep, and which could name one?

Kept without asking: age (as `age_years`, at most 90, as from DICOM), sex (M, F or O), columns of
yes and no, and numbers whose name says that they are measured: it ends in a unit
(`haemoglobin_g_l`) or is known (`bmi`). Other columns are kept when they are named, if they hold
numbers or few different words. A column that could say who a person is (by its name, by dates, by
long whole numbers) is never kept, named or not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from renalkit.domain.study import Covariate
from renalkit.errors import InputRefused
from renalkit.readers.tables import Row, Table, bad_table, folded, number

OLDEST_YEARS = 90
"""Ages above are kept as this: the very old are few enough to be recognised."""

MOST_WORDS = 12
"""A column with more different words describes persons, not groups of them."""

LONGEST_WORD = 40

_LONG_NUMBER = re.compile(r"[+-]?[0-9]{6,}")
_DATE = re.compile(r"[0-9]{1,4}[-./][0-9]{1,2}[-./][0-9]{1,4}.*")
_YES_NO = {"yes": True, "no": False, "true": True, "false": False}
_SEX = {"m": "M", "male": "M", "f": "F", "female": "F", "o": "O", "other": "O"}
_MEASURED = ("bmi", "egfr", "charlson", "asa", "ecog")
_UNITS = (
    *("mm", "cm", "kg", "g_l", "t_l", "u_l", "g_dl", "mg_dl", "mg_l", "ug_l", "ng_ml"),
    *("mmol_l", "umol_l", "ml", "ml_min", "mmhg", "percent"),
)
_WHO = frozenset(
    ("name", "surname", "firstname", "lastname", "initials", "birth", "birthday", "birthdate")
    + ("dob", "born", "phone", "telephone", "mobile", "email", "mail", "address", "street", "city")
    + ("postcode", "zip", "ssn", "nhs", "insurance", "mrn", "pid", "id", "uid", "accession")
    + ("record", "chart", "passport", "date", "datetime", "identifier", "physician", "doctor")
)
_IN_USE = ("split", "source_format")


class CovariateKind(StrEnum):
    """What the cells of a kept column hold."""

    AGE = "age"
    SEX = "sex"
    YES_NO = "yes or no"
    NUMBER = "number"
    WORD = "word"


@dataclass(frozen=True, slots=True)
class CovariateColumn:
    """A column that is kept: its name in the table, and what it holds."""

    column: str
    kind: CovariateKind

    @property
    def name(self) -> str:
        """The name it has in the cohort."""
        own = {CovariateKind.AGE: "age_years", CovariateKind.SEX: "sex"}
        return own.get(self.kind, self.column)

    def value(self, row: Row, table: Table) -> Covariate | None:
        """The fact in one row; None for an empty cell.

        Raises: InputRefused(BAD_TABLE) for a cell of another kind, or an age outside 0 to 130.
        """
        text = row.values[self.column]
        if not text:
            return None
        if self.kind is CovariateKind.SEX:
            return _SEX[folded(text)]
        if self.kind is CovariateKind.YES_NO:
            return _YES_NO[folded(text)]
        if self.kind is CovariateKind.WORD:
            return text
        where = f"{table.where}, line {row.line}, column {self.column}"
        found = number(text, dialect=table.dialect, where=where)
        if self.kind is CovariateKind.NUMBER or found is None:
            return found
        if not 0 <= found <= 130:
            raise bad_table("an age that is not plausible", where=where, expected="years")
        return min(found, float(OLDEST_YEARS))


@dataclass(frozen=True, slots=True)
class CovariateChoice:
    """kept: columns that are facts. left: every other column with the reason in words, which are
    empty when nobody asked for it.

    refused: what is wrong with the columns that were asked for; empty when all can be kept.
    """

    kept: tuple[CovariateColumn, ...]
    left: Mapping[str, str]
    refused: tuple[str, ...]


def choose_covariates(
    table: Table, taken: Iterable[str], wanted: Sequence[str], patient: str | None
) -> CovariateChoice:
    """Which columns to keep. taken: those with a meaning of their own; wanted: asked for by name.

    patient: the column of identifiers, None when each row is its own patient.
    """
    own = set(taken)
    kept: list[CovariateColumn] = []
    left: dict[str, str] = {}
    for column in (c for c in table.columns if c not in own):
        kind, why = _kind(table, column, patient, column in wanted)
        if kind is None:
            left[column] = why
        else:
            kept.append(CovariateColumn(column, kind))
    refused = [f"no column '{n}' in {table.where}" for n in wanted if n not in table.columns]
    refused += [f"column '{n}' is read already, as what its name says" for n in wanted if n in own]
    refused += [f"column '{n}' is not kept: {left[n]}" for n in wanted if n in left]
    names = [k.name for k in kept]
    doubled = sorted({n for n in names if names.count(n) > 1})
    refused += [f"two columns say '{n}'; take one out of the table" for n in doubled]
    return CovariateChoice(tuple(kept), left, tuple(refused))


def _kind(
    table: Table, column: str, patient: str | None, asked: bool
) -> tuple[CovariateKind | None, str]:
    """What to keep a column as, or None and why it is left."""
    plain = _plain(column)
    who = sorted(set(plain.split("_")) & _WHO)
    if who:
        return None, f"'{who[0]}' in its name may say who a person is"
    if plain in _IN_USE or plain.startswith("margin_"):
        return None, "ingest uses the name itself"
    if plain in ("age", "age_years"):
        return CovariateKind.AGE, ""
    cells = [row.values[column] for row in table.rows if row.values[column]]
    words = {folded(c) for c in cells}
    if not cells:
        return None, "it is empty"
    if plain in ("sex", "gender"):
        if words <= set(_SEX):
            return CovariateKind.SEX, ""
        return None, "its words are not M, F, O, male, female or other"
    if words <= set(_YES_NO):
        return CovariateKind.YES_NO, ""
    measured = plain in _MEASURED or plain.endswith(tuple(f"_{unit}" for unit in _UNITS))
    if not asked and not measured:
        return None, ""
    if any(_DATE.fullmatch(c) for c in cells):
        return None, "it holds dates"
    if _all_numbers(table, cells):
        if 2 * sum(_LONG_NUMBER.fullmatch(c) is not None for c in cells) > len(cells):
            return None, "whole numbers of six or more digits, as persons have"
        return CovariateKind.NUMBER, ""
    if not asked:
        return None, "not every cell is a number"
    people = {row.values[patient] if patient else str(row.line) for row in table.rows}
    few = len(words) <= min(MOST_WORDS, len(people) // 2)
    if few and max(map(len, cells)) <= LONGEST_WORD:
        return CovariateKind.WORD, ""
    return None, f"neither numbers nor at most {MOST_WORDS} words that several patients share"


def _all_numbers(table: Table, cells: Sequence[str]) -> bool:
    try:
        return all(number(c, dialect=table.dialect) is not None for c in cells)
    except InputRefused:
        return False


def _plain(column: str) -> str:
    """Lower case, words apart by one underscore.

    >>> _plain("BirthDate"), _plain("Hb (g/L)")
    ('birth_date', 'hb_g_l')
    """
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", column)
    return re.sub(r"[\W_]+", "_", folded(apart)).strip("_")
