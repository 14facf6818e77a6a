"""How long work tells how far it is; fronts draw it, tests ignore it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """A stage with a number of steps; stages follow one another."""

    def stage(self, words: str, total: int | None = None) -> None:
        """Begin a stage of `total` steps (None when unknown)."""
        ...

    def advance(self, steps: int = 1, words: str = "") -> None:
        """Some steps of the stage are done; `words` say what is known now."""
        ...


class Silent:
    """Progress that nobody watches."""

    def stage(self, words: str, total: int | None = None) -> None:
        """Nothing to draw."""

    def advance(self, steps: int = 1, words: str = "") -> None:
        """Nothing to draw."""
