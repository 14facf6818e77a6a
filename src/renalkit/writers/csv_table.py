"""How is a table written down so that a spreadsheet reads it and runs nothing in it?"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from renalkit.store.cohorts import safe_cell
from renalkit.writers.wording import finite, shown


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Numbers in full, words safe for a spreadsheet, None as an empty cell."""
    out = io.StringIO(newline="")
    table = csv.writer(out, lineterminator="\n")
    table.writerow(header)
    for row in rows:
        table.writerow([_csv_cell(value) for value in row])
    return out.getvalue()


def _csv_cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return safe_cell(shown(value))
    known = finite(value)
    if known is None:
        return ""
    return str(int(known)) if known == int(known) and isinstance(value, int) else f"{known:.9g}"
