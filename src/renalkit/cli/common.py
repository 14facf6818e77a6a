"""What the commands share: options, results, words, progress."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from renalkit.usecases.models import Model
    from renalkit.usecases.progress import Progress

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Workers = Annotated[int, typer.Option(min=0, max=64, help="Processes; 0 is one per core.")]
Readers = Annotated[
    int,
    typer.Option(
        "--workers",
        min=0,
        max=64,
        help="Processes that read DICOM ultrasound; 0 is one per core in long imports.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, e.g. train.epochs=10."),
]
Waive = Annotated[
    list[str] | None,
    typer.Option(help="Guard to waive by name, e.g. L03. The report prints every waiver."),
]
RunArgument = Annotated[Path, typer.Argument(help="Folder of one run.", exists=True)]


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


def model_of(path: Path, fast: str | None = None, cache: Path | None = None) -> Model:
    """The model at a path: a package, or a system of a run, which alone needs torch.

    fast, cache: of packages.
    """
    from renalkit.errors import ConfigError
    from renalkit.runtime.package import is_package

    if is_package(path):
        from renalkit.usecases.package_model import load_package_model, package_options

        return load_package_model(path, package_options(fast, cache))
    if fast is not None or cache is not None:
        raise ConfigError(["--fast, --cache: for model packages; make one with 'renalkit export'"])
    from renalkit.usecases.run_model import load_run_model

    return load_run_model(path)
