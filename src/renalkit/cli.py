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
from renalkit.errors import Exit, RenalkitError

if TYPE_CHECKING:
    from renalkit.usecases.progress import Progress

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
        app(standalone_mode=False)
    except RenalkitError as error:
        say(f"renalkit: {error}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        say("renalkit: interrupted; run the same command again to resume")
        sys.exit(Exit.INTERRUPTED)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except typer.Abort:
        sys.exit(Exit.INTERRUPTED)
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
