"""Other hospitals: trained models on their patients, and how their pictures differ."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from renalkit.cli.common import AsJson, RunArgument, Waive, give, progress_bar


def external(
    run: RunArgument,
    cohort: Annotated[Path, typer.Argument(help="External cohort folder.", exists=True)],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder of runs; default beside RUN."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the new run; default RUN-on-COHORT.")] = None,
    development: Annotated[
        Path | None, typer.Option(help="Cohort folder of RUN, when it has moved.")
    ] = None,
    waive: Waive = None,
    as_json: AsJson = False,
) -> None:
    """Test the trained models of a run on another cohort; refuses patients they have seen."""
    from renalkit.usecases.cascade_kind import holds_cascade
    from renalkit.usecases.external_run import ExternalRequest
    from renalkit.usecases.run import run_words

    if holds_cascade(run):
        from renalkit.usecases.cascade_external import run_cascade_external as run_external
    else:
        from renalkit.usecases.external import run_external

    request = ExternalRequest(run, cohort, output, name, development, tuple(waive or ()))
    with progress_bar() as progress:
        found = run_external(request, progress)
    give(found, as_json, lambda: run_words(found))


def drift(
    first: Annotated[Path, typer.Argument(help="Cohort folder.", exists=True)],
    second: Annotated[Path, typer.Argument(help="Cohort folder to compare with it.", exists=True)],
    csv: Annotated[Path | None, typer.Option(help="Table to write as CSV.")] = None,
    as_json: AsJson = False,
) -> None:
    """Do pictures and patients of two cohorts differ? Distributions side by side, and together."""
    from renalkit.usecases.drift import drift, drift_words

    with progress_bar() as progress:
        found = drift(first, second, progress, csv)
    give(found, as_json, lambda: drift_words(found))
