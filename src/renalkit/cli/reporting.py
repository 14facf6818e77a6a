"""What goes to a journal: reporting checklists and model cards of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from renalkit.cli.common import AsJson, RunArgument, give


def checklist(
    folder: RunArgument,
    form: Annotated[
        str | None, typer.Option(help="claim or tripod-ai; both when not given.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write them: .csv, .html or .md.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """What CLAIM and TRIPOD+AI ask: answered by the run, partly, open. Makes reporting.toml."""
    from renalkit.usecases.checklists import ChecklistRequest, checklist_words, fill_checklists

    found = fill_checklists(ChecklistRequest(folder, form, output))
    give(found, as_json, lambda: checklist_words(found))


def card(
    folder: RunArgument,
    system: Annotated[
        str | None, typer.Option(help="System of the run; default the first.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help=".md, .html or .json; default card.json in its folder."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Model card of a trained system; refused while intended use or limitations are empty."""
    from renalkit.usecases.model_card import CardRequest, card_words, write_card

    found = write_card(CardRequest(folder, system, output))
    give(found, as_json, lambda: card_words(found))
