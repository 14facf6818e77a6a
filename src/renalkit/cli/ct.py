"""CT scans: what segmentations say of their masses."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from renalkit.cli.common import AsJson, give, progress_bar
from renalkit.errors import Exit

app = typer.Typer(help="CT scans: tables of their masses.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """CT scans: tables of their masses."""


@app.command()
def lesions(
    labels: Annotated[
        Path,
        typer.Argument(
            help="Label file (NIfTI, or a picture of one slice), folder of CT studies, or cohort.",
            exists=True,
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for results.")],
    scan: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PHASE=FILE",
            help="Scan of the label file, NIfTI or folder of DICOM slices; PHASE is non-contrast, "
            "corticomedullary, nephrographic, excretory or unknown, and may be left out.",
        ),
    ] = None,
    instances: Annotated[
        Path | None,
        typer.Option(help="Number of each lesion, on the label file's grid.", exists=True),
    ] = None,
    spacing: Annotated[
        str | None,
        typer.Option(metavar="MM", help="Of a picture: mm per pixel, or of rows,columns."),
    ] = None,
    window: Annotated[
        str | None,
        typer.Option(metavar="LOW,HIGH", help="Of a picture: the HU that are black and white."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Size, density, place and nephrometry of every mass of segmented CT scans."""
    from renalkit.usecases.ct_lesions import (
        LesionsRequest,
        lesions_words,
        pair_of,
        run_lesions,
        scans_of,
    )

    request = LesionsRequest(
        labels,
        output,
        scans_of(scan or ()),
        instances,
        pair_of(spacing, "--spacing"),
        pair_of(window, "--window"),
    )
    with progress_bar() as progress:
        found = run_lesions(request, progress)
    give(found, as_json, lambda: lesions_words(found))
    if found["left_out"]:
        raise typer.Exit(Exit.PARTIAL)
