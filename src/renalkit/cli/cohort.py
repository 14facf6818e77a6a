"""Looking at a cohort, checking it, and taking its folds elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from renalkit.cli.common import AsJson, RunArgument, Waive, give, say
from renalkit.errors import Exit

app = typer.Typer(help="Look at a cohort and check it for leaks.", no_args_is_help=True)


@app.command("show")
def show(
    folder: Annotated[Path, typer.Argument(help="Cohort folder.", exists=True)],
    as_json: AsJson = False,
) -> None:
    """Flow chart counts, classes, scanners, sizes, defects and the account of files."""
    from renalkit.usecases.cohort import show, show_words

    summary = show(folder)
    give(summary.as_json(), as_json, lambda: show_words(summary))


@app.command("table")
def table(
    folder: Annotated[Path, typer.Argument(help="Cohort folder.", exists=True)],
    by: Annotated[
        str, typer.Option(help="What makes the columns: class, or a category such as site.")
    ] = "class",
    csv: Annotated[Path | None, typer.Option(help="Table to write as CSV.")] = None,
    as_json: AsJson = False,
) -> None:
    """Patient characteristics by class: means or medians, counts, tests, differences."""
    from renalkit.usecases.characteristics import cohort_table, table_words

    found = cohort_table(folder, by, csv)
    give(found, as_json, lambda: table_words(found))


@app.command("check")
def check(
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


@app.command("export-splits")
def export_splits(
    folder: RunArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="splits_final.json to write.")],
) -> None:
    """The folds of a run in nnU-Net's form."""
    from renalkit.usecases.run import export_splits

    export_splits(folder, output)
    say(f"wrote {output}")


@app.command("export-nnunet")
def export_nnunet(
    folder: Annotated[Path, typer.Argument(help="Cohort folder of CT volumes.", exists=True)],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Data set folder, such as Dataset007_Kidney.")
    ],
    as_json: AsJson = False,
) -> None:
    """The volumes and labels of a CT cohort as an nnU-Net raw data set."""
    from renalkit.store.cohorts import load_cohort
    from renalkit.writers.nnunet import write_nnunet

    cohort = load_cohort(folder)
    left = write_nnunet(output, cohort)
    count = len(cohort.studies) - len(left)
    words = [f"wrote {count} cases to {output}", *(f"left out {k}: {v}" for k, v in left.items())]
    give({"cases": count, "left_out": dict(left)}, as_json, lambda: "\n".join(words))
