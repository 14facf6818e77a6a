"""What trained systems look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from renalkit.cli.common import AsJson, give, progress_bar


def explain(
    system: Annotated[Path, typer.Argument(help="RUN/SYSTEM of a run trained here.", exists=True)],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for results.")],
    method: Annotated[
        Literal["grad-cam", "grad-cam++", "cam"], typer.Option(help="How maps are made.")
    ] = "grad-cam",
    target: Annotated[
        str | None,
        typer.Option(metavar="CLASS", help="Class to explain; default the highest score's."),
    ] = None,
    fold: Annotated[
        list[int] | None, typer.Option(help="Only this fold; may be given several times.")
    ] = None,
    patients: Annotated[
        int, typer.Option(min=0, help="At most so many tested patients, classes in turn; 0: all.")
    ] = 0,
    frames: Annotated[
        int, typer.Option(min=0, help="Frames per patient, evenly spread; 0: all.")
    ] = 4,
    steps: Annotated[
        int, typer.Option(min=0, help="Steps of deletion and insertion; 0 leaves them out.")
    ] = 10,
    seed: Annotated[int, typer.Option(help="Of the randomised network.")] = 0,
    cohort: Annotated[Path | None, typer.Option(help="Cohort folder, when it has moved.")] = None,
    as_json: AsJson = False,
) -> None:
    """Activation maps of tested frames by their own fold's network, and how far to trust them.

    Resumes. The pictures hold pixels: keep them as confidential as their source.
    """
    from renalkit.usecases.explain import ExplainRequest, explain_words
    from renalkit.usecases.explain import explain as run_explain

    folds = tuple(sorted(set(fold or ())))
    request = ExplainRequest(
        system, output, method, target, folds, patients, frames, steps, seed, cohort
    )
    with progress_bar() as progress:
        found = run_explain(request, progress)
    give(found, as_json, lambda: explain_words(found))
