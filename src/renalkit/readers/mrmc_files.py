"""What do the files of reader-study programs say: iMRMC text and RJafroc workbooks?

Formats: iMRMC user manual, section 4.1.1 (DIDSR/iMRMC); RJafroc quick start, chapter "JAFROC ROC
data format", both layouts of the Truth sheet. Location studies (FROC, LROC) are refused.
"""

from __future__ import annotations

import io
import warnings
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import ParseError  # noqa: S405  the name of an error

from renalkit.domain.readings import Reader, ReadingTable
from renalkit.errors import InputRefused, Reason
from renalkit.readers.reading_rules import CallWords, Collected, ReadingRules
from renalkit.readers.tables import bad_table, folded, number

MAX_READINGS = 1_000_000
MAX_XLSX_BYTES = 64 << 20
MAX_XLSX_PARTS = 1_000

_TRUTH_READERS = ("-1", "truth")
_CROSSED = ("fctrl", "crossed", "factorial")
_Sheet = list[tuple[int, list[str]]]


# ------------------------------------------------------------------ iMRMC


def parse_imrmc(data: bytes, *, where: str, rules: ReadingRules | None = None) -> ReadingTable:
    """Readings in iMRMC's text form.

    Free text, perhaps with the lines N0, N1, NR and NM, then BEGIN DATA: and lines of reader, case,
    modality, score. Lines of the reader -1 (or truth) give the truth of a case as 0 or 1. The four
    numbers, where given, must be those of the data.
    Raises InputRefused(BAD_TABLE).
    """
    rules = rules or ReadingRules()
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise _bad("text that is not UTF-8", where=where, expected="UTF-8") from error
    begin = next((i for i, line in enumerate(lines) if line.strip() == "BEGIN DATA:"), None)
    if begin is None:
        raise _bad(
            "no line BEGIN DATA:",
            where=where,
            expected="that line, written exactly so, before the data",
            remedy="export the study from iMRMC again, or import it as CSV",
        )
    found = Collected(where, rules)
    for place, text in enumerate(lines[begin + 1 :], begin + 2):
        if not text.strip():
            continue
        cells = [cell.strip() for cell in text.split(",")]
        if len(cells) != 4 or not all(cells):
            raise _bad(
                f"{len(cells)} cells, or an empty one",
                where=where,
                line=place,
                expected="reader,case,modality,score",
            )
        reader, case, arm, score = cells
        if reader in _TRUTH_READERS:
            found.say_truth(
                case, CallWords(("1",), ("0",)).read(score, where=_at(where, place)), place
            )
            continue
        found.say_reader(Reader(reader), place)
        found.add((case, reader, arm), (number(score, where=_at(where, place)), None), place)
    table = found.table(needs_truth=True)
    _check_sizes(lines[:begin], table, where)
    return table


def _at(where: str, line: int) -> str:
    return f"{where}, line {line}"


def _bad(
    found: str,
    *,
    where: str,
    line: int | None = None,
    expected: str,
    remedy: str = "correct the file and import it again",
) -> InputRefused:
    return bad_table(found, where=where, line=line, expected=expected, remedy=remedy)


def _check_sizes(head: Sequence[str], table: ReadingTable, where: str) -> None:
    positive = int(table.truths().sum())
    sizes = {
        "N0": len(table.cases) - positive,
        "N1": positive,
        "NR": len(table.readers),
        "NM": len(table.arms),
    }
    for line, text in enumerate(head, 1):
        name, colon, said = (part.strip() for part in text.partition(":"))
        if colon and name in sizes and said != str(sizes[name]):
            raise _bad(
                f"{name} is {said[:20]!r}, the data have {sizes[name]}",
                where=where,
                line=line,
                expected="the numbers of the data",
                remedy="look for missing or doubled lines, then correct the number",
            )


# ------------------------------------------------------------------ RJafroc


def parse_rjafroc(data: bytes, *, where: str, rules: ReadingRules | None = None) -> ReadingTable:
    """Readings of an RJafroc (JAFROC) workbook of the ROC paradigm, fully crossed.

    Sheets Truth, FP (or NL) with the ratings of cases without disease, and TP (or LL) with those of
    diseased cases. Truth has three columns, or six with readers, modalities and paradigm.
    Raises InputRefused: BAD_TABLE; TOO_LARGE, FORMAT_REFUSED for what is no workbook.
    """
    rules = rules or ReadingRules()
    sheets = _sheets(data, where)
    truth_rows = _sheet(sheets, ("TRUTH",), ("CaseID", "LesionID", "Weight"), where)
    found = Collected(where, rules)
    for line, cells in truth_rows:
        place = f"{where}, sheet TRUTH"
        lesion = cells[1]
        if lesion not in ("0", "1"):
            raise _bad(
                f"lesion {lesion[:20]!r}",
                where=place,
                line=line,
                expected="0 (no disease) or 1: one rating per case",
                remedy="location studies (FROC, LROC) are not read",
            )
        found.say_truth(cells[0], lesion == "1", line)
    paradigm = [folded(cells[5]) for _, cells in truth_rows if len(cells) > 5 and cells[5]]
    if paradigm and (paradigm[0] != "roc" or (paradigm[1:2] or ["fctrl"])[0] not in _CROSSED):
        raise _bad(
            f"paradigm {' '.join(paradigm)[:40]!r}",
            where=f"{where}, sheet TRUTH",
            expected="ROC and FCTRL (every reader reads every case in every modality)",
        )
    ratings = (
        (("FP", "NL"), ("ReaderID", "ModalityID", "CaseID"), False),
        (("TP", "LL"), ("ReaderID", "ModalityID", "CaseID", "LesionID"), True),
    )
    for names, columns, diseased in ratings:
        for line, cells in _sheet(sheets, names, columns, where, rated=True):
            place = f"{where}, sheet {'/'.join(names)}"
            reader, arm, case = cells[:3]
            if found.truth.get(case) is not diseased:
                raise _bad(
                    f"case {case[:40]!r} is not {'diseased' if diseased else 'free of disease'}",
                    where=place,
                    line=line,
                    expected="ratings of cases without disease in FP, of diseased ones in TP",
                    remedy="location studies (FROC, LROC) are not read; correct the Truth sheet",
                )
            found.where = place
            found.say_reader(Reader(reader), line)
            score = number(cells[len(columns)], where=_at(place, line))
            found.add((case, reader, arm), (score, None), line)
    found.where = where
    return found.table(needs_truth=True)


def _sheets(data: bytes, where: str) -> dict[str, _Sheet]:
    """Rows of every sheet by its name in capitals, cells as text."""
    from openpyxl import load_workbook
    from openpyxl.utils.exceptions import InvalidFileException

    _check_workbook(data, where)
    try:
        # Extensions openpyxl does not know (validation lists, themes) only raise warnings.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            book: Any = load_workbook(
                io.BytesIO(data), read_only=True, data_only=True, keep_links=False
            )
            return {sheet.title.upper().strip(): _rows(sheet, where) for sheet in book.worksheets}
    except (
        *(zipfile.BadZipFile, zlib.error, InvalidFileException, ParseError, OSError, EOFError),
        *(KeyError, IndexError, ValueError, TypeError, AttributeError),
    ) as error:
        raise InputRefused(
            Reason.FORMAT_REFUSED,
            f"a damaged workbook ({type(error).__name__})",
            where=where,
            expected="an Excel workbook (.xlsx)",
            remedy="open it in Excel or LibreOffice and save it again as .xlsx",
        ) from error


def _rows(sheet: Any, where: str) -> _Sheet:
    rows: _Sheet = []
    for line, values in enumerate(sheet.iter_rows(values_only=True), 1):
        if line > MAX_READINGS:
            raise _bad("too many lines", where=where, expected=f"at most {MAX_READINGS}")
        cells = [_text(v) for v in values]
        if any(cells):
            rows.append((line, cells))
    return rows


def _text(value: Any) -> str:
    """A cell as text; whole numbers without decimals, so that 7 and 7.0 are one case."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _check_workbook(data: bytes, where: str) -> None:
    """Sizes before anything is unpacked, and no XML that defines entities."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            parts = archive.infolist()
            if len(parts) > MAX_XLSX_PARTS or sum(p.file_size for p in parts) > MAX_XLSX_BYTES:
                raise InputRefused(
                    Reason.TOO_LARGE,
                    f"a workbook of {len(parts)} parts",
                    where=where,
                    expected=f"at most {MAX_XLSX_PARTS} parts and {MAX_XLSX_BYTES >> 20} MiB",
                )
            for part in parts:
                if part.filename.endswith((".xml", ".rels")) and b"<!" in archive.read(part)[:4096]:
                    raise InputRefused(
                        Reason.FORMAT_REFUSED,
                        "a workbook whose XML has a document type",
                        where=where,
                        remedy="save it again in Excel or LibreOffice",
                    )
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError) as error:
        raise InputRefused(
            Reason.FORMAT_REFUSED,
            "no Excel workbook",
            where=where,
            expected="an .xlsx file",
            remedy="save it as .xlsx (not .xls), without a password",
        ) from error


def _sheet(
    sheets: Mapping[str, _Sheet],
    names: Sequence[str],
    columns: Sequence[str],
    where: str,
    *,
    rated: bool = False,
) -> _Sheet:
    """The data rows of a sheet whose first columns are these (then a rating), all filled."""
    rows = next((sheets[name] for name in names if name in sheets), None)
    place = f"{where}, sheet {'/'.join(names)}"
    if not rows:
        raise _bad("no such sheet, or an empty one", where=place, expected="Truth, FP and TP")
    head = [folded(cell) for cell in rows[0][1]]
    right = head[: len(columns)] == [folded(c) for c in columns]
    if not right or (rated and "rating" not in "".join(head[len(columns) : len(columns) + 1])):
        expected = ", ".join([*columns, *(["a rating"] if rated else [])])
        raise _bad(f"columns {', '.join(rows[0][1])[:120]}", where=place, line=1, expected=expected)
    needed = len(columns) + rated
    for line, cells in rows[1:]:
        if len(cells) < needed or not all(cells[:needed]):
            raise _bad("an empty cell", where=place, line=line, expected="a value")
    return rows[1:]
