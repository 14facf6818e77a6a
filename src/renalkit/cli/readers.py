"""Readers: what radiologists say about the cases, alone, as groups, and beside the systems."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from renalkit.cli.common import AsJson, give, progress_bar

if TYPE_CHECKING:
    from renalkit.readers.reading_rules import ReadingRules

app = typer.Typer(
    help="Readings of radiologists: figures, systems beside them, exchange with other programs.",
    no_args_is_help=True,
)


class Ties(StrEnum):
    POSITIVE = "positive"
    NEGATIVE = "negative"
    CHAIR = "chair"
    LEFT_OUT = "left-out"


class Form(StrEnum):
    CSV = "csv"
    IMRMC = "imrmc"
    RJAFROC = "rjafroc"


Readings = Annotated[
    Path,
    typer.Argument(
        help="CSV with patient, reader, score or vote; iMRMC (.imrmc); RJafroc (.xlsx).",
        exists=True,
    ),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column", metavar="WHAT=COLUMN", help="Another name of a column, e.g. case=PatientID."
    ),
]
Negative = Annotated[
    list[str] | None, typer.Option(help="Word for a negative call or truth, besides 0 and no.")
]


def _rules(column: list[str] | None, positive: list[str], negative: list[str]) -> ReadingRules:
    from renalkit.usecases.reading_options import reading_rules

    return reading_rules(tuple(column or ()), tuple(positive), tuple(negative))


@app.command()
def evaluate(
    readings: Readings,
    run: Annotated[
        Path | None,
        typer.Option(help="Run whose patients were read; keeps the readings.", exists=True),
    ] = None,
    cohort: Annotated[
        Path | None,
        typer.Option(help="Cohort that was read; with --run only when it has moved.", exists=True),
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option(help="The cohort's key, when not beside it.", exists=True)
    ] = None,
    system: Annotated[
        list[str] | None,
        typer.Option(help="System of the run beside the readers; default all that give classes."),
    ] = None,
    ties: Annotated[
        Ties | None, typer.Option(help="What a case is called on which as many say yes as no.")
    ] = None,
    chair: Annotated[str | None, typer.Option(help="Reader who settles ties.")] = None,
    baseline: Annotated[
        str | None, typer.Option(help="Arm the others are compared with; default the first.")
    ] = None,
    ai: Annotated[
        str | None, typer.Option(help="System of the run that readers saw in the other arms.")
    ] = None,
    vote_at: Annotated[
        float | None, typer.Option(help="Score from which a call is positive, in place of votes.")
    ] = None,
    scale: Annotated[
        str | None, typer.Option(metavar="LOW:HIGH[:STEP]", help="Scale of the scores, e.g. 1:5:1.")
    ] = None,
    positive: Annotated[
        str | None, typer.Option(help="Class that counts as positive; default the cohort's.")
    ] = None,
    negative: Negative = None,
    column: Columns = None,
    roster: Annotated[
        Path | None,
        typer.Option(help="Table of the readers: reader, group, perhaps years.", exists=True),
    ] = None,
    cases: Annotated[
        Path | None,
        typer.Option(
            help="Table of the patient of each case, where they are numbers.", exists=True
        ),
    ] = None,
    incomplete: Annotated[
        bool, typer.Option("--incomplete", help="Leave out cases not read by every reader.")
    ] = False,
    level: Annotated[
        float, typer.Option(min=0.5, max=0.9999, help="Level of intervals, without --run.")
    ] = 0.95,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for a page, tables and figures.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Readers, groups, majorities, agreement, arms; with a run also its systems beside them."""
    from renalkit.cli.tables import as_text, readers_blocks
    from renalkit.metrics.bootstrap import BootstrapPlan
    from renalkit.metrics.reader_study import TieRule
    from renalkit.usecases.readers import ReadersRequest, evaluate_readers
    from renalkit.usecases.reading_cases import ReaderPlan
    from renalkit.usecases.reading_options import scale_of

    plan = ReaderPlan(
        positive=positive,
        ties=None if ties is None else TieRule(ties.value.replace("-", " ")),
        chair=chair,
        vote_at=vote_at,
        scale=None if scale is None else scale_of(scale),
        baseline=baseline,
        systems=tuple(system or ()),
        ai=ai,
        incomplete=incomplete,
    )
    rules = _rules(column, [positive] if positive else [], negative or [])
    request = ReadersRequest(
        readings,
        plan,
        run=run,
        cohort=cohort,
        key_file=key_file,
        rules=rules,
        roster=roster,
        cases=cases,
        output=output,
        resampling=BootstrapPlan(level=level),
    )
    with progress_bar() as progress:
        found = evaluate_readers(request, progress)
    give(found, as_json, lambda: as_text(readers_blocks(found)))


@app.command()
def export(
    readings: Readings,
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write.")],
    form: Annotated[Form, typer.Option("--format", help="Form to write.")],
    positive: Annotated[
        list[str] | None, typer.Option(help="Word for a positive call or truth, besides 1 and yes.")
    ] = None,
    negative: Negative = None,
    column: Columns = None,
    incomplete: Annotated[
        bool, typer.Option("--incomplete", help="Allow cases not read by every reader.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write readings in the form of another program."""
    from dataclasses import replace

    from renalkit.usecases.readers import export_readings

    rules = replace(_rules(column, positive or [], negative or []), incomplete=incomplete)
    found = export_readings(readings, output, form.value, rules)
    beside = f"; numbers of the cases: {found['cases_table']}" if found["cases_table"] else ""
    give(
        found,
        as_json,
        lambda: (
            f"{found['written']}: {found['readings']} readings of {found['cases']} cases "
            f"by {found['readers']} readers{beside}"
        ),
    )
