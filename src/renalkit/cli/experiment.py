"""Training, figures, comparison and report of an experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from renalkit.cli.common import AsJson, Overrides, RunArgument, Waive, give, progress_bar
from renalkit.errors import Exit

RunsFolder = Annotated[
    Path, typer.Option("-o", "--output", help="Folder of runs; the run gets its own inside.")
]

ExperimentFile = Annotated[Path, typer.Argument(help="Experiment file (TOML).", exists=True)]
Processes = Annotated[int, typer.Option(min=1, max=64, help="Folds trained at the same time.")]
InitFrom = Annotated[
    list[str] | None,
    typer.Option(
        "--init-from",
        metavar="[LABEL=]RUN/SYSTEM",
        help="Start every fold from a model of an earlier run, or of a model package, that was not "
        "trained with its validation or test patients, nor chosen with its test patients; with "
        "LABEL= one system only.",
    ),
]


def run(
    experiment: ExperimentFile,
    output: RunsFolder = Path("runs"),
    overrides: Overrides = None,
    waive: Waive = None,
    processes: Processes = 1,
    init_from: InitFrom = None,
    as_json: AsJson = False,
) -> None:
    """Everything: check, split, train, evaluate, compare, report. Resumes per fold and inside."""
    from renalkit.usecases.run import run_experiment, run_words
    from renalkit.usecases.run_request import RunRequest

    request = RunRequest(
        experiment,
        output,
        tuple(overrides or ()),
        tuple(waive or ()),
        processes,
        tuple(init_from or ()),
    )
    with progress_bar() as progress:
        found = run_experiment(request, progress)
    give(found, as_json, lambda: run_words(found))


def train(
    experiment: ExperimentFile,
    output: RunsFolder = Path("runs"),
    overrides: Overrides = None,
    waive: Waive = None,
    processes: Processes = 1,
    init_from: InitFrom = None,
    as_json: AsJson = False,
) -> None:
    """Check, split and train; predictions of every fold are kept. Resumes."""
    from renalkit.usecases.run import train_experiment, train_words
    from renalkit.usecases.run_request import RunRequest

    request = RunRequest(
        experiment,
        output,
        tuple(overrides or ()),
        tuple(waive or ()),
        processes,
        tuple(init_from or ()),
    )
    with progress_bar() as progress:
        found = train_experiment(request, progress)
    give(found, as_json, lambda: train_words(found))


def evaluate(
    folder: RunArgument,
    cohort: Annotated[Path | None, typer.Option(help="Cohort folder, when it has moved.")] = None,
    outlines: Annotated[
        Path | None,
        typer.Option(help="Readers' outlines (CSV): Dice between readers as ceiling.", exists=True),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Figures from the stored predictions, with intervals over patients. Needs no torch."""
    from renalkit.usecases.evaluate import evaluate_run, metrics_words

    with progress_bar() as progress:
        found = evaluate_run(folder, progress, cohort, outlines)
    give(found, as_json, lambda: metrics_words(found))


def compare(
    target: Annotated[Path, typer.Argument(help="A run folder, or an experiment file to vary.")],
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=A,B,C", help="Train a variant per value, e.g. input.size=64,128."
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="P1-ablation, P1-input-size, P2-backbones or P2-fusion, on an experiment file."
        ),
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="System the others are compared with; default the first.")
    ] = None,
    output: RunsFolder = Path("runs"),
    overrides: Overrides = None,
    waive: Waive = None,
    processes: Processes = 1,
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
        processes,
    )
    with progress_bar() as progress:
        found = run_compare(request, progress)
    give(found, as_json, lambda: compare_words(found))


def report(
    folder: RunArgument,
    cohort: Annotated[
        Path | None, typer.Option(help="Cohort folder, when it has moved; pictures need it.")
    ] = None,
    pdf: Annotated[
        bool, typer.Option("--pdf", help="report.pdf too; needs the extra 'pdf'.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write report.html again from the stored predictions. Needs no torch."""
    from renalkit.usecases.report import write_report

    with progress_bar() as progress:
        path = write_report(folder, cohort, progress, pdf=pdf)
    made = {"report": str(path)} | ({"pdf": str(path.with_suffix(".pdf"))} if pdf else {})
    give(made, as_json, lambda: f"Open {' or '.join(made.values())}")


def verify(
    folder: RunArgument,
    cohort: Annotated[Path | None, typer.Option(help="Cohort folder, when it has moved.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check hashes and folds of a finished run, and compute every figure again. Needs no torch."""
    from renalkit.usecases.verify import verify_run, verify_words

    with progress_bar() as progress:
        found = verify_run(folder, progress, cohort)
    give(found, as_json, lambda: verify_words(found))
    if not found["ok"]:
        raise typer.Exit(Exit.STORE)


def reproduce(
    paper: Annotated[str, typer.Argument(help="P1, P2, P3, P4 or P5.")],
    cohort: Annotated[Path, typer.Argument(help="Cohort folder.", exists=True)],
    output: RunsFolder = Path("runs"),
    profile: Annotated[
        str, typer.Option(help="faithful (needs a GPU) or cpu (two cores, hours).")
    ] = "faithful",
    variant: Annotated[
        str | None, typer.Option(help="P3: kfold or holdout, both by default; P2: perfusion.")
    ] = None,
    readings: Annotated[
        Path | None, typer.Option(help="What readers said (CSV), for their rows.", exists=True)
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option(help="The cohort's key, when it has moved.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run.")] = None,
    overrides: Overrides = None,
    waive: Waive = None,
    processes: Processes = 1,
    init_from: InitFrom = None,
    as_json: AsJson = False,
) -> None:
    """A paper's protocol on your cohort: its table, published beside measured. Resumes."""
    from renalkit.usecases.reproduce import ReproduceRequest, reproduce_words, run_reproduce

    request = ReproduceRequest(
        paper=paper,
        cohort=cohort,
        output=output,
        profile=profile,
        variant=variant,
        readings=readings,
        key_file=key_file,
        overrides=tuple(overrides or ()),
        waive=tuple(waive or ()),
        processes=processes,
        name=name,
        init_from=tuple(init_from or ()),
    )
    with progress_bar() as progress:
        found = run_reproduce(request, progress)
    give(found, as_json, lambda: reproduce_words(found))
