"""Trained systems on new studies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from renalkit.cli.common import AsJson, Overrides, give, model_of, progress_bar
from renalkit.errors import ConfigError, Exit

if TYPE_CHECKING:
    from renalkit.usecases.cascade_model import CascadeModel
    from renalkit.usecases.cascade_predict import ScanOptions


def predict(
    model: Annotated[
        Path,
        typer.Argument(
            help="Model package, RUN/SYSTEM (mean of folds) or one fold folder.", exists=True
        ),
    ],
    source: Annotated[
        Path,
        typer.Argument(
            help="Image, DICOM file, video, folder or zip; for a CT cascade scans (DICOM, NIfTI).",
            exists=True,
        ),
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
    phase: Annotated[
        str | None,
        typer.Option(
            help="Contrast phase of the one CT scan: see 'ct lesions'; else its header's."
        ),
    ] = None,
    scan: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PHASE=FILE", help="Further CT scan on the same voxels, measured beside it."
        ),
    ] = None,
    any_phase: Annotated[
        bool, typer.Option("--any-phase", help="Look at CT of phases it was not trained on too.")
    ] = False,
    fast: Annotated[
        str | None, typer.Option(help="Faster mode of a package: bf16 or int8, where it has it.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for compiled networks of packages.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Class scores per patient and frame, masks and overlays for a new study; of CT scans tables of
    masses, segmentations, DICOM."""
    from renalkit.usecases.cascade_kind import holds_cascade

    if holds_cascade(model):  # what it needs takes a second to load: not for pictures
        from renalkit.usecases.cascade_predict import ScanOptions
        from renalkit.usecases.ct_lesions import scans_of

        of_pictures = {
            "--regions": regions,
            "--roi-model": roi_model,
            "--one-patient": one_patient,
            "--settings": settings,
            "--set": overrides,
            "--presets": presets,
            "--keep-pixels": keep_pixels,
        }
        _refuse_options(of_pictures, "for systems that look at pictures; this one looks at CT")
        _predict_scans(
            _cascade_of(model, fast, cache),
            (source, output),
            ScanOptions(phase, scans_of(scan or ()), any_phase),
            as_json=as_json,
        )
        return
    from renalkit.usecases.ceus_outliner import SystemOutliner
    from renalkit.usecases.ceus_settings import ceus_settings
    from renalkit.usecases.predict import predict_words, run_predict
    from renalkit.usecases.predict_input import InputOptions

    of_scans = {"--phase": phase, "--scan": scan, "--any-phase": any_phase}
    _refuse_options(of_scans, "for CT cascades; this system looks at pictures")
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


def _refuse_options(given: Mapping[str, object], words: str) -> None:
    problems = [f"{name}: {words}" for name, value in given.items() if value]
    if problems:
        raise ConfigError(problems)


def _cascade_of(path: Path, fast: str | None, cache: Path | None) -> CascadeModel:
    """The cascade at a path: a package, or folds of a run, which alone need torch."""
    from renalkit.runtime.package import is_package

    if is_package(path):
        from renalkit.usecases.cascade_package_model import cascade_of_package
        from renalkit.usecases.package_model import package_options

        return cascade_of_package(path, package_options(fast, cache))
    _refuse_options(
        {"--fast": fast, "--cache": cache}, "for model packages; make one with 'renalkit export'"
    )
    from renalkit.usecases.cascade_run_model import cascade_of_run

    return cascade_of_run(path)


def _predict_scans(
    cascade: CascadeModel, places: tuple[Path, Path], options: ScanOptions, *, as_json: bool
) -> None:
    from renalkit.usecases.cascade_predict import cascade_words, run_cascade_predict

    with progress_bar() as progress:
        found = run_cascade_predict(cascade, *places, options, progress)
    give(found, as_json, lambda: cascade_words(found))
    if found["refused"]:
        raise typer.Exit(Exit.PARTIAL)
