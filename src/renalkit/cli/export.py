"""Trained systems as packages that predict without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from renalkit.cli.common import AsJson, give, progress_bar
from renalkit.errors import ConfigError


def export(
    system: Annotated[
        Path,
        typer.Argument(
            help="RUN/SYSTEM (all folds) or one fold folder; of a CT cascade RUN too.", exists=True
        ),
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
        int | None,
        typer.Option(help="Tested frames to compare on, of all folds together; 200 if not given."),
    ] = None,
    scans: Annotated[
        int | None,
        typer.Option(help="Of a CT cascade: tested scans per fold to compare on; 1 if not given."),
    ] = None,
    cohort: Annotated[
        Path | None, typer.Option(help="The run's cohort, when it has moved.", exists=True)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """A model package: networks without torch, model card, parity with the trained networks."""
    from renalkit.runtime.abilities import FAST, Precision
    from renalkit.usecases.cascade_kind import holds_cascade
    from renalkit.usecases.export import ExportRequest, export_system, export_words
    from renalkit.usecases.export_cascade import (
        CascadeExport,
        cascade_export_words,
        export_cascade,
    )

    asked = tuple(word.strip() for word in (fast or "").split(",") if word.strip())
    unknown = [word for word in asked if word not in {mode.value for mode in FAST}]
    if unknown:
        raise ConfigError([f"--fast '{word}': expected bf16 or int8" for word in unknown])
    modes = tuple(Precision(word) for word in asked)
    if holds_cascade(system):
        if frames is not None:
            raise ConfigError(["--frames: for systems that look at pictures; use --scans"])
        wanted = CascadeExport(
            system,
            output,
            version,
            tuple(formats or ("onnx",)),
            modes,
            1 if scans is None else scans,
            cohort,
        )
        with progress_bar() as progress:
            found = export_cascade(wanted, progress)
        give(found, as_json, lambda: cascade_export_words(found))
        return
    if scans is not None:
        raise ConfigError(["--scans: for a CT cascade; use --frames"])
    request = ExportRequest(
        system,
        output,
        version,
        tuple(formats or ("onnx",)),
        modes,
        200 if frames is None else frames,
        cohort,
    )
    with progress_bar() as progress:
        found = export_system(request, progress)
    give(found, as_json, lambda: export_words(found))
