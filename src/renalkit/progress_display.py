"""How progress is drawn on standard error: a bar with time left, or plain lines in a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LINE_SECONDS = 20.0


class Display:
    """A rich progress bar per stage; finished stages stay visible."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[words]}"),
            console=Console(stderr=True),
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def stage(self, words: str, total: int | None = None) -> None:
        """Begin a stage."""
        self._task = self._progress.add_task(words, total=total, words="")

    def advance(self, steps: int = 1, words: str = "") -> None:
        """Move the current stage on."""
        if self._task is not None:
            self._progress.update(self._task, advance=steps, words=words)


class Lines:
    """Plain lines for logs: each stage, then at most one line every `LINE_SECONDS`."""

    def __init__(self) -> None:
        self._done, self._total, self._words = 0, 0, ""
        self._started = self._last = time.monotonic()

    def stage(self, words: str, total: int | None = None) -> None:
        """Begin a stage."""
        self._done, self._total, self._words = 0, total or 0, words
        self._started = self._last = time.monotonic()
        sys.stderr.write(f"{words}\n")
        sys.stderr.flush()

    def advance(self, steps: int = 1, words: str = "") -> None:
        """Move the current stage on."""
        self._done += steps
        now = time.monotonic()
        if now - self._last < LINE_SECONDS and self._done != self._total:
            return
        self._last = now
        left = ""
        if self._total > self._done > 0:
            seconds = (now - self._started) / self._done * (self._total - self._done)
            left = f", about {seconds / 60:.1f} min left"
        of = f"/{self._total}" if self._total else ""
        sys.stderr.write(f"  {self._words}: {self._done}{of}{left} {words}".rstrip() + "\n")
        sys.stderr.flush()
