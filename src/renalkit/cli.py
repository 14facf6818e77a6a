"""The command line: parse, call one use case, print.

Words and progress go to standard error; with --json one JSON object goes to standard output.
Use cases are imported inside the commands, so that --help and info start at once and load no torch.

Exit codes: 0 done; 1 failed inside; 2 wrong option or experiment file; 3 input refused; 4 done, but
some files were refused; 5 a check found something not waived; 6 disk or store; 7 folder in use;
130 interrupted, the same command resumes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from renalkit import __version__
from renalkit.errors import Exit, MissingExtra, RenalkitError

if TYPE_CHECKING:
    from renalkit.usecases.progress import Progress

EXTRAS = dict.fromkeys(("torch", "lightning_fabric"), "install renalkit with the extra 'train'")
RESEARCH_ONLY = "Research software, not a medical device."

app = typer.Typer(
    name="renalkit",
    help="From a folder of renal ultrasound images to a patient-level report. " + RESEARCH_ONLY,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Exit codes: 0 done, 2 wrong settings, 3 input refused, 4 some files refused, "
    "5 check failed, 6 disk, 7 in use, 130 interrupted (run again to resume).",
)
cohort_app = typer.Typer(help="Look at a cohort and check it for leaks.", no_args_is_help=True)
app.add_typer(cohort_app, name="cohort")
phantom_app = typer.Typer(
    help="Make simulated patients with known truth: B-mode, contrast clips, CT.",
    no_args_is_help=True,
)
app.add_typer(phantom_app, name="phantom")

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, e.g. train.epochs=10."),
]
Waive = Annotated[
    list[str] | None,
    typer.Option(help="Guard to waive by name, e.g. L03. The report prints every waiver."),
]


def say(words: str) -> None:
    """Words for a person, on standard error."""
    typer.echo(words, err=True)


def give(result: Any, as_json: bool, words: Callable[[], str]) -> None:
    """The result of a command: one JSON object, or words."""
    if as_json:
        typer.echo(json.dumps(result, indent=2, sort_keys=True, allow_nan=False, default=str))
    else:
        typer.echo(words())


@contextmanager
def progress_bar() -> Generator[Progress]:
    """A progress display on standard error; plain lines when it is not a terminal."""
    from renalkit.progress_display import Display, Lines

    if sys.stderr.isatty():
        with Display() as display:
            yield display
    else:
        yield Lines()


def main() -> None:
    """Entry point: turns every error of renalkit into its message and exit code."""
    try:
        # Outside its standalone mode typer returns the code of typer.Exit, and 130 for Ctrl-C.
        code = app(standalone_mode=False) or Exit.OK
        if code == Exit.INTERRUPTED:
            raise KeyboardInterrupt
        sys.exit(code)
    except RenalkitError as error:
        say(f"renalkit: {error}")
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        say("renalkit: interrupted; run the same command again to resume")
        sys.exit(Exit.INTERRUPTED)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        say(f"renalkit: {MissingExtra(f'{package} is not installed', remedy=EXTRAS[package])}")
        sys.exit(Exit.USAGE)
    except BrokenPipeError:
        sys.exit(Exit.OK)
    except Exception as error:
        show = getattr(error, "show", None)  # click's usage errors draw themselves
        if show is None:
            raise
        show()
        sys.exit(Exit.USAGE)


@app.command()
def info(as_json: AsJson = False) -> None:
    """Versions, systems with their cards, codecs. Starts at once."""
    from renalkit.usecases.describe import describe, describe_words

    found = describe()
    give(found, as_json, lambda: describe_words(found))


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Check this installation: codecs, torch, devices, disk, and the extra to install."""
    from renalkit.usecases.describe import diagnose, diagnose_words

    found = diagnose()
    give(found, as_json, lambda: diagnose_words(found))
    if not found["ok"]:
        raise typer.Exit(Exit.USAGE)


@app.command()
def version() -> None:
    """The version."""
    typer.echo(__version__)


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


@phantom_app.command("us")
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


@phantom_app.command("ceus")
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


@phantom_app.command("cohort")
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


@phantom_app.command("ct")
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


@app.command()
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


@app.command()
def ingest(
    source: Annotated[Path, typer.Argument(help="Folder of images or DICOM files.", exists=True)],
    output: Annotated[Path, typer.Option("-o", "--output", help="Cohort folder.")],
    layout: Annotated[str, typer.Option(help="auto, dicom, images or busi.")] = "auto",
    labels: Annotated[
        Path | None, typer.Option(help="Label table (CSV); default labels.csv in the source.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Classes in order, e.g. benign,malignant.")
    ] = None,
    positive: Annotated[str | None, typer.Option(help="The positive class.")] = None,
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
        groups=groups,
        annotations=annotations,
        masks=masks,
        keep_pixels=keep_pixels,
        allow_headerless=allow_headerless,
        key_file=key_file,
        keep=keep,
        every=every,
    )
    with progress_bar() as progress:
        report = run_ingest(request, progress)
    give(report.as_json(), as_json, lambda: ingest_words(report))
    if report.refused:
        raise typer.Exit(Exit.PARTIAL)


@cohort_app.command("show")
def cohort_show(
    folder: Annotated[Path, typer.Argument(help="Cohort folder.", exists=True)],
    as_json: AsJson = False,
) -> None:
    """Flow chart counts, classes, scanners, sizes, defects and the account of files."""
    from renalkit.usecases.cohort import show, show_words

    summary = show(folder)
    give(summary.as_json(), as_json, lambda: show_words(summary))


@cohort_app.command("check")
def cohort_check(
    folder: Annotated[Path, typer.Argument(help="Cohort folder.", exists=True)],
    waive: Waive = None,
    as_json: AsJson = False,
) -> None:
    """Leaks, duplicates, label conflicts, outlying masks, burned-in marks, shortcut probes."""
    from renalkit.store.cohorts import load_cohort
    from renalkit.usecases.check import check

    report = check(load_cohort(folder), frozenset(waive or ()))
    give(report.to_json(), as_json, report.to_table)
    if report.blocking:
        raise typer.Exit(Exit.CHECK_FAILED)


RunsFolder = Annotated[
    Path, typer.Option("-o", "--output", help="Folder of runs; the run gets its own inside.")
]


ExperimentFile = Annotated[Path, typer.Argument(help="Experiment file (TOML).", exists=True)]
Processes = Annotated[int, typer.Option(min=1, max=64, help="Folds trained at the same time.")]


@app.command()
def run(
    experiment: ExperimentFile,
    output: RunsFolder = Path("runs"),
    overrides: Overrides = None,
    waive: Waive = None,
    processes: Processes = 1,
    as_json: AsJson = False,
) -> None:
    """Everything: check, split, train, evaluate, compare, report. Resumes per fold and inside."""
    from renalkit.usecases.run import RunRequest, run_experiment, run_words

    request = RunRequest(experiment, output, tuple(overrides or ()), tuple(waive or ()), processes)
    with progress_bar() as progress:
        found = run_experiment(request, progress)
    give(found, as_json, lambda: run_words(found))


@app.command()
def train(
    experiment: ExperimentFile,
    output: RunsFolder = Path("runs"),
    overrides: Overrides = None,
    waive: Waive = None,
    processes: Processes = 1,
    as_json: AsJson = False,
) -> None:
    """Check, split and train; predictions of every fold are kept. Resumes."""
    from renalkit.usecases.run import RunRequest, train_experiment, train_words

    request = RunRequest(experiment, output, tuple(overrides or ()), tuple(waive or ()), processes)
    with progress_bar() as progress:
        found = train_experiment(request, progress)
    give(found, as_json, lambda: train_words(found))


RunArgument = Annotated[Path, typer.Argument(help="Folder of one run.", exists=True)]


@app.command()
def evaluate(
    folder: RunArgument,
    cohort: Annotated[Path | None, typer.Option(help="Cohort folder, when it has moved.")] = None,
    as_json: AsJson = False,
) -> None:
    """Figures from the stored predictions, with intervals over patients. Needs no torch."""
    from renalkit.usecases.evaluate import evaluate_run, metrics_words

    with progress_bar() as progress:
        found = evaluate_run(folder, progress, cohort)
    give(found, as_json, lambda: metrics_words(found))


@app.command()
def compare(
    target: Annotated[Path, typer.Argument(help="A run folder, or an experiment file to vary.")],
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=A,B,C", help="Train a variant per value, e.g. input.size=64,128."
        ),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="P1-ablation or P1-input-size, on an experiment file.")
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="System the others are compared with; default the first.")
    ] = None,
    output: RunsFolder = Path("runs"),
    overrides: Overrides = None,
    waive: Waive = None,
    as_json: AsJson = False,
) -> None:
    """Several systems on the same folds in one table, with paired differences."""
    from renalkit.usecases.compare import CompareRequest, compare_words, run_compare

    request = CompareRequest(
        target,
        tuple(vary or ()),
        preset,
        reference,
        output,
        tuple(overrides or ()),
        tuple(waive or ()),
    )
    with progress_bar() as progress:
        found = run_compare(request, progress)
    give(found, as_json, lambda: compare_words(found))


@app.command()
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


@app.command()
def report(
    folder: RunArgument,
    cohort: Annotated[
        Path | None, typer.Option(help="Cohort folder, when it has moved; pictures need it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write report.html again from the stored predictions. Needs no torch."""
    from renalkit.usecases.report import write_report

    with progress_bar() as progress:
        path = write_report(folder, cohort, progress)
    give({"report": str(path)}, as_json, lambda: f"Open {path}")


@cohort_app.command("export-splits")
def cohort_export_splits(
    folder: RunArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="splits_final.json to write.")],
) -> None:
    """The folds of a run in nnU-Net's form."""
    from renalkit.usecases.run import export_splits

    export_splits(folder, output)
    say(f"wrote {output}")
