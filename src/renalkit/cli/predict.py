"""Trained systems on new images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from renalkit.cli.common import AsJson, give, progress_bar
from renalkit.errors import Exit


def predict(
    model: Annotated[Path, typer.Argument(help="RUN/SYSTEM (mean of folds) or one fold folder.")],
    source: Annotated[
        Path, typer.Argument(help="Image, DICOM file, video or folder.", exists=True)
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for results.")],
    keep_pixels: Annotated[
        bool, typer.Option(help="Accept DICOM without ultrasound regions.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Masks, class scores and overlays for new images."""
    from renalkit.usecases.predict import predict_folder, predict_words

    with progress_bar() as progress:
        found = predict_folder(model, source, output, keep_pixels, progress)
    give(found, as_json, lambda: predict_words(found))
    if found["refused"]:
        raise typer.Exit(Exit.PARTIAL)
