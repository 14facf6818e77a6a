"""How do readings leave for other programs: our CSV, iMRMC text, RJafroc workbooks?

What a format cannot hold is refused, not bent: iMRMC and RJafroc need truth and scores, RJafroc
every case read by every reader in every arm. An arm without a name is called "1" in both.

Formats: iMRMC user manual, section 4.1.1 (DIDSR/iMRMC); RJafroc quick start, chapter "JAFROC ROC
data format", six columns of Truth (`DfReadDataFile(..., newExcelFileFormat = TRUE)`).
"""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from renalkit.domain.readings import ReadingTable, ReadingValue
from renalkit.errors import InputRefused, Reason
from renalkit.store.files import write_bytes, write_text

if TYPE_CHECKING:
    from openpyxl import Workbook

UNNAMED_ARM = "1"

# The same readings give the same bytes whenever they are written.
_WRITTEN = datetime(2000, 1, 1, tzinfo=UTC)
_STAMP = re.compile(rb"(<dcterms:(?:created|modified)[^>]*>)[^<]*")


def readings_csv(table: ReadingTable) -> str:
    """One line per reading; `readers.readings.parse_readings` reads it back as it was."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(["patient", "reader", "group", "years", "arm", "score", "vote", "truth"])
    readers = {r.name: r for r in table.readers}
    for r in table.readings:
        reader, truth = readers[r.reader], None if table.truth is None else table.truth[r.case]
        rows.writerow(
            [
                *(r.case, r.reader, reader.group, "" if reader.years is None else reader.years),
                *(r.arm, _number(r.score), _call(r.vote), _call(truth)),
            ]
        )
    return out.getvalue()


def write_readings_csv(table: ReadingTable, path: Path) -> None:
    """`readings_csv` in a file."""
    write_text(path, readings_csv(table))


def imrmc_text(table: ReadingTable, title: str = "Readings exported by renalkit") -> str:
    """The scores in iMRMC's form: sizes, truth of every case, then reader,case,modality,score.

    Readings that are missing have no line; iMRMC allows that.
    Raises: InputRefused for readings without truth or score, or names with commas or line ends, or
    a reader called -1 or truth.
    """
    truth = _needs_truth_and_scores(table, "iMRMC")
    _check_names(table, "iMRMC", r"[^,\r\n]*", "no commas or line ends")
    if {"-1", "truth"} & {r.name for r in table.readers}:
        raise _refused("a reader called -1 or truth", "iMRMC", "other names: these mark the truth")
    positive = sum(truth.values())
    lines = [
        " ".join(title.split()),
        f"NR: {len(table.readers)}",
        f"N0: {len(truth) - positive}",
        f"N1: {positive}",
        f"NM: {len(table.arms)}",
        "BEGIN DATA:",
        *(f"-1,{case},truth,{int(truth[case])}" for case in table.cases),
        *(
            f"{r.reader},{r.case},{r.arm or UNNAMED_ARM},{_number(r.score)}"
            for r in table.readings
            if r.score is not None
        ),
    ]
    return "\n".join(lines) + "\n"


def write_imrmc(table: ReadingTable, path: Path) -> None:
    """`imrmc_text` in a file, which must end in .imrmc for iMRMC and RJafroc to take it."""
    _check_ending(path, ".imrmc")
    write_text(path, imrmc_text(table))


def rjafroc_workbook(table: ReadingTable) -> tuple[bytes, dict[str, int]]:
    """The scores as an RJafroc workbook (ROC, fully crossed), and the number each case has in it.

    RJafroc takes whole numbers as cases: cases without disease come first, in the table's order.
    A workbook holds scores to 16 digits.
    Raises: InputRefused for readings without truth or score, missing readings, cases of one class,
    or names of readers and arms with commas or spaces, at which RJafroc would split them.
    """
    from openpyxl import Workbook

    truth = _needs_truth_and_scores(table, "RJafroc")
    _check_names(table, "RJafroc", r"[^,\s]*", "no commas or spaces", cases=False)
    missing = table.missing(ReadingValue.SCORE)
    if missing:
        case, reader, arm = missing[0]
        raise _refused(
            f"{len(missing)} scores are missing, the first of case {case!r} by {reader!r}"
            + (f" in {arm!r}" if arm else ""),
            "RJafroc",
            "every case read by every reader in every arm",
            "leave out incomplete cases (ReadingTable.crossed), or export to iMRMC",
        )
    if len(set(truth.values())) < 2:
        raise _refused("cases of one class only", "RJafroc", "cases with and without disease")
    ordered = sorted(table.cases, key=lambda case: truth[case])
    numbers = {case: i for i, case in enumerate(ordered, 1)}
    readers = ", ".join(r.name for r in table.readers)
    arms = ", ".join(arm or UNNAMED_ARM for arm in table.arms)
    book = Workbook()
    book.remove(book.active)  # pyright: ignore[reportArgumentType]  a new book has a sheet
    paradigm = iter(("ROC", "FCTRL"))
    _fill(
        book.create_sheet("Truth"),
        ("CaseID", "LesionID", "Weight", "ReaderID", "ModalityID", "Paradigm"),
        (
            (numbers[c], int(truth[c]), int(truth[c]), readers, arms, next(paradigm, None))
            for c in ordered
        ),
    )
    scored = [(r.reader, r.arm or UNNAMED_ARM, numbers[r.case], r) for r in table.readings]
    _fill(
        book.create_sheet("TP"),
        ("ReaderID", "ModalityID", "CaseID", "LesionID", "TP_Rating"),
        ((reader, arm, n, 1, r.score) for reader, arm, n, r in scored if truth[r.case]),
    )
    _fill(
        book.create_sheet("FP"),
        ("ReaderID", "ModalityID", "CaseID", "FP_Rating"),
        ((reader, arm, n, r.score) for reader, arm, n, r in scored if not truth[r.case]),
    )
    return _bytes(book), numbers


def write_rjafroc(table: ReadingTable, path: Path) -> Path:
    """The workbook, and beside it NAME-cases.csv with the number of every case; returns that."""
    _check_ending(path, ".xlsx")
    content, numbers = rjafroc_workbook(table)
    key = path.with_name(f"{path.stem}-cases.csv")
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([("case", "patient"), *_turned(numbers.items())])
    write_bytes(path, content)
    write_text(key, out.getvalue())
    return key


def _turned(numbers: Iterable[tuple[str, int]]) -> list[tuple[int, str]]:
    return [(n, case) for case, n in numbers]


def _fill(sheet: Any, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    sheet.append(head)
    for row in rows:
        sheet.append(row)


def _bytes(book: Workbook) -> bytes:
    """The workbook with the same stamps whenever it is made."""
    raw = io.BytesIO()
    book.save(raw)
    packed = io.BytesIO()
    with zipfile.ZipFile(raw) as old, zipfile.ZipFile(packed, mode="w") as new:  # in memory
        for name in old.namelist():
            content = old.read(name)
            if name == "docProps/core.xml":
                content = _STAMP.sub(
                    rb"\g<1>" + _WRITTEN.strftime("%Y-%m-%dT%H:%M:%SZ").encode(), content
                )
            part = zipfile.ZipInfo(name, date_time=_WRITTEN.timetuple()[:6])
            new.writestr(part, content, compress_type=zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def _needs_truth_and_scores(table: ReadingTable, program: str) -> dict[str, bool]:
    if table.truth is None:
        raise _refused(
            "readings without truth", program, "the truth of every case", "import them with truth"
        )
    if not table.has(ReadingValue.SCORE):
        raise _refused("votes without scores", program, "scores", "these programs compare scores")
    return dict(table.truth)


def _check_names(
    table: ReadingTable, program: str, pattern: str, words: str, *, cases: bool = True
) -> None:
    names = [*(r.name for r in table.readers), *table.arms, *(table.cases if cases else ())]
    bad = next((n for n in names if re.fullmatch(pattern, n) is None), None)
    if bad is not None:
        raise _refused(f"the name {bad[:60]!r}", program, words, "rename it before the export")


def _check_ending(path: Path, ending: str) -> None:
    if path.suffix.lower() != ending:
        raise InputRefused(
            Reason.FORMAT_REFUSED,
            f"a file name ending in {path.suffix!r}",
            where=path.name,
            expected=f"a name ending in {ending}",
        )


def _refused(found: str, program: str, expected: str, remedy: str = "") -> InputRefused:
    return InputRefused(
        Reason.FORMAT_REFUSED,
        found,
        where=f"export to {program}",
        expected=expected,
        remedy=remedy,
    )


def _number(value: float | None) -> str:
    """Shortest text that gives the same number back, whole numbers without decimals."""
    if value is None:
        return ""
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _call(value: bool | None) -> str:
    return "" if value is None else str(int(value))
