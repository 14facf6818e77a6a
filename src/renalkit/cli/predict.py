"""Trained systems on new studies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from renalkit.cli.common import AsJson, Overrides, give, model_of, progress_bar
from renalkit.errors import Exit


def predict(
    model: Annotated[
        Path, typer.Argument(help="Model package, RUN/SYSTEM (mean of folds) or one fold folder.")
    ],
    source: Annotated[
        Path, typer.Argument(help="Image, DICOM file, video, folder or zip.", exists=True)
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for results.")],
    regions: Annotated[
        Path | None,
        typer.Option(help="Outlines of the lesion: box table, CVAT, LabelMe.", exists=True),
    ] = None,
    roi_model: Annotated[
        Path | None,
        typer.Option(help="Package or RUN/SYSTEM that outlines the lesion.", exists=True),
    ] = None,
    one_patient: Annotated[
        bool, typer.Option("--one-patient", help="All files are of one patient.")
    ] = False,
    settings: Annotated[
        Path | None,
        typer.Option(help="Settings (TOML) of the analysis of contrast cines.", exists=True),
    ] = None,
    overrides: Overrides = None,
    presets: Annotated[
        Path | None, typer.Option(help="Layouts of consoles (TOML), for clips without regions.")
    ] = None,
    keep_pixels: Annotated[
        bool, typer.Option(help="Accept DICOM without ultrasound regions.")
    ] = False,
    fast: Annotated[
        str | None, typer.Option(help="Faster mode of a package: bf16 or int8, where it has it.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for compiled networks of packages.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Class scores per patient and frame, masks and overlays for a new study."""
    from renalkit.usecases.ceus_outliner import SystemOutliner
    from renalkit.usecases.ceus_settings import ceus_settings
    from renalkit.usecases.predict import predict_words, run_predict
    from renalkit.usecases.predict_input import InputOptions

    options = InputOptions(
        settings=ceus_settings(settings, ["maps=false", *(overrides or ())]),
        presets=presets,
        regions=regions,
        outliner=None if roi_model is None else SystemOutliner(model_of(roi_model)),
        keep_pixels=keep_pixels,
        one_patient=one_patient,
    )
    with progress_bar() as progress:
        found = run_predict(model_of(model, fast, cache), source, output, options, progress)
    give(found, as_json, lambda: predict_words(found))
    if found["refused"]:
        raise typer.Exit(Exit.PARTIAL)
