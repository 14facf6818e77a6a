"""From files to a cohort: choosing frames of cines, reading everything."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from renalkit.cli.common import AsJson, Readers, give, progress_bar
from renalkit.errors import Exit


def frames(
    source: Annotated[Path, typer.Argument(help="Folder of DICOM files or videos.", exists=True)],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder for the sheets and keep.csv.")
    ],
    every: Annotated[int | None, typer.Option(min=1, help="Offer every n-th frame.")] = None,
    seconds: Annotated[
        float | None, typer.Option(help="Offer one frame per so many seconds.")
    ] = None,
    keep_pixels: Annotated[
        bool, typer.Option(help="Show DICOM images that declare no ultrasound region.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Contact sheets and a list of frames to pick from, for ingest --keep. Resumes."""
    from renalkit.usecases.frames import frames_request, frames_words, run_frames

    request = frames_request(
        source=source, output=output, every=every, seconds=seconds, keep_pixels=keep_pixels
    )
    with progress_bar() as progress:
        report = run_frames(request, progress)
    give(report.as_json(), as_json, lambda: frames_words(report))
    if report.refused:
        raise typer.Exit(Exit.PARTIAL)


def ingest(
    source: Annotated[Path, typer.Argument(help="Folder of images or DICOM files.", exists=True)],
    output: Annotated[Path, typer.Option("-o", "--output", help="Cohort folder.")],
    layout: Annotated[
        str, typer.Option(help="auto, dicom, ct, kits, nnunet, images, pairs or busi.")
    ] = "auto",
    labels: Annotated[
        Path | None, typer.Option(help="Label table (CSV); default labels.csv in the source.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Classes in order, e.g. benign,malignant.")
    ] = None,
    positive: Annotated[str | None, typer.Option(help="The positive class.")] = None,
    ordered: Annotated[
        bool, typer.Option("--ordered", help="The classes are grades, named in rising order.")
    ] = False,
    target: Annotated[
        str, typer.Option(help="What is told apart: label, histology or grade.")
    ] = "label",
    groups: Annotated[
        str, typer.Option(help="busi only: 'manifest' takes the packed groups as patients.")
    ] = "none",
    annotations: Annotated[
        Path | None, typer.Option(help="Boxes or masks per frame: CSV, CVAT XML or LabelMe folder.")
    ] = None,
    masks: Annotated[
        str | None,
        typer.Option(help="Where masks are, e.g. '{folder}/{stem}_seg.png' (guide to ingest)."),
    ] = None,
    keep_pixels: Annotated[
        bool, typer.Option(help="Keep DICOM images that declare no ultrasound region (recorded).")
    ] = False,
    allow_headerless: Annotated[bool, typer.Option(help="Accept DICOM without preamble.")] = False,
    key_file: Annotated[
        Path | None, typer.Option(help="The project's key, outside the cohort.")
    ] = None,
    keep: Annotated[
        Path | None, typer.Option(help="Keep list of `renalkit frames`: only its frames are taken.")
    ] = None,
    every: Annotated[
        int | None, typer.Option(min=1, help="Take every n-th frame of each cine.")
    ] = None,
    covariates: Annotated[
        str | None,
        typer.Option(help="More columns of the label table to keep, e.g. crp,smoker."),
    ] = None,
    workers: Readers = 0,
    as_json: AsJson = False,
) -> None:
    """Read a folder into a cohort; every file ends used or refused with its reason. Resumes."""
    from renalkit.usecases.ingest import ingest_words, request_of, run_ingest

    request = request_of(
        source=source,
        output=output,
        layout=layout,
        labels=labels,
        classes=classes,
        positive=positive,
        ordered=ordered,
        target=target,
        groups=groups,
        annotations=annotations,
        masks=masks,
        keep_pixels=keep_pixels,
        allow_headerless=allow_headerless,
        key_file=key_file,
        keep=keep,
        every=every,
        covariates=covariates,
        workers=workers,
    )
    with progress_bar() as progress:
        report = run_ingest(request, progress)
    give(report.as_json(), as_json, lambda: ingest_words(report))
    if report.refused:
        raise typer.Exit(Exit.PARTIAL)
