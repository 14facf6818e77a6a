"""Statistics of any table: scores of one's own, and tables that others have published."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from renalkit.cli.common import AsJson, give

Level = Annotated[float, typer.Option(min=0.5, max=0.9999, help="Level of intervals.")]


def audit(
    table: Annotated[Path, typer.Argument(help="CSV of a published table.", exists=True)],
    level: Level = 0.95,
    as_json: AsJson = False,
) -> None:
    """Can the numbers of a published table hold together? Shares, counts, AUCs, intervals."""
    from renalkit.usecases.audit import audit_table, audit_words

    found = audit_table(table, level)
    give(found, as_json, lambda: audit_words(found))
