"""Trained systems as packages that predict without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from renalkit.cli.common import AsJson, give, progress_bar
from renalkit.errors import ConfigError


def export(
    system: Annotated[
        Path, typer.Argument(help="RUN/SYSTEM (all folds) or one fold folder.", exists=True)
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder of packages; SYSTEM/VERSION inside.")
    ] = Path("models"),
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", help="onnx (always), openvino, monai-bundle; may be repeated."),
    ] = None,
    fast: Annotated[
        str | None,
        typer.Option(help="Faster modes beside fp32: bf16, int8, or both with a comma."),
    ] = None,
    version: Annotated[
        str | None, typer.Option(help="Name of this version; default from the weights.")
    ] = None,
    frames: Annotated[
        int, typer.Option(help="Tested frames to compare on, of all folds together.")
    ] = 200,
    cohort: Annotated[
        Path | None, typer.Option(help="The run's cohort, when it has moved.", exists=True)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """A model package: networks without torch, model card, parity with the trained networks."""
    from renalkit.runtime.abilities import FAST, Precision
    from renalkit.usecases.export import ExportRequest, export_system, export_words

    asked = tuple(word.strip() for word in (fast or "").split(",") if word.strip())
    unknown = [word for word in asked if word not in {mode.value for mode in FAST}]
    if unknown:
        raise ConfigError([f"--fast '{word}': expected bf16 or int8" for word in unknown])
    request = ExportRequest(
        system,
        output,
        version,
        tuple(formats or ("onnx",)),
        tuple(Precision(word) for word in asked),
        frames,
        cohort,
    )
    with progress_bar() as progress:
        found = export_system(request, progress)
    give(found, as_json, lambda: export_words(found))
