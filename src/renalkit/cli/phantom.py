"""Simulated patients: one command per kind of examination, one for whole patients."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from renalkit.cli.common import AsJson, give, progress_bar

app = typer.Typer(
    help="Make simulated patients with known truth: B-mode, contrast clips, CT.",
    no_args_is_help=True,
)

Patients = Annotated[int, typer.Option("-n", "--patients", min=1, help="Number of patients.")]
Seed = Annotated[int, typer.Option(help="Same seed, same files.")]
OutFolder = Annotated[
    Path, typer.Option("-o", "--out", help="Folder to make; must be new or empty.")
]
LevelName = Annotated[str, typer.Option(help="Difficulty: easy, default or hard.")]
TargetName = Annotated[str, typer.Option(help="Classes: malignancy or grade.")]
PositiveShare = Annotated[
    float, typer.Option(help="Malignant (or high-grade) share of the masses.")
]
NormalShare = Annotated[float, typer.Option(help="Share of patients without a mass.")]
FaultShares = Annotated[
    list[str] | None,
    typer.Option(
        "--fault",
        metavar="NAME=SHARE",
        help="Fault put in on purpose: missing_frames, tilt, wrong_units, duplicates, "
        "label_noise, leaking_calipers.",
    ),
]
Workers = Annotated[int, typer.Option(min=0, max=64, help="Processes; 0 is one per core.")]
Uncompressed = Annotated[bool, typer.Option("--uncompressed", help="No JPEG in the DICOM files.")]
Seconds = Annotated[float, typer.Option(help="Length of a clip in s.")]
FramesPerSecond = Annotated[float, typer.Option("--fps", help="Frames per second.")]
LayoutName = Annotated[
    str | None, typer.Option(help="Panels: b-left, b-right, b-top or b-bottom; drawn if not set.")
]


def _make_phantom(plan: Any, out: Path, workers: int, as_json: bool) -> None:
    from renalkit.usecases.phantom import make_phantom

    with progress_bar() as progress:
        found = make_phantom(plan, out, progress, workers)
    give(
        found,
        as_json,
        lambda: (
            f"{found['n_patients']} simulated patients, {found['n_images']} B-mode pictures, "
            f"{found['n_frames']} contrast frames: {out}"
        ),
    )


@app.command("us")
def phantom_us(
    out: OutFolder,
    patients: Patients = 48,
    seed: Seed = 0,
    level: LevelName = "default",
    target: TargetName = "malignancy",
    positive_share: PositiveShare = 0.6,
    normal_share: NormalShare = 0.0,
    fault: FaultShares = None,
    pictures: Annotated[
        bool, typer.Option("--pictures", help="PNG with masks instead of DICOM.")
    ] = False,
    size: Annotated[int, typer.Option(min=64, max=1024, help="Side of a picture in px.")] = 256,
    uncompressed: Uncompressed = False,
    workers: Workers = 0,
    as_json: AsJson = False,
) -> None:
    """B-mode stills of kidneys with masses, several per patient."""
    from renalkit.usecases.phantom import patient_plan, us_plan

    drawn = patient_plan(patients, seed, level, target, (positive_share, normal_share), fault or [])
    plan = us_plan(drawn, pictures=pictures, size=size, uncompressed=uncompressed)
    _make_phantom(plan, out, workers, as_json)


@app.command("ceus")
def phantom_ceus(
    out: OutFolder,
    patients: Patients = 12,
    seed: Seed = 0,
    level: LevelName = "default",
    target: TargetName = "malignancy",
    positive_share: PositiveShare = 0.6,
    normal_share: NormalShare = 0.0,
    fault: FaultShares = None,
    seconds: Seconds = 60.0,
    fps: FramesPerSecond = 10.0,
    jitter: Annotated[float, typer.Option(help="SD of the pause between frames, as a share.")] = 0,
    rows: Annotated[int, typer.Option(help="Rows of a frame.")] = 600,
    cols: Annotated[int, typer.Option(help="Columns of a frame.")] = 800,
    layout: LayoutName = None,
    pairs: Annotated[
        int | None, typer.Option(min=1, help="So many cropped frame pairs instead of a clip.")
    ] = None,
    uncompressed: Uncompressed = False,
    workers: Workers = 0,
    as_json: AsJson = False,
) -> None:
    """Contrast clips with B-mode beside, or cropped frame pairs."""
    from renalkit.usecases.phantom import ceus_plan, patient_plan

    drawn = patient_plan(patients, seed, level, target, (positive_share, normal_share), fault or [])
    plan = ceus_plan(
        drawn,
        clip=(seconds, fps, jitter),
        screen=(rows, cols, layout),
        pairs=pairs,
        uncompressed=uncompressed,
    )
    _make_phantom(plan, out, workers, as_json)


@app.command("cohort")
def phantom_cohort(
    out: OutFolder,
    patients: Patients = 12,
    seed: Seed = 0,
    level: LevelName = "default",
    target: TargetName = "malignancy",
    positive_share: PositiveShare = 0.6,
    normal_share: NormalShare = 0.0,
    fault: FaultShares = None,
    seconds: Seconds = 60.0,
    fps: FramesPerSecond = 10.0,
    workers: Workers = 0,
    as_json: AsJson = False,
) -> None:
    """Whole patients: B-mode stills, contrast clip, covariates, readings of radiologists."""
    from renalkit.usecases.phantom import cohort_plan, patient_plan

    drawn = patient_plan(patients, seed, level, target, (positive_share, normal_share), fault or [])
    _make_phantom(cohort_plan(drawn, clip=(seconds, fps, 0.0)), out, workers, as_json)


@app.command("ct")
def phantom_ct(
    out: OutFolder,
    patients: Patients = 4,
    seed: Seed = 0,
    normal_share: NormalShare = 0.1,
    fault: FaultShares = None,
    phases: Annotated[
        str,
        typer.Option(help="non-contrast, corticomedullary, nephrographic, excretory; by commas."),
    ] = "nephrographic",
    matrix: Annotated[int, typer.Option(min=64, max=1024, help="Rows and columns.")] = 512,
    slice_mm: Annotated[
        float | None, typer.Option(help="Distance of slices in mm; drawn if not set.")
    ] = None,
    kidneys: Annotated[
        str, typer.Option(help="drawn, both, left_only, right_only or horseshoe.")
    ] = "drawn",
    workers: Workers = 0,
    as_json: AsJson = False,
) -> None:
    """Abdominal CT series with renal masses, cysts and look-alikes."""
    from renalkit.usecases.phantom import ct_plan

    plan = ct_plan(
        patients,
        seed,
        fault or [],
        phases=phases.split(","),
        normal_share=normal_share,
        matrix=matrix,
        slice_mm=slice_mm,
        kidneys=kidneys,
    )
    _make_phantom(plan, out, workers, as_json)
