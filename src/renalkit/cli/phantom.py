"""Simulated patients: one command per kind of examination, one for whole patients."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from renalkit.cli.common import AsJson, Workers, give, progress_bar

app = typer.Typer(
    help="Make simulated patients with known truth: B-mode, contrast clips, CT.",
    no_args_is_help=True,
)

Patients = Annotated[int, typer.Option("-n", "--patients", help="Number of patients.")]
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
Uncompressed = Annotated[bool, typer.Option("--uncompressed", help="No JPEG in the DICOM files.")]
Seconds = Annotated[float, typer.Option(help="Length of a clip in s, 1 to 3600.")]
FramesPerSecond = Annotated[float, typer.Option("--fps", help="Frames per second, 0.5 to 60.")]


def _faults(names: str) -> Any:
    words = f"Fault put in on purpose, and in which share of patients: {names}."
    return typer.Option("--fault", metavar="NAME=SHARE", help=words)


StillFaults = Annotated[
    list[str] | None, _faults("wrong_units, duplicates, label_noise, leaking_calipers")
]
ClipFaults = Annotated[
    list[str] | None,
    _faults("missing_frames, wrong_units, duplicates, label_noise, leaking_calipers"),
]
CtFaults = Annotated[
    list[str] | None, _faults("missing_frames, tilt, wrong_units, duplicates, label_noise")
]


def _make(plan: Any, out: Path, workers: int, as_json: bool) -> None:
    from renalkit.usecases.phantom import make_phantom, phantom_words

    with progress_bar() as progress:
        found = make_phantom(plan, out, progress, workers)
    give(found, as_json, lambda: phantom_words(found, out))


@app.command()
def us(
    out: OutFolder,
    patients: Patients = 48,
    seed: Seed = 0,
    level: LevelName = "default",
    target: TargetName = "malignancy",
    positive_share: PositiveShare = 0.6,
    normal_share: NormalShare = 0.0,
    fault: StillFaults = None,
    pictures: Annotated[
        bool, typer.Option("--pictures", help="PNG with masks instead of DICOM.")
    ] = False,
    size: Annotated[int, typer.Option(help="Side of a picture in px, 64 to 1024.")] = 256,
    uncompressed: Uncompressed = False,
    workers: Workers = 0,
    as_json: AsJson = False,
) -> None:
    """B-mode stills of kidneys with masses, several per patient."""
    from renalkit.usecases.phantom_plans import People, us_plan

    people = People(patients, seed, level, target, positive_share, normal_share, fault or ())
    plan = us_plan(people, pictures=pictures, size=size, uncompressed=uncompressed)
    _make(plan, out, workers, as_json)


@app.command()
def ceus(
    out: OutFolder,
    patients: Patients = 12,
    seed: Seed = 0,
    level: LevelName = "default",
    target: TargetName = "malignancy",
    positive_share: PositiveShare = 0.6,
    normal_share: NormalShare = 0.0,
    fault: ClipFaults = None,
    seconds: Seconds = 60.0,
    fps: FramesPerSecond = 10.0,
    jitter: Annotated[
        float, typer.Option(help="SD of the pause between frames as a share of it, 0 to 0.3.")
    ] = 0.0,
    rows: Annotated[int, typer.Option(help="Rows of a frame, 240 to 2160.")] = 600,
    cols: Annotated[int, typer.Option(help="Columns of a frame, 320 to 3840.")] = 800,
    layout: Annotated[
        str | None,
        typer.Option(help="Panels: b-left, b-right, b-top or b-bottom; drawn if not set."),
    ] = None,
    pairs: Annotated[
        int | None, typer.Option(help="So many (1 to 99) cropped frame pairs as PNG, no clip.")
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            help="Around the mass in --pairs, as a share of its box, 0 to 0.3; 0.1 if not set."
        ),
    ] = None,
    uncompressed: Uncompressed = False,
    workers: Workers = 0,
    as_json: AsJson = False,
) -> None:
    """Contrast clips with B-mode beside, or cropped frame pairs."""
    from renalkit.usecases.phantom_plans import People, ceus_plan

    people = People(patients, seed, level, target, positive_share, normal_share, fault or ())
    plan = ceus_plan(
        people,
        clip=(seconds, fps, jitter),
        screen=(rows, cols, layout),
        pairs=pairs,
        margin=margin,
        uncompressed=uncompressed,
    )
    _make(plan, out, workers, as_json)


@app.command()
def cohort(
    out: OutFolder,
    patients: Patients = 12,
    seed: Seed = 0,
    level: LevelName = "default",
    target: TargetName = "malignancy",
    positive_share: PositiveShare = 0.6,
    normal_share: NormalShare = 0.0,
    fault: ClipFaults = None,
    seconds: Seconds = 60.0,
    fps: FramesPerSecond = 10.0,
    workers: Workers = 0,
    as_json: AsJson = False,
) -> None:
    """Whole patients: stills and contrast clip, covariates, readings."""
    from renalkit.usecases.phantom_plans import People, cohort_plan

    people = People(patients, seed, level, target, positive_share, normal_share, fault or ())
    _make(cohort_plan(people, clip=(seconds, fps, 0.0)), out, workers, as_json)


@app.command()
def ct(
    out: OutFolder,
    patients: Annotated[
        int | None,
        typer.Option("-n", "--patients", help="Number of patients; 4, or all --shapes."),
    ] = None,
    seed: Seed = 0,
    normal_share: Annotated[
        float | None, typer.Option(help="Share of patients without a mass; 0.1 if not set.")
    ] = None,
    fault: CtFaults = None,
    phases: Annotated[
        str,
        typer.Option(help="non-contrast, corticomedullary, nephrographic, excretory; by commas."),
    ] = "nephrographic",
    matrix: Annotated[
        int | None, typer.Option(help="Rows and columns, 64 to 1024; 512 if not set.")
    ] = None,
    slice_mm: Annotated[
        float | None,
        typer.Option(help="Distance of slices in mm, 0.4 to 10; drawn if not set."),
    ] = None,
    kidneys: Annotated[
        str | None,
        typer.Option(help="drawn (if not set), both, left_only, right_only or horseshoe."),
    ] = None,
    aml_share: Annotated[
        float, typer.Option(help="Share of AML among the tumours, 0 to 0.94.")
    ] = 0.1,
    tumour_mm: Annotated[
        str | None,
        typer.Option(
            metavar="LEAST,MOST",
            help="Diameters of tumours in mm, 3 to 130; as in KiTS if not set.",
        ),
    ] = None,
    cyst_mm: Annotated[
        str | None,
        typer.Option(
            metavar="LEAST,MOST", help="Diameters of cysts in mm, 2 to 90; as in KiTS if not set."
        ),
    ] = None,
    shapes: Annotated[
        Path | None,
        typer.Option(
            help="Masks (NIfTI: 1 kidney, 2 tumour, 3 cyst) whose shapes the scans have, on their "
            "grid; a file or a folder such as KiTS."
        ),
    ] = None,
    spacing: Annotated[
        str | None, typer.Option(metavar="Z,Y,X", help="Bring --shapes to voxels of so many mm.")
    ] = None,
    around: Annotated[
        str | None,
        typer.Option(
            metavar="Z,Y,X", help="Body added on each side of --shapes in mm, each 0 to 300."
        ),
    ] = None,
    workers: Workers = 0,
    as_json: AsJson = False,
) -> None:
    """Abdominal CT series with renal masses, cysts and look-alikes."""
    from renalkit.usecases.phantom_plans import People, ct_plan, only_drawn, only_painted

    wanted = [phase.strip() for phase in phases.split(",")]
    drawn = {
        "normal-share": normal_share,
        "matrix": matrix,
        "slice-mm": slice_mm,
        "kidneys": kidneys,
        "tumour-mm": tumour_mm,
        "cyst-mm": cyst_mm,
    }
    if shapes is not None:
        from renalkit.usecases.phantom_plans import painted_plan
        from renalkit.usecases.phantom_shapes import find_masks

        only_drawn(drawn)
        files = find_masks(shapes)
        people = People(len(files) if patients is None else patients, seed, faults=fault or ())
        plan = painted_plan(
            people,
            files,
            phases=wanted,
            spacing=spacing,
            around=around,
            aml_share=aml_share,
        )
    else:
        only_painted({"spacing": spacing, "around": around})
        people = People(
            4 if patients is None else patients,
            seed,
            normal_share=0.1 if normal_share is None else normal_share,
            faults=fault or (),
        )
        plan = ct_plan(
            people,
            phases=wanted,
            matrix=512 if matrix is None else matrix,
            slice_mm=slice_mm,
            kidneys=kidneys or "drawn",
            aml_share=aml_share,
            tumour_mm=tumour_mm,
            cyst_mm=cyst_mm,
        )
    _make(plan, out, workers, as_json)
