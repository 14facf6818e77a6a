"""The command line: parse, call one use case, print.

One file per group of commands; this one lists them in the order of --help and ends every command
with its exit code. Words and progress go to standard error; with --json one JSON object goes to
standard output. Use cases are imported inside the commands, so that --help and info start at once
and load no torch.

Exit codes: 0 done; 1 failed inside; 2 wrong option or experiment file; 3 input refused; 4 done, but
some files were refused; 5 a check found something not waived; 6 disk or store; 7 folder in use;
130 interrupted, the same command resumes.
"""

from __future__ import annotations

import sys

import typer

from renalkit.cli import (
    about,
    ceus,
    cohort,
    ct,
    experiment,
    explain,
    export,
    ingest,
    phantom,
    predict,
    readers,
    reporting,
    shift,
    statistics,
)
from renalkit.cli.common import say
from renalkit.errors import EXTRA_OF, Exit, MissingExtra, RenalkitError

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

for command in (
    *(about.info, about.doctor, about.version),
    *(ingest.frames, ingest.ingest),
    *(experiment.run, experiment.train, experiment.evaluate, experiment.compare),
    experiment.reproduce,
    *(export.export, predict.predict, explain.explain),
    *(experiment.report, reporting.checklist, reporting.card),
    experiment.verify,
    *(shift.external, shift.drift),
    *(statistics.stats, statistics.plan, statistics.audit),
):
    app.command()(command)
app.add_typer(cohort.app, name="cohort")
app.add_typer(ceus.app, name="ceus")
app.add_typer(ct.app, name="ct")
app.add_typer(readers.app, name="readers")
app.add_typer(phantom.app, name="phantom")


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
        if package not in EXTRA_OF:
            raise
        remedy = f"install renalkit with the extra '{EXTRA_OF[package]}'"
        say(f"renalkit: {MissingExtra(f'{package} is not installed', remedy=remedy)}")
        sys.exit(Exit.USAGE)
    except BrokenPipeError:
        sys.exit(Exit.OK)
    except Exception as error:
        show = getattr(error, "show", None)  # click's usage errors draw themselves
        if show is None:
            raise
        show()
        sys.exit(Exit.USAGE)
