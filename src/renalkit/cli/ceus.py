"""Contrast cines: their panes, motion, phases, frames and perfusion figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from renalkit.cli.common import AsJson, Overrides, Readers, give, model_of, progress_bar
from renalkit.errors import Exit

app = typer.Typer(
    help="Contrast cines: panes, motion, phases, frames and perfusion figures.",
    no_args_is_help=True,
)

PresetFile = Annotated[
    Path | None, typer.Option(help="Layouts of consoles (TOML), for clips without regions.")
]
KeepPixels = Annotated[bool, typer.Option(help="Accept DICOM without ultrasound regions.")]


@app.command()
def analyse(
    source: Annotated[
        Path, typer.Argument(help="DICOM cine, video, or a folder of them.", exists=True)
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for results.")],
    regions: Annotated[
        Path | None,
        typer.Option(
            help="Outlines in either pane: box table, CVAT, LabelMe. Lesion 'cortex' is the "
            "reference."
        ),
    ] = None,
    mask: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE", help="Mask of one frame, e.g. lesion=mask.png."),
    ] = None,
    frame: Annotated[
        int | None, typer.Option(min=0, help="Frame the masks belong to, from 0.")
    ] = None,
    dynamic_range: Annotated[
        float | None, typer.Option(help="Dynamic range of the contrast picture in dB.")
    ] = None,
    injection: Annotated[
        float | None, typer.Option(help="Injection in s on the clock of the frame times.")
    ] = None,
    settings: Annotated[
        Path | None, typer.Option(help="Settings (TOML) of the analysis.", exists=True)
    ] = None,
    overrides: Overrides = None,
    presets: PresetFile = None,
    keep_pixels: KeepPixels = False,
    dicom: Annotated[
        bool, typer.Option("--dicom", help="Also write outlines, figures and page as DICOM.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Panes, motion, phases, chosen frames, curves, figures and maps of contrast cines. Resumes."""
    from renalkit.usecases.ceus import AnalyseRequest, analyse_words, masks_of, run_analyse
    from renalkit.usecases.ceus_settings import ceus_settings

    given = list(overrides or ())
    given += [] if dynamic_range is None else [f"dynamic_range_db={dynamic_range!r}"]
    given += [] if injection is None else [f"injection_s={injection!r}"]
    request = AnalyseRequest(
        source=source,
        output=output,
        settings=ceus_settings(settings, given),
        regions=regions,
        masks=masks_of(mask or ()),
        frame=frame,
        presets=presets,
        keep_pixels=keep_pixels,
        dicom=dicom,
    )
    with progress_bar() as progress:
        found = run_analyse(request, progress)
    give(found, as_json, lambda: analyse_words(found))
    if found["refused"]:
        raise typer.Exit(Exit.PARTIAL)


@app.command()
def panels(
    source: Annotated[Path, typer.Argument(help="DICOM file or video.", exists=True)],
    preview: Annotated[
        Path | None, typer.Option("-o", "--preview", help="PNG with the panes drawn in.")
    ] = None,
    presets: PresetFile = None,
    contrast: Annotated[
        str | None, typer.Option(help="Where contrast is: left, right, top or bottom.")
    ] = None,
    save_preset: Annotated[
        Path | None, typer.Option(help="Write the layout found as a preset file.")
    ] = None,
    keep_pixels: KeepPixels = False,
    as_json: AsJson = False,
) -> None:
    """Where B-mode and contrast are on the screen, or why that cannot be told."""
    from renalkit.usecases.ceus import PanelsRequest, panels_words, run_panels

    found = run_panels(PanelsRequest(source, preview, presets, contrast, save_preset, keep_pixels))
    give(found, as_json, lambda: panels_words(found))
    if found["answer"] == "unclear":
        raise typer.Exit(Exit.PARTIAL)


@app.command()
def cohort(
    source: Annotated[Path, typer.Argument(help="Folder of DICOM cines.", exists=True)],
    output: Annotated[Path, typer.Option("-o", "--output", help="Cohort folder.")],
    labels: Annotated[
        Path | None, typer.Option(help="Label table (CSV); default labels.csv in the source.")
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(help="Outlines in either pane: box table, CVAT, LabelMe folder."),
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Classes in order, e.g. benign,malignant.")
    ] = None,
    positive: Annotated[str | None, typer.Option(help="The positive class.")] = None,
    settings: Annotated[
        Path | None, typer.Option(help="Settings (TOML) of the analysis.", exists=True)
    ] = None,
    overrides: Overrides = None,
    presets: PresetFile = None,
    key_file: Annotated[
        Path | None, typer.Option(help="The project's key, outside the cohort.")
    ] = None,
    covariates: Annotated[
        str | None, typer.Option(help="More columns of the label table to keep.")
    ] = None,
    roi_model: Annotated[
        Path | None,
        typer.Option(help="RUN/SYSTEM that outlines the lesion instead of people.", exists=True),
    ] = None,
    workers: Readers = 0,
    as_json: AsJson = False,
) -> None:
    """Dual cines into a cohort of paired frames, with perfusion figures as facts. Resumes."""
    from renalkit.usecases.ceus_cohort import ContrastOptions
    from renalkit.usecases.ceus_settings import ceus_settings
    from renalkit.usecases.ingest import ingest_words, request_of, run_ingest

    outliner = None
    if roi_model is not None:
        from renalkit.usecases.ceus_outliner import SystemOutliner

        outliner = SystemOutliner(model_of(roi_model))
    given = ["maps=false", *(overrides or ())]
    request = request_of(
        source=source,
        output=output,
        layout="dicom",
        labels=labels,
        annotations=annotations,
        classes=classes,
        positive=positive,
        key_file=key_file,
        covariates=covariates,
        contrast=ContrastOptions(ceus_settings(settings, given), presets, outliner),
        workers=workers,
    )
    with progress_bar() as progress:
        report = run_ingest(request, progress)
    give(report.as_json(), as_json, lambda: ingest_words(report))
    if report.refused:
        raise typer.Exit(Exit.PARTIAL)
