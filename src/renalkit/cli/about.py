"""What is installed, and does it work?"""

from __future__ import annotations

import typer

from renalkit import __version__
from renalkit.cli.common import AsJson, give
from renalkit.errors import Exit


def info(as_json: AsJson = False) -> None:
    """Versions, systems with their cards, codecs. Starts at once."""
    from renalkit.usecases.describe import describe, describe_words

    found = describe()
    give(found, as_json, lambda: describe_words(found))


def doctor(as_json: AsJson = False) -> None:
    """Check this installation: codecs, torch, devices, disk, and the extra to install."""
    from renalkit.usecases.describe import diagnose, diagnose_words

    found = diagnose()
    give(found, as_json, lambda: diagnose_words(found))
    if not found["ok"]:
        raise typer.Exit(Exit.USAGE)


def version() -> None:
    """The version."""
    typer.echo(__version__)
